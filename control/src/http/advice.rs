//! What to write, and where, when members cannot be asked: flags of the command line, and fields of a file.

use super::problem::Problem;
use rustls::{AlertDescription, CertificateError, Error};
use std::path::{Path, PathBuf};

/// Who asks.
const WHO: &str = "say who asks: `--token-file FILE` (in a file `control.token_file`), or, over `https://`, `--certificate FILE \
                   --key-file FILE` (`control.tls`)";

/// What of the settings has named a file of TLS. `section`: where a file says how TLS is to be.
pub(crate) fn of_file(
    path: Option<&Path>,
    ca: Option<&Path>,
    identity: Option<&(PathBuf, PathBuf)>,
    section: &str,
) -> String {
    let Some(path) = path else { return format!("TLS (in a file `{section}`)") };
    match identity {
        _ if ca == Some(path) => format!("`--ca` (in a file `{section}.ca`)"),
        Some((_, key)) if key == path => format!("`--key-file` (in a file `{section}.key`)"),
        Some((certificate, _)) if certificate == path => {
            format!("`--certificate` (in a file `{section}.certificate`)")
        }
        Some(_) | None => format!("TLS (in a file `{section}`)"),
    }
}

/// A refusal, and what to do about it.
pub(super) fn of_refusal(problem: &Problem) -> String {
    if problem.status == 401 { format!("{problem}: {WHO}") } else { problem.to_string() }
}

/// TLS's own error, however deep it lies.
pub(super) fn of_rustls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an error of this kind is made of is not what it says is its cause.
        next = match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Why TLS does not come about, and what to do: of the server, of what it thinks of who asks.
///
/// `section`: where a file says how TLS is to be.
pub(crate) fn of_tls(error: &(dyn std::error::Error + 'static), section: &str) -> Option<String> {
    let error = of_rustls(error)?;
    let advice = match error {
        // The same name is on the certificates of all authorities that are made by `ringway`: a wrong one is seen by its key.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!("name the file of the authority that has issued it: `--ca FILE` (in a file `{section}.ca`)")
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            format!(
                "write a host that it is for after `https://`, or have it issued for this one (`--host` of `ringway control \
                 authority member`); a file may say `{section}.server_name`"
            )
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "it is to be issued anew, if this machine's clock is right".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "this machine's clock is wrong, or the other's was".to_owned()
        }
        Error::InvalidMessage(_) => "it does not speak TLS: write `http://`, or let it have `tls`".to_owned(),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            format!("show a certificate: `--certificate FILE --key-file FILE` (in a file `{section}`)")
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate,
        ) => {
            format!(
                "the certificate that is shown is not taken: `--certificate FILE --key-file FILE` (in a file `{section}`) want one of \
                 the authority that a member names as `tls.client_ca`"
            )
        }
        _ => return None,
    };
    Some(format!("{error}: {advice}"))
}

/// Of a first answer, in the clear, that cannot be read, or does not come.
pub(super) const PERHAPS_TLS: &str = "if it speaks TLS, write `https://`";
