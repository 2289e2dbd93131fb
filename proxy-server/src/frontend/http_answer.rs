//! What an HTTP client sees of a refusal: its status and the headers that the status requires.
//!
//! The table may differ from that of agents' answers on the wire, which legacy servers pass on.

use towline_protocol::head::refusal_response;
use towline_protocol::refusal::{Reason, Refusal};

/// Seconds after which a client may try again when no agent is connected: agents redial sooner.
const RETRY_AFTER_SECS: u32 = 1;

/// The HTTP status that answers a CONNECT, and that the access log shows.
pub(super) const fn status(reason: Reason) -> u16 {
    match reason {
        Reason::Method => 405,
        Reason::BadRequest => 400,
        Reason::HeadTooLarge => 431,
        Reason::HeadTimeout => 408,
        Reason::Forbidden | Reason::Denied => 403,
        Reason::Unauthenticated => 407,
        Reason::NoAgent | Reason::Overload => 503,
        Reason::Dns | Reason::Refused | Reason::Unreachable | Reason::AgentLost => 502,
        Reason::DialTimeout | Reason::AgentTimeout => 504,
        Reason::Loop => 508,
        Reason::Internal => 500,
    }
}

/// The whole answer, to be followed by the end of the connection.
pub(super) fn response(refusal: &Refusal) -> Vec<u8> {
    let headers = match refusal.reason {
        // RFC 9110 §15.5.6 and §15.5.8 require these two.
        Reason::Method => "Allow: CONNECT\r\n".to_owned(),
        Reason::Unauthenticated => "Proxy-Authenticate: Basic realm=\"towline\"\r\n".to_owned(),
        Reason::NoAgent => format!("Retry-After: {RETRY_AFTER_SECS}\r\n"),
        Reason::BadRequest
        | Reason::HeadTooLarge
        | Reason::HeadTimeout
        | Reason::Forbidden
        | Reason::Denied
        | Reason::Dns
        | Reason::Refused
        | Reason::Unreachable
        | Reason::DialTimeout
        | Reason::AgentTimeout
        | Reason::AgentLost
        | Reason::Overload
        | Reason::Loop
        | Reason::Internal => String::new(),
    };
    refusal_response(status(refusal.reason), &headers, refusal, "proxy-server")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_status_and_headers() {
        use Reason::*;
        let table = [
            (Method, 405),
            (BadRequest, 400),
            (HeadTooLarge, 431),
            (HeadTimeout, 408),
            (Forbidden, 403),
            (Unauthenticated, 407),
            (NoAgent, 503),
            (Denied, 403),
            (Dns, 502),
            (Refused, 502),
            (Unreachable, 502),
            (DialTimeout, 504),
            (AgentTimeout, 504),
            (AgentLost, 502),
            (Overload, 503),
            (Loop, 508),
            (Internal, 500),
        ];
        assert_eq!(table.map(|row| row.0), Reason::ALL);
        for (reason, expected) in table {
            let answer = String::from_utf8(response(&reason.into())).unwrap();
            let has = |header: &str| answer.contains(&format!("\r\n{header}\r\n"));
            let first = format!("HTTP/1.1 {expected} {}\r\n", reason.phrase());
            assert!(answer.starts_with(&first), "{answer}");
            assert!(has("Connection: close"));
            assert_eq!(has("Allow: CONNECT"), reason == Method);
            assert_eq!(has("Retry-After: 1"), reason == NoAgent);
            assert_eq!(
                has("Proxy-Authenticate: Basic realm=\"towline\""),
                reason == Unauthenticated
            );
        }
    }
}
