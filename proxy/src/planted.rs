//! Faults that can be planted in the data path, to see whether the simulation finds them. Outside tests there are none, and checking
//! for one costs nothing. Each stands at a seam that stays where it is when the code behind it is rebuilt.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(PartialOrd, Ord))]
pub(crate) enum Fault {
    /// A request that has ended keeps its reservation on the backend.
    ReservationLeaked,
    /// Timers do not fire.
    TimerLost,
    /// A request that waits for room is not notified of it.
    WakeUpLost,
    /// The last byte of a long write is lost.
    BodyTruncated,
    /// An end that must look cut off looks clean.
    TruncationHidden,
    /// A request that must not be sent twice is.
    UnsafeRetry,
    /// The service's limit goes on counting requests of versions that are no longer in force.
    OldVersionCounted,
    /// A client's permit is kept when its connection has ended.
    PermitLeaked,
    /// Bytes that were kept for another attempt count for ever.
    ReplayBytesLeaked,
    /// A task that waits for a timer is woken at once, again and again.
    BusyLoop,
    /// Idle connections are used without a check.
    StaleConnectionUsed,
    /// A client that leaves is not noticed.
    ClientCloseMissed,
    /// Idle connections of removed backends stay counted.
    RemovedIdleCounted,
    /// Keys that have been handed over are the previous owner's again late in their window.
    HandedKeyForgotten,
    /// What a client says of a previous owner goes to backends.
    HandoffFieldPassed,
    /// A window that is over stays open.
    HandoffKept,
    /// More copies of handed keys than allowed are made.
    HandoffCopiesUnbounded,
    /// One that has ended stays counted.
    HandoffCopyLeaked,
    /// Clients and backends may flood.
    FloodUnlimited,
    /// Any number of informational responses is taken.
    InformationalsUnlimited,
    /// A client that has flooded is held for ever.
    FloodHeld,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
    /// How often each was reached: how often it would have done harm, or could have.
    static PASSED: std::cell::RefCell<std::collections::BTreeMap<Fault, u64>> = const { std::cell::RefCell::new(std::collections::BTreeMap::new()) };
}

/// How often the place of each fault was reached on this thread.
#[cfg(test)]
pub(crate) fn passed() -> std::collections::BTreeMap<Fault, u64> {
    PASSED.with_borrow(Clone::clone)
}

/// Plants one on this thread, or none.
#[cfg(test)]
pub(crate) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether it is planted here.
#[inline(always)]
pub(crate) fn is_planted(fault: Fault) -> bool {
    #[cfg(test)]
    {
        PASSED.with_borrow_mut(|passed| *passed.entry(fault).or_default() += 1);
        PLANTED.get() == Some(fault)
    }
    #[cfg(not(test))]
    {
        let _ = fault;
        false
    }
}
