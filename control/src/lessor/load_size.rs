//! How much there is to work out of all services, so that it has an end.

use crate::loads::ServiceLoad;

/// What a ring takes, in loads of members: of each member, and besides.
const RING_HELD: (usize, usize) = (16, 64);

/// Rings, which all may come to a table, and their members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LoadSize {
    pub(super) tables: usize,
    pub(super) members: usize,
    rings: usize,
}

impl LoadSize {
    /// Of rings, and of tables whose rings are not there any more, by their members.
    pub(super) fn of(rings: impl Iterator<Item = usize>, tables: impl Iterator<Item = usize>) -> Self {
        let size = rings.fold(Self::default(), Self::with);
        tables.fold(size, |size, members| Self { tables: size.tables + 1, members: size.members + members, ..size })
    }

    /// And another ring.
    pub(super) fn with(self, members: usize) -> Self {
        Self { tables: self.tables + 1, members: self.members + members, rings: self.rings + 1 }
    }

    /// Without one that has been there.
    pub(super) fn without(self, members: usize) -> Self {
        Self {
            tables: self.tables.saturating_sub(1),
            members: self.members.saturating_sub(members),
            rings: self.rings.saturating_sub(1),
        }
    }

    /// What that takes, in loads of members.
    pub(super) fn held(self) -> usize {
        self.members * RING_HELD.0 + self.rings * RING_HELD.1
    }
}

/// How much of it there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) size: LoadSize,
    /// Of tables, and of their members.
    pub(super) tables_max: (usize, usize),
    /// What that may take, in loads of members.
    pub(super) held_max: usize,
}

impl Room {
    /// Whether there is room for a ring, and takes it.
    pub(super) fn take(&mut self, members: usize) -> bool {
        let size = self.size.with(members);
        let fits =
            size.tables <= self.tables_max.0 && size.members <= self.tables_max.1 && size.held() <= self.held_max;
        if fits {
            self.size = size;
        }
        fits
    }

    /// Whether there is for a ring with other members, and takes it.
    pub(super) fn exchange(&mut self, before: usize, members: usize) -> bool {
        let mut left = Self { size: self.size.without(before), ..*self };
        let fits = left.take(members);
        if fits {
            *self = left;
        }
        fits
    }
}

/// What reports take: in loads, which is their keys, too, and what there is of every service; and members.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) loads: usize,
    pub(super) members: usize,
}

impl Held {
    pub(super) fn of(service: &ServiceLoad) -> Self {
        let members = service.report.loads.len();
        Self { loads: members + service.report.seen.keys.len() * 8 + 32, members }
    }
}

impl std::ops::AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        (self.loads, self.members) = (self.loads + other.loads, self.members + other.members);
    }
}

impl std::ops::SubAssign for Held {
    fn sub_assign(&mut self, other: Self) {
        (self.loads, self.members) = (self.loads - other.loads, self.members - other.members);
    }
}
