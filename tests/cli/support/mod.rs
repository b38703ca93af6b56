//! What the tests of the command share.

mod extents;
mod file_system;
mod injector;
mod loop_device;
mod lying;
mod run;
mod scratch;
mod stepper;
mod tree;

use std::thread;
use std::time::{Duration, Instant};

pub(crate) use extents::{allocated_bytes, data_map, make_sparse};
pub(crate) use file_system::{in_mount_namespace, on_file_system};
pub(crate) use injector::Injector;
pub(crate) use loop_device::LoopDevice;
pub(crate) use lying::{Lies, LyingFileSystem, Map};
pub(crate) use run::{Background, Ran, UCP, run, run_within_a_minute};
pub(crate) use scratch::Scratch;
pub(crate) use stepper::{Call, Then, step};
pub(crate) use tree::{Entry, bytes, leftovers, listing, make_odd_tree, set_times};

/// Ends the test here if it can't have what it needs: fails where `UCP_REQUIRE_KERNEL=1` says that
/// everything is there, is skipped elsewhere.
macro_rules! require_root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            let required = std::env::var_os("UCP_REQUIRE_KERNEL").is_some_and(|value| value == "1");
            assert!(!required, "needs root, and UCP_REQUIRE_KERNEL=1 forbids skipping");
            eprintln!("skipped: needs root");
            return;
        }
    };
}

/// Looks until `is_so`, for half a minute at most.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited too long until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
