//! The host sessions that were read last: ten thousand hosts show the same token for an hour, and none of them needs the store for it.
//!
//! Invariants: what is kept is as the service sealed it, and each use checks it again, against the time and the inventory of now. A session never
//! changes, and the store deletes none before it is over, so that what is kept is what would be read.
//!
//! What not: people's sessions. Whoever logs out is out at once, on every node; so those are read at each call.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::identity::host::HostSession;
use crate::identity::session::TokenHash;
use crate::time::Timestamp;

/// How many are kept: as many as a node can have connections. Some 300 bytes each, where a host takes four thousand.
const KEPT_MAX: usize = 100_000;

/// The sessions, by the hash of their token.
#[derive(Debug, Default)]
pub(super) struct HostTokens(Mutex<BTreeMap<TokenHash, HostSession>>);

impl HostTokens {
    /// The session of this token, if it is kept.
    pub(super) fn get(&self, token: TokenHash) -> Option<HostSession> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&token).cloned()
    }

    /// Lets go of a session that proves nothing any more.
    pub(super) fn forget(&self, token: TokenHash) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
    }

    /// Keeps a session that the store has. When there is no place, those that are over at `now` go, or else all: they are read again.
    pub(super) fn keep(&self, session: &HostSession, now: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, session| now < session.expires());
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(session.token, session.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::HostName;

    fn session(number: usize, opened: u64) -> HostSession {
        let mut token = [0; 32];
        token[..8].copy_from_slice(&number.to_be_bytes());
        let key = crate::ssh::private::SessionKey::generate([9; 32]).public_key().fingerprint();
        let opened = Timestamp::from_unix(1_767_607_200 + opened).unwrap();
        HostSession { token: TokenHash(token), host: HostName::parse("web-1").unwrap(), key, opened, seal: [0; 32] }
    }

    #[test]
    fn as_many_are_kept_as_there_are_places_and_what_is_over_goes_first() {
        let (tokens, first) = (HostTokens::default(), session(0, 0));
        let (begin, later) = (first.opened, session(0, 3600).opened);
        tokens.keep(&first, begin);
        for number in 1..KEPT_MAX {
            tokens.keep(
                &HostSession { token: session(number, 1).token, opened: session(0, 1).opened, ..first.clone() },
                begin,
            );
        }
        assert_eq!(tokens.get(first.token), Some(first.clone()));
        tokens.keep(&session(KEPT_MAX, 3600), later);
        assert_eq!(tokens.get(first.token), None, "it is over");
        assert!(tokens.get(session(1, 1).token).is_some(), "it is not");
        tokens.keep(&session(KEPT_MAX + 1, 3600), begin);
        assert_eq!(tokens.0.lock().unwrap().len(), 1);
    }
}
