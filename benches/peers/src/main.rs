//! One contestant of `benches/runtimes` at one task, or the load of an echo server.
//!
//! Each is a process of its own, so that none inherits another's heap, threads or rings. What came of
//! it is printed as `name=value` lines. Who pins it to a core is the caller.

mod contestant;
mod load;
mod workload;

use std::error::Error;
use std::time::Duration;

use contestant::{compio, engine, glommio, monoio, raw, threads, tokio_uring};
use workload::{Reading, Result};

const USAGE: &str = "usage: ucp-peers CONTESTANT read FILE DEPTH direct|cached SECONDS
       ucp-peers CONTESTANT nop SECONDS
       ucp-peers CONTESTANT echo                    (until its standard input ends)
       ucp-peers load ADDRESS SERVER_PID CONNECTIONS BYTES SECONDS";

fn main() -> Result {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["load", address, server, connections, bytes, seconds] => {
            let load = load::Load {
                address: address.parse()?,
                server: server.parse()?,
                connections: connections.parse()?,
                message_bytes: bytes.parse()?,
                duration: duration(seconds)?,
            };
            load.run()
        }
        [contestant, "read", file, depth, cache, seconds] => {
            let is_direct = match *cache {
                "direct" => true,
                "cached" => false,
                _ => return Err(USAGE.into()),
            };
            let reading = Reading::open(file, depth.parse()?, is_direct, duration(seconds)?)?;
            read(contestant, reading)
        }
        [contestant, "nop", seconds] => nop(contestant, duration(seconds)?),
        [contestant, "echo"] => echo(contestant),
        _ => Err(USAGE.into()),
    }
}

fn read(contestant: &str, reading: Reading) -> Result {
    match contestant {
        "engine-wait" => engine::wait::read(reading),
        "engine-handler" => engine::handler::read(reading),
        "engine-future" => engine::future::read(reading),
        "compio" => compio::read(reading),
        "glommio" => glommio::read(reading),
        "monoio" => monoio::read(reading),
        "raw" => raw::read(reading),
        "threads" => threads::read(reading),
        "tokio-uring" => tokio_uring::read(reading),
        _ => Err(unknown(contestant, "read")),
    }
}

fn nop(contestant: &str, duration: Duration) -> Result {
    match contestant {
        "engine-wait" => engine::wait::nop(duration),
        "engine-handler" => engine::handler::nop(duration),
        "engine-future" => engine::future::nop(duration),
        "raw" => raw::nop(duration),
        "tokio-uring" => tokio_uring::nop(duration),
        _ => Err(unknown(contestant, "nop")),
    }
}

fn echo(contestant: &str) -> Result {
    match contestant {
        "compio" => compio::echo(workload::listen()?),
        "engine-handler" => engine::echo::by_handler(),
        "engine-future" => engine::echo::by_future(),
        "glommio" => glommio::echo(),
        "monoio" => monoio::echo(workload::listen()?),
        "threads" => threads::echo(workload::listen()?),
        "tokio-uring" => tokio_uring::echo(workload::listen()?),
        _ => Err(unknown(contestant, "echo")),
    }
}

fn unknown(contestant: &str, task: &str) -> Box<dyn Error> {
    format!("no contestant {contestant} at {task}").into()
}

fn duration(seconds: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(seconds.parse()?)?)
}
