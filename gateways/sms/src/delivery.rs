//! Delivery control (S6): whether a push may go out, by the client's flags and the line's state at that moment.

mod lookup;

use sip_ims::Msisdn;

pub use lookup::{LineBook, LookUp};

use crate::queue::Verdict;
use crate::registry::{Line, PushClient};

/// The state of lines.
pub trait Lines: Send + Sync {
    /// From memory. `None`: [`ask`](Self::ask).
    fn known(&self, msn: Msisdn) -> Option<Line>;

    /// Finds out elsewhere; afterwards it is known, for a while. `done` gets `false` when nobody can tell now.
    fn ask(&self, msn: Msisdn, done: Box<dyn FnOnce(bool) + Send>);
}

/// The verdict of the first state that forbids delivery, in the order of the paper's table.
pub fn judge(client: &PushClient, line: &Line) -> Result<(), Verdict> {
    let states = [
        (line.roaming, client.deliver_while_roaming),
        (line.suspended, client.deliver_while_suspended),
        (line.spam_block, client.deliver_despite_spam_block),
        (line.over_limit, client.deliver_over_limit),
        (line.ps_roaming, client.circuit_switched_when_ps_roaming),
    ];
    match states.iter().position(|(is, allowed)| *is && !allowed) {
        Some(n) => Err(Verdict(FIRST_LINE_STATE.0 + n as u16)),
        None => Ok(()),
    }
}

/// Roaming abroad; the other four follow.
const FIRST_LINE_STATE: Verdict = Verdict(6011);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_forbids_unless_its_flag_allows() {
        let client: PushClient = serde_json::from_str(r#"{"xpid":"12345678901"}"#).unwrap();
        let all = PushClient {
            deliver_while_roaming: true,
            deliver_while_suspended: true,
            deliver_despite_spam_block: true,
            deliver_over_limit: true,
            circuit_switched_when_ps_roaming: true,
            ..client.clone()
        };
        let lines = [
            Line { roaming: true, ..Line::default() },
            Line { suspended: true, ..Line::default() },
            Line { spam_block: true, ..Line::default() },
            Line { over_limit: true, ..Line::default() },
            Line { ps_roaming: true, ..Line::default() },
        ];
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(judge(&client, line), Err(Verdict(6011 + n as u16)));
            assert_eq!(judge(&all, line), Ok(()));
        }
        assert_eq!(judge(&client, &Line::default()), Ok(()));
        assert_eq!(judge(&client, &Line { suspended: true, ..lines[0] }), Err(Verdict(6011)));
    }
}
