//! The public copy entry on the simulated processor: whole copies (walk, data, metadata,
//! publication, cancel) with everything going wrong that a seed asks for.
//!
//! After each copy, and at a random moment of it where it is killed, the rules of publication are
//! held against the world: every published name is wholly old or wholly new, nothing outside the
//! target changes, nothing leaks, and a second run completes and leaves nothing behind.
//!
//! `UCP_SEED=17` runs one seed and shows it; `UCP_SIMULATIONS=1000000` runs more.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ucp_engine::cache_policy::CachePolicy;
use ucp_engine::copy::{
    Cancellation, DataPath, Direct, Durability, Event, Holes, Keep, KeepMode, LookAhead, Observer,
    PipelineMode, Preserve, Progress, Publication, Reflink, Request, Resume, Stage, Summary,
    TargetRole, copy_on,
};
use ucp_engine::digest::Algorithm;
use ucp_engine::operation::{FileKind, FileTimes};
use ucp_engine::processor::{
    Fault, FaultPlan, FaultRecord, MountOptions, OperationKind, SimulatedProcessor, SimulatedWorld,
    TreeEntry,
};
use ucp_engine::random::Random;
use ucp_engine::units::WallTime;
use ucp_engine::{ErrorKind, Proactor};

/// How many copies the suite simulates, unless `UCP_SIMULATIONS` asks for another number.
const SIMULATIONS: u64 = 10_000;

/// The kind of file system whose server can copy by itself (`linux/magic.h`).
const NFS: u64 = 0x6969;

/// Where the kernel tells which boot it is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The attributes that a stage, and a large file in it, are marked with.
const MARKS: [&[u8]; 2] = [b"user.ucp.stage", b"user.ucp.journal"];

type Tree = BTreeMap<PathBuf, TreeEntry>;

#[test]
fn copies_keep_the_rules_whatever_goes_wrong() {
    if let Some(seed) = variable("UCP_SEED") {
        let counts = Scenario::new(seed).run();
        println!("seed {seed}: {counts:?}");
        return;
    }
    let mut total: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..variable("UCP_SIMULATIONS").unwrap_or(SIMULATIONS) {
        for (what, count) in Scenario::new(seed).run() {
            *total.entry(what).or_default() += count;
        }
    }
    for (what, count) in &total {
        println!("{count:>9}  {what}");
    }
    let expected = Fault::ALL.into_iter().filter(|fault| {
        // No copy scripts a single failure or cancels a single operation here, or has a network.
        let is_of_networks = Fault::OF_NETWORKS.contains(fault);
        !is_of_networks
            && !matches!(fault, Fault::Scripted | Fault::CancelInTime | Fault::CancelTooLate)
    });
    for fault in expected {
        let times = total.get(&format!("fault: {fault}")).copied().unwrap_or(0);
        assert!(times > 0, "{fault} never happened");
    }
    for what in [
        "cancelled",
        "killed",
        "gone on with after a kill",
        "gone on with after a cancellation",
        "power cut",
        "power cut meanwhile",
        "done before a power cut",
        "complete",
        "complete in several places",
        "with failures",
        "with files that the server has copied",
        "moved",
    ] {
        assert!(total.contains_key(what), "no copy was {what}");
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// What a copy has told of, in order.
#[derive(Clone, Debug, Default)]
struct Told {
    copied: BTreeSet<PathBuf>,
    /// How many of them the server has copied.
    by_server: u64,
    /// What an interrupted copy had left whole: no target is said to be up to date otherwise.
    taken_over: BTreeSet<PathBuf>,
    /// Files in stages of which an interrupted copy had left a part.
    resumed: BTreeSet<PathBuf>,
    /// What is on stable storage, and whether with all that was copied below it.
    done: Vec<(PathBuf, bool)>,
}

#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Told>>);

impl Observer for Listener {
    fn on_event(&self, event: &Event<'_>) {
        let mut told = self.0.lock().unwrap();
        match event {
            Event::Copied(copied) => {
                told.by_server += u64::from(copied.path == Some(DataPath::CopyRange));
                told.copied.insert(copied.target.to_owned());
                if copied.resumed_bytes > 0 && copied.publication == Publication::Staged {
                    told.resumed.insert(copied.target.to_owned());
                }
            }
            Event::UpToDate { target, .. } => drop(told.taken_over.insert((*target).to_owned())),
            Event::Done(done) => told.done.push((done.target.to_owned(), done.is_tree)),
            _ => {}
        }
    }
}

/// One copy, decided by its seed.
struct Scenario {
    seed: u64,
    world: SimulatedWorld,
    /// Its file system is one that a device is known to be behind.
    has_device: bool,
    request: Request,
    /// Source file to target file, as the rules of cp map them.
    names: Vec<(PathBuf, PathBuf)>,
    before: Tree,
}

impl Scenario {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut mount = mount_options(&mut random);
        let has_device = mount.magic == 0xef53;
        if !has_device && Random::new(seed ^ 0x7365_7276).once_in(2) {
            mount.magic = NFS;
        }
        let world = SimulatedWorld::with_root(mount);
        for directory in ["/proc/self", "/source", "/target", "/elsewhere"] {
            world.add_directory(directory);
        }
        world.add_file("/proc/self/status", "Name:\tucp\nUmask:\t0022\n");
        world.add_file(BOOT, "11111111-1111-4111-8111-111111111111\n");
        world.add_file("/elsewhere/precious", "keep me");
        let files = add_tree(&world, &mut random, Path::new("/source/tree"), 3);
        let (sources, target, names) = choose_shape(&world, &mut random, &files);
        let mut request = Request::new(sources, target);
        choose_options(&mut request, &mut random);
        choose_verification(&mut request, &mut Random::new(seed ^ 0x7665_7269));
        choose_cache(&mut request, &mut Random::new(seed ^ 0x6361_6368));
        let mut several = Random::new(seed ^ 0x7365_7665);
        let names = match several.once_in(5) {
            true => choose_several(&world, &mut several, &mut request, &names),
            false => names,
        };
        let before = tree(&world, "/");
        // What was touched a moment before a copy is taken over by no later one.
        world.pass(Duration::from_secs(60));
        Self { seed, world, has_device, request, names, before }
    }

    /// Runs the copy and checks everything; returns what happened, counted.
    fn run(self) -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut random = Random::new(!self.seed);
        let cancellation = Cancellation::default();
        let killed: Rc<RefCell<Option<SimulatedWorld>>> = Rc::default();
        let cut: Rc<RefCell<Option<(SimulatedWorld, Told)>>> = Rc::default();
        let listener = Listener::default();
        let mut plan = FaultPlan::swarm(self.seed).with_sources("/source");
        if random.once_in(4) {
            plan = FaultPlan::none();
        }
        // A later sync of data could not be told from the one before the verification.
        let options = &self.request.options;
        let is_verified = options.verification.verify.is_some() && self.has_device;
        if is_verified && options.durability != Durability::Data {
            // Without their answers only the cache can be read back, and is said to have been.
            plan = plan.spare(OperationKind::CacheStatus).spare(OperationKind::FileSystemStatus);
            plan = plan.flip_once_in([0, 1, 3][usize::try_from(self.seed % 3).unwrap()]);
        }
        if random.once_in(5) {
            let cancellation = cancellation.clone();
            plan = plan.call_after(random.below(120), move |_| cancellation.cancel());
        }
        if random.once_in(2) {
            let killed = Rc::clone(&killed);
            plan = plan.call_after(random.below(120), move |world| {
                *killed.borrow_mut() = Some(world.after_kill());
            });
        }
        if random.once_in(2) {
            let (cut, listener, seed) = (Rc::clone(&cut), listener.clone(), self.seed);
            plan = plan.call_after(random.below(200), move |world| {
                let told = listener.0.lock().unwrap().clone();
                *cut.borrow_mut() = Some((world.crash(seed), told));
            });
        }
        let record = plan.record();
        let outcome = self.copy(&self.world, plan, &listener, &cancellation);
        for (fault, times) in record.counts() {
            *counts.entry(format!("fault: {fault}")).or_default() += times;
        }
        let mut count = |what: &str| *counts.entry(what.to_owned()).or_default() += 1;
        if let Ok(summary) = &outcome
            && record.of(Fault::Flipped) > 0
            // Of a source that was changed the copy that the bit is in may have been discarded, and
            // made once more.
            && record.changes().is_empty()
            && !summary.was_cancelled
        {
            count("flipped");
            let seed = self.seed;
            assert!(
                summary.failed > 0,
                "seed {seed}: a bit flipped, and nobody saw it: {summary:?}"
            );
        }
        if let Ok(summary) = &outcome
            && record.of(Fault::Flipped) == 0
        {
            let (seed, changes) = (self.seed, record.changes());
            let is_false = summary.failure == Some(ErrorKind::DoesNotVerify);
            let counts = record.counts();
            assert!(
                !is_false,
                "seed {seed}: no bit flipped: {summary:?} {changes:?} {counts:?} {:?}",
                self.request
            );
        }
        self.check_published(&self.world, &record, "at the end");
        let gone = self.check_moved(&self.world, &record, "at the end");
        (0..gone).for_each(|_| count("moved"));
        self.check_moved(&self.world.crash(self.seed ^ 1), &record, "after a power cut");
        assert_eq!(self.world.open_files(), [""; 0], "seed {}: left open", self.seed);
        match &outcome {
            Ok(summary) if summary.was_cancelled => count("cancelled"),
            Ok(summary) if summary.failed + summary.skipped > 0 => count("with failures"),
            Ok(_) => {
                count("complete");
                if !self.request.also.is_empty() {
                    count("complete in several places");
                }
                self.check_complete(&self.world, &record, "at the end");
                if self.request.options.durability == Durability::Full {
                    count("power cut");
                    let after = self.world.crash(self.seed);
                    self.check_complete(&after, &record, "after a power cut");
                }
            }
            Err(_) => count("could not begin"),
        }
        if let Some((world, told)) = cut.take() {
            count("power cut meanwhile");
            let done = self.check_done(&world, &told, &record);
            self.check_moved(&world, &record, "after a power cut meanwhile");
            *counts.entry("done before a power cut".to_owned()).or_default() += done;
            // What was not synced is taken for copied by nobody.
            world.add_file(BOOT, "22222222-2222-4222-8222-222222222222\n");
            let told = self.check_second_run(&world, &record);
            let taken: Vec<_> = told.taken_over.iter().chain(&told.resumed).collect();
            assert!(taken.is_empty(), "seed {}: {taken:?} after a power cut", self.seed);
        }
        let told = listener.0.lock().unwrap().clone();
        if told.by_server > 0 {
            *counts.entry("with files that the server has copied".to_owned()).or_default() += 1;
        }
        let done = self.check_done(&self.world.crash(!self.seed), &told, &record);
        *counts.entry("done before a power cut".to_owned()).or_default() += done;
        let mut count = |what: &str| *counts.entry(what.to_owned()).or_default() += 1;
        let killed = killed.take();
        if let Some(world) = killed {
            count("killed");
            self.check_published(&world, &record, "after a kill");
            self.check_moved(&world, &record, "after a kill");
            let world = if random.once_in(2) {
                count("killed again");
                self.killed_again(world, random.below(120))
            } else {
                world
            };
            // What the first run has published the second one may have been writing into.
            if !self.request.options.in_place {
                self.check_published(&world, &record, "after a second kill");
            }
            let told = self.check_second_run(&world, &record);
            if !told.taken_over.is_empty() {
                count("gone on with after a kill");
            }
            if !told.resumed.is_empty() {
                count("gone on with in the middle of a file of a stage");
            }
        } else if outcome.is_ok_and(|it| it.was_cancelled) || random.once_in(4) {
            count("second run");
            let told = self.check_second_run(&self.world, &record);
            if !told.taken_over.is_empty() || !told.resumed.is_empty() {
                count("gone on with after a cancellation");
            }
        }
        counts
    }

    /// What a second run leaves that is killed as well, after so many completions.
    fn killed_again(&self, world: SimulatedWorld, completions: u64) -> SimulatedWorld {
        let killed: Rc<RefCell<Option<SimulatedWorld>>> = Rc::default();
        let kill = Rc::clone(&killed);
        let plan = FaultPlan::none().call_after(completions, move |world| {
            *kill.borrow_mut() = Some(world.after_kill());
        });
        let _ = self.copy(&world, plan, &(), &Cancellation::default());
        killed.take().unwrap_or(world)
    }

    fn copy(
        &self,
        world: &SimulatedWorld,
        plan: FaultPlan,
        observer: &dyn Observer,
        cancellation: &Cancellation,
    ) -> Result<Summary, ucp_engine::Error> {
        let processor = SimulatedProcessor::new(self.seed, 64, world, plan);
        let proactor = Proactor::new(Box::new(processor));
        copy_on(&proactor, &self.request, observer, &Progress::default(), cancellation)
    }

    /// What was told to be done before a power cut is whole under its name after it. Returns how
    /// many files that were.
    fn check_done(&self, world: &SimulatedWorld, told: &Told, record: &FaultRecord) -> u64 {
        let seed = self.seed;
        let after = tree(world, "/");
        let mut files = 0;
        for (source, target) in &self.names {
            let is_done = told.done.iter().any(|(done, is_tree)| {
                done == target
                    || (*is_tree && target.starts_with(done) && told.copied.contains(target))
            });
            // An operand that became a link may lead to a directory.
            if !is_done || record.of(Fault::SourceReplacedByLink) > 0 {
                continue;
            }
            files += 1;
            let copy = after.get(target);
            let copy = copy.unwrap_or_else(|| panic!("seed {seed}: done {target:?} is missing"));
            let Some(versions) = self.versions(world, record, source) else { continue };
            let sizes: Vec<usize> = versions.iter().map(Vec::len).collect();
            assert!(
                versions.contains(&copy.content),
                "seed {seed}: done {target:?} of {} bytes is neither of {sizes:?} after a power cut: {:?}",
                copy.content.len(),
                (record.changes(), record.counts(), self.request.options.clone())
            );
        }
        files
    }

    /// No source is gone unless its target is whole. Returns how many are gone.
    fn check_moved(&self, world: &SimulatedWorld, record: &FaultRecord, when: &str) -> u64 {
        let seed = self.seed;
        let is_known = record.changes().is_empty() && record.of(Fault::Flipped) == 0;
        if !self.moves() || !is_known {
            return 0;
        }
        let mut gone = 0;
        for (source, target) in &self.names {
            let original = &self.before[source];
            if world.status(source).is_some() {
                continue;
            }
            gone += 1;
            assert_eq!(original.status.kind, FileKind::Regular, "seed {seed}: {source:?} {when}");
            let is_whole = world.read(target).as_ref() == Some(&original.content);
            assert!(
                is_whole,
                "seed {seed}: {source:?} is lost {when}: {:?}",
                (record.counts(), &self.request)
            );
        }
        gone
    }

    fn moves(&self) -> bool {
        self.request.options.selection.remove_source_files
    }

    /// Each name is old, absent where it was absent, or new; nothing else has changed.
    fn check_published(&self, world: &SimulatedWorld, record: &FaultRecord, when: &str) {
        let seed = self.seed;
        let after = tree(world, "/");
        let is_in_place = self.request.options.in_place;
        let sources: BTreeMap<&Path, &Path> =
            self.names.iter().map(|(source, target)| (&**target, &**source)).collect();
        for (path, entry) in &after {
            if !path.starts_with("/target") || is_temporary(path) {
                continue;
            }
            assert!(!is_marked(entry), "seed {seed}: {path:?} is published with its mark {when}");
            let old = self.before.get(path);
            if entry.status.kind != FileKind::Regular || old.is_some_and(|old| is_same(old, entry))
            {
                continue;
            }
            if is_in_place && old.is_some() {
                continue;
            }
            let Some(source) = sources.get(&**path) else {
                // An operand that became a link is followed, wherever it leads; nothing below is.
                let is_operand = self.request.sources != [Path::new("/source/tree")];
                let is_followed = is_operand && record.of(Fault::SourceReplacedByLink) > 0;
                assert!(is_followed, "seed {seed}: {path:?} comes from nowhere {when}");
                continue;
            };
            let Some(versions) = self.versions(world, record, source) else { continue };
            let sizes: Vec<usize> = versions.iter().map(Vec::len).collect();
            assert!(
                versions.contains(&entry.content),
                "seed {seed}: {path:?} of {} bytes is neither old nor new ({sizes:?}) {when}; {:?}",
                entry.content.len(),
                (
                    record.changes(),
                    record.counts(),
                    first_difference(&versions[0], &entry.content),
                    self.request.options.clone()
                ),
            );
        }
        for (path, old) in &self.before {
            let new = after.get(path);
            if path.starts_with("/target") {
                assert!(new.is_some(), "seed {seed}: {path:?} vanished {when}");
            } else if !path.starts_with("/source") {
                let is_kept = new.is_some_and(|new| is_same(old, new));
                assert!(is_kept, "seed {seed}: {path:?} was touched {when}");
            }
        }
        let changed: BTreeSet<PathBuf> =
            record.changes().into_iter().map(|change| change.path).collect();
        for (path, old) in &self.before {
            if path.starts_with("/source") && !changed.contains(path) {
                let may_go = self.moves() && old.status.kind == FileKind::Regular;
                let is_kept = after.get(path).map_or(may_go, |new| is_same(old, new));
                let shares = old.status.links > 1;
                assert!(is_kept || shares, "seed {seed}: source {path:?} was touched {when}");
            }
        }
    }

    /// What a copy of `source` may hold: what it was, or what it became. None if it changed more
    /// than once, under several names: what it was in between is not known here.
    fn versions(
        &self,
        world: &SimulatedWorld,
        record: &FaultRecord,
        source: &Path,
    ) -> Option<Vec<Vec<u8>>> {
        if self.before[source].status.links > 1 && record.changes().len() > 1 {
            return None;
        }
        let old = self.before[source].content.clone();
        let mut versions = vec![old.clone()];
        // A file that has several names changes under all of them.
        let has_changed = !record.changes().is_empty();
        let is_gone = |world: &SimulatedWorld| world.status(source).is_none();
        if has_changed && (is_gone(&self.world) || is_gone(world)) {
            // It was moved, as what it was by then.
            return None;
        }
        if has_changed {
            for world in [&self.world, world] {
                // The link that took its place, and the bytes that stand under its name.
                let link = tree(world, "/source").remove(source).map(|entry| entry.content);
                for new in [link, world.read(source)].into_iter().flatten() {
                    versions.push(new[..new.len().min(old.len())].to_vec());
                    versions.push(new);
                }
            }
        }
        Some(versions)
    }

    /// Everything was copied, with modes and times.
    fn check_complete(&self, world: &SimulatedWorld, record: &FaultRecord, when: &str) {
        let seed = self.seed;
        let after = tree(world, "/");
        if record.changes().is_empty() {
            self.check_links(&after, when);
        }
        for (source, target) in &self.names {
            let copy = after.get(target);
            let copy = copy.unwrap_or_else(|| panic!("seed {seed}: {target:?} is missing"));
            let original = &self.before[source];
            let is_followed = record.of(Fault::SourceReplacedByLink) > 0;
            if is_followed && copy.status.kind == FileKind::Directory {
                continue; // an operand that became a link to a directory
            }
            let Some(versions) = self.versions(world, record, source) else { continue };
            let sizes: Vec<usize> = versions.iter().map(Vec::len).collect();
            assert!(
                versions.contains(&copy.content),
                "seed {seed}: {target:?} of {} bytes differs from its source of {sizes:?} {when}: {:?}",
                copy.content.len(),
                (record.changes(), record.counts(), self.request.options.clone())
            );
            let existed = self.before.contains_key(target);
            if !record.changes().is_empty() || (existed && self.request.options.in_place) {
                continue;
            }
            let (copy, original) = (copy.status, original.status);
            assert_eq!(copy.mode, original.mode, "seed {seed}: mode of {target:?} {when}");
            assert_eq!(copy.modified, original.modified, "seed {seed}: times of {target:?} {when}");
        }
    }

    /// Names of one file are names of one copy, if that was asked for.
    fn check_links(&self, after: &Tree, when: &str) {
        if !self.request.options.preserve.links {
            return;
        }
        let mut copies: BTreeMap<(bool, u64), u64> = BTreeMap::new();
        for (source, target) in &self.names {
            let Some(copy) = after.get(target) else { continue };
            // Each of several targets has copies of its own.
            let file = (target.starts_with(SECOND), self.before[source].status.inode);
            let first = *copies.entry(file).or_insert(copy.status.inode);
            assert_eq!(first, copy.status.inode, "seed {}: {target:?} {when}", self.seed);
        }
    }

    /// A second run, in which nothing goes wrong, copies everything and leaves nothing behind.
    /// Returns what it has told of.
    fn check_second_run(&self, world: &SimulatedWorld, record: &FaultRecord) -> Told {
        let seed = self.seed;
        let source_before = tree(world, "/source");
        if variable("UCP_SEED").is_some() {
            println!("before the second run:\n{}{:?}", world.describe("/target"), self.request);
        }
        let listener = Listener::default();
        let summary = self.copy(world, FaultPlan::none(), &listener, &Cancellation::default());
        let summary = match summary {
            Ok(summary) => summary,
            Err(error) => panic!("seed {seed}: the second run did not begin: {error}"),
        };
        if variable("UCP_SEED").is_some() {
            println!("after it:\n{}{summary:?}", world.describe("/target"));
        }
        // A file whose name has become a link may lead nowhere, or back to what was copied.
        let has_link = record.of(Fault::SourceReplacedByLink) > 0;
        // An operand that was moved can't be copied again.
        let is_gone = |source: &PathBuf| !source_before.contains_key(source);
        let has_moved = self.moves() && self.names.iter().any(|(source, _)| is_gone(source));
        assert!(
            summary.failed == 0 || has_link || has_moved,
            "seed {seed}: the second run failed: {summary:?}"
        );
        self.check_moved(world, record, "after the second run");
        self.check_moved(&world.crash(seed), record, "after the second run and a power cut");
        for (path, entry) in tree(world, "/target") {
            let kind = entry.status.kind;
            // What was begun of a file whose name is a link's by now is nobody's to find.
            assert!(
                has_link || !is_temporary(&path),
                "seed {seed}: {path:?} ({kind:?}) was left behind"
            );
            assert!(!is_marked(&entry), "seed {seed}: {path:?} has its mark");
        }
        for (source, target) in self.names.iter().filter(|_| !has_link) {
            let Some(original) = source_before.get(source) else { continue };
            if original.status.kind == FileKind::Regular {
                let is_equal = world.read(target).as_ref() == Some(&original.content);
                assert!(is_equal, "seed {seed}: {target:?} differs after the second run");
            }
        }
        let is_made_anew = !self.moves() && !self.request.options.in_place;
        if record.changes().is_empty() && !has_link && is_made_anew {
            self.check_complete(world, record, "after the second run");
        }
        let told = listener.0.lock().unwrap().clone();
        assert_eq!(summary.up_to_date, told.taken_over.len() as u64, "seed {seed}");
        told
    }
}

/// Everything below a path, by absolute paths.
fn tree(world: &SimulatedWorld, root: &str) -> Tree {
    let entries = world.tree(root).into_iter();
    entries.map(|(path, entry)| (Path::new(root).join(path), entry)).collect()
}

fn is_same(one: &TreeEntry, other: &TreeEntry) -> bool {
    (one.status.kind, one.status.mode, &one.content)
        == (other.status.kind, other.status.mode, &other.content)
}

fn is_marked(entry: &TreeEntry) -> bool {
    MARKS.iter().any(|mark| entry.attributes.contains_key(*mark))
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    one.iter().zip(other).position(|(one, other)| one != other)
}

fn is_temporary(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".ucp-"))
}

fn mount_options(random: &mut Random) -> MountOptions {
    MountOptions {
        direct_alignment: [None, Some((512, 512)), Some((512, 4096))][pick(random, 3)],
        // ext4's, or FUSE's.
        magic: if random.once_in(4) { 0x6573_5546 } else { 0xef53 },
        supports_clone: random.once_in(4),
        supports_no_replace: !random.once_in(8),
        tells_entry_kinds: !random.once_in(8),
        supports_allocate: !random.once_in(8),
        supports_uncached: !random.once_in(4),
        ..MountOptions::default()
    }
}

/// A random tree; returns its regular files and links, by their paths.
fn add_tree(world: &SimulatedWorld, random: &mut Random, root: &Path, depth: u32) -> Vec<PathBuf> {
    world.add_directory(root);
    let mut files: Vec<PathBuf> = Vec::new();
    for number in 0..random.below(6) {
        let path = root
            .join(["a", "b c", "new\nline", "\u{e9}", "e", "f"][usize::try_from(number).unwrap()]);
        match random.below(12) {
            0 | 1 if depth > 0 => {
                files.extend(add_tree(world, random, &path, depth - 1));
                continue;
            }
            2 => world.add_symlink(&path, "../somewhere"),
            3 if !files.is_empty() => {
                let existing = &files[pick(random, files.len() as u64)];
                if world.status(existing).is_some_and(|it| it.kind == FileKind::Regular) {
                    world.add_link(existing, &path);
                } else {
                    world.add_file(&path, "");
                }
            }
            4 if random.once_in(8) => {
                world.add_node(&path, FileKind::Fifo, 0);
                continue;
            }
            _ => {
                if random.once_in(3) {
                    add_holes(world, random, &path);
                } else {
                    world.add_file(&path, content(random));
                }
                let mode = [0o644, 0o600, 0o755, 0o444, 0o4755][pick(random, 5)];
                world.set_mode(&path, mode);
            }
        }
        let times = FileTimes { accessed: wall_time(random), modified: wall_time(random) };
        world.set_times(&path, times);
        files.push(path);
    }
    world.set_mode(root, [0o755, 0o700, 0o555, 0o1777][pick(random, 4)]);
    let times = FileTimes { accessed: wall_time(random), modified: wall_time(random) };
    world.set_times(root, times);
    files
}

/// Adds a file that has data in some places, whole blocks of zeros among it.
fn add_holes(world: &SimulatedWorld, random: &mut Random, path: &Path) {
    let (length, content) = (4096 * (1 + random.below(40)) + random.below(4096), content(random));
    let mut pieces: Vec<(u64, &[u8])> = Vec::new();
    for _ in 0..random.below(6) {
        let offset = random.below(length);
        let room = usize::try_from(length - offset).unwrap();
        let piece = if random.once_in(4) { &[0; 9000][..] } else { &content[..] };
        pieces.push((offset, &piece[..piece.len().min(room)]));
    }
    world.add_sparse_file(path, length, &pieces);
}

fn wall_time(random: &mut Random) -> WallTime {
    let seconds = i64::try_from(random.below(8_000_000_000)).unwrap() - 2_000_000_000;
    WallTime { seconds, nanoseconds: u32::try_from(random.below(1_000_000_000)).unwrap() }
}

fn content(random: &mut Random) -> Vec<u8> {
    let sizes = [0, 1, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 12_345, 40_000];
    let size = sizes[pick(random, sizes.len() as u64)];
    let mut bytes = vec![0; size];
    for chunk in bytes.chunks_mut(8) {
        let word = random.next().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    bytes
}

type Shape = (Vec<PathBuf>, PathBuf, Vec<(PathBuf, PathBuf)>);

/// What is copied where, and which file so becomes which.
fn choose_shape(world: &SimulatedWorld, random: &mut Random, files: &[PathBuf]) -> Shape {
    let root = PathBuf::from("/source/tree");
    let below = |target: &Path| {
        let mapped = files.iter().map(|file| {
            let relative = file.strip_prefix("/source/tree").unwrap();
            (file.clone(), target.join(relative))
        });
        mapped.collect::<Vec<_>>()
    };
    let regular: Vec<PathBuf> = files
        .iter()
        .filter(|file| world.status(file).is_some_and(|it| it.kind == FileKind::Regular))
        .cloned()
        .collect();
    match random.below(5) {
        0 if !regular.is_empty() => {
            let source = regular[pick(random, regular.len() as u64)].clone();
            let target = PathBuf::from("/target/file");
            if random.once_in(2) {
                world.add_file(&target, content(random));
            }
            (vec![source.clone()], target.clone(), vec![(source, target)])
        }
        1 if regular.len() > 1 => {
            let mut seen = BTreeSet::new();
            let sources: Vec<PathBuf> = regular
                .into_iter()
                .filter(|file| seen.insert(file.file_name().unwrap().to_owned()))
                .collect();
            let mapped = sources.iter().map(|source| {
                (source.clone(), Path::new("/target").join(source.file_name().unwrap()))
            });
            let names: Vec<_> = mapped.collect();
            for (_, target) in &names {
                if random.once_in(2) {
                    world.add_file(target, content(random));
                }
            }
            (sources, "/target".into(), names)
        }
        2 | 3 => {
            let target = PathBuf::from("/target/new");
            let names = below(&target);
            (vec![root], target, names)
        }
        _ => {
            let target = PathBuf::from("/target/tree");
            world.add_directory(&target);
            let names = below(&target);
            for (source, target) in &names {
                let parent = target.parent().unwrap();
                let is_regular =
                    world.status(source).is_some_and(|it| it.kind == FileKind::Regular);
                if is_regular && random.once_in(3) {
                    if world.status(parent).is_none() {
                        world.add_directory(parent);
                    }
                    world.add_file(target, content(random));
                }
            }
            (vec![root], "/target".into(), names)
        }
    }
}

/// The directories that are copied into at once.
const FIRST: &str = "/target/first";
const SECOND: &str = "/target/second";

/// Makes a copy one to two directories; returns which file so becomes which. What stands at a target
/// stands there in one of them, both or none.
fn choose_several(
    world: &SimulatedWorld,
    random: &mut Random,
    request: &mut Request,
    names: &[(PathBuf, PathBuf)],
) -> Vec<(PathBuf, PathBuf)> {
    request.also = vec![SECOND.into()];
    (request.target, request.target_role) = (FIRST.into(), TargetRole::Directory);
    request.options.selection.remove_source_files = false;
    let is_tree = request.sources == [Path::new("/source/tree")];
    let mut mapped = Vec::new();
    for root in [FIRST, SECOND].map(Path::new) {
        world.add_directory(root);
        for (source, old) in names {
            let relative = match is_tree {
                true => source.strip_prefix("/source").unwrap(),
                false => Path::new(source.file_name().unwrap()),
            };
            let target = root.join(relative);
            if world.status(old).is_some_and(|it| it.kind == FileKind::Regular) && random.once_in(2)
            {
                let above: Vec<&Path> = relative.ancestors().skip(1).collect();
                for above in above.into_iter().rev().map(|above| root.join(above)) {
                    if world.status(&above).is_none() {
                        world.add_directory(&above);
                    }
                }
                world.add_file(&target, content(random));
            }
            mapped.push((source.clone(), target));
        }
    }
    mapped
}

fn choose_options(request: &mut Request, random: &mut Random) {
    // The name of a new directory means that directory in a second run, too.
    let is_name = request.target == Path::new("/target/new");
    request.target_role = if is_name { TargetRole::Name } else { TargetRole::Guess };
    let options = &mut request.options;
    options.block_bytes = 4096;
    options.depth = 1 + u32::try_from(random.below(4)).unwrap();
    options.small_bytes_max = [512, 4096, 16_384][pick(random, 3)];
    options.large_bytes_min = [1, 8192, 1 << 20][pick(random, 3)];
    options.direct = [Direct::Auto, Direct::On, Direct::Off][pick(random, 3)];
    options.reflink = [Reflink::Auto, Reflink::Never][pick(random, 2)];
    options.holes = [Holes::Auto, Holes::Auto, Holes::Always, Holes::Never][pick(random, 4)];
    options.pipeline = [PipelineMode::Unlinked, PipelineMode::Linked][pick(random, 2)];
    options.durability = [Durability::None, Durability::Data, Durability::Full][pick(random, 3)];
    options.stage = if random.once_in(4) { Stage::Never } else { Stage::Auto };
    options.resume_bytes_min = [1, 8192, 1 << 20][pick(random, 3)];
    options.journal_every_bytes = [1, 512, 4096][pick(random, 3)];
    options.resume = if random.once_in(8) { Resume::Never } else { Resume::Auto };
    options.in_place = random.once_in(8);
    options.look_ahead = [LookAhead::Auto, LookAhead::Always][pick(random, 2)];
    options.open_directories_max = [None, Some(0), Some(1)][pick(random, 3)];
    options.selection.remove_source_files = random.once_in(6);
    if random.once_in(3) {
        options.preserve = Preserve {
            mode: KeepMode::Lists,
            ownership: true,
            links: true,
            attributes: Keep::Silently,
            is_asked: true,
            ..Preserve::default()
        };
    }
}

/// A third of the copies is verified, and as many have a digest of each file, or both.
fn choose_verification(request: &mut Request, random: &mut Random) {
    let verification = &mut request.options.verification;
    verification.verify = random.once_in(3).then_some(Algorithm::Xxh3_128);
    verification.digest = random.once_in(3).then_some(Algorithm::Crc32c);
}

/// A few copies are told what to leave in the page cache. What is put on the device after it was
/// verified could not be told from what was before.
fn choose_cache(request: &mut Request, random: &mut Random) {
    let options = &mut request.options;
    options.cache = match random.below(8) {
        0 if options.direct != Direct::On => CachePolicy::Keep,
        1 | 2 if options.verification.verify.is_none() => CachePolicy::Bypass,
        _ => CachePolicy::Auto,
    };
}

fn pick(random: &mut Random, count: u64) -> usize {
    usize::try_from(random.below(count)).unwrap()
}

#[test]
fn a_source_that_shrinks_while_it_is_read_directly_is_copied_again() {
    let mut times_again = 0;
    for completions in 0..60 {
        let world = SimulatedWorld::new();
        world.add_file("/source", vec![7; 90_000]);
        let shrink = move |world: &SimulatedWorld| {
            world.remove("/elsewhere");
            assert!(world.change("/source", Fault::SourceShrunk, &mut Random::new(completions)));
        };
        world.add_file("/elsewhere", "still there");
        let plan = FaultPlan::none().call_after(completions, shrink);
        let mut request = Request::new(["/source"], "/target");
        request.options.direct = Direct::On;
        request.options.reflink = Reflink::Never;
        (request.options.small_bytes_max, request.options.block_bytes) = (4096, 4096);
        request.options.large_bytes_min = 80_000;
        let proactor = Proactor::new(Box::new(SimulatedProcessor::new(1, 64, &world, plan)));
        let cancellation = Cancellation::default();
        let copied = copy_on(&proactor, &request, &(), &Progress::default(), &cancellation);
        assert_eq!(copied.unwrap().failed, 0, "shrunk after {completions} completions");
        if world.status("/elsewhere").is_none() {
            times_again += 1;
            let length = world.read("/source").unwrap().len();
            assert!([length, 90_000].contains(&world.read("/target").unwrap().len()));
        }
    }
    assert!(times_again > 10, "it shrank {times_again} times");
}

/// Copies a file that is rewritten and grows at some moments; says whether the copy was marked.
fn copy_changing(
    allow_changed: bool,
    large_bytes_min: u64,
    moments: impl Iterator<Item = u64>,
) -> (Summary, SimulatedWorld, bool) {
    let world = SimulatedWorld::new();
    world.add_file("/source", vec![7; 90_000]);
    world.add_file("/target", "old");
    let mut plan = FaultPlan::none();
    for moment in moments {
        plan = plan.call_after(moment, move |world: &SimulatedWorld| {
            let mut random = Random::new(moment);
            assert!(world.change("/source", Fault::SourceRewritten, &mut random));
            assert!(world.change("/source", Fault::SourceGrown, &mut random));
        });
    }
    let mut request = Request::new(["/source"], "/target");
    let options = &mut request.options;
    (options.reflink, options.allow_changed) = (Reflink::Never, allow_changed);
    (options.small_bytes_max, options.block_bytes) = (4096, 4096);
    options.large_bytes_min = large_bytes_min;
    let proactor = Proactor::new(Box::new(SimulatedProcessor::new(1, 64, &world, plan)));
    let marked = Marked::default();
    let copied =
        copy_on(&proactor, &request, &marked, &Progress::default(), &Cancellation::default());
    let is_marked = *marked.0.lock().unwrap();
    (copied.unwrap(), world, is_marked)
}

#[derive(Default)]
struct Marked(Mutex<bool>);

impl Observer for Marked {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Copied(copied) = event {
            *self.0.lock().unwrap() = copied.is_of_changed;
        }
    }
}

#[test]
fn a_source_that_is_rewritten_and_grows_is_never_published_torn() {
    for large_bytes_min in [1, 1 << 20] {
        let mut again = 0;
        for moment in 0..200 {
            let once = std::iter::once(moment);
            let (summary, world, is_marked) = copy_changing(false, large_bytes_min, once);
            assert_eq!((summary.failed, is_marked), (0, false), "after {moment} operations");
            let (now, copy) = (world.read("/source").unwrap(), world.read("/target").unwrap());
            let is_old = copy == vec![7; 90_000];
            let is_new = copy == now || copy == now[..90_000];
            assert!(is_old || is_new, "the copy is torn after {moment} operations");
            again += u32::from(is_new);
        }
        assert!(again > 20, "it was copied again {again} times");
    }
}

#[test]
fn a_source_that_never_stands_still_is_discarded_or_marked() {
    for large_bytes_min in [1, 1 << 20] {
        let (summary, world, _) = copy_changing(false, large_bytes_min, 0..2000);
        assert_eq!(summary.failure, Some(ErrorKind::SourceChanged));
        assert_eq!(world.read("/target").as_deref(), Some(b"old".as_slice()));
        let (summary, world, is_marked) = copy_changing(true, large_bytes_min, 0..2000);
        assert_eq!((summary.failed, is_marked), (0, true));
        assert!(world.read("/target").unwrap().len() >= 90_000);
    }
}

/// A copy of a directory with one file that keeps a journal, into a new directory.
fn journalled_tree() -> (SimulatedWorld, Request) {
    let world = SimulatedWorld::new();
    for directory in ["/proc/self", "/source", "/source/below"] {
        world.add_directory(directory);
    }
    world.add_file("/proc/self/status", "Name:\tucp\nUmask:\t0022\n");
    world.add_file(BOOT, "11111111-1111-4111-8111-111111111111\n");
    world.add_file("/source/below/large", content_of(90_001));
    world.add_file("/source/small", "small");
    world.set_mode("/source/below/large", 0o444);
    world.pass(Duration::from_secs(60));
    let mut request = Request::new(["/source"], "/target");
    request.target_role = TargetRole::Name;
    let options = &mut request.options;
    (options.reflink, options.small_bytes_max, options.block_bytes) = (Reflink::Never, 4096, 4096);
    (options.large_bytes_min, options.resume_bytes_min) = (8192, 8192);
    (options.journal_every_bytes, options.depth) = (4096, 2);
    (world, request)
}

fn content_of(length: usize) -> Vec<u8> {
    let mut random = Random::new(length as u64);
    (0..length).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// Copies once more, with nothing going wrong. Returns how many bytes of the large file were there.
fn go_on(world: &SimulatedWorld, request: &Request, what: &str) -> u64 {
    let proactor =
        Proactor::new(Box::new(SimulatedProcessor::new(3, 64, world, FaultPlan::none())));
    let resumed = Resumed::default();
    let cancellation = Cancellation::default();
    let copied = copy_on(&proactor, request, &resumed, &Progress::default(), &cancellation);
    assert_eq!(copied.unwrap().failed, 0, "{what}");
    let large = tree(world, "/target").remove(Path::new("/target/below/large"));
    let large = large.unwrap_or_else(|| panic!("{what}: it is not there"));
    assert!(Some(large.content) == world.read("/source/below/large"), "{what}: it is torn");
    let source = world.status("/source/below/large").unwrap();
    assert_eq!(
        (large.status.mode, large.status.modified),
        (source.mode, source.modified),
        "{what}"
    );
    for (path, entry) in tree(world, "/") {
        assert!(!is_temporary(&path), "{what}: {path:?} is left");
        assert!(!is_marked(&entry), "{what}: {path:?} has its mark");
    }
    resumed.0.into_inner().unwrap()
}

#[derive(Default)]
struct Resumed(Mutex<u64>);

impl Observer for Resumed {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Copied(copied) = event {
            *self.0.lock().unwrap() += copied.resumed_bytes;
        }
    }
}

/// Interrupts the copy after so many completions, in one way; false if it had ended by then.
fn interrupt(
    world: &SimulatedWorld,
    request: &Request,
    completions: u64,
    kills: bool,
) -> Option<SimulatedWorld> {
    let left: Rc<RefCell<Option<SimulatedWorld>>> = Rc::default();
    let (leave, cancellation) = (Rc::clone(&left), Cancellation::default());
    let cancel = cancellation.clone();
    let plan = FaultPlan::none().call_after(completions, move |world: &SimulatedWorld| {
        *leave.borrow_mut() = Some(if kills { world.after_kill() } else { world.clone() });
        if !kills {
            cancel.cancel();
        }
    });
    let proactor = Proactor::new(Box::new(SimulatedProcessor::new(1, 64, world, plan)));
    let _ = copy_on(&proactor, request, &(), &Progress::default(), &cancellation);
    left.take()
}

#[test]
fn a_large_file_in_a_stage_is_gone_on_with_wherever_it_was_interrupted() {
    for kills in [true, false] {
        let (mut most, mut again) = (0, 0);
        for completions in 0.. {
            let (world, request) = journalled_tree();
            let what =
                format!("{} after {completions}", if kills { "killed" } else { "cancelled" });
            let Some(world) = interrupt(&world, &request, completions, kills) else { break };
            // And once more, somewhere in what is left to do.
            let world = interrupt(&world, &request, completions / 2, true).unwrap_or(world);
            let resumed = go_on(&world, &request, &what);
            most = most.max(resumed);
            again += u32::from(resumed > 0);
        }
        assert!(most >= 80_000 && again > 20, "kills {kills}: {most} bytes at most, {again} times");
    }
}

#[test]
fn the_journal_of_a_file_in_a_stage_is_not_believed_of_anything_else() {
    type Spoil = fn(&SimulatedWorld);
    let cases: [(&str, Spoil); 4] = [
        ("the same", |_| {}),
        ("another boot", |world| world.add_file(BOOT, "22222222-2222-4222-8222-222222222222\n")),
        ("a source of other bytes", |world| {
            let mut random = Random::new(5);
            let path = "/source/below/large";
            assert!(world.change(path, Fault::SourceRewritten, &mut random));
        }),
        ("a source that grew", |world| {
            let mut random = Random::new(5);
            assert!(world.change("/source/below/large", Fault::SourceGrown, &mut random));
        }),
    ];
    for (what, spoil) in cases {
        let mut again = 0;
        for completions in 0.. {
            let (world, request) = journalled_tree();
            let Some(world) = interrupt(&world, &request, completions, true) else { break };
            spoil(&world);
            again += u32::from(go_on(&world, &request, what) > 0);
        }
        assert_eq!(again > 20, what == "the same", "{what}: {again} times");
    }
}
