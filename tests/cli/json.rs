//! The account for programs: every line of real runs is what `docs/json.schema.json` and
//! `docs/json.md` say.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use jsonschema::Validator;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::support::{Background, Ran, Scratch, UCP, bytes, on_file_system, run};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(&fs::read_to_string(document("json.schema.json")).unwrap()).unwrap()
});

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// A line, held against the schema: its values, and that all its fields are there.
#[track_caller]
pub(super) fn check_line(line: &str) -> Value {
    static VALIDATOR: LazyLock<Validator> =
        LazyLock::new(|| jsonschema::validator_for(&SCHEMA).unwrap());
    let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let event = line["event"].as_str().unwrap();
    let definition = &SCHEMA["$defs"][event];
    if let Err(error) = VALIDATOR.validate(&line) {
        panic!("{line:#}\n{error}\nat {}", error.instance_path());
    }
    for field in line.as_object().unwrap().keys() {
        let described = definition["properties"].get(field);
        assert!(described.is_some(), "{event}.{field} is not in the schema");
    }
    line
}

/// The lines of a run, each held against the schema. The last is the summary, and the only one.
#[track_caller]
fn account(ran: &Ran) -> Vec<Value> {
    let lines: Vec<Value> = ran.stdout().lines().map(check_line).collect();
    let summaries = lines.iter().filter(|line| line["event"] == "summary").count();
    assert_eq!(summaries, 1, "{ran:?}");
    assert_eq!(lines.last().unwrap()["event"], "summary", "{ran:?}");
    assert_eq!(lines.last().unwrap()["exit_status"], ran.code().unwrap(), "{ran:?}");
    lines
}

/// The one line of which this field has this value.
#[track_caller]
fn only<'a>(lines: &'a [Value], field: &str, value: &str) -> &'a Value {
    let mut found = lines.iter().filter(|line| line[field] == value);
    let line = found.next().unwrap_or_else(|| panic!("no line with {field} {value}: {lines:#?}"));
    assert!(found.next().is_none(), "more than one line with {field} {value}");
    line
}

#[test]
fn each_file_of_a_tree_has_a_line_and_the_last_is_the_summary() {
    let scratch = Scratch::new();
    scratch.make_directory("tree/below");
    scratch.write("tree/below/small", bytes(5000, 1));
    scratch.write("tree/large", bytes(17 << 20, 2));
    scratch.write("tree/empty", "");
    scratch.link("large", "tree/link");
    let lines = account(scratch.ucp(["--json", "tree", "copy"]).exits(0));
    assert_eq!(lines.len(), 7);

    let small = only(&lines, "source", "tree/below/small");
    assert_eq!((&small["target"], &small["kind"]), (&"copy/below/small".into(), &"file".into()));
    assert_eq!((&small["data_path"], &small["bytes"]), (&"small".into(), &5000.into()));
    assert_eq!(small["publication"], "staged");
    assert!(small["nanoseconds"].as_u64().unwrap() > 0);
    let large = only(&lines, "source", "tree/large");
    assert_eq!((&large["bytes"], &large["action"]), (&(17 << 20).into(), &"copied".into()));
    assert!(!large["data_path_reason"].is_null());
    assert_eq!(only(&lines, "source", "tree/empty")["data_path_reason"], "empty");
    assert_eq!(only(&lines, "source", "tree/link")["kind"], "symlink");
    assert_eq!(only(&lines, "source", "tree/below")["publication"], "staged");
    let root = only(&lines, "source", "tree");
    assert_eq!((&root["kind"], &root["publication"]), (&"directory".into(), &"new".into()));

    let summary = lines.last().unwrap();
    assert_eq!(summary["files"], 3);
    assert_eq!(summary["directories"], 2);
    assert_eq!(summary["links"], 1);
    assert_eq!(summary["bytes"], 5000 + (17 << 20));
    let cpu = ["user_nanoseconds", "system_nanoseconds"].map(|name| summary["cpu"][name].as_u64());
    assert!(cpu.into_iter().flatten().sum::<u64>() > 0, "{summary}");
}

#[test]
fn what_stood_there_is_told() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    scratch.write("tree/a", "new");
    scratch.make_directory("copy");
    scratch.write("copy/a", "old");
    let lines = account(scratch.ucp(["--json", "-T", "tree", "copy"]).exits(0));
    assert_eq!(only(&lines, "source", "tree/a")["publication"], "replaced");
    let root = only(&lines, "source", "tree");
    let got = (&root["publication"], &root["action"]);
    assert_eq!(got, (&"existing".into(), &"merged".into()));

    let lines = account(scratch.ucp(["--json", "--in-place", "tree/a", "copy/a"]).exits(0));
    let written = only(&lines, "source", "tree/a");
    assert_eq!(written["publication"], "in-place");
    assert_eq!(written["publication_reason"], "asked for");
}

#[test]
fn names_that_are_not_text_are_in_base64() {
    let scratch = Scratch::new();
    let name = OsStr::from_bytes(b"a\xff\n");
    scratch.write(name, "x");
    scratch.make_directory("to");
    let words = [OsStr::new("--json"), name, OsStr::new("to")];
    let lines = account(scratch.ucp(words).exits(0));
    assert_eq!(lines[0]["source_base64"], "Yf8K");
    assert_eq!(lines[0]["target_base64"], "dG8vYf8K");
    let words = [OsStr::new("--json"), OsStr::from_bytes(b"\xff"), OsStr::new("to")];
    let lines = account(scratch.ucp(words).exits(1));
    assert_eq!(lines[0]["path_base64"], "/w==");
    assert_eq!(lines[0]["errno"]["name"], "ENOENT");
}

#[test]
fn failures_are_told_on_both_streams_and_the_rest_goes_on() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    scratch.write("tree/a", "x");
    run(Command::new("mkfifo").arg(scratch.path("tree/fifo"))).exits(0);
    scratch.make_directory("to");
    let ran = scratch.ucp(["--json", "missing", "tree", "to"]);
    ran.exits(1).says(&["missing"]).says_lines(1);
    let lines = account(&ran);
    let failed = only(&lines, "event", "failed");
    assert_eq!((&failed["path"], &failed["operation"]), (&"missing".into(), &"status".into()));
    assert_eq!((&failed["errno"]["number"], &failed["class"]), (&2.into(), &"io".into()));
    let fifo = only(&lines, "source", "tree/fifo");
    assert_eq!((&fifo["kind"], &fifo["action"]), (&"fifo".into(), &"made".into()));
    let summary = lines.last().unwrap();
    assert_eq!((&summary["failed"], &summary["skipped"]), (&1.into(), &0.into()));
    assert_eq!(summary["class"], "io");
}

#[test]
fn a_run_that_could_not_begin_has_a_summary() {
    let scratch = Scratch::new();
    scratch.write("a", "");
    scratch.write("b", "");
    let lines = account(scratch.ucp(["--json", "a", "b", "missing"]).exits(1));
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["path"], &lines[0]["class"]), (&"missing".into(), &"operand".into()));
    assert_eq!(lines[1]["failed"], 1);
    // What makes no sense is no run.
    assert!(scratch.ucp(["--json", "a"]).exits(2).stdout.is_empty());
}

#[test]
fn a_run_that_is_stopped_has_a_summary() {
    let scratch = Scratch::new();
    scratch.write("large", bytes(64 << 20, 1));
    let mut command = Command::new(UCP);
    command.args(["--json", "--engine=threads", "--depth=1", "--block-size=4K", "--direct=off"]);
    command
        .args(["--reflink=never", "--limit-rate=4M", "large", "copy"])
        .current_dir(scratch.path(""));
    let mut copy = Background::start(&mut command);
    copy.stop_when_open(&scratch.path("large"));
    copy.signal(Signal::SIGINT);
    copy.signal(Signal::SIGCONT);
    let ran = copy.end();
    let lines = account(ran.exits(130));
    assert_eq!(lines.last().unwrap()["interrupted_by"], "SIGINT");
    assert_eq!(lines.last().unwrap()["files"], 0);
}

#[test]
fn storage_that_is_full_is_told_with_offset_and_errno() {
    require_root!();
    on_file_system("tmpfs", 1 << 20, |place| {
        let scratch = Scratch::new();
        scratch.write("large", bytes(8 << 20, 1));
        let words = [OsStr::new("--json"), scratch.path("large").as_os_str(), OsStr::new("copy")]
            .map(OsStr::to_owned);
        let lines = account(place.ucp(words).exits(8));
        let failed = only(&lines, "event", "failed");
        assert_eq!((&failed["class"], &failed["operation"]), (&"storage".into(), &"write".into()));
        assert_eq!(failed["errno"]["name"], "ENOSPC");
        assert!(failed["offset"].as_u64().is_some_and(|offset| offset <= 1 << 20), "{failed}");
        assert_eq!(lines.last().unwrap()["class"], "storage");
    });
}

#[test]
fn the_path_and_what_fell_back_are_told_with_the_reason() {
    require_root!();
    on_file_system("btrfs", 512 << 20, |place| {
        let scratch = Scratch::new();
        scratch.write("large", bytes(17 << 20, 1));
        let from = scratch.path("large").into_os_string();
        let ucp = |words: &[&OsStr]| account(place.ucp(words).exits(0));
        let json = OsStr::new("--json");
        // From another file system.
        let lines = ucp(&[json, &from, OsStr::new("a")]);
        assert_eq!(lines[0]["fell_back"][0]["from"], "clone");
        assert_eq!(lines[0]["fell_back"][0]["errno"]["name"], "EXDEV");
        assert_eq!(lines[0]["shared"], false);
        // Within this one.
        let lines = ucp(&[json, OsStr::new("a"), OsStr::new("b")]);
        let cloned = (&lines[0]["data_path"], &lines[0]["data_path_reason"]);
        assert_eq!(cloned, (&"clone".into(), &"extents-shared".into()));
        assert_eq!((&lines[0]["shared"], &lines[0]["holes_bytes"]), (&true.into(), &Value::Null));
        assert_eq!(lines[1]["data_paths"]["clone"], 1);
    });
}

#[test]
fn a_standard_output_that_takes_no_account_lets_the_work_go_on_and_exits_with_one() {
    let scratch = Scratch::new();
    scratch.write("a", "content");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(UCP);
    let ran = run(command.args(["--json", "a", "b"]).current_dir(scratch.path("")).stdout(full));
    ran.exits(1).says(&["standard output", "No space left"]);
    assert_eq!(scratch.read("b"), b"content");
}

#[test]
fn every_field_and_value_of_the_schema_is_documented() {
    let text = fs::read_to_string(document("json.md")).unwrap();
    let mut words = Vec::new();
    collect_words(&SCHEMA["$defs"], &mut words);
    assert!(words.len() > 60, "{words:?}");
    for word in words {
        assert!(text.contains(&format!("`{word}`")), "docs/json.md does not say what {word} is");
    }
}

/// Names of fields, and the values that a field can have.
fn collect_words(schema: &Value, words: &mut Vec<String>) {
    let Some(object) = schema.as_object() else { return };
    for (key, value) in object {
        match (key.as_str(), value) {
            ("properties", Value::Object(fields)) => words.extend(fields.keys().cloned()),
            ("enum", Value::Array(values)) => {
                words.extend(values.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            _ => {}
        }
        collect_words(value, words);
    }
}

/// The engine's stable names are matched out of its sources: who adds one describes it.
#[test]
fn every_stable_name_of_the_engine_is_in_the_schema() {
    let schema = SCHEMA.to_string();
    let mut names = 0;
    for file in ["copy/account.rs", "copy/reason.rs", "error.rs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src").join(file);
        let text = fs::read_to_string(path).unwrap();
        for body in text.split("fn name(self) -> &'static str {").skip(1) {
            let body = &body[..body.find("\n    }\n").unwrap()];
            for name in body.split('"').skip(1).step_by(2) {
                assert!(schema.contains(&format!("\"{name}\"")), "{file}: {name}");
                names += 1;
            }
        }
    }
    assert!(names > 40, "{names}");
}

#[test]
fn what_is_durable_is_told_when_it_is() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    scratch.write("tree/a", "text");
    let lines = account(scratch.ucp(["--json", "--durable=full", "tree", "new"]).exits(0));
    let done = only(&lines, "event", "done");
    assert_eq!((&done["target"], &done["tree"]), (&"new".into(), &true.into()));
    let lines = account(scratch.ucp(["--json", "--durable=full", "tree/a", "b"]).exits(0));
    let done = only(&lines, "event", "done");
    assert_eq!((&done["target"], &done["tree"]), (&"b".into(), &false.into()));
    let copied = lines.iter().position(|line| line["event"] == "copied");
    assert!(copied < lines.iter().position(|line| line["event"] == "done"), "{lines:#?}");
}

#[test]
fn what_is_kept_of_an_old_file_is_told() {
    let scratch = Scratch::new();
    scratch.make_directory("to");
    scratch.write("a", "first");
    scratch.link("a", "link");
    fs::hard_link(scratch.path("a"), scratch.path("b")).unwrap();
    let words = ["--json", "-d", "--backup=numbered", "a", "b", "link", "to"];
    let lines = account(scratch.ucp(words).exits(0));
    for name in ["a", "b", "link"] {
        assert_eq!(only(&lines, "source", name)["backup"], Value::Null);
    }
    let lines = account(scratch.ucp(words).exits(0));
    for name in ["a", "link"] {
        let want = format!("to/{name}.~1~");
        assert_eq!(only(&lines, "source", name)["backup"], want);
        assert!(scratch.exists(&want), "{want}");
    }
    // One more name of the new file, in the place of one of the old.
    assert_eq!(only(&lines, "source", "b")["backup"], "to/b.~1~");
    let name = OsStr::from_bytes(b"a\xff");
    scratch.write(name, "x");
    let words = [OsStr::new("--json"), OsStr::new("-b"), name, OsStr::new("to")];
    assert_eq!(account(scratch.ucp(words).exits(0))[0]["backup"], Value::Null);
    assert_eq!(account(scratch.ucp(words).exits(0))[0]["backup_base64"], "dG8vYf9+");
}

#[test]
fn each_name_is_told_when_it_is_durable() {
    let scratch = Scratch::new();
    scratch.make_directory("d/e");
    scratch.make_directory("to/d");
    scratch.write("d/e/a", "text");
    fs::hard_link(scratch.path("d/e/a"), scratch.path("d/e/b")).unwrap();
    let done = |words: &[&str]| {
        let words = [&["--json", "--durable=full"], words].concat();
        let lines = account(scratch.ucp(words).exits(0));
        let done = lines.iter().filter(|line| line["event"] == "done");
        done.map(|line| line["target"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let names = done(&["--parents", "d/e/a", "to"]);
    // Innermost first: what is done is found by what was made above it.
    assert_eq!(names, ["to/d/e/a", "to/d/e"]);
    assert_eq!(done(&["--preserve=links", "d/e/a", "d/e/b", "to"]), ["to/a", "to/b"]);
    let mut names = done(&["--preserve=links", "d", "to"]);
    names.sort();
    assert_eq!(names, ["to/d", "to/d/e", "to/d/e/a", "to/d/e/b"]);
    assert_eq!(done(&["-l", "d/e/a", "hard"]), ["hard"]);
    assert_eq!(done(&["-s", "d/e/a", "symbolic"]), ["symbolic"]);
}

#[test]
fn what_is_not_copied_is_told_with_its_reason() {
    let scratch = Scratch::new();
    scratch.make_directory("to");
    scratch.write("a", "text");
    scratch.ucp(["a", "to"]).succeeds_silently();
    let lines = account(scratch.ucp(["--json", "--check-existing=size+time", "a", "to"]).exits(0));
    assert_eq!(only(&lines, "event", "up-to-date")["target"], "to/a");
    assert_eq!(only(&lines, "event", "summary")["up_to_date"], 1);
    let lines = account(scratch.ucp(["--json", "-u", "a", "to"]).exits(0));
    assert_eq!(only(&lines, "event", "stayed")["source"], "a");
    assert_eq!(only(&lines, "event", "summary")["stayed"], 1);
    let lines = account(scratch.ucp(["--json", "a", "a", "to"]).exits(0));
    assert_eq!(only(&lines, "event", "repeated")["directory"], false);
}
