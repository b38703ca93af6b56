//! What is promised about targets.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ucp_engine::copy;

use super::path;

/// `--sandbox`, with what it does not cover; `docs/access.md` says more.
const SANDBOX: &str = "Give up all files but the sources and the target's place before anything is \
    done (Landlock). Not covered: asking for the status of other files, changing their owner, \
    mode, times or attributes, and what was open before";

/// What is promised about targets.
#[derive(Args, Debug)]
#[command(next_help_heading = "Safety")]
pub(crate) struct Safety {
    /// What is on stable storage before the end: nothing promised, data, or data, metadata and
    /// names [default: none; without a value: full]
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "none", default_missing_value = "full", hide_default_value = true)]
    pub(crate) durable: Durable,
    /// Write into existing files instead of replacing them
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Whether a new directory is made aside and appears whole, or its files as they come
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) stage: Stage,
    /// Write over this block device, even if it is in use or holds something: repeat TARGET's name
    #[arg(long, value_name = "DEVICE", value_parser = path())]
    pub(crate) destroy_data: Vec<PathBuf>,
    /// Publish also what was changed while it was copied, twice; it is said, and marked in --json
    #[arg(long)]
    pub(crate) allow_changed: bool,
    /// Begin again with large files and new directories that were interrupted, and keep nothing of
    /// one that is
    #[arg(long)]
    pub(crate) no_resume: bool,
    /// Give up all files but the sources and the target's place before anything is done (Landlock)
    #[arg(long, long_help = SANDBOX)]
    pub(crate) sandbox: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Durable {
    None,
    Data,
    Full,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Stage {
    Auto,
    Never,
}

impl Safety {
    /// Tells the engine.
    pub(crate) fn apply(&self, options: &mut copy::Options) {
        options.durability = match self.durable {
            Durable::None => copy::Durability::None,
            Durable::Data => copy::Durability::Data,
            Durable::Full => copy::Durability::Full,
        };
        options.in_place = self.in_place;
        options.allow_changed = self.allow_changed;
        options.destroy_data.clone_from(&self.destroy_data);
        if self.no_resume {
            options.resume = copy::Resume::Never;
        }
        options.stage = match self.stage {
            Stage::Auto => copy::Stage::Auto,
            Stage::Never => copy::Stage::Never,
        };
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::CopyArguments;
    use super::*;

    fn parsed(words: &[&str]) -> CopyArguments {
        CopyArguments::try_parse_from([&["ucp"], words].concat()).unwrap()
    }

    #[test]
    fn bare_durable_means_full_and_takes_no_operand() {
        let cases = [
            (vec!["a", "b"], Durable::None),
            (vec!["--durable", "a", "b"], Durable::Full),
            (vec!["--durable=data", "a", "b"], Durable::Data),
            (vec!["--durable=none", "a", "b"], Durable::None),
        ];
        for (words, want) in cases {
            let arguments = parsed(&words);
            assert_eq!(arguments.safety.durable, want, "{words:?}");
            assert_eq!(arguments.operands.len(), 2, "{words:?}");
        }
    }
}
