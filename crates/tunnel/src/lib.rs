//! Sessions between agents and servers over QUIC, and the tunnels on them. The protocol is
//! specified in [`towline_protocol`].

pub mod knobs;

pub mod endpoint;

mod udp;

mod farewell;

mod congestion_adapter;

pub mod figure;

pub mod session;

pub mod control_stream;

pub mod stream;

mod busy_poll;

pub mod tunnels;

pub mod splice;
