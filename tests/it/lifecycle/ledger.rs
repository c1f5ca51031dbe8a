//! Books kept beside a request's history, by other means than the code under test: who said yes to which digest, what
//! was granted, what was certified. Every step taken is entered here, and whatever breaks a promise panics.

use std::collections::{BTreeMap, BTreeSet};

use hallpass::access::{AccessRequest, Command, Grant, Narrowing, Parts, Refusal, Step};
use hallpass::audit::event::Event;
use hallpass::name::{Digest, PersonName};
use hallpass::time::{Lifetime, Timestamp};

use super::world::{BOUND, Shape, World, are_bound, at, person};

/// The published graph (I-12): from, to.
const GRAPH: &[(&str, &str)] = &[
    ("pending", "pending"),
    ("pending", "approved"),
    ("pending", "denied"),
    ("pending", "withdrawn"),
    ("pending", "lapsed"),
    ("approved", "approved"),
    ("approved", "issued"),
    ("approved", "withdrawn"),
    ("approved", "ended"),
    ("approved", "expired"),
    ("issued", "issued"),
    ("issued", "ended"),
    ("issued", "expired"),
];

const TERMINAL: &[&str] = &["denied", "withdrawn", "lapsed", "ended", "expired"];

/// What an approver took off the time of what waited.
fn narrowed_time(command: &Command) -> Option<Lifetime> {
    match command {
        Command::Approve { narrow: Narrowing { lifetime, .. }, .. } => *lifetime,
        Command::Deny { .. }
        | Command::Withdraw { .. }
        | Command::Tick
        | Command::Certify { .. }
        | Command::Extend { .. }
        | Command::End { .. }
        | Command::Cut { .. } => None,
    }
}

/// A request with its history's books.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) world: World,
    /// The policy in force, as the test knows it; `None`: nothing is allowed.
    shape: Option<Shape>,
    /// Who said yes to what.
    yes: BTreeMap<Digest, BTreeSet<PersonName>>,
    /// Which grants were certified.
    certified: BTreeSet<usize>,
}

impl Ledger {
    pub(super) fn new(world: World, shape: Shape) -> Self {
        let ledger = Self { world, shape: Some(shape), yes: BTreeMap::new(), certified: BTreeSet::new() };
        if let Some(grant) = ledger.world.request.grant() {
            assert!(shape.need == 0 && grant.approvers.is_empty(), "granted at once only where nobody must agree");
        }
        ledger
    }

    pub(super) fn switch(&mut self, shape: &Shape, allows: bool) {
        self.world.switch(shape);
        self.shape = allows.then_some(*shape);
    }

    /// What tells this history's future from another's.
    pub(super) fn key(&self) -> String {
        let parts = self.world.request.parts();
        let certified = &self.certified;
        let grants: Vec<_> = parts.grants.iter().map(|g| (g.window, &g.approvers)).collect();
        let extension = parts.extension.as_ref().map(|e| (e.lifetime, e.decide_by, &e.approvals));
        let need = self.shape.map(|shape| (shape.need, shape.sre));
        let terms = (&parts.terms.lifetime, parts.terms.hosts.len(), &parts.terms.options.permits);
        format!("{:?} {grants:?} {extension:?} {terms:?} {certified:?} {need:?} {:?}", parts.state, self.yes.values())
    }

    /// Gives the command, and enters what came of it. `crash`: a permit is lost before it is used.
    pub(super) fn act(&mut self, command: &Command, now: u64, crash: bool) {
        let before = self.world.request.clone();
        let due = before.next_tick().is_some_and(|due| due <= at(now));
        let is_tick = matches!(command, Command::Tick);
        let taken = self.world.try_step(command.clone(), now);
        assert!(!is_tick || taken.is_ok() == due, "a tick does something if and only if something is due");
        match taken {
            Ok(taken) => self.enter(&before, command, taken, now, crash),
            Err(Refusal::Over { state, .. }) => assert!(TERMINAL.contains(&state) || due, "over means over"),
            Err(_) => assert_eq!(self.world.request, before, "a refusal changes nothing"),
        }
    }

    fn enter(&mut self, before: &AccessRequest, command: &Command, taken: Step, now: u64, crash: bool) {
        let after = &taken.request;
        let (from, to) = (before.parts().state.word(), after.parts().state.word());
        let certifies = matches!(command, Command::Certify { .. });
        assert!(GRAPH.contains(&(from, to)), "{from} became {to} by {command:?}");
        assert_eq!(before != after, !taken.events.is_empty(), "events if and only if something changed");
        assert!(taken.permit.is_none() || certifies, "only certify permits");
        assert_eq!(AccessRequest::from_parts(after.parts().clone()).as_ref(), Ok(after), "it can be stored");
        self.enter_narrowing(before.parts(), after.parts(), &taken.events);
        self.enter_approval(after, command, &taken.events);
        if after.parts().grants.len() > before.parts().grants.len() {
            self.enter_grant(before.parts(), after.parts(), command, now);
        } else {
            assert_eq!(before.parts().grants, after.parts().grants, "what was granted stays");
        }
        if let Some(permit) = taken.permit {
            self.check_permit(before, at(now));
            if !crash {
                let event = self.world.use_permit(&permit);
                self.enter_certificate(&event);
            }
        }
    }

    /// Terms only shrink, and only before anything is granted; a change of what is to be approved drops approvals (P4, P5).
    fn enter_narrowing(&self, before: &Parts, after: &Parts, events: &[Event]) {
        let (old, new) = (&before.terms, &after.terms);
        assert!(new.hosts.iter().all(|(host, principal)| old.hosts.get(host) == Some(principal)), "hosts only go");
        assert!(!new.hosts.is_empty() && new.lifetime <= old.lifetime && new.lifetime > Lifetime::ZERO);
        assert!(new.options.permits.is_subset(&old.options.permits), "extensions only go");
        let mut rest = new.clone();
        rest.hosts.clone_from(&old.hosts);
        rest.lifetime = old.lifetime;
        rest.options.permits.clone_from(&old.options.permits);
        assert_eq!(rest, *old, "nothing else of the terms ever changes");
        assert!(new == old || before.grants.is_empty(), "what was granted is not narrowed afterwards");
        let same = Parts {
            terms: old.clone(),
            state: before.state.clone(),
            grants: before.grants.clone(),
            extension: before.extension.clone(),
            ..after.clone()
        };
        assert_eq!(same, *before, "nothing else of the request ever changes");
        let narrowed = events.iter().any(|event| matches!(event, Event::Narrowed { .. }));
        assert!(new == old || narrowed, "a narrowing is an event");
    }

    fn enter_approval(&mut self, after: &AccessRequest, command: &Command, events: &[Event]) {
        for event in events {
            if let Event::Approved { by, digest, .. } = event {
                let Command::Approve { by: caller, .. } = command else { panic!("{command:?} approved") };
                assert!(*by == *caller.person() && *by != person("alice"), "approved by somebody else");
                self.yes.entry(*digest).or_default().insert(by.clone());
            }
        }
        let waiting = match &after.parts().state {
            hallpass::access::State::Pending { approvals, .. } => Some(approvals),
            _ => after.parts().extension.as_ref().map(|extension| &extension.approvals),
        };
        if let Some(approvals) = waiting {
            let yes = self.yes.get(&after.digest()).cloned().unwrap_or_default();
            // Not all of them: who approved an extension that was withdrawn did not approve the same asked again.
            assert!(
                approvals.keys().all(|who| yes.contains(who)),
                "the approvals are of what waits now, and of nothing else"
            );
        }
    }

    /// P1, P4, P5: the window is the approved one, and those who approved it suffice.
    fn enter_grant(&self, before: &Parts, after: &Parts, command: &Command, now: u64) {
        let shape = self.shape.expect("nothing is granted where policy allows nothing");
        let [earlier @ .., grant] = &after.grants[..] else { panic!("no grant") };
        assert_eq!(earlier, before.grants, "one more");
        let backdated = at(now - 30);
        let (start, end, granted) = match (earlier.last(), command) {
            (None, Command::Approve { .. }) => {
                let lifetime = narrowed_time(command).unwrap_or(before.terms.lifetime);
                let begin = before.start.filter(|start| *start > at(now));
                (begin.unwrap_or(backdated), begin.unwrap_or(at(now)).plus(lifetime).unwrap(), lifetime)
            }
            (Some(last), Command::Approve { .. }) => {
                let asked = before.extension.as_ref().expect("an extension waited").lifetime;
                let lifetime = narrowed_time(command).unwrap_or(asked);
                assert!(lifetime <= asked);
                (backdated.max(last.window.start()), last.window.end().plus(lifetime).unwrap(), lifetime)
            }
            (Some(last), Command::Extend { lifetime, .. }) => {
                (backdated.max(last.window.start()), last.window.end().plus(*lifetime).unwrap(), *lifetime)
            }
            _ => panic!("{command:?} granted something"),
        };
        assert_eq!((grant.window.start(), grant.window.end()), (start, end), "the window is the approved one");
        assert!(granted <= Lifetime::minutes(shape.max), "not longer than policy allows");
        Self::check_total(after, &shape);
        if let Command::Extend { .. } = command {
            assert!(grant.approvers.is_empty() && shape.need == 0, "at once only where nobody must agree");
        } else {
            let yes = &self.yes[&grant.digest];
            assert!(grant.approvers.keys().all(|who| yes.contains(who)), "who approved said yes to exactly this");
            assert!(grant.approvers.len() >= shape.need.max(1), "as many as policy asks for");
            assert_eq!(Self::counting(grant, &shape), grant.approvers.len(), "each of them counts");
        }
    }

    /// Everything granted so far, from the first second it could be used, is not more than policy allows in all.
    fn check_total(parts: &Parts, shape: &Shape) {
        let (first, last) = (&parts.grants[0], parts.grants.last().unwrap());
        let held = last.window.end().seconds_since(first.approved.max(first.window.start()));
        assert!(held <= u64::from(shape.total) * 60, "not longer in all than policy allows");
    }

    /// How many of a grant's approvers count under this policy (I-6), counted in the plainest way.
    fn counting(grant: &Grant, shape: &Shape) -> usize {
        grant.approvers.keys().filter(|who| shape.sre.contains(&who.as_str()) && who.as_str() != "alice").count()
    }

    /// I-6, I-11, P3, P6 at the moment a certificate may be made.
    fn check_permit(&self, before: &AccessRequest, now: Timestamp) {
        let word = before.parts().state.word();
        assert!(word == "approved" || word == "issued", "a permit for what is {word}");
        let shape = self.shape.expect("nothing is certified where policy allows nothing");
        let grant = before.grant().expect("something was granted");
        assert!(Self::counting(grant, &shape) >= shape.need, "too few who count now: {grant:?}");
        assert!(now < grant.window.end(), "not after its end");
        assert!(shape.rule != BOUND.rule || are_bound(&before.parts().terms.options), "bound as policy demands now");
        Self::check_total(before.parts(), &shape);
        let granted = match &before.parts().grants[..] {
            [.., earlier, last] => last.window.end().seconds_since(earlier.window.end()),
            _ => before.parts().terms.lifetime.seconds().into(),
        };
        assert!(granted <= Lifetime::minutes(shape.max).seconds().into(), "not longer than policy allows now");
        assert!(!self.certified.contains(&(before.parts().grants.len() - 1)), "one grant, one certificate");
    }

    fn enter_certificate(&mut self, event: &Event) {
        let parts = self.world.request.parts();
        assert_eq!(parts.state.word(), "issued");
        let grant = parts.grants.last().unwrap();
        let certified = grant.certificate.as_ref().expect("the certificate is kept");
        let fields = certified.tbs.fields();
        assert_eq!(fields.window, grant.window, "to the second (P1)");
        assert_eq!(fields.principals, parts.terms.hosts.values().cloned().collect(), "exactly those hosts (P4)");
        assert_eq!(fields.options, parts.terms.options);
        assert_eq!((certified.tbs.subject(), fields.serial.number()), (&parts.key, self.world.serial));
        let Event::CertificateToBeSigned { tbs, .. } = event else { panic!("{event:?}") };
        assert_eq!(tbs.as_slice(), certified.tbs.bytes(), "the entry holds the bytes to be signed (P2)");
        assert!(self.certified.insert(parts.grants.len() - 1), "one grant, one certificate (P3)");
        let again = AccessRequest::from_parts(parts.clone());
        assert_eq!(again.as_ref(), Ok(&self.world.request), "it can be stored");
    }
}
