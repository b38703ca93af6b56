//! How files are read by those who only read, and what of it is told.

use std::num::NonZero;

use clap::Args;
use ucp_engine::cache_policy::CachePolicy;
use ucp_engine::processor::Configuration;
use ucp_engine::sum::Options;

use super::selection::rate;
use super::speed::{Cache, Engine};
use super::told::{Help, When};

/// How files are read, and what of it is told.
#[derive(Args, Debug)]
#[command(next_help_heading = "Speed")]
pub(crate) struct Reading {
    /// What reading leaves in the page cache. auto: large files that are not in it are read past it;
    /// keep: what was read stays; bypass: it is left as it was [default: auto; of compare: bypass]
    #[arg(long, value_name = "POLICY")]
    cache: Option<Cache>,
    /// Read at most so many bytes in a second, on the whole, as 500K or 10M
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit_rate: Option<NonZero<u64>>,
    /// What reads large files; without io_uring, auto takes threads, and uring fails
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    engine: Engine,
    /// Say which engine ran, and what it came to
    #[arg(short, long, help_heading = "Output")]
    pub(crate) verbose: bool,
    /// Give an account on standard output, one JSON object a line (docs/json.md)
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Whether progress is shown on standard error; auto: on a terminal
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Output")]
    pub(crate) progress: When,
    #[command(flatten)]
    help: Help,
}

impl Reading {
    /// Tells the engine.
    pub(crate) fn apply(&self, options: &mut Options, default: CachePolicy) {
        options.cache = self.cache.map_or(default, Cache::policy);
        options.bytes_per_second_max = self.limit_rate;
        // The engine reads no environment.
        if let Some(directory) = std::env::var_os("TMPDIR").filter(|it| !it.is_empty()) {
            options.spill_directory = directory.into();
        }
    }

    /// What is to read large files.
    pub(crate) fn engine(&self) -> Configuration {
        Configuration { engine: self.engine.choice(), ..Configuration::default() }
    }
}
