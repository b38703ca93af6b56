//! Echo servers, those of the examples, over the simulated network: whatever goes wrong there, what
//! comes back is what was sent, each operation ends once, and nothing is left over.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ucp_engine::buffer::{Buffer, BufferPool, ReceivePool};
use ucp_engine::operation::*;
use ucp_engine::proactor::TaskInitiator;
use ucp_engine::processor::{
    Capabilities, Fault, FaultPlan, FaultRecord, Full, SimulatedProcessor, SimulatedWorld, Wake,
};
use ucp_engine::random::Random;
use ucp_engine::units::{Moment, WallTime};
use ucp_engine::{Errno, Error, Operation, OperationProcessor, Proactor};

use crate::sockets::SERVERS;

const SIMULATIONS: u64 = 10_000;

#[test]
fn what_is_echoed_is_what_was_sent() {
    if let Some(seed) = variable("UCP_SEED") {
        return drop(simulate(seed));
    }
    let mut total = BTreeMap::<Fault, u64>::new();
    for seed in 0..variable("UCP_SIMULATIONS").unwrap_or(SIMULATIONS) {
        for (fault, times) in simulate(seed).counts() {
            *total.entry(fault).or_default() += times;
        }
    }
    println!("{total:#?}");
    for fault in Fault::OF_NETWORKS {
        assert!(total[&fault] > 0, "{fault} never happened");
    }
}

/// Whoever waits for whatever when the proactor is dropped: no socket is open afterwards, and no buffer
/// out.
#[test]
fn an_echo_that_is_dropped_halfway_leaves_nothing() {
    for seed in 0..variable("UCP_SIMULATIONS").unwrap_or(SIMULATIONS) / 10 {
        let mut random = Random::new(seed);
        let world = SimulatedWorld::new();
        let plan = FaultPlan::none().with_network_swarm(seed);
        let (processor, record) =
            (SimulatedProcessor::new(seed, 24, &world, plan), FaultRecord::default());
        let proactor = Proactor::new(Box::new(processor));
        let initiator = proactor.initiator();
        let address: SocketAddr = "10.0.0.1:7".parse().unwrap();
        let listener = proactor.block_on(initiator.listen(address)).unwrap();
        let pool = initiator.receive_pool(3, 16).unwrap();
        let server = serve(initiator.clone(), listener, pool.clone());
        initiator.spawn(server).unwrap();
        for _ in 0..3 {
            let random = Random::new(random.next());
            let client = Client { random, address, record: record.clone() };
            let initiator = initiator.clone();
            let run = async move { drop(client.run(&initiator).await) };
            proactor.initiator().spawn(run).unwrap();
        }
        for _ in 0..random.below(300) {
            // All may wait for ever, once something broke.
            if proactor.turn(std::time::Duration::from_micros(10)).is_err() {
                break;
            }
        }
        drop((proactor, initiator));
        assert_eq!(pool.on_loan(), 0, "seed {seed}");
        assert_eq!(world.open_descriptors(), 0, "seed {seed}: {:?}", world.open_files());
    }
}

/// Echoes what comes, each connection in a task.
async fn serve(initiator: TaskInitiator, listener: Socket, pool: ReceivePool) {
    let mut incoming = initiator.accept_many(&listener);
    while let Some(Ok(socket)) = incoming.next().await {
        let (own, pool) = (initiator.clone(), pool.clone());
        let echo = async move {
            let mut pieces = own.receive_many(&socket, &pool);
            while let Some(Ok(piece)) = pieces.next().await {
                if own.send_all_zero_copy(&socket, piece).await.0.is_err() {
                    return;
                }
            }
        };
        drop(initiator.spawn(echo));
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn simulate(seed: u64) -> FaultRecord {
    let mut random = Random::new(seed);
    let plan = if random.once_in(4) {
        FaultPlan::none()
    } else {
        FaultPlan::none().with_network_swarm(seed)
    };
    let record = plan.record();
    let world = SimulatedWorld::new();
    let processor = SimulatedProcessor::new(seed, 64, &world, plan);
    let outstanding = Rc::new(RefCell::new(HashSet::new()));
    let audit = Audit { processor, outstanding: Rc::clone(&outstanding), seed };
    let proactor = Proactor::new(Box::new(audit));
    let (name, serve) = SERVERS[below(&mut random, 2)];
    let initiator = proactor.initiator();
    // An address of this machine has no zero-copy sends, and one of another machine has.
    let host = ["10.0.0.1:7", "127.0.0.1:7", "[::1]:7"][below(&mut random, 3)];
    let address: SocketAddr = host.parse().unwrap();
    let listener = proactor.block_on(initiator.listen(address)).unwrap();
    // Few sizes: each takes a mapping, which is used again.
    let (count, bytes) = ([1, 3][below(&mut random, 2)], [3, 16, 300][below(&mut random, 3)]);
    let pool = initiator.receive_pool(count, bytes).unwrap();
    let clients = u32::try_from(1 + random.below(3)).unwrap();
    let finished = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..clients {
        let client = Client { random: Random::new(random.next()), address, record: record.clone() };
        let (initiator, finished) = (initiator.clone(), Rc::clone(&finished));
        proactor
            .initiator()
            .spawn(async move {
                let outcome = client.run(&initiator).await;
                finished.borrow_mut().push(outcome);
            })
            .unwrap();
    }
    let told = |what: &dyn std::fmt::Debug| format!("seed {seed}, {name}: {what:?}");
    serve(&proactor, &listener, &pool, clients).unwrap_or_else(|error| panic!("{}", told(&error)));
    drop(listener);
    while proactor.in_flight() > 0 || finished.borrow().len() < clients as usize {
        proactor.turn(std::time::Duration::from_secs(1)).unwrap();
    }
    for outcome in finished.borrow().iter() {
        outcome.as_ref().unwrap_or_else(|error| panic!("{}", told(error)));
    }
    assert_eq!(pool.on_loan(), 0, "{}", told(&"buffers"));
    assert!(outstanding.borrow().is_empty(), "{}", told(&outstanding));
    drop(proactor);
    assert_eq!(world.open_descriptors(), 0, "{}", told(&world.open_files()));
    record
}

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(limit as u64)).unwrap()
}

/// Who sends, and compares what comes back.
struct Client {
    random: Random,
    address: SocketAddr,
    record: FaultRecord,
}

impl Client {
    async fn run(mut self, initiator: &TaskInitiator) -> Result<(), String> {
        let socket = loop {
            match initiator.connect(self.address).await {
                Ok(socket) => break socket,
                Err(error) if error.errno == Errno::ECONNREFUSED => {}
                Err(error) => return Err(format!("connect: {}", error.errno)),
            }
        };
        let length = self.random.below(600);
        let sent: Vec<u8> = (0..length).map(|_| self.random.next().to_le_bytes()[0]).collect();
        let sender =
            send(Random::new(self.random.next()), initiator.clone(), socket.clone(), sent.clone());
        let sender = initiator.spawn(sender).map_err(|error| error.to_string())?;
        let received = self.receive(initiator, &socket).await;
        sender.await;
        let is_broken =
            [Fault::Reset, Fault::HungUp].into_iter().any(|fault| self.record.of(fault) > 0);
        if !is_broken && received != sent {
            return Err(format!("{} of {} bytes came back", received.len(), sent.len()));
        }
        if !sent.starts_with(&received) {
            return Err("other bytes came back".into());
        }
        Ok(())
    }

    /// Receives until the stream ends or breaks.
    async fn receive(&mut self, initiator: &TaskInitiator, socket: &Socket) -> Vec<u8> {
        let mut received = Vec::new();
        loop {
            let room = vec![0; 1 + below(&mut self.random, 500)];
            let (result, buffer) = match self.random.below(3) {
                0 => initiator.receive_exactly(socket, room).await,
                1 => initiator.receive(socket, room).await,
                _ => {
                    let buffers = vec![room.into(), Buffer::empty()];
                    let (result, mut buffers) = initiator.receive_message(socket, buffers).await;
                    (result, buffers.remove(0))
                }
            };
            match result {
                Ok(0) | Err(_) => return received,
                Ok(length) => received.extend_from_slice(&buffer.as_slice()[..length as usize]),
            }
        }
    }
}

/// Sends bytes in pieces, by all means that there are, and ends the stream.
async fn send(mut random: Random, initiator: TaskInitiator, socket: Socket, bytes: Vec<u8>) {
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(1 + below(&mut random, rest.len()));
        rest = behind;
        let (result, back) = match random.below(3) {
            0 => initiator.send_all(&socket, piece.to_vec()).await,
            1 => initiator.send_all_zero_copy(&socket, piece.to_vec()).await,
            _ => {
                let (first, second) = piece.split_at(below(&mut random, piece.len()));
                let buffers = vec![first.to_vec().into(), second.to_vec().into()];
                let (result, buffers) = initiator.send_all_of(&socket, buffers).await;
                let whole: Vec<u8> = buffers.iter().flat_map(Buffer::as_slice).copied().collect();
                (result, whole.into())
            }
        };
        assert_eq!(back.as_slice(), piece, "what was sent comes back as it was");
        if result.is_err() {
            return;
        }
    }
    let _ = initiator.shut_down(&socket, Direction::Sending).await;
}

/// A processor whose operations are counted.
struct Audit {
    processor: SimulatedProcessor,
    outstanding: Rc<RefCell<HashSet<OperationId>>>,
    seed: u64,
}

impl OperationProcessor for Audit {
    fn accept(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        let id = self.processor.accept(operation, token)?;
        assert!(self.outstanding.borrow_mut().insert(id), "seed {}: {id:?} is twice", self.seed);
        Ok(id)
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        self.processor.accept_chain(chain, token)
    }

    fn cancel(&mut self, id: OperationId) {
        self.processor.cancel(id);
    }

    fn submit_and_wait(
        &mut self,
        at_least: u32,
        deadline: Option<Moment>,
        events: &mut CompletionEventQueue,
    ) -> Result<(), Error> {
        let mut own = CompletionEventQueue::default();
        self.processor.submit_and_wait(at_least, deadline, &mut own)?;
        while let Some(event) = own.pop() {
            let mut outstanding = self.outstanding.borrow_mut();
            let is_known = match event.end {
                End::More(_) => outstanding.contains(&event.id),
                End::Last(_) => outstanding.remove(&event.id),
            };
            assert!(is_known, "seed {}: {event:?} of an operation that has ended", self.seed);
            events.push(event);
        }
        Ok(())
    }

    fn in_flight(&self) -> u32 {
        self.processor.in_flight()
    }

    fn now(&self) -> Moment {
        self.processor.now()
    }

    fn wall_clock(&self) -> WallTime {
        self.processor.wall_clock()
    }

    fn capabilities(&self) -> &Capabilities {
        self.processor.capabilities()
    }

    fn buffer_pool(&mut self, count: u32, block_bytes: u32) -> Result<BufferPool, Errno> {
        self.processor.buffer_pool(count, block_bytes)
    }

    fn receive_pool(&mut self, count: u32, block_bytes: u32) -> Result<ReceivePool, Errno> {
        self.processor.receive_pool(count, block_bytes)
    }

    fn register_file(&mut self, file: Option<&File>) -> Result<RegisteredFile, Errno> {
        self.processor.register_file(file)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.processor.waker()
    }
}
