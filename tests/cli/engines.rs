//! Every engine and every way of the bytes makes the same copy, on every file system.

use std::path::PathBuf;
use std::process::Command;

use super::support::{Scratch, leftovers, listing, make_odd_tree, on_file_system, run};

const MIB: usize = 1 << 20;
/// The last goes through the ring, in blocks.
const SIZES: [usize; 14] = [
    0,
    1,
    511,
    512,
    513,
    4095,
    4096,
    4097,
    65_537,
    MIB - 1,
    MIB,
    MIB + 1,
    4 * MIB + 7,
    17 * MIB + 7,
];

/// Copies a tree on one file system with every combination.
fn copy_every_way(place: &Scratch) {
    make_odd_tree(place, "tree", &SIZES);
    let want = listing(&place.path("tree"));
    for engine in ["uring", "threads"] {
        for direct in ["auto", "on", "off"] {
            for pipeline in ["unlinked", "linked"] {
                let options = [
                    format!("--engine={engine}"),
                    format!("--direct={direct}"),
                    format!("--pipeline={pipeline}"),
                ];
                let small = ["--depth=3", "--block-size=64K", "--reflink=never"];
                for more in [&["--reflink=never"][..], &small] {
                    let options = options.iter().map(String::as_str).chain(more.iter().copied());
                    place.ucp(options.chain(["tree", "copy"])).succeeds_silently();
                    let got = listing(&place.path("copy"));
                    assert!(got == want, "{engine} {direct} {pipeline} {more:?}: {got:#?}");
                    std::fs::remove_dir_all(place.path("copy")).unwrap();
                }
            }
        }
    }
    place.ucp(["tree", "copy"]).succeeds_silently();
    let mut diff = Command::new("diff");
    run(diff.args(["-r", "--no-dereference", "tree", "copy"]).current_dir(place.path(""))).exits(0);
    assert_eq!(listing(&place.path("copy")), want);
    assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new());
}

#[test]
fn every_way_makes_the_same_copy_on_ext4() {
    require_root!();
    on_file_system("ext4", 192 << 20, copy_every_way);
}

#[test]
fn every_way_makes_the_same_copy_on_xfs() {
    require_root!();
    on_file_system("xfs", 320 << 20, copy_every_way);
}

#[test]
fn every_way_makes_the_same_copy_on_btrfs() {
    require_root!();
    on_file_system("btrfs", 512 << 20, copy_every_way);
}

#[test]
fn every_way_makes_the_same_copy_on_tmpfs() {
    require_root!();
    on_file_system("tmpfs", 192 << 20, copy_every_way);
}

#[test]
fn a_file_of_64_mib_and_7_bytes_arrives_on_every_file_system() {
    require_root!();
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        on_file_system(kind, 640 << 20, |place| {
            make_odd_tree(place, "tree", &[64 * MIB + 7]);
            for engine in ["--engine=uring", "--engine=threads"] {
                place.ucp([engine, "--reflink=never", "tree", "copy"]).succeeds_silently();
                let same = listing(&place.path("tree")) == listing(&place.path("copy"));
                assert!(same, "{kind} {engine}");
                std::fs::remove_dir_all(place.path("copy")).unwrap();
            }
        });
    }
}

#[test]
fn every_way_makes_the_same_copy_on_this_disk() {
    copy_every_way(&Scratch::new());
}

#[test]
fn extents_are_shared_where_the_file_system_can() {
    require_root!();
    for (kind, size) in [("xfs", 320 << 20), ("btrfs", 320 << 20)] {
        on_file_system(kind, size, |place| {
            make_odd_tree(place, "tree", &SIZES);
            let ran = place.ucp(["-v", "tree/of 4194311 bytes", "copy"]);
            ran.exits(0).says(&["clone 1"]);
            assert_eq!(place.read("copy"), place.read("tree/of 4194311 bytes"), "{kind}");
            let ran = place.ucp(["-v", "--reflink=never", "tree/of 4194311 bytes", "copy"]);
            assert!(!ran.exits(0).stderr().contains("clone"), "{kind}: {ran:?}");
        });
    }
}

#[test]
fn between_file_systems_every_way_makes_the_same_copy() {
    require_root!();
    on_file_system("xfs", 320 << 20, |target| {
        on_file_system("ext4", 128 << 20, |source| {
            make_odd_tree(source, "tree", &SIZES);
            let want = listing(&source.path("tree"));
            for engine in ["--engine=uring", "--engine=threads"] {
                for direct in ["--direct=auto", "--direct=on", "--direct=off"] {
                    // The outer file system is seen in the inner namespace too.
                    let words = [engine.into(), direct.into(), source.path("tree")];
                    let copy = target.path("copy");
                    source.ucp(words.into_iter().chain([copy.clone()])).succeeds_silently();
                    assert_eq!(listing(&copy), want, "{engine} {direct}");
                    std::fs::remove_dir_all(copy).unwrap();
                }
            }
        });
    });
}
