//! Settings of the kernel's network, which each namespace has for itself.

use std::fs;

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use crate::namespace::Namespace;

/// Names the congestion control of new connections.
const CONGESTION: &str = "tcp_congestion_control";

/// Lists those that a namespace may name. Only the machine itself can change it.
const ALLOWED: &str = "tcp_allowed_congestion_control";

/// Whether the kernel has this congestion control, or loads it when it is asked for.
pub(crate) fn has_congestion(name: &str) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    socket.is_ok_and(|socket| socket.set_tcp_congestion(name.as_bytes()).is_ok())
}

/// Chooses the congestion control of new connections in the calling thread's namespace. Where the
/// machine does not allow everybody this one, it does for this moment.
pub(crate) fn set_congestion(name: &str, machine: &Namespace) -> Result<()> {
    let allowed = machine.run(|| get(ALLOWED))?;
    if allowed.split_whitespace().any(|one| one == name) {
        return set(CONGESTION, name);
    }
    machine.run(|| set(ALLOWED, &format!("{allowed} {name}")))?;
    let chosen = set(CONGESTION, name);
    machine.run(|| set(ALLOWED, &allowed))?;
    chosen
}

/// Changes a setting below `net/ipv4` in the calling thread's namespace.
pub(crate) fn set(name: &str, value: &str) -> Result<()> {
    let path = path(name);
    fs::write(&path, value).with_context(|| format!("write {value} to {path}"))
}

fn get(name: &str) -> Result<String> {
    let path = path(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.trim().to_owned())
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/ipv4/{name}")
}
