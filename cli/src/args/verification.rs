//! What is hashed, compared and written down.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ucp_engine::copy::{self, ManifestForm};
use ucp_engine::digest::Algorithm;

use super::path;

/// What is hashed, compared and written down.
#[derive(Args, Debug)]
#[command(next_help_heading = "Verification")]
pub(crate) struct Verification {
    /// Read each target back from its device before it gets its name, and compare by digests of
    /// this kind [without a value: xxh3-128]
    #[arg(long, value_name = "ALGO", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "xxh3-128")]
    pub(crate) verify: Option<Algorithm>,
    /// Make a digest of each file on its way, for the account: crc32, crc32c, xxh3-64, xxh3-128,
    /// blake3, sha256, sha512 or md5
    #[arg(long, value_name = "ALGO")]
    pub(crate) digest: Option<Algorithm>,
    /// Write the digests of all files to FILE, by names relative to the target
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(crate) manifest: Option<PathBuf>,
    /// What checks the manifest [default: by its name's end, as in list.b3sum; else sha256sum]
    #[arg(long, value_name = "FORMAT", requires = "manifest")]
    pub(crate) manifest_format: Option<Format>,
    /// Leave alone what stands at the target and is the same by size and time, or by its bytes
    /// [without a value: size+time]
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "size+time")]
    pub(crate) check_existing: Option<CheckExisting>,
}

/// What reads a manifest.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    Sha256sum,
    Sha512sum,
    Md5sum,
    B3sum,
    Xxh128sum,
    Json,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum CheckExisting {
    #[value(name = "size+time")]
    SizeAndTime,
    Hash,
}

impl Verification {
    /// Fails if the options contradict each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        let manifest = self.manifest();
        match (self.digest, manifest) {
            (Some(digest), Some(manifest)) if digest != manifest.algorithm => Err(format!(
                "cannot combine --digest={digest} with a manifest of {}",
                manifest.algorithm
            )),
            _ => Ok(()),
        }
    }

    /// Tells the engine.
    pub(crate) fn apply(&self, options: &mut copy::Options) {
        options.verification = copy::Verification {
            verify: self.verify,
            digest: self.digest,
            manifest: self.manifest(),
            check_existing: self.check_existing.map(|how| match how {
                CheckExisting::SizeAndTime => copy::CheckExisting::SizeAndTime,
                CheckExisting::Hash => copy::CheckExisting::Hash,
            }),
        };
    }

    fn manifest(&self) -> Option<copy::Manifest> {
        let path = self.manifest.clone()?;
        let format = self.manifest_format.unwrap_or_else(|| Format::of(&path));
        let algorithm = format.algorithm().or(self.digest).unwrap_or(Algorithm::Blake3);
        let form = match format {
            Format::Json => ManifestForm::Json,
            _ => ManifestForm::Lines,
        };
        Some(copy::Manifest { path, algorithm, form })
    }
}

impl Format {
    /// The format that a name asks for by its end.
    fn of(path: &Path) -> Self {
        let end = path.extension().or(path.file_name()).unwrap_or_default();
        match end.to_string_lossy().to_ascii_lowercase().as_str() {
            "sha512" | "sha512sum" | "sha512sums" => Self::Sha512sum,
            "md5" | "md5sum" | "md5sums" => Self::Md5sum,
            "b3" | "b3sum" | "b3sums" | "blake3" => Self::B3sum,
            "xxh128" | "xxh128sum" => Self::Xxh128sum,
            "json" | "jsonl" | "ndjson" => Self::Json,
            _ => Self::Sha256sum,
        }
    }

    /// What its digests are made by; JSON takes any.
    fn algorithm(self) -> Option<Algorithm> {
        match self {
            Self::Sha256sum => Some(Algorithm::Sha256),
            Self::Sha512sum => Some(Algorithm::Sha512),
            Self::Md5sum => Some(Algorithm::Md5),
            Self::B3sum => Some(Algorithm::Blake3),
            Self::Xxh128sum => Some(Algorithm::Xxh3_128),
            Self::Json => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::CopyArguments;
    use super::*;

    fn parsed(words: &[&str]) -> Verification {
        CopyArguments::try_parse_from([&["ucp", "a", "b"], words].concat()).unwrap().verification
    }

    #[test]
    fn a_manifest_s_name_tells_its_form_unless_the_user_does() {
        use ManifestForm::{Json, Lines};

        let cases: [(&[&str], _, _); 8] = [
            (&["--manifest=m"], Algorithm::Sha256, Lines),
            (&["--manifest=m.sha256"], Algorithm::Sha256, Lines),
            (&["--manifest=SHA512SUMS"], Algorithm::Sha512, Lines),
            (&["--manifest=x.b3sum"], Algorithm::Blake3, Lines),
            (&["--manifest=x.md5"], Algorithm::Md5, Lines),
            (&["--manifest=x.json"], Algorithm::Blake3, Json),
            (&["--manifest=x.json", "--digest=crc32c"], Algorithm::Crc32c, Json),
            (&["--manifest=x.json", "--manifest-format=b3sum"], Algorithm::Blake3, Lines),
        ];
        for (words, algorithm, form) in cases {
            let manifest = parsed(words).manifest().unwrap();
            assert_eq!((manifest.algorithm, manifest.form), (algorithm, form), "{words:?}");
        }
    }

    #[test]
    fn values_are_optional_where_one_is_the_usual() {
        let asked = parsed(&["--verify", "--check-existing"]);
        assert_eq!(asked.verify, Some(Algorithm::Xxh3_128));
        assert_eq!(asked.check_existing, Some(CheckExisting::SizeAndTime));
        let asked = parsed(&["--verify=sha256", "--check-existing=hash"]);
        assert_eq!(asked.verify, Some(Algorithm::Sha256));
        assert_eq!(asked.check_existing, Some(CheckExisting::Hash));
        let asked = parsed(&[]);
        assert_eq!((asked.verify, asked.check_existing), (None, None));
    }

    #[test]
    fn two_digests_at_once_are_refused() {
        assert!(parsed(&["--digest=md5", "--manifest=m"]).check().is_err());
        assert!(parsed(&["--digest=sha256", "--manifest=m"]).check().is_ok());
    }
}
