//! Enrolment of a host: plans on the configurations that distributions ship, changes that can be cut short anywhere, and the real thing
//! against a real sshd.

mod cas;
mod changes;
mod cut;
mod deploy;
mod double;
mod fleet;
mod fleet_machines;
mod hanging;
pub(crate) mod host;
mod installing;
mod keeping;
mod looking;
mod moved;
mod plans;
mod program;
mod proxy;
mod rotation;
pub(crate) mod service;
mod three;
mod whole;
