//! `hallpass cert show`, `ls`: certificates, read by our own strict reader.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::failure::Failure;
use super::local::Local;
use super::{Context, output, profile, render, still};
use crate::ssh::cert::Certificate;
use crate::time::{Clock as _, SystemClock};

/// Longest certificate file that is read; OpenSSH's own limit for a line.
const BYTES_MAX: u64 = 256 * 1024;

/// `hallpass cert …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Show what a certificate says, after verifying its signature
    Show {
        /// A `-cert.pub` file, or `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List the certificates kept on this machine
    ///
    /// Asks the service for a moment whether one of them was ended elsewhere: that one is deleted, and named. Where the service is away, or
    /// nobody is logged in, the list is what lies here.
    Ls,
}

/// `hallpass cert …`.
pub(crate) fn run(context: &Context, command: &CertCommand) -> Result<(), Failure> {
    match command {
        CertCommand::Show { file } => show(context, file),
        CertCommand::Ls => ls(context),
    }
}

fn show(context: &Context, file: &Path) -> Result<(), Failure> {
    let text = read(file)?;
    let certificate = Certificate::parse_openssh(text.trim()).map_err(|e| {
        Failure::failed(format!("{:?} holds no certificate that hallpass would issue", file.display().to_string()))
            .because(e.to_string())
            .because("ssh-keygen shows it anyway, unverified and unescaped")
            .next(format!("ssh-keygen -L -f {}", ssh_keygens(file)))
    })?;
    let fields = certificate.tbs().fields();
    let options: Vec<String> = options(&certificate);
    let extensions: Vec<&str> = fields.options.permits.iter().map(|e| e.name()).collect();
    let document = json!({
        "schema": "hallpass.certificate.v1",
        "key": certificate.tbs().subject().fingerprint().to_string(),
        "ca": certificate.ca_fingerprint().to_string(),
        "key_id": fields.key_id.as_str(),
        "serial": fields.serial.number(),
        "not_before": fields.window.start().to_string(),
        "not_after": fields.window.end().to_string(),
        "principals": fields.principals.iter().map(crate::name::Principal::as_str).collect::<Vec<_>>(),
        "critical_options": options,
        "extensions": extensions,
    });
    context.out.answer(&document, &text_of(&certificate, &options, &extensions))
}

/// The file as ssh-keygen takes it; it reads `-` as we do.
fn ssh_keygens(file: &Path) -> String {
    if file.as_os_str() == "-" { "-".to_owned() } else { output::word(file) }
}

/// In the order and words of `ssh-keygen -L`.
fn text_of(certificate: &Certificate, options: &[String], extensions: &[&str]) -> String {
    let (tbs, fields) = (certificate.tbs(), certificate.tbs().fields());
    let now = SystemClock.now();
    let state = if fields.window.contains(now) {
        "valid now"
    } else if fields.window.is_over(now) {
        "over"
    } else {
        "not yet valid"
    };
    let list = |items: &mut dyn Iterator<Item = String>| {
        let lines: Vec<String> = items.map(|i| format!("          {i}\n")).collect();
        if lines.is_empty() { "          (none)\n".to_owned() } else { lines.concat() }
    };
    format!(
        "  Type: {}-cert-v01@openssh.com user certificate, signature verified\n  Public key: {}\n  Signing CA: {} {}\n  Key ID: \
         \"{}\"\n  Serial: {}\n  Valid: from {} to {} ({state})\n  Principals:\n{}  Critical Options:\n{}  Extensions:\n{}",
        tbs.subject().algorithm().name().trim_end_matches("@openssh.com"),
        tbs.subject().fingerprint(),
        tbs.ca().algorithm().name(),
        certificate.ca_fingerprint(),
        fields.key_id.as_str(),
        fields.serial,
        output::local_time(fields.window.start()),
        output::local_time(fields.window.end()),
        list(&mut fields.principals.iter().map(ToString::to_string)),
        list(&mut options.iter().map(|o| output::escape(o))),
        list(&mut extensions.iter().map(|e| (*e).to_owned())),
    )
}

fn options(certificate: &Certificate) -> Vec<String> {
    let options = &certificate.tbs().fields().options;
    let mut lines = Vec::new();
    if let Some(command) = &options.force_command {
        lines.push(format!("force-command {}", command.as_str()));
    }
    if !options.source_addresses.is_empty() {
        let list: Vec<String> = options.source_addresses.iter().map(ToString::to_string).collect();
        lines.push(format!("source-address {}", list.join(",")));
    }
    if options.verify_required {
        lines.push("verify-required".to_owned());
    }
    lines
}

fn ls(context: &Context) -> Result<(), Failure> {
    let places = context.places()?;
    profile::check_name(&context.globals.profile)?;
    let local = Local::new(&places, &context.globals.profile);
    local.sweep();
    still::sweep_if_there(context, &local);
    let held = local.all()?;
    let mut documents = Vec::new();
    let mut rows = Vec::new();
    for held in &held {
        let Some(certificate) = &held.certificate else { continue };
        let fields = certificate.tbs().fields();
        let end = fields.window.end().to_string();
        documents.push(json!({
            "request": held.request.id, "hosts": held.request.hosts, "account": held.request.account,
            "serial": fields.serial.number(), "not_after": end, "path": held.certificate_path(), "key_path": held.key_path(),
        }));
        rows.push([
            output::escape(&held.request.id),
            format!("{} as {}", render::joined(&held.request.hosts), output::escape(&held.request.account)),
            format!("until {}", render::until(&end, context.now())),
            held.certificate_path().display().to_string(),
        ]);
    }
    let text = if rows.is_empty() { "no certificates here\n".to_owned() } else { render::columns(&rows) };
    context.out.answer(&json!({ "schema": "hallpass.certificates.v1", "certificates": documents }), &text)
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|e| Failure::file("read certificate", file, &e))?;
    Ok(text)
}
