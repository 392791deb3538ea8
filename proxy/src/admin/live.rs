//! `/live`: what the page shows of a proxy. Numbers are sampled once for all who look, and not at all while nobody does.

mod frame;
mod numbers;
mod service;
mod window;

use crate::ambient;
use crate::apply::handle::ControlHandle;
use frame::Frames;
use ringway_page::Source;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;
use window::Window;

/// All who look at this proxy.
pub(crate) type Live = ringway_page::Live<Sampled>;

/// A proxy's numbers, for as long as somebody looks.
pub(crate) struct Sampled {
    control: ControlHandle,
    window: Window,
    frames: Frames,
}

pub(crate) fn live(control: ControlHandle) -> Arc<Live> {
    Live::new(move || Sampled { control: control.clone(), window: Window::default(), frames: Frames::default() })
}

impl Source for Sampled {
    async fn sample(&mut self, followed: &HashSet<String>) {
        self.window.take(self.control.counters(), followed, ambient::now());
    }

    fn common(&mut self) -> Map<String, Value> {
        self.frames.overview(&self.control, &self.window)
    }

    fn service(&mut self, name: &str) -> Option<Value> {
        self.frames.service(&self.control, &self.window, name)
    }
}
