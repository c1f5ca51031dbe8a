//! The command tree as data: global flags and commands. Each command's own arguments stand beside its code.

use clap::{Args, Parser, Subcommand};

use super::{
    admin, audit, ca, cert, change, completion, decide, doctor, end, explain, host, hosts, inbox, init, list, login,
    open, operator, prepare, request, serve, setup, ssh, status, store, texts, wait,
};
use crate::time::Lifetime;

/// hallpass: just-in-time SSH access with certificates valid for exactly the approved window.
#[derive(Debug, Parser)]
#[command(
    name = "hallpass",
    version,
    disable_help_subcommand = true,
    infer_subcommands = false,
    max_term_width = 100,
    before_help = texts::EXAMPLES,
    after_help = texts::AFTER_HELP
)]
pub(crate) struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub(crate) globals: Globals,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands share.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub(crate) struct Globals {
    /// Which profile (server and person) to use
    #[arg(
        long,
        global = true,
        env = "HALLPASS_PROFILE",
        value_name = "NAME",
        default_value = "default",
        hide_env_values = true
    )]
    pub(crate) profile: String,
    /// The URL of the access server
    #[arg(long, global = true, env = "HALLPASS_SERVER", value_name = "URL", hide_env_values = true)]
    pub(crate) server: Option<String>,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print one JSON document per line, as things happen (`wait`, `status --watch`, `inbox --watch`, `audit tail`)
    #[arg(long, global = true, conflicts_with = "json")]
    pub(crate) jsonl: bool,
    /// Say nothing but the answer and failures
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Never ask a question
    #[arg(long, global = true, env = "HALLPASS_NO_INPUT", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    pub(crate) no_input: bool,
    /// No colour (there is none) and no redrawing
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Configuration file of the service (else /etc/hallpass/config.toml or /var/lib/hallpass/config.toml), or of the host (`host`)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<std::path::PathBuf>,
    /// How long one call to the server may take (10s); for `wait`, how long to wait
    #[arg(long, global = true, value_name = "DURATION", value_parser = Lifetime::parse)]
    pub(crate) timeout: Option<Lifetime>,
    /// Answer every yes/no question with yes
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
}

impl Globals {
    /// Those of a command that sshd or PAM runs: nobody's profile and environment.
    pub(crate) fn of_host(config: Option<std::path::PathBuf>) -> Self {
        Self {
            profile: "default".to_owned(),
            server: None,
            json: false,
            jsonl: false,
            quiet: false,
            verbose: 0,
            no_input: false,
            no_color: false,
            config,
            timeout: None,
            yes: false,
        }
    }
}

/// All commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in with an SSH key
    Login(login::LoginArgs),
    /// End this login
    Logout(login::LogoutArgs),
    /// Who am I, what do I hold, what waits
    Status(status::StatusArgs),
    /// Hosts that the service knows, and what I may do there
    Hosts(hosts::HostsArgs),
    /// Ask for access to a host
    Request(request::RequestArgs),
    /// Go on waiting for a request and fetch its certificate
    Wait(wait::WaitArgs),
    /// Show one request and its history
    Show(list::ShowArgs),
    /// List requests
    Requests(list::RequestsArgs),
    /// Open the matching web page, signed in
    Open(open::OpenArgs),
    /// List requests that I may decide, the oldest first
    Inbox(inbox::InboxArgs),
    /// Approve a request, perhaps for less than was asked
    Approve(decide::ApproveArgs),
    /// Say no to a request, or to its extension
    Deny(decide::DenyArgs),
    /// Take a request of mine back
    Cancel(change::CancelArgs),
    /// Ask for more time
    Extend(change::ExtendArgs),
    /// Give access back before its end
    End(end::EndArgs),
    /// Connect: ask if needed, wait, then run ssh
    Ssh(ssh::SshArgs),
    /// Make plain ssh, scp, rsync and git use hallpass, or take that back
    Setup(setup::SetupArgs),
    /// Run by ssh itself, as `hallpass setup` has it
    #[command(hide = true)]
    SshPrepare(prepare::PrepareArgs),
    /// What is wrong here, and why a host does not let me in
    Doctor(doctor::DoctorArgs),
    /// Why I may or may not have access, and who would have to agree
    Explain(explain::ExplainArgs),
    /// Host CA keys that the service names, as lines for ssh's known hosts
    KnownHosts,
    /// Look at certificates
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// CA keys that hosts trust
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Check, test, compare and apply policies
    #[command(subcommand)]
    Policy(operator::PolicyCommand),
    /// Read, export and verify the audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Join tokens and enrolled hosts, for operators
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// What PAM and sshd run on a host
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Move the store from a file to a server
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Write a first configuration
    Init(init::InitArgs),
    /// Run the service
    Serve(serve::ServeArgs),
    /// Show the whole story on a real sshd with throw-away state
    Demo(DemoArgs),
    /// Print a shell's completion script
    Completion(completion::CompletionArgs),
    /// Print or write the manual pages
    Man(texts::ManArgs),
    /// Print the version
    Version,
    /// Help on a command or a code, or on exit-codes, environment, files, formatting
    Help(texts::HelpArgs),
}

/// Arguments of `hallpass demo`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep it running at the end and print what to type
    #[arg(long)]
    pub(crate) stay: bool,
}
