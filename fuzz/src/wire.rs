//! HTTP bodies: what the service reads of clients and hosts, and what these read of the service.

use hallpass::wire;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A body. Every type of ours tries it.
pub fn bodies(data: &[u8]) -> bool {
    let requests = [
        request::<wire::LoginAnswer>(data),
        request::<wire::Ask>(data),
        request::<wire::Approve>(data),
        request::<wire::ApprovalSignature>(data),
        request::<wire::Why>(data),
        request::<wire::Extend>(data),
        request::<wire::PutPolicy>(data),
        request::<wire::ca::Rotate>(data),
        request::<wire::host::ChallengeFor>(data),
        request::<wire::host::Enrol>(data),
        request::<wire::host::SessionAnswer>(data),
        request::<wire::host::CheckIn>(data),
        request::<wire::host::SessionEvents>(data),
        request::<wire::host::CertificatesFor>(data),
        request::<wire::host::CheckCertificateFor>(data),
        request::<wire::host::Nothing>(data),
        request::<wire::host::JoinFor>(data),
        request::<wire::host::SetTags>(data),
    ];
    let answers = [
        answer::<wire::Challenge>(data),
        answer::<wire::NewSession>(data),
        answer::<wire::SignIn>(data),
        answer::<wire::WhoAmI>(data),
        answer::<wire::Request>(data),
        answer::<wire::Requests>(data),
        answer::<wire::Certificate>(data),
        answer::<wire::Verdict>(data),
        answer::<wire::Hosts>(data),
        answer::<wire::PolicyApplied>(data),
        answer::<wire::PolicyVersions>(data),
        answer::<wire::Checkpoint>(data),
        answer::<wire::Entries>(data),
        answer::<wire::Proof>(data),
        answer::<wire::Problem>(data),
        answer::<wire::ca::Keys>(data),
        answer::<wire::host::HostChallenge>(data),
        answer::<wire::host::Enrolled>(data),
        answer::<wire::host::HostToken>(data),
        answer::<wire::host::State>(data),
        answer::<wire::host::Taken>(data),
        answer::<wire::host::HostCertificates>(data),
        answer::<wire::host::CheckCertificate>(data),
        answer::<wire::host::NewJoin>(data),
        answer::<wire::host::Joins>(data),
        answer::<wire::host::HostDetail>(data),
        answer::<wire::host::Inventory>(data),
    ];
    requests.contains(&true) || answers.contains(&true)
}

/// What is taken is written and read to the same.
fn answer<T: Serialize + DeserializeOwned>(data: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(data) else { return false };
    let written = serde_json::to_vec(&value).expect("a value of ours is written");
    let again: T = serde_json::from_slice(&written).expect("what is written is read");
    assert_eq!(serde_json::to_vec(&again).expect("a value of ours is written"), written);
    true
}

/// The same, and a member that nobody knows is refused.
fn request<T: Serialize + DeserializeOwned>(data: &[u8]) -> bool {
    if !answer::<T>(data) {
        return false;
    }
    if let Ok(Value::Object(mut members)) = serde_json::from_slice(data) {
        members.insert("nobody_knows".to_owned(), Value::Null);
        let more = serde_json::to_vec(&members).expect("JSON is written");
        assert!(serde_json::from_slice::<T>(&more).is_err(), "an unknown member was passed over");
    }
    true
}
