//! The admin listener: where it listens, and who may ask it what.

use super::text::{address, name, unique};
use crate::diagnostic::{At, Place, Site};
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::model::{self, AdminRole, Anonymous};
use crate::schema::{self, AdminRoleName, AnonymousName};

/// Where it listens if nothing is said.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:9901";
/// Longest path of a Unix socket: what the kernel's address has room for.
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(super) fn admin(section: &schema::AdminSection, findings: &mut Findings) -> Option<model::Admin> {
    let address = listens_at(section).map(|at| address(&at, findings));
    hosts(section, findings);
    if !section.enabled.value {
        return None;
    }
    unique(section.tokens.value.iter().map(|token| &token.value.name), "token", findings);
    let tokens = section.tokens.value.iter().map(|token| self::token(&token.value, findings)).collect();
    let tls = section.tls.as_ref().map(|at| tls(&at.value, findings));
    let socket = section.socket.as_ref().and_then(|at| socket(&at.value, findings));
    let at = section.address.as_ref().map_or(section.place, |at| at.place);
    let address = match address {
        Some(address) => Some(address?),
        None => {
            without_address(section, findings);
            None
        }
    };
    let is_local = address.is_none_or(|address| address.ip().is_loopback());
    if !is_local {
        exposed(section, at, findings);
    }
    Some(model::Admin {
        address,
        site: Site::at(at),
        hosts: section.hosts.value.iter().map(|host| host.value.to_ascii_lowercase()).collect(),
        tokens,
        tls,
        socket,
        anonymous: match section.anonymous.as_ref().map(|at| at.value) {
            Some(AnonymousName::Read) => Anonymous::Read,
            None if is_local && !has_credentials(section) => Anonymous::Reload,
            None | Some(AnonymousName::None) => Anonymous::Nothing,
        },
    })
}

/// Where it listens, beside the Unix socket.
pub(super) fn listens_at(section: &schema::AdminSection) -> Option<At<String>> {
    let default = || section.socket.is_none().then(|| At { value: DEFAULT_ADDRESS.to_owned(), place: section.place });
    section.address.clone().or_else(default)
}

/// At the Unix socket alone, some fields have no meaning.
fn without_address(section: &schema::AdminSection, findings: &mut Findings) {
    let fields = [
        ("tls", section.tls.as_ref().map(|at| at.place)),
        ("hosts", section.hosts.value.first().map(|at| at.place)),
        ("anonymous", section.anonymous.as_ref().map(|at| at.place)),
    ];
    for (name, place) in fields {
        let Some(place) = place else { continue };
        findings.warning(
            place,
            "unused_admin_field",
            format!("`{name}` is for the listener at `address`, and there is a `socket` alone"),
            format!("remove it, or add `address: \"{DEFAULT_ADDRESS}\"`"),
        );
    }
}

fn hosts(section: &schema::AdminSection, findings: &mut Findings) {
    for host in section.hosts.value.iter() {
        if host.value.is_empty() || host.value.contains(|c: char| c.is_whitespace() || matches!(c, '/' | ':' | '*')) {
            findings.error(
                host.place,
                "bad_host",
                format!("`{}` is not a host", host.value),
                "write the name alone, for example `proxy-1.example.com`",
            );
        }
    }
}

/// Whether there is something that a client can show over TCP.
fn has_credentials(section: &schema::AdminSection) -> bool {
    let clients = section.tls.as_ref().is_some_and(|tls| !tls.value.clients.value.is_empty());
    clients || !section.tokens.value.is_empty()
}

/// Where other machines reach the listener, they show who they are, or the file says that they need not.
fn exposed(section: &schema::AdminSection, at: Place, findings: &mut Findings) {
    if !has_credentials(section) && section.anonymous.is_none() {
        if findings.is_lost(section.place) || section.tokens.value.lost {
            return;
        }
        findings.error(
            at,
            "admin_exposed",
            "the admin listener can be reached from other machines, and nobody has to show who they are",
            "add `tokens: [ { name: ops, role: operate, file: /etc/ringway/admin-token } ]`, or `tls` with `client_ca` and \
             `clients`; `anonymous: read` lets everybody read, `anonymous: none` nobody but probes of /healthz and /readyz; \
             or write `127.0.0.1:9901`",
        );
    } else if section.tls.is_none() && !section.tokens.value.is_empty() {
        findings.warning(
            at,
            "admin_in_the_clear",
            "tokens of the admin listener go over the network in the clear",
            "add `tls: { certificate: FILE, key: FILE }`",
        );
    }
}

fn token(section: &schema::AdminTokenSection, findings: &mut Findings) -> model::AdminToken {
    name(&section.name, "a token's name", findings);
    findings.names_file(Some(&section.file), FileUse::Token, Need::Serving);
    model::AdminToken {
        name: section.name.value.clone(),
        role: role(section.role.value),
        file: section.file.value.clone().into(),
    }
}

fn role(name: AdminRoleName) -> AdminRole {
    match name {
        AdminRoleName::Read => AdminRole::Read,
        AdminRoleName::Operate => AdminRole::Operate,
    }
}

fn tls(section: &schema::AdminTlsSection, findings: &mut Findings) -> model::AdminTls {
    findings.names_pair(&section.certificate, &section.key, Need::Serving);
    findings.names_file(section.client_ca.as_ref(), FileUse::Authorities, Need::Serving);
    unique(section.clients.value.iter().map(|client| &client.value.name), "client", findings);
    if section.client_ca.is_none()
        && let Some(first) = section.clients.value.first()
    {
        findings.absent(
            first.place,
            "no_client_ca",
            "clients are named, and nothing says whose certificates are theirs",
            "add `client_ca: FILE`, the authorities of their certificates",
        );
    }
    let clients = section.clients.value.iter().map(|client| {
        name(&client.value.name, "a client's name", findings);
        (client.value.name.value.clone(), role(client.value.role.value))
    });
    model::AdminTls {
        certificate: section.certificate.value.clone().into(),
        key: section.key.value.clone().into(),
        client_ca: section.client_ca.as_ref().map(|at| at.value.clone().into()),
        clients: clients.collect(),
    }
}

fn socket(section: &schema::AdminSocketSection, findings: &mut Findings) -> Option<model::AdminSocket> {
    let path = &section.path;
    if path.value.is_empty() || path.value.len() > SOCKET_PATH_BYTES_MAX || path.value.contains('\0') {
        findings.error(
            path.place,
            "bad_path",
            format!("`{}` cannot be the path of a Unix socket", path.value),
            format!("write 1 to {SOCKET_PATH_BYTES_MAX} bytes, for example `/run/ringway/admin.sock`"),
        );
    } else {
        findings.names_file(Some(path), FileUse::Socket, Need::Start);
    }
    let mode = mode(&section.mode, findings)?;
    Some(model::AdminSocket { path: path.value.clone().into(), mode })
}

/// Octal digits, as `chmod` takes them.
fn mode(at: &At<String>, findings: &mut Findings) -> Option<u32> {
    let digits = at.value.strip_prefix("0o").unwrap_or(&at.value);
    let is_octal = !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = is_octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten().filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        findings.error(
            at.place,
            "bad_mode",
            format!("`{}` is not what permissions of a file are", at.value),
            "write three octal digits, for example `0600` or `0660`",
        );
    }
    // To connect to a socket is to write to it.
    if mode.is_some_and(|mode| mode & 0o002 != 0) {
        let message = format!("`{}` lets every user of this host change what runs", at.value);
        findings.warning(at.place, "open_socket", message, "write `0660`, and give the operators the file's group");
    }
    mode
}
