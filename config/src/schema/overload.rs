//! The sections of overload and of warnings: what is looked at, from where on less is done, or something is said.

use super::*;

section! {
    /// What the process stops doing as what it may use comes to its end: stages, each with those before it. The share of a resource
    /// that is used decides; a stage begins at once, and ends once that share has been below 95 % of its threshold for `hold`.
    OverloadSection, "overload" {
        /// Whether anything is stopped.
        default("true") enabled: bool,
        /// Most resident memory of this process. Absent is the limit of its cgroup (of containers, of systemd's `MemoryMax`); where
        /// that has none, memory is not looked at.
        optional memory_max: Bytes,
        /// How late all workers may be for what is due, for a second; beyond that new requests are refused. Absent is not looked at.
        optional lag_max: Duration,
        /// Whether keep-alive stops as `connections_max` is neared, or the descriptors that clients may take, and then what is of low
        /// priority. Beyond it, clients wait in the kernel's queue in any case.
        default("false") connections: bool,
        /// Percent from which responses end their connections (`Connection: close`, GOAWAY), and connections without a request are
        /// closed, those to backends too.
        default("85") stop_keep_alive: Percent,
        /// Percent from which new requests of low priority get 503 with `Retry-After` (TCP sessions are reset, UDP flows do not begin): none
        /// at first, all of them halfway to `refuse_requests`; from there on those of default priority too, until all are refused. A share
        /// of them, by chance. See `priority` of routes and services. Absent is halfway between `stop_keep_alive` and `refuse_requests`,
        /// for low priority alone: all of it is refused at `refuse_requests`, as is the rest.
        optional shed_low_priority: Percent,
        /// Percent from which all new requests get 503 with `Retry-After`, new TCP sessions are reset, new UDP flows do not begin.
        default("92") refuse_requests: Percent,
        /// Percent from which new connections are not accepted: they wait in the kernel's queue.
        default("97") stop_accepting: Percent,
        /// How long the share has to stay lower before a stage ends.
        default("5s") hold: Duration,
    }
}

section! {
    /// Warnings of backends that fail more requests than their peers, or take longer, whether or not anything ejects them. A line in the
    /// log and an event when it begins, each hour that it goes on, and when it is over; see docs/operations.md for who stands out.
    OutlierWarningsSection, "outlier_warnings" {
        /// Whether it is looked.
        default("true") enabled: bool,
        /// How often: what has happened since is judged. A backend with fewer than 50 requests in that time is not.
        default("60s") interval: Duration,
    }
}
