//! Every way to stay that we know of, side by side in one window: all of it is gone two seconds after the end.

use std::time::Duration;

use super::site::{Due, GuardedHost, More, since, soon, still, wait_until};
use super::staying::{Kind, Stay, echoes};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_is_there_two_seconds_after_its_window() {
    if !GuardedHost::can_be_had() {
        return;
    }
    let host = GuardedHost::start(&More::default()).await;
    let end = soon(30);
    let pass = host.pass(end);
    let mut stays: Vec<(Kind, Stay)> = Vec::new();
    for kind in Kind::ALL {
        stays.push((kind, Stay::start(&host, &pass, kind, 0).await));
    }
    let connections = Kind::ALL.len();
    assert_eq!((host.records().len(), host.watchers()), (connections, connections), "one for each connection");

    wait_until(end, -400).await;
    let due = Due::at(end);
    for (kind, stay) in &mut stays {
        still(end, kind.name(), || stay.is_there());
    }
    while !(stays.iter_mut().all(|(_, stay)| stay.is_over()) && host.processes().is_empty()) {
        let left = stays.iter_mut().filter_map(|(kind, stay)| (!stay.is_over()).then_some(*kind)).collect::<Vec<_>>();
        assert!(!due.is_over(), "still there: {left:?} {:?} {:?}", host.processes(), host.records());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("everything was gone {} ms after the end", since(end));
    // The watchers put that down, and go too.
    while !host.records().is_empty() || host.watchers() > 0 {
        assert!(since(end) < 20_000, "{:?}", host.records());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (kind, stay) in &mut stays {
        assert!(stay.line.as_mut().is_none_or(|line| !echoes(line.as_mut())), "{kind:?}");
    }
    let (_, shell) = stays.into_iter().find(|(kind, _)| *kind == Kind::Shell).unwrap();
    let (code, said) = shell.clients.into_iter().next().unwrap().finish().await;
    assert_eq!(code, 255);
    assert!(
        said.contains("[hallpass] access to web-1 ended ")
            && said.contains(", HP-207\r")
            && said.contains("hallpass ssh web-1\r"),
        "{said:?}"
    );
    let (code, _) = host.ssh(&pass, "true").await;
    assert_eq!(code, 255, "the next login is refused");
    assert!(host.logs().contains("Certificate invalid: expired"), "{}", host.logs());
}
