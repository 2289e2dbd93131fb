//! The server of Towline: accepts clients and agents, opens tunnels, splices.
//!
//! # The journey of one request
//! 1. A [`listener`] accepts a connection; the loop in [`accept`] gives it a permit and a task.
//! 2. Its [`frontend`] reads what the client wants and makes a [`request`] of it.
//! 3. [`forward`] tells the rest in one function: the tunnel is registered; `open` asks the
//!    session that [`route`] picks from a snapshot of the [`registry`]; the frontend answers its
//!    client; bytes are spliced until both halves have ended; one access-log line and the
//!    [`metrics`] are written (`access_log`).
//!
//! A client that hangs up meanwhile cancels everything that it started, on both machines. Sessions
//! are admitted by [`admit`]. A [`shard`] holds what serves, and its shutdown; the process around
//! it is [`server`].

pub mod request;

pub mod listener;

pub mod frontend;

pub mod listen;

pub mod accept;

pub mod forward;

mod open;

pub mod route;

pub mod registry;

mod access_log;

pub mod admit;

pub mod metrics;

mod limits;

pub mod shard;

pub mod server;

pub mod config;

pub mod cli;

#[cfg(test)]
mod fixture;
