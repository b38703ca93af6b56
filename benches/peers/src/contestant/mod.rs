//! The contestants, each at all tasks that it can do, used as its own documentation says is fastest.

pub(crate) mod compio;
pub(crate) mod engine;
pub(crate) mod glommio;
pub(crate) mod monoio;
pub(crate) mod raw;
pub(crate) mod threads;
pub(crate) mod tokio_uring;
