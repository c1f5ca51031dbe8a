//! `hallpass open`: the matching web page, in a browser that this login lets in.
//!
//! The service gives a sign-in token, which counts once and for a minute. It must reach the browser and nobody else: arguments are seen by
//! everybody on the machine, and a URL is kept in histories and logs. So it goes into a file of our own folder, mode 0600, with a form
//! that posts it, and the browser is started on that file. Where no browser starts here, or with `--print`, it stands behind the `#` of a
//! link: browsers send no server what stands there. In either case the page asks before it signs anybody in.
//!
//! Invariants: no token in an argument; never a failure because no browser starts. Files are swept once their token is worth nothing.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::local::{Local, random};
use super::profile::{self, Profile};
use super::{Context, output};
use crate::client::Client;
use crate::name::{RequestId, RequestPrefix};
use crate::time::{Clock as _, SystemClock};
use crate::wire;

/// How a sign-in token begins, and how long one is at most.
const TOKEN: (&str, usize) = ("hpo_", 256);

/// How long a browser has to fail in: one that still runs then is taken to have opened the page. Our own choice.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a sign-in token counts at most; its file is worth nothing afterwards.
pub(super) const FILE_SECONDS: u64 = 60;

/// Arguments of `hallpass open`.
#[derive(Clone, Debug, Args)]
pub(crate) struct OpenArgs {
    /// A request, `hosts` or `audit`; else the inbox
    #[arg(value_name = "ID|hosts|audit", value_parser = Page::parse)]
    page: Option<Page>,
    /// Print a link for another browser, as on a phone; it counts once and for a minute
    #[arg(long)]
    print: bool,
}

/// A page of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Page {
    Inbox,
    Request(RequestPrefix),
    Hosts,
    Audit,
}

impl Page {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "inbox" => Ok(Self::Inbox),
            "hosts" => Ok(Self::Hosts),
            "audit" => Ok(Self::Audit),
            other => RequestPrefix::parse(other)
                .map(Self::Request)
                .map_err(|error| format!("{error}; the other pages are hosts and audit")),
        }
    }

    /// Its path without the first slash; of a request, once the service says that there is one.
    async fn path(&self, client: &Client) -> Result<String, Failure> {
        Ok(match self {
            Self::Inbox => String::new(),
            Self::Hosts => "hosts".to_owned(),
            Self::Audit => "audit".to_owned(),
            Self::Request(id) => {
                let request: wire::Request = client.get(&format!("/v1/requests/{}", id.as_str())).await?;
                let id = RequestId::parse(&request.id);
                let id =
                    id.map_err(|e| Failure::failed("the server's answer is not hallpass'").because(e.to_string()))?;
                format!("r/{}", id.digits())
            }
        })
    }
}

/// `hallpass open`.
pub(crate) fn run(context: &Context, args: &OpenArgs) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let local = Local::new(&context.places()?, &profile.name);
    sweep(&local, FILE_SECONDS);
    let wanted = args.page.as_ref().unwrap_or(&Page::Inbox);
    let (path, sign_in) = context.block_on(async {
        let path = wanted.path(&client).await?;
        Ok((path, client.post::<_, wire::SignIn>("/v1/session/browser", &()).await?))
    })?;
    let token = check(&sign_in.token)?;
    let opened = !args.print && open(context, &local, &profile, (token, &path))?;
    let page = format!("{}/{path}", profile.server.url);
    let link = (!opened).then(|| format!("{}/sign-in#token={token}&to={path}", profile.server.url));
    if let Some(pin) = &profile.server.pin {
        let what = "the browser will ask about the service's certificate, which no public authority vouches for; its SHA-256 is";
        context.out.note(&format!("{what}\n  {pin}"));
    }
    let until = output::local_text(&sign_in.expires);
    let text = match &link {
        None => format!("{page} is opened; the page asks whether to sign in, until {until}"),
        Some(link) => {
            context.out.note(&format!("open this link in a browser; it signs one in as you, until {until}:"));
            link.clone()
        }
    };
    let document = json!({
        "schema": "hallpass.open.v1", "profile": profile.name, "page": page, "opened": opened, "link": link,
        "expires": sign_in.expires,
    });
    context.out.answer(&document, &text)
}

/// The token, if it is one: it is about to become part of a page and of a link.
fn check(token: &str) -> Result<&str, Failure> {
    let (prefix, longest) = TOKEN;
    let digits = token.strip_prefix(prefix).unwrap_or_default();
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !digits.is_empty() && token.len() <= longest && digits.bytes().all(is_digit) {
        return Ok(token);
    }
    Err(Failure::failed("the server's answer is not hallpass'").because("it is no sign-in token"))
}

/// Starts a browser on a file that posts the token; whether one started.
fn open(context: &Context, local: &Local, profile: &Profile, (token, path): (&str, &str)) -> Result<bool, Failure> {
    let commands = browsers();
    if commands.is_empty() {
        context.out.note("no browser can be started here (BROWSER, DISPLAY and WAYLAND_DISPLAY say none)");
        return Ok(false);
    }
    local.check_root()?;
    let name = data_encoding::HEXLOWER.encode(random::<8>()?.as_slice());
    let file = local.root().join(format!("{FILE_START}{name}{FILE_END}"));
    profile::write(&file, form(&profile.server.url, token, path).as_bytes())?;
    let url = file_url(&std::path::absolute(&file).map_err(|e| Failure::file("find", &file, &e))?);
    for command in &commands {
        match context.block_on(async { Ok(start(command, &url).await) })? {
            Ok(()) => return Ok(true),
            Err(why) => context.out.note(&format!("{} did not open it: {why}", command.join(" "))),
        }
    }
    drop(std::fs::remove_file(&file));
    Ok(false)
}

const FILE_START: &str = "sign-in-";
const FILE_END: &str = ".html";

/// Deletes files of sign-in tokens that are so many seconds old. Failing to is not worth failing a command for.
pub(super) fn sweep(local: &Local, seconds: u64) {
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(FILE_START) && name.ends_with(FILE_END)
    };
    let now = SystemClock.now();
    let is_old = |path: &PathBuf| {
        let at = std::fs::symlink_metadata(path).ok().and_then(|meta| u64::try_from(meta.mtime()).ok());
        // Of the future: the clock was set back, and nobody knows how old it is.
        at.is_some_and(|at| at > now.unix() || now.unix().saturating_sub(at) >= seconds)
    };
    let files = std::fs::read_dir(local.root()).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    for file in files.filter(is_ours).filter(is_old) {
        drop(std::fs::remove_file(file));
    }
}

/// The page that posts the token; without a script, at the press of its button.
fn form(server: &str, token: &str, path: &str) -> String {
    let server = server.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>hallpass</title></head>\n\
         <body><form method=\"post\" action=\"{server}/sign-in\">\n\
         <input type=\"hidden\" name=\"token\" value=\"{token}\"><input type=\"hidden\" name=\"to\" value=\"{path}\">\n\
         <button>Go on to {server}</button></form>\n<script>document.forms[0].submit()</script></body></html>\n"
    )
}

/// `file:///…` of an absolute path.
fn file_url(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut url = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' => url.push(char::from(*byte)),
            _ if byte.is_ascii_alphanumeric() => url.push(char::from(*byte)),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// The commands that may open a page here, first the preferred one; none if `HALLPASS_NO_BROWSER` says so.
fn browsers() -> Vec<Vec<String>> {
    let refused =
        profile::env("HALLPASS_NO_BROWSER").is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no"));
    if refused {
        return Vec::new();
    }
    if let Some(named) = profile::env("BROWSER") {
        let words = |command: &str| command.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        return named.split(':').map(words).filter(|words| !words.is_empty()).collect();
    }
    if cfg!(target_os = "macos") {
        return vec![vec!["open".to_owned()]];
    }
    let has_display = profile::env("DISPLAY").or_else(|| profile::env("WAYLAND_DISPLAY")).is_some();
    if has_display { vec![vec!["xdg-open".to_owned()]] } else { Vec::new() }
}

/// Starts a browser, which goes on without us; fails if it does at once. `%s` in the command is the URL, which else comes last.
async fn start(command: &[String], url: &str) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("it is empty")?;
    let mut arguments: Vec<String> = arguments.iter().map(|word| word.replace("%s", url)).collect();
    if !command.iter().any(|word| word.contains("%s")) {
        arguments.push(url.to_owned());
    }
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(START_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if !status.success() => Err(status.to_string()),
        Ok(Ok(_)) | Err(_) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_named_by_its_word_or_a_requests_id() {
        for (text, page) in [("inbox", Page::Inbox), ("hosts", Page::Hosts), ("audit", Page::Audit)] {
            assert_eq!(Page::parse(text), Ok(page));
        }
        assert_eq!(Page::parse("7k3f"), Ok(Page::Request(RequestPrefix::parse("7K3F").unwrap())));
        assert!(Page::parse("users").unwrap_err().contains("hosts and audit"));
    }

    #[test]
    fn what_is_no_token_gets_into_no_page() {
        assert!(check("hpo_Ab-_9").is_ok());
        for text in
            ["", "hpo_", "hps_abc", "hpo_a\"><script>", "hpo_a&to=", "hpo_a b", &format!("hpo_{}", "a".repeat(300))]
        {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_files_url_has_nothing_in_it_that_means_something_else() {
        assert_eq!(file_url(Path::new("/run/a b/x#y?%.html")), "file:///run/a%20b/x%23y%3F%25.html");
    }
}
