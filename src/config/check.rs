//! What a type cannot say: ranges, keys that need each other, doors that collide.

use std::collections::HashMap;
use std::net::SocketAddr;

use media_content::icap::Address;

use super::{BusEngine, Config, Problem, Size, StoreEngine, TrustedPeer};

impl Config {
    /// Everything that is wrong, in the order of the sections; empty when the server can start with it.
    pub fn check(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut say = |key: &str, text: String| found.push(Problem::new(key, text));

        if !is_host_name(&self.domain) {
            say("domain", format!("\"{}\" is not a host name", self.domain));
        }
        if self.data_dir.as_os_str().is_empty() {
            say("data_dir", "must name a folder".to_owned());
        }

        let sip = &self.sip;
        if sip.udp.is_empty() && sip.tcp.is_empty() && sip.tls.is_empty() {
            say("sip", "no udp, tcp or tls address: no phone could ever register".to_owned());
        }
        let mut within = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                say(key, format!("{value} is not between {low} and {high}"));
            }
        };
        within("sip.udp", sip.udp.len() as u64, 0, 64);
        within("sip.tcp", sip.tcp.len() as u64, 0, 64);
        within("sip.tls", sip.tls.len() as u64, 0, 64);
        within("sip.digest", sip.digest.len() as u64, 1, 2);
        within("sip.trusted", sip.trusted.len() as u64, 0, 256);
        within("sip.workers", sip.workers as u64, 0, 256);
        within("sip.max_datagram", sip.max_datagram.0, 1 << 10, Size::kib(64).0);
        within("sip.max_stream", sip.max_stream.0, 4 << 10, Size::mib(4).0);
        within("sip.max_transactions", sip.max_transactions as u64, 1_000, 100_000_000);
        within("sip.max_connections", sip.max_connections as u64, 16, 10_000_000);
        within("sip.max_connections_per_source", sip.max_connections_per_source as u64, 1, 10_000_000);
        within("sip.flood.burst", u64::from(sip.flood.burst), 1, 1_000_000_000);
        within("sip.flood.rate", u64::from(sip.flood.rate), 1, 1_000_000_000);

        within("tls.additional", self.tls.additional.len() as u64, 0, 64);

        let reg = &self.registrar;
        within("registrar.min_expires", u64::from(reg.min_expires), 1, 86_400);
        within("registrar.max_expires", u64::from(reg.max_expires), u64::from(reg.min_expires), 31_536_000);
        within(
            "registrar.default_expires",
            u64::from(reg.default_expires),
            u64::from(reg.min_expires),
            u64::from(reg.max_expires.max(reg.min_expires)),
        );
        within("registrar.flow_timer", u64::from(reg.flow_timer), 0, 86_400);
        within("registrar.max_contacts", reg.max_contacts as u64, 1, 256);
        within("messaging.expiry", self.messaging.expiry, 60, 31_536_000);
        within("messaging.per_user", self.messaging.per_user as u64, 1, 100_000);
        within("history.max_days", u64::from(self.history.max_days), 0, 36_500);
        within("history.max_messages", u64::from(self.history.max_messages), 100, 1_000_000);
        within("history.rate", u64::from(self.history.rate), 1, 10_000);
        let presence = &self.presence;
        within("presence.min_expires", u64::from(presence.min_expires), 1, 3_600);
        let (min, max) = (u64::from(presence.min_expires), u64::from(presence.max_expires));
        within("presence.max_expires", max, min, 31_536_000);
        within("presence.default_expires", u64::from(presence.default_expires), min, max.max(min));
        within("presence.max_document", presence.max_document.0, 1 << 10, Size::kib(64).0);
        within("presence.publications_per_user", presence.publications_per_user as u64, 1, 1_000);
        within("presence.publications", presence.publications as u64, 1, 1_000_000_000);
        within("presence.subscriptions_per_user", presence.subscriptions_per_user as u64, 1, 1_000_000);
        within("presence.subscriptions_per_watcher", presence.subscriptions_per_watcher as u64, 1, 1_000_000);
        within("presence.lists_per_user", presence.lists_per_user as u64, 1, 10_000);
        within("presence.lists", presence.lists as u64, 1, 1_000_000_000);
        within("presence.subscriptions", presence.subscriptions as u64, 1, 1_000_000_000);
        within("presence.notify_interval", u64::from(presence.notify_interval), 0, 3_600);
        let xcap = &self.xcap;
        within("xcap.admins", xcap.admins.len() as u64, 0, 64);
        within("xcap.trusted", xcap.trusted.len() as u64, 0, 64);
        within("xcap.max_document", xcap.max_document.0, 1 << 10, Size::kib(512).0);
        within("xcap.documents_per_user", xcap.documents_per_user as u64, 1, 1_000);
        within("xcap.documents", xcap.documents, 1, 1_000_000_000);
        within("xcap.rate", u64::from(xcap.rate), 1, 10_000);
        within("xcap.total_rate", u64::from(xcap.total_rate), 1, 1_000_000);
        let sms = &self.sms_over_ip;
        within("sms_over_ip.zone", u64::from(sms.zone.unsigned_abs()), 0, if sms.zone < 0 { 48 } else { 56 });
        within("telemetry.hep.queue", self.telemetry.hep.queue as u64, 16, 1 << 20);
        within("telemetry.trace.events", self.telemetry.trace.events as u64, 1_024, 1 << 24);
        within("telemetry.trace.disk", self.telemetry.trace.disk.0, 0, 1 << 40);
        let content = &self.content;
        within("content.max_file", content.max_file.0, 1, 1 << 40);
        within("content.refused_types", content.refused_types.len() as u64, 0, 1_000);
        within("content.keep_days", u64::from(content.keep_days), 1, 3_650);
        within("content.daily_quota", content.daily_quota.0, 1, 1 << 50);
        within("content.max_uploads", content.max_uploads as u64, 1, 10_000);
        for (name, control) in [("messages", &content.messages), ("sessions", &content.sessions)] {
            let types = control.refused_types.as_ref().map_or(0, Vec::len);
            within(&format!("content.{name}.refused_types"), types as u64, 0, 1_000);
            within(&format!("content.{name}.max_size"), control.max_size.0, 0, 1 << 40);
        }
        within("content.rate", u64::from(content.rate), 1, 10_000);
        for (i, link) in self.smpp.link.iter().enumerate() {
            within(&format!("smpp.link[{i}].window"), u64::from(link.window), 1, 1_000);
            within(&format!("smpp.link[{i}].system_id"), link.system_id.len() as u64, 1, 15);
            within(&format!("smpp.link[{i}].password"), link.password.len() as u64, 0, 8);
            within(&format!("smpp.link[{i}].name"), link.name.len() as u64, 1, 32);
            within(&format!("smpp.link[{i}].system_type"), link.system_type.len() as u64, 0, 12);
            within(&format!("smpp.link[{i}].address_range"), link.address_range.len() as u64, 0, 40);
        }
        let links = self.smpp.link.iter().enumerate().map(|(i, link)| (format!("smpp.link[{i}]"), &link.timers));
        for (of, timers) in links.chain([("smpp".to_owned(), &self.smpp.timers)]) {
            within(&format!("{of}.timers.init"), timers.init.into(), 0, 600);
            within(&format!("{of}.timers.enquire"), timers.enquire.into(), 0, 3_600);
            within(&format!("{of}.timers.response"), timers.response.into(), 1, 600);
            within(&format!("{of}.timers.connect"), timers.connect.into(), 1, 600);
            let [first, longest] = timers.reconnect.map(u64::from);
            within(&format!("{of}.timers.reconnect"), first, 1, longest);
            within(&format!("{of}.timers.reconnect"), longest, 1, 3_600_000);
        }
        for (i, esme) in self.smpp.esme.iter().enumerate() {
            within(&format!("smpp.esme[{i}].system_id"), esme.system_id.len() as u64, 1, 15);
            within(&format!("smpp.esme[{i}].password"), esme.password.len() as u64, 0, 8);
            within(&format!("smpp.esme[{i}].outbind_password"), esme.outbind_password.len() as u64, 0, 8);
            within(&format!("smpp.esme[{i}].window"), esme.window.into(), 1, 10_000);
            within(&format!("smpp.esme[{i}].deliver_window"), esme.deliver_window.into(), 1, 1_000);
            within(&format!("smpp.esme[{i}].sessions"), esme.sessions.into(), 1, 1_000);
        }
        within("portal.session_idle", self.portal.session_idle, 1, 31_536_000);
        within("portal.session_lifetime", self.portal.session_lifetime, 1, 31_536_000);
        within("portal.sessions_per_user", self.portal.sessions_per_user as u64, 1, 256);
        within("oauth2.token_lifetime", u64::from(self.oauth2.token_lifetime), 60, 86_400);
        within("sms.validity", u64::from(self.sms.validity), 1, 43_200);
        within("sms.keep", u64::from(self.sms.keep), 1, 366);
        within("sms.hlr_cache", u64::from(self.sms.hlr_cache), 0, 86_400);
        within("sms.hlr_timeout", u64::from(self.sms.hlr_timeout), 1, 60);

        for (i, link) in self.smpp.link.iter().enumerate() {
            if !link.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                say(&format!("smpp.link[{i}].name"), "must be letters, digits, - and _".to_owned());
            }
            if self.smpp.link[..i].iter().any(|other| other.name == link.name) {
                say(&format!("smpp.link[{i}].name"), format!("\"{}\" is taken by another link", link.name));
            }
            if !link.source.is_empty() && !gw_sms::push::message::is_source(&link.source) {
                say(&format!("smpp.link[{i}].source"), "is not a number, short code or name".to_owned());
            }
            if !link.prefixes.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit())) {
                say(&format!("smpp.link[{i}].prefixes"), "must be digits without +".to_owned());
            }
            let pin = &link.tls_fingerprint;
            if !pin.is_empty() && (pin.len() != 64 || !pin.bytes().all(|b| b.is_ascii_hexdigit())) {
                say(&format!("smpp.link[{i}].tls_fingerprint"), "must be 64 hexadecimal digits".to_owned());
            }
            let named = rustls::pki_types::ServerName::try_from(link.tls_name.as_str());
            if !link.tls_name.is_empty() && named.is_err() {
                say(&format!("smpp.link[{i}].tls_name"), "is neither a host name nor an address".to_owned());
            }
            let said = !link.tls_name.is_empty() || !pin.is_empty() || !link.tls_authorities.as_os_str().is_empty();
            if said && !link.tls {
                say(&format!("smpp.link[{i}].tls"), "is off, and other keys are about it".to_owned());
            }
        }
        for (i, esme) in self.smpp.esme.iter().enumerate() {
            if self.smpp.esme[..i].iter().any(|other| other.system_id == esme.system_id) {
                say(&format!("smpp.esme[{i}].system_id"), "is taken by another one".to_owned());
            }
        }
        let hlr = &self.sms.hlr;
        if !hlr.is_empty() && !(hlr.contains("{msisdn}") && (hlr.starts_with("http://") || hlr.starts_with("https://")))
        {
            say("sms.hlr", "must be an http:// or https:// URL with {msisdn} in it".to_owned());
        }
        if let Err(error) = gw_sms::billing::Calendar::parse(&self.billing.time_zone) {
            say("billing.time_zone", format!("\"{}\" {error}", self.billing.time_zone));
        }

        for family in [std::net::IpAddr::is_ipv4, std::net::IpAddr::is_ipv6] {
            let twice = sip.advertised.iter().filter(|ip| family(ip)).count() > 1;
            if twice || sip.advertised.iter().any(|ip| family(ip) && ip.is_unspecified()) {
                say("sip.advertised", "must be one address of a family that peers can reach".to_owned());
            }
        }
        if !gw_sms::tpdu::Address::number(&sms.centre).is_ok_and(|a| a.spelt().starts_with('+')) {
            say("sms_over_ip.centre", format!("{} is no international number", sms.centre));
        }
        if sip_ims::Aor::from_parts(sms.user.as_bytes(), self.domain.as_bytes()).is_err() {
            say("sms_over_ip.user", format!("{} is no user part of a SIP URI", sms.user));
        }

        let tls = &self.tls;
        let by_certificate = sip.trusted.iter().position(|t| matches!(t, TrustedPeer::Certificate(_)));
        if let Some(i) = by_certificate.filter(|_| tls.client_authorities.as_os_str().is_empty()) {
            say(
                &format!("sip.trusted[{i}]"),
                "needs tls.client_authorities: nobody else vouches for a name".to_owned(),
            );
        }
        match (tls.certificate.as_os_str().is_empty(), tls.key.as_os_str().is_empty()) {
            (true, false) => say("tls.certificate", "must be set when tls.key is".to_owned()),
            (false, true) => say("tls.key", "must be set when tls.certificate is".to_owned()),
            _ => {}
        }
        if let Err((key, why)) = self.smpp.numbers() {
            say(&key, why);
        }
        for (key, url) in [
            ("http.public_url", self.http.public_url.as_str()),
            ("xcap.root", self.xcap.root.as_str()),
            ("content.s3.endpoint", self.content.s3.as_ref().map_or("", |s3| s3.endpoint.as_str())),
        ] {
            if !url.is_empty() && !url.starts_with("https://") && !url.starts_with("http://") {
                say(key, format!("\"{url}\" does not start with https:// or http://"));
            }
        }
        let icap = &self.content.icap;
        if !icap.is_empty()
            && let Err(why) = Address::parse(icap)
        {
            say("content.icap", format!("\"{icap}\" is {why}"));
        }
        let token = &self.admin.token;
        if !token.is_empty() && (token.len() < 16 || !token.bytes().all(|b| b.is_ascii_graphic())) {
            say("admin.token", "must be at least 16 printable characters without blanks".to_owned());
        }
        for domain in self.xmpp.iter().flat_map(|xmpp| xmpp.route.keys()).filter(|d| !is_host_name(d)) {
            say(&format!("xmpp.route.{domain:?}"), "is not a host name".to_owned());
        }
        if self.xmpp.as_ref().is_some_and(|xmpp| xmpp.s2s.0.is_none()) {
            say("xmpp.s2s", "must be an address: other domains ask back there whether it is us".to_owned());
        }
        if self.xmpp.is_some() && !self.sms_over_ip.enabled {
            say("xmpp", "needs sms_over_ip.enabled = true: what it carries are short messages".to_owned());
        }
        match self.store.engine {
            StoreEngine::Sqlite if !self.store.url.is_empty() => {
                say("store.url", "must be empty for sqlite; its files lie in data_dir".to_owned());
            }
            StoreEngine::Postgres
                if !self.store.url.starts_with("postgres://") && !self.store.url.starts_with("postgresql://") =>
            {
                say("store.url", "must be a postgres:// URL".to_owned());
            }
            _ => {}
        }
        match self.bus.engine {
            BusEngine::Local if !self.bus.url.is_empty() => {
                say("bus.url", "must be empty for the local bus".to_owned());
            }
            BusEngine::Nats if !self.bus.url.starts_with("nats://") && !self.bus.url.starts_with("tls://") => {
                say("bus.url", "must be a nats:// or tls:// URL".to_owned());
            }
            _ => {}
        }
        if self.node.name.len() > 64 || !self.node.name.bytes().all(|b| b.is_ascii_graphic()) {
            say("node.name", "must be at most 64 printable characters without blanks".to_owned());
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.level) {
            say("log.level", format!("\"{}\": {error}", self.log.level));
        }
        if self.cdr.enabled && !self.cdr.file.to_string_lossy().contains("{date}") {
            say("cdr.file", "must hold {date}: a new file begins each day".to_owned());
        }
        if self.msrp.max_message.0 == 0 || self.msrp.max_message.0 > media_msrp::range::MAX_POSITION {
            say("msrp.max_message", "must be 1 byte to 8 PiB".to_owned());
        }
        if self.media.max_relayed > 1_000_000 {
            say("media.max_relayed", "must be 0 to 1,000,000".to_owned());
        }
        if !(10..=86_400).contains(&self.media.silence) {
            say("media.silence", "must be 10 to 86,400 seconds".to_owned());
        }
        if !(1..=10_000_000).contains(&self.msrp.max_sessions) {
            say("msrp.max_sessions", "must be 1 to 10,000,000".to_owned());
        }
        if !self.presence.list_server.bytes().all(fit_for_address) {
            let what = "must be letters, digits, '-', '_' or '.', or empty";
            found.push(Problem::new("presence.list_server", what.to_owned()));
        }
        found.extend(self.conference());
        found.extend(self.collisions());
        found
    }

    fn conference(&self) -> Vec<Problem> {
        let c = &self.conference;
        let mut found = Vec::new();
        let mut say = |key: &str, what: &str| found.push(Problem::new(key, what.to_owned()));
        if c.factory.is_empty() || !c.factory.bytes().all(fit_for_address) || c.factory.starts_with("chat-") {
            say("conference.factory", "must be letters, digits, '-', '_' or '.', and not begin with \"chat-\"");
        }
        if !(1..=1_000_000).contains(&c.max_rooms) {
            say("conference.max_rooms", "must be 1 to 1,000,000");
        }
        if !(2..=10_000).contains(&c.max_members) {
            say("conference.max_members", "must be 2 to 10,000");
        }
        if !(1..=16 << 20).contains(&c.max_message.0) {
            say("conference.max_message", "must be 1 byte to 16 MiB");
        }
        if !(60..=315_360_000).contains(&c.keep) {
            say("conference.keep", "must be 60 to 315360000");
        }
        found
    }

    /// Two doors on one TCP address, or two on one UDP address. Port 0 never collides.
    fn collisions(&self) -> Vec<Problem> {
        let list = |key: &str, addrs: &[SocketAddr]| -> Vec<(String, SocketAddr)> {
            addrs.iter().enumerate().map(|(i, a)| (format!("{key}[{i}]"), *a)).collect()
        };
        let one = |key: &str, door: super::Door| door.0.map(|a| (key.to_owned(), a));
        let mut udp = list("sip.udp", &self.sip.udp);
        udp.extend(one("media.webrtc", self.media.webrtc));
        let mut tcp = list("sip.tcp", &self.sip.tcp);
        tcp.extend(list("sip.tls", &self.sip.tls));
        tcp.extend(one("msrp.tcp", self.msrp.tcp));
        tcp.extend(one("msrp.tls", self.msrp.tls));
        tcp.extend(one("http.plain", self.http.plain));
        tcp.extend(one("http.tls", self.http.tls));
        tcp.extend(one("admin.listen", self.admin.listen));
        tcp.extend(self.xmpp.iter().filter_map(|xmpp| one("xmpp.s2s", xmpp.s2s)));
        tcp.extend(one("smpp.listen", self.smpp.listen));
        tcp.extend(one("smpp.tls", self.smpp.tls));

        let mut problems = Vec::new();
        for doors in [udp, tcp] {
            let mut taken: HashMap<SocketAddr, String> = HashMap::new();
            for (key, addr) in doors.into_iter().filter(|(_, a)| a.port() != 0) {
                match taken.get(&addr) {
                    Some(first) => problems.push(Problem::new(key, format!("{addr} is taken by {first} already"))),
                    None => {
                        taken.insert(addr, key);
                    }
                }
            }
        }
        problems
    }
}

/// RFC 1123 §2.1 names, or an IP literal as a domain.
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.parse::<std::net::IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label))
}

/// Of a user part that the server gives to one of its own services.
fn fit_for_address(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        Config::parse(text).unwrap_err().into_iter().map(|p| p.key).collect()
    }

    #[test]
    fn two_doors_on_one_address_are_refused() {
        assert_eq!(keys("[http]\nplain = \"127.0.0.1:8081\"\n"), ["admin.listen"]);
        assert_eq!(keys("[sip]\nudp = [\"127.0.0.1:5060\", \"127.0.0.1:5060\"]\n"), ["sip.udp[1]"]);
        assert!(Config::parse("[http]\nplain = \"127.0.0.1:0\"\ntls = \"127.0.0.1:0\"\n").is_ok());
    }

    #[test]
    fn engines_and_their_urls_must_agree() {
        assert_eq!(keys("[store]\nengine = \"postgres\"\n"), ["store.url"]);
        assert_eq!(keys("[store]\nurl = \"postgres://h/d\"\n"), ["store.url"]);
        assert_eq!(keys("[bus]\nengine = \"nats\"\nurl = \"http://h\"\n"), ["bus.url"]);
    }

    #[test]
    fn federation_needs_a_door_and_something_to_carry() {
        assert!(Config::parse("[xmpp.route.\"x.test\"]\naddress = \"127.0.0.1:5269\"\n").is_ok());
        assert_eq!(keys("[xmpp]\ns2s = \"\"\n"), ["xmpp.s2s"]);
        assert_eq!(keys("[xmpp]\n[sms_over_ip]\nenabled = false\n"), ["xmpp"]);
        assert_eq!(keys("[xmpp]\ns2s = \"127.0.0.1:8081\"\n"), ["xmpp.s2s"]);
    }

    #[test]
    fn a_number_is_one_applications() {
        let esme = |name: &str, lines: &str| format!("[[smpp.esme]]\nsystem_id = \"{name}\"\n{lines}\n");
        let good = esme("a", "numbers = [\"+8190\"]\nshort_codes = { 5555 = \"+8112000000\" }");
        assert!(Config::parse(&good).is_ok());
        for (lines, key) in [
            ("numbers = [\"+8190\"]", "smpp.esme[1].numbers"),
            ("numbers = [\"90\"]", "smpp.esme[1].numbers"),
            ("short_codes = { 5555 = \"+8112000001\" }", "smpp.esme[1].short_codes"),
            ("short_codes = { 5 = \"+8112000001\" }", "smpp.esme[1].short_codes"),
        ] {
            assert_eq!(keys(&(good.clone() + &esme("b", lines))), [key], "{lines}");
        }
    }

    #[test]
    fn ranges_hold() {
        assert_eq!(keys("[sip]\nmax_datagram = \"1 MiB\"\nworkers = 1000\n"), ["sip.workers", "sip.max_datagram"]);
        assert_eq!(keys("[admin]\ntoken = \"short\"\n"), ["admin.token"]);
        assert_eq!(keys("[log]\nlevel = \"a=b=c\"\n"), ["log.level"]);
        assert_eq!(keys("[sip]\nudp=[]\ntcp=[]\ntls=[]\n"), ["sip"]);
    }

    #[test]
    fn a_certificate_that_is_trusted_needs_an_authority_and_a_whole_name() {
        let trusted = |name: &str| format!("[sip]\ntrusted = [\"10.0.0.0/8\", \"{name}\"]\n");
        assert_eq!(keys(&trusted("tls:scscf.example.com")), ["sip.trusted[1]"]);
        let authority = "[tls]\nclient_authorities = \"ca.pem\"\n";
        let config = Config::parse(&(trusted("tls:SCSCF.example.com") + authority)).unwrap();
        assert_eq!(config.sip.trusted[1], TrustedPeer::Certificate("scscf.example.com".into()));
        for bad in ["tls:", "tls:*.example.com", "tls:127.0.0.1", "tls:a b", "scscf.example.com"] {
            assert!(Config::parse(&(trusted(bad) + authority)).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_address_of_a_family_is_advertised() {
        for (good, list) in [
            (true, r#"["192.0.2.1", "2001:db8::1"]"#),
            (false, r#"["192.0.2.1", "192.0.2.2"]"#),
            (false, r#"["0.0.0.0"]"#),
        ] {
            assert_eq!(Config::parse(&format!("[sip]\nadvertised = {list}\n")).is_ok(), good, "{list}");
        }
    }

    #[test]
    fn domains_are_host_names_or_addresses() {
        for good in ["localhost", "ims.mnc001.mcc440.3gppnetwork.org", "127.0.0.1", "::1"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in ["", "a b", "-a", "a..b", "a.test.", "sip:a"] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
