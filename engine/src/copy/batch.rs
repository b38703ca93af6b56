//! Which files are made durable together, and when: a batch is synced at once.
//!
//! One sync a file costs a small file a hundred times its copy. So files wait, written and under
//! their temporary names, until a batch of them is full; then one sync of the file system covers
//! their bytes, they get their names, and one sync a directory covers the names.

use super::{Durability, Options};
use crate::limits::{
    BATCH_AGE_MAX, BATCH_ALONE_MAX, BATCH_BYTES_MAX, BATCH_DESCRIPTORS_MAX, BATCH_FILE_BYTES_MAX,
    BATCH_FILES_MAX,
};
use crate::units::Moment;

/// How much waits in a batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Load {
    files: usize,
    bytes: u64,
    descriptors: usize,
    /// Among them is something that can't be synced by itself: a link.
    has_nameless: bool,
    /// When the first came.
    since: Option<Moment>,
}

/// What is to be added to a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addition {
    pub(super) bytes: u64,
    /// Whether a descriptor of its own syncs it; a link has none.
    pub(super) has_descriptor: bool,
    /// Whether it keeps a directory open that nothing else of the batch does.
    pub(super) is_new_directory: bool,
}

/// How a batch gets onto stable storage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reach {
    /// Nothing is in it.
    Nothing,
    /// File by file: they are few.
    EachFile,
    /// All at once, by one sync of the file system.
    FileSystem,
}

/// Whether a new file waits for others: it is small, and to be durable. One that has several names
/// is needed under its own before the next is made.
pub(super) fn waits(options: &Options, size_bytes: u64, links: u32) -> bool {
    options.durability != Durability::None && size_bytes <= BATCH_FILE_BYTES_MAX && links <= 1
}

impl Load {
    /// Adds a file.
    pub(super) fn add(&mut self, addition: Addition, now: Moment) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(addition.bytes);
        // A directory is open on both sides.
        self.descriptors +=
            usize::from(addition.has_descriptor) + 2 * usize::from(addition.is_new_directory);
        self.has_nameless |= !addition.has_descriptor;
        self.since.get_or_insert(now);
    }

    /// Whether nothing more may be added before it is synced. `descriptors_max` is what the process
    /// can spare.
    pub(super) fn is_full(&self, descriptors_max: usize, now: Moment) -> bool {
        self.files >= BATCH_FILES_MAX
            || self.bytes >= BATCH_BYTES_MAX
            || self.descriptors >= BATCH_DESCRIPTORS_MAX.min(descriptors_max)
            || self.since.is_some_and(|since| now.since(since) >= BATCH_AGE_MAX)
    }

    /// Descriptors that it keeps open.
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// How it gets onto stable storage.
    pub(super) fn reach(&self) -> Reach {
        match self.files {
            0 => Reach::Nothing,
            files if files <= BATCH_ALONE_MAX && !self.has_nameless => Reach::EachFile,
            _ => Reach::FileSystem,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SMALL: Addition = Addition { bytes: 10, has_descriptor: true, is_new_directory: false };

    #[test]
    fn a_batch_is_full_by_files_bytes_descriptors_or_age() {
        let large = Addition { bytes: BATCH_FILE_BYTES_MAX, ..SMALL };
        let alone = Addition { is_new_directory: true, ..SMALL };
        let link = Addition { has_descriptor: false, ..SMALL };
        let large_files = usize::try_from(BATCH_BYTES_MAX / BATCH_FILE_BYTES_MAX).unwrap();
        let young = Duration::ZERO;
        let cases = [
            ("nothing", SMALL, 0, usize::MAX, BATCH_AGE_MAX * 2, false),
            ("one", SMALL, 1, usize::MAX, young, false),
            ("one short", SMALL, BATCH_FILES_MAX - 1, usize::MAX, young, false),
            ("files", SMALL, BATCH_FILES_MAX, usize::MAX, young, true),
            ("links", link, BATCH_FILES_MAX, 1, young, true),
            ("almost the bytes", large, large_files - 1, usize::MAX, young, false),
            ("bytes", large, large_files, usize::MAX, young, true),
            ("directories of one file", alone, BATCH_DESCRIPTORS_MAX / 3, usize::MAX, young, true),
            ("a process of few descriptors", SMALL, 10, 10, young, true),
            ("a process of no descriptors", SMALL, 1, 0, young, true),
            (
                "almost the age",
                SMALL,
                1,
                usize::MAX,
                BATCH_AGE_MAX - Duration::from_nanos(1),
                false,
            ),
            ("age", SMALL, 1, usize::MAX, BATCH_AGE_MAX, true),
        ];
        for (name, addition, files, descriptors_max, age, want) in cases {
            let mut load = Load::default();
            (0..files).for_each(|_| load.add(addition, Moment(7)));
            assert_eq!(load.is_full(descriptors_max, Moment(7) + age), want, "{name}");
        }
    }

    #[test]
    fn few_files_are_synced_one_by_one_and_links_never() {
        let link = Addition { has_descriptor: false, ..SMALL };
        let cases = [
            ("nothing", 0, 0, Reach::Nothing),
            ("one", 1, 0, Reach::EachFile),
            ("few", BATCH_ALONE_MAX, 0, Reach::EachFile),
            ("more", BATCH_ALONE_MAX + 1, 0, Reach::FileSystem),
            ("a link", 0, 1, Reach::FileSystem),
            ("a file and a link", 1, 1, Reach::FileSystem),
        ];
        for (name, files, links, want) in cases {
            let mut load = Load::default();
            (0..files).for_each(|_| load.add(SMALL, Moment(0)));
            (0..links).for_each(|_| load.add(link, Moment(0)));
            assert_eq!(load.reach(), want, "{name}");
        }
    }

    #[test]
    fn small_files_with_one_name_wait_where_they_are_to_be_durable() {
        let durable = Options { durability: Durability::Full, ..Options::default() };
        let cases = [
            ("nothing promised", &Options::default(), 1, 1, false),
            ("small", &durable, 1, 1, true),
            ("empty", &durable, 0, 1, true),
            ("the largest", &durable, BATCH_FILE_BYTES_MAX, 1, true),
            ("larger", &durable, BATCH_FILE_BYTES_MAX + 1, 1, false),
            ("two names", &durable, 1, 2, false),
        ];
        for (name, options, size_bytes, links, want) in cases {
            assert_eq!(waits(options, size_bytes, links), want, "{name}");
        }
    }
}
