//! Copies from and onto a file system that lies or fails: the copy is right, or it fails and says
//! so. Never is it wrong with status 0, never does it go on forever, and nothing is left behind.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;

use super::support::{
    Lies, LyingFileSystem, Map, Ran, Scratch, bytes, in_mount_namespace, leftovers,
    run_within_a_minute,
};

const ENGINES: [&str; 2] = ["--engine=uring", "--engine=threads"];

/// Mounts it at `lying` of a fresh directory.
fn on_lies(
    lies: Lies,
    files: &[(&str, &[u8])],
    work: impl FnOnce(&Scratch, &LyingFileSystem) + Send,
) {
    let place = Scratch::new();
    place.make_directory("lying");
    in_mount_namespace(|| {
        let lying = LyingFileSystem::mount(&place.path("lying"), lies, files);
        work(&place, &lying);
    });
}

/// What is left of a copy, on either side.
#[track_caller]
fn nothing_is_left(place: &Scratch, lying: &LyingFileSystem, what: &str) {
    let names = lying.names();
    let left = names.iter().find(|name| name.as_bytes().starts_with(b".ucp"));
    assert_eq!(left, None, "{what}");
    let to = place.path("to");
    let found = if to.exists() { leftovers(&to) } else { Vec::new() };
    assert_eq!(found, Vec::<PathBuf>::new(), "{what}");
}

fn ucp(place: &Scratch, words: &[&str]) -> Ran {
    run_within_a_minute(words, &place.path(""))
}

/// Sizes: nothing to lie about but the first byte, one buffer, one with blocks in flight, and one
/// beyond what is read of a file that is said to be all hole.
const SIZES: [usize; 4] = [1, 70_000, (16 << 20) + 5, (66 << 20) + 1];

/// F12: whatever is said about holes, and with no room taken, the bytes come.
#[test]
fn a_map_of_holes_that_lies_costs_no_byte() {
    require_root!();
    let maps = [Map::True, Map::AllHole, Map::FirstBlock, Map::Stuck, Map::Backward, Map::Nowhere];
    for map in maps {
        for size in SIZES {
            if size > 64 << 20 && map != Map::AllHole {
                continue;
            }
            let content = bytes(size, 3);
            let lies = Lies { says_no_blocks: true, map, ..Lies::default() };
            on_lies(lies, &[("file", &content)], |place, lying| {
                for engine in ENGINES {
                    let sparse = ["--sparse=auto", "--sparse=always", "--sparse=never"];
                    // Of the largest the map alone is tried: it takes long.
                    let sparse = if size > 64 << 20 { &sparse[..1] } else { &sparse };
                    for sparse in sparse {
                        let what = format!("{map:?}, {size}, {engine}, {sparse}");
                        let ran = ucp(place, &[engine, sparse, "lying/file", "copy"]);
                        ran.exits(0);
                        assert!(place.read("copy") == content, "{what}: the bytes differ");
                        nothing_is_left(place, lying, &what);
                        fs::remove_file(place.path("copy")).unwrap();
                    }
                }
            });
        }
    }
}

/// F7: a read gives less than was asked for, each time; as does a write. Of a large file that is
/// read through a ring, io_uring itself would read on, and from the wrong byte.
#[test]
fn short_transfers_are_resumed() {
    require_root!();
    let cases = [(3001, 1), (70_000, 77), (300_001, 4095), ((17 << 20) + 77, 65_537)];
    for (size, most) in cases {
        let content = bytes(size, 4);
        let lies = Lies { is_direct: true, transfer_bytes_max: Some(most), ..Lies::default() };
        on_lies(lies, &[("file", &content)], |place, lying| {
            place.make_directory("from");
            place.write("from/file", &content);
            for engine in ENGINES {
                for options in [&["-T"][..], &["-T", "--verify"], &["-T", "--stage=never"]] {
                    let what = format!("{size}, {most}, {engine}, {options:?}");
                    let copy = |from, to| ucp(place, &[&[engine], options, &[from, to]].concat());
                    copy("lying", "to").exits(0);
                    assert!(place.read("to/file") == content, "{what}: read");
                    copy("from", "lying/copy").exits(0);
                    assert!(lying.content("copy/file").unwrap() == content, "{what}: written");
                    nothing_is_left(place, lying, &what);
                    fs::remove_dir_all(place.path("to")).unwrap();
                    fs::remove_dir_all(place.path("lying/copy")).unwrap();
                }
            }
            ucp(place, &["lying/file", "one"]).exits(0);
            assert!(place.read("one") == content, "{size}, {most}: alone");
        });
    }
}

/// F13 and F9: files whose size is not what they say. One that ends early is no whole file; of one that
/// holds more than it says, all is copied that can be read.
#[test]
fn a_size_that_is_wrong_makes_no_wrong_copy() {
    require_root!();
    const LIES: [(i64, bool); 5] =
        [(0, true), (-1, false), (-4097, false), (1, false), (70_000, false)];
    for size in [5000, 300_001, (16 << 20) + 5] {
        let content = bytes(size, 5);
        for (size_added, says_empty) in LIES {
            for is_direct in [true, false] {
                let lies = Lies { size_added, says_empty, is_direct, ..Lies::default() };
                on_lies(lies, &[("file", &content)], |place, lying| {
                    for engine in ENGINES {
                        let what = format!("{size}, {lies:?}, {engine}");
                        let told = place.path("lying/file").metadata().unwrap().len();
                        let ran = ucp(place, &[engine, "lying/file", "copy"]);
                        if size_added > 0 {
                            ran.exits(9).says(&["lying/file", "became shorter"]);
                            assert!(!place.exists("copy"), "{what}");
                        } else {
                            // Without direct reads the kernel lets nobody see more than is told.
                            let length =
                                if is_direct { size } else { usize::try_from(told).unwrap() };
                            ran.succeeds_silently();
                            assert!(place.read("copy") == content[..length], "{what}");
                        }
                        nothing_is_left(place, lying, &what);
                        let _ = fs::remove_file(place.path("copy"));
                    }
                });
            }
        }
    }
}

#[test]
fn what_is_behind_the_told_size_comes_along_however_it_is_copied() {
    require_root!();
    let content = bytes(300_001, 5);
    let lies = Lies { size_added: -4097, is_direct: true, ..Lies::default() };
    on_lies(lies, &[("file", &content)], |place, lying| {
        place.write("old", bytes(400_000, 6));
        let cases: [(&[&str], &str); 5] = [
            (&["--verify"], "new"),
            (&["--manifest=list"], "new"),
            (&["--sparse=always"], "new"),
            (&["--in-place"], "old"),
            (&["-a", "--durable"], "new"),
        ];
        for (options, target) in cases {
            let words = [options, &["lying/file", target]].concat();
            ucp(place, &words).succeeds_silently();
            assert!(place.read(target) == content, "{words:?}: the bytes differ");
            nothing_is_left(place, lying, &format!("{words:?}"));
        }
        place.make_directory("a");
        place.make_directory("b");
        ucp(place, &["-t", "a", "-t", "b", "lying/file"]).succeeds_silently();
        assert!(place.read("a/file") == content && place.read("b/file") == content);
        assert_eq!(place.read("list").split(|byte| *byte == b'\n').count(), 2);
    });
}

/// F5: a read that fails anywhere leaves the old file, and the rest of a tree is copied.
#[test]
fn a_read_error_anywhere_fails_that_file_alone() {
    require_root!();
    for (size, step) in [(20_000, 4096), ((17 << 20) + 5, 3 << 20)] {
        let content = bytes(size, 6);
        for at in (0..size).step_by(step) {
            let lies = Lies { read_fails_at: Some(at as u64), ..Lies::default() };
            // Too short for the error to come to it, but at the first byte.
            let files: [(&str, &[u8]); 2] = [("bad", &content), ("good", b"")];
            on_lies(lies, &files, |place, lying| {
                for engine in ENGINES {
                    let what = format!("{size} at {at}, {engine}");
                    place.write("copy", "old");
                    let ran = ucp(place, &[engine, "lying/bad", "copy"]);
                    ran.exits(8).says(&["read failed on lying/bad", "Input/output error"]);
                    assert!(place.read("copy") == b"old", "{what}");
                    let ran = ucp(place, &[engine, "lying", "to"]);
                    ran.exits(8).says(&["read failed on lying/bad"]).says_lines(1);
                    assert!(place.exists("to/good") && !place.exists("to/bad"), "{what}");
                    nothing_is_left(place, lying, &what);
                    fs::remove_dir_all(place.path("to")).unwrap();
                }
            });
        }
    }
}

/// What a target may fail at, by what it is told as.
fn failing_targets() -> Vec<(Lies, &'static [&'static str])> {
    let none = Lies::default();
    let mut cases: Vec<(Lies, &[&str])> = Vec::new();
    for errno in [Errno::ENOSPC, Errno::EIO, Errno::EDQUOT] {
        // F23: what a close says is the last word about a write.
        cases.push((Lies { flush_fails: Some(errno), ..none }, &[]));
        // F3 and F4: all is written, but not to stay.
        cases.push((Lies { fsync_fails: Some(errno), ..none }, &["--durable"]));
        // F1 and F2.
        for is_direct in [true, false] {
            for at in [0, 60_000, 1 << 20] {
                cases.push((Lies { write_fails_at: Some((at, errno)), is_direct, ..none }, &[]));
            }
        }
        // F24.
        cases.push((Lies { rename_fails: Some(errno), ..none }, &[]));
    }
    cases
}

#[test]
fn a_target_that_fails_keeps_the_old_file_and_is_told() {
    require_root!();
    let content = bytes((3 << 20) + 1, 7);
    for (lies, durable) in failing_targets() {
        on_lies(lies, &[("old", b"old")], |place, lying| {
            place.write("source", &content);
            for engine in ENGINES {
                for name in ["old", "new"] {
                    for direct in ["--direct=on", "--direct=off"] {
                        let to = format!("lying/{name}");
                        let options = [engine, direct, "source", &to];
                        let what = format!("{lies:?}, {options:?}");
                        let ran = ucp(place, &[durable, &options].concat());
                        assert_eq!(ran.code(), Some(8), "{what}: {ran:?}");
                        ran.says(&["lying/"]).says_lines(1);
                        assert!(lying.content("old").unwrap() == b"old", "{what}");
                        assert!(lying.content("new").is_none(), "{what}");
                        nothing_is_left(place, lying, &what);
                    }
                }
            }
        });
    }
}
