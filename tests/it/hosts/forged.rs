//! Whoever can write the database, but has no key of the service, enrols no host, changes none, and brings no token back.

use hallpass::service::Failure;
use hallpass::store::head_file::{HeadFile, KeptHead as _};
use rusqlite::{Connection, params};

use super::machine::{Machine, join, site};
use crate::api::site::{Site, problem};

/// Stops the service, lets somebody write into its database, and starts it anew.
async fn after(site: &mut Site, write: impl FnOnce(&Connection)) -> Result<(), Failure> {
    site.stop().await;
    site.world.stop();
    let conn = Connection::open(site.world.database()).unwrap();
    write(&conn);
    drop(conn);
    site.world.try_start(None).await
}

/// A site with a host that was retired, another that was not, and a revoked token.
async fn town() -> (Site, String) {
    let site = site().await;
    let token = join(&site, &["app-*"], 10).await.token;
    Machine::new("app-1", &[60]).join(&site, &token).await;
    Machine::new("app-2", &[61]).join(&site, &token).await;
    let omar = site.logged_in("omar").await;
    let why = hallpass::wire::Why { reason: "stolen".into() };
    let _unused: hallpass::wire::host::HostDetail = omar.post("/v1/hosts/app-1/retire", &why).await.unwrap();
    let revoked = join(&site, &["*"], 10).await;
    omar.delete(&format!("/v1/hosts/joins/{}", revoked.join.id)).await.unwrap();
    (site, revoked.token.to_string())
}

#[tokio::test]
async fn entries_that_are_changed_hidden_added_or_taken_for_others_stop_the_start() {
    let changes: [(&str, &str); 7] = [
        ("hide the end of a host", "UPDATE log_entry SET kind = 'logged_out' WHERE kind = 'host_retired'"),
        ("hide the end of a token", "UPDATE log_entry SET kind = 'logged_out' WHERE kind = 'join_revoked'"),
        (
            "hide one, and call another one so",
            "UPDATE log_entry SET kind = CASE kind WHEN 'host_retired' THEN 'x' ELSE 'host_retired' END
             WHERE kind = 'host_retired' OR number = 2",
        ),
        (
            "change tags",
            "UPDATE log_entry SET bytes = cast(replace(cast(bytes AS TEXT), '\"tags\":[]', '\"tags\":[\"role=db\"]') AS BLOB)
             WHERE kind = 'host_enrolled'",
        ),
        ("take one away", "DELETE FROM log_entry WHERE kind = 'host_retired'"),
        ("count anew", "UPDATE log_head SET inventory = inventory - 1"),
        (
            "add one",
            "INSERT INTO log_entry (number, at, kind, bytes)
             SELECT (SELECT max(number) + 1 FROM log_entry), at, kind, bytes FROM log_entry WHERE kind = 'host_enrolled' LIMIT 1",
        ),
    ];
    for (what, sql) in changes {
        let (mut site, _) = town().await;
        let started = after(&mut site, |conn| {
            assert!(conn.execute(sql, []).unwrap() > 0, "{what}");
        })
        .await;
        assert!(started.is_err(), "{what}");
    }
}

#[tokio::test]
async fn a_retired_host_and_a_revoked_token_stay_what_they_are_whatever_the_tables_say() {
    let (mut site, revoked) = town().await;
    after(&mut site, |conn| {
        conn.execute("DELETE FROM host_session", []).unwrap();
        conn.execute("DELETE FROM host_seen", []).unwrap();
        conn.execute("DELETE FROM host_report", []).unwrap();
    })
    .await
    .unwrap();
    site.start().await;
    let ada = site.logged_in("ada").await;
    let host: hallpass::wire::host::HostDetail = ada.get("/v1/hosts/app-1").await.unwrap();
    assert_eq!(host.state, "retired");
    let refused = problem(Machine::new("app-9", &[69]).enrol(&site, &revoked).await);
    assert_eq!(refused.code, "join_refused");
}

#[tokio::test]
async fn a_host_session_that_somebody_else_wrote_proves_nothing() {
    use secrecy::ExposeSecret as _;
    let (mut site, _) = town().await;
    let (token, hash) = hallpass::identity::host::mint_host([7; 32]);
    let key = Machine::new("app-2", &[61]).keys[0].public_key().fingerprint().to_string();
    let opened = i64::try_from(site.world.now().unix()).unwrap();
    after(&mut site, |conn| {
        let sql = "INSERT INTO host_session (token, host, key, opened, seal) VALUES (?1, 'app-2', ?2, ?3, ?4)";
        conn.execute(sql, params![hash.0, key, opened, [0_u8; 32]]).unwrap();
    })
    .await
    .unwrap();
    site.start().await;
    let host = site.client(Some(token.expose_secret()));
    let refused = host.get::<hallpass::wire::host::State>("/v1/hosts/self/state").await;
    assert_eq!(problem(refused).code, "not_logged_in");
}

#[tokio::test]
async fn a_forged_host_certificate_is_not_shown_to_the_host() {
    use hallpass::wire::host as wire;
    let (mut site, _) = town().await;
    let (machine, other) = (Machine::new("app-2", &[61]), Machine::new("app-3", &[63]));
    let _other = other.join(&site, &join(&site, &["app-3"], 1).await.token).await;
    let host = site.client(Some(&machine.session(&site).await.unwrap().token));
    let keys = vec![machine.keys[0].public_key().to_openssh()];
    let made: wire::HostCertificates =
        host.post("/v1/hosts/certificates", &wire::CertificatesFor { keys }).await.unwrap();
    // Its own certificate under another host's name, and a damaged one.
    after(&mut site, |conn| {
        let sql = "INSERT INTO host_certificate (host, key, line) VALUES ('app-3', 'x', ?1), ('app-2', 'y', ?2)";
        conn.execute(sql, params![made.certificates[0], made.certificates[0].replace("AAAA", "AAAB")]).unwrap();
    })
    .await
    .unwrap();
    site.start().await;
    for (machine, count) in [(other, 0), (machine, 1)] {
        let host = site.client(Some(&machine.session(&site).await.unwrap().token));
        let state: wire::State = host.get("/v1/hosts/self/state").await.unwrap();
        assert_eq!(state.certificates.len(), count, "{}", machine.name);
    }
}

#[tokio::test]
async fn a_use_of_a_join_token_is_covered_by_the_kept_checkpoint_once_it_is_answered() {
    let site = site().await;
    let token = join(&site, &["app-*"], 1).await.token;
    Machine::new("app-1", &[60]).join(&site, &token).await;
    let size = site.world.service().checkpoint().await.unwrap().1;
    let kept = HeadFile::new(site.world.folder.path().join("head")).read().unwrap();
    let sizes = kept.iter().map(|note| note.lines().nth(1).unwrap().parse().unwrap());
    assert_eq!(sizes.max(), Some(size), "an older copy would give it back unseen");
}
