//! What runs on this host, in short texts for the inventory.

use super::sshd::Sshd;
use crate::wire::host::About;

/// The longest text: the service takes no more.
const CHARS_MAX: usize = 64;

/// What runs here. What can't be found out stays empty.
pub async fn about(sshd: &Sshd) -> About {
    let release = sshd.release().await.map(|(_, shown)| shown).unwrap_or_default();
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    About { program: short(env!("CARGO_PKG_VERSION")), sshd: short(&release), os: short(os.trim_matches('"')) }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| *c == ' ' || c.is_ascii_graphic()).take(CHARS_MAX).collect()
}
