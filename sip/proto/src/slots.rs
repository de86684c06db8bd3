//! A store of values under short keys that are never mistaken for one another: an index and the secret of its tenant.

/// Values in numbered places. A place is reused, its stamp never.
#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    stamp: u64,
    value: Option<T>,
}

/// Names one value for its whole life: a look-up after its end finds nothing, even when the place is taken again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    pub index: u32,
    pub stamp: u64,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `stamp` must not repeat for the same place.
    pub fn insert(&mut self, stamp: u64, value: T) -> Slot {
        let index = match self.free.pop() {
            Some(i) => {
                self.places[i as usize] = Place { stamp, value: Some(value) };
                i
            }
            None => {
                self.places.push(Place { stamp, value: Some(value) });
                (self.places.len() - 1) as u32
            }
        };
        Slot { index, stamp }
    }

    /// The index that the next insertion takes.
    pub fn next_index(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.places.len() as u32)
    }

    pub fn get(&self, slot: Slot) -> Option<&T> {
        self.places.get(slot.index as usize).filter(|p| p.stamp == slot.stamp)?.value.as_ref()
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.places.get_mut(slot.index as usize).filter(|p| p.stamp == slot.stamp)?.value.as_mut()
    }

    /// The key of whatever stands in a place now.
    pub fn slot_at(&self, index: u32) -> Slot {
        Slot { index, stamp: self.places.get(index as usize).map_or(0, |p| p.stamp) }
    }

    /// Whatever stands in a place now.
    pub fn at(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.value.as_ref()
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|p| p.value.as_ref())
    }

    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        let place = self.places.get_mut(slot.index as usize).filter(|p| p.stamp == slot.stamp)?;
        let value = place.value.take()?;
        self.free.push(slot.index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_former_tenant_finds_nothing() {
        let mut s = Slots::default();
        let a = s.insert(1, "a");
        assert_eq!(s.remove(a), Some("a"));
        let b = s.insert(2, "b");
        assert_eq!(a.index, b.index);
        assert_eq!((s.get(a), s.get(b)), (None, Some(&"b")));
        assert_eq!(s.remove(a), None);
        assert_eq!(s.len(), 1);
    }
}
