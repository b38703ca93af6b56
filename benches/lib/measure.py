"""What every benchmark here measures with: timed children, quiet caches, loop file systems, tables.

The traps that this closes, each seen to change a result by 2x and more:
* memory that a virtual machine gave back to its host is slow to get again: `touch_memory` before a run;
* ext4 creates files slowly where many were just deleted: a new file system per run, `LoopFileSystem`;
* a loop device puts its image into the page cache a second time: `--direct-io=on`;
* a preallocated image pays for its first writes: the image is written once and then used again;
* a command that returned has not put its data on the disk: `Run` keeps both times.
"""

import contextlib
import dataclasses
import fcntl
import mmap
import os
import platform
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MIB = 1 << 20
HUGE_PAGE_BYTES = 2 * MIB


class Unable(Exception):
    """The benchmark can't be run here, and its message says why: exit status 2."""


# --- Timed children ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Run:
    """One command, from its start to its return, and, if asked for, until its data was durable."""

    return_s: float
    durable_s: float | None
    cpu_s: float
    rss_max_mib: float


def timed(command, then_sync=None):
    """Runs `command`, then `then_sync` if there is one, and counts both.

    CPU time is user and system of all threads of both, io_uring's workers included; what the kernel's own
    threads do (write-back, a loop device) is charged to nobody. The largest memory is that of `command`;
    it can't read as less than this program's own, about 20 MiB, which the kernel counts until exec.
    """
    start = time.perf_counter()
    usage = spawn_and_wait(command)
    return_s = time.perf_counter() - start
    cpu_s = usage.ru_utime + usage.ru_stime
    durable_s = None
    if then_sync:
        sync_usage = spawn_and_wait(then_sync)
        durable_s = time.perf_counter() - start
        cpu_s += sync_usage.ru_utime + sync_usage.ru_stime
    return Run(return_s, durable_s, cpu_s, usage.ru_maxrss / 1024)


def spawn_and_wait(command) -> resource.struct_rusage:
    with tempfile.TemporaryFile() as errors, open(os.devnull, "r+b") as null:
        child = subprocess.Popen(command, stdin=null, stdout=null, stderr=errors)
        try:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            child.kill()
            child.wait()
            raise
        if child.returncode != 0:
            errors.seek(0)
            message = errors.read().decode(errors="replace").strip()[-2000:]
            raise RuntimeError(f"{shown(command)} ended with {child.returncode}: {message}")
    return usage


def checked(*command, **options):
    """Runs a command that is not measured; its failure is ours."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise RuntimeError(f"{shown(command)} ended with {done.returncode}: {said}")
    return done


def shown(command):
    return " ".join(str(word) for word in command)


# --- Caches and memory ------------------------------------------------------------------------------


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def warm(path):
    """Reads a file, or every file below a folder, so that the page cache holds it."""
    if path.is_dir():
        # The archive is thrown away; to /dev/null itself, tar would not read the files.
        tar = subprocess.Popen(["tar", "-cf", "-", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        subprocess.run(["cat"], stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)
        tar.wait()
    else:
        subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)


def touch_memory(mib):
    """Takes that much memory in huge pages, writes to each, and gives it back, in a process of its own."""
    mib = min(mib, memory_available_mib() // 2)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE)
            for offset in range(0, mib * MIB, HUGE_PAGE_BYTES):
                memory[offset] = 1
            status = 0
        finally:
            os._exit(status)  # also on Ctrl-C: the taking down is the parent's
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError(f"could not touch {mib} MiB of memory")


def memory_available_mib():
    return int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) // 1024


# --- Files and file systems -------------------------------------------------------------------------


def random_file(path, mib):
    """A file of that size full of random bytes, on the disk; made only once."""
    if path.is_file() and path.stat().st_size == mib * MIB:
        return path
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    return path


def file_system_of(path):
    """The type of the file system that holds a path, and on what kind of device it lies."""
    kind, device = checked("findmnt", "-rno", "FSTYPE,SOURCE", "-T", path).stdout.split()[:2]
    return f"{kind} on a loop device (direct I/O)" if "/loop" in device else f"{kind} on a disk"


class LoopFileSystem:
    """A file system on a loop device over an image; `renew` makes it new and empty.

    The device is detached as soon as it is mounted: the kernel keeps it until the unmount, so nothing is
    left behind once that is done.
    """

    MAKE = {
        "ext4": ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
        "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
        "btrfs": ["mkfs.btrfs", "-q", "-f", "-K"],
    }

    def __init__(self, scratch, kind, mib):
        self.kind = kind
        self.folder = scratch / f"mount-{kind}"
        self.image = scratch / f"image-{kind}"
        self.mib = mib

    def __enter__(self):
        self.down()
        self.folder.mkdir(exist_ok=True)
        try:
            # Written, not only preallocated: else the first runs would pay for converting its extents.
            checked("dd", "if=/dev/zero", f"of={self.image}", "bs=4M", f"count={self.mib // 4}", "oflag=direct")
            self.renew()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.down()
        self.image.unlink(missing_ok=True)
        self.folder.rmdir()
        signal.signal(signal.SIGINT, interrupt)

    def renew(self):
        """A new, empty file system, mounted at `folder`."""
        self.down()
        checked(*self.MAKE[self.kind], self.image)
        device = checked("losetup", "-f", "--show", "--direct-io=on", self.image).stdout.strip()
        try:
            checked("mount", device, self.folder)
        finally:
            checked("losetup", "-d", device)

    def down(self):
        if self.folder.is_mount():
            checked("umount", self.folder)
        if self.image.exists():
            # Only what an earlier run that was killed between two commands has left.
            for device in checked("losetup", "-j", self.image, "-nO", "NAME").stdout.split():
                checked("losetup", "-d", device)


def shares_extents(path):
    """Whether a file shares blocks with another one, as a clone does."""
    extents = checked("filefrag", "-v", path).stdout.splitlines()
    return any("shared" in line.rsplit(":", 1)[-1] for line in extents[3:])


@contextlib.contextmanager
def scratch_folder(path):
    """The folder for everything that a benchmark makes; one benchmark at a time uses it."""
    path = path.resolve()
    path.mkdir(parents=True, exist_ok=True)
    with open(path / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unable(f"another benchmark runs in {path}") from None
        yield path


# --- What is here, and what came out ----------------------------------------------------------------


def machine():
    """Lines that say where the figures come from."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    total = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    virtual = " (virtual machine)" if "hypervisor" in info else ""
    return [
        f"kernel: {platform.system()} {platform.release()} {platform.machine()}",
        f"machine: {os.cpu_count()} cores, {model[1] if model else 'unknown'}{virtual}, "
        f"{int(total[1]) // MIB} GiB of memory",
        f"load before the first run: {os.getloadavg()[0]:.2f}",
    ]


def build(*what):
    """Builds a program of this repository, in release mode."""
    command = ["cargo", "build", "--release", "--locked", *what]
    if subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL).returncode != 0:
        raise Unable(f"{shown(command)} failed")


def version_line(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return next(iter((done.stdout + done.stderr).strip().splitlines()), "no version")


def minimum_and_median(values):
    values = list(values)
    return min(values), statistics.median(values)


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def require(commands, root=True):
    """Ends with one message that names everything that is missing."""
    missing = [command for command in commands if not shutil.which(command)]
    if missing:
        raise Unable(f"missing: {', '.join(map(str, missing))}; install them with benches/peers/install")
    if root and os.geteuid() != 0:
        raise Unable("needs root, for loop devices and for dropping the page cache")


def main(body):
    """Runs a benchmark; whatever ends it, the file systems are taken down, and the status says how it went."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    sys.stdout.reconfigure(line_buffering=True)
    try:
        sys.exit(body())
    except Unable as reason:
        sys.exit(say_and_status(reason, 2))
    except RuntimeError as reason:
        sys.exit(say_and_status(reason, 1))
    except KeyboardInterrupt:
        sys.exit(say_and_status("interrupted; everything was taken down", 130))


def say_and_status(reason, status):
    print(f"{Path(sys.argv[0]).name}: {reason}", file=sys.stderr)
    return status
