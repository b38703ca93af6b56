//! What users write their code with: time, scopes, channels, limits, other threads, other loops, and
//! what they see of it.

mod dropping;
mod guest;
mod limits;
mod offload;
mod scopes;
mod seeing;
mod simulation;
mod time;
