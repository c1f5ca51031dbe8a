//! Figures for Prometheus. Labels come from closed lists (route patterns, methods, status classes), never from input.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::process::Process;
use super::{admission, figures};
use crate::keyring::Ca;
use crate::sandbox::Standing;
use crate::service::Service;
use crate::service::figures::Figures;

/// Upper bounds of the duration histogram, in seconds. Our own choice: from an answer out of memory to the usual deadline.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The figures and their registry.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    process: Registry,
    exchanges: Family<Exchange, Counter>,
    seconds: Seconds,
    /// Connections open now.
    pub(super) connections: Gauge,
    /// Event streams open now.
    pub(super) streams: Gauge,
    /// The queues'.
    pub(super) admission: admission::Figures,
}

/// Durations by route.
type Seconds = Family<Route, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exchange {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// Counts while it lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Counted {
    /// One more.
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Labels of a CA key: what it signs, the user CA if that has a name, and what else is said of it.
pub(super) fn labels<const N: usize>(ca: &Ca, more: [(&'static str, String); N]) -> Vec<(&'static str, String)> {
    let name = ca.named().map(|name| ("ca", name.to_string()));
    std::iter::once(("purpose", ca.purpose().to_string())).chain(name).chain(more).collect()
}

/// The CA keys' figures, read from the service at each scrape.
#[derive(Debug)]
struct CaKeys(Arc<Service>);

impl Collector for CaKeys {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let keys = self.0.key_figures();
        let help = "Whether the CA key that signs can be used, as far as is known without asking it.";
        let mut up = encoder.encode_descriptor("ca_key_up", help, None, MetricType::Gauge)?;
        for key in &keys {
            let labels = labels(&key.ca, []);
            ConstGauge::new(i64::from(key.is_up)).encode(up.encode_family(&labels)?)?;
        }
        self.encode_backends(&mut encoder)?;
        let help = "Certificates by CA key: signed, or failed (no signature, a wrong one, none in time).";
        let mut signatures = encoder.encode_descriptor("ca_signatures", help, None, MetricType::Counter)?;
        for key in &keys {
            for (outcome, count) in [("signed", key.signed), ("failed", key.failed)] {
                let labels = labels(&key.ca, [("outcome", outcome.to_owned())]);
                ConstCounter::new(count).encode(signatures.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl CaKeys {
    /// All configured keys, and the rotations that are due. Keys are those of the configuration, so there are few.
    fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Whether a configured CA key can be used, as far as is known without asking it.";
        let mut up = encoder.encode_descriptor("ca_backend_up", help, None, MetricType::Gauge)?;
        for one in self.0.backend_figures() {
            let state = one.state.map_or("next", crate::ssh::bundle::KeyState::word);
            let labels = labels(&one.ca, [("state", state.to_owned()), ("key", one.key.to_string())]);
            ConstGauge::new(i64::from(one.is_up)).encode(up.encode_family(&labels)?)?;
        }
        let help =
            "How many seconds a CA key has signed whose rotation is due, by what that waits for: start, switch, key.";
        let mut due = encoder.encode_descriptor("ca_rotation_due_seconds", help, None, MetricType::Gauge)?;
        for one in self.0.rotation_due() {
            let labels = labels(&one.ca, [("waits", one.waits.word().to_owned())]);
            ConstGauge::new(i64::from(one.age.seconds())).encode(due.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What the process denies itself, which it does once, at its start.
#[derive(Debug)]
struct Sandbox(Standing);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Restricted {
    part: &'static str,
}

impl Collector for Sandbox {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Whether the process denies itself what it does not need, by what: calls, files, connections, signals, memory.";
        let mut sandbox = encoder.encode_descriptor("sandbox", help, None, MetricType::Gauge)?;
        for (part, is_restricted) in (self.0).0 {
            let labels = Restricted { part: part.word() };
            ConstGauge::new(i64::from(is_restricted)).encode(sandbox.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Metrics {
    pub(super) fn new(service: Arc<Service>, sandbox: Standing) -> Self {
        let mut registry = Registry::with_prefix("hallpass");
        registry.register_collector(Box::new(CaKeys(service)));
        registry.register_collector(Box::new(Sandbox(sandbox)));
        let exchanges = Family::<Exchange, Counter>::default();
        let seconds = Seconds::new_with_constructor(|| Histogram::new(SECONDS));
        let connections = Gauge::default();
        let streams = Gauge::default();
        registry.register("http_exchanges", "HTTP exchanges by route, method and status", exchanges.clone());
        registry.register("http_exchange_seconds", "Time to the head of the answer", seconds.clone());
        registry.register("http_connections", "Connections open now", connections.clone());
        registry.register("http_event_streams", "Event streams open now", streams.clone());
        let admission = admission::Figures::registered(&mut registry);
        let mut process = Registry::default();
        process.register_collector(Box::new(Process));
        Self { registry, process, exchanges, seconds, connections, streams, admission }
    }

    /// One exchange is over (its head at least). `route` is a pattern of the router, never a path as sent.
    pub(super) fn exchange(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let route = route.to_owned();
        self.seconds.get_or_create(&Route { route: route.clone() }).observe(took.as_secs_f64());
        let labels = Exchange { route, method: known_method(method), status: status.as_u16() };
        self.exchanges.get_or_create(&labels).inc();
    }

    /// The text of the `OpenMetrics` exposition format, with the service's own figures.
    pub(super) fn text(&self, figures: Figures) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        for registry in [&self.registry, &figures::registry(figures), &self.process] {
            encode_registry(&mut text, registry)?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }
}

fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
