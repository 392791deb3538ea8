//! `ringway explain`: where a key goes, from the configuration alone.

use anyhow::{Context, bail};
use ringway_config::model::{Config, Service};
use ringway_ring::{Member, PolicyParams, Ring, hash_key};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Prints the key's hash, its owner, and the walk that spill, skip and retry follow.
pub(crate) fn explain(file: &Path, service: &str, key: &str, json: bool) -> anyhow::Result<ExitCode> {
    let config = ringway_config::load_file(file)?.config;
    let service = find(&config, service)?;
    let PolicyParams::Ring(params) = service.policy else {
        bail!("service {:?} is balanced without keys (policy round_robin): there is nothing to explain", service.name);
    };
    let members: Vec<Member<'_>> =
        service.backends.iter().map(|backend| Member { id: &backend.id, weight: backend.weight }).collect();
    let ring = Ring::build(&members, params).context("build the ring")?;
    let mut ids: Vec<&str> = service.backends.iter().map(|backend| backend.id.as_str()).collect();
    ids.sort_unstable();

    let key = key.replace("\\0", "\0");
    let hash = hash_key(key.as_bytes(), params.seed);
    let mut cursor = ring.walk(hash);
    let walk: Vec<&str> =
        std::iter::from_fn(|| cursor.next(&ring)).filter_map(|slot| ids.get(usize::from(slot.0)).copied()).collect();
    let owner = walk.first().copied();
    let mut out = std::io::stdout().lock();
    if json {
        let answer = serde_json::json!({
            "service": service.name,
            "key": key,
            "hash": format!("{hash:016x}"),
            "owner": owner,
            "walk": walk,
            "ring_digest": format!("{:016x}", ring.digest()),
        });
        writeln!(out, "{answer:#}")?;
    } else {
        writeln!(out, "service  {}", service.name)?;
        writeln!(out, "key      {key}")?;
        writeln!(out, "hash     {hash:016x}")?;
        writeln!(out, "owner    {}", owner.unwrap_or("(nobody: every weight is 0)"))?;
        writeln!(out, "then     {}", walk.get(1..).unwrap_or_default().join(", "))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(config: &'a Config, name: &str) -> anyhow::Result<&'a Service> {
    config.services.iter().find(|service| service.name == name).with_context(|| {
        let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
        format!("there is no service {name:?}; there are {}", names.join(", "))
    })
}
