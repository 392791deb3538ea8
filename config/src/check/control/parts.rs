//! What a member's and etcd's sections have in common.

use crate::diagnostic::At;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::{model, schema};

pub(super) fn path(at: &Option<At<String>>) -> Option<std::path::PathBuf> {
    at.as_ref().map(|at| at.value.clone().into())
}

/// Certificate and key that are shown.
pub(super) fn identity(
    tls: &schema::ControlTlsSection,
    findings: &mut Findings,
) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    findings.names_file(tls.ca.as_ref(), FileUse::Authorities, Need::Control);
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            findings.names_pair(certificate, key, Need::Control);
            Some((certificate.value.clone().into(), key.value.clone().into()))
        }
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            findings.error(
                one.place,
                "half_a_certificate",
                "`certificate` and `key` go together",
                "write both, or neither",
            );
            None
        }
    }
}

pub(super) fn member_url(at: &At<String>, whose: &str, port: u16, findings: &mut Findings) -> Option<model::MemberUrl> {
    let url = model::MemberUrl::parse(&at.value);
    if url.is_none() {
        findings.error(
            at.place,
            "bad_member",
            format!("`{}` is not the address of {whose}", at.value),
            format!("write it as `https://10.0.0.1:{port}`, or `http://127.0.0.1:{port}`"),
        );
    }
    url
}
