//! Frames of HTTP/2 that cost more to take than to send, counted on their way to the library, which has no hook for them.
//!
//! Of each frame only its header is looked at (RFC 9113, 4.1). What a peer may send as an answer to what we send (a window for data,
//! a PING to measure it) is allowed for by the data that it was sent.

/// Bytes of a frame's header.
const HEADER_BYTES: usize = 9;
/// Frames of each kind that a second may bring.
const RESETS: u32 = 100;
const PINGS: u32 = 100;
const SETTINGS: u32 = 50;
const WINDOW_UPDATES: u32 = 100;
const EMPTY_DATA: u32 = 100;
/// And resets in all.
const RESETS_TOTAL: u32 = 10_000;
/// Malformed requests in all, which we reset: CVE-2025-8671.
const MALFORMED_TOTAL: u32 = 500;
/// PINGs and window updates that a frame of data with bytes in it allows for; as in Envoy.
const ALLOWED_PER_DATA: u32 = 10;
const ALLOWED_MAX: u32 = 1_000_000;

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    length: usize,
    pub(crate) kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds frames in bytes that come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// Bytes until the next header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    held: usize,
}

impl Scanner {
    /// Whether the last frame has come whole.
    pub(crate) fn is_between(&self) -> bool {
        self.skip == 0 && self.held == 0
    }

    pub(crate) fn scan(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER_BYTES - self.held).min(bytes.len());
            self.header[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
            self.held += taken;
            bytes = &bytes[taken..];
            if self.held < HEADER_BYTES {
                return;
            }
            let [high, middle, low, kind, flags, a, b, c, d] = self.header;
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            found(Frame { length, kind, flags, stream: u32::from_be_bytes([a, b, c, d]) & (u32::MAX >> 1) });
            (self.skip, self.held) = (length, 0);
        }
    }
}

/// What one connection has sent.
#[derive(Debug)]
pub(crate) struct Watch {
    incoming: Scanner,
    outgoing: Scanner,
    counts: Counts,
    /// Why the connection is to end, once that is so: a name for metrics.
    flood: Option<&'static str>,
    /// The same, where the library has told the peer.
    library_flood: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Since when the next five are counted.
    second: u64,
    resets: u32,
    pings: u32,
    settings: u32,
    window_updates: u32,
    empty_data: u32,
    resets_total: u32,
    malformed: u32,
    /// What is allowed for by data that was sent.
    allowed: u32,
}

impl Watch {
    /// `preface_bytes` come before the peer's first frame.
    pub(crate) fn new(preface_bytes: usize) -> Self {
        let incoming = Scanner { skip: preface_bytes, ..Scanner::default() };
        Self { incoming, outgoing: Scanner::default(), counts: Counts::default(), flood: None, library_flood: None }
    }

    /// The peer has sent this.
    pub(crate) fn handle_read(&mut self, bytes: &[u8], second: u64) {
        let Self { incoming, counts, flood, .. } = self;
        if counts.second != second {
            let Counts { resets_total, malformed, allowed, .. } = *counts;
            *counts = Counts { second, resets_total, malformed, allowed, ..Counts::default() };
        }
        incoming.scan(bytes, |frame| *flood = flood.or(counts.handle(frame)));
    }

    /// The peer was sent this.
    pub(crate) fn handle_written(&mut self, bytes: &[u8]) {
        let allowed = &mut self.counts.allowed;
        let mut goes_away = false;
        self.outgoing.scan(bytes, |frame| {
            if frame.kind == 0 && frame.length > 0 {
                *allowed = (*allowed + ALLOWED_PER_DATA).min(ALLOWED_MAX);
            }
            goes_away |= frame.kind == 7;
        });
        if goes_away {
            self.library_flood = said(bytes).or(self.library_flood);
        }
    }

    /// The flood for which the library has ended the connection with this error, if it was one.
    pub(crate) fn library_flood(&self, error: &h2::Error) -> Option<&'static str> {
        let calms = error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        (error.is_library() && error.is_go_away() && calms).then(|| self.library_flood.unwrap_or("http2_other_flood"))
    }

    /// The peer has sent a request that only we find malformed.
    pub(crate) fn handle_malformed(&mut self) {
        self.counts.malformed += 1;
        if self.counts.malformed > MALFORMED_TOTAL {
            self.flood = self.flood.or(Some("http2_malformed_flood"));
        }
    }

    /// Why the connection is to end.
    pub(crate) fn flood(&self) -> Option<&'static str> {
        self.flood
    }
}

/// What the library says in its GOAWAY of a flood that it has found by itself, and the flood's name for metrics.
const SAID: [(&[u8], &str); 5] = [
    (b"too_many_resets", "http2_reset_flood"),
    (b"too_many_internal_resets", "http2_malformed_flood"),
    (b"too_many_continuations", "http2_continuation_flood"),
    (b"header_list_way_too_large", "http2_head_flood"),
    (b"too_many_data_frames", "http2_small_data_flood"),
];

/// The flood that a GOAWAY among what is written tells of: its error code, and then the words (RFC 9113, 6.8).
fn said(written: &[u8]) -> Option<&'static str> {
    let code = u32::from(h2::Reason::ENHANCE_YOUR_CALM).to_be_bytes();
    let mut after = memchr::memmem::find_iter(written, &code).map(|at| &written[at + code.len()..]);
    after.find_map(|rest| SAID.iter().find(|(words, _)| rest.starts_with(words)).map(|(_, name)| *name))
}

impl Counts {
    fn handle(&mut self, frame: Frame) -> Option<&'static str> {
        const ACK_OR_END: u8 = 1;
        let (count, most, name) = match (frame.kind, frame.stream) {
            (0, _) if frame.length == 0 && frame.flags & ACK_OR_END == 0 => {
                (&mut self.empty_data, EMPTY_DATA, "http2_empty_data_flood")
            }
            (3, _) => {
                self.resets_total += 1;
                if self.resets_total > RESETS_TOTAL {
                    return Some("http2_reset_flood");
                }
                (&mut self.resets, RESETS, "http2_reset_flood")
            }
            (4, _) if frame.flags & ACK_OR_END == 0 => (&mut self.settings, SETTINGS, "http2_settings_flood"),
            (6, _) | (8, 0) if self.allowed > 0 => {
                self.allowed -= 1;
                return None;
            }
            (6, _) if frame.flags & ACK_OR_END == 0 => (&mut self.pings, PINGS, "http2_ping_flood"),
            (8, 0) => (&mut self.window_updates, WINDOW_UPDATES, "http2_window_flood"),
            _ => return None,
        };
        *count += 1;
        (*count > most).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        [&size[1..], &[kind, flags], &stream.to_be_bytes(), &vec![0xff; length]].concat()
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [frame(4, 0, 0, 12), frame(0, 1, 1, 0), frame(1, 5, 3, 40), frame(8, 0, 0, 4)].concat();
        let kinds = [(4, 12), (0, 0), (1, 40), (8, 4)];
        for cut in 1..bytes.len() {
            let (mut scanner, mut seen) = (Scanner { skip: 3, ..Scanner::default() }, Vec::new());
            scanner.scan(b"abc", |_| ());
            for piece in bytes.chunks(cut) {
                scanner.scan(piece, |frame| seen.push((frame.kind, frame.length)));
            }
            assert_eq!(seen, kinds, "{cut}");
        }
    }

    #[test]
    fn each_flood_has_its_cap() {
        for (kind, stream, most) in [(0, 1, 100), (3, 1, 100), (4, 0, 50), (6, 0, 100), (8, 0, 100)] {
            let mut watch = Watch::new(0);
            for second in 0..5 {
                for _ in 0..most {
                    watch.handle_read(&frame(kind, 0, stream, 0), second);
                }
                assert_eq!(watch.flood(), None, "{kind}");
            }
            watch.handle_read(&frame(kind, 0, stream, 0), 4);
            assert!(watch.flood().is_some(), "{kind}");
        }
        let mut watch = Watch::new(0);
        for second in 0..=100 {
            (0..100).for_each(|_| watch.handle_read(&frame(3, 0, 1, 4), second));
        }
        assert_eq!(watch.flood(), Some("http2_reset_flood"));
    }

    #[test]
    fn who_is_sent_data_may_answer_it() {
        let mut watch = Watch::new(0);
        for _ in 0..1000 {
            watch.handle_written(&frame(0, 0, 1, 100));
            watch.handle_read(&[frame(8, 0, 0, 4), frame(6, 0, 0, 8)].concat(), 0);
        }
        assert_eq!(watch.flood(), None);
        // Answers to PINGs are no data.
        for _ in 0..20_000 {
            watch.handle_written(&frame(6, 1, 0, 8));
            watch.handle_read(&frame(6, 0, 0, 8), 0);
        }
        assert_eq!(watch.flood(), Some("http2_ping_flood"));
    }
}
