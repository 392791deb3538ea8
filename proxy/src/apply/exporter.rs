//! The exporter of spans: started before a change is in force, ended behind it.

use super::outcome::ReloadError;
use crate::net::tls::{self, TlsError};
use ringway_config::model::{Tracing, Trust, UpstreamTls};
use ringway_telemetry::counters::Registry as Counters;
use ringway_telemetry::traces::{self, Collector, Exporter, Sink};
use std::sync::Arc;

/// An exporter that takes the place of the one before, or none.
#[derive(Default)]
pub(super) struct NewExporter {
    pub(super) sink: Option<Sink>,
    pub(super) exporter: Option<Exporter>,
}

/// Starts the exporter of a section. One that is not used after all ends by itself, as its sender is dropped.
///
/// # Errors
/// [`ReloadError::Tracing`], [`ReloadError::Exporter`].
pub(super) fn start(section: Option<&Tracing>, counters: &Arc<Counters>) -> Result<NewExporter, ReloadError> {
    let Some(section) = section else { return Ok(NewExporter::default()) };
    let server = &section.endpoint.server;
    let tls = server.tls.then(|| tls_to(&server.host, section.tls.as_ref())).transpose();
    let collector = Collector {
        host: server.host.clone(),
        port: server.port,
        authority: server.authority(),
        path: section.endpoint.path.clone(),
        tls: tls.map_err(|source| ReloadError::Tracing { endpoint: server.to_string(), source })?,
        headers: section.headers.clone(),
        token_file: section.token_file.clone(),
        gzip: section.gzip,
        timeout: section.timeout,
    };
    let name = ("service.name".to_owned(), section.service_name.clone());
    let resource: Vec<_> = std::iter::once(name).chain(section.attributes.iter().cloned()).collect();
    let (sink, exporter) =
        traces::start(collector, &resource, Arc::clone(&counters.spans)).map_err(ReloadError::Exporter)?;
    Ok(NewExporter { sink: Some(sink), exporter: Some(exporter) })
}

/// Whether the exporter of one section does for the other: they may differ in what requests are recorded, and what of them.
pub(super) fn is_same(old: Option<&Tracing>, new: Option<&Tracing>) -> bool {
    let used = |section: &Tracing| Tracing { sample: 0.0, trust: Trust::None, query: false, ..section.clone() };
    old.map(used) == new.map(used)
}

type Tls = (Arc<rustls::ClientConfig>, rustls::pki_types::ServerName<'static>);

fn tls_to(host: &str, section: Option<&UpstreamTls>) -> Result<Tls, TlsError> {
    let public = UpstreamTls { sni: None, ca: None, verify: true, ignore_unexpected_eof: false, own: None };
    let section = section.unwrap_or(&public);
    let name = section.sni.as_deref().unwrap_or(host).to_owned();
    let name = rustls::pki_types::ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name))?;
    Ok((tls::client(section, &[b"http/1.1"])?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exporter_stays_as_long_as_it_delivers_in_the_same_way() {
        let section = |more: &str| {
            let text = format!(
                "tracing: {{ endpoint: \"http://127.0.0.1:1\"{more} }}\n\
                 listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
                 services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
            );
            super::super::testing::config(&text).tracing
        };
        let old = section("");
        for (more, same) in [
            (", sample: 1%, trust: all, query: true", true),
            (", timeout: 3s", false),
            (", gzip: true", false),
            (", service_name: other", false),
            (", token_file: /t", false),
            (", headers: [ { name: a, value: b } ]", false),
            (", attributes: [ { name: a, value: b } ]", false),
        ] {
            assert_eq!(is_same(old.as_ref(), section(more).as_ref()), same, "{more}");
        }
        assert!(!is_same(old.as_ref(), None) && !is_same(None, old.as_ref()) && is_same(None, None));
    }

    #[test]
    fn a_collector_whose_authorities_cannot_be_read_is_refused_and_an_exporter_that_is_not_used_ends() {
        let text = |tls: &str| {
            format!(
                "tracing: {{ endpoint: \"https://127.0.0.1:1\"{tls} }}\n\
                 listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
                 services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
            )
        };
        let section = |tls: &str| super::super::testing::config(&text(tls)).tracing;
        let refused = start(section(", tls: { ca: /nowhere/at/all.pem }").as_ref(), &Arc::default());
        assert!(matches!(refused, Err(ReloadError::Tracing { .. })));
        let NewExporter { sink, exporter } = start(section("").as_ref(), &Arc::default()).unwrap();
        drop(sink);
        assert!(exporter.unwrap().join(crate::ambient::now() + std::time::Duration::from_secs(600)));
        assert!(start(None, &Arc::default()).unwrap().exporter.is_none());
    }
}
