//! `process_*`: what this process takes of its machine, read from `/proc` at each scrape. Elsewhere than on Linux there
//! is nothing to read and nothing is told.

use std::fs;

use karpenter_runtime::metrics::Metrics;

/// Ticks of the clock that `/proc` counts CPU time in: fixed for user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const CPU_SECONDS: &str = "process_cpu_seconds_total";
/// Bytes of the unit in `/proc/self/status`.
const KIB: f64 = 1024.0;

/// Registers them.
pub(crate) fn register(metrics: &Metrics) {
    metrics.on_scrape(|metrics| {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let gauge = |name, value: Option<f64>| {
            if let Some(value) = value {
                metrics.set(name, &[], value);
            }
        };
        let stat = read("/proc/self/stat");
        if let Some(total) = cpu_seconds(&stat) {
            let told = metrics.value(CPU_SECONDS, &[]).unwrap_or_default();
            metrics.add(CPU_SECONDS, &[], total - told);
        }
        let status = read("/proc/self/status");
        gauge("process_resident_memory_bytes", kib(&status, "VmRSS:"));
        gauge("process_virtual_memory_bytes", kib(&status, "VmSize:"));
        gauge("process_max_fds", max_fds(&read("/proc/self/limits")));
        let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let open = open.and_then(|n| u32::try_from(n).ok());
        gauge("process_open_fds", open.map(f64::from));
        gauge(
            "process_start_time_seconds",
            started(&stat, &read("/proc/stat")),
        );
    });
}

/// A field of `/proc/self/stat`, counted from 1 as its manual does. The second is a name in brackets, which may hold
/// anything.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, after) = stat.rsplit_once(')')?;
    after
        .split_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

fn started(stat: &str, machine: &str) -> Option<f64> {
    let boot = machine.lines().find_map(|l| l.strip_prefix("btime "))?;
    let boot: f64 = boot.trim().parse().ok()?;
    Some(boot + field(stat, 22)? / TICKS_PER_SECOND)
}

fn kib(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix(key))?;
    let amount: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(amount * KIB)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let mut stat = "42 (a ) b) S".to_owned();
        for number in 4..=24 {
            stat.push_str(&format!(" {number}"));
        }
        assert_eq!(cpu_seconds(&stat), Some(0.29));
        assert_eq!(started(&stat, "cpu 1\nbtime 1000\n"), Some(1000.22));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn amounts_are_read_by_their_keys() {
        let status = "VmPeak:\t 9 kB\nVmSize:\t    8 kB\nVmRSS:\t    2 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some(2048.0));
        assert_eq!(kib(status, "VmSize:"), Some(8192.0));
        assert_eq!(kib("", "VmRSS:"), None);
        let limits = "Limit Soft Hard Units\nMax open files            1024 4096 files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
        assert_eq!(max_fds("Max open files unlimited unlimited"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_tells_what_it_takes() {
        let metrics = Metrics::default();
        register(&metrics);
        let _ = metrics.render();
        let _ = metrics.render();
        let value = |name| metrics.value(name, &[]).unwrap();
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_start_time_seconds") > 1e9);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
