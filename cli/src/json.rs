//! The account for programs: `--json`, one object a line. `docs/json.md` says what each field means,
//! and what will not change; `docs/json.schema.json` says it to programs.

pub(crate) mod compare;
pub(crate) mod sum;

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use serde::Serialize;
use ucp_engine::copy::{self, Copied, FellBack, Publication, Summary};
use ucp_engine::{Errno, Error};

use crate::exit::ExitStatus;

/// One line of the account, without its line feed; none for an event that it does not tell of.
pub(crate) fn event(event: &copy::Event<'_>) -> Option<String> {
    let line = match event {
        copy::Event::Copied(copied) => line(&CopiedLine::of(copied)),
        copy::Event::Skipped { source, reason } => {
            let (source, source_base64) = name(source);
            line(&SkippedLine { event: "skipped", source, source_base64, reason })
        }
        copy::Event::WouldCopy(copied) => {
            let (source, source_base64) = name(copied.source);
            let (target, target_base64) = name(copied.target);
            line(&WouldCopyLine {
                event: "would-copy",
                source,
                source_base64,
                target,
                target_base64,
                kind: copied.kind.name(),
                bytes: copied.bytes,
                publication: copied.publication.name(),
            })
        }
        copy::Event::WouldDelete { path, kind } => {
            let (path, path_base64) = name(path);
            line(&DeletedLine { event: "would-delete", path, path_base64, kind: kind.name() })
        }
        copy::Event::Done(done) => {
            let (target, target_base64) = name(done.target);
            line(&DoneLine { event: "done", target, target_base64, tree: done.is_tree })
        }
        copy::Event::Deleted { path, kind } => {
            let (path, path_base64) = name(path);
            line(&DeletedLine { event: "deleted", path, path_base64, kind: kind.name() })
        }
        copy::Event::UpToDate { source, target } => not_copied("up-to-date", source, target),
        copy::Event::Stayed { source, target } => not_copied("stayed", source, target),
        copy::Event::Repeated { source, is_directory } => {
            let (source, source_base64) = name(source);
            let directory = *is_directory;
            line(&RepeatedLine { event: "repeated", source, source_base64, directory })
        }
        copy::Event::Kept { target, temporary, bytes } => {
            let (target, target_base64) = name(target);
            let (temporary, temporary_base64) = name(temporary);
            let bytes = *bytes;
            line(&KeptLine {
                event: "kept",
                target,
                target_base64,
                temporary,
                temporary_base64,
                bytes,
            })
        }
        copy::Event::Removed { source } => line(&RemovedLine::of("removed", source)),
        copy::Event::WouldRemove { source } => line(&RemovedLine::of("would-remove", source)),
        copy::Event::Warned { path, warning } => {
            let (path, path_base64) = name(path);
            line(&WarnedLine { event: "warned", path, path_base64, message: warning })
        }
        copy::Event::Failed(error) => failure(error),
        _ => return None,
    };
    Some(line)
}

fn not_copied(event: &'static str, source: &Path, target: &Path) -> String {
    let (source, source_base64) = name(source);
    let (target, target_base64) = name(target);
    line(&NotCopiedLine { event, source, source_base64, target, target_base64 })
}

/// The line of a failure.
pub(crate) fn failure(error: &Error) -> String {
    line(&FailedLine {
        event: "failed",
        path: NamedPath::of(error.path()),
        class: error.kind().name(),
        operation: error.what(),
        offset: error.offset_bytes(),
        errno: error.errno().map(errno),
        message: error.reason(),
    })
}

/// The last line.
pub(crate) fn summary(summary: &Summary, signal: Option<Signal>, status: ExitStatus) -> String {
    let Summary { files, directories, links, hard_links, specials, bytes, .. } = *summary;
    let Summary { skipped, up_to_date, stayed, excluded, deleted, removed, .. } = *summary;
    let Summary { verified_device, verified_cache, failed, .. } = *summary;
    let interrupted_by = signal.filter(|_| summary.was_cancelled).map(Signal::as_str);
    line(&SummaryLine {
        event: "summary",
        dry_run: summary.is_dry_run,
        files,
        directories,
        links,
        hard_links,
        specials,
        bytes,
        skipped,
        up_to_date,
        stayed,
        verified_device,
        verified_cache,
        excluded,
        deleted,
        removed,
        failed,
        class: summary.failure.map(|kind| kind.name()),
        interrupted_by,
        exit_status: status.code(),
        nanoseconds: nanoseconds(summary.elapsed),
        cpu: Cpu::used(),
        engine: Some(summary.engine_name.as_str()).filter(|name| !name.is_empty()),
        engine_reason: summary.engine_reason.as_deref(),
        data_paths: DataPaths(summary),
    })
}

#[derive(Serialize)]
struct CopiedLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
    kind: &'static str,
    action: &'static str,
    bytes: u64,
    resumed_bytes: u64,
    begins_again_reason: Option<&'static str>,
    holes_bytes: Option<u64>,
    shared: Option<bool>,
    publication: &'static str,
    publication_reason: Option<&'static str>,
    #[serde(flatten)]
    backup: Backup<'a>,
    data_path: Option<&'static str>,
    data_path_reason: Option<&'static str>,
    fell_back: Vec<FellBackItem>,
    digest: Option<DigestItem<'a>>,
    digest_reason: Option<&'static str>,
    verified: Option<&'static str>,
    cache: Option<&'static str>,
    source_changed: bool,
    nanoseconds: Option<u64>,
}

#[derive(Serialize)]
struct FellBackItem {
    from: &'static str,
    errno: Option<ErrnoItem>,
}

#[derive(Serialize)]
struct DigestItem<'a> {
    algorithm: &'static str,
    hex: &'a str,
}

#[derive(Serialize)]
pub(crate) struct ErrnoItem {
    number: i32,
    name: String,
}

#[derive(Serialize)]
struct SkippedLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_base64: Option<String>,
    reason: &'a str,
}

#[derive(Serialize)]
struct WouldCopyLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
    kind: &'static str,
    bytes: u64,
    publication: &'static str,
}

#[derive(Serialize)]
struct NotCopiedLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
}

#[derive(Serialize)]
struct RepeatedLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_base64: Option<String>,
    directory: bool,
}

#[derive(Serialize)]
struct KeptLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temporary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temporary_base64: Option<String>,
    bytes: u64,
}

#[derive(Serialize)]
struct DoneLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
    tree: bool,
}

#[derive(Serialize)]
struct DeletedLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    kind: &'static str,
}

#[derive(Serialize)]
struct RemovedLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_base64: Option<String>,
}

#[derive(Serialize)]
struct WarnedLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    message: &'a str,
}

#[derive(Serialize)]
struct FailedLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    path: NamedPath<'a>,
    class: &'static str,
    operation: &'static str,
    offset: Option<u64>,
    errno: Option<ErrnoItem>,
    message: String,
}

/// Where what stood there before is kept: as text, in base64, or null.
struct Backup<'a>(Option<&'a Path>);

/// A name that may be missing: then both are, and `path` is null.
pub(crate) struct NamedPath<'a> {
    path: Option<&'a str>,
    path_base64: Option<String>,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    event: &'static str,
    dry_run: bool,
    files: u64,
    directories: u64,
    links: u64,
    hard_links: u64,
    specials: u64,
    bytes: u64,
    skipped: u64,
    up_to_date: u64,
    stayed: u64,
    verified_device: u64,
    verified_cache: u64,
    excluded: u64,
    deleted: u64,
    removed: u64,
    failed: u64,
    class: Option<&'static str>,
    interrupted_by: Option<&'static str>,
    exit_status: u8,
    nanoseconds: u64,
    cpu: Cpu,
    engine: Option<&'a str>,
    engine_reason: Option<&'a str>,
    data_paths: DataPaths<'a>,
}

/// Processor time of this process, all its threads together (`getrusage(2)`).
#[derive(Serialize)]
struct Cpu {
    user_nanoseconds: u64,
    system_nanoseconds: u64,
}

/// How many files each data path moved.
struct DataPaths<'a>(&'a Summary);

impl<'a> CopiedLine<'a> {
    fn of(copied: &'a Copied<'a>) -> Self {
        let (source, source_base64) = name(copied.source);
        let (target, target_base64) = name(copied.target);
        let (digest, digest_reason) = match &copied.digest {
            Ok(digest) => {
                (Some(DigestItem { algorithm: digest.algorithm, hex: &digest.hex }), None)
            }
            Err(reason) => (None, Some(*reason)),
        };
        Self {
            event: "copied",
            source,
            source_base64,
            target,
            target_base64,
            kind: copied.kind.name(),
            action: copied.action.name(),
            bytes: copied.bytes,
            resumed_bytes: copied.resumed_bytes,
            begins_again_reason: copied.begins_again,
            holes_bytes: copied.holes_bytes,
            shared: copied.is_shared,
            publication: copied.publication.name(),
            publication_reason: match copied.publication {
                Publication::InPlace(reason) => Some(reason),
                _ => None,
            },
            backup: Backup(copied.backup),
            data_path: copied.path.map(|path| path.name()),
            data_path_reason: copied.path_reason.map(|reason| reason.name()),
            fell_back: copied.fell_back.iter().map(FellBackItem::of).collect(),
            digest,
            digest_reason,
            verified: copied.verified.map(|verified| verified.name()),
            cache: copied.cache.map(|effect| effect.name()),
            source_changed: copied.is_of_changed,
            nanoseconds: copied.elapsed.map(nanoseconds),
        }
    }
}

impl<'a> RemovedLine<'a> {
    fn of(event: &'static str, source: &'a Path) -> Self {
        let (source, source_base64) = name(source);
        Self { event, source, source_base64 }
    }
}

impl FellBackItem {
    fn of(fell_back: &FellBack) -> Self {
        Self { from: fell_back.from.name(), errno: fell_back.errno.map(errno) }
    }
}

impl<'a> NamedPath<'a> {
    pub(crate) fn of(path: Option<&'a Path>) -> Self {
        let (path, path_base64) = path.map_or((None, None), |path| name(path));
        Self { path, path_base64 }
    }
}

impl Serialize for NamedPath<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.path_base64 {
            Some(bytes) => serializer.collect_map([("path_base64", bytes)]),
            None => serializer.collect_map([("path", self.path)]),
        }
    }
}

impl Serialize for Backup<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.map(name) {
            Some((None, bytes)) => serializer.collect_map([("backup_base64", bytes)]),
            text => serializer.collect_map([("backup", text.and_then(|(text, _)| text))]),
        }
    }
}

impl Serialize for DataPaths<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.paths.used().map(|(path, files)| (path.name(), files)))
    }
}

impl Cpu {
    fn used() -> Self {
        let nanoseconds = |time: nix::sys::time::TimeVal| {
            let microseconds = time.tv_sec().saturating_mul(1_000_000) + time.tv_usec();
            u64::try_from(microseconds).unwrap_or_default().saturating_mul(1000)
        };
        match getrusage(UsageWho::RUSAGE_SELF) {
            Ok(usage) => Self {
                user_nanoseconds: nanoseconds(usage.user_time()),
                system_nanoseconds: nanoseconds(usage.system_time()),
            },
            Err(_) => Self { user_nanoseconds: 0, system_nanoseconds: 0 },
        }
    }
}

/// A name as text, or its bytes in base64 if it is not UTF-8: one of the two.
fn name(name: &(impl AsRef<OsStr> + ?Sized)) -> (Option<&str>, Option<String>) {
    let name = name.as_ref();
    match name.to_str() {
        Some(text) => (Some(text), None),
        None => (None, Some(BASE64_STANDARD.encode(name.as_encoded_bytes()))),
    }
}

/// An errno with its number and its name.
pub(crate) fn errno(errno: Errno) -> ErrnoItem {
    ErrnoItem { number: errno as i32, name: format!("{errno:?}") }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes an object as one line: JSON escapes what would break it.
pub(crate) fn line(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("text and numbers can always be written")
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use ucp_engine::ErrorKind;

    use super::*;

    #[test]
    fn a_name_is_text_or_base64() {
        assert_eq!(name("a\nb"), (Some("a\nb"), None));
        let bytes = OsStr::from_bytes(b"a\xff");
        assert_eq!(name(bytes), (None, Some("Yf8=".to_owned())));
    }

    #[test]
    fn failures_are_told_with_all_that_is_known() {
        let cases = [
            (
                Error::from_errno("write", Errno::ENOSPC).on("/mnt/b").at(4096),
                r#"{"event":"failed","path":"/mnt/b","class":"storage","operation":"write","offset":4096,"errno":{"number":28,"name":"ENOSPC"},"message":"No space left on device (os error 28)"}"#,
            ),
            (
                Error::from_errno("open", Errno::ENOENT).on(OsStr::from_bytes(b"\xff\n")),
                r#"{"event":"failed","path_base64":"/wo=","class":"io","operation":"open","offset":null,"errno":{"number":2,"name":"ENOENT"},"message":"No such file or directory (os error 2)"}"#,
            ),
            (
                Error::new(ErrorKind::Unsupported, "io_uring", "not\nthere"),
                r#"{"event":"failed","path":null,"class":"unsupported","operation":"io_uring","offset":null,"errno":null,"message":"not\nthere"}"#,
            ),
        ];
        for (error, want) in cases {
            assert_eq!(failure(&error), want);
        }
    }
}
