//! What a client asks for: the head of a request, taken apart without any I/O.
//!
//! (RFC 9110 for what it means, RFC 9112 for how it is written.)

use std::ops::Range;

/// The longest head of a request, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// A request for a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Request {
    /// The file's name below the root, decoded. Nobody has looked where it leads: the kernel does.
    pub(crate) name: Vec<u8>,
    /// Whether the file itself is wanted, and not only the head of the answer.
    pub(crate) wants_body: bool,
    /// Which part of the file, if not all of it.
    pub(crate) part: Option<Part>,
    /// Whether the connection stays for another request.
    pub(crate) is_kept: bool,
}

/// A part of a file whose length is not known yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// From a byte to another, both included, or to the end.
    From(u64, Option<u64>),
    /// So many bytes at the end.
    Last(u64),
}

/// The status of an answer that has no file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    BadRequest,
    NotFound,
    MethodNotAllowed,
    /// The part begins behind the end of a file of so many bytes.
    RangeNotSatisfiable(u64),
    HeadTooLong,
    InternalError,
    Unavailable,
    VersionNotSupported,
}

/// Takes a request from the front of what has come, with the bytes that its head takes; none if the
/// head is not complete yet.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLong),
        Err(httparse::Error::Version) => return Err(Refusal::VersionNotSupported),
        Err(_) => return Err(Refusal::BadRequest),
    };
    let header = |name| value_of(head.headers, name);
    let wants_body = match head.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Err(Refusal::MethodNotAllowed),
    };
    // A body that nobody reads would be taken for the next request.
    let has_body = header("content-length").is_some_and(|length| length != b"0")
        || header("transfer-encoding").is_some();
    let is_new = head.version == Some(1);
    let hosts = head.headers.iter().filter(|it| it.name.eq_ignore_ascii_case("host")).count();
    if has_body || hosts > 1 || (is_new && hosts == 0) {
        return Err(Refusal::BadRequest);
    }
    let connection = header("connection").unwrap_or_default().to_ascii_lowercase();
    let says = |word: &str| {
        connection.split(|byte| *byte == b',').any(|it| it.trim_ascii() == word.as_bytes())
    };
    // The condition of If-Range never holds: the answers have no validator that it could repeat.
    let part = header("range").filter(|_| wants_body && header("if-range").is_none());
    let request = Request {
        name: name_of(head.path.unwrap_or_default()).ok_or(Refusal::BadRequest)?,
        wants_body,
        part: part.and_then(part_of),
        is_kept: if is_new { !says("close") } else { says("keep-alive") },
    };
    Ok(Some((request, length)))
}

fn value_of<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(header.value.trim_ascii())
}

/// The name that a target asks for; none if it is not a path, or can't be decoded.
fn name_of(target: &str) -> Option<Vec<u8>> {
    // A client may send what it would send to a proxy.
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |start| &rest[start..]),
        None => target,
    };
    let path = target.strip_prefix('/')?.split(['?', '#']).next()?;
    let mut name = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            byte => byte,
        });
    }
    if name.is_empty() || name.ends_with(b"/") {
        name.extend_from_slice(b"index.html");
    }
    Some(name)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The one part that a Range header asks for. None, and the whole file, if it asks for several, or
/// for what is no range of bytes.
fn part_of(value: &[u8]) -> Option<Part> {
    let (first, last) = std::str::from_utf8(value).ok()?.strip_prefix("bytes=")?.split_once('-')?;
    match (number(first)?, number(last)?) {
        (None, None) => None,
        (None, Some(length)) => Some(Part::Last(length)),
        (Some(first), Some(last)) if last < first => None,
        (Some(first), last) => Some(Part::From(first, last)),
    }
}

/// A number, or nothing where nothing is written.
fn number(text: &str) -> Option<Option<u64>> {
    match text {
        "" => Some(None),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok().map(Some),
        _ => None,
    }
}

impl Part {
    /// Which bytes of a file of `length` bytes it is.
    pub(crate) fn within(self, length: u64) -> Result<Range<u64>, Refusal> {
        match self {
            Self::From(first, last) if first < length => {
                Ok(first..last.map_or(length, |last| length.min(last.saturating_add(1))))
            }
            Self::Last(count @ 1..) if length > 0 => Ok(length.saturating_sub(count)..length),
            _ => Err(Refusal::RangeNotSatisfiable(length)),
        }
    }
}
