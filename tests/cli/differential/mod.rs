//! `ucp` against the installed GNU cp: the same trees, the same options, the same outcome.
//!
//! ```text
//! seed -> nodes (sources, what stands at the target), call (options, operands, user, umask)
//!      -> the world is made, copied in and looked at, once by cp and once by ucp -> differences
//! ```
//!
//! Where `ucp` differs on purpose, docs/differences-from-cp.md says so, and the call is planned
//! around it (`call.rs`, `standing.rs`), or that one difference is allowed (`allowed.rs`).
//!
//! 2,000 trees are tried, two calls with each; `UCP_DIFFERENTIAL=20000` tries more, and `UCP_SEED=n`
//! that one alone, and prints it.

mod allowed;
mod attributes;
mod call;
mod make;
mod options;
mod place;
mod play;
mod snapshot;
mod standing;
mod tree;
mod watchdog;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ucp_engine::random::Random;

use self::allowed::{is_allowed, may_be_silent_about, may_complain_of_other, may_succeed};
use self::call::{Call, Persona};
use self::place::Place;
use self::play::{Copier, Outcome, play};
use self::snapshot::differences;
use self::standing::{plan_aside, plan_target};
use self::tree::{Kind, Limits, Node, directory, plan_source};
use self::watchdog::Watchdog;
use super::support::{Scratch, in_mount_namespace};

/// Calls that are tried with each tree.
const CALLS: u64 = 2;
/// So many failures are told; of the others, only what kind they are.
const TOLD_MAX: usize = 8;

/// A world and a call, planned from a seed.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    nodes: Vec<Node>,
    call: Call,
    /// Files can share extents where the world is.
    can_clone: bool,
}

/// What differs in a case, in words.
#[derive(Debug)]
struct Failure {
    case: Case,
    differences: Vec<String>,
}

#[test]
fn copies_are_those_of_gnu_cp() {
    require_root!();
    let seeds = match env::var("UCP_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..trees(),
    };
    let failures = try_all(seeds);
    assert!(failures.is_empty(), "{}", told(&failures));
}

#[test]
fn a_second_copy_of_all_leaves_nothing_behind_and_engines_agree() {
    require_root!();
    let scratch = Scratch::public();
    let watchdog = Watchdog::default();
    in_mount_namespace(|| {
        let place = Place::mount(&scratch, 0);
        for seed in 0..trees() / 10 {
            let (has_target, seed) = (!seed.is_multiple_of(2), seed / 2);
            let world = place.world(seed);
            let case = Case::plan(seed, 0, &place);
            let call = Call::of_all(&case.call);
            let sources = case.nodes.iter().filter(|node| !node.path.starts_with(tree::TARGET));
            let mut nodes: Vec<Node> = sources.cloned().collect();
            // Onto nothing, and where something stands.
            if has_target {
                let from: Vec<_> =
                    nodes.iter().filter(|node| node.path.starts_with(tree::SOURCE)).collect();
                let from: Vec<Node> = from.into_iter().cloned().collect();
                nodes.extend(plan_target(&mut Random::new(seed), &call, &from, &world));
            }
            let copy = |script: &str| {
                let words = ["-c".into(), script.into(), place.program("ucp").into()].to_vec();
                let shell = Copier { program: Path::new("/bin/sh"), name: "sh", words };
                play(&world, &nodes, &call, &shell, &watchdog)
            };
            let once = copy("\"$0\" -a -T from to");
            let twice = copy("\"$0\" -a -T from to && \"$0\" -a -T from to");
            let threads = copy("\"$0\" --engine=threads -a -T from to");
            if has_target && once.code != Some(0) {
                // What stands there is in the way.
                continue;
            }
            for (name, other) in [("twice", twice), ("threads", threads)] {
                let found = differences(&once.snapshot, &other.snapshot);
                let found: Vec<_> = found.iter().map(ToString::to_string).collect();
                assert_eq!(once.code, Some(0), "UCP_SEED={seed}: {once:?}");
                assert_eq!(other.code, Some(0), "UCP_SEED={seed} {name}: {other:?}");
                assert!(found.is_empty(), "UCP_SEED={seed} {name}: {found:#?}");
            }
        }
    });
}

fn trees() -> u64 {
    env::var("UCP_DIFFERENTIAL").ok().and_then(|trees| trees.parse().ok()).unwrap_or(2000)
}

/// Tries all seeds, on a thread a core.
fn try_all(seeds: std::ops::Range<u64>) -> Vec<Failure> {
    let scratch = Scratch::public();
    let watchdog = Watchdog::default();
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let work = |number: usize| {
        in_mount_namespace(|| {
            let place = Place::mount(&scratch, number);
            while let Some(seed) = take(&next, seeds.end) {
                for case in (0..CALLS).map(|number| Case::plan(seed, number, &place)) {
                    if let Some(failure) = case.fails(&place, &watchdog) {
                        let is_told = failures.lock().unwrap().len() < TOLD_MAX;
                        let failure =
                            if is_told { failure.shrink(&place, &watchdog) } else { failure };
                        failures.lock().unwrap().push(failure);
                    }
                }
            }
        });
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let watching = scope.spawn(|| watchdog.watch());
        let workers: Vec<_> = (0..cores)
            .map(|number| {
                scope.spawn({
                    let work = &work;
                    move || work(number)
                })
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        watchdog.finish();
        watching.thread().unpark();
        for end in ended {
            end.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked));
        }
    });
    failures.into_inner().unwrap()
}

fn take(next: &AtomicU64, end: u64) -> Option<u64> {
    let seed = next.fetch_add(1, Ordering::Relaxed);
    (seed < end).then_some(seed)
}

impl Case {
    fn plan(seed: u64, number: u64, place: &Place) -> Self {
        // One tree for all calls of a seed, as far as they can bear the same.
        let mut random = Random::new(seed);
        let world = place.world(seed);
        let mut for_call = Random::new(seed.wrapping_mul(0x1_0000) + number);
        let mut call = Call::plan(&mut for_call);
        let limits = Limits {
            may_open_specials: call.may_open_specials(),
            takes_specials: call.takes_specials(),
        };
        let source = plan_source(&mut random, &world, limits);
        call.choose_sources(&mut for_call, &source);
        let mut root = directory(&mut for_call, "".into());
        root.owner = (call.user, call.user);
        root.mode = if for_call.once_in(8) { 0o2755 } else { 0o755 };
        root.attributes.retain(|(name, _)| name.contains("default"));
        let mut nodes = vec![root];
        nodes.extend(plan_aside(&mut for_call));
        nodes.extend_from_slice(&source);
        nodes.extend(plan_target(&mut for_call, &call, &source, &world));
        call.adapt(&nodes);
        Self { seed, nodes, call, can_clone: place.can_clone(seed) }
    }

    fn fails(&self, place: &Place, watchdog: &Watchdog) -> Option<Failure> {
        let (cp, ucp) = self.copiers(place);
        let world = place.world(self.seed);
        let want = play(&world, &self.nodes, &self.call, &cp, watchdog);
        let got = play(&world, &self.nodes, &self.call, &ucp, watchdog);
        let differences = self.differences(&want, &got);
        (!differences.is_empty()).then(|| Failure { case: self.clone(), differences })
    }

    fn copiers<'a>(&self, place: &'a Place) -> (Copier<'a>, Copier<'a>) {
        let cp = Copier {
            program: Path::new("/usr/bin/cp"),
            name: "cp",
            words: self.call.words_for_cp(),
        };
        let name = match self.call.persona {
            Persona::Ucp => "ucp",
            Persona::Cp => "cp",
        };
        let program = place.program(name);
        (cp, Copier { program, name, words: self.call.words_for_ucp() })
    }

    fn differences(&self, want: &Outcome, got: &Outcome) -> Vec<String> {
        let mut found = Vec::new();
        let is_same_class = match self.call.persona {
            Persona::Cp => want.code == got.code,
            Persona::Ucp => (want.code == Some(0)) == (got.code == Some(0)) && got.code.is_some(),
        };
        let is_better = got.code == Some(0) && may_succeed(self, want);
        if !is_same_class && !is_better {
            found.push(format!("exit status: cp {:?}, ucp {:?}", want.code, got.code));
        }
        for difference in differences(&want.snapshot, &got.snapshot) {
            if !is_allowed(&difference, self, (want, got)) {
                found.push(difference.to_string());
            }
        }
        let (want_lines, got_lines) =
            (with_plain_paths(&want.stdout), with_plain_paths(&got.stdout));
        let complaints = with_plain_paths(&got.stderr);
        // cp prints the names of directories above a source without quotes.
        let (mut want_lines, got_lines) = match self.call.has("--parents") {
            true => (without_quotes(&want_lines), without_quotes(&got_lines)),
            false => (want_lines, got_lines),
        };
        want_lines.retain(|line| {
            got_lines.contains(line) || !may_be_silent_about(line, &self.call, &complaints)
        });
        if want_lines != got_lines {
            found.push(format!("stdout: {}", lines_that_differ(&want_lines, &got_lines)));
        }
        // Who is refused much may be told of the source or of the target, whichever comes first.
        let must_say_the_same = self.call.persona == Persona::Cp && self.call.user == 0;
        let (want_errors, got_errors) =
            (with_plain_paths(&want.stderr), with_plain_paths(&got.stderr));
        let says_the_same = want_errors.len() == got_errors.len()
            && want_errors
                .iter()
                .filter(|line| !got_errors.contains(line))
                .zip(got_errors.iter().filter(|line| !want_errors.contains(line)))
                .all(|(cp, ucp)| may_complain_of_other(cp, ucp));
        if must_say_the_same && !says_the_same {
            found.push(format!("stderr: {}", lines_that_differ(&want_errors, &got_errors)));
        } else if !found.is_empty() {
            let _ = write!(
                found[0],
                "\n    cp says {:#?}\n    ucp says {:#?}",
                want.stderr, got.stderr
            );
        }
        found
    }
}

/// Lines without what a path does not need.
fn with_plain_paths(lines: &[String]) -> Vec<String> {
    let mut lines: Vec<_> =
        lines.iter().map(|line| line.replace("/./", "/").replace("//", "/")).collect();
    lines.sort();
    lines
}

fn without_quotes(lines: &[String]) -> Vec<String> {
    let mut lines: Vec<_> = lines.iter().map(|line| line.replace('\'', "")).collect();
    lines.sort();
    lines
}

fn lines_that_differ(want: &[String], got: &[String]) -> String {
    let mut text = String::new();
    for line in want.iter().filter(|line| !got.contains(line)) {
        let _ = write!(text, "\n    cp  {line}");
    }
    for line in got.iter().filter(|line| !want.contains(line)) {
        let _ = write!(text, "\n    ucp {line}");
    }
    if text.is_empty() { "the same lines, another number of times".to_owned() } else { text }
}

impl Failure {
    /// What differs first, in a word or two.
    fn kind(&self) -> &str {
        let first = &self.differences[0];
        match first.split(": ").nth(1) {
            Some(field) if first.starts_with('"') => field,
            _ => first.split(':').next().unwrap_or_default(),
        }
    }

    /// Leaves out of the world and of the call whatever this failure does not need.
    fn shrink(mut self, place: &Place, watchdog: &Watchdog) -> Self {
        let fails = |smaller: Case, kind: &str| {
            smaller.fails(place, watchdog).filter(|failure| failure.kind() == kind)
        };
        for index in (1..self.case.nodes.len()).rev() {
            let mut smaller = self.case.clone();
            let Some(removed) = smaller.nodes.get(index).map(|node| node.path.clone()) else {
                continue;
            };
            smaller.nodes.retain(|node| {
                let is_name_of =
                    matches!(&node.kind, Kind::HardLink(first) if first.starts_with(&removed));
                !node.path.starts_with(&removed) && !is_name_of
            });
            if let Some(failure) = fails(smaller, self.kind()) {
                self = failure;
            }
        }
        for index in (0..self.case.call.words.len()).rev() {
            let mut smaller = self.case.clone();
            smaller.call.words.remove(index);
            // The tree was planned for a call that treats special files so.
            let treats = |call: &Call| (call.takes_specials(), call.may_open_specials());
            if treats(&smaller.call) != treats(&self.case.call) {
                continue;
            }
            if let Some(failure) = fails(smaller, self.kind()) {
                self = failure;
            }
        }
        for index in 0..self.case.nodes.len() {
            let mut smaller = self.case.clone();
            smaller.nodes[index].attributes.clear();
            if let Some(failure) = fails(smaller, self.kind()) {
                self = failure;
            }
        }
        self
    }
}

/// The first failures in full, and of each kind the seeds.
fn told(failures: &[Failure]) -> String {
    let mut text = format!("{} calls differ\n", failures.len());
    let mut kinds: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for failure in failures {
        let name = format!("{:?} {}", failure.case.call.persona, failure.kind());
        kinds.entry(name).or_default().push(failure.case.seed);
    }
    for (kind, seeds) in kinds {
        let _ = writeln!(text, "  {kind}: seeds {seeds:?}");
    }
    for failure in failures.iter().take(TOLD_MAX) {
        let _ = writeln!(text, "\n{failure}");
    }
    text
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { seed, nodes, call, .. } = &self.case;
        writeln!(
            f,
            "UCP_SEED={seed} ({:?}, user {}, umask {:03o})",
            call.persona, call.user, call.umask
        )?;
        writeln!(f, "  cp  {:?}\n  ucp {:?}", call.words_for_cp(), call.words_for_ucp())?;
        for difference in self.differences.iter().take(12) {
            writeln!(f, "  {difference}")?;
        }
        for node in nodes.iter().skip(1) {
            let Node { path, kind, mode, owner, attributes, modified, .. } = node;
            let attributes: Vec<_> = attributes.iter().map(|(name, _)| name).collect();
            writeln!(f, "    {path:?} {kind:?} {mode:o} {owner:?} {modified:?} {attributes:?}")?;
        }
        Ok(())
    }
}
