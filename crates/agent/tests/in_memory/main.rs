//! The agent's session loop and its handling of tunnels over sessions in memory, on a paused clock:
//! no UDP, no certificates, no waiting.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod doubles;
mod serve;
mod servers;
mod session_loop;
