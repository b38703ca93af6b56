//! Which parts of a file are not in the page cache: found by halving what is there in part, since the
//! kernel counts pages and does not name them (`cachestat(2)`).
//!
//! One question goes out at a time. A file of which nothing or all is there takes one; one that is there
//! in so many pieces that the questions run out is not known. It decides, and does no I/O.

use super::data::PAGE_BYTES;
use super::segments::Segment;
use crate::limits::CACHE_QUESTIONS_MAX;

/// The search for what is not there.
#[derive(Debug)]
pub(super) struct Absence {
    /// What was not asked about; the last is next.
    open: Vec<Segment>,
    absent: Vec<Segment>,
    questions: u32,
}

impl Absence {
    pub(super) fn of(size_bytes: u64) -> Self {
        let whole = Segment { start: 0, end: size_bytes.next_multiple_of(PAGE_BYTES) };
        let open = if size_bytes > 0 { vec![whole] } else { Vec::new() };
        Self { open, absent: Vec::new(), questions: 0 }
    }

    /// Of which part the resident pages are to be counted next; none if all is known, or too much
    /// was asked.
    pub(super) fn question(&self) -> Option<Segment> {
        self.open.last().copied().filter(|_| self.questions < CACHE_QUESTIONS_MAX)
    }

    /// So many pages of it are there.
    pub(super) fn on_answer(&mut self, resident: u64) {
        let Some(asked) = self.open.pop() else { panic!("nothing was asked") };
        self.questions += 1;
        let pages = asked.length() / PAGE_BYTES;
        if resident == 0 {
            self.absent.push(asked);
        } else if resident < pages {
            let middle = asked.start + pages / 2 * PAGE_BYTES;
            self.open.push(Segment { start: middle, end: asked.end });
            self.open.push(Segment { start: asked.start, end: middle });
        }
    }

    /// What is not there, in whole pages and in order; none if that is not known.
    pub(super) fn finish(self) -> Option<Vec<Segment>> {
        self.open.is_empty().then_some(self.absent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// What is found of a file whose pages are there or not.
    fn found(pages: &[bool]) -> (Option<Vec<Segment>>, u32) {
        let mut absence = Absence::of(pages.len() as u64 * PAGE_BYTES - 1);
        let mut questions = 0;
        while let Some(asked) = absence.question() {
            let page = |at: u64| usize::try_from(at / PAGE_BYTES).unwrap();
            let part = &pages[page(asked.start)..page(asked.end)];
            absence.on_answer(part.iter().filter(|is_there| **is_there).count() as u64);
            questions += 1;
        }
        (absence.finish(), questions)
    }

    fn is_exact(pages: &[bool], absent: &[Segment]) -> bool {
        let is_absent = |page: u64| {
            let at = page * PAGE_BYTES;
            absent.iter().any(|segment| segment.start <= at && at < segment.end)
        };
        (0..).zip(pages).all(|(page, is_there)| is_absent(page) != *is_there)
    }

    #[test]
    fn all_or_nothing_takes_one_question() {
        assert_eq!(found(&[true; 1000]), (Some(Vec::new()), 1));
        let whole = Segment { start: 0, end: 1000 * PAGE_BYTES };
        assert_eq!(found(&[false; 1000]), (Some(vec![whole]), 1));
        assert_eq!(Absence::of(0).finish(), Some(Vec::new()));
    }

    #[test]
    fn what_is_found_is_exact() {
        let mut random = Random::new(1);
        for _ in 0..500 {
            let count = usize::try_from(1 + random.below(300)).unwrap();
            let (mut pages, mut is_there) = (Vec::new(), random.once_in(2));
            for _ in 0..count {
                is_there ^= random.once_in(40);
                pages.push(is_there);
            }
            if let (Some(absent), _) = found(&pages) {
                assert!(is_exact(&pages, &absent), "{pages:?}: {absent:?}");
            }
        }
        let half: Vec<bool> = (0..5000).map(|page| page < 2500).collect();
        let (absent, questions) = found(&half);
        assert!(is_exact(&half, &absent.unwrap()) && questions < 40, "{questions}");
    }

    #[test]
    fn too_many_pieces_are_not_known() {
        let pages: Vec<bool> = (0..10_000).map(|page| page % 2 == 0).collect();
        assert_eq!(found(&pages), (None, CACHE_QUESTIONS_MAX));
    }
}
