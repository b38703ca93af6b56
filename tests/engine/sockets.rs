//! Servers over real sockets, on a ring and on threads: the examples, many connections, and what tasks
//! do with connections.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ucp_engine::buffer::{Buffer, ReceivePool};
use ucp_engine::operation::*;
use ucp_engine::processor::{KernelProcessor, ThreadProcessor};
use ucp_engine::random::Random;
use ucp_engine::{OperationProcessor, Proactor};

use crate::support::{machine, skip};

#[path = "../../engine/examples/echo_async.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example is a program")]
mod echo_async;
#[path = "../../engine/examples/echo_handlers.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example is a program")]
mod echo_handlers;

pub(crate) type Serve = fn(&Proactor, &Socket, &ReceivePool, u32) -> Result<(), ucp_engine::Error>;
pub(crate) const SERVERS: [(&str, Serve); 2] =
    [("handlers", echo_handlers::serve), ("tasks", echo_async::serve)];

pub(crate) fn processors(capacity: u32) -> Vec<(&'static str, Box<dyn OperationProcessor>)> {
    let mut processors: Vec<(_, Box<dyn OperationProcessor>)> = vec![
        ("threads", Box::new(ThreadProcessor::new(2, capacity))),
        ("in turn", Box::new(ThreadProcessor::new(0, capacity))),
    ];
    match KernelProcessor::new(capacity, 2) {
        Ok(mut ring) => {
            processors.push(("io_uring", Box::new(KernelProcessor::new(capacity, 2).unwrap())));
            ring.forget_socket_opcodes();
            processors.push(("io_uring that polls", Box::new(ring)));
        }
        Err(errno) => skip::skip(&format!("there is no io_uring: {errno}")),
    }
    processors
}

pub(crate) fn listen(proactor: &Proactor) -> (Socket, SocketAddr) {
    let initiator = proactor.initiator();
    proactor.block_on(async {
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listener = initiator.listen(anywhere).await.unwrap();
        let address = initiator.own_address(&listener).await.unwrap();
        (listener, address.internet().unwrap())
    })
}

fn pool(proactor: &Proactor) -> ReceivePool {
    proactor.initiator().receive_pool(64, 4096).unwrap()
}

/// Sends `bytes` in pieces of random sizes while it receives, and returns what came back.
fn echoed(address: SocketAddr, bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut sender = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut random = Random::new(seed);
            let mut rest = bytes;
            while !rest.is_empty() {
                let length = usize::try_from(1 + random.below(70_000)).unwrap().min(rest.len());
                sender.write_all(&rest[..length]).unwrap();
                rest = &rest[length..];
            }
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    })
}

/// Lets end what was cancelled.
pub(crate) fn settle(proactor: &Proactor, name: &str) {
    for _ in 0..1000 {
        if proactor.in_flight() == 0 {
            return;
        }
        proactor.turn(Duration::from_millis(10)).unwrap();
    }
    panic!("{name}: {} operations never end", proactor.in_flight());
}

#[test]
fn examples_echo_every_byte_of_every_connection() {
    let _hold = machine::shared();
    const CLIENTS: u32 = 8;
    for (server, serve) in SERVERS {
        for (name, processor) in processors(256) {
            let proactor = Proactor::new(processor);
            let (listener, address) = listen(&proactor);
            thread::scope(|scope| {
                let clients: Vec<_> = (0..u64::from(CLIENTS))
                    .map(|seed| {
                        scope.spawn(move || {
                            let mut random = Random::new(seed);
                            let length = random.below(1 << 20);
                            let bytes: Vec<u8> =
                                (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
                            assert!(echoed(address, &bytes, seed) == bytes, "client {seed}");
                        })
                    })
                    .collect();
                serve(&proactor, &listener, &pool(&proactor), CLIENTS).unwrap();
                for client in clients {
                    client.join().unwrap_or_else(|_| panic!("{server} on {name}"));
                }
            });
            settle(&proactor, name);
        }
    }
}

#[test]
fn a_client_that_breaks_off_ends_its_connection_only() {
    let _hold = machine::shared();
    for (server, serve) in SERVERS {
        for (name, processor) in processors(64) {
            let proactor = Proactor::new(processor);
            let (listener, address) = listen(&proactor);
            thread::scope(|scope| {
                let clients = scope.spawn(move || {
                    let mut rude = TcpStream::connect(address).unwrap();
                    rude.write_all(&[7; 100_000]).unwrap();
                    // Closed with bytes unread, or still to come: a reset.
                    drop(rude);
                    assert_eq!(echoed(address, b"hello", 1), b"hello", "{server} on {name}");
                });
                serve(&proactor, &listener, &pool(&proactor), 2).unwrap();
                clients.join().unwrap();
            });
            settle(&proactor, name);
        }
    }
}

/// Each end of a connection is a descriptor of this process.
const CONNECTIONS: u32 = 10_000;

#[test]
fn ten_thousand_connections_are_served() {
    let _hold = machine::shared();
    let wanted = u64::from(CONNECTIONS) + 1000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_err() {
        return skip::skip("this process may not have so many files open");
    }
    let capacity = CONNECTIONS * 2;
    let mut processors: Vec<(_, Box<dyn OperationProcessor>)> =
        vec![("threads", Box::new(ThreadProcessor::new(2, capacity)))];
    match KernelProcessor::new(capacity, 1) {
        Ok(ring) => processors.push(("io_uring", Box::new(ring))),
        Err(errno) => skip::skip(&format!("there is no io_uring: {errno}")),
    }
    for (name, processor) in processors {
        let proactor = Proactor::new(processor);
        let (listener, address) = listen(&proactor);
        thread::scope(|scope| {
            let clients = scope.spawn(move || {
                // A table of its own: few processes may have both ends of so many open in one.
                unshare(CloneFlags::CLONE_FILES).unwrap();
                let mut streams: Vec<TcpStream> =
                    (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
                for round in 0..2 {
                    for (number, stream) in streams.iter_mut().enumerate() {
                        stream.write_all(&message(number, round)).unwrap();
                    }
                    for (number, stream) in streams.iter_mut().enumerate() {
                        let mut received = [0; 8];
                        stream.read_exact(&mut received).unwrap();
                        assert_eq!(received, message(number, round), "{name}");
                    }
                }
            });
            echo_handlers::serve(&proactor, &listener, &pool(&proactor), CONNECTIONS).unwrap();
            clients.join().unwrap();
        });
        settle(&proactor, name);
    }
}

fn message(number: usize, round: u64) -> [u8; 8] {
    (number as u64 * 2 + round).to_le_bytes()
}

#[test]
fn tasks_send_all_and_receive_exactly() {
    let _hold = machine::shared();
    for (name, processor) in processors(64) {
        let proactor = Proactor::new(processor);
        let (listener, address) = listen(&proactor);
        let initiator = proactor.initiator();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|it| it.to_le_bytes()[1]).collect();
        let parts: Vec<Buffer> = sent.chunks(1_000_001).map(|part| part.to_vec().into()).collect();
        proactor.block_on(async {
            let client = initiator.connect(address).await.unwrap();
            let server = initiator.accept(&listener).await.unwrap();
            let sender = initiator.clone();
            let bytes = sent.clone();
            let sending = initiator.spawn(async move {
                sender.send_all(&client, bytes.clone()).await.0.unwrap();
                sender.send_all_of(&client, parts).await.0.unwrap();
                sender.send_all_zero_copy(&client, bytes).await.0.unwrap();
                sender.shut_down(&client, Direction::Sending).await.unwrap();
                // Kept until the other side has seen the end.
                sender.receive(&client, vec![0; 1]).await.0.unwrap()
            });
            for _ in 0..3 {
                let (result, buffer) =
                    initiator.receive_exactly(&server, vec![0; sent.len()]).await;
                assert_eq!(result.unwrap() as usize, sent.len(), "{name}");
                assert!(buffer.as_slice() == sent, "{name}");
            }
            let (rest, _) = initiator.receive_exactly(&server, vec![0; 8]).await;
            assert_eq!(rest, Ok(0), "{name}: the stream has ended");
            drop(server);
            assert_eq!(sending.unwrap().await, 0, "{name}");
        });
        settle(&proactor, name);
    }
}

#[test]
fn a_next_that_is_dropped_loses_nothing() {
    let _hold = machine::shared();
    for (name, processor) in processors(64) {
        let proactor = Proactor::new(processor);
        let (listener, address) = listen(&proactor);
        let initiator = proactor.initiator();
        let pool = initiator.receive_pool(4, 64).unwrap();
        proactor.block_on(async {
            let mut incoming = initiator.accept_many(&listener);
            drop_when_pending(incoming.next()).await;
            let mut client = TcpStream::connect(address).unwrap();
            let server = loop {
                if let Some(socket) = drop_when_pending(incoming.next()).await {
                    break socket.unwrap().unwrap();
                }
                initiator.sleep(Duration::from_micros(100)).await;
            };
            let mut pieces = initiator.receive_many(&server, &pool);
            client.write_all(&[7; 10_000]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut received = Vec::new();
            loop {
                match drop_when_pending(pieces.next()).await {
                    None => initiator.sleep(Duration::from_micros(100)).await,
                    Some(Some(piece)) => received.extend_from_slice(&piece.unwrap()),
                    Some(None) => break,
                }
            }
            assert_eq!(received, [7; 10_000], "{name}");
        });
        settle(&proactor, name);
        assert_eq!(pool.on_loan(), 0, "{name}");
    }
}

/// Polls a future once; none if it waits.
async fn drop_when_pending<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
