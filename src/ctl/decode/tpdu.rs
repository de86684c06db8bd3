//! Short messages in words: RP messages, TPDUs alone, and TPDUs with a service centre in front, as modems print them.

use std::io::Write;

use gw_sms::dcs::{Alphabet, DataCoding};
use gw_sms::rp::{self, Relay};
use gw_sms::tpdu::{Address, Broken, Carrier, FromHandset, Optional, Timestamp, ToHandset, Validity, pid};
use gw_sms::udh::{Element, Reference};
use gw_sms::user_data::{Body, UserData};

use super::{hex_dump, shown};

/// Hexadecimal digits and blanks are what they spell; anything else is octets already.
pub(super) fn octets(bytes: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let spelt = digits.len().is_multiple_of(2) && !digits.is_empty();
    let pairs = digits.chunks_exact(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?));
    if spelt { pairs.collect::<Option<Vec<u8>>>().unwrap_or_else(|| bytes.to_vec()) } else { bytes.to_vec() }
}

pub(super) enum Tpdu {
    From(FromHandset),
    To(ToHandset),
}

/// One way to read the octets. Several hold together where the direction is not told.
pub(super) struct Reading {
    relay: Option<Relay>,
    centre: Option<Address>,
    tpdu: Option<Tpdu>,
}

pub(super) fn readings(bytes: &[u8]) -> Result<Vec<Reading>, Broken> {
    if let Some(reading) = Relay::decode(bytes).ok().and_then(relayed) {
        return Ok(vec![reading]);
    }
    let alone = both(bytes, None);
    if !alone.is_empty() {
        return Ok(alone);
    }
    // A modem's form: length in octets, type, number.
    let length = usize::from(bytes.first().copied().unwrap_or_default());
    if let Some((centre, tpdu)) = bytes.split_at_checked(1 + length) {
        let data = [&[1, 0][..], centre, &[0, 0]].concat();
        if let Ok(Relay { kind: rp::Kind::Data { originator, .. }, .. }) = Relay::decode(&data) {
            let modem = both(tpdu, originator);
            if !modem.is_empty() {
                return Ok(modem);
            }
        }
    }
    Err(ToHandset::decode(bytes, Carrier::Data).err().unwrap_or(Broken::Short("octets behind it")))
}

fn both(bytes: &[u8], centre: Option<Address>) -> Vec<Reading> {
    let to = ToHandset::decode(bytes, Carrier::Data).ok().filter(|t| t.encode().len() == bytes.len()).map(Tpdu::To);
    let from =
        FromHandset::decode(bytes, Carrier::Data).ok().filter(|t| t.encode().len() == bytes.len()).map(Tpdu::From);
    [to, from].into_iter().flatten().map(|t| Reading { relay: None, centre: centre.clone(), tpdu: Some(t) }).collect()
}

/// `None` if the TPDU inside does not hold together: then these are likelier no RP message at all.
fn relayed(relay: Relay) -> Option<Reading> {
    let (carrier, tpdu) = match &relay.kind {
        rp::Kind::Data { tpdu, .. } => (Carrier::Data, Some(tpdu)),
        rp::Kind::Ack { tpdu } => (Carrier::Ack, tpdu.as_ref()),
        rp::Kind::Error { tpdu, .. } => (Carrier::Error, tpdu.as_ref()),
        rp::Kind::Smma => (Carrier::Data, None),
    };
    let tpdu = match (tpdu, relay.direction) {
        (None, _) => None,
        (Some(tpdu), rp::Direction::ToHandset) => Some(Tpdu::To(ToHandset::decode(tpdu, carrier).ok()?)),
        (Some(tpdu), rp::Direction::FromHandset) => Some(Tpdu::From(FromHandset::decode(tpdu, carrier).ok()?)),
    };
    Some(Reading { relay: Some(relay), centre: None, tpdu })
}

pub(super) fn write(readings: &[Reading], out: &mut Vec<u8>) -> std::io::Result<()> {
    for (n, reading) in readings.iter().enumerate() {
        if n > 0 {
            writeln!(out, "or, in the other direction:")?;
        }
        if let Some(relay) = &reading.relay {
            write_relay(relay, out)?;
        }
        if let Some(centre) = &reading.centre {
            field(out, "service centre", &centre.spelt())?;
        }
        match &reading.tpdu {
            Some(Tpdu::To(tpdu)) => write_to(tpdu, out)?,
            Some(Tpdu::From(tpdu)) => write_from(tpdu, out)?,
            None => {}
        }
    }
    Ok(())
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) -> std::io::Result<()> {
    writeln!(out, "  {name:<17} {}", shown(value.as_bytes()))
}

fn write_relay(relay: &Relay, out: &mut Vec<u8>) -> std::io::Result<()> {
    let whence = match relay.direction {
        rp::Direction::FromHandset => "from a handset",
        rp::Direction::ToHandset => "to a handset",
    };
    let name = match relay.kind {
        rp::Kind::Data { .. } => "RP-DATA",
        rp::Kind::Ack { .. } => "RP-ACK",
        rp::Kind::Error { .. } => "RP-ERROR",
        rp::Kind::Smma => "RP-SMMA",
    };
    writeln!(out, "{name} {whence}, reference {}", relay.reference)?;
    match &relay.kind {
        rp::Kind::Data { originator, destination, .. } => {
            let centre = originator.as_ref().or(destination.as_ref());
            centre.map_or(Ok(()), |c| field(out, "service centre", &c.spelt()))
        }
        rp::Kind::Error { cause, .. } => field(out, "cause", &cause.to_string()),
        _ => Ok(()),
    }
}

fn write_to(tpdu: &ToHandset, out: &mut Vec<u8>) -> std::io::Result<()> {
    match tpdu {
        ToHandset::Deliver(deliver) => {
            writeln!(out, "SMS-DELIVER")?;
            field(out, "from", &deliver.originator.spelt())?;
            field(out, "sent", &when(deliver.timestamp))?;
            field(out, "more wait", if deliver.more { "yes" } else { "no" })?;
            write_pid(deliver.pid, out)?;
            write_coding(deliver.data_coding, out)?;
            write_user_data(&deliver.user_data, deliver.data_coding, out)
        }
        ToHandset::SubmitReport(report) => {
            writeln!(out, "SMS-SUBMIT-REPORT")?;
            field(out, "accepted", &when(report.timestamp))?;
            write_report(report.failure, &report.optional, out)
        }
        ToHandset::StatusReport(report) => {
            writeln!(out, "SMS-STATUS-REPORT, reference {}", report.reference)?;
            field(out, "to", &report.recipient.spelt())?;
            field(out, "sent", &when(report.timestamp))?;
            field(out, "ended", &when(report.discharged))?;
            field(out, "status", &format!("0x{:02x} ({:?})", report.status, report.outcome()))?;
            write_report(None, &report.optional, out)
        }
    }
}

fn write_from(tpdu: &FromHandset, out: &mut Vec<u8>) -> std::io::Result<()> {
    match tpdu {
        FromHandset::Submit(submit) => {
            writeln!(out, "SMS-SUBMIT, reference {}", submit.reference)?;
            field(out, "to", &submit.destination.spelt())?;
            if submit.status_report {
                writeln!(out, "  status report asked for")?;
            }
            match submit.validity {
                None => {}
                Some(Validity::Absolute(end)) => field(out, "valid until", &when(end))?,
                Some(other) => {
                    let period = other.period(0).map_or("not told".to_owned(), |p| format!("{} s", p.as_secs()));
                    field(out, "valid for", &period)?;
                }
            }
            write_pid(submit.pid, out)?;
            write_coding(submit.data_coding, out)?;
            write_user_data(&submit.user_data, submit.data_coding, out)
        }
        FromHandset::DeliverReport(report) => {
            writeln!(out, "SMS-DELIVER-REPORT")?;
            write_report(report.failure, &report.optional, out)
        }
        FromHandset::Command(command) => {
            writeln!(out, "SMS-COMMAND {:?}, reference {}", command.kind, command.reference)?;
            field(out, "about", &format!("message {}", command.message))?;
            field(out, "to", &command.destination.spelt())
        }
    }
}

fn write_report(failure: Option<u8>, optional: &Optional, out: &mut Vec<u8>) -> std::io::Result<()> {
    if let Some(failure) = failure {
        field(out, "failure cause", &format!("0x{failure:02x}"))?;
    }
    match &optional.user_data {
        Some(user_data) => write_user_data(user_data, optional.data_coding.unwrap_or_default(), out),
        None => Ok(()),
    }
}

fn write_pid(octet: u8, out: &mut Vec<u8>) -> std::io::Result<()> {
    match pid::replaces(octet) {
        _ if octet == pid::PLAIN => Ok(()),
        Some(kind) => field(out, "protocol", &format!("0x{octet:02x} (replace type {kind})")),
        None => field(out, "protocol", &format!("0x{octet:02x}")),
    }
}

fn write_coding(coding: DataCoding, out: &mut Vec<u8>) -> std::io::Result<()> {
    match coding.class() {
        Some(class) => field(out, "data coding", &format!("0x{:02x}, class {} ({class:?})", coding.0, class.bits())),
        None => field(out, "data coding", &format!("0x{:02x}", coding.0)),
    }
}

fn write_user_data(data: &UserData, coding: DataCoding, out: &mut Vec<u8>) -> std::io::Result<()> {
    for element in &data.header.elements {
        match element {
            Element::Part(part) => {
                let reference = match part.reference {
                    Reference::Byte(reference) => u16::from(reference),
                    Reference::Word(reference) => reference,
                };
                field(out, "part", &format!("{} of {}, reference {reference}", part.number, part.total))?;
            }
            Element::Ports(ports) => field(out, "ports", &format!("to {} from {}", ports.destination, ports.source))?,
            Element::ShortPorts { destination, source } => {
                field(out, "ports", &format!("to {destination} from {source}"))?
            }
            Element::SingleShift(language) => field(out, "single shift", language.name())?,
            Element::LockingShift(language) => field(out, "locking shift", language.name())?,
            Element::Other { identifier, data } => {
                field(out, "element", &format!("0x{identifier:02x}, {} octets", data.len()))?;
            }
        }
    }
    let alphabet = match coding.alphabet() {
        Alphabet::Gsm7 => "default alphabet",
        Alphabet::Octets => "8 bit data",
        Alphabet::Ucs2 => "UCS-2",
    };
    match (data.text(coding.alphabet()), &data.body) {
        (Some(text), _) => {
            writeln!(out, "text of {} characters, {alphabet}", text.chars().count())?;
            text.lines().try_for_each(|line| writeln!(out, "  {}", shown(line.as_bytes())))
        }
        (None, Body::Octets(octets) | Body::Septets(octets)) => {
            writeln!(out, "{alphabet}, {} octets", octets.len())?;
            hex_dump(octets, out)
        }
    }
}

/// As the stamp has it: local time and zone.
fn when(stamp: Timestamp) -> String {
    let two = |octet: u8| format!("{:x}{:x}", octet & 0x0F, octet >> 4);
    let [year, month, day, hour, minute, second, zone] = stamp.0;
    if stamp.to_unix().is_none() {
        return "no time".to_owned();
    }
    let quarters = u32::from(zone & 0x07) * 10 + u32::from(zone >> 4);
    let sign = if zone & 0x08 == 0 { '+' } else { '-' };
    let century = if two(year).as_str() < "90" { "20" } else { "19" };
    format!(
        "{century}{}-{}-{} {}:{}:{} {sign}{:02}:{:02}",
        two(year),
        two(month),
        two(day),
        two(hour),
        two(minute),
        two(second),
        quarters / 4,
        quarters % 4 * 15
    )
}
