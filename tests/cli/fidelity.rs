//! A copy is the same as its source: bytes, names, modes, times.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Command, Stdio};

use super::support::{
    Entry, Scratch, UCP, bytes, leftovers, listing, make_odd_tree, on_file_system, run, set_times,
};

const MIB: usize = 1 << 20;
const SIZES: [usize; 13] =
    [0, 1, 2, 511, 512, 513, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 64 * MIB + 7];

#[test]
fn a_tree_of_odd_names_and_sizes_is_the_same() {
    let scratch = Scratch::new();
    make_odd_tree(&scratch, "tree", &SIZES);
    scratch.ucp(["tree", "copy"]).succeeds_silently();
    let (want, got) = (listing(&scratch.path("tree")), listing(&scratch.path("copy")));
    for (name, want) in &want {
        assert_eq!(got.get(name), Some(want), "{name:?}");
    }
    assert_eq!(got.len(), want.len());
    // Once more, over what is there now.
    scratch.ucp(["-T", "tree", "copy"]).succeeds_silently();
    let got = listing(&scratch.path("copy"));
    for (name, want) in &want {
        match got.get(name) {
            // A directory that was there is entered; what is made in it changes its time.
            Some(got @ Entry::Directory { .. }) => {
                assert_eq!(got.clone().without_times(), want.clone().without_times(), "{name:?}");
            }
            got => assert_eq!(got, Some(want), "{name:?}"),
        }
    }
    assert_eq!(leftovers(&scratch.path("")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn both_times_are_kept_to_the_nanosecond() {
    let scratch = Scratch::new();
    scratch.make_directory("directory");
    scratch.write("file", "content");
    scratch.write("large", bytes(3 * MIB, 1));
    scratch.link("file", "link");
    let cases = [
        ("file", 1_700_000_000_123_456_789, 1_600_000_000_987_654_321),
        ("file", 1, 2),
        ("file", -1_000_000_001, -999_999_999),
        ("file", 4_000_000_000_000_000_001, 4_100_000_000_000_000_001),
        ("large", 1_700_000_000_000_000_001, 1_600_000_000_999_999_999),
        ("directory", 1_700_000_000_000_000_003, 1_600_000_000_000_000_004),
        ("link", 1_700_000_000_000_000_005, 1_600_000_000_000_000_006),
    ];
    for (number, (name, accessed, modified)) in cases.into_iter().enumerate() {
        set_times(&scratch.path(name), accessed, modified);
        let target = format!("{name} {number}");
        scratch.ucp(["-P", name, &target]).succeeds_silently();
        let copy = scratch.path(&target).symlink_metadata().unwrap();
        let nanoseconds = |seconds: i64, more: i64| seconds * 1_000_000_000 + more;
        assert_eq!(nanoseconds(copy.mtime(), copy.mtime_nsec()), modified, "{name}");
        assert_eq!(nanoseconds(copy.atime(), copy.atime_nsec()), accessed, "{name}");
    }
}

#[test]
fn modes_are_kept_whatever_the_umask() {
    for umask in ["000", "022", "077", "777"] {
        let scratch = Scratch::new();
        scratch.make_directory("tree");
        for mode in [0o000, 0o200, 0o444, 0o600, 0o640, 0o644, 0o755, 0o777] {
            scratch.write(format!("tree/{mode:o}"), "");
            scratch.set_mode(format!("tree/{mode:o}"), mode);
            scratch.make_directory(format!("tree/directory {mode:o}"));
            scratch.set_mode(format!("tree/directory {mode:o}"), mode);
        }
        scratch.set_mode("tree", 0o750);
        let script = format!("umask {umask}; exec '{UCP}' tree copy");
        let mut command = Command::new("sh");
        run(command.args(["-c", &script]).current_dir(scratch.path(""))).exits(0);
        assert_eq!(listing(&scratch.path("copy")), listing(&scratch.path("tree")), "{umask}");
    }
}

#[test]
fn set_id_bits_are_kept_only_where_the_owner_is() {
    require_root!();
    let scratch = Scratch::public();
    scratch.make_directory("from");
    scratch.make_directory("to");
    scratch.set_mode("to", 0o777);
    for (name, owner) in [("root's", 0), ("nobody's", 65534)] {
        scratch.write(format!("from/{name}"), "content");
        chown(scratch.path(format!("from/{name}")), Some(owner), Some(owner)).unwrap();
        scratch.set_mode(format!("from/{name}"), 0o6755);
    }
    scratch.ucp(["from", "to/by root"]).exits(0);
    scratch.ucp_as_nobody(["from", "to/by nobody"]).exits(0);
    for by in ["by root", "by nobody"] {
        for name in ["root's", "nobody's"] {
            let source = fs::metadata(scratch.path(format!("from/{name}"))).unwrap();
            let target = fs::metadata(scratch.path(format!("to/{by}/{name}"))).unwrap();
            let is_owner_kept = (source.uid(), source.gid()) == (target.uid(), target.gid());
            let want = if is_owner_kept { 0o6755 } else { 0o755 };
            assert_eq!(target.mode() & 0o7777, want, "{name} {by}");
        }
    }
}

#[test]
fn a_file_that_is_nearly_all_hole_is_the_same() {
    let scratch = Scratch::new();
    let file = fs::File::create(scratch.path("holes")).unwrap();
    file.set_len(300 << 20).unwrap();
    use std::os::unix::fs::FileExt;
    for offset in [0, 5 << 20, (100 << 20) + 17, (300 << 20) - 3] {
        file.write_all_at(b"abc", offset).unwrap();
    }
    scratch.ucp(["holes", "copy"]).succeeds_silently();
    run(Command::new("cmp").arg(scratch.path("holes")).arg(scratch.path("copy"))).exits(0);
}

#[test]
fn standard_input_is_copied_as_a_stream() {
    let scratch = Scratch::new();
    let content = bytes(3 * MIB + 5, 1);
    scratch.write("content", &content);
    let script =
        format!("cat content | '{UCP}' /dev/stdin piped; '{UCP}' /dev/stdin file <content");
    let mut command = Command::new("sh");
    run(command.args(["-c", &script]).current_dir(scratch.path(""))).exits(0);
    assert!(scratch.read("piped") == content);
    assert!(scratch.read("file") == content);
}

#[test]
fn files_that_tell_no_size_are_copied_to_their_end() {
    let scratch = Scratch::new();
    scratch.ucp(["/proc/version", "version"]).succeeds_silently();
    assert_eq!(scratch.read("version"), fs::read("/proc/version").unwrap());
    let mut command = Command::new("bash");
    let script = format!("exec '{UCP}' <(printf hello) out");
    run(command.args(["-c", &script]).current_dir(scratch.path("")).stderr(Stdio::piped()))
        .exits(0);
    assert_eq!(scratch.read("out"), b"hello");
}

#[test]
fn a_flat_directory_of_many_files_is_the_same() {
    let scratch = Scratch::new();
    scratch.make_directory("flat");
    for number in 0..5000 {
        scratch.write(format!("flat/{number}"), format!("{number}"));
    }
    scratch.ucp(["flat", "copy"]).succeeds_silently();
    assert_eq!(listing(&scratch.path("flat")), listing(&scratch.path("copy")));
}

#[test]
fn a_deep_tree_is_the_same() {
    let scratch = Scratch::new();
    // Deeper than PATH_MAX allows to name from its top.
    let script = "mkdir deep && cd deep && for i in $(seq 150); do \
                  n=$(printf '%0100d' $i); mkdir $n && cd $n && echo $i >file || exit; done";
    run(Command::new("bash").args(["-c", script]).current_dir(scratch.path(""))).exits(0);
    scratch.ucp(["deep", "copy"]).succeeds_silently();
    let mut diff = Command::new("bash");
    let script = "compare() { for i in $(seq 150); do cd $(printf '%0100d' $i) && cat file \
                  || exit; done; }; diff <(cd deep && compare) <(cd copy && compare)";
    run(diff.args(["-c", script]).current_dir(scratch.path(""))).exits(0);
}

#[test]
fn sources_on_another_file_system_are_the_same() {
    require_root!();
    on_file_system("tmpfs", 64 << 20, |mounted| {
        let scratch = Scratch::new();
        make_odd_tree(mounted, "tree", &[0, 1, 513, 4097, 3 * MIB + 1]);
        scratch.ucp([mounted.path("tree"), "copy".into()]).succeeds_silently();
        assert_eq!(listing(&mounted.path("tree")), listing(&scratch.path("copy")));
    });
}

#[test]
fn an_attribute_of_the_kernel_is_read_to_its_end() {
    // It is said to be 4096 bytes long.
    let source = "/sys/kernel/mm/transparent_hugepage/enabled";
    let content = fs::read(source).unwrap();
    let scratch = Scratch::new();
    scratch.ucp([source, "a"]).succeeds_silently();
    assert_eq!(scratch.read("a"), content);
    assert_eq!(scratch.ucp([source, "/dev/stdout"]).exits(0).stdout, content);
}
