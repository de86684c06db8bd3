//! Authentication vectors for users with a SIM: the port, and the house that makes its own (TS 33.102 §6.3, RFC 3310).
//!
//! The sequence numbers of a SIM must never go back, whatever becomes of this process: they are reserved in the store, some
//! at a time, before the first of them is used. What was reserved and not used when a process dies is skipped.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sip_proto::digest::aka::{Milenage, NotGenuine, Resynchronise, Subscription, Vector, last_of, seq};

use crate::directory::Directory;
use crate::ports::{Document, Documents, Expect, StoreError, Version};
use crate::user::AkaKeys;

/// Why there is no vector.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoVector {
    /// The client's fault, answered as a wrong password is.
    #[error("no such private identity, or one without a SIM")]
    UnknownUser,
    /// The client's fault: its AUTS does not prove itself.
    #[error(transparent)]
    BadAuts(#[from] NotGenuine),
    /// The home network's fault: nobody answers, or too many wait already (504, TS 24.229 §5.4.1.2).
    #[error("no authentication vectors to be had: {0}")]
    Unavailable(StoreError),
}

/// Where vectors come from: an HSS over Cx, or a house of its own ([`HomeVectors`]).
pub trait AuthenticationVectors: Send + Sync {
    /// Asks for one vector for a private identity; after a synchronisation failure, with the SIM's token. `answer` runs
    /// once, before this returns or later on another thread, and must not block.
    fn vector(&self, impi: &str, resynchronise: Option<Resynchronise>, answer: Answered);
}

/// Called once with the vector.
pub type Answered = Box<dyn FnOnce(Result<Vector, NoVector>) + Send>;

/// Makes an unpredictable RAND.
pub type Random = Box<dyn Fn() -> [u8; 16] + Send + Sync>;

/// Vectors from the keys in the users' profiles.
pub struct HomeVectors(Arc<Inner>);

/// Sequence numbers reserved at once: one commit for so many challenges, and what a restart skips at most.
const RESERVED: u64 = 32;
/// Requests of one user that wait for the store.
const MAX_WAITING: usize = 16;
/// Where the numbers are kept: a document for each user who was ever challenged, also when he is gone: his SIM may come back.
const COLLECTION: &str = "aka_sqn";

struct Inner {
    directory: Arc<Directory>,
    documents: Arc<dyn Documents>,
    random: Random,
    /// At most one for each provisioned user.
    counters: Mutex<HashMap<Arc<str>, Counter>>,
}

/// The sequence numbers of one SIM.
#[derive(Default)]
struct Counter {
    /// The last one given out.
    sqn: u64,
    /// The SEQ up to which they may be given out.
    reserved: u64,
    /// The document that says so; `None`: not read yet, or not there.
    version: Option<Version>,
    /// Waiting for the store, at most [`MAX_WAITING`]; not empty while it is asked.
    waiting: Vec<Waiting>,
}

struct Waiting {
    resynchronise: Option<Resynchronise>,
    answer: Answered,
}

/// Answers that are run when no lock is held.
type Ready = Vec<(Answered, Result<Vector, NoVector>)>;

impl HomeVectors {
    pub fn new(directory: Arc<Directory>, documents: Arc<dyn Documents>, random: Random) -> HomeVectors {
        HomeVectors(Arc::new(Inner { directory, documents, random, counters: Mutex::default() }))
    }
}

impl AuthenticationVectors for HomeVectors {
    fn vector(&self, impi: &str, resynchronise: Option<Resynchronise>, answer: Answered) {
        let inner = &self.0;
        let Some((id, keys)) = inner.sim(impi) else { return answer(Err(NoVector::UnknownUser)) };
        let mut ready = Ready::new();
        let ask = {
            let mut counters = inner.counters.lock();
            let counter = counters.entry(id.clone()).or_default();
            if counter.waiting.len() >= MAX_WAITING {
                ready.push((answer, Err(NoVector::Unavailable(StoreError::Full))));
                false
            } else {
                let asked = !counter.waiting.is_empty();
                counter.waiting.push(Waiting { resynchronise, answer });
                // Whoever asked the store serves those who came meanwhile.
                !asked && !inner.serve(counter, &keys, &mut ready)
            }
        };
        run(ready);
        if ask {
            inner.reserve(id, 0);
        }
    }
}

impl Inner {
    fn sim(&self, impi: &str) -> Option<(Arc<str>, AkaKeys)> {
        let user = self.directory.by_id(impi)?;
        Some((user.id.clone(), user.secrets.aka.clone()?))
    }

    /// Serves who waits, first come first. False when more numbers must be reserved first.
    fn serve(&self, counter: &mut Counter, keys: &AkaKeys, ready: &mut Ready) -> bool {
        while let Some(first) = counter.waiting.first() {
            let mut sim = Subscription::new(Milenage::new(&keys.k, &keys.opc), keys.amf, counter.sqn);
            let genuine = first.resynchronise.as_ref().map_or(Ok(()), |r| sim.resynchronise(r));
            if genuine.is_ok() && (counter.version.is_none() || !counter.covers(sim.sqn())) {
                return false;
            }
            let waiting = counter.waiting.remove(0);
            let vector = genuine.map_err(NoVector::from).map(|()| {
                let vector = sim.vector((self.random)());
                counter.sqn = sim.sqn();
                vector
            });
            ready.push((waiting.answer, vector));
        }
        true
    }

    /// Reads what is reserved and reserves more. Another node of the house may do the same: then once more.
    fn reserve(self: &Arc<Self>, id: Arc<str>, attempt: u32) {
        let me = self.clone();
        let name = id.clone();
        self.documents.get(
            COLLECTION,
            &name,
            Box::new(move |found| match found {
                Ok(found) => me.put(id, found, attempt),
                Err(error) => me.give_up(&id, &error),
            }),
        );
    }

    fn put(self: &Arc<Self>, id: Arc<str>, found: Option<Document>, attempt: u32) {
        // Beyond this somebody else is at it all the time.
        const ATTEMPTS: u32 = 8;
        let Some((_, keys)) = self.sim(&id) else { return self.abandon(&id, || NoVector::UnknownUser) };
        let (stored, expect) = match &found {
            None => (0, Expect::Absent),
            Some(document) => match read(&document.body) {
                Some(seq) => (seq, Expect::Version(document.version)),
                None => return self.give_up(&id, &StoreError::Damaged),
            },
        };
        let (base, next) = {
            let mut counters = self.counters.lock();
            let counter = counters.entry(id.clone()).or_default();
            let base = counter.base(stored, found.map(|d| d.version));
            // The first that waits may move it, up or back.
            let mut sim = Subscription::new(Milenage::new(&keys.k, &keys.opc), keys.amf, base);
            let resynchronise = counter.waiting.first().and_then(|w| w.resynchronise.as_ref());
            // A token that is not genuine moves nothing; who sent it hears of it when it is served.
            let _ = resynchronise.map(|r| sim.resynchronise(r));
            (base, sim.sqn())
        };
        let reserved = seq(next) + RESERVED;
        let me = self.clone();
        let name = id.clone();
        self.documents.put(
            COLLECTION,
            &name,
            expect,
            reserved.to_string().into_bytes(),
            Box::new(move |put| match put {
                Ok(version) => me.reserved(id, base, reserved, version),
                Err(StoreError::Conflict) if attempt < ATTEMPTS => me.reserve(id, attempt + 1),
                Err(error) => me.give_up(&id, &error),
            }),
        );
    }

    fn reserved(self: &Arc<Self>, id: Arc<str>, base: u64, reserved: u64, version: Version) {
        let Some((_, keys)) = self.sim(&id) else { return self.abandon(&id, || NoVector::UnknownUser) };
        let mut ready = Ready::new();
        let done = {
            let mut counters = self.counters.lock();
            let counter = counters.entry(id.clone()).or_default();
            *counter =
                Counter { sqn: base, reserved, version: Some(version), waiting: std::mem::take(&mut counter.waiting) };
            self.serve(counter, &keys, &mut ready)
        };
        run(ready);
        if !done {
            self.reserve(id, 0);
        }
    }

    fn give_up(&self, id: &str, error: &StoreError) {
        self.abandon(id, || NoVector::Unavailable(error.clone()));
    }

    fn abandon(&self, id: &str, why: impl Fn() -> NoVector) {
        let waiting = match self.counters.lock().get_mut(id) {
            Some(counter) => std::mem::take(&mut counter.waiting),
            None => Vec::new(),
        };
        run(waiting.into_iter().map(|w| (w.answer, Err(why()))).collect());
    }
}

impl Counter {
    /// Whether the number after this one is reserved. One far below is not: a SIM may have set the count back.
    fn covers(&self, sqn: u64) -> bool {
        (1..=RESERVED).contains(&self.reserved.wrapping_sub(seq(sqn)))
    }

    /// Where counting goes on from: our own place when nobody else has reserved since, or else behind all that is reserved.
    fn base(&self, reserved: u64, version: Option<Version>) -> u64 {
        if self.version.is_some() && self.version == version { self.sqn } else { last_of(reserved) }
    }
}

/// The document's body: the SEQ up to which numbers may have been given out.
fn read(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.parse().ok()
}

fn run(ready: Ready) {
    for (answer, vector) in ready {
        answer(vector);
    }
}

#[cfg(test)]
mod tests {
    use sip_proto::digest::aka::{Usim, UsimAnswer};

    use super::*;
    use crate::ports::Done;
    use crate::user::User;

    /// One document that survives its house; calls wait until [`Shelf::settle`].
    #[derive(Default)]
    struct Shelf {
        kept: Mutex<Option<Document>>,
        calls: Mutex<Vec<Call>>,
        broken: std::sync::atomic::AtomicBool,
    }

    type Call = Box<dyn FnOnce(&Shelf) + Send>;

    impl Shelf {
        fn settle(&self) {
            loop {
                let calls = std::mem::take(&mut *self.calls.lock());
                if calls.is_empty() {
                    return;
                }
                calls.into_iter().for_each(|call| call(self));
            }
        }

        fn later(&self, call: impl FnOnce(&Shelf) + Send + 'static) {
            self.calls.lock().push(Box::new(call));
        }

        fn is_broken(&self) -> bool {
            self.broken.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    impl Documents for Shelf {
        fn get(&self, _: &str, _: &str, done: Done<Option<Document>>) {
            self.later(|shelf| match shelf.is_broken() {
                true => done(Err(StoreError::Closed)),
                false => {
                    let found = shelf.kept.lock().clone();
                    done(Ok(found));
                }
            });
        }

        fn put(&self, _: &str, key: &str, expect: Expect, body: Vec<u8>, done: Done<Version>) {
            let key = key.to_owned();
            self.later(move |shelf| {
                let put = {
                    let mut kept = shelf.kept.lock();
                    let found = kept.as_ref().map(|d| d.version);
                    match expect {
                        _ if shelf.is_broken() => Err(StoreError::Closed),
                        Expect::Absent if found.is_some() => Err(StoreError::Conflict),
                        Expect::Version(v) if found != Some(v) => Err(StoreError::Conflict),
                        _ => {
                            let version = Version(found.map_or(1, |v| v.0 + 1));
                            *kept = Some(Document { key, version, body });
                            Ok(version)
                        }
                    }
                };
                done(put);
            });
        }

        fn delete(&self, _: &str, _: &str, _: Expect, _: Done<()>) {
            unreachable!("numbers are kept for good");
        }

        fn list(&self, _: &str, _: &str, _: u32, _: Done<Vec<Document>>) {
            unreachable!("nobody lists them");
        }

        fn count(&self, _: &str, _: Done<u64>) {
            unreachable!("nobody counts them");
        }

        fn versions(&self, _: &str, _: &str, _: u32, _: Done<Vec<(String, Version)>>) {
            unreachable!("nobody lists them");
        }
    }

    const KEYS: ([u8; 16], [u8; 16]) = ([0x46; 16], [0xcd; 16]);

    fn house(shelf: &Arc<Shelf>) -> HomeVectors {
        let directory = Arc::new(Directory::new());
        let mut alice: User = crate::user::tests::user("alice", None);
        alice.secrets.aka = Some(AkaKeys { k: KEYS.0, opc: KEYS.1, amf: [0x80, 0], only: true });
        directory.put(alice);
        directory.put(crate::user::tests::user("bob", None));
        let count = std::sync::atomic::AtomicU8::new(0);
        let random = move || [count.fetch_add(1, std::sync::atomic::Ordering::Relaxed); 16];
        HomeVectors::new(directory, shelf.clone(), Box::new(random))
    }

    fn usim(sqn: u64) -> Usim {
        Usim::new(Milenage::new(&KEYS.0, &KEYS.1), sqn)
    }

    fn ask(house: &HomeVectors, resynchronise: Option<Resynchronise>) -> Arc<Mutex<Option<Result<Vector, NoVector>>>> {
        let slot = Arc::new(Mutex::new(None));
        let to = slot.clone();
        house.vector("alice", resynchronise, Box::new(move |v| *to.lock() = Some(v)));
        slot
    }

    fn vector(house: &HomeVectors, shelf: &Shelf) -> Vector {
        let slot = ask(house, None);
        shelf.settle();
        let answer = slot.lock().take().expect("an answer");
        answer.expect("a vector")
    }

    #[test]
    fn no_number_is_given_out_twice_whatever_becomes_of_the_house() {
        let shelf = Arc::new(Shelf::default());
        let mut sim = usim(0);
        for life in 0..4 {
            let house = house(&shelf);
            for _ in 0..=RESERVED * life {
                let v = vector(&house, &shelf);
                assert!(matches!(sim.challenge(&v.rand, &v.autn), UsimAnswer::Response(_)), "life {life}");
            }
        }
    }

    #[test]
    fn nothing_is_given_out_before_it_is_reserved_and_one_commit_serves_many() {
        let shelf = Arc::new(Shelf::default());
        let house = house(&shelf);
        let first: Vec<_> = (0..3).map(|_| ask(&house, None)).collect();
        assert!(first.iter().all(|slot| slot.lock().is_none()));
        shelf.settle();
        assert!(first.iter().all(|slot| matches!(*slot.lock(), Some(Ok(_)))));
        for _ in 3..RESERVED {
            assert!(matches!(*ask(&house, None).lock(), Some(Ok(_))), "no store is asked");
        }
        assert!(ask(&house, None).lock().is_none());
        assert_eq!(shelf.kept.lock().as_ref().unwrap().version, Version(1));
    }

    #[test]
    fn two_nodes_never_give_out_the_same_number() {
        let shelf = Arc::new(Shelf::default());
        let nodes = [house(&shelf), house(&shelf)];
        let mut sim = usim(0);
        let mut seen = std::collections::HashSet::new();
        for i in 0..200 {
            let v = vector(&nodes[i % 2], &shelf);
            // Both nodes draw the same RAND here, so AUTN tells the numbers apart.
            assert!(seen.insert((v.rand, v.autn)));
            let _ = sim.challenge(&v.rand, &v.autn);
        }
    }

    #[test]
    fn the_sims_token_brings_the_count_where_the_sim_is_and_a_false_one_nowhere() {
        let shelf = Arc::new(Shelf::default());
        let house = house(&shelf);
        let mut sim = usim(1 << 30);
        let v = vector(&house, &shelf);
        let UsimAnswer::Synchronise(auts) = sim.challenge(&v.rand, &v.autn) else { panic!("old number accepted") };
        let mut forged = auts;
        forged.0[0] ^= 1;
        let slot = ask(&house, Some(Resynchronise { rand: v.rand, auts: forged }));
        assert!(matches!(*slot.lock(), Some(Err(NoVector::BadAuts(_)))));
        let slot = ask(&house, Some(Resynchronise { rand: v.rand, auts }));
        shelf.settle();
        let v = slot.lock().take().unwrap().unwrap();
        assert!(matches!(sim.challenge(&v.rand, &v.autn), UsimAnswer::Response(_)));
        assert!(read(&shelf.kept.lock().as_ref().unwrap().body).unwrap() > seq(1 << 30));
    }

    #[test]
    fn who_has_no_sim_and_a_store_that_fails_get_no_vector() {
        let shelf = Arc::new(Shelf::default());
        let house = house(&shelf);
        for name in ["bob", "nobody"] {
            let asked = Arc::new(Mutex::new(None));
            let to = asked.clone();
            house.vector(name, None, Box::new(move |v| *to.lock() = Some(v)));
            assert!(matches!(*asked.lock(), Some(Err(NoVector::UnknownUser))));
        }
        shelf.broken.store(true, std::sync::atomic::Ordering::Relaxed);
        let slots: Vec<_> = (0..=MAX_WAITING).map(|_| ask(&house, None)).collect();
        assert!(matches!(*slots[MAX_WAITING].lock(), Some(Err(NoVector::Unavailable(StoreError::Full)))));
        shelf.settle();
        assert!(slots.iter().all(|s| matches!(*s.lock(), Some(Err(NoVector::Unavailable(_))))));
        shelf.broken.store(false, std::sync::atomic::Ordering::Relaxed);
        vector(&house, &shelf);
    }
}
