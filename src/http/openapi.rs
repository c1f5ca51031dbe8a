//! All routes of the API, and the `OpenAPI` document that comes from the same lines. A route can't be served without being documented.
//!
//! What not: the pages for people ([`super::web`]). They are no API: their paths are for links, their content may change.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, ca, decide, events, host, host_events, inventory, log, login, policy, probes, requests};
use crate::wire;

#[derive(OpenApi)]
#[openapi(
    info(title = "hallpass", description = "Just-in-time SSH access: certificates valid for exactly the approved window"),
    modifiers(&Bearer),
    security(("session" = [])),
    components(schemas(wire::Problem)),
)]
struct Document;

/// The bearer session of `POST /v1/login/ssh`, and the host token of `POST /v1/hosts/session`.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        let schemes = &mut openapi.components.get_or_insert_default().security_schemes;
        schemes.insert("session".to_owned(), scheme.into());
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        schemes.insert("host".to_owned(), scheme.into());
    }
}

/// What every route with a session may answer instead.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "the arms exist for the document alone")]
pub(super) enum Problems {
    /// The path, query or body is not of the right form.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Refused(wire::Problem),
    /// The service could not do it.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Failed(wire::Problem),
    /// Not logged in.
    #[response(status = 401, content_type = "application/problem+json")]
    NotLoggedIn(wire::Problem),
}

/// What every route without a session may answer instead.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "the arms exist for the document alone")]
pub(super) enum ProblemsOpen {
    /// The path, query or body is not of the right form.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Refused(wire::Problem),
    /// The service could not do it.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Failed(wire::Problem),
}

/// Every route there is.
pub(super) fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(login::challenge))
        .routes(routes!(login::ssh))
        .routes(routes!(login::who_am_i, login::logout))
        .routes(routes!(login::browser))
        .routes(routes!(requests::ask, requests::list))
        .routes(routes!(requests::ask_and_fetch))
        .routes(routes!(requests::one))
        .routes(routes!(events::events))
        .routes(routes!(requests::history))
        .routes(routes!(decide::approve))
        .routes(routes!(decide::deny))
        .routes(routes!(decide::withdraw))
        .routes(routes!(decide::extend))
        .routes(routes!(decide::end))
        .routes(routes!(decide::certificate))
        .routes(routes!(requests::explain))
        .routes(routes!(policy::hosts))
        .routes(routes!(host::challenge))
        .routes(routes!(host::enrol))
        .routes(routes!(host::session))
        .routes(routes!(host::state))
        .routes(routes!(host_events::events))
        .routes(routes!(host::check_in))
        .routes(routes!(host::sessions))
        .routes(routes!(host::certificates))
        .routes(routes!(host::check_certificate))
        .routes(routes!(host::leave))
        .routes(routes!(inventory::create_join, inventory::joins))
        .routes(routes!(inventory::revoke_join))
        .routes(routes!(inventory::list))
        .routes(routes!(inventory::one))
        .routes(routes!(inventory::tags))
        .routes(routes!(inventory::retire))
        .routes(policy::sized(routes!(policy::current, policy::apply)))
        .routes(routes!(policy::history))
        .routes(routes!(log::checkpoint))
        .routes(routes!(log::list))
        .routes(routes!(log::proof))
        .routes(routes!(ca::keys))
        .routes(routes!(ca::rotate))
        .routes(routes!(probes::user_keys))
        .routes(routes!(probes::user_keys_of))
        .routes(routes!(probes::host_keys))
        .routes(routes!(probes::document))
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::metrics))
}

/// The document as JSON.
#[must_use]
pub fn document() -> String {
    let (_, document) = api().split_for_parts();
    document.to_json().unwrap_or_default()
}
