//! Where io_uring is blocked, the same copies succeed, and `-v` says why in one line.

use std::path::PathBuf;
use std::process::Command;

use super::support::{Ran, Scratch, UCP, bytes, leftovers, listing, make_odd_tree, run};

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

#[test]
fn a_ring_that_breaks_fails_its_file_and_not_the_program() {
    // From the n-th call on nothing works any more: while the ring is used for the first file. What
    // came before is what tries the ring out.
    for call in [8, 12] {
        let place = Scratch::new();
        place.write("large", bytes(40 * MIB, 1));
        place.write("other", bytes(40 * MIB, 2));
        place.write("small", "text");
        place.make_directory("to");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=io_uring_enter", "-e"]);
        command.arg(format!("inject=io_uring_enter:error=EFAULT:when={call}+"));
        command.arg(UCP).args(["--reflink=never", "--direct=on", "large", "small", "other", "to"]);
        let ran = run(command.current_dir(place.path("")));
        ran.exits(1).says(&["io_uring_enter failed on to/large", "Bad address"]);
        ran.says(&["to/other"]).says_lines(2);
        assert_eq!(place.read("to/small"), b"text");
        assert!(!place.exists("to/large") && !place.exists("to/other"));
        assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new(), "{call}");
    }
}
