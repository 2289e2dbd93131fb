//! proxy-agent
