//! How requests are found: filters, prefixes, limits, what is due, what is open. Run by `contract` on each database.

use std::collections::BTreeMap;

use hallpass::access::{self, Command};
use hallpass::name::RequestPrefix;
use hallpass::store::{LIST_MAX, RequestFilter, Store};

use super::contract::one_of_each;
use super::{Database, Desk, change, event};
use crate::support::fixtures::{at, host, id, person, states};

async fn ids(store: &dyn Store, filter: RequestFilter) -> Vec<String> {
    let found = store.requests(RequestFilter { limit: LIST_MAX, ..filter }).await.unwrap();
    found.iter().map(|stored| stored.request.id().to_string()).collect()
}

pub(super) async fn requests_are_found_by_each_filter(database: &dyn Database) {
    let desk = Desk::new(database).await;
    desk.ask(id(1), "alice@example.com", &["web-1", "web-2"], at(0)).await;
    desk.ask(id(2), "ann@example.com", &["web-2"], at(10)).await;
    desk.ask(id(3), "ann@example.com", &["dev-1"], at(20)).await;
    desk.ask(id(4), "alice@example.com", &["dev-1"], at(20)).await;
    let shown = |numbers: &[u32]| numbers.iter().map(|n| id(*n).to_string()).collect::<Vec<_>>();
    let none = RequestFilter::default;
    assert_eq!(ids(&*desk.store, none()).await, shown(&[4, 3, 2, 1]));
    let asker = Some(person("ann@example.com"));
    assert_eq!(ids(&*desk.store, RequestFilter { asker: asker.clone(), ..none() }).await, shown(&[3, 2]));
    let by_state = |words: &[&'static str]| RequestFilter { states: states(words), ..none() };
    assert_eq!(ids(&*desk.store, by_state(&["pending"])).await, shown(&[2, 1]));
    assert_eq!(ids(&*desk.store, by_state(&["pending", "approved"])).await, shown(&[4, 3, 2, 1]));
    assert_eq!(ids(&*desk.store, by_state(&["issued"])).await, shown(&[]));
    let on = |name: &str| RequestFilter { host: Some(host(name)), ..none() };
    assert_eq!(ids(&*desk.store, on("web-2")).await, shown(&[2, 1]));
    assert_eq!(ids(&*desk.store, on("web-3")).await, shown(&[]));
    assert_eq!(ids(&*desk.store, RequestFilter { since: Some(at(10)), ..none() }).await, shown(&[4, 3, 2]));
    let all = RequestFilter { asker, host: Some(host("web-2")), states: states(&["pending"]), ..none() };
    assert_eq!(ids(&*desk.store, all).await, shown(&[2]));
}

pub(super) async fn a_host_that_was_narrowed_away_finds_the_request_no_more(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let asked = desk.ask(id(1), "alice@example.com", &["web-1", "web-2"], at(0)).await;
    let mut approval = desk.house.approval(&asked.request, "bob@example.com");
    let Command::Approve { narrow, .. } = &mut approval else { panic!("not an approval") };
    narrow.only = Some([host("web-2")].into());
    let narrowed = access::step(asked.request, approval, at(1)).unwrap();
    desk.save(narrowed, asked.version, at(1)).await.unwrap();
    let on = async |name: &str| {
        let filter = RequestFilter { host: Some(host(name)), ..RequestFilter::default() };
        ids(&*desk.store, filter).await.len()
    };
    assert_eq!((on("web-1").await, on("web-2").await), (0, 1));
}

pub(super) async fn requests_are_found_by_prefix(database: &dyn Database) {
    let desk = Desk::new(database).await;
    // 0x00000100 00 and 0x00000200 00 begin with "0000"; 0xffffffff 00 with "ZZZZ".
    for n in [0x0000_0100, 0x0000_0200, 0xffff_ffff] {
        desk.approved(id(n), at(0)).await;
    }
    let found = async |text: &str| {
        let prefix = Some(RequestPrefix::parse(text).unwrap());
        ids(&*desk.store, RequestFilter { prefix, ..RequestFilter::default() }).await
    };
    assert_eq!(found("0000").await.len(), 2);
    assert_eq!(found("Z").await, vec![id(0xffff_ffff).to_string()]);
    assert_eq!(found(&id(0x0000_0100).to_string()).await, vec![id(0x0000_0100).to_string()]);
    assert_eq!(found("7").await, Vec::<String>::new());
}

pub(super) async fn lists_have_a_limit(database: &dyn Database) {
    let desk = Desk::new(database).await;
    for n in 0..5 {
        desk.approved(id(n), at(u64::from(n))).await;
    }
    let limited = |limit| RequestFilter { limit, ..RequestFilter::default() };
    let newest = desk.store.requests(limited(2)).await.unwrap();
    assert_eq!(newest.iter().map(|stored| stored.request.id()).collect::<Vec<_>>(), vec![id(4), id(3)]);
    assert_eq!(desk.store.requests(limited(0)).await.unwrap(), vec![]);
    assert_eq!(desk.store.requests(limited(usize::MAX)).await.unwrap().len(), 5);
    for _ in 0..3 {
        desk.store.commit(change(at(9), vec![], vec![event(); 400])).await.unwrap();
    }
    assert_eq!(desk.store.entries(0, usize::MAX).await.unwrap().len(), LIST_MAX);
    assert_eq!(desk.store.entries(u64::MAX, 1).await.unwrap(), Vec::<Vec<u8>>::new());
}

pub(super) async fn due_requests_come_earliest_first(database: &dyn Database) {
    let desk = Desk::new(database).await;
    let mut ticks = BTreeMap::new();
    for (n, asked) in [(1, 300), (2, 100), (3, 200)] {
        let stored = desk.ask(id(n), "alice@example.com", &["web-1"], at(asked)).await;
        ticks.insert(stored.request.next_tick().unwrap(), id(n));
    }
    let (first, last) = (*ticks.first_key_value().unwrap().0, *ticks.last_key_value().unwrap().0);
    let due = async |now, limit| {
        let found = desk.store.due(now, limit).await.unwrap();
        found.iter().map(|stored| stored.request.id()).collect::<Vec<_>>()
    };
    assert_eq!(due(at(0), 10).await, vec![]);
    assert_eq!(due(first, 10).await, vec![id(2)]);
    assert_eq!(due(last, 10).await, vec![id(2), id(3), id(1)]);
    assert_eq!(due(last, 2).await, vec![id(2), id(3)]);
    let stored = desk.request(id(2)).await;
    let lapsed = desk.house.tick(stored.request, first);
    desk.save(lapsed, stored.version, first).await.unwrap();
    assert_eq!(due(last, 10).await, vec![id(3), id(1)]);
}

pub(super) async fn what_is_open_is_counted_and_found_by_its_key(database: &dyn Database) {
    let desk = Desk::new(database).await;
    one_of_each(&desk).await;
    let alice = person("alice@example.com");
    let all = RequestFilter { asker: Some(alice.clone()), limit: LIST_MAX, ..RequestFilter::default() };
    let requests = desk.store.requests(all).await.unwrap();
    let is_open = |stored: &hallpass::store::Stored| {
        ["pending", "approved", "issued"].contains(&stored.request.parts().state.word())
    };
    let mut with_key = 0;
    for stored in &requests {
        let open = desk.store.open_of(alice.clone(), stored.request.parts().key.clone()).await.unwrap();
        // Pending, approved, issued, and issued with an extension that waits.
        assert_eq!(open.count, 4);
        assert_eq!(open.with_key.contains(stored), is_open(stored), "{:?}", stored.request.parts().state);
        assert!(open.with_key.iter().all(|other| other.request.parts().key == stored.request.parts().key));
        with_key += usize::from(is_open(stored));
    }
    assert_eq!(with_key, 4);
    let key = requests.first().unwrap().request.parts().key.clone();
    let none = desk.store.open_of(person("ann@example.com"), key).await.unwrap();
    assert_eq!((none.count, none.with_key.len()), (0, 0), "somebody else's");
}
