//! What was told of the name that the lanes of a shard are at: what a source fails with, it fails with in
//! each of them, and is told of once.

use std::cell::RefCell;
use std::path::PathBuf;

use crate::error::{Errno, Error, ErrorKind};

/// Failures that were told of, each with the lane that it was first in.
#[derive(Debug, Default)]
pub(super) struct Told(RefCell<Vec<(usize, Failure)>>);

/// What a failure says. Of a target, it names that target: no other lane has the same.
#[derive(Debug, Eq, PartialEq)]
struct Failure {
    kind: ErrorKind,
    errno: Option<Errno>,
    path: Option<PathBuf>,
    message: String,
}

impl Told {
    /// Whether a lane's failure was not told of by another.
    pub(super) fn is_news(&self, lane: usize, error: &Error) -> bool {
        let failure = Failure {
            kind: error.kind(),
            errno: error.errno(),
            path: error.path().map(PathBuf::from),
            message: error.to_string(),
        };
        let mut told = self.0.borrow_mut();
        let is_news = !told.iter().any(|(other, known)| *other != lane && *known == failure);
        if is_news {
            told.push((lane, failure));
        }
        is_news
    }

    /// The lanes turn to another name.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_of_another_lane_is_no_news() {
        let on = |path: &str, errno| Error::from_errno("open", errno).on(path);
        let told = Told::default();
        let cases = [
            ("the first", 0, on("source", Errno::EACCES), true),
            ("the same of another lane", 1, on("source", Errno::EACCES), false),
            ("of a third", 2, on("source", Errno::EACCES), false),
            ("the same lane once more", 0, on("source", Errno::EACCES), true),
            ("for another reason", 1, on("source", Errno::EIO), true),
            ("of a target", 1, on("target", Errno::EACCES), true),
            ("at a byte", 1, on("source", Errno::EACCES).at(7), true),
        ];
        for (name, lane, error, want) in cases {
            assert_eq!(told.is_news(lane, &error), want, "{name}");
        }
        told.forget();
        assert!(told.is_news(1, &on("source", Errno::EACCES)), "another name");
    }
}
