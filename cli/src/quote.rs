//! File names as a terminal may show them.
//!
//! A name may hold any byte but NUL and `/`: escape sequences, line feeds, half a character. What
//! is printed here holds no control character, says where the name ends, and can be pasted into a
//! shell. The rules are GNU's (`ls --quoting-style=shell-escape`), so that lines of `ucp -v` are
//! lines of `cp -v`; except for names with both a quote and something unprintable, where what
//! coreutils 9.1 prints is no longer the name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The name in quotes, as `cp -v` prints it: `'a b'`, `'a'$'\n''b'`, `"it's"`.
pub(crate) fn always(name: impl AsRef<OsStr>) -> String {
    let bytes = name.as_ref().as_bytes();
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\'') && text.chars().enumerate().all(means_the_same_in_double_quotes) {
        return format!("\"{text}\"");
    }
    let mut quoted = Quoted { text: "'".to_owned(), is_escaping: false };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            quoted.character(character);
        }
        chunk.invalid().iter().for_each(|byte| quoted.escape_byte(*byte));
    }
    quoted.text.push('\'');
    quoted.text
}

/// The name as it is if nothing in it is special to a shell, otherwise in quotes.
pub(crate) fn if_needed(name: impl AsRef<OsStr>) -> String {
    let name = name.as_ref();
    match name.to_str() {
        Some(text) if is_plain(text) => text.to_owned(),
        _ => always(name),
    }
}

/// Words that were not made here, without control characters.
pub(crate) fn without_controls(words: &str) -> String {
    let mut clean = String::with_capacity(words.len());
    for character in words.chars() {
        if is_printable(character) {
            clean.push(character);
        } else {
            clean.extend(character.escape_default());
        }
    }
    clean
}

struct Quoted {
    text: String,
    /// Within `$'…'`, where a backslash begins an escape.
    is_escaping: bool,
}

impl Quoted {
    fn character(&mut self, character: char) {
        if !is_printable(character) {
            let mut bytes = [0; 4];
            let bytes = character.encode_utf8(&mut bytes).as_bytes();
            bytes.iter().for_each(|byte| self.escape_byte(*byte));
        } else if character == '\'' {
            // Closes, adds a quote, opens again; which also ends an escape.
            self.text.push_str("'\\''");
            self.is_escaping = false;
        } else {
            if self.is_escaping {
                self.text.push_str("''");
                self.is_escaping = false;
            }
            self.text.push(character);
        }
    }

    fn escape_byte(&mut self, byte: u8) {
        if !self.is_escaping {
            self.text.push_str("'$'");
            self.is_escaping = true;
        }
        match byte {
            0x07 => self.text.push_str("\\a"),
            0x08 => self.text.push_str("\\b"),
            b'\t' => self.text.push_str("\\t"),
            b'\n' => self.text.push_str("\\n"),
            0x0b => self.text.push_str("\\v"),
            0x0c => self.text.push_str("\\f"),
            b'\r' => self.text.push_str("\\r"),
            _ => self.text.push_str(&format!("\\{byte:03o}")),
        }
    }
}

/// Whether a terminal shows the character and does nothing else: no controls, none of the
/// characters that turn the direction of writing or show nothing.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn is_plain(text: &str) -> bool {
    let is_safe = |(index, character): (usize, char)| {
        (index > 0 && matches!(character, '#' | '~'))
            || (character.is_alphanumeric() && is_printable(character))
            || matches!(character, '%' | '+' | ',' | '-' | '.' | '/' | ':' | '@' | '_')
    };
    !text.is_empty() && text.chars().enumerate().all(is_safe)
}

/// GNU prefers `"it's"` to `'it'\''s'` where nothing else in the name is special.
fn means_the_same_in_double_quotes((index, character): (usize, char)) -> bool {
    match character {
        ' ' | '\'' | '%' | '+' | ',' | '-' | '.' | '/' | ':' | ']' | '_' => true,
        '#' | '~' => index == 0,
        _ if character.is_ascii() => character.is_ascii_alphanumeric(),
        _ => is_printable(character) && character != '\u{fffd}',
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn names_are_quoted_as_cp_quotes_them() {
        let cases: [(&[u8], &str); 13] = [
            (b"", "''"),
            (b"a", "'a'"),
            (b"a b", "'a b'"),
            (b"a\nb", "'a'$'\\n''b'"),
            (b"\nb", "''$'\\n''b'"),
            (b"a\n", "'a'$'\\n'"),
            (b"a\n\xffb", "'a'$'\\n\\377''b'"),
            (b"\x1b[31m", "''$'\\033''[31m'"),
            (b"it's", "\"it's\""),
            (b"it's $1", "'it'\\''s $1'"),
            (b"it's\n", "'it'\\''s'$'\\n'"),
            (b"\\", "'\\'"),
            ("é".as_bytes(), "'é'"),
        ];
        for (name, want) in cases {
            assert_eq!(always(OsStr::from_bytes(name)), want, "{name:?}");
        }
    }

    #[test]
    fn plain_names_stay_as_they_are() {
        let cases: [(&[u8], &str); 9] = [
            (b"/mnt/b", "/mnt/b"),
            (b"a~#", "a~#"),
            (b"~a", "'~a'"),
            (b"a-b_c.d,e+f%g:h@i", "a-b_c.d,e+f%g:h@i"),
            ("né".as_bytes(), "né"),
            (b"a b", "'a b'"),
            (b"", "''"),
            (b"$HOME", "'$HOME'"),
            (b"a\x07", "'a'$'\\a'"),
        ];
        for (name, want) in cases {
            assert_eq!(if_needed(OsStr::from_bytes(name)), want, "{name:?}");
        }
    }

    #[test]
    fn a_shell_reads_every_single_byte_and_pair_back() {
        let mut names: Vec<Vec<u8>> = (1..=255).map(|byte| vec![byte]).collect();
        names.extend((1..=255).map(|byte| vec![b'a', byte, b'\'', b'z']));
        names.extend((1..=255).map(|byte| vec![byte, 0xe2, byte, b' ']));
        for way in [always, if_needed] {
            let quoted: Vec<String> =
                names.iter().map(|name| way(OsStr::from_bytes(name).to_owned())).collect();
            assert!(quoted.iter().all(|text| text.chars().all(is_printable)));
            let script = format!("printf '%s\\0' {}", quoted.join(" "));
            let output = Command::new("bash").args(["-c", &script]).output().unwrap();
            let read: Vec<&[u8]> = output.stdout.split(|byte| *byte == 0).collect();
            assert_eq!(read.len(), names.len() + 1);
            for (name, read) in names.iter().zip(read) {
                assert_eq!(name, read);
            }
        }
    }

    #[test]
    fn foreign_words_lose_their_controls() {
        assert_eq!(without_controls("a\x1b[1mb\nc é"), "a\\u{1b}[1mb\\nc é");
    }
}
