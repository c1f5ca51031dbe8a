//! Which host keys there are, at the daemon's start.
//!
//! What for: the daemon says with one who it is. Which they are is for sshd to say, and the daemon, which brings the ends of sessions, must start also where
//! sshd hangs or can't read its configuration. So it is noted when sshd says it, and read from there when sshd does not.
//!
//! Invariant: the note names files, which are read as ever; it makes no key one of this host's.

use super::Say;
use crate::durable;
use crate::enrolment::places::{self, CHECK_ACCOUNT, Root};
use crate::enrolment::plan::Facts;
use crate::enrolment::sshd::Sshd;
use crate::enrolment::sshd_config::Effective;
use crate::host::settings;

/// The longest note. Our own choice: some dozens of paths.
const BYTES_MAX: usize = 16 * 1024;

/// What sshd says of its host keys, or what it said when the daemon was started before.
///
/// # Errors
/// What sshd complains about, if it never said it.
pub(super) async fn find(root: &Root, sshd: &Sshd, say: Say<'_>) -> Result<Facts, String> {
    let path = root.path(places::MEMORY).join("host-keys");
    let noted = settings::read(&path, BYTES_MAX).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let effective = match (sshd.effective(CHECK_ACCOUNT).await, noted) {
        (Ok(effective), noted) => {
            let text = to_text(&effective);
            if noted.as_ref() != Some(&text)
                && let Err(error) = durable::replace(&path, text.as_bytes(), 0o600)
            {
                say(&format!("which host keys there are can't be noted: {error}"));
            }
            effective
        }
        (Err(why), Some(noted)) => {
            say(&format!("sshd does not say which host keys it has, so those are used that it had before: {why}"));
            Effective::parse(&noted)
        }
        (Err(why), None) => return Err(why),
    };
    Ok(Facts { effective, ..Facts::default() })
}

/// As sshd says it: a line for each.
fn to_text(effective: &Effective) -> String {
    effective.all("hostkey").iter().map(|path| format!("hostkey {path}\n")).collect()
}
