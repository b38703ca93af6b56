//! The account for people who want to know why: `--explain`, two lines a file.

use std::path::Path;

use ucp_engine::copy::{CacheEffect, Copied, Publication, Verified};
use ucp_engine::units::Bytes;

use crate::quote;

/// What was done, and why: the lines of one file, without the last line feed.
pub(crate) fn lines(copied: &Copied<'_>) -> String {
    let names = names(copied.source, copied.target);
    format!("{names}\n    {}", parts(copied).join("; "))
}

/// The lines of a file that was not copied.
pub(crate) fn up_to_date(source: &Path, target: &Path) -> String {
    format!("{}\n    up to date, by its size and times at least", names(source, target))
}

fn names(source: &Path, target: &Path) -> String {
    format!("{} -> {}", quote::always(source), quote::always(target))
}

fn parts(copied: &Copied<'_>) -> Vec<String> {
    let mut parts = vec![how(copied)];
    parts.extend(copied.fell_back.iter().map(ToString::to_string));
    if copied.is_shared == Some(true) {
        parts.push("its extents are shared with the source's".to_owned());
    }
    if copied.resumed_bytes > 0 {
        let there = Bytes(copied.resumed_bytes);
        parts.push(format!("{there} of it were there, from a copy that was interrupted"));
    }
    if let Some(reason) = copied.begins_again {
        parts.push(format!("interrupted, it would have begun again, as {reason}"));
    }
    if let Some(holes @ 1..) = copied.holes_bytes {
        parts.push(format!("{} of it are holes", Bytes(holes)));
    }
    parts.push(name(copied.publication));
    if let Ok(digest) = &copied.digest {
        parts.push(format!("{} {}", digest.algorithm, digest.hex));
    }
    match copied.verified {
        Some(Verified::Device) => parts.push("verified on the device".to_owned()),
        Some(Verified::Cache) => parts.push("verified in the page cache".to_owned()),
        None => {}
    }
    match copied.cache {
        Some(CacheEffect::AsBefore) => parts.push("the page cache is as it was".to_owned()),
        Some(CacheEffect::Changed) => parts.push("some of it stays in the page cache".to_owned()),
        None => {}
    }
    if let Some(elapsed) = copied.elapsed {
        let size = copied.path.map(|_| format!("{} in ", Bytes(copied.bytes)));
        parts.push(format!("{}{:.6} s", size.unwrap_or_default(), elapsed.as_secs_f64()));
    }
    parts
}

/// Which way the data went and why; or what was done, where there is no data.
fn how(copied: &Copied<'_>) -> String {
    match (copied.path, copied.path_reason) {
        (Some(path), Some(reason)) => format!("{path}, because {reason}"),
        (Some(path), None) => path.to_string(),
        (None, _) => format!("{} {}", copied.kind.name(), copied.action.name()),
    }
}

fn name(publication: Publication) -> String {
    match publication {
        Publication::New => "under a new name".to_owned(),
        Publication::Replaced => "replaced what stood there".to_owned(),
        Publication::Staged => "appears with its directory".to_owned(),
        Publication::Existing => "was there before".to_owned(),
        Publication::InPlace(reason) => {
            format!("written in place: {}", quote::without_controls(reason))
        }
    }
}
