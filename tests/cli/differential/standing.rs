//! What stands at a target before the copy: nothing, one thing of any kind, or a tree that partly
//! matches.

use std::path::{Path, PathBuf};

use ucp_engine::random::Random;

use super::call::{Call, Form};
use super::tree::{ASIDE, Kind, Node, TARGET, decorated, directory, file, pick};

/// A FIFO takes so many bytes before it makes the writer wait.
const PIPE_BYTES: u64 = 32 << 10;

/// What stands beside sources and targets, for links to lead to.
pub(crate) fn plan_aside(random: &mut Random) -> Vec<Node> {
    let below = |name: &str| Path::new(ASIDE).join(name);
    let mut nodes = vec![
        directory(random, PathBuf::from(ASIDE)),
        file(random, below("file")),
        directory(random, below("directory")),
        file(random, below("directory/file")),
    ];
    for node in &mut nodes {
        if node.kind == Kind::Directory {
            node.mode = 0o777;
        }
    }
    nodes
}

/// What stands at the target, and perhaps below, for a call that copies from `sources`.
pub(crate) fn plan_target(
    random: &mut Random,
    call: &Call,
    sources: &[Node],
    world: &Path,
) -> Vec<Node> {
    let target = Path::new(TARGET);
    let mut plan = Plan { call, world, nodes: Vec::new() };
    let needs_directory = call.form == Form::Directory || call.sources.len() > 1;
    let makes_directory = if needs_directory { 10 } else { 4 };
    let choice = random.below(11);
    if choice < makes_directory {
        let mut root = directory(random, target.to_owned());
        if random.once_in(2) {
            root.mode = 0o777;
        }
        plan.nodes.push(root);
        for source in &call.sources {
            let (from, to) = plan.places(source);
            plan.overlap(random, sources, &from, &to);
        }
    } else if choice < 8 {
        let (from, _) = plan.places(&call.sources[0]);
        let kind = sources.iter().find(|node| node.path == from);
        if let Some(node) = kind {
            plan.stand(random, target, node, true);
        }
    }
    plan.nodes
}

struct Plan<'a> {
    call: &'a Call,
    world: &'a Path,
    nodes: Vec<Node>,
}

impl Plan<'_> {
    /// The name of a source among the planned nodes, and where it goes if the target is a
    /// directory.
    fn places(&self, source: &Path) -> (PathBuf, PathBuf) {
        let target = Path::new(TARGET);
        let from: PathBuf = source.components().collect();
        let is_itself = self.call.form == Form::Name || source.ends_with(".");
        // `components` drops a last dot already.
        let is_itself = is_itself || source.as_os_str().as_encoded_bytes().ends_with(b"/.");
        let to = if is_itself {
            target.to_owned()
        } else if self.call.has("--parents") {
            target.join(&from)
        } else {
            target.join(from.file_name().expect("it has a name"))
        };
        (from, to)
    }

    /// Puts things where parts of the source will go.
    fn overlap(&mut self, random: &mut Random, sources: &[Node], from: &Path, to: &Path) {
        let above: Vec<_> =
            to.ancestors().skip(1).filter(|path| path.starts_with(TARGET)).collect();
        for path in above.into_iter().rev() {
            if !self.stands(path) {
                self.nodes.push(directory(random, path.to_owned()));
            }
        }
        for node in sources {
            let Ok(below) = node.path.strip_prefix(from) else { continue };
            let is_operand = below.as_os_str().is_empty();
            let path = if is_operand { to.to_owned() } else { to.join(below) };
            let times = if node.kind == Kind::Directory { 2 } else { 3 };
            let is_wanted = random.once_in(times) || random.once_in(times);
            let parent = path.parent().expect("it is below the target");
            let may_stand = !self.stands(&path) && (is_operand || self.is_directory(parent));
            // cp shortens the name of a backup that would be too long; `ucp` fails.
            let is_long = path.file_name().is_some_and(|name| name.len() > 240);
            let may_stand = may_stand && !(is_long && self.call.backs_up());
            // Whether it is kept under the name of another's copy before or after that is made is as
            // they come from the directory.
            let may_stand = may_stand && !(self.call.backs_up() && has_backup(sources, node));
            let is_ordered = self.depends_on_order() && has_names(sources, &node.path);
            if is_wanted && may_stand && !is_ordered {
                self.stand(random, &path, node, is_operand);
            }
        }
    }

    /// Whether it shows which of several names of a file comes first: that one is copied into what
    /// stands there, the others are linked; and `cp -u` links them to what it leaves alone, even if
    /// links are not to be kept. Not where all that stands there goes.
    fn depends_on_order(&self) -> bool {
        let goes = self.call.has("--remove-destination") && !self.call.backs_up();
        self.call.has("-u") || self.call.keeps_links() && !goes
    }

    fn stands(&self, path: &Path) -> bool {
        self.nodes.iter().any(|node| node.path == path)
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.nodes.iter().any(|node| node.path == path && node.kind == Kind::Directory)
    }

    /// Puts one thing at `path`, where a copy of `source` will go.
    fn stand(&mut self, random: &mut Random, path: &Path, source: &Node, is_operand: bool) {
        let choice = match (&source.kind, random.below(3)) {
            (Kind::Directory, 0 | 1) => 0,
            (Kind::File(_), 0) => 1,
            (Kind::Link(_), 0) => pick(random, &[5, 6, 7]),
            _ => random.below(16),
        };
        let path = path.to_owned();
        let kind = match choice {
            0 => {
                let node = directory(random, path.clone());
                self.nodes.push(node);
                if random.once_in(3) {
                    let file = file(random, path.join("old"));
                    self.nodes.push(file);
                }
                return;
            }
            // Of the same content and times.
            2 if !matches!(source.kind, Kind::HardLink(_)) && !leads_up(source, &path) => {
                self.nodes.push(Node { path, ..source.clone() });
                return;
            }
            // Another name of something else.
            3 => {
                let first = Path::new(ASIDE).join(format!("first {}", self.nodes.len()));
                let node = file(random, first.clone());
                self.nodes.push(node.clone());
                self.nodes.push(Node { path, kind: Kind::HardLink(first), ..node });
                return;
            }
            // Another name of the source.
            4 if matches!(source.kind, Kind::File(_)) => {
                let kind = Kind::HardLink(source.path.clone());
                self.nodes.push(Node { path, kind, ..source.clone() });
                return;
            }
            // What can't be opened can't be kept under another name by `ucp`, as it looks first.
            8 | 11 if self.call.backs_up() => {
                self.nodes.push(file(random, path));
                return;
            }
            // cp says that this is the same file; `ucp` does that of files only, and replaces the
            // link by another special file, or says that it is no directory.
            9 if !matches!(source.kind, Kind::File(_) | Kind::HardLink(_) | Kind::Link(_)) => {
                self.nodes.push(file(random, path));
                return;
            }
            5..=9 if self.may_be_written_through(source, is_operand) => {
                let aside = self.world.join(ASIDE);
                Kind::Link(match choice {
                    5 => aside.join("file"),
                    6 => aside.join("directory"),
                    7 => aside.join("nothing"),
                    8 => PathBuf::from(path.file_name().expect("it has a name")),
                    _ => self.world.join(&source.path),
                })
            }
            10 if self.may_be_written_through(source, is_operand) && fits_pipe(source) => {
                Kind::Fifo
            }
            11 if self.may_be_written_through(source, is_operand) => {
                pick(random, &[Kind::Socket, Kind::Character(1, 3), Kind::Block(200, 9)])
            }
            _ => {
                self.nodes.push(file(random, path));
                return;
            }
        };
        let node = decorated(random, path, kind);
        self.nodes.push(node);
    }

    /// Whether both copiers treat it alike if a file is copied over what is no file: below an
    /// operand `ucp` writes through no link and into no device, by either name, where cp does.
    fn may_be_written_through(&self, source: &Node, is_operand: bool) -> bool {
        is_operand
            || !self.call.has("-L") && !matches!(source.kind, Kind::File(_) | Kind::HardLink(_))
    }
}

/// Whether a source has several names. Which of them comes first is as they come from the directory.
fn has_names(sources: &[Node], path: &Path) -> bool {
    sources.iter().any(|node| match &node.kind {
        Kind::HardLink(first) => first == path || node.path == path,
        _ => false,
    })
}

/// Whether a link that is put at the target itself, a level higher than it was, may lead out of the
/// world.
fn leads_up(source: &Node, path: &Path) -> bool {
    let leads = matches!(&source.kind, Kind::Link(content) if content.iter().any(|p| p == ".."));
    leads && path == Path::new(TARGET)
}

/// Whether beside a source there is one with the name of a backup of it.
fn has_backup(sources: &[Node], node: &Node) -> bool {
    let name = node.path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_backup = |other: &Node| {
        let other = other.path.file_name().unwrap_or_default().as_encoded_bytes();
        other.len() > name.len() && other.starts_with(name) && other.ends_with(b"~")
    };
    let mut others = sources.iter().filter(|other| other.path.parent() == node.path.parent());
    others.any(is_backup)
}

fn fits_pipe(source: &Node) -> bool {
    match &source.kind {
        Kind::File(shape) => shape.size_bytes < PIPE_BYTES,
        Kind::Directory => true,
        _ => false,
    }
}
