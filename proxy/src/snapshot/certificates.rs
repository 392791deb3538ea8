//! How long the certificates of a configuration are valid. An expired one is still served: clients refuse it, each for itself, and
//! everything else goes on.

use ringway_config::model::Config;
use rustls::pki_types::CertificateDer;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From this long before its end on, a certificate causes a warning.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// When a file's certificates are valid, in seconds of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// The validity at a given moment.
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
    /// The word that the status shows.
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
    /// For a chain: valid as long as all of it is. For authorities: as long as any is, because a check needs only one.
    pub(crate) fn of(chain: &[CertificateDer<'_>], is_authority: bool) -> Option<Self> {
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

    /// Code and text of the warning, if there is one.
    pub(crate) fn complaint(self, path: &Path, now: SystemTime) -> Option<(&'static str, String)> {
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

/// The certificates that a configuration uses, as far as they can be read.
pub(crate) fn certificates(config: &Config) -> Box<[CertificateEnd]> {
    let read = |file: &ringway_config::model::CertificateFile<'_>| {
        let validity = Validity::of(&ringway_tls::chain(file.path).ok()?, file.is_authority)?;
        Some(CertificateEnd { used_by: file.used_by, name: file.name.to_owned(), path: file.path.to_owned(), validity })
    };
    config.certificates().iter().filter_map(read).collect()
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
