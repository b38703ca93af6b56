//! The list of digests of all files of a run: collected while they are copied, sorted by name, and
//! written under a temporary name that is renamed at the end.
//!
//! A name is relative to the target directory, so that `cd TARGET && sha256sum -c LIST` checks it.
//! The list is kept in memory until the end, up to [`MANIFEST_BYTES_MAX`].

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::publish::{Target, split_path};
use super::worker::{Labels, Worker};
use super::{Durability, FollowLinks, Manifest, ManifestForm};
use crate::buffer::Buffer;
use crate::digest::{Digest, Line};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::operation::{
    ChangeMode, Close, FileKind, FileStatus, Handle, Name, Operation, Place, SyncReach, Write,
};

/// Bytes of a list that are written at a time.
const PART_BYTES: usize = 256 << 10;

/// The list of a run.
#[derive(Debug)]
pub(super) struct List {
    /// What names are relative to.
    base: PathBuf,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_name: BTreeMap<Box<[u8]>, (Digest, u64)>,
    bytes: u64,
    /// Of files with several names, by the source's device and inode: for the names that come later.
    of_several_names: HashMap<(u64, u64), (Digest, u64)>,
}

/// The place of a list, looked at before anything is copied.
pub(super) struct ManifestPlace {
    target: Target,
    /// Of the directory that the list will be in.
    directory: FileStatus,
    standing: Option<FileStatus>,
    labels: ManifestLabels,
}

struct ManifestLabels(PathBuf);

impl Labels for ManifestLabels {
    fn source(&self) -> PathBuf {
        self.0.clone()
    }

    fn target(&self) -> PathBuf {
        self.0.clone()
    }
}

impl ManifestPlace {
    /// Whether a file is what stands at the place.
    pub(super) fn is(&self, file: &FileStatus) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.is_same_file(file))
    }

    /// Whether a directory is the one that the list will be in.
    pub(super) fn is_in(&self, directory: &FileStatus) -> bool {
        self.directory.is_same_file(directory)
    }
}

impl List {
    pub(super) fn new(base: &Path) -> Self {
        Self { base: base.to_owned(), entries: Mutex::default() }
    }

    /// A target's name in the list: relative to the target directory, or its last part.
    fn name<'a>(&self, target: &'a Path) -> &'a [u8] {
        match target.strip_prefix(&self.base) {
            Ok(below) if !below.as_os_str().is_empty() => below.as_os_str().as_bytes(),
            _ => target.file_name().unwrap_or(target.as_os_str()).as_bytes(),
        }
    }

    fn add(&self, target: &Path, digest: Digest, size: u64) {
        let name = self.name(target);
        let mut entries = self.lock();
        entries.bytes += name.len() as u64 + size_of::<(Box<[u8]>, (Digest, u64))>() as u64;
        if entries.bytes <= MANIFEST_BYTES_MAX {
            entries.by_name.insert(name.into(), (digest, size));
        }
    }

    /// Remembers what was listed for the first name of a file with several.
    fn remember(&self, file: (u64, u64), first: &Path) {
        let name = self.name(first);
        let mut entries = self.lock();
        if let Some(listed) = entries.by_name.get(name).copied() {
            entries.of_several_names.insert(file, listed);
        }
    }

    fn is_too_long(&self) -> bool {
        self.lock().bytes > MANIFEST_BYTES_MAX
    }

    /// Takes the first lines that are left, about [`PART_BYTES`] of them; empty when none are.
    fn take_part(&self, form: ManifestForm) -> Vec<u8> {
        let mut entries = self.lock();
        let mut part = Vec::with_capacity(PART_BYTES);
        while part.len() < PART_BYTES
            && let Some((name, (digest, size))) = entries.by_name.pop_first()
        {
            match form {
                ManifestForm::Lines => Line { digest, name: &name }.write(&mut part),
                ManifestForm::Json => write_object(&mut part, &name, digest, size),
            }
        }
        part
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object and the end of its line. A name that is not UTF-8 is given in base64.
fn write_object(part: &mut Vec<u8>, name: &[u8], digest: Digest, size: u64) {
    let (key, name) = match str::from_utf8(name) {
        Ok(name) => ("path", name.to_owned()),
        Err(_) => ("path_base64", BASE64.encode(name)),
    };
    let object = serde_json::json!({
        key: name, "bytes": size, "algorithm": digest.algorithm().name(),
        "digest": digest.to_string(),
    });
    part.extend_from_slice(object.to_string().as_bytes());
    part.push(b'\n');
}

impl Worker<'_> {
    /// Puts a file that was copied into the list, if one is made.
    pub(super) fn list_in_manifest(&self, digest: Digest, size: u64, labels: &dyn Labels) {
        let Some(list) = &self.job.list else { return };
        let target = labels.target();
        list.add(&target, digest, size);
        let is_json = self
            .job
            .options
            .verification
            .manifest
            .as_ref()
            .is_some_and(|manifest| manifest.form == ManifestForm::Json);
        if !is_json && !(Line { digest, name: list.name(&target) }).can_be_checked() {
            self.warn(
                labels,
                "b3sum can't check a name that is not UTF-8; it is in the list as b3sum writes it",
            );
        }
    }

    /// Keeps the digest of a file's first name, to be called once that was copied.
    pub(super) fn remember_in_manifest(&self, file: (u64, u64), labels: &dyn Labels) {
        if let Some(list) = &self.job.list {
            list.remember(file, &labels.target());
        }
    }

    /// Puts a name that was linked to the copy of another into the list, if one is made.
    pub(super) fn list_link_in_manifest(&self, source: &FileStatus, labels: &dyn Labels) {
        let Some(list) = &self.job.list else { return };
        let file = (source.device, source.inode);
        let listed = list.lock().of_several_names.get(&file).copied();
        match listed {
            Some((digest, size)) => self.list_in_manifest(digest, size, labels),
            None if source.kind == FileKind::Regular => {
                self.warn(labels, "it is not in the list: no digest of its first name is known");
            }
            None => {}
        }
    }

    /// Looks where the list will be written, before anything is copied.
    pub(super) async fn manifest_place(
        &self,
        manifest: &Manifest,
        sources: &[PathBuf],
    ) -> Result<ManifestPlace, Error> {
        let label = |error: Error| error.on(&manifest.path);
        let name = |bytes| Name::new(bytes).map_err(|errno| Error::from_errno("open", errno));
        let (parent, leaf) = split_path(manifest.path.as_os_str().as_bytes());
        let parent = Place { directory: None, name: name(parent).map_err(label)? };
        let directory = self.open_directory(parent).await.map_err(label)?;
        // Backups are made of files, not of lists of them.
        let (is_operand, is_backup) = (true, true);
        let target = Target::new(directory, name(leaf).map_err(label)?);
        let target = Target { is_operand, is_backup, ..target };
        let standing = self.status_of_place(&target).await.map_err(label)?;
        if standing.is_some_and(|standing| standing.kind != FileKind::Regular) {
            let reason = "the list can only replace a regular file";
            return Err(label(Error::new(ErrorKind::Operand, "create", reason)));
        }
        let directory = self.io.status_of(&target.directory).await.map_err(label)?;
        let labels = ManifestLabels(manifest.path.clone());
        let place = ManifestPlace { target, directory, standing, labels };
        for source in sources {
            self.check_spares(&place, source).await.map_err(label)?;
        }
        Ok(place)
    }

    /// Fails if the list would replace a source, or be written into one.
    async fn check_spares(&self, list: &ManifestPlace, source: &Path) -> Result<(), Error> {
        let refuse = |reason| Err(Error::new(ErrorKind::Operand, "create", reason));
        let follows = self.job.options.links != FollowLinks::Never;
        let Ok(place) = Place::path(source) else { return Ok(()) };
        // Why a source can't be looked at is told when it is to be copied.
        let Ok(Some(status)) = self.io.status_at(place, follows).await else { return Ok(()) };
        let is_directory = status.kind == FileKind::Directory;
        if is_directory && self.is_inside(&list.target.directory, &status).await? {
            return refuse("the list would be written into a source");
        }
        if list.is(&status) {
            return refuse("the list would replace a source");
        }
        Ok(())
    }

    /// Writes the list, and gives it its name if nothing else has got it meanwhile.
    pub(super) async fn write_manifest(
        &self,
        manifest: &Manifest,
        place: &ManifestPlace,
    ) -> Result<(), Error> {
        let label = |error: Error| error.on(&manifest.path);
        let Some(list) = &self.job.list else { return Ok(()) };
        if list.is_too_long() {
            let reason = format!("its names take more than {MANIFEST_BYTES_MAX} bytes");
            return Err(label(Error::new(ErrorKind::Unsupported, "write list", reason)));
        }
        let now = self.status_of_place(&place.target).await.map_err(label)?;
        let is_as_before = match (&place.standing, &now) {
            (None, None) => true,
            (Some(before), Some(now)) => before.is_same_file(now),
            _ => false,
        };
        if !is_as_before {
            let reason = "a file of that name was made while the list was";
            return Err(label(Error::new(ErrorKind::AlreadyExists, "publish list", reason)));
        }
        let replaced = place.standing.as_ref();
        // A manifest is not copied: there is nothing to go on with.
        let nothing = FileStatus::default();
        let (is_there, labels) = (replaced.is_some(), &place.labels);
        let new = self.make_temporary(&place.target, replaced, is_there, &nothing, labels).await?;
        let mode = replaced.map_or(0o666 & !self.job.options.umask, |standing| standing.mode);
        let written = self.fill_manifest(list, &new.file, manifest.form, mode).await;
        let published = match written.map_err(label) {
            Ok(()) => self.publish(&new, &place.labels).await,
            Err(error) => Err(error),
        };
        match published {
            Ok(_) => {
                let close = Operation::Close(Close::file(new.into_file()));
                self.io.perform_always(close).await.map(drop).map_err(label)
            }
            Err(error) => {
                self.discard(new).await;
                Err(error)
            }
        }
    }

    async fn status_of_place(&self, target: &Target) -> Result<Option<FileStatus>, Error> {
        self.io.status_at(Place::at(&target.directory, &target.name), false).await
    }

    async fn fill_manifest(
        &self,
        list: &List,
        file: &crate::operation::File,
        form: ManifestForm,
        mode: u32,
    ) -> Result<(), Error> {
        let mut offset = 0;
        loop {
            let part = list.take_part(form);
            if part.is_empty() {
                break;
            }
            offset = self.write_part(file, part, offset).await?;
        }
        let change = ChangeMode { file: file.clone(), mode };
        self.io.perform(Operation::ChangeMode(change)).await?;
        match self.job.options.durability {
            Durability::None => Ok(()),
            _ => self.sync(file, SyncReach::File).await,
        }
    }

    /// Writes all of a part; returns where it ends.
    async fn write_part(
        &self,
        file: &crate::operation::File,
        part: Vec<u8>,
        offset: u64,
    ) -> Result<u64, Error> {
        let mut buffer = Buffer::Vec(part);
        let length = buffer.length();
        let mut start = 0;
        while start < length {
            let at = offset + u64::from(start);
            let write = Write {
                handle: Handle::from(file),
                buffer,
                offset_bytes: at,
                start,
                length: length - start,
            };
            let written = self.io.perform_counted(Operation::Write(write)).await;
            let (bytes, Operation::Write(write)) = written.map_err(|error| error.at(at))? else {
                unreachable!("an operation comes back as itself")
            };
            if bytes == 0 {
                return Err(Error::from_errno("write", Errno::EIO).at(at));
            }
            buffer = write.buffer;
            start += bytes;
        }
        Ok(offset + u64::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn names_are_relative_to_the_target() {
        let cases = [
            ("/backup", "/backup/tree/a", "tree/a"),
            ("/backup/", "/backup/a", "a"),
            ("new", "new/x/y", "x/y"),
            ("dir/new.img", "dir/new.img", "new.img"),
            ("../x", "../x/y", "y"),
        ];
        for (base, target, want) in cases {
            let list = List::new(Path::new(base));
            assert_eq!(list.name(Path::new(target)), want.as_bytes(), "{base} {target}");
        }
    }

    #[test]
    fn lines_are_sorted_and_complete() {
        let list = List::new(Path::new("t"));
        let digest = Algorithm::Crc32.digest(b"abc");
        for name in ["t/b", "t/a/z", "t/a\nb", "t/b"] {
            list.add(Path::new(name), digest, 3);
        }
        let text = String::from_utf8(list.take_part(ManifestForm::Lines)).unwrap();
        assert_eq!(text, "\\352441c2  a\\nb\n352441c2  a/z\n352441c2  b\n");
        assert!(list.take_part(ManifestForm::Lines).is_empty());
    }

    #[test]
    fn an_object_says_what_its_name_is_made_of() {
        let digest = Algorithm::Crc32.digest(b"abc");
        let cases: [(&[u8], &str); 2] = [
            (b"a\"\n", r#"{"algorithm":"crc32","bytes":3,"digest":"352441c2","path":"a\"\n"}"#),
            (
                b"\xff",
                r#"{"algorithm":"crc32","bytes":3,"digest":"352441c2","path_base64":"/w=="}"#,
            ),
        ];
        for (name, want) in cases {
            let mut part = Vec::new();
            write_object(&mut part, name, digest, 3);
            assert_eq!(String::from_utf8(part).unwrap(), format!("{want}\n"));
        }
    }
}
