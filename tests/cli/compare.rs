//! `ucp compare`: in what two files or trees differ.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::json::check_line;
use super::support::{Scratch, bytes, run, set_times};

const MIB: usize = 1 << 20;

#[test]
fn the_first_byte_that_differs_is_named_whatever_the_size() {
    let scratch = Scratch::new();
    for size in [1, 5000, 300_000, 20 * MIB + 5] {
        let content = bytes(size, 1);
        scratch.write("a", &content);
        scratch.write("b", &content);
        scratch.ucp(["compare", "a", "b"]).succeeds_silently();
        for at in [0, size / 2, size - 1] {
            let mut other = content.clone();
            // The last one is behind the first.
            other[size - 1] ^= 1;
            other[at] ^= if at == size - 1 { 0 } else { 4 };
            scratch.write("b", &other);
            for words in [&["compare", "a", "b"][..], &["compare", "--cache=auto", "b", "a"]] {
                let ran = scratch.ucp(words);
                let want = format!("{}: differs from byte {at} on\n", words[words.len() - 2]);
                assert_eq!(ran.exits(6).stdout(), want, "{size}");
            }
        }
        scratch.write("b", &content[..size - 1]);
        let want = format!("a: differs from byte {} on\n", size - 1);
        assert_eq!(scratch.ucp(["compare", "a", "b"]).exits(6).stdout(), want);
        let ran = scratch.ucp(["compare", "-q", "a", "b"]);
        ran.exits(6);
        assert_eq!(ran.stdout(), "");
    }
}

fn two_trees() -> Scratch {
    let scratch = Scratch::new();
    for tree in ["a", "b"] {
        scratch.make_directory(format!("{tree}/same/below"));
        scratch.write(format!("{tree}/same/below/file"), bytes(5000, 1));
        scratch.write(format!("{tree}/content"), tree);
        scratch.make_directory(format!("{tree}/only-{tree}/below"));
        scratch.link("x", format!("{tree}/link-same"));
        scratch.link(tree, format!("{tree}/link"));
        scratch.write(format!("{tree}/new\nline"), tree);
    }
    scratch.write("a/kind", "x");
    scratch.make_directory("b/kind");
    scratch
}

#[test]
fn what_differs_in_two_trees_is_told_in_order() {
    let scratch = two_trees();
    let ran = scratch.ucp(["compare", "a", "b"]);
    ran.exits(6).says_lines(0);
    let want = "content: differs from byte 0 on\n\
                kind: a file, a directory\n\
                link: the links say different things\n\
                'new'$'\\n''line': differs from byte 0 on\n\
                only-a: only in a\n\
                only-b: only in b\n";
    assert_eq!(ran.stdout(), want);
    let judge = run(Command::new("diff")
        .args(["-rq", "--no-dereference", "a", "b"])
        .current_dir(scratch.path("")));
    // The name with a line feed takes three lines.
    assert_eq!(judge.stdout().lines().count(), 8);
    scratch.ucp(["compare", "a", "a"]).succeeds_silently();
    scratch.ucp(["compare", "a/kind", "b/kind"]).exits(6);
}

#[test]
fn attributes_are_compared_if_asked_for() {
    require_root!();
    let scratch = Scratch::new();
    for tree in ["a", "b"] {
        scratch.make_directory(tree);
        for file in ["mode", "owner", "time", "attribute", "same"] {
            scratch.write(format!("{tree}/{file}"), "x");
            set_times(&scratch.path(format!("{tree}/{file}")), 1_000_000_000, 1_000_000_000);
        }
        set_times(&scratch.path(tree), 1_000_000_000, 1_000_000_000);
    }
    scratch.set_mode("b/mode", 0o600);
    std::os::unix::fs::chown(scratch.path("b/owner"), Some(7), Some(8)).unwrap();
    set_times(&scratch.path("b/time"), 1_000_000_001, 1_000_000_001);
    xattr::set(scratch.path("a/attribute"), "user.one", b"1").unwrap();
    xattr::set(scratch.path("b/attribute"), "user.one", b"2").unwrap();
    xattr::set(scratch.path("b/attribute"), "user.two", b"2").unwrap();
    scratch.ucp(["compare", "a", "b"]).succeeds_silently();
    let ran = scratch.ucp(["compare", "-a", "a", "b"]);
    let want = "attribute: attribute user.one\n\
                attribute: attribute user.two\n\
                mode: mode 0644, 0600\n\
                owner: owner 0, 7\n\
                owner: group 0, 8\n\
                time: modified 1.000000000, 1.000000001\n";
    assert_eq!(ran.exits(6).stdout(), want);
    run(Command::new("cp").args(["-a", "a", "c"]).current_dir(scratch.path(""))).exits(0);
    scratch.ucp(["compare", "-a", "a", "c"]).succeeds_silently();
}

#[test]
fn what_cannot_be_compared_is_told_and_the_rest_goes_on() {
    require_root!();
    let scratch = Scratch::public();
    for tree in ["a", "b"] {
        scratch.make_directory(tree);
        scratch.write(format!("{tree}/secret"), "x");
        scratch.write(format!("{tree}/file"), "x");
    }
    scratch.set_mode("b/secret", 0o000);
    let ran = scratch.ucp_as_nobody(["compare", "a", "b"]);
    ran.exits(1).says(&["open failed on b/secret", "Permission denied"]).says_lines(1);
    scratch.write("a/file", "y");
    let ran = scratch.ucp_as_nobody(["compare", "a", "b"]);
    assert_eq!(ran.exits(6).stdout(), "file: differs from byte 0 on\n");
    scratch.ucp(["compare", "a", "nosuch"]).exits(1).says(&["open failed on nosuch"]);
}

#[test]
fn the_account_for_programs_keeps_to_its_schema() {
    let scratch = two_trees();
    let ran = scratch.ucp(["compare", "--json", "-a", "a", "b"]);
    let lines: Vec<Value> = ran.exits(6).stdout().lines().map(check_line).collect();
    let content = lines.iter().find(|line| line["what"] == "content").unwrap();
    assert_eq!((&content["path"], &content["offset"]), (&"content".into(), &0.into()));
    let summary = lines.last().unwrap();
    assert_eq!(
        (&summary["event"], &summary["exit_status"]),
        (&"compare-summary".into(), &6.into())
    );
    assert_eq!(summary["files"], 3);
}

#[test]
fn a_tree_is_the_same_as_its_copy() {
    let scratch = Scratch::new();
    for number in 0..300_usize {
        scratch.make_directory(format!("tree/{}", number % 7));
        scratch.write(format!("tree/{}/{number}", number % 7), bytes(number * 101, 1));
    }
    scratch.ucp(["-a", "tree", "copy"]).exits(0);
    scratch.ucp(["compare", "-a", "tree", "copy"]).succeeds_silently();
    let changed = Path::new("copy/3/101");
    let mut content = scratch.read(changed);
    content[77] ^= 1;
    fs::write(scratch.path(changed), content).unwrap();
    let ran = scratch.ucp(["compare", "tree", "copy"]);
    assert_eq!(ran.exits(6).stdout(), "3/101: differs from byte 77 on\n");
}
