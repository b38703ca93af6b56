//! Sharing extents with the source: where possible, in any case, or never.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::support::{Scratch, bytes, leftovers, make_sparse, on_file_system, run};

const MIB: usize = 1 << 20;

/// Whether the file has data that another file has, too, as the file system tells.
fn is_shared(path: &Path) -> bool {
    let mut filefrag = Command::new("filefrag");
    let ran = run(filefrag.args(["-v", "-s"]).arg(path));
    ran.exits(0);
    ran.stdout().lines().any(|line| line.contains("shared"))
}

fn share_and_not(scratch: &Scratch) {
    scratch.write("small", bytes(9000, 1));
    scratch.write("middle", bytes(3 * MIB, 2));
    scratch.write("large", bytes(20 * MIB + 5, 3));
    make_sparse(&scratch.path("holes"), 64 << 20, &[(0, 100_000), (30 << 20, MIB)]);
    for name in ["small", "middle", "large", "holes"] {
        // What is not on the disk yet has no extents to tell of.
        run(Command::new("sync").arg(scratch.path(name))).exits(0);
        for (number, (option, is_wanted)) in [
            ("--reflink", Some(true)),
            ("--reflink=always", Some(true)),
            ("--reflink=never", Some(false)),
            // Tiny files are cheaper copied.
            ("--reflink=auto", (name != "small").then_some(true)),
            ("--sparse=always", Some(false)),
            ("--sparse=never", Some(false)),
        ]
        .into_iter()
        .enumerate()
        {
            let copy = format!("{name} {number}");
            let ran = scratch.ucp(["-v", option, name, &copy]);
            ran.exits(0);
            assert!(scratch.read(name) == scratch.read(&copy), "{copy}");
            let says_clone = ran.stderr().contains("clone 1");
            if let Some(want) = is_wanted {
                assert_eq!(is_shared(&scratch.path(&copy)), want, "{option}: {ran:?}");
                assert_eq!(says_clone, want, "{option}: {ran:?}");
            }
            // Over a longer one that is there already, too.
            scratch.write("old", vec![0xee; 70 * MIB]);
            scratch.ucp(["--in-place", option, name, "old"]).succeeds_silently();
            assert!(scratch.read(name) == scratch.read("old"), "{option} in place");
            fs::remove_file(scratch.path("old")).unwrap();
            fs::remove_file(scratch.path(&copy)).unwrap();
        }
    }
    scratch.write("empty", "");
    scratch.ucp(["--reflink", "empty", "copy of empty"]).succeeds_silently();
}

#[test]
fn extents_are_shared_as_asked_for_on_btrfs() {
    require_root!();
    on_file_system("btrfs", 600 << 20, share_and_not);
}

#[test]
fn extents_are_shared_as_asked_for_on_xfs() {
    require_root!();
    on_file_system("xfs", 600 << 20, share_and_not);
}

#[test]
fn what_cannot_be_shared_is_not_copied_when_asked_for() {
    require_root!();
    on_file_system("tmpfs", 64 << 20, |scratch| {
        scratch.write("a", bytes(MIB, 1));
        scratch.write("old", "old");
        scratch.make_directory("tree/below");
        scratch.write("tree/below/b", bytes(10, 1));
        for words in [["--reflink", "a", "copy"], ["--reflink=always", "a", "old"]] {
            let ran = scratch.ucp(words);
            ran.exits(1).says(&["clone failed on", words[2], "Operation not supported"]);
        }
        scratch.ucp(["--reflink", "tree", "copied tree"]).exits(1).says_lines(1);
        assert_eq!(scratch.read("old"), b"old");
        assert!(!scratch.exists("copy") && !scratch.exists("copied tree/below/b"));
        assert!(leftovers(&scratch.path("")).is_empty());
        let usage = ["--reflink", "--sparse=always", "a", "copy"];
        scratch.ucp(usage).exits(2).says(&["--reflink can be used only with --sparse=auto"]);
    });
}

#[test]
fn never_forbids_copying_by_the_kernel_too() {
    let scratch = Scratch::new();
    scratch.write("a", bytes(20 * MIB, 1));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=ioctl,copy_file_range", "-o", "calls", super::support::UCP]);
    run(strace.args(["--reflink=never", "a", "b"]).current_dir(scratch.path(""))).exits(0);
    let calls = String::from_utf8(scratch.read("calls")).unwrap();
    assert!(!calls.contains("FICLONE") && !calls.contains("copy_file_range("), "{calls}");
}
