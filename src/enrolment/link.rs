//! The host's line to the service: a host token by its SSH host key, and the calls of an enrolled host.
//!
//! Invariants: what the host signs names the server as *this host* knows it, so that a server in the middle can't pass it on; the token
//! is in memory alone. Nothing is retried here but a call whose token had run out, once.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::facts::HostKey;
use crate::client::{Client, ClientError, ClockOffset, EventStream, Server, is_plain_url};
use crate::name::HostName;
use crate::ssh::host::{HOST_NAMESPACE, HostPurpose, statement};
use crate::wire::host as wire;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The host's line. A clone is a line of its own, with the same token as long as that holds.
#[derive(Clone, Debug)]
pub struct Link {
    server: Server,
    name: HostName,
    identity: Arc<HostKey>,
    client: Option<Arc<Client>>,
    offset: ClockOffset,
    /// What the service named as its log key last.
    log_key: Option<String>,
}

impl Link {
    /// A line that is not open yet.
    #[must_use]
    pub fn new(server: Server, name: HostName, identity: HostKey) -> Self {
        let identity = Arc::new(identity);
        Self { server, name, identity, client: None, offset: ClockOffset::default(), log_key: None }
    }

    /// The host's name.
    #[must_use]
    pub const fn name(&self) -> &HostName {
        &self.name
    }

    /// The service.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// What the answers said about this machine's clock.
    #[must_use]
    pub const fn offset(&self) -> &ClockOffset {
        &self.offset
    }

    /// What the service named as its log key when the line was opened.
    #[must_use]
    pub fn log_key(&self) -> Option<&str> {
        self.log_key.as_deref()
    }

    /// The trust bundle that the service gives to everybody.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn public_bundle(&self) -> Result<String, ClientError> {
        Client::new(self.server.clone(), None, TIMEOUT)?.noting(&self.offset).text("/v1/ca/user-keys").await
    }

    /// Joins, with a join token and every host key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn enrol(&mut self, joining: Joining<'_>, keys: &[HostKey]) -> Result<wire::Enrolled, ClientError> {
        let (client, wire::HostChallenge { challenge, server, .. }) = self.challenge(HostPurpose::Enrol).await?;
        let proofs = [&*self.identity].into_iter().chain(keys.iter().filter(|key| key.path != self.identity.path));
        let keys = proofs.map(|key| self.prove(key, HostPurpose::Enrol, &challenge)).collect::<Result<Vec<_>, _>>()?;
        let body = wire::Enrol {
            token: joining.token.clone().into(),
            name: self.name.to_string(),
            tags: joining.tags,
            names: joining.names,
            challenge,
            keys,
            about: joining.about,
        };
        let enrolled = client.post::<_, wire::Enrolled>("/v1/hosts/enrol", &body).await;
        let enrolled = enrolled.map_err(|error| self.or_renamed(error, server))?;
        self.log_key = Some(enrolled.log_key.clone());
        self.open(enrolled.token.clone().into())?;
        Ok(enrolled)
    }

    /// Gets a host token for a host that has joined before.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn log_in(&mut self) -> Result<(), ClientError> {
        let (client, wire::HostChallenge { challenge, server, .. }) = self.challenge(HostPurpose::Session).await?;
        let proof = self.prove(&self.identity, HostPurpose::Session, &challenge)?;
        let body =
            wire::SessionAnswer { name: self.name.to_string(), challenge, key: proof.key, signature: proof.signature };
        let token = client.post::<_, wire::HostToken>("/v1/hosts/session", &body).await;
        let token = token.map_err(|error| self.or_renamed(error, server))?;
        self.log_key = Some(token.log_key);
        self.open(token.token.into())
    }

    /// All that the host must know.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn state(&mut self) -> Result<wire::State, ClientError> {
        self.get("/v1/hosts/self/state").await
    }

    /// As [`Self::state`]; `None` while it is still what `etag` names.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn changed_state(&mut self, etag: &str) -> Result<Option<wire::State>, ClientError> {
        let path = "/v1/hosts/self/state";
        if self.client.is_none() {
            self.log_in().await?;
        }
        match self.ready()?.get_changed(path, etag, TIMEOUT).await {
            Err(error) if is_logged_out(&error) => {
                self.log_in().await?;
                self.ready()?.get_changed(path, etag, TIMEOUT).await
            }
            answer => answer,
        }
    }

    /// Opens the stream that says when the state has changed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&mut self) -> Result<EventStream, ClientError> {
        let path = "/v1/hosts/self/events";
        if self.client.is_none() {
            self.log_in().await?;
        }
        match self.ready()?.stream(path).await {
            Err(error) if is_logged_out(&error) => {
                self.log_in().await?;
                self.ready()?.stream(path).await
            }
            answer => answer,
        }
    }

    /// Host certificates for these keys.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn certificates(&mut self, keys: &[HostKey]) -> Result<Vec<String>, ClientError> {
        let keys = keys.iter().map(|key| key.key.public_key().to_openssh()).collect();
        let answer: wire::HostCertificates =
            self.post("/v1/hosts/certificates", &wire::CertificatesFor { keys }).await?;
        Ok(answer.certificates)
    }

    /// A certificate for the host's login to itself, signed by the CA key of this fingerprint.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn check_certificate(&mut self, key: String, ca: Option<String>) -> Result<String, ClientError> {
        let answer: wire::CheckCertificate =
            self.post("/v1/hosts/check-certificate", &wire::CheckCertificateFor { key, ca }).await?;
        Ok(answer.certificate)
    }

    /// Reports what the host is like now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn check_in(&mut self, report: &wire::CheckIn) -> Result<(), ClientError> {
        let _answer: wire::Nothing = self.post("/v1/hosts/check-in", report).await?;
        Ok(())
    }

    /// Reports what happened; the ids of what is in the log now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn report(&mut self, events: Vec<wire::SessionEvent>) -> Result<Vec<String>, ClientError> {
        let answer: wire::Taken = self.post("/v1/hosts/sessions", &wire::SessionEvents { events }).await?;
        Ok(answer.taken)
    }

    /// Says that the host leaves.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn leave(&mut self) -> Result<(), ClientError> {
        let _answer: wire::Nothing = self.post("/v1/hosts/leave", &wire::Nothing {}).await?;
        Ok(())
    }

    async fn get<A: DeserializeOwned>(&mut self, path: &str) -> Result<A, ClientError> {
        if self.client.is_none() {
            self.log_in().await?;
        }
        match self.ready()?.get(path).await {
            Err(error) if is_logged_out(&error) => {
                self.log_in().await?;
                self.ready()?.get(path).await
            }
            answer => answer,
        }
    }

    async fn post<Q: Serialize + Sync, A: DeserializeOwned>(&mut self, path: &str, body: &Q) -> Result<A, ClientError> {
        if self.client.is_none() {
            self.log_in().await?;
        }
        match self.ready()?.post(path, body).await {
            Err(error) if is_logged_out(&error) => {
                self.log_in().await?;
                self.ready()?.post(path, body).await
            }
            answer => answer,
        }
    }

    /// A client without a token, and a fresh challenge.
    async fn challenge(&self, purpose: HostPurpose) -> Result<(Client, wire::HostChallenge), ClientError> {
        let client = Client::new(self.server.clone(), None, TIMEOUT)?.noting(&self.offset);
        let body = wire::ChallengeFor { name: self.name.to_string(), purpose: purpose.word().to_owned() };
        let challenge = client.post("/v1/hosts/challenge", &body).await?;
        Ok((client, challenge))
    }

    /// Why a login was refused, where the service calls itself otherwise than this host does.
    fn or_renamed(&self, error: ClientError, named: String) -> ClientError {
        if is_unknown(&error) && named != self.server.url && is_plain_url(&named) {
            return ClientError::Renamed { known: self.server.url.clone(), named };
        }
        error
    }

    fn prove(&self, key: &HostKey, purpose: HostPurpose, challenge: &str) -> Result<wire::KeyProof, ClientError> {
        let text = statement(&self.server.url, purpose, &self.name, challenge);
        let signature = key.key.sign(HOST_NAMESPACE, text.as_bytes()).map_err(|error| ClientError::Setup {
            url: self.server.url.clone(),
            why: format!("the host key {} can't sign: {error}", key.path),
        })?;
        Ok(wire::KeyProof { key: key.key.public_key().to_openssh(), signature })
    }

    fn open(&mut self, token: SecretString) -> Result<(), ClientError> {
        let client = Client::new(self.server.clone(), Some(token), TIMEOUT)?.noting(&self.offset);
        self.client = Some(Arc::new(client));
        Ok(())
    }

    fn ready(&self) -> Result<&Client, ClientError> {
        self.client.as_deref().ok_or_else(|| ClientError::Setup {
            url: self.server.url.clone(),
            why: "the host is not logged in".to_owned(),
        })
    }
}

/// What a host joins with.
#[derive(Debug)]
pub struct Joining<'a> {
    /// The join token.
    pub token: &'a SecretString,
    /// `key=value`.
    pub tags: Vec<String>,
    /// Further names.
    pub names: Vec<String>,
    /// What runs here.
    pub about: wire::About,
}

/// Whether the service knows no host of this name with this host key.
#[must_use]
pub fn is_unknown(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem(problem) if problem.code == "login_refused")
}

/// Whether the service knows this host, and has retired it: nothing else forbids a host what it does.
#[must_use]
pub fn is_retired(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem(problem) if problem.code == "forbidden")
}

/// What to type on a host that is enrolled at this service, and is refused by it.
#[must_use]
pub fn way_out(error: &ClientError, server: &Server) -> Option<String> {
    let pin = server.pin.as_ref().map(|pin| format!(" --pin {pin}")).unwrap_or_default();
    match error {
        // The service's own certificate is the same as before, unless it was made anew.
        ClientError::Renamed { named, .. } => Some(format!("sudo hallpass host enrol --server {named}{pin}")),
        error if is_unknown(error) || is_retired(error) => {
            Some("sudo hallpass host enrol --token-file FILE, with a new join token".to_owned())
        }
        ClientError::Setup { .. }
        | ClientError::Unreachable { .. }
        | ClientError::Pin { .. }
        | ClientError::Problem(_)
        | ClientError::Protocol(_) => None,
    }
}

/// Whether the service no longer knows the token.
fn is_logged_out(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem(problem) if problem.status == 401)
}
