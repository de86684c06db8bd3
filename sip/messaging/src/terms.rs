//! What is said of a session that ends here, and what is heard (RFC 3264, RFC 4975 §8).

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use media_msrp::{Address, Bridge, Fingerprint, PHONE, Peer, Switch};
use media_sdp::file::FileSelector;
use media_sdp::message::{Anchored, Messages, Own, Setup, write, write_refusal};
use media_sdp::{MAX_SDP, Sdp, Section};
use sip_cpim::CPIM_TYPE;
use sip_proto::Message;

use crate::agent::AgentParts;
use crate::anchor::{description, is_ws, own_path};
use crate::hashing::Promised;

/// What we say of ourselves.
#[derive(Clone, Debug)]
pub struct Terms {
    pub accept_types: &'static str,
    pub accept_wrapped_types: &'static str,
    /// The longest message that is taken, in bytes.
    pub max_size: usize,
    /// Further attributes of the section.
    pub more: Vec<String>,
}

/// A file that is offered, to be sent by who offers it (RFC 5547 §8.2.1).
#[derive(Clone, Debug)]
pub struct OfferedFile {
    pub name: String,
    /// Empty: nobody said.
    pub media_type: String,
    pub promised: Promised,
    /// What is said back as it was said (§8.3.1).
    pub lines: Vec<String>,
}

impl OfferedFile {
    /// `None` when something else is offered: a part of a file, or to get one.
    fn read<'a>(sdp: &Sdp<'a>, section: &Section<'a>) -> Option<OfferedFile> {
        let file = FileSelector::of(sdp, section).filter(|f| !f.partial)?;
        sdp.attribute(section, "sendonly")?;
        let line = |name: &str| {
            let value = sdp.attribute(section, name)?;
            Some(format!("{name}:{}", String::from_utf8_lossy(value)))
        };
        Some(OfferedFile {
            name: file.file_name(),
            media_type: String::from_utf8_lossy(file.media_type).into_owned(),
            promised: Promised { size: file.size, hash: file.hash },
            lines: ["file-selector", "file-transfer-id", "file-range"].into_iter().filter_map(line).collect(),
        })
    }
}

/// What a phone says of a session, copied out of its description.
#[derive(Clone, Debug, Default)]
pub struct Offered {
    /// Where it is; `None` when it said nothing, and wants an offer.
    pub peer: Option<Peer>,
    pub secure: bool,
    /// It comes in by WebSocket (RFC 7977).
    pub ws: bool,
    pub accept_types: Box<[u8]>,
    pub accept_wrapped_types: Box<[u8]>,
    pub max_size: Option<u64>,
    /// The tokens of `a=chatroom` (RFC 7701 §8); `None` where it has no such line.
    pub chatroom: Option<Box<[u8]>>,
    /// Something else is wanted too: a file, or other media.
    pub more: bool,
    /// The file, where nothing but one is offered.
    pub file: Option<OfferedFile>,
    pub(crate) setup: Option<Setup>,
    /// The description, to be answered line by line, and which of its sections this is.
    pub(crate) text: Box<[u8]>,
    pub(crate) index: usize,
}

/// A look at a description without the rest.
pub struct Described;

impl Described {
    /// Whether its sender opens the connection (RFC 6135).
    pub fn is_active(switch: &Switch, message: &Message<'_>) -> bool {
        Offered::read(switch, message).is_ok_and(|o| o.ws || matches!(o.setup, Some(Setup::Active | Setup::HoldConn)))
    }
}

impl Offered {
    /// Reads the description in a message. `Err`: the status for one that holds no session of messages.
    pub fn read(switch: &Switch, message: &Message<'_>) -> Result<Offered, u16> {
        if message.body().is_empty() {
            return Ok(Offered::default());
        }
        let text = description(message).ok_or(415u16)?;
        if text.len() > MAX_SDP {
            return Err(413);
        }
        let sdp = Sdp::parse(text).map_err(|_| 400u16)?;
        let usable = |(index, section)| Some((index, section, Messages::of(&sdp, section).filter(|m| m.port != 0)?));
        let (index, section, messages) = sdp.media().iter().enumerate().find_map(usable).ok_or(488u16)?;
        let path = media_msrp::uri::path(messages.path).ok_or(400u16)?;
        let ws = is_ws(&path);
        let (relay, own) = own_path(switch, messages.path);
        let others = sdp.media().iter().enumerate().any(|(at, other)| at != index && other.line.port != 0);
        Ok(Offered {
            peer: Some(Peer {
                relay,
                path: own,
                // RFC 4975 §5.4: who offers connects, unless it asks for the contrary.
                connect: messages.setup == Some(Setup::Passive) && !ws,
                fingerprint: messages.fingerprint.and_then(Fingerprint::parse),
            }),
            secure: messages.secure,
            ws,
            accept_types: messages.accept_types.into(),
            accept_wrapped_types: messages.accept_wrapped_types.into(),
            max_size: messages.max_size,
            chatroom: sdp.attribute(section, "chatroom").map(Box::from),
            file: OfferedFile::read(&sdp, section).filter(|_| !others),
            more: others || sdp.attribute(section, "file-selector").is_some(),
            setup: messages.setup,
            text: text.into(),
            index,
        })
    }

    /// Whether messages of this type may be sent to it.
    pub fn accepts(&self, media_type: &[u8]) -> bool {
        Messages::accepts_wrapped(&self.accept_types, media_type)
    }

    /// Whether they may be in an envelope.
    pub fn accepts_wrapped(&self, media_type: &[u8]) -> bool {
        self.accepts(CPIM_TYPE.as_bytes()) && Messages::accepts_wrapped(&self.accept_wrapped_types, media_type)
    }
}

impl AgentParts {
    /// Where a phone finds us for sessions of this kind.
    pub fn door(&self, secure: bool) -> Option<Address> {
        let at = if secure { self.doors.secure } else { self.doors.plain }?;
        Some(Address { secure, transport: "tcp", at })
    }

    /// Our description: the answer to `offered`, or an offer where it holds nothing.
    pub fn describe(&self, bridge: &Arc<Bridge>, offered: &Offered, terms: &Terms) -> Vec<u8> {
        let at: SocketAddr = self.door(offered.secure).map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 9)), |a| a.at);
        let family = if at.is_ipv6() { "IP6" } else { "IP4" };
        let (mut out, number) = (Vec::new(), (self.unix)());
        // Writing into a Vec cannot fail.
        let _ = write!(
            out,
            "v=0\r\no=- {number} {number} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n",
            ip = at.ip()
        );
        let setup = match (&offered.peer, offered.setup) {
            (None, _) => Some(Setup::ActPass),
            (Some(_), None) => None,
            (Some(_), Some(Setup::Passive)) => Some(Setup::Active),
            (Some(_), Some(_)) => Some(Setup::Passive),
        };
        let uri = bridge.uri_over(PHONE, offered.ws);
        let fingerprint =
            if offered.secure && !offered.ws { self.switch.fingerprint().map(|f| f.to_string()) } else { None };
        let own = Own {
            at: Anchored { path: &uri, address: at.ip(), port: at.port(), secure: offered.secure, setup, fingerprint },
            accept_types: terms.accept_types,
            accept_wrapped_types: terms.accept_wrapped_types,
            max_size: terms.max_size as u64,
            more: &terms.more.iter().map(String::as_str).collect::<Vec<_>>(),
        };
        match Sdp::parse(&offered.text) {
            Ok(sdp) if offered.peer.is_some() => {
                for (index, section) in sdp.media().iter().enumerate() {
                    if index == offered.index { write(&own, &mut out) } else { write_refusal(section, &mut out) }
                }
            }
            _ => write(&own, &mut out),
        }
        out
    }
}
