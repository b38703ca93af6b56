//! Reading the lines that [`super::Line`] and the tools people have write.
//!
//! A digest without a tag may be by any algorithm of its length: `sha256sum` and `b3sum` write lines
//! that look alike. Such a line stands for all of them, and whoever checks it finds out.
//!
//! Source: coreutils 9.1, `src/digest.c` describes in its comments what `-c` takes: blanks in front,
//! a backslash before an escaped line, the BSD form with or without blanks around its parts, and a
//! line that ends with CR LF.

use super::line::tag;
use super::{Algorithm, Digest};

/// What a line of a list says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedDigest {
    /// The file's name: any bytes but NUL.
    pub name: Vec<u8>,
    /// The digest, by each algorithm that could have made it; at least one.
    pub digests: Vec<Digest>,
}

impl ListedDigest {
    /// Reads a line without what ends it. None if it is not a line of such a list.
    ///
    /// With `told`, digests are by one of these algorithms.
    ///
    /// # Examples
    ///
    /// ```
    /// use ucp_engine::digest::{Algorithm, ListedDigest};
    ///
    /// let line = ListedDigest::parse(b"CRC32 (a b) = cbf43926", &[]).unwrap();
    /// assert_eq!(line.name, b"a b");
    /// assert_eq!(line.digests, [Algorithm::Crc32.digest(b"123456789")]);
    /// assert_eq!(ListedDigest::parse(b"no digest", &[]), None);
    /// ```
    #[must_use]
    pub fn parse(line: &[u8], told: &[Algorithm]) -> Option<Self> {
        let line = line.trim_ascii_start();
        let (is_escaped, line) = match line.strip_prefix(b"\\") {
            Some(line) => (true, line),
            None => (false, line),
        };
        let (digests, name) = tagged(line).or_else(|| plain(line))?;
        let allowed = |digest: &Digest| told.is_empty() || told.contains(&digest.algorithm());
        let digests: Vec<_> = digests.into_iter().filter(allowed).collect();
        let name = if is_escaped { unescape(name)? } else { name.to_owned() };
        let is_line = !digests.is_empty() && !name.is_empty() && !name.contains(&0);
        is_line.then_some(Self { name, digests })
    }
}

/// `SHA256 (name) = hex`, and `SHA256(name)= hex` as openssl writes it.
fn tagged(line: &[u8]) -> Option<(Vec<Digest>, &[u8])> {
    let of_tag = |algorithm: &Algorithm| {
        let rest = line.strip_prefix(tag(*algorithm).as_bytes())?;
        Some((*algorithm, rest.strip_prefix(b" ").unwrap_or(rest).strip_prefix(b"(")?))
    };
    let (algorithm, rest) = Algorithm::ALL.iter().find_map(of_tag)?;
    let end = rest.iter().rposition(|byte| *byte == b')')?;
    let (name, rest) = (&rest[..end], rest[end + 1..].trim_ascii_start());
    let hex = rest.strip_prefix(b"=")?.trim_ascii();
    Some((vec![Digest::from_hex(algorithm, hex)?], name))
}

/// `hex  name` and `hex *name`; also `hex name`, as some BSD tools write it. XXH3 has its name in
/// front of the digest in lines of newer versions of `xxhsum`.
fn plain(line: &[u8]) -> Option<(Vec<Digest>, &[u8])> {
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t'))?;
    let (hex, rest) = (&line[..end], &line[end + 1..]);
    let name = match rest {
        [b' ' | b'*', name @ ..] if !name.is_empty() => name,
        name => name,
    };
    let digests = match hex.strip_prefix(b"XXH3_") {
        Some(hex) => Digest::from_hex(Algorithm::Xxh3_64, hex).into_iter().collect(),
        None => Algorithm::ALL.iter().filter_map(|it| Digest::from_hex(*it, hex)).collect(),
    };
    Some((digests, name))
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::super::{Line, LineForm};
    use super::*;

    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn each_form_is_read() {
        use Algorithm::{Blake3, Crc32, Crc32c, Md5, Sha256, Xxh3_64, Xxh3_128};
        let upper = SHA256.to_uppercase();
        let cases = [
            (format!("{SHA256}  a"), "a", vec![Blake3, Sha256]),
            (format!("{SHA256} *a"), "a", vec![Blake3, Sha256]),
            (format!("{SHA256} a"), "a", vec![Blake3, Sha256]),
            (format!("{SHA256}   a"), " a", vec![Blake3, Sha256]),
            (format!(" \t{upper}  a b "), "a b ", vec![Blake3, Sha256]),
            (format!("\\{SHA256}  a\\\\b\\nc\\r"), "a\\b\nc\r", vec![Blake3, Sha256]),
            (format!("SHA256 (a) = {SHA256}"), "a", vec![Sha256]),
            (format!("SHA256(a)= {SHA256}"), "a", vec![Sha256]),
            (format!("BLAKE3 (a) b) = {SHA256}"), "a) b", vec![Blake3]),
            (format!("\\SHA256 (a\\n) = {SHA256}"), "a\n", vec![Sha256]),
            ("XXH3 (a) = 2d06800538d394c2".to_owned(), "a", vec![Xxh3_64]),
            ("XXH3_2d06800538d394c2  a".to_owned(), "a", vec![Xxh3_64]),
            ("00000000  a".to_owned(), "a", vec![Crc32, Crc32c]),
            ("CRC32C (a) = 00000000".to_owned(), "a", vec![Crc32c]),
            ("d41d8cd98f00b204e9800998ecf8427e  a".to_owned(), "a", vec![Xxh3_128, Md5]),
        ];
        for (line, name, algorithms) in cases {
            let read =
                ListedDigest::parse(line.as_bytes(), &[]).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(read.name, name.as_bytes(), "{line}");
            let got: Vec<_> = read.digests.iter().map(Digest::algorithm).collect();
            assert_eq!(got, algorithms, "{line}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let cases = [
            String::new(),
            "a".to_owned(),
            SHA256.to_owned(),
            format!("{SHA256} "),
            format!("{}  a", &SHA256[1..]),
            format!("{}g  a", &SHA256[1..]),
            format!("SHA512 (a) = {SHA256}"),
            format!("SHA256 (a) {SHA256}"),
            format!("SHA256 () = {SHA256}"),
            format!("\\{SHA256}  a\\x"),
            format!("\\{SHA256}  a\\"),
            format!("{SHA256}  a\0b"),
        ];
        for line in cases {
            assert_eq!(ListedDigest::parse(line.as_bytes(), &[]), None, "{line:?}");
        }
    }

    #[test]
    fn an_algorithm_that_was_told_rules_others_out() {
        let line = format!("{SHA256}  a");
        let read = |told: &[Algorithm]| ListedDigest::parse(line.as_bytes(), told);
        assert_eq!(read(&[Algorithm::Sha256]).unwrap().digests, [Algorithm::Sha256.digest(b"abc")]);
        assert_eq!(read(&[Algorithm::Md5]), None);
        let tagged = format!("SHA256 (a) = {SHA256}");
        assert_eq!(ListedDigest::parse(tagged.as_bytes(), &[Algorithm::Blake3]), None);
    }

    #[test]
    fn what_was_written_is_read_again_whatever_the_name() {
        let names: [&[u8]; 7] = [b"a", b" a ", b"*a", b"a\\\n\r", b"(a) = b", b"\xff", b"\\"];
        for algorithm in Algorithm::ALL {
            for (is_tagged, is_binary) in [(false, false), (true, false), (false, true)] {
                for name in names {
                    let line = Line { digest: algorithm.digest(name), name };
                    if !line.can_be_checked() && !is_tagged {
                        continue;
                    }
                    let mut list = Vec::new();
                    let form = LineForm { is_tagged, is_binary, ends_with_nul: false };
                    line.write_as(form, &mut list);
                    let read = ListedDigest::parse(list.trim_ascii_end(), &[]).unwrap();
                    // A blank at the end belongs to the name, and is cut off with the line's end here.
                    assert_eq!(read.name.trim_ascii_end(), name.trim_ascii_end());
                    assert!(read.digests.contains(&line.digest), "{list:?}");
                }
            }
        }
    }
}
