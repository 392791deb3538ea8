//! A request whose key is handed from backend to backend: what it tells the next owner of the previous one, and the copy that goes there.

use super::{Copied, Request};
use crate::snapshot::COPY_FIELD;
use crate::worker::View;
use ringway_config::model::UpstreamProtocol;
use ringway_message::{Line, Span};
use ringway_ring::Slot;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

/// What is done with a request whose key a change under way has moved.
pub(crate) struct Handed {
    /// The version that the slots are of.
    pub(crate) view: Rc<View>,
    pub(crate) next: Slot,
    pub(crate) previous: Slot,
    pub(crate) outcome: Outcome,
    /// Bytes of the line that tells of the previous owner, where the head has one: its last.
    told: usize,
}

/// Who was to serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The previous owner.
    Previous,
    /// The previous owner, while the next one got a copy.
    Copied,
    /// The next owner.
    Moved,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Previous => "previous",
            Self::Copied => "copied",
            Self::Moved => "moved",
        }
    }
}

impl Handed {
    pub(crate) fn new(view: &Rc<View>, (previous, next): (Slot, Slot), outcome: Outcome) -> Self {
        Self { view: Rc::clone(view), next, previous, outcome, told: 0 }
    }

    /// The backend that was to serve it.
    fn server(&self) -> Slot {
        match self.outcome {
            Outcome::Previous | Outcome::Copied => self.previous,
            Outcome::Moved => self.next,
        }
    }
}

/// Who had a key before: its id, without what a field cannot hold, and where it listens.
pub(crate) fn named(id: &str, address: SocketAddr) -> String {
    let mut text = String::with_capacity(id.len() + 24);
    for byte in id.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text + &format!(" {address}")
}

impl Request {
    /// What became of the hand-over of its key, for who looks: where it went to the backend that this says.
    pub(crate) fn handed_word(&self) -> Option<&'static str> {
        let handed = self.handed.as_ref()?;
        let is_served = self.report.backend == Some(usize::from(handed.server().0)) && self.is_of(handed);
        is_served.then(|| handed.outcome.name())
    }

    fn is_of(&self, handed: &Handed) -> bool {
        Rc::ptr_eq(&handed.view, &self.view)
    }

    /// A try begins on a backend. The one that has taken its key over, and no other, is told who had it before. `true`: it is told.
    #[cold]
    pub(in crate::exchange) fn tell_previous(&mut self, backend: Slot) -> bool {
        self.forget_previous();
        let Some(handed) = self.handed.as_ref().filter(|handed| self.is_of(handed)) else { return false };
        if handed.outcome != Outcome::Moved || handed.next != backend {
            return false;
        }
        let service = &self.view.services[self.service].service;
        let Some(config) = &service.config.handoff else { return false };
        let previous = &service.backends[usize::from(handed.previous.0)].config;
        let value = named(&previous.id, previous.address);
        let is_indexed = service.config.protocol == UpstreamProtocol::H2 || !self.lines.is_empty();
        let at = self.head_len - 2;
        let told = add(&mut self.out, is_indexed.then_some(&mut self.lines), at, (&config.header, &value));
        self.head_len += told;
        if let Some(kept) = &mut self.kept {
            kept.from += told;
        }
        if let Some(handed) = &mut self.handed {
            handed.told = told;
        }
        true
    }

    /// Takes the line out of the head again.
    fn forget_previous(&mut self) {
        let Some(told) = self.handed.as_mut().map(|handed| std::mem::take(&mut handed.told)).filter(|told| *told > 0)
        else {
            return;
        };
        let end = self.head_len - 2;
        cut(&mut self.out, &mut self.lines, &mut self.authority, end - told..end);
        self.head_len -= told;
        if let Some(kept) = &mut self.kept {
            kept.from -= told;
        }
    }

    /// A copy for the next owner of its key: marked as one, with what it is to know of the previous one, and without what says who the client
    /// is, unless that is wanted. A copy has no body.
    pub(in crate::exchange) fn copied_for(&self, next: Slot, previous: Slot) -> Option<Copied> {
        let service = &self.view.services[self.service].service;
        let config = service.config.handoff.as_ref()?;
        let mut copied = self.copied(service.config.protocol);
        if !config.copy.credentials {
            let snapshot = &self.routed_by.snapshot;
            copied.leave_out(|name| {
                name.eq_ignore_ascii_case(b"authorization")
                    || name.eq_ignore_ascii_case(b"cookie")
                    || snapshot.is_identity(name)
            });
        }
        debug_assert_ne!(next, previous);
        let previous = &service.backends[usize::from(previous.0)].config;
        let is_indexed = service.config.protocol == UpstreamProtocol::H2;
        copied.add(is_indexed, (COPY_FIELD, "copy"));
        copied.add(is_indexed, (&config.header, &named(&previous.id, previous.address)));
        Some(copied)
    }
}

impl Copied {
    /// Takes the line that tells of a previous owner out: it goes to another backend.
    pub(super) fn without_previous(&mut self, handed: Option<&Handed>) {
        let told = handed.map_or(0, |handed| handed.told);
        if told > 0 {
            let end = self.head_len - 2;
            self.cut(end - told..end);
        }
    }

    fn cut(&mut self, range: Range<usize>) {
        self.head_len -= range.len();
        cut(&mut self.out, &mut self.lines, &mut self.authority, range);
    }

    fn add(&mut self, is_indexed: bool, field: (&str, &str)) {
        let at = self.head_len - 2;
        self.head_len += add(&mut self.out, is_indexed.then_some(&mut self.lines), at, field);
    }

    /// Leaves the fields out of whose names this is true.
    fn leave_out(&mut self, is_left_out: impl Fn(&[u8]) -> bool) {
        let mut end = self.head_len;
        // From the last one to the first, so that places before what is cut stay as they are. The request line stays.
        while let Some(start) = self.out[..end - 2].windows(2).rposition(|pair| pair == b"\r\n").map(|at| at + 2) {
            let line = &self.out[start..end];
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if is_left_out(name) {
                self.cut(start..end);
            }
            end = start;
        }
    }
}

/// Puts a line into a head, before the line at `at`, which is its end. Gives its length.
fn add(out: &mut Vec<u8>, lines: Option<&mut Vec<Line>>, at: usize, (name, value): (&str, &str)) -> usize {
    let text = format!("{name}: {value}\r\n");
    out.splice(at..at, text.bytes());
    if let Some(lines) = lines {
        let (start, value_start) = (at as u32, (at + name.len() + 2) as u32);
        lines.push(Line {
            name: Span { start, end: start + name.len() as u32 },
            value: Span { start: value_start, end: value_start + value.len() as u32 },
            sensitive: false,
        });
    }
    text.len()
}

/// Takes whole lines out of a head.
fn cut(out: &mut Vec<u8>, lines: &mut Vec<Line>, authority: &mut Span, range: Range<usize>) {
    let (start, end, length) = (range.start as u32, range.end as u32, range.len() as u32);
    let shift = |span: &mut Span| {
        if span.start >= end {
            *span = Span { start: span.start - length, end: span.end - length };
        }
    };
    lines.retain(|line| line.name.start < start || line.name.start >= end);
    lines.iter_mut().for_each(|line| {
        shift(&mut line.name);
        shift(&mut line.value);
    });
    shift(authority);
    out.drain(range);
}
