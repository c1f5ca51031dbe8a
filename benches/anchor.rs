//! The anchor: a micro service that issues Ed25519 certificates and does nothing else, to measure the real one against.
//!
//! One JSON `POST` over HTTP/1.1 keep-alive without TLS: verify the caller's SSHSIG, build and sign a certificate with `ssh-key`, chain a
//! JSON record by SHA-256, commit it to SQLite (WAL, `synchronous=FULL`) with whatever else is waiting (at most 256 rows), then
//! answer. No policy, no sessions, no replay check, no requests, no approvals: an upper guess for a straightforward
//! implementation, not a product.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use ssh_key::{HashAlg, PublicKey, SshSig};
use tokio::sync::oneshot;

/// Most rows in one commit.
const ROWS_MAX: usize = 256;

const NAMESPACE: &str = "bench@anchor";

/// What is asked for: the key to be certified proves itself.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Issue {
    person: String,
    key: String,
    signature: String,
}

/// What is answered.
#[derive(Serialize, Deserialize)]
pub(crate) struct Issued {
    /// The certificate's line.
    pub(crate) certificate: String,
}

struct Anchor {
    ca: PrivateKey,
    rows: SyncSender<(String, oneshot::Sender<u64>)>,
}

impl Issue {
    /// A question of this person's, signed once; the anchor has no replay check.
    pub(crate) fn by(person: &str, seed: [u8; 32]) -> Self {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
        let signature = key.sign(NAMESPACE, HashAlg::Sha512, person.as_bytes()).unwrap();
        Self {
            person: person.to_owned(),
            key: key.public_key().to_openssh().unwrap(),
            signature: signature.to_pem(ssh_key::LineEnding::LF).unwrap(),
        }
    }
}

/// Serves until the runtime ends; its address.
pub(crate) async fn serve(database: &Path) -> SocketAddr {
    let (rows, waiting) = sync_channel(4096);
    let connection = rusqlite::Connection::open(database).unwrap();
    std::thread::spawn(move || write(connection, &waiting));
    let anchor = Arc::new(Anchor { ca: PrivateKey::from(Ed25519Keypair::from_seed(&[0xCA; 32])), rows });
    let router = Router::new().route("/issue", post(issue)).with_state(anchor);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn issue(State(anchor): State<Arc<Anchor>>, Json(ask): Json<Issue>) -> Result<Json<Issued>, StatusCode> {
    let refused = |_| StatusCode::FORBIDDEN;
    let key = PublicKey::from_openssh(&ask.key).map_err(refused)?;
    let signature = ask.signature.parse::<SshSig>().map_err(refused)?;
    key.verify(NAMESPACE, ask.person.as_bytes(), &signature).map_err(refused)?;
    let mut builder =
        Builder::new_with_random_nonce(&mut rand::rng(), key.key_data().clone(), 1_767_607_200, 1_767_609_000)
            .map_err(refused)?;
    builder.serial(1).and_then(|b| b.cert_type(CertType::User)).map_err(refused)?;
    builder.key_id(&ask.person).and_then(|b| b.valid_principal("deploy@web-1")).map_err(refused)?;
    builder.extension("permit-pty", "").map_err(refused)?;
    let certificate = builder.sign(&anchor.ca).and_then(|certificate| certificate.to_openssh()).map_err(refused)?;
    let record = serde_json::json!({ "person": ask.person, "key": ask.key, "certificate": certificate }).to_string();
    let (done, committed) = oneshot::channel();
    anchor.rows.try_send((record, done)).map_err(|_full| StatusCode::SERVICE_UNAVAILABLE)?;
    committed.await.map_err(|_lost| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Issued { certificate }))
}

/// The one writer: everything that waits goes into one commit.
fn write(mut connection: rusqlite::Connection, waiting: &Receiver<(String, oneshot::Sender<u64>)>) {
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection.execute_batch("CREATE TABLE log (id INTEGER PRIMARY KEY, record TEXT, hash BLOB)").unwrap();
    let mut hash = [0_u8; 32];
    while let Ok(first) = waiting.recv() {
        let rows: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).take(ROWS_MAX).collect();
        let transaction = connection.transaction().unwrap();
        for (record, _) in &rows {
            hash = Sha256::new().chain_update(hash).chain_update(record).finalize().into();
            let mut insert = transaction.prepare_cached("INSERT INTO log (record, hash) VALUES (?1, ?2)").unwrap();
            insert.execute((record, hash.as_slice())).unwrap();
        }
        transaction.commit().unwrap();
        for (_, done) in rows {
            done.send(1).unwrap_or_default();
        }
    }
}
