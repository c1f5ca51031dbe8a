//! A token's library: initialised when its first user comes, finalised when its last one goes.
//!
//! A process can initialise such a library once, and two CA keys may be in one token; but a token that was taken away is seen again by
//! some libraries only after they were finalised. So there is one entry for each library in this process, with its users counted: a key
//! that lost its session lets go of it, and has the others look whether theirs still works.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::Error;

/// The libraries that are initialised now.
static OPEN: Mutex<BTreeMap<PathBuf, Entry>> = Mutex::new(BTreeMap::new());

struct Entry {
    context: Pkcs11,
    users: Vec<Arc<AtomicBool>>,
}

/// One use of an initialised library; ends with it.
pub(super) struct Use {
    path: PathBuf,
    context: Pkcs11,
    /// Set when another user of the library has let go of it.
    is_suspect: Arc<AtomicBool>,
}

impl Use {
    /// Uses the library; initialises it if nobody else does.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn begin(path: &Path) -> Result<Self, Error> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_suspect = Arc::new(AtomicBool::new(false));
        let context = if let Some(entry) = open.get_mut(path) {
            entry.users.push(Arc::clone(&is_suspect));
            entry.context.clone()
        } else {
            let context = Pkcs11::new(path)?;
            context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
            let users = vec![Arc::clone(&is_suspect)];
            open.insert(path.to_owned(), Entry { context: context.clone(), users });
            context
        };
        Ok(Self { path: path.to_owned(), context, is_suspect })
    }

    /// The library.
    pub(super) const fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// Whether another user has let go since this was asked last.
    pub(super) fn was_left(&self) -> bool {
        self.is_suspect.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = open.get_mut(&self.path) else { return };
        entry.users.retain(|user| !Arc::ptr_eq(user, &self.is_suspect));
        for other in &entry.users {
            other.store(true, Ordering::Relaxed);
        }
        if entry.users.is_empty()
            && let Some(entry) = open.remove(&self.path)
            && let Err(error) = entry.context.finalize()
        {
            tracing::warn!(library = %self.path.display(), ?error, "a token's library did not let go");
        }
    }
}
