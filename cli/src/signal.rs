//! Signals: the first asks the copy to stop, a second Ctrl-C ends the program at once; SIGUSR1 asks
//! how far it is.
//!
//! All signals of interest are blocked before any thread starts, and one thread waits for them
//! with `sigwait(3)`. So no handler interrupts anything, no system call of the engine ends in
//! `EINTR`, and none of it needs `unsafe`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use nix::sys::signal::{SigSet, Signal};
use ucp_engine::copy::Cancellation;

use crate::exit::ExitStatus;

/// Signals that ask the program to end.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The signal that asks how far the work is.
const ASKING: Signal = Signal::SIGUSR1;

/// The signals that are blocked, until somebody watches them.
#[derive(Debug)]
pub(crate) struct Signals {
    watched: SigSet,
}

/// The signal that came first, if any did.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstSignal(Arc<AtomicI32>);

impl Signals {
    /// Blocks the signals of interest in this thread and in those that it will start.
    ///
    /// `SIGXFSZ` is blocked for good: a write beyond `RLIMIT_FSIZE` then fails with `EFBIG`, which
    /// is reported, instead of killing the program. `SIGPIPE` is ignored by Rust's runtime.
    pub(crate) fn block() -> Self {
        // A blocked signal is kept by Linux even if it is ignored, so `sigwait` would see what
        // `nohup`, or a shell's `&`, had told this program not to care for.
        let ignored = ignored_signals();
        let mut watched = SigSet::empty();
        ENDING.into_iter().chain([ASKING]).filter(|signal| !ignored.contains(*signal)).for_each(
            |signal| {
                watched.add(signal);
            },
        );
        let mut blocked = watched;
        blocked.add(Signal::SIGXFSZ);
        blocked.thread_block().expect("a mask of known signals is valid");
        Self { watched }
    }

    /// Lets the signals end the program, for work that can be dropped at any time.
    pub(crate) fn release(self) {
        let _ = self.watched.thread_unblock();
    }

    /// Starts the thread that turns the first signal into a cancellation, and calls `tell` whenever
    /// somebody asks how far the work is.
    pub(crate) fn watch(
        self,
        cancellation: Arc<Cancellation>,
        tell: impl Fn() + Send + 'static,
    ) -> FirstSignal {
        let first = FirstSignal::default();
        let seen = first.clone();
        let watched = self.watched;
        let wait = move || {
            let mut first_came: Option<Instant> = None;
            while let Ok(signal) = watched.wait() {
                if signal == ASKING {
                    tell();
                    continue;
                }
                let came = *first_came.get_or_insert_with(Instant::now);
                if signal == Signal::SIGINT && came.elapsed() > SAME_KEY {
                    process::exit(i32::from(ExitStatus::Interrupted(signal).code()));
                }
                seen.set_if_first(signal);
                cancellation.cancel();
            }
        };
        // Without a thread for them the signals end the program as if it did not know of them; but
        // nobody asks to end it by asking how far it is.
        let started = thread::Builder::new().name("signals".to_owned()).stack_size(STACK_BYTES);
        if started.spawn(wait).is_err() {
            let mut ending = watched;
            ending.remove(ASKING);
            let _ = ending.thread_unblock();
        }
        first
    }
}

/// Signals this close are one wish: `timeout -s INT` and some terminals send it to the program and
/// to its group.
const SAME_KEY: Duration = Duration::from_millis(200);
const STACK_BYTES: usize = 64 << 10;

impl FirstSignal {
    /// The signal, if one came.
    pub(crate) fn get(&self) -> Option<Signal> {
        Signal::try_from(self.0.load(Ordering::Acquire)).ok()
    }

    fn set_if_first(&self, signal: Signal) {
        let _ = self.0.compare_exchange(0, signal as i32, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The signals that this program was started to ignore (`proc(5)`, `SigIgn`); none if `/proc` is
/// not there.
fn ignored_signals() -> SigSet {
    parse_ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn parse_ignored(status: &str) -> SigSet {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    let signals = ENDING.into_iter().chain([ASKING]);
    signals.filter(|signal| mask & (1 << (*signal as i32 - 1)) != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let cases: [(&str, &[Signal]); 6] = [
            ("", &[]),
            ("SigIgn:\tzzz\n", &[]),
            ("Name:\tucp\nSigIgn:\t0000000000001000\n", &[]),
            ("Name:\tucp\nSigIgn:\t0000000000001001\nSigCgt:\t0\n", &[Signal::SIGHUP]),
            ("SigIgn:\t0000000000000200\n", &[Signal::SIGUSR1]),
            ("SigIgn:\t0000000000004002\n", &[Signal::SIGINT, Signal::SIGTERM]),
        ];
        for (status, want) in cases {
            let want: SigSet = want.iter().copied().collect();
            assert_eq!(parse_ignored(status), want, "{status:?}");
        }
    }

    #[test]
    fn only_the_first_signal_counts() {
        let first = FirstSignal::default();
        assert_eq!(first.get(), None);
        first.set_if_first(Signal::SIGTERM);
        first.set_if_first(Signal::SIGINT);
        assert_eq!(first.get(), Some(Signal::SIGTERM));
    }
}
