//! All that can be told apart of a world: what stands under each name, and what differs from
//! another world.
//!
//! Not compared are the times of the last change of status (ctime), which nobody can set. Worlds
//! are on file systems mounted `noatime`, so looking changes nothing, and the times of the last
//! reading are compared like all others.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::unistd::{Whence, lseek};

/// No plan is so deep: what is below was copied into itself.
const DEPTH_MAX: usize = 100;

/// What stands under each name of a world.
pub(crate) type Snapshot = BTreeMap<PathBuf, Entry>;

/// What stands under a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// The type, as in `st_mode`.
    pub(crate) kind: u32,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// What a device is called by.
    pub(crate) device: u64,
    pub(crate) accessed: Time,
    pub(crate) modified: Time,
    pub(crate) attributes: BTreeMap<OsString, Vec<u8>>,
    pub(crate) content: Content,
    /// Where data is, from and up to. The rest are holes.
    pub(crate) data: Vec<(u64, u64)>,
    pub(crate) links: u64,
    /// The first name of the same file.
    pub(crate) same_as: PathBuf,
}

/// A time: one that was set, or one of the run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Time {
    Set(i64, i64),
    Now,
}

/// The bytes of a file, or what a link says; a difference prints their start.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Content {
    length: usize,
    hash: u64,
    start: Vec<u8>,
}

/// What differs under one name.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) path: PathBuf,
    pub(crate) field: &'static str,
    pub(crate) want: String,
    pub(crate) got: String,
}

/// Looks at all that is below `world`; times from `since` on are those of the run.
pub(crate) fn snapshot(world: &Path, since: SystemTime) -> Snapshot {
    let mut look = Look { world, since: nanoseconds(since), first_names: BTreeMap::new() };
    let mut entries = BTreeMap::new();
    look.directory(Path::new(""), &mut entries);
    entries
}

/// All differences between two worlds, by name.
pub(crate) fn differences(want: &Snapshot, got: &Snapshot) -> Vec<Difference> {
    let mut found = Vec::new();
    let names: std::collections::BTreeSet<_> = want.keys().chain(got.keys()).collect();
    for path in names {
        match (want.get(path), got.get(path)) {
            (Some(want), Some(got)) => compare(path, want, got, &mut found),
            (want, got) => {
                let is = |entry: Option<&Entry>| match entry {
                    Some(entry) => format!("{entry:?}"),
                    None => "nothing".to_owned(),
                };
                let (want, got) = (is(want), is(got));
                found.push(Difference { path: path.clone(), field: "name", want, got });
            }
        }
    }
    found
}

fn compare(path: &Path, want: &Entry, got: &Entry, found: &mut Vec<Difference>) {
    let mut differ = |field, want: &dyn fmt::Debug, got: &dyn fmt::Debug| {
        let (want, got) = (format!("{want:?}"), format!("{got:?}"));
        if want != got {
            found.push(Difference { path: path.to_owned(), field, want, got });
        }
    };
    differ("type", &Octal(want.kind), &Octal(got.kind));
    differ("mode", &Octal(want.mode), &Octal(got.mode));
    differ("owner", &want.owner, &got.owner);
    differ("device", &want.device, &got.device);
    differ("accessed", &want.accessed, &got.accessed);
    differ("modified", &want.modified, &got.modified);
    differ("attributes", &Attributes(&want.attributes), &Attributes(&got.attributes));
    differ("content", &want.content, &got.content);
    differ("data", &want.data, &got.data);
    differ("links", &want.links, &got.links);
    differ("same file as", &want.same_as, &got.same_as);
}

struct Look<'a> {
    world: &'a Path,
    since: i128,
    first_names: BTreeMap<(u64, u64), PathBuf>,
}

impl Look<'_> {
    fn directory(&mut self, name: &Path, entries: &mut Snapshot) {
        let mut below: Vec<_> = fs::read_dir(self.world.join(name))
            .unwrap_or_else(|error| panic!("{name:?}: {error}"))
            .map(|entry| name.join(entry.expect("a listing goes on").file_name()))
            .collect();
        below.sort();
        for name in below {
            let entry = self.entry(&name);
            let is_directory = entry.kind == libc::S_IFDIR && name.iter().count() < DEPTH_MAX;
            entries.insert(name.clone(), entry);
            if is_directory {
                self.directory(&name, entries);
            }
        }
    }

    fn entry(&mut self, name: &Path) -> Entry {
        let path = self.world.join(name);
        let metadata = path.symlink_metadata().unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let kind = metadata.mode() & libc::S_IFMT;
        let is_file = kind == libc::S_IFREG;
        let file = is_file.then(|| File::open(&path).expect("root may read"));
        let id = (metadata.dev(), metadata.ino());
        let same_as = self.first_names.entry(id).or_insert_with(|| name.to_owned());
        Entry {
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            device: metadata.rdev(),
            accessed: time(self.since, metadata.atime(), metadata.atime_nsec()),
            modified: time(self.since, metadata.mtime(), metadata.mtime_nsec()),
            attributes: attributes(&path),
            data: file.as_ref().map(|file| data(file, &metadata)).unwrap_or_default(),
            content: content(&path, kind, file),
            // How a file system counts the links of a directory is its own affair.
            links: if kind == libc::S_IFDIR { 0 } else { metadata.nlink() },
            same_as: same_as.clone(),
        }
    }
}

fn time(since: i128, seconds: i64, more: i64) -> Time {
    let nanoseconds = i128::from(seconds) * 1_000_000_000 + i128::from(more);
    // The clock of file systems ticks some milliseconds behind.
    let is_now = (since - 20_000_000..since + 3_600_000_000_000).contains(&nanoseconds);
    if is_now { Time::Now } else { Time::Set(seconds, more) }
}

fn nanoseconds(moment: SystemTime) -> i128 {
    let since = moment.duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos();
    i128::try_from(since).expect("it is not that late")
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let names = xattr::list(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let value = |name: OsString| {
        let value = xattr::get(path, &name).expect("it is listed").unwrap_or_default();
        (name, value)
    };
    names.map(value).collect()
}

fn data(file: &File, metadata: &Metadata) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut offset = 0;
    let seek = |offset, whence| lseek(file.as_fd(), offset, whence);
    while let Ok(start) = seek(offset, Whence::SeekData) {
        let end = seek(start, Whence::SeekHole).expect("there is a hole at the end");
        let unsigned = |offset| u64::try_from(offset).expect("it is not negative");
        found.push((unsigned(start), unsigned(end).min(metadata.size())));
        offset = end;
    }
    seek(0, Whence::SeekSet).expect("a file can be rewound");
    found
}

fn content(path: &Path, kind: u32, file: Option<File>) -> Content {
    let bytes = match (file, kind) {
        (Some(file), _) => read(file),
        (None, libc::S_IFLNK) => {
            fs::read_link(path).expect("a link can be read").into_os_string().into_encoded_bytes()
        }
        // What was written into it, as long as somebody holds it open.
        (None, libc::S_IFIFO) => {
            read(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap())
        }
        _ => Vec::new(),
    };
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let start = bytes[..bytes.len().min(16)].to_vec();
    Content { length: bytes.len(), hash: hasher.finish(), start }
}

fn read(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    // An empty FIFO asks to try again.
    let _ = file.read_to_end(&mut bytes);
    bytes
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length, hash, start } = self;
        write!(f, "{length} bytes \"{}\" #{hash:x}", start.escape_ascii())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, field, want, got } = self;
        write!(f, "{path:?}: {field}: cp {want}, ucp {got}")
    }
}

struct Octal(u32);

impl fmt::Debug for Octal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

struct Attributes<'a>(&'a BTreeMap<OsString, Vec<u8>>);

impl fmt::Debug for Attributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.0.iter().map(|(name, value)| {
            (name, value.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        });
        f.debug_map().entries(each).finish()
    }
}
