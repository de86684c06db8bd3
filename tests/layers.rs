//! The floors of the house: no crate depends on one above it, nor on a neighbour without an arrow (docs/architecture.md), and
//! the crates of the lower floors stay free of sockets, clocks and tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every crate of the workspace and its floor. A new crate is entered here, deliberately.
const FLOORS: &[(&str, u8)] = &[
    ("isthmus", 6),
    ("gw-xmpp", 5),
    ("gw-clicktocall", 5),
    ("gw-sms", 5),
    ("gw-mail", 5),
    ("gw-sync", 5),
    ("gw-dm", 5),
    ("gw-eas", 5),
    ("web-portal", 5),
    ("web-admin", 5),
    ("sip-registrar", 4),
    ("sip-presence", 4),
    ("sip-messaging", 4),
    ("sip-call", 4),
    ("sip-net", 3),
    ("media-rtp", 3),
    ("media-webrtc", 3),
    ("media-msrp", 3),
    ("media-content", 3),
    ("gw-smpp", 3),
    ("gw-pim", 3),
    ("sip-ims", 2),
    ("sip-proto", 1),
    ("sip-xml", 1),
    ("sip-cpim", 1),
    ("sip-xcap", 1),
    ("media-sdp", 1),
    ("media-transcode", 1),
    ("gw-wbxml", 1),
    ("gw-syncml", 1),
    ("gw-wap", 1),
];

/// Arrows between rooms of one floor.
const SAME_FLOOR: &[(&str, &str)] = &[
    ("media-webrtc", "media-rtp"),
    ("gw-syncml", "gw-wbxml"),
    ("gw-wap", "gw-wbxml"),
    ("sip-cpim", "sip-xml"),
    ("sip-xcap", "sip-xml"),
];

/// What a crate of floors 1 and 2 may not reach, not even through another crate: a runtime, sockets, or a second clock.
const IMPURE: &[&str] = &["tokio", "async-std", "smol", "mio", "socket2", "reqwest", "hyper", "sqlx"];

/// Calls that the clippy.toml of a pure crate must ban.
const BANNED: &[&str] = &["std::time::Instant::now", "std::time::SystemTime::now", "std::thread::spawn"];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("cargo prints JSON")
}

struct Member {
    name: String,
    manifest: PathBuf,
    /// Names of workspace crates it depends on, those of its tests left out.
    uses: BTreeSet<String>,
}

fn members(metadata: &Value) -> Vec<Member> {
    let ids: BTreeSet<&str> = strings(&metadata["workspace_members"]).collect();
    let packages = metadata["packages"].as_array().expect("packages");
    let own = packages.iter().filter(|p| p["id"].as_str().is_some_and(|id| ids.contains(id)));
    let names: BTreeSet<&str> = own.clone().filter_map(|p| p["name"].as_str()).collect();
    own.map(|p| Member {
        name: text(&p["name"]),
        manifest: PathBuf::from(text(&p["manifest_path"])),
        uses: p["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|d| d["kind"] != "dev")
            .filter_map(|d| d["name"].as_str())
            .filter(|d| names.contains(d))
            .map(str::to_owned)
            .collect(),
    })
    .collect()
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f)
}

fn allowed(from: &str, to: &str) -> bool {
    match (floor(from), floor(to)) {
        (Some(a), Some(b)) => a > b || SAME_FLOOR.contains(&(from, to)),
        _ => false,
    }
}

#[test]
fn every_crate_has_a_floor() {
    let members = members(&metadata());
    let homeless: Vec<&str> = members.iter().map(|m| m.name.as_str()).filter(|n| floor(n).is_none()).collect();
    assert!(homeless.is_empty(), "enter in FLOORS: {homeless:?}");
}

#[test]
fn arrows_point_downward() {
    let members = members(&metadata());
    let forbidden: Vec<String> = members
        .iter()
        .flat_map(|m| m.uses.iter().filter(|to| !allowed(&m.name, to)).map(move |to| format!("{} -> {to}", m.name)))
        .collect();
    assert!(forbidden.is_empty(), "arrows that the house does not have: {forbidden:?}");
}

#[test]
fn upward_and_sideways_arrows_are_seen() {
    assert!(allowed("sip-net", "sip-proto"));
    assert!(allowed("media-webrtc", "media-rtp"));
    assert!(!allowed("media-rtp", "media-webrtc"));
    assert!(!allowed("sip-proto", "sip-net"));
    assert!(!allowed("sip-call", "sip-registrar"));
    assert!(!allowed("sip-call", "nobody"));
}

#[test]
fn packages_are_named_after_their_path() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for member in members(&metadata()) {
        let folder =
            member.manifest.parent().and_then(|p| p.strip_prefix(root).ok().map(Path::to_path_buf)).expect("inside");
        let path = folder.to_string_lossy().replace('/', "-");
        let expected = if path.is_empty() { "isthmus".to_owned() } else { path.replacen("gateways-", "gw-", 1) };
        assert_eq!(member.name, expected);
    }
}

#[test]
fn lower_floors_reach_no_runtime() {
    let metadata = metadata();
    let nodes = metadata["resolve"]["nodes"].as_array().expect("resolved graph");
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .filter_map(|p| Some((p["id"].as_str()?, p["name"].as_str()?)))
        .collect();
    let edges: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .filter_map(|n| {
            let deps = n["deps"].as_array()?.iter();
            // A dependency of the tests alone does not count.
            let real =
                deps.filter(|d| d["dep_kinds"].as_array().is_some_and(|k| k.iter().any(|k| k["kind"].is_null())));
            Some((n["id"].as_str()?, real.filter_map(|d| d["pkg"].as_str()).collect()))
        })
        .collect();
    let own: BTreeSet<&str> = strings(&metadata["workspace_members"]).collect();
    for start in own.iter().filter(|id| name_of.get(**id).and_then(|n| floor(n)).is_some_and(|f| f <= 2)) {
        let (mut seen, mut open) = (BTreeSet::new(), vec![*start]);
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                assert!(!IMPURE.contains(&name_of[id]), "{} reaches {}", name_of[start], name_of[id]);
                open.extend(edges.get(id).into_iter().flatten());
            }
        }
    }
}

#[test]
fn lower_floors_ban_clocks_and_threads() {
    for member in members(&metadata()).iter().filter(|m| floor(&m.name).is_some_and(|f| f <= 2)) {
        let path = member.manifest.with_file_name("clippy.toml");
        let rules = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for banned in BANNED {
            assert!(rules.contains(banned), "{} does not ban {banned}", path.display());
        }
    }
}
