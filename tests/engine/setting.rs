//! A proactor over each processor, with a directory and a pool, for tests of what is above them.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::libc;
use tempfile::TempDir;
use ucp_engine::Proactor;
use ucp_engine::buffer::{BufferPool, Lease};
use ucp_engine::operation::*;
use ucp_engine::proactor::{Perform, TaskInitiator};
use ucp_engine::processor::{
    FaultPlan, KernelProcessor, SimulatedProcessor, SimulatedWorld, ThreadProcessor,
};

use crate::support::{scratch, skip};

pub(crate) const BLOCK_BYTES: u32 = 4096;
pub(crate) const BLOCKS: u32 = 8;
/// Longer than any test: what takes so long must be ended by something else.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(3600);

/// A proactor over one of the processors, a directory, and a pool.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) proactor: Proactor,
    pub(crate) pool: BufferPool,
    pub(crate) directory: PathBuf,
    pub(crate) world: Option<SimulatedWorld>,
    pub(crate) _scratch: Option<TempDir>,
}

/// One setting for each processor, whose processor keeps `capacity` operations.
pub(crate) fn settings(capacity: u32) -> Vec<Setting> {
    let mut settings = vec![
        on_disk("2 threads", Proactor::new(Box::new(ThreadProcessor::new(2, capacity)))),
        on_disk("in turn", Proactor::new(Box::new(ThreadProcessor::new(0, capacity)))),
        in_memory(1, capacity, FaultPlan::none()),
    ];
    match KernelProcessor::new(capacity, 2) {
        Ok(kernel) => settings.push(on_disk("io_uring", Proactor::new(Box::new(kernel)))),
        Err(errno) => skip::skip(&format!("there is no io_uring: {errno}")),
    }
    settings
}

pub(crate) fn on_disk(name: &'static str, proactor: Proactor) -> Setting {
    let scratch = scratch::directory();
    let directory = scratch.path().to_owned();
    let pool = proactor.initiator().buffer_pool(BLOCKS, BLOCK_BYTES).unwrap();
    Setting { name, proactor, pool, directory, world: None, _scratch: Some(scratch) }
}

pub(crate) fn in_memory(seed: u64, capacity: u32, plan: FaultPlan) -> Setting {
    let world = SimulatedWorld::new();
    world.add_directory("/scratch");
    let processor = SimulatedProcessor::new(seed, capacity, &world, plan);
    let proactor = Proactor::new(Box::new(processor));
    let pool = proactor.initiator().buffer_pool(BLOCKS, BLOCK_BYTES).unwrap();
    let (directory, world) = ("/scratch".into(), Some(world));
    Setting { name: "simulated", proactor, pool, directory, world, _scratch: None }
}

impl Setting {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn place(&self, name: &str) -> Place {
        Place::path(self.path(name)).unwrap()
    }

    pub(crate) fn add(&self, name: &str, content: &[u8]) {
        match &self.world {
            Some(world) => world.add_file(self.path(name), content),
            None => std::fs::write(self.path(name), content).unwrap(),
        }
    }

    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        match &self.world {
            Some(world) => world.read(self.path(name)).unwrap(),
            None => std::fs::read(self.path(name)).unwrap(),
        }
    }

    /// Makes a file of two blocks and opens it.
    pub(crate) fn file(&self, name: &str) -> File {
        self.add(name, &[7; 2 * BLOCK_BYTES as usize]);
        let open = Open::new(self.place(name), libc::O_RDWR);
        self.proactor.block_on(self.proactor.initiator().open(open)).unwrap()
    }

    pub(crate) fn lease(&self) -> Lease {
        self.pool.lease().expect("a block is free")
    }

    pub(crate) fn open_files(&self) -> usize {
        open_files(self.world.as_ref(), &self.directory)
    }

    /// Turns until nothing is in flight and no task goes on.
    pub(crate) fn drain(&self) {
        let mut idle = 0;
        while idle < 20 {
            self.proactor.turn(Duration::from_millis(10)).unwrap();
            idle = if self.proactor.in_flight() > 0 { 0 } else { idle + 1 };
        }
    }

    /// Nothing is in flight, open, or on loan.
    #[track_caller]
    pub(crate) fn assert_at_rest(&self, what: &str) {
        let name = self.name;
        assert_eq!(self.proactor.in_flight(), 0, "{name}: {what}: something is in flight");
        assert_eq!(self.pool.available(), BLOCKS as usize, "{name}: {what}: a lease is missing");
        assert_eq!(self.open_files(), 0, "{name}: {what}: a file is open");
    }
}

/// Files of a directory that are open.
pub(crate) fn open_files(world: Option<&SimulatedWorld>, directory: &Path) -> usize {
    if let Some(world) = world {
        return world.open_descriptors();
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(directory)).count()
}

/// Polls a future once.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits as an operation does: in the processor, so that a slot is taken.
pub(crate) fn wait_in_slot(tasks: &TaskInitiator, duration: Duration) -> Perform {
    tasks.perform(Timeout { duration }.into())
}

/// What a panic of a test said.
pub(crate) fn message(panic: &(dyn std::any::Any + std::marker::Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
