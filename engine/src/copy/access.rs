//! Which permissions a copy gets, decided from its source, the options and what is handed down.
//!
//! Modes and access control lists only; nothing here touches a file.

use super::KeepMode;
use super::journal::JOURNAL;
use super::mark::MARK;

/// Set-user-id and set-group-id.
pub(super) const SET_ID: u32 = 0o6000;
/// Set-id bits and the sticky one.
pub(super) const SPECIAL: u32 = 0o7000;

/// What a directory hands down to files that are made in it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Heritage {
    /// Owner and group of new files, where they are known.
    pub(super) owner: Option<(u32, u32)>,
    /// The permissions that a default access control list leaves to new files, which then have one,
    /// too; none without such a list.
    pub(super) permissions: Option<u32>,
}

/// What is to be decided about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) policy: KeepMode,
    /// The source's mode.
    pub(super) source: u32,
    pub(super) is_directory: bool,
    /// Whether a new one of its kind may be executed: directories and sockets.
    pub(super) may_execute: bool,
    pub(super) umask: u32,
    pub(super) inherited: Option<u32>,
    pub(super) owner: Owner,
}

/// Whose the copy is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// The source's owner and group, both.
    Kept,
    /// Another: nobody asked for the source's.
    Other,
    /// Another, though the source's was asked for.
    Refused,
}

/// The mode that a new file gets.
pub(super) fn mode(wanted: &Wanted) -> u32 {
    let &Wanted { policy, source, is_directory, may_execute, umask, inherited, owner } = wanted;
    // As in cp, a directory stays sticky whatever else it loses: it is made so.
    let sticky = if is_directory { source & 0o1000 } else { 0 };
    match policy {
        KeepMode::Bits | KeepMode::Lists => match owner {
            Owner::Kept => source,
            Owner::Other => source & !SET_ID,
            // Who may not give a file away does not make it special, either.
            Owner::Refused => source & !SPECIAL | sticky,
        },
        KeepMode::Cut => {
            let cut = match inherited {
                // The kernel leaves the umask out then; cp adds writing by others as it does.
                Some(permissions) if is_directory => permissions & !(umask & 0o022),
                Some(permissions) => permissions,
                None => !umask,
            };
            source & 0o777 & cut | sticky
        }
        KeepMode::Fresh if may_execute => 0o777 & !umask | sticky,
        KeepMode::Fresh => 0o666 & !umask,
    }
}

/// What is done about an extended attribute of a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Attribute {
    /// Kept with the mode: the access control list.
    AccessList,
    /// Kept with the mode: the list that a directory hands down.
    DefaultList,
    /// Kept with the context.
    Context,
    /// Kept only with the owner: it lends the right to more than others may.
    Capability,
    /// Kept with the attributes.
    Plain,
    /// Never kept: it means something to one file system, or the kernel alone may write it.
    Ignored,
}

/// What is done about an extended attribute.
///
/// The names that are ignored are those of `/etc/xattr.conf`, which cp follows.
pub(super) fn attribute(name: &[u8]) -> Attribute {
    const OUR_OWN: [&[u8]; 2] = [MARK.to_bytes(), JOURNAL.to_bytes()];
    const IGNORED: [&[u8]; 3] = [b"system.nfs4_acl", b"system.nfs4acl", b"security.evm"];
    const IGNORED_BELOW: [&[u8]; 6] = [
        b"trusted.SGI_ACL_",
        b"trusted.SGI_CAP_FILE",
        b"trusted.SGI_DMI_",
        b"trusted.SGI_MAC_FILE",
        b"user.Beagle.",
        b"afs.",
    ];
    match name {
        b"system.posix_acl_access" => Attribute::AccessList,
        b"system.posix_acl_default" => Attribute::DefaultList,
        b"security.selinux" => Attribute::Context,
        b"security.capability" => Attribute::Capability,
        // They speak of the very file that has them.
        name if OUR_OWN.contains(&name) => Attribute::Ignored,
        name if IGNORED.contains(&name) => Attribute::Ignored,
        name if name.starts_with(b"xfsroot.") => Attribute::Ignored,
        name if IGNORED_BELOW.iter().any(|start| name.starts_with(start)) => Attribute::Ignored,
        _ => Attribute::Plain,
    }
}

/// The permissions that a list gives or leaves, as the nine bits of a mode; none if it is not one.
///
/// For a mode the group's are what its mask says, if it has one (`acl(5)`).
pub(super) fn permissions(list: &[u8]) -> Option<u32> {
    let Parts { user, group, mask, other } = Parts::of(list)?;
    Some(user << 6 | mask.unwrap_or(group) << 3 | other)
}

/// The mode that gives no more than `mode` with a list does, without that list: what the mask let
/// through to others would be the group's.
pub(super) fn without_list(mode: u32, list: &[u8]) -> u32 {
    let group = Parts::of(list).map_or(0, |parts| parts.group & parts.mask.unwrap_or(7));
    mode & (!0o070 | group << 3)
}

/// The entries of a list that stand in a mode.
struct Parts {
    user: u32,
    group: u32,
    mask: Option<u32>,
    other: u32,
}

impl Parts {
    /// Takes a list apart as the kernel keeps it: a version, and entries of tag, permissions and
    /// id, all little-endian (`linux/posix_acl_xattr.h`).
    fn of(list: &[u8]) -> Option<Self> {
        let (version, entries) = list.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != 2 || !entries.len().is_multiple_of(8) {
            return None;
        }
        let mut parts = Self { user: 0, group: 0, mask: None, other: 0 };
        for entry in entries.chunks_exact(8) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let permissions = u32::from(u16::from_le_bytes([entry[2], entry[3]]) & 7);
            match tag {
                0x01 => parts.user = permissions,
                0x04 => parts.group = permissions,
                0x10 => parts.mask = Some(permissions),
                0x20 => parts.other = permissions,
                _ => {}
            }
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_follows_the_policy_the_owner_and_what_is_handed_down() {
        use KeepMode::{Bits, Cut, Fresh, Lists};
        use Owner::{Kept, Other, Refused};

        let cases = [
            ("bits of the same owner", Bits, 0o6755, false, None, Kept, 0o6755),
            ("bits of another owner", Bits, 0o7755, false, None, Other, 0o1755),
            ("bits that could not be given away", Lists, 0o7755, false, None, Refused, 0o755),
            ("a directory's bits", Lists, 0o3777, true, None, Kept, 0o3777),
            ("cut by the umask", Cut, 0o4777, false, None, Kept, 0o750),
            ("a directory's cut by the umask", Cut, 0o3777, true, None, Kept, 0o1750),
            ("cut by a list, whatever the umask", Cut, 0o777, false, Some(0o567), Other, 0o567),
            ("a sticky directory cut by a list", Cut, 0o1777, true, Some(0o570), Other, 0o1550),
            ("a sticky directory of another", Lists, 0o3777, true, None, Refused, 0o1777),
            ("a fresh sticky directory", Fresh, 0o1700, true, None, Kept, 0o1750),
            ("fresh", Fresh, 0o4755, false, None, Kept, 0o640),
            ("a fresh directory", Fresh, 0o700, true, None, Kept, 0o750),
        ];
        for (name, policy, source, is_directory, inherited, owner, want) in cases {
            let may_execute = is_directory;
            let umask = 0o027;
            let wanted =
                Wanted { policy, source, is_directory, may_execute, umask, inherited, owner };
            assert_eq!(mode(&wanted), want, "{name}");
        }
    }

    #[test]
    fn attributes_are_told_apart_by_their_names() {
        let cases: [(&[u8], Attribute); 12] = [
            (b"user.a", Attribute::Plain),
            (b"trusted.a", Attribute::Plain),
            (b"security.ima", Attribute::Plain),
            (b"security.evm", Attribute::Ignored),
            (b"security.capability", Attribute::Capability),
            (b"security.selinux", Attribute::Context),
            (b"system.posix_acl_access", Attribute::AccessList),
            (b"system.posix_acl_default", Attribute::DefaultList),
            (b"system.nfs4_acl", Attribute::Ignored),
            (b"trusted.SGI_DMI_x", Attribute::Ignored),
            (b"user.ucp.stage", Attribute::Ignored),
            (b"user.ucp.journal", Attribute::Ignored),
        ];
        for (name, want) in cases {
            assert_eq!(attribute(name), want, "{}", name.escape_ascii());
        }
    }

    fn list(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions) in entries {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(u32::MAX.to_le_bytes());
        }
        list
    }

    #[test]
    fn a_list_says_what_it_gives_and_what_is_left_without_it() {
        let plain = list(&[(1, 6), (4, 4), (0x20, 0)]);
        let masked = list(&[(1, 7), (2, 7), (4, 1), (0x10, 6), (0x20, 5)]);
        assert_eq!(permissions(&plain), Some(0o640));
        assert_eq!(permissions(&masked), Some(0o765));
        assert_eq!(without_list(0o4765, &masked), 0o4705);
        assert_eq!(without_list(0o660, &plain), 0o640);
        assert_eq!(without_list(0o777, b"nonsense"), 0o707);
        for broken in [&b""[..], b"\x02\0\0", b"\x01\0\0\0", &plain[..9]] {
            assert_eq!(permissions(broken), None, "{broken:?}");
        }
    }
}
