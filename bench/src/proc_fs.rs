//! What `/proc` says about a process: CPU time and memory.

use std::fs;

use anyhow::{Context, Result};

/// Clock ticks per second, the unit of CPU times in `/proc`: `USER_HZ`, which is 100 on every
/// architecture of Linux but Alpha and IA-64.
pub const TICKS_PER_SECOND: f64 = 100.0;

/// The memory of a process that is in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// All of it, in KiB.
    pub rss: u64,
    /// The same with shared pages divided by the number of processes that share them, in KiB.
    pub pss: u64,
}

/// The time of all cores together since the start of the machine, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// In which they did something, or another virtual machine had them.
    pub busy: u64,
    /// All of it.
    pub all: u64,
}

/// The CPU time that a process has used in all its threads, user and kernel, in clock ticks.
pub fn cpu_ticks(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    ticks_of(&stat).with_context(|| format!("no CPU time in {path}"))
}

/// How often the threads that a process has now went to sleep voluntarily.
pub fn sleeps(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&path).with_context(|| format!("read {path}"))?;
    let mut sum = 0;
    for task in tasks {
        // A thread may have ended meanwhile; then it sleeps no more.
        let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        sum += sleeps_in(&status).unwrap_or(0);
    }
    Ok(sum)
}

/// How the cores have spent their time.
pub fn cores() -> Result<Cores> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    cores_in(&stat).context("no CPU time in /proc/stat")
}

/// The memory of a process.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    memory_of(&rollup).with_context(|| format!("no memory in {path}"))
}

/// The value of a `Name:  123 kB` or `name : text` line.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim_end() == name);
    values.next().map(|(_, value)| value.trim())
}

fn memory_of(rollup: &str) -> Option<Memory> {
    let kib = |name| field(rollup, name)?.strip_suffix(" kB")?.parse().ok();
    Some(Memory {
        rss: kib("Rss")?,
        pss: kib("Pss")?,
    })
}

fn sleeps_in(status: &str) -> Option<u64> {
    field(status, "voluntary_ctxt_switches")?.parse().ok()
}

/// Fields 14 and 15 of `stat`, utime and stime; the name in field 2 may hold spaces and brackets.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal; the guests' times that
/// may follow are in user and nice already.
fn cores_in(stat: &str) -> Option<Cores> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?;
    let times = times.split_whitespace().take(8);
    let times: Vec<u64> = times.map(|time| time.parse().ok()).collect::<Option<_>>()?;
    let all = times.iter().sum();
    let idle = times.get(3)? + times.get(4)?;
    Some(Cores {
        busy: all - idle,
        all,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::{process, thread};

    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b) (c) S 1 42 42 0 -1 4194304 95 0 0 0 310 27 5 6 20 0 1 0 9 1 2";
        assert_eq!(ticks_of(stat), Some(337));
        assert_eq!(ticks_of("42 (a) S 1 42"), None);
        assert_eq!(ticks_of(""), None);
    }

    #[test]
    fn sleeps_are_those_of_a_threads_own_accord() {
        let status = "Threads:\t1\nvoluntary_ctxt_switches:\t150\n\
                      nonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(sleeps_in(status), Some(150));
        assert_eq!(sleeps_in("nonvoluntary_ctxt_switches:\t545\n"), None);
        let before = sleeps(process::id()).unwrap();
        thread::sleep(Duration::from_millis(1));
        assert!(sleeps(process::id()).unwrap() > before);
        assert!(sleeps(u32::MAX).is_err());
    }

    #[test]
    fn the_cores_time_is_that_of_the_first_line() {
        let stat = "cpu  10 1 20 300 40 2 3 4 5 6\ncpu0 1 1 1 1 1 1 1 1\n";
        let expected = Cores { busy: 40, all: 380 };
        assert_eq!(cores_in(stat), Some(expected));
        for broken in ["", "cpu0 1 2 3 4 5", "cpu  1 2 3", "cpu  1 2 x 4 5"] {
            assert_eq!(cores_in(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn memory_is_that_of_the_rollup() {
        let rollup = "5581c8e8b000-7ffd5d5f4000 ---p 00000000 00:00 0    [rollup]\n\
                      Rss:                3524 kB\nPss:                1201 kB\n\
                      Pss_Dirty:           700 kB\n";
        let expected = Memory {
            rss: 3524,
            pss: 1201,
        };
        assert_eq!(memory_of(rollup), Some(expected));
        assert_eq!(memory_of("Rss:   3524 kB\n"), None);
        assert_eq!(memory_of("Rss:   x kB\nPss: 1 kB\n"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(memory(process::id()).unwrap().rss > 0);
        cpu_ticks(process::id()).unwrap();
        let cores = cores().unwrap();
        assert!(cores.busy <= cores.all);
        assert!(cpu_ticks(u32::MAX).is_err());
    }
}
