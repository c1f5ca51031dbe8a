//! The host side: what runs on machines with sshd. Nothing of the authority.
//!
//! What for: [`guard`] is run by PAM at each login by a certificate of ours and starts a [`watch`]er, which ends the session with the
//! certificate's window ([`sweep`], [`ending`]); [`principals`] tells sshd which certificates open which account.
//!
//! What not: nothing here touches the network, and nothing here needs a daemon. What a login may do is decided elsewhere; the
//! certificate is the whole decision.

pub mod arming;
pub mod auth_info;
pub mod deadline;
pub mod ended;
pub mod ending;
pub mod event;
pub mod guard;
pub mod journal;
pub mod judgement;
pub mod principals;
pub mod process;
pub mod program;
pub mod record;
pub mod sessions;
pub mod settings;
pub mod spool;
pub mod sweep;
pub mod terminal;
pub mod trust;
pub mod watch;
