//! `ucp completions SHELL`.

use std::io;

use crate::args::{CompletionsArguments, whole};
use crate::exit::ExitStatus;
use crate::report::print_whole;

/// Prints what the shell needs.
pub(crate) fn run(arguments: &CompletionsArguments) -> ExitStatus {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut whole(), "ucp", &mut script);
    print_whole(&mut io::stdout(), &script)
}
