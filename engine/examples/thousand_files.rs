//! The same files read in four ways: one by one, by plain threads, by the thread processor and by a
//! ring. The files are read from the page cache or the disk, as they come.
//!
//! `thousand_files [NUMBER]` makes so many files of 4 KiB in a temporary directory, 1,000 by default,
//! and prints how long each way took.

use std::cell::RefCell;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ucp_engine::Proactor;
use ucp_engine::operation::{Open, Place};
use ucp_engine::processor::{Configuration, EngineChoice};

const FILE_BYTES: usize = 4096;
/// Files that are read at a time, where several are.
const AT_A_TIME: usize = 32;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let count = std::env::args().nth(1).map_or(Ok(1000), |number| number.parse())?;
    for (way, duration) in compare(count)? {
        println!("{way:<22} {:>8.2} ms", duration.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Reads the files in each way, and checks that each has read all of them.
pub(crate) fn compare(count: usize) -> Result<Vec<(&'static str, Duration)>> {
    let directory = tempfile::tempdir()?;
    let paths = make_files(directory.path(), count)?;
    let by_threads = Configuration { engine: EngineChoice::Threads, ..Configuration::default() };
    // A ring where there is one: elsewhere threads once more.
    let by_ring = Configuration::default();
    let ways: [(&str, &dyn Fn() -> Result<usize>); 4] = [
        ("one by one", &|| read_one_by_one(&paths)),
        ("plain threads", &|| read_by_threads(&paths)),
        ("the thread processor", &|| read_by_proactor(&by_threads, paths.clone())),
        ("the ring", &|| read_by_proactor(&by_ring, paths.clone())),
    ];
    let mut times = Vec::new();
    for (way, read) in ways {
        let started = Instant::now();
        let bytes = read()?;
        times.push((way, started.elapsed()));
        if bytes != count * FILE_BYTES {
            return Err(format!("{way}: {bytes} bytes instead of {}", count * FILE_BYTES).into());
        }
    }
    Ok(times)
}

fn make_files(directory: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let paths = (0..count).map(|number| directory.join(number.to_string()));
    let paths: Vec<_> = paths.collect();
    for path in &paths {
        fs::write(path, [7; FILE_BYTES])?;
    }
    Ok(paths)
}

fn read_one_by_one(paths: &[PathBuf]) -> Result<usize> {
    paths.iter().try_fold(0, |bytes, path| Ok(bytes + fs::read(path)?.len()))
}

fn read_by_threads(paths: &[PathBuf]) -> Result<usize> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut bytes = 0;
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            bytes += fs::read(path)?.len();
        }
        Ok(bytes)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_fold(0, |bytes, thread| {
            let read: Result<usize> = thread.join().expect("reading does not panic");
            Ok(bytes + read?)
        })
    })
}

fn read_by_proactor(configuration: &Configuration, paths: Vec<PathBuf>) -> Result<usize> {
    let proactor = Proactor::start(configuration)?;
    let initiator = proactor.initiator();
    let paths = Rc::new(RefCell::new(paths.into_iter()));
    proactor.block_on(async {
        let mut readers = Vec::new();
        for _ in 0..AT_A_TIME {
            let (initiator, paths) = (initiator.clone(), Rc::clone(&paths));
            readers.push(initiator.clone().spawn(async move {
                let (mut bytes, mut buffer) = (0, vec![0; FILE_BYTES].into());
                loop {
                    let Some(path) = paths.borrow_mut().next() else { return Ok(bytes) };
                    let file = initiator.open(Open::read(Place::path(path)?)).await?;
                    let read;
                    // The buffer is the operation's while it is in flight, and comes back with it.
                    (read, buffer) = initiator.read_at(&file, buffer, 0).await;
                    bytes += read? as usize;
                }
            })?);
        }
        let mut bytes = 0;
        for reader in readers {
            let read: Result<usize> = reader.await;
            bytes += read?;
        }
        Ok(bytes)
    })
}
