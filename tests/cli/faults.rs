//! An error at every read and every write in turn, and a source that is changed at every read in
//! turn, by the kernel's own hand.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;

use super::json;
use super::support::{Injector, Ran, Scratch, bytes, leftovers};

/// Files of several reads: one buffer at a time, and many blocks in flight.
const SIZES: [usize; 2] = [900_001, (16 << 20) + 5];
/// Enough accesses in turn for each of them.
const ENGINES: [&str; 2] = ["--engine=uring", "--engine=threads"];
const DIRECT: [&str; 2] = ["--direct=on", "--direct=off"];

/// What a file holds, and what it is rewritten with.
#[derive(Clone)]
struct Contents {
    before: Arc<[u8]>,
    after: Arc<[u8]>,
}

/// Every way through the data path, with a file for it.
fn each_way(test: impl Fn(&Scratch, &[&str], &Contents)) {
    for size in SIZES {
        let contents = Contents { before: bytes(size, 1).into(), after: bytes(size, 2).into() };
        for engine in ENGINES {
            for direct in DIRECT {
                let place = Scratch::new();
                place.write("source", &contents.before);
                test(&place, &[engine, direct, "--reflink=never", "--block-size=4M"], &contents);
            }
        }
    }
}

fn words<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [options, &["source", "target"]].concat()
}

macro_rules! require_injector {
    () => {{
        require_root!();
        let probe = Scratch::new();
        probe.write("probe", "x");
        if Injector::start(&probe.path("probe"), |_| Ok(())).is_none() {
            let is_required = std::env::var_os("UCP_REQUIRE_KERNEL").is_some_and(|v| v == "1");
            assert!(!is_required, "needs pre-content events (Linux 6.14, ext4, xfs or btrfs)");
            eprintln!("skipped: needs pre-content events");
            return;
        }
    }};
}

#[test]
fn a_read_error_at_every_read_leaves_the_old_file() {
    require_injector!();
    each_way(|place, options, _| {
        let mut failed = 0;
        for number in 0.. {
            place.write("target", "old");
            let injector = Injector::start(&place.path("source"), move |access| {
                if access.number == number { Err(Errno::EIO) } else { Ok(()) }
            });
            let ran = place.ucp(words(options));
            let was_met = injector.unwrap().seen() > number;
            if !was_met {
                ran.exits(0);
                break;
            }
            failed += 1;
            // The disk that holds the source is storage as well.
            ran.exits(8).says(&["read failed on source at byte", "Input/output error"]);
            assert_eq!(place.read("target"), b"old", "{options:?}, read {number}");
            assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new());
        }
        assert!(failed >= 4, "{options:?}: only {failed} reads were met");
    });
}

#[test]
fn a_full_disk_at_every_write_leaves_the_old_file() {
    require_injector!();
    each_way(|place, options, _| {
        place.make_directory("to");
        let options = [options, &["source", "to/target"]].concat();
        let mut failed = 0;
        for number in 0.. {
            place.write("to/target", "old");
            let injector = Injector::start(&place.path("to"), move |access| {
                if access.number == number { Err(Errno::ENOSPC) } else { Ok(()) }
            });
            let ran = place.ucp(&options);
            let was_met = injector.unwrap().seen() > number;
            if !was_met {
                ran.exits(0);
                break;
            }
            failed += 1;
            ran.exits(8).says(&["to/target", "No space left on device"]);
            assert_eq!(place.read("to/target"), b"old", "{options:?}, write {number}");
            assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new());
        }
        assert!(failed >= 4, "{options:?}: only {failed} writes were met");
    });
}

/// Changes the source at one read, and gives how the copy ended each time.
fn change_at_every_read(
    change: impl Fn(&File, &Contents) + Copy + Send + 'static,
    check: impl Fn(&Scratch, &Ran, &Contents),
) {
    each_way(|place, options, contents| {
        for number in 0.. {
            place.write("source", &contents.before);
            place.write("target", "old");
            let path = place.path("source");
            let changed = contents.clone();
            let injector = Injector::start(&path, move |access| {
                if access.number == number {
                    change(access.file, &changed);
                }
                Ok(())
            });
            let ran = place.ucp(words(options));
            if injector.unwrap().seen() <= number {
                assert!(number >= 4, "{options:?}: only {number} reads were met");
                break;
            }
            check(place, &ran, contents);
            assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new());
        }
    });
}

#[test]
fn a_source_that_shrinks_at_any_read_is_copied_as_it_is_then() {
    require_injector!();
    let lengths: [fn(usize) -> usize; 4] = [|_| 0, |_| 1, |size| size / 3, |size| size / 2];
    for length in lengths {
        let shrink = move |file: &File, contents: &Contents| {
            file.set_len(length(contents.before.len()) as u64).unwrap();
        };
        change_at_every_read(shrink, |place, ran, contents| {
            ran.exits(0);
            let now = &contents.before[..length(contents.before.len())];
            assert!(place.read("target") == now, "it is the file as it is now");
        });
    }
}

#[test]
fn a_source_that_is_rewritten_at_any_read_is_copied_whole() {
    require_injector!();
    let rewrite = |file: &File, contents: &Contents| {
        file.write_all_at(&contents.after, 0).unwrap();
    };
    change_at_every_read(rewrite, |place, ran, contents| {
        ran.exits(0);
        assert!(place.read("target") == *contents.after, "nothing of the old file is in it");
    });
}

#[test]
fn a_source_that_is_rewritten_with_its_time_set_back_is_copied_whole() {
    require_injector!();
    let rewrite = |file: &File, contents: &Contents| {
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(&contents.after, 0).unwrap();
        file.set_modified(modified).unwrap();
    };
    change_at_every_read(rewrite, |place, ran, contents| {
        ran.exits(0);
        assert!(place.read("target") == *contents.after, "nothing of the old file is in it");
    });
}

#[test]
fn a_source_that_is_rewritten_and_grows_at_any_read_is_copied_whole() {
    require_injector!();
    let rewrite = |file: &File, contents: &Contents| {
        file.write_all_at(&contents.after, 0).unwrap();
        file.write_all_at(b"more", contents.after.len() as u64).unwrap();
    };
    change_at_every_read(rewrite, |place, ran, contents| {
        ran.exits(0);
        let copy = place.read("target");
        let copy = copy.strip_suffix(b"more").unwrap_or(&copy);
        assert!(copy == &*contents.after, "nothing of the old file is in it");
    });
}

#[test]
fn a_source_that_grows_at_any_read_is_copied_to_its_length_at_first() {
    require_injector!();
    let grow = |file: &File, _: &Contents| {
        let end = file.metadata().unwrap().len();
        file.write_all_at(b"more", end).unwrap();
    };
    change_at_every_read(grow, |place, ran, contents| {
        ran.exits(0).says(&["warning: source", "grew"]);
        assert!(place.read("target") == *contents.before);
    });
}

#[test]
fn a_source_that_is_rewritten_at_every_read_is_given_up() {
    require_injector!();
    each_way(|place, options, _| {
        place.write("target", "old");
        let mut seed = 2;
        let injector = Injector::start(&place.path("source"), move |access| {
            seed += 1;
            access.file.write_all_at(&bytes(4096, seed), 0).unwrap();
            Ok(())
        });
        let ran = place.ucp(words(options));
        drop(injector);
        ran.exits(9).says(&["source", "changed while it was copied"]);
        assert_eq!(place.read("target"), b"old");
        assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new());
        fs::remove_file(place.path("target")).unwrap();
    });
}

#[test]
fn a_source_that_is_rewritten_and_grows_at_every_read_is_given_up() {
    require_injector!();
    each_way(|place, options, _| {
        place.write("target", "old");
        let mut seed = 2;
        let injector = Injector::start(&place.path("source"), move |access| {
            seed += 1;
            access.file.write_all_at(&bytes(4096, seed), 0).unwrap();
            let end = access.file.metadata().unwrap().len();
            access.file.write_all_at(b"more", end).unwrap();
            Ok(())
        });
        let ran = place.ucp(words(options));
        drop(injector);
        ran.exits(9).says(&["source", "changed while it was copied"]);
        assert_eq!(place.read("target"), b"old");
        assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new());
    });
}

#[test]
fn what_is_changed_at_every_read_is_published_and_marked_where_that_is_allowed() {
    require_injector!();
    // Rewritten, and shorter each time.
    let changes: [fn(&File, u32); 2] = [
        |file, seed| file.write_all_at(&bytes(4096, seed.into()), 0).unwrap(),
        |file, _| file.set_len(file.metadata().unwrap().len() - 1000).unwrap(),
    ];
    for change in changes {
        each_way(|place, options, _| {
            place.write("target", "old");
            let injector = Injector::start(&place.path("source"), move |access| {
                change(access.file, access.number + 3);
                Ok(())
            });
            let ran = place.ucp(words(&[options, &["--allow-changed", "--json"]].concat()));
            drop(injector);
            ran.exits(0).says(&["warning: source", "changed while it was copied"]);
            let mut lines = ran.stdout().lines().map(json::check_line);
            let copied = lines.find(|line| line["event"] == "copied").unwrap();
            assert_eq!(copied["source_changed"], true, "{ran:?}");
            let length = place.read("target").len();
            assert_eq!(copied["bytes"], length);
            assert!(length > 4096, "{options:?}: {length} bytes");
            assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new());
        });
    }
    let place = Scratch::new();
    place.write("source", "text");
    let ran = place.ucp(["--allow-changed", "--json", "source", "target"]);
    assert!(ran.exits(0).stdout().contains("\"source_changed\":false"));
}

#[test]
fn a_source_whose_copy_is_marked_is_not_removed() {
    require_injector!();
    let place = Scratch::new();
    place.write("source", bytes(SIZES[0], 1));
    let injector = Injector::start(&place.path("source"), |access| {
        access.file.write_all_at(&bytes(4096, u64::from(access.number) + 2), 0).unwrap();
        Ok(())
    });
    let ran = place.ucp(["--allow-changed", "--remove-source-files", "source", "target"]);
    drop(injector);
    ran.exits(0).says(&["changed while it was copied"]);
    assert!(place.exists("source") && place.exists("target"));
}
