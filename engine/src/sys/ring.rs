//! The ring: submission and completion queues shared with the kernel, and the calls on them.

#![allow(unsafe_code, reason = "a home of unsafe: the ring shared with the kernel")]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, opcode, squeue};
use nix::errno::Errno;
use nix::libc;

use super::buffer_ring::BufferRing;

/// One io_uring instance, and what it was set up with.
pub(crate) struct Ring {
    ring: IoUring,
    /// Entries that wait to be written to the submission queue, and room for more. They are made
    /// here and copied when they are submitted: copying one that was just made costs as much as
    /// making it, as the processor waits for its own writes.
    staged: Box<[squeue::Entry]>,
    staged_length: usize,
    /// Entries in the submission queue that the kernel has not taken yet.
    queued: usize,
    features: Vec<&'static str>,
    entries: u32,
    /// How often it was entered.
    enters: u64,
}

/// A completion, copied out of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    flags: u32,
}

/// The kernel's flags of a notification that a zero-copy send has copied (Linux 6.2).
const ZERO_COPY_WAS_COPIED: i32 = i32::MIN;
/// Has the notification of a zero-copy send tell whether it copied
/// (IORING_SEND_ZC_REPORT_USAGE, Linux 6.2).
pub(crate) const REPORT_USAGE: u16 = 8;

impl Completion {
    #[cfg(test)]
    pub(crate) fn new(user_data: u64, result: i32, flags: u32) -> Self {
        Self { user_data, result, flags }
    }

    /// Whether more completions of the same operation follow.
    #[inline]
    pub(crate) fn has_more(self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// The number of the provided buffer that it names.
    pub(crate) fn buffer(self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }

    /// Whether it tells that the buffer of a zero-copy send is free; then whether it was copied.
    pub(crate) fn notification(self) -> Option<bool> {
        io_uring::cqueue::notif(self.flags).then_some(self.result & ZERO_COPY_WAS_COPIED != 0)
    }
}

/// What a set-up asks for: a step of the ladder.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Linux 6.6. Saves one indirection per submission.
    no_sq_array: bool,
    /// Linux 6.1. Completions run only in enter, on this thread: no interrupts, one batch.
    defer_task_run: bool,
    /// Linux 5.18. One bad entry does not stop the others.
    submit_all: bool,
}

/// From the best to the least, Linux 6.6 to 5.6.
const LADDER: [Step; 4] = [
    Step { no_sq_array: true, defer_task_run: true, submit_all: true },
    Step { no_sq_array: false, defer_task_run: true, submit_all: true },
    Step { no_sq_array: false, defer_task_run: false, submit_all: true },
    Step { no_sq_array: false, defer_task_run: false, submit_all: false },
];

/// The longest wait that is asked for at once.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Below this a ring is not worth having.
const ENTRIES_MIN: u32 = 8;

impl Ring {
    /// Sets up a ring with room for `entries` submissions, or fewer where memory is short: rings
    /// are charged to RLIMIT_MEMLOCK for ordinary users on Linux 6.18.
    ///
    /// Steps down the ladder on `EINVAL` and halves the entries on `ENOMEM`; any other answer is
    /// returned as it is.
    pub(crate) fn new(entries: u32) -> Result<Self, Errno> {
        let mut entries = entries;
        let mut steps = LADDER.iter();
        let mut step = steps.next().expect("the ladder has steps");
        loop {
            match build(*step, entries) {
                Ok(ring) => {
                    let entries = ring.params().sq_entries();
                    let staged = (0..entries).map(|_| opcode::Nop::new().build()).collect();
                    let features = names(*step);
                    return Ok(Self {
                        ring,
                        staged,
                        staged_length: 0,
                        queued: 0,
                        features,
                        entries,
                        enters: 0,
                    });
                }
                Err(Errno::EINVAL) => step = steps.next().ok_or(Errno::EINVAL)?,
                Err(Errno::ENOMEM) if entries > ENTRIES_MIN => entries /= 2,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// What the ring was set up with, in the kernel's words.
    pub(crate) fn features(&self) -> &[&'static str] {
        &self.features
    }

    /// Whether no completion is lost when its queue is full, waits take a timeout, and what an
    /// entry points to is read when it is submitted: without these the engine does not use a ring.
    pub(crate) fn has_what_is_needed(&self) -> bool {
        let params = self.ring.params();
        params.is_feature_nodrop()
            && params.is_feature_ext_arg()
            && params.is_feature_submit_stable()
            && params.is_feature_native_workers()
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// Which opcodes the kernel knows.
    pub(crate) fn probe(&self) -> Result<Probe, Errno> {
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe).map_err(errno)?;
        Ok(probe)
    }

    /// Registers one range of memory as buffer 0.
    ///
    /// # Safety
    ///
    /// The memory stays mapped until the ring is closed and nothing is in flight.
    pub(crate) unsafe fn register_buffer(
        &self,
        (start, length): (NonNull<u8>, usize),
    ) -> Result<(), Errno> {
        let vector = libc::iovec { iov_base: start.as_ptr().cast(), iov_len: length };
        // SAFETY: the caller keeps the memory mapped; the vector itself is read during the call.
        unsafe { self.ring.submitter().register_buffers(&[vector]) }.map_err(errno)
    }

    /// Registers a ring of provided buffers as a group (Linux 5.19).
    ///
    /// # Safety
    ///
    /// The buffer ring stays where it is until this ring is closed and nothing is in flight.
    pub(crate) unsafe fn register_buffer_ring(
        &self,
        buffers: &BufferRing,
        group: u16,
    ) -> Result<(), Errno> {
        let (address, count) = buffers.parts();
        // SAFETY: the caller keeps the entries mapped, and they are as many as is said.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(address, count, group, 0) }
            .map_err(errno)
    }

    /// Makes a table of registered files with `count` empty slots.
    pub(crate) fn register_file_table(&self, count: u32) -> Result<(), Errno> {
        self.ring.submitter().register_files_sparse(count).map_err(errno)
    }

    /// Has an eventfd written to with each completion (`io_uring_register(2)`,
    /// IORING_REGISTER_EVENTFD). The kernel takes its own reference to it.
    pub(crate) fn register_event(&self, event: BorrowedFd<'_>) -> Result<(), Errno> {
        self.ring.submitter().register_eventfd(event.as_raw_fd()).map_err(errno)
    }

    /// How often the ring was entered.
    pub(crate) fn enters(&self) -> u64 {
        self.enters
    }

    /// Fills a slot of the table, or empties it. The kernel takes its own reference to the file.
    pub(crate) fn register_file(&self, slot: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let fd: RawFd = fd.map_or(-1, |fd| fd.as_raw_fd());
        self.ring.submitter().register_files_update(slot, &[fd]).map(drop).map_err(errno)
    }

    /// Room for the entries to submit next: as many as the queue will take.
    #[inline]
    pub(crate) fn vacant(&mut self) -> &mut [squeue::Entry] {
        let end = self.staged.len() - self.queued;
        &mut self.staged[self.staged_length..end]
    }

    /// Adds the first `count` entries of [`Ring::vacant`] to those to submit.
    ///
    /// # Safety
    ///
    /// Everything an entry points to stays alive, in place and unshared until the last completion
    /// with its `user_data` was reaped.
    ///
    /// # Panics
    ///
    /// If there is no room for so many.
    #[inline]
    pub(crate) unsafe fn stage(&mut self, count: usize) {
        assert!(self.staged_length + self.queued + count <= self.staged.len(), "room was made");
        self.staged_length += count;
    }

    /// Adds one entry to those to submit; false if there is no room.
    ///
    /// # Safety
    ///
    /// As for [`Ring::stage`].
    unsafe fn push(&mut self, entry: squeue::Entry) -> bool {
        let Some(place) = self.vacant().first_mut() else { return false };
        *place = entry;
        // SAFETY: the caller's promise is the one that `stage` asks for.
        unsafe { self.stage(1) };
        true
    }

    /// Writes what was staged to the submission queue.
    fn write_queue(&mut self) {
        let staged = &self.staged[..self.staged_length];
        // SAFETY: who staged the entries promised what `push_multiple` asks for.
        let is_written = unsafe { self.ring.submission().push_multiple(staged) }.is_ok();
        assert!(is_written, "no more was staged than the queue takes");
        self.queued += self.staged_length;
        self.staged_length = 0;
    }

    /// Adds a request to cancel the operation with this `user_data`; false if the queue is full.
    pub(crate) fn push_cancel(&mut self, user_data: u64, own_user_data: u64) -> bool {
        let entry = opcode::AsyncCancel::new(user_data).build().user_data(own_user_data);
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry) }
    }

    /// Adds a request to be told when a descriptor is readable; false if the queue is full.
    pub(crate) fn push_poll(&mut self, fd: BorrowedFd<'_>, own_user_data: u64) -> bool {
        let fd = io_uring::types::Fd(fd.as_raw_fd());
        let readable = libc::POLLIN.cast_unsigned();
        let entry = opcode::PollAdd::new(fd, readable.into()).build().user_data(own_user_data);
        // SAFETY: the entry points to no memory, and the kernel takes its own reference to the file.
        unsafe { self.push(entry) }
    }

    /// How many entries wait to be submitted.
    pub(crate) fn unsubmitted(&self) -> usize {
        self.staged_length + self.queued
    }

    /// Submits what was pushed and waits for `at_least` completions, or for `timeout`. Whatever it
    /// answers, each pushed entry is the kernel's.
    ///
    /// The wait may end early: the kernel counts a longer timeout than [`WAIT_MAX`] wrong where it
    /// is added to its clock, and hides the end of a wait behind a count of submissions.
    pub(crate) fn enter(&mut self, at_least: u32, timeout: Option<Duration>) -> Result<(), Errno> {
        self.write_queue();
        self.enters += 1;
        let entered = self.submit(at_least, timeout.map(|timeout| timeout.min(WAIT_MAX)));
        self.queued = self.ring.submission().len();
        entered.map(drop).map_err(errno)
    }

    fn submit(&self, at_least: u32, timeout: Option<Duration>) -> std::io::Result<usize> {
        let submitter = self.ring.submitter();
        match timeout {
            _ if at_least == 0 => {
                let count = u32::try_from(self.queued).expect("a queue holds less than 2^32");
                let flags = EnterFlags::GETEVENTS.bits();
                // SAFETY: no argument is passed, so no memory is; the count is that of the queue.
                unsafe { submitter.enter::<libc::sigset_t>(count, 0, flags, None) }
            }
            None => submitter.submit_and_wait(at_least as usize),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timespec);
                submitter.submit_with_args(at_least as usize, &arguments)
            }
        }
    }

    /// Takes what has completed.
    #[inline]
    pub(crate) fn reap(&mut self, mut take: impl FnMut(Completion)) {
        for entry in self.ring.completion() {
            take(Completion {
                user_data: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            });
        }
    }
}

fn build(step: Step, entries: u32) -> Result<IoUring, Errno> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp();
    if step.no_sq_array {
        builder.setup_no_sqarray();
    }
    if step.defer_task_run {
        builder.setup_single_issuer().setup_defer_taskrun();
    }
    if step.submit_all {
        builder.setup_submit_all();
    }
    builder.build(entries).map_err(errno)
}

fn names(step: Step) -> Vec<&'static str> {
    let flags = [
        (step.defer_task_run, "SINGLE_ISSUER"),
        (step.defer_task_run, "DEFER_TASKRUN"),
        (step.submit_all, "SUBMIT_ALL"),
        (step.no_sq_array, "NO_SQARRAY"),
        (true, "CLAMP"),
    ];
    flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
