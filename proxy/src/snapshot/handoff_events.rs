//! Windows of hand-off that open and close, in the log and in the journal.

use super::journal::Happening;
use super::service::Service;
use ringway_config::duration_text;

/// A change has moved keys, which are handed over from now on.
pub(crate) fn opened(service: &Service) {
    let window = service.config.handoff.as_ref().map(|handoff| duration_text(handoff.window)).unwrap_or_default();
    tell(service, "begun", format!("the keys that the last change has moved are handed over within {window}"));
}

/// So many changes are over.
pub(crate) fn over(service: &Service, changes: usize) {
    let text = match changes {
        1 => "all keys that a change had moved are their next owners'".to_owned(),
        _ => format!("all keys that {changes} changes had moved are their next owners'"),
    };
    tell(service, "over", text);
}

fn tell(service: &Service, to: &'static str, text: String) {
    tracing::info!(service = %service.config.name, state = to, "hand-off: {text}");
    let name = service.config.name.clone();
    service.live.journal.note(&Happening { kind: "handoff", to, service: name, text, ..Happening::default() });
}
