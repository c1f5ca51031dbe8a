//! How often somebody may call, and how many connections and event streams they may hold.
//!
//! Three buckets: by host for enrolled ones; by person once a session is known (whatever address, so that a shared office address starves nobody), by address
//! before that (so that nobody without a session can make us work without limit). An IPv6 address counts by its /64, which is
//! what one customer gets at least; connections are counted by its /48 too, which is what many get.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};

use super::error::Problem;
use crate::name::{HostName, PersonName};
use crate::ssh::Fingerprint;

/// Buckets kept before full ones are swept out. Our own choice: about a megabyte.
const BUCKETS_BEFORE_SWEEP: usize = 10_000;

/// Most event streams one person may hold. Our own choice: a terminal each for more requests than anyone waits for.
const STREAMS_PER_PERSON_MAX: usize = 64;

/// How often a host may call: in a minute about as often as it polls in an hour, and a burst for draining what it could not deliver. Our
/// own choice.
const HOST_PER_S: NonZeroU32 = NonZeroU32::MIN;
const HOST_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);

/// How often a host may log in to itself with each CA key: at enrolment some times, later now and then; each is two entries of the log. Our own choice.
const CHECKS_PER_HOUR: NonZeroU32 = NonZeroU32::MIN.saturating_add(11);
const CHECKS_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(11);

/// How many reports of sessions a host may send: what it kept while it could not reach us, and then what people do. Our own choice: root
/// on one host must not be able to fill the log.
const REPORTS_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(119);
const REPORTS_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);

/// How often a host may tell of itself: every few minutes, and when something changes. Our own choice.
const CHECK_INS_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
const CHECK_INS_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);

/// Most event streams of one host: the daemon's, and one that has not noticed yet that it is dead. Our own choice.
const STREAMS_PER_HOST_MAX: usize = 4;

/// A quarter of all connections may be in their handshake, but so many always. Our own choice: a crowd that comes at once.
const HANDSHAKES_MIN: usize = 128;

/// One address has an eighth of those, but so many always. Our own choice: an office's crowd has its handshakes done in two round trips each, and
/// nobody with a few addresses locks all others out.
const HANDSHAKES_EACH_MIN: usize = 64;

/// The limits of one server.
#[derive(Debug)]
pub(super) struct Limits {
    clock: DefaultClock,
    people: DefaultKeyedRateLimiter<PersonName>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    hosts: DefaultKeyedRateLimiter<HostName>,
    /// Each CA key counts for itself: several rotations in an hour must not stop proofs.
    checks: DefaultKeyedRateLimiter<(HostName, Fingerprint)>,
    check_ins: DefaultKeyedRateLimiter<HostName>,
    reports: DefaultKeyedRateLimiter<HostName>,
    streams: Places<PersonName>,
    host_streams: Places<HostName>,
    connections: Places<IpAddr>,
    /// By /48; IPv6 only.
    sites: Places<IpAddr>,
    /// Connections whose TLS handshake is not done: all of them, by address, and by /48.
    handshakes: Places<()>,
    handshakes_each: Places<IpAddr>,
    handshakes_site: Places<IpAddr>,
}

/// What one connection takes of its address's share, and of its /48's; given back when dropped.
pub(super) type Share = (Place<IpAddr>, Option<Place<IpAddr>>);

/// So many places for each key.
#[derive(Debug)]
struct Places<K: Ord> {
    each: usize,
    taken: Arc<Mutex<BTreeMap<K, usize>>>,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place<K: Ord> {
    key: K,
    taken: Arc<Mutex<BTreeMap<K, usize>>>,
}

impl<K: Ord + Clone> Places<K> {
    fn new(each: usize) -> Self {
        Self { each, taken: Arc::default() }
    }

    /// A place for this key, if there is one left.
    fn take(&self, key: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let held = taken.entry(key.clone()).or_default();
        if *held >= self.each {
            return None;
        }
        *held = held.saturating_add(1);
        Some(Place { key, taken: Arc::clone(&self.taken) })
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = taken.get_mut(&self.key) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

impl Limits {
    /// Zero means the least there is, one.
    pub(super) fn new(rate_per_s: u32, burst: u32, connections_max: usize) -> Self {
        let atleast_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let handshakes = (connections_max / 4).max(HANDSHAKES_MIN).min(connections_max).max(1);
        let quota = Quota::per_second(atleast_one(rate_per_s)).allow_burst(atleast_one(burst));
        Self {
            clock: DefaultClock::default(),
            people: DefaultKeyedRateLimiter::keyed(quota),
            addresses: DefaultKeyedRateLimiter::keyed(quota),
            hosts: DefaultKeyedRateLimiter::keyed(Quota::per_second(HOST_PER_S).allow_burst(HOST_BURST)),
            checks: DefaultKeyedRateLimiter::keyed(Quota::per_hour(CHECKS_PER_HOUR).allow_burst(CHECKS_BURST)),
            check_ins: DefaultKeyedRateLimiter::keyed(
                Quota::per_minute(CHECK_INS_PER_MINUTE).allow_burst(CHECK_INS_BURST),
            ),
            reports: DefaultKeyedRateLimiter::keyed(Quota::per_minute(REPORTS_PER_MINUTE).allow_burst(REPORTS_BURST)),
            streams: Places::new(STREAMS_PER_PERSON_MAX),
            host_streams: Places::new(STREAMS_PER_HOST_MAX),
            // Half of all: an office may sit behind one address, but no address may lock all others out.
            connections: Places::new(connections_max.div_ceil(2).max(1)),
            sites: Places::new(connections_max.saturating_sub(connections_max / 4).max(1)),
            handshakes: Places::new(handshakes),
            handshakes_each: Places::new((handshakes / 8).max(HANDSHAKES_EACH_MIN).min(handshakes.div_ceil(2))),
            handshakes_site: Places::new(handshakes.div_ceil(2)),
        }
    }

    /// Counts a call of this person.
    pub(super) fn person(&self, person: &PersonName) -> Result<(), Problem> {
        if self.people.len() > BUCKETS_BEFORE_SWEEP {
            self.people.retain_recent();
        }
        self.people.check_key(person).map_err(|until| too_often(until.wait_time_from(self.clock.now())))
    }

    /// Counts a call of this host.
    pub(super) fn host(&self, host: &HostName) -> Result<(), Problem> {
        self.hosts.check_key(host).map_err(|until| too_often(until.wait_time_from(self.clock.now())))
    }

    /// Counts a check certificate of this host by this CA key, which must be one that there is.
    pub(super) fn check(&self, host: &HostName, ca: Fingerprint) -> Result<(), Problem> {
        if self.checks.len() > BUCKETS_BEFORE_SWEEP {
            self.checks.retain_recent();
        }
        self.checks.check_key(&(host.clone(), ca)).map_err(|until| too_often(until.wait_time_from(self.clock.now())))
    }

    /// Counts a check-in of this host.
    pub(super) fn check_in(&self, host: &HostName) -> Result<(), Problem> {
        self.check_ins.check_key(host).map_err(|until| too_often(until.wait_time_from(self.clock.now())))
    }

    /// Counts so many reports of this host.
    pub(super) fn reports(&self, host: &HostName, count: usize) -> Result<(), Problem> {
        let Some(count) = u32::try_from(count).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        match self.reports.check_key_n(host, count) {
            Ok(counted) => counted.map_err(|until| too_often(until.wait_time_from(self.clock.now()))),
            // More than there can ever be at once; the service says how many it takes.
            Err(_) => Ok(()),
        }
    }

    /// One more event stream for this host.
    pub(super) fn host_stream(&self, host: &HostName) -> Result<Place<HostName>, Problem> {
        self.host_streams.take(host.clone()).ok_or_else(|| {
            let title = format!("this host has {STREAMS_PER_HOST_MAX} event streams already");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many", &title).after(20)
        })
    }

    /// Counts a call from this address without a session.
    pub(super) fn address(&self, address: IpAddr) -> Result<(), Problem> {
        if self.addresses.len() > BUCKETS_BEFORE_SWEEP {
            self.addresses.retain_recent();
        }
        self.addresses.check_key(&network(address)).map_err(|until| too_often(until.wait_time_from(self.clock.now())))
    }

    /// One more event stream for this person.
    pub(super) fn stream(&self, person: &PersonName) -> Result<Place<PersonName>, Problem> {
        self.streams.take(person.clone()).ok_or_else(|| {
            let title = format!("you are waiting on {STREAMS_PER_PERSON_MAX} requests already");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many", &title).after(20)
        })
    }

    /// One more connection from this address, if it does not hold its share already.
    pub(super) fn connection(&self, address: IpAddr) -> Option<Share> {
        let place = self.connections.take(network(address))?;
        match site(address) {
            Some(site) => Some((place, Some(self.sites.take(site)?))),
            None => Some((place, None)),
        }
    }

    /// One more connection from this address whose handshake is not done; these cost nothing to open, so they are fewer.
    pub(super) fn handshake(&self, address: IpAddr) -> Option<(Share, Place<()>)> {
        let place = self.handshakes_each.take(network(address))?;
        let of_site = match site(address) {
            Some(site) => Some(self.handshakes_site.take(site)?),
            None => None,
        };
        Some(((place, of_site), self.handshakes.take(())?))
    }
}

fn too_often(wait: std::time::Duration) -> Problem {
    let seconds = wait.as_secs().saturating_add(1);
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many", "too many calls")
        .why([format!("try again in {seconds} s")])
        .after(seconds)
}

/// What an address is counted as.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The /48 of an IPv6 address.
fn site(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Some(IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str) -> PersonName {
        PersonName::parse(name).unwrap()
    }

    #[test]
    fn a_burst_is_allowed_and_the_next_call_is_told_when_to_come_back() {
        let limits = Limits::new(1, 3, 2);
        for _ in 0..3 {
            limits.person(&person("alice")).unwrap();
        }
        let refused = limits.person(&person("alice")).unwrap_err();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.body.retryable);
        limits.person(&person("bob")).unwrap();
        limits.address("10.0.0.1".parse().unwrap()).unwrap();
    }

    #[test]
    fn a_host_can_send_what_it_kept_but_not_fill_the_log() {
        let limits = Limits::new(1, 1, 5);
        let (busy, quiet) = (HostName::parse("web-1").unwrap(), HostName::parse("web-2").unwrap());
        for _ in 0..16 {
            limits.reports(&busy, 256).unwrap();
        }
        assert!(limits.reports(&busy, 256).unwrap_err().body.retryable);
        limits.reports(&busy, 0).unwrap();
        limits.reports(&quiet, 256).unwrap();
        for _ in 0..30 {
            limits.check_in(&busy).unwrap();
        }
        limits.check_in(&busy).unwrap_err();
        limits.check_in(&quiet).unwrap();
    }

    #[test]
    fn addresses_of_one_network_share_a_bucket_and_others_do_not() {
        let limits = Limits::new(1, 1, 5);
        limits.address("2001:db8::1".parse().unwrap()).unwrap();
        limits.address("2001:db8::ffff:2".parse().unwrap()).unwrap_err();
        limits.address("2001:db8:0:1::1".parse().unwrap()).unwrap();
        limits.address("10.0.0.1".parse().unwrap()).unwrap();
        limits.address("::ffff:10.0.0.1".parse().unwrap()).unwrap_err();
        limits.address("10.0.0.2".parse().unwrap()).unwrap();
    }

    #[test]
    fn streams_are_counted_by_person_and_given_back() {
        let limits = Limits::new(1, 1, 5);
        let held: Vec<_> = (0..STREAMS_PER_PERSON_MAX).map(|_| limits.stream(&person("alice")).unwrap()).collect();
        limits.stream(&person("alice")).unwrap_err();
        limits.stream(&person("bob")).unwrap();
        drop(held);
        limits.stream(&person("alice")).unwrap();
    }

    #[test]
    fn one_address_holds_at_most_half_of_all_connections() {
        let limits = Limits::new(1, 1, 5);
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let held: Vec<_> = (0..3).map(|_| limits.connection(one).unwrap()).collect();
        assert!(limits.connection(one).is_none());
        assert!(limits.connection(other).is_some());
        drop(held);
        assert!(limits.connection(one).is_some());
    }

    #[test]
    fn the_networks_of_one_site_hold_at_most_three_quarters_of_all_connections() {
        let limits = Limits::new(1, 1, 8);
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut held: Vec<_> = (0..6).map(|n| limits.connection(at(&format!("2001:db8:0:{n}::1"))).unwrap()).collect();
        assert!(limits.connection(at("2001:db8:0:9::1")).is_none());
        held.push(limits.connection(at("2001:db8:1::1")).unwrap());
        held.push(limits.connection(at("10.0.0.1")).unwrap());
    }

    #[test]
    fn connections_without_a_handshake_are_a_quarter_of_all_and_an_eighth_of_that_for_one_address() {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let limits = Limits::new(1, 1, 4_096);
        let take = |n, count: usize| (0..count).map(|_| limits.handshake(address(n)).unwrap()).collect::<Vec<_>>();
        let mut held: Vec<_> = (0..7).flat_map(|n| take(n, 128)).collect();
        assert!(limits.handshake(address(0)).is_none());
        held.extend(take(7, 128));
        assert!(limits.handshake(address(8)).is_none(), "all are taken");
        drop(held);
        assert!(limits.handshake(address(8)).is_some());
        let at = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, n, 0, 0, 0, 1]);
        let held: Vec<_> = (0..512).map(|n| limits.handshake(at(n / 128)).unwrap()).collect();
        assert!(limits.handshake(at(9)).is_none(), "the networks of one site have half");
        drop(held);
        assert!(limits.handshake(at(9)).is_some());
    }

    #[test]
    fn a_small_server_gives_an_address_half_of_its_handshakes_at_most() {
        for (all, each) in [(1_000, 64), (128, 64), (100, 50), (1, 1)] {
            let limits = Limits::new(1, 1, all);
            let held: Vec<_> = std::iter::from_fn(|| limits.handshake(IpAddr::from([10, 0, 0, 1]))).collect();
            assert_eq!(held.len(), each, "{all}");
        }
    }
}
