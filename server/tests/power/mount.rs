//! The disk as a file system, by FUSE.

use std::{
    ffi::OsStr,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags, spawn_mount,
};
use parking_lot::Mutex;

use super::disk::{Disk, File, Folder, Node};

/// Time for which the kernel may remember names and attributes. Nothing changes behind its back.
const VALID: Duration = Duration::from_hours(1);

/// A disk, shared by its mounts and the test.
pub type SharedDisk = Arc<Mutex<Disk>>;

struct Mounted(SharedDisk);

/// Mounts the disk.
pub fn mount(disk: &SharedDisk, at: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("power-cuts".to_owned())];
    spawn_mount(Mounted(Arc::clone(disk)), at, &config)
}

fn attributes(disk: &Disk, number: u64) -> Option<FileAttr> {
    let (kind, perm, size) = match disk.nodes.get(&number)? {
        Node::File(file) => (FileType::RegularFile, file.mode, file.seen.len() as u64),
        Node::Folder(_) => (FileType::Directory, 0o700, 0),
    };
    Some(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

impl Mounted {
    /// Answers a request that changes nothing.
    fn read<R: Send + 'static>(&self, reply: R, answer: impl FnOnce(&mut Disk, R)) {
        let mut disk = self.0.lock();
        if let Some(reply) = disk.answer(reply) {
            answer(&mut disk, reply);
        }
    }

    /// Makes a change, which is not durable. If the power fails at it, it is not answered, but may
    /// have reached the disk.
    fn change<R: Send + 'static, T>(
        &self,
        reply: R,
        change: impl FnOnce(&mut Disk) -> T,
        answer: impl FnOnce(&mut Disk, R, T),
    ) {
        let mut disk = self.0.lock();
        let Some(reply) = disk.answer(reply) else { return };
        let result = change(&mut disk);
        disk.step();
        if let Some(reply) = disk.answer(reply) {
            answer(&mut disk, reply, result);
        }
    }

    /// Syncs, unless the power fails at it.
    fn sync(&self, number: INodeNo, reply: ReplyEmpty) {
        let mut disk = self.0.lock();
        let Some(reply) = disk.answer(reply) else { return };
        disk.step();
        if let Some(reply) = disk.answer(reply) {
            if disk.sync(number.0) { reply.ok() } else { reply.error(Errno::EIO) }
        }
    }
}

fn done(reply: ReplyEmpty, is_done: bool) {
    if is_done { reply.ok() } else { reply.error(Errno::ENOENT) }
}

fn entry(disk: &Disk, reply: ReplyEntry, number: Option<u64>) {
    match number.and_then(|number| attributes(disk, number)) {
        Some(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
        None => reply.error(Errno::ENOENT),
    }
}

fn attr(disk: &Disk, reply: ReplyAttr, number: INodeNo) {
    match attributes(disk, number.0) {
        Some(attributes) => reply.attr(&VALID, &attributes),
        None => reply.error(Errno::ENOENT),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "offsets and modes are small")]
impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.read(reply, |disk, reply| entry(disk, reply, disk.find(folder.0, name)));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.read(reply, |disk, reply| attr(disk, reply, number));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = |disk: &mut Disk| {
            let Some(file) = disk.file(number.0) else { return };
            if let Some(mode) = mode {
                file.mode = mode as u16 & 0o777;
            }
            if let Some(size) = size {
                file.set_length(size as usize);
            }
        };
        self.change(reply, change, |disk, reply, ()| attr(disk, reply, number));
    }

    fn mkdir(&self, _: &Request, folder: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let add = |disk: &mut Disk| disk.add(folder.0, name, Node::Folder(Folder::default()));
        self.change(reply, add, |disk, reply, number| entry(disk, reply, number));
    }

    fn unlink(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |disk: &mut Disk| disk.remove(folder.0, name);
        self.change(reply, remove, |_, reply, is_done| done(reply, is_done));
    }

    fn rename(
        &self,
        _: &Request,
        folder: INodeNo,
        from: &OsStr,
        other: INodeNo,
        to: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if folder != other {
            return reply.error(Errno::EXDEV);
        }
        let rename = |disk: &mut Disk| disk.rename(folder.0, from, to);
        self.change(reply, rename, |_, reply, is_done| done(reply, is_done));
    }

    fn create(
        &self,
        _: &Request,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mode = (mode & !umask) as u16 & 0o777;
        let add = |disk: &mut Disk| disk.add(folder.0, name, Node::File(File::new(mode)));
        self.change(reply, add, |disk, reply, number| {
            match number.and_then(|number| attributes(disk, number)) {
                Some(attributes) => reply.created(
                    &VALID,
                    &attributes,
                    Generation(0),
                    FileHandle(0),
                    FopenFlags::empty(),
                ),
                None => reply.error(Errno::ENOENT),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.read(reply, |disk, reply| match disk.file(number.0) {
            Some(file) => {
                let from = file.seen.len().min(offset as usize);
                let to = file.seen.len().min(from + size as usize);
                reply.data(&file.seen[from..to]);
            }
            None => reply.error(Errno::EISDIR),
        });
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = |disk: &mut Disk| match disk.file(number.0) {
            Some(file) => {
                file.write(offset as usize, data);
                data.len() as u32
            }
            None => 0,
        };
        self.change(reply, write, |_, reply, written| reply.written(written));
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocate = |disk: &mut Disk| {
            let end = (offset + length) as usize;
            if let Some(file) =
                disk.file(number.0).filter(|file| mode == 0 && file.seen.len() < end)
            {
                file.set_length(end);
            }
        };
        self.change(reply, allocate, |_, reply, ()| reply.ok());
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.read(reply, |_, reply| reply.ok());
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(number, reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if self.0.lock().refuses_folders {
            return reply.error(Errno::EINVAL);
        }
        self.sync(number, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.read(reply, |disk, mut reply| {
            let Some(folder) = disk.folder(number.0) else { return reply.error(Errno::ENOTDIR) };
            for (place, (name, number)) in (1..).zip(&folder.seen).skip(offset as usize) {
                let kind = match disk.nodes.get(number) {
                    Some(Node::Folder(_)) => FileType::Directory,
                    _ => FileType::RegularFile,
                };
                if reply.add(INodeNo(*number), place, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.read(reply, |_, reply| {
            reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
        });
    }
}
