//! Header names: a small number for each one that the house reads, its long and compact form, and the look-up.

/// Declares [`HeaderName`] with its spelling and compact form.
macro_rules! header_names {
    ($($variant:ident = $text:literal $(/ $compact:literal)?),+ $(,)?) => {
        /// A header field name that something in the house reads or writes. Any other name is [`HeaderName::Other`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum HeaderName {
            $($variant,)+
            /// Not known here; its bytes are kept as they came.
            Other,
        }

        impl HeaderName {
            const TABLE: &'static [(&'static str, Option<u8>)] = &[$(($text, header_names!(@compact $($compact)?)),)+];
            const OPENINGS: &'static [&'static str] = &[$(concat!($text, ": "),)+ ": "];
            const ALL: &'static [HeaderName] = &[$(HeaderName::$variant,)+];
        }
    };
    (@compact) => { None };
    (@compact $c:literal) => { Some($c) };
}

header_names! {
    Accept = "Accept",
    AcceptContact = "Accept-Contact" / b'a',
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    AlertInfo = "Alert-Info",
    Allow = "Allow",
    AllowEvents = "Allow-Events" / b'u',
    AuthenticationInfo = "Authentication-Info",
    Authorization = "Authorization",
    CallId = "Call-ID" / b'i',
    CallInfo = "Call-Info",
    Contact = "Contact" / b'm',
    ContentDisposition = "Content-Disposition",
    ContentEncoding = "Content-Encoding" / b'e',
    ContentLanguage = "Content-Language",
    ContentLength = "Content-Length" / b'l',
    ContentType = "Content-Type" / b'c',
    CSeq = "CSeq",
    Date = "Date",
    Diversion = "Diversion",
    ErrorInfo = "Error-Info",
    Event = "Event" / b'o',
    Expires = "Expires",
    FlowTimer = "Flow-Timer",
    From = "From" / b'f',
    Geolocation = "Geolocation",
    HistoryInfo = "History-Info",
    Identity = "Identity" / b'y',
    InReplyTo = "In-Reply-To",
    MaxForwards = "Max-Forwards",
    MimeVersion = "MIME-Version",
    MinExpires = "Min-Expires",
    MinSe = "Min-SE",
    Organization = "Organization",
    PAccessNetworkInfo = "P-Access-Network-Info",
    PAnswerState = "P-Answer-State",
    PAssertedIdentity = "P-Asserted-Identity",
    PAssertedService = "P-Asserted-Service",
    PAssociatedUri = "P-Associated-URI",
    PCalledPartyId = "P-Called-Party-ID",
    PChargingFunctionAddresses = "P-Charging-Function-Addresses",
    PChargingVector = "P-Charging-Vector",
    PPreferredIdentity = "P-Preferred-Identity",
    PPreferredService = "P-Preferred-Service",
    PProfileKey = "P-Profile-Key",
    PServedUser = "P-Served-User",
    PUserDatabase = "P-User-Database",
    PVisitedNetworkId = "P-Visited-Network-ID",
    Path = "Path",
    Priority = "Priority",
    Privacy = "Privacy",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyRequire = "Proxy-Require",
    RAck = "RAck",
    Reason = "Reason",
    RecordRoute = "Record-Route",
    ReferSub = "Refer-Sub",
    ReferTo = "Refer-To" / b'r',
    ReferredBy = "Referred-By" / b'b',
    RejectContact = "Reject-Contact" / b'j',
    Replaces = "Replaces",
    ReplyTo = "Reply-To",
    RequestDisposition = "Request-Disposition" / b'd',
    Require = "Require",
    RetryAfter = "Retry-After",
    Route = "Route",
    RSeq = "RSeq",
    SecurityClient = "Security-Client",
    SecurityServer = "Security-Server",
    SecurityVerify = "Security-Verify",
    Server = "Server",
    ServiceRoute = "Service-Route",
    SessionExpires = "Session-Expires" / b'x',
    SipEtag = "SIP-ETag",
    SipIfMatch = "SIP-If-Match",
    Subject = "Subject" / b's',
    SubscriptionState = "Subscription-State",
    Supported = "Supported" / b'k',
    TargetDialog = "Target-Dialog",
    Timestamp = "Timestamp",
    To = "To" / b't',
    Unsupported = "Unsupported",
    UserAgent = "User-Agent",
    Via = "Via" / b'v',
    Warning = "Warning",
    WwwAuthenticate = "WWW-Authenticate",
}

impl HeaderName {
    /// How many known names there are; `Other` comes after them.
    pub const COUNT: usize = HeaderName::ALL.len();

    /// Every known name, in order.
    pub fn all() -> &'static [HeaderName] {
        HeaderName::ALL
    }

    /// The usual spelling; empty for `Other`.
    pub fn as_str(self) -> &'static str {
        HeaderName::TABLE.get(self as usize).map_or("", |t| t.0)
    }

    /// The usual spelling with its colon and a blank: how a line begins.
    #[inline]
    pub(crate) fn opening(self) -> &'static str {
        HeaderName::OPENINGS[self as usize]
    }

    /// Case-insensitive, long or compact (RFC 3261 §7.3.3).
    #[inline]
    pub fn from_bytes(name: &[u8]) -> HeaderName {
        match name {
            [] => HeaderName::Other,
            [c] => COMPACT[*c as usize],
            _ => {
                let mut slot = slot(name);
                // Linear probing; the table is at most half full, so an empty place ends the walk soon.
                loop {
                    match HASHED[slot] {
                        EMPTY => return HeaderName::Other,
                        n if is(HeaderName::TABLE[n as usize].0.as_bytes(), name) => {
                            return HeaderName::ALL[n as usize];
                        }
                        _ => slot = (slot + 1) % SLOTS,
                    }
                }
            }
        }
    }

    /// Headers of which a message may hold one only (RFC 3261 §20 and the extensions' own tables).
    pub fn is_single(self) -> bool {
        use HeaderName::*;
        matches!(
            self,
            CallId
                | CSeq
                | ContentLength
                | ContentType
                | Event
                | Expires
                | From
                | MaxForwards
                | MinExpires
                | To
                | RSeq
                | RAck
                | ReferTo
                | Replaces
                | ReplyTo
                | SessionExpires
                | MinSe
                | SipEtag
                | SipIfMatch
                | SubscriptionState
                | TargetDialog
                | Date
        )
    }
}

/// Nearly everybody writes names as the registry does.
#[inline]
fn is(known: &[u8], name: &[u8]) -> bool {
    known == name || known.eq_ignore_ascii_case(name)
}

const SLOTS: usize = 512;
const EMPTY: u8 = u8::MAX;

const fn slot(name: &[u8]) -> usize {
    // First, middle and last letters with the length tell nearly all known names apart.
    let n = name.len();
    let a = (name[0] | 0x20) as usize;
    let b = (name[n - 1] | 0x20) as usize;
    let c = (name[n / 2] | 0x20) as usize;
    (a.wrapping_mul(7) ^ b.wrapping_mul(59) ^ c.wrapping_mul(263) ^ n.wrapping_mul(31)) % SLOTS
}

static HASHED: [u8; SLOTS] = {
    let mut table = [EMPTY; SLOTS];
    let mut i = 0;
    while i < HeaderName::TABLE.len() {
        let mut s = slot(HeaderName::TABLE[i].0.as_bytes());
        while table[s] != EMPTY {
            s = (s + 1) % SLOTS;
        }
        table[s] = i as u8;
        i += 1;
    }
    table
};

static COMPACT: [HeaderName; 256] = {
    let mut table = [HeaderName::Other; 256];
    let mut i = 0;
    while i < HeaderName::TABLE.len() {
        if let Some(c) = HeaderName::TABLE[i].1 {
            table[c as usize] = HeaderName::ALL[i];
            table[c.to_ascii_uppercase() as usize] = HeaderName::ALL[i];
        }
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for &name in HeaderName::ALL {
            assert_eq!(HeaderName::from_bytes(name.as_str().as_bytes()), name);
            assert_eq!(HeaderName::from_bytes(name.as_str().to_ascii_uppercase().as_bytes()), name);
        }
        assert_eq!(HeaderName::from_bytes(b"X-Unknown"), HeaderName::Other);
        assert_eq!(HeaderName::from_bytes(b""), HeaderName::Other);
    }

    #[test]
    fn compact_forms_are_the_registered_ones() {
        for (c, name) in [
            (b'v', HeaderName::Via),
            (b'F', HeaderName::From),
            (b'k', HeaderName::Supported),
            (b'x', HeaderName::SessionExpires),
        ] {
            assert_eq!(HeaderName::from_bytes(&[c]), name);
        }
        assert_eq!(HeaderName::from_bytes(b"q"), HeaderName::Other);
    }
}
