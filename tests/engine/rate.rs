//! A copy whose rate is limited asks for waits of the right length, in virtual time.

use std::num::NonZero;
use std::time::Duration;

use ucp_engine::Proactor;
use ucp_engine::copy::{
    Cancellation, Direct, PipelineMode, Progress, Reflink, Request, Summary, TargetRole, copy_on,
};
use ucp_engine::processor::{FaultPlan, MountOptions, SimulatedProcessor, SimulatedWorld};

/// 100 KiB a second.
const RATE: u64 = 100 << 10;

/// How long the bytes take at that rate, whatever moves them, and how much less that may be: what
/// nobody used at first, and the last piece, after which nothing waits.
const TOLERANCE: Duration = Duration::from_millis(250);

const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// Copies, and cancels it after a time.
fn copy(
    world: &SimulatedWorld,
    cancelled_after: Duration,
    change: impl FnOnce(&mut Request),
) -> Summary {
    let mut request = Request::new(["/source"], "/target");
    request.target_role = TargetRole::Name;
    request.options.selection.bytes_per_second_max = NonZero::new(RATE);
    request.options.reflink = Reflink::Never;
    request.options.block_bytes = 64 << 10;
    change(&mut request);
    let processor = SimulatedProcessor::new(1, 64, world, FaultPlan::none());
    let proactor = Proactor::new(Box::new(processor));
    let (cancellation, sleep) =
        (Cancellation::default(), proactor.initiator().sleep(cancelled_after));
    let cancel = cancellation.clone();
    let cancelling = async move {
        sleep.await;
        cancel.cancel();
    };
    drop(proactor.initiator().spawn(cancelling).unwrap());
    copy_on(&proactor, &request, &(), &Progress::default(), &cancellation).unwrap()
}

fn world() -> SimulatedWorld {
    let options = MountOptions { direct_alignment: Some((512, 512)), ..MountOptions::default() };
    SimulatedWorld::with_root(options)
}

#[test]
fn a_copy_takes_as_long_as_its_bytes_do() {
    type Change = fn(&mut Request);
    let cases: [(&str, Change); 5] = [
        ("small", |request| request.options.small_bytes_max = 1 << 20),
        ("small, many times", |request| {
            request.options.small_bytes_max = 4096;
            request.options.large_bytes_min = 1 << 30;
        }),
        ("buffered", |request| {
            (request.options.small_bytes_max, request.options.large_bytes_min) = (1, 1);
            request.options.direct = Direct::Off;
        }),
        ("direct", |request| {
            (request.options.small_bytes_max, request.options.large_bytes_min) = (1, 1);
            request.options.direct = Direct::On;
        }),
        ("direct and linked", |request| {
            (request.options.small_bytes_max, request.options.large_bytes_min) = (1, 1);
            request.options.direct = Direct::On;
            request.options.pipeline = PipelineMode::Linked;
        }),
    ];
    // Ten seconds' worth; then the same in a tree, in files of every size, copied side by side.
    let content: Vec<u8> =
        (0..10 * RATE).map(|number| u8::try_from(number % 251).unwrap()).collect();
    for (what, change) in cases {
        let one = world();
        one.add_file("/source", &content);
        let many = world();
        many.add_directory("/source");
        let (mut rest, mut size) = (content.as_slice(), 1);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            many.add_file(format!("/source/{size}"), piece);
            (rest, size) = (after, size * 3 / 2 + 1);
        }
        for (world, shape) in [(one, "a file"), (many, "a tree")] {
            let summary = copy(&world, A_DAY, change);
            assert_eq!((summary.bytes, summary.failed), (10 * RATE, 0), "{what}, {shape}");
            let (least, most) = (Duration::from_secs(10) - TOLERANCE, Duration::from_secs(11));
            let took = summary.elapsed;
            assert!((least..most).contains(&took), "{what}, {shape}: {took:?}");
        }
    }
}

#[test]
fn a_copy_that_waits_notices_that_it_is_cancelled() {
    for small_bytes_max in [1 << 20, 1] {
        let world = world();
        world.add_file("/source", vec![7; 64 << 10]);
        let summary = copy(&world, Duration::from_secs(30), |request| {
            request.options.small_bytes_max = small_bytes_max;
            request.options.large_bytes_min = 1;
            // A day.
            request.options.selection.bytes_per_second_max = NonZero::new(1);
        });
        assert!(summary.was_cancelled);
        assert!(summary.elapsed < Duration::from_secs(60), "{:?}", summary.elapsed);
        assert!(world.status("/target").is_none());
    }
}

#[test]
fn without_a_limit_nothing_waits() {
    let world = world();
    world.add_file("/source", vec![7; 1 << 20]);
    let summary = copy(&world, A_DAY, |request| {
        request.options.selection.bytes_per_second_max = None;
    });
    assert!(summary.elapsed < Duration::from_secs(1), "{:?}", summary.elapsed);
}
