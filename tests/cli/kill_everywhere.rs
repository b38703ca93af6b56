//! Killed at every system call of a small copy, one after the other: no name is ever torn, and the
//! next run completes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::libc;

use super::support::{Scratch, UCP, bytes, leftovers, listing, run};

/// The calls that change a file system, or between which it changes.
const CALLS: [&str; 22] = [
    "openat",
    "openat2",
    "mkdirat",
    "symlinkat",
    "linkat",
    "mknodat",
    "renameat2",
    "unlinkat",
    "pwrite64",
    "write",
    "ftruncate",
    "fallocate",
    "fchmod",
    "fchown",
    "fchownat",
    "utimensat",
    "fsetxattr",
    "flock",
    "fsync",
    "fdatasync",
    "syncfs",
    "close",
];

/// Small ones, one of several writes, and an empty one.
const FILES: [(&str, usize); 4] = [("a", 10), ("b/c", 70_000), ("b/d", 300_001), ("f", 0)];
/// One that is moved in blocks, with room reserved and its end cut.
const LARGE: [(&str, usize); 1] = [("b/large", (16 << 20) + 3)];

type Files = [(&'static str, usize)];

fn write_files(place: &Scratch, files: &Files, root: &str, seed: u64) {
    place.make_directory(format!("{root}/b"));
    for &(name, size) in files {
        // Old and new differ in length as well, but for the empty one.
        let size = if size == 0 { 0 } else { size + usize::from(seed == 1) };
        place.write(format!("{root}/{name}"), bytes(size, seed * 1000 + size as u64));
    }
    place.link(format!("says {seed}"), format!("{root}/b/link"));
}

fn copy(place: &Scratch, options: &[&str], inject: Option<(&str, u32)>) -> Command {
    let mut command = match inject {
        None => Command::new(UCP),
        Some((call, number)) => {
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}"), UCP]);
            command
        }
    };
    command.args(["--engine=threads", "--reflink=never"]).args(options);
    command.args(["-T", "new", "target"]).current_dir(place.path(""));
    command
}

/// Kills a copy at every call in turn. Returns how many were killed.
fn kill_everywhere(calls: &[&str], files: &Files, options: &[&str], has_old: bool) -> u32 {
    let place = Scratch::new();
    write_files(&place, files, "new", 2);
    write_files(&place, files, "old", 1);
    let mut killed = 0;
    for call in calls {
        for number in 1.. {
            let _ = fs::remove_dir_all(place.path("target"));
            if has_old {
                write_files(&place, files, "target", 1);
            }
            let ran = run(&mut copy(&place, options, Some((call, number))));
            let what = format!("{options:?}, {call} {number}");
            if ran.signal() != Some(libc::SIGKILL) {
                ran.exits(0);
                break;
            }
            killed += 1;
            check_names(&place, files, has_old, &what);
            run(&mut copy(&place, options, None)).exits(0);
            check_all_is_there(&place, &what);
        }
    }
    killed
}

fn check_names(place: &Scratch, files: &Files, has_old: bool, what: &str) {
    for (name, _) in files {
        let Ok(content) = fs::read(place.path(format!("target/{name}"))) else {
            assert!(!has_old, "{what}: {name} is gone");
            continue;
        };
        let is = |root: &str| fs::read(place.path(format!("{root}/{name}"))).unwrap() == content;
        let is_whole = is("new") || has_old && is("old");
        assert!(is_whole, "{what}: {name} is torn, {} bytes", content.len());
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

fn check_all_is_there(place: &Scratch, what: &str) {
    let contents = |root: &str| {
        let entries = listing(&place.path(root)).into_iter();
        entries.map(|(name, entry)| (name, entry.without_times())).collect::<Vec<_>>()
    };
    assert!(contents("new") == contents("target"), "{what}: the second run completes");
    assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new(), "{what}: nothing is left");
}

#[test]
fn a_copy_into_a_new_directory_survives_a_kill_at_every_call() {
    let killed = kill_everywhere(&CALLS, &FILES, &[], false);
    assert!(killed > 50, "only {killed} calls were met");
}

#[test]
fn a_copy_over_existing_files_survives_a_kill_at_every_call() {
    let killed = kill_everywhere(&CALLS, &FILES, &["--durable"], true);
    assert!(killed > 60, "only {killed} calls were met");
}

#[test]
fn a_copy_in_blocks_survives_a_kill_at_every_call_that_changes_it() {
    let calls = ["fallocate", "pwrite64", "ftruncate", "utimensat", "renameat2"];
    let options = ["--direct=on", "--block-size=4M"];
    let killed = kill_everywhere(&calls, &LARGE, &options, true);
    // Each thread counts its own calls, so that only some of the writes are met.
    assert!(killed > 4, "only {killed} calls were met");
}
