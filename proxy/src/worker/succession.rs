//! What of a worker's view goes on in the next: found where it was, mostly, and without looking at what stays.

use super::view::{Upstream, View, WorkerService};
use crate::snapshot::{Backend, Service};
use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

/// The services of the view before, as the next one is made of them.
pub(super) struct Succession<'a> {
    before: &'a View,
    /// By place in the view before, whether the next one has the service too.
    goes_on: Vec<bool>,
    /// Connections to backends that the next view does not have in the same place.
    pub(super) gone: Vec<Rc<Upstream>>,
}

impl<'a> Succession<'a> {
    pub(super) fn of(before: &'a View) -> Self {
        Self { before, goes_on: vec![false; before.services.len()], gone: Vec::new() }
    }

    /// The part of the service that has this place in the next view, under whatever place before.
    pub(super) fn find(&mut self, index: usize, service: &Arc<Service>) -> Option<&'a Rc<WorkerService>> {
        let unmoved = self.before.services.get(index).is_some_and(|old| Arc::ptr_eq(&old.service, service));
        let index = if unmoved { index } else { self.before.snapshot.index_of(&service.config.name)? };
        // One that was gone meanwhile, and has come again under its name, is another.
        let old = self.before.services.get(index).filter(|old| Arc::ptr_eq(&old.service.live, &service.live))?;
        self.goes_on[index] = true;
        Some(old)
    }

    /// What is to be closed: those of services that nobody has asked for go too.
    pub(super) fn finish(mut self) -> Vec<Rc<Upstream>> {
        let without_successor = self.before.services.iter().zip(&self.goes_on).filter(|(_, goes_on)| !**goes_on);
        self.gone.extend(without_successor.flat_map(|(old, _)| &old.upstreams).map(Rc::clone));
        self.gone
    }
}

/// The backends of a service of before, gone through beside those of the next: both are in the order of their ids.
pub(super) struct Backends<'a> {
    rest: &'a [Backend],
    upstreams: &'a [Rc<Upstream>],
}

impl<'a> Backends<'a> {
    pub(super) fn of(old: Option<&'a WorkerService>) -> Self {
        old.map_or(Self { rest: &[], upstreams: &[] }, |old| Self {
            rest: &old.service.backends,
            upstreams: &old.upstreams,
        })
    }

    fn pass(&mut self) -> Option<(&'a Backend, &'a Rc<Upstream>)> {
        let ((backend, rest), (upstream, upstreams)) = (self.rest.split_first()?, self.upstreams.split_first()?);
        (self.rest, self.upstreams) = (rest, upstreams);
        Some((backend, upstream))
    }

    /// The backend of the same id. Those before it that are no more are gone.
    pub(super) fn find(
        &mut self,
        backend: &Backend,
        gone: &mut Vec<Rc<Upstream>>,
    ) -> Option<(&'a Backend, &'a Rc<Upstream>)> {
        loop {
            let next = self.rest.first()?;
            // Of one id there is one state, as long as it is there: ids are compared where something has changed alone. One that was gone
            // meanwhile, and has come again, is another.
            if Arc::ptr_eq(&next.state, &backend.state) {
                return self.pass();
            }
            if next.config.id.cmp(&backend.config.id) == Ordering::Greater {
                return None;
            }
            gone.extend(self.pass().map(|(_, upstream)| Rc::clone(upstream)));
        }
    }

    /// What is left is gone.
    pub(super) fn finish(self, gone: &mut Vec<Rc<Upstream>>) {
        gone.extend(self.upstreams.iter().map(Rc::clone));
    }
}
