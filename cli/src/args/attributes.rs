//! What is kept of a file beside its bytes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::builder::OsStringValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use ucp_engine::copy::{self, Context, Keep, KeepMode, Preserve};

/// What is kept of a file beside its bytes.
#[derive(Args, Debug)]
#[command(next_help_heading = "What is kept")]
pub(crate) struct Attributes {
    #[command(flatten)]
    words: Words,
    /// Read special files in trees as if they were regular, to their end
    #[arg(long)]
    copy_contents: bool,
}

/// Options about what is kept, in the order that they were given in: the last word about each
/// attribute holds, as in `cp`.
#[derive(Debug, Default, Eq, PartialEq)]
struct Words(Vec<Word>);

/// Which of the options that say which symbolic links are followed came last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct LinksWord {
    is_of_archive: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Word {
    /// `-a`
    Archive,
    /// `-d`
    Links,
    /// `-p`, and `--preserve` without a list
    Usual,
    Preserve(Vec<What>),
    NoPreserve(Vec<What>),
    /// `-Z`, `--context`; the context may be left to the system.
    Context(Option<Vec<u8>>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    Mode,
    Ownership,
    Timestamps,
    Links,
    Context,
    Xattr,
    All,
}

/// What an option with a list means.
type OfList = fn(Vec<What>) -> Word;

const NAMES: [(&str, What); 7] = [
    ("mode", What::Mode),
    ("timestamps", What::Timestamps),
    ("ownership", What::Ownership),
    ("links", What::Links),
    ("context", What::Context),
    ("xattr", What::Xattr),
    ("all", What::All),
];

/// What the options come to so far.
#[derive(Clone, Debug)]
struct Sum {
    preserve: Preserve,
    has_xattr: bool,
    is_xattr_required: bool,
    has_context: bool,
    is_context_required: bool,
    is_quiet: bool,
    context: Option<Option<Vec<u8>>>,
}

impl Attributes {
    /// Whether trees are asked for with all that is in them (`-a`).
    pub(crate) fn is_archive(&self) -> bool {
        self.words.0.contains(&Word::Archive)
    }

    /// Tells the engine. Returns a warning about what can't be had here.
    ///
    /// # Errors
    ///
    /// What is demanded of SELinux where it does not run.
    pub(crate) fn apply(
        &self,
        options: &mut copy::Options,
        links: LinksWord,
        is_called_as_cp: bool,
    ) -> Result<Option<&'static str>, String> {
        let base = if is_called_as_cp { Preserve::as_cp() } else { Preserve::default() };
        let has_selinux = Path::new("/sys/fs/selinux/status").exists();
        let sum = self.words.sum(base, has_selinux);
        if links.is_of_archive {
            options.links = copy::FollowLinks::Never;
        }
        if self.words.0.contains(&Word::Archive) {
            options.specials = copy::Specials::Made;
        }
        if self.copy_contents {
            options.specials = copy::Specials::Read;
        }
        let (preserve, warning) = sum.finish(has_selinux)?;
        options.preserve = preserve;
        Ok(warning)
    }
}

impl Words {
    fn sum(&self, preserve: Preserve, has_selinux: bool) -> Sum {
        let mut sum = Sum {
            preserve,
            has_xattr: false,
            is_xattr_required: false,
            has_context: false,
            is_context_required: false,
            is_quiet: false,
            context: None,
        };
        for word in &self.0 {
            match word {
                Word::Archive => {
                    sum.set(&[What::All], true, has_selinux);
                    sum.is_quiet = true;
                }
                Word::Links => sum.preserve.links = true,
                Word::Usual => {
                    sum.set(&[What::Mode, What::Ownership, What::Timestamps], true, has_selinux);
                }
                Word::Preserve(list) => sum.set(list, true, has_selinux),
                Word::NoPreserve(list) => sum.set(list, false, has_selinux),
                Word::Context(context) => sum.context = Some(context.clone()),
            }
        }
        sum
    }
}

impl Sum {
    fn set(&mut self, list: &[What], is_on: bool, has_selinux: bool) {
        self.preserve.is_asked |= is_on;
        for what in list {
            match what {
                What::Mode => self.set_mode(is_on),
                What::Ownership => self.preserve.ownership = is_on,
                What::Timestamps => self.preserve.timestamps = is_on,
                What::Links => self.preserve.links = is_on,
                What::Context => (self.has_context, self.is_context_required) = (is_on, is_on),
                What::Xattr => (self.has_xattr, self.is_xattr_required) = (is_on, is_on),
                What::All => {
                    self.set_mode(is_on);
                    self.preserve.ownership = is_on;
                    self.preserve.timestamps = is_on;
                    self.preserve.links = is_on;
                    self.has_xattr = is_on;
                    self.has_context = is_on && has_selinux;
                }
            }
        }
    }

    fn set_mode(&mut self, is_on: bool) {
        self.preserve.mode = if is_on { KeepMode::Lists } else { KeepMode::Fresh };
    }

    fn finish(self, has_selinux: bool) -> Result<(Preserve, Option<&'static str>), String> {
        let keep = |is_on, is_required| match (is_on, is_required, self.is_quiet) {
            (false, ..) => Keep::No,
            (true, true, _) => Keep::Required,
            (true, false, true) => Keep::Silently,
            (true, false, false) => Keep::Desired,
        };
        let mut preserve = self.preserve.clone();
        preserve.attributes = keep(self.has_xattr, self.is_xattr_required);
        if self.is_context_required && !has_selinux {
            let reason = "cannot preserve security context without an SELinux-enabled kernel";
            return Err(reason.to_owned());
        }
        if self.is_context_required && self.context.is_some() {
            return Err("cannot set target context and preserve it".to_owned());
        }
        if self.has_context {
            preserve.context = Context::Keep(keep(true, self.is_context_required));
        }
        let warning = match self.context {
            Some(Some(_)) if !has_selinux => {
                Some("ignoring --context; it requires an SELinux-enabled kernel")
            }
            Some(Some(mut context)) => {
                context.push(0);
                preserve.context = Context::Set(context);
                None
            }
            Some(None) if has_selinux => {
                preserve.context = Context::Fresh;
                None
            }
            // As cp: without SELinux a context is an attribute like others.
            Some(None) | None => None,
        };
        Ok((preserve, warning))
    }
}

/// Takes a list apart, each word as short as it stays clear, as `cp` takes it.
fn list(text: &str) -> Result<Vec<What>, String> {
    let one = |word: &str| {
        let mut fits = NAMES.iter().filter(|(name, _)| name.starts_with(word));
        match (fits.next(), fits.next()) {
            (Some((_, what)), None) if !word.is_empty() => Ok(*what),
            _ => {
                let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                Err(format!("'{word}' is none of {}", names.join(", ")))
            }
        }
    };
    text.split(',').map(one).collect()
}

impl Args for Words {
    fn augment_args(command: Command) -> Command {
        let flag = |id: &'static str, short, help: &'static str| {
            Arg::new(id).short(short).action(ArgAction::Count).help(help)
        };
        let archive = "Copy trees with all that can be kept, links as links: -dR --preserve=all";
        let usual = "The same as --preserve=mode,ownership,timestamps";
        let links = "Copy symbolic links as links, and keep hard links: -P --preserve=links";
        let preserve = "Keep these of each file: mode (with access control lists), ownership, \
                        timestamps, links (hard ones), xattr, context, all [without a list: mode,\
                        ownership,timestamps; default: mode bits and timestamps]";
        let context = "Give new files this SELinux context, or the one that the kernel gives them";
        command
            .arg(flag("archive", 'a', archive).long("archive"))
            .arg(flag("usual", 'p', usual))
            .arg(flag("hard_links", 'd', links))
            .arg(
                Arg::new("preserve")
                    .long("preserve")
                    .value_name("LIST")
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("mode,ownership,timestamps")
                    .action(ArgAction::Append)
                    .value_parser(list)
                    .help(preserve),
            )
            .arg(
                Arg::new("no_preserve")
                    .long("no-preserve")
                    .value_name("LIST")
                    .action(ArgAction::Append)
                    .value_parser(list)
                    .help("Do not keep these"),
            )
            .arg(
                Arg::new("context")
                    .short('Z')
                    .long("context")
                    .value_name("CONTEXT")
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("")
                    .action(ArgAction::Append)
                    .value_parser(OsStringValueParser::new())
                    .help(context),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Words {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut words: Vec<(usize, Word)> = Vec::new();
        let flags =
            [("archive", Word::Archive), ("usual", Word::Usual), ("hard_links", Word::Links)];
        for (id, word) in flags {
            words.extend(places(matches, id).map(|place| (place, word.clone())));
        }
        let lists: [(_, OfList); 2] =
            [("preserve", Word::Preserve), ("no_preserve", Word::NoPreserve)];
        for (id, word) in lists {
            let lists = matches.get_many::<Vec<What>>(id).into_iter().flatten();
            words.extend(places(matches, id).zip(lists.cloned().map(word)));
        }
        let contexts = matches.get_many::<std::ffi::OsString>("context").into_iter().flatten();
        let contexts = contexts.map(|context| {
            let bytes = context.as_bytes().to_vec();
            Word::Context((!bytes.is_empty()).then_some(bytes))
        });
        words.extend(places(matches, "context").zip(contexts));
        words.sort_by_key(|(place, _)| *place);
        Ok(Self(words.into_iter().map(|(_, word)| word).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for LinksWord {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

impl FromArgMatches for LinksWord {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let last = |ids: &[&str]| ids.iter().flat_map(|id| places(matches, id)).max();
        let archive = last(&["archive", "hard_links"]);
        let is_of_archive = archive > last(&["follow_operands", "follow_all", "follow_none"]);
        Ok(Self { is_of_archive })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Where on the command line an option was given.
fn places<'a>(matches: &'a ArgMatches, id: &str) -> impl Iterator<Item = usize> + 'a {
    let is_given = matches.value_source(id) == Some(ValueSource::CommandLine);
    matches.indices_of(id).filter(|_| is_given).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::CopyArguments;
    use super::*;

    fn sum(words: &[&str], base: Preserve) -> Preserve {
        let words = [&["ucp", "a", "b"], words].concat();
        let words = CopyArguments::try_parse_from(words).unwrap().attributes.words;
        words.sum(base, false).finish(false).unwrap().0
    }

    #[test]
    fn the_last_word_about_each_attribute_holds() {
        let nothing = Preserve::default();
        let usual = Preserve {
            mode: KeepMode::Lists,
            ownership: true,
            is_asked: true,
            ..Preserve::default()
        };
        let all = Preserve { links: true, attributes: Keep::Desired, ..usual.clone() };
        let archive = Preserve { attributes: Keep::Silently, ..all.clone() };
        let fresh = Preserve { mode: KeepMode::Fresh, ..nothing.clone() };
        let cases: [(&[&str], Preserve); 13] = [
            (&[], nothing.clone()),
            (&["-p"], usual.clone()),
            (&["--preserve"], usual.clone()),
            (&["-a"], archive.clone()),
            (&["--preserve=all"], all),
            (&["-d"], Preserve { links: true, ..nothing.clone() }),
            (&["--no-preserve=mode"], fresh),
            (&["--no-preserve=mode", "-p"], usual.clone()),
            (&["-p", "--no-preserve=own"], Preserve { ownership: false, ..usual.clone() }),
            (
                &["-a", "--no-preserve=links,timestamps"],
                Preserve { links: false, timestamps: false, ..archive.clone() },
            ),
            (&["--no-preserve=all", "-a"], archive.clone()),
            (
                &["-a", "--preserve=xattr"],
                Preserve { attributes: Keep::Required, ..archive.clone() },
            ),
            (&["-a", "-Z"], archive),
        ];
        for (words, want) in cases {
            assert_eq!(sum(words, Preserve::default()), want, "{words:?}");
        }
        let cp = sum(&["--preserve=timestamps"], Preserve::as_cp());
        assert_eq!(cp, Preserve { timestamps: true, ..Preserve::as_cp() });
    }

    #[test]
    fn what_only_selinux_has_is_refused_without_it() {
        let words = Words(vec![Word::Preserve(vec![What::Context])]);
        assert!(words.sum(Preserve::default(), false).finish(false).is_err());
        let (kept, warning) = words.sum(Preserve::default(), true).finish(true).unwrap();
        assert_eq!((kept.context, warning), (Context::Keep(Keep::Required), None));
        let words = Words(vec![Word::Context(Some(b"a:b:c".to_vec()))]);
        let (kept, warning) = words.sum(Preserve::default(), false).finish(false).unwrap();
        assert_eq!((kept.context, warning.is_some()), (Context::AsAttributes, true));
        let (kept, _) = words.sum(Preserve::default(), true).finish(true).unwrap();
        assert_eq!(kept.context, Context::Set(b"a:b:c\0".to_vec()));
        let words = Words(vec![Word::Archive, Word::Context(None)]);
        for (has_selinux, want) in [(true, Context::Fresh), (false, Context::AsAttributes)] {
            let (kept, warning) =
                words.sum(Preserve::default(), has_selinux).finish(has_selinux).unwrap();
            assert_eq!((kept.context, warning), (want, None), "with SELinux: {has_selinux}");
        }
    }

    #[test]
    fn a_list_is_words_as_short_as_they_stay_clear() {
        let cases = [
            ("mode", Ok(vec![What::Mode])),
            ("m,own,x", Ok(vec![What::Mode, What::Ownership, What::Xattr])),
            ("all,links", Ok(vec![What::All, What::Links])),
            ("", Err(())),
            ("mode,", Err(())),
            ("bogus", Err(())),
        ];
        for (text, want) in cases {
            assert_eq!(list(text).map_err(drop), want, "{text}");
        }
    }
}
