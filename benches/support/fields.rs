//! What a usual user certificate says: two hosts, a network, a task instead of a shell.

use hallpass::name::{PersonName, Principal, RequestId, Serial};
use hallpass::ssh::cert::{Extension, Fields, ForceCommand, KeyId, Options};
use hallpass::time::{Timestamp, Window};

pub(crate) fn usual() -> Fields {
    let request = RequestId::parse("7K3F-9QX2").unwrap();
    let moment = |text| Timestamp::parse(text).unwrap();
    Fields {
        serial: Serial::new(42).unwrap(),
        key_id: KeyId::new(&request, &PersonName::parse("alice@example.com").unwrap()).unwrap(),
        principals: ["deploy@web-1", "deploy@web-2"].map(|text| Principal::parse(text).unwrap()).into(),
        window: Window::new(moment("2026-01-05T09:59:30Z"), moment("2026-01-05T10:30:00Z")).unwrap(),
        options: Options {
            force_command: Some(ForceCommand::parse("journalctl -n 1000 -u api").unwrap()),
            source_addresses: ["10.0.0.0/8".parse().unwrap()].into(),
            verify_required: false,
            permits: [Extension::Pty].into(),
        },
    }
}
