//! A framing reader: each frame is a length of 4 bytes, the most significant first, and a body of as
//! many bytes. A length above the maximum is refused before anything is allocated for it.
//!
//! `framing ADDRESS [MAXIMUM]` prints the length of each frame that connections bring, 1 MiB at the
//! most: `printf '\0\0\0\5hello' | nc -N 127.0.0.1 7000`.
//!
//! [`Decoder`] decides and does no I/O: it is fed with the pieces that happen to come. [`read_frames`]
//! gets the pieces.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

use ucp_engine::Proactor;
use ucp_engine::buffer::ReceivePool;
use ucp_engine::operation::Socket;
use ucp_engine::proactor::TaskInitiator;

const LENGTH_BYTES: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (address, length_max) = match arguments.as_slice() {
        [address] => (address, 1 << 20),
        [address, maximum] => (address, maximum.parse()?),
        _ => return Err("usage: framing ADDRESS [MAXIMUM]".into()),
    };
    let address: SocketAddr = address.parse()?;
    let proactor = Proactor::start(&Default::default())?;
    let initiator = proactor.initiator();
    let pool = initiator.receive_pool(64, 16 << 10)?;
    proactor.block_on(async {
        let listener = initiator.listen(address).await?;
        loop {
            let socket = initiator.accept(&listener).await?;
            let show = |frame: Vec<u8>| println!("{} bytes", frame.len());
            if let Err(error) = read_frames(&initiator, &socket, &pool, length_max, show).await {
                eprintln!("framing: {error}");
            }
        }
    })
}

/// Gives each frame that a connection brings to `on_frame`, until the stream ends between two frames.
///
/// # Errors
///
/// [`FrameError`], or what receiving fails with. The frames before were given.
pub fn read_frames(
    initiator: &TaskInitiator,
    socket: &Socket,
    pool: &ReceivePool,
    length_max: u32,
    mut on_frame: impl FnMut(Vec<u8>),
) -> impl Future<Output = Result<(), Box<dyn Error>>> {
    let mut pieces = initiator.receive_many(socket, pool);
    async move {
        let mut decoder = Decoder::new(length_max);
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            let mut rest = &piece[..];
            while let Some(frame) = decoder.take_frame(&mut rest)? {
                on_frame(frame);
            }
        }
        Ok(decoder.finish()?)
    }
}

/// Puts frames together from the pieces that a stream comes in.
#[derive(Debug)]
pub struct Decoder {
    length_max: u32,
    state: State,
}

/// Which part of a frame is being read.
#[derive(Debug)]
enum State {
    Length { bytes: [u8; LENGTH_BYTES], filled: usize },
    Body { bytes: Vec<u8>, length: usize },
}

/// Why a stream is no stream of frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameError {
    /// A frame is longer than it may be.
    TooLong {
        /// The bytes of its body.
        length: u32,
        /// The most that are allowed.
        length_max: u32,
    },
    /// The stream ended inside of a frame.
    Torn,
}

impl Decoder {
    /// Frames of at most `length_max` bytes, their lengths' own not counted.
    #[must_use]
    pub fn new(length_max: u32) -> Self {
        Self { length_max, state: State::start() }
    }

    /// Takes bytes from `rest`, up to the end of a frame; none if all of them were taken before that.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`]. There is no way to go on from there.
    pub fn take_frame(&mut self, rest: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        if let State::Length { bytes, filled } = &mut self.state {
            let taken = take(rest, LENGTH_BYTES - *filled);
            bytes[*filled..][..taken.len()].copy_from_slice(taken);
            *filled += taken.len();
            if *filled < LENGTH_BYTES {
                return Ok(None);
            }
            let (length, length_max) = (u32::from_be_bytes(*bytes), self.length_max);
            if length > length_max {
                return Err(FrameError::TooLong { length, length_max });
            }
            let length = length as usize;
            self.state = State::Body { bytes: Vec::with_capacity(length), length };
        }
        let State::Body { bytes, length } = &mut self.state else { return Ok(None) };
        bytes.extend_from_slice(take(rest, *length - bytes.len()));
        if bytes.len() < *length {
            return Ok(None);
        }
        let frame = std::mem::take(bytes);
        self.state = State::start();
        Ok(Some(frame))
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    ///
    /// [`FrameError::Torn`] if a frame has begun.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.state {
            State::Length { filled: 0, .. } => Ok(()),
            _ => Err(FrameError::Torn),
        }
    }
}

impl State {
    const fn start() -> Self {
        Self::Length { bytes: [0; LENGTH_BYTES], filled: 0 }
    }
}

/// Takes up to `count` bytes from the front.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, behind) = rest.split_at(count.min(rest.len()));
    *rest = behind;
    taken
}

impl Error for FrameError {}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length, length_max } => {
                write!(f, "a frame of {length} bytes is longer than {length_max}")
            }
            Self::Torn => f.write_str("the stream ended inside of a frame"),
        }
    }
}
