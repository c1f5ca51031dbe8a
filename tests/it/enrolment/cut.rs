//! Killed at every step, on a full disk, in a folder that can't be written: sshd accepts what it accepted before, and the next command
//! takes back what was done.
//!
//! Without the `failpoints` feature the program can't die at a point, and only the rest is shown.

use super::host::{Host, said};
use super::service::Service;

#[cfg(feature = "failpoints")]
/// Runs hallpass, which must die by its fail point; false once it passes that point less often than `nth`.
fn dies(host: &Host, words: &[&str], point: &str, nth: u32) -> bool {
    let ran = host.hallpass(words, Some(&format!("{point}:{nth}")));
    // `nsenter` becomes the program, so its end by a signal is ours to see.
    match std::os::unix::process::ExitStatusExt::signal(&ran.status) {
        Some(_) => true,
        None => {
            assert!(ran.status.success(), "{point}:{nth}: {}", said(&ran));
            false
        }
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_enrolling_or_leaving_sshd_goes_on_and_the_next_command_takes_it_back() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = Service::start();
    let host = Host::start("");
    let (plain, before) = (host.plain_key(), host.snapshot());
    let token = service.join_token().await;
    let enrol = service.enrol("web-1", &token);
    let enrol: Vec<&str> = enrol.iter().map(String::as_str).collect();
    let leave = ["host", "leave", "--yes"];
    let opens = || host.opens(&plain);
    let back = ["enrolment.file.restored", "enrolment.sshd.restored", "enrolment.account.removed"];
    let points: Vec<&str> = hallpass::fail::POINTS
        .iter()
        .copied()
        .filter(|point| point.starts_with("enrolment.") && !back.contains(point))
        .collect();
    assert!(points.len() > 7);
    for point in points {
        service.forget_rates();
        // Before the n-th file is after the one before it.
        let most = if point == "enrolment.file.before" { 1 } else { 20 };
        for nth in 1..=most {
            let has_died = dies(&host, &enrol, point, nth);
            assert!(opens(), "after {point}:{nth}\n{}", host.last_log());
            let ran = host.hallpass(&leave, None);
            // Nothing was begun, or it was done to the end.
            let is_fine = ran.status.success() || (point == "enrolment.journal.before" && ran.status.code() == Some(7));
            assert!(is_fine, "after {point}:{nth}: {}", said(&ran));
            assert!(opens(), "after {point}:{nth} and leaving\n{}", host.last_log());
            host.same_as(&before, &format!("after {point}:{nth}"));
            if !has_died {
                assert!(nth > 1, "{point} is never passed");
                break;
            }
        }
    }
    for point in back {
        for nth in 1..=20 {
            service.forget_rates();
            host.ok(&enrol);
            let has_died = dies(&host, &leave, point, nth);
            assert!(opens(), "after {point}:{nth}\n{}", host.last_log());
            if has_died && nth % 2 == 0 {
                // Enrolling again is as good a way on as leaving again.
                host.ok(&enrol);
            }
            let ran = host.hallpass(&leave, None);
            // What was done to the end leaves nothing to be done.
            assert!(ran.status.code() == Some(if has_died { 0 } else { 7 }), "{}", said(&ran));
            assert!(opens(), "after {point}:{nth} and leaving\n{}", host.last_log());
            host.same_as(&before, &format!("after {point}:{nth}"));
            if !has_died {
                assert!(nth > 1, "{point} is never passed");
                break;
            }
        }
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn leaving_again_after_it_was_cut_short_knows_what_the_service_was_told() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = Host::start("");
    let token = service.join_token().await;
    let enrol = service.enrol("web-1", &token);
    let enrol: Vec<&str> = enrol.iter().map(String::as_str).collect();
    let leave = ["host", "leave", "--yes"];
    let leaves = |times: usize| {
        let ran = host.hallpass(&leave, None);
        let told = said(&ran);
        assert!(ran.status.success() && told.contains("web-1 has left"), "{times}: {told}");
        assert!(!told.contains("was not told"), "{times}: {told}");
        let found = service.run("omar", &["audit", "search", "kind:host_left"]);
        assert_eq!(found.matches("web-1").count(), times, "{found}");
    };
    // The files that say where the service is are there still, and are not.
    for (point, times) in [("enrolment.file.restored", 1), ("enrolment.account.removed", 2)] {
        host.ok(&enrol);
        assert!(dies(&host, &leave, point, 1));
        leaves(times);
    }
    // Enrolled again in between, it has to be told again.
    host.ok(&enrol);
    assert!(dies(&host, &leave, "enrolment.sshd.restored", 1));
    host.ok(&enrol);
    leaves(4);
    // And what was never finished, and of which the service has heard, is told once, too.
    assert!(dies(&host, &enrol, "enrolment.sshd.reloaded", 1));
    assert!(dies(&host, &leave, "enrolment.file.restored", 1));
    leaves(5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_does_not_work_a_full_disk_and_a_folder_that_is_read_only_leave_the_host_as_it_was() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = Host::start("");
    let (plain, before) = (host.plain_key(), host.snapshot());
    let token = service.join_token().await;
    let enrol = service.enrol("web-1", &token);
    let enrol: Vec<&str> = enrol.iter().map(String::as_str).collect();
    let fails = |why: &str| {
        let ran = host.hallpass(&enrol, None);
        let told = said(&ran);
        assert!(ran.status.code() == Some(7) && told.contains(why), "{why}: {told}");
        assert!(host.opens(&plain), "{}", host.last_log());
    };
    let run = |script: &str| assert!(host.command("sh", &["-c", script]).status().unwrap().success(), "{script}");

    // sshd would let it in, but PAM does not: the guard is not the last word on that.
    host.edit("pam.d/sshd", |text| format!("account required pam_succeed_if.so quiet user != hallpass-check\n{text}"));
    let with_rule = host.snapshot();
    fails("everything was taken back");
    host.same_as(&with_rule, "PAM says no");
    host.edit("pam.d/sshd", |text| text.split_once('\n').unwrap().1.to_owned());

    run("mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs /var/lib");
    fails("nothing was changed");
    run("umount /var/lib");
    host.same_as(&before, "as before");

    run("mkdir -p /etc/hallpass && mount -t tmpfs -o ro tmpfs /etc/hallpass");
    fails("everything was taken back");
    run("umount /etc/hallpass && rmdir /etc/hallpass");
    host.same_as(&before, "as before");

    // Full from somewhere in the middle on, wherever that is.
    for inodes in [2, 3, 4, 5, 6] {
        run(&format!(
            "mkdir -p /etc/ssh/hallpass && mount -t tmpfs -o size=64k,nr_inodes={inodes} tmpfs /etc/ssh/hallpass"
        ));
        let ran = host.hallpass(&enrol, None);
        let told = said(&ran);
        assert!(ran.status.success() || told.contains("everything was taken back"), "{inodes}: {told}");
        if ran.status.success() {
            host.ok(&["host", "leave", "--yes"]);
        }
        run("umount /etc/ssh/hallpass && rmdir /etc/ssh/hallpass");
        host.same_as(&before, &format!("{inodes} inodes"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_as_it_should_be_is_refused_before_a_token_is_spent() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = Host::start("UsePAM no\nTrustedUserCAKeys /etc/ssh/other_ca.pub\n");
    host.edit("ssh/other_ca.pub", |_| {
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHIBhRMqm0neetlc+9GLlCsZ2A8dbr28+jMjERrCV98r\n".to_owned()
    });
    let before = host.snapshot();
    let token = service.join_token().await;
    let enrol = service.enrol("web-1", &token);
    let enrol: Vec<&str> = enrol.iter().map(String::as_str).collect();
    let ran = host.hallpass(&enrol, None);
    let told = said(&ran);
    assert_eq!(ran.status.code(), Some(7), "{told}");
    for text in ["UsePAM is no", "--no-guard", "sshd already has TrustedUserCAKeys /etc/ssh/other_ca.pub", "--replace"]
    {
        assert!(told.contains(text), "{text}: {told}");
    }
    host.same_as(&before, "as before");
    let joins: hallpass::wire::host::Joins = service.client().get("/v1/hosts/joins").await.unwrap();
    assert!(joins.joins.iter().all(|join| join.hosts.is_empty()));
    // With both wishes it goes, on an sshd without PAM, above the lines that were first.
    let done = host.ok(&[&enrol[..], &["--no-guard", "--replace"]].concat());
    assert!(done.contains("TrustedUserCAKeys /etc/ssh/other_ca.pub is replaced"), "{done}");
    let seen = service.host("web-1").await.seen.unwrap();
    assert_eq!((seen.guard, seen.trust.as_str()), (false, "proven"));
    host.ok(&["host", "leave", "--yes"]);
    host.same_as(&before, "as before");
}
