//! What makes the command pleasant: explanations, the state on demand, colours.

use super::support::{Scratch, bytes};

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
