//! What enrolment would do on hosts as distributions ship them, and what keeps it from it.

use std::collections::BTreeMap;

use hallpass::enrolment::places::{self, DROP_IN_NAME};
use hallpass::enrolment::plan::{Facts, Obstacle, Plan, Wish, plan};
use hallpass::enrolment::sshd_config::{Effective, Release};
use hallpass::enrolment::{pam, texts};
use hallpass::host::settings::Settings;
use hallpass::name::{HostName, TagKey, TagValue};

const DEBIAN: &str = "# This is the sshd server system-wide configuration file.\n\nInclude /etc/ssh/sshd_config.d/*.conf\n\n#Port 22\n\
    KbdInteractiveAuthentication no\nUsePAM yes\nX11Forwarding yes\nAcceptEnv LANG LC_*\nSubsystem sftp /usr/lib/openssh/sftp-server\n";
const OLD: &str = "Port 22\nUsePAM yes\nLogLevel INFO\nSubsystem sftp /usr/libexec/sftp-server\n";
const RED_HAT: &str = "# To modify the system-wide sshd configuration, create a *.conf file under\n#  /etc/ssh/sshd_config.d/\n\
    Include /etc/ssh/sshd_config.d/*.conf\n\nAuthorizedKeysFile .ssh/authorized_keys\nSubsystem sftp /usr/libexec/openssh/sftp-server\n";
const PAM: &str = "auth include password-auth\nsession required pam_loginuid.so\nsession include password-auth\n";
const EFFECTIVE: &str = "port 22\nlistenaddress 0.0.0.0:22\nusepam yes\npubkeyauthentication yes\nloglevel INFO\n\
    trustedusercakeys none\nauthorizedprincipalsfile none\nauthorizedprincipalscommand none\nauthorizedkeysfile none\n\
    passwordauthentication no\npermituserenvironment no\npermittunnel no\nstrictmodes yes\nauthenticationmethods any\n\
    pubkeyacceptedalgorithms ssh-ed25519-cert-v01@openssh.com,ssh-ed25519\n";

fn facts(config: &str) -> Facts {
    Facts {
        release: Some(Release(9, 2)),
        effective: Effective::parse(EFFECTIVE),
        config: config.to_owned(),
        pam: Some(PAM.to_owned()),
        program: "/usr/local/bin/hallpass-host".to_owned(),
        has_ssh: true,
        ..Facts::default()
    }
}

fn saying(config: &str, more: &str) -> Facts {
    // What is said first is what counts of a keyword that can stand there once.
    Facts { effective: Effective::parse(&format!("{more}\n{EFFECTIVE}")), ..facts(config) }
}

fn wish() -> Wish {
    Wish {
        name: HostName::parse("web-1").unwrap(),
        tags: BTreeMap::from([(TagKey::parse("role").unwrap(), TagValue::parse("web").unwrap())]),
        has_guard: true,
        may_replace: false,
        certificates: vec!["/etc/ssh/hallpass/ssh_host_ed25519_key-cert.pub".to_owned()],
        service: Some("server = \"https://pass.example.com\"\n".to_owned()),
        bundle: Some("keys\n".to_owned()),
    }
}

fn text<'a>(plan: &'a Plan, path: &str) -> &'a str {
    let write = plan.writes.iter().find(|write| write.path == path);
    write.unwrap_or_else(|| panic!("{path} is not written: {:?}", paths(plan))).text.as_deref().unwrap()
}

fn paths(plan: &Plan) -> Vec<&str> {
    plan.writes.iter().map(|write| write.path.as_str()).collect()
}

fn refused(facts: &Facts, wish: &Wish) -> Vec<String> {
    let told = |obstacle: Obstacle| {
        assert!(!obstacle.next.is_empty());
        obstacle.what
    };
    plan(facts, wish).unwrap_err().into_iter().map(told).collect()
}

#[test]
fn a_stock_host_gets_one_file_that_sshd_reads_first_and_one_line_in_pam() {
    for config in [DEBIAN, RED_HAT] {
        let plan = plan(&facts(config), &wish()).unwrap();
        assert_eq!(
            paths(&plan),
            [places::HOST_TOML, places::SERVICE_TOML, places::TRUST, places::PAM, &places::drop_in()]
        );
        let sshd: Vec<&str> = text(&plan, &places::drop_in()).lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            sshd,
            [
                "TrustedUserCAKeys /etc/ssh/hallpass/user_ca_keys",
                "AuthorizedPrincipalsFile none",
                "AuthorizedPrincipalsCommand /usr/local/bin/hallpass-host principals --user=%u --serial=%s --key-id=%i --cert=%k",
                "AuthorizedPrincipalsCommandUser hallpass-principals",
                "HostCertificate /etc/ssh/hallpass/ssh_host_ed25519_key-cert.pub",
                "LogLevel VERBOSE",
                "Match User hallpass-check",
                "    AuthenticationMethods publickey",
                "    PermitTTY no",
                "    AllowTcpForwarding no",
                "    AllowAgentForwarding no",
                "    X11Forwarding no",
            ]
        );
        assert!(
            text(&plan, places::PAM)
                .contains("pam_loginuid.so\nsession    required     pam_exec.so quiet type=open_session")
        );
        let settings = Settings::parse(text(&plan, places::HOST_TOML), "host.toml").unwrap();
        assert_eq!((settings.name.as_str(), settings.tags.len()), ("web-1", 1));
        assert!(plan.risks.is_empty(), "{:?}", plan.risks);
    }
}

#[test]
fn sshd_pam_and_the_daemon_run_the_program_that_was_chosen() {
    for program in ["/usr/local/bin/hallpass-host", "/opt/hallpass/bin/hallpass host"] {
        let facts = Facts { has_systemd: true, program: program.to_owned(), ..facts(DEBIAN) };
        let plan = plan(&facts, &wish()).unwrap();
        let drop_in = places::drop_in();
        for (path, line) in [
            (places::UNIT, format!("\nExecStart={program} run\n")),
            (places::PAM, format!("type=open_session {program} guard\n")),
            (&drop_in, format!("\nAuthorizedPrincipalsCommand {program} principals --user=%u")),
        ] {
            assert!(text(&plan, path).contains(&line), "{path}: {}", text(&plan, path));
        }
        // Planned again on what it wrote, by the other program: one line of the guard, and nobody else's principals are in the way.
        let command = format!("authorizedprincipalscommand {program} principals --user=%u");
        let effective = Effective::parse(&format!("usepam yes\npubkeyauthentication yes\n{command}\n"));
        let pam = Some(text(&plan, places::PAM).to_owned());
        let again = Facts { pam, effective, program: "/usr/bin/hallpass-host".to_owned(), ..facts };
        let again = hallpass::enrolment::plan::plan(&again, &wish()).unwrap();
        assert_eq!(text(&again, places::PAM).matches(" guard").count(), 1, "{}", text(&again, places::PAM));
    }
}

#[test]
fn a_cloud_image_whose_own_drop_in_comes_later_changes_nothing() {
    let cloud = BTreeMap::from([("50-cloud-init.conf".to_owned(), "PasswordAuthentication no\n".to_owned())]);
    let plan = plan(&Facts { drop_ins: cloud, ..facts(DEBIAN) }, &wish()).unwrap();
    assert!(paths(&plan).contains(&places::drop_in().as_str()));
}

#[test]
fn where_something_is_read_before_our_file_our_own_line_comes_to_the_top() {
    let early = BTreeMap::from([("00-a.conf".to_owned(), "TrustedUserCAKeys /etc/ssh/hallpass/old\n".to_owned())]);
    let below = "LogLevel DEBUG\nInclude /etc/ssh/sshd_config.d/*.conf\n";
    let in_match = "Match User git\nPermitTTY no\nInclude /etc/ssh/sshd_config.d/*.conf\n";
    for facts in [
        facts(OLD),
        facts(below),
        facts(in_match),
        Facts { drop_ins: early, ..facts(DEBIAN) },
        facts("Include /etc/ssh/sshd_config.d/[0-9]*.conf\n"),
    ] {
        let plan = plan(&facts, &wish()).unwrap();
        let config = text(&plan, places::SSHD_CONFIG);
        let lines: Vec<&str> = config.lines().take(4).collect();
        assert!(lines[0].starts_with("# begin hallpass") && lines[2] == "# end hallpass", "{config}");
        assert_eq!(lines[1], "Include /etc/ssh/hallpass/sshd.conf");
        assert_eq!(texts::without_ours(config), facts.config);
        assert!(text(&plan, places::ASIDE).contains("TrustedUserCAKeys"));
        assert_eq!(paths(&plan).last(), Some(&places::SSHD_CONFIG), "nothing reads our file before it is there");
        let again = Facts { config: config.to_owned(), ..facts };
        assert_eq!(text(&hallpass::enrolment::plan::plan(&again, &wish()).unwrap(), places::SSHD_CONFIG), config);
    }
}

#[test]
fn an_sshd_without_include_gets_the_lines_themselves_and_no_match_that_would_not_end() {
    let facts = Facts { release: Some(Release(8, 0)), ..facts(OLD) };
    let plan = plan(&facts, &wish()).unwrap();
    let config = text(&plan, places::SSHD_CONFIG);
    assert!(config.contains("TrustedUserCAKeys") && !config.contains("Match") && config.ends_with(OLD));
    assert_eq!(texts::without_ours(config), OLD);
}

#[test]
fn a_match_block_that_takes_something_from_us_is_named_with_its_line() {
    let config = format!("{DEBIAN}Match User git\n  AuthorizedPrincipalsFile /etc/ssh/git\nMatch all\n  Banner none\n");
    let plan = plan(&facts(&config), &wish()).unwrap();
    let risk = plan.risks.iter().find(|risk| risk.word == "match").unwrap();
    assert!(
        risk.text.starts_with("/etc/ssh/sshd_config:12: `Match User git` sets AuthorizedPrincipalsFile"),
        "{}",
        risk.text
    );
    assert_eq!(plan.risks.len(), 1);
}

#[test]
fn another_ca_is_only_replaced_when_that_is_wished() {
    let facts =
        saying(DEBIAN, "trustedusercakeys /etc/ssh/other_ca.pub\nauthorizedprincipalsfile /etc/ssh/principals/%u");
    assert_eq!(
        refused(&facts, &wish()),
        [
            "sshd already has TrustedUserCAKeys /etc/ssh/other_ca.pub",
            "sshd already has AuthorizedPrincipalsFile /etc/ssh/principals/%u"
        ]
    );
    let plan = plan(&facts, &Wish { may_replace: true, ..wish() }).unwrap();
    let replaced: Vec<&str> =
        plan.risks.iter().filter(|risk| risk.word == "replaced").map(|risk| risk.text.as_str()).collect();
    assert_eq!(
        replaced,
        [
            "TrustedUserCAKeys /etc/ssh/other_ca.pub is replaced",
            "AuthorizedPrincipalsFile /etc/ssh/principals/%u is replaced"
        ]
    );
    let by_hand = saying(
        DEBIAN,
        "trustedusercakeys /etc/ssh/hallpass/user_ca_keys\nauthorizedprincipalsfile /etc/ssh/hallpass/principals/%u",
    );
    assert!(hallpass::enrolment::plan::plan(&by_hand, &wish()).is_ok(), "set up by hand before");
}

#[test]
fn what_makes_the_guard_impossible_is_refused_unless_it_is_not_wished() {
    let no_pam = saying(DEBIAN, "usepam no");
    assert_eq!(refused(&no_pam, &wish()), ["the guard is not possible: UsePAM is no"]);
    let without = EFFECTIVE.replace("usepam yes\n", "");
    let built_without = Facts { effective: Effective::parse(&without), ..facts(DEBIAN) };
    assert_eq!(refused(&built_without, &wish()), ["the guard is not possible: sshd is built without PAM"]);
    let old = Facts { release: Some(Release(7, 4)), ..facts(OLD) };
    assert_eq!(refused(&old, &wish()), ["the guard is not possible: sshd is older than OpenSSH 7.6"]);
    let no_uid = Facts { pam: Some("session include system-remote-login\n".to_owned()), ..facts(DEBIAN) };
    assert!(refused(&no_uid, &wish())[0].contains("pam_loginuid.so"));
    assert_eq!(refused(&Facts { pam: None, ..facts(DEBIAN) }, &wish()), ["/etc/pam.d/sshd is missing"]);
    for facts in [no_pam, built_without, old, no_uid] {
        let plan = plan(&facts, &Wish { has_guard: false, ..wish() }).unwrap();
        assert!(!paths(&plan).contains(&places::PAM));
        assert!(plan.risks.iter().any(|risk| risk.word == "no-guard"));
    }
}

#[test]
fn leaving_the_guard_out_takes_its_line_out() {
    let with = pam::with_guard(PAM, "/usr/local/bin/hallpass host").unwrap();
    let plan = plan(&Facts { pam: Some(with), ..facts(DEBIAN) }, &Wish { has_guard: false, ..wish() }).unwrap();
    assert_eq!(text(&plan, places::PAM), PAM);
}

#[test]
fn lists_of_who_may_log_in_let_the_host_itself_in() {
    let plan = plan(&saying(DEBIAN, "allowusers alice\nallowusers bob\nallowgroups staff"), &wish()).unwrap();
    let sshd = text(&plan, &places::drop_in());
    assert!(
        sshd.contains("\nAllowUsers hallpass-check\n") && sshd.contains("\nAllowGroups hallpass-check\n"),
        "{sshd}"
    );
}

#[test]
fn a_log_level_that_says_more_is_left_alone() {
    let plan = plan(&saying(DEBIAN, "loglevel DEBUG1"), &wish()).unwrap();
    assert!(!text(&plan, &places::drop_in()).contains("LogLevel"));
}

#[test]
fn everything_in_the_way_is_told_at_once() {
    let facts = Facts {
        missing: ["/etc/ssh/revoked".to_owned()].into(),
        links: ["/etc/ssh/sshd_config".to_owned()].into(),
        program_problem: Some("sshd won't run it".to_owned()),
        has_ssh: false,
        ..saying(DEBIAN, "pubkeyauthentication no\npubkeyacceptedalgorithms ssh-rsa")
    };
    assert_eq!(
        refused(&facts, &wish()),
        [
            "sshd takes no keys and certificates: PubkeyAuthentication is no",
            "sshd takes no Ed25519 certificates (PubkeyAcceptedAlgorithms)",
            "sshd refuses every key, because RevokedKeys names \"/etc/ssh/revoked\" and that is missing",
            "\"/etc/ssh/sshd_config\" is a link: something else manages it",
            "sshd won't run it",
            "there is no `ssh` for the host's login to itself",
        ]
    );
    let broken = Facts { host_toml: Some("nme = 1\n".to_owned()), ..self::facts(DEBIAN) };
    assert!(refused(&broken, &wish())[0].starts_with("/etc/hallpass/host.toml can't be kept"));
}

#[test]
fn settings_that_leave_doors_open_are_named() {
    let more = "authorizedkeysfile .ssh/authorized_keys\npasswordauthentication yes\npermitemptypasswords yes\n\
        permituserenvironment yes\npermittunnel yes\nstrictmodes no\nhostbasedauthentication yes\nauthenticationmethods publickey,password";
    let plan = plan(&saying(DEBIAN, more), &wish()).unwrap();
    let words: Vec<&str> = plan.risks.iter().map(|risk| risk.word).collect();
    assert_eq!(
        words,
        [
            "plain-keys",
            "passwords",
            "empty-passwords",
            "user-environment",
            "tunnels",
            "no-strict-modes",
            "host-based",
            "more-methods"
        ]
    );
}

#[test]
fn what_an_operator_has_put_into_host_toml_stays() {
    let before = "# ours\nname = \"old\"\nothers = \"refuse\"   # on purpose\nrefuse_accounts = [\"root\"]\n";
    let plan = plan(&Facts { host_toml: Some(before.to_owned()), ..facts(DEBIAN) }, &wish()).unwrap();
    let after = text(&plan, places::HOST_TOML);
    let wanted = "# ours\nname = \"web-1\"\ntags = { \"role\" = \"web\" }\nothers = \"refuse\"   # on purpose\nrefuse_accounts = [\"root\"]\n";
    assert_eq!(after, wanted, "each line stays in its place");
    let table = "name = \"old\"\n\n[tags]\nrole = \"db\"\n";
    let plan = hallpass::enrolment::plan::plan(&Facts { host_toml: Some(table.to_owned()), ..facts(DEBIAN) }, &wish())
        .unwrap();
    let settings = Settings::parse(text(&plan, places::HOST_TOML), "host.toml").unwrap();
    assert_eq!(settings.tags.values().next().unwrap().as_str(), "web");
}

#[test]
fn our_file_sorts_before_those_that_cloud_images_ship() {
    assert!(DROP_IN_NAME < "50-cloud-init.conf" && DROP_IN_NAME < "01-permitrootlogin.conf");
}
