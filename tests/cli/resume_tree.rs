//! A tree that was interrupted: the same copy, made again, copies only what is missing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::resume::{SIZE as LARGE, content};
use super::support::{
    Background, Ran, Scratch, UCP, bytes, in_mount_namespace, leftovers, listing, make_odd_tree,
    run, set_times, until,
};

/// Files of the tree, spread over its directories, and the bytes of each.
const FILES: usize = 48;
const SIZE: usize = 64 << 10;
/// Bytes a second of a copy that is interrupted: it takes more than half a second.
const RATE: &str = "--limit-rate=4M";

/// What a test does between the two runs.
type Meanwhile<'a> = &'a (dyn Fn(&Scratch) + Sync);

fn name(number: usize) -> String {
    format!("{}/{number}", ["a", "a/b", "a/b/c", "d"][number % 4])
}

/// A tree of old files in `tree`. A source that was touched a moment before it is copied is not
/// taken over, so it waits.
fn make_tree(scratch: &Scratch) {
    scratch.make_directory("tree/a/b/c");
    scratch.make_directory("tree/d");
    for number in 0..FILES {
        let name = format!("tree/{}", name(number));
        scratch.write(&name, bytes(SIZE, number as u64 + 1));
        let time = 1_000_000_000_123_456_789 + number as i64;
        set_times(&scratch.path(&name), time, time);
    }
    scratch.link("a/0", "tree/link");
    scratch.set_mode("tree/a/b", 0o750);
    settle();
}

fn settle() {
    thread::sleep(Duration::from_millis(2100));
}

fn ucp(scratch: &Scratch, options: &[&str]) -> Command {
    let mut command = Command::new(UCP);
    command.args(options).args(["-T", "tree", "copy"]).current_dir(scratch.path(""));
    command
}

fn stage(scratch: &Scratch) -> Option<PathBuf> {
    let found = leftovers(&scratch.path("")).into_iter();
    let mut stages = found.filter(|name| name.extension().is_some_and(|it| it == "stage"));
    stages.next().map(|name| scratch.path("").join(name))
}

/// Files in a stage that have the time of their source: they are whole.
fn whole(scratch: &Scratch) -> Vec<String> {
    let Some(stage) = stage(scratch) else { return Vec::new() };
    let names = (0..FILES).map(name);
    let time = |path: PathBuf| path.metadata().map(|it| (it.mtime(), it.mtime_nsec())).ok();
    names
        .filter(|name| time(stage.join(name)) == time(scratch.path(format!("tree/{name}"))))
        .collect()
}

/// Kills the copy of a tree when so many files are whole; returns which.
fn kill_when(scratch: &Scratch, count: usize, options: &[&str]) -> Vec<String> {
    let mut copy = Background::start(&mut ucp(scratch, &[&[RATE], options].concat()));
    until("enough is copied", || whole(scratch).len() >= count || copy.has_ended());
    assert!(!copy.has_ended(), "it ended too early");
    copy.signal(Signal::SIGKILL);
    copy.end();
    whole(scratch)
}

/// Copies again; returns how many files were there already.
fn again(scratch: &Scratch, options: &[&str]) -> u64 {
    let ran = run(&mut ucp(scratch, &[&["--json"], options].concat()));
    is_complete(scratch);
    ran.exits(0);
    up_to_date(&ran)
}

fn up_to_date(ran: &Ran) -> u64 {
    let summary: Value = serde_json::from_str(ran.stdout().lines().last().unwrap()).unwrap();
    summary["up_to_date"].as_u64().unwrap()
}

/// All is copied, with modes, times and hard links, and nothing is left behind.
#[track_caller]
fn is_complete(scratch: &Scratch) {
    let (want, got) = (listing(&scratch.path("tree")), listing(&scratch.path("copy")));
    for (name, want) in &want {
        assert_eq!(got.get(name), Some(want), "{name:?}");
    }
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
    let mut command = Command::new("getfattr");
    let ran = run(command.args(["-R", "-h", "-d", "-m", "ucp"]).arg(scratch.path("copy")));
    assert_eq!(ran.exits(0).stdout(), "", "a mark is left");
}

/// Which names are names of one file, by all names in the order that they have.
fn links(scratch: &Scratch, root: &str) -> Vec<Vec<PathBuf>> {
    let mut files: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for name in listing(&scratch.path(root)).into_keys() {
        let status = scratch.path(root).join(&name).symlink_metadata().unwrap();
        files.entry(status.ino()).or_default().push(name);
    }
    let mut files: Vec<_> = files.into_values().filter(|names| names.len() > 1).collect();
    files.sort();
    files
}

#[test]
fn what_was_killed_copies_only_what_is_missing() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    for (count, engine) in [(1, "uring"), (10, "threads"), (25, "uring"), (40, "threads")] {
        let there = kill_when(&scratch, count, &[&format!("--engine={engine}")]);
        assert!(there.len() >= count, "{count}: {there:?}");
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-qq", "-o", "log", "-e", "signal=none"]);
        command.args(["-e", "trace=read,pread64,copy_file_range,ioctl"]);
        command.args([UCP, "--engine=threads", "-T", "tree", "copy"]);
        run(command.current_dir(scratch.path(""))).succeeds_silently();
        let log = String::from_utf8(scratch.read("log")).unwrap();
        let is_read = |name: &String| log.contains(&format!("/tree/{name}>"));
        let again: Vec<_> = there.iter().filter(|name| is_read(name)).collect();
        assert_eq!(again, Vec::<&String>::new(), "{count}: these were read again");
        let read = (0..FILES).map(name).filter(is_read).count();
        assert_eq!(read, FILES - there.len(), "{count}: all others were read");
        is_complete(&scratch);
        fs::remove_dir_all(scratch.path("copy")).unwrap();
    }
}

#[test]
fn a_tree_that_is_killed_again_and_again_is_completed() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    let mut there = 0;
    while there < 40 {
        let now = kill_when(&scratch, there + 8, &[]).len();
        assert!(now >= there + 8, "{there} files were whole, and now {now}");
        there = now;
    }
    assert_eq!(again(&scratch, &[]), there as u64);
}

#[test]
fn another_copy_begins_again() {
    let mark = |scratch: &Scratch, value: &str| {
        let mut command = Command::new("setfattr");
        run(command.args(["-n", "user.ucp.stage", "-v", value]).arg(stage(scratch).unwrap()))
            .exits(0);
    };
    let cases: [(&str, &[&str], Meanwhile<'_>); 9] = [
        ("the same", &[], &|_| {}),
        ("other options", &["-a"], &|_| {}),
        ("other ways", &["--reflink=never"], &|_| {}),
        ("no resume", &["--no-resume"], &|_| {}),
        ("a planted mark", &[], &|scratch| mark(scratch, "planted")),
        ("no mark", &[], &|scratch| mark(scratch, "")),
        ("a stage that others may enter", &[], &|scratch| {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(stage(scratch).unwrap(), mode).unwrap();
        }),
        ("another's stage", &["--no-preserve=ownership"], &|scratch| {
            chown(stage(scratch).unwrap(), Some(7), Some(7)).unwrap();
        }),
        ("another source", &[], &|scratch| {
            fs::rename(scratch.path("tree"), scratch.path("other")).unwrap();
            run(Command::new("cp").args(["-a", "other", "tree"]).current_dir(scratch.path("")))
                .exits(0);
            settle();
        }),
    ];
    let scratch = Scratch::new();
    make_tree(&scratch);
    for (what, options, meanwhile) in cases {
        let there = kill_when(&scratch, 12, &[]).len() as u64;
        meanwhile(&scratch);
        if what == "another's stage" {
            // It stays: nobody knows what it is.
            let ran = run(&mut ucp(&scratch, &[&["--json"], options].concat()));
            assert_eq!(up_to_date(ran.exits(0)), 0, "{what}");
            fs::remove_dir_all(stage(&scratch).unwrap()).unwrap();
            is_complete(&scratch);
        } else {
            let want = if what == "the same" { there } else { 0 };
            assert_eq!(again(&scratch, options), want, "{what}");
        }
        fs::remove_dir_all(scratch.path("copy")).unwrap();
    }
}

#[test]
fn after_another_boot_nothing_is_believed() {
    require_root!();
    let scratch = Scratch::new();
    make_tree(&scratch);
    let there = kill_when(&scratch, 12, &[]).len();
    assert!(there >= 12);
    scratch.write("boot", "22222222-2222-4222-8222-222222222222\n");
    in_mount_namespace(|| {
        let (boot, none) = ("/proc/sys/kernel/random/boot_id", None::<&str>);
        mount(Some(&scratch.path("boot")), boot, none, MsFlags::MS_BIND, none).unwrap();
        assert_eq!(again(&scratch, &[]), 0);
    });
}

#[test]
fn what_changed_meanwhile_is_copied_as_it_is() {
    let changes: [(&str, Meanwhile<'_>); 8] = [
        ("other bytes of the same length", &|scratch| {
            (0..FILES).for_each(|it| scratch.write(format!("tree/{}", name(it)), bytes(SIZE, 77)));
        }),
        ("the same with the old times", &|scratch| {
            for number in 0..FILES {
                let path = format!("tree/{}", name(number));
                let status = scratch.path(&path).metadata().unwrap();
                scratch.write(&path, bytes(SIZE, 78));
                let time = status.mtime() * 1_000_000_000 + status.mtime_nsec();
                set_times(&scratch.path(&path), time, time);
            }
        }),
        ("other modes", &|scratch| {
            (0..FILES).for_each(|it| scratch.set_mode(format!("tree/{}", name(it)), 0o751));
            scratch.set_mode("tree/d", 0o700);
        }),
        ("all gone", &|scratch| {
            fs::remove_dir_all(scratch.path("tree/a/b")).unwrap();
            fs::remove_dir_all(scratch.path("tree/d")).unwrap();
            scratch.make_directory("tree/d");
        }),
        ("files that are links now", &|scratch| {
            for number in 0..FILES {
                fs::remove_file(scratch.path(format!("tree/{}", name(number)))).unwrap();
                scratch.link("elsewhere", format!("tree/{}", name(number)));
            }
        }),
        ("files that are directories now, and the other way round", &|scratch| {
            for number in (0..FILES).filter(|number| number % 4 == 3) {
                fs::remove_file(scratch.path(format!("tree/{}", name(number)))).unwrap();
                scratch.write_below(&format!("tree/{}", name(number)));
            }
            fs::remove_dir_all(scratch.path("tree/a/b")).unwrap();
            scratch.write("tree/a/b", "a file");
            fs::remove_file(scratch.path("tree/link")).unwrap();
            scratch.write_below("tree/link");
        }),
        ("more in the stage", &|scratch| {
            let stage = stage(scratch).unwrap();
            fs::write(stage.join("more"), "not of the source").unwrap();
            fs::create_dir_all(stage.join("a/more/below")).unwrap();
            fs::write(stage.join("a/more/below/file"), "not of the source").unwrap();
            let _ = fs::write(stage.join("a/99"), "");
        }),
        ("files that are not whole", &|scratch| {
            for name in whole(scratch) {
                let path = stage(scratch).unwrap().join(&name);
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(77).unwrap();
            }
        }),
    ];
    let check = |(what, change): (&str, Meanwhile<'_>)| {
        let scratch = Scratch::new();
        make_tree(&scratch);
        assert!(kill_when(&scratch, 24, &[]).len() >= 24);
        change(&scratch);
        let there = again(&scratch, &[]);
        match what {
            "more in the stage" => assert!(there >= 24, "{what}: {there}"),
            "all gone" | "files that are directories now, and the other way round" => {}
            _ => assert_eq!(there, 0, "{what}"),
        }
    };
    // They mostly wait.
    thread::scope(|scope| {
        changes.map(|it| scope.spawn(move || check(it))).map(|it| it.join().unwrap())
    });
}

#[test]
fn everything_that_is_kept_comes_out_as_in_one_run() {
    require_root!();
    let scratch = Scratch::new();
    make_odd_tree(&scratch, "tree", &[0, 1, 5000, 70_000, 300_000]);
    let tree = |name: &str| scratch.path(format!("tree/{name}"));
    for number in 0..FILES {
        let name = format!("tree/deep/er/{number}");
        scratch.write(&name, bytes(SIZE, number as u64 + 1));
        chown(scratch.path(&name), Some(7), Some(8)).unwrap();
        scratch.set_mode(&name, 0o4711);
        fs::hard_link(scratch.path(&name), tree(&format!("deep/er/and/{number}"))).unwrap();
        fs::hard_link(scratch.path(&name), tree(&format!("odd/{number}"))).unwrap();
    }
    lchown(tree("deep/link"), Some(7), Some(8)).unwrap();
    chown(tree("deep/er"), Some(7), Some(8)).unwrap();
    let set = |program: &str, words: &[&str]| {
        run(Command::new(program).args(words).current_dir(scratch.path("tree"))).exits(0);
    };
    set("setfattr", &["-n", "user.a", "-v", "kept", "deep", "deep/er", "deep/er/7"]);
    set("setfacl", &["-m", "u:1:rw", "odd/7"]);
    set("setfacl", &["-d", "-m", "u:1:rwx", "deep/er/and", "odd"]);
    scratch.set_mode("tree/deep", 0o2555);
    settle();
    let reference = |root: &str| {
        let list = |program: &str, words: &[&str]| {
            let mut command = Command::new(program);
            let ran = run(command.args(words).current_dir(scratch.path(root)));
            ran.exits(0);
            let lines = ran.stdout.split(|byte| *byte == b'\n');
            let mut lines: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
            lines.sort();
            lines
        };
        let found = list("find", &[".", "-printf", "%P %m %U %G %s %n %T@\\n"]);
        (found, list("getfattr", &["-R", "-h", "-d", "."]), list("getfacl", &["-R", "-p", "."]))
    };
    for count in [1, 6, 20] {
        let mut copy = Background::start(&mut ucp(&scratch, &["-a", RATE]));
        let staged = || stage(&scratch).map_or(0, |stage| names_below(&stage));
        until("enough is copied", || staged() >= count * 3 || copy.has_ended());
        copy.signal(Signal::SIGKILL);
        copy.end();
        again(&scratch, &["-a"]);
        assert!(reference("tree") == reference("copy"), "{count}");
        assert_eq!(links(&scratch, "tree"), links(&scratch, "copy"), "{count}");
        fs::remove_dir_all(scratch.path("copy")).unwrap();
    }
}

/// How many names are at and below a directory that may be changing.
fn names_below(root: &Path) -> usize {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .map(|entry| 1 + if entry.path().is_dir() { names_below(&entry.path()) } else { 0 })
        .sum()
}

#[test]
fn directories_that_may_not_be_written_are_gone_on_with() {
    require_root!();
    let scratch = Scratch::public();
    make_tree(&scratch);
    for name in ["tree/a/b/c", "tree/a/b", "tree/a", "tree/d", "tree"] {
        scratch.set_mode(name, 0o555);
    }
    scratch.make_directory("to");
    scratch.set_mode("to", 0o777);
    settle();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(scratch.path("ucp")).args([RATE, "-T", "tree", "to/copy"]);
    let mut copy = Background::start(command.current_dir(scratch.path("")));
    let staged = || stage(&scratch).map_or(0, |stage| names_below(&stage));
    until("enough is copied", || staged() >= 40 || copy.has_ended());
    copy.signal(Signal::SIGKILL);
    copy.end();
    let ran = scratch.ucp_as_nobody(["--json", "-T", "tree", "to/copy"]);
    assert!(up_to_date(ran.exits(0)) > 20, "{ran:?}");
    assert_eq!(listing(&scratch.path("tree")), listing(&scratch.path("to/copy")));
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn what_is_taken_over_is_verified_and_listed() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    let there = kill_when(&scratch, 12, &[]);
    let path = stage(&scratch).unwrap().join(&there[0]);
    let status = path.metadata().unwrap();
    let mut content = fs::read(&path).unwrap();
    content[1000] ^= 1;
    fs::write(&path, content).unwrap();
    let time = status.mtime() * 1_000_000_000 + status.mtime_nsec();
    set_times(&path, time, time);
    let options = ["--json", "--verify", "--manifest=list", "-q"];
    let ran = run(&mut ucp(&scratch, &options));
    assert_eq!(up_to_date(ran.exits(0)), there.len() as u64 - 1);
    is_complete(&scratch);
    let mut command = Command::new("sha256sum");
    let checked = run(command.args(["-c", "../list"]).current_dir(scratch.path("copy")));
    assert_eq!(checked.exits(0).stdout().lines().count(), FILES);
}

#[test]
fn a_name_that_has_appeared_meanwhile_is_merged_with() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    kill_when(&scratch, 12, &[]);
    scratch.make_directory("copy/a");
    scratch.ucp(["-T", "tree", "copy"]).succeeds_silently();
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
    assert_eq!(scratch.read("copy/a/0"), scratch.read("tree/a/0"));
}

#[test]
fn ctrl_c_keeps_a_stage_in_which_much_was_copied() {
    let cases: [(&[&str], usize, bool); 3] =
        [(&[], 140, true), (&[], 20, false), (&["--no-resume"], 140, false)];
    for (options, megabytes, is_kept) in cases {
        let scratch = Scratch::new();
        make_tree(&scratch);
        // Two directories, so that they are copied side by side.
        scratch.make_directory("tree/y");
        scratch.make_directory("tree/z");
        scratch.write("tree/y/large", bytes(megabytes << 20, 1));
        set_times(&scratch.path("tree/y/large"), 1_000_000_000_000, 1_000_000_000_000);
        let larger = fs::File::create(scratch.path("tree/z/larger")).unwrap();
        larger.set_len((4 * megabytes as u64) << 20).unwrap();
        settle();
        let rate = format!("--limit-rate={}M", 3 * megabytes);
        let options = [&[&rate, "--sparse=never", "--reflink=never"], options].concat();
        let mut copy = Background::start(&mut ucp(&scratch, &options));
        until("the signals are taken care of", || copy.blocks(Signal::SIGINT));
        let is_whole = || {
            let path = stage(&scratch).map(|stage| stage.join("y/large"));
            path.is_some_and(|path| path.metadata().is_ok_and(|it| it.mtime() == 1000))
        };
        until("it is copied", || is_whole() || copy.has_ended());
        copy.signal(Signal::SIGINT);
        let ran = copy.end();
        ran.exits(130);
        assert!(!scratch.exists("copy"));
        if is_kept {
            ran.says(&["of copy are kept in .ucp-", "to go on: ", "-T tree copy"]);
        }
        assert_eq!(stage(&scratch).is_some(), is_kept, "{options:?}");
        fs::remove_file(scratch.path("tree/z/larger")).unwrap();
        let there = again(&scratch, &options);
        assert_eq!(there > 0, is_kept, "{options:?}");
    }
}

impl Scratch {
    /// A directory with a file in it.
    fn write_below(&self, name: &str) {
        self.make_directory(name);
        self.write(format!("{name}/below"), "below");
    }
}

const JOURNAL: &str = "user.ucp.journal";

/// What a test does to what was left of the large file.
type Spoil<'a> = &'a dyn Fn(&Scratch, &Path);

/// A tree with a large file in it that is copied slowly, killed when half of that is written. Returns
/// where it lies.
fn kill_half_way(scratch: &Scratch, options: &[&str]) -> PathBuf {
    scratch.make_directory("tree/below");
    scratch.write("tree/small", "small");
    scratch.write("tree/below/large", content(5));
    scratch.set_mode("tree/below/large", 0o440);
    settle();
    let options = [&["--limit-rate=512M", "--reflink=never"], options].concat();
    let mut copy = Background::start(&mut ucp(scratch, &options));
    let large = || stage(scratch).map(|stage| stage.join("below/large"));
    let noted = || {
        let journal = xattr::get(large()?, JOURNAL).ok()??;
        Some(u64::from_le_bytes(journal.get(112..120)?.try_into().unwrap()))
    };
    until("half of it is copied", || {
        noted().is_some_and(|end| end >= LARGE as u64 / 2) || copy.has_ended()
    });
    assert!(!copy.has_ended(), "it ended too early");
    copy.signal(Signal::SIGKILL);
    copy.end();
    large().unwrap()
}

/// Copies the tree again; returns how many bytes of the large file were there.
fn resumed(scratch: &Scratch, options: &[&str]) -> u64 {
    let ran = run(&mut ucp(scratch, &[&["--json", "--reflink=never"], options].concat()));
    is_complete(scratch);
    let lines = ran.exits(0).stdout().lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line["resumed_bytes"].as_u64()).sum()
}

#[test]
fn a_large_file_in_a_tree_goes_on_where_it_stopped() {
    for (engine, direct) in [("uring", "on"), ("uring", "off"), ("threads", "on")] {
        let scratch = Scratch::new();
        let options = [format!("--engine={engine}"), format!("--direct={direct}")];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        kill_half_way(&scratch, &options);
        let there = resumed(&scratch, &options);
        assert!(there >= LARGE as u64 / 2, "{options:?}: {there}");
    }
}

#[test]
fn a_large_file_in_a_tree_that_is_not_as_it_was_begins_again() {
    let cases: [(&str, Spoil<'_>); 6] = [
        ("a flipped journal", &|_, large| {
            let mut journal = xattr::get(large, JOURNAL).unwrap().unwrap();
            journal[113] ^= 1;
            xattr::set(large, JOURNAL, &journal).unwrap();
        }),
        ("the journal of another", &|_, large| {
            let journal = xattr::get(large, JOURNAL).unwrap().unwrap();
            let content = fs::read(large).unwrap();
            fs::remove_file(large).unwrap();
            fs::write(large.with_file_name("other"), "takes the inode").unwrap();
            fs::write(large, content).unwrap();
            xattr::set(large, JOURNAL, &journal).unwrap();
            fs::set_permissions(large, fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("no journal", &|_, large| xattr::remove(large, JOURNAL).unwrap()),
        ("other rights", &|_, large| {
            fs::set_permissions(large, fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("cut", &|_, large| {
            fs::OpenOptions::new().write(true).open(large).unwrap().set_len(1 << 20).unwrap();
        }),
        ("another source", &|scratch, _| {
            let mut content = scratch.read("tree/below/large");
            content[7] ^= 1;
            scratch.write("tree/below/large", content);
        }),
    ];
    for (what, spoil) in cases {
        let scratch = Scratch::new();
        let large = kill_half_way(&scratch, &[]);
        spoil(&scratch, &large);
        assert_eq!(resumed(&scratch, &[]), 0, "{what}");
    }
}

#[test]
fn a_large_file_in_a_tree_that_is_still_being_written_begins_again() {
    let scratch = Scratch::new();
    let large = kill_half_way(&scratch, &[]);
    // As what the ring of a killed process has in flight.
    let held = fs::File::open(large).unwrap();
    let _lock = nix::fcntl::Flock::lock(held, nix::fcntl::FlockArg::LockExclusive).unwrap();
    assert_eq!(resumed(&scratch, &[]), 0);
}

#[test]
fn ctrl_c_keeps_a_large_file_in_a_stage_that_is_half_copied() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    scratch.write("tree/large", vec![3; LARGE]);
    settle();
    let options = ["--limit-rate=256M", "--reflink=never"];
    let mut copy = Background::start(&mut ucp(&scratch, &options));
    until("the signals are taken care of", || copy.blocks(Signal::SIGINT));
    let has_journal = || {
        let journal = xattr::get(stage(&scratch)?.join("large"), JOURNAL).ok()??;
        Some(u64::from_le_bytes(journal.get(112..120)?.try_into().unwrap()) >= LARGE as u64 / 2)
    };
    until("half of it is copied", || has_journal() == Some(true) || copy.has_ended());
    copy.signal(Signal::SIGINT);
    copy.end().exits(130).says(&["of copy are kept in .ucp-", "to go on: ", "-T tree copy"]);
    let there = resumed(&scratch, &[]);
    assert!(there >= LARGE as u64 / 2, "{there}");
}
