//! The server of Towline: accepts clients and agents, routes, splices.
//!
//! # The journey of one request
//! 1. A [`listener`] accepts a connection; [`clients`] gives it a permit and a task.
//! 2. Its [`frontend`] reads what the client wants and makes a [`request`] of it.
//! 3. [`forward`] tells the rest in one function: the [`router`] picks a session from a snapshot
//!    of the [`registry`]; a stream is opened on it and carries the CONNECT head; the agent
//!    answers; the frontend answers its client; bytes are spliced until both halves have ended;
//!    one access-log line and the [`metrics`] are written.
//!
//! A client that hangs up meanwhile cancels everything that it started, on both machines.
//! Sessions come from [`agents`]; [`server`] wires it all and holds the order of the shutdown.

pub mod request;

pub mod listener;

pub mod clients;

pub mod frontend;

pub mod forward;

pub mod router;

pub mod registry;

pub mod agents;

pub mod metrics;

pub mod server;

pub mod cli;
