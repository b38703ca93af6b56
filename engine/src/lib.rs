//! An io_uring engine for files and sockets, built on the Proactor pattern.
//!
//! A program starts **operations** ([`Operation`]), an [`OperationProcessor`] performs them while
//! the program goes on, and each ends in a [`CompletionEvent`] that hands everything back: the
//! result, the buffer, the file. A [`Proactor`] waits for these events and dispatches them to
//! completion handlers and to `async` tasks, which share one mechanism.
//!
//! Three processors give the same answers: [`processor::KernelProcessor`] is io_uring,
//! [`processor::ThreadProcessor`] works where io_uring is blocked, and
//! [`processor::SimulatedProcessor`] plays files and a network in memory, with faults, from a
//! seed.
//!
//! # Examples
//!
//! ```
//! use ucp_engine::Proactor;
//! use ucp_engine::operation::{Open, Place};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let proactor = Proactor::start(&Default::default())?;
//! let initiator = proactor.initiator();
//! let bytes = proactor.block_on(async move {
//!     let file = initiator.open(Open::read(Place::path("/proc/self/stat")?)).await?;
//!     let (result, _buffer) = initiator.read_at(&file, vec![0; 4096], 0).await;
//!     result
//! })?;
//! assert!(bytes > 0);
//! # Ok(())
//! # }
//! ```

pub mod buffer;
pub mod cache_policy;
pub mod compare;
pub mod copy;
pub mod digest;
pub mod error;
pub mod limits;
pub mod operation;
pub mod proactor;
pub mod processor;
pub mod random;
pub mod sum;
mod sys;
pub mod tail;
pub mod units;

pub use error::{Errno, Error, ErrorKind, Refusal};
pub use operation::{CompletionEvent, Operation, OperationError};
pub use proactor::{CompletionHandler, Initiator, Proactor};
pub use processor::OperationProcessor;
