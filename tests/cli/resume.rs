//! A large file that was interrupted: the same copy, made again, goes on where it stopped.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use super::support::{Background, Scratch, UCP, bytes, leftovers, run, until};

/// What a test does to what was left.
type Spoil<'a> = &'a dyn Fn(&Scratch);

/// Large enough to keep a journal.
pub(super) const SIZE: usize = 256 << 20;
/// Of these a copy notes only what is whole.
const EVERY: u64 = 64 << 20;
/// Bytes of a journal's header, and of a record.
const HEADER: u64 = 104;
const RECORD: u64 = 20;

fn journal(scratch: &Scratch) -> Option<PathBuf> {
    let found = leftovers(&scratch.path("")).into_iter();
    let mut journals = found.filter(|name| name.extension().is_some_and(|it| it == "journal"));
    journals.next().map(|name| scratch.path("").join(name))
}

/// Content whose blocks all differ, made faster than byte by byte.
pub(super) fn content(seed: u64) -> Vec<u8> {
    let block = bytes(1 << 20, seed);
    let mut content = Vec::with_capacity(SIZE);
    for number in 0..SIZE / block.len() {
        content.extend_from_slice(&number.to_le_bytes());
        content.extend_from_slice(&block[8..]);
    }
    content
}

/// A copy that is held when half of it is written and noted.
fn half_way(scratch: &Scratch, more: &[&str]) -> Background {
    scratch.write("large", content(1));
    scratch.write("copy", "old");
    let mut command = Command::new(UCP);
    command.args(["--reflink=never", "--limit-rate=512M", "--sparse=never"]).args(more);
    let mut copy = Background::start(command.args(["large", "copy"]).current_dir(scratch.path("")));
    let is_half = || {
        let length = journal(scratch).and_then(|path| path.metadata().ok());
        length.is_some_and(|it| it.size() >= HEADER + SIZE as u64 / 2 / EVERY * RECORD)
    };
    until("half of it is copied", || is_half() || copy.has_ended());
    assert!(!copy.has_ended(), "it ended too early");
    copy
}

/// Copies again; returns how many bytes that wrote.
fn again(scratch: &Scratch, more: &[&str]) -> u64 {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "log", "-e", "signal=none", "-e", "trace=pwrite64"]);
    command.args([UCP, "--engine=threads", "--reflink=never", "--sparse=never"]).args(more);
    run(command.args(["large", "copy"]).current_dir(scratch.path(""))).succeeds_silently();
    let log = String::from_utf8(scratch.read("log")).unwrap();
    let written = log.lines().filter_map(|line| line.rsplit_once(" = ")?.1.parse::<u64>().ok());
    let written = written.sum();
    assert!(scratch.read("copy") == scratch.read("large"), "the copy differs");
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
    written
}

#[test]
fn what_was_killed_goes_on_where_it_stopped() {
    for direct in ["--direct=on", "--direct=off"] {
        let scratch = Scratch::new();
        half_way(&scratch, &[direct]).signal(Signal::SIGKILL);
        assert_eq!(scratch.read("copy"), b"old");
        let written = again(&scratch, &[]);
        assert!(written <= SIZE as u64 * 3 / 4, "{direct}: {written} bytes were written again");
    }
}

#[test]
fn a_journal_that_is_not_of_this_copy_is_not_believed() {
    let flip = |scratch: &Scratch, at: usize| {
        let path = journal(scratch).unwrap();
        let mut content = fs::read(&path).unwrap();
        content[at] ^= 1;
        fs::write(path, content).unwrap();
    };
    let cases: [(&str, Spoil<'_>); 6] = [
        ("a flipped header", &|scratch| flip(scratch, 20)),
        ("a flipped record", &|scratch| flip(scratch, 110)),
        ("another source", &|scratch| scratch.write("large", content(2))),
        ("a temporary of another mode", &|scratch| {
            let path = journal(scratch).unwrap().with_extension("part");
            let name = path.file_name().unwrap().to_owned();
            scratch.set_mode(name, 0o644);
        }),
        ("a temporary that was cut", &|scratch| {
            let path = journal(scratch).unwrap().with_extension("part");
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
        }),
        ("no journal", &|scratch| fs::remove_file(journal(scratch).unwrap()).unwrap()),
    ];
    for (name, spoil) in cases {
        let scratch = Scratch::new();
        half_way(&scratch, &[]).signal(Signal::SIGKILL);
        spoil(&scratch);
        let written = again(&scratch, &[]);
        assert!(written >= SIZE as u64, "{name}: only {written} bytes were written");
    }
}

#[test]
fn no_resume_begins_again_and_keeps_nothing() {
    let scratch = Scratch::new();
    half_way(&scratch, &[]).signal(Signal::SIGKILL);
    let written = again(&scratch, &["--no-resume"]);
    assert!(written >= SIZE as u64, "only {written} bytes were written");
    let mut command = Command::new(UCP);
    command.args(["--reflink=never", "--limit-rate=64M", "--no-resume", "large", "copy"]);
    let copy = Background::start(command.current_dir(scratch.path("")));
    until("the signals are taken care of", || copy.blocks(Signal::SIGINT));
    until("it has begun", || !leftovers(&scratch.path("")).is_empty());
    copy.signal(Signal::SIGINT);
    copy.end().exits(130).says_lines(1);
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn ctrl_c_keeps_a_large_file_and_says_how_to_go_on() {
    let scratch = Scratch::new();
    let copy = half_way(&scratch, &[]);
    copy.signal(Signal::SIGINT);
    let ran = copy.end();
    ran.exits(130).says(&["of copy are kept in .ucp-", "to go on: ", "large copy"]);
    assert_eq!(scratch.read("copy"), b"old");
    assert_eq!(leftovers(&scratch.path("")).len(), 2, "a temporary, and its journal");
    let written = again(&scratch, &[]);
    assert!(written <= SIZE as u64 * 3 / 4, "{written} bytes were written again");
}
