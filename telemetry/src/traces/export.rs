//! The exporter: gathers what workers hand over, and has the collector take it, or counts it as lost.

use super::collector::{Collector, Line, PostError};
use super::counts::{Outcome, SpanCounts};
use super::queue::{Batch, Receiver};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// A request has spans of this time, or so many bytes of them.
const GATHER: Duration = Duration::from_millis(500);
/// See [`GATHER`]. Collectors take 4 MiB at least.
const REQUEST_BYTES: usize = 1024 * 1024;
/// A batch is tried so often.
const TRIES_MAX: u32 = 7;
/// The first pause between two tries; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(250);
/// No pause is longer, whatever a collector wishes.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How the collector was when it was last spoken with. Each change is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Taking,
    Refusing,
    Failing,
}

/// The exporter's end.
pub(super) struct Export {
    receiver: Receiver,
    line: Line,
    envelope: Envelope,
    counts: Arc<SpanCounts>,
    mood: Mood,
    /// Spans that are being delivered.
    in_hand: u64,
    /// Not taken since the collector last took all.
    lost: u64,
}

impl Export {
    pub(super) fn new(
        receiver: Receiver,
        collector: Collector,
        resource: &[(String, String)],
        counts: Arc<SpanCounts>,
    ) -> Self {
        let line = Line::new(collector);
        let envelope = Envelope::new(resource);
        Self { receiver, line, envelope, counts, mood: Mood::Taking, in_hand: 0, lost: 0 }
    }

    /// Until nobody hands over any more.
    pub(super) async fn run(&mut self) {
        while let Some(batches) = self.gather().await {
            self.in_hand = batches.iter().map(|batch| batch.spans).sum();
            self.deliver(batches).await;
        }
    }

    /// Counts what is left as lost.
    pub(super) fn give_up(&mut self) {
        self.receiver.close();
        let mut left = std::mem::take(&mut self.in_hand);
        while let Some(batch) = self.receiver.try_recv() {
            left += batch.spans;
        }
        if left > 0 {
            self.count(Outcome::Failed, left);
            tracing::warn!(spans = left, "traces: the exporter ends before the collector has taken all spans");
        }
    }

    /// What a request carries. `None`: no more comes.
    async fn gather(&mut self) -> Option<Vec<Batch>> {
        let first = self.receiver.recv().await?;
        let (mut bytes, mut gathered) = (first.bytes.len(), vec![first]);
        let until = Instant::now() + GATHER;
        while bytes < REQUEST_BYTES {
            let Ok(Some(batch)) = timeout_at(until, self.receiver.recv()).await else { break };
            bytes += batch.bytes.len();
            gathered.push(batch);
        }
        Some(gathered)
    }

    async fn deliver(&mut self, batches: Vec<Batch>) {
        let spans = self.in_hand;
        let body = self.envelope.close(&batches, self.line.collector().gzip);
        drop(batches);
        let mut pause = PAUSE;
        for number in 1..=TRIES_MAX {
            let error = match self.line.post(body.clone()).await {
                Ok(taken) => {
                    let rejected = taken.rejected.min(spans);
                    self.settle(Outcome::Exported, spans - rejected);
                    self.settle(Outcome::Refused, rejected);
                    let is_whole = rejected == 0;
                    self.turn(if is_whole { Mood::Taking } else { Mood::Refusing }, &taken.why);
                    return;
                }
                Err(error) => error,
            };
            if !error.is_passing() {
                let outcome = if matches!(error, PostError::Field(_)) { Outcome::Failed } else { Outcome::Refused };
                self.settle(outcome, spans);
                self.turn(Mood::Refusing, &error.to_string());
                return;
            }
            self.turn(Mood::Failing, &error.to_string());
            if number < TRIES_MAX {
                // Spread: proxies of a fleet lose their collector at the same moment.
                let spread = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
                sleep(error.wish().map_or(spread, |wish| wish.max(spread)).min(PAUSE_MAX)).await;
                pause *= 2;
            }
        }
        self.settle(Outcome::Failed, spans);
    }

    fn settle(&mut self, outcome: Outcome, spans: u64) {
        self.in_hand = 0;
        self.count(outcome, spans);
    }

    fn count(&mut self, outcome: Outcome, spans: u64) {
        if outcome != Outcome::Exported {
            self.lost += spans;
        }
        self.counts.add(outcome, spans);
    }

    /// Says how the collector is, if it was otherwise before.
    fn turn(&mut self, mood: Mood, why: &str) {
        if self.mood == mood {
            return;
        }
        self.mood = mood;
        let collector = &self.line.collector().authority;
        match mood {
            Mood::Taking => {
                let lost = std::mem::take(&mut self.lost);
                tracing::info!(collector, spans_lost = lost, "traces: the collector takes spans");
            }
            Mood::Refusing => tracing::warn!(collector, error = why, "traces: the collector refuses spans"),
            Mood::Failing => {
                tracing::warn!(
                    collector,
                    error = why,
                    "traces: the collector takes no spans for now: they are tried again, then dropped"
                );
            }
        }
    }
}

/// What stands around the spans of a request.
struct Envelope {
    /// `ResourceSpans.resource`.
    resource: Vec<u8>,
    /// `ScopeSpans.scope`.
    scope: Vec<u8>,
}

impl Envelope {
    fn new(resource: &[(String, String)]) -> Self {
        let attribute = |(key, value): &(String, String)| KeyValue {
            key: key.clone(),
            value: Some(AnyValue { value: Some(Value::StringValue(value.clone())) }),
            ..KeyValue::default()
        };
        let resource = Resource { attributes: resource.iter().map(attribute).collect(), ..Resource::default() };
        let scope = InstrumentationScope {
            name: "ringway".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        Self { resource: field(1, &resource.encode_to_vec()), scope: field(1, &scope.encode_to_vec()) }
    }

    /// An `ExportTraceServiceRequest` with these spans.
    fn close(&self, spans: &[Batch], gzip: bool) -> Bytes {
        let scope_spans_len = self.scope.len() + spans.iter().map(|batch| batch.bytes.len()).sum::<usize>();
        // `ScopeSpans` is field 2, `ResourceSpans` field 1; both have a length.
        let mut scope_spans = Vec::new();
        begin(2, scope_spans_len, &mut scope_spans);
        let mut body = Vec::with_capacity(self.resource.len() + scope_spans_len + 32);
        begin(1, self.resource.len() + scope_spans.len() + scope_spans_len, &mut body);
        for part in [&self.resource, &scope_spans, &self.scope] {
            body.extend_from_slice(part);
        }
        spans.iter().for_each(|batch| body.extend_from_slice(&batch.bytes));
        if !gzip {
            return body.into();
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to a Vec does not fail.
        let _ = encoder.write_all(&body);
        encoder.finish().unwrap_or_default().into()
    }
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 8);
    begin(number, content.len(), &mut out);
    out.extend_from_slice(content);
    out
}

/// Tag and length of a field below 16.
fn begin(number: u8, length: usize, out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    // Writing to a Vec does not fail.
    let _ = prost::encode_length_delimiter(length, out);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use std::io::Read;

    #[test]
    fn a_request_is_the_official_message_compressed_or_not() {
        let resource = [("service.name".to_owned(), "r".to_owned()), ("a".to_owned(), "b".to_owned())];
        let envelope = Envelope::new(&resource);
        // A span whose name is "n".
        let span = field(2, &field(5, b"n"));
        for (count, gzip) in [(0, false), (1, false), (300, false), (300, true)] {
            let batch = |count| Batch { bytes: span.repeat(count), spans: count as u64 };
            let body = envelope.close(&[batch(count / 3), batch(0), batch(count - count / 3)], gzip);
            let mut plain = body.to_vec();
            if gzip {
                plain.clear();
                flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            }
            let request = ExportTraceServiceRequest::decode(&plain[..]).unwrap();
            assert_eq!(request.resource_spans.len(), 1);
            let spans = &request.resource_spans[0];
            let attributes = &spans.resource.as_ref().unwrap().attributes;
            assert_eq!(attributes.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["service.name", "a"]);
            assert_eq!(spans.scope_spans.len(), 1);
            assert_eq!(spans.scope_spans[0].scope.as_ref().unwrap().name, "ringway");
            assert!(spans.scope_spans[0].spans.iter().all(|span| span.name == "n"));
            assert_eq!(spans.scope_spans[0].spans.len(), count);
        }
    }
}
