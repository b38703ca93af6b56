//! Trees to copy, and what is to be compared of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::{TimeSpec, TimeValLike};

use super::Scratch;

/// What stands under a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Entry {
    Directory { mode: u32, modified: (i64, i64) },
    File { mode: u32, modified: (i64, i64), content: Content },
    Link { modified: (i64, i64), content: PathBuf },
    Special,
}

/// Bytes of a file; a difference prints its place, not the bytes.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Content(Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = self.0.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte));
        let start = String::from_utf8_lossy(&self.0[..self.0.len().min(16)]);
        write!(f, "{} bytes, sum {sum:x}, {start:?}", self.0.len())
    }
}

impl Entry {
    /// The same without times, for what is compared with a copy made at another time.
    pub(crate) fn without_times(self) -> Self {
        match self {
            Self::Directory { mode, .. } => Self::Directory { mode, modified: (0, 0) },
            Self::File { mode, content, .. } => Self::File { mode, modified: (0, 0), content },
            Self::Link { content, .. } => Self::Link { modified: (0, 0), content },
            Self::Special => Self::Special,
        }
    }
}

/// All that is at and below `root`, by relative name.
pub(crate) fn listing(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut names = vec![PathBuf::new()];
    while let Some(name) = names.pop() {
        let path = if name.as_os_str().is_empty() { root.to_owned() } else { root.join(&name) };
        let metadata = path.symlink_metadata().unwrap_or_else(|e| panic!("{path:?}: {e}"));
        if metadata.is_dir() {
            let below = fs::read_dir(&path).unwrap();
            names.extend(below.map(|entry| name.join(entry.unwrap().file_name())));
        }
        entries.insert(name, entry(&path, &metadata));
    }
    entries
}

fn entry(path: &Path, metadata: &Metadata) -> Entry {
    let mode = metadata.mode() & 0o7777;
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    let kind = metadata.file_type();
    if kind.is_dir() {
        Entry::Directory { mode, modified }
    } else if kind.is_symlink() {
        Entry::Link { modified, content: fs::read_link(path).unwrap() }
    } else if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device()
    {
        Entry::Special
    } else {
        Entry::File { mode, modified, content: Content(fs::read(path).unwrap()) }
    }
}

/// Names below `root` that a copy should have removed. May be asked while a copy goes on.
pub(crate) fn leftovers(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory)).into_iter().flatten().flatten() {
            let name = directory.join(entry.file_name());
            if entry.file_name().as_bytes().starts_with(b".ucp") {
                found.push(name);
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(name);
            }
        }
    }
    found
}

/// Bytes that look like nothing else: no zeros to skip, no repetition.
pub(crate) fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut content = Vec::with_capacity(count + 8);
    while content.len() < count {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(count);
    content
}

/// Sets the times of what stands there, be it a link: read at `accessed`, changed at `modified`,
/// each in nanoseconds since 1970.
pub(crate) fn set_times(path: &Path, accessed: i64, modified: i64) {
    let (accessed, modified) = (TimeSpec::nanoseconds(accessed), TimeSpec::nanoseconds(modified));
    utimensat(AT_FDCWD, path, &accessed, &modified, UtimensatFlags::NoFollowSymlink).unwrap();
}

/// Makes a tree of odd names, sizes, modes and times: `sizes` files and more.
pub(crate) fn make_odd_tree(scratch: &Scratch, root: &str, sizes: &[usize]) {
    scratch.make_directory(root);
    for (number, size) in sizes.iter().enumerate() {
        scratch.write(format!("{root}/of {size} bytes"), bytes(*size, number as u64 + 1));
    }
    let names: [&[u8]; 9] = [
        b"-r",
        b" ",
        b"a\nb",
        b"\x1b[31mred",
        b"\xff\xfe not utf-8",
        b"it's \"quoted\" $HOME `x` \\",
        b"*?[a]",
        "größe 漢".as_bytes(),
        &[b'n'; 255],
    ];
    let odd = scratch.path(root).join("odd");
    fs::create_dir(&odd).unwrap();
    for name in names {
        fs::write(odd.join(OsStr::from_bytes(name)), name).unwrap();
    }
    scratch.make_directory(format!("{root}/empty"));
    scratch.make_directory(format!("{root}/deep/er/and/deeper"));
    scratch.write(format!("{root}/deep/er/and/deeper/file"), "deep");
    scratch.link("../of nothing", format!("{root}/deep/dangling"));
    scratch.link("er/and", format!("{root}/deep/link"));
    scratch.link(OsStr::from_bytes(b"\xff\n"), format!("{root}/odd/link"));
    for (name, mode) in [("odd/-r", 0o400), ("odd/ ", 0o777), ("odd/*?[a]", 0o000)] {
        scratch.set_mode(format!("{root}/{name}"), mode);
    }
    scratch.set_mode(format!("{root}/deep/er"), 0o750);
    scratch.set_mode(format!("{root}/empty"), 0o1777);
    // From below to above: what is made in a directory changes its time.
    let names: Vec<PathBuf> = listing(&scratch.path(root)).into_keys().rev().collect();
    for (number, name) in (1_i64..).zip(names) {
        let path = scratch.path(root).join(name);
        set_times(&path, number * 1_111_111_111, number * 1_234_567_890_123_456);
    }
}
