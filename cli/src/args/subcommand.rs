//! The words that name what to do.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::{Command, CommandFactory, Parser, ValueHint};
use clap_complete::Shell;

use super::told::Help;
use super::{CompareArguments, CopyArguments, SumArguments, path};

/// What the program is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Subcommand {
    Copy,
    Sum,
    Compare,
    Doctor,
    Completions,
    Manual,
}

/// Says what this kernel and a file system can do, and which path a copy would take there
#[derive(Debug, Parser)]
#[command(name = "doctor", bin_name = "ucp doctor", version, max_term_width = 100)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct DoctorArguments {
    /// The file system that is looked at: any file or directory of it. In a directory that can be
    /// written, what it can do is tried out on files without a name
    #[arg(value_name = "PATH", default_value = ".", value_parser = path())]
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    /// Say it to programs, as one JSON object (docs/json.md)
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    help: Help,
}

/// Prints what a shell needs to complete the words of ucp
#[derive(Debug, Parser)]
#[command(name = "completions", bin_name = "ucp completions", version, max_term_width = 100)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct CompletionsArguments {
    /// For which shell
    pub(crate) shell: Shell,
    #[command(flatten)]
    help: Help,
}

/// Prints the manual page, or writes all of them into a directory
#[derive(Debug, Parser)]
#[command(name = "man", bin_name = "ucp man", version, max_term_width = 100)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct ManualArguments {
    /// Where to: ucp.1, and one page a subcommand. Without it ucp.1 goes to standard output
    #[arg(value_name = "DIRECTORY", value_parser = path(), value_hint = ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
    #[command(flatten)]
    help: Help,
}

impl Subcommand {
    const ALL: [Self; 6] =
        [Self::Copy, Self::Sum, Self::Compare, Self::Doctor, Self::Completions, Self::Manual];

    fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Sum => "sum",
            Self::Compare => "compare",
            Self::Doctor => "doctor",
            Self::Completions => "completions",
            Self::Manual => "man",
        }
    }

    /// The subcommand of this name.
    pub(super) fn named(word: &OsStr) -> Option<Self> {
        Self::ALL.into_iter().find(|subcommand| word == subcommand.name())
    }

    fn command(self) -> Command {
        let command = match self {
            Self::Copy => CopyArguments::command().about("Copies files and trees, as without it"),
            Self::Sum => SumArguments::command(),
            Self::Compare => CompareArguments::command(),
            Self::Doctor => DoctorArguments::command(),
            Self::Completions => CompletionsArguments::command(),
            Self::Manual => ManualArguments::command(),
        };
        command.name(self.name())
    }
}

/// The whole command line, for those who describe it. It is not what reads it: a first word may be
/// a file.
pub(crate) fn whole() -> Command {
    CopyArguments::command()
        .name("ucp")
        .disable_help_subcommand(true)
        .mut_arg("operands", |operands| operands.value_hint(ValueHint::AnyPath))
        .subcommands(Subcommand::ALL.map(Subcommand::command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_consistent() {
        whole().debug_assert();
    }
}
