//! Directories that are closed while what is in them is copied, and exchanged meanwhile: whatever
//! stands in their place, nothing is read or written there.

use std::path::Path;

use ucp_engine::copy::{
    Cancellation, Event, Observer, Progress, Request, Stage, TargetRole, copy_on,
};
use ucp_engine::operation::FileKind;
use ucp_engine::processor::{FaultPlan, SimulatedProcessor, SimulatedWorld};
use ucp_engine::{ErrorKind, Proactor};

const DIRECTORIES: [&str; 6] = ["a", "a/b", "a/b/c", "a/b/c/d", "a/b/e", "f"];

/// Looks for the failure that it is about.
#[derive(Default)]
struct Listener(std::sync::Mutex<u32>);

impl Observer for Listener {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Failed(error) = event
            && error.kind() == ErrorKind::SourceChanged
            && error.to_string().contains("was moved while it was copied")
        {
            *self.0.lock().unwrap() += 1;
        }
    }
}

/// What somebody else does to a directory of a tree.
struct Exchange {
    what: &'static str,
    act: fn(&SimulatedWorld, root: &str),
    /// Another directory gets this name, and what had it goes aside.
    replaced: Option<&'static str>,
}

const EXCHANGES: [Exchange; 5] = [
    Exchange {
        what: "a link in its place",
        act: |world, root| {
            world.rename(format!("{root}/a"), "/aside/a");
            world.add_symlink(format!("{root}/a"), "/elsewhere/a");
        },
        replaced: None,
    },
    Exchange {
        what: "moved out",
        act: |world, root| world.rename(format!("{root}/a/b"), "/elsewhere/b"),
        replaced: None,
    },
    Exchange {
        what: "moved out, and a link in the place of the one above",
        act: |world, root| {
            world.rename(format!("{root}/a/b"), "/elsewhere/b");
            world.rename(format!("{root}/a"), "/aside/a");
            world.add_symlink(format!("{root}/a"), "/elsewhere/a");
        },
        replaced: None,
    },
    Exchange {
        what: "another directory in its place",
        act: |world, root| {
            world.rename(format!("{root}/a"), "/aside/a");
            world.rename("/elsewhere/a", format!("{root}/a"));
        },
        replaced: Some("a"),
    },
    Exchange {
        what: "another directory in a place below",
        act: |world, root| {
            world.rename(format!("{root}/a/b"), "/aside/b");
            world.rename("/elsewhere/a/b", format!("{root}/a/b"));
        },
        replaced: Some("a/b"),
    },
];

/// A tree in which each directory has a file that says so.
fn add_tree(world: &SimulatedWorld, root: &str, content: &str) {
    world.add_directory(root);
    for directory in DIRECTORIES {
        world.add_directory(format!("{root}/{directory}"));
        world.add_file(format!("{root}/{directory}/file"), content);
    }
}

#[test]
fn a_parked_directory_that_is_exchanged_leads_nowhere() {
    let (mut moved, mut completed) = (0, 0);
    for exchange in &EXCHANGES {
        for (root, stage) in [
            ("/source/tree", Stage::Auto),
            ("/source/tree", Stage::Never),
            ("/target/tree", Stage::Never),
        ] {
            for completions in 0..160 {
                let world = SimulatedWorld::new();
                for path in ["/source", "/target", "/aside"] {
                    world.add_directory(path);
                }
                add_tree(&world, "/source/tree", "copied");
                add_tree(&world, "/elsewhere", "secret");
                if root == "/target/tree" {
                    add_tree(&world, root, "old");
                }
                let act = |world: &SimulatedWorld| (exchange.act)(world, root);
                let plan = FaultPlan::none().call_after(completions, act);
                let mut request = Request::new(["/source/tree"], "/target/tree");
                request.target_role = TargetRole::Name;
                request.options.stage = stage;
                request.options.open_directories_max = Some(0);
                let processor = SimulatedProcessor::new(completions, 64, &world, plan);
                let proactor = Proactor::new(Box::new(processor));
                let (listener, cancellation) = (Listener::default(), Cancellation::default());
                let progress = Progress::default();
                let copied = copy_on(&proactor, &request, &listener, &progress, &cancellation);
                let summary = copied.unwrap();
                moved += *listener.0.lock().unwrap();
                completed += u32::from(summary.failed == 0);
                let case = format!("{}, {root}, after {completions}", exchange.what);
                check(&world, root, exchange.replaced, &case);
            }
        }
    }
    println!("{moved} directories were found to be moved, {completed} copies were complete");
    assert!(moved > 0 && completed > 0, "{moved} moved, {completed} complete");
}

/// The same while the target is mirrored: nothing outside of it goes.
#[test]
fn a_parked_directory_of_a_mirror_that_is_exchanged_leads_nowhere() {
    let (mut moved, mut deleted) = (0, 0);
    for exchange in EXCHANGES.iter().filter(|exchange| exchange.replaced.is_none()) {
        for completions in (0..).step_by(3) {
            let world = SimulatedWorld::new();
            for path in ["/source", "/target", "/aside"] {
                world.add_directory(path);
            }
            add_tree(&world, "/source/tree", "copied");
            for (root, content) in [("/elsewhere", "secret"), ("/target/tree", "old")] {
                add_tree(&world, root, content);
                for directory in DIRECTORIES.iter().chain(&["."]) {
                    for name in ["extra", "gone/deep/file", "zextra"] {
                        let path = format!("{root}/{directory}/{name}").replace("/./", "/");
                        world.add_directory(Path::new(&path).parent().unwrap());
                        world.add_file(path, content);
                    }
                }
            }
            let secrets = |world: &SimulatedWorld| {
                let tree = world.tree("/");
                tree.values().filter(|entry| entry.content == b"secret").count()
            };
            let before = secrets(&world);
            let act = |world: &SimulatedWorld| (exchange.act)(world, "/target/tree");
            let plan = FaultPlan::none().call_after(completions, act);
            let record = plan.record();
            let mut request = Request::new(["/source/tree"], "/target/tree");
            request.target_role = TargetRole::Name;
            request.options.stage = Stage::Never;
            request.options.selection.delete = true;
            request.options.open_directories_max = Some(0);
            let processor = SimulatedProcessor::new(completions, 64, &world, plan);
            let proactor = Proactor::new(Box::new(processor));
            let (listener, cancellation) = (Listener::default(), Cancellation::default());
            let progress = Progress::default();
            let copied = copy_on(&proactor, &request, &listener, &progress, &cancellation);
            let summary = copied.unwrap();
            let case = format!("{}, after {completions}", exchange.what);
            assert_eq!(secrets(&world), before, "{case}: something outside was deleted");
            assert_eq!(world.open_files(), [""; 0], "{case}");
            deleted += summary.deleted;
            let was_deleting = summary.deleted > 0;
            moved += u32::from(was_deleting && *listener.0.lock().unwrap() > 0);
            if record.completions() < completions {
                assert!(completions > 300, "{case}: it was short");
                break;
            }
        }
    }
    println!("{moved} directories were found to be moved while {deleted} names were deleted");
    assert!(moved > 0 && deleted > 0, "{moved} moved, {deleted} deleted");
}

fn check(world: &SimulatedWorld, root: &str, replaced: Option<&str>, case: &str) {
    let is_source = root == "/source/tree";
    let tree = world.tree("/");
    let files = tree.iter().filter(|(_, entry)| entry.status.kind == FileKind::Regular);
    for (path, entry) in files {
        assert!(path.ends_with("file"), "{case}: {} was left", path.display());
        let is_outside = path.starts_with("/elsewhere") && !path.starts_with("/elsewhere/b");
        let is_secret = entry.content == b"secret";
        assert!(is_secret || !is_outside, "{case}: {} was written", path.display());
        let Some(replaced) = replaced else {
            let is_read = is_secret && !is_outside;
            assert!(!is_read, "{case}: {} was read", path.display());
            continue;
        };
        // Whoever comes to a name after another directory got it copies that one. But what was
        // entered before stays the directory that it is.
        let leaf = Path::new(replaced).file_name().unwrap();
        let first = match is_source {
            true => Path::new("/target/tree").join(replaced),
            false => Path::new("/aside").join(leaf),
        };
        let was_entered = world.read(first.join("file")).is_some_and(|file| file == b"copied");
        if was_entered && path.starts_with(Path::new("/target/tree").join(replaced)) {
            assert_eq!(is_secret, !is_source, "{case}: {} is of both", path.display());
        }
    }
}
