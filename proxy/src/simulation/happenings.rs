//! Events around the requests: reloads, health that flips, hosts and ports that do not respond, descriptors that run out.

use super::random::Random;
use super::world::{RAW, WEB, World};
use crate::net::transport::memory::ConnectOutcome;
use std::rc::Rc;
use std::time::Duration;

/// Perhaps an event happens now.
pub(super) fn draw(world: &Rc<World>, random: &mut Random) {
    let (faults, often) = (world.setup().faults, world.setup().happenings());
    if faults == 0 || !random.chance(often) {
        return;
    }
    let backend = random.pick(&world.backends);
    match random.below(7) {
        0 | 1 => {
            let mut setup = world.setup().clone();
            let what = setup.change(random);
            world.replace(setup);
            world.ledger().tell(&format!("reload: {what}"));
            world.apply();
            let tries = world.setup().tries();
            for record in world.ledger().records.values_mut().filter(|record| record.ended.is_none()) {
                record.tries_max = record.tries_max.max(tries);
            }
        }
        2 => {
            backend.well.set(!backend.well.get());
            world.ledger().tell(&format!("{} is well: {}", backend.id, backend.well.get()));
        }
        3 | 4 => {
            let reach = random.pick(&[
                ConnectOutcome::Open,
                ConnectOutcome::Open,
                ConnectOutcome::Refused,
                ConnectOutcome::Silent,
                ConnectOutcome::Slow(Duration::from_millis(300)),
                ConnectOutcome::NoDescriptors,
            ]);
            world.unreachable.set(world.unreachable.get() || reach != ConnectOutcome::Open);
            world.network.set_outcome(backend.address, reach);
            world.ledger().tell(&format!("{} is reached: {reach:?}", backend.id));
        }
        5 => {
            let wires = world.network.wires_to(backend.address);
            if wires.is_empty() {
                return;
            }
            let wire = random.pick(&wires);
            world.note_lost(&backend.id);
            if random.chance(50) {
                wire.silence();
                world.note_silence();
            } else {
                wire.reset();
            }
            world.ledger().tell(&format!("a connection to {} is cut", backend.id));
            excuse_all(world);
            let place = (backend.id.clone(), wire.number());
            if let Some((id, _)) = world.serving.borrow().get(&place) {
                // On a reused connection, that may cause one more attempt.
                let mut ledger = world.ledger();
                let record = ledger.records.get_mut(id);
                let made = record.and_then(|record| record.tries.iter_mut().rfind(|made| made.backend == backend.id));
                made.into_iter().for_each(|made| made.stale = true);
            }
        }
        _ => {
            let address = random.pick(&[WEB, RAW]).parse().expect("an address");
            world.network.starve(address, random.below(5) as u32);
            world.ledger().tell(&format!("no descriptors at {address}"));
        }
    }
}

/// Everything under way may be cut by this.
fn excuse_all(world: &World) {
    world
        .ledger()
        .records
        .values_mut()
        .filter(|record| record.ended.is_none())
        .for_each(|record| record.excused = true);
}

/// All is well from here on, except for what has been lost.
pub(super) fn recover(world: &World) {
    for backend in &world.backends {
        backend.well.set(true);
        world.network.set_outcome(backend.address, ConnectOutcome::Open);
    }
}
