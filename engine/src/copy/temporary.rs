//! Names of temporaries and stages: found again after a kill, and never planted by others.
//!
//! The name is made from the final one, so that a second run finds what a first one left. It is
//! reused only under a lock and after a look at its owner; whoever finds it taken uses a random one.

use crate::random::Random;

/// What every temporary name starts with.
pub(super) const PREFIX: &[u8] = b".ucp-";

/// The name under which `name` is made before it is published; `attempt` 0 is the one that is found
/// again, others are random.
pub(super) fn temporary_name(name: &[u8], attempt: u64) -> Vec<u8> {
    made_from(name, attempt, "part")
}

/// The name of the directory in which the directory `name` is staged.
pub(super) fn stage_name(name: &[u8], attempt: u64) -> Vec<u8> {
    made_from(name, attempt, "stage")
}

/// The name of the journal of the temporary that is found again.
pub(super) fn journal_name(name: &[u8]) -> Vec<u8> {
    made_from(name, 0, "journal")
}

fn made_from(name: &[u8], attempt: u64, kind: &str) -> Vec<u8> {
    let mut random = Random::new(attempt);
    let salt = if attempt == 0 { 0 } else { random.next() };
    let mut made = PREFIX.to_vec();
    made.extend_from_slice(format!("{:016x}.{kind}", hash(name) ^ salt).as_bytes());
    made
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo): spreads names, keeps no secrets.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    bytes
        .iter()
        .fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NAME_BYTES_MAX;

    #[test]
    fn a_name_is_found_again_and_fits() {
        let longest = [b'x'; NAME_BYTES_MAX];
        assert_eq!(temporary_name(&longest, 0), temporary_name(&longest, 0));
        assert!(temporary_name(&longest, 0).len() <= NAME_BYTES_MAX);
        assert_ne!(temporary_name(b"a", 0), temporary_name(b"b", 0));
        assert_ne!(temporary_name(b"a", 0), temporary_name(b"a", 7));
        assert_ne!(temporary_name(b"a", 0), stage_name(b"a", 0));
    }
}
