//! What each subcommand does: from what was typed to a request to the engine, and back.

pub(crate) mod copy;
