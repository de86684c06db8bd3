//! Where lines' states come from: what is registered, else an HLR or HSS behind a port, remembered for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::Msisdn;

use super::Lines;
use crate::registry::{Line, Registry};

/// The port to an external HLR or HSS. `done` gets `None` when it does not answer.
pub trait LookUp: Send + Sync {
    fn look_up(&self, msn: Msisdn, done: Box<dyn FnOnce(Option<Line>) + Send>);
}

/// [`Lines`] of a registry and, for numbers that it does not have, a port.
pub struct LineBook {
    registry: Arc<Registry>,
    elsewhere: Option<Arc<dyn LookUp>>,
    fresh: Duration,
    answers: Arc<Mutex<Answers>>,
}

#[derive(Default)]
struct Answers {
    lines: HashMap<Msisdn, (Line, Instant)>,
    /// In the order of their arrival; at most [`MAX_ANSWERS`].
    order: VecDeque<(Msisdn, Instant)>,
}

impl LineBook {
    /// `fresh`: how long an answer is believed; at least a second, in which whoever waited for it is judged by it.
    pub fn new(registry: Arc<Registry>, elsewhere: Option<Arc<dyn LookUp>>, fresh: Duration) -> LineBook {
        let fresh = fresh.max(Duration::from_secs(1));
        LineBook { registry, elsewhere, fresh, answers: Arc::default() }
    }
}

impl Lines for LineBook {
    fn known(&self, msn: Msisdn) -> Option<Line> {
        if let Some(line) = self.registry.line(msn) {
            return Some(line);
        }
        if self.elsewhere.is_none() {
            return Some(Line::default());
        }
        self.answers.lock().lines.get(&msn).filter(|(_, at)| at.elapsed() < self.fresh).map(|(line, _)| *line)
    }

    fn ask(&self, msn: Msisdn, done: Box<dyn FnOnce(bool) + Send>) {
        let Some(elsewhere) = &self.elsewhere else { return done(true) };
        let answers = self.answers.clone();
        let answered = move |line: Option<Line>| {
            if let Some(line) = line {
                answers.lock().remember(msn, line, Instant::now());
            }
            done(line.is_some());
        };
        elsewhere.look_up(msn, Box::new(answered));
    }
}

impl Answers {
    fn remember(&mut self, msn: Msisdn, line: Line, now: Instant) {
        self.lines.insert(msn, (line, now));
        self.order.push_back((msn, now));
        while self.order.len() > MAX_ANSWERS {
            // An entry that was renewed since has a later place.
            if let Some((old, at)) = self.order.pop_front()
                && self.lines.get(&old).is_some_and(|(_, newest)| *newest == at)
            {
                self.lines.remove(&old);
            }
        }
    }
}

/// Answers remembered.
const MAX_ANSWERS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    struct Hlr(AtomicU32);

    impl LookUp for Hlr {
        fn look_up(&self, _: Msisdn, done: Box<dyn FnOnce(Option<Line>) + Send>) {
            self.0.fetch_add(1, Relaxed);
            done(Some(Line { roaming: true, ..Line::default() }));
        }
    }

    #[test]
    fn an_answer_is_remembered_and_the_registry_goes_first() {
        let (registry, hlr) = (Arc::new(Registry::default()), Arc::new(Hlr(AtomicU32::new(0))));
        let book = LineBook::new(registry.clone(), Some(hlr.clone()), Duration::from_secs(60));
        let msn: Msisdn = "+819012345678".parse().unwrap();
        assert_eq!(book.known(msn), None);
        book.ask(msn, Box::new(|known| assert!(known)));
        assert!(book.known(msn).unwrap().roaming);
        assert_eq!(hlr.0.load(Relaxed), 1);
        let kind = crate::registry::Kind::Line;
        registry.apply(&crate::registry::Change { sequence: 1, kind, key: msn.to_string(), body: Some("{}".into()) });
        assert!(!book.known(msn).unwrap().roaming);
    }

    #[test]
    fn an_answer_is_believed_by_whoever_waited_for_it() {
        // Else it would be asked for without end.
        let book = LineBook::new(Arc::default(), Some(Arc::new(Hlr(AtomicU32::new(0)))), Duration::ZERO);
        let msn: Msisdn = "+819012345678".parse().unwrap();
        book.ask(msn, Box::new(|known| assert!(known)));
        assert!(book.known(msn).is_some());
    }

    #[test]
    fn without_a_port_an_unknown_line_is_an_ordinary_one() {
        let book = LineBook::new(Arc::default(), None, Duration::ZERO);
        assert_eq!(book.known("+819012345678".parse().unwrap()), Some(Line::default()));
    }
}
