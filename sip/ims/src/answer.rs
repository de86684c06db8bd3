//! A callback that is also a future: the bridge from the ports' completion style to async callers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::ports::{Done, StoreError};

/// Makes a completion for one port call and the future that it completes. Dropped uncalled, the completion says
/// [`StoreError::Closed`].
pub fn answer<T: Send + 'static>() -> (Done<T>, Answer<T>) {
    let slot = Arc::new(Mutex::new(Slot { value: None, waker: None }));
    let sender = Sender(Some(slot.clone()));
    (Box::new(move |value| sender.send(value)), Answer(slot))
}

/// The result of a port call, once its completion has run.
#[must_use = "the call went out, but nobody looks at its outcome"]
pub struct Answer<T>(Arc<Mutex<Slot<T>>>);

struct Slot<T> {
    value: Option<Result<T, StoreError>>,
    waker: Option<Waker>,
}

struct Sender<T>(Option<Arc<Mutex<Slot<T>>>>);

impl<T> Sender<T> {
    fn send(mut self, value: Result<T, StoreError>) {
        self.fill(value);
    }

    fn fill(&mut self, value: Result<T, StoreError>) {
        if let Some(slot) = self.0.take() {
            let mut slot = slot.lock();
            slot.value = Some(value);
            let waker = slot.waker.take();
            drop(slot);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.fill(Err(StoreError::Closed));
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock();
        match slot.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<T>(answer: &mut Answer<T>) -> Poll<Result<T, StoreError>> {
        Pin::new(answer).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_answer_is_pending_until_the_completion_runs() {
        let (done, mut answer) = answer::<u32>();
        assert!(poll(&mut answer).is_pending());
        done(Ok(7));
        assert!(matches!(poll(&mut answer), Poll::Ready(Ok(7))));
    }

    #[test]
    fn a_completion_that_is_dropped_says_closed() {
        let (done, mut answer) = answer::<u32>();
        drop(done);
        assert!(matches!(poll(&mut answer), Poll::Ready(Err(StoreError::Closed))));
    }
}
