//! A look at the directories: what is there now, and which source each file is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::libc;

use super::Tail;
use super::io::{open, perform, recall, status, trail_at};
use super::options::Directory;
use super::source::FileKey;
use super::sources::{Claim, Seen, is_named_after};
use super::trail::Trail;
use crate::buffer::Buffer;
use crate::error::{Errno, Error};
use crate::limits::{LISTING_BYTES, TAIL_HEAD_BYTES};
use crate::operation::{
    File, FileKind, FileStatus, ListDirectory, Name, Open, Operation, Place, Resolve, Subject,
    directory_entries,
};

/// A file that is not known, and open to be looked into.
struct Stranger {
    file: File,
    seen: Seen,
}

impl Tail {
    /// Looks at everything once. What can't be looked at fails it, and changes nothing that a later
    /// look would not find.
    pub(super) async fn look(&mut self) -> Result<(), Error> {
        self.sources.begin_look();
        let seen = self.list_all().await?;
        let now = self.tasks.now();
        let strangers = self.sources.on_seen(&seen, now);
        for id in self.sources.unseen(&seen) {
            let path = self.sources.get(id).path.clone();
            let subject = Subject::File(self.files[&id].clone());
            let found = status(&self.tasks, subject, false, &path).await?;
            let seen = (found.size_bytes, found.modified);
            self.sources.on_unseen(id, found.links, seen, now);
        }
        let (strangers, missed) = self.open_all(strangers).await?;
        let strangers = self.find_own(strangers).await?;
        let mut strangers = self.find_copies(strangers).await?;
        // A file before its copy, which is no longer than it, and named after it.
        strangers.sort_by(|one, other| {
            let order = other.seen.size_bytes.cmp(&one.seen.size_bytes);
            order.then_with(|| one.seen.path.cmp(&other.seen.path))
        });
        for stranger in strangers {
            // It may be the copy of one that could not be opened.
            if !missed.iter().any(|path| is_named_after(&stranger.seen.path, path)) {
                self.find_new(stranger).await?;
            }
        }
        for id in self.sources.end_look(missed.is_empty(), self.tasks.now()) {
            self.files.remove(&id);
        }
        self.files.retain(|id, _| self.sources.is_open(*id));
        Ok(())
    }

    async fn list_all(&self) -> Result<Vec<Seen>, Error> {
        let mut seen = Vec::new();
        let inodes = self.sources.inodes();
        for directory in &self.options.directories {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            let place = Place::path(&directory.path)
                .map_err(|errno| Error::from_errno("open", errno).on(&directory.path))?;
            let file = open(&self.tasks, Open::new(place, flags), &directory.path).await?;
            for (name, is_wanted) in self.list(directory, &file, &inodes).await? {
                let path = directory.path.join(name.as_os_str());
                let subject = Subject::Place(Place::at(&file, &name));
                match status(&self.tasks, subject, self.options.follow_links, &path).await {
                    Ok(found) => seen.extend(seen_as(&found, &path, is_wanted)),
                    // It went meanwhile.
                    Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        seen.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(seen)
    }

    /// The names that are followed, or that have the number of a file that is.
    async fn list(
        &self,
        directory: &Directory,
        file: &File,
        inodes: &BTreeSet<u64>,
    ) -> Result<Vec<(Name, bool)>, Error> {
        let mut names = Vec::new();
        let mut buffer = Buffer::from(vec![0; LISTING_BYTES]);
        loop {
            let list = ListDirectory { directory: file.clone(), buffer };
            let (result, operation) = perform(&self.tasks, list).await;
            let length = result.map_err(|error| {
                Error::from_errno("list directory", error.errno).on(&directory.path)
            })?;
            let Operation::ListDirectory(list) = operation else {
                unreachable!("an operation comes back as itself")
            };
            buffer = list.buffer;
            if length == 0 {
                return Ok(names);
            }
            for entry in directory_entries(buffer.part(0, length).unwrap_or_default()) {
                let name = Name::from(entry.name);
                let is_wanted = (directory.wants)(&name);
                if is_wanted || inodes.contains(&entry.inode) {
                    names.push((name, is_wanted));
                }
            }
        }
    }

    /// Opens what is not known. Returns also what could not be opened, and may be later.
    async fn open_all(
        &mut self,
        strangers: Vec<Seen>,
    ) -> Result<(Vec<Stranger>, Vec<PathBuf>), Error> {
        let (mut opened, mut missed) = (Vec::new(), Vec::new());
        for seen in strangers {
            if seen.size_bytes == 0 {
                // There is nothing to know it by; but what had its numbers is not there.
                self.sources.own_claims(&seen);
                continue;
            }
            let (key, path) = (seen.key, seen.path.clone());
            match self.open_stranger(seen).await {
                // The name stands for another file by now, which this look may have met before.
                Ok(Some(stranger)) if stranger.seen.key != key => missed.push(path),
                Ok(Some(stranger)) if stranger.seen.size_bytes == 0 => {
                    self.sources.own_claims(&stranger.seen);
                }
                Ok(stranger) => opened.extend(stranger),
                Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                // One file that can't be read keeps nobody from the others.
                Err(error) => {
                    if !matches!(error.errno(), Some(Errno::EACCES | Errno::EPERM)) {
                        missed.push(path);
                    }
                    self.complain(error);
                }
            }
        }
        Ok((opened, missed))
    }

    async fn open_stranger(&self, seen: Seen) -> Result<Option<Stranger>, Error> {
        let place = Place::path(&seen.path)
            .map_err(|errno| Error::from_errno("open", errno).on(&seen.path))?;
        // It may be a FIFO by now: that is not waited for.
        let read = Open::new(place, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY);
        let read = match self.options.follow_links {
            true => read,
            false => Open { flags: read.flags | libc::O_NOFOLLOW, resolve: Resolve::ANY, ..read },
        };
        let file = open(&self.tasks, read, &seen.path).await?;
        let subject = Subject::File(file.clone());
        let found = status(&self.tasks, subject, false, &seen.path).await?;
        let seen = seen_as(&found, &seen.path, seen.is_wanted);
        Ok(seen.map(|seen| Stranger { file, seen }))
    }

    /// Finds the files that the checkpoint tells of, by their numbers.
    async fn find_own(&mut self, strangers: Vec<Stranger>) -> Result<Vec<Stranger>, Error> {
        let mut left = Vec::new();
        for stranger in strangers {
            let claims = self.sources.own_claims(&stranger.seen);
            let is_found = self.adopt_first(&stranger, &claims).await?;
            if !is_found {
                left.push(stranger);
            }
        }
        Ok(left)
    }

    /// Finds the files that are copies of what was lost.
    async fn find_copies(&mut self, strangers: Vec<Stranger>) -> Result<Vec<Stranger>, Error> {
        let mut left = Vec::new();
        for mut stranger in strangers {
            if !self.find_copied(&mut stranger).await? {
                left.push(stranger);
            }
        }
        Ok(left)
    }

    /// Gives a file to the source that it is a copy of, if it is one. The truncation that is known of
    /// by now came after the copying: the length that the file has now is the copy's, the one that
    /// the look has seen may have been less.
    async fn find_copied(&mut self, stranger: &mut Stranger) -> Result<bool, Error> {
        if !self.sources.has_lost() {
            return Ok(false);
        }
        let subject = Subject::File(stranger.file.clone());
        let found = status(&self.tasks, subject, false, &stranger.seen.path).await?;
        stranger.seen.size_bytes = found.size_bytes;
        stranger.seen.modified = found.modified;
        let claims = self.sources.copy_claims(&stranger.seen);
        self.adopt_first(stranger, &claims).await
    }

    /// Gives a file to the first source whose marker it carries. The others hear that it is not
    /// theirs.
    async fn adopt_first(&mut self, stranger: &Stranger, claims: &[Claim]) -> Result<bool, Error> {
        let Stranger { file, seen } = stranger;
        let mut is_adopted = false;
        for claim in claims {
            let trail = match is_adopted {
                true => None,
                false => recall(&self.tasks, file, &claim.marker, &seen.path).await?,
            };
            let Some(trail) = trail else {
                self.sources.refuse(claim.id, seen);
                continue;
            };
            let trail = match claim.marker.offset_bytes == claim.resume_bytes {
                true => trail,
                false => trail_at(&self.tasks, file, claim.resume_bytes, &seen.path).await?,
            };
            self.sources.adopt(claim, seen, trail, self.tasks.now());
            self.files.insert(claim.id, file.clone());
            is_adopted = true;
        }
        Ok(is_adopted)
    }

    /// A file that no source has: one of its own, or a copy in the making.
    async fn find_new(&mut self, stranger: Stranger) -> Result<(), Error> {
        let Stranger { file, seen } = stranger;
        if !self.sources.follows(&seen) {
            return Ok(());
        }
        let now = self.tasks.now();
        let whole = trail_at(&self.tasks, &file, seen.size_bytes, &seen.path).await?;
        if whole.stem(TAIL_HEAD_BYTES).is_empty() {
            // Truncated meanwhile: nothing would tell it from another file.
            return Ok(());
        }
        for original in self.sources.originals(&seen, whole.stem(TAIL_HEAD_BYTES), now) {
            let (path, position) = {
                let source = self.sources.get(original);
                (source.path.clone(), source.position())
            };
            let its = self.files[&original].clone();
            if recall(&self.tasks, &its, &whole.marker(), &path).await?.is_some() {
                self.sources.hold(&seen, original, now);
                return Ok(());
            }
            if recall(&self.tasks, &its, &position, &path).await?.is_none() {
                // Truncated while this look lasts: the two differ because of that.
                self.sources.on_truncated(original);
                let mut stranger = Stranger { file: file.clone(), seen: seen.clone() };
                if self.find_copied(&mut stranger).await? {
                    return Ok(());
                }
            }
        }
        let begin = Trail::at(0, whole.stem(TAIL_HEAD_BYTES).to_vec(), Vec::new());
        match self.sources.found(&seen, begin) {
            Some(id) => {
                self.files.insert(id, file);
            }
            None => self.complain(Error::from_errno("follow", Errno::EMFILE).on(&seen.path)),
        }
        Ok(())
    }
}

/// A regular file as it was seen; none of another kind.
fn seen_as(found: &FileStatus, path: &Path, is_wanted: bool) -> Option<Seen> {
    (found.kind == FileKind::Regular).then(|| Seen {
        path: path.to_owned(),
        is_wanted,
        key: FileKey { device: found.device, inode: found.inode },
        size_bytes: found.size_bytes,
        modified: found.modified,
    })
}
