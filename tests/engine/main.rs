//! Tests of the engine as its users see it, and of what it promises about memory.

#[path = "../support/mod.rs"]
mod support;

mod aborted;
mod ahead;
mod allocation;
mod compare;
mod confinement;
mod conformance;
mod disturbance;
mod durability;
mod echo;
mod examples;
mod flips;
mod http_files;
mod mirror;
mod pairs;
mod parked;
mod proactor;
mod rate;
mod same_operations;
mod setting;
mod sharing;
mod simulation;
mod sockets;
mod startup;
mod sum;
mod tail;
mod tasks;
mod teardown;
mod tidy;
