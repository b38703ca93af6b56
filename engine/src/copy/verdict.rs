//! May what stands at a target be touched: decided from what is known of both sides.
//!
//! ```text
//! same file? -> newer? -> never? -> ask -> a directory? just made? the backup is the source? -> go
//! ```
//!
//! The order is that of GNU cp, so that the same question is asked and the same thing refused.

use super::{Backup, BackupStyle, Existing, Make, Overwrite, Update};
use crate::error::Refusal;
use crate::units::WallTime;

/// A file, by its device and its number there.
pub(super) type Identity = (u64, u64);

/// What is known of one side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// What stands under the name, be it a symbolic link.
    pub(super) named: Identity,
    /// What the name leads to; none if to nothing.
    pub(super) resolved: Option<Identity>,
    /// A symbolic link stands under the name.
    pub(super) is_link: bool,
    /// How many names that has which stands under this one.
    pub(super) links: u32,
}

/// What is known of a source and of what stands at its target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Case {
    pub(super) source: Known,
    pub(super) target: Known,
    /// A symbolic link as source is followed.
    pub(super) follows_source: bool,
    /// A symbolic link as target is followed.
    pub(super) follows_target: bool,
    /// Both are the same name in the same directory.
    pub(super) is_same_name: bool,
    /// When the bytes of the source, and of what would be replaced, were changed.
    pub(super) modified: (WallTime, WallTime),
    /// How exactly the target's file system keeps that.
    pub(super) resolution_ns: u64,
    /// What would be replaced is a directory.
    pub(super) is_onto_directory: bool,
    /// This run has made what would be replaced.
    pub(super) is_onto_created: bool,
    /// The source has the name that the backup would get.
    pub(super) is_source_the_backup: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Ask, then judge on.
    Ask,
    /// Make the target.
    Go,
    /// Nothing: what stands there stays, and that is no failure.
    Keep,
    /// Nothing: what is asked for is there already.
    Done,
    Refuse(Refusal),
}

/// Whether both sides being one file is in the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sameness {
    /// They differ, or it does no harm.
    Harmless,
    /// What is asked for is there already.
    Done,
    Harmful,
}

/// What to do before anybody is asked.
pub(super) fn judge(case: &Case, existing: &Existing) -> Verdict {
    let sameness = match existing.overwrite {
        Overwrite::Never => Sameness::Harmless,
        _ => sameness(case, existing),
    };
    if sameness == Sameness::Harmful {
        return Verdict::Refuse(Refusal::SameFile);
    }
    match existing.overwrite {
        // It says that nothing is replaced, whatever else was said.
        Overwrite::Never => return Verdict::Keep,
        Overwrite::Always | Overwrite::Ask => {}
    }
    match existing.update {
        Update::None => return Verdict::Keep,
        Update::NoneFail => return Verdict::Refuse(Refusal::NotReplaced),
        Update::Older if !is_older(case) => return Verdict::Keep,
        Update::Older | Update::All => {}
    }
    if existing.overwrite == Overwrite::Ask {
        return Verdict::Ask;
    }
    judge_asked(case, existing)
}

/// What to do once nobody is to be asked any more.
pub(super) fn judge_asked(case: &Case, existing: &Existing) -> Verdict {
    let style = existing.backup.as_ref().map(|backup| backup.style);
    if sameness(case, existing) == Sameness::Done {
        Verdict::Done
    } else if case.is_onto_directory {
        Verdict::Refuse(Refusal::FileOntoDirectory)
    } else if case.is_onto_created && style != Some(BackupStyle::Numbered) {
        Verdict::Refuse(Refusal::JustCreated)
    } else if case.is_source_the_backup && style.is_some_and(|s| s != BackupStyle::Numbered) {
        Verdict::Refuse(Refusal::BackupIsSource)
    } else {
        Verdict::Go
    }
}

/// Whether what stands there is older than the source, as far as its file system can tell.
fn is_older(case: &Case) -> bool {
    let (source, target) = case.modified;
    cut(source, case.resolution_ns) > cut(target, case.resolution_ns)
}

/// A time as a file system keeps it that keeps no more than this.
fn cut(time: WallTime, resolution_ns: u64) -> (i64, u64) {
    const SECOND_NS: u64 = 1_000_000_000;
    let whole_seconds = i64::try_from(resolution_ns / SECOND_NS).unwrap_or(1).max(1);
    let part = if resolution_ns >= SECOND_NS { SECOND_NS } else { resolution_ns.max(1) };
    let nanoseconds = u64::from(time.nanoseconds);
    (time.seconds - time.seconds.rem_euclid(whole_seconds), nanoseconds - nanoseconds % part)
}

/// Whether source and target being one file is in the way.
///
/// One file may be two names (hard links), or a name and a link to it. What matters is whether the
/// name that is replaced is the only way to the bytes.
fn sameness(case: &Case, existing: &Existing) -> Sameness {
    let Case { source, target, .. } = case;
    let copied = if case.follows_source { source.resolved } else { Some(source.named) };
    let standing = if case.follows_target { target.resolved } else { Some(target.named) };
    let is_same = copied.is_some() && copied == standing;
    let is_same_entry = source.named == target.named;
    let has_backup = existing.backup.is_some();
    let is_hard_link = existing.make == Make::HardLink;
    let harmless_if = |is| if is { Sameness::Harmless } else { Sameness::Harmful };

    if is_same && is_hard_link {
        return Sameness::Done;
    }
    if case.follows_source && !is_same {
        return Sameness::Harmless;
    }
    if source.is_link && target.is_link {
        // A link is replaced by a link, whatever both lead to.
        if !case.follows_source {
            return harmless_if(!case.is_same_name);
        }
        if existing.remove {
            return Sameness::Harmless;
        }
    }
    if has_backup {
        // The bytes stay, under the backup's name. But a link to them would then lead nowhere.
        let loses_its_end = case.follows_source && source.is_link && !target.is_link;
        return harmless_if(if is_same_entry { !case.is_same_name } else { !loses_its_end });
    }
    let has_other_names = is_same_entry && target.links > 1 && !case.is_same_name;
    if existing.remove && (target.is_link || has_other_names) {
        return Sameness::Harmless;
    }
    if !source.is_link && !target.is_link && !is_same_entry {
        return Sameness::Harmless;
    }
    if existing.make == Make::SymbolicLink && target.is_link {
        return Sameness::Harmless;
    }
    if !case.follows_source {
        let leads_to_the_same = source.resolved.is_some() && source.resolved == target.resolved;
        return match (leads_to_the_same, is_hard_link && !target.is_link) {
            (false, _) => Sameness::Harmless,
            (true, true) => Sameness::Done,
            (true, false) => harmless_if(is_hard_link),
        };
    }
    Sameness::Harmful
}

/// The name of a simple backup of `name`.
pub(super) fn simple_backup_name(name: &[u8], backup: &Backup) -> Vec<u8> {
    [name, backup.suffix.as_encoded_bytes()].concat()
}

/// The name of the numbered backup of `name` with this number.
pub(super) fn numbered_backup_name(name: &[u8], number: u64) -> Vec<u8> {
    [name, format!(".~{number}~").as_bytes()].concat()
}

/// The number of a backup of `name`, if `entry` is one.
pub(super) fn backup_number(name: &[u8], entry: &[u8]) -> Option<u64> {
    let digits = entry.strip_prefix(name)?.strip_prefix(b".~")?.strip_suffix(b"~")?;
    // A number with a zero before it is nobody's.
    let is_number = digits.first().is_some_and(|first| (b'1'..=b'9').contains(first));
    let digits = str::from_utf8(digits).ok().filter(|_| is_number)?;
    if digits.bytes().all(|digit| digit.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Whether a name may be that of a backup, of whichever file and style.
pub(super) fn looks_like_backup(name: &[u8], backup: &Backup) -> bool {
    let is_numbered = || {
        let end = name.windows(2).rposition(|pair| pair == b".~");
        end.is_some_and(|end| backup_number(&name[..end], name).is_some())
    };
    name.ends_with(backup.suffix.as_encoded_bytes()) || is_numbered()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_are_known_by_their_suffix_or_number() {
        let cases: [(&str, &[u8], bool); 8] = [
            ("~", b"a~", true),
            ("~", b"a", false),
            (".bak", b"a.bak", true),
            (".bak", b"a~", false),
            (".bak", b"a.~1~", true),
            (".bak", b"a.~1~.~12~", true),
            (".bak", b"a.~x~", false),
            (".bak", b"a.~", false),
        ];
        for (suffix, name, want) in cases {
            let backup = Backup { style: crate::copy::BackupStyle::Simple, suffix: suffix.into() };
            assert_eq!(looks_like_backup(name, &backup), want, "{suffix} {name:?}");
        }
    }

    const A: Identity = (1, 1);
    const B: Identity = (1, 2);

    fn file(identity: Identity) -> Known {
        Known { named: identity, resolved: Some(identity), is_link: false, links: 1 }
    }

    fn link(identity: Identity, to: Identity) -> Known {
        Known { named: identity, resolved: Some(to), is_link: true, links: 1 }
    }

    fn case(source: Known, target: Known) -> Case {
        let (follows_source, follows_target) = (true, true);
        Case { source, target, follows_source, follows_target, resolution_ns: 1, ..Case::default() }
    }

    fn backed_up(style: BackupStyle) -> Existing {
        let backup = Some(Backup { style, suffix: "~".into() });
        Existing { backup, ..Existing::default() }
    }

    #[test]
    fn one_file_on_both_sides_is_refused_where_bytes_would_be_lost() {
        use Verdict::{Done, Go, Keep};
        const SAME: Verdict = Verdict::Refuse(Refusal::SameFile);
        let plain = Existing::default();
        let remove = Existing { remove: true, ..Existing::default() };
        let backup = backed_up(BackupStyle::Simple);
        let hard = Existing { make: Make::HardLink, ..Existing::default() };
        let symbolic = Existing { make: Make::SymbolicLink, ..Existing::default() };
        let never = Existing { overwrite: Overwrite::Never, ..Existing::default() };
        let same_name = Case { is_same_name: true, ..case(file(A), file(A)) };
        let two_names = case(Known { links: 2, ..file(A) }, Known { links: 2, ..file(A) });
        let link_named = |case| Case { follows_target: false, ..case };
        let unfollowed = |case| Case { follows_source: false, follows_target: false, ..case };
        let onto_its_link = case(file(A), link(B, A));
        let its_link_onto = case(link(B, A), file(A));
        let cases = [
            ("two files", case(file(A), file(B)), &plain, Go),
            ("a a", same_name, &plain, SAME),
            ("-n a a", same_name, &never, Keep),
            ("-b a a", same_name, &backup, SAME),
            ("--remove-destination a a", same_name, &remove, SAME),
            ("-l a a", same_name, &hard, Done),
            ("-s a a", same_name, &symbolic, SAME),
            ("a hard", two_names, &plain, SAME),
            ("-b a hard", two_names, &backup, Go),
            ("-l a hard", two_names, &hard, Done),
            ("--remove-destination a hard", two_names, &remove, Go),
            ("a link", onto_its_link, &plain, SAME),
            ("-b a link", link_named(onto_its_link), &backup, Go),
            ("--remove-destination a link", link_named(onto_its_link), &remove, Go),
            ("-s a link", link_named(onto_its_link), &symbolic, Go),
            ("-l a link", link_named(onto_its_link), &hard, Go),
            ("link a", its_link_onto, &plain, SAME),
            ("-b link a", link_named(its_link_onto), &backup, SAME),
            ("--remove-destination link a", link_named(its_link_onto), &remove, SAME),
            ("-P link a", unfollowed(its_link_onto), &plain, SAME),
            ("-bP link a", unfollowed(its_link_onto), &backup, Go),
            ("-P link other", unfollowed(case(link(B, A), link((1, 3), A))), &plain, Go),
        ];
        for (name, case, existing, want) in cases {
            assert_eq!(judge(&case, existing), want, "{name}");
        }
    }

    #[test]
    fn what_was_asked_for_says_what_is_replaced() {
        let at = |seconds, nanoseconds| WallTime { seconds, nanoseconds };
        let with = |overwrite, update| Existing { overwrite, update, ..Existing::default() };
        let times =
            |modified, resolution_ns| Case { modified, resolution_ns, ..case(file(A), file(B)) };
        let newer = times((at(5, 1), at(5, 0)), 1);
        let equal = times((at(5, 1), at(5, 1)), 1);
        let older = times((at(-5, 0), at(-5, 1)), 1);
        let coarse = times((at(5, 999_999_999), at(4, 0)), 2_000_000_000);
        let coarse_newer = times((at(6, 0), at(4, 0)), 2_000_000_000);
        let ten_ms = times((at(4, 19_999_999), at(4, 10_000_000)), 10_000_000);
        use {Overwrite as O, Update as U, Verdict as V};
        let cases = [
            ("as ever", newer, with(O::Always, U::All), V::Go),
            ("-n", newer, with(O::Never, U::All), V::Keep),
            ("-n --update=none-fail", newer, with(O::Never, U::NoneFail), V::Keep),
            ("-i", newer, with(O::Ask, U::All), V::Ask),
            ("-u onto older", newer, with(O::Always, U::Older), V::Go),
            ("-u onto as old", equal, with(O::Always, U::Older), V::Keep),
            ("-u onto newer", older, with(O::Always, U::Older), V::Keep),
            ("-ui onto older", newer, with(O::Ask, U::Older), V::Ask),
            ("-ui onto newer", older, with(O::Ask, U::Older), V::Keep),
            ("-u where times are even", coarse, with(O::Always, U::Older), V::Keep),
            ("-u where times are even, newer", coarse_newer, with(O::Always, U::Older), V::Go),
            ("-u where times are coarse", ten_ms, with(O::Always, U::Older), V::Keep),
            ("--update=none", newer, with(O::Always, U::None), V::Keep),
            (
                "--update=none-fail",
                newer,
                with(O::Always, U::NoneFail),
                V::Refuse(Refusal::NotReplaced),
            ),
        ];
        for (name, case, existing, want) in cases {
            assert_eq!(judge(&case, &existing), want, "{name}");
        }
    }

    #[test]
    fn what_must_not_be_lost_is_refused() {
        let plain = Existing::default();
        let (simple, numbered) = (backed_up(BackupStyle::Simple), backed_up(BackupStyle::Numbered));
        let two = case(file(A), file(B));
        let directory = Case { is_onto_directory: true, ..two };
        let created = Case { is_onto_created: true, ..two };
        let backup = Case { is_source_the_backup: true, ..two };
        let refuse = Verdict::Refuse;
        let cases = [
            ("onto a directory", directory, &plain, refuse(Refusal::FileOntoDirectory)),
            ("onto what was made", created, &plain, refuse(Refusal::JustCreated)),
            ("onto what was made, kept", created, &simple, refuse(Refusal::JustCreated)),
            ("onto what was made, all kept", created, &numbered, Verdict::Go),
            ("a~ a", backup, &plain, Verdict::Go),
            ("-b a~ a", backup, &simple, refuse(Refusal::BackupIsSource)),
            ("--backup=t a~ a", backup, &numbered, Verdict::Go),
        ];
        for (name, case, existing, want) in cases {
            assert_eq!(judge_asked(&case, existing), want, "{name}");
        }
    }

    #[test]
    fn backups_are_numbered_from_one() {
        let cases: [(&[u8], Option<u64>); 9] = [
            (b"a.~1~", Some(1)),
            (b"a.~10~", Some(10)),
            (b"a.~01~", None),
            (b"a.~0~", None),
            (b"a.~~", None),
            (b"a.~1", None),
            (b"a~", None),
            (b"b.~1~", None),
            (b"a.~18446744073709551616~", None),
        ];
        for (entry, want) in cases {
            assert_eq!(backup_number(b"a", entry), want, "{}", entry.escape_ascii());
        }
        assert_eq!(numbered_backup_name(b"a", 7), b"a.~7~");
        let backup = Backup { style: BackupStyle::Simple, suffix: ".old".into() };
        assert_eq!(simple_backup_name(b"a", &backup), b"a.old");
    }
}
