//! What becomes of CA keys, as one line for people. See `sentence`.
#![deny(clippy::arithmetic_side_effects)]

use super::event::Event;
use super::sentence::{TimeText, and, list, ring};
use crate::keyring::Ca;
use crate::keyring::step::Proposal;
use crate::ssh::cert::Purpose;

/// The line of an event about CA keys; nothing of another one.
pub(super) fn key_sentence(event: &Event, time: TimeText<'_>) -> String {
    if let Event::CaKeysChanged { by, step, why, unproven, keys, purpose, early, proposer, ca, .. } = event {
        let why = list(why.iter().map(|why| format!("{why:?}")));
        let without = if unproven.is_empty() { String::new() } else { format!("; not proven on {}", list(unproven)) };
        let early = if *early == Some(true) { "; before its time" } else { "" };
        let with = proposer.as_ref().map(|with| format!(", as {with} proposed")).unwrap_or_default();
        let ca = Ca::of(purpose.unwrap_or(Purpose::User), ca.clone()).unwrap_or(Ca::Host);
        let step = step.word();
        return format!(
            "{by} rotated the {ca} CA key, {step}{with}: {why}{without}{early}; CA keys are now {}",
            ring(keys)
        );
    }
    if let Event::CaStepProposed { by, proposal, reason, until, .. } = event {
        let Proposal { step, ca, key, accepted, is_early } = proposal;
        let key = key.map(|key| format!(" with {key}")).unwrap_or_default();
        let without =
            if accepted.is_empty() { String::new() } else { format!(", without proof of {}", list(accepted)) };
        let early = if *is_early { ", before its time" } else { "" };
        let (until, reason) = (time(*until), and(": ", reason));
        return format!(
            "{by} proposed for the {ca} CA key, {}{key}{without}{early}, until {until}{reason}",
            step.word()
        );
    }
    String::new()
}
