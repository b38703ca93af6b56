//! The load of an echo server: connections that each send a message, wait until all of it has come
//! back, and send the next. One thread, one epoll set, and no runtime that is measured.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::unistd::{SysconfVar, sysconf};

use crate::workload::{Result, cpu_time};

/// What to ask of whom.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// The server's process, to say what it takes of the processor meanwhile.
    pub(crate) server: u32,
    pub(crate) connections: usize,
    pub(crate) message_bytes: usize,
    pub(crate) duration: Duration,
}

/// A message on its way.
struct Connection {
    stream: TcpStream,
    message: Vec<u8>,
    sent: usize,
    received: usize,
    begun: Instant,
    number: u64,
}

struct Measured {
    round_trips_ns: Histogram<u64>,
    elapsed: Duration,
    cpu: Duration,
    server_cpu: Duration,
}

/// A server that lets all connections wait for so long is broken.
const PATIENCE_MS: u16 = 5000;
/// What is not counted: the first moments, in which both sides come up to speed.
const WARM_UP_SHARE: u32 = 10;
/// Bytes at the head of a message that tell it from the one before.
const NUMBER_BYTES: usize = 8;

impl Load {
    pub(crate) fn run(&self) -> Result {
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        let mut connections = Vec::with_capacity(self.connections);
        for index in 0..self.connections {
            let connection = Connection::open(self.address, self.message_bytes)?;
            let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            epoll.add(&connection.stream, EpollEvent::new(events, index as u64))?;
            connections.push(connection);
        }
        for connection in &mut connections {
            connection.begin(Instant::now())?;
        }
        let warm_up = self.duration / WARM_UP_SHARE;
        self.exchange(&epoll, &mut connections, warm_up)?;
        self.print(&self.exchange(&epoll, &mut connections, self.duration)?);
        Ok(())
    }

    fn exchange(
        &self,
        epoll: &Epoll,
        connections: &mut [Connection],
        duration: Duration,
    ) -> Result<Measured> {
        let mut round_trips_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        let mut events = vec![EpollEvent::empty(); connections.len()];
        let (cpu, server_cpu, start) = (cpu_time()?, self.server_cpu()?, Instant::now());
        while start.elapsed() < duration {
            let count = epoll.wait(&mut events, PATIENCE_MS)?;
            if count == 0 {
                return Err("the server has answered nobody for 5 s".into());
            }
            for event in &events[..count] {
                let connection = &mut connections[usize::try_from(event.data())?];
                connection.go_on(&mut round_trips_ns)?;
            }
        }
        Ok(Measured {
            round_trips_ns,
            elapsed: start.elapsed(),
            cpu: cpu_time()? - cpu,
            server_cpu: self.server_cpu()? - server_cpu,
        })
    }

    fn print(&self, measured: &Measured) {
        let Measured { round_trips_ns, elapsed, cpu, server_cpu } = measured;
        let us = |quantile| round_trips_ns.value_at_quantile(quantile) as f64 / 1e3;
        let share = |cpu: &Duration| cpu.as_secs_f64() / elapsed.as_secs_f64();
        println!("per_second={:.0}", round_trips_ns.len() as f64 / elapsed.as_secs_f64());
        println!("p50_us={:.1}", us(0.5));
        println!("p999_us={:.1}", us(0.999));
        println!("load_cpu={:.3}", share(cpu));
        println!("server_cpu={:.3}", share(server_cpu));
        let server_us = server_cpu.as_secs_f64() * 1e6;
        println!("server_us_each={:.2}", server_us / round_trips_ns.len() as f64);
    }

    /// What the server has taken of the processor, all of its threads: `utime` and `stime` of
    /// `proc_pid_stat(5)`, the 14th and 15th, counted behind the name's parenthesis.
    fn server_cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.server))?;
        let behind = stat.rsplit_once(") ").ok_or("no name in the server's stat")?.1;
        let ticks: u64 = behind.split(' ').skip(11).take(2).flat_map(str::parse::<u64>).sum();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.ok_or("no clock ticks")?;
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }
}

impl Connection {
    fn open(address: SocketAddr, message_bytes: usize) -> Result<Self> {
        if message_bytes < NUMBER_BYTES {
            return Err("a message has 8 bytes at least".into());
        }
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (message, begun) = (vec![0x5a; message_bytes], Instant::now());
        Ok(Self { stream, message, sent: 0, received: 0, begun, number: 0 })
    }

    fn begin(&mut self, now: Instant) -> io::Result<()> {
        self.number += 1;
        self.message[..NUMBER_BYTES].copy_from_slice(&self.number.to_ne_bytes());
        (self.sent, self.received, self.begun) = (0, 0, now);
        self.send()
    }

    /// Sends and receives as much as can be; begins the next message when one is back.
    fn go_on(&mut self, round_trips_ns: &mut Histogram<u64>) -> Result {
        self.send()?;
        self.receive()?;
        if self.received == self.message.len() {
            if self.message[..NUMBER_BYTES] != self.number.to_ne_bytes() {
                return Err("what came back is not what was sent".into());
            }
            let now = Instant::now();
            round_trips_ns.record((now - self.begun).as_nanos().try_into()?)?;
            self.begin(now)?;
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.message.len() {
            match self.stream.write(&self.message[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        while self.received < self.sent {
            match self.stream.read(&mut self.message[self.received..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => self.received += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
