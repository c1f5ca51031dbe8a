//! The house rules that the compiler doesn't know: who may import whom, where each external crate lives, what pure code must not
//! touch, and the three values that only one place makes. The tables below are the rules; a change of the house changes them here,
//! in the same commit, with the reason.
//!
//! What is read: `src/` without comments and without `mod tests`. It is a reader of text, not of Rust: rules are written so that
//! what it overlooks (a renamed import, a macro that hides a path) would look odd in review.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

/// Modules from the ground up: level, and which of ours each may import. Lower levels never import higher ones.
const HOUSE: &[(&str, u8, &[&str])] = &[
    // 0 words and tools
    ("time", 0, &[]),
    ("name", 0, &[]),
    ("durable", 0, &[]),
    ("secret", 0, &[]),
    ("notify", 0, &[]),
    ("fail", 0, &[]),
    ("sandbox", 0, &[]),
    // 1 formats
    ("note", 1, &[]),
    ("ssh", 1, &["time", "name", "note"]),
    ("document", 1, &["time"]),
    // 2 rules
    ("keyring", 2, &["time", "name", "ssh"]),
    ("identity", 2, &["time", "name", "ssh"]),
    ("audit", 2, &["time", "name", "note", "ssh", "keyring", "identity"]),
    ("policy", 2, &["time", "name", "ssh", "document", "identity"]),
    // `keyring` for the key that a permit is to be signed with: it says of which CA it is.
    ("access", 2, &["time", "name", "ssh", "keyring", "identity", "audit", "policy"]),
    // `keyring` for the keys that a host keeps which goes over to another CA.
    ("inventory", 2, &["time", "name", "ssh", "keyring", "identity", "audit", "policy"]),
    // 3 adapters
    ("signer", 3, &["ssh", "durable", "secret"]),
    // `secret` reads the password of a PostgreSQL role.
    (
        "store",
        3,
        &[
            "time",
            "name",
            "durable",
            "secret",
            "ssh",
            "keyring",
            "identity",
            "audit",
            "policy",
            "access",
            "inventory",
            "fail",
        ],
    ),
    // 4 service
    (
        "service",
        4,
        &[
            "time",
            "name",
            "ssh",
            "keyring",
            "document",
            "identity",
            "audit",
            "policy",
            "access",
            "inventory",
            "signer",
            "store",
            "fail",
        ],
    ),
    // 5 edges
    ("wire", 5, &[]),
    ("client", 5, &["time", "wire"]),
    (
        "http",
        5,
        &[
            "time",
            "name",
            "sandbox",
            "ssh",
            "keyring",
            "identity",
            "audit",
            "policy",
            "access",
            "inventory",
            "service",
            "wire",
        ],
    ),
    // No network, no runtime: a login waits for nothing. `document` reads `host.toml` and the sessions' records.
    ("host", 5, &["time", "name", "ssh", "durable", "document"]),
    // A host's side of enrolment: everything beside sshd that does talk to the service.
    (
        "enrolment",
        5,
        &["time", "name", "durable", "secret", "notify", "fail", "note", "ssh", "document", "wire", "client", "host"],
    ),
    // 6 root
    // `keyring` for which CAs there are: a rotation is due for each by itself.
    (
        "config",
        6,
        &["time", "name", "secret", "sandbox", "document", "keyring", "audit", "signer", "store", "service", "http"],
    ),
    (
        "cli",
        6,
        &[
            "time",
            "name",
            "durable",
            "secret",
            "notify",
            "fail",
            "sandbox",
            "note",
            "ssh",
            "document",
            "keyring",
            "identity",
            "audit",
            "policy",
            "signer",
            "store",
            "service",
            "wire",
            "client",
            "http",
            "host",
            "enrolment",
            "config",
        ],
    ),
];

/// Single files that may import what their module may not. Each must still be needed.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("http/tls.rs", "durable", "it makes the self-signed certificate's files at first start"),
    ("http/tls.rs", "secret", "it reads the server's private key"),
    ("http/policy.rs", "store", "it shows a `StoredPolicy`, which the service hands out as it is"),
];

/// Modules that only some files of `cli` may import: the root builds the authority in one place, and the files of everyday
/// commands contain nothing of it.
const CLI: &[(&str, &[&str])] = &[
    ("service", &["cli/serve.rs", "cli/recover.rs", "cli/recover_report.rs", "cli/backup.rs", "cli/store.rs"]),
    ("store", &["cli/serve.rs", "cli/sandbox.rs", "cli/store.rs", "cli/recover.rs", "cli/backup.rs"]),
    ("http", &["cli/serve.rs", "cli/process.rs"]),
    ("signer", &["cli/serve.rs", "cli/sandbox.rs", "cli/init.rs", "cli/keys.rs", "cli/demo/", "cli/ca/add.rs"]),
    (
        "config",
        &[
            "cli/config_file/",
            "cli/serve.rs",
            "cli/sandbox.rs",
            "cli/init.rs",
            "cli/ca/add.rs",
            "cli/recover.rs",
            "cli/recover_report.rs",
            "cli/backup.rs",
        ],
    ),
    ("policy", &["cli/policy.rs", "cli/policy_report.rs", "cli/operator.rs", "cli/init.rs", "cli/recover.rs"]),
    // (both roots, and what says which of the two programs runs)
    (
        "host",
        &[
            "cli/demo/",
            "cli/failure.rs",
            "cli/host.rs",
            "cli/host_enrol.rs",
            "cli/host_program.rs",
            "cli/host_run.rs",
            "cli/mod.rs",
            "cli/usage.rs",
        ],
    ),
    ("enrolment", &["cli/host_enrol.rs", "cli/host_run.rs"]),
    ("notify", &["cli/serve.rs"]),
    ("sandbox", &["cli/serve.rs", "cli/sandbox.rs"]),
    ("fail", &["cli/serve.rs", "cli/backup.rs"]),
];

/// Where each external crate may be used. `""` means everywhere. A dependency without a row, or that nobody uses, fails.
const HOMES: &[(&str, &[&str])] = &[
    // free everywhere: errors, secrets, text forms of bytes
    ("thiserror", &[""]),
    ("secrecy", &[""]),
    ("zeroize", &[""]),
    ("data_encoding", &[""]),
    ("serde_json", &["audit/", "http/", "client/", "wire/", "cli/", "store/"]),
    // SSH formats and cryptography
    ("ssh_key", &["ssh/"]),
    ("p256", &["ssh/"]),
    ("p384", &["ssh/"]),
    ("p521", &["ssh/"]),
    ("signature", &["ssh/"]),
    ("ed25519_dalek", &["ssh/", "note.rs"]),
    (
        "sha2",
        &[
            "enrolment/check_in.rs",
            "ssh/",
            "note.rs",
            "identity/",
            "audit/",
            "access/digest.rs",
            "service/",
            // a backup's manifest
            "store/backup.rs",
            "client/tls.rs",
            "http/tls.rs",
            // the names of the pages' files hold their hash
            "http/web/assets.rs",
        ],
    ),
    ("hmac", &["identity/"]),
    // `client` spreads the moments at which calls are sent again that were turned away
    ("rand", &["service/", "signer/", "http/", "client/", "enrolment/", "cli/"]),
    // a token speaks PKCS#11 only through its own library, whose C interface we may not call ourselves (no unsafe)
    ("cryptoki", &["signer/pkcs11/"]),
    // policy and files
    ("toml", &["document/", "cli/profile.rs", "cli/init.rs"]),
    ("strsim", &["document/"]),
    ("rpds", &["policy/", "inventory/"]),
    ("ipnet", &["ssh/cert/", "policy/", "access/question.rs"]),
    ("regex", &["policy/"]),
    ("jiff", &["time.rs", "policy/", "cli/output.rs", "cli/moment.rs"]),
    (
        "serde",
        &[
            "wire/",
            "client/",
            "enrolment/link.rs",
            "http/",
            "store/rows.rs",
            "store/host_rows.rs",
            "store/backup.rs",
            "cli/",
        ],
    ),
    // storage
    ("rusqlite", &["store/"]),
    ("tokio_postgres", &["store/postgres/"]),
    ("deadpool_postgres", &["store/postgres/"]),
    // the database's TLS is the same as everybody's
    ("tokio_postgres_rustls", &["store/postgres/settings.rs"]),
    // async, HTTP, TLS
    ("tokio", &["store/", "service/", "http/", "client/", "enrolment/", "cli/"]),
    ("axum", &["http/"]),
    // pages are checked against their data when they are compiled, and escaped unless a template says otherwise (none does)
    ("askama", &["http/web/"]),
    ("tower", &["http/"]),
    ("tower_http", &["http/"]),
    ("hyper", &["http/"]),
    ("hyper_util", &["http/"]),
    ("rustls", &["http/", "client/", "store/postgres/settings.rs"]),
    ("tokio_rustls", &["http/"]),
    ("rcgen", &["http/tls.rs"]),
    ("utoipa", &["http/", "wire/"]),
    ("utoipa_axum", &["http/"]),
    ("governor", &["http/"]),
    ("prometheus_client", &["http/"]),
    ("reqwest", &["client/"]),
    ("rustls_platform_verifier", &["client/", "store/postgres/settings.rs"]),
    // the process and its system
    // what the kernel refuses a process, by its own numbers of system calls; each needs unsafe, which is theirs
    ("landlock", &["sandbox/files.rs"]),
    ("seccompiler", &["sandbox/calls.rs"]),
    ("libc", &["sandbox/"]),
    (
        "rustix",
        &["time.rs", "durable.rs", "secret.rs", "sandbox/", "store/", "host/", "enrolment/", "http/process.rs", "cli/"],
    ),
    (
        "tracing",
        &[
            "signer/",
            "store/",
            "service/",
            "http/",
            "cli/background.rs",
            "cli/serve.rs",
            "cli/sandbox.rs",
            "cli/process.rs",
        ],
    ),
    ("tracing_subscriber", &["cli/serve.rs"]),
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/"]),
    ("clap_mangen", &["cli/"]),
    ("rpassword", &["cli/"]),
];

/// Modules whose code is a function of its arguments, and what such code never names.
const PURE: &[&str] =
    &["time", "name", "note", "ssh", "keyring", "document", "identity", "audit", "policy", "access", "inventory"];
const IMPURE: &str = r"\basync\b|\.await\b|\bstd::(fs|env|process|thread|os|path)\b|\bstd::net::(Tcp|Udp|ToSocket)|\bSystemTime\b|\bInstant\b|\bprint(ln)?!|\beprint";

/// Pure files that need one impure word, with the reason.
const PURE_EXCEPTIONS: &[(&str, &str)] = &[("time.rs", "SystemClock, the one reader of the system time")];

/// The roots of the library and of the two programs.
const ROOTS: &[&str] = &["lib.rs", "main.rs", "main_host.rs"];

/// Longer files than [`LINES_MAX`], with the reason. Split first, list second.
const LONG: &[(&str, &str)] = &[];
const LINES_MAX: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_under(&path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

/// A source file: its path below `src/`, its text, and its code without comments and inline tests.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    fn is_tests(&self) -> bool {
        self.path.ends_with("tests.rs")
    }
}

fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let mut paths = Vec::new();
    files_under(&folder, &mut paths);
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let before_tests = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
        let code: Vec<&str> = before_tests.lines().filter(|line| !is_comment(line)).collect();
        let path = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        Source { path, code: code.join("\n"), text }
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(paths.len() > 40, "the sources were not found");
    paths.into_iter().map(read).collect()
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

fn is_in(path: &str, homes: &[&str]) -> bool {
    homes.iter().any(|home| path.starts_with(home))
}

/// Our own modules that a file imports.
fn imports(source: &Source) -> BTreeSet<String> {
    let ours = Regex::new(r"\bcrate::([a-z_]+)").unwrap();
    ours.captures_iter(&source.code).map(|found| found[1].to_owned()).filter(|name| name != source.module()).collect()
}

#[test]
fn a_module_imports_only_what_the_house_allows() {
    let house: BTreeMap<&str, &[&str]> = HOUSE.iter().map(|(name, _, imports)| (*name, *imports)).collect();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources().iter().filter(|source| !ROOTS.contains(&source.path.as_str())) {
        let Some(allowed) = house.get(source.module()) else {
            wrong.push(format!("{}: module {:?} has no row in HOUSE", source.path, source.module()));
            continue;
        };
        if source.is_tests() {
            continue;
        }
        for name in imports(source) {
            let exception = EXCEPTIONS.iter().position(|(path, import, _)| *path == source.path && *import == name);
            used.extend(exception);
            if !allowed.contains(&name.as_str()) && exception.is_none() {
                wrong.push(format!("{} imports `{name}`", source.path));
            }
        }
        if source.code.contains("crate::{") {
            wrong.push(format!(
                "{}: one `use crate::module::…` for each module, so that they can be read off",
                source.path
            ));
        }
    }
    for (index, (path, import, _)) in EXCEPTIONS.iter().enumerate() {
        if !used.contains(&index) {
            wrong.push(format!("the exception of {path} for `{import}` is not needed any more"));
        }
    }
    report(&wrong);
}

#[test]
fn no_path_climbs_out_of_its_module() {
    let supers = Regex::new(r"\b(?:super::)+").unwrap();
    let mut wrong = Vec::new();
    for source in sources() {
        let depth = source.path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
        for found in supers.find_iter(&source.code) {
            // An inline module inside a file is one deeper; none of ours holds code that imports.
            if found.as_str().matches("super").count() >= depth {
                wrong.push(format!("{}: `{}` reaches other modules; write `crate::`", source.path, found.as_str()));
            }
        }
    }
    report(&wrong);
}

#[test]
fn the_house_stands_on_its_lower_levels_without_a_cycle() {
    let levels: BTreeMap<&str, u8> = HOUSE.iter().map(|(name, level, _)| (*name, *level)).collect();
    let mut below: BTreeSet<&str> = BTreeSet::new();
    let mut left: Vec<_> = HOUSE.iter().collect();
    let mut wrong = Vec::new();
    for (name, level, imports) in HOUSE {
        wrong.extend(imports.iter().filter(|i| levels[**i] > *level).map(|i| format!("{name} imports {i} from above")));
    }
    while !left.is_empty() {
        let before = left.len();
        left.retain(|(name, _, imports)| {
            let stands = imports.iter().all(|import| below.contains(import));
            if stands {
                below.insert(name);
            }
            !stands
        });
        assert!(left.len() < before, "a cycle among {left:?}");
    }
    report(&wrong);
}

#[test]
fn only_the_root_of_the_program_builds_the_authority() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module() == "cli") {
        for name in imports(source) {
            let homes = CLI.iter().find(|(module, _)| *module == name);
            if homes.is_some_and(|(_, homes)| !is_in(&source.path, homes)) {
                wrong.push(format!("{} imports `{name}`", source.path));
            }
        }
    }
    report(&wrong);
}

/// Names in `[dependencies]` of the manifest, as crates are called in code.
fn dependencies() -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, section) = manifest.split_once("\n[dependencies]\n").unwrap();
    let section = section.split("\n[").next().unwrap();
    let name = |line: &str| line.split_once('=').map(|(name, _)| name.trim().replace('-', "_"));
    section.lines().filter(|line| !line.starts_with('#')).filter_map(name).collect()
}

#[test]
fn each_external_crate_stays_in_its_home() {
    let sources = sources();
    let mut wrong = Vec::new();
    let homes: BTreeMap<&str, &[&str]> = HOMES.iter().copied().collect();
    let dependencies = dependencies();
    for name in &dependencies {
        let Some(homes) = homes.get(name.as_str()) else {
            wrong.push(format!("the dependency {name} has no home in HOMES"));
            continue;
        };
        let uses = Regex::new(&format!(r"(?m)(^|[^\w:]){name}::|\buse {name};")).unwrap();
        let users: Vec<&Source> = sources.iter().filter(|source| uses.is_match(&source.code)).collect();
        if users.is_empty() {
            wrong.push(format!("nothing uses the dependency {name}"));
        }
        let strays = users.iter().filter(|user| !is_in(&user.path, homes));
        wrong.extend(strays.map(|user| format!("{} uses {name}, whose home is {homes:?}", user.path)));
    }
    let gone = HOMES.iter().filter(|(name, _)| !dependencies.iter().any(|dependency| dependency == name));
    wrong.extend(gone.map(|(name, _)| format!("{name} in HOMES is no dependency any more")));
    report(&wrong);
}

/// Name and version of everything in a lock file, and what our own crate depends on there.
fn locked(path: &str) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let (mut all, mut ours) = (BTreeSet::new(), BTreeSet::new());
    for package in text.split("\n[[package]]\n").skip(1) {
        let value = |key: &str| {
            let start = format!("{key} = \"");
            package.lines().find_map(|line| line.strip_prefix(&start)).map(|rest| rest.trim_end_matches('"').to_owned())
        };
        let (name, version) = (value("name").unwrap(), value("version").unwrap());
        if name == "hallpass" {
            ours = package
                .lines()
                .filter_map(|line| line.strip_prefix(" \""))
                .map(|line| line.trim_end_matches(['"', ',']).to_owned())
                .collect();
        }
        all.insert((name, version));
    }
    (all, ours)
}

#[test]
fn the_fuzz_targets_are_built_of_the_very_versions_of_the_program() {
    let ((program, dependencies), (fuzz, fuzzed)) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let own = ["hallpass-fuzz", "libfuzzer-sys", "arbitrary"];
    let others = fuzz.iter().filter(|package| !program.contains(package) && !own.contains(&package.0.as_str()));
    let others: Vec<String> =
        others.map(|(name, version)| format!("{name} {version} in fuzz/Cargo.lock is not the program's")).collect();
    report(&others);
    // What only the program's tests need is not in there.
    let missing: Vec<&str> = dependencies.difference(&fuzzed).map(String::as_str).collect();
    assert_eq!(missing, ["proptest", "tempfile"], "fuzz/Cargo.lock is not up to date");
}

#[test]
fn rules_and_formats_are_pure() {
    let impure = Regex::new(IMPURE).unwrap();
    let excused = |source: &&Source| PURE_EXCEPTIONS.iter().any(|(path, _)| *path == source.path);
    let sources = sources();
    let pure = sources.iter().filter(|source| PURE.contains(&source.module()) && !excused(source));
    let wrong: Vec<String> = pure
        .filter_map(|source| impure.find(&source.code).map(|found| format!("{}: `{}`", source.path, found.as_str())))
        .collect();
    report(&wrong);
}

#[test]
fn what_a_ca_key_signs_is_made_in_one_place() {
    let new = Regex::new(r"\bTbsCert::new\(").unwrap();
    let sources = sources();
    let makers: Vec<&str> =
        sources.iter().filter(|s| !s.is_tests() && new.is_match(&s.code)).map(|s| s.path.as_str()).collect();
    assert_eq!(makers, ["access/permit.rs", "inventory/permit.rs"]);
}

#[test]
fn only_the_checking_module_makes_a_decision_value() {
    let mut wrong = Vec::new();
    for (name, home) in [
        ("Permit", "access/permit.rs"),
        ("HostPermit", "inventory/permit.rs"),
        ("Proven", "identity/"),
        ("HostProven", "identity/host.rs"),
        ("ProvenKeys", "identity/host.rs"),
        ("TbsCert", "ssh/cert/"),
    ] {
        let literal = Regex::new(&format!(r"\b{name} \{{")).unwrap();
        let definition = Regex::new(&format!(r"(?s)#\[derive\(([^)]*)\)\]\s*pub struct {name} \{{(.*?)\n\}}")).unwrap();
        let mut defined = 0;
        for source in sources() {
            if !is_in(&source.path, &[home]) && !source.is_tests() && literal.is_match(&source.code) {
                wrong.push(format!("{} makes or takes apart a {name}", source.path));
            }
            for found in definition.captures_iter(&source.code) {
                defined += 1;
                let (derives, fields) = (&found[1], &found[2]);
                if derives.contains("Default") || derives.contains("Deserialize") || fields.contains("pub") {
                    wrong.push(format!("{}: {name} can be made elsewhere (derives {derives})", source.path));
                }
            }
        }
        assert_eq!(defined, 1, "{name} was not found");
    }
    report(&wrong);
}

#[test]
fn sql_is_written_in_the_store_alone() {
    let sql = Regex::new(r#""\s*(SELECT |INSERT INTO |UPDATE \w+ SET |DELETE FROM |CREATE TABLE |PRAGMA )"#).unwrap();
    let sources = sources();
    let strays = sources.iter().filter(|source| source.module() != "store" && sql.is_match(&source.code));
    report(&strays.map(|source| format!("{} holds SQL", source.path)).collect::<Vec<_>>());
}

#[test]
fn every_source_file_is_reached_by_a_mod_and_says_what_it_is_for() {
    let sources = sources();
    let by_path: BTreeMap<&str, &Source> = sources.iter().map(|source| (source.path.as_str(), source)).collect();
    let mut wrong = Vec::new();
    for source in &sources {
        let header = source.text.strip_prefix("//! ").and_then(|text| text.lines().next()).unwrap_or_default();
        if header.len() < 12 {
            wrong.push(format!("{}: the header does not say what the file is for", source.path));
        }
        if ROOTS.contains(&source.path.as_str()) {
            continue;
        }
        let path = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = if folder.is_empty() { "lib.rs".to_owned() } else { format!("{folder}/mod.rs") };
        let reached = Regex::new(&format!(r"(?m)^\s*(pub(\([a-z]+\))? )?mod {name};")).unwrap();
        let beside = format!("{folder}.rs");
        let parents = [parent.as_str(), beside.as_str()];
        if !parents.iter().filter_map(|parent| by_path.get(parent)).any(|parent| reached.is_match(&parent.text)) {
            wrong.push(format!("{} is reached by no `mod`", source.path));
        }
    }
    report(&wrong);
}

#[test]
fn files_fit_in_the_head() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let listed = LONG.iter().any(|(path, _)| *path == source.path);
        if (lines > LINES_MAX) != listed {
            wrong.push(format!("{} has {lines} lines; {LINES_MAX} is the limit, unless LONG names it", source.path));
        }
    }
    report(&wrong);
}

#[test]
fn the_map_in_the_crate_docs_names_every_module() {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let (docs, _) = text.split_once("\npub mod ").unwrap();
    let missing = HOUSE.iter().filter(|(name, _, _)| !docs.contains(&format!("[`{name}`]")));
    report(&missing.map(|(name, _, _)| format!("the map does not name `{name}`")).collect::<Vec<_>>());
    let promises = (1..=12).filter(|number| !docs.contains(&format!("**P{number}**")));
    report(&promises.map(|number| format!("the crate docs lack P{number}")).collect::<Vec<_>>());
}

#[test]
fn a_note_names_its_issue_or_does_not_exist() {
    // Put together here, so that this file does not contain what it looks for.
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK"), concat!("T", "BD")];
    let note = Regex::new(&format!(r"\b({})\b", words.join("|"))).unwrap();
    let stub = Regex::new(concat!(r"\bto", r"do!\(|\bunimplem", r"ented!\(")).unwrap();
    let issue = Regex::new(r"#\d+").unwrap();
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches", "deploy", "docs", "fuzz"] {
        let mut paths = Vec::new();
        files_under(&root().join(folder), &mut paths);
        for path in paths {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            for (number, line) in (1..).zip(text.lines()) {
                if stub.is_match(line) || (note.is_match(line) && !issue.is_match(line)) {
                    wrong.push(format!("{}:{number}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    report(&wrong);
}

#[test]
fn migrations_are_numbered_without_a_gap_and_all_of_them_run() {
    let mut paths = Vec::new();
    files_under(&root().join("src/store/migrations"), &mut paths);
    assert!(!paths.is_empty());
    let mut of_database: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let store: String = sources().iter().filter(|s| s.module() == "store").map(|s| s.code.as_str()).collect();
    for path in &paths {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let database = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(store.contains(&format!("migrations/{database}/{name}")), "{database}/{name} is not run");
        of_database.entry(database).or_default().push(name);
    }
    for (database, names) in &of_database {
        for (number, name) in (1..).zip(names) {
            assert!(name.starts_with(&format!("{number:04}_")), "{database}: {name} is not number {number}");
        }
    }
    // PostgreSQL's first makes what SQLite's first seven make; what comes later comes to both, under one name, but for how a file finds what it
    // has: a server writes rows of an index, not pages, and its nodes can't all change at once.
    let is_of_the_file_alone = |name: &String| name == "by_number.sql";
    let later = |database: &str, first: usize| {
        let names = of_database[database].iter().skip(first).map(|name| name.split_once('_').unwrap().1.to_owned());
        names.filter(|name| !is_of_the_file_alone(name)).collect::<Vec<String>>()
    };
    let (file, server) = (later("sqlite", 7), later("postgres", 1));
    assert_eq!(file, server, "a migration is there for one database only");
}
