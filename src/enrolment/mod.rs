//! A host's side of enrolment: set up beside a stock sshd in one go, kept in touch with the service, and taken back without a trace.
//!
//! What for: [`enrol`] plans, asks, writes and proves; [`leave`] undoes; the daemon keeps what sshd reads fresh and reports. All that
//! decides about a login is in [`crate::host`], which knows none of this.
//!
//! What not: nothing of the authority. The service is asked over its API like by everybody else.
//!
//! The pure part: [`sshd_config`], [`pam`], [`plan`], [`risks`], [`texts`], [`diff`], [`ledger`], [`host_certificate`]. The rest touches the machine: [`facts`] looks,
//! [`memory`] changes files with a way back, [`programs`] and [`sshd`] run what is there, [`self_login`] tries it.
//!
//! Invariants: the whole way back is durable before the first step forward; an sshd that could be logged in to before can be logged in to
//! after, whatever happens in between.

pub mod about;
pub mod back;
pub mod check_in;
pub mod contact;
pub mod daemon;
pub mod diff;
pub mod enrol;
pub mod examine;
pub mod facts;
pub mod had;
pub mod host_certificate;
pub mod leave;
pub mod ledger;
pub mod link;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod owned;
pub mod pam;
pub mod places;
pub mod plan;
pub mod program;
pub mod programs;
pub mod risks;
pub mod self_login;
pub mod service_file;
pub mod sshd;
pub mod sshd_config;
pub mod texts;
