//! What both ends of a Towline session must agree on, and **the specification of the protocol**,
//! version 1.
//!
//! # Session
//! QUIC version 1 (RFC 9000) with TLS 1.3 and certificates on both sides. The agent is the QUIC
//! client; it verifies the server's name. Application protocol `towline/1`. The agent pings every
//! 2 s; a peer that is silent for 8 s is dead, and its tunnels end with a reset.
//!
//! # Control stream
//! The first bidirectional stream, opened by the agent; it lives as long as the session. Each
//! message is one JSON object on a line of at most 64 KiB; unknown types and fields are ignored.
//!
//! | message | from | meaning |
//! |---|---|---|
//! | `hello` | agent | its id, when it started (`epoch`), its kind, how many tunnels it serves |
//! | `welcome` | server | the session's number; a server that refuses closes the session instead |
//! | `draining` | either | the sender drains: no new tunnels, live ones may finish |
//! | `bye` | either | the reason for the close that follows; logged, and not sent by this version |
//!
//! `bye` is not sent because closing a QUIC connection discards what is unsent and carries a reason
//! of its own. `version`, `max_streams` and `server_id` are logged by the receiver.
//!
//! A hello with the same agent id and a later epoch takes over: the older session drains. One with
//! an earlier epoch is closed as `replaced`. The server closes a drained session when its last
//! tunnel has ended. `group`, `routes` and `labels` are reserved names in `hello`, and so are
//! `servers` in `welcome` and the message `routes`.
//!
//! # Tunnel stream
//! Opened by the server, which sends one HTTP/1.1 request head of at most 16 KiB:
//! ```text
//! CONNECT host:port HTTP/1.1
//! Host: host:port
//! Towline-Deadline-Ms: 9800           how long the server waits for an answer
//! Forwarded: for="192.0.2.1:4711"     the client (RFC 7239); can be disabled
//! Traceparent: 00-…                   as the client sent it (W3C Trace Context)
//! ```
//! Payload may follow the head at once. A `passthrough` agent ignores the target and connects its
//! fixed upstream; a server without a target asks for `upstream:0`. The agent answers with one
//! head: `HTTP/1.1 200 OK`, and payload follows both ways; or a refusal with an RFC 9209
//! `Proxy-Status` whose `error` names the reason (see [`refusal`]), and the end of its half. The
//! agent logs `Forwarded` and `Traceparent`.
//!
//! # Ending
//! The end of a half (FIN) ends that half only. An abort is `RESET_STREAM` and `STOP_SENDING` with a
//! [`code::StreamCode`]; a half that was finished before is not reset, so that what it carried
//! still arrives. A reset of a socket at one end becomes a reset at the other, never a clean end.
//!
//! # Legacy dialect
//! Application protocol `quic-echo-example`, as gardener/quic-reverse-http-tunnel speaks it: no
//! control stream, and the certificate is the only identity. A tunnel stream starts with the
//! CONNECT head, as a Towline server writes it or as the client of a Go server sent it; its answer
//! may carry any headers. Streams of the raw variant carry no head and no answer.
//!
//! # Versions
//! New fields, message types and headers need no new application protocol: a peer that does not
//! know them ignores them. A change that an older peer would misread becomes `towline/2`, and both
//! are offered for a year.

pub mod target;

pub mod ask;

pub mod ids;

pub mod refusal;

pub mod head;

pub mod control;

pub mod code;

pub mod failure;
