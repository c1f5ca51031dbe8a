//! Challenges, logins by SSH key, sessions.
//!
//! What not: rate limits, which the HTTP edge keeps per address and person. A refused login is traced, not logged:
//! whoever is not authenticated must not be able to make the audit log grow.

use std::sync::Arc;

use secrecy::SecretString;

use super::{ATTEMPTS, Failure, Outcome, Service, whole};
use crate::audit::event::Event;
use crate::identity::Proven;
use crate::identity::challenge::{Answer, CHALLENGE_LIFETIME, LoginRefusal, check, issue};
use crate::identity::session::{SESSION_LIFETIME, Session, SessionRefusal, hash, mint};
use crate::store::{Change, Save, StoreError};
use crate::time::{TimeError, Timestamp};

/// A new session, with its secret token.
#[derive(Debug)]
pub struct NewSession {
    /// The token for the `Authorization: Bearer` header.
    pub token: SecretString,
    /// Who it proves.
    pub proven: Proven,
    /// Until when.
    pub expires: Timestamp,
}

/// Longest address kept in the log: an IPv6 address with zone and port.
const ADDRESS_CHARS_MAX: usize = 80;

impl Service {
    /// A challenge and when it expires. Stores nothing.
    ///
    /// # Errors
    /// `Unavailable` without randomness.
    pub fn challenge(&self) -> Outcome<(String, Timestamp)> {
        let now = self.clock.now();
        let expires = now.plus(CHALLENGE_LIFETIME).map_err(|why| out_of_time(&why))?;
        Ok((issue(&self.challenge_key, self.random()?, now), expires))
    }

    /// Checks an answer and opens a session. `address`: the caller's, for the log.
    ///
    /// # Errors
    /// `LoginRefused` for all reasons alike.
    pub async fn login(self: &Arc<Self>, answer: Answer, address: String) -> Outcome<NewSession> {
        let this = Arc::clone(self);
        whole(async move { this.log_in(&answer, &address).await }).await
    }

    async fn log_in(&self, answer: &Answer, address: &str) -> Outcome<NewSession> {
        for _ in 0..ATTEMPTS {
            if let Some(session) = self.open_session(answer, address).await? {
                return Ok(session);
            }
        }
        Err(Failure::contended())
    }

    /// One attempt. `None`: another node has put something else in force, by which the person or the key may be gone: a session that was
    /// opened after that was applied would come back with them.
    async fn open_session(&self, answer: &Answer, address: &str) -> Outcome<Option<NewSession>> {
        let address = shown_address(address);
        let refuse = |why: &LoginRefusal| {
            tracing::info!(person = %answer.person, %address, %why, "login refused");
            Failure::LoginRefused
        };
        let (guard, in_force) = self.hold_policy().await?;
        let now = self.clock.now();
        let server = self.settings.public_url.as_str();
        let (proven, redemption) =
            check(answer, &self.challenge_key, server, in_force.policy.directory(), &self.service_keys(), now)
                .map_err(|why| refuse(&why))?;

        let (token, token_hash) = mint(self.random()?);
        let expires = now.plus(self.settings.session.min(SESSION_LIFETIME)).map_err(|why| out_of_time(&why))?;
        let (person, key) = (proven.person().clone(), proven.key());
        let session = Session { token: token_hash, person: person.clone(), key, opened: now, expires, seal: [0; 32] };
        let session = session.sealed(&self.session_key);
        let change = Change {
            at: now,
            saves: vec![Save::Redeem(redemption), Save::NewSession(session)],
            events: vec![Event::LoggedIn { person, key, address: address.clone(), expires }],
        };
        match self.commit_decision(change).await {
            Ok(_) => {}
            Err(StoreError::Conflict) => return Ok(None),
            Err(StoreError::Replayed) => return Err(refuse(&LoginRefusal::Replayed)),
            Err(why) => return Err(why.into()),
        }
        drop(guard);
        tracing::info!(person = %proven.person(), %address, "logged in");
        Ok(Some(NewSession { token, proven, expires }))
    }

    /// Who a bearer token proves now, and until when. Rights are read anew at each use.
    ///
    /// # Errors
    /// `NotLoggedIn`.
    pub async fn caller(&self, token: &str) -> Outcome<(Proven, Timestamp)> {
        let Ok(token) = hash(token) else { return Err(Failure::NotLoggedIn) };
        self.check_was_whole()?;
        let Some(session) = self.store.session(token).await? else { return self.absent(Failure::NotLoggedIn).await };
        let (_, policy) = self.policy_now();
        match session.check(&self.session_key, policy.directory(), self.clock.now()) {
            Ok(proven) => Ok((proven, session.expires)),
            Err(SessionRefusal::Forged) => {
                let why = "a session in the database was not written by this service; look who else can write there";
                tracing::error!(person = %session.person, "{why}");
                Err(Failure::NotLoggedIn)
            }
            Err(why) => {
                tracing::debug!(person = %session.person, %why, "session refused");
                Err(Failure::NotLoggedIn)
            }
        }
    }

    /// Ends the session of this token, or all of the person's sessions.
    ///
    /// # Errors
    /// Store failures; `NotLoggedIn` when the token is not this person's.
    pub async fn logout(self: &Arc<Self>, proven: &Proven, token: &str, everywhere: bool) -> Outcome<()> {
        let Ok(token) = hash(token) else { return Err(Failure::NotLoggedIn) };
        let (this, person) = (Arc::clone(self), proven.person().clone());
        whole(async move {
            if this.store.session(token).await?.is_none_or(|session| session.person != person) {
                return Err(Failure::NotLoggedIn);
            }
            let save = if everywhere { Save::EndSessionsOf(person.clone()) } else { Save::EndSession(token) };
            let events = vec![Event::LoggedOut { person }];
            this.commit(Change { at: this.clock.now(), saves: vec![save], events }).await?;
            Ok(())
        })
        .await
    }
}

/// An address as the log keeps it.
pub(super) fn shown_address(address: &str) -> String {
    address.chars().filter(char::is_ascii_graphic).take(ADDRESS_CHARS_MAX).collect()
}

/// The clock stands at the end of time.
pub(super) fn out_of_time(why: &TimeError) -> Failure {
    Failure::Unavailable(format!("the service's clock is wrong: {why}"))
}
