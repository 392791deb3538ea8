//! What proxies and the fleet's leader tell each other of loads: reports one way (`report`), tables the other (`tables`). Pure; what is
//! made of reports is the crate ring's to say ([`ringway_ring::FleetLoads`]). None of it enters the log: it is worked out anew from the
//! reports of a second.

mod position;
mod report;
mod tables;

pub use position::Position;
#[cfg(any(test, fuzzing))]
pub(crate) use report::fuzz as fuzz_report;
pub use report::{
    REPORT_BYTES_MAX, ReportAnswer, Reports, ReportsError, SERVICES_MAX as REPORT_SERVICES_MAX, ServiceLoad,
};
#[cfg(any(test, fuzzing))]
pub(crate) use tables::fuzz as fuzz_tables;
pub use tables::{
    Confirmed, MEMBERS_MAX as TABLES_MEMBERS_MAX, RingTable, TABLES_MAX, TableLine, Tables, TablesError, TablesLine,
};
