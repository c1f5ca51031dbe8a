//! Decide, withdraw, extend, end: load, evaluate policy, step, save; decided anew when somebody else was faster.
//!
//! What for: every call that moves an existing request takes the one path in [`Service::carry_out`], so none can
//! forget to look whether the caller may see the request, to let time pass first, to ask the policy in force (P6), or
//! to write the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::text::{self, REASON_CHARS_MAX};
use super::{ATTEMPTS, Failure, Outcome, Service, whole};
use crate::access::{AccessRequest, Check, Command, Narrowing, Refusal, Signed, step};
use crate::identity::Proven;
use crate::identity::approval::Signature;
use crate::name::{Account, Digest, HostName, PersonName, RequestPrefix, Target};
use crate::policy::{Quorum, Shortage};
use crate::ssh::PublicKey;
use crate::ssh::sig::SshSignature;
use crate::store::{Change, Save, StoreError};
use crate::time::{Lifetime, Timestamp};

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Hosts and tags; tags are expanded to the hosts known now.
    pub targets: Vec<Target>,
    /// As whom; `None` takes the only account that the rules allow this person there, else it is an error that names
    /// them.
    pub account: Option<Account>,
    /// How long.
    pub lifetime: Option<Lifetime>,
    /// From when.
    pub start: Option<Timestamp>,
    /// Why; at most 1000 characters, no control or bidi characters.
    pub reason: String,
    /// Ticket; at most 64.
    pub ticket: Option<String>,
    /// The key to be certified.
    pub key: PublicKey,
}

/// A question without a key, for `explain`.
#[derive(Clone, Debug)]
pub struct Explain {
    /// Hosts and tags.
    pub targets: Vec<Target>,
    /// As whom.
    pub account: Option<Account>,
    /// How long.
    pub lifetime: Option<Lifetime>,
    /// From when.
    pub start: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Ticket.
    pub ticket: Option<String>,
    /// When it would be put; now if `None`.
    pub at: Option<Timestamp>,
}

/// A request as its viewer may see it.
#[derive(Clone, Debug)]
pub struct View {
    /// The request.
    pub request: AccessRequest,
    /// Who could still approve it (or its waiting extension) now.
    pub eligible: BTreeSet<PersonName>,
    /// The quorum in force for what waits.
    pub quorum: Option<Quorum>,
    /// Why what waits can't be approved as the policy is, if it can't.
    pub shortage: Option<Shortage>,
    /// Whether the viewer may decide it now.
    pub may_decide: bool,
}

/// Which requests to list.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only those the caller asked.
    pub mine: bool,
    /// Only those the caller may decide now.
    pub inbox: bool,
    /// Only in these states.
    pub states: BTreeSet<&'static str>,
    /// Only for this host.
    pub host: Option<HostName>,
    /// Only of this person.
    pub person: Option<PersonName>,
    /// Only asked at or after.
    pub since: Option<Timestamp>,
    /// At most so many; 100 when 0.
    pub limit: usize,
}

/// One person's approval.
#[derive(Clone, Debug)]
pub struct Approval {
    /// The digest that they saw.
    pub digest: Digest,
    /// What they take away.
    pub narrow: Narrowing,
    /// A remark; at most 1000 characters.
    pub comment: String,
    /// The key that signed it, when, and what it signed.
    pub signature: Option<(PublicKey, Timestamp, SshSignature)>,
}

impl Approval {
    /// Of what this digest names, unnarrowed, unsigned and without a remark.
    #[must_use]
    pub fn of(digest: Digest) -> Self {
        Self { digest, narrow: Narrowing::default(), comment: String::new(), signature: None }
    }
}

/// What somebody wants done with a request, before policy was asked about it.
#[derive(Clone, Debug)]
enum Wish {
    Approve { digest: Digest, narrow: Narrowing, comment: String, signed: Option<Box<Signed>> },
    Deny { reason: String },
    Withdraw,
    Extend { lifetime: Lifetime, reason: String },
    End { reason: String },
}

impl Wish {
    /// The command that it is under the policy in force.
    fn command(self, by: Proven, check: Check) -> Command {
        match self {
            Self::Approve { digest, narrow, comment, signed } => {
                Command::Approve { by, digest, narrow, comment, signed, check }
            }
            Self::Deny { reason } => Command::Deny { by, reason, check },
            Self::Withdraw => Command::Withdraw { by },
            Self::Extend { lifetime, reason } => Command::Extend { by, lifetime, reason, check },
            Self::End { reason } => {
                let is_operator = check.policy.is_operator(by.person());
                Command::End { by, is_operator, reason }
            }
        }
    }
}

impl Service {
    /// Approves what the digest names, perhaps narrowed, perhaps with the approver's own signature.
    ///
    /// # Errors
    /// `Refused`, `NotFound`, `Invalid`.
    pub async fn approve(self: &Arc<Self>, by: &Proven, id: &RequestPrefix, approval: Approval) -> Outcome<View> {
        let Approval { digest, narrow, comment, signature } = approval;
        let comment = text::check("comment", &comment, REASON_CHARS_MAX)?;
        let signed = signature.map(|(key, signed, sshsig)| {
            // The server is ours, whatever the client calls us: a signature for another one fits nothing here.
            let signature = Signature::new(self.settings.public_url.clone(), key, signed, sshsig)?;
            Ok(Box::new(Signed { signature, service_keys: self.service_keys() }))
        });
        let signed = signed.transpose().map_err(|why| Failure::Refused(Refusal::SignatureRefused { why }))?;
        self.carry_out(by, id, Wish::Approve { digest, narrow, comment, signed }).await
    }

    /// Says no.
    ///
    /// # Errors
    /// `Refused`, `NotFound`, `Invalid` without a reason.
    pub async fn deny(self: &Arc<Self>, by: &Proven, id: &RequestPrefix, reason: String) -> Outcome<View> {
        let reason = text::check("reason", &reason, REASON_CHARS_MAX)?;
        if reason.is_empty() {
            return Err(Failure::Invalid("a denial needs a reason; the asker reads it".to_owned()));
        }
        self.carry_out(by, id, Wish::Deny { reason }).await
    }

    /// Takes it back.
    ///
    /// # Errors
    /// `Refused`, `NotFound`.
    pub async fn withdraw(self: &Arc<Self>, by: &Proven, id: &RequestPrefix) -> Outcome<View> {
        self.carry_out(by, id, Wish::Withdraw).await
    }

    /// Asks for more time.
    ///
    /// # Errors
    /// `Policy`, `Refused`, `NotFound`.
    pub async fn extend(
        self: &Arc<Self>,
        by: &Proven,
        id: &RequestPrefix,
        lifetime: Lifetime,
        reason: String,
    ) -> Outcome<View> {
        let reason = text::check("reason", &reason, REASON_CHARS_MAX)?;
        self.carry_out(by, id, Wish::Extend { lifetime, reason }).await
    }

    /// Ends access before its time.
    ///
    /// # Errors
    /// `Refused`, `NotFound`.
    pub async fn end(self: &Arc<Self>, by: &Proven, id: &RequestPrefix, reason: String) -> Outcome<View> {
        let reason = text::check("reason", &reason, REASON_CHARS_MAX)?;
        self.carry_out(by, id, Wish::End { reason }).await
    }

    async fn carry_out(self: &Arc<Self>, by: &Proven, id: &RequestPrefix, wish: Wish) -> Outcome<View> {
        let (this, by, id) = (Arc::clone(self), by.clone(), id.clone());
        whole(async move {
            for _ in 0..ATTEMPTS {
                if let Some(view) = this.try_once(&by, &id, wish.clone()).await? {
                    return Ok(view);
                }
            }
            Err(Failure::contended())
        })
        .await
    }

    /// Decides from what is there now and saves it; `None` when somebody else was faster.
    async fn try_once(&self, by: &Proven, id: &RequestPrefix, wish: Wish) -> Outcome<Option<View>> {
        let (_guard, check) = self.hold_policy().await?;
        let policy = Arc::clone(&check.policy);
        let stored = self.find_logged(by, id, &policy).await?;
        let now = self.clock.now();
        let taken = step(stored.request, wish.command(by.clone(), check), now)?;
        if !taken.events.is_empty() {
            let save = Save::Request { request: taken.request.clone(), expected: stored.version };
            match self.commit_decision(Change { at: now, saves: vec![save], events: taken.events }).await {
                Ok(_) => {}
                Err(StoreError::Conflict) => return Ok(None),
                Err(why) => return Err(why.into()),
            }
        }
        Ok(Some(Self::view_of(taken.request, by, &policy, now)))
    }
}
