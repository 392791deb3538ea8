//! Files that a configuration names: whether they can be used, told at the field that names them, and how long their
//! certificates last. A certificate whose time is over is still served: clients refuse it, each for itself, and everything
//! else goes on; a file that cannot be used at all keeps a configuration from being put to work.

use crate::ambient;
use crate::net::tls::{self, TlsError};
use ringway_config::model::Config;
use ringway_config::{Diagnostic, Diagnostics, FileUse, Loaded, Named, NamedFile, Need, Severity};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From so long before its end on, a certificate is warned of.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// How often certificates that end are logged.
const TELL_EVERY: Duration = Duration::from_secs(86_400);

/// When a file's certificates are valid, in seconds of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// What a moment makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    NotYetValid,
    Valid,
    EndsSoon,
    Expired,
}

/// A file of certificates in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateEnd {
    pub(crate) used_by: &'static str,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) validity: Validity,
}

impl Standing {
    /// The word of the status.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotYetValid => "not_yet_valid",
            Self::Valid => "valid",
            Self::EndsSoon => "ends_soon",
            Self::Expired => "expired",
        }
    }
}

impl Validity {
    /// Of a chain: as long as all of it is valid. Of authorities: as long as any is, for who is checked needs but one.
    fn of(chain: &[CertificateDer<'_>], is_authority: bool) -> Option<Self> {
        let parsed = chain.iter().filter_map(|der| Some(x509_parser::parse_x509_certificate(der).ok()?.1));
        let spans = parsed.map(|certificate| Self {
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        });
        spans.reduce(|all, one| {
            if is_authority {
                let not_before = all.not_before.min(one.not_before);
                Self { not_before, not_after: all.not_after.max(one.not_after) }
            } else {
                let not_before = all.not_before.max(one.not_before);
                Self { not_before, not_after: all.not_after.min(one.not_after) }
            }
        })
    }

    pub(crate) fn standing(self, now: SystemTime) -> Standing {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        match self {
            Self { not_before, .. } if now < not_before => Standing::NotYetValid,
            Self { not_after, .. } if now > not_after => Standing::Expired,
            Self { not_after, .. } if not_after.saturating_sub(now) < SOON.as_secs() as i64 => Standing::EndsSoon,
            Self { .. } => Standing::Valid,
        }
    }

    /// Code and words of what is to be said, if anything is.
    fn complaint(self, path: &Path, now: SystemTime) -> Option<(&'static str, String)> {
        let date = |seconds: i64| {
            let time = x509_parser::time::ASN1Time::from_timestamp(seconds);
            time.map_or_else(|_| seconds.to_string(), |time| time.to_string())
        };
        match self.standing(now) {
            Standing::Valid => None,
            Standing::NotYetValid => {
                let begin = date(self.not_before);
                Some(("certificate_not_yet_valid", format!("the certificate in {path:?} is not valid before {begin}")))
            }
            Standing::EndsSoon => {
                let end = date(self.not_after);
                Some(("certificate_ends_soon", format!("the certificate in {path:?} expires on {end}")))
            }
            Standing::Expired => {
                let end = date(self.not_after);
                Some(("certificate_expired", format!("the certificate in {path:?} expired on {end}")))
            }
        }
    }
}

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
    files.into_iter().filter_map(|file| finding(&file.used, now)).collect()
}

fn finding(used: &FileUse, now: SystemTime) -> Option<Diagnostic> {
    match used {
        FileUse::Pair { certificate, key } => {
            match tls::certified(&certificate.path, &key.path, &aws_lc_rs::default_provider()) {
                Ok(certified) => dated(certificate, Validity::of(&certified.cert, false), now),
                Err(error) => Some(unusable(&error, certificate, key)),
            }
        }
        FileUse::Authorities(file) => match tls::roots(Some(&file.path)).and_then(|_| tls::chain(&file.path)) {
            Ok(chain) => dated(file, Validity::of(&chain, true), now),
            Err(error) => Some(unusable(&error, file, file)),
        },
        FileUse::Ocsp(file) => tls::staple(&file.path).err().map(|error| unusable(&error, file, file)),
        FileUse::Secret(file) => match std::fs::read(&file.path) {
            Ok(bytes) if bytes.iter().any(|byte| !byte.is_ascii_whitespace()) => None,
            Ok(_) => Some(error(file, "empty_secret", format!("{:?} is empty", file.path), "write the secret into it")),
            Err(why) => Some(error(
                file,
                "unreadable_file",
                format!("cannot read {:?}: {why}", file.path),
                "check its path and permissions",
            )),
        },
        FileUse::Log(file) => log_finding(file),
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
    let may = |path: &Path, access| accessat(CWD, path, access, AtFlags::EACCESS);
    let help = "name a file in a directory that is there and that the process may write to";
    if path.is_dir() {
        return Some(error(file, "unwritable_log", format!("{path:?} is a directory"), help));
    }
    if path.exists() {
        let why = may(path, Access::WRITE_OK).err()?;
        return Some(error(file, "unwritable_log", format!("{path:?} cannot be written to: {why}"), help));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let why = may(directory, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(error(file, "unwritable_log", format!("no file can be made in {directory:?}: {why}"), help))
}

fn dated(file: &NamedFile, validity: Option<Validity>, now: SystemTime) -> Option<Diagnostic> {
    let (code, message) = validity?.complaint(&file.path, now)?;
    let help = "replace the file: it is followed, and taken without a restart";
    Some(file.finding(Severity::Warning, code, message, help.to_owned()))
}

/// At the field whose file it is.
fn unusable(why: &TlsError, certificate: &NamedFile, key: &NamedFile) -> Diagnostic {
    let message = why.to_string();
    let readable = "check its path and permissions, and that it is PEM";
    match why {
        TlsError::Mismatch { .. } => {
            error(key, "key_mismatch", message, "name the key that the certificate was issued for")
        }
        TlsError::Key { .. } => error(key, "unreadable_key", message, readable),
        TlsError::BadKey { .. } => error(key, "unreadable_key", message, "write it as PKCS #8, PKCS #1 or SEC1"),
        TlsError::Read { .. } | TlsError::Empty { .. } | TlsError::Malformed { .. } => {
            error(certificate, "unreadable_certificate", message, readable)
        }
        TlsError::Ocsp { .. } | TlsError::EmptyOcsp { .. } => {
            error(certificate, "unreadable_ocsp", message, "check its path and permissions")
        }
        TlsError::Name(_) | TlsError::Library(_) => {
            let message = format!("{:?} cannot be used: {message}", certificate.path);
            error(certificate, "unusable_certificate", message, "have it issued anew")
        }
    }
}

fn error(file: &NamedFile, code: &'static str, message: String, help: &str) -> Diagnostic {
    file.finding(Severity::Error, code, message, help.to_owned())
}

/// The certificates that a configuration uses, as far as they can be read.
pub(crate) fn certificates(config: &Config) -> Box<[CertificateEnd]> {
    let read = |file: &ringway_config::model::CertificateFile<'_>| {
        let validity = Validity::of(&tls::chain(file.path).ok()?, file.is_authority)?;
        Some(CertificateEnd { used_by: file.used_by, name: file.name.to_owned(), path: file.path.to_owned(), validity })
    };
    config.certificates().iter().filter_map(read).collect()
}

/// Once a day, logs what ends, or has ended. At a start and at a reload it is one of the file's warnings. Never returns.
pub(crate) async fn watch_ends(current: Arc<crate::snapshot::Current>) {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
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

    #[test]
    fn a_certificate_is_warned_of_from_fourteen_days_before_its_end_on() {
        let day = 86_400;
        let validity = Validity { not_before: 100 * day, not_after: 200 * day };
        let at = |days: i64, seconds: i64| {
            let seconds = u64::try_from(days * day + seconds).unwrap();
            validity.standing(UNIX_EPOCH + Duration::from_secs(seconds))
        };
        for (days, seconds, standing) in [
            (100, -1, Standing::NotYetValid),
            (100, 0, Standing::Valid),
            (186, 0, Standing::Valid),
            (186, 1, Standing::EndsSoon),
            (200, 0, Standing::EndsSoon),
            (200, 1, Standing::Expired),
        ] {
            assert_eq!(at(days, seconds), standing, "{days} days and {seconds} s");
            let told =
                validity.complaint(Path::new("a.pem"), UNIX_EPOCH + Duration::from_secs((days * day + seconds) as u64));
            assert_eq!(told.is_some(), standing != Standing::Valid);
        }
    }
}
