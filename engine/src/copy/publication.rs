//! How a file gets its name: decided from what stands there.

use super::Options;

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
    /// Write into what stands there, for this reason.
    InPlace(&'static str),
    /// Do the same for the file that the link points to; the link stays.
    FollowLink,
    /// Leave it alone, for this reason.
    Refuse(&'static str),
}

/// Decides about a regular file's target. `is_operand` tells whether the user named the target:
/// below an operand no link is followed.
pub(super) fn decide(standing: Standing, options: &Options, is_operand: bool) -> Decision {
    match standing {
        Standing::Nothing => Decision::Create,
        Standing::Regular if options.in_place => Decision::InPlace("asked for"),
        Standing::Regular => Decision::Replace,
        Standing::Fixed(reason) => Decision::InPlace(reason),
        Standing::Directory => Decision::Refuse("cannot overwrite a directory with a file"),
        Standing::SymbolicLink if is_operand => Decision::FollowLink,
        Standing::SymbolicLink => Decision::Refuse("not writing through a symbolic link"),
        Standing::Special if is_operand => Decision::InPlace("not a regular file"),
        Standing::Special => Decision::Refuse("not writing into a special file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_there_decides() {
        let auto = Options::default();
        let in_place = Options { in_place: true, ..auto.clone() };
        let cases = [
            ("nothing", Standing::Nothing, &in_place, false, Decision::Create),
            ("a file", Standing::Regular, &auto, false, Decision::Replace),
            ("a file, asked", Standing::Regular, &in_place, false, Decision::InPlace("asked for")),
            ("a mount point", Standing::Fixed("why"), &auto, true, Decision::InPlace("why")),
            ("a link named", Standing::SymbolicLink, &auto, true, Decision::FollowLink),
            (
                "a link below",
                Standing::SymbolicLink,
                &auto,
                false,
                Decision::Refuse("not writing through a symbolic link"),
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
