//! What goes wrong is said once, in the right line, with the right status; the others go on.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::support::{
    Background, Scratch, UCP, bytes, in_mount_namespace, leftovers, on_file_system, run,
};

const MIB: usize = 1 << 20;

#[test]
fn a_missing_source_is_named_with_its_reason() {
    let scratch = Scratch::new();
    scratch
        .ucp(["missing", "b"])
        .exits(1)
        .says_lines(1)
        .says(&[" failed on missing: ", "No such file or directory (os error 2)"]);
}

#[test]
fn a_missing_target_directory_is_named_with_its_reason() {
    let scratch = Scratch::new();
    scratch.write("a", "");
    let ran = scratch.ucp(["a", "not/there"]);
    ran.exits(1).says_lines(1).says(&["not", "No such file or directory"]);
}

#[test]
fn what_may_not_be_read_is_named_and_the_others_go_on() {
    require_root!();
    let scratch = Scratch::public();
    scratch.make_directory("tree/closed");
    scratch.make_directory("to");
    scratch.set_mode("to", 0o777);
    for name in ["a", "secret", "z", "closed/inside"] {
        scratch.write(format!("tree/{name}"), name);
    }
    scratch.set_mode("tree/secret", 0o600);
    scratch.set_mode("tree/closed", 0o700);
    let ran = scratch.ucp_as_nobody(["tree", "to/copy"]);
    ran.exits(1).says_lines(2);
    ran.says(&[" failed on tree/secret: Permission denied (os error 13)"]);
    ran.says(&[" failed on tree/closed: Permission denied (os error 13)"]);
    assert_eq!(scratch.read("to/copy/a"), b"a");
    assert_eq!(scratch.read("to/copy/z"), b"z");
    assert!(!scratch.exists("to/copy/secret"));
}

#[test]
fn a_directory_that_may_not_be_written_is_named() {
    require_root!();
    let scratch = Scratch::public();
    scratch.write("a", "");
    scratch.make_directory("closed");
    scratch.make_directory("tree");
    for words in [["a", "closed"], ["a", "closed/new"], ["tree", "closed/new"]] {
        let ran = scratch.ucp_as_nobody(words);
        ran.exits(1).says_lines(1).says(&["closed", "Permission denied (os error 13)"]);
    }
    assert!(!scratch.exists("closed/new"));
}

#[test]
fn a_full_disk_is_said_with_the_byte_and_exits_with_eight() {
    require_root!();
    for kind in ["tmpfs", "ext4"] {
        for engine in ["uring", "threads"] {
            for direct in ["on", "off"] {
                let size = if kind == "tmpfs" { 8 } else { 16 } * MIB;
                on_file_system(kind, size as u64, |full| {
                    let scratch = Scratch::new();
                    scratch.write("large", bytes(20 * MIB, 1));
                    full.write("old", "old");
                    let options = [format!("--engine={engine}"), format!("--direct={direct}")];
                    for target in ["new", "old"] {
                        let words = ["large".into(), full.path(target)];
                        let words = options.iter().map(PathBuf::from).chain(words);
                        let ran = scratch.ucp(words);
                        let why = ": No space left on device (os error 28)";
                        ran.exits(8).says_lines(1).says(&[" failed on ", target, why]);
                        // Where room is asked for first, no byte is reached.
                        if !ran.stderr().starts_with("ucp: allocate ") {
                            ran.says(&["write failed on ", target, " at byte "]);
                        }
                    }
                    assert!(!full.exists("new"), "{kind}");
                    assert_eq!(full.read("old"), b"old", "{kind}");
                    assert_eq!(leftovers(&full.path("")), Vec::<PathBuf>::new(), "{kind}");
                    // There is room again.
                    scratch.write("small", "small");
                    scratch.ucp(["small".into(), full.path("new")]).succeeds_silently();
                });
            }
        }
    }
}

#[test]
fn on_a_full_disk_the_files_that_fit_are_copied() {
    require_root!();
    on_file_system("tmpfs", 8 << 20, |full| {
        let scratch = Scratch::new();
        scratch.make_directory("tree");
        // Files are copied at the same time: only what needs no room is sure to fit.
        for name in ["a", "b", "c"] {
            scratch.write(format!("tree/{name}"), "");
        }
        scratch.write("tree/large", bytes(20 * MIB, 1));
        full.make_directory("copy");
        let ran = scratch.ucp(["-T".into(), "tree".into(), full.path("copy")]);
        ran.exits(8).says_lines(1).says(&["large", "No space left on device"]);
        for name in ["a", "b", "c"] {
            assert!(full.exists(format!("copy/{name}")), "{name}");
        }
        assert_eq!(leftovers(&full.path("")), Vec::<PathBuf>::new());
    });
}

#[test]
fn a_read_only_file_system_exits_with_eight() {
    require_root!();
    let scratch = Scratch::new();
    scratch.make_directory("d");
    scratch.make_directory("tree");
    scratch.write("d/b", "old");
    scratch.write("a", "new");
    in_mount_namespace(|| {
        let d = scratch.path("d");
        run(Command::new("mount").arg("--bind").arg(&d).arg(&d)).exits(0);
        run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&d)).exits(0);
        for words in [["a", "d"], ["a", "d/new"], ["a", "d/b"], ["tree", "d/new"]] {
            let ran = scratch.ucp(words);
            ran.exits(8).says_lines(1).says(&["d", "Read-only file system (os error 30)"]);
        }
    });
    assert_eq!(scratch.read("d/b"), b"old");
}

#[test]
fn a_file_size_limit_is_an_error_and_not_a_death() {
    let scratch = Scratch::new();
    scratch.write("a", bytes(4 * MIB, 1));
    for engine in ["uring", "threads"] {
        for target in ["new", "/dev/stdout"] {
            let mut command = Command::new("prlimit");
            command.args(["--fsize=1048576", UCP, &format!("--engine={engine}"), "a", target]);
            if target == "/dev/stdout" {
                command.stdout(File::create(scratch.path("out")).unwrap());
            }
            let ran = run(command.current_dir(scratch.path("")));
            assert_eq!(ran.signal(), None);
            ran.exits(8).says_lines(1).says(&[target, "File too large (os error 27)"]);
        }
        assert!(!scratch.exists("new"));
        assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_file_that_keeps_shrinking_is_discarded_and_exits_with_nine() {
    let scratch = Scratch::new();
    scratch.write("old", "old");
    for target in ["new", "old"] {
        scratch.write("a", bytes(64 * MIB, 1));
        let source = File::options().write(true).open(scratch.path("a")).unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // A byte at a time: it goes on for longer than a copy, and a second one, can take.
            let shrink = || {
                let lengths = (0..64 * MIB as u64).rev();
                for length in lengths.take_while(|_| !is_over.load(Ordering::Relaxed)) {
                    source.set_len(length).unwrap();
                }
            };
            let shrinking = scope.spawn(shrink);
            let slow = ["--engine=threads", "--depth=1", "--block-size=4K", "--direct=off"];
            let ran = scratch.ucp(slow.into_iter().chain(["a", target]));
            is_over.store(true, Ordering::Relaxed);
            shrinking.join().unwrap();
            ran.exits(9).says_lines(1).says(&[" failed on a", "while it was copied"]);
        });
        assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
    }
    assert!(!scratch.exists("new"));
    assert_eq!(scratch.read("old"), b"old");
}

#[test]
fn a_file_that_shrank_once_is_copied_again() {
    let scratch = Scratch::new();
    scratch.write("a", bytes(64 * MIB, 1));
    let mut command = Command::new(UCP);
    command.args(["--engine=threads", "--depth=1", "--block-size=4K", "--direct=off"]);
    command.args(["--reflink=never", "a", "b"]).current_dir(scratch.path(""));
    let mut copy = Background::start(&mut command);
    copy.stop_when_open(&scratch.path("a"));
    scratch.write("a", "short now");
    copy.signal(nix::sys::signal::Signal::SIGCONT);
    copy.end().exits(0);
    assert_eq!(scratch.read("b"), b"short now");
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn failures_of_different_classes_exit_with_one() {
    require_root!();
    on_file_system("tmpfs", 8 << 20, |full| {
        let scratch = Scratch::new();
        scratch.write("large", bytes(20 * MIB, 1));
        scratch.write("small", "");
        let words = ["missing", "large", "small"].map(PathBuf::from);
        let ran = scratch.ucp(words.into_iter().chain([full.path("")]));
        ran.exits(1).says_lines(2);
        ran.says(&["missing", "No such file"]).says(&["large", "No space left"]);
        assert!(full.exists("small"));
    });
}
