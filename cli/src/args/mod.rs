//! The command line: exactly what the user typed, and what is wrong with it.
//!
//! One file a group of options; each tells the engine itself what it means.

mod attributes;
mod compare;
mod data;
mod existing;
mod reading;
mod safety;
mod selection;
mod speed;
mod subcommand;
mod sum;
pub(crate) mod text;
mod told;
mod verification;
mod what;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Parser;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use clap::error::ErrorKind;

pub(crate) use self::attributes::{Attributes, LinksWord};
pub(crate) use self::compare::CompareArguments;
pub(crate) use self::data::Data;
pub(crate) use self::existing::{Environment, Existing};
pub(crate) use self::safety::Safety;
pub(crate) use self::selection::Selection;
pub(crate) use self::speed::Speed;
pub(crate) use self::subcommand::{
    CompletionsArguments, DoctorArguments, ManualArguments, Subcommand, whole,
};
pub(crate) use self::sum::SumArguments;
pub(crate) use self::told::{Told, When};
pub(crate) use self::verification::Verification;
pub(crate) use self::what::What;
use crate::exit::ExitStatus;
use crate::gnu::{self, Persona};
use crate::quote;
use crate::report::complain_about_usage;

const USAGE: &str = "ucp [OPTIONS] SOURCE... TARGET
       ucp [OPTIONS] -t DIRECTORY [-t DIRECTORY]... SOURCE...
       ucp [OPTIONS] -T SOURCE TARGET
       ucp copy|sum|compare|doctor|completions|man ...";

/// Copies files and trees; a file stands under its name only when it is complete
#[derive(Debug, Parser)]
#[command(name = "ucp", version, override_usage = USAGE)]
#[command(after_help = text::HINT, after_long_help = text::after_help())]
#[command(max_term_width = 100, disable_help_flag = true, disable_version_flag = true)]
// An option may be given again, as in cp: scripts and aliases add to what the user typed. Its
// beginning is enough, too.
#[command(args_override_self = true, infer_long_args = true)]
pub(crate) struct CopyArguments {
    #[arg(value_name = "SOURCE... TARGET", hide = true, value_parser = path())]
    operands: Vec<PathBuf>,
    // Before those whose places it looks at.
    #[command(flatten)]
    pub(crate) links_word: LinksWord,
    #[command(flatten)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) existing: Existing,
    #[command(flatten)]
    pub(crate) attributes: Attributes,
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) safety: Safety,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) verification: Verification,
    #[command(flatten)]
    pub(crate) speed: Speed,
    #[command(flatten)]
    pub(crate) told: Told,
    /// Under which name the program was called.
    #[arg(skip)]
    pub(crate) persona: Persona,
}

/// What is to be done about a command line.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A copy.
    Copy(Box<CopyArguments>),
    /// A comparison.
    Compare(Box<CompareArguments>),
    /// Digests.
    Sum(Box<SumArguments>),
    /// Something that may be ended at any time.
    Other(Other),
    /// Nothing more: help was printed, or a complaint.
    Finished(ExitStatus),
}

/// What can be done besides copying.
#[derive(Debug)]
pub(crate) enum Other {
    /// A look at a file system.
    Doctor(DoctorArguments),
    /// What a shell completes words with.
    Completions(CompletionsArguments),
    /// The manual.
    Manual(ManualArguments),
}

/// What the copy is between.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Operands {
    /// Sources, and a directory or the new name.
    Guess(Vec<PathBuf>, PathBuf),
    /// Sources, and a directory (`-t`), or several.
    Into(Vec<PathBuf>, PathBuf, Vec<PathBuf>),
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
    let persona = invocation.persona();
    let (subcommand, words) = match invocation.subcommand(|word| fs::symlink_metadata(word).is_ok())
    {
        Ok(chosen) => chosen,
        Err(complaint) => return refuse(persona, &complaint),
    };
    match subcommand {
        Subcommand::Copy => read(persona, words, |arguments: CopyArguments| {
            let arguments = CopyArguments { persona, ..arguments };
            let checked = arguments.operands().and_then(|_| arguments.data.check());
            let checked = checked.and_then(|()| arguments.verification.check());
            let checked = checked.and_then(|()| arguments.check_dry_run());
            match checked.and_then(|()| arguments.speed.check()) {
                Ok(()) => Outcome::Copy(Box::new(arguments)),
                Err(complaint) => refuse(persona, &complaint),
            }
        }),
        Subcommand::Sum => {
            read(persona, words, |arguments: SumArguments| match arguments.verify() {
                Ok(()) => Outcome::Sum(Box::new(arguments)),
                Err(complaint) => refuse(persona, &complaint),
            })
        }
        Subcommand::Compare => read(persona, words, |arguments: CompareArguments| {
            Outcome::Compare(Box::new(arguments))
        }),
        Subcommand::Doctor => read(persona, words, |doctor| Outcome::Other(Other::Doctor(doctor))),
        Subcommand::Completions => {
            read(persona, words, |shell| Outcome::Other(Other::Completions(shell)))
        }
        Subcommand::Manual => read(persona, words, |manual| Outcome::Other(Other::Manual(manual))),
    }
}

/// Reads the words of a subcommand.
fn read<A: Parser>(
    persona: Persona,
    words: &[OsString],
    then: impl FnOnce(A) -> Outcome,
) -> Outcome {
    match parse_words(persona, [OsString::from("ucp")].iter().chain(words)) {
        Ok(arguments) => then(arguments),
        Err(error) if error.exit_code() == 0 => Outcome::Finished(print(&error)),
        Err(error) => {
            let known = if persona == Persona::Cp { gnu::usage(&error, words) } else { None };
            refuse(persona, &known.unwrap_or_else(|| complaint(&error)))
        }
    }
}

/// Reads the options, and where they end: at the first operand if POSIX is to be followed.
fn parse_words<'a, A: Parser>(
    persona: Persona,
    words: impl Iterator<Item = &'a OsString>,
) -> Result<A, clap::Error> {
    let mut command = A::command();
    if persona == Persona::Cp {
        // cp knows no such letters.
        command = command.mut_args(|arg| match arg.get_short() {
            Some('h' | 'q' | 'V') if arg.get_long().is_some() => arg.short(None),
            // Without any name it would be an operand.
            Some('h') => arg.short(None).long("short-help").hide(true),
            _ => arg,
        });
    }
    let has_operands = command.get_arguments().any(|arg| arg.get_id() == "operands");
    let command = match has_operands && existing::is_posix() {
        true => command.mut_arg("operands", |operands| operands.trailing_var_arg(true)),
        false => command,
    };
    A::from_arg_matches(&command.try_get_matches_from(words)?)
}

impl Invocation {
    /// The words as the system gives them: the program's name first, if there is one.
    pub(crate) fn from_words(words: impl IntoIterator<Item = OsString>) -> Self {
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_default();
        Self { program, words: words.collect() }
    }

    fn persona(&self) -> Persona {
        match Path::new(&self.program).file_name() {
            Some(name) if name == "cp" => Persona::Cp,
            _ => Persona::Ucp,
        }
    }

    /// What is to be done, and the words without the subcommand.
    ///
    /// A first word that names a subcommand, while a file of that name is there, could mean
    /// either. Only `copy copy` says clearly that the second is a file, as does `doctor doctor`.
    fn subcommand(
        &self,
        exists: impl Fn(&OsStr) -> bool,
    ) -> Result<(Subcommand, &[OsString]), String> {
        let copy = Ok((Subcommand::Copy, self.words.as_slice()));
        let Some((first, rest)) = self.words.split_first() else { return copy };
        let Some(subcommand) = Subcommand::named(first) else { return copy };
        if self.persona() == Persona::Cp {
            return copy;
        }
        let is_repeated = rest.first() == Some(first);
        if is_repeated || !exists(first) {
            return Ok((subcommand, rest));
        }
        // Whoever means to copy need not say so; the others can be had elsewhere.
        let elsewhere = match subcommand {
            Subcommand::Copy => "",
            _ => "; for the subcommand, run it in a directory without such a file",
        };
        let word = quote::if_needed(first);
        let rest: String = rest.iter().map(|word| format!(" {}", quote::if_needed(word))).collect();
        Err(format!(
            "{word} is a subcommand, and a file of that name is here: \
             for the file write 'ucp copy {word}{rest}' or 'ucp ./{word}{rest}'{elsewhere}"
        ))
    }
}

impl CopyArguments {
    /// A dry run makes no directory, and can't look into one that is not there.
    fn check_dry_run(&self) -> Result<(), String> {
        if self.selection.is_dry_run() && self.existing.needs_directory() {
            return Err("cannot combine --dry-run and --parents".to_owned());
        }
        Ok(())
    }

    /// The sources and the target, in the words of `cp` if one is missing or too many.
    pub(crate) fn operands(&self) -> Result<Operands, String> {
        let operands = &self.operands;
        if self.existing.needs_directory() && self.what.no_target_directory && operands.len() == 2 {
            return Err("with --parents, the destination must be a directory".to_owned());
        }
        let directories = self.what.target_directory.split_first();
        match (directories, self.what.no_target_directory) {
            (Some((_, [_, ..])), _) if self.persona == Persona::Cp => {
                Err("multiple target directories specified".to_owned())
            }
            (Some(_), true) => Err("cannot combine --target-directory (-t) and \
                                    --no-target-directory (-T)"
                .to_owned()),
            (_, _) if operands.is_empty() => Err("missing file operand".to_owned()),
            (Some((directory, also)), false) => {
                Ok(Operands::Into(operands.clone(), directory.clone(), also.to_vec()))
            }
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
}

/// Any path; one that names nothing is found out when it is used.
fn path() -> ValueParser {
    ValueParser::new(OsStringValueParser::new().map(PathBuf::from))
}

fn refuse(persona: Persona, complaint: &str) -> Outcome {
    complain_about_usage(persona, complaint);
    Outcome::Finished(ExitStatus::of_usage(persona))
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
    fn an_option_may_be_given_again() {
        let arguments = parsed(&["-R", "-r", "-x", "-x", "--reflink=auto", "c", "d"]);
        assert!(arguments.what.recursive);
        for words in [["--direct=on", "--direct=off"], ["--durable", "--durable"]] {
            assert!(CopyArguments::try_parse_from([&["ucp"], &words[..]].concat()).is_ok());
        }
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
            (
                "-t and one",
                vec!["-t", "d", "a"],
                Ok(Operands::Into(vec![path("a")], path("d"), vec![])),
            ),
            (
                "-t several times",
                vec!["-t", "d", "a", "--target-directory=e", "-tf"],
                Ok(Operands::Into(vec![path("a")], path("d"), vec![path("e"), path("f")])),
            ),
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
    fn cp_takes_one_target_directory() {
        let arguments = parsed(&["-t", "d", "-t", "e", "a"]);
        let arguments = CopyArguments { persona: Persona::Cp, ..arguments };
        let complaint = arguments.operands().unwrap_err();
        assert_eq!(complaint, "multiple target directories specified");
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
            let got = invocation.subcommand(|_| is_there);
            let want: Result<Vec<OsString>, _> =
                want.map(|words| words.into_iter().map(OsString::from).collect());
            assert_eq!(got.map(|(_, words)| words.to_vec()), want, "{name}");
        }
    }

    #[test]
    fn the_first_word_chooses_the_subcommand() {
        let cases = [
            ("copy", Subcommand::Copy),
            ("doctor", Subcommand::Doctor),
            ("completions", Subcommand::Completions),
            ("man", Subcommand::Manual),
            ("other", Subcommand::Copy),
        ];
        for (word, want) in cases {
            let invocation = Invocation::from_words(["ucp", word, "x"].map(OsString::from));
            assert_eq!(invocation.subcommand(|_| false).unwrap().0, want, "{word}");
            let got = invocation.subcommand(|_| true);
            assert_eq!(got.is_err(), word != "other", "{word} is a file as well");
        }
    }

    #[test]
    fn cp_knows_no_subcommand() {
        let words = ["/usr/bin/cp", "copy", "b"].map(OsString::from);
        let invocation = Invocation::from_words(words);
        assert_eq!(invocation.persona(), Persona::Cp);
        assert_eq!(invocation.subcommand(|_| true).unwrap().1.len(), 2);
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
