//! What of the sources is copied, and what becomes of the rest.

use std::ffi::{OsStr, OsString};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::OsStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use ucp_engine::copy::{self, Filter, Listed, Verdict};

use super::path;
use crate::list::{self, Separator};
use crate::patterns::{Pattern, Patterns};
use crate::{quote, size};

/// What of the sources is copied, and what becomes of the rest.
#[derive(Args, Debug)]
#[command(next_help_heading = "Selection")]
pub(crate) struct Selection {
    #[command(flatten)]
    rules: Rules,
    /// Items of lists end with a NUL, not with a line
    #[arg(short = '0', long)]
    null: bool,
    /// Copy only the names in FILE, one a line, relative to the one SOURCE, with the directories on
    /// the way; a directory is copied with what is in it only if its name ends in '/'; - is standard
    /// input
    #[arg(long, value_name = "FILE", value_parser = path(), conflicts_with = "delete")]
    files_from: Option<PathBuf>,
    /// Once everything was copied, delete what is in a target directory and not in its SOURCE;
    /// excluded names stay, and if anything failed, everything does
    #[arg(long)]
    delete: bool,
    /// Remove each SOURCE that is a regular file, and those in SOURCEs, once its copy is complete:
    /// implies --verify, --durable=full and --stage=never; directories, links and special files
    /// stay, as does what was changed or not copied
    #[arg(long, conflicts_with = "delete")]
    remove_source_files: bool,
    /// Say what would be copied, replaced and deleted, and touch nothing
    #[arg(long)]
    dry_run: bool,
    /// Move at most so many bytes in a second, on the whole, as 500K or 10M
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Speed")]
    limit_rate: Option<NonZero<u64>>,
}

/// Options that include and exclude, in the order that they were given in.
#[derive(Debug, Default, Eq, PartialEq)]
struct Rules(Vec<Rule>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Rule {
    Include(OsString),
    Exclude(OsString),
    ExcludeFrom(OsString),
}

/// How an option of the rules is called, what it takes, and what it does.
type RuleOption = (&'static str, &'static str, fn(OsString) -> Rule, &'static str);

const RULES: [RuleOption; 3] = [
    (
        "include",
        "GLOB",
        Rule::Include,
        "Copy names that match, whatever a later --exclude says; of several patterns the first that \
         matches decides. One with a '/' in it is for the whole path below SOURCE, others are for \
         any name; at the end a '/' is for directories only; '**' matches any number of names",
    ),
    (
        "exclude",
        "GLOB",
        Rule::Exclude,
        "Leave out names that match, directories with all that is in them; SOURCEs themselves are \
         always copied",
    ),
    (
        "exclude-from",
        "FILE",
        Rule::ExcludeFrom,
        "Leave out names that match a pattern in FILE, one a line; lines that begin with '#' are \
         comments; - is standard input",
    ),
];

impl Selection {
    /// Tells the engine. Reads the lists that are named.
    ///
    /// # Errors
    ///
    /// What is wrong with a pattern or a list.
    pub(crate) fn apply(&self, options: &mut copy::Options) -> Result<(), String> {
        options.selection.filter = self.filter()?;
        options.selection.listed = self.listed()?;
        options.selection.delete = self.delete;
        options.selection.remove_source_files = self.remove_source_files;
        options.selection.dry_run = self.dry_run;
        options.selection.bytes_per_second_max = self.limit_rate;
        Ok(())
    }

    fn filter(&self) -> Result<Option<Arc<dyn Filter>>, String> {
        let mut patterns = Vec::new();
        for rule in &self.rules.0 {
            match rule {
                Rule::Include(text) => patterns.push(Pattern::new(text, Verdict::Copied)?),
                Rule::Exclude(text) => patterns.push(Pattern::new(text, Verdict::Excluded)?),
                Rule::ExcludeFrom(file) => {
                    let items = list::read(Path::new(file), self.separator())?;
                    let lines = items.iter().filter(|line| !is_comment(line));
                    for line in lines {
                        patterns.push(Pattern::new(line, Verdict::Excluded)?);
                    }
                }
            }
        }
        if patterns.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Patterns::new(patterns)?)))
    }

    fn listed(&self) -> Result<Option<Arc<Listed>>, String> {
        let Some(file) = &self.files_from else { return Ok(None) };
        let mut listed = Listed::default();
        for name in list::read(file, self.separator())? {
            let added = listed.add(name.as_encoded_bytes());
            added.map_err(|why| {
                let list = quote::always(file);
                format!("the name {} in the list {list} is refused: {why}", quote::always(&name))
            })?;
        }
        Ok(Some(Arc::new(listed)))
    }

    /// Whether names of a list make sense with so many sources.
    ///
    /// # Errors
    ///
    /// What is wrong, in words for the user.
    pub(crate) fn check(&self, sources: usize) -> Result<(), String> {
        match (&self.files_from, sources) {
            (None, _) | (_, 1) => Ok(()),
            _ => Err("with --files-from there is one source, a directory".to_owned()),
        }
    }

    /// Whether nothing may be touched.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    fn separator(&self) -> Separator {
        if self.null { Separator::Null } else { Separator::Newline }
    }
}

pub(super) fn rate(text: &str) -> Result<NonZero<u64>, String> {
    let bytes = size::parse(text)?;
    NonZero::new(bytes).ok_or_else(|| "nothing would ever move".to_owned())
}

fn is_comment(line: &OsStr) -> bool {
    line.as_encoded_bytes().starts_with(b"#")
}

// By hand, because what clap derives does not keep the order of different options.
impl Args for Rules {
    fn augment_args(command: Command) -> Command {
        command.args(RULES.map(|(name, value, _, help)| {
            let arg = Arg::new(name).long(name).value_name(value).help(help);
            arg.action(ArgAction::Append).value_parser(OsStringValueParser::new())
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Rules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut rules = Vec::new();
        for (name, _, rule, _) in RULES {
            let values = matches.get_many::<OsString>(name).into_iter().flatten();
            let indices = matches.indices_of(name).into_iter().flatten();
            rules.extend(indices.zip(values.map(|value| rule(value.clone()))));
        }
        rules.sort_by_key(|(index, _)| *index);
        Ok(Self(rules.into_iter().map(|(_, rule)| rule).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
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
    fn rules_keep_the_order_of_the_command_line() {
        let words =
            ["--exclude=a", "x", "--include", "b", "--exclude-from=f", "--exclude", "c", "y"];
        let want = [
            Rule::Exclude("a".into()),
            Rule::Include("b".into()),
            Rule::ExcludeFrom("f".into()),
            Rule::Exclude("c".into()),
        ];
        assert_eq!(parsed(&words).selection.rules.0, want);
        assert_eq!(parsed(&["x", "y"]).selection.rules, Rules::default());
    }
}
