//! Tasks: sequences of steps that read from top to bottom, over the same slots as handlers.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Core;
use super::wait::{Perform, PerformChain};
use crate::buffer::{Buffer, BufferPool};
use crate::error::{Errno, Error};
use crate::operation::{
    Chain, CompletionEvent, File, FileStatus, Handle, Open, Operation, OperationError, Read,
    RegisteredFile, Statx, Subject, Write,
};
use crate::processor::Capabilities;
use crate::units::{Moment, WallTime};

/// What a task starts operations with. Clones share the proactor.
#[derive(Clone)]
pub struct TaskInitiator(Rc<Core>);

/// The result of a spawned task, to be awaited. Dropping it leaves the task running.
///
/// # Panics
///
/// Awaiting it panics if the task has panicked.
pub struct JoinHandle<T>(Rc<Joint<T>>);

struct Joint<T> {
    output: RefCell<Option<T>>,
    /// The task has ended, by a panic if there is no output.
    is_over: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

/// The task's side of a joint. Dropping it, by a panic or not, says that the task has ended.
struct TaskEnd<T>(Rc<Joint<T>>);

impl TaskInitiator {
    pub(super) fn new(core: Rc<Core>) -> Self {
        Self(core)
    }

    pub(super) fn core(&self) -> &Core {
        &self.0
    }

    pub(super) fn shared(&self) -> &Rc<Core> {
        &self.0
    }

    /// Performs an operation and gives it back with its result. Waits for room if the processor is
    /// full.
    ///
    /// # Panics
    ///
    /// If the operation completes many times (accepting and receiving have methods of their own for
    /// that).
    pub fn perform(&self, operation: Operation) -> Perform {
        Perform::new(Rc::clone(&self.0), operation)
    }

    /// Performs an operation at once, where the processor does so: no future is made, and nothing
    /// moved. None leaves it untouched, for [`TaskInitiator::perform`]; so does a scope that was stopped.
    pub(crate) fn perform_inline(
        &self,
        operation: &mut Operation,
    ) -> Option<Result<u32, OperationError>> {
        if self.0.scope.borrow().as_ref().is_some_and(|scope| scope.is_stopped()) {
            return None;
        }
        self.0.perform_inline(operation)
    }

    /// Performs a chain and gives its members' events, in order.
    pub async fn perform_chain(&self, chain: Chain) -> Vec<CompletionEvent> {
        PerformChain::new(Rc::clone(&self.0), chain).await
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// As `openat2(2)` answers.
    pub async fn open(&self, open: Open) -> Result<File, OperationError> {
        let (result, operation) = self.perform(Operation::Open(open)).await;
        result?;
        match operation {
            Operation::Open(Open { file: Some(file), .. }) => Ok(file),
            _ => Err(OperationError::failed(Errno::EBADF)),
        }
    }

    /// Reads into a whole buffer from an offset; returns the number of bytes, and the buffer.
    pub async fn read_at(
        &self,
        file: impl Into<Handle>,
        buffer: impl Into<Buffer>,
        offset_bytes: u64,
    ) -> (Result<u32, OperationError>, Buffer) {
        let buffer = buffer.into();
        let length = buffer.length();
        let read = Read { handle: file.into(), buffer, offset_bytes, start: 0, length };
        match self.perform(Operation::Read(read)).await {
            (result, Operation::Read(read)) => (result, read.buffer),
            _ => unreachable!("an operation comes back as itself"),
        }
    }

    /// Writes `length` bytes of a buffer at an offset; returns the number of bytes, and the buffer.
    pub async fn write_at(
        &self,
        file: impl Into<Handle>,
        buffer: impl Into<Buffer>,
        length: u32,
        offset_bytes: u64,
    ) -> (Result<u32, OperationError>, Buffer) {
        let buffer = buffer.into();
        let write = Write { handle: file.into(), buffer, offset_bytes, start: 0, length };
        match self.perform(Operation::Write(write)).await {
            (result, Operation::Write(write)) => (result, write.buffer),
            _ => unreachable!("an operation comes back as itself"),
        }
    }

    /// Asks for the status of a file, or of a name; a symbolic link is followed if `follow` is set.
    ///
    /// # Errors
    ///
    /// As `statx(2)` answers.
    pub async fn status(
        &self,
        subject: Subject,
        follow: bool,
    ) -> Result<Box<FileStatus>, OperationError> {
        let statx = Statx { subject, follow, status: None };
        let (result, operation) = self.perform(Operation::Statx(statx)).await;
        result?;
        match operation {
            Operation::Statx(Statx { status: Some(status), .. }) => Ok(status),
            _ => Err(OperationError::failed(Errno::EIO)),
        }
    }

    /// Runs a future beside this one, on the same thread. It is part of the job that runs now, and of
    /// no scope: [`super::Scope::spawn`] is for that.
    ///
    /// # Errors
    ///
    /// If there are too many tasks.
    pub fn spawn<T: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
    ) -> Result<JoinHandle<T>, Error> {
        let name = std::any::type_name_of_val(&future);
        let joint = Rc::new(Joint {
            output: RefCell::new(None),
            is_over: Cell::new(false),
            waiter: RefCell::new(None),
        });
        let end = TaskEnd(Rc::clone(&joint));
        let task = Box::pin(async move {
            let output = future.await;
            *end.0.output.borrow_mut() = Some(output);
        });
        self.0.tasks.spawn(task, name, self.0.job.borrow().clone())?;
        Ok(JoinHandle(joint))
    }

    /// Lends blocks of memory; see [`crate::OperationProcessor::buffer_pool`].
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no room for them.
    pub fn buffer_pool(&self, count: u32, block_bytes: u32) -> Result<BufferPool, Errno> {
        self.0.processor.borrow_mut().buffer_pool(count, block_bytes)
    }

    /// Registers a file; see [`crate::OperationProcessor::register_file`].
    ///
    /// # Errors
    ///
    /// `ENFILE` if the table is full, or as the kernel answers.
    pub fn register_file(&self, file: Option<&File>) -> Result<RegisteredFile, Errno> {
        self.0.processor.borrow_mut().register_file(file)
    }

    /// Closes registered files; see [`crate::OperationProcessor::release_files`].
    pub fn release_files(&self) {
        self.0.processor.borrow_mut().release_files();
    }

    /// The processor's monotonic clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.0.processor.borrow().now()
    }

    /// The processor's calendar clock.
    #[must_use]
    pub fn wall_clock(&self) -> WallTime {
        self.0.processor.borrow().wall_clock()
    }

    /// What runs, and why.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.0.processor.borrow().capabilities().clone()
    }
}

impl<T> JoinHandle<T> {
    /// Whether the task has ended, by a panic or not.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_over.get()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.0.output.take() {
            Some(output) => Poll::Ready(output),
            None if self.0.is_over.get() => {
                panic!("the task panicked, or was polled after its end")
            }
            None => {
                *self.0.waiter.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for TaskEnd<T> {
    fn drop(&mut self) {
        self.0.is_over.set(true);
        if let Some(waiter) = self.0.waiter.take() {
            waiter.wake();
        }
    }
}
