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

    /// A window with a target of which so much is used up.
    fn used(target: u32, used: u32) -> ReceiveWindow {
        let mut window = ReceiveWindow::new(target);
        assert!(window.allows(used) && !window.allows(target + 1));
        window.take(used);
        assert!(window.allows(target - used) && !window.allows(target - used + 1));
        window
    }

    #[test]
    fn windows_are_never_larger_than_the_largest() {
        for bytes in [U31_MAX, U31_MAX + 1, u32::MAX] {
            assert_eq!(SendWindow::new(bytes).available(), U31_MAX as usize);
            let window = ReceiveWindow::new(bytes);
            assert!(window.allows(U31_MAX) && !window.allows(U31_MAX + 1) && window.target() == U31_MAX);
            let mut window = ReceiveWindow::new(1);
            window.set_target(bytes);
            assert_eq!(window.target(), U31_MAX);
        }
    }

    #[test]
    fn a_window_is_given_back_from_the_half_of_it_on_and_no_more_than_is_not_held() {
        for (taken, held, due) in
            [(0, 0, None), (49, 0, None), (50, 0, Some(50)), (51, 0, Some(51)), (100, 50, Some(50)), (100, 51, None)]
        {
            let mut window = used(100, taken);
            assert_eq!(window.is_due(held), due.is_some(), "{taken} {held}");
            assert_eq!(window.due(held), due, "{taken} {held}");
            assert!(
                window.allows(100 - taken + due.unwrap_or(0)) && !window.allows(100 - taken + due.unwrap_or(0) + 1)
            );
        }
        // Of nothing, nothing.
        assert_eq!((used(0, 0).is_due(0), used(1, 0).is_due(0), used(1, 1).due(0)), (false, false, Some(1)));
        assert_eq!(used(100, 7).open(0), Some(7));
        assert_eq!((used(100, 7).open(7), used(100, 7).open(3), used(100, 0).open(0)), (None, Some(4), None));
    }

    #[test]
    fn of_a_shared_window_the_half_of_what_is_not_held_is_given_back() {
        for (taken, held, is_due) in [
            (0, 0, false),
            (49, 0, false),
            (50, 0, true),
            // Sixty are held: of the other forty, twenty are half.
            (79, 60, false),
            (80, 60, true),
            (100, 60, true),
            (60, 60, false),
            (100, 100, false),
        ] {
            assert_eq!(used(100, taken).is_due_of_rest(held), is_due, "{taken} {held}");
        }
    }

    #[test]
    fn a_window_is_low_below_a_quarter_of_it() {
        assert!(!used(100, 0).is_low() && !used(100, 75).is_low() && used(100, 76).is_low() && used(100, 100).is_low());
    }

    #[test]
    fn other_settings_move_what_may_come_and_never_lower_what_was_wanted_below_them() {
        let mut window = used(100, 30);
        window.change(100, 150);
        assert!(window.allows(120) && !window.allows(121) && window.target() == 150);
        window.change(150, 10);
        assert!(!window.allows(1) && window.target() == 10, "twenty too many are on their way");
        assert_eq!(window.open(0), Some(30));
        assert!(window.allows(10) && !window.allows(11));
        // One that has grown keeps by how much.
        let mut window = ReceiveWindow::new(100);
        window.set_target(400);
        window.change(100, 200);
        assert_eq!(window.target(), 500);
        // Far below zero: in steps that a frame can name.
        let mut window = used(U31_MAX, U31_MAX);
        window.change(U31_MAX, 0);
        window.set_target(U31_MAX);
        assert_eq!(window.open(0), Some(U31_MAX));
        assert_eq!(window.open(0), Some(U31_MAX));
        assert_eq!(window.open(0), None);
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
