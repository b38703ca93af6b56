//! The head of an answer, as bytes.

use std::ops::Range;

use super::request::Refusal;

/// The longest head of an answer, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 256;

/// The head in front of a file, or of the part of it in `range`.
pub(crate) fn head_of_file(
    name: &[u8],
    range: &Range<u64>,
    file_bytes: u64,
    is_part: bool,
    is_kept: bool,
) -> String {
    let status = if is_part { "206 Partial Content" } else { "200 OK" };
    let content_range = match is_part {
        true => format!("Content-Range: bytes {}-{}/{file_bytes}\r\n", range.start, range.end - 1),
        false => String::new(),
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{content_range}\
         Accept-Ranges: bytes\r\nConnection: {}\r\n\r\n",
        media_type(name),
        range.end - range.start,
        connection(is_kept),
    )
}

/// A whole answer that has no file: its body repeats the status, unless only the head is wanted.
pub(crate) fn refusal(refusal: Refusal, wants_body: bool, is_kept: bool) -> String {
    let status = match refusal {
        Refusal::BadRequest => "400 Bad Request",
        Refusal::NotFound => "404 Not Found",
        Refusal::MethodNotAllowed => "405 Method Not Allowed",
        Refusal::RangeNotSatisfiable(_) => "416 Range Not Satisfiable",
        Refusal::HeadTooLong => "431 Request Header Fields Too Large",
        Refusal::InternalError => "500 Internal Server Error",
        Refusal::Unavailable => "503 Service Unavailable",
        Refusal::VersionNotSupported => "505 HTTP Version Not Supported",
    };
    let extra = match refusal {
        Refusal::MethodNotAllowed => "Allow: GET, HEAD\r\n".into(),
        Refusal::RangeNotSatisfiable(length) => format!("Content-Range: bytes */{length}\r\n"),
        _ => String::new(),
    };
    let body = if wants_body { format!("{status}\n") } else { String::new() };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{extra}\
         Connection: {}\r\n\r\n{body}",
        status.len() + 1,
        connection(is_kept),
    )
}

const fn connection(is_kept: bool) -> &'static str {
    if is_kept { "keep-alive" } else { "close" }
}

fn media_type(name: &[u8]) -> &'static str {
    match name.rsplit(|byte| *byte == b'.').next() {
        Some(b"html" | b"htm") => "text/html; charset=utf-8",
        Some(b"css") => "text/css; charset=utf-8",
        Some(b"js") => "text/javascript; charset=utf-8",
        Some(b"txt") => "text/plain; charset=utf-8",
        Some(b"json") => "application/json",
        Some(b"png") => "image/png",
        Some(b"jpg" | b"jpeg") => "image/jpeg",
        Some(b"svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
