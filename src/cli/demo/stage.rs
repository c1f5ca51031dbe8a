//! The demo's throw-away world: a folder, people with their own keys and client state, the service as a process of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::durable;
use crate::ssh::private::SessionKey;

/// Everything of the demo lives below this folder and goes with it.
#[derive(Debug)]
pub(super) struct Stage {
    folder: PathBuf,
    program: PathBuf,
    service: Option<Child>,
    /// Where the service listens and its certificate's pin.
    server: Option<(String, String)>,
}

/// What a command of ours printed.
#[derive(Debug)]
pub(super) struct Ran {
    /// Its exit code; -1 when a signal ended it.
    pub(super) code: i32,
    /// Standard output.
    pub(super) out: String,
    /// Standard error.
    pub(super) err: String,
}

/// How long any one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the service may take to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(20);

impl Stage {
    /// A new empty world in a folder only we can enter.
    pub(super) fn new(random: [u8; 8]) -> Result<Self, String> {
        let name = format!("hallpass-demo-{}", data_encoding::HEXLOWER.encode(&random));
        let folder = std::env::temp_dir().join(name);
        durable::create_folder(&folder, 0o700).map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
        let program = std::env::current_exe().map_err(|e| format!("cannot find this program's own file: {e}"))?;
        Ok(Self { folder, program, service: None, server: None })
    }

    /// A path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes one of its files.
    pub(super) fn write(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf, String> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            durable::create_folder(parent, 0o700).map_err(|e| format!("cannot create {}: {e}", parent.display()))?;
        }
        durable::replace(&path, text.as_bytes(), mode).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(path)
    }

    /// Makes a person's login key (or the host's key); returns the public line.
    pub(super) fn make_key(&self, file: &str, seed: [u8; 32], comment: &str) -> Result<String, String> {
        let key = SessionKey::generate(seed);
        let private = key.to_openssh(comment).map_err(|e| e.to_string())?;
        self.write(file, &private, 0o600)?;
        let public = format!("{} {comment}", key.public_key().to_openssh());
        self.write(&format!("{file}.pub"), &format!("{public}\n"), 0o644)?;
        Ok(public)
    }

    /// Starts the service and waits until it says that it is ready.
    pub(super) async fn start_service(&mut self) -> Result<(), String> {
        let ready = self.path("ready");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("service.log"))
            .map_err(|e| format!("cannot write the service's log: {e}"))?;
        let child = Command::new(&self.program)
            .args([OsStr::new("serve"), OsStr::new("--config"), self.path("config.toml").as_os_str()])
            .args([OsStr::new("--ready-file"), ready.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot start the service: {e}"))?;
        self.service = Some(child);
        let wait = async {
            loop {
                if let Ok(text) = std::fs::read_to_string(&ready)
                    && let Some((address, pin)) = text.trim().split_once(' ')
                {
                    break Ok((format!("https://{address}"), pin.to_owned()));
                }
                if let Some(Ok(Some(status))) = self.service.as_mut().map(Child::try_wait) {
                    let log = std::fs::read_to_string(self.path("service.log")).unwrap_or_default();
                    break Err(format!("the service ended with {status}:\n{log}"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ready = tokio::time::timeout(START_TIMEOUT, wait).await;
        self.server = Some(ready.map_err(|_| format!("the service was not ready after {START_TIMEOUT:?}"))??);
        Ok(())
    }

    /// The service's URL and pin.
    pub(super) fn server(&self) -> (&str, &str) {
        self.server.as_ref().map_or(("", ""), |(url, pin)| (url, pin))
    }

    /// The environment that makes our command line a person's own.
    pub(super) fn environment(&self, person: &str) -> [(&'static str, PathBuf); 4] {
        let at = |what: &str| self.path(&format!("{person}/{what}"));
        [
            ("HALLPASS_CONFIG_DIR", at("config")),
            ("HALLPASS_STATE_DIR", at("state")),
            ("HALLPASS_RUNTIME_DIR", at("run")),
            ("HALLPASS_CACHE_DIR", at("cache")),
        ]
    }

    /// Runs `hallpass …` as a person.
    pub(super) async fn hallpass(&self, person: &str, arguments: &[&str]) -> Result<Ran, String> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .envs(self.environment(person))
            .env("HALLPASS_NO_INPUT", "1")
            .env_remove("SSH_AUTH_SOCK");
        run(command).await
    }

    /// The same, demanding success and a JSON document.
    pub(super) async fn json(&self, person: &str, arguments: &[&str]) -> Result<serde_json::Value, String> {
        let ran = self.hallpass(person, arguments).await?;
        let said = || format!("`hallpass {}` ended with {}: {}", arguments.join(" "), ran.code, ran.err.trim());
        if ran.code != 0 && ran.code != 8 {
            return Err(said());
        }
        serde_json::from_str(&ran.out).map_err(|e| format!("{}; no JSON on standard output: {e}", said()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The service is killed with its handle; a file that can't be removed is only left over.
        self.service = None;
        let _left_over = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs a command with no input, to its end.
pub(super) async fn run(mut command: Command) -> Result<Ran, String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND_TIMEOUT, command.output())
        .await
        .map_err(|_| format!("{name} did not end in {COMMAND_TIMEOUT:?}"))?
        .map_err(|e| format!("cannot run {name}: {e}"))?;
    Ok(Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// All files below `folder` with this name.
pub(super) fn find_files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut edge = vec![folder.to_owned()];
    while let Some(at) = edge.pop() {
        for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                edge.push(path);
            } else if path.file_name() == Some(OsStr::new(name)) {
                found.push(path);
            }
        }
    }
    found
}
