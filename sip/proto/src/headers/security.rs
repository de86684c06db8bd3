//! Security-Client, Security-Server, Security-Verify (RFC 3329 §2.2; the IPsec parameters of TS 33.203 annex H).

use super::contact::Q;
use super::param::{Params, is_token_text, main_and_params};
use crate::message::decimal;

/// One mechanism of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SecurityMechanism<'a> {
    /// `ipsec-3gpp`, `tls`, `digest`, …
    pub name: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> SecurityMechanism<'a> {
    pub fn parse(value: &'a [u8]) -> Option<SecurityMechanism<'a>> {
        let (name, params) = main_and_params(value)?;
        is_token_text(name).then_some(SecurityMechanism { name, params })
    }

    /// Preference; 1.0 when absent.
    pub fn q(&self) -> Q {
        self.params.get("q").and_then(Q::parse).unwrap_or(Q::ONE)
    }

    /// `spi-c` and `spi-s` of `ipsec-3gpp`.
    pub fn spis(&self) -> Option<(u32, u32)> {
        Some((self.number("spi-c")?, self.number("spi-s")?))
    }

    /// `port-c` and `port-s` of `ipsec-3gpp`.
    pub fn ports(&self) -> Option<(u16, u16)> {
        Some((self.number("port-c")?, self.number("port-s")?))
    }

    fn number<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        self.params.get(name).and_then(decimal).and_then(|n| T::try_from(n).ok())
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name);
        out.extend_from_slice(self.params.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mechanisms_of_a_handset() {
        let text = b"ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;spi-c=98765432;spi-s=87654321;port-c=8642;port-s=7531";
        let m = SecurityMechanism::parse(text).unwrap();
        assert_eq!((m.name, m.q().thousandths()), (&b"ipsec-3gpp"[..], 100));
        assert_eq!((m.spis(), m.ports()), (Some((98765432, 87654321)), Some((8642, 7531))));
        let mut out = Vec::new();
        m.write(&mut out);
        assert_eq!(out, text);
        assert_eq!(SecurityMechanism::parse(b"tls;port-c=70000;port-s=1").unwrap().ports(), None);
        assert_eq!(SecurityMechanism::parse(b";q=1"), None);
    }
}
