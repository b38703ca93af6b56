//! Block devices of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;

/// A loop device over a file; it is taken away when dropped.
#[derive(Debug)]
pub(crate) struct LoopDevice(PathBuf);

impl LoopDevice {
    pub(crate) fn over(file: &Path) -> Self {
        Self::with(file, &[])
    }

    /// With these options of losetup.
    pub(crate) fn with(file: &Path, options: &[&str]) -> Self {
        let mut command = Command::new("losetup");
        let ran = run(command.args(["--find", "--show"]).args(options).arg(file));
        Self(ran.exits(0).stdout().trim().into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Its name, as an option's or an operand's.
    pub(crate) fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        run(Command::new("losetup").arg("-d").arg(&self.0));
    }
}
