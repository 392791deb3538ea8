//! The coding that a client prefers (RFC 9110, 12.5.3).

use super::named;
use ringway_config::model::{Compress, ContentCoding};
use ringway_message::RequestHead;

/// The coding for a request, among those that its route offers: the one that the client prefers. `None`: no compression.
pub(crate) fn choose(rule: &Compress, buffer: &[u8], head: &RequestHead) -> Option<ContentCoding> {
    let mut wishes = Wishes::default();
    for field in named(&head.fields, buffer, b"accept-encoding") {
        wishes.take_in(field.value.of(buffer));
    }
    wishes.best(&rule.algorithms)
}

/// What a client accepts, in thousandths.
#[derive(Default)]
struct Wishes {
    codings: [Option<u16>; 3],
    identity: Option<u16>,
    any: Option<u16>,
}

impl Wishes {
    fn take_in(&mut self, value: &[u8]) {
        for element in value.split(|byte| *byte == b',') {
            let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let quality = match parts.next() {
                None => 1000,
                // A value that does not parse is no preference.
                Some(weight) => quality(weight).filter(|_| parts.next().is_none()).unwrap_or(0),
            };
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            let wish = if is(b"gzip") || is(b"x-gzip") {
                &mut self.codings[ContentCoding::Gzip as usize]
            } else if is(b"br") {
                &mut self.codings[ContentCoding::Brotli as usize]
            } else if is(b"zstd") {
                &mut self.codings[ContentCoding::Zstd as usize]
            } else if is(b"identity") {
                &mut self.identity
            } else if is(b"*") {
                &mut self.any
            } else {
                continue;
            };
            *wish = Some(quality);
        }
    }

    fn best(&self, offered: &[ContentCoding]) -> Option<ContentCoding> {
        let mut best = (None, self.identity.unwrap_or(0).saturating_sub(1));
        for coding in offered {
            let quality = self.codings[*coding as usize].or(self.any).unwrap_or(0);
            if quality > best.1 {
                best = (Some(*coding), quality);
            }
        }
        best.0
    }
}

/// `q=0.5`, in thousandths (RFC 9110, 12.4.2).
fn quality(weight: &[u8]) -> Option<u16> {
    let (name, digits) = (weight.get(..2)?, &weight[2..]);
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, fraction) = (digits.first()?, digits.get(2..).unwrap_or_default());
    let well_formed = digits.get(1).is_none_or(|dot| *dot == b'.')
        && fraction.len() <= 3
        && fraction.iter().all(u8::is_ascii_digit)
        && (*whole == b'0' || *whole == b'1' && fraction.iter().all(|digit| *digit == b'0'));
    if !well_formed {
        return None;
    }
    let tail = (0..3).fold(0, |sum, at| sum * 10 + fraction.get(at).map_or(0, |digit| u16::from(digit - b'0')));
    Some(u16::from(*whole == b'1') * 1000 + tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContentCoding::{Brotli, Gzip, Zstd};

    fn best(accepted: &str, offered: &[ContentCoding]) -> Option<ContentCoding> {
        let mut wishes = Wishes::default();
        wishes.take_in(accepted.as_bytes());
        wishes.best(offered)
    }

    #[test]
    fn the_client_wish_comes_before_the_order() {
        let all = [Zstd, Brotli, Gzip];
        for (accepted, wanted) in [
            ("", None),
            ("deflate", None),
            ("gzip", Some(Gzip)),
            ("X-GZip", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, br", Some(Brotli)),
            ("gzip;q=1.0, br;q=0.5", Some(Gzip)),
            ("gzip ; q=0.001", Some(Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.000, *;q=0", None),
            ("*", Some(Zstd)),
            ("*, zstd;q=0", Some(Brotli)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity;q=0, gzip;q=0.1", Some(Gzip)),
            ("gzip;q=2, br;q=1.5, zstd;q=", None),
            ("gzip;level=9", None),
            ("gzip;q=0.1234", None),
        ] {
            assert_eq!(best(accepted, &all), wanted, "{accepted}");
        }
        // Whatever is sent, nothing panics.
        let text = b"gzip;q=0.5, *;q=1.000, identity;q=0;x=\"y\"";
        for at in 0..text.len() {
            for byte in 0..=u8::MAX {
                let mut noisy = text.to_vec();
                noisy[at] = byte;
                let mut wishes = Wishes::default();
                wishes.take_in(&noisy[..=(at * 7 + usize::from(byte)) % text.len()]);
                wishes.take_in(&noisy);
                let _ = wishes.best(&all);
            }
        }
        assert_eq!(best("gzip, br", &[Gzip, Brotli]), Some(Gzip));
        assert_eq!(best("zstd", &[Gzip]), None);
    }
}
