//! The set for the command line's tests: a service of its own, people with keys and folders, and a transcript of all they type.
//!
//! The real program runs against a real server on a free port. What differs from run to run (ids, times, ports, keys, paths) is
//! replaced by names before the transcript is compared with its golden file; `UPDATE_GOLDEN=1` writes that anew.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use regex::{Captures, Regex};

pub(super) const HALLPASS: &str = env!("CARGO_BIN_EXE_hallpass");

/// The stage of one test.
pub(super) struct Stage {
    folder: tempfile::TempDir,
    service: Option<Service>,
    transcript: String,
}

/// A running `hallpass serve`, ended with its handle.
struct Service {
    child: Child,
    url: String,
    pin: String,
    /// Each line it says, as it says it.
    lines: std::sync::mpsc::Receiver<String>,
    said: String,
}

/// How a command ended.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

/// A command that runs beside the test; its standard error is read line by line.
pub(super) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
    read: String,
    seen: String,
}

impl Stage {
    /// A stage without a service.
    pub(super) fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("hallpass-cli").tempdir().unwrap();
        Self { folder, service: None, transcript: String::new() }
    }

    /// A stage with a running service, on which alice, bob and omar are logged in.
    pub(super) fn new() -> Self {
        let mut stage = Self::empty();
        stage.set_up();
        stage.start();
        for person in ["alice", "bob", "omar"] {
            stage.log_in(person);
        }
        stage
    }

    /// Writes keys, configuration and policy; starts nothing.
    pub(super) fn set_up(&self) {
        let keys: Vec<String> = ["alice", "bob", "omar", "eve"].iter().map(|person| self.make_key(person)).collect();
        let answers = format!(
            "url = \"https://127.0.0.1:0\"\nlisten = \"127.0.0.1:0\"\nfolder = {:?}\noperator = \"omar@example.com\"\noperator_key = {:?}\n",
            self.path("service"),
            keys[2]
        );
        self.write("answers.toml", &answers);
        let made = self.as_person("omar", &["init", "--answers", &self.shown("answers.toml")]);
        assert_eq!(made.code, 0, "{}", made.err);
        self.write("service/policy.toml", &policy(&keys));
    }

    /// Makes a person's login key; returns its public line.
    pub(super) fn make_key(&self, person: &str) -> String {
        let path = self.path(&format!("{person}/login_key"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", person, "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        std::fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
    }

    /// Starts the service; on the same port again if it ran before.
    pub(super) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same, with variables in the environment.
    pub(super) fn start_with(&mut self, env: &[(&str, &str)]) {
        self.start_as(&[], env);
    }

    /// The same, with further arguments.
    pub(super) fn start_as(&mut self, arguments: &[&str], env: &[(&str, &str)]) {
        self.start_command(Command::new(HALLPASS), arguments, env);
    }

    /// The same, by a program that starts it: `STARTER WORDS… hallpass serve`.
    pub(super) fn start_by(&mut self, starter: &Path, words: &[&str]) {
        let mut command = Command::new(starter);
        command.args(words).arg(HALLPASS);
        self.start_command(command, &[], &[]);
    }

    fn start_command(&mut self, mut command: Command, arguments: &[&str], env: &[(&str, &str)]) {
        if let Some(before) = &self.service {
            let address = before.url.trim_start_matches("https://").to_owned();
            let config = std::fs::read_to_string(self.path("service/config.toml")).unwrap();
            self.write("service/config.toml", &config.replace("127.0.0.1:0", &address));
        }
        let mut child = command
            .args(["serve", "--config", &self.shown("service/config.toml"), "--ready-file", &self.shown("ready")])
            .args(arguments)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        // The line with the pin is the last before it serves; the port is bound before that.
        let mut said = String::new();
        while !said.contains("--pin") {
            assert!(lines.read_line(&mut said).unwrap() > 0, "the service did not start:\n{said}");
        }
        let words: Vec<&str> = said.split_whitespace().collect();
        let after = |flag: &str| words[words.iter().position(|w| *w == flag).unwrap() + 1].to_owned();
        let (url, pin) = (after("--server"), after("--pin"));
        // Read on, so that the service never waits for us.
        let (sender, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let _nobody_listens = sender.send(line);
            }
        });
        self.service = Some(Service { child, url, pin, lines: heard, said });
    }

    /// Stops the service as an operator would; returns what it said.
    pub(super) fn stop(&mut self) -> String {
        let service = self.service.as_mut().unwrap();
        signal(&service.child, "TERM");
        assert!(service.child.wait().unwrap().success());
        for line in &service.lines {
            service.said.push_str(&format!("{line}\n"));
        }
        service.said.clone()
    }

    /// Kills the service where it stands.
    pub(super) fn kill(&mut self) {
        let service = self.service.as_mut().unwrap();
        service.child.kill().unwrap();
        service.child.wait().unwrap();
    }

    /// Waits for the service to end by itself; returns its exit code.
    #[cfg(feature = "failpoints")]
    pub(super) fn ended(&mut self) -> Option<i32> {
        self.service.as_mut().unwrap().child.wait().unwrap().code()
    }

    /// Waits until the service has said a line that holds `text`.
    pub(super) fn hears(&mut self, text: &str) {
        let service = self.service.as_mut().unwrap();
        while let Ok(line) = service.lines.recv_timeout(std::time::Duration::from_secs(60)) {
            service.said.push_str(&format!("{line}\n"));
            if line.contains(text) {
                return;
            }
        }
        panic!("the service never said {text:?}:\n{}", service.said);
    }

    /// The service's process.
    pub(super) fn pid(&self) -> u32 {
        self.service.as_ref().unwrap().child.id()
    }

    /// What the service has said until it served.
    pub(super) fn said(&self) -> &str {
        &self.service.as_ref().unwrap().said
    }

    /// Sends a signal to the service.
    pub(super) fn signal(&self, name: &str) {
        signal(&self.service.as_ref().unwrap().child, name);
    }

    pub(super) fn url(&self) -> String {
        self.service.as_ref().unwrap().url.clone()
    }

    pub(super) fn pin(&self) -> String {
        self.service.as_ref().unwrap().pin.clone()
    }

    pub(super) fn log_in(&self, person: &str) {
        let (url, pin, name) = (self.url(), self.pin(), format!("{person}@example.com"));
        let key = self.shown(&format!("{person}/login_key"));
        let ran = self.as_person(person, &["login", "--server", &url, "--pin", &pin, "--person", &name, "--key", &key]);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The command `hallpass …` as this person would type it, without a terminal.
    pub(super) fn command(&self, person: &str, arguments: &[&str]) -> Command {
        self.command_of(HALLPASS, person, arguments)
    }

    /// The same with another program.
    pub(super) fn command_of(&self, program: &str, person: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TZ", "UTC")
            .env("HOME", self.path(person))
            .env("HALLPASS_CONFIG_DIR", self.path(&format!("{person}/config")))
            .env("HALLPASS_STATE_DIR", self.path(&format!("{person}/state")))
            .env("HALLPASS_RUNTIME_DIR", self.path(&format!("{person}/run")))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command and says nothing about it.
    pub(super) fn as_person(&self, person: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.command(person, arguments).output().unwrap())
    }

    /// Runs a command and writes it down.
    pub(super) fn types(&mut self, person: &str, arguments: &[&str]) -> Ran {
        self.types_with(person, arguments, &[])
    }

    /// The same, with variables in the environment.
    pub(super) fn types_with(&mut self, person: &str, arguments: &[&str], env: &[(&str, &str)]) -> Ran {
        let mut command = self.command(person, arguments);
        command.envs(env.iter().copied());
        let ran = Ran::of(command.output().unwrap());
        self.note(person, arguments, &ran);
        ran
    }

    /// Starts a command that goes on beside the test.
    pub(super) fn starts(&mut self, person: &str, arguments: &[&str]) -> Running {
        let mut child = self.command(person, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (out, err) = (BufReader::new(out), BufReader::new(err));
        Running { child, out, err, read: String::new(), seen: String::new() }
    }

    /// Writes down how a command ended.
    pub(super) fn note(&mut self, person: &str, arguments: &[&str], ran: &Ran) {
        self.note_of("hallpass", person, arguments, ran);
    }

    /// The same for a program of this name.
    pub(super) fn note_of(&mut self, name: &str, person: &str, arguments: &[&str], ran: &Ran) {
        let plain =
            |c: char| if c.is_ascii_graphic() || c == ' ' { c.to_string() } else { c.escape_unicode().to_string() };
        let quoted = arguments.iter().map(|a| {
            let word: String = a.chars().map(plain).collect();
            if word.contains([' ', '"', '\\']) { format!("'{word}'") } else { word }
        });
        self.transcript.push_str(&format!("{person}$ {name} {}\n", quoted.collect::<Vec<_>>().join(" ")));
        if arguments.iter().any(|argument| ["--json", "--jsonl"].contains(argument)) {
            super::schemas::check_lines(&ran.out);
            super::schemas::check_lines(&ran.err);
        }
        for (sign, text) in [("", &ran.out), ("! ", &ran.err)] {
            for line in text.lines() {
                self.transcript.push_str(&format!("{}\n", format!("{sign}{line}").trim_end()));
            }
        }
        self.transcript.push_str(&format!("[{}]\n\n", ran.code));
    }

    /// Compares everything that was written down with `tests/cli/NAME.txt`.
    pub(super) fn check(&self, name: &str) {
        let got = normal(&self.transcript, self.folder.path());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &got).unwrap();
            return;
        }
        let want = std::fs::read_to_string(&path).unwrap_or_default();
        for (at, (want, got)) in want.lines().zip(got.lines()).enumerate() {
            assert_eq!(want, got, "{}:{}; UPDATE_GOLDEN=1 accepts what came", path.display(), at + 1);
        }
        assert_eq!(want.lines().count(), got.lines().count(), "{}:\n{got}", path.display());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(service) = &mut self.service {
            let _ended_already = service.child.kill();
            let _status = service.child.wait();
        }
    }
}

impl Ran {
    pub(super) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The JSON document on standard output.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }

    /// A text in that document.
    pub(super) fn field(&self, key: &str) -> String {
        self.json()[key].as_str().unwrap().to_owned()
    }
}

impl Running {
    /// Reads its standard error up to a line that holds `text`.
    pub(super) fn hears(&mut self, text: &str) {
        loop {
            let from = self.seen.len();
            assert!(self.err.read_line(&mut self.seen).unwrap() > 0, "ended without {text:?}:\n{}", self.seen);
            if self.seen[from..].contains(text) {
                return;
            }
        }
    }

    /// Reads its standard output up to a line that holds `text`; returns that line.
    pub(super) fn prints(&mut self, text: &str) -> String {
        loop {
            let from = self.read.len();
            assert!(self.out.read_line(&mut self.read).unwrap() > 0, "ended without {text:?}:\n{}", self.read);
            if self.read[from..].contains(text) {
                return self.read[from..].to_owned();
            }
        }
    }

    pub(super) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for its end.
    pub(super) fn ends(mut self) -> Ran {
        std::io::Read::read_to_string(&mut self.err, &mut self.seen).unwrap();
        std::io::Read::read_to_string(&mut self.out, &mut self.read).unwrap();
        let mut ran = Ran::of(self.child.wait_with_output().unwrap());
        (ran.out, ran.err) = (self.read, self.seen);
        ran
    }
}

fn signal(child: &Child, name: &str) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let signal = match name {
        "TERM" => rustix::process::Signal::TERM,
        "INT" => rustix::process::Signal::INT,
        "HUP" => rustix::process::Signal::HUP,
        other => panic!("no signal {other}"),
    };
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Who may do what on this stage: alice asks, bob and omar decide, omar operates, eve is known and may do nothing.
fn policy(keys: &[String]) -> String {
    let mut text = "version = 1\n[defaults]\nwindow = { default = \"30m\", max = \"1h\", total = \"4h\" }\n\n[roles]\noperator = [\"person:omar@example.com\"]\n"
        .to_owned();
    for ((person, group), key) in
        [("alice", "backend"), ("bob", "sre"), ("omar", "sre"), ("eve", "guests")].iter().zip(keys)
    {
        text.push_str(&format!(
            "\n[[person]]\nname = \"{person}@example.com\"\ngroups = [\"{group}\"]\nkeys = [\"{key}\"]\n"
        ));
    }
    text + r#"
[[host]]
name = "web-1"
tags = { role = "web" }

[[host]]
name = "web-2"
tags = { role = "web" }

[[host]]
name = "db-1"
tags = { role = "db" }

[[rule]]
name = "web-debug"
who = ["group:backend"]
hosts = ["tag:role=web"]
accounts = ["deploy"]
reason = { min_length = 10 }
approval = [{ need = 1, from = ["group:sre"] }]
permit = { pty = true, port_forwarding = true }

[[rule]]
name = "db-logs"
who = ["group:backend"]
hosts = ["db-1"]
accounts = ["logs"]
window = { default = "5m", max = "10m" }
reason = { ticket = "^INC-[0-9]+$" }
command = "journalctl -n 100"

[[rule]]
name = "no-root"
effect = "refuse"
hosts = ["*"]
accounts = ["root"]
message = "ask the platform team"

[[test]]
name = "backend has to ask"
ask = { person = "alice@example.com", host = "web-1", account = "deploy", for = "30m", reason = "INC-1 pool exhausted" }
expect = "ask"
"#
}

/// What differs from run to run, by name.
fn normal(text: &str, folder: &Path) -> String {
    let text = text.replace(&folder.display().to_string(), "DIR");
    let text = replace(&text, r"\b[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}\b", "ID");
    // The same ids without their hyphen, in paths and key ids, follow from their first appearance.
    let text = replace(&text, r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:\d\d)", "TIME");
    // In a column the blanks behind it fill up its width.
    let text = replace(&text, r"\((\d+ (s|min|h) ?)+left\) {2,}", "(LEFT)  ");
    let text = replace(&text, r"\((\d+ (s|min|h) ?)+left\)", "(LEFT)");
    let text = replace(&text, r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:PORT");
    let text = replace(&text, r"\bowner \d+,", "owner UID,");
    let text = replace(&text, r"\b[0-9a-f]{64}\b", "HEX64");
    let text = replace(&text, r"\b[0-9a-f]{32}\b", "HEX32");
    let text = replace(&text, r"\b1[789]\d{8}\b", "UNIX");
    let text = replace(&text, r"\(\d+ ms\)", "(N ms)");
    // The test's own server.
    let text = replace(&text, r"\btest_\d+ at /\S+", "DATABASE at SERVER");
    // A database has as many pages as its texts need, and those differ in length.
    let text = replace(&text, r"TIME; \d+ bytes\b", "TIME; N bytes");
    let text = replace(&text, r#""bytes":\d+"#, "\"bytes\":0");
    let text = replace(&text, r#""database_schema":\d+"#, "\"database_schema\":0");
    let text = replace(&text, "this machine has (a|no) default route.*", "(route)");
    let text = replace(&text, r"OpenSSH[ _]\d[^ \n,]*( Debian-[^ \n,]*| Ubuntu-[^ \n,]*)?( \(/[^ ]*ssh\))?", "OPENSSH");
    // Whether the temporary folder is in memory differs from machine to machine.
    let text = replace(&text, r"(?m)^(ok|warn) +runtime .*\n( {11}.*\n)*", "(runtime)\n");
    // The client looks at its clock a moment after the server did.
    let text = replace(&text, r#""clock_off_s":\d\b"#, "\"clock_off_s\":0");
    let text = replace(&text, r"SHA256:[A-Za-z0-9+/]{43}", "FINGERPRINT");
    let text = replace(&text, r#"trace(":"| )[0-9a-f]{16}"#, "trace${1}TRACE");
    let text = replace(&text, r"\bhpj_[A-Za-z0-9_-]{43}", "hpj_TOKEN");
    let text = replace(&text, r"\bhpo_[A-Za-z0-9_-]{118}", "hpo_TOKEN");
    let digits = "[0-9a-hjkmnp-tv-z]{8}";
    let text = replace(&text, &format!(r"(?m)\b(join token |revoke ){digits}( |$)"), "${1}JOIN$2");
    let text = replace(&text, &format!("(?m)^{digits}  (open|spent|expired|revoked)  "), "JOIN  $1  ");
    let text = replace(&text, &format!(r#""(id|join)":"{digits}""#), r#""$1":"JOIN""#);
    let text = replace(&text, r"-----BEGIN SSH SIGNATURE-----[^-]*-----END SSH SIGNATURE-----", "SSHSIG");
    let text = replace(&text, r"AAAA[A-Za-z0-9+/]{30,}=*", "KEY");
    let text = replace(&text, r"\\n[A-Za-z0-9+/]{43}=\\n", r"\nROOT\n");
    let text = replace(&text, r"/log [A-Za-z0-9+/]{60,}=*", "/log SIGNATURE");
    replace(&text, r"/log\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{40,}", "/log+LOGKEY")
}

/// Replaces each match; ids become `ID-1`, `ID-2`, … in the order they appear, with and without their hyphen.
fn replace(text: &str, pattern: &str, with: &str) -> String {
    let regex = Regex::new(pattern).unwrap();
    if with != "ID" {
        return regex.replace_all(text, with).into_owned();
    }
    let mut names = BTreeMap::new();
    for found in regex.find_iter(text) {
        let next = names.len() + 1;
        names.entry(found.as_str().to_owned()).or_insert_with(|| format!("ID-{next}"));
    }
    let mut text = regex.replace_all(text, |found: &Captures<'_>| names[&found[0]].clone()).into_owned();
    for (id, name) in &names {
        text = text.replace(&id.replace('-', ""), name);
    }
    text
}
