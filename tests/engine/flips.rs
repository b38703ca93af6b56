//! Bits that change on the disk between the write and the verification: each is found, with its
//! byte, and no file gets a name that has one.
//!
//! The copy runs on a file system of its own, on a loop device. A processor that passes everything
//! on sees the sync that ends the writing; then one bit is flipped behind the file system, in what
//! the loop device reads. `UCP_FLIPS=10000` flips more.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ucp_engine::buffer::{BufferPool, ReceivePool};
use ucp_engine::copy::{Cancellation, Event, Observer, Progress, Reflink, Request, copy_on};
use ucp_engine::digest::Algorithm;
use ucp_engine::operation::{
    Chain, CompletionEvent, CompletionEventQueue, End, File as EngineFile, Operation,
    OperationError, OperationId, RegisteredFile, SyncReach, Token,
};
use ucp_engine::processor::{Capabilities, Full, KernelProcessor, ThreadProcessor, Wake};
use ucp_engine::random::Random;
use ucp_engine::units::{Moment, WallTime};
use ucp_engine::{Errno, Error, ErrorKind, OperationProcessor, Proactor};

use crate::support::{scratch, skip};

const FLIPS: u64 = 200;
const SIZE_MAX: u64 = 3 << 20;

#[test]
fn every_flip_between_write_and_verification_is_found_with_its_byte() {
    if !nix::unistd::geteuid().is_root() {
        return skip::skip("only root can mount");
    }
    let flips = std::env::var("UCP_FLIPS").map_or(FLIPS, |number| number.parse().unwrap());
    let ran = std::thread::spawn(move || {
        for (number, kind) in [(0, "ext4"), (1, "xfs"), (2, "btrfs")] {
            on_file_system(kind, |image, directory| {
                for flip in (0..flips).filter(|flip| flip % 3 == number) {
                    flip_once(kind, flip, image, directory);
                }
            });
        }
    });
    if let Err(panicked) = ran.join() {
        std::panic::resume_unwind(panicked);
    }
}

/// Mounts a new file system where only this thread sees it.
fn on_file_system(kind: &str, work: impl FnOnce(&Path, &Path)) {
    let directory = scratch::directory();
    let (image, mounted) = (directory.path().join("image"), directory.path().join("mounted"));
    fs::create_dir(&mounted).unwrap();
    File::create_new(&image).unwrap().set_len(400 << 20).unwrap();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    };
    // btrfs keeps small files in its tree, and two copies of that; one file's bytes have one place.
    let options: &[&str] = match kind {
        "ext4" => &["-q", "-E", "nodiscard"],
        "btrfs" => &["-q", "-K", "-m", "single"],
        _ => &["-q", "-K"],
    };
    run(Command::new(format!("mkfs.{kind}")).args(options).arg(&image));
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let mount_options = if kind == "btrfs" { "loop,nodatasum,max_inline=0" } else { "loop" };
    run(Command::new("mount").args(["-t", kind, "-o", mount_options]).arg(&image).arg(&mounted));
    work(&image, &mounted);
    run(Command::new("umount").arg(&mounted));
}

/// Copies a random file, and flips a random bit of the copy before it is verified.
fn flip_once(kind: &str, seed: u64, image: &Path, directory: &Path) {
    let mut random = Random::new(seed);
    let smaller = random.below(14);
    let size = 1 + random.below(SIZE_MAX >> smaller);
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    for piece in bytes.chunks_mut(8) {
        piece.copy_from_slice(&random.next().to_le_bytes()[..piece.len()]);
    }
    let (source, target) = (directory.join("source"), directory.join("target"));
    fs::write(&source, &bytes).unwrap();
    let mut request = Request::new([&source], &target);
    let options = &mut request.options;
    options.verification.verify = Some(Algorithm::Xxh3_128);
    options.reflink = Reflink::Never;
    options.large_bytes_min = [1 << 20, 16 << 20][usize::from(random.once_in(2))];
    let at = random.below(size);
    let flipper = Arc::new(Mutex::new(Flipper {
        image: image.to_owned(),
        directory: directory.to_owned(),
        at,
        bit: 1 << random.below(8),
        bytes: bytes.clone(),
        has_flipped: false,
        is_misplaced: false,
    }));
    let processor: Box<dyn OperationProcessor> = match random.once_in(2) {
        true => Box::new(ThreadProcessor::new(2, 64)),
        false => match KernelProcessor::new(64, 2) {
            Ok(kernel) => Box::new(kernel),
            Err(_) => Box::new(ThreadProcessor::new(0, 64)),
        },
    };
    let proactor = Proactor::new(Box::new(Behind { processor, flipper: Arc::clone(&flipper) }));
    let failures = Failures::default();
    let (progress, cancellation) = (Progress::default(), Cancellation::default());
    let summary = copy_on(&proactor, &request, &failures, &progress, &cancellation).unwrap();
    assert!(flipper.lock().unwrap().has_flipped, "seed {seed}: nothing was flipped");
    if flipper.lock().unwrap().is_misplaced {
        assert_eq!((kind, summary.failed), ("btrfs", 0), "seed {seed}: the byte was not found");
        return fs::remove_file(target).unwrap();
    }
    assert_eq!(summary.failure, Some(ErrorKind::DoesNotVerify), "seed {seed}: {summary:?}");
    let failures = failures.0.into_inner().unwrap();
    let [failure] = failures.as_slice() else { panic!("seed {seed}: {failures:?}") };
    assert_eq!(failure.offset_bytes(), Some(at), "seed {seed}, {size} bytes: {failure:?}");
    assert!(!target.exists(), "seed {seed}: what does not verify has a name");
    let left = fs::read_dir(directory).unwrap().count();
    let expected = if directory.join("lost+found").exists() { 2 } else { 1 };
    assert_eq!(left, expected, "seed {seed}: something was left behind");
}

#[derive(Default)]
struct Failures(Mutex<Vec<Error>>);

impl Observer for Failures {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Failed(error) = event {
            self.0.lock().unwrap().push((*error).clone());
        }
    }
}

/// What flips one bit of the only temporary file in a directory, on the disk below it.
#[derive(Debug)]
struct Flipper {
    image: PathBuf,
    directory: PathBuf,
    at: u64,
    bit: u8,
    /// What the file holds.
    bytes: Vec<u8>,
    has_flipped: bool,
    /// The byte is elsewhere: btrfs tells addresses of its own, which are the disk's only where no
    /// second chunk was made.
    is_misplaced: bool,
}

impl Flipper {
    fn on_synced(&mut self) {
        if std::mem::replace(&mut self.has_flipped, true) {
            return;
        }
        let names = fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path());
        let is_temporary = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".ucp-"))
        };
        let file = names.into_iter().find(is_temporary).expect("a copy is under way");
        let physical = self.physical(&file);
        let image = File::options().read(true).write(true).open(&self.image).unwrap();
        let at = usize::try_from(self.at).unwrap();
        let expected = &self.bytes[at..self.bytes.len().min(at + 64)];
        let mut found = vec![0; expected.len()];
        image.read_exact_at(&mut found, physical).unwrap();
        if found != expected {
            self.is_misplaced = true;
            return;
        }
        let byte = [found[0]];
        image.write_all_at(&[byte[0] ^ self.bit], physical).unwrap();
    }

    /// Where the byte is on the disk.
    fn physical(&self, file: &Path) -> u64 {
        // Without -s: the file is synced, and syncing it again would write nothing.
        let output = Command::new("filefrag").args(["-v", "-b1"]).arg(file).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let found = text.lines().find_map(|line| {
            // "   0:        0..    4095:   12345..   16440:  4096: last,eof"
            let numbers: Vec<u64> =
                line.split([':', '.']).filter_map(|word| word.trim().parse().ok()).collect();
            let [_, first, last, physical, ..] = numbers.as_slice() else { return None };
            (*first..=*last).contains(&self.at).then(|| physical + self.at - first)
        });
        found.unwrap_or_else(|| panic!("byte {} is nowhere:\n{text}", self.at))
    }
}

/// A processor that passes everything on, and tells of the sync that ends the writing.
struct Behind {
    processor: Box<dyn OperationProcessor>,
    flipper: Arc<Mutex<Flipper>>,
}

impl OperationProcessor for Behind {
    fn accept(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        self.processor.accept(operation, token)
    }

    fn accept_beside(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        self.processor.accept_beside(operation, token)
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        self.processor.accept_chain(chain, token)
    }

    fn accept_chain_beside(
        &mut self,
        chain: Chain,
        token: Token,
    ) -> Result<OperationId, Full<Chain>> {
        self.processor.accept_chain_beside(chain, token)
    }

    fn perform_inline(&mut self, operation: &mut Operation) -> Option<Result<u32, OperationError>> {
        let result = self.processor.perform_inline(operation)?;
        if is_sync_of_data(operation) {
            self.flipper.lock().unwrap().on_synced();
        }
        Some(result)
    }

    fn cancel(&mut self, id: OperationId) {
        self.processor.cancel(id);
    }

    fn submit_and_wait(
        &mut self,
        at_least: u32,
        deadline: Option<Moment>,
        events: &mut CompletionEventQueue,
    ) -> Result<(), Error> {
        let before = events.len();
        self.processor.submit_and_wait(at_least, deadline, events)?;
        let mut seen: Vec<CompletionEvent> = Vec::new();
        while let Some(event) = events.pop() {
            seen.push(event);
        }
        for (number, event) in seen.into_iter().enumerate() {
            if number >= before
                && matches!(&event.end, End::Last(operation) if is_sync_of_data(operation))
            {
                self.flipper.lock().unwrap().on_synced();
            }
            events.push(event);
        }
        Ok(())
    }

    fn in_flight(&self) -> u32 {
        self.processor.in_flight()
    }

    fn now(&self) -> Moment {
        self.processor.now()
    }

    fn wall_clock(&self) -> WallTime {
        self.processor.wall_clock()
    }

    fn capabilities(&self) -> &Capabilities {
        self.processor.capabilities()
    }

    fn buffer_pool(&mut self, count: u32, block_bytes: u32) -> Result<BufferPool, Errno> {
        self.processor.buffer_pool(count, block_bytes)
    }

    fn receive_pool(&mut self, count: u32, block_bytes: u32) -> Result<ReceivePool, Errno> {
        self.processor.receive_pool(count, block_bytes)
    }

    fn register_file(&mut self, file: Option<&EngineFile>) -> Result<RegisteredFile, Errno> {
        self.processor.register_file(file)
    }

    fn release_files(&mut self) {
        self.processor.release_files();
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.processor.waker()
    }
}

fn is_sync_of_data(operation: &Operation) -> bool {
    matches!(operation, Operation::Sync(sync) if sync.reach == SyncReach::Data)
}
