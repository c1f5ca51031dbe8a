//! Browsers: sign-in tokens for those who are logged in, what they open, and who a browser's cookie proves.
//!
//! What not: cookies and pages, which are the HTTP edge's. A refused sign-in is traced, not logged, as a refused login is.

use std::sync::Arc;

use secrecy::SecretString;

use super::login::shown_address;
use super::{Failure, Outcome, Service, whole};
use crate::audit::event::Event;
use crate::identity::Proven;
use crate::identity::browser::{BrowserSession, SIGN_IN_LIFETIME, SignIn, hash_browser, mint_browser};
use crate::identity::challenge::LoginRefusal;
use crate::identity::session::{Session, SessionRefusal, TokenHash, hash};
use crate::policy::Policy;
use crate::store::{Change, Save, StoreError};
use crate::time::Timestamp;

/// A new session of a browser, with its secret token.
#[derive(Debug)]
pub struct NewBrowser {
    /// The token for its cookie.
    pub token: SecretString,
    /// Who it proves.
    pub proven: Proven,
    /// Until when.
    pub expires: Timestamp,
}

/// A browser with a live session.
#[derive(Clone, Debug)]
pub struct Browser {
    /// Who.
    pub proven: Proven,
    /// Until when.
    pub expires: Timestamp,
    /// What its forms carry.
    pub form_token: SecretString,
    /// Whether they read everything (operators and auditors), for what pages offer; each call looks again.
    pub reads_all: bool,
    session: TokenHash,
}

impl Service {
    /// A sign-in token for a browser of whoever holds the session with this token, and when it ends. Stores nothing.
    ///
    /// # Errors
    /// `NotLoggedIn`; `Unavailable` without randomness.
    pub async fn sign_in_token(&self, token: &str) -> Outcome<(SecretString, Timestamp)> {
        self.caller(token).await?;
        let Ok(session) = hash(token) else { return Err(Failure::NotLoggedIn) };
        let now = self.clock.now();
        let expires = now.plus(SIGN_IN_LIFETIME).map_err(|why| super::login::out_of_time(&why))?;
        Ok((self.browser_keys.issue(session, self.random()?, now), expires))
    }

    /// Whom a sign-in token would sign in, for the page that asks. Redeems nothing.
    ///
    /// # Errors
    /// `LoginRefused` for all reasons alike.
    pub async fn signing_in(&self, token: &str) -> Outcome<Proven> {
        let (_, policy) = self.policy_now();
        let (_, _, proven) = self.read_sign_in(token, &policy).await?;
        Ok(proven)
    }

    /// Redeems a sign-in token, once, and opens a browser's session. `address`: the browser's, for the log.
    ///
    /// # Errors
    /// `LoginRefused` for all reasons alike.
    pub async fn sign_in(self: &Arc<Self>, token: SecretString, address: String) -> Outcome<NewBrowser> {
        let this = Arc::clone(self);
        whole(async move { this.redeem_sign_in(secrecy::ExposeSecret::expose_secret(&token), &address).await }).await
    }

    async fn redeem_sign_in(&self, token: &str, address: &str) -> Outcome<NewBrowser> {
        let address = shown_address(address);
        let (guard, in_force) = self.hold_policy().await?;
        let (signed, parent, proven) = self.read_sign_in(token, &in_force.policy).await?;
        let now = self.clock.now();
        let (secret, session) = mint_browser(self.random()?);
        let (person, key, expires) = (proven.person().clone(), proven.key(), parent.expires);
        let session = BrowserSession { token: session, parent: parent.token, opened: now, expires, seal: [0; 32] };
        let change = Change {
            at: now,
            saves: vec![Save::Redeem(signed.redemption), Save::NewBrowserSession(session.sealed(&self.browser_keys))],
            events: vec![Event::BrowserSignedIn { person, key, address: address.clone(), expires }],
        };
        match self.commit(change).await {
            Ok(_) => {}
            Err(StoreError::Replayed) => return Err(refused(&LoginRefusal::Replayed)),
            // The session that let it in has ended meanwhile.
            Err(StoreError::Conflict) => return Err(refused(&LoginRefusal::Unknown)),
            Err(why) => return Err(why.into()),
        }
        drop(guard);
        tracing::info!(person = %proven.person(), %address, "a browser signed in");
        Ok(NewBrowser { token: secret, proven, expires })
    }

    /// A sign-in token of ours, the live session that asked for it, and whom that proves.
    async fn read_sign_in(&self, token: &str, policy: &Policy) -> Outcome<(SignIn, Session, Proven)> {
        let now = self.clock.now();
        let signed = self.browser_keys.read(token, now).map_err(|why| refused(&why))?;
        let Some(parent) = self.store.session(signed.parent).await? else {
            return Err(refused(&LoginRefusal::Unknown));
        };
        let proven = parent.check(&self.session_key, policy.directory(), now);
        let proven = proven.map_err(|why| refused(&why))?;
        Ok((signed, parent, proven))
    }

    /// The browser that has this token as its cookie. Rights are read anew at each use.
    ///
    /// # Errors
    /// `NotLoggedIn`.
    pub async fn browser(&self, token: &str) -> Outcome<Browser> {
        let Ok(token) = hash_browser(token) else { return Err(Failure::NotLoggedIn) };
        self.check_was_whole()?;
        let Some((session, parent)) = self.store.browser_session(token).await? else {
            return self.absent(Failure::NotLoggedIn).await;
        };
        let (_, policy) = self.policy_now();
        let now = self.clock.now();
        match session.check(&self.browser_keys, &parent, &self.session_key, policy.directory(), now) {
            Ok(proven) => {
                let form_token = self.browser_keys.form_token(token).into();
                let reads_all = Self::reads_all(&proven, &policy);
                Ok(Browser { proven, expires: session.expires, form_token, reads_all, session: token })
            }
            Err(SessionRefusal::Forged) => {
                let why = "a browser's session was not written by this service; look who else can write there";
                tracing::error!(person = %parent.person, "{why}");
                Err(Failure::NotLoggedIn)
            }
            Err(why) => {
                tracing::debug!(person = %parent.person, %why, "a browser's session refused");
                Err(Failure::NotLoggedIn)
            }
        }
    }

    /// Whether a form came from a page that this browser was shown.
    #[must_use]
    pub fn is_own_form(&self, browser: &Browser, given: &str) -> bool {
        self.browser_keys.is_own_form(browser.session, given)
    }

    /// Ends this browser's session.
    ///
    /// # Errors
    /// Store failures.
    pub async fn sign_out(self: &Arc<Self>, browser: &Browser) -> Outcome<()> {
        let (this, person, session) = (Arc::clone(self), browser.proven.person().clone(), browser.session);
        whole(async move {
            let (saves, events) = (vec![Save::EndBrowserSession(session)], vec![Event::LoggedOut { person }]);
            this.commit(Change { at: this.clock.now(), saves, events }).await?;
            Ok(())
        })
        .await
    }
}

fn refused(why: &dyn std::fmt::Display) -> Failure {
    tracing::info!(%why, "browser sign-in refused");
    Failure::LoginRefused
}
