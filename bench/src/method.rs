//! How everything is measured, in the words that stand above the tables.

use crate::cell::{LOOKS, Plan};
use crate::client::LIMIT;
use crate::place::Place;
use crate::proc_fs;

/// What holds at every place.
const EVERYWHERE: &str = "median [min–max]; ↑ more is better, ↓ less is better; a ratio is one of \
     medians, of the rounds that both have; programs get no environment, and default flags where \
     no others are named";

const LINK: [&str; 4] = [
    "a cell has fresh processes and a link of its own; in a round all subjects have the same \
     random losses, and their order is drawn anew for each row",
    "client and server are on the near side, agent and target on the far one; downloads go from \
     far to near; Mbit/s of payload, while losses are of IP packets, each way",
    "+cubic and +bbr: the congestion control of the kernel's TCP on both sides, whose connections \
     may hold 64 MiB; towline+NAME: Towline with the flags that its line names",
    "beside a Cubic or BBR flow: a download of the subject has the link alone for 2 s, then one of \
     the kernel's TCP begins beside it; direct is the kernel's own beside that, for comparison",
];

/// How a plan is measured at a place, in a line for each thing to know.
pub fn describe(smoke: bool, place: &Place, plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    if smoke {
        lines.push("SMOKE: too short for a measurement; it shows that everything runs".to_owned());
    }
    lines.push(EVERYWHERE.to_owned());
    lines.push(format!(
        "timed out: what was waited for did not come within {LIMIT:?}"
    ));
    match place {
        Place::Loopback => lines.extend(loopback(plan)),
        Place::Link(_) => lines.extend(LINK.map(str::to_owned)),
    }
    lines
}

fn loopback(plan: &Plan) -> [String; 5] {
    let Plan {
        idle_tunnels,
        busy_tunnels,
        idle,
        settle,
        agents,
        ..
    } = plan;
    let ticks = proc_fs::TICKS_PER_SECOND;
    [
        format!(
            "a cell has fresh processes; load generator and target are processes of one thread each \
             on the same machine; uploads are counted where they arrive; GB = 10^9 payload bytes; \
             CPU time from /proc/PID/stat in ticks of 1/{ticks} s; a wake-up is a voluntary context \
             switch, of all threads"
        ),
        "connect-request-close: the target closes first, the client once it has the answer; \
         latency from connect to answer"
            .to_owned(),
        "round trips beside others: bulk has processes of its own at both ends, so that only the \
         subject is shared; a subject with one session carries all in it, one with a connection \
         for each tunnel does not, and direct has nothing to share"
            .to_owned(),
        format!(
            "idle tunnels: {idle_tunnels}, each after one exchange; busy tunnels: {busy_tunnels} \
             downloads; memory is read before, when one tunnel has been opened and closed, with \
             them, and after closing: before and after once it is the same for {settle:?}, or \
             {:?} later at most; idle ones are then opened and closed a second time",
            *settle * LOOKS
        ),
        format!(
            "idle sessions: {agents} agents in one process, idle CPU over {idle:?}; only for \
             Towline, whose agents the bench can start in one process"
        ),
    ]
}
