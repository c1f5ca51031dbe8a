//! hallpass: just-in-time SSH access with certificates that are valid for exactly the approved window.

pub mod access;
pub mod audit;
pub mod client;
pub mod document;
pub mod durable;
pub mod fail;
pub mod http;
pub mod identity;
pub mod name;
pub mod policy;
pub mod service;
pub mod signer;
pub mod ssh;
pub mod store;
pub mod time;
pub mod wire;
