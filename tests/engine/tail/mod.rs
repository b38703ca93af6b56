//! Following files: no line is lost, none is torn, and what comes twice can be told.

mod real;
mod receiver;
mod rotations;
mod simulation;
mod writer;
