//! What a copy leaves in the page cache, on real file systems, as the kernel tells of it (`cachestat(2)`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::Value;
use ucp_engine::operation::{CacheStatus, Open, Place};
use ucp_engine::processor::ThreadProcessor;
use ucp_engine::{Operation, Proactor};

use super::support::{Scratch, UCP, bytes, on_file_system, run, until};

const PAGE: usize = 4096;
/// Of each size the files have: small, in several reads of one buffer, and in blocks; with a tail.
const SIZES: [(&str, usize); 4] = [
    ("small", 100_001),
    ("pages", 64 << 10),
    ("medium", (3 << 20) + 1),
    ("large", (20 << 20) + 777),
];
/// How much of each is in the page cache.
const SHARES: [(&str, usize); 3] = [("cold", 0), ("half", 2), ("warm", 1)];

fn names() -> impl Iterator<Item = (String, usize, usize)> {
    SHARES.into_iter().flat_map(|(share, part)| {
        SIZES.into_iter().map(move |(name, size)| (format!("{share} {name}"), size, part))
    })
}

/// Files of which nothing, a half, or all is in the page cache.
fn write_files(place: &Scratch) {
    place.make_directory("from");
    place.write(CONTROL.0, bytes(CONTROL.1, 99));
    for (number, (name, size, _)) in names().enumerate() {
        place.write(format!("from/{name}"), bytes(size, number as u64 + 1));
    }
    run(Command::new("sync").arg("-f").arg(place.path(""))).exits(0);
    for (name, size, part) in names() {
        let file = File::open(place.path(format!("from/{name}"))).unwrap();
        let advise = |advice| posix_fadvise(&file, 0, 0, advice).unwrap();
        advise(PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        // What is read brings nothing else with it.
        advise(PosixFadviseAdvice::POSIX_FADV_RANDOM);
        let read = size.checked_div(part).unwrap_or(0);
        for offset in (0..read).step_by(PAGE) {
            file.read_at(&mut [0; PAGE], offset as u64).unwrap();
        }
    }
}

/// How many pages of each file are in the page cache.
fn resident(place: &Scratch, directory: &str) -> Vec<(String, usize)> {
    let pages = |name: String| {
        let path = place.path(directory).join(&name);
        let count = resident_pages(&path);
        (name, count)
    };
    names().map(|(name, ..)| pages(name)).collect()
}

fn resident_pages(path: &Path) -> usize {
    let proactor = Proactor::new(Box::new(ThreadProcessor::new(0, 4)));
    let initiator = proactor.initiator();
    let resident = proactor.block_on(async {
        let file = initiator.open(Open::read(Place::path(path).unwrap())).await.unwrap();
        let status = CacheStatus { file, offset_bytes: 0, length_bytes: 0 };
        initiator.perform(Operation::CacheStatus(status)).await.0
    });
    resident.unwrap() as usize
}

/// Copies, and says of each file what the account says about the page cache.
fn copy(place: &Scratch, words: &[&str]) -> Vec<(String, Value)> {
    let mut command = Command::new(UCP);
    command.args(["--json", "--reflink=never"]).args(words);
    let ran = run(command.args(["-T", "from", "to"]).current_dir(place.path("")));
    let lines = ran.exits(0).stdout().lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let files = lines.filter(|line| line["event"] == "copied" && line["kind"] == "file");
    let name = |line: &Value| line["source"].as_str().unwrap().replace("from/", "");
    files.map(|line| (name(&line), line["cache"].clone())).collect()
}

/// What is written uncached leaves the page cache when it has reached the device.
fn nothing_stays(place: &Scratch, what: &str) {
    run(Command::new("sync").arg("-f").arg(place.path(""))).exits(0);
    until(what, || resident(place, "to").iter().all(|(_, pages)| *pages == 0));
}

fn is_copied(place: &Scratch) {
    for (name, ..) in names() {
        let read = |root: &str| place.read(format!("{root}/{name}"));
        assert!(read("from") == read("to"), "{name}");
    }
}

const WAYS: [&[&str]; 5] = [
    &["--engine=uring"],
    &["--engine=threads"],
    &["--engine=uring", "--direct=off"],
    &["--engine=threads", "--direct=off", "--verify"],
    &["--engine=uring", "--verify", "--durable", "--sparse=always"],
];

/// A machine that is short of memory takes pages away by itself, and those first that were not used for
/// longest. As long as all of this file is there, none were taken.
const CONTROL: (&str, usize) = ("control", 1 << 20);

fn is_control_there(place: &Scratch) -> bool {
    resident_pages(&place.path(CONTROL.0)) == CONTROL.1 / PAGE
}

/// Runs a test on a fresh file system, until it was not disturbed.
fn undisturbed(kind: &str, work: impl Fn(&Scratch) -> bool + Sync) {
    let is_done = AtomicBool::new(false);
    for _ in 0..20 {
        on_file_system(kind, 400 << 20, |place| is_done.store(work(place), Ordering::Relaxed));
        if is_done.load(Ordering::Relaxed) {
            return;
        }
    }
    panic!(
        "pages that were there are gone each time: the machine is short of memory, or a copy took them"
    );
}

#[test]
fn what_bypasses_the_page_cache_leaves_it_as_it_was() {
    require_root!();
    for (kind, way) in ["ext4", "xfs", "btrfs"].into_iter().flat_map(|it| WAYS.map(|way| (it, way)))
    {
        undisturbed(kind, |place| {
            let what = format!("{kind} {way:?}");
            write_files(place);
            let before = resident(place, "from");
            let told = copy(place, &[&["--cache=bypass"], way].concat());
            let after = resident(place, "from");
            let is_full = before.iter().map(|(_, pages)| pages).sum::<usize>() > 5000;
            // A copy that took them away would do so each time.
            let has_lost = before.iter().zip(&after).any(|(before, after)| after.1 < before.1);
            if !is_full || has_lost || !is_control_there(place) {
                return false;
            }
            assert_eq!(after, before, "{what}");
            assert!(told.iter().all(|(_, effect)| effect == "as-before"), "{what}: {told:?}");
            nothing_stays(place, &what);
            is_copied(place);
            true
        });
    }
}

#[test]
fn what_lives_in_the_page_cache_is_told_to_stay_there() {
    require_root!();
    on_file_system("tmpfs", 400 << 20, |place| {
        write_files(place);
        let told = copy(place, &["--cache=bypass", "--engine=uring"]);
        assert!(told.iter().all(|(_, effect)| effect == "changed"), "{told:?}");
        is_copied(place);
    });
}

#[test]
fn what_is_kept_in_the_page_cache_is_there_afterwards() {
    require_root!();
    for way in [&["--engine=uring"][..], &["--engine=threads", "--durable", "--verify"]] {
        undisturbed("ext4", |place| {
            write_files(place);
            let told = copy(place, &[&["--cache=keep"], way].concat());
            let found = (resident(place, "from"), resident(place, "to"));
            if !is_control_there(place) {
                return false;
            }
            assert!(told.iter().all(|(_, effect)| effect.is_null()), "{told:?}");
            let all: Vec<_> = names().map(|(name, size, _)| (name, size.div_ceil(PAGE))).collect();
            assert_eq!(found, (all.clone(), all), "{way:?}");
            true
        });
    }
}

#[test]
fn what_becomes_of_the_page_cache_is_explained() {
    require_root!();
    on_file_system("ext4", 200 << 20, |place| {
        place.write("from", bytes(20 << 20, 1));
        let explained = |words: &[&str]| {
            let words = [&["--explain", "--reflink=never"], words, &["-T", "from", "to"]].concat();
            place.ucp(words).exits(0).stdout().to_owned()
        };
        let bypassed = explained(&["--cache=bypass"]);
        assert!(bypassed.contains("because the page cache is to stay as it was"), "{bypassed}");
        assert!(bypassed.contains("; the page cache is as it was;"), "{bypassed}");
        let kept = explained(&["--cache=keep"]);
        assert!(kept.contains("because it is to stay in the page cache"), "{kept}");
    });
}

#[test]
fn what_goes_past_the_page_cache_is_not_kept_there() {
    let place = Scratch::new();
    place.write("from", "text");
    let ran = place.ucp(["--cache=keep", "--direct=on", "from", "to"]);
    ran.exits(2).says(&["what goes past the page cache is not kept there"]);
    for direct in ["--direct=auto", "--direct=off"] {
        place.ucp(["--cache=keep", direct, "from", "to"]).succeeds_silently();
    }
    for direct in ["--direct=auto", "--direct=off", "--direct=on"] {
        place.ucp(["--cache=bypass", direct, "from", "to"]).succeeds_silently();
    }
}
