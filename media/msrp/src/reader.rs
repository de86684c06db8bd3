//! Taking a byte stream apart: header sections, pieces of bodies, end-lines (RFC 4975 §7.3.1).
//!
//! The reader keeps no bytes. The caller shows it what has come and drops what it says it is done with; a body goes through in
//! whatever pieces it comes in, and only what might be the beginning of an end-line has to wait for what follows.

use std::sync::LazyLock;

use memchr::{memchr, memmem};

use crate::head::{MAX_HEAD, MAX_IDENT, transaction_id};

/// Most bytes that the reader may ask to be kept: a caller whose buffer holds as many never gets stuck.
pub const MAX_KEPT: usize = MAX_HEAD + 256;

/// The character that closes an end-line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flag {
    /// `$`: the message ends here.
    Complete,
    /// `+`: more chunks follow.
    More,
    /// `#`: the sender gave up.
    Aborted,
}

impl Flag {
    pub fn as_byte(self) -> u8 {
        match self {
            Flag::Complete => b'$',
            Flag::More => b'+',
            Flag::Aborted => b'#',
        }
    }

    fn of(byte: u8) -> Option<Flag> {
        [Flag::Complete, Flag::More, Flag::Aborted].into_iter().find(|f| f.as_byte() == byte)
    }
}

/// What comes next in the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Nothing yet: more bytes are needed.
    More,
    /// A header section, from `MSRP` to the line break of its last header. Its transaction id is well formed, the rest may
    /// not be.
    Head(&'a [u8]),
    /// A piece of the body.
    Body(&'a [u8]),
    /// The body holds the end-line of the transaction that [`Reader::guard`] named; what comes next begins with it.
    Guarded,
    /// The end-line.
    End(Flag),
}

/// The stream cannot be followed any further: the connection has to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Lost {
    #[error("not MSRP")]
    NotMsrp,
    #[error("header section longer than {MAX_HEAD} bytes")]
    TooLong,
    #[error("a request without a body does not end where its headers end")]
    NoEnd,
    #[error("a chunk that was refused goes on and on")]
    Endless,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before or in a header section; the line that begins at this offset has not been looked at.
    Head(usize),
    /// Before the end-line of a request without a body.
    Close,
    /// In a body; true before its first byte.
    Body(bool),
}

/// An identifier kept aside.
#[derive(Clone, Copy, Debug)]
struct Ident {
    bytes: [u8; MAX_IDENT],
    len: u8,
}

impl Ident {
    const NONE: Ident = Ident { bytes: [0; MAX_IDENT], len: 0 };

    fn of(text: &[u8]) -> Ident {
        let mut ident = Ident::NONE;
        let len = text.len().min(MAX_IDENT);
        ident.bytes[..len].copy_from_slice(&text[..len]);
        ident.len = len as u8;
        ident
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Follows one direction of a connection.
#[derive(Clone, Debug)]
pub struct Reader {
    state: State,
    id: Ident,
    guard: Ident,
    whole: usize,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { state: State::Head(0), id: Ident::NONE, guard: Ident::NONE, whole: 0 }
    }
}

const DASHES: &[u8] = b"-------";
static RUN: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(DASHES));

impl Reader {
    /// Whether the stream stands between two requests.
    pub fn is_between(&self) -> bool {
        self.state == State::Head(0)
    }

    /// The body at hand is to come in one piece, if it is no longer than `length` bytes. To be called after its head.
    pub fn in_one_piece(&mut self, length: usize) {
        debug_assert!(length <= MAX_HEAD - MAX_IDENT);
        self.whole = length + 2 + DASHES.len() + MAX_IDENT + 3;
    }

    /// The transaction by which the body at hand is sent on: its end-line must not be in the body (RFC 4975 §7.1).
    pub fn guard(&mut self, id: &[u8]) {
        self.guard = Ident::of(id);
    }

    /// Takes the next event from `input`, and says how many bytes of `input` are done with.
    pub fn read<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), Lost> {
        match self.state {
            State::Head(looked_at) => self.head(input, looked_at),
            State::Close => self.close(input),
            State::Body(first) => Ok(self.body(input, first)),
        }
    }

    fn head<'a>(&mut self, input: &'a [u8], looked_at: usize) -> Result<(usize, Event<'a>), Lost> {
        if looked_at == 0 {
            // Line breaks between requests keep a connection open, and mean nothing.
            let blank = input.iter().take_while(|&&b| b == b'\r' || b == b'\n').count();
            if blank > 0 {
                return Ok((blank, Event::More));
            }
            let shown = input.len().min(5);
            if input[..shown] != b"MSRP "[..shown] {
                return Err(Lost::NotMsrp);
            }
        }
        let mut line = looked_at;
        while let Some(length) = memchr(b'\n', &input[line..]) {
            let next = line + length + 1;
            if line == 0 {
                self.id = Ident::of(transaction_id(&input[..next]).ok_or(Lost::NotMsrp)?);
            } else if &input[line..next] == b"\r\n" {
                if line > MAX_HEAD {
                    return Err(Lost::TooLong);
                }
                self.state = State::Body(true);
                self.whole = 0;
                self.guard = Ident::NONE;
                return Ok((next, Event::Head(&input[..line])));
            } else if self.is_end(&input[line..next]) {
                self.state = State::Close;
                return Ok((line, Event::Head(&input[..line])));
            }
            line = next;
        }
        if input.len() > MAX_HEAD {
            return Err(Lost::TooLong);
        }
        self.state = State::Head(line);
        Ok((0, Event::More))
    }

    fn is_end(&self, line: &[u8]) -> bool {
        line.strip_prefix(DASHES).is_some_and(|l| l.starts_with(self.id.get()))
    }

    fn close<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), Lost> {
        let length = DASHES.len() + self.id.get().len() + 3;
        // The head was found by this whole line.
        let flag = input.get(..length).filter(|l| l.ends_with(b"\r\n")).and_then(|l| Flag::of(l[length - 3]));
        self.state = State::Head(0);
        flag.map(|flag| (length, Event::End(flag))).ok_or(Lost::NoEnd)
    }

    fn body<'a>(&mut self, input: &'a [u8], first: bool) -> (usize, Event<'a>) {
        let mut from = 0;
        let mut keep = loop {
            let Some(found) = RUN.find(&input[from..]) else { break tail(input) };
            let run = input[from + found..].iter().take_while(|&&b| b == b'-').count();
            // Of a longer run, the last seven count.
            let dashes = from + found + run - DASHES.len();
            let after = &input[dashes + DASHES.len()..];
            let after_break = dashes >= 2 && &input[dashes - 2..dashes] == b"\r\n";
            let start = if after_break { dashes - 2 } else { dashes };
            let may_end = after_break || first && dashes == 0;
            match line(after, self.id.get()) {
                Match::Whole(flag, length) if may_end => {
                    if start > 0 {
                        // The body first; the line is found again, as if the body began there.
                        self.state = State::Body(true);
                        return (dashes, Event::Body(&input[..start]));
                    }
                    self.state = State::Head(0);
                    return (dashes + DASHES.len() + length, Event::End(flag));
                }
                Match::Partial if may_end || after.is_empty() => break start,
                _ => {}
            }
            if self.guard.len > 0 {
                let guard = self.guard.get();
                if after.starts_with(guard) {
                    if dashes > 0 {
                        self.whole = 0;
                        self.state = State::Body(false);
                        return (dashes, Event::Body(&input[..dashes]));
                    }
                    return (0, Event::Guarded);
                }
                if guard.starts_with(after) {
                    break dashes;
                }
            }
            from = dashes + DASHES.len();
        };
        if input.len() < self.whole {
            keep = 0;
        } else {
            self.whole = 0;
        }
        if keep == 0 {
            return (0, Event::More);
        }
        self.state = State::Body(false);
        (keep, Event::Body(&input[..keep]))
    }
}

enum Match {
    Whole(Flag, usize),
    /// It may become one.
    Partial,
    None,
}

/// Whether `text` begins with the transaction id, a flag and a line break.
fn line(text: &[u8], id: &[u8]) -> Match {
    let common = text.len().min(id.len());
    if text[..common] != id[..common] {
        return Match::None;
    }
    let rest = &text[common..];
    match rest {
        _ if text.len() < id.len() => Match::Partial,
        [] => Match::Partial,
        [flag, rest @ ..] => match (Flag::of(*flag), rest) {
            (Some(_), [] | [b'\r']) => Match::Partial,
            (Some(flag), [b'\r', b'\n', ..]) => Match::Whole(flag, id.len() + 3),
            _ => Match::None,
        },
    }
}

/// Where the end of `input` may be the beginning of an end-line.
fn tail(input: &[u8]) -> usize {
    let dashes = input.iter().rev().take_while(|&&b| b == b'-').count();
    let before = &input[..input.len() - dashes];
    match before {
        [.., b'\r', b'\n'] => before.len() - 2,
        [.., b'\r'] if dashes == 0 => before.len() - 1,
        _ => before.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a stream says, however it is cut: heads, bodies joined, flags.
    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Told {
        Head(Vec<u8>),
        Body(Vec<u8>),
        Guarded,
        End(Flag),
        Lost(Lost),
    }

    /// Feeds `stream` in pieces that end at `cuts`, through a buffer as a carrier keeps it.
    fn told(stream: &[u8], cuts: &[usize], guard: &[u8]) -> Vec<Told> {
        let mut reader = Reader::default();
        let mut told = Vec::new();
        let mut kept: Vec<u8> = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            kept.extend_from_slice(&stream[from..to]);
            from = to;
            loop {
                let (done, event) = match reader.read(&kept) {
                    Ok(read) => read,
                    Err(lost) => {
                        told.push(Told::Lost(lost));
                        return told;
                    }
                };
                match event {
                    Event::More if done == 0 => break,
                    Event::More => {}
                    Event::Head(head) => {
                        told.push(Told::Head(head.to_vec()));
                        reader.guard(guard);
                    }
                    Event::Body(piece) => match told.last_mut() {
                        Some(Told::Body(body)) => body.extend_from_slice(piece),
                        _ => told.push(Told::Body(piece.to_vec())),
                    },
                    Event::Guarded => {
                        told.push(Told::Guarded);
                        reader.guard(b"");
                    }
                    Event::End(flag) => told.push(Told::End(flag)),
                }
                kept.drain(..done);
            }
            assert!(kept.len() <= MAX_KEPT, "{} bytes kept", kept.len());
        }
        told
    }

    fn send(id: &str, body: &[u8], flag: char) -> Vec<u8> {
        let head = format!("MSRP {id} SEND\r\nTo-Path: msrp://b:1/x;tcp\r\nContent-Type: text/plain\r\n\r\n");
        [head.as_bytes(), body, format!("\r\n-------{id}{flag}\r\n").as_bytes()].concat()
    }

    fn body_of(told: &[Told]) -> &[u8] {
        told.iter().find_map(|t| if let Told::Body(b) = t { Some(b.as_slice()) } else { None }).unwrap_or_default()
    }

    #[test]
    fn every_cut_tells_the_same() {
        let bodies: [&[u8]; 8] = [
            b"Hi",
            b"",
            b"\r\n",
            b"-------",
            b"\r\n-------dkei38sD$\r\n",
            b"a\r\n--------dkei38sd$\r\nb",
            b"-------dkei38sd$\r\n no break before it",
            b"\r\n-------dkei38sd?\r\n\r\n-------dkei38s",
        ];
        for body in bodies.into_iter().filter(|b| !b.starts_with(b"-------dkei38sd")) {
            let mut stream = b"\r\n".to_vec();
            stream.extend(send("dkei38sd", body, '+'));
            stream.extend_from_slice(b"MSRP dkei38ia 200 OK\r\nTo-Path: msrp://a:1/y;tcp\r\n-------dkei38ia$\r\n");
            stream.extend(send("x.9-", body, '#'));
            let whole = told(&stream, &[], b"guard");
            assert_eq!(body_of(&whole), body);
            assert_eq!(whole.len() - 2 * usize::from(!body.is_empty()), 6, "{whole:?}");
            for first in 0..stream.len() {
                assert_eq!(told(&stream, &[first], b"guard"), whole, "cut at {first}");
                for second in (first..stream.len()).step_by(7) {
                    assert_eq!(told(&stream, &[first, second], b"guard"), whole, "cut at {first} and {second}");
                }
            }
            let each: Vec<usize> = (0..stream.len()).collect();
            assert_eq!(told(&stream, &each, b"guard"), whole, "byte by byte");
        }
    }

    #[test]
    fn an_end_line_of_the_outgoing_transaction_is_told_before_it() {
        let stream = send("dkei38sd", b"one -------mine1234$\r\n two", '$');
        let each: Vec<usize> = (0..stream.len()).collect();
        for cuts in [&[][..], &each] {
            let told = told(&stream, cuts, b"mine1234");
            let Told::Body(before) = &told[1] else { panic!("{told:?}") };
            let Told::Body(after) = &told[3] else { panic!("{told:?}") };
            assert_eq!((before.as_slice(), &told[2]), (b"one ".as_slice(), &Told::Guarded));
            assert_eq!(after, b"-------mine1234$\r\n two");
        }
    }

    #[test]
    fn a_small_body_comes_in_one_piece_if_asked() {
        let stream = send("dkei38sd", &[b'x'; 2000], '$');
        let mut reader = Reader::default();
        let (head, _) = reader.read(&stream).unwrap();
        reader.in_one_piece(2048);
        let body = &stream[head..];
        assert_eq!(reader.read(&body[..1500]).unwrap(), (0, Event::More));
        assert_eq!(reader.read(body).unwrap().1, Event::Body(&[b'x'; 2000]));
        // Who sends more than was said is not waited for.
        let stream = send("dkei38sd", &[b'x'; 9000], '$');
        let mut reader = Reader::default();
        let (head, _) = reader.read(&stream).unwrap();
        reader.in_one_piece(2048);
        assert_eq!(reader.read(&stream[head..head + 3000]).unwrap().1, Event::Body(&[b'x'; 3000]));
    }

    #[test]
    fn what_is_no_msrp_is_lost_at_once() {
        assert_eq!(Reader::default().read(b"GET / HTTP/1.1"), Err(Lost::NotMsrp));
        assert_eq!(Reader::default().read(b"MSR/"), Err(Lost::NotMsrp));
        assert_eq!(Reader::default().read(b"MSRP  SEND\r\n"), Err(Lost::NotMsrp));
        let long = [b"MSRP abcd SEND\r\nX: ".as_slice(), &[b'x'; MAX_HEAD]].concat();
        assert_eq!(Reader::default().read(&long), Err(Lost::TooLong));
        let two = b"MSRP abcd SEND\r\nX: y\r\n-------abcd!\r\n";
        assert_eq!(told(two, &[], b"").last(), Some(&Told::Lost(Lost::NoEnd)));
    }

    proptest! {
        #[test]
        fn any_body_arrives_as_it_was(
            body in proptest::collection::vec(prop_oneof![Just(b'-'), Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()], 0..300),
            cuts in proptest::collection::vec(0usize..400, 0..6),
        ) {
            prop_assume!(!body.starts_with(b"-------q1w2e3$\r\n"));
            let stream = send("q1w2e3", &body, '$');
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c < stream.len()).collect();
            cuts.sort_unstable();
            let told = told(&stream, &cuts, b"");
            prop_assert_eq!(body_of(&told), body);
            prop_assert_eq!(told.last(), Some(&Told::End(Flag::Complete)));
        }

        #[test]
        fn noise_never_panics_nor_grows(noise in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..600) {
            let stream = [b"MSRP abcd SEND\r\n\r\n".as_slice(), &noise].concat();
            told(&stream, &[at.min(stream.len())], b"zz");
        }
    }
}
