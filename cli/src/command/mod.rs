//! One file a subcommand.

pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod copy;
pub(crate) mod doctor;
pub(crate) mod man;
pub(crate) mod sum;
