//! The store: one contract for every database, what only one of them has, and random histories against a model.

mod contract;
mod ending;
mod finding;
mod hosts;
mod issuing;
mod model;
mod peer;
mod postgres;
mod sqlite;
mod texts;
mod together;

use std::pin::Pin;
use std::sync::Arc;

use hallpass::access::{AccessRequest, Step};
use hallpass::audit::event::Event;
use hallpass::identity::mac::MacKey;
use hallpass::keyring::Ca;
use hallpass::name::RequestId;
use hallpass::store::postgres::PostgresStore;
use hallpass::store::sqlite::{Settings, SqliteStore};
use hallpass::store::{Change, Committed, RowVersion, Save, Store, StoreError, Stored};
use hallpass::time::Timestamp;

use crate::support::fixtures::{House, at, person, signs_for};
use crate::support::postgres::cluster;

/// A database that outlives its stores.
pub(crate) trait Database: Send + Sync {
    /// Opens it; the store opened before has been dropped.
    fn open(&self) -> Opening<'_>;
}

/// A store that is being opened.
pub(crate) type Opening<'d> = Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send + 'd>>;

/// A SQLite file in a folder that goes with the value.
#[derive(Debug)]
pub(crate) struct Sqlite {
    pub(crate) folder: tempfile::TempDir,
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { path: self.folder.path().join("hallpass.db") }
    }

    pub(crate) fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.try_open().unwrap())
    }

    pub(crate) fn try_open(&self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&self.settings(), MacKey::new([3; 32]))
    }
}

impl Database for Sqlite {
    fn open(&self) -> Opening<'_> {
        Box::pin(std::future::ready(Self::open(self)))
    }
}

/// A database of the PostgreSQL server that all tests share.
#[derive(Debug)]
pub(crate) struct Postgres {
    pub(crate) name: String,
}

impl Postgres {
    pub(crate) fn new() -> Self {
        Self { name: cluster().database() }
    }

    pub(crate) async fn try_open(&self) -> Result<PostgresStore, StoreError> {
        PostgresStore::open(&cluster().settings(&self.name), MacKey::new([3; 32])).await
    }

    /// As somebody who can write the database, past the service.
    pub(crate) fn raw(&self, sql: &str) -> String {
        cluster().sql(&self.name, &format!("SET search_path = hallpass; {sql}"))
    }
}

impl Database for Postgres {
    fn open(&self) -> Opening<'_> {
        Box::pin(async {
            let store: Arc<dyn Store> = Arc::new(self.try_open().await.unwrap());
            store
        })
    }
}

/// An event that fits any change.
pub(crate) fn event() -> Event {
    Event::LoggedOut { person: person("alice@example.com") }
}

pub(crate) fn change(at: Timestamp, saves: Vec<Save>, events: Vec<Event>) -> Change {
    Change { at, saves, events }
}

/// The store with short ways to move requests along.
pub(crate) struct Desk {
    pub(crate) house: House,
    pub(crate) store: Arc<dyn Store>,
}

impl Desk {
    /// Over an empty store: the log is begun, as the service does at its first start, so that serials are never 0.
    pub(crate) async fn new(database: &dyn Database) -> Self {
        let desk = Self { house: House::new(), store: database.open().await };
        let started = Event::LogStarted { service: "test".to_owned(), log_key: "test".to_owned() };
        desk.store.commit(change(at(0), vec![], vec![started])).await.unwrap();
        desk
    }

    /// Saves a step on a stored request.
    pub(crate) async fn save(&self, step: Step, expected: RowVersion, now: Timestamp) -> Result<Stored, StoreError> {
        let save = match step.permit {
            Some(permit) => {
                Save::Certify { permit: Box::new(permit), ca: signs_for(&Ca::USER), nonce: [9; 32], expected }
            }
            None => Save::Request { request: step.request, expected },
        };
        self.store.commit(change(now, vec![save], step.events)).await.map(only)
    }

    /// A new request, saved.
    pub(crate) async fn ask(&self, id: RequestId, who: &str, hosts: &[&str], now: Timestamp) -> Stored {
        let step = self.house.ask(id, who, hosts, now);
        let new = Save::NewRequest(step.request);
        only(self.store.commit(change(now, vec![new], step.events)).await.unwrap())
    }

    /// A new request that policy allows at once.
    pub(crate) async fn approved(&self, id: RequestId, now: Timestamp) -> Stored {
        self.ask(id, "alice@example.com", &["dev-1"], now).await
    }

    /// A new request with its certificate's entry in the log.
    pub(crate) async fn issued(&self, id: RequestId, now: Timestamp) -> Stored {
        let stored = self.approved(id, now).await;
        let step = self.house.certify(stored.request, now);
        self.save(step, stored.version, now).await.unwrap()
    }

    /// The request as the store has it.
    pub(crate) async fn request(&self, id: RequestId) -> Stored {
        self.store.request(id).await.unwrap().unwrap()
    }
}

/// The one request that a change saved.
pub(crate) fn only(committed: Committed) -> Stored {
    let [stored] = <[Stored; 1]>::try_from(committed.requests).unwrap();
    stored
}

/// The outcome entry of a request's last certificate.
pub(crate) fn outcome(request: &AccessRequest) -> Event {
    let certified = request.grant().unwrap().certificate.clone().unwrap();
    Event::CertificateSigned { request: request.id(), serial: certified.serial, sha256: "0".repeat(64) }
}
