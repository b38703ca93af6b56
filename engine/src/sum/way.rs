//! Which way the bytes of a file are read: from evidence.

use crate::cache_policy::CachePolicy;
use crate::copy::Direct;
use crate::copy::reread::{Reread, choose_reread};
use crate::copy::route::End;

/// How a file is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// Past the page cache, aligned to so many bytes.
    Direct(u32),
    /// Through it.
    Cached {
        /// Whether much of it is there already.
        is_resident: bool,
        /// Whether what reading has put there is dropped again.
        drops: bool,
    },
}

/// What is known about a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) end: End,
    pub(crate) is_large: bool,
    /// The first byte that is read.
    pub(crate) start: u64,
    /// How much of it is in the page cache, in thousandths; none where the kernel does not tell.
    pub(crate) resident_permille: Option<u32>,
}

/// More of a file than this in the page cache, in thousandths, and it is read from there.
const RESIDENT_PERMILLE_MIN: u32 = 500;

impl Way {
    /// Decides.
    pub(crate) fn choose(policy: CachePolicy, facts: &Facts) -> Self {
        let is_resident =
            facts.resident_permille.is_some_and(|permille| permille >= RESIDENT_PERMILLE_MIN);
        let cached = Self::Cached { is_resident, drops: false };
        let direct = match choose_reread(Direct::Auto, facts.end) {
            Reread::Direct(alignment) if facts.start.is_multiple_of(u64::from(alignment)) => {
                Some(Self::Direct(alignment))
            }
            _ => None,
        };
        match policy {
            CachePolicy::Keep => cached,
            CachePolicy::Auto if is_resident || !facts.is_large => cached,
            CachePolicy::Auto => direct.unwrap_or(cached),
            // To read what is there changes nothing.
            CachePolicy::Bypass if facts.resident_permille == Some(1000) => cached,
            // Of a file that is there in part nobody can say afterwards which part it was.
            CachePolicy::Bypass => direct
                .unwrap_or(Self::Cached { is_resident, drops: facts.resident_permille == Some(0) }),
        }
    }

    /// What reads are aligned to.
    pub(crate) fn alignment(self) -> u32 {
        match self {
            Self::Direct(alignment) => alignment,
            Self::Cached { .. } => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::file_system as magic;

    #[test]
    fn the_way_follows_from_what_is_known() {
        use CachePolicy::{Auto, Bypass, Keep};
        let ext4 = End { magic: magic::EXT4, direct_alignment: 512 };
        let btrfs = End { magic: magic::BTRFS, direct_alignment: 4096 };
        let cached = |is_resident, drops| Way::Cached { is_resident, drops };
        let cases = [
            ("cold and large", Auto, ext4, true, 0, Some(0), Way::Direct(512)),
            ("the kernel does not tell", Auto, ext4, true, 0, None, Way::Direct(512)),
            ("cached", Auto, ext4, true, 0, Some(500), cached(true, false)),
            ("small", Auto, ext4, false, 0, None, cached(false, false)),
            ("no real direct I/O", Auto, btrfs, true, 0, Some(0), cached(false, false)),
            ("from an odd byte", Auto, ext4, true, 5, Some(0), cached(false, false)),
            ("to be kept", Keep, ext4, true, 0, Some(0), cached(false, false)),
            ("small, past it", Bypass, ext4, false, 0, Some(999), Way::Direct(512)),
            ("all there already", Bypass, ext4, false, 0, Some(1000), cached(true, false)),
            (
                "past it where that is not to be had",
                Bypass,
                btrfs,
                true,
                0,
                Some(0),
                cached(false, true),
            ),
            ("there in part", Bypass, btrfs, true, 0, Some(1), cached(false, false)),
            ("nobody tells", Bypass, btrfs, true, 0, None, cached(false, false)),
        ];
        for (name, policy, end, is_large, start, resident_permille, want) in cases {
            let facts = Facts { end, is_large, start, resident_permille };
            assert_eq!(Way::choose(policy, &facts), want, "{name}");
        }
    }
}
