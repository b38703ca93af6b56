//! What the user is told: files and results on standard output, all else on standard error.
//!
//! Errors are one line each: `ucp: what failed on FILE at byte N: why`. Nothing printed here holds
//! a control character that came from a file's name, and no closed or full stream ends the work.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::Signal;
use ucp_engine::copy::{
    Copied, EntryKind, Event, Observer, PathCounts, Publication, Question, Summary,
};
use ucp_engine::units::Bytes;
use ucp_engine::{Error, ErrorKind};

use crate::colour::{self, Tone};
use crate::exit::ExitStatus;
use crate::gnu::{self, Persona};
use crate::output::{Output, Printer};
use crate::progress::Display;
use crate::{ask, explain, json, quote};

/// How much is told.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Verbosity {
    /// Errors.
    Quiet,
    /// Errors and warnings, and a last line on a terminal.
    #[default]
    Normal,
    /// Every file, the engine, and a last line always.
    Verbose,
}

/// What is listed on standard output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Listing {
    /// Nothing.
    #[default]
    None,
    /// Each file that was copied, as `cp -v` lists it.
    Names,
    /// The same, with how each was copied, as `cp --debug` says it.
    Debug,
    /// The same, with the reasons.
    Explained,
    /// All that happens, for programs.
    Json,
}

/// Tells the user what happens, as it happens.
pub(crate) struct Report {
    verbosity: Verbosity,
    listing: Listing,
    persona: Persona,
    display: Display,
    printer: Printer,
    asking: Mutex<()>,
}

impl Report {
    pub(crate) fn new(
        persona: Persona,
        verbosity: Verbosity,
        listing: Listing,
        display: Display,
    ) -> Self {
        Self {
            verbosity,
            listing,
            persona,
            printer: Printer::new(display.clone()),
            display,
            asking: Mutex::default(),
        }
    }

    /// Tells why nothing could be begun. Nothing is printed after this.
    pub(crate) fn abandon(&self, error: &Error, signal: Option<Signal>) {
        self.failure(error);
        if self.listing == Listing::Json {
            let was_cancelled = error.kind() == ErrorKind::Cancelled;
            if !was_cancelled {
                self.print(&json::failure(error));
            }
            let failed = u64::from(!was_cancelled);
            let failure = Some(error.kind());
            let summary = Summary { failed, failure, was_cancelled, ..Summary::default() };
            let status = ExitStatus::of_failure(error.kind(), signal);
            self.print(&json::summary(&summary, signal, status));
        }
        self.flush();
    }

    /// Tells of a failure.
    fn failure(&self, error: &Error) {
        // What was only stopped is told once, for all files, in the end.
        if error.kind() != ErrorKind::Cancelled {
            match self.persona {
                Persona::Ucp => self.complain_as(Tone::Failure, &failure_line(error)),
                Persona::Cp => self.complain(&gnu::failure(error)),
            }
        }
    }

    /// Tells what came of it all. Nothing is printed after this.
    pub(crate) fn finish(&self, summary: &Summary, signal: Option<Signal>) {
        if self.listing == Listing::Json {
            let status = ExitStatus::of_copy(summary, signal, self.is_output_complete());
            self.print(&json::summary(summary, signal, status));
        }
        self.flush();
        if let (true, Some(signal)) = (summary.was_cancelled, signal) {
            self.complain(&format!("stopped by {signal}"));
        }
        if self.persona == Persona::Cp {
            return;
        }
        if self.verbosity == Verbosity::Verbose {
            complain_raw(&engine_line(summary));
        }
        let is_asked_for = match self.verbosity {
            Verbosity::Quiet => false,
            Verbosity::Normal => summary.is_dry_run || io::stderr().is_terminal(),
            Verbosity::Verbose => true,
        };
        if is_asked_for {
            let dry = if summary.is_dry_run { "dry run: " } else { "" };
            self.complain(&format!("{dry}{}", last_line(summary)));
        }
    }

    /// Whether all that was to be printed on standard output was taken.
    pub(crate) fn is_output_complete(&self) -> bool {
        self.flush();
        self.printer.is_complete()
    }

    fn flush(&self) {
        self.print_with(Output::flush);
    }

    fn print(&self, line: &str) {
        self.print_with(|output| output.line(line));
    }

    /// Lists what happened on standard output, if it is listed.
    fn list(&self, event: &Event<'_>) {
        let line = match (self.listing, event) {
            (Listing::Json, event) => json::event(event),
            (_, Event::WouldCopy(_) | Event::WouldDelete { .. } | Event::WouldRemove { .. }) => {
                rehearsed_line(event).filter(|_| self.verbosity != Verbosity::Quiet)
            }
            (Listing::Names, Event::Copied(copied)) if is_listed(copied) => {
                Some(copied_lines(copied))
            }
            (Listing::Debug, Event::Copied(copied)) if is_listed(copied) => {
                Some(format!("{}{}", copied_lines(copied), gnu::debug_line(copied)))
            }
            (Listing::Debug, Event::Stayed { target, .. }) => {
                Some(format!("skipped {}", quote::always(target)))
            }
            (
                Listing::Names | Listing::Debug | Listing::Explained,
                Event::Deleted { path, kind },
            ) => Some(deleted_line(path, *kind)),
            (Listing::Names | Listing::Debug | Listing::Explained, Event::Removed { source }) => {
                Some(deleted_line(source, EntryKind::File))
            }
            (Listing::Explained, Event::Copied(copied)) => Some(explain::lines(copied)),
            (Listing::Explained, Event::UpToDate { source, target }) => {
                Some(explain::up_to_date(source, target))
            }
            _ => None,
        };
        if let Some(line) = line {
            self.print(&line);
        }
        // What is promised is told when it holds: the other lines may wait for a block to be full.
        if let (Listing::Json, Event::Done(_)) = (self.listing, event) {
            self.flush();
        }
    }

    /// Prints with `way`, and says so the first time that it fails.
    fn print_with(&self, way: impl FnOnce(&mut Output)) {
        if let Some(failure) = self.printer.print(way) {
            self.complain_as(Tone::Failure, &failure);
        }
    }

    /// Prints a line on standard error, in one piece. There is nobody to tell if that fails.
    fn complain(&self, line: &str) {
        self.complain_as(Tone::Plain, line);
    }

    fn warn(&self, line: &str) {
        self.complain_as(Tone::Warning, line);
    }

    fn complain_as(&self, tone: Tone, line: &str) {
        let name = beginning(self.persona, tone);
        self.display.beside(|| complain_raw(&format!("{name} {line}")));
    }
}

impl Observer for Report {
    fn wants_copies(&self) -> bool {
        self.listing != Listing::None
    }

    fn may_overwrite(&self, question: &Question<'_>) -> bool {
        // Others who ask or print wait.
        let _one_at_a_time = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush();
        self.display.beside(|| ask::may_overwrite(self.persona, question))
    }

    fn on_event(&self, event: &Event<'_>) {
        self.list(event);
        match event {
            Event::Copied(copied)
                if self.verbosity == Verbosity::Verbose && self.persona == Persona::Ucp =>
            {
                if let Publication::InPlace(reason) = copied.publication {
                    self.complain(&in_place_line(copied.target, reason));
                }
            }
            Event::Skipped { source, reason } => {
                self.warn(&format!("skipped {}: {}", named(source), words(reason)));
            }
            Event::Warned { path, warning } if self.verbosity != Verbosity::Quiet => {
                self.warn(&format!("warning: {}: {}", named(path), words(warning)));
            }
            Event::Kept { target, temporary, bytes } if self.verbosity != Verbosity::Quiet => {
                self.complain(&kept_line(target, temporary, *bytes));
            }
            Event::Repeated { source, is_directory } if self.verbosity != Verbosity::Quiet => {
                self.complain(&gnu::repeated(source, *is_directory));
            }
            Event::Failed(error) => self.failure(error),
            _ => {}
        }
    }
}

/// Prints a complaint about the command line, and where to read more.
pub(crate) fn complain_about_usage(persona: Persona, complaint: &str) {
    let name = beginning(persona, Tone::Failure);
    // cp has nothing more to say about these.
    let is_clear = [
        "cannot combine --target-directory",
        "cannot preserve security context",
        "multiple target directories",
    ];
    let more = match is_clear.iter().any(|beginning| complaint.starts_with(beginning)) {
        true if persona == Persona::Cp => String::new(),
        _ => format!("\nTry '{} --help' for more information.", persona.name()),
    };
    complain_raw(&format!("{name} {complaint}{more}"));
}

/// What a line begins with.
fn beginning(persona: Persona, tone: Tone) -> &'static str {
    match persona {
        Persona::Ucp => colour::name(tone),
        Persona::Cp => "cp:",
    }
}

/// Prints a warning about the command line.
pub(crate) fn warn(persona: Persona, warning: &str) {
    complain_raw(&format!("{} warning: {warning}", beginning(persona, Tone::Warning)));
}

/// Tells of a failure outside a copy.
pub(crate) fn complain_of(error: &Error) {
    complain_raw(&format!("{} {}", colour::name(Tone::Failure), failure_line(error)));
}

/// Prints something whole on standard output, and says so if that fails.
pub(crate) fn print_whole(output: &mut dyn Write, bytes: &[u8]) -> ExitStatus {
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            let name = colour::name(Tone::Failure);
            complain_raw(&format!("{name} write failed on standard output: {error}"));
            ExitStatus::SomeFailed
        }
    }
}

pub(crate) fn complain_raw(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

pub(crate) fn failure_line(error: &Error) -> String {
    let mut line = format!("{} failed", error.what());
    if let Some(path) = error.path() {
        line.push_str(&format!(" on {}", named(path)));
    }
    if let Some(offset_bytes) = error.offset_bytes() {
        line.push_str(&format!(" at byte {offset_bytes}"));
    }
    line.push_str(": ");
    line.push_str(&words(&error.reason()));
    line
}

/// Whether `cp -v` lists it: all but directories that were there.
fn is_listed(copied: &Copied<'_>) -> bool {
    copied.publication != Publication::Existing
}

fn copied_lines(copied: &Copied<'_>) -> String {
    let (source, target) = (quote::always(copied.source), quote::always(copied.target));
    let removed = if copied.removed { format!("removed {target}\n") } else { String::new() };
    let backup = match copied.backup {
        Some(backup) => format!(" (backup: {})", quote::always(backup)),
        None => String::new(),
    };
    format!("{removed}{source} -> {target}{backup}")
}

/// What a dry run says would be done.
fn rehearsed_line(event: &Event<'_>) -> Option<String> {
    match event {
        Event::WouldRemove { source } => Some(format!("would remove {}", quote::always(source))),
        Event::WouldDelete { path, kind } => {
            let what = if *kind == EntryKind::Directory { "directory " } else { "" };
            Some(format!("would delete {what}{}", quote::always(path)))
        }
        Event::WouldCopy(copied) => {
            let verb = match (copied.kind, copied.publication) {
                (EntryKind::Directory, _) => "make directory",
                (_, Publication::Replaced) => "replace",
                (_, Publication::InPlace(_)) => "write in place",
                (EntryKind::SymbolicLink, _) => "copy link",
                _ => "copy",
            };
            let line = format!("would {verb} {}", copied_lines(copied));
            Some(match copied.kind {
                EntryKind::File => format!("{line} ({})", count(copied.bytes, "byte")),
                _ => line,
            })
        }
        _ => None,
    }
}

/// As `rm -v` says it.
fn deleted_line(path: &Path, kind: EntryKind) -> String {
    let what = if kind == EntryKind::Directory { "directory " } else { "" };
    format!("removed {what}{}", quote::always(path))
}

fn kept_line(target: &Path, temporary: &Path, bytes: u64) -> String {
    let words = std::env::args_os().map(|word| quote::if_needed(&word));
    let command = words.collect::<Vec<_>>().join(" ");
    let (target, temporary) = (named(target), named(temporary));
    format!("{} of {target} are kept in {temporary}; to go on: {command}", Bytes(bytes))
}

fn in_place_line(target: &Path, reason: &str) -> String {
    format!("{} was written in place: {}", named(target), words(reason))
}

fn engine_line(summary: &Summary) -> String {
    let mut line = format!("engine: {}", words(&summary.engine));
    let paths = paths(&summary.paths);
    if !paths.is_empty() {
        line.push_str(&format!("; data paths: {paths}"));
    }
    line
}

fn last_line(summary: &Summary) -> String {
    let Summary {
        files,
        directories,
        links,
        bytes,
        skipped,
        excluded,
        deleted,
        removed,
        failed,
        elapsed,
        ..
    } = summary;
    let mut line = count(*files, "file");
    let kinds = [
        (*directories, "directory"),
        (*links, "link"),
        (summary.hard_links, "hard link"),
        (summary.specials, "special file"),
    ];
    for (number, what) in kinds {
        if number > 0 {
            line.push_str(&format!(", {}", count(number, what)));
        }
    }
    let seconds = elapsed.as_secs_f64();
    let milliseconds = elapsed.as_millis().max(1);
    let rate = u64::try_from(u128::from(*bytes) * 1000 / milliseconds).unwrap_or(u64::MAX);
    line.push_str(&format!(", {} in {seconds:.3} s, {}/s", Bytes(*bytes), Bytes(rate)));
    let paths = paths(&summary.paths);
    if !paths.is_empty() {
        line.push_str(&format!(" ({paths})"));
    }
    let checked = [
        (summary.verified_device, "verified on the device"),
        (summary.verified_cache, "verified in the cache only"),
        (summary.up_to_date, "up to date"),
    ];
    let left = [
        (*failed, "failed"),
        (*skipped, "skipped"),
        (*excluded, "excluded"),
        (*deleted, "deleted"),
        (*removed, "removed from the source"),
    ];
    for (number, what) in checked.into_iter().chain(left) {
        if number > 0 {
            line.push_str(&format!(", {number} {what}"));
        }
    }
    line
}

pub(crate) fn count(number: u64, what: &str) -> String {
    match (number, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {what}s"),
    }
}

fn paths(counts: &PathCounts) -> String {
    let each: Vec<String> = counts.used().map(|(path, files)| format!("{path} {files}")).collect();
    each.join(", ")
}

pub(crate) fn named(path: &Path) -> String {
    quote::if_needed(path)
}

pub(crate) fn words(words: &str) -> String {
    quote::without_controls(words)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::time::Duration;

    use ucp_engine::Errno;
    use ucp_engine::copy::{self, DataPath};

    use super::*;

    #[test]
    fn failures_say_what_where_and_why_once() {
        let cases = [
            (
                Error::from_errno("write", Errno::ENOSPC).on("/mnt/b").at(4096),
                "write failed on /mnt/b at byte 4096: No space left on device (os error 28)",
            ),
            (
                Error::from_errno("open", Errno::ENOENT).on("a b"),
                "open failed on 'a b': No such file or directory (os error 2)",
            ),
            (
                Error::from_errno("open", Errno::EIO).on(OsStr::from_bytes(b"a\x1b\xff")),
                "open failed on 'a'$'\\033\\377': Input/output error (os error 5)",
            ),
            (
                Error::new(ErrorKind::Unsupported, "io_uring", "not\nthere"),
                "io_uring failed: not\\nthere",
            ),
        ];
        for (error, want) in cases {
            assert_eq!(failure_line(&error), want);
        }
    }

    #[test]
    fn the_last_line_counts_what_there_is_to_count() {
        let mut paths = PathCounts::default();
        paths.count(DataPath::Small);
        paths.count(DataPath::Direct);
        paths.count(DataPath::Small);
        let nothing = Summary { elapsed: Duration::from_millis(2), ..Summary::default() };
        let one = Summary { files: 1, bytes: 5, ..nothing.clone() };
        let many = Summary {
            files: 3,
            directories: 1,
            links: 2,
            bytes: 3 << 20,
            skipped: 4,
            failed: 5,
            elapsed: Duration::from_millis(1500),
            paths,
            ..Summary::default()
        };
        let cases = [
            (nothing, "0 files, 0 B in 0.002 s, 0 B/s"),
            (one, "1 file, 5 B in 0.002 s, 2.4 KiB/s"),
            (
                many,
                "3 files, 1 directory, 2 links, 3.0 MiB in 1.500 s, 2.0 MiB/s (direct 1, small 2), \
                 5 failed, 4 skipped",
            ),
        ];
        for (summary, want) in cases {
            assert_eq!(last_line(&summary), want);
        }
    }

    #[test]
    fn the_engine_is_named_with_the_paths_that_ran() {
        let mut summary = Summary {
            engine: "io_uring: not permitted; using threads".to_owned(),
            ..Summary::default()
        };
        assert_eq!(engine_line(&summary), "engine: io_uring: not permitted; using threads");
        summary.paths.count(DataPath::Clone);
        let want = "engine: io_uring: not permitted; using threads; data paths: clone 1";
        assert_eq!(engine_line(&summary), want);
    }

    #[test]
    fn lines_about_files_are_those_of_cp() {
        let (source, target) = (Path::new("a"), Path::new("b/a c"));
        let mut copied = Copied::new(source, target, copy::EntryKind::File);
        assert_eq!(copied_lines(&copied), "'a' -> 'b/a c'");
        copied.backup = Some(Path::new("b/a c~"));
        assert_eq!(copied_lines(&copied), "'a' -> 'b/a c' (backup: 'b/a c~')");
        (copied.removed, copied.backup) = (true, None);
        assert_eq!(copied_lines(&copied), "removed 'b/a c'\n'a' -> 'b/a c'");
    }
}
