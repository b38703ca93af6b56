//! How a file gets its name: decided from what stands there.

use super::{Make, Options};
use crate::error::Refusal;

/// What stands at a target's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    Nothing,
    Regular,
    /// A regular file that cannot be replaced, and why.
    Fixed(&'static str),
    SymbolicLink,
    Directory,
    /// A device, FIFO or socket.
    Special,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// Make a temporary file and rename it to the name, replacing nothing.
    Create,
    /// Make a temporary file and rename it over the old one.
    Replace,
    /// The same, and nothing else will do: the old one stays under another name, or goes.
    Renew,
    /// Write into what stands there, for this reason.
    InPlace(&'static str),
    /// Do the same for the file that the link points to; the link stays.
    FollowLink,
    /// Leave it alone, for this reason.
    Refuse(Refusal),
}

/// Decides about a regular file's target. `is_operand` tells whether the user named the target:
/// below an operand no link is followed.
pub(super) fn decide(standing: Standing, options: &Options, is_operand: bool) -> Decision {
    match standing {
        Standing::Nothing => Decision::Create,
        Standing::Directory => Decision::Refuse(Refusal::FileOntoDirectory),
        _ if options.existing.replaces_links() => Decision::Renew,
        Standing::Regular | Standing::Fixed(_) if options.existing.make == Make::Attributes => {
            Decision::InPlace("only its attributes")
        }
        Standing::Regular if options.in_place => Decision::InPlace("asked for"),
        Standing::Regular => Decision::Replace,
        Standing::Fixed(reason) => Decision::InPlace(reason),
        Standing::SymbolicLink if is_operand => Decision::FollowLink,
        Standing::SymbolicLink => Decision::Refuse(Refusal::LinkBelow),
        Standing::Special if is_operand => Decision::InPlace("not a regular file"),
        Standing::Special => Decision::Refuse(Refusal::SpecialBelow),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Existing;
    use super::*;

    #[test]
    fn what_stands_there_decides() {
        let auto = Options::default();
        let with = |existing| Options { existing, in_place: true, ..Options::default() };
        let remove = with(Existing { remove: true, ..Existing::default() });
        let attributes = with(Existing { make: Make::Attributes, ..Existing::default() });
        let in_place = Options { in_place: true, ..auto.clone() };
        let cases = [
            ("nothing", Standing::Nothing, &in_place, false, Decision::Create),
            ("a file", Standing::Regular, &auto, false, Decision::Replace),
            ("a file, asked", Standing::Regular, &in_place, false, Decision::InPlace("asked for")),
            ("a file, to be removed", Standing::Regular, &remove, false, Decision::Renew),
            (
                "a link below, to be removed",
                Standing::SymbolicLink,
                &remove,
                false,
                Decision::Renew,
            ),
            ("nothing, to be removed", Standing::Nothing, &remove, false, Decision::Create),
            (
                "a directory, to be removed",
                Standing::Directory,
                &remove,
                true,
                Decision::Refuse(Refusal::FileOntoDirectory),
            ),
            (
                "a file, for its attributes",
                Standing::Regular,
                &attributes,
                false,
                Decision::InPlace("only its attributes"),
            ),
            ("nothing, for its attributes", Standing::Nothing, &attributes, true, Decision::Create),
            ("a mount point", Standing::Fixed("why"), &auto, true, Decision::InPlace("why")),
            ("a link named", Standing::SymbolicLink, &auto, true, Decision::FollowLink),
            (
                "a link below",
                Standing::SymbolicLink,
                &auto,
                false,
                Decision::Refuse(Refusal::LinkBelow),
            ),
            (
                "a FIFO named",
                Standing::Special,
                &auto,
                true,
                Decision::InPlace("not a regular file"),
            ),
        ];
        for (name, standing, options, is_operand, want) in cases {
            assert_eq!(decide(standing, options, is_operand), want, "{name}");
        }
    }
}
