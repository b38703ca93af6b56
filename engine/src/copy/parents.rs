//! The directories above a source, made anew below the target directory (`--parents`).

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;

use super::Durability;
use super::directory::Directory;
use super::publish::split_path;
use super::worker::Worker;
use crate::error::{Errno, Error, ErrorKind, Refusal};
use crate::operation::{File, FileKind, MakeDirectory, Name, Open, Operation, Place};

/// Directories that were made for one source, outermost first. They get mode and times when the
/// source is copied: until then something may still be made in them.
#[derive(Default)]
pub(super) struct Parents(Vec<Arc<Directory>>);

/// How far the path of a source was followed on both sides.
struct Depth {
    source: PathBuf,
    target: File,
    target_path: PathBuf,
    /// The directories above the target, up to where it began.
    above: Vec<File>,
}

impl Worker<'_> {
    /// Makes what is missing of the directories above `source` in the target directory. Returns the
    /// innermost, with its path.
    pub(super) async fn make_parents(
        &self,
        source: &Path,
        (directory, path): (&File, &Path),
        parents: &mut Parents,
    ) -> Result<(File, PathBuf), Error> {
        let bytes = source.as_os_str().as_bytes();
        let (parent, leaf) = split_path(bytes);
        if !bytes.starts_with(parent) || leaf == parent {
            // It is a name alone.
            return Ok((directory.clone(), path.to_owned()));
        }
        let root = if bytes.starts_with(b"/") { "/" } else { "" };
        let mut depth = Depth {
            source: PathBuf::from(root),
            target: directory.clone(),
            target_path: path.to_owned(),
            above: Vec::new(),
        };
        for part in parent.split(|byte| *byte == b'/') {
            match part {
                b"" => {}
                b"." => depth.source.push("."),
                b".." => depth.climb(source)?,
                part => {
                    let name = Name::new(part).map_err(|e| Error::from_errno("open", e))?;
                    self.descend(&mut depth, &name, parents).await?;
                }
            }
        }
        if self.job.options.durability == Durability::Full {
            // Whatever is done below them is found by them.
            for directory in &parents.0 {
                let synced = self.sync_names_above(directory).await;
                synced.map_err(|error| error.on(directory.target_path()))?;
            }
        }
        Ok((depth.target, depth.target_path))
    }

    /// Enters one more directory on both sides, and makes it on the target's if it is not there.
    async fn descend(
        &self,
        depth: &mut Depth,
        name: &Name,
        parents: &mut Parents,
    ) -> Result<(), Error> {
        depth.source.push(name.as_os_str());
        depth.target_path.push(name.as_os_str());
        let on_source = |error: Error| error.doing("look up").on(&depth.source);
        let on_target = |error: Error| error.on(&depth.target_path);
        let place = Place::path(&depth.source).map_err(|e| Error::from_errno("open", e))?;
        let open = Open::new(place, libc::O_PATH | libc::O_DIRECTORY);
        let source = self.io.open(open).await.map_err(on_source)?;
        let status = self.io.status_of(&source).await.map_err(on_source)?;
        let place = Place::at(&depth.target, name);
        let mode = status.mode & 0o777 | 0o700;
        let make = MakeDirectory { place: place.clone(), mode };
        let made = self.io.perform(Operation::MakeDirectory(make)).await;
        let made_with = match made {
            Ok(_) => Some(mode),
            Err(error) if error.errno() == Some(Errno::EEXIST) => None,
            Err(error) => return Err(on_target(error)),
        };
        let standing = self.io.status_at(place, false).await.map_err(on_target)?;
        if standing.is_some_and(|standing| standing.kind != FileKind::Directory) {
            return Err(on_target(Error::refused("create", Refusal::DirectoryOntoFile)));
        }
        let target = self.open_below(&depth.target, name).await.map_err(on_target)?;
        if made_with.is_some() {
            let target_status = self.io.status_of(&target).await.map_err(on_target)?;
            let source = (source, status, depth.source.as_path());
            let target = (target.clone(), target_status, depth.target_path.as_path());
            let made = (made_with, None, Some(depth.target.clone()));
            let heritage = self.heritage(&target.0).await;
            parents.0.push(Arc::new(Directory::root(false, source, target, made, heritage)));
        }
        depth.above.push(std::mem::replace(&mut depth.target, target));
        Ok(())
    }

    /// Gives the directories that were made their modes and times, innermost first.
    pub(super) async fn finish_parents(&self, parents: Parents) {
        for directory in parents.0.into_iter().rev() {
            self.release(directory).await;
        }
    }
}

impl Depth {
    /// Goes back up on both sides; never above the target directory.
    fn climb(&mut self, operand: &Path) -> Result<(), Error> {
        let Some(above) = self.above.pop() else {
            let reason = "with --parents it would be copied outside of the target directory";
            return Err(Error::new(ErrorKind::Operand, "copy", reason).on(operand));
        };
        self.target = above;
        self.source.push("..");
        self.target_path.push("..");
        Ok(())
    }
}
