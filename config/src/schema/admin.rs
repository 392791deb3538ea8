//! The admin listener.

use super::*;

choice! {
    /// What an operator may do.
    AdminRoleName { "read" => Read, "operate" => Operate }
}
choice! {
    /// What those may do who show nothing.
    AnonymousName { "none" => None, "read" => Read }
}

section! {
    /// The admin listener. Whoever reaches it shows who it is: a token, a client certificate, or that it may open the Unix socket. Without
    /// `tokens` and `tls.clients`, on loopback, everybody there may read and reload. `/healthz` and `/readyz` are open to all.
    AdminSection, "admin" {
        /// Whether there is one.
        default("true") enabled: bool,
        /// Where it listens; absent is `127.0.0.1:9901`, or nowhere but at the `socket` where there is one. Beyond loopback it wants
        /// `tokens`, `tls` with `clients`, or that `anonymous` is written. Needs a restart.
        optional address: String,
        /// Names without port under which it may be asked to change something, beside `localhost` and IP addresses; on a
        /// loopback address also to read. A page in a browser that has made its own name lead here is refused by that.
        default("[]") hosts: List<String>,
        /// Bearer tokens; several at once while one is replaced by another.
        default("[]") tokens: List<AdminTokenSection>,
        /// TLS of the listener at `address`, but not of the Unix socket; absent is none.
        optional tls: AdminTlsSection,
        /// A Unix socket: who may open it may `operate`. Absent is none. Needs a restart.
        optional socket: AdminSocketSection,
        /// What those may do who show no token and no certificate; absent is `read` (and to reload) on loopback without `tokens` and
        /// `tls.clients`, and `none` otherwise.
        optional anonymous: AnonymousName,
    }
}

section! {
    /// A token and what it allows.
    AdminTokenSection, "a token" {
        /// Name, for the log.
        required name: String,
        /// `read` (everything but secrets), `operate` (changes too).
        required role: AdminRoleName,
        /// File with the token's text: 16 characters or more without blanks. It is followed.
        required file: String,
    }
}

section! {
    /// TLS of the admin listener. Its files are followed.
    AdminTlsSection, "tls" {
        /// PEM file of the certificate.
        required certificate: String,
        /// PEM file of its private key.
        required key: String,
        /// PEM file of the authorities of clients' certificates; absent, they are not asked for.
        optional client_ca: String,
        /// Roles of client certificates, by a name that the certificate has. For `client_ca`.
        default("[]") clients: List<AdminClientSection>,
    }
}

section! {
    /// The role of a client certificate.
    AdminClientSection, "a client" {
        /// DNS name or URI of the certificate, or its common name where it has no alternative names.
        required name: String,
        /// What it may do.
        required role: AdminRoleName,
    }
}

section! {
    /// A Unix socket of the admin listener.
    AdminSocketSection, "socket" {
        /// Where. What is left of a proxy that has gone is replaced; one that answers is not.
        required path: String,
        /// Permissions of the file, in octal digits: whoever may write to it may `operate`.
        default("0600") mode: String,
    }
}
