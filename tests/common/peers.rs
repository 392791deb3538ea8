//! What it takes to speak with TLS and HTTP/2: certificates, configurations with several listeners, frames.

use super::{output, require};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

/// Certificates of one authority, made by openssl.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    pub fn new() -> Option<Self> {
        require("openssl")?;
        let this = Self(tempfile::tempdir().unwrap());
        let args = ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=ca"];
        this.openssl(&[&args[..], &NEW_KEY, &["-keyout", "ca.key", "-out", "ca.pem"]].concat());
        Some(this)
    }

    pub fn openssl(&self, arguments: &[&str]) {
        let made = Command::new("openssl").args(arguments).current_dir(self.0.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// A certificate for these names, valid for so many days, in `NAME.pem` and `NAME.key`.
    pub fn issue(&self, name: &str, names: &str, days: &str) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        std::fs::write(self.path("names.ext"), format!("subjectAltName={names}\n")).unwrap();
        let args = ["req", "-nodes", "-subj", "/CN=leaf"];
        self.openssl(&[&args[..], &NEW_KEY, &["-keyout", &key, "-out", &request]].concat());
        let args = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        self.openssl(&[&args[..], &["-days", days, "-extfile", "names.ext", "-out", &certificate]].concat());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// `{ certificate: ..., key: ... }`
    pub fn entry(&self, name: &str) -> String {
        format!(
            "{{ certificate: \"{}\", key: \"{}\" }}",
            self.text(&format!("{name}.pem")),
            self.text(&format!("{name}.key"))
        )
    }
}

const NEW_KEY: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

/// A file of listeners and services around these backends.
pub fn config(listeners: &str, services: &str) -> String {
    format!("workers: 2\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n{listeners}\nservices:\n{services}\n")
}

pub fn service(name: &str, more: &str, backends: &[(&str, SocketAddr)]) -> String {
    let backends: Vec<String> =
        backends.iter().map(|(id, address)| format!("{{ id: {id}, address: \"{address}\" }}")).collect();
    format!("  - {{ name: {name}, {more} backends: [ {} ] }}\n", backends.join(", "))
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What curl gets.
pub fn curl_body(arguments: &[&str]) -> String {
    let done = output("curl", &[&["-sS", "--max-time", "10"][..], arguments].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}
