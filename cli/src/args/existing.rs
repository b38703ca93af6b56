//! What happens where something stands already, and how targets are made: as in `cp`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::builder::OsStringValueParser;
use clap::{ArgAction, Args, ValueEnum};
use ucp_engine::copy;

use crate::gnu;

/// What happens where something stands already, and how targets are made.
#[derive(Args, Debug)]
#[command(next_help_heading = "Existing targets, and how targets are made")]
pub(crate) struct Existing {
    /// Ask before an existing file is overwritten
    #[arg(short, long, overrides_with_all = ["no_clobber", "interactive"])]
    interactive: bool,
    /// Never overwrite an existing file; that is no failure
    #[arg(short, long, overrides_with_all = ["no_clobber", "interactive"])]
    no_clobber: bool,
    /// Replace an existing file that can't be written
    #[arg(short, long)]
    force: bool,
    /// Which existing files are overwritten [default: all; without a value: older]
    #[arg(short, long, value_name = "WHICH", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "older")]
    update: Option<Update>,
    /// Keep each existing file under another name: numbered (t), simple (never), or as those that
    /// are there (existing, nil); none (off) keeps none [default: $VERSION_CONTROL, or existing]
    #[arg(long, value_name = "CONTROL", num_args = 0..=1, require_equals = true)]
    #[arg(action = ArgAction::Append)]
    #[arg(default_missing_value = "", value_parser = OsStringValueParser::new())]
    backup: Vec<OsString>,
    /// The same as --backup, without a value
    #[arg(short)]
    b: bool,
    /// What simple backups have behind their name; asks for backups, too [default:
    /// $SIMPLE_BACKUP_SUFFIX, or ~]
    #[arg(short = 'S', long, value_name = "SUFFIX", value_parser = OsStringValueParser::new())]
    suffix: Option<OsString>,
    /// Make hard links instead of copies of files
    #[arg(short, long)]
    link: bool,
    /// Make symbolic links instead of copies of files
    #[arg(short, long)]
    symbolic_link: bool,
    /// Replace each existing target by a new file, a symbolic link itself, too
    #[arg(long)]
    remove_destination: bool,
    /// Copy no data: mode, times and so on only
    #[arg(long)]
    attributes_only: bool,
    /// Copy into existing symbolic links that lead to directories
    #[arg(long)]
    keep_directory_symlink: bool,
    /// Keep the whole path of each SOURCE below the target directory
    #[arg(long)]
    parents: bool,
    /// Leave directories of other file systems than their SOURCE's empty
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// Take no notice of slashes at the end of SOURCEs
    #[arg(long)]
    pub(crate) strip_trailing_slashes: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Update {
    All,
    Older,
    None,
    NoneFail,
}

/// What the environment says about existing targets, as for `cp`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    is_posix: bool,
    version_control: Option<OsString>,
    simple_backup_suffix: Option<OsString>,
}

impl Environment {
    /// The environment of this program.
    pub(crate) fn read() -> Self {
        Self {
            is_posix: is_posix(),
            version_control: env::var_os("VERSION_CONTROL"),
            simple_backup_suffix: env::var_os("SIMPLE_BACKUP_SUFFIX"),
        }
    }
}

/// Whether the environment asks for nothing but what POSIX says.
pub(crate) fn is_posix() -> bool {
    env::var_os("POSIXLY_CORRECT").is_some()
}

impl Existing {
    /// Tells the engine, or says what can't be.
    pub(crate) fn apply(
        &self,
        options: &mut copy::Options,
        environment: &Environment,
    ) -> Result<(), String> {
        if self.link && self.symbolic_link {
            return Err("cannot make both hard and symbolic links".to_owned());
        }
        let is_backed_up = self.b || !self.backup.is_empty() || self.suffix.is_some();
        if is_backed_up && self.no_clobber {
            return Err("options --backup and --no-clobber are mutually exclusive".to_owned());
        }
        let make = match (self.link, self.symbolic_link, self.attributes_only) {
            (true, _, _) => copy::Make::HardLink,
            (_, true, _) => copy::Make::SymbolicLink,
            (_, _, true) => copy::Make::Attributes,
            _ => copy::Make::Copy,
        };
        let links = matches!(make, copy::Make::HardLink | copy::Make::SymbolicLink);
        let backup = if is_backed_up { self.backup(environment)? } else { None };
        options.existing = copy::Existing {
            overwrite: match (self.no_clobber, self.interactive) {
                (true, _) => copy::Overwrite::Never,
                (_, true) => copy::Overwrite::Ask,
                _ => copy::Overwrite::Always,
            },
            update: match self.update.unwrap_or(Update::All) {
                Update::All => copy::Update::All,
                Update::Older => copy::Update::Older,
                Update::None => copy::Update::None,
                Update::NoneFail => copy::Update::NoneFail,
            },
            backup,
            make,
            force: self.force,
            // A link can't be written to: forcing it means replacing.
            remove: self.remove_destination || (self.force && links),
            through_dangling_links: environment.is_posix,
            keep_directory_links: self.keep_directory_symlink,
            ..options.existing.clone()
        };
        options.parents = self.parents;
        options.one_file_system = self.one_file_system;
        Ok(())
    }

    /// Whether links are what targets are made as.
    pub(crate) fn makes_hard_links(&self) -> bool {
        self.link
    }

    /// Whether sources keep their paths, so that the target must be a directory.
    pub(crate) fn needs_directory(&self) -> bool {
        self.parents
    }

    fn backup(&self, environment: &Environment) -> Result<Option<copy::Backup>, String> {
        // One without a value leaves what another says.
        let asked = self.backup.iter().rfind(|control| !control.is_empty());
        let style = match (asked.map(OsString::as_os_str), environment.version_control.as_deref()) {
            (Some(control), _) => gnu::backup_style("backup type", control)?,
            (None, Some(control)) if !control.is_empty() => {
                gnu::backup_style("$VERSION_CONTROL", control)?
            }
            _ => Some(copy::BackupStyle::Existing),
        };
        let suffix = self.suffix.as_deref().or(environment.simple_backup_suffix.as_deref());
        // One with a slash would lead elsewhere.
        let is_suffix = |suffix: &&OsStr| !suffix.is_empty() && !suffix.as_bytes().contains(&b'/');
        let suffix = suffix.filter(is_suffix).unwrap_or(OsStr::new("~")).to_owned();
        Ok(style.map(|style| copy::Backup { style, suffix }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ucp_engine::copy::{Backup, BackupStyle, Make, Overwrite};

    use super::super::CopyArguments;
    use super::*;

    fn applied(words: &[&str], environment: &Environment) -> Result<copy::Existing, String> {
        let words = [&["ucp"], words].concat();
        let arguments = CopyArguments::try_parse_from(words).unwrap();
        let mut options = copy::Options::default();
        arguments.existing.apply(&mut options, environment)?;
        Ok(options.existing)
    }

    #[test]
    fn the_last_of_never_and_ask_wins_and_never_wins_over_older() {
        use {Overwrite as O, copy::Update as U};
        let cases: [(&[&str], _); 9] = [
            (&[], (O::Always, U::All)),
            (&["-in"], (O::Never, U::All)),
            (&["-ni"], (O::Ask, U::All)),
            (&["-iu"], (O::Ask, U::Older)),
            (&["-uf"], (O::Always, U::Older)),
            (&["-u", "--update=none"], (O::Always, U::None)),
            (&["--update=none", "--update"], (O::Always, U::Older)),
            (&["--update=none-fail"], (O::Always, U::NoneFail)),
            (&["-nu"], (O::Never, U::Older)),
        ];
        for (words, want) in cases {
            let existing = applied(words, &Environment::default()).unwrap();
            assert_eq!((existing.overwrite, existing.update), want, "{words:?}");
        }
    }

    #[test]
    fn backups_are_named_as_the_options_and_the_environment_say() {
        let none = Environment::default();
        let set = Environment {
            version_control: Some("numbered".into()),
            simple_backup_suffix: Some(".old".into()),
            ..Environment::default()
        };
        let backup = |style, suffix: &str| Some(Backup { style, suffix: suffix.into() });
        use BackupStyle::{Existing, Numbered, Simple};
        let cases: [(&[&str], &Environment, _); 15] = [
            (&[], &set, None),
            (&["-b"], &none, backup(Existing, "~")),
            (&["--backup"], &none, backup(Existing, "~")),
            (&["-b"], &set, backup(Numbered, ".old")),
            (&["--backup=simple"], &set, backup(Simple, ".old")),
            (&["--backup=t"], &none, backup(Numbered, "~")),
            (&["--backup=t", "--backup"], &none, backup(Numbered, "~")),
            (&["--backup=t", "--backup=never", "--backup"], &none, backup(Simple, "~")),
            (&["--backup=num"], &none, backup(Numbered, "~")),
            (&["--backup=nil"], &none, backup(Existing, "~")),
            (&["--backup=never"], &none, backup(Simple, "~")),
            (&["--backup=off"], &none, None),
            (&["-S", ".x"], &set, backup(Numbered, ".x")),
            (&["-b", "-S", "a/b"], &none, backup(Existing, "~")),
            (&["-b", "-S", ""], &none, backup(Existing, "~")),
        ];
        for (words, environment, want) in cases {
            assert_eq!(applied(words, environment).unwrap().backup, want, "{words:?}");
        }
    }

    #[test]
    fn what_can_not_be_is_said() {
        let cases: [(&[&str], &str); 4] = [
            (&["-ls"], "cannot make both hard and symbolic links"),
            (&["-nb"], "options --backup and --no-clobber are mutually exclusive"),
            (&["-n", "-S", "x"], "options --backup and --no-clobber are mutually exclusive"),
            (&["--backup=n"], "ambiguous argument 'n' for 'backup type'"),
        ];
        for (words, want) in cases {
            let complaint = applied(words, &Environment::default()).unwrap_err();
            assert_eq!(complaint.lines().next(), Some(want), "{words:?}");
        }
        assert_eq!(applied(&["-lf"], &Environment::default()).unwrap().make, Make::HardLink);
        assert!(applied(&["-sf"], &Environment::default()).unwrap().remove);
        assert!(!applied(&["-f"], &Environment::default()).unwrap().remove);
    }
}
