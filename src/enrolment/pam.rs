//! Where the guard's line goes in `/etc/pam.d/sshd`, and whether it is there so that nobody gets past it. Pure.
//!
//! Directly below `pam_loginuid`, which gives the session the number that the guard finds it by; above every line that may take
//! variables from a file of the user's (`pam_env`), because the guard believes those that sshd sets; and below no line that can end
//! the stack, or skip ours, with a session that opens.
//!
//! What not: what the files say that `@include`, `include` and `substack` name.
//!
//! Invariants: every line that runs the guard is taken out ([`without_guard`]), however it stands there and over how many lines it goes;
//! only one as we would write it counts ([`check`]), and what [`with_guard`] writes does.

use std::ops::Range;

use crate::host::program;

/// Why the line can't be put there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PamProblem {
    /// There is no `pam_loginuid` line in the file itself.
    #[error("it has no session line with pam_loginuid.so to put the guard below")]
    NoLoginUid,
    /// A line above would let users say who they are.
    #[error("line {0} has pam_env.so above pam_loginuid.so; the guard's line must stand above every pam_env.so")]
    EnvironmentAbove(usize),
    /// It would not count where it would stand.
    #[error("{0}")]
    Unarmed(String),
}

/// The guard's line; `program` is how lines of the program that runs it begin.
#[must_use]
pub fn line(program: &str) -> String {
    format!("session    required     pam_exec.so quiet type=open_session {program} guard")
}

/// Whether a line runs the guard, whichever program it names and however it does.
#[must_use]
pub fn is_guard(line: &str) -> bool {
    let line = bare(line);
    is_session(line)
        && line.contains("pam_exec.so")
        && line.split_whitespace().last() == Some("guard")
        && program::runs(line, "guard")
}

/// The text with the guard's line in it, once.
///
/// # Errors
/// [`PamProblem`].
pub fn with_guard(text: &str, program: &str) -> Result<String, PamProblem> {
    let rest = without_guard(text);
    let rules = rules(&rest);
    let place = rules.iter().rposition(|rule| rule.has("pam_loginuid.so"));
    let (above, own) = place.and_then(|at| Some((rules.get(..at)?, rules.get(at)?))).ok_or(PamProblem::NoLoginUid)?;
    if let Some(above) = above.iter().find(|rule| rule.has("pam_env.so")) {
        return Err(PamProblem::EnvironmentAbove(above.number()));
    }
    let lines: Vec<&str> = rest.split_inclusive('\n').collect();
    let (above, below) = lines.split_at_checked(own.span.end).unwrap_or((&lines, &[]));
    let mut with = above.concat();
    if !with.ends_with('\n') {
        with.push('\n');
    }
    with.extend([&line(program), "\n"]);
    with.extend(below.iter().copied());
    check(&with, program).map_err(PamProblem::Unarmed)?;
    Ok(with)
}

/// The text without the guard's line, and without all the lines that it goes on over.
#[must_use]
pub fn without_guard(text: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let ours: Vec<Range<usize>> = rules(text).iter().filter_map(|rule| rule.guard_in(&lines)).collect();
    let is_ours = |at: &usize| ours.iter().any(|span| span.contains(at));
    (0..).zip(&lines).filter(|(at, _)| !is_ours(at)).map(|(_, line)| *line).collect()
}

/// The programs whose guards the stack asks.
#[must_use]
pub fn guards(text: &str) -> Vec<String> {
    let asked = rules(text).into_iter().filter(|rule| is_guard(&rule.text));
    // The first word is the module.
    asked.filter_map(|rule| rule.words.into_iter().skip(1).find(|word| word.starts_with('/'))).collect()
}

/// Whether no session opens without the guard having been asked, and what it says counts.
///
/// Its line stands there once, as we would write it but for blanks; nothing before it can make PAM pass it over, and nothing behind it can
/// undo its no.
///
/// # Errors
/// In words: what is wrong.
pub fn check(text: &str, program: &str) -> Result<(), String> {
    let rules = rules(text);
    let guards: Vec<usize> = (0..).zip(&rules).filter(|(_, rule)| is_guard(&rule.text)).map(|(at, _)| at).collect();
    let (above, guard, below) = match guards[..] {
        [at] => (rules.get(..at), rules.get(at), rules.get(at.saturating_add(1)..)),
        [_, second, ..] => {
            let number = rules.get(second).map_or(0, Rule::number);
            return Err(format!("line {number} asks the guard a second time"));
        }
        [] => (None, None, None),
    };
    let (Some(above), Some(guard), Some(below)) = (above, guard, below) else {
        return Err("PAM does not ask the guard".to_owned());
    };
    let own = guard.number();
    if guard.is_optional || !matches!(guard.control.as_str(), "required" | "requisite") {
        return Err(format!(
            "line {own} asks the guard, but what it says does not count: its control must be `required`"
        ));
    }
    if !guard.runs(program) {
        return Err(format!("line {own} does not run the guard as enrolment writes it: {}", line(program).trim()));
    }
    if let Some(environment) = above.iter().find(|rule| rule.has("pam_env.so")) {
        return Err(format!(
            "line {} has pam_env.so above the guard, which believes what sshd sets",
            environment.number()
        ));
    }
    if let Some(below) = below.iter().find(|rule| rule.has("pam_loginuid.so")) {
        return Err(format!(
            "line {} has pam_loginuid.so below the guard, which needs its session's number",
            below.number()
        ));
    }
    if !above.last().is_some_and(|rule| rule.has("pam_loginuid.so")) {
        return Err(format!("line {own} with the guard does not stand directly below pam_loginuid.so"));
    }
    // One that is `requisite` ends the stack with its no.
    if let Some(below) = below.iter().find(|rule| guard.control == "required" && rule.resets()) {
        // Not its number: the guard's own line, which may not be there yet, stands above.
        let words: Vec<&str> = below.text.split_whitespace().collect();
        return Err(format!("below the guard, `{}` undoes its no (`reset`)", words.join(" ")));
    }
    let mut between = 0_usize;
    for rule in above.iter().rev() {
        if rule.may_pass_over(between) {
            let number = rule.number();
            return Err(format!("line {number} can end the session lines, or skip some, before the guard is asked"));
        }
        between = between.saturating_add(usize::from(rule.is_module()));
    }
    Ok(())
}

/// A session line, or one that brings in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    /// The lines that it goes over, from 0.
    span: Range<usize>,
    /// All of it, on one line.
    text: String,
    /// Whether a module that is missing is passed over.
    is_optional: bool,
    /// In lower case, with its brackets.
    control: String,
    /// The module and its arguments.
    words: Vec<String>,
}

impl Rule {
    /// `None` of what says nothing about sessions.
    fn parse(span: Range<usize>, text: &str) -> Option<Self> {
        let (kind, rest) = text.trim().split_once(char::is_whitespace)?;
        let rest = rest.trim_start();
        if kind.eq_ignore_ascii_case("@include") {
            return Some(Self { span, text: text.to_owned(), ..Self::default() });
        }
        let word = kind.strip_prefix('-').unwrap_or(kind);
        if !word.eq_ignore_ascii_case("session") {
            return None;
        }
        let end = if rest.starts_with('[') {
            rest.find(']').map(|end| end.saturating_add(1))
        } else {
            rest.find(char::is_whitespace)
        };
        let (control, module) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, ""));
        Some(Self {
            span,
            text: text.to_owned(),
            is_optional: word != kind,
            control: control.to_ascii_lowercase(),
            words: module.split_whitespace().map(str::to_owned).collect(),
        })
    }

    /// Where it begins, from 1.
    const fn number(&self) -> usize {
        self.span.start.saturating_add(1)
    }

    /// Which of the text's lines run the guard: all of its own, or those behind somebody else's line that goes on into ours.
    fn guard_in(&self, lines: &[&str]) -> Option<Range<usize>> {
        if !is_guard(&self.text) {
            return None;
        }
        let own = lines.get(self.span.clone()).unwrap_or_default();
        let behind = own.iter().rposition(|line| is_session(line)).filter(|_| !self.has("pam_exec.so"));
        Some(self.span.start.saturating_add(behind.unwrap_or(0))..self.span.end)
    }

    fn has(&self, module: &str) -> bool {
        self.words.first().is_some_and(|word| word.rsplit('/').next() == Some(module))
    }

    /// Whether it runs this program's guard, when a session opens.
    fn runs(&self, program: &str) -> bool {
        let own: Vec<&str> = program.split_whitespace().chain(["guard"]).collect();
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let options = words.get(1..).and_then(|words| words.strip_suffix(own.as_slice()));
        let is_known = |option: &&str| ["quiet", "quiet_log", "debug", "type=open_session"].contains(option);
        self.has("pam_exec.so")
            && options.is_some_and(|all| all.contains(&"type=open_session") && all.iter().all(is_known))
    }

    /// Whether it is one module; a file may hold any number of them.
    fn is_module(&self) -> bool {
        !matches!(self.control.as_str(), "" | "include" | "substack")
    }

    /// Whether what stands behind so many modules may not be asked in a session that opens: the stack ends here, or goes on behind it.
    fn may_pass_over(&self, between: usize) -> bool {
        let jumps = |word: &str| word.parse().is_ok_and(|count: usize| count > between);
        self.control == "sufficient" || self.actions().any(|word| word == "done" || jumps(word))
    }

    /// Whether PAM may go on below it as if nothing above had been asked.
    fn resets(&self) -> bool {
        self.actions().any(|word| word == "reset")
    }

    /// The words of a control in brackets.
    fn actions(&self) -> impl Iterator<Item = &str> {
        self.control.split(|c: char| c.is_whitespace() || "[]=".contains(c))
    }
}

/// The rules, each on one line: a backslash at the end of a line makes the next one part of it, and a comment ends it.
fn rules(text: &str) -> Vec<Rule> {
    let (mut found, mut open) = (Vec::new(), None::<(usize, String)>);
    let mut end = 0_usize;
    for (index, line) in text.lines().enumerate() {
        end = index.saturating_add(1);
        let says = bare(line);
        let (start, mut whole) = open.take().unwrap_or_else(|| (index, String::new()));
        let more = says.trim_end().strip_suffix('\\').filter(|_| says.len() == line.len());
        whole.push_str(more.unwrap_or(says));
        // What is empty does not end what goes on.
        let goes_on = more.is_some() || (says.trim().is_empty() && !whole.trim().is_empty());
        if goes_on {
            whole.push(' ');
            open = Some((start, whole));
        } else {
            found.extend(Rule::parse(start..end, &whole));
        }
    }
    found.extend(open.and_then(|(start, whole)| Rule::parse(start..end, &whole)));
    found
}

/// A line without its comment.
fn bare(line: &str) -> &str {
    line.split('#').next().unwrap_or_default()
}

/// Whether it is a session line: comments, includes and other kinds are not.
fn is_session(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches('-');
    line.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("session"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "@include common-auth\naccount    required     pam_nologin.so\n@include common-account\n\
        session [success=ok ignore=ignore module_unknown=ignore default=bad]        pam_selinux.so close\n\
        session    required     pam_loginuid.so\nsession    optional     pam_keyinit.so force revoke\n@include common-session\n\
        session    required     pam_env.so user_readenv=1 envfile=/etc/default/locale\n@include common-password\n";
    const RED_HAT: &str = "#%PAM-1.0\nauth       substack     password-auth\naccount    required     pam_sepermit.so\n\
        # pam_selinux.so close should be the first session rule\nsession    required     pam_selinux.so close\n\
        session    required     pam_loginuid.so\nsession    required     pam_selinux.so open env_params\nsession    include      password-auth\n";

    #[test]
    fn the_guard_stands_directly_below_loginuid_and_once() {
        for text in [DEBIAN, RED_HAT] {
            let with = with_guard(text, "/usr/local/bin/hallpass host").unwrap();
            let below = with.lines().skip_while(|line| !line.contains("pam_loginuid.so")).nth(1).unwrap();
            assert_eq!(below, line("/usr/local/bin/hallpass host"));
            assert_eq!(with_guard(&with, "/usr/local/bin/hallpass host").as_deref(), Ok(with.as_str()));
            let moved = with_guard(&with, "/opt/hallpass-host").unwrap();
            assert!(
                !moved.contains("/usr/local/bin/hallpass host guard") && moved.lines().count() == with.lines().count()
            );
            assert_eq!(without_guard(&with), text);
        }
    }

    #[test]
    fn no_other_line_is_changed_however_it_ends() {
        const PROGRAM: &str = "/opt/hallpass-host";
        let text =
            "session required pam_loginuid.so\r\nsession required pam_limits.so\r\r\nsession required pam_mail.so";
        let with = with_guard(text, PROGRAM).unwrap();
        let expected = text.replacen("\r\n", &format!("\r\n{}\n", line(PROGRAM)), 1);
        assert_eq!(with, expected);
        assert_eq!(with_guard(&with, PROGRAM).as_deref(), Ok(with.as_str()));
        assert_eq!(without_guard(&with), text);
        let last = with_guard("session required pam_loginuid.so", PROGRAM).unwrap();
        assert_eq!(last, format!("session required pam_loginuid.so\n{}\n", line(PROGRAM)));
    }

    /// A stack of a distribution, with another line in place of the guard's.
    fn with_line(guard: &str) -> String {
        with_guard(DEBIAN, "/opt/hallpass-host").unwrap().replacen(&line("/opt/hallpass-host"), guard, 1)
    }

    #[test]
    fn a_line_that_was_only_set_otherwise_counts() {
        for program in ["/opt/hallpass-host", "/usr/local/bin/hallpass host"] {
            for text in [DEBIAN, RED_HAT] {
                let with = with_guard(text, program).unwrap();
                assert_eq!(check(&with, program), Ok(()));
                assert_eq!(check(&with.replace('\n', "\r\n"), program), Ok(()));
            }
        }
        for guard in [
            "session required pam_exec.so quiet type=open_session /opt/hallpass-host guard",
            "\tSession\trequired\tpam_exec.so  type=open_session\tquiet /opt/hallpass-host\tguard",
            "# ours\n\nsession requisite /lib/security/pam_exec.so debug type=open_session /opt/hallpass-host guard # ours",
            "auth required pam_unix.so\nsession required pam_exec.so \\\n  # more\n  type=open_session /opt/hallpass-host guard",
        ] {
            assert_eq!(check(&with_line(guard), "/opt/hallpass-host"), Ok(()), "{guard}");
        }
        for guard in ["session requisite", "session\trequisite"] {
            let guard = line("/opt/hallpass-host").replacen("session    required", guard, 1);
            let below = format!("{guard}\nsession [default=reset] pam_x.so");
            assert_eq!(check(&with_line(&below), "/opt/hallpass-host"), Ok(()), "its no ends the stack");
        }
        let harmless = "session [default=1] pam_a.so\nsession optional pam_b.so\nsession required pam_loginuid.so\n";
        assert!(with_guard(harmless, "/opt/hallpass-host").is_ok(), "what is skipped is not the guard");
    }

    #[test]
    fn a_guard_that_a_session_gets_past_is_not_armed_and_is_taken_out_all_the_same() {
        const PROGRAM: &str = "/opt/hallpass-host";
        let own = line(PROGRAM);
        for (what, why) in [
            (own.replace("required", "optional"), "does not count"),
            (own.replace("required", "sufficient"), "does not count"),
            (own.replace("required", "[default=ignore]"), "does not count"),
            (own.replace("session ", "-session "), "does not count"),
            (own.replace("type=open_session", "type=close_session"), "as enrolment writes it"),
            (own.replace("type=open_session ", ""), "as enrolment writes it"),
            (own.replace("quiet", "quiet seteuid"), "as enrolment writes it"),
            (own.replace(PROGRAM, "/home/mallory/hallpass-host"), "as enrolment writes it"),
            (own.replace(PROGRAM, "/bin/true host"), "as enrolment writes it"),
            (own.replace(PROGRAM, "/bin/true /opt/hallpass-host"), "as enrolment writes it"),
            (format!("{own}\n{own}"), "a second time"),
            (format!("session optional pam_mail.so\n{own}"), "directly below"),
            (format!("@include common-session\n{own}"), "directly below"),
            (format!("session required pam_mail.so \\\n{own}"), "as enrolment writes it"),
            (format!("#{own}"), "does not ask"),
        ] {
            let text = with_line(&what);
            let told = check(&text, PROGRAM).expect_err(&what);
            assert!(told.contains(why), "{what}: {told}");
            if why != "does not ask" {
                assert!(!rules(&without_guard(&text)).iter().any(|rule| is_guard(&rule.text)), "{what}");
                assert_eq!(check(&with_guard(&text, PROGRAM).unwrap(), PROGRAM), Ok(()), "enrolling again mends it");
            }
        }
        for (stack, why) in [
            (format!("{own}\nsession required pam_loginuid.so\n"), "below the guard"),
            (format!("session required pam_env.so\nsession required pam_loginuid.so\n{own}\n"), "pam_env.so above"),
        ] {
            let told = check(&stack, PROGRAM).expect_err(&stack);
            assert!(told.contains(why), "{stack}: {told}");
        }
    }

    #[test]
    fn a_guard_that_goes_on_over_several_lines_is_taken_out_whole() {
        const PROGRAM: &str = "/opt/hallpass-host";
        for wrapped in [
            "session required pam_exec.so quiet type=open_session \\\n    /opt/hallpass-host guard\n",
            "session required \\\npam_exec.so \\ \n# why\n\n  type=open_session \\\n/opt/hallpass-host \\\n guard # ours\n",
            "session \\\n    required pam_exec.so type=open_session /opt/hallpass-host guard\n",
        ] {
            for text in [DEBIAN, RED_HAT] {
                let whole = with_guard(text, PROGRAM).unwrap();
                let had = whole.replacen(&format!("{}\n", line(PROGRAM)), wrapped, 1);
                assert_eq!(check(&had, PROGRAM), Ok(()), "{had}");
                assert_eq!(without_guard(&had), text, "nothing is left of it, and nothing else is gone: {wrapped}");
                assert_eq!(with_guard(&had, PROGRAM).as_ref(), Ok(&whole), "enrolling again leaves one: {wrapped}");
            }
        }
        // Somebody else's line that goes on into ours stays.
        let other = "session optional pam_mail.so \\\n";
        let below = "session optional pam_x.so\n";
        let ours = "session required pam_exec.so quiet \\\n  type=open_session /opt/hallpass-host guard\n";
        assert_eq!(without_guard(&format!("{other}{ours}{below}")), format!("{other}{below}"));
        // Below a line that goes on, not into it.
        let loginuid = "session required \\\n  pam_loginuid.so \\\n  require_auditd\n";
        let with = with_guard(&format!("{loginuid}{below}"), PROGRAM);
        assert_eq!(with, Ok(format!("{loginuid}{}\n{below}", line(PROGRAM))));
    }

    #[test]
    fn a_line_below_that_undoes_the_guards_no_is_refused() {
        for below in [
            "session [default=reset] pam_x.so",
            "-session [ success = ok Default = Reset ] pam_x.so",
            "session \\\n [default=reset] pam_x.so",
        ] {
            let stack = format!("{DEBIAN}{below}\n");
            let told = with_guard(&stack, "/opt/hallpass-host").expect_err(below).to_string();
            assert!(told.contains("pam_x.so` undoes its no") && !told.contains('\\'), "{below}: {told}");
        }
        let above = format!("session [default=reset] pam_x.so\n{DEBIAN}auth [default=reset] pam_x.so\n");
        assert!(with_guard(&above, "/opt/hallpass-host").is_ok(), "it has not been asked yet");
    }

    #[test]
    fn a_stack_that_may_pass_it_over_is_refused() {
        for line in [
            "session sufficient pam_x.so",
            "session [success=done default=ignore] pam_x.so",
            "session [ success = done ] pam_x.so",
            "session [success=2 default=ignore] pam_x.so",
            "session [success=3 default=ignore] pam_x.so\nsession include other",
        ] {
            let text = format!("{line}\nsession required pam_loginuid.so\n");
            let told = with_guard(&text, "/opt/hallpass-host").expect_err(line).to_string();
            assert!(told.contains("line 1 can end"), "{line}: {told}");
        }
        let asked = format!("{}# session\n{}", line("/opt/hallpass-host"), line("/usr/bin/hallpass host"));
        assert_eq!(guards(&asked), ["/opt/hallpass-host", "/usr/bin/hallpass"]);
        let open = "session required pam_loginuid.so \\\n";
        assert!(matches!(with_guard(open, "/opt/hallpass-host"), Err(PamProblem::Unarmed(_))));
    }

    #[test]
    fn a_stack_in_which_it_could_not_be_believed_is_refused() {
        let none =
            "auth required pam_unix.so\nsession include system-remote-login\n#session required pam_loginuid.so\n";
        assert_eq!(with_guard(none, "/x"), Err(PamProblem::NoLoginUid));
        let above = "session required pam_env.so user_readenv=1\nsession required pam_loginuid.so\n";
        assert_eq!(with_guard(above, "/x"), Err(PamProblem::EnvironmentAbove(1)));
    }
}
