//! `ucp`: copies, sums and compares files and trees fast, safely and with an account of what happened.
//!
//! ```text
//! args --> command/copy --> ucp_engine::copy --> report, progress --> exit
//! ```
//!
//! `args` is what the user typed, `command` turns it into a request to the engine, `report` and
//! `progress` show what comes of it, and `exit` is the status that it ends with.

#![forbid(unsafe_code)]

mod args;
mod ask;
mod colour;
mod command;
mod digest_list;
mod exit;
mod explain;
mod gnu;
mod json;
mod list;
mod output;
mod patterns;
mod progress;
mod quote;
mod report;
mod sandbox;
mod signal;
mod size;
mod telling;

use std::env;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

use crate::args::{Invocation, Other, Outcome};
use crate::signal::Signals;

fn main() -> ExitCode {
    // First, while there is one thread only: others inherit the mask.
    let signals = Signals::block();
    // The engine makes files with exact modes, and is told what the user's mask was.
    let umask = umask(Mode::empty()).bits();
    raise_open_files();
    let status = match args::parse(&Invocation::from_words(env::args_os())) {
        Outcome::Copy(arguments) => command::copy::run(&arguments, umask, signals),
        Outcome::Compare(arguments) => command::compare::run(&arguments, signals),
        Outcome::Sum(arguments) => command::sum::run(&arguments, signals),
        Outcome::Other(other) => {
            signals.release();
            match other {
                Other::Doctor(arguments) => command::doctor::run(&arguments),
                Other::Completions(arguments) => command::completions::run(&arguments),
                Other::Manual(arguments) => command::man::run(&arguments, umask),
            }
        }
        Outcome::Finished(status) => status,
    };
    ExitCode::from(status.code())
}

/// Raises the limit of open files as far as it goes: a tree keeps two open for each level. The low
/// default is for programs that call `select(2)`.
fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
