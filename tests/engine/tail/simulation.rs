//! A writer, rotation, a tail, a receiver, kills and power cuts, all on the simulated world, with
//! what goes wrong as a seed asks for it.
//!
//! `UCP_SEED=17` runs one seed and shows it; `UCP_SIMULATIONS=1000000` runs more.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use ucp_engine::Proactor;
use ucp_engine::buffer::BufferPool;
use ucp_engine::proactor::TaskInitiator;
use ucp_engine::processor::{
    Fault, FaultPlan, MountOptions, OperationKind, SimulatedProcessor, SimulatedWorld,
};
use ucp_engine::random::Random;
use ucp_engine::tail::{Batch, Change, Event, Options, Receipt, Tail};

use super::receiver::Receiver;
use super::writer::Writer;

/// How many the suite simulates, unless `UCP_SIMULATIONS` asks for another number.
const SIMULATIONS: u64 = 2_000;

/// Lines that came twice because a kill came upon a copy of what the checkpoint did not know so.
const UNKNOWN: &str = "lines of copies that a kill made unknown";

/// Longer than any copy is being made, with all slow operations.
const LINGER: Duration = Duration::from_secs(600);

type Counts = BTreeMap<String, u64>;

#[test]
fn no_line_is_lost_or_torn_whatever_goes_wrong() {
    if let Some(seed) = variable("UCP_SEED") {
        println!("seed {seed}: {:#?}", simulate(seed));
        return;
    }
    let mut total = Counts::new();
    for seed in 0..variable("UCP_SIMULATIONS").unwrap_or(SIMULATIONS) {
        let run = std::panic::catch_unwind(|| simulate(seed));
        let counts = run.unwrap_or_else(|_| panic!("seed {seed} fails"));
        for (what, count) in counts {
            *total.entry(what).or_default() += count;
        }
    }
    for (what, count) in &total {
        println!("{count:>9}  {what}");
    }
    let unknown = total.get(UNKNOWN).copied().unwrap_or(0);
    assert!(unknown * 500 <= total["lines"], "{unknown} lines came twice");
    for what in [
        "killed",
        "power cut",
        "rewound",
        "lines",
        "long lines",
        "duplicates",
        "overlaps",
        "event: found",
        "event: resumed",
        "event: renamed",
        "event: copied and truncated",
        "event: truncated",
        "event: deleted",
        "event: inode reused",
        "event: let go",
        "event: failed",
    ] {
        assert!(total.get(what).is_some_and(|count| *count > 0), "there was never: {what}");
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// What outlives the tail.
#[derive(Clone)]
struct Scene {
    world: SimulatedWorld,
    writer: Writer,
    receiver: Receiver,
}

/// What the hooks and the tail share in one life of it.
type Shared = Rc<RefCell<Scene>>;

fn simulate(seed: u64) -> Counts {
    let mut random = Random::new(seed);
    let options = MountOptions { reuses_inodes: true, ..MountOptions::default() };
    let world = SimulatedWorld::with_root(options);
    world.add_directory("/log");
    world.add_directory("/state");
    let line_max = [40, 40, 400][usize::try_from(random.below(3)).unwrap()];
    let writer = Writer::new(random.next(), random.once_in(3), line_max);
    let mut scene = Scene { world, writer, receiver: Receiver::default() };
    let mut counts = Counts::new();
    for _ in 0..random.below(3) {
        scene = live(scene, &mut random, false, &mut counts);
        scene.writer.on_kill();
        // The log goes on while nobody follows it.
        for _ in 0..random.below(6) {
            let Scene { world, writer, receiver } = &mut scene;
            let did = writer.step(world, receiver);
            trace(&0, &("meanwhile", did, world.describe("/log")));
        }
    }
    let scene = live(scene, &mut random, true, &mut counts);
    check(seed, &scene, &mut counts);
    counts
}

/// One life of the tail, up to a kill or, if it is the last one, until everything has arrived.
/// Returns what is left.
fn live(mut scene: Scene, random: &mut Random, is_last: bool, counts: &mut Counts) -> Scene {
    let seed = random.next();
    let mut plan = match random.once_in(2) {
        true => FaultPlan::none(),
        false if is_last => failing_now_and_then(),
        false => FaultPlan::swarm(seed),
    };
    let world = scene.world.clone();
    scene.receiver.begin_life();
    let is_narrow = scene.writer.is_narrow;
    let shared: Shared = Rc::new(RefCell::new(scene));
    let mut at = 0;
    let steps = random.below(40);
    let ahead = Rc::new(Cell::new(steps));
    for _ in 0..steps {
        at += random.below([10, 60][usize::try_from(seed & 1).unwrap()]);
        let shared = Rc::clone(&shared);
        let ahead = Rc::clone(&ahead);
        plan = plan.call_after(at, move |world| {
            ahead.set(ahead.get() - 1);
            let Scene { writer, receiver, .. } = &mut *shared.borrow_mut();
            let did = writer.step(world, receiver);
            trace(&at, &(did, world.describe("/log")));
        });
    }
    let left: Rc<RefCell<Option<Scene>>> = Rc::default();
    if !is_last {
        let (shared, left) = (Rc::clone(&shared), Rc::clone(&left));
        let is_cut = random.once_in(2);
        let what = if is_cut { "power cut" } else { "killed" };
        *counts.entry(what.to_owned()).or_default() += 1;
        plan = plan.call_after(random.below(at + 150), move |world| {
            let world = if is_cut { world.crash(seed) } else { world.after_kill() };
            *left.borrow_mut() = Some(Scene { world, ..shared.borrow().clone() });
        });
    }
    let proactor = Proactor::new(Box::new(SimulatedProcessor::new(seed, 64, &world, plan)));
    let tasks = proactor.initiator();
    let mut life = Life {
        tasks: tasks.clone(),
        random: Random::new(seed),
        shared: Rc::clone(&shared),
        left: Rc::clone(&left),
        is_last,
        ahead,
        in_flight: VecDeque::new(),
        receipts: Vec::new(),
        counts: Counts::new(),
    };
    let pool = BufferPool::unregistered(
        1 + u32::try_from(random.below(4)).unwrap(),
        [64, 200, 1000][usize::try_from(random.below(3)).unwrap()],
    );
    let mut options = Options::new("/state/checkpoint").follow("/log", move |name| {
        let name = name.as_bytes();
        name == b"log" || (!is_narrow && name.starts_with(b"log"))
    });
    options.look_every = Duration::from_micros(100 + random.below(3000));
    options.save_every = Duration::from_micros(100 + random.below(3000));
    options.linger = LINGER;
    let life = proactor.block_on(async move {
        life.run(pool.unwrap(), options).await;
        life
    });
    for (what, count) in life.counts {
        *counts.entry(what).or_default() += count;
    }
    drop(proactor);
    let scene = shared.borrow().clone();
    left.take().unwrap_or(scene)
}

/// Fails seldom enough to come to an end.
fn failing_now_and_then() -> FaultPlan {
    use OperationKind as K;
    let kinds = [K::Read, K::Statx, K::Open, K::ListDirectory, K::Write, K::Sync, K::Rename];
    let plan = FaultPlan::none().once_in(3, Fault::ShortTransfer, K::Read);
    kinds.into_iter().fold(plan, |plan, kind| plan.once_in(200, Fault::InputOutput, kind))
}

struct Life {
    tasks: TaskInitiator,
    random: Random,
    shared: Shared,
    left: Rc<RefCell<Option<Scene>>>,
    is_last: bool,
    /// How many things the writer has still to do.
    ahead: Rc<Cell<u64>>,
    /// Sent, and not arrived.
    in_flight: VecDeque<Batch>,
    /// Arrived, and not told.
    receipts: Vec<Receipt>,
    counts: Counts,
}

impl Life {
    async fn run(&mut self, pool: BufferPool, options: Options) {
        let mut tail = loop {
            let options = clone(&options, self.shared.borrow().writer.is_narrow);
            match Tail::start(&self.tasks, pool.clone(), options).await {
                Ok(tail) => break tail,
                Err(_) if self.left.borrow().is_some() => return,
                Err(_) => self.count("could not start"),
            }
        };
        let mut quiet = 0;
        for turn in 0.. {
            if self.left.borrow().is_some() {
                return;
            }
            if turn == 20_000 {
                trace(&turn, &"it does not come to an end");
                return;
            }
            match tail.advance().await {
                Some(event) => self.on_event(event),
                None => {
                    self.tasks.sleep(Duration::from_micros(200)).await;
                }
            }
            self.arrive(&mut tail);
            if !self.is_last {
                if turn > 1500 {
                    return;
                }
            } else if self.ahead.get() == 0 && self.is_complete(&tail, &mut quiet) {
                // What lingers ends, and nothing more may come.
                self.tasks.sleep(LINGER).await;
                quiet += 1;
                if quiet > 5 {
                    return;
                }
            }
        }
    }

    /// Whether everything has arrived that was written.
    fn is_complete(&mut self, tail: &Tail, quiet: &mut u32) -> bool {
        let Scene { world, writer, receiver } = &mut *self.shared.borrow_mut();
        if *quiet == 0 {
            writer.finish(world);
            *quiet = 1;
        }
        let is_idle = self.in_flight.is_empty() && self.receipts.is_empty() && tail.is_settled();
        is_idle && writer.must.iter().all(|line| writer.may.contains(line) || receiver.has(line))
    }

    fn on_event(&mut self, event: Event) {
        trace(&self.tasks.now().0, &event);
        match event {
            Event::Batch(batch) => self.in_flight.push_back(batch),
            Event::Failed(_) => self.count("event: failed"),
            Event::Change(change) => self.count(match change {
                Change::Found { .. } => "event: found",
                Change::Resumed { .. } => "event: resumed",
                Change::Renamed { .. } => "event: renamed",
                Change::CopyTruncated { .. } => "event: copied and truncated",
                Change::Truncated { .. } => "event: truncated",
                Change::Deleted { .. } => "event: deleted",
                Change::InodeReused { .. } => "event: inode reused",
                Change::LetGo { .. } => "event: let go",
                _ => "event: another",
            }),
        }
    }

    /// What the network and the receiver do meanwhile.
    fn arrive(&mut self, tail: &mut Tail) {
        if self.random.once_in(3)
            && let Some(batch) = self.in_flight.pop_front()
        {
            self.shared.borrow_mut().receiver.receive(&batch);
            self.receipts.push(batch.receipt());
        }
        if self.random.once_in(4) && !self.receipts.is_empty() {
            let at = self.random.below(self.receipts.len() as u64);
            let receipt = self.receipts.swap_remove(usize::try_from(at).unwrap());
            match self.random.once_in(2) {
                true => tail.acknowledge(receipt),
                false => tail.acknowledgements().put(receipt),
            }
        }
        if self.random.once_in(100) {
            // The connection is lost, with what is under way in either direction.
            self.count("rewound");
            self.in_flight.clear();
            if self.random.once_in(2) {
                self.receipts.clear();
            }
            tail.rewind();
        }
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }
}

/// Shows what happens where one seed is looked at.
pub(super) fn trace(when: &u64, what: &dyn std::fmt::Debug) {
    if std::env::var_os("UCP_SEED").is_some() {
        println!("{when:>12} {what:?}");
    }
}

/// The same once more.
fn clone(options: &Options, is_narrow: bool) -> Options {
    let mut clone = Options::new("/state/checkpoint").follow("/log", move |name| {
        let name = name.as_bytes();
        name == b"log" || (!is_narrow && name.starts_with(b"log"))
    });
    clone.look_every = options.look_every;
    clone.save_every = options.save_every;
    clone.linger = options.linger;
    clone
}

fn check(seed: u64, scene: &Scene, counts: &mut Counts) {
    let Scene { writer, receiver, .. } = scene;
    let lines = receiver.lines();
    for line in &writer.must {
        let text = String::from_utf8_lossy(line);
        let from = lines.get(line).cloned().unwrap_or_default();
        let is_lost = from.is_empty() && !writer.may.contains(line);
        assert!(!is_lost, "seed {seed}: {text:?} is lost: {:?}", writer.did);
        if from.len() == 2 && writer.twice.contains(line) {
            *counts.entry(UNKNOWN.to_owned()).or_default() += 1;
            continue;
        }
        assert!(from.len() <= 1, "seed {seed}: {text:?} came unmarked from each of {from:?}");
    }
    for line in lines.keys() {
        // Of a line that is longer than a batch a truncation may have taken the rest.
        let is_part = !line.ends_with(b"\n") && writer.may.iter().any(|it| it.starts_with(line));
        let is_known = is_part || writer.must.contains(line) || writer.may.contains(line);
        let text = String::from_utf8_lossy(line);
        assert!(is_known, "seed {seed}: {text:?} was never written so: {:?}", writer.did);
    }
    let mut add = |what: &str, count| *counts.entry(what.to_owned()).or_default() += count;
    add("lines", lines.len() as u64);
    add("long lines", receiver.long_lines);
    add("duplicates", receiver.duplicates);
    add("overlaps", receiver.overlaps);
    writer.did.iter().for_each(|what| add(&format!("writer: {what}"), 1));
}
