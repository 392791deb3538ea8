//! Accidents that have taken fleets down: one change that leaves nothing, or little, to take traffic. What is judged is what
//! the fleet would run, whatever object changes it: documents, services, registered backends.

use super::guards::Guards;
use crate::Code;
use crate::state::parsed::Parsed;
use crate::state::{Backend, BackendState, Change, Key, Object, Refusal, State, takes_traffic};
use ringway_config::Loaded;
use ringway_config::model::{Config, Listener, Protocol, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Backends that take traffic, with their weights.
type Weights = BTreeMap<String, u64>;

/// A change of registered backends alone.
///
/// # Errors
/// It takes too much away.
pub(super) fn backends(
    before: &State,
    after: &State,
    changes: &[Change],
    guards: Guards,
    parsed: &Parsed,
) -> Result<(), Refusal> {
    for service in shrunk(changes) {
        // Registered ones alone first, because they are at hand; what a document says takes reading it.
        let registered_loss = loss(service, &registered(before, service), &registered(after, service), guards);
        if registered_loss.is_err() {
            let all = |state| with_documents(state, service, parsed);
            loss(service, &all(before), &all(after), guards)?;
        }
    }
    Ok(())
}

/// A change of what the fleet is configured as. `now`: the configuration after it.
///
/// # Errors
/// It takes too much away.
pub(super) fn configuration(
    (before, after): (&State, &State),
    now: &Config,
    changes: &[Change],
    guards: Guards,
    parsed: &Parsed,
) -> Result<(), Refusal> {
    let was = parsed.configuration(before);
    // What is wrong as a whole serves nobody: whatever mends it takes nothing away.
    let Ok(Loaded { config: was, .. }) = &*was else { return Ok(()) };
    for service in &was.services {
        let had = weights(service);
        match now.services.iter().find(|known| known.name == service.name) {
            Some(known) => loss(&service.name, &had, &weights(known), guards)?,
            None if had.is_empty() || is_replaced(&service.name, was, now) => {}
            None => return Err(empty(&format!("service {:?}", service.name))),
        }
    }
    // Those that only the proxies' own files know.
    let unknown = |service: &&str| was.services.iter().all(|known| known.name != **service);
    for service in shrunk(changes).into_iter().filter(unknown) {
        loss(service, &registered(before, service), &registered(after, service), guards)?;
    }
    listeners(was, now, guards)
}

fn listeners(was: &Config, now: &Config, guards: Guards) -> Result<(), Refusal> {
    let mut gone = 0;
    for listener in &was.listeners {
        match now.listeners.iter().find(|known| known.name == listener.name) {
            Some(known) if serves(listener, was) && !serves(known, now) => {
                return Err(empty(&format!("listener {:?}", listener.name)));
            }
            Some(_) => {}
            None => gone += 1,
        }
    }
    let had = was.listeners.len();
    if had > 0 && gone == had && now.listeners.is_empty() {
        return Err(empty("the listeners"));
    }
    if gone * 100 > had * usize::from(guards.loss_percent) && now.listeners.len() < had {
        return Err(Refusal::new(
            Code::GuardLoss,
            format!(
                "{gone} of {had} listeners would go at once, more than {} %: take smaller steps, or force it",
                guards.loss_percent
            ),
        ));
    }
    Ok(())
}

/// Indices of the services that a listener leads to.
fn led_to(listener: &Listener) -> Vec<usize> {
    match &listener.protocol {
        Protocol::Http(http) => http
            .routes
            .iter()
            .flat_map(|route| {
                let targets =
                    route.split.iter().flat_map(|split| split.targets.iter().filter(|target| target.weight > 0));
                let redirects = route.actions.as_ref().is_some_and(|actions| actions.redirect.is_some());
                let alone = (route.split.is_none() && !redirects).then_some(route.service);
                targets.map(|target| target.service).chain(alone).collect::<Vec<_>>()
            })
            .collect(),
        Protocol::Tcp(tcp) => tcp.service.into_iter().chain(tcp.names.iter().map(|(_, service)| *service)).collect(),
        Protocol::Udp(udp) => vec![udp.service],
    }
}

/// Whether anything behind it takes traffic.
fn serves(listener: &Listener, config: &Config) -> bool {
    led_to(listener).into_iter().any(|service| !weights(&config.services[service]).is_empty())
}

/// Whether those who used a service that goes have something else: the fleet's own listeners led to it, all of them are still
/// there, and everything that they lead to takes traffic. Without such listeners the proxies' own files led to it, and still do.
fn is_replaced(service: &str, was: &Config, now: &Config) -> bool {
    let used = |listener: &&Listener| led_to(listener).iter().any(|index| was.services[*index].name == service);
    let mut users = was.listeners.iter().filter(used).peekable();
    users.peek().is_some()
        && users.all(|listener| {
            let heir = now.listeners.iter().find(|known| known.name == listener.name);
            heir.is_some_and(|heir| {
                let services = led_to(heir);
                !services.is_empty() && services.iter().all(|index| !weights(&now.services[*index]).is_empty())
            })
        })
}

fn empty(what: &str) -> Refusal {
    Refusal::new(Code::GuardEmpty, format!("nothing of {what} would take traffic any more: force it if it is meant"))
}

/// Services of which something took traffic that does no more: registering thousands looks at none of the others.
fn shrunk(changes: &[Change]) -> BTreeSet<&str> {
    let takes = |object: &Option<Arc<Object>>| object.as_deref().is_some_and(|object| takes_traffic(object) > 0);
    let changes = changes.iter().filter(|change| takes(&change.before) && !takes(&change.after));
    changes
        .filter_map(|change| match &change.key {
            Key::Backend { service, .. } => Some(service.as_str()),
            Key::Document(_) | Key::Service(_) | Key::Certificate(_) => None,
        })
        .collect()
}

fn registered(state: &State, service: &str) -> Weights {
    let takes = |backend: &Backend| backend.state == BackendState::Ready && backend.weight > 0;
    let list = state.backends(service).filter(|(_, _, backend)| takes(backend));
    list.map(|(id, _, backend)| (id.to_owned(), u64::from(backend.weight))).collect()
}

/// What all have agreed is down is not what a change takes away.
fn weights(service: &Service) -> Weights {
    let takes = service.backends.iter().filter(|backend| !backend.drain && backend.weight > 0);
    takes.map(|backend| (backend.id.clone(), u64::from(backend.weight))).collect()
}

fn with_documents(state: &State, service: &str, parsed: &Parsed) -> Weights {
    let read = parsed.configuration(state);
    let Ok(loaded) = &*read else { return registered(state, service) };
    match loaded.config.services.iter().find(|known| known.name == service) {
        Some(known) => weights(known),
        // The proxies' own files have it: what else is in it is not known here.
        None => registered(state, service),
    }
}

/// What leaves is counted by the weight that it had: another weight is no loss as long as it takes traffic.
fn loss(service: &str, before: &Weights, after: &Weights, guards: Guards) -> Result<(), Refusal> {
    let had: u64 = before.values().sum();
    let stays: u64 = before.iter().filter(|(id, _)| after.contains_key(*id)).map(|(_, weight)| weight).sum();
    let comes: u64 = after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, weight)| weight).sum();
    let has = stays + comes;
    if had > 0 && after.is_empty() {
        return Err(empty(&format!("{service:?}")));
    }
    let most = u64::from(guards.loss_percent);
    if had.saturating_sub(has) * 100 > had * most {
        return Err(Refusal::new(
            Code::GuardLoss,
            format!(
                "{service:?} would lose {} % of its weight at once, more than {most} %: take smaller steps, or force it",
                (had - has) * 100 / had
            ),
        ));
    }
    Ok(())
}
