//! Killed at any moment, a copy leaves each name wholly old or wholly new, and a second run
//! completes it and cleans up. `UCP_KILLS=200` sets how often.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use nix::sys::signal::Signal;

use super::support::{Background, Entry, Scratch, UCP, bytes, leftovers, listing};

/// Sizes of the files: small ones, and one that takes many blocks.
const SIZES: [usize; 12] =
    [0, 1, 100, 4096, 5000, 70_000, 300_000, 1 << 20, 3, 40_000, 8 << 20, 17];

fn kills() -> u32 {
    env::var("UCP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(100)
}

fn write_tree(scratch: &Scratch, root: &str, seed: u64) {
    scratch.make_directory(format!("{root}/below"));
    for (number, size) in SIZES.iter().enumerate() {
        let below = if number % 2 == 0 { "" } else { "below/" };
        // Old and new differ in every byte and in length, so that a mixture is seen.
        let size = size + usize::try_from(seed).unwrap();
        scratch.write(format!("{root}/{below}{number}"), bytes(size, seed * 100 + number as u64));
    }
    scratch.set_mode(format!("{root}/below"), 0o750);
    scratch.set_mode(root, 0o755);
}

/// Each name holds all of the old file or all of the new one.
fn check_names(scratch: &Scratch, root: &str, allows_absent: bool, round: u32) {
    for (number, size) in SIZES.iter().enumerate() {
        let below = if number % 2 == 0 { "" } else { "below/" };
        let name = format!("{root}/{below}{number}");
        let Ok(content) = fs::read(scratch.path(&name)) else {
            assert!(allows_absent, "round {round}: {name} is gone");
            continue;
        };
        let is = |seed: u64| {
            let size = size + usize::try_from(seed).unwrap();
            content == bytes(size, seed * 100 + number as u64)
        };
        assert!(is(1) || is(2), "round {round}: {name} is neither, {} bytes", content.len());
    }
}

fn copy(scratch: &Scratch, round: u32, target: &str) -> Command {
    let mut command = Command::new(UCP);
    let engine = ["--engine=uring", "--engine=threads"][round as usize % 2];
    let direct = ["--direct=on", "--direct=off", "--direct=auto"][round as usize / 2 % 3];
    let stage = ["--stage=auto", "--stage=never"][round as usize / 6 % 2];
    command.args([engine, direct, stage, "--reflink=never", "--block-size=64K", "-T", "new"]);
    command.arg(target).current_dir(scratch.path(""));
    command
}

/// Kills a copy at moments spread over its duration.
fn kill_often(target: &str, prepare: impl Fn(&Scratch), allows_absent: bool) {
    let scratch = Scratch::new();
    write_tree(&scratch, "new", 2);
    prepare(&scratch);
    let started = Instant::now();
    Background::start(&mut copy(&scratch, 1, target)).end().exits(0);
    let whole = started.elapsed() + Duration::from_millis(2);
    let mut killed = 0;
    for round in 0..kills() {
        fs::remove_dir_all(scratch.path(target)).unwrap();
        prepare(&scratch);
        let copy_of_round = Background::start(&mut copy(&scratch, round, target));
        // The golden ratio spreads the moments without repeating one.
        let part = f64::from(round) * 0.618_033_988_749_895;
        thread::sleep(whole.mul_f64(part.fract()));
        drop(copy_of_round);
        check_names(&scratch, target, allows_absent, round);
        killed += u32::from(is_unfinished(&scratch, target));

        let second = Background::start(&mut copy(&scratch, round, target)).end();
        second.exits(0);
        check_names(&scratch, target, false, round);
        compare(&scratch, "new", target, round);
        assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new(), "round {round}");
    }
    assert!(killed * 10 >= kills(), "only {killed} copies of {} were cut short", kills());
}

/// All is there, with modes and with the times of files. A directory that was there has a time of
/// its own.
fn compare(scratch: &Scratch, source: &str, target: &str, round: u32) {
    let entries = |root: &str| {
        let entries = listing(&scratch.path(root)).into_iter();
        let timeless = |entry: Entry| match entry {
            Entry::Directory { .. } => entry.without_times(),
            entry => entry,
        };
        entries.map(|(name, entry)| (name, timeless(entry))).collect::<BTreeMap<_, _>>()
    };
    let (want, got) = (entries(source), entries(target));
    for (name, want) in &want {
        assert_eq!(got.get(name), Some(want), "round {round}: the second run completes {name:?}");
    }
    assert_eq!(got.len(), want.len(), "round {round}");
}

fn is_unfinished(scratch: &Scratch, target: &str) -> bool {
    let content = |root: &str, name: &str| fs::read(scratch.path(format!("{root}/{name}"))).ok();
    (0..SIZES.len()).any(|number| {
        let name = if number % 2 == 0 { format!("{number}") } else { format!("below/{number}") };
        content("new", &name) != content(target, &name)
    })
}

#[test]
fn a_copy_over_existing_files_that_is_killed_leaves_each_old_or_new() {
    kill_often("target", |scratch| write_tree(scratch, "target", 1), false);
}

#[test]
fn a_copy_into_a_new_directory_that_is_killed_leaves_each_whole_or_absent() {
    let nothing_there = |scratch: &Scratch| {
        let _ = fs::remove_dir_all(scratch.path("target"));
    };
    kill_often("target", nothing_there, true);
}

#[test]
fn links_that_were_killed_while_they_were_replaced_leave_nothing_behind() {
    let scratch = Scratch::new();
    scratch.make_directory("new");
    (0..300).for_each(|number| scratch.link("somewhere", format!("new/{number}")));
    scratch.ucp(["new", "old"]).succeeds_silently();
    for round in 0..20 {
        let mut copy = Background::start(&mut copy(&scratch, round, "old"));
        thread::sleep(Duration::from_millis(u64::from(round % 10)));
        if !copy.has_ended() {
            copy.signal(Signal::SIGKILL);
        }
        copy.end();
    }
    scratch.ucp(["-T", "new", "old"]).succeeds_silently();
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}
