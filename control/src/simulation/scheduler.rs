//! Who runs next: one thread, and a seed that draws among all tasks that could.
//!
//! Tasks of members run here instead of on the runtime's own queue. That queue is in the order of wake-ups, and the runtime
//! wakes those who watch one value in an order that it draws from the system's randomness; here only the *set* of those that
//! are ready counts. It also makes members stop dead: a paused group of tasks is passed over, a dead one is dropped.
#![allow(deprecated, reason = "the engine names its runtime through a path that it has deprecated itself")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::OptionalSend;
use openraft::impls::TokioRuntime;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::clocks::{self, Moment};
use super::disk::Random;

/// The tasks of one life of a member; 0 is the world itself.
pub(super) type Group = u64;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    static CURRENT: RefCell<Option<Scheduler>> = const { RefCell::new(None) };
    static GROUP: Cell<Group> = const { Cell::new(0) };
}

/// Whose task runs.
pub(super) fn group() -> Group {
    GROUP.get()
}

/// Does something as a group's task would.
pub(super) fn as_group<T>(group: Group, act: impl FnOnce() -> T) -> T {
    let before = GROUP.replace(group);
    let out = act();
    GROUP.set(before);
    out
}

#[derive(Default)]
struct Tasks {
    /// `None` while it runs.
    all: BTreeMap<u64, (Group, Option<Task>)>,
    ready: BTreeSet<u64>,
    paused: BTreeSet<Group>,
    root: Option<Waker>,
    next: u64,
}

/// All clones are one.
#[derive(Clone)]
pub(super) struct Scheduler {
    tasks: Arc<Mutex<Tasks>>,
    order: Arc<Mutex<Random>>,
    /// For the engine: election time-outs, and when its clock first ticks.
    engine: Arc<Mutex<Random>>,
}

struct Ready {
    id: u64,
    tasks: Arc<Mutex<Tasks>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        let root = {
            let mut tasks = self.tasks.lock().unwrap();
            tasks.ready.insert(self.id);
            tasks.root.clone()
        };
        if let Some(root) = root {
            root.wake();
        }
    }
}

impl Scheduler {
    /// Runs a future, and all that it spawns, in virtual time until it ends.
    pub(super) fn run<T>(seed: u64, main: impl Future<Output = T>) -> T {
        let scheduler = Self {
            tasks: Arc::default(),
            order: Arc::new(Mutex::new(Random::new(seed ^ 0x0bde))),
            engine: Arc::new(Mutex::new(Random::new(seed ^ 0xe16e))),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        CURRENT.set(Some(scheduler.clone()));
        let out = runtime.block_on(tokio::task::unconstrained(async {
            let mut main = std::pin::pin!(main);
            std::future::poll_fn(|context| scheduler.poll(context, main.as_mut())).await
        }));
        let left = std::mem::take(&mut scheduler.lock().all);
        // Inside the runtime's context: what they drop may look at its clock.
        let guard = runtime.enter();
        drop(left);
        drop(guard);
        CURRENT.set(None);
        out
    }

    pub(super) fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap()
    }

    fn poll<T>(&self, context: &mut Context<'_>, mut main: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        self.lock().root = Some(context.waker().clone());
        GROUP.set(0);
        if let Poll::Ready(out) = main.as_mut().poll(context) {
            return Poll::Ready(out);
        }
        loop {
            let Some((id, group, mut task)) = self.pick() else { return Poll::Pending };
            GROUP.set(group);
            let waker = Waker::from(Arc::new(Ready { id, tasks: Arc::clone(&self.tasks) }));
            let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            let over = {
                let mut tasks = self.lock();
                match tasks.all.get_mut(&id) {
                    Some((_, slot)) if !done => {
                        *slot = Some(task);
                        None
                    }
                    _ => {
                        tasks.all.remove(&id);
                        Some(task)
                    }
                }
            };
            // Not under the lock: what it drops may wake others.
            drop(over);
        }
    }

    /// Any of those that are ready, by the seed.
    fn pick(&self) -> Option<(u64, Group, Task)> {
        let mut tasks = self.lock();
        let Tasks { all, ready, paused, .. } = &mut *tasks;
        ready.retain(|id| all.contains_key(id));
        let may: Vec<u64> = ready.iter().copied().filter(|id| !paused.contains(&all[id].0)).collect();
        let id = match may.len() {
            0 => return None,
            count => may[self.order.lock().unwrap().below(count as u64) as usize],
        };
        ready.remove(&id);
        let (group, task) = all.get_mut(&id)?;
        Some((id, *group, task.take()?))
    }

    fn add(&self, group: Group, task: Task) -> u64 {
        let (id, root) = {
            let mut tasks = self.lock();
            tasks.next += 1;
            let id = tasks.next;
            tasks.all.insert(id, (group, Some(task)));
            tasks.ready.insert(id);
            (id, tasks.root.clone())
        };
        if let Some(root) = root {
            root.wake();
        }
        id
    }

    /// Spawns a task into a group; the handle is the runtime's own, so that nobody sees a difference.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        group: Group,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let (sender, receiver) = oneshot::channel();
        let task = Box::pin(async move {
            // Nobody may be waiting for it.
            let _ = sender.send(future.await);
        });
        let abort = Abort { id: self.add(group, task), tasks: Arc::clone(&self.tasks) };
        tokio::spawn(async move {
            let _abort = abort;
            match receiver.await {
                Ok(out) => out,
                // Its group has died: nobody is told anything.
                Err(_) => std::future::pending().await,
            }
        })
    }

    /// None of the group's tasks runs until [`Scheduler::resume`]: a stopped process.
    pub(super) fn pause(&self, group: Group) {
        self.lock().paused.insert(group);
    }

    pub(super) fn is_paused(&self, group: Group) -> bool {
        self.lock().paused.contains(&group)
    }

    pub(super) fn resume(&self, group: Group) {
        let root = {
            let mut tasks = self.lock();
            tasks.paused.remove(&group);
            tasks.root.clone()
        };
        if let Some(root) = root {
            root.wake();
        }
    }

    /// Ends a group's tasks where they stand: a killed process.
    pub(super) fn kill(&self, group: Group) {
        let dead: Vec<_> = {
            let mut tasks = self.lock();
            tasks.paused.remove(&group);
            tasks.all.extract_if(.., |_, (of, _)| *of == group).collect()
        };
        drop(dead);
    }
}

/// Takes the task away when its handle is aborted.
struct Abort {
    id: u64,
    tasks: Arc<Mutex<Tasks>>,
}

impl Drop for Abort {
    fn drop(&mut self) {
        let task = self.tasks.lock().unwrap().all.remove(&self.id);
        drop(task);
    }
}

/// The engine's runtime in the tests of this crate: tokio, and inside a simulation the simulation's order and randomness.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = Moment;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match Scheduler::current() {
            Some(scheduler) => scheduler.spawn(GROUP.get(), future),
            None => tokio::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(clocks::true_time(duration))
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Self::sleep(deadline.left())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(clocks::true_time(duration), future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Self::timeout(deadline.left(), future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> SmallRng {
        SmallRng::seed_from_u64(match Scheduler::current() {
            Some(scheduler) => scheduler.engine.lock().unwrap().below(u64::MAX),
            None => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
        })
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}
