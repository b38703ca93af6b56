//! Tests that change a setting of the whole machine run alone; tests that depend on it, together.

use std::fs::File;

use nix::fcntl::{Flock, FlockArg};

/// Holds the machine; dropping it lets others go on.
#[must_use]
pub(crate) struct Hold(#[expect(dead_code, reason = "held")] Flock<File>);

/// While this is held, the machine's settings stay as they are.
pub(crate) fn shared() -> Hold {
    hold(FlockArg::LockShared)
}

/// While this is held, no other test depends on the machine's settings.
pub(crate) fn alone() -> Hold {
    hold(FlockArg::LockExclusive)
}

fn hold(how: FlockArg) -> Hold {
    let path = std::env::temp_dir().join("ucp-test-machine.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    loop {
        match Flock::lock(file.try_clone().unwrap(), how) {
            Ok(lock) => return Hold(lock),
            Err((_, nix::errno::Errno::EINTR)) => {}
            Err((_, errno)) => panic!("{}: {errno}", path.display()),
        }
    }
}
