//! Who works: a crew of threads, or tasks side by side on one proactor.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use super::account::Summary;
use super::worker::{Crew, Job, Worker, cores, inline_proactor};
use crate::limits::{TREE_SHARDS_MAX, TREE_TASKS};
use crate::proactor::{Shards, TaskInitiator, join_all};

/// Has `work` done by a crew until all of it return; more join while `is_waiting` and the cores idle.
/// Of no more than `pieces` of work as many as there are take part.
pub(crate) async fn run(
    job: &Job<'_>,
    tasks: &TaskInitiator,
    pieces: usize,
    is_waiting: impl Fn() -> bool + Sync,
    work: impl AsyncFn(&Worker<'_>) + Sync,
) -> Summary {
    let total = Mutex::new(Summary::default());
    let add = |worker: Worker<'_>| {
        let part = worker.summary.into_inner();
        total.lock().unwrap_or_else(PoisonError::into_inner).add(&part);
    };
    match job.crew {
        Crew::Threads(_) => {
            let shard = || {
                let proactor = inline_proactor();
                let worker = Worker::new(job, proactor.initiator());
                proactor.block_on(work(&worker));
                add(worker);
            };
            match pieces {
                0 | 1 => shard(),
                _ => {
                    let count = cores().min(pieces);
                    let count_max = TREE_SHARDS_MAX.max(cores()).min(pieces);
                    Shards { count, count_max }.run_while(&is_waiting, shard);
                }
            }
        }
        Crew::Tasks => {
            let count = pieces.clamp(1, TREE_TASKS);
            let workers: Vec<_> = (0..count).map(|_| Worker::new(job, tasks.clone())).collect();
            let work = workers.iter().map(|worker| {
                let work: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(work(worker));
                work
            });
            join_all(work.collect()).await;
            workers.into_iter().for_each(add);
        }
    }
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}
