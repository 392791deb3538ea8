//! Faults that can be planted in the data path, to see whether the simulation finds them. Outside tests there are none, and asking
//! for one costs nothing. Each stands at a seam that stays where it is when what is behind it is built anew.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(PartialOrd, Ord))]
pub(crate) enum Fault {
    /// A request that has ended keeps its place on the backend.
    PlaceKept,
    /// Timers do not fire.
    TimerUnarmed,
    /// Who waits for room is not told of it.
    WakeUpLost,
    /// Of a long write, the last byte is lost.
    BodyCut,
    /// An end that must look cut off looks as any other.
    CutUnsaid,
    /// What must not be sent twice is.
    RetryDoubled,
    /// The service's limit goes on counting requests of versions that are no longer in force.
    DeadCounted,
    /// A client's place is kept when its connection has ended.
    PermitKept,
    /// Bytes that were kept for another try count for ever.
    KeptForEver,
    /// Whoever waits for a timer is woken at once, again and again.
    Spin,
    /// Idle connections are used without a look at them.
    StaleUsed,
    /// A client that leaves is not seen.
    LeavingUnseen,
    /// Idle connections of backends that have gone stay counted.
    IdleCounted,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
    /// How often it was asked for each: how often it would have done harm, or could have.
    static PASSED: std::cell::RefCell<std::collections::BTreeMap<Fault, u64>> = const { std::cell::RefCell::new(std::collections::BTreeMap::new()) };
}

/// How often each place of a fault was passed on this thread.
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
