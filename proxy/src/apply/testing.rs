//! A control side without workers: what they would be sent can be read.

use super::control::Control;
use super::source::Source;
use crate::dispatcher::Command;
use ringway_config::model::Config;
use ringway_telemetry::Metrics;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(crate) fn config(text: &str) -> Config {
    ringway_config::load_str("test.yaml", text, &|_| None).unwrap_or_else(|error| panic!("{error}\n{text}")).config
}

/// With nothing in force, and the channels of two workers.
pub(crate) fn control(source: Source) -> (Control, [UnboundedReceiver<Command>; 2]) {
    let config = config(
        "workers: 2\nlisteners: [ { name: web, address: \"127.0.0.1:0\", service: s } ]\n\
         services: [ { name: s, backends: [ { id: a, address: \"127.0.0.1:9\" } ] } ]\n",
    );
    let metrics = Metrics::install();
    let shared = crate::proxy::shared(&config, &metrics);
    let [(one, first), (two, second)] = [unbounded_channel(), unbounded_channel()];
    (Control::new(shared, vec![one, two], source, metrics, None), [first, second])
}
