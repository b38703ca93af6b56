//! Skipping a test that can't run here: loudly, and not at all where the machine is known.

/// Says why a test does not run here. With `UCP_REQUIRE_KERNEL=1` that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var_os("UCP_REQUIRE_KERNEL").is_none_or(|value| value != "1"),
        "this test must run here, but {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// Leaves the test if there is no io_uring; else nobody takes it away until the test ends.
#[macro_export]
macro_rules! require_io_uring {
    () => {
        let _hold = $crate::support::machine::shared();
        if let Err(errno) = ucp_engine::processor::KernelProcessor::new(8, 1) {
            return $crate::support::skip::skip(&format!("there is no io_uring: {errno}"));
        }
    };
}

/// Leaves the test if it is not run by root.
#[macro_export]
macro_rules! require_root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            return $crate::support::skip::skip("only root can do this");
        }
    };
}
