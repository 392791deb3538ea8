//! What the page of a proxy and that of a control plane's member share: the files that both are made of, the stream that they live on, and
//! the encoding of what is large.
#![warn(missing_docs)]

mod encoding;
mod file;
mod live;
mod patch;
mod source;
mod stream;
mod told;

pub use encoding::{accepts_gzip, encoded};
#[doc(hidden)]
pub use file::assert_kept_to;
pub use file::{File, SHARED, find};
pub use live::{Live, StillMay};
pub use source::Source;
pub use stream::Stream;
