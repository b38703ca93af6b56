//! A network in memory: listeners, connections, and what is on its way between them.
//!
//! Each answer is the one that Linux gives for TCP on the loopback device, or for unix sockets. Time is
//! passed in, and so is how long something travels: that is for the seed to decide.

mod connection;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use connection::Connection;

use super::inode::Number;
use crate::error::Errno;
use crate::operation::{Address, Direction, Family, PollEvents, SocketOption, SocketOptionName};

/// All sockets of a world, by descriptor.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    sockets: BTreeMap<u32, Socket>,
    next_port: u16,
    /// Counts what has changed, so that who waits can tell whether it is worth looking again.
    pub(super) changes: u64,
}

#[derive(Clone, Debug)]
struct Socket {
    family: Family,
    own: Option<Address>,
    /// The socket's file, of a bound unix socket.
    inode: Option<Number>,
    options: BTreeMap<SocketOptionName, u32>,
    /// Closing it breaks the connection off.
    is_abrupt: bool,
    role: Role,
}

#[derive(Clone, Debug)]
enum Role {
    Idle,
    /// Connections that were made, with the moment when the listener hears of them.
    Listener {
        backlog: usize,
        waiting: VecDeque<(u64, u32)>,
    },
    Connected(Connection),
}

/// Where a connect leads to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Internet(SocketAddr),
    /// A socket's file.
    File(Number),
}

/// What a connection is like, beside its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// Nanoseconds until the other end hears of something.
    pub(super) travel: u64,
    /// How many bytes each end keeps.
    pub(super) window: usize,
}

/// How long news travel that a descriptor brings which its last owner gave up.
const CLOSING: u64 = 20_000;
/// A descriptor that no socket has.
const NOBODY: u32 = u32::MAX;
/// The first port that is given to who asks for any.
const PORT_FIRST: u16 = 32_768;

impl Network {
    pub(super) fn make(&mut self, number: u32, family: Family) {
        let socket = Socket {
            family,
            own: None,
            inode: None,
            options: BTreeMap::new(),
            is_abrupt: false,
            role: Role::Idle,
        };
        self.sockets.insert(number, socket);
    }

    pub(super) fn has(&self, number: u32) -> bool {
        self.sockets.contains_key(&number)
    }

    pub(super) fn count(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn family(&self, number: u32) -> Result<Family, Errno> {
        self.socket(number).map(|socket| socket.family)
    }

    pub(super) fn may_bind(&self, number: u32, address: &Address) -> Result<(), Errno> {
        let socket = self.socket(number)?;
        if socket.family != address.family() {
            return Err(match socket.family {
                Family::V6 | Family::Unix => Errno::EINVAL,
                Family::V4 => Errno::EAFNOSUPPORT,
            });
        }
        if socket.own.is_some() { Err(Errno::EINVAL) } else { Ok(()) }
    }

    pub(super) fn bind(
        &mut self,
        number: u32,
        address: &Address,
        inode: Option<Number>,
    ) -> Result<(), Errno> {
        self.may_bind(number, address)?;
        let mut address = address.clone();
        if let Address::Internet(internet) = &mut address {
            if internet.port() == 0 {
                internet.set_port(self.free_port());
            }
            let own = *internet;
            let is_taken = self.sockets.iter().any(|(other, it)| {
                *other != number && it.is_bound_to(own) && !self.share(number, *other)
            });
            if is_taken {
                return Err(Errno::EADDRINUSE);
            }
        }
        let socket = self.socket_mut(number)?;
        (socket.own, socket.inode) = (Some(address), inode);
        Ok(())
    }

    /// Whether two sockets may have the same address.
    fn share(&self, one: u32, other: u32) -> bool {
        let (one, other) = (&self.sockets[&one], &self.sockets[&other]);
        let both = |option| one.has(option) && other.has(option);
        let is_listener = matches!(other.role, Role::Listener { .. });
        both(SocketOptionName::ReusePort)
            || (both(SocketOptionName::ReuseAddress) && !is_listener)
            // The connections that a listener accepted have its address, and are in nobody's way.
            || (one.has(SocketOptionName::ReuseAddress)
                && matches!(other.role, Role::Connected(_)))
    }

    fn free_port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(0).max(PORT_FIRST);
        self.next_port
    }

    pub(super) fn listen(&mut self, number: u32, backlog: u32) -> Result<(), Errno> {
        let port = self.free_port();
        let socket = self.socket_mut(number)?;
        match (&socket.role, &socket.own, socket.family) {
            (Role::Connected(_), ..) | (_, None, Family::Unix) => return Err(Errno::EINVAL),
            (_, None, family) => socket.own = Some(SocketAddr::new(any(family), port).into()),
            _ => {}
        }
        let backlog_new = usize::try_from(backlog).unwrap_or(usize::MAX).clamp(1, 4096);
        match &mut socket.role {
            Role::Listener { backlog, .. } => *backlog = backlog_new,
            role => *role = Role::Listener { backlog: backlog_new, waiting: VecDeque::new() },
        }
        Ok(())
    }

    /// Connects a socket; the other end's descriptor will be `accepted`. `EAGAIN` if no more
    /// connections may wait there.
    pub(super) fn connect(
        &mut self,
        number: u32,
        accepted: u32,
        target: &Target,
        now: u64,
        path: Path,
    ) -> Result<(), Errno> {
        let socket = self.socket(number)?;
        match socket.role {
            Role::Idle => {}
            Role::Listener { .. } if socket.family == Family::Unix => return Err(Errno::EINVAL),
            _ => return Err(Errno::EISCONN),
        }
        let listener = self.listener(target, path.travel).ok_or(Errno::ECONNREFUSED)?;
        let Role::Listener { backlog, waiting } = &self.sockets[&listener].role else {
            return Err(Errno::ECONNREFUSED);
        };
        // One more than was asked for, as the kernel counts (`sk_acceptq_is_full`).
        if waiting.len() > *backlog {
            return Err(Errno::EAGAIN);
        }
        let family = self.sockets[&listener].family;
        let there = match target {
            Target::Internet(address) => Address::Internet(*address),
            Target::File(_) => self.sockets[&listener].own.clone().unwrap_or(Address::Unnamed),
        };
        let port = self.free_port();
        let socket = self.socket_mut(number)?;
        let here = match (&socket.own, target) {
            (Some(own), _) => own.clone(),
            (None, Target::Internet(there)) => SocketAddr::new(there.ip(), port).into(),
            (None, Target::File(_)) => Address::Unnamed,
        };
        socket.own = Some(here.clone());
        socket.role = Role::Connected(Connection::new(accepted, there.clone(), path.window));
        self.make(accepted, family);
        let other = self.socket_mut(accepted)?;
        other.own = Some(there);
        other.role = Role::Connected(Connection::new(number, here, path.window));
        if let Role::Listener { waiting, .. } = &mut self.socket_mut(listener)?.role {
            waiting.push_back((now + path.travel, accepted));
        }
        self.changes += 1;
        Ok(())
    }

    /// Who listens there; where several share the address, one of them by chance.
    fn listener(&self, target: &Target, chance: u64) -> Option<u32> {
        let listens = |socket: &Socket| {
            matches!(socket.role, Role::Listener { .. })
                && match target {
                    Target::Internet(address) => socket.is_bound_to(*address),
                    Target::File(inode) => socket.inode == Some(*inode),
                }
        };
        let found: Vec<u32> =
            self.sockets.iter().filter(|it| listens(it.1)).map(|it| *it.0).collect();
        let chosen = chance.checked_rem(found.len() as u64)?;
        usize::try_from(chosen).ok().map(|chosen| found[chosen])
    }

    /// Takes a connection that has arrived.
    pub(super) fn accept(&mut self, number: u32, now: u64) -> Result<u32, Errno> {
        let Role::Listener { waiting, .. } = &mut self.socket_mut(number)?.role else {
            return Err(Errno::EINVAL);
        };
        match waiting.front() {
            Some((arrives, accepted)) if *arrives <= now => {
                let accepted = *accepted;
                waiting.pop_front();
                self.changes += 1;
                Ok(accepted)
            }
            _ => Err(Errno::EAGAIN),
        }
    }

    pub(super) fn receive(
        &mut self,
        number: u32,
        now: u64,
        limit: usize,
        is_peek: bool,
    ) -> Result<Vec<u8>, Errno> {
        let socket = self.socket_mut(number)?;
        let received = match (&mut socket.role, socket.family) {
            (Role::Connected(connection), _) => connection.receive(now, limit, is_peek),
            (_, Family::Unix) => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTCONN),
        };
        if received.is_ok() {
            self.changes += 1;
        }
        received
    }

    /// Sends bytes, as many as there is room for; returns how many.
    pub(super) fn send(
        &mut self,
        number: u32,
        bytes: &[u8],
        now: u64,
        travel: u64,
    ) -> Result<usize, Errno> {
        let socket = self.socket_mut(number)?;
        let is_unix = socket.family == Family::Unix;
        let Role::Connected(connection) = &mut socket.role else {
            return Err(if is_unix { Errno::ENOTCONN } else { Errno::EPIPE });
        };
        connection.may_send(now)?;
        let peer = connection.peer;
        let count = match self.connection_mut(peer) {
            Some(peer) if is_unix && peer.is_receiving_shut => return Err(Errno::EPIPE),
            Some(peer) if peer.incoming.room() == 0 && !bytes.is_empty() => {
                return Err(Errno::EAGAIN);
            }
            Some(peer) => peer.arrive(bytes, now + travel),
            None if is_unix => return Err(Errno::EPIPE),
            // Nobody is there any more, and will say so.
            None => {
                if let Some(connection) = self.connection_mut(number) {
                    connection.break_off(now + travel);
                }
                bytes.len()
            }
        };
        self.changes += 1;
        Ok(count)
    }

    pub(super) fn shut_down(
        &mut self,
        number: u32,
        direction: Direction,
        now: u64,
        travel: u64,
    ) -> Result<(), Errno> {
        let socket = self.socket_mut(number)?;
        let family = socket.family;
        let Role::Connected(connection) = &mut socket.role else {
            let is_listener = matches!(socket.role, Role::Listener { .. });
            if family != Family::Unix && !is_listener {
                return Err(Errno::ENOTCONN);
            }
            if family != Family::Unix && direction != Direction::Sending {
                self.stop_listening(number, now);
            }
            return Ok(());
        };
        let peer = connection.peer;
        let (receiving, sending) =
            (direction != Direction::Sending, direction != Direction::Receiving);
        connection.is_receiving_shut |= receiving;
        connection.is_sending_shut |= sending;
        if let Some(peer) = self.connection_mut(peer) {
            if sending {
                peer.incoming.push_end(now + travel);
            }
            peer.is_sending_shut |= receiving && family == Family::Unix;
        }
        self.changes += 1;
        Ok(())
    }

    /// Breaks a connection off on both ends.
    pub(super) fn reset(&mut self, number: u32, now: u64) -> bool {
        let Some(connection) = self.connection_mut(number) else { return false };
        let peer = connection.peer;
        connection.break_off(now);
        self.changes += 1;
        if let Some(peer) = self.connection_mut(peer) {
            peer.break_off(now);
        }
        true
    }

    /// Has one end see the end of the stream, as if the other were gone, and the other a reset.
    pub(super) fn hang_up(&mut self, number: u32, now: u64) -> bool {
        let Some(connection) = self.connection_mut(number) else { return false };
        let peer = connection.peer;
        connection.incoming.cut(now);
        connection.incoming.push_end(now);
        connection.peer = NOBODY;
        self.changes += 1;
        if let Some(peer) = self.connection_mut(peer) {
            // What it sends meanwhile goes nowhere.
            peer.peer = NOBODY;
            peer.break_off(now + CLOSING);
        }
        true
    }

    /// Closes a socket: the other end sees the end of the stream, or a reset if bytes were not
    /// received (RFC 2525, 2.17).
    pub(super) fn close(&mut self, number: u32, now: u64) {
        self.changes += 1;
        self.stop_listening(number, now);
        let Some(socket) = self.sockets.remove(&number) else { return };
        let Role::Connected(connection) = socket.role else { return };
        let is_reset = socket.is_abrupt || !connection.incoming.is_empty();
        let Some(peer) = self.connection_mut(connection.peer) else { return };
        let arrives = (now + CLOSING).max(peer.incoming.latest());
        match is_reset {
            true => peer.break_off(arrives),
            false => peer.incoming.push_end(arrives),
        }
    }

    /// Makes a listener a socket that does not listen; who waits to be accepted is refused.
    fn stop_listening(&mut self, number: u32, now: u64) {
        let Ok(socket) = self.socket_mut(number) else { return };
        let Role::Listener { waiting, .. } = &mut socket.role else { return };
        let waiting = std::mem::take(waiting);
        socket.role = Role::Idle;
        for (_, accepted) in waiting {
            self.reset(accepted, now);
            self.sockets.remove(&accepted);
        }
    }

    pub(super) fn own_address(&self, number: u32) -> Result<Address, Errno> {
        let socket = self.socket(number)?;
        Ok(match (&socket.own, socket.family) {
            (Some(own), _) => own.clone(),
            (None, Family::Unix) => Address::Unnamed,
            (None, family) => SocketAddr::new(any(family), 0).into(),
        })
    }

    pub(super) fn peer_address(&self, number: u32) -> Result<Address, Errno> {
        match &self.socket(number)?.role {
            Role::Connected(connection) => Ok(connection.peer_address.clone()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    pub(super) fn set_option(&mut self, number: u32, option: SocketOption) -> Result<(), Errno> {
        let socket = self.socket_mut(number)?;
        let (Some(name), Some(value)) = (option.name(), option.value()) else {
            if let SocketOption::Linger(linger) = option {
                socket.is_abrupt = linger.is_some_and(|it| it.is_zero());
            }
            return Ok(());
        };
        socket.may_have(name)?;
        let value = value.cast_unsigned();
        let value = match name {
            // The kernel doubles them, and has a least (`socket(7)`).
            SocketOptionName::ReceiveBufferBytes => (value * 2).max(2304),
            SocketOptionName::SendBufferBytes => (value * 2).max(4608),
            _ => value,
        };
        socket.options.insert(name, value);
        Ok(())
    }

    pub(super) fn option(&mut self, number: u32, name: SocketOptionName) -> Result<u32, Errno> {
        let socket = self.socket_mut(number)?;
        socket.may_have(name)?;
        if name == SocketOptionName::Error {
            let Role::Connected(connection) = &mut socket.role else { return Ok(0) };
            return Ok(connection.error.take().map_or(0, |errno| (errno as i32).cast_unsigned()));
        }
        let buffer = 131_072;
        Ok(socket.options.get(&name).copied().unwrap_or(match name {
            SocketOptionName::ReceiveBufferBytes | SocketOptionName::SendBufferBytes => buffer,
            _ => 0,
        }))
    }

    /// What a socket is ready for.
    pub(super) fn events(&mut self, number: u32, now: u64) -> Result<PollEvents, Errno> {
        let none = PollEvents::from_bits(0);
        let socket = self.socket_mut(number)?;
        let (peer, mine) = match &mut socket.role {
            Role::Idle => return Ok(PollEvents::WRITABLE | PollEvents::HANG_UP),
            Role::Listener { waiting, .. } => {
                let is_ready = waiting.front().is_some_and(|(arrives, _)| *arrives <= now);
                return Ok(if is_ready { PollEvents::READABLE } else { none });
            }
            Role::Connected(connection) => (connection.peer, connection.events(now)),
        };
        let is_full = self.connection_mut(peer).is_some_and(|peer| peer.incoming.room() == 0);
        Ok(if is_full { mine } else { mine | PollEvents::WRITABLE })
    }

    /// When a socket's state changes by itself.
    pub(super) fn next_change(&self, number: u32, now: u64) -> Option<u64> {
        match &self.sockets.get(&number)?.role {
            Role::Idle => None,
            Role::Listener { waiting, .. } => {
                waiting.front().map(|(arrives, _)| *arrives).filter(|arrives| *arrives > now)
            }
            Role::Connected(connection) => connection.next_change(now),
        }
    }

    fn socket(&self, number: u32) -> Result<&Socket, Errno> {
        self.sockets.get(&number).ok_or(Errno::EBADF)
    }

    fn socket_mut(&mut self, number: u32) -> Result<&mut Socket, Errno> {
        self.sockets.get_mut(&number).ok_or(Errno::EBADF)
    }

    fn connection_mut(&mut self, number: u32) -> Option<&mut Connection> {
        match &mut self.sockets.get_mut(&number)?.role {
            Role::Connected(connection) => Some(connection),
            _ => None,
        }
    }
}

impl Socket {
    /// Whether it has this address, or all addresses of the port.
    fn is_bound_to(&self, address: SocketAddr) -> bool {
        let Some(Address::Internet(own)) = &self.own else { return false };
        let covers =
            own.ip() == address.ip() || own.ip().is_unspecified() || address.ip().is_unspecified();
        own.port() == address.port() && own.is_ipv4() == address.is_ipv4() && covers
    }

    fn has(&self, option: SocketOptionName) -> bool {
        self.options.get(&option).is_some_and(|value| *value != 0)
    }

    fn may_have(&self, option: SocketOptionName) -> Result<(), Errno> {
        match (option, self.family) {
            (SocketOptionName::NoDelay | SocketOptionName::V6Only, Family::Unix) => {
                Err(Errno::EOPNOTSUPP)
            }
            (SocketOptionName::V6Only, Family::V4) => Err(Errno::ENOPROTOOPT),
            _ => Ok(()),
        }
    }
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        Family::V4 | Family::Unix => Ipv4Addr::UNSPECIFIED.into(),
    }
}
