//! Differences that are meant. Each is described in docs/differences-from-cp.md.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use nix::libc;

use super::Case;
use super::call::{Call, Persona};
use super::play::Outcome;
use super::snapshot::{Difference, Entry, Time};

/// Access control lists. The last two are the same in another form, which xfs shows to root.
const LISTS: [&str; 4] = [
    "system.posix_acl_access",
    "system.posix_acl_default",
    "trusted.SGI_ACL_FILE",
    "trusted.SGI_ACL_DEFAULT",
];

/// Whether a difference is one that is meant. What `ucp` did is held against what is promised, not
/// only found to differ.
pub(crate) fn is_allowed(
    difference: &Difference,
    Case { call, can_clone, .. }: &Case,
    (cp, ucp): (&Outcome, &Outcome),
) -> bool {
    let stood = ucp.before.get(&difference.path);
    leaves_out_failed_directory(difference, cp, ucp)
        || leaves_directory_above_failed_one(difference, stood, cp, ucp)
        || fails_to_take_back_backup(difference, cp, ucp)
        || leaves_itself_alone(difference, stood, ucp)
        || leaves_no_part(difference, stood, ucp)
        || keeps_name_of_failed_one(difference, cp, ucp)
        || keeps_inherited_group_bit(difference, call, cp, ucp)
        || call.user != 0 && keeps_inherited_group(difference, cp, ucp)
        || call.user != 0 && keeps_more_attributes(difference, cp, ucp)
        || call.user != 0 && leaves_backup(difference, call, ucp)
        || stood.is_some_and(|stood| has_tried_beside(difference, stood, cp, ucp))
        || takes_from_other_directory(difference, call, stood, cp, ucp)
        || makes_plain_special(difference, cp, ucp)
        || leaves_inherited_list(difference, call, stood, cp, ucp)
        || sets_special_bits_too(difference, stood, cp, ucp)
        || stood.is_some_and(|stood| leaves_stream_alone(difference, stood, ucp))
        || *can_clone && has_other_holes_than_clones(difference, call, cp, ucp)
        || call.persona == Persona::Ucp
            && (reads_attributes_through_link(difference, call, cp, ucp)
                || lends_no_rights(difference, call, cp, ucp)
                || copies_fewer_attributes(difference, call, cp, ucp)
                || gives_made_link_no_times(difference, call, ucp)
                || stood.is_some_and(|stood| keeps_what_stood(difference, call, stood, ucp)))
}

/// `ucp` keeps set-id bits and capabilities only where it keeps the owner.
fn lends_no_rights(difference: &Difference, call: &Call, cp: &Outcome, ucp: &Outcome) -> bool {
    let Some((cp, ucp)) = both(difference, cp, ucp) else { return false };
    !call.keeps_owners()
        && match difference.field {
            "mode" => {
                cp.mode & 0o6000 != 0 && ucp.mode == cp.mode & !(cp.mode & !ucp.mode & 0o6000)
            }
            _ => false,
        }
}

/// Of a directory that a followed link leads to, cp keeps the attributes of the link: none, or those
/// that only root may give it.
fn reads_attributes_through_link(
    difference: &Difference,
    call: &Call,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let Some((of_cp, of_ucp)) = both(difference, cp, ucp) else { return false };
    let is_link = |path: &PathBuf| {
        let path: PathBuf = path.components().collect();
        cp.before.get(&path).is_some_and(|entry| entry.kind == libc::S_IFLNK)
    };
    let kept = without(of_cp, if call.keeps_lists() { &[] } else { &LISTS });
    let mut kept = kept.iter();
    difference.field == "attributes"
        && of_cp.kind == libc::S_IFDIR
        && (call.has("-L") || call.sources.iter().any(is_link))
        && kept.all(|(name, value)| {
            let is = |entry: &Entry| entry.attributes.get(name) == Some(value);
            let mut links = cp.before.values().filter(|entry| entry.kind == libc::S_IFLNK);
            is(of_ucp) || links.any(is)
        })
}

/// Where `ucp` keeps modes without being asked, it keeps the bits, and no access control lists; and
/// capabilities only with the owner.
fn copies_fewer_attributes(
    difference: &Difference,
    call: &Call,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let Some((cp, ucp)) = both(difference, cp, ucp) else { return false };
    let mut names = Vec::new();
    if !call.keeps_lists() {
        names.extend(LISTS);
    }
    if !call.keeps_owners() {
        names.push("security.capability");
    }
    difference.field == "attributes" && without(cp, &names) == without(ucp, &names)
}

fn both<'a>(
    difference: &Difference,
    cp: &'a Outcome,
    ucp: &'a Outcome,
) -> Option<(&'a Entry, &'a Entry)> {
    Some((cp.snapshot.get(&difference.path)?, ucp.snapshot.get(&difference.path)?))
}

fn without(entry: &Entry, names: &[&str]) -> BTreeMap<OsString, Vec<u8>> {
    let mut attributes = entry.attributes.clone();
    attributes.retain(|name, _| !names.iter().any(|other| name == other));
    attributes
}

/// Whether `ucp` may succeed where cp fails: where cp failed only to give times to what is another
/// user's, and stood there before. `ucp` was not asked to.
pub(crate) fn may_succeed(Case { call, .. }: &Case, cp: &Outcome) -> bool {
    let names: Vec<_> = cp.before.keys().map(|path| path.display().to_string()).collect();
    let is_about_standing = |line: &String| {
        let subject = line.strip_prefix("cp: preserving times for '");
        let name = subject.and_then(|subject| subject.split('\'').next()).unwrap_or_default();
        let name = name.strip_suffix("/.").unwrap_or(name).trim_end_matches('/');
        !call.asks_for_attributes() && names.iter().any(|other| other == name)
    };
    // What only root may read or set, `ucp` does not miss.
    let is_about_attribute = |line: &String| {
        let attributes = ["attribute 'trusted.", "attribute 'security.capability'"];
        call.user != 0 && attributes.iter().any(|attribute| line.contains(attribute))
    };
    call.persona == Persona::Ucp
        && cp.stderr.iter().all(|line| is_about_standing(line) || is_about_attribute(line))
}

/// Unless it is asked for them, `ucp` leaves its mode and times to a directory that was there, and
/// its mode to what it writes in place.
fn keeps_what_stood(difference: &Difference, call: &Call, stood: &Entry, ucp: &Outcome) -> bool {
    let Some(stands) = ucp.snapshot.get(&difference.path) else { return false };
    let may_keep_times = stood.kind == libc::S_IFDIR && !call.asks_for_attributes();
    let is = |time, before| time == Time::Now || time == before;
    match difference.field {
        // Whoever writes into a file, or gives it away, takes its set-id bits.
        "mode" if !call.keeps_lists() => {
            stands.mode & !stood.mode == 0 && stood.mode & !stands.mode & 0o1777 == 0
        }
        "accessed" => may_keep_times && is(stands.accessed, stood.accessed),
        "modified" => may_keep_times && is(stands.modified, stood.modified),
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

/// What cp makes of such a directory, it makes in another one, whose times that changes.
fn leaves_directory_above_failed_one(
    difference: &Difference,
    stood: Option<&Entry>,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let Some((of_cp, of_ucp)) = both(difference, cp, ucp) else { return false };
    let is_left_out = |path: &&PathBuf| {
        let name = Difference { path: (*path).clone(), field: "name", ..difference.clone() };
        path.parent() == Some(&difference.path) && leaves_out_failed_directory(&name, cp, ucp)
    };
    difference.field == "modified"
        && of_cp.modified == Time::Now
        && stood.is_some_and(|stood| stood.modified == of_ucp.modified)
        && cp.snapshot.keys().any(|path| is_left_out(&path))
}

/// Where a directory may not be listed, cp 9.1 puts the backup into its working directory; there it
/// does not find it to take it back after a failure.
fn fails_to_take_back_backup(difference: &Difference, cp: &Outcome, ucp: &Outcome) -> bool {
    difference.field == "name"
        && difference.path.components().count() == 1
        && !ucp.snapshot.contains_key(&difference.path)
        && cp.stderr.iter().any(|line| line.starts_with("cp: cannot un-backup "))
}

/// Of a directory that would be copied into itself cp makes some of the copy, until it notices;
/// `ucp` notices first.
fn leaves_itself_alone(difference: &Difference, stood: Option<&Entry>, ucp: &Outcome) -> bool {
    let notices = |line: &String| line.contains("a directory into itself");
    let is_untouched = match (ucp.snapshot.get(&difference.path), stood) {
        (None, None) => true,
        (Some(stands), Some(stood)) => {
            (stands.accessed, stands.modified) == (stood.accessed, stood.modified)
        }
        _ => false,
    };
    is_untouched && ucp.code == Some(1) && ucp.stderr.iter().any(notices)
}

/// Where cp fails on a file, it leaves it empty or in part; `ucp` leaves the name as it was.
fn leaves_no_part(difference: &Difference, stood: Option<&Entry>, ucp: &Outcome) -> bool {
    let name = difference.path.file_name().unwrap_or_default().to_string_lossy();
    // A name that is printed otherwise than it is can't be looked for.
    let is_quoted = name.contains(|c: char| c.is_control() || c == '\'' || c == '\u{fffd}');
    let fails = |line: &String| {
        let is_unreadable_directory = line.contains("open failed on ")
            && stood.is_some_and(|stood| stood.kind == libc::S_IFDIR);
        // The name that it is called by may lead to another name of it.
        let is_clone = line.contains(": clone failed on ");
        let is_named = is_quoted || is_clone || is_unreadable_directory || line.contains(&*name);
        (line.contains(" failed on ") || line.starts_with("cp: ")) && is_named
    };
    let is_untouched = match (ucp.snapshot.get(&difference.path), stood) {
        (None, None) => true,
        (Some(stands), Some(stood)) => {
            (stands.modified, &stands.content) == (stood.modified, &stood.content)
        }
        _ => false,
    };
    is_untouched && ucp.code == Some(1) && ucp.stderr.iter().any(fails)
}

/// So a file that cp has taken one name from keeps it.
fn keeps_name_of_failed_one(difference: &Difference, cp: &Outcome, ucp: &Outcome) -> bool {
    let Some(of_ucp) = ucp.snapshot.get(&difference.path) else { return false };
    let is_kept = |(path, entry): (&PathBuf, &Entry)| {
        let name = Difference { path: path.clone(), field: "name", ..difference.clone() };
        entry.same_as == of_ucp.same_as
            && !cp.snapshot.contains_key(path)
            && leaves_no_part(&name, ucp.before.get(path), ucp)
    };
    matches!(difference.field, "links" | "same file as") && ucp.snapshot.iter().any(is_kept)
}

/// cp shares the extents of small files, holes and zeros alike, even with --sparse=never; `ucp`
/// copies them, finds zeros, and makes no holes where it must not.
fn has_other_holes_than_clones(
    difference: &Difference,
    call: &Call,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let Some((cp, ucp)) = both(difference, cp, ucp) else { return false };
    let is_within =
        |(start, end): &(u64, u64)| cp.data.iter().any(|(from, to)| from <= start && end <= to);
    let is_dense = ucp.data.len() == 1 && ucp.data[0].0 == 0;
    if call.has("--sparse=never") {
        return difference.field == "data" && is_dense;
    }
    difference.field == "data" && ucp.data.iter().all(is_within)
}

/// A new directory has the set-group-id bit of the one that it is made in. cp keeps it, but for a
/// source with a set-id or sticky bit, where it happens to set the mode by another call; `ucp`
/// keeps it always.
fn keeps_inherited_group_bit(
    difference: &Difference,
    call: &Call,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let snapshot = &ucp.snapshot;
    let Some((cp, ucp)) = both(difference, cp, ucp) else { return false };
    let has_special = cp.mode & 0o7000 != 0;
    // cp makes a directory with the sticky bit of its source, and loses sight of it where modes or
    // owners are not kept.
    let sticks = cp.mode == ucp.mode | 0o1000 && (call.user != 0 || call.has("--no-preserve=mode"));
    // The kernel takes it from who changes a mode and is not in that group.
    let mut above = difference.path.ancestors().skip(1).filter_map(|path| snapshot.get(path));
    let hands_down = above.any(|above| above.mode & 0o2000 != 0);
    let is_taken = call.user != 0 && hands_down && ucp.mode == cp.mode | 0o2000;
    // Asked for modes, `ucp` gives exactly the source's.
    let gives_exactly = call.keeps_lists() && cp.mode == ucp.mode | 0o2000;
    difference.field == "mode"
        && cp.kind == libc::S_IFDIR
        && (gives_exactly || sticks || is_taken || has_special && ucp.mode == cp.mode | 0o2000)
}

/// What is made in such a directory has its group. cp changes the mode of a directory in which its
/// owner may not write, twice, and the kernel takes the bit then from who is not in that group;
/// `ucp` makes it so that it need not be changed before it is full.
fn keeps_inherited_group(difference: &Difference, cp: &Outcome, ucp: &Outcome) -> bool {
    let Some((of_cp, of_ucp)) = both(difference, cp, ucp) else { return false };
    let parent = difference.path.parent().and_then(|parent| ucp.snapshot.get(parent));
    difference.field == "owner"
        && parent.is_some_and(|parent| {
            let is_closed = parent.mode & 0o700 != 0o700;
            is_closed && of_ucp.owner == (of_cp.owner.0, parent.owner.1)
        })
}

/// For who is not root, cp gives up on all attributes, lists among them, with the first that it may
/// not read, and sets them when it may not write any more; `ucp` keeps what it may.
fn keeps_more_attributes(difference: &Difference, cp: &Outcome, ucp: &Outcome) -> bool {
    let gave_up = |line: &String| line.starts_with("cp: getting attribute ");
    let has_given_up = cp.stderr.iter().any(gave_up);
    let Some((cp, ucp)) = both(difference, cp, ucp) else { return false };
    let mut kept = cp.attributes.iter();
    match difference.field {
        "attributes" => kept.all(|(name, value)| ucp.attributes.get(name) == Some(value)),
        "mode" => has_given_up,
        _ => false,
    }
}

/// `ucp` makes a new thing beside the old one before it finds that it can't be renamed; cp begins
/// by removing the old one, and can't.
fn has_tried_beside(difference: &Difference, stood: &Entry, cp: &Outcome, ucp: &Outcome) -> bool {
    let Some((cp, stands)) = both(difference, cp, ucp) else { return false };
    difference.field == "modified"
        && stood.kind == libc::S_IFDIR
        && cp.modified == stood.modified
        && stands.modified == Time::Now
        && ucp.stderr.iter().any(|line| {
            let refusals = ["rename failed on ", "back up failed on ", "cp: cannot backup "];
            refusals.iter().any(|refusal| line.contains(refusal))
        })
}

/// A backup is made as one more name of what stands there. Where it then turns out that this can't
/// be renamed over, which is so in a sticky directory, that name can't be taken away, either.
fn leaves_backup(difference: &Difference, call: &Call, ucp: &Outcome) -> bool {
    let Some(backup) = ucp.snapshot.get(&difference.path) else { return false };
    difference.field == "name"
        && call.backs_up()
        && ucp.before.contains_key(&backup.same_as)
        && ucp.stderr.iter().any(|line| line.contains("rename failed on "))
}

/// A new file with several names inherits group and lists from the directory that it is made in:
/// that of whichever name comes first.
fn takes_from_other_directory(
    difference: &Difference,
    call: &Call,
    stood: Option<&Entry>,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let Some((cp, ucp)) = both(difference, cp, ucp) else { return false };
    matches!(difference.field, "owner" | "mode" | "attributes")
        && stood.is_none()
        && call.keeps_links()
        && !call.keeps_owners()
        && cp.links > 1
        && cp.links == ucp.links
        && without(cp, &LISTS) == without(ucp, &LISTS)
}

/// A device, FIFO or socket that is made again has no set-id or sticky bits unless the mode is to
/// be kept: they mean nothing there.
fn makes_plain_special(difference: &Difference, cp: &Outcome, ucp: &Outcome) -> bool {
    let Some((cp, ucp)) = both(difference, cp, ucp) else { return false };
    difference.field == "mode"
        && !matches!(ucp.kind, libc::S_IFREG | libc::S_IFDIR)
        && ucp.mode == cp.mode & 0o777
}

/// What is new where access control lists are inherited has the mode that the kernel makes of them.
/// cp, which restricts the mode as long as the owner or a set-id bit is not set, does away with
/// that afterwards.
fn leaves_inherited_list(
    difference: &Difference,
    call: &Call,
    stood: Option<&Entry>,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let Some((cp, ucp)) = both(difference, cp, ucp) else { return false };
    let is_new = stood.is_none() || call.backs_up() || call.has("--remove-destination");
    matches!(difference.field, "mode" | "attributes")
        && is_new
        && (call.keeps_owners() || ucp.kind == libc::S_IFDIR)
        && !call.keeps_lists()
        && ucp.attributes.contains_key(OsStr::new(LISTS[0]))
        && without(cp, &LISTS) == without(ucp, &LISTS)
}

/// A link that is made instead of a copy is new, and has times of its own unless others are asked
/// for.
fn gives_made_link_no_times(difference: &Difference, call: &Call, ucp: &Outcome) -> bool {
    let Some(made) = ucp.snapshot.get(&difference.path) else { return false };
    call.has("-s")
        && !call.asks_for_attributes()
        && made.kind == libc::S_IFLNK
        && match difference.field {
            "accessed" => made.accessed == Time::Now,
            "modified" => made.modified == Time::Now,
            _ => false,
        }
}

/// What is no file and is only written into keeps owner, mode and times.
fn leaves_stream_alone(difference: &Difference, stood: &Entry, ucp: &Outcome) -> bool {
    let Some(stands) = ucp.snapshot.get(&difference.path) else { return false };
    matches!(stood.kind, libc::S_IFIFO | libc::S_IFCHR)
        && match difference.field {
            "mode" => stands.mode == stood.mode,
            "owner" => stands.owner == stood.owner,
            "attributes" => stands.attributes == stood.attributes,
            "accessed" => stands.accessed == stood.accessed,
            "modified" => stands.modified == Time::Now || stands.modified == stood.modified,
            _ => false,
        }
}

/// Where cp gives an existing file the mode of the source, set-id and sticky bits that it had stay,
/// if the source has none, because of the system call that cp happens to use; `ucp` takes them.
fn sets_special_bits_too(
    difference: &Difference,
    stood: Option<&Entry>,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let (Some((cp, ucp)), Some(stood)) = (both(difference, cp, ucp), stood) else { return false };
    let stayed = cp.mode & !ucp.mode;
    difference.field == "mode" && ucp.mode & !cp.mode == 0 && stayed & !(stood.mode & 0o7000) == 0
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
