//! Faults and changes at single reads and writes: the kernel asks before each access to a file, and
//! is answered with an errno, or after something was done to the file (fanotify pre-content events,
//! Linux 6.14).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::unistd;

/// FAN_PRE_ACCESS of `linux/fanotify.h`.
const PRE_ACCESS: u64 = 0x0010_0000;
/// FAN_EVENT_ON_CHILD.
const ON_CHILD: u64 = 0x0800_0000;
const ALLOW: u32 = 1;
const DENY: u32 = 2;

/// One access that is about to be made.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    /// How many came before it.
    pub(crate) number: u32,
    /// The file.
    pub(crate) file: &'a File,
}

/// Answers accesses until it is dropped.
pub(crate) struct Injector {
    is_over: Arc<AtomicBool>,
    seen: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Injector {
    /// Has `answer` decide about each access of other processes to a file, or to any file of a
    /// directory; none if the kernel can't.
    pub(crate) fn start(
        path: &Path,
        answer: impl FnMut(Access<'_>) -> Result<(), Errno> + Send + 'static,
    ) -> Option<Self> {
        let flags = InitFlags::FAN_CLASS_PRE_CONTENT | InitFlags::FAN_CLOEXEC;
        let group = Fanotify::init(flags, EventFFlags::O_RDWR).ok()?;
        let mask = if path.is_dir() { PRE_ACCESS | ON_CHILD } else { PRE_ACCESS };
        let directory = File::open(path.parent()?).ok()?;
        let mask = MaskFlags::from_bits_retain(mask);
        group.mark(MarkFlags::FAN_MARK_ADD, mask, directory.as_fd(), Some(path)).ok()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(AtomicU32::new(0));
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&seen));
        let thread = thread::spawn(move || serve(&group, &over, &count, answer));
        Some(Self { is_over, seen, thread: Some(thread) })
    }

    /// How many accesses there were.
    pub(crate) fn seen(&self) -> u32 {
        self.seen.load(Ordering::Acquire)
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers each access on a thread of its own: what `answer` does to the file may make accesses too
/// (a truncation does, even through the event's descriptor), and those are answered meanwhile.
fn serve(
    group: &Fanotify,
    is_over: &AtomicBool,
    seen: &AtomicU32,
    answer: impl FnMut(Access<'_>) -> Result<(), Errno> + Send,
) {
    let answer = &Mutex::new(answer);
    thread::scope(|threads| {
        let mut events = [0_u8; 4096];
        while !is_over.load(Ordering::Acquire) {
            let mut ready = [PollFd::new(group.as_fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(Duration::from_millis(5)).unwrap();
            if !matches!(poll(&mut ready, patience), Ok(1..)) {
                continue;
            }
            let length = unistd::read(group, &mut events).unwrap_or(0);
            let mut rest = &events[..length];
            while let Some(event) = Event::take(&mut rest) {
                // Our own accesses are none of the command's.
                if event.process == std::process::id() {
                    event.respond(group, ALLOW);
                    continue;
                }
                let number = seen.fetch_add(1, Ordering::AcqRel);
                threads.spawn(move || {
                    let file = event.file();
                    let answered = answer.lock().unwrap()(Access { number, file: &file });
                    // FAN_DENY_ERRNO.
                    let denied = |errno| DENY | (errno as u32) << 24;
                    event.respond(group, answered.map_or_else(denied, |()| ALLOW));
                });
            }
        }
    });
}

/// What is used of `struct fanotify_event_metadata`.
struct Event {
    descriptor: i32,
    process: u32,
}

impl Event {
    fn take(rest: &mut &[u8]) -> Option<Self> {
        let bytes = |from: usize| <[u8; 4]>::try_from(rest.get(from..from + 4)?).ok();
        let length = u32::from_ne_bytes(bytes(0)?) as usize;
        let descriptor = i32::from_ne_bytes(bytes(16)?);
        let process = u32::from_ne_bytes(bytes(20)?);
        *rest = rest.get(length..)?;
        Some(Self { descriptor, process })
    }

    #[allow(unsafe_code, reason = "the descriptor comes as a number")]
    fn file(&self) -> File {
        // SAFETY: the kernel made this descriptor for this event, it is open until the response,
        // and it is duplicated before anybody can close it.
        let borrowed = unsafe { BorrowedFd::borrow_raw(self.descriptor) };
        borrowed.try_clone_to_owned().unwrap().into()
    }

    #[allow(unsafe_code, reason = "the descriptor comes as a number")]
    fn respond(&self, group: &Fanotify, verdict: u32) {
        let mut response = self.descriptor.to_ne_bytes().to_vec();
        response.extend(verdict.to_ne_bytes());
        unistd::write(group, &response).unwrap();
        // SAFETY: the kernel made this descriptor for this event, and nobody else closes it.
        drop(unsafe { OwnedFd::from_raw_fd(self.descriptor) });
    }
}
