//! Several digests of one file whose pieces are read out of order, by many hands: as a state machine
//! that does no I/O.
//!
//! ```text
//! piece 3 is read ─► BLAKE3: hashed at once, by whoever read it; 32 bytes wait for pieces 0 to 2
//!                └─► SHA-256: waits for pieces 0 to 2; then hashed by whoever comes, one hand at a time
//! ```
//!
//! A hand that comes while another hashes leaves its piece to that one, and goes on reading. So one
//! hand becomes the hasher of a slow digest by itself, another one that of the second digest, and
//! nobody waits but for want of buffers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::digest::{Algorithm, Digest, Hasher, Order, Subtree, Tree};

/// The digests of one file, while its pieces come. `B` holds the bytes of a piece.
#[derive(Debug)]
pub(super) struct Folding<B>(Vec<Column<B>>);

/// One digest.
#[derive(Debug)]
enum Column<B> {
    /// Made of the bytes in order.
    Serial(Mutex<Serial<B>>),
    /// Made of what each piece comes to by itself.
    Tree(Mutex<(Order<Subtree>, Tree)>),
}

#[derive(Debug)]
struct Serial<B> {
    order: Order<Arc<B>>,
    /// None while a hand hashes with it.
    hasher: Option<Box<Hasher>>,
}

impl<B: AsRef<[u8]>> Folding<B> {
    /// Nothing of a file that comes in so many pieces.
    pub(super) fn new(algorithms: &[Algorithm], pieces: u64) -> Self {
        let column = |algorithm: &Algorithm| match algorithm {
            // One piece alone is no subtree.
            Algorithm::Blake3 if pieces > 1 => Column::Tree(Mutex::default()),
            _ => {
                let hasher = Some(Box::new(algorithm.hasher()));
                Column::Serial(Mutex::new(Serial { order: Order::new(), hasher }))
            }
        };
        Self(algorithms.iter().map(column).collect())
    }

    /// A piece will come that begins at this byte, behind all that began before.
    pub(super) fn begin(&self, position: u64) {
        for column in &self.0 {
            match column {
                Column::Serial(serial) => lock(serial).order.begin(position),
                Column::Tree(tree) => lock(tree).0.begin(position),
            }
        }
    }

    /// Takes a piece, and hashes what can be hashed by now.
    pub(super) fn deliver(&self, position: u64, bytes: B) {
        let bytes = Arc::new(bytes);
        for column in &self.0 {
            match column {
                Column::Serial(serial) => deliver_serial(serial, position, Arc::clone(&bytes)),
                Column::Tree(tree) => {
                    let subtree = Subtree::of(position, (*bytes).as_ref());
                    let mut tree = lock(tree);
                    let (order, tree) = &mut *tree;
                    order.complete(position, subtree);
                    while let Some((_, subtree)) = order.take_next() {
                        tree.push(subtree);
                    }
                }
            }
        }
    }

    /// The digests, in the order of the algorithms.
    ///
    /// # Panics
    ///
    /// If a piece that was begun is missing.
    pub(super) fn finish(self) -> Vec<Digest> {
        let digest = |column| match column {
            Column::Serial(serial) => {
                let serial = serial.into_inner().unwrap_or_else(PoisonError::into_inner);
                assert_eq!(serial.order.waiting(), 0, "all pieces have come");
                serial.hasher.expect("nobody hashes any more").finish()
            }
            Column::Tree(tree) => {
                let (order, tree) = tree.into_inner().unwrap_or_else(PoisonError::into_inner);
                assert_eq!(order.waiting(), 0, "all pieces have come");
                tree.finish()
            }
        };
        self.0.into_iter().map(digest).collect()
    }
}

fn deliver_serial<B: AsRef<[u8]>>(serial: &Mutex<Serial<B>>, position: u64, bytes: Arc<B>) {
    let mut state = lock(serial);
    state.order.complete(position, bytes);
    // Who has it will find what was just left.
    let Some(mut hasher) = state.hasher.take() else { return };
    while let Some((_, bytes)) = state.order.take_next() {
        drop(state);
        hasher.update((*bytes).as_ref());
        drop(bytes);
        state = lock(serial);
    }
    state.hasher = Some(hasher);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::random::Random;

    fn pieces(bytes: &[u8], piece_bytes: usize) -> Vec<(u64, Vec<u8>)> {
        let pieces = bytes.chunks(piece_bytes).enumerate();
        pieces.map(|(number, piece)| ((number * piece_bytes) as u64, piece.to_vec())).collect()
    }

    #[test]
    fn pieces_in_any_order_come_to_the_digests_of_the_whole() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let piece_bytes = 1024 << random.below(3);
            let length = usize::try_from(random.below(40_000)).unwrap();
            let bytes: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
            let mut waiting = pieces(&bytes, piece_bytes);
            let folding = Folding::new(&Algorithm::ALL, waiting.len() as u64);
            waiting.iter().for_each(|(position, _)| folding.begin(*position));
            while !waiting.is_empty() {
                let next = usize::try_from(random.below(waiting.len() as u64)).unwrap();
                let (position, piece) = waiting.swap_remove(next);
                folding.deliver(position, piece);
            }
            let want = Algorithm::ALL.map(|algorithm| algorithm.digest(&bytes));
            assert_eq!(folding.finish(), want, "seed {seed}");
        }
    }

    #[test]
    fn many_hands_at_a_time_come_to_the_same() {
        let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
        let waiting = pieces(&bytes, 4096);
        let folding = Folding::new(&Algorithm::ALL, waiting.len() as u64);
        waiting.iter().for_each(|(position, _)| folding.begin(*position));
        let waiting = Mutex::new(waiting);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some((position, piece)) = { lock(&waiting).pop() } {
                        folding.deliver(position, piece);
                    }
                });
            }
        });
        let want = Algorithm::ALL.map(|algorithm| algorithm.digest(&bytes));
        assert_eq!(folding.finish(), want);
    }
}
