//! Segments that come in, put together: bounded in number, in memory and in time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::udh::{Part, Reference};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Messages that wait for segments.
    pub messages: usize,
    /// Bytes that they hold together, as their owner weighs them.
    pub bytes: usize,
    /// From the first segment on. A segment that comes later starts anew.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { messages: 10_000, bytes: 8 * 1024 * 1024, wait: Duration::from_secs(24 * 3600) }
    }
}

/// Segments of one message have these in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key<K> {
    ends: K,
    reference: Reference,
    total: u8,
}

struct Waiting<T> {
    pieces: Vec<Option<T>>,
    missing: u8,
    bytes: usize,
    /// Which entry of `order` is ours: a message that was completed and begun again has a later one.
    serial: u64,
}

/// `K` names the two ends, `T` is a segment's content.
pub struct Assembler<K, T> {
    limits: Limits,
    waiting: HashMap<Key<K>, Waiting<T>>,
    /// Oldest first; entries of completed messages are dropped when they come to the front.
    order: VecDeque<(Instant, u64, Key<K>)>,
    bytes: usize,
    serial: u64,
}

impl<K: Eq + Hash + Clone, T> Assembler<K, T> {
    pub fn new(limits: Limits) -> Assembler<K, T> {
        Assembler { limits, waiting: HashMap::new(), order: VecDeque::new(), bytes: 0, serial: 0 }
    }

    /// Takes a segment of `weight` bytes. Gives the whole message, in order, when this was the last that it missed. A segment
    /// that is there already is dropped. Where a limit would be passed, the messages that wait longest are given up.
    pub fn offer(&mut self, ends: K, part: Part, piece: T, weight: usize, now: Instant) -> Option<Vec<T>> {
        self.expire(now);
        if part.total <= 1 {
            return Some(vec![piece]);
        }
        let key = Key { ends, reference: part.reference, total: part.total };
        if !self.waiting.contains_key(&key) {
            self.begin(key.clone(), part.total, now);
        }
        let waiting = self.waiting.get_mut(&key)?;
        let place = waiting.pieces.get_mut(usize::from(part.number).checked_sub(1)?)?;
        if place.is_some() {
            return None;
        }
        *place = Some(piece);
        waiting.bytes += weight;
        waiting.missing -= 1;
        self.bytes += weight;
        if waiting.missing == 0 {
            let whole = self.remove(&key)?;
            return Some(whole.pieces.into_iter().flatten().collect());
        }
        while self.bytes > self.limits.bytes && self.give_up_oldest() {}
        None
    }

    fn begin(&mut self, key: Key<K>, total: u8, now: Instant) {
        while self.waiting.len() >= self.limits.messages.max(1) && self.give_up_oldest() {}
        self.serial += 1;
        self.order.push_back((now, self.serial, key.clone()));
        let pieces = std::iter::repeat_with(|| None).take(usize::from(total)).collect();
        // Half the entries at least are live: completed ones do not pile up behind one that waits.
        if self.order.len() > 2 * self.waiting.len() + 16 {
            let waiting = &self.waiting;
            let serial = self.serial;
            self.order.retain(|(_, s, k)| *s == serial || waiting.get(k).is_some_and(|w| w.serial == *s));
        }
        let bytes = usize::from(total) * size_of::<Option<T>>();
        self.bytes += bytes;
        self.waiting.insert(key, Waiting { pieces, missing: total, bytes, serial: self.serial });
    }

    fn remove(&mut self, key: &Key<K>) -> Option<Waiting<T>> {
        let gone = self.waiting.remove(key)?;
        self.bytes -= gone.bytes;
        Some(gone)
    }

    fn give_up_oldest(&mut self) -> bool {
        while let Some((_, serial, key)) = self.order.pop_front() {
            if self.waiting.get(&key).is_some_and(|w| w.serial == serial) {
                self.remove(&key);
                return true;
            }
        }
        false
    }

    /// Gives up messages that wait since more than the limit; their number.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut gone = 0;
        while let Some((since, serial, key)) = self.order.front() {
            let live = self.waiting.get(key).is_some_and(|w| w.serial == *serial);
            if live && now.saturating_duration_since(*since) < self.limits.wait {
                break;
            }
            gone += usize::from(live);
            if let Some((_, _, key)) = self.order.pop_front().filter(|_| live) {
                self.remove(&key);
            }
        }
        gone
    }

    /// Messages that wait for segments.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes that they hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(reference: u8, number: u8, total: u8) -> Part {
        Part { reference: Reference::Byte(reference), total, number }
    }

    fn start() -> Instant {
        // A point to count from; the clock is not read again.
        Instant::now()
    }

    #[test]
    fn out_of_order_and_doubled_segments_make_one_message() {
        let mut a = Assembler::new(Limits::default());
        let now = start();
        assert_eq!(a.offer("x", part(1, 3, 3), 'c', 1, now), None);
        assert_eq!(a.offer("x", part(1, 1, 3), 'a', 1, now), None);
        assert_eq!(a.offer("x", part(1, 1, 3), 'z', 1, now), None);
        assert_eq!(a.offer("x", part(1, 2, 3), 'b', 1, now), Some(vec!['a', 'b', 'c']));
        assert!(a.is_empty() && a.bytes() == 0);
    }

    #[test]
    fn references_totals_and_ends_keep_messages_apart() {
        let mut a = Assembler::new(Limits::default());
        let now = start();
        assert_eq!(a.offer("x", part(1, 1, 2), 1, 1, now), None);
        assert_eq!(a.offer("y", part(1, 2, 2), 2, 1, now), None);
        assert_eq!(a.offer("x", part(2, 2, 2), 3, 1, now), None);
        assert_eq!(a.offer("x", part(1, 2, 3), 4, 1, now), None);
        assert_eq!(a.len(), 4);
    }

    #[test]
    fn time_ends_the_wait() {
        let mut a = Assembler::new(Limits { wait: Duration::from_secs(60), ..Limits::default() });
        let now = start();
        a.offer("x", part(1, 1, 2), 1, 1, now);
        assert_eq!(a.expire(now + Duration::from_secs(59)), 0);
        assert_eq!(a.expire(now + Duration::from_secs(60)), 1);
        assert_eq!(a.offer("x", part(1, 2, 2), 2, 1, now + Duration::from_secs(61)), None);
        assert_eq!(a.len(), 1);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_weigh_too_much() {
        let now = start();
        let mut a = Assembler::new(Limits { messages: 2, ..Limits::default() });
        for n in 0..100 {
            a.offer(n, part(1, 1, 2), n, 1, now);
            assert!(a.len() <= 2);
        }
        let mut a = Assembler::new(Limits { bytes: 10_000, ..Limits::default() });
        for n in 0..100 {
            a.offer(n, part(1, 1, 255), n, 100, now);
            assert!(a.bytes() <= 10_000, "{}", a.bytes());
        }
        assert!(!a.is_empty());
    }

    #[test]
    fn completed_messages_leave_nothing_behind() {
        let now = start();
        let mut a = Assembler::new(Limits::default());
        a.offer("waits", part(9, 1, 2), 0, 1, now);
        for _ in 0..1000 {
            a.offer("x", part(1, 1, 2), 1, 1, now);
            assert_eq!(a.offer("x", part(1, 2, 2), 2, 1, now), Some(vec![1, 2]));
        }
        assert!(a.order.len() < 32, "{}", a.order.len());
    }
}
