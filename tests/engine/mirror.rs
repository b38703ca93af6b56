//! Mirroring on the simulated processor, with everything going wrong that a seed asks for: whatever
//! happens, no name goes that a source has, that is excluded, or that is outside the target; and
//! where all went well, nothing else is left.
//!
//! `UCP_SEED=17` runs one seed; `UCP_SIMULATIONS=1000000` runs more.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ucp_engine::Proactor;
use ucp_engine::copy::{
    Cancellation, Filter, Progress, Request, Stage, Summary, TargetRole, Verdict, copy_on,
};
use ucp_engine::operation::FileKind;
use ucp_engine::processor::{FaultPlan, MountOptions, SimulatedProcessor, SimulatedWorld};
use ucp_engine::random::Random;

/// How many mirrors the suite simulates, unless `UCP_SIMULATIONS` asks for another number.
const SIMULATIONS: u64 = 300;

const SOURCE: &str = "/source/tree";
const TARGET: &str = "/target/tree";

type Names = BTreeSet<PathBuf>;

/// Leaves out what is called so.
#[derive(Debug)]
struct Without(&'static str);

impl Filter for Without {
    fn decide(&self, path: &Path, _is_directory: bool) -> Verdict {
        match path.ends_with(self.0) {
            true => Verdict::Excluded,
            false => Verdict::Copied,
        }
    }
}

#[test]
fn only_what_no_source_has_goes_whatever_goes_wrong() {
    let variable = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match variable("UCP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("UCP_SIMULATIONS").unwrap_or(SIMULATIONS),
    };
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let is_single = seeds.end - seeds.start == 1;
    for seed in seeds {
        for what in mirror(seed) {
            *counts.entry(what).or_default() += 1;
        }
    }
    println!("{counts:?}");
    for what in ["deleted", "mirrored", "failed", "cancelled", "killed while deleting", "excluded"]
    {
        assert!(is_single || counts.contains_key(what), "no run was {what}");
    }
}

/// One mirror; returns what happened.
fn mirror(seed: u64) -> Vec<&'static str> {
    let mut random = Random::new(seed);
    let options = MountOptions {
        tells_entry_kinds: !random.once_in(4),
        supports_no_replace: !random.once_in(8),
        ..MountOptions::default()
    };
    let world = SimulatedWorld::with_root(options);
    for directory in ["/proc/self", "/source", "/target", "/elsewhere/deep"] {
        world.add_directory(directory);
    }
    world.add_file("/proc/self/status", "Name:\tucp\nUmask:\t0022\n");
    world.add_file("/elsewhere/precious", "keep me");
    world.add_file("/target/precious", "keep me");
    add_tree(&world, &mut random, Path::new(SOURCE), None, 3);
    add_tree(&world, &mut random, Path::new(TARGET), Some(Path::new(SOURCE)), 3);

    let mut request = Request::new([SOURCE], TARGET);
    request.target_role = TargetRole::Name;
    request.options.stage = if random.once_in(2) { Stage::Auto } else { Stage::Never };
    request.options.selection.delete = true;
    // Directories above are closed, and opened again.
    request.options.open_directories_max =
        [None, Some(0), Some(1)][usize::try_from(seed % 3).unwrap()];
    let excluded = random.once_in(2).then_some("e");
    request.options.selection.filter =
        excluded.map(|name| Arc::new(Without(name)) as Arc<dyn Filter>);

    let before = State::of(&world);
    let cancellation = Cancellation::default();
    let killed: Rc<RefCell<Option<SimulatedWorld>>> = Rc::default();
    let mut plan = if random.once_in(3) {
        FaultPlan::none()
    } else {
        FaultPlan::swarm(seed).with_sources("/source")
    };
    if random.once_in(5) {
        let cancellation = cancellation.clone();
        plan = plan.call_after(random.below(200), move |_| cancellation.cancel());
    }
    let kill = Rc::clone(&killed);
    plan = plan.call_after(random.below(400), move |world| {
        *kill.borrow_mut() = Some(world.after_kill());
    });
    let record = plan.record();
    let summary = copy(seed, &world, plan, &request, &cancellation);

    let mut happened = Vec::new();
    let after = State::of(&world);
    before.check(&after, excluded, seed, "at the end");
    if let Some(killed) = killed.take() {
        let killed = State::of(&killed);
        before.check(&killed, excluded, seed, "after a kill");
        if before.target.difference(&killed.target).count() > 0
            && killed.target.difference(&after.target).count() > 0
        {
            happened.push("killed while deleting");
        }
    }
    let Ok(summary) = summary else { return happened };
    happened.extend((summary.deleted > 0).then_some("deleted"));
    happened.extend((summary.excluded > 0).then_some("excluded"));
    if summary.was_cancelled {
        happened.push("cancelled");
    } else if summary.failed > 0 {
        happened.push("failed");
    } else if record.changes().is_empty() {
        let extraneous = after.target.iter().filter(|name| before.is_extraneous(name, excluded));
        let left: Vec<_> = extraneous.collect();
        assert!(left.is_empty(), "seed {seed}: {left:?} was left: {summary:?}");
        let missing: Vec<_> = after.missing(excluded).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?} is missing: {summary:?}");
        happened.push("mirrored");
    }
    happened
}

fn copy(
    seed: u64,
    world: &SimulatedWorld,
    plan: FaultPlan,
    request: &Request,
    cancellation: &Cancellation,
) -> Result<Summary, ucp_engine::Error> {
    let proactor = Proactor::new(Box::new(SimulatedProcessor::new(seed, 64, world, plan)));
    copy_on(&proactor, request, &(), &Progress::default(), cancellation)
}

/// All names that there are.
struct State {
    source: Names,
    target: Names,
    elsewhere: Names,
}

impl State {
    fn of(world: &SimulatedWorld) -> Self {
        let names = |root: &str| {
            let names = world.tree(root).into_keys();
            let names = names.filter_map(|name| Some(name.strip_prefix(root).ok()?.to_owned()));
            names.filter(|name| !name.as_os_str().is_empty()).collect::<Names>()
        };
        let beside = names("/target").into_iter().filter(|name| !name.starts_with("tree"));
        let elsewhere = names("/elsewhere").into_iter().chain(beside).collect();
        Self { source: names(SOURCE), target: names(TARGET), elsewhere }
    }

    /// What is gone may be gone.
    fn check(&self, after: &Self, excluded: Option<&str>, seed: u64, when: &str) {
        let gone = self.target.difference(&after.target);
        let wrong: Vec<_> = gone.filter(|name| !self.is_extraneous(name, excluded)).collect();
        assert!(wrong.is_empty(), "seed {seed}: {wrong:?} is gone {when}");
        let outside: Vec<_> = self.elsewhere.difference(&after.elsewhere).collect();
        assert!(outside.is_empty(), "seed {seed}: {outside:?} is gone {when}");
        assert_eq!(after.source, self.source, "seed {seed}: the source {when}");
    }

    /// Whether a name of the target has no source, and nothing that is excluded is in it or above.
    fn is_extraneous(&self, name: &Path, excluded: Option<&str>) -> bool {
        let is_kept = |name: &Path| {
            excluded
                .is_some_and(|excluded| name.components().any(|part| part.as_os_str() == excluded))
        };
        let mut below = self.target.iter().filter(|below| below.starts_with(name));
        !self.source.contains(name) && !below.any(|below| is_kept(below))
    }

    /// Names of the source that the target should have, and has not.
    fn missing<'a>(&'a self, excluded: Option<&'a str>) -> impl Iterator<Item = &'a PathBuf> {
        self.source.difference(&self.target).filter(move |name| {
            !name.components().any(|part| excluded.is_some_and(|it| part.as_os_str() == it))
        })
    }
}

/// Makes a random tree. Where the same name is in `like`, it is of the same kind.
fn add_tree(
    world: &SimulatedWorld,
    random: &mut Random,
    root: &Path,
    like: Option<&Path>,
    depth: u32,
) {
    world.add_directory(root);
    for name in ["a", "b c", "new\nline", "\u{e9}", "e", "f", "g", "h"] {
        if !random.once_in(2) {
            continue;
        }
        let path = root.join(name);
        let like = like.map(|like| like.join(name));
        let model = like.as_ref().and_then(|like| world.status(like)).map(|status| status.kind);
        let kind = model.unwrap_or(match random.below(8) {
            0..=2 if depth > 0 => FileKind::Directory,
            3 => FileKind::SymbolicLink,
            _ => FileKind::Regular,
        });
        match kind {
            FileKind::Directory => {
                add_tree(world, random, &path, like.as_deref(), depth.saturating_sub(1));
            }
            FileKind::SymbolicLink => world.add_symlink(&path, "/elsewhere/deep"),
            _ => world.add_file(&path, vec![7; usize::try_from(random.below(9000)).unwrap()]),
        }
    }
}
