//! `hallpass doctor --fix`: modes of our own files, the place of our `Include`, what is left of access that is over,
//! also by the service's word. Nothing else is touched, and every change is said; `--dry-run` only says them.

use std::os::unix::fs::PermissionsExt as _;

use super::super::failure::Failure;
use super::super::setup;
use super::Doctor;
use super::client::amiss;
use super::server;
use super::text::{self, Position};

/// Repairs what can be; returns what was changed.
pub(super) fn repair(doctor: &Doctor<'_>, dry_run: bool) -> Result<Vec<String>, Failure> {
    let mut changes = Vec::new();
    for file in amiss(doctor) {
        let Some(wanted) = file.wanted else { continue };
        if !dry_run {
            // Ours, and neither a link nor somebody else's a moment ago; in a folder of ours nobody else can swap it.
            std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(wanted))
                .map_err(|e| Failure::file("change the mode of", &file.path, &e))?;
        }
        changes.push(format!("mode of {} {:04o} -> {wanted:04o}", file.path.display(), file.mode));
    }
    if needs_include(doctor) {
        if !dry_run {
            setup::move_include(&doctor.places, &doctor.config)?;
        }
        changes.push(format!("our Include to the first line of {} (a copy is kept)", doctor.config.display()));
    }
    // In a dry run the modes stand as they are, and a folder that others can reach is not read.
    let over = if dry_run { doctor.local.over().unwrap_or_default() } else { doctor.local.over()? };
    if !over.is_empty() && !dry_run {
        doctor.local.sweep();
    }
    let closed = server::closed(doctor).into_iter().map(|(held, _)| held.folder);
    let closed: Vec<_> = closed.filter(|folder| !over.contains(folder)).collect();
    if !dry_run {
        doctor.local.throw_away(&closed);
    }
    let over = over.iter().chain(&closed);
    changes.extend(over.map(|folder| format!("delete {}", folder.display())));
    Ok(changes)
}

/// Whether plain ssh was set up, and its line is not where it has to be.
fn needs_include(doctor: &Doctor<'_>) -> bool {
    let is_set_up = doctor.profile.as_ref().is_some_and(|profile| profile.ssh.is_some());
    let position = text::position(&doctor.config_text, &doctor.places.fragments());
    match position {
        Position::First(_) => false,
        Position::Behind(..) | Position::Inside(..) => true,
        Position::Missing => is_set_up && doctor.places.fragment(doctor.name()).exists(),
    }
}
