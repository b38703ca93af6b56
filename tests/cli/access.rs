//! What a copy asks the kernel for, held against `docs/access.md`: every call on a file of real
//! copies on the threads engine, as strace tells of it, must be allowed by a row of its table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use super::support::{Background, LoopDevice, Scratch, UCP, bytes, make_sparse, run, until};

pub(super) const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/access.md");

/// Option sets, each with where it copies to.
const RUNS: [(&[&str], Onto); 39] = [
    (&[], Onto::Nothing),
    (&[], Onto::Old),
    (&["-a"], Onto::Nothing),
    (&["-a"], Onto::Old),
    (&["-a", "--stage=never"], Onto::Nothing),
    (&["--stage=never"], Onto::Nothing),
    (&["--durable"], Onto::Nothing),
    (&["-a", "--durable"], Onto::Old),
    (&["--durable", "--stage=never"], Onto::Nothing),
    (&["--in-place"], Onto::Old),
    (&["-a", "--in-place"], Onto::Old),
    (&["-L"], Onto::Nothing),
    (&["-L"], Onto::Old),
    (&["-aL", "--stage=never"], Onto::Nothing),
    (&["-a", "--delete"], Onto::Extra),
    (&["--verify"], Onto::Nothing),
    (&["--verify", "--check-existing=hash"], Onto::Old),
    (&["--manifest=list", "--direct=on"], Onto::Nothing),
    (&["-p", "--sparse=always", "--reflink=never"], Onto::Old),
    (&["--preserve=all", "--durable=data", "--direct=on"], Onto::Nothing),
    (&["--cache=bypass", "--reflink=never"], Onto::Nothing),
    (&["--dry-run"], Onto::Old),
    (&["-a", "--sandbox", "--json"], Onto::Old),
    (&["-l"], Onto::Nothing),
    (&["-al"], Onto::Old),
    (&["-b"], Onto::Old),
    (&["-a", "--backup=numbered"], Onto::Old),
    (&["-n"], Onto::Old),
    (&["-i"], Onto::Old),
    (&["-u"], Onto::Old),
    (&["-f"], Onto::Old),
    (&["-x"], Onto::Nothing),
    (&["--remove-destination"], Onto::Old),
    (&["--attributes-only"], Onto::Nothing),
    (&["-a", "--attributes-only"], Onto::Old),
    (&["--keep-directory-symlink"], Onto::Linked),
    (&["--files-from=names"], Onto::Old),
    (&["-a", "--files-from=names", "--stage=never"], Onto::Nothing),
    (&["-s", "--stage=never"], Onto::Nothing),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Onto {
    Nothing,
    /// A tree in which other kinds of file stand under some of the names.
    Old,
    /// The same, but for what a copy refuses to replace.
    Extra,
    /// The same, and a link leads to one of its directories.
    Linked,
}

#[test]
fn every_call_of_a_copy_is_one_that_the_page_allows() {
    require_root!();
    let page = fs::read_to_string(PAGE).unwrap();
    let mut copies = Copies::of(&page);
    make_source(&copies.place);
    copies.place.write("names", "one\nd/e/\nd/link\nmissing\n");
    for (options, onto) in RUNS {
        copies.prepare(onto);
        copies.check(options, &["source", "target"]);
    }
    copies.deep_trees();
    copies.single_files();
    copies.other_operands();
    copies.sources_that_go();
    copies.images();
    copies.interrupted();
    let Copies { rows, used, refused, .. } = copies;
    assert!(refused.is_empty(), "no row of docs/access.md allows: {refused:#?}");
    let unused: Vec<_> = (0..rows.len())
        .filter(|row| !used.contains(row) && !rows[*row].is_rare)
        .map(|row| &rows[row])
        .collect();
    assert!(unused.is_empty(), "no copy made use of these rows: {unused:#?}");
}

/// Copies under strace, and what came of holding their calls against the rows.
struct Copies<'a> {
    place: Scratch,
    rows: Vec<Row<'a>>,
    used: BTreeSet<usize>,
    /// Calls that no row allows, by what they are.
    refused: BTreeMap<String, Vec<String>>,
}

impl<'a> Copies<'a> {
    fn of(page: &'a str) -> Self {
        let (used, refused) = (BTreeSet::new(), BTreeMap::new());
        Self { place: Scratch::new(), rows: rows(page), used, refused }
    }

    /// Makes what stands at the target.
    fn prepare(&self, onto: Onto) {
        let place = &self.place;
        let _ = fs::remove_dir_all(place.path("target"));
        if onto != Onto::Nothing {
            make_old(place);
        }
        if onto == Onto::Extra {
            fs::remove_file(place.path("target/source/nothing")).unwrap();
        }
        if onto == Onto::Linked {
            fs::rename(place.path("target/source/d"), place.path("target/linked")).unwrap();
            place.link("../linked", "target/source/d");
        }
    }

    fn deep_trees(&mut self) {
        self.place.make_directory(format!("deep/{}", "d/".repeat(40)));
        self.check(&["-a"], &["deep", "deep copy"]);
        // In the target only: all of it goes. And on both sides: all of it is looked through.
        self.place.make_directory("shallow");
        self.place.make_directory(format!("deep copy/shallow/{}", "e/".repeat(40)));
        self.place.make_directory(format!("deep copy/deep/{}", "d/".repeat(40)));
        self.check(&["-a", "--delete"], &["deep", "shallow", "deep copy"]);
    }

    fn single_files(&mut self) {
        self.place.link("big", "source/operand link");
        self.check(&[], &["source/big", "new file"]);
        self.check(&["--in-place"], &["source/big", "new file"]);
        self.check(&[], &["source/operand link", "./target"]);
        self.check(&["-s"], &["source/big", "./link"]);
        self.check(&["-sb"], &["source/one", "./link"]);
        self.check(&["-lf"], &["source/one", "./link"]);
    }

    fn other_operands(&mut self) {
        self.prepare(Onto::Old);
        self.check(&["--parents"], &["source/d/list", "source/d/e/owned", "target"]);
        self.check(&["-a", "--parents"], &["source/d", "target"]);
        self.place.make_directory("specials");
        let node = self.place.path("specials/device");
        mknod(&node, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).unwrap();
        self.check(&["-R", "--copy-contents"], &["specials", "contents"]);
        self.place.make_directory("other");
        self.check(&["-a", "-tother"], &["source", "-ttarget"]);
    }

    fn sources_that_go(&mut self) {
        for options in [&["--remove-source-files"][..], &["-a", "--remove-source-files"]] {
            let source = [self.place.path("source"), self.place.path("moved")];
            let _ = fs::remove_dir_all(&source[1]);
            run(Command::new("cp").arg("-a").args(source)).exits(0);
            self.prepare(Onto::Nothing);
            self.check(options, &["moved", "target"]);
        }
    }

    fn images(&mut self) {
        make_sparse(&self.place.path("behind"), 24 << 20, &[(0, 1 << 20)]);
        let device = LoopDevice::over(&self.place.path("behind"));
        self.check(&[], &[device.name(), "image"]);
        make_sparse(&self.place.path("holes"), 20 << 20, &[(1 << 20, 1 << 20)]);
        self.check(&[], &["holes", device.name()]);
        self.check(&["--direct=on", "--durable"], &["holes", device.name()]);
    }

    /// What an interrupted copy has left is gone on with.
    fn interrupted(&mut self) {
        let huge = fs::File::create(self.place.path("huge")).unwrap();
        huge.set_len(160 << 20).unwrap();
        self.interrupt(&["--sparse=never", "--limit-rate=512M"], ["huge", "huge copy"], |left| {
            let is_journal = left.extension().is_some_and(|it| it == "journal");
            is_journal && left.metadata().is_ok_and(|it| it.len() > 104)
        });
        self.check(&["--sparse=never"], &["huge", "huge copy"]);
        self.interrupt(&["-a", "--limit-rate=8M"], ["source", "tree copy"], |left| {
            fs::read_dir(left).is_ok_and(|mut names| names.any(|name| name.is_ok()))
        });
        self.check(&["-a"], &["source", "tree copy"]);
    }

    /// Kills a copy when what it has left is far enough.
    fn interrupt(
        &self,
        options: &[&str],
        operands: [&str; 2],
        is_far_enough: impl Fn(&Path) -> bool,
    ) {
        let place = self.place.path("");
        let mut command = Command::new(UCP);
        command.args(options).args(operands).current_dir(&place);
        let mut copy = Background::start(&mut command);
        let is_far_enough = || {
            let names = fs::read_dir(&place).unwrap().map(|name| name.unwrap().path());
            let is_left = |path: &Path| path.file_name().unwrap().as_bytes().starts_with(b".ucp");
            names.filter(|path| is_left(path)).any(|path| is_far_enough(&path))
        };
        until("it is far enough", || is_far_enough() || copy.has_ended());
        assert!(!copy.has_ended(), "{operands:?}: it ended too early");
        copy.signal(Signal::SIGKILL);
        copy.end();
    }

    /// Copies under strace, and holds each call against the rows.
    fn check(&mut self, options: &[&str], operands: &[&str]) {
        // Not enough for a deep tree: directories above are closed, and opened again.
        let (program, limit): (_, &[&str]) = match operands[0] {
            "deep" => ("prlimit", &["--nofile=64:64", "strace"]),
            _ => ("strace", &[]),
        };
        let place = &self.place;
        let mut command = Command::new(program);
        command.args(limit).args(["-f", "-qq", "-s", "4096", "-o", "log"]);
        command.args(["-e", "trace=%file,%desc"]).env_remove("LD_LIBRARY_PATH");
        command.args([UCP, "--engine=threads"]).args(options);
        // Symbolic links are made to whole paths only, but for those beside them.
        let is_whole = options.contains(&"-s") && operands == ["source", "target"];
        let source = place.path("source").to_str().unwrap().to_owned();
        let operands = if is_whole { &[&*source, "target"] } else { operands };
        let ran = run(command.args(operands).current_dir(place.path("")));
        // What is refused was looked at as well.
        assert!(matches!(ran.code(), Some(0 | 1)), "{ran:?}");
        let log = String::from_utf8_lossy(&place.read("log")).into_owned();
        // What stands for an operand: its own path, as it was given and in full, and the path above
        // it. A list is named as well.
        let bare = operands.iter().map(|operand| operand.trim_start_matches("-t"));
        let named: Vec<&str> = bare.chain(["list", "names", "other"]).collect();
        let full = named.iter().map(|path| place.path(path).to_str().unwrap().to_owned());
        let full: Vec<String> = full.collect();
        let named = named.iter().copied().chain(full.iter().map(String::as_str));
        let mut named: Vec<&str> = named.flat_map(above).collect();
        // Of what is made anew below the target each directory on the way is named.
        if options.contains(&"--parents") {
            let above = operands.iter().flat_map(|path| Path::new(path).ancestors());
            let above = above.filter_map(Path::to_str).filter(|path| !path.is_empty());
            named.extend(above);
        }
        let calls = calls(&log);
        let is_large = operands[0] == "source" && !options.contains(&"-n");
        assert!(calls.len() > 100 || !is_large, "strace saw {} calls only", calls.len());
        for call in calls {
            let asked = Asked::of(&call, &named);
            match self.rows.iter().position(|row| row.allows(&asked, options)) {
                Some(row) => drop(self.used.insert(row)),
                None => {
                    let calls = self.refused.entry(asked.summary()).or_default();
                    calls.push(format!("{options:?}: {call}"));
                }
            }
        }
    }
}

/// A path, and that of the directory that its name is in.
fn above(path: &str) -> [&str; 2] {
    [path, path.rsplit_once('/').map_or(".", |(above, _)| above)]
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Row<'a> {
    calls: Vec<&'a str>,
    pub(super) places: Vec<&'a str>,
    with: Vec<&'a str>,
    without: Vec<&'a str>,
    /// The options that it needs one of; none if it is for every copy.
    options: Vec<&'a str>,
    /// Not every machine has what makes a copy do it.
    pub(super) is_rare: bool,
}

/// The table of the page: the one whose first column is headed `Calls`.
pub(super) fn rows(page: &str) -> Vec<Row<'_>> {
    let lines = page.lines().skip_while(|line| !line.starts_with("| Calls |")).skip(2);
    let rows: Vec<_> = lines.take_while(|line| line.starts_with('|')).map(Row::parse).collect();
    assert!(rows.len() > 20, "the page has {} rows", rows.len());
    rows
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Self {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [calls, places, with, without, when, _why] = cells[..] else {
            panic!("a row of other than six cells: {line}");
        };
        let words = |cell: &'a str| -> Vec<&'a str> {
            cell.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect()
        };
        let places = places.split(" and ").map(|place| place.trim().trim_matches('`')).collect();
        let (calls, with, without, options) =
            (words(calls), words(with), words(without), words(when));
        assert!(!calls.is_empty(), "a row of no calls: {line}");
        Self { calls, places, with, without, options, is_rare: when.contains("rarely") }
    }

    pub(super) fn allows(&self, asked: &Asked, options: &[&str]) -> bool {
        let is_at = |(pattern, place): (&&str, &String)| match pattern.strip_suffix('*') {
            Some(start) => place.starts_with(start),
            None => place == pattern,
        };
        let has = |flag: &&str| asked.flags.contains(*flag);
        self.calls.contains(&asked.call.as_str())
            && self.places.len() == asked.places.len()
            && self.places.iter().zip(&asked.places).all(is_at)
            && self.with.iter().all(has)
            && !self.without.iter().any(has)
            && (self.options.is_empty() || self.options.iter().any(|one| is_among(one, options)))
    }
}

/// Whether an option is among those that were given: by itself, with a value, or with other letters.
fn is_among(option: &str, given: &[&str]) -> bool {
    let letter = option.strip_prefix('-').filter(|letter| letter.len() == 1);
    given.iter().any(|given| {
        let is_it =
            given.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        let has_letter = letter.is_some_and(|letter| {
            given
                .strip_prefix('-')
                .is_some_and(|letters| !letters.starts_with('-') && letters.contains(letter))
        });
        is_it || has_letter
    })
}

/// A call as the table speaks of it.
pub(super) struct Asked {
    call: String,
    pub(super) places: Vec<String>,
    flags: BTreeSet<String>,
}

impl Asked {
    pub(super) fn of(call: &str, operands: &[&str]) -> Self {
        let (name, rest) = call.split_once('(').unwrap();
        // An older strace does not know it (it is from Linux 6.5), and shows numbers.
        let name = if name == "syscall_0x1c3" { "cachestat" } else { name };
        let arguments = arguments(rest);
        let argument = |index: usize| arguments.get(index).map_or("", String::as_str);
        let at = |index| place(argument(index), argument(index + 1), operands);
        let path = |index| place("AT_FDCWD", argument(index), operands);
        let places = match name {
            "openat" | "openat2" | "statx" | "newfstatat" | "mkdirat" | "mknodat" | "unlinkat"
            | "readlinkat" | "fchownat" | "fchmodat" | "fchmodat2" | "utimensat" | "faccessat"
            | "faccessat2" | "futimesat" | "name_to_handle_at" => vec![at(0)],
            "getcwd" => vec!["nothing".into()],
            "symlinkat" => vec![at(1)],
            "renameat" | "renameat2" | "linkat" => vec![at(0), at(2)],
            "rename" | "link" => vec![path(0), path(1)],
            "symlink" => vec![path(1)],
            _ if argument(0).starts_with('"') => vec![path(0)],
            _ if is_number(argument(0)) => vec!["descriptor".into()],
            _ => vec!["nothing".into()],
        };
        let words = arguments.iter().filter(|argument| !argument.starts_with('"'));
        let words = words.flat_map(|words| words.split(|c: char| !c.is_alphanumeric() && c != '_'));
        let flags = words.filter(|word| word.starts_with(char::is_uppercase)).map(String::from);
        Self { call: name.into(), places, flags: flags.collect() }
    }

    fn summary(&self) -> String {
        format!("{} {} {:?}", self.call, self.places.join(" and "), self.flags)
    }
}

/// Whether this is a descriptor, or could be one where a call is not known.
fn is_number(argument: &str) -> bool {
    let digits = argument.strip_prefix("0x").filter(|digits| digits.len() < 5);
    argument.parse::<u32>().is_ok() || digits.is_some()
}

/// What a directory and a name stand for.
fn place(directory: &str, name: &str, operands: &[&str]) -> String {
    let is_current = directory == "AT_FDCWD";
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    match quoted {
        None | Some("") if !is_current => "descriptor",
        Some(path) if is_current && path.starts_with("/proc/self/fd/") => "magic",
        Some(path) if is_current && operands.contains(&path) => "operand",
        Some(path)
            if is_current
                && operands.iter().any(|operand| {
                    path.strip_prefix(operand).is_some_and(|rest| rest.starts_with('/'))
                }) =>
        {
            "whole path"
        }
        Some(path) if is_current => path,
        Some("..") => "above",
        Some(".") => "here",
        Some(name) if !name.contains('/') => "below",
        Some(name) if name.starts_with('/') => name,
        Some(_) => "further below",
        None => "nothing",
    }
    .into()
}

/// The arguments of a call, split at commas that stand in no string, list or structure.
fn arguments(rest: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let (mut depth, mut is_quoted, mut is_escaped) = (0, false, false);
    for character in rest.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(character);
    }
    arguments.iter().map(|argument| argument.trim().into()).collect()
}

/// The calls of a log, each in one piece: what another thread interrupted is put together.
fn calls(log: &str) -> Vec<String> {
    let mut begun = BTreeMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((thread, said)) = line.split_once(' ') else { continue };
        let said = said.trim_start();
        if let Some(start) = said.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, start.to_owned());
        } else if let Some(rest) = said.strip_prefix("<... ") {
            let (_, rest) = rest.split_once(" resumed>").unwrap();
            let start: String = begun.remove(thread).expect("what is resumed was begun");
            calls.push(start + rest);
        } else if said.starts_with(|c: char| c.is_ascii_lowercase()) && !said.starts_with("execve(")
        {
            calls.push(said.to_owned());
        }
    }
    // What never came back was asked for as well.
    calls.extend(begun.into_values());
    calls
}

/// A tree with every kind of file.
fn make_source(place: &Scratch) {
    place.make_directory("source/d/e");
    place.make_directory("source/empty");
    place.write("source/one", "one");
    place.write("source/d/list", "list");
    place.write("source/d/e/owned", "owned");
    place.write("source/nothing", "");
    place.write("source/big", bytes((16 << 20) + 77, 1));
    make_sparse(&place.path("source/sparse"), 3 << 20, &[(1 << 20, 65_536)]);
    fs::hard_link(place.path("source/one"), place.path("source/d/e/two")).unwrap();
    place.link("one", "source/link");
    place.link("list", "source/d/link");
    make_special(place, "source");
    let set = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        run(command.args(words).current_dir(place.path(""))).exits(0);
    };
    set("setfattr", &["-n", "user.ucp", "-v", "kept", "source/one", "source/d"]);
    set("setfacl", &["-m", "u:1:rw", "source/d/list"]);
    set("setfacl", &["-d", "-m", "u:1:rwx", "source/empty"]);
    chown(place.path("source/d/e/owned"), Some(7), Some(8)).unwrap();
    std::os::unix::fs::lchown(place.path("source/link"), Some(7), Some(8)).unwrap();
    place.set_mode("source/d/e/owned", 0o6755);
}

fn make_special(place: &Scratch, root: &str) {
    let path = |name: &str| place.path(format!("{root}/{name}"));
    let mode = Mode::from_bits_truncate(0o640);
    mkfifo(&path("fifo"), mode).unwrap();
    mknod(&path("device"), SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
    drop(UnixListener::bind(path("socket")).unwrap());
}

/// What stands at the target: under some names the same kind of file, under others another.
fn make_old(place: &Scratch) {
    place.make_directory("target/source/d/e");
    place.make_directory("target/source/extra/deep");
    place.write("target/source/extra/deep/file", "to be deleted");
    place.write("target/source/one", "old");
    place.write("target/source/big", "old");
    place.write("target/source/link", "not a link");
    place.write("target/source/d/empty", "");
    place.link("d/empty", "target/source/nothing");
    place.write("target/source/d/list", "old");
    place.link("elsewhere", "target/source/d/link");
    place.link("../d", "target/source/fifo");
    place.write("target/source/d/e/two", "old");
    fs::hard_link(place.path("target/source/d/e/two"), place.path("target/source/d/e/three"))
        .unwrap();
}
