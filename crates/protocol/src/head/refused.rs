//! The head that refuses a tunnel.

use crate::head::Answer;
use crate::refusal::{self, Reason, Refusal};

// === impl Answer ===

impl Answer {
    /// The whole answer of an agent that refuses a tunnel, to be followed by the end of the stream.
    /// `proxy` is the name of the program.
    #[must_use]
    pub fn refused(refusal: &Refusal, proxy: &str) -> Vec<u8> {
        // A server of the legacy dialect passes the answer on, and RFC 9110 §15.5.6 asks for it.
        let headers = match refusal.reason {
            Reason::Method => "Allow: CONNECT\r\n",
            _ => "",
        };
        refusal_response(wire_status(refusal.reason), headers, refusal, proxy)
    }
}

/// The status of an agent's answer. A server of the legacy dialect passes the answer on to its
/// client as it is; our server reads the Proxy-Status error, and the status only to tell reasons
/// apart that share one.
#[must_use]
pub(super) const fn wire_status(reason: Reason) -> u16 {
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

/// An HTTP/1.1 answer with this status that says why there is no tunnel.
///
/// The status line carries the details, because kube-apiserver shows its user nothing else.
/// `proxy` names the program that refuses; what is not printable ASCII in it or in the details is
/// replaced, and both are cut at [`refusal::MAX_DETAILS`] bytes. `headers` are further header
/// lines, each with its line end.
#[must_use]
pub fn refusal_response(status: u16, headers: &str, refusal: &Refusal, proxy: &str) -> Vec<u8> {
    let details = match refusal::one_line(&refusal.details) {
        line if line.is_empty() => refusal.reason.phrase().into(),
        line => line,
    };
    let proxy = refusal::one_line(proxy);
    let error = match refusal.reason.proxy_error() {
        Some(name) => format!("error={name}; "),
        None => String::new(),
    };
    let body = format!("{proxy}: {details}\n");
    format!(
        "HTTP/1.1 {status} {details}\r\n\
         Proxy-Status: {quoted_proxy}; {error}details={quoted_details}\r\n\
         {headers}\
         Content-Type: text/plain\r\n\
         Content-Length: {length}\r\n\
         Connection: close\r\n\
         \r\n\
         {body}",
        quoted_proxy = quoted(&proxy),
        quoted_details = quoted(&details),
        length = body.len(),
    )
    .into_bytes()
}

/// A string of RFC 9651 §3.3.3; `line` is printable ASCII already.
fn quoted(line: &str) -> String {
    format!("\"{}\"", line.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::refusal::MAX_DETAILS;

    #[test]
    fn the_answer_is_what_kube_apiserver_can_show() {
        let refusal = Refusal::new(Reason::Refused, "dial 10.0.0.7:10250: connection refused");
        assert_eq!(
            String::from_utf8(Answer::refused(&refusal, "proxy-agent")).unwrap(),
            "HTTP/1.1 502 dial 10.0.0.7:10250: connection refused\r\n\
             Proxy-Status: \"proxy-agent\"; error=connection_refused; \
             details=\"dial 10.0.0.7:10250: connection refused\"\r\n\
             Content-Type: text/plain\r\n\
             Content-Length: 53\r\n\
             Connection: close\r\n\
             \r\n\
             proxy-agent: dial 10.0.0.7:10250: connection refused\n"
        );
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
    }

    #[test]
    fn the_answer_to_another_method_names_the_allowed_one() {
        for reason in Reason::ALL {
            let answer = String::from_utf8(Answer::refused(&reason.into(), "a")).unwrap();
            let allow = answer.contains("\r\nAllow: CONNECT\r\n");
            assert_eq!(allow, reason == Reason::Method, "{answer}");
        }
    }

    #[test]
    fn statuses_are_those_of_the_specification() {
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
        for (reason, status) in table {
            assert_eq!(wire_status(reason), status, "{reason:?}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_one_well_formed_head(
            index in 0..Reason::ALL.len(),
            details in "\\PC{0,300}|[\r\n\"\\\\ a-z:]{0,40}",
            proxy in "\\PC{0,300}",
        ) {
            let refusal = Refusal::new(Reason::ALL[index], details);
            let response = refusal_response(499, "X: y\r\n", &refusal, &proxy);
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut parsed = httparse::Response::new(&mut headers);
            let length = parsed.parse(&response).unwrap().unwrap();
            prop_assert_eq!(parsed.code, Some(499));
            prop_assert!(!parsed.reason.unwrap().is_empty());
            prop_assert!(parsed.reason.unwrap().len() <= MAX_DETAILS);
            prop_assert_eq!(parsed.headers.len(), 5);
            let sent = (response.len() - length).to_string();
            let told = parsed.headers.iter().find(|h| h.name == "Content-Length").unwrap();
            prop_assert_eq!(told.value, sent.as_bytes());
        }
    }
}
