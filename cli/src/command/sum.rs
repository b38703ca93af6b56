//! `ucp sum [FILE]…`, and `ucp sum -c [LIST]…`.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ucp_engine::cache_policy::CachePolicy;
use ucp_engine::copy::{Cancellation, Progress};
use ucp_engine::digest::{Line, LineForm, escape_name};
use ucp_engine::operation::File;
use ucp_engine::sum::{self, Event, Observer, Operand, Options, Request, Summary, Verdict};
use ucp_engine::{Errno, Error};

use crate::args::SumArguments;
use crate::colour::Tone;
use crate::digest_list::{DigestList, ListState, look};
use crate::exit::ExitStatus;
use crate::json;
use crate::output::Output;
use crate::progress::{Display, State};
use crate::report::{count, named};
use crate::signal::{FirstSignal, Signals};
use crate::telling::{Figures, Telling};

/// Makes digests or checks them, tells of it, and says how it ended.
pub(crate) fn run(arguments: &SumArguments, signals: Signals) -> ExitStatus {
    let display = Display::new(arguments.reading.progress);
    let report =
        Report { arguments, form: arguments.form(), telling: Telling::new(display.clone()) };
    let progress = Progress::default();
    let cancellation = Arc::new(Cancellation::default());
    let state = State::of(&progress, &display);
    let signal = signals.watch(Arc::clone(&cancellation), move || state.tell());
    let work = || match arguments.check {
        true => report.check(&progress, &cancellation),
        false => report.sum(&progress, &cancellation).map(|summary| (summary, Lists::default())),
    };
    match display.during(&progress, work) {
        Ok((summary, lists)) => report.finish(&summary, &lists, &signal),
        Err(error) => {
            report.telling.failure(&error);
            ExitStatus::SomeFailed
        }
    }
}

/// Tells of files as the user wants it.
struct Report<'a> {
    arguments: &'a SumArguments,
    form: LineForm,
    telling: Telling,
}

/// What was found in all lists.
#[derive(Clone, Copy, Debug, Default)]
struct Lists {
    malformed: u64,
    /// Lists that could not be read, or are none.
    failed: u64,
}

impl Report<'_> {
    fn options(&self) -> Options {
        let mut options = Options { range: self.arguments.range, ..Options::default() };
        self.arguments.reading.apply(&mut options, CachePolicy::Auto);
        options
    }

    /// The files that were named, or nothing for standard input.
    fn operands(&self) -> Vec<PathBuf> {
        match self.arguments.operands.is_empty() {
            true => vec![PathBuf::from("-")],
            false => self.arguments.operands.clone(),
        }
    }

    fn sum(&self, progress: &Progress, cancellation: &Cancellation) -> Result<Summary, Error> {
        let operands = self.operands().into_iter().map(operand).collect::<Result<_, _>>()?;
        let request = Request {
            operands,
            algorithms: self.arguments.algorithms(),
            options: self.options(),
            engine: self.arguments.reading.engine(),
        };
        sum::sum(&request, self, progress, cancellation)
    }

    /// Checks one list after the other.
    fn check(
        &self,
        progress: &Progress,
        cancellation: &Cancellation,
    ) -> Result<(Summary, Lists), Error> {
        let (mut total, mut lists) = (Summary::default(), Lists::default());
        for path in self.operands() {
            if cancellation.is_cancelled() {
                total.was_cancelled = true;
                break;
            }
            let on_malformed = |number| self.tell_malformed(&path, number);
            let (told, is_zero) = (&self.arguments.algorithms, self.arguments.zero);
            let list = match DigestList::open(&path, is_zero, told, on_malformed) {
                Ok(list) => list,
                Err(error) => {
                    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                    self.telling.failure(&Error::from_errno("open", errno).on(&path));
                    lists.failed += 1;
                    continue;
                }
            };
            let state = list.state();
            let engine = self.arguments.reading.engine();
            let options = self.options();
            let summary = sum::check(list, (&options, &engine), self, progress, cancellation)?;
            self.tell_list(&path, &look(&state), &summary, &mut lists);
            total.merge(&summary);
        }
        Ok((total, lists))
    }

    fn tell_malformed(&self, list: &Path, number: u64) {
        if self.arguments.reading.json {
            self.telling.print(|output| output.line(&json::sum::malformed(list, number)));
        }
        if self.arguments.warn {
            let list = named(list);
            self.warn(&format!("warning: {list}: line {number} is not one of a list of digests"));
        }
    }

    /// Tells what a list came to, in the words of coreutils.
    fn tell_list(&self, path: &Path, found: &ListState, summary: &Summary, lists: &mut Lists) {
        lists.malformed += found.malformed;
        let list = named(path);
        if let Some(reason) = &found.failure {
            self.telling.complain(Tone::Failure, &format!("read failed on {list}: {reason}"));
            lists.failed += 1;
        } else if summary.was_cancelled {
            // How much of it was read says nothing.
        } else if found.proper == 0 {
            let line = format!("{list}: no properly formatted checksum lines found");
            self.telling.complain(Tone::Failure, &line);
            lists.failed += 1;
            return;
        } else if self.arguments.ignore_missing && summary.missing == found.proper {
            self.telling.complain(Tone::Failure, &format!("{list}: no file was verified"));
            lists.failed += 1;
        }
        if self.arguments.status {
            return;
        }
        let unread =
            summary.failed + if self.arguments.ignore_missing { 0 } else { summary.missing };
        let is_or_are = |number| if number == 1 { "is" } else { "are" };
        if found.malformed > 0 {
            let (lines, be) = (count(found.malformed, "line"), is_or_are(found.malformed));
            self.warn(&format!("warning: {list}: {lines} {be} improperly formatted"));
        }
        if unread > 0 {
            let files = count(unread, "listed file");
            self.warn(&format!("warning: {list}: {files} could not be read"));
        }
        if summary.differing > 0 {
            let digests = count(summary.differing, "computed checksum");
            self.warn(&format!("warning: {list}: {digests} did not match"));
        }
    }

    fn warn(&self, line: &str) {
        if !self.arguments.status {
            self.telling.complain(Tone::Warning, line);
        }
    }

    fn finish(&self, summary: &Summary, lists: &Lists, signal: &FirstSignal) -> ExitStatus {
        let is_strict = self.arguments.strict && lists.malformed > 0;
        let missing = if self.arguments.ignore_missing { 0 } else { summary.missing };
        let has_failed = summary.failed + summary.skipped + missing + lists.failed > 0 || is_strict;
        let status = |is_complete| {
            let is_whole = is_complete && !has_failed;
            ExitStatus::of_reading(summary.was_cancelled, signal.get(), summary.differing, is_whole)
        };
        if self.arguments.reading.json {
            let status = status(self.telling.is_output_complete());
            let line = json::sum::summary(summary, lists.malformed, signal.get(), status);
            self.telling.print(|output| output.line(&line));
        }
        let is_complete = self.telling.is_output_complete();
        if let (true, Some(signal)) = (summary.was_cancelled, signal.get()) {
            self.telling.complain(Tone::Plain, &format!("stopped by {signal}"));
        }
        let faults = [
            (summary.differing, "different"),
            (summary.missing, "missing"),
            (lists.malformed, "lines malformed"),
            (summary.skipped, "skipped"),
            (summary.failed, "failed"),
        ];
        let figures = Figures {
            files: summary.files,
            bytes: summary.bytes,
            elapsed: summary.elapsed,
            engine: &summary.engine,
            faults: &faults,
        };
        if !self.arguments.status {
            self.telling.finish(&figures, self.arguments.reading.verbose);
        }
        status(is_complete)
    }

    fn is_ignored(&self, verdict: &Verdict) -> bool {
        self.arguments.ignore_missing && matches!(verdict, Verdict::Missing(_))
    }

    /// Tells why a file could not be held against a list.
    fn tell_unread(&self, verdict: &Verdict) {
        if let Verdict::Missing(error) | Verdict::Failed(error) = verdict
            && !self.is_ignored(verdict)
        {
            self.telling.failure(error);
        }
    }

    /// Tells of a file that was held against a list, as coreutils do.
    fn tell_checked(&self, path: &Path, verdict: &Verdict) {
        if self.is_ignored(verdict) {
            return;
        }
        self.tell_unread(verdict);
        let words = match verdict {
            Verdict::Same(_) if self.arguments.quiet => return,
            Verdict::Same(_) => "OK",
            Verdict::Differs { .. } => "FAILED",
            Verdict::Missing(_) | Verdict::Failed(_) => "FAILED open or read",
        };
        if self.arguments.status {
            return;
        }
        let name = path.as_os_str().as_bytes();
        let name = if self.form.ends_with_nul { name.into() } else { escape_name(name, true) };
        let mark = if matches!(name, std::borrow::Cow::Owned(_)) { "\\" } else { "" };
        let line = [mark.as_bytes(), &name, format!(": {words}\n").as_bytes()].concat();
        self.telling.print(|output| output.bytes(&line));
    }
}

impl Observer for Report<'_> {
    fn on_event(&self, event: &Event<'_>) {
        if self.arguments.reading.json {
            if let Some(line) = json::sum::event(event) {
                self.telling.print(|output| output.line(&line));
            }
            if let Event::Checked { verdict, .. } = event {
                self.tell_unread(verdict);
            }
        }
        match event {
            Event::Summed(summed) if !self.arguments.reading.json => {
                let mut lines = Vec::new();
                for digest in summed.digests {
                    let name = summed.path.as_os_str().as_bytes();
                    Line { digest: *digest, name }.write_as(self.form, &mut lines);
                }
                self.telling.print(|output: &mut Output| output.bytes(&lines));
            }
            Event::Checked { path, verdict } if !self.arguments.reading.json => {
                self.tell_checked(path, verdict);
            }
            Event::Skipped { path, reason } => {
                self.telling.complain(Tone::Warning, &format!("skipped {}: {reason}", named(path)));
            }
            Event::Failed(error) => self.telling.failure(error),
            _ => {}
        }
    }
}

fn operand(path: PathBuf) -> Result<Operand, Error> {
    if path.as_os_str() != "-" {
        return Ok(Operand::Path(path));
    }
    // Another descriptor of the same open file: this one is closed in the end.
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let failed = |error: io::Error| {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Error::from_errno("open", errno).on("-")
    };
    Ok(Operand::Open { name: path, file: File::from_fd(stdin.map_err(failed)?) })
}
