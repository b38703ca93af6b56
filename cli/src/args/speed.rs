//! Which way the bytes take, and what moves them.

use clap::{Args, ValueEnum, value_parser};
use ucp_engine::cache_policy::CachePolicy;
use ucp_engine::copy;
use ucp_engine::limits::{BLOCK_BYTES_DEFAULT, DEPTH_DEFAULT, DEPTH_MAX};
use ucp_engine::processor::EngineChoice;
use ucp_engine::units::{Bytes, KIB, MIB};

use crate::size;

const BLOCK_BYTES_MIN: u64 = 4 * KIB;
const BLOCK_BYTES_MAX: u64 = 64 * MIB;
/// All blocks together: more than this helps no device, and is likely a slip.
const BLOCKS_BYTES_MAX: u64 = 1024 * MIB;

/// Which way the bytes take.
#[derive(Args, Debug)]
#[command(next_help_heading = "Speed")]
pub(crate) struct Speed {
    /// Whether large files bypass the page cache
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) direct: Direct,
    /// What a copy leaves in the page cache: what the fastest way leaves, all that is read and written,
    /// or what was there before
    #[arg(long, value_name = "WHAT", default_value = "auto")]
    pub(crate) cache: Cache,
    /// What does the work; without io_uring, auto takes threads, and uring fails
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    pub(crate) engine: Engine,
    /// Whether each read and write is given to the kernel as a linked pair
    #[arg(long, value_name = "HOW", default_value = "unlinked")]
    pub(crate) pipeline: Pipeline,
    /// Blocks of a large file in flight
    #[arg(long, value_name = "N", default_value_t = DEPTH_DEFAULT)]
    #[arg(value_parser = value_parser!(u32).range(1..=i64::from(DEPTH_MAX)))]
    pub(crate) depth: u32,
    /// Bytes of one block, as 64K, 1MiB or 2M
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = block_size)]
    pub(crate) block_size: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Direct {
    Auto,
    On,
    Off,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Cache {
    Auto,
    Keep,
    Bypass,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Engine {
    Auto,
    Uring,
    Threads,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Pipeline {
    Unlinked,
    Linked,
}

impl Cache {
    pub(super) fn policy(self) -> CachePolicy {
        match self {
            Self::Auto => CachePolicy::Auto,
            Self::Keep => CachePolicy::Keep,
            Self::Bypass => CachePolicy::Bypass,
        }
    }
}

impl Engine {
    pub(super) fn choice(self) -> EngineChoice {
        match self {
            Self::Auto => EngineChoice::Auto,
            Self::Uring => EngineChoice::Uring,
            Self::Threads => EngineChoice::Threads,
        }
    }
}

impl Speed {
    /// Tells the engine.
    pub(crate) fn apply(&self, options: &mut copy::Options) {
        options.direct = match self.direct {
            Direct::Auto => copy::Direct::Auto,
            Direct::On => copy::Direct::On,
            Direct::Off => copy::Direct::Off,
        };
        options.cache = self.cache.policy();
        options.pipeline = match self.pipeline {
            Pipeline::Unlinked => copy::PipelineMode::Unlinked,
            Pipeline::Linked => copy::PipelineMode::Linked,
        };
        options.depth = self.depth;
        options.block_bytes = self.block_size;
    }

    /// What is to do the work.
    pub(crate) fn engine(&self) -> EngineChoice {
        self.engine.choice()
    }

    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { depth, block_size, .. } = *self;
        if u64::from(depth) * u64::from(block_size) <= BLOCKS_BYTES_MAX {
            return Ok(());
        }
        let most = Bytes(BLOCKS_BYTES_MAX);
        Err(format!("--depth={depth} times --block-size={block_size} is more than {most}"))
    }
}

fn block_size(text: &str) -> Result<u32, String> {
    let bytes = size::parse(text)?;
    match u32::try_from(bytes) {
        Ok(block)
            if (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes)
                && bytes % BLOCK_BYTES_MIN == 0 =>
        {
            Ok(block)
        }
        _ => Err(format!(
            "a block is a multiple of {}, and at most {}",
            Bytes(BLOCK_BYTES_MIN),
            Bytes(BLOCK_BYTES_MAX)
        )),
    }
}

const _: () = assert!(BLOCK_BYTES_DEFAULT as u64 == MIB, "the help says so");

#[cfg(test)]
mod tests {
    use super::super::CopyArguments;
    use super::*;
    use clap::Parser;

    fn parsed(words: &[&str]) -> Speed {
        CopyArguments::try_parse_from([&["ucp"], words].concat()).unwrap().speed
    }

    #[test]
    fn blocks_are_whole_pages_and_not_too_many() {
        let cases = [
            ("4K", Some(4 << 10)),
            ("64MiB", Some(64 << 20)),
            ("65MiB", None),
            ("2K", None),
            ("5000", None),
            ("0", None),
        ];
        for (text, want) in cases {
            assert_eq!(block_size(text).ok(), want, "{text}");
        }
        assert!(parsed(&["--depth=16", "--block-size=64M"]).check().is_ok());
        assert!(parsed(&["--depth=17", "--block-size=64M"]).check().is_err());
    }
}
