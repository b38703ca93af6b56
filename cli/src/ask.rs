//! Asking the user whether an existing file may be overwritten (`-i`), in the words of `cp`.

use std::io::{self, BufRead, Write};

use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat, geteuid};
use ucp_engine::copy::Question;

use crate::gnu::Persona;
use crate::quote;

/// Asks on standard error, and reads the answer from standard input. Its end means no.
pub(crate) fn may_overwrite(persona: Persona, question: &Question<'_>) -> bool {
    let text = text(persona, question, is_writable(question));
    let _ = io::stderr().write_all(text.as_bytes());
    let mut answer = Vec::new();
    let read = io::stdin().lock().read_until(b'\n', &mut answer);
    read.is_ok() && matches!(answer.first(), Some(b'y' | b'Y'))
}

fn text(persona: Persona, question: &Question<'_>, is_writable: bool) -> String {
    let (name, target) = (persona.name(), quote::always(question.target));
    if is_writable {
        return format!("{name}: overwrite {target}? ");
    }
    let (mode, letters) = (question.mode & 0o7777, letters(question.mode));
    if question.is_replaced {
        format!("{name}: replace {target}, overriding mode {mode:04o} ({letters})? ")
    } else {
        format!("{name}: unwritable {target} (mode {mode:04o}, {letters}); try anyway? ")
    }
}

/// Whether the user may write to it; root may write to all.
fn is_writable(question: &Question<'_>) -> bool {
    let cwd = nix::fcntl::AT_FDCWD;
    let access = faccessat(cwd, question.target, AccessFlags::W_OK, AtFlags::AT_EACCESS);
    geteuid().is_root() || access.is_ok()
}

/// Permissions as `ls -l` shows them, without the kind of file.
fn letters(mode: u32) -> String {
    let class = |shift: u32, special: u32, letter: char| {
        let has = |bit: u32| mode >> shift & bit != 0;
        let execute = match (mode & special != 0, has(1)) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        };
        [if has(4) { 'r' } else { '-' }, if has(2) { 'w' } else { '-' }, execute]
    };
    [class(6, 0o4000, 's'), class(3, 0o2000, 's'), class(0, 0o1000, 't')].concat().iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_shown_as_ls_shows_them() {
        let cases = [
            (0o644, "rw-r--r--"),
            (0o444, "r--r--r--"),
            (0o4755, "rwsr-xr-x"),
            (0o2644, "rw-r-Sr--"),
            (0o1777, "rwxrwxrwt"),
            (0o1776, "rwxrwxrwT"),
            (0, "---------"),
        ];
        for (mode, want) in cases {
            assert_eq!(letters(mode), want, "{mode:o}");
        }
    }
}
