//! Ctrl-C and its relatives.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use super::support::{Background, Scratch, UCP, bytes, leftovers, run, until};

/// What holds a copy to a rate at which no signal comes too late for it, however busy the machine is;
/// and so that it takes some thousand operations.
const SLOW: [&str; 6] = [
    "--engine=threads",
    "--depth=1",
    "--block-size=4K",
    "--direct=off",
    "--reflink=never",
    "--limit-rate=16M",
];

/// A copy that takes long.
fn slow(scratch: &Scratch) -> Command {
    let mut command = Command::new(UCP);
    command.args(SLOW).current_dir(scratch.path(""));
    command
}

#[test]
fn a_signal_ends_a_large_copy_and_leaves_the_old_target() {
    let cases = [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)];
    for (signal, code) in cases {
        for target in ["old", "new"] {
            let scratch = Scratch::new();
            scratch.write("large", bytes(64 << 20, 1));
            scratch.write("old", "old");
            let mut copy = Background::start(slow(&scratch).args(["large", target]));
            copy.stop_when_open(&scratch.path("large"));
            copy.signal(signal);
            copy.signal(Signal::SIGCONT);
            let ran = copy.end();
            ran.exits(code).says_lines(1).says(&[signal.as_str()]);
            assert_eq!(scratch.read("old"), b"old");
            assert!(!scratch.exists("new"));
            assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new(), "{signal} {target}");
        }
    }
}

#[test]
fn a_signal_ends_the_copy_of_a_tree_and_a_second_run_completes_it() {
    let scratch = Scratch::new();
    scratch.make_directory("tree/below");
    (0..2000).for_each(|number| scratch.write(format!("tree/below/{number}"), bytes(5000, 1)));
    scratch.write("tree/large", bytes(64 << 20, 1));
    for target in ["new", "existing"] {
        scratch.make_directory("existing");
        let mut copy = Background::start(slow(&scratch).args(["-T", "tree", target]));
        copy.stop_when_open(&scratch.path("tree/large"));
        copy.signal(Signal::SIGINT);
        copy.signal(Signal::SIGCONT);
        copy.end().exits(130).says(&["SIGINT"]);
        let second = scratch.ucp(["-T", "tree", target]);
        second.succeeds_silently();
        run(Command::new("diff").arg("-r").arg(scratch.path("tree")).arg(scratch.path(target)))
            .exits(0);
        assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new(), "{target}");
    }
}

#[test]
fn two_signals_at_the_same_moment_are_one() {
    // `timeout -s INT` signals the program, and then its group.
    let scratch = Scratch::new();
    scratch.write("large", bytes(64 << 20, 1));
    let mut copy = Background::start(slow(&scratch).args(["large", "copy"]));
    copy.stop_when_open(&scratch.path("large"));
    copy.signal(Signal::SIGINT);
    copy.signal(Signal::SIGCONT);
    copy.signal(Signal::SIGINT);
    copy.end().exits(130).says(&["SIGINT"]);
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    // Nobody ever writes into the FIFO, so the copy hangs in its open, which can't be cancelled.
    let scratch = Scratch::new();
    run(Command::new("mkfifo").arg(scratch.path("fifo"))).exits(0);
    let mut command = Command::new(UCP);
    let mut copy = Background::start(command.args(["fifo", "b"]).current_dir(scratch.path("")));
    until("the signals are taken care of", || copy.blocks(Signal::SIGINT));
    until("it ends", || {
        copy.signal(Signal::SIGINT);
        copy.has_ended()
    });
    copy.end().exits(130);
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    // As under `nohup`, and as in the background of a shell script.
    let scratch = Scratch::new();
    scratch.write("large", bytes(16 << 20, 1));
    let script = format!("trap '' HUP INT; exec '{UCP}' {} large copy", SLOW.join(" "));
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(scratch.path(""));
    let mut copy = Background::start(&mut command);
    copy.stop_when_open(&scratch.path("large"));
    copy.signal(Signal::SIGHUP);
    copy.signal(Signal::SIGINT);
    copy.signal(Signal::SIGCONT);
    copy.end().exits(0);
    assert!(scratch.read("copy") == scratch.read("large"));
}

#[test]
fn a_signal_to_the_whole_group_counts_once() {
    // A terminal sends Ctrl-C to the group; `timeout` sends its signal twice.
    let scratch = Scratch::new();
    scratch.write("large", bytes(64 << 20, 1));
    let mut command = slow(&scratch);
    let mut copy = Background::start(command.args(["large", "new"]).process_group(0));
    copy.stop_when_open(&scratch.path("large"));
    copy.signal(Signal::SIGTERM);
    copy.signal(Signal::SIGTERM);
    copy.signal(Signal::SIGCONT);
    copy.end().exits(143);
    assert!(!scratch.exists("new"));
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}
