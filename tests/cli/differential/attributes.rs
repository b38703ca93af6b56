//! Extended attributes in the forms that the kernel takes: access control lists, capabilities.

use ucp_engine::random::Random;

/// An access control list with some more users and groups, as `system.posix_acl_*` holds it.
///
/// # Source
///
/// `include/uapi/linux/posix_acl_xattr.h`: version 2, then entries of tag, permissions and id.
pub(crate) fn access_list(random: &mut Random) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let (user_object, user, group_object, group, mask, other) = (1, 2, 4, 8, 0x10, 0x20);
    let mut permissions = || u16::try_from(random.below(8)).expect("it is below 8");
    let mut entries = vec![(user_object, 6 | permissions(), NO_ID)];
    entries.push((user, permissions(), 1001));
    if permissions() < 4 {
        entries.push((user, permissions(), 1002));
    }
    entries.push((group_object, permissions(), NO_ID));
    if permissions() < 4 {
        entries.push((group, permissions(), 1003));
    }
    entries.push((mask, permissions(), NO_ID));
    entries.push((other, permissions(), NO_ID));
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

/// `cap_net_raw=ep`, as `security.capability` holds it.
///
/// # Source
///
/// `include/uapi/linux/capability.h`: `VFS_CAP_REVISION_2` with the effective bit, then permitted
/// and inheritable bits, twice 32 of each.
pub(crate) fn capability() -> Vec<u8> {
    let net_raw = 1_u32 << 13;
    [0x0200_0001, net_raw, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
}
