//! When a segment that could not be handed over is tried again.

/// Why an attempt failed for now: decides the pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// The centre has troubles of its own.
    Busy,
    /// The handset is not there, or has no room.
    Absent,
    /// Nobody could say how the line stands.
    NoAnswer,
}

impl Pause {
    /// Milliseconds until the next attempt, after so many that failed.
    pub fn after(self, attempts: u16) -> i64 {
        let seconds: &[i64] = match self {
            Pause::Busy => &[10, 30, 60, 300, 900, 3_600],
            Pause::Absent => &[60, 300, 900, 1_800, 3_600, 10_800],
            Pause::NoAnswer => &[10, 30, 60, 300],
        };
        // Never empty.
        1_000 * seconds[usize::from(attempts).min(seconds.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_then_stay() {
        let of = |pause: Pause| [0, 1, 5, 999].map(|n| pause.after(n) / 1_000);
        assert_eq!(of(Pause::Busy), [10, 30, 3_600, 3_600]);
        assert_eq!(of(Pause::Absent), [60, 300, 10_800, 10_800]);
        assert_eq!(of(Pause::NoAnswer), [10, 30, 300, 300]);
    }
}
