//! Keeping what a file has beside its bytes, in the order that loses none of it.
//!
//! ```text
//! owner -> extended attributes, capabilities -> access control lists -> mode -> times
//! ```
//!
//! Giving a file away takes set-id bits and capabilities from it (`chown(2)`), a list changes the
//! mode, and times come last, so that they never vouch for what is not there. All of it is done by
//! descriptor, on both sides; that of a link or a special file is opened with O_PATH.

use super::access::{
    Attribute, Heritage, Owner, SET_ID, SPECIAL, Wanted, attribute, mode, without_list,
};
use super::continuation::Staging;
use super::publish::{Made, NewFile, Target};
use super::worker::{Labels, Worker};
use super::{Context, Keep, KeepMode, access};
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{ATTRIBUTE_BYTES, ATTRIBUTE_BYTES_MAX};
use crate::operation::{
    ChangeMode, ChangeOwner, ChangeTimes, File, FileKind, FileStatus, GetAttribute, ListAttributes,
    Name, Operation, Place, RemoveAttribute, SetAttribute, Subject,
};

const ACCESS_LIST: &std::ffi::CStr = c"system.posix_acl_access";
const DEFAULT_LIST: &std::ffi::CStr = c"system.posix_acl_default";
const CONTEXT: &std::ffi::CStr = c"security.selinux";

/// A file and its copy, whose attributes are to be kept.
pub(super) struct Pair<'a> {
    pub(super) source: &'a File,
    pub(super) status: &'a FileStatus,
    pub(super) target: &'a File,
    /// What is known of the copy.
    pub(super) copy: Known,
    /// The stage that it is in, if its times vouch for it there.
    pub(super) staging: Option<&'a Staging>,
}

/// What is known of a copy before its attributes are set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Its owner and group; none if that must be asked.
    pub(super) owner: Option<(u32, u32)>,
    /// Its device and inode, where it is not in a stage.
    pub(super) file: Option<(u64, u64)>,
    /// Its mode; none if that is not known.
    pub(super) mode: Option<u32>,
    /// Whether it was there before, with permissions of its own.
    pub(super) is_existing: bool,
    /// What its directory left of its permissions with a list; it has one, too.
    pub(super) inherited: Option<u32>,
}

/// Access control lists of a source.
#[derive(Default)]
struct Lists {
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
}

impl Worker<'_> {
    /// Gives a copy what its source has, as far as was asked for. What can't be kept is told, and
    /// the rest goes on: the bytes are whole all the same.
    pub(super) async fn keep_attributes(
        &self,
        mut pair: Pair<'_>,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let preserve = &self.job.options.preserve;
        self.has_lost.set(false);
        let owner = self.keep_owner(&pair, labels).await?;
        let mut lists = Lists::default();
        if preserve.wants_attributes() {
            lists = self.keep_extended(&mut pair, owner, labels).await?;
        }
        if let Context::Set(context) = &preserve.context {
            let set = self.set_attribute(pair.target, CONTEXT.into(), context.clone()).await;
            self.tell(set, Keep::Required, labels)?;
        }
        if pair.status.kind != FileKind::SymbolicLink {
            self.keep_mode(&pair, owner, lists, labels).await?;
        }
        if preserve.timestamps {
            if let Some(staging) = pair.staging
                && self.has_lost.get()
            {
                self.unmark(staging).await?;
            }
            let changed = self.set_times(&pair).await;
            // What is written in place may be another's.
            let is_needed = preserve.is_asked || !pair.copy.is_existing;
            self.tell(changed, if is_needed { Keep::Required } else { Keep::Silently }, labels)?;
        }
        Ok(())
    }

    /// Gives a symbolic link that was made instead of a copy the source's times, if that was asked
    /// for: as cp, which does not give it the owner.
    pub(super) async fn keep_made_link_times(
        &self,
        source: &FileStatus,
        target: &Target,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let preserve = &self.job.options.preserve;
        if !preserve.is_asked || !preserve.timestamps {
            return Ok(());
        }
        let status = FileStatus { kind: FileKind::SymbolicLink, ..*source };
        let place = Place::at(&target.directory, &target.name);
        let (link, _) = self.open_made_node(place, &status).await?;
        let (source, target, copy) = (&link, &link, Known::default());
        let pair = Pair { source, status: &status, target, copy, staging: None };
        let changed = self.set_times(&pair).await;
        self.tell(changed, Keep::Required, labels).map(drop)
    }

    /// Makes the source's owner the copy's, and says whose it is now.
    async fn keep_owner(&self, pair: &Pair<'_>, labels: &dyn Labels) -> Result<Owner, Error> {
        let preserve = &self.job.options.preserve;
        let wanted = (pair.status.owner, pair.status.group);
        let lends = pair.status.mode & SET_ID != 0 || preserve.attributes != Keep::No;
        if !preserve.ownership && (preserve.lends_rights || !lends) {
            return Ok(if preserve.lends_rights { Owner::Kept } else { Owner::Other });
        }
        let now = match pair.copy.owner {
            Some(owner) => owner,
            None => match self.io.status_of(pair.target).await {
                Ok(status) => (status.owner, status.group),
                Err(error) => {
                    self.tell::<()>(Err(error), Keep::Required, labels)?;
                    return Ok(Owner::Refused);
                }
            },
        };
        if now == wanted {
            return Ok(Owner::Kept);
        }
        if !preserve.ownership {
            return Ok(Owner::Other);
        }
        self.close_to_others(pair).await;
        let changed = self.change_owner(pair.target, Some(wanted.0), wanted.1).await;
        let Err(error) = changed else { return Ok(Owner::Kept) };
        let is_refused = matches!(error.errno(), Some(Errno::EPERM | Errno::EINVAL));
        if is_refused {
            // The group may be one of the user's own: as cp, and whatever comes of it.
            let _ = self.change_owner(pair.target, None, wanted.1).await;
        }
        // Only who may give files away is told that this one could not be.
        let is_expected = is_refused && self.job.surroundings.user != Some(0);
        self.tell::<()>(
            Err(error),
            if is_expected { Keep::Silently } else { Keep::Required },
            labels,
        )?;
        Ok(Owner::Refused)
    }

    /// Nobody gets at an existing file between its new owner and its new mode, if it gets one.
    async fn close_to_others(&self, pair: &Pair<'_>) {
        let gets_mode = self.job.options.preserve.mode == KeepMode::Lists;
        let is_link = pair.status.kind == FileKind::SymbolicLink;
        if pair.copy.is_existing && gets_mode && !is_link {
            let mode = pair.status.mode & pair.copy.mode.unwrap_or(0o600) & 0o700;
            let _ = self.change_mode(pair.target, mode).await;
        }
    }

    /// Copies extended attributes; returns the lists that go with the mode.
    async fn keep_extended(
        &self,
        pair: &mut Pair<'_>,
        owner: Owner,
        labels: &dyn Labels,
    ) -> Result<Lists, Error> {
        let preserve = &self.job.options.preserve;
        let mut lists = Lists::default();
        let names = match self.list_attributes(pair.source).await {
            Ok(names) => names,
            Err(error) => {
                self.tell::<()>(Err(error), preserve.attributes, labels)?;
                return Ok(lists);
            }
        };
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let keep = match attribute(name) {
                Attribute::AccessList | Attribute::DefaultList => {
                    if preserve.mode == KeepMode::Lists {
                        let list = self.get_attribute(pair.source, name).await;
                        let list = self.tell(list, Keep::Required, labels)?;
                        match attribute(name) {
                            Attribute::AccessList => lists.access = list,
                            _ => lists.default = list,
                        }
                    }
                    continue;
                }
                Attribute::Context => match &preserve.context {
                    Context::AsAttributes => preserve.attributes,
                    Context::Keep(keep) => *keep,
                    Context::Fresh | Context::Set(_) => continue,
                },
                Attribute::Capability if owner != Owner::Kept && !preserve.lends_rights => continue,
                Attribute::Capability | Attribute::Plain => preserve.attributes,
                Attribute::Ignored => continue,
            };
            if keep != Keep::No {
                let copied = self.copy_attribute(pair, name).await;
                self.tell(copied, keep, labels)?;
            }
        }
        Ok(lists)
    }

    async fn copy_attribute(&self, pair: &mut Pair<'_>, name: &[u8]) -> Result<(), Error> {
        let value = match self.get_attribute(pair.source, name).await {
            // It was there a moment ago.
            Err(error) if error.errno() == Some(Errno::ENODATA) => return Ok(()),
            value => value?,
        };
        let is_read_only = pair.copy.mode.is_none_or(|mode| mode & 0o200 == 0);
        if name.starts_with(b"user.") && is_read_only && self.job.surroundings.user != Some(0) {
            // Users' attributes are written only to what may be written (`xattr(7)`).
            self.change_mode(pair.target, 0o600).await?;
            pair.copy.mode = Some(0o600);
        }
        let name = Name::new(name).map_err(|errno| Error::from_errno("set attribute", errno))?;
        self.set_attribute(pair.target, name, value).await
    }

    /// Sets lists, then the mode: each list changes it.
    async fn keep_mode(
        &self,
        pair: &Pair<'_>,
        owner: Owner,
        lists: Lists,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        let Known { mode: known, is_existing, inherited, .. } = pair.copy;
        let policy = self.job.options.preserve.mode;
        if is_existing && policy != KeepMode::Lists {
            return Ok(());
        }
        let is_directory = pair.status.kind == FileKind::Directory;
        let mut wanted = mode(&Wanted {
            policy,
            source: pair.status.mode,
            is_directory,
            may_execute: is_directory || pair.status.kind == FileKind::Socket,
            umask: self.job.options.umask,
            inherited,
            owner,
        });
        let is_exact =
            policy == KeepMode::Lists && owner != Owner::Refused && pair.status.mode & SPECIAL != 0;
        if is_directory && !is_exact {
            // As in cp: the set-group-id bit of the directory above is inherited, and what is
            // special about a directory stays, unless its source's own is to be had.
            wanted |= known.unwrap_or(0) & SPECIAL;
        }
        let mut is_right = known == Some(wanted);
        if matches!(policy, KeepMode::Lists | KeepMode::Fresh) {
            let had_one = is_existing || inherited.is_some();
            is_right &= !had_one && lists.access.is_none();
            let without = lists.access.as_deref().map(|list| without_list(wanted, list));
            let set = self.set_list(pair.target, ACCESS_LIST, lists.access, had_one).await;
            if set.is_err() {
                wanted = without.unwrap_or(wanted);
            }
            self.tell(set, Keep::Required, labels)?;
            // As cp, which hands lists down further where only modes are to be fresh.
            if is_directory && policy == KeepMode::Lists {
                let set = self.set_list(pair.target, DEFAULT_LIST, lists.default, had_one).await;
                self.tell(set, Keep::Required, labels)?;
            }
        }
        if is_right {
            return Ok(());
        }
        let changed = self.change_mode(pair.target, wanted).await;
        self.tell(changed, Keep::Required, labels).map(drop)
    }

    /// Sets a list, or takes away one that may be there.
    async fn set_list(
        &self,
        target: &File,
        name: &'static std::ffi::CStr,
        list: Option<Vec<u8>>,
        had_one: bool,
    ) -> Result<(), Error> {
        match list {
            Some(list) => self.set_attribute(target, name.into(), list).await,
            None if had_one => self.remove_attribute(target, name.into()).await,
            None => Ok(()),
        }
    }

    /// What a directory hands down to files that are made in it.
    pub(super) async fn heritage(&self, directory: &File) -> Heritage {
        // A directory without lists, or one that may not be asked, hands nothing down.
        let list = self.get_attribute(directory, DEFAULT_LIST.to_bytes()).await;
        let permissions = list.ok().and_then(|list| access::permissions(&list));
        Heritage { owner: None, permissions }
    }

    /// What a directory that was just made hands down: who made it makes what is in it, and its
    /// lists are those of the directory above, unless they are to be those of its source.
    pub(super) async fn heritage_of_new(
        &self,
        directory: &File,
        status: &FileStatus,
        above: Heritage,
    ) -> Heritage {
        let mut permissions = above.permissions;
        let policy = self.job.options.preserve.mode;
        if permissions.is_some() && policy == KeepMode::Lists {
            let mut is_gone = true;
            for name in [ACCESS_LIST, DEFAULT_LIST] {
                is_gone &= self.remove_attribute(directory, name.into()).await.is_ok();
            }
            // If not, it is tried again for each file.
            permissions = permissions.filter(|_| !is_gone);
        }
        Heritage { owner: Some((status.owner, status.group)), permissions }
    }

    /// The mode that a file in a stage is made with: its last, if nothing forbids that.
    pub(super) fn mode_made_with(&self, source: &FileStatus, target: &Target) -> u32 {
        let wanted = Wanted {
            policy: self.file_policy(source),
            source: source.mode,
            is_directory: false,
            may_execute: false,
            umask: self.job.options.umask,
            inherited: target.heritage.permissions,
            owner: Owner::Other,
        };
        mode(&wanted)
    }

    /// What is known of a file made with `mode` for a target.
    pub(super) fn known_of_new(&self, target: &Target, mode: u32) -> Known {
        let Heritage { owner, permissions } = target.heritage;
        let is_cut = self.job.surroundings.has_umask || permissions.is_some();
        let mode = (!is_cut).then_some(mode);
        Known { owner, mode, inherited: permissions, ..Known::default() }
    }

    /// Completes a regular file, or what was read like one.
    pub(super) async fn keep_file_attributes(
        &self,
        source: &File,
        status: &FileStatus,
        new: &NewFile,
        labels: &dyn Labels,
    ) -> Result<(), Error> {
        if new.is_stream() || new.device_block_bytes().is_some() {
            return Ok(());
        }
        if self.is_passing(status) {
            if matches!(new.made, Made::InPlace { .. }) {
                return Ok(());
            }
            let changed = self.change_mode(&new.file, self.mode_made_with(status, &new.target));
            return self.tell(changed.await, Keep::Required, labels).map(drop);
        }
        let staging = new.target.staging.as_deref();
        let pair = Pair { source, status, target: &new.file, copy: new.known, staging };
        self.keep_attributes(pair, labels).await
    }

    /// Whether a source is a stream that has nothing worth keeping: unless somebody asks for it.
    fn is_passing(&self, source: &FileStatus) -> bool {
        source.kind != FileKind::Regular && !self.job.options.preserve.is_asked
    }

    fn file_policy(&self, source: &FileStatus) -> KeepMode {
        match (self.is_passing(source), source.kind) {
            // An image is for those who may read the disk.
            (true, FileKind::BlockDevice) => KeepMode::Cut,
            (true, _) => KeepMode::Fresh,
            (false, _) => self.job.options.preserve.mode,
        }
    }

    /// Tells what could not be kept, as loud as it matters; fails only if the copy was cancelled.
    pub(super) fn tell<T>(
        &self,
        kept: Result<T, Error>,
        keep: Keep,
        labels: &dyn Labels,
    ) -> Result<Option<T>, Error> {
        let error = match kept {
            Ok(kept) => return Ok(Some(kept)),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => error.on(labels.target()),
        };
        match keep {
            Keep::No | Keep::Silently => {}
            Keep::Desired => {
                self.has_lost.set(true);
                self.warn(labels, &format!("{} failed: {}", error.what(), error.reason()));
            }
            Keep::Required => {
                self.has_lost.set(true);
                self.fail(&error);
            }
        }
        Ok(None)
    }

    async fn set_times(&self, pair: &Pair<'_>) -> Result<(), Error> {
        let subject = Subject::File(pair.target.clone());
        let change = ChangeTimes { subject, times: Box::new(pair.status.times()) };
        self.io.perform(Operation::ChangeTimes(change)).await.map(drop)
    }

    pub(super) async fn change_mode(&self, file: &File, mode: u32) -> Result<(), Error> {
        let change = ChangeMode { file: file.clone(), mode };
        self.io.perform(Operation::ChangeMode(change)).await.map(drop)
    }

    pub(super) async fn change_owner(
        &self,
        file: &File,
        owner: Option<u32>,
        group: u32,
    ) -> Result<(), Error> {
        let subject = Subject::File(file.clone());
        let change = ChangeOwner { subject, owner, group: Some(group) };
        self.io.perform(Operation::ChangeOwner(change)).await.map(drop)
    }

    pub(super) async fn set_attribute(
        &self,
        file: &File,
        name: Name,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        let set = SetAttribute { file: file.clone(), name, value: Buffer::Vec(value) };
        self.io.perform(Operation::SetAttribute(set)).await.map(drop)
    }

    /// Takes an attribute away, if it is there.
    pub(super) async fn remove_attribute(&self, file: &File, name: Name) -> Result<(), Error> {
        let remove = RemoveAttribute { file: file.clone(), name };
        match self.io.perform(Operation::RemoveAttribute(remove)).await {
            Err(error) if matches!(error.errno(), Some(Errno::ENODATA | Errno::EOPNOTSUPP)) => {
                Ok(())
            }
            removed => removed.map(drop),
        }
    }

    async fn get_attribute(&self, file: &File, name: &[u8]) -> Result<Vec<u8>, Error> {
        let name = Name::new(name).map_err(|errno| Error::from_errno("read attribute", errno))?;
        let mut room = ATTRIBUTE_BYTES;
        loop {
            let buffer = Buffer::Vec(vec![0; room]);
            let get = GetAttribute { file: file.clone(), name: name.clone(), buffer };
            self.io.check()?;
            match self.io.perform_counted(Operation::GetAttribute(get)).await {
                Ok((length, operation)) => {
                    let Operation::GetAttribute(GetAttribute {
                        buffer: Buffer::Vec(mut value),
                        ..
                    }) = operation
                    else {
                        unreachable!("an operation comes back as itself")
                    };
                    value.truncate(length as usize);
                    return Ok(value);
                }
                Err(error)
                    if error.errno() == Some(Errno::ERANGE) && room < ATTRIBUTE_BYTES_MAX =>
                {
                    room = ATTRIBUTE_BYTES_MAX;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The names of a file's attributes, each ended by NUL; none where there are no such things.
    pub(super) async fn list_attributes(&self, file: &File) -> Result<Vec<u8>, Error> {
        let mut room = ATTRIBUTE_BYTES;
        loop {
            let buffer = Buffer::Vec(vec![0; room]);
            let list = ListAttributes { file: file.clone(), buffer };
            self.io.check()?;
            match self.io.perform_counted(Operation::ListAttributes(list)).await {
                Ok((length, operation)) => {
                    let Operation::ListAttributes(ListAttributes {
                        buffer: Buffer::Vec(mut names),
                        ..
                    }) = operation
                    else {
                        unreachable!("an operation comes back as itself")
                    };
                    names.truncate(length as usize);
                    return Ok(names);
                }
                Err(error) if matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::ENOSYS)) => {
                    return Ok(Vec::new());
                }
                Err(error)
                    if error.errno() == Some(Errno::ERANGE) && room < ATTRIBUTE_BYTES_MAX =>
                {
                    room = ATTRIBUTE_BYTES_MAX;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
