//! hallpass: just-in-time SSH access with certificates that are valid for exactly the approved window.

pub mod durable;
pub mod fail;
pub mod name;
pub mod time;
pub mod signer;
pub mod ssh;
