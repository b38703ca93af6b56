//! Called as `cp`, the program does what GNU cp does, and says it in GNU's words: both run the same
//! command line on the same files, and standard output, standard error, status and files are the
//! same, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{Entry, Ran, Scratch, UCP, listing, run};

/// The command lines; each is run by a shell, in a directory of its own. What is compared with is
/// the cp that is installed, so none has an option that it has not.
const SAME: &str = include_str!("../../fixtures/cp/same.txt");

/// The same, but for the order of lines: a tree is not copied in the order of its names.
const SAME_LINES: &[&str] = &[
    "cp -rs d new",
    "cp -r d clash",
    "cp -r --backup=t d m",
    "cp -rv d new",
    "cp -rv d m",
    "cp --remove-destination -rv d m",
    "cp -rl d m",
];

#[test]
fn called_as_cp_it_is_cp() {
    let programs = Programs::new();
    let cases = SAME.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut differing = Vec::new();
    for line in cases {
        let (theirs, ours) = (programs.run(line, "theirs"), programs.run(line, "ours"));
        if theirs != ours {
            differing.push(format!("{line}\n  cp:  {theirs:?}\n  ucp: {ours:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn called_as_cp_it_prints_the_lines_of_cp() {
    let programs = Programs::new();
    for line in SAME_LINES {
        let (theirs, ours) = (programs.run(line, "theirs"), programs.run(line, "ours"));
        let sorted = |mut outcome: Outcome| {
            for text in [&mut outcome.stdout, &mut outcome.stderr] {
                let mut lines: Vec<&str> = text.lines().collect();
                lines.sort_unstable();
                *text = lines.join("\n");
            }
            outcome
        };
        assert_eq!(sorted(ours), sorted(theirs), "{line}");
    }
}

/// Where cp loses or spills something, this program does not follow it.
#[test]
fn what_is_dangerous_is_not_copied_from_cp() {
    let programs = Programs::new();
    let cases: [(&str, &str); 4] = [
        // cp copies what it finds before it comes to the copy.
        ("cp -r d d/new", "cp: cannot copy a directory, 'd', into itself, 'd/new'\n"),
        ("cp -r d d", "cp: cannot copy a directory, 'd', into itself, 'd/d'\n"),
        // cp writes through links below the target directory.
        (
            "ln -s ../../b m/trap; mkdir t; ln -s ../b t/x; cp -rT d t",
            "cp: cannot create regular file 't/x': not writing through a symbolic link\n",
        ),
        // cp leaves the target directory.
        (
            "cd e; cp --parents ../d/x .",
            "cp: copy failed on '../d/x': \
             with --parents it would be copied outside of the target directory\n",
        ),
    ];
    for (line, said) in cases {
        let outcome = programs.run(line, "ours");
        assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(1), said), "{line}");
        let (name, before) = (PathBuf::from("b"), "file b, longer");
        assert_eq!(outcome.content(&name), Some(before), "{line}");
    }
}

#[test]
fn its_own_name_brings_back_its_own_words_and_status() {
    let scratch = Scratch::new();
    fill(&scratch);
    scratch.ucp(["nosuch", "new"]).exits(1).says(&["status failed on nosuch"]);
    scratch.ucp::<&str>([]).exits(2).says(&["missing file operand"]);
    scratch.ucp(["d", "new"]).exits(0);
}

/// What came of a command line.
#[derive(Debug, Eq, PartialEq)]
struct Outcome {
    status: Option<i32>,
    stdout: String,
    stderr: String,
    entries: BTreeMap<PathBuf, Entry>,
    contents: BTreeMap<PathBuf, Vec<u8>>,
}

impl Outcome {
    fn content(&self, name: &Path) -> Option<&str> {
        str::from_utf8(self.contents.get(name)?).ok()
    }
}

/// Both programs, each as `cp` in a directory of its own.
struct Programs {
    scratch: Scratch,
}

impl Programs {
    fn new() -> Self {
        let scratch = Scratch::new();
        for (directory, program) in [("ours", Path::new(UCP)), ("theirs", &installed())] {
            scratch.make_directory(directory);
            scratch.link(program, format!("{directory}/cp"));
        }
        Self { scratch }
    }

    fn run(&self, line: &str, whose: &str) -> Outcome {
        // Under the same path for both, so that messages and links are the same.
        let _ = fs::remove_dir_all(self.scratch.path("work"));
        self.scratch.make_directory("work");
        let work = Scratch::at(self.scratch.path("work"));
        fill(&work);
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", self.scratch.path(whose).display());
        let mut command = Command::new("bash");
        command.args(["-c", line]).current_dir(work.path(""));
        command.env("LC_ALL", "C").env("PATH", path);
        for name in ["POSIXLY_CORRECT", "VERSION_CONTROL", "SIMPLE_BACKUP_SUFFIX"] {
            command.env_remove(name);
        }
        let ran: Ran = run(&mut command);
        let entries = listing(&work.path("")).into_iter();
        let entries: BTreeMap<_, _> =
            entries.map(|(name, entry)| (name, entry.without_times())).collect();
        let read = |name: &PathBuf| Some((name.clone(), fs::read(work.path(name)).ok()?));
        let contents = entries.keys().filter_map(read).collect();
        let (stdout, stderr) = (ran.stdout().to_owned(), ran.stderr().to_owned());
        Outcome { status: ran.code(), stdout, stderr, entries, contents }
    }
}

fn installed() -> PathBuf {
    let found = run(Command::new("bash").args(["-c", "type -P cp"]));
    PathBuf::from(found.exits(0).stdout().trim())
}

/// The files that every command line starts with.
fn fill(scratch: &Scratch) {
    for directory in ["d/sub", "o/d", "e", "m/d", "clash/d/x", "nothing", "q/real"] {
        scratch.make_directory(directory);
    }
    for (name, content) in [
        ("a", "file a"),
        ("b", "file b, longer"),
        ("o/a", "another a"),
        ("o/d/z", "z"),
        ("d/x", "x"),
        ("d/sub/y", "y"),
        ("m/d/x", "old x of m"),
        ("m/d/old", "only in m"),
        ("clash/d/sub", "a file where a directory comes"),
        ("ro", "read only"),
        ("a~", "the backup of a"),
        ("n", "n"),
        ("n.~1~", "n1"),
        ("n.~7~", "n7"),
        ("old", "old"),
        ("newer", "newer"),
    ] {
        scratch.write(name, content);
    }
    scratch.set_mode("ro", 0o444);
    for (content, name) in [
        ("a", "to-a"),
        ("b", "to-b"),
        ("d", "to-d"),
        ("e", "to-e"),
        ("nowhere", "dangling"),
        ("../a", "e/b"),
        ("real", "q/d"),
    ] {
        scratch.link(content, name);
    }
    fs::hard_link(scratch.path("a"), scratch.path("hard-a")).unwrap();
    for (name, seconds) in [
        ("old", 1),
        ("newer", 4_000_000_000),
        ("a", 1_000_000_000),
        ("b", 1_000_000_001),
        ("o/a", 1_000_000_005),
    ] {
        let time = seconds * 1_000_000_000;
        super::support::set_times(&scratch.path(name), time, time);
    }
}
