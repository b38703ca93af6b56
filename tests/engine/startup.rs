//! Start-up: whatever the machine refuses, a processor comes up that works, and says why it is not
//! io_uring.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use ucp_engine::operation::*;
use ucp_engine::processor::{Configuration, EngineChoice, EngineKind, start};
use ucp_engine::{Operation, OperationProcessor};

use crate::support::{child, machine, scratch};
use crate::{require_io_uring, require_root};

#[test]
fn ordinary_users_are_served_whatever_memory_they_may_lock() {
    if let Some(setting) = child::setting() {
        let (limit, user) = setting.split_once(' ').unwrap();
        let limit = limit.parse().unwrap();
        setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit).unwrap();
        become_user(user.parse().unwrap());
        return child::tell(&work(&Configuration::default()));
    }
    require_root!();
    require_io_uring!();
    let this = "startup::ordinary_users_are_served_whatever_memory_they_may_lock";
    // What is locked is counted by user, and given back some time after a ring is closed.
    let cases = [("0", "65531"), ("65536", "65532"), ("8388608", "65533")];
    for (limit, user) in cases {
        let told = child::run(this, &format!("{limit} {user}"), &[]);
        let wants = match limit {
            "0" => vec![
                "works: io_uring: not enough memory (RLIMIT_MEMLOCK) (ENOMEM); using threads",
                "works: using io_uring",
            ],
            _ => vec!["works: using io_uring"],
        };
        assert!(wants.contains(&told.as_str()), "RLIMIT_MEMLOCK of {limit}: {told}");
    }
}

#[test]
fn a_filter_that_refuses_io_uring_means_threads_and_a_reason() {
    if let Some(setting) = child::setting() {
        let (call, errno) = setting.split_once(' ').unwrap();
        refuse(call.parse().unwrap(), errno.parse().unwrap());
        let demanded = Configuration { engine: EngineChoice::Uring, ..Configuration::default() };
        let refused = start(&demanded).map_or_else(|error| error.to_string(), |_| "up".into());
        return child::tell(&format!("{}; {refused}", work(&Configuration::default())));
    }
    require_io_uring!();
    let this = "startup::a_filter_that_refuses_io_uring_means_threads_and_a_reason";
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let refusals = [
        (Errno::ENOSYS, "not there (a sandbox or seccomp filter: ENOSYS)"),
        (Errno::EPERM, "not permitted (a sandbox or seccomp filter: EPERM)"),
        (Errno::EOPNOTSUPP, "not supported (a sandbox or seccomp filter: EOPNOTSUPP)"),
    ];
    for call in calls {
        for (errno, reason) in refusals {
            let told = child::run(this, &format!("{call} {}", errno as i32), &[]);
            let want =
                format!("works: io_uring: {reason}; using threads; io_uring failed: {reason}");
            assert_eq!(told, want, "call {call} answered with {errno:?}");
        }
    }
}

#[test]
fn a_machine_without_io_uring_means_threads_and_a_reason() {
    if child::setting().is_some() {
        return child::tell(&work(&Configuration::default()));
    }
    require_root!();
    {
        require_io_uring!();
    }
    let this = "startup::a_machine_without_io_uring_means_threads_and_a_reason";
    let _hold = machine::alone();
    let disabled = Disabled::set();
    let told = child::run(this, "disabled", &[]);
    drop(disabled);
    let want = "works: io_uring: not permitted (kernel.io_uring_disabled=2); using threads";
    assert_eq!(told, want);
}

#[test]
fn the_processor_that_is_wanted_is_started() {
    require_io_uring!();
    let cases = [
        (EngineChoice::Auto, EngineKind::Uring),
        (EngineChoice::Uring, EngineKind::Uring),
        (EngineChoice::Threads, EngineKind::Threads),
    ];
    for (engine, want) in cases {
        let configuration = Configuration { engine, ..Configuration::default() };
        let processor = start(&configuration).unwrap();
        assert_eq!(processor.capabilities().engine, want, "{engine:?}");
        assert_eq!(processor.capabilities().reason, None, "{engine:?}");
        assert_eq!(work(&configuration), format!("works: using {want}"));
    }
}

#[test]
fn capacities_of_any_size_are_served() {
    require_io_uring!();
    for engine in [EngineChoice::Uring, EngineChoice::Threads] {
        for capacity in [0, 1, 7, 4096, u32::MAX] {
            let told = work(&Configuration { engine, capacity, helper_threads: 1 });
            assert!(told.starts_with("works: "), "{engine:?} with {capacity}: {told}");
        }
    }
}

/// Starts a processor, and copies a little with it.
fn work(configuration: &Configuration) -> String {
    let mut processor = match start(configuration) {
        Ok(processor) => processor,
        Err(error) => return error.to_string(),
    };
    let scratch = tempfile::tempfile().or_else(|_| tempfile::tempfile_in(scratch::directory()));
    let file = File::from_fd(scratch.unwrap().into());
    let pool = processor.buffer_pool(1, 4096).unwrap();
    let mut buffer = pool.lease().unwrap();
    buffer.fill(7);
    let write = Write {
        handle: (&file).into(),
        buffer: buffer.into(),
        offset_bytes: 0,
        start: 0,
        length: 4096,
    };
    run(&mut *processor, write.into());
    run(&mut *processor, Timeout { duration: Duration::from_millis(1) }.into());
    run(
        &mut *processor,
        FileSystemStatus { file: file.clone(), magic: 0, available_bytes: 0 }.into(),
    );
    let buffer = pool.lease().unwrap().into();
    let read = Read { handle: file.into(), buffer, offset_bytes: 0, start: 0, length: 4096 };
    match run(&mut *processor, read.into()) {
        Operation::Read(read) if read.buffer.as_slice() == [7; 4096] => {
            format!("works: {}", processor.capabilities())
        }
        other => format!("fails: {other:?}"),
    }
}

fn run(processor: &mut dyn OperationProcessor, operation: Operation) -> Operation {
    let mut events = CompletionEventQueue::default();
    processor.accept(operation, Token::default()).unwrap();
    while events.is_empty() {
        processor.submit_and_wait(1, None, &mut events).unwrap();
    }
    let event = events.pop().unwrap();
    event.result.unwrap_or_else(|error| panic!("{error:?}"));
    event.into_operation().unwrap()
}

/// Gives up every right of root's, for the whole process.
fn become_user(user: u32) {
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(user)).unwrap();
    setuid(Uid::from_raw(user)).unwrap();
}

/// Answers a system call of this process with an error from now on.
fn refuse(call: i64, errno: u32) {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
}

/// io_uring is switched off for the whole machine; dropping this restores what was.
struct Disabled(String);

impl Disabled {
    const SETTING: &str = "/proc/sys/kernel/io_uring_disabled";

    fn set() -> Self {
        let before = fs::read_to_string(Self::SETTING).expect("Linux 6.6 has it");
        let disabled = Self(before);
        fs::write(Self::SETTING, "2").unwrap();
        disabled
    }
}

impl Drop for Disabled {
    fn drop(&mut self) {
        let restored = fs::write(Self::SETTING, &self.0);
        assert!(restored.is_ok() || std::thread::panicking(), "{restored:?}");
    }
}
