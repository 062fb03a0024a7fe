//! What the operating system says of a process and its children.

use std::fs;
use std::time::Duration;

/// A process and all below it.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        all.extend(family(child));
    }
    all
}

/// Processor time of a process and its children, to the nanosecond.
pub fn cpu(pid: u32) -> Duration {
    let mut nanos = 0;
    for pid in family(pid) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let said = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            nanos += said.split_whitespace().next().and_then(|spent| spent.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(nanos)
}

/// Memory in use by a process and its children, in bytes.
pub fn resident(pid: u32) -> u64 {
    family(pid).into_iter().map(|pid| field(pid, "VmRSS:") * 1_024).sum()
}

/// Threads of a process.
pub fn threads(pid: u32) -> u64 {
    field(pid, "Threads:")
}

/// Open files and sockets of a process.
pub fn files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_what_it_uses() {
        let own = std::process::id();
        let before = cpu(own);
        let mut sum = 0_u64;
        while cpu(own) == before {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        assert!(resident(own) > 100_000 && threads(own) >= 1 && files(own) >= 3);
        assert_eq!(cpu(u32::MAX), Duration::ZERO);
    }
}
