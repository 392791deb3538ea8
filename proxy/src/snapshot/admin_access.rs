//! Who may ask the admin listener what, as the version in force has it.

use crate::net::tls::{AdminServer, TlsError, admin_tls};
use crate::net::token::{Token, TokenError};
use ringway_config::model::{Admin, AdminRole, Anonymous};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// Who may ask the admin listener what.
pub(crate) struct AdminAccess {
    tokens: Box<[(Box<str>, AdminRole, Token)]>,
    /// Roles of client certificates, by name.
    clients: Box<[(String, AdminRole)]>,
    /// Of who shows nothing.
    pub(crate) anonymous: Anonymous,
    /// TLS of the listener, or none.
    pub(crate) tls: Option<Arc<AdminServer>>,
}

/// Why the admin listener's files are of no use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminAccessError {
    /// A token cannot be used.
    #[error("token {name:?}: {path:?}: {source}")]
    Token {
        /// Its name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: TokenError,
    },
    /// Two tokens are the same.
    #[error("tokens {0:?} and {1:?} are the same")]
    Twice(Box<str>, String),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl AdminAccess {
    /// Reads the files.
    pub(crate) fn build(admin: &Admin) -> Result<Self, AdminAccessError> {
        let mut tokens: Vec<(Box<str>, AdminRole, Token)> = Vec::with_capacity(admin.tokens.len());
        for file in &admin.tokens {
            let token = Token::read(&file.file).map_err(|source| AdminAccessError::Token {
                name: file.name.clone(),
                path: file.file.clone(),
                source,
            })?;
            if let Some((other, ..)) = tokens.iter().find(|known| known.2 == token) {
                return Err(AdminAccessError::Twice(other.clone(), file.name.clone()));
            }
            tokens.push((file.name.as_str().into(), file.role, token));
        }
        let clients = admin.tls.iter().flat_map(|tls| tls.clients.iter().cloned()).collect();
        let tls = admin.tls.as_ref().map(admin_tls).transpose()?;
        Ok(Self { tokens: tokens.into(), clients, anonymous: admin.anonymous, tls })
    }

    /// Whose token this is. All are compared, each in constant time: how long it takes says nothing of them.
    pub(crate) fn of_token(&self, shown: &[u8]) -> Option<(&str, AdminRole)> {
        let shown = Token::of(shown);
        let mut found = None;
        for (name, role, token) in &self.tokens {
            if *token == shown {
                found = Some((&**name, *role));
            }
        }
        found
    }

    /// Whose certificate this is, by the names in it.
    pub(crate) fn of_names(&self, names: &[String]) -> Option<(&str, AdminRole)> {
        let known = self.clients.iter().find(|(name, _)| names.contains(name));
        known.map(|(name, role)| (name.as_str(), *role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_config::model::AdminRole::{Operate, Read};

    /// What these lines of the section `admin` give.
    fn access(section: &str) -> Result<AdminAccess, AdminAccessError> {
        let text = format!(
            "admin:\n{section}\nlisteners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
             services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
        );
        let config = ringway_config::load_str("t", &text, &|_| None).unwrap_or_else(|found| panic!("{found}")).config;
        AdminAccess::build(&config.admin.unwrap())
    }

    #[test]
    fn a_token_is_known_by_its_whole_text_and_two_hold_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (old, new) = (file("old", "0123456789abcdef\n"), file("new", "fedcba9876543210"));
        let section = format!(
            "  tokens: [ {{ name: old, role: read, file: {old:?} }}, {{ name: new, role: operate, file: {new:?} }} ]"
        );
        let known = access(&section).unwrap();
        assert_eq!(known.of_token(b"0123456789abcdef"), Some(("old", Read)));
        assert_eq!(known.of_token(b"fedcba9876543210"), Some(("new", Operate)));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdef0", b"0123456789abcdeg"] {
            assert_eq!(known.of_token(wrong), None);
        }
        assert_eq!(known.anonymous, Anonymous::Nothing);
        file("new", "0123456789abcdef");
        assert!(matches!(access(&section), Err(AdminAccessError::Twice(..))));
        file("new", "short");
        assert!(matches!(access(&section), Err(AdminAccessError::Token { .. })));
    }

    #[test]
    fn who_shows_nothing_may_do_what_the_file_says_or_on_loopback_without_credentials_what_it_always_could() {
        let anonymous = |section: &str| access(section).unwrap().anonymous;
        assert_eq!(anonymous("  hosts: []"), Anonymous::Reload);
        assert_eq!(anonymous("  anonymous: read"), Anonymous::Read);
        assert_eq!(anonymous("  anonymous: none"), Anonymous::Nothing);
        assert_eq!(anonymous("  address: \"0.0.0.0:1\"\n  anonymous: read"), Anonymous::Read);
        assert_eq!(anonymous("  address: \"0.0.0.0:1\"\n  anonymous: none"), Anonymous::Nothing);
    }
}
