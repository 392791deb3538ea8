//! Spans below that of a request: its tries, and its waits for room.

use super::span_attributes::{address_of, error_type};
use super::tapped::Step;
use crate::worker::View;
use ringway_config::model::UpstreamProtocol;
use ringway_telemetry::traces::Attributes;
use std::rc::Rc;
use std::time::Instant;

/// A span below the request's.
pub(super) struct Part {
    pub(super) id: [u8; 8],
    pub(super) began: Instant,
    pub(super) ended: Option<Instant>,
    /// `None`: it waits for room.
    pub(super) attempt: Option<Try>,
}

/// A try of the request.
pub(super) struct Try {
    pub(super) view: Rc<View>,
    pub(super) service: usize,
    pub(super) backend: usize,
    /// Tries before it.
    pub(super) resend: u32,
    pub(super) is_hedge: bool,
    /// When there was a connection, and whether it had been used before.
    pub(super) connected: Option<(Instant, bool)>,
    /// When its response began.
    pub(super) answered: Option<Instant>,
    /// 0: no response has begun.
    pub(super) status: u16,
    pub(super) grpc: Option<u32>,
    pub(super) error: Option<&'static str>,
}

impl Part {
    /// As whoever looks sees it.
    pub(super) fn step(&self) -> Step<'_> {
        let attempt = self.attempt.as_ref();
        let backend = attempt.and_then(|attempt| {
            let service = &attempt.view.services[attempt.service].service;
            service.backends.get(attempt.backend).map(|backend| (service.config.name.as_str(), &backend.config))
        });
        Step {
            kind: match attempt {
                None => "queue",
                Some(attempt) if attempt.is_hedge => "hedge",
                Some(_) => "try",
            },
            began: self.began,
            ended: self.ended,
            backend,
            connected: attempt.and_then(|attempt| attempt.connected),
            answered: attempt.and_then(|attempt| attempt.answered),
            status: attempt.map_or(0, |attempt| attempt.status),
            error: attempt.and_then(|attempt| attempt.error),
        }
    }
}

impl Try {
    /// To a client, a response of 400 or more is an error, and of a call everything but OK.
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some() || self.status >= 400 || self.grpc.is_some_and(|code| code > 0)
    }

    pub(super) fn attributes(&self, method: &str, target: &[u8]) -> Attributes {
        let mut attributes = Attributes::with_capacity(256 + target.len());
        attributes.word("http.request.method", method);
        let service = &self.view.services[self.service].service;
        let version = if service.config.protocol == UpstreamProtocol::H2 { "2" } else { "1.1" };
        attributes.word("network.protocol.version", version);
        if let Some(backend) = service.backends.get(self.backend) {
            let scheme = if service.config.tls.is_some() { "https" } else { "http" };
            let mut url = format!("{scheme}://{}", backend.config.address).into_bytes();
            // A CONNECT names no path.
            url.extend_from_slice(if target.starts_with(b"/") { target } else { b"/" });
            attributes.text("url.full", &url);
            attributes.append(backend.span_attributes.get_or_init(|| {
                let mut attributes = Attributes::default();
                address_of(&backend.config.address, &mut attributes);
                attributes.word("ringway.backend", &backend.config.id);
                attributes
            }));
        }
        if self.status > 0 {
            attributes.number("http.response.status_code", u64::from(self.status));
        }
        if let Some(code) = self.grpc {
            attributes.number("rpc.grpc.status_code", u64::from(code));
        }
        if self.is_error() {
            let mut buffer = itoa::Buffer::new();
            let kind = match self.grpc {
                Some(code) if self.error.is_none() && self.status < 400 => buffer.format(code),
                _ => error_type(self.status, self.error, &mut buffer),
            };
            attributes.text("error.type", kind.as_bytes());
        }
        if self.resend > 0 {
            attributes.number("http.request.resend_count", u64::from(self.resend));
        }
        if self.is_hedge {
            attributes.text("ringway.try", b"hedge");
        }
        attributes
    }
}
