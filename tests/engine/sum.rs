//! Sums on the simulated processor: files and trees with everything going wrong that a seed asks for.
//! Whatever happens, no file gets a digest that its bytes did not have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ucp_engine::cache_policy::CachePolicy;
use ucp_engine::copy::{Cancellation, Progress};
use ucp_engine::digest::{Algorithm, Digest, ListedDigest};
use ucp_engine::operation::FileKind;
use ucp_engine::processor::{
    Fault, FaultPlan, MountOptions, OperationKind, SimulatedProcessor, SimulatedWorld,
};
use ucp_engine::random::Random;
use ucp_engine::sum::{
    ByteRange, Event, Expected, Observer, Options, Request, Summary, Verdict, check_on, sum_on,
};
use ucp_engine::{Errno, ErrorKind, Proactor};

/// How many sums are simulated, unless `UCP_SIMULATIONS` asks for another number.
const SIMULATIONS: u64 = 1_000;

/// What was told, in order.
#[derive(Debug, Default)]
struct Told {
    summed: Vec<(PathBuf, Vec<Digest>)>,
    failed: Vec<(Option<PathBuf>, Option<u64>, ErrorKind)>,
    skipped: Vec<PathBuf>,
    verdicts: Vec<(PathBuf, Verdict)>,
}

#[derive(Default)]
struct Listener(Mutex<Told>);

impl Observer for Listener {
    fn on_event(&self, event: &Event<'_>) {
        let mut told = self.0.lock().unwrap();
        match event {
            Event::Summed(summed) => {
                told.summed.push((summed.path.to_owned(), summed.digests.to_vec()));
            }
            Event::Failed(error) => {
                let path = error.path().map(Path::to_owned);
                told.failed.push((path, error.offset_bytes(), error.kind()));
            }
            Event::Skipped { path, .. } => told.skipped.push((*path).to_owned()),
            Event::Checked { path, verdict } => {
                told.verdicts.push(((*path).to_owned(), (*verdict).clone()));
            }
            _ => {}
        }
    }
}

/// Everything small, so that a few KiB take every way.
fn options() -> Options {
    Options {
        block_bytes: 4096,
        small_bytes_max: 4096,
        large_bytes_min: 20_000,
        depth: 3,
        sort_bytes_max: 200,
        ..Options::default()
    }
}

fn request(algorithms: &[Algorithm], operands: &[&str]) -> Request {
    let request = Request::new(Algorithm::Blake3, operands);
    Request { algorithms: algorithms.to_vec(), options: options(), ..request }
}

fn sum(world: &SimulatedWorld, seed: u64, plan: FaultPlan, request: &Request) -> (Told, Summary) {
    let (listener, progress) = (Listener::default(), Progress::default());
    let proactor = Proactor::new(Box::new(SimulatedProcessor::new(seed, 64, world, plan)));
    let cancellation = Cancellation::default();
    let summary = sum_on(&proactor, request, &listener, &progress, &cancellation).unwrap();
    (listener.0.into_inner().unwrap(), summary)
}

fn content(random: &mut Random, length: u64) -> Vec<u8> {
    (0..length).map(|_| random.next().to_le_bytes()[0]).collect()
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn world(random: &mut Random) -> (SimulatedWorld, BTreeMap<PathBuf, Vec<u8>>) {
    let direct_alignment = if random.once_in(2) { Some((512, 512)) } else { None };
    let options = MountOptions {
        direct_alignment,
        tells_entry_kinds: !random.once_in(4),
        ..MountOptions::default()
    };
    let world = SimulatedWorld::with_root(options);
    world.add_directory("/tmp");
    let mut files = BTreeMap::new();
    for number in 0..1 + random.below(9) {
        let folder = ["/tree", "/tree/a", "/tree/a/b", "/tree/z"][index(random.below(4))];
        let limit = [3, 5000, 30_000, 60_000][index(random.below(4))];
        let bytes = random.below(limit);
        let path = PathBuf::from(format!("{folder}/{number}"));
        let bytes = content(random, bytes);
        world.add_directory(folder);
        world.add_file(&path, &bytes);
        files.insert(path, bytes);
    }
    world.add_directory("/tree");
    (world, files)
}

#[test]
fn no_digest_is_wrong_whatever_goes_wrong() {
    let count = std::env::var("UCP_SIMULATIONS").ok().and_then(|it| it.parse().ok());
    let (mut whole, mut failing, mut changed, mut direct) = (0, 0, 0, 0);
    for seed in 0..count.unwrap_or(SIMULATIONS) {
        let mut random = Random::new(seed);
        let (world, before) = world(&mut random);
        let mut plan = if random.once_in(4) { FaultPlan::none() } else { FaultPlan::swarm(seed) };
        // What is written is only what does not fit into memory.
        for path in before.keys() {
            plan = plan.with_sources(path);
        }
        let record = plan.record();
        let mut algorithms = vec![Algorithm::ALL[index(random.below(8))]];
        if random.once_in(3) {
            algorithms = vec![Algorithm::Crc32c, Algorithm::Blake3, Algorithm::Md5];
        }
        let mut request = request(&algorithms, &["/tree"]);
        request.options.cache =
            [CachePolicy::Auto, CachePolicy::Keep, CachePolicy::Bypass][index(random.below(3))];
        direct += u64::from(request.options.cache == CachePolicy::Bypass);
        let (told, summary) = sum(&world, seed, plan, &request);
        let changes = record.changes();
        for (path, digests) in &told.summed {
            let of = |bytes: &[u8]| -> Vec<Digest> {
                algorithms.iter().map(|algorithm| algorithm.digest(bytes)).collect()
            };
            let times = changes.iter().filter(|change| change.path == *path).count();
            let Some(bytes) = before.get(path) else { panic!("seed {seed}: {path:?} is no file") };
            let is_right = *digests == of(bytes)
                || (times > 0 && world.read(path).is_some_and(|now| *digests == of(&now)))
                // Between two changes it had bytes that nobody knows here.
                || times > 1;
            assert!(is_right, "seed {seed}: {path:?}, {times} changes");
        }
        assert!(told.summed.is_sorted_by_key(|(path, _)| path), "seed {seed}: {:?}", told.summed);
        assert_eq!(told.failed.len() as u64, summary.failed, "seed {seed}");
        if summary.failed == 0 && summary.skipped == 0 && changes.is_empty() {
            let summed: Vec<_> = told.summed.iter().map(|(path, _)| path).collect();
            assert_eq!(summed, before.keys().collect::<Vec<_>>(), "seed {seed}");
            whole += 1;
        }
        failing += u64::from(summary.failed > 0);
        changed += u64::from(!changes.is_empty());
        assert_eq!(world.open_files(), Vec::<String>::new(), "seed {seed}");
    }
    println!("{whole} whole, {failing} failing, {changed} changed, {direct} past the cache");
    assert!(whole > 100 && failing > 100 && changed > 100, "{whole} {failing} {changed}");
}

#[test]
fn a_read_error_at_each_block_is_told_with_its_byte_and_the_others_are_summed() {
    let mut random = Random::new(1);
    let bytes = content(&mut random, 50_000);
    for cache in [CachePolicy::Auto, CachePolicy::Keep, CachePolicy::Bypass] {
        for block in 0..13 {
            let world = SimulatedWorld::new();
            world.add_directory("/tmp");
            world.add_file("/large", &bytes);
            world.add_file("/other", b"abc");
            let mut request = request(&[Algorithm::Sha256], &["/large"]);
            request.options.cache = cache;
            // One after the other, so that the n-th read is of the n-th block.
            request.options.depth = 1;
            let plan = FaultPlan::none().fail_nth(block + 1, OperationKind::Read, Errno::EIO);
            let (told, summary) = sum(&world, 7, plan, &request);
            assert!(told.summed.is_empty());
            let want = (Some("/large".into()), Some(4096 * block), ErrorKind::Storage);
            assert_eq!(told.failed, [want], "{cache:?}");
            assert_eq!((summary.files, summary.failed), (0, 1));
            request.operands = Request::new(Algorithm::Sha256, ["/large", "/other"]).operands;
            let plan = FaultPlan::none().fail_nth(block + 1, OperationKind::Read, Errno::EIO);
            let (told, _) = sum(&world, 7, plan, &request);
            assert_eq!(told.failed.len() + told.summed.len(), 2, "each is told of");
        }
    }
}

#[test]
fn an_error_in_a_file_that_is_read_in_turn_has_its_byte() {
    for block in 0..3 {
        let world = SimulatedWorld::new();
        world.add_file("/file", vec![7; 10_000]);
        let plan = FaultPlan::none().fail_nth(block + 1, OperationKind::Read, Errno::EIO);
        let (told, _) = sum(&world, 7, plan, &request(&[Algorithm::Md5], &["/file"]));
        let want = (Some("/file".into()), Some(4096 * block), ErrorKind::Storage);
        assert_eq!(told.failed, [want]);
    }
}

#[test]
fn a_file_that_shrinks_or_grows_or_is_rewritten_is_a_failure() {
    for fault in [Fault::SourceShrunk, Fault::SourceGrown, Fault::SourceRewritten] {
        let (mut failed, mut summed) = (0, 0);
        for seed in 0..60 {
            for size in [9_000, 50_000] {
                let world = SimulatedWorld::new();
                let bytes = content(&mut Random::new(seed), size);
                world.add_file("/file", &bytes);
                let change = move |world: &SimulatedWorld| {
                    world.change("/file", fault, &mut Random::new(seed));
                };
                let plan = FaultPlan::none().call_after(seed % 20, change);
                let request = request(&[Algorithm::Xxh3_64], &["/file"]);
                let (told, _) = sum(&world, seed, plan, &request);
                let after = world.read("/file").unwrap();
                for (_, digests) in &told.summed {
                    let now = Algorithm::Xxh3_64.digest(&after);
                    let before = Algorithm::Xxh3_64.digest(&bytes);
                    assert!(digests[0] == now || digests[0] == before, "{fault} {seed} {size}");
                }
                for (_, _, kind) in &told.failed {
                    assert_eq!(*kind, ErrorKind::SourceChanged, "{fault} {seed} {size}");
                }
                failed += told.failed.len();
                summed += told.summed.len();
            }
        }
        assert!(failed > 10 && summed > 10, "{fault}: {failed} {summed}");
    }
}

#[test]
fn what_does_not_fit_into_memory_is_in_order_all_the_same_and_leaves_nothing() {
    for sort_bytes_max in [1, 100, 10_000, 1 << 20] {
        let world = SimulatedWorld::new();
        world.add_directory("/tmp");
        let mut want = Vec::new();
        for number in 0..300 {
            let path = format!("/tree/{}/{}", number % 7, "long".repeat(number % 11));
            world.add_directory(format!("/tree/{}", number % 7));
            let path = format!("{path}{number}");
            world.add_file(&path, path.as_bytes());
            want.push((PathBuf::from(&path), vec![Algorithm::Md5.digest(path.as_bytes())]));
        }
        want.sort_by(|(one, _), (other, _)| one.as_os_str().cmp(other.as_os_str()));
        let mut request = request(&[Algorithm::Md5], &["/tree"]);
        request.options.sort_bytes_max = sort_bytes_max;
        let (told, summary) = sum(&world, 3, FaultPlan::none(), &request);
        assert!(told.summed == want, "{sort_bytes_max}: {:?}", told.summed);
        assert_eq!((summary.files, summary.failed), (300, 0));
        assert_eq!(world.files("/tmp"), Vec::<PathBuf>::new());
    }
}

#[test]
fn operands_are_told_of_in_their_order_with_trees_between_files() {
    let world = SimulatedWorld::new();
    world.add_directory("/tmp");
    for path in ["/b", "/tree/y", "/tree/x", "/a", "/other/z"] {
        world.add_directory(Path::new(path).parent().unwrap());
        world.add_file(path, path);
    }
    world.add_node("/tree/fifo", FileKind::Fifo, 0);
    world.add_symlink("/tree/link", "x");
    world.add_symlink("/link", "/a");
    let operands = ["/b", "/tree", "/nosuch", "/link", "/other", "/a", "/b"];
    for seed in 0..50 {
        let request = request(&[Algorithm::Crc32], &operands);
        let (told, summary) = sum(&world, seed, FaultPlan::none(), &request);
        let names: Vec<_> = told.summed.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        let want = ["/b", "/tree/x", "/tree/y", "/link", "/other/z", "/a", "/b"];
        assert_eq!(names, want, "seed {seed}");
        assert_eq!(told.skipped, [PathBuf::from("/tree/fifo")]);
        assert_eq!((summary.files, summary.skipped, summary.failed), (7, 1, 1));
        assert_eq!(told.failed[0].0, Some(PathBuf::from("/nosuch")));
    }
}

#[test]
fn a_range_is_summed_alone_whatever_its_alignment() {
    let bytes = content(&mut Random::new(5), 60_000);
    let world = SimulatedWorld::new();
    world.add_file("/file", &bytes);
    let cases = [(0, 1), (4096, 30_000), (5, 40_000), (59_999, 1), (60_000, 0), (123, 4096)];
    for (offset, length) in cases {
        for algorithm in [Algorithm::Blake3, Algorithm::Sha512] {
            let mut request = request(&[algorithm], &["/file"]);
            let range = ByteRange { offset_bytes: offset, length_bytes: Some(length) };
            request.options.range = Some(range);
            let (told, summary) = sum(&world, 1, FaultPlan::none(), &request);
            let part = &bytes[index(offset)..index(offset + length)];
            assert_eq!(told.summed[0].1, [algorithm.digest(part)], "{offset} {length}");
            assert_eq!(summary.bytes, length);
        }
    }
    let mut request = request(&[Algorithm::Md5], &["/file"]);
    request.options.range = Some(ByteRange { offset_bytes: 59_999, length_bytes: Some(2) });
    let (told, _) = sum(&world, 1, FaultPlan::none(), &request);
    assert_eq!(told.failed[0].2, ErrorKind::Operand);
}

#[test]
fn a_sum_that_is_cancelled_stops_and_says_so() {
    for completions in [1, 5, 20, 40] {
        let (world, before) = world(&mut Random::new(9));
        let (listener, progress) = (Listener::default(), Progress::default());
        let cancellation = Cancellation::default();
        let cancel = {
            let cancellation = cancellation.clone();
            move |_: &SimulatedWorld| cancellation.cancel()
        };
        let plan = FaultPlan::none().call_after(completions, cancel);
        let proactor = Proactor::new(Box::new(SimulatedProcessor::new(1, 64, &world, plan)));
        let request = request(&[Algorithm::Md5], &["/tree"]);
        let summary = sum_on(&proactor, &request, &listener, &progress, &cancellation).unwrap();
        assert!(summary.was_cancelled, "{completions}: {summary:?}");
        let told = listener.0.into_inner().unwrap();
        assert!(told.failed.is_empty() && told.summed.len() < before.len());
        drop(proactor);
        assert_eq!(world.open_files(), Vec::<String>::new());
    }
}

#[test]
fn a_limited_rate_is_kept_in_virtual_time() {
    for large_bytes_min in [1, 1 << 40] {
        let world = SimulatedWorld::new();
        world.add_file("/file", vec![7; 1_000_000]);
        let mut request = request(&[Algorithm::Xxh3_128], &["/file"]);
        request.options.large_bytes_min = large_bytes_min;
        request.options.bytes_per_second_max = std::num::NonZero::new(100_000);
        let (_, summary) = sum(&world, 1, FaultPlan::none(), &request);
        let seconds = summary.elapsed.as_secs_f64();
        assert!((9.6..10.5).contains(&seconds), "{seconds} s for {large_bytes_min}");
    }
}

#[test]
fn files_are_held_against_lists_in_order() {
    let world = SimulatedWorld::new();
    world.add_file("/sha", "abc");
    world.add_file("/blake", "abc");
    world.add_file("/other", "abd");
    let (sha, blake) = (Algorithm::Sha256.digest(b"abc"), Algorithm::Blake3.digest(b"abc"));
    let lines = [
        format!("{sha}  /sha"),
        format!("{blake}  /blake"),
        format!("{sha}  /other"),
        format!("{sha}  /nosuch"),
        format!("SHA256 (/sha) = {sha}"),
    ];
    for seed in 0..30 {
        let expected: Vec<Expected> = lines
            .iter()
            .map(|line| ListedDigest::parse(line.as_bytes(), &[]).unwrap().into())
            .collect();
        let (listener, progress) = (Listener::default(), Progress::default());
        let plan = FaultPlan::none();
        let proactor = Proactor::new(Box::new(SimulatedProcessor::new(seed, 64, &world, plan)));
        let summary = check_on(
            &proactor,
            expected.into_iter(),
            &options(),
            &listener,
            &progress,
            &Cancellation::default(),
        )
        .unwrap();
        let told = listener.0.into_inner().unwrap();
        let verdicts: Vec<_> = told
            .verdicts
            .iter()
            .map(|(path, verdict)| {
                let verdict = match verdict {
                    Verdict::Same(digest) => digest.algorithm().name(),
                    Verdict::Differs { .. } => "differs",
                    Verdict::Missing(_) => "missing",
                    Verdict::Failed(_) => "failed",
                };
                (path.to_str().unwrap(), verdict)
            })
            .collect();
        let want = [
            ("/sha", "sha256"),
            ("/blake", "blake3"),
            ("/other", "differs"),
            ("/nosuch", "missing"),
            ("/sha", "sha256"),
        ];
        assert_eq!(verdicts, want, "seed {seed}");
        assert_eq!((summary.differing, summary.missing, summary.failed), (1, 1, 0));
    }
}
