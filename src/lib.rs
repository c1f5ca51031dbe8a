//! hallpass: just-in-time SSH access with certificates that are valid for exactly the approved window.
//!
//! An engineer asks for a host, an account, a while and a reason; a TOML policy refuses, allows, or asks people; the service
//! then issues an OpenSSH user certificate for the approved window and nothing else. Stock `sshd` trusts the CA, plain `ssh`
//! uses the certificate, and when the window ends the certificate is dead. There is no standing access and no revocation step.
//! Every step is in a log that anyone can verify offline. One program, `hallpass`: the service, people's command line, the host side,
//! operators' and auditors' tools; and `hallpass-host`, which is the host side alone, from the same code.
//!
//! # The map
//!
//! Levels go up; a module imports only from lower ones (`tests/it/architecture.rs` holds this as data, also where each external
//! crate lives). The folder list is the threat model: who can ask, who decides, what is signed, what is written down.
//!
//! | Level | Module | What for |
//! |---|---|---|
//! | 0 words | [`time`] | whole seconds, half-open windows, the clock |
//! | | [`name`] | parsed names and ids; one spelling each |
//! | | [`durable`] | crash-safe file replacement |
//! | | [`secret`] | reading files that nobody else may read |
//! | | [`sandbox`] | what the service's process denies itself: files, connections, system calls |
//! | | [`notify`] | tells the service manager how far we are |
//! | | [`fail`] | fail points for crash tests; nothing in a shipped binary |
//! | 1 formats | [`note`] | signed notes: what the log key signs |
//! | | [`ssh`] | keys, certificates, signatures, trust bundles, agent frames; the linter and the one thing a CA key signs |
//! | | [`document`] | TOML files with every problem at once, each with its place |
//! | 2 rules | [`keyring`] | which CAs there are, with which keys, and in which state |
//! | | [`identity`] | people, login challenges, sessions; the proof that somebody has just been authenticated; what an approver signs |
//! | | [`audit`] | events, canonical entries, the Merkle tree, checkpoints, offline verification |
//! | | [`policy`] | from text to verdict, with reasons; quorums; a policy's own tests; who gains and loses |
//! | | [`inventory`] | enrolled hosts as the log tells of them: joining, certificates for them, what they tell of themselves |
//! | | [`access`] | the life of a request: one step function, digests, the permit |
//! | 3 adapters | [`signer`] | CA key backends: they sign a to-be-signed certificate and nothing else |
//! | | [`store`] | each change together with its log entries, in one durable transaction: a SQLite file, or PostgreSQL for many nodes; the newest checkpoint in a file apart; backups |
//! | 4 service | [`service`] | load, decide, step, save: the only way to change anything |
//! | 5 edges | [`wire`] | the JSON of the API, shared by server and client |
//! | | [`http`] | the server of API and pages: one service call for each handler |
//! | | [`client`] | the API client, with a pinned or publicly trusted server |
//! | | [`host`] | what runs beside `sshd`: ends sessions, names principals; nothing of the authority, no network |
//! | | [`enrolment`] | a host's side of enrolment: set up beside sshd with a way back, and the daemon that keeps in touch |
//! | 6 root | [`config`] | the service's file, into each module's own settings |
//! | | [`cli`] | the command tree of `hallpass`, and of `hallpass-host`; `cli/serve.rs` alone builds the server |
//!
//! Rules and formats are pure: functions of their arguments, `now` included, without async, files, sockets, environment, clock
//! or randomness. Everything that touches the world is thin.
//!
//! # Promises
//!
//! Each with the place that keeps it and the tests that would fail without it (folders below `tests/it/`).
//!
//! - **P1** A certificate's validity is its approved window, to the second; backdating is part of the window that people see, and
//!   never moves its end. [`access::step::step`] grants it, `access/permit.rs` copies it. `lifecycle`, `openssh` (a real `sshd` at both
//!   ends of the window).
//! - **P2** Nothing is signed before a durable log entry holds exactly the bytes to be signed. [`store::Save::Certify`] makes serial,
//!   bytes and entry in one transaction; [`service::issue`] signs afterwards, and only what the log bears out (`access/logged.rs`,
//!   under the sealed [`store::Head`]). `crash` (killed at each durable step), `story` (a database that others wrote into).
//! - **P3** One grant names one key and yields one certificate; fetching again signs the same bytes. Compare-and-swap on the row.
//!   `story` (a hundred parallel fetches, one serial), `store`, `crash`.
//! - **P4** What is issued is what was approved: approvals name [`access::digest`]. `lifecycle`; `access/parts.rs` compares stored
//!   rows with it. Signed ones say in words what may be issued ([`identity::approval`]); `audit_log` proves it from the log alone.
//! - **P5** Nobody approves their own request, narrowing never widens, approvals are distinct people. `access/decide.rs`,
//!   [`policy::quorum`]. `lifecycle`, `policy`; [`audit::export`] finds a log that says otherwise.
//! - **P6** Policy is evaluated when asked, approved and issued, and the version that decided is logged. [`access::Check`] carries the
//!   policy into the step, which puts the question itself. `lifecycle`, `story` (decisions that race with a new policy),
//!   `store` and `crash` (another node has put something else in force: [`store::Save::OnBasis`]).
//! - **P7** A CA key signs only what a permit yielded, and of its own purpose: [`signer::Signer`] takes a [`ssh::cert::TbsCert`], made for
//!   people in one place ([`access`]) and for hosts in one ([`inventory::permit`]), and of the hosts' own CA ([`keyring::ActiveKey`]). Which key signs, and which hosts must trust, is a move
//!   that [`keyring`] plans by what hosts prove. `architecture`, `story` and `formats` (CA keys that lie, fail and hang), `hosts`, `rotation`.
//! - **P8** Nothing of a session outlives its window by more than two seconds. [`host::guard`] lets a login go on only once a
//!   [`host::watch`]er is armed, which needs nobody; [`host::sweep`] ends everything of the audit session. `guard` (every kind of session
//!   on a real `sshd` with PAM, lost and nonsensical records, killed watchers), `demo`. [`host::sessions`] and [`enrolment::daemon`] bring
//!   extensions and early ends, as [`service::host_state`] says them. `enrolment` (the same with a real service).
//! - **P9** Principals are 1 to 256, each parsed, no wildcard; user certificates for people, host certificates for hosts.
//!   `ssh/cert/lint.rs`. `formats`, `hosts`, `openssh`.
//! - **P10** Unknown is refused, with what, why and what next, and changes nothing. [`document`], [`audit::entry`], `store/rows.rs`,
//!   [`wire`]. `policy`, `examples`, `bad_input`, `store`.
//! - **P11** Private keys stay where they were made; secrets are never printed, logged or compared in variable time. [`ssh::private`],
//!   [`identity::session`] and [`identity::browser`] (hashed at rest), [`signer::file`]. Inline tests there, `api`, `web`, `openssh`.
//! - **P12** A crash at any instruction leaves a state from which a restart goes on. [`store`], [`durable`], `service/start.rs`.
//!   `crash` (killed at each fail point and under load), `store`.
//!
//! # Rules that cut across
//!
//! - **A decision is a value that can't be made elsewhere.** [`identity::Proven`], [`access::Permit`], [`ssh::cert::TbsCert`]: private fields,
//!   one maker, no `Default`, no deserialising.
//! - **Nothing happens unrecorded.** A step returns the next state and its events; the store writes both or neither.
//! - **Saying no is an answer.** A refusal is typed, complete and safe to show; what broke inside is logged and not shown.
//! - **Absent means no.** No rule, no quorum, no clock that agrees with the log and with itself, no writable store: nothing is issued.
//! - **Text from outside** is parsed or quoted; what reaches a terminal is escaped in `cli/output.rs`, once.
//! - **Limits** on every body, list, name, queue, wait and retry are constants with a reason beside them.
//! - **More than can be done** is turned away before anything is done, soon, and in turns by caller; asks never take the places of approvals
//!   (`http/admission/`, `tests/it/overload`).
//! - **Order** never depends on a seed: ordered collections everywhere.
//!
//! # Decisions, as questions
//!
//! *Why certificates and no agent on the host that asks?* A login must not wait for a network. The certificate is the whole decision, and
//! a host that has lost us stays as safe as its clock.
//!
//! *Why is the log entry's index the serial?* One number leads from a line in sshd's log to who asked, who agreed and which policy said
//! so; and a serial that is not in the log is a certificate that we did not issue.
//!
//! *Why our own certificate encoder?* The library's builder signs in one go; P2 needs the bytes before. A second reader, the library's,
//! then checks each finished certificate against ours.
//!
//! *Why does the session carry no rights?* Leaving a group must work at once. A session proves who; what they may is read at each call.
//!
//! *Why a second program for hosts?* Each login starts three processes, and a daemon runs all the time; the pages that the kernel maps of a program with the
//! service in it were most of what they cost. It is another root over the same library, and the linker leaves out what that does not reach.
//!
//! *Why one writer thread?* SQLite has one writer anyway, and nodes on PostgreSQL wait for each other at the log's head; a queue in front of it turns
//! waiting changes into one durable commit.
//!
//! *Why does a decision carry what it rests on?* Another node may apply a policy between our decision and our commit. The store compares, under the lock
//! that gives the log its order, so that P6 and P7 are kept by the log and not by how fast nodes hear of each other.
//!
//! *Why is a host's user CA an entry, and a key's too?* A thief of one key opens the hosts of one CA because no other host trusts it. That is worth
//! what it can be shown for: the log alone says which key was the right one for a host, and when ([`inventory::moves`]).
//!
//! *Why is there no message between nodes?* The log says all that happened, in order. A node that follows it misses nothing, whatever it missed hearing.
//!
//! *Why is the log a tree and not a chain?* One entry can be proven with a dozen hashes, and an old checkpoint against a new one, without
//! reading the log.
//!
//! *Why is there no table of enrolled hosts?* Which hosts there are decides who can be let in where, and a row can be changed without a trace.
//! The log's entries can't, and the sealed head counts them: an inventory is read from there, whole, or not at all.
//!
//! *Why does each lost entry get one in its place?* After an older copy was put back, a number of an entry must not be given again: it may be a
//! certificate's serial somewhere. An offset would be one more thing that every reader of a serial has to know; an entry that says that it
//! stands for a lost one is read by all of them as it is, and counted by the tree ([`service::recover`]).
//!
//! *Why replay a log that is signed?* The signature says that nobody changed it afterwards; not that it made sense when it was written.
//!
//! *Why does an approver sign facts and not only the digest?* Whoever could show one request and take the approval of another would be the
//! service itself. What a client signs is made of what it showed, and an auditor compares it with the certificate, not with a hash.
//!
//! *Why does a browser sign in by the command line?* There is no password, and a person's key stays where it is. What lets a browser in is a
//! login that there is already, and so it ends with that, and never proves anything else ([`identity::browser`]).
//!
//! *Why may a policy take approvals without a signature?* An approver with a phone and no key is better than none at night. Where that is not
//! good enough, the policy says so, rule by rule.
//!
//! # Where the code differs from the plan
//!
//! The design names more than there is: OIDC and workloads, notifications and break-glass are not built. It names one binary; there is a second one for hosts, `hallpass-host`, and `hallpass` has its commands as well. Of the web
//! pages there are those that approvers need: no new request, extension, policy, reports or rotation on a page, no passkeys, and a sign-in
//! by the command line alone; an approval that must be signed is a command. The host side is two modules: [`host`] decides about logins
//! and ends sessions, offline; [`enrolment`] is all that talks to the service, and is never waited for. A host that is not enrolled
//! may have its guard set up by hand; an extension does not reach a session that is open there. Of a session whose watcher root has killed
//! *and* whose record root has removed, nobody knows any more: the guard keeps no third note of it. Sessions are found by audit session id
//! alone, not by cgroup too: a user can leave a scope (`systemd-run --scope`), but not the audit session. [`host`] reads TOML by way of `document`.
//! Of the command line `audit report` makes a folder of an export and no archive, and tells of no people who joined or left, whom the log does not
//! know.
//! What policy grants at once is asked and fetched in one call (`POST /v1/certificates`), which the design does not name. Denials are not signed, and an approval need not be where the policy does not want it. Also: `document` (TOML) and `fail` are modules that
//! the design does not name; [`store`] imports [`policy`] for the words of stored terms; [`http`] shows values of [`policy`], [`access`]
//! and [`ssh`] as they are; the whole policy text lives in the store, its hash in the log.

pub mod access;
pub mod audit;
pub mod cli;
pub mod client;
pub mod config;
pub mod document;
pub mod durable;
pub mod enrolment;
pub mod fail;
pub mod host;
pub mod http;
pub mod identity;
pub mod inventory;
pub mod keyring;
pub mod name;
pub mod note;
pub mod notify;
pub mod policy;
pub mod sandbox;
pub mod secret;
pub mod service;
pub mod signer;
pub mod ssh;
pub mod store;
pub mod time;
pub mod wire;
