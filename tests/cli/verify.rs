//! What is verified, hashed and listed: `--verify`, `--manifest`, `--check-existing`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::thread;

use super::support::{
    Scratch, bytes, leftovers, listing, make_odd_tree, on_file_system, run, set_times,
};

const MIB: usize = 1 << 20;

#[test]
fn a_manifest_is_what_the_tools_people_have_accept() {
    let scratch = Scratch::new();
    make_odd_tree(&scratch, "tree", &[0, 1, 4096, 300_000, MIB, 20 * MIB + 3]);
    scratch.write(OsStr::from_bytes(b"tree/odd/back\\slash\r"), "odd");
    for (format, tool) in [("sha256sum", "sha256sum"), ("md5sum", "md5sum"), ("b3sum", "b3sum")] {
        let (target, list) = (format!("of {format}"), format!("list of {format}"));
        let form = format!("--manifest-format={format}");
        if format == "b3sum" {
            // It takes no such name, and says nothing of the others then.
            fs::remove_file(
                scratch.path("tree/odd").join(OsStr::from_bytes(b"\xff\xfe not utf-8")),
            )
            .unwrap();
        }
        scratch.ucp(["--manifest", &list, &form, "tree", &target]).succeeds_silently();
        let check = |directory: &Path| {
            run(Command::new(tool)
                .args(["-c", "--quiet"])
                .arg(scratch.path(&list))
                .current_dir(directory))
        };
        check(&scratch.path(&target)).exits(0);
        let list = scratch.read(&list);
        let lines = list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        let files = listing(&scratch.path("tree"));
        let files = files
            .keys()
            .filter(|name| scratch.path("tree").join(name).symlink_metadata().unwrap().is_file());
        assert_eq!(lines, files.count(), "{format}");
        // A list that is checked against something else is not accepted.
        scratch.write(format!("{target}/of 4096 bytes"), "changed");
        assert_ne!(check(&scratch.path(&target)).code(), Some(0), "{format}");
    }
}

#[test]
fn names_in_a_manifest_are_relative_to_the_target_and_sorted() {
    let scratch = Scratch::new();
    scratch.make_directory("tree/d");
    scratch.make_directory("there");
    for name in ["tree/b", "tree/d/c", "tree/a\nb"] {
        scratch.write(name, name);
    }
    let names = |list: &str| {
        let text = String::from_utf8(scratch.read(list)).unwrap();
        text.lines().map(|line| line[line.find("  ").unwrap() + 2..].to_owned()).collect::<Vec<_>>()
    };
    scratch.ucp(["--manifest=new.sha256", "tree", "new"]).succeeds_silently();
    assert_eq!(names("new.sha256"), ["a\\nb", "b", "d/c"]);
    scratch.ucp(["--manifest=into", "tree", "there"]).succeeds_silently();
    assert_eq!(names("into"), ["tree/a\\nb", "tree/b", "tree/d/c"]);
    scratch.ucp(["--manifest=one", "tree/b", "named"]).succeeds_silently();
    assert_eq!(names("one"), ["named"]);
    // Into the target itself, once it is there; it does not list itself.
    scratch.ucp(["--manifest=new/list", "-T", "tree", "new"]).succeeds_silently();
    assert_eq!(names("new/list"), ["a\\nb", "b", "d/c"]);
    assert_eq!(leftovers(&scratch.path("")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_manifest_never_replaces_what_the_run_has_copied() {
    let scratch = Scratch::new();
    scratch.make_directory("there");
    scratch.write("list", "a file of this name");
    scratch
        .ucp(["--manifest=there/list", "list", "there"])
        .exits(1)
        .says(&["publish list failed on there/list"]);
    assert_eq!(scratch.read("there/list"), b"a file of this name");
    scratch.ucp(["--manifest=nowhere/list", "list", "there"]).exits(1).says(&["nowhere/list"]);
    scratch.ucp(["--manifest=there", "list", "copy"]).exits(1).says(&["regular file"]);
    assert!(!scratch.exists("copy"), "nothing is begun");
}

#[test]
fn a_manifest_never_replaces_a_source() {
    let scratch = Scratch::new();
    scratch.make_directory("tree/d");
    scratch.write("tree/a", "precious");
    std::os::unix::fs::symlink("tree/d", scratch.path("way")).unwrap();
    for (list, source, says) in [
        ("tree/a", "tree", "into a source"),
        ("tree/new", "tree", "into a source"),
        ("way/new", "tree", "into a source"),
        ("tree/a", "tree/a", "replace a source"),
        ("tree/d/../a", "tree/a", "replace a source"),
    ] {
        scratch.ucp(["--manifest", list, "-T", source, "copy"]).exits(1).says(&[list, says]);
        assert!(!scratch.exists("copy"), "nothing is begun");
        assert_eq!(scratch.read("tree/a"), b"precious");
        assert!(!scratch.exists("tree/new") && !scratch.exists("tree/d/new"));
    }
    // Beside a source that is a file is not in it.
    scratch.ucp(["--manifest=tree/list", "tree/a", "copy"]).succeeds_silently();
}

#[test]
fn every_name_of_a_file_is_in_the_manifest() {
    let scratch = Scratch::new();
    scratch.make_directory("tree/d");
    scratch.write("tree/a", "abc");
    for name in ["tree/b", "tree/d/c"] {
        fs::hard_link(scratch.path("tree/a"), scratch.path(name)).unwrap();
    }
    // Staged, over what is there, and durable.
    for words in [&["-a"][..], &["-a"], &["-a", "--durable"], &["-a", "--check-existing=hash"]] {
        let operands = ["--manifest=list", "-T", "tree", "copy"];
        scratch.ucp(words.iter().copied().chain(operands)).succeeds_silently();
        let text = String::from_utf8(scratch.read("list")).unwrap();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(text, format!("{digest}  a\n{digest}  b\n{digest}  d/c\n"), "{words:?}");
    }
}

#[test]
fn json_lists_every_file_with_its_digest() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    scratch.write("tree/a", "abc");
    scratch.write(OsStr::from_bytes(b"tree/\xff"), "abc");
    scratch.ucp(["--manifest=m.json", "--digest=crc32", "tree", "copy"]).succeeds_silently();
    let want = concat!(
        r#"{"algorithm":"crc32","bytes":3,"digest":"352441c2","path":"a"}"#,
        "\n",
        r#"{"algorithm":"crc32","bytes":3,"digest":"352441c2","path_base64":"/w=="}"#,
        "\n",
    );
    assert_eq!(String::from_utf8(scratch.read("m.json")).unwrap(), want);
}

#[test]
fn what_is_verified_on_a_device_and_what_only_in_a_cache_is_said() {
    require_root!();
    for (kind, what) in [
        ("ext4", "verified on the device"),
        ("xfs", "verified on the device"),
        ("btrfs", "verified on the device"),
        ("tmpfs", "verified in the cache only"),
    ] {
        on_file_system(kind, 512 << 20, |scratch| {
            make_odd_tree(scratch, "tree", &[0, 1, 511, 4097, MIB, 17 * MIB + 5]);
            let times = |name: &str| {
                let metadata = fs::metadata(scratch.path(name)).unwrap();
                (metadata.atime(), metadata.mtime(), metadata.mtime_nsec())
            };
            let before = times("tree/of 4097 bytes");
            for engine in ["auto", "threads"] {
                let words = ["-v", "--verify", "--reflink=never", "--engine", engine];
                let copied = scratch.ucp(words.iter().chain(&["tree", engine]));
                copied.exits(0).says(&[what]);
                assert!(!copied.stderr().contains("warning"), "{kind}: {copied:?}");
                assert_eq!(
                    listing(&scratch.path(engine)),
                    listing(&scratch.path("tree")),
                    "{kind}"
                );
                // Reading it back is no use of the file: it has the times of its source.
                assert_eq!(times(&format!("{engine}/of 4097 bytes")).1, before.1, "{kind}");
            }
            // Past the page cache on one side only, and in place.
            scratch.ucp(["--verify", "--in-place", "-T", "tree", "auto"]).exits(0);
            scratch.ucp(["--verify=sha256", "--direct=off", "tree", "off"]).exits(0);
            scratch.ucp(["--verify", "--direct=on", "tree", "on"]).exits(0);
            for copy in ["auto", "off", "on"] {
                assert_eq!(
                    listing(&scratch.path(copy)).len(),
                    listing(&scratch.path("tree")).len()
                );
            }
        });
    }
}

#[test]
fn a_clone_is_verified_and_said_to_be_no_second_copy() {
    require_root!();
    on_file_system("btrfs", 512 << 20, |scratch| {
        scratch.write("large", bytes(18 * MIB, 1));
        scratch.write("small", bytes(300_000, 2));
        let copied = scratch.ucp(["--verify", "--manifest=list", "large", "copy"]);
        copied.exits(0).says(&["warning", "shares its blocks"]);
        let check =
            |list| run(Command::new("sha256sum").args(["-c", list]).current_dir(scratch.path("")));
        check("list").exits(0);
        scratch.ucp(["--manifest=list2", "small", "copy2"]).succeeds_silently();
        check("list2").exits(0);
    });
}

#[test]
fn a_flip_behind_the_file_system_is_found_with_its_offset() {
    require_root!();
    // Behind ext4 and xfs, in what their loop device reads; their page cache has the old bytes.
    for kind in ["ext4", "xfs"] {
        on_file_system(kind, 512 << 20, |scratch| {
            scratch.make_directory("source");
            let sizes = [1, 5000, 300_000, 17 * MIB + 5];
            for (number, size) in sizes.iter().enumerate() {
                scratch.write(format!("source/{number}"), bytes(*size, number as u64 + 1));
            }
            scratch.ucp(["--durable", "--reflink=never", "source", "copy"]).succeeds_silently();
            let image = scratch.path("../image");
            for (number, size) in sizes.iter().enumerate() {
                let at = size * 3 / 4;
                flip(&image, &scratch.path(format!("copy/{number}")), at as u64);
                let (from, to) = (format!("source/{number}"), format!("copy/{number}"));
                // By size and time nothing has happened.
                scratch.ucp(["--check-existing", &from, &to]).succeeds_silently();
                let found = scratch.ucp(["--check-existing=hash", "--reflink=never", &from, &to]);
                found
                    .exits(0)
                    .says(&["warning", &format!("differs from its source at byte {at},")]);
                scratch.ucp(["--check-existing=hash", &from, &to]).succeeds_silently();
            }
        });
    }
}

/// Changes a bit of a file that is on the disk, where only the disk knows.
fn flip(image: &Path, file: &Path, at: u64) {
    run(&mut Command::new("sync")).exits(0);
    let mapped = run(Command::new("filefrag").args(["-v", "-b1"]).arg(file));
    let number = |word: &str| word.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    let physical = mapped.exits(0).stdout().lines().find_map(|line| {
        let words: Vec<&str> =
            line.split([':', '.']).filter(|word| !word.trim().is_empty()).collect();
        let [_, first, last, physical, ..] = words.as_slice() else { return None };
        let (first, last): (u64, u64) = (number(first)?, number(last)?);
        let physical: u64 = number(physical)?;
        (first..=last).contains(&at).then(|| physical + at - first)
    });
    let physical = physical.unwrap_or_else(|| panic!("byte {at} is nowhere: {mapped:?}"));
    let image = File::options().read(true).write(true).open(image).unwrap();
    let mut byte = [0];
    image.read_exact_at(&mut byte, physical).unwrap();
    let mut in_file = [0];
    File::open(file).unwrap().read_exact_at(&mut in_file, at).unwrap();
    assert_eq!(byte, in_file, "the byte was found on the disk");
    image.write_all_at(&[byte[0] ^ 0x10], physical).unwrap();
}

#[test]
fn what_is_up_to_date_is_left_alone() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    for name in ["same", "touched", "changed", "longer"] {
        scratch.write(format!("tree/{name}"), bytes(5000, 1));
    }
    scratch.ucp(["tree", "copy"]).succeeds_silently();
    let inode = |name: &str| fs::metadata(scratch.path("copy").join(name)).unwrap().ino();
    let inodes = || ["same", "touched", "changed", "longer"].map(inode);
    let before = inodes();
    set_times(&scratch.path("tree/touched"), 1, 1);
    let old = fs::metadata(scratch.path("tree/changed")).unwrap();
    scratch.write("tree/changed", bytes(5000, 2));
    set_times(&scratch.path("tree/changed"), 1, old.mtime() * 1_000_000_000 + old.mtime_nsec());
    scratch.write("tree/longer", bytes(5001, 1));
    let copied = scratch.ucp(["-v", "--check-existing=size+time", "-T", "tree", "copy"]);
    copied.exits(0).says(&["2 files", "2 up to date"]);
    let now = inodes();
    let is_kept = [0, 1, 2, 3].map(|at| before[at] == now[at]);
    assert_eq!(is_kept, [true, false, true, false], "by size and time");
    // By its bytes the file whose time was set back differs, too.
    let copied = scratch.ucp(["-v", "--check-existing=hash", "-T", "tree", "copy"]);
    copied.exits(0).says(&["1 file", "3 up to date"]).says(&["warning", "copy/changed", "at byte"]);
    assert_eq!(scratch.read("copy/changed"), bytes(5000, 2));
    // A list is complete, whatever was copied of it now.
    scratch.ucp(["--check-existing", "--manifest=list", "-T", "tree", "copy"]).succeeds_silently();
    run(Command::new("sha256sum").args(["-c", "../list"]).current_dir(scratch.path("copy")))
        .exits(0);
    assert_eq!(scratch.read("list").iter().filter(|byte| **byte == b'\n').count(), 4);
}

#[test]
fn what_can_t_be_read_back_is_said() {
    let scratch = Scratch::new();
    scratch.write("file", bytes(5000, 1));
    run(Command::new("mkfifo").arg(scratch.path("pipe"))).exits(0);
    let pipe = scratch.path("pipe");
    let reader = thread::spawn(move || fs::read(pipe).unwrap());
    let copied = scratch.ucp(["--verify", "file", "pipe"]);
    copied.exits(0).says(&["warning", "not verified"]);
    assert_eq!(reader.join().unwrap(), bytes(5000, 1));
    // What is read from a pipe is verified where it is written.
    let script =
        format!("exec {} -v --verify --manifest=list <(cat file) copy", super::support::UCP);
    let copied = run(Command::new("bash").args(["-c", &script]).current_dir(scratch.path("")));
    copied.exits(0).says(&["verified on the device"]);
    run(Command::new("sha256sum").args(["-c", "list"]).current_dir(scratch.path(""))).exits(0);
}
