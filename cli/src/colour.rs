//! Colours: modest, on terminals only, and not where `NO_COLOR` (no-color.org) says so.

use std::env;
use std::io::{self, IsTerminal};
use std::sync::LazyLock;

/// What a line on standard error is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tone {
    /// Something was said.
    Plain,
    /// Something is worth knowing, or was left out.
    Warning,
    /// Something failed.
    Failure,
}

/// What a line on standard error begins with.
pub(crate) fn name(tone: Tone) -> &'static str {
    static IS_COLOURED: LazyLock<bool> = LazyLock::new(|| {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        is_coloured(io::stderr().is_terminal(), is_set("NO_COLOR"), is_dumb)
    });
    match (*IS_COLOURED, tone) {
        (true, Tone::Warning) => "\x1b[1;33mucp:\x1b[0m",
        (true, Tone::Failure) => "\x1b[1;31mucp:\x1b[0m",
        (false, _) | (true, Tone::Plain) => "ucp:",
    }
}

fn is_coloured(is_terminal: bool, is_unwanted: bool, is_dumb: bool) -> bool {
    is_terminal && !is_unwanted && !is_dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let cases = [
            ("a terminal", true, false, false, true),
            ("a file", false, false, false, false),
            ("NO_COLOR", true, true, false, false),
            ("a dumb terminal", true, false, true, false),
        ];
        for (case, is_terminal, is_unwanted, is_dumb, want) in cases {
            assert_eq!(is_coloured(is_terminal, is_unwanted, is_dumb), want, "{case}");
        }
    }
}
