//! What is printed, and how: standard output holds the answer and nothing else; everything else goes to standard error.
//!
//! What for: the one place where hallpass writes to a terminal. All text passes [`escape`] (or its JSON twin), so that nothing a server,
//! file or person supplied can move the cursor, hide, or reorder what is read (CVE-2019-6109's class). What must stay as it is, byte for
//! byte, is not written to a terminal (`sink`).
//! What not: no colour, on a terminal or off it: every word says what it means by itself, so `--no-color`, `NO_COLOR` and `CLICOLOR_FORCE`
//! have no colour to change. The one text that is drawn over itself is that of `status --watch` and `inbox --watch` (`screen`).
//!
//! Times are local with their offset for people, RFC 3339 in UTC in JSON.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::ops::ControlFlow;

use serde::Serialize;

use super::args::Globals;
use super::failure::{Exit, Failure};
pub(crate) use crate::audit::shown::escape;
use crate::audit::shown::is_unsafe;
use crate::time::Timestamp;

/// Longest line that is read from a terminal.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    form: Form,
    loudness: Loudness,
}

/// What the answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// One JSON document per line, as things happen.
    JsonLines,
    /// As text, but a failure has three lines at most: it stands in front of what ssh says.
    Brief,
}

/// How much is said beside the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loudness {
    /// Failures only.
    Quiet,
    /// What matters.
    Usual,
    /// More than that.
    Verbose,
}

/// A failure as `--json` prints it.
#[derive(Serialize)]
struct FailureDocument<'a> {
    schema: &'static str,
    code: &'a str,
    what: &'a str,
    why: &'a [String],
    next: &'a [String],
    retryable: bool,
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a str>,
}

impl Form {
    /// As the global flags have it.
    pub(crate) const fn of(globals: &Globals) -> Self {
        match (globals.json, globals.jsonl) {
            (true, _) => Self::Json,
            (false, true) => Self::JsonLines,
            (false, false) => Self::Text,
        }
    }
}

impl Output {
    /// Output in this manner.
    pub(crate) const fn new(form: Form, loudness: Loudness) -> Self {
        Self { form, loudness }
    }

    /// Whether JSON is wanted: one document, or one per line.
    pub(crate) const fn is_json(self) -> bool {
        matches!(self.form, Form::Json | Form::JsonLines)
    }

    /// Whether a failure has three lines at most.
    pub(crate) const fn is_brief(self) -> bool {
        matches!(self.form, Form::Brief)
    }

    /// Whether one document per line is wanted.
    pub(crate) const fn is_stream(self) -> bool {
        matches!(self.form, Form::JsonLines)
    }

    /// Prints the answer: the JSON document when that is wanted, else the text.
    ///
    /// # Errors
    /// When standard output can't take it. A reader that went away is no error.
    pub(crate) fn answer(self, document: &impl Serialize, text: &str) -> Result<(), Failure> {
        if !self.is_json() {
            return self.text(text);
        }
        write_stdout(json_line(document)?.as_bytes()).map(drop)
    }

    /// Prints one event of a stream as [`Output::answer`] would. `Break` when nobody reads on.
    ///
    /// # Errors
    /// When standard output can't take it.
    pub(crate) fn event(self, document: &impl Serialize, text: &str) -> Result<ControlFlow<()>, Failure> {
        if self.is_json() {
            self.stream(json_line(document)?.as_bytes())
        } else {
            self.stream(escape_lines(text).as_bytes())
        }
    }

    /// Writes a piece of a stream, as it is: escaped before, or not for a terminal. `Break` when nobody reads on.
    ///
    /// # Errors
    /// When standard output can't take it.
    pub(crate) fn stream(self, bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
        write_stdout(bytes)
    }

    /// Prints text as the answer, also under `--json` (for what is text by nature: a trust bundle, a man page).
    ///
    /// # Errors
    /// When standard output can't take it.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let mut text = escape_lines(text);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        write_stdout(text.as_bytes()).map(drop)
    }

    /// Writes bytes as the answer, as they are: for what our own generators made (completion scripts, manual pages).
    ///
    /// # Errors
    /// When standard output can't take it.
    pub(crate) fn raw(self, bytes: &[u8]) -> Result<(), Failure> {
        write_stdout(bytes).map(drop)
    }

    /// Says something on standard error, unless `--quiet`.
    pub(crate) fn note(self, text: &str) {
        if self.loudness >= Loudness::Usual {
            write_stderr(&format!("{}\n", escape_lines(text.trim_end())));
        }
    }

    /// Says that the server has too much to do, and when it is asked again.
    pub(crate) fn pausing(self) -> impl Fn(std::time::Duration) + Send + Sync + 'static {
        move |pause| {
            let seconds = pause.as_secs();
            self.note(&format!("the access server has too much to do now; trying again in {seconds} s"));
        }
    }

    /// Says something on standard error only with `--verbose`.
    pub(crate) fn detail(self, text: &str) {
        if self.loudness >= Loudness::Verbose {
            self.note(text);
        }
    }

    /// Prints a failure on standard error: as people read it, or one JSON line.
    pub(crate) fn failure(self, failure: &Failure) {
        if self.is_json() {
            let document = FailureDocument {
                schema: "hallpass.failure.v1",
                code: &failure.code,
                what: &failure.what,
                why: &failure.why,
                next: &failure.next,
                retryable: failure.retryable,
                exit: failure.exit.code(),
                trace: failure.trace.as_deref(),
            };
            let json = serde_json::to_string(&document).unwrap_or_default();
            write_stderr(&format!("{}\n", escape_json(&json)));
        } else if self.form == Form::Brief {
            write_stderr(&render_briefly(failure));
        } else {
            write_stderr(&render_failure(failure));
        }
    }
}

/// The person at the terminal, whatever our own input and output are tied to.
#[derive(Debug)]
pub(crate) struct Terminal(std::fs::File);

impl Terminal {
    /// The terminal that this process belongs to; `None` if there is none.
    pub(crate) fn open() -> Option<Self> {
        std::fs::File::options().read(true).write(true).open("/dev/tty").ok().map(Self)
    }

    /// Asks a question and reads one line.
    ///
    /// # Errors
    /// When the line can't be read, or there is none.
    pub(crate) fn ask(&self, question: &str) -> Result<String, Failure> {
        use std::io::BufRead as _;
        let lost = |e: std::io::Error| Failure::failed("cannot ask at the terminal").because(e.to_string());
        (&self.0).write_all(format!("{}: ", escape(question)).as_bytes()).map_err(lost)?;
        let mut line = String::new();
        match std::io::BufReader::new(&self.0).take(LINE_BYTES_MAX).read_line(&mut line).map_err(lost)? {
            0 => Err(Failure::new(Exit::Interrupted, "interrupted", "no answer was given")),
            _ => Ok(line.trim().to_owned()),
        }
    }
}

/// The person's terminal shows nothing of what is typed while this lives.
#[derive(Debug)]
pub(crate) struct Silence(Option<(std::fs::File, rustix::termios::Termios)>);

impl Silence {
    /// Begins it, where there is a terminal.
    pub(crate) fn begin() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let Some(Terminal(tty)) = Terminal::open() else { return Self(None) };
        let Ok(before) = tcgetattr(&tty) else { return Self(None) };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        Self(tcsetattr(&tty, OptionalActions::Now, &silent).is_ok().then_some((tty, before)))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some((tty, before)) = &self.0 {
            // There is nobody to tell, and nothing else to try.
            let _lost = rustix::termios::tcsetattr(tty, rustix::termios::OptionalActions::Now, before);
        }
    }
}

/// What, the facts on one line, the first thing to do; nothing for what has been said.
fn render_briefly(failure: &Failure) -> String {
    if failure.what.is_empty() {
        return String::new();
    }
    let mut text = format!("hallpass: {}\n", escape(&failure.what));
    let facts = failure.why.join("; ");
    for (label, item) in [("why ", Some(&facts).filter(|facts| !facts.is_empty())), ("next", failure.next.first())] {
        if let Some(item) = item {
            text.push_str(&format!("  {label}  {}\n", escape(item)));
        }
    }
    text
}

/// `hallpass: what`, then `why`, `next` and `more` lines.
fn render_failure(failure: &Failure) -> String {
    let mut text = format!("hallpass: {}\n", escape(&failure.what));
    text.push_str(&labelled("  ", "why", &failure.why));
    text.push_str(&labelled("  ", "next", &failure.next));
    let mut more = Vec::new();
    if failure.has_page && failure.code.starts_with("HP-") {
        more.push(format!("hallpass help {}", failure.code));
    }
    if let Some(trace) = &failure.trace {
        more.push(format!("trace {trace}"));
    }
    if !more.is_empty() {
        text.push_str(&labelled("  ", "more", &[more.join(" · ")]));
    }
    text
}

/// Lines with a label before the first, escaped: `why`, `next` and `more` of failures and of the doctor's findings.
pub(crate) fn labelled(indent: &str, label: &str, items: &[String]) -> String {
    let labels = std::iter::once(label).chain(std::iter::repeat(""));
    items.iter().zip(labels).map(|(item, label)| format!("{indent}{label:<4}  {}\n", escape(item))).collect()
}

/// Whether a person sits at the terminal: both what we ask and what they type pass through it.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Whether standard output is a terminal.
pub(crate) fn is_shown() -> bool {
    std::io::stdout().is_terminal()
}

/// Asks a question on the terminal and reads one line; the flag that answers it is named when there is nobody to ask.
///
/// # Errors
/// When nobody can be asked, or the line can't be read.
pub(crate) fn ask(question: &str, no_input: bool, flag: &str) -> Result<String, Failure> {
    if no_input || !is_interactive() {
        return Err(Failure::usage(format!("{question}: nobody to ask here")).next(format!("pass {flag}")));
    }
    write_stderr(&format!("{}: ", escape(question)));
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    match read {
        Ok(0) => Err(Failure::new(Exit::Interrupted, "interrupted", "no answer was given")),
        Ok(_) => Ok(line.trim().to_owned()),
        Err(e) => Err(Failure::failed("cannot read the answer").because(e.to_string())),
    }
}

/// Asks for a yes; anything but `y` or `yes` is a no.
///
/// # Errors
/// As [`ask`].
pub(crate) fn confirm(question: &str, no_input: bool, flag: &str) -> Result<bool, Failure> {
    let answer = ask(&format!("{question} [y/N]"), no_input, flag)?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// A moment as people read it: local time with its offset, `2026-01-05 11:00:00 +01:00`.
pub(crate) fn local_time(at: Timestamp) -> String {
    let zoned = i64::try_from(at.unix())
        .ok()
        .and_then(|s| jiff::Timestamp::from_second(s).ok())
        .map(|t| t.to_zoned(jiff::tz::TimeZone::system()));
    zoned.map_or_else(|| at.to_string(), |z| z.strftime("%Y-%m-%d %H:%M:%S %:z").to_string())
}

/// A moment that came as RFC 3339 text, as people read it; what is no time is shown as it came, escaped.
pub(crate) fn local_text(at: &str) -> String {
    Timestamp::parse(at).map_or_else(|_| escape(at), local_time)
}

/// A path as a shell takes it for one word: quoted where it would be read otherwise.
pub(crate) fn word(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    if text.chars().all(is_plain) && !text.is_empty() { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// As [`escape`], but line ends stay: for text whose lines are ours and whose words were escaped where they came in.
fn escape_lines(text: &str) -> String {
    text.split('\n').map(escape).collect::<Vec<_>>().join("\n")
}

/// The same for JSON text: such characters can only stand inside strings, where `\uXXXX` means the same.
fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0_u16; 2];
    for c in json.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A value of the API as a document: with the name of its schema.
///
/// # Errors
/// Never in practice.
pub(crate) fn with_schema(schema: &str, value: &impl Serialize) -> Result<serde_json::Value, Failure> {
    let value = serde_json::to_value(value);
    let mut document = value.map_err(|e| Failure::failed("cannot write the JSON document").because(e.to_string()))?;
    if let Some(members) = document.as_object_mut() {
        members.insert("schema".to_owned(), schema.into());
    }
    Ok(document)
}

/// A document on one line, with its end.
///
/// # Errors
/// Never in practice.
pub(crate) fn json_line(document: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(document)
        .map_err(|e| Failure::failed("cannot write the JSON document").because(e.to_string()))?;
    Ok(format!("{}\n", escape_json(&json)))
}

/// `Break` when nobody reads on.
fn write_stdout(bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(e) => Err(Failure::failed("cannot write to standard output").because(e.to_string())),
    }
}

/// Standard error has nowhere to report its own failure to.
fn write_stderr(text: &str) {
    let mut stderr = std::io::stderr().lock();
    drop(stderr.write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::program::Kind;

    #[test]
    fn a_path_in_a_command_is_one_word() {
        let word = |text: &str| word(std::path::Path::new(text));
        assert_eq!(word("/tmp/log-1.jsonl"), "/tmp/log-1.jsonl");
        assert_eq!(word("my log.jsonl"), "'my log.jsonl'");
        assert_eq!(word("it's $1"), "'it'\\''s $1'");
        assert_eq!(word("-x"), "./-x");
    }

    #[test]
    fn json_keeps_its_meaning_when_escaped() {
        let text = "a\u{7f}\u{202e}\u{e0041}\u{9b}é";
        let json = escape_json(&serde_json::to_string(text).unwrap());
        assert!(json.is_ascii() || json.contains('é'));
        assert!(!json.chars().any(is_unsafe));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn a_failure_reads_what_why_next() {
        let failure = Failure::not_logged_in("work\u{1b}").because("last login ended").because("12 h limit");
        assert_eq!(
            render_failure(&failure),
            "hallpass: you are not logged in to `work\\u{1b}`\n  why   last login ended\n        12 h limit\n  next  hallpass login --profile work\\u{1b}\n  \
             more  hallpass help HP-111\n"
        );
        // The program for hosts has no pages.
        assert!(!render_failure(&failure.in_words_of(Kind::Host)).contains("more"));
    }
}
