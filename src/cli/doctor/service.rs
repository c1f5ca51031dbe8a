//! The service itself, as `hallpass doctor` sees it for operators: what its process denies itself.
//!
//! Read from `/metrics`, which has it for everybody; only operators can do something about it, so only they are told. Of several nodes it
//! is the one that answers. Whether core dumps are forbidden is no figure: a service that could not forbid them has not started.

use super::report::Check;
use crate::client::Client;
use crate::wire;

/// What the figure is called.
const FIGURE: &str = "hallpass_sandbox{part=\"";

/// Whether the service's sandbox is in force; nothing for who does not run it.
pub(super) async fn sandbox(client: &Client, me: &wire::WhoAmI) -> Option<Check> {
    if !me.roles.iter().any(|role| role == "operator") {
        return None;
    }
    Some(match client.text("/metrics").await {
        Ok(figures) => found(&figures),
        Err(error) => Check::skipped("sandbox", "the service's figures (/metrics) can't be had from here")
            .because(error.to_string()),
    })
}

fn found(figures: &str) -> Check {
    let words = |wanted: &str| {
        let lines = figures.lines().filter_map(|line| line.strip_prefix(FIGURE)?.split_once("\"} "));
        lines.filter(|(_, value)| value.trim() == wanted).map(|(part, _)| part).collect::<Vec<_>>().join(", ")
    };
    let (restricted, open) = (words("1"), words("0"));
    match (restricted.is_empty(), open.is_empty()) {
        (true, true) => Check::skipped("sandbox", "the service does not say what its process denies itself"),
        (false, true) => Check::ok("sandbox", format!("the service's process restricts itself: {restricted}")),
        (is_off, false) => {
            let what = format!("the service's process does not restrict: {open}");
            let check = Check::warn("sandbox", what);
            let check = if is_off { check } else { check.because(format!("it does restrict: {restricted}")) };
            check
                .because("whoever takes it over by a mistake in it has that as well (docs/operations.md, The sandbox)")
                .next("on its machine: journalctl -u hallpass | grep sandbox")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::State;

    const PARTS: [&str; 5] = ["calls", "files", "connections", "signals", "memory"];

    fn figures(open: &[&str]) -> String {
        let line = |part: &str| format!("{FIGURE}{part}\"}} {}\n", u8::from(!open.contains(&part)));
        format!("# TYPE hallpass_sandbox gauge\n{}# EOF\n", PARTS.map(line).concat())
    }

    #[test]
    fn what_is_not_restricted_is_named() {
        let check = found(&figures(&[]));
        assert_eq!(check.state, State::Ok);
        assert!(check.what.ends_with(": calls, files, connections, signals, memory"), "{}", check.what);
        let check = found(&figures(&["memory", "signals"]));
        assert_eq!(
            (check.state, check.what.as_str()),
            (State::Warn, "the service's process does not restrict: signals, memory")
        );
        assert_eq!(check.why[0], "it does restrict: calls, files, connections");
        let check = found(&figures(&PARTS));
        assert_eq!((check.state, check.why.len()), (State::Warn, 1));
        // An older service, or something else.
        for text in ["", "# EOF\n", "hallpass_sandbox{part=\"air\"} ?\n"] {
            assert_eq!(found(text).state, State::Skipped, "{text}");
        }
    }
}
