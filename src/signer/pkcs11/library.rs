//! A token's library: initialised when its first user comes, finalised when its last one goes.
//!
//! A process can initialise such a library once, and two CA keys may be in one token; but a token that was taken away is seen again by
//! some libraries only after they were finalised. So there is one entry for each library in this process, with its users counted: a key
//! that can't get a session has the others let go, too, even if theirs still works, so that the library starts afresh.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::Error;

/// How old an initialised library must be before its users are told to let go: while one key is lost for good, the others start afresh
/// this often.
const YOUNG: Duration = Duration::from_secs(3);

/// The libraries that are initialised now.
static OPEN: Mutex<BTreeMap<PathBuf, Entry>> = Mutex::new(BTreeMap::new());

struct Entry {
    context: Pkcs11,
    since: Instant,
    users: Vec<Arc<AtomicBool>>,
}

/// One use of an initialised library; ends with it.
pub(super) struct Use {
    path: PathBuf,
    context: Pkcs11,
    /// Set when another user needs the library to start afresh.
    is_unwanted: Arc<AtomicBool>,
}

impl Use {
    /// Uses the library; initialises it if nobody else does.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn begin(path: &Path) -> Result<Self, Error> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unwanted = Arc::new(AtomicBool::new(false));
        let context = if let Some(entry) = open.get_mut(path) {
            entry.users.push(Arc::clone(&is_unwanted));
            entry.context.clone()
        } else {
            let context = Pkcs11::new(path)?;
            context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
            let users = vec![Arc::clone(&is_unwanted)];
            open.insert(path.to_owned(), Entry { context: context.clone(), since: Instant::now(), users });
            context
        };
        Ok(Self { path: path.to_owned(), context, is_unwanted })
    }

    /// The library.
    pub(super) const fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// Whether another user needs the library to start afresh.
    pub(super) fn is_unwanted(&self) -> bool {
        self.is_unwanted.load(Ordering::Relaxed)
    }

    /// Ends this use, and has the others end theirs, unless the library has only just been initialised.
    pub(super) fn blame(self) {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = open.get(&self.path).filter(|entry| entry.since.elapsed() >= YOUNG);
        for user in entry.iter().flat_map(|entry| &entry.users) {
            user.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = open.get_mut(&self.path) else { return };
        entry.users.retain(|user| !Arc::ptr_eq(user, &self.is_unwanted));
        if entry.users.is_empty()
            && let Some(entry) = open.remove(&self.path)
            && let Err(error) = entry.context.finalize()
        {
            tracing::warn!(library = %self.path.display(), ?error, "a token's library did not let go");
        }
    }
}
