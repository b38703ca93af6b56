//! What is kept of files beside their bytes, held against the installed GNU cp: owners, times,
//! attributes, access control lists, capabilities, hard links, special files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ucp_engine::copy::{self, Cancellation, Context, Keep, Progress, Request, Stage};

use super::support::{Scratch, UCP, bytes, leftovers, on_file_system, run, set_times};

/// All that a copy should have: one line a name.
fn account(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut account = BTreeMap::new();
    let mut first_names: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut names = vec![PathBuf::new()];
    while let Some(name) = names.pop() {
        let path = root.join(&name);
        let status = path.symlink_metadata().unwrap();
        if status.is_dir() {
            let below = fs::read_dir(&path).unwrap();
            names.extend(below.map(|entry| name.join(entry.unwrap().file_name())));
            names.sort();
        }
        let inode = (status.dev(), status.ino());
        let first = match status.is_dir() {
            true => name.clone(),
            false => first_names.entry(inode).or_insert_with(|| name.clone()).clone(),
        };
        let device = status.file_type().is_char_device() || status.file_type().is_block_device();
        let content = match status.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string(),
            kind if kind.is_file() => format!("{:?}", fs::read(&path).unwrap()).into(),
            _ => OsString::new(),
        };
        let line = format!(
            "{:o} {}:{} {}.{:09} {} {} {:?} {content:?}",
            status.mode(),
            status.uid(),
            status.gid(),
            status.mtime(),
            status.mtime_nsec(),
            if device { status.rdev() } else { 0 },
            first.display(),
            attributes(&path),
        );
        account.insert(name, line);
    }
    account
}

/// Extended attributes, lists and capabilities among them.
fn attributes(path: &Path) -> String {
    let mut command = Command::new("getfattr");
    command.args(["--absolute-names", "-h", "-d", "-m", "-", "-e", "hex"]).arg(path);
    let told = run(&mut command).stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    let mut lines: Vec<&str> = told.lines().filter(|line| !line.starts_with('#')).collect();
    lines.sort_unstable();
    lines.join(" ")
}

fn sh(scratch: &Scratch, script: &str) {
    let script = format!("set -e; {script}");
    run(Command::new("bash").args(["-c", &script]).current_dir(scratch.path(""))).exits(0);
}

/// A tree with one of everything that a file can have.
fn make_rich_tree(scratch: &Scratch) {
    sh(
        scratch,
        "mkdir -p tree/a/b tree/c tree/lists tree/closed
         echo one >tree/a/one; ln tree/a/one tree/a/b/two; ln tree/a/one tree/c/three
         ln -s nowhere tree/a/link; ln tree/a/link tree/c/link
         mkfifo -m 640 tree/a/fifo; ln tree/a/fifo tree/c/fifo
         mknod -m 620 tree/c/null c 1 3; mknod tree/c/loop b 7 99
         perl -MSocket -e 'socket(S,PF_UNIX,SOCK_STREAM,0); bind(S,sockaddr_un(\"tree/c/socket\"))'
         echo id >tree/c/id; chown 1234:4321 tree/c/id; chmod 6751 tree/c/id
         echo sticky >tree/c/sticky; chmod 1644 tree/c/sticky
         setfattr -n user.colour -v blue tree/a/one; setfattr -n trusted.secret -v x tree/c/id
         setfattr -n user.empty tree/a; setfattr -h -n trusted.link -v y tree/a/link
         echo 0 >tree/read-only; setfattr -n user.x -v 1 tree/read-only; chmod 444 tree/read-only
         echo cap >tree/c/cap; chown 1234 tree/c/cap; chmod 755 tree/c/cap
         setcap cap_net_raw+ep tree/c/cap
         echo list >tree/lists/list; setfacl -m u:1234:rw,g:4321:r,m::rw tree/lists/list
         setfacl -m u:1234:rwx -d -m u:1234:rwx,o::- tree/lists
         chown -h 99:98 tree/a/link tree/a/fifo tree/c/null; chown 77:66 tree/lists
         chmod 2775 tree/a; chmod 1777 tree/a/b; echo in >tree/closed/in; chmod 555 tree/closed",
    );
    let times = [
        ("tree/a/one", 5, -2_000_000_000_123_456_789),
        ("tree/a/link", 6, 4_100_000_000_000_000_001),
        ("tree/c/null", 7, 1_234_567_890_123_456_789),
        ("tree/c/id", 8, -1),
        ("tree/closed", 9, 1_000_000_000_000_000_007),
        ("tree", 10, 1_000_000_000_000_000_008),
    ];
    for (name, accessed, modified) in times {
        set_times(&scratch.path(name), accessed, modified);
    }
}

#[track_caller]
fn assert_equal(scratch: &Scratch, got: &str, want: &str, what: &str) {
    let (got, want) = (account(&scratch.path(got)), account(&scratch.path(want)));
    for (name, want) in &want {
        assert_eq!(got.get(name), Some(want), "{name:?} {what}");
    }
    assert_eq!(got.len(), want.len(), "{what}");
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new(), "{what}");
}

fn as_cp(scratch: &Scratch, program: &Path, words: &[&str]) -> super::support::Ran {
    run(Command::new(program).args(words).current_dir(scratch.path("")))
}

#[test]
fn an_archive_is_what_cp_makes_on_every_file_system() {
    require_root!();
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        on_file_system(kind, 400 << 20, |mounted| {
            make_rich_tree(mounted);
            sh(mounted, "cp -a tree want");
            assert_equal(mounted, "want", "tree", "by cp");
            mounted.ucp(["-a", "tree", "got"]).succeeds_silently();
            assert_equal(mounted, "got", "want", kind);
            // Once more over what is there now.
            mounted.ucp(["-aT", "tree", "got"]).succeeds_silently();
            assert_equal(mounted, "got", "want", &format!("{kind}, again"));
            mounted.ucp(["-aT", "--stage=never", "tree", "open"]).succeeds_silently();
            assert_equal(mounted, "open", "want", &format!("{kind}, in the open"));
        });
    }
}

#[test]
fn each_choice_of_what_is_kept_is_that_of_cp() {
    require_root!();
    let cases: [&[&str]; 9] = [
        &["-R", "-p"],
        &["-R", "--preserve=all"],
        &["-R"],
        &["-R", "--preserve=links,mode,timestamps"],
        &["-d", "-R", "--preserve=ownership,timestamps"],
        &["-a", "--no-preserve=mode"],
        &["-a", "--no-preserve=ownership,xattr"],
        &["-R", "--preserve=xattr,timestamps"],
        &["-p", "-R", "--no-preserve=mode,timestamps"],
    ];
    on_file_system("ext4", 400 << 20, |mounted| {
        make_rich_tree(mounted);
        let cp = mounted.path("bin");
        fs::create_dir(&cp).unwrap();
        symlink(UCP, cp.join("cp")).unwrap();
        // A directory that hands lists down, and its group.
        for (number, parent) in ["plain", "lists"].into_iter().enumerate() {
            mounted.make_directory(parent);
            if number == 1 {
                sh(
                    mounted,
                    "setfacl -d -m u:55:rwx,g::r,o::- lists; chmod g+s lists; chgrp 44 lists",
                );
            }
            for (number, options) in cases.iter().enumerate() {
                // cp gives owners' files more than the list of their directory leaves them.
                if parent == "lists" && options.contains(&"--preserve=ownership,timestamps") {
                    continue;
                }
                let name = |by: &str| format!("{parent}/{by} {number}");
                let (want, got) = (name("cp"), name("ucp"));
                let what = format!("{options:?} in {parent}");
                as_cp(mounted, Path::new("cp"), &[options, &["tree", &want][..]].concat()).exits(0);
                let ran = as_cp(mounted, &cp.join("cp"), &[options, &["tree", &got][..]].concat());
                ran.exits(0);
                let (got, want) = (account(&mounted.path(got)), account(&mounted.path(want)));
                let keeps_times = options
                    .iter()
                    .any(|it| ["-p", "-a", "times", "all"].iter().any(|w| it.contains(w)))
                    && !options.iter().any(|it| it.starts_with("--no") && it.contains("times"));
                for (name, want) in &want {
                    let shorten = |line: &str| match keeps_times {
                        true => line.to_owned(),
                        false => {
                            let mut words: Vec<&str> = line.split(' ').collect();
                            words.remove(2);
                            words.join(" ")
                        }
                    };
                    let got = got.get(name).map(|line| shorten(line));
                    assert_eq!(got, Some(shorten(want)), "{name:?} {what}");
                }
            }
        }
    });
}

#[test]
fn many_names_of_one_file_are_names_of_one_copy_whoever_meets_them() {
    let scratch = Scratch::new();
    sh(
        &scratch,
        "mkdir tree; for d in $(seq 40); do mkdir tree/$d; done
         for f in $(seq 25); do echo $f >tree/1/$f; for d in $(seq 2 40); do
         ln tree/1/$f tree/$d/$f; done; done",
    );
    for options in [&["-a"][..], &["-a", "--stage=never"], &["-r", "--preserve=links"]] {
        let words = [options, &["-T", "tree", "got"]].concat();
        scratch.ucp(&words).succeeds_silently();
        for again in [false, true] {
            if again {
                scratch.ucp(&words).succeeds_silently();
            }
            for file in 1..=25 {
                let first = fs::metadata(scratch.path(format!("got/1/{file}"))).unwrap();
                assert_eq!(first.nlink(), 40, "{file} {options:?} {again}");
                for directory in 2..=40 {
                    let path = scratch.path(format!("got/{directory}/{file}"));
                    assert_eq!(fs::metadata(path).unwrap().ino(), first.ino());
                }
            }
            assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
        }
        fs::remove_dir_all(scratch.path("got")).unwrap();
    }
}

#[test]
fn operands_that_are_one_file_are_one_copy() {
    let scratch = Scratch::new();
    sh(
        &scratch,
        "mkdir from to tree; echo a >from/a; ln from/a from/b; ln from/a tree/c; ln -s x from/l
         ln from/l from/m",
    );
    scratch.ucp(["-a", "from/a", "from/b", "tree", "from/l", "from/m", "to"]).succeeds_silently();
    let inode = |name: &str| scratch.path(name).symlink_metadata().unwrap().ino();
    assert_eq!(inode("to/a"), inode("to/b"));
    assert_eq!(inode("to/a"), inode("to/tree/c"));
    assert_eq!(inode("to/l"), inode("to/m"));
    // Without the option each name is a file.
    scratch.ucp(["from/a", "from/b", "tree"]).succeeds_silently();
    assert_ne!(inode("tree/a"), inode("tree/b"));
}

#[test]
fn a_name_that_shares_a_file_with_others_is_taken_from_them() {
    let scratch = Scratch::new();
    for program in ["ucp", "cp"] {
        sh(&scratch, "echo new >a; rm -f b c other; echo old >b; ln b c; ln b other");
        let directory = scratch.path("").join(format!("bin {program}"));
        fs::create_dir(&directory).unwrap();
        symlink(UCP, directory.join(program)).unwrap();
        as_cp(&scratch, &directory.join(program), &["-a", "a", "c"]).exits(0);
        assert_eq!(scratch.read("c"), b"new\n");
        assert_eq!(scratch.read("other"), b"old\n", "{program}");
    }
}

#[test]
fn special_files_are_made_anew_in_trees_and_read_as_operands() {
    let scratch = Scratch::new();
    sh(&scratch, "mkdir tree; mkfifo -m 600 tree/fifo; mkfifo operand");
    scratch.ucp(["tree", "got"]).succeeds_silently();
    let status = scratch.path("got/fifo").symlink_metadata().unwrap();
    assert!(status.file_type().is_fifo() && status.mode() & 0o777 == 0o600, "{status:?}");
    scratch.ucp(["-R", "operand", "made"]).succeeds_silently();
    assert!(scratch.path("made").symlink_metadata().unwrap().file_type().is_fifo());
    // In the place of a file.
    scratch.write("file", "old");
    scratch.ucp(["-a", "operand", "file"]).succeeds_silently();
    assert!(scratch.path("file").symlink_metadata().unwrap().file_type().is_fifo());
    let read = format!("echo text >operand & exec '{UCP}' operand read");
    sh(&scratch, &read);
    assert_eq!(scratch.read("read"), b"text\n");
    let read = format!("echo tree >tree/fifo & exec '{UCP}' -R --copy-contents tree contents");
    sh(&scratch, &read);
    assert_eq!(scratch.read("contents/fifo"), b"tree\n");
}

#[test]
fn an_ordinary_user_keeps_what_may_be_kept() {
    require_root!();
    let scratch = Scratch::public();
    make_rich_tree(&scratch);
    // What the user may not read or make would only be complained of by both.
    sh(&scratch, "rm tree/c/null tree/c/loop; chmod 755 tree/lists; mkdir to; chmod 777 to");
    let as_nobody = |program: &Path, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
        run(command.args(words).current_dir(scratch.path("")))
    };
    for (number, options) in [&["-a"][..], &["-pR"], &["-R", "--preserve=all"]].iter().enumerate() {
        let (want, got) = (format!("to/cp {number}"), format!("to/ucp {number}"));
        as_nobody(Path::new("cp"), &[options, &["tree", &want][..]].concat());
        as_nobody(&scratch.path("ucp"), &[options, &["tree", &got][..]].concat());
        assert_equal(&scratch, &got, &want, &format!("{options:?} by nobody"));
    }
}

#[test]
fn what_can_not_be_kept_is_said_and_the_rest_is_copied() {
    require_root!();
    on_file_system("tmpfs", 64 << 20, |mounted| {
        let scratch = Scratch::new();
        scratch.write("file", bytes(5000, 1));
        sh(&scratch, "setfattr -n user.x -v 1 file");
        // /proc and the like have no such attributes; a tmpfs without lists is the nearest.
        sh(mounted, "mkdir none; mount -t ramfs none none");
        let target = mounted.path("none/file");
        let target = target.to_str().unwrap();
        scratch.ucp(["-a", "file", target]).exits(0);
        scratch.ucp(["--preserve=xattr", "file", target]).exits(1).says(&["set attribute failed"]);
        assert!(fs::read(target).unwrap() == bytes(5000, 1));
    });
}

#[test]
fn what_only_selinux_has_is_told_as_cp_tells_it() {
    if Path::new("/sys/fs/selinux/status").exists() {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("a", "text");
    let context = "a:b:c";
    scratch.ucp(["-Z", "a", "b"]).succeeds_silently();
    let ran = scratch.ucp([&format!("--context={context}"), "a", "b"]);
    ran.exits(0).says(&["warning: ignoring --context; it requires an SELinux-enabled kernel"]);
    let words = "cannot preserve security context without an SELinux-enabled kernel";
    scratch.ucp(["--preserve=context", "a", "b"]).exits(2).says(&[words]);
}

/// Without SELinux a context is an attribute as any other, which only root may write: what the
/// engine does about it can be seen all the same.
#[test]
fn a_context_is_kept_set_or_left_to_the_system() {
    require_root!();
    const NAME: &str = "security.selinux";
    if Path::new("/sys/fs/selinux/status").exists() {
        return;
    }
    on_file_system("ext4", 64 << 20, |place| {
        place.make_directory("tree");
        place.write("tree/file", "text");
        place.link("file", "tree/link");
        let of = |name: &str| xattr::get(place.path(name), NAME).unwrap();
        let old: &[u8] = b"user_u:object_r:old_t:s0\0";
        for name in ["tree", "tree/file", "tree/link"] {
            xattr::set(place.path(name), NAME, old).unwrap();
        }
        let new: &[u8] = b"user_u:object_r:new_t:s0\0";
        let cases = [
            (Context::AsAttributes, Keep::No, None),
            (Context::AsAttributes, Keep::Silently, Some(old)),
            (Context::Fresh, Keep::No, None),
            (Context::Fresh, Keep::Silently, None),
            (Context::Keep(Keep::Required), Keep::No, Some(old)),
            (Context::Set(new.to_vec()), Keep::No, Some(new)),
            (Context::Set(new.to_vec()), Keep::Silently, Some(new)),
        ];
        for (context, attributes, want) in cases {
            for stage in [Stage::Auto, Stage::Never] {
                let _ = fs::remove_dir_all(place.path("copy"));
                let mut request = Request::new([place.path("tree")], place.path("copy"));
                request.options.stage = stage;
                request.options.preserve.attributes = attributes;
                request.options.preserve.context = context.clone();
                let (progress, cancellation) = (Progress::default(), Cancellation::default());
                let summary = copy::copy(&request, &(), &progress, &cancellation).unwrap();
                assert_eq!(summary.failed, 0, "{context:?}");
                for name in ["copy", "copy/file", "copy/link"] {
                    let got = of(name);
                    assert_eq!(got.as_deref(), want, "{name}: {context:?}, {attributes:?}");
                }
            }
        }
    });
}
