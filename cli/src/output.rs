//! Standard output, which may be closed or full: then the rest is dropped, and the failure kept.

use std::io::{self, IsTerminal, LineWriter, Write};
use std::sync::{Mutex, PoisonError};

use crate::progress::Display;

/// Prints from any thread, beside the progress line.
pub(crate) struct Printer {
    display: Display,
    output: Mutex<Output>,
}

/// Standard output, until it takes no more.
pub(crate) struct Output {
    stream: Box<dyn Write + Send>,
    failure: Option<io::Error>,
}

impl Printer {
    pub(crate) fn new(display: Display) -> Self {
        Self { display, output: Mutex::new(Output::new()) }
    }

    /// Prints. Returns why that failed, the first time that it does; it is told once neither the line
    /// nor the output is held.
    #[must_use]
    pub(crate) fn print(&self, way: impl FnOnce(&mut Output)) -> Option<String> {
        self.display.beside(|| {
            let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
            let was_complete = output.failure.is_none();
            way(&mut output);
            let failure = output.failure.as_ref().filter(|_| was_complete);
            failure.map(|reason| format!("write failed on standard output: {reason}"))
        })
    }

    /// Whether all that was printed was taken, so far.
    pub(crate) fn is_complete(&self) -> bool {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).failure.is_none()
    }
}

impl Output {
    fn new() -> Self {
        let stdout = io::stdout();
        // A person reads line by line; a file takes blocks.
        let stream: Box<dyn Write + Send> = if stdout.is_terminal() {
            Box::new(LineWriter::new(stdout))
        } else {
            Box::new(io::BufWriter::with_capacity(BUFFER_BYTES, stdout))
        };
        Self { stream, failure: None }
    }

    pub(crate) fn line(&mut self, line: &str) {
        self.attempt(|stream| writeln!(stream, "{line}"));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.attempt(|stream| stream.write_all(bytes));
    }

    pub(crate) fn flush(&mut self) {
        self.attempt(Write::flush);
    }

    fn attempt(&mut self, way: impl FnOnce(&mut Box<dyn Write + Send>) -> io::Result<()>) {
        if self.failure.is_none() {
            self.failure = way(&mut self.stream).err();
        }
        if self.failure.is_some() {
            self.stream = Box::new(io::sink());
        }
    }
}

const BUFFER_BYTES: usize = 32 << 10;
