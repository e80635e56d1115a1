//! A disk in memory, which knows what a loss of power leaves: all that was synced, and any part of
//! what was not.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap, HashSet},
    ffi::{OsStr, OsString},
    mem,
};

use fastrand::Rng;

/// The unit that a disk writes wholly or not at all, in bytes.
const SECTOR: usize = 512;
/// The number of the root folder.
pub const ROOT: u64 = 1;

/// Files and folders by their numbers. The numbers outlast a loss of power.
pub struct Disk {
    pub nodes: HashMap<u64, Node>,
    next: u64,
    power: Power,
    /// Number of changes and syncs until the power fails, and the reaction to it.
    countdown: Option<(usize, OnCut)>,
    /// Number of syncs of files that fail from now on, and the randomness of what they leave.
    failing: Option<(usize, Rng)>,
    /// `true` if folders cannot be synced, as on some file systems.
    pub refuses_folders: bool,
    /// Replies that the programs wait for while there is no power.
    unanswered: Vec<Box<dyn Any + Send>>,
}

type OnCut = Box<dyn Fn() + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// No request is answered.
    Failed,
    /// Each request fails, so that the programs that wait can be ended.
    Off,
}

pub enum Node {
    File(File),
    Folder(Folder),
}

/// A file, as the programs see it and as it is on disk.
#[derive(Default)]
pub struct File {
    pub mode: u16,
    pub seen: Vec<u8>,
    durable: Vec<u8>,
    /// Changes that were not synced, in order.
    pending: Vec<Change>,
}

enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

/// A folder, as the programs see it and as it is on disk.
#[derive(Default)]
pub struct Folder {
    pub seen: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    /// Changes that were not synced, in order.
    pending: Vec<NameChange>,
}

enum NameChange {
    Add(OsString, u64),
    Remove(OsString),
    /// Atomic, as in all journaling file systems.
    Rename(OsString, OsString),
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => write(contents, *offset, data),
            Self::Length(length) => contents.resize(*length, 0),
        }
    }

    /// Applies the change in part: each sector with the probability `kept`.
    fn apply_torn(&self, contents: &mut Vec<u8>, kept: f64, rng: &mut Rng) {
        match self {
            Self::Write { offset, data } => {
                let mut from = *offset;
                while from < offset + data.len() {
                    let to = (from / SECTOR + 1) * SECTOR;
                    let to = to.min(offset + data.len());
                    if rng.f64() < kept {
                        write(contents, from, &data[from - offset..to - offset]);
                    }
                    from = to;
                }
            }
            Self::Length(_) if rng.f64() < kept => self.apply(contents),
            Self::Length(_) => {}
        }
    }
}

fn write(contents: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(data);
}

impl File {
    pub fn new(mode: u16) -> Self {
        Self { mode, ..Self::default() }
    }

    pub fn write(&mut self, offset: usize, data: &[u8]) {
        self.change(Change::Write { offset, data: data.to_vec() });
    }

    pub fn set_length(&mut self, length: usize) {
        self.change(Change::Length(length));
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Keeps any part of the changes that were not synced. A later change may be kept without an
    /// earlier one.
    fn lose_power(&mut self, rng: &mut Rng) {
        self.fail_sync(rng);
        self.seen.clone_from(&self.durable);
    }

    /// Writes any part of the changes. No later sync writes the others, but the programs go on to
    /// see them. Linux does so, too.
    fn fail_sync(&mut self, rng: &mut Rng) {
        let kept = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]).unwrap_or_default();
        for change in mem::take(&mut self.pending) {
            change.apply_torn(&mut self.durable, kept, rng);
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<OsString, u64>) {
        match self {
            Self::Add(name, number) => {
                names.insert(name.clone(), *number);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(number) = names.remove(from) {
                    names.insert(to.clone(), number);
                }
            }
        }
    }
}

impl Folder {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Keeps the first of the changes that were not synced, any number of them.
    fn lose_power(&mut self, rng: &mut Rng) {
        let kept = rng.usize(..=self.pending.len());
        for change in mem::take(&mut self.pending).into_iter().take(kept) {
            change.apply(&mut self.durable);
        }
        self.seen.clone_from(&self.durable);
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            nodes: HashMap::from([(ROOT, Node::Folder(Folder::default()))]),
            next: ROOT + 1,
            power: Power::On,
            countdown: None,
            failing: None,
            refuses_folders: false,
            unanswered: Vec::new(),
        }
    }
}

impl Disk {
    /// Adds a file to a folder. Returns its number, or `None` if `folder` is no folder.
    pub fn add(&mut self, folder: u64, name: &OsStr, node: Node) -> Option<u64> {
        let number = self.next;
        let Some(Node::Folder(folder)) = self.nodes.get_mut(&folder) else { return None };
        folder.change(NameChange::Add(name.to_owned(), number));
        self.next += 1;
        self.nodes.insert(number, node);
        Some(number)
    }

    /// Returns the number of a file or folder.
    pub fn find(&self, folder: u64, name: &OsStr) -> Option<u64> {
        self.folder(folder)?.seen.get(name).copied()
    }

    pub fn folder(&self, number: u64) -> Option<&Folder> {
        match self.nodes.get(&number) {
            Some(Node::Folder(folder)) => Some(folder),
            _ => None,
        }
    }

    pub fn file(&mut self, number: u64) -> Option<&mut File> {
        match self.nodes.get_mut(&number) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Removes a name. Returns `false` if it does not exist. The content is kept, since the disk
    /// may still have the name.
    pub fn remove(&mut self, folder: u64, name: &OsStr) -> bool {
        match self.nodes.get_mut(&folder) {
            Some(Node::Folder(folder)) if folder.seen.contains_key(name) => {
                folder.change(NameChange::Remove(name.to_owned()));
                true
            }
            _ => false,
        }
    }

    /// Renames a file within a folder. Returns `false` if it does not exist.
    pub fn rename(&mut self, folder: u64, from: &OsStr, to: &OsStr) -> bool {
        match self.nodes.get_mut(&folder) {
            Some(Node::Folder(folder)) if folder.seen.contains_key(from) => {
                folder.change(NameChange::Rename(from.to_owned(), to.to_owned()));
                true
            }
            _ => false,
        }
    }

    /// Makes all changes of a file or folder durable. Returns `false` if that fails.
    pub fn sync(&mut self, number: u64) -> bool {
        match self.nodes.get_mut(&number) {
            Some(Node::File(file)) => {
                if let Some((left @ 1.., rng)) = &mut self.failing {
                    *left -= 1;
                    file.fail_sync(rng);
                    return false;
                }
                file.sync();
            }
            Some(Node::Folder(folder)) => folder.sync(),
            None => {}
        }
        true
    }

    /// Makes durable what the programs see.
    pub fn sync_all(&mut self) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => {
                    file.sync();
                    // A sync that failed has left out some.
                    file.durable.clone_from(&file.seen);
                }
                Node::Folder(folder) => folder.sync(),
            }
        }
    }

    /// Lets a number of syncs of files fail.
    pub fn fail_syncs(&mut self, count: usize, rng: Rng) {
        self.failing = Some((count, rng));
    }

    /// Lets the power fail after a number of further changes and syncs. Then calls `on_cut`, and
    /// answers no request.
    pub fn cut_after(&mut self, steps: usize, on_cut: impl Fn() + Send + 'static) {
        self.countdown = Some((steps, Box::new(on_cut)));
    }

    /// Lets the power fail now.
    pub fn cut(&mut self) {
        if self.power == Power::On {
            self.power = Power::Failed;
        }
        if let Some((_, on_cut)) = self.countdown.take() {
            on_cut();
        }
    }

    /// Counts a change or sync, which may be the last one.
    pub fn step(&mut self) {
        match &mut self.countdown {
            Some((0, _)) => self.cut(),
            Some((left, _)) => *left -= 1,
            None => {}
        }
    }

    /// Returns the reply if the disk can answer now.
    pub fn answer<R: Send + 'static>(&mut self, reply: R) -> Option<R> {
        match self.power {
            Power::On => return Some(reply),
            Power::Failed => self.unanswered.push(Box::new(reply)),
            // A reply that is dropped is an error for the program.
            Power::Off => {}
        }
        None
    }

    /// Lets the requests fail that were not answered, so that their programs can end.
    pub fn fail_requests(&mut self) {
        self.power = Power::Off;
        self.unanswered.clear();
    }

    /// Restores the power. Of the changes that were not synced, a random part is left.
    pub fn restore(&mut self, rng: &mut Rng) {
        // In the order of their numbers, so that a seed gives the same result.
        let mut numbers: Vec<_> = self.nodes.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            match self.nodes.get_mut(&number) {
                Some(Node::File(file)) => file.lose_power(rng),
                Some(Node::Folder(folder)) => folder.lose_power(rng),
                None => {}
            }
        }
        let mut reachable = HashSet::new();
        let mut folders = vec![ROOT];
        while let Some(number) = folders.pop() {
            if reachable.insert(number)
                && let Some(folder) = self.folder(number)
            {
                folders.extend(folder.seen.values());
            }
        }
        self.nodes.retain(|number, _| reachable.contains(number));
        self.power = Power::On;
        self.countdown = None;
        self.failing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds a file, and syncs the folder.
    fn file(disk: &mut Disk, name: &str) -> u64 {
        let number = disk.add(ROOT, OsStr::new(name), Node::File(File::default())).unwrap();
        disk.sync(ROOT);
        number
    }

    #[test]
    fn a_loss_of_power_leaves_what_was_synced() {
        for seed in 0..100 {
            let mut disk = Disk::default();
            let number = file(&mut disk, "a");
            disk.file(number).unwrap().write(0, &[1; 2000]);
            disk.sync(number);
            disk.add(ROOT, OsStr::new("b"), Node::File(File::default()));
            disk.cut();
            disk.restore(&mut Rng::with_seed(seed));
            assert_eq!(disk.file(number).unwrap().seen, [1; 2000]);
        }
    }

    #[test]
    fn a_loss_of_power_leaves_any_part_of_what_was_not_synced() {
        let (mut torn, mut whole, mut lost, mut renamed) = (0, 0, 0, 0);
        for seed in 0..100 {
            let mut disk = Disk::default();
            let number = file(&mut disk, "a");
            disk.file(number).unwrap().write(0, &[1; 4 * SECTOR]);
            disk.sync(number);
            disk.file(number).unwrap().write(100, &[2; 3 * SECTOR]);
            disk.rename(ROOT, OsStr::new("a"), OsStr::new("b"));
            disk.cut();
            disk.restore(&mut Rng::with_seed(seed));
            let names: Vec<_> = disk.folder(ROOT).unwrap().seen.keys().cloned().collect();
            assert_eq!(names.len(), 1, "a rename is atomic");
            renamed += u32::from(names == ["b"]);
            let contents = &disk.file(number).unwrap().seen;
            assert!(contents[..100].iter().all(|byte| *byte == 1));
            for sector in contents[SECTOR..].chunks(SECTOR).take(2) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is atomic");
            }
            let written = &contents[100..100 + 3 * SECTOR];
            if written.iter().all(|byte| *byte == 2) {
                whole += 1;
            } else if written.contains(&2) {
                torn += 1;
            } else {
                lost += 1;
            }
        }
        assert!(
            torn > 9 && whole > 9 && lost > 9 && renamed > 9,
            "{torn} {whole} {lost} {renamed}"
        );
    }
}
