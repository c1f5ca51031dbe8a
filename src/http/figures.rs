//! The service's own figures and the process's, as Prometheus reads them: gathered anew for each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::metrics::labels;
use crate::service::figures::{Figures, WAIT_SECONDS, Waits};

/// As this scrape finds them, in a registry of its own.
pub(super) fn registry(figures: Figures) -> Registry {
    let mut registry = Registry::with_prefix("hallpass");
    registry.register_collector(Box::new(Scrape(figures)));
    registry
}

#[derive(Debug)]
struct Scrape(Figures);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Condition {
    condition: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Self(figures) = self;
        let mut build = encoder.encode_descriptor("build", "The program.", None, MetricType::Info)?;
        build.encode_info(&Build { version: env!("CARGO_PKG_VERSION") })?;
        entries(figures, &mut encoder)?;
        store(figures, &mut encoder)?;
        approvals(&figures.approvals, &mut encoder)?;
        hosts(figures, &mut encoder)?;
        let help = "For how long the CA key that signs has done so.";
        let mut ages = encoder.encode_descriptor("ca_key_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (ca, age) in &figures.key_ages {
            ConstGauge::new(*age).encode(ages.encode_family(&labels(ca, []))?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), std::fmt::Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), std::fmt::Error> {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

/// The log: what this process wrote into it, and its head.
fn entries(figures: &Figures, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let help = "Log entries that this process wrote, by kind.";
    let mut written = encoder.encode_descriptor("log_written", help, None, MetricType::Counter)?;
    for (kind, count) in &figures.entries {
        ConstCounter::new(*count).encode(written.encode_family(&Kind { kind })?)?;
    }
    let Some((size, at)) = figures.log else { return Ok(()) };
    gauge(encoder, "log_entries", "Entries in the log, by whomever they were written.", size)?;
    let help = "The time of the log's last entry, since the epoch.";
    let mut last = encoder.encode_descriptor("log_last_entry", help, Some(&Unit::Seconds), MetricType::Gauge)?;
    last.encode_gauge(&at.unix())
}

/// The queue in front of the disk, and what comes out of it.
fn store(figures: &Figures, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let store = figures.store;
    gauge(encoder, "store_waiting", "Changes that wait for the disk or are being written.", store.waiting)?;
    counter(encoder, "store_refused", "Changes turned away because too many waited.", store.refused)?;
    counter(encoder, "store_changes", "Changes that were answered.", store.members)?;
    counter(encoder, "store_commits", "Groups of changes, each with one durable commit.", store.groups)?;
    let help = "Whether what is in the write-ahead log goes into the database file, which is ours and whole.";
    gauge(encoder, "store_file_up", help, u64::from(store.is_merging))?;
    let help = "Pages that are in the write-ahead log alone; none with PostgreSQL.";
    gauge(encoder, "store_unmerged_pages", help, store.unmerged)?;
    counter(encoder, "store_commits_failed", "Groups that the database failed to write.", store.failed)?;
    let help = "Time spent on groups of changes.";
    let mut spent = encoder.encode_descriptor("store_commit", help, Some(&Unit::Seconds), MetricType::Counter)?;
    let seconds = std::time::Duration::from_micros(store.micros).as_secs_f64();
    spent.encode_counter::<NoLabelSet, _, u64>(&seconds, None)
}

/// How long people took to approve.
fn approvals(waits: &Waits, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let bounds = WAIT_SECONDS.iter().map(|bound| f64::from(*bound)).chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = bounds.zip(waits.counts).collect();
    let help = "From a request to the approval that granted it, where people were asked.";
    let mut took = encoder.encode_descriptor("approval", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    let sum = std::time::Duration::from_secs(waits.sum_s).as_secs_f64();
    took.encode_histogram::<NoLabelSet>(sum, waits.counts.iter().sum(), &buckets, None)
}

fn hosts(figures: &Figures, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    gauge(encoder, "hosts", "Enrolled hosts.", figures.hosts)?;
    let help = "Enrolled hosts that need a look: silent for too long, behind the trust bundle, without a guard, with a clock that is off.";
    let mut unwell = encoder.encode_descriptor("hosts_unwell", help, None, MetricType::Gauge)?;
    let conditions = [
        ("stale", figures.hosts_stale),
        ("behind", figures.hosts_behind),
        ("unguarded", figures.hosts_unguarded),
        ("clock_off", figures.hosts_clock_off),
    ];
    for (condition, count) in conditions {
        ConstGauge::new(count).encode(unwell.encode_family(&Condition { condition })?)?;
    }
    Ok(())
}
