//! What an HTTP message is, in any version: heads as spans into the bytes they came in, and the rules that hold whatever carries them.
//!
//! Pure: no sockets, no clock. Codecs judge framing and fill heads; code that routes and forwards reads them here.
#![warn(missing_docs)]

mod authority;
mod bytes;
mod error;
mod field_name;
mod forwarded;
mod head;
mod hop;
mod path;
mod request;
mod response;
pub mod scan;
mod trace_context;
mod writer;

pub use authority::{Authority, default_port, is_authority, is_host_and_port};
pub use bytes::{content_length, is_lower_token, is_protocol, is_target, is_token, is_value, split_target};
pub use error::ParseError;
pub use field_name::{FieldName, as_read, may_trail, reads_as};
pub use forwarded::ToldClient;
pub use head::{FIELDS_CEILING, Field, Limits, Method, Span, Version, tokens};
pub use hop::nominate;
pub use path::{climbs, is_below};
pub use request::{RequestHead, TargetForm};
pub use response::{BodyLength, ResponseHead};
pub use trace_context::{TraceParent, has_trace_context, is_trace_state, trace_state, write_hex};
pub use writer::{HeadWriter, Line, OpenLine};
