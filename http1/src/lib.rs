//! The HTTP/1.1 codec: bytes in, events out.
//!
//! Pure: no sockets, no clock, no allocation per message once its tables have grown. Heads are parsed in one
//! walk and judged by one strict set of rules (RFC 9112, with every "MAY be lenient" read as "must not"): what two parties
//! could read differently is refused, so a message never counts as another number of messages further on.
//!
//! * [`parse_request`] and [`parse_response`] turn a buffer into a [`RequestHead`] or a [`ResponseHead`]: offsets into
//!   that buffer, so that the caller keeps the bytes and no lifetime crosses a wait.
//! * [`Body`] says where a message's body ends and moves its bytes from one framing to another.
//! * [`mod@write`] copies what goes on to the next hop.
#![warn(missing_docs)]

mod body;
mod chunked;
mod framing;
mod request;
mod response;
mod walk;
pub mod write;

pub use body::{Body, Progress};
pub use chunked::{ChunkDecoder, ChunkEvent, TRAILER_BYTES_MAX};
pub use framing::Encoding;
pub use request::{parse_request, parse_request_on};
pub use response::{is_response, parse_response, parse_response_on};
pub use ringway_message::{
    Authority, BodyLength, Field, FieldName, Limits, Method, ParseError, RequestHead, ResponseHead, Span, TargetForm,
    Version, default_port, may_trail,
};
pub use walk::Resume;
