//! What the process itself uses, under the names that every Prometheus client gives it.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// The longest of the kernel's lines that are read. Our own choice; they have some 300 bytes.
const LINE_BYTES_MAX: u64 = 4_096;

/// Read at each scrape; what the kernel does not tell is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(bytes) = resident_bytes() {
            let help = "Memory of the process that is in use, of its own and mapped.";
            let unit = Some(&Unit::Bytes);
            let resident = encoder.encode_descriptor("process_resident_memory", help, unit, MetricType::Gauge)?;
            ConstGauge::new(bytes).encode(resident)?;
        }
        if let Some(count) = open_files() {
            let open = encoder.encode_descriptor("process_open_fds", "Open files.", None, MetricType::Gauge)?;
            ConstGauge::new(count).encode(open)?;
        }
        if let Some(seconds) = processor_time() {
            let help = "Processor time of user and system.";
            let unit = Some(&Unit::Seconds);
            let mut spent = encoder.encode_descriptor("process_cpu", help, unit, MetricType::Counter)?;
            spent.encode_counter::<NoLabelSet, _, u64>(&seconds.as_secs_f64(), None)?;
        }
        Ok(())
    }
}

fn line(path: &str) -> Option<String> {
    let mut line = String::new();
    File::open(path).ok()?.take(LINE_BYTES_MAX).read_to_string(&mut line).ok()?;
    Some(line)
}

fn resident_bytes() -> Option<u64> {
    let pages: u64 = line("/proc/self/statm")?.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

fn open_files() -> Option<u64> {
    // One of them is the listing's own.
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count().checked_sub(1)?;
    u64::try_from(count).ok()
}

fn processor_time() -> Option<Duration> {
    let line = line("/proc/self/stat")?;
    // The program's name, in brackets, may hold anything.
    let (_, rest) = line.rsplit_once(") ")?;
    // Fields 14 and 15 of proc_pid_stat(5), in clock ticks; the first one here is field 3.
    let ticks: Vec<u64> = rest.split(' ').skip(11).take(2).map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let millis = ticks.iter().sum::<u64>().checked_mul(1_000)?.checked_div(rustix::param::clock_ticks_per_second())?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_files_and_time() {
        assert!(resident_bytes().unwrap() > 100_000);
        let before = open_files().unwrap();
        let file = File::open("/proc/self/stat").unwrap();
        assert!(before >= 3 && processor_time().is_some());
        drop(file);
    }
}
