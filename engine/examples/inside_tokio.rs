//! The engine inside tokio: files through a ring, beside whatever tokio does, on one thread.
//!
//! `inside_tokio FILE…` prints how many bytes each file has, read side by side, while a timer of
//! tokio's ticks.

#![allow(unsafe_code, reason = "tokio has its callers promise that a descriptor stays open")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{LocalSet, spawn_local, yield_now};
use ucp_engine::operation::{Open, OperationError, Place};
use ucp_engine::proactor::TaskInitiator;
use ucp_engine::{Error, Proactor};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let (lengths, ticks) = run(std::env::args().skip(1).collect())?;
    for (path, length_bytes) in lengths {
        println!("{path}: {length_bytes} bytes");
    }
    println!("{ticks} ticks meanwhile");
    Ok(())
}

/// Reads files side by side. Returns how long each is, and how often tokio's timer ticked meanwhile.
fn run(paths: Vec<String>) -> Result<(Vec<(String, u64)>, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(async {
        let proactor = Proactor::start(&Default::default())?;
        let tasks = proactor.initiator();
        // The guest: it has its turn whenever there is something to do.
        let guest = spawn_local(async move { drive(&proactor).await });

        let ticks = Rc::new(Cell::new(0_u64));
        let count = Rc::clone(&ticks);
        let ticking = spawn_local(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                count.set(count.get() + 1);
            }
        });
        let files = paths.into_iter().map(|path| {
            let mine = tasks.clone();
            // A task of tokio's that awaits the engine.
            spawn_local(async move { (length_bytes(&mine, &path).await, path) })
        });
        let files: Vec<_> = files.collect();
        let mut lengths = Vec::new();
        for file in files {
            let (length_bytes, path) = file.await?;
            lengths.push((path, length_bytes?));
        }
        ticking.abort();
        guest.abort();
        Ok((lengths, ticks.get()))
    }))
}

/// Runs the engine as a guest of tokio.
async fn drive(proactor: &Proactor) -> std::result::Result<(), Error> {
    let pollable = proactor.pollable()?;
    // SAFETY: a `Pollable` owns its descriptor, the only one that it ever answers with, and the
    // `AsyncFd` owns the `Pollable`.
    let pollable = unsafe { AsyncFd::register_with_interest(pollable, Interest::READABLE) };
    let pollable = pollable.expect("tokio takes an epoll");
    loop {
        let mut readable = pollable.readable().await.expect("tokio's loop runs");
        readable.clear_ready();
        proactor.turn(Duration::ZERO)?;
        // Those whom this woke go first.
        yield_now().await;
    }
}

/// Reads a file to its end.
async fn length_bytes(
    tasks: &TaskInitiator,
    path: &str,
) -> std::result::Result<u64, OperationError> {
    let file = tasks.open(Open::read(Place::path(path)?)).await?;
    let (mut length_bytes, mut buffer) = (0, vec![0; 64 << 10].into());
    loop {
        let (result, back) = tasks.read_at(&file, buffer, length_bytes).await;
        buffer = back;
        match result? {
            0 => return Ok(length_bytes),
            count => length_bytes += u64::from(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_beside_tokio() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").to_owned();
        let want = std::fs::metadata(&path).expect("this file is there").len();
        let (lengths, _) = run(vec![path.clone(), path]).expect("they can be read");
        assert_eq!(lengths.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [want, want]);
        assert!(run(vec!["/nowhere".into()]).is_err());
    }
}
