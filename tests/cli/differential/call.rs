//! What is called: the options and operands of both copiers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ucp_engine::random::Random;

use super::options::{CHOICES, Choice};
use super::tree::{HAS_SPECIALS, Kind, NOBODY, Node, SOURCE, TARGET, pick};

/// By which name the program under test is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Persona {
    /// Its own: it keeps modes and times, and copies directories.
    Ucp,
    /// `cp`: all defaults are those of GNU cp.
    Cp,
}

/// A call of either copier.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) persona: Persona,
    /// Options that mean the same to both.
    pub(crate) words: Vec<&'static str>,
    /// `ucp` replaces an existing file by another, cp writes into it: `ucp` is asked to do the same,
    /// mostly.
    pub(crate) in_place: bool,
    /// It is not asked to.
    pub(crate) replaces: bool,
    pub(crate) sources: Vec<PathBuf>,
    pub(crate) target: PathBuf,
    pub(crate) form: Form,
    pub(crate) umask: u32,
    pub(crate) user: u32,
    /// What is answered to each question.
    pub(crate) answer: &'static str,
}

/// How the target is given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    Last,
    /// `-t`
    Directory,
    /// `-T`
    Name,
}

/// Words that begin what the judge is called with, so that it does what `ucp` does by itself.
///
/// `ucp` copies directories without being asked, follows links that are operands, and keeps modes
/// and times.
const SAME_AS_UCP: [&str; 2] = ["-RH", "--preserve=mode,timestamps"];

impl Call {
    /// Options, without operands: not yet for a tree.
    pub(crate) fn plan(random: &mut Random) -> Self {
        let persona = if random.once_in(2) { Persona::Ucp } else { Persona::Cp };
        let count = match random.below(10) {
            0 => 0,
            1..=4 => 1,
            5..=8 => 2,
            _ => 3,
        };
        let mut words = Vec::new();
        if persona == Persona::Cp && !random.once_in(5) {
            words.push("-R");
        }
        for _ in 0..count {
            let choice: Choice = pick(random, CHOICES);
            words.extend(choice.words);
        }
        let form = match random.below(8) {
            0 => Form::Directory,
            1 => Form::Name,
            _ => Form::Last,
        };
        let user = if random.once_in(4) { NOBODY } else { 0 };
        // cp does not remove what is in the way of links then.
        if words.contains(&"-l") || words.contains(&"-s") {
            words.retain(|word| *word != "--attributes-only");
        }
        Self {
            persona,
            words,
            in_place: false,
            replaces: random.once_in(4),
            sources: Vec::new(),
            target: PathBuf::from(TARGET),
            form,
            umask: pick(random, &[0o022, 0o022, 0o077, 0o002, 0o027, 0, 0o777]),
            user,
            answer: pick(random, &["y\n", "n\n", ""]),
        }
    }

    /// A call by root for all of a tree, to one name.
    pub(crate) fn of_all(other: &Self) -> Self {
        Self {
            words: vec!["-a"],
            sources: vec![PathBuf::from(SOURCE)],
            form: Form::Name,
            user: 0,
            ..other.clone()
        }
    }

    /// Chooses what is copied of a tree.
    pub(crate) fn choose_sources(&mut self, random: &mut Random, nodes: &[Node]) {
        let root = PathBuf::from(SOURCE);
        let any = |random: &mut Random| pick(random, nodes).path.clone();
        self.sources = match random.below(10) {
            0..=3 => vec![root],
            4 => vec![root.join(".")],
            5 => vec![PathBuf::from(format!("{SOURCE}/"))],
            6 => {
                let mut path = any(random).into_os_string();
                path.push("/");
                vec![path.into()]
            }
            7 | 8 => vec![any(random)],
            _ => (0..2 + random.below(3)).map(|_| any(random)).collect(),
        };
        self.keep_apart(nodes);
        if self.sources.len() > 1 && self.form == Form::Name {
            self.form = Form::Last;
        }
        if random.once_in(10) {
            self.target = PathBuf::from(format!("{TARGET}/"));
        }
    }

    /// Several sources share nothing: cp refuses to make the copy of one part of another again, as a
    /// hard link to a directory, which `ucp` copies twice.
    ///
    /// Nor the last name, where cp may fail on an attribute and forget that it has made the file.
    fn keep_apart(&mut self, nodes: &[Node]) {
        let may_forget = self.user != 0 && self.words.iter().any(|word| word.contains("xattr"));
        let mut kept: Vec<PathBuf> = Vec::new();
        let node = |path: &PathBuf| nodes.iter().find(|node| node.path == *path);
        let is_link = |path: &PathBuf| match node(path).map(|node| &node.kind) {
            Some(Kind::HardLink(first)) => {
                node(first).is_some_and(|node| matches!(node.kind, Kind::Link(_)))
            }
            kind => matches!(kind, Some(Kind::Link(_))),
        };
        for source in &self.sources {
            let overlaps = kept.iter().any(|other| {
                other.starts_with(source)
                    || source.starts_with(other)
                    || may_forget && other.file_name() == source.file_name()
            });
            if kept.is_empty() || (!overlaps && !is_link(source) && !is_link(&kept[0])) {
                kept.push(source.clone());
            }
        }
        self.sources = kept;
    }

    /// Asks for the same publication where a file stands at the target.
    pub(crate) fn adapt(&mut self, nodes: &[Node]) {
        let is_file =
            |node: &Node| matches!(node.kind, Kind::File(_) | Kind::HardLink(_) | Kind::Link(_));
        let stands = |node: &Node| node.path.starts_with(TARGET) && is_file(node);
        self.in_place = self.persona == Persona::Ucp && !self.replaces && nodes.iter().any(stands);
        let is_directory =
            |node: &Node| node.path == Path::new(TARGET) && node.kind == Kind::Directory;
        let goes_below = self.form != Form::Name && nodes.iter().any(is_directory);
        // Of a slash behind what is no directory each complains in its own words.
        if self.persona == Persona::Cp && !goes_below {
            self.target = PathBuf::from(TARGET);
        }
        let is_numbered = |node: &Node| node.path.as_os_str().as_encoded_bytes().ends_with(b".~1~");
        if nodes.iter().any(is_numbered) {
            for word in self.words.iter_mut().filter(|word| **word == "--backup=simple") {
                *word = "--backup=existing";
            }
        }
        // cp 9.1 makes the directories above, then fails to make `to/from/.`.
        if self.has("--parents") {
            for source in &mut self.sources {
                let place = Path::new(TARGET).join(source.components().collect::<PathBuf>());
                let stands = nodes.iter().any(|node| node.path == place);
                if !stands && source.as_os_str().as_encoded_bytes().ends_with(b"/.") {
                    *source = source.components().collect();
                }
            }
        }
        // cp takes slashes away only from what goes into a directory.
        if self.has("--strip-trailing-slashes") && !goes_below {
            for source in &mut self.sources {
                *source = source.components().collect();
            }
        }
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    /// Whether the user names what is to be kept of attributes.
    pub(crate) fn asks_for_attributes(&self) -> bool {
        let asks = |word: &&str| matches!(*word, "-a" | "-p") || word.starts_with("--preserve");
        self.words.iter().any(asks)
    }

    /// Whether the last word about it is that owners are kept.
    pub(crate) fn keeps_owners(&self) -> bool {
        self.keeps("ownership", &["-a", "-p", "--preserve"])
    }

    /// Whether modes are asked for, and with them access control lists.
    pub(crate) fn keeps_lists(&self) -> bool {
        self.keeps("mode", &["-a", "-p", "--preserve"])
    }

    /// Whether several names of a file stay names of one file. Then cp gives a target with several
    /// names up, and makes a new file.
    pub(crate) fn keeps_links(&self) -> bool {
        self.keeps("links", &["-a", "-d"])
    }

    /// Whether `ucp` does not keep modes, as it does if nothing is said.
    pub(crate) fn leaves_modes(&self) -> bool {
        self.leaves("mode")
    }

    /// Whether `ucp` does not keep times, as it does if nothing is said.
    pub(crate) fn leaves_times(&self) -> bool {
        self.leaves("timestamps")
    }

    fn leaves(&self, what: &str) -> bool {
        let names = |word: &&&str| word.split(['=', ',']).any(|name| name == what || name == "all");
        let last = self.words.iter().rfind(names);
        last.is_some_and(|word| word.starts_with("--no-preserve="))
    }

    /// Whether what is replaced stays under another name.
    pub(crate) fn backs_up(&self) -> bool {
        let asks = |word: &&str| {
            *word == "-b" || ["--backup", "--suffix"].iter().any(|name| word.starts_with(name))
        };
        self.words.iter().any(asks)
    }

    fn keeps(&self, what: &str, words: &[&str]) -> bool {
        self.words.iter().fold(false, |keeps, word| {
            let names = |list: &str| list.split(',').any(|name| name == what || name == "all");
            if words.contains(word) || word.strip_prefix("--preserve=").is_some_and(names) {
                true
            } else {
                keeps && !word.strip_prefix("--no-preserve=").is_some_and(names)
            }
        })
    }

    /// Whether a tree may hold what is neither a file nor a directory nor a link: `ucp` makes such
    /// things again only if asked, as a stream may be meant.
    pub(crate) fn takes_specials(&self) -> bool {
        HAS_SPECIALS && (self.persona == Persona::Cp || self.is_recursive())
    }

    fn is_recursive(&self) -> bool {
        ["-R", "-r", "-a"].iter().any(|word| self.has(word))
    }

    /// Whether a copier may open what is neither a file nor a directory, and wait.
    pub(crate) fn may_open_specials(&self) -> bool {
        self.has("--copy-contents") || !self.is_recursive()
    }

    /// The words for the program under test.
    pub(crate) fn words_for_ucp(&self) -> Vec<OsString> {
        let mut words = self.words.clone();
        if self.in_place {
            words.push("--in-place");
        }
        self.with_operands(&words)
    }

    /// The words for GNU cp that mean the same.
    pub(crate) fn words_for_cp(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if self.persona == Persona::Ucp {
            words.extend(SAME_AS_UCP);
            if self.has("-R") || self.has("-r") {
                words[0] = "-RP";
            }
        }
        // cp 9.1 puts a simple backup into its working directory; cp 9.2 does not. Where nothing is
        // numbered yet, this makes the same ones.
        let simple = |word: &&'static str| match *word {
            "--backup=simple" => "--backup=existing",
            word => word,
        };
        words.extend(self.words.iter().map(simple));
        self.with_operands(&words)
    }

    fn with_operands(&self, options: &[&str]) -> Vec<OsString> {
        let mut words: Vec<OsString> = options.iter().map(OsString::from).collect();
        match self.form {
            Form::Last => {}
            Form::Directory => words.extend(["-t".into(), self.target.clone().into()]),
            Form::Name => words.push("-T".into()),
        }
        words.push("--".into());
        words.extend(self.sources.iter().map(OsString::from));
        if self.form != Form::Directory {
            words.push(self.target.clone().into());
        }
        words
    }
}
