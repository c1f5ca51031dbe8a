//! Runs the machine's programs (sshd, useradd, systemctl, ssh), each with a deadline and a limit on what it may say.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// How long a program may take, unless more is given. Our own choice: sshd prints its configuration in some milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The most that is read of what a program says. Our own choice; `sshd -T` says 5 KiB.
const OUTPUT_BYTES_MAX: u64 = 256 * 1024;

/// Where programs for root are, whatever the caller's `PATH`.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote on standard output.
    pub output: String,
    /// What it wrote on standard error.
    pub errors: String,
}

impl Ran {
    /// The last line that it said about what is wrong.
    #[must_use]
    pub fn complaint(&self) -> String {
        let mut lines = self.errors.lines().chain(self.output.lines()).map(str::trim).filter(|line| !line.is_empty());
        let first: Option<String> = lines.next().map(|line| line.chars().take(300).collect());
        match (self.code, first) {
            (Some(_), Some(first)) => first,
            (Some(code), None) => format!("it ended with exit code {code} and does not say why"),
            (None, first) => format!("ended by a signal; {}", first.as_deref().unwrap_or("it does not say why")),
        }
    }
}

/// A program's path.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// How long what a program has started may go on saying something when it has ended itself.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Kills a program and what it has started, unless it ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Who is gone already needs no signal.
            let _ended = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs a program to its end, with an environment that holds `PATH` alone, in a process group of its own.
///
/// What it leaves running in the background is left alone, and not waited for.
///
/// # Errors
/// In words: it could not be started, or did not end in time (then it is killed, with all that it has started in its group).
pub async fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], patience: Duration) -> Result<Ran, String> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", FOLDERS.join(":")).env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot run {program:?}: {error}"))?;
    let mut group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw));
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let whole = async {
        let mut reading = pin!(async { tokio::join!(read(output), read(errors)) });
        let mut said = None;
        let status = loop {
            tokio::select! {
                both = &mut reading, if said.is_none() => said = Some(both),
                status = child.wait() => break status?,
            }
        };
        group.0 = None;
        let (output, errors) = match said {
            Some(both) => both,
            None => tokio::time::timeout(AFTERWARDS, reading).await.unwrap_or_default(),
        };
        Ok::<_, std::io::Error>(Ran { code: status.code(), output, errors })
    };
    match tokio::time::timeout(patience, whole).await {
        Ok(Ok(ran)) => Ok(ran),
        Ok(Err(error)) => Err(format!("cannot wait for {program:?}: {error}")),
        Err(_) => Err(format!("{program:?} did not end within {} s", patience.as_secs())),
    }
}

/// As [`run`], for a program whose exit code must be 0: its output.
///
/// # Errors
/// In words; also what the program complains about.
pub async fn output<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> Result<String, String> {
    let ran = run(program, arguments, PATIENCE).await?;
    if ran.code == Some(0) { Ok(ran.output) } else { Err(ran.complaint()) }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = pipe.take(OUTPUT_BYTES_MAX);
        // What can't be read was not said.
        drop(pipe.read_to_end(&mut bytes).await);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use rustix::process::kill_process;

    use super::*;

    fn sh(script: &str, patience: Duration) -> Result<Ran, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(Path::new("/bin/sh"), &["-c", script], patience))
    }

    #[test]
    fn a_program_is_heard_to_its_end_and_one_that_hangs_is_killed() {
        let ran = sh("echo out; echo why >&2; exit 3", PATIENCE).unwrap();
        assert_eq!((ran.code, ran.output.as_str(), ran.complaint().as_str()), (Some(3), "out\n", "why"));
        let late = sh("sleep 100", Duration::from_millis(50)).unwrap_err();
        assert!(late.contains("did not end within"), "{late}");
        assert_eq!(sh("exit 3", PATIENCE).unwrap().complaint(), "it ended with exit code 3 and does not say why");
        let cut = sh("kill -9 $$", PATIENCE).unwrap();
        assert_eq!(cut.complaint(), "ended by a signal; it does not say why");
        assert_eq!(sh("env | sort | head -c 7", PATIENCE).unwrap().output, "LC_ALL=");
    }

    /// Whether a process that wrote its number there still runs.
    fn runs(path: &Path) -> bool {
        let pid = std::fs::read_to_string(path).unwrap().trim().to_owned();
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn what_a_program_has_started_is_killed_with_it_and_left_alone_when_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let background = format!("sleep 1000 & echo $! > {}", path.display());
        // Once more with more patience, where it was not even started in time.
        for patience in [500, 5_000, 20_000].map(Duration::from_millis) {
            let late = sh(&format!("{background}; wait"), patience).unwrap_err();
            assert!(late.contains("did not end within"), "{late}");
            if std::fs::read_to_string(&path).is_ok_and(|pid| pid.ends_with('\n')) {
                break;
            }
        }
        let began = std::time::Instant::now();
        while runs(&path) {
            assert!(began.elapsed() < PATIENCE, "it is killed");
            std::thread::yield_now();
        }
        // It holds the pipes, and nobody waits for that.
        let ran = sh(&background, PATIENCE).unwrap();
        assert!(ran.code == Some(0) && runs(&path));
        let pid = std::fs::read_to_string(&path).unwrap();
        kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
}
