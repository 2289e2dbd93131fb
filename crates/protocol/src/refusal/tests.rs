use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[test]
fn answers_as_the_table_says() {
    use Reason::*;
    let table = [
        (Method, 405, None, false),
        (BadRequest, 400, Some("http_request_error"), false),
        (HeadTooLarge, 431, Some("http_request_error"), false),
        (HeadTimeout, 408, None, false),
        (Forbidden, 403, Some("http_request_denied"), false),
        (Unauthenticated, 407, Some("http_request_denied"), false),
        (NoAgent, 503, Some("destination_unavailable"), false),
        (Denied, 403, Some("destination_ip_prohibited"), false),
        (Dns, 502, Some("dns_error"), false),
        (Refused, 502, Some("connection_refused"), false),
        (Unreachable, 502, Some("destination_ip_unroutable"), false),
        (DialTimeout, 504, Some("connection_timeout"), false),
        (AgentTimeout, 504, Some("http_response_timeout"), true),
        (AgentLost, 502, Some("connection_terminated"), true),
        (Overload, 503, Some("connection_limit_reached"), true),
        (Loop, 508, Some("proxy_loop_detected"), false),
        (Internal, 500, Some("proxy_internal_error"), false),
    ];
    assert_eq!(table.map(|row| row.0), Reason::ALL);
    for (reason, status, error, retryable) in table {
        assert_eq!(reason.status(), status, "{reason:?}");
        assert_eq!(reason.proxy_error(), error, "{reason:?}");
        assert_eq!(reason.retryable(), retryable, "{reason:?}");
    }
}

#[test]
fn labels_and_phrases_are_distinct_and_plain() {
    let labels: HashSet<_> = Reason::ALL.map(Reason::label).into();
    let phrases: HashSet<_> = Reason::ALL.map(Reason::phrase).into();
    assert_eq!(labels.len(), Reason::ALL.len());
    assert_eq!(phrases.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        assert_eq!(one_line(reason.phrase()), reason.phrase());
    }
}

#[test]
fn proxy_errors_name_their_most_general_reason() {
    for reason in Reason::ALL {
        let general = match reason {
            Reason::HeadTooLarge => Reason::BadRequest,
            Reason::Unauthenticated => Reason::Forbidden,
            other => other,
        };
        if let Some(name) = reason.proxy_error() {
            assert_eq!(Reason::from_proxy_error(name), Some(general));
        }
    }
    assert_eq!(Reason::from_proxy_error("tls_alert_received"), None);
    assert_eq!(Reason::from_proxy_error(""), None);
}

#[test]
fn response_is_what_kube_apiserver_can_show() {
    let refusal = Refusal::new(Reason::Refused, "dial 10.0.0.7:10250: connection refused");
    assert_eq!(
        String::from_utf8(refusal.to_response("proxy-agent")).unwrap(),
        "HTTP/1.1 502 dial 10.0.0.7:10250: connection refused\r\n\
         Proxy-Status: \"proxy-agent\"; error=connection_refused; \
         details=\"dial 10.0.0.7:10250: connection refused\"\r\n\
         Content-Type: text/plain\r\n\
         Content-Length: 53\r\n\
         Connection: close\r\n\
         \r\n\
         proxy-agent: dial 10.0.0.7:10250: connection refused\n"
    );
}

#[test]
fn some_statuses_need_a_header() {
    for reason in Reason::ALL {
        let response = String::from_utf8(Refusal::from(reason).to_response("p")).unwrap();
        let has = |header: &str| response.contains(&format!("\r\n{header}\r\n"));
        assert_eq!(has("Allow: CONNECT"), reason == Reason::Method);
        assert_eq!(has("Retry-After: 1"), reason == Reason::NoAgent);
        assert_eq!(
            has("Proxy-Authenticate: Basic realm=\"towline\""),
            reason == Reason::Unauthenticated
        );
        assert!(has("Connection: close"));
        let first = format!("HTTP/1.1 {} {}\r\n", reason.status(), reason.phrase());
        assert!(response.starts_with(&first), "{response}");
    }
}

#[test]
fn details_stay_on_their_line() {
    let long = "x".repeat(1000);
    for (text, line) in [
        ("", ""),
        (" \r\n\t ", ""),
        ("a\r\nX: y", "a X: y"),
        ("  a  b  ", "a b"),
        ("bücher\0\u{2028}x", "b?cher x"),
        ("quote \" and \\", "quote \" and \\"),
        (&long, &long[..MAX_DETAILS]),
    ] {
        assert_eq!(one_line(text), line, "{text:?}");
    }
    assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
}

proptest! {
    #[test]
    fn response_is_one_well_formed_head(
        index in 0..Reason::ALL.len(),
        details in "\\PC{0,300}|[\r\n\"\\\\ a-z:]{0,40}",
        proxy in "\\PC{0,300}",
    ) {
        let response = Refusal::new(Reason::ALL[index], details).to_response(&proxy);
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = parsed.parse(&response).unwrap().unwrap();
        prop_assert_eq!(parsed.code, Some(Reason::ALL[index].status()));
        prop_assert!(!parsed.reason.unwrap().is_empty());
        prop_assert!(parsed.reason.unwrap().len() <= MAX_DETAILS);
        let expected = 4 + usize::from(!Reason::ALL[index].extra_header().is_empty());
        prop_assert_eq!(parsed.headers.len(), expected);
        let sent = (response.len() - length).to_string();
        let told = parsed.headers.iter().find(|h| h.name == "Content-Length").unwrap();
        prop_assert_eq!(told.value, sent.as_bytes());
    }
}
