//! What `ucp doctor` says of real file systems, and that it leaves nothing there.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use super::json::check_line;
use super::support::{Ran, Scratch, on_file_system};

#[track_caller]
fn examined(ran: &Ran) -> Value {
    let line = check_line(ran.exits(0).stdout().trim_end());
    ran.says_lines(0);
    line
}

/// Whether something that was tried out works.
#[track_caller]
fn works(line: &Value, what: &str) -> bool {
    let trials = line["trials"].as_array().unwrap();
    let trial = trials.iter().find(|trial| trial["what"] == what);
    trial.unwrap_or_else(|| panic!("{what} was not tried: {line:#}"))["works"].as_bool().unwrap()
}

#[test]
fn a_file_system_is_told_by_what_it_can_do() {
    require_root!();
    let cases = [
        ("ext4", 64 << 20, &["direct-io", "preallocate", "holes"][..], &["clone"][..]),
        ("xfs", 320 << 20, &["direct-io", "clone", "user-attributes"], &[]),
        ("btrfs", 128 << 20, &["clone", "holes", "user-attributes"], &[]),
        ("tmpfs", 1 << 20, &["write", "unnamed-files"], &["clone", "direct-io"]),
    ];
    for (kind, size_bytes, can, cannot) in cases {
        on_file_system(kind, size_bytes, |place| {
            let before = fs::metadata(place.path("")).unwrap();
            let line = examined(&place.ucp(["doctor", "--json"]));
            assert_eq!(line["file_system"], kind);
            assert!(line["obstacle"].is_null(), "{line:#}");
            for what in can {
                assert!(works(&line, what), "{kind}: {what}");
            }
            for what in cannot {
                assert!(!works(&line, what), "{kind}: {what}");
            }
            let is_direct = line["forecasts"]
                .as_array()
                .unwrap()
                .iter()
                .any(|forecast| forecast["data_path"] == "direct");
            assert_eq!(is_direct, kind == "ext4", "{line:#}");
            let after = fs::metadata(place.path("")).unwrap();
            assert_eq!((before.mtime(), before.size()), (after.mtime(), after.size()), "{kind}");
            let names: Vec<_> = fs::read_dir(place.path("")).unwrap().flatten().collect();
            assert!(names.iter().all(|name| name.file_name() == "lost+found"), "{names:?}");
        });
    }
}

#[test]
fn people_are_told_the_same_in_words() {
    let scratch = Scratch::new();
    scratch.write("a", "x");
    for words in [&["doctor"][..], &["doctor", "a"], &["doctor", "."]] {
        let ran = scratch.ucp(words);
        let text = ran.exits(0).stdout();
        for part in ["kernel ", "engine ", "file system ", "write ", "would go\n", ", because "] {
            assert!(text.contains(part), "{part}: {ran:?}");
        }
    }
    assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 1);
}

#[test]
fn where_nothing_can_be_written_it_is_said_and_no_failure() {
    let scratch = Scratch::new();
    let line = examined(&scratch.ucp(["doctor", "--json", "/proc/self"]));
    assert_eq!(line["file_system"], "proc");
    assert!(line["obstacle"].is_string() && line["trials"].as_array().unwrap().is_empty());
}

#[test]
fn what_is_not_there_is_a_failure() {
    let scratch = Scratch::new();
    scratch.ucp(["doctor", "missing"]).exits(1).says(&["open failed on missing", "No such file"]);
}
