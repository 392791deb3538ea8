//! Members as processes: started, killed, stopped, cut off.

use crate::client;
use crate::common::{free_port, note, output, path_text, signal, wait_for};
use crate::namespace::Namespaces;
use crate::random::Random;
use crate::relay::{Link, Relay};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// What lies between members.
pub(crate) enum Network {
    Relay(Relay),
    Namespaces(Namespaces),
}

pub(crate) struct Member {
    pub(crate) number: usize,
    /// Where clients reach it.
    pub(crate) api: SocketAddr,
    /// The number that the control plane knows it by.
    pub(crate) node: u64,
    pub(crate) directory: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
    /// More environment, for the next start.
    pub(crate) environment: Vec<(String, String)>,
    /// What it runs from its next start on.
    pub(crate) program: PathBuf,
    child: Option<Child>,
    /// It must go on before it can end.
    paused: bool,
}

/// Killed when dropped.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) network: Network,
    /// Configurations, directories, logs.
    _root: tempfile::TempDir,
}

impl Member {
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Option<Value> {
        client::get(self.api, "/v1/status")
    }

    /// SIGKILL: nothing is written, nothing is said.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            self.paused = false;
        }
    }

    /// SIGTERM, to its end.
    pub(crate) fn terminate(&mut self) {
        signal(self.pid().expect("the member runs"), "TERM");
        assert!(self.ended().success(), "member {} ends in peace: {}", self.number, self.log());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the member runs");
        wait_for("a member to end", || child.try_wait().unwrap())
    }

    pub(crate) fn pause(&mut self) {
        signal(self.pid().expect("the member runs"), "STOP");
        self.paused = true;
    }

    pub(crate) fn resume(&mut self) {
        if std::mem::take(&mut self.paused)
            && let Some(pid) = self.pid()
        {
            signal(pid, "CONT");
        }
    }

    /// `None`: it runs.
    pub(crate) fn exit(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }
}

impl Cluster {
    /// Some members behind relays.
    pub(crate) fn new(name: &str, count: usize, random: &mut Random) -> Self {
        Self::with(name, count, random, |_| {})
    }

    /// `prepare` sees each of them before it is made.
    pub(crate) fn with(name: &str, count: usize, random: &mut Random, prepare: impl FnMut(&mut Member)) -> Self {
        let (relay, root) = (Relay::default(), tempfile::tempdir().unwrap());
        // A part of loopback of its own: a port that a killed member gives free is not drawn by somebody's connection.
        // Nobody else has this port either, in whatever process: it names the part.
        let own = free_port();
        let net = format!("127.{}.{}", own >> 8, own & 255);
        let members = (1..=count).map(|number| {
            let address = format!("{net}.{number}");
            let at = |port| -> SocketAddr { format!("{address}:{port}").parse().unwrap() };
            let (api, peer) = (at(free_port()), at(free_port()));
            let advertised = relay.open(number, peer, random.fork());
            let fields = format!("address: \"{api}\", peer_address: \"{peer}\", peer_advertise: \"{advertised}\"");
            Member::new(root.path(), number, api, &fields)
        });
        let mut members: Vec<Member> = members.collect();
        members.iter_mut().for_each(prepare);
        Self::run(name, Self { members, network: Network::Relay(relay), _root: root })
    }

    /// Some members in namespaces of their own; `None` where there are none to be had.
    pub(crate) fn in_namespaces(name: &str, count: usize) -> Option<Self> {
        let (namespaces, root) = (Namespaces::new(count)?, tempfile::tempdir().unwrap());
        // Members speak TLS with each other as soon as it is not loopback.
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let ca = root.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let members = (1..=count).map(|number| {
            let address = Namespaces::address(number);
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![address.clone()]).unwrap().signed_by(&key, &authority).unwrap();
            let path = |kind: &str| root.path().join(format!("{number}.{kind}"));
            std::fs::write(path("pem"), certificate.pem()).unwrap();
            std::fs::write(path("key"), key.serialize_pem()).unwrap();
            let fields = format!(
                "address: \"127.0.0.1:9700\", peer_address: \"{address}:9701\", peer_tls: {{ ca: {:?}, certificate: {:?}, key: {:?} }}",
                ca,
                path("pem"),
                path("key")
            );
            let door = namespaces.door(number, "127.0.0.1:9700".parse().unwrap());
            Member::new(root.path(), number, door, &fields)
        });
        let members = members.collect();
        Some(Self::run(name, Self { members, network: Network::Namespaces(namespaces), _root: root }))
    }

    /// The first makes the cluster, the others join it, one by one.
    fn run(name: &str, mut this: Self) -> Self {
        let first = &this.members[0];
        ok(&first.program, &["control", "init", "--cluster", name, "-c", path_text(&first.config)]);
        for number in 1..=this.members.len() {
            if number > 1 {
                this.join(number, &[]);
            }
            this.members[number - 1].read_plan();
            this.start(number);
            if number > 1 {
                this.take_in(number);
            }
            this.settled();
        }
        this
    }

    /// Makes a member's directory one that joins.
    pub(crate) fn join(&self, number: usize, more: &[&str]) {
        let others = self.members.iter().filter(|member| member.number != number && member.child.is_some());
        let others: Vec<String> = others.map(|member| format!("http://{}", member.api)).collect();
        let (others, joins) = (others.join(","), self.member(number));
        let mut arguments = vec!["control", "join", "--members", &others, "-c", path_text(&joins.config)];
        arguments.extend(more);
        ok(&joins.program, &arguments);
    }

    /// A member in a namespace does not reach the others' API, which is on their loopback: it is asked for from here.
    fn take_in(&self, number: usize) {
        if matches!(self.network, Network::Relay(_)) {
            return;
        }
        let peer = format!("{}:9701", Namespaces::address(number));
        let body = json!({ "node": self.member(number).node, "name": format!("m{number}"), "peer_address": peer,
            "api_address": "127.0.0.1:9700", "voter": true });
        wait_for("a member to be taken in", || client::json(self.members[0].api, "POST", "/v1/members", &body).ok());
    }

    pub(crate) fn member(&self, number: usize) -> &Member {
        &self.members[number - 1]
    }

    pub(crate) fn member_mut(&mut self, number: usize) -> &mut Member {
        &mut self.members[number - 1]
    }

    pub(crate) fn apis(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.api).collect()
    }

    /// Starts a member that does not run.
    pub(crate) fn start(&mut self, number: usize) {
        let namespace = match &self.network {
            Network::Namespaces(namespaces) => Some(namespaces.name(number).to_owned()),
            Network::Relay(_) => None,
        };
        let member = self.member_mut(number);
        assert!(member.child.is_none());
        let mut command = match namespace {
            None => Command::new(&member.program),
            // It becomes the program: its number is the member's.
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &name]).arg(&member.program);
                command
            }
        };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&member.log).unwrap();
        command.args(["control", "run", "-c"]).arg(&member.config).stdout(Stdio::null()).stderr(log);
        command.envs(member.environment.iter().cloned());
        member.child = Some(command.spawn().unwrap());
    }

    /// Starts all that do not run, and lets go on all that are stopped.
    pub(crate) fn start_all(&mut self) {
        for number in 1..=self.members.len() {
            self.member_mut(number).resume();
            if self.member(number).child.is_none() {
                self.start(number);
            }
        }
    }

    /// No cut, no delay, nobody down.
    pub(crate) fn mend(&mut self) {
        match &self.network {
            Network::Relay(relay) => relay.mend(),
            Network::Namespaces(namespaces) => namespaces.mend(),
        }
        self.start_all();
    }

    /// What `from` sends to `to` does not come; of a relay, neither do the answers on the connections that `from` makes.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        match &self.network {
            Network::Relay(relay) => relay.set(from, to, Link { cut: true, ..Link::default() }),
            Network::Namespaces(namespaces) => namespaces.cut(from, to),
        }
    }

    /// The number of the member that leads, once there is one that all its voters follow.
    pub(crate) fn settled(&mut self) -> usize {
        wait_for("the members to settle", || {
            for member in &mut self.members {
                if let Some(status) = member.exit() {
                    panic!("member {} has ended with {status}: {}", member.number, member.log());
                }
            }
            self.agreed_leader()
        })
    }

    fn agreed_leader(&self) -> Option<usize> {
        let running = self.members.iter().filter(|member| member.child.is_some() && !member.paused);
        let known: Option<Vec<(u64, u64, String)>> = running
            .map(|member| {
                let status = member.status()?;
                // A new cluster is one when it has its name.
                let role = status["member"]["role"].as_str().filter(|_| status["cluster"] != "")?.to_owned();
                Some((status["leader"]["node"].as_u64()?, status["member"]["term"].as_u64()?, role))
            })
            .collect();
        note(format!("leader, term and role, as each says: {known:?}"));
        let known = known?;
        let first = known.first()?;
        let same = known.iter().all(|one| (one.0, one.1) == (first.0, first.1));
        let sound = known.iter().all(|one| matches!(one.2.as_str(), "leader" | "follower"));
        let leader = self.members.iter().find(|member| member.node == first.0)?;
        (same && sound).then_some(leader.number)
    }

    /// Who leads, as far as anybody says; some follower of its own account otherwise.
    pub(crate) fn leader_or(&self, random: &mut Random) -> usize {
        let running: Vec<&Member> =
            self.members.iter().filter(|member| member.child.is_some() && !member.paused).collect();
        let leader =
            running.iter().find(|member| member.status().is_some_and(|status| status["member"]["role"] == "leader"));
        leader.map_or_else(|| random.pick(&running).number, |leader| leader.number)
    }
}

impl Member {
    pub(crate) fn new(root: &Path, number: usize, api: SocketAddr, fields: &str) -> Self {
        let directory = root.join(format!("m{number}"));
        let config = root.join(format!("m{number}.yaml"));
        let text = format!("control:\n  member: {{ name: m{number}, directory: {directory:?}, {fields} }}\n");
        std::fs::write(&config, text).unwrap();
        Self {
            number,
            api,
            node: 0,
            directory,
            config,
            log: root.join(format!("m{number}.log")),
            environment: Vec::new(),
            program: env!("CARGO_BIN_EXE_ringway").into(),
            child: None,
            paused: false,
        }
    }

    /// Who it is, after `init` or `join`.
    pub(crate) fn read_plan(&mut self) {
        let plan = std::fs::read(self.directory.join("member.json")).unwrap();
        self.node = serde_json::from_slice::<Value>(&plan).unwrap()["node"].as_u64().unwrap();
    }
}

/// A command of that build's, which must succeed.
/// `ringway`, to a good end.
pub(crate) fn ringway_ok(arguments: &[&str]) -> String {
    ok(Path::new(env!("CARGO_BIN_EXE_ringway")), arguments)
}

fn ok(program: &Path, arguments: &[&str]) -> String {
    let done = output(path_text(program), arguments);
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
            if std::thread::panicking() {
                let log = member.log();
                let tail = log.len().saturating_sub(6000);
                let tail = (tail..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
                eprintln!("the end of member {}'s log:\n{}", member.number, &log[tail..]);
            }
        }
    }
}
