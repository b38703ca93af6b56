//! What the engine adds to a no-op: batches of 32 through the engine (accepted and waited for, by a
//! handler, and by futures of as many tasks), and through the raw ring.
//!
//! Both use the same flags and the same number of system calls, and take turns, so that what the
//! machine does meanwhile hits both. Prints nanoseconds per no-op: the median and the least of all
//! rounds, and the difference.

#![allow(unsafe_code, reason = "the raw ring, for comparison")]

use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode};
use ucp_engine::operation::{CompletionEvent, CompletionEventQueue, Operation, Token};
use ucp_engine::processor::KernelProcessor;
use ucp_engine::{CompletionHandler, Error, Initiator, OperationProcessor, Proactor};

const BATCH: u32 = 32;
const BATCHES: u32 = 2_000;
const ROUNDS: usize = 101;

fn main() {
    let mut raw = Raw::new();
    let mut engine = Engine::new();
    let kernel = KernelProcessor::new(BATCH, 1).expect("there is io_uring");
    let proactor = Proactor::new(Box::new(kernel));
    let (mut raw_ns, mut engine_ns) = (Vec::new(), Vec::new());
    let (mut handler_ns, mut future_ns) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw_ns.push(nanoseconds_each(|| raw.batch()));
        engine_ns.push(nanoseconds_each(|| engine.batch()));
        handler_ns.push(nanoseconds_by_handler(&proactor));
        future_ns.push(nanoseconds_by_future(&proactor));
    }
    let raw = show("raw ring", raw_ns);
    let engine = show("engine", engine_ns);
    let handler = show("handler", handler_ns);
    let future = show("future", future_ns);
    for (name, measured) in [("the engine", engine), ("a handler", handler), ("a future", future)] {
        let (median, least) = (measured.0 - raw.0, measured.1 - raw.1);
        println!("{name:10} adds {median:9.1} ns in the median, {least:6.1} ns at the least");
    }
}

/// A handler that keeps a batch of no-ops in flight.
struct Nops {
    left: u32,
}

impl CompletionHandler for Nops {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        for tag in 0..BATCH {
            assert!(initiator.start(Operation::Nop, tag).is_ok(), "there is room for a batch");
        }
        Ok(())
    }

    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        assert_eq!(event.result, Ok(0));
        self.left -= 1;
        if self.left >= BATCH {
            assert!(initiator.start(Operation::Nop, event.token.tag).is_ok(), "one has just ended");
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.left == 0
    }
}

fn nanoseconds_by_handler(proactor: &Proactor) -> f64 {
    let start = Instant::now();
    let (_, outcome) = proactor.run(Nops { left: BATCHES * BATCH });
    outcome.expect("no-ops do not fail");
    nanoseconds(start.elapsed()) / f64::from(BATCHES * BATCH)
}

fn nanoseconds_by_future(proactor: &Proactor) -> f64 {
    let tasks = proactor.initiator();
    let start = Instant::now();
    proactor.block_on(async {
        let all: Vec<_> = (0..BATCH)
            .map(|_| {
                let mine = tasks.clone();
                let nops = async move {
                    for _ in 0..BATCHES {
                        assert_eq!(mine.perform(Operation::Nop).await.0, Ok(0));
                    }
                };
                tasks.spawn(nops).expect("there is room for a task")
            })
            .collect();
        for task in all {
            task.await;
        }
    });
    nanoseconds(start.elapsed()) / f64::from(BATCHES * BATCH)
}

/// A ring without an engine.
struct Raw(IoUring);

/// A ring with one.
struct Engine {
    kernel: KernelProcessor,
    events: CompletionEventQueue,
}

impl Raw {
    fn new() -> Self {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_submit_all();
        builder.setup_single_issuer().setup_defer_taskrun().setup_no_sqarray();
        Self(builder.build(BATCH).expect("Linux 6.6 has what is asked for"))
    }

    fn batch(&mut self) {
        for number in 0..BATCH {
            let entry = opcode::Nop::new().build().user_data(number.into());
            // SAFETY: a no-op points to no memory.
            unsafe { self.0.submission().push(&entry) }.expect("the queue holds a batch");
        }
        self.0.submit_and_wait(BATCH as usize).expect("the ring works");
        let ended = self.0.completion().filter(|entry| entry.result() == 0).count();
        assert_eq!(ended, BATCH as usize);
    }
}

impl Engine {
    fn new() -> Self {
        let kernel = KernelProcessor::new(BATCH, 1).expect("there is io_uring");
        Self { kernel, events: CompletionEventQueue::default() }
    }

    fn batch(&mut self) {
        for tag in 0..BATCH {
            let token = Token { handler: 0, tag };
            assert!(self.kernel.accept(Operation::Nop, token).is_ok(), "there is room for a batch");
        }
        let mut ended = 0;
        while ended < BATCH {
            let rest = BATCH - ended;
            self.kernel.submit_and_wait(rest, None, &mut self.events).expect("the ring works");
            while let Some(event) = self.events.pop() {
                assert_eq!(event.result, Ok(0));
                ended += 1;
            }
        }
    }
}

fn nanoseconds_each(mut batch: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..BATCHES {
        batch();
    }
    nanoseconds(start.elapsed()) / f64::from(BATCHES * BATCH)
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// Prints, and returns, the median and the least.
fn show(name: &str, mut nanoseconds: Vec<f64>) -> (f64, f64) {
    nanoseconds.sort_by(f64::total_cmp);
    let (median, least) = (nanoseconds[nanoseconds.len() / 2], nanoseconds[0]);
    println!("{name:20}{median:6.1} ns in the median, {least:6.1} ns at the least");
    (median, least)
}
