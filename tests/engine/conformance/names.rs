//! Operations on names: what makes, finds, moves and removes them.

use std::ffi::CString;

use nix::libc;
use ucp_engine::Operation;
use ucp_engine::operation::*;

use super::world::{World, text, told};
use super::{Case, conform};

#[test]
fn opening() {
    let cases: [Case; 18] = [
        (
            "a new file is made and can be read and written",
            |it| {
                let file = it.file("a", b"hello");
                told([it.read(&file, 0, 5), it.size("a").to_string()])
            },
            "5 hello, 5",
        ),
        (
            "a new file has the mode that was asked for",
            |it| {
                it.tell(Open::create_new(it.place("a"), 0o600));
                format!("{:o}", it.status("a").unwrap().mode)
            },
            "600",
        ),
        (
            "a name that exists is not made",
            |it| {
                it.file("a", b"hello");
                told([it.tell(Open::create_new(it.place("a"), 0o600)), it.size("a").to_string()])
            },
            "EEXIST, 5",
        ),
        (
            "a name that does not exist is not found",
            |it| it.tell(Open::read(it.place("a"))),
            "ENOENT",
        ),
        (
            "a mode without anything made is ignored",
            |it| {
                it.file("a", b"");
                it.tell(Open { mode: 0o7777, ..Open::read(it.place("a")) })
            },
            "0",
        ),
        (
            "truncating on the way empties the file",
            |it| {
                it.file("a", b"hello");
                it.open("a", libc::O_WRONLY | libc::O_TRUNC);
                it.size("a").to_string()
            },
            "0",
        ),
        (
            "a file is no directory",
            |it| {
                it.file("a", b"");
                it.tell(Open::new(it.place("a"), libc::O_RDONLY | libc::O_DIRECTORY))
            },
            "ENOTDIR",
        ),
        (
            "a name below a file is refused",
            |it| {
                it.file("a", b"");
                it.tell(Open::read(it.place("a/b")))
            },
            "ENOTDIR",
        ),
        (
            "a directory can't be written",
            |it| {
                it.directory("d");
                it.tell(Open::new(it.place("d"), libc::O_WRONLY))
            },
            "EISDIR",
        ),
        (
            "a name below a directory is found",
            |it| {
                it.directory("d");
                it.file("d/a", b"hello");
                it.tell(Open::read(it.place("d/a")).confined())
            },
            "0",
        ),
        (
            "confined, nothing outside is found",
            |it| {
                let directory = it.directory("d");
                it.file("a", b"");
                let outside = Place::at(&directory, &Name::new("../a").unwrap());
                let plain = it.tell(Open::read(outside.clone()));
                told([plain, it.tell(Open::read(outside).confined())])
            },
            "0, EXDEV",
        ),
        (
            "confined, a link is not followed",
            |it| {
                it.file("a", b"");
                it.symbolic_link("l", "a");
                let plain = it.tell(Open::read(it.place("l")));
                told([plain, it.tell(Open::read(it.place("l")).confined())])
            },
            "0, ELOOP",
        ),
        (
            "confined, a link on the way is not followed",
            |it| {
                it.directory("d");
                it.file("d/a", b"");
                it.symbolic_link("l", "d");
                let plain = it.tell(Open::read(it.place("l/a")));
                told([plain, it.tell(Open::read(it.place("l/a")).confined())])
            },
            "0, ELOOP",
        ),
        (
            "a link that is asked not to be followed is refused",
            |it| {
                it.file("a", b"");
                it.symbolic_link("l", "a");
                it.tell(Open::new(it.place("l"), libc::O_RDONLY | libc::O_NOFOLLOW))
            },
            "ELOOP",
        ),
        (
            "a link in a circle is refused",
            |it| {
                it.symbolic_link("l", "l");
                it.tell(Open::read(it.place("l")))
            },
            "ELOOP",
        ),
        (
            "a name of 255 bytes is made, one of 256 is refused",
            |it| {
                let names = [255, 256].map(|length| "n".repeat(length));
                told(names.map(|name| it.tell(Open::create_new(it.place(&name), 0o600))))
            },
            "0, ENAMETOOLONG",
        ),
        ("an empty name is not found", |it| it.tell(Open::read(it.place(""))), "ENOENT"),
        (
            "a name of any bytes is made",
            |it| {
                let name = Name::new(b"\xff\n \x01").unwrap();
                let place = Place::at(&it.root, &name);
                told([it.tell(Open::create_new(place, 0o600)), listed(it, 4096)])
            },
            r"0, 1 \xff\n \x01 Regular",
        ),
    ];
    conform(&cases);
}

#[test]
fn closing() {
    let cases: [Case; 6] = [
        (
            "the last owner closes",
            |it| {
                let file = it.file("a", b"");
                closed(it, Close::file(file))
            },
            "0, nothing left",
        ),
        (
            "closing where others have the file gives up one share",
            |it| {
                let file = it.file("a", b"hello");
                told([closed(it, Close::file(file.clone())), it.read(&file, 0, 5)])
            },
            "0, nothing left, 5 hello",
        ),
        (
            "what closing would say is said by a file that stays open",
            |it| {
                let file = it.file("a", b"hello");
                told([it.tell(Flush { file: file.clone() }), it.read(&file, 0, 5)])
            },
            "0, 5 hello",
        ),
        (
            "a lock outlives what a flush closes",
            |it| {
                let first = it.file("a", b"");
                let second = it.open("a", libc::O_RDONLY);
                it.tell(Lock { file: first.clone() });
                it.tell(Flush { file: first.clone() });
                it.tell(Lock { file: second })
            },
            "EAGAIN",
        ),
        (
            "closing nothing is refused",
            |it| closed(it, Close { handle: None }),
            "EBADF, nothing left",
        ),
        (
            "a lock ends when its file is closed",
            |it| {
                let first = it.file("a", b"");
                let second = it.open("a", libc::O_RDONLY);
                it.tell(Lock { file: first.clone() });
                it.tell(Close::file(first));
                it.lock_in_the_end(&second)
            },
            "0",
        ),
    ];
    conform(&cases);
}

fn closed(it: &mut World, close: Close) -> String {
    let ended = it.run(close);
    let told_result = ended.told();
    match ended.operation {
        Operation::Close(Close { handle: None }) => told([told_result, "nothing left".into()]),
        other => format!("{told_result}, {other:?}"),
    }
}

#[test]
fn renaming() {
    let cases: [Case; 11] = [
        (
            "a file takes its new name",
            |it| {
                it.file("a", b"hello");
                told([rename(it, "a", "b", false), listed(it, 4096), it.size("b").to_string()])
            },
            "0, 1 b Regular, 5",
        ),
        (
            "a target that exists is kept where asked to",
            |it| {
                it.file("a", b"hello");
                it.file("b", b"");
                told([rename(it, "a", "b", false), it.size("b").to_string()])
            },
            "EEXIST, 0",
        ),
        (
            "a target that exists is replaced where asked to",
            |it| {
                it.file("a", b"hello");
                it.file("b", b"");
                told([rename(it, "a", "b", true), listed(it, 4096), it.size("b").to_string()])
            },
            "0, 1 b Regular, 5",
        ),
        ("a source that is missing is not found", |it| rename(it, "a", "b", true), "ENOENT"),
        (
            "a directory takes its new name with what is in it",
            |it| {
                it.directory("d");
                it.file("d/a", b"hello");
                told([rename(it, "d", "e", false), it.size("e/a").to_string()])
            },
            "0, 5",
        ),
        (
            "an empty directory is replaced by a directory",
            |it| {
                it.directory("d");
                it.directory("e");
                told([rename(it, "d", "e", true), listed(it, 4096)])
            },
            "0, 1 e Directory",
        ),
        (
            "a directory with something in it is not replaced",
            |it| {
                it.directory("d");
                it.directory("e");
                it.file("e/a", b"");
                rename(it, "d", "e", true)
            },
            "ENOTEMPTY",
        ),
        (
            "a directory is not replaced by a file",
            |it| {
                it.file("a", b"");
                it.directory("d");
                rename(it, "a", "d", true)
            },
            "EISDIR",
        ),
        (
            "a file is not replaced by a directory",
            |it| {
                it.file("a", b"");
                it.directory("d");
                rename(it, "d", "a", true)
            },
            "ENOTDIR",
        ),
        (
            "a directory does not go into itself",
            |it| {
                it.directory("d");
                rename(it, "d", "d/e", false)
            },
            "EINVAL",
        ),
        (
            "one name of a file onto another changes nothing",
            |it| {
                it.file("a", b"");
                link(it, "a", "b");
                told([rename(it, "a", "b", true), it.status("a").unwrap().links.to_string()])
            },
            "0, 2",
        ),
    ];
    conform(&cases);
}

fn rename(it: &mut World, source: &str, target: &str, replace: bool) -> String {
    it.tell(Rename { source: it.place(source), target: it.place(target), replace })
}

#[test]
fn removing() {
    let cases: [Case; 8] = [
        (
            "a file is removed",
            |it| {
                it.file("a", b"");
                told([unlink(it, "a", false), listed(it, 4096)])
            },
            "0, 0",
        ),
        (
            "an open file lives on without a name",
            |it| {
                let file = it.file("a", b"hello");
                told([unlink(it, "a", false), it.read(&file, 0, 5)])
            },
            "0, 5 hello",
        ),
        (
            "an empty directory is removed",
            |it| {
                it.directory("d");
                told([unlink(it, "d", true), listed(it, 4096)])
            },
            "0, 0",
        ),
        (
            "a directory is no file",
            |it| {
                it.directory("d");
                unlink(it, "d", false)
            },
            "EISDIR",
        ),
        (
            "a file is no directory",
            |it| {
                it.file("a", b"");
                unlink(it, "a", true)
            },
            "ENOTDIR",
        ),
        (
            "a directory with something in it is kept",
            |it| {
                it.directory("d");
                it.file("d/a", b"");
                unlink(it, "d", true)
            },
            "ENOTEMPTY",
        ),
        (
            "a link is removed itself",
            |it| {
                it.file("a", b"");
                it.symbolic_link("l", "a");
                told([unlink(it, "l", false), listed(it, 4096)])
            },
            "0, 1 a Regular",
        ),
        (
            "what is missing is not found",
            |it| told([unlink(it, "a", false), unlink(it, "a", true)]),
            "ENOENT, ENOENT",
        ),
    ];
    conform(&cases);
}

fn unlink(it: &mut World, name: &str, is_directory: bool) -> String {
    it.tell(Unlink { place: it.place(name), is_directory })
}

#[test]
fn making() {
    let cases: [Case; 15] = [
        (
            "a directory has the mode that was asked for",
            |it| {
                let made = it.tell(MakeDirectory { place: it.place("d"), mode: 0o700 });
                let status = it.status("d").unwrap();
                format!("{made}, {:?} {:o}", status.kind, status.mode)
            },
            "0, Directory 700",
        ),
        (
            "a directory that exists is not made",
            |it| {
                it.directory("d");
                it.tell(MakeDirectory { place: it.place("d"), mode: 0o700 })
            },
            "EEXIST",
        ),
        (
            "a directory in a missing one is not made",
            |it| it.tell(MakeDirectory { place: it.place("d/e"), mode: 0o700 }),
            "ENOENT",
        ),
        (
            "a symbolic link says what it was made with",
            |it| {
                it.symbolic_link("l", "anything at all");
                read_link(it, "l", 64)
            },
            "15 anything at all",
        ),
        (
            "a symbolic link that exists is not made",
            |it| {
                it.file("l", b"");
                let content = Name::new("a").unwrap();
                it.tell(SymbolicLink { place: it.place("l"), content })
            },
            "EEXIST",
        ),
        (
            "what a symbolic link says is cut off",
            |it| {
                it.symbolic_link("l", "anything at all");
                read_link(it, "l", 8)
            },
            "8 anything",
        ),
        (
            "a file is no symbolic link",
            |it| {
                it.file("a", b"");
                read_link(it, "a", 8)
            },
            "EINVAL",
        ),
        ("a link that is missing is not found", |it| read_link(it, "l", 8), "ENOENT"),
        (
            "reading a link into nothing is refused",
            |it| {
                it.symbolic_link("l", "a");
                read_link(it, "l", 0)
            },
            "EINVAL",
        ),
        (
            "a second name is the same file",
            |it| {
                it.file("a", b"hello");
                let made = link(it, "a", "b");
                let (a, b) = (it.status("a").unwrap(), it.status("b").unwrap());
                told([made, a.is_same_file(&b).to_string(), a.links.to_string()])
            },
            "0, true, 2",
        ),
        (
            "a second name that exists is not made",
            |it| {
                it.file("a", b"");
                it.file("b", b"");
                link(it, "a", "b")
            },
            "EEXIST",
        ),
        (
            "a second name of a symbolic link is the link's",
            |it| {
                it.symbolic_link("l", "a");
                told([link(it, "l", "m"), read_link(it, "m", 8)])
            },
            "0, 1 a",
        ),
        (
            "a directory has no second name",
            |it| {
                it.directory("d");
                link(it, "d", "e")
            },
            "EPERM",
        ),
        (
            "a fifo is made",
            |it| {
                let mode = libc::S_IFIFO | 0o600;
                let made = it.tell(MakeNode { place: it.place("f"), mode, device: 0 });
                let status = it.status("f").unwrap();
                format!("{made}, {:?} {:o}", status.kind, status.mode)
            },
            "0, Fifo 600",
        ),
        (
            "a fifo that exists is not made",
            |it| {
                it.file("f", b"");
                it.tell(MakeNode { place: it.place("f"), mode: libc::S_IFIFO | 0o600, device: 0 })
            },
            "EEXIST",
        ),
    ];
    conform(&cases);
}

fn link(it: &mut World, source: &str, target: &str) -> String {
    it.tell(Link { source: it.place(source), target: it.place(target), follow: false })
}

fn read_link(it: &mut World, name: &str, length: usize) -> String {
    let ended = it.run(ReadLink { place: it.place(name), buffer: vec![b'.'; length].into() });
    match ended.result {
        Ok(number) => format!("{number} {}", text(&ended.bytes()[..number as usize])),
        Err(_) => ended.told(),
    }
}

#[test]
fn listing() {
    let cases: [Case; 5] = [
        ("an empty directory lists nothing", |it| listed(it, 4096), "0"),
        (
            "every kind is told",
            |it| {
                it.file("a", b"");
                it.directory("d");
                it.symbolic_link("l", "a");
                it.tell(MakeNode { place: it.place("f"), mode: libc::S_IFIFO | 0o600, device: 0 });
                listed(it, 4096)
            },
            "4 a Regular d Directory f Fifo l SymbolicLink",
        ),
        (
            "a listing goes on where it stopped",
            |it| {
                for number in 0..50 {
                    it.file(&format!("a file with a long name: {number:03}"), b"");
                }
                listed(it, 256).split(' ').next().unwrap().into()
            },
            "50",
        ),
        (
            "a buffer that is too small for one name is refused",
            |it| {
                it.file("a", b"");
                it.tell(ListDirectory { directory: it.root.clone(), buffer: vec![0; 8].into() })
            },
            "EINVAL",
        ),
        (
            "a file can't be listed",
            |it| {
                let directory = it.file("a", b"");
                it.tell(ListDirectory { directory, buffer: vec![0; 4096].into() })
            },
            "ENOTDIR",
        ),
    ];
    conform(&cases);
}

/// Lists the directory of the case to its end: how many names, and each with its kind, in order.
fn listed(it: &mut World, buffer_bytes: usize) -> String {
    let directory = it.open(".", libc::O_RDONLY | libc::O_DIRECTORY);
    let mut entries: Vec<(CString, FileKind)> = Vec::new();
    loop {
        let buffer = vec![0; buffer_bytes].into();
        let ended = it.run(ListDirectory { directory: directory.clone(), buffer });
        match ended.result {
            Ok(0) => break,
            Ok(length) => entries.extend(
                directory_entries(&ended.bytes()[..length as usize])
                    .map(|entry| (entry.name.to_owned(), entry.kind)),
            ),
            Err(_) => return ended.told(),
        }
    }
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    let mut told_entries = entries.len().to_string();
    for (name, kind) in entries {
        told_entries += &format!(" {} {kind:?}", text(name.as_bytes()));
    }
    told_entries
}
