//! What proxy-agent and agent-tcp have in common: everything but what tunnels are connected to.
//!
//! A program brings a [`Connector`](connector::Connector); [`program`] runs it, [`session_loop`]
//! keeps the sessions, and [`serve`] is one tunnel from its head to its last byte.
//!
//! A crate of its own, because it needs both `towline-session` and `towline-service`, which do not
//! know each other, and because no program may import another.
//!
//! Invariant: nothing here accepts clients or knows of other agents; quinn and rustls stay behind
//! `towline-quic` and `towline-tls`.

pub mod args;
pub mod config;
pub mod program;

pub mod connector;
pub mod serve;

pub mod session_loop;

pub mod server_connector;

mod backoff;

pub mod dialer;
mod happy_eyeballs;

pub mod metrics;
mod sessions;
