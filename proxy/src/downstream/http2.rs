//! A client's HTTP/2 connection (RFC 9113): each of its streams is served as a client of its own.

use super::Frontend;
use super::stream_tasks::{Active, Activity, Job};
use crate::codec::http2::{Driver, End, Link, Stream, window_of_all};
use crate::net::buffers::Buffer;
use crate::net::stream::Stream as Bytes;
use crate::net::timer::Timer;
use crate::overload::released;
use crate::planted::{self, Fault};
use crate::worker::{OpenConnection, View};
use ringway_config::model::Flood;
use ringway_http2::{Config, Connection as Codec, Event, FloodLimits, Reason, Role};
use ringway_message::Limits;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a peer may take to close after us.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// How long a peer may take to acknowledge GOAWAY, and to take what is queued for it, once no stream is served.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// A client's connection.
pub(super) struct Serving {
    driver: Driver,
    frontend: Rc<Frontend>,
    open: Rc<OpenConnection>,
    activity: Rc<Activity>,
    /// Whether the client's first SETTINGS have come: it speaks HTTP/2, and may idle.
    begun: bool,
    /// Whether a request has come.
    asked: bool,
    /// It has sent more frames of some kind than allowed.
    floods: bool,
    /// GOAWAY has been sent.
    closing: bool,
    /// Once it is to end with its next response: the latest time for GOAWAY, and the turns at that time.
    leave: Option<(Timer, u64)>,
}

impl Serving {
    /// A connection that begins. Bytes that have been read already come first.
    pub(super) fn new(
        frontend: &Rc<Frontend>,
        open: Rc<OpenConnection>,
        stream: Bytes,
        read: Buffer,
        (view, listener): (&View, usize),
    ) -> Box<Self> {
        let worker = &open.worker;
        let http = view.http(listener);
        let timer = worker.timer();
        timer.set(http.timeouts.head);
        let idle = Cell::new(http.timeouts.idle);
        let activity = Activity { streams: Cell::new(0), turns: Cell::new(0), timer, idle, rest: Cell::new(None) };
        let activity = Rc::new(activity);
        let config = Config {
            head: Limits { head_bytes_max: http.head_bytes_max, fields_max: http.fields_max },
            streams_max: http.h2.streams_max,
            // The window of all streams together: stalled ones take nothing from others.
            connection_window: window_of_all(http.h2.streams_max),
            connection_window_max: window_of_all(http.h2.streams_max),
            extended_connect: http.h2.extended_connect,
            floods: flood_limits(&http.h2.flood),
            ..Config::new(Role::Server)
        };
        let link = Link::new(Codec::new(config, Rc::clone(&worker.http2_memory)));
        let driver = Driver::new(link, stream, read, &worker.dispatcher, true);
        Box::new(Self {
            driver,
            frontend: Rc::clone(frontend),
            open,
            activity,
            begun: false,
            asked: false,
            floods: false,
            closing: false,
            leave: None,
        })
    }

    /// Serves the connection to its end.
    pub(super) async fn serve(mut self: Box<Self>) {
        poll_fn(|context| self.poll(context)).await;
        let Self { driver, floods, open, .. } = &mut *self;
        driver.end_streams();
        let linger = open.worker.timer();
        linger.set(LINGER_TIME);
        // Checked first: a peer that reads nothing keeps TLS from sending close_notify.
        poll_fn(|context| match linger.poll_fired(context) {
            true if !(*floods && planted::is_planted(Fault::FloodHeld)) => Poll::Ready(()),
            _ if *floods => driver.poll_hold(context),
            _ => driver.poll_close(context),
        })
        .await;
    }

    /// Ready once the connection is over, but for its closing.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { driver, frontend, open, activity, asked, .. } = self;
        let link = Rc::clone(&driver.link);
        let handle = |event: Event| match event {
            Event::Request { key, fault } => {
                *asked = true;
                let (stream, active) = (Stream::new(&link, key), Active::begin(activity));
                let job = Job { stream, fault, open: Rc::clone(open), active };
                frontend.streams.serve(&open.worker, job);
            }
            // The client's own GOAWAY: its open requests still get their responses.
            Event::Response { .. }
            | Event::Data { .. }
            | Event::Trailers { .. }
            | Event::End { .. }
            | Event::Writable { .. }
            | Event::Reset { .. }
            | Event::Capacity
            | Event::Settings
            | Event::GoAway { .. }
            | Event::Pong(_) => {}
        };
        let ended = driver.poll_read(context, handle);
        if let Poll::Ready(end) = ended {
            if let End::Broken(error) = end
                && let Some(flood) = error.flood
            {
                self.open.worker.shared.counters.error("", flood);
                self.floods = true;
            }
            return Poll::Ready(());
        }
        if self.poll_leave(context).is_ready() {
            return Poll::Ready(());
        }
        match self.driver.poll_write(context) {
            Err(()) => Poll::Ready(()),
            Ok(true) if self.closing && self.driver.link.ask(Codec::is_over) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// Sends GOAWAY when it is time. Ready once the client has had the time to leave.
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { driver, open, activity, begun, asked, closing, leave, .. } = self;
        let link = &driver.link;
        if !*begun && link.ask(Codec::settings_came) {
            *begun = true;
            activity.idle();
        }
        // Polled in any case: it is also what wakes this task when the worker drains.
        let mut fired = activity.timer.poll_fired(context);
        if !*begun {
            // It has not sent a frame of HTTP/2.
            return if fired { Poll::Ready(()) } else { Poll::Pending };
        }
        if fired && activity.streams.get() > 0 {
            // It runs for nothing as long as streams are served; a timer that has fired would wake no task.
            activity.timer.set(activity.idle.get());
            fired = activity.timer.poll_fired(context);
        } else if fired && let Some(rest) = activity.rest.take() {
            link.codec.borrow_mut().shrink();
            released::note();
            activity.timer.set(rest);
            fired = activity.timer.poll_fired(context);
        }
        let idle = fired;
        if *closing {
            // The last GOAWAY has been sent: a peer that does not close is cut.
            return if idle { Poll::Ready(()) } else { Poll::Pending };
        }
        let ends = open.ends_with_response();
        if !ends {
            *leave = None;
        }
        let told = open.is_worn()
            || ends && {
                let (timer, turns) = leave.get_or_insert_with(|| {
                    let timer = open.worker.timer();
                    timer.shorten(open.leave_after(*asked));
                    (timer, activity.turns.get())
                });
                // A busy client gets GOAWAY with its next response.
                timer.poll_fired(context) || *turns != activity.turns.get()
            };
        if told || idle {
            *closing = true;
            link.codec.borrow_mut().go_away(true, Reason::NoError);
            activity.idle.set(CLOSE_TIME);
            activity.rest.set(None);
            activity.timer.set(CLOSE_TIME);
            // A timer that has fired wakes no task until it is set again.
            activity.timer.poll_fired(context);
        }
        Poll::Pending
    }
}

/// What a client may send.
fn flood_limits(flood: &Flood) -> FloodLimits {
    if planted::is_planted(Fault::FloodUnlimited) {
        return FloodLimits { resets_max: u32::MAX, pings_max: u32::MAX, ..FloodLimits::new(Role::Server) };
    }
    FloodLimits {
        resets_max: flood.resets_max,
        resets_total_max: flood.resets_total_max,
        malformed_total_max: flood.malformed_total_max,
        pings_max: flood.pings_max,
        window_updates_max: flood.window_updates_max,
        empty_data_max: flood.empty_data_max,
        continuations_max: flood.continuations_max,
    }
}
