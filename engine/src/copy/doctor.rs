//! What this kernel and a file system can do, and which way a copy would go there.
//!
//! What can be done is tried out, on files that have no name or, where a file system has none such,
//! lose it at once: nothing is left behind.

use std::path::{Path, PathBuf};

use nix::libc;

use super::io::Io;
use super::route::{End, Facts, choose, magic, may_clone, may_copy_range};
use super::{Cancellation, DataPath, Durability, Options, PathReason};
use crate::buffer::Buffer;
use crate::error::{Errno, Error};
use crate::limits::PROBE_BYTES;
use crate::operation::{
    Allocate, AllocateMode, CacheStatus, CloneFile, File, FileKind, FileStatus, FileSystemStatus,
    GetAttribute, Name, Open, Operation, Place, Read, Seek, SeekTarget, SetAttribute, SetDirect,
    Truncate, Unlink, Write,
};
use crate::proactor::{Proactor, TaskInitiator};
use crate::processor::{Capabilities, Configuration};

/// What was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Findings {
    /// The kernel's release: `6.18.2`; none if it does not say.
    pub kernel: Option<String>,
    /// What would do the work, and why.
    pub engine: Capabilities,
    /// Whether that has its blocks registered with the kernel.
    pub has_registered_buffers: bool,
    /// What was looked at.
    pub path: PathBuf,
    /// The kind of file system that it is on: `ext4`; `unknown` if this does not know it.
    pub file_system: &'static str,
    /// Its magic number (`statfs(2)`).
    pub magic: u64,
    /// Free bytes for ordinary users.
    pub available_bytes: u64,
    /// What the memory and the offsets of direct I/O must be aligned to; 0 where there is none, or
    /// the kernel does not tell.
    pub direct_alignment: (u32, u32),
    /// Why nothing could be tried out, if so.
    pub obstacle: Option<Error>,
    /// What was tried out.
    pub trials: Vec<Trial>,
    /// Which way files of each kind would go, from this file system to itself.
    pub forecasts: Vec<Forecast>,
}

/// Something that was tried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trial {
    /// What, by its stable name.
    pub what: &'static str,
    /// What the kernel answered; none if it did something else than it was asked for.
    pub outcome: Result<(), Option<Errno>>,
}

/// Which way a file of a kind would go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Forecast {
    /// What kind of file, in words.
    pub file: &'static str,
    /// Which way.
    pub path: DataPath,
    /// Why.
    pub reason: PathReason,
}

/// Looks at the kernel, and at the file system of `path`.
///
/// # Errors
///
/// If there is no such file, or io_uring was demanded and is missing. That nothing can be tried
/// out, because nothing can be written there, is a finding.
///
/// # Examples
///
/// ```
/// use ucp_engine::copy::{Options, doctor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let findings = doctor("/proc".as_ref(), &Options::default(), &Default::default())?;
/// assert_eq!(findings.file_system, "proc");
/// assert!(findings.obstacle.is_some());
/// # Ok(())
/// # }
/// ```
pub fn doctor(
    path: &Path,
    options: &Options,
    configuration: &Configuration,
) -> Result<Findings, Error> {
    let engine = Proactor::start(configuration)?;
    let pool = engine.initiator().buffer_pool(1, options.block_bytes);
    let has_registered_buffers = pool.is_ok_and(|pool| pool.is_registered());
    let proactor = super::inline_proactor();
    let doctor = Doctor::new(proactor.initiator());
    let mut findings = proactor.block_on(doctor.examine(path, options))?;
    findings.engine = engine.capabilities();
    findings.has_registered_buffers = has_registered_buffers;
    Ok(findings)
}

struct Doctor {
    io: Io,
}

impl Doctor {
    fn new(tasks: TaskInitiator) -> Self {
        Self { io: Io { tasks, cancellation: Cancellation::default(), is_rehearsal: false } }
    }

    async fn examine(&self, path: &Path, options: &Options) -> Result<Findings, Error> {
        let on_path = |error: Error| error.on(path);
        let place = Place::path(path).map_err(|errno| on_path(Error::from_errno("open", errno)))?;
        let open = Open::new(place, libc::O_PATH);
        let subject = self.io.open(open).await.map_err(on_path)?;
        let status = self.io.status_of(&subject).await.map_err(on_path)?;
        let (magic, available_bytes) = self.file_system(&subject).await.map_err(on_path)?;
        let mut findings = Findings {
            kernel: self.kernel().await,
            engine: self.io.tasks.capabilities(),
            has_registered_buffers: false,
            path: path.to_owned(),
            file_system: magic::name(magic),
            magic,
            available_bytes,
            direct_alignment: alignment(&status),
            obstacle: None,
            trials: Vec::new(),
            forecasts: Vec::new(),
        };
        match self.try_out(&subject, &status, path).await {
            Ok((trials, alignment)) => {
                (findings.trials, findings.direct_alignment) = (trials, alignment);
            }
            Err(error) => findings.obstacle = Some(on_path(error)),
        }
        findings.forecasts = forecast(options, &findings);
        Ok(findings)
    }

    async fn kernel(&self) -> Option<String> {
        let place = Place::path("/proc/sys/kernel/osrelease").ok()?;
        let file = self.io.open(Open::read(place)).await.ok()?;
        let buffer = Buffer::Vec(vec![0; 256]);
        let read = Read { handle: file.into(), buffer, offset_bytes: 0, start: 0, length: 256 };
        let (length, read) = self.io.perform_counted(Operation::Read(read)).await.ok()?;
        let Operation::Read(read) = read else { return None };
        let text = str::from_utf8(read.buffer.part(0, length)?).ok()?;
        Some(text.trim().to_owned())
    }

    async fn file_system(&self, file: &File) -> Result<(u64, u64), Error> {
        let status = FileSystemStatus { file: file.clone(), magic: 0, available_bytes: 0 };
        match self.io.perform(Operation::FileSystemStatus(status)).await? {
            Operation::FileSystemStatus(status) => Ok((status.magic, status.available_bytes)),
            _ => Err(Error::from_errno("status", Errno::EPROTO)),
        }
    }

    /// Tries out what can be done with files in the directory, or beside the file, and asks one of
    /// them how direct I/O is aligned: a directory does not say.
    async fn try_out(
        &self,
        subject: &File,
        status: &FileStatus,
        path: &Path,
    ) -> Result<(Vec<Trial>, (u32, u32)), Error> {
        let directory = match status.kind {
            FileKind::Directory => subject.clone(),
            _ => self.parent(path).await?,
        };
        let mut trials = Vec::new();
        let (file, has_unnamed) = self.scratch_file(&directory).await?;
        trials.push(Trial { what: "unnamed-files", outcome: has_unnamed });
        let (other, _) = self.scratch_file(&directory).await?;
        let alignment = alignment(&self.io.status_of(&file).await?);
        for (what, outcome) in [
            ("write", self.write(&file, 0).await),
            ("clone", self.clone_file(&file, &other).await),
            ("preallocate", self.preallocate(&other).await),
            ("holes", self.holes(&file).await),
            ("user-attributes", self.set_attribute(&file).await),
            ("access-control-lists", self.access_list(&file).await),
            ("cachestat", self.cache_status(&file).await),
            ("direct-io", self.write_direct(&file, alignment).await),
        ] {
            trials.push(Trial { what, outcome });
        }
        Ok((trials, alignment))
    }

    async fn parent(&self, path: &Path) -> Result<File, Error> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let place = Place::path(parent.unwrap_or(Path::new(".")))
            .map_err(|errno| Error::from_errno("open", errno))?;
        self.io.open(Open::new(place, libc::O_PATH | libc::O_DIRECTORY)).await
    }

    /// A file without a name, and whether it never had one.
    async fn scratch_file(
        &self,
        directory: &File,
    ) -> Result<(File, Result<(), Option<Errno>>), Error> {
        let place = Place::at(directory, &Name::from(c"."));
        let flags = libc::O_TMPFILE | libc::O_RDWR;
        let open = Open { mode: 0o600, ..Open::new(place, flags) };
        match self.io.open(open).await {
            Ok(file) => Ok((file, Ok(()))),
            // EISDIR from kernels or file systems that know nothing of O_TMPFILE.
            Err(error) if matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EISDIR)) => {
                let file = self.nameless_file(directory).await?;
                Ok((file, Err(error.errno())))
            }
            Err(error) => Err(error),
        }
    }

    async fn nameless_file(&self, directory: &File) -> Result<File, Error> {
        let number = self.io.tasks.wall_clock().nanoseconds;
        let name = format!(".ucp-doctor-{}-{number}", self.io.tasks.now().0);
        let name = Name::new(name).map_err(|errno| Error::from_errno("open", errno))?;
        let place = Place::at(directory, &name);
        let file = self.io.open(Open::create_new(place.clone(), 0o600).confined()).await?;
        let unlink = Unlink { place, is_directory: false };
        self.io.perform_always(Operation::Unlink(unlink)).await?;
        Ok(file)
    }

    async fn write(&self, file: &File, offset_bytes: u64) -> Result<(), Option<Errno>> {
        let pool = self.io.tasks.buffer_pool(1, PROBE_BYTES).map_err(Some)?;
        let lease = pool.lease().ok_or(None)?;
        let length = PROBE_BYTES;
        let buffer = Buffer::from(lease);
        let write = Write { handle: file.into(), buffer, offset_bytes, start: 0, length };
        let written = self.io.perform_counted(Operation::Write(write)).await;
        let (bytes, _) = written.map_err(|error| error.errno())?;
        if bytes == length { Ok(()) } else { Err(None) }
    }

    async fn write_direct(&self, file: &File, alignment: (u32, u32)) -> Result<(), Option<Errno>> {
        self.ask(SetDirect { file: file.clone(), is_direct: true }).await?;
        self.write(file, 0).await?;
        // tmpfs takes the flag and goes on as before (Linux 6.6).
        if alignment == (0, 0) { Err(None) } else { Ok(()) }
    }

    async fn clone_file(&self, source: &File, target: &File) -> Result<(), Option<Errno>> {
        self.ask(CloneFile { source: source.clone(), target: target.clone() }).await
    }

    async fn preallocate(&self, file: &File) -> Result<(), Option<Errno>> {
        let mode = AllocateMode::Extend;
        let length_bytes = 16 * u64::from(PROBE_BYTES);
        self.ask(Allocate { file: file.clone(), mode, offset_bytes: 0, length_bytes }).await
    }

    /// Makes a hole behind the data, and looks whether it is told.
    async fn holes(&self, file: &File) -> Result<(), Option<Errno>> {
        let length_bytes = 64 * u64::from(PROBE_BYTES);
        self.ask(Truncate { file: file.clone(), length_bytes }).await?;
        let seek = Seek { file: file.clone(), target: SeekTarget::Hole, offset_bytes: 0 };
        let found = self.io.perform(Operation::Seek(seek)).await.map_err(|error| error.errno())?;
        match found {
            Operation::Seek(seek) if seek.offset_bytes < length_bytes => Ok(()),
            // The end only: whoever asks is told that all is data.
            _ => Err(None),
        }
    }

    async fn set_attribute(&self, file: &File) -> Result<(), Option<Errno>> {
        let name = Name::from(c"user.ucp-doctor");
        let value = Buffer::Vec(b"1".to_vec());
        self.ask(SetAttribute { file: file.clone(), name, value }).await
    }

    async fn access_list(&self, file: &File) -> Result<(), Option<Errno>> {
        let name = Name::from(c"system.posix_acl_access");
        let buffer = Buffer::Vec(vec![0; 256]);
        match self.ask(GetAttribute { file: file.clone(), name, buffer }).await {
            // There could be one.
            Err(Some(Errno::ENODATA)) => Ok(()),
            answer => answer,
        }
    }

    async fn cache_status(&self, file: &File) -> Result<(), Option<Errno>> {
        let length_bytes = u64::from(PROBE_BYTES);
        self.ask(CacheStatus { file: file.clone(), offset_bytes: 0, length_bytes }).await
    }

    async fn ask(&self, operation: impl Into<Operation>) -> Result<(), Option<Errno>> {
        self.io.perform(operation.into()).await.map(drop).map_err(|error| error.errno())
    }
}

impl Findings {
    /// Whether something was tried out and works.
    #[must_use]
    pub fn works(&self, what: &str) -> bool {
        self.trials.iter().any(|trial| trial.what == what && trial.outcome.is_ok())
    }
}

fn alignment(status: &FileStatus) -> (u32, u32) {
    (status.direct_memory_alignment, status.direct_offset_alignment)
}

/// Which way files of each kind go between two files of this file system. It follows the same rules
/// as a copy does.
fn forecast(options: &Options, findings: &Findings) -> Vec<Forecast> {
    let direct_alignment = findings.direct_alignment.0.max(findings.direct_alignment.1);
    let end = End { magic: findings.magic, direct_alignment };
    let (small, large) = (u64::from(options.small_bytes_max), options.large_bytes_min);
    let mut forecasts = Vec::new();
    let mut add = |file, path, reason| forecasts.push(Forecast { file, path, reason });
    add("small", DataPath::Small, PathReason::Small { bytes_max: small });
    if may_clone(options, large) && findings.works("clone") {
        add("larger", DataPath::Clone, PathReason::ExtentsShared);
        return forecasts;
    }
    add("medium", DataPath::Small, PathReason::NotLarge { bytes_min: large });
    if may_copy_range(options, end, end) {
        add("large", DataPath::CopyRange, PathReason::SameServer);
        return forecasts;
    }
    let durable = Options { durability: Durability::Full, ..options.clone() };
    let has_cachestat = findings.works("cachestat") || findings.trials.is_empty();
    let cases = [
        ("large, not cached", options, 0),
        ("large, cached", options, 1000),
        ("large, cached, --durable", &durable, 1000),
    ];
    for (file, options, permille) in cases {
        let cached_permille = has_cachestat.then_some(permille);
        let facts = Facts { source: end, target: end, cached_permille };
        let route = choose(options, &facts);
        add(file, route.path, route.reason);
    }
    forecasts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(magic: u64, works: &[&'static str]) -> Findings {
        Findings {
            kernel: None,
            engine: super::super::inline_proactor().capabilities(),
            has_registered_buffers: false,
            path: PathBuf::new(),
            file_system: magic::name(magic),
            magic,
            available_bytes: 0,
            direct_alignment: (512, 512),
            obstacle: None,
            trials: works.iter().map(|what| Trial { what, outcome: Ok(()) }).collect(),
            forecasts: Vec::new(),
        }
    }

    #[test]
    fn the_forecast_is_what_a_copy_would_do() {
        use DataPath::{Buffered, Clone, CopyRange, Direct, MixedDirect, Small};
        const BTRFS: u64 = 0x9123_683E;
        let cases: [(&str, u64, &[&str], &[DataPath]); 5] = [
            ("ext4", magic::EXT4, &["cachestat"], &[Small, Small, Direct, Buffered, MixedDirect]),
            ("no cachestat", magic::EXT4, &["write"], &[Small, Small, Direct, Direct, Direct]),
            ("xfs", magic::XFS, &["clone", "cachestat"], &[Small, Clone]),
            ("btrfs", BTRFS, &["cachestat"], &[Small, Small, Buffered, Buffered, Buffered]),
            ("nfs", magic::NFS, &["cachestat"], &[Small, Small, CopyRange]),
        ];
        for (name, magic, works, want) in cases {
            let forecasts = forecast(&Options::default(), &findings(magic, works));
            let got: Vec<DataPath> = forecasts.iter().map(|forecast| forecast.path).collect();
            assert_eq!(got, want, "{name}");
        }
    }
}
