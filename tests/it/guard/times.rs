//! When a session ends: later or earlier than its certificate if its record says so, and in time whatever happens to the record.

use std::collections::BTreeSet;
use std::time::Duration;

use hallpass::host::event::{Event, Kind};
use hallpass::host::record::Record;
use hallpass::host::sessions::{Over, Rearmed, Sessions};
use hallpass::host::settings::Settings;
use hallpass::host::spool::Spool;
use hallpass::time::Timestamp;
use tokio::io::AsyncWriteExt as _;

use super::site::{Client, Due, GuardedHost, More, Pass, since, soon, still, wait_until};

/// Side by side, because all of them wait: each has a host of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_record_says_and_in_time_whatever_happens_to_the_record() {
    if !GuardedHost::can_be_had() {
        return;
    }
    tokio::join!(
        an_extended_session_goes_on_is_warned_and_ends_when_its_record_says(),
        a_session_whose_record_is_gone_with_all_state_ends_in_time(),
        a_session_whose_record_makes_no_sense_is_ended_at_once(),
        a_session_whose_watcher_was_killed_has_another_one_soon(),
        what_happens_to_sessions_is_put_down_once_each(),
        what_a_closed_connection_leaves_behind_ends_with_the_window_and_the_watcher_with_what_is_left(),
        sessions_that_are_due_are_ended_by_one_and_other_sessions_are_left_alone(),
        a_watcher_outlives_the_control_group_of_its_connection(),
        a_process_whose_first_thread_has_ended_is_not_forgotten_and_is_ended_too(),
        a_process_that_changes_its_number_all_the_time_is_ended_too(),
        processes_that_fork_while_they_are_being_ended_are_ended_too(),
    );
}

/// What a daemon has of the host's sessions.
fn sessions(host: &GuardedHost) -> Sessions {
    let settings = Settings::load(&host.path("host.toml")).unwrap();
    Sessions::open(&settings).unwrap()
}

/// The host's only session.
fn only(host: &GuardedHost) -> Record {
    let mut all = sessions(host).list();
    assert_eq!(all.len(), 1);
    all.pop().unwrap().record.unwrap()
}

/// Gives the host's only session another end, as a daemon does after an approved extension.
fn set_end(host: &GuardedHost, end: Timestamp) {
    assert_eq!(
        sessions(host).rearm(only(host).request().unwrap(), end, &Over::default()),
        Ok(Rearmed { changed: 1, unwatched: 0 })
    );
}

/// `hallpass-host tend` on the host, as root or its daemon runs it.
fn tend(host: &GuardedHost) -> String {
    let mut tend = std::process::Command::new(env!("CARGO_BIN_EXE_hallpass-host"));
    let ran = tend.args(["tend", "--config"]).arg(host.path("host.toml")).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

/// Waits until so many processes run as the host's account.
async fn settled(host: &GuardedHost, count: usize) -> BTreeSet<i32> {
    while host.processes().len() != count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.processes()
}

/// Waits until nothing of the host's sessions is left, and until their watchers are gone, which put down what happened before.
async fn gone(host: &GuardedHost) {
    let now = soon(0);
    while !host.processes().is_empty() || host.watchers() > 0 {
        assert!(since(now) < 20_000, "{:?}\n{}", host.processes(), host.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same, of sessions that end at an end, not before it and in time after it.
async fn gone_in_time(host: &GuardedHost, due: &Due) {
    loop {
        let there = host.processes();
        assert!(there.is_empty() || !due.is_over(), "{} ms after the end: {there:?}\n{}", due.since(), host.logs());
        if there.is_empty() && host.watchers() == 0 {
            break;
        }
        assert!(due.since() < 20_000, "{} watchers\n{}", host.watchers(), host.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(due.since() >= 0, "too early");
}

async fn an_extended_session_goes_on_is_warned_and_ends_when_its_record_says() {
    let host = GuardedHost::start(&More::default()).await;
    let first = soon(20);
    let pass = host.pass(first);
    let mut shell = host.client("ssh", &pass, &["-tt"], &[]);
    let mut typed = shell.child.stdin.take().unwrap();
    typed.write_all(b"echo re''ady\n").await.unwrap();
    shell.wait_for("ready", &host).await;
    // Extended beyond its certificate, by a little more than a minute.
    set_end(&host, soon(80));
    wait_until(first, 2_500).await;
    assert!(shell.is_running(), "the shell stays");
    shell.wait_for("[hallpass] access to web-1 ends in 1 minute", &host).await;
    typed.write_all(b"echo st''ill\n").await.unwrap();
    shell.wait_for("still", &host).await;
    // And ended early.
    let due = Due::at(soon(0));
    assert_eq!(sessions(&host).end(only(&host).request().unwrap()), Ok(1));
    let (code, said) = shell.finish().await;
    assert!(code == 255 && said.contains("[hallpass] access to web-1 ended "), "{code} {said:?}");
    gone_in_time(&host, &due).await;
}

async fn a_session_whose_record_is_gone_with_all_state_ends_in_time() {
    let host = GuardedHost::start(&More::default()).await;
    let end = soon(20);
    let _session = host.session(&host.pass(end), &[], "nohup setsid sleep 600 >/dev/null 2>&1 & sleep 600").await;
    host.lose_state();
    while host.records().is_empty() {
        assert!(since(end) < 0, "its watcher puts it back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // And where that can't be done, the end holds all the same.
    host.lose_state();
    std::fs::write(host.path("state"), "").unwrap();
    wait_until(end, -400).await;
    let due = Due::at(end);
    still(end, "its processes", || host.processes().len() >= 3);
    gone_in_time(&host, &due).await;
}

async fn a_session_whose_record_makes_no_sense_is_ended_at_once() {
    let host = GuardedHost::start(&More::default()).await;
    let pass = host.pass(soon(600));
    for nonsense in ["", "end = \"9999-12-30T22:00:00Z\"\n"] {
        let session = host.session(&pass, &[], "sleep 600").await;
        let path = host.records().pop().unwrap();
        hallpass::durable::replace(&path, nonsense.as_bytes(), 0o600).unwrap();
        assert_eq!(session.finish().await.0, 255, "{nonsense:?}");
        gone(&host).await;
    }
    // What somebody else could have written is nonsense too.
    let session = host.session(&pass, &[], "sleep 600").await;
    let path = host.records().pop().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    hallpass::durable::replace(&path, text.as_bytes(), 0o666).unwrap();
    assert_eq!(session.finish().await.0, 255);
}

async fn a_session_whose_watcher_was_killed_has_another_one_soon() {
    let host = GuardedHost::start(&More::default()).await;
    let end = soon(20);
    let _session = host.session(&host.pass(end), &[], "nohup setsid sleep 600 >/dev/null 2>&1 & sleep 600").await;
    assert_eq!(tend(&host), "watched again: 0; ended: 0; over: 0\n");
    let before = only(&host);
    before.watcher.signal(rustix::process::Signal::KILL);
    while host.watchers() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!sessions(&host).list()[0].is_watched);
    assert_eq!(tend(&host), "watched again: 1; ended: 0; over: 0\n");
    let after = only(&host);
    assert!(host.watchers() == 1 && after.watcher != before.watcher && after.deadline == before.deadline);
    wait_until(end, -400).await;
    let due = Due::at(end);
    still(end, "its processes", || host.processes().len() >= 3);
    gone_in_time(&host, &due).await;
}

/// The events about a certificate, when there are so many.
async fn events(host: &GuardedHost, pass: &Pass, count: usize) -> Vec<Event> {
    let serial = u64::from(pass.serial.unwrap());
    loop {
        let mut events = Spool::at(&host.path("spool")).events(99);
        events.retain(|event| event.serial.number() == serial);
        if events.len() >= count {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn words(events: &[Event]) -> Vec<(Kind, &str)> {
    events.iter().map(|event| (event.kind, event.why.as_str())).collect()
}

async fn what_happens_to_sessions_is_put_down_once_each() {
    let host = GuardedHost::start(&More::default()).await;
    let (short, pass, last) = (host.pass(soon(600)), host.pass(soon(20)), host.pass(soon(600)));
    host.ssh(&short, "true").await;
    let told = events(&host, &short, 2).await;
    assert_eq!(words(&told), [(Kind::Opened, ""), (Kind::Ended, "its connection was closed")]);
    let session = host.session(&pass, &[], "sleep 600").await;
    let told = events(&host, &pass, 1).await.remove(0);
    let records = sessions(&host).list().into_iter().filter_map(|session| session.record.ok());
    let record = records.rev().find(|record| record.serial == told.serial).unwrap();
    assert_eq!((&told.key_id, told.ca, &told.account), (&record.key_id, record.ca, &record.account));
    assert_eq!(told.from, "127.0.0.1");
    session.finish().await;
    let told = events(&host, &pass, 2).await;
    assert_eq!(words(&told), [(Kind::Opened, ""), (Kind::Ended, "its window is over")]);
    gone(&host).await;
    // Refused by the guard itself: the folder of the records can't be had.
    host.lose_state();
    std::fs::write(host.path("state"), "").unwrap();
    host.ssh(&last, "true").await;
    let told = events(&host, &last, 1).await;
    assert!(words(&told)[0].1.starts_with("the end of this session can't be made sure"), "{told:?}");
    assert!(told.len() == 1 && told[0].kind == Kind::Refused);
}

async fn what_a_closed_connection_leaves_behind_ends_with_the_window_and_the_watcher_with_what_is_left() {
    let host = GuardedHost::start(&More::default()).await;
    let end = soon(20);
    let pass = host.pass(end);
    let (code, _) = host.ssh(&pass, "true").await;
    assert_eq!(code, 0);
    gone(&host).await;
    assert!(host.records().is_empty(), "nothing was left, so nothing is watched");
    let (code, _) = host.ssh(&pass, "nohup setsid sleep 600 </dev/null >/dev/null 2>&1 &").await;
    assert_eq!(code, 0);
    wait_until(end, -400).await;
    let due = Due::at(end);
    still(end, "inside the window it may stay", || (host.processes().len(), host.watchers()) == (1, 1));
    gone_in_time(&host, &due).await;
}

/// A program that runs on without its first thread, where the host's account can start it.
fn headless(host: &GuardedHost) -> String {
    let program = host.path("home/headless").display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/guard/headless.c");
    let mut cc = std::process::Command::new("cc");
    let built = cc.args(["-Wall", "-Wextra", "-Werror", "-pthread", "-o", &program, source]).status();
    assert!(built.unwrap().success());
    program
}

async fn a_process_whose_first_thread_has_ended_is_not_forgotten_and_is_ended_too() {
    let (open, closed) = (GuardedHost::start(&More::default()).await, GuardedHost::start(&More::default()).await);
    let (programs, end) = ([headless(&open), headless(&closed)], soon(30));
    // One beside a connection that stays, and one that a closed connection has left behind.
    let command = format!("{} </dev/null >/dev/null 2>&1 & sleep 600", programs[0]);
    let _session = open.session(&open.pass(end), &[], &command).await;
    let (code, _) = closed.ssh(&closed.pass(end), &format!("{} </dev/null >/dev/null 2>&1 &", programs[1])).await;
    assert_eq!(code, 0);
    // Long enough for its watcher to have looked twice whether anything is left.
    wait_until(end, -400).await;
    let due = Due::at(end);
    still(end, "inside the window it may stay", || {
        (open.watchers(), closed.processes().len(), closed.watchers(), closed.records().len()) == (1, 1, 1, 1)
    });
    for host in [&open, &closed] {
        gone_in_time(host, &due).await;
    }
}

async fn sessions_that_are_due_are_ended_by_one_and_other_sessions_are_left_alone() {
    let host = GuardedHost::start(&More::default()).await;
    // The same account: by a plain key, by a certificate that goes on, by certificates that end together.
    let mut plain = host.session(&host.plain_key(), &[], "nohup setsid sleep 600 >/dev/null 2>&1 & sleep 600").await;
    let untouched = settled(&host, 4).await;
    let mut longer = host.session(&host.pass(soon(600)), &[], "sleep 600").await;
    let kept = settled(&host, 7).await;
    let end = soon(22);
    let pass = host.pass(end);
    let mut sessions: Vec<Client> = Vec::new();
    for _ in 0..6 {
        sessions.push(host.session(&pass, &[], "trap '' TERM; sleep 600; sleep 600").await);
    }
    wait_until(end, -400).await;
    let due = Due::at(end);
    still(end, "all of them", || sessions.iter_mut().all(Client::is_running));
    while host.processes() != kept {
        assert!(!due.is_over(), "{} ms after the end: {:?} instead of {kept:?}", due.since(), host.processes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while host.watchers() > 1 || host.records().len() > 1 {
        assert!(since(end) < 20_000, "{:?}", host.records());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(untouched.is_subset(&host.processes()) && plain.is_running() && longer.is_running());
}

async fn a_watcher_outlives_the_control_group_of_its_connection() {
    let host = GuardedHost::start(&More::default()).await;
    let session = host.session(&host.pass(soon(20)), &[], "sleep 600").await;
    assert_eq!(host.watchers(), 1);
    if !host.end_group() {
        println!("not shown here: control groups can't be made");
        return;
    }
    assert_eq!(session.finish().await.0, 255, "the connection's own group is gone");
    settled(&host, 0).await;
    // Nothing is left to watch over; it goes by itself and takes the record with it. Killed, it would have left that.
    gone(&host).await;
    assert!(host.records().is_empty());
}

/// Forks, ends and goes on in its child, in a session and process group of its own each time. One at any moment, and none after a minute.
const HOPPER: &str = "import os, time\nend = time.time() + 60\nwhile time.time() < end:\n    if os.fork():\n        os._exit(0)\n    os.setsid()\n";

async fn a_process_that_changes_its_number_all_the_time_is_ended_too() {
    let host = GuardedHost::start(&More::default()).await;
    super::site::write(&host.path("home/hopper"), HOPPER);
    let end = soon(20);
    let script = host.path("home/hopper").display().to_string();
    let hop = format!("python3 {script} >/dev/null 2>&1 </dev/null & sleep 600");
    let _session = host.session(&host.pass(end), &[], &hop).await;
    wait_until(end, -400).await;
    still(end, "it", || host.watchers() == 1);
    // Not timed: catching it is a matter of chance, a few tries on a quiet machine and more on a busy one. Its watcher stays until then.
    gone(&host).await;
    assert!(host.processes().is_empty() && since(end) >= 0);
}

/// A tree of processes that ignore what can be ignored, growing around the end. 127 at most, 80 at once by a limit that is seen to be in force
/// first; each goes by itself after half a minute.
const TREE: &str = "import os, resource, signal, sys, time
limit = (80, 80)
resource.setrlimit(resource.RLIMIT_NPROC, limit)
if resource.getrlimit(resource.RLIMIT_NPROC) != limit or os.getuid() == 0:
    sys.exit('no limit')
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
start = float(sys.argv[1])
over = start + 30
def tree(depth):
    for _ in range(2 if depth > 0 else 0):
        try:
            if os.fork() == 0:
                tree(depth - 1)
                os._exit(0)
        except OSError:
            pass
        time.sleep(0.2)
    time.sleep(max(0, over - time.time()))
print('ready', flush=True)
time.sleep(max(0, start - time.time()))
tree(6)
";

async fn processes_that_fork_while_they_are_being_ended_are_ended_too() {
    let host = GuardedHost::start(&More::default()).await;
    super::site::write(&host.path("home/tree"), TREE);
    let end = soon(20);
    let command = format!("python3 {} {}", host.path("home/tree").display(), end.unix() - 1);
    let mut session = host.client("ssh", &host.pass(end), &[], &[&command]);
    session.wait_for("ready", &host).await;
    wait_until(end, -200).await;
    let due = Due::at(end);
    still(end, "a growing tree", || host.processes().len() > 5);
    gone_in_time(&host, &due).await;
}
