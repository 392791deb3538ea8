//! What is not told of any more, and what counts for nothing.

use super::super::load_reporters::LIVE;
use super::super::load_rings::LoadRing;
use super::super::load_size::LoadSize;
use super::{GONE, Loads, PROXY_PART};
use std::cmp::Reverse;
use std::time::{Duration, Instant};

impl Loads {
    pub(super) fn forget_reports(&mut self, proxy: &str) {
        self.silence(proxy);
        self.reporters.remove(proxy);
    }

    pub(super) fn leave(&mut self, service: &str, digest: u64, proxy: &str) {
        let Some(known) = self.services.get_mut(service) else { return };
        let Some(ring) = known.rings.get_mut(&digest) else { return };
        ring.loads.forget(proxy);
        // One that has a table stays for a while: it may come back.
        if ring.loads.proxies() == 0 && !ring.has_table {
            self.size = self.size.without(ring.members().count);
            known.rings.remove(&digest);
        }
    }

    /// What it has said counts for nothing, and what it says next is compared anew.
    pub(super) fn silence(&mut self, proxy: &str) {
        let Some(reporter) = self.reporters.get_mut(proxy) else { return };
        self.held -= std::mem::take(&mut reporter.held).loads;
        for (name, told) in std::mem::take(&mut reporter.services) {
            self.leave(&name, told.digest, proxy);
        }
    }

    /// Of a service that is not taken, and of one that it does not tell of any more.
    pub(super) fn drop_told(&mut self, proxy: &str, service: &str) {
        let Some(reporter) = self.reporters.get_mut(proxy) else { return };
        let Some(told) = reporter.services.remove(service) else { return };
        reporter.held -= told.held;
        self.held -= told.held.loads;
        self.leave(service, told.digest, proxy);
    }

    pub(super) fn forget_silent(&mut self, now: Instant) {
        let is_over = |at: Instant, after: Duration| now.saturating_duration_since(at) >= after;
        let gone: Vec<String> =
            self.reporters.iter().filter(|(_, of)| is_over(of.at, GONE)).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.forget_reports(name));
        // Who reports, but not of this any more.
        let told = self.reporters.iter().filter(|(_, of)| !is_over(of.at, LIVE)).flat_map(|(proxy, of)| {
            let left = of.services.iter().filter(|(_, told)| is_over(told.at, LIVE));
            left.map(|(service, _)| (proxy.clone(), service.clone()))
        });
        let left: Vec<(String, String)> = told.collect();
        left.iter().for_each(|(proxy, service)| self.drop_told(proxy, service));
        let from = self.unheard_since();
        self.services.retain(|_, service| {
            service.rings.retain(|_, ring| {
                ring.loads.proxies() > 0 || !is_over(ring.heard, GONE) && from.is_none_or(|from| ring.heard > from)
            });
            !service.rings.is_empty()
        });
    }

    /// Rings with a table of which nobody reports any more take a part of what there is room for: whoever has invented them is gone. The
    /// time at which one was heard of last with which it is too much.
    fn unheard_since(&self) -> Option<Instant> {
        let rings = self.services.values().flat_map(|service| service.rings.values());
        let mut unheard: Vec<_> = rings.filter(|ring| ring.loads.proxies() == 0).collect();
        unheard.sort_by_key(|ring| Reverse(ring.heard));
        let mut left = LoadSize::default();
        let is_too_much = |ring: &&&LoadRing| {
            left = left.with(ring.members().count);
            left.tables > self.tables_max.0 / PROXY_PART || left.members > self.tables_max.1 / PROXY_PART
        };
        unheard.iter().find(is_too_much).map(|ring| ring.heard)
    }
}
