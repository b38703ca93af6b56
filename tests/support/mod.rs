//! What the test programs share.

pub(crate) mod child;
pub(crate) mod machine;
pub(crate) mod scratch;
pub(crate) mod skip;
pub(crate) mod tasks;
