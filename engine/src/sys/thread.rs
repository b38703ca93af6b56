//! What concerns a whole thread or process.

use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Pins this thread to the `index`-th of the cores that it may run on; best effort.
pub(crate) fn pin(index: usize) {
    let this = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this) else { return };
    let cores: Vec<usize> =
        (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect();
    let Some(core) = cores.get(index % cores.len().max(1)) else { return };
    let mut only = CpuSet::new();
    if only.set(*core).is_ok() {
        // Where it is refused, the thread runs as well without.
        let _ = sched_setaffinity(this, &only);
    }
}

/// Processor time that all threads of this process have used.
pub(crate) fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// How many files this process may have open.
pub(crate) fn open_files_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}
