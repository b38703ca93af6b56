//! Where those meet who copy one file to different places, so that one of them reads it for all.
//!
//! Each has a seat. It brings what it has made ready, or leaves: because its target is up to date, can
//! be cloned, or can't be made. When nobody is missing any more, one of those who came leads: it gets
//! what all of them brought, and serves each.
//!
//! ```text
//! Coming --brings--> Here --the leader takes it--> Led --is served--> Served
//!    \--leaves--> Gone
//! ```

use std::cell::RefCell;
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A meeting of those who have a seat.
struct Muster<B, S> {
    stands: RefCell<Vec<Stand<B, S>>>,
    waiting: RefCell<Vec<Waker>>,
}

/// How far somebody has come.
enum Stand<B, S> {
    Coming,
    Here(B),
    Led,
    Served(S),
    Gone,
}

/// A place at a muster. Dropping it says that nobody comes, or that who came has left.
pub(super) struct Seat<B, S> {
    muster: Rc<Muster<B, S>>,
    number: usize,
}

/// What one is called to once nobody is missing.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Call<B, S> {
    /// To lead, with what was brought to each seat, one's own included.
    Lead(Vec<(usize, B)>),
    /// To nothing more: another has led.
    Served(S),
}

/// So many seats at one muster.
pub(super) fn seats<B, S>(count: usize) -> impl Iterator<Item = Seat<B, S>> {
    let stands = RefCell::new((0..count).map(|_| Stand::Coming).collect());
    let muster = Rc::new(Muster { stands, waiting: RefCell::default() });
    (0..count).map(move |number| Seat { muster: Rc::clone(&muster), number })
}

impl<B, S> Seat<B, S> {
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Brings something, and waits until nobody is missing.
    pub(super) async fn muster(&self, brought: B) -> Call<B, S> {
        self.muster.put(self.number, Stand::Here(brought));
        poll_fn(|context| self.muster.poll_call(self.number, context)).await
    }

    /// Gives somebody who is led what was made of what it brought.
    pub(super) fn serve(&self, number: usize, share: S) {
        self.muster.put(number, Stand::Served(share));
    }
}

impl<B, S> Drop for Seat<B, S> {
    fn drop(&mut self) {
        self.muster.put(self.number, Stand::Gone);
    }
}

impl<B, S> Muster<B, S> {
    fn put(&self, number: usize, stand: Stand<B, S>) {
        let before = mem::replace(&mut self.stands.borrow_mut()[number], stand);
        drop(before);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    fn poll_call(&self, number: usize, context: &Context<'_>) -> Poll<Call<B, S>> {
        let mut stands = self.stands.borrow_mut();
        let stand = mem::replace(&mut stands[number], Stand::Led);
        if let Stand::Served(share) = stand {
            return Poll::Ready(Call::Served(share));
        }
        stands[number] = stand;
        let is_here = matches!(stands[number], Stand::Here(_));
        if is_here && !stands.iter().any(|stand| matches!(stand, Stand::Coming)) {
            let mut brought = Vec::with_capacity(stands.len());
            for (number, stand) in stands.iter_mut().enumerate() {
                match mem::replace(stand, Stand::Led) {
                    Stand::Here(one) => brought.push((number, one)),
                    other => *stand = other,
                }
            }
            return Poll::Ready(Call::Lead(brought));
        }
        self.waiting.borrow_mut().push(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use super::*;
    use crate::random::Random;

    fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn one_leads_when_nobody_is_missing_and_serves_the_others() {
        let [first, second, third]: [Seat<u8, char>; 3] =
            seats(3).collect::<Vec<_>>().try_into().ok().unwrap();
        let (mut one, mut two) = (pin!(first.muster(1)), pin!(second.muster(2)));
        assert!(poll(one.as_mut()).is_pending());
        assert!(poll(two.as_mut()).is_pending());
        drop(third);
        assert_eq!(poll(two.as_mut()), Poll::Ready(Call::Lead(vec![(0, 1), (1, 2)])));
        assert!(poll(one.as_mut()).is_pending(), "it is led");
        second.serve(0, 'a');
        assert_eq!(poll(one.as_mut()), Poll::Ready(Call::Served('a')));
    }

    #[test]
    fn whoever_comes_alone_leads_alone() {
        let [first, second]: [Seat<u8, ()>; 2] =
            seats(2).collect::<Vec<_>>().try_into().ok().unwrap();
        drop(second);
        assert_eq!(poll(pin!(first.muster(7))), Poll::Ready(Call::Lead(vec![(0, 7)])));
    }

    /// Who has come, by its number, with its seat and what it waits for.
    type Waiting =
        (usize, Rc<Seat<usize, usize>>, Pin<Box<dyn Future<Output = Call<usize, usize>>>>);

    /// Every order of coming, leaving and being polled ends, with one leader for all who came.
    #[test]
    fn all_who_come_are_served_in_every_order() {
        for seed in 0..2_000 {
            let mut random = Random::new(seed);
            let mut choose = |count: usize| usize::try_from(random.below(count as u64)).unwrap();
            let count = 1 + choose(4);
            let seats: Vec<Seat<usize, usize>> = seats(count).collect();
            let mut missing: Vec<_> = seats.into_iter().map(Some).collect();
            let mut waiting: Vec<Waiting> = Vec::new();
            let (mut came, mut served) = (0, 0);
            while served < came || missing.iter().any(Option::is_some) {
                let at = choose(missing.len() + waiting.len());
                if let Some(place) = missing.get_mut(at) {
                    let Some(seat) = place.take() else { continue };
                    if choose(3) > 0 {
                        came += 1;
                        let seat = Rc::new(seat);
                        let asked = Rc::clone(&seat);
                        let call = Box::pin(async move { asked.muster(10 + at).await });
                        waiting.push((at, seat, call));
                    }
                    continue;
                }
                let (number, seat, call) = &mut waiting[at - count];
                match poll(call.as_mut()) {
                    Poll::Pending => {}
                    Poll::Ready(Call::Served(share)) => {
                        assert_eq!(share, 110 + *number, "seed {seed}");
                        served += 1;
                        drop(waiting.swap_remove(at - count));
                    }
                    Poll::Ready(Call::Lead(brought)) => {
                        assert!(missing.iter().all(Option::is_none), "seed {seed}: too early");
                        assert_eq!(brought.len(), came, "seed {seed}");
                        for (other, one) in brought {
                            if other != *number {
                                seat.serve(other, 100 + one);
                            }
                        }
                        served += 1;
                        drop(waiting.swap_remove(at - count));
                    }
                }
            }
        }
    }
}
