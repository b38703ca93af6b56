//! Tests of the simulated processor as a whole, against the real file system where it is one that
//! answers as ext4 does.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::libc;

use super::*;
use crate::buffer::Buffer;
use crate::operation::{
    self, Advice, Advise, Allocate, AllocateMode, ChangeMode, ChangeOwner, ChangeTimes, CloneFile,
    Close, CompletionEvent, CopyRange, End, FileKind, FileStatus, FileSystemStatus, FileTimes,
    GetAttribute, Link, ListAttributes, ListDirectory, Lock, MakeDirectory, MakeNode, Name, Open,
    Place, Read, ReadLink, ReadVectored, RemoveAttribute, Rename, Resolve, Seek, SeekTarget,
    SetAttribute, SetDirect, Statx, Subject, SymbolicLink, Sync, SyncReach, Truncate, Unlink,
    Write, WriteVectored, directory_entries,
};

fn processor(world: &SimulatedWorld, seed: u64, plan: FaultPlan) -> SimulatedProcessor {
    SimulatedProcessor::new(seed, 64, world, plan)
}

fn path(path: &str) -> Place {
    Place::path(path).unwrap()
}

/// Accepts one operation and waits for it.
fn run(
    processor: &mut SimulatedProcessor,
    operation: Operation,
) -> (Result<u32, Errno>, Operation) {
    processor.accept(operation, Token::default()).unwrap();
    let mut events = CompletionEventQueue::default();
    while events.is_empty() {
        processor.submit_and_wait(1, None, &mut events).unwrap();
    }
    take(&mut events)
}

fn take(events: &mut CompletionEventQueue) -> (Result<u32, Errno>, Operation) {
    let event = events.pop().expect("an event was waited for");
    (event.result.map_err(|error| error.errno), event.into_operation().expect("the last event"))
}

fn open(processor: &mut SimulatedProcessor, name: &str, flags: i32) -> File {
    let open = Open { mode: 0o644, ..Open::new(path(name), flags) };
    match run(processor, Operation::Open(open)) {
        (Ok(0), Operation::Open(Open { file: Some(file), .. })) => file,
        (result, _) => panic!("{name}: {result:?}"),
    }
}

fn read(file: &File, length: u32) -> Operation {
    let buffer = vec![0xa5; length as usize].into();
    Operation::Read(Read { handle: file.into(), buffer, offset_bytes: 0, start: 0, length })
}

fn write(file: &File, bytes: &[u8], offset_bytes: u64) -> Operation {
    let length = u32::try_from(bytes.len()).unwrap();
    let buffer = bytes.to_vec().into();
    Operation::Write(Write { handle: file.into(), buffer, offset_bytes, start: 0, length })
}

fn read_bytes(operation: Operation) -> Vec<u8> {
    match operation {
        Operation::Read(read) => read.buffer.as_slice().to_vec(),
        other => panic!("{other:?} is not a read"),
    }
}

#[test]
fn a_read_buffer_is_poisoned_at_accept_and_filled_at_completion() {
    let world = SimulatedWorld::new();
    world.add_file("/a", b"hello");
    let mut processor = processor(&world, 1, FaultPlan::none());
    let file = open(&mut processor, "/a", libc::O_RDONLY);
    let bytes: Vec<u8> = vec![0; 16];
    let buffer = Buffer::Vec(bytes);
    let read = Read { handle: file.into(), buffer, offset_bytes: 0, start: 2, length: 12 };
    processor.accept(Operation::Read(read), Token::default()).unwrap();
    let in_flight = processor.slots.operation(processor.slots.held_indices()[0]);
    let Operation::Read(read) = in_flight else { panic!("{in_flight:?}") };
    assert_eq!(read.buffer.as_slice()[2..14], [POISON; 12], "an early look finds poison");
    assert_eq!(read.buffer.as_slice()[..2], [0; 2], "what is not read into is left alone");
    // The file changes while the read is in flight: data moves at completion.
    world.add_file("/a", b"HELLO");
    let mut events = CompletionEventQueue::default();
    processor.submit_and_wait(1, None, &mut events).unwrap();
    let (result, operation) = take(&mut events);
    assert_eq!(result, Ok(5));
    let bytes = read_bytes(operation);
    assert_eq!(bytes[..7], *b"\0\0HELLO");
    assert_eq!(bytes[7..], [0; 9], "what is behind the end of the file is left as it was");
}

#[test]
fn the_same_seed_gives_the_same_events_at_the_same_moments() {
    let trace = |seed| {
        let world = SimulatedWorld::new();
        world.add_file("/a", vec![7; 100_000]);
        let plan = FaultPlan::swarm(seed).with_sources("/");
        let mut processor = processor(&world, seed, plan);
        let mut trace = Vec::new();
        let opened = run(&mut processor, Operation::Open(Open::read(path("/a"))));
        let (_, Operation::Open(Open { file: Some(file), .. })) = opened else {
            return vec![format!("{:?}", opened.0)];
        };
        for tag in 0..20 {
            let token = Token { handler: 0, tag };
            processor.accept(read(&file, 1000 * (tag + 1)), token).unwrap();
        }
        let mut events = CompletionEventQueue::default();
        while processor.in_flight() > 0 {
            processor.submit_and_wait(1, None, &mut events).unwrap();
            while let Some(CompletionEvent { token, result, .. }) = events.pop() {
                trace.push(format!("{} {} {result:?}", processor.now().0, token.tag));
            }
        }
        trace
    };
    for seed in 0..50 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(1), trace(2), "another seed is another order");
}

#[test]
fn every_fault_of_an_operation_happens_and_is_counted() {
    let mut totals = BTreeMap::<Fault, u64>::new();
    for seed in 0..300 {
        let world = SimulatedWorld::new();
        for number in 0..4 {
            world.add_file(format!("/source/{number}"), vec![1; 5000]);
        }
        world.add_directory("/target");
        let plan = FaultPlan::swarm(seed).with_sources("/source");
        let record = plan.record();
        let mut processor = processor(&world, seed, plan);
        let mut random = Random::new(seed);
        for round in 0..20 {
            let name = format!("/target/{round}");
            let flags = libc::O_RDWR | libc::O_CREAT;
            let open = Open { mode: 0o600, ..Open::new(path(&name), flags) };
            let opened = run(&mut processor, Operation::Open(open)).1;
            let Operation::Open(Open { file: Some(file), .. }) = opened else { continue };
            let ids = [write(&file, &[1; 3000], 0), read(&file, 3000), write(&file, b"end", 3000)]
                .map(|operation| processor.accept(operation, Token::default()).unwrap());
            if random.once_in(3) {
                processor.cancel(ids[1]);
            }
            let (target, offset_bytes) = (SeekTarget::Hole, 0);
            let seek = Seek { file: file.clone(), target, offset_bytes };
            processor.accept(Operation::Seek(seek), Token::default()).unwrap();
            let sync = Sync { file, reach: SyncReach::File };
            processor.accept(Operation::Sync(sync), Token::default()).unwrap();
            let mut events = CompletionEventQueue::default();
            while processor.in_flight() > 0 {
                processor.submit_and_wait(4, None, &mut events).unwrap();
            }
        }
        for (fault, count) in record.counts() {
            *totals.entry(fault).or_default() += count;
        }
        drop(processor);
        assert_eq!(world.open_descriptors(), 0, "seed {seed}: {:?}", world.open_files());
    }
    for (fault, total) in totals {
        let is_asked_for = matches!(fault, Fault::Scripted | Fault::Hooked | Fault::Flipped)
            || Fault::OF_NETWORKS.contains(&fault);
        assert_eq!(total > 0, !is_asked_for, "{fault}: {total}");
    }
}

#[test]
fn a_cancel_comes_in_time_or_changes_nothing() {
    let (mut in_time, mut too_late) = (0, 0);
    for seed in 0..100 {
        let world = SimulatedWorld::new();
        let mut processor = processor(&world, seed, FaultPlan::none());
        let file = open(&mut processor, "/a", libc::O_RDWR | libc::O_CREAT);
        let id = processor.accept(write(&file, b"data", 0), Token::default()).unwrap();
        processor.cancel(id);
        let mut events = CompletionEventQueue::default();
        processor.submit_and_wait(1, None, &mut events).unwrap();
        let event = events.pop().unwrap();
        match event.result {
            Ok(4) => {
                too_late += 1;
                assert_eq!(world.read("/a").unwrap(), b"data", "seed {seed}");
            }
            Err(error) => {
                in_time += 1;
                assert_eq!(error.errno, Errno::ECANCELED);
                assert_eq!(error.cause, operation::Cause::Cancelled);
                assert_eq!(world.read("/a").unwrap(), b"", "seed {seed}");
            }
            other => panic!("seed {seed}: {other:?}"),
        }
        processor.cancel(id);
        assert_eq!(processor.in_flight(), 0, "a stale cancel does nothing");
    }
    assert!(in_time > 10 && too_late > 10, "{in_time} in time, {too_late} too late");
}

#[test]
fn time_is_virtual_and_a_deadline_ends_a_wait() {
    let world = SimulatedWorld::new();
    let mut processor = processor(&world, 1, FaultPlan::none());
    let mut events = CompletionEventQueue::default();
    processor.submit_and_wait(1, None, &mut events).unwrap();
    assert!(events.is_empty(), "nothing in flight is nothing to wait for");
    let day = Duration::from_secs(86_400);
    let timeout = Operation::Timeout(Timeout { duration: day });
    let start = processor.now();
    let id = processor.accept(timeout, Token::default()).unwrap();
    let deadline = start + Duration::from_secs(1);
    processor.submit_and_wait(1, Some(deadline), &mut events).unwrap();
    assert!(events.is_empty());
    assert_eq!(processor.now(), deadline);
    processor.submit_and_wait(1, None, &mut events).unwrap();
    assert_eq!(take(&mut events).0, Ok(0));
    assert_eq!(processor.now(), start + day);
    processor.cancel(id);
    let timeout = Operation::Timeout(Timeout { duration: day });
    let id = processor.accept(timeout, Token::default()).unwrap();
    processor.cancel(id);
    assert_eq!(run_rest(&mut processor), [Err(Errno::ECANCELED)]);
    assert!(processor.now() < start + day + Duration::from_secs(1));
}

fn run_rest(processor: &mut SimulatedProcessor) -> Vec<Result<u32, Errno>> {
    let mut events = CompletionEventQueue::default();
    let count = processor.in_flight();
    processor.submit_and_wait(count, None, &mut events).unwrap();
    let results = std::iter::from_fn(|| events.pop());
    results.map(|event| event.result.map_err(|error| error.errno)).collect()
}

#[test]
fn a_wake_ends_the_next_wait() {
    let world = SimulatedWorld::new();
    let mut processor = processor(&world, 1, FaultPlan::none());
    let timeout = Operation::Timeout(Timeout { duration: Duration::from_secs(1) });
    processor.accept(timeout, Token::default()).unwrap();
    processor.waker().wake();
    let mut events = CompletionEventQueue::default();
    processor.submit_and_wait(1, None, &mut events).unwrap();
    assert!(events.is_empty());
    processor.submit_and_wait(1, None, &mut events).unwrap();
    assert_eq!(events.len(), 1);
}

#[test]
fn what_waits_for_ever_is_an_error_and_can_be_cancelled() {
    let world = SimulatedWorld::new();
    world.add_node("/fifo", FileKind::Fifo, 0);
    let mut processor = processor(&world, 1, FaultPlan::none());
    let open = Operation::Open(Open::read(path("/fifo")));
    let id = processor.accept(open, Token::default()).unwrap();
    let mut events = CompletionEventQueue::default();
    assert!(processor.submit_and_wait(1, None, &mut events).is_err());
    processor.cancel(id);
    assert_eq!(run_rest(&mut processor), [Err(Errno::ECANCELED)]);
}

#[test]
fn a_read_of_a_fifo_waits_for_what_another_operation_writes() {
    let world = SimulatedWorld::new();
    world.add_node("/fifo", FileKind::Fifo, 0);
    let mut processor = processor(&world, 1, FaultPlan::none());
    let writer = open(&mut processor, "/fifo", libc::O_RDWR);
    let reader = open(&mut processor, "/fifo", libc::O_RDONLY);
    let mut events = CompletionEventQueue::default();
    processor.accept(read(&reader, 8), Token::default()).unwrap();
    assert!(processor.submit_and_wait(1, None, &mut events).is_err(), "nobody writes");
    processor.accept(write(&writer, b"hello", 0), Token::default()).unwrap();
    processor.submit_and_wait(2, None, &mut events).unwrap();
    assert_eq!(take(&mut events).0, Ok(5), "written");
    let (result, operation) = take(&mut events);
    assert_eq!((result, &read_bytes(operation)[..5]), (Ok(5), &b"hello"[..]));
}

#[test]
fn chains_break_where_a_member_fails_or_is_short() {
    let world = SimulatedWorld::new();
    world.add_file("/a", b"0123456789");
    let mut processor = processor(&world, 1, FaultPlan::none());
    let source = open(&mut processor, "/a", libc::O_RDONLY);
    let target = open(&mut processor, "/b", libc::O_RDWR | libc::O_CREAT);
    let cases = [
        ("a full read is written", 10, [Ok(10), Ok(10)], &b"0123456789"[..]),
        ("a short read is not", 11, [Ok(10), Err(Errno::ECANCELED)], b""),
    ];
    for (name, length, want, content) in cases {
        let truncate = Truncate { file: target.clone(), length_bytes: 0 };
        run(&mut processor, Operation::Truncate(truncate)).0.unwrap();
        let Operation::Read(read) = read(&source, length) else { unreachable!() };
        let chain = Chain::read_then_write(read, (&target).into(), 0);
        processor.accept_chain(chain, Token::default()).unwrap();
        assert_eq!(run_rest(&mut processor), want, "{name}");
        assert_eq!(world.read("/b").unwrap(), content, "{name}");
    }
}

#[test]
fn a_small_file_is_read_through_a_registered_slot_in_one_chain() {
    let world = SimulatedWorld::new();
    world.add_file("/a", b"small");
    let mut processor = processor(&world, 1, FaultPlan::none());
    let slot = processor.register_file(None).unwrap();
    let chain = Chain::open_read_close(Open::read(path("/a")), &slot, vec![0; 5].into());
    processor.accept_chain(chain, Token::default()).unwrap();
    assert_eq!(run_rest(&mut processor), [Ok(0), Ok(5), Ok(0)]);
    assert_eq!(world.open_descriptors(), 0);
    let mut other = SimulatedProcessor::new(9, 64, &world, FaultPlan::none());
    let handle = (&slot).into();
    let read = Read { handle, buffer: vec![0; 5].into(), offset_bytes: 0, start: 0, length: 5 };
    assert_eq!(run(&mut other, Operation::Read(read)).0, Err(Errno::EBADF), "another's slot");
}

#[test]
fn a_timeout_of_a_chain_stops_what_takes_too_long() {
    let (mut timed_out, mut done, mut too_late) = (0, 0, 0);
    for seed in 0..200 {
        let world = SimulatedWorld::new();
        world.add_file("/a", b"x");
        let mut processor = processor(&world, seed, FaultPlan::none());
        let file = open(&mut processor, "/a", libc::O_RDONLY);
        let chain = Chain::with_timeout(read(&file, 1), Duration::from_micros(50));
        processor.accept_chain(chain, Token::default()).unwrap();
        let mut events = CompletionEventQueue::default();
        processor.submit_and_wait(2, None, &mut events).unwrap();
        let (first, second) = (events.pop().unwrap(), events.pop().unwrap());
        match (first.result.map_err(|error| error.cause), second.result.is_ok()) {
            (Err(operation::Cause::TimedOut), false) => timed_out += 1,
            (Ok(1), true) if processor.record().of(Fault::CancelTooLate) > 0 => too_late += 1,
            (Ok(1), true) => done += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(timed_out > 10 && done > 10 && too_late > 10, "{timed_out} {done} {too_late}");
}

#[test]
fn dropping_a_processor_ends_all_and_closes_what_was_opened() {
    for seed in 0..50 {
        let world = SimulatedWorld::new();
        world.add_file("/a", vec![1; 100]);
        let mut processor = processor(&world, seed, FaultPlan::none());
        let file = open(&mut processor, "/a", libc::O_RDWR);
        for _ in 0..10 {
            processor.accept(Operation::Open(Open::read(path("/a"))), Token::default()).unwrap();
            processor.accept(read(&file, 50), Token::default()).unwrap();
        }
        drop((processor, file));
        assert_eq!(world.open_descriptors(), 0, "seed {seed}");
    }
}

#[test]
fn a_power_cut_keeps_what_was_synced_in_the_right_order_only() {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // With every sync: the old or the new file, whole. Without that of the data: also torn ones.
    for (is_synced, name) in [(true, "synced"), (false, "not synced")] {
        let (mut old, mut new, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let world = SimulatedWorld::new();
            world.add_file("/d/a", vec![1; 3000]);
            let mut processor = processor(&world, seed, FaultPlan::none());
            let file = open(&mut processor, "/d/temporary", flags);
            run(&mut processor, write(&file, &[2; 3000], 0)).0.unwrap();
            if is_synced {
                let sync = Sync { file, reach: SyncReach::File };
                run(&mut processor, Operation::Sync(sync)).0.unwrap();
            }
            let (source, target) = (path("/d/temporary"), path("/d/a"));
            let rename = Rename { source, target, replace: true };
            run(&mut processor, Operation::Rename(rename)).0.unwrap();
            let left = world.crash(seed);
            let content = left.read("/d/a").expect("one of both is there");
            match () {
                () if content == [1; 3000] => old += 1,
                () if content == [2; 3000] => {
                    new += 1;
                    assert_eq!(left.status("/d/temporary"), None, "seed {seed}: two names");
                }
                () => torn += 1,
            }
            let directory = open(&mut processor, "/d", libc::O_RDONLY);
            let sync = Sync { file: directory, reach: SyncReach::File };
            run(&mut processor, Operation::Sync(sync)).0.unwrap();
            if is_synced {
                let content = world.crash(seed).read("/d/a");
                assert_eq!(content.as_deref(), Some(&[2; 3000][..]), "seed {seed}");
            }
        }
        assert!(old > 0 && new > 0, "{name}: {old} old, {new} new");
        assert_eq!(torn > 0, !is_synced, "{name}: {torn} torn");
    }
}

#[test]
fn a_world_after_a_crash_counts_links_and_room_as_its_tree_tells() {
    for seed in 0..100 {
        let world = scribble(seed, 150);
        for (name, left) in [("crash", world.crash(seed)), ("kill", world.after_kill())] {
            assert_eq!(left.open_descriptors(), 0, "{name}, seed {seed}");
            check_counts(&left, &format!("{name}, seed {seed}"));
        }
    }
}

/// A world after random operations, with whatever they left.
fn scribble(seed: u64, steps: usize) -> SimulatedWorld {
    let world = SimulatedWorld::new();
    world.add_directory("/outer/root");
    let mut processor = processor(&world, seed, FaultPlan::none());
    let root = open(&mut processor, "/outer/root", libc::O_RDONLY);
    let (mut files, mut random) = (vec![root.clone()], Random::new(seed));
    let scope = Scope { is_ext4: true, seeks: seed.is_multiple_of(2) };
    for _ in 0..steps {
        let operation = random_operation(&mut random, &root, &files, scope);
        let operation = run(&mut processor, operation).1;
        keep_files(operation, &mut files, &mut random.clone());
    }
    drop(files);
    world
}

fn check_counts(world: &SimulatedWorld, context: &str) {
    let tree = world.tree("/");
    let mut names = BTreeMap::<u64, u32>::new();
    let mut pages = BTreeMap::<u64, u64>::new();
    for entry in tree.values() {
        let status = entry.status;
        *names.entry(status.inode).or_default() += 1;
        pages.insert(status.inode, status.blocks_512 / 8);
        if status.kind == FileKind::Directory {
            pages.remove(&status.inode);
        }
    }
    for (path, entry) in &tree {
        if entry.status.kind != FileKind::Directory {
            let want = names[&entry.status.inode];
            assert_eq!(entry.status.links, want, "{context}: {}", path.display());
            continue;
        }
        let below = |other: &Path| other.parent() == Some(path);
        let directories =
            tree.iter().filter(|(other, it)| below(other) && it.status.kind == FileKind::Directory);
        let want = 2 + u32::try_from(directories.count()).unwrap();
        assert_eq!(entry.status.links, want, "{context}: {}", path.display());
    }
    let used: u64 = pages.values().sum();
    let available = world.available_bytes("/").unwrap();
    assert_eq!(available, (1 << 40) - used * 4096, "{context}: room");
}

#[test]
fn permissions_are_checked_for_all_but_the_super_user() {
    let world = SimulatedWorld::new();
    world.add_file("/d/secret", b"x");
    world.set_mode("/d/secret", 0o600);
    let mut processor = processor(&world, 1, FaultPlan::none());
    world.set_user(1000, 1000);
    let attempts: [(&str, Operation, Errno); 4] = [
        ("read", Operation::Open(Open::read(path("/d/secret"))), Errno::EACCES),
        (
            "remove",
            Operation::Unlink(Unlink { place: path("/d/secret"), is_directory: false }),
            Errno::EACCES,
        ),
        (
            "make",
            Operation::MakeDirectory(MakeDirectory { place: path("/d/e"), mode: 0o700 }),
            Errno::EACCES,
        ),
        (
            "own",
            Operation::ChangeOwner(ChangeOwner {
                subject: Subject::Place(path("/d/secret")),
                owner: Some(1000),
                group: None,
            }),
            Errno::EPERM,
        ),
    ];
    for (name, operation, want) in attempts {
        assert_eq!(run(&mut processor, operation).0, Err(want), "{name}");
    }
    assert_eq!(world.read("/d/secret").unwrap(), b"x", "a test sees everything");
}

#[test]
fn mounts_differ_in_what_they_can_do() {
    let world = SimulatedWorld::new();
    world.mount("/btrfs", MountOptions { supports_clone: true, ..MountOptions::default() });
    world.mount("/small", MountOptions { capacity_bytes: 8192, ..MountOptions::default() });
    world.add_file("/btrfs/a", vec![3; 5000]);
    world.mount("/readonly", MountOptions::default());
    world.add_file("/readonly/a", b"x");
    world.remount("/readonly", |options| options.is_read_only = true);
    let mut processor = processor(&world, 1, FaultPlan::none());
    let create = libc::O_RDWR | libc::O_CREAT;
    let source = open(&mut processor, "/btrfs/a", libc::O_RDONLY);
    let target = open(&mut processor, "/btrfs/b", create);
    let other = open(&mut processor, "/c", create);
    let clone = |source: &File, target: &File| {
        Operation::CloneFile(CloneFile { source: source.clone(), target: target.clone() })
    };
    assert_eq!(run(&mut processor, clone(&source, &target)).0, Ok(0));
    assert_eq!(world.read("/btrfs/b").unwrap(), [3; 5000]);
    assert_eq!(run(&mut processor, clone(&source, &other)).0, Err(Errno::EXDEV));
    assert_eq!(run(&mut processor, clone(&other, &other)).0, Err(Errno::EOPNOTSUPP));

    let small = open(&mut processor, "/small/a", create);
    assert_eq!(run(&mut processor, write(&small, &[1; 10_000], 0)).0, Ok(8192));
    assert_eq!(run(&mut processor, write(&small, &[1; 1], 8192)).0, Err(Errno::ENOSPC));
    run(&mut processor, Operation::Truncate(Truncate { file: small, length_bytes: 1 })).0.unwrap();
    assert_eq!(world.available_bytes("/small"), Some(4096));

    let attempts = [
        ("open", Operation::Open(Open::new(path("/readonly/a"), libc::O_WRONLY)), Errno::EROFS),
        ("create", Operation::Open(Open::create_new(path("/readonly/b"), 0)), Errno::EROFS),
        (
            "create what is there",
            Operation::Open(Open::create_new(path("/readonly/a"), 0)),
            Errno::EEXIST,
        ),
        (
            "remove what is missing",
            Operation::Unlink(Unlink { place: path("/readonly/b"), is_directory: false }),
            Errno::EROFS,
        ),
        (
            "rename to another mount",
            Operation::Rename(Rename {
                source: path("/readonly/a"),
                target: path("/a"),
                replace: true,
            }),
            Errno::EXDEV,
        ),
        (
            "remove a mount point",
            Operation::Unlink(Unlink { place: path("/small"), is_directory: true }),
            Errno::EBUSY,
        ),
    ];
    for (name, operation, want) in attempts {
        assert_eq!(run(&mut processor, operation).0, Err(want), "{name}");
    }
}

/// Runs seeded operations here and on the real file system, and compares every answer.
#[test]
fn random_operations_get_the_answers_of_the_real_file_system() {
    let real = tempfile::tempdir().unwrap();
    let magic = magic_of(real.path());
    let is_ext4 = magic == 0xef53;
    for seed in 0..40_u64 {
        let scope = Scope { is_ext4, seeks: seed.is_multiple_of(2) };
        compare_with_real(seed, real.path(), scope);
    }
}

fn compare_with_real(seed: u64, scratch: &Path, scope: Scope) {
    let outer = scratch.join(seed.to_string());
    std::fs::create_dir_all(outer.join("root")).unwrap();
    let world = SimulatedWorld::new();
    world.add_directory("/outer/root");
    world.set_umask(own_umask());
    let (user, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    world.set_owner("/outer", user, group);
    world.set_owner("/outer/root", user, group);
    world.set_user(user, group);
    let mut processor = processor(&world, seed, FaultPlan::none());
    let simulated = open(&mut processor, "/outer/root", libc::O_RDONLY);
    let real: OwnedFd = std::fs::File::open(outer.join("root")).unwrap().into();
    let real = File::from_fd(real);
    let (mut ours, mut theirs) = (vec![simulated.clone()], vec![real.clone()]);
    let mut random = Random::new(seed);
    let mut history = Vec::new();
    for _ in 0..400 {
        let mut same = random.clone();
        let operation = random_operation(&mut random, &simulated, &ours, scope);
        let mut wanted = random_operation(&mut same, &real, &theirs, scope);
        if let Operation::Seek(seek) = &operation {
            // Where a directory's listing goes on after a seek is its file system's own business.
            let world = world.lock();
            let inode = world.named_by(perform::of_file(&seek.file).unwrap()).unwrap();
            if world.node(inode).is_directory() {
                random = same;
                continue;
            }
        }
        history.push(format!("{wanted:?}"));
        let want = operation::perform(&mut wanted);
        let (got, operation) = run(&mut processor, operation);
        if got != want || outcome(&operation, got) != outcome(&wanted, want) {
            let last = history.len().saturating_sub(30);
            panic!(
                "seed {seed}: {} differs: simulated {got:?} {:.100}, real {want:?} {:.100}\n{}",
                operation.verb(),
                outcome(&operation, got),
                outcome(&wanted, want),
                history[last..].join("\n")
            );
        }
        keep_files(operation, &mut ours, &mut random.clone());
        keep_files(wanted, &mut theirs, &mut random);
    }
    let simulated = world.tree("/outer/root");
    let below = |path: &Path| path.strip_prefix("/outer/root").unwrap().to_owned();
    let names: Vec<_> = simulated.keys().map(|path| below(path)).collect();
    let mut real = Vec::new();
    list(&outer.join("root"), Path::new(""), &mut real);
    real.sort();
    // Who is not the super-user may have made directories that it can't look into.
    if user == 0 {
        assert_eq!(names, real, "seed {seed}: the trees differ");
    }
    for (name, entry) in &simulated {
        if entry.status.kind == FileKind::Regular && entry.status.mode & 0o400 != 0 {
            match std::fs::read(outer.join("root").join(below(name))) {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                content => {
                    let is_same = content.unwrap() == entry.content;
                    assert!(is_same, "seed {seed}: {} differs", name.display());
                }
            }
        }
    }
    drop((ours, processor));
    check_counts(&world, &format!("seed {seed}"));
}

fn list(root: &Path, below: &Path, names: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(root.join(below)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let name = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            list(root, &name, names);
        }
        names.push(name);
    }
}

fn magic_of(path: &Path) -> u64 {
    let file = std::fs::File::open(path).unwrap();
    let file = File::from_fd(file.into());
    let status = FileSystemStatus { file, magic: 0, available_bytes: 0 };
    let mut operation = Operation::FileSystemStatus(status);
    operation::perform(&mut operation).unwrap();
    match operation {
        Operation::FileSystemStatus(status) => status.magic,
        _ => unreachable!("it stays what it is"),
    }
}

fn own_umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(line.trim(), 8).unwrap()
}

/// What an operation brought, as far as it is the same on every file system.
fn outcome(operation: &Operation, result: Result<u32, Errno>) -> String {
    let Ok(count) = result else { return String::new() };
    let filled = |buffer: &Buffer| {
        let bytes = buffer.as_slice();
        format!("{:?}", &bytes[..bytes.len().min(count as usize)])
    };
    match operation {
        Operation::Read(read) => filled(&read.buffer),
        Operation::ReadVectored(read) => {
            let bytes: Vec<u8> =
                read.buffers.iter().flat_map(|buffer| buffer.as_slice().to_vec()).collect();
            format!("{:?}", &bytes[..count as usize])
        }
        Operation::ReadLink(link) => filled(&link.buffer),
        Operation::GetAttribute(get) => filled(&get.buffer),
        Operation::Seek(seek) => seek.offset_bytes.to_string(),
        Operation::ListDirectory(list) => {
            let mut names: Vec<_> = directory_entries(&list.buffer.as_slice()[..count as usize])
                .map(|entry| (entry.name.to_owned(), entry.kind))
                .collect();
            names.sort_by(|one, other| one.0.cmp(&other.0));
            format!("{names:?}")
        }
        Operation::Statx(statx) => {
            let status = statx.status.as_deref().expect("a status was brought");
            let FileStatus { kind, mode, links, owner, group, size_bytes, .. } = *status;
            let size_bytes = if kind == FileKind::Directory { 0 } else { size_bytes };
            format!("{kind:?} {mode:o} {links} {owner} {group} {size_bytes}")
        }
        _ => String::new(),
    }
}

/// Keeps what was opened, a few at a time.
fn keep_files(operation: Operation, files: &mut Vec<File>, random: &mut Random) {
    if let Operation::Open(Open { file: Some(file), .. }) = operation {
        files.push(file);
        if files.len() > 6 {
            files.remove(1 + usize::try_from(random.below(5)).unwrap());
        }
    }
}

/// Which operations there are in a run.
#[derive(Clone, Copy)]
struct Scope {
    /// Those too whose answers differ between file systems.
    is_ext4: bool,
    /// Those that look for holes, or those that reserve room: what was reserved counts as data
    /// while the page cache has zeros of it from a read, and that is no answer to compare.
    seeks: bool,
}

/// An operation on a few names below a directory and on a few open files.
fn random_operation(
    random: &mut Random,
    root: &File,
    files: &[File],
    Scope { is_ext4, seeks }: Scope,
) -> Operation {
    const NAMES: [&str; 24] = [
        "a",
        "b",
        "c",
        "d",
        "d/a",
        "d/b",
        "d/e",
        "d/e/a",
        "l",
        "l/a",
        "d/l",
        "d/../a",
        "a/",
        "d/",
        ".",
        "d/.",
        "..",
        "d/..",
        "",
        "d/l/a",
        "nothing/a",
        "a/b",
        "m",
        "d/e/..",
    ];
    const ATTRIBUTES: [&str; 6] = ["user.a", "user.b", "user.", "bad.a", "plain", "user.c"];
    const FLAGS: [i32; 8] = [
        libc::O_CREAT,
        libc::O_CREAT | libc::O_EXCL,
        libc::O_TRUNC,
        libc::O_APPEND,
        libc::O_DIRECTORY,
        libc::O_NOFOLLOW,
        libc::O_PATH,
        0,
    ];
    let mut below = |limit: u64| random.below(limit);
    let mut pick = |count: usize| usize::try_from(below(count as u64)).unwrap();
    let file = files[pick(files.len())].clone();
    let other = files[pick(files.len())].clone();
    let names = [NAMES[pick(NAMES.len())], NAMES[pick(NAMES.len())]];
    let [place, target] = names.map(|name| Place::at(root, &Name::new(name).unwrap()));
    let attribute = Name::new(ATTRIBUTES[pick(ATTRIBUTES.len())]).unwrap();
    let offset_bytes = [0, 1, 100, 4095, 4096, 9000, 1 << 20, 1 << 63][pick(8)];
    let length = [0, 1, 512, 4096, 5000, 12_000][pick(6)];
    let bytes = vec![u8::try_from(pick(256)).unwrap(); length as usize];
    let mode = [0o600, 0o644, 0o755, 0o6755, 0o700][pick(5)];
    let subject =
        if pick(2) == 0 { Subject::Place(place.clone()) } else { Subject::File(file.clone()) };
    let is_directory = pick(2) == 0;
    match pick(34) {
        0..6 => {
            let access = [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR][pick(3)];
            let flags = access | FLAGS[pick(8)] | FLAGS[pick(8)];
            let resolve = [
                Resolve::ANY,
                Resolve::ANY,
                Resolve::CONFINED,
                Resolve::BENEATH,
                Resolve::NO_SYMLINKS,
            ][pick(5)];
            // `openat2(2)` refuses flags beside O_PATH that `open(2)` ignores: O_NOCTTY, for one.
            let is_path = flags & libc::O_PATH != 0;
            let resolve = if is_path { Resolve::ANY } else { resolve };
            let flags = match is_path {
                true => flags & (libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW),
                // Never waits for the other end of a FIFO.
                false => flags | libc::O_NONBLOCK,
            };
            Operation::Open(Open { mode, resolve, ..Open::new(place, flags) })
        }
        6 | 7 => {
            let handle = file.into();
            let buffer = bytes.into();
            Operation::Read(Read { handle, buffer, offset_bytes, start: 0, length })
        }
        8 | 9 => {
            let handle = file.into();
            let offset_bytes = if offset_bytes == 1 << 20 { 30_000 } else { offset_bytes };
            let buffer = bytes.into();
            Operation::Write(Write { handle, buffer, offset_bytes, start: 0, length })
        }
        10 => {
            let buffers = vec![vec![0; 3].into(), vec![0; 5000].into()];
            Operation::ReadVectored(ReadVectored { handle: file.into(), buffers, offset_bytes })
        }
        11 => {
            let buffers = vec![vec![1; 3].into(), vec![2; 5000].into()];
            let handle = file.into();
            Operation::WriteVectored(WriteVectored { handle, buffers, offset_bytes })
        }
        12 => {
            let reach = [SyncReach::Data, SyncReach::File][pick(2)];
            Operation::Sync(Sync { file, reach })
        }
        13 if is_ext4 && !seeks => {
            let modes = [AllocateMode::Extend, AllocateMode::KeepSize, AllocateMode::PunchHole];
            let mode = modes[pick(3)];
            let length_bytes = length.into();
            Operation::Allocate(Allocate { file, mode, offset_bytes, length_bytes })
        }
        14 => {
            let length_bytes = [0, 5, 4096, 7000, 1 << 63][pick(5)];
            Operation::Truncate(Truncate { file, length_bytes })
        }
        15 if is_ext4 && seeks => {
            let target = [SeekTarget::Data, SeekTarget::Hole][pick(2)];
            Operation::Seek(Seek { file, target, offset_bytes })
        }
        16 if is_ext4 => Operation::CloneFile(CloneFile { source: file, target: other }),
        17 => Operation::CopyRange(CopyRange {
            source: file,
            target: other,
            source_offset_bytes: 0,
            target_offset_bytes: if offset_bytes > 1 << 30 { 20_000 } else { offset_bytes },
            length,
        }),
        18 => {
            let advice = [Advice::DontNeed, Advice::WillNeed, Advice::Sequential][pick(3)];
            Operation::Advise(Advise { file, advice, offset_bytes, length_bytes: length.into() })
        }
        19 => Operation::Lock(Lock { file }),
        20 | 21 => Operation::Rename(Rename { source: place, target, replace: is_directory }),
        22 | 23 => Operation::Unlink(Unlink { place, is_directory }),
        24 => Operation::MakeDirectory(MakeDirectory { place, mode }),
        25 => {
            let content =
                Name::new(["a", "d", "../a", "l", "nothing", "/nowhere/a", "e/"][pick(7)]);
            Operation::SymbolicLink(SymbolicLink { place, content: content.unwrap() })
        }
        26 => Operation::Link(Link { source: place, target, follow: pick(2) == 1 }),
        27 => Operation::ReadLink(ReadLink { place, buffer: vec![0; pick(8)].into() }),
        28 => {
            let kind = [libc::S_IFIFO, libc::S_IFREG, 0, libc::S_IFDIR, libc::S_IFSOCK][pick(5)];
            Operation::MakeNode(MakeNode { place, mode: kind | 0o644, device: 0 })
        }
        29 => Operation::ListDirectory(ListDirectory {
            directory: file,
            // Too small a one makes ext4 keep what it has read, and miss names that come later.
            buffer: vec![0; 32_768].into(),
        }),
        30 => match pick(4) {
            0 => Operation::ChangeOwner(ChangeOwner { subject, owner: None, group: None }),
            1 => Operation::ChangeMode(ChangeMode { file, mode }),
            2 => {
                let times = Box::new(FileTimes::default());
                Operation::ChangeTimes(ChangeTimes { subject, times })
            }
            _ if is_ext4 => Operation::SetDirect(SetDirect { file, is_direct: false }),
            _ => Operation::Nop,
        },
        31 if is_ext4 => match pick(4) {
            0 => {
                let buffer = vec![0; pick(4)].into();
                Operation::GetAttribute(GetAttribute { file, name: attribute, buffer })
            }
            1 => {
                let value = vec![7; pick(4)].into();
                Operation::SetAttribute(SetAttribute { file, name: attribute, value })
            }
            2 => Operation::RemoveAttribute(RemoveAttribute { file, name: attribute }),
            _ => {
                let buffer = vec![0; [0, 3, 100][pick(3)]].into();
                Operation::ListAttributes(ListAttributes { file, buffer })
            }
        },
        32 => Operation::Close(Close { handle: None }),
        _ => Operation::Statx(Statx { subject, follow: is_directory, status: None }),
    }
}

#[test]
fn an_operation_that_ended_leaves_nothing_of_itself_behind() {
    let world = SimulatedWorld::new();
    world.add_file("/a", b"x");
    let mut processor = processor(&world, 1, FaultPlan::none());
    let id = processor
        .accept(Operation::Open(Open::read(path("/a"))), Token { handler: 3, tag: 4 })
        .unwrap();
    let mut events = CompletionEventQueue::default();
    processor.submit_and_wait(1, None, &mut events).unwrap();
    let event = events.pop().unwrap();
    assert_eq!((event.id, event.token), (id, Token { handler: 3, tag: 4 }));
    assert_eq!(world.open_descriptors(), 1, "the event owns the file");
    assert!(matches!(event.end, End::Last(_)));
    drop(event);
    assert_eq!(world.open_descriptors(), 0);
    assert_eq!(processor.in_flight(), 0);
}
