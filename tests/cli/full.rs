//! A disk that is full after every block of a copy in turn, and one that has no inodes left: on small
//! real file systems, each filled up but for so much. Whatever does not fit, each target is wholly old,
//! absent or wholly new, it is said once, nothing is left behind, and when there is room again the same
//! copy completes.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use nix::unistd::syncfs;

use super::support::{
    Background, Entry, Ran, Scratch, UCP, bytes, leftovers, listing, on_file_system, run, until,
};

const BLOCK: u64 = 4096;
const FULL: &str = "No space left on device (os error 28)";

/// A file system that is filled up, but for what a test leaves free.
struct Disk<'a> {
    place: &'a Scratch,
    filler: File,
    /// How many empty files there are, which take the inodes.
    empty: Cell<usize>,
}

impl<'a> Disk<'a> {
    fn new(place: &'a Scratch) -> Self {
        let filler = File::create(place.path("filler")).unwrap();
        place.make_directory("to");
        place.make_directory("empty");
        Self { place, filler, empty: Cell::new(0) }
    }

    /// Fills it up, but for so many blocks.
    fn leave(&self, blocks: u64) {
        // What was removed is free when that is on the disk.
        syncfs(&self.filler).unwrap();
        let mut length = self.filler.metadata().unwrap().len();
        for piece in [4 << 20, 64 << 10, BLOCK] {
            let more = |at: u64| {
                let (at, piece) = (i64::try_from(at).unwrap(), i64::try_from(piece).unwrap());
                fallocate(&self.filler, FallocateFlags::empty(), at, piece)
            };
            while more(length).is_ok() {
                length += piece;
            }
        }
        self.filler.set_len(length - blocks * BLOCK).unwrap();
        syncfs(&self.filler).unwrap();
    }

    /// Makes room.
    fn clear(&self) {
        self.filler.set_len(0).unwrap();
        syncfs(&self.filler).unwrap();
    }

    /// Makes empty files until there is no inode left, but for so many.
    fn leave_inodes(&self, count: usize) {
        while File::create_new(self.empty_path()).is_ok() {
            self.empty.set(self.empty.get() + 1);
        }
        self.remove_empty(count);
    }

    /// Removes so many empty files.
    fn remove_empty(&self, count: usize) {
        for _ in 0..count {
            self.empty.set(self.empty.get() - 1);
            fs::remove_file(self.empty_path()).unwrap();
        }
        syncfs(&self.filler).unwrap();
    }

    fn empty_path(&self) -> PathBuf {
        self.place.path(format!("empty/{}", self.empty.get()))
    }

    fn free_blocks(&self) -> u64 {
        syncfs(&self.filler).unwrap();
        statvfs(&self.place.path("")).unwrap().blocks_free()
    }
}

/// One kind of copy onto the disk.
struct Case {
    name: &'static str,
    options: &'static [&'static str],
    source: &'static str,
    /// Below the disk.
    target: &'static str,
    /// What stands there before.
    old: Old,
}

impl Case {
    fn is_tree(&self) -> bool {
        self.source == "tree"
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Old {
    Nothing,
    File,
    /// A tree with an old version of each file.
    Tree,
}

const fn case(
    name: &'static str,
    options: &'static [&'static str],
    source: &'static str,
    target: &'static str,
    old: Old,
) -> Case {
    Case { name, options, source, target, old }
}

/// Called in the source's directory, with `to` of the disk linked there.
const SMALL: [Case; 12] = [
    case("new", &[], "file", "new", Old::Nothing),
    case("new, through threads", &["--engine=threads"], "file", "new", Old::Nothing),
    case("replaced", &[], "file", "old", Old::File),
    case("replaced, durable", &["--durable=full"], "file", "old", Old::File),
    case("in place", &["--in-place"], "file", "old", Old::File),
    case("with a backup", &["-b"], "file", "old", Old::File),
    case("verified", &["--verify"], "file", "old", Old::File),
    case("tree in a stage", &["-a"], "tree", "tree", Old::Nothing),
    case("tree in a stage, durable", &["-a", "--durable=full"], "tree", "tree", Old::Nothing),
    case("tree as it comes", &["-a", "--stage=never"], "tree", "tree", Old::Nothing),
    case("tree onto an old one", &["-a"], "tree", "tree", Old::Tree),
    case("tree onto an old one, durable", &["-a", "--durable=full"], "tree", "tree", Old::Tree),
];

const LARGE: [Case; 5] = [
    case("large, direct", &["--direct=on"], "large", "new", Old::Nothing),
    case("large, cached", &["--direct=off"], "large", "old", Old::File),
    case("large, through threads", &["--engine=threads"], "large", "old", Old::File),
    case("large, to be durable", &["--durable=full"], "large", "old", Old::File),
    case("large, in place", &["--in-place"], "large", "old", Old::File),
];

/// Sizes of the files of the tree: none, within a block, some blocks.
const TREE: [(&str, usize); 6] =
    [("a", 0), ("b", 1), ("d/c", 4097), ("d/d", 20_000), ("d/e/f", 9000), ("g", 4096)];

fn make_sources(scratch: &Scratch) {
    scratch.write("file", bytes(50_001, 1));
    scratch.write("large", bytes((16 << 20) + 5, 9));
    scratch.make_directory("tree/d/e");
    for (number, (name, size)) in TREE.into_iter().enumerate() {
        scratch.write(format!("tree/{name}"), bytes(size, number as u64 + 2));
    }
    // A link of its own block.
    scratch.link("x".repeat(200), "tree/d/link");
    scratch.set_mode("tree/b", 0o640);
}

fn make_old(disk: &Disk<'_>, old: Old) {
    match old {
        Old::Nothing => {}
        Old::File => disk.place.write("to/old", "old"),
        Old::Tree => {
            disk.place.make_directory("to/tree/d/e");
            for (name, _) in TREE {
                disk.place.write(format!("to/tree/{name}"), "old");
            }
        }
    }
}

fn words(case: &Case, disk: &Disk<'_>) -> Vec<OsString> {
    let target = disk.place.path("to").join(case.target);
    let options = case.options.iter().map(OsString::from);
    let options = options.chain(case.is_tree().then(|| "-T".into()));
    options.chain([case.source.into(), target.into()]).collect()
}

/// Each line says that there is no room, on which file, and if that was a write's, at which byte.
#[track_caller]
fn says_full(ran: &Ran, what: &str) -> usize {
    assert_eq!(ran.code(), Some(8), "{what}: {ran:?}");
    for line in ran.stderr().lines() {
        let is_told = line.starts_with("ucp: ") && line.contains(" failed on ");
        assert!(is_told && line.contains(FULL), "{what}: {line}");
        let is_write = line.starts_with("ucp: write failed");
        assert!(!is_write || line.contains(" at byte "), "{what}: {line}");
    }
    ran.stderr().lines().count()
}

/// What is there of a copy that did not fit. `lines` failures were told of.
fn check(case: &Case, scratch: &Scratch, disk: &Disk<'_>, lines: usize, what: &str) {
    let to = disk.place.path("to");
    assert_eq!(leftovers(&to), Vec::<PathBuf>::new(), "{what}");
    if !case.is_tree() {
        assert_eq!(lines, 1, "{what}: told once");
        let names: Vec<_> = listing(&to).into_keys().collect();
        match case.old {
            Old::Nothing => assert_eq!(names, [Path::new("")], "{what}"),
            _ => assert_eq!(names, [Path::new(""), Path::new("old")], "{what}"),
        }
        // What is written in place is for who asked for that.
        if case.old == Old::File && !case.options.contains(&"--in-place") {
            assert_eq!(disk.place.read("to/old"), b"old", "{what}");
        }
        return;
    }
    let source = listing(&scratch.path("tree"));
    let copy = if to.join("tree").exists() { listing(&to.join("tree")) } else { [].into() };
    let mut missing = 0;
    for (name, whole) in source {
        let is_old = |entry: &Entry| {
            let old = fs::read(to.join("tree").join(&name));
            case.old == Old::Tree
                && matches!(entry, Entry::File { .. })
                && old.is_ok_and(|old| old == b"old")
        };
        match copy.get(&name) {
            // A directory that could not be filled need not be as its source.
            Some(Entry::Directory { .. }) => {}
            Some(entry) if *entry == whole => {}
            Some(entry) if is_old(entry) => missing += 1,
            Some(entry) => panic!("{what}: {name:?} is {entry:?}, neither old nor {whole:?}"),
            None => {
                let is_old = case.old == Old::Tree && matches!(whole, Entry::File { .. });
                assert!(!is_old, "{what}: {name:?} is gone");
                missing += 1;
            }
        }
    }
    // Of a directory that could not be made, nothing below is told of.
    assert!(lines >= 1 && lines <= missing.max(1), "{what}: {missing} missing, {lines} told");
}

/// Fails a copy with more and more left of what it needs, until that is enough; each time it completes
/// when there is more. `leave` fills the disk up, `clear` makes room again.
fn until_it_fits(
    case: &Case,
    scratch: &Scratch,
    disk: &Disk<'_>,
    counts: impl Iterator<Item = u64>,
    (leave, clear): (impl Fn(u64), impl Fn()),
) {
    let mut failed = 0;
    for count in counts {
        let what = format!("{}, {count} left", case.name);
        clear();
        make_old(disk, case.old);
        leave(count);
        let free = disk.free_blocks();
        let ran = scratch.ucp(words(case, disk));
        let fits = ran.code() == Some(0);
        if fits {
            ran.succeeds_silently();
        } else {
            failed += 1;
            let lines = says_full(&ran, &what);
            check(case, scratch, disk, lines, &what);
            let is_written_over = case.is_tree() || case.options.contains(&"--in-place");
            let taken = free.saturating_sub(disk.free_blocks());
            // The directory that the temporary was in may have grown.
            assert!(is_written_over || taken <= 1, "{what}: {taken} blocks are gone");
        }
        clear();
        scratch.ucp(words(case, disk)).succeeds_silently();
        check_complete(case, scratch, disk, &what);
        fs::remove_dir_all(disk.place.path("to")).unwrap();
        disk.place.make_directory("to");
        if fits {
            assert!(failed > 0, "{what}: it never failed");
            return;
        }
    }
    panic!("{}: it never fitted", case.name);
}

/// All is there, and nothing else.
fn check_complete(case: &Case, scratch: &Scratch, disk: &Disk<'_>, what: &str) {
    let to = disk.place.path("to");
    assert_eq!(leftovers(&to), Vec::<PathBuf>::new(), "{what}");
    let plain = |root: &Path| -> Vec<_> {
        let entries = listing(root).into_iter();
        entries.map(|(name, entry)| (name, entry.without_times())).collect()
    };
    // What stood there keeps its mode where it is written in place.
    let (want, got) = (plain(&scratch.path(case.source)), plain(&to.join(case.target)));
    assert!(want == got, "{what}: the copy that was made with room differs");
    let is_backed_up = case.options.contains(&"-b");
    assert_eq!(to.join("old~").exists(), is_backed_up, "{what}");
}

/// Each case on such a file system, with more and more blocks left.
fn at_every_block(kind: &str, size_bytes: u64, cases: &[Case], step: usize) {
    let scratch = Scratch::new();
    make_sources(&scratch);
    on_file_system(kind, size_bytes, |place| {
        let disk = Disk::new(place);
        for case in cases {
            let counts = (0..size_bytes / BLOCK).step_by(step);
            let ways = (|blocks| disk.leave(blocks), || disk.clear());
            until_it_fits(case, &scratch, &disk, counts, ways);
        }
    });
}

#[test]
fn memory_that_is_full_after_any_block_leaves_old_or_new() {
    require_root!();
    at_every_block("tmpfs", 4 << 20, &SMALL, 1);
}

#[test]
fn an_ext4_that_is_full_after_any_block_leaves_old_or_new() {
    require_root!();
    at_every_block("ext4", 16 << 20, &SMALL, 1);
}

#[test]
fn an_xfs_that_is_full_after_any_block_leaves_old_or_new() {
    require_root!();
    at_every_block("xfs", 300 << 20, &SMALL, 4);
}

/// Blocks in flight, past the page cache and through it; ext4 is asked for the room first.
#[test]
fn a_disk_that_is_full_anywhere_in_a_large_file_leaves_old_or_new() {
    require_root!();
    for (kind, size) in [("tmpfs", 48 << 20), ("ext4", 64 << 20)] {
        at_every_block(kind, size, &LARGE, 1000);
    }
}

#[test]
fn a_disk_without_inodes_leaves_old_or_new() {
    require_root!();
    let scratch = Scratch::new();
    make_sources(&scratch);
    for (kind, size) in [("tmpfs", 4 << 20), ("ext4", 16 << 20)] {
        on_file_system(kind, size, |place| {
            if kind == "tmpfs" {
                let options = ["-o", "remount,nr_inodes=100"];
                run(Command::new("mount").args(options).arg(place.path(""))).exits(0);
            }
            let disk = Disk::new(place);
            // What is written in place needs none.
            for case in SMALL.iter().filter(|case| !case.options.contains(&"--in-place")) {
                let leave = |inodes| disk.leave_inodes(usize::try_from(inodes).unwrap());
                let clear = || disk.remove_empty(disk.empty.get().min(50));
                until_it_fits(case, &scratch, &disk, 0..20, (leave, clear));
            }
        });
    }
}

#[test]
fn a_list_that_does_not_fit_leaves_the_old_one() {
    require_root!();
    let scratch = Scratch::new();
    make_sources(&scratch);
    on_file_system("tmpfs", 4 << 20, |place| {
        let disk = Disk::new(place);
        let list = format!("--manifest={}", place.path("to/list").display());
        let words = [list.into(), "file".into(), place.path("to/new")];
        let mut fitted = 0;
        for blocks in 0.. {
            disk.clear();
            place.write("to/list", "old list");
            disk.leave(blocks);
            let ran = scratch.ucp(&words);
            if ran.code() == Some(0) {
                break;
            }
            says_full(&ran, &format!("{blocks} blocks"));
            if place.exists("to/new") {
                fitted += 1;
                ran.says_lines(1).says(&["write failed", "to/list at byte 0:"]);
                assert!(place.read("to/new") == scratch.read("file"));
            } else {
                ran.says(&["to/new", " at byte "]);
            }
            // It lists what was copied, be it nothing.
            let list = place.read("to/list");
            let is_new = list.is_empty() && !place.exists("to/new");
            assert!(list == b"old list" || is_new, "{blocks} blocks: {}", list.escape_ascii());
            assert_eq!(leftovers(&place.path("to")), Vec::<PathBuf>::new());
            disk.clear();
            scratch.ucp(&words).succeeds_silently();
            assert!(place.read("to/list").ends_with(b"  new\n"), "{blocks} blocks");
            fs::remove_file(place.path("to/new")).unwrap();
        }
        assert!(fitted > 0, "there was never room for the file and not for the list");
    });
}

/// So large that a journal is kept: a copy that finds no room keeps nothing, whether it began or went
/// on with what an interrupted one had left.
#[test]
fn a_file_with_a_journal_that_does_not_fit_leaves_the_old_one() {
    require_root!();
    const SIZE: u64 = 130 << 20;
    let scratch = Scratch::new();
    // All hole: its copy is not.
    File::create(scratch.path("file")).unwrap().set_len(SIZE).unwrap();
    for (kind, reserves) in [("tmpfs", false), ("ext4", true), ("xfs", true)] {
        on_file_system(kind, 3 * SIZE, |place| {
            let disk = Disk::new(place);
            let target = place.path("to/old");
            let words = [Path::new("--sparse=never"), Path::new("file"), &target];
            for blocks in [0, (70 << 20) / BLOCK, SIZE / BLOCK - 1] {
                for is_interrupted in [false, true] {
                    let what = format!("{kind}, {blocks} blocks, interrupted {is_interrupted}");
                    place.write("to/old", "old");
                    if is_interrupted {
                        interrupt(&scratch, place, &words);
                    }
                    disk.leave(blocks);
                    let ran = scratch.ucp(words);
                    // Where the room was asked for at first, it is there.
                    let has_room = reserves || blocks >= SIZE / 2 / BLOCK;
                    if is_interrupted && has_room {
                        ran.succeeds_silently();
                    } else {
                        assert_eq!(says_full(&ran, &what), 1, "{what}");
                        assert_eq!(place.read("to/old"), b"old", "{what}");
                    }
                    assert_eq!(leftovers(&place.path("to")), Vec::<PathBuf>::new(), "{what}");
                    disk.clear();
                    scratch.ucp(words).succeeds_silently();
                    assert!(place.read("to/old") == scratch.read("file"), "{what}");
                    assert_eq!(leftovers(&place.path("to")), Vec::<PathBuf>::new(), "{what}");
                }
            }
        });
    }
}

/// Kills a copy that has noted in its journal that half of it is written.
fn interrupt(scratch: &Scratch, place: &Scratch, words: &[&Path]) {
    /// Bytes of a journal's header, and of its first note.
    const NOTED: u64 = 104 + 20;
    let mut command = Command::new(UCP);
    let command = command.arg("--limit-rate=512M").args(words).current_dir(scratch.path(""));
    let mut copy = Background::start(command);
    let has_noted = || {
        let left = leftovers(&place.path("to")).into_iter();
        let mut journals = left.filter(|name| name.extension().is_some_and(|it| it == "journal"));
        let journal = journals.next().and_then(|name| place.path("to").join(name).metadata().ok());
        journal.is_some_and(|journal| journal.len() >= NOTED)
    };
    until("half of it is noted", || has_noted() || copy.has_ended());
    assert!(!copy.has_ended(), "it ended too early");
    copy.signal(Signal::SIGKILL);
    copy.end();
}
