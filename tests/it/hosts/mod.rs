//! Enrolled hosts: the rules, the service over its real API, and what somebody who can write the database gets by it.

mod api;
mod bad;
mod forged;
pub(crate) mod machine;
mod nodes;
mod reconcile;
mod reports;
mod rules;
