//! MSRP in words: one or several requests and responses behind each other, as in a TCP stream.

use std::io::{self, Write};

use media_msrp::head::{Head, Line, Method, Name, Start, transaction_id};
use media_msrp::reader::{Event, Flag, Lost, Reader};

use super::{class, hex_dump, shown};

/// Body bytes that are shown; of a file the rest is only counted.
const SHOWN: usize = 1024;

/// Fails when the capture does not even begin like MSRP.
pub(super) fn words(bytes: &[u8], out: &mut Vec<u8>) -> Result<io::Result<()>, Lost> {
    let mut reader = Reader::default();
    let (mut at, mut seen, mut body) = (0, 0usize, Vec::new());
    loop {
        let (done, event) = match reader.read(&bytes[at..]) {
            Ok(read) => read,
            Err(lost) if seen == 0 => return Err(lost),
            Err(lost) => return Ok(writeln!(out, "then no MSRP: {lost}")),
        };
        at += done;
        let told = match event {
            Event::More if done > 0 => Ok(()),
            Event::More => return Ok(rest(&reader, &body, bytes.len() - at, out)),
            Event::Head(head) => {
                seen += 1;
                one(head, out)
            }
            Event::Body(piece) => {
                body.extend_from_slice(piece);
                Ok(())
            }
            // No transaction is guarded here.
            Event::Guarded => Ok(()),
            Event::End(flag) => end(&std::mem::take(&mut body), flag, out),
        };
        if told.is_err() {
            return Ok(told);
        }
    }
}

fn one(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let head = match Head::parse(bytes) {
        Ok(head) => head,
        Err(malformed) => {
            let id = transaction_id(bytes).map(shown).unwrap_or_default();
            writeln!(out, "transaction {id}, would be answered 400: {malformed}")?;
            return hex_dump(bytes, out);
        }
    };
    let id = shown(head.id);
    match head.start {
        Start::Request(method) => {
            let method = match method {
                Method::Send => "SEND".to_owned(),
                Method::Report => "REPORT".to_owned(),
                Method::Auth => "AUTH".to_owned(),
                Method::Nickname => "NICKNAME".to_owned(),
                Method::Other => shown(bytes.split(|b| b" \r".contains(b)).nth(2).unwrap_or_default()),
            };
            writeln!(out, "request   {method}, transaction {id}")?;
        }
        Start::Response { status, comment } => {
            writeln!(out, "response  {status} {} ({}) to transaction {id}", shown(comment), class(status))?;
        }
    }
    for Line { name, spelt, value } in &head.lines {
        let spelt = shown(spelt);
        writeln!(out, "  {:<20} {}", if *name == Name::Other { &spelt } else { name.as_str() }, shown(value))?;
    }
    Ok(())
}

fn end(body: &[u8], flag: Flag, out: &mut Vec<u8>) -> io::Result<()> {
    if !body.is_empty() {
        writeln!(out, "  body of {} bytes", body.len())?;
        let first = &body[..body.len().min(SHOWN)];
        match std::str::from_utf8(first) {
            Ok(text) => text.lines().try_for_each(|l| writeln!(out, "    {}", shown(l.as_bytes())))?,
            Err(_) => hex_dump(first, out)?,
        }
    }
    out.write_all(match flag {
        Flag::Complete => b"  ends the message\n",
        Flag::More => b"  more chunks follow\n",
        Flag::Aborted => b"  the sender gave the message up\n",
    })
}

fn rest(reader: &Reader, body: &[u8], left: usize, out: &mut Vec<u8>) -> io::Result<()> {
    if reader.is_between() && left == 0 {
        return Ok(());
    }
    writeln!(out, "unfinished: {} bytes of a body, {left} bytes not understood yet", body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        words(bytes, &mut out).unwrap().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_chunk_and_its_response_are_spelt_out() {
        let text = told(
            b"MSRP dkei38sd SEND\r\nTo-Path: msrp://b:1/x;tcp\r\nFrom-Path: msrp://a:1/y;tcp\r\nMessage-ID: 4564dpWd\r\n\
            Byte-Range: 1-*/8\r\nContent-Type: text/plain\r\n\r\nabcd\r\n-------dkei38sd+\r\nMSRP dkei38sd 481 gone\r\n\
            To-Path: msrp://a:1/y;tcp\r\nFrom-Path: msrp://b:1/x;tcp\r\n-------dkei38sd$\r\nMSRP dkei",
        );
        assert!(text.starts_with("request   SEND, transaction dkei38sd\n"), "{text}");
        assert!(text.contains("  Byte-Range           1-*/8\n"), "{text}");
        assert!(text.contains("  body of 4 bytes\n    abcd\n  more chunks follow\n"), "{text}");
        assert!(text.contains("response  481 gone (the request is at fault) to transaction dkei38sd\n"), "{text}");
        assert!(text.ends_with("unfinished: 0 bytes of a body, 9 bytes not understood yet\n"), "{text}");
    }

    #[test]
    fn what_would_be_refused_says_why_and_noise_is_none() {
        assert!(told(b"MSRP abcd SEND\r\nX: \x1b\r\n-------abcd$\r\n").contains("would be answered 400"));
        assert_eq!(words(b"SIP/2.0 200 OK\r\n", &mut Vec::new()).unwrap_err(), Lost::NotMsrp);
    }
}
