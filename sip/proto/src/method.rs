//! Request methods. Any token is a method (RFC 3261 §25.1); the ones the house knows have a name.

use std::fmt;

macro_rules! methods {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// A method of RFC 3261 or its registered extensions. Case-sensitive (§7.1).
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Method { $($variant,)+
            /// Any other token; its bytes stand in the message.
            Other,
        }
        impl Method {
            pub const KNOWN: &'static [Method] = &[$(Method::$variant,)+];

            #[inline]
            pub fn from_bytes(token: &[u8]) -> Method {
                $(if token == $text.as_bytes() { return Method::$variant; })+
                Method::Other
            }

            /// The token; empty for `Other`.
            pub fn as_str(self) -> &'static str {
                match self { $(Method::$variant => $text,)+ Method::Other => "" }
            }
        }
    };
}

methods! {
    Invite = "INVITE",
    Ack = "ACK",
    Bye = "BYE",
    Cancel = "CANCEL",
    Register = "REGISTER",
    Options = "OPTIONS",
    Message = "MESSAGE",
    Subscribe = "SUBSCRIBE",
    Notify = "NOTIFY",
    Publish = "PUBLISH",
    Prack = "PRACK",
    Update = "UPDATE",
    Refer = "REFER",
    Info = "INFO",
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Method::Other { "OTHER" } else { self.as_str() })
    }
}
