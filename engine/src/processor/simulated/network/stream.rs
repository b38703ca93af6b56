//! One direction of a connection: bytes on their way, and bytes that wait to be received.

use std::collections::VecDeque;

/// Bytes in the order in which they were sent, each with the moment when it arrives. What was sent
/// later never arrives earlier.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    segments: VecDeque<Segment>,
    length: usize,
    capacity: usize,
    /// When the news arrive that nothing more is sent.
    end: Option<u64>,
    latest: u64,
}

#[derive(Clone, Debug)]
struct Segment {
    arrives: u64,
    bytes: VecDeque<u8>,
}

impl Stream {
    /// A stream on which up to `capacity` bytes wait or are on their way.
    pub(super) fn new(capacity: usize) -> Self {
        Self { segments: VecDeque::new(), length: 0, capacity, end: None, latest: 0 }
    }

    /// How many bytes can be sent now.
    pub(super) fn room(&self) -> usize {
        self.capacity - self.length
    }

    /// Whether anything waits or is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// When what is sent now arrives at the earliest.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Sends bytes, for which there must be room.
    pub(super) fn push(&mut self, bytes: &[u8], arrives: u64) {
        assert!(bytes.len() <= self.room(), "more was sent than there is room for");
        self.latest = self.latest.max(arrives);
        self.length += bytes.len();
        self.segments
            .push_back(Segment { arrives: self.latest, bytes: bytes.iter().copied().collect() });
    }

    /// Sends the news that nothing more will be sent.
    pub(super) fn push_end(&mut self, arrives: u64) {
        self.latest = self.latest.max(arrives);
        self.end.get_or_insert(self.latest);
    }

    /// Loses what has not arrived by `now`.
    pub(super) fn cut(&mut self, now: u64) {
        self.segments.retain(|segment| segment.arrives <= now);
        self.length = self.segments.iter().map(|segment| segment.bytes.len()).sum();
        self.end = self.end.filter(|end| *end <= now);
    }

    /// Takes up to `limit` bytes that have arrived; or only looks at them.
    pub(super) fn take(&mut self, now: u64, limit: usize, is_peek: bool) -> Vec<u8> {
        let mut taken = Vec::new();
        for segment in self.segments.iter_mut().take_while(|segment| segment.arrives <= now) {
            let count = segment.bytes.len().min(limit - taken.len());
            match is_peek {
                true => taken.extend(segment.bytes.iter().take(count)),
                false => taken.extend(segment.bytes.drain(..count)),
            }
        }
        if !is_peek {
            self.length -= taken.len();
            self.segments.retain(|segment| !segment.bytes.is_empty());
        }
        taken
    }

    /// Whether something has arrived.
    pub(super) fn has_arrived(&self, now: u64) -> bool {
        self.segments.front().is_some_and(|segment| segment.arrives <= now)
    }

    /// Whether the news have arrived that nothing more is sent, and everything was received.
    pub(super) fn has_ended(&self, now: u64) -> bool {
        self.is_empty() && self.end.is_some_and(|end| end <= now)
    }

    /// When something arrives next that is on its way.
    pub(super) fn next_arrival(&self, now: u64) -> Option<u64> {
        let arrivals = self.segments.iter().map(|segment| segment.arrives).chain(self.end);
        arrivals.into_iter().find(|arrives| *arrives > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_and_not_too_early() {
        let mut stream = Stream::new(10);
        stream.push(b"late", 100);
        stream.push(b"later", 50);
        assert_eq!(stream.room(), 1);
        assert_eq!(stream.take(99, 10, false), b"");
        assert_eq!(stream.next_arrival(99), Some(100));
        assert_eq!(stream.take(100, 6, true), b"latela", "what is looked at stays");
        assert_eq!(stream.take(100, 6, false), b"latela");
        assert_eq!(stream.take(100, 6, false), b"ter");
        assert!(stream.is_empty() && !stream.has_ended(1000));
        stream.push_end(10);
        assert!(!stream.has_ended(99) && stream.has_ended(100), "the end is behind all bytes");
    }
}
