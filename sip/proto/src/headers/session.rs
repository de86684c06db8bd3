//! Session-Expires and Min-SE (RFC 4028 §4, §5).

use super::number::delta_seconds;
use super::param::main_and_params;
use crate::edit;

/// Who sends the refreshes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refresher {
    Uac,
    Uas,
}

/// `Session-Expires: 1800;refresher=uac`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionExpires {
    pub seconds: u32,
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    pub fn parse(value: &[u8]) -> Option<SessionExpires> {
        let (seconds, params) = main_and_params(value)?;
        let refresher = match params.get("refresher") {
            Some(v) if v.eq_ignore_ascii_case(b"uac") => Some(Refresher::Uac),
            Some(v) if v.eq_ignore_ascii_case(b"uas") => Some(Refresher::Uas),
            Some(_) => return None,
            None => None,
        };
        Some(SessionExpires { seconds: delta_seconds(seconds)?, refresher })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        edit::number(out, u64::from(self.seconds));
        match self.refresher {
            Some(Refresher::Uac) => out.extend_from_slice(b";refresher=uac"),
            Some(Refresher::Uas) => out.extend_from_slice(b";refresher=uas"),
            None => {}
        }
    }
}

/// Min-SE in seconds; RFC 4028 §5 lets nobody ask for less than 90, and what is less counts as 90.
pub fn min_se(value: &[u8]) -> Option<u32> {
    main_and_params(value).and_then(|(n, _)| delta_seconds(n)).map(|n| n.max(90))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_refresher() {
        for (text, refresher) in [
            (&b"4000;refresher=uac"[..], Some(Refresher::Uac)),
            (b"4000;refresher=uas", Some(Refresher::Uas)),
            (b"4000", None),
        ] {
            let s = SessionExpires::parse(text).unwrap();
            assert_eq!((s.seconds, s.refresher), (4000, refresher));
            let mut out = Vec::new();
            s.write(&mut out);
            assert_eq!(out, text);
        }
        assert_eq!(SessionExpires::parse(b"x"), None);
        assert_eq!(SessionExpires::parse(b"90;refresher=me"), None);
        assert_eq!((min_se(b"60"), min_se(b"120;x=y"), min_se(b"")), (Some(90), Some(120), None));
    }
}
