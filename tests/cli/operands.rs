//! What the operands mean. GNU `cp` is the judge: both run on the same files, and the results are
//! compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::support::{Entry, Scratch, UCP, in_mount_namespace, leftovers, listing, run};

/// The files that every case starts with.
fn fill(scratch: &Scratch) {
    for directory in ["d/sub", "o/d", "e", "m/d", "clash/d/x", "nothing", "links"] {
        scratch.make_directory(directory);
    }
    for (name, content) in [
        ("a", "file a"),
        ("b", "file b, longer"),
        ("-dash", "file dash"),
        ("o/a", "another a"),
        ("o/d/z", "z of another d"),
        ("d/x", "x"),
        ("d/sub/y", "y"),
        ("m/d/x", "old x of m"),
        ("m/d/old", "only in m"),
        ("clash/d/sub", "a file where a directory comes"),
        ("links/file", "beside links"),
    ] {
        scratch.write(name, content);
    }
    scratch.set_mode("a", 0o640);
    scratch.set_mode("d/x", 0o600);
    for (content, name) in [
        ("a", "to-a"),
        ("b", "to-b"),
        ("d", "to-d"),
        ("e", "to-e"),
        ("nowhere", "dangling"),
        ("file", "links/to-file"),
        ("../d", "links/to-d"),
        ("nowhere", "links/dangling"),
    ] {
        scratch.link(content, name);
    }
    fs::hard_link(scratch.path("a"), scratch.path("hard-a")).unwrap();
}

fn content(scratch: &Scratch) -> BTreeMap<PathBuf, Entry> {
    let entries = listing(&scratch.path("")).into_iter();
    entries.map(|(name, entry)| (name, entry.without_times())).collect()
}

/// Runs both, and compares what is there afterwards and whether they succeeded.
fn compare_with_cp(cases: &[(&str, &[&str])]) {
    for (name, words) in cases {
        let (ours, theirs) = (Scratch::new(), Scratch::new());
        fill(&ours);
        fill(&theirs);
        // `cp` copies directories only if told to, and follows no operand then unless told to.
        // An option among the words that says otherwise comes later, and wins.
        let is_about_links = words.iter().any(|word| matches!(*word, "-r" | "-R" | "-P" | "-L"));
        let recursive = if is_about_links { "-R" } else { "-RH" };
        let mut cp = Command::new("cp");
        cp.args([recursive, "--preserve=mode,timestamps", "--reflink=never"]);
        let cp = run(cp.args(*words).current_dir(theirs.path("")));
        let ucp = ours.ucp(*words);
        assert_eq!(ucp.code(), cp.code(), "{name}: {ucp:?} {cp:?}");
        assert_eq!(content(&ours), content(&theirs), "{name}: {ucp:?} {cp:?}");
        assert_eq!(leftovers(&ours.path("")), Vec::<PathBuf>::new(), "{name}");
        if ucp.code() == Some(1) {
            assert!(ucp.stderr().starts_with("ucp: "), "{name}: says why: {ucp:?}");
        }
    }
}

#[test]
fn files_go_where_cp_puts_them() {
    compare_with_cp(&[
        ("a new name", &["a", "new"]),
        ("a new name in a directory", &["a", "e/new"]),
        ("a new name in a directory that is not there", &["a", "not/there"]),
        ("a new name with a slash", &["a", "new/"]),
        ("an existing file", &["a", "b"]),
        ("an existing file with a slash", &["a", "b/"]),
        ("an existing directory", &["a", "e"]),
        ("an existing directory with a slash", &["a", "e/"]),
        ("an existing directory with slashes", &["a", "e///"]),
        ("the current directory", &["d/x", "."]),
        ("the directory above", &["d/x", "d/.."]),
        ("a directory through a link", &["a", "to-e"]),
        ("a file through a link", &["a", "to-b"]),
        ("a dangling link", &["a", "dangling"]),
        ("several into a directory", &["a", "b", "d/x", "e"]),
        ("several to a name that is not there", &["a", "b", "new"]),
        ("several to a file", &["a", "d/x", "b"]),
        ("one missing, the others go on", &["missing", "a", "missing/too", "b", "e"]),
        ("missing", &["missing", "new"]),
        ("a source with a slash that is a file", &["a/", "new"]),
        ("an empty source", &["", "new"]),
        ("an empty target", &["a", ""]),
        ("a name that looks like an option", &["--", "-dash", "-new"]),
        ("a file where a directory is", &["a", "b", "m/d", "clash/d/sub/.."]),
    ]);
}

#[test]
fn directories_go_where_cp_puts_them() {
    compare_with_cp(&[
        ("a new name", &["d", "new"]),
        ("a new name with a slash", &["d", "new/"]),
        ("a source with slashes", &["d//", "new"]),
        ("a new name in a directory that is not there", &["d", "not/there"]),
        ("an existing directory", &["d", "e"]),
        ("a source with a slash into an existing directory", &["d/", "e"]),
        ("an existing directory that has one of that name", &["d", "m"]),
        ("an existing file", &["d", "a"]),
        ("an existing file with -T", &["-T", "d", "a"]),
        ("what is in it", &["d/.", "e"]),
        ("what is in it, to a new name", &["d/.", "new"]),
        ("what is in the one above", &["d/sub/..", "e"]),
        ("a file stands where a directory comes, and the other way round", &["d", "clash"]),
        ("an empty one", &["nothing", "new"]),
        ("several", &["d", "nothing", "links", "e"]),
        ("several and files", &["d", "a", "nothing", "b", "e"]),
        ("with -r", &["-r", "d", "new"]),
        ("with -R", &["-R", "d", "new"]),
        ("a new name where a dangling link is", &["d", "dangling"]),
    ]);
}

#[test]
fn target_options_mean_what_they_mean_to_cp() {
    compare_with_cp(&[
        ("-t", &["-t", "e", "a", "b", "d"]),
        ("-t with the value attached", &["-te", "a"]),
        ("--target-directory", &["--target-directory=e", "a"]),
        ("-t after the sources", &["a", "b", "-t", "e"]),
        ("-t through a link", &["-t", "to-e", "a"]),
        ("-t that is a file", &["-t", "b", "a"]),
        ("-t that is not there", &["-t", "new", "a"]),
        ("-T to a new name", &["-T", "a", "new"]),
        ("-T to a file", &["-T", "a", "b"]),
        ("-T to a directory", &["-T", "a", "e"]),
        ("-T of a directory to a new name", &["-T", "d", "new"]),
        ("-T of a directory onto one", &["-T", "d", "m/d"]),
        ("--no-target-directory", &["--no-target-directory", "d", "e"]),
    ]);
}

#[test]
fn links_are_followed_where_cp_follows_them() {
    compare_with_cp(&[
        ("an operand", &["to-a", "new"]),
        ("an operand that leads to a directory", &["to-d", "new"]),
        ("an operand that leads to a directory, with a slash", &["to-d/", "new"]),
        ("an operand into a directory keeps the link's name", &["to-a", "e"]),
        ("an operand that dangles", &["dangling", "new"]),
        ("an operand with -r", &["-r", "to-a", "new"]),
        ("an operand with -R", &["-R", "to-d", "new"]),
        ("an operand with -P", &["-P", "to-a", "new"]),
        ("a dangling operand with -P", &["-P", "dangling", "new"]),
        ("an operand with -r -H", &["-r", "-H", "to-d", "new"]),
        ("an operand with -L", &["-L", "to-a", "new"]),
        ("links below", &["links", "new"]),
        ("links below with -P", &["-P", "links", "new"]),
        ("links below with -L, one of which dangles", &["-L", "links", "new"]),
    ]);
}

#[test]
fn two_sources_with_one_target_name_are_refused_as_cp_refuses_them() {
    compare_with_cp(&[
        ("two files", &["a", "o/a", "e"]),
        ("two directories are merged", &["d", "o/d", "e"]),
    ]);
    // Where a directory has brought the first one, cp overwrites it: that loses what was copied.
    let scratch = Scratch::new();
    fill(&scratch);
    let ran = scratch.ucp(["d", "m/d", "e"]);
    ran.exits(1).says(&["will not overwrite just-created", "e/d/x"]).says_lines(1);
    assert_eq!(scratch.read("e/d/x"), b"x");
    assert_eq!(scratch.read("e/d/old"), b"only in m");
    let scratch = Scratch::new();
    fill(&scratch);
    let ran = scratch.ucp(["a", "o/a", "e"]);
    ran.exits(1).says(&["will not overwrite just-created", "e/a"]).says_lines(1);
    assert_eq!(scratch.read("e/a"), b"file a");
}

#[test]
fn a_file_onto_itself_is_refused() {
    let cases: &[(&str, &[&str])] = &[
        ("the same name", &["a", "a"]),
        ("another spelling", &["a", "./a"]),
        ("another path", &["a", "d/../a"]),
        ("a hard link", &["a", "hard-a"]),
        ("a link to it", &["a", "to-a"]),
        ("through a link to it", &["to-a", "a"]),
        ("into its own directory", &["a", "."]),
    ];
    compare_with_cp(cases);
    for (name, words) in cases {
        let scratch = Scratch::new();
        fill(&scratch);
        let ran = scratch.ucp(*words);
        ran.exits(1).says(&["same file"]).says_lines(1);
        assert_eq!(scratch.read("a"), b"file a", "{name}");
    }
}

#[test]
fn a_directory_into_itself_is_refused_and_nothing_is_made() {
    let cases: [(&str, &[&str]); 9] = [
        ("a new name in it", &["d", "d/new"]),
        ("itself", &["d", "d"]),
        ("deeper", &["d", "d/sub"]),
        ("a new name deeper", &["d", "d/sub/new"]),
        ("by another path", &["d", "e/../d/new"]),
        ("through a link", &["d", "to-d/new"]),
        ("a link to it", &["to-d", "d/new"]),
        ("the current directory", &[".", "new"]),
        ("the current directory, into one below", &[".", "e"]),
    ];
    for (name, words) in cases {
        let scratch = Scratch::new();
        fill(&scratch);
        let before = content(&scratch);
        let ran = scratch.ucp(words);
        ran.exits(1).says(&["itself"]).says_lines(1);
        assert_eq!(content(&scratch), before, "{name}");
    }
}

#[test]
fn a_copy_is_not_copied_into_itself_through_a_link_or_a_mount() {
    for stage in ["auto", "never"] {
        let scratch = Scratch::new();
        scratch.make_directory("from");
        scratch.write("from/x", "x");
        scratch.link("..", "from/up");
        let option = format!("--stage={stage}");
        let ran = scratch.ucp(["-L", &option, "from", "new"]);
        ran.exits(1).says(&["from/up/from", "leads back"]).says(&["into itself"]).says_lines(2);
        assert_eq!(scratch.read("new/up/../x"), b"x", "the rest is copied");
        assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
    }
    require_root!();
    let scratch = Scratch::new();
    scratch.make_directory("from/mounted");
    scratch.make_directory("to");
    scratch.write("from/x", "x");
    in_mount_namespace(|| {
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(scratch.path("to")).arg(scratch.path("from/mounted"));
        run(&mut mount).exits(0);
        scratch.ucp(["from", "to"]).exits(1).says(&["into itself"]).says_lines(1);
    });
    assert_eq!(scratch.read("to/from/x"), b"x", "the rest is copied");
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn a_directory_onto_itself_changes_nothing() {
    let scratch = Scratch::new();
    fill(&scratch);
    let before = content(&scratch);
    scratch.ucp(["-T", "d", "d"]).exits(1);
    scratch.ucp(["d", "."]).exits(1);
    assert_eq!(content(&scratch), before);
}

#[test]
fn links_below_a_target_directory_are_not_followed_out_of_it() {
    let scratch = Scratch::new();
    fill(&scratch);
    scratch.make_directory("trap/d");
    scratch.make_directory("outside/sub");
    scratch.write("outside/x", "precious");
    scratch.link("../../outside/x", "trap/d/x");
    scratch.link("../../outside/sub", "trap/d/sub");
    scratch.ucp(["d", "trap"]);
    assert_eq!(scratch.read("outside/x"), b"precious");
    assert!(!scratch.exists("outside/sub/y"));
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn many_operands_are_copied() {
    let scratch = Scratch::new();
    scratch.make_directory("many");
    scratch.make_directory("target");
    let names: Vec<String> = (0..3000).map(|number| format!("many/{number}")).collect();
    names.iter().for_each(|name| scratch.write(name, name));
    scratch.ucp(names.iter().map(String::as_str).chain(["target"])).succeeds_silently();
    for (number, name) in names.iter().enumerate() {
        assert_eq!(scratch.read(format!("target/{number}")), name.as_bytes());
    }
}

#[test]
fn a_tree_deeper_than_the_soft_limit_of_open_files_is_copied() {
    let scratch = Scratch::new();
    let deep = "d/".repeat(200);
    scratch.make_directory(format!("tree/{deep}"));
    scratch.write(format!("tree/{deep}x"), "x");
    let script = format!("ulimit -Sn 100; '{UCP}' tree new");
    run(Command::new("sh").args(["-c", &script]).current_dir(scratch.path(""))).succeeds_silently();
    assert_eq!(scratch.read(format!("new/{deep}x")), b"x");
}

#[test]
fn few_open_files_are_enough_for_a_flat_directory() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    (0..10_000).for_each(|number| scratch.write(format!("tree/{number}"), ""));
    let script = format!("ulimit -n 20; '{UCP}' --stage=never tree new");
    run(Command::new("sh").args(["-c", &script]).current_dir(scratch.path(""))).succeeds_silently();
}
