//! Operations on block devices.

use super::File;

/// Asks how long a block device is, and in which pieces it moves data. `ENOTTY` of what is none.
#[derive(Debug)]
pub struct DeviceStatus {
    /// The device.
    pub file: File,
    /// Its length, once the operation succeeded.
    pub size_bytes: u64,
    /// What it reads and writes whole (the logical block size), once the operation succeeded.
    pub block_bytes: u32,
}
