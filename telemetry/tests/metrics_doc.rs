//! docs/metrics.md names every metric of the catalogue as the catalogue does.

use ringway_telemetry::catalogue::ALL;

#[test]
fn every_metric_is_documented_as_it_is() {
    let text = include_str!("../../docs/metrics.md");
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {} | {} | {} |", metric.name, metric.kind.as_str(), labels.join(", "), metric.help);
        assert!(text.contains(&row), "docs/metrics.md lacks:\n{row}");
    }
    // The members' own are held by a test beside them.
    let rows = text.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `ringway_control_"));
    assert_eq!(rows.count(), ALL.len());
}
