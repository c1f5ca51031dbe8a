//! All integration tests, in one binary so that the crate is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::map_entry,
    clippy::struct_excessive_bools,
    clippy::allow_attributes,
    reason = "a test that meets what it did not expect fails by panicking; its files need not survive a crash"
)]

mod api;
mod architecture;
mod audit_log;
mod bad_input;
mod cli;
mod crash;
mod crates;
mod demo;
mod enrolment;
mod examples;
mod formats;
mod fuzz;
mod guard;
mod hosts;
mod lifecycle;
mod openssh;
mod overload;
mod policy;
mod rotation;
#[cfg(feature = "failpoints")]
mod security;
mod store;
mod story;
mod support;
mod web;
