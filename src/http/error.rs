//! The one place where refusals and failures become status, code and text.
//!
//! What for: [`Problem`], the only error type of handlers, and its mapping from [`Failure`]. Texts say what happened (title), the
//! facts (why) and what to do (next, as commands where there is one).
//!
//! What not: the trace id and the bytes; [`exchange`](super::exchange) adds the one and makes the other, for every answer alike.
//!
//! Statuses by who must act: 4xx the caller (401 log in, 403 may be seen but not done, 404 does not exist or may not be seen, 409 look
//! again, 422 say it otherwise, 429 later), 5xx the operator. What broke inside is logged here and never told.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::access::{Refusal, RefusalKind};
use crate::inventory::enrol::EnrolRefusal;
use crate::keyring::plan::Blocked;
use crate::policy::{RefusedKind, Verdict};
use crate::service::Failure;
use crate::wire;

/// All stable codes of problems, each with one status (`docs/errors.md`). Scripts rely on them: they are only ever added to.
pub const CODES: &[&str] = &[
    "account",
    "already_approved",
    "ambiguous",
    "bad_json",
    "bad_policy",
    "bad_query",
    "busy",
    "clock_leapt",
    "conflict",
    "content_type",
    "digest_changed",
    "forbidden",
    "host_known",
    "internal",
    "invalid",
    "join_refused",
    "login_refused",
    "method_not_allowed",
    "name_taken",
    "no_rule",
    "not_eligible",
    "not_found",
    "not_logged_in",
    "not_theirs",
    "not_yet",
    "nothing_due",
    "over",
    "own_request",
    "policy_changed",
    "quorum_no_longer_met",
    "reason",
    "refuse_rule",
    "rotation_blocked",
    "signature_needed",
    "signature_refused",
    "timeout",
    "too_large",
    "too_many",
    "unavailable",
    "undecided",
    "unknown_host",
    "window",
    "would_widen",
    "wrong_state",
];

/// Longest text of a problem, in characters. Our own choice.
const TEXT_CHARS_MAX: usize = 500;

/// Most lines under `why`. Our own choice: a broken policy can have many problems.
const WHY_LINES_MAX: usize = 200;

/// An answer that is not a success.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) body: Box<wire::Problem>,
    header: Option<Header>,
}

/// The header that some problems come with.
#[derive(Clone, Copy, Debug)]
enum Header {
    /// `WWW-Authenticate: Bearer` (RFC 9110 section 11.6.1: a 401 must have one).
    Authenticate,
    /// `Retry-After`, in seconds.
    RetryAfter(u64),
}

impl Problem {
    /// A problem; `title` is escaped and cut.
    pub(super) fn new(status: StatusCode, code: &'static str, title: &str) -> Self {
        let body = wire::Problem {
            kind: format!("https://hallpass.dev/problems/{code}"),
            status: status.as_u16(),
            title: plain(title),
            code: code.to_owned(),
            ..wire::Problem::default()
        };
        Self { status, body: Box::new(body), header: None }
    }

    /// With facts.
    pub(super) fn why(mut self, why: impl IntoIterator<Item = String>) -> Self {
        self.body.why.extend(why.into_iter().take(WHY_LINES_MAX).map(|line| plain(&line)));
        self
    }

    /// With something to do.
    pub(super) fn next(mut self, next: &str) -> Self {
        self.body.next.push(next.to_owned());
        self
    }

    /// The same call can succeed later.
    pub(super) const fn retryable(mut self) -> Self {
        self.body.retryable = true;
        self
    }

    /// With `Retry-After`, in seconds.
    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.header = Some(Header::RetryAfter(seconds));
        self.retryable()
    }

    /// More comes than can be done. The call has not begun, so it may be repeated, whatever it is.
    pub(super) fn busy(seconds: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "more calls come than the service can answer now")
            .why(["nothing was done".to_owned()])
            .next(&format!("try again in {seconds} s"))
            .after(seconds)
    }

    /// Nobody is logged in.
    pub(super) fn not_logged_in(why: &str) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "not_logged_in", "you are not logged in")
            .why([why.to_owned()])
            .next("hallpass login");
        problem.header = Some(Header::Authenticate);
        problem
    }

    /// A browser has no session here.
    pub(super) fn not_signed_in() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_logged_in", "this browser is not signed in")
            .why(["there is no such session, or it is over".to_owned()])
            .next("hallpass open")
            .asking()
    }

    /// A browser's sign-in token does not count.
    pub(super) fn sign_in_refused() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "login_refused", "this sign-in does not count any more")
            .why(["it counts for a minute, once, and while the command line that asked for it is logged in".to_owned()])
            .next("hallpass open")
            .asking()
    }

    fn asking(mut self) -> Self {
        self.header = Some(Header::Authenticate);
        self
    }

    /// No host has shown itself.
    pub(super) fn no_host_token(why: &str) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "not_logged_in", "no enrolled host calls here")
            .why([why.to_owned()])
            .next("a host gets its token with its host key; hallpass host check says what is wrong");
        problem.header = Some(Header::Authenticate);
        problem
    }

    /// A host may not join.
    fn enrol(refusal: &EnrolRefusal) -> Self {
        let (status, code, next) = match refusal {
            EnrolRefusal::Token | EnrolRefusal::Over(..) => {
                (StatusCode::FORBIDDEN, "join_refused", "hallpass admin join create NAME")
            }
            EnrolRefusal::Retired { .. } => (
                StatusCode::FORBIDDEN,
                "join_refused",
                "if it is to come back, an operator makes a new token: hallpass admin join create NAME",
            ),
            EnrolRefusal::Name { .. } => (
                StatusCode::FORBIDDEN,
                "join_refused",
                "take a name that the token gives, or ask an operator for a token that gives this one",
            ),
            EnrolRefusal::TagNotGiven { .. } => (
                StatusCode::FORBIDDEN,
                "join_refused",
                "leave this tag out; an operator sets it, or makes a token with --tag KEY=VALUE or --may-tag KEY",
            ),
            EnrolRefusal::Known { .. } => {
                (StatusCode::CONFLICT, "host_known", "hallpass admin host retire NAME --reason …")
            }
            EnrolRefusal::NameTaken { .. } => {
                (StatusCode::CONFLICT, "name_taken", "leave this name out, or retire the host that has it")
            }
            EnrolRefusal::Tag { .. } | EnrolRefusal::Invalid(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "change what the host asks for; nothing was changed")
            }
        };
        let problem = Self::new(status, code, &refusal.to_string());
        let same = "if it is the same machine with a new key or name, an operator retires it, and it enrols again with a join token made after that";
        let is_known = matches!(refusal, EnrolRefusal::Known { .. });
        problem.why(is_known.then(|| same.to_owned())).next(next)
    }

    /// Something in path, query or body is no such value: `what` names where.
    pub(super) fn invalid(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", &format!("{what}: {error}"))
    }

    /// The problem that a bare status stands for, when something below the handlers made it.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::new(status, "not_found", "no such path"),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(status, "method_not_allowed", "this path does not take this method")
            }
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(status, "too_large", "the body is too large"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::new(status, "content_type", "the body must be application/json")
            }
            _ if status.is_client_error() => Self::new(status, "invalid", "the request was not understood"),
            _ => Self::internal(),
        }
    }

    /// Something broke; the log has it.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong inside the service")
            .next("try again; if it stays, give the operators the trace id")
            .retryable()
    }

    /// A rule of the lifecycle says no; it says why and what to do in its own words.
    fn refused(refusal: &Refusal) -> Self {
        let title = refusal.to_string();
        if let Refusal::Policy { verdict, .. } = refusal {
            return Self::policy(Some(&title), verdict);
        }
        let status = match refusal.kind() {
            RefusalKind::Forbidden => StatusCode::FORBIDDEN,
            // What was approved no longer fits the policy in force: look again, and ask again.
            RefusalKind::Conflict | RefusalKind::Policy => StatusCode::CONFLICT,
            RefusalKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, refusal.code(), &title)
    }

    /// Policy says no; without a title of its own, the first reason's kind says what happened.
    fn policy(title: Option<&str>, verdict: &Verdict) -> Self {
        let refused = super::show::refusals(verdict);
        let kind = refused.first().map_or(RefusedKind::NoRule, |first| first.kind);
        let host =
            refused.iter().find_map(|one| one.host.as_ref()).map_or_else(|| "--help".to_owned(), ToString::to_string);
        let what = match kind {
            RefusedKind::NoRule => "no rule of the policy lets you ask for this",
            RefusedKind::Rule => "a rule of the policy refuses this",
            RefusedKind::Reason => "the policy wants a better reason, or a ticket",
            RefusedKind::Window => "the policy does not give this time",
            RefusedKind::Unknown => "the policy knows no such host",
        };
        Self::new(StatusCode::FORBIDDEN, refused_code(kind), title.unwrap_or(what))
            .why(refused.iter().map(super::show::refused))
            .next(&format!("hallpass explain {host}"))
    }
}

/// The code of a refusal by policy.
pub(super) const fn refused_code(kind: RefusedKind) -> &'static str {
    match kind {
        RefusedKind::NoRule => "no_rule",
        RefusedKind::Rule => "refuse_rule",
        RefusedKind::Reason => "reason",
        RefusedKind::Window => "window",
        RefusedKind::Unknown => "unknown_host",
    }
}

impl Problem {
    /// What stands in the way of a step of a rotation.
    fn rotation(blocked: &Blocked) -> Self {
        let problem = Self::new(StatusCode::CONFLICT, "rotation_blocked", &blocked.to_string());
        match blocked {
            Blocked::Unproven { hosts, .. } => problem
                .why(hosts.iter().map(|(host, why)| format!("{host}: {why}")))
                .next("mend them, or name those that may be locked out: --accept-unreachable NAME")
                .retryable(),
            Blocked::Certificates { .. } => problem.next("repeat it then, or end them: hallpass end").retryable(),
            Blocked::Shown { hosts, .. } => problem
                .why(hosts.iter().map(|(host, until)| format!("{host}: until {until}")))
                .next("repeat it when they have new ones; hallpass admin host retire NAME --reason … takes one out")
                .retryable(),
            Blocked::Early { .. } => {
                problem.next("repeat it then, or lock out who has not fetched it: --now").retryable()
            }
            Blocked::Waits { .. } => problem.retryable(),
            Blocked::NoKey(_) => problem,
            Blocked::UnderWay(..)
            | Blocked::None(_)
            | Blocked::Several(_)
            | Blocked::NotThat(..)
            | Blocked::NothingBegun => problem.next("hallpass ca ls"),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::NotLoggedIn => Self::not_logged_in("there is no such session, or it is over"),
            Failure::LoginRefused => {
                let mut problem = Self::new(StatusCode::UNAUTHORIZED, "login_refused", "login refused")
                    .why(["the person, key, challenge or signature does not fit".to_owned()])
                    .next("hallpass login");
                problem.header = Some(Header::Authenticate);
                problem
            }
            Failure::NotFound(what) => {
                let problem = Self::new(StatusCode::NOT_FOUND, "not_found", &text)
                    .why(["it does not exist, or you may not see it".to_owned()]);
                match what {
                    "request" => problem.next("hallpass inbox").next("hallpass requests"),
                    "CA" | "user CA" => problem.next("hallpass ca ls"),
                    _ => problem,
                }
            }
            Failure::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, "forbidden", &text),
            Failure::Invalid(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", &text),
            Failure::Account(accounts) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "account", &text)
                .why(accounts.iter().map(ToString::to_string)),
            Failure::Ambiguous(ids) => Self::new(StatusCode::CONFLICT, "ambiguous", &text)
                .why(ids.iter().map(ToString::to_string))
                .next("use more digits of the id"),
            Failure::Policy(verdict) => Self::policy(None, &verdict),
            Failure::Refused(refusal) => Self::refused(&refusal),
            Failure::Enrol(refusal) => Self::enrol(&refusal),
            Failure::Rotation(blocked) => Self::rotation(&blocked),
            Failure::TooMany(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", &text).retryable(),
            Failure::BadPolicy { problems, failed_tests } => {
                let tests = failed_tests
                    .into_iter()
                    .map(|test| format!("{}: test {:?}: {}", test.place, test.name, test.failure.unwrap_or_default()));
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_policy", &text)
                    .why(problems.iter().map(ToString::to_string).chain(tests))
                    .next("mend the file and apply it again; nothing was changed")
            }
            Failure::Conflict(_) => {
                Self::new(StatusCode::CONFLICT, "conflict", &text).next("look at it again, then repeat").retryable()
            }
            Failure::Untrusted(why) => Self::from(Failure::Unavailable(why.to_string())),
            Failure::Unavailable(why) => {
                tracing::error!(%why, "not available");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the service cannot do this now")
                    .why(["what it lacks stands on its page /readyz, and in its own log".to_owned()])
                    .next("try again in a while; if it stays, have an operator look at /readyz")
                    .after(5)
            }
            Failure::ClockLeapt(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "clock_leapt", &text)
                .why(["nothing is written until the clock is right again, or has kept its step for five minutes"
                    .to_owned()])
                .next("tell the operators")
                .after(60),
            Failure::Internal { doing, why } => {
                tracing::debug!(doing, %why, "internal failure");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    /// An empty answer that carries the problem; `exchange` gives it a trace id and a body.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let (name, value) = match self.header {
            None => return with(response, self),
            Some(Header::Authenticate) => (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Some(Header::RetryAfter(seconds)) => (header::RETRY_AFTER, HeaderValue::from(seconds)),
        };
        response.headers_mut().insert(name, value);
        with(response, self)
    }
}

fn with(mut response: Response, problem: Problem) -> Response {
    response.extensions_mut().insert(problem);
    response
}

/// `text` cut to [`TEXT_CHARS_MAX`], with whatever could steer a terminal or reorder a line written as `\u{…}`.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(TEXT_CHARS_MAX) {
        if c.is_control() || is_steering(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// Invisible characters that reorder, join or hide text: bidi marks and embeddings, zero-width, line separators, tags.
const fn is_steering(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_cut() {
        assert_eq!(plain("a\u{1b}[31m\u{202e}b\nä\u{0}"), "a\\u{1b}[31m\\u{202e}b\\u{a}ä\\u{0}");
        assert_eq!(plain(&"x".repeat(501)).chars().count(), 501);
        assert!(plain(&"x".repeat(501)).ends_with('…'));
        assert_eq!(plain(&"x".repeat(500)), "x".repeat(500));
    }

    #[test]
    fn what_broke_inside_is_not_told() {
        let problem = Problem::from(Failure::Internal { doing: "reading", why: "secret path /x".to_owned() });
        assert_eq!(problem.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!serde_json::to_string(&problem.body).unwrap().contains("secret"));
        let problem = Problem::from(Failure::Unavailable("secret path /x".to_owned()));
        assert!(problem.body.why.join("").contains("/readyz") && problem.body.next.join("").contains("operator"));
        assert!(!serde_json::to_string(&problem.body).unwrap().contains("secret"));
    }

    #[test]
    fn codes_are_sorted_and_distinct() {
        assert!(CODES.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn refused_logins_and_missing_ones_ask_for_a_bearer_token() {
        for failure in [Failure::NotLoggedIn, Failure::LoginRefused] {
            let response = Problem::from(failure).into_response();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        }
    }
}
