//! Images: block devices as sources and targets.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::support::{
    Background, LoopDevice, Scratch, UCP, allocated_bytes, bytes, data_map, in_mount_namespace,
    leftovers, make_sparse, run, until,
};

const MIB: usize = 1 << 20;
const DEVICE_BYTES: usize = 24 * MIB;
/// Every data path, by what forces it.
const PATHS: [&[&str]; 3] = [&[], &["--direct=on"], &["--direct=off", "--engine=threads"]];

/// The bytes of the file that is behind a device: what has reached the device.
fn behind(scratch: &Scratch, device: &LoopDevice) -> Vec<u8> {
    run(Command::new("blockdev").arg("--flushbufs").arg(device.path())).exits(0);
    scratch.read("behind")
}

fn filled(scratch: &Scratch, size: usize, options: &[&str]) -> LoopDevice {
    scratch.write("behind", vec![0xee; size]);
    LoopDevice::with(&scratch.path("behind"), options)
}

#[test]
fn a_device_is_read_by_its_length() {
    require_root!();
    let scratch = Scratch::new();
    let mut content = bytes(DEVICE_BYTES, 1);
    content[4 * MIB..20 * MIB].fill(0);
    scratch.write("behind", &content);
    let device = LoopDevice::with(&scratch.path("behind"), &["--read-only"]);
    fs::set_permissions(device.path(), fs::Permissions::from_mode(0o640)).unwrap();
    for path in PATHS {
        let words = [path, &[device.name(), "image"]].concat();
        scratch.ucp(&words).succeeds_silently();
        assert!(scratch.read("image") == content, "{words:?}");
        assert_eq!(data_map(&scratch.path("image")), [(0, DEVICE_BYTES as i64)]);
        let words = [path, &["--sparse=always", device.name(), "sparse"]].concat();
        scratch.ucp(&words).succeeds_silently();
        assert!(scratch.read("sparse") == content, "{words:?}");
        assert!(allocated_bytes(&scratch.path("sparse")) < 9 << 20, "{words:?}");
    }
    let mode = fs::metadata(scratch.path("image")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "an image is for those who may read the disk");
    // A link to it, as in /dev/disk.
    scratch.link(device.path(), "link");
    scratch.ucp(["link", "by link"]).succeeds_silently();
    assert!(scratch.read("by link") == content);
    scratch.ucp(["link", "image"]).succeeds_silently();
}

#[test]
fn an_image_is_written_with_zeros_for_its_holes() {
    require_root!();
    let scratch = Scratch::new();
    make_sparse(&scratch.path("sparse"), 20 << 20, &[(0, 5000), (3 << 20, MIB), (9 << 20, 10)]);
    make_sparse(&scratch.path("odd"), (17 << 20) + 777, &[(1 << 20, MIB), (16 << 20, 100)]);
    make_sparse(&scratch.path("small"), 100_000, &[(50_000, 1000)]);
    make_sparse(&scratch.path("hole"), 20 << 20, &[]);
    scratch.write("dense", bytes(18 * MIB + 100, 3));
    for options in [&[][..], &["--sector-size", "4096"]] {
        let device = filled(&scratch, DEVICE_BYTES, options);
        for name in ["sparse", "odd", "small", "hole", "dense"] {
            let content = scratch.read(name);
            for sparse in ["--sparse=auto", "--sparse=always", "--sparse=never"] {
                let paths = if matches!(name, "sparse" | "odd") { &PATHS[..] } else { &PATHS[..1] };
                for path in paths {
                    // Old bytes, and in the page cache, too.
                    let old = File::options().write(true).open(device.path()).unwrap();
                    old.write_all_at(&vec![0xee; DEVICE_BYTES], 0).unwrap();
                    drop(old);
                    let words = [*path, &[sparse, name, device.name()]].concat();
                    scratch.ucp(&words).succeeds_silently();
                    let through = fs::read(device.path()).unwrap();
                    assert!(through[..content.len()] == content, "{words:?}: through the cache");
                    let got = behind(&scratch, &device);
                    assert!(got[..content.len()] == content, "{words:?}");
                    let rest = &got[content.len()..];
                    assert!(rest.iter().all(|byte| *byte == 0xee), "{words:?}: behind the image");
                }
            }
        }
    }
}

#[test]
fn what_a_device_holds_is_not_destroyed_unasked() {
    require_root!();
    let scratch = Scratch::new();
    scratch.write("image", bytes(MIB, 1));
    let device = filled(&scratch, 300 * MIB, &[]);
    let wipe = || {
        let zeros = File::options().write(true).open(device.path()).unwrap();
        zeros.write_all_at(&[0; MIB], 0).unwrap();
        zeros.write_all_at(&[0; MIB], 299 << 20).unwrap();
        zeros.sync_all().unwrap();
    };
    let makers: [(&str, &[&str], &str); 4] = [
        ("mkfs.ext4", &["-q", "-F"], "an ext2, ext3 or ext4 file system"),
        ("mkfs.xfs", &["-q", "-f", "-K"], "an XFS file system"),
        ("mkfs.btrfs", &["-q", "-f", "-K"], "a btrfs file system"),
        ("mkswap", &["-q"], "swap space"),
    ];
    for (maker, options, what) in makers {
        wipe();
        run(Command::new(maker).args(options).arg(device.path())).exits(0);
        let before = fs::read(device.path()).unwrap();
        let ran = scratch.ucp(["image", device.name()]);
        let option = format!("--destroy-data={}", device.name());
        ran.exits(1).says(&["open failed on", device.name(), what, &option]);
        scratch.ucp(["--destroy-data=/dev/loop99", "image", device.name()]).exits(1);
        assert!(fs::read(device.path()).unwrap() == before, "{maker}: something was written");
        scratch.ucp([&option, "image", device.name()]).succeeds_silently();
        assert!(fs::read(device.path()).unwrap()[..MIB] == scratch.read("image"), "{maker}");
    }
    wipe();
    scratch.ucp(["image", device.name()]).succeeds_silently();
}

#[test]
fn a_device_in_use_is_not_written_to() {
    require_root!();
    let scratch = Scratch::new();
    scratch.write("image", bytes(MIB, 1));
    let device = filled(&scratch, 64 * MIB, &[]);
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(device.path())).exits(0);
    scratch.make_directory("mounted");
    in_mount_namespace(|| {
        run(Command::new("mount").arg(device.path()).arg(scratch.path("mounted"))).exits(0);
        let ran = scratch.ucp(["image", device.name()]);
        ran.exits(1).says(&["open failed on", device.name(), "it is in use: mounted"]);
    });
}

#[test]
fn a_device_that_is_too_small_is_not_written_to() {
    require_root!();
    let scratch = Scratch::new();
    scratch.write("image", bytes(2 * MIB + 1, 1));
    let device = filled(&scratch, 2 * MIB, &[]);
    let before = scratch.read("behind");
    let option = format!("--destroy-data={}", device.name());
    scratch.ucp([&option, "image", device.name()]).exits(8).says(&["the device is too small"]);
    assert!(behind(&scratch, &device) == before);
    scratch.write("image", bytes(2 * MIB, 1));
    scratch.ucp(["image", device.name()]).succeeds_silently();
    assert!(behind(&scratch, &device) == scratch.read("image"));
}

#[test]
fn a_device_is_copied_to_another_and_not_to_itself() {
    require_root!();
    let scratch = Scratch::new();
    scratch.write("behind one", bytes(20 * MIB, 5));
    scratch.write("behind", vec![0xee; 20 * MIB]);
    let one = LoopDevice::over(&scratch.path("behind one"));
    let other = LoopDevice::over(&scratch.path("behind"));
    scratch.ucp(["--durable", one.name(), other.name()]).succeeds_silently();
    assert!(behind(&scratch, &other) == scratch.read("behind one"));
    run(Command::new("mknod").arg(scratch.path("node")).args(node_numbers(one.path()))).exits(0);
    let node = scratch.path("node");
    scratch.ucp([one.path(), &node]).exits(1).says(&["the same device"]);
}

/// Interrupts a copy when some of it was moved.
fn interrupt(scratch: &Scratch, words: &[&str], has_begun: impl Fn() -> bool) {
    let mut command = Command::new(UCP);
    command.args(["--limit-rate=16M", "--direct=off"]).args(words);
    let mut copy = Background::start(command.current_dir(scratch.path("")));
    until("the signals are taken care of", || copy.blocks(Signal::SIGINT));
    until("it has begun", || has_begun() || copy.has_ended());
    assert!(!copy.has_ended(), "it ended too early");
    copy.signal(Signal::SIGINT);
    copy.end().exits(130).says(&["the next run begins again: a device does not tell"]);
}

#[test]
fn an_image_that_was_interrupted_begins_again_and_says_so() {
    require_root!();
    let scratch = Scratch::new();
    // Large enough for a journal, if it were a file.
    let size = 160 * MIB;
    let device = filled(&scratch, size, &[]);
    interrupt(&scratch, &[device.name(), "image"], || !leftovers(&scratch.path("")).is_empty());
    assert_eq!(leftovers(&scratch.path("")), Vec::<std::path::PathBuf>::new());
    assert!(!scratch.exists("image"));
    // What was read already is another by now.
    write_at_start(&device, &[0x11; MIB]);
    let ran = scratch.ucp(["--explain", device.name(), "image"]);
    let why = "interrupted, it would have begun again, as a device does not tell";
    assert!(ran.exits(0).stdout().contains(why), "{ran:?}");
    assert!(scratch.read("image") == fs::read(device.path()).unwrap(), "it is of two moments");

    let changed = || {
        let mut first = [0; 1];
        File::open(device.path()).unwrap().read_exact_at(&mut first, 0).unwrap();
        first[0] == 0x22
    };
    scratch.write("image", vec![0x22; size]);
    interrupt(&scratch, &["image", device.name()], changed);
    write_at_start(&device, &[0x33; MIB]);
    let ran = scratch.ucp(["--json", "image", device.name()]);
    let line = ran.exits(0).stdout().lines().next().unwrap();
    let copied: Value = serde_json::from_str(line).unwrap();
    assert!(copied["begins_again_reason"].is_string() && copied["resumed_bytes"] == 0, "{copied}");
    assert!(behind(&scratch, &device) == scratch.read("image"), "it is of two moments");
}

fn write_at_start(device: &LoopDevice, bytes: &[u8]) {
    let write = File::options().write(true).open(device.path()).unwrap();
    write.write_all_at(bytes, 0).unwrap();
}

/// The arguments of mknod for another node of a device.
fn node_numbers(device: &Path) -> [String; 3] {
    use std::os::unix::fs::MetadataExt;
    let node = fs::metadata(device).unwrap().rdev();
    let (major, minor) = (nix::sys::stat::major(node), nix::sys::stat::minor(node));
    ["b".to_owned(), major.to_string(), minor.to_string()]
}
