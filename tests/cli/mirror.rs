//! `--delete`: what is in the target and not in the source goes, and nothing else, ever.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use nix::sys::signal::Signal;

use super::support::{
    Background, Scratch, UCP, bytes, in_mount_namespace, leftovers, listing, run,
};

/// Makes files, and their directories, that hold their own names.
fn write_all(scratch: &Scratch, root: &str, names: &str) {
    scratch.make_directory(root);
    for name in names.split_whitespace() {
        let path = format!("{root}/{name}");
        match path.strip_suffix('/') {
            Some(directory) => scratch.make_directory(directory),
            None => {
                let (parent, _) = path.rsplit_once('/').unwrap();
                scratch.make_directory(parent);
                scratch.write(&path, name);
            }
        }
    }
}

fn names(root: &Path) -> BTreeSet<PathBuf> {
    listing(root).into_keys().filter(|name| !name.as_os_str().is_empty()).collect()
}

fn set(names: &str) -> BTreeSet<PathBuf> {
    names.split_whitespace().map(PathBuf::from).collect()
}

#[test]
fn what_the_source_does_not_have_goes() {
    let cases: [(&str, &[&str], &str, &str); 8] = [
        ("nothing to delete", &[], "a b/c", "a b b/c"),
        ("a file", &[], "a more", "a b b/c"),
        ("files and directories below", &[], "b/more b/d/e/f g/h/i j/", "a b b/c"),
        ("an excluded name", &["--exclude=*.keep"], "x.keep y b/z.keep", "a b b/c b/z.keep x.keep"),
        (
            "an excluded name in what goes",
            &["--exclude=*.keep"],
            "old/x.keep old/y old/z/w",
            "a b b/c old old/x.keep",
        ),
        ("an excluded directory", &["--exclude=/keep/"], "keep/x y/keep/z", "a b b/c keep keep/x"),
        (
            "an excluded directory on both sides",
            &["--exclude=/b"],
            "b/c b/more more",
            "a b b/c b/more",
        ),
        (
            "included again",
            &["--include=x.keep", "--exclude=*.keep"],
            "x.keep y.keep",
            "a b b/c y.keep",
        ),
    ];
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a b/c");
    for (number, (what, words, target, want)) in cases.into_iter().enumerate() {
        let root = format!("target {number}");
        write_all(&scratch, &root, target);
        let operands = ["--delete", "-T", "source", root.as_str()];
        scratch.ucp(words.iter().chain(&operands)).succeeds_silently();
        assert_eq!(names(&scratch.path(&root)), set(want), "{what}");
    }
    assert_eq!(names(&scratch.path("source")), set("a b b/c"));
}

#[test]
fn backups_stay() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a");
    for (words, want) in [
        (&["--backup"][..], "a a~ old old/x~"),
        (&["--backup=numbered"][..], "a a.~1~ old old/x~"),
        (&["-b", "-S.bak"][..], "a a.bak"),
    ] {
        let _ = fs::remove_dir_all(scratch.path("target"));
        write_all(&scratch, "target", "a more old/x~ old/y");
        scratch.write("target/a", "precious");
        // A second run keeps what the first one has kept.
        for extra in ["", "--check-existing=hash"] {
            let extra = Some(extra).filter(|extra| !extra.is_empty());
            let operands = ["--delete", "-T", "source", "target"];
            scratch.ucp(words.iter().copied().chain(extra).chain(operands)).succeeds_silently();
            assert_eq!(names(&scratch.path("target")), set(want), "{words:?}");
        }
        let backup = want.split_whitespace().nth(1).unwrap();
        assert_eq!(scratch.read(format!("target/{backup}")), b"precious");
    }
    // Without backups, such a name is one as any other.
    scratch.ucp(["--delete", "-T", "source", "target"]).succeeds_silently();
    assert_eq!(names(&scratch.path("target")), set("a"));
}

#[test]
fn the_list_of_the_run_before_stays() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a");
    for (list, want) in [("SUMS", "SUMS a"), ("lists/SUMS", "a lists lists/SUMS")] {
        let _ = fs::remove_dir_all(scratch.path("target"));
        write_all(&scratch, "target", "lists/more more");
        let path = format!("target/{list}");
        for _ in 0..2 {
            scratch
                .ucp(["--delete", "--manifest", &path, "-T", "source", "target"])
                .succeeds_silently();
            assert_eq!(names(&scratch.path("target")), set(want));
        }
        let text = String::from_utf8(scratch.read(&path)).unwrap();
        assert!(text.ends_with("  a\n") && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn nothing_goes_without_being_asked_or_beside_what_was_copied() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a");
    write_all(&scratch, "target", "other source/more new/more");
    scratch.ucp(["source", "target"]).succeeds_silently();
    assert!(scratch.exists("target/source/more"));
    scratch.ucp(["--delete", "source", "target"]).succeeds_silently();
    assert_eq!(names(&scratch.path("target")), set("other new new/more source source/a"));
    // A new directory has nothing to delete.
    scratch.ucp(["--delete", "source", "fresh"]).succeeds_silently();
    assert_eq!(names(&scratch.path("fresh")), set("a"));
    // The contents of a directory go into the target itself.
    scratch.ucp(["--delete", "source/.", "target"]).succeeds_silently();
    assert_eq!(names(&scratch.path("target")), set("a"));
}

#[test]
fn names_may_hold_any_byte_and_are_told_escaped() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a");
    write_all(&scratch, "target", "d/e");
    fs::write(scratch.path("target").join(OsStr::from_bytes(b"\xff\n")), "").unwrap();
    let ran = scratch.ucp(["-v", "--delete", "-T", "source", "target"]);
    let said: BTreeSet<&str> = ran.exits(0).stdout().lines().collect();
    for line in
        [r"removed 'target/'$'\377\n'", "removed 'target/d/e'", "removed directory 'target/d'"]
    {
        assert!(said.contains(line), "{line} in {said:?}");
    }
    assert!(ran.stderr().contains(", 3 deleted"), "{ran:?}");
    assert_eq!(names(&scratch.path("target")), set("a"));
}

#[test]
fn nothing_goes_if_anything_could_not_be_copied() {
    type Prepare = fn(&Scratch);
    let cases: [(&str, Prepare); 4] = [
        ("a directory that can't be listed", |scratch| scratch.set_mode("source/b", 0o000)),
        ("a directory whose files can't be found", |scratch| scratch.set_mode("source/b", 0o444)),
        ("a file that can't be read", |scratch| scratch.set_mode("source/a", 0o000)),
        ("a directory where the source has a file", |scratch| {
            scratch.make_directory("target/a");
            scratch.set_mode("target/a", 0o777);
        }),
    ];
    for (what, prepare) in cases {
        let scratch = Scratch::public();
        write_all(&scratch, "source", "a b/c");
        write_all(&scratch, "target", "more b/more");
        for name in ["target", "target/b"] {
            scratch.set_mode(name, 0o777);
        }
        prepare(&scratch);
        let ran = scratch.ucp_as_nobody(["--delete", "-T", "source", "target"]);
        ran.exits(1).says(&["target", "nothing was deleted"]);
        for name in ["target/more", "target/b/more"] {
            assert!(scratch.exists(name), "{what}: {name} is gone");
        }
    }
}

#[test]
fn what_can_not_be_deleted_is_named_and_the_rest_goes() {
    let scratch = Scratch::public();
    write_all(&scratch, "source", "a");
    write_all(&scratch, "target", "locked/x/y open/z");
    for name in ["target", "target/open", "target/locked"] {
        scratch.set_mode(name, 0o777);
    }
    let ran = scratch.ucp_as_nobody(["--delete", "-T", "source", "target"]);
    ran.exits(1).says(&["target/locked/x/y", "Permission denied"]).says_lines(1);
    assert_eq!(names(&scratch.path("target")), set("a locked locked/x locked/x/y"));
}

#[test]
fn links_go_and_what_they_lead_to_stays() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a");
    write_all(&scratch, "outside", "precious/file");
    write_all(&scratch, "target", "old/x");
    scratch.link("../outside", "target/link");
    scratch.link("../../outside/precious", "target/old/link");
    scratch.link("../outside/precious/file", "target/file");
    scratch.ucp(["--delete", "-T", "source", "target"]).succeeds_silently();
    assert_eq!(names(&scratch.path("target")), set("a"));
    assert_eq!(scratch.read("outside/precious/file"), b"precious/file");
}

#[test]
fn a_link_where_the_source_has_a_directory_is_not_entered() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "b/c");
    write_all(&scratch, "outside", "precious");
    write_all(&scratch, "target", "more");
    scratch.link("../outside", "target/b");
    scratch.ucp(["--delete", "-T", "source", "target"]).exits(1);
    assert_eq!(names(&scratch.path("outside")), set("precious"));
    assert!(scratch.exists("target/more"));
}

#[test]
fn what_is_mounted_stays() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a");
    write_all(&scratch, "target", "mounted/ old/mounted/ old/x y");
    in_mount_namespace(|| {
        for name in ["target/mounted", "target/old/mounted"] {
            let mut mount = Command::new("mount");
            run(mount.args(["-t", "tmpfs", "tmpfs"]).arg(scratch.path(name))).exits(0);
            scratch.write(format!("{name}/precious"), "");
        }
        let mut mount = Command::new("mount");
        run(mount.arg("--bind").arg(scratch.path("source/a")).arg(scratch.path("target/y")))
            .exits(0);
        let ran = scratch.ucp(["--delete", "-T", "source", "target"]);
        ran.exits(1)
            .says(&["skipped target/mounted:", "mounted"])
            .says(&["skipped target/old/mounted:", "mounted"])
            .says(&["skipped target/y:", "mounted"])
            .says_lines(3);
        let want = "a mounted mounted/precious old old/mounted old/mounted/precious y";
        assert_eq!(names(&scratch.path("target")), set(want));
    });
}

#[test]
fn sources_are_never_deleted() {
    let scratch = Scratch::new();
    write_all(&scratch, "target", "deep/source/a deep/other more");
    let ran = scratch.ucp(["--delete", "-T", "target/deep/source", "target"]);
    ran.exits(1).says(&["a source is inside the target"]);
    assert!(scratch.exists("target/deep/source/a") && scratch.exists("target/more"));

    write_all(&scratch, "one", "a");
    write_all(&scratch, "two", "b");
    write_all(&scratch, "into", "one/more two/more");
    let ran = scratch.ucp(["--delete", "one/.", "two/.", "into"]);
    ran.exits(1);
    assert!(ran.stderr().contains("another source was copied into it"), "{ran:?}");
    assert_eq!(names(&scratch.path("into")), set("a b one one/more two two/more"));
    let ran = scratch.ucp(["--delete", "one/.", "two", "into"]);
    ran.exits(1);
    assert!(scratch.exists("into/two/b"), "{ran:?}");
    scratch.ucp(["--delete", "one", "two", "into"]).succeeds_silently();
    assert_eq!(names(&scratch.path("into")), set("a b one one/a two two/b"));
}

#[test]
fn what_is_no_directory_is_no_mirror() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a");
    write_all(&scratch, "target", "more");
    scratch.ucp(["--delete", "source/a", "target"]).exits(1).says(&["source/a", "not a directory"]);
    assert_eq!(names(&scratch.path("target")), set("more"));
}

#[test]
fn what_runs_have_left_goes_unless_they_are_alive() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a");
    write_all(&scratch, "target", ".ucp-0123456789abcdef.part .ucp-0123456789abcdef.stage/x");
    scratch.ucp(["--delete", "-T", "source", "target"]).succeeds_silently();
    assert_eq!(leftovers(&scratch.path("target")), Vec::<PathBuf>::new());
}

#[test]
fn a_source_that_changes_meanwhile_keeps_its_target() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "b/c d/e");
    scratch.write("source/large", bytes(3 << 20, 1));
    write_all(&scratch, "target", "more b/more d/more");
    let mut command = Command::new(UCP);
    command
        .args(["--delete", "--limit-rate=3M", "-T", "source", "target"])
        .current_dir(scratch.path(""));
    let mut copy = Background::start(&mut command);
    copy.stop_when_open(&scratch.path("source/large"));
    // The clock of times of files goes on in ticks of up to 10 ms: what changes in the first of them
    // is as if it had changed before.
    thread::sleep(Duration::from_millis(30));
    scratch.write("source/b/new", "");
    copy.signal(Signal::SIGCONT);
    let ran = copy.end();
    ran.exits(9).says(&["target/b", "changed while it was copied"]);
    assert!(scratch.exists("target/b/more"));
    assert!(!scratch.exists("target/d/more") && !scratch.exists("target/more"));
}

#[test]
fn a_source_that_vanishes_takes_nothing_with_it() {
    let scratch = Scratch::new();
    write_all(&scratch, "source", "b/c");
    scratch.write("source/large", bytes(3 << 20, 1));
    write_all(&scratch, "target", "more b/c b/more");
    let mut command = Command::new(UCP);
    command
        .args(["--delete", "--limit-rate=3M", "-T", "source", "target"])
        .current_dir(scratch.path(""));
    let mut copy = Background::start(&mut command);
    copy.stop_when_open(&scratch.path("source/large"));
    fs::remove_dir_all(scratch.path("source")).unwrap();
    copy.signal(Signal::SIGCONT);
    let ran = copy.end();
    assert!(ran.code().is_some_and(|code| code != 0), "{ran:?}");
    for name in ["more", "b/c", "b/more"] {
        assert!(scratch.exists(format!("target/{name}")), "{name} is gone: {ran:?}");
    }
}

/// `UCP_KILLS=200` sets how often.
#[test]
fn killed_while_it_deletes_it_has_deleted_nothing_else() {
    let rounds = env::var("UCP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(30_u32);
    let scratch = Scratch::new();
    write_all(&scratch, "source", "a b/c");
    let prepare = || {
        let _ = fs::remove_dir_all(scratch.path("target"));
        write_all(&scratch, "target", "a b/c x.keep");
        for number in 0..40 {
            write_all(
                &scratch,
                "target",
                &format!("old/{number}/x old/{number}/y.keep more{number}"),
            );
        }
    };
    let command = || {
        let mut command = Command::new(UCP);
        command.args(["--delete", "--exclude=*.keep", "-T", "source", "target"]);
        command.current_dir(scratch.path(""));
        command
    };
    prepare();
    let started = Instant::now();
    run(&mut command()).succeeds_silently();
    let whole = started.elapsed() + Duration::from_millis(1);
    let want = names(&scratch.path("target"));
    let mut cut_short = 0;
    for round in 0..rounds {
        prepare();
        let copy = Background::start(&mut command());
        thread::sleep(whole.mul_f64((f64::from(round) * 0.618_033_988_749_895).fract()));
        drop(copy);
        let left = names(&scratch.path("target"));
        assert!(left.is_superset(&want), "round {round}: {:?}", want.difference(&left));
        cut_short += u32::from(left.len() > want.len());
        assert_eq!(names(&scratch.path("source")), set("a b b/c"));
        run(&mut command()).succeeds_silently();
        assert_eq!(names(&scratch.path("target")), want, "round {round}");
    }
    assert!(cut_short > 0, "no run was cut short");
}
