//! Fairness between bulk and small transfers of one worker: whoever has moved much takes turns with others of its kind, a stride at a
//! time, and only some strides come between two looks at the sockets. So what has just become ready, mostly small requests, waits for
//! a few strides, however many downloads there are.

use super::tasks;
use crate::net::buffers::LARGE_BYTES;
use ringway_telemetry::counters::WorkerCounters;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Bytes that a transfer may move before it is one of bulk: from then on it takes turns, and has a large buffer.
pub(crate) const BULK_BYTES: u64 = 64 * 1024;
/// Bytes of one turn: what one read into a large buffer brings.
const STRIDE_BYTES: u64 = LARGE_BYTES as u64;
/// Strides between two looks at the sockets: together they take about a sixth of a millisecond, and a look less than a hundredth of it.
const STRIDES: usize = 2;

/// The transfers of a worker that wait for a turn, in order of their coming.
#[derive(Debug)]
pub(crate) struct BulkQueue {
    counters: Arc<WorkerCounters>,
    /// Strides that may still begin before the sockets are looked at.
    left: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
    /// Tickets that have been called: the first that waits has this number.
    called: Cell<u64>,
    /// Somebody calls tickets.
    is_served: Cell<bool>,
}

/// The answer to a transfer that asks for a stride.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Begin,
    /// It waits with this ticket. `true`: it is the first, and tickets must be called from now on.
    Wait(u64, bool),
}

impl BulkQueue {
    pub(crate) fn new(counters: &Arc<WorkerCounters>) -> Rc<Self> {
        let (left, called, is_served) = (Cell::default(), Cell::default(), Cell::default());
        Rc::new(Self { counters: Arc::clone(counters), left, waiting: RefCell::default(), called, is_served })
    }

    /// Whether transfers wait for their turn: nobody takes a long stride in between.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_served.get()
    }

    fn ask(&self, waker: &Waker) -> Answer {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() && self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            return Answer::Begin;
        }
        let ticket = self.called.get() + waiting.len() as u64;
        waiting.push_back(waker.clone());
        Answer::Wait(ticket, !self.is_served.replace(true))
    }

    /// Who waits for a turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether a ticket has been called; if not, this waker is woken then.
    fn is_called(&self, ticket: u64, waker: &Waker) -> bool {
        let Some(place) = ticket.checked_sub(self.called.get()) else { return true };
        let mut waiting = self.waiting.borrow_mut();
        if let Some(known) = usize::try_from(place).ok().and_then(|place| waiting.get_mut(place)) {
            known.clone_from(waker);
        }
        false
    }

    /// The sockets have been looked at: some strides more may begin. `false`: nobody waits for one.
    fn call(&self) -> bool {
        self.left.set(STRIDES);
        while self.left.get() > 0 {
            let Some(waker) = self.waiting.borrow_mut().pop_front() else { break };
            self.left.set(self.left.get() - 1);
            self.called.set(self.called.get() + 1);
            waker.wake();
        }
        let goes_on = !self.waiting.borrow().is_empty();
        self.is_served.set(goes_on);
        goes_on
    }
}

/// Calls the tickets of a worker's queue until nobody waits. The runtime wakes a task that yields after it has looked at the sockets,
/// and behind all that these have made ready.
async fn serve(queue: Rc<BulkQueue>) {
    let served = Served(queue);
    loop {
        tokio::task::yield_now().await;
        if !served.0.call() {
            return;
        }
    }
}

/// A queue that is served. However that ends, nobody is left waiting for a ticket to be called.
struct Served(Rc<BulkQueue>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.is_served.set(false);
        let left = std::mem::take(&mut *self.0.waiting.borrow_mut());
        self.0.called.set(self.0.called.get() + left.len() as u64);
        left.into_iter().for_each(Waker::wake);
    }
}

/// One direction of a transfer.
#[derive(Debug)]
pub(crate) struct BulkTurn {
    /// How much it may have moved before it has to ask.
    until: u64,
    ticket: Option<u64>,
}

impl Default for BulkTurn {
    fn default() -> Self {
        Self { until: BULK_BYTES, ticket: None }
    }
}

impl BulkTurn {
    /// Whether a transfer that has moved so many bytes may go on. `false`: it is woken at its turn.
    #[inline]
    pub(crate) fn poll(&mut self, moved: u64, queue: &Rc<BulkQueue>, context: &Context<'_>) -> bool {
        moved < self.until || self.poll_next(moved, queue, context)
    }

    #[cold]
    fn poll_next(&mut self, moved: u64, queue: &Rc<BulkQueue>, context: &Context<'_>) -> bool {
        let begins = match self.ticket {
            Some(ticket) => queue.is_called(ticket, context.waker()),
            None => match queue.ask(context.waker()) {
                Answer::Begin => true,
                Answer::Wait(ticket, first) => {
                    self.ticket = Some(ticket);
                    if first {
                        tasks::spawn(&queue.counters, "turns of bulk", serve(Rc::clone(queue)));
                    }
                    false
                }
            },
        };
        if begins {
            *self = Self { until: moved + STRIDE_BYTES, ticket: None };
        }
        begins
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Poll, Wake};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Transfers that ask, each with its own count of wake-ups.
    fn askers<const N: usize>() -> ([Arc<Woken>; N], [Waker; N]) {
        let woken = std::array::from_fn(|_| Arc::<Woken>::default());
        let wakers = std::array::from_fn(|index: usize| Waker::from(Arc::clone(&woken[index])));
        (woken, wakers)
    }

    #[test]
    fn tickets_are_called_in_their_order_and_as_many_as_may_begin() {
        let queue = BulkQueue::new(&Arc::default());
        let (woken, wakers) = askers::<4>();
        let answers: Vec<Answer> = wakers.iter().map(|waker| queue.ask(waker)).collect();
        let expected: Vec<Answer> = (0..4).map(|ticket| Answer::Wait(ticket, ticket == 0)).collect();
        assert_eq!(answers, expected);
        assert!(queue.call() && queue.is_busy(), "two wait on");
        let counts = || woken.each_ref().map(|woken| woken.0.load(Relaxed));
        assert_eq!(counts(), [1, 1, 0, 0]);
        let called: Vec<bool> = (0..4).map(|ticket| queue.is_called(ticket, Waker::noop())).collect();
        assert_eq!(called, [true, true, false, false]);
        // Whoever asks again comes behind those that wait; the last waker that came with a ticket is woken.
        assert_eq!(queue.ask(&wakers[0]), Answer::Wait(4, false));
        assert!(!queue.is_called(3, &wakers[3]));
        assert!(queue.call());
        assert_eq!(counts(), [1, 1, 0, 1]);
        assert!(!queue.call() && !queue.is_busy());
        assert_eq!(counts(), [2, 1, 0, 1]);
        // One stride is left of this round, and nobody waits.
        assert_eq!(queue.ask(&wakers[2]), Answer::Begin);
        assert_eq!(queue.ask(&wakers[2]), Answer::Wait(5, true));
    }

    #[test]
    fn small_transfers_never_ask_and_one_that_is_gone_holds_up_no_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(<_>::default()).unwrap();
        runtime.block_on(async {
            let queue = BulkQueue::new(&Arc::default());
            let mut turn = BulkTurn::default();
            let context = Context::from_waker(Waker::noop());
            assert!(turn.poll(BULK_BYTES - 1, &queue, &context));
            assert!(queue.waiting.borrow().is_empty() && !queue.is_served.get());
            assert!(!turn.poll(BULK_BYTES, &queue, &context));
            // Polled for another reason meanwhile, it does not wait twice.
            assert!(!turn.poll(BULK_BYTES, &queue, &context));
            assert_eq!(queue.waiting.borrow().len(), 1);
            // From here on nobody polls that one again.
            let mut other = BulkTurn::default();
            poll_fn(|context| match other.poll(BULK_BYTES, &queue, context) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
            assert!(other.poll(BULK_BYTES + STRIDE_BYTES - 1, &queue, &context));
        });
    }

    #[test]
    fn nobody_waits_for_a_queue_that_is_served_no_more() {
        let queue = BulkQueue::new(&Arc::default());
        let (woken, wakers) = askers::<3>();
        for waker in &wakers {
            assert!(matches!(queue.ask(waker), Answer::Wait(..)));
        }
        drop(Served(Rc::clone(&queue)));
        assert_eq!(woken.each_ref().map(|woken| woken.0.load(Relaxed)), [1, 1, 1]);
        assert!((0..3).all(|ticket| queue.is_called(ticket, Waker::noop())) && !queue.is_busy());
        assert_eq!(queue.ask(&wakers[0]), Answer::Wait(3, true), "the next one has it served again");
    }

    /// Many transfers that never have to wait for a socket, and a task that runs each time after the sockets have been looked at.
    #[test]
    fn between_two_looks_at_the_sockets_only_some_strides_begin_and_all_transfers_move_on_alike() {
        const TRANSFERS: usize = 100;
        const ROUNDS: usize = 200;
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(<_>::default()).unwrap();
        runtime.block_on(async {
            let queue = BulkQueue::new(&Arc::default());
            let strides = Rc::new(RefCell::new([0_usize; TRANSFERS]));
            for index in 0..TRANSFERS {
                let (queue, strides) = (Rc::clone(&queue), Rc::clone(&strides));
                drop(tokio::task::spawn_local(async move {
                    let (mut turn, mut moved) = (BulkTurn::default(), BULK_BYTES);
                    poll_fn(|context| {
                        while turn.poll(moved, &queue, context) {
                            moved += STRIDE_BYTES;
                            strides.borrow_mut()[index] += 1;
                        }
                        Poll::<()>::Pending
                    })
                    .await;
                }));
            }
            let mut before = 0;
            for round in 0..ROUNDS {
                tokio::task::yield_now().await;
                let now: usize = strides.borrow().iter().sum();
                assert!(now - before <= 2 * STRIDES, "round {round}: {} strides", now - before);
                before = now;
            }
            let strides = strides.borrow();
            let (least, most) = (strides.iter().min().unwrap(), strides.iter().max().unwrap());
            assert!(*least > 0 && most - least <= 1, "{least} to {most}");
        });
    }
}
