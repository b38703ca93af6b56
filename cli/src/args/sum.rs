//! `ucp sum`: what the user typed.

use std::path::PathBuf;

use clap::{Parser, ValueHint};
use ucp_engine::digest::{Algorithm, LineForm};
use ucp_engine::sum::ByteRange;

use super::path;
use super::reading::Reading;
use super::text;
use crate::size;

/// Makes digests of files and of all files of trees, or checks them against a list
#[derive(Debug, Parser)]
#[command(name = "sum", bin_name = "ucp sum", version, max_term_width = 100)]
#[command(override_usage = USAGE, after_help = text::section("Exit status", &EXIT_STATUS))]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(args_override_self = true, infer_long_args = true)]
pub(crate) struct SumArguments {
    /// Files, and directories for all regular files below them, in the order of their names; - or
    /// nothing is standard input. With -c: lists
    #[arg(value_name = "FILE", value_parser = path(), value_hint = ValueHint::AnyPath)]
    pub(crate) operands: Vec<PathBuf>,
    /// By which algorithms, in one pass: crc32, crc32c, xxh3-64, xxh3-128, blake3, sha256, sha512, md5
    /// [default: blake3]. With -c: what untagged digests are by, where their length leaves a choice
    #[arg(short, long = "algorithm", value_name = "ALGO", value_delimiter = ',')]
    pub(crate) algorithms: Vec<Algorithm>,
    /// Only these bytes of each file, as 4K:1MiB, or 1G: for all from there on; a file that ends before
    /// is an error
    #[arg(long, value_name = "OFFSET:LENGTH", value_parser = range)]
    pub(crate) range: Option<ByteRange>,
    /// Write lines in the BSD form, which names the algorithm; implied by several algorithms
    #[arg(long, help_heading = "Lines")]
    tag: bool,
    /// Mark files as read in binary mode, by a star
    #[arg(short, long, help_heading = "Lines", conflicts_with = "text")]
    binary: bool,
    /// Do not mark them; the default
    #[arg(short, long, help_heading = "Lines")]
    text: bool,
    /// End lines with a NUL, and escape nothing. With -c: of lists that were made so
    #[arg(short, long, help_heading = "Lines")]
    pub(crate) zero: bool,
    /// Check the files in each list FILE: of sha256sum, b3sum, xxhsum, md5sum or ucp sum, in any form
    #[arg(short, long, help_heading = "Checking")]
    pub(crate) check: bool,
    /// Take no offence at files that are not there
    #[arg(long, requires = "check", help_heading = "Checking")]
    pub(crate) ignore_missing: bool,
    /// Do not tell of files that are as they should be
    #[arg(long, requires = "check", help_heading = "Checking")]
    pub(crate) quiet: bool,
    /// Tell nothing; the exit status says it
    #[arg(long, requires = "check", help_heading = "Checking")]
    pub(crate) status: bool,
    /// Fail if a list has a line that is none
    #[arg(long, requires = "check", help_heading = "Checking")]
    pub(crate) strict: bool,
    /// Say which lines are none
    #[arg(short, long, requires = "check", help_heading = "Checking")]
    pub(crate) warn: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

const USAGE: &str = "ucp sum [OPTIONS] [FILE]...
       ucp sum -c [OPTIONS] [LIST]...";

const EXIT_STATUS: [text::Meaning; 5] = [
    ("0", "all done, and all as it should be"),
    ("1", "some files could not be read, or were skipped, each named; or a list is none"),
    ("2", "wrong usage"),
    ("6", "a file has another digest than its list says"),
    ("128 + N", "stopped by signal N"),
];

impl SumArguments {
    /// Which digests are made.
    pub(crate) fn algorithms(&self) -> Vec<Algorithm> {
        let mut wanted = Vec::new();
        for algorithm in &self.algorithms {
            if !wanted.contains(algorithm) {
                wanted.push(*algorithm);
            }
        }
        if wanted.is_empty() {
            wanted.push(Algorithm::Blake3);
        }
        wanted
    }

    /// How lines are written.
    pub(crate) fn form(&self) -> LineForm {
        LineForm {
            is_tagged: self.tag || self.algorithms().len() > 1,
            is_binary: self.binary,
            ends_with_nul: self.zero,
        }
    }

    /// What is wrong with it, if anything.
    pub(super) fn verify(&self) -> Result<(), String> {
        if self.check && (self.tag || self.binary) {
            return Err(
                "--tag and --binary are for lines that are written, and -c reads them".into()
            );
        }
        if self.reading.json && (self.tag || self.binary || self.zero) && !self.check {
            return Err("--json writes objects, and no lines of another form".into());
        }
        Ok(())
    }
}

fn range(text: &str) -> Result<ByteRange, String> {
    let Some((offset, length)) = text.split_once(':') else {
        return Err("a range is OFFSET:LENGTH, or OFFSET: for all that follows".to_owned());
    };
    let length_bytes = if length.is_empty() { None } else { Some(size::parse(length)?) };
    Ok(ByteRange { offset_bytes: size::parse(offset)?, length_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> SumArguments {
        SumArguments::try_parse_from([&["sum"], words].concat()).unwrap()
    }

    #[test]
    fn algorithms_come_once_and_in_order() {
        use Algorithm::{Blake3, Md5, Sha256};
        let cases: [(&[&str], &[Algorithm]); 4] = [
            (&[], &[Blake3]),
            (&["-a", "md5"], &[Md5]),
            (&["-a", "sha256,md5,SHA-256"], &[Sha256, Md5]),
            (&["-a", "md5", "--algorithm=b3", "-a", "md5"], &[Md5, Blake3]),
        ];
        for (words, want) in cases {
            assert_eq!(parsed(words).algorithms(), want, "{words:?}");
            assert_eq!(parsed(words).form().is_tagged, want.len() > 1, "{words:?}");
        }
        assert!(SumArguments::try_parse_from(["sum", "-a", "crc64"]).is_err());
    }

    #[test]
    fn ranges_are_read() {
        let cases = [
            ("0:1", Some((0, Some(1)))),
            ("4K:1MiB", Some((4096, Some(1 << 20)))),
            ("1G:", Some((1 << 30, None))),
            ("1G", None),
            (":1", None),
            ("a:1", None),
        ];
        for (text, want) in cases {
            let got = range(text).ok().map(|it| (it.offset_bytes, it.length_bytes));
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [&["--quiet"][..], &["-w"], &["--strict", "a"], &["-b", "-t"]] {
            assert!(SumArguments::try_parse_from([&["sum"], words].concat()).is_err(), "{words:?}");
        }
        for words in [&["-c", "--tag"][..], &["-cb"], &["--json", "-z"]] {
            assert!(parsed(words).verify().is_err(), "{words:?}");
        }
        assert!(parsed(&["-c", "-z", "--json", "a"]).verify().is_ok());
    }
}
