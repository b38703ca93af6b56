//! What moving or reading files leaves in the page cache.

/// What a job leaves in the page cache of the files that it reads and writes.
///
/// # Examples
///
/// ```
/// use ucp_engine::cache_policy::CachePolicy;
///
/// assert_eq!(CachePolicy::default(), CachePolicy::Auto);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CachePolicy {
    /// Whatever the fastest way leaves there.
    #[default]
    Auto,
    /// What is read and written: it goes through the page cache, and stays as long as the kernel
    /// has room.
    Keep,
    /// What was there before, as far as the kernel can be made to: what was not there, and what is
    /// written, does not stay.
    Bypass,
}
