//! Pages of metrics: made one at a time beside the control side's thread, and shared by those who wait for the same.

use crate::ambient;
use bytes::Bytes;
use ringway_telemetry::exposition::Format;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::Mutex;

/// The page that was made last, for as long as it is being sent to somebody.
#[derive(Default)]
pub(crate) struct Scrapes(Arc<Mutex<Option<Made>>>);

struct Made {
    begun: Instant,
    format: Format,
    page: Weak<String>,
}

/// A page that is being sent.
struct Sent(Arc<String>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Scrapes {
    /// A page that is no older than this call. `None`: it could not be made.
    pub(crate) async fn page(&self, format: Format, make: impl FnOnce() -> String + Send + 'static) -> Option<Bytes> {
        let asked = ambient::now();
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some(made) = last.as_ref().filter(|made| made.begun >= asked && made.format == format)
            && let Some(page) = made.page.upgrade()
        {
            return Some(Bytes::from_owner(Sent(page)));
        }
        // The lock goes along: whoever leaves before the page is there has no second one begun beside it.
        let page = tokio::task::spawn_blocking(move || {
            let begun = ambient::now();
            let page = Arc::new(make());
            *last = Some(Made { begun, format, page: Arc::downgrade(&page) });
            page
        });
        page.await.ok().map(|page| Bytes::from_owner(Sent(page)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[tokio::test]
    async fn who_waits_for_the_same_page_shares_it_and_no_two_are_made_at_once() {
        let (scrapes, made) = (Scrapes::default(), Arc::new(AtomicUsize::new(0)));
        let (begun, allowed) = (Arc::new(tokio::sync::Notify::new()), std::sync::mpsc::channel::<()>());
        let make = |begun: Option<Arc<tokio::sync::Notify>>, wait: Option<std::sync::mpsc::Receiver<()>>| {
            let made = Arc::clone(&made);
            move || {
                begun.inspect(|begun| begun.notify_one());
                wait.inspect(|wait| wait.recv().unwrap());
                format!("page {}", made.fetch_add(1, SeqCst))
            }
        };
        let text = Format::Text;
        let first = scrapes.page(text, make(Some(Arc::clone(&begun)), Some(allowed.1)));
        // These come while the first is being made: it is too old for them, one other will do.
        let others = async {
            begun.notified().await;
            let release = async { allowed.0.send(()).unwrap() };
            tokio::join!(
                scrapes.page(text, make(None, None)),
                scrapes.page(text, make(None, None)),
                scrapes.page(Format::OpenMetrics, make(None, None)),
                release
            )
        };
        let (first, (second, third, open, ())) = tokio::join!(first, others);
        let page = |page: &Option<Bytes>| String::from_utf8(page.as_ref().unwrap().to_vec()).unwrap();
        assert_eq!([page(&first), page(&second), page(&third), page(&open)], ["page 0", "page 1", "page 1", "page 2"]);
        // Nothing is kept once all have been sent.
        drop((first, second, third, open));
        assert!(scrapes.0.lock().await.as_ref().unwrap().page.upgrade().is_none());
        assert_eq!(page(&scrapes.page(text, make(None, None)).await), "page 3");
    }

    #[tokio::test]
    async fn one_that_fails_or_is_not_waited_for_stops_no_other() {
        let scrapes = Scrapes::default();
        assert_eq!(scrapes.page(Format::Text, || panic!("planted")).await, None);
        let (release, allowed) = std::sync::mpsc::channel::<()>();
        let slow = scrapes.page(Format::Text, move || {
            allowed.recv().unwrap();
            "slow".into()
        });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(5), slow).await.is_err());
        release.send(()).unwrap();
        assert_eq!(scrapes.page(Format::Text, || "next".into()).await.unwrap(), "next");
    }
}
