//! The service in a process of its own: for benchmarks that look at it from outside, or that must not take its processor.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hallpass::client::Server;
use hallpass::store::sqlite::{Settings, SqliteStore};

use super::desk;

/// A service that listens; it ends with this.
pub(crate) struct Apart {
    child: Child,
    pub(crate) server: Server,
}

/// In the service's own process: serves until its input ends, and `true`. Elsewhere nothing, and `false`.
pub(crate) fn serve(people: usize) -> bool {
    let Some(folder) = std::env::args().find_map(|argument| argument.strip_prefix("--serve=").map(PathBuf::from))
    else {
        return false;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(&Settings { path: folder.join("hallpass.sqlite") }, desk::seal()).unwrap();
        let server = desk::serve(&folder, 0, people, Box::new(store)).await;
        println!("{} {}", server.url, server.pin.unwrap());
        let end = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        drop(end.await.unwrap());
    });
    true
}

impl Apart {
    /// This program once more, as the service, with its files in `folder`. Where there are two processors it has the first, and from here on we have the
    /// second: as if we were another machine. To be called before there are threads.
    pub(crate) fn start(folder: &Path) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut command = if std::thread::available_parallelism().unwrap().get() >= 2 {
            stay_on_the_second();
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(own);
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

fn stay_on_the_second() {
    let own = std::process::id().to_string();
    let told = Command::new("taskset").args(["-p", "-c", "1", &own]).stdout(Stdio::null()).status();
    assert!(told.unwrap().success(), "taskset");
}
