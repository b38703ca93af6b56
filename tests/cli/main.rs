//! Tests of the command: the real binary, in scratch directories, on real file systems.
//!
//! What needs root mounts only in mount namespaces of single threads, so nothing is left behind
//! however a test ends.

#[macro_use]
mod support;

mod access;
mod attributes;
mod blocked;
mod cache;
mod comfort;
mod compare;
mod differential;
mod doctor;
mod durable;
mod engines;
mod existing;
mod failures;
mod faults;
mod fidelity;
mod full;
mod help;
mod holes;
mod huge;
mod images;
mod json;
mod kill;
mod kill_everywhere;
mod lying;
mod mirror;
mod operands;
mod output;
mod persona;
mod publication;
mod races;
mod reflink;
mod rehearsal;
mod remove_source;
mod resume;
mod resume_tree;
mod sandbox;
mod selection;
mod signals;
mod sum;
mod swaps;
mod targets;
mod verify;
