//! Names that are exchanged for symbolic links at any moment of a copy, on either side: nothing
//! outside is ever read or written.
//!
//! An attacker exchanges one name after the other for a link that leads outside, and back again:
//! files and directories of the source and of the target, and whatever temporary name appears.
//! Outside there are the same names as inside. That nothing was read there is seen by the times of
//! access, that nothing was written by the times of change, which nobody can set back.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{hint, thread};

use nix::fcntl::{RenameFlags, renameat2};
use nix::libc;

use super::support::{Scratch, UCP, bytes, run};

const SECRET: &[u8] = b"the secret that is nobody's to copy";

/// Options, and whether there is an older copy to begin with.
const RUNS: [(&[&str], bool); 10] = [
    (&[], false),
    (&[], true),
    (&["-a"], false),
    (&["-a"], true),
    (&["-a", "--stage=never"], false),
    (&["--stage=never", "--durable"], false),
    (&["--in-place"], true),
    (&["-a", "--in-place"], true),
    (&["-a", "--delete"], true),
    (&["--verify", "--check-existing=hash"], true),
];

#[test]
fn swaps_on_the_threads_engine_lead_nowhere() {
    attack("threads");
}

#[test]
fn swaps_on_the_ring_lead_nowhere() {
    let place = Scratch::new();
    place.write("source", "");
    if place.ucp(["--engine=uring", "source", "target"]).code() != Some(0) {
        let required = std::env::var_os("UCP_REQUIRE_KERNEL").is_some_and(|value| value == "1");
        assert!(!required, "there is no io_uring, and UCP_REQUIRE_KERNEL=1 forbids skipping");
        eprintln!("skipped: there is no io_uring");
        return;
    }
    attack("uring");
}

/// Some swaps for each of the runs; `UCP_SWAPS=1000000` says how many in all, on both engines.
fn attack(engine: &str) {
    let wanted = std::env::var("UCP_SWAPS").map_or(20_000, |count| count.parse().unwrap());
    let mut seed = 1;
    for (options, has_old) in RUNS {
        let arena = Arena::new();
        let (mut swaps, mut copies) = (0, 0);
        while copies < 4 || swaps < wanted / (2 * RUNS.len() as u64) {
            seed += 1;
            arena.prepare(has_old);
            swaps += arena.copy_attacked(engine, options, seed);
            copies += 1;
            let what = format!("{engine}, {options:?}, seed {seed}");
            arena.check(&what);
        }
        assert!(swaps > 0, "{options:?}: nothing was swapped");
        arena.prepare(has_old);
        arena.copy(engine, options).exits(0);
        assert_eq!(
            arena.place.read("target/source/dir/inner"),
            arena.place.read("source/dir/inner")
        );
        println!("{engine} {options:?}: {swaps} swaps, {copies} copies");
    }
}

/// Where it happens: `source`, `target`, the links in `lures`, and `outside`.
pub(super) struct Arena {
    pub(super) place: Scratch,
    outside: Vec<State>,
}

/// What is looked at of a file outside.
#[derive(Clone, Debug, Eq, PartialEq)]
struct State {
    path: PathBuf,
    inode: u64,
    links: u64,
    accessed: (i64, i64),
    changed: (i64, i64),
}

impl Arena {
    pub(super) fn new() -> Self {
        let place = Scratch::new();
        for root in ["source", "outside"] {
            place.make_directory(format!("{root}/dir/deep"));
            for name in ["leaf", "dir/inner", "dir/more", "dir/deep/down"] {
                let content = match root {
                    "source" => bytes(20_000, name.len() as u64),
                    _ => SECRET.to_vec(),
                };
                place.write(format!("{root}/{name}"), content);
            }
            place.link("leaf", format!("{root}/dir/link"));
        }
        place.write("source/large", bytes(700_000, 9));
        if nix::unistd::geteuid().is_root() {
            chown(place.path("source/leaf"), Some(7), Some(8)).unwrap();
            chown(place.path("source/dir"), Some(7), Some(8)).unwrap();
        }
        let set = ["-n", "user.ucp", "-v", "kept"];
        run(Command::new("setfattr").args(set).arg(place.path("source/dir/inner"))).exits(0);
        // Read long ago: with `relatime` the next read is noted.
        for name in ["leaf", "dir/inner", "dir/more", "dir/deep/down", "dir/deep", "dir", ""] {
            super::support::set_times(&place.path(format!("outside/{name}")), 1, 2);
        }
        let outside = states(&place.path("outside"));
        Self { place, outside }
    }

    /// Sets the stage once more.
    pub(super) fn prepare(&self, has_old: bool) {
        for name in ["target", "lures"] {
            let _ = fs::remove_dir_all(self.place.path(name));
            self.place.make_directory(name);
        }
        Attacker::new(&self.place, 1).set_lures();
        if has_old {
            self.place.make_directory("target/source/dir/deep");
            for name in ["leaf", "dir/inner", "dir/more", "dir/deep/down", "dir/extra"] {
                self.place.write(format!("target/source/{name}"), "old");
            }
        }
    }

    fn command(&self, engine: &str, options: &[&str]) -> Command {
        let mut command = Command::new(UCP);
        command.arg(format!("--engine={engine}")).args(options).args(["source", "target"]);
        command.current_dir(self.place.path(""));
        command
    }

    fn copy(&self, engine: &str, options: &[&str]) -> super::support::Ran {
        run(&mut self.command(engine, options))
    }

    /// Copies while names are swapped; says how many were.
    fn copy_attacked(&self, engine: &str, options: &[&str], seed: u64) -> u64 {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let attacker = scope.spawn(|| Attacker::new(&self.place, seed).swap_until(&is_over));
            let ran = self.copy(engine, options);
            is_over.store(true, Ordering::Release);
            // Files that were exchanged fail, or were changed meanwhile; nothing else happens.
            let is_orderly = matches!(ran.code(), Some(0 | 1 | 6 | 8 | 9));
            assert!(is_orderly, "{ran:?}");
            attacker.join().unwrap()
        })
    }

    pub(super) fn check(&self, what: &str) {
        let now = states(&self.place.path("outside"));
        assert_eq!(now, self.outside, "{what}: read or written outside");
        for name in ["target", "lures"] {
            no_secret(&self.place.path(name), what);
        }
    }

    /// The same where links may be followed: what they lead to is read, and never changed.
    pub(super) fn check_unchanged(&self, what: &str) {
        let mut now = states(&self.place.path("outside"));
        for (now, before) in now.iter_mut().zip(&self.outside) {
            now.accessed = before.accessed;
        }
        assert_eq!(now, self.outside, "{what}: written outside");
    }
}

/// All that is outside, looked at without reading it.
fn states(root: &Path) -> Vec<State> {
    let names =
        ["", "leaf", "dir", "dir/inner", "dir/more", "dir/link", "dir/deep", "dir/deep/down"];
    let state = |name: &&str| {
        let path = if name.is_empty() { root.to_owned() } else { root.join(name) };
        let found = path.symlink_metadata().unwrap_or_else(|e| panic!("{path:?}: {e}"));
        // The link is read by the kernel whenever a path leads through it.
        let accessed =
            if found.is_symlink() { (0, 0) } else { (found.atime(), found.atime_nsec()) };
        let changed = (found.ctime(), found.ctime_nsec());
        State { path, inode: found.ino(), links: found.nlink(), accessed, changed }
    };
    names.iter().map(state).collect()
}

/// No file at or below holds what stands outside.
fn no_secret(path: &Path, what: &str) {
    let found = path.symlink_metadata().unwrap();
    if found.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            no_secret(&entry.unwrap().path(), what);
        }
    } else if found.is_file() {
        let content = fs::read(path).unwrap();
        let has_secret = content.windows(SECRET.len()).any(|part| part == SECRET);
        assert!(!has_secret, "{what}: the secret is in {}", path.display());
    }
}

/// Exchanges names for links. It holds directories by descriptor: a path may lead outside by its
/// own doing.
struct Attacker<'a> {
    place: &'a Scratch,
    source: File,
    source_below: File,
    target: File,
    lures: File,
    random: u64,
    swaps: u64,
}

impl<'a> Attacker<'a> {
    fn new(place: &'a Scratch, seed: u64) -> Self {
        let open = |name: &str| File::open(place.path(name)).unwrap();
        Self {
            place,
            source: open("source"),
            source_below: open("source/dir"),
            target: open("target"),
            lures: open("lures"),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            swaps: 0,
        }
    }

    fn swap_until(mut self, is_over: &AtomicBool) -> u64 {
        while !is_over.load(Ordering::Acquire) {
            match self.below(4) {
                0 => self.swap_one_of(None, &["leaf", "large", "dir"]),
                1 => self.swap_in_source_below(),
                2 => self.swap_any_of_target(0),
                _ => self.swap_any_of_target(2),
            }
        }
        self.swaps
    }

    fn swap_one_of(&mut self, directory: Option<&File>, names: &[&str]) {
        let name = names[self.below(names.len() as u64)];
        let directory = directory.unwrap_or(&self.source).try_clone().unwrap();
        self.swap(&directory, OsStr::new(name));
    }

    fn swap_in_source_below(&mut self) {
        let below = self.source_below.try_clone().unwrap();
        self.swap_one_of(Some(&below), &["inner", "more", "deep", "link"]);
    }

    /// Swaps what happens to stand in the target, so many directories down at most: a file, a
    /// directory, a stage, a temporary file.
    fn swap_any_of_target(&mut self, depth: u32) {
        let mut directory = self.target.try_clone().unwrap();
        for left in (0..=depth).rev() {
            let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
            if names.is_empty() {
                return;
            }
            let name = &names[self.below(names.len() as u64)];
            match open_below(&directory, name) {
                Some(below) if left > 0 && self.below(4) > 0 => directory = below,
                _ => return self.swap(&directory, name),
            }
        }
    }

    /// Puts a link in the name's place, for a while.
    fn swap(&mut self, directory: &File, name: &OsStr) {
        let is_directory = open_below(directory, name).is_some();
        // Now and then one that leads to another kind of file.
        let lure = if is_directory == (self.below(8) > 0) { "directory" } else { "file" };
        for _ in 0..2 {
            let flags = RenameFlags::RENAME_EXCHANGE;
            if renameat2(directory, name, &self.lures, lure, flags).is_err() {
                return self.set_lures();
            }
            self.swaps += 1;
            for _ in 0..self.below(1_000) {
                hint::spin_loop();
            }
        }
    }

    /// Puts links where the lures are, if the copy has taken one away under its swapped name.
    fn set_lures(&mut self) {
        for (lure, to) in [("file", "leaf"), ("directory", "dir")] {
            let path = self.place.path(format!("lures/{lure}"));
            if !path.is_symlink() {
                let _ = fs::rename(&path, self.place.path(format!("lures/{}", self.swaps)));
                symlink(self.place.path(format!("outside/{to}")), path).unwrap();
            }
        }
    }

    /// xorshift64 (Marsaglia, 2003).
    fn below(&mut self, bound: u64) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % bound).unwrap()
    }
}

/// The directory under a name, through no link.
fn open_below(directory: &File, name: &OsStr) -> Option<File> {
    let mut path = OsString::from(format!("/proc/self/fd/{}/", directory.as_raw_fd()));
    path.push(OsStr::from_bytes(name.as_bytes()));
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(path).ok()
}
