//! Certificate authorities in a directory, for those who have none of their own: one issues members' certificates and
//! nothing else, since who may connect as a member may vote; the other issues clients'.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::ServerName;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long an authority is valid: 20 years. Replacing one means handing out a new file to everybody.
const AUTHORITY_DAYS: u64 = 20 * 365;
/// Clocks differ: certificates are valid from this long ago.
const EARLIER: Duration = Duration::from_secs(3600);
/// Bytes of a token that is made here, before they are written as digits.
const TOKEN_BYTES: usize = 32;

/// What an authority issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issues {
    /// Members' certificates: they serve the API and speak with each other.
    Members,
    /// Certificates that clients show.
    Clients,
}

/// An authority, its key at hand.
pub struct Authority {
    issues: Issues,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    /// It was made just now.
    pub is_new: bool,
}

/// A certificate and its key, in PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file or a directory.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that would be overwritten.
    #[error("{} is there already: remove it, or write elsewhere", .0.display())]
    Exists(PathBuf),
    /// A name that no certificate can have, a file that is no authority's.
    #[error("{}: {reason}", path.display())]
    Certificate {
        /// The authority's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Neither a DNS name nor an IP address.
    #[error("`{0}` is no host: write a DNS name or an IP address, without a port")]
    Host(String),
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

impl Issues {
    fn stem(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Clients => "clients",
        }
    }

    fn files(self, directory: &Path) -> (PathBuf, PathBuf) {
        (directory.join(format!("{}.pem", self.stem())), directory.join(format!("{}.key", self.stem())))
    }
}

impl Authority {
    /// The authority in `directory`, made where there is none: `members.pem` and `members.key`, or `clients.pem` and
    /// `clients.key`.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn open(directory: &Path, issues: Issues) -> Result<Self, AuthorityError> {
        let (certificate, key) = issues.files(directory);
        let read = |path: &PathBuf| match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(AuthorityError::File { path: path.clone(), source }),
        };
        let missing = |path: PathBuf| AuthorityError::File { path, source: ErrorKind::NotFound.into() };
        match (read(&certificate)?, read(&key)?) {
            (None, None) => Self::create(directory, issues),
            (Some(_), None) => Err(missing(key)),
            (None, Some(_)) => Err(missing(certificate)),
            (Some(text), Some(key_text)) => {
                let wrong = |path: &Path, error: rcgen::Error| AuthorityError::Certificate {
                    path: path.to_owned(),
                    reason: error.to_string(),
                };
                let key = KeyPair::from_pem(&key_text).map_err(|error| wrong(&key, error))?;
                let issuer = Issuer::from_ca_cert_pem(&text, key).map_err(|error| wrong(&certificate, error))?;
                Ok(Self { issues, certificate: text, issuer, is_new: false })
            }
        }
    }

    fn create(directory: &Path, issues: Issues) -> Result<Self, AuthorityError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| AuthorityError::File { path: directory.to_owned(), source })?;
        let (path, key_path) = issues.files(directory);
        let wrong = |error: rcgen::Error| AuthorityError::Certificate { path: path.clone(), reason: error.to_string() };
        let mut params = CertificateParams::new(Vec::new()).map_err(wrong)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = format!("Ringway authority of {}", issues.stem());
        valid(&mut params, &name, AUTHORITY_DAYS);
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = params.self_signed(&key).map_err(wrong)?.pem();
        write(&key_path, &key.serialize_pem(), true)?;
        write(&path, &certificate, false)?;
        Ok(Self { issues, certificate, issuer: Issuer::new(params, key), is_new: true })
    }

    /// The authority's own certificate, in PEM: what those who check are given.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate with `name` as its common name; `hosts` are DNS names and IP addresses.
    ///
    /// # Errors
    /// A host that is no name.
    pub fn issue(&self, name: &str, hosts: &[String], days: u64) -> Result<Issued, AuthorityError> {
        let wrong = |error: rcgen::Error| AuthorityError::Certificate { path: name.into(), reason: error.to_string() };
        if let Some(host) = hosts.iter().find(|host| ServerName::try_from(host.as_str()).is_err()) {
            return Err(AuthorityError::Host(host.clone()));
        }
        let mut params = CertificateParams::new(hosts).map_err(wrong)?;
        valid(&mut params, name, days);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = match self.issues {
            Issues::Members => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Issues::Clients => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrong)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

impl Issued {
    /// Writes both, the key for its owner only; neither may be there.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
        for path in [certificate, key] {
            if path.exists() {
                return Err(AuthorityError::Exists(path.to_owned()));
            }
        }
        write(key, &self.key, true)?;
        write(certificate, &self.certificate, false)
    }
}

/// A file that is not there yet, with its directory; `secret`: only its owner may read it.
///
/// # Errors
/// See [`AuthorityError`].
pub fn write(path: &Path, text: &str, secret: bool) -> Result<(), AuthorityError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::AlreadyExists => AuthorityError::Exists(path.to_owned()),
        _ => AuthorityError::File { path: path.to_owned(), source },
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let mode = if secret { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// The text of a token that nobody guesses.
///
/// # Errors
/// [`AuthorityError::Random`].
pub fn token() -> Result<String, AuthorityError> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
}

fn valid(params: &mut CertificateParams, name: &str, days: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let begin = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_sub(EARLIER);
    params.not_before = begin;
    params.not_after = begin + EARLIER + Duration::from_secs(days.saturating_mul(24 * 3600));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path(), Issues::Members).unwrap();
        assert!(authority.is_new && !Authority::open(directory.path(), Issues::Members).unwrap().is_new);
        let issue =
            |host: &str| authority.issue("m", &[host.to_owned()], 1).map(drop).map_err(|error| error.to_string());
        for good in ["10.0.0.1", "::1", "control-1.example.com", "localhost"] {
            assert_eq!(issue(good), Ok(()));
        }
        for bad in ["", "a b", "10.0.0.1:9700", "https://x", "a..b"] {
            assert!(issue(bad).unwrap_err().contains("is no host"), "{bad}");
        }
    }
}
