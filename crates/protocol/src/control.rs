//! The messages of a session's control stream: one JSON object a line.
//!
//! Versions may mix: unknown fields are ignored, and unknown types become [`Message::Unknown`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{AgentId, Epoch};
use crate::refusal;

/// Longest line in bytes, without its line feed.
pub const MAX_LINE: usize = 64 * 1024;

/// One message; what each means is in the crate's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// Agent to server, first: the agent and its kind.
    Hello(Hello),
    /// Server to agent, the answer to `hello`.
    Welcome(Welcome),
    /// Both ways: no new streams from now on.
    Draining(Draining),
    /// Both ways: the session is about to be closed.
    Bye(Bye),
    /// A type that this version does not know, to be ignored.
    #[serde(other)]
    Unknown,
}

/// An agent and what it serves; all of it is a claim until the server has checked it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The name of the agent.
    pub agent_id: AgentId,
    /// When the agent's process started: the later of two sessions with one id takes over.
    pub epoch: Epoch,
    /// The version of the agent's program, for people.
    pub version: String,
    /// What the agent does with a stream.
    pub kind: AgentKind,
    /// How many streams the agent serves at once.
    pub max_streams: u32,
}

/// The server and the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The name of the server.
    pub server_id: String,
    /// What the server calls this session, for the logs of both sides.
    pub session_id: u64,
    /// The version of the server's program, for people.
    pub version: String,
}

/// How long the sender still serves what is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Milliseconds until what is left is cut: any number, so bound it before adding it to a clock.
    pub deadline_ms: u64,
}

/// The reason for a close.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Why the sender closes, for people.
    pub reason: String,
}

/// What an agent does with the streams it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// Dials the target that the head asks for.
    Connect,
    /// Dials its one fixed upstream, whatever the head asks for.
    Passthrough,
}

/// Why a control stream cannot be read on; the session is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ControlError {
    /// A line is longer than [`MAX_LINE`].
    #[error("control message is longer than {MAX_LINE} bytes")]
    TooLong,
    /// A line is not a message; the text is at most
    /// [`MAX_DETAILS`](refusal::MAX_DETAILS) bytes of printable ASCII.
    #[error("malformed control message: {0}")]
    Malformed(String),
}

/// Cuts a stream of bytes into messages.
///
/// It holds what was pushed and not yet taken: call [`Decoder::next`] until it has nothing more
/// after each read, and it never holds more than [`MAX_LINE`] bytes and one read.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Where the line that is not yet taken starts.
    start: usize,
    /// Up to where that line is known to have no line feed.
    scanned: usize,
}

/// The message as one line, line feed included.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let mut line = serde_json::to_vec(message)
        .expect("a message has only strings and numbers, which always have a JSON form");
    line.push(b'\n');
    line
}

// === impl Decoder ===

impl Decoder {
    /// Appends what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next message, or nothing when its line is not complete.
    ///
    /// # Errors
    /// When a line, complete or not, is too long, or is not a message.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator that may go on after None would be misused"
    )]
    pub fn next(&mut self) -> Result<Option<Message>, ControlError> {
        let fresh = &self.buffer[self.scanned..];
        let end = fresh.iter().position(|byte| *byte == b'\n');
        let end = end.map_or(self.buffer.len(), |offset| self.scanned + offset);
        self.scanned = end;
        if end - self.start > MAX_LINE {
            return Err(ControlError::TooLong);
        }
        if end == self.buffer.len() {
            return Ok(None);
        }
        let line = &self.buffer[self.start..end];
        self.scanned = end + 1;
        self.start = self.scanned;
        serde_json::from_slice(line)
            .map(Some)
            .map_err(|error| ControlError::Malformed(refusal::one_line(&error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Message {
        Message::Hello(Hello {
            agent_id: "rack-7".parse().unwrap(),
            epoch: Epoch(1_700_000_000_123),
            version: "0.1.0".into(),
            kind: AgentKind::Connect,
            max_streams: 10_000,
        })
    }

    fn bye(reason: &str) -> Message {
        Message::Bye(Bye {
            reason: reason.into(),
        })
    }

    /// Everything that comes out of these bytes, pushed in pieces of one size.
    fn decode(bytes: &[u8], piece: usize) -> (Vec<Message>, Option<ControlError>) {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in bytes.chunks(piece) {
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

    #[test]
    fn lines_are_the_wire_format() {
        let table = [
            (
                hello(),
                r#"{"type":"hello","agent_id":"rack-7","epoch":1700000000123,"version":"0.1.0","kind":"connect","max_streams":10000}"#,
            ),
            (
                Message::Welcome(Welcome {
                    server_id: "edge-1".into(),
                    session_id: 42,
                    version: "0.1.0".into(),
                }),
                r#"{"type":"welcome","server_id":"edge-1","session_id":42,"version":"0.1.0"}"#,
            ),
            (
                Message::Draining(Draining {
                    deadline_ms: 30_000,
                }),
                r#"{"type":"draining","deadline_ms":30000}"#,
            ),
            (bye("one\ntwo"), r#"{"type":"bye","reason":"one\ntwo"}"#),
            (Message::Unknown, r#"{"type":"unknown"}"#),
        ];
        for (message, line) in table {
            let line = format!("{line}\n");
            assert_eq!(String::from_utf8(encode(&message)).unwrap(), line);
            assert_eq!(decode(line.as_bytes(), 1), (vec![message], None));
        }
    }

    #[test]
    fn newer_peers_are_understood() {
        for (line, message) in [
            (
                r#"{"type":"routes","add":[{"cidr":"10.0.0.0/8"}]}"#,
                Message::Unknown,
            ),
            (
                r#"{"labels":{"a":"b"},"reason":"x","type":"bye","code":7}"#,
                bye("x"),
            ),
            (
                "  {\"type\" : \"draining\", \"deadline_ms\":0}\r",
                Message::Draining(Draining { deadline_ms: 0 }),
            ),
        ] {
            let line = format!("{line}\n");
            assert_eq!(decode(line.as_bytes(), 3), (vec![message], None), "{line}");
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        let deep = "[".repeat(10_000);
        for line in [
            "",
            " ",
            "null",
            "[]",
            "{}",
            "{\"type\":7}",
            "{\"type\":\"hello\"}",
            r#"{"type":"hello","agent_id":"a b","epoch":1,"version":"","kind":"connect","max_streams":1}"#,
            "{\"type\":\"bye\"}",
            "{\"type\":\"bye\",\"reason\":7}",
            "{\"type\":\"bye\",\"reason\":\"x\"",
            "{\"type\":\"bye\",\"reason\":\"x\"} {}",
            "{\"type\":\"draining\",\"deadline_ms\":-1}",
            "{\"type\":\"draining\",\"deadline_ms\":18446744073709551616}",
            "{\"type\":\"bye\",\"reason\":\"\u{1}\"}",
            "GET / HTTP/1.1\r",
            &deep,
            &format!("{{\"type\":\"x\",\"y\":{deep}}}"),
        ] {
            let bytes = format!("{line}\n");
            let (messages, error) = decode(bytes.as_bytes(), 4096);
            assert_eq!(messages, [], "{line}");
            assert!(matches!(error, Some(ControlError::Malformed(_))), "{line}");
        }
        let (_, error) = decode(b"{\"type\":\"bye\",\"reason\":\"\xff\"}\n", 8);
        assert!(matches!(error, Some(ControlError::Malformed(_))));
    }

    #[test]
    fn an_error_names_the_cause_in_one_short_line() {
        let line = format!(
            "{{\"type\":\"bye\",\"reason\":[\"{}\"]}}\n",
            "ü".repeat(1000)
        );
        let (_, error) = decode(line.as_bytes(), 64);
        let text = error.unwrap().to_string();
        assert!(text.len() <= 250 && text.is_ascii(), "{text}");
        assert!(text.starts_with("malformed control message: "), "{text}");
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_does_not() {
        for piece in [1, 1000, MAX_LINE, 2 * MAX_LINE] {
            let of_length =
                |length: usize| bye(&"x".repeat(length - r#"{"type":"bye","reason":""}"#.len()));
            let longest = encode(&of_length(MAX_LINE));
            assert_eq!(longest.len(), MAX_LINE + 1);
            assert_eq!(decode(&longest, piece), (vec![of_length(MAX_LINE)], None));

            let longer = encode(&of_length(MAX_LINE + 1));
            assert_eq!(
                decode(&longer, piece),
                (vec![], Some(ControlError::TooLong))
            );
            // Without its line feed it is too long as well: a peer cannot make the decoder hold more.
            let open = &longer[..=MAX_LINE];
            assert_eq!(decode(open, piece), (vec![], Some(ControlError::TooLong)));
            assert_eq!(decode(&longer[..MAX_LINE], piece), (vec![], None));
        }
    }

    #[test]
    fn messages_before_an_error_count() {
        let mut bytes = encode(&hello());
        bytes.extend_from_slice(b"?\n");
        for piece in [1, bytes.len()] {
            let (messages, error) = decode(&bytes, piece);
            assert_eq!(messages, [hello()]);
            assert!(error.is_some());
        }
    }

    fn messages() -> impl Strategy<Value = Message> {
        let kinds = prop_oneof![Just(AgentKind::Connect), Just(AgentKind::Passthrough)];
        let hellos = (
            "[!-~]{1,40}",
            any::<String>(),
            any::<u64>(),
            kinds,
            any::<u32>(),
        );
        let hellos = hellos.prop_map(|(agent_id, version, epoch, kind, max_streams)| Hello {
            agent_id: agent_id.parse().unwrap(),
            epoch: Epoch(epoch),
            version,
            kind,
            max_streams,
        });
        let welcomes = (any::<[String; 2]>(), any::<u64>());
        let welcomes = welcomes.prop_map(|([server_id, version], session_id)| Welcome {
            server_id,
            session_id,
            version,
        });
        prop_oneof![
            hellos.prop_map(Message::Hello),
            welcomes.prop_map(Message::Welcome),
            any::<u64>().prop_map(|deadline_ms| Message::Draining(Draining { deadline_ms })),
            any::<String>().prop_map(|reason| bye(&reason)),
            Just(Message::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn every_message_round_trips(
            sent in prop::collection::vec(messages(), 0..5),
            piece in 1..100_usize,
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(encode).collect();
            prop_assert_eq!(decode(&bytes, piece), (sent, None));
        }

        #[test]
        fn arbitrary_bytes_mean_the_same_in_any_pieces(
            bytes: Vec<u8>,
            lines in "([{}\":,a-z0-9 ]{0,20}\n){0,4}",
            piece in 1..20_usize,
        ) {
            let bytes = [bytes.as_slice(), lines.as_bytes()].concat();
            prop_assert_eq!(decode(&bytes, piece), decode(&bytes, bytes.len().max(1)));
        }
    }
}
