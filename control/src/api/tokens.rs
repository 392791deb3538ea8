//! Tokens.

use super::auth::{hash, role_name};
use super::member::Api;
use super::objects::{fresh, parse, placed};
use super::request::{Call, duration_ms};
use super::response::{Body, json, problem};
use crate::Code;
use crate::http::Problem;
use crate::plane::unix_ms;
use crate::state::{Command, Role};
use hyper::Response;
use serde::Deserialize;
use serde_json::{Value, json as value};

pub(super) async fn tokens(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Admin)?;
    fresh(api, ask).await?;
    let state = api.plane.state();
    let list: Vec<Value> = state
        .tokens
        .iter()
        .map(|(name, token)| value!({ "name": name, "role": role_name(token.role), "expires_at_ms": token.expires_at_ms }))
        .collect();
    Ok(placed(api, json(&value!({ "tokens": list }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    role: Role,
    #[serde(default)]
    ttl: Option<String>,
}

/// The token's text is made here, shown once, and kept by nobody.
pub(super) async fn put_token(api: &Api, ask: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Admin)?;
    let TokenBody { role, ttl } = parse(body)?;
    let ttl = match ttl {
        None => None,
        Some(ttl) => Some(
            duration_ms(&ttl).ok_or_else(|| problem(400, Code::BadTtl, format!("{ttl:?} is no time: write `24h`")))?,
        ),
    };
    let mut random = [0; 32];
    // 256 bits of the system's randomness, by way of TLS's provider.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .secure_random
        .fill(&mut random)
        .map_err(|_| problem(500, Code::Internal, "the system has no randomness"))?;
    let text = format!("rwt_{}", blake3::Hash::from(random).to_hex());
    let expires_at_ms = ttl.map(|ttl| unix_ms().saturating_add(ttl));
    api.plane.propose(&Command::TokenPut { name: name.to_owned(), role, hash: hash(&text), expires_at_ms }).await?;
    Ok(json(&value!({ "name": name, "role": role_name(role), "token": text, "expires_at_ms": expires_at_ms })))
}
