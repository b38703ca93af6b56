//! A conversation that is given up when nothing is said for 30 s, and its test, which takes
//! microseconds: `cargo test --example idle_timeout`.
//!
//! `idle_timeout` reads lines from its input until there is no more, or nobody types for 30 s.

use std::io::{BufRead as _, stdin};
use std::thread;
use std::time::Duration;

use ucp_engine::proactor::{Either, Receiver, TaskInitiator, channel, race};
use ucp_engine::{Error, Proactor};

const IDLE_MAX: Duration = Duration::from_secs(30);

/// How a conversation ended.
#[derive(Debug, Eq, PartialEq)]
enum End {
    Finished,
    GivenUp,
}

/// Listens until the other side is done, or silent for too long. Returns what was said.
async fn converse(tasks: &TaskInitiator, mut lines: Receiver<String>) -> (Vec<String>, End) {
    let (idle, mut said) = (tasks.idle(IDLE_MAX), Vec::new());
    let listen = async {
        while let Some(line) = lines.receive().await {
            idle.touch();
            said.push(line);
        }
    };
    let end = match race(listen, idle.expired()).await {
        Either::First(()) => End::Finished,
        Either::Second(()) => End::GivenUp,
    };
    (said, end)
}

fn main() -> Result<(), Error> {
    let proactor = Proactor::start(&Default::default())?;
    let tasks = proactor.initiator();
    let (sender, lines) = channel(16);
    // Standard input may block: a thread of its own reads it, and the channel goes across.
    thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if sender.send_blocking(line).is_err() {
                return;
            }
        }
    });
    let (said, end) = proactor.block_on(converse(&tasks, lines));
    println!("{} lines, {end:?}", said.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use ucp_engine::processor::SimulatedWorld;

    use super::*;

    /// Says something after each pause, then nothing more; returns how the conversation ended, and
    /// after how many seconds of a clock that nobody waits for.
    fn after_pauses(pauses_seconds: &'static [u64], hangs_up: bool) -> (usize, End, u64) {
        let proactor = Proactor::simulated(1, &SimulatedWorld::new());
        let tasks = proactor.initiator();
        let (sender, lines) = channel(1);
        let clock = tasks.clone();
        let talking = async move {
            for pause in pauses_seconds {
                clock.sleep(Duration::from_secs(*pause)).await;
                if sender.send("hello".into()).await.is_err() {
                    return;
                }
            }
            if !hangs_up {
                std::future::pending::<()>().await;
            }
        };
        tasks.spawn(talking).expect("there is room for a task");
        let start = tasks.now();
        let (said, end) = proactor.block_on(converse(&tasks, lines));
        (said.len(), end, tasks.now().since(start).as_secs())
    }

    #[test]
    fn who_is_silent_for_30_s_is_given_up() {
        assert_eq!(after_pauses(&[], false), (0, End::GivenUp, 30));
        assert_eq!(after_pauses(&[29, 29, 29], false), (3, End::GivenUp, 87 + 30));
        assert_eq!(after_pauses(&[29, 31], false), (1, End::GivenUp, 29 + 30));
        assert_eq!(after_pauses(&[29, 29], true), (2, End::Finished, 58));
    }
}
