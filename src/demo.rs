//! `ringway demo`: sample backends and the proxy in one process, nothing else needed.

use crate::run;
use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ringway_proxy::{Proxy, Source};
use ringway_telemetry::{Metrics, logs};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::net::TcpListener;

/// Runs the demo until SIGTERM or SIGINT.
pub(crate) fn demo(listen: SocketAddr, admin: SocketAddr, backends: u16) -> anyhow::Result<ExitCode> {
    logs::install();
    run::control_runtime()?.block_on(async {
        let mut addresses = Vec::new();
        for index in 0..backends {
            let socket = TcpListener::bind("127.0.0.1:0").await.context("bind a sample backend")?;
            addresses.push((format!("backend-{}", index + 1), socket.local_addr()?));
            // Backends get threads of their own: the control thread must stay free for checks and reloads.
            let id = format!("backend-{}", index + 1);
            let socket = socket.into_std()?;
            std::thread::Builder::new().name(id.clone()).spawn(move || serve(socket, id))?;
        }
        let text = config(listen, admin, &addresses);
        let loaded = ringway_config::load_str("demo", &text, &|_| None)?;
        let proxy = Proxy::start(loaded.config, Source::Memory, Metrics::install()).await?;
        let listen = proxy.address("web").unwrap_or(listen);
        write!(std::io::stdout(), "{}", instructions(listen, admin, &text))?;
        std::io::stdout().flush()?;
        run::stop_signal().await?;
        run::end(proxy).await
    })
}

/// The demo's configuration, as a user would write it.
fn config(listen: SocketAddr, admin: SocketAddr, backends: &[(String, SocketAddr)]) -> String {
    let mut text = format!(
        "admin: {{ address: \"{admin}\" }}\n\
         listeners:\n  - {{ name: web, address: \"{listen}\", service: sample }}\n\
         services:\n  - name: sample\n    balance:\n      \
         hash_key: [ {{ header: x-user-id }}, {{ cookie: sid }}, {{ path: {{}} }} ]\n    \
         health: {{ http: {{ path: /healthz }}, interval: 1s }}\n    outlier: {{}}\n    backends:\n"
    );
    for (id, address) in backends {
        // Writing to a String does not fail.
        let _ = writeln!(text, "      - {{ id: {id}, address: \"{address}\" }}");
    }
    text
}

fn instructions(listen: SocketAddr, admin: SocketAddr, config: &str) -> String {
    format!(
        "ringway demo: proxy on http://{listen}, admin on http://{admin}\n\n\
         The configuration is:\n\n{config}\n\
         Try, in another terminal:\n\n  \
         curl -i http://{listen}/ -H 'x-user-id: alice'      # x-backend names who answered: always the same for alice\n  \
         for u in alice bob carol dave; do curl -s http://{listen}/ -H \"x-user-id: $u\"; done\n  \
         curl -s http://{admin}/status                       # loads, health, shares of the ring\n  \
         curl -s http://{admin}/metrics                      # Prometheus\n\n\
         Ctrl-C ends it.\n"
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
