//! What makes the command pleasant: explanations, the state on demand, colours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::signal::Signal;

use super::support::{Background, Scratch, UCP, bytes, run, until};

#[test]
fn explain_says_of_each_file_which_way_and_why() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    scratch.write("tree/a b", "text");
    scratch.write("large", bytes(17 << 20, 1));
    scratch.write("old", "x");
    let ran = scratch.ucp(["--explain", "tree", "copy"]);
    let stdout = ran.exits(0).stdout();
    assert!(
        stdout.contains(
            "'tree/a b' -> 'copy/a b'\n    small, because it is no larger than 256.0 KiB; "
        ),
        "{ran:?}"
    );
    assert!(stdout.contains("'tree' -> 'copy'\n    directory made; under a new name\n"), "{ran:?}");
    ran.says_lines(0);

    let ran = scratch.ucp(["--explain", "--direct=off", "--reflink=never", "large", "old"]);
    let want =
        "    buffered, because direct I/O was forbidden; replaced what stood there; 17.0 MiB in ";
    assert!(ran.exits(0).stdout().contains(want), "{ran:?}");
}

#[test]
fn an_account_for_programs_and_one_for_people_exclude_each_other() {
    let scratch = Scratch::new();
    scratch.write("a", "");
    scratch.ucp(["--json", "--explain", "a", "b"]).exits(2).says(&["--json", "--explain"]);
}

#[test]
fn bash_completes_options_and_subcommands() {
    let scratch = Scratch::new();
    let script = scratch.ucp(["completions", "bash"]);
    scratch.write("script", script.exits(0).stdout());
    let complete = |words: &str| {
        let shell = format!(
            ". ./script; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _ucp ucp \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; \
             echo \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        let ran = run(bash.args(["-c", &shell]).current_dir(scratch.path("")));
        ran.exits(0).says_lines(0).stdout().trim_end().to_owned()
    };
    assert_eq!(complete("ucp doc"), "doctor");
    assert_eq!(complete("ucp --dur"), "--durable");
    assert_eq!(complete("ucp --progress a"), "auto always");
    assert_eq!(complete("ucp doctor --j"), "--json");
    for shell in ["zsh", "fish"] {
        assert!(!scratch.ucp(["completions", shell]).exits(0).stdout.is_empty());
    }
}

#[test]
fn the_manual_is_one_that_man_can_read() {
    let scratch = Scratch::new();
    scratch.make_directory("pages");
    let mut ucp = Command::new("sh");
    let script = format!("umask 027; exec '{UCP}' man pages");
    run(ucp.args(["-c", &script]).current_dir(scratch.path(""))).succeeds_silently();
    let pages =
        ["ucp.1", "ucp-sum.1", "ucp-compare.1", "ucp-doctor.1", "ucp-completions.1", "ucp-man.1"];
    let mut names: Vec<_> = fs::read_dir(scratch.path("pages")).unwrap().flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    assert_eq!(names.len(), pages.len(), "{names:?}");
    for page in pages {
        let path = scratch.path(format!("pages/{page}"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let mut groff = Command::new("groff");
        let ran = run(groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(&path));
        ran.succeeds_silently();
    }
    assert_eq!(scratch.ucp(["man"]).exits(0).stdout, scratch.read("pages/ucp.1"));
    let mut groff = Command::new("groff");
    let ran = run(groff.args(["-man", "-Tascii", "-P-cbou"]).arg(scratch.path("pages/ucp.1")));
    for title in
        ["NAME", "SYNOPSIS", "EXIT STATUS", "SIGNALS", "ENVIRONMENT", "FILES", "EXAMPLES", "OUTPUT"]
    {
        assert!(ran.stdout().lines().any(|line| line == title), "{title}: {ran:?}");
    }
    scratch.ucp(["man", "missing"]).exits(1).says(&["missing/ucp.1"]);
}

#[test]
fn sigusr1_asks_how_far_it_is_and_the_copy_goes_on() {
    let scratch = Scratch::new();
    scratch.make_directory("tree");
    (0..200).for_each(|number| scratch.write(format!("tree/{number}"), bytes(5000, 1)));
    scratch.write("tree/large", bytes(64 << 20, 1));
    let mut command = Command::new(UCP);
    command.args(["--engine=threads", "--depth=1", "--block-size=4K", "--direct=off"]);
    command.args(["--reflink=never", "tree", "copy"]).current_dir(scratch.path(""));
    let mut copy = Background::start(&mut command);
    // Before there is anything to tell, and while the shards work.
    until("signals are taken care of", || copy.blocks(Signal::SIGUSR1));
    copy.signal(Signal::SIGUSR1);
    copy.stop_when_open(&scratch.path("tree/large"));
    copy.signal(Signal::SIGUSR1);
    copy.signal(Signal::SIGCONT);
    let ran = copy.end();
    ran.exits(0);
    let lines: Vec<&str> = ran.stderr().lines().collect();
    assert!((1..=2).contains(&lines.len()), "{ran:?}");
    let last = lines.last().unwrap();
    for part in ["ucp: copying: ", "B of ", " files, ", "/s"] {
        assert!(last.contains(part), "{part}: {ran:?}");
    }
    assert!(scratch.read("copy/large") == scratch.read("tree/large"));
}

#[test]
fn failures_are_coloured_on_a_terminal_only_and_not_against_the_wish() {
    let scratch = Scratch::new();
    let red = "\x1b[1;31mucp:\x1b[0m status failed on missing";
    let cases = [("", "xterm", true), ("1", "xterm", false), ("", "dumb", false)];
    for (unwanted, terminal, is_red) in cases {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("'{UCP}' missing a; true"), "/dev/null"]);
        script.env("TERM", terminal).env("NO_COLOR", unwanted).current_dir(scratch.path(""));
        let ran = run(&mut script);
        let text = ran.exits(0).stdout();
        assert_eq!(text.contains(red), is_red, "{unwanted:?} {terminal}: {ran:?}");
        assert!(text.contains("status failed on missing"), "{ran:?}");
    }
    let ran = scratch.ucp(["missing", "a"]);
    assert!(!ran.exits(1).stderr().contains('\x1b'), "{ran:?}");
}
