//! Performs operations on sockets in the simulated network, and decides what goes wrong there.

use std::time::Duration;

use nix::libc;

use super::faults::{Fault, OperationKind};
use super::network::{Path, Target};
use super::walk::At;
use super::world::World;
use super::{Due, SimulatedProcessor};
use crate::error::Errno;
use crate::operation::{
    Address, Descriptor, Direction, FileKind, MakeSocket, Operation, Part, Poll, PollEvents,
    Socket, SocketAddress, Whose,
};
use crate::processor::OperationProcessor as _;
use crate::processor::finish::{raw, tell_part};
use crate::random::Random;
use crate::units::Moment;

/// What came of an operation whose moment has come.
enum Outcome {
    Ended(Result<u32, Errno>),
    /// It goes on.
    Part(u32, Part),
    /// It needs a buffer.
    Starved,
    /// The bytes are sent, and the buffer is still out.
    Sent(u32),
}

/// How long something travels, in nanoseconds: at least, and by how much longer.
const TRAVEL: (u64, u64) = (1_000, 50_000);
/// How much longer something travels that is delayed.
const DELAY: u64 = 1000;
/// What an end of a connection keeps: as a rule, and at the most if it is small.
const WINDOW: usize = 65_536;
const WINDOW_SMALL: u64 = 64;

impl SimulatedProcessor {
    /// An operation on sockets has its moment.
    pub(super) fn on_due_socket(&mut self, index: u32) {
        if let Some(sent) = self.slots.entry(index).sent {
            self.check_sent(index);
            return self.end(index, sent);
        }
        match self.perform_socket(index) {
            Outcome::Ended(Err(Errno::EAGAIN)) => self.wait_for_network(index),
            Outcome::Ended(Err(Errno::EINTR)) if self.begin_again(index) => {}
            Outcome::Ended(result) => self.end(index, raw(result)),
            Outcome::Part(number, part) => {
                tell_part(&self.slots, index, number, part, &mut self.ready);
                self.go_on(index);
            }
            Outcome::Starved => {
                self.plan.record().count(Fault::NoBuffers);
                self.starved.push(index);
            }
            Outcome::Sent(number) => self.hold_sent(index, number),
        }
    }

    /// Has an operation wait until its socket's state changes: at a moment that is known, or else by
    /// what somebody does.
    fn wait_for_network(&mut self, index: u32) {
        if self.states[index as usize].is_to_end {
            return self.end(index, raw(Err(Errno::ECANCELED)));
        }
        let next = socket_of(self.slots.operation(index)).and_then(|number| {
            let world = self.world.lock();
            world.network.next_change(number, world.clock)
        });
        match next {
            Some(next) => self.schedule_again(index, Moment(next)),
            None => self.waiting.push(index),
        }
    }

    /// Schedules an operation that completes many times once more.
    fn go_on(&mut self, index: u32) {
        let kind = OperationKind::of(self.slots.operation(index));
        let mut nanoseconds = 100 + self.random.below(2_000);
        // The kernel ends it when it likes, and the processor begins it again.
        if self.plan.strikes(kind, Fault::MultishotEnded, &mut self.random) {
            nanoseconds += 10_000;
        }
        self.schedule_again(index, self.now() + Duration::from_nanos(nanoseconds));
    }

    pub(super) fn schedule_again(&mut self, index: u32, moment: Moment) {
        let key = self.schedule(moment, Due::Completion(index));
        self.states[index as usize].key = Some(key);
    }

    /// Has one go on that waits for a buffer, the oldest for which there is one: the next one may find
    /// none.
    pub(super) fn feed_starved(&mut self) {
        let is_fed = |index: &u32| match self.slots.operation(*index) {
            Operation::ReceiveMany(it) => it.pool.has_free(),
            _ => false,
        };
        if let Some(place) = self.starved.iter().position(is_fed) {
            let index = self.starved.remove(place);
            self.schedule_again(index, self.now());
        }
    }

    /// Keeps a zero-copy send until its notification.
    fn hold_sent(&mut self, index: u32, number: u32) {
        if self.slots.entry(index).link.is_none() {
            tell_part(&self.slots, index, number, Part::Nothing, &mut self.ready);
        }
        self.slots.entry_mut(index).sent = Some(raw(Ok(number)));
        let mut sent = Vec::new();
        if let Some(memory) = self.slots.memory(index) {
            memory.bytes().for_each(|bytes| sent.extend_from_slice(bytes));
        }
        self.spoiled[index as usize] = sent;
        let mut nanoseconds = 1_000 + self.random.below(100_000);
        let kind = OperationKind::SendZeroCopy;
        if self.plan.strikes(kind, Fault::NotificationDelayed, &mut self.random) {
            nanoseconds *= DELAY;
        }
        self.schedule_again(index, self.now() + Duration::from_nanos(nanoseconds));
    }

    /// A device might have read the buffer until now.
    fn check_sent(&mut self, index: u32) {
        let memory = self.slots.memory(index).expect("a send has memory");
        let bytes: Vec<u8> = memory.bytes().flatten().copied().collect();
        assert!(bytes == self.spoiled[index as usize], "a buffer changed before its notification");
    }

    fn perform_socket(&mut self, index: u32) -> Outcome {
        let fate = self.states[index as usize].fate;
        if let Some(errno) = fate.errno {
            if let Some(fault) = fate.fault {
                self.plan.record().count(fault);
            }
            return Outcome::Ended(Err(errno));
        }
        let kind = OperationKind::of(self.slots.operation(index));
        self.disturb(kind, index);
        if self.plan.strikes(kind, Fault::Refused, &mut self.random) {
            return Outcome::Ended(Err(Errno::ECONNREFUSED));
        }
        let mut travel = TRAVEL.0 + self.random.below(TRAVEL.1);
        if self.plan.strikes(kind, Fault::Delayed, &mut self.random) {
            travel *= DELAY;
        }
        let is_short = fate.is_short
            || (kind == OperationKind::ReceiveMany
                && self.plan.strikes(kind, Fault::ShortTransfer, &mut self.random));
        let result = match self.slots.operation(index) {
            Operation::ReceiveMany(_) => return self.receive_part(index, is_short),
            Operation::AcceptMany(it) => {
                let world = &mut self.world.lock();
                match of_socket(&it.listener).and_then(|number| accept(world, number)) {
                    Ok(socket) => return Outcome::Part(0, Part::Socket(socket)),
                    Err(errno) => Err(errno),
                }
            }
            Operation::Receive(_) | Operation::ReceiveMessage(_) => self.receive(index, is_short),
            Operation::Send(_) | Operation::SendMessage(_) => self.send(index, travel, is_short),
            Operation::SendZeroCopy(it) => {
                let is_copied = self.is_copied(&it.socket);
                match self.send(index, travel, is_short) {
                    Ok(number) if !is_copied => return Outcome::Sent(number),
                    result => result,
                }
            }
            _ => self.perform_plain(index, travel),
        };
        if let (Ok(_), Operation::Shutdown(it)) = (result, self.slots.operation(index))
            && it.direction != Direction::Receiving
        {
            self.plan.record().count(Fault::HalfClosed);
        }
        Outcome::Ended(result)
    }

    /// Breaks the connection of an operation off, if the plan says so.
    fn disturb(&mut self, kind: OperationKind, index: u32) {
        let Some(number) = socket_of(self.slots.operation(index)) else { return };
        let is_reset = self.plan.draws(kind, Fault::Reset, &mut self.random);
        let is_hung_up = self.plan.draws(kind, Fault::HungUp, &mut self.random);
        let mut world = self.world.lock();
        let now = world.clock;
        if is_reset && world.network.reset(number, now) {
            self.plan.record().count(Fault::Reset);
        } else if is_hung_up && world.network.hang_up(number, now) {
            self.plan.record().count(Fault::HungUp);
        }
    }

    fn receive(&mut self, index: u32, is_short: bool) -> Result<u32, Errno> {
        let (number, is_peek) = match self.slots.operation(index) {
            Operation::Receive(it) => (of_socket(&it.socket)?, it.is_peek),
            Operation::ReceiveMessage(it) => (of_socket(&it.socket)?, false),
            other => unreachable!("{} does not receive", other.verb()),
        };
        let mut memory = self.slots.memory(index).ok_or(Errno::EINVAL)?;
        let length = memory.length();
        let limit = limit(length, is_short, &mut self.random);
        let mut world = self.world.lock();
        let now = world.clock;
        let bytes = world.network.receive(number, now, limit, is_peek)?;
        drop(world);
        memory.put(0, &bytes);
        self.count_received(bytes.len(), length, limit);
        Ok(count(bytes.len()))
    }

    fn receive_part(&mut self, index: u32, is_short: bool) -> Outcome {
        let Operation::ReceiveMany(it) = self.slots.operation(index) else {
            unreachable!("it was looked at")
        };
        let Some(mut lease) = it.pool.take() else { return Outcome::Starved };
        let length = lease.len();
        let limit = limit(length, is_short, &mut self.random);
        let received = of_socket(&it.socket).and_then(|number| {
            let mut world = self.world.lock();
            let now = world.clock;
            world.network.receive(number, now, limit, false)
        });
        let bytes = match received {
            Ok(bytes) => bytes,
            Err(errno) => return Outcome::Ended(Err(errno)),
        };
        self.count_received(bytes.len(), length, limit);
        if bytes.is_empty() {
            return Outcome::Ended(Ok(0));
        }
        lease[..bytes.len()].copy_from_slice(&bytes);
        let number = count(bytes.len());
        Outcome::Part(number, Part::Bytes(lease.cut_to(number)))
    }

    fn count_received(&self, received: usize, asked_for: usize, limit: usize) {
        if received == 0 && asked_for > 0 {
            self.plan.record().count(Fault::StreamEnded);
        }
        if received == limit && limit < asked_for {
            self.plan.record().count(Fault::ShortTransfer);
        }
    }

    fn send(&mut self, index: u32, travel: u64, is_short: bool) -> Result<u32, Errno> {
        let number = match self.slots.operation(index) {
            Operation::Send(it) => of_socket(&it.socket)?,
            Operation::SendMessage(it) => of_socket(&it.socket)?,
            Operation::SendZeroCopy(it) => of_socket(&it.socket)?,
            other => unreachable!("{} does not send", other.verb()),
        };
        let memory = self.slots.memory(index).ok_or(Errno::EINVAL)?;
        let mut bytes: Vec<u8> = memory.bytes().flatten().copied().collect();
        let length = bytes.len();
        let limit = limit(length, is_short, &mut self.random);
        bytes.truncate(limit);
        let mut world = self.world.lock();
        let now = world.clock;
        let sent = world.network.send(number, &bytes, now, travel)?;
        if sent == limit && limit < length {
            self.plan.record().count(Fault::ShortTransfer);
        }
        Ok(count(sent))
    }

    /// Whether the kernel would copy what is sent: to this machine it does.
    fn is_copied(&self, socket: &Socket) -> bool {
        let world = self.world.lock();
        let peer = of_socket(socket).and_then(|number| world.network.peer_address(number));
        peer.is_ok_and(|peer| peer.is_local())
    }

    /// Performs an operation that moves no bytes.
    fn perform_plain(&mut self, index: u32, travel: u64) -> Result<u32, Errno> {
        let window = match self.slots.operation(index) {
            Operation::Connect(_) => self.window(),
            _ => WINDOW,
        };
        let mut world = self.world.lock();
        let path = Path { travel, window };
        perform(&mut world, self.slots.prepare(index).0, path)
    }

    fn window(&mut self) -> usize {
        let kind = OperationKind::Connect;
        match self.plan.strikes(kind, Fault::WindowSmall, &mut self.random) {
            true => 1 + usize::try_from(self.random.below(WINDOW_SMALL)).unwrap_or(0),
            false => WINDOW,
        }
    }
}

fn perform(world: &mut World, operation: &mut Operation, path: Path) -> Result<u32, Errno> {
    let now = world.clock;
    match operation {
        Operation::MakeSocket(MakeSocket { family, socket }) => {
            let number = new_number(world);
            world.network.make(number, *family);
            *socket = Some(Socket::simulated(number, world.released.clone()));
        }
        Operation::Bind(bind) => {
            let number = of_socket(&bind.socket)?;
            bind.address.encode()?;
            world.network.may_bind(number, &bind.address)?;
            let inode = make_file(world, &bind.address)?;
            world.network.bind(number, &bind.address, inode)?;
        }
        Operation::Listen(it) => world.network.listen(of_socket(&it.socket)?, it.backlog)?,
        Operation::Accept(it) => it.socket = Some(accept(world, of_socket(&it.listener)?)?),
        Operation::Connect(connect) => {
            let number = of_socket(&connect.socket)?;
            let family = world.network.family(number)?;
            if family != connect.address.family() {
                return Err(Errno::EAFNOSUPPORT);
            }
            let target = target(world, &connect.address)?;
            let accepted = new_number(world);
            world.network.connect(number, accepted, &target, now, path)?;
        }
        Operation::Shutdown(it) => {
            let number = of_socket(&it.socket)?;
            world.network.shut_down(number, it.direction, now, path.travel)?;
        }
        Operation::SocketAddress(SocketAddress { socket, whose, address }) => {
            let number = of_socket(socket)?;
            *address = Some(match whose {
                Whose::Own => world.network.own_address(number)?,
                Whose::Peer => world.network.peer_address(number)?,
            });
        }
        Operation::SetSocketOption(it) => {
            world.network.set_option(of_socket(&it.socket)?, it.option)?;
        }
        Operation::GetSocketOption(it) => {
            return world.network.option(of_socket(&it.socket)?, it.option);
        }
        Operation::Poll(poll) => return poll_now(world, poll),
        other => unreachable!("{} is no operation on sockets", other.verb()),
    }
    Ok(0)
}

fn accept(world: &mut World, number: u32) -> Result<Socket, Errno> {
    let now = world.clock;
    let accepted = world.network.accept(number, now)?;
    Ok(Socket::simulated(accepted, world.released.clone()))
}

/// Makes the file of a unix socket.
fn make_file(world: &mut World, address: &Address) -> Result<Option<usize>, Errno> {
    let Address::Unix(path) = address else { return Ok(None) };
    let at = At::path(path.as_bytes());
    let made = world.make_node(at, libc::S_IFSOCK | 0o777, 0);
    made.map_err(|errno| if errno == Errno::EEXIST { Errno::EADDRINUSE } else { errno })?;
    world.resolve(At::path(path.as_bytes()), false).map(Some)
}

/// Where a connect leads to: a unix socket by its file.
fn target(world: &World, address: &Address) -> Result<Target, Errno> {
    let path = match address {
        Address::Internet(address) => return Ok(Target::Internet(*address)),
        Address::Unix(path) => path,
        Address::Unnamed => return Err(Errno::EINVAL),
    };
    address.encode()?;
    let number = world.resolve(At::path(path.as_bytes()), true)?;
    world.may(number, 0o2)?;
    match world.node(number).attributes.kind {
        FileKind::Socket => Ok(Target::File(number)),
        _ => Err(Errno::ECONNREFUSED),
    }
}

fn poll_now(world: &mut World, poll: &Poll) -> Result<u32, Errno> {
    let number = of_shared(poll.handle.shared())?;
    let now = world.clock;
    let ready = if world.network.has(number) {
        world.network.events(number, now)?
    } else {
        world.file(number)?;
        let is_ready = |is_write| !world.transfer_would_wait(number, is_write, 1);
        let none = PollEvents::from_bits(0);
        let readable = if is_ready(false) { PollEvents::READABLE } else { none };
        readable | if is_ready(true) { PollEvents::WRITABLE } else { none }
    };
    let told = poll.events | PollEvents::ERROR | PollEvents::HANG_UP;
    match ready.bits() & told.bits() {
        0 => Err(Errno::EAGAIN),
        events => Ok(events),
    }
}

fn new_number(world: &mut World) -> u32 {
    let number = world.next_descriptor;
    world.next_descriptor += 1;
    number
}

fn of_socket(socket: &Socket) -> Result<u32, Errno> {
    of_shared(socket.shared())
}

fn of_shared(descriptor: &Descriptor) -> Result<u32, Errno> {
    match descriptor {
        Descriptor::Simulated(descriptor) => Ok(descriptor.number),
        _ => Err(Errno::EBADF),
    }
}

/// The socket that an operation may have to wait for.
fn socket_of(operation: &Operation) -> Option<u32> {
    of_shared(operation.readiness()?.0).ok()
}

/// How many bytes are moved at the most.
fn limit(length: usize, is_short: bool, random: &mut Random) -> usize {
    if !is_short || length < 2 {
        return length;
    }
    1 + usize::try_from(random.below(length as u64 - 1)).unwrap_or(0)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
