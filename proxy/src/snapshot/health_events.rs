//! Events of a health machine, written to the log, to the metrics and to the journal, whether a check, a request or a reload caused them.

use super::journal::Happening;
use super::service::Service;
use ringway_health::{Event, EventKind};
use ringway_telemetry::catalogue;

/// Logs, counts and keeps the events of a health machine.
pub(crate) fn publish(service: &Service, events: &[Event]) {
    for Event { id, kind } in events {
        let name = &service.config.name;
        let (to, reason) = (kind.name(), kind.reason());
        metrics::counter!(catalogue::HEALTH_CHANGES.name, "service" => name.clone(), "to" => to, "reason" => reason)
            .increment(1);
        service.live.journal.note(&Happening {
            kind: "health",
            to,
            service: name.clone(),
            backend: id.clone(),
            text: kind.to_string(),
            ..Happening::default()
        });
        match kind {
            EventKind::Down(_) | EventKind::Ejected { .. } | EventKind::EjectionWithheld(_) => {
                tracing::warn!(service = %name, backend = %id, state = to, reason, "backend {kind}")
            }
            EventKind::PanicBegan => tracing::error!(service = %name, state = to, "{kind}"),
            EventKind::PanicEnded => tracing::info!(service = %name, state = to, "{kind}"),
            _ => tracing::info!(service = %name, backend = %id, state = to, reason, "backend {kind}"),
        }
    }
}
