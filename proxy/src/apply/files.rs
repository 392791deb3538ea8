//! Files that a configuration names: whether they can be used, with a finding at the field that names them, and how long their
//! certificates last. A certificate whose time is over is still served: clients refuse it, each for itself, and everything
//! else goes on; a file that cannot be used at all keeps a configuration from being put to work.

use crate::ambient;
use crate::net::token::Token;
use crate::snapshot::certificates::Validity;
use ringway_config::{Diagnostic, Diagnostics, FileUse, Loaded, Named, NamedFile, Need, Severity};
use ringway_tls::FileError;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often certificates that end are logged.
const LOG_EVERY: Duration = Duration::from_secs(86_400);

/// A configuration whose files can be used; what is doubtful about them joins its warnings.
///
/// # Errors
/// Everything that is wrong with the files that it cannot be served without.
pub fn verified(mut loaded: Loaded) -> Result<Loaded, Diagnostics> {
    let needed = loaded.files.iter().filter(|file| file.need == Need::Serving);
    // A shadow is read when it is built.
    let needed = needed.filter(|file| !matches!(file.used, FileUse::Shadow(_)));
    let found = findings(needed, ambient::time_of_day());
    if found.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Diagnostics(found));
    }
    loaded.warnings.extend(found);
    Ok(loaded)
}

/// What is wrong, or doubtful, with files.
pub fn findings<'a>(files: impl IntoIterator<Item = &'a Named>, now: SystemTime) -> Vec<Diagnostic> {
    let mut tokens = HashMap::new();
    let of = |file: &'a Named| match &file.used {
        FileUse::Token(file) => token_finding(file, &mut tokens),
        used => finding(used, now),
    };
    files.into_iter().filter_map(of).collect()
}

/// A token is one, is nobody else's, and is not for everybody to read.
fn token_finding(file: &NamedFile, known: &mut HashMap<[u8; 32], PathBuf>) -> Option<Diagnostic> {
    let token = match Token::read(&file.path) {
        Ok(token) => token,
        Err(why) => {
            let help = "write one line of 16 characters or more, for example of `openssl rand -hex 32`";
            return Some(error(file, "bad_token", format!("{:?}: {why}", file.path), help));
        }
    };
    if let Some(other) = known.insert(*token.hash.as_bytes(), file.path.clone()) {
        let message = format!("{:?} has the same token as {other:?}: who shows it could be either", file.path);
        return Some(error(file, "duplicate_token", message, "make one of them anew"));
    }
    let mode = std::fs::metadata(&file.path).map_or(0, |data| data.permissions().mode());
    (mode & 0o004 != 0).then(|| {
        let message = format!("everybody on this machine may read the token in {:?}", file.path);
        file.finding(Severity::Warning, "open_token", message, format!("`chmod o-r {}`", file.path.display()))
    })
}

fn finding(used: &FileUse, now: SystemTime) -> Option<Diagnostic> {
    match used {
        FileUse::Pair { certificate, key } => {
            match ringway_tls::certified(&certificate.path, &key.path, &ringway_tls::provider()) {
                Ok(certified) => dated(certificate, Validity::of(&certified.cert, false), now),
                Err(error) => Some(unusable(&error, certificate, key)),
            }
        }
        FileUse::Authorities(file) => {
            match ringway_tls::authorities(&file.path).and_then(|_| ringway_tls::chain(&file.path)) {
                Ok(chain) => dated(file, Validity::of(&chain, true), now),
                Err(error) => Some(unusable(&error, file, file)),
            }
        }
        FileUse::Ocsp(file) => ringway_tls::staple(&file.path).err().map(|error| unusable(&error, file, file)),
        FileUse::Secret(file) => match ringway_config::read_bytes(&file.path) {
            Ok(bytes) if bytes.iter().any(|byte| !byte.is_ascii_whitespace()) => None,
            Ok(_) => Some(error(file, "empty_secret", format!("{:?} is empty", file.path), "write the secret into it")),
            Err(why) => Some(error(
                file,
                "unreadable_file",
                format!("cannot read {:?}: {why}", file.path),
                "check its path and permissions",
            )),
        },
        // Tokens are looked at beside each other.
        FileUse::Token(_) => None,
        FileUse::Log(file) => log_finding(file),
        FileUse::Socket(file) => socket_finding(file),
        FileUse::Shadow(file) => {
            let why = match ringway_config::load_file(&file.path) {
                Ok(_) => return None,
                Err(found) => found.0.into_iter().find(|finding| finding.severity == Severity::Error),
            };
            let why = why.map_or_else(String::new, |why| match why.line {
                0 => format!(": {}", why.message),
                line => format!(", line {line}: {}", why.message),
            });
            let message = format!("{:?} is not a valid configuration{why}", file.path);
            Some(error(file, "bad_shadow", message, "`ringway check` it alone"))
        }
    }
}

/// A log must be appended to, or made where it is not there yet. Nothing is made here.
fn log_finding(file: &NamedFile) -> Option<Diagnostic> {
    let path = &file.path;
    let help = "name a file in a directory that is there and that the process may write to";
    if path.is_dir() {
        return Some(error(file, "unwritable_log", format!("{path:?} is a directory"), help));
    }
    if path.exists() {
        let why = may(path, Access::WRITE_OK).err()?;
        return Some(error(file, "unwritable_log", format!("{path:?} cannot be written to: {why}"), help));
    }
    let why = unmakeable(path)?;
    Some(error(file, "unwritable_log", why, help))
}

/// A socket is made where there is none; one that is there is another's, or is left of one that has gone. Nothing is made here.
fn socket_finding(file: &NamedFile) -> Option<Diagnostic> {
    let path = &file.path;
    let help = "name one in a directory that is there and that the process may write to";
    let why = match std::fs::symlink_metadata(path) {
        Ok(data) if data.file_type().is_socket() => return None,
        Ok(_) => format!("{path:?} is there, and is no socket"),
        Err(_) => unmakeable(path)?,
    };
    Some(error(file, "unusable_socket", why, help))
}

fn may(path: &Path, access: Access) -> rustix::io::Result<()> {
    accessat(CWD, path, access, AtFlags::EACCESS)
}

/// Why nothing can be made at a path, if nothing can.
fn unmakeable(path: &Path) -> Option<String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let why = may(directory, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(format!("no file can be made in {directory:?}: {why}"))
}

fn dated(file: &NamedFile, validity: Option<Validity>, now: SystemTime) -> Option<Diagnostic> {
    let (code, message) = validity?.complaint(&file.path, now)?;
    let help = "replace the file: it is followed, and taken without a restart";
    Some(file.finding(Severity::Warning, code, message, help.to_owned()))
}

/// At the field whose file it is.
fn unusable(why: &FileError, certificate: &NamedFile, key: &NamedFile) -> Diagnostic {
    let message = why.to_string();
    let readable = "check its path and permissions, and that it is PEM";
    match why {
        FileError::Mismatch { .. } => {
            error(key, "key_mismatch", message, "name the key that the certificate was issued for")
        }
        FileError::Key { .. } => error(key, "unreadable_key", message, readable),
        FileError::BadKey { .. } => error(key, "unreadable_key", message, "write it as PKCS #8, PKCS #1 or SEC1"),
        FileError::Read { .. } | FileError::Empty { .. } | FileError::Malformed { .. } => {
            error(certificate, "unreadable_certificate", message, readable)
        }
        FileError::Ocsp { .. } | FileError::EmptyOcsp { .. } => {
            error(certificate, "unreadable_ocsp", message, "check its path and permissions")
        }
        FileError::NoAuthority { .. } => error(certificate, "unusable_certificate", message, "have it issued anew"),
    }
}

fn error(file: &NamedFile, code: &'static str, message: String, help: &str) -> Diagnostic {
    file.finding(Severity::Error, code, message, help.to_owned())
}

/// Once a day, logs what ends, or has ended. At a start and at a reload it is one of the file's warnings. Never returns.
pub(crate) async fn watch_ends(current: Arc<crate::snapshot::Current>) {
    loop {
        tokio::time::sleep(LOG_EVERY).await;
        for end in &current.load().certificates {
            if let Some((code, message)) = end.validity.complaint(&end.path, ambient::time_of_day()) {
                tracing::warn!(code, used_by = end.used_by, name = end.name, "{message}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_config::load_str;

    /// Codes and lines of what is found of the files of a configuration.
    fn codes(text: &str) -> Vec<(&'static str, usize)> {
        let loaded = load_str("test.yaml", text, &|_| None).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let found = findings(&loaded.files, ambient::time_of_day());
        found.iter().map(|finding| (finding.code, finding.line)).collect()
    }

    fn with(line: &str) -> String {
        format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
             services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n{line}\n"
        )
    }

    #[test]
    fn a_socket_can_be_made_or_is_there_and_is_looked_at_before_a_start_alone() {
        let directory = tempfile::tempdir().unwrap();
        let text = |path: &Path| with(&format!("admin: {{ socket: {{ path: {path:?} }} }}"));
        let (new, nowhere) = (directory.path().join("s"), directory.path().join("none/s"));
        assert_eq!(codes(&text(&new)), []);
        let _listens = std::os::unix::net::UnixListener::bind(&new).unwrap();
        assert_eq!(codes(&text(&new)), []);
        let plain = directory.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        for path in [nowhere.as_path(), &plain, directory.path()] {
            assert_eq!(codes(&text(path)), [("unusable_socket", 3)], "{path:?}");
        }
        // What has its socket already goes on without the directory.
        let loaded = load_str("test.yaml", &text(&nowhere), &|_| None).unwrap();
        assert!(verified(loaded).is_ok());
    }

    #[test]
    fn a_log_can_be_a_file_or_become_one_and_is_not_made_by_looking() {
        let directory = tempfile::tempdir().unwrap();
        let log = |path: &Path| codes(&with(&format!("access_log: {{ format: json, target: {path:?} }}")));
        let (new, nowhere) = (directory.path().join("new.log"), directory.path().join("none/new.log"));
        assert_eq!(log(&new), []);
        assert!(!new.exists());
        std::fs::write(&new, "").unwrap();
        assert_eq!(log(&new), []);
        assert_eq!(log(directory.path()), [("unwritable_log", 3)]);
        assert_eq!(log(&nowhere), [("unwritable_log", 3)]);
    }

    #[test]
    fn a_token_is_long_of_one_line_nobody_elses_and_not_for_all_to_read() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8], mode: u32| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (good, twin) = (write("good", b"0123456789abcdef\n", 0o600), write("twin", b"0123456789abcdef", 0o600));
        let of = |files: &[&PathBuf]| {
            let tokens = files
                .iter()
                .enumerate()
                .map(|(index, file)| format!("  - {{ name: t{index}, role: read, file: {file:?} }}\n"));
            codes(&with(&format!("admin:\n tokens:\n{}", tokens.collect::<String>())))
        };
        assert_eq!(of(&[&good]), []);
        assert_eq!(of(&[&good, &twin]), [("duplicate_token", 6)]);
        for (text, mode, found) in [
            (&b""[..], 0o600, "bad_token"),
            (b" \n", 0o600, "bad_token"),
            (b"0123456789abcde", 0o600, "bad_token"),
            (b"0123456789 abcdef", 0o600, "bad_token"),
            (b"0123456789abcdef\n0123456789abcdef\n", 0o600, "bad_token"),
            (b"0123456789abcdef\xff", 0o600, "bad_token"),
            (b"0123456789abcdef\x1b", 0o600, "bad_token"),
            (b"abcdef0123456789", 0o644, "open_token"),
        ] {
            assert_eq!(of(&[&write("other", text, mode), &good]), [(found, 5)], "{text:?}");
        }
        assert_eq!(of(&[&directory.path().join("nowhere")]), [("bad_token", 5)]);
    }

    #[test]
    fn a_shadow_must_be_a_configuration_and_is_no_veto_before_it_is_built() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("shadow.yaml");
        let text = with(&format!("shadow: {file:?}"));
        assert_eq!(codes(&text), [("bad_shadow", 3)]);
        std::fs::write(&file, "listeners: 3\n").unwrap();
        assert_eq!(codes(&text), [("bad_shadow", 3)]);
        let loaded = load_str("test.yaml", &text, &|_| None).unwrap();
        assert!(verified(loaded).is_ok());
        std::fs::write(&file, with("")).unwrap();
        assert_eq!(codes(&text), []);
    }

    #[test]
    fn a_certificate_that_cannot_be_served_keeps_a_configuration_out() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let pair = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate =
                rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap().self_signed(&key).unwrap();
            (write(&format!("{name}.pem"), &certificate.pem()), write(&format!("{name}.key"), &key.serialize_pem()))
        };
        let ((certificate, key), (_, other)) = (pair("a"), pair("b"));
        let empty = write("empty", " \n");
        let text = |certificate: &Path, key: &Path| {
            format!(
                "listeners:\n  - name: l\n    address: \"127.0.0.1:0\"\n    service: s\n    tls:\n      certificates:\n\
                 \x20       - certificate: {certificate:?}\n          key: {key:?}\n\
                 services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
            )
        };
        assert_eq!(codes(&text(&certificate, &key)), []);
        for (certificate, key, found) in [
            (&certificate, &other, ("key_mismatch", 8)),
            (&certificate, &empty, ("unreadable_key", 8)),
            (&empty, &key, ("unreadable_certificate", 7)),
        ] {
            assert_eq!(codes(&text(certificate, key)), [found]);
            let loaded = load_str("test.yaml", &text(certificate, key), &|_| None).unwrap();
            assert_eq!(verified(loaded).unwrap_err().0[0].code, found.0);
        }
    }
}
