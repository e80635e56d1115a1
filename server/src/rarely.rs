//! A future that is polled only when it was woken itself, not whenever the task is that it is part of: for
//! what seldom happens beside what often does.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

pub(crate) struct Rarely<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    woken: Arc<Woken>,
    /// What `woken` wakes.
    task: Waker,
}

struct Woken {
    /// Set before the task is woken.
    is_woken: AtomicBool,
    task: Mutex<Waker>,
}

impl<'a, T> Rarely<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        let task = Waker::noop().clone();
        // The first time, it is to be polled.
        let woken = Woken { is_woken: AtomicBool::new(true), task: Mutex::new(task.clone()) };
        Self { future: Box::pin(future), woken: Arc::new(woken), task }
    }
}

impl<T> Future for Rarely<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Self { future, woken, task } = &mut *self;
        // Mostly it is the same task, and all there is to do is to look at a flag.
        if !task.will_wake(context.waker()) {
            task.clone_from(context.waker());
            woken.task().clone_from(task);
        }
        if !woken.is_woken.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        woken.is_woken.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(woken));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl Woken {
    fn task(&self) -> MutexGuard<'_, Waker> {
        // No code panics half-way through a change of what the lock holds.
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.task().wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicU64, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_wakes_its_task_as_often_as_it_is_woken() {
        let three = Rarely::new(async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_mins(1)).await;
            }
        });
        tokio::time::timeout(Duration::from_hours(1), three).await.expect("woken each time");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_polled_when_it_was_woken_and_otherwise_not() {
        let polls = AtomicU64::new(0);
        let mut sleep = Box::pin(tokio::time::sleep(Duration::from_mins(1)));
        let mut rarely = Rarely::new(poll_fn(|context| {
            polls.fetch_add(1, Ordering::Relaxed);
            sleep.as_mut().poll(context)
        }));
        let mut often = tokio::time::interval(Duration::from_secs(1));
        let mut ticks = 0;
        loop {
            tokio::select! {
                () = &mut rarely => break,
                _ = often.tick() => ticks += 1,
            }
        }
        assert!(ticks >= 60);
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }
}
