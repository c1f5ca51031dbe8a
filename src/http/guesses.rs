//! What guessing tokens costs: a token is looked up in the store before anybody knows whose it is, and nobody's counts against the
//! address that it came from. Once an address has used up its rate with such, only tokens that were somebody's here lately are looked up for it,
//! until it may call again: whoever sits behind the same address and has called before notices nothing of the guesser.
//!
//! What not: no tokens are kept, only 64 bits of a hash of each, under a key that is this process's own. Two tokens with the same
//! bits would cost one more look in the store and nothing else: what a token is good for is found there at each call.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most tokens of a generation. Our own choice: half a megabyte, and more people, browsers and hosts than call one node within minutes.
const TOKENS_MAX: usize = 16_384;

/// Addresses kept before those are swept out that may call again.
const ADDRESSES_BEFORE_SWEEP: usize = 10_000;

/// See above.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    hasher: RandomState,
    tokens: Mutex<Tokens>,
    /// Until when an address has used up its rate.
    spent: Mutex<BTreeMap<IpAddr, Instant>>,
}

/// Two generations: the older is forgotten when the younger is full. What is used stays.
#[derive(Debug, Default)]
struct Tokens {
    young: BTreeSet<u64>,
    old: BTreeSet<u64>,
}

impl Guesses {
    /// This token is somebody's.
    pub(super) fn is_good(&self, token: &str) {
        let hash = self.hasher.hash_one(token);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.young.insert(hash);
        if tokens.young.len() >= TOKENS_MAX {
            tokens.old = std::mem::take(&mut tokens.young);
        }
    }

    /// This address has used up its rate with tokens that are nobody's.
    pub(super) fn spent(&self, address: IpAddr, wait: Duration, now: Instant) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.len() >= ADDRESSES_BEFORE_SWEEP {
            spent.retain(|_, until| *until > now);
        }
        if let Some(until) = now.checked_add(wait) {
            spent.insert(address, until);
        }
    }

    /// How long this token is not to be looked up for this address; `None`: it may be now.
    pub(super) fn wait(&self, address: IpAddr, token: &str, now: Instant) -> Option<Duration> {
        let until = self.spent.lock().unwrap_or_else(PoisonError::into_inner).get(&address).copied()?;
        let wait = until.checked_duration_since(now).filter(|wait| !wait.is_zero())?;
        let hash = self.hasher.hash_one(token);
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        (!tokens.young.contains(&hash) && !tokens.old.contains(&hash)).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_an_address_without_a_rate_only_known_tokens_are_looked_up_until_it_has_one_again() {
        let (guesses, now, second) = (Guesses::default(), Instant::now(), Duration::from_secs(1));
        let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        guesses.is_good("hps_good");
        assert_eq!(guesses.wait(here, "hps_guess", now), None);
        guesses.spent(here, second, now);
        assert_eq!(guesses.wait(here, "hps_guess", now), Some(second));
        assert_eq!(guesses.wait(here, "hps_good", now), None);
        assert_eq!(guesses.wait(there, "hps_guess", now), None);
        assert_eq!(guesses.wait(here, "hps_guess", now + second), None);
    }

    #[test]
    fn what_is_kept_has_a_limit_and_what_is_used_stays() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        guesses.spent(here, Duration::from_secs(9), now);
        for n in 0..4 * TOKENS_MAX {
            guesses.is_good(&format!("hps_{n}"));
            guesses.is_good("hps_used");
        }
        assert_eq!(guesses.wait(here, "hps_used", now), None);
        assert!(guesses.wait(here, "hps_0", now).is_some(), "forgotten");
        let tokens = guesses.tokens.lock().unwrap();
        assert!(tokens.young.len() + tokens.old.len() <= 2 * TOKENS_MAX);
        for n in 0..2 * u32::try_from(ADDRESSES_BEFORE_SWEEP).unwrap() {
            let later = now + Duration::from_secs(10) * n;
            guesses.spent(IpAddr::V4(n.into()), Duration::from_secs(1), later);
        }
        assert!(guesses.spent.lock().unwrap().len() <= ADDRESSES_BEFORE_SWEEP);
    }
}
