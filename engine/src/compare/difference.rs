//! In what two files differ, and how that is kept until its turn has come to be told.

use crate::operation::FileKind;
use crate::units::WallTime;

/// One of the two that are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// In what two files differ: values of the first, and of the second.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Difference {
    /// There is only one of them.
    OnlyIn(Side),
    /// They are not of one kind.
    Kind(FileKind, FileKind),
    /// Their bytes, from this one on; it may be the end of the shorter one.
    Content(u64),
    /// What a symbolic link says.
    Link,
    /// Which device a node stands for.
    Node(u64, u64),
    /// Permission bits.
    Mode(u32, u32),
    /// Owner.
    Owner(u32, u32),
    /// Group.
    Group(u32, u32),
    /// When their bytes last changed.
    Modified(WallTime, WallTime),
    /// An extended attribute of this name.
    Attribute(Vec<u8>),
}

/// Kinds of files by the number that they are kept by.
const KINDS: [FileKind; 8] = [
    FileKind::Regular,
    FileKind::Directory,
    FileKind::SymbolicLink,
    FileKind::Fifo,
    FileKind::Socket,
    FileKind::CharacterDevice,
    FileKind::BlockDevice,
    FileKind::Unknown,
];

impl Difference {
    /// Its stable name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OnlyIn(Side::A) => "only-in-a",
            Self::OnlyIn(Side::B) => "only-in-b",
            Self::Kind(..) => "kind",
            Self::Content(_) => "content",
            Self::Link => "link",
            Self::Node(..) => "node",
            Self::Mode(..) => "mode",
            Self::Owner(..) => "owner",
            Self::Group(..) => "group",
            Self::Modified(..) => "modified",
            Self::Attribute(_) => "attribute",
        }
    }

    /// In what order the differences of one file come.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::OnlyIn(Side::A) => 0,
            Self::OnlyIn(Side::B) => 1,
            Self::Kind(..) => 2,
            Self::Content(_) => 3,
            Self::Link => 4,
            Self::Node(..) => 5,
            Self::Mode(..) => 6,
            Self::Owner(..) => 7,
            Self::Group(..) => 8,
            Self::Modified(..) => 9,
            Self::Attribute(_) => 10,
        }
    }

    /// It as bytes.
    pub(super) fn write(&self) -> Vec<u8> {
        let kind = |kind: &FileKind| KINDS.iter().position(|it| it == kind).unwrap_or(7) as u64;
        let time = |time: &WallTime| [time.seconds.cast_unsigned(), u64::from(time.nanoseconds)];
        let numbers = match self {
            Self::OnlyIn(_) | Self::Link | Self::Attribute(_) => Vec::new(),
            Self::Kind(a, b) => vec![kind(a), kind(b)],
            Self::Content(offset) => vec![*offset],
            Self::Node(a, b) => vec![*a, *b],
            Self::Mode(a, b) | Self::Owner(a, b) | Self::Group(a, b) => {
                vec![u64::from(*a), u64::from(*b)]
            }
            Self::Modified(a, b) => [time(a), time(b)].concat(),
        };
        let mut bytes = vec![self.rank()];
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_ne_bytes()));
        if let Self::Attribute(name) = self {
            bytes.extend_from_slice(name);
        }
        bytes
    }

    /// The one that these bytes are of.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let number = |index: usize| {
            let start = 1 + index * size_of::<u64>();
            let bytes = bytes[start..start + size_of::<u64>()].try_into();
            u64::from_ne_bytes(bytes.expect("eight bytes"))
        };
        let half = |index| u32::try_from(number(index)).expect("it was a u32");
        let kind = |index| KINDS[usize::try_from(number(index)).unwrap_or(7).min(7)];
        let time = |index: usize| WallTime {
            seconds: number(index).cast_signed(),
            nanoseconds: half(index + 1),
        };
        match bytes[0] {
            0 => Self::OnlyIn(Side::A),
            1 => Self::OnlyIn(Side::B),
            2 => Self::Kind(kind(0), kind(1)),
            3 => Self::Content(number(0)),
            4 => Self::Link,
            5 => Self::Node(number(0), number(1)),
            6 => Self::Mode(half(0), half(1)),
            7 => Self::Owner(half(0), half(1)),
            8 => Self::Group(half(0), half(1)),
            9 => Self::Modified(time(0), time(2)),
            _ => Self::Attribute(bytes[1..].to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_as_it_was() {
        let time = |seconds, nanoseconds| WallTime { seconds, nanoseconds };
        let all = [
            Difference::OnlyIn(Side::A),
            Difference::OnlyIn(Side::B),
            Difference::Kind(FileKind::Fifo, FileKind::Unknown),
            Difference::Content(u64::MAX),
            Difference::Link,
            Difference::Node(1, 2),
            Difference::Mode(0o644, 0o600),
            Difference::Owner(0, u32::MAX),
            Difference::Group(3, 4),
            Difference::Modified(time(-5, 999_999_999), time(i64::MAX, 0)),
            Difference::Attribute(b"user.a\xff".to_vec()),
        ];
        for (rank, difference) in (0..).zip(all) {
            assert_eq!(Difference::read(&difference.write()), difference);
            assert_eq!(difference.rank(), rank);
        }
    }
}
