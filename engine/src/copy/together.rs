//! Copying one file to several targets in one read.
//!
//! Each target is a lane, and goes its own way: it looks at what stands there, makes its file, and
//! publishes it. Only the bytes are moved together. For that the lanes of a file meet when each of them
//! has a file that waits for bytes; one of them reads the source and writes it to all. A lane that
//! needs no bytes, or fails, does not come; one whose file is to be moved in another manner, or whose
//! source is another by now, moves it alone.

use std::rc::Rc;

use super::FellBack;
use super::data::{Delivered, Manner, Moved};
use super::muster::{Call, Seat, seats};
use super::once::Once;
use super::publish::NewFile;
use super::receiver::Receiver;
use super::remove_source::is_unchanged;
use super::worker::{Labels, Worker};
use crate::error::Error;
use crate::operation::{File, FileKind, FileStatus, Open};

/// A lane's part in the copy of one file.
pub(super) struct Part {
    seat: Seat<Bid, Share>,
    /// A source that can be read only once is opened for all.
    opened: Rc<Once<Result<File, Error>>>,
}

/// A file that waits for bytes.
struct Bid {
    new: NewFile,
    status: FileStatus,
    manner: Manner,
}

/// A file that got its bytes; none if it is to be moved alone.
struct Share {
    new: NewFile,
    delivered: Option<Result<(Delivered, u64), Error>>,
}

/// The parts of so many lanes.
pub(super) fn parts(count: usize) -> impl Iterator<Item = Part> {
    let opened = Rc::new(Once::default());
    seats(count).map(move |seat| Part { seat, opened: Rc::clone(&opened) })
}

impl Worker<'_> {
    /// Opens a source. What gives its bytes only once is opened for all lanes.
    pub(super) async fn open_source(&self, open: Open, kind: FileKind) -> Result<File, Error> {
        let is_stream = !matches!(kind, FileKind::Regular | FileKind::BlockDevice);
        let opened = self.part.borrow().as_ref().map(|part| Rc::clone(&part.opened));
        match opened.filter(|_| is_stream) {
            Some(opened) => opened.get_or_do(async || self.io.open(open).await).await,
            None => self.io.open(open).await,
        }
    }

    /// Moves bytes to this lane's file and to those of the others that wait for the same.
    pub(super) async fn move_together(
        &self,
        Part { seat, .. }: Part,
        (source, status): (&File, &FileStatus),
        manner: Manner,
        new: NewFile,
        fell_back: Vec<FellBack>,
        labels: &dyn Labels,
    ) -> (NewFile, Result<Moved, Error>) {
        let bid = Bid { new, status: *status, manner };
        let Share { new, delivered } = match seat.muster(bid).await {
            Call::Served(share) => share,
            Call::Lead(bids) => self.lead(&seat, bids, source, labels).await,
        };
        drop(seat);
        let Some(delivered) = delivered else {
            return self.move_alone((source, status), manner, new, fell_back, labels).await;
        };
        let moved = match delivered {
            Ok((delivered, hole_bytes)) => {
                Ok(self.moved(delivered, manner, status, &new, fell_back, hole_bytes))
            }
            Err(error) => Err(error.on(labels.target())),
        };
        (new, moved)
    }

    /// Reads the source, writes it to all who wait for the same, and serves them. Returns one's own
    /// share.
    async fn lead(
        &self,
        seat: &Seat<Bid, Share>,
        bids: Vec<(usize, Bid)>,
        source: &File,
        labels: &dyn Labels,
    ) -> Share {
        let own = bids.iter().find(|(number, _)| *number == seat.number());
        let (_, Bid { status, manner, .. }) = own.expect("who leads has come");
        let (status, manner) = (*status, *manner);
        let (alike, others): (Vec<_>, Vec<_>) = bids
            .into_iter()
            .partition(|(_, bid)| is_same_work((&status, manner), (&bid.status, bid.manner)));
        for (number, Bid { new, .. }) in others {
            seat.serve(number, Share { new, delivered: None });
        }
        let mut receivers: Vec<_> = alike.iter().map(|(_, bid)| Receiver::new(&bid.new)).collect();
        let delivered = self.deliver(source, &status, manner, &mut receivers, labels).await;
        let ended: Vec<_> = receivers.into_iter().map(Receiver::into_hole_bytes).collect();
        let mut own = None;
        for ((number, Bid { new, .. }), ended) in alike.into_iter().zip(ended) {
            let delivered = match (delivered.clone(), ended) {
                (Ok(delivered), Ok(hole_bytes)) => Ok((delivered, hole_bytes)),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            let share = Share { new, delivered: Some(delivered) };
            if number == seat.number() {
                own = Some(share);
            } else {
                seat.serve(number, share);
            }
        }
        own.expect("what one waits for is what one waits for")
    }
}

/// Whether two files get the same bytes in the same manner, from sources that are one, unchanged.
fn is_same_work(one: (&FileStatus, Manner), other: (&FileStatus, Manner)) -> bool {
    let is_same_source = match one.1 {
        // It may be readable only once.
        Manner::Stream => one.0.is_same_file(other.0),
        Manner::Small(_) | Manner::Large(_) => is_unchanged(one.0, other.0, 0),
    };
    is_same_source && one.1 == other.1
}

#[cfg(test)]
mod tests {
    use super::super::holes::HolePlan;
    use super::*;
    use crate::units::WallTime;

    #[test]
    fn only_what_is_the_same_is_moved_together() {
        let dense = HolePlan::DENSE;
        let sparse = HolePlan { finds_zeros: true, ..dense };
        let (stream, small, large) = (Manner::Stream, Manner::Small(dense), Manner::Large(dense));
        let file = FileStatus { inode: 7, size_bytes: 10, ..FileStatus::default() };
        let other = FileStatus { inode: 8, ..file };
        let longer = FileStatus { size_bytes: 11, ..file };
        let touched = FileStatus { changed: WallTime { seconds: 1, nanoseconds: 0 }, ..file };
        let cases = [
            ("small", small, file, small, true),
            ("large", large, file, large, true),
            ("one is a stream", small, file, large, false),
            ("one gets holes", small, file, Manner::Small(sparse), false),
            ("the name was exchanged", small, other, small, false),
            ("it grew", large, longer, large, false),
            ("it was written, and its time set back", small, touched, small, false),
            ("a pipe, to which was written", stream, longer, stream, true),
            ("another pipe", stream, other, stream, false),
        ];
        for (name, manner, status, other_manner, want) in cases {
            let got = is_same_work((&file, manner), (&status, other_manner));
            assert_eq!(got, want, "{name}");
        }
    }
}
