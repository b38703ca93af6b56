//! `--remove-source-files`: a source goes only when its copy can do without it, and at every moment
//! its content stands whole at one place at least.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, mkfifo};
use serde_json::Value;

use super::json::check_line;
use super::support::{
    Background, Ran, Scratch, UCP, bytes, leftovers, on_file_system, run, set_times, until,
};

const REMOVE: &str = "--remove-source-files";

/// Small ones, an empty one, one too large to wait for others, and one that is moved in blocks.
const FILES: [(&str, usize); 6] =
    [("a", 10), ("empty", 0), ("b/c", 70_000), ("b/d/e", 4096), ("f", 9 << 20), ("g", 17 << 20)];

fn content(name: &str, size: usize) -> Vec<u8> {
    bytes(size, name.len() as u64 * 31 + size as u64)
}

fn write_files(place: &Scratch, root: &str, files: &[(&str, usize)]) {
    place.make_directory(format!("{root}/b/d"));
    for &(name, size) in files {
        place.write(format!("{root}/{name}"), content(name, size));
    }
}

/// The command, run under `strace` on one thread's system calls.
fn traced(place: &Scratch, inject: &str, words: &[&str]) -> Command {
    let call = inject.split(':').next().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={inject}"), UCP, "--engine=threads", "--reflink=never"]);
    command.arg(REMOVE).args(words).current_dir(place.path(""));
    command
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout().lines().map(check_line).collect()
}

fn count(lines: &[Value], event: &str) -> usize {
    lines.iter().filter(|line| line["event"] == event).count()
}

#[test]
fn a_tree_is_moved_but_for_its_directories_links_and_specials() {
    let place = Scratch::new();
    write_files(&place, "tree", &FILES);
    place.link("a", "tree/link");
    mkfifo(&place.path("tree/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::hard_link(place.path("tree/a"), place.path("tree/b/second")).unwrap();
    fs::hard_link(place.path("tree/a"), place.path("tree/b/d/third")).unwrap();
    let ran = place.ucp([REMOVE, "--json", "tree", "new"]);
    ran.exits(0);
    let lines = lines(&ran);
    assert_eq!(count(&lines, "removed"), FILES.len() + 2);
    assert_eq!(lines.last().unwrap()["removed"], FILES.len() + 2);
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line["event"] == "removed") {
        let is_its_copy =
            |copied: &&Value| copied["event"] == "copied" && copied["source"] == line["source"];
        let copied = lines[..at].iter().find(is_its_copy).expect("it was copied before");
        assert!(["device", "cache"].contains(&copied["verified"].as_str().unwrap()), "{copied}");
    }
    for (name, size) in FILES {
        assert!(!place.exists(format!("tree/{name}")), "{name} is still there");
        assert_eq!(place.read(format!("new/{name}")), content(name, size), "{name}");
    }
    for name in ["b/d", "link", "fifo"] {
        assert!(place.exists(format!("tree/{name}")), "{name} is gone");
    }
    assert!(!place.exists("tree/b/second") && !place.exists("tree/b/d/third"));
}

#[test]
fn operands_are_moved_by_their_own_names_only() {
    let place = Scratch::new();
    place.make_directory("d");
    place.make_directory("into");
    place.write("d/file", "text");
    place.write("led to", "other");
    place.link("led to", "link");
    place.ucp([REMOVE, "-v", "d/../d/file", "link", "into"]).exits(0);
    assert!(!place.exists("d/file"));
    assert_eq!(place.read("into/file"), b"text");
    assert_eq!(place.read("into/link"), b"other");
    assert!(place.exists("link") && place.exists("led to"), "what was followed stays");
    // A link to what is copied is no source of its own; both names of one file are.
    let said = place.ucp([REMOVE, "-v", "led to", "into/x"]);
    assert!(said.stdout().ends_with("removed 'led to'\n"), "{said:?}");
}

#[test]
fn what_is_behind_a_link_stays() {
    let place = Scratch::new();
    write_files(&place, "behind", &FILES);
    place.make_directory("tree");
    place.link("../behind", "tree/link");
    place.link("../behind/a", "tree/a");
    place.link("behind", "operand");
    place.write("tree/goes", "text");
    let ran = place.ucp([REMOVE, "-L", "-v", "tree", "new"]);
    let removed = ran.stdout().lines().filter(|line| line.starts_with("removed"));
    assert_eq!(removed.collect::<Vec<_>>(), ["removed 'tree/goes'"], "{ran:?}");
    place.ucp([REMOVE, "operand", "other"]).exits(0);
    for (name, size) in FILES {
        assert_eq!(place.read(format!("behind/{name}")), content(name, size));
        assert_eq!(place.read(format!("new/link/{name}")), content(name, size));
        assert_eq!(place.read(format!("other/{name}")), content(name, size));
    }
    place.ucp([REMOVE, "-T", "operand/", "third"]).exits(0);
    assert!(!place.exists("behind/a") && place.exists("third/a") && place.exists("operand"));
}

#[test]
fn what_is_not_copied_is_not_removed() {
    let place = Scratch::new();
    place.write("target", "old");
    let set = |name: &str| set_times(&place.path(name), 1_000_000_000, 5);
    let stays = |options: &[&str]| {
        place.write("source", "new");
        set("source");
        place.ucp([&[REMOVE], options, &["source", "target"]].concat()).exits(0);
        assert!(place.exists("source"), "{options:?}");
    };
    stays(&["-n"]);
    place.write("target", "old");
    stays(&["-u"]);
    set("target");
    // The same size and time, and other bytes.
    stays(&["--check-existing=size+time"]);
    assert_eq!(place.read("target"), b"old");
    stays(&["--attributes-only"]);
    stays(&["--link", "-f"]);
    fs::remove_file(place.path("target")).unwrap();
    stays(&["--symbolic-link"]);
    fs::remove_file(place.path("target")).unwrap();
    stays(&["--dry-run"]);
    assert!(!place.exists("target"));
    // To a pipe it can't be verified.
    place.ucp([REMOVE, "source", "/dev/stdout"]).exits(0);
    assert!(place.exists("source"));
    place.ucp([REMOVE, "source", "/dev/null"]).exits(0);
    assert!(place.exists("source"));
}

#[test]
fn what_was_there_with_the_same_bytes_is_enough() {
    let place = Scratch::new();
    write_files(&place, "tree", &FILES);
    place.ucp(["-T", "tree", "copy"]).exits(0);
    place.write("copy/a", "otherwise!");
    let ran = place.ucp([REMOVE, "--json", "--check-existing=hash", "-T", "tree", "copy"]);
    ran.exits(0);
    let lines = lines(&ran);
    assert_eq!((count(&lines, "copied"), count(&lines, "removed")), (4, FILES.len()));
    for (name, size) in FILES {
        assert!(!place.exists(format!("tree/{name}")), "{name}");
        assert_eq!(place.read(format!("copy/{name}")), content(name, size), "{name}");
    }
}

#[test]
fn names_that_are_linked_and_not_copied_stay() {
    let place = Scratch::new();
    place.make_directory("tree");
    place.write("tree/a", "text");
    fs::hard_link(place.path("tree/a"), place.path("tree/b")).unwrap();
    place.ucp([REMOVE, "-a", "tree", "new"]).exits(0);
    let left = ["a", "b"].into_iter().filter(|name| place.exists(format!("tree/{name}")));
    assert_eq!(left.count(), 1, "the name that was linked");
    let (a, b) = (place.path("new/a"), place.path("new/b"));
    assert_eq!(a.metadata().unwrap().ino(), b.metadata().unwrap().ino());
}

#[test]
fn two_sources_never_become_one_target() {
    let place = Scratch::new();
    // In place into two names of one file: the second would be the end of the first.
    place.make_directory("tree");
    place.make_directory("target/tree");
    for name in ["x", "y"] {
        place.write(format!("tree/{name}"), name);
    }
    place.write("target/tree/x", "old");
    fs::hard_link(place.path("target/tree/x"), place.path("target/tree/y")).unwrap();
    place.ucp([REMOVE, "--in-place", "tree", "target"]);
    for name in ["x", "y"] {
        assert_eq!(place.read(format!("tree/{name}")), name.as_bytes(), "{name} stays");
    }
    // By a link that leads to the target of another.
    place.make_directory("into");
    place.write("into/two", "old");
    place.link("two", "into/one");
    place.write("one", "1");
    place.write("two", "2");
    place.ucp([REMOVE, "--in-place", "one", "two", "into"]).exits(1).says(&["two"]);
    assert!(!place.exists("one"));
    assert_eq!((place.read("into/two"), place.read("two")), (b"1".to_vec(), b"2".to_vec()));
}

#[test]
#[ignore = "few kernels fold case (CONFIG_UNICODE); run it by --ignored where one does"]
fn a_directory_that_takes_one_name_for_another_loses_nothing() {
    require_root!();
    on_file_system("ext4", 64 << 20, |mounted| {
        let image = mounted.path("image");
        fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let mut make = Command::new("mkfs.ext4");
        run(make.args(["-q", "-O", "casefold"]).arg(&image)).exits(0);
        mounted.make_directory("folding");
        let at = mounted.path("folding");
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at)).exits(0);
        mounted.make_directory("folding/into");
        run(Command::new("chattr").arg("+F").arg(at.join("into"))).exits(0);
        mounted.make_directory("tree");
        for name in ["name", "NAME", "Name"] {
            mounted.write(format!("tree/{name}"), name);
        }
        let ran = mounted.ucp([REMOVE, "-T", "tree", "folding/into"]);
        ran.exits(1);
        let stands = mounted.read("folding/into/name");
        for name in ["name", "NAME", "Name"] {
            let is_moved = !mounted.exists(format!("tree/{name}"));
            assert!(!is_moved || stands == name.as_bytes(), "{name} is lost: {ran:?}");
        }
        mounted.make_directory("more");
        mounted.write("more/name", "replaces");
        mounted.write("more/NAME", "replaces, too");
        let ran = mounted.ucp([REMOVE, "more/name", "more/NAME", "folding/into"]);
        ran.exits(1);
        assert_eq!(mounted.read("folding/into/name"), b"replaces", "{ran:?}");
        assert_eq!(mounted.read("more/NAME"), b"replaces, too");
    });
}

#[test]
fn a_dry_run_says_what_would_go() {
    let place = Scratch::new();
    write_files(&place, "tree", &FILES);
    place.link("a", "tree/link");
    let ran = place.ucp([REMOVE, "--dry-run", "tree", "new"]);
    ran.exits(0);
    let told = ran.stdout().lines().filter(|line| line.starts_with("would remove 'tree/"));
    assert_eq!(told.count(), FILES.len(), "{ran:?}");
    let ran = place.ucp([REMOVE, "--dry-run", "--json", "tree", "new"]);
    assert_eq!(count(&lines(&ran), "would-remove"), FILES.len());
    assert!(place.exists("tree/a") && !place.exists("new"));
}

#[test]
fn options_that_would_undo_it_are_refused() {
    let place = Scratch::new();
    place.make_directory("tree");
    place.write("tree/a", "text");
    place.make_directory("tree2");
    for options in [&["--delete"][..], &["--backup=simple"], &["-b"]] {
        place.ucp([&[REMOVE], options, &["-T", "tree", "tree2"]].concat()).exits(2);
        assert!(place.exists("tree/a") && !place.exists("tree2/a"), "{options:?}");
    }
    place.ucp([REMOVE, "--backup=numbered", "-T", "tree", "tree2"]).exits(0);
    assert!(!place.exists("tree/a") && place.exists("tree2/a"));
}

#[test]
fn what_does_not_verify_or_is_not_durable_keeps_its_source() {
    let place = Scratch::new();
    let cases = [
        // The write is said to have succeeded, and has not happened.
        ("pwrite64:retval=4096:when=1", 6),
        ("fdatasync:error=EIO:when=1", 8),
        ("fsync:error=EIO:when=1", 8),
        // The name of the target.
        ("fsync:error=EIO:when=2", 8),
    ];
    for (inject, status) in cases {
        place.write("source", bytes(4096, 7));
        let _ = fs::remove_file(place.path("target"));
        let ran = run(&mut traced(&place, inject, &["source", "target"]));
        assert_eq!(ran.code(), Some(status), "{inject}: {ran:?}");
        assert_eq!(place.read("source"), bytes(4096, 7), "{inject}");
    }
    // In a tree many are synced at once, and once more alone if that fails.
    for inject in ["syncfs:error=EIO", "fsync:error=EIO", "renameat2:error=EIO"] {
        let _ = fs::remove_dir_all(place.path("new"));
        write_files(&place, "tree", &FILES);
        place.make_directory("tree/many");
        for number in 0..40 {
            place.write(format!("tree/many/{number}"), "text");
        }
        let ran = run(&mut traced(&place, inject, &["tree", "new"]));
        let gone = FILES.iter().filter(|(name, _)| !place.exists(format!("tree/{name}")));
        for (name, size) in gone {
            assert_eq!(place.read(format!("new/{name}")), content(name, *size), "{inject}: {name}");
        }
        if inject.starts_with("fsync") || inject.starts_with("renameat2") {
            ran.exits(8);
            assert!(FILES.iter().all(|(name, _)| place.exists(format!("tree/{name}"))), "{inject}");
        }
    }
}

#[test]
fn directories_that_were_there_are_synced_before_what_is_moved_into_them_goes() {
    let place = Scratch::new();
    // A run that was killed may have made them, and synced nothing.
    for root in ["tree", "to/target"] {
        place.make_directory(format!("{root}/a/b"));
    }
    place.write("tree/a/b/file", "text");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-y", "-o", "log", "-e", "trace=fsync,unlinkat", UCP, REMOVE]);
    command.args(["--engine=threads", "-T", "tree", "to/target"]).current_dir(place.path(""));
    run(&mut command).exits(0);
    let log = String::from_utf8(place.read("log")).unwrap();
    let removal = log.find("\"file\", 0) = 0").expect("the source goes");
    for directory in ["to/target/a/b", "to/target/a", "to/target", "to"] {
        let sync = format!("{}>) = 0", place.path(directory).canonicalize().unwrap().display());
        let is_first = log.find(&sync).is_some_and(|sync| sync < removal);
        assert!(is_first, "{directory} is synced too late:\n{log}");
    }
}

#[test]
fn what_can_not_be_removed_is_named() {
    require_root!();
    let place = Scratch::public();
    place.make_directory("mine");
    place.make_directory("theirs");
    place.set_mode("theirs", 0o777);
    place.write("mine/file", "text");
    place.set_mode("mine/file", 0o644);
    let ran = place.ucp_as_nobody([REMOVE, "mine/file", "theirs"]);
    ran.exits(1).says(&["mine/file", "Permission denied"]);
    assert!(place.exists("mine/file"));
    assert_eq!(place.read("theirs/file"), b"text");
}

/// Lets `change` do something once the copy of `source` has its name and before its source goes.
fn between_copy_and_removal(place: &Scratch, change: impl FnOnce()) -> Ran {
    place.write("source", "text");
    let program = format!("echo $$ > pid; exec {UCP} --engine=threads {REMOVE} source target");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat2"]);
    command.args(["-e", "inject=renameat2:signal=SIGSTOP:when=1"]);
    command.args(["sh", "-c", &program]).current_dir(place.path(""));
    let running = Background::start(&mut command);
    until("the copy has its name", || place.exists("target"));
    let pid = String::from_utf8(place.read("pid")).unwrap().trim().parse().unwrap();
    let status = format!("/proc/{pid}/status");
    let is_stopped = || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && line.contains("top"))
    };
    until("it is stopped", is_stopped);
    assert!(place.exists("source"));
    change();
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    running.end()
}

#[test]
fn a_source_that_was_changed_after_it_was_copied_stays() {
    let place = Scratch::new();
    let ran = between_copy_and_removal(&place, || ());
    ran.exits(0);
    assert!(!place.exists("source") && place.exists("target"));

    let changes: [(&str, &dyn Fn(), i32); 4] = [
        ("written", &|| place.write("source", "TEXT"), 9),
        ("longer", &|| place.write("source", "text and more"), 9),
        (
            "another",
            &|| {
                place.write("other", "text");
                fs::rename(place.path("other"), place.path("source")).unwrap();
            },
            9,
        ),
        (
            "a link",
            &|| {
                fs::remove_file(place.path("source")).unwrap();
                place.link("target", "source");
            },
            0,
        ),
    ];
    for (what, change, status) in changes {
        let _ = fs::remove_file(place.path("target"));
        let ran = between_copy_and_removal(&place, change);
        ran.exits(status);
        assert!(place.exists("source"), "{what}: {ran:?}");
        if status == 9 {
            ran.says(&["remove failed on source", "changed after it was copied"]);
        }
        fs::remove_file(place.path("source")).unwrap();
    }
}

#[test]
fn killed_at_every_call_no_content_is_lost() {
    const CALLS: [&str; 12] = [
        "openat",
        "openat2",
        "mkdirat",
        "unlinkat",
        "renameat2",
        "pwrite64",
        "statx",
        "ftruncate",
        "fsync",
        "fdatasync",
        "syncfs",
        "close",
    ];
    const FILES: [(&str, usize); 4] = [("a", 10), ("b/c", 70_000), ("b/d/e", 300_001), ("f", 0)];
    let place = Scratch::new();
    let mut killed = 0;
    for call in CALLS {
        // The first calls are those of the start.
        for number in
            (1..).step_by(if ["openat", "close", "statx"].contains(&call) { 3 } else { 1 })
        {
            let _ = fs::remove_dir_all(place.path("tree"));
            let _ = fs::remove_dir_all(place.path("target"));
            write_files(&place, "tree", &FILES);
            let inject = format!("{call}:signal=SIGKILL:when={number}");
            let ran = run(&mut traced(&place, &inject, &["-T", "tree", "target"]));
            if ran.signal() != Some(libc::SIGKILL) {
                ran.exits(0);
                break;
            }
            killed += 1;
            for (name, size) in FILES {
                let whole = |root: &str| {
                    let found = fs::read(place.path(format!("{root}/{name}")));
                    found.is_ok_and(|found| found == content(name, size))
                };
                assert!(whole("tree") || whole("target"), "{inject}: {name} is lost");
            }
            let ran = place.ucp([REMOVE, "-v", "-T", "tree", "target"]);
            ran.exits(0);
            for (name, size) in FILES {
                let found = fs::read(place.path(format!("target/{name}"))).ok();
                assert!(
                    found == Some(content(name, size)),
                    "{inject}: {name} is not whole: {ran:?}"
                );
                assert!(!place.exists(format!("tree/{name}")), "{inject}: {name} stays: {ran:?}");
            }
            assert_eq!(leftovers(&place.path("")), Vec::<std::path::PathBuf>::new(), "{inject}");
        }
    }
    assert!(killed > 60, "only {killed} calls were met");
}

#[test]
fn it_can_be_done_in_a_sandbox() {
    let place = Scratch::new();
    if !Path::new("/sys/kernel/security/landlock").exists()
        && place.ucp(["--sandbox", "/dev/null", "nothing"]).code() != Some(0)
    {
        eprintln!("skipped: there is no Landlock");
        return;
    }
    write_files(&place, "tree", &FILES);
    place.make_directory("d");
    place.write("d/file", "text");
    place.ucp([REMOVE, "--sandbox", "tree", "new"]).exits(0);
    place.ucp([REMOVE, "--sandbox", "d/file", "file"]).exits(0);
    assert!(!place.exists("tree/b/c") && !place.exists("d/file"));
    assert_eq!(place.read("file"), b"text");
}
