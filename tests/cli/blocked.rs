//! Where io_uring is blocked, the same copies succeed, and `-v` says why in one line.

use std::path::PathBuf;
use std::process::Command;

use super::support::{Ran, Scratch, UCP, leftovers, listing, make_odd_tree, run};

const MIB: usize = 1 << 20;
const SIZES: [usize; 5] = [0, 1, 4097, MIB + 1, 17 * MIB + 7];

/// Has the kernel answer one system call of the command's with an errno, as a filter would.
fn copy_without(call: &str, errno: &str, options: &[&str]) -> (Scratch, Ran) {
    let place = Scratch::new();
    make_odd_tree(&place, "tree", &SIZES);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
    command.args([format!("trace={call}"), "-e".into(), format!("inject={call}:error={errno}")]);
    command.arg(UCP).args(["-v", "--reflink=never"]).args(options).args(["tree", "copy"]);
    let ran = run(command.current_dir(place.path("")));
    (place, ran)
}

#[test]
fn a_blocked_ring_changes_nothing_but_the_engine_and_says_so() {
    let cases = [
        ("io_uring_setup", "ENOSYS", "not there"),
        ("io_uring_setup", "EPERM", "not permitted"),
        ("io_uring_setup", "EOPNOTSUPP", "not supported"),
        ("io_uring_setup", "EACCES", "not permitted"),
        ("io_uring_enter", "ENOSYS", "not there"),
        ("io_uring_enter", "EPERM", "not permitted"),
        ("io_uring_enter", "EOPNOTSUPP", "not supported"),
        ("io_uring_register", "EPERM", "not permitted"),
    ];
    for (call, errno, reason) in cases {
        let (place, ran) = copy_without(call, errno, &[]);
        ran.exits(0);
        let lines: Vec<&str> =
            ran.stderr().lines().filter(|line| line.contains("using threads")).collect();
        assert_eq!(lines.len(), 1, "{call} {errno}: {ran:?}");
        assert!(lines[0].contains(reason), "{call} {errno}: {}", lines[0]);
        let (want, got) = (listing(&place.path("tree")), listing(&place.path("copy")));
        assert!(want == got, "{call} {errno}: the copy differs");
        assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new(), "{call} {errno}");
    }
}

#[test]
fn a_blocked_ring_is_an_error_where_it_is_demanded() {
    let (place, ran) = copy_without("io_uring_setup", "EPERM", &["--engine=uring"]);
    ran.exits(1).says(&["io_uring", "not permitted"]);
    assert!(!place.exists("copy"));
}

/// A filter may refuse `openat2` alone: it came years after `openat`.
#[test]
fn a_blocked_openat2_changes_nothing() {
    for errno in ["ENOSYS", "EPERM"] {
        let (place, ran) = copy_without("openat2", errno, &[]);
        ran.exits(0);
        let (want, got) = (listing(&place.path("tree")), listing(&place.path("copy")));
        assert!(want == got, "{errno}: the copy differs");
        assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new(), "{errno}");
    }
}
