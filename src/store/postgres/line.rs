//! One connection, with its prepared statements, every answer waited for with a limit.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::settings::Connector;
use crate::store::StoreError;

/// A parameter of a statement.
pub(super) type Value<'v> = &'v (dyn ToSql + Sync);

/// A connection of our own. Dropping it closes it, which undoes what was open.
pub(super) struct Line {
    client: Client,
    driver: JoinHandle<()>,
    statements: Mutex<BTreeMap<&'static str, Statement>>,
    patience: Duration,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Maps a database error to [`StoreError::Failed`]. The server's messages name tables and constraints; the details, which may hold
/// values, are left out.
pub(super) fn failed(doing: &'static str) -> impl Fn(Error) -> StoreError {
    move |error| {
        let why = match error.as_db_error() {
            Some(told) => format!("{} ({})", told.message(), told.code().code()),
            None => std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
        };
        StoreError::Failed { doing, why }
    }
}

/// Waits for an answer, but not for ever: a server that is cut off says nothing.
pub(super) async fn within<T>(
    patience: Duration,
    doing: &'static str,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer.map_err(failed(doing)),
        Err(_elapsed) => Err(StoreError::Failed {
            doing,
            why: format!("the database has not answered for {} s", patience.as_secs()),
        }),
    }
}

impl Line {
    pub(super) async fn connect(connector: &Connector) -> Result<Self, StoreError> {
        let connecting = connector.config.connect(connector.tls.clone());
        let (client, connection) = within(connector.patience, "connecting to the database", connecting).await?;
        let driver = tokio::spawn(async move {
            // Whoever uses the connection sees the same error.
            drop(connection.await);
        });
        Ok(Self { client, driver, statements: Mutex::default(), patience: connector.patience })
    }

    /// Statements without parameters or answers.
    pub(super) async fn run(&self, doing: &'static str, sql: &str) -> Result<(), StoreError> {
        within(self.patience, doing, self.client.batch_execute(sql)).await
    }

    pub(super) async fn query(
        &self,
        doing: &'static str,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.statement(doing, sql).await?;
        within(self.patience, doing, self.client.query(&statement, values)).await
    }

    /// The one row that this gives.
    pub(super) async fn one(
        &self,
        doing: &'static str,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Row, StoreError> {
        let statement = self.statement(doing, sql).await?;
        within(self.patience, doing, self.client.query_one(&statement, values)).await
    }

    /// How many rows it changed.
    pub(super) async fn execute(
        &self,
        doing: &'static str,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let statement = self.statement(doing, sql).await?;
        within(self.patience, doing, self.client.execute(&statement, values)).await
    }

    /// Each statement is parsed once.
    async fn statement(&self, doing: &'static str, sql: &'static str) -> Result<Statement, StoreError> {
        let kept = |statements: &Mutex<BTreeMap<_, _>>| {
            statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned()
        };
        if let Some(statement) = kept(&self.statements) {
            return Ok(statement);
        }
        let statement = within(self.patience, doing, self.client.prepare(sql)).await?;
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).insert(sql, statement.clone());
        Ok(statement)
    }
}

/// A column of a row, by its place.
pub(super) fn get<'r, T: tokio_postgres::types::FromSql<'r>>(row: &'r Row, place: usize) -> Result<T, StoreError> {
    row.try_get(place).map_err(failed("reading a row"))
}

/// 32 bytes.
pub(super) fn hash(row: &Row, place: usize) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = get(row, place)?;
    bytes.try_into().map_err(|_| crate::store::numbers::damaged("a row", "a hash has not 32 bytes"))
}
