//! What the control plane says, for people: tables; or as it is, in JSON.

use ringway_config::plain::line;
use ringway_control::state::Object;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

mod difference;
mod table;
mod words;

pub(super) use difference::line_diff;
use table::{date, rows, table};
pub(super) use table::{span, text};
pub(super) use words::rollout_line;
use words::{change_word, member_row, summary};

pub(super) struct Printer {
    pub(super) json: bool,
}

type Done = anyhow::Result<()>;

impl Printer {
    fn raw(&self, value: &Value) -> anyhow::Result<bool> {
        if self.json {
            writeln!(crate::terminal::stdout(), "{value:#}")?;
        }
        Ok(self.json)
    }

    pub(super) fn say(&self, what: &str) -> Done {
        if self.json {
            writeln!(crate::terminal::stdout(), "{}", json!({ "message": what }))?;
        } else {
            writeln!(crate::terminal::stdout(), "{what}")?;
        }
        Ok(())
    }

    pub(super) fn done(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let mut out = crate::terminal::stdout().lock();
        match (answer.get("revision"), answer["changed"].as_u64()) {
            (Some(revision), Some(0)) => writeln!(out, "nothing has changed (revision {revision})")?,
            (Some(revision), _) => writeln!(out, "revision {revision}")?,
            _ => writeln!(out, "done")?,
        }
        Ok(())
    }

    pub(super) fn members(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let lines: Vec<Vec<String>> = rows(&answer["members"]).iter().map(member_row).collect();
        table(&["NODE", "NAME", "ROLE", "API", "PEERS", "LAG", "TERM", "HEARD", "VERSION"], &lines)?;
        // A member of a build before this one does not say whether anybody leads.
        if answer.get("leader").is_some_and(Value::is_null) {
            let (voters, reachable, needed) =
                (&answer["quorum"]["voters"], &answer["quorum"]["reachable"], &answer["quorum"]["needed"]);
            let lost = if reachable.as_u64() < needed.as_u64() { "quorum lost" } else { "none is elected" };
            writeln!(
                crate::terminal::stderr(),
                "leader: none, {lost}: {reachable} of {voters} voters answer, {needed} are needed"
            )?;
        }
        let voters = rows(&answer["members"]).iter().filter(|member| member["voter"] == json!(true)).count();
        if voters % 2 == 0 && voters > 0 {
            writeln!(
                crate::terminal::stderr(),
                "{voters} voters bear no more failures than {}: add or remove one",
                voters - 1
            )?;
        }
        Ok(())
    }

    pub(super) fn status(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let (member, leader) = (&answer["member"], &answer["leader"]);
        let mut out = crate::terminal::stdout().lock();
        writeln!(
            out,
            "cluster   {}, epoch {}, revision {}",
            text(&answer["cluster"]),
            answer["epoch"],
            answer["revision"]
        )?;
        writeln!(out, "digest    {}", text(&answer["digest"]))?;
        writeln!(
            out,
            "member    {} ({}), {}, term {}",
            text(&member["name"]),
            member["node"],
            text(&member["role"]),
            member["term"]
        )?;
        match leader {
            Value::Null => writeln!(out, "leader    none is known")?,
            leader => writeln!(
                out,
                "leader    {} ({}), heard of {} ago",
                text(&leader["name"]),
                leader["node"],
                answer["leader_age_ms"].as_u64().map_or_else(|| "-".to_owned(), span)
            )?,
        }
        writeln!(
            out,
            "log       last {}, applied {}, snapshot {}",
            text(&member["last_log"]),
            text(&member["applied"]),
            text(&member["snapshot"])
        )?;
        writeln!(out, "objects   {}", answer["objects"])?;
        writeln!(out, "watchers  {}", answer["watchers"])?;
        if !answer["rollout"].is_null() {
            writeln!(out, "{}", rollout_line(&answer["rollout"]))?;
        }
        Ok(())
    }

    /// Exit 1 if one was asked for and is not there. One alone is printed as it was written.
    pub(super) fn objects(&self, name: &str, answer: &Value) -> anyhow::Result<ExitCode> {
        let found = rows(&answer["objects"]);
        let one = found.iter().find(|entry| entry["key"].as_str() == Some(name));
        let asked_for_one = name.contains('/') && !name.ends_with('/');
        if asked_for_one && one.is_none() && found.is_empty() {
            writeln!(crate::terminal::stderr(), "ringway: {name} is not there")?;
            return Ok(ExitCode::from(1));
        }
        if self.raw(one.unwrap_or(answer))? {
            return Ok(ExitCode::SUCCESS);
        }
        let parsed = |entry: &Value| serde_json::from_value::<Object>(entry["object"].clone()).ok();
        if let Some(Object::Document(content) | Object::Service(content)) = one.and_then(parsed) {
            crate::terminal::write_as_written(&content.text)?;
            return Ok(ExitCode::SUCCESS);
        }
        let shown: Vec<&Value> = one.map_or_else(|| found.iter().collect(), |one| vec![one]);
        let lines: Vec<Vec<String>> = shown
            .iter()
            .map(|entry| {
                vec![
                    text(&entry["key"]),
                    text(&entry["modified"]),
                    parsed(entry).map(|object| summary(&object)).unwrap_or_default(),
                ]
            })
            .collect();
        table(&["NAME", "REVISION", "WHAT"], &lines)?;
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn history(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let lines: Vec<Vec<String>> = rows(&answer["revisions"])
            .iter()
            .map(|revision| {
                let changes = rows(&revision["changes"]);
                let mut what: Vec<String> = changes.iter().take(3).map(change_word).collect();
                if changes.len() > 3 {
                    what.push(format!("and {} more", changes.len() - 3));
                }
                vec![
                    text(&revision["revision"]),
                    date(revision["at_ms"].as_u64().unwrap_or(0)),
                    text(&revision["author"]),
                    what.join(", "),
                    text(&revision["note"]),
                ]
            })
            .collect();
        table(&["REVISION", "AT (UTC)", "BY", "CHANGED", "NOTE"], &lines)
    }

    pub(super) fn revision(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let mut out = crate::terminal::stdout().lock();
        let at = date(answer["at_ms"].as_u64().unwrap_or(0));
        writeln!(
            out,
            "revision {} of {at} UTC by {}: {}",
            answer["revision"],
            text(&answer["author"]),
            text(&answer["note"])
        )?;
        for change in rows(&answer["changes"]) {
            writeln!(out, "\n{}", change_word(change))?;
            let side = |value: &Value| serde_json::from_value::<Object>(value.clone()).ok();
            let long = |object: &Option<Object>| match object {
                Some(Object::Document(content) | Object::Service(content)) => content.text.clone(),
                Some(other) => format!("{}\n", summary(other)),
                None => String::new(),
            };
            for (mark, changed) in line_diff(&long(&side(&change["before"])), &long(&side(&change["after"]))) {
                if mark != ' ' {
                    writeln!(out, "{mark} {changed}")?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn diff(&self, lines: &[(char, String)]) -> Done {
        if self.json {
            let changed: Vec<Value> = lines
                .iter()
                .filter(|(mark, _)| *mark != ' ')
                .map(|(mark, line)| json!({ "mark": mark, "line": line }))
                .collect();
            writeln!(crate::terminal::stdout(), "{:#}", json!({ "changed": changed }))?;
            return Ok(());
        }
        let mut out = crate::terminal::stdout().lock();
        for (mark, changed) in lines {
            writeln!(out, "{mark} {changed}")?;
        }
        Ok(())
    }

    pub(super) fn lock(&self, name: &str, token: &Value, lease: &Value) -> Done {
        if !self.raw(&json!({ "name": name, "token": token, "lease": lease }))? {
            writeln!(crate::terminal::stdout(), "lock {name}: token {token}, lease {lease}")?;
        }
        Ok(())
    }

    pub(super) fn locks(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let cells = |lock: &Value| [&lock["name"], &lock["owner"], &lock["token"], &lock["lease"]].map(text).to_vec();
        table(&["NAME", "OWNER", "TOKEN", "LEASE"], &rows(&answer["locks"]).iter().map(cells).collect::<Vec<_>>())
    }

    pub(super) fn token(&self, answer: &Value) -> Done {
        if !self.raw(answer)? {
            writeln!(crate::terminal::stdout(), "{}", text(&answer["token"]))?;
        }
        Ok(())
    }

    pub(super) fn tokens(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let cells = |token: &Value| {
            let until = token["expires_at_ms"].as_u64().map_or_else(|| "-".into(), date);
            vec![text(&token["name"]), text(&token["role"]), until]
        };
        table(&["NAME", "ROLE", "UNTIL (UTC)"], &rows(&answer["tokens"]).iter().map(cells).collect::<Vec<_>>())
    }

    pub(super) fn rollouts(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let mut out = crate::terminal::stdout().lock();
        for rollout in rows(&answer["rollouts"]) {
            writeln!(out, "{}", rollout_line(rollout))?;
        }
        Ok(())
    }

    pub(super) fn rollout(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let mut out = crate::terminal::stdout().lock();
        writeln!(out, "{}", rollout_line(answer))?;
        let keys: Vec<String> = rows(&answer["keys"]).iter().map(text).collect();
        writeln!(
            out,
            "changes {}; moves {:.2} % of the keys at most",
            keys.join(", "),
            answer["moved_percent"].as_f64().unwrap_or(0.0)
        )?;
        for refused in rows(&answer["refused"]) {
            writeln!(out, "refused by {}: {}", text(&refused["proxy"]), text(&refused["reason"]))?;
        }
        Ok(())
    }

    pub(super) fn proxies(&self, answer: &Value) -> Done {
        if self.raw(answer)? {
            return Ok(());
        }
        let cells = |proxy: &Value| {
            let heartbeat = &proxy["heartbeat"];
            vec![
                text(&proxy["name"]),
                text(&proxy["state"]),
                format!("{}.{}", heartbeat["epoch"], heartbeat["revision"]),
                text(&heartbeat["generation"]),
                proxy["age_ms"].as_u64().map_or_else(|| "-".to_owned(), span),
                text(&heartbeat["version"]),
                loads(&proxy["loads"]),
                heartbeat["stuck"].as_str().unwrap_or_default().to_owned(),
            ]
        };
        let lines: Vec<Vec<String>> = rows(&answer["proxies"]).iter().map(cells).collect();
        table(&["NAME", "STATE", "REVISION", "GENERATION", "HEARD", "VERSION", "LOADS", "STUCK"], &lines)?;
        if let Some(frozen) = answer["frozen"].as_object() {
            for (service, count) in frozen {
                writeln!(
                    crate::terminal::stderr(),
                    "{service}: {count} backends have sent no heartbeat and stay: too many at once, or the last"
                )?;
            }
        }
        Ok(())
    }

    pub(super) fn verified(
        &self,
        proxies: usize,
        compared: usize,
        rings: &BTreeMap<String, String>,
        findings: &[String],
    ) -> Done {
        if self.raw(&json!({
            "proxies": proxies, "compared": compared, "rings": rings, "findings": findings,
            "verified": findings.is_empty(),
        }))? {
            return Ok(());
        }
        let mut out = crate::terminal::stdout().lock();
        for finding in findings {
            writeln!(out, "{}", line(finding))?;
        }
        if findings.is_empty() {
            writeln!(
                out,
                "{proxies} proxies have what was agreed on: the topology and {} rings of each of {compared} compared",
                rings.len()
            )?;
        }
        Ok(())
    }
}

/// How a proxy reports its loads: the table by which it goes, and how long ago it has said so; or why nobody believes it.
fn loads(told: &Value) -> String {
    let (holds, age) = (&told["holds"], told["age_ms"].as_u64());
    match (told["refused"].as_str(), age) {
        (Some(why), _) => format!("refused: {why}"),
        (None, None) => "-".to_owned(),
        (None, Some(age)) if holds.is_null() => format!("no table, {}", span(age)),
        (None, Some(age)) => format!("{}.{}.{}, {}", holds["epoch"], holds["term"], holds["seq"], span(age)),
    }
}
