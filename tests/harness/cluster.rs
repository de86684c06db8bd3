//! Two nodes on one PostgreSQL and one NATS. For stories that have [`crate::nats`] and [`crate::postgres`] beside it.

use crate::harness::{Server, Setup};
use crate::{nats, postgres};

/// Two nodes, `a` and `b`; what they stand on ends after them.
pub struct Cluster {
    pub a: Server,
    pub b: Server,
    pub nats: nats::Nats,
    pub _postgres: postgres::Postgres,
}

impl Cluster {
    /// Each set up so.
    pub fn start(setup: impl Fn() -> Setup) -> Cluster {
        let (postgres, nats) = (postgres::Postgres::start(), nats::Nats::start());
        let node = |name: &str| {
            let mut setup = setup();
            setup.sections += &format!(
                "[store]\nengine = \"postgres\"\nurl = \"{}\"\n[bus]\nengine = \"nats\"\nurl = \"{}\"\n[node]\nname = \"{name}\"\n",
                postgres.url(),
                nats.url()
            );
            setup.start()
        };
        Cluster { a: node("a"), b: node("b"), nats, _postgres: postgres }
    }
}
