//! Connections for reading, and reads as of one moment.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::Row;

use super::line::{Value, failed};
use super::settings::{Connector, Settings};
use crate::store::{Pending, StoreError};

/// Up to so many connections, made when they are needed.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    pool: Pool,
    connector: Connector,
}

impl Reads {
    pub(super) fn new(settings: &Settings, connector: Connector) -> Result<Self, StoreError> {
        let manager = Manager::from_config(
            connector.config.clone(),
            connector.tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(settings.connections)
            .wait_timeout(Some(connector.patience))
            .create_timeout(Some(connector.patience))
            .recycle_timeout(Some(connector.patience))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Failed { doing: "connecting to the database", why: error.to_string() })?;
        Ok(Self { pool, connector })
    }

    /// Runs `work` on a connection; one that does not answer is given up.
    async fn with<T>(
        &self,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut Object) -> Pending<'c, T> + Send,
    ) -> Result<T, StoreError> {
        let mut client = self.pool.get().await.map_err(|error| StoreError::Failed { doing, why: error.to_string() })?;
        let answer = tokio::time::timeout(self.connector.patience, work(&mut client)).await;
        answer.unwrap_or_else(|_elapsed| {
            drop(Object::take(client));
            Err(silent(doing, self.connector.patience))
        })
    }

    /// Reads with single statements.
    pub(super) fn read<'a, T: Send + 'a>(
        &'a self,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c Object) -> Pending<'c, T> + Send + 'a,
    ) -> Pending<'a, T> {
        Box::pin(self.with(doing, move |client| work(client)))
    }

    /// Reads as of one moment. The transaction's begin and end cost no waiting: they are sent along with the first question, and after the
    /// last answer.
    pub(super) fn snapshot<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c Object) -> Pending<'c, T> + Send + 'static,
    ) -> Pending<'_, T> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        Box::pin(async move {
            let client = self.pool.get().await.map_err(|error| StoreError::Failed { doing, why: error.to_string() })?;
            let mut held = Held(Some(client));
            let Some(client) = held.0.as_ref() else { return Err(gone(doing)) };
            let begun = async { client.batch_execute(BEGIN).await.map_err(failed(doing)) };
            // In this order: what is sent first is done first.
            let both = async { tokio::try_join!(biased; begun, work(client)) };
            let patience = self.connector.patience;
            let answer = tokio::time::timeout(patience, both).await;
            let ((), found) = answer.unwrap_or_else(|_elapsed| Err(silent(doing, patience)))?;
            let ended = client.batch_execute("COMMIT");
            // Polled once, it is sent; whoever has the connection next waits for its answer.
            tokio::select! { biased; ended = ended => ended.map_err(failed(doing))?, () = std::future::ready(()) => {} }
            held.give_back();
            Ok(found)
        })
    }
}

/// A connection within a transaction: one that is not given back is closed, also when nobody waits any more.
struct Held(Option<Object>);

impl Held {
    fn give_back(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

fn gone(doing: &'static str) -> StoreError {
    StoreError::Failed { doing, why: "the connection is gone".to_owned() }
}

fn silent(doing: &'static str, patience: Duration) -> StoreError {
    StoreError::Failed { doing, why: format!("the database has not answered for {} s", patience.as_secs()) }
}

/// The rows that this gives; parsed once for each connection.
pub(super) async fn rows(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    values: &[Value<'_>],
) -> Result<Vec<Row>, StoreError> {
    let statement = client.prepare_cached(sql).await.map_err(failed(doing))?;
    client.query(&statement, values).await.map_err(failed(doing))
}

/// The row that this gives, if there is one.
pub(super) async fn maybe(
    client: &impl GenericClient,
    doing: &'static str,
    sql: &str,
    values: &[Value<'_>],
) -> Result<Option<Row>, StoreError> {
    Ok(rows(client, doing, sql, values).await?.into_iter().next())
}
