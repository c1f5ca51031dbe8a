//! The audit log's rules: events, canonical entries, the Merkle tree, signed checkpoints, offline verification.
//!
//! What for: what can happen is a closed list ([`event::Event`]), each happening has one spelling ([`entry::Entry`]), the
//! entries are leaves of one tree ([`tree`]), and a [`checkpoint`] signs that tree, so that anyone with an earlier checkpoint
//! can prove a change. [`export`] checks a whole log offline, meaning and approvers' signatures included; [`evidence`]
//! makes of one what an auditor gets of a period. [`stretch`] checks what came since some entry, and [`feed`] writes that as other
//! programs read it.
//!
//! What not: no storage (`store`), no signing of certificates, no wording for pages.

mod approvals;
pub mod checkpoint;
pub mod entry;
pub mod event;
pub mod evidence;
pub mod export;
pub mod feed;
mod field;
mod group;
pub mod host_event;
mod host_sentence;
mod json;
mod key_sentence;
mod kinds;
pub mod reconcile;
mod replay;
pub mod report;
pub mod search;
mod sentence;
pub mod shown;
pub mod stretch;
pub mod tree;
mod verify;

pub use sentence::{TimeText, text_time};
