//! The `process_*` family: what procfs says of this process.
//!
//! Read afresh by every scrape. Knows nothing of requests.

use prometheus::{Counter, Gauge, IntGauge, Registry};

use super::register::register;

/// The gauges of the family.
pub(super) struct Process {
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    start_time: Gauge,
}

impl Process {
    pub(super) fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        let this = Self {
            cpu: register(
                r,
                Counter::new(
                    "process_cpu_seconds_total",
                    "Total user and system CPU time spent in seconds.",
                )?,
            )?,
            resident: register(
                r,
                IntGauge::new(
                    "process_resident_memory_bytes",
                    "Resident memory size in bytes.",
                )?,
            )?,
            virtual_memory: register(
                r,
                IntGauge::new(
                    "process_virtual_memory_bytes",
                    "Virtual memory size in bytes.",
                )?,
            )?,
            open_fds: register(
                r,
                IntGauge::new("process_open_fds", "Number of open file descriptors.")?,
            )?,
            max_fds: register(
                r,
                IntGauge::new(
                    "process_max_fds",
                    "Maximum number of open file descriptors.",
                )?,
            )?,
            threads: register(
                r,
                IntGauge::new("process_threads", "Number of OS threads in the process.")?,
            )?,
            start_time: register(
                r,
                Gauge::new(
                    "process_start_time_seconds",
                    "Start time of the process since unix epoch in seconds.",
                )?,
            )?,
        };
        this.refresh();
        Ok(this)
    }

    /// Reads procfs (proc(5)); where a file is not readable its gauges keep their last value.
    pub(super) fn refresh(&self) {
        /// Kernel clock ticks per second and bytes per page: fixed at these values on every Linux that Rust supports.
        const TICKS: f64 = 100.0;
        const PAGE: i64 = 4096;
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
            // The second field is the command in parentheses and may hold blanks; count from behind it.
            let fields: Vec<&str> = stat
                .rsplit_once(')')
                .map(|(_, rest)| rest.split_whitespace().collect())
                .unwrap_or_default();
            let number = |i: usize| {
                fields
                    .get(i)
                    .and_then(|f| f.parse::<f64>().ok())
                    .unwrap_or_default()
            };
            let whole = |i: usize| {
                fields
                    .get(i)
                    .and_then(|f| f.parse::<i64>().ok())
                    .unwrap_or_default()
            };
            let total = (number(11) + number(12)) / TICKS;
            // Two scrapes at once may read out of order; a counter never goes back.
            self.cpu.inc_by((total - self.cpu.get()).max(0.0));
            self.threads.set(whole(17));
            self.virtual_memory.set(whole(20));
            self.resident.set(whole(21) * PAGE);
            let boot = std::fs::read_to_string("/proc/stat").ok();
            let boot = boot
                .as_deref()
                .and_then(|s| s.lines().find_map(|l| l.strip_prefix("btime ")))
                .and_then(|b| b.trim().parse::<f64>().ok());
            if let Some(boot) = boot {
                self.start_time.set(boot + number(19) / TICKS);
            }
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds
                .set(i64::try_from(entries.count()).unwrap_or(i64::MAX));
        }
        if let Ok(limits) = std::fs::read_to_string("/proc/self/limits") {
            let soft = limits
                .lines()
                .find_map(|l| l.strip_prefix("Max open files"))
                .and_then(|l| l.split_whitespace().next());
            if let Some(soft) = soft.and_then(|s| s.parse().ok()) {
                self.max_fds.set(soft);
            }
        }
    }
}
