//! SMPP PDUs in words: one or several behind each other, as in a TCP stream.

use std::io::{self, Write};

use gw_smpp::pdu::{
    Address, Bind, Destination, Frames, Header, Pdu, QuerySmResp, Request, Response, ShortMessage, SubmitMulti, Tlvs,
};

use super::{hex_dump, shown};

/// What cannot be framed; how far the stream could be read stands before it in the words.
#[derive(Debug, thiserror::Error)]
pub enum NotSmpp {
    #[error(transparent)]
    Length(#[from] gw_smpp::pdu::BadLength),
    #[error("no whole PDU")]
    Short,
}

/// Fails when not even the first PDU can be framed.
pub(super) fn words(bytes: &[u8], out: &mut Vec<u8>) -> Result<io::Result<()>, NotSmpp> {
    let mut frames = Frames::default();
    frames.buffer().extend_from_slice(bytes);
    let mut seen = 0;
    loop {
        match frames.next_frame() {
            Ok(Some(frame)) => {
                seen += 1;
                // Frames are never shorter than a header.
                let Some(header) = Header::of(&frame) else { continue };
                if let Err(error) = one(header, &frame, out) {
                    return Ok(Err(error));
                }
            }
            Ok(None) if seen == 0 => return Err(NotSmpp::Short),
            Ok(None) => {
                let left = frames.buffer().len();
                return Ok(if left == 0 { Ok(()) } else { writeln!(out, "{left} octets of another PDU") });
            }
            Err(bad) if seen == 0 => return Err(bad.into()),
            Err(bad) => return Ok(writeln!(out, "then no PDU: {bad}")),
        }
    }
}

fn one(header: Header, frame: &bytes::Bytes, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "{}, sequence {}, {} octets", header.command, header.sequence, frame.len())?;
    match Pdu::decode(header, frame) {
        Ok(Pdu::Request(request)) => asked(&request, out),
        Ok(Pdu::Response(status, response)) => {
            match status.words() {
                Some((name, meaning)) => writeln!(out, "  status              {name} ({meaning})")?,
                None => writeln!(out, "  status              0x{:08x}", status.0)?,
            }
            answered(&response, out)
        }
        Err(malformed) => {
            writeln!(out, "  would be answered {} for its {}", malformed.status, malformed.field)?;
            hex_dump(&frame[gw_smpp::pdu::HEADER..], out)
        }
    }
}

fn asked(request: &Request, out: &mut Vec<u8>) -> io::Result<()> {
    match request {
        Request::Bind(bind) => {
            let Bind { system_id, system_type, interface_version, addr_ton, addr_npi, address_range, .. } = bind;
            line(out, "system_id", &shown(system_id.as_bytes()))?;
            line(out, "password", "not shown")?;
            line(out, "system_type", &shown(system_type.as_bytes()))?;
            line(out, "version", &format!("0x{interface_version:02x}"))?;
            let range = shown(address_range.as_bytes());
            line(out, "address_range", &format!("{range} (TON {addr_ton}, NPI {addr_npi})"))
        }
        Request::Outbind(outbind) => line(out, "system_id", &shown(outbind.system_id.as_bytes())),
        Request::Unbind | Request::EnquireLink => Ok(()),
        Request::SubmitSm(message) | Request::DeliverSm(message) => self::message(message, out),
        Request::SubmitMulti(multi) => self::multi(multi, out),
        Request::DataSm(data) => {
            address(out, "from", &data.source)?;
            address(out, "to", &data.destination)?;
            flags(out, data.esm_class, data.data_coding, data.registered_delivery)?;
            tlvs(&data.tlvs, out)
        }
        Request::QuerySm(query) => {
            line(out, "message_id", &shown(query.message_id.as_bytes()))?;
            address(out, "from", &query.source)
        }
        Request::CancelSm(cancel) => {
            line(out, "message_id", &shown(cancel.message_id.as_bytes()))?;
            address(out, "from", &cancel.source)?;
            address(out, "to", &cancel.destination)
        }
        Request::ReplaceSm(replace) => {
            line(out, "message_id", &shown(replace.message_id.as_bytes()))?;
            address(out, "from", &replace.source)?;
            body(&replace.short_message, out)?;
            tlvs(&replace.tlvs, out)
        }
        Request::AlertNotification(alert) => {
            address(out, "available", &alert.source)?;
            address(out, "for", &alert.esme)?;
            tlvs(&alert.tlvs, out)
        }
    }
}

fn answered(response: &Response, out: &mut Vec<u8>) -> io::Result<()> {
    match response {
        Response::GenericNack | Response::Unbind | Response::EnquireLink | Response::CancelSm | Response::ReplaceSm => {
            Ok(())
        }
        Response::Bind(_, bind) => {
            line(out, "system_id", &shown(bind.system_id.as_bytes()))?;
            tlvs(&bind.tlvs, out)
        }
        Response::SubmitSm(answer) | Response::DataSm(answer) | Response::DeliverSm(answer) => {
            line(out, "message_id", &shown(answer.message_id.as_bytes()))?;
            tlvs(&answer.tlvs, out)
        }
        Response::SubmitMulti(answer) => {
            line(out, "message_id", &shown(answer.message_id.as_bytes()))?;
            for failed in &answer.failed {
                address(out, "not to", &failed.destination)?;
                line(out, "because", &failed.status.to_string())?;
            }
            tlvs(&answer.tlvs, out)
        }
        Response::QuerySm(QuerySmResp { message_id, final_date, state, error, tlvs: more }) => {
            line(out, "message_id", &shown(message_id.as_bytes()))?;
            line(out, "final_date", &shown(final_date.as_bytes()))?;
            line(out, "message_state", &format!("{state} ({})", state_words(*state)))?;
            line(out, "error_code", &error.to_string())?;
            tlvs(more, out)
        }
    }
}

fn message(message: &ShortMessage, out: &mut Vec<u8>) -> io::Result<()> {
    line(out, "service_type", &shown(message.service_type.as_bytes()))?;
    address(out, "from", &message.source)?;
    address(out, "to", &message.destination)?;
    rest(message, out)
}

fn multi(multi: &SubmitMulti, out: &mut Vec<u8>) -> io::Result<()> {
    address(out, "from", &multi.message.source)?;
    for destination in &multi.destinations {
        match destination {
            Destination::Address(to) => address(out, "to", to)?,
            Destination::List(name) => line(out, "to the list", &shown(name.as_bytes()))?,
        }
    }
    rest(&multi.message, out)
}

fn rest(message: &ShortMessage, out: &mut Vec<u8>) -> io::Result<()> {
    flags(out, message.esm_class, message.data_coding, message.registered_delivery)?;
    times(out, message.schedule.as_bytes(), message.validity.as_bytes())?;
    body(&message.short_message, out)?;
    tlvs(&message.tlvs, out)
}

fn line(out: &mut Vec<u8>, name: &str, value: &str) -> io::Result<()> {
    if value.is_empty() { Ok(()) } else { writeln!(out, "  {name:<18}  {value}") }
}

fn address<const N: usize>(out: &mut Vec<u8>, name: &str, address: &Address<N>) -> io::Result<()> {
    let Address { ton, npi, digits } = address;
    line(out, name, &format!("{} (TON {ton}, NPI {npi})", shown(digits.as_bytes())))
}

fn flags(out: &mut Vec<u8>, esm_class: u8, data_coding: u8, registered: u8) -> io::Result<()> {
    let mut class = format!("0x{esm_class:02x}");
    // SMPP 3.4 §5.2.12.
    match esm_class & 0x3C {
        0x04 => class.push_str(" (receipt)"),
        0x08 => class.push_str(" (acknowledgement by the handset)"),
        0x10 => class.push_str(" (acknowledgement by the user)"),
        0x20 => class.push_str(" (intermediate notification)"),
        _ => {}
    }
    if esm_class & 0x40 != 0 {
        class.push_str(" (user data header)");
    }
    line(out, "esm_class", &class)?;
    line(out, "data_coding", &format!("0x{data_coding:02x}"))?;
    let wanted = ["no receipt", "receipt when final", "receipt on failure", "reserved"][usize::from(registered & 3)];
    line(out, "registered_delivery", &format!("0x{registered:02x} ({wanted})"))
}

fn times(out: &mut Vec<u8>, schedule: &[u8], validity: &[u8]) -> io::Result<()> {
    line(out, "scheduled", &shown(schedule))?;
    line(out, "valid", &shown(validity))
}

fn body(octets: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match octets {
        [] => writeln!(out, "no short_message"),
        octets => {
            writeln!(out, "short_message of {} octets", octets.len())?;
            hex_dump(octets, out)
        }
    }
}

fn tlvs(tlvs: &Tlvs, out: &mut Vec<u8>) -> io::Result<()> {
    for tlv in tlvs.iter() {
        writeln!(out, "{} of {} octets", tlv.tag, tlv.value.len())?;
        hex_dump(tlv.value, out)?;
    }
    match tlvs.check() {
        Ok(()) => Ok(()),
        Err(malformed) => writeln!(out, "  a centre of ours would answer {} for {}", malformed.status, malformed.field),
    }
}

/// SMPP 3.4 §5.2.28.
fn state_words(state: u8) -> &'static str {
    match state {
        1 => "enroute",
        2 => "delivered",
        3 => "expired",
        4 => "deleted",
        5 => "undeliverable",
        6 => "accepted",
        8 => "rejected",
        _ => "unknown",
    }
}
