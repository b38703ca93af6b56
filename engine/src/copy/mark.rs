//! The mark on a stage: what its run was copying, so that another can tell whether to go on with it,
//! and which files in it are whole.
//!
//! ```text
//! magic 8 | began 8 + 4 | XXH3 of these and of all that must be the same 16    36 bytes
//! ```
//!
//! All numbers are little-endian. The mark is an extended attribute of the stage itself and goes
//! before the stage gets its name. One that is torn, flipped or another copy's has another sum, and is
//! no mark. After another boot none is believed: size and times may have reached the disk before the
//! bytes that they vouch for.
//!
//! It decides, and does no I/O.

use std::ffi::CStr;

use super::Options;
use super::journal::BootId;
use crate::digest::Algorithm;
use crate::limits::TIME_DOUBT_SECONDS;
use crate::operation::{FileKind, FileStatus};
use crate::units::WallTime;

/// The name of the attribute.
pub(super) const MARK: &CStr = c"user.ucp.stage";
/// Bytes of a mark.
pub(super) const MARK_BYTES: usize = 36;
/// The number in the name is the version of the format.
const MAGIC: [u8; 8] = *b"ucpstg01";

/// What is copied to where, by whom and how: what a mark of anything else says is not believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copying<'a> {
    pub(super) boot: BootId,
    /// Device and inode of the directory that is copied.
    pub(super) source: (u64, u64),
    /// Those of the stage.
    pub(super) stage: (u64, u64),
    pub(super) options: &'a Options,
}

impl Copying<'_> {
    /// The mark of a run that began at a moment.
    pub(super) fn mark(&self, began: WallTime) -> [u8; MARK_BYTES] {
        let mut mark = Vec::with_capacity(MARK_BYTES);
        mark.extend(MAGIC);
        mark.extend(began.seconds.to_le_bytes());
        mark.extend(began.nanoseconds.to_le_bytes());
        let version = env!("CARGO_PKG_VERSION");
        let Self { boot, source, stage, options } = self;
        let same = format!("{version} {boot:?} {source:?} {stage:?} {}", outcome(options));
        let sum = Algorithm::Xxh3_128.digest(&[&mark, same.as_bytes()].concat());
        mark.extend(sum.as_bytes());
        mark.try_into().expect("the parts of a mark have its length")
    }

    /// When the run began that has set a mark, if this one may go on with its stage.
    pub(super) fn believed(&self, mark: &[u8]) -> Option<WallTime> {
        let mark: &[u8; MARK_BYTES] = mark.try_into().ok()?;
        let seconds = i64::from_le_bytes(mark[8..16].try_into().ok()?);
        let nanoseconds = u32::from_le_bytes(mark[16..20].try_into().ok()?);
        let began = WallTime { seconds, nanoseconds };
        (*mark == self.mark(began)).then_some(began)
    }
}

/// All options that decide what becomes of a file in a stage, as text. A new one must be put on one
/// of the two sides.
fn outcome(options: &Options) -> String {
    let Options {
        reflink,
        holes,
        specials,
        preserve,
        links,
        umask,
        allow_changed,
        // How fast, how safe, and when: the same comes of it.
        direct: _,
        cache: _,
        pipeline: _,
        look_ahead: _,
        depth: _,
        block_bytes: _,
        small_bytes_max: _,
        large_bytes_min: _,
        durability: _,
        resume: _,
        resume_bytes_min: _,
        journal_every_bytes: _,
        open_directories_max: _,
        // What is taken over is read for these.
        verification: _,
        // What is not selected any more is removed, like what is gone from the source.
        selection: _,
        one_file_system: _,
        // Nothing stands in a stage, and nobody names what is in it.
        existing: _,
        directories: _,
        parents: _,
        in_place: _,
        stage: _,
        protect_devices: _,
        destroy_data: _,
    } = options;
    format!("{reflink:?} {holes:?} {specials:?} {preserve:?} {links:?} {umask:o} {allow_changed}")
}

/// Whether what an interrupted run has left in a stage is the whole copy of a source.
///
/// A copy gets its times last, so they vouch for the rest. But not if the source was touched since
/// shortly before that run began: then a copy that was being written may have its time by chance, or a
/// whole one an owner or mode that the source has no more.
pub(super) fn is_whole(source: &FileStatus, copy: &FileStatus, began: WallTime) -> bool {
    let is_before = |time: WallTime| {
        let seconds = time.seconds.saturating_add(TIME_DOUBT_SECONDS);
        WallTime { seconds, ..time } < began
    };
    source.kind == FileKind::Regular
        && copy.kind == FileKind::Regular
        && copy.size_bytes == source.size_bytes
        && copy.modified == source.modified
        && is_before(source.modified)
        && is_before(source.changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::{Direct, Holes, Preserve, Reflink};

    const BEGAN: WallTime = WallTime { seconds: 1_800_000_000, nanoseconds: 999_999_999 };

    fn copying(options: &Options) -> Copying<'_> {
        let boot = *b"11111111-1111-4111-8111-111111111111";
        Copying { boot, source: (1, 2), stage: (3, 4), options }
    }

    #[test]
    fn a_mark_is_believed_by_the_same_copy_only() {
        let options = Options::default();
        let here = copying(&options);
        let mark = here.mark(BEGAN);
        assert_eq!(here.believed(&mark), Some(BEGAN));
        let boot = *b"22222222-1111-4111-8111-111111111111";
        for (what, other) in [
            ("another boot", Copying { boot, ..here }),
            ("another source", Copying { source: (1, 3), ..here }),
            ("another device", Copying { source: (2, 2), ..here }),
            ("another stage", Copying { stage: (3, 5), ..here }),
        ] {
            assert_eq!(other.believed(&mark), None, "{what}");
        }
    }

    #[test]
    fn no_part_of_a_mark_can_be_changed() {
        let options = Options::default();
        let here = copying(&options);
        let mark = here.mark(BEGAN);
        for bit in 0..MARK_BYTES * 8 {
            let mut flipped = mark;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(here.believed(&flipped), None, "bit {bit}");
        }
        for length in 0..MARK_BYTES {
            assert_eq!(here.believed(&mark[..length]), None, "{length} bytes");
        }
        assert_eq!(here.believed(&[&mark[..], b"\0"].concat()), None);
    }

    #[test]
    fn options_count_if_another_copy_comes_of_them() {
        let options = Options::default();
        let mark = copying(&options).mark(BEGAN);
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            copying(&options).believed(&mark).is_some()
        };
        assert!(!with(|it| it.reflink = Reflink::Never));
        assert!(!with(|it| it.holes = Holes::Always));
        assert!(!with(|it| it.preserve = Preserve { ownership: true, ..Preserve::default() }));
        assert!(!with(|it| it.umask = 0o27));
        assert!(with(|it| it.direct = Direct::Off));
        assert!(with(|it| it.selection.dry_run = true));
    }

    #[test]
    fn a_copy_is_whole_if_its_source_was_left_alone() {
        let old = WallTime { seconds: BEGAN.seconds - 3, ..BEGAN };
        let new = WallTime { seconds: BEGAN.seconds - 1, ..BEGAN };
        let file = |size_bytes, modified, changed| FileStatus {
            kind: FileKind::Regular,
            size_bytes,
            modified,
            changed,
            ..FileStatus::default()
        };
        let link = FileStatus { kind: FileKind::SymbolicLink, ..file(7, old, old) };
        let nearly = WallTime { nanoseconds: 1, ..old };
        for (what, source, copy, want) in [
            ("the same", file(7, old, old), file(7, old, BEGAN), true),
            ("another size", file(7, old, old), file(8, old, BEGAN), false),
            ("another time", file(7, old, old), file(7, nearly, BEGAN), false),
            ("a source of another mode since", file(7, old, BEGAN), file(7, old, BEGAN), false),
            ("a source that was new then", file(7, new, old), file(7, new, BEGAN), false),
            ("a link", link, file(7, old, BEGAN), false),
            ("the copy is a link", file(7, old, old), link, false),
        ] {
            assert_eq!(is_whole(&source, &copy, BEGAN), want, "{what}");
        }
    }
}
