//! Sockets: how they come to be, what they carry, how they end, and all that is refused.

use std::net::SocketAddr;
use std::time::Duration;

use ucp_engine::buffer::Lease;
use ucp_engine::operation::*;
use ucp_engine::{CompletionEvent, Operation};

use super::world::{Ended, World, processors_of_sockets, text, told};
use super::{Case, conform_on};

const SOON: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn connections() {
    let cases: [Case; 13] = [
        ("IPv4 carries bytes both ways", |it| both_ways(it, &v4()), "5 hello, 5 world"),
        ("IPv6 carries bytes both ways", |it| both_ways(it, &v6()), "5 hello, 5 world"),
        (
            "a socket of this machine carries bytes both ways",
            |it| both_ways(it, &unix(it, "s")),
            "5 hello, 5 world",
        ),
        (
            "the ends have each other's address",
            |it| {
                let (client, server) = pair(it, &v4());
                let clients = [Whose::Own, Whose::Peer].map(|whose| address(it, &client, whose));
                let servers = [Whose::Peer, Whose::Own].map(|whose| address(it, &server, whose));
                told([clients == servers, clients[0] != clients[1]])
            },
            "true, true",
        ),
        (
            "who connects on this machine has no name",
            |it| {
                let here = unix(it, "s");
                let (client, server) = pair(it, &here);
                told([
                    address(it, &client, Whose::Own) == Address::Unnamed,
                    address(it, &client, Whose::Peer) == here,
                    address(it, &server, Whose::Peer) == Address::Unnamed,
                ])
            },
            "true, true, true",
        ),
        (
            "a socket has no address before it is bound",
            |it| {
                let (bare, local) = (socket(it, Family::V4), socket(it, Family::Unix));
                told([address(it, &bare, Whose::Own), address(it, &local, Whose::Own)])
            },
            "0.0.0.0:0, (unnamed)",
        ),
        (
            "nobody listens",
            |it| {
                let bound = socket(it, Family::V4);
                it.tell(Bind { socket: bound.clone(), address: v4() });
                let address = address(it, &bound, Whose::Own);
                connect(it, &address)
            },
            "ECONNREFUSED",
        ),
        (
            "nobody listens any more",
            |it| {
                // An address of its own: another test may listen at the port that becomes free.
                let alone: SocketAddr = "127.77.0.1:0".parse().unwrap();
                let listener = listen(it, &alone.into());
                let address = address(it, &listener, Whose::Own);
                let closed = it.tell(Close::socket(listener));
                told([closed, connect(it, &address)])
            },
            "0, ECONNREFUSED",
        ),
        (
            "on this machine: no file, another file, a file that nobody listens at",
            |it| {
                let missing = unix(it, "missing");
                it.file("file", b"");
                let file = unix(it, "file");
                let gone = unix(it, "gone");
                drop(listen(it, &gone));
                told([connect(it, &missing), connect(it, &file), connect(it, &gone)])
            },
            "ENOENT, ECONNREFUSED, ECONNREFUSED",
        ),
        (
            "a path that is too long for a socket",
            |it| {
                let long = Address::unix("/".to_owned() + &"a".repeat(107)).unwrap();
                let socket = socket(it, Family::Unix);
                told([connect(it, &long), it.tell(Bind { socket, address: long.clone() })])
            },
            "ENAMETOOLONG, ENAMETOOLONG",
        ),
        (
            "a socket that is connected, or listens, is not connected",
            |it| {
                let listener = listen(it, &v4());
                let address = address(it, &listener, Whose::Own);
                let (client, _server) = pair_with(it, &listener, &address);
                told(
                    [client, listener]
                        .map(|socket| it.tell(Connect { socket, address: address.clone() })),
                )
            },
            "EISCONN, EISCONN",
        ),
        (
            "a connect waits until the listener has room, or is cancelled",
            |it| {
                let socket = socket(it, Family::Unix);
                let here = unix(it, "s");
                let listener = bind_and_listen(it, socket, &here, 1);
                let clients: Vec<Socket> = (0..3).map(|_| self::socket(it, Family::Unix)).collect();
                let mut results = Vec::new();
                for client in &clients[..2] {
                    let connect = Connect { socket: client.clone(), address: here.clone() };
                    results.push(it.tell(connect));
                }
                let connect = Connect { socket: clients[2].clone(), address: here.clone() };
                results.push(timed_out(it, connect));
                let more = self::socket(it, Family::Unix);
                start(it, Connect { socket: more, address: here.clone() }, 1);
                turn(it);
                let accepted = it.processor.accept(accept_one(&listener), token(2));
                assert!(accepted.is_ok());
                let mut events = events(it, 2);
                events.sort_by_key(|event| event.token.tag);
                results.extend(events.into_iter().map(|event| Ended::from(event).told()));
                told(results)
            },
            "0, 0, ECANCELED TimedOut, 0, 0",
        ),
        (
            "accepting waits for who connects later",
            |it| {
                let listener = listen(it, &v4());
                let address = address(it, &listener, Whose::Own);
                start(it, accept_one(&listener), 1);
                turn(it);
                let client = socket(it, Family::V4);
                start(it, Connect { socket: client, address }, 2);
                told(events(it, 2).into_iter().map(|event| Ended::from(event).told()))
            },
            "0, 0",
        ),
    ];
    conform_on(&processors_of_sockets(), &cases);
}

#[test]
fn addresses_and_listeners() {
    let cases: [Case; 10] = [
        (
            "an address that another socket has",
            |it| {
                let listener = listen(it, &v4());
                let address = address(it, &listener, Whose::Own);
                let socket = socket(it, Family::V4);
                it.tell(Bind { socket, address })
            },
            "EADDRINUSE",
        ),
        (
            "a path that another file has",
            |it| {
                it.file("file", b"");
                let (socket, address) = (socket(it, Family::Unix), unix(it, "file"));
                it.tell(Bind { socket, address })
            },
            "EADDRINUSE",
        ),
        (
            "a socket is bound once",
            |it| {
                let socket = socket(it, Family::V4);
                told([v4(), v4()].map(|address| it.tell(Bind { socket: socket.clone(), address })))
            },
            "0, EINVAL",
        ),
        (
            "a socket is bound to an address of its own network",
            |it| {
                let socket = socket(it, Family::V4);
                it.tell(Bind { socket, address: v6() })
            },
            "EAFNOSUPPORT",
        ),
        (
            "listeners that want to share an address, all of them",
            |it| {
                let sockets = [true, true, false].map(|is_shared| {
                    let socket = socket(it, Family::V4);
                    set(it, &socket, SocketOption::ReusePort(is_shared));
                    socket
                });
                let first = it.tell(Bind { socket: sockets[0].clone(), address: v4() });
                let address = address(it, &sockets[0], Whose::Own);
                let others = sockets[1..].iter().map(|socket| {
                    it.tell(Bind { socket: socket.clone(), address: address.clone() })
                });
                told([first].into_iter().chain(others.collect::<Vec<_>>()))
            },
            "0, 0, EADDRINUSE",
        ),
        (
            "an address of a listener that has gone, with its connections there still",
            |it| {
                let listener = listen(it, &v4());
                let address = address(it, &listener, Whose::Own);
                let _pair = pair_with(it, &listener, &address);
                it.tell(Close::socket(listener));
                let socket = socket(it, Family::V4);
                set(it, &socket, SocketOption::ReuseAddress(true));
                it.tell(Bind { socket, address })
            },
            "0",
        ),
        (
            "a socket that does not listen accepts nothing",
            |it| {
                let (listener, local) = (socket(it, Family::V4), socket(it, Family::Unix));
                told([
                    it.tell(Accept { listener: listener.clone(), socket: None }),
                    it.tell(AcceptMany { listener }),
                    it.tell(Accept { listener: local, socket: None }),
                ])
            },
            "EINVAL, EINVAL, EINVAL",
        ),
        (
            "an unbound socket listens at any port, but not on this machine",
            |it| {
                let (socket, local) = (socket(it, Family::V4), socket(it, Family::Unix));
                let listening = it.tell(Listen { socket: socket.clone(), backlog: 1 });
                let port = address(it, &socket, Whose::Own).internet().unwrap().port();
                let refused = it.tell(Listen { socket: local, backlog: 1 });
                told([listening, (port > 0).to_string(), refused])
            },
            "0, true, EINVAL",
        ),
        (
            "a listener takes many connections until it is cancelled",
            |it| {
                let listener = listen(it, &v4());
                let address = address(it, &listener, Whose::Own);
                let id = start(it, AcceptMany { listener }, 7);
                let clients = [(); 3].map(|()| connected(it, &address));
                let mut results = Vec::new();
                let mut servers = Vec::new();
                for event in events(it, 3) {
                    assert_eq!((event.id, event.token.tag), (id, 7));
                    let End::More(Part::Socket(server)) = event.end else { panic!("{event:?}") };
                    servers.push(server);
                    results.push(event.result.unwrap().to_string());
                }
                for (client, server) in clients.iter().zip(&servers) {
                    results.push(exchange(it, client, server, b"hi"));
                }
                it.processor.cancel(id);
                results.push(Ended::from(events(it, 1).remove(0)).told());
                told(results)
            },
            "0, 0, 0, 2 hi, 2 hi, 2 hi, ECANCELED Cancelled",
        ),
        (
            "a connection is taken though its client has gone",
            |it| {
                let listener = listen(it, &v4());
                let address = address(it, &listener, Whose::Own);
                let client = connected(it, &address);
                it.tell(Close::socket(client));
                let server = accept(it, &listener);
                receive(it, &server, 8)
            },
            "0 ",
        ),
    ];
    conform_on(&processors_of_sockets(), &cases);
}

#[test]
fn transfers() {
    let cases: [Case; 16] = [
        (
            "what is received is what has come, up to the room",
            |it| {
                let (client, server) = pair(it, &v4());
                let sent = send(it, &client, b"hello");
                told([sent, receive(it, &server, 2), receive(it, &server, 9)])
            },
            "5, 2 he, 3 llo",
        ),
        (
            "a part of a buffer is sent, and a part is received into",
            |it| {
                let (client, server) = pair(it, &v4());
                let part = Send { start: 1, length: 3, ..Send::new(&client, b"hello".to_vec()) };
                let sent = it.tell(part);
                let buffer = Receive::new(&server, b"......".to_vec());
                let ended = it.run(Receive { start: 2, length: 3, ..buffer });
                told([sent, ended.told(), text(ended.bytes())])
            },
            "3, 3, ..ell.",
        ),
        (
            "a part outside of the buffer is refused, and so is what others read",
            |it| {
                let (client, server) = pair(it, &v4());
                let outside = Send { start: 4, ..Send::new(&client, b"hello".to_vec()) };
                let shared: std::sync::Arc<[u8]> = std::sync::Arc::from(*b"shared");
                let sent = it.tell(Send::new(&client, std::sync::Arc::clone(&shared)));
                told([
                    it.tell(outside),
                    it.tell(Receive { start: 4, ..Receive::new(&server, vec![0; 5]) }),
                    it.tell(Receive::new(&server, shared)),
                    sent,
                ])
            },
            "EINVAL, EINVAL, EINVAL, 6",
        ),
        (
            "what is looked at stays",
            |it| {
                let (client, server) = pair(it, &v4());
                send(it, &client, b"hello");
                let peek = Receive { is_peek: true, ..Receive::new(&server, vec![0; 9]) };
                told([it.tell(peek), receive(it, &server, 9)])
            },
            "5, 5 hello",
        ),
        (
            "receiving waits for what is sent later",
            |it| {
                let (client, server) = pair(it, &v4());
                start(it, Receive::new(&server, vec![0; 8]), 1);
                turn(it);
                start(it, Send::new(&client, b"hello".to_vec()), 2);
                let mut events = events(it, 2);
                events.sort_by_key(|event| event.token.tag);
                told(events.into_iter().map(|event| Ended::from(event).told()))
            },
            "5, 5",
        ),
        (
            "several buffers are sent as one, and received into in order",
            |it| {
                let (client, server) = pair(it, &v4());
                let buffers = [&b"he"[..], b"", b"llo"].map(|it| it.to_vec().into()).into();
                let sent = it.tell(SendMessage { socket: client, buffers, start: 0 });
                let buffers = [3, 4].map(|length| vec![b'.'; length].into()).into();
                let ended = it.run(ReceiveMessage { socket: server, buffers });
                let Operation::ReceiveMessage(it) = &ended.operation else { panic!("it was one") };
                let parts = it.buffers.iter().map(|it| text(it.as_slice()));
                told([sent, ended.told()].into_iter().chain(parts))
            },
            "5, 5, hel, lo..",
        ),
        (
            "the first bytes of several buffers are left out",
            |it| {
                let (client, server) = pair(it, &v4());
                let message = |start| SendMessage {
                    socket: client.clone(),
                    buffers: [&b"he"[..], b"llo"].map(|it| it.to_vec().into()).into(),
                    start,
                };
                let sent = [3, 6].map(|start| it.tell(message(start)));
                told(sent.into_iter().chain([receive(it, &server, 9)]))
            },
            "2, EINVAL, 2 lo",
        ),
        (
            "many pieces are received as they come, until the stream ends",
            |it| {
                let (client, server) = pair(it, &v4());
                let pool = it.processor.receive_pool(4, 4096).unwrap();
                let receive = ReceiveMany { socket: server, pool: pool.clone() };
                let id = start(it, receive, 7);
                let mut results = Vec::new();
                for bytes in [b"one", b"two"] {
                    send(it, &client, bytes);
                    let lease = piece(&mut results, events(it, 1));
                    assert_eq!(pool.on_loan(), 1);
                    drop(lease);
                }
                it.tell(Close::socket(client));
                let event = events(it, 1).remove(0);
                assert_eq!((event.id, event.token.tag), (id, 7));
                results.push(Ended::from(event).told());
                results.push(pool.on_loan().to_string());
                told(results)
            },
            "3 one, 3 two, 0, 0",
        ),
        (
            "without a buffer bytes wait, and go on when one comes back",
            |it| {
                let (client, server) = pair(it, &v4());
                let pool = it.processor.receive_pool(1, 2).unwrap();
                start(it, ReceiveMany { socket: server, pool: pool.clone() }, 7);
                send(it, &client, b"hello");
                let mut results = Vec::new();
                for _ in 0..3 {
                    let lease = piece(&mut results, events(it, 1));
                    for _ in 0..3 {
                        turn(it);
                    }
                    drop(lease);
                }
                it.tell(Close::socket(client));
                results.push(Ended::from(events(it, 1).remove(0)).told());
                told(results)
            },
            "2 he, 2 ll, 1 o, 0",
        ),
        (
            "many receivers share a pool of one buffer",
            |it| {
                let pairs = [(); 3].map(|()| pair(it, &v4()));
                let pool = it.processor.receive_pool(1, 64).unwrap();
                for (_, server) in &pairs {
                    let (socket, pool) = (server.clone(), pool.clone());
                    start(it, ReceiveMany { socket, pool }, 7);
                }
                for (client, _) in &pairs {
                    send(it, client, b"hello");
                }
                let mut results = Vec::new();
                for _ in 0..3 {
                    drop(piece(&mut results, events(it, 1)));
                }
                pairs.into_iter().for_each(|(client, _)| drop(client));
                results.extend(events(it, 3).into_iter().map(|event| Ended::from(event).told()));
                told(results)
            },
            "5 hello, 5 hello, 5 hello, 0, 0, 0",
        ),
        (
            "what is received goes on as it is",
            |it| {
                let (client, server) = pair(it, &v4());
                let pool = it.processor.receive_pool(4, 4096).unwrap();
                let receiving = ReceiveMany { socket: server.clone(), pool: pool.clone() };
                let id = start(it, receiving, 7);
                send(it, &client, b"hello");
                let lease = piece(&mut Vec::new(), events(it, 1));
                let sent = it.tell(Send::new(&server, lease));
                it.processor.cancel(id);
                let ended = Ended::from(events(it, 1).remove(0)).told();
                told([sent, receive(it, &client, 9), ended, pool.on_loan().to_string()])
            },
            "5, 5 hello, ECANCELED Cancelled, 0",
        ),
        (
            "a pool of another processor serves as well",
            |it| {
                let (client, server) = pair(it, &v4());
                let mut other = ucp_engine::processor::ThreadProcessor::new(0, 8);
                let pool = ucp_engine::OperationProcessor::receive_pool(&mut other, 2, 64).unwrap();
                let id = start(it, ReceiveMany { socket: server, pool }, 7);
                send(it, &client, b"hello");
                let mut results = Vec::new();
                drop(piece(&mut results, events(it, 1)));
                it.processor.cancel(id);
                results.push(Ended::from(events(it, 1).remove(0)).told());
                told(results)
            },
            "5 hello, ECANCELED Cancelled",
        ),
        (
            "a pool without a buffer, or with too many, is refused",
            |it| {
                told([(0, 64), (1, 0), (40_000, 1)].map(|(count, block_bytes)| {
                    let pool = it.processor.receive_pool(count, block_bytes);
                    pool.map_or_else(|errno| format!("{errno:?}"), |_| "granted".into())
                }))
            },
            "EINVAL, EINVAL, EINVAL",
        ),
        (
            "a zero-copy send to this machine is a send",
            |it| {
                let (client, server) = pair(it, &v4());
                let sent = it.tell(SendZeroCopy::new(&client, b"hello".to_vec()));
                told([sent, receive(it, &server, 9)])
            },
            "5, 5 hello",
        ),
        (
            "a send waits for who receives nothing, and goes on when he does",
            |it| {
                let (client, server) = pair(it, &unix(it, "s"));
                let sent = fill(it, &client);
                start(it, Send::new(&client, b"last".to_vec()), 1);
                turn(it);
                let mut received = 0;
                while received < sent + 4 {
                    let ended = it.run(Receive::new(&server, vec![0; 1 << 20]));
                    received += u64::from(ended.result.unwrap());
                }
                Ended::from(events(it, 1).remove(0)).told()
            },
            "4",
        ),
        (
            "a descriptor of another processor",
            |it| {
                let foreign = foreign_socket(it);
                told([
                    it.tell(Receive::new(&foreign, vec![0; 1])),
                    it.tell(Listen { socket: foreign.clone(), backlog: 1 }),
                    it.tell(Accept { listener: foreign.clone(), socket: None }),
                    it.tell(AcceptMany { listener: foreign.clone() }),
                    it.tell(Poll::socket(&foreign, PollEvents::READABLE)),
                ])
            },
            "EBADF, EBADF, EBADF, EBADF, EBADF",
        ),
    ];
    conform_on(&processors_of_sockets(), &cases);
}

#[test]
fn ends_of_connections() {
    let cases: [Case; 12] = [
        (
            "what was sent comes before the end",
            |it| {
                let (client, server) = pair(it, &v4());
                send(it, &client, b"hello");
                it.tell(Close::socket(client));
                told([9, 9, 9].map(|room| receive(it, &server, room)))
            },
            "5 hello, 0 , 0 ",
        ),
        (
            "one direction ends, and the other goes on",
            |it| {
                let (client, server) = pair(it, &v4());
                send(it, &client, b"last");
                let shut = shut_down(it, &client, Direction::Sending);
                told([
                    shut,
                    send(it, &client, b"more"),
                    receive(it, &server, 9),
                    receive(it, &server, 9),
                    send(it, &server, b"answer"),
                    receive(it, &client, 9),
                ])
            },
            "0, EPIPE, 4 last, 0 , 6, 6 answer",
        ),
        (
            "the same on this machine",
            |it| {
                let (client, server) = pair(it, &unix(it, "s"));
                send(it, &client, b"last");
                let shut = shut_down(it, &client, Direction::Sending);
                told([
                    shut,
                    send(it, &client, b"more"),
                    receive(it, &server, 9),
                    receive(it, &server, 9),
                    send(it, &server, b"answer"),
                    receive(it, &client, 9),
                ])
            },
            "0, EPIPE, 4 last, 0 , 6, 6 answer",
        ),
        (
            "who wants to receive nothing sees the end of the stream",
            |it| {
                let (client, _server) = pair(it, &v4());
                told([shut_down(it, &client, Direction::Receiving), receive(it, &client, 9)])
            },
            "0, 0 ",
        ),
        (
            "a shutdown ends who waits to receive",
            |it| {
                let (client, _server) = pair(it, &v4());
                start(it, Receive::new(&client, vec![0; 8]), 1);
                turn(it);
                start(it, Shutdown { socket: client, direction: Direction::Both }, 2);
                told(events(it, 2).into_iter().map(|event| Ended::from(event).told()))
            },
            "0, 0",
        ),
        (
            "closing with bytes that were not received is a reset",
            |it| {
                let (client, server) = pair(it, &v4());
                send(it, &client, b"never read");
                until_readable(it, &server);
                it.tell(Close::socket(server));
                told([receive(it, &client, 9), receive(it, &client, 9), send(it, &client, b"x")])
            },
            "ECONNRESET, 0 , EPIPE",
        ),
        (
            "the same on this machine",
            |it| {
                let (client, server) = pair(it, &unix(it, "s"));
                send(it, &client, b"never read");
                until_readable(it, &server);
                it.tell(Close::socket(server));
                told([receive(it, &client, 9), receive(it, &client, 9), send(it, &client, b"x")])
            },
            "ECONNRESET, 0 , EPIPE",
        ),
        (
            "not to linger is a reset, to who waits, too",
            |it| {
                let (client, server) = pair(it, &v4());
                start(it, Receive::new(&client, vec![0; 8]), 1);
                turn(it);
                set(it, &server, SocketOption::Linger(Some(Duration::ZERO)));
                start(it, Close::socket(server), 2);
                let mut events = events(it, 2);
                events.sort_by_key(|event| event.token.tag);
                told(events.into_iter().map(|event| Ended::from(event).told()))
            },
            "ECONNRESET, 0",
        ),
        (
            "a reset ends who receives many pieces",
            |it| {
                let (client, server) = pair(it, &v4());
                let pool = it.processor.receive_pool(4, 4096).unwrap();
                start(it, ReceiveMany { socket: client, pool }, 7);
                turn(it);
                set(it, &server, SocketOption::Linger(Some(Duration::ZERO)));
                let closed = it.tell(Close::socket(server));
                told([closed, Ended::from(events(it, 1).remove(0)).told()])
            },
            "0, ECONNRESET",
        ),
        (
            "who sends to a peer that has gone learns it later",
            |it| {
                let (client, server) = pair(it, &v4());
                it.tell(Close::socket(server));
                let end = receive(it, &client, 9);
                let first = send(it, &client, b"hello");
                until_hung_up(it, &client);
                told([end, first, send(it, &client, b"hello"), receive(it, &client, 9)])
            },
            "0 , 5, EPIPE, 0 ",
        ),
        (
            "what is not connected carries nothing",
            |it| {
                let socket = socket(it, Family::V4);
                let whose = Whose::Peer;
                told([
                    receive(it, &socket, 9),
                    send(it, &socket, b"x"),
                    shut_down(it, &socket, Direction::Both),
                    it.tell(SocketAddress { socket, whose, address: None }),
                ])
            },
            "ENOTCONN, EPIPE, ENOTCONN, ENOTCONN",
        ),
        (
            "the same on this machine",
            |it| {
                let socket = socket(it, Family::Unix);
                let whose = Whose::Peer;
                told([
                    receive(it, &socket, 9),
                    send(it, &socket, b"x"),
                    it.tell(SocketAddress { socket, whose, address: None }),
                ])
            },
            "EINVAL, ENOTCONN, ENOTCONN",
        ),
    ];
    conform_on(&processors_of_sockets(), &cases);
}

#[test]
fn cancels_and_timeouts() {
    let cases: [Case; 9] = [
        (
            "who waits to accept is cancelled",
            |it| {
                let listener = listen(it, &v4());
                cancelled(it, accept_one(&listener))
            },
            "ECANCELED Cancelled, ECANCELED Cancelled",
        ),
        (
            "who takes many connections is cancelled",
            |it| {
                let listener = listen(it, &v4());
                cancelled(it, AcceptMany { listener }.into())
            },
            "ECANCELED Cancelled, ECANCELED Cancelled",
        ),
        (
            "who waits to receive is cancelled",
            |it| {
                let (client, _server) = pair(it, &v4());
                let receive = || Receive::new(&client, vec![0; 8]).into();
                let first = cancel_at_once(it, receive());
                told([first, cancel_later(it, receive())])
            },
            "ECANCELED Cancelled, ECANCELED Cancelled",
        ),
        (
            "who waits for a buffer is cancelled",
            |it| {
                let (client, server) = pair(it, &v4());
                let pool = it.processor.receive_pool(1, 2).unwrap();
                let id = start(it, ReceiveMany { socket: server, pool }, 7);
                send(it, &client, b"hello");
                let lease = piece(&mut Vec::new(), events(it, 1));
                for _ in 0..3 {
                    turn(it);
                }
                it.processor.cancel(id);
                let ended = Ended::from(events(it, 1).remove(0)).told();
                told([text(&lease), ended])
            },
            "he, ECANCELED Cancelled",
        ),
        (
            "who waits to send is cancelled",
            |it| {
                let (client, _server) = pair(it, &unix(it, "s"));
                fill(it, &client);
                cancel_later(it, Send::new(&client, b"last".to_vec()).into())
            },
            "ECANCELED Cancelled",
        ),
        (
            "who waits for a socket is cancelled",
            |it| {
                let (client, _server) = pair(it, &v4());
                cancel_later(it, Poll::socket(&client, PollEvents::READABLE).into())
            },
            "ECANCELED Cancelled",
        ),
        (
            "a timeout ends who waits",
            |it| {
                let listener = listen(it, &v4());
                let (client, _server) = pair(it, &v4());
                told([
                    timed_out(it, Accept { listener, socket: None }),
                    timed_out(it, Receive::new(&client, vec![0; 8])),
                    timed_out(it, Poll::socket(&client, PollEvents::READABLE)),
                ])
            },
            "ECANCELED TimedOut, ECANCELED TimedOut, ECANCELED TimedOut",
        ),
        (
            "a timeout does nothing to what is done before",
            |it| {
                let (client, server) = pair(it, &v4());
                send(it, &client, b"hello");
                let receive = Receive::new(&server, vec![0; 8]).into();
                told(it.run_chain(Chain::with_timeout(receive, NEVER)).iter().map(Ended::told))
            },
            "5, 0",
        ),
        (
            "what was received before a cancel is not lost",
            |it| {
                let (client, server) = pair(it, &v4());
                for _ in 0..100 {
                    let id = start(it, Receive::new(&server, vec![0; 8]), 1);
                    turn(it);
                    send_beside(it, &client);
                    it.processor.cancel(id);
                    let mut received = Vec::new();
                    for event in events(it, 2) {
                        let result = event.result;
                        if let Some(Operation::Receive(it)) = event.into_operation() {
                            let length = result.unwrap_or_default() as usize;
                            received.extend_from_slice(&it.buffer.as_slice()[..length]);
                        }
                    }
                    if received.is_empty() {
                        assert_eq!(receive(it, &server, 8), "5 hello");
                    } else {
                        assert_eq!(received, b"hello");
                    }
                }
                "none".into()
            },
            "none",
        ),
    ];
    conform_on(&processors_of_sockets(), &cases);
}

#[test]
fn polls_and_options() {
    let cases: [Case; 8] = [
        (
            "a connection is ready to be sent to",
            |it| {
                let (client, _server) = pair(it, &v4());
                let both = PollEvents::READABLE | PollEvents::WRITABLE;
                let result = it.run(Poll::socket(&client, both)).result.unwrap();
                told([PollEvents::from_bits(result) == PollEvents::WRITABLE])
            },
            "true",
        ),
        (
            "a poll waits until bytes have come",
            |it| {
                let (client, server) = pair(it, &v4());
                start(it, Poll::socket(&server, PollEvents::READABLE), 1);
                turn(it);
                start(it, Send::new(&client, b"hello".to_vec()), 2);
                let events = events(it, 2);
                let polled = events.iter().find(|event| event.token.tag == 1).unwrap();
                let events = PollEvents::from_bits(polled.result.unwrap());
                told([events.contains(PollEvents::READABLE)])
            },
            "true",
        ),
        (
            "a listener is ready when somebody waits",
            |it| {
                let listener = listen(it, &v4());
                let here = address(it, &listener, Whose::Own);
                start(it, Poll::socket(&listener, PollEvents::READABLE), 1);
                turn(it);
                let client = socket(it, Family::V4);
                start(it, Connect { socket: client, address: here }, 2);
                let events = events(it, 2);
                told([events.iter().all(|event| event.result.is_ok())])
            },
            "true",
        ),
        (
            "a file is always ready",
            |it| {
                let file = it.file("a", b"hello");
                let result = it.run(Poll::file(&file, PollEvents::READABLE)).result.unwrap();
                told([PollEvents::from_bits(result) == PollEvents::READABLE])
            },
            "true",
        ),
        (
            "options are what they were set to",
            |it| {
                let socket = socket(it, Family::V6);
                let options = [
                    SocketOption::NoDelay(true),
                    SocketOption::ReuseAddress(true),
                    SocketOption::ReusePort(true),
                    SocketOption::V6Only(true),
                    SocketOption::KeepAlive(true),
                ];
                told(options.map(|option| {
                    let name = option.name().unwrap();
                    let before = get(it, &socket, name);
                    format!("{before} {} {}", set(it, &socket, option), get(it, &socket, name))
                }))
            },
            "0 0 1, 0 0 1, 0 0 1, 0 0 1, 0 0 1",
        ),
        (
            "a buffer is at least as large as it was asked to be",
            |it| {
                let socket = socket(it, Family::V4);
                let options = [
                    SocketOption::ReceiveBufferBytes(50_000),
                    SocketOption::SendBufferBytes(50_000),
                ];
                told(options.map(|option| {
                    let done = set(it, &socket, option);
                    let bytes: u32 = get(it, &socket, option.name().unwrap()).parse().unwrap();
                    format!("{done} {}", bytes >= 50_000)
                }))
            },
            "0 true, 0 true",
        ),
        (
            "an option that the network does not have",
            |it| {
                let (v4, local) = (socket(it, Family::V4), socket(it, Family::Unix));
                told([
                    set(it, &v4, SocketOption::V6Only(true)),
                    set(it, &local, SocketOption::NoDelay(true)),
                ])
            },
            "ENOPROTOOPT, EOPNOTSUPP",
        ),
        (
            "an error is told once",
            |it| {
                let (client, server) = pair(it, &v4());
                let none = get(it, &client, SocketOptionName::Error);
                set(it, &server, SocketOption::Linger(Some(Duration::ZERO)));
                it.tell(Close::socket(server));
                until_hung_up(it, &client);
                let reset = (ucp_engine::Errno::ECONNRESET as i32).to_string();
                let first = get(it, &client, SocketOptionName::Error);
                told([
                    none,
                    (first == reset).to_string(),
                    get(it, &client, SocketOptionName::Error),
                ])
            },
            "0, true, 0",
        ),
    ];
    conform_on(&processors_of_sockets(), &cases);
}

fn v4() -> Address {
    "127.0.0.1:0".parse::<SocketAddr>().unwrap().into()
}

fn v6() -> Address {
    "[::1]:0".parse::<SocketAddr>().unwrap().into()
}

fn unix(it: &World, name: &str) -> Address {
    Address::unix(it.path(name)).unwrap()
}

fn token(tag: u32) -> Token {
    Token { handler: 0, tag }
}

fn start(it: &mut World, operation: impl Into<Operation>, tag: u32) -> OperationId {
    it.processor.accept(operation.into(), token(tag)).expect("there is room")
}

/// Submits, and waits for nothing.
fn turn(it: &mut World) {
    let mut events = CompletionEventQueue::default();
    it.processor.submit_and_wait(0, None, &mut events).unwrap();
    assert!(events.is_empty(), "nothing has happened: {:?}", events.pop());
}

/// The next events, and not one more.
fn events(it: &mut World, count: usize) -> Vec<CompletionEvent> {
    it.wait(count)
}

fn socket(it: &mut World, family: Family) -> Socket {
    let ended = it.run(MakeSocket { family, socket: None });
    match ended.operation {
        Operation::MakeSocket(MakeSocket { socket: Some(socket), .. }) => socket,
        other => panic!("{other:?}"),
    }
}

fn listen(it: &mut World, address: &Address) -> Socket {
    let socket = socket(it, address.family());
    set(it, &socket, SocketOption::ReuseAddress(true));
    bind_and_listen(it, socket, address, 128)
}

fn bind_and_listen(it: &mut World, socket: Socket, address: &Address, backlog: u32) -> Socket {
    let address = address.clone();
    assert_eq!(it.tell(Bind { socket: socket.clone(), address }), "0");
    assert_eq!(it.tell(Listen { socket: socket.clone(), backlog }), "0");
    socket
}

fn address(it: &mut World, socket: &Socket, whose: Whose) -> Address {
    let ended = it.run(SocketAddress { socket: socket.clone(), whose, address: None });
    match ended.operation {
        Operation::SocketAddress(SocketAddress { address: Some(address), .. }) => address,
        other => panic!("{other:?}"),
    }
}

fn connect(it: &mut World, address: &Address) -> String {
    let socket = socket(it, address.family());
    it.tell(Connect { socket, address: address.clone() })
}

fn connected(it: &mut World, address: &Address) -> Socket {
    let socket = socket(it, address.family());
    let connect = Connect { socket: socket.clone(), address: address.clone() };
    assert_eq!(it.tell(connect), "0");
    socket
}

fn accept_one(listener: &Socket) -> Operation {
    Accept { listener: listener.clone(), socket: None }.into()
}

fn accept(it: &mut World, listener: &Socket) -> Socket {
    match it.run(accept_one(listener)).operation {
        Operation::Accept(Accept { socket: Some(socket), .. }) => socket,
        other => panic!("{other:?}"),
    }
}

/// A connection over a new listener: who connected, and who accepted.
fn pair(it: &mut World, address: &Address) -> (Socket, Socket) {
    let listener = listen(it, address);
    let address = self::address(it, &listener, Whose::Own);
    pair_with(it, &listener, &address)
}

fn pair_with(it: &mut World, listener: &Socket, address: &Address) -> (Socket, Socket) {
    let client = connected(it, address);
    (client, accept(it, listener))
}

fn both_ways(it: &mut World, address: &Address) -> String {
    let (client, server) = pair(it, address);
    told([exchange(it, &client, &server, b"hello"), exchange(it, &server, &client, b"world")])
}

fn exchange(it: &mut World, from: &Socket, to: &Socket, bytes: &[u8]) -> String {
    start(it, Send::new(from, bytes.to_vec()), 98);
    start(it, Receive::new(to, vec![0; 64]), 99);
    let mut received = String::new();
    for event in events(it, 2) {
        let ended = Ended::from(event);
        let told = ended.told();
        if let Operation::Receive(receive) = &ended.operation {
            let length = ended.result.unwrap_or_default() as usize;
            received = format!("{told} {}", text(&receive.buffer.as_slice()[..length]));
        }
    }
    received
}

fn send(it: &mut World, socket: &Socket, bytes: &[u8]) -> String {
    it.tell(Send::new(socket, bytes.to_vec()))
}

fn send_beside(it: &mut World, socket: &Socket) {
    start(it, Send::new(socket, b"hello".to_vec()), 99);
}

/// Receives with room for `length` bytes, and tells how many came and which.
fn receive(it: &mut World, socket: &Socket, length: usize) -> String {
    let ended = it.run(Receive::new(socket, vec![b'.'; length]));
    match ended.result {
        Ok(length) => format!("{length} {}", text(&ended.bytes()[..length as usize])),
        Err(_) => ended.told(),
    }
}

fn shut_down(it: &mut World, socket: &Socket, direction: Direction) -> String {
    it.tell(Shutdown { socket: socket.clone(), direction })
}

fn set(it: &mut World, socket: &Socket, option: SocketOption) -> String {
    it.tell(SetSocketOption { socket: socket.clone(), option })
}

fn get(it: &mut World, socket: &Socket, option: SocketOptionName) -> String {
    it.tell(GetSocketOption { socket: socket.clone(), option })
}

fn until_readable(it: &mut World, socket: &Socket) {
    let told = it.run(Poll::socket(socket, PollEvents::READABLE));
    assert!(told.result.is_ok(), "{}", told.told());
}

/// Waits until a connection was broken off.
fn until_hung_up(it: &mut World, socket: &Socket) {
    let told = it.run(Poll::socket(socket, PollEvents::from_bits(0)));
    assert!(told.result.is_ok(), "{}", told.told());
}

/// Takes one event's piece, and notes what it says.
fn piece(results: &mut Vec<String>, mut events: Vec<CompletionEvent>) -> Lease {
    let event = events.remove(0);
    let End::More(Part::Bytes(lease)) = event.end else { panic!("{event:?}") };
    results.push(format!("{} {}", event.result.unwrap(), text(&lease)));
    lease
}

/// Sends until not even the smallest piece can be sent; returns how many bytes it was. Not for TCP: there
/// the kernel makes room by itself.
fn fill(it: &mut World, socket: &Socket) -> u64 {
    let mut sent = 0;
    for length in [1 << 20, 4] {
        loop {
            let send = Send::new(socket, vec![7; length]).into();
            let ended = it.run_chain(Chain::with_timeout(send, SOON)).remove(0);
            let Ok(count) = ended.result else {
                assert_eq!(ended.told(), "ECANCELED TimedOut");
                break;
            };
            sent += u64::from(count);
        }
    }
    sent
}

fn timed_out(it: &mut World, operation: impl Into<Operation>) -> String {
    it.run_chain(Chain::with_timeout(operation.into(), SOON)).remove(0).told()
}

/// Cancels before it was submitted, and another one after that.
fn cancelled(it: &mut World, operation: Operation) -> String {
    let first = start(it, operation, 1);
    it.processor.cancel(first);
    let ended = Ended::from(events(it, 1).remove(0));
    let first = ended.told();
    told([first, cancel_later(it, ended.operation)])
}

fn cancel_at_once(it: &mut World, operation: Operation) -> String {
    let id = start(it, operation, 1);
    it.processor.cancel(id);
    Ended::from(events(it, 1).remove(0)).told()
}

fn cancel_later(it: &mut World, operation: Operation) -> String {
    let id = start(it, operation, 1);
    turn(it);
    it.processor.cancel(id);
    Ended::from(events(it, 1).remove(0)).told()
}

/// A socket that the processor of the case does not know.
fn foreign_socket(it: &mut World) -> Socket {
    use ucp_engine::processor::{FaultPlan, SimulatedProcessor, SimulatedWorld};

    if it.processor.capabilities().engine == ucp_engine::processor::EngineKind::Simulated {
        return Socket::from_fd(std::net::TcpListener::bind("127.0.0.1:0").unwrap().into());
    }
    let world = SimulatedWorld::new();
    let mut other: Box<dyn ucp_engine::OperationProcessor> =
        Box::new(SimulatedProcessor::new(1, 8, &world, FaultPlan::none()));
    let make = MakeSocket { family: Family::V4, socket: None };
    other.accept(make.into(), Token::default()).unwrap();
    let mut events = CompletionEventQueue::default();
    other.submit_and_wait(1, None, &mut events).unwrap();
    match events.pop().and_then(CompletionEvent::into_operation) {
        Some(Operation::MakeSocket(MakeSocket { socket: Some(socket), .. })) => socket,
        other => panic!("{other:?}"),
    }
}
