//! Hears when another node has committed. Only a hint: who listens also looks by itself now and then, and what has changed is in the log.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, SimpleQueryMessage};

use super::line::{Line, failed, within};
use super::presence::{self, Presence};
use super::settings::Connector;
use crate::store::StoreError;

/// How long to wait before connecting anew.
const AGAIN: Duration = Duration::from_secs(1);

const LISTENING: &str = "listening for other nodes";

/// The listening connection; ends with the value.
#[derive(Debug)]
pub(super) struct Ear {
    heard: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ear {
    /// Listens for all nodes but this one. `entered`: the connection by which it takes part, until the one that listens does; whether it has
    /// that part is told to `presence`.
    pub(super) fn open(connector: Connector, node: String, mut entered: Option<Line>, presence: Arc<Presence>) -> Self {
        let sql = if entered.is_some() {
            format!("LISTEN hallpass; {}", presence::SHARED)
        } else {
            "LISTEN hallpass".to_owned()
        };
        let heard = Arc::new(Notify::new());
        let told = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = listen(&connector, (&sql, &node), &told, (&presence, &mut entered)).await {
                    tracing::warn!(%error, "other nodes are not heard; looking once a second until they are");
                }
                // Something may have been missed.
                told.notify_one();
                tokio::time::sleep(AGAIN).await;
            }
        });
        Self { heard, task }
    }

    /// Waits until another node has committed since the last call.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }
}

/// Listens until the connection ends.
async fn listen(
    connector: &Connector,
    (sql, node): (&str, &str),
    told: &Notify,
    (presence, entered): (&Presence, &mut Option<Line>),
) -> Result<(), StoreError> {
    let connecting = connector.config.connect(connector.tls.clone());
    let (client, mut connection) = within(connector.patience, LISTENING, connecting).await?;
    let mut next = std::future::poll_fn(|context| Pin::new(&mut connection).poll_message(context));
    let asked = client.simple_query(sql);
    tokio::pin!(asked);
    let mut is_asked = false;
    loop {
        tokio::select! {
            done = &mut asked, if !is_asked => {
                let done = done.map_err(failed(LISTENING))?;
                // A row without its column is no leave either, and no panic.
                let is_false = |said: &SimpleQueryMessage| matches!(said, SimpleQueryMessage::Row(row) if !matches!(row.try_get(0), Ok(said) if said != Some("f")));
                let is_in = !done.iter().any(is_false);
                presence.is_in(is_in);
                if !is_in {
                    return Err(StoreError::Failed { doing: LISTENING, why: presence::REPAIRED.to_owned() });
                }
                is_asked = true;
                drop(entered.take());
                told.notify_one();
            }
            message = &mut next => match message {
                Some(Ok(AsyncMessage::Notification(said))) if said.payload() != node => told.notify_one(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(failed(LISTENING)(error)),
                None => return Err(StoreError::Failed { doing: LISTENING, why: "the connection ended".to_owned() }),
            },
        }
    }
}
