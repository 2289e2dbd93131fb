//! The HTTP/1.1 heads of a tunnel stream, read and written: the request that asks for a tunnel
//! and the answer to it. Clients' CONNECT heads are read by the same function.
//!
//! Reading is pure and repeatable: given all bytes so far, it returns nothing, an error, or
//! what the head means and where the payload behind it starts.

use std::{net::SocketAddr, str, time::Duration};

use httparse::{EMPTY_HEADER, Error as SyntaxError, Header, Status};
use thiserror::Error;

use crate::ask::Ask;
use crate::refusal::{self, Reason, Refusal};
use crate::target::TargetError;

mod refused;

pub use refused::refusal_response;
use refused::wire_status;

/// Longest head in bytes, its empty line included.
pub const MAX_HEAD: usize = 16 * 1024;

/// Most header lines in a head.
pub const MAX_HEADERS: usize = 64;

/// Longest deadline a head carries; a longer one is read and written as this, so that its sum
/// with a clock stays in range.
pub const MAX_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest `Forwarded` value in bytes, so that a head that was read can be passed on with
/// something added and still fits; a longer one is left out.
pub const MAX_FORWARDED: usize = 1024;

/// Longest `Traceparent` value in bytes (version 00 has 55); a longer one is left out.
const MAX_TRACEPARENT: usize = 128;

/// The head that asks for a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// What the tunnel is to lead to; the `Host` header is not compared with it, as
    /// kube-apiserver's never matches.
    pub ask: Ask,
    /// How long the asking side waits for an answer, in whole milliseconds.
    pub deadline: Option<Duration>,
    /// The value of `Forwarded` (RFC 7239): the client, printable ASCII. See [`forwarded_for`].
    pub forwarded: Option<String>,
    /// The value of `Traceparent` (W3C Trace Context), printable ASCII, passed through unread.
    pub traceparent: Option<String>,
}

/// The answer to a [`RequestHead`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Payload follows in both directions.
    Accepted,
    /// There is no tunnel; the body that may follow is not read.
    Refused(Refusal),
}

/// Why bytes are not a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The method is not CONNECT.
    #[error("only CONNECT is served here")]
    Method,
    /// The head is longer than [`MAX_HEAD`] or has more than [`MAX_HEADERS`] lines.
    #[error("head has more than {MAX_HEAD} bytes or {MAX_HEADERS} header lines")]
    TooLarge,
    /// The bytes are not HTTP/1; the text says what is wrong.
    #[error("head cannot be read: {0}")]
    Malformed(&'static str),
    /// The request target is not in authority form.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// `Towline-Deadline-Ms` is not one decimal number.
    #[error("deadline is not a number of milliseconds")]
    Deadline,
}

/// Reads a request head from the bytes read so far: nothing when it is not complete, else the
/// request and the length of its head; what lies behind it is payload.
///
/// HTTP/1.0 and 1.1, any `Host`, line feeds without carriage returns and empty lines in front are
/// accepted. More bytes never change an answer or an error.
///
/// # Errors
/// See [`HeadError`]; its [`Refusal`] is what to answer.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let bytes = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let Some(length) = complete(parsed.parse(bytes), bytes.len())? else {
        return Ok(None);
    };
    if parsed.method != Some("CONNECT") {
        return Err(HeadError::Method);
    }
    let request = RequestHead {
        ask: Ask::parse(parsed.path.unwrap_or_default())?,
        deadline: deadline(parsed.headers)?,
        forwarded: forwarded(parsed.headers),
        traceparent: traceparent(parsed.headers),
    };
    Ok(Some((request, length)))
}

/// Reads an answer head from the bytes read so far: nothing when it is not complete, else the
/// answer and the length of its head; what lies behind an acceptance is payload.
///
/// Any 2xx accepts, and its headers are ignored: an agent of the legacy dialect sends `Date` and
/// `Transfer-Encoding`. The reason of a refusal is its Proxy-Status error, or without one its
/// status. More bytes never change an answer or an error.
///
/// # Errors
/// See [`HeadError`]; an interim answer (1xx) is malformed.
pub fn parse_answer(bytes: &[u8]) -> Result<Option<(Answer, usize)>, HeadError> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let bytes = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let Some(length) = complete(parsed.parse(bytes), bytes.len())? else {
        return Ok(None);
    };
    let answer = match parsed.code.unwrap_or_default() {
        200..=299 => Answer::Accepted,
        status @ 300..=599 => {
            let phrase = parsed.reason.unwrap_or_default();
            Answer::Refused(refusal(status, phrase, parsed.headers))
        }
        _ => return Err(HeadError::Malformed("status is not final")),
    };
    Ok(Some((answer, length)))
}

/// The `Forwarded` value for a client at this address (RFC 7239 §6).
#[must_use]
pub fn forwarded_for(client: SocketAddr) -> String {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    format!("for=\"{client}\"")
}

// === impl RequestHead ===

impl RequestHead {
    /// A request for this tunnel, and no more.
    #[must_use]
    pub const fn new(ask: Ask) -> Self {
        Self {
            ask,
            deadline: None,
            forwarded: None,
            traceparent: None,
        }
    }

    /// The head to send, far shorter than [`MAX_HEAD`]. A value that no header may carry is left
    /// out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let target = self.ask.to_string();
        let mut head = String::with_capacity(256);
        for part in ["CONNECT ", &target, " HTTP/1.1\r\nHost: ", &target, "\r\n"] {
            head.push_str(part);
        }
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        if let Some(deadline) = self.deadline {
            let millis = deadline.min(MAX_DEADLINE).as_millis();
            field("Towline-Deadline-Ms", &millis.to_string());
        }
        let forwarded = self.forwarded.as_deref();
        if let Some(value) = forwarded.filter(|value| is_value(value, MAX_FORWARDED)) {
            field("Forwarded", value);
        }
        let traceparent = self.traceparent.as_deref();
        if let Some(value) = traceparent.filter(|value| is_value(value, MAX_TRACEPARENT)) {
            field("Traceparent", value);
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

// === impl Answer ===

impl Answer {
    /// The head that accepts; a refusal's is [`Answer::refused`].
    pub const ACCEPTED: &'static [u8] = b"HTTP/1.1 200 OK\r\n\r\n";
}

// === impl HeadError ===

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        let reason = match error {
            HeadError::Method => Reason::Method,
            HeadError::TooLarge => Reason::HeadTooLarge,
            HeadError::Malformed(_) | HeadError::Target(_) | HeadError::Deadline => {
                Reason::BadRequest
            }
        };
        Self::new(reason, error.to_string())
    }
}

/// The length of a complete head; `read` is how many bytes were looked at.
fn complete(parsed: httparse::Result<usize>, read: usize) -> Result<Option<usize>, HeadError> {
    match parsed {
        Ok(Status::Complete(length)) => Ok(Some(length)),
        Ok(Status::Partial) if read < MAX_HEAD => Ok(None),
        Ok(Status::Partial) | Err(SyntaxError::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(SyntaxError::HeaderName) => Err(HeadError::Malformed("bad header name")),
        Err(SyntaxError::HeaderValue) => Err(HeadError::Malformed("bad header value")),
        Err(SyntaxError::NewLine) => Err(HeadError::Malformed("bad line end")),
        Err(SyntaxError::Status) => Err(HeadError::Malformed("bad status line")),
        Err(SyntaxError::Token) => Err(HeadError::Malformed("bad request line")),
        Err(SyntaxError::Version) => Err(HeadError::Malformed("not HTTP/1.0 or HTTP/1.1")),
    }
}

fn deadline(headers: &[Header<'_>]) -> Result<Option<Duration>, HeadError> {
    let mut values = values(headers, "Towline-Deadline-Ms");
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    if !digits || values.next().is_some() {
        return Err(HeadError::Deadline);
    }
    // Digits that do not fit are a number as well, and a long one.
    let millis = str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok());
    let deadline = Duration::from_millis(millis.unwrap_or(u64::MAX));
    Ok(Some(deadline.min(MAX_DEADLINE)))
}

/// All `Forwarded` lines as the one list that they are (RFC 9110 §5.2).
fn forwarded(headers: &[Header<'_>]) -> Option<String> {
    let values: Result<Vec<&str>, _> = values(headers, "Forwarded").map(str::from_utf8).collect();
    let value = values.ok()?.join(", ");
    is_value(&value, MAX_FORWARDED).then_some(value)
}

fn traceparent(headers: &[Header<'_>]) -> Option<String> {
    let value = str::from_utf8(values(headers, "Traceparent").next()?).ok()?;
    is_value(value, MAX_TRACEPARENT).then(|| value.to_owned())
}

fn values<'h>(headers: &'h [Header<'_>], name: &'h str) -> impl Iterator<Item = &'h [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

/// Whether a header can carry this text and brings it back unchanged.
fn is_value(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && !text.starts_with(' ')
        && !text.ends_with(' ')
}

/// What a final answer other than 2xx means.
fn refusal(status: u16, phrase: &str, headers: &[Header<'_>]) -> Refusal {
    match values(headers, "Proxy-Status").find_map(proxy_error) {
        Some(error) => {
            let exact = |reason: &Reason| {
                wire_status(*reason) == status && reason.proxy_error() == Some(error)
            };
            let reason = Reason::ALL.into_iter().find(exact);
            let reason = reason.or_else(|| Reason::from_proxy_error(error));
            let reason = reason.unwrap_or_else(|| legacy_reason(status));
            Refusal::new(reason, refusal::one_line(phrase))
        }
        None => {
            let details = format!("agent answered {status} {phrase}");
            Refusal::new(legacy_reason(status), refusal::one_line(&details))
        }
    }
}

/// The first `error` parameter in a Proxy-Status value (RFC 9209 §2.1.1), outside of strings.
fn proxy_error(value: &[u8]) -> Option<&str> {
    let (mut in_string, mut escaped) = (false, false);
    let ends_parameter = |char: char| {
        let was_escaped = std::mem::take(&mut escaped);
        match char {
            '\\' if in_string => escaped = !was_escaped,
            '"' if !was_escaped => in_string = !in_string,
            _ => {}
        }
        !in_string && matches!(char, ';' | ',')
    };
    let mut parameters = str::from_utf8(value).ok()?.split(ends_parameter);
    parameters.find_map(|parameter| parameter.trim().strip_prefix("error="))
}

/// The reason that a status alone stands for. A Go agent answers 400 to every failure of a dial.
const fn legacy_reason(status: u16) -> Reason {
    match status {
        400 | 502 => Reason::Refused,
        403 => Reason::Denied,
        429 | 503 => Reason::Overload,
        504 => Reason::DialTimeout,
        _ => Reason::Internal,
    }
}

#[cfg(test)]
mod tests;
