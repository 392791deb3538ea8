//! Whose something is. Who may register, may change what they have registered themselves: one agent's token must not take
//! another's backends, leases and locks away. Operators may change everything.
//!
//! Whose a backend is says its lease. One without a lease says it itself: the member that is asked writes into `source` who
//! has registered it, because the history ends. Whatever was registered before members did so is known by the history alone.

use super::member::Api;
use super::request::Call;
use super::response::problem;
use crate::Code;
use crate::http::Problem;
use crate::state::{Backend, Condition, Entry, Key, Object, Op, Revision, Role, State, is_name};

/// A lease's owner, as it is remembered: who it is for, in the caller's words, and the caller. The last is added by the member
/// that is asked, so that nobody can be somebody else.
pub(super) fn lease_owner(words: &str, caller: &str) -> String {
    format!("{words} ({})", mark(caller))
}

/// A caller's name as it stands behind a lease's owner: with no parentheses of its own.
fn mark(caller: &str) -> String {
    caller.replace(['(', ')'], "_")
}

/// The caller's words, and the caller; a lease of a version before this one may have no caller.
pub(super) fn parts(owner: &str) -> (&str, Option<&str>) {
    match owner.strip_suffix(')').and_then(|owner| owner.rsplit_once(" (")) {
        Some((words, caller)) => (words, Some(caller)),
        None => (owner, None),
    }
}

/// Who must not touch what others have.
fn is_bound(ask: &Call<'_>) -> bool {
    ask.caller.role == Role::Register
}

fn not_yours(ask: &Call<'_>, what: &str, whose: &str) -> Problem {
    let me = &ask.caller.name;
    problem(
        403,
        Code::NotYours,
        format!("{what} is {whose:?}'s, and {me:?} has the role `register`: ask them, or an operator"),
    )
}

/// Ends or prolongs it, or hangs something on it. One that is not there is told by others.
pub(super) fn lease(ask: &Call<'_>, state: &State, id: u64) -> Result<(), Problem> {
    let caller = state.leases.get(&id).and_then(|lease| parts(&lease.owner).1);
    match caller {
        Some(caller) if is_bound(ask) && caller != mark(&ask.caller.name) => {
            Err(not_yours(ask, &format!("lease {id}"), caller))
        }
        _ => Ok(()),
    }
}

/// Gives it back.
pub(super) fn lock(ask: &Call<'_>, state: &State, name: &str) -> Result<(), Problem> {
    state.locks.get(name).map_or(Ok(()), |lock| lease(ask, state, lock.lease))
}

/// What the source of a registrar's backend begins with.
const REGISTRAR: &str = "registrar:";

/// The source of what a caller registers. It is a name as all are, so a caller that is none is told by a hash.
fn source(caller: &str) -> String {
    let name = format!("{REGISTRAR}{caller}");
    match is_name(&name) && !caller.is_empty() && !caller.starts_with(':') {
        true => name,
        false => format!("{REGISTRAR}:{}", &blake3::hash(caller.as_bytes()).to_hex()[..32]),
    }
}

fn is_registrars(backend: &Backend) -> bool {
    backend.source.as_deref().is_some_and(|source| source.starts_with(REGISTRAR))
}

/// Says in what a registrar puts there whose it is, where no lease does; nobody says it of others.
pub(super) fn sign(ask: &Call<'_>, ops: &mut [Op]) {
    if !is_bound(ask) {
        return;
    }
    for op in ops {
        let Op::Put { object: Object::Backend(backend), .. } = op else { continue };
        if backend.source.is_none() || is_registrars(backend) {
            backend.source = backend.lease.is_none().then(|| source(&ask.caller.name));
        }
    }
}

/// Who has registered a backend.
enum Registrar<'a> {
    /// Whose lease it hangs on, or who has made it, as far as the history goes back; as it is marked.
    Caller(String),
    /// See [`source`].
    Source(&'a str),
    /// Nobody knows any more.
    Forgotten,
}

fn registrar<'a>(state: &State, key: &Key, entry: &Entry, backend: &'a Backend) -> Registrar<'a> {
    let lease = backend.lease.and_then(|lease| state.leases.get(&lease));
    if let Some(caller) = lease.and_then(|lease| parts(&lease.owner).1) {
        return Registrar::Caller(caller.to_owned());
    }
    if let Some(source) = backend.source.as_deref().filter(|_| is_registrars(backend)) {
        return Registrar::Source(source);
    }
    let revision = state.history.get(&entry.created);
    // After a restore, revisions of before may have the numbers of others.
    let made =
        |revision: &&Revision| revision.changes.iter().any(|change| change.key == *key && change.before.is_none());
    match revision.filter(made) {
        Some(revision) => Registrar::Caller(mark(&revision.author)),
        None => Registrar::Forgotten,
    }
}

/// Changes or removes what is there.
pub(super) fn object(ask: &Call<'_>, state: &State, key: &Key) -> Result<(), Problem> {
    if !is_bound(ask) {
        return Ok(());
    }
    let Some((entry, Object::Backend(backend))) = state.objects.get(key).map(|entry| (entry, &*entry.object)) else {
        return Ok(());
    };
    match registrar(state, key, entry, backend) {
        Registrar::Caller(caller) if caller == mark(&ask.caller.name) => Ok(()),
        Registrar::Source(of) if of == source(&ask.caller.name) => Ok(()),
        Registrar::Caller(caller) => Err(not_yours(ask, &key.to_string(), &caller)),
        Registrar::Source(of) => Err(not_yours(ask, &key.to_string(), of.trim_start_matches(REGISTRAR))),
        // A lease of a version before this one: it goes on as it was made.
        Registrar::Forgotten if backend.lease.is_some() => Ok(()),
        Registrar::Forgotten => Err(not_yours(ask, &key.to_string(), "somebody of long ago")),
    }
}

fn changes(ask: &Call<'_>, state: &State, ops: &[Op]) -> Result<(), Problem> {
    for op in ops {
        object(ask, state, op.key())?;
        if let Op::Put { object: Object::Backend(Backend { lease: Some(id), .. }), .. } = op {
            lease(ask, state, *id)?;
        }
    }
    Ok(())
}

/// Whether the caller may. What this member knows may be of a moment ago: what is answered are conditions that hold only as
/// long as it was right.
pub(super) async fn judged(
    api: &Api,
    ask: &Call<'_>,
    named: bool,
    ops: &[Op],
    given: &[Condition],
) -> Result<Vec<Condition>, Problem> {
    if !is_bound(ask) {
        return Ok(Vec::new());
    }
    if named {
        // A named request is known again by its content: it is asked with no conditions but its own.
        api.plane.barrier().await?;
    }
    let state = api.plane.state();
    if changes(ask, &state, ops).is_err() {
        // It may have changed hands a moment ago.
        api.plane.barrier().await?;
        changes(ask, &api.plane.state(), ops)?;
    }
    if named {
        return Ok(Vec::new());
    }
    let state = api.plane.state();
    changes(ask, &state, ops)?;
    let new = ops.iter().map(Op::key).filter(|key| !given.iter().any(|condition| condition.key == **key));
    Ok(new
        .map(|key| Condition { key: key.clone(), modified: state.objects.get(key).map_or(0, |entry| entry.modified) })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_of_a_lease_is_the_one_that_the_member_has_seen() {
        assert_eq!(parts(&lease_owner("a", "me (too)")).1, Some(mark("me (too)").as_str()));
        for words in ["", "agent", "agent (victim)", "a (b) c", "victim)"] {
            let owner = lease_owner(words, "me");
            assert_eq!(parts(&owner), (words, Some("me")));
        }
        assert_eq!(parts("of before"), ("of before", None));
    }

    #[test]
    fn the_source_of_what_a_caller_registers_is_a_name_and_no_other_callers() {
        let (long, longer) = ("x".repeat(128), "x".repeat(129));
        let mut names: Vec<String> =
            ["ci", "", ":", "CN=agent, O=x", &long, &longer, "registrar:ci"].map(str::to_owned).into();
        // Nor of a caller that is called like another's hash.
        names.extend(names.clone().iter().map(|name| source(name)[REGISTRAR.len()..].to_owned()));
        let names: std::collections::BTreeSet<String> = names.into_iter().collect();
        let sources: std::collections::BTreeSet<String> = names.iter().map(|name| source(name)).collect();
        assert_eq!(sources.len(), names.len(), "{sources:?}");
        assert!(sources.iter().all(|source| is_name(source) && source.starts_with(REGISTRAR)), "{sources:?}");
    }
}
