//! Where worlds are made: file systems of several kinds, and the programs, for every user.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::support::{Scratch, run};

/// The file systems of one thread.
#[derive(Debug)]
pub(crate) struct Place {
    memory: PathBuf,
    disks: Vec<PathBuf>,
    ucp: PathBuf,
    cp: PathBuf,
}

/// One in so many worlds is on a disk.
const ON_DISK: u64 = 4;

impl Place {
    /// Mounts file systems in the mount namespace of this thread. `noatime`: looking at a world
    /// must not change it.
    pub(crate) fn mount(scratch: &Scratch, number: usize) -> Self {
        let (ucp, cp) = (scratch.path("ucp"), scratch.path("cp"));
        let _ = symlink("ucp", &cp);
        let memory = scratch.path(format!("memory {number}"));
        fs::create_dir(&memory).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1g,noatime,mode=755", "tmpfs"]).arg(&memory);
        run(&mut mount).exits(0);
        let kinds: [(&str, u64, &[&str]); 3] = [
            ("ext4", 64, &["-q", "-E", "lazy_itable_init=1,nodiscard"]),
            ("xfs", 300, &["-q", "-K"]),
            ("btrfs", 128, &["-q", "-K"]),
        ];
        let disk = |(kind, size_mib, options): (&str, u64, &[&str])| {
            let (image, mounted) = (memory.join(format!("{kind} image")), memory.join(kind));
            fs::File::create_new(&image).unwrap().set_len(size_mib << 20).unwrap();
            fs::create_dir(&mounted).unwrap();
            run(Command::new(format!("mkfs.{kind}")).args(options).arg(&image)).exits(0);
            let mut mount = Command::new("mount");
            mount.args(["-t", kind, "-o", "loop,noatime"]).arg(&image).arg(&mounted);
            run(&mut mount).exits(0);
            mounted
        };
        Self { disks: kinds.into_iter().map(disk).collect(), memory, ucp, cp }
    }

    /// Where the world of a seed is: mostly in memory, which is fastest, else on a disk.
    pub(crate) fn world(&self, seed: u64) -> PathBuf {
        let disk = usize::try_from(seed / ON_DISK).expect("it is an index") % self.disks.len();
        let below = if self.is_in_memory(seed) { &self.memory } else { &self.disks[disk] };
        below.join("world")
    }

    fn is_in_memory(&self, seed: u64) -> bool {
        !seed.is_multiple_of(ON_DISK)
    }

    /// Whether files can share extents there.
    pub(crate) fn can_clone(&self, seed: u64) -> bool {
        let world = self.world(seed);
        world.starts_with(self.memory.join("xfs")) || world.starts_with(self.memory.join("btrfs"))
    }

    /// The program under test, under either name.
    pub(crate) fn program(&self, name: &str) -> &Path {
        if name == "cp" { &self.cp } else { &self.ucp }
    }
}
