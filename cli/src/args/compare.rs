//! `ucp compare`: what the user typed.

use std::path::PathBuf;

use clap::{Parser, ValueHint};

use super::path;
use super::reading::Reading;
use super::text;

/// Says in what two files or two trees differ
#[derive(Debug, Parser)]
#[command(name = "compare", bin_name = "ucp compare", version, max_term_width = 100)]
#[command(after_help = text::section("Exit status", &EXIT_STATUS))]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(args_override_self = true, infer_long_args = true)]
pub(crate) struct CompareArguments {
    /// A file or a directory
    #[arg(value_name = "A", value_parser = path(), value_hint = ValueHint::AnyPath)]
    pub(crate) a: PathBuf,
    /// Another; links below the two are compared by what they say
    #[arg(value_name = "B", value_parser = path(), value_hint = ValueHint::AnyPath)]
    pub(crate) b: PathBuf,
    /// Compare owner, group, mode, time of modification and extended attributes, too
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Do not say in what they differ; the exit status says whether
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

const EXIT_STATUS: [text::Meaning; 5] = [
    ("0", "they are the same"),
    ("1", "some files could not be compared, each named"),
    ("2", "wrong usage"),
    ("6", "they differ"),
    ("128 + N", "stopped by signal N"),
];
