//! Request heads.

use super::HEADERS_MAX;
use std::io;

/// A request with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query as they were sent.
    pub(crate) target: String,
    /// Whether the client wants the connection to end with the answer.
    pub(crate) close: bool,
    pub(crate) expects_continue: bool,
    pub(crate) accept: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) bearer: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
}

/// Why a request could not be read. The connection ends in every case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("request head above {} bytes", super::HEAD_MAX_BYTES)]
    HeadTooLarge,
    #[error("request body above {} bytes", super::BODY_MAX_BYTES)]
    BodyTooLarge,
    #[error("the client left in the middle of a request")]
    Truncated,
    #[error("malformed {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Parses a head, if `bytes` hold all of it: the request without its body, the body's framing, the head's size.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(Request, Framing, usize)>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let head_bytes = match parsed.parse(bytes).map_err(|_| RequestError::Malformed("request head"))? {
        httparse::Status::Complete(head_bytes) => head_bytes,
        httparse::Status::Partial => return Ok(None),
    };
    let header = |name: &str| {
        let found = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(found.value).ok().map(str::trim)
    };
    let is = |name: &str, wanted: &str| header(name).is_some_and(|value| value.eq_ignore_ascii_case(wanted));
    let framing = match header("content-length") {
        _ if is("transfer-encoding", "chunked") => Framing::Chunked,
        Some(length) => Framing::Length(length.parse().map_err(|_| RequestError::Malformed("content-length"))?),
        None => Framing::Length(0),
    };
    let owned = |name: &str| header(name).map(str::to_owned);
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        close: is("connection", "close") || parsed.version == Some(0),
        expects_continue: is("expect", "100-continue"),
        accept: owned("accept"),
        content_type: owned("content-type"),
        bearer: header("authorization").and_then(|value| value.strip_prefix("Bearer ")).map(|token| token.trim().to_owned()),
        body: Vec::new(),
    };
    Ok(Some((request, framing, head_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_only_when_it_is_whole() {
        let text =
            b"POST /api/v1/pods?x=1 HTTP/1.1\r\nHost: a\r\nauthorization: Bearer t \r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        assert!(parse_head(&text[..40]).unwrap().is_none());
        let (request, framing, bytes) = parse_head(text).unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/api/v1/pods?x=1"));
        assert_eq!((request.bearer.as_deref(), request.close), (Some("t"), true));
        assert_eq!((framing, &text[bytes..]), (Framing::Length(5), b"hello".as_slice()));
        assert!(matches!(parse_head(b"\0\0 nonsense\r\n\r\n"), Err(RequestError::Malformed(_))));
        assert!(matches!(parse_head(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), Err(RequestError::Malformed(_))));
    }
}
