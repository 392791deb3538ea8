//! Which backend a key belongs to, and which one may take the next request.
//!
//! Pure: no clock, no sockets, no randomness, no logging. Three layers:
//!
//! * [`Ring`] is a function of (ids, weights, points, seed) and nothing else. Every key has one sequence of distinct
//!   members on it, its [`Candidates`]; spill, skip and retry all follow it.
//! * [`Load`] is what is known of a member right now: requests in flight, and the share of its keys that it accepts.
//!   Health, drain, slow start and shedding move that share; the ring is never rebuilt for them.
//! * [`BackendSet`] puts them together: it takes a request's [`Selection`] to the next member that accepts the key and is
//!   below its cap, and reserves a place there. The ring is one of its policies; [`Maglev`], [`Rendezvous`] and those without
//!   keys are others.
//! * [`Line`], [`SharedLimit`] and [`Published`] are what threads share beside loads: how many wait for room, what is held together, and a
//!   value that is replaced whole.
//! * [`HandoffRamp`] and [`HandedKeys`] say which of the keys that a change moves have been handed over, [`HandoffDecision`] what becomes of a
//!   request for one of them.
//! * [`RefusedKeys`] and [`ChangesUnderWay`] say which keys are not handed over for now.
//! * [`ConcurrencyController`] finds out how many requests a member is worth giving at once.
//! * [`Sketch`] and [`HotKeys`] find the keys that are too hot for one owner.
#![warn(missing_docs)]

mod backend_set;
mod candidates;
mod concurrency;
mod fleet_load;
mod handoff;
mod handoff_decision;
mod handoff_waits;
mod hash;
mod hot;
mod limit;
mod line;
mod load;
mod maglev;
mod movement;
mod params;
mod pick_context;
mod policy;
mod published;
mod rendezvous;
mod ring;
mod round_robin;
mod selection;
mod shed;
mod slot;
mod stage;
mod sum;
mod sync;
mod total;

pub use backend_set::{BackendSet, HOT_OWNERS_MAX, HeldShare, MemberSpec, Pick};
pub use candidates::Candidates;
pub use concurrency::{ConcurrencyController, ConcurrencyParams, Window, log_micros};
pub use fleet_load::{
    FRESH_MILLIS, FleetLoads, FleetParams, FleetTable, FleetTotals, LOAD_UNIT, LoadReport, NOT_ELIGIBLE,
    REPORTED_LOAD_MAX, ReportError, STEP_MILLIS, TABLE_KEYS_MAX,
};
pub use handoff::{HandedKeys, HandoffRamp, HandoffTurn, KeysUnderWay, is_copied};
pub use handoff_decision::{CopyPlace, HandoffDecision, HandoffFacts, HandoffRequest, HandoffWay, PreviousOwner};
pub use handoff_waits::{ChangesUnderWay, RefusedKeys};
pub use hash::{Hash, hash_key, members_digest};
pub use hot::{HotKey, HotKeys, HotParams, Report, Sketch, cost as hot_cost};
pub use limit::{Held, SharedLimit};
pub use line::Line;
pub use load::{FULL_SHARE, HOLD_MILLIS_MAX, Load};
pub use maglev::{Maglev, TABLE_SIZE_MAX, is_prime, without_entry};
pub use movement::{
    Method, Move, Movement, SAMPLE_BUDGET, independent_movement, movement, set_movement, taken_movement, taken_shares,
};
pub use params::{AllFull, BoundParams, MaglevParams, PeakEwmaParams, PolicyParams, RendezvousParams, RingParams};
pub use pick_context::PickContext;
pub use published::{Published, Reader};
pub use rendezvous::{Rendezvous, choose_split_target};
pub use ring::{BuildError, Member, Ring, WEIGHT_MAX};
pub use round_robin::RoundRobin;
pub use selection::Selection;
pub use shed::{ShedController, ShedParams};
pub use slot::Slot;
pub use sum::LEVELS_MAX;
pub use total::Total;
