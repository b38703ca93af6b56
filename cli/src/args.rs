//! The command line: exactly what the user typed, and what is wrong with it.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, ValueEnum, value_parser};
use ucp_engine::limits::{BLOCK_BYTES_DEFAULT, DEPTH_DEFAULT, DEPTH_MAX};
use ucp_engine::units::{Bytes, KIB, MIB};

use crate::exit::ExitStatus;
use crate::report::complain_about_usage;
use crate::{quote, size};

/// The words that name what to do; without one of them, `ucp` copies.
const SUBCOMMANDS: [&str; 1] = ["copy"];

const BLOCK_BYTES_MIN: u64 = 4 * KIB;
const BLOCK_BYTES_MAX: u64 = 64 * MIB;
/// All blocks together: more than this helps no device, and is likely a slip.
const BLOCKS_BYTES_MAX: u64 = 1024 * MIB;

const USAGE: &str = "ucp [OPTIONS] SOURCE... TARGET
       ucp [OPTIONS] -t DIRECTORY SOURCE...
       ucp [OPTIONS] -T SOURCE TARGET
       ucp copy ...";

const EXAMPLES: &str = "\
Examples:
  ucp disk.img /backup/disk.img     copy a file
  ucp photos /backup                copy a directory: to /backup/photos if /backup exists
  ucp a b c /backup                 copy several into a directory
  ucp --durable disk.img /backup    return only when the copy is on stable storage
  ucp -v photos /backup             say what is copied, and how

Exit status: 0 all done, 1 some files failed or were skipped, 2 wrong usage, 8 storage failed,
9 the source changed, 128 + signal when interrupted.";

/// Copies files and trees; a file stands under its name only when it is complete
#[derive(Debug, Parser)]
#[command(name = "ucp", version, override_usage = USAGE, after_help = EXAMPLES)]
#[command(max_term_width = 100, disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct CopyArguments {
    #[arg(value_name = "SOURCE... TARGET", hide = true, value_parser = path())]
    operands: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) tuning: Tuning,
    #[command(flatten)]
    pub(crate) told: Told,
    /// Whether the program was called as `cp`, which writes existing targets in place.
    #[arg(skip)]
    pub(crate) is_called_as_cp: bool,
}

/// What is copied, and where to.
#[derive(Args, Debug)]
#[command(next_help_heading = "What is copied, and where to")]
pub(crate) struct What {
    /// Copy all SOURCEs into DIRECTORY
    #[arg(short, long, value_name = "DIRECTORY", value_parser = path())]
    pub(crate) target_directory: Option<PathBuf>,
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

/// How it is published.
#[derive(Args, Debug)]
#[command(next_help_heading = "Safety")]
pub(crate) struct How {
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
}

/// Which way the bytes take.
#[derive(Args, Debug)]
#[command(next_help_heading = "Speed")]
pub(crate) struct Tuning {
    /// Whether large files bypass the page cache
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) direct: Direct,
    /// Whether extents may be shared with the source
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) reflink: Reflink,
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
    /// Whether progress is shown on standard error; auto: on a terminal
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) progress: When,
    /// Print this help
    #[arg(short, long, action = ArgAction::HelpShort)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
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

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Direct {
    Auto,
    On,
    Off,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Reflink {
    Auto,
    Never,
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

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

/// What is to be done about a command line.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A copy.
    Copy(Box<CopyArguments>),
    /// Nothing more: help was printed, or a complaint.
    Finished(ExitStatus),
}

/// What the copy is between.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Operands {
    /// Sources, and a directory or the new name.
    Guess(Vec<PathBuf>, PathBuf),
    /// Sources, and a directory (`-t`).
    Into(Vec<PathBuf>, PathBuf),
    /// A source and its new name (`-T`).
    Named(PathBuf, PathBuf),
}

/// The words of a command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    program: OsString,
    words: Vec<OsString>,
}

/// Reads the command line, and prints help or a complaint if that is all there is to do.
pub(crate) fn parse(invocation: &Invocation) -> Outcome {
    let words = match invocation.copy_words(|word| fs::symlink_metadata(word).is_ok()) {
        Ok(words) => words,
        Err(complaint) => return refuse(&complaint),
    };
    match CopyArguments::try_parse_from([OsString::from("ucp")].iter().chain(words)) {
        Ok(arguments) => {
            let arguments =
                CopyArguments { is_called_as_cp: invocation.is_called_as_cp(), ..arguments };
            match arguments.operands().and_then(|_| arguments.check_blocks()) {
                Ok(()) => Outcome::Copy(Box::new(arguments)),
                Err(complaint) => refuse(&complaint),
            }
        }
        Err(error) if error.exit_code() == 0 => Outcome::Finished(print(&error)),
        Err(error) => refuse(&complaint(&error)),
    }
}

impl Invocation {
    /// The words as the system gives them: the program's name first, if there is one.
    pub(crate) fn from_words(words: impl IntoIterator<Item = OsString>) -> Self {
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_default();
        Self { program, words: words.collect() }
    }

    fn is_called_as_cp(&self) -> bool {
        Path::new(&self.program).file_name() == Some(OsStr::new("cp"))
    }

    /// The words without the subcommand.
    ///
    /// A first word that names a subcommand, while a file of that name is there, could mean
    /// either. Only `copy copy` says clearly that the second is a file.
    fn copy_words(&self, exists: impl Fn(&OsStr) -> bool) -> Result<&[OsString], String> {
        let Some((first, rest)) = self.words.split_first() else { return Ok(&self.words) };
        let is_subcommand = SUBCOMMANDS.iter().any(|name| first == name);
        if !is_subcommand || self.is_called_as_cp() {
            return Ok(&self.words);
        }
        let is_repeated = rest.first() == Some(first);
        if is_repeated || !exists(first) {
            return Ok(rest);
        }
        let word = quote::if_needed(first);
        let rest: String = rest.iter().map(|word| format!(" {}", quote::if_needed(word))).collect();
        Err(format!(
            "{word} is a subcommand, and a file of that name is here: \
             for the file write 'ucp copy {word}{rest}' or 'ucp ./{word}{rest}'"
        ))
    }
}

impl CopyArguments {
    /// The sources and the target, in the words of `cp` if one is missing or too many.
    pub(crate) fn operands(&self) -> Result<Operands, String> {
        let operands = &self.operands;
        match (&self.what.target_directory, self.what.no_target_directory) {
            (Some(_), true) => Err("cannot combine --target-directory (-t) and \
                                    --no-target-directory (-T)"
                .to_owned()),
            (_, _) if operands.is_empty() => Err("missing file operand".to_owned()),
            (Some(directory), false) => Ok(Operands::Into(operands.clone(), directory.clone())),
            (None, is_name) => match operands.as_slice() {
                [source] => {
                    Err(format!("missing destination file operand after {}", quote::always(source)))
                }
                [_, _, extra, ..] if is_name => {
                    Err(format!("extra operand {}", quote::always(extra)))
                }
                [source, target] if is_name => Ok(Operands::Named(source.clone(), target.clone())),
                [sources @ .., target] => Ok(Operands::Guess(sources.to_vec(), target.clone())),
                [] => unreachable!("no operand was refused above"),
            },
        }
    }

    fn check_blocks(&self) -> Result<(), String> {
        let Tuning { depth, block_size, .. } = self.tuning;
        if u64::from(depth) * u64::from(block_size) <= BLOCKS_BYTES_MAX {
            return Ok(());
        }
        let most = Bytes(BLOCKS_BYTES_MAX);
        Err(format!("--depth={depth} times --block-size={block_size} is more than {most}"))
    }
}

/// Any path; one that names nothing is found out when it is used.
fn path() -> ValueParser {
    ValueParser::new(OsStringValueParser::new().map(PathBuf::from))
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

fn refuse(complaint: &str) -> Outcome {
    complain_about_usage(complaint);
    Outcome::Finished(ExitStatus::Usage)
}

/// What clap says in several lines, in one.
fn complaint(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text
        .split("\n\n")
        .map(|paragraph| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    let what = paragraphs.next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(&what).to_owned();
    let tip = paragraphs.find_map(|paragraph| Some(paragraph.strip_prefix("tip: ")?.to_owned()));
    let line = match (error.kind(), tip) {
        (ErrorKind::UnknownArgument | ErrorKind::InvalidValue, Some(tip)) => {
            format!("{what} ({tip})")
        }
        _ => what,
    };
    quote::without_controls(&line)
}

/// Prints help or the version.
fn print(text: &clap::Error) -> ExitStatus {
    // clap prints to standard output itself, but its `exit` would hide that nothing was printed.
    match text.print().and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            let _ = writeln!(io::stderr(), "ucp: write failed on standard output: {error}");
            ExitStatus::SomeFailed
        }
    }
}

const _: () = assert!(BLOCK_BYTES_DEFAULT as u64 == MIB, "the help says so");

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(words: &[&str]) -> CopyArguments {
        CopyArguments::try_parse_from([&["ucp"], words].concat()).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        CopyArguments::command().debug_assert();
    }

    #[test]
    fn operands_are_taken_as_cp_takes_them() {
        let path = PathBuf::from;
        let cases = [
            ("none", vec![], Err("missing file operand".to_owned())),
            ("one", vec!["a"], Err("missing destination file operand after 'a'".to_owned())),
            ("two", vec!["a", "b"], Ok(Operands::Guess(vec![path("a")], path("b")))),
            (
                "three",
                vec!["a", "b", "c"],
                Ok(Operands::Guess(vec![path("a"), path("b")], path("c"))),
            ),
            ("-t and one", vec!["-t", "d", "a"], Ok(Operands::Into(vec![path("a")], path("d")))),
            ("-t and none", vec!["-t", "d"], Err("missing file operand".to_owned())),
            ("-T and two", vec!["a", "-T", "b"], Ok(Operands::Named(path("a"), path("b")))),
            ("-T and three", vec!["-T", "a", "b", "c"], Err("extra operand 'c'".to_owned())),
            (
                "-T and one",
                vec!["-T", "a"],
                Err("missing destination file operand after 'a'".to_owned()),
            ),
            (
                "-t and -T",
                vec!["-T", "-t", "d", "a"],
                Err("cannot combine --target-directory (-t) and --no-target-directory (-T)"
                    .to_owned()),
            ),
            (
                "after two dashes",
                vec!["--", "-a", "-b"],
                Ok(Operands::Guess(vec![path("-a")], path("-b"))),
            ),
        ];
        for (name, words, want) in cases {
            assert_eq!(parsed(&words).operands(), want, "{name}");
        }
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
            assert_eq!(arguments.how.durable, want, "{words:?}");
            assert_eq!(arguments.operands.len(), 2, "{words:?}");
        }
    }

    #[test]
    fn a_word_that_is_a_subcommand_and_a_file_is_refused() {
        let cases = [
            ("no words", vec![], true, Ok(vec![])),
            ("no subcommand", vec!["a", "copy"], true, Ok(vec!["a", "copy"])),
            ("no such file", vec!["copy", "a", "b"], false, Ok(vec!["a", "b"])),
            ("the file, said clearly", vec!["copy", "copy", "b"], true, Ok(vec!["copy", "b"])),
            ("an option first", vec!["-v", "copy", "b"], true, Ok(vec!["-v", "copy", "b"])),
            ("another spelling", vec!["./copy", "b"], true, Ok(vec!["./copy", "b"])),
            (
                "either",
                vec!["copy", "a b"],
                true,
                Err("copy is a subcommand, and a file of that name is here: \
                     for the file write 'ucp copy copy 'a b'' or 'ucp ./copy 'a b''"
                    .to_owned()),
            ),
        ];
        for (name, words, is_there, want) in cases {
            let words = [vec!["ucp"], words].concat();
            let invocation = Invocation::from_words(words.into_iter().map(OsString::from));
            let got = invocation.copy_words(|_| is_there);
            let want: Result<Vec<OsString>, _> =
                want.map(|words| words.into_iter().map(OsString::from).collect());
            assert_eq!(got.map(<[OsString]>::to_vec), want, "{name}");
        }
    }

    #[test]
    fn cp_knows_no_subcommand() {
        let words = ["/usr/bin/cp", "copy", "b"].map(OsString::from);
        let invocation = Invocation::from_words(words);
        assert!(invocation.is_called_as_cp());
        assert_eq!(invocation.copy_words(|_| true).unwrap().len(), 2);
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
        assert!(parsed(&["--depth=16", "--block-size=64M"]).check_blocks().is_ok());
        assert!(parsed(&["--depth=17", "--block-size=64M"]).check_blocks().is_err());
    }

    #[test]
    fn complaints_are_one_line_without_controls() {
        let cases = [
            (vec!["--no-such"], "unexpected argument '--no-such' found"),
            (
                vec!["--direct=a\u{202e}"],
                "invalid value 'a\\u{202e}' for '--direct <WHEN>' [possible values: auto, on, off]",
            ),
            (vec!["--depth=0"], "invalid value '0' for '--depth <N>': 0 is not in 1..=256"),
            (
                vec!["--block-size=x"],
                "invalid value 'x' for '--block-size <SIZE>': \
                 a size begins with a number, as in 64K, 1MiB or 2G",
            ),
        ];
        for (words, want) in cases {
            let words = [vec!["ucp"], words].concat();
            let error = CopyArguments::try_parse_from(words).unwrap_err();
            assert!(complaint(&error).starts_with(want), "{}", complaint(&error));
        }
    }
}
