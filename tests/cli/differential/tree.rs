//! Trees to copy, planned from a seed as plain data.
//!
//! A plan is made twice, once for each copier, so everything that can be compared is in it, times
//! included. It can be printed, and nodes can be taken out of it to find what a difference needs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ucp_engine::random::Random;

use super::attributes::{access_list, capability};

/// One thing that stands in the world of a copy, under a path relative to it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) attributes: Vec<(&'static str, Vec<u8>)>,
    /// Seconds and nanoseconds since 1970.
    pub(crate) accessed: (i64, i64),
    pub(crate) modified: (i64, i64),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Directory,
    File(Shape),
    Link(PathBuf),
    /// Another name of an earlier node.
    HardLink(PathBuf),
    Fifo,
    Socket,
    Character(u64, u64),
    Block(u64, u64),
}

/// What a file holds: its size, and the parts of it that are written. The rest are holes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Shape {
    pub(crate) size_bytes: u64,
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Part {
    pub(crate) offset_bytes: u64,
    pub(crate) length_bytes: u64,
    /// Zero for a part that holds zeros.
    pub(crate) seed: u64,
}

/// Who runs the copy: the owners of what it meets are chosen around them.
pub(crate) const NOBODY: u32 = 65534;

/// What a plan must not hold, because a copier would wait for ever, or could not make it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A copier may read what a FIFO holds.
    pub(crate) may_open_specials: bool,
    pub(crate) takes_specials: bool,
}

/// Whether trees hold files with several names, and links with owners and attributes of their own.
const HAS_NAMES: bool = true;
/// Whether trees hold FIFOs, devices and sockets.
pub(crate) const HAS_SPECIALS: bool = true;

/// The directory that sources are taken from.
pub(crate) const SOURCE: &str = "from";
/// The name that the copy goes to.
pub(crate) const TARGET: &str = "to";
/// What stands beside both, for links to lead to.
pub(crate) const ASIDE: &str = "aside";

/// A source tree.
pub(crate) fn plan_source(random: &mut Random, world: &Path, limits: Limits) -> Vec<Node> {
    let mut nodes = vec![directory(random, PathBuf::from(SOURCE))];
    nodes[0].mode = 0o755;
    let is_deep = random.once_in(20);
    let count = if is_deep { 40 } else { 2 + random.below(13) };
    for _ in 0..count {
        let parent = if is_deep { deepest(&nodes) } else { any_directory(random, &nodes) };
        let path = parent.join(OsStr::from_bytes(name(random)));
        if nodes.iter().any(|node| node.path == path) || path.as_os_str().len() > 3000 {
            continue;
        }
        let node = node(random, path, &nodes, world, limits);
        nodes.push(node);
    }
    nodes
}

fn deepest(nodes: &[Node]) -> PathBuf {
    let directories = nodes.iter().filter(|node| node.kind == Kind::Directory);
    let depth = |node: &&Node| node.path.components().count();
    directories.max_by_key(depth).expect("the root is one").path.clone()
}

fn any_directory(random: &mut Random, nodes: &[Node]) -> PathBuf {
    let directories: Vec<_> = nodes.iter().filter(|node| node.kind == Kind::Directory).collect();
    pick(random, &directories).path.clone()
}

const NAMES: [&[u8]; 22] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"f",
    b"a~",
    b"a.~1~",
    b"-r",
    b"--help",
    b" ",
    b"two words",
    b"a\nb",
    b"\x1b[31mred",
    b"\xff\xfe not utf-8",
    b"it's \"quoted\" $HOME `x` \\",
    b"*?[a]",
    "größe 漢".as_bytes(),
    b".hidden",
    b"...",
    b"~",
    &[b'n'; 255],
];

fn name(random: &mut Random) -> &'static [u8] {
    // Plain names often, so that trees have several of them.
    let limit = if random.once_in(2) { 6 } else { NAMES.len() };
    pick(random, &NAMES[..limit])
}

fn node(random: &mut Random, path: PathBuf, nodes: &[Node], world: &Path, limits: Limits) -> Node {
    match random.below(20) {
        0..=4 => directory(random, path),
        5..=8 => {
            let kind = Kind::Link(link_content(random, &path, nodes, world));
            decorated(random, path, kind)
        }
        9..=10 if HAS_NAMES => {
            let files = nodes
                .iter()
                .filter(|node| !matches!(node.kind, Kind::Directory | Kind::HardLink(_)));
            let files: Vec<_> = files.collect();
            if files.is_empty() {
                return file(random, path);
            }
            let first = pick(random, &files);
            Node { path, kind: Kind::HardLink(first.path.clone()), ..first.clone() }
        }
        11 if limits.takes_specials => {
            let kind = special(random, limits);
            decorated(random, path, kind)
        }
        _ => file(random, path),
    }
}

fn special(random: &mut Random, limits: Limits) -> Kind {
    match random.below(4) {
        0 if !limits.may_open_specials => Kind::Fifo,
        0 | 1 => Kind::Socket,
        // The null device, which is harmless to whoever opens it.
        2 => Kind::Character(1, 3),
        // No driver has this number.
        _ => Kind::Block(200, 9),
    }
}

pub(crate) fn directory(random: &mut Random, path: PathBuf) -> Node {
    decorated(random, path, Kind::Directory)
}

/// A file of any shape.
pub(crate) fn file(random: &mut Random, path: PathBuf) -> Node {
    let kind = Kind::File(shape(random));
    decorated(random, path, kind)
}

/// What a symbolic link says: relative, absolute, to nothing, to itself, to a directory above.
fn link_content(random: &mut Random, path: &Path, nodes: &[Node], world: &Path) -> PathBuf {
    let up = |path: &Path| {
        let levels = path.components().count() - 1;
        std::iter::repeat_n("..", levels).collect::<PathBuf>()
    };
    let some = pick(random, nodes).path.clone();
    match random.below(8) {
        0 => PathBuf::from("nothing"),
        1 => PathBuf::from("/nonexistent/x"),
        2 => PathBuf::from(path.file_name().expect("it has a name")),
        3 => world.join(some),
        // Not as far up as to the target: cp -L would copy the copy until no path is long enough.
        4 => {
            let levels = path.components().count() - 2;
            ["."].into_iter().chain(std::iter::repeat_n("..", levels.min(2))).collect()
        }
        _ => up(path).join(some),
    }
}

/// A file's size and where it has holes.
fn shape(random: &mut Random) -> Shape {
    const PAGE: u64 = 4096;
    let seed = random.next() | 1;
    let part = |offset_bytes, length_bytes, seed| Part { offset_bytes, length_bytes, seed };
    let dense = |size_bytes| Shape { size_bytes, parts: vec![part(0, size_bytes, seed)] };
    // The other ways that data takes.
    match random.below(4000) {
        0 => return dense((16 << 20) + random.below(2 << 20)),
        1..=60 => return dense((256 << 10) + random.below(3 << 19)),
        _ => {}
    }
    match random.below(24) {
        0..=2 => Shape::default(),
        3 => dense(PAGE),
        4 => dense(2 * PAGE - 1),
        5 => dense(random.below(300_000) + 1),
        // Nothing but a hole.
        6 => Shape { size_bytes: random.below(600_000) + 1, ..Shape::default() },
        // Zeros that are written, alone and between others.
        7 => Shape { size_bytes: 20 * PAGE, parts: vec![part(0, 20 * PAGE, 0)] },
        8 => Shape {
            size_bytes: 40 * PAGE,
            parts: vec![
                part(0, PAGE, seed),
                part(PAGE, 34 * PAGE, 0),
                part(35 * PAGE, 5 * PAGE, seed),
            ],
        },
        // Holes at the start, in the middle, at the end, of whole pages and of less.
        9..=12 => {
            let count = 1 + random.below(4);
            let mut offset_bytes = random.below(3) * random.below(30 * PAGE);
            let mut parts = Vec::new();
            for _ in 0..count {
                let length_bytes = 1 + random.below(4) * random.below(6 * PAGE);
                let seed = if random.once_in(6) { 0 } else { seed };
                parts.push(part(offset_bytes, length_bytes, seed));
                offset_bytes += length_bytes + random.below(40 * PAGE);
            }
            let end = parts.last().map_or(0, |part| part.offset_bytes + part.length_bytes);
            let size_bytes = if random.once_in(2) { end } else { end + random.below(64 * PAGE) };
            Shape { size_bytes, parts }
        }
        _ => dense(1 + random.below(3000)),
    }
}

const FILE_MODES: [u32; 14] = [
    0o644, 0o644, 0o600, 0o755, 0o640, 0o4755, 0o2755, 0o6711, 0o1644, 0o000, 0o444, 0o222, 0o7777,
    0o666,
];
const DIRECTORY_MODES: [u32; 13] =
    [0o755, 0o755, 0o755, 0o700, 0o750, 0o555, 0o500, 0o2775, 0o1777, 0o000, 0o311, 0o3777, 0o777];

/// Gives a kind of node a mode, an owner, attributes and times.
pub(crate) fn decorated(random: &mut Random, path: PathBuf, kind: Kind) -> Node {
    let mode = match kind {
        Kind::Directory => pick(random, &DIRECTORY_MODES),
        _ => pick(random, &FILE_MODES),
    };
    let owners = [(0, 0), (0, 0), (NOBODY, NOBODY), (NOBODY, NOBODY), (1000, 1000), (0, 1000)];
    let owner = pick(random, &owners);
    let owner = if matches!(kind, Kind::Link(_)) && !HAS_NAMES { (0, 0) } else { owner };
    let attributes = if (HAS_NAMES || !matches!(kind, Kind::Link(_))) && random.once_in(3) {
        attributes(random, &kind)
    } else {
        Vec::new()
    };
    Node { path, kind, mode, owner, attributes, accessed: time(random), modified: time(random) }
}

fn attributes(random: &mut Random, kind: &Kind) -> Vec<(&'static str, Vec<u8>)> {
    let mut attributes = Vec::new();
    let has_list = matches!(kind, Kind::Directory | Kind::File(_) | Kind::Fifo);
    if matches!(kind, Kind::Directory | Kind::File(_)) {
        if random.once_in(2) {
            attributes.push(("user.a", b"value".to_vec()));
        }
        if random.once_in(4) {
            attributes.push(("user.empty", Vec::new()));
        }
        if random.once_in(4) {
            attributes.push(("user.long name with ä", vec![7; 300]));
        }
    }
    if random.once_in(4) {
        attributes.push(("trusted.t", b"\0binary\xff".to_vec()));
    }
    if has_list && random.once_in(2) {
        attributes.push(("system.posix_acl_access", access_list(random)));
    }
    if matches!(kind, Kind::Directory) && random.once_in(3) {
        attributes.push(("system.posix_acl_default", access_list(random)));
    }
    if matches!(kind, Kind::File(_)) && random.once_in(4) {
        attributes.push(("security.capability", capability()));
    }
    attributes
}

/// A time that every file system keeps: ext4 knows 1901 to 2446, xfs to 2486.
pub(crate) fn time(random: &mut Random) -> (i64, i64) {
    let signed = |number: u64| i64::try_from(number).expect("it is small");
    let nanoseconds = signed(random.below(1_000_000_000));
    match random.below(12) {
        0 => (0, 0),
        1 => (-1, 999_999_999),
        2 => (-1 - signed(random.below(1 << 31)), nanoseconds),
        3 => ((1 << 31) + signed(random.below(1 << 31)), nanoseconds),
        4 => (1_700_000_000, 0),
        // Close to each other, so that some are newer by nanoseconds only.
        5 | 6 => (1_600_000_000, signed(random.below(3))),
        _ => (1_000_000_000 + signed(random.below(600_000_000)), nanoseconds),
    }
}

pub(crate) fn pick<T: Clone>(random: &mut Random, choices: &[T]) -> T {
    let index = random.below(choices.len() as u64);
    choices[usize::try_from(index).expect("an index")].clone()
}
