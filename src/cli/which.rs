//! Which request is meant: a host, an id or its start, or nothing, where only one fits.
//!
//! Invariant: of several that fit none is taken; each is named with what to type for it.
//!
//! *Why does a host come before an id?* `web-1` is both. Whoever types the name of a host means it if there is something for it to mean; an id in
//! full is always one.

use super::failure::Failure;
use crate::client::{Client, ClientError};
use crate::name::{HostName, RequestPrefix};
use crate::wire;

/// What is looked for.
pub(super) struct Sought<'a> {
    /// Whose.
    pub(super) among: Among,
    /// What of it.
    pub(super) fits: fn(&wire::Request) -> bool,
    /// What is said where there is none.
    pub(super) none: &'a str,
    /// What could have been typed for one.
    pub(super) line: &'a dyn Fn(&str) -> String,
}

/// Whose requests are looked at: those that are not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    /// One's own.
    Mine,
    /// Those that one may decide.
    ToDecide,
    /// Both.
    Both,
}

/// Access of mine that goes on, fetched or not.
pub(super) const HELD: Sought<'static> = Sought {
    among: Among::Mine,
    fits: |request| matches!(request.state.as_str(), "approved" | "issued"),
    none: "you hold no access",
    line: &str::to_owned,
};

/// The digits of an id in full.
const ID_DIGITS: usize = 8;

impl Sought<'_> {
    /// The id of the one that is meant, or its start; of an id in full the service says whether there is one.
    ///
    /// # Errors
    /// When nothing or several fit.
    pub(super) async fn find(&self, client: &Client, which: Option<&str>) -> Result<String, Failure> {
        if let Some(id) = which.and_then(whole_id) {
            return Ok(id.as_str().to_owned());
        }
        let all = self.among.list(client).await?;
        let is_there = |request: &&wire::Request| which.is_none_or(|host| request.hosts.iter().any(|h| h == host));
        let there: Vec<&wire::Request> = all.iter().filter(is_there).collect();
        let fitting: Vec<&wire::Request> = there.iter().filter(|request| (self.fits)(request)).copied().collect();
        match (fitting.as_slice(), which) {
            ([one], _) => Ok(one.id.clone()),
            ([], None) => Err(Failure::failed(self.none).next(self.among.look())),
            ([], Some(text)) => {
                let unknown = || self.unknown(text, there.first().copied());
                let prefix = RequestPrefix::parse(text).map_err(|_no_id| unknown())?;
                by_prefix(client, &prefix, unknown).await
            }
            (several, _) => {
                let what =
                    if self.among == Among::Mine { "several of your requests fit" } else { "several requests fit" };
                let each = several.iter().map(|request| (self.line)(&request.id));
                Err(each.fold(Failure::usage(what), Failure::next))
            }
        }
    }

    /// Nothing is meant by `text`, unless `there`, which is for that host, but not what is looked for.
    fn unknown(&self, text: &str, there: Option<&wire::Request>) -> Failure {
        match there {
            Some(request) => Failure::failed(self.none)
                .because(format!("{} for {text} is {}", request.id, request.state))
                .next(format!("hallpass show {}", request.id)),
            None => {
                let whose = match self.among {
                    Among::Mine => "a host of a request of yours that is not over",
                    Among::ToDecide => "a host of a request that waits for you",
                    Among::Both => "a host of a request of yours that is not over, or that waits for you",
                };
                Failure::failed(format!("{text:?} is neither a request that you can see nor {whose}"))
                    .next(self.among.look())
            }
        }
    }
}

impl Among {
    async fn list(self, client: &Client) -> Result<Vec<wire::Request>, Failure> {
        let mut all: Vec<wire::Request> = Vec::new();
        for query in self.queries() {
            let list: wire::Requests = client.get(&format!("/v1/requests?{query}&limit=1000")).await?;
            let is_new = |request: &wire::Request| all.iter().all(|known| known.id != request.id);
            let new: Vec<wire::Request> = list.requests.into_iter().filter(is_new).collect();
            all.extend(new);
        }
        Ok(all)
    }

    const fn queries(self) -> &'static [&'static str] {
        const MINE: &str = "mine=true&state=pending&state=approved&state=issued";
        const INBOX: &str = "inbox=true";
        match self {
            Self::Mine => &[MINE],
            Self::ToDecide => &[INBOX],
            Self::Both => &[MINE, INBOX],
        }
    }

    /// Where to look for what there is.
    const fn look(self) -> &'static str {
        match self {
            Self::Mine => "hallpass requests --mine",
            Self::ToDecide => "hallpass inbox",
            Self::Both => "hallpass requests",
        }
    }
}

/// Whether this could be a request or a host.
///
/// # Errors
/// When it could be neither.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let could_be = RequestPrefix::parse(text).is_ok() || HostName::parse(text).is_ok();
    let wrong = || format!("{text:?} is neither a request id, such as 7K3F, nor a host's name");
    if could_be { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// What is an id with all of its digits; a host may be called like the start of one.
fn whole_id(text: &str) -> Option<RequestPrefix> {
    RequestPrefix::parse(text).ok().filter(|prefix| prefix.as_str().len() == ID_DIGITS)
}

/// The id of the request that starts with this.
async fn by_prefix(client: &Client, prefix: &RequestPrefix, unknown: impl Fn() -> Failure) -> Result<String, Failure> {
    match client.get::<wire::Request>(&format!("/v1/requests/{}", prefix.as_str())).await {
        Ok(request) => Ok(request.id),
        Err(ClientError::Problem(problem)) if problem.status == 404 => Err(unknown()),
        Err(other) => Err(other.into()),
    }
}
