//! What the server does beside serving, for as long as it runs. A part that ends, or panics, ends the process: a service that lacks one
//! looks well and is not, and whoever supervises it can start a whole one.
//!
//! *Why not start the part anew?* What made it panic is still there, and what it held may be in any state; a start looks at everything.

use std::future::pending;

use tokio::task::{Id, JoinSet};

/// The parts that are running. Dropped, they are aborted.
#[derive(Debug, Default)]
pub(super) struct Background {
    parts: JoinSet<String>,
    names: Vec<(Id, &'static str)>,
}

impl Background {
    /// Starts a part, which says why it ends if it does. `name`: as in "NAME has ended".
    pub(super) fn start(&mut self, name: &'static str, part: impl Future<Output = String> + Send + 'static) {
        self.names.push((self.parts.spawn(part).id(), name));
    }

    /// Resolves once a part has ended, with the reason for the operator.
    pub(super) async fn ended(&mut self) -> String {
        match self.parts.join_next_with_id().await {
            Some(Ok((_, why))) => why,
            Some(Err(error)) => {
                let name = self.names.iter().find(|(id, _)| *id == error.id()).map_or("a part of it", |(_, name)| name);
                tracing::error!(%error, "{name} has ended; stopping");
                format!("{name} has ended by a mistake of ours; the service's own log says where")
            }
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_or_panics_is_told_by_name_and_one_that_goes_on_is_not() {
        let mut parts = Background::default();
        parts.start("what goes on", pending());
        let still = tokio::select! {
            biased;
            why = parts.ended() => Some(why),
            () = tokio::task::yield_now() => None,
        };
        assert_eq!(still, None);
        parts.start("what panics", async { panic!("by a mistake") });
        let why = parts.ended().await;
        assert!(why.starts_with("what panics has ended by a mistake of ours"), "{why}");
        parts.start("what ends", async { "there is nothing left to do".to_owned() });
        assert_eq!(parts.ended().await, "there is nothing left to do");
    }
}
