//! Ends a copier that waits for ever, so that a test fails instead of hanging.

use std::process::{Child, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

/// Looks after the children of several threads.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    children: Mutex<Vec<(Pid, Instant)>>,
    is_done: AtomicBool,
}

impl Watchdog {
    /// Waits for the end of a child, and takes what it said.
    pub(crate) fn wait(&self, child: Child) -> Output {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("it is a process"));
        self.children.lock().unwrap().push((pid, Instant::now()));
        let output = child.wait_with_output().unwrap();
        self.children.lock().unwrap().retain(|(other, _)| *other != pid);
        output
    }

    /// Watches until [`Watchdog::finish`] is called.
    pub(crate) fn watch(&self) {
        while !self.is_done.load(Ordering::Relaxed) {
            for (pid, started) in self.children.lock().unwrap().iter() {
                if started.elapsed() > PATIENCE {
                    let _ = kill(*pid, Signal::SIGKILL);
                }
            }
            thread::park_timeout(Duration::from_secs(1));
        }
    }

    pub(crate) fn finish(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}
