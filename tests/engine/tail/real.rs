//! A real file system, and a writer that is a thread.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ucp_engine::Proactor;
use ucp_engine::proactor::TaskInitiator;
use ucp_engine::processor::{Configuration, EngineChoice};
use ucp_engine::tail::{Change, Event, Options, Tail};

use super::receiver::Receiver;
use crate::support::scratch;

const LINES: u32 = 60_000;
/// How many lines go by between two rotations.
const LINES_A_FILE: u32 = 6_000;
/// How many lines a life of the tail gets before it is dropped with all that is in flight.
const BATCHES_A_LIFE: usize = 40;

#[test]
fn a_log_that_is_renamed_under_load_arrives_whole_through_lives_of_the_tail() {
    for engine in [EngineChoice::Auto, EngineChoice::Threads] {
        let received = follow(engine, |log, numbered| {
            fs::rename(log, numbered).unwrap();
            Rotation::Reopen
        });
        assert_eq!(received.lines, LINES, "each line came, once");
        assert_eq!(received.changes.truncated, 0);
        assert!(received.changes.renamed > 0);
    }
}

/// The writer stands still while the log is copied and truncated: what it would write between the
/// two is what this kind of rotation loses.
#[test]
fn a_log_that_is_copied_and_truncated_arrives_whole_if_nobody_writes_meanwhile() {
    let received = follow(EngineChoice::Auto, |log, numbered| {
        fs::copy(log, numbered).unwrap();
        OpenOptions::new().write(true).open(log).unwrap().set_len(0).unwrap();
        Rotation::Append
    });
    assert_eq!(received.lines, LINES, "each line came, once");
    assert!(received.changes.copied > 0);
    assert_eq!(received.changes.truncated, 0, "each truncation was explained by a copy");
}

/// What the writer does after a rotation.
enum Rotation {
    /// It opens its log anew.
    Reopen,
    /// It goes on with the file that it has open.
    Append,
}

#[derive(Default)]
struct Changes {
    renamed: u32,
    copied: u32,
    truncated: u32,
}

struct Received {
    lines: u32,
    changes: Changes,
}

/// Writes lines in a thread, rotates, and follows them in several lives.
fn follow(engine: EngineChoice, rotate: fn(&Path, &Path) -> Rotation) -> Received {
    let folder = scratch::directory();
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let is_written = Arc::new(AtomicBool::new(false));
    let writer = write(logs.join("log"), rotate, Arc::clone(&is_written));
    let mut receiver = Receiver::default();
    let mut changes = Changes::default();
    loop {
        receiver.begin_life();
        // Before the life begins: what it then finds is everything.
        let is_last = is_written.load(Ordering::Acquire);
        let configuration = Configuration { engine, ..Configuration::default() };
        let proactor = Proactor::start(&configuration).unwrap();
        let mut options = Options::new(folder.path().join("checkpoint"))
            .follow(&logs, |name| name.as_bytes().starts_with(b"log"));
        options.look_every = Duration::from_millis(2);
        options.save_every = Duration::from_millis(20);
        let is_written = Arc::clone(&is_written);
        let life = Life { receiver, changes, is_last, is_written };
        let tasks = proactor.initiator();
        (receiver, changes) = proactor.block_on(async {
            let pool = tasks.buffer_pool(4, 16 << 10).unwrap();
            let tail = Tail::start(&tasks, pool, options).await.unwrap();
            life.run(&tasks, tail).await
        });
        if is_last {
            break;
        }
    }
    writer.join().unwrap();
    let lines = receiver.lines();
    for number in 0..LINES {
        let came = lines.get(line(number).as_bytes()).map_or(0, Vec::len);
        assert_eq!(came, 1, "line {number}");
    }
    Received { lines: u32::try_from(lines.len()).unwrap(), changes }
}

struct Life {
    receiver: Receiver,
    changes: Changes,
    is_last: bool,
    is_written: Arc<AtomicBool>,
}

impl Life {
    /// Follows for a while, or, once everything is written, until it has arrived. Half of what comes
    /// before the end of a life is not acknowledged.
    async fn run(mut self, tasks: &TaskInitiator, mut tail: Tail) -> (Receiver, Changes) {
        let mut batches = 0;
        loop {
            let may_end = self.is_last || self.is_written.load(Ordering::Acquire);
            match tail.advance().await {
                Some(Event::Batch(batch)) => {
                    batches += 1;
                    self.receiver.receive(&batch);
                    if self.is_last || batches < BATCHES_A_LIFE / 2 {
                        tail.acknowledge(batch.receipt());
                    }
                }
                Some(event) => self.on_event(event),
                None if may_end && (!self.is_last || self.is_whole()) => break,
                None => tasks.sleep(Duration::from_millis(1)).await,
            }
            if !self.is_last && batches >= BATCHES_A_LIFE {
                break;
            }
        }
        (self.receiver, self.changes)
    }

    fn is_whole(&self) -> bool {
        self.receiver.lines().len() >= LINES as usize
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Change(Change::Renamed { .. }) => self.changes.renamed += 1,
            Event::Change(Change::CopyTruncated { .. }) => self.changes.copied += 1,
            Event::Change(Change::Truncated { .. }) => self.changes.truncated += 1,
            Event::Failed(error) => panic!("{error:?}"),
            _ => {}
        }
    }
}

fn line(number: u32) -> String {
    format!("{number:08} {}\n", "x".repeat(usize::try_from(number % 50).unwrap()))
}

fn write(
    log: PathBuf,
    rotate: fn(&Path, &Path) -> Rotation,
    is_written: Arc<AtomicBool>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let open = |log: &Path| -> File {
            OpenOptions::new().append(true).create(true).open(log).unwrap()
        };
        let mut file = open(&log);
        let mut reopen_at = None;
        for number in 0..LINES {
            if reopen_at == Some(number) {
                file = open(&log);
            }
            let line = line(number);
            // In two goes now and then: half a line is there for a moment.
            let (first, rest) = line.split_at(if number % 7 == 0 { 5 } else { 0 });
            file.write_all(first.as_bytes()).unwrap();
            file.write_all(rest.as_bytes()).unwrap();
            if number % LINES_A_FILE == LINES_A_FILE - 1 {
                let numbered = format!("{}.{number:08}", log.display());
                if let Rotation::Reopen = rotate(&log, Path::new(&numbered)) {
                    // Until then it goes on with the file that was renamed.
                    reopen_at = Some(number + LINES_A_FILE / 20);
                }
            }
        }
        is_written.store(true, Ordering::Release);
    })
}
