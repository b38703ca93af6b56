//! Follows files that grow, as a log shipper does: whole lines in blocks of memory that can be sent
//! without a copy, through every rotation, and from where it stopped after a crash.
//!
//! ```text
//! directories --look--> which file is which --read--> Batch --> whoever ships it
//!                             ^                                      |
//!                         checkpoint <------- acknowledge -----------+
//! ```
//!
//! # Sources
//!
//! What is read is named by a **source** and an offset. A source is a stream of bytes, not a name: it
//! stays the same when its file is renamed, and goes on in the copy when the file is copied and
//! truncated. What is written to a truncated file, or to a new file under an old name, is another
//! source. So a source and an offset mean the same byte for ever, and a receiver can tell what it has
//! already ([`Ledger`]).
//!
//! # What is promised
//!
//! * Every line that is written to a followed file is in some batch, whole, and in order within its
//!   source; a line that is longer than a block comes in parts that say so ([`Part`]).
//! * After a crash at any moment everything that was not acknowledged comes again, beginning with a
//!   batch of the same sequence number at the same offset; nothing that was acknowledged before the
//!   last checkpoint does. A batch may hold more than it did before, if the file has grown since.
//! * After [`Tail::rewind`] exactly the same batches come again.
//! * The checkpoint says what was acknowledged, never more.
//! * With no block in the pool nothing is read.
//!
//! # What can't be promised
//!
//! * Rotation by copy-truncate loses what is written between the end of the copying and the
//!   truncation: it is in neither file. Tell the program that writes to open its log anew instead. A
//!   line that is written in two goes, with the truncation between them, is torn by it.
//! * A writer that does not append (`O_APPEND`) goes on behind a hole after a truncation: the first
//!   line of the new source begins with NULs then.
//! * A file that comes and goes between two looks ([`Options::look_every`]), and one that is removed
//!   while nothing runs, is never seen.
//! * A file that is truncated and then written so that its first KiB, and the 256 bytes before where
//!   reading was, are the same as before is not seen to have been truncated.
//! * A copy that is not followed by a truncation within [`Options::linger`] is a file of its own; and
//!   so is one of less than 64 bytes whose name does not begin with the file's. If the program is
//!   killed between the copying and the truncation, so is a copy that the last checkpoint knows too
//!   little of to recognise it. What they hold comes twice, from two sources.
//!
//! # Cost
//!
//! Files are looked at, not watched: a look lists each directory and asks for the status of each
//! name that is followed, every [`Options::look_every`]. A batch costs one read of a block and two
//! of up to 1.3 KiB that make sure that the file was not truncated meanwhile. A checkpoint holds all
//! sources, some 150 bytes each and their paths, and costs two syncs; one is written before the
//! first batch of a source, and at most every [`Options::save_every`].
//!
//! # Examples
//!
//! ```
//! use ucp_engine::Proactor;
//! use ucp_engine::tail::{Change, Event, Options, Tail};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let logs = folder.path().join("logs");
//! # std::fs::create_dir(&logs)?;
//! std::fs::write(logs.join("app.log"), "one\ntwo\nthr")?;
//!
//! let proactor = Proactor::start(&Default::default())?;
//! let tasks = proactor.initiator();
//! let options = Options::new(folder.path().join("checkpoint"))
//!     .follow(&logs, |name| name.as_bytes().starts_with(b"app.log"));
//! let pool = tasks.buffer_pool(4, 64 << 10)?;
//! let lines = proactor.block_on(async move {
//!     let mut tail = Tail::start(&tasks, pool, options).await?;
//!     loop {
//!         match tail.next().await {
//!             Event::Batch(batch) => {
//!                 let lines = batch.lines().count();
//!                 // Here it would be sent; and this is for when it has arrived for good.
//!                 tail.acknowledge(batch.receipt());
//!                 tail.save().await?;
//!                 return Ok::<_, ucp_engine::Error>(lines);
//!             }
//!             Event::Change(Change::Truncated { path, unread_bytes, .. }) => {
//!                 eprintln!("{}: {unread_bytes} bytes are lost", path.display());
//!             }
//!             Event::Change(_) => {}
//!             Event::Failed(error) => eprintln!("{error}"),
//!         }
//!     }
//! })?;
//! assert_eq!(lines, 2, "the third line has no end yet");
//! # Ok(())
//! # }
//! ```

mod batch;
mod change;
mod checkpoint;
mod cut;
mod io;
mod ledger;
mod look;
mod options;
mod read;
mod save;
mod source;
mod sources;
mod trail;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

pub use batch::{Batch, Receipt};
pub use change::Change;
pub use cut::Part;
pub use ledger::{Ledger, Verdict};
pub use options::Options;
use save::Saver;
pub use source::SourceId;
use sources::Sources;

use crate::buffer::BufferPool;
use crate::error::Error;
use crate::limits::TAIL_LEASE_WAIT;
use crate::operation::File;
use crate::proactor::TaskInitiator;
use crate::units::Moment;

/// Follows files; see the [module](self).
///
/// Dropping a future of one of its methods is harmless: what was begun is begun again.
pub struct Tail {
    tasks: TaskInitiator,
    pool: BufferPool,
    options: Options,
    sources: Sources,
    files: BTreeMap<SourceId, File>,
    saver: Saver,
    acknowledgements: Acknowledgements,
    events: VecDeque<Event>,
    complaints: Complaints,
    next_look: Moment,
    next_save: Moment,
    /// A block was wanted, and there was none.
    lacks_block: bool,
}

/// What a tail has to tell.
#[derive(Debug)]
pub enum Event {
    /// Bytes.
    Batch(Batch),
    /// Something happened to a file.
    Change(Change),
    /// Something failed, and will be tried again: a directory or a file can't be read, a checkpoint
    /// can't be written, or is damaged. Told once until it succeeds.
    Failed(Error),
}

/// What has failed and was told, so that it is not told at each try.
#[derive(Default)]
struct Complaints {
    /// Since the last look that was whole, and before it.
    now: BTreeSet<(Option<PathBuf>, &'static str)>,
    before: BTreeSet<(Option<PathBuf>, &'static str)>,
    has_look_failed: bool,
    has_save_failed: bool,
}

/// Tells a tail what has arrived, from wherever that is known: another task of the same thread.
/// Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Acknowledgements(Rc<RefCell<Vec<Receipt>>>);

impl Acknowledgements {
    /// Everything of a source up to a receipt has arrived for good. Receipts may come in any order;
    /// one that ends inside a batch counts for those before it.
    pub fn put(&self, receipt: Receipt) {
        self.0.borrow_mut().push(receipt);
    }
}

impl Tail {
    /// Reads the checkpoint, and begins where it says. Batches are read into blocks of `pool`, one
    /// each; a line that is longer than a block comes in parts.
    ///
    /// # Errors
    ///
    /// If there is a checkpoint and it can't be read, or is of another version. One that is damaged
    /// is told ([`Event::Failed`]), and the one before it counts; without any all is read from its
    /// start.
    pub async fn start(
        tasks: &TaskInitiator,
        pool: BufferPool,
        options: Options,
    ) -> Result<Self, Error> {
        let mut saver = Saver::new(tasks, &options.checkpoint);
        let (checkpoint, damaged) = saver.load().await?;
        // Above all that were ever given, even if the checkpoint that knew of them is gone.
        let seconds = u64::try_from(tasks.wall_clock().seconds).unwrap_or(0);
        let sources = Sources::new(checkpoint, seconds << 20, options.linger);
        Ok(Self {
            tasks: tasks.clone(),
            pool,
            options,
            sources,
            files: BTreeMap::new(),
            saver,
            acknowledgements: Acknowledgements::default(),
            events: damaged.into_iter().map(Event::Failed).collect(),
            complaints: Complaints::default(),
            next_look: Moment::default(),
            next_save: Moment::default(),
            lacks_block: false,
        })
    }

    /// Waits for what there is to tell next.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.advance().await {
                return event;
            }
            self.tasks.sleep(self.patience()).await;
        }
    }

    /// What there is to tell now: looks, reads and saves as far as it is time for that. None: there
    /// is nothing new, or no block to read it into.
    pub async fn advance(&mut self) -> Option<Event> {
        loop {
            for receipt in self.acknowledgements.0.take() {
                self.acknowledge(receipt);
            }
            if let Some(change) = self.sources.next_change() {
                self.events.push_back(Event::Change(change));
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let now = self.tasks.now();
            if self.is_to_look(now) {
                self.look_now().await;
                continue;
            }
            if self.is_to_be_saved(now) {
                self.save_now().await;
                continue;
            }
            match self.read_next().await {
                Some(batch) => return Some(Event::Batch(batch)),
                None if self.is_to_look(now) || !self.events.is_empty() => {}
                None => return None,
            }
        }
    }

    /// Everything up to a receipt has arrived for good: it need not be sent again.
    pub fn acknowledge(&mut self, receipt: Receipt) {
        self.sources.on_acknowledged(receipt.source, receipt.end_bytes);
    }

    /// What other tasks acknowledge with.
    #[must_use]
    pub fn acknowledgements(&self) -> Acknowledgements {
        self.acknowledgements.clone()
    }

    /// Sends everything again that was not acknowledged, in the same batches: for when the
    /// connection was lost.
    pub fn rewind(&mut self) {
        self.sources.rewind();
    }

    /// Writes down what was acknowledged, now: before the program ends, say.
    ///
    /// # Errors
    ///
    /// What stable storage fails with. The checkpoint before still counts.
    pub async fn save(&mut self) -> Result<(), Error> {
        for receipt in self.acknowledgements.0.take() {
            self.acknowledge(receipt);
        }
        self.next_save = self.tasks.now() + self.options.save_every;
        let checkpoint = self.sources.checkpoint(self.saver.next_number());
        self.saver.save(&checkpoint).await?;
        self.sources.on_recorded();
        Ok(())
    }

    /// Whether everything that the last look has seen was read and acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.sources.is_settled()
    }

    async fn look_now(&mut self) {
        let looked = self.look().await;
        self.next_look = self.tasks.now() + self.options.look_every;
        self.complaints.has_look_failed = looked.is_err();
        match looked {
            Ok(()) => self.complaints.before = std::mem::take(&mut self.complaints.now),
            Err(error) => self.complain(error),
        }
    }

    async fn save_now(&mut self) {
        let saved = self.save().await;
        let had_failed = std::mem::replace(&mut self.complaints.has_save_failed, saved.is_err());
        if let Err(error) = saved
            && !had_failed
        {
            self.events.push_back(Event::Failed(error));
        }
    }

    /// Tells of a failure, unless it was told.
    fn complain(&mut self, error: Error) {
        let complaint = (error.path().map(Into::into), error.what());
        let is_told = self.complaints.before.contains(&complaint);
        if self.complaints.now.insert(complaint) && !is_told {
            self.events.push_back(Event::Failed(error));
        }
    }

    fn is_to_look(&self, now: Moment) -> bool {
        let is_urgent = self.sources.is_look_urgent() && !self.complaints.has_look_failed;
        is_urgent || now >= self.next_look
    }

    /// Nothing of a new source is read before stable storage knows of it, or after a crash it would
    /// be taken for another: so that is saved at once. Where saving fails it is tried again in its
    /// time.
    fn is_to_be_saved(&self, now: Moment) -> bool {
        let is_urgent = self.sources.has_unrecorded() && !self.complaints.has_save_failed;
        is_urgent || (self.sources.is_changed() && now >= self.next_save)
    }

    fn patience(&self) -> Duration {
        let now = self.tasks.now();
        let mut until = self.next_look.since(now);
        if self.sources.is_changed() {
            until = until.min(self.next_save.since(now));
        }
        if self.lacks_block {
            until = until.min(TAIL_LEASE_WAIT);
        }
        until.max(Duration::from_micros(1))
    }
}
