//! Each call that takes a name, with the name exchanged right before it: for a link that leads
//! outside, as is once more each directory that the name is in. Nothing outside is read or changed.
//!
//! `swaps` does the same at random moments. Here the threads of the copy are stopped at each of
//! their system calls, so that every row of `docs/access.md` that takes a name is raced, and for
//! certain in the moment that matters. What a ring is given is the same (`same_operations`).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::access::{Asked, PAGE, Row, rows};
use super::support::{Call, Scratch, Then, leftovers, step};
use super::swaps::Arena;

/// Options, what is copied, and whether there is an older copy to begin with.
type Run = (&'static [&'static str], &'static str, bool);

const RUNS: [Run; 16] = [
    (&[], "source", false),
    (&[], "source", true),
    (&["-a"], "source", false),
    (&["-a"], "source", true),
    (&["-a", "--stage=never"], "source", false),
    (&["--durable"], "source", true),
    (&["-a", "--in-place"], "source", true),
    (&["-a", "-b"], "source", true),
    (&["-aL"], "source", true),
    (&["-a", "--delete"], "source", true),
    (&["--verify", "--check-existing=hash"], "source", true),
    (&["-a", "--sandbox"], "source", true),
    (&["-al"], "source", true),
    (&["-l"], "source/leaf", false),
    (&["-a", "--remove-destination"], "source", true),
    (&["-a", "--attributes-only"], "source", true),
];

/// What is exchanged: the name, or the directory that it is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Exchanged {
    Name,
    Above,
}

/// One of the names that a call takes.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Race {
    row: usize,
    /// Which of its names.
    index: usize,
    /// The name, where what is random in temporary names is left out.
    path: PathBuf,
}

#[test]
fn a_name_exchanged_right_before_any_call_leads_nowhere() {
    require_root!();
    let page = fs::read_to_string(PAGE).unwrap();
    let rows = rows(&page);
    let mut raced = BTreeSet::new();
    let mut raced_rows = BTreeSet::new();
    for run in RUNS {
        let mut races = BTreeSet::new();
        let arena = arena(run);
        copy(&arena, run, &mut |call| {
            races.extend(races_of(&arena, call, run, &rows));
            Then::GoOn
        });
        for race in races {
            if !raced.insert(race.clone()) {
                continue;
            }
            for exchanged in [Exchanged::Name, Exchanged::Above] {
                if attack(run, &race, exchanged, &rows) {
                    raced_rows.insert(race.row);
                }
            }
        }
    }
    let takes_names = |row: &Row<'_>| {
        row.places.iter().any(|place| matches!(*place, "below" | "operand" | "further below"))
    };
    let missed: Vec<_> = (0..rows.len())
        .filter(|row| takes_names(&rows[*row]) && !rows[*row].is_rare && !raced_rows.contains(row))
        .map(|row| &rows[row])
        .collect();
    assert!(missed.is_empty(), "these rows were not raced: {missed:#?}");
    println!("{} names of {} rows", raced.len(), raced_rows.len());
}

/// `-i`: what takes the target's place after the answer was not asked about.
#[test]
fn what_takes_the_place_of_an_answered_target_stays() {
    require_root!();
    let mut refused = 0;
    for number in 0.. {
        let place = Scratch::new();
        for (name, content) in [("source", "new"), ("target", "old"), ("other", "other")] {
            place.write(name, content);
        }
        place.write("answer", "y\n");
        let answer = File::open(place.path("answer")).unwrap();
        let (mut is_answered, mut seen, mut exchanged_at) = (false, 0, None);
        let words = ["-i", "source", "target"];
        let ended = step(&words, &place.path(""), answer.into(), &mut |call| {
            if is_answered && seen == number && exchanged_at.is_none() {
                fs::rename(place.path("other"), place.path("target")).unwrap();
                exchanged_at = Some((call.name, call.text()));
            }
            seen += u32::from(is_answered);
            is_answered |= call.name == "read" && call.descriptor() == 0;
            Then::GoOn
        });
        let Some((name, call)) = exchanged_at else {
            assert!(is_answered && refused >= 3, "{refused} refused: {ended:?}");
            break;
        };
        assert_eq!(leftovers(&place.path("")), Vec::<PathBuf>::new(), "{call}");
        // Between the last look and the rename nobody can look.
        if name.starts_with("rename") {
            continue;
        }
        assert_eq!(place.read("target"), b"other", "{call}: {ended:?}");
        if ended.code == Some(1) {
            assert!(ended.stderr.contains("exchanged meanwhile"), "{call}: {ended:?}");
            refused += 1;
        }
    }
}

fn arena((_, _, has_old): Run) -> Arena {
    let arena = Arena::new();
    arena.prepare(has_old);
    let path = |name: &str| arena.place.path(name);
    fs::hard_link(path("source/leaf"), path("source/dir/deep/two")).unwrap();
    mkfifo(&path("source/dir/fifo"), Mode::from_bits_truncate(0o640)).unwrap();
    arena
}

fn copy(arena: &Arena, (options, source, _): Run, on_call: &mut dyn FnMut(&Call) -> Then) {
    let words = [options, &[source, "target"]].concat();
    let ended = step(&words, &arena.place.path(""), Stdio::null(), on_call);
    // Files that were exchanged fail, or were changed meanwhile; nothing else happens.
    let is_orderly = matches!(ended.code, Some(0 | 1 | 2 | 6 | 8 | 9));
    assert!(is_orderly && !ended.stderr.contains("panicked"), "{options:?}: {ended:?}");
}

/// The names of a call that are in the arena, and the row that allows it.
fn races_of(arena: &Arena, call: &Call, (options, source, _): Run, rows: &[Row<'_>]) -> Vec<Race> {
    let root = arena.place.path("");
    let full = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let full = [full("source"), full("target"), root.to_str().unwrap().into()];
    let named =
        [source, "source", "target", "."].into_iter().chain(full.iter().map(String::as_str));
    let asked = Asked::of(&call.text(), &named.collect::<Vec<_>>());
    let Some(row) = rows.iter().position(|row| row.allows(&asked, options)) else {
        return Vec::new();
    };
    let names = asked.places.iter().zip(call.names()).enumerate();
    let takes = |place: &str| matches!(place, "below" | "operand" | "further below");
    let taken = names.filter(|(_, (place, _))| takes(place));
    let races = taken.map(|(index, (_, (directory, name)))| {
        let path = directory.join(name);
        let inside = path.strip_prefix(&root).unwrap_or(&path);
        let parts = inside.iter().map(without_random);
        Race { row, index, path: parts.collect() }
    });
    races.collect()
}

fn without_random(name: &OsStr) -> &OsStr {
    let is_temporary = name.as_encoded_bytes().starts_with(b".ucp");
    if is_temporary { OsStr::new(".ucp") } else { name }
}

/// Copies, with a link in the place of a name or of its directory right before the call. Returns
/// whether it came to that.
fn attack(run: Run, race: &Race, exchanged: Exchanged, rows: &[Row<'_>]) -> bool {
    let arena = arena(run);
    let root = arena.place.path("");
    let mut done = None;
    copy(&arena, run, &mut |call| {
        if done.is_none() && races_of(&arena, call, run, rows).contains(race) {
            let (directory, name) = call.names().swap_remove(race.index);
            let path = match exchanged {
                Exchanged::Name => directory.join(name),
                Exchanged::Above => directory.join(name).parent().unwrap().to_owned(),
            };
            // The arena itself stays.
            if path.starts_with(&root) && path != root {
                exchange(&arena, &path, call.name);
                done = Some((path, call.text()));
            }
        }
        Then::GoOn
    });
    let Some((path, call)) = done else { return false };
    let what = format!("{run:?}, {exchanged:?}, {call}, {}", path.display());
    let is_named = rows[race.row].places[race.index] == "operand";
    let is_operand = is_named || (path.parent() == Some(&root) && exchanged == Exchanged::Name);
    match run.0 {
        // The user's own path: who may exchange it decides where it leads, until it is open.
        _ if is_operand => {}
        ["-aL"] => arena.check_unchanged(&what),
        _ => arena.check(&what),
    }
    true
}

/// Puts a link in the place of whatever is there, or of nothing.
fn exchange(arena: &Arena, path: &Path, call: &str) {
    let outside = arena.place.path("outside");
    let is_directory = path.is_dir() || call == "mkdirat";
    // The same names are below it there.
    let to = match path.file_name().and_then(OsStr::to_str) {
        Some("dir") => outside.join("dir"),
        Some("deep") => outside.join("dir/deep"),
        _ if is_directory => outside,
        _ => outside.join("leaf"),
    };
    if path.symlink_metadata().is_err() {
        return symlink(to, path).unwrap();
    }
    let lure = arena.place.path("lures/exchanged");
    symlink(to, &lure).unwrap();
    renameat2(AT_FDCWD, path, AT_FDCWD, &lure, RenameFlags::RENAME_EXCHANGE).unwrap();
}
