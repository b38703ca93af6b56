//! Operations on sockets: TCP over IPv4 and IPv6, and stream sockets of one machine (unix).
//!
//! ```text
//! MakeSocket -> Bind -> Listen -> Accept, AcceptMany -+
//! MakeSocket -> Connect ------------------------------+-> Receive, Send, … -> Shutdown -> Close
//! ```
//!
//! No send raises SIGPIPE: a connection that is broken is told by `EPIPE` or `ECONNRESET`. Transfers
//! may be short, as those of files; [`crate::proactor::TaskInitiator::send_all`] and
//! [`crate::proactor::TaskInitiator::receive_exactly`] go on until all is done.
//!
//! Two operations complete many times ([`AcceptMany`], [`ReceiveMany`]): each event but the last is
//! [`super::End::More`] with what came. Where the kernel ends one of them for a reason of its own, the
//! engine begins it again. It ends with an error, a cancel, or the end of the stream.
//!
//! An operation in flight keeps its socket open: who drops the last handle of a connection that
//! still receives has not closed it. Cancel first, or [`Shutdown`].

mod address;
mod attempt;
mod connect;
mod option;
mod poll;
mod transfer;

pub use address::{Address, Family};
pub(crate) use attempt::{Attempt, attempt, perform_waiting};
pub use connect::{
    Accept, AcceptMany, Bind, Connect, Direction, Listen, MakeSocket, Shutdown, SocketAddress,
    Whose,
};
pub use option::{GetSocketOption, SetSocketOption, SocketOption, SocketOptionName};
pub use poll::{Poll, PollEvents};
pub use transfer::{Receive, ReceiveMany, ReceiveMessage, Send, SendMessage, SendZeroCopy};
