//! `--dry-run`: says what would be done, and touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{Scratch, in_mount_namespace, listing, make_odd_tree, run};

/// All that can be seen of a file without changing it.
type Seen = (u64, u32, u64, [(i64, i64); 3]);

/// Everything at and below a directory. Looking at it is done before anything is listed or read.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let names: Vec<PathBuf> = listing(root).into_keys().collect();
    let seen = |name: &PathBuf| {
        let status = root.join(name).symlink_metadata().unwrap();
        let times = [
            (status.atime(), status.atime_nsec()),
            (status.mtime(), status.mtime_nsec()),
            (status.ctime(), status.ctime_nsec()),
        ];
        (status.ino(), status.mode(), status.size(), times)
    };
    names.iter().map(|name| (name.clone(), seen(name))).collect()
}

/// Makes each access time older than all other times, so that any reading would change it.
fn age(root: &Path) {
    for name in listing(root).into_keys() {
        super::support::set_times(&root.join(name), 1_000_000_000, 2_000_000_000_000_000_000);
    }
}

/// What the listing itself changes is taken before; only times of reading are compared apart.
fn access_times(root: &Path, names: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, i64> {
    let time = |name: &PathBuf| root.join(name).symlink_metadata().unwrap().atime();
    names.iter().map(|name| (name.clone(), time(name))).collect()
}

fn make_trees(scratch: &Scratch) {
    make_odd_tree(scratch, "all/source", &[0, 17, 300_000]);
    scratch.make_directory("all/target/deep");
    scratch.make_directory("all/target/old/er");
    scratch.write("all/target/of 17 bytes", "old");
    scratch.write("all/target/more", "more");
    scratch.link("nowhere", "all/target/deep/link");
}

#[test]
fn nothing_is_touched_whatever_is_asked_for() {
    let scratch = Scratch::new();
    make_trees(&scratch);
    let all = scratch.path("all");
    let names: BTreeSet<PathBuf> = listing(&all).into_keys().collect();
    // Not -L: who follows a link reads it.
    let cases: [&[&str]; 8] = [
        &["-T", "all/source", "all/target"],
        &["-v", "-T", "all/source", "all/target"],
        &["--delete", "-T", "all/source", "all/target"],
        &["--delete", "--exclude=odd", "-T", "all/source", "all/target"],
        &["all/source", "all/target"],
        &["all/source", "all/new"],
        &["--durable", "--stage=never", "all/source", "all/new"],
        &["--in-place", "all/source/of 17 bytes", "all/target"],
    ];
    for words in cases {
        age(&all);
        let before = access_times(&all, &names);
        let ran = scratch.ucp(["--dry-run"].iter().chain(words));
        assert_eq!(access_times(&all, &names), before, "{words:?}");
        let want = snapshot(&all);
        scratch.ucp(["--dry-run"].iter().chain(words)).exits(0);
        let got = snapshot(&all);
        let timeless = |seen: BTreeMap<PathBuf, Seen>| -> BTreeMap<PathBuf, Seen> {
            let no_access = |(inode, mode, size, [_, modified, changed]): Seen| {
                (inode, mode, size, [(0, 0), modified, changed])
            };
            seen.into_iter().map(|(name, seen)| (name, no_access(seen))).collect()
        };
        assert_eq!(timeless(got), timeless(want), "{words:?}");
        ran.exits(0);
        assert!(!ran.stdout.is_empty(), "{ran:?}");
    }
    let names_now: BTreeSet<PathBuf> = listing(&all).into_keys().collect();
    assert_eq!(names_now, names);
}

#[test]
fn it_says_what_would_be_done_and_how_much() {
    let scratch = Scratch::new();
    for directory in ["source/new", "target/old", "source/both", "target/both"] {
        scratch.make_directory(directory);
    }
    scratch.write("source/a", "12345");
    scratch.write("source/both/b", "1234567");
    scratch.write("source/new/c", "1");
    scratch.link("a", "source/link");
    scratch.write("target/both/b", "old");
    scratch.write("target/old/x", "old");
    scratch.write("target/excluded", "old");
    let words = ["--dry-run", "--delete", "--exclude=excluded", "-T", "source", "target"];
    let ran = scratch.ucp(words);
    let said: BTreeSet<&str> = ran.exits(0).stdout().lines().collect();
    let want = [
        "would copy 'source/a' -> 'target/a' (5 bytes)",
        "would replace 'source/both/b' -> 'target/both/b' (7 bytes)",
        "would make directory 'source/new' -> 'target/new'",
        "would copy 'source/new/c' -> 'target/new/c' (1 byte)",
        "would copy link 'source/link' -> 'target/link'",
        "would delete 'target/old/x'",
        "would delete directory 'target/old'",
    ];
    assert_eq!(said, want.into());
    let last = ran.stderr().lines().last().unwrap();
    assert!(last.starts_with("ucp: dry run: 3 files, 3 directories, 1 link, 13 B"), "{ran:?}");
    assert!(last.contains(", 2 deleted"), "{ran:?}");
    let ran = scratch.ucp(["-q"].iter().chain(&words));
    ran.succeeds_silently();
    let ran = scratch.ucp(["--in-place"].iter().chain(&words));
    assert!(ran.stdout().contains("would write in place 'source/both/b'"), "{ran:?}");
    // And then it is done.
    scratch.ucp(&words[1..]).succeeds_silently();
    assert!(!scratch.exists("target/old") && scratch.exists("target/new/c"));
    let ran = scratch.ucp(words);
    assert!(!ran.exits(0).stdout().contains("delete"), "{ran:?}");
}

#[test]
fn what_would_fail_fails() {
    let scratch = Scratch::public();
    scratch.make_directory("source/closed");
    scratch.write("source/closed/a", "");
    scratch.write("source/secret", "");
    scratch.make_directory("target/directory");
    scratch.make_directory("target/more");
    scratch.write("source/directory", "");
    scratch.set_mode("source/closed", 0o000);
    scratch.set_mode("source/secret", 0o000);
    let ran = scratch.ucp_as_nobody(["--dry-run", "--delete", "-T", "source", "target"]);
    ran.exits(1)
        .says(&["source/closed", "Permission denied"])
        .says(&["source/secret", "Permission denied"])
        .says(&["target/directory", "cannot overwrite a directory"])
        .says(&["nothing was deleted"]);
    scratch.ucp(["--dry-run", "missing", "target"]).exits(1).says(&["missing"]);
    scratch.ucp(["--dry-run", "source", "source/inside"]).exits(1).says(&["into itself"]);
}

#[test]
fn streams_are_not_opened() {
    let scratch = Scratch::new();
    run(Command::new("mkfifo").arg(scratch.path("fifo"))).exits(0);
    // A FIFO that nobody writes to would wait for ever.
    let ran = scratch.ucp(["--dry-run", "fifo", "new"]);
    assert!(ran.exits(0).stdout().contains("would copy 'fifo' -> 'new'"), "{ran:?}");
    assert!(!scratch.exists("new"));
}

#[test]
fn it_runs_where_nothing_can_be_written() {
    let scratch = Scratch::new();
    make_trees(&scratch);
    in_mount_namespace(|| {
        let all = scratch.path("all");
        run(Command::new("mount").arg("--bind").arg(&all).arg(&all)).exits(0);
        run(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&all)).exits(0);
        assert!(fs::write(all.join("x"), "").is_err(), "it is mounted read-only");
        scratch.ucp(["--dry-run", "--delete", "-T", "all/source", "all/target"]).exits(0);
        scratch.ucp(["--dry-run", "--durable", "all/source", "all/new"]).exits(0);
    });
}
