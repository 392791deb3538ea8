//! A check over HTTP/1.1: one request on a connection, which may be kept for the next one.

use super::connection::CheckConnection;
use super::judge::{judge_status, judge_weight};
use ringway_config::model::HttpCheck;
use ringway_health::CheckFailure;
use std::net::SocketAddr;

/// A request, written but for the host where that is the backend's address.
pub(super) struct Request {
    up_to_host: String,
    host: Option<String>,
    rest: String,
}

impl Request {
    pub(super) fn new(http: &HttpCheck, fields: &[(&str, &str)], reuse: bool) -> Self {
        let HttpCheck { method, path, host, .. } = http;
        let mut rest = if reuse { "\r\n" } else { "\r\nconnection: close\r\n" }.to_owned();
        for (name, value) in fields {
            rest.push_str(&format!("{name}: {value}\r\n"));
        }
        rest.push_str("\r\n");
        Self { up_to_host: format!("{method} {path} HTTP/1.1\r\nhost: "), host: host.clone(), rest }
    }

    fn to(&self, address: SocketAddr) -> String {
        let Self { up_to_host, host, rest } = self;
        match host {
            Some(host) => [up_to_host, host.as_str(), rest].concat(),
            None => format!("{up_to_host}{address}{rest}"),
        }
    }
}

/// Gives the weight that the backend wants, in percent.
pub(super) async fn check(
    connection: &mut CheckConnection,
    http: &HttpCheck,
    request: &Request,
    address: SocketAddr,
) -> Result<u8, CheckFailure> {
    connection.write(request.to(address).as_bytes()).await?;
    let wanted_weight = connection.read_head(http.method == "HEAD", &http.weight_header).await?;
    judge_status(http, connection.head.status)?;
    if let Some(wanted) = &http.body {
        connection.match_body(wanted).await?;
    }
    Ok(judge_weight(wanted_weight.as_deref()))
}
