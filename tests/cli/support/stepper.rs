//! Runs the command one system call at a time (`ptrace(2)`): each is looked at before it is made,
//! whichever thread makes it, and what is to happen right before it is done then.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::UCP;

/// What the arguments of a call are, as far as anybody looks.
#[derive(Clone, Copy)]
enum Kind {
    Descriptor,
    /// A directory, for the path behind it.
    Directory,
    Path,
    /// A text that is no path to follow.
    Text,
    OpenFlags,
    /// `struct open_how`.
    How,
    AtFlags,
    RenameFlags,
    Number,
}

use Kind::{
    AtFlags, Descriptor, Directory, How, Number, OpenFlags, Path as Name, RenameFlags, Text,
};

/// Calls by number, with their names and arguments.
const CALLS: &[(i64, &str, &[Kind])] = &[
    (libc::SYS_openat, "openat", &[Directory, Name, OpenFlags]),
    (libc::SYS_openat2, "openat2", &[Directory, Name, How]),
    (libc::SYS_statx, "statx", &[Directory, Name, AtFlags]),
    (libc::SYS_readlinkat, "readlinkat", &[Directory, Name]),
    (libc::SYS_mkdirat, "mkdirat", &[Directory, Name]),
    (libc::SYS_mknodat, "mknodat", &[Directory, Name]),
    (libc::SYS_symlinkat, "symlinkat", &[Text, Directory, Name]),
    (libc::SYS_linkat, "linkat", &[Directory, Name, Directory, Name, AtFlags]),
    (libc::SYS_renameat, "renameat", &[Directory, Name, Directory, Name]),
    (libc::SYS_renameat2, "renameat2", &[Directory, Name, Directory, Name, RenameFlags]),
    (libc::SYS_unlinkat, "unlinkat", &[Directory, Name, AtFlags]),
    (libc::SYS_utimensat, "utimensat", &[Directory, Name, Number, AtFlags]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, "readlink", &[Name]),
    (libc::SYS_read, "read", &[Descriptor]),
    (libc::SYS_write, "write", &[Descriptor]),
    (libc::SYS_pwrite64, "pwrite64", &[Descriptor]),
    (libc::SYS_copy_file_range, "copy_file_range", &[Descriptor]),
    (libc::SYS_ftruncate, "ftruncate", &[Descriptor]),
    (libc::SYS_fallocate, "fallocate", &[Descriptor]),
    (libc::SYS_fchmod, "fchmod", &[Descriptor]),
    (libc::SYS_fchmodat, "fchmodat", &[Directory, Name]),
    (libc::SYS_fchown, "fchown", &[Descriptor]),
    (libc::SYS_fchownat, "fchownat", &[Directory, Name]),
    (libc::SYS_fsetxattr, "fsetxattr", &[Descriptor]),
    (libc::SYS_fremovexattr, "fremovexattr", &[Descriptor]),
    (libc::SYS_setxattr, "setxattr", &[Name]),
    (libc::SYS_flock, "flock", &[Descriptor]),
    (libc::SYS_fsync, "fsync", &[Descriptor]),
    (libc::SYS_fdatasync, "fdatasync", &[Descriptor]),
    (libc::SYS_syncfs, "syncfs", &[Descriptor]),
    (libc::SYS_close, "close", &[Descriptor]),
];

const OPEN_FLAGS: [(i32, &str); 8] = [
    (libc::O_CLOEXEC, "O_CLOEXEC"),
    (libc::O_CREAT, "O_CREAT"),
    (libc::O_EXCL, "O_EXCL"),
    (libc::O_TRUNC, "O_TRUNC"),
    (libc::O_PATH, "O_PATH"),
    (libc::O_DIRECTORY, "O_DIRECTORY"),
    (libc::O_NOFOLLOW, "O_NOFOLLOW"),
    (libc::O_TMPFILE, "O_TMPFILE"),
];

const AT_FLAGS: [(i32, &str); 4] = [
    (libc::AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"),
    (libc::AT_SYMLINK_FOLLOW, "AT_SYMLINK_FOLLOW"),
    (libc::AT_EMPTY_PATH, "AT_EMPTY_PATH"),
    (libc::AT_REMOVEDIR, "AT_REMOVEDIR"),
];

/// Those of `linux/openat2.h`.
const RESOLVE_FLAGS: [(i32, &str); 3] =
    [(0x02, "RESOLVE_NO_MAGICLINKS"), (0x04, "RESOLVE_NO_SYMLINKS"), (0x08, "RESOLVE_BENEATH")];

/// A system call that a thread is about to make.
pub(crate) struct Call {
    thread: Pid,
    arguments: [u64; 6],
    pub(crate) name: &'static str,
    kinds: &'static [Kind],
}

/// What is to become of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Then {
    GoOn,
    /// The process is killed before it makes the call.
    Kill,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Stepped {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

/// Runs `ucp`, and asks about each of the calls that are known here. It is killed if it takes
/// longer than half a minute, and with this thread.
pub(crate) fn step(
    words: &[&str],
    directory: &Path,
    input: Stdio,
    on_call: &mut dyn FnMut(&Call) -> Then,
) -> Stepped {
    // It waits for us before it becomes the program.
    let mut command = Command::new("sh");
    command.args(["-c", "kill -STOP $$; exec \"$@\"", "sh", UCP, "--engine=threads"]).args(words);
    command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.current_dir(directory).spawn().unwrap();
    let main = Pid::from_raw(i32::try_from(child.id()).unwrap());
    waitpid(main, Some(WaitPidFlag::WUNTRACED)).unwrap();
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).unwrap();
    kill(main, Signal::SIGCONT).unwrap();
    let (is_over, over) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let is_late = over.recv_timeout(Duration::from_secs(30));
        if is_late == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill(main, Signal::SIGKILL);
            panic!("a stepped run took too long");
        }
    });
    let code = follow(main, on_call);
    drop(is_over);
    watchdog.join().unwrap();
    Stepped { code, stderr: said(&mut child) }
}

fn said(child: &mut Child) -> String {
    let mut said = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut said).unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

/// Lets all threads go from call to call. Returns the exit status; none if it was killed.
fn follow(main: Pid, on_call: &mut dyn FnMut(&Call) -> Then) -> Option<i32> {
    // Only what this thread started or traces: other tests wait for their own.
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let mut has_begun = false;
    loop {
        let (thread, signal) = match waitpid(None, Some(flags)).unwrap() {
            WaitStatus::Exited(thread, code) if thread == main => return Some(code),
            WaitStatus::Signaled(thread, ..) if thread == main => return None,
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => continue,
            WaitStatus::PtraceSyscall(thread) => {
                let call = Call::of(thread).filter(|_| has_begun);
                if call.is_some_and(|call| on_call(&call) == Then::Kill) {
                    let _ = kill(main, Signal::SIGKILL);
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, _, event) => {
                has_begun |= event == libc::PTRACE_EVENT_EXEC;
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            other => panic!("not waited for: {other:?}"),
        };
        match ptrace::syscall(thread, signal) {
            // It was killed meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => panic!("ptrace: {errno}"),
        }
    }
}

impl Call {
    /// The one that a stopped thread is about to make, if it is known here.
    #[allow(unsafe_code, reason = "what the kernel says of a call is a union")]
    fn of(thread: Pid) -> Option<Self> {
        let info = ptrace::syscall_info(thread).ok()?;
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        // SAFETY: the kernel says by `op` that this is what it has filled in (ptrace(2),
        // PTRACE_GET_SYSCALL_INFO); and any bits are numbers.
        let entry = unsafe { info.u.entry };
        let number = i64::try_from(entry.nr).ok()?;
        let &(_, name, kinds) = CALLS.iter().find(|call| call.0 == number)?;
        Some(Self { thread, arguments: entry.args, name, kinds })
    }

    /// The directories and names that it is given, in order. A directory is where it is now.
    pub(crate) fn names(&self) -> Vec<(PathBuf, PathBuf)> {
        let pairs = self.kinds.windows(2).enumerate();
        let pairs = pairs.filter(|(_, pair)| matches!(pair, [Directory, Name]));
        let at = pairs.map(|(index, _)| (self.directory(index), self.path(index + 1)));
        match self.kinds {
            [Name, ..] => vec![(self.current(), self.path(0))],
            _ => at.collect(),
        }
    }

    /// The number of its first argument, where that is a descriptor.
    pub(crate) fn descriptor(&self) -> i32 {
        self.number(0)
    }

    /// As strace shows it, so that both can be read by the same eyes.
    pub(crate) fn text(&self) -> String {
        let argument = |(index, kind): (usize, &Kind)| match kind {
            Directory if self.number(index) == libc::AT_FDCWD => "AT_FDCWD".into(),
            Name | Text if self.arguments[index] == 0 => "NULL".into(),
            Name | Text => format!("{:?}", self.path(index)),
            OpenFlags => open_flags(self.number(index)),
            AtFlags => words(self.number(index), &AT_FLAGS),
            RenameFlags if self.number(index) == 1 => "RENAME_NOREPLACE".into(),
            How => {
                let how = self.memory(self.arguments[index], 24);
                let word = |at: usize| {
                    let bytes = <[u8; 8]>::try_from(&how[at..at + 8]).unwrap();
                    i32::try_from(u64::from_ne_bytes(bytes)).unwrap()
                };
                format!("{{{}, {}}}", open_flags(word(0)), words(word(16), &RESOLVE_FLAGS))
            }
            Directory | Descriptor | Number | RenameFlags => self.number(index).to_string(),
        };
        let arguments: Vec<String> = self.kinds.iter().enumerate().map(argument).collect();
        format!("{}({}) = ?", self.name, arguments.join(", "))
    }

    /// An argument of 32 bits; what is above is not the callee's.
    #[allow(clippy::cast_possible_truncation, reason = "the upper half is no part of an int")]
    fn number(&self, index: usize) -> i32 {
        (self.arguments[index] as u32).cast_signed()
    }

    fn current(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/cwd", self.thread)).unwrap()
    }

    fn directory(&self, index: usize) -> PathBuf {
        match self.number(index) {
            libc::AT_FDCWD => self.current(),
            number => fs::read_link(format!("/proc/{}/fd/{number}", self.thread)).unwrap(),
        }
    }

    fn path(&self, index: usize) -> PathBuf {
        if self.arguments[index] == 0 {
            return PathBuf::new();
        }
        let mut bytes = self.memory(self.arguments[index], 4096);
        let end = bytes.iter().position(|byte| *byte == 0).unwrap();
        bytes.truncate(end);
        OsString::from_vec(bytes).into()
    }

    /// What is in its memory there; less where that ends.
    fn memory(&self, address: u64, length: usize) -> Vec<u8> {
        let memory = File::open(format!("/proc/{}/mem", self.thread)).unwrap();
        let mut bytes = vec![0; length];
        let read = memory.read_at(&mut bytes, address).unwrap();
        bytes.truncate(read);
        bytes
    }
}

fn words(flags: i32, names: &[(i32, &str)]) -> String {
    let set = names.iter().filter(|(bits, _)| flags & bits == *bits);
    let set: Vec<&str> = set.map(|(_, name)| *name).collect();
    if set.is_empty() { "0".into() } else { set.join("|") }
}

fn open_flags(flags: i32) -> String {
    let access = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => "O_RDONLY",
        libc::O_WRONLY => "O_WRONLY",
        _ => "O_RDWR",
    };
    format!("{access}|{}", words(flags, &OPEN_FLAGS))
}
