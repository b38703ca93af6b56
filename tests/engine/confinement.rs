//! What the process has given up (Landlock), the workers of its rings have given up as well.

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use nix::errno::Errno;
use nix::libc;
use ucp_engine::operation::*;
use ucp_engine::processor::KernelProcessor;
use ucp_engine::{Operation, OperationProcessor};

use crate::require_io_uring;
use crate::support::{child, scratch, skip};

#[test]
fn workers_of_a_ring_write_nothing_outside_the_sandbox() {
    if let Some(inside) = child::setting() {
        return child::tell(&try_both(&inside));
    }
    require_io_uring!();
    let inside = scratch::directory();
    let this = "confinement::workers_of_a_ring_write_nothing_outside_the_sandbox";
    let told = child::run(this, inside.path().to_str().unwrap(), &[]);
    if told == "no landlock" {
        return skip::skip("there is no Landlock");
    }
    // O_CREAT never succeeds without waiting, so that a worker of the ring makes the file
    // (io_uring/openclose.c, io_openat_force_async).
    assert_eq!(told, "inside: made; outside: EACCES; renamed outside: EXDEV or EACCES");
}

/// Enters a sandbox, and tries to make files on both sides of its border.
fn try_both(inside: &str) -> String {
    let outside = scratch::directory();
    let all = AccessFs::from_all(ABI::V3);
    let ruleset = Ruleset::default().handle_access(all).unwrap().create().unwrap();
    let ruleset = ruleset.add_rules(path_beneath_rules([inside], all)).unwrap();
    if ruleset.restrict_self().unwrap().ruleset == RulesetStatus::NotEnforced {
        return "no landlock".into();
    }
    let mut ring = KernelProcessor::new(8, 1).unwrap();
    let path = |folder: &std::path::Path, name: &str| Place::path(folder.join(name)).unwrap();
    let inside = std::path::Path::new(inside);
    let make = |place| Operation::Open(Open::create_new(place, 0o600));
    let made = perform(&mut ring, make(path(inside, "a")));
    let refused = perform(&mut ring, make(path(outside.path(), "a")));
    let source = path(inside, "a");
    let rename = Rename { source, target: path(outside.path(), "a"), replace: true };
    let renamed = perform(&mut ring, Operation::Rename(rename));
    let opened = Open::new(path(inside, "a"), libc::O_RDONLY);
    assert!(perform(&mut ring, Operation::Open(opened)).is_ok());
    format!(
        "inside: {}; outside: {}; renamed outside: {}",
        made.map_or_else(|errno| format!("{errno:?}"), |()| "made".into()),
        refused.map_or_else(|errno| format!("{errno:?}"), |()| "made".into()),
        match renamed {
            Err(Errno::EXDEV | Errno::EACCES) => "EXDEV or EACCES".into(),
            other => format!("{other:?}"),
        },
    )
}

fn perform(ring: &mut KernelProcessor, operation: Operation) -> Result<(), Errno> {
    let mut events = CompletionEventQueue::default();
    assert!(ring.accept(operation, Token::default()).is_ok());
    while events.is_empty() {
        ring.submit_and_wait(1, None, &mut events).unwrap();
    }
    events.pop().unwrap().result.map(drop).map_err(|error| error.errno)
}
