//! The ssh that runs us as its `Match exec`: what it was told to do, and whether a person sits in front of it.
//!
//! What for: plain `ssh web-1` may ask for a reason and wait; `scp`, `rsync`, `git`, a jump host's leg or an IDE must not hang. ssh ties
//! our own standard input and output to nothing, so its own command line and standard input tell (OPENSSH L1, L2).
//!
//! What not: nothing is decided here, and what is read is text to be parsed: a host or account counts only as a parsed name.
//!
//! Source: `getopt` letters of `ssh(1)` in OpenSSH 7.3 to 10.x. Linux only (`/proc`); elsewhere nobody is found, and we never ask.

use std::path::Path;

/// How many processes up ssh may be: a shell or two stand between.
const LEVELS_MAX: usize = 4;

/// Options of ssh that take a value.
const WITH_VALUE: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// An ssh that runs us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Its process, and when that began (clock ticks since boot): together never used twice.
    pub(crate) process: (u32, u64),
    /// What it was told.
    pub(crate) told: Told,
    /// Whether its standard input is a terminal.
    pub(crate) has_terminal: bool,
}

/// What an ssh was told on its command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that a command line says or does not")]
pub(crate) struct Told {
    /// The host as typed.
    pub(crate) host: String,
    /// The account, if one is named.
    pub(crate) account: Option<String>,
    /// Whether it only prints (`-G`) or speaks to a master (`-O`).
    pub(crate) connects: bool,
    /// Whether it was told to ask nothing (`BatchMode`).
    pub(crate) is_batch: bool,
    /// Whether a key is named on the command line.
    pub(crate) names_key: bool,
}

impl Caller {
    /// The nearest ssh above this process.
    pub(crate) fn find() -> Option<Self> {
        let mut pid = std::os::unix::process::parent_id();
        for _ in 0..LEVELS_MAX {
            let folder = Path::new("/proc").join(pid.to_string());
            let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
            let (name, fields) = parse_stat(&stat)?;
            if name == "ssh" {
                let line = std::fs::read(folder.join("cmdline")).ok()?;
                let words: Vec<String> = line
                    .split(|byte| *byte == 0)
                    .skip(1)
                    .map(|word| String::from_utf8_lossy(word).into_owned())
                    .collect();
                // The last word ends with a zero, too.
                let words = words.split_last().map_or(&[][..], |(_, words)| words);
                let input = std::fs::read_link(folder.join("fd/0")).unwrap_or_default();
                let began = fields.get(19)?.parse().ok()?;
                return Some(Self { process: (pid, began), told: parse(words)?, has_terminal: is_terminal(&input) });
            }
            pid = fields.get(1)?.parse().ok()?;
            if pid <= 1 {
                return None;
            }
        }
        None
    }
}

/// The name and the fields after it of `/proc/PID/stat`. The name may hold anything, also `)`.
fn parse_stat(stat: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, fields) = rest.rsplit_once(')')?;
    Some((name, fields.split_whitespace().collect()))
}

fn is_terminal(input: &Path) -> bool {
    let Some(text) = input.to_str() else { return false };
    let number = text.strip_prefix("/dev/pts/").or_else(|| text.strip_prefix("/dev/tty"));
    number.is_some_and(|number| !number.is_empty())
}

/// Reads ssh's command line (without its first word); `None` if it names no host.
fn parse(words: &[String]) -> Option<Told> {
    let mut told = Told { connects: true, ..Told::default() };
    let mut destination = None;
    let mut words = words.iter();
    let mut only_words = false;
    while let Some(word) = words.next() {
        let options = if only_words { None } else { word.strip_prefix('-').filter(|rest| !rest.is_empty()) };
        match (options, &destination) {
            (Some("-"), None) => only_words = true,
            (Some(options), _) => told.read_options(options, &mut words),
            (None, None) => destination = Some(word.clone()),
            // The remote command begins.
            (None, Some(_)) => break,
        }
        if matches!((options, &destination), (Some("-"), Some(_))) {
            break;
        }
    }
    let destination = destination?;
    let rest = destination.strip_prefix("ssh://");
    let (account, host) = match rest.unwrap_or(&destination).rsplit_once('@') {
        Some((account, host)) => (Some(account.to_owned()), host),
        None => (None, rest.unwrap_or(&destination)),
    };
    // Only a URL has a port behind its host.
    let host = if rest.is_some() { host.trim_end_matches('/').split(':').next().unwrap_or(host) } else { host };
    host.clone_into(&mut told.host);
    // ssh takes what it reads first, and options come before the destination is looked at only if they stand there; both
    // orders name one account in practice, and the one with the host is what people see.
    told.account = account.or(told.account);
    Some(told)
}

impl Told {
    /// One word of options, such as `vvl`; a value is the rest of the word or the next one.
    fn read_options<'a>(&mut self, options: &str, words: &mut impl Iterator<Item = &'a String>) {
        for (at, letter) in options.char_indices() {
            if letter == 'G' {
                self.connects = false;
            }
            if !WITH_VALUE.contains(letter) {
                continue;
            }
            let rest = options.get(at.saturating_add(letter.len_utf8())..).unwrap_or_default();
            let value = if rest.is_empty() { words.next().cloned().unwrap_or_default() } else { rest.to_owned() };
            match letter {
                'l' => self.account = self.account.take().or(Some(value)),
                'O' => self.connects = false,
                'i' => self.names_key = true,
                'o' => self.read_setting(&value),
                _ => {}
            }
            return;
        }
    }

    /// `Key=value` or `Key value`.
    fn read_setting(&mut self, setting: &str) {
        let Some((key, value)) = setting.trim().split_once(|c: char| c == '=' || c.is_whitespace()) else { return };
        let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace()).trim_end().trim_matches('"');
        if key.eq_ignore_ascii_case("batchmode") {
            self.is_batch = value.eq_ignore_ascii_case("yes") || value.eq_ignore_ascii_case("true");
        }
        self.names_key |= key.eq_ignore_ascii_case("identityfile") || key.eq_ignore_ascii_case("identityagent");
        if key.eq_ignore_ascii_case("user") {
            self.account = self.account.take().or_else(|| Some(value.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Option<(String, Option<String>, bool, bool)> {
        let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        parse(&words).map(|told| (told.host, told.account, told.connects, told.is_batch))
    }

    #[test]
    fn host_and_account_are_found_among_the_options() {
        let plain =
            |host: &str, account: Option<&str>| Some((host.to_owned(), account.map(str::to_owned), true, false));
        for (line, host, account) in [
            ("web-1", "web-1", None),
            ("deploy@web-1 true", "web-1", Some("deploy")),
            ("-v -p 22 web-1 ls -G", "web-1", None),
            ("-p22 -l deploy web-1", "web-1", Some("deploy")),
            ("-vvl deploy web-1", "web-1", Some("deploy")),
            ("-ldeploy web-1", "web-1", Some("deploy")),
            ("-o User=deploy web-1", "web-1", Some("deploy")),
            ("-oUser=deploy web-1", "web-1", Some("deploy")),
            ("web-1 -l deploy uptime", "web-1", Some("deploy")),
            ("-J bastion web-1", "web-1", None),
            ("-W [web-1]:22 bastion", "bastion", None),
            ("-F /dev/null -i key -L 80:a:80 -N web-1", "web-1", None),
            ("-x -oForwardAgent=no -l deploy -s -- web-1 sftp", "web-1", Some("deploy")),
            ("ssh://deploy@web-1:2222", "web-1", Some("deploy")),
            ("ssh://web-1", "web-1", None),
            ("a@b@web-1", "web-1", Some("a@b")),
            ("web-1 -- -G", "web-1", None),
        ] {
            assert_eq!(told(line), plain(host, account), "{line}");
        }
        for line in ["", "-V", "-Q key", "-l deploy"] {
            assert_eq!(told(line), None, "{line}");
        }
    }

    #[test]
    fn who_only_looks_and_who_must_not_be_asked() {
        for (line, connects, is_batch) in [
            ("-G web-1", false, false),
            ("-vG web-1", false, false),
            ("web-1 -G", false, false),
            ("-O check web-1", false, false),
            ("-oBatchMode=yes web-1", true, true),
            ("-o batchmode yes", true, false),
            ("web-1 echo -oBatchMode=yes", true, false),
        ] {
            if let Some((_, _, connects_is, batch_is)) = told(line) {
                assert_eq!((connects_is, batch_is), (connects, is_batch), "{line}");
            }
        }
        for (line, names_key) in [
            ("-i key web-1", true),
            ("-oIdentityFile=key web-1", true),
            ("web-1 -i key", true),
            ("web-1 ls -i", false),
            ("web-1", false),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(parse(&words).unwrap().names_key, names_key, "{line}");
        }
        let spaced = parse(&["-o".to_owned(), "BatchMode yes".to_owned(), "web-1".to_owned()]).unwrap();
        assert!(spaced.is_batch);
    }

    #[test]
    fn a_process_name_may_hold_anything() {
        let (name, fields) = parse_stat("7 (a ) b) S 3 7 7").unwrap();
        assert_eq!((name, fields.get(1)), ("a ) b", Some(&"3")));
        assert!(is_terminal(Path::new("/dev/pts/3")) && is_terminal(Path::new("/dev/tty1")));
        assert!(!is_terminal(Path::new("pipe:[3]")) && !is_terminal(Path::new("/dev/null")));
    }
}
