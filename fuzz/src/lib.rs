//! What must hold for any bytes a peer may send: one plain function for each fuzz target.
//!
//! A test of the protocol crate includes this file and replays the corpus through it, so that what
//! was found once is checked without a nightly toolchain.

use std::fmt::Debug;

use towline_protocol::ask::Ask;
use towline_protocol::control::{self, ControlError, Decoder, Message};
use towline_protocol::head::{self, Answer, HeadError, MAX_HEAD, RequestHead};
use towline_protocol::refusal::{MAX_DETAILS, Refusal};
use towline_protocol::target::{MAX_NAME, Target};

/// Most places at which an input is cut in two.
const MAX_CUTS: usize = 64;

/// Reads a request head: an answer does not depend on how the bytes come, what is understood can
/// be written and read again, and what is not can be refused.
///
/// # Panics
/// When the parser breaks its promises.
pub fn head_request(bytes: &[u8]) {
    check_cuts(bytes, head::parse_request);
    match head::parse_request(bytes) {
        Ok(Some((request, _))) => {
            let encoded = request.encode();
            let again = head::parse_request(&encoded);
            assert_eq!(again, Ok(Some((request, encoded.len()))));
        }
        Ok(None) => assert!(bytes.len() < MAX_HEAD, "waits for more than it reads"),
        Err(error) => check_refusal(&Refusal::from(error)),
    }
}

/// Reads an answer head: the same promises as for a request.
///
/// # Panics
/// When the parser breaks its promises.
pub fn head_answer(bytes: &[u8]) {
    check_cuts(bytes, head::parse_answer);
    match head::parse_answer(bytes) {
        Ok(Some((Answer::Accepted, length))) => assert!(length >= b"HTTP/1.1 200\n\n".len()),
        Ok(Some((Answer::Refused(refusal), _))) => {
            assert!(refusal.details.len() <= MAX_DETAILS);
            assert!(
                refusal.reason.proxy_error().is_some(),
                "an agent cannot say {refusal:?}"
            );
            check_refusal(&refusal);
        }
        Ok(None) => assert!(bytes.len() < MAX_HEAD, "waits for more than it reads"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Decodes control messages: the same ones come out however the bytes are cut, and each can be
/// written and read again.
///
/// # Panics
/// When the decoder breaks its promises.
pub fn control(bytes: &[u8]) {
    let whole = decode(bytes, bytes.len());
    for piece in [1, 7, 64] {
        assert_eq!(decode(bytes, piece), whole, "in pieces of {piece}");
    }
    let (messages, error) = whole;
    let encoded: Vec<u8> = messages.iter().flat_map(control::encode).collect();
    assert_eq!(decode(&encoded, encoded.len()), (messages, None));
    if let Some(error) = error {
        let text = error.to_string();
        assert!(
            text.len() <= 2 * MAX_DETAILS && !text.contains('\n'),
            "unfit for a log: {text}"
        );
    }
}

/// Reads a target: what is understood can be written and read again, alone and in a head.
///
/// # Panics
/// When the parser breaks its promises.
pub fn target(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let Ok(target) = text.parse::<Target>() else {
        return;
    };
    let written = target.to_string();
    assert!(
        written.len() <= MAX_NAME + ".:65535".len(),
        "overlong: {written}"
    );
    assert!(
        written.bytes().all(|byte| byte.is_ascii_graphic()),
        "unprintable: {written}"
    );
    assert_eq!(written.parse().as_ref(), Ok(&target));
    let ask = Ask::Connect(target.clone());
    let head = RequestHead::new(ask.clone()).encode();
    let read = head::parse_request(&head)
        .expect("our own head")
        .expect("a complete head");
    assert_eq!(read.0.ask, ask);
}

/// Every part of the bytes says nothing, or what the whole says.
fn check_cuts<T, P>(bytes: &[u8], parse: P)
where
    T: PartialEq + Debug,
    P: Fn(&[u8]) -> Result<Option<(T, usize)>, HeadError>,
{
    let whole = parse(bytes);
    if let Ok(Some((_, length))) = &whole {
        assert!(*length <= bytes.len().min(MAX_HEAD), "head behind its end");
        assert_eq!(
            parse(&bytes[..*length]),
            whole,
            "payload is part of the answer"
        );
        assert_eq!(
            parse(&bytes[..*length - 1]),
            Ok(None),
            "answer before its last byte"
        );
    }
    for cut in (0..bytes.len()).step_by(bytes.len() / MAX_CUTS + 1) {
        let part = parse(&bytes[..cut]);
        assert!(
            part == Ok(None) || part == whole,
            "{part:?}, then {whole:?}"
        );
    }
}

/// A refusal becomes one answer that the other end understands as well as it can be said.
fn check_refusal(refusal: &Refusal) {
    let response = Answer::refused(refusal, "fuzz");
    let (answer, _) = head::parse_answer(&response)
        .expect("our own head")
        .expect("complete");
    let Answer::Refused(read) = answer else {
        panic!("{refusal:?} was read as an acceptance");
    };
    if refusal.reason.proxy_error().is_some() {
        assert_eq!(read.reason, refusal.reason);
        assert_eq!(read.to_string(), refusal.to_string());
    }
}

fn decode(bytes: &[u8], piece: usize) -> (Vec<Message>, Option<ControlError>) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}
