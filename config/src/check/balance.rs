//! How a service's backends are chosen: policy, bound, hot keys, what a failure counts as.

use super::text::nonzero;
use crate::diagnostic::At;
use crate::findings::Findings;
use crate::model;
use crate::schema::{self, PolicyName, PresetName, ShedScopeName};
use ringway_ring::{
    BoundParams, HOLD_MILLIS_MAX, HotParams, MaglevParams, PeakEwmaParams, PolicyParams, RendezvousParams, RingParams,
    ShedParams, TABLE_SIZE_MAX, is_prime,
};
use std::time::Duration;

/// Longest half-life of hot keys.
const HALF_LIFE_MAX: Duration = Duration::from_secs(3600);

pub(super) fn policy(
    balance: &schema::BalanceSection,
    section: &schema::ServiceSection,
    findings: &mut Findings,
) -> PolicyParams {
    let seed = seed(balance.seed.as_ref());
    match balance.policy.value {
        PolicyName::Ring => PolicyParams::Ring(RingParams { points: balance.points.value.0 as u32, seed }),
        PolicyName::Maglev => {
            let at = &balance.table_size;
            let size = at.value.0 as u32;
            let members = section.backends.value.len() as u32;
            if !is_prime(size) {
                let next = (size..).find(|&size| is_prime(size)).unwrap_or(65_537);
                let help = format!("write `{next}`");
                findings.error(at.place, "bad_table_size", format!("{size} is not a prime"), help);
            } else if size < members.saturating_mul(100) {
                let next = (members.saturating_mul(100)..).find(|&size| is_prime(size)).unwrap_or(65_537);
                findings.warning(
                    at.place,
                    "small_table",
                    format!("{size} entries are few for {members} backends: shares will be uneven"),
                    format!("write `{}`", next.min(TABLE_SIZE_MAX)),
                );
            }
            PolicyParams::Maglev(MaglevParams { table_size: size, seed })
        }
        PolicyName::Hrw => {
            let members = section.backends.value.len();
            if members > 32 {
                findings.warning(
                    balance.policy.place,
                    "slow_policy",
                    format!("hrw looks at each of {members} backends for each request"),
                    "write `policy: ring` above 32 backends",
                );
            }
            PolicyParams::Rendezvous(RendezvousParams { seed })
        }
        PolicyName::RoundRobin => PolicyParams::RoundRobin,
        PolicyName::Random => PolicyParams::Random,
        PolicyName::P2c => PolicyParams::PowerOfTwo,
        PolicyName::LeastRequest => PolicyParams::LeastRequest,
        PolicyName::PeakEwma => {
            nonzero(&balance.decay, "decay", findings);
            let decay_millis = u32::try_from(balance.decay.value.as_millis()).unwrap_or(u32::MAX);
            PolicyParams::PeakEwma(PeakEwmaParams { decay_millis })
        }
        PolicyName::First => PolicyParams::First,
    }
}

/// Every level has a table of its own; a member without an entry there is asked only when all the others have failed or are full.
pub(super) fn members_without_entry(
    balance: &schema::BalanceSection,
    table_size: u32,
    backends: &[model::Backend],
    findings: &mut Findings,
) {
    let mut members: Vec<&model::Backend> = backends.iter().collect();
    members.sort_by(|a, b| (a.level, &a.id).cmp(&(b.level, &b.id)));
    for level in members.chunk_by(|a, b| a.level == b.level) {
        let weights: Vec<u32> = level.iter().map(|backend| backend.weight).collect();
        let (none, wanted) = ringway_ring::without_entry(&weights, table_size);
        let Some(&first) = none.first() else { continue };
        let others = if none.len() > 1 { format!(" and {} more", none.len() - 1) } else { String::new() };
        let enough =
            u32::try_from(wanted).ok().and_then(|wanted| (wanted..=TABLE_SIZE_MAX).find(|&size| is_prime(size)));
        findings.warning(
            balance.table_size.place,
            "no_table_entry",
            format!("{:?}{others}: no entry of {table_size}, so no keys while others are up", level[first].id),
            match enough {
                Some(size) => format!("write `{size}`, or let the weights differ less"),
                None => "let the weights differ less".to_owned(),
            },
        );
    }
}

fn seed(seed: Option<&At<crate::decode::Secret>>) -> u64 {
    match seed {
        None => 0,
        // Numbers stand for themselves, so that fleets can be told a number; any other text is hashed to one.
        Some(at) => at.value.parse().unwrap_or_else(|_| xxhash_rust::xxh3::xxh3_64(at.value.as_bytes())),
    }
}

pub(super) fn shed(section: &schema::ShedSection, policy: PolicyParams, findings: &mut Findings) -> model::Shed {
    let scope = match section.scope.value {
        ShedScopeName::Proxy => model::ShedScope::Proxy,
        ShedScopeName::Fleet => model::ShedScope::Fleet,
    };
    if scope == model::ShedScope::Fleet && !policy.hashes() {
        findings.error(
            section.scope.place,
            "bad_scope",
            format!("{} places no keys: there is nothing that the proxies of a fleet could agree on", policy.name()),
            "write `policy: ring`, or `scope: proxy`",
        );
    }
    let share_max = f64::from(section.max.value.0) / 100.0;
    model::Shed { params: ShedParams { target: section.target.value.0, share_max }, scope }
}

/// Scopes of a fleet, where nobody could add up what its proxies see.
pub(super) fn fleet_scopes(root: &schema::Root, control: Option<&model::Control>, findings: &mut Findings) {
    let why = match control {
        Some(control) if control.etcd.is_some() => "etcd adds up no loads",
        Some(control) if control.embedded || !control.members.is_empty() => return,
        _ => "there is no control plane that adds up loads",
    };
    for service in root.services.value.iter() {
        let balance = &service.value.balance.value;
        let has_keys = matches!(balance.policy.value, PolicyName::Ring | PolicyName::Maglev | PolicyName::Hrw);
        let Some(shed) = balance.shed.as_ref().filter(|_| has_keys) else { continue };
        if shed.value.scope.value == ShedScopeName::Fleet {
            findings.warning(
                shed.value.scope.place,
                "fleet_scope_alone",
                format!("{why}: what is shed is each proxy's own"),
                "add `control: { members: [ .. ] }`, or write `scope: proxy`",
            );
        }
    }
}

pub(super) fn penalty(balance: &schema::BalanceSection, findings: &mut Findings) -> model::Penalty {
    nonzero(&balance.penalty, "penalty", findings);
    let most = Duration::from_millis(u64::from(HOLD_MILLIS_MAX));
    for (at, name) in [(&balance.penalty, "penalty"), (&balance.retry_after_max, "retry_after_max")] {
        if at.value > most {
            let message = format!("`{name}` is longer than an hour: a backend would be left alone for good");
            findings.error(at.place, "bad_duration", message, "write `1h` or less; `5m` is usual");
        }
    }
    model::Penalty { latency: balance.penalty.value, retry_after_max: balance.retry_after_max.value }
}

/// `None`: they are not looked for.
pub(super) fn hot_keys(
    section: &schema::HotKeysSection,
    policy: PolicyParams,
    findings: &mut Findings,
) -> Option<HotParams> {
    if section.leave.value.0 > section.enter.value.0 {
        findings.error(
            section.leave.place,
            "out_of_range",
            "`leave` is above `enter`: a key would become hot and cold at once",
            "write less than `enter`",
        );
    }
    nonzero(&section.half_life, "half_life", findings);
    if section.half_life.value > HALF_LIFE_MAX {
        let message = "`half_life` is longer than an hour: a key would stay hot long after nobody asks for it";
        findings.error(section.half_life.place, "bad_duration", message, "write `1h` or less; `30s` is usual");
    }
    (section.enabled.value && policy.hashes()).then(|| HotParams {
        enter: section.enter.value.0,
        leave: section.leave.value.0,
        keys_max: section.keys_max.value.0 as usize,
        owners_max: section.owners_max.value.0 as u16,
        volume_min: section.min_volume.value.0,
        half_life_millis: section.half_life.value.as_millis().try_into().unwrap_or(u32::MAX),
    })
}

pub(super) fn bound(section: &schema::BoundSection, policy: PolicyParams) -> Option<BoundParams> {
    let (slack, min_slots) = match section.preset.value {
        PresetName::Off => return None,
        // Without keys, loads are even by themselves.
        _ if !policy.hashes() => return None,
        PresetName::Strict => (0.0, 1),
        PresetName::Balanced => (2.0, 2),
        PresetName::Affinity => (3.0, 2),
    };
    let min_slots = section.min_slots.as_ref().map_or(min_slots, |at| at.value.0 as u32);
    Some(BoundParams { factor: section.factor.value.0, slack, min_slots })
}
