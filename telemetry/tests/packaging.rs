//! Dashboard and alerts ask for metrics and labels that there are: those that docs/metrics.md lists, which is held to both catalogues.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

const METRICS: &str = include_str!("../../docs/metrics.md");
const ALERTS: &str = include_str!("../../packaging/prometheus/alerts.yaml");
const ALERTS_TEST: &str = include_str!("../../packaging/prometheus/alerts_test.yaml");
const DASHBOARD: &str = include_str!("../../packaging/grafana/ringway.json");

/// Labels that Prometheus itself gives.
const OF_TARGETS: [&str; 2] = ["job", "instance"];

/// Every series with its labels: a histogram has three.
fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut all = BTreeMap::new();
    for row in METRICS.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = cells[0].trim_start_matches("| ").trim_matches('`');
        let labels: BTreeSet<&str> = cells[2].split('`').skip(1).step_by(2).chain(OF_TARGETS).collect();
        if cells[1] == "histogram" {
            for part in ["_sum", "_count"] {
                all.insert(format!("{name}{part}"), labels.clone());
            }
            all.insert(format!("{name}_bucket"), labels.into_iter().chain(["le"]).collect());
        } else {
            all.insert(name.to_owned(), labels);
        }
    }
    all.insert("up".into(), BTreeSet::from(OF_TARGETS));
    assert!(all.len() > 100);
    all
}

/// Names in an expression, and what follows each. Texts in quotes are no names.
fn names(expression: &str) -> Vec<(String, char)> {
    let mut plain = String::new();
    for (index, part) in expression.split('"').enumerate() {
        plain.push_str(if index % 2 == 0 { part } else { "\"\"" });
    }
    let (mut found, mut name) = (Vec::new(), String::new());
    for c in plain.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | ':') {
            name.push(c);
        } else if c != ' ' || !name.is_empty() {
            let is_name = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
            if is_name {
                found.push((std::mem::take(&mut name), c));
            }
            name.clear();
        }
    }
    found
}

/// Metrics that an expression asks for; what is asked of them by labels is checked.
fn ask(expression: &str, known: &BTreeMap<String, BTreeSet<&'static str>>) -> BTreeSet<String> {
    let asked: BTreeSet<String> = names(expression)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name == "up" || name.starts_with("ringway_") || name.starts_with("process_"))
        .collect();
    assert!(!asked.is_empty(), "{expression} asks for nothing");
    let mut labels: BTreeSet<&str> = BTreeSet::new();
    for name in &asked {
        labels.extend(known.get(name).unwrap_or_else(|| panic!("there is no {name}: {expression}")));
    }
    // Between a metric's braces, each by itself.
    for name in &asked {
        for (at, _) in expression.match_indices(&format!("{name}{{")) {
            let inside = &expression[at + name.len() + 1..];
            let inside = &inside[..inside.find('}').unwrap()];
            for (label, next) in names(inside) {
                assert!(matches!(next, '=' | '!'), "{label}{next} in {expression}");
                assert!(known[name].contains(label.as_str()), "{name} has no label {label}: {expression}");
            }
        }
    }
    for grouping in ["by (", "on (", "without (", "group_left ("] {
        for part in expression.split(grouping).skip(1) {
            for (label, _) in names(part.split(')').next().unwrap()) {
                assert!(labels.contains(label.as_str()), "nothing has a label {label}: {expression}");
            }
        }
    }
    asked
}

/// Labels that what an expression finds has: those of its first metric, or of the first grouping if that is around it.
fn left_by<'e>(expression: &'e str, known: &BTreeMap<String, BTreeSet<&'static str>>) -> BTreeSet<&'e str> {
    let (first, _) = names(expression).into_iter().find(|(name, _)| known.contains_key(name)).unwrap();
    match expression[..expression.find(&first).unwrap()].split_once("by (") {
        Some((_, grouping)) => grouping.split(')').next().unwrap().split(", ").collect(),
        None => known[&first].clone(),
    }
}

/// Every label that a text of an alert names is one that the alert has.
fn explain(expression: &str, texts: &str, known: &BTreeMap<String, BTreeSet<&'static str>>) {
    let left = left_by(expression, known);
    for named in texts.split("$labels.").skip(1) {
        let label = named.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        assert!(left.contains(label), "$labels.{label} is always empty: {expression}");
    }
}

/// Name, expression and what follows of each.
fn alerts() -> Vec<(&'static str, &'static str, &'static str)> {
    let each = ALERTS.split("- alert: ").skip(1).map(|alert| {
        let (name, rest) = alert.split_once('\n').unwrap();
        let (expression, texts) = rest.trim_start().strip_prefix("expr: ").unwrap().split_once('\n').unwrap();
        (name, expression, texts)
    });
    each.collect()
}

#[test]
fn alerts_ask_for_what_there_is_and_each_is_tried() {
    let known = series();
    let alerts = alerts();
    assert!(alerts.len() > 20, "{alerts:?}");
    assert_eq!(alerts.len(), ALERTS.matches("expr:").count());
    for (name, expression, texts) in alerts {
        ask(expression, &known);
        explain(expression, texts, &known);
        assert!(ALERTS_TEST.contains(&format!("alertname: {name}\n")), "{name} is not tried");
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is_and_explains_it_by_labels_that_are_left() {
    let known = series();
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let (mut ids, mut asked) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            asked.extend(ask(expression, &known));
            for label in target["legendFormat"].as_str().unwrap().split("{{").skip(1) {
                let label = label.split("}}").next().unwrap();
                let kept: Vec<&str> =
                    expression.split("by (").skip(1).flat_map(|part| part.split(')').next()).collect();
                let is_kept = kept.is_empty() || kept.iter().all(|kept| kept.split(", ").any(|one| one == label));
                assert!(is_kept, "{{{{{label}}}}} is always empty: {expression}");
            }
        }
    }
    assert!(asked.len() > 50, "{asked:?}");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let (selector, label) = query.strip_prefix("label_values(").unwrap().rsplit_once(", ").unwrap();
        let metric = ask(selector, &known).pop_first().unwrap();
        assert!(known[&metric].contains(label.trim_end_matches(')')), "{query}");
    }
    ask(dashboard["annotations"]["list"][0]["expr"].as_str().unwrap(), &known);
}

#[test]
#[should_panic(expected = "ringway_hot_keys has no label backend")]
fn a_label_that_a_metric_has_not_is_found() {
    ask("sum by (service) (ringway_hot_keys{service=\"s\",backend=~\"ringway_none\"})", &series());
}

#[test]
#[should_panic(expected = "$labels.instance is always empty")]
fn a_label_that_a_grouping_has_taken_away_is_found() {
    explain("sum by (service) (ringway_hot_keys)", "'{{ $labels.service }} of {{ $labels.instance }}'", &series());
}

#[test]
#[should_panic(expected = "there is no ringway_cold_keys")]
fn a_metric_that_there_is_not_is_found() {
    ask("sum(rate(ringway_cold_keys[5m]))", &series());
}
