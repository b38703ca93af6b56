//! Digests: what a few bytes say about many.
//!
//! A [`Hasher`] takes bytes in their order; [`Order`] brings blocks that complete out of order back
//! into it; a [`Tree`] needs only the digests of pieces in order. A [`Line`] is how digests are
//! written down so that `sha256sum -c` reads them, a [`ListedDigest`] what such a line says.

mod line;
mod listed;
mod order;
mod tree;

use std::fmt;
use std::hash::Hasher as _;
use std::str::FromStr;

use blake3::Hasher as Blake3;
use crc_fast::CrcAlgorithm::Crc32Iscsi;
use md5::{Digest as _, Md5};
use sha2::{Sha256, Sha512};
use twox_hash::{XxHash3_64, XxHash3_128};

pub use line::{Line, LineForm, escape_name};
pub use listed::ListedDigest;
pub use order::Order;
pub use tree::{Subtree, Tree};

/// A way to make a digest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    /// The checksum of zip and Ethernet (CRC-32/ISO-HDLC).
    Crc32,
    /// The checksum of iSCSI, ext4 and btrfs (Castagnoli's polynomial).
    Crc32c,
    /// XXH3, 64 bits: finds accidents, and is as fast as memory.
    Xxh3_64,
    /// XXH3, 128 bits: the same, wide enough for any number of files.
    Xxh3_128,
    /// BLAKE3: nobody can make another file with the same digest.
    Blake3,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// MD5 (RFC 1321): for old lists only; collisions are made in seconds.
    Md5,
}

/// Bytes of the longest digest.
const DIGEST_BYTES_MAX: usize = 64;

/// What an algorithm makes of a file. It is written in hexadecimal, as all tools do.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; DIGEST_BYTES_MAX],
}

/// Makes a digest of bytes that come piece by piece.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    state: State,
}

/// The large ones are boxed: hashers are moved about.
#[derive(Clone)]
enum State {
    Crc32(crc32fast::Hasher),
    Crc32c(crc_fast::Digest),
    Xxh3_64(Box<XxHash3_64>),
    Xxh3_128(Box<XxHash3_128>),
    Blake3(Box<Blake3>),
    Sha256(Sha256),
    Sha512(Sha512),
    Md5(Md5),
}

impl Algorithm {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Xxh3_64,
        Self::Xxh3_128,
        Self::Blake3,
        Self::Sha256,
        Self::Sha512,
        Self::Md5,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
            Self::Xxh3_64 => "xxh3-64",
            Self::Xxh3_128 => "xxh3-128",
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Md5 => "md5",
        }
    }

    /// Bytes of its digests.
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Xxh3_64 => 8,
            Self::Xxh3_128 | Self::Md5 => 16,
            Self::Blake3 | Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The digest of bytes that are all there.
    ///
    /// # Examples
    ///
    /// ```
    /// use ucp_engine::digest::Algorithm;
    ///
    /// assert_eq!(Algorithm::Crc32.digest(b"123456789").to_string(), "cbf43926");
    /// ```
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            // One call is faster than a hasher, which keeps a buffer and a secret of its own.
            Self::Xxh3_64 => Digest::new(self, &XxHash3_64::oneshot(bytes).to_be_bytes()),
            Self::Xxh3_128 => Digest::new(self, &XxHash3_128::oneshot(bytes).to_be_bytes()),
            _ => {
                let mut hasher = self.hasher();
                hasher.update(bytes);
                hasher.finish()
            }
        }
    }

    /// A hasher that has seen nothing.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        let state = match self {
            Self::Crc32 => State::Crc32(crc32fast::Hasher::new()),
            Self::Crc32c => State::Crc32c(crc_fast::Digest::new(Crc32Iscsi)),
            Self::Xxh3_64 => State::Xxh3_64(Box::new(XxHash3_64::new())),
            Self::Xxh3_128 => State::Xxh3_128(Box::new(XxHash3_128::new())),
            Self::Blake3 => State::Blake3(Box::new(Blake3::new())),
            Self::Sha256 => State::Sha256(Sha256::new()),
            Self::Sha512 => State::Sha512(Sha512::new()),
            Self::Md5 => State::Md5(Md5::new()),
        };
        Hasher { algorithm: self, state }
    }
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Crc32(hasher) => hasher.update(bytes),
            State::Crc32c(hasher) => hasher.update(bytes),
            State::Xxh3_64(hasher) => hasher.write(bytes),
            State::Xxh3_128(hasher) => hasher.write(bytes),
            State::Blake3(hasher) => drop(hasher.update(bytes)),
            State::Sha256(hasher) => hasher.update(bytes),
            State::Sha512(hasher) => hasher.update(bytes),
            State::Md5(hasher) => hasher.update(bytes),
        }
    }

    /// Takes so many zeros: the bytes of a hole.
    pub fn update_zeros(&mut self, mut count: u64) {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        while count > 0 {
            let part = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len());
            self.update(&ZEROS[..part]);
            count -= part as u64;
        }
    }

    /// The digest of all bytes that were taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm;
        let of = |bytes: &[u8]| Digest::new(algorithm, bytes);
        match self.state {
            State::Crc32(hasher) => of(&hasher.finalize().to_be_bytes()),
            // The crate gives every width as 64 bits.
            State::Crc32c(hasher) => of(&hasher.finalize().to_be_bytes()[4..]),
            State::Xxh3_64(hasher) => of(&hasher.finish().to_be_bytes()),
            State::Xxh3_128(hasher) => of(&hasher.finish_128().to_be_bytes()),
            State::Blake3(hasher) => of(hasher.finalize().as_bytes()),
            State::Sha256(hasher) => of(&hasher.finalize()),
            State::Sha512(hasher) => of(&hasher.finalize()),
            State::Md5(hasher) => of(&hasher.finalize()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm)
    }
}

impl Digest {
    pub(crate) fn new(algorithm: Algorithm, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), algorithm.digest_bytes(), "a digest of {algorithm}");
        let mut all = [0; DIGEST_BYTES_MAX];
        all[..bytes.len()].copy_from_slice(bytes);
        Self { algorithm, bytes: all }
    }

    /// The digest that is written so, in digits of any case; none if it is not one of this
    /// algorithm.
    #[must_use]
    pub fn from_hex(algorithm: Algorithm, digits: &[u8]) -> Option<Self> {
        let value = |digit: u8| (digit as char).to_digit(16).and_then(|it| u8::try_from(it).ok());
        let length = algorithm.digest_bytes();
        if digits.len() != 2 * length {
            return None;
        }
        let mut bytes = [0; DIGEST_BYTES_MAX];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(Self::new(algorithm, &bytes[..length]))
    }

    /// What it was made by.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its bytes, the most significant first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.digest_bytes()]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No algorithm has this name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownAlgorithm(String);

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    /// By its name, in any case, with or without the hyphen; `b3` and `xxh128` are understood too.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_')).collect();
        let plain = plain.to_ascii_lowercase();
        let found = match plain.as_str() {
            "b3" => Some(Self::Blake3),
            "xxh128" | "xxh3" => Some(Self::Xxh3_128),
            "xxh364" => Some(Self::Xxh3_64),
            plain => Self::ALL.into_iter().find(|it| it.name().replace('-', "") == plain),
        };
        found.ok_or_else(|| UnknownAlgorithm(name.to_owned()))
    }
}

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Algorithm::ALL.map(Algorithm::name).join(", ");
        write!(f, "no algorithm is called {:?}; there are {names}", self.0)
    }
}

impl std::error::Error for UnknownAlgorithm {}

#[cfg(test)]
mod tests {
    use super::*;

    /// `fixtures/digests/NAME`: lines of a rule for bytes, a count of them, and their digest.
    fn vectors(algorithm: Algorithm) -> Vec<(Vec<u8>, String)> {
        let path = format!("{}/../fixtures/digests/{algorithm}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let vector = |line: &str| {
            let mut words = line.split_whitespace();
            let (rule, what) = (words.next().unwrap(), words.next().unwrap());
            let bytes = match rule {
                // Those of the BLAKE3 project's test vectors.
                "count-251" => (0..what.parse().unwrap())
                    .map(|at: u32| u8::try_from(at % 251).unwrap())
                    .collect(),
                "text" => what.trim_matches('"').as_bytes().to_vec(),
                "a" => vec![b'a'; what.parse().unwrap()],
                "zeros" => vec![0; what.parse().unwrap()],
                "ones" => vec![0xff; what.parse().unwrap()],
                rule => panic!("{path}: no such rule: {rule}"),
            };
            (bytes, words.next().unwrap().to_owned())
        };
        lines.map(vector).collect()
    }

    #[test]
    fn published_vectors_are_met_in_one_piece_and_in_many() {
        for algorithm in Algorithm::ALL {
            let vectors = vectors(algorithm);
            assert!(vectors.len() > 20, "{algorithm}: {} vectors", vectors.len());
            for (bytes, want) in vectors {
                let length = bytes.len();
                assert_eq!(algorithm.digest(&bytes).to_string(), want, "{algorithm} of {length}");
                for piece in [1, 63, 1000, 65_536] {
                    let mut hasher = algorithm.hasher();
                    bytes.chunks(piece).for_each(|part| hasher.update(part));
                    assert_eq!(hasher.finish().to_string(), want, "{algorithm} of {length}");
                }
            }
        }
    }

    #[test]
    fn zeros_of_a_hole_are_zeros() {
        for algorithm in Algorithm::ALL {
            for count in [0, 1, 65_535, 65_536, 200_000] {
                let mut hasher = algorithm.hasher();
                hasher.update(b"before");
                hasher.update_zeros(count);
                let mut bytes = b"before".to_vec();
                bytes.resize(6 + usize::try_from(count).unwrap(), 0);
                assert_eq!(hasher.finish(), algorithm.digest(&bytes), "{algorithm}, {count} zeros");
            }
        }
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        let cases = [
            ("blake3", Some(Algorithm::Blake3)),
            ("B3", Some(Algorithm::Blake3)),
            ("SHA-256", Some(Algorithm::Sha256)),
            ("xxh3", Some(Algorithm::Xxh3_128)),
            ("xxh3-64", Some(Algorithm::Xxh3_64)),
            ("XXH128", Some(Algorithm::Xxh3_128)),
            ("crc32c", Some(Algorithm::Crc32c)),
            ("sha1", None),
            ("", None),
        ];
        for (name, want) in cases {
            assert_eq!(name.parse().ok(), want, "{name}");
        }
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
    }
}
