//! `--sandbox`: the copies are the same, and what is outside stays out of reach.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::support::{Scratch, UCP, leftovers, listing, make_odd_tree, run};

const SIZES: [usize; 4] = [0, 1, 4097, (17 << 20) + 7];

/// Whether the kernel can do it; where it must, a kernel that can't is a failure.
fn has_landlock() -> bool {
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let is_there = modules.split(',').any(|module| module == "landlock") || modules.is_empty();
    let is_required = std::env::var_os("UCP_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(is_there || !is_required, "this test must run here, but there is no Landlock");
    if !is_there {
        eprintln!("skipped: there is no Landlock");
    }
    is_there
}

#[test]
fn copies_in_a_sandbox_are_the_same() {
    if !has_landlock() {
        return;
    }
    let place = Scratch::new();
    make_odd_tree(&place, "tree", &SIZES);
    fs::create_dir(place.path("into")).unwrap();
    symlink("into/final", place.path("link")).unwrap();
    fs::write(place.path("into/final"), "old").unwrap();
    let ucp = |words: &[&str]| {
        let mut command = Command::new(UCP);
        command.arg("--sandbox").args(words).current_dir(place.path(""));
        run(&mut command)
    };
    ucp(&["tree", "new"]).exits(0);
    ucp(&["tree", "into"]).exits(0);
    ucp(&["-T", "--stage=never", "tree", "open/"]).exits(0);
    let want = listing(&place.path("tree"));
    for copy in ["new", "into/tree", "open"] {
        assert!(want == listing(&place.path(copy)), "{copy} differs");
    }
    fs::write(place.path("file"), "new").unwrap();
    ucp(&["file", "link"]).exits(0);
    assert_eq!(fs::read(place.path("into/final")).unwrap(), b"new", "the link's file is replaced");
    assert!(place.path("link").is_symlink());
    ucp(&["file", "/dev/null"]).exits(0);
    assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new());
}

#[test]
fn what_is_outside_is_refused_by_the_kernel() {
    if !has_landlock() {
        return;
    }
    let place = Scratch::new();
    fs::create_dir_all(place.path("tree/below")).unwrap();
    fs::write(place.path("tree/inside"), "inside").unwrap();
    // What is beside the target can be written, and so read: the secret is elsewhere.
    let elsewhere = Scratch::new();
    fs::write(elsewhere.path("secret"), "secret").unwrap();
    symlink(elsewhere.path("secret"), place.path("tree/below/leak")).unwrap();
    let mut command = Command::new(UCP);
    command.args(["--sandbox", "-L", "tree", "copy"]).current_dir(place.path(""));
    run(&mut command).exits(1).says(&["open failed on tree/below/leak", "Permission denied"]);
    assert_eq!(fs::read(place.path("copy/inside")).unwrap(), b"inside");
    assert!(!place.exists("copy/below/leak"));
    let mut command = Command::new(UCP);
    command.args(["-L", "tree", "without"]).current_dir(place.path(""));
    run(&mut command).exits(0);
    assert!(place.exists("without/below/leak"), "it is the sandbox that refused");
}

#[test]
fn the_sandbox_is_there_before_any_thread_or_ring() {
    if !has_landlock() {
        return;
    }
    let place = Scratch::new();
    fs::write(place.path("a"), vec![1; 17 << 20]).unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "trace"]);
    command.args(["-e", "trace=landlock_restrict_self,clone,clone3,io_uring_setup,openat,openat2"]);
    command.args([UCP, "--sandbox", "--engine=uring", "a", "b"]).current_dir(place.path(""));
    run(&mut command).exits(0);
    let trace = fs::read_to_string(place.path("trace")).unwrap();
    let is_call = |line: &str, call: &str| {
        line.split_whitespace().nth(1).is_some_and(|it| it.starts_with(call))
    };
    let line = |call: &str| trace.lines().position(|line| is_call(line, call));
    let entered = line("landlock_restrict_self").expect("it is entered");
    for later in ["clone", "io_uring_setup"] {
        assert!(line(later).is_some_and(|at| at > entered), "{later} came first:\n{trace}");
    }
}
