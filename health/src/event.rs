//! What goes in, and what comes out.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Result of an active check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// As it should be.
    Success,
    /// As it should be, and the backend asks for only so many percent of its weight: 0 to 100. 0 is a drain that it
    /// asked for itself.
    Weighted(u8),
    /// Not so.
    Failure(CheckFailure),
}

/// Why an active check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckFailure {
    /// The connection was refused or could not be made.
    Connect,
    /// The same, or none in time, to neither of the backend's two addresses.
    ConnectBoth([SocketAddr; 2]),
    /// No complete response in time.
    Timeout,
    /// A status outside the expected ranges.
    Status(u16),
    /// The connection ended before the response did.
    Closed,
    /// Bytes that are no response.
    Garbage,
    /// The TLS handshake failed.
    Tls,
    /// The response's body is not as expected.
    Body,
    /// The response is longer than a check reads.
    TooLong,
    /// `grpc.health.v1` says something else than SERVING (1): its number.
    NotServing(u32),
    /// The call ended with another gRPC status than OK.
    GrpcStatus(u32),
    /// The backend's agent says that it is down.
    Agent,
}

impl CheckFailure {
    /// Short name: metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect | Self::ConnectBoth(_) => "connect",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::Closed => "closed",
            Self::Garbage => "garbage",
            Self::Tls => "tls",
            Self::Body => "body",
            Self::TooLong => "too_long",
            Self::NotServing(_) => "not_serving",
            Self::GrpcStatus(_) => "grpc_status",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("check: connect failed"),
            Self::ConnectBoth([one, other]) => write!(f, "check: connect failed, to {one} and to {other}"),
            Self::Timeout => f.write_str("check: timed out"),
            Self::Status(status) => write!(f, "check: status {status}"),
            Self::Closed => f.write_str("check: connection closed"),
            Self::Garbage => f.write_str("check: not an answer"),
            Self::Tls => f.write_str("check: TLS handshake failed"),
            Self::Body => f.write_str("check: body does not match"),
            Self::TooLong => f.write_str("check: answer is too long"),
            Self::NotServing(status) => write!(f, "check: grpc.health.v1 status {status}"),
            Self::GrpcStatus(status) => write!(f, "check: gRPC status {status}"),
            Self::Agent => f.write_str("check: the agent says down"),
        }
    }
}

/// How a request of live traffic went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response that counts for the backend.
    Success,
    /// A response with this status; the policy says whether it counts as a failure.
    Status(u16),
    /// Refused, reset, or garbage.
    ConnectionFailure,
    /// Nothing is there: the connection was not made in time, or a datagram was lost because no process listens. Counts as as many
    /// failures as eject.
    ConnectTimeout,
    /// The response did not come in time.
    Timeout,
    /// A response with this status (429 or 503) that also asks, with Retry-After, that its backend be left alone for so long. It
    /// is judged as both: whether the wish can be obeyed changes nothing of what the status counts for.
    RetryAfter {
        /// Of the response.
        status: u16,
        /// From now.
        wish: Duration,
    },
}

impl Outcome {
    /// The status of the response, if there was one whose status is known.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) | Self::RetryAfter { status, .. } => Some(status),
            Self::Success | Self::ConnectionFailure | Self::ConnectTimeout | Self::Timeout => None,
        }
    }

    /// For how long the backend asks to be left alone; zero: it does not.
    #[must_use]
    pub fn wish(self) -> Duration {
        match self {
            Self::RetryAfter { wish, .. } => wish,
            Self::Success | Self::Status(_) | Self::ConnectionFailure | Self::ConnectTimeout | Self::Timeout => {
                Duration::ZERO
            }
        }
    }

    /// Whether it is a failure of the way to the backend.
    pub(crate) fn is_local(self) -> bool {
        match self {
            Self::ConnectionFailure | Self::ConnectTimeout | Self::Timeout => true,
            Self::Success | Self::Status(_) | Self::RetryAfter { .. } => false,
        }
    }
}

/// What one backend did over an interval, for the statistical detectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window<'a> {
    /// The backend.
    pub id: &'a str,
    /// Requests that it was sent.
    pub requests: u64,
    /// Of these, failures, as [`crate::OutlierOn`] counts them.
    pub failures: u64,
    /// Mean time to the head of its responses, in microseconds; 0 if unknown.
    pub latency_micros: u64,
}

/// Why a backend was ejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cause {
    /// So many failures in a row.
    Consecutive(u32),
    /// So many failures in a row of the way to it: refused, reset, timed out.
    Local(u32),
    /// So many percent of its requests failed.
    FailurePercentage(u8),
    /// Its success rate, in percent, is below what the others' mean and deviation allow.
    SuccessRate {
        /// Its own.
        rate: u8,
        /// The lowest that is allowed.
        least: u8,
    },
    /// Its mean latency is so many times the median of the others.
    Latency {
        /// Its own, in microseconds.
        micros: u64,
        /// The median, in microseconds.
        median_micros: u64,
    },
    /// It asked to be left alone.
    RetryAfter,
}

impl Cause {
    /// Short name: metric label, status field.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Consecutive(_) => "consecutive_failures",
            Self::Local(_) => "consecutive_local_failures",
            Self::FailurePercentage(_) => "failure_percentage",
            Self::SuccessRate { .. } => "success_rate",
            Self::Latency { .. } => "latency",
            Self::RetryAfter => "retry_after",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive(failures) => write!(f, "{failures} failures in a row"),
            Self::Local(failures) => write!(f, "{failures} connection failures in a row"),
            Self::FailurePercentage(percent) => write!(f, "{percent} % of its requests failed"),
            Self::SuccessRate { rate, least } => {
                write!(f, "success rate {rate} %, the fleet's allows {least} % at least")
            }
            Self::Latency { micros, median_micros } => {
                write!(f, "mean latency {} ms, the fleet's median is {} ms", micros / 1_000, median_micros / 1_000)
            }
            Self::RetryAfter => f.write_str("it sent Retry-After"),
        }
    }
}

/// Something that operators want to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The backend; empty for what concerns the whole service.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EventKind {
    /// Active checks brought it up.
    Up,
    /// Active checks took it down.
    Down(CheckFailure),
    /// Live traffic ejected it.
    Ejected {
        /// Why.
        cause: Cause,
        /// For so long.
        duration: Duration,
    },
    /// Its ejection is over.
    Returned,
    /// Active checks have ended its ejection.
    ReturnedByCheck,
    /// It would have been ejected, but too many are, or none would be left.
    EjectionWithheld(Cause),
    /// Its checks ask for another share of its weight, in percent.
    Reweighted(u8),
    /// It began to drain.
    Draining,
    /// It takes keys again after a drain.
    Undrained,
    /// The clients that it had kept since it takes no keys go elsewhere: their time is over.
    ClientsMoved,
    /// Too few are healthy: health is ignored.
    PanicBegan,
    /// Enough are healthy again.
    PanicEnded,
}

impl EventKind {
    /// Short name: metric label, status field.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down(_) => "down",
            Self::Ejected { .. } => "ejected",
            Self::Returned | Self::ReturnedByCheck => "returned",
            Self::EjectionWithheld(_) => "ejection_withheld",
            Self::Reweighted(_) => "reweighted",
            Self::Draining => "draining",
            Self::Undrained => "undrained",
            Self::ClientsMoved => "clients_moved",
            Self::PanicBegan => "panic_began",
            Self::PanicEnded => "panic_ended",
        }
    }

    /// Why it happened, as a short name from a bounded set; empty where there is nothing to say.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Up | Self::ReturnedByCheck => "checks",
            Self::Down(failure) => failure.name(),
            Self::Ejected { cause, .. } | Self::EjectionWithheld(cause) => cause.name(),
            Self::Returned => "time_served",
            Self::Reweighted(_) => "checks",
            Self::Draining | Self::Undrained => "configuration",
            Self::ClientsMoved => "drain_timeout",
            Self::PanicBegan | Self::PanicEnded => "",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up: its checks succeed"),
            Self::Down(failure) => write!(f, "down: {failure}"),
            Self::Ejected { cause, duration } => write!(f, "ejected for {:.1} s: {cause}", duration.as_secs_f64()),
            Self::Returned => f.write_str("returned: its ejection is over"),
            Self::ReturnedByCheck => f.write_str("returned: its checks succeed"),
            Self::EjectionWithheld(cause) => write!(f, "not ejected, because too few would be left: {cause}"),
            Self::Reweighted(percent) => write!(f, "its checks ask for {percent} % of its weight"),
            Self::Draining => f.write_str("draining: the file, the fleet or an operator says so"),
            Self::Undrained => f.write_str("takes keys again after its drain"),
            Self::ClientsMoved => {
                f.write_str("has been drained for long enough: clients that it had kept go elsewhere")
            }
            Self::PanicBegan => f.write_str("too few backends are healthy: health is ignored"),
            Self::PanicEnded => f.write_str("enough backends are healthy again"),
        }
    }
}
