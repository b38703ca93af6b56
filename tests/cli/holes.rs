//! Holes: a copy has those that were asked for, on every file system, and the same bytes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::support::{
    Scratch, allocated_bytes, bytes, data_map, leftovers, make_sparse, on_file_system, run,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SPARSE: [&str; 3] = ["--sparse=auto", "--sparse=always", "--sparse=never"];
/// Every data path, by what forces it.
const PATHS: [&[&str]; 4] =
    [&[], &["--direct=on"], &["--direct=off"], &["--engine=threads", "--pipeline=linked"]];

/// Files with data and holes in all kinds of places, small and large.
fn make_files(scratch: &Scratch) -> Vec<&'static str> {
    let at = |name| scratch.path(name);
    make_sparse(&at("hole"), 20 << 20, &[]);
    make_sparse(&at("small hole"), 70_000, &[]);
    make_sparse(&at("hole of odd length"), (1 << 20) + 1, &[]);
    make_sparse(&at("small"), 200_000, &[(0, 10), (65_536, 5000), (190_000, 10_000)]);
    make_sparse(&at("middle"), 9 << 20, &[(1 << 20, 3 * KIB), ((5 << 20) + 77, MIB + 5)]);
    make_sparse(&at("hole last"), (40 << 20) + 3, &[(0, MIB), (9 << 20, 2 * MIB)]);
    make_sparse(&at("data last"), (40 << 20) + 1234, &[(40 << 20, 1234)]);
    let many: Vec<(u64, usize)> = (0..700).map(|n| (n * 65_536, 4 * KIB)).collect();
    make_sparse(&at("many"), (46 << 20) + 9, &many);
    // Zeros that are data.
    let file = File::create(at("zeros")).unwrap();
    file.write_all_at(&vec![0; 18 * MIB], 0).unwrap();
    file.write_all_at(&bytes(10, 7), 5 << 20).unwrap();
    file.write_all_at(&bytes(2 * MIB, 7), (9 << 20) + 4096).unwrap();
    file.write_all_at(&[0; 100], 18 << 20).unwrap();
    file.sync_all().unwrap();
    scratch.write("dense", bytes(17 * MIB + 5, 9));
    // A hole, and zeros beside it.
    make_sparse(&at("both"), 30 << 20, &[(3 << 20, MIB), (20 << 20, 1)]);
    let both = OpenOptions::new().write(true).open(at("both")).unwrap();
    both.write_all_at(&[0; 300_000], 6 << 20).unwrap();
    both.sync_all().unwrap();
    vec![
        "hole",
        "small hole",
        "hole of odd length",
        "small",
        "middle",
        "hole last",
        "data last",
        "many",
        "zeros",
        "dense",
        "both",
    ]
}

fn assert_equal(one: &Path, other: &Path) {
    run(Command::new("cmp").arg(one).arg(other)).exits(0);
}

/// Compares with `cp --sparse=…` on one file system: bytes, map of data, and room taken.
fn compare_with_cp(scratch: &Scratch) {
    for name in make_files(scratch) {
        for sparse in SPARSE {
            let mut cp = Command::new("cp");
            cp.args([sparse, "--reflink=never", name, "by cp"]);
            run(cp.current_dir(scratch.path(""))).exits(0);
            let (want, room) =
                (data_map(&scratch.path("by cp")), allocated_bytes(&scratch.path("by cp")));
            // The ways differ in how they find holes, not in what else becomes one.
            let paths = if sparse == "--sparse=auto" { &PATHS[..] } else { &PATHS[..2] };
            let paths = if sparse == "--sparse=never" { &paths[..1] } else { paths };
            for path in paths {
                let words = [&[sparse, "--reflink=never", name, "copy"], *path].concat();
                scratch.ucp(&words).succeeds_silently();
                assert_equal(&scratch.path(name), &scratch.path("copy"));
                assert_eq!(data_map(&scratch.path("copy")), want, "{words:?}");
                let got = allocated_bytes(&scratch.path("copy"));
                // XFS lets what cp writes have more room than it needs, for a while.
                assert!(got <= room + room / 100 + 8192, "{words:?}: {got}, not {room}");
                fs::remove_file(scratch.path("copy")).unwrap();
            }
            fs::remove_file(scratch.path("by cp")).unwrap();
        }
    }
}

#[test]
fn holes_are_those_of_cp_on_ext4() {
    require_root!();
    on_file_system("ext4", 700 << 20, compare_with_cp);
}

#[test]
fn holes_are_those_of_cp_on_xfs() {
    require_root!();
    on_file_system("xfs", 700 << 20, compare_with_cp);
}

#[test]
fn holes_are_those_of_cp_on_btrfs() {
    require_root!();
    on_file_system("btrfs", 700 << 20, compare_with_cp);
}

#[test]
fn holes_are_those_of_cp_on_tmpfs() {
    require_root!();
    on_file_system("tmpfs", 400 << 20, compare_with_cp);
}

#[test]
fn old_bytes_do_not_shine_through_holes_in_place() {
    let scratch = Scratch::new();
    for name in make_files(&scratch) {
        for sparse in SPARSE {
            for old in [0, 100, 50 * MIB] {
                scratch.write("old", vec![0xee; old]);
                scratch.ucp(["--in-place", sparse, name, "old"]).succeeds_silently();
                assert_equal(&scratch.path(name), &scratch.path("old"));
            }
        }
    }
}

#[test]
fn a_tree_keeps_its_holes() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    let names = make_files(&Scratch::at(scratch.path("tree")));
    scratch.ucp(["--reflink=never", "tree", "copy"]).succeeds_silently();
    for name in names {
        let (source, copy) = (scratch.path("tree").join(name), scratch.path("copy").join(name));
        assert_equal(&source, &copy);
        let (got, want) = (data_map(&copy), data_map(&source));
        assert!(got == want || name == "both", "{name}: {got:?}, not {want:?}");
    }
    assert!(leftovers(&scratch.path("")).is_empty());
}

#[test]
fn holes_cost_no_time_and_no_room() {
    let scratch = Scratch::new();
    let size = 1_u64 << 40;
    let pieces: Vec<(u64, usize)> =
        (0..64).map(|number| (number * (size / 64), 64 * KIB)).collect();
    make_sparse(&scratch.path("huge"), size, &pieces);
    scratch.ucp(["huge", "copy"]).succeeds_silently();
    assert_eq!(fs::metadata(scratch.path("copy")).unwrap().len(), size);
    assert_eq!(data_map(&scratch.path("copy")), data_map(&scratch.path("huge")));
    let (source, copy) = (File::open(scratch.path("huge")), File::open(scratch.path("copy")));
    let (source, copy) = (source.unwrap(), copy.unwrap());
    let mut sides = [vec![0; 64 * KIB], vec![0; 64 * KIB]];
    for (offset, _) in pieces {
        source.read_exact_at(&mut sides[0], offset).unwrap();
        copy.read_exact_at(&mut sides[1], offset).unwrap();
        assert!(sides[0] == sides[1], "at {offset}");
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    require_root!();
    for kind in ["ext4", "tmpfs"] {
        on_file_system(kind, 24 << 20, |small| {
            let scratch = Scratch::new();
            make_sparse(&scratch.path("source"), 90 << 20, &[(1 << 20, 40 * MIB)]);
            for sparse in SPARSE {
                let copy = small.path("copy");
                let ran = scratch.ucp([sparse.as_ref(), "source".as_ref(), copy.as_os_str()]);
                ran.exits(8).says(&["No space left on device"]);
                assert!(!copy.exists() && leftovers(&small.path("")).is_empty(), "{sparse}");
            }
        });
    }
}

#[test]
fn how_holes_were_looked_for_is_told_in_the_words_of_cp() {
    require_root!();
    let check = |place: &Scratch, words: &[&str], source: &str, want: &str| {
        let words = [words, &["--debug", source, "copy"]].concat();
        let want = format!("'{source}' -> 'copy'\ncopy offload: {want}\n");
        assert_eq!(place.ucp(&words).exits(0).stdout(), want, "{words:?}");
    };
    let make = |place: &Scratch| {
        make_sparse(&place.path("sparse"), 200_000, &[(65_536, 5000)]);
        place.write("dense", bytes(17 * MIB, 1));
        place.write("copy", "");
    };
    on_file_system("ext4", 64 << 20, |place| {
        make(place);
        let cases = [
            (
                "--sparse=auto",
                "sparse",
                "avoided, reflink: no, sparse detection: SEEK_HOLE + zeros",
            ),
            ("--sparse=auto", "dense", "avoided, reflink: unsupported, sparse detection: no"),
            ("--sparse=always", "dense", "avoided, reflink: no, sparse detection: zeros"),
            ("--sparse=never", "sparse", "avoided, reflink: no, sparse detection: no"),
        ];
        for (option, source, want) in cases {
            check(place, &[option], source, want);
        }
        let ran = place.ucp(["--debug", "--attributes-only", "dense", "copy"]);
        assert_eq!(ran.exits(0).stdout(), "'dense' -> 'copy'\n");
    });
    on_file_system("btrfs", 512 << 20, |place| {
        make(place);
        check(place, &[], "dense", "unknown, reflink: yes, sparse detection: unknown");
        let want = "avoided, reflink: no, sparse detection: no";
        check(place, &["--reflink=never"], "dense", want);
    });
}
