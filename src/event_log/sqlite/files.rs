//! The files in the data folder, which only the server's own user may read.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Name of the database.
const DATABASE: &str = "log.db";

/// Returns the path of the database in a folder.
pub(super) fn database_in(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

/// Suffixes of the files that SQLite keeps beside a database.
pub(super) const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Creates a folder that only this user may enter, with its missing parents, unless it exists.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<_> = folder.ancestors().take_while(is_missing).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for folder in missing {
        // A power cut would take the folder with all that it has. But not every file system can
        // sync folders, and not every parent may be opened.
        if let Err(error) = folder.parent().map_or(Ok(()), sync_folder) {
            tracing::warn!(folder = %folder.display(), %error, "the new folder was not synced");
        }
    }
    Ok(())
}

/// Returns the options to create a file that only this user may read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Takes all rights from other users if the rest of the world has any.
///
/// Earlier versions created the files with such rights. A file that only its group may read stays
/// as it is: somebody chose that.
pub(super) fn make_private(file: &Path) {
    let Ok(metadata) = file.metadata() else { return };
    if metadata.permissions().mode() % 0o10 == 0 {
        return;
    }
    match fs::set_permissions(file, Permissions::from_mode(0o600)) {
        Ok(()) => tracing::info!(
            file = %file.display(),
            "other users could read this file; its mode is 0600 now"
        ),
        Err(error) => tracing::warn!(
            file = %file.display(), %error,
            "other users can read this file, and its mode cannot be changed"
        ),
    }
}

/// Returns the path of the file beside `file` whose name has a further suffix.
pub(super) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(file);
    path.push(suffix);
    path.into()
}

/// Removes a file, which may be missing.
pub(super) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the files that SQLite keeps beside a database. A journal of another database must not be
/// applied to the one that takes its place.
pub(super) fn remove_companions(database: &Path) -> io::Result<()> {
    COMPANIONS.iter().try_for_each(|suffix| remove(&beside(database, suffix)))
}

/// Moves the files of a database into a new folder beside it, and returns that folder.
pub(super) fn set_aside(database: &Path) -> io::Result<PathBuf> {
    to_folder_beside(database, |file, target| fs::rename(file, target))
}

/// Gives the files of a database a second name each, in a new folder beside it, and returns that
/// folder. A file system without hard links moves them.
pub(super) fn keep_aside(database: &Path) -> io::Result<PathBuf> {
    let keep = |file: &Path, target: &Path| match fs::hard_link(file, target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => fs::rename(file, target),
        linked => linked,
    };
    let folder = to_folder_beside(database, keep)?;
    // Not every file system can sync folders.
    let _ = sync_folder(&folder);
    Ok(folder)
}

/// Puts each file of a database into a new folder beside it, and returns that folder.
fn to_folder_beside(
    database: &Path,
    put: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let folder = beside(database, &format!("-set-aside-{now}"));
    create_folder(&folder)?;
    for suffix in [""].iter().chain(&COMPANIONS) {
        let file = beside(database, suffix);
        let Some(name) = file.file_name() else { continue };
        match put(&file, &folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(folder)
}

/// Moves a complete file to its final name, durably if the file system can sync folders.
pub(super) fn put_in_place(complete: &Path, file: &Path) -> io::Result<()> {
    File::open(complete)?.sync_all()?;
    fs::rename(complete, file)?;
    if let Err(error) = file.parent().map_or(Ok(()), sync_folder) {
        tracing::warn!(file = %file.display(), %error, "the folder of the new file was not synced");
    }
    Ok(())
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// The files of a log as they were when it was opened.
///
/// Writes to a file that was moved or deleted are lost to the next start, though the
/// process can go on to use it.
pub(super) struct Place(Vec<(PathBuf, Option<[u64; 2]>)>);

impl Place {
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(files.into_iter().map(|file| (file.clone(), device_and_inode(&file))).collect())
    }

    /// Returns `true` if all files are where they were.
    pub fn is_kept(&self) -> bool {
        self.0.iter().all(|(file, expected)| device_and_inode(file) == *expected)
    }
}

fn device_and_inode(file: &Path) -> Option<[u64; 2]> {
    file.metadata().ok().map(|metadata| [metadata.dev(), metadata.ino()])
}
