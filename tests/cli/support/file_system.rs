//! File systems of a test's own, on loop devices and in memory.

use std::fs::{self, File};
use std::panic;
use std::process::Command;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{Scratch, run};

/// Runs `work` in a thread with mounts of its own, which end with the thread.
///
/// A mount namespace belongs to a thread, and what the thread starts is in it too; so nobody else
/// sees the mounts, and nobody has to take them down.
pub(crate) fn in_mount_namespace(work: impl FnOnce() + Send) {
    let in_namespace = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        work();
    };
    let ended = thread::scope(|scope| scope.spawn(in_namespace).join());
    if let Err(panicked) = ended {
        panic::resume_unwind(panicked);
    }
}

/// Runs `work` on a fresh file system of this kind with so many bytes.
pub(crate) fn on_file_system(kind: &str, size_bytes: u64, work: impl FnOnce(&Scratch) + Send) {
    let scratch = Scratch::new();
    let mount_point = scratch.path("mounted");
    fs::create_dir(&mount_point).unwrap();
    in_mount_namespace(|| {
        let mut command = Command::new("mount");
        if kind == "tmpfs" {
            command.args(["-t", "tmpfs", "-o", &format!("size={size_bytes}"), "tmpfs"]);
        } else {
            let image = scratch.path("image");
            File::create_new(&image).unwrap().set_len(size_bytes).unwrap();
            // mkfs.btrfs and mkfs.xfs discard first, which a fresh sparse file needs no more than
            // mkfs.ext4 needs to write its tables now.
            let options: &[&str] = match kind {
                "ext4" => &["-q", "-E", "lazy_itable_init=1,nodiscard"],
                "xfs" => &["-q", "-K"],
                "btrfs" => &["-q", "-K"],
                _ => panic!("no such file system: {kind}"),
            };
            run(Command::new(format!("mkfs.{kind}")).args(options).arg(&image)).exits(0);
            command.args(["-t", kind, "-o", "loop"]).arg(&image);
        }
        run(command.arg(&mount_point)).exits(0);
        work(&Scratch::at(&mount_point));
    });
}
