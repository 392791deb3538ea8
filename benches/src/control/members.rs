//! Members as processes, with certificates of their own.

use crate::compare::{Result, free_port};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringway_control::http::Api;
use ringway_control::member::client_settings;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A bearer token for everything.
const TOKEN: &str = "a-token-for-measuring-with";

/// One member.
pub struct Process {
    child: Child,
    config: PathBuf,
    /// Of its API.
    pub url: String,
    /// Its number in the cluster.
    pub node: u64,
}

/// Three members, killed when dropped.
pub struct Members {
    directory: PathBuf,
    binary: PathBuf,
    /// In the order in which they joined.
    pub list: Vec<Process>,
}

fn text<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String + '_ {
    move |error| format!("{what}: {error}")
}

/// An authority and one certificate of it, for everybody.
fn certificates(directory: &Path) -> Result<()> {
    let key = KeyPair::generate().map_err(text("key"))?;
    let mut params = CertificateParams::new(Vec::new()).map_err(text("authority"))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).map_err(text("authority"))?;
    let issuer = Issuer::from_params(&params, &key);
    let own = KeyPair::generate().map_err(text("key"))?;
    let leaf = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).map_err(text("certificate"))?;
    let leaf = leaf.signed_by(&own, &issuer).map_err(text("certificate"))?;
    for (name, content) in [("ca.pem", ca.pem()), ("c.pem", leaf.pem()), ("k.pem", own.serialize_pem())] {
        std::fs::write(directory.join(name), content).map_err(text(name))?;
    }
    std::fs::write(directory.join("token"), TOKEN).map_err(text("token"))
}

impl Members {
    /// Starts `count`, and waits until all vote.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn start(binary: &Path, directory: &Path, count: usize) -> Result<Self> {
        certificates(directory)?;
        let mut members = Self { directory: directory.to_owned(), binary: binary.to_owned(), list: Vec::new() };
        for index in 0..count {
            let (api, peers) = (free_port()?, free_port()?);
            let config = directory.join(format!("m{index}.yaml"));
            let at = |name: &str| directory.join(name);
            let yaml = format!(
                "control:\n  member:\n    name: m{index}\n    directory: {:?}\n    address: \"127.0.0.1:{api}\"\n    \
                 peer_address: \"127.0.0.1:{peers}\"\n    tls: {{ certificate: {c:?}, key: {k:?}, client_ca: {ca:?} }}\n    \
                 peer_tls: {{ ca: {ca:?}, certificate: {c:?}, key: {k:?} }}\n    \
                 tokens: [ {{ name: bench, role: admin, file: {:?} }} ]\n",
                at(&format!("d{index}")),
                at("token"),
                c = at("c.pem"),
                k = at("k.pem"),
                ca = at("ca.pem"),
            );
            std::fs::write(&config, yaml).map_err(text("write a file"))?;
            let mut command = Command::new(binary);
            match members.list.first() {
                None => command.args(["control", "init", "--cluster", "bench", "-c"]).arg(&config),
                Some(first) => command
                    .args(["control", "join", "-c"])
                    .arg(&config)
                    .args(["--members", &first.url, "--token-file"])
                    .arg(at("token"))
                    .arg("--ca")
                    .arg(at("ca.pem")),
            };
            let output = command.output().map_err(text("run ringway"))?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
            let child = members.spawn(&config)?;
            let url = format!("https://127.0.0.1:{api}");
            members.list.push(Process { child, config, url: url.clone(), node: 0 });
            let one = members.api_of(&[url])?;
            members
                .wait("a member to answer", async || one.json(hyper::Method::GET, "/v1/status", None).await.ok())
                .await?;
        }
        let api = members.api()?;
        members
            .wait("all members to vote", async || {
                let list = api.json(hyper::Method::GET, "/v1/members", None).await.ok()?;
                let voters = list["members"].as_array()?.iter().filter(|member| member["voter"] == true).count();
                (voters == count).then_some(())
            })
            .await?;
        let list = api.json(hyper::Method::GET, "/v1/members", None).await.map_err(text("members"))?;
        for member in list["members"].as_array().into_iter().flatten() {
            let address = member["api_address"].as_str().unwrap_or_default();
            if let Some(process) = members.list.iter_mut().find(|process| process.url.ends_with(address)) {
                process.node = member["node"].as_u64().unwrap_or(0);
            }
        }
        Ok(members)
    }

    fn spawn(&self, config: &Path) -> Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log"));
        let mut command = Command::new(&self.binary);
        command.args(["control", "run", "-c"]).arg(config).env("RINGWAY_LOG", "warn,openraft=error");
        command.stdout(Stdio::null()).stderr(log.map_err(text("log"))?);
        command.spawn().map_err(text("start a member"))
    }

    /// Until something is so, for at most half a minute.
    ///
    /// # Errors
    /// It was not.
    pub async fn wait<T>(&self, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = condition().await {
                return Ok(found);
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err(format!("waited in vain for {what}"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A client of all members.
    ///
    /// # Errors
    /// Certificates that cannot be read.
    pub fn api(&self) -> Result<Api> {
        self.api_of(&self.list.iter().map(|process| process.url.clone()).collect::<Vec<_>>())
    }

    /// A client of some members.
    ///
    /// # Errors
    /// As [`Members::api`].
    pub fn api_of(&self, urls: &[String]) -> Result<Api> {
        let at = |name: &str| self.directory.join(name);
        let mut settings = client_settings(urls, Some(at("token")), Some(at("ca.pem")));
        settings.identity = Some((at("c.pem"), at("k.pem")));
        Api::new(&settings).map_err(text("client"))
    }

    /// Index of the leader.
    ///
    /// # Errors
    /// There is none.
    pub async fn leader(&self, api: &Api) -> Result<usize> {
        self.wait("a leader", async || {
            let list = api.json(hyper::Method::GET, "/v1/members", None).await.ok()?;
            let leader =
                list["members"].as_array()?.iter().find(|member| member["leader"] == true)?["node"].as_u64()?;
            self.list.iter().position(|process| process.node == leader)
        })
        .await
    }

    /// kill -9.
    ///
    /// # Errors
    /// It cannot be.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        let child = &mut self.list[index].child;
        child.kill().and_then(|()| child.wait()).map(drop).map_err(text("kill"))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It cannot be.
    pub fn signal(&self, index: usize, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.list[index].child);
        rustix::process::kill_process(pid, signal).map_err(text("signal a member"))
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It cannot be.
    pub fn bring_back(&mut self, index: usize) -> Result<()> {
        self.list[index].child = self.spawn(&self.list[index].config)?;
        Ok(())
    }

    /// Processor time of a member so far, in seconds.
    #[must_use]
    pub fn cpu(&self, index: usize) -> f64 {
        cpu_of(self.list[index].child.id())
    }

    /// Of its files: `token`, `ca.pem`, `c.pem`, `k.pem`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is measured.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Resident memory of a member, in KiB.
    #[must_use]
    pub fn memory(&self, index: usize) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.list[index].child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0)
    }
}

/// Processor time of a process so far, in seconds.
pub(super) fn cpu_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|&at| fields.get(at)?.parse::<f64>().ok()).sum();
    // The kernel counts in hundredths for user space, whatever its own tick.
    ticks / 100.0
}

impl Drop for Members {
    fn drop(&mut self) {
        for process in &mut self.list {
            // It may be dead already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}
