//! Connections for reading, and reads as of one moment.

use deadpool_postgres::{GenericClient, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{IsolationLevel, Row};

use super::line::{Value, failed};
use super::settings::{Connector, Settings};
use crate::store::{Pending, StoreError};

/// Up to so many connections, made when they are needed.
#[derive(Debug)]
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
            let patience = self.connector.patience.as_secs();
            Err(StoreError::Failed { doing, why: format!("the database has not answered for {patience} s") })
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

    /// Reads as of one moment.
    pub(super) fn snapshot<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c deadpool_postgres::Transaction<'c>) -> Pending<'c, T> + Send + 'static,
    ) -> Pending<'_, T> {
        Box::pin(self.with(doing, move |client| {
            Box::pin(async move {
                let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
                let moment = builder.read_only(true).start().await.map_err(failed(doing))?;
                let found = work(&moment).await?;
                moment.commit().await.map_err(failed(doing))?;
                Ok(found)
            })
        }))
    }
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
