//! How digests are written down: lines that the tools people have read and write.
//!
//! ```text
//! d2a8…  name              coreutils, b3sum, xxhsum: digest, two blanks, name
//! d2a8… *name              the same, of a file that was read as binary
//! SHA256 (name) = d2a8…    the BSD form, which says by what the digest was made (`--tag`)
//! \d2a8…  a\\b\nc           a name with a backslash or a line's end is escaped, and its line marked
//! ```
//!
//! Lines that end with a NUL (`-z`) escape nothing.
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

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LineForm {
    /// Whether the algorithm is named (`--tag`). XXH3 of 64 bits always is: `xxhsum` would take its
    /// digest for one of XXH64.
    pub is_tagged: bool,
    /// Whether a star says that the file was read as binary (`-b`).
    pub is_binary: bool,
    /// Whether lines end with a NUL, and names are not escaped (`-z`).
    pub ends_with_nul: bool,
}

impl Line<'_> {
    /// Appends the line, in the form that `sha256sum -c` and its like read.
    pub fn write(&self, list: &mut Vec<u8>) {
        self.write_as(LineForm::default(), list);
    }

    /// Appends the line in a form of choice.
    pub fn write_as(&self, form: LineForm, list: &mut Vec<u8>) {
        let algorithm = self.digest.algorithm();
        let is_b3sum = algorithm == Algorithm::Blake3;
        let is_tagged = form.is_tagged || algorithm == Algorithm::Xxh3_64;
        let name = match is_b3sum && !form.is_tagged && !form.ends_with_nul {
            true => Cow::Owned(String::from_utf8_lossy(self.name).into_owned().into_bytes()),
            false => Cow::Borrowed(self.name),
        };
        let escaped = match form.ends_with_nul {
            true => Cow::Borrowed(name.as_ref()),
            false => escape_name(&name, !is_b3sum || form.is_tagged),
        };
        if matches!(escaped, Cow::Owned(_)) {
            list.push(b'\\');
        }
        let digest = self.digest.to_string();
        if is_tagged {
            list.extend_from_slice(tag(algorithm).as_bytes());
            list.extend_from_slice(b" (");
            list.extend_from_slice(&escaped);
            list.extend_from_slice(b") = ");
            list.extend_from_slice(digest.as_bytes());
        } else {
            list.extend_from_slice(digest.as_bytes());
            list.extend_from_slice(if form.is_binary { b" *" } else { b"  " });
            list.extend_from_slice(&escaped);
        }
        list.push(if form.ends_with_nul { b'\0' } else { b'\n' });
    }

    /// Whether the tool that the list is for can find the file again by its line.
    #[must_use]
    pub fn can_be_checked(&self) -> bool {
        self.digest.algorithm() != Algorithm::Blake3 || str::from_utf8(self.name).is_ok()
    }
}

/// What an algorithm is called in front of a name.
pub(super) const fn tag(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Crc32 => "CRC32",
        Algorithm::Crc32c => "CRC32C",
        Algorithm::Xxh3_64 => "XXH3",
        Algorithm::Xxh3_128 => "XXH128",
        Algorithm::Blake3 => "BLAKE3",
        Algorithm::Sha256 => "SHA256",
        Algorithm::Sha512 => "SHA512",
        Algorithm::Md5 => "MD5",
    }
}

/// A name as a list holds it; owned if anything had to be escaped, and the line to be marked.
#[must_use]
pub fn escape_name(name: &[u8], escapes_returns: bool) -> Cow<'_, [u8]> {
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
    fn each_form_is_written_as_its_tools_write_it() {
        let tagged = LineForm { is_tagged: true, ..LineForm::default() };
        let binary = LineForm { is_binary: true, ..LineForm::default() };
        let nul = LineForm { ends_with_nul: true, ..LineForm::default() };
        let cases: [(LineForm, &[u8], &[u8]); 5] = [
            (tagged, b"a", b"CRC32 (a) = 352441c2\n"),
            (tagged, b"a\n\r", b"\\CRC32 (a\\n\\r) = 352441c2\n"),
            (binary, b"a", b"352441c2 *a\n"),
            (nul, b"a\n\\", b"352441c2  a\n\\\0"),
            (LineForm { is_tagged: true, ..nul }, b"\n", b"CRC32 (\n) = 352441c2\0"),
        ];
        for (form, name, want) in cases {
            let mut list = Vec::new();
            Line { digest: Algorithm::Crc32.digest(b"abc"), name }.write_as(form, &mut list);
            assert_eq!(list.escape_ascii().to_string(), want.escape_ascii().to_string());
        }
    }

    #[test]
    fn xxhsum_is_told_that_64_bits_are_of_xxh3() {
        let mut list = Vec::new();
        Line { digest: Algorithm::Xxh3_64.digest(b""), name: b"a" }.write(&mut list);
        assert_eq!(list, b"XXH3 (a) = 2d06800538d394c2\n");
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
