//! Every operation, its errors included, has the same outcome on every processor.
//!
//! A case is a short script that returns what it saw, as text, and what it should have seen. It
//! runs on each processor in an empty directory of its own.

mod attributes;
mod chains;
mod data;
mod limits;
mod names;
mod sockets;
mod world;

use world::{Environment, World};

use crate::support::machine;

/// A sentence, a script, and what the script should see.
type Case = (&'static str, fn(&mut World) -> String, &'static str);

/// Runs every case on every processor.
fn conform(cases: &[Case]) {
    conform_on(&world::processors(), cases);
}

/// Runs every case on these.
fn conform_on(environments: &[Environment], cases: &[Case]) {
    let _hold = machine::shared();
    let mut failures = Vec::new();
    for environment in environments {
        for (name, script, want) in cases {
            let mut world = World::new(environment);
            let got = script(&mut world);
            if got != *want {
                failures.push(format!("{}: {name}: got `{got}`, want `{want}`", environment.name));
            }
            assert_eq!(world.processor.in_flight(), 0, "{}: {name}", environment.name);
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
