//! GNU `cp`'s words, for when this program is called as `cp`.
//!
//! Scripts compare them, and people know them. Each sentence is the one that coreutils 9.1 prints;
//! a test runs both and compares.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ucp_engine::copy::{self, Attempt, BackupStyle, Copied, DataPath, HoleSearch, PathReason};
use ucp_engine::{Errno, Error, Refusal};

use crate::args::CopyArguments;
use crate::quote;

/// Under which name the program was called.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Persona {
    /// Its own.
    #[default]
    Ucp,
    /// As `cp`.
    Cp,
}

impl Persona {
    /// What its lines begin with.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ucp => "ucp",
            Self::Cp => "cp",
        }
    }
}

/// What GNU `cp` does where nothing else is asked for.
pub(crate) fn apply_defaults(arguments: &CopyArguments, options: &mut copy::Options) {
    let what = &arguments.what;
    let is_recursive = what.recursive || arguments.attributes.is_archive();
    if !is_recursive {
        options.directories = copy::Directories::Refuse;
    }
    // Links are followed unless it goes through directories or is told otherwise. Hard links are
    // made to what a link leads to, in directories, too.
    let is_told = what.follow_operands || what.follow_all || what.follow_none;
    if !is_told && (!is_recursive || arguments.existing.makes_hard_links()) {
        options.links = copy::FollowLinks::Always;
    }
}

/// What GNU `cp` promises of targets: they are written where they stand, and seen as they come.
pub(crate) fn apply_promises(options: &mut copy::Options) {
    options.in_place = true;
    // cp writes to any device that it may write to.
    options.protect_devices = false;
    options.stage = copy::Stage::Never;
    options.existing.merge_created = true;
}

/// How a file was copied, as `cp --debug` says it (coreutils 9.2 and later; `src/copy.c`,
/// `emit_debug`); with a line feed before it.
pub(crate) fn debug_line(copied: &Copied<'_>) -> String {
    let Some(path) = copied.path else { return String::new() };
    if copied.path_reason == Some(PathReason::AttributesOnly) {
        return String::new();
    }
    let was_refused = copied.fell_back.iter().any(|it| it.from == Attempt::Clone);
    let (offload, reflink) = match path {
        DataPath::Clone => ("unknown", "yes"),
        DataPath::CopyRange => ("yes", "unsupported"),
        _ => ("avoided", if was_refused { "unsupported" } else { "no" }),
    };
    let sparse = match copied.hole_search {
        _ if path == DataPath::CopyRange => "no",
        None => "unknown",
        Some(HoleSearch::None) => "no",
        Some(HoleSearch::Map) => "SEEK_HOLE",
        Some(HoleSearch::Zeros) => "zeros",
        Some(HoleSearch::MapAndZeros) => "SEEK_HOLE + zeros",
    };
    format!("\ncopy offload: {offload}, reflink: {reflink}, sparse detection: {sparse}")
}

/// A failure in GNU's words.
pub(crate) fn failure(error: &Error) -> String {
    let path = error.path().map(quote::always).unwrap_or_default();
    let source = error.copied_from().map(quote::always).unwrap_or_default();
    if let Some(refusal) = error.refusal() {
        return refused(refusal, error, &path, &source);
    }
    let why = match error.errno() {
        Some(errno) => words(errno),
        None => quote::without_controls(&error.reason()),
    };
    let what = match error.what() {
        "status" => format!("cannot stat {path}"),
        "look up" => format!("failed to get attributes of {path}"),
        "open" => format!("cannot open {path} for reading"),
        "enter" | "list directory" => format!("cannot access {path}"),
        "create" | "open for writing" if error.errno() == Some(Errno::EISDIR) => {
            return format!("cannot overwrite directory {path} with non-directory");
        }
        "create" | "open for writing" => format!("cannot create regular file {path}"),
        "make directory" => format!("cannot create directory {path}"),
        "make symbolic link" if source.is_empty() => format!("cannot create symbolic link {path}"),
        "make symbolic link" => format!("cannot create symbolic link {path} to {source}"),
        "make link" => format!("cannot create hard link {path} to {source}"),
        "make fifo" => format!("cannot create fifo {path}"),
        "make node" => format!("cannot create special file {path}"),
        "read link" => format!("cannot read symbolic link {path}"),
        "read" => format!("error reading {path}"),
        "write" | "allocate" => format!("error writing {path}"),
        "truncate" => format!("failed to extend {path}"),
        "back up" => format!("cannot backup {path}"),
        "remove" => format!("cannot remove {path}"),
        "close" => format!("failed to close {path}"),
        "change mode" => format!("preserving permissions for {path}"),
        "change times" => format!("preserving times for {path}"),
        "change owner" => format!("failed to preserve ownership for {path}"),
        "clone" if source.is_empty() => format!("failed to clone {path}"),
        "clone" => format!("failed to clone {path} from {source}"),
        what => format!("{what} failed on {path}"),
    };
    format!("{what}: {why}")
}

fn refused(refusal: Refusal, error: &Error, path: &str, source: &str) -> String {
    let why = error.errno().map(words).unwrap_or_default();
    match refusal {
        Refusal::SameFile => format!("{source} and {path} are the same file"),
        Refusal::JustCreated => format!("will not overwrite just-created {path} with {source}"),
        Refusal::DirectoryOntoFile => {
            format!("cannot overwrite non-directory {path} with directory {source}")
        }
        Refusal::FileOntoDirectory => {
            format!("cannot overwrite directory {path} with non-directory")
        }
        Refusal::IntoItself => format!("cannot copy a directory, {source}, into itself, {path}"),
        Refusal::LinkLoop => format!("cannot copy cyclic symbolic link {path}"),
        Refusal::DanglingTarget => format!("not writing through dangling symlink {path}"),
        Refusal::DanglingSource => format!("cannot stat {path}: {}", words(Errno::ENOENT)),
        Refusal::BackupIsSource => {
            format!("backing up {path} might destroy source;  {source} not copied")
        }
        Refusal::RelativeLink => {
            let path = error.path().map(quote::if_needed).unwrap_or_default();
            format!("{path}: can make relative symbolic links only in current directory")
        }
        Refusal::DirectoryOmitted => format!("-r not specified; omitting directory {path}"),
        Refusal::ParentsNeedDirectory => {
            format!("{refusal}\nTry 'cp --help' for more information.")
        }
        Refusal::NotReplaced => format!("not replacing {path}"),
        Refusal::TargetNotDirectory => match error.what() {
            "open target directory" => format!("target directory {path}: {why}"),
            _ => format!("target {path}: {why}"),
        },
        _ => format!("cannot create regular file {path}: {refusal}"),
    }
}

/// That a source was named twice.
pub(crate) fn repeated(source: &Path, is_directory: bool) -> String {
    let kind = if is_directory { "directory" } else { "file" };
    format!("warning: source {kind} {} specified more than once", quote::always(source))
}

/// The words of an errno, without its number.
fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The ways of making backups, by all their names.
const STYLES: [(&str, Option<BackupStyle>); 8] = [
    ("none", None),
    ("off", None),
    ("simple", Some(BackupStyle::Simple)),
    ("never", Some(BackupStyle::Simple)),
    ("existing", Some(BackupStyle::Existing)),
    ("nil", Some(BackupStyle::Existing)),
    ("numbered", Some(BackupStyle::Numbered)),
    ("t", Some(BackupStyle::Numbered)),
];

/// The way of making backups that `word` says; as long as it is clear, its beginning is enough.
pub(crate) fn backup_style(what: &str, word: &OsStr) -> Result<Option<BackupStyle>, String> {
    let text = word.to_str().unwrap_or("\u{fffd}");
    let begins = |(name, _): &&(&str, _)| name.starts_with(text);
    let mut styles = STYLES.iter().filter(begins).map(|(_, style)| *style);
    if let Some((_, style)) = STYLES.iter().find(|(name, _)| *name == text) {
        return Ok(*style);
    }
    let first = styles.next();
    let is_clear = styles.all(|style| Some(style) == first);
    if let (Some(style), true) = (first, is_clear) {
        return Ok(style);
    }
    let how = if first.is_some() { "ambiguous" } else { "invalid" };
    let mut complaint =
        format!("{how} argument {} for '{what}'\nValid arguments are:", quote::always(word));
    for names in STYLES.chunks(2) {
        complaint.push_str(&format!("\n  - '{}', '{}'", names[0].0, names[1].0));
    }
    Err(complaint)
}

/// Options that need a value, and their letters.
const OPTIONS_WITH_VALUES: [(&str, char); 2] = [("--target-directory", 't'), ("--suffix", 'S')];

/// What clap found wrong, in GNU's words; none if there is no such sentence.
pub(crate) fn usage(error: &clap::Error, words: &[OsString]) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let argument = match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(argument) => argument.as_str(),
        _ => return None,
    };
    let long = argument.split([' ', '=', '[']).next().unwrap_or(argument);
    match error.kind() {
        ErrorKind::UnknownArgument => match argument.strip_prefix("--") {
            Some(_) => Some(format!("unrecognized option '{argument}'")),
            None => {
                let letter = argument.trim_start_matches('-').chars().next()?;
                Some(format!("invalid option -- '{letter}'"))
            }
        },
        ErrorKind::InvalidValue if error.get(ContextKind::InvalidValue).is_some_and(is_empty) => {
            // By the name that it was given.
            let is_long = words.last().is_some_and(|word| word.as_bytes().starts_with(b"--"));
            let letter = OPTIONS_WITH_VALUES.iter().find(|(name, _)| *name == long);
            match letter {
                Some((_, letter)) if !is_long => {
                    Some(format!("option requires an argument -- '{letter}'"))
                }
                _ => Some(format!("option '{long}' requires an argument")),
            }
        }
        ErrorKind::TooManyValues => Some(format!("option '{long}' doesn't allow an argument")),
        _ => None,
    }
}

fn is_empty(value: &clap::error::ContextValue) -> bool {
    matches!(value, clap::error::ContextValue::String(text) if text.is_empty())
}
