//! `--sandbox`: before it begins, the process gives up all files but those that the copy is about.
//!
//! The kernel holds it to that (Landlock, `landlock(7)`), whatever a mistake in here or a link that
//! was exchanged would have it do: the restriction is the process's, so it covers every thread and
//! every worker of a ring that is started afterwards. It covers opening, making, removing, renaming
//! and cutting files, TCP, and signals to others; it does not cover asking for a status, changing
//! owner, mode, times or attributes of a file that is named, and what was open before
//! (`docs/access.md` says more).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use ucp_engine::copy::{Request, TargetRole};

/// What the process may still reach.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Sandbox {
    /// Read, with all that is below.
    readable: Vec<PathBuf>,
    /// Read, with all that is below, and files removed.
    removable: Vec<PathBuf>,
    /// Read, written, made and removed, with all that is below.
    writable: Vec<PathBuf>,
}

/// The process's own entries, what tells why there is no io_uring, and what a ring is tried on.
const ALWAYS_READABLE: [&str; 3] = ["/proc/self", "/proc/sys/kernel", "/dev/zero"];

/// The version of Landlock that the kernel has; none if it is not there or not on. Told only to
/// those who enter a sandbox: a thread of its own does.
pub(crate) fn kernel_abi() -> Option<i32> {
    let enter = || {
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(KNOWN)).ok()?.create();
        match ruleset.ok()?.restrict_self().ok()?.landlock {
            LandlockStatus::Available { effective_abi, kernel_abi } => {
                Some(kernel_abi.unwrap_or(effective_abi as i32))
            }
            _ => None,
        }
    };
    thread::Builder::new().spawn(enter).ok()?.join().ok()?
}

impl Sandbox {
    /// What a copy needs: its sources to read, or to remove, and the places of its targets to write.
    pub(crate) fn around(request: &Request) -> Self {
        let mut sandbox = Self::default();
        sandbox.readable.extend(ALWAYS_READABLE.map(PathBuf::from));
        sandbox.readable.extend(request.sources.iter().cloned());
        if request.options.selection.remove_source_files {
            let place = |source: &PathBuf| match source.is_dir() {
                true => source.clone(),
                false => directory_of(source),
            };
            sandbox.removable.extend(request.sources.iter().map(place));
        }
        sandbox.writable.push(place_of(&request.target, request.target_role));
        sandbox.writable.extend(request.also.iter().cloned());
        // A link named as target stays: the file that it leads to is replaced, where that is.
        if let Ok(leads_to) = request.target.canonicalize()
            && !leads_to.is_dir()
        {
            sandbox.writable.push(directory_of(&leads_to));
            // A device, or what a descriptor stands for.
            sandbox.writable.push(leads_to);
        }
        sandbox
    }

    /// Gives up all the rest, for good. Threads that are there already are not held to it: this
    /// comes first.
    pub(crate) fn enter(&self) -> Result<(), String> {
        let entered = self.restrict().map_err(|error| format!("sandbox failed: {error}"))?;
        match entered {
            RulesetStatus::NotEnforced => {
                Err("sandbox failed: this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and \
                     'landlock' among the lsm= of its command line)"
                    .to_owned())
            }
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        }
    }

    fn restrict(&self) -> Result<RulesetStatus, RulesetError> {
        // Without the second version (Linux 5.19) nothing could be renamed into another directory.
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(AccessNet::from_all(KNOWN))?
            .scope(Scope::from_all(KNOWN))?
            .create()?;
        let read = AccessFs::from_read(KNOWN) & !AccessFs::Execute;
        let write = AccessFs::from_all(KNOWN) & !AccessFs::Execute;
        let status = ruleset
            .add_rules(path_beneath_rules(&self.readable, read))?
            .add_rules(path_beneath_rules(&self.removable, read | AccessFs::RemoveFile))?
            .add_rules(path_beneath_rules(&self.writable, write))?
            .restrict_self()?;
        Ok(status.ruleset)
    }
}

/// The version that is asked for; kernels that know less do what they can.
const KNOWN: ABI = ABI::V6;

/// Where something is written for a target: in it, if it is a directory to copy into, and else
/// beside its name.
fn place_of(target: &Path, role: TargetRole) -> PathBuf {
    if role == TargetRole::Directory || target.is_dir() {
        return target.to_owned();
    }
    directory_of(target)
}

fn directory_of(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    match bytes[..end].iter().rposition(|byte| *byte == b'/') {
        None => PathBuf::from("."),
        Some(0) => PathBuf::from("/"),
        Some(slash) => PathBuf::from(OsStr::from_bytes(&bytes[..slash])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_beside_the_name() {
        let cases = [
            ("a", "."),
            ("a/b", "a"),
            ("a/b/", "a"),
            ("/a", "/"),
            ("/a/b", "/a"),
            ("../a", ".."),
            ("a//", "."),
        ];
        for (path, want) in cases {
            assert_eq!(directory_of(Path::new(path)), Path::new(want), "{path}");
        }
    }

    #[test]
    fn a_directory_to_copy_into_is_enough() {
        let request = Request::new(["a", "b"], "/tmp");
        let sandbox = Sandbox::around(&request);
        assert_eq!(sandbox.writable, [PathBuf::from("/tmp")]);
        assert!(sandbox.readable.contains(&PathBuf::from("b")));
    }
}
