//! The encoders, fed piece by piece.

use ringway_config::model::{Compress, ContentCoding};
use std::io::{self, Write};

/// Bytes given to an encoder in one go, before other connections have their turn: a fraction of a millisecond of work.
pub(super) const STEP_BYTES: usize = 16 * 1024;
/// Window of brotli and zstd, as a power of two: what an encoder remembers bounds its memory.
const WINDOW_LOG: u32 = 18;

/// An encoder and what it has made, which is taken from it.
pub(super) enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Ended(Vec<u8>),
}

/// For a body of that length, if it is known.
pub(super) fn encoder(rule: &Compress, coding: ContentCoding, length: Option<u64>) -> io::Result<Encoder> {
    // Tables and windows for a short response are small: most of its cost is to allocate them.
    Ok(match coding {
        ContentCoding::Gzip => {
            let level = flate2::Compression::new(rule.gzip_level);
            Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
        }
        ContentCoding::Brotli => {
            let params = brotli::enc::BrotliEncoderParams {
                quality: i32::try_from(rule.brotli_level).unwrap_or_default(),
                lgwin: window_log(length) as i32,
                size_hint: length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default(),
                ..<_>::default()
            };
            Encoder::Brotli(Box::new(brotli::CompressorWriter::with_params(Vec::new(), STEP_BYTES, &params)))
        }
        ContentCoding::Zstd => {
            let level = i32::try_from(rule.zstd_level).unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
            encoder.window_log(window_log(length))?;
            encoder.set_pledged_src_size(length)?;
            Encoder::Zstd(encoder)
        }
    })
}

/// The smallest window that fits a response of known length, and no larger than the common maximum.
fn window_log(length: Option<u64>) -> u32 {
    /// The smallest window that both brotli and zstd know.
    const LEAST: u32 = 10;
    length.map_or(WINDOW_LOG, |length| (u64::BITS - length.leading_zeros()).clamp(LEAST, WINDOW_LOG))
}

impl Encoder {
    #[inline]
    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Brotli(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
            Self::Ended(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Ended(_) => Ok(()),
        }
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        let out = match std::mem::replace(self, Self::Ended(Vec::new())) {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Ended(out) => out,
        };
        *self = Self::Ended(out);
        Ok(())
    }

    /// Output that has not been taken yet.
    #[inline]
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Ended(out) => out,
        }
    }
}
