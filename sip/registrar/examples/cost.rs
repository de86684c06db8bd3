//! What a refresh costs and what a binding weighs: `cargo run --release -p sip-registrar --example cost [bindings]`.
//!
//! Without sockets and without parsing the message, with a store that takes everything and writes nothing. The weight is
//! the growth of the resident set, so it has the allocator's waste in it; the allocator is the server's.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip_ims::ports::{BindingChange, BindingRow, BindingStore, Done, StoreError};
use sip_ims::service::{Caller, Location, Request, Service, Step};
use sip_ims::{Directory, Home};
use sip_proto::endpoint::{Endpoint, EndpointConfig};
use sip_proto::transaction::Timing;
use sip_proto::{Flow, FlowId, Message, Outbox, Transport, Uri};
use sip_registrar::{Acknowledge, Parts, Registrar, RegistrarConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Nowhere;

impl BindingStore for Nowhere {
    fn write(&self, change: BindingChange<'_>, _: Option<Done<()>>) -> Result<(), StoreError> {
        black_box(&change);
        Ok(())
    }

    fn load(&self, _: Box<dyn FnMut(BindingRow<'_>) + Send>, done: Done<u64>) {
        done(Ok(0));
    }

    fn queued(&self) -> usize {
        0
    }
}

/// The REGISTER of the load tests: one contact with instance, and a Path.
fn request(user: usize, cseq: u32, supported: &str) -> Vec<u8> {
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5066;branch=z9hG4bK-{user}-{cseq}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:user{user:06}@example.com>;tag={user}\r\nTo: <sip:user{user:06}@example.com>\r\n\
         Call-ID: {user}-25312@127.0.0.1\r\nCSeq: {cseq} REGISTER\r\n\
         Contact: <sip:user{user:06}@127.0.0.1:5066;transport=udp>;+sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-{user:012}>\"\r\n\
         Path: <sip:pcscf.example.com:5060;lr>\r\nSupported: {supported}\r\nExpires: 3600\r\nUser-Agent: load/1.0\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|s| s.split(' ').nth(1)?.parse().ok());
    pages.unwrap_or(0usize) * 4096
}

fn main() {
    let bindings = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let home = Arc::new(Home::new("example.com", [(Transport::Udp, "127.0.0.1:5060".parse().expect("an address"))]));
    let config = RegistrarConfig { store: Acknowledge::Behind, ..RegistrarConfig::default() };
    let parts = Parts {
        home,
        directory: Arc::new(Directory::new()),
        store: Arc::new(Nowhere),
        authenticator: None,
        on_changed: Arc::new(|_, _| {}),
        on_registered: Arc::new(|aor, _, arrival| {
            black_box((aor, arrival));
        }),
        penalise: Arc::new(|_, _| {}),
        filters: Arc::default(),
    };
    let registrar = Registrar::new(config, parts);
    let flow = Flow {
        transport: Transport::Udp,
        id: FlowId(1),
        local: "127.0.0.1:5060".parse().expect("an address"),
        remote: "127.0.0.1:5066".parse().expect("an address"),
    };
    let now = Instant::now();
    let endpoint = EndpointConfig { timing: Timing::default(), shard: 0, max_transactions: 10, secret: [1; 16] };
    let mut endpoint = Endpoint::new(endpoint, now);
    let mut out = Outbox::new();
    // Seconds pass, so that a refresh is one.
    let mut register = |bytes: &[u8], unix: u64| -> Duration {
        let message = Message::parse(bytes).expect("a message");
        let uri = Uri::parse(message.request_uri()).expect("a URI");
        let request =
            Request { message: &message, flow: &flow, uri, caller: Caller::Foreign, callee: None, profile: None };
        out.clear();
        let begin = Instant::now();
        let mut step = Step { now, unix, shard: 0, endpoint: &mut endpoint, out: &mut out, loaded: false };
        registrar.request(&mut step, &request);
        begin.elapsed()
    };
    // Warm, so that the buffers are there.
    register(&request(0, 1, "path"), 1_800_000_000);
    let before = resident();
    let fresh: Duration = (1..=bindings).map(|i| register(&request(i, 1, "path"), 1_800_000_000)).sum();
    let weight = resident().saturating_sub(before);
    println!("bindings            {:>10}", registrar.bindings());
    println!("bytes a binding     {:>10}", weight / bindings.max(1));
    println!("ns a new binding    {:>10}", fresh.as_nanos() as usize / bindings.max(1));
    for (what, supported, rounds) in [("ns a refresh", "path", 2..7), ("  with GRUUs", "path, gruu", 7..12)] {
        let round = |n: u32| -> u128 {
            let spent: Duration =
                (1..=bindings).map(|i| register(&request(i, n, supported), 1_800_000_000 + u64::from(n))).sum();
            spent.as_nanos() / bindings.max(1) as u128
        };
        println!("{what:<20}{:>10}", rounds.map(round).min().unwrap_or(0));
    }
    let begin = Instant::now();
    let mut seen = 0usize;
    for i in 1..=bindings {
        registrar.each(&format!("user{i:06}@example.com"), 1_800_000_100, &mut |r| seen += r.uri.len());
    }
    println!("ns a look-up        {:>10}", begin.elapsed().as_nanos() as usize / bindings.max(1));
    black_box(seen);
}
