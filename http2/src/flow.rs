//! Windows (RFC 9113, 5.2 and 6.9): what may be sent, and what the other end is allowed to.

use crate::frame::U31_MAX;

/// A window would grow past 2^31-1: FLOW_CONTROL_ERROR (RFC 9113, 6.9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

/// What the peer takes of us. SETTINGS can make it negative (RFC 9113, 6.9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendWindow(i32);

impl SendWindow {
    pub(crate) fn new(bytes: u32) -> Self {
        Self(bytes.min(U31_MAX) as i32)
    }

    pub(crate) fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// At most what is available.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i32;
    }

    pub(crate) fn add(&mut self, increment: u32) -> Result<(), Overflow> {
        self.change(i64::from(increment))
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE has changed by so much.
    pub(crate) fn change(&mut self, delta: i64) -> Result<(), Overflow> {
        self.0 = i32::try_from(i64::from(self.0) + delta).map_err(|_| Overflow)?;
        Ok(())
    }
}

/// What the peer may send us. It gets back only what has been consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceiveWindow {
    /// What it may send at the moment; negative where we have taken some of it back.
    credit: i32,
    /// What it may send, and what of that is still held, together.
    target: u32,
}

impl ReceiveWindow {
    pub(crate) fn new(bytes: u32) -> Self {
        Self { credit: bytes.min(U31_MAX) as i32, target: bytes.min(U31_MAX) }
    }

    pub(crate) fn target(&self) -> u32 {
        self.target
    }

    pub(crate) fn set_target(&mut self, target: u32) {
        self.target = target.min(U31_MAX);
    }

    /// Whether so much may come.
    pub(crate) fn allows(&self, bytes: u32) -> bool {
        i64::from(self.credit) >= i64::from(bytes)
    }

    /// So much has come, of what is allowed.
    pub(crate) fn take(&mut self, bytes: u32) {
        self.credit -= bytes as i32;
    }

    /// Whether the peer has used up nearly all that it was given.
    pub(crate) fn is_low(&self) -> bool {
        i64::from(self.credit) < i64::from(self.target / 4)
    }

    /// Our SETTINGS_INITIAL_WINDOW_SIZE has changed, and the peer knows.
    pub(crate) fn change(&mut self, from: u32, to: u32) {
        let delta = i64::from(to) - i64::from(from);
        let changed = |value: i64| (value + delta).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        self.credit = changed(i64::from(self.credit)) as i32;
        self.target = changed(i64::from(self.target)).max(i64::from(to)) as u32;
    }

    fn missing(&self, held: u32) -> i64 {
        i64::from(self.target) - i64::from(self.credit) - i64::from(held)
    }

    /// Whether half the window could be given back, now that so much is held: not before, so that updates are few.
    pub(crate) fn is_due(&self, held: u32) -> bool {
        let missing = self.missing(held);
        missing > 0 && missing >= i64::from(self.target / 2)
    }

    /// The same of a window that streams share: half of what is not held, so that what some of them hold never keeps the others from
    /// what is left.
    pub(crate) fn is_due_of_rest(&self, held: u32) -> bool {
        let missing = self.missing(held);
        missing > 0 && missing * 2 >= i64::from(self.target) - i64::from(held)
    }

    /// What to give back, if it is due.
    pub(crate) fn due(&mut self, held: u32) -> Option<u32> {
        if self.is_due(held) { self.open(held) } else { None }
    }

    /// What to give back, however little it is.
    pub(crate) fn open(&mut self, held: u32) -> Option<u32> {
        let due = self.missing(held).max(0).min(i64::from(U31_MAX) - i64::from(self.credit).max(0));
        self.credit = (i64::from(self.credit) + due) as i32;
        // A window far below zero is lifted in steps that a frame can name.
        u32::try_from(due).ok().filter(|due| *due > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_window_ends_at_the_largest_and_can_be_below_zero() {
        let mut window = SendWindow::new(10);
        window.take(10);
        window.change(-65_535).unwrap();
        assert_eq!(window.available(), 0);
        window.add(65_534).unwrap();
        assert_eq!(window.available(), 0);
        window.add(2).unwrap();
        assert_eq!(window.available(), 1);
        assert_eq!(window.add(U31_MAX), Err(Overflow));
        window.add(U31_MAX - 1).unwrap();
        assert_eq!(window.available(), U31_MAX as usize);
        assert_eq!(window.change(1), Err(Overflow));
    }

    proptest! {
        /// However it is used: credit and what is held never pass the target, and once all is consumed the peer can go on.
        #[test]
        fn what_is_given_never_passes_the_target(
            target in 1_u32..100_000, steps in prop::collection::vec((0_u8..4, 0_u32..50_000), 0..60),
        ) {
            let (mut window, mut held, mut initial) = (ReceiveWindow::new(target), 0_u32, target);
            for (step, count) in steps {
                match step {
                    0 if window.allows(count) => {
                        window.take(count);
                        held += count;
                    }
                    1 => held -= count.min(held),
                    2 => {
                        window.change(initial, count);
                        initial = count;
                    }
                    _ => {}
                }
                let before = i64::from(window.credit);
                if let Some(due) = window.due(held) {
                    prop_assert_eq!(before + i64::from(due), i64::from(window.credit));
                    prop_assert!(i64::from(window.credit) + i64::from(held) <= i64::from(window.target));
                }
            }
            window.due(0);
            prop_assert!(window.target == 0 || window.allows(window.target.div_ceil(2)));
        }
    }
}
