//! How everything was measured, in the words that stand above the table.

use anyhow::Result;

use crate::cell::LOOKS;
use crate::cli::Plan;
use crate::client::LIMIT;
use crate::proc_fs;

/// How a plan is measured, in a line for each thing to know.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn describe(smoke: bool, plan: &Plan) -> Result<Vec<String>> {
    let Plan {
        rounds,
        warm_up,
        window,
        idle_tunnels,
        busy_tunnels,
        idle,
        settle,
        agents,
    } = plan;
    let ticks = proc_fs::ticks_per_second()?;
    let mut lines = Vec::new();
    if smoke {
        let warning = "SMOKE: far too short for a measurement; it only shows that everything runs";
        lines.push(warning.to_owned());
    }
    lines.extend([
        format!(
            "median [min–max] of {rounds} interleaved rounds; a cell has fresh processes, \
             {warm_up:?} of warm-up and {window:?} of measurement; ↑ more is better, ↓ less is \
             better; a ratio is one of medians, of the rounds that both have"
        ),
        format!(
            "load generator and target are processes of one thread each on the same machine; \
             loopback; uploads are counted where they arrive; GB = 10^9 payload bytes; CPU time \
             from /proc/PID/stat in ticks of 1/{ticks} s"
        ),
        "programs get no environment, and default flags where no others are named".to_owned(),
        "connect-request-close: the target closes first, the client once it has the answer; \
         latency from connect to answer"
            .to_owned(),
        "round trips beside others: bulk has processes of its own at both ends, so that nobody \
         but the subject is shared; a subject with one session carries all in it, one with a \
         connection for each tunnel does not, and direct has nothing to share"
            .to_owned(),
        format!(
            "idle tunnels: {idle_tunnels}, each after one exchange; busy tunnels: {busy_tunnels} \
             downloads; memory is read before, when one tunnel has come and gone, with them, and \
             after closing: before and after once it has stood still for {settle:?}, or {:?} later \
             at most; idle ones are then opened and closed a second time",
            *settle * LOOKS
        ),
        format!(
            "idle sessions: {agents} agents in one process, idle CPU over {idle:?}; only for \
             Towline, whose agents the bench can be; a wake-up is a voluntary context switch, of \
             all threads"
        ),
        format!("stood still: what was waited for did not come within {LIMIT:?}"),
    ]);
    Ok(lines)
}
