//! The lines of `ucp sum --json`.

use std::path::Path;

use nix::sys::signal::Signal;
use serde::Serialize;
use ucp_engine::digest::Digest;
use ucp_engine::sum::{Event, Summary, Verdict};

use super::{Cpu, NamedPath, failure, line, nanoseconds};
use crate::exit::ExitStatus;

/// One line of the account, without its line feed; none for an event that it does not tell of.
pub(crate) fn event(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Summed(summed) => Some(line(&SummedLine {
            event: "summed",
            path: NamedPath::of(Some(summed.path)),
            bytes: summed.bytes,
            digests: summed.digests.iter().map(Hex::of).collect(),
        })),
        Event::Checked { path, verdict } => Some(checked(path, verdict)),
        Event::Skipped { path, reason } => {
            Some(line(&LeftOutLine { event: "left-out", path: NamedPath::of(Some(path)), reason }))
        }
        Event::Failed(error) => Some(failure(error)),
        _ => None,
    }
}

fn checked(path: &Path, verdict: &Verdict) -> String {
    let hex = |digest: &Digest| Some(Hex::of(digest));
    let (name, expected, found) = match verdict {
        Verdict::Same(digest) => ("same", hex(digest), hex(digest)),
        Verdict::Differs { expected, found } => ("differs", hex(expected), hex(found)),
        Verdict::Missing(_) => ("missing", None, None),
        Verdict::Failed(_) => ("unreadable", None, None),
    };
    let path = NamedPath::of(Some(path));
    line(&CheckedLine { event: "checked", path, verdict: name, expected, found })
}

/// A line of a list that is none.
pub(crate) fn malformed(list: &Path, number: u64) -> String {
    line(&MalformedLine { event: "malformed", path: NamedPath::of(Some(list)), line: number })
}

/// The last line.
pub(crate) fn summary(
    summary: &Summary,
    malformed: u64,
    signal: Option<Signal>,
    status: ExitStatus,
) -> String {
    line(&SummaryLine {
        event: "sum-summary",
        files: summary.files,
        bytes: summary.bytes,
        differing: summary.differing,
        missing: summary.missing,
        malformed,
        skipped: summary.skipped,
        failed: summary.failed,
        interrupted_by: signal.filter(|_| summary.was_cancelled).map(Signal::as_str),
        exit_status: status.code(),
        nanoseconds: nanoseconds(summary.elapsed),
        cpu: Cpu::used(),
    })
}

#[derive(Serialize)]
struct Hex {
    algorithm: &'static str,
    hex: String,
}

impl Hex {
    fn of(digest: &Digest) -> Self {
        Self { algorithm: digest.algorithm().name(), hex: digest.to_string() }
    }
}

#[derive(Serialize)]
struct SummedLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    path: NamedPath<'a>,
    bytes: u64,
    digests: Vec<Hex>,
}

#[derive(Serialize)]
struct CheckedLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    path: NamedPath<'a>,
    verdict: &'static str,
    expected: Option<Hex>,
    found: Option<Hex>,
}

#[derive(Serialize)]
struct LeftOutLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    path: NamedPath<'a>,
    reason: &'a str,
}

#[derive(Serialize)]
struct MalformedLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    path: NamedPath<'a>,
    line: u64,
}

#[derive(Serialize)]
struct SummaryLine {
    event: &'static str,
    files: u64,
    bytes: u64,
    differing: u64,
    missing: u64,
    malformed: u64,
    skipped: u64,
    failed: u64,
    interrupted_by: Option<&'static str>,
    exit_status: u8,
    nanoseconds: u64,
    cpu: Cpu,
}
