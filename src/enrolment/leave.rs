//! `hallpass host leave`: the host as it was before it was enrolled, whether the service is there or not.

use std::path::Path;
use std::time::Duration;

use super::back::{self, Left};
use super::enrol::Stop;
use super::facts;
use super::link::Link;
use super::lock::{Lock, One};
use super::memory::{Memory, Standing, Which};
use super::places::{self, CHECK_ACCOUNT, Root};
use super::plan::Facts;
use super::service_file::ServiceFile;
use super::sshd::Sshd;
use crate::host::settings::{self, Settings};

/// How long the service may take to hear of it. Leaving does not wait for a service that is away.
const TELL_WITHIN: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug)]
pub struct Gone {
    /// The host's name, if that is still known: an earlier time that was cut short may have taken its file away.
    pub name: Option<String>,
    /// Whether the service has heard of it; else why not.
    pub told: Result<(), String>,
}

/// What would be taken back.
#[derive(Debug)]
pub struct Leaving {
    memory: Memory,
    sshd: Sshd,
    standing: Standing,
    _lock: Lock,
}

/// Looks at what there is to take back. `None`: nothing.
///
/// # Errors
/// [`Stop`].
pub fn prepare(reload: Option<String>) -> Result<Option<Leaving>, Stop> {
    let lock = Lock::take(One::Enrolment).map_err(Stop::Unable)?;
    let sshd = Sshd::find(reload).map_err(Stop::Unable)?;
    let memory = Memory::new(&Root::default());
    match memory.standing().map_err(Stop::Unable)? {
        Standing::Fresh => Ok(None),
        standing => Ok(Some(Leaving { memory, sshd, standing, _lock: lock })),
    }
}

impl Leaving {
    /// Files that come back or go, the last one written first.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let ledger = match &self.standing {
            Standing::Unfinished(ledger) | Standing::Enrolled(ledger) => ledger,
            Standing::Fresh => return Vec::new(),
        };
        ledger.files.iter().rev().map(|file| file.path.clone()).collect()
    }

    /// Takes it back.
    ///
    /// # Errors
    /// [`Stop::TakenBack`] with what is left.
    pub async fn carry_out(mut self) -> Result<Gone, Stop> {
        let name = Settings::load(Path::new(settings::PATH)).ok().map(|settings| settings.name.to_string());
        let name = name.or_else(|| self.memory.told());
        let mut cut_short = Err("it was never enrolled".to_owned());
        if let Standing::Unfinished(change) = &self.standing {
            // The service may have heard of the beginning; where the host was enrolled before, it goes on being so.
            if matches!(self.memory.enrolled(), Ok(None)) {
                cut_short = self.told(name.as_deref()).await;
            }
            let left = back::take_back(&self.memory, Which::Change, change, &self.sshd).await;
            finished(left, "an earlier enrolment was cut short")?;
            self.memory.forget_change().map_err(Stop::Unable)?;
            self.standing = self.memory.standing().map_err(Stop::Unable)?;
        }
        let Standing::Enrolled(all) = &self.standing else {
            self.memory.forget_told().map_err(Stop::Unable)?;
            return Ok(Gone { name, told: cut_short });
        };
        // While the files that say where the service is are still there.
        let told = self.told(name.as_deref()).await;
        let left = back::take_back(&self.memory, Which::Enrolment, all, &self.sshd).await;
        finished(left, "leaving did not go through")?;
        self.memory.forget_all().map_err(Stop::Unable)?;
        Ok(Gone { name, told })
    }

    /// Tells the service, unless an earlier time that was cut short has: it refuses whoever has left, and the files that say where it is may be gone.
    async fn told(&self, name: Option<&str>) -> Result<(), String> {
        if self.memory.told().is_some() {
            return Ok(());
        }
        told_within(&self.sshd).await?;
        // A crash here, or a disk that is full, and the next time can't say that the service knows.
        drop(name.map(|name| self.memory.note_told(name)));
        Ok(())
    }
}

fn finished(left: Left, why: &str) -> Result<(), Stop> {
    if left.is_empty() { Ok(()) } else { Err(Stop::TakenBack { why: why.to_owned(), left }) }
}

/// Tells the service, if it can be told soon.
async fn told_within(sshd: &Sshd) -> Result<(), String> {
    match tokio::time::timeout(TELL_WITHIN, tell(sshd)).await {
        Ok(told) => told,
        Err(_) => Err(format!("no answer within {} s", TELL_WITHIN.as_secs())),
    }
}

/// Tells the service.
async fn tell(sshd: &Sshd) -> Result<(), String> {
    let mut link = open_link(sshd).await?.0;
    link.leave().await.map_err(|error| error.to_string())
}

/// The line of a host that is enrolled, and what says where it leads.
///
/// # Errors
/// In words: what is missing.
pub async fn open_link(sshd: &Sshd) -> Result<(Link, ServiceFile), String> {
    let root = Root::default();
    let settings = Settings::load(&root.path(settings::PATH))?;
    let service = ServiceFile::load(&root.path(places::SERVICE_TOML))?;
    let facts = Facts { effective: sshd.effective(CHECK_ACCOUNT).await?, ..Facts::default() };
    let identity = facts::host_keys(&root, &facts)?.into_iter().next().ok_or("there is no host key")?;
    Ok((Link::new(service.server.clone(), settings.name, identity), service))
}
