//! The sections of the control plane: what a proxy pulls from, and what a member is.

use crate::decode::{Decode, Field, Int, List, SectionReader, Shape, choice, section};
use crate::diagnostic::At;
use crate::diagnostic::Place;
use crate::findings::Findings;
use crate::node::Node;
use std::time::Duration;

choice! {
    /// Timing of elections.
    TimingName { "lan" => Lan, "wan" => Wan }
}
choice! {
    /// Kind of DNS record.
    DnsRecordName { "a" => A, "srv" => Srv }
}
choice! {
    /// Which families of addresses a name is looked up for, and what they make.
    DnsFamiliesName { "all" => All, "either" => Either, "v4" => V4, "v6" => V6 }
}
choice! {
    /// What a client of the control plane may do.
    RoleName { "read" => Read, "register" => Register, "operate" => Operate, "admin" => Admin }
}

section! {
    /// The control plane. It is never on the way of a request: without it, what was in force stays. Needs a restart.
    ControlSection, "control" {
        /// API addresses of members, for example `https://10.0.0.1:9700`: the topology is pulled from any of them.
        default("[]") members: List<String>,
        /// Whether a member runs in this process: `member` says how. The topology is pulled from it.
        default("false") embedded: bool,
        /// This proxy's name in the fleet; absent is the host's name with the admin listener's port.
        optional proxy: String,
        /// Directory for the last topology that was good, so that the proxy starts without the control plane.
        default("ringway-data") directory: String,
        /// File with the bearer token that is shown to members; absent is none.
        optional token_file: String,
        /// How members are checked, and what is shown to them; for addresses with `https`.
        default("{}") tls: ControlTlsSection,
        /// The topology is pulled from etcd, by operators that run it already, instead of from members.
        optional etcd: EtcdSection,
        /// A member of the control plane: `ringway control run`, or `embedded`.
        optional member: MemberSection,
    }
}

section! {
    /// etcd, version 3.4 or later, as the store of the topology. Needs a restart.
    EtcdSection, "etcd" {
        /// Client addresses of its members, for example `https://10.0.0.1:2379`: any will do.
        required endpoints: List<String>,
        /// What the topology's keys begin with: `document/main`, `service/NAME`, `backend/SERVICE/ID` and
        /// `certificate/NAME` follow it.
        default("/ringway/") prefix: String,
        /// User, where etcd asks for one; with `password_file`.
        optional username: String,
        /// File with the user's password. It is read at each connection.
        optional password_file: String,
        /// How etcd is checked, and what is shown to it; for addresses with `https`.
        default("{}") tls: ControlTlsSection,
    }
}

section! {
    /// TLS towards members, or etcd.
    ControlTlsSection, "tls" {
        /// PEM file of the authorities that their certificates come from; absent are the public ones.
        optional ca: String,
        /// PEM file of a certificate that is shown to them; with `key`.
        optional certificate: String,
        /// PEM file of its private key.
        optional key: String,
        /// Name that their certificates must have; absent is the host of the address.
        optional name: String,
    }
}

section! {
    /// A member of the control plane.
    MemberSection, "member" {
        /// Its name, unique in the control plane.
        default("member-1") name: String,
        /// Directory of its log. It belongs to this member alone.
        default("ringway-control") directory: String,
        /// Where the API listens.
        default("127.0.0.1:9700") address: String,
        /// Where members listen for each other.
        default("127.0.0.1:9701") peer_address: String,
        /// Address under which clients find the API, where it is another than `address`.
        optional advertise: String,
        /// Address under which the other members find this one, where it is another than `peer_address`.
        optional peer_advertise: String,
        /// TLS of the API; absent is none, for loopback only.
        optional tls: MemberTlsSection,
        /// TLS between members, both sides showing certificates of this authority; absent is none, for loopback only.
        optional peer_tls: PeerTlsSection,
        /// Elections: `lan` notices a dead leader after half a second, `wan` after two and a half.
        default("lan") timing: TimingName,
        /// Tokens that hold before any is in the log, the first admin's above all.
        default("[]") tokens: List<TokenSection>,
        /// Roles of client certificates, by a name that the certificate has. For `tls` with `client_ca`.
        default("[]") clients: List<ClientRoleSection>,
        /// What clients without a token and without a certificate may do; absent is all on a loopback address without any
        /// token, and nothing otherwise.
        optional anonymous: RoleName,
        /// File of the audit log, a JSON line for each change that was asked for; absent is the process's log.
        optional audit_log: String,
        /// Directory of hourly backups; absent is none.
        optional backups: String,
        /// What is taken for an accident, unless it is forced. Whoever is asked judges: every member should have the same.
        default("{}") guards: GuardsSection,
        /// After how long a proxy that is not heard of is no longer listed. One that is stopped in order signs off, and is
        /// not listed from then on.
        default("1h") proxy_forget: Duration,
        /// Where backends are found. Every member should have the same: the one that leads looks, and what it finds is
        /// registered, so that all proxies place keys over one agreed set.
        default("[]") sources: List<SourceSection>,
    }
}

section! {
    /// Guards against accidents. A change that leaves nothing to take traffic is one, whatever they say.
    GuardsSection, "guards" {
        /// So much of a service's weight, or of the listeners, may go at once, in percent.
        default("50") loss_percent: Int<0, 100>,
    }
}

section! {
    /// A source of backends: exactly one of `dns`, `directory` and `etcd`.
    SourceSection, "a source" {
        /// Unique name: backends that it has registered, and no others, are its own to change and remove.
        required name: String,
        /// Names that are looked up, for one service.
        optional dns: DnsSourceSection,
        /// Files that are watched.
        optional directory: DirectorySourceSection,
        /// Keys of etcd that are watched, for one service.
        optional etcd: EtcdSourceSection,
    }
}

section! {
    /// Backends by DNS. A response without addresses, or none at all, changes nothing.
    DnsSourceSection, "dns" {
        /// The service that they are backends of.
        required service: String,
        /// The name, for example `api.internal`, or `_http._tcp.api.internal` for `record: srv`.
        required name: String,
        /// `a` is A and AAAA records, whose backends are known by their addresses; `srv` brings names (their identities), ports
        /// and weights.
        default("a") record: DnsRecordName,
        /// For `record: a`.
        optional port: Int<1, { u16::MAX as u64 }>,
        /// Addresses that are looked up. `all`: A and AAAA records, each address a backend. `either`: the same, but a name that has
        /// exactly one of each kind is one backend, which is reached by either (`additional_address`). `v4`, `v6`: records of that
        /// kind alone. Absent is `either` for `record: srv`, whose targets are hosts, and `all` for `record: a`.
        optional families: DnsFamiliesName,
        /// Name servers, `10.0.0.2:53`; absent are the system's.
        default("[]") servers: List<String>,
        /// Records are looked up again when their time to live has passed, but no more often than this,
        default("1s") interval_min: Duration,
        /// and no more seldom than this.
        default("30s") interval_max: Duration,
    }
}

section! {
    /// Backends by files: each `*.yaml` has a list of `{ service, id, address, additional_address, weight, tier, zone, drain,
    /// maintenance }`. A file that is wrong is told, and what it said before stays.
    DirectorySourceSection, "directory" {
        /// The directory. It is watched.
        required path: String,
    }
}

section! {
    /// Backends by keys of etcd: what follows the prefix is the backend's id, and the value is `IP:PORT`, or the JSON that
    /// the API takes for a backend. A value that is wrong is told, and what it said before stays; no keys at all change
    /// nothing.
    EtcdSourceSection, "etcd" {
        /// The service that they are backends of.
        required service: String,
        /// Client addresses of etcd's members, for example `https://10.0.0.1:2379`: any will do.
        required endpoints: List<String>,
        /// What the keys begin with, for example `/services/api/`.
        required prefix: String,
        /// User, where etcd asks for one; with `password_file`.
        optional username: String,
        /// File with the user's password. It is read at each connection.
        optional password_file: String,
        /// How etcd is checked, and what is shown to it; for addresses with `https`.
        default("{}") tls: ControlTlsSection,
    }
}

section! {
    /// A backend in a file of a directory source.
    FileBackendSection, "a backend" {
        /// The service that it is a backend of.
        required service: String,
        /// Stable identity, unique in the service.
        required id: String,
        /// IP address and port.
        required address: String,
        /// The same backend's address of the other family, with a port.
        optional additional_address: String,
        /// 100 is normal.
        default("100") weight: Int<0, 1600>,
        /// 0 takes the traffic; 1 and higher are backups.
        default("0") tier: Int<0, 7>,
        /// The zone that it stands in.
        optional zone: String,
        /// It takes no new keys.
        default("false") drain: bool,
        /// As `drain`, and no client stays on it.
        default("false") maintenance: bool,
    }
}

section! {
    /// TLS of the control plane's API.
    MemberTlsSection, "tls" {
        /// PEM file of the certificate.
        required certificate: String,
        /// PEM file of its private key.
        required key: String,
        /// PEM file of the authorities of clients' certificates; absent, they are not asked for.
        optional client_ca: String,
    }
}

section! {
    /// TLS between members.
    PeerTlsSection, "peer_tls" {
        /// PEM file of the authority of all members' certificates: it should issue nothing else.
        required ca: String,
        /// PEM file of this member's certificate.
        required certificate: String,
        /// PEM file of its private key.
        required key: String,
    }
}

section! {
    /// A token and what it allows.
    TokenSection, "a token" {
        /// Name, for the audit log.
        required name: String,
        /// `read`, `register` (backends and heartbeats), `operate` (changes), `admin` (members, tokens, restore).
        required role: RoleName,
        /// File with the token's text.
        required file: String,
    }
}

section! {
    /// The role of a client certificate.
    ClientRoleSection, "a client" {
        /// DNS name or URI of the certificate, or its common name where it has no alternative names.
        required name: String,
        /// What it may do.
        required role: RoleName,
    }
}
