//! What a worker's thread has whatever it serves: timers, buffers, counters, tasks, random numbers ([`Dispatcher`]), and what all
//! workers share ([`Shared`]). It knows nothing of the layers above.

mod budget;
mod bulk;
mod command;
mod context;
mod doors;
mod ids;
mod listener_id;
mod per_ip;
mod permits;
mod session_query;
mod shared;
mod tap;
mod tasks;
mod worker_report;

pub(crate) use budget::Budget;
pub(crate) use bulk::{BULK_BYTES, BulkTurn};
pub(crate) use command::Command;
pub(crate) use context::{Dispatcher, HTTP2_WINDOW_GROWTH, Scratch};
pub(crate) use doors::{Doors, Known};
pub(crate) use listener_id::{ListenerId, ListenerKind, Listening};
pub(crate) use per_ip::PerIp;
pub(crate) use permits::{ConnectionPermit, Full, Fullness, ListenerPermits, Occupancy, WaitingForPermit};
pub(crate) use session_query::{Listed, Order, SessionPage, SessionQuery, SessionRow, SessionState, TlsSession};
pub(crate) use shared::{AccessSink, Shared};
pub(crate) use tap::{Arrived, Followed, Tap, TapMatch, UnderWay};
pub(crate) use tasks::wake_after_sockets;
pub(crate) use worker_report::{BufferCounts, ListenerReport, UpstreamReport, WorkerReport};
