//! Loads, between a proxy and its fleet: what it reports of them, and the tables that it is to obey.

use ringway_control::client::FleetTables;
use ringway_control::loads::{Position, ServiceLoad};
use ringway_proxy::{Handle, OfferedTable, TableStamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the fleet is told of, with what is in force where that is `wanted`. `revision`: of the topology in force.
pub(crate) fn reports(proxy: &Handle, revision: u64, wanted: &BTreeSet<String>) -> Vec<ServiceLoad> {
    let reports = proxy.load_reports().into_iter().map(|told| {
        let holds = told.held.map(|TableStamp { epoch, term, seq }| Position { epoch, term, seq });
        let in_force = wanted.contains(&told.service).then(|| proxy.load_table(&told.service)).flatten();
        ServiceLoad {
            // A reload may have come between the two.
            in_force: in_force.filter(|(digest, _)| *digest == told.digest).map(|(_, table)| table),
            name: told.service,
            digest: told.digest,
            members_digest: told.members_digest,
            revision,
            params: told.params,
            report: told.report,
            holds,
        }
    });
    reports.collect()
}

/// Has a proxy obey the fleet's tables, as far as they are for it: the same again says that they still hold. Where there is none of a
/// service's ring, another is offered, so that it is told why it goes by none.
pub(crate) fn offer(proxy: &Handle, known: &FleetTables) {
    let (Some(position), Some(confirmed)) = (known.tables.position, known.confirmed) else { return };
    let Position { epoch, term, seq } = position;
    for (name, rings) in &known.tables.services {
        let own = proxy.load_digest(name).filter(|digest| rings.contains_key(digest));
        let Some((&digest, ring)) = own.map_or_else(|| rings.first_key_value(), |own| rings.get_key_value(&own)) else {
            continue;
        };
        if !known.tables.is_in_force(ring) {
            continue;
        }
        let table = Arc::clone(&ring.table);
        let offered = OfferedTable { stamp: TableStamp { epoch, term, seq }, digest, table, confirmed };
        if let Err(error) = proxy.take_load_table(name, &offered) {
            tracing::debug!(service = name, %error, "a table of the fleet's is not obeyed");
        }
    }
}
