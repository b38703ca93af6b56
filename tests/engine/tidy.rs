//! Rules about the sources that the compiler does not know.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder or file of `engine/src`, and the row of the design that it belongs to. The first match
/// counts.
const ROWS: [(&str, u32); 17] = [
    ("lib.rs", u32::MAX),
    ("error.rs", 0),
    ("limits.rs", 0),
    ("units.rs", 0),
    ("random.rs", 0),
    ("cache_policy.rs", 0),
    ("digest/", 0),
    ("sys/", 1),
    ("buffer/", 2),
    ("operation/", 3),
    ("processor/", 4),
    ("proactor/", 5),
    ("copy/", 7),
    // What another job shares with it, a copy shows to those above.
    ("sum/", 8),
    ("compare/", 9),
    ("tail/", 7),
    ("", u32::MAX),
];

/// The files and folders of a job that decide, and do nothing: no I/O, no clock.
const PURE: &[&str] = &[
    "copy/absence.rs",
    "copy/access.rs",
    "copy/account.rs",
    "copy/batch.rs",
    "copy/extraneous.rs",
    "copy/file_system.rs",
    "copy/fingerprint.rs",
    "copy/holes.rs",
    "copy/journal.rs",
    "copy/options/",
    "copy/pipeline.rs",
    "copy/publication.rs",
    "copy/verdict.rs",
    "copy/reason.rs",
    "copy/reread.rs",
    "copy/route.rs",
    "copy/segments.rs",
    "copy/signature.rs",
    "copy/throttle.rs",
    "copy/zeros.rs",
    "sum/account.rs",
    "sum/folding.rs",
    "sum/plan.rs",
    "sum/shelf.rs",
    "sum/sorting.rs",
    "sum/way.rs",
    "digest/",
    "tail/change.rs",
    "tail/checkpoint.rs",
    "tail/cut.rs",
    "tail/ledger.rs",
    "tail/source.rs",
    "tail/sources.rs",
    "tail/trail.rs",
];

/// The only places for `unsafe`.
const UNSAFE: [&str; 5] =
    ["sys/", "buffer/arena.rs", "processor/slots.rs", "processor/groups.rs", "processor/kernel.rs"];

#[test]
fn a_file_imports_from_lower_rows_only() {
    check(|file, source| {
        let own = row(file);
        let is_job = (7..u32::MAX).contains(&own);
        imports(source)
            .filter(|import| {
                let imported = row(&format!("{import}/")).min(row(&format!("{import}.rs")));
                let is_same_folder = file.starts_with(&format!("{import}/"));
                let is_below = imported < own || (own == 0 && imported == 0);
                (!is_below && !is_same_folder) || (is_job && *import == "sys")
            })
            .map(|import| format!("imports from {import}, which is not below it"))
            .collect()
    });
}

#[test]
fn what_decides_does_no_io_and_reads_no_clock() {
    check(|file, source| {
        if !PURE.iter().any(|pure| file.starts_with(pure)) {
            return Vec::new();
        }
        let words =
            ["std::fs", "std::net", "std::time::Instant", "Instant::now", "SystemTime", "nix::"];
        // The bytes of names: no I/O.
        let source = &source.replace("std::os::unix::ffi", "");
        let used = words.into_iter().filter(|word| source.contains(word));
        let used = used.map(|word| format!("uses {word}, and shall only decide"));
        let imported = |import: &str| row(&format!("{import}/")).min(row(&format!("{import}.rs")));
        let above = imports(source).filter(|import| imported(import) != 0);
        let above = above.filter(|import| *import != "copy");
        used.chain(above.map(|import| format!("imports from {import}, and shall only decide")))
            .collect()
    });
}

#[test]
fn unsafe_stays_in_its_homes() {
    check(|file, source| {
        let is_home = UNSAFE.iter().any(|home| file.starts_with(home));
        let blocks = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"];
        let used = blocks.into_iter().filter(|block| source.contains(block));
        used.filter(|_| !is_home).map(|block| format!("has `{block}`")).collect()
    });
}

/// Applies a rule to every source of the engine, and fails with all that it finds.
fn check(rule: impl Fn(&str, &str) -> Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the sources are there");
    let mut found = Vec::new();
    for path in files {
        let source = fs::read_to_string(&path).unwrap();
        // Unit tests may use what they like.
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap();
        found.extend(rule(file, source).into_iter().map(|what| format!("{file} {what}")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn row(file: &str) -> u32 {
    let found = ROWS.iter().find(|(prefix, _)| file.starts_with(prefix));
    found.map_or(u32::MAX, |(_, row)| *row)
}

/// The top modules that a source names after `crate::`.
fn imports(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| {
        line.match_indices("crate::").filter_map(|(start, word)| {
            let path = &line[start + word.len()..];
            let end =
                path.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(path.len());
            (end > 0).then(|| &path[..end])
        })
    })
}
