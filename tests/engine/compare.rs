//! Comparisons on the simulated processor: whatever goes wrong, what differs is not said to be the same.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use ucp_engine::Proactor;
use ucp_engine::cache_policy::CachePolicy;
use ucp_engine::compare::{Difference, Event, Observer, Request, Side, Summary, compare_on};
use ucp_engine::copy::{Cancellation, Progress};
use ucp_engine::processor::{FaultPlan, MountOptions, SimulatedProcessor, SimulatedWorld};
use ucp_engine::random::Random;
use ucp_engine::sum::Options;

#[derive(Default)]
struct Listener(Mutex<(Vec<(PathBuf, Difference)>, u64)>);

impl Observer for Listener {
    fn on_event(&self, event: &Event<'_>) {
        let mut told = self.0.lock().unwrap();
        match event {
            Event::Differs { path, difference } => {
                told.0.push(((*path).to_owned(), (*difference).clone()));
            }
            _ => told.1 += 1,
        }
    }
}

fn compare(
    world: &SimulatedWorld,
    seed: u64,
    plan: FaultPlan,
    cache: CachePolicy,
) -> (Vec<(PathBuf, Difference)>, u64, Option<Summary>) {
    let mut request = Request::new("/a", "/b");
    request.options = Options {
        cache,
        block_bytes: 4096,
        small_bytes_max: 4096,
        large_bytes_min: 20_000,
        depth: 4,
        ..Options::default()
    };
    let proactor = Proactor::new(Box::new(SimulatedProcessor::new(seed, 64, world, plan)));
    let (listener, progress) = (Listener::default(), Progress::default());
    let summary = compare_on(&proactor, &request, &listener, &progress, &Cancellation::default());
    let (differences, failures) = listener.0.into_inner().unwrap();
    (differences, failures, summary.ok())
}

/// Two trees that are mostly the same, and in what they differ.
fn trees(random: &mut Random) -> (SimulatedWorld, BTreeMap<PathBuf, Difference>) {
    let direct_alignment = random.once_in(2).then_some((512, 512));
    let world = SimulatedWorld::with_root(MountOptions {
        direct_alignment,
        tells_entry_kinds: !random.once_in(4),
        ..MountOptions::default()
    });
    for folder in ["/a", "/b", "/a/x", "/b/x"] {
        world.add_directory(folder);
    }
    let mut want = BTreeMap::new();
    for number in 0..random.below(8) {
        let name =
            [format!("{number}"), format!("x/{number}")][usize::from(random.once_in(2))].clone();
        let limit = [3, 5000, 60_000][usize::try_from(random.below(3)).unwrap()];
        let length = usize::try_from(1 + random.below(limit)).unwrap();
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
        world.add_file(format!("/a/{name}"), &bytes);
        let difference = match random.below(6) {
            0 => {
                want.insert(PathBuf::from(&name), Difference::OnlyIn(Side::A));
                continue;
            }
            1 => {
                let at = usize::try_from(random.below(length as u64)).unwrap();
                bytes[at..].iter_mut().for_each(|byte| *byte ^= 1);
                Some(Difference::Content(at as u64))
            }
            2 => {
                bytes.push(7);
                Some(Difference::Content(length as u64))
            }
            _ => None,
        };
        world.add_file(format!("/b/{name}"), &bytes);
        want.extend(difference.map(|difference| (PathBuf::from(&name), difference)));
    }
    world.add_file("/b/x/only", "x");
    want.insert("x/only".into(), Difference::OnlyIn(Side::B));
    (world, want)
}

#[test]
fn what_differs_is_told_or_its_failure_is_whatever_goes_wrong() {
    let (mut whole, mut failing) = (0, 0);
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let (world, want) = trees(&mut random);
        let plan = if random.once_in(3) { FaultPlan::none() } else { FaultPlan::swarm(seed) };
        let cache = if random.once_in(2) { CachePolicy::Auto } else { CachePolicy::Bypass };
        let (told, failures, summary) = compare(&world, seed, plan, cache);
        for (path, difference) in &told {
            assert_eq!(want.get(path), Some(difference), "seed {seed}: {path:?}");
        }
        let Some(summary) = summary else {
            failing += 1;
            continue;
        };
        assert_eq!(summary.failed, failures, "seed {seed}");
        if failures == 0 {
            assert_eq!(told, want.into_iter().collect::<Vec<_>>(), "seed {seed}");
            whole += 1;
        } else {
            failing += 1;
        }
        assert_eq!(world.open_files(), Vec::<String>::new(), "seed {seed}");
    }
    assert!(whole > 100 && failing > 100, "{whole} {failing}");
}
