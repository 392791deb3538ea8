//! A check over HTTP/1.1: one request on a connection of its own.

use super::connection::CheckConnection;
use super::judge::{judge_status, judge_weight};
use ringway_config::model::HttpCheck;
use ringway_health::CheckFailure;

/// Gives the weight that the backend wants, in percent.
pub(super) async fn check(
    connection: &mut CheckConnection,
    http: &HttpCheck,
    host: &str,
    fields: &[(&str, &str)],
) -> Result<u8, CheckFailure> {
    let HttpCheck { method, path, .. } = http;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    connection.write(request.as_bytes()).await?;
    let wanted_weight = connection.read_head(method == "HEAD", &http.weight_header).await?;
    judge_status(http, connection.head.status)?;
    if let Some(wanted) = &http.body {
        connection.match_body(wanted).await?;
    }
    Ok(judge_weight(wanted_weight.as_deref()))
}
