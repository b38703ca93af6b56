//! A program that logs, and what rotates its logs, on a simulated world.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ucp_engine::processor::SimulatedWorld;
use ucp_engine::random::Random;

use super::receiver::Receiver;

/// What was written, and where. A clone is what it was at a moment.
#[derive(Clone)]
pub(crate) struct Writer {
    random: Random,
    /// The file that the program has open.
    current: PathBuf,
    next_line: u64,
    /// The rest of a line that is half written.
    half: Option<(Vec<u8>, Vec<u8>)>,
    /// Whole lines that must arrive, exactly once.
    pub(crate) must: BTreeSet<Vec<u8>>,
    /// Lines that may have been lost: what copy-truncate, truncation and deletion took.
    pub(crate) may: BTreeSet<Vec<u8>>,
    /// A copy was begun of a file as long as this.
    copying: Option<usize>,
    copied: bool,
    /// Lines of the copies that were made since the last kill.
    copy: BTreeSet<Vec<u8>>,
    /// Lines of copies that a kill came upon: they may come twice, if the checkpoint did not know the
    /// file as it was when it was copied.
    pub(crate) twice: BTreeSet<Vec<u8>>,
    /// Only the name `log` is followed.
    pub(crate) is_narrow: bool,
    /// Lines are this long at the most.
    line_max: u64,
    pub(crate) did: BTreeSet<&'static str>,
}

const LOG: &str = "/log/log";

impl Writer {
    pub(crate) fn new(seed: u64, is_narrow: bool, line_max: u64) -> Self {
        Self {
            random: Random::new(seed),
            current: LOG.into(),
            next_line: 0,
            half: None,
            must: BTreeSet::new(),
            may: BTreeSet::new(),
            copying: None,
            copied: false,
            copy: BTreeSet::new(),
            twice: BTreeSet::new(),
            is_narrow,
            line_max,
            did: BTreeSet::new(),
        }
    }

    /// Does the next thing, and says what.
    pub(crate) fn step(&mut self, world: &SimulatedWorld, receiver: &Receiver) -> &'static str {
        type Step = fn(&mut Writer, &SimulatedWorld, &Receiver);
        let (what, step): (&str, Step) = match self.random.below(20) {
            _ if self.copying.is_some() => ("copy", |it, world, _| it.copy(world)),
            0 => ("rename", |it, world, receiver| it.rename(world, receiver)),
            1 | 2 => ("reopen", |it, world, _| it.reopen(world)),
            3 => ("begin to copy", |it, world, _| it.begin_copy(world)),
            4 if self.random.once_in(6) => ("truncate", |it, world, _| it.truncate(world)),
            5 if self.random.once_in(2) => ("remove", |it, world, _| it.remove_oldest(world)),
            6 | 7 => ("write half a line", |it, world, _| it.write_half(world)),
            8 => ("make another file", |it, world, _| it.make_other(world)),
            _ => ("write", |it, world, _| it.write_lines(world)),
        };
        step(self, world, receiver);
        what
    }

    /// The tail was killed.
    pub(crate) fn on_kill(&mut self) {
        self.twice.append(&mut self.copy);
    }

    /// Ends what is half done.
    pub(crate) fn finish(&mut self, world: &SimulatedWorld) {
        while self.copying.is_some() {
            self.copy(world);
        }
        self.reopen(world);
        self.write_lines(world);
    }

    fn line(&mut self) -> Vec<u8> {
        self.next_line += 1;
        let mut line = format!("L{:06} ", self.next_line).into_bytes();
        let length = self.random.below(self.line_max);
        line.extend((0..length).map(|_| b'a' + u8::try_from(self.random.below(26)).unwrap()));
        line.push(b'\n');
        line
    }

    fn append(&mut self, world: &SimulatedWorld, bytes: &[u8]) {
        let before = world.read(&self.current).unwrap_or_default();
        world.add_file(&self.current, [&before, bytes].concat());
    }

    fn write_lines(&mut self, world: &SimulatedWorld) {
        self.end_half(world);
        for _ in 0..=self.random.below(3) {
            let line = self.line();
            self.append(world, &line);
            if self.copied {
                self.may.insert(line.clone());
            }
            self.must.insert(line);
        }
    }

    fn write_half(&mut self, world: &SimulatedWorld) {
        self.end_half(world);
        let line = self.line();
        let at = 1 + usize::try_from(self.random.below(line.len() as u64 - 1)).unwrap();
        self.append(world, &line[..at]);
        self.half = Some((line[at..].to_vec(), line));
    }

    fn end_half(&mut self, world: &SimulatedWorld) {
        if let Some((rest, line)) = self.half.take() {
            self.append(world, &rest);
            self.must.insert(line);
        }
    }

    fn rename(&mut self, world: &SimulatedWorld, receiver: &Receiver) {
        // A file that comes and goes before a look has seen it is nobody's.
        let content = world.read(LOG).unwrap_or_default();
        let first = content.split_inclusive(|byte| *byte == b'\n').next();
        let is_known = first.is_some_and(|line| receiver.has(line));
        if world.status(LOG).is_none() || (self.is_narrow && !is_known) {
            return;
        }
        self.did.insert("renamed");
        self.make_room(world);
        world.rename(LOG, "/log/log.1");
        if self.current == Path::new(LOG) {
            self.current = "/log/log.1".into();
        }
        force(world);
    }

    /// `log.1` becomes `log.2` and so on.
    fn make_room(&mut self, world: &SimulatedWorld) {
        for number in (1..9).rev() {
            let (old, new) = (format!("/log/log.{number}"), format!("/log/log.{}", number + 1));
            if world.status(&old).is_none() {
                continue;
            }
            if number == 8 {
                self.remove(world, Path::new(&old));
                continue;
            }
            world.rename(&old, &new);
            if self.current == Path::new(&old) {
                self.current = new.into();
            }
        }
    }

    fn reopen(&mut self, world: &SimulatedWorld) {
        self.end_half(world);
        if self.current != Path::new(LOG) {
            self.current = LOG.into();
            if world.status(LOG).is_none() {
                world.add_file(LOG, "");
            }
        }
    }

    fn begin_copy(&mut self, world: &SimulatedWorld) {
        self.reopen(world);
        let Some(status) = world.status(LOG) else { return };
        if status.size_bytes == 0 {
            return;
        }
        self.make_room(world);
        self.copying = Some(0);
        self.copied = false;
        self.copy(world);
    }

    /// One step of a copy-truncate.
    fn copy(&mut self, world: &SimulatedWorld) {
        let content = world.read(LOG).unwrap_or_default();
        let done = self.copying.unwrap_or(0);
        if self.copied {
            // What was written since the copy was complete is lost, if nobody has read it.
            if self.random.once_in(3) {
                return self.write_lines(world);
            }
            if self.is_narrow {
                self.excuse(&content);
            }
            self.did.insert("copied and truncated");
            (self.copying, self.copied) = (None, false);
            world.add_file(LOG, "");
            return;
        }
        let left = content.len() - done;
        let next = done + left.min(usize::try_from(1 + self.random.below(600)).unwrap());
        world.add_file("/log/log.1", &content[..next]);
        self.copying = Some(next);
        self.copied = next == content.len();
        self.copy.extend(content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }

    fn truncate(&mut self, world: &SimulatedWorld) {
        self.end_half(world);
        // What left the names that are followed ends when it is truncated.
        if self.is_narrow && self.current != Path::new(LOG) {
            return;
        }
        let Some(content) = world.read(&self.current) else { return };
        self.did.insert("truncated");
        self.excuse(&content);
        world.add_file(&self.current, "");
        if self.random.once_in(2) {
            self.write_lines(world);
        }
    }

    fn remove_oldest(&mut self, world: &SimulatedWorld) {
        let oldest = (1..9).rev().map(|it| PathBuf::from(format!("/log/log.{it}")));
        let Some(oldest) = oldest.into_iter().find(|it| world.status(it).is_some()) else { return };
        self.remove(world, &oldest);
    }

    fn remove(&mut self, world: &SimulatedWorld, path: &Path) {
        if self.current == path {
            self.reopen(world);
        }
        self.did.insert("removed");
        self.excuse(&world.read(path).unwrap());
        world.remove(path);
        force(world);
    }

    /// Something else in the directory.
    fn make_other(&mut self, world: &SimulatedWorld) {
        let name = format!("/log/other.{}", self.random.below(2));
        if world.status(&name).is_some() {
            world.remove(&name);
        }
        world.add_file(&name, "not a line of a log\n");
    }

    fn excuse(&mut self, content: &[u8]) {
        self.may.extend(content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
}

/// Makes the changes of names durable: what a power cut takes is the tail's, not the writer's.
fn force(world: &SimulatedWorld) {
    world.add_file("/forced", "");
}
