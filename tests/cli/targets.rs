//! Several targets in one read: each becomes what a copy to it alone would make of it, and each byte of
//! a source is read once.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{io::Write, thread};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use super::json;
use super::support::{
    Background, Entry, Scratch, UCP, allocated_bytes, bytes, in_mount_namespace, leftovers,
    listing, make_odd_tree, make_sparse, on_file_system, run, until,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZES: [usize; 10] =
    [0, 1, 4095, 4096, 4097, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 16 * MIB + 7, 64 * MIB + 7];

const ENGINES: [&str; 2] = ["--engine=uring", "--engine=threads"];

/// `-t` for each of these.
fn to<'a>(targets: impl IntoIterator<Item = &'a Path>) -> Vec<PathBuf> {
    targets.into_iter().flat_map(|target| [PathBuf::from("-t"), target.to_owned()]).collect()
}

fn make(scratch: &Scratch, directories: &[&str]) {
    directories.iter().for_each(|name| scratch.make_directory(name));
}

/// The words of a run.
fn words(options: &[&str], targets: &[&Path], sources: &[&str]) -> Vec<PathBuf> {
    let options = options.iter().map(PathBuf::from);
    options.chain(to(targets.iter().copied())).chain(sources.iter().map(PathBuf::from)).collect()
}

#[track_caller]
fn is_same(source: &Path, copy: &Path) {
    let (want, got) = (listing(source), listing(copy));
    for (name, want) in &want {
        assert_eq!(got.get(name), Some(want), "{name:?} in {}", copy.display());
    }
    assert_eq!(got.len(), want.len(), "{}", copy.display());
}

#[test]
fn trees_are_the_same_on_several_file_systems() {
    require_root!();
    let scratch = Scratch::new();
    make_odd_tree(&scratch, "tree", &SIZES);
    make_sparse(&scratch.path("tree/sparse"), 20 * MIB as u64, &[(MIB as u64, 5000)]);
    for (number, name) in ["tree/other", "tree/deep/other", "tree/empty/other"].iter().enumerate() {
        let source = ["tree/of 4097 bytes", "tree/of 16777223 bytes"][number % 2];
        fs::hard_link(scratch.path(source), scratch.path(name)).unwrap();
    }
    scratch.make_directory("disk");
    let size = 512 * MIB as u64;
    on_file_system("ext4", size, |ext4| {
        on_file_system("xfs", size, |xfs| {
            on_file_system("tmpfs", size, |memory| {
                let disk = scratch.path("disk");
                let places = [ext4.path(""), xfs.path(""), memory.path("")];
                let cases: [&[&Path]; 3] = [
                    &[&places[0], &places[1]],
                    &[&places[2], &disk],
                    &[&places[0], &places[1], &places[2]],
                ];
                for (number, targets) in cases.into_iter().enumerate() {
                    for engine in ENGINES {
                        let direct = ["--direct=auto", "--direct=on", "--direct=off"][number];
                        let options = ["-a", engine, direct];
                        scratch.ucp(words(&options, targets, &["tree"])).succeeds_silently();
                        for target in targets {
                            let copy = target.join("tree");
                            is_same(&scratch.path("tree"), &copy);
                            check_links_and_holes(&copy);
                            assert_eq!(leftovers(target), Vec::<PathBuf>::new());
                            fs::remove_dir_all(copy).unwrap();
                        }
                    }
                }
            });
        });
    });
}

fn check_links_and_holes(copy: &Path) {
    let inode = |name: &str| copy.join(name).metadata().unwrap().ino();
    assert_eq!(inode("of 4097 bytes"), inode("other"));
    assert_eq!(inode("of 4097 bytes"), inode("empty/other"));
    assert_eq!(inode("of 16777223 bytes"), inode("deep/other"));
    assert!(allocated_bytes(&copy.join("sparse")) < MIB as u64, "it has holes");
}

/// How many bytes a run has read of files whose path has this in it, as strace tells.
fn bytes_read(scratch: &Scratch, words: &[PathBuf], of: &str) -> u64 {
    scratch.make_directory("log");
    let mut command = Command::new("strace");
    // A log a thread: no line is cut by another.
    command.args(["-ff", "-qq", "-y", "-o", "log/of", "-e", "trace=read,pread64,preadv,readv"]);
    command.env_remove("LD_LIBRARY_PATH").arg(UCP).args(words);
    run(command.current_dir(scratch.path(""))).exits(0);
    let mut total = 0;
    for log in fs::read_dir(scratch.path("log")).unwrap() {
        let log = String::from_utf8_lossy(&fs::read(log.unwrap().path()).unwrap()).into_owned();
        for line in log.lines().filter(|line| line.contains(of)) {
            let moved = line.rsplit_once(" = ").and_then(|(_, moved)| moved.parse::<u64>().ok());
            total += moved.unwrap_or_else(|| panic!("no number of bytes in {line}"));
        }
    }
    fs::remove_dir_all(scratch.path("log")).unwrap();
    total
}

#[test]
fn each_byte_of_a_source_is_read_once() {
    let scratch = Scratch::new();
    let sizes = [1, 4097, 256 * KIB + 1, 3 * MIB, 20 * MIB + 7];
    (0..sizes.len()).for_each(|number| scratch.make_directory(format!("source/{number}")));
    for (number, size) in sizes.iter().enumerate() {
        scratch.write(format!("source/{number}/file"), bytes(*size, number as u64));
        // Met by several shards at a time.
        for link in 0..20 {
            let name = format!("source/{}/link{number}-{link}", link % sizes.len());
            let file = scratch.path(format!("source/{number}/file"));
            fs::hard_link(file, scratch.path(name)).unwrap();
        }
    }
    let size = sizes.iter().sum::<usize>() as u64;
    let targets = ["a", "b", "c"].map(|name| scratch.path(name));
    let targets: Vec<&Path> = targets.iter().map(PathBuf::as_path).collect();
    for options in [
        &["-a", "--engine=threads", "--reflink=never"][..],
        &["-a", "--engine=threads", "--reflink=never", "--direct=on"],
        &["-a", "--engine=threads", "--reflink=never", "--stage=never", "--durable"],
        &["-a", "--engine=threads", "--reflink=never", "--digest=sha256"],
    ] {
        targets.iter().for_each(|target| fs::create_dir(target).unwrap());
        let read = bytes_read(&scratch, &words(options, &targets, &["source"]), "/source/");
        // Direct I/O asks for whole blocks, and gets what there is.
        assert_eq!(read, size, "{options:?}");
        for target in &targets {
            is_same(&scratch.path("source"), &target.join("source"));
            fs::remove_dir_all(target).unwrap();
        }
    }
}

#[test]
fn existing_files_are_replaced_in_each() {
    let scratch = Scratch::new();
    for (name, size) in [("small", 10), ("middle", 300 * KIB), ("large", 17 * MIB)] {
        scratch.write(name, bytes(size, 1));
    }
    for target in ["a", "b"] {
        scratch.make_directory(target);
    }
    scratch.write("a/small", "old");
    scratch.write("b/large", bytes(18 * MIB, 2));
    scratch.write("b/middle", "old");
    let sources = ["small", "middle", "large"];
    let targets = ["a", "b"].map(Path::new);
    scratch.ucp(words(&["-b"], &targets, &sources)).succeeds_silently();
    for source in sources {
        for target in ["a", "b"] {
            let copy = scratch.read(format!("{target}/{source}"));
            assert!(copy == scratch.read(source), "{target}/{source}");
        }
    }
    // What was there is kept where it was there.
    assert_eq!(scratch.read("a/small~"), b"old");
    assert!(!scratch.exists("b/small~") && scratch.exists("b/middle~"));
    // Written in place, longer and shorter.
    scratch.write("a/small", bytes(9000, 3));
    scratch.write("b/small", "");
    scratch.ucp(words(&["--in-place"], &targets, &sources)).succeeds_silently();
    for target in ["a", "b"] {
        assert_eq!(scratch.read(format!("{target}/small")), scratch.read("small"));
        assert!(scratch.read(format!("{target}/large")) == scratch.read("large"));
    }
    // One has it already: the other gets it.
    fs::remove_file(scratch.path("b/large")).unwrap();
    scratch.ucp(words(&["-n"], &targets, &["large"])).exits(0);
    assert!(scratch.read("b/large") == scratch.read("large"));
}

#[test]
fn a_target_that_is_full_keeps_no_other_from_its_copy() {
    require_root!();
    for kind in ["tmpfs", "ext4"] {
        on_file_system(kind, 16 * MIB as u64, |full| {
            let scratch = Scratch::new();
            scratch.make_directory("tree");
            scratch.make_directory("room");
            scratch.write("tree/large", bytes(40 * MIB, 1));
            scratch.write("tree/middle", bytes(15 * MIB, 2));
            scratch.write("tree/small", "small");
            let (room, full_path) = (scratch.path("room"), full.path(""));
            for engine in ENGINES {
                for direct in ["--direct=on", "--direct=off"] {
                    for targets in [[&*full_path, &*room], [&*room, &*full_path]] {
                        let options = [engine, direct, "--reflink=never"];
                        let ran = scratch.ucp(words(&options, &targets, &["tree"]));
                        ran.exits(8).says(&[
                            "tree/large",
                            full_path.to_str().unwrap(),
                            "No space left on device",
                        ]);
                        is_same(&scratch.path("tree"), &room.join("tree"));
                        assert!(!full.exists("tree/large"), "{kind}");
                        assert_eq!(leftovers(&full_path), Vec::<PathBuf>::new(), "{kind}");
                        let _ = fs::remove_dir_all(full.path("tree"));
                        fs::remove_dir_all(scratch.path("room/tree")).unwrap();
                    }
                }
            }
        });
    }
}

#[test]
fn a_target_that_can_not_be_written_keeps_no_other_from_its_copy() {
    require_root!();
    let scratch = Scratch::new();
    make_odd_tree(&scratch, "tree", &[0, 1, 300 * KIB, 17 * MIB]);
    scratch.make_directory("open");
    scratch.make_directory("closed");
    let targets = ["open", "closed"].map(Path::new);
    in_mount_namespace(|| {
        let closed = scratch.path("closed");
        let bind = |flags| mount(Some(&closed), &closed, None::<&str>, flags, None::<&str>);
        bind(MsFlags::MS_BIND).unwrap();
        bind(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY).unwrap();
        let ran = scratch.ucp(words(&["-a"], &targets, &["tree"]));
        ran.exits(8).says_lines(1).says(&["closed/tree", "Read-only file system"]);
    });
    is_same(&scratch.path("tree"), &scratch.path("open/tree"));
    // A directory stands where a file goes, and a file where a directory does.
    scratch.make_directory("closed/tree/of 1 bytes");
    scratch.write("closed/tree/deep", "a file");
    fs::remove_dir_all(scratch.path("open/tree")).unwrap();
    let ran = scratch.ucp(words(&["-a"], &targets, &["tree"]));
    ran.exits(1).says_lines(2);
    ran.says(&["closed/tree/of 1 bytes", "cannot overwrite a directory with a file"]);
    ran.says(&["closed/tree/deep", "cannot overwrite non-directory with directory"]);
    is_same(&scratch.path("tree"), &scratch.path("open/tree"));
    let size = 17 * MIB;
    assert!(scratch.read(format!("closed/tree/of {size} bytes")) == bytes(size, 4));
    assert_eq!(scratch.read("closed/tree/deep"), b"a file");
}

#[test]
fn a_source_that_can_not_be_had_is_told_of_once_and_counted_for_each() {
    require_root!();
    let scratch = Scratch::public();
    make(&scratch, &["tree/closed", "tree/open", "to/a", "to/b", "to/c"]);
    for name in ["tree/a", "tree/secret", "tree/open/secret", "tree/z"] {
        scratch.write(name, name);
    }
    for name in ["tree/secret", "tree/open/secret"] {
        scratch.set_mode(name, 0o600);
    }
    scratch.set_mode("tree/closed", 0o700);
    scratch.write("list", "a\ngone\nopen/lost\n");
    let targets = ["to/a", "to/b", "to/c"];
    targets.iter().for_each(|target| scratch.set_mode(target, 0o777));
    let targets = targets.map(Path::new);
    let denied = "Permission denied (os error 13)";
    for engine in ENGINES {
        let words = |options: &[&str], sources: &[&str]| {
            words(&[&[engine][..], options].concat(), &targets, sources)
        };
        let ran = scratch.ucp_as_nobody(words(&[], &["tree", "missing"]));
        ran.exits(1).says_lines(4);
        for name in ["tree/secret", "tree/open/secret", "tree/closed"] {
            ran.says(&[&format!(" failed on {name}: {denied}")]);
        }
        ran.says(&[" failed on missing: No such file or directory"]);
        let ran = scratch.ucp_as_nobody(words(&["--files-from=list"], &["tree"]));
        ran.exits(1).says_lines(2);
        ran.says(&["tree/gone: No such file"]).says(&["tree/open/lost: No such file"]);
        let ran = scratch.ucp_as_nobody(words(&["--json"], &["tree/secret", "tree/a"]));
        let lines: Vec<_> = ran.exits(1).stdout().lines().map(json::check_line).collect();
        let failed = lines.iter().filter(|line| line["event"] == "failed");
        assert_eq!(failed.count(), 1, "{ran:?}");
        assert_eq!(lines.last().unwrap()["failed"], 3, "of each target");
        for target in targets {
            let copied = |name: &str| scratch.read(target.join("tree").join(name));
            assert_eq!((copied("a"), copied("z")), (b"tree/a".to_vec(), b"tree/z".to_vec()));
        }
        let remove = |name: &str| {
            let names = targets.map(|target| scratch.path(target.join(name)));
            run(Command::new("rm").arg("-rf").args(names)).exits(0);
        };
        remove("a");
        // What a target fails with is its own.
        scratch.make_directory("to/a/a");
        scratch.make_directory("to/b/a");
        let ran = scratch.ucp_as_nobody(words(&[], &["tree/a"]));
        ran.exits(1).says_lines(2).says(&["to/a/a"]).says(&["to/b/a"]);
        remove("a");
        remove("tree");
    }
}

#[test]
fn what_can_be_read_only_once_comes_to_each() {
    let scratch = Scratch::new();
    for engine in ENGINES {
        for (number, size) in [0, 1, 70_000, 3 * MIB].into_iter().enumerate() {
            make(&scratch, &["a", "b", "c"]);
            let content = bytes(size, number as u64);
            let mut command = Command::new(UCP);
            command.args([engine, "-t", "a", "-t", "b", "--target-directory=c", "/dev/stdin"]);
            command.current_dir(scratch.path("")).stdin(Stdio::piped());
            let mut copy = command.spawn().unwrap();
            copy.stdin.take().unwrap().write_all(&content).unwrap();
            assert!(copy.wait().unwrap().success());
            for target in ["a", "b", "c"] {
                assert!(scratch.read(format!("{target}/stdin")) == content, "{size} in {target}");
                fs::remove_dir_all(scratch.path(target)).unwrap();
            }
        }
    }
}

#[test]
fn a_fifo_is_opened_once_for_all() {
    let scratch = Scratch::new();
    make(&scratch, &["a", "b", "tree"]);
    for (operand, name, options) in
        [("fifo", "fifo", &[][..]), ("tree", "tree/fifo", &["--copy-contents", "-R"])]
    {
        let fifo = scratch.path(name);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let targets = ["a", "b"].map(Path::new);
        let mut command = Command::new(UCP);
        command.args(words(options, &targets, &[operand])).current_dir(scratch.path(""));
        let mut copy = Background::start(&mut command);
        // The writer is gone before the second target could open it by itself.
        File::options().write(true).open(&fifo).unwrap().write_all(b"once").unwrap();
        until("no target waits for a writer", || copy.has_ended());
        copy.end().succeeds_silently();
        for target in ["a", "b"] {
            assert_eq!(scratch.read(format!("{target}/{name}")), b"once");
        }
    }
}

#[test]
fn what_can_not_be_had_with_several_targets_is_refused() {
    let scratch = Scratch::new();
    scratch.write("file", "file");
    make(&scratch, &["a", "b", "a/inner", "tree/inner"]);
    scratch.link("a", "same");
    let cases: [(&[&str], i32, &str); 9] = [
        (&["-t", "a", "-t", "./a", "file"], 1, "the same directory as the target"),
        (&["-t", "b", "-t", "same", "-t", "a", "file"], 1, "the same directory as the target"),
        (&["-t", "a", "-t", "a/inner", "file"], 1, "it is inside of the target a"),
        (&["-t", "a", "-t", "missing", "file"], 1, "missing"),
        (&["-t", "a", "-t", "file", "file"], 1, "it is not a directory"),
        (&["-t", "a", "-t", "b", "-T", "file"], 2, "cannot combine"),
        (&["-t", "a", "-t", "b", "--remove-source-files", "file"], 2, "a source may go only"),
        (&["-t", "a", "-t", "b", "--delete", "tree"], 2, "what several targets lose"),
        (&["-t", "a", "-t", "b", "--manifest=list", "file"], 2, "is of one target"),
    ];
    for (words, status, says) in cases {
        scratch.ucp(words).exits(status).says(&[says]);
        assert!(!scratch.exists("a/file") && !scratch.exists("b/file"), "{words:?}");
    }
    let many: Vec<String> = (0..17).map(|number| format!("-t{number}")).collect();
    scratch.ucp(many.iter().map(String::as_str).chain(["file"])).exits(2).says(&["more targets"]);
    // Inside of the source: the other target gets it.
    let ran = scratch.ucp(["-t", "a", "-t", "tree/inner", "tree"]);
    ran.exits(1).says(&["cannot copy a directory into itself"]);
    assert!(scratch.exists("a/tree/inner"));
}

#[test]
fn each_target_is_verified_and_told_of_by_itself() {
    let scratch = Scratch::new();
    for (name, size) in [("small", 10), ("large", 17 * MIB)] {
        scratch.write(name, bytes(size, 1));
    }
    make(&scratch, &["a", "b"]);
    for engine in ENGINES {
        let options = ["--json", "--verify", "--durable", "--digest=crc32c", engine];
        let targets = ["a", "b"].map(Path::new);
        let ran = scratch.ucp(words(&options, &targets, &["small", "large"]));
        ran.exits(0);
        let lines: Vec<&str> = ran.stdout().lines().collect();
        for target in ["a/small", "b/small", "a/large", "b/large"] {
            let is_of = |line: &&&str| {
                line.contains("\"event\":\"copied\"")
                    && line.contains(&format!("\"target\":\"{target}\""))
                    && line.contains("\"verified\":\"")
            };
            assert_eq!(lines.iter().filter(is_of).count(), 1, "{target} in {ran:?}");
        }
        assert!(lines.last().unwrap().contains("\"files\":4"), "{ran:?}");
    }
}

#[test]
fn listed_names_and_whole_paths_come_to_each() {
    let scratch = Scratch::new();
    for name in ["one", "two", "deep/three"] {
        scratch.make_directory("tree/deep");
        scratch.write(format!("tree/{name}"), name);
    }
    make(&scratch, &["a", "b"]);
    scratch.write("list", "one\ndeep/three\n");
    let targets = ["a", "b"].map(Path::new);
    scratch.ucp(words(&["--files-from=list"], &targets, &["tree"])).succeeds_silently();
    scratch.ucp(words(&["--parents"], &targets, &["tree/two"])).succeeds_silently();
    for target in ["a", "b"] {
        is_same(&scratch.path("tree/deep"), &scratch.path(format!("{target}/tree/deep")));
        assert_eq!(scratch.read(format!("{target}/tree/two")), b"two");
    }
}

#[test]
fn a_copy_to_two_targets_that_is_killed_leaves_each_name_whole_or_absent() {
    let scratch = Scratch::new();
    scratch.make_directory("tree/below");
    for (number, size) in [0, 1, 5000, 300 * KIB, 17 * MIB, 70_000].into_iter().enumerate() {
        let below = ["", "below/"][number % 2];
        scratch.write(format!("tree/{below}{number}"), bytes(size, number as u64));
    }
    let want = listing(&scratch.path("tree"));
    let targets = ["a", "b"].map(Path::new);
    let prepare = || {
        for target in ["a", "b"] {
            let _ = fs::remove_dir_all(scratch.path(target));
            scratch.make_directory(target);
        }
        scratch.make_directory("b/tree");
    };
    let copy = |engine| {
        let mut command = Command::new(UCP);
        command.args(words(&["--reflink=never", engine], &targets, &["tree"]));
        command.current_dir(scratch.path(""));
        command
    };
    prepare();
    let started = Instant::now();
    Background::start(&mut copy(ENGINES[0])).end().exits(0);
    let whole = started.elapsed();
    for round in 0..30_u32 {
        prepare();
        let engine = ENGINES[round as usize % 2];
        let running = Background::start(&mut copy(engine));
        thread::sleep(Duration::from_micros(200) + whole.mul_f64(f64::from(round) / 30.0));
        if round % 3 == 0 {
            running.signal(Signal::SIGINT);
            running.end();
        } else {
            drop(running);
        }
        for target in ["a/tree", "b/tree"].map(|target| scratch.path(target)) {
            let got = if target.exists() { listing(&target) } else { listing(&scratch.path("a")) };
            for (name, entry) in got {
                let is_hidden = name.to_string_lossy().contains(".ucp-");
                if let (false, Entry::File { .. }) = (is_hidden, &entry) {
                    assert_eq!(Some(&entry), want.get(&name), "round {round}: {name:?}");
                }
            }
        }
        Background::start(&mut copy(engine)).end().exits(0);
        for target in ["a", "b"].map(|target| scratch.path(target)) {
            let copy = target.join("tree");
            let timeless = |root: &Path| {
                let entries = listing(root).into_iter();
                entries.map(|(name, entry)| (name, entry.without_times())).collect::<Vec<_>>()
            };
            assert_eq!(timeless(&copy), timeless(&scratch.path("tree")), "round {round}");
            assert_eq!(leftovers(&target), Vec::<PathBuf>::new(), "round {round}");
        }
    }
}
