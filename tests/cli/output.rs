//! What a run says: `cp`'s lines under `-v`, the engine, the last line, progress.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::pipe;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use super::support::{Scratch, UCP, bytes, make_odd_tree, run};

fn sorted(text: &[u8]) -> BTreeSet<Vec<u8>> {
    text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn success_says_nothing_where_nobody_looks() {
    let scratch = Scratch::new();
    make_odd_tree(&scratch, "tree", &[0, 1, 5000]);
    scratch.ucp(["tree", "copy"]).succeeds_silently();
}

#[test]
fn verbose_lines_are_those_of_cp() {
    let scratch = Scratch::new();
    make_odd_tree(&scratch, "tree", &[0, 1, 5000]);
    scratch.make_directory("ours");
    scratch.make_directory("theirs");
    let cases: [(&str, &[&str]); 4] = [
        ("a tree", &["tree", "to"]),
        ("a tree into a directory", &["tree", "."]),
        ("a tree with a slash", &["tree/", "to"]),
        ("files into a directory with a slash", &["tree/of 0 bytes", "tree/odd/-r", "./"]),
    ];
    for (name, words) in cases {
        let (sources, target) = words.split_at(words.len() - 1);
        let mut ran = Vec::new();
        for (program, place) in [(UCP, "ours"), ("cp", "theirs")] {
            let mut command = Command::new(program);
            command.arg("-rv").args(sources.iter().map(|source| format!("../{source}")));
            command.arg(target[0]).env("LC_ALL", "C.UTF-8");
            ran.push(run(command.current_dir(scratch.path(place))));
        }
        assert!(!ran[0].exits(0).stdout.is_empty());
        let lines = ran.iter().map(|ran| sorted(&ran.stdout)).collect::<Vec<_>>();
        assert_eq!(lines[0], lines[1], "{name}");
        for place in ["ours", "theirs"] {
            std::fs::remove_dir_all(scratch.path(place)).unwrap();
            scratch.make_directory(place);
        }
    }
}

#[test]
fn verbose_names_the_engine_and_ends_with_a_line_of_figures() {
    let scratch = Scratch::new();
    scratch.write("a", vec![b'a'; 5000]);
    for (engine, says) in [("auto", "engine: "), ("threads", "threads"), ("uring", "io_uring")] {
        let ran = scratch.ucp(["-v", &format!("--engine={engine}"), "a", engine]);
        ran.exits(0).says(&["1 file", "4.8 KiB in ", " s, ", "/s"]).says_lines(2);
        let line = ran.stderr().lines().find(|line| line.starts_with("engine: "));
        assert!(line.is_some_and(|line| line.contains(says)), "{ran:?}");
        assert_eq!(ran.stdout(), format!("'a' -> '{engine}'\n"));
    }
}

#[test]
fn quiet_says_errors_only() {
    let scratch = Scratch::new();
    scratch.write("a", "");
    scratch.ucp(["-q", "a", "b"]).succeeds_silently();
    scratch.ucp(["-vq", "a", "b"]).succeeds_silently();
    scratch.ucp(["-q", "missing", "b"]).exits(1).says(&["missing"]).says_lines(1);
}

#[test]
fn names_reach_standard_error_without_controls() {
    let scratch = Scratch::new();
    scratch.make_directory("e");
    let ran = scratch.ucp(["evil\x1b[2J\nname", "e"]);
    ran.exits(1).says(&["'evil'$'\\033''[2J'$'\\n''name'"]).says_lines(1);
    let ran = scratch.ucp(["--evil\x1b[2J\x07\nname", "e"]);
    ran.exits(2).says_lines(2);
    assert!(!ran.stderr().contains(['\x1b', '\x07']));
}

#[test]
fn progress_is_not_shown_unless_asked_for_where_there_is_no_terminal() {
    let scratch = Scratch::new();
    scratch.write("a", "");
    for when in ["auto", "never", "always"] {
        // So short a copy ends before the first line is due, in any case.
        scratch.ucp([&format!("--progress={when}"), "a", "b"]).succeeds_silently();
    }
}

#[test]
fn progress_on_a_terminal_tells_bytes_files_rate_and_time_left() {
    let scratch = Scratch::new();
    scratch.write("a", bytes(32 << 20, 1));
    let slow = "--engine=threads --direct=on --reflink=never --depth=1 --block-size=4K";
    let command = format!("'{UCP}' {slow} a b");
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm");
    let ran = run(script.current_dir(scratch.path("")));
    let text = ran.exits(0).stdout();
    for part in [" of 32.00 MiB, 0 of 1 files, ", "B/s ", " left"] {
        assert!(text.contains(part), "{part}: {ran:?}");
    }
    assert!(text.trim_end().ends_with("(direct 1)"), "the last line: {ran:?}");
}

#[test]
fn progress_on_a_terminal_leaves_errors_readable() {
    let scratch = Scratch::new();
    scratch.write("a", "");
    let command = format!("'{UCP}' missing a .; echo status $?");
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm");
    scratch.make_directory("e");
    let ran = run(script.current_dir(scratch.path("e")));
    assert!(ran.stdout().contains("ucp: "), "{ran:?}");
    assert!(ran.stdout().contains("status 1"), "{ran:?}");
}

#[test]
fn a_standard_output_that_takes_nothing_lets_the_work_go_on_and_exits_with_one() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, closed) = pipe().unwrap();
    drop(reader);
    let outputs: [(&str, OwnedFd, &str); 2] =
        [("full", full.into(), "No space left"), ("closed", closed.into(), "Broken pipe")];
    for (name, output, reason) in outputs {
        let scratch = Scratch::new();
        // More than fits into any buffer.
        scratch.make_directory("tree");
        (0..2000).for_each(|number| scratch.write(format!("tree/{number}"), "x"));
        let mut command = Command::new(UCP);
        command.args(["-v", "tree", "copy"]).current_dir(scratch.path(""));
        let ran = run(command.stdout(Stdio::from(output)));
        ran.exits(1).says(&["standard output", reason]).says_lines(3);
        for number in 0..2000 {
            assert_eq!(scratch.read(format!("copy/{number}")), b"x", "{name}");
        }
    }
}

#[test]
fn a_standard_output_that_takes_no_help_exits_with_one() {
    let scratch = Scratch::new();
    for word in ["--help", "--version"] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(UCP);
        let ran = run(command.arg(word).current_dir(scratch.path("")).stdout(full));
        ran.exits(1).says(&["standard output", "No space left"]);
    }
}

#[test]
fn closed_streams_do_not_stop_a_copy() {
    let scratch = Scratch::new();
    scratch.write("a", "content");
    for (name, closing) in [("in", "<&-"), ("out", ">&-"), ("err", "2>&-"), ("all", "<&- >&- 2>&-")]
    {
        let script = format!("exec '{UCP}' a {name} {closing}");
        run(Command::new("sh").args(["-c", &script]).current_dir(scratch.path(""))).exits(0);
        assert_eq!(scratch.read(name), b"content", "{name}");
    }
}
