//! What is copied, and where to.

use std::path::PathBuf;

use clap::Args;
use ucp_engine::copy;

use super::path;

/// What is copied, and where to.
#[derive(Args, Debug)]
#[command(next_help_heading = "What is copied, and where to")]
pub(crate) struct What {
    /// Copy all SOURCEs into DIRECTORY; given again, into each, and read them once
    #[arg(short, long, value_name = "DIRECTORY", value_parser = path())]
    pub(crate) target_directory: Vec<PathBuf>,
    /// Take TARGET as the new name, even if it is a directory
    #[arg(short = 'T', long)]
    pub(crate) no_target_directory: bool,
    /// Copy SOURCEs that are symbolic links as links; directories are copied in any case
    #[arg(short = 'R', visible_short_alias = 'r', long)]
    pub(crate) recursive: bool,
    /// Follow SOURCEs that are symbolic links, copy others as links (default)
    #[arg(short = 'H', overrides_with_all = ["follow_operands", "follow_all", "follow_none"])]
    pub(crate) follow_operands: bool,
    /// Follow all symbolic links
    #[arg(short = 'L', long = "dereference", overrides_with_all = ["follow_operands", "follow_all", "follow_none"])]
    pub(crate) follow_all: bool,
    /// Follow no symbolic links: copy them as links
    #[arg(short = 'P', long = "no-dereference", overrides_with_all = ["follow_operands", "follow_all", "follow_none"])]
    pub(crate) follow_none: bool,
}

impl What {
    /// Tells the engine.
    pub(crate) fn apply(&self, options: &mut copy::Options) {
        options.links = self.follow_links();
        if self.recursive {
            options.specials = copy::Specials::Made;
        }
    }

    /// As in `cp`: whoever asks for a recursive copy means the links themselves, unless told
    /// otherwise.
    fn follow_links(&self) -> copy::FollowLinks {
        if self.follow_all {
            copy::FollowLinks::Always
        } else if self.follow_none || (self.recursive && !self.follow_operands) {
            copy::FollowLinks::Never
        } else {
            copy::FollowLinks::Operands
        }
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
    fn the_last_of_several_flags_about_links_wins() {
        let cases = [
            ("-HL", (false, true, false)),
            ("-LH", (true, false, false)),
            ("-LPH", (true, false, false)),
            ("-HLP", (false, false, true)),
            ("-PP", (false, false, true)),
        ];
        for (flags, want) in cases {
            let What { follow_operands, follow_all, follow_none, .. } = parsed(&[flags]).what;
            assert_eq!((follow_operands, follow_all, follow_none), want, "{flags}");
        }
    }
}
