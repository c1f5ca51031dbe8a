//! A secret in the JSON of the API: sent as text, and shown by nothing else.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A token in clear: text where text is asked for. Whoever prints what it stands in sees none of it, and has to ask for the text to print that;
/// it is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl std::ops::Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<SecretString> for Secret {
    fn from(secret: SecretString) -> Self {
        Self(secret)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Secret> for SecretString {
    fn from(Secret(secret): Secret) -> Self {
        secret
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use crate::wire::{NewSession, SignIn, host};

    /// What is printed of a value that came as this JSON; it goes on as it came.
    fn printed<T: DeserializeOwned + serde::Serialize + std::fmt::Debug>(value: &Value) -> [String; 2] {
        let read: T = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), *value);
        [format!("{read:?}"), format!("{read:#?}")]
    }

    #[test]
    fn what_holds_a_token_can_be_printed_and_shows_none_of_it() {
        let token = "hpx_Abc-123";
        let state = json!({
            "etag": "", "name": "", "tags": [], "names": [], "bundle": { "version": 1, "text": "" }, "grants": [], "certificates": [],
            "lost": [], "is_retired": false,
        });
        let join = json!({
            "id": "", "state": "", "by": "", "created": "", "expires": "", "uses": 1, "hosts": [], "names": [], "tags": [], "may_tag": null,
        });
        let about = json!({ "program": "", "sshd": "", "os": "" });
        let all = [
            printed::<NewSession>(&json!({ "token": token, "person": "alice", "expires": "" })),
            printed::<SignIn>(&json!({ "token": token, "expires": "" })),
            printed::<host::Enrol>(&json!({
                "token": token, "name": "", "tags": [], "names": [], "challenge": "", "keys": [], "about": about,
            })),
            printed::<host::Enrolled>(
                &json!({ "host": "", "state": state, "token": token, "expires": "", "log_key": "" }),
            ),
            printed::<host::HostToken>(&json!({ "token": token, "expires": "", "log_key": "" })),
            printed::<host::NewJoin>(&json!({ "join": join, "token": token })),
        ];
        for text in all.concat() {
            assert!(text.contains("Secret(hidden)") && !text.contains("Abc"), "{text}");
        }
    }
}
