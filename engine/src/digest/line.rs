//! How digests are written down: lines that the tools people have read and write.
//!
//! ```text
//! d2a8…  name              coreutils, b3sum, xxhsum: digest, two blanks, name
//! \d2a8…  a\\b\nc           the same; a name with a backslash or a line's end is escaped and marked
//! ```
//!
//! Source: `sha256sum` in the manual of coreutils: "If file contains a backslash, newline, or
//! carriage return, the line is started with a backslash, and each problematic character in the
//! file name is escaped with a backslash." `b3sum` writes and reads the same.

use std::borrow::Cow;

use super::Digest;

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
        let name = escape_name(self.name);
        if matches!(name, Cow::Owned(_)) {
            list.push(b'\\');
        }
        list.extend_from_slice(self.digest.to_string().as_bytes());
        list.extend_from_slice(b"  ");
        list.extend_from_slice(&name);
        list.push(b'\n');
    }
}

/// A name as a list holds it; owned if anything had to be escaped, and the line to be marked.
#[must_use]
pub fn escape_name(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r')) {
        return Cow::Borrowed(name);
    }
    let mut escaped = Vec::with_capacity(name.len() + 8);
    for byte in name {
        match byte {
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            byte => escaped.push(*byte),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

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
}
