//! What the test programs share.

pub(crate) mod scratch;
pub(crate) mod skip;
