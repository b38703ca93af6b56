//! Differences that are meant. Each is described in docs/differences-from-cp.md.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

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
        || puts_backup_elsewhere(difference, cp, ucp)
        || call.backs_up() && makes_no_backup_in_vain(difference, stood, cp, ucp)
        || leaves_itself_alone(difference, stood, ucp)
        || leaves_no_part(difference, stood, ucp)
        || keeps_name_of_failed_one(difference, cp, ucp)
        || keeps_inherited_group_bit(difference, call, cp, ucp)
        || call.user != 0 && keeps_inherited_group(difference, call, cp, ucp)
        || call.user != 0 && keeps_more_attributes(difference, call, cp, ucp)
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
                || reads_as_new(difference, call, cp, ucp)
                || !call.in_place && makes_new_file(difference, call, cp, ucp)
                || stood.is_some_and(|stood| keeps_what_stood(difference, call, stood, ucp)))
}

/// What is read from a special file is new, unless its attributes are asked for.
fn reads_as_new(difference: &Difference, call: &Call, cp: &Outcome, ucp: &Outcome) -> bool {
    let Some((of_cp, made)) = both(difference, cp, ucp) else { return false };
    call.has("--copy-contents")
        && !call.asks_for_attributes()
        && made.kind == libc::S_IFREG
        && made.content == of_cp.content
        && made.modified == Time::Now
        && match difference.field {
            "mode" => made.mode == 0o666 & !call.umask,
            "accessed" => made.accessed == Time::Now,
            "modified" => true,
            _ => false,
        }
}

/// Where a file stands, `ucp` makes a new one, which has nothing of the old one's; other names of
/// the old one keep it; and the directory is changed by that.
fn makes_new_file(difference: &Difference, call: &Call, cp: &Outcome, ucp: &Outcome) -> bool {
    let Some((of_cp, of_ucp)) = both(difference, cp, ucp) else { return false };
    let Some(stood) = ucp.before.get(&difference.path) else { return false };
    if stood.kind == libc::S_IFDIR {
        let is_file = |(path, entry): (&PathBuf, &Entry)| {
            path.parent() == Some(&difference.path) && entry.kind == libc::S_IFREG
        };
        return difference.field == "modified"
            && of_ucp.modified == Time::Now
            && of_cp.modified == stood.modified
            && ucp.before.iter().any(is_file);
    }
    if stood.kind != libc::S_IFREG || of_ucp.kind != libc::S_IFREG {
        return false;
    }
    // Whoever may write into the directory may do that even if they may not write into the file.
    if of_cp == stood && cp.stderr.iter().any(|line| is_refused_to_write(line)) {
        return call.user != 0;
    }
    let is_other_name = stood.links > 1 && of_ucp.content == stood.content;
    match difference.field {
        "links" | "same file as" => stood.links > of_ucp.links,
        "mode" if is_other_name => of_ucp.mode == stood.mode,
        "mode" => call.leaves_modes() && of_ucp.mode == 0o666 & !call.umask,
        "owner" => is_other_name && of_ucp.owner == stood.owner,
        "attributes" if is_other_name => of_ucp.attributes == stood.attributes,
        "attributes" => {
            let mut kept = of_cp.attributes.clone();
            kept.retain(|name, _| !stood.attributes.contains_key(name));
            // Lists are those that the directory hands down.
            kept.retain(|name, _| !LISTS.iter().any(|list| name == list));
            kept == without(of_ucp, &LISTS)
        }
        "accessed" if is_other_name => of_ucp.accessed == stood.accessed,
        "modified" if is_other_name => of_ucp.modified == stood.modified,
        "accessed" => call.leaves_times() && of_ucp.accessed == Time::Now,
        "content" | "data" => is_other_name && of_ucp.data == stood.data,
        _ => false,
    }
}

fn is_refused_to_write(line: &str) -> bool {
    line.starts_with("cp: cannot create regular file ") && line.ends_with(": Permission denied")
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
/// user's, and stood there before. `ucp` was not asked to. Or to write into a file that `ucp`
/// replaces. Or to give a mode or times to what is no
/// file, and is only written into.
pub(crate) fn may_succeed(Case { call, .. }: &Case, cp: &Outcome) -> bool {
    let names: Vec<_> = cp.before.keys().map(|path| path.display().to_string()).collect();
    let is_about_standing = |line: &String| {
        let subject = line
            .strip_prefix("cp: preserving times for '")
            .or(line.strip_prefix("cp: preserving permissions for ‘"));
        let name = subject.and_then(|subject| subject.split(['\'', '’']).next());
        let name = name.unwrap_or_default();
        let name = name.strip_suffix("/.").unwrap_or(name).trim_end_matches('/');
        !call.asks_for_attributes() && names.iter().any(|other| other == name)
    };
    // What only root may read or set, `ucp` does not miss; what cp can't set on a file that its
    // umask has closed to itself, `ucp` sets.
    let is_about_attribute = |line: &String| {
        let attributes =
            ["attribute 'trusted.", "attribute 'security.capability'", "setting attribute 'user."];
        call.user != 0 && attributes.iter().any(|attribute| line.contains(attribute))
    };
    let is_about_stream = |line: &String| {
        let name = line.strip_prefix("cp: preserving ").and_then(|line| line.split(" for ").nth(1));
        let name = name.unwrap_or_default().trim_start_matches(['\'', '‘']);
        let name = name.split(['\'', '’']).next().unwrap_or_default();
        let stood = cp.before.get(Path::new(name));
        stood.is_some_and(|stood| matches!(stood.kind, libc::S_IFIFO | libc::S_IFCHR))
    };
    let is_ucp = call.persona == Persona::Ucp;
    let is_about_old_file = |line: &String| !call.in_place && is_refused_to_write(line);
    cp.stderr.iter().all(|line| {
        is_about_stream(line)
            || is_ucp
                && (is_about_standing(line) || is_about_attribute(line) || is_about_old_file(line))
    })
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

/// Where a directory may not be listed, cp 9.1 puts the backup into its working directory, under
/// whichever name; there it does not find it to take it back after a failure. `ucp` fails.
fn puts_backup_elsewhere(difference: &Difference, cp: &Outcome, ucp: &Outcome) -> bool {
    let is_lost = |line: &String| line.starts_with("cp: cannot un-backup ");
    let fails = |line: &String| {
        let is_backup = line.contains("back up failed on ") || line.contains("cannot backup ");
        is_backup && line.contains("Permission denied")
    };
    difference.field == "name"
        && difference.path.components().count() == 1
        && !ucp.snapshot.contains_key(&difference.path)
        && (cp.stderr.iter().any(is_lost) || ucp.stderr.iter().any(fails))
}

/// cp makes a backup before it opens the source, and takes it back if that fails; `ucp` makes none,
/// and leaves the directory alone.
fn makes_no_backup_in_vain(
    difference: &Difference,
    stood: Option<&Entry>,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let Some((of_cp, of_ucp)) = both(difference, cp, ucp) else { return false };
    let fails = |line: &String| line.starts_with("cp: cannot open ");
    difference.field == "modified"
        && of_cp.kind == libc::S_IFDIR
        && of_cp.modified == Time::Now
        && stood.is_some_and(|stood| stood.modified == of_ucp.modified)
        && cp.stderr.iter().any(fails)
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
        let is_about_directory = ["open failed on ", "enter failed on ", "cp: cannot access "];
        let is_unreadable_directory = is_about_directory.iter().any(|what| line.contains(what))
            && stood.is_some_and(|stood| stood.kind == libc::S_IFDIR);
        // The name that it is called by may lead to another name of it.
        let is_clone =
            line.contains(": clone failed on ") || line.starts_with("cp: failed to clone ");
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
    // With --remove-destination cp has removed it before it opens the source.
    let is_gone = difference.want == "nothing" && stood.is_some();
    let is_open_failure =
        |line: &String| line.contains("cannot open ") || line.contains("open failed on ");
    is_untouched
        && ucp.code == Some(1)
        && ucp.stderr.iter().any(|line| fails(line) || is_gone && is_open_failure(line))
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

/// What is made in such a directory has its group. Where cp changes the mode of a directory before
/// it is full, because its owner may not write in it, or nobody else before it has its owner, the
/// kernel takes the bit from who is not in that group; `ucp` changes it last.
fn keeps_inherited_group(
    difference: &Difference,
    call: &Call,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let Some((of_cp, of_ucp)) = both(difference, cp, ucp) else { return false };
    let mut above = difference.path.ancestors().skip(1).filter_map(|path| ucp.before.get(path));
    difference.field == "owner"
        && of_cp.owner == (of_ucp.owner.0, call.user)
        && above.any(|above| above.mode & 0o2000 != 0 && above.owner.1 == of_ucp.owner.1)
}

/// For who is not root, cp gives up on all attributes, lists among them, with the first that it may
/// not read, and sets them when it may not write any more; `ucp` keeps what it may.
fn keeps_more_attributes(
    difference: &Difference,
    call: &Call,
    cp: &Outcome,
    ucp: &Outcome,
) -> bool {
    let keeps_no_lists = call.persona == Persona::Ucp && !call.keeps_lists();
    let gave_up = |line: &String| line.starts_with("cp: getting attribute ");
    let has_given_up = cp.stderr.iter().any(gave_up);
    let Some((cp, ucp)) = both(difference, cp, ucp) else { return false };
    let mut kept = cp.attributes.iter();
    match difference.field {
        "attributes" => kept.all(|(name, value)| {
            let is_list = LISTS.iter().any(|list| name == list);
            ucp.attributes.get(name) == Some(value) || is_list && keeps_no_lists
        }),
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

/// Whether two complaints may stand for each other: of a source that can't be opened and of a link
/// at its target that leads nowhere, each tells what it meets first; and `ucp` does not look where a
/// link below the target leads, so it can't tell that this is the source.
pub(crate) fn may_complain_of_other(cp: &str, ucp: &str) -> bool {
    cp.ends_with(" for reading: No such device or address")
        && ucp.starts_with("cp: not writing through dangling symlink ")
        || cp.ends_with(" are the same file")
            && ucp.ends_with(": not writing through a symbolic link")
}

/// Whether a line on standard output may be missing: cp tells of a file when it begins to copy it,
/// `ucp` when that is done. It must have failed on this one. And `ucp` under its own name does not
/// say that cp removes what stands in the way: it renames over that.
pub(crate) fn may_be_silent_about(line: &str, call: &Call, complaints: &[String]) -> bool {
    if line.starts_with("removed '") {
        let name = line["removed ".len()..].trim_matches('\'');
        let fails = complaints.iter().any(|complaint| complaint.contains(name));
        return call.persona == Persona::Ucp || fails;
    }
    let names: Vec<&str> = line.split(" -> ").map(|name| name.trim_matches('\'')).collect();
    complaints.iter().any(|complaint| names.iter().any(|name| complaint.contains(name)))
}
