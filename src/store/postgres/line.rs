//! One connection, with its prepared statements, every answer waited for with a limit.
//!
//! Many statements are sent at once, in order, and the server does them one after the other. After one that fails it refuses the rest of the
//! transaction, and makes a `COMMIT` that was sent behind it a rollback. So a commit costs no exchange of its own: but what a statement may
//! not do it must refuse itself, since nobody here looks at its answer before the commit.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::settings::Connector;
use crate::store::StoreError;

/// A parameter of a statement.
pub(super) type Value<'v> = &'v (dyn ToSql + Sync);

/// A statement that writes, with its parameters.
pub(super) struct Write<'s> {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Box<dyn ToSql + Send + Sync + 's>>,
}

/// Why a transaction whose `COMMIT` was asked for is not known to be committed.
pub(super) enum Uncommitted {
    /// It was undone, or will be.
    Refused(StoreError),
    /// The answer was lost.
    Unknown(StoreError),
}

/// What a statement that counts its rows says when they are others: it divides by whether they are right.
const OTHER_ROWS: &str = "not all rows are as they were read; somebody writes this database past the service";

/// A connection of our own. Dropping it closes it, which undoes what was open.
pub(super) struct Line {
    client: Client,
    driver: JoinHandle<()>,
    statements: Mutex<BTreeMap<&'static str, Statement>>,
    patience: Duration,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("patience", &self.patience).finish_non_exhaustive()
    }
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
            Some(told) if *told.code() == SqlState::DIVISION_BY_ZERO => OTHER_ROWS.to_owned(),
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

    /// Has the server know this statement, so that nothing is waited for when it is sent.
    pub(super) async fn prepare(&self, doing: &'static str, sql: &'static str) -> Result<(), StoreError> {
        self.statement(doing, sql).await.map(drop)
    }

    /// Writes in this order, all sent at once.
    pub(super) async fn write(&self, doing: &'static str, writes: &[Write<'_>]) -> Result<(), StoreError> {
        let sent = self.begun(doing, writes).await?;
        let done = within(self.patience, doing, async { Ok(in_order(sent).await) }).await?;
        done.into_iter().collect::<Result<(), Error>>().map_err(failed(doing))
    }

    /// Writes in this order and commits, all sent at once. The commit is not sent if one of them could not be.
    pub(super) async fn commit(&self, doing: &'static str, writes: &[Write<'_>]) -> Result<(), Uncommitted> {
        let (is_hindered, is_sent) = (AtomicBool::new(false), AtomicBool::new(false));
        let begun = self.begun(doing, writes).await.map_err(Uncommitted::Refused)?;
        let mut sent: Vec<Answer<'_>> = Vec::with_capacity(begun.len().saturating_add(1));
        for write in begun {
            sent.push(Box::pin(async { write.await.inspect_err(|_error| is_hindered.store(true, Ordering::Relaxed)) }));
        }
        sent.push(Box::pin(async {
            if is_hindered.load(Ordering::Relaxed) {
                return Ok(());
            }
            is_sent.store(true, Ordering::Relaxed);
            self.client.batch_execute("COMMIT").await
        }));
        let done = within(self.patience, doing, async { Ok(in_order(sent).await) }).await;
        let done = done.map_err(Uncommitted::Unknown)?;
        let is_answered = done.last().is_some_and(Result::is_ok);
        let Some(error) = done.into_iter().find_map(Result::err) else { return Ok(()) };
        // With a refusal before it, the server has answered the commit by undoing everything.
        let is_refused = !is_sent.load(Ordering::Relaxed) || (is_answered && error.as_db_error().is_some());
        let why = failed(doing)(error);
        Err(if is_refused { Uncommitted::Refused(why) } else { Uncommitted::Unknown(why) })
    }

    /// What writes; each is sent when it is polled first.
    async fn begun<'w>(&'w self, doing: &'static str, writes: &'w [Write<'_>]) -> Result<Vec<Answer<'w>>, StoreError> {
        let mut begun: Vec<Answer<'w>> = Vec::with_capacity(writes.len());
        for Write { sql, values } in writes {
            let statement = self.statement(doing, sql).await?;
            begun.push(Box::pin(async move {
                let values: Vec<Value<'_>> = values.iter().map(|value| -> Value<'_> { value.as_ref() }).collect();
                self.client.execute(&statement, &values).await.map(drop)
            }));
        }
        Ok(begun)
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

/// What a statement that was sent comes to.
type Answer<'a, T = Result<(), Error>> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All of them, each begun in its turn: what is begun first is sent first.
async fn in_order<T>(mut answers: Vec<Answer<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = answers.iter().map(|_| None).collect();
    std::future::poll_fn(|context: &mut Context<'_>| {
        for (answer, done) in answers.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(result) = answer.as_mut().poll(context)
            {
                *done = Some(result);
            }
        }
        if done.iter().any(Option::is_none) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    done.into_iter().flatten().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_begun_first_is_sent_first_and_every_answer_keeps_its_place() {
        let sent = Mutex::new(Vec::new());
        let answer = |n: u8, waits: bool| -> Answer<'_, u8> {
            let sent = &sent;
            Box::pin(async move {
                sent.lock().unwrap().push(n);
                if waits {
                    tokio::task::yield_now().await;
                }
                n
            })
        };
        assert_eq!(in_order(vec![answer(1, true), answer(2, false), answer(3, true)]).await, [1, 2, 3]);
        assert_eq!(*sent.lock().unwrap(), [1, 2, 3]);
    }
}
