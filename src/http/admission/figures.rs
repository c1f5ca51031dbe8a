//! What is counted of the queues. Labels are kinds of work, a closed list.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::kind::Kind;

/// Upper bounds of the waiting histogram, in seconds.
const WAIT_SECONDS: [f64; 6] = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5];

/// What is counted of all kinds.
#[derive(Debug)]
pub(in crate::http) struct Figures {
    shed: Family<Label, Counter>,
    waiting: Family<Label, Gauge>,
    under_way: Family<Label, Gauge>,
    seconds: Family<Label, Histogram, fn() -> Histogram>,
}

/// Of one kind.
#[derive(Debug)]
pub(super) struct LaneFigures {
    pub(super) shed: Counter,
    pub(super) waiting: Gauge,
    pub(super) under_way: Gauge,
    pub(super) seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    kind: &'static str,
}

impl Figures {
    /// In this registry.
    pub(in crate::http) fn registered(registry: &mut Registry) -> Self {
        let figures = Self {
            shed: Family::default(),
            waiting: Family::default(),
            under_way: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(WAIT_SECONDS)),
        };
        let help = "Calls turned away because more came than could be done, by kind";
        registry.register("http_shed", help, figures.shed.clone());
        registry.register("http_waiting", "Calls that wait for their turn, by kind", figures.waiting.clone());
        registry.register("http_under_way", "Calls that are being done, by kind", figures.under_way.clone());
        let help = "How long calls waited for their turn, by kind; of those that got one";
        registry.register("http_wait_seconds", help, figures.seconds.clone());
        figures
    }

    /// Those of one kind.
    pub(super) fn of(&self, kind: Kind) -> LaneFigures {
        let label = Label { kind: kind.word() };
        LaneFigures {
            shed: self.shed.get_or_create_owned(&label),
            waiting: self.waiting.get_or_create_owned(&label),
            under_way: self.under_way.get_or_create_owned(&label),
            seconds: self.seconds.get_or_create_owned(&label),
        }
    }
}
