//! How a file gets its name: the old one stays whole until the new one is.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::SystemTime;

use super::support::{Background, Scratch, UCP, bytes, in_mount_namespace, leftovers, run, until};

fn inode(scratch: &Scratch, name: &str) -> u64 {
    scratch.path(name).symlink_metadata().unwrap().ino()
}

#[test]
fn an_existing_target_is_replaced_by_a_new_inode() {
    for size in [0, 5, 3 << 20] {
        let scratch = Scratch::new();
        scratch.write("a", bytes(size, 1));
        scratch.write("b", "old");
        fs::hard_link(scratch.path("b"), scratch.path("other name of b")).unwrap();
        let before = inode(&scratch, "b");
        scratch.ucp(["a", "b"]).succeeds_silently();
        assert_ne!(inode(&scratch, "b"), before);
        assert!(scratch.read("b") == bytes(size, 1));
        assert_eq!(scratch.read("other name of b"), b"old");
        assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
    }
}

#[test]
fn in_place_keeps_the_inode_and_is_said() {
    let scratch = Scratch::new();
    scratch.write("a", "new");
    scratch.write("b", "old and longer");
    let before = inode(&scratch, "b");
    let ran = scratch.ucp(["-v", "--in-place", "a", "b"]);
    ran.exits(0).says(&["b", "in place"]);
    assert_eq!(ran.stdout(), "'a' -> 'b'\n");
    assert_eq!(inode(&scratch, "b"), before);
    assert_eq!(scratch.read("b"), b"new");
}

#[test]
fn a_pipe_gets_each_byte_once_even_if_the_source_is_changed() {
    let scratch = Scratch::new();
    let content = bytes(3 << 20, 1);
    scratch.write("a", &content);
    let mut command = Command::new(UCP);
    let copy = Background::start(command.args(["a", "/dev/stdout"]).current_dir(scratch.path("")));
    // The pipe is full by then, and nobody has read from it.
    until("it copies", || copy.has_open(&scratch.path("a").canonicalize().unwrap()));
    File::open(scratch.path("a")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let ran = copy.end();
    ran.exits(9).says_lines(1).says(&[" failed on a: ", "changed while it was copied"]);
    assert!(ran.stdout == content, "{} bytes came out", ran.stdout.len());
}

#[test]
fn in_a_directory_that_may_not_be_read_it_is_durable_too() {
    require_root!();
    let scratch = Scratch::public();
    scratch.write("a", "a");
    scratch.make_directory("tree");
    scratch.write("tree/x", "x");
    scratch.make_directory("to");
    scratch.set_mode("to", 0o333);
    scratch.ucp_as_nobody(["--durable", "a", "to/a"]).succeeds_silently();
    scratch.ucp_as_nobody(["--durable", "tree", "to/tree"]).succeeds_silently();
    scratch.ucp_as_nobody(["--durable", "--stage=never", "tree", "to/open"]).succeeds_silently();
    assert_eq!(scratch.read("to/a"), b"a");
    assert_eq!(scratch.read("to/tree/x"), b"x");
    assert_eq!(scratch.read("to/open/x"), b"x");
}

#[test]
fn called_as_cp_it_writes_in_place() {
    let scratch = Scratch::new();
    scratch.write("a", "new");
    scratch.write("b", "old");
    let before = inode(&scratch, "b");
    let mut command = Command::new(UCP);
    run(command.arg0("/bin/cp").args(["a", "b"]).current_dir(scratch.path(""))).succeeds_silently();
    assert_eq!(inode(&scratch, "b"), before);
    assert_eq!(scratch.read("b"), b"new");
}

#[test]
fn behind_a_link_the_final_file_is_replaced_and_the_link_stays() {
    let scratch = Scratch::new();
    scratch.make_directory("d");
    scratch.write("a", "new");
    scratch.write("d/b", "old");
    scratch.link("d/second", "first");
    scratch.link("b", "d/second");
    let before = inode(&scratch, "d/b");
    scratch.ucp(["a", "first"]).succeeds_silently();
    assert_eq!(fs::read_link(scratch.path("first")).unwrap().as_os_str(), "d/second");
    assert_eq!(fs::read_link(scratch.path("d/second")).unwrap().as_os_str(), "b");
    assert_eq!(scratch.read("d/b"), b"new");
    assert_ne!(inode(&scratch, "d/b"), before);
    for directory in ["", "d"] {
        assert_eq!(leftovers(&scratch.path(directory)), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_dangling_link_is_refused() {
    let scratch = Scratch::new();
    scratch.write("a", "new");
    scratch.link("nowhere", "b");
    scratch.ucp(["a", "b"]).exits(1).says(&["b", "dangling"]).says_lines(1);
    assert!(!scratch.exists("nowhere"));
}

#[test]
fn standard_output_and_devices_are_written_in_place() {
    let scratch = Scratch::new();
    let content = bytes(300_000, 1);
    scratch.write("a", &content);
    assert!(scratch.ucp(["a", "/dev/stdout"]).exits(0).stdout == content, "to a pipe");
    let file = File::create(scratch.path("out")).unwrap();
    let mut command = Command::new(UCP);
    command.args(["a", "/dev/stdout"]).current_dir(scratch.path("")).stdout(file);
    run(&mut command).exits(0);
    assert!(scratch.read("out") == content, "to a file");
    assert!(scratch.ucp(["a", "/proc/self/fd/1"]).exits(0).stdout == content, "by number");

    scratch.ucp(["-v", "a", "/dev/null"]).exits(0).says(&["/dev/null", "in place"]);
    assert!(!fs::symlink_metadata("/dev/null").unwrap().is_file());
    scratch.ucp(["a", "/dev/full"]).exits(8).says(&["/dev/full", "No space left"]);
}

#[test]
fn a_fifo_is_written_in_place() {
    let scratch = Scratch::new();
    let content = bytes(300_000, 1);
    scratch.write("a", &content);
    run(Command::new("mkfifo").arg(scratch.path("fifo"))).exits(0);
    thread::scope(|scope| {
        let reader = scope.spawn(|| scratch.read("fifo"));
        scratch.ucp(["-v", "a", "fifo"]).exits(0).says(&["fifo", "in place"]);
        assert!(reader.join().unwrap() == content);
    });
}

#[test]
fn a_mount_point_is_written_in_place() {
    require_root!();
    let scratch = Scratch::new();
    scratch.write("a", "new");
    scratch.write("mounted", "old");
    scratch.write("target", "below the mount");
    in_mount_namespace(|| {
        let mut mount = Command::new("mount");
        mount.args([OsStr::new("--bind"), scratch.path("mounted").as_os_str()]);
        run(mount.arg(scratch.path("target"))).exits(0);
        scratch.ucp(["-v", "a", "target"]).exits(0).says(&["target", "in place"]);
        assert_eq!(scratch.read("target"), b"new");
    });
    assert_eq!(scratch.read("mounted"), b"new");
    assert_eq!(scratch.read("target"), b"below the mount");
    assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new());
}

#[test]
fn where_no_name_can_be_made_the_old_file_is_written_in_place() {
    require_root!();
    // The sticky directory belongs to root, and so does the file: nobody may write but not rename.
    for (name, mode) in [("read-only", 0o755), ("sticky", 0o1777)] {
        let scratch = Scratch::public();
        scratch.make_directory("d");
        scratch.write("a", "new");
        scratch.write("d/b", "old");
        scratch.set_mode("d/b", 0o666);
        scratch.set_mode("d", mode);
        scratch.ucp_as_nobody(["-v", "a", "d/b"]).exits(0).says(&["d/b", "in place"]);
        assert_eq!(scratch.read("d/b"), b"new", "{name}");
        assert_eq!(leftovers(&scratch.path("")), Vec::<PathBuf>::new(), "{name}");
    }
}

#[test]
fn a_new_directory_inherits_from_its_parent() {
    require_root!();
    let scratch = Scratch::new();
    scratch.make_directory("tree/below");
    scratch.write("tree/below/file", "content");
    scratch.make_directory("parent");
    std::os::unix::fs::chown(scratch.path("parent"), None, Some(4242)).unwrap();
    scratch.set_mode("parent", 0o2775);
    scratch.ucp(["tree", "parent/copy"]).succeeds_silently();
    let group = |name: &str| scratch.path(name).symlink_metadata().unwrap().gid();
    for name in ["parent/copy", "parent/copy/below", "parent/copy/below/file"] {
        assert_eq!(group(name), 4242, "{name}");
    }
}

#[test]
fn staged_and_not_staged_directories_are_the_same() {
    let scratch = Scratch::new();
    super::support::make_odd_tree(&scratch, "tree", &[0, 1, 5000]);
    scratch.ucp(["--stage=auto", "tree", "staged"]).succeeds_silently();
    scratch.ucp(["--stage=never", "tree", "not staged"]).succeeds_silently();
    let list = |name: &str| super::support::listing(&scratch.path(name));
    assert_eq!(list("staged"), list("tree"));
    assert_eq!(list("not staged"), list("tree"));
}

#[test]
fn durable_copies_are_copies() {
    let scratch = Scratch::new();
    super::support::make_odd_tree(&scratch, "tree", &[0, 1, 5000, 3 << 20]);
    for how in ["--durable", "--durable=full", "--durable=data", "--durable=none"] {
        scratch.ucp([how, "tree", how.trim_start_matches('-')]).succeeds_silently();
        let list = |name: &str| super::support::listing(&scratch.path(name));
        assert_eq!(list(how.trim_start_matches('-')), list("tree"), "{how}");
    }
}

#[test]
fn a_planted_temporary_name_is_not_written_through() {
    let scratch = Scratch::new();
    scratch.write("a", bytes(3 << 20, 1));
    scratch.write("precious", "precious");
    // Learns the names that are used from what a kill leaves, and plants links there.
    let mut killed = Command::new(UCP);
    killed.args(["--engine=threads", "--depth=1", "--block-size=4K", "--direct=off", "a", "b"]);
    killed.args(["--reflink=never"]).current_dir(scratch.path(""));
    let mut child = killed.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    super::support::until("there is a temporary", || {
        !leftovers(&scratch.path("")).is_empty() || child.try_wait().unwrap().is_some()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    for name in leftovers(&scratch.path("")) {
        fs::remove_file(scratch.path(&name)).unwrap();
        scratch.link("precious", name);
    }
    scratch.ucp(["a", "b"]).exits(0);
    assert_eq!(scratch.read("precious"), b"precious");
    assert!(scratch.read("b") == bytes(3 << 20, 1));
    assert!(scratch.path("b").symlink_metadata().unwrap().is_file());
}

#[test]
fn permissions_never_widen_on_the_way() {
    // What stands under a temporary name can be read by nobody else, even if the source is open.
    let scratch = Scratch::new();
    scratch.write("a", bytes(64 << 20, 1));
    fs::set_permissions(scratch.path("a"), Permissions::from_mode(0o666)).unwrap();
    let mut command = Command::new(UCP);
    command.args(["--depth=1", "--block-size=4K", "--direct=off", "--reflink=never", "a", "b"]);
    command.args(["--engine=threads"]).current_dir(scratch.path(""));
    let mut child = command.spawn().unwrap();
    let mut modes = Vec::new();
    while child.try_wait().unwrap().is_none() {
        for name in fs::read_dir(scratch.path("")).unwrap().flatten() {
            let Ok(metadata) = name.metadata() else { continue };
            if name.file_name().as_encoded_bytes().starts_with(b".ucp") && metadata.is_file() {
                modes.push(metadata.mode() & 0o777);
            }
        }
    }
    // The last look may fall between the final mode and the final name.
    let is_open = |mode: &u32| *mode != 0o600;
    let opened = modes.iter().position(is_open).unwrap_or(modes.len());
    assert!(opened * 2 >= modes.len(), "open from look {opened} of {}", modes.len());
    assert_eq!(scratch.path("b").symlink_metadata().unwrap().mode() & 0o777, 0o666);
}
