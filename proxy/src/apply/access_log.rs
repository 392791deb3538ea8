//! The access log's writer: started before a change is in force, ended behind it.

use super::outcome::ReloadError;
use crate::dispatcher::AccessSink;
use ringway_config::model::{AccessLog, AccessLogFormat, LogTarget};
use ringway_telemetry::access::{self, SyslogAddress};
use ringway_telemetry::counters::Registry as Counters;
use std::sync::Arc;
use std::thread::JoinHandle;

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

    /// Waits until it has written all. Its senders must be gone.
    pub(super) fn join(self) {
        // One that has panicked has written what it could.
        let _ = self.thread.join();
    }
}

/// An access log that takes the place of the one before: none at all, or where lines go and what writes them.
#[derive(Default)]
pub(super) struct NewLog {
    pub(super) sink: Option<AccessSink>,
    pub(super) writer: Option<AccessWriter>,
}

/// Starts the writer of a section. One that is not used after all ends by itself, as its sender is dropped.
///
/// # Errors
/// [`ReloadError::AccessLog`].
pub(super) fn start(section: &AccessLog, counters: &Arc<Counters>) -> Result<NewLog, ReloadError> {
    let format = match section.format {
        AccessLogFormat::Off => return Ok(NewLog::default()),
        AccessLogFormat::Json => access::Format::Json,
        AccessLogFormat::Text => access::Format::Text,
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

    #[test]
    fn a_log_that_is_never_used_ends_by_itself_and_one_that_cannot_be_opened_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let section = |format, target| AccessLog { format, target: LogTarget::File(target), only: None };
        let file = directory.path().join("access.log");
        let NewLog { sink, writer } = start(&section(AccessLogFormat::Json, file.clone()), &Arc::default()).unwrap();
        drop(sink);
        writer.unwrap().join();
        assert!(file.exists());
        let off = start(&section(AccessLogFormat::Off, file), &Arc::default()).unwrap();
        assert!(off.sink.is_none() && off.writer.is_none());
        let nowhere = directory.path().join("none/access.log");
        let refused = start(&section(AccessLogFormat::Text, nowhere), &Arc::default());
        assert!(matches!(refused, Err(ReloadError::AccessLog { .. })));
    }
}
