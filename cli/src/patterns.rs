//! Patterns that include and exclude names, in the order of the command line; see
//! `docs/selection.md`.

use std::ffi::OsStr;
use std::path::Path;

use globset::{Candidate, Glob, GlobBuilder, GlobSet};
use ucp_engine::copy::{Filter, Verdict};

use crate::quote;

/// One pattern, as it was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Pattern {
    glob: String,
    is_for_directories: bool,
    verdict: Verdict,
}

/// All patterns, compiled into one.
#[derive(Debug)]
pub(crate) struct Patterns {
    /// Finds all that match at once.
    set: GlobSet,
    patterns: Vec<Pattern>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the user.
    pub(crate) fn new(text: &OsStr, verdict: Verdict) -> Result<Self, String> {
        let refuse = |why: &str| format!("the pattern {} {why}", quote::always(text));
        let Some(words) = text.to_str() else {
            return Err(refuse("is not UTF-8; a '?' stands for any byte of a name"));
        };
        let pattern = words.trim_end_matches('/');
        let is_for_directories = pattern.len() < words.len();
        if pattern.is_empty() {
            return Err(refuse("names nothing"));
        }
        // Where there is a slash, the pattern says where it looks; otherwise it looks everywhere.
        let glob = match pattern.strip_prefix('/') {
            Some(below) => below.to_owned(),
            None if pattern.contains('/') => pattern.to_owned(),
            None => format!("**/{pattern}"),
        };
        let pattern = Self { glob, is_for_directories, verdict };
        match pattern.compile() {
            Ok(_) => Ok(pattern),
            Err(error) => Err(refuse(&format!("can't be read: {}", error.kind()))),
        }
    }

    fn compile(&self) -> Result<Glob, globset::Error> {
        GlobBuilder::new(&self.glob).literal_separator(true).backslash_escape(true).build()
    }
}

impl Patterns {
    /// Compiles patterns; the first that matches a name will decide about it.
    ///
    /// # Errors
    ///
    /// If they are too many or too large together.
    pub(crate) fn new(patterns: Vec<Pattern>) -> Result<Self, String> {
        let compile = || {
            let mut set = GlobSet::builder();
            for pattern in &patterns {
                set.add(pattern.compile()?);
            }
            set.build()
        };
        let set = compile().map_err(|error| format!("the patterns can't be read: {error}"))?;
        Ok(Self { set, patterns })
    }
}

impl Filter for Patterns {
    fn decide(&self, path: &Path, is_directory: bool) -> Verdict {
        let mut matching = self.set.matches_candidate(&Candidate::new(path));
        matching.sort_unstable();
        let applying = matching.into_iter().map(|index| &self.patterns[index]);
        let first = { applying }.find(|pattern| is_directory || !pattern.is_for_directories);
        first.map_or(Verdict::Copied, |pattern| pattern.verdict)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn patterns(words: &[&str]) -> Patterns {
        let patterns = words.iter().map(|word| {
            let (verdict, text) = match word.split_at(1) {
                ("+", text) => (Verdict::Copied, text),
                ("-", text) => (Verdict::Excluded, text),
                _ => panic!("{word}"),
            };
            Pattern::new(OsStr::new(text), verdict).unwrap()
        });
        Patterns::new(patterns.collect()).unwrap()
    }

    /// Each row: patterns, names that are copied, names that are not. A name that ends in '/' is a
    /// directory's.
    #[test]
    fn the_first_pattern_that_matches_decides() {
        let cases: [(&[&str], &[&str], &[&str]); 16] = [
            (&[], &["a", "a/b", "a/"], &[]),
            (&["-a"], &["b", "ab", "b/ab"], &["a", "a/", "b/a", "b/c/a/"]),
            (&["-/a"], &["b/a", "ab"], &["a", "a/"]),
            (&["-a/b"], &["a/", "b", "c/a/b"], &["a/b", "a/b/"]),
            (&["-a/"], &["a", "b/a"], &["a/", "b/a/"]),
            (&["-/a/"], &["a", "b/a/"], &["a/"]),
            (&["-*.o"], &["o", "a.oo", "a.o.c"], &["a.o", ".o", "b/a.o", "a.o/"]),
            (&["-a/*"], &["a/", "a/b/c", "b/a/c"], &["a/b", "a/.b"]),
            (&["-a/**"], &["a/", "b/a/c"], &["a/b", "a/b/c"]),
            (&["-**/b/c"], &["b", "a/b/"], &["b/c", "a/b/c", "x/a/b/c"]),
            (&["-a/**/d"], &["d", "a/dd"], &["a/d", "a/b/d", "a/b/c/d"]),
            (&["-?"], &["ab", "a/bc"], &["a", "b/c"]),
            (&["-[a-c]x", "-[!a-z]y"], &["dx", "ay"], &["ax", "cx", "1y"]),
            (&["-{a,b}.c"], &["c.c"], &["a.c", "b.c"]),
            (&["-\\*"], &["a"], &["*"]),
            (&["+*.c", "+*/", "-*"], &["a.c", "a/", "a/b.c", "a/b/"], &["a", "a/b.h"]),
        ];
        for (words, copied, excluded) in cases {
            let patterns = patterns(words);
            let decide = |name: &str| {
                let path = name.strip_suffix('/');
                patterns.decide(Path::new(path.unwrap_or(name)), path.is_some())
            };
            for name in copied {
                assert_eq!(decide(name), Verdict::Copied, "{name} by {words:?}");
            }
            for name in excluded {
                assert_eq!(decide(name), Verdict::Excluded, "{name} by {words:?}");
            }
        }
    }

    #[test]
    fn the_order_matters_and_nothing_else() {
        let name = Path::new("a.c");
        assert_eq!(patterns(&["+a.c", "-*.c"]).decide(name, false), Verdict::Copied);
        assert_eq!(patterns(&["-*.c", "+a.c"]).decide(name, false), Verdict::Excluded);
        assert_eq!(patterns(&["-a.c/", "+a.c", "-a.c"]).decide(name, false), Verdict::Copied);
    }

    #[test]
    fn names_may_hold_any_byte() {
        let excluded = patterns(&["-?x", "-*.o", "-new\nline"]);
        let cases: [(&[u8], _); 5] = [
            (b"\xffx", Verdict::Excluded),
            (b"\xff\xffx", Verdict::Copied),
            (b"\xfe\n.o", Verdict::Excluded),
            (b"new\nline", Verdict::Excluded),
            (b"dir\xff/\xff.o", Verdict::Excluded),
        ];
        for (name, want) in cases {
            let path = Path::new(OsStr::from_bytes(name));
            assert_eq!(excluded.decide(path, false), want, "{path:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [&b""[..], b"/", b"//", b"[a", b"{a", b"a\xff", b"a\\"] {
            let text = OsStr::from_bytes(text);
            let refused = Pattern::new(text, Verdict::Copied);
            assert!(refused.is_err_and(|why| why.starts_with("the pattern ")), "{text:?}");
        }
    }
}
