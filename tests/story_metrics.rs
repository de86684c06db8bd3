//! What an operator's Prometheus makes of us: Debian's `prometheus` scrapes the admin listener while SIPp works, and its
//! `promtool` reads the exposition and asks the questions.

mod harness;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{DOMAIN, Process, Server, Setup, Sipp, eventually, header, sipp::Outcome};

/// A Prometheus that scrapes the server every second into its own folder.
struct Prometheus {
    port: u16,
    process: Process,
}

impl Prometheus {
    fn start(server: &Server) -> Prometheus {
        let port = server.ports.next();
        let dir = server.path();
        let config = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: isthmus\n    static_configs:\n      - targets: ['127.0.0.1:{}']\n",
            server.admin
        );
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        let mut command = Command::new("prometheus");
        command.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=prometheus").current_dir(dir);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        let process = Process::start("prometheus", dir, &mut command);
        Prometheus { port, process }
    }

    /// The samples of a PromQL expression now, by their labels; empty while there are none.
    fn ask(&self, expression: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let server = format!("http://127.0.0.1:{}", self.port);
        let done = Command::new("promtool").args(["query", "instant", "-o", "json", &server, expression]).output();
        let done = done.expect("promtool is installed");
        // It is starting still.
        if !done.status.success() {
            return Vec::new();
        }
        let answer: serde_json::Value = serde_json::from_slice(&done.stdout).expect("promtool answers JSON");
        let samples = answer.as_array().cloned().unwrap_or_default();
        let sample = |s: &serde_json::Value| {
            let labels = s["metric"].as_object().unwrap().iter();
            let labels = labels.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect();
            (labels, s["value"][1].as_str().unwrap().parse().unwrap())
        };
        samples.iter().map(sample).collect()
    }

    /// The one sample of an expression; NaN while there is none.
    fn value(&self, expression: &str) -> f64 {
        self.ask(expression).first().map_or(f64::NAN, |(_, v)| *v)
    }

    /// Waits until the expression has this value.
    fn expect(&self, expression: &str, value: f64) {
        let mut last = f64::NAN;
        let reached = || {
            last = self.value(expression);
            last == value
        };
        let what = format!("{expression} is {value}\n{}", self.process.output());
        eventually(&what, Duration::from_secs(60), reached);
    }
}

/// Messages by (direction, transport, method, status or nothing), as the metric is labelled.
type Counts = BTreeMap<[String; 4], u64>;

/// Adds what SIPp sent to the server and received from it; whether anything was sent again.
fn count(counts: &mut Counts, outcome: &Outcome, transport: &str) -> bool {
    for (direction, messages) in [("in", outcome.sent()), ("out", outcome.arrivals())] {
        for message in messages {
            let status = message.strip_prefix("SIP/2.0 ").map_or("", |rest| &rest[..3]);
            let cseq = message.lines().find_map(|line| line.strip_prefix("CSeq:")).unwrap();
            let method = cseq.split_whitespace().nth(1).unwrap();
            *counts.entry([direction, transport, method, status].map(str::to_owned)).or_default() += 1;
        }
    }
    outcome.counts.retransmissions > 0 || outcome.arrivals().len() > outcome.received().len()
}

fn messages(prometheus: &Prometheus) -> Counts {
    let samples = prometheus.ask("isthmus_sip_messages_total");
    let entry = |(labels, value): &(BTreeMap<String, String>, f64)| {
        let of = |label: &str| labels.get(label).cloned().unwrap_or_default();
        (["direction", "transport", "method", "status"].map(of), *value as u64)
    };
    samples.iter().map(entry).collect()
}

#[test]
fn prometheus_counts_what_sipp_did() {
    let server = Setup::with_users(&["alice", "bob", "carol", "dave"]).start();
    let prometheus = Prometheus::start(&server);
    prometheus.expect("up{job=\"isthmus\"}", 1.0);
    let (mut expected, mut again) = (Counts::new(), false);
    let mut done = |outcome: Outcome, transport| again |= count(&mut expected, &outcome, transport);
    let phone = server.ports.next();
    let register = |contact: String| {
        let sipp = Sipp::new(&server, "register", server.ports.next()).set("CONTACT", contact);
        sipp.set("PARAMS", "").set("EXPIRES", 600)
    };

    let answering = Sipp::new(&server, "answer", phone).start();
    let contact = format!("127.0.0.1:{phone}");
    done(register(contact.clone()).users(&["alice", "bob"]).succeed(), "udp");
    done(register(contact).tcp().users(&["carol"]).succeed(), "tcp");
    let call = |scenario| Sipp::new(&server, scenario, server.ports.next()).users(&["alice"]);
    done(call("call").set("URI", format!("sip:bob@{DOMAIN}")).succeed(), "udp");
    done(answering.succeed(1), "udp");
    let nobody = call("call_final").set("URI", format!("sip:nobody@{DOMAIN}")).set("CODE", 404);
    done(nobody.succeed(), "udp");
    let kept = call("message").set("URI", format!("sip:dave@{DOMAIN}")).set("TEXT", "kept").set("CODE", 202);
    done(kept.calls(2).rate(5).succeed(), "udp");

    let mut seen = Counts::new();
    eventually("all of it is scraped", Duration::from_secs(60), || {
        seen = messages(&prometheus);
        expected.iter().all(|(kind, count)| seen.get(kind) >= Some(count))
    });
    // Of what is sent again over UDP, on a slow machine, the last may come when its SIPp has ended.
    if again {
        seen.iter_mut().filter(|(kind, _)| kind[1] == "udp").for_each(|(kind, count)| {
            *count = expected.get(kind).copied().unwrap_or(*count);
        });
    }
    assert_eq!(seen, expected);

    // Carol's went with her connection.
    prometheus.expect("isthmus_bindings", 2.0);
    prometheus.expect("isthmus_registered_users", 2.0);
    prometheus.expect("isthmus_messages_waiting_users", 1.0);
    prometheus.expect("isthmus_kept_messages_total{fate=\"kept\"}", 2.0);
    prometheus.expect("sum(isthmus_queue_depth)", 0.0);
    prometheus.expect("isthmus_store_commit_seconds_count{store=\"bindings\"}", 3.0);
    prometheus.expect("isthmus_store_commit_seconds_count{store=\"messages\"}", 2.0);
    prometheus.expect("sum(isthmus_cdr_total{fate=\"written\"})", 4.0);
    for histogram in ["isthmus_sip_handling_seconds", "isthmus_store_commit_seconds"] {
        let median = prometheus.value(&format!("histogram_quantile(0.5, sum by (le) ({histogram}_bucket))"));
        assert!(median > 0.0 && median <= 30.0, "{histogram}: {median}");
    }
    // Over UDP a finished transaction stays to absorb repetitions, and goes in the end (RFC 3261 §17: timers D, I and J).
    assert!(prometheus.value("max_over_time(isthmus_sip_transactions[2m])") > 0.0);
    prometheus.expect("isthmus_sip_transactions", 0.0);
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    // With everything on that has metrics.
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sections = "[telemetry.hep]\naddress = \"127.0.0.1:9\"\n".into();
    let server = setup.start();
    let phone = format!("127.0.0.1:{}", server.ports.next());
    let register = Sipp::new(&server, "register", server.ports.next()).set("CONTACT", phone).set("PARAMS", "");
    let outcome = register.set("EXPIRES", 600).users(&["bob"]).succeed();
    assert!(header(outcome.received()[1], "Contact").is_some());
    let (status, text) = server.admin("/metrics");
    assert_eq!(status, 200);
    assert_eq!(check_metrics(&text), (true, String::new()), "{text}");
    // The check itself can fail.
    assert!(!check_metrics("# TYPE a_total gauge\na_total 1\n").1.is_empty());
    server.stop();
}

fn check_metrics(text: &str) -> (bool, String) {
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = promtool.stderr(Stdio::piped()).current_dir(Path::new("/")).spawn().expect("promtool is installed");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}
