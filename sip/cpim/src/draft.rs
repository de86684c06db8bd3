//! Writing an envelope.

use crate::address::Address;
use crate::cpim::Header;
use crate::text::{escape, is_name_char};

/// An envelope being written. No value can begin a line of its own.
#[derive(Debug)]
pub struct Draft<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Draft<'o> {
    /// Appends to `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Draft<'o> {
        Draft { out }
    }

    /// A header with text for its value. `name`: with its prefix, if any; octets that no name holds are left out.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        escape(value, false, self.out);
        self.end()
    }

    /// From, To, cc, and what else names somebody.
    pub fn address(&mut self, name: &str, address: &Address<'_>) -> &mut Self {
        self.name(name);
        address.write(self.out);
        self.end()
    }

    /// Declares the prefix `imdn`.
    pub fn imdn(&mut self) -> &mut Self {
        self.out.extend_from_slice(b"NS: imdn <urn:ietf:params:imdn>\r\n");
        self
    }

    /// A header of another envelope, as it stands there.
    pub fn copy(&mut self, header: &Header<'_>) -> &mut Self {
        self.out.extend_from_slice(header.line().as_bytes());
        self.end()
    }

    /// The content, with which the envelope is whole. `mime`: further headers, Content-Type aside.
    pub fn content<'m>(
        self,
        content_type: &'m str,
        mime: impl IntoIterator<Item = (&'m str, &'m str)>,
        content: &[u8],
    ) {
        self.out.extend_from_slice(b"\r\n");
        for (name, value) in std::iter::once(("Content-Type", content_type)).chain(mime) {
            self.out.extend(name.bytes().filter(|b| is_name_char(*b)));
            self.out.extend_from_slice(b": ");
            self.out.extend(value.bytes().map(|b| if b < b' ' || b == 0x7f { b' ' } else { b }));
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(content);
    }

    fn name(&mut self, name: &str) {
        self.out.extend(name.bytes().filter(|b| is_name_char(*b) || *b == b'.'));
        self.out.extend_from_slice(b": ");
    }

    fn end(&mut self) -> &mut Self {
        self.out.extend_from_slice(b"\r\n");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpim::Cpim;
    use crate::{CPIM, IMDN};

    #[test]
    fn an_envelope_reads_back() {
        let mut out = Vec::new();
        let mut draft = Draft::new(&mut out);
        draft.address("From", &Address::new("Alice \"A\"", "sip:alice@example.com")).imdn();
        draft.text("imdn.Message-ID", "1234").text("Subject", "a\r\nTo: <sip:x@y>");
        draft.content("text/plain", [("Content-Disposition", "notification\r\nX: y")], b"\r\nbody\r\n");
        let m = Cpim::parse(&out).unwrap();
        assert_eq!(m.from().unwrap().name, "Alice \"A\"");
        assert_eq!(m.to().count(), 0);
        assert_eq!(m.text(CPIM, "Subject").unwrap(), "a\r\nTo: <sip:x@y>");
        assert_eq!(m.text(IMDN, "Message-ID").unwrap(), "1234");
        assert_eq!(m.mime("content-disposition"), Some("notification  X: y"));
        assert_eq!(m.content, b"\r\nbody\r\n");
    }
}
