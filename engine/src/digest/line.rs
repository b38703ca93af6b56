//! How digests are written down: lines that the tools people have read and write.
//!
//! ```text
//! d2a8…  name              coreutils, b3sum, xxhsum: digest, two blanks, name
//! \d2a8…  a\\b\nc           the same; a name with a backslash or a line's end is escaped and marked
//! ```
//!
//! Source: `sha256sum` in the manual of coreutils: "If file contains a backslash, newline, or
//! carriage return, the line is started with a backslash, and each problematic character in the
//! file name is escaped with a backslash." `b3sum` knows the first two only, and takes no name that
//! is not UTF-8: it writes a replacement for each such byte, and refuses to check that line.

use std::borrow::Cow;

use super::{Algorithm, Digest};

/// A line of a list: a digest and the name of the file that it is of.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// What the file's bytes come to.
    pub digest: Digest,
    /// The file's name: any bytes.
    pub name: &'a [u8],
}

impl Line<'_> {
    /// Appends the line, in the form that `sha256sum -c` and its like read.
    pub fn write(&self, list: &mut Vec<u8>) {
        let is_b3sum = self.digest.algorithm() == Algorithm::Blake3;
        let name = match is_b3sum {
            true => Cow::Owned(String::from_utf8_lossy(self.name).into_owned().into_bytes()),
            false => Cow::Borrowed(self.name),
        };
        let escaped = escape_name(&name, !is_b3sum);
        if matches!(escaped, Cow::Owned(_)) {
            list.push(b'\\');
        }
        list.extend_from_slice(self.digest.to_string().as_bytes());
        list.extend_from_slice(b"  ");
        list.extend_from_slice(&escaped);
        list.push(b'\n');
    }

    /// Whether the tool that the list is for can find the file again by its line.
    #[must_use]
    pub fn can_be_checked(&self) -> bool {
        self.digest.algorithm() != Algorithm::Blake3 || str::from_utf8(self.name).is_ok()
    }
}

/// A name as a list holds it; owned if anything had to be escaped, and the line to be marked.
fn escape_name(name: &[u8], escapes_returns: bool) -> Cow<'_, [u8]> {
    let is_escaped = |byte: u8| match byte {
        b'\\' | b'\n' => true,
        b'\r' => escapes_returns,
        _ => false,
    };
    if !name.iter().any(|byte| is_escaped(*byte)) {
        return Cow::Borrowed(name);
    }
    let mut escaped = Vec::with_capacity(name.len() + 8);
    for byte in name.iter().copied() {
        match byte {
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' if escapes_returns => escaped.extend_from_slice(b"\\r"),
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            byte => escaped.push(byte),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_escaped_and_their_lines_marked() {
        let cases: [(&[u8], &[u8]); 7] = [
            (b"plain", b"352441c2  plain\n"),
            (b"two words", b"352441c2  two words\n"),
            (b"back\\slash", b"\\352441c2  back\\\\slash\n"),
            (b"a\nb", b"\\352441c2  a\\nb\n"),
            (b"a\rb", b"\\352441c2  a\\rb\n"),
            (b"\xff", b"352441c2  \xff\n"),
            (b"*star", b"352441c2  *star\n"),
        ];
        for (name, want) in cases {
            let mut list = Vec::new();
            Line { digest: Algorithm::Crc32.digest(b"abc"), name }.write(&mut list);
            assert_eq!(list.escape_ascii().to_string(), want.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_list_for_b3sum_holds_what_b3sum_reads() {
        let cases: [(&[u8], &str, bool); 3] = [
            (b"a\rb", "  a\rb\n", true),
            (b"a\nb", "  a\\nb\n", true),
            (b"a\xff", "  a\u{fffd}\n", false),
        ];
        for (name, want, can_be_checked) in cases {
            let line = Line { digest: Algorithm::Blake3.digest(b"abc"), name };
            let mut list = Vec::new();
            line.write(&mut list);
            let list = String::from_utf8(list).unwrap();
            assert!(list.ends_with(want), "{list:?}");
            assert_eq!(list.starts_with('\\'), want.contains('\\'), "{list:?}");
            assert_eq!(line.can_be_checked(), can_be_checked, "{list:?}");
        }
    }
}
