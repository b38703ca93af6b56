//! Trees deeper than a process may have files open, and directories of more names than memory should
//! hold. `UCP_ENTRIES=1000000` sets how many names.

use std::fs::{self, DirBuilder, File, FileTimes, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use std::{env, thread};

use nix::sys::signal::Signal;

use super::support::{Background, Scratch, UCP, on_file_system, run, until};

const DEPTH: usize = 1000;
const FILES_MAX: usize = 256;
const MEMORY_KIB_MAX: u64 = 128 << 10;

/// Runs a program with so many open files at the most, and says how much memory it had at a time.
const MEASURE: &str = "
import os, resource, sys
child = os.fork()
if child == 0:
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    os.execv(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))";

/// Copies with few open files, without a word; returns the memory that took.
fn copy_measured(place: &Scratch, words: &[&str]) -> u64 {
    let mut command = Command::new("python3");
    command.args(["-c", MEASURE, &FILES_MAX.to_string(), UCP]).args(words);
    let ran = run(command.current_dir(place.path("")));
    ran.exits(0);
    assert_eq!(ran.stderr(), "", "{words:?}");
    let memory_kib = ran.stdout().trim().parse().unwrap();
    assert!(memory_kib <= MEMORY_KIB_MAX, "{words:?} took {memory_kib} KiB");
    memory_kib
}

/// A directory that is open: no path to it would be short enough.
struct Level(File);

impl Level {
    fn at(path: &Path) -> Self {
        Self(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// The name of a directory: every other one as long as can be.
fn name_of(level: usize) -> String {
    format!("{level:04}{}", "n".repeat(if level % 2 == 1 { 251 } else { 12 }))
}

fn make_deep(root: &Path, depth: usize) {
    fs::create_dir(root).unwrap();
    let mut at = Level::at(root);
    let mut firsts = Vec::new();
    for level in 0..depth {
        let mode = if level % 3 == 0 { 0o750 } else { 0o755 };
        let path = at.path(&name_of(level));
        DirBuilder::new().mode(mode).create(&path).unwrap();
        at = Level::at(&path);
        if level % 10 == 0 {
            fs::write(at.path("file"), format!("{level}")).unwrap();
            fs::set_permissions(at.path("file"), Permissions::from_mode(0o640)).unwrap();
        }
        if level % 300 == 0 {
            firsts.push(Level::at(&at.path("")));
        } else if level % 50 == 0 {
            for (number, first) in firsts.iter().enumerate() {
                fs::hard_link(first.path("file"), at.path(&format!("link {number}"))).unwrap();
            }
        }
    }
    let mut at = Level::at(root);
    for level in 0..depth {
        at = Level::at(&at.path(&name_of(level)));
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + level as u64);
        at.0.set_times(FileTimes::new().set_modified(modified)).unwrap();
    }
}

/// Walks down both trees, side by side.
fn compare_deep(source: &Path, target: &Path, depth: usize) {
    let (mut source, mut target) = (Level::at(source), Level::at(target));
    let mut firsts: Vec<u64> = Vec::new();
    for level in 0..depth {
        let name = name_of(level);
        (source, target) = (Level::at(&source.path(&name)), Level::at(&target.path(&name)));
        let status = |level: &Level, name: &str| {
            let metadata = level.path(name).metadata().unwrap();
            let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
            (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), links)
        };
        let names = source.names();
        assert_eq!(target.names(), names, "level {level}");
        for name in names.iter().map(String::as_str).chain([""]) {
            assert_eq!(status(&target, name), status(&source, name), "{name} in level {level}");
        }
        for name in names.iter().filter(|name| !name.starts_with("0") && !name.starts_with("1")) {
            let read = |level: &Level| fs::read(level.path(name)).unwrap();
            assert_eq!(read(&target), read(&source), "{name} in level {level}");
        }
        let inode = |name: &str| target.path(name).metadata().unwrap().ino();
        if level % 300 == 0 {
            firsts.push(inode("file"));
        }
        for name in names.iter().filter(|name| name.starts_with("link")) {
            let number: usize = name["link ".len()..].parse().unwrap();
            assert_eq!(inode(name), firsts[number], "{name} in level {level}");
        }
    }
}

#[test]
fn what_is_deeper_than_descriptors_allow_is_deleted() {
    let place = Scratch::new();
    make_deep(&place.path("source"), DEPTH);
    copy_measured(&place, &["-a", "source", "mirror"]);
    // Here and there something that is in the target only; and a deep tree in the deepest of all.
    let mut at = Level::at(&place.path("mirror"));
    for level in 0..DEPTH {
        at = Level::at(&at.path(&name_of(level)));
        if level % 100 == 0 {
            fs::write(at.path("extra"), "to be deleted").unwrap();
        }
    }
    make_deep(&at.path("gone"), DEPTH / 2);
    make_deep(&place.path("mirror/gone"), DEPTH);
    for engine in ["--engine=uring", "--engine=threads"] {
        copy_measured(&place, &[engine, "-aT", "--delete", "source", "mirror"]);
        compare_deep(&place.path("source"), &place.path("mirror"), DEPTH);
        assert_eq!(Level::at(&place.path("mirror")).names(), [name_of(0)]);
        let extra = place.path("mirror").join(name_of(0)).join("extra");
        fs::write(extra, "to be deleted").unwrap();
        make_deep(&place.path("mirror/gone"), DEPTH);
    }
    remove(&place, &["source", "mirror"]);
}

/// Names of what copies have left.
fn stages(place: &Scratch) -> Vec<String> {
    let names = Level::at(&place.path("")).names().into_iter();
    names.filter(|name| name.starts_with(".ucp")).collect()
}

/// Before the end of a test: the standard library would keep each level open.
fn remove(place: &Scratch, names: &[&str]) {
    run(Command::new("rm").arg("-rf").args(names).current_dir(place.path(""))).exits(0);
}

fn copy_deep(engine: &str) {
    let place = Scratch::new();
    make_deep(&place.path("source"), DEPTH);
    let compare = |target: &str| compare_deep(&place.path("source"), &place.path(target), DEPTH);
    let engine = format!("--engine={engine}");
    copy_measured(&place, &[&engine, "-a", "source", "new"]);
    compare("new");
    copy_measured(&place, &[&engine, "-aT", "source", "new"]);
    compare("new");
    remove(&place, &["new"]);
    // Half of it is there: the rest becomes a stage far below.
    make_deep(&place.path("new"), DEPTH / 2);
    copy_measured(&place, &[&engine, "-aT", "source", "new"]);
    compare("new");
    copy_measured(&place, &[&engine, "-a", "--stage=never", "--durable", "source", "open"]);
    compare("open");
    copy_measured(&place, &[&engine, "-aq", "--dry-run", "source", "never"]);
    assert_eq!(stages(&place), [""; 0]);
    remove(&place, &["source", "new", "open"]);
}

#[test]
fn a_tree_1000_deep_is_copied_by_threads_with_few_open_files() {
    copy_deep("threads");
}

#[test]
fn a_tree_1000_deep_is_copied_by_a_ring_with_few_open_files() {
    let place = Scratch::new();
    place.write("source", "");
    if place.ucp(["--engine=uring", "source", "target"]).code() != Some(0) {
        let required = env::var_os("UCP_REQUIRE_KERNEL").is_some_and(|value| value == "1");
        assert!(!required, "there is no io_uring, and UCP_REQUIRE_KERNEL=1 forbids skipping");
        eprintln!("skipped: there is no io_uring");
        return;
    }
    copy_deep("uring");
}

#[test]
fn a_deep_copy_that_was_killed_is_removed_and_completed() {
    let place = Scratch::new();
    make_deep(&place.path("source"), DEPTH);
    let mut command = Command::new(UCP);
    let mut copy =
        Background::start(command.args(["-a", "source", "new"]).current_dir(place.path("")));
    until("it has begun", || !stages(&place).is_empty() || copy.has_ended());
    let mut at = Level::at(&place.path(&stages(&place)[0]));
    for level in 0..DEPTH / 2 {
        until("it comes further down", || at.path(&name_of(level)).exists());
        at = Level::at(&at.path(&name_of(level)));
    }
    copy.signal(Signal::SIGKILL);
    copy.end();
    assert_eq!(stages(&place).len(), 1, "it was killed in the middle");
    assert!(!place.exists("new"));
    copy_measured(&place, &["-a", "source", "new"]);
    assert_eq!(stages(&place), [""; 0]);
    compare_deep(&place.path("source"), &place.path("new"), DEPTH);
    remove(&place, &["source", "new"]);
}

#[test]
fn memory_does_not_grow_with_the_names_of_a_directory() {
    require_root!();
    let entries = env::var("UCP_ENTRIES").map_or(50_000, |entries| entries.parse().unwrap());
    on_file_system("tmpfs", 64 << 30, |place| {
        let make = |root: &str, names: std::ops::Range<u32>| {
            for number in names {
                File::create(place.path(format!("{root}/{number:0255}"))).unwrap();
            }
        };
        let copied = |name: &str| fs::read_dir(place.path(name)).map_or(0, Iterator::count);
        place.make_directory("source");
        make("source", 0..10_000);
        let few_kib = copy_measured(place, &["-a", "source", "few"]);
        make("source", 10_000..entries);
        let mut copy = Command::new(UCP);
        copy.args(["-a", "source", "many"]).current_dir(place.path(""));
        let mut killed = Background::start(&mut copy);
        until("it has begun", || !stages(place).is_empty() || killed.has_ended());
        thread::sleep(Duration::from_nanos(400) * entries);
        killed.signal(Signal::SIGKILL);
        killed.end();
        assert_eq!(stages(place).len(), 1, "it was killed in the middle");
        let started = SystemTime::now();
        let many_kib = copy_measured(place, &["-a", "source", "many"]);
        let elapsed = started.elapsed().unwrap();
        assert_eq!(copied("many"), entries as usize);
        assert_eq!(stages(place), [""; 0]);
        println!("{entries} names: {many_kib} KiB, {elapsed:?}; 10000 names: {few_kib} KiB");
        assert!(many_kib < few_kib + (4 << 10), "{entries} names take {many_kib} KiB");
    });
}
