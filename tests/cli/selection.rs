//! What of a tree is copied: patterns that include and exclude.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::support::{Background, Scratch, UCP, bytes, leftovers, listing, run};

/// A tree with names to choose from.
fn make_tree(scratch: &Scratch) {
    scratch.make_directory("tree/src/cache");
    scratch.make_directory("tree/cache/deep");
    for name in ["a.c", "a.o", "src/b.c", "src/b.o", "src/cache/x", "cache/y", "cache/deep/z.c"] {
        scratch.write(format!("tree/{name}"), name);
    }
    scratch.link("a.o", "tree/link.o");
}

/// The names below a directory; those of directories end in '/'.
fn names(root: &Path) -> BTreeSet<String> {
    let entries = listing(root).into_keys().filter(|name| !name.as_os_str().is_empty());
    let shown = entries.map(|name| {
        let slash = if root.join(&name).is_dir() { "/" } else { "" };
        format!("{}{slash}", name.as_os_str().as_bytes().escape_ascii())
    });
    shown.collect()
}

#[test]
fn patterns_choose_what_is_copied() {
    let all = "a.c a.o cache/ cache/deep/ cache/deep/z.c cache/y link.o src/ src/b.c src/b.o \
               src/cache/ src/cache/x";
    let cases: [(&[&str], &str); 7] = [
        (&[], all),
        (
            &["--exclude", "*.o"],
            "a.c cache/ cache/deep/ cache/deep/z.c cache/y src/ src/b.c src/cache/ src/cache/x",
        ),
        (&["--exclude=cache/"], "a.c a.o link.o src/ src/b.c src/b.o"),
        (&["--exclude=/cache"], "a.c a.o link.o src/ src/b.c src/b.o src/cache/ src/cache/x"),
        (
            &["--include=*.c", "--include=*/", "--exclude=*"],
            "a.c cache/ cache/deep/ cache/deep/z.c src/ src/b.c src/cache/",
        ),
        (&["--exclude=*", "--include=*.c"], ""),
        // What is in an excluded directory can't be included.
        (&["--include=z.c", "--exclude=cache", "--exclude=src"], "a.c a.o link.o"),
    ];
    let scratch = Scratch::new();
    make_tree(&scratch);
    for (number, (words, want)) in cases.into_iter().enumerate() {
        for stage in ["--stage=auto", "--stage=never"] {
            let target = format!("copy {number} {stage}");
            let operands = [stage, "tree", target.as_str()];
            scratch.ucp(words.iter().chain(&operands)).succeeds_silently();
            let want: BTreeSet<String> = want.split_whitespace().map(str::to_owned).collect();
            assert_eq!(names(&scratch.path(&target)), want, "{words:?}");
        }
    }
}

#[test]
fn patterns_from_a_file_stand_where_the_option_stands() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    scratch.write("patterns", "# not these\n\n*.o\ncache/\n");
    let want: BTreeSet<String> = ["a.c", "a.o", "src/", "src/b.c"].map(str::to_owned).into();
    let words = ["--include=a.o", "--exclude-from=patterns", "--include=b.o", "tree", "one"];
    scratch.ucp(words).succeeds_silently();
    assert_eq!(names(&scratch.path("one")), want);
    scratch.write("patterns", "*.o\0cache\0#\0");
    scratch
        .ucp(["-0", "--include=a.o", "--exclude-from=patterns", "tree", "two"])
        .succeeds_silently();
    assert_eq!(names(&scratch.path("two")), want);
}

#[test]
fn an_operand_is_copied_whatever_the_patterns_say() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    scratch.make_directory("into");
    scratch.ucp(["--exclude=*", "tree", "tree/a.o", "into"]).succeeds_silently();
    assert_eq!(names(&scratch.path("into")), ["a.o", "tree/"].map(str::to_owned).into());
}

#[test]
fn what_is_excluded_is_not_even_opened() {
    let scratch = Scratch::public();
    make_tree(&scratch);
    scratch.set_mode("tree/cache", 0o000);
    scratch.set_mode("tree/a.o", 0o000);
    scratch.make_directory("into");
    scratch.set_mode("into", 0o777);
    scratch.ucp_as_nobody(["tree", "into"]).exits(1).says_lines(2);
    scratch.ucp_as_nobody(["--exclude=a.o", "--exclude=/cache", "tree", "into"]).exits(0);
    // With -L a link that leads to nothing fails, unless it is excluded.
    scratch.link("nowhere", "tree/dangling");
    let words = ["-L", "--exclude=[ac]*", "--exclude=link.o", "--exclude=dangling"];
    scratch.ucp(words.iter().chain(&["tree", "third"])).succeeds_silently();
    assert!(!scratch.exists("third/dangling"));
}

#[test]
fn names_may_hold_any_byte() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    let names: [&[u8]; 4] = [b"\xff.o", b"\xff\n.c", b"[a]", b"*"];
    for name in names {
        scratch.write(format!("tree/{}", "x"), "");
        std::fs::write(scratch.path("tree").join(OsStr::from_bytes(name)), "").unwrap();
    }
    scratch
        .ucp(["--exclude=*.o", "--exclude=\\*", "--exclude=x", "tree", "copy"])
        .succeeds_silently();
    let want = [r"\xff\n.c", "[a]"].map(str::to_owned).into();
    assert_eq!(self::names(&scratch.path("copy")), want);
}

#[test]
fn what_was_left_out_is_counted() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    let ran = scratch.ucp(["-v", "--exclude=cache", "tree", "copy"]);
    assert!(ran.exits(0).stderr().contains(", 2 excluded"), "{ran:?}");
}

#[test]
fn a_pattern_or_list_that_makes_no_sense_is_wrong_usage() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    scratch.write("bad", "fine\n[a\n");
    let cases: [(&[&str], &str); 6] = [
        (&["--limit-rate=0"], "--limit-rate"),
        (&["--limit-rate=fast"], "--limit-rate"),
        (&["--exclude=[a"], "'[a'"),
        (&["--include="], "names nothing"),
        (&["--exclude-from=missing"], "'missing'"),
        (&["--exclude-from=bad"], "'[a'"),
    ];
    for (words, says) in cases {
        let ran = scratch.ucp(words.iter().chain(&["tree", "copy"]));
        ran.exits(2).says(&[says]);
    }
    let mut command = Command::new(UCP);
    let pattern = OsStr::from_bytes(b"--exclude=\xff");
    run(command.arg(pattern).args(["tree", "copy"]).current_dir(scratch.path("")))
        .exits(2)
        .says(&["not UTF-8"]);
    assert!(!scratch.exists("copy"));
}

#[test]
fn a_copy_at_a_limited_rate_is_complete_and_stops_at_once() {
    let scratch = Scratch::new();
    for (name, size) in [("small", 100_000), ("large", 20 << 20)] {
        scratch.write(name, bytes(size, 1));
        for engine in ["--engine=auto", "--engine=threads"] {
            let words = ["--limit-rate=200M", "--reflink=never", engine, name, "copy"];
            scratch.ucp(words).succeeds_silently();
            assert!(scratch.read("copy") == bytes(size, 1), "{name} with {engine}");
        }
        // It would take an hour.
        let mut command = Command::new(UCP);
        command.args(["--limit-rate=20", "--reflink=never", name, "never"]);
        let mut copy = Background::start(command.current_dir(scratch.path("")));
        copy.stop_when_open(&scratch.path(name));
        copy.signal(Signal::SIGCONT);
        copy.signal(Signal::SIGINT);
        copy.end().exits(130);
        assert!(!scratch.exists("never"));
        assert!(leftovers(&scratch.path("")).is_empty());
    }
}

#[test]
fn only_listed_names_are_copied() {
    let all = "a.c a.o cache/ cache/deep/ cache/deep/z.c cache/y link.o src/ src/b.c src/b.o \
               src/cache/ src/cache/x";
    let cases: [(&[&str], &str, &str); 9] = [
        (&[], "", ""),
        (&[], "a.c\nsrc/b.c\n", "a.c src/ src/b.c"),
        (&[], "./src//cache/x\n\na.c", "a.c src/ src/cache/ src/cache/x"),
        (&[], "src\ncache/deep\n.\n", "cache/ cache/deep/ src/"),
        (&[], "cache/\nsrc\n", "cache/ cache/deep/ cache/deep/z.c cache/y src/"),
        (&[], "./\n", all),
        (&["-0"], "a.c\0cache/y\0link.o\0", "a.c cache/ cache/y link.o"),
        (&["--exclude=*.o"], "a.o\na.c\nsrc/\n", "a.c src/ src/b.c src/cache/ src/cache/x"),
        (&["--exclude=/src"], "src/b.c\na.c\n", "a.c"),
    ];
    let scratch = Scratch::new();
    make_tree(&scratch);
    scratch.set_mode("tree/src", 0o750);
    for (number, (words, list, want)) in cases.into_iter().enumerate() {
        scratch.write("list", list);
        for (stage, existed) in [("--stage=auto", false), ("--stage=never", false), ("-T", true)] {
            let target = format!("copy {number} {stage}");
            if existed {
                scratch.make_directory(&target);
            }
            let operands = ["--files-from=list", stage, "tree", target.as_str()];
            scratch.ucp(words.iter().chain(&operands)).succeeds_silently();
            let want: BTreeSet<String> = want.split_whitespace().map(str::to_owned).collect();
            assert_eq!(names(&scratch.path(&target)), want, "{list:?} {words:?}");
            if want.contains("src/") {
                let mode = scratch.path(&target).join("src").metadata().unwrap().mode();
                assert_eq!(mode & 0o7777, 0o750, "a directory on the way is as its source");
            }
        }
    }
}

#[test]
fn a_long_list_is_copied_whole() {
    let scratch = Scratch::new();
    scratch.make_directory("tree/d");
    let mut list = Vec::new();
    for number in 0..1500 {
        scratch.write(format!("tree/{number}"), "");
        scratch.write(format!("tree/d/{number}"), "");
        if number % 2 == 0 {
            list.extend_from_slice(format!("{number}\nd/{number}\n").as_bytes());
        }
    }
    scratch.write("list", list);
    scratch.ucp(["--files-from=list", "tree", "copy"]).succeeds_silently();
    assert_eq!(names(&scratch.path("copy")).len(), 750 + 751);
}

#[test]
fn listed_names_that_can_not_be_reached_are_named_and_the_others_copied() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    scratch.make_directory("outside");
    scratch.write("outside/secret", "secret");
    scratch.link("../outside", "tree/out");
    scratch.write("list", "missing\nnowhere/x/y\nnowhere/z\na.c/b\na.o\nout/secret\n");
    let ran = scratch.ucp(["--files-from=list", "tree", "copy"]);
    ran.exits(1)
        .says(&["tree/missing", "No such file"])
        .says(&["tree/nowhere/x/y", "No such file"])
        .says(&["tree/nowhere/z", "No such file"])
        .says(&["tree/a.c/b", "Not a directory"])
        .says(&["tree/out/secret", "Not a directory"])
        .says_lines(5);
    assert_eq!(names(&scratch.path("copy")), ["a.o"].map(str::to_owned).into());
}

#[test]
fn listed_names_that_lead_elsewhere_are_refused_before_anything_is_copied() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    for name in ["/etc/passwd", "../secret", "src/../../secret"] {
        scratch.write("list", format!("a.c\n{name}\n"));
        let ran = scratch.ucp(["--files-from=list", "tree", "copy"]);
        ran.exits(2).says(&[name, "list"]);
        assert!(!scratch.exists("copy"));
    }
    scratch.write("list", "a.c\n");
    scratch.ucp(["--files-from=list", "tree/a.c", "copy"]).exits(1).says(&["not a directory"]);
    scratch.make_directory("into");
    scratch.ucp(["--files-from=list", "tree", "tree", "into"]).exits(2).says(&["one source"]);
    scratch.ucp(["--files-from=none", "tree", "copy"]).exits(2).says(&["'none'"]);
    scratch.ucp(["--files-from=list", "--delete", "tree", "copy"]).exits(2);
    assert!(!scratch.exists("copy"));
}

#[test]
fn a_list_may_come_from_standard_input() {
    let scratch = Scratch::new();
    make_tree(&scratch);
    scratch.write("list", "a.c\0src/b.c\0");
    let list = std::fs::File::open(scratch.path("list")).unwrap();
    let mut command = Command::new(UCP);
    command.args(["-0", "--files-from=-", "tree", "copy"]).current_dir(scratch.path(""));
    assert!(command.stdin(list).status().unwrap().success());
    let want = ["a.c", "src/", "src/b.c"].map(str::to_owned).into();
    assert_eq!(names(&scratch.path("copy")), want);
}
