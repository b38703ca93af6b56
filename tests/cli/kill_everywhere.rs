//! Killed at every system call of a small copy, one after the other: no name is ever torn, and the
//! next run completes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::support::{Scratch, Then, UCP, bytes, leftovers, listing, run, step};

/// The calls that change a file system, and those that take and leave what others wait for. Killed
/// before any other call, a copy leaves the same as before the next of these.
const CALLS: [&str; 23] = [
    "mkdirat",
    "symlinkat",
    "linkat",
    "mknodat",
    "renameat",
    "renameat2",
    "unlinkat",
    "pwrite64",
    "copy_file_range",
    "ftruncate",
    "fallocate",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "utimensat",
    "fsetxattr",
    "setxattr",
    "fremovexattr",
    "flock",
    "fsync",
    "fdatasync",
    "syncfs",
];

/// Small ones, one of several writes, and an empty one.
const FILES: [(&str, usize); 4] = [("a", 10), ("b/c", 70_000), ("b/d", 300_001), ("f", 0)];
/// One that is moved in blocks, with room reserved and its end cut.
const LARGE: [(&str, usize); 1] = [("b/large", (16 << 20) + 3)];

/// One that keeps a journal.
const JOURNALLED: [(&str, usize); 1] = [("b/large", (128 << 20) + 3)];

type Files = [(&'static str, usize)];

/// What is copied, how, and over what.
struct Copy {
    options: &'static [&'static str],
    files: &'static Files,
    has_old: bool,
}

impl Copy {
    fn write_files(&self, place: &Scratch, root: &str, seed: u64) {
        place.make_directory(format!("{root}/b"));
        for &(name, size) in self.files {
            // Old and new differ in length as well, but for the empty one.
            let size = if size == 0 { 0 } else { size + usize::from(seed == 1) };
            place.write(format!("{root}/{name}"), bytes(size, seed * 1000 + size as u64));
        }
        place.link(format!("says {seed}"), format!("{root}/b/link"));
        if self.options.contains(&"-a") {
            let path = |name: &str| place.path(format!("{root}/{name}"));
            fs::hard_link(path("a"), path("b/twin")).unwrap();
            mkfifo(&path("b/fifo"), Mode::from_bits_truncate(0o640)).unwrap();
            xattr::set(path("b/c"), "user.ucp", format!("{seed}").as_bytes()).unwrap();
        }
    }

    fn words(&self) -> Vec<&'static str> {
        [&["--reflink=never"], self.options, &["-T", "new", "target"]].concat()
    }

    fn again(&self, place: &Scratch) {
        let mut command = Command::new(UCP);
        command.arg("--engine=threads").args(self.words()).current_dir(place.path(""));
        run(&mut command).exits(0);
    }

    /// Kills it at every call in turn, whichever thread makes it. Returns how many were killed.
    fn kill_everywhere(&self) -> u32 {
        let place = Scratch::new();
        self.write_files(&place, "new", 2);
        self.write_files(&place, "old", 1);
        for number in 0.. {
            let _ = fs::remove_dir_all(place.path("target"));
            if self.has_old {
                self.write_files(&place, "target", 1);
            }
            let (mut seen, mut killed_at) = (0, None);
            let ended = step(&self.words(), &place.path(""), Stdio::null(), &mut |call| {
                let changes = CALLS.contains(&call.name)
                    || call.name.starts_with("openat") && call.text().contains("O_CREAT");
                seen += u32::from(changes);
                if killed_at.is_some() || !changes || seen <= number {
                    return Then::GoOn;
                }
                killed_at = Some(call.text());
                Then::Kill
            });
            let Some(call) = killed_at else {
                assert_eq!(ended.code, Some(0), "{ended:?}");
                return number;
            };
            let what = format!("{:?}, call {number}, {call}", self.options);
            // The last of its threads may have been at its end.
            assert!(matches!(ended.code, None | Some(0)), "{what}: {ended:?}");
            // What is written in place is torn until the next run.
            if !self.options.contains(&"--in-place") {
                self.check_names(&place, &what);
            }
            self.again(&place);
            self.check_all_is_there(&place, &what);
        }
        unreachable!("a copy has an end")
    }

    fn check_names(&self, place: &Scratch, what: &str) {
        let has_old = self.has_old;
        for (name, _) in self.files {
            let read = |root: &str, end: &str| fs::read(place.path(format!("{root}/{name}{end}")));
            let Ok(content) = read("target", "") else {
                assert!(!has_old, "{what}: {name} is gone");
                continue;
            };
            let (new, old) = (read("new", "").unwrap(), read("old", "").unwrap());
            let is_whole = content == new || has_old && content == old;
            assert!(is_whole, "{what}: {name} is torn, {} bytes", content.len());
            if self.options.contains(&"-b") && content != old {
                let kept = read("target", "~").unwrap_or_default();
                assert!(kept == old, "{what}: the old {name} is lost");
            }
        }
        let says = fs::read_link(place.path("target/b/link"));
        let says = says.map(|content| content.to_str().unwrap().to_owned());
        match says.as_deref() {
            Ok("says 2") => {}
            Ok("says 1") => assert!(has_old, "{what}: the link is of nobody"),
            Ok(other) => panic!("{what}: the link says {other}"),
            Err(_) => assert!(!has_old, "{what}: the link is gone"),
        }
    }

    fn check_all_is_there(&self, place: &Scratch, what: &str) {
        let contents = |root: &str| {
            let is_backup = |name: &PathBuf| name.to_str().unwrap().ends_with('~');
            let entries = listing(&place.path(root)).into_iter();
            let entries = entries.filter(|(name, _)| !is_backup(name));
            entries.map(|(name, entry)| (name, entry.without_times())).collect::<Vec<_>>()
        };
        assert!(contents("new") == contents("target"), "{what}: the second run completes");
        assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new(), "{what}: nothing is left");
        for (name, _) in self.files {
            let journal = xattr::get(place.path(format!("target/{name}")), "user.ucp.journal");
            assert_eq!(journal.unwrap(), None, "{what}: {name} is published with its journal");
        }
        if self.options.contains(&"-a") {
            let inode = |name: &str| fs::metadata(place.path(name)).unwrap().ino();
            assert_eq!(inode("target/a"), inode("target/b/twin"), "{what}: one file");
            let kept = xattr::get(place.path("target/b/c"), "user.ucp").unwrap();
            assert_eq!(kept.as_deref(), Some(&b"2"[..]), "{what}: the attribute");
        }
    }
}

#[test]
fn a_copy_into_a_new_directory_survives_a_kill_at_every_call() {
    kill(Copy { options: &[], files: &FILES, has_old: false }, 20);
}

#[test]
fn a_copy_file_by_file_survives_a_kill_at_every_call() {
    kill(Copy { options: &["--stage=never"], files: &FILES, has_old: false }, 20);
}

#[test]
fn a_copy_over_existing_files_survives_a_kill_at_every_call() {
    kill(Copy { options: &["--durable"], files: &FILES, has_old: true }, 20);
}

#[test]
fn a_copy_in_blocks_survives_a_kill_at_every_call() {
    let options = &["--direct=on", "--block-size=4M"];
    kill(Copy { options, files: &LARGE, has_old: true }, 10);
}

#[test]
fn a_copy_that_keeps_a_journal_survives_a_kill_at_every_call() {
    let into_stage = &["--block-size=64M", "--depth=1"];
    kill(Copy { options: into_stage, files: &JOURNALLED, has_old: false }, 10);
    let in_the_open = &["--block-size=64M", "--depth=1", "--stage=never"];
    kill(Copy { options: in_the_open, files: &JOURNALLED, has_old: false }, 10);
}

#[test]
fn a_copy_of_everything_survives_a_kill_at_every_call() {
    kill(Copy { options: &["-a"], files: &FILES, has_old: false }, 20);
    kill(Copy { options: &["-a"], files: &FILES, has_old: true }, 20);
}

#[test]
fn a_copy_with_backups_survives_a_kill_at_every_call() {
    kill(Copy { options: &["-b"], files: &FILES, has_old: true }, 20);
}

#[test]
fn a_tree_of_links_survives_a_kill_at_every_call() {
    kill(Copy { options: &["-l"], files: &FILES, has_old: false }, 5);
}

#[test]
fn a_copy_in_place_is_completed_after_a_kill_at_any_call() {
    kill(Copy { options: &["--in-place"], files: &FILES, has_old: true }, 10);
}

fn kill(copy: Copy, at_least: u32) {
    require_root!();
    let killed = copy.kill_everywhere();
    println!("{:?}: {killed}", copy.options);
    assert!(killed >= at_least, "{:?}: only {killed} calls were met", copy.options);
}
