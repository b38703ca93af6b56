//! Differences that are meant. Each is described in docs/differences-from-cp.md.

use nix::libc;

use super::call::{Call, Persona};
use super::play::Outcome;
use super::snapshot::{Difference, Time};
use super::tree::{Kind, Node};

/// Whether a difference is one that is meant. What `ucp` did is held against what is promised, not
/// only found to differ.
pub(crate) fn is_allowed(
    difference: &Difference,
    call: &Call,
    nodes: &[Node],
    (cp, ucp): (&Outcome, &Outcome),
) -> bool {
    let stood = nodes.iter().find(|node| node.path == difference.path);
    leaves_out_failed_directory(difference, cp, ucp)
        || leaves_itself_alone(difference, stood, ucp)
        || keeps_inherited_group_bit(difference, cp, ucp)
        || call.persona == Persona::Ucp
            && !call.asks_for_attributes()
            && stood.is_some_and(|stood| keeps_what_stood(difference, stood, ucp))
}

/// Whether `ucp` may succeed where cp fails: where cp failed only to give times to what is another
/// user's, and stood there before. `ucp` was not asked to.
pub(crate) fn may_succeed(call: &Call, nodes: &[Node], cp: &Outcome) -> bool {
    let names: Vec<_> = nodes.iter().map(|node| node.path.display().to_string()).collect();
    let is_about_standing = |line: &String| {
        let subject = line.strip_prefix("cp: preserving times for '");
        let name = subject.and_then(|subject| subject.split('\'').next()).unwrap_or_default();
        let name = name.strip_suffix("/.").unwrap_or(name).trim_end_matches('/');
        names.iter().any(|other| other == name)
    };
    call.persona == Persona::Ucp
        && !call.asks_for_attributes()
        && cp.stderr.iter().all(is_about_standing)
}

/// Plain `ucp` leaves a directory that was there as it was, and the mode of what it writes in place.
fn keeps_what_stood(difference: &Difference, stood: &Node, ucp: &Outcome) -> bool {
    let Some(stands) = ucp.snapshot.get(&difference.path) else { return false };
    let is = |time: Time, (seconds, nanoseconds)| {
        time == Time::Now || time == Time::Set(seconds, nanoseconds)
    };
    match (&stood.kind, difference.field) {
        (Kind::Directory, "mode") => stands.mode == stood.mode,
        (Kind::Directory, "accessed") => is(stands.accessed, stood.accessed),
        (Kind::Directory, "modified") => is(stands.modified, stood.modified),
        // Whoever writes into a file takes its set-id bits.
        (Kind::File(_) | Kind::HardLink(_), "mode") => {
            stands.mode == stood.mode || stands.mode == stood.mode & 0o1777
        }
        (Kind::Fifo | Kind::Character(..), "mode") => stands.mode == stood.mode,
        _ => false,
    }
}

/// Of a directory that can't be read, or would be copied into itself, cp makes an empty one, which
/// looks like its copy; `ucp` makes none. Both say so, and fail.
fn leaves_out_failed_directory(difference: &Difference, cp: &Outcome, ucp: &Outcome) -> bool {
    let is_empty = || {
        let made = cp.snapshot.get(&difference.path);
        let mut names = cp.snapshot.keys();
        made.is_some_and(|made| made.kind == libc::S_IFDIR)
            && !names.any(|name| name.parent() == Some(&difference.path))
    };
    difference.field == "name"
        && !ucp.snapshot.contains_key(&difference.path)
        && is_empty()
        && ucp.code == Some(1)
        && ucp.stderr.iter().any(|line| {
            line.contains("Permission denied") || line.contains("a directory into itself")
        })
}

/// Of a directory that would be copied into itself cp makes some of the copy, until it notices;
/// `ucp` notices first.
fn leaves_itself_alone(difference: &Difference, stood: Option<&Node>, ucp: &Outcome) -> bool {
    let notices = |line: &String| line.contains("a directory into itself");
    let is_untouched = match (ucp.snapshot.get(&difference.path), stood) {
        (None, None) => true,
        (Some(stands), Some(stood)) => {
            let is = |time: Time, (seconds, nanoseconds)| time == Time::Set(seconds, nanoseconds);
            is(stands.accessed, stood.accessed) && is(stands.modified, stood.modified)
        }
        _ => false,
    };
    is_untouched && ucp.code == Some(1) && ucp.stderr.iter().any(notices)
}

/// A new directory has the set-group-id bit of the one that it is made in. cp keeps it, but for a
/// source with a set-id or sticky bit, where it happens to set the mode by another call; `ucp`
/// keeps it always.
fn keeps_inherited_group_bit(difference: &Difference, cp: &Outcome, ucp: &Outcome) -> bool {
    let (Some(cp), Some(ucp)) =
        (cp.snapshot.get(&difference.path), ucp.snapshot.get(&difference.path))
    else {
        return false;
    };
    let has_special = cp.mode & 0o7000 != 0;
    difference.field == "mode"
        && cp.kind == libc::S_IFDIR
        && has_special
        && ucp.mode == cp.mode | 0o2000
}

/// Whether a line on standard output may be missing: cp tells of a file when it begins to copy it,
/// `ucp` when that is done. It must have failed on this one. And `ucp` under its own name does not
/// say that cp removes what stands in the way: it renames over that.
pub(crate) fn may_be_silent_about(line: &str, call: &Call, complaints: &[String]) -> bool {
    if line.starts_with("removed '") {
        return call.persona == Persona::Ucp;
    }
    let names: Vec<&str> = line.split(" -> ").map(|name| name.trim_matches('\'')).collect();
    complaints.iter().any(|complaint| names.iter().any(|name| complaint.contains(name)))
}
