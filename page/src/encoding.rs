//! What is large, in gzip for those who take it. It is made piece by piece as the client reads: a page of megabytes is never twice in
//! memory, and no piece takes its thread for long.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Less than this is sent as it is.
const BYTES_MIN: usize = 1024;
/// Taken in at a time.
const PIECE: usize = 64 * 1024;

/// The response, in gzip where that is taken and of use.
#[must_use]
pub fn encoded(response: http::Response<Bytes>, asked: &HeaderMap) -> http::Response<UnsyncBoxBody<Bytes, Infallible>> {
    let (mut head, body) = response.into_parts();
    if body.len() < BYTES_MIN {
        return http::Response::from_parts(head, Full::new(body).boxed_unsync());
    }
    head.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    if !accepts_gzip(asked) {
        return http::Response::from_parts(head, Full::new(body).boxed_unsync());
    }
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    http::Response::from_parts(head, Gzipped { rest: body, encoder: Some(encoder), rests: false }.boxed_unsync())
}

/// Whether a client takes gzip. Source: RFC 9110, section 12.5.3; what is not named and not `*` is not taken.
#[must_use]
pub fn accepts_gzip(asked: &HeaderMap) -> bool {
    let fields = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let codings = fields.flat_map(|field| field.split(',')).map(coding);
    let (mut named, mut any) = (None, None);
    for (name, is_taken) in codings {
        match name {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => named = Some(is_taken),
            "*" => any = Some(is_taken),
            _ => {}
        }
    }
    named.or(any).unwrap_or(false)
}

/// A coding's name, and whether it is taken: a weight of nothing refuses it.
fn coding(text: &str) -> (&str, bool) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, weight.is_none_or(|weight| weight.parse::<f64>().is_ok_and(|weight| weight > 0.0)))
}

struct Gzipped {
    rest: Bytes,
    /// `None`: it has ended.
    encoder: Option<GzEncoder<Vec<u8>>>,
    /// Others of the thread are next.
    rests: bool,
}

impl Gzipped {
    /// What the next pieces come to; `None`: all has been said.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut encoder = self.encoder.take()?;
            let piece = self.rest.split_to(PIECE.min(self.rest.len()));
            // Into memory, which takes all.
            if piece.is_empty() || encoder.write_all(&piece).is_err() {
                return encoder.finish().ok();
            }
            let made = std::mem::take(encoder.get_mut());
            self.encoder = Some(encoder);
            if !made.is_empty() {
                return Some(made);
            }
        }
    }
}

impl Body for Gzipped {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // A client that reads as fast as it can would have the thread for the whole page.
        if std::mem::replace(&mut self.rests, false) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.rests = true;
        Poll::Ready(self.next().map(|made| Ok(Frame::data(Bytes::from(made)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn asked(fields: &[&'static str]) -> HeaderMap {
        fields.iter().map(|field| (ACCEPT_ENCODING, HeaderValue::from_static(field))).collect()
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for (fields, is_taken) in [
            (&[][..], false),
            (&[""], false),
            (&["gzip"], true),
            (&["br, GZIP;q=0.5"], true),
            (&["br", "x-gzip"], true),
            (&["gzip;q=0, *"], false),
            (&["gzip; q=0.000"], false),
            (&["gzip;q=NaN"], false),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["identity, deflate"], false),
        ] {
            assert_eq!(accepts_gzip(&asked(fields)), is_taken, "{fields:?}");
        }
    }

    #[tokio::test]
    async fn what_is_large_comes_in_pieces_and_is_what_it_was() {
        // Digits that do not repeat: nothing of it compresses to nothing.
        let text: String =
            (0..200_000_u64).map(|number| format!("{}\n", number.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
        let whole = encoded(http::Response::new(Bytes::from(text.clone())), &asked(&["gzip"]));
        assert_eq!(whole.headers()[CONTENT_ENCODING], "gzip");
        let mut body = whole.into_body();
        let (mut pieces, mut largest) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            largest = largest.max(piece.len());
            pieces.extend_from_slice(&piece);
        }
        let mut read = String::new();
        flate2::read::GzDecoder::new(&pieces[..]).read_to_string(&mut read).unwrap();
        assert!(read == text && largest <= 2 * PIECE, "{largest}");
        let plain = encoded(http::Response::new(Bytes::from(text.clone())), &asked(&[]));
        assert_eq!(
            (plain.headers()[VARY].to_str().unwrap(), plain.headers().get(CONTENT_ENCODING)),
            ("accept-encoding", None)
        );
        assert_eq!(plain.into_body().collect().await.unwrap().to_bytes(), text);
        let small = encoded(http::Response::new(Bytes::from_static(b"ok")), &asked(&["gzip"]));
        assert!(small.headers().is_empty());
    }
}
