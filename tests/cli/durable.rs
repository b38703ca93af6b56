//! `--durable`: what is synced, in which order, and what becomes of files when that fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use super::support::{Ran, Scratch, UCP, leftovers, listing, run};

/// Files of the trees that are copied.
const FILES: usize = 500;

/// Runs `ucp` on threads under `strace` with more words for that; the calls go to `log`.
fn traced(scratch: &Scratch, tracing: &[&str], words: &[&str]) -> Ran {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-o", "log", "-e", "signal=none", "-e"]);
    command.arg(
        "trace=openat,openat2,write,pwrite64,fsync,fdatasync,syncfs,rename,renameat,renameat2",
    );
    command.args(tracing).args([UCP, "--engine=threads", "--reflink=never"]).args(words);
    run(command.current_dir(scratch.path("")))
}

/// The calls of the log, by thread, in order: name, and all of it.
fn calls(scratch: &Scratch) -> BTreeMap<String, Vec<(String, String)>> {
    let mut calls: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for line in String::from_utf8(scratch.read("log")).unwrap().lines() {
        let (thread, call) = line.split_once(char::is_whitespace).unwrap();
        let calls = calls.entry(thread.into()).or_default();
        // A call that another's interrupts is in two lines: the second has the result.
        if let Some((_, rest)) = call.split_once(" resumed>") {
            let (_, begun): &mut (String, String) = calls.last_mut().unwrap();
            *begun = begun.replace(" <unfinished ...>", rest);
        } else if let Some((name, _)) = call.trim().split_once('(') {
            calls.push((name.into(), call.into()));
        }
    }
    calls
}

fn count(scratch: &Scratch, names: &[&str]) -> usize {
    let calls = calls(scratch).into_values().flatten();
    calls.filter(|(name, _)| names.contains(&name.as_str())).count()
}

/// A tree of small files, and an old version of it where it is copied to.
fn write_trees(scratch: &Scratch) {
    for directory in ["tree", "tree/below", "to/tree/below"] {
        scratch.make_directory(directory);
    }
    for number in 0..FILES {
        let name = format!("tree/{}{number}", if number % 2 == 0 { "" } else { "below/" });
        scratch.write(&name, format!("new {number}"));
        scratch.write(format!("to/{name}"), "old");
    }
}

fn check_trees(scratch: &Scratch) {
    for number in 0..FILES {
        let name = format!("to/tree/{}{number}", if number % 2 == 0 { "" } else { "below/" });
        assert_eq!(scratch.read(&name), format!("new {number}").into_bytes(), "{name}");
    }
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn small_files_are_synced_together_and_in_order() {
    let scratch = Scratch::new();
    write_trees(&scratch);
    traced(&scratch, &[], &["--durable", "tree", "to"]).exits(0);
    check_trees(&scratch);
    assert_eq!(count(&scratch, &["rename", "renameat", "renameat2"]), FILES);
    let syncs = count(&scratch, &["fsync", "fdatasync", "syncfs"]);
    assert!(syncs * 5 < FILES, "{syncs} syncs for {FILES} files");

    for (thread, calls) in calls(&scratch) {
        let (mut is_written, mut is_named) = (true, true);
        for (name, call) in calls {
            match name.as_str() {
                "pwrite64" if call.contains(".ucp-") => is_written = false,
                "syncfs" => is_written = true,
                // One of a few, or a directory's: the names in it are on the disk.
                "fsync" if call.contains(".ucp-") => is_written = true,
                "fsync" => is_named = true,
                "rename" | "renameat" | "renameat2" => {
                    assert!(is_written, "thread {thread}: {call} before its bytes are synced");
                    is_named = false;
                }
                _ => {}
            }
        }
        assert!(is_named, "thread {thread}: names were not synced");
    }
}

#[test]
fn the_descriptor_that_is_synced_is_older_than_the_bytes() {
    let scratch = Scratch::new();
    write_trees(&scratch);
    traced(&scratch, &[], &["--durable", "tree", "to"]).exits(0);
    for (thread, calls) in calls(&scratch) {
        let number = |call: &str| -> Option<String> {
            Some(call.split_once('(')?.1.split_once('<')?.0.to_owned())
        };
        for (at, (_, call)) in calls.iter().enumerate().filter(|(_, call)| call.0 == "syncfs") {
            let descriptor = number(call).unwrap();
            let is_its = |call: &str| {
                call.split(" = ").nth(1).is_some_and(|it| it.starts_with(&format!("{descriptor}<")))
            };
            let opened = calls[..at].iter().rposition(|(_, call)| is_its(call)).unwrap();
            let named = calls[..opened].iter().rposition(|(name, _)| name.starts_with("rename"));
            let written = calls[named.unwrap_or(0)..opened]
                .iter()
                .filter(|(name, call)| name == "pwrite64" && call.contains(".ucp-"));
            assert_eq!(written.count(), 0, "thread {thread}: {call} covers older writes");
        }
    }
}

#[test]
fn a_batch_that_can_t_be_synced_is_copied_once_more_file_by_file() {
    let scratch = Scratch::new();
    write_trees(&scratch);
    // strace counts each thread's calls for itself.
    let tracing = ["-e", "inject=syncfs:error=EIO"];
    traced(&scratch, &tracing, &["--durable", "tree", "to"]).exits(0);
    check_trees(&scratch);
    let syncs = count(&scratch, &["fsync"]);
    assert!(syncs >= FILES, "{syncs} syncs of files after those of batches failed");
}

#[test]
fn a_file_that_can_t_be_synced_at_all_is_named_and_the_old_one_stays() {
    let scratch = Scratch::new();
    write_trees(&scratch);
    // Not the directory itself: temporaries came and went in it.
    let files = || listing(&scratch.path("to/tree/below")).split_off(&PathBuf::from("0"));
    let before = files();
    let tracing = ["-e", "inject=syncfs,fsync:error=EIO"];
    let ran = traced(&scratch, &tracing, &["--durable", "tree/below", "to/tree"]);
    ran.exits(8);
    ran.says(&["sync failed", "to/tree/below/1:", "Input/output error"]);
    assert!(files() == before, "an old file was changed");
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn a_directory_that_can_t_be_synced_fails_the_file_and_leaves_the_new_one() {
    let scratch = Scratch::new();
    scratch.write("a", "new");
    scratch.write("b", "old");
    let tracing = ["-e", "inject=fsync:error=EIO:when=2"];
    let ran = traced(&scratch, &tracing, &["--durable", "a", "b"]);
    ran.exits(8).says(&["sync failed", "b", "Input/output error"]);
    assert_eq!(scratch.read("b"), b"new");
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn a_process_that_may_open_few_files_has_small_batches() {
    let scratch = Scratch::new();
    write_trees(&scratch);
    let script = format!("ulimit -n 64; exec '{UCP}' --durable --engine=threads tree to");
    let ran = run(Command::new("sh").args(["-c", &script]).current_dir(scratch.path("")));
    ran.succeeds_silently();
    check_trees(&scratch);
}

#[test]
fn links_among_the_files_wait_with_them() {
    let scratch = Scratch::new();
    write_trees(&scratch);
    (0..50).for_each(|number| scratch.link("somewhere", format!("tree/link {number}")));
    traced(&scratch, &[], &["--durable", "tree", "to"]).exits(0);
    check_trees(&scratch);
    let syncs = count(&scratch, &["fsync", "fdatasync", "syncfs"]);
    assert!(syncs * 5 < FILES, "{syncs} syncs for {FILES} files and 50 links");
}
