//! The file server of the examples: what it answers to whom, and that nothing outside of its root is
//! among that.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use ucp_engine::random::Random;
use ucp_engine::{OperationProcessor, Proactor};

use crate::sockets::{listen, processors};
use crate::support::machine;

#[path = "../../engine/examples/http_files/main.rs"]
#[allow(dead_code, reason = "an example is a program")]
mod server;

use server::request::{HEAD_BYTES_MAX, Part, Refusal, Request, parse};

/// How long a client waits for what must come. Nothing comes that late on a machine that works.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than any test runs.
const NEVER: Duration = Duration::from_secs(600);
const SECRET: &str = "nobody may read this";
/// Several blocks, and a part of one.
const LARGE_BYTES: usize = 700_001;

/// A folder with a root in it, and what must not be served beside it.
fn site() -> tempfile::TempDir {
    let site = tempfile::tempdir().unwrap();
    let root = site.path().join("root");
    fs::create_dir_all(root.join("folder")).unwrap();
    fs::write(root.join("index.html"), "<p>home").unwrap();
    fs::write(root.join("folder/a b.txt"), "0123456789").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("large"), large()).unwrap();
    fs::write(site.path().join("secret"), SECRET).unwrap();
    symlink("../secret", root.join("link")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("folder/a b.txt", root.join("inner")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    site
}

fn large() -> Vec<u8> {
    (0..LARGE_BYTES).map(|number| (number % 251).to_le_bytes()[0]).collect()
}

/// Serves so many connections of what `clients` does with the address, on a processor.
fn serve<T: Send>(
    (name, processor): (&'static str, Box<dyn OperationProcessor>),
    root: &Path,
    (blocks, idle_max): (u32, Duration),
    connections: u32,
    clients: impl FnOnce(SocketAddr) -> T + Send,
) -> T {
    let proactor = Proactor::new(processor);
    let (listener, address) = listen(&proactor);
    let server = server::Server::new(&proactor, root, blocks, idle_max).unwrap();
    let outcome = thread::scope(|scope| {
        let clients = scope.spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| clients(address)));
            if outcome.is_err() {
                // So that the server does not wait for those that do not come any more.
                (0..connections).for_each(|_| drop(TcpStream::connect(address)));
            }
            outcome
        });
        server.serve(&proactor, &listener, connections).unwrap();
        clients.join().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
    });
    // A connection's last receive may not have ended yet, and holds no block.
    assert_eq!(server.blocks.available(), blocks as usize, "{name}");
    outcome
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes on a connection of its own, and returns what comes back until it is closed.
fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // What is refused half-way may be closed before all of it was sent.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    // Not reset, which could take the answer away.
    ended.unwrap_or_else(|error| panic!("{:?}: {error}", String::from_utf8_lossy(request)));
    answer
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: here\r\n{headers}\r\n").into_bytes()
}

/// The head and the body of an answer.
fn parts(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(answer))) + 4;
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end..].to_vec())
}

/// A name, a request, and the status, a piece of the head and the body of its answer.
type Case<'a> = (&'a str, Vec<u8>, &'a str, &'a str, &'a [u8]);

#[test]
fn requests_are_answered_as_http_wants_it() {
    let _hold = machine::shared();
    let site = site();
    let (root, large) = (site.path().join("root"), large());
    let post = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    let mut upload = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1048576\r\n\r\n".to_vec();
    upload.resize(upload.len() + (1 << 20), 7);
    let head = b"HEAD /large HTTP/1.1\r\nHost: here\r\n\r\n".to_vec();
    let digits = "/folder/a%20b.txt";
    let cases: Vec<Case<'_>> = vec![
        ("the index of the root", get("/", ""), "200", "Content-Type: text/html", b"<p>home"),
        ("a name that is encoded", get(digits, ""), "200", "Content-Length: 10", b"0123456789"),
        ("a query is no part of a name", get("/index.html?a=/../b", ""), "200", "", b"<p>home"),
        ("as to a proxy", get("http://here/index.html", ""), "200", "", b"<p>home"),
        ("a file of several blocks", get("/large", ""), "200", "Content-Length: 700001", &large),
        ("an empty file", get("/empty", ""), "200", "Content-Length: 0", b""),
        ("a head only", head, "200", "Content-Length: 700001", b""),
        (
            "a part",
            get(digits, "Range: bytes=2-4\r\n"),
            "206",
            "Content-Range: bytes 2-4/10",
            b"234",
        ),
        ("the end", get(digits, "Range: bytes=-3\r\n"), "206", "bytes 7-9/10", b"789"),
        ("from a byte on", get(digits, "Range: bytes=8-\r\n"), "206", "bytes 8-9/10", b"89"),
        (
            "more than there is",
            get(digits, "Range: bytes=5-99\r\n"),
            "206",
            "bytes 5-9/10",
            b"56789",
        ),
        (
            "of many blocks",
            get("/large", "Range: bytes=1-\r\n"),
            "206",
            "1-700000/700001",
            &large[1..],
        ),
        (
            "behind the end",
            get(digits, "Range: bytes=10-\r\n"),
            "416",
            "bytes */10",
            b"416 Range Not Satisfiable\n",
        ),
        (
            "two parts are the whole",
            get(digits, "Range: bytes=0-1,3-4\r\n"),
            "200",
            "",
            b"0123456789",
        ),
        (
            "a condition that can't hold",
            get(digits, "If-Range: \"a\"\r\nRange: bytes=2-4\r\n"),
            "200",
            "",
            b"0123456789",
        ),
        ("no such file", get("/missing", ""), "404", "", b"404 Not Found\n"),
        ("a folder", get("/folder", ""), "404", "", b"404 Not Found\n"),
        ("no other method", post, "405", "Allow: GET, HEAD", b"405 Method Not Allowed\n"),
        // Closed with bytes unread, the connection would be reset.
        ("all of it comes before the end", upload, "405", "", b"405 Method Not Allowed\n"),
        ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "400", "", b"400 Bad Request\n"),
        (
            "an old client",
            b"GET / HTTP/1.0\r\n\r\n".to_vec(),
            "200",
            "Connection: close",
            b"<p>home",
        ),
    ];
    for (name, processor) in processors(256) {
        let connections = u32::try_from(cases.len()).unwrap();
        serve((name, processor), &root, (8, NEVER), connections, |address| {
            for (case, request, status, header, want) in &cases {
                let (head, body) = parts(&exchange(address, request));
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{name}, {case}: {head}");
                assert!(head.contains(header), "{name}, {case}: {head}");
                assert!(body == *want, "{name}, {case}: {} bytes of a body", body.len());
            }
        });
    }
}

#[test]
fn a_connection_is_kept_until_it_is_asked_to_close() {
    let _hold = machine::shared();
    let site = site();
    let root = site.path().join("root");
    // All at once, and one behind a file that is not there; what follows the last is not answered.
    let mut requests = get("/index.html", "");
    requests.extend(get("/missing", ""));
    requests.extend(get("/large", ""));
    requests.extend(get("/folder/a%20b.txt", "Connection: x, Close\r\n"));
    requests.extend(get("/index.html", ""));
    for (name, processor) in processors(256) {
        let answers = serve((name, processor), &root, (8, NEVER), 1, |address| {
            let mut stream = connect(address);
            // A client that sends byte by byte gets the same.
            for byte in &requests {
                stream.write_all(&[*byte]).unwrap();
            }
            let mut answers = Vec::new();
            stream.read_to_end(&mut answers).unwrap();
            answers
        });
        let heads = answers.windows(9).filter(|it| it == b"HTTP/1.1 ").count();
        assert_eq!(heads, 4, "{name}");
        assert!(answers.ends_with(b"Connection: close\r\n\r\n0123456789"), "{name}");
        assert!(answers.len() > LARGE_BYTES, "{name}");
    }
}

/// Requests that mean no good, with the statuses that are right for them; none if the connection may be
/// closed as well.
fn hostile_requests() -> Vec<(String, Vec<u8>, &'static [&'static str])> {
    let mut cases = Vec::new();
    for path in [
        "/../secret",
        "/folder/../../secret",
        "/%2e%2e/secret",
        "/%2E%2e%2Fsecret",
        "/..%2fsecret",
        "/folder/%2e%2e/%2e%2e/secret",
        "//../secret",
        "//etc/passwd",
        "/%2Fetc%2Fpasswd",
        "/link",
        "/up/secret",
        "/up/root/../secret",
        "/inner",
        "/fifo",
        "/proc/self/root/etc/passwd",
        "http://here/../secret",
    ] {
        cases.push((path.into(), get(path, ""), &["404"][..]));
    }
    for path in ["/index.html%00.png", "/%0", "/%zz", "*", "secret", "/%", "http:/x"] {
        cases.push((path.into(), get(path, ""), &["400"][..]));
    }
    let long = "a".repeat(HEAD_BYTES_MAX);
    cases.push(("an overlong target".into(), get(&format!("/{long}"), ""), &["431"]));
    cases.push(("an overlong header".into(), get("/", &format!("A: {long}\r\n")), &["431"]));
    cases.push((
        "a name too long for the kernel".into(),
        get(&format!("/{}", &long[..5000]), ""),
        &["404"],
    ));
    cases.push(("too many headers".into(), get("/", &"A: b\r\n".repeat(100)), &["431"]));
    let endless = get("/", &format!("A: {long}"));
    cases.push(("a head without an end".into(), endless[..endless.len() - 2].to_vec(), &["431"]));
    cases.push(("a body".into(), get("/", "Content-Length: 9\r\n"), &["400"]));
    cases.push(("a body in chunks".into(), get("/", "Transfer-Encoding: chunked\r\n"), &["400"]));
    cases.push(("two hosts".into(), get("/", "Host: there\r\n"), &["400"]));
    cases.push(("no HTTP".into(), b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), &["400"]));
    cases.push(("another version".into(), b"GET / HTTP/9.9\r\n\r\n".to_vec(), &["400", "505"]));
    cases.push(("a NUL".into(), b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &["400"]));
    cases.push(("half a head".into(), b"GET / HTTP/1.1\r\nHost".to_vec(), &[]));
    cases.push(("nothing".into(), Vec::new(), &[]));
    cases
}

#[test]
fn nothing_outside_of_the_root_is_answered_with() {
    let _hold = machine::shared();
    let site = site();
    let root = site.path().join("root");
    let cases = hostile_requests();
    for (name, processor) in processors(256) {
        let connections = u32::try_from(cases.len()).unwrap();
        serve((name, processor), &root, (8, NEVER), connections, |address| {
            for (case, request, statuses) in &cases {
                let answer = exchange(address, request);
                check_is_harmless(&answer, &format!("{name}, {case}"));
                let is_right =
                    |status: &&str| answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes());
                assert!(
                    statuses.iter().any(is_right) || (statuses.is_empty() && answer.is_empty()),
                    "{name}, {case}: {}",
                    String::from_utf8_lossy(&answer)
                );
            }
        });
    }
}

fn check_is_harmless(answer: &[u8], told: &str) {
    let text = String::from_utf8_lossy(answer);
    assert!(!text.contains(SECRET) && !text.contains("root:x:"), "{told}: {text}");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{told}: {text}");
}

#[test]
fn requests_of_chance_get_a_clean_answer_or_none() {
    let _hold = machine::shared();
    const REQUESTS: u32 = 300;
    let site = site();
    let root = site.path().join("root");
    let words: [&[u8]; 21] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"/",
        b"..",
        b"%2e%2e",
        b"%2f",
        b"%00",
        b"secret",
        b"link",
        b"up",
        b"index.html",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\r\n\r\n",
        b"Host: x\r\n",
        b"Range: bytes=",
        b"18446744073709551615-",
        b"Content-Length: -1\r\n",
        b"\0\xff ",
    ];
    for (name, processor) in processors(256) {
        serve((name, processor), &root, (8, NEVER), REQUESTS + 1, |address| {
            for seed in 0..REQUESTS {
                let mut random = Random::new(seed.into());
                let mut request = b"GET /".to_vec();
                if random.once_in(4) {
                    request.clear();
                }
                for _ in 0..random.below(12) {
                    let chosen = usize::try_from(random.below(words.len() as u64)).unwrap();
                    request.extend_from_slice(words[chosen]);
                }
                let answer = exchange(address, &request);
                let told = format!("{name}, seed {seed}: {:?}", String::from_utf8_lossy(&request));
                check_is_harmless(&answer, &told);
            }
            let (head, body) = parts(&exchange(address, &get("/", "")));
            assert!(head.starts_with("HTTP/1.1 200") && body == b"<p>home", "{name}: it goes on");
        });
    }
}

#[test]
fn clients_that_get_nowhere_are_parted_with() {
    let _hold = machine::shared();
    let site = site();
    let root = site.path().join("root");
    for (name, processor) in processors(256) {
        let limits = (8, Duration::from_millis(200));
        serve((name, processor), &root, limits, 3, |address| {
            let mut silent = connect(address);
            // Asks for more than the sockets hold, and reads nothing of it.
            let mut deaf = connect(address);
            for _ in 0..40 {
                deaf.write_all(&get("/large", "")).unwrap();
            }
            // Never idle, and never done: a byte now and then.
            let mut slow = connect(address);
            let is_parted_with = (0..1000).any(|_| {
                thread::sleep(Duration::from_millis(20));
                slow.write_all(b"G").is_err()
            });
            assert!(is_parted_with, "{name}");
            let mut answer = Vec::new();
            silent.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"", "{name}");
            // What was under way comes, and then the end, without the rest.
            let _ = deaf.read_to_end(&mut answer);
            assert!(answer.len() < 40 * LARGE_BYTES, "{name}: {} bytes", answer.len());
        });
    }
}

#[test]
fn many_clients_share_few_blocks() {
    let _hold = machine::shared();
    const CLIENTS: u32 = 16;
    let site = site();
    let (root, large) = (site.path().join("root"), large());
    for (name, processor) in processors(256) {
        let served = serve((name, processor), &root, (3, NEVER), CLIENTS, |address| {
            thread::scope(|scope| {
                let clients: Vec<_> = (0..CLIENTS)
                    .map(|_| scope.spawn(|| parts(&exchange(address, &get("/large", "")))))
                    .collect();
                let answers = clients.into_iter().map(|client| client.join().unwrap());
                answers
                    .filter(|(head, body)| {
                        let is_whole = head.starts_with("HTTP/1.1 200 ") && *body == large;
                        let is_refused = head.starts_with("HTTP/1.1 503 ");
                        assert!(is_whole || is_refused, "{name}: {head}");
                        is_whole
                    })
                    .count()
            })
        });
        assert!(served > 0, "{name}");
    }
}

#[test]
fn a_head_is_the_same_in_every_split_and_leaves_what_follows() {
    let request = get("/a?b", "Range: bytes=1-2\r\nConnection: close\r\n");
    let want = Request {
        name: b"a".to_vec(),
        wants_body: true,
        part: Some(Part::From(1, Some(2))),
        is_kept: false,
    };
    for length in 0..request.len() {
        assert_eq!(parse(&request[..length]), Ok(None), "{length} bytes");
    }
    let length = request.len();
    let followed = [&request[..], b"GET"].concat();
    assert_eq!(parse(&followed), Ok(Some((want, length))));
    let overlong = get("/", &format!("A: {}\r\n", "a".repeat(HEAD_BYTES_MAX)));
    assert_eq!(parse(&overlong), Err(Refusal::HeadTooLong), "even if it came whole");
}

#[test]
fn parts_lie_inside_of_the_file() {
    let max = u64::MAX;
    let cases = [
        ("the first byte", Part::From(0, Some(0)), 10, Ok(0..1)),
        ("all of it", Part::From(0, None), 10, Ok(0..10)),
        ("to the end of the numbers", Part::From(3, Some(max)), 10, Ok(3..10)),
        ("behind the end", Part::From(10, None), 10, Err(10)),
        ("of an empty file", Part::From(0, None), 0, Err(0)),
        ("the last", Part::Last(3), 10, Ok(7..10)),
        ("more than there are", Part::Last(max), 10, Ok(0..10)),
        ("the last none", Part::Last(0), 10, Err(10)),
        ("the last of an empty file", Part::Last(1), 0, Err(0)),
    ];
    for (name, part, length, want) in cases {
        let want = want.map_err(Refusal::RangeNotSatisfiable);
        assert_eq!(part.within(length), want, "{name}");
    }
}
