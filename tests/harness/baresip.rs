//! A real phone: baresip with a humming file for a microphone and a recorder for a loudspeaker, driven over its control port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::eventually;
use super::process::Process;
use super::server::{DOMAIN, PASSWORD, Server};

/// What one phone hums, the other must hear: the share of the sound's energy at that tone.
const HEARD: f64 = 0.5;

/// One running phone. It ends when dropped.
pub struct Phone {
    pub process: Process,
    pub user: String,
    /// Where it takes SIP.
    pub sip: u16,
    tone: u32,
    heard: PathBuf,
    control: TcpStream,
    unread: Vec<u8>,
}

impl Phone {
    /// Starts a phone for `user`, that registers over `transport` (`udp`, `tcp`, `tls`) and hums at `tone` Hz.
    pub fn start(server: &Server, user: &str, transport: &str, tone: u32) -> Self {
        Self::with_password(server, user, transport, tone, PASSWORD)
    }

    pub fn with_password(server: &Server, user: &str, transport: &str, tone: u32, password: &str) -> Self {
        let port = if transport == "tls" { server.sips } else { server.sip };
        let more = format!(
            "auth_user={user};auth_pass={password};regint=60;outbound=\"sip:127.0.0.1:{port};transport={transport}\""
        );
        Self::with_account(server, user, transport, tone, &more)
    }

    /// Registers through two edge proxies over TCP, a flow over each (RFC 5626).
    pub fn behind_edges(server: &Server, user: &str, tone: u32, [one, two]: [u16; 2]) -> Self {
        let more = format!(
            "auth_user={user};auth_pass={PASSWORD};regint=60;sipnat=outbound;\
             outbound=\"sip:127.0.0.1:{one};transport=tcp\";outbound2=\"sip:127.0.0.1:{two};transport=tcp\""
        );
        Self::with_account(server, user, "tcp", tone, &more)
    }

    /// A phone that registers its flow and keeps it alive (RFC 5626).
    pub fn outbound(server: &Server, user: &str, transport: &str) -> Self {
        let port = if transport == "tls" { server.sips } else { server.sip };
        let more = format!(
            "auth_user={user};auth_pass={PASSWORD};regint=60;sipnat=outbound;\
             outbound=\"sip:127.0.0.1:{port};transport={transport}\""
        );
        Self::with_account(server, user, transport, 440, &more)
    }

    /// Publishes its presence and watches that of its contacts.
    pub fn present(server: &Server, user: &str, friends: &[&str]) -> Self {
        let more = format!(
            "auth_user={user};auth_pass={PASSWORD};regint=60;pubint=60;outbound=\"sip:127.0.0.1:{};transport=udp\"",
            server.sip
        );
        let contacts: String = friends.iter().map(|f| format!("\"{f}\" <sip:{f}@{DOMAIN}>;presence=p2p\n")).collect();
        Self::with_all(server, user, "udp", 440, &more, &contacts, &[])
    }

    /// Over UDP, by the server or what stands before it at `port`; there it only calls and does not register. Prints what it is
    /// sent.
    pub fn traced(server: &Server, user: &str, tone: u32, port: u16) -> Self {
        let interval = if port == server.sip { 60 } else { 0 };
        let more = format!(
            "auth_user={user};auth_pass={PASSWORD};regint={interval};outbound=\"sip:127.0.0.1:{port};transport=udp\""
        );
        Self::with_all(server, user, "udp", tone, &more, "", &["-s"])
    }

    fn with_account(server: &Server, user: &str, transport: &str, tone: u32, parameters: &str) -> Self {
        Self::with_all(server, user, transport, tone, parameters, "", &[])
    }

    /// `parameters` of its account line; who is in `contacts` may be watched; `options` of its command line.
    fn with_all(
        server: &Server,
        user: &str,
        transport: &str,
        tone: u32,
        parameters: &str,
        contacts: &str,
        options: &[&str],
    ) -> Self {
        let dir = server.path().join(format!("phone-{user}"));
        std::fs::create_dir_all(&dir).unwrap();
        // baresip listens for TLS on the port above the one it is given.
        let (sip, _tls, control, rtp) =
            (server.ports.next(), server.ports.next(), server.ports.next(), server.ports.next());
        let rtp_last = [server.ports.next(), server.ports.next(), server.ports.next()][2];
        let heard = dir.join("heard");
        std::fs::create_dir_all(&heard).unwrap();
        let hum = dir.join("hum.wav");
        std::fs::write(&hum, tone_file(f64::from(tone), 60)).unwrap();
        let authority = server.authority.certificate();
        let config = format!(
            "module_path /usr/lib/baresip/modules\nsip_listen 127.0.0.1:{sip}\nsip_cafile {ca}\nsip_verify_server yes\nnet_interface 127.0.0.1\n\
             audio_source aufile,{hum}\nsnd_path {heard}\nausrc_srate 8000\nauplay_srate 8000\n\
             ausrc_channels 1\nauplay_channels 1\naudio_buffer 20-160\nrtp_ports {rtp}-{rtp_last}\nctrl_tcp_listen 127.0.0.1:{control}\n\
             module g711.so\nmodule_tmp uuid.so\nmodule aufile.so\nmodule sndfile.so\nmodule_app account.so\nmodule_app contact.so\nmodule_app menu.so\n\
             module_app ctrl_tcp.so\n{presence}",
            presence = if contacts.is_empty() { "" } else { "module_app presence.so\n" },
            ca = authority.display(),
            heard = heard.display(),
            hum = hum.display(),
        );
        let account = format!("<sip:{user}@{DOMAIN};transport={transport}>;{parameters};audio_codecs=PCMU/8000/1\n");
        for (name, text) in [("config", config), ("accounts", account), ("contacts", contacts.to_owned())] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let mut command = Command::new("baresip");
        command.arg("-f").arg(&dir).arg("-v").env("HOME", &dir).current_dir(&dir);
        command.args(options);
        let mut process = Process::start(&format!("phone-{user}"), server.path(), &mut command);
        process.wait_for("baresip is ready.", Duration::from_secs(15));
        let control = TcpStream::connect(("127.0.0.1", control)).expect("the phone's control port");
        Self { process, user: user.into(), sip, tone, heard, control, unread: Vec::new() }
    }

    /// Sends one command of baresip's menu, such as `dial`.
    pub fn command(&mut self, command: &str, parameters: &str) {
        let text = serde_json::json!({ "command": command, "params": parameters, "token": "story" }).to_string();
        let framed = format!("{}:{},", text.len(), text);
        self.control.write_all(framed.as_bytes()).expect("the phone takes commands");
    }

    /// Waits for an event by its type, such as `CALL_ESTABLISHED`; everything before it is passed over.
    pub fn wait_event(&mut self, kind: &str) -> serde_json::Value {
        self.wait_event_within(kind, Duration::from_secs(20))
    }

    /// The same for what may take the timers of a transaction.
    pub fn wait_event_within(&mut self, kind: &str, limit: Duration) -> serde_json::Value {
        let start = Instant::now();
        self.control.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        loop {
            while let Some(event) = self.next_event() {
                if event["type"] == kind {
                    return event;
                }
            }
            assert!(start.elapsed() < limit, "{}: no {kind} within {limit:?}:\n{}", self.user, self.process.output());
            let mut buffer = [0; 4096];
            match self.control.read(&mut buffer) {
                Ok(0) => panic!("{} hung up its control port:\n{}", self.user, self.process.output()),
                Ok(n) => self.unread.extend_from_slice(&buffer[..n]),
                Err(_) => {}
            }
        }
    }

    /// One netstring of the control port: `LENGTH:JSON,`.
    fn next_event(&mut self) -> Option<serde_json::Value> {
        let colon = self.unread.iter().position(|b| *b == b':')?;
        let length: usize = std::str::from_utf8(&self.unread[..colon]).ok()?.parse().ok()?;
        let end = colon + 1 + length;
        if self.unread.len() <= end {
            return None;
        }
        let event = serde_json::from_slice(&self.unread[colon + 1..end]).ok();
        self.unread.drain(..=end);
        event
    }

    /// Waits until the registrar said 200 to this phone.
    pub fn wait_registered(&mut self) {
        self.process.wait_for("200 OK", Duration::from_secs(20));
    }

    /// The 16-bit samples that it has heard in its latest call so far.
    pub fn heard(&self) -> Vec<i16> {
        // baresip records what it decodes as dump-TIME-dec.wav.
        let files = std::fs::read_dir(&self.heard).into_iter().flatten().flatten().map(|f| f.path());
        let Some(file) = files.filter(|f| f.to_string_lossy().ends_with("-dec.wav")).max() else { return Vec::new() };
        let bytes = std::fs::read(file).unwrap_or_default();
        bytes.get(44..).unwrap_or_default().chunks_exact(2).map(|c| i16::from_le_bytes([c[0], c[1]])).collect()
    }

    /// Calls another phone, which accepts; each hears what the other hums.
    pub fn talks_with(&mut self, other: &mut Phone) {
        self.command("dial", &format!("sip:{}@{DOMAIN}", other.user));
        other.wait_event("CALL_INCOMING");
        other.command("accept", "");
        self.wait_event("CALL_ESTABLISHED");
        other.wait_event("CALL_ESTABLISHED");
        for (listener, speaker) in [(&*other, &*self), (&*self, &*other)] {
            let heard = || listener.heard_tone(f64::from(speaker.tone)) > HEARD;
            eventually(&format!("{} hears {}", listener.user, speaker.user), Duration::from_secs(20), heard);
        }
    }

    /// How strongly it heard a tone of `hz`, 0 to 1: the share of the sound's energy there (Goertzel), over its last second.
    pub fn heard_tone(&self, hz: f64) -> f64 {
        let samples = self.heard();
        tone_share(&samples[samples.len().saturating_sub(8000)..], hz)
    }
}

/// A WAV file of `seconds` of a pure tone, 16 bits at 8 kHz (baresip's own tone module knows only 48 kHz).
fn tone_file(hz: f64, seconds: u32) -> Vec<u8> {
    let samples = 8000 * seconds;
    let mut out = Vec::with_capacity(44 + samples as usize * 2);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&(36 + samples * 2).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt ");
    for number in [16u32, 1 | 1 << 16, 8000, 16_000, 2 | 16 << 16] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(b"data");
    out.extend_from_slice(&(samples * 2).to_le_bytes());
    for n in 0..samples {
        let phase = 2.0 * std::f64::consts::PI * hz * f64::from(n) / 8000.0;
        out.extend_from_slice(&((phase.sin() * 8000.0) as i16).to_le_bytes());
    }
    out
}

/// The share of the energy of `samples` (8 kHz) that a pure tone of `hz` explains.
pub fn tone_share(samples: &[i16], hz: f64) -> f64 {
    let energy: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
    if samples.len() < 800 || energy < samples.len() as f64 * 100.0 {
        return 0.0;
    }
    let step = 2.0 * std::f64::consts::PI * hz / 8000.0;
    let (mut re, mut im) = (0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        re += f64::from(*sample) * (step * n as f64).cos();
        im += f64::from(*sample) * (step * n as f64).sin();
    }
    2.0 * (re * re + im * im) / (samples.len() as f64 * energy)
}
