//! A stream of server-sent events: how something stands now, and how it stands after each change.
//!
//! What for: the frame of all such streams: the first look, heartbeats, the end when the server stops, and what is counted and given back
//! when the caller goes away. What the stream is about is a [`Subject`].
//!
//! Invariants: nothing is remembered between streams. Before each event, and at each heartbeat, the subject looks anew, also at whether the
//! caller may still look; when not, the stream ends. However many wait for one thing, only so many look at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Frame;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::App;
use super::metrics::Counted;

/// A comment is sent after so much silence, so that both ends and everything between know that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Heartbeats fall on multiples of this: streams that are due at about the same time wake the process once and not each by itself, which is
/// most of what a heartbeat costs. Our own choice: two thousand streams are then 25 at a time, done in a few milliseconds.
const BEATS_EVERY: Duration = Duration::from_millis(250);

/// How many streams look at once. Our own choice: a change that thousands wait for leaves room for everybody else's reads, which are
/// turned away when a thousand are waiting.
const LOOKS_AT_ONCE: usize = 32;

/// What all streams of a server share.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// Turns at looking.
    looks: Arc<Semaphore>,
    /// Heartbeats are counted from here.
    began: Instant,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { looks: Arc::new(Semaphore::new(LOOKS_AT_ONCE)), began: Instant::now() }
    }

    /// When somebody is due who was sent something at `sent`.
    fn beat(&self, sent: Instant) -> Instant {
        let silent = (sent + HEARTBEAT).duration_since(self.began).as_millis();
        let beats = silent.div_ceil(BEATS_EVERY.as_millis());
        self.began + BEATS_EVERY * u32::try_from(beats).unwrap_or(u32::MAX)
    }
}

/// What a stream is about.
pub(super) trait Subject: Send + 'static {
    /// Waits until something may have changed; `false` when nothing ever will.
    fn changed(&mut self) -> impl Future<Output = bool> + Send;

    /// How it stands, if that may still be seen; else the stream ends.
    fn look(&mut self) -> impl Future<Output = Option<Look>> + Send;
}

/// What a look came to.
pub(super) enum Look {
    /// What was sent last still holds.
    Same,
    /// This is to be sent, JSON on one line.
    News(String),
    /// The same, and nothing comes after it.
    Last(String),
}

/// The answer that streams a subject; `place` is given back with its end.
pub(super) fn answer<S: Subject, P: Send + 'static>(subject: S, place: P, app: &App) -> Response {
    let stream = Stream {
        subject,
        stop: app.stop.subscribe(),
        beat: app.streams.beat(Instant::now()),
        streams: app.streams.clone(),
        is_first: true,
        is_last: false,
        _counted: Counted::new(&app.metrics.streams),
        _place: place,
    };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, Body::new(Pieces(Some(Box::pin(stream.next()))))).into_response()
}

/// One stream.
struct Stream<S, P> {
    subject: S,
    stop: watch::Receiver<bool>,
    streams: Streams,
    beat: Instant,
    is_first: bool,
    is_last: bool,
    _counted: Counted,
    _place: P,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    Changed,
    Beat,
    Stopped,
}

impl<S: Subject, P: Send + 'static> Stream<S, P> {
    /// The next piece; `None` ends it.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        while !self.is_last {
            let woken = if std::mem::take(&mut self.is_first) { Woken::Changed } else { self.wait().await };
            if woken == Woken::Stopped {
                return None;
            }
            let turn = self.streams.looks.acquire().await.ok()?;
            let look = self.subject.look().await?;
            drop(turn);
            self.is_last = matches!(look, Look::Last(_));
            let piece = match (look, woken) {
                (Look::News(data) | Look::Last(data), _) => Bytes::from(format!("data: {data}\n\n")),
                (Look::Same, Woken::Beat) => Bytes::from_static(b": beat\n\n"),
                // A change that shows nothing new is no sign of life.
                (Look::Same, Woken::Changed | Woken::Stopped) => continue,
            };
            self.beat = self.streams.beat(Instant::now());
            return Some((piece, self));
        }
        None
    }

    async fn wait(&mut self) -> Woken {
        tokio::select! {
            _ = self.stop.wait_for(|stop| *stop) => Woken::Stopped,
            more = self.subject.changed() => if more { Woken::Changed } else { Woken::Stopped },
            () = tokio::time::sleep_until(self.beat) => Woken::Beat,
        }
    }
}

/// What the stream does next.
type Step<S, P> = Pin<Box<dyn Future<Output = Option<(Bytes, Stream<S, P>)>> + Send>>;

/// A body made of the pieces of a stream; dropping it (the caller went away) drops the stream.
struct Pieces<S, P>(Option<Step<S, P>>);

impl<S: Subject, P: Send + 'static> hyper::body::Body for Pieces<S, P> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(step) = self.0.as_mut() else { return Poll::Ready(None) };
        match step.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.0 = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some((bytes, stream))) => {
                self.0 = Some(Box::pin(stream.next()));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_due_at_about_the_same_time_is_due_at_the_same_time() {
        let streams = Streams::new();
        let at = |millis| streams.began + Duration::from_millis(millis);
        assert_eq!(streams.beat(at(0)), at(20_000));
        assert_eq!([1, 100, 250].map(|sent| streams.beat(at(sent))), [at(20_250); 3]);
        assert_eq!(streams.beat(at(251)), at(20_500));
        // u32::MAX beats are 34 years.
        assert_eq!(streams.beat(at(86_400_000 * 365)), at(86_400_000 * 365 + 20_000));
    }
}
