//! Questions of one kind that many callers put at once, in one statement: whoever asks while one is under way goes along with the next.
//!
//! Like the groups of changes: a caller alone waits for one exchange, and the more there are, the less each costs the database and us.
//!
//! Invariants: an answer is read after it was asked for; a question whose statement fails is answered with that; nobody waits for a statement
//! that is not under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::Object;
use tokio::sync::oneshot;

use super::pool::Reads;
use crate::store::{Pending, StoreError};

/// How many questions share a statement at most. Our own choice: as many as a group has changes.
const QUESTIONS_MAX: usize = 256;

/// Asks for all of these at once; an answer for each, in their order.
pub(super) type Ask<K, V> = for<'c> fn(&'c Object, Vec<K>) -> Pending<'c, Vec<Result<V, StoreError>>>;

/// One kind of question.
pub(super) struct Gather<K, V>(Arc<Shared<K, V>>);

impl<K, V> std::fmt::Debug for Gather<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

struct Shared<K, V> {
    doing: &'static str,
    ask: Ask<K, V>,
    reads: Reads,
    waiting: Mutex<Waiting<K, V>>,
}

type Reply<V> = oneshot::Sender<Result<V, StoreError>>;

struct Waiting<K, V> {
    questions: Vec<(K, Reply<V>)>,
    /// Whether somebody asks for what waits.
    is_asked: bool,
}

impl<K: Send + 'static, V: Send + 'static> Gather<K, V> {
    pub(super) fn new(doing: &'static str, reads: Reads, ask: Ask<K, V>) -> Self {
        let waiting = Mutex::new(Waiting { questions: Vec::new(), is_asked: false });
        Self(Arc::new(Shared { doing, ask, reads, waiting }))
    }

    /// The answer to this, when the future is first polled.
    pub(super) fn get(&self, key: K) -> Pending<'_, V> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            if self.0.join(key, reply) {
                tokio::spawn(Turn { shared: Arc::clone(&self.0), is_over: false }.take());
            }
            answer.await.map_err(|_gone| gone(self.0.doing))?
        })
    }
}

impl<K: Send, V: Send> Shared<K, V> {
    /// Asks for what waits; false when nothing did.
    async fn ask_all(&self) -> bool {
        let (keys, replies): (Vec<K>, Vec<Reply<V>>) = {
            let mut waiting = self.lock();
            let count = waiting.questions.len().min(QUESTIONS_MAX);
            waiting.is_asked = count > 0;
            waiting.questions.drain(..count).unzip()
        };
        if keys.is_empty() {
            return false;
        }
        let ask = self.ask;
        let answers = match self.reads.read(self.doing, move |client| ask(client, keys)).await {
            Ok(answers) => answers.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => replies.iter().map(|_| Err(error.clone())).collect(),
        };
        // Whoever gets none is told that it is gone; whoever went away needs none.
        for (reply, answer) in replies.into_iter().zip(answers) {
            drop(reply.send(answer.and_then(std::convert::identity)));
        }
        true
    }
}

impl<K, V> Shared<K, V> {
    fn lock(&self) -> MutexGuard<'_, Waiting<K, V>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a question; whether nobody asks for what waits yet.
    fn join(&self, key: K, reply: Reply<V>) -> bool {
        let mut waiting = self.lock();
        waiting.questions.push((key, reply));
        !std::mem::replace(&mut waiting.is_asked, true)
    }
}

/// Whose turn it is to ask. If it ends before its time, the questions that wait end with it.
struct Turn<K, V> {
    shared: Arc<Shared<K, V>>,
    is_over: bool,
}

impl<K: Send, V: Send> Turn<K, V> {
    async fn take(mut self) {
        while self.shared.ask_all().await {}
        self.is_over = true;
    }
}

impl<K, V> Drop for Turn<K, V> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.shared.lock();
            waiting.is_asked = false;
            waiting.questions.clear();
        }
    }
}

fn gone(doing: &'static str) -> StoreError {
    StoreError::Failed { doing, why: "the one who asked the database is gone".to_owned() }
}
