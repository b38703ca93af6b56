//! `ucp sum`: the digests of the tools that people have, their lines, and what goes wrong.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use ucp_engine::random::Random;

use super::json::check_line;
use super::support::{Background, Ran, Scratch, UCP, bytes, run, until};

const MIB: usize = 1 << 20;

/// Runs a command of the shell in a directory.
fn shell(scratch: &Scratch, script: &str) -> Ran {
    run(Command::new("bash").args(["-c", script]).current_dir(scratch.path("")))
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// 1,000 files in some directories, most of them small, with names of all kinds.
fn seeded_tree(scratch: &Scratch) {
    let mut random = Random::new(5);
    for number in 0..1000_u64 {
        let folder = format!("tree/{}/{}", random.below(5), random.below(3));
        scratch.make_directory(&folder);
        let size = match number {
            0..5 => number,
            5 => 17 << 20,
            6 => (16 << 20) + 1,
            7..10 => (1 << 20) - 8 + number,
            _ => random.below([10, 1000, 5000, 70_000, 300_000][(number % 5) as usize]),
        };
        let name = match number % 50 {
            0 => format!("two words {number}"),
            1 => format!("*{number}"),
            _ => format!("{number}"),
        };
        let content = bytes(usize::try_from(size).unwrap(), number);
        scratch.write(format!("{folder}/{name}"), content);
    }
}

#[test]
fn a_thousand_files_have_the_digests_that_other_tools_give_them() {
    let scratch = Scratch::new();
    seeded_tree(&scratch);
    let crc = "import sys, zlib\n\
               for name in sys.stdin.buffer.read().split(b'\\0')[:-1]:\n    \
               print('%08x  %s' % (zlib.crc32(open(name, 'rb').read()), name.decode()))";
    scratch.write("crc.py", crc);
    let find = "find tree -type f -print0";
    let judges = [
        ("sha256", format!("{find} | xargs -0 sha256sum")),
        ("sha512", format!("{find} | xargs -0 sha512sum")),
        ("md5", format!("{find} | xargs -0 md5sum")),
        ("blake3", format!("{find} | xargs -0 b3sum")),
        ("xxh3-128", format!("{find} | xargs -0 xxhsum -H2 2>/dev/null")),
        ("xxh3-64", format!("{find} | xargs -0 xxhsum -H3 --tag 2>/dev/null")),
        ("crc32", format!("{find} | python3 crc.py")),
    ];
    for (algorithm, judge) in judges {
        let want = shell(&scratch, &judge);
        let got = scratch.ucp(["sum", "-a", algorithm, "tree"]);
        got.exits(0).says_lines(0);
        assert_eq!(got.stdout().lines().count(), 1000, "{algorithm}");
        assert!(sorted(got.stdout()) == sorted(want.exits(0).stdout()), "{algorithm} differs");
        let again = scratch.ucp(["sum", "-a", algorithm, "--cache=bypass", "tree"]);
        assert!(again.exits(0).stdout() == got.stdout(), "{algorithm}: the order or a digest");
    }
    // The order is that of `LC_ALL=C sort`.
    let names = shell(&scratch, "find tree -type f | LC_ALL=C sort");
    let got = scratch.ucp(["sum", "-a", "crc32c", "tree"]);
    let got: Vec<&str> = got.stdout().lines().map(|line| &line[10..]).collect();
    assert!(got == names.stdout().lines().collect::<Vec<_>>(), "the order");
}

#[test]
fn lists_are_taken_by_the_tools_that_they_are_for() {
    let scratch = Scratch::new();
    for name in ["plain", "two words", "*star", "back\\slash", "new\nline", "paren) = "] {
        scratch.write(name, name);
    }
    let cases = [
        ("sha256", "sha256sum -c --strict"),
        ("sha512", "sha512sum -c --strict"),
        ("md5", "md5sum -c --strict"),
        ("blake3", "b3sum -c"),
    ];
    for (algorithm, tool) in cases {
        for form in [&["sum"][..], &["sum", "-b"], &["sum", "--tag"]] {
            if algorithm == "blake3" && form.len() > 1 {
                continue;
            }
            let mut words = form.to_vec();
            words.extend(["-a", algorithm, "."]);
            let list = scratch.ucp(&words);
            list.exits(0);
            let place = Scratch::new();
            place.write("list", &list.stdout);
            let list = place.path("list").display().to_string();
            shell(&scratch, &format!("{tool} {list}")).exits(0);
            let checked = scratch.ucp(["sum", "-c", &list]);
            checked.exits(0).says_lines(0);
            assert_eq!(checked.stdout().lines().count(), 6, "{checked:?}");
        }
    }
    // What xxhsum takes has no odd names.
    let place = Scratch::new();
    place.write("a", bytes(100_000, 1));
    for algorithm in ["xxh3-64", "xxh3-128"] {
        place.write("list", place.ucp(["sum", "-a", algorithm, "a"]).stdout);
        shell(&place, "xxhsum -c list").exits(0);
    }
}

#[test]
fn lists_of_other_tools_are_checked_whatever_their_form() {
    let scratch = Scratch::new();
    for (number, name) in (0..).zip(["a", "two words", "new\nline", "back\\slash"]) {
        scratch.write(name, bytes(1000 * number, 7));
    }
    let lists = [
        "sha256sum -b *",
        "sha256sum --tag *",
        "sha512sum *",
        "md5sum *",
        "b3sum *",
        "xxhsum -H2 a",
        "xxhsum -H3 a",
        "openssl dgst -sha256 a | sed 's/SHA2-256/SHA256/'",
        "md5sum a | sed 's/^[0-9a-f]*/\\U&/'",
        "md5sum a | sed 's/$/\\r/'",
        "(sha256sum a; b3sum a; md5sum 'two words'; cksum a | sed 's/.*/# &/')",
    ];
    for list in lists {
        let made = shell(&scratch, &format!("{list} 2>/dev/null | {UCP} sum -c --strict"));
        made.exits(0);
        assert!(made.stdout().lines().all(|line| line.ends_with(": OK")), "{list}: {made:?}");
        let told = shell(&scratch, &format!("{list} 2>/dev/null | {UCP} sum -c --quiet"));
        assert_eq!(told.exits(0).stdout(), "", "{list}");
    }
    shell(&scratch, &format!("sha256sum -z * | {UCP} sum -cz --strict")).exits(0);
    shell(&scratch, &format!("sha256sum * | {UCP} sum -c -a blake3 --status")).exits(6);
}

#[test]
fn what_differs_is_missing_or_unreadable_is_told_apart() {
    let scratch = Scratch::new();
    for name in ["good", "bad", "gone"] {
        scratch.write(name, name);
    }
    scratch.make_directory("directory");
    let list = scratch.ucp(["sum", "-a", "sha256", "good", "bad", "gone"]);
    let mut lines = list.stdout().to_owned();
    lines.push_str("no digest\n");
    let digest = &lines[..64].to_owned();
    lines.push_str(&format!("{digest}  directory\n"));
    scratch.write("list", &lines);
    scratch.write("bad", "worse");
    fs::remove_file(scratch.path("gone")).unwrap();

    let ran = scratch.ucp(["sum", "-c", "list"]);
    ran.exits(6);
    let want = "good: OK\nbad: FAILED\ngone: FAILED open or read\ndirectory: FAILED open or read\n";
    assert_eq!(ran.stdout(), want);
    ran.says(&["open failed on gone", "No such file"]).says(&["read failed on directory"]);
    ran.says(&["list: 1 line is improperly formatted"]);
    ran.says(&["list: 2 listed files could not be read"]);
    ran.says(&["list: 1 computed checksum did not match"]).says_lines(5);

    let ran = scratch.ucp(["sum", "-cw", "list"]);
    ran.exits(6).says(&["line 4 is not one of a list"]);
    let ran = scratch.ucp(["sum", "-c", "--quiet", "list"]);
    assert!(!ran.exits(6).stdout().contains("OK"));
    let ran = scratch.ucp(["sum", "-c", "--status", "list"]);
    assert_eq!(ran.exits(6).stdout(), "");

    // One after the other, what is wrong goes.
    let keep = |words: &[&str]| {
        let lines: String = lines
            .lines()
            .filter(|line| words.iter().any(|word| line.ends_with(word)))
            .map(|line| format!("{line}\n"))
            .collect();
        scratch.write("list", lines);
    };
    keep(&["good", "gone", "no digest"]);
    scratch.ucp(["sum", "-c", "list"]).exits(1);
    scratch.ucp(["sum", "-c", "--ignore-missing", "list"]).exits(0);
    scratch.ucp(["sum", "-c", "--ignore-missing", "--strict", "list"]).exits(1);
    keep(&["gone"]);
    let ran = scratch.ucp(["sum", "-c", "--ignore-missing", "list"]);
    ran.exits(1).says(&["no file was verified"]);
    keep(&["no digest"]);
    let ran = scratch.ucp(["sum", "-c", "list"]);
    ran.exits(1).says(&["no properly formatted checksum lines found"]);
    scratch.ucp(["sum", "-c", "nolist"]).exits(1).says(&["open failed on nolist"]);
}

#[test]
fn each_file_that_cannot_be_read_has_a_line_and_the_others_are_summed() {
    require_root!();
    let scratch = Scratch::public();
    scratch.make_directory("tree/closed");
    scratch.write("tree/secret", "x");
    scratch.write("tree/new\nline", "x");
    scratch.write("tree/plain", "x");
    run(Command::new("mkfifo").arg(scratch.path("tree/fifo"))).exits(0);
    scratch.link("plain", "tree/link");
    scratch.set_mode("tree/secret", 0o000);
    scratch.set_mode("tree/closed", 0o000);
    let ran = scratch.ucp_as_nobody(["sum", "-a", "md5", "tree", "nosuch", "/proc/version"]);
    ran.exits(1);
    let names: Vec<_> =
        ran.stdout().lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(names, ["tree/new\\nline", "tree/plain", "/proc/version"]);
    ran.says(&["open failed on tree/secret", "Permission denied"]);
    ran.says(&["open failed on tree/closed", "Permission denied"]);
    ran.says(&["skipped tree/fifo: it is a FIFO"]);
    ran.says(&["open failed on nosuch"]).says_lines(4);
    let version = fs::read("/proc/version").unwrap();
    let want = shell(&scratch, "md5sum < /proc/version");
    assert!(!version.is_empty() && ran.stdout().contains(&want.stdout()[..32]));
    scratch.set_mode("tree/closed", 0o700);
}

#[test]
fn streams_are_read_to_their_end() {
    let scratch = Scratch::new();
    scratch.write("file", bytes(3 * MIB + 17, 1));
    let want = shell(&scratch, "md5sum < file");
    let ways = [
        format!("{UCP} sum -a md5 < file"),
        format!("cat file | {UCP} sum -a md5 -"),
        format!("mkfifo fifo; cat file > fifo & {UCP} sum -a md5 fifo"),
        format!("{UCP} sum -a md5 <(cat file)"),
        format!("{UCP} sum -a md5 /dev/stdin < file"),
    ];
    for way in ways {
        let ran = shell(&scratch, &way);
        assert_eq!(ran.exits(0).stdout()[..32], want.stdout()[..32], "{way}");
    }
    // From where it stands.
    let ran = shell(
        &scratch,
        &format!("(dd bs=17 count=1 status=none of=/dev/null; {UCP} sum -a md5) < file"),
    );
    let want = shell(&scratch, "tail -c +18 file | md5sum");
    assert_eq!(ran.exits(0).stdout()[..32], want.stdout()[..32]);
}

#[test]
fn several_digests_come_from_one_pass_and_a_range_is_a_range() {
    let scratch = Scratch::new();
    for size in [0, 5, 300_000, 20 * MIB + 3] {
        scratch.write("file", bytes(size, 1));
        let ran = scratch.ucp(["sum", "-a", "sha256,blake3,md5", "file"]);
        let want = shell(&scratch, "sha256sum --tag file; b3sum file; md5sum --tag file");
        let (got, want): (Vec<_>, Vec<_>) =
            (ran.exits(0).stdout().lines().collect(), want.stdout().lines().collect());
        assert_eq!((got[0], got[2]), (want[0], want[2]));
        assert_eq!(got[1].rsplit(' ').next(), want[1].split(' ').next());
    }
    for (offset, length) in
        [("0", "1K"), ("5", "17MiB"), ("4096", "16MiB"), ("1", "0"), ("20MiB", "")]
    {
        let ran =
            scratch.ucp(["sum", "-a", "sha512", &format!("--range={offset}:{length}"), "file"]);
        let bytes = |size: &str| size.replace("MiB", "*1048576").replace('K', "*1024");
        let head = if length.is_empty() {
            "cat".to_owned()
        } else {
            format!("head -c $(({}))", bytes(length))
        };
        let script = format!("tail -c +$(({}+1)) file | {head} | sha512sum", bytes(offset));
        let want = shell(&scratch, &script);
        assert_eq!(ran.exits(0).stdout()[..128], want.stdout()[..128], "{offset}:{length}");
    }
    let ran = scratch.ucp(["sum", "--range=20MiB:4", "file"]);
    ran.exits(1).says(&["read failed on file", "ends before the range does"]);
}

#[test]
fn the_account_for_programs_keeps_to_its_schema() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    scratch.write("tree/a", "abc");
    scratch.write(OsStr::from_bytes(b"tree/\xff"), "");
    run(Command::new("mkfifo").arg(scratch.path("tree/fifo"))).exits(0);
    let lines = |ran: &Ran| -> Vec<Value> { ran.stdout().lines().map(check_line).collect() };
    let told = lines(scratch.ucp(["sum", "--json", "-a", "md5,crc32", "tree", "gone"]).exits(1));
    let events: Vec<_> = told.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["left-out", "summed", "summed", "failed", "sum-summary"]);
    assert_eq!(told[1]["digests"][1]["hex"], "352441c2");
    assert_eq!((&told[2]["path_base64"], &told[2]["bytes"]), (&"dHJlZS//".into(), &0.into()));
    assert_eq!((&told[4]["files"], &told[4]["exit_status"]), (&2.into(), &1.into()));

    scratch.write("list", "00000000  tree/a\n352441c2  tree/a\nno\n00000000  gone\n");
    let told = lines(scratch.ucp(["sum", "--json", "-c", "list"]).exits(6));
    let verdicts: Vec<_> = told.iter().filter_map(|line| line["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["differs", "same", "missing"]);
    let summary = told.last().unwrap();
    assert_eq!((&summary["malformed"], &summary["differing"]), (&1.into(), &1.into()));
}

/// How many bytes of a file are in the page cache.
fn resident(path: &Path) -> u64 {
    let ran = run(Command::new("fincore").args(["-bnro", "RES"]).arg(path));
    ran.exits(0).stdout().trim().parse().unwrap()
}

#[test]
fn reading_past_the_page_cache_leaves_it_as_it_was() {
    let scratch = Scratch::new();
    for size in [5000, 300_000, 40 * MIB] {
        scratch.write("file", bytes(size, 3));
        let path = scratch.path("file");
        shell(&scratch, "sync file; dd if=file iflag=nocache count=0 status=none").exits(0);
        let before = resident(&path);
        if before > 0 {
            // Nothing of it can be dropped here: a file system in memory.
            return;
        }
        let want = scratch.ucp(["sum", "--cache=bypass", "file"]);
        assert_eq!(resident(&path), 0, "{size}");
        shell(&scratch, "head -c 4096 file").exits(0);
        let in_part = resident(&path);
        let again = scratch.ucp(["sum", "--cache=bypass", "file"]);
        assert_eq!((resident(&path), again.stdout()), (in_part, want.stdout()), "{size}");
        scratch.ucp(["compare", "file", "file"]).succeeds_silently();
        assert_eq!(resident(&path), in_part, "{size}");
        let kept = scratch.ucp(["sum", "--cache=keep", "file"]);
        assert_eq!(kept.stdout(), want.stdout());
        assert!(resident(&path) >= size as u64, "{size}: {}", resident(&path));
    }
}

#[test]
fn a_sum_that_is_interrupted_says_so() {
    let scratch = Scratch::new();
    scratch.write("file", bytes(MIB, 3));
    for words in [&["sum", "file"][..], &["compare", "file", "other"]] {
        scratch.write("other", bytes(MIB, 3));
        let mut command = Command::new(UCP);
        command.args(words).args(["--limit-rate=100K"]).current_dir(scratch.path(""));
        let ran = Background::start(&mut command);
        until("it has begun", || ran.has_open(&scratch.path("file")));
        ran.signal(Signal::SIGINT);
        ran.end().exits(130).says(&["SIGINT"]).says_lines(1);
    }
}

#[test]
fn a_full_standard_output_is_a_failure() {
    let scratch = Scratch::new();
    scratch.write("file", "x");
    let ran = shell(&scratch, &format!("{UCP} sum file > /dev/full"));
    ran.exits(1).says(&["write failed on standard output"]);
}

#[test]
fn wrong_usage_is_refused() {
    let scratch = Scratch::new();
    for words in [
        &["sum", "-a", "sha1"][..],
        &["sum", "--range=5", "a"],
        &["sum", "--quiet", "a"],
        &["sum", "-c", "--tag", "a"],
        &["sum", "--cache=some", "a"],
        &["compare", "a"],
        &["compare", "a", "b", "c"],
    ] {
        scratch.ucp(words).exits(2);
    }
}

#[test]
fn each_engine_makes_the_same_digests() {
    let scratch = Scratch::new();
    scratch.write("file", bytes(40 * MIB + 5, 3));
    let want = shell(&scratch, "b3sum file");
    for engine in ["auto", "uring", "threads"] {
        for cache in ["auto", "keep", "bypass"] {
            shell(&scratch, "sync file; dd if=file iflag=nocache count=0 status=none").exits(0);
            let words = [format!("--engine={engine}"), format!("--cache={cache}")];
            let ran = scratch.ucp(["sum", &words[0], &words[1], "file"]);
            assert_eq!(ran.exits(0).stdout(), want.stdout(), "{words:?}");
        }
    }
}
