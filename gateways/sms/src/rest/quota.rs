//! How many messages a client may send on one day of the operator's, over all nodes and restarts.
//!
//! Taken from the store in blocks, so that few messages wait for another commit; a node that dies loses the rest of its block.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sip_ims::ports::{Documents, Expect, StoreError};
use tokio::sync::Mutex;

use super::shelf::Shelf;
use crate::billing::Calendar;

/// What clients have left of their day.
pub struct Quotas {
    shelf: Shelf<Day>,
    held: Mutex<Held>,
}

struct Held {
    calendar: Calendar,
    blocks: HashMap<String, Block>,
}

struct Block {
    day: Arc<str>,
    left: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Day {
    day: String,
    taken: u64,
}

impl Quotas {
    pub fn new(documents: Arc<dyn Documents>, calendar: Calendar) -> Quotas {
        Quotas {
            shelf: Shelf::new(documents, "sms_quota"),
            held: Mutex::new(Held { calendar, blocks: HashMap::new() }),
        }
    }

    /// Takes `count` of `quota` a day (0: no limit), or says that there are not so many. `now`: unix milliseconds.
    pub async fn take(&self, client: &str, quota: u32, count: usize, now: i64) -> Result<bool, StoreError> {
        if quota == 0 {
            return Ok(true);
        }
        let (quota, count) = (u64::from(quota), count as u64);
        let mut held = self.held.lock().await;
        let day = held.calendar.day(now);
        let block = held.blocks.entry(client.to_owned()).or_insert_with(|| Block { day: day.clone(), left: 0 });
        if block.day != day {
            *block = Block { day: day.clone(), left: 0 };
        }
        if block.left < count {
            let need = count - block.left;
            match self.reserve(client, quota, need, &day).await? {
                Some(more) => block.left += more,
                None => return Ok(false),
            }
        }
        block.left -= count;
        Ok(true)
    }

    async fn reserve(&self, client: &str, quota: u64, need: u64, today: &str) -> Result<Option<u64>, StoreError> {
        for _ in 0..ATTEMPTS {
            let found = self.shelf.get(client).await?;
            let expect = found.as_ref().map_or(Expect::Absent, |(_, version)| Expect::Version(*version));
            let taken = found.filter(|(day, _)| day.day == today).map_or(0, |(day, _)| day.taken);
            let left = quota.saturating_sub(taken);
            if need > left {
                return Ok(None);
            }
            let block = (quota / 50).clamp(1, 100).max(need).min(left);
            let day = Day { day: today.to_owned(), taken: taken + block };
            match self.shelf.put(client, expect, &day).await {
                Ok(_) => return Ok(Some(block)),
                // Another node was faster.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }
}

/// Nodes that take at the same moment take turns.
const ATTEMPTS: usize = 32;
