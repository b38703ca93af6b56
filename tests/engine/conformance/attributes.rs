//! Operations on what is known about a file.

use nix::libc;
use nix::unistd::geteuid;
use ucp_engine::Operation;
use ucp_engine::operation::*;
use ucp_engine::units::WallTime;

use super::world::{World, text, told};
use super::{Case, conform};

#[test]
fn status() {
    let cases: [Case; 7] = [
        (
            "a file is told by its name and by itself",
            |it| {
                let file = it.file("a", b"hello");
                let by_name = it.status("a").unwrap();
                let subject = Subject::File(file);
                let by_itself = it.run(Statx { subject, follow: false, status: None }).status();
                format!("{} {:?} {}", by_name.size_bytes, by_name.kind, by_itself == Some(by_name))
            },
            "5 Regular true",
        ),
        (
            "a link is told itself, or followed",
            |it| {
                it.file("a", b"hello");
                it.symbolic_link("l", "a");
                let kinds = [false, true].map(|follow| {
                    let subject = Subject::Place(it.place("l"));
                    let status = it.run(Statx { subject, follow, status: None }).status().unwrap();
                    format!("{:?} {}", status.kind, status.size_bytes)
                });
                told(kinds)
            },
            "SymbolicLink 1, Regular 5",
        ),
        (
            "a link to nothing is told itself only",
            |it| {
                it.symbolic_link("l", "nothing");
                told([false, true].map(|follow| {
                    let subject = Subject::Place(it.place("l"));
                    it.tell(Statx { subject, follow, status: None })
                }))
            },
            "0, ENOENT",
        ),
        (
            "what is missing is not found",
            |it| {
                let subject = Subject::Place(it.place("a"));
                it.tell(Statx { subject, follow: false, status: None })
            },
            "ENOENT",
        ),
        (
            "a directory has two links and one for each in it",
            |it| {
                it.directory("d");
                it.directory("d/e");
                it.status("d").unwrap().links.to_string()
            },
            "3",
        ),
        (
            "writing changes the times and the room",
            |it| {
                let file = it.file("a", b"");
                let before = it.status("a").unwrap();
                it.write(&file, &[7; 8192], 0);
                it.tell(Sync { file, reach: SyncReach::File });
                let after = it.status("a").unwrap();
                told([
                    before.blocks_512 == 0,
                    after.blocks_512 >= 16,
                    after.modified >= before.modified,
                ])
            },
            "true, true, true",
        ),
        (
            "a file system is told",
            |it| {
                let file = it.file("a", b"");
                let ended = it.run(FileSystemStatus { file, magic: 0, available_bytes: 0 });
                let told_result = ended.told();
                let Operation::FileSystemStatus(status) = ended.operation else {
                    return told_result;
                };
                told([told_result, (status.magic > 0 && status.available_bytes > 0).to_string()])
            },
            "0, true",
        ),
    ];
    conform(&cases);
}

#[test]
fn owner_and_mode() {
    if !geteuid().is_root() {
        return crate::support::skip::skip("only root can give files away");
    }
    let cases: [Case; 7] = [
        (
            "a file is given away by its name",
            |it| {
                it.file("a", b"");
                let subject = Subject::Place(it.place("a"));
                owner(it, subject, Some(12), Some(34), "a")
            },
            "0, 12:34",
        ),
        (
            "a file is given away by itself",
            |it| {
                let subject = Subject::File(it.file("a", b""));
                owner(it, subject, Some(12), Some(34), "a")
            },
            "0, 12:34",
        ),
        (
            "owner and group are left alone where not named",
            |it| {
                it.file("a", b"");
                let steps = [(Some(12), None), (None, Some(34)), (None, None)];
                told(steps.map(|(user, group)| {
                    let subject = Subject::Place(it.place("a"));
                    owner(it, subject, user, group, "a")
                }))
            },
            "0, 12:0, 0, 12:34, 0, 12:34",
        ),
        (
            "a link is given away itself",
            |it| {
                it.file("a", b"");
                it.symbolic_link("l", "a");
                let subject = Subject::Place(it.place("l"));
                let of_link = owner(it, subject, Some(12), Some(34), "l");
                told([of_link, it.status("a").unwrap().owner.to_string()])
            },
            "0, 12:34, 0",
        ),
        (
            "giving away takes set-id bits",
            |it| {
                let file = it.file("a", b"");
                it.tell(ChangeMode { file: file.clone(), mode: 0o6755 });
                owner(it, Subject::File(file), Some(12), None, "a");
                format!("{:o}", it.status("a").unwrap().mode)
            },
            "755",
        ),
        (
            "every mode bit can be set",
            |it| {
                let file = it.file("a", b"");
                let modes = [0o7777, 0, 0o640];
                told(modes.map(|mode| {
                    let changed = it.tell(ChangeMode { file: file.clone(), mode });
                    format!("{changed} {:o}", it.status("a").unwrap().mode)
                }))
            },
            "0 7777, 0 0, 0 640",
        ),
        (
            "what is missing can't be given away",
            |it| {
                let (owner, group) = (Some(12), None);
                it.tell(ChangeOwner { subject: Subject::Place(it.place("a")), owner, group })
            },
            "ENOENT",
        ),
    ];
    conform(&cases);
}

fn owner(
    it: &mut World,
    subject: Subject,
    owner: Option<u32>,
    group: Option<u32>,
    name: &str,
) -> String {
    let changed = it.tell(ChangeOwner { subject, owner, group });
    let status = it.status(name).unwrap();
    format!("{changed}, {}:{}", status.owner, status.group)
}

#[test]
fn times() {
    let cases: [Case; 5] = [
        (
            "times are set to the nanosecond, by name",
            |it| {
                it.file("a", b"");
                let subject = Subject::Place(it.place("a"));
                times_set(it, subject, "a", (1, 999_999_999), (1_700_000_000, 1))
            },
            "0, 1.999999999 1700000000.000000001",
        ),
        (
            "times are set by the file itself",
            |it| {
                let subject = Subject::File(it.file("a", b""));
                times_set(it, subject, "a", (5, 6), (7, 8))
            },
            "0, 5.000000006 7.000000008",
        ),
        (
            "times before 1970 and after 2038 are kept",
            |it| {
                let subject = Subject::File(it.file("a", b""));
                times_set(it, subject, "a", (-2_000_000_000, 1), (4_000_000_000, 2))
            },
            "0, -2000000000.000000001 4000000000.000000002",
        ),
        (
            "a link's times are set, not its file's",
            |it| {
                it.file("a", b"");
                it.symbolic_link("l", "a");
                let subject = Subject::Place(it.place("l"));
                let of_link = times_set(it, subject, "l", (1, 2), (3, 4));
                told([of_link, (it.status("a").unwrap().modified.seconds > 3).to_string()])
            },
            "0, 1.000000002 3.000000004, true",
        ),
        (
            "nanoseconds of a whole second are refused",
            |it| {
                let subject = Subject::File(it.file("a", b""));
                let times = times_of((1, 1_000_000_000), (1, 1));
                it.tell(ChangeTimes { subject, times })
            },
            "EINVAL",
        ),
    ];
    conform(&cases);
}

fn times_set(
    it: &mut World,
    subject: Subject,
    name: &str,
    accessed: (i64, u32),
    modified: (i64, u32),
) -> String {
    let changed = it.tell(ChangeTimes { subject, times: times_of(accessed, modified) });
    let status = it.status(name).unwrap();
    let shown = |time: WallTime| format!("{}.{:09}", time.seconds, time.nanoseconds);
    format!("{changed}, {} {}", shown(status.accessed), shown(status.modified))
}

fn times_of(accessed: (i64, u32), modified: (i64, u32)) -> Box<FileTimes> {
    let time = |(seconds, nanoseconds)| WallTime { seconds, nanoseconds };
    Box::new(FileTimes { accessed: time(accessed), modified: time(modified) })
}

#[test]
fn extended_attributes() {
    let cases: [Case; 11] = [
        (
            "an attribute comes back",
            |it| {
                let file = it.file("a", b"");
                told([set(it, &file, "user.a", b"value"), get(it, &file, "user.a", 8)])
            },
            "0, 5 value...",
        ),
        (
            "an attribute is replaced",
            |it| {
                let file = it.file("a", b"");
                set(it, &file, "user.a", b"value");
                told([set(it, &file, "user.a", b"v"), get(it, &file, "user.a", 8)])
            },
            "0, 1 v.......",
        ),
        (
            "an attribute may be empty",
            |it| {
                let file = it.file("a", b"");
                told([set(it, &file, "user.a", b""), get(it, &file, "user.a", 2)])
            },
            "0, 0 ..",
        ),
        (
            "an empty buffer asks for the length",
            |it| {
                let file = it.file("a", b"");
                set(it, &file, "user.a", b"value");
                get(it, &file, "user.a", 0)
            },
            "5 ",
        ),
        (
            "a buffer that is too small is refused",
            |it| {
                let file = it.file("a", b"");
                set(it, &file, "user.a", b"value");
                get(it, &file, "user.a", 4)
            },
            "ERANGE",
        ),
        (
            "an attribute that is missing is not found",
            |it| {
                let file = it.file("a", b"");
                told([get(it, &file, "user.a", 4), remove(it, &file, "user.a")])
            },
            "ENODATA, ENODATA",
        ),
        (
            "an attribute is removed",
            |it| {
                let file = it.file("a", b"");
                set(it, &file, "user.a", b"value");
                told([remove(it, &file, "user.a"), get(it, &file, "user.a", 4)])
            },
            "0, ENODATA",
        ),
        (
            "an attribute of a namespace that is not known is refused",
            |it| {
                let file = it.file("a", b"");
                set(it, &file, "nonsense", b"value")
            },
            "EOPNOTSUPP",
        ),
        (
            "attributes are listed",
            |it| {
                let file = it.file("a", b"");
                let before = list(it, &file, 64);
                set(it, &file, "user.a", b"1");
                set(it, &file, "user.b", b"2");
                told([before, list(it, &file, 64), list(it, &file, 0)])
            },
            "0 , 14 user.a user.b, 14 ",
        ),
        (
            "a list that does not fit is refused",
            |it| {
                let file = it.file("a", b"");
                set(it, &file, "user.a", b"1");
                list(it, &file, 6)
            },
            "ERANGE",
        ),
        (
            "reading into bytes that others read is refused",
            |it| {
                let file = it.file("a", b"");
                set(it, &file, "user.a", b"1");
                let buffer = std::sync::Arc::<[u8]>::from(*b"shared").into();
                it.tell(GetAttribute { file, name: Name::new("user.a").unwrap(), buffer })
            },
            "EINVAL",
        ),
    ];
    conform(&cases);
}

fn set(it: &mut World, file: &File, name: &str, value: &[u8]) -> String {
    let (name, value) = (Name::new(name).unwrap(), value.to_vec().into());
    it.tell(SetAttribute { file: file.clone(), name, value })
}

fn get(it: &mut World, file: &File, name: &str, length: usize) -> String {
    let (name, buffer) = (Name::new(name).unwrap(), vec![b'.'; length].into());
    let ended = it.run(GetAttribute { file: file.clone(), name, buffer });
    match ended.result {
        Ok(number) => format!("{number} {}", text(ended.bytes())),
        Err(_) => ended.told(),
    }
}

fn remove(it: &mut World, file: &File, name: &str) -> String {
    it.tell(RemoveAttribute { file: file.clone(), name: Name::new(name).unwrap() })
}

fn list(it: &mut World, file: &File, length: usize) -> String {
    let ended = it.run(ListAttributes { file: file.clone(), buffer: vec![0; length].into() });
    let Ok(number) = ended.result else { return ended.told() };
    let mut names: Vec<_> = ended.bytes().split(|byte| *byte == 0).map(text).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    format!("{number} {}", names.join(" "))
}

#[test]
fn attributes_of_what_can_not_be_opened_for_reading() {
    let cases: [Case; 4] = [
        (
            "a path is told and has no bytes",
            |it| {
                it.file("a", b"hello");
                let file = it.open("a", libc::O_PATH | libc::O_NOFOLLOW);
                let subject = Subject::File(file.clone());
                let status = it.run(Statx { subject, follow: false, status: None }).status();
                told([status.unwrap().size_bytes.to_string(), it.read(&file, 0, 5)])
            },
            "5, EBADF",
        ),
        (
            "a path has a mode, times and attributes, whatever bears its name by now",
            |it| {
                it.file("a", b"hello");
                let file = it.open("a", libc::O_PATH | libc::O_NOFOLLOW);
                let (source, target) = (it.place("a"), it.place("b"));
                it.tell(Rename { source, target, replace: true });
                it.file("a", b"another");
                let time = WallTime { seconds: 5, nanoseconds: 6 };
                let times = Box::new(FileTimes { accessed: time, modified: time });
                let mut steps = vec![
                    it.tell(ChangeMode { file: file.clone(), mode: 0o640 }),
                    it.tell(ChangeTimes { subject: Subject::File(file.clone()), times }),
                    set(it, &file, "user.x", b"value"),
                    get(it, &file, "user.x", 9),
                    list(it, &file, 99),
                    remove(it, &file, "user.x"),
                    remove(it, &file, "user.x"),
                ];
                let status = it.status("b").unwrap();
                steps.push(format!("{:o} {}", status.mode, status.modified.seconds));
                steps.push(format!("{:o}", it.status("a").unwrap().mode));
                told(steps)
            },
            "0, 0, 0, 5 value...., 7 user.x, 0, ENODATA, 640 5, 644",
        ),
        (
            "a link has times of its own",
            |it| {
                it.file("a", b"hello");
                it.symbolic_link("l", "a");
                let file = it.open("l", libc::O_PATH | libc::O_NOFOLLOW);
                let time = WallTime { seconds: 5, nanoseconds: 6 };
                let times = Box::new(FileTimes { accessed: time, modified: time });
                let changed = it.tell(ChangeTimes { subject: Subject::File(file), times });
                let seconds = |it: &mut World, name| it.status(name).unwrap().modified.seconds;
                told([changed, seconds(it, "l").to_string(), (seconds(it, "a") > 5).to_string()])
            },
            "0, 5, true",
        ),
        (
            "a FIFO is changed without being opened",
            |it| {
                let mode = libc::S_IFIFO | 0o600;
                it.tell(MakeNode { place: it.place("f"), mode, device: 0 });
                let file = it.open("f", libc::O_PATH | libc::O_NOFOLLOW);
                let changed = it.tell(ChangeMode { file, mode: 0o644 });
                told([changed, format!("{:o}", it.status("f").unwrap().mode)])
            },
            "0, 644",
        ),
    ];
    conform(&cases);
}
