//! One thread that talks to what holds a CA key elsewhere (an agent, a token), so that nobody else can be held up by it.
//!
//! What for: the two things that such a backend must have and that a library or socket does not give: an answer in time, and a way
//! back. Callers wait for their deadline and no longer; a call that hangs keeps this one thread, and those who come later are told at
//! once.
//!
//! What not: how to reach a backend. That is a [`Backend`] and its [`Device`], two functions; another kind (a cloud's key service, a
//! plug-in over a pipe) needs nothing else.
//!
//! Invariants:
//! - Nothing is believed: a device counts only after it has signed something fresh and the configured public key verifies it, at start
//!   and after each reconnect; and so is each signature before it is handed on. A device that answers wrongly, late or not at all is
//!   dropped, and its late answer with it.
//! - What is signed for a check can be neither a certificate nor a login nor anything of ours: it is framed as SSHSIG under a namespace
//!   that nothing else has ([`CA_CHECK_NAMESPACE`]). (A certificate's bytes begin with the length of its type's name, `SSHSIG` would be a
//!   length of more than a gigabyte.)
//! - A refused PIN is not tried again before the next start: tokens lock themselves after a few.
//! - Whoever lets the key go waits for the thread ([`GOODBYE`]): a process that ends while a token's library is still closing its session
//!   has the library's own exit handlers free the same memory under it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::TryRng as _;
use rand::rngs::SysRng;

use super::{Health, SignError, Signer};
use crate::ssh::PublicKey;
use crate::ssh::cert::{Purpose, TbsCert, verify_ca_signature};
use crate::ssh::sig::{CA_CHECK_NAMESPACE, SshSignature};

/// How many signatures may wait. The service has eight under way at most; the rest is room for another user of this.
const QUEUE_MAX: usize = 32;

/// How often an idle device is checked, so that a dead one is known before somebody needs it.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// How often a lost device is looked for.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How long after a failed attempt callers get its answer instead of another attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// How long letting go of a key waits for a call that is under way. A library that hangs in one must not keep a service from ending.
const GOODBYE: Duration = Duration::from_secs(2);

/// What holds the key, connected.
pub(super) trait Device: Send {
    /// The signature's wire form over `data`.
    fn sign(&mut self, data: &[u8], until: Instant) -> Result<Vec<u8>, Trouble>;

    /// Whether it must be let go and connected anew, although it may still work.
    fn is_unwanted(&self) -> bool {
        false
    }
}

/// How to reach what holds the key.
pub(super) trait Backend: Send + 'static {
    /// What it is, for messages: `agent "/run/…"`.
    fn name(&self) -> String;

    /// Connects, and makes sure that the key is there.
    fn connect(&mut self, key: &PublicKey, until: Instant) -> Result<Box<dyn Device>, Trouble>;
}

/// Why a device did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) why: String,
    /// Trying again before somebody has mended it does harm.
    pub(super) is_final: bool,
}

impl Trouble {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_final: false }
    }

    pub(super) fn last(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_final: true }
    }
}

/// Has the device sign something fresh, and verifies it.
pub(super) fn check(device: &mut dyn Device, key: &PublicKey, until: Instant) -> Result<(), Trouble> {
    let mut fresh = [0; 32];
    SysRng.try_fill_bytes(&mut fresh).map_err(|error| Trouble::new(format!("no randomness: {error}")))?;
    let data = SshSignature::to_be_signed(CA_CHECK_NAMESPACE, &fresh);
    let blob = device.sign(&data, until)?;
    believe(key, &blob, &data)
}

fn believe(key: &PublicKey, blob: &[u8], data: &[u8]) -> Result<(), Trouble> {
    let wrong = |_| Trouble::new("its signature does not verify with the configured public key");
    verify_ca_signature(key, blob, data).map_err(wrong)
}

/// What a caller waits for.
type Answer = Result<Vec<u8>, Trouble>;

struct Job {
    data: Vec<u8>,
    until: Instant,
    reply: SyncSender<Answer>,
}

/// What the thread is at, for those who don't want to wait for it.
#[derive(Debug)]
struct State {
    trouble: Option<Trouble>,
    /// When the call under way should have been over.
    busy_until: Option<Instant>,
}

/// A CA key that is held elsewhere.
pub(super) struct Remote {
    name: String,
    key: PublicKey,
    purpose: Purpose,
    patience: Duration,
    /// Taken when the key is let go, which is what ends the thread.
    queue: Option<SyncSender<Job>>,
    /// Disconnected once the thread has let its device go.
    ended: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<Mutex<State>>,
}

impl Remote {
    /// Starts the thread and waits for its first connection and check.
    ///
    /// # Errors
    /// [`SignError::Remote`], [`SignError::Pin`].
    pub(super) fn open(
        backend: impl Backend,
        key: PublicKey,
        purpose: Purpose,
        patience: Duration,
    ) -> Result<Self, SignError> {
        let name = backend.name();
        let refuse = |why: String| SignError::Remote { name: name.clone(), why };
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let (ready, first) = sync_channel(1);
        let (running, ended) = sync_channel(1);
        let state = Arc::new(Mutex::new(State { trouble: None, busy_until: None }));
        let mut thread = Thread {
            backend: Box::new(backend),
            key: key.clone(),
            patience,
            state: Arc::clone(&state),
            device: None,
            failed: None,
            is_open: false,
            checked: Instant::now(),
        };
        let run = move || {
            let opened = thread.guarded(Instant::now() + patience, |thread, until| thread.connected(until).map(drop));
            let is_open = opened.is_ok();
            thread.is_open = is_open;
            // Who started us may have given up.
            if ready.send(opened).is_ok() && is_open {
                thread.run(&jobs);
            }
            drop(thread);
            drop(running);
        };
        let thread = std::thread::Builder::new()
            .name("ca-key".to_owned())
            .spawn(run)
            .map_err(|error| refuse(format!("cannot start a thread: {error}")))?;
        // Made before it is known whether it opens: its end waits for the thread either way.
        let remote = Self {
            name: name.clone(),
            key,
            purpose,
            patience,
            queue: Some(queue),
            ended: Mutex::new(ended),
            thread: Some(thread),
            state,
        };
        match first.recv_timeout(patience) {
            Ok(Ok(())) => Ok(remote),
            Ok(Err(trouble)) if trouble.is_final => Err(SignError::Pin { name, why: trouble.why }),
            Ok(Err(trouble)) => Err(refuse(trouble.why)),
            Err(_) => Err(refuse("it does not answer".to_owned())),
        }
    }

    fn failed(&self, why: &str) -> SignError {
        SignError::Backend(format!("{}: {why}", self.name))
    }
}

impl Signer for Remote {
    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn sign(&self, tbs: &TbsCert) -> Result<Vec<u8>, SignError> {
        super::check(self, tbs)?;
        self.sign_bytes(tbs.bytes())
    }

    fn health(&self) -> Health {
        let state = lock(&self.state);
        if is_overdue(&state) {
            return Health::Down("it does not answer".to_owned());
        }
        state.trouble.as_ref().map_or(Health::Up, |trouble| Health::Down(trouble.why.clone()))
    }
}

impl Remote {
    fn sign_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, SignError> {
        if is_overdue(&lock(&self.state)) {
            return Err(self.failed("an earlier call has not been answered"));
        }
        let (reply, answer) = sync_channel(1);
        let job = Job { data: bytes.to_vec(), until: Instant::now() + self.patience, reply };
        let queue = self.queue.as_ref().ok_or_else(|| self.failed("it was let go"))?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => self.failed("too many signatures are waiting for it"),
            TrySendError::Disconnected(_) => self.failed("its thread has ended"),
        })?;
        match answer.recv_timeout(self.patience) {
            Ok(answer) => answer.map_err(|trouble| self.failed(&trouble.why)),
            Err(RecvTimeoutError::Timeout) => Err(self.failed("no answer in time")),
            Err(RecvTimeoutError::Disconnected) => Err(self.failed("its thread has ended")),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.queue = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: it is disconnected, or late.
        if ended.recv_timeout(GOODBYE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(name = self.name, "a CA key's backend does not answer and is left as it is");
        } else if let Some(thread) = self.thread.take() {
            // What a library keeps for each thread goes with the thread, so that this is waited for, too. A panic was told by its hook.
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({}, {:?})", self.name, self.key)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_overdue(state: &State) -> bool {
    state.busy_until.is_some_and(|until| Instant::now() > until)
}

/// The thread's own.
struct Thread {
    backend: Box<dyn Backend>,
    key: PublicKey,
    patience: Duration,
    state: Arc<Mutex<State>>,
    device: Option<Box<dyn Device>>,
    /// The last failed attempt to connect.
    failed: Option<(Instant, Trouble)>,
    /// Whether the first connection stood; before, whoever opens it tells why not.
    is_open: bool,
    /// When it was last seen to work.
    checked: Instant,
}

impl Thread {
    fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(RETRY_EVERY) {
                // Nobody waits for it any more.
                Ok(job) if Instant::now() >= job.until => {}
                Ok(job) => {
                    let answer = self.guarded(job.until, |thread, until| thread.sign(&job.data, until));
                    // Who asked may have given up.
                    drop(job.reply.try_send(answer));
                }
                Err(RecvTimeoutError::Timeout) if self.needs_a_look() => {
                    // What came of it is in the state.
                    drop(self.guarded(Instant::now() + self.patience, Self::look));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn needs_a_look(&self) -> bool {
        let Some(device) = &self.device else { return true };
        device.is_unwanted() || self.checked.elapsed() >= CHECK_EVERY
    }

    /// Runs one call, whatever the backend's library does, and writes down what came of it.
    fn guarded<T>(
        &mut self,
        until: Instant,
        call: impl FnOnce(&mut Self, Instant) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        lock(&self.state).busy_until = Some(until);
        let done = catch_unwind(AssertUnwindSafe(|| call(self, until)));
        let done = done.unwrap_or_else(|_| Err(Trouble::new("its library panicked")));
        let trouble = done.as_ref().err().cloned();
        if trouble.is_some() {
            self.device = None;
        } else {
            self.checked = Instant::now();
        }
        let mut state = lock(&self.state);
        state.busy_until = None;
        let name = self.backend.name();
        match (&state.trouble, &trouble) {
            (None, Some(now)) if self.is_open => tracing::error!(name, why = now.why, "a CA key can't be used"),
            (Some(_), None) => tracing::info!(name, "the CA key can be used again"),
            (None, _) | (Some(_), Some(_)) => {}
        }
        state.trouble = trouble;
        done
    }

    /// Signs; where the device fails, once more with a fresh connection: it may just have been restarted.
    fn sign(&mut self, data: &[u8], until: Instant) -> Answer {
        let is_old = self.device.is_some();
        match self.sign_once(data, until) {
            Err(trouble) if is_old && !trouble.is_final && Instant::now() < until => {
                self.device = None;
                self.sign_once(data, until)
            }
            done => done,
        }
    }

    fn sign_once(&mut self, data: &[u8], until: Instant) -> Answer {
        let blob = self.connected(until)?.sign(data, until)?;
        believe(&self.key, &blob, data)?;
        Ok(blob)
    }

    /// Checks an idle device, or looks for a lost one.
    fn look(&mut self, until: Instant) -> Result<(), Trouble> {
        if let Some(device) = self.device.as_mut() {
            if !device.is_unwanted() && check(device.as_mut(), &self.key, until).is_ok() {
                return Ok(());
            }
            self.device = None;
        }
        self.connected(until).map(drop)
    }

    /// The device, connected and checked.
    fn connected(&mut self, until: Instant) -> Result<&mut Box<dyn Device>, Trouble> {
        if self.device.is_none() {
            if let Some((at, trouble)) = &self.failed
                && (trouble.is_final || at.elapsed() < PAUSE)
            {
                return Err(trouble.clone());
            }
            match self.connect(until) {
                Ok(device) => {
                    self.failed = None;
                    self.device = Some(device);
                }
                Err(trouble) => {
                    self.failed = Some((Instant::now(), trouble.clone()));
                    return Err(trouble);
                }
            }
        }
        self.device.as_mut().ok_or_else(|| Trouble::new("not connected"))
    }

    fn connect(&mut self, until: Instant) -> Result<Box<dyn Device>, Trouble> {
        let mut device = self.backend.connect(&self.key, until)?;
        check(device.as_mut(), &self.key, until)?;
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::Sender;

    use super::*;
    use crate::ssh::private::Ed25519Key;

    const SEED: [u8; 32] = [3; 32];

    /// A backend of the tests' own that does as it is told; real ones are in `tests/it`.
    #[derive(Clone)]
    struct Scripted {
        act: Arc<Mutex<Act>>,
        connects: Arc<AtomicUsize>,
        /// How many devices are connected now.
        connected: Arc<AtomicUsize>,
        /// Dropped to let who hangs go on.
        released: Arc<Mutex<Option<Receiver<()>>>>,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Act {
        Sign,
        Panic,
        Hang,
        RefusePin,
    }

    impl Scripted {
        fn new() -> (Self, Sender<()>) {
            let (release, released) = std::sync::mpsc::channel();
            let act = Arc::new(Mutex::new(Act::Sign));
            let released = Arc::new(Mutex::new(Some(released)));
            (Self { act, connects: Arc::default(), connected: Arc::default(), released }, release)
        }

        fn tell(&self, act: Act) {
            *self.act.lock().unwrap() = act;
        }

        fn open(&self, patience: Duration) -> Result<Remote, SignError> {
            let key = Ed25519Key::from_seed(&SEED).public_key().clone();
            Remote::open(self.clone(), key, Purpose::User, patience)
        }
    }

    impl Backend for Scripted {
        fn name(&self) -> String {
            "scripted".to_owned()
        }

        fn connect(&mut self, _: &PublicKey, _: Instant) -> Result<Box<dyn Device>, Trouble> {
            self.connects.fetch_add(1, Ordering::Relaxed);
            if *self.act.lock().unwrap() == Act::RefusePin {
                return Err(Trouble::last("the PIN is refused"));
            }
            self.connected.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Connected(self.clone())))
        }
    }

    struct Connected(Scripted);

    impl Drop for Connected {
        fn drop(&mut self) {
            self.0.connected.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Device for Connected {
        fn sign(&mut self, data: &[u8], _: Instant) -> Result<Vec<u8>, Trouble> {
            let act = *self.0.act.lock().unwrap();
            match act {
                Act::Sign => Ok(Ed25519Key::from_seed(&SEED).sign(data)),
                Act::Panic => panic!("as its library might"),
                Act::RefusePin => Err(Trouble::new("logged out")),
                Act::Hang => {
                    let released = self.0.released.lock().unwrap().take();
                    // An error says that the other end is gone, which is the release.
                    let _is_released = released.map(|released| released.recv());
                    Err(Trouble::new("too late"))
                }
            }
        }
    }

    /// Longer than any answer here takes.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_refused_pin_is_not_tried_again_before_the_next_start() {
        let (backend, _release) = Scripted::new();
        backend.tell(Act::RefusePin);
        assert!(matches!(backend.open(LONG), Err(SignError::Pin { .. })));
        assert_eq!(backend.connects.load(Ordering::Relaxed), 1);

        // A token that forgot the login and then does not know the PIN any more.
        backend.tell(Act::Sign);
        let remote = backend.open(LONG).unwrap();
        backend.tell(Act::RefusePin);
        let before = backend.connects.load(Ordering::Relaxed);
        for _ in 0..50 {
            remote.sign_bytes(b"data").unwrap_err();
        }
        assert_eq!(backend.connects.load(Ordering::Relaxed), before + 1);
        assert_eq!(remote.health(), Health::Down("the PIN is refused".to_owned()));
        // Not even when it would work: somebody has to look first.
        backend.tell(Act::Sign);
        remote.sign_bytes(b"data").unwrap_err();
    }

    #[test]
    fn a_library_that_panics_costs_one_signature() {
        let (backend, _release) = Scripted::new();
        let remote = backend.open(LONG).unwrap();
        backend.tell(Act::Panic);
        assert!(remote.sign_bytes(b"data").unwrap_err().to_string().contains("its library panicked"));
        assert!(matches!(remote.health(), Health::Down(_)));
        backend.tell(Act::Sign);
        remote.sign_bytes(b"data").unwrap();
        assert_eq!(remote.health(), Health::Up);
    }

    #[test]
    fn a_key_that_is_let_go_is_let_go_when_that_returns() {
        for _ in 0..200 {
            let (backend, _release) = Scripted::new();
            let remote = backend.open(LONG).unwrap();
            remote.sign_bytes(b"data").unwrap();
            assert_eq!(backend.connected.load(Ordering::SeqCst), 1);
            drop(remote);
            assert_eq!(backend.connected.load(Ordering::SeqCst), 0);
        }
    }

    #[test]
    fn a_call_that_hangs_keeps_one_thread_and_is_told_to_all_others_at_once() {
        let (backend, release) = Scripted::new();
        let remote = backend.open(Duration::from_millis(300)).unwrap();
        backend.tell(Act::Hang);
        assert!(remote.sign_bytes(b"data").unwrap_err().to_string().contains("no answer in time"));
        for _ in 0..1000 {
            let told = remote.sign_bytes(b"data").unwrap_err().to_string();
            assert!(told.contains("an earlier call has not been answered"), "{told}");
        }
        assert_eq!(remote.health(), Health::Down("it does not answer".to_owned()));
        backend.tell(Act::Sign);
        drop(release);
        let until = Instant::now() + LONG;
        while remote.sign_bytes(b"data").is_err() {
            assert!(Instant::now() < until, "{:?}", remote.health());
            std::thread::yield_now();
        }
    }
}
