//! Asynchronous operations: a closed set, so that every processor can give the same answers.
//!
//! An operation **owns** its buffers and handles from when a processor accepts it until its last
//! completion event hands it back. Nobody else can free or move what the kernel may be using.
//!
//! One file a family: [`Read`] and what else moves or places data, names, attributes, timers. A new
//! family is a new file here, and a variant for each of its members in [`Operation`].

mod attribute;
mod chain;
mod completion;
mod data;
mod device;
mod entries;
mod handle;
mod name;
mod perform;
mod place;
mod socket;
mod timer;

pub use attribute::*;
pub use chain::Chain;
pub use completion::*;
pub use data::*;
pub use device::DeviceStatus;
pub(crate) use entries::push_entry;
pub use entries::{DirectoryEntry, directory_entries};
pub(crate) use handle::{Descriptor, ProcessorIdentity, Released, ZeroCopy};
pub use handle::{File, Handle, RegisteredFile, Socket};
pub use name::*;
pub(crate) use perform::{perform, perform_pair};
pub use place::{Name, Place};
pub use socket::{
    Accept, AcceptMany, Address, Bind, Connect, Direction, Family, GetSocketOption, Listen,
    MakeSocket, Poll, PollEvents, Receive, ReceiveMany, ReceiveMessage, Send, SendMessage,
    SendZeroCopy, SetSocketOption, Shutdown, SocketAddress, SocketOption, SocketOptionName, Whose,
};
pub(crate) use socket::{Attempt, attempt};
pub use timer::Timeout;

/// One thing that a processor can be asked to do.
#[derive(Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant is documented by the type that it holds")]
pub enum Operation {
    /// Nothing, for measuring and for waking.
    Nop,
    Timeout(Timeout),
    /// The timeout of the chain member before it.
    LinkTimeout(Timeout),

    Read(Read),
    Write(Write),
    ReadVectored(ReadVectored),
    WriteVectored(WriteVectored),
    Sync(Sync),
    Allocate(Allocate),
    Truncate(Truncate),
    Seek(Seek),
    CloneFile(CloneFile),
    CopyRange(CopyRange),
    Advise(Advise),
    CacheStatus(CacheStatus),
    SetDirect(SetDirect),
    Lock(Lock),

    Open(Open),
    Close(Close),
    Flush(Flush),
    Rename(Rename),
    Unlink(Unlink),
    MakeDirectory(MakeDirectory),
    SymbolicLink(SymbolicLink),
    Link(Link),
    ReadLink(ReadLink),
    MakeNode(MakeNode),
    ListDirectory(ListDirectory),

    Statx(Statx),
    FileSystemStatus(FileSystemStatus),
    DeviceStatus(DeviceStatus),
    ChangeOwner(ChangeOwner),
    ChangeMode(ChangeMode),
    ChangeTimes(ChangeTimes),
    GetAttribute(GetAttribute),
    SetAttribute(SetAttribute),
    RemoveAttribute(RemoveAttribute),
    ListAttributes(ListAttributes),

    MakeSocket(MakeSocket),
    Bind(Bind),
    Listen(Listen),
    Accept(Accept),
    AcceptMany(AcceptMany),
    Connect(Connect),
    Shutdown(Shutdown),
    SocketAddress(SocketAddress),
    Receive(Receive),
    ReceiveMany(ReceiveMany),
    ReceiveMessage(ReceiveMessage),
    Send(Send),
    SendMessage(SendMessage),
    SendZeroCopy(SendZeroCopy),
    SetSocketOption(SetSocketOption),
    GetSocketOption(GetSocketOption),
    Poll(Poll),
}

/// Each member of the set becomes the operation that it is.
macro_rules! operations {
    ($($member:ident)*) => {
        $(impl From<$member> for Operation {
            fn from(operation: $member) -> Self {
                Self::$member(operation)
            }
        })*
    };
}

operations! {
    Timeout
    Read Write ReadVectored WriteVectored Sync Allocate Truncate Seek CloneFile CopyRange Advise
    CacheStatus SetDirect Lock
    Open Close Flush Rename Unlink MakeDirectory SymbolicLink Link ReadLink MakeNode ListDirectory
    Statx FileSystemStatus DeviceStatus ChangeOwner ChangeMode ChangeTimes GetAttribute SetAttribute
    RemoveAttribute ListAttributes
    MakeSocket Bind Listen Accept AcceptMany Connect Shutdown SocketAddress Receive ReceiveMany
    ReceiveMessage Send SendMessage SendZeroCopy SetSocketOption GetSocketOption Poll
}

/// What becomes of an operation whose task has lost interest in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnDrop {
    /// It is cancelled: only its result would have mattered.
    Cancel,
    /// It runs to its end: half of it done would be worse.
    Detach,
}

impl Operation {
    /// The operation's name in the field's words, for errors and traces.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Nop => "no-op",
            Self::Timeout(_) | Self::LinkTimeout(_) => "timeout",
            Self::Read(_) | Self::ReadVectored(_) => "read",
            Self::Write(_) | Self::WriteVectored(_) => "write",
            Self::Sync(_) => "sync",
            Self::Allocate(_) => "allocate",
            Self::Truncate(_) => "truncate",
            Self::Seek(_) => "seek",
            Self::CloneFile(_) => "clone",
            Self::CopyRange(_) => "copy range",
            Self::Advise(_) => "advise",
            Self::CacheStatus(_) => "cache status",
            Self::SetDirect(_) => "set direct",
            Self::Lock(_) => "lock",
            Self::Open(_) => "open",
            Self::Close(_) => "close",
            Self::Flush(_) => "flush",
            Self::Rename(_) => "rename",
            Self::Unlink(_) => "remove",
            Self::MakeDirectory(_) => "make directory",
            Self::SymbolicLink(_) => "make symbolic link",
            Self::Link(_) => "make link",
            Self::ReadLink(_) => "read link",
            Self::MakeNode(_) => "make node",
            Self::ListDirectory(_) => "list directory",
            Self::Statx(_) => "status",
            Self::FileSystemStatus(_) => "file system status",
            Self::DeviceStatus(_) => "device status",
            Self::ChangeOwner(_) => "change owner",
            Self::ChangeMode(_) => "change mode",
            Self::ChangeTimes(_) => "change times",
            Self::GetAttribute(_) => "read attribute",
            Self::SetAttribute(_) => "set attribute",
            Self::RemoveAttribute(_) => "remove attribute",
            Self::ListAttributes(_) => "list attributes",
            Self::MakeSocket(_) => "make socket",
            Self::Bind(_) => "bind",
            Self::Listen(_) => "listen",
            Self::Accept(_) | Self::AcceptMany(_) => "accept",
            Self::Connect(_) => "connect",
            Self::Shutdown(_) => "shut down",
            Self::SocketAddress(_) => "socket address",
            Self::Receive(_) | Self::ReceiveMany(_) | Self::ReceiveMessage(_) => "receive",
            Self::Send(_) | Self::SendMessage(_) | Self::SendZeroCopy(_) => "send",
            Self::SetSocketOption(_) => "set socket option",
            Self::GetSocketOption(_) => "socket option",
            Self::Poll(_) => "poll",
        }
    }

    /// What becomes of it when nobody waits for it any more.
    #[must_use]
    pub const fn on_drop(&self) -> OnDrop {
        match self {
            Self::Nop
            | Self::Timeout(_)
            | Self::LinkTimeout(_)
            | Self::Read(_)
            | Self::ReadVectored(_)
            | Self::Statx(_)
            | Self::ReadLink(_)
            | Self::CacheStatus(_) => OnDrop::Cancel,
            // A send, too: a peer that reads nothing would keep it, and with it the connection.
            socket if socket.is_of_sockets() => OnDrop::Cancel,
            _ => OnDrop::Detach,
        }
    }
}

const _: () = assert!(size_of::<Operation>() <= 64, "an operation is moved often: keep it small");
