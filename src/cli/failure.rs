//! Why a command did not do it: what, why, what next, and the exit code (DESIGN section 10, UX section 4).
//!
//! What for: every command returns `Result<_, Failure>`; `cli::run` alone prints it and turns it into the exit code.
//! What not: no printing and no escaping here; texts may hold what a server said, and `output` escapes them when it prints.
//!
//! Invariants: a failure never carries a secret; the first line stands alone; `next` is runnable as printed.

use crate::client::ClientError;
use crate::host::program::Kind;
use crate::name::Account;
use crate::wire;

/// What a person holds works without the server.
const HELD: &str = "hallpass cert ls";

/// The exit codes of DESIGN section 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Failed, and no better code.
    Failed,
    /// The command line is wrong.
    Usage,
    /// A person or rule said no.
    Refused,
    /// Login needed.
    Login,
    /// No rule allows asking.
    NoRule,
    /// The server can't be reached.
    Unreachable,
    /// Host or client not ready.
    NotReady,
    /// Not decided yet.
    Undecided,
    /// Access is over.
    Over,
    /// A failure before ssh started, as ssh itself would report it.
    Ssh,
    /// Interrupted.
    Interrupted,
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Login => 4,
            Self::NoRule => 5,
            Self::Unreachable => 6,
            Self::NotReady => 7,
            Self::Undecided => 8,
            Self::Over => 9,
            Self::Ssh => 255,
            Self::Interrupted => 130,
        }
    }
}

/// Why a command did not do it. Boxed, because every function here returns one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(Box<Facts>);

/// What a failure says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Stable code: `HP-111`, or a word where UX has no number.
    pub(crate) code: String,
    /// What happened, one line.
    pub(crate) what: String,
    /// The facts.
    pub(crate) why: Vec<String>,
    /// What to type.
    pub(crate) next: Vec<String>,
    /// Whether the same command can succeed later.
    pub(crate) retryable: bool,
    /// The service's id of the exchange.
    pub(crate) trace: Option<String>,
    /// The exit code.
    pub(crate) exit: Exit,
    /// Whether the program that runs has a page on the code.
    pub(crate) has_page: bool,
}

impl std::ops::Deref for Failure {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl std::ops::DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Facts {
        &mut self.0
    }
}

impl Failure {
    /// A failure without facts yet.
    pub(crate) fn new(exit: Exit, code: &str, what: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            code: code.to_owned(),
            what: what.into(),
            why: Vec::new(),
            next: Vec::new(),
            retryable: matches!(exit, Exit::Unreachable | Exit::Undecided),
            trace: None,
            exit,
            has_page: true,
        }))
    }

    /// Failed, and everything about it has been said.
    pub(crate) fn silent() -> Self {
        Self::said(Exit::Failed)
    }

    /// The same, with another exit code.
    pub(crate) fn said(exit: Exit) -> Self {
        Self::new(exit, "failed", "")
    }

    /// Failed, and no better code.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, "failed", what)
    }

    /// The command line is wrong.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", what)
    }

    /// A file could not be read, written or made.
    pub(crate) fn file(doing: &str, path: &std::path::Path, why: &std::io::Error) -> Self {
        let what = format!("cannot {doing} {:?}", path.display().to_string());
        if why.kind() == std::io::ErrorKind::AlreadyExists {
            return Self::failed(what).because("it is there already").next("name another file, or move that one away");
        }
        let why = why.to_string();
        // What writes files says which one, too.
        let why = why.strip_prefix(&what).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&why).to_owned();
        Self::failed(what).because(why)
    }

    /// With one more fact.
    #[must_use]
    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    /// With one more thing to do.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }

    /// With one thing to do, instead of what was there.
    #[must_use]
    pub(crate) fn replace_next(mut self, next: impl Into<String>) -> Self {
        self.next = vec![next.into()];
        self
    }

    /// The same, with another exit code (`hallpass ssh` turns all into 255).
    #[must_use]
    pub(crate) fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same, in the words of the program that runs.
    pub(crate) fn in_words_of(mut self, program: Kind) -> Self {
        let facts = &mut *self.0;
        facts.has_page = program == Kind::Whole;
        for text in std::iter::once(&mut facts.what).chain(&mut facts.why).chain(&mut facts.next) {
            *text = program.words(text);
        }
        self
    }

    /// The same, to who may run the service: what they hold themselves is of no use here.
    pub(crate) fn for_operator(mut self) -> Self {
        for next in self.next.iter_mut().filter(|next| *next == HELD) {
            "if you run the service, on its machine: systemctl status hallpass".clone_into(next);
        }
        self
    }

    /// Several accounts are possible, and the server wants one named: a line to type for each.
    pub(crate) fn name_account(problem: &wire::Problem, line: impl Fn(&Account) -> String) -> Self {
        let accounts = problem.why.iter().filter_map(|name| Account::parse(name).ok());
        accounts.map(|account| line(&account)).fold(Self::usage(problem.title.clone()), Self::next)
    }

    /// HP-111: no session, or an old one.
    pub(crate) fn not_logged_in(profile: &str) -> Self {
        let failure = Self::new(Exit::Login, "HP-111", format!("you are not logged in to `{profile}`"));
        match profile {
            "default" => failure.next("hallpass login"),
            other => failure.next(format!("hallpass login --profile {other}")),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Setup { url, why } => Self::usage(format!("cannot use {url:?} as access server")).because(why),
            ClientError::Unreachable { url, why } => {
                Self::new(Exit::Unreachable, "HP-101", "cannot reach the access server")
                    .because(format!("tried {url}"))
                    .because(why)
                    .next("hallpass doctor --net")
                    .next(HELD)
            }
            ClientError::Pin { expected, got } => {
                Self::new(Exit::Unreachable, "HP-102", "this is not the server you enrolled with")
                    .because(format!("expected certificate {expected}"))
                    .because(format!("got certificate {got}"))
                    .next("do not go on; ask whoever runs the service, then: hallpass login --server URL --pin PIN")
                    .not_retryable()
            }
            ClientError::Problem(problem) => Self::from_problem(*problem),
            ClientError::Renamed { known, named } => {
                Self::new(Exit::Login, "login_refused", format!("the service is called {named} by now")).because(
                    format!("here it is known as {known}; a login names the service, so that none of its keys fits"),
                )
            }
            ClientError::Protocol(why) => Self::new(Exit::Failed, "HP-104", "the server's answer is not hallpass'")
                .because(why)
                .because(concat!("this client is hallpass ", env!("CARGO_PKG_VERSION")))
                .next("hallpass doctor"),
        }
    }
}

impl Failure {
    fn not_retryable(mut self) -> Self {
        self.retryable = false;
        self
    }

    fn from_problem(problem: wire::Problem) -> Self {
        let (exit, code) = exit_of(&problem);
        let next = match (exit, problem.next.is_empty()) {
            (Exit::Login, true) => vec!["hallpass login".to_owned()],
            // Of an older service, or of something that stands before it.
            (Exit::Unreachable, true) => {
                vec!["try again in a while; if it stays, have an operator look at /readyz of the service".to_owned()]
            }
            _ => problem.next,
        };
        Self(Box::new(Facts {
            code: code.unwrap_or(problem.code.as_str()).to_owned(),
            what: problem.title,
            why: problem.why,
            next,
            retryable: problem.retryable,
            trace: problem.trace,
            exit,
            has_page: true,
        }))
    }
}

/// Exit code and `HP-` number of a problem's stable code.
fn exit_of(problem: &wire::Problem) -> (Exit, Option<&'static str>) {
    match (problem.code.as_str(), problem.status) {
        ("not_logged_in", _) => (Exit::Login, Some("HP-111")),
        ("login_refused", _) | (_, 401) => (Exit::Login, None),
        ("no_rule" | "refuse_rule" | "unknown_host", _) => (Exit::NoRule, Some("HP-201")),
        ("reason", _) => (Exit::NoRule, Some("HP-202")),
        ("window", _) => (Exit::NoRule, Some("HP-208")),
        ("too_many", _) => (Exit::Failed, Some("HP-103")),
        ("undecided", _) => (Exit::Undecided, Some("HP-203")),
        ("over", _) => (Exit::Over, Some("HP-206")),
        ("not_yet", _) => (Exit::Undecided, Some("HP-210")),
        (_, 403 | 409) => (Exit::Refused, None),
        (_, 400 | 413 | 415 | 422) => (Exit::Usage, None),
        (_, 502..=504) => (Exit::Unreachable, None),
        _ => (Exit::Failed, None),
    }
}
