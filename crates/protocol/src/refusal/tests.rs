use std::collections::HashSet;

use super::*;

#[test]
fn answers_as_the_table_says() {
    use Reason::*;
    let table = [
        (Method, None, false),
        (BadRequest, Some("http_request_error"), false),
        (HeadTooLarge, Some("http_request_error"), false),
        (HeadTimeout, None, false),
        (Forbidden, Some("http_request_denied"), false),
        (Unauthenticated, Some("http_request_denied"), false),
        (NoAgent, Some("destination_unavailable"), false),
        (Denied, Some("destination_ip_prohibited"), false),
        (Dns, Some("dns_error"), false),
        (Refused, Some("connection_refused"), false),
        (Unreachable, Some("destination_ip_unroutable"), false),
        (DialTimeout, Some("connection_timeout"), false),
        (AgentTimeout, Some("http_response_timeout"), true),
        (AgentLost, Some("connection_terminated"), true),
        (Overload, Some("connection_limit_reached"), true),
        (Loop, Some("proxy_loop_detected"), false),
        (Internal, Some("proxy_internal_error"), false),
    ];
    assert_eq!(table.map(|row| row.0), Reason::ALL);
    for (reason, error, retryable) in table {
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
}
