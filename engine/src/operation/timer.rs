//! Operations that wait for time to pass.

use std::time::Duration;

/// Completes after a time: success with 0, or cancelled.
///
/// As the last member of a chain made by [`super::Chain::with_timeout`] it cancels the member
/// before it instead.
#[derive(Debug)]
pub struct Timeout {
    /// How long, from when the processor submits it.
    pub duration: Duration,
}
