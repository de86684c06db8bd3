//! `isthmus decode`: captured messages in words.

use std::io::{Read, Write};
use std::path::Path;

use sip_proto::{HeaderName, Message, StartLine, validate};

use super::CtlError;

mod msrp;
mod smpp;
mod tpdu;

/// The capture's fault.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("neither an RP message nor a TPDU in any direction: {0}")]
    NotTpdu(gw_sms::tpdu::Broken),
    #[error("not a SIP message: {0}")]
    NotSip(#[from] sip_proto::message::NotSip),
    #[error("not SMPP: {0}")]
    NotSmpp(#[from] smpp::NotSmpp),
    #[error("not MSRP: {0}")]
    NotMsrp(#[from] media_msrp::reader::Lost),
    #[error("longer than 1 MiB")]
    TooLong,
}

/// Most bytes read.
const MAX: u64 = 1 << 20;

pub(super) fn sip(file: &Path) -> Result<(), CtlError> {
    let bytes = read(file)?;
    let message = Message::parse(&bytes).map_err(DecodeError::from)?;
    print(|out| write(&message, out))
}

/// RP messages and TPDUs, as octets or in hexadecimal.
pub(super) fn tpdu(file: &Path) -> Result<(), CtlError> {
    let bytes = read(file)?;
    let readings = tpdu::readings(&tpdu::octets(&bytes)).map_err(DecodeError::NotTpdu)?;
    print(|out| tpdu::write(&readings, out))
}

/// SMPP PDUs, as octets or in hexadecimal.
pub(super) fn smpp(file: &Path) -> Result<(), CtlError> {
    let bytes = read(file)?;
    let mut text = Vec::new();
    let told = smpp::words(&tpdu::octets(&bytes), &mut text).map_err(DecodeError::from)?;
    print(|out| told.map(|()| out.append(&mut text)))
}

/// MSRP as a stream brings it.
pub(super) fn msrp(file: &Path) -> Result<(), CtlError> {
    let bytes = read(file)?;
    let mut text = Vec::new();
    let told = msrp::words(&bytes, &mut text).map_err(DecodeError::from)?;
    print(|out| told.map(|()| out.append(&mut text)))
}

fn read(file: &Path) -> Result<Vec<u8>, CtlError> {
    let unreadable = |source| CtlError::File { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        std::fs::File::open(file).map_err(unreadable)?.take(MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    if bytes.len() as u64 > MAX {
        return Err(DecodeError::TooLong.into());
    }
    Ok(bytes)
}

fn print(words: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Result<(), CtlError> {
    let mut text = Vec::new();
    words(&mut text).and_then(|()| std::io::stdout().lock().write_all(&text)).map_err(CtlError::Output)
}

fn write(message: &Message<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
    match message.start() {
        StartLine::Request { token, uri, version, .. } => {
            writeln!(out, "request   {} to {} ({})", shown(token), shown(uri), shown(version))?;
        }
        StartLine::Response { status, reason, .. } => {
            let of = message.cseq().map(|c| shown(c.token)).unwrap_or_default();
            writeln!(out, "response  {status} {} ({}) to {of}", shown(reason), class(status))?;
        }
    }
    for line in message.headers() {
        let spelt = shown(message.name_of(line));
        let name = match line.name {
            HeaderName::Other => spelt,
            known => known.as_str().to_owned(),
        };
        let value = message.bytes().get(line.value()).unwrap_or_default();
        writeln!(out, "  {name:<20} {}", shown(value))?;
        if line.name == HeaderName::Via {
            // One line may hold several hops.
            for via in sip_proto::headers::list(value).map_while(sip_proto::headers::Via::parse) {
                let branch = via.branch().map(shown).unwrap_or_else(|| "none".to_owned());
                writeln!(out, "  {:<20} transaction {branch}", "")?;
            }
        }
    }
    match message.body() {
        [] => writeln!(out, "no body")?,
        body => {
            let kind =
                message.value(HeaderName::ContentType).map(shown).unwrap_or_else(|| "no Content-Type".to_owned());
            writeln!(out, "body of {} bytes, {kind}", body.len())?;
            match std::str::from_utf8(body) {
                Ok(text) => text.lines().try_for_each(|l| writeln!(out, "  {}", shown(l.as_bytes())))?,
                Err(_) => hex_dump(body, out)?,
            }
        }
    }
    let judged = if message.is_request() {
        validate::request(message).map_err(|r| format!("would be answered {r}"))
    } else {
        validate::response(message).map_err(|d| d.to_string())
    };
    match judged {
        Ok(()) => writeln!(out, "well-formed"),
        Err(why) => writeln!(out, "not well-formed: {why}"),
    }
}

/// Printable on a terminal: folding undone, control characters escaped.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut fold = false;
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '\r' | '\n' => fold = true,
            ' ' | '\t' if fold => {}
            c => {
                if std::mem::take(&mut fold) {
                    text.push(' ');
                }
                if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
            }
        }
    }
    text
}

fn hex_dump(bytes: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    for (i, row) in bytes.chunks(16).enumerate() {
        let hex: String = row.iter().map(|b| format!("{b:02x} ")).collect();
        let text: String = row.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '.' }).collect();
        writeln!(out, "  {:06x}  {hex:<48} {text}", i * 16)?;
    }
    Ok(())
}

fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "provisional",
        2 => "success",
        3 => "redirection",
        4 => "the request is at fault",
        5 => "the server is at fault",
        _ => "refused everywhere",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write(&Message::parse(bytes).unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn compact_names_folding_and_bodies_are_spelt_out() {
        let text = words(
            b"MESSAGE sip:bob@x SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bKa\r\nf: <sip:a@x>;tag=1\r\nt: <sip:bob@x>\r\n\
            i: c1\r\nCSeq: 1 MESSAGE\r\ns: one\r\n two\r\nc: text/plain\r\nl: 2\r\n\r\nhi",
        );
        assert!(text.starts_with("request   MESSAGE to sip:bob@x (SIP/2.0)\n"), "{text}");
        assert!(text.contains("  Via                  SIP/2.0/UDP h;branch=z9hG4bKa\n"), "{text}");
        assert!(text.contains("transaction z9hG4bKa\n"), "{text}");
        assert!(text.contains("  Subject              one two\n"), "{text}");
        assert!(text.contains("body of 2 bytes, text/plain\n  hi\n"), "{text}");
        assert!(text.ends_with("\nwell-formed\n"), "{text}");
    }

    #[test]
    fn a_bad_request_tells_its_answer_and_escapes_what_a_terminal_would_obey() {
        let text = words(b"OPTIONS sip:a SIP/2.0\r\nX: \x1b[2J\r\n\r\n");
        assert!(text.contains("would be answered 400"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }
}
