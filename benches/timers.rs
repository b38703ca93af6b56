//! What a sleep costs: as an alarm of the proactor's, and as a timeout of the ring's.
//!
//! Many tasks sleep again and again for a millisecond or so, and many more are asleep for hours, as
//! idle timeouts are. Prints nanoseconds of processor time for each sleep: the least of all rounds.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use ucp_engine::Proactor;
use ucp_engine::operation::{Operation, Timeout};
use ucp_engine::proactor::TaskInitiator;
use ucp_engine::processor::KernelProcessor;

const TASKS: u64 = 1_000;
const SLEEPS: u64 = 50;
const ROUNDS: usize = 5;

fn main() {
    for asleep in [0, 3_000, 50_000] {
        let by_alarm = least(asleep, false);
        // Each sleep would take a slot, and there are 4,096.
        let by_ring = if asleep < 3_001 {
            format!("{:.0} ns", least(asleep, true))
        } else {
            "no room".to_owned()
        };
        println!("{asleep:6} asleep: {by_alarm:5.0} ns by an alarm, {by_ring} by the ring");
    }
}

/// Nanoseconds of processor time for a sleep, while others are asleep for hours.
fn least(asleep: u64, is_by_ring: bool) -> f64 {
    let kernel = KernelProcessor::new(4096, 1).expect("there is io_uring");
    let proactor = Proactor::new(Box::new(kernel));
    let tasks = proactor.initiator();
    let spawn = |count, sleeps, duration| {
        let task = |number| {
            let mine = tasks.clone();
            let sleeps = async move {
                for _ in 0..sleeps {
                    // Not all at the same moment.
                    sleep(&mine, is_by_ring, duration + Duration::from_nanos(number * 997)).await;
                }
            };
            tasks.spawn(sleeps).expect("there is room for a task")
        };
        (0..count).map(task).collect::<Vec<_>>()
    };
    let _asleep = spawn(asleep, 1, Duration::from_secs(36_000));
    let rounds = (0..ROUNDS).map(|_| {
        let start = processor_time_ns();
        let sleepers = spawn(TASKS, SLEEPS, Duration::from_millis(1));
        proactor.block_on(async {
            for sleeper in sleepers {
                sleeper.await;
            }
        });
        (processor_time_ns() - start) / (TASKS * SLEEPS) as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn processor_time_ns() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("there is such a clock");
    Duration::from(time).as_secs_f64() * 1e9
}

async fn sleep(tasks: &TaskInitiator, is_by_ring: bool, duration: Duration) {
    if !is_by_ring {
        return tasks.sleep(duration).await;
    }
    let (result, _) = tasks.perform(Operation::Timeout(Timeout { duration })).await;
    assert_eq!(result, Ok(0));
}
