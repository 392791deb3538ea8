//! The access log's writer: started before a change is in force, ended behind it.

use super::outcome::ReloadError;
use crate::dispatcher::AccessSink;
use ringway_config::model::{AccessLog, AccessLogFormat, LogLine, LogPart, LogSource, LogTarget};
use ringway_telemetry::access::{self, Field, Layout, Part, Source, SyslogAddress};
use ringway_telemetry::counters::Registry as Counters;
use ringway_telemetry::threads::join_by;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// The access log's writer.
pub(super) struct AccessWriter {
    thread: JoinHandle<()>,
    reopen: access::Reopen,
}

impl AccessWriter {
    /// Opens its file again.
    pub(super) fn reopen(&self) {
        self.reopen.ask();
    }

    /// Waits until it has written all, or until then. Its senders must be gone. `false`: it is writing still.
    pub(super) fn join(self, until: Instant) -> bool {
        // One that has panicked has written what it could.
        join_by(self.thread, until).is_some()
    }
}

/// An access log that takes the place of the one before: none at all, or where lines go and what writes them.
#[derive(Default)]
pub(super) struct NewLog {
    pub(super) sink: Option<AccessSink>,
    pub(super) writer: Option<AccessWriter>,
}

/// Every field of a configuration has one here.
fn source(value: &LogSource) -> Option<Source> {
    match value {
        LogSource::Field(name) => Field::named(name).map(Source::Field),
        LogSource::Header(name) => Some(Source::Header(name.as_bytes().into())),
    }
}

/// Starts the writer of a section. One that is not used after all ends by itself, as its sender is dropped.
///
/// # Errors
/// [`ReloadError::AccessLog`].
pub(super) fn start(section: &AccessLog, counters: &Arc<Counters>) -> Result<NewLog, ReloadError> {
    let format = match (section.format, &section.line) {
        (AccessLogFormat::Off, _) => return Ok(NewLog::default()),
        (AccessLogFormat::Json, LogLine::Usual) => access::Format::Json,
        (AccessLogFormat::Text, LogLine::Usual) => access::Format::Text,
        (_, LogLine::Json(fields)) => {
            let named = fields.iter().filter_map(|(name, value)| Some((name.clone(), source(value)?)));
            access::Format::Chosen(Arc::new(Layout::json(named)))
        }
        (_, LogLine::Text(parts)) => {
            let part = |part: &LogPart| match part {
                LogPart::Text(text) => Some(Part::Text(text.as_bytes().into())),
                LogPart::Value(value) => source(value).map(Part::Value),
            };
            access::Format::Chosen(Arc::new(Layout::text(parts.iter().filter_map(part))))
        }
    };
    let target = match &section.target {
        LogTarget::Stdout => access::Target::Stdout,
        LogTarget::Stderr => access::Target::Stderr,
        LogTarget::File(path) => access::Target::File(path.clone()),
        LogTarget::SyslogUnix(path) => access::Target::Syslog(SyslogAddress::Unix(path.clone())),
        LogTarget::SyslogUdp(server) => access::Target::Syslog(SyslogAddress::Udp(server.clone())),
        LogTarget::SyslogTcp(server) => access::Target::Syslog(SyslogAddress::Tcp(server.clone())),
    };
    let counters = Arc::clone(counters);
    let writer = access::start(target, move |lines| counters.access_log_lost(lines))
        .map_err(|source| ReloadError::AccessLog { target: section.target.to_string(), source })?;
    let access::Writer { sender, thread, reopen } = writer;
    Ok(NewLog {
        sink: Some(AccessSink { format, only: section.only.clone(), sender }),
        writer: Some(AccessWriter { thread, reopen }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;
    use std::time::Duration;

    #[test]
    fn every_field_that_a_configuration_may_name_is_a_field_of_lines() {
        let known: Vec<&str> = Field::ALL.iter().map(|field| field.name()).collect();
        assert_eq!(known, ringway_config::model::LOG_FIELDS);
    }

    #[test]
    fn a_log_that_is_never_used_ends_by_itself_and_one_that_cannot_be_opened_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let section =
            |format, target| AccessLog { format, line: LogLine::Usual, target: LogTarget::File(target), only: None };
        let file = directory.path().join("access.log");
        let NewLog { sink, writer } = start(&section(AccessLogFormat::Json, file.clone()), &Arc::default()).unwrap();
        drop(sink);
        assert!(writer.unwrap().join(ambient::now() + Duration::from_secs(600)));
        assert!(file.exists());
        let off = start(&section(AccessLogFormat::Off, file), &Arc::default()).unwrap();
        assert!(off.sink.is_none() && off.writer.is_none());
        let nowhere = directory.path().join("none/access.log");
        let refused = start(&section(AccessLogFormat::Text, nowhere), &Arc::default());
        assert!(matches!(refused, Err(ReloadError::AccessLog { .. })));
    }
}
