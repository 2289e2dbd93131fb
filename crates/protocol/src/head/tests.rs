//! Tests of heads, beside the module because they are longer than it.

use std::fmt::Debug;

use proptest::prelude::*;

use super::*;

type Parsed<T> = Result<Option<(T, usize)>, HeadError>;

fn target(text: &str) -> Ask {
    Ask::Connect(text.parse().unwrap())
}

fn ask(head: &str) -> RequestHead {
    let (request, length) = parse_request(head.as_bytes()).unwrap().unwrap();
    assert_eq!(length, head.len());
    request
}

fn refused(head: &str) -> Refusal {
    match parse_answer(head.as_bytes()).unwrap().unwrap() {
        (Answer::Refused(refusal), length) => {
            assert_eq!(length, head.len());
            refusal
        }
        (Answer::Accepted, _) => panic!("accepted: {head}"),
    }
}

/// Feeds the bytes in growing prefixes: nothing, until the answer that the whole has too.
fn whole_or_nothing<T: PartialEq + Debug>(bytes: &[u8], parse: impl Fn(&[u8]) -> Parsed<T>) {
    let whole = parse(bytes);
    let mut silent = true;
    for length in 0..bytes.len() {
        let part = parse(&bytes[..length]);
        silent &= part == Ok(None);
        assert!(
            silent || part == whole,
            "{part:?} of {length} bytes, then {whole:?}"
        );
    }
}

fn example() -> RequestHead {
    RequestHead {
        ask: target("[fd00::10]:443"),
        deadline: Some(Duration::from_millis(9800)),
        forwarded: Some(forwarded_for("192.0.2.1:4711".parse().unwrap())),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    }
}

#[test]
fn request_is_written_as_specified() {
    assert_eq!(
        String::from_utf8(example().encode()).unwrap(),
        "CONNECT [fd00::10]:443 HTTP/1.1\r\n\
         Host: [fd00::10]:443\r\n\
         Towline-Deadline-Ms: 9800\r\n\
         Forwarded: for=\"192.0.2.1:4711\"\r\n\
         Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
         \r\n"
    );
    let bare = RequestHead::new(target("a.b:80"));
    assert_eq!(
        bare.encode(),
        b"CONNECT a.b:80 HTTP/1.1\r\nHost: a.b:80\r\n\r\n"
    );
}

#[test]
fn forwarded_names_clients_of_both_families() {
    for (address, value) in [
        ("192.0.2.1:1", "for=\"192.0.2.1:1\""),
        ("[::ffff:192.0.2.1]:1", "for=\"192.0.2.1:1\""),
        ("[2001:db8::1]:1", "for=\"[2001:db8::1]:1\""),
    ] {
        assert_eq!(forwarded_for(address.parse().unwrap()), value);
    }
}

#[test]
fn requests_of_all_kinds_of_clients_are_read() {
    let plain = RequestHead::new(target("example.com:443"));
    for head in [
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        // kube-apiserver: its Host never matches.
        "CONNECT example.com:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.0\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\n\n",
        "\r\n\r\nCONNECT example.com:443 HTTP/1.1\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nContent-Length: 5\r\nX: \u{fc}\r\n\r\n",
    ] {
        assert_eq!(ask(head), plain, "{head:?}");
        whole_or_nothing(head.as_bytes(), parse_request);
    }
}

#[test]
fn headers_are_read_in_any_case_and_bad_hints_left_out() {
    let with = |header: &str| ask(&format!("CONNECT a:1 HTTP/1.1\r\n{header}\r\n\r\n"));
    assert_eq!(
        with("towline-DEADLINE-ms:  250  ").deadline,
        Some(Duration::from_millis(250))
    );
    let longest = Some(MAX_DEADLINE);
    assert_eq!(with("Towline-Deadline-Ms: 86400001").deadline, longest);
    let beyond_u64 = format!("Towline-Deadline-Ms: {}", "9".repeat(30));
    assert_eq!(with(&beyond_u64).deadline, longest);
    assert_eq!(
        with("Forwarded: for=a\r\nX: y\r\nforwarded: for=b, for=c").forwarded,
        Some("for=a, for=b, for=c".into())
    );
    assert_eq!(with("Forwarded:").forwarded, None);
    assert_eq!(with("Forwarded: for=\u{fc}").forwarded, None);
    let fits = "x".repeat(MAX_FORWARDED);
    assert_eq!(
        with(&format!("Forwarded: {fits}")).forwarded,
        Some(fits.clone())
    );
    assert_eq!(with(&format!("Forwarded: {fits}x")).forwarded, None);
    assert_eq!(
        with("Traceparent: 00-1-2-3").traceparent,
        Some("00-1-2-3".into())
    );
    let long = format!("Traceparent: {}", "x".repeat(MAX_TRACEPARENT + 1));
    assert_eq!(with(&long).traceparent, None);
}

#[test]
fn bad_requests_are_refused_with_the_right_status() {
    let many = |count: usize| {
        let headers = "X: y\r\n".repeat(count);
        format!("CONNECT a:1 HTTP/1.1\r\n{headers}\r\n")
    };
    let (most, too_many) = (many(MAX_HEADERS), many(MAX_HEADERS + 1));
    assert!(parse_request(most.as_bytes()).unwrap().is_some());
    for (head, status) in [
        ("GET http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("connect a:1 HTTP/1.1\r\n\r\n", 405),
        (&too_many, 431),
        ("\x16\x03\x01\x02\x00\x01\x00", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ("CONNECT a:1\r\n\r\n", 400),
        ("CONNECT  a:1 HTTP/1.1\r\n\r\n", 400),
        (" CONNECT a:1 HTTP/1.1\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\n X: folded\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nX : y\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nX: \0\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\rX: y\r\n\r\n", 400),
        ("CONNECT a HTTP/1.1\r\n\r\n", 400),
        ("CONNECT / HTTP/1.1\r\n\r\n", 400),
        ("CONNECT https://a:1 HTTP/1.1\r\n\r\n", 400),
        ("CONNECT u@a:1 HTTP/1.1\r\n\r\n", 400),
        (
            "CONNECT a:1 HTTP/1.1\r\nTowline-Deadline-Ms: soon\r\n\r\n",
            400,
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nTowline-Deadline-Ms: -1\r\n\r\n",
            400,
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nTowline-Deadline-Ms: +1\r\n\r\n",
            400,
        ),
        ("CONNECT a:1 HTTP/1.1\r\nTowline-Deadline-Ms:\r\n\r\n", 400),
        (
            "CONNECT a:1 HTTP/1.1\r\nTowline-Deadline-Ms: 1\r\nTowline-Deadline-Ms: 1\r\n\r\n",
            400,
        ),
    ] {
        let error = parse_request(head.as_bytes()).unwrap_err();
        let refusal = Refusal::from(error);
        assert_eq!(wire_status(refusal.reason), status, "{head:?}: {error}");
        assert_eq!(refusal.details, error.to_string());
        whole_or_nothing(head.as_bytes(), parse_request);
    }
}

#[test]
fn a_head_ends_at_its_limit() {
    let head = |length: usize| {
        let empty = "CONNECT a:1 HTTP/1.1\r\nX: \r\n\r\n".len();
        format!(
            "CONNECT a:1 HTTP/1.1\r\nX: {}\r\n\r\n",
            "x".repeat(length - empty)
        )
    };
    let longest = head(MAX_HEAD);
    assert_eq!(
        parse_request(longest.as_bytes()).unwrap().unwrap().1,
        MAX_HEAD
    );
    let with_payload = format!("{longest}payload");
    assert_eq!(
        parse_request(with_payload.as_bytes()).unwrap().unwrap().1,
        MAX_HEAD
    );

    let longer = head(MAX_HEAD + 1);
    assert_eq!(parse_request(longer.as_bytes()), Err(HeadError::TooLarge));
    assert_eq!(parse_request(&longer.as_bytes()[..MAX_HEAD - 1]), Ok(None));
    // Nothing but empty lines is bounded as well.
    let empty = "\r\n".repeat(MAX_HEAD / 2);
    assert_eq!(parse_request(empty.as_bytes()), Err(HeadError::TooLarge));
    assert_eq!(parse_answer(empty.as_bytes()), Err(HeadError::TooLarge));
    let long_phrase = format!("HTTP/1.1 502 {}", "x".repeat(MAX_HEAD));
    assert_eq!(
        parse_answer(long_phrase.as_bytes()),
        Err(HeadError::TooLarge)
    );
}

#[test]
fn any_2xx_accepts() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/1.0 200 Connection established\n\n",
        // A Go agent: both headers are illegal here, and mean nothing.
        "HTTP/1.1 200 OK\r\nDate: Wed, 10 Apr 2024 10:00:00 GMT\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let answer = Ok(Some((Answer::Accepted, head.len())));
        assert_eq!(parse_answer(head.as_bytes()), answer, "{head:?}");
        assert_eq!(parse_answer(format!("{head}payload").as_bytes()), answer);
        whole_or_nothing(head.as_bytes(), parse_answer);
    }
    assert_eq!(
        parse_answer(Answer::ACCEPTED),
        Ok(Some((Answer::Accepted, Answer::ACCEPTED.len())))
    );
}

#[test]
fn bad_answers_are_malformed() {
    for head in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 000 \r\n\r\n",
        "HTTP/1.1 600 \r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
    ] {
        let answer = parse_answer(head.as_bytes());
        assert!(
            matches!(answer, Err(HeadError::Malformed(_))),
            "{head:?}: {answer:?}"
        );
        whole_or_nothing(head.as_bytes(), parse_answer);
    }
}

#[test]
fn proxy_status_decides_over_the_status() {
    let reason = |proxy_status: &str| {
        refused(&format!(
            "HTTP/1.1 502 no luck\r\nProxy-Status: {proxy_status}\r\n\r\n"
        ))
        .reason
    };
    for (proxy_status, expected) in [
        ("proxy-agent; error=dns_error", Reason::Dns),
        (
            "proxy-agent;error=connection_timeout;details=\"x\"",
            Reason::DialTimeout,
        ),
        (
            "\"a; error=dns_error\"; error=connection_refused",
            Reason::Refused,
        ),
        (
            "p; details=\"\\\"; error=dns_error\"; error=proxy_loop_detected",
            Reason::Loop,
        ),
        ("p; details=\"\\\\\"; error=dns_error", Reason::Dns),
        (
            "target, p; error=destination_ip_prohibited , q",
            Reason::Denied,
        ),
        (
            "p; error=destination_ip_unroutable\r\nProxy-Status: q",
            Reason::Unreachable,
        ),
        ("p\r\nProxy-Status: q; error=dns_error", Reason::Dns),
        ("p; error=tls_certificate_error", Reason::Refused),
        ("p; error=", Reason::Refused),
        ("p; error=http_request_denied", Reason::Forbidden),
        (
            "p; details=\"unterminated; error=dns_error",
            Reason::Refused,
        ),
        ("\u{fc}; error=dns_error", Reason::Dns),
    ] {
        assert_eq!(reason(proxy_status), expected, "{proxy_status}");
    }
}

#[test]
fn a_status_alone_decides_in_the_legacy_dialect() {
    for (status, reason) in [
        ("400 Bad RequestHead", Reason::Refused),
        ("502 Bad Gateway", Reason::Refused),
        ("403 Forbidden", Reason::Denied),
        ("405 Method Not Allowed", Reason::Internal),
        ("429 Too Many Requests", Reason::Overload),
        ("500 Internal Server Error", Reason::Internal),
        ("503 Service Unavailable", Reason::Overload),
        ("504 Gateway Timeout", Reason::DialTimeout),
        ("302 Found", Reason::Internal),
        ("599 x", Reason::Internal),
    ] {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            refused(&head),
            Refusal::new(reason, format!("agent answered {status}"))
        );
    }
    let long = refused(&format!("HTTP/1.1 502 \t{}\r\n\r\n", "x".repeat(1000)));
    assert_eq!(long.details.len(), refusal::MAX_DETAILS);
}

#[test]
fn our_own_refusals_come_back() {
    for reason in Reason::ALL {
        let sent = Refusal::new(reason, "dial \"10.0.0.7\":1\r\n");
        let response = Answer::refused(&sent, "proxy-agent");
        let (answer, length) = parse_answer(&response).unwrap().unwrap();
        let came = if reason.proxy_error().is_some() {
            Refusal::new(reason, "dial \"10.0.0.7\":1")
        } else {
            // These two are for clients alone: from an agent they mean that we sent nonsense.
            let status = wire_status(reason);
            let details = format!("agent answered {status} dial \"10.0.0.7\":1");
            Refusal::new(Reason::Internal, details)
        };
        assert_eq!(answer, Answer::Refused(came));
        assert_eq!(&response[length..], b"proxy-agent: dial \"10.0.0.7\":1\n");
    }
}

#[test]
fn nothing_can_be_smuggled_into_a_request() {
    let mut request = example();
    request.forwarded = Some("for=a\r\nX: y".into());
    request.traceparent = Some("x\n".into());
    let head = String::from_utf8(request.encode()).unwrap();
    assert_eq!(head.lines().count(), 4, "{head}");
}

fn requests() -> impl Strategy<Value = RequestHead> {
    let targets = "([a-z0-9-]{1,10}\\.){0,3}[a-z]{1,10}:[1-9][0-9]{0,3}|\\[[0-9a-f]{1,4}::1\\]:1";
    let value = "[!-~]([ -~]{0,60}[!-~])?";
    let deadlines = 0..=u64::try_from(MAX_DEADLINE.as_millis()).unwrap();
    (
        targets.prop_map(|text| text.parse().unwrap()),
        prop::option::of(deadlines.prop_map(Duration::from_millis)),
        prop::option::of(value),
        prop::option::of(value),
    )
        .prop_map(|(target, deadline, forwarded, traceparent)| RequestHead {
            ask: Ask::Connect(target),
            deadline,
            forwarded,
            traceparent,
        })
}

proptest! {
    #[test]
    fn requests_round_trip_in_any_pieces(request in requests(), payload: Vec<u8>) {
        let head = request.encode();
        let bytes = [head.as_slice(), &payload].concat();
        for length in 0..head.len() {
            prop_assert_eq!(parse_request(&bytes[..length]), Ok(None));
        }
        for length in head.len()..=bytes.len() {
            let parsed = parse_request(&bytes[..length]).unwrap().unwrap();
            prop_assert_eq!(parsed, (request.clone(), head.len()));
        }
    }

    #[test]
    fn refusals_round_trip_in_any_pieces(
        index in 0..Reason::ALL.len(),
        details in "\\PC{0,250}",
    ) {
        let reason = Reason::ALL[index];
        prop_assume!(reason.proxy_error().is_some());
        let sent = Refusal::new(reason, refusal::one_line(&details));
        let response = Answer::refused(&sent, "proxy-agent");
        let (answer, _) = parse_answer(&response).unwrap().unwrap();
        let Answer::Refused(came) = answer else { panic!("accepted") };
        prop_assert_eq!(came.reason, reason);
        prop_assert_eq!(came.to_string(), sent.to_string());
        whole_or_nothing(&response, parse_answer);
    }

    #[test]
    fn more_bytes_never_change_the_meaning(
        start in prop::sample::select(vec![
            "", "CONNECT ", "CONNECT a:1 HTTP/1.1\r\n", "GET / HTTP/1.0\n",
            "HTTP/1.1 ", "HTTP/1.1 502 x\r\nProxy-Status: ", "HTTP/1.1 200\r\n",
        ]),
        middle in "[a-zA-Z0-9:\\[\\]/. =;,\"\\\\\r\n\t-]{0,60}",
        end: Vec<u8>,
    ) {
        let bytes = [start.as_bytes(), middle.as_bytes(), b"\r\n\r\n", &end].concat();
        whole_or_nothing(&bytes, parse_request);
        whole_or_nothing(&bytes, parse_answer);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        whole_or_nothing(&bytes, parse_request);
        whole_or_nothing(&bytes, parse_answer);
    }
}
