//! `/sessions`: what clients have under way, over all workers: requests, sessions and flows, or their connections.

use super::names;
use super::query::pairs;
use super::reply::{Reply, error, json_value};
use crate::ambient;
use crate::apply::handle::ControlHandle;
use crate::dispatcher::{Listed, ListenerKind, Order, SessionPage, SessionQuery, SessionRow, SessionState};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Rows that are listed if nobody says how many, and at most.
const ROWS: usize = 100;
const ROWS_MAX: usize = 1_000;
/// How long a worker may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lists what is asked for.
pub(super) async fn sessions(control: &ControlHandle, query: &str) -> Reply {
    let query = match parse(query) {
        Ok(query) => Arc::new(query),
        Err(problem) => return error(StatusCode::BAD_REQUEST, &problem),
    };
    let answers = control.list_sessions(&query, ambient::now() + PATIENCE).await;
    let (mut total, mut rows, mut silent) = (0, Vec::new(), Vec::new());
    for (worker, answer) in answers.into_iter().enumerate() {
        match answer {
            Some(SessionPage { total: of_worker, rows: more }) => {
                total += of_worker;
                rows.extend(more);
            }
            None => silent.push(worker),
        }
    }
    // What a reload has removed may still have sessions: only then is a name that is not there a name.
    if total == 0
        && let Err(unknown) = known(control, &query)
    {
        return error(StatusCode::NOT_FOUND, &unknown);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.rank(query.order)));
    rows.truncate(query.rows_max);
    let rows: Vec<Value> = rows.iter().map(|row| row_json(row, query.listed)).collect();
    let name = if query.listed == Listed::Connections { "connections" } else { "sessions" };
    json_value(StatusCode::OK, &json!({ "total": total, "shown": rows.len(), "silent_workers": silent, name: rows }))
}

/// Whether everything that is named is there.
fn known(control: &ControlHandle, query: &SessionQuery) -> Result<(), String> {
    let snapshot = control.snapshot();
    let service = query.service.as_deref();
    service.map_or(Ok(()), |name| names::service(&snapshot, name))?;
    query.listener.as_deref().map_or(Ok(()), |name| names::listener(&snapshot, name))?;
    query.backend.as_deref().map_or(Ok(()), |id| names::backend(&snapshot, service, id))
}

fn row_json(row: &SessionRow, listed: Listed) -> Value {
    let mut value = json!({
        "worker": row.worker,
        "age_seconds": row.age.as_secs_f64(),
        "state": row.state.name(),
        "protocol": row.protocol,
        "client": row.client.to_string(),
        "listener": row.listener,
        "tls": row.tls.map(|tls| json!({ "version": tls.version(), "resumed": tls.is_resumed })),
    });
    let more = match listed {
        Listed::Connections => json!({ "under_way": row.under_way }),
        Listed::Sessions => json!({
            "request": row.request, "route": row.route, "service": row.service, "backend": row.backend,
            "received_bytes": row.received_bytes, "sent_bytes": row.sent_bytes,
        }),
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

/// `connections`, `listener=`, `service=`, `backend=`, `client=`, `kind=`, `state=`, `older=SECONDS`, `sort=age|bytes`, `limit=`.
fn parse(query: &str) -> Result<SessionQuery, String> {
    let mut asked = SessionQuery {
        listed: Listed::Sessions,
        listener: None,
        service: None,
        backend: None,
        client: None,
        kind: None,
        state: None,
        age_min: Duration::ZERO,
        order: Order::Age,
        rows_max: ROWS,
    };
    for (name, value) in pairs(query) {
        let value = String::from_utf8_lossy(&value).into_owned();
        let wrong = |wanted: &str| format!("{name}: write {wanted}");
        match name {
            "connections" => asked.listed = Listed::Connections,
            "listener" => asked.listener = Some(value),
            "service" => asked.service = Some(value),
            "backend" => asked.backend = Some(value),
            "client" => {
                let client: std::net::IpAddr = value.parse().map_err(|_| wrong("an IP address"))?;
                asked.client = Some(client.to_canonical());
            }
            "kind" => {
                let kind = ListenerKind::of_name(&value);
                asked.kind = Some(kind.ok_or_else(|| wrong("one of http, tcp, udp"))?);
            }
            "state" => {
                let state = SessionState::ALL.into_iter().find(|state| state.name() == value);
                let names = SessionState::ALL.map(SessionState::name).join(", ");
                asked.state = Some(state.ok_or_else(|| wrong(&format!("one of {names}")))?);
            }
            "older" => {
                let seconds = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                asked.age_min = seconds.ok_or_else(|| wrong("a number of seconds"))?;
            }
            "sort" => {
                asked.order = match value.as_str() {
                    "age" => Order::Age,
                    "bytes" => Order::Bytes,
                    _ => return Err(wrong("age or bytes")),
                }
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=ROWS_MAX).contains(limit));
                asked.rows_max = limit.ok_or_else(|| wrong(&format!("a number from 1 to {ROWS_MAX}")))?;
            }
            _ => {
                return Err(format!(
                    "there is no {name:?}; there are connections, listener, service, backend, client, kind, state, older, sort, limit"
                ));
            }
        }
    }
    in_its_place(asked)
}

/// A state of connections is none of sessions, and nothing would be listed for ever.
fn in_its_place(asked: SessionQuery) -> Result<SessionQuery, String> {
    let of_connections = [SessionState::Idle, SessionState::Receiving, SessionState::Busy];
    let is_of_connections = asked.state.map(|state| of_connections.contains(&state));
    match (is_of_connections, asked.listed) {
        (Some(true), Listed::Sessions) => {
            Err("state: idle, receiving and busy are states of connections: ask for `connections` too".into())
        }
        (Some(false), Listed::Connections) => Err("state: connections are idle, receiving or busy".into()),
        (_, Listed::Connections) if asked.service.is_some() || asked.backend.is_some() => {
            Err("service, backend: connections have none, what is under way on them has: ask without `connections`"
                .into())
        }
        _ => Ok(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_taken_by_name_and_nothing_is_ignored() {
        let asked =
            parse("service=a%20b&backend=x&state=waiting&older=1.5&sort=bytes&limit=7&client=::ffff:1.2.3.4&kind=tcp");
        let asked = asked.unwrap();
        assert_eq!((asked.service.as_deref(), asked.backend.as_deref()), (Some("a b"), Some("x")));
        assert_eq!((asked.state, asked.order, asked.rows_max), (Some(SessionState::Waiting), Order::Bytes, 7));
        assert_eq!((asked.age_min, asked.client), (Duration::from_millis(1500), Some("1.2.3.4".parse().unwrap())));
        assert_eq!(asked.kind, Some(ListenerKind::Tcp));
        assert_eq!(parse("connections").unwrap().listed, Listed::Connections);
        assert_eq!(parse("").unwrap().rows_max, ROWS);
        for (query, part) in [
            ("who=me", "there is no \"who\""),
            ("limit=0", "limit: write a number from 1"),
            ("limit=1001", "limit: write a number from 1"),
            ("older=-1", "older: write a number of seconds"),
            ("older=nan", "older: write a number of seconds"),
            ("sort=name", "sort: write age or bytes"),
            ("state=dead", "state: write one of queued, connecting"),
            ("state=receiving", "state: idle, receiving and busy are states of connections"),
            ("connections&state=waiting", "state: connections are idle, receiving or busy"),
            ("connections&service=s", "service, backend: connections have none"),
            ("backend=b&connections", "service, backend: connections have none"),
            ("kind=quic", "kind: write one of http, tcp, udp"),
            ("client=here", "client: write an IP address"),
        ] {
            let problem = parse(query).unwrap_err();
            assert!(problem.starts_with(part), "{query}: {problem}");
        }
    }
}
