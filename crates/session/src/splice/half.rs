//! The two halves of a tunnel, and how far each has come.

use bytes::Bytes;
use towline_protocol::code::StreamCode;

/// The half from the socket to the stream.
#[derive(Default)]
pub(super) struct Inbound {
    /// What the stream did not take of the last read.
    pub(super) pending: Bytes,
    pub(super) state: Half,
    /// The far end takes no more: what it still sends is delivered, then the tunnel ends so.
    pub(super) stopped: Option<StreamCode>,
}

/// The half from the stream to the socket.
#[derive(Default)]
pub(super) struct Outbound {
    /// What the socket did not take of the last chunks.
    pub(super) pending: Vec<Bytes>,
    pub(super) state: Half,
    pub(super) unflushed: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    #[default]
    Open,
    /// The source has ended; the sink is still to be told.
    Ending,
    Closed,
}
