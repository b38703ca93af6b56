//! Where a name is looked up: a name, and the directory that it is relative to.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::File;
use crate::error::Errno;

/// A name or a path as the kernel takes it: any bytes but NUL. Clones share it.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<CStr>);

/// A name and the directory that it is relative to.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory; none is the current one.
    pub directory: Option<File>,
    /// The name. An absolute path ignores the directory.
    pub name: Name,
}

impl Name {
    /// A name from bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is a NUL among them: the kernel would see a shorter name.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, Errno> {
        let bytes = CString::new(bytes.as_ref()).map_err(|_| Errno::EINVAL)?;
        Ok(Self(bytes.into()))
    }

    /// The name as the kernel's functions take it.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }

    /// The bytes of the name, without the NUL that ends it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.to_bytes()
    }

    /// The name as the standard library's functions take it.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(self.as_bytes())
    }
}

impl Place {
    /// A path, relative to the current directory if it is not absolute.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the path has a NUL in it.
    pub fn path(path: impl AsRef<Path>) -> Result<Self, Errno> {
        Ok(Self { directory: None, name: Name::new(path.as_ref().as_os_str().as_bytes())? })
    }

    /// A name in an open directory.
    #[must_use]
    pub fn at(directory: &File, name: &Name) -> Self {
        Self { directory: Some(directory.clone()), name: name.clone() }
    }
}

impl From<&CStr> for Name {
    fn from(name: &CStr) -> Self {
        Self(name.into())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_nul_in_it_is_refused() {
        assert_eq!(Name::new(b"a\0b"), Err(Errno::EINVAL));
        assert_eq!(Name::new(b"\xff\n").unwrap().as_bytes(), b"\xff\n");
    }
}
