//! One call, played by one copier in a world of its own.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use nix::libc;
use nix::sys::stat::{Mode, umask};

use super::call::Call;
use super::make::make;
use super::snapshot::{Snapshot, snapshot};
use super::tree::{Kind, Node};
use super::watchdog::Watchdog;

/// What one copier made of a call.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    /// Lines, sorted: who copies with several threads tells of files in no order.
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
    /// What stood there before, and what stands there now.
    pub(crate) before: Snapshot,
    pub(crate) snapshot: Snapshot,
}

/// Whom to call, and how it is to call itself.
#[derive(Clone, Debug)]
pub(crate) struct Copier<'a> {
    pub(crate) program: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) words: Vec<OsString>,
}

/// Makes the world, lets the copier copy in it, looks at all of it, and removes it.
///
/// Both copiers work under the same path, one after the other: links and messages hold it.
pub(crate) fn play(
    world: &Path,
    nodes: &[Node],
    call: &Call,
    copier: &Copier<'_>,
    watchdog: &Watchdog,
) -> Outcome {
    make(world, nodes);
    let answers = world.with_extension("answers");
    fs::write(&answers, call.answer.repeat(200)).unwrap();
    let before = snapshot(world, SystemTime::now());
    let held = hold_pipes(world, nodes);
    umask(Mode::from_bits_truncate(call.umask));
    let since = SystemTime::now();
    let child = Command::new(copier.program)
        .arg0(copier.name)
        .args(&copier.words)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .current_dir(world)
        .uid(call.user)
        .gid(call.user)
        .stdin(File::open(&answers).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = watchdog.wait(child);
    umask(Mode::from_bits_truncate(0o022));
    let snapshot = snapshot(world, since);
    drop(held);
    fs::remove_dir_all(world).unwrap();
    let code = output.status.code();
    let (stdout, stderr) = (lines(&output.stdout), lines(&output.stderr));
    Outcome { code, stdout, stderr, before, snapshot }
}

/// Holds both ends of each FIFO, so that nobody waits for the other end, and what is written into
/// it can be compared.
fn hold_pipes(world: &Path, nodes: &[Node]) -> Vec<File> {
    let pipes = nodes.iter().filter(|node| node.kind == Kind::Fifo);
    let open = |node: &Node| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        options.open(world.join(&node.path)).unwrap()
    };
    pipes.map(open).collect()
}

/// Lines in order of the alphabet: who copies with several threads tells of files in no order.
/// Behind a question no line ends.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).replace("? cp: ", "?\ncp: ");
    let text = text.replace("? ucp: ", "?\nucp: ");
    let mut lines: Vec<String> = text.split('\n').map(|line| line.trim_end().to_owned()).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines
}
