//! What the control plane says, for people: tables; or as it is, in JSON.

use ringway_config::plain::line;
use ringway_control::state::Object;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

pub(super) struct Printer {
    pub(super) json: bool,
}

type Done = anyhow::Result<()>;

/// A value as a part of a line: nothing in it is obeyed by a terminal, or ends the line.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => line(text),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Columns as wide as they must be; what others wrote into a cell stays in it.
fn table(head: &[&str], rows: &[Vec<String>]) -> Done {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| line(cell)).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = crate::terminal::stdout().lock();
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Unix milliseconds as a date, UTC. Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn date(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, rest) = ((seconds / 86_400) as i64, seconds % 86_400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

pub(super) fn rollout_line(rollout: &Value) -> String {
    let phase = &rollout["phase"];
    let id = &rollout["id"];
    if let Some(revision) = phase.get("committed") {
        return format!("rollout {id}: in force for all, revision {revision}");
    }
    if let Some(reason) = phase.get("aborted") {
        return format!("rollout {id}: aborted, nothing has changed: {}", text(reason));
    }
    if phase.get("stage").is_some() {
        return format!("rollout {id}: in force for {} % of the proxies, watched", rollout["percent"]);
    }
    format!("rollout {id}: {} of {} proxies have prepared it", rollout["votes"], rollout["participants"])
}

/// Lines of a difference. Source: Myers, "An O(ND) Difference Algorithm and Its Variations", 1986, in its simplest form.
pub(super) fn line_diff(old: &str, new: &str) -> Vec<(char, String)> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same_head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let same_tail =
        old[same_head..].iter().rev().zip(new[same_head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old[same_head..old.len() - same_tail], &new[same_head..new.len() - same_tail]);
    let mut lines: Vec<(char, String)> = old[..same_head].iter().map(|line| (' ', (*line).to_owned())).collect();
    lines.extend(middle_diff(old_middle, new_middle));
    lines.extend(old[old.len() - same_tail..].iter().map(|line| (' ', (*line).to_owned())));
    lines
}

/// Longest common subsequence; texts too long for its table are shown as replaced.
fn middle_diff(old: &[&str], new: &[&str]) -> Vec<(char, String)> {
    const CELLS_MAX: usize = 16 << 20;
    let own = |mark, line: &&str| (mark, (*line).to_owned());
    if old.len().saturating_mul(new.len()) > CELLS_MAX {
        return old.iter().map(|line| own('-', line)).chain(new.iter().map(|line| own('+', line))).collect();
    }
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(own(' ', &old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j >= new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(own('-', &old[i]));
            i += 1;
        } else {
            lines.push(own('+', &new[j]));
            j += 1;
        }
    }
    lines
}

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
                heartbeat["stuck"].as_str().unwrap_or_default().to_owned(),
            ]
        };
        let lines: Vec<Vec<String>> = rows(&answer["proxies"]).iter().map(cells).collect();
        table(&["NAME", "STATE", "REVISION", "GENERATION", "HEARD", "VERSION", "STUCK"], &lines)?;
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

/// Milliseconds, as people write a time.
pub(super) fn span(ms: u64) -> String {
    ringway_config::duration_text(std::time::Duration::from_millis(ms))
}

/// A member that does not answer is none of what it may have been.
fn member_row(member: &Value) -> Vec<String> {
    let vote = if member["voter"] == json!(true) { "voter" } else { "learner" };
    let role = match (member["leader"] == json!(true), member["reachable"].as_bool()) {
        (true, _) => "leader".to_owned(),
        (_, Some(false)) => format!("{vote}, unreachable"),
        _ => vote.to_owned(),
    };
    let heard = match (member["reachable"].as_bool(), member["last_heard_ms"].as_u64()) {
        (None, _) => "-".to_owned(),
        (Some(_), Some(ms)) => format!("{} ago", span(ms)),
        (Some(_), None) => "never".to_owned(),
    };
    let known = |value: &Value| if value.is_null() { "-".to_owned() } else { text(value) };
    let mut cells = vec![text(&member["node"]), text(&member["name"]), role];
    cells.extend([&member["api_address"], &member["peer_address"], &member["lag"], &member["term"]].map(known));
    cells.extend([heard, known(&member["version"])]);
    cells
}

fn change_word(change: &Value) -> String {
    let word = match (change["before"].is_null(), change["after"].is_null()) {
        (true, _) => "made",
        (_, true) => "removed",
        _ => "changed",
    };
    format!("{} {word}", text(&change["key"]))
}

/// An object as a line of a table.
fn summary(object: &Object) -> String {
    match object {
        Object::Document(text) | Object::Service(text) => format!("{} lines", text.text.lines().count()),
        Object::Certificate(_) => "certificate and key".into(),
        Object::Backend(backend) => {
            let mut text = format!("{}, weight {}, {}", backend.address, backend.weight, backend.state.name());
            if backend.tier > 0 {
                text.push_str(&format!(", tier {}", backend.tier));
            }
            if let Some(zone) = &backend.zone {
                text.push_str(&format!(", zone {zone}"));
            }
            if backend.ejected {
                text.push_str(", ejected by the fleet");
            }
            if let Some(lease) = backend.lease {
                text.push_str(&format!(", lease {lease}"));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_827_696_000), "2000-02-29 12:34:56");
        assert_eq!(date(1_795_300_000_000), "2026-11-21 22:26:40");
    }

    #[test]
    fn differences_lead_from_one_text_to_the_other() {
        for (old, new) in
            [("", "a\nb"), ("a\nb\nc\nd", "a\nx\nc\nd\ne"), ("a\nb", ""), ("same", "same"), ("b\na", "a\nb")]
        {
            let lines = line_diff(old, new);
            let side = |other: char| {
                lines
                    .iter()
                    .filter(|(mark, _)| *mark != other)
                    .map(|(_, line)| line.as_str())
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            assert_eq!((side('+').as_str(), side('-').as_str()), (old, new));
        }
    }
}
