//! Where the data of a file with holes lies: a state machine that asks, and does no I/O.
//!
//! ```text
//! look for data --found--> look for the hole behind it --found--> a segment; look for data
//!      \--nothing--> the end         \--no sense--> the rest of the file is one segment; the end
//! ```
//!
//! Answers are hints. One that makes no progress, or that leads back, ends the asking: then all the
//! rest counts as data, and is read. So there are never more steps than pieces of the file.

/// Bytes of a file from `start` up to `end`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// What to look for next, from which byte on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    Data(u64),
    Hole(u64),
}

/// What the file system says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    At(u64),
    /// There is none before the end of the file.
    Nothing,
    /// It does not tell.
    Unsupported,
}

/// The data of one file, found from its start to its end.
#[derive(Debug)]
pub(super) struct Segments {
    size_bytes: u64,
    /// Segments begin and end at multiples of this, but for the end of the file.
    alignment: u64,
    state: State,
    has_found: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Everything before this byte is known.
    Data(u64),
    /// Data begins here.
    Hole(u64),
    End,
}

impl Segment {
    pub(super) fn length(self) -> u64 {
        self.end - self.start
    }
}

impl Segments {
    /// The segments of a file of this size.
    pub(super) fn new(size_bytes: u64, alignment: u64) -> Self {
        assert!(alignment.is_power_of_two());
        let state = if size_bytes == 0 { State::End } else { State::Data(0) };
        Self { size_bytes, alignment, state, has_found: false }
    }

    /// What to ask for next; nothing more at the end.
    pub(super) fn look(&self) -> Option<Look> {
        match self.state {
            State::Data(at) => Some(Look::Data(at)),
            State::Hole(at) => Some(Look::Hole(at)),
            State::End => None,
        }
    }

    /// Takes the answer to [`Segments::look`]; a segment, if one is known now.
    pub(super) fn on_answer(&mut self, answer: Answer) -> Option<Segment> {
        match (self.state, answer) {
            (State::Data(at), Answer::At(data)) if data >= at && data < self.size_bytes => {
                self.state = State::Hole(at.max(data - data % self.alignment));
                None
            }
            (State::Data(_), Answer::Nothing) => self.end(),
            (State::Data(at), Answer::At(data)) if data >= at => self.end(),
            (State::Data(at), _) => self.found(at, self.size_bytes),
            (State::Hole(at), Answer::At(hole)) if hole > at => {
                let end = hole.checked_next_multiple_of(self.alignment);
                self.found(at, end.unwrap_or(u64::MAX).min(self.size_bytes))
            }
            (State::Hole(at), _) => self.found(at, self.size_bytes),
            (State::End, _) => None,
        }
    }

    /// Whether the end was reached and everything is said to be a hole.
    pub(super) fn is_all_hole(&self) -> bool {
        matches!(self.state, State::End) && !self.has_found
    }

    fn end(&mut self) -> Option<Segment> {
        self.state = State::End;
        None
    }

    fn found(&mut self, start: u64, end: u64) -> Option<Segment> {
        self.state = if end == self.size_bytes { State::End } else { State::Data(end) };
        self.has_found = true;
        Some(Segment { start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// All segments that these answers lead to, and whether all of them were asked for.
    fn segments(size: u64, alignment: u64, answers: &[Answer]) -> (Vec<(u64, u64)>, bool) {
        let mut segments = Segments::new(size, alignment);
        let mut answers = answers.iter();
        let mut found = Vec::new();
        while segments.look().is_some() {
            let answer = answers.next().expect("it asks for no more");
            found.extend(segments.on_answer(*answer).map(|it| (it.start, it.end)));
        }
        (found, answers.next().is_none())
    }

    #[test]
    fn segments_follow_from_the_answers_and_lies_end_in_reading() {
        use Answer::{At, Nothing, Unsupported};

        type Case = (&'static str, u64, &'static [Answer], &'static [(u64, u64)]);
        let cases: [Case; 14] = [
            ("empty", 0, &[], &[]),
            ("all data", 100, &[At(0), At(100)], &[(0, 100)]),
            ("a hole first", 100, &[At(50), At(100)], &[(50, 100)]),
            ("a hole last", 100, &[At(0), At(30), Nothing], &[(0, 30)]),
            ("two", 100, &[At(10), At(20), At(40), At(60), Nothing], &[(10, 20), (40, 60)]),
            ("all hole", 100, &[Nothing], &[]),
            ("data behind the end", 100, &[At(0), At(30), At(100)], &[(0, 30)]),
            ("a hole behind the end", 100, &[At(0), At(200)], &[(0, 100)]),
            ("no hole is told", 100, &[At(7), Nothing], &[(7, 100)]),
            ("nothing is told", 100, &[Unsupported], &[(0, 100)]),
            ("no more is told", 100, &[At(0), At(30), Unsupported], &[(0, 30), (30, 100)]),
            ("a hole that stands still", 100, &[At(10), At(10)], &[(10, 100)]),
            ("a hole that leads back", 100, &[At(10), At(3)], &[(10, 100)]),
            ("data that leads back", 100, &[At(0), At(30), At(29)], &[(0, 30), (30, 100)]),
        ];
        for (name, size, answers, want) in cases {
            assert_eq!(segments(size, 1, answers), (want.to_vec(), true), "{name}");
        }
    }

    #[test]
    fn segments_are_rounded_out_and_never_overlap() {
        use Answer::{At, Nothing};

        let answers = [At(700), At(1000), At(1030), At(1500), Nothing];
        assert_eq!(segments(4000, 512, &answers).0, [(512, 1024), (1024, 1536)]);
        assert_eq!(segments(1100, 512, &[At(1090), At(1095)]).0, [(1024, 1100)]);
    }

    #[test]
    fn any_answers_end_and_what_is_found_is_in_order() {
        for seed in 0..2_000 {
            let mut random = Random::new(seed);
            let size = random.below(1 << 20);
            let mut segments = Segments::new(size, 1 << random.below(13));
            let (mut reached, mut steps) = (0, 0);
            while segments.look().is_some() {
                steps += 1;
                let answer = match random.below(8) {
                    0 if steps > 20 => Answer::Nothing,
                    1 if steps > 20 => Answer::Unsupported,
                    2 => Answer::At(random.next()),
                    _ => Answer::At(reached + random.below(size / 16 + 2)),
                };
                if let Some(found) = segments.on_answer(answer) {
                    assert!(found.start >= reached && found.end > found.start, "seed {seed}");
                    assert!(found.end <= size, "seed {seed}");
                    reached = found.end;
                }
                assert!(steps < 2 * size + 2, "seed {seed}: no progress");
            }
        }
    }
}
