//! What a dispatcher holds: segments by link and rank, on the wire, or waiting for a link.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use sip_ims::Msisdn;

use super::recent::{Recent, Unknown};
use super::{Centre, Handsets, LinkId};
use crate::queue::{Origin, Recall, Replacement, Segment, SegmentId, SentAs};

/// Numbers whose line is to be asked for.
pub type Asks = Vec<Msisdn>;

#[derive(Default)]
pub struct State {
    pub centre: Option<Arc<dyn Centre>>,
    pub handsets: Option<Arc<dyn Handsets>>,
    lanes: BTreeMap<LinkId, Lane>,
    /// No link is up for them; since when (unix milliseconds; 0 until the next tick).
    parked: VecDeque<(i64, Segment)>,
    /// Submitted, without a report.
    pub flying: HashMap<SegmentId, Segment>,
    /// Those of the flying that somebody asked back.
    pub withdrawn: HashMap<SegmentId, Recall>,
    /// Asked back from their centre, without an answer.
    pub cancels: HashMap<SegmentId, (Recall, SentAs)>,
    /// Wait for somebody to tell how the line stands.
    asked: HashMap<Msisdn, Vec<Segment>>,
    /// Numbers for which something waits in the store, and until when. At most [`MAX_HELD`]: the store knows all of them.
    pub held: HashMap<Msisdn, i64>,
    pub seen: Seen,
    pub recent: Recent,
    pub unknown: Unknown,
    /// To be handed over when the lock is open.
    pub to_handset: Vec<(Arc<dyn Handsets>, Segment)>,
}

/// The segments for one link, by rank.
#[derive(Default)]
struct Lane([VecDeque<Segment>; 4]);

impl State {
    pub fn len(&self) -> usize {
        let lanes: usize = self.lanes.values().map(Lane::len).sum();
        let asked: usize = self.asked.values().map(Vec::len).sum();
        lanes + asked + self.parked.len() + self.flying.len()
    }

    pub fn links(&self) -> Vec<LinkId> {
        self.lanes.keys().copied().collect()
    }

    pub fn route(&mut self, segment: Segment) {
        match self.centre.as_ref().and_then(|c| c.choose(segment.origin.msn)) {
            Some(link) => self.lanes.entry(link).or_default().push(segment),
            None => self.parked.push_back((0, segment)),
        }
    }

    /// In front of everything else of its link, or to another one if that is down.
    pub fn again(&mut self, link: LinkId, segment: Segment) {
        self.lanes.entry(link).or_default().push_front(segment);
    }

    pub fn next(&mut self, link: LinkId) -> Option<Segment> {
        self.lanes.get_mut(&link)?.pop()
    }

    /// Looks for a link for what has none, or whose link is down.
    pub fn reroute(&mut self) {
        let Some(centre) = self.centre.clone() else { return };
        let mut homeless = Vec::new();
        for (link, lane) in &mut self.lanes {
            let Some(first) = lane.first() else { continue };
            // A link that is up has room or will have; of an application's sessions another may be.
            let shut = centre.room(*link) == 0 || centre.application(first.origin.msn) == Some(false);
            if shut && centre.choose(first.origin.msn) != Some(*link) {
                homeless.extend(lane.drain());
            }
        }
        let parked = std::mem::take(&mut self.parked);
        homeless.sort_by_key(|s| (s.origin.rank, s.id));
        for (since, segment) in parked.into_iter().chain(homeless.into_iter().map(|s| (0, s))) {
            match centre.choose(segment.origin.msn) {
                Some(link) => self.lanes.entry(link).or_default().push(segment),
                None => self.parked.push_back((since, segment)),
            }
        }
    }

    /// Those that have been without a link for longer than `patience`.
    pub fn parked_too_long(&mut self, now: i64, patience: i64) -> Vec<Segment> {
        let mut too_long = Vec::new();
        for (since, segment) in std::mem::take(&mut self.parked) {
            let since = if since == 0 { now } else { since };
            if now - since >= patience {
                too_long.push(segment);
            } else {
                self.parked.push_back((since, segment));
            }
        }
        too_long
    }

    pub fn ask(&mut self, segment: Segment, asks: &mut Asks) {
        let msn = segment.origin.msn;
        let waiting = self.asked.entry(msn).or_default();
        if waiting.is_empty() {
            asks.push(msn);
        }
        waiting.push(segment);
    }

    pub fn asked(&mut self, msn: Msisdn) -> Vec<Segment> {
        self.asked.remove(&msn).unwrap_or_default()
    }

    pub fn hold(&mut self, msn: Msisdn, due: i64) {
        if self.held.len() < MAX_HELD {
            self.held.insert(msn, due);
        }
    }

    /// Takes a segment that was not submitted yet out of memory.
    pub fn withdraw(&mut self, id: SegmentId) -> bool {
        let before = self.len();
        self.lanes.values_mut().for_each(|l| l.remove(id));
        self.parked.retain(|p| p.1.id != id);
        self.asked.values_mut().for_each(|l| l.retain(|s| s.id != id));
        self.asked.retain(|_, l| !l.is_empty());
        self.len() < before
    }

    /// Puts another body into a segment that was not submitted yet.
    pub fn exchange(&mut self, id: SegmentId, with: &Replacement) -> bool {
        let lanes = self.lanes.values_mut().flat_map(|l| l.0.iter_mut().flatten());
        let parked = self.parked.iter_mut().map(|p| &mut p.1);
        let mut all = lanes.chain(parked).chain(self.asked.values_mut().flatten());
        let Some(segment) = all.find(|s| s.id == id) else { return false };
        segment.part.short_message.clone_from(&with.short_message);
        if let Some(expires_at) = with.expires_at {
            segment.origin = Arc::new(Origin { expires_at, ..(*segment.origin).clone() });
        }
        true
    }

    /// Asks the centre that has a segment for it, once at a time.
    pub fn cancel(&mut self, recall: Recall) {
        let (Some(centre), Some(sent_as)) = (self.centre.clone(), recall.sent_as.clone()) else { return };
        if !self.cancels.contains_key(&recall.id) && centre.cancel(&recall, &sent_as) {
            self.cancels.insert(recall.id, (recall, sent_as));
        }
    }

    /// Everything that was not submitted.
    pub fn empty(&mut self) -> Vec<Segment> {
        let mut all: Vec<Segment> = self.lanes.values_mut().flat_map(Lane::drain).collect();
        all.extend(std::mem::take(&mut self.parked).into_iter().map(|p| p.1));
        all.extend(std::mem::take(&mut self.asked).into_values().flatten());
        all
    }
}

impl Lane {
    fn len(&self) -> usize {
        self.0.iter().map(VecDeque::len).sum()
    }

    fn push(&mut self, segment: Segment) {
        self.0[usize::from(segment.origin.rank.min(3))].push_back(segment);
    }

    fn push_front(&mut self, segment: Segment) {
        self.0[usize::from(segment.origin.rank.min(3))].push_front(segment);
    }

    fn first(&self) -> Option<&Segment> {
        self.0.iter().find_map(VecDeque::front)
    }

    fn pop(&mut self) -> Option<Segment> {
        self.0.iter_mut().find_map(VecDeque::pop_front)
    }

    fn drain(&mut self) -> Vec<Segment> {
        self.0.iter_mut().flat_map(std::mem::take).collect()
    }

    fn remove(&mut self, id: SegmentId) {
        self.0.iter_mut().for_each(|l| l.retain(|s| s.id != id));
    }
}

/// Numbers that have registered since the start.
#[derive(Default)]
pub struct Seen(HashSet<Msisdn>);

impl Seen {
    /// Whether it is the first time. Beyond the bound nobody is first any more: what waits for them has its own time.
    pub fn first(&mut self, msn: Msisdn) -> bool {
        self.0.len() < MAX_SEEN && self.0.insert(msn)
    }
}

/// Of 8 octets each.
const MAX_SEEN: usize = 1_000_000;

/// Numbers remembered as waiting.
const MAX_HELD: usize = 200_000;
