//! Directories that are gone after the test.

use tempfile::TempDir;

/// A new directory on the disk that the build is on: a real file system, not one in memory.
pub(crate) fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("ucp-test-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("the build directory can be written to")
}
