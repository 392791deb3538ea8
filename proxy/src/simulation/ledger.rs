//! The scripts' record of each request: what was sent, which backends got it and what they sent, what came back. Every mismatch is a
//! violation.

use super::backends::Reply;
use crate::ambient;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

/// Lines of the trace that a failure shows.
const LINES_SHOWN: usize = 400;

/// The byte at an offset of a body.
pub(super) fn content(id: u64, at: usize) -> u8 {
    let at = at as u64;
    (id.wrapping_mul(0x9e37_79b9).wrapping_add(at.wrapping_mul(31)).wrapping_add(at >> 8) ^ at >> 3) as u8
}

/// A stretch of a body.
pub(super) fn stretch(id: u64, from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| content(id, at)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Put,
    Post,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Post => "POST",
        }
    }
}

/// How far a backend has come with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It is working on it, or has stopped without a word.
    Something,
    /// All of its response.
    All,
    /// It has broken off.
    Cut,
}

/// What a backend has sent for one attempt.
#[derive(Debug, Clone)]
pub(super) struct Try {
    pub(super) backend: String,
    pub(super) status: u16,
    /// Bytes of the body that it has sent.
    pub(super) sent: usize,
    pub(super) said: Said,
    /// It has closed a reused connection without a response: that may cause one more attempt, beyond all limits.
    pub(super) stale: bool,
    /// It has reported that it has not processed it: as if it had not been sent.
    pub(super) refused: bool,
    /// The end of the response cannot be told from a cut.
    pub(super) until_close: bool,
}

/// A request.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) service: &'static str,
    pub(super) method: Method,
    /// Bytes of its body.
    pub(super) body: usize,
    /// The responses, attempt by attempt; the last for all that follow.
    pub(super) replies: Vec<Reply>,
    pub(super) tries: Vec<Try>,
    /// Copies for the next owner of its key.
    pub(super) copies: u32,
    /// Attempts that are allowed.
    pub(super) tries_max: usize,
    /// Its client may see a cut response, or a local reply: because of its own actions, or a fault.
    pub(super) excused: bool,
    /// Its client has left.
    pub(super) left: bool,
    /// And that can be seen: no work goes on for it any more.
    pub(super) gone: bool,
    pub(super) ended: Option<String>,
}

impl Record {
    /// The response to the next attempt.
    pub(super) fn reply(&self) -> Reply {
        self.replies[self.tries.len().saturating_sub(1).min(self.replies.len() - 1)].clone()
    }
}

/// What a client has got.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) id: Option<u64>,
    /// Which attempt's it is.
    pub(super) number: Option<usize>,
    /// The reason, if it is a local reply.
    pub(super) reason: Option<String>,
    pub(super) body: Vec<u8>,
    /// It is complete; if not, the client could see that.
    pub(super) whole: bool,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) records: BTreeMap<u64, Record>,
    began: Option<Instant>,
    hash: xxhash_rust::xxh3::Xxh3,
    lines: Vec<String>,
    loud: bool,
    pub(super) wrong: Vec<String>,
    pub(super) counts: BTreeMap<String, u64>,
}

impl Ledger {
    pub(super) fn new(loud: bool) -> Self {
        Self { began: Some(ambient::now()), loud, ..Self::default() }
    }

    /// Records an event.
    pub(super) fn tell(&mut self, what: &str) {
        let mut line = String::new();
        let millis = self.began.map_or(0, |began| ambient::since(began).as_millis());
        // Writing to a string cannot fail.
        let _ = write!(line, "{:>4}.{:03} {what}", millis / 1000, millis % 1000);
        self.hash.update(line.as_bytes());
        if self.loud {
            println!("{line}");
        }
        self.lines.push(line);
    }

    pub(super) fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Records a violation.
    pub(super) fn violation(&mut self, what: &str) {
        self.tell(&format!("VIOLATION {what}"));
        self.wrong.push(what.to_owned());
    }

    pub(super) fn hash(&self) -> String {
        format!("{:016x} {} lines", self.hash.digest(), self.lines.len())
    }

    pub(super) fn trace(&self) -> String {
        let from = self.lines.len().saturating_sub(LINES_SHOWN);
        self.lines[from..].join("\n")
    }

    /// A backend has the head of a request. Returns which attempt it is, and how to respond.
    pub(super) fn handle_head(&mut self, id: u64, backend: &str, method: &str) -> Option<(usize, Reply)> {
        let Some(record) = self.records.get_mut(&id) else {
            self.violation(&format!("{backend} has got request {id}, which nobody has made"));
            return None;
        };
        if !backend.starts_with(record.service) {
            let what = format!("{backend} has got request {id}, which is for {}", record.service);
            self.violation(&what);
            return None;
        }
        if record.method.name() != method {
            let what = format!("{backend} has got request {id} as {method}");
            self.violation(&what);
            return None;
        }
        let again = record.tries.iter().any(|made| !made.refused);
        record.tries.push(Try {
            backend: backend.to_owned(),
            status: 0,
            sent: 0,
            said: Said::Something,
            stale: false,
            refused: false,
            until_close: false,
        });
        let number = record.tries.len() - 1;
        let counted = record.tries.iter().filter(|made| !made.stale && !made.refused).count();
        let (most, post, reply) = (record.tries_max, record.method == Method::Post, record.reply());
        self.tell(&format!("{backend} has request {id}, try {number}: {}", reply.told()));
        if post && again {
            self.violation(&format!("request {id} is a POST and was sent twice"));
        }
        if counted > most {
            self.violation(&format!("request {id} is tried {counted} times, and {most} are allowed"));
        }
        Some((number, reply))
    }

    pub(super) fn of(&mut self, id: u64, number: usize) -> Option<&mut Try> {
        self.records.get_mut(&id)?.tries.get_mut(number)
    }

    /// A client has got this, and nothing more comes of the request.
    pub(super) fn handle_answer(&mut self, id: u64, answer: &Answer) {
        let wrong = self.judge(id, answer);
        let Answer { status, number, reason, body, whole, .. } = answer;
        let whole = if *whole { "whole" } else { "cut" };
        let by = reason.clone().unwrap_or_else(|| format!("try {}", number.map_or(-1, |number| number as i64)));
        let ended = format!("{status} {by}, {} bytes, {whole}", body.len());
        self.end(id, &ended);
        self.count(&reason.clone().unwrap_or_else(|| format!("{whole} {}xx", status / 100)));
        if let Some(wrong) = wrong {
            self.violation(&format!("request {id}: {wrong} ({ended})"));
        }
    }

    /// A request is over for its client.
    pub(super) fn end(&mut self, id: u64, how: &str) {
        self.tell(&format!("request {id} ends: {how}"));
        let Some(record) = self.records.get_mut(&id) else { return };
        if let Some(before) = record.ended.replace(how.to_owned()) {
            self.violation(&format!("request {id} ends twice, before: {before}"));
        }
    }

    fn judge(&mut self, id: u64, answer: &Answer) -> Option<String> {
        let record = self.records.get(&id)?;
        if answer.reason.is_some() {
            let excused = record.excused || record.tries.iter().any(|made| made.said != Said::All);
            return match answer.whole {
                true if excused => None,
                true => Some("an error of ours without a cause".to_owned()),
                false if record.excused => None,
                false => Some("an error of ours is cut".to_owned()),
            };
        }
        if answer.id != Some(id) {
            return Some(format!("an answer to {:?}", answer.id));
        }
        let Some(made) = answer.number.and_then(|number| record.tries.get(number)) else {
            return Some("an answer of no try".to_owned());
        };
        if made.status != answer.status {
            return Some(format!("status {} was sent", made.status));
        }
        if answer.body.iter().enumerate().any(|(at, byte)| *byte != content(id, at)) {
            return Some("its body is not what was sent".to_owned());
        }
        let length = if record.method == Method::Head { 0 } else { made.sent };
        if answer.body.len() > length {
            return Some(format!("{} bytes more than were sent", answer.body.len() - length));
        }
        match (answer.whole, made.said) {
            (true, Said::All) if answer.body.len() == length => None,
            (true, Said::All) => Some(format!("half an answer as a whole one: {length} bytes were sent")),
            (true, Said::Cut) if made.until_close && answer.body.len() == length => None,
            (true, _) => Some("an answer as a whole one that was cut off".to_owned()),
            (false, Said::All) if !record.excused => Some("a whole answer is cut".to_owned()),
            (false, _) => None,
        }
    }
}
