//! What happens where something stands already: the options of cp, pairs of them, races and kills.
//! The installed cp is the judge of what is there afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::support::{
    Background, Entry, Scratch, UCP, in_mount_namespace, leftovers, listing, on_file_system, run,
    set_times,
};

/// The files that every case starts with.
fn fill(scratch: &Scratch) {
    for directory in ["d/sub", "e", "m/d/sub"] {
        scratch.make_directory(directory);
    }
    for (name, content) in [
        ("a", "file a"),
        ("b", "file b, longer"),
        ("d/x", "x"),
        ("d/sub/y", "y"),
        ("m/d/x", "old x of m"),
        ("m/d/sub/y", "old y of m"),
        ("m/d/other", "only in m"),
        ("a~", "the backup of a"),
        ("n", "n"),
        ("n.~1~", "n1"),
        ("n.~7~", "n7"),
        ("old", "old"),
        ("newer", "newer"),
    ] {
        scratch.write(name, content);
    }
    for (content, name) in [("a", "to-a"), ("b", "to-b"), ("nowhere", "dangling")] {
        scratch.link(content, name);
    }
    fs::hard_link(scratch.path("a"), scratch.path("hard-a")).unwrap();
    // Times that differ by a nanosecond only.
    for (name, time) in [("old", 5_000_000_000), ("newer", 5_000_000_001), ("m/d/x", 1)] {
        set_times(&scratch.path(name), time, time);
    }
}

fn content(scratch: &Scratch) -> BTreeMap<PathBuf, (Entry, u64)> {
    use std::os::unix::fs::MetadataExt;
    let entries = listing(&scratch.path("")).into_iter();
    let links = |name: &PathBuf| match scratch.path(name).symlink_metadata().unwrap() {
        metadata if metadata.is_dir() => 0,
        metadata => metadata.nlink(),
    };
    entries.map(|(name, entry)| (name.clone(), (entry.without_times(), links(&name)))).collect()
}

fn answering(program: &str, words: &[&str], answers: &str, scratch: &Scratch) -> (i32, String) {
    let mut command = Command::new(program);
    command.args(words).current_dir(scratch.path("")).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended without asking.
    let _ = child.stdin.take().unwrap().write_all(answers.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn each_option_and_pairs_leave_what_cp_leaves() {
    let cases: &[&[&str]] = &[
        &["-n", "a", "b"],
        &["-n", "a", "new"],
        &["-n", "a", "a"],
        &["-n", "-r", "d", "m"],
        &["-n", "-T", "a", "e"],
        &["-n", "a", "dangling"],
        &["-u", "newer", "old"],
        &["-u", "old", "newer"],
        &["-u", "-r", "d", "m"],
        &["-u", "-b", "newer", "old"],
        &["-u", "-b", "old", "newer"],
        &["-f", "a", "b"],
        &["-b", "a", "b"],
        &["-b", "b", "a"],
        &["-b", "a~", "a"],
        &["-b", "a", "a"],
        &["-b", "-f", "a", "a"],
        &["-b", "a", "hard-a"],
        &["-b", "a", "to-a"],
        &["-b", "to-a", "a"],
        &["-b", "a", "dangling"],
        &["-b", "-r", "d", "m"],
        &["--backup=numbered", "a", "n"],
        &["--backup=existing", "a", "n"],
        &["--backup=simple", "a", "n"],
        &["--backup=none", "a", "n"],
        &["-S", ".x", "a", "b"],
        &["-l", "a", "new"],
        &["-l", "a", "b"],
        &["-l", "-f", "a", "b"],
        &["-l", "-b", "a", "b"],
        &["-l", "a", "hard-a"],
        &["-l", "-f", "a", "to-b"],
        &["-l", "-r", "d", "new"],
        &["-l", "-n", "a", "b"],
        &["-l", "-r", "-f", "d", "m"],
        &["-s", "a", "new"],
        &["-s", "a", "b"],
        &["-s", "-f", "a", "b"],
        &["-s", "-b", "a", "b"],
        &["-s", "a", "e/new"],
        &["-s", "-f", "a", "to-a"],
        &["-s", "-r", "d", "new"],
        &["-l", "-s", "a", "new"],
        &["-n", "-b", "a", "b"],
        &["--remove-destination", "a", "b"],
        &["--remove-destination", "a", "to-b"],
        &["--remove-destination", "a", "hard-a"],
        &["--remove-destination", "to-a", "a"],
        &["--remove-destination", "-r", "d", "m"],
        &["--parents", "d/sub/y", "e"],
        &["--parents", "-r", "d/sub", "e"],
        &["--parents", "a", "new"],
        &["--parents", "-b", "d/sub/y", "m"],
        &["--attributes-only", "a", "new"],
        &["-P", "-b", "to-a", "to-b"],
        &["-P", "-n", "to-a", "b"],
    ];
    for words in cases {
        let (ours, theirs) = (Scratch::new(), Scratch::new());
        fill(&ours);
        fill(&theirs);
        let mut cp = Command::new("cp");
        cp.args(["--preserve=mode,timestamps", "--reflink=never"]);
        let cp = run(cp.args(*words).current_dir(theirs.path("")));
        let ucp = ours.ucp(*words);
        // Wrong usage has a status of its own here.
        let is_usage = cp.stderr().contains("--help") && ucp.code() == Some(2);
        assert!(is_usage || ucp.code() == cp.code(), "{words:?}: {ucp:?} {cp:?}");
        assert_eq!(content(&ours), content(&theirs), "{words:?}: {ucp:?} {cp:?}");
        assert_eq!(leftovers(&ours.path("")), Vec::<PathBuf>::new(), "{words:?}");
    }
}

#[test]
fn attributes_only_changes_the_file_that_is_there_and_keeps_its_bytes() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    fill(&scratch);
    scratch.set_mode("old", 0o600);
    let inode = |name: &str| scratch.path(name).symlink_metadata().unwrap().ino();
    let before = inode("b");
    scratch.ucp(["--attributes-only", "old", "b"]).succeeds_silently();
    assert_eq!((inode("b"), scratch.read("b").as_slice()), (before, &b"file b, longer"[..]));
    scratch.ucp(["--attributes-only", "-r", "d", "m"]).succeeds_silently();
    assert_eq!(scratch.read("m/d/x"), b"old x of m");
}

#[test]
fn what_is_asked_is_what_cp_asks() {
    let cases: [(&[&str], &str); 9] = [
        (&["-i", "a", "b"], "y\n"),
        (&["-i", "a", "b"], "n\n"),
        (&["-i", "a", "b"], ""),
        (&["-i", "a", "b"], "Yes, please\n"),
        (&["-i", "a", "new"], ""),
        (&["-i", "-u", "old", "newer"], ""),
        (&["-i", "-b", "a", "b"], "y\n"),
        (&["-n", "-i", "a", "b"], "n\n"),
        (&["-i", "a", "b", "d/x", "m/d"], "n\ny\ny\n"),
    ];
    for (words, answers) in cases {
        let (ours, theirs) = (Scratch::new(), Scratch::new());
        fill(&ours);
        fill(&theirs);
        let (status, asked) = answering("cp", words, answers, &theirs);
        let got = answering(UCP, words, answers, &ours);
        assert_eq!(got, (status, asked.replace("cp: ", "ucp: ")), "{words:?} {answers:?}");
        assert_eq!(content(&ours), content(&theirs), "{words:?} {answers:?}");
    }
    // In a tree the order is the directory's.
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    fill(&ours);
    fill(&theirs);
    let (status, asked) = answering("cp", &["-ir", "d", "m"], "y\ny\n", &theirs);
    let got = answering(UCP, &["-ir", "d", "m"], "y\ny\n", &ours);
    let sorted = |asked: &str| {
        let mut asked: Vec<_> = asked.split("? ").map(str::to_owned).collect();
        asked.sort_unstable();
        asked
    };
    assert_eq!((got.0, sorted(&got.1)), (status, sorted(&asked.replace("cp: ", "ucp: "))));
    assert_eq!(content(&ours), content(&theirs));
}

#[test]
fn what_can_not_be_written_is_asked_about_in_other_words() {
    require_root!();
    let scratch = Scratch::public();
    scratch.make_directory("d");
    scratch.set_mode("d", 0o777);
    scratch.write("d/a", "a");
    scratch.write("d/b", "b");
    scratch.set_mode("d/b", 0o444);
    let asked = |flag: &str| {
        let words = ["--reuid=65534", "--regid=65534", "--clear-groups", "./ucp", flag];
        let words = [&words[..], &["-i", "d/a", "d/b"]].concat();
        answering("setpriv", &words, "n\n", &scratch).1
    };
    assert_eq!(asked("-q"), "ucp: unwritable 'd/b' (mode 0444, r--r--r--); try anyway? ");
    assert_eq!(asked("-f"), "ucp: replace 'd/b', overriding mode 0444 (r--r--r--)? ");
    assert_eq!(scratch.read("d/b"), b"b");
}

#[test]
fn newer_options_do_what_the_manual_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/cp/newer-options.tsv");
    let table = fs::read_to_string(path).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(rows.len() >= 10);
    for row in rows {
        let [option, manual, words, status, wants] =
            row.split('\t').collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{row}"));
        assert!(manual.starts_with("11.1") && words.contains(option), "{row}");
        for program in ["ucp", "cp"] {
            let scratch = Scratch::new();
            fill(&scratch);
            scratch.make_directory("tree/d");
            scratch.write("tree/d/file", "of the tree");
            scratch.make_directory("into/real");
            scratch.make_directory("into/tree");
            scratch.link("../real", "into/tree/d");
            scratch.link(UCP, program);
            let mut command = Command::new(scratch.path(program));
            let ran = run(command.args(words.split(' ')).current_dir(scratch.path("")));
            assert_eq!(ran.code().unwrap().to_string(), status, "{row}: {ran:?}");
            let (name, content) = wants.split_once('=').unwrap();
            assert_eq!(scratch.read(name), content.as_bytes(), "{row}: {ran:?}");
            if option == "--debug" {
                let lines = "'newer' -> 'old'\ncopy offload: ";
                assert!(ran.stdout().starts_with(lines), "{ran:?}");
            }
            if status == "1" {
                assert_eq!(ran.stderr().lines().count(), 1, "{ran:?}");
            }
        }
    }
}

#[test]
fn what_another_source_of_this_run_has_brought_is_not_overwritten() {
    for stage in ["--stage=auto", "--stage=never"] {
        let scratch = Scratch::new();
        for (name, content) in [("1/d/x", "first"), ("2/d/x", "second"), ("2/d/sub/y", "y")] {
            scratch.make_directory(Path::new(name).parent().unwrap());
            scratch.write(name, content);
        }
        scratch.make_directory("1/d/sub");
        scratch.link("first", "1/d/sub/link");
        scratch.link("second", "2/d/sub/link");
        scratch.make_directory("t");
        let ran = scratch.ucp([stage, "1/d", "2/d", "t"]);
        ran.exits(1).says(&["just-created", "t/d/x"]).says(&["just-created", "t/d/sub/link"]);
        ran.says_lines(2);
        assert_eq!(scratch.read("t/d/x"), b"first", "{stage}");
        assert_eq!(scratch.read("t/d/sub/y"), b"y", "{stage}: directories are merged");
        assert_eq!(fs::read_link(scratch.path("t/d/sub/link")).unwrap(), Path::new("first"));
        // Where all of them are kept, none is lost.
        let ran = scratch.ucp([stage, "--backup=t", "1/d", "2/d", "t"]);
        ran.exits(0);
        assert_eq!(scratch.read("t/d/x"), b"second", "{stage}");
        assert_eq!(scratch.read("t/d/x.~2~"), b"first", "{stage}");
    }
}

#[test]
fn a_source_that_is_named_twice_is_copied_once_and_that_is_said() {
    let scratch = Scratch::new();
    fill(&scratch);
    let ran = scratch.ucp(["a", "./a", "d", "d", "e"]);
    ran.exits(0).says(&["source file './a' specified more than once"]);
    ran.says(&["source directory 'd' specified more than once"]).says_lines(2);
}

#[test]
fn other_file_systems_stay_out() {
    require_root!();
    let scratch = Scratch::new();
    scratch.make_directory("tree/mounted");
    scratch.write("tree/mounted/under", "hidden");
    scratch.write("tree/x", "x");
    in_mount_namespace(|| {
        let mut mount = Command::new("mount");
        run(mount.args(["-t", "tmpfs", "tmpfs"]).arg(scratch.path("tree/mounted"))).exits(0);
        scratch.write("tree/mounted/other", "other");
        scratch.ucp(["-x", "tree", "one"]).succeeds_silently();
        scratch.ucp(["tree", "all"]).succeeds_silently();
    });
    assert!(scratch.exists("one/x") && scratch.exists("one/mounted"));
    assert!(!scratch.exists("one/mounted/other"));
    assert!(scratch.exists("all/mounted/other"));
}

#[test]
fn never_overwriting_holds_against_whoever_is_faster() {
    const FILES: usize = 400;
    for (round, options) in [["-n", "-q"], ["-n", "--stage=never"], ["--update=none", "-q"]]
        .into_iter()
        .cycle()
        .take(12)
        .enumerate()
    {
        let scratch = Scratch::new();
        scratch.make_directory("tree");
        (0..FILES).for_each(|number| scratch.write(format!("tree/{number}"), "copied"));
        let is_over = AtomicBool::new(false);
        let made = thread::scope(|scope| {
            let racer = scope.spawn(|| {
                let mut made = Vec::new();
                // From the other end and from the middle, so that both meet somewhere.
                for number in (0..FILES).rev().chain(0..FILES) {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    fs::create_dir_all(scratch.path("target")).unwrap();
                    let path = scratch.path(format!("target/{number}"));
                    if let Ok(mut file) = File::create_new(path) {
                        file.write_all(b"made").unwrap();
                        made.push(number);
                    }
                }
                made
            });
            scratch.ucp(options.into_iter().chain(["-T", "tree", "target"])).exits(0);
            is_over.store(true, Ordering::Relaxed);
            racer.join().unwrap()
        });
        for number in 0..FILES {
            let want: &[u8] = if made.contains(&number) { b"made" } else { b"copied" };
            assert_eq!(scratch.read(format!("target/{number}")), want, "{round}: {number}");
        }
        assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new(), "round {round}");
    }
}

#[test]
fn a_copy_with_backups_that_is_killed_leaves_no_name_without_a_file() {
    const FILES: usize = 200;
    let scratch = Scratch::new();
    scratch.make_directory("new");
    (0..FILES).for_each(|number| scratch.write(format!("new/{number}"), "the new content"));
    let mut cut_short = 0;
    for round in 0..30_u8 {
        let _ = fs::remove_dir_all(scratch.path("old"));
        scratch.make_directory("old");
        (0..FILES).for_each(|number| scratch.write(format!("old/{number}"), "old"));
        let control =
            ["--backup=simple", "--backup=t", "--backup=existing"][usize::from(round) % 3];
        let mut command = Command::new(UCP);
        command.args([control, "-T", "new", "old"]).current_dir(scratch.path(""));
        let copy = Background::start(&mut command);
        thread::sleep(Duration::from_millis(2 + u64::from(round) * 2));
        drop(copy);
        let suffix = if control == "--backup=t" { ".~1~" } else { "~" };
        for number in 0..FILES {
            let name = format!("old/{number}");
            match scratch.read(&name).as_slice() {
                b"old" => cut_short += 1,
                b"the new content" => {
                    let kept = scratch.read(format!("{name}{suffix}"));
                    assert_eq!(kept, b"old", "round {round}: {name}");
                }
                other => panic!("round {round}: {name} is {:?}", other.escape_ascii().to_string()),
            }
        }
    }
    assert!(cut_short > 0, "no copy was cut short");
}

#[test]
fn a_full_disk_leaves_the_old_file_under_its_name() {
    require_root!();
    on_file_system("tmpfs", 1 << 20, |scratch| {
        scratch.write("b", "old");
        let outside = Scratch::new();
        outside.write("big", vec![1; 2 << 20]);
        let big = outside.path("big");
        for control in ["--backup=simple", "--backup=t", "--remove-destination"] {
            scratch.ucp([control, big.to_str().unwrap(), "b"]).exits(8);
            assert_eq!(scratch.read("b"), b"old", "{control}");
            assert!(!scratch.exists("b~") && !scratch.exists("b.~1~"), "{control}");
        }
        assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
    });
}
