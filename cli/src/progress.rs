//! The progress line: bytes, files, rate, time left.
//!
//! A thread of its own looks at the engine's counters ten times a second. The engine only counts.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use ucp_engine::copy::Progress;
use ucp_engine::units::Bytes;

use crate::args::When;

/// How often the line is drawn.
const DRAWN_EVERY: Duration = Duration::from_millis(100);
const DRAWN_HERTZ: u8 = 10;
/// How often a line is added where nothing can be drawn over.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);

/// Where progress is shown, if it is.
#[derive(Clone, Debug)]
pub(crate) enum Display {
    /// Nowhere.
    None,
    /// On a terminal, over and over on the same line.
    Line(ProgressBar, FileCounts),
    /// In a log: a line a second.
    Log,
}

impl Display {
    /// Progress as asked for; nothing is drawn yet.
    pub(crate) fn new(when: When) -> Self {
        match (when, io::stderr().is_terminal()) {
            (When::Never, _) | (When::Auto, false) => Self::None,
            (When::Auto | When::Always, true) => {
                let target = ProgressDrawTarget::stderr_with_hz(DRAWN_HERTZ);
                let bar = ProgressBar::with_draw_target(Some(0), target);
                let files = FileCounts::default();
                Self::Line(bar.with_style(style(files.clone())), files)
            }
            (When::Always, false) => Self::Log,
        }
    }

    /// Runs `work` and shows how far it is meanwhile. The line is gone afterwards.
    pub(crate) fn during<T>(&self, progress: &Progress, work: impl FnOnce() -> T) -> T {
        if matches!(self, Self::None) {
            return work();
        }
        thread::scope(|scope| {
            let (working, ended) = mpsc::channel::<()>();
            scope.spawn(move || self.show(progress, &ended));
            let outcome = work();
            drop(working);
            outcome
        })
    }

    /// Runs `print`, which prints lines, without mixing them into the progress line.
    pub(crate) fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        match self {
            Self::Line(bar, _) => bar.suspend(print),
            Self::None | Self::Log => print(),
        }
    }

    fn show(&self, progress: &Progress, ended: &Receiver<()>) {
        let started = Instant::now();
        let every = if matches!(self, Self::Log) { WRITTEN_EVERY } else { DRAWN_EVERY };
        while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            let now = Snapshot::of(progress, started.elapsed());
            match self {
                Self::None => {}
                Self::Line(bar, files) => now.draw(bar, files),
                Self::Log => {
                    let _ = writeln!(io::stderr(), "progress: {now}");
                }
            }
        }
        if let Self::Line(bar, _) = self {
            bar.finish_and_clear();
        }
    }
}

/// How far the work is, for whoever asks.
#[derive(Clone, Debug)]
pub(crate) struct State {
    progress: Progress,
    display: Display,
    started: Instant,
}

impl State {
    /// From now on.
    pub(crate) fn of(progress: &Progress, display: &Display) -> Self {
        let (progress, display) = (progress.clone(), display.clone());
        Self { progress, display, started: Instant::now() }
    }

    /// Prints one line on standard error.
    pub(crate) fn tell(&self) {
        let now = Snapshot::of(&self.progress, self.started.elapsed());
        let line = format!("ucp: {}: {now}\n", self.progress.phase());
        self.display.beside(|| {
            let _ = io::stderr().write_all(line.as_bytes());
        });
    }
}

/// Files done and found, as the line shows them. Each of the bar's own setters draws the line anew;
/// this is looked at while it is drawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileCounts(Arc<[AtomicU64; 2]>);

impl fmt::Display for FileCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [done, found] = self.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        write!(f, "{done} of {found} files")
    }
}

fn style(files: FileCounts) -> ProgressStyle {
    let template =
        "{bytes} of {total_bytes}, {files}, {binary_bytes_per_sec} {wide_bar} {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    style.with_key("files", move |_: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = write!(out, "{files}");
    })
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    bytes: (u64, u64),
    files: (u64, u64),
    elapsed: Duration,
}

impl Snapshot {
    fn of(progress: &Progress, elapsed: Duration) -> Self {
        Self { bytes: progress.bytes(), files: progress.files(), elapsed }
    }

    fn draw(&self, bar: &ProgressBar, files: &FileCounts) {
        files.0[0].store(self.files.0, Ordering::Relaxed);
        files.0[1].store(self.files.1, Ordering::Relaxed);
        bar.update(|state| {
            // What is found grows while what is done does: never show more done than found.
            state.set_len(self.bytes.1.max(self.bytes.0));
            state.set_pos(self.bytes.0);
        });
    }

    fn bytes_per_second(&self) -> u64 {
        let milliseconds = self.elapsed.as_millis().max(1);
        u64::try_from(u128::from(self.bytes.0) * 1000 / milliseconds).unwrap_or(u64::MAX)
    }

    fn seconds_left(&self) -> Option<u64> {
        let left = self.bytes.1.saturating_sub(self.bytes.0);
        left.checked_div(self.bytes_per_second())
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, found) = (Bytes(self.bytes.0), Bytes(self.bytes.1.max(self.bytes.0)));
        let (files_done, files_found) = self.files;
        let rate = Bytes(self.bytes_per_second());
        write!(f, "{done} of {found}, {files_done} of {files_found} files, {rate}/s")?;
        match self.seconds_left() {
            Some(seconds) => write!(f, ", {seconds} s left"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_bytes_files_rate_and_time_left() {
        let progress = Progress::default();
        progress.find_file(3 << 20);
        progress.find_file(1 << 20);
        progress.add_bytes(1 << 20);
        progress.add_file();
        let cases = [
            (2, "1.0 MiB of 4.0 MiB, 1 of 2 files, 512.0 KiB/s, 6 s left"),
            (1, "1.0 MiB of 4.0 MiB, 1 of 2 files, 1.0 MiB/s, 3 s left"),
        ];
        for (seconds, want) in cases {
            let snapshot = Snapshot::of(&progress, Duration::from_secs(seconds));
            assert_eq!(snapshot.to_string(), want);
        }
    }

    #[test]
    fn no_time_is_told_before_anything_moved() {
        let snapshot = Snapshot::of(&Progress::default(), Duration::ZERO);
        assert_eq!(snapshot.to_string(), "0 B of 0 B, 0 of 0 files, 0 B/s");
    }

    #[test]
    fn work_runs_to_its_end_and_its_outcome_is_handed_on() {
        let progress = Progress::default();
        let line = Display::Line(ProgressBar::hidden(), FileCounts::default());
        for display in [Display::None, Display::Log, line] {
            assert_eq!(display.during(&progress, || 17), 17);
        }
    }
}
