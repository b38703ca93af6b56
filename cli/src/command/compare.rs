//! `ucp compare A B`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ucp_engine::cache_policy::CachePolicy;
use ucp_engine::compare::{self, Difference, Event, Observer, Request, Side, Summary};
use ucp_engine::copy::{Cancellation, Progress};
use ucp_engine::operation::FileKind;

use crate::args::CompareArguments;
use crate::colour::Tone;
use crate::exit::ExitStatus;
use crate::json;
use crate::progress::{Display, State};
use crate::report::named;
use crate::signal::{FirstSignal, Signals};
use crate::telling::{Figures, Telling};

/// Compares, tells of each difference, and says how it ended.
pub(crate) fn run(arguments: &CompareArguments, signals: Signals) -> ExitStatus {
    let display = Display::new(arguments.reading.progress);
    let report = Report { arguments, telling: Telling::new(display.clone()) };
    let progress = Progress::default();
    let cancellation = Arc::new(Cancellation::default());
    let state = State::of(&progress, &display);
    let signal = signals.watch(Arc::clone(&cancellation), move || state.tell());
    let mut request = Request::new(&arguments.a, &arguments.b);
    request.compares_metadata = arguments.archive;
    request.engine = arguments.reading.engine();
    arguments.reading.apply(&mut request.options, CachePolicy::Bypass);
    let work = || compare::compare(&request, &report, &progress, &cancellation);
    match display.during(&progress, work) {
        Ok(summary) => report.finish(&summary, &signal),
        Err(error) => {
            report.telling.failure(&error);
            ExitStatus::SomeFailed
        }
    }
}

/// Tells of differences as the user wants it.
struct Report<'a> {
    arguments: &'a CompareArguments,
    telling: Telling,
}

impl Report<'_> {
    fn finish(&self, summary: &Summary, signal: &FirstSignal) -> ExitStatus {
        let status = |is_complete| {
            let is_whole = is_complete && summary.failed == 0;
            ExitStatus::of_reading(summary.was_cancelled, signal.get(), summary.differing, is_whole)
        };
        if self.arguments.reading.json {
            let status = status(self.telling.is_output_complete());
            let line = json::compare::summary(summary, signal.get(), status);
            self.telling.print(|output| output.line(&line));
        }
        let is_complete = self.telling.is_output_complete();
        if let (true, Some(signal)) = (summary.was_cancelled, signal.get()) {
            self.telling.complain(Tone::Plain, &format!("stopped by {signal}"));
        }
        let faults = [(summary.differing, "different"), (summary.failed, "failed")];
        let figures = Figures {
            files: summary.files,
            bytes: summary.bytes,
            elapsed: summary.elapsed,
            engine: &summary.engine,
            faults: &faults,
        };
        if !self.arguments.quiet {
            self.telling.finish(&figures, self.arguments.reading.verbose);
        }
        status(is_complete)
    }

    fn line(&self, path: &Path, difference: &Difference) -> String {
        let path = if path.as_os_str().is_empty() { &self.arguments.a } else { path };
        let name = named(path);
        match difference {
            Difference::OnlyIn(Side::A) => format!("{name}: only in {}", named(&self.arguments.a)),
            Difference::OnlyIn(Side::B) => format!("{name}: only in {}", named(&self.arguments.b)),
            _ => format!("{name}: {}", words(difference)),
        }
    }
}

/// In what two files differ, in words.
fn words(difference: &Difference) -> String {
    match difference {
        Difference::OnlyIn(_) => unreachable!("it says which of them it is in"),
        Difference::Kind(a, b) => format!("{}, {}", kind(*a), kind(*b)),
        Difference::Content(offset) => format!("differs from byte {offset} on"),
        Difference::Link => "the links say different things".to_owned(),
        Difference::Node(a, b) => format!("device {a:#x}, {b:#x}"),
        Difference::Mode(a, b) => format!("mode {a:04o}, {b:04o}"),
        Difference::Owner(a, b) => format!("owner {a}, {b}"),
        Difference::Group(a, b) => format!("group {a}, {b}"),
        Difference::Modified(a, b) => format!(
            "modified {}.{:09}, {}.{:09}",
            a.seconds, a.nanoseconds, b.seconds, b.nanoseconds
        ),
        Difference::Attribute(name) => {
            format!("attribute {}", named(Path::new(OsStr::from_bytes(name))))
        }
        _ => difference.name().to_owned(),
    }
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "a file",
        FileKind::Directory => "a directory",
        FileKind::SymbolicLink => "a symbolic link",
        FileKind::Fifo => "a FIFO",
        FileKind::Socket => "a socket",
        FileKind::CharacterDevice | FileKind::BlockDevice => "a device",
        FileKind::Unknown => "of unknown kind",
    }
}

impl Observer for Report<'_> {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Differs { .. } if self.arguments.quiet && !self.arguments.reading.json => {}
            Event::Differs { path, difference } => {
                let line = match self.arguments.reading.json {
                    true => json::compare::differs(path, difference),
                    false => self.line(path, difference),
                };
                self.telling.print(|output| output.line(&line));
            }
            Event::Failed(error) => {
                if self.arguments.reading.json {
                    self.telling.print(|output| output.line(&json::failure(error)));
                }
                self.telling.failure(error);
            }
            _ => {}
        }
    }
}
