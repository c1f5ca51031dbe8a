//! The guard on a host: a real sshd with real PAM, whose sessions end with their windows, and nothing else's do.

mod judging;
mod kinds;
pub(crate) mod maker;
pub(crate) mod promise;
mod rules;
pub(crate) mod site;
mod staying;
mod times;
