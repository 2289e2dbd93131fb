//! What every daemon needs: start, shutdown, tasks, readiness, admin pages, logs, reload.
//!
//! Invariant: this crate knows no QUIC, no TLS and no tunnels; the programs add those.

pub mod allocator;
pub mod runtime;
pub mod shutdown;
pub mod tasks;

pub mod admin;
pub mod build_info;
pub mod live;
pub mod probe;
pub mod readiness;
pub mod scrape;
pub mod telemetry;

mod background_runtime;
mod error_chain;
