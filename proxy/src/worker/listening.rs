//! What the newest version of the configuration says of a worker's listeners, and what their connections make of it.

use super::active_listener::ActiveListener;
use super::context::Worker;
use super::view::View;
use crate::net::timer::Deadline;
use crate::net::tls::ServerTls;
use std::rc::Rc;

impl Worker {
    /// The newest view that has the listener, and the listener's index there.
    #[inline]
    pub(crate) fn listener(&self, active_listener: &ActiveListener) -> Option<(Rc<View>, usize)> {
        let view = self.view();
        let mut latest = active_listener.latest.borrow_mut();
        if !latest.as_ref().is_some_and(|(known, _)| Rc::ptr_eq(known, &view))
            && let Some(index) =
                view.snapshot.config.listeners.iter().position(|listener| active_listener.key.is(listener))
        {
            let name = view.snapshot.config.listeners[index].name.as_str();
            if **active_listener.name.borrow() != *name {
                *active_listener.name.borrow_mut() = name.into();
            }
            let before = latest.as_ref().and_then(|(view, index)| view.snapshot.tls[*index].as_deref());
            if latest.is_some() && !ServerTls::go_on(before, view.snapshot.tls[index].as_deref()) {
                active_listener.end_earlier(self.leave_until(&view));
                self.timers.wake_all();
            }
            *latest = Some((view, index));
        }
        latest.as_ref().map(|(view, index)| (Rc::clone(view), *index))
    }

    /// Has each listener see what the newest view says of it.
    pub(crate) fn refresh(&self) {
        let listening: Vec<_> = self.listening.borrow().values().cloned().collect();
        listening.iter().for_each(|active_listener| drop(self.listener(active_listener)));
    }

    /// When the last idle connection of a listener that ends them now must be closed.
    pub(crate) fn leave_until(&self, view: &View) -> Deadline {
        let spread = view.snapshot.config.drain_spread;
        if spread.is_zero() { self.timers.now() } else { self.timers.deadline(spread) }
    }
}
