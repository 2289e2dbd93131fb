//! QUIC connections and streams for sessions: the owning crate of quinn.
//!
//! It exports its own types: no type of quinn is part of a public signature. What a session means
//! by a connection and a stream is in `towline-session`, which depends on this crate.

pub mod args;

pub mod listener;

pub mod dialer;

pub mod connection;

pub mod stream;

pub mod stats;

pub mod endpoint;

mod transport_config;

mod congestion_adapter;

mod close_workaround;

mod udp;
