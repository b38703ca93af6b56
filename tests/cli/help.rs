//! Help, version and complaints about the command line, compared with `fixtures/help`.
//! `UCP_UPDATE=1` writes the fixtures anew.

use std::path::Path;
use std::{env, fs};

use super::support::Scratch;

#[track_caller]
fn compare(fixture: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/help").join(fixture);
    if env::var_os("UCP_UPDATE").is_some_and(|value| value == "1") {
        fs::write(&path, got).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    assert!(got == want, "{fixture} is not\n{got}\nUCP_UPDATE=1 takes it over");
}

#[test]
fn help_is_the_same_however_it_is_asked_for() {
    let scratch = Scratch::new();
    for words in [&["-h"][..], &["copy", "-h"], &["-v", "a", "-h"]] {
        let ran = scratch.ucp(words);
        ran.exits(0).says_lines(0);
        compare("ucp.txt", ran.stdout());
    }
    for words in [&["--help"][..], &["copy", "--help"], &["-v", "a", "--help"]] {
        let ran = scratch.ucp(words);
        ran.exits(0).says_lines(0);
        compare("ucp-long.txt", ran.stdout());
    }
}

#[test]
fn each_subcommand_has_help_of_its_own() {
    let scratch = Scratch::new();
    for name in ["sum", "compare", "doctor", "completions", "man"] {
        let ran = scratch.ucp([name, "--help"]);
        ran.exits(0).says_lines(0);
        compare(&format!("ucp-{name}.txt"), ran.stdout());
        let want = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(scratch.ucp([name, "--version"]).exits(0).stdout(), want);
    }
}

#[test]
fn a_subcommand_that_is_also_a_file_is_refused() {
    let scratch = Scratch::new();
    for name in ["sum", "compare", "doctor", "completions", "man"] {
        scratch.write(name, "the file");
        let file = format!("'ucp ./{name} x'");
        let ran = scratch.ucp([name, "x"]);
        ran.exits(2).says(&[&file, &format!("'ucp copy {name} x'"), "for the subcommand"]);
        scratch.ucp(["copy", name, "x"]).succeeds_silently();
        assert_eq!(scratch.read("x"), b"the file");
        scratch.ucp([&format!("./{name}"), "x"]).succeeds_silently();
    }
}

#[test]
fn version_is_the_package_s() {
    let scratch = Scratch::new();
    for word in ["--version", "-V"] {
        let ran = scratch.ucp([word]);
        assert_eq!(ran.exits(0).stdout(), concat!("ucp ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[test]
fn complaints_about_usage_say_what_is_wrong_and_exit_with_two() {
    let scratch = Scratch::new();
    scratch.write("a", "");
    let cases: &[&[&str]] = &[
        &[],
        &["a"],
        &["-T", "a"],
        &["-T", "a", "b", "c"],
        &["-t", "."],
        &["-t"],
        &["-T", "-t", ".", "a"],
        &["--no-such", "a", "b"],
        &["-y", "a", "b"],
        &["--direct", "a", "b"],
        &["--direct=maybe", "a", "b"],
        &["--durable=yes", "a", "b"],
        &["--depth=0", "a", "b"],
        &["--depth=257", "a", "b"],
        &["--block-size=1000", "a", "b"],
        &["--block-size=1GiB", "a", "b"],
        &["--depth=256", "--block-size=64M", "a", "b"],
    ];
    let mut all = String::new();
    for words in cases {
        let ran = scratch.ucp(*words);
        ran.exits(2).says_lines(2);
        assert!(ran.stdout.is_empty());
        all.push_str(&format!(
            "$ {}\n{}\n",
            ["ucp"].iter().chain(*words).copied().collect::<Vec<_>>().join(" "),
            ran.stderr()
        ));
    }
    compare("usage.txt", &all);
    assert!(!scratch.exists("b"));
}

#[test]
fn a_first_word_that_is_a_subcommand_and_a_file_is_refused_with_both_spellings() {
    let scratch = Scratch::new();
    scratch.write("copy", "the file");
    scratch.write("a", "another");
    let ran = scratch.ucp(["copy", "b"]);
    ran.exits(2).says(&["'ucp copy copy b'", "'ucp ./copy b'"]);
    let ran = scratch.ucp(["copy", "a", "b"]);
    ran.exits(2).says(&["'ucp copy copy a b'", "'ucp ./copy a b'"]);
    assert!(!scratch.exists("b"));

    scratch.ucp(["copy", "copy", "b"]).succeeds_silently();
    scratch.ucp(["./copy", "c"]).succeeds_silently();
    scratch.ucp(["-v", "copy", "d"]).exits(0);
    for name in ["b", "c", "d"] {
        assert_eq!(scratch.read(name), b"the file");
    }
}

#[test]
fn the_subcommand_copies_like_no_subcommand() {
    let scratch = Scratch::new();
    scratch.write("a", "content");
    scratch.ucp(["copy", "a", "b"]).succeeds_silently();
    assert_eq!(scratch.read("b"), b"content");
}
