//! The host side: what runs on machines with sshd. Nothing of the authority.

pub mod guard;
