//! Service loading (WAP-168-ServiceLoad): "load this", with or without asking the user.
//!
//! Token table: WAP-168 §9.3, compared with the one of libwbxml 0.11.8.

use crate::wbxml::{self, Broken, NotWritable, Reader};

const PUBLIC_ID: u8 = 0x06;
const PUBLIC_NAME: &str = "-//WAPFORUM//DTD SL 1.0//EN";

const SL: u8 = 0x05;
const EXECUTE_LOW: u8 = 0x05;
const HREF: &[(u8, &str)] =
    &[(0x08, ""), (0x09, "http://"), (0x0A, "http://www."), (0x0B, "https://"), (0x0C, "https://www.")];

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Action {
    #[default]
    ExecuteLow,
    ExecuteHigh,
    Cache,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceLoading {
    pub href: String,
    pub action: Action,
}

impl ServiceLoading {
    /// WBXML, of type `application/vnd.wap.slc`.
    pub fn encode(&self) -> Result<Vec<u8>, NotWritable> {
        let mut out = wbxml::document(PUBLIC_ID);
        wbxml::tag(&mut out, SL, true, false);
        wbxml::href(&mut out, HREF, &self.href)?;
        if self.action != Action::ExecuteLow {
            out.push(EXECUTE_LOW + self.action as u8);
        }
        wbxml::end(&mut out);
        Ok(out)
    }

    pub fn decode(bytes: &[u8]) -> Result<ServiceLoading, Broken> {
        let mut reader = Reader::new(bytes, u32::from(PUBLIC_ID), PUBLIC_NAME)?;
        let (attributes, content) = reader.tag(SL)?;
        let (mut href, mut action) = (None, Action::default());
        if attributes {
            for attribute in reader.attributes()? {
                match attribute.start {
                    0x05 => action = Action::ExecuteLow,
                    0x06 => action = Action::ExecuteHigh,
                    0x07 => action = Action::Cache,
                    start => {
                        let (_, prefix) = HREF.iter().find(|(token, _)| *token == start).ok_or(Broken::Token(start))?;
                        href = Some(format!("{prefix}{}", attribute.text));
                    }
                }
            }
        }
        if content {
            reader.end()?;
        }
        reader.finish()?;
        Ok(ServiceLoading { href: href.ok_or(Broken::Short)?, action })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of WAP-168 §9.5.
    #[test]
    fn the_example_of_the_specification() {
        let sl = ServiceLoading { href: "http://www.xyz.com/ppaid/123/abc.wml".to_owned(), action: Action::ExecuteLow };
        let octets = [
            &[0x02, 0x06, 0x6A, 0x00, 0x85, 0x0A, 0x03][..],
            b"xyz",
            &[0x00, 0x85, 0x03],
            b"ppaid/123/abc.wml",
            &[0x00, 0x01],
        ]
        .concat();
        assert_eq!(sl.encode().unwrap(), octets);
        assert_eq!(ServiceLoading::decode(&octets), Ok(sl));
    }

    proptest! {
        #[test]
        fn loadings_read_back(href in "(https?://)?(www\\.)?[a-z]{1,9}(\\.com/|\\.edu/|/)[a-z.]{0,30}", action in 0usize..3) {
            let sl = ServiceLoading { href, action: [Action::ExecuteLow, Action::ExecuteHigh, Action::Cache][action] };
            prop_assert_eq!(ServiceLoading::decode(&sl.encode().unwrap()), Ok(sl));
        }

        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = ServiceLoading::decode(&[&[2, 6, 0x6A, 0, 0x85], &octets[..]].concat());
        }
    }
}
