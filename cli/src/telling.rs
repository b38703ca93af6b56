//! What is told by those who only read: results on standard output, all else on standard error.

use std::io::IsTerminal;

use ucp_engine::Error;
use ucp_engine::units::Bytes;

use crate::colour::{self, Tone};
use crate::output::{Output, Printer};
use crate::progress::Display;
use crate::report::{complain_raw, count, failure_line, words};

/// Tells the user what happens, as it happens.
pub(crate) struct Telling {
    printer: Printer,
    display: Display,
}

/// What a run came to, in figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures<'a> {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: std::time::Duration,
    pub(crate) engine: &'a str,
    /// What went wrong, and how often.
    pub(crate) faults: &'a [(u64, &'static str)],
}

impl Telling {
    pub(crate) fn new(display: Display) -> Self {
        Self { printer: Printer::new(display.clone()), display }
    }

    /// Prints on standard output, and says so the first time that it fails.
    pub(crate) fn print(&self, way: impl FnOnce(&mut Output)) {
        if let Some(failure) = self.printer.print(way) {
            self.complain(Tone::Failure, &failure);
        }
    }

    /// Tells of a failure.
    pub(crate) fn failure(&self, error: &Error) {
        self.complain(Tone::Failure, &failure_line(error));
    }

    /// Prints a line on standard error, in one piece. There is nobody to tell if that fails.
    pub(crate) fn complain(&self, tone: Tone, line: &str) {
        self.display.beside(|| complain_raw(&format!("{} {line}", colour::name(tone))));
    }

    /// Whether all that was to be printed on standard output was taken.
    pub(crate) fn is_output_complete(&self) -> bool {
        self.print(Output::flush);
        self.printer.is_complete()
    }

    /// Tells what it came to: on a terminal, or if asked to.
    pub(crate) fn finish(&self, figures: &Figures<'_>, is_verbose: bool) {
        if is_verbose && !figures.engine.is_empty() {
            complain_raw(&format!("engine: {}", words(figures.engine)));
        }
        if is_verbose || std::io::stderr().is_terminal() {
            self.complain(Tone::Plain, &last_line(figures));
        }
    }
}

fn last_line(figures: &Figures<'_>) -> String {
    let Figures { files, bytes, elapsed, faults, .. } = *figures;
    let milliseconds = elapsed.as_millis().max(1);
    let rate = u64::try_from(u128::from(bytes) * 1000 / milliseconds).unwrap_or(u64::MAX);
    let seconds = elapsed.as_secs_f64();
    let files = count(files, "file");
    let mut line = format!("{files}, {} in {seconds:.3} s, {}/s", Bytes(bytes), Bytes(rate));
    for (number, what) in faults.iter().filter(|(number, _)| *number > 0) {
        line.push_str(&format!(", {number} {what}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_line_counts_what_there_is_to_count() {
        let faults = [(0, "failed"), (2, "missing")];
        let elapsed = Duration::from_millis(1500);
        let figures = Figures { files: 1, bytes: 3 << 20, elapsed, engine: "", faults: &faults };
        assert_eq!(last_line(&figures), "1 file, 3.0 MiB in 1.500 s, 2.0 MiB/s, 2 missing");
    }
}
