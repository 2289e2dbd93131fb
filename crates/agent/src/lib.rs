//! What proxy-agent and agent-tcp have in common: everything but the order in which a stream is
//! served, and where its target comes from.
//!
//! A crate of its own, because it needs both `towline-tunnel` and `towline-service`, which must not
//! know each other, and because no program may import another.
//!
//! Invariant: nothing here accepts clients or knows of other sessions' tunnels; quinn and rustls
//! stay behind `towline-tunnel` and `towline-tls`.

pub mod args;
pub mod program;

pub mod outlet;

pub mod session_loop;

mod backoff;

pub mod dialer;
mod happy_eyeballs;

pub mod metrics;
mod sessions;
