//! One end of a connection.

use super::stream::Stream;
use crate::error::Errno;
use crate::operation::{Address, PollEvents};

/// What an end knows. It sends into the other end's `incoming`.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) incoming: Stream,
    /// The other end's descriptor, which may be closed.
    pub(super) peer: u32,
    pub(super) peer_address: Address,
    pub(super) is_receiving_shut: bool,
    pub(super) is_sending_shut: bool,
    /// What nobody was told of yet.
    pub(super) error: Option<Errno>,
    /// When the news arrive that it is broken off.
    breaks: Option<u64>,
    is_broken: bool,
}

impl Connection {
    pub(super) fn new(peer: u32, peer_address: Address, window: usize) -> Self {
        Self {
            incoming: Stream::new(window),
            peer,
            peer_address,
            is_receiving_shut: false,
            is_sending_shut: false,
            error: None,
            breaks: None,
            is_broken: false,
        }
    }

    /// Breaks it off, at a moment; if that is twice, at the earlier one.
    pub(super) fn break_off(&mut self, moment: u64) {
        self.breaks = Some(self.breaks.map_or(moment, |breaks| breaks.min(moment)));
    }

    /// Takes what has arrived, the end of the stream, or an error; each error is told once, as the
    /// kernel tells it (`tcp_recvmsg`).
    pub(super) fn receive(
        &mut self,
        now: u64,
        limit: usize,
        is_peek: bool,
    ) -> Result<Vec<u8>, Errno> {
        self.settle(now);
        let bytes = self.incoming.take(now, limit, is_peek);
        if !bytes.is_empty() || self.incoming.has_ended(now) || self.is_receiving_shut {
            return Ok(bytes);
        }
        match self.error.take() {
            Some(errno) => Err(errno),
            None if self.is_broken => Ok(bytes),
            None => Err(Errno::EAGAIN),
        }
    }

    /// Whether anything can be sent, as far as this end knows (`tcp_sendmsg`).
    pub(super) fn may_send(&mut self, now: u64) -> Result<(), Errno> {
        self.settle(now);
        match self.is_broken || self.is_sending_shut {
            true => Err(self.error.take().unwrap_or(Errno::EPIPE)),
            false => Ok(()),
        }
    }

    /// Takes bytes that the other end sends, as many as there is room for; returns how many.
    pub(super) fn arrive(&mut self, bytes: &[u8], arrives: u64) -> usize {
        let count = bytes.len().min(self.incoming.room());
        if count > 0 {
            self.incoming.push(&bytes[..count], arrives);
        }
        count
    }

    pub(super) fn events(&mut self, now: u64) -> PollEvents {
        self.settle(now);
        let mut events = PollEvents::from_bits(0);
        let is_over = self.incoming.has_ended(now) || self.is_receiving_shut || self.is_broken;
        if is_over || self.incoming.has_arrived(now) {
            events = events | PollEvents::READABLE;
        }
        if self.is_broken || (is_over && self.is_sending_shut) {
            events = events | PollEvents::HANG_UP | PollEvents::WRITABLE;
        }
        if self.error.is_some() {
            events = events | PollEvents::ERROR;
        }
        events
    }

    /// When something comes that is on its way.
    pub(super) fn next_change(&self, now: u64) -> Option<u64> {
        let breaks = self.breaks.filter(|breaks| *breaks > now);
        [self.incoming.next_arrival(now), breaks].into_iter().flatten().min()
    }

    /// Learns that it was broken off, once the news have arrived. What has come before them stays to be
    /// received; who had seen the end of the stream is told otherwise (`tcp_reset`).
    fn settle(&mut self, now: u64) {
        let Some(breaks) = self.breaks.filter(|breaks| *breaks <= now && !self.is_broken) else {
            return;
        };
        self.is_broken = true;
        let has_ended = self.incoming.has_ended(breaks);
        self.incoming.cut(breaks);
        self.error = Some(if has_ended { Errno::EPIPE } else { Errno::ECONNRESET });
    }
}
