//! RP-DATA on its way to handsets, each until its RP-ACK or RP-ERROR comes back (TS 24.011 §6, TS 24.341 §5.3.3.4.2).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip_ims::Aor;

use super::Fate;
use crate::rp::cause;

/// TR1N (TS 24.011 §10.2: 35 to 45 s), counted from the sending.
pub const TR1N: Duration = Duration::from_secs(40);
/// Transfers at a time, over all handsets.
const MAX: usize = 50_000;
/// Transfers at a time to one handset: its reference is one octet, and phones take few.
const MAX_EACH: u16 = 16;

struct Pending<T> {
    to: Aor,
    reference: u8,
    ticket: T,
}

/// `T` is what the owner wants back with the outcome.
pub struct Transfers<T> {
    by_call: HashMap<Arc<str>, Pending<T>>,
    by_reference: HashMap<(Aor, u8), Arc<str>>,
    each: HashMap<Aor, u16>,
    /// In the order of their deadlines. Entries of finished transfers go when their time comes.
    deadlines: VecDeque<(Instant, Arc<str>)>,
    last_reference: u8,
}

impl<T> Default for Transfers<T> {
    fn default() -> Self {
        Transfers {
            by_call: HashMap::new(),
            by_reference: HashMap::new(),
            each: HashMap::new(),
            deadlines: VecDeque::new(),
            last_reference: 0,
        }
    }
}

impl<T> Transfers<T> {
    /// Begins a transfer in a MESSAGE with this Call-ID; gives its RP-MR. The ticket comes back when there are too many.
    pub fn begin(&mut self, to: &Aor, call_id: Arc<str>, ticket: T, now: Instant) -> Result<u8, T> {
        if self.by_call.len() >= MAX
            || self.deadlines.len() >= 2 * MAX
            || self.each.get(to).is_some_and(|n| *n >= MAX_EACH)
        {
            return Err(ticket);
        }
        let mut reference = self.last_reference.wrapping_add(1);
        // Fewer than 256 are taken, so one is free.
        while self.by_reference.contains_key(&(to.clone(), reference)) {
            reference = reference.wrapping_add(1);
        }
        self.last_reference = reference;
        self.by_reference.insert((to.clone(), reference), call_id.clone());
        *self.each.entry(to.clone()).or_default() += 1;
        self.deadlines.push_back((now + TR1N, call_id.clone()));
        self.by_call.insert(call_id, Pending { to: to.clone(), reference, ticket });
        Ok(reference)
    }

    /// The SIP transaction ended: `None` without a response. After a 2xx the report is still to come.
    pub fn answered(&mut self, call_id: &str, status: Option<u16>) -> Option<(T, Fate)> {
        match status {
            Some(200..=299) => None,
            status => Some((self.end(call_id)?, Fate::Unreachable { status: status.unwrap_or(408) })),
        }
    }

    /// A report: found by the MESSAGE it replies to, else by sender and reference; `cause` is that of an RP-ERROR.
    pub fn reported(
        &mut self,
        in_reply_to: Option<&str>,
        from: &Aor,
        reference: u8,
        cause: Option<u8>,
    ) -> Option<(T, Fate)> {
        // It may come from another identity of the same handset: then only the Call-ID tells, which nobody can guess.
        let named =
            in_reply_to.filter(|id| self.by_call.get(*id).is_some_and(|p| p.reference == reference)).map(Arc::from);
        let call_id: Arc<str> = named.or_else(|| self.by_reference.get(&(from.clone(), reference)).cloned())?;
        let fate = match cause {
            None => Fate::Delivered,
            Some(cause::MEMORY_EXCEEDED) => Fate::NoMemory,
            Some(cause) => Fate::Refused { cause },
        };
        Some((self.end(&call_id)?, fate))
    }

    /// Transfers whose report did not come in time: delivered or not, nobody knows.
    pub fn lapsed(&mut self, now: Instant) -> Vec<(T, Fate)> {
        let mut lapsed = Vec::new();
        while let Some((deadline, call_id)) = self.deadlines.front() {
            let over = !self.by_call.contains_key(call_id);
            if !over && *deadline > now {
                break;
            }
            if let Some((_, call_id)) = self.deadlines.pop_front()
                && let Some(ticket) = self.end(&call_id)
            {
                lapsed.push((ticket, Fate::NoReport));
            }
        }
        lapsed
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_call.len()
    }

    /// Gives up all, for a stop.
    pub fn drain(&mut self) -> Vec<T> {
        self.by_reference.clear();
        self.each.clear();
        self.deadlines.clear();
        self.by_call.drain().map(|(_, pending)| pending.ticket).collect()
    }

    fn end(&mut self, call_id: &str) -> Option<T> {
        let Pending { to, reference, ticket } = self.by_call.remove(call_id)?;
        if let Some(n) = self.each.get_mut(&to) {
            *n -= 1;
            if *n == 0 {
                self.each.remove(&to);
            }
        }
        self.by_reference.remove(&(to, reference));
        Some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aor(user: &str) -> Aor {
        Aor::from_parts(user.as_bytes(), b"x").unwrap()
    }

    fn begun(transfers: &mut Transfers<u32>, to: &str, call: &str, ticket: u32, now: Instant) -> u8 {
        transfers.begin(&aor(to), call.into(), ticket, now).unwrap()
    }

    #[test]
    fn a_report_ends_what_it_replies_to() {
        let (mut t, now) = (Transfers::default(), Instant::now());
        let first = begun(&mut t, "bob", "a", 1, now);
        let second = begun(&mut t, "bob", "b", 2, now);
        assert_ne!(first, second);
        assert_eq!(t.answered("a", Some(200)), None);
        assert_eq!(t.reported(Some("b"), &aor("bob"), second, None), Some((2, Fate::Delivered)));
        assert_eq!(t.reported(None, &aor("bob"), first, Some(22)), Some((1, Fate::NoMemory)));
        assert_eq!((t.len(), t.reported(Some("a"), &aor("bob"), first, None)), (0, None));
    }

    #[test]
    fn another_identity_is_believed_by_call_id_alone() {
        let (mut t, now) = (Transfers::default(), Instant::now());
        let reference = begun(&mut t, "bob", "a", 1, now);
        assert_eq!(t.reported(None, &aor("robert"), reference, None), None);
        assert_eq!(t.reported(Some("a"), &aor("robert"), reference.wrapping_add(1), None), None);
        assert_eq!(t.reported(Some("a"), &aor("robert"), reference, Some(21)), Some((1, Fate::Refused { cause: 21 })));
    }

    #[test]
    fn a_report_that_overtakes_the_response_counts() {
        let (mut t, now) = (Transfers::default(), Instant::now());
        let reference = begun(&mut t, "bob", "a", 1, now);
        assert_eq!(t.reported(Some("a"), &aor("bob"), reference, None), Some((1, Fate::Delivered)));
        assert_eq!(t.answered("a", Some(200)), None);
        assert_eq!(t.answered("a", None), None);
    }

    #[test]
    fn refusals_end_it_at_once_and_silence_when_tr1n_is_over() {
        let (mut t, now) = (Transfers::default(), Instant::now());
        begun(&mut t, "bob", "a", 1, now);
        begun(&mut t, "bob", "b", 2, now);
        begun(&mut t, "bob", "c", 3, now + Duration::from_secs(1));
        assert_eq!(t.answered("a", Some(480)), Some((1, Fate::Unreachable { status: 480 })));
        assert_eq!(t.lapsed(now + TR1N - Duration::from_millis(1)), []);
        assert_eq!(t.lapsed(now + TR1N), [(2, Fate::NoReport)]);
        assert_eq!(t.deadline(), Some(now + TR1N + Duration::from_secs(1)));
    }

    #[test]
    fn one_handset_gets_so_many_at_a_time() {
        let (mut t, now) = (Transfers::default(), Instant::now());
        for n in 0..u32::from(MAX_EACH) {
            begun(&mut t, "bob", &n.to_string(), n, now);
        }
        assert_eq!(t.begin(&aor("bob"), "more".into(), 99, now), Err(99));
        assert!(t.begin(&aor("alice"), "other".into(), 99, now).is_ok());
        t.answered("0", Some(404));
        assert!(t.begin(&aor("bob"), "more".into(), 99, now).is_ok());
    }
}
