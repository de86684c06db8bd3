//! The private headers of IMS: RFC 7315 (P-Access-Network-Info, P-Visited-Network-ID, P-Charging-*), RFC 5502
//! (P-Served-User), RFC 6050 (P-Asserted-Service). The P-headers that are plain name-addrs (RFC 3325's identities,
//! P-Associated-URI, P-Called-Party-ID) are read as [`NameAddr`].

use std::borrow::Cow;

use super::name_addr::NameAddr;
use super::param::{Params, is_token_text, main_and_params, unquoted};
use crate::message::trim;

/// `P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=…`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessNetworkInfo<'a> {
    /// Access type, or access class with `network-provided` alone.
    pub access: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> AccessNetworkInfo<'a> {
    pub fn parse(value: &'a [u8]) -> Option<AccessNetworkInfo<'a>> {
        let (access, params) = main_and_params(value)?;
        is_token_text(access).then_some(AccessNetworkInfo { access, params })
    }

    /// `np`: a proxy wrote this value, not the handset.
    pub fn is_network_provided(&self) -> bool {
        self.params.has("np") || self.params.has("network-provided")
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.access);
        out.extend_from_slice(self.params.as_bytes());
    }
}

/// One `P-Visited-Network-ID` value: a token or a quoted string (RFC 7315 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VisitedNetworkId<'a> {
    text: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> VisitedNetworkId<'a> {
    pub fn parse(value: &'a [u8]) -> Option<VisitedNetworkId<'a>> {
        let (text, params) = main_and_params(value)?;
        let good = match text {
            [b'"', .., b'"'] => true,
            token => is_token_text(token),
        };
        good.then_some(VisitedNetworkId { text, params })
    }

    pub fn network(&self) -> Cow<'a, [u8]> {
        unquoted(self.text)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text);
        out.extend_from_slice(self.params.as_bytes());
    }
}

/// `P-Charging-Vector: icid-value=…;icid-generated-at=…;orig-ioi=…`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChargingVector<'a> {
    pub params: Params<'a>,
}

impl<'a> ChargingVector<'a> {
    /// Needs an `icid-value` (RFC 7315 §5.6).
    pub fn parse(value: &'a [u8]) -> Option<ChargingVector<'a>> {
        let vector = ChargingVector { params: Params::closed(trim(value))? };
        vector.params.get("icid-value").filter(|v| !v.is_empty()).map(|_| vector)
    }

    pub fn icid(&self) -> Cow<'a, [u8]> {
        self.params.text("icid-value").unwrap_or_default()
    }

    pub fn orig_ioi(&self) -> Option<Cow<'a, [u8]>> {
        self.params.text("orig-ioi")
    }

    pub fn term_ioi(&self) -> Option<Cow<'a, [u8]>> {
        self.params.text("term-ioi")
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.params.as_bytes());
    }
}

/// `P-Charging-Function-Addresses: ccf=…;ccf=…;ecf=…`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChargingFunctionAddresses<'a>(pub Params<'a>);

impl<'a> ChargingFunctionAddresses<'a> {
    pub fn parse(value: &'a [u8]) -> Option<ChargingFunctionAddresses<'a>> {
        let params = Params::closed(trim(value))?;
        params.iter().next().map(|_| ChargingFunctionAddresses(params))
    }

    /// Charging collection functions, in order.
    pub fn ccf(&self) -> impl Iterator<Item = Cow<'a, [u8]>> {
        named(self.0, "ccf")
    }

    /// Event charging functions, in order.
    pub fn ecf(&self) -> impl Iterator<Item = Cow<'a, [u8]>> {
        named(self.0, "ecf")
    }
}

fn named<'a>(params: Params<'a>, name: &'static str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    params
        .iter()
        .filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, v)| unquoted(v.unwrap_or_default()))
}

/// Whose services run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionCase {
    Originating,
    /// After diversion by the served user's services (`orig-cdiv`, TS 24.229 §7.2A.15).
    OriginatingAfterDiversion,
    Terminating,
}

/// `P-Served-User: <sip:alice@example.com>;sescase=orig;regstate=reg`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServedUser<'a> {
    pub addr: NameAddr<'a>,
    /// `None` when not said, or said in words unknown here.
    pub case: Option<SessionCase>,
    pub registered: Option<bool>,
}

impl<'a> ServedUser<'a> {
    pub fn parse(value: &'a [u8]) -> Option<ServedUser<'a>> {
        let addr = NameAddr::parse(value).filter(|a| !a.is_star())?;
        let is = |name, word: &str| addr.params.get(name).is_some_and(|v| v.eq_ignore_ascii_case(word.as_bytes()));
        let case = match () {
            () if addr.params.has("orig-cdiv") => Some(SessionCase::OriginatingAfterDiversion),
            () if is("sescase", "orig") => Some(SessionCase::Originating),
            () if is("sescase", "term") => Some(SessionCase::Terminating),
            () => None,
        };
        let registered = match () {
            () if is("regstate", "reg") => Some(true),
            () if is("regstate", "unreg") => Some(false),
            () => None,
        };
        Some(ServedUser { addr, case, registered })
    }

    /// Appends `<uri>` with session case and registration state.
    pub fn write(uri: &[u8], case: SessionCase, registered: bool, out: &mut Vec<u8>) {
        out.push(b'<');
        out.extend_from_slice(uri);
        out.push(b'>');
        out.extend_from_slice(match case {
            SessionCase::Originating => b";sescase=orig",
            SessionCase::OriginatingAfterDiversion => b";orig-cdiv",
            SessionCase::Terminating => b";sescase=term",
        });
        out.extend_from_slice(if registered { b";regstate=reg" } else { b";regstate=unreg" });
    }
}

/// The service URN of P-Asserted-Service and P-Preferred-Service (RFC 6050 §4.1): `urn:urn-7:3gpp-service.…`.
pub fn service_urn(value: &[u8]) -> Option<&[u8]> {
    let urn = trim(value);
    let prefix = urn.get(..10)?;
    let good = prefix.eq_ignore_ascii_case(b"urn:urn-7:") && urn.len() > 10 && urn.iter().all(u8::is_ascii_graphic);
    good.then_some(urn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_networks() {
        let text = b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=\"234151D0FCE11\";np";
        let p = AccessNetworkInfo::parse(text).unwrap();
        assert_eq!(p.access, b"3GPP-E-UTRAN-FDD");
        assert_eq!(p.params.text("utran-cell-id-3gpp").unwrap().as_ref(), b"234151D0FCE11");
        assert!(p.is_network_provided());
        let mut out = Vec::new();
        p.write(&mut out);
        assert_eq!(out, text);
        assert_eq!(AccessNetworkInfo::parse(b""), None);
    }

    #[test]
    fn visited_networks_are_tokens_or_strings() {
        let v = VisitedNetworkId::parse(b"\"Visited network, 1\";x").unwrap();
        assert_eq!(v.network().as_ref(), b"Visited network, 1");
        let mut out = Vec::new();
        v.write(&mut out);
        assert_eq!(VisitedNetworkId::parse(&out), Some(v));
        assert_eq!(VisitedNetworkId::parse(b"other.net").unwrap().network().as_ref(), b"other.net");
        assert_eq!(VisitedNetworkId::parse(b"a b"), None);
    }

    #[test]
    fn charging_correlation() {
        let text = b"icid-value=\"1234bc9876e\";icid-generated-at=192.0.6.8;orig-ioi=home1.net";
        let c = ChargingVector::parse(text).unwrap();
        assert_eq!(c.icid().as_ref(), b"1234bc9876e");
        assert_eq!((c.orig_ioi().unwrap().as_ref(), c.term_ioi()), (&b"home1.net"[..], None));
        let mut out = Vec::new();
        c.write(&mut out);
        assert_eq!(out, text);
        assert_eq!(ChargingVector::parse(b"orig-ioi=x"), None);
        let f = ChargingFunctionAddresses::parse(b"ccf=[5555::b99];ccf=\"b\"; ecf=c").unwrap();
        assert_eq!(f.ccf().map(|c| c.into_owned()).collect::<Vec<_>>(), [&b"[5555::b99]"[..], b"b"]);
        assert_eq!(f.ecf().count(), 1);
    }

    #[test]
    fn served_users_read_back() {
        use SessionCase::*;
        for case in [Originating, OriginatingAfterDiversion, Terminating] {
            for registered in [true, false] {
                let mut out = Vec::new();
                ServedUser::write(b"sip:alice@example.com", case, registered, &mut out);
                let user = ServedUser::parse(&out).unwrap();
                assert_eq!(
                    (user.addr.addr, user.case, user.registered),
                    (&b"sip:alice@example.com"[..], Some(case), Some(registered))
                );
            }
        }
        let user = ServedUser::parse(b"sip:a@h;sescase=x").unwrap();
        assert_eq!((user.case, user.registered), (None, None));
    }

    #[test]
    fn service_identifiers() {
        assert!(service_urn(b" urn:urn-7:3gpp-service.ims.icsi.mmtel").is_some());
        assert_eq!(service_urn(b"urn:urn-8:x"), None);
        assert_eq!(service_urn(b"urn:urn-7:"), None);
    }
}
