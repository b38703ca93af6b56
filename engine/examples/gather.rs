//! Many files at once, with limits: so many open at a time, each tried again when it fails for a
//! while, all of it within a deadline, digested beside the loop.
//!
//! `gather SECONDS FILE…` prints the BLAKE3 digest of each file that was read in time.

use std::time::Duration;

use ucp_engine::digest::Algorithm;
use ucp_engine::operation::{Open, OperationError, Place};
use ucp_engine::proactor::{Backoff, Semaphore, TaskInitiator};
use ucp_engine::{Errno, Proactor};

const OPEN_MAX: usize = 64;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().ok_or("usage: gather SECONDS FILE…")?.parse()?;
    let proactor = Proactor::start(&Default::default())?;
    let digests = gather(&proactor, Duration::from_secs(seconds), arguments.collect())?;
    for digest in digests {
        match digest {
            Ok(line) => println!("{line}"),
            Err(why) => eprintln!("{why}"),
        }
    }
    Ok(())
}

/// Digests files side by side. Returns a line for each, or why there is none.
fn gather(
    proactor: &Proactor,
    patience: Duration,
    paths: Vec<String>,
) -> Result<Vec<std::result::Result<String, String>>> {
    let tasks = proactor.initiator();
    proactor.block_on(async {
        let scope = tasks.scope_for(patience);
        let limit = Semaphore::new(OPEN_MAX);
        let mut files = Vec::new();
        for (path, seed) in paths.into_iter().zip(0..) {
            let (mine, limit, job) = (tasks.clone(), limit.clone(), tasks.job(&path));
            let digest = async move {
                let _permit = limit.acquire(1).await;
                let waits = Backoff::new(Duration::from_millis(10), 5, seed);
                let read = async || read_whole(&mine, &path).await;
                let content = mine.retry(waits, |error| is_passing(*error), read).await;
                let content = content.map_err(|error| format!("{path}: {}", error.errno))?;
                Ok(format!("{}  {path}", digest(&mine, content).await?))
            };
            files.push(scope.spawn(async move { job.run(digest).await })?);
        }
        let mut digests = Vec::new();
        for file in files {
            digests.push(file.await.unwrap_or_else(|stopped| Err(stopped.to_string())));
        }
        // What was given up has ended as well.
        scope.ended().await;
        Ok(digests)
    })
}

/// Whether a failure may pass.
fn is_passing(error: OperationError) -> bool {
    matches!(error.errno, Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE | Errno::ETXTBSY)
}

async fn read_whole(
    tasks: &TaskInitiator,
    path: &str,
) -> std::result::Result<Vec<u8>, OperationError> {
    let file = tasks.open(Open::read(Place::path(path)?)).await?;
    let (mut content, mut buffer) = (Vec::new(), vec![0; 256 << 10].into());
    loop {
        let offset_bytes = content.len() as u64;
        let (result, back) = tasks.read_at(&file, buffer, offset_bytes).await;
        buffer = back;
        match result? {
            0 => return Ok(content),
            count => content.extend_from_slice(buffer.part(0, count).unwrap_or_default()),
        }
    }
}

/// Digests on another thread: the loop has better to do.
async fn digest(tasks: &TaskInitiator, content: Vec<u8>) -> std::result::Result<String, String> {
    let digest = tasks.offload(move || Algorithm::Blake3.digest(&content).to_string());
    digest.await.map_err(|panicked| panicked.to_string())
}

#[cfg(test)]
mod tests {
    use ucp_engine::processor::SimulatedWorld;

    use super::*;

    #[test]
    fn each_file_is_digested_or_told_why_not() {
        let world = SimulatedWorld::new();
        let paths: Vec<_> = (0..100).map(|number| format!("/{number}")).collect();
        paths.iter().skip(1).for_each(|path| world.add_file(path, path.as_str()));
        let proactor = Proactor::simulated(1, &world);
        let patience = Duration::from_secs(3600);
        let digests = gather(&proactor, patience, paths.clone()).expect("there is room for tasks");
        assert!(digests[0].as_ref().is_err_and(|why| why.contains("/0: ENOENT")), "{digests:?}");
        for (path, digest) in paths.iter().zip(digests).skip(1) {
            let want = Algorithm::Blake3.digest(path.as_bytes());
            assert_eq!(digest, Ok(format!("{want}  {path}")));
        }
    }

    #[test]
    fn what_is_not_read_in_time_is_given_up() {
        let world = SimulatedWorld::new();
        world.add_file("/file", "content");
        let proactor = Proactor::simulated(1, &world);
        let digests = gather(&proactor, Duration::ZERO, vec!["/file".into()]);
        assert_eq!(
            digests.expect("there is room for a task"),
            [Err("the scope's deadline has passed".to_owned())]
        );
        assert_eq!(proactor.in_flight(), 0);
    }
}
