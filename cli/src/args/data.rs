//! How the copy's data lies on the disk.

use clap::{Args, ValueEnum};
use ucp_engine::copy;

/// How the copy's data lies on the disk.
#[derive(Args, Debug)]
#[command(next_help_heading = "Holes and shared extents")]
pub(crate) struct Data {
    /// Which holes the copy gets: those of its source, one wherever there are zeros, or none
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) sparse: Sparse,
    /// Whether extents are shared with the source: where possible, in any case, or never, so that
    /// every byte exists twice [default: auto; without a value: always]
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "auto", default_missing_value = "always", hide_default_value = true)]
    pub(crate) reflink: Reflink,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Sparse {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Reflink {
    Auto,
    Always,
    Never,
}

impl Data {
    /// Tells the engine.
    pub(crate) fn apply(&self, options: &mut copy::Options) {
        options.holes = match self.sparse {
            Sparse::Auto => copy::Holes::Auto,
            Sparse::Always => copy::Holes::Always,
            Sparse::Never => copy::Holes::Never,
        };
        options.reflink = match self.reflink {
            Reflink::Auto => copy::Reflink::Auto,
            Reflink::Always => copy::Reflink::Always,
            Reflink::Never => copy::Reflink::Never,
        };
    }

    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        // Shared extents have the holes of the source.
        if self.reflink == Reflink::Always && self.sparse != Sparse::Auto {
            return Err("--reflink can be used only with --sparse=auto".to_owned());
        }
        Ok(())
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
    fn bare_reflink_means_always_and_takes_no_operand() {
        let cases = [
            (vec!["a", "b"], Reflink::Auto),
            (vec!["--reflink", "a", "b"], Reflink::Always),
            (vec!["--reflink=never", "a", "b"], Reflink::Never),
            (vec!["--reflink=auto", "a", "b"], Reflink::Auto),
        ];
        for (words, want) in cases {
            let arguments = parsed(&words);
            assert_eq!(arguments.data.reflink, want, "{words:?}");
            assert_eq!(arguments.operands.len(), 2, "{words:?}");
        }
    }

    #[test]
    fn shared_extents_have_no_other_holes() {
        let cases = [
            (vec!["--reflink", "--sparse=auto"], true),
            (vec!["--reflink", "--sparse=always"], false),
            (vec!["--reflink", "--sparse=never"], false),
            (vec!["--reflink=auto", "--sparse=always"], true),
        ];
        for (words, want) in cases {
            assert_eq!(parsed(&words).data.check().is_ok(), want, "{words:?}");
        }
    }
}
