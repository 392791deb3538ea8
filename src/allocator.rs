//! The program's allocator, and what it needs to give memory back while nothing happens.

use anyhow::Context;
use std::hint::black_box;
use std::time::Duration;

/// What connections that have gone held is given back to the system: the C library's allocator keeps it, as it does what is written in C
/// (the keys of TLS sessions).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often what is free for longer than a second is given back.
const PAUSE: Duration = Duration::from_secs(5);

/// mimalloc looks for pages to give back, of all threads, once in so many allocations of a thread that are not served from a list of small blocks
/// (`generic_collect`). A proxy whose clients have all gone makes none.
const ALLOCATIONS: usize = 10_000;
/// Just too long for those lists.
const BYTES: usize = 2048;

/// Rounds after something has ended: what it held is given back once it has been free for a second.
const ROUNDS: u32 = 3;

/// Has free memory given back for as long as the process lives: half a millisecond of a thread of its own every five seconds, for a while after
/// connections have ended or a change has been made, and nothing otherwise.
///
/// # Errors
/// There can be no thread.
pub(crate) fn keep_giving_back() -> anyhow::Result<()> {
    let rounds = || {
        let (mut released, mut left) = (0, ROUNDS);
        loop {
            std::thread::sleep(PAUSE);
            let now = ringway_proxy::released();
            if std::mem::replace(&mut released, now) != now {
                left = ROUNDS;
            }
            if left == 0 {
                continue;
            }
            left -= 1;
            for _ in 0..=ALLOCATIONS {
                drop(black_box(Vec::<u8>::with_capacity(black_box(BYTES))));
            }
        }
    };
    let thread = std::thread::Builder::new().name("memory".into()).spawn(rounds);
    thread.map(drop).context("start the thread that gives memory back")
}
