//! Questions to workers, whose answers are waited for: one at a time for each worker, and none to one that is known to be stuck. Its
//! queue has no bound, and questions in it would be answered to nobody.

use super::control::Control;
use crate::ambient;
use crate::dispatcher::Command;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// What each of these workers has answered by then, in their order. `None`: it is stuck, or has ended.
pub(super) async fn ask<T: Send + 'static>(
    control: &Arc<Control>,
    workers: Range<usize>,
    until: Instant,
    question: impl Fn(oneshot::Sender<T>) -> Command,
) -> Vec<Option<T>> {
    let stuck: Vec<bool> = control.shared.overload.ticks.found().map(|found| found.is_stuck).collect();
    let mut answers: Vec<Option<T>> = workers.clone().map(|_| None).collect();
    let mut asked = JoinSet::new();
    for (place, worker) in workers.enumerate() {
        if stuck.get(worker) == Some(&true) {
            continue;
        }
        let (reply, answer) = oneshot::channel();
        let (control, question) = (Arc::clone(control), question(reply));
        let answer = async move {
            // Who waits for another worker keeps nobody from this one.
            let _turn = control.turns.get(worker)?.lock().await;
            if ambient::now() >= until {
                return None;
            }
            control.commands.get(worker)?.send(question).ok()?;
            answer.await.ok()
        };
        asked.spawn(async move { (place, tokio::time::timeout_at(until.into(), answer).await.ok().flatten()) });
    }
    while let Some(answered) = asked.join_next().await {
        if let Ok((place, answer)) = answered {
            answers[place] = answer;
        }
    }
    answers
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::apply::source::Source;
    use crate::apply::testing;
    use crate::dispatcher::WorkerReport;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_answer_has_one_question_and_keeps_nobody_from_the_others() {
        let (control, [mut silent, mut answers]) = testing::control(Source::Memory);
        let control = Arc::new(control);
        let served = tokio::spawn(async move {
            while let Some(command) = answers.recv().await {
                if let Command::Inspect(generation, reply) = command {
                    let _ = reply.send(WorkerReport { generation: generation as u64, ..WorkerReport::default() });
                }
            }
        });
        let (began, time) = (ambient::now(), Duration::from_secs(2));
        let askers: Vec<_> = (0..10)
            .map(|number| {
                let control = Arc::clone(&control);
                let question = move |reply| Command::Inspect(number, reply);
                tokio::spawn(async move { ask(&control, 0..2, began + time, question).await })
            })
            .collect();
        for (number, asker) in askers.into_iter().enumerate() {
            let told: Vec<_> =
                asker.await.unwrap().into_iter().map(|report| report.map(|report| report.generation)).collect();
            assert_eq!(told, [None, Some(number as u64)]);
        }
        assert!(ambient::since(began) < time * 2, "all at once");
        let mut questions = 0;
        while silent.try_recv().is_ok() {
            questions += 1;
        }
        assert_eq!(questions, 1, "nobody is there for the others' answers any more");
        served.abort();
    }
}
