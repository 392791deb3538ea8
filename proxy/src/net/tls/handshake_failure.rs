//! Why a client's handshake failed.

/// A name for metrics, of a bounded set. Mostly it says which side is at fault.
pub(crate) fn handshake_failure(error: &std::io::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError, Error, PeerIncompatible};
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "closed",
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => "reset",
            _ => "io",
        };
    };
    match error {
        Error::AlertReceived(alert) => match alert {
            Alert::UnknownCA => "alert_unknown_ca",
            Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate => {
                "alert_bad_certificate"
            }
            Alert::CertificateExpired | Alert::CertificateRevoked => "alert_certificate_expired",
            Alert::ProtocolVersion => "alert_protocol_version",
            Alert::HandshakeFailure => "alert_handshake_failure",
            Alert::CloseNotify | Alert::UserCanceled => "closed",
            _ => "alert_other",
        },
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "protocol_version",
        Error::PeerIncompatible(_) => "nothing_in_common",
        Error::NoApplicationProtocol => "no_application_protocol",
        Error::NoCertificatesPresented => "no_client_certificate",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "client_certificate_expired"
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => "client_certificate_unknown_issuer",
        Error::InvalidCertificate(_) => "client_certificate_invalid",
        // The library's text for a name that no certificate has.
        Error::General(text) if text.starts_with("no server certificate chain resolved") => "unknown_server_name",
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::DecryptError
        | Error::PeerSentOversizedRecord => "malformed",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error as IoError, ErrorKind};

    #[test]
    fn what_a_client_does_is_distinguished_from_what_the_line_does() {
        use rustls::{AlertDescription as Alert, CertificateError, Error, InvalidMessage, PeerIncompatible};
        for (error, name) in [
            (Error::AlertReceived(Alert::UnknownCA), "alert_unknown_ca"),
            (Error::AlertReceived(Alert::CertificateUnknown), "alert_bad_certificate"),
            (Error::AlertReceived(Alert::CertificateExpired), "alert_certificate_expired"),
            (Error::AlertReceived(Alert::CloseNotify), "closed"),
            (Error::AlertReceived(Alert::DecodeError), "alert_other"),
            (Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered), "protocol_version"),
            (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), "nothing_in_common"),
            (Error::NoApplicationProtocol, "no_application_protocol"),
            (Error::NoCertificatesPresented, "no_client_certificate"),
            (Error::InvalidCertificate(CertificateError::Expired), "client_certificate_expired"),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "client_certificate_unknown_issuer"),
            (Error::InvalidCertificate(CertificateError::BadSignature), "client_certificate_invalid"),
            (Error::InvalidMessage(InvalidMessage::InvalidCcs), "malformed"),
            (Error::FailedToGetRandomBytes, "other"),
        ] {
            assert_eq!(handshake_failure(&IoError::other(error.clone())), name, "{error:?}");
        }
        for (kind, name) in [
            (ErrorKind::UnexpectedEof, "closed"),
            (ErrorKind::ConnectionReset, "reset"),
            (ErrorKind::BrokenPipe, "reset"),
            (ErrorKind::TimedOut, "io"),
        ] {
            assert_eq!(handshake_failure(&kind.into()), name, "{kind:?}");
        }
    }
}
