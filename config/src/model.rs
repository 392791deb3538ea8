//! The configuration after validation: what `schema` parses into, and all that the rest of Ringway sees.
//!
//! Nothing here is optional that "cannot be absent": defaults are filled in, names are resolved to indices, and what is
//! invalid has been refused.

mod admin;
mod control;
mod handoff;
mod key;
mod listener;
mod log;
mod networks;
mod route;
mod service;
mod shed;
mod tracing;
mod upstream;

pub use admin::*;
pub use control::{
    Control, DnsFamilies, DnsSource, Etcd, EtcdSource, Member, MemberTls, MemberUrl, Role, Source, SourceKind,
    TokenFile,
};
pub use handoff::*;
pub use key::*;
pub use listener::*;
pub use log::*;
pub use networks::Networks;
pub use route::*;
pub use service::*;
pub use shed::*;
pub use tracing::*;
pub use upstream::*;

use crate::diagnostic::Site;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A whole configuration, valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The admin listener, or none (`admin: {enabled: false}`).
    pub admin: Option<Admin>,
    /// What concerns the process as a whole.
    pub process: Process,
    /// What the process stops doing under pressure; none is nothing.
    pub overload: Option<Overload>,
    /// How often backends are compared with their peers, for the log; none is never.
    pub outlier_interval: Option<Duration>,
    /// Where and how requests are logged.
    pub access_log: AccessLog,
    /// What the metrics hold.
    pub metrics: Metrics,
    /// Where traces of requests go, if they do.
    pub tracing: Option<Tracing>,
    /// The zone that this proxy stands in.
    pub zone: Option<String>,
    /// A file whose placements are compared with these on live traffic.
    pub shadow: Option<std::path::PathBuf>,
    /// Between the signal, when readiness is withdrawn, and the drain.
    pub drain_delay: Duration,
    /// How long a drain may take (SIGTERM, removed listeners).
    pub drain_timeout: Duration,
    /// Idle connections of listeners that go close one by one within this time; zero is at once.
    pub drain_spread: Duration,
    /// The control plane, or none.
    pub control: Option<Control>,
    /// Addresses that accept traffic, in file order.
    pub listeners: Vec<Listener>,
    /// Groups of backends, in file order; routes refer to them by index.
    pub services: Vec<Arc<Service>>,
}

impl Config {
    /// Services that another version has too become that version's: what is the same is held once, and is told by its address.
    pub fn share(&mut self, other: &Self) {
        let known: HashMap<&str, &Arc<Service>> =
            other.services.iter().map(|service| (service.name.as_str(), service)).collect();
        for service in &mut self.services {
            if let Some(same) = known.get(service.name.as_str()).filter(|other| **other == service) {
                *service = Arc::clone(same);
            }
        }
    }

    pub(crate) fn sites(&mut self) -> impl Iterator<Item = &mut Site> {
        let admin = self.admin.iter_mut().map(|admin| &mut admin.site);
        let overload = self.overload.iter_mut().map(|overload| &mut overload.memory_site);
        admin.chain(overload).chain(self.listeners.iter_mut().map(|listener| &mut listener.site))
    }

    /// The files that it names and whose content matters: certificates, keys, authorities, tokens of the admin listener.
    #[must_use]
    pub fn files(&self) -> Vec<&std::path::Path> {
        let mut files: Vec<&std::path::Path> = Vec::new();
        for tls in self.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            for one in &tls.certificates {
                files.extend([one.certificate.as_path(), &one.key]);
                files.extend(one.ocsp.as_deref());
            }
            files.extend(tls.client.as_ref().map(|client| client.ca.as_path()));
        }
        for listener in &self.listeners {
            if let Protocol::Http(http) = &listener.protocol {
                files.extend(http.errors.iter().filter_map(|answer| answer.file.as_deref()));
            }
        }
        if let Some(admin) = &self.admin {
            files.extend(admin.files());
        }
        for service in &self.services {
            if let Some(tls) = &service.tls {
                files.extend(tls.files());
            }
            let check = service.health.as_ref().and_then(|health| health.tls.as_ref());
            files.extend(check.iter().flat_map(|tls| tls.files()));
        }
        let collector = self.tracing.as_ref().and_then(|tracing| tracing.tls.as_ref());
        files.extend(collector.iter().flat_map(|tls| tls.files()));
        files.retain(|path| certificate_reference(path).is_none());
        files
    }

    /// A certificate that the file says the control plane has, and which it has not said yet.
    #[must_use]
    pub fn awaited_certificate(&self) -> Option<&str> {
        let listeners = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let own =
            listeners.flat_map(|tls| tls.certificates.iter().flat_map(|one| [one.certificate.as_path(), &one.key]));
        let checks = self.services.iter().filter_map(|service| service.health.as_ref()?.tls.as_ref());
        let upstream = self.services.iter().filter_map(|service| service.tls.as_ref()).chain(checks);
        let admin = self.admin.iter().flat_map(Admin::files);
        own.chain(admin).chain(upstream.flat_map(UpstreamTls::files)).find_map(certificate_reference)
    }
}

/// The name in `control:NAME`, where that stands in place of a path.
fn certificate_reference(path: &std::path::Path) -> Option<&str> {
    path.to_str()?.strip_prefix(crate::files::REFERENCE)
}

/// A file of certificates, and who uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateFile<'a> {
    /// `listener`, `admin`, `service`, `health` or `control`.
    pub used_by: &'static str,
    /// The listener's or the service's name; empty for the control plane and the admin listener.
    pub name: &'a str,
    /// PEM.
    pub path: &'a std::path::Path,
    /// Others' certificates are checked by it; if not, it is shown to them.
    pub is_authority: bool,
}

impl Config {
    /// The files of certificates that it names, each once for each of its users.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateFile<'_>> {
        fn add<'a>(
            files: &mut Vec<CertificateFile<'a>>,
            (used_by, name): (&'static str, &'a str),
            path: Option<&'a std::path::PathBuf>,
            is_authority: bool,
        ) {
            files.extend(path.map(|path| CertificateFile { used_by, name, path, is_authority }));
        }
        let mut files = Vec::new();
        for listener in &self.listeners {
            let Some(tls) = &listener.tls else { continue };
            for one in &tls.certificates {
                add(&mut files, ("listener", &listener.name), Some(&one.certificate), false);
            }
            add(&mut files, ("listener", &listener.name), tls.client.as_ref().map(|client| &client.ca), true);
        }
        if let Some(tls) = self.admin.as_ref().and_then(|admin| admin.tls.as_ref()) {
            add(&mut files, ("admin", ""), Some(&tls.certificate), false);
            add(&mut files, ("admin", ""), tls.client_ca.as_ref(), true);
        }
        for service in &self.services {
            let check = service.health.as_ref().and_then(|health| health.tls.as_ref());
            // A check that speaks as the traffic does is no other user.
            let check = check.filter(|check| service.tls.as_ref() != Some(check));
            for (used_by, tls) in [("service", service.tls.as_ref()), ("health", check)] {
                let own = tls.and_then(|tls| tls.own.as_ref());
                add(&mut files, (used_by, &service.name), own.map(|(certificate, _)| certificate), false);
                add(
                    &mut files,
                    (used_by, &service.name),
                    tls.filter(|tls| tls.verify).and_then(|tls| tls.ca.as_ref()),
                    true,
                );
            }
        }
        if let Some(control) = &self.control {
            let etcd = control.etcd.as_ref();
            for identity in [&control.identity].into_iter().chain(etcd.map(|etcd| &etcd.identity)) {
                add(&mut files, ("control", ""), identity.as_ref().map(|(certificate, _)| certificate), false);
            }
            for ca in [&control.ca].into_iter().chain(etcd.map(|etcd| &etcd.ca)) {
                add(&mut files, ("control", ""), ca.as_ref(), true);
            }
        }
        let mut seen = std::collections::HashSet::new();
        files.retain(|file| seen.insert((file.used_by, file.name, file.path)));
        files
    }
}

/// How much the metrics say of each backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    /// Everything.
    Full,
    /// Everything up to so many backends, then [`Metrics::Basic`].
    FullUpTo(usize),
    /// One number of each metric.
    Basic,
    /// Nothing.
    Nothing,
}

/// What concerns the process as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Data-path threads; 0 is one per core. Needs a restart.
    pub workers: usize,
    /// Most client connections at once, over all listeners.
    pub connections_max: usize,
}

/// What the process stops doing as what it may use comes to its end. Thresholds are shares: 1 is all.
#[derive(Debug, Clone, PartialEq)]
pub struct Overload {
    /// Most resident memory; none is the limit of the cgroup.
    pub memory_bytes_max: Option<u64>,
    /// Where that stands.
    pub memory_site: Site,
    /// How late a worker may be; none is not looked at.
    pub lag_max: Option<Duration>,
    /// Whether client connections and descriptors are looked at.
    pub connections: bool,
    /// From here on responses end their connections.
    pub stop_keep_alive: f64,
    /// From here on some of what is new is refused, by its priority.
    pub shed_low_priority: f64,
    /// What is of default priority too, before all is.
    pub sheds_default: bool,
    /// From here on what is new is refused.
    pub refuse_requests: f64,
    /// From here on connections are not accepted.
    pub stop_accepting: f64,
    /// How long the share has to stay lower before a stage ends.
    pub hold: Duration,
}

/// The access log.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Form of a line, or `Off`.
    pub format: AccessLogFormat,
    /// What a line has.
    pub line: LogLine,
    /// Where lines go.
    pub target: LogTarget,
    /// Of what lines are written, if not of everything.
    pub only: Option<AccessLogOnly>,
}

/// Of what the access log has lines.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLogOnly {
    /// Statuses, from and to.
    pub statuses: Vec<(u16, u16)>,
    /// What has taken longer.
    pub slower_than: Option<Duration>,
    /// Share of the rest, 0 to 1.
    pub sample: f64,
}

impl AccessLogOnly {
    /// Whether there is a line of what has this status (0 is none) and has taken so long. `chance` is asked for a random number where
    /// neither says so.
    pub fn takes(&self, status: u16, elapsed: Duration, chance: impl FnOnce() -> u64) -> bool {
        self.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status))
            || self.slower_than.is_some_and(|most| elapsed > most)
            || self.sample > 0.0 && (chance() >> 11) as f64 / ((1_u64 << 53) as f64) < self.sample
    }
}

/// Form of an access log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// No access log.
    Off,
    /// One JSON object a line.
    Json,
    /// One line of text; usually of `name=value` pairs.
    Text,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; opened again when it was renamed.
    File(std::path::PathBuf),
    /// A syslog server's socket on this host, for datagrams.
    SyslogUnix(std::path::PathBuf),
    /// A syslog server, by UDP: host and port.
    SyslogUdp(String),
    /// A syslog server, by TCP: host and port.
    SyslogTcp(String),
}

impl LogTarget {
    /// Reads `stdout`, `stderr`, `syslog`, `syslog:/dev/log`, `syslog+udp://HOST:PORT`, `syslog+tcp://HOST:PORT`, or a path. `None`: what
    /// begins as one of a syslog server is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let server = |text: &str| {
            let (host, port) = text.rsplit_once(':')?;
            let is_host =
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
            (is_host && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| text.to_owned())
        };
        Some(match text {
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            "syslog" => Self::SyslogUnix("/dev/log".into()),
            _ => {
                if let Some(text) = text.strip_prefix("syslog+udp://") {
                    Self::SyslogUdp(server(text)?)
                } else if let Some(text) = text.strip_prefix("syslog+tcp://") {
                    Self::SyslogTcp(server(text)?)
                } else if let Some(path) = text.strip_prefix("syslog:") {
                    Self::SyslogUnix(Some(path).filter(|path| path.starts_with('/'))?.into())
                } else if text.starts_with("syslog+") {
                    return None;
                } else {
                    Self::File(text.into())
                }
            }
        })
    }
}

impl std::fmt::Display for LogTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
            Self::SyslogUnix(path) => write!(f, "syslog:{}", path.display()),
            Self::SyslogUdp(server) => write!(f, "syslog+udp://{server}"),
            Self::SyslogTcp(server) => write!(f, "syslog+tcp://{server}"),
        }
    }
}
