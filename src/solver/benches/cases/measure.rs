//! What the kernel says of this process: time on a CPU, and memory.

/// Seconds that this thread has been running on a CPU: waiting for one, on a machine that others use too, is not work. The
/// clock ticks every few milliseconds, so that short runs are timed many at once.
pub(crate) fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// A line of the process's status: `VmRSS`, what is in memory now, or `VmHWM`, the most that ever was.
pub(crate) fn memory(field: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    lines
        .find(|l| l.starts_with(field))
        .unwrap_or(field)
        .to_owned()
}
