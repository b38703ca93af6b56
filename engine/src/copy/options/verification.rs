//! What is hashed, compared and written down.

use std::path::PathBuf;

use crate::digest::Algorithm;

/// What is hashed, compared and written down. By default nothing is.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Targets are read back from their device, and compared with what was read from the source by
    /// digests of this kind.
    pub verify: Option<Algorithm>,
    /// A digest of each file is told in its account.
    pub digest: Option<Algorithm>,
    /// A list of digests is written.
    pub manifest: Option<Manifest>,
    /// What shows that a file that stands at the target need not be copied again.
    pub check_existing: Option<CheckExisting>,
}

/// A list of digests of all files that were copied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// Where it is written.
    pub path: PathBuf,
    /// What the digests are made by.
    pub algorithm: Algorithm,
    /// How its lines look.
    pub form: ManifestForm,
}

/// How the lines of a manifest look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ManifestForm {
    /// As `sha256sum`, `b3sum` and their like write and check them.
    #[default]
    Lines,
    /// An object a line.
    Json,
}

/// What shows that a file need not be copied again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CheckExisting {
    /// The same size, and the same time of the last change, to the nanosecond.
    SizeAndTime,
    /// The same bytes: both are read, the target from its device.
    Hash,
}

impl Verification {
    /// What one digest of a whole file is made by, if one is wanted.
    #[must_use]
    pub fn whole(&self) -> Option<Algorithm> {
        self.manifest.as_ref().map(|manifest| manifest.algorithm).or(self.digest)
    }
}
