//! Running the command, and looking at what it said.

use std::fmt;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::until;

/// The program under test.
pub(crate) const UCP: &str = env!("CARGO_BIN_EXE_ucp");

/// How a run ended, and what it said.
pub(crate) struct Ran {
    command: String,
    status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Runs a command to its end. Its input is empty, and its output is taken unless set otherwise.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ran {
        command: format!("{command:?}"),
        status: output.status,
        stdout: output.stdout,
        stderr: output.stderr,
    }
}

/// Runs `ucp` in a directory, and kills it if it takes longer than a minute: then it ended by a
/// signal, which no test takes for an end.
pub(crate) fn run_within_a_minute(words: &[&str], directory: &Path) -> Ran {
    let mut command = Command::new("timeout");
    run(command.args(["--signal=KILL", "60", UCP]).args(words).current_dir(directory))
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| {
            let start = &bytes[..bytes.len().min(4000)];
            start.escape_ascii().to_string().replace("\\n", "\n  ")
        };
        writeln!(f, "{}: {}", self.command, self.status)?;
        write!(f, "stdout: {}\nstderr: {}", text(&self.stdout), text(&self.stderr))
    }
}

impl Ran {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    pub(crate) fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr).expect("standard error is text")
    }

    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("standard output is text")
    }

    /// The run ended with this status.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code(), Some(code), "{self:?}");
        self
    }

    /// It succeeded, and had nothing to say.
    #[track_caller]
    pub(crate) fn succeeds_silently(&self) -> &Self {
        assert!(self.stdout.is_empty() && self.stderr.is_empty(), "{self:?}");
        self.exits(0)
    }

    /// One line on standard error begins with `ucp: ` and holds all of these.
    #[track_caller]
    pub(crate) fn says(&self, parts: &[&str]) -> &Self {
        let says_all =
            |line: &str| line.starts_with("ucp: ") && parts.iter().all(|part| line.contains(part));
        let lines = self.stderr().lines().filter(|line| says_all(line)).count();
        assert_eq!(lines, 1, "lines with all of {parts:?} in {self:?}");
        self
    }

    /// Standard error has just so many lines.
    #[track_caller]
    pub(crate) fn says_lines(&self, lines: usize) -> &Self {
        assert_eq!(self.stderr().lines().count(), lines, "{self:?}");
        self
    }
}

/// A run that goes on while the test does. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    command: String,
}

impl Background {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command: format!("{command:?}"), child: command.spawn().unwrap() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Whether it has the file open now.
    pub(crate) fn has_open(&self, path: &Path) -> bool {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        let mut links = descriptors.into_iter().flatten().flatten();
        links.any(|link| fs::read_link(link.path()).is_ok_and(|open| open == path))
    }

    /// Whether the program blocks the signal: it has come far enough to deal with it.
    pub(crate) fn blocks(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & (1 << (signal as i32 - 1)) != 0)
    }

    /// Stops it as soon as it has the file open, and holds it there.
    pub(crate) fn stop_when_open(&mut self, path: &Path) {
        let path = path.canonicalize().unwrap();
        until("the file is open", || self.has_open(&path) || self.has_ended());
        assert!(!self.has_ended(), "{} ended too early: {:?}", self.command, self.child);
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ran {
        let mut stderr = self.child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut said = Vec::new();
            stderr.read_to_end(&mut said).map(|_| said).unwrap()
        });
        let mut stdout = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        until("it ends", || self.has_ended());
        let status = self.child.wait().unwrap();
        Ran { command: self.command.clone(), status, stdout, stderr: errors.join().unwrap() }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
