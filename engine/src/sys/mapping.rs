//! Anonymous memory on huge pages.

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::error::Errno;

/// Maps `length` bytes of zeros, asks for huge pages, and touches each page.
///
/// Touched before a ring registers it: a page that is there is pinned as it is, and a huge page
/// needs one entry in the ring's table where small pages need 512.
///
/// # Source
///
/// `madvise(2)`, MADV_HUGEPAGE; `io_uring_registered_buffers(7)`.
pub(crate) fn map_huge(length: usize) -> Result<MmapMut, Errno> {
    let options = {
        let mut options = MmapOptions::new();
        options.len(length);
        options
    };
    let mut mapping =
        options.map_anon().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    // Best effort: a kernel without huge pages serves small ones.
    let _ = mapping.advise(Advice::HugePage);
    for byte in mapping.iter_mut().step_by(4096) {
        *byte = 0;
    }
    Ok(mapping)
}
