//! The examples do what they say.

use std::cell::RefCell;
use std::error::Error;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use ucp_engine::Proactor;
use ucp_engine::operation::Direction;
use ucp_engine::processor::{FaultPlan, SimulatedProcessor, SimulatedWorld};

use crate::sockets::{listen, processors, settle};
use crate::support::machine;

#[path = "../../engine/examples/concatenate.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example is a program")]
mod concatenate;
#[path = "../../engine/examples/framing.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example is a program")]
mod framing;
#[path = "../../engine/examples/idle_connections.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example is a program")]
mod idle_connections;
#[path = "../../engine/examples/proxy.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example is a program")]
mod proxy;
#[path = "../../engine/examples/thousand_files.rs"]
#[allow(dead_code, reason = "its main function")]
mod thousand_files;

use framing::{Decoder, FrameError};
use idle_connections::{Ending, IDLE_MAX};

/// How long a client waits for what must come. Nothing comes that late on a machine that works.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_thousand_files_are_read_in_every_way() {
    let times = thousand_files::compare(100).unwrap();
    assert_eq!(times.len(), 4);
}

const FRAMES: [&[u8]; 4] = [b"", b"a", b"maximum!", b"four"];

fn framed(frames: &[&[u8]]) -> Vec<u8> {
    let mut stream = Vec::new();
    for frame in frames {
        stream.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        stream.extend_from_slice(frame);
    }
    stream
}

/// The frames of a stream that comes in these pieces, and how it ended.
fn decoded(pieces: &[&[u8]], length_max: u32) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    let mut decoder = Decoder::new(length_max);
    let mut frames = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match decoder.take_frame(&mut rest) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        assert!(rest.is_empty(), "what is not taken would be lost");
    }
    (frames, decoder.finish())
}

#[test]
fn frames_are_the_same_in_every_split() {
    let stream = framed(&FRAMES);
    let whole = (FRAMES.map(<[u8]>::to_vec).to_vec(), Ok(()));
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(decoded(&pieces, 8), whole, "cut at {first} and {second}");
        }
    }
    let bytes: Vec<_> = stream.chunks(1).collect();
    assert_eq!(decoded(&bytes, 8), whole, "byte by byte");
}

#[test]
fn a_stream_that_is_no_stream_of_frames_is_refused() {
    use FrameError::{TooLong, Torn};
    type Case<'a> = (&'a str, &'a [u8], u32, Result<(), FrameError>);

    let huge = u32::MAX.to_be_bytes();
    let cases: [Case<'_>; 6] = [
        ("no frame at all", b"", 8, Ok(())),
        ("the longest", &framed(&[&[7; 8]]), 8, Ok(())),
        ("one byte more", &[0, 0, 0, 9], 8, Err(TooLong { length: 9, length_max: 8 })),
        // Before there is room for it: 4 GiB would be asked for.
        (
            "the longest that can be said",
            &huge,
            8,
            Err(TooLong { length: u32::MAX, length_max: 8 }),
        ),
        ("torn in its length", &[0, 0, 0], 8, Err(Torn)),
        ("torn in its body", &framed(&[b"torn"])[..7], 8, Err(Torn)),
    ];
    for (name, stream, length_max, want) in cases {
        assert_eq!(decoded(&[stream], length_max).1, want, "{name}");
    }
}

#[test]
fn frames_come_over_a_connection_until_one_is_too_long() {
    let _hold = machine::shared();
    for (name, processor) in processors(64) {
        let proactor = Proactor::new(processor);
        let (listener, address) = listen(&proactor);
        let initiator = proactor.initiator();
        let pool = initiator.receive_pool(4, 4096).unwrap();
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            for byte in framed(&FRAMES) {
                stream.write_all(&[byte]).unwrap();
            }
            stream.write_all(&[0, 0, 0, 9]).unwrap();
            // It is the length that is refused: nothing of a body has come.
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        });
        let mut frames = Vec::new();
        let result = proactor.block_on(async {
            let socket = initiator.accept(&listener).await.unwrap();
            let keep = |frame| frames.push(frame);
            framing::read_frames(&initiator, &socket, &pool, 8, keep).await
        });
        drop(client.join().unwrap());
        let error: Box<dyn Error> = result.unwrap_err();
        let want = FrameError::TooLong { length: 9, length_max: 8 };
        assert_eq!(error.downcast_ref(), Some(&want), "{name}");
        assert_eq!(frames, FRAMES, "{name}");
        settle(&proactor, name);
        assert_eq!(pool.on_loan(), 0, "{name}");
    }
}

#[test]
fn a_connection_is_ended_after_thirty_idle_seconds_and_not_before() {
    for seed in 0..100 {
        let world = SimulatedWorld::new();
        let processor = SimulatedProcessor::new(seed, 64, &world, FaultPlan::none());
        let proactor = Proactor::new(Box::new(processor));
        let initiator = proactor.initiator();
        let address: SocketAddr = "10.0.0.1:7".parse().unwrap();
        let listener = proactor.block_on(initiator.listen(address)).unwrap();
        let ended = Rc::new(RefCell::new(Vec::new()));
        let client = initiator.spawn({
            let initiator = initiator.clone();
            async move {
                let idle = initiator.connect(address).await.unwrap();
                let patient = initiator.connect(address).await.unwrap();
                // Longer than the limit in all, but never at a time.
                for _ in 0..3 {
                    initiator.sleep(IDLE_MAX - Duration::from_secs(1)).await;
                    initiator.send_all(&patient, b"here".to_vec()).await.0.unwrap();
                    let (received, _) = initiator.receive_exactly(&patient, vec![0; 4]).await;
                    assert_eq!(received, Ok(4), "seed {seed}");
                }
                initiator.shut_down(&patient, Direction::Sending).await.unwrap();
                let (received, _) = initiator.receive(&idle, vec![0; 4]).await;
                assert_eq!(received, Ok(0), "seed {seed}: the idle one was closed");
            }
        });
        let client = client.unwrap();
        let (notes, clock) = (Rc::clone(&ended), initiator.clone());
        let started = initiator.now();
        let note = move |ending| notes.borrow_mut().push((ending, clock.now().since(started)));
        idle_connections::serve(&proactor, &listener, 2, note).unwrap();
        proactor.block_on(client);
        let ended = ended.borrow();
        let [(Ending::Idle, idle), (Ending::EndOfStream, patient)] = ended[..] else {
            panic!("seed {seed}: {ended:?}");
        };
        assert!((IDLE_MAX..IDLE_MAX * 2).contains(&idle), "seed {seed}: after {idle:?}");
        assert!(patient > IDLE_MAX * 2, "seed {seed}: after {patient:?}");
        drop(proactor);
        drop(listener);
        assert_eq!(world.open_descriptors(), 0, "seed {seed}: {:?}", world.open_files());
    }
}

/// A server that reads all that a client sends, then answers with it, and a word in front.
fn upstream(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    stream.write_all(b"got: ").unwrap();
    stream.write_all(&received).unwrap();
}

#[test]
fn a_proxy_carries_half_closed_streams_in_both_directions() {
    let _hold = machine::shared();
    // More than the sockets and the proxy hold together: who sends has to wait.
    let sent: Vec<u8> = (0..8_u32 << 20).map(|number| (number % 251).to_le_bytes()[0]).collect();
    for (name, processor) in processors(64) {
        let proactor = Proactor::new(processor);
        let (listener, address) = listen(&proactor);
        let pool = proactor.initiator().buffer_pool(2, 64 << 10).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream_address = server.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| upstream(&server));
            let client = scope.spawn(|| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(&sent).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                answer
            });
            proxy::serve(&proactor, &listener, upstream_address, &pool, 1).unwrap();
            let answer = client.join().unwrap();
            assert!(answer.strip_prefix(b"got: ") == Some(&sent[..]), "{name}: other bytes");
        });
        settle(&proactor, name);
        assert_eq!(pool.available(), 2, "{name}");
    }
}

#[test]
fn a_proxy_ends_both_sides_when_one_breaks_or_is_not_there() {
    let _hold = machine::shared();
    for (name, processor) in processors(64) {
        let proactor = Proactor::new(processor);
        let (listener, address) = listen(&proactor);
        let pool = proactor.initiator().buffer_pool(2, 4096).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream_address = server.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut first, _) = server.accept().unwrap();
                first.read_exact(&mut [0; 1]).unwrap();
                // Closed with a byte unread: a reset. Then there is no server any more.
                drop(first);
            });
            let client = scope.spawn(move || {
                ["reset", "refused"].map(|attempt| {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let _ = stream.write_all(b"xy");
                    (attempt, stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind()))
                })
            });
            proxy::serve(&proactor, &listener, upstream_address, &pool, 2).unwrap();
            for (attempt, ended) in client.join().unwrap() {
                // It timed out.
                assert_ne!(ended, Err(ErrorKind::WouldBlock), "{name}, {attempt}");
            }
        });
        settle(&proactor, name);
        assert_eq!(pool.available(), 2, "{name}");
    }
}

#[test]
fn files_are_written_in_the_order_of_the_arguments() {
    let directory = tempfile::tempdir().unwrap();
    // Those in front are the longest: they are ready last.
    let contents: Vec<Vec<u8>> =
        (0..100_u8).rev().map(|number| vec![number; usize::from(number) * 3000]).collect();
    let mut paths = Vec::<PathBuf>::new();
    for (number, content) in contents.iter().enumerate() {
        paths.push(directory.path().join(number.to_string()));
        fs::write(&paths[number], content).unwrap();
    }
    for (name, processor) in processors(64) {
        let proactor = Proactor::new(processor);
        let mut gathered = Vec::new();
        let keep = |content| {
            gathered.push(content);
            Ok(())
        };
        concatenate::concatenate(&proactor, paths.clone(), keep).unwrap();
        assert!(gathered == contents, "{name}: other contents, or another order");

        let mut with_missing = paths.clone();
        with_missing.insert(3, directory.path().join("missing"));
        let mut gathered = Vec::new();
        let keep = |content| {
            gathered.push(content);
            Ok(())
        };
        let error = concatenate::concatenate(&proactor, with_missing, keep).unwrap_err();
        assert!(error.to_string().contains("missing"), "{name}: {error}");
        assert!(gathered == contents[..3], "{name}: those before it");
        settle(&proactor, name);
    }
}
