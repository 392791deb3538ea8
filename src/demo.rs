//! `ringway demo`: sample backends, two proxies and a control plane of three in one process, nothing else needed.

use crate::run::{self, EmbeddedMember};
use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use ringway_control::http::Api;
use ringway_control::member::{Origin, Plan, client_settings};
use ringway_fleet::Fleet;
use ringway_proxy::Proxy;
use ringway_telemetry::Metrics;
use serde_json::json;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Members of the demo's control plane: one may die.
const MEMBERS: usize = 3;

/// Runs the demo until SIGTERM or SIGINT.
pub(crate) fn demo(at: &Addresses, backends: u16) -> anyhow::Result<ExitCode> {
    crate::terminal::install_logs();
    let directory = Directory::make()?;
    run::control_runtime()?.block_on(async {
        let stop = run::stop_signals()?;
        let mut addresses = Vec::new();
        for index in 0..backends {
            let socket = TcpListener::bind("127.0.0.1:0").await.context("bind a sample backend")?;
            addresses.push((format!("backend-{}", index + 1), socket.local_addr()?));
            // Backends get threads of their own: the control thread must stay free for checks and reloads.
            let id = format!("backend-{}", index + 1);
            let socket = socket.into_std()?;
            std::thread::Builder::new().name(id.clone()).spawn(move || serve(socket, id))?;
        }
        let members = members(&directory.0, at.control).await?;
        let urls: Vec<String> = members.iter().map(|(_, address)| format!("http://{address}")).collect();
        let api = Api::new(&client_settings(&urls, None, None))?;
        publish(&api, &addresses).await.context("put the sample service into the control plane")?;
        let metrics = Metrics::install();
        let (first, first_fleet) = proxy(&directory.0, "proxy-1", at.listen, Some(at.admin), &urls, metrics).await?;
        let second_listen = SocketAddr::new(at.listen.ip(), 0);
        let (second, second_fleet) =
            proxy(&directory.0, "proxy-2", second_listen, None, &urls, Metrics::install()).await?;
        let listens = [&first, &second].map(|proxy| proxy.address("web").unwrap_or(at.listen));
        // Both proxies know the sample service before anybody is told to try them.
        let mut views = [first_fleet.view(), second_fleet.view()];
        let handles = [first.handle(), second.handle()];
        let follow = async { tokio::join!(first_fleet.run(&handles[0]), second_fleet.run(&handles[1])) };
        let ready = async {
            for view in &mut views {
                // The sender lives as long as the fleet.
                let _ = view.wait_for(Option::is_some).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            write!(crate::terminal::stdout(), "{}", instructions(&listens, at.admin, &urls, &addresses))?;
            crate::terminal::stdout().flush()?;
            std::future::pending::<std::io::Result<()>>().await
        };
        tokio::select! {
            () = stop => {}
            ended = ready => ended?,
            _ = follow => {}
        }
        tokio::join!(first_fleet.sign_off(), second_fleet.sign_off());
        let ended = run::end(first).await?;
        second.drain().await;
        second.stop();
        drop(members);
        Ok(ended)
    })
}

/// Where the demo listens.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// The first proxy.
    pub(crate) listen: SocketAddr,
    /// Its admin listener.
    pub(crate) admin: SocketAddr,
    /// The first member's API.
    pub(crate) control: SocketAddr,
}

/// The demo's files: gone with it.
struct Directory(PathBuf);

impl Directory {
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("ringway-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, directory = %self.0.display(), "the demo's files are left behind");
        }
    }
}

/// A control plane of three, each on a thread of its own.
async fn members(directory: &Path, first: SocketAddr) -> anyhow::Result<Vec<(EmbeddedMember, SocketAddr)>> {
    let mut members: Vec<(EmbeddedMember, SocketAddr)> = Vec::new();
    for index in 0..MEMBERS {
        let path = directory.join(format!("member-{}", index + 1));
        let any = SocketAddr::new(first.ip(), 0);
        let address = if index == 0 { first } else { any };
        let text = format!(
            "control: {{ member: {{ name: member-{}, directory: {path:?}, address: \"{address}\", peer_address: \"{any}\" }} }}",
            index + 1
        );
        let config = ringway_config::load_str("demo", &text, &|_| None)?.config;
        let settings = config.control.and_then(|control| control.member).context("invariant: just written")?;
        if let Some((_, leader)) = members.first() {
            let urls = vec![format!("http://{leader}")];
            let client = Api::new(&client_settings(&urls, None, None))?;
            let origin = Origin::Join { members: urls, token_file: None, ca: None, voter: true, replace: None };
            // The first member may be electing itself.
            let mut tries = 0;
            while let Err(error) = Plan::join(&path, &client, origin.clone()).await {
                tries += 1;
                if tries > 100 {
                    return Err(error.into());
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        members.push(EmbeddedMember::start(settings).await.context("start a member of the control plane")?);
    }
    Ok(members)
}

/// What a user would do with `ringway control apply` and `ringway control backend add`, in one transaction.
async fn publish(api: &Api, backends: &[(String, SocketAddr)]) -> anyhow::Result<()> {
    let document = json!({ "put": { "key": "document/main", "object": { "document": { "text": DOCUMENT } } } });
    let backend = |(id, address): &(String, SocketAddr)| {
        json!({ "put": {
            "key": format!("backend/sample/{id}"), "object": { "backend": { "address": address.to_string() } },
        } })
    };
    let ops: Vec<_> = std::iter::once(document).chain(backends.iter().map(backend)).collect();
    let body = json!({ "ops": ops, "note": "the demo" });
    api.json(Method::POST, "/v1/txn", Some(&body)).await?;
    Ok(())
}

/// The sample service, as a user would write it for a fleet.
const DOCUMENT: &str = "services:
  - name: sample
    balance:
      hash_key: [ { header: x-user-id }, { cookie: sid }, { path: {} } ]
    health: { http: { path: /healthz }, interval: 1s }
    outlier: {}
";

/// A proxy whose file says where it listens, and where the rest comes from.
async fn proxy(
    directory: &Path,
    name: &str,
    listen: SocketAddr,
    admin: Option<SocketAddr>,
    members: &[String],
    metrics: Metrics,
) -> anyhow::Result<(Proxy, Arc<Fleet>)> {
    let admin = match admin {
        Some(address) => format!("{{ address: \"{address}\" }}"),
        None => "{ enabled: false }".to_owned(),
    };
    let text = format!(
        "admin: {admin}\ncontrol: {{ proxy: {name}, directory: {:?}, members: {members:?} }}\n\
         listeners: [ {{ name: web, address: \"{listen}\", service: sample }} ]\n",
        directory.join(name)
    );
    let file = directory.join(format!("{name}.yaml"));
    std::fs::write(&file, &text)?;
    let loaded = ringway_config::load_file(&file)?;
    let fleet = Fleet::new(file, &loaded.config)?.context("invariant: the file names members")?;
    let loaded = fleet.first(loaded).await;
    let proxy = Proxy::start(loaded.config, fleet.source(), metrics).await?;
    proxy.show_origin(loaded.origin);
    let shown = Arc::clone(&fleet);
    proxy.show_topology(move || shown.status());
    Ok((proxy, fleet))
}

fn instructions(
    listens: &[SocketAddr; 2],
    admin: SocketAddr,
    members: &[String],
    backends: &[(String, SocketAddr)],
) -> String {
    let [first, second] = listens;
    let member = &members[0];
    let last = backends.last().map_or("backend-1", |(id, _)| id.as_str());
    let address = backends.first().map(|(_, address)| address.to_string()).unwrap_or_default();
    format!(
        "ringway demo: proxies on http://{first} and http://{second}, admin on http://{admin},\n\
         a control plane of {MEMBERS} on {}\n\n\
         The fleet has agreed on:\n\n{DOCUMENT}\n\
         Try, in another terminal:\n\n  \
         curl -i http://{first}/ -H 'x-user-id: alice'      # x-backend names who answered: always the same for alice\n  \
         curl -i http://{second}/ -H 'x-user-id: alice'      # and the same through the other proxy\n  \
         for u in alice bob carol dave; do curl -s http://{first}/ -H \"x-user-id: $u\"; done\n\n\
         A live change that reaches both:\n\n  \
         export RINGWAY_CONTROL={member}\n  \
         ringway control backend drain sample {last}\n  \
         ringway control backend add sample one-more {address}\n  \
         ringway control proxies                              # both are synced\n  \
         ringway control history                              # who changed what\n  \
         ringway control rollback 1                           # and back again\n\n\
         What there is to see:\n\n  \
         curl -s http://{admin}/status                       # loads, health, shares of the ring\n  \
         curl -s http://{admin}/metrics                      # Prometheus\n\n\
         Ctrl-C ends it.\n",
        members.join(", ")
    )
}

/// One sample backend, on its own thread.
fn serve(socket: std::net::TcpListener, id: String) {
    let serve = async move {
        let socket = TcpListener::from_std(socket)?;
        loop {
            let (stream, _) = socket.accept().await?;
            let id = id.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(|request| {
                    let response = respond(&id, &request);
                    async move { Ok::<_, Infallible>(response) }
                });
                // A sample backend has nothing to say about a connection that breaks.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    };
    let result: std::io::Result<()> = run::control_runtime().and_then(|runtime| runtime.block_on(serve));
    if let Err(error) = result {
        tracing::error!(%error, "a sample backend ended");
    }
}

fn respond(id: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = format!("{id} answers {} {}\n", request.method(), request.uri());
    let mut response = Response::new(Full::new(Bytes::from(text)));
    if let Ok(value) = id.parse() {
        response.headers_mut().insert("x-backend", value);
    }
    response
}
