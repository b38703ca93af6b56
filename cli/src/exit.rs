//! The exit status, the same for every subcommand.

use nix::sys::signal::Signal;
use ucp_engine::ErrorKind;
use ucp_engine::copy::Summary;

use crate::gnu::Persona;

/// How the program ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ExitStatus {
    /// All was done.
    Done,
    /// Some files failed or were skipped; each was named.
    SomeFailed,
    /// The command line makes no sense.
    Usage,
    /// What was written is not what was read back.
    DoesNotVerify,
    /// The target's storage failed: full, an I/O error, read-only.
    StorageFailed,
    /// The source changed while it was being copied.
    SourceChanged,
    /// A signal asked to stop, and the work was not finished by then.
    Interrupted(Signal),
}

impl ExitStatus {
    /// What the program exits with.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::SomeFailed => 1,
            Self::Usage => 2,
            Self::DoesNotVerify => 6,
            Self::StorageFailed => 8,
            Self::SourceChanged => 9,
            Self::Interrupted(signal) => u8::try_from(128 + signal as i32).unwrap_or(u8::MAX),
        }
    }

    /// The status of a command line that makes no sense.
    pub(crate) fn of_usage(persona: Persona) -> Self {
        match persona {
            Persona::Ucp => Self::Usage,
            Persona::Cp => Self::SomeFailed,
        }
    }

    /// The same as called under this name: `cp` knows no classes of failure.
    pub(crate) fn for_persona(self, persona: Persona) -> Self {
        match (persona, self) {
            (Persona::Ucp, status) | (_, status @ (Self::Done | Self::Interrupted(_))) => status,
            (Persona::Cp, _) => Self::SomeFailed,
        }
    }

    /// The status of a copy that came to `summary`.
    ///
    /// A class of its own only if all failures share it: a file that was skipped, and a standard
    /// output that took no more, are failures of no class.
    pub(crate) fn of_copy(
        summary: &Summary,
        signal: Option<Signal>,
        is_output_complete: bool,
    ) -> Self {
        match (summary.was_cancelled, signal) {
            (true, Some(signal)) => return Self::Interrupted(signal),
            (true, None) => return Self::SomeFailed,
            (false, _) => {}
        }
        if summary.failure == Some(ErrorKind::DoesNotVerify) {
            return Self::DoesNotVerify;
        }
        if summary.skipped > 0 || !is_output_complete {
            return Self::SomeFailed;
        }
        match summary.failure {
            Some(kind) => Self::of_failure(kind, signal),
            None if summary.failed > 0 => Self::SomeFailed,
            None => Self::Done,
        }
    }

    /// The status of what only read, and found so many files that differ.
    pub(crate) fn of_reading(
        was_cancelled: bool,
        signal: Option<Signal>,
        differing: u64,
        is_whole: bool,
    ) -> Self {
        match (was_cancelled, signal) {
            (true, Some(signal)) => Self::Interrupted(signal),
            (true, None) => Self::SomeFailed,
            (false, _) if differing > 0 => Self::DoesNotVerify,
            (false, _) if is_whole => Self::Done,
            (false, _) => Self::SomeFailed,
        }
    }

    /// The status when all that failed is of one class.
    pub(crate) fn of_failure(kind: ErrorKind, signal: Option<Signal>) -> Self {
        match (kind, signal) {
            (ErrorKind::DoesNotVerify, _) => Self::DoesNotVerify,
            (ErrorKind::Storage, _) => Self::StorageFailed,
            (ErrorKind::SourceChanged, _) => Self::SourceChanged,
            (ErrorKind::Cancelled, Some(signal)) => Self::Interrupted(signal),
            _ => Self::SomeFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(failure: Option<ErrorKind>) -> Summary {
        Summary { failed: u64::from(failure.is_some()), failure, ..Summary::default() }
    }

    #[test]
    fn the_status_is_the_class_that_all_failures_share() {
        let cancelled = Summary { was_cancelled: true, ..failing(Some(ErrorKind::Cancelled)) };
        let skipping = Summary { skipped: 1, ..failing(Some(ErrorKind::Storage)) };
        let interrupt = Some(Signal::SIGINT);
        let cases = [
            ("nothing failed", failing(None), None, true, 0),
            ("standard output took no more", failing(None), None, false, 1),
            ("a file was skipped", Summary { skipped: 1, ..failing(None) }, None, true, 1),
            ("failures differ", failing(Some(ErrorKind::Io)), None, true, 1),
            ("an operand is wrong", failing(Some(ErrorKind::Operand)), None, true, 1),
            ("not supported", failing(Some(ErrorKind::Unsupported)), None, true, 1),
            ("storage failed", failing(Some(ErrorKind::Storage)), None, true, 8),
            ("storage failed and a file was skipped", skipping, None, true, 1),
            ("storage failed and so did output", failing(Some(ErrorKind::Storage)), None, false, 1),
            ("does not verify", failing(Some(ErrorKind::DoesNotVerify)), None, false, 6),
            ("the source changed", failing(Some(ErrorKind::SourceChanged)), None, true, 9),
            ("interrupted", cancelled.clone(), interrupt, true, 130),
            ("hung up", cancelled.clone(), Some(Signal::SIGHUP), true, 129),
            ("terminated", cancelled.clone(), Some(Signal::SIGTERM), false, 143),
            ("stopped for no signal", cancelled, None, true, 1),
            ("interrupted when all was done", failing(None), interrupt, true, 0),
        ];
        for (name, summary, signal, is_output_complete, want) in cases {
            let got = ExitStatus::of_copy(&summary, signal, is_output_complete);
            assert_eq!(got.code(), want, "{name}");
        }
    }

    #[test]
    fn what_only_reads_ends_with_six_where_something_differs() {
        let interrupt = Some(Signal::SIGINT);
        let cases = [
            (false, None, 0, true, 0),
            (false, None, 0, false, 1),
            (false, None, 2, false, 6),
            (false, interrupt, 0, true, 0),
            (true, interrupt, 2, false, 130),
            (true, None, 0, true, 1),
        ];
        for (was_cancelled, signal, differing, is_whole, want) in cases {
            let got = ExitStatus::of_reading(was_cancelled, signal, differing, is_whole);
            assert_eq!(got.code(), want, "{was_cancelled} {signal:?} {differing} {is_whole}");
        }
    }

    #[test]
    fn wrong_usage_is_two() {
        assert_eq!(ExitStatus::Usage.code(), 2);
    }
}
