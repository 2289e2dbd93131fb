//! The grammar of one `--listen`: `FRONTEND=URL[,KEY=VALUE…]`.

use std::fmt::Write;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::frontend::{self, Frontend, FrontendDesc, Setting, SettingError};
use crate::listener::{Address, AddressError};

/// One `--listen`, parsed and checked.
#[derive(Debug, Clone)]
pub struct ListenSpec {
    desc: &'static FrontendDesc,
    address: Address,
    settings: Vec<Setting>,
    frontend: Arc<dyn Frontend>,
}

/// Why a text is no [`ListenSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListenSpecError {
    /// No `FRONTEND=` in front, or an unknown one.
    #[error("write {}", forms())]
    Frontend,
    /// The URL cannot be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Something behind the URL is no `KEY=VALUE`.
    #[error("{0:?} is not KEY=VALUE")]
    NoSetting(String),
    /// The frontend has no such key.
    #[error("unknown key {key:?}: {frontend} knows {known}")]
    UnknownKey {
        /// The key as given.
        key: String,
        /// The frontend's name.
        frontend: &'static str,
        /// The keys that it has.
        known: String,
    },
    /// A key stands twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// The frontend does not accept a value.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

// === impl ListenSpec ===

impl ListenSpec {
    /// CONNECT at this address.
    pub(super) fn connect(address: Address) -> Self {
        Self {
            desc: &frontend::connect::DESC,
            address,
            settings: Vec::new(),
            frontend: frontend::connect::new(),
        }
    }

    /// The address as written.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The application protocols (ALPN) of its frontend over TLS.
    pub(super) fn alpn(&self) -> &'static [&'static [u8]] {
        self.desc.alpn
    }

    /// What speaks there.
    pub fn frontend(&self) -> &Arc<dyn Frontend> {
        &self.frontend
    }

    /// The text of this with another address in place of the written one.
    pub(super) fn at(&self, address: &Address) -> String {
        let mut text = format!("{}={address}", self.desc.name);
        for Setting { key, value } in &self.settings {
            write!(text, ",{key}={value}").expect("a String takes all that is written");
        }
        text
    }
}

impl FromStr for ListenSpec {
    type Err = ListenSpecError;

    fn from_str(text: &str) -> Result<Self, ListenSpecError> {
        let (name, rest) = text.split_once('=').ok_or(ListenSpecError::Frontend)?;
        let desc = frontend::FRONTENDS
            .iter()
            .find(|desc| desc.name == name)
            .ok_or(ListenSpecError::Frontend)?;
        let mut parts = rest.split(',');
        let address = parts.next().unwrap_or_default().parse()?;
        let mut settings: Vec<Setting> = Vec::new();
        for part in parts {
            let setting = setting(desc, part)?;
            if settings.iter().any(|other| other.key == setting.key) {
                return Err(ListenSpecError::Twice(setting.key));
            }
            settings.push(setting);
        }
        let frontend = (desc.build)(&settings)?;
        Ok(Self {
            desc,
            address,
            settings,
            frontend,
        })
    }
}

fn setting(desc: &'static FrontendDesc, part: &str) -> Result<Setting, ListenSpecError> {
    let (key, value) = part
        .split_once('=')
        .ok_or_else(|| ListenSpecError::NoSetting(part.to_owned()))?;
    if !desc.keys.contains(&key) {
        return Err(ListenSpecError::UnknownKey {
            key: key.to_owned(),
            frontend: desc.name,
            known: match desc.keys {
                [] => "none".to_owned(),
                keys => keys.join(", "),
            },
        });
    }
    Ok(Setting {
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

/// `connect=URL or raw=URL`: every frontend there is.
fn forms() -> String {
    let forms: Vec<_> = frontend::FRONTENDS
        .iter()
        .map(|desc| format!("{}=URL", desc.name))
        .collect();
    forms.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::ListenSpec;

    #[test]
    fn specs_are_read_as_they_are_written() {
        for text in [
            "connect=tls://0.0.0.0:8444",
            "connect=unix:///run/towline/front.sock",
            "raw=tcp://127.0.0.1:9000",
            "raw=unix:///run/db.sock,target=db.private:5432",
            "raw=tcp://127.0.0.1:9001,target=[fd00::1]:5432",
        ] {
            let spec: ListenSpec = text.parse().unwrap();
            assert_eq!(spec.at(spec.address()), text);
        }
    }

    #[test]
    fn bad_specs_say_what_to_write() {
        for (text, error) in [
            ("", "write connect=URL or raw=URL"),
            ("tcp://127.0.0.1:1", "write connect=URL or raw=URL"),
            ("grpc=tcp://127.0.0.1:1", "write connect=URL or raw=URL"),
            (
                "connect=127.0.0.1:1",
                "write tcp://IP:PORT, tls://IP:PORT or unix:///PATH",
            ),
            (
                "raw=tcp://127.0.0.1:1,target=db",
                "target: target has no port",
            ),
            (
                "raw=tcp://127.0.0.1:1,target=db:0",
                "target: the port of a target cannot be 0",
            ),
            (
                "raw=tcp://127.0.0.1:1,target",
                "\"target\" is not KEY=VALUE",
            ),
            ("raw=tcp://127.0.0.1:1,", "\"\" is not KEY=VALUE"),
            (
                "raw=tcp://127.0.0.1:1,target=a:1,target=b:1",
                "target is given twice",
            ),
            (
                "raw=tcp://127.0.0.1:1,tls=yes",
                "unknown key \"tls\": raw knows target",
            ),
            (
                "connect=tcp://127.0.0.1:1,target=db:1",
                "unknown key \"target\": connect knows none",
            ),
        ] {
            let refused = text.parse::<ListenSpec>().unwrap_err();
            assert_eq!(refused.to_string(), error, "{text}");
        }
    }
}
