//! The kernel, as it is: each function makes one system call and adds nothing.
//!
//! This is where `unsafe` meets the kernel's interface. Everything above is safe to call with any
//! arguments: lengths come from slices, descriptors are borrowed, names end with NUL.

pub(crate) mod buffer_ring;
pub(crate) mod device;
pub(crate) mod file;
pub(crate) mod mapping;
pub(crate) mod ring;
pub(crate) mod socket;
pub(crate) mod thread;
