//! Hosts that join, come back, and leave.
//!
//! What not: rate limits (the HTTP edge), and the host's side of it (`host`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;

use super::inventory::{Decided, active};
use super::{Failure, Outcome, Service, whole};
use crate::audit::host_event::HostEvent;
use crate::fail;
use crate::identity::challenge::{LoginRefusal, Redemption};
use crate::identity::host::{
    HostAnswer, HostProven, HostSession, ProvenKeys, challenge, check, hash_host, hash_join, mint_host,
};
use crate::identity::session::SessionRefusal;
use crate::inventory::enrol::{EnrolRefusal, Surroundings, Wish, enrol};
use crate::inventory::{EnrolledHost, Inventory};
use crate::name::{HostName, Tag};
use crate::policy::Policy;
use crate::ssh::host::HostPurpose;
use crate::store::{Note, Save, StoreError};
use crate::time::Timestamp;

/// What a host brings when it joins.
#[derive(Debug)]
pub struct Enrolment {
    /// The join token.
    pub token: SecretString,
    /// Tags.
    pub tags: BTreeSet<Tag>,
    /// Further names.
    pub names: BTreeSet<HostName>,
    /// Its name, and its keys with their signatures over the challenge for [`HostPurpose::Enrol`].
    pub answer: HostAnswer,
}

/// A new host session, with its secret token.
#[derive(Debug)]
pub struct NewHostSession {
    /// The token.
    pub token: SecretString,
    /// Which host it proves.
    pub proven: HostProven,
    /// Until when.
    pub expires: Timestamp,
}

impl Service {
    /// A challenge for this host and purpose, and when it expires. Stores nothing, and says nothing about whether there is such a host.
    ///
    /// # Errors
    /// `Unavailable` without randomness.
    pub fn host_challenge(&self, host: &HostName, purpose: HostPurpose) -> Outcome<(String, Timestamp)> {
        let now = self.clock.now();
        let expires = now.plus(crate::identity::challenge::CHALLENGE_LIFETIME);
        let expires = expires.map_err(|why| Failure::Unavailable(why.to_string()))?;
        Ok((challenge(&self.hosts.challenge_key, purpose, host, self.random()?, now), expires))
    }

    /// Lets a host join, or come again as what it was: token, enrolment and session in one commit, or nothing.
    ///
    /// # Errors
    /// `LoginRefused` when a signature or the challenge does not fit, `Enrol` when the rules say no.
    pub async fn enrol(self: &Arc<Self>, enrolment: Enrolment) -> Outcome<NewHostSession> {
        let Enrolment { token, tags, names, answer } = enrolment;
        let (proven, redemption) = self.check_answer(&answer)?;
        let hash = hash_join(secrecy::ExposeSecret::expose_secret(&token));
        let token = hash.map_err(|_form| Failure::Enrol(EnrolRefusal::Token))?;
        let wish = Wish { token, tags, names };
        let (secret, session) = self.new_host_session(proven.host(), &proven)?;
        let slot: Arc<Mutex<Option<HostSession>>> = Arc::default();
        let (this, decided) = (Arc::clone(self), Arc::clone(&slot));
        let redeem = redemption.clone();
        self.change_inventory(move |inventory, file| {
            let (decision, session) = this.decide_enrolment(inventory, file, (&proven, &wish), &redeem, &session)?;
            *decided.lock().unwrap_or_else(PoisonError::into_inner) = session;
            Ok(decision)
        })
        .await
        .inspect_err(|why| tracing::info!(host = %answer.host, %why, "a host was not enrolled"))?;
        fail::point("enrol.durable");
        let session = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let session = session.ok_or_else(|| Failure::internal("enrolling a host", "no session was made"))?;
        // Nothing was new but the session: then it is not saved yet.
        if self.store.host_session(session.token).await?.is_none() {
            self.keep_host_session(redemption, session.clone()).await?;
        }
        tracing::info!(host = %session.host, "a host enrolled");
        self.host_session_of(&session, secret)
    }

    fn decide_enrolment(
        &self,
        inventory: &Inventory,
        file: &Policy,
        (proven, wish): (&ProvenKeys, &Wish),
        redemption: &Redemption,
        session: &HostSession,
    ) -> Outcome<(Decided, Option<HostSession>)> {
        let service_keys = self.service_keys();
        let around = Surroundings { policy: file, service_keys: &service_keys };
        let event = match enrol(inventory, proven, wish.clone(), around, self.clock.now()) {
            Ok(event) => event,
            Err(EnrolRefusal::Known { known, why, event: Some(event) }) => {
                let refusal = Failure::Enrol(EnrolRefusal::Known { known, why, event: None });
                return Ok((Decided::Refuse(*event, refusal), None));
            }
            Err(why) => return Err(Failure::Enrol(why)),
        };
        let HostEvent::HostEnrolled { host, join, keys, names, tags } = &event else {
            return Err(Failure::internal("enrolling a host", "another event came of it"));
        };
        // The identity is settled by the rules; the session is the identity's.
        let key = keys.first().map(crate::ssh::PublicKey::fingerprint);
        let key = key.ok_or_else(|| Failure::internal("enrolling a host", "it has no key"))?;
        let session = HostSession { key, ..session.clone() }.sealed(&self.hosts.session_key);
        let known = inventory.host(host).filter(|known| known.is_active);
        let is_news = known
            .is_none_or(|known| (&known.join, &known.keys, &known.names, &known.tags) != (join, keys, names, tags));
        if !is_news {
            return Ok((Decided::Nothing, Some(session)));
        }
        let saves = vec![Save::Redeem(redemption.clone()), Save::NewHostSession(session.clone())];
        Ok((Decided::Change(event, saves), Some(session)))
    }

    /// Checks an answer to a challenge of ours.
    fn check_answer(&self, answer: &HostAnswer) -> Outcome<(ProvenKeys, Redemption)> {
        let server = self.settings.public_url.as_str();
        check(answer, &self.hosts.challenge_key, server, self.clock.now()).map_err(|why| refuse(&answer.host, &why))
    }

    fn new_host_session(&self, host: &HostName, proven: &ProvenKeys) -> Outcome<(SecretString, HostSession)> {
        let (secret, token) = mint_host(self.random()?);
        let key = proven.keys().first().map(crate::ssh::PublicKey::fingerprint).ok_or(Failure::LoginRefused)?;
        let session = HostSession { token, host: host.clone(), key, opened: self.clock.now(), seal: [0; 32] };
        Ok((secret, session.sealed(&self.hosts.session_key)))
    }

    async fn keep_host_session(&self, redemption: Redemption, session: HostSession) -> Outcome<()> {
        self.check_clock()?;
        let host = session.host.clone();
        match self.store.note(Note::HostSession { redemption, session }).await {
            Ok(()) => Ok(()),
            Err(StoreError::Replayed) => Err(refuse(&host, &LoginRefusal::Replayed)),
            Err(why) => Err(why.into()),
        }
    }

    fn host_session_of(&self, session: &HostSession, token: SecretString) -> Outcome<NewHostSession> {
        let proven = self.check_host_session(session).map_err(|_gone| Failure::LoginRefused)?;
        Ok(NewHostSession { token, proven, expires: session.expires() })
    }

    /// Opens a session for a host that shows its identity key.
    ///
    /// # Errors
    /// `LoginRefused` for all reasons alike, but `Forbidden` for one that is retired.
    pub async fn host_login(self: &Arc<Self>, answer: HostAnswer) -> Outcome<NewHostSession> {
        let this = Arc::clone(self);
        whole(async move {
            this.settle_with_others().await?;
            let (proven, redemption) = this.check_answer(&answer)?;
            let known = this.inventory().host(&answer.host).and_then(EnrolledHost::identity).cloned();
            if known.as_ref() != proven.keys().first() {
                return Err(refuse(&answer.host, &LoginRefusal::Unknown));
            }
            // It has shown whose key it has, so that it may be told; what it had before is good for an hour at most.
            this.active_host(&answer.host)?;
            let (secret, session) = this.new_host_session(&answer.host, &proven)?;
            this.keep_host_session(redemption, session.clone()).await?;
            this.host_session_of(&session, secret)
        })
        .await
    }

    /// Which host a host token proves now. A retired host is still told that it is, while the token lasts that it had.
    ///
    /// # Errors
    /// `NotLoggedIn`.
    pub async fn host_caller(&self, token: &str) -> Outcome<HostProven> {
        let Ok(token) = hash_host(token) else { return Err(Failure::NotLoggedIn) };
        self.check_was_whole()?;
        let kept = self.hosts.tokens.get(token);
        let is_kept = kept.is_some();
        let session = match kept {
            Some(session) => session,
            None => match self.store.host_session(token).await? {
                Some(session) => session,
                None => return self.absent(Failure::NotLoggedIn).await,
            },
        };
        let proven = self.check_host_session(&session).map_err(|why| {
            self.hosts.tokens.forget(token);
            if why == SessionRefusal::Forged {
                let why =
                    "a host session in the database was not written by this service; look who else can write there";
                tracing::error!(host = %session.host, "{why}");
            }
            Failure::NotLoggedIn
        })?;
        if !is_kept {
            self.hosts.tokens.keep(&session, self.clock.now());
        }
        Ok(proven)
    }

    fn check_host_session(&self, session: &HostSession) -> Result<HostProven, SessionRefusal> {
        let inventory = self.inventory();
        let identity = inventory.host(&session.host).and_then(EnrolledHost::identity);
        let identity = identity.map(crate::ssh::PublicKey::fingerprint);
        session.check(&self.hosts.session_key, identity, self.clock.now())
    }

    /// The enrolled host that calls.
    ///
    /// # Errors
    /// `Forbidden` when it is retired.
    pub(super) fn enrolled(&self, by: &HostProven) -> Outcome<EnrolledHost> {
        self.active_host(by.host())
    }

    fn active_host(&self, name: &HostName) -> Outcome<EnrolledHost> {
        let inventory = self.inventory();
        let host = inventory.host(name).filter(|host| host.is_active).cloned();
        let why = "to use it again, enrol it with a join token that is made now (hallpass admin join create";
        host.ok_or_else(|| Failure::Forbidden(format!("host {name} is retired; {why} {name})")))
    }

    /// The host takes itself out.
    ///
    /// # Errors
    /// `NotFound` when it is out already.
    pub async fn leave(self: &Arc<Self>, by: &HostProven) -> Outcome<()> {
        let name = by.host().clone();
        self.change_inventory(move |inventory, _| {
            active(inventory, &name)?;
            Ok(Decided::Change(HostEvent::HostLeft { host: name.clone() }, Vec::new()))
        })
        .await
    }
}

fn refuse(host: &HostName, why: &LoginRefusal) -> Failure {
    tracing::info!(%host, %why, "a host was refused");
    Failure::LoginRefused
}
