//! Copies that the file system or its server makes by itself, and what becomes of them when it does not:
//! only "can't" is a reason to read and write instead. What may pass (no room, an I/O error) is a
//! failure, and a server that stops before the end says nothing.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ucp_engine::copy::{
    Attempt, Cancellation, DataPath, Direct, Event, Observer, Progress, Request, Stage, Summary,
    TargetRole, copy_on,
};
use ucp_engine::processor::{
    Fault, FaultPlan, MountOptions, OperationKind, SimulatedProcessor, SimulatedWorld,
};
use ucp_engine::random::Random;
use ucp_engine::{Errno, ErrorKind, Proactor};

/// NFS's (`linux/magic.h`).
const NFS: u64 = 0x6969;
const SIZE: u32 = 300_000;

type Refusal = (Attempt, Option<Errno>);

/// What was told of a copy.
#[derive(Debug, Default)]
struct Told {
    /// Of each file the path that it took, and what was refused before.
    copied: Vec<(Option<DataPath>, Vec<Refusal>)>,
    /// The kernel's answer, and the byte.
    failed: Vec<(Option<Errno>, Option<u64>)>,
}

#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Told>>);

impl Observer for Listener {
    fn on_event(&self, event: &Event<'_>) {
        let mut told = self.0.lock().unwrap();
        match event {
            Event::Copied(copied) if copied.bytes > 0 => {
                let fell_back = copied.fell_back.iter().map(|it| (it.from, it.errno)).collect();
                told.copied.push((copied.path, fell_back));
            }
            Event::Failed(error) => told.failed.push((error.errno(), error.offset_bytes())),
            _ => {}
        }
    }
}

fn content(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..SIZE).map(|_| u8::try_from(random.below(255) + 1).unwrap()).collect()
}

/// A tree of two files, and a directory that its copy goes to, where the first stands already.
fn world(mount: MountOptions) -> SimulatedWorld {
    let world = SimulatedWorld::with_root(mount);
    for directory in ["/proc/self", "/source", "/target"] {
        world.add_directory(directory);
    }
    for (seed, name) in [(1, "one"), (2, "two")] {
        world.add_file(format!("/source/{name}"), content(seed));
    }
    world.add_file("/target/one", "old");
    world
}

/// Copies `source` to the name in the target; returns what came of it, and what progress was told.
fn copy(world: &SimulatedWorld, plan: FaultPlan, source: &str) -> (Summary, Told, u64) {
    let target = if source == "/source" { "/target" } else { "/target/one" };
    let mut request = Request::new([source], target);
    request.target_role = TargetRole::Name;
    request.options.large_bytes_min = 1;
    request.options.small_bytes_max = 512;
    request.options.block_bytes = 4096;
    request.options.stage = Stage::Never;
    request.options.direct = Direct::Off;
    request.options.resume_bytes_min = 1;
    request.options.journal_every_bytes = 4096;
    let proactor = Proactor::new(Box::new(SimulatedProcessor::new(1, 64, world, plan)));
    let (listener, progress) = (Listener::default(), Progress::default());
    let copied = copy_on(&proactor, &request, &listener, &progress, &Cancellation::default());
    let told = std::mem::take(&mut *listener.0.lock().unwrap());
    (copied.unwrap(), told, progress.bytes().0)
}

#[track_caller]
fn nothing_is_left(world: &SimulatedWorld, case: &str) {
    let names = world.tree("/target").into_keys();
    let left: Vec<_> = names
        .filter(|name| {
            name.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b".ucp"))
        })
        .collect();
    assert_eq!(left, [""; 0].map(Path::new), "{case}");
    assert_eq!(world.open_files(), [""; 0], "{case}");
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// The server copies it.
    OnServer,
    /// It is read and written, since the server said this; none if it stopped before the end.
    Read(Option<Errno>),
    /// It fails, at this byte.
    Fails(Errno, u64),
}

#[test]
fn a_server_copies_whole_or_not_at_all_and_only_what_it_cannot_is_read() {
    use Outcome::{Fails, OnServer, Read};

    let fails = |number, errno| FaultPlan::none().fail_nth(number, OperationKind::CopyRange, errno);
    let short = || FaultPlan::none().once_in(1, Fault::ShortTransfer, OperationKind::CopyRange);
    let cut = |number, bytes| FaultPlan::none().cut_range(number, bytes);
    let fails_later = |errno| cut(1, 5000).fail_nth(2, OperationKind::CopyRange, errno);
    let cases = [
        ("nothing goes wrong", FaultPlan::none(), OnServer),
        ("each range is short", short(), OnServer),
        ("one byte, then the rest", cut(1, 1), OnServer),
        ("interrupted", fails(1, Errno::EINTR), OnServer),
        ("to be tried again", fails(1, Errno::EAGAIN), OnServer),
        ("to be tried again later", fails_later(Errno::EAGAIN), OnServer),
        ("0 at once", cut(1, 0), Read(None)),
        ("0 before the end", cut(1, 5000).cut_range(2, 0), Read(None)),
        ("another server", fails(1, Errno::EXDEV), Read(Some(Errno::EXDEV))),
        ("not supported", fails(1, Errno::EOPNOTSUPP), Read(Some(Errno::EOPNOTSUPP))),
        ("an old kernel", fails(1, Errno::ENOSYS), Read(Some(Errno::ENOSYS))),
        ("not such files", fails(1, Errno::EINVAL), Read(Some(Errno::EINVAL))),
        ("an error", fails(1, Errno::EIO), Fails(Errno::EIO, 0)),
        ("an error later", fails_later(Errno::EIO), Fails(Errno::EIO, 5000)),
        ("no room", fails(1, Errno::ENOSPC), Fails(Errno::ENOSPC, 0)),
        ("no room later", fails_later(Errno::ENOSPC), Fails(Errno::ENOSPC, 5000)),
        ("no more quota", fails_later(Errno::EDQUOT), Fails(Errno::EDQUOT, 5000)),
        ("a handle that is stale", fails_later(Errno::ESTALE), Fails(Errno::ESTALE, 5000)),
        ("not supported any more", fails_later(Errno::EXDEV), Fails(Errno::EXDEV, 5000)),
    ];
    for (case, plan, want) in cases {
        let world = world(MountOptions { magic: NFS, ..MountOptions::default() });
        let record = plan.record();
        let (summary, told, progress) = copy(&world, plan, "/source/one");
        nothing_is_left(&world, case);
        let target = world.read("/target/one").unwrap();
        if let Fails(errno, at) = want {
            assert_eq!(told.failed, [(Some(errno), Some(at))], "{case}: {told:?}");
            assert!(target == b"old", "{case}: the old file is gone");
            continue;
        }
        assert_eq!(summary.failed, 0, "{case}: {told:?}");
        assert!(target == content(1), "{case}: the copy differs");
        assert_eq!(progress, u64::from(SIZE), "{case}: of progress");
        let [(path, fell_back)] = &told.copied[..] else { panic!("{case}: {told:?}") };
        let refused: Vec<_> = match want {
            Read(errno) => vec![(Attempt::CopyRange, errno)],
            _ => Vec::new(),
        };
        assert_eq!(*path == Some(DataPath::CopyRange), want == OnServer, "{case}: {path:?}");
        let of_ranges = fell_back.iter().filter(|(from, _)| *from == Attempt::CopyRange).copied();
        assert_eq!(of_ranges.collect::<Vec<_>>(), refused, "{case}");
        if case == "each range is short" {
            assert!(record.of(Fault::ShortTransfer) > 3, "{case}: {:?}", record.counts());
        }
    }
}

#[test]
fn a_source_that_shrinks_on_its_server_is_copied_as_it_is_then() {
    let mut shrunk = 0;
    for completions in 0..60 {
        let world = world(MountOptions { magic: NFS, ..MountOptions::default() });
        let plan = FaultPlan::none()
            .once_in(1, Fault::ShortTransfer, OperationKind::CopyRange)
            .call_after(completions, move |world: &SimulatedWorld| {
                let mut random = Random::new(completions);
                world.change("/source/one", Fault::SourceShrunk, &mut random);
            });
        let (summary, told, _) = copy(&world, plan, "/source/one");
        let case = format!("after {completions} completions");
        assert_eq!(summary.failed, 0, "{case}: {told:?}");
        let (now, copy) = (world.read("/source/one"), world.read("/target/one").unwrap());
        assert!(Some(&copy) == now.as_ref() || copy == content(1), "{case}: the copy is torn");
        shrunk += u32::from(copy.len() < SIZE as usize);
        nothing_is_left(&world, &case);
    }
    assert!(shrunk > 3, "it was copied shorter {shrunk} times");
}

/// What a refused clone means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Refused {
    /// The file system can't: no other file is tried.
    ForGood,
    /// These two files can't.
    Here,
    /// Something went wrong: it is no answer, and the file fails.
    Fails,
}

/// F15.
#[test]
fn a_clone_that_fails_for_a_while_is_a_failure_and_no_refusal() {
    use Refused::{Fails, ForGood, Here};

    let cases = [
        (Errno::EOPNOTSUPP, ForGood),
        (Errno::EXDEV, ForGood),
        (Errno::ENOTTY, ForGood),
        (Errno::ENOSYS, ForGood),
        (Errno::EINVAL, Here),
        (Errno::EPERM, Here),
        (Errno::ETXTBSY, Here),
        (Errno::EIO, Fails),
        (Errno::ENOSPC, Fails),
        (Errno::EDQUOT, Fails),
        (Errno::ENOMEM, Fails),
        (Errno::EROFS, Fails),
    ];
    for (errno, refused) in cases {
        let world = world(MountOptions { supports_clone: true, ..MountOptions::default() });
        let plan = FaultPlan::none().fail_nth(1, OperationKind::CloneFile, errno);
        let (summary, told, progress) = copy(&world, plan, "/source");
        nothing_is_left(&world, &errno.to_string());
        let (cloned, read): (Vec<_>, Vec<_>) =
            told.copied.iter().partition(|(path, _)| *path == Some(DataPath::Clone));
        let counts = (summary.failed, cloned.len(), read.len());
        let want = match refused {
            ForGood => (0, 0, 2),
            Here => (0, 1, 1),
            Fails => (1, 1, 0),
        };
        assert_eq!(counts, want, "{errno}: {told:?}");
        for (_, fell_back) in read {
            assert!(fell_back.contains(&(Attempt::Clone, Some(errno))), "{errno}: {fell_back:?}");
        }
        if refused == Fails {
            assert_eq!(told.failed, [(Some(errno), None)], "{errno}");
            let is_old = world.read("/target/one").unwrap() == b"old";
            assert!(is_old || world.read("/target/two").is_none(), "{errno}");
        } else {
            assert_eq!(progress, 2 * u64::from(SIZE), "{errno}: of progress");
        }
    }
}

#[test]
fn a_clone_that_is_to_be_tried_again_is_until_it_never_works() {
    let plan = |times| {
        let eagain = |plan: FaultPlan, number| {
            plan.fail_nth(number, OperationKind::CloneFile, Errno::EAGAIN)
        };
        (1..=times).fold(FaultPlan::none(), eagain)
    };
    for (times, is_whole) in [(1, true), (30, true), (100, false)] {
        let world = world(MountOptions { supports_clone: true, ..MountOptions::default() });
        let (summary, told, _) = copy(&world, plan(times), "/source/one");
        assert_eq!(summary.failed == 0, is_whole, "{times} times: {told:?}");
        let want = if is_whole { content(1) } else { b"old".to_vec() };
        assert!(world.read("/target/one").unwrap() == want, "{times} times");
        assert!(is_whole || summary.failure == Some(ErrorKind::Io), "{summary:?}");
        nothing_is_left(&world, &format!("{times} times"));
    }
}
