//! What the user is told.

use clap::{ArgAction, Args, ValueEnum};

/// What the user is told.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct Told {
    /// Say what is copied, and which engine and data paths ran
    #[arg(short, long, overrides_with_all = ["verbose", "quiet"])]
    pub(crate) verbose: bool,
    /// Say nothing but errors
    #[arg(short, long, overrides_with_all = ["verbose", "quiet"])]
    pub(crate) quiet: bool,
    /// Give an account of each file on standard output, one JSON object a line, and of the whole
    #[arg(long, conflicts_with = "explain")]
    pub(crate) json: bool,
    /// Say of each file which way its data went, and why
    #[arg(long)]
    pub(crate) explain: bool,
    /// Say of each file how it was copied, in the words of cp; implies -v
    #[arg(long)]
    pub(crate) debug: bool,
    /// Whether progress is shown on standard error; auto: on a terminal
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) progress: When,
    #[command(flatten)]
    help: Help,
}

/// What every subcommand tells about itself.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct Help {
    /// Print this help, in short
    #[arg(short = 'h', action = ArgAction::HelpShort)]
    short: Option<bool>,
    /// Print this help, with examples
    #[arg(long, action = ArgAction::HelpLong)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}
