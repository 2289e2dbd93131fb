//! agent-tcp
