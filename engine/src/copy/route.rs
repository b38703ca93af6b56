//! Which way the data of a file goes: from evidence, and with the reason.

pub(crate) use super::file_system as magic;
use super::{CopyEnd, DataPath, Direct, Durability, Holes, Options, PathReason, Reflink};
use crate::cache_policy::CachePolicy;
use crate::limits::BUFFER_ALIGNMENT_BYTES;

/// What is known about one end of a copy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct End {
    /// The file system's magic number (`statfs(2)`).
    pub(crate) magic: u64,
    /// What direct I/O is aligned to, the larger of memory and offset; 0 where there is none.
    pub(crate) direct_alignment: u32,
}

/// What is known about a file to be copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) source: End,
    pub(super) target: End,
    /// How much of the source is in the page cache, in thousandths; none where the kernel does not
    /// tell.
    pub(super) cached_permille: Option<u32>,
}

/// How the blocks of a large file move.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Route {
    pub(super) path: DataPath,
    /// Why that path.
    pub(super) reason: PathReason,
    /// What reads are aligned to; 1 where they go through the page cache.
    pub(super) read_alignment: u32,
    /// What writes are aligned to; 1 where they go through the page cache.
    pub(super) write_alignment: u32,
    /// Whether room is reserved first, so that writes don't extend the file.
    pub(super) preallocate: bool,
    /// Whether each block is two copies of memory, of which the second is to find the bytes in its own
    /// core's cache.
    pub(super) pairs: bool,
}

/// How exactly a file system keeps times: what it can't keep, no copy has.
pub(super) fn time_resolution_ns(magic: u64) -> u64 {
    match magic {
        magic::FAT => 2_000_000_000,
        magic::EXFAT => 10_000_000,
        magic::HFS_PLUS => 1_000_000_000,
        _ => 1,
    }
}

/// More of a file than this in the page cache, in thousandths, and it is read from there.
const CACHED_PERMILLE_MIN: u32 = 500;

impl Route {
    /// The same, after direct I/O was refused for reading.
    pub(super) fn with_read_refused(self) -> Self {
        Self { read_alignment: 1, ..self }.after_refusal()
    }

    /// The same, after direct I/O was refused for writing.
    pub(super) fn with_write_refused(self) -> Self {
        Self { write_alignment: 1, ..self }.after_refusal()
    }

    /// The one way that suits two targets: past the page cache only if both of them are written so.
    pub(super) fn with(self, other: Self) -> Self {
        let align = |one: u32, other: u32| if one.min(other) == 1 { 1 } else { one.max(other) };
        let read_alignment = align(self.read_alignment, other.read_alignment);
        let write_alignment = align(self.write_alignment, other.write_alignment);
        // What stands in the way of one is the reason for both.
        let decides = if self.write_alignment == write_alignment { self } else { other };
        let path = match (read_alignment, write_alignment) {
            (1, 1) => DataPath::Buffered,
            (1, _) | (_, 1) => DataPath::MixedDirect,
            _ => DataPath::Direct,
        };
        Self { path, read_alignment, write_alignment, ..decides }
    }

    fn after_refusal(self) -> Self {
        let is_buffered = (self.read_alignment, self.write_alignment) == (1, 1);
        let path = if is_buffered { DataPath::Buffered } else { DataPath::MixedDirect };
        Self { path, reason: PathReason::DirectRefused, ..self }
    }
}

/// Whether cloning is worth a try: tiny files are cheaper copied.
pub(super) fn may_clone(options: &Options, size_bytes: u64) -> bool {
    may_share(options) && size_bytes > u64::from(options.small_bytes_max)
}

/// Whether extents may be shared without being asked for: what shall have other holes than its
/// source can't.
fn may_share(options: &Options) -> bool {
    options.reflink == Reflink::Auto && options.holes == Holes::Auto
}

/// Whether the server can copy by itself: both ends are the same kind of network file system.
pub(super) fn may_copy_range(options: &Options, source: End, target: End) -> bool {
    let is_remote = matches!(source.magic, magic::NFS | magic::CIFS | magic::SMB2 | magic::CEPH);
    may_share(options) && is_remote && source.magic == target.magic
}

/// How the blocks of a large file move.
pub(super) fn choose(options: &Options, facts: &Facts) -> Route {
    let wish = wish(options);
    let source = direct(wish, facts.source);
    let target = direct(wish, facts.target);
    let is_bypass = options.cache == CachePolicy::Bypass;
    // The rest of what is read from the page cache in part would be there afterwards.
    let cached_permille_min = if is_bypass { 1000 } else { CACHED_PERMILLE_MIN };
    let is_cached = facts.cached_permille.is_some_and(|share| share >= cached_permille_min);
    let is_forced = options.direct == Direct::On;
    let (source, target) = match (is_forced, is_cached) {
        (true, _) | (false, false) => (source, target),
        // What is cached is read from there. What must reach the device in the end, or must not stay
        // in the page cache, goes there at once; otherwise the page cache takes it faster.
        (false, true) if options.durability != Durability::None || is_bypass => (None, target),
        (false, true) => (None, None),
    };
    // One side only is worth it only if that side is the slow one.
    let (source, target) = match (source, target) {
        (Some(_), None) if !is_forced && !is_bypass => (None, None),
        sides => sides,
    };
    let path = match (source, target) {
        (Some(_), Some(_)) => DataPath::Direct,
        (None, None) => DataPath::Buffered,
        _ => DataPath::MixedDirect,
    };
    Route {
        path,
        reason: reason(options, facts, path),
        read_alignment: source.unwrap_or(1),
        write_alignment: target.unwrap_or(1),
        preallocate: matches!(facts.target.magic, magic::EXT4 | magic::XFS | magic::F2FS),
        pairs: path == DataPath::Buffered && is_cached,
    }
}

/// Whether direct I/O is wanted, after what is to be in the page cache: where that is to stay as it
/// was, it is even where it gains no time. (btrfs writes through the page cache instead, and takes
/// from there what it wrote; `btrfs_direct_write`.)
fn wish(options: &Options) -> Direct {
    match (options.cache, options.direct) {
        (CachePolicy::Keep, _) => Direct::Off,
        (CachePolicy::Bypass, Direct::Auto) => Direct::On,
        (_, wish) => wish,
    }
}

/// The alignment of direct I/O at one end; none where it is not to be had, or slower.
fn direct(wish: Direct, end: End) -> Option<u32> {
    let is_wanted = match wish {
        Direct::Off => false,
        Direct::On => true,
        Direct::Auto => magic::has_real_direct(end.magic),
    };
    (has_direct(end) && is_wanted).then_some(end.direct_alignment)
}

fn has_direct(end: End) -> bool {
    end.direct_alignment > 0
        && end.direct_alignment.is_power_of_two()
        && u64::from(end.direct_alignment) <= BUFFER_ALIGNMENT_BYTES
}

/// What decided for the path: the first of these that did.
fn reason(options: &Options, facts: &Facts, path: DataPath) -> PathReason {
    let permille = facts.cached_permille;
    match (options.direct, path) {
        (Direct::Off, _) => PathReason::DirectForbidden,
        _ if options.cache == CachePolicy::Keep => PathReason::CacheKept,
        (Direct::Auto, DataPath::Direct | DataPath::MixedDirect)
            if options.cache == CachePolicy::Bypass =>
        {
            PathReason::CacheBypassed
        }
        (Direct::On, DataPath::Buffered) => obstacle(facts),
        (Direct::On, _) => PathReason::DirectAskedFor,
        (Direct::Auto, DataPath::Direct) => PathReason::NotCached { permille },
        (Direct::Auto, path) => match permille {
            Some(permille) if permille >= CACHED_PERMILLE_MIN && path == DataPath::Buffered => {
                PathReason::Cached { permille }
            }
            Some(permille) if permille >= CACHED_PERMILLE_MIN => {
                PathReason::CachedAndDurable { permille }
            }
            _ => obstacle(facts),
        },
    }
}

/// Which end is in the way of direct I/O on both.
fn obstacle(facts: &Facts) -> PathReason {
    let ends = [(CopyEnd::Source, facts.source), (CopyEnd::Target, facts.target)];
    let lacks = ends.into_iter().find(|(_, known)| !has_direct(*known));
    let poor = ends.into_iter().find(|(_, known)| !magic::has_real_direct(known.magic));
    match (lacks, poor) {
        (Some((end, known)), _) => {
            PathReason::NoDirect { end, file_system: magic::name(known.magic) }
        }
        (None, Some((end, known))) => {
            PathReason::PoorDirect { end, file_system: magic::name(known.magic) }
        }
        // Nothing is, and the path is not for want of it.
        (None, None) => PathReason::DirectAskedFor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT4: End = End { magic: magic::EXT4, direct_alignment: 512 };
    const XFS: End = End { magic: magic::XFS, direct_alignment: 4096 };
    const BTRFS: End = End { magic: 0x9123_683E, direct_alignment: 4096 };
    const TMPFS: End = End { magic: 0x0102_1994, direct_alignment: 0 };

    #[test]
    fn a_refusal_leaves_the_other_side_direct() {
        let facts = Facts { source: EXT4, target: XFS, cached_permille: Some(0) };
        let route = choose(&Options::default(), &facts);
        let sides = |route: Route| (route.path, route.read_alignment, route.write_alignment);
        assert_eq!(sides(route.with_read_refused()), (DataPath::MixedDirect, 1, 4096));
        assert_eq!(sides(route.with_write_refused()), (DataPath::MixedDirect, 512, 1));
        let refused = route.with_read_refused().with_write_refused();
        assert_eq!(sides(refused), (DataPath::Buffered, 1, 1));
        assert_eq!(refused.reason, PathReason::DirectRefused);
    }

    #[test]
    fn the_route_follows_from_what_is_known() {
        use DataPath::{Buffered, Direct as DirectPath, MixedDirect};
        use PathReason::{
            CacheBypassed, CacheKept, Cached, CachedAndDurable, DirectAskedFor, DirectForbidden,
            NotCached,
        };
        let cold = NotCached { permille: Some(0) };
        let no_direct = |end, file_system| PathReason::NoDirect { end, file_system };
        let poor = PathReason::PoorDirect { end: CopyEnd::Source, file_system: "btrfs" };
        let to_memory = no_direct(CopyEnd::Target, "tmpfs");
        let auto = Options::default();
        let durable = Options { durability: Durability::Full, ..auto.clone() };
        let on = Options { direct: Direct::On, ..auto.clone() };
        let off = Options { direct: Direct::Off, ..auto.clone() };
        let keep = Options { cache: CachePolicy::Keep, ..auto.clone() };
        let bypass = Options { cache: CachePolicy::Bypass, ..auto.clone() };
        let bypass_off = Options { cache: CachePolicy::Bypass, ..off.clone() };
        let cases = [
            ("cold on ext4", &auto, EXT4, EXT4, Some(0), DirectPath, 512, 512, cold),
            ("cold from ext4 to xfs", &auto, EXT4, XFS, Some(0), DirectPath, 512, 4096, cold),
            ("cached", &auto, EXT4, EXT4, Some(1000), Buffered, 1, 1, Cached { permille: 1000 }),
            (
                "cached, to be durable",
                &durable,
                EXT4,
                EXT4,
                Some(1000),
                MixedDirect,
                1,
                512,
                CachedAndDurable { permille: 1000 },
            ),
            (
                "the kernel does not tell",
                &auto,
                EXT4,
                EXT4,
                None,
                DirectPath,
                512,
                512,
                NotCached { permille: None },
            ),
            ("btrfs makes checksums", &auto, BTRFS, BTRFS, Some(0), Buffered, 1, 1, poor),
            ("to memory", &auto, EXT4, TMPFS, Some(0), Buffered, 1, 1, to_memory),
            (
                "forced, though cached",
                &on,
                EXT4,
                EXT4,
                Some(1000),
                DirectPath,
                512,
                512,
                DirectAskedFor,
            ),
            (
                "forced, though btrfs",
                &on,
                BTRFS,
                BTRFS,
                Some(0),
                DirectPath,
                4096,
                4096,
                DirectAskedFor,
            ),
            (
                "forced, where only one side can",
                &on,
                EXT4,
                TMPFS,
                Some(0),
                MixedDirect,
                512,
                1,
                DirectAskedFor,
            ),
            ("forbidden", &off, EXT4, EXT4, Some(0), Buffered, 1, 1, DirectForbidden),
            ("cold, to be kept", &keep, EXT4, EXT4, Some(0), Buffered, 1, 1, CacheKept),
            ("cold, to bypass", &bypass, EXT4, XFS, Some(0), DirectPath, 512, 4096, CacheBypassed),
            (
                "cached in part, to bypass",
                &bypass,
                EXT4,
                EXT4,
                Some(999),
                DirectPath,
                512,
                512,
                CacheBypassed,
            ),
            (
                "cached, to bypass",
                &bypass,
                EXT4,
                EXT4,
                Some(1000),
                MixedDirect,
                1,
                512,
                CacheBypassed,
            ),
            (
                "to memory, to bypass",
                &bypass,
                EXT4,
                TMPFS,
                Some(0),
                MixedDirect,
                512,
                1,
                CacheBypassed,
            ),
            (
                "btrfs, to bypass",
                &bypass,
                BTRFS,
                BTRFS,
                Some(0),
                DirectPath,
                4096,
                4096,
                CacheBypassed,
            ),
            ("both", &bypass_off, EXT4, EXT4, Some(0), Buffered, 1, 1, DirectForbidden),
        ];
        for (name, options, source, target, cached_permille, path, read, write, reason) in cases {
            let facts = Facts { source, target, cached_permille };
            let route = choose(options, &facts);
            let got = (route.path, route.read_alignment, route.write_alignment);
            assert_eq!(got, (path, read, write), "{name}");
            assert_eq!(route.reason, reason, "{name}");
        }
    }

    #[test]
    fn two_targets_go_past_the_page_cache_together_or_not_at_all() {
        let route = |target| {
            let facts = Facts { source: EXT4, target, cached_permille: Some(0) };
            choose(&Options::default(), &facts)
        };
        let sides = |route: Route| (route.path, route.read_alignment, route.write_alignment);
        for (one, other) in [(EXT4, XFS), (XFS, EXT4)] {
            let common = route(one).with(route(other));
            assert_eq!(sides(common), (DataPath::Direct, 512, 4096), "the larger alignment");
        }
        for (one, other) in [(EXT4, TMPFS), (TMPFS, EXT4)] {
            let common = route(one).with(route(other));
            assert_eq!(sides(common), (DataPath::Buffered, 1, 1));
            assert_eq!(common.reason, route(TMPFS).reason);
        }
    }

    #[test]
    fn an_alignment_that_buffers_do_not_have_is_not_used() {
        let odd = End { magic: magic::EXT4, direct_alignment: 1 << 16 };
        let facts = Facts { source: odd, target: odd, cached_permille: Some(0) };
        assert_eq!(choose(&Options::default(), &facts).path, DataPath::Buffered);
    }
}
