//! A service's backends as requests see them: which is next for this key, and has it room?

use crate::load::Load;
use crate::params::{AllFull, BoundParams, PolicyParams};
use crate::pick_context::PickContext;
use crate::policy::Policy;
use crate::ring::{BuildError, Member, check_members};
use crate::slot::Slot;
use crate::sum::LEVELS_MAX;
use crate::total::Total;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

mod accept;
mod keyed;
mod least_loaded;
mod member;
mod pick;
mod placement;
mod reckon;
mod reserve;
mod weighted;

use member::MemberState;

/// All keys, in the units of level shares.
const ALL_KEYS: u32 = 1 << 16;
/// Keeps the choice of a level apart from places on the ring.
const LEVEL_SALT: u64 = 0x7269_6e67_7761_7901;
/// Owners of a hot key at most.
pub const HOT_OWNERS_MAX: usize = 32;

/// A member as a set is built from it.
#[derive(Debug, Clone)]
pub struct MemberSpec<'a> {
    /// Stable identity.
    pub id: &'a str,
    /// In percent; 100 is normal, 0 takes nothing.
    pub weight: u32,
    /// Hard limit on its requests in flight; `u32::MAX` is none.
    pub requests_max: u32,
    /// Preference: lower levels take all that they can (tiers, zones). Below [`LEVELS_MAX`].
    pub level: u8,
    /// What is known of it right now.
    pub load: Arc<Load>,
}

/// Members, their order, their bound. Immutable but for the loads.
#[derive(Debug)]
pub struct BackendSet {
    /// Most preferred first.
    levels: Box<[Level]>,
    bound: Option<BoundParams>,
    all_full: AllFull,
    /// In slot order.
    members: Box<[MemberState]>,
    total: Arc<Total>,
    /// Its number among the sets of the total.
    number: u64,
    policy: PolicyParams,
}

/// Members of equal preference. Most sets have one level.
#[derive(Debug)]
struct Level {
    key: u8,
    policy: Policy,
    /// Slots of the members, which `order` knows by index.
    slots: Box<[u16]>,
    /// Keys up to here, of [`ALL_KEYS`], have their home in this level or one before.
    up_to: AtomicU32,
    /// No member is known to be up: policies without a candidate sequence need not look for one.
    all_doubted: AtomicBool,
}

/// What a step gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// A place is reserved there; give it back by [`BackendSet::release`].
    Backend(Slot),
    /// Members are eligible, but none has room.
    AllFull,
    /// No member is eligible, or all that are have been tried.
    None,
}

impl BackendSet {
    /// Builds a set. Members are put into the order of their ids: their slots.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build<'a>(
        policy: PolicyParams,
        bound: Option<BoundParams>,
        members: impl IntoIterator<Item = MemberSpec<'a>>,
        total: Arc<Total>,
    ) -> Result<Self, BuildError> {
        let mut members: Vec<MemberSpec<'a>> = members.into_iter().collect();
        members.sort_by(|a, b| a.id.cmp(b.id));
        check_members(members.iter().map(|member| (member.id, member.weight)))?;
        let mut keys: Vec<u8> = members.iter().map(|member| member.level % LEVELS_MAX as u8).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            keys.push(0);
        }
        let levels = keys
            .iter()
            .map(|&key| {
                let chosen =
                    || members.iter().enumerate().filter(move |(_, member)| member.level % LEVELS_MAX as u8 == key);
                let list: Vec<Member<'_>> =
                    chosen().map(|(_, member)| Member { id: member.id, weight: member.weight }).collect();
                Ok(Level {
                    key,
                    policy: Policy::build(policy, &list)?,
                    slots: chosen().map(|(slot, _)| slot as u16).collect(),
                    up_to: AtomicU32::new(ALL_KEYS),
                    all_doubted: AtomicBool::new(false),
                })
            })
            .collect::<Result<_, BuildError>>()?;
        let members = members
            .into_iter()
            .map(|member| MemberState {
                load: member.load,
                weight: member.weight,
                requests_max: member.requests_max,
                level: keys.iter().position(|&key| key == member.level % LEVELS_MAX as u8).unwrap_or(0) as u8,
            })
            .collect();
        let number = total.number_group();
        Ok(Self { levels, bound, all_full: AllFull::default(), members, total, number, policy })
    }

    /// What is done when no eligible member has room, be it for the bound or for `requests_max`.
    #[must_use]
    pub fn with_all_full(self, all_full: AllFull) -> Self {
        Self { all_full, ..self }
    }
}
