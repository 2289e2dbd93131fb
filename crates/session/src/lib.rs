//! Sessions between agents and servers over any transport, and the tunnels on them.
//!
//! A [`Session`](session::Session) opens a tunnel for what a client asks, or yields the tunnels
//! that a server asks for. Transports are behind [`Transport`](transport::Transport), the dialects
//! of the protocol behind [`dialect`]; users of a session see neither.

pub mod session;

mod outgoing;

pub mod incoming;

pub mod dialect;

pub mod control_stream;

pub mod stream;

pub mod splice;

pub mod local_stream;

pub mod tunnel_table;

pub mod args;

mod busy_poller;

pub mod transport;

pub mod memory;
