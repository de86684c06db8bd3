//! Nanoseconds and allocations of what every message goes through. `cargo bench -p sip-proto`.
//!
//! Prints the least of 300 batches: what the code costs when nothing else runs.

#[path = "../tests/support/counting.rs"]
mod counting;
#[path = "../tests/support/samples.rs"]
mod samples;

use std::hint::black_box;
use std::time::Instant;

use sip_proto::build::Response;
use sip_proto::headers::{Contact, NameAddr};
use sip_proto::{HeaderName, Message, validate};

fn main() {
    println!("{:<12} {:>6}  {:<22} {:>8} {:>7}", "message", "bytes", "step", "ns", "allocs");
    for (name, bytes) in samples::SAMPLES {
        let report = |step: &str, mut work: Box<dyn FnMut() + '_>| {
            let (ns, allocs) = measure(&mut work);
            println!("{name:<12} {:>6}  {step:<22} {ns:>8.0} {allocs:>7}", bytes.len());
        };
        report("parse", Box::new(|| drop(black_box(Message::parse(black_box(bytes))))));
        let message = Message::parse(bytes).expect("a sample");
        report("validate", Box::new(|| black_box(validate::request(black_box(&message))).expect("a sample")));
        report("typed", Box::new(|| typed(black_box(&message))));
        let mut out = Vec::with_capacity(8192);
        report(
            "200 with Contact",
            Box::new(move || {
                out.clear();
                Response::to(black_box(&message), 200)
                    .tag(b"a73kszlfl")
                    .source(([192, 0, 2, 9], 5060).into())
                    .write(&mut out, |w| w.text(HeaderName::Contact, b"<sip:bob@192.0.2.4:5060>;expires=600"));
                black_box(&out);
            }),
        );
    }
}

/// The parts that transactions, routing and the registrar read.
fn typed(m: &Message<'_>) {
    black_box(m.top_via().map(|v| (v.branch(), v.rport())));
    black_box(m.cseq());
    for name in [HeaderName::From, HeaderName::To] {
        if let Some(addr) = m.value(name).and_then(NameAddr::parse) {
            black_box((addr.tag(), addr.uri().map(|u| u.host())));
        }
    }
    for contact in m.list(HeaderName::Contact).filter_map(Contact::parse) {
        black_box((contact.expires(), contact.instance(), contact.reg_id()));
    }
}

fn measure(work: &mut dyn FnMut()) -> (f64, u64) {
    const ROUNDS: u32 = 1_000;
    work();
    let allocs = counting::allocations(&mut *work);
    let mut least = f64::MAX;
    for _ in 0..300 {
        #[allow(clippy::disallowed_methods)] // A bench is where a clock belongs.
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        least = least.min(start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
    }
    (least, allocs)
}
