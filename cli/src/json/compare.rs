//! The lines of `ucp compare --json`.

use std::path::Path;

use nix::sys::signal::Signal;
use serde::Serialize;
use ucp_engine::compare::{Difference, Summary};

use super::{Cpu, NamedPath, line, nanoseconds};
use crate::exit::ExitStatus;

/// Two files differ.
pub(crate) fn differs(path: &Path, difference: &Difference) -> String {
    let offset = match difference {
        Difference::Content(offset) => Some(*offset),
        _ => None,
    };
    let attribute = match difference {
        Difference::Attribute(name) => Some(String::from_utf8_lossy(name).into_owned()),
        _ => None,
    };
    line(&DiffersLine {
        event: "differs",
        path: NamedPath::of(Some(path)),
        what: difference.name(),
        offset,
        attribute,
    })
}

/// The last line.
pub(crate) fn summary(summary: &Summary, signal: Option<Signal>, status: ExitStatus) -> String {
    line(&SummaryLine {
        event: "compare-summary",
        files: summary.files,
        bytes: summary.bytes,
        differing: summary.differing,
        failed: summary.failed,
        interrupted_by: signal.filter(|_| summary.was_cancelled).map(Signal::as_str),
        exit_status: status.code(),
        nanoseconds: nanoseconds(summary.elapsed),
        cpu: Cpu::used(),
    })
}

#[derive(Serialize)]
struct DiffersLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    path: NamedPath<'a>,
    what: &'static str,
    offset: Option<u64>,
    attribute: Option<String>,
}

#[derive(Serialize)]
struct SummaryLine {
    event: &'static str,
    files: u64,
    bytes: u64,
    differing: u64,
    failed: u64,
    interrupted_by: Option<&'static str>,
    exit_status: u8,
    nanoseconds: u64,
    cpu: Cpu,
}
