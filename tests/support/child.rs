//! Running one test again in a process of its own: for what changes a whole process.

use std::process::Command;

const SETTING: &str = "UCP_TEST_CHILD";
const MARK: &str = "told: ";

/// In a child, what its parent wants of it; none in a test that runs as usual.
pub(crate) fn setting() -> Option<String> {
    std::env::var(SETTING).ok()
}

/// Tells the parent something, from the child.
pub(crate) fn tell(line: &str) {
    println!("\n{MARK}{line}");
}

/// Runs `test` of this program again in a child with `setting`, under `wrapper` if there is one.
/// Returns the last line that the child told.
pub(crate) fn run(test: &str, setting: &str, wrapper: &[&str]) -> String {
    let program = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(program),
        [wrapper, arguments @ ..] => {
            let mut command = Command::new(wrapper);
            command.args(arguments).arg(program);
            command
        }
    };
    let output = command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(SETTING, setting)
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} with {setting}:\n{text}\n{errors}");
    let told = text.lines().rev().find_map(|line| line.strip_prefix(MARK));
    told.unwrap_or_else(|| panic!("{test} with {setting} told nothing:\n{text}")).into()
}
