//! Which kind of work a call is: each kind has places of its own, so that none can take those of another.

use axum::http::Method;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::http) enum Kind {
    /// Logging in.
    Login,
    /// Asking for access, or for more time.
    Ask,
    /// Fetching a certificate, which waits for the CA key's backend: one that hangs holds up nothing else.
    Certificate,
    /// What people do with requests, hosts, keys and policy: approve, deny, end, and all else that is not above.
    Decide,
    /// Looking.
    Read,
    /// What hosts call.
    Host,
}

impl Kind {
    /// All there are.
    pub(super) const ALL: [Self; 6] = [Self::Login, Self::Ask, Self::Certificate, Self::Decide, Self::Read, Self::Host];

    /// The kind of a call; the route is a pattern of the router.
    pub(super) fn of(method: &Method, route: &str) -> Self {
        let looks = matches!(*method, Method::GET | Method::HEAD);
        match route {
            "/v1/hosts/challenge"
            | "/v1/hosts/enrol"
            | "/v1/hosts/session"
            | "/v1/hosts/self/state"
            | "/v1/hosts/self/events"
            | "/v1/hosts/check-in"
            | "/v1/hosts/sessions"
            | "/v1/hosts/certificates"
            | "/v1/hosts/check-certificate"
            | "/v1/hosts/leave" => Self::Host,
            _ if looks => Self::Read,
            "/v1/explain" => Self::Read,
            "/v1/login/challenge" | "/v1/login/ssh" | "/v1/session/browser" | "/sign-in" | "/sign-in/confirm" => {
                Self::Login
            }
            "/v1/requests" | "/v1/certificates" | "/v1/requests/{id}/extend" => Self::Ask,
            "/v1/requests/{id}/certificate" => Self::Certificate,
            _ => Self::Decide,
        }
    }

    /// Its word in figures and in the log.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Ask => "ask",
            Self::Certificate => "certificate",
            Self::Decide => "decide",
            Self::Read => "read",
            Self::Host => "host",
        }
    }
}

/// Routes that take no body although the method is `POST`.
const WITHOUT_BODY: [&str; 4] =
    ["/v1/login/challenge", "/v1/requests/{id}/certificate", "/v1/requests/{id}/withdraw", "/v1/session/browser"];

/// Whether a call has a body to wait for before anything can begin.
pub(super) fn takes_body(method: &Method, route: &str) -> bool {
    matches!(*method, Method::POST | Method::PUT) && !WITHOUT_BODY.contains(&route)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Method and pattern of each route of the API, and whether it takes a body.
    fn documented() -> Vec<(Method, String, bool)> {
        let document: serde_json::Value = serde_json::from_str(&crate::http::openapi::document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let all = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(move |(method, route)| {
                let method = method.to_uppercase().parse().unwrap();
                (method, path.clone(), route.get("requestBody").is_some())
            })
        });
        all.collect()
    }

    #[test]
    fn what_takes_a_body_is_known_of_each_route() {
        for (method, route, has_body) in documented() {
            assert_eq!(takes_body(&method, &route), has_body, "{method} {route}");
        }
        let known: BTreeSet<String> = documented().into_iter().map(|(_, route, _)| route).collect();
        assert!(WITHOUT_BODY.iter().all(|route| known.contains(*route)));
    }

    #[test]
    fn every_route_of_the_api_has_the_kind_that_it_was_given_here() {
        let of = |kind: Kind| -> Vec<String> {
            let routes = documented().into_iter().filter(|(method, route, _)| Kind::of(method, route) == kind);
            routes.map(|(method, route, _)| format!("{method} {route}")).collect()
        };
        assert_eq!(of(Kind::Login), ["POST /v1/login/challenge", "POST /v1/login/ssh", "POST /v1/session/browser"]);
        assert_eq!(of(Kind::Ask), ["POST /v1/certificates", "POST /v1/requests", "POST /v1/requests/{id}/extend"]);
        assert_eq!(of(Kind::Certificate), ["POST /v1/requests/{id}/certificate"]);
        assert_eq!(
            of(Kind::Decide),
            [
                "POST /v1/ca/rotate",
                "POST /v1/hosts/joins",
                "DELETE /v1/hosts/joins/{id}",
                "POST /v1/hosts/{name}/retire",
                "POST /v1/hosts/{name}/tags",
                "PUT /v1/policy",
                "POST /v1/requests/{id}/approve",
                "POST /v1/requests/{id}/deny",
                "POST /v1/requests/{id}/end",
                "POST /v1/requests/{id}/withdraw",
                "DELETE /v1/session",
            ]
        );
        assert!(of(Kind::Read).iter().all(|route| route.starts_with("GET ") || route == "POST /v1/explain"));
        let host = documented().into_iter().filter(|(_, route, _)| Kind::of(&Method::POST, route) == Kind::Host);
        assert_eq!(host.count(), 10, "what enrolled and joining hosts call");
    }
}
