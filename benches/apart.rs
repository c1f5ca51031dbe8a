//! The service in a process of its own: for benchmarks that look at it from outside, or that must not take its processor.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use hallpass::client::Server;
use hallpass::store::sqlite::{Settings, SqliteStore};

use super::desk;
use super::figures::processor_time;

/// A service that listens; it ends with this.
pub(crate) struct Apart {
    child: Child,
    pub(crate) server: Server,
}

/// The service's database, which nobody has open.
pub(crate) fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&Settings { path: folder.join("hallpass.sqlite") }, desk::seal()).unwrap()
}

/// In the service's own process: serves what was prepared in its folder until its input ends, and `true`. Elsewhere nothing, and `false`.
pub(crate) fn serve(people: usize, prepare: impl AsyncFnOnce(&Path)) -> bool {
    let Some(folder) = std::env::args().find_map(|argument| argument.strip_prefix("--serve=").map(PathBuf::from))
    else {
        return false;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        prepare(&folder).await;
        let server = desk::serve(&folder, 0, people, Box::new(open(&folder))).await;
        println!("{} {}", server.url, server.pin.unwrap());
        let end = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        drop(end.await.unwrap());
    });
    true
}

impl Apart {
    /// This program once more, as the service, with its files in `folder`. Where we may use two processors it has the first, and from here on we have the
    /// second: as if we were another machine. To be called before there are threads.
    pub(crate) fn start(folder: &Path) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut command = if let [first, second, ..] = processors()[..] {
            stay_on(second);
            let mut command = Command::new("taskset");
            command.args(["-c", &first.to_string()]).arg(own);
            command
        } else {
            Command::new(own)
        };
        command.args(std::env::args().skip(1)).arg(format!("--serve={}", folder.display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (url, pin) = line.trim().split_once(' ').unwrap();
        let server = Server { url: url.to_owned(), pin: Some(pin.to_owned()), ..Server::default() };
        Self { child, server }
    }

    /// Its number, for the kernel.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has had of the processors.
    pub(crate) fn used(&self) -> Duration {
        processor_time(&self.child.id().to_string())
    }

    /// Resident memory in MiB, open files, threads.
    pub(crate) fn look(&self) -> (f64, usize, u32) {
        let proc = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
        let number = |name: &str| -> u32 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let files = std::fs::read_dir(format!("{proc}/fd")).unwrap().count();
        (f64::from(number("VmRSS:")) / 1024.0, files, number("Threads:"))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The processors that we had at first, by the kernel's numbers.
fn processors() -> Vec<u32> {
    static FIRST: OnceLock<Vec<u32>> = OnceLock::new();
    let look = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
        let range = |part: &str| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            from.parse::<u32>().unwrap()..=to.parse().unwrap()
        };
        list.split(',').flat_map(range).collect()
    };
    FIRST.get_or_init(look).clone()
}

fn stay_on(processor: u32) {
    let own = std::process::id().to_string();
    let told = Command::new("taskset").args(["-p", "-c", &processor.to_string(), &own]).stdout(Stdio::null()).status();
    assert!(told.unwrap().success(), "taskset");
}
