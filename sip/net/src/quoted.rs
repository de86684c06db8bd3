//! What an ICMP error quotes of a datagram of ours: the beginning of a request, cut anywhere.

use memchr::{memchr, memmem};
use sip_proto::endpoint::Branch;

/// Our branch in the top Via of a request that we sent. `None` for a response, for what is cut before its branch ends, and
/// for anything that was not written by us.
pub(crate) fn branch(quoted: &[u8]) -> Option<Branch> {
    if quoted.starts_with(b"SIP/2.0") {
        return None;
    }
    let line = &quoted[memmem::find(quoted, b"\r\n")? + 2..];
    // The line must be whole: half a branch would be another one.
    let line = &line[..memchr(b'\r', line)?];
    let via = line.strip_prefix(b"Via: SIP/2.0/UDP ")?;
    let branch = &via[memmem::find(via, b";branch=")? + 8..];
    Branch::parse(branch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRANCH: &str = "z9hG4bKi0003000000070123456789abcdef00000000";

    fn request() -> String {
        format!(
            "INVITE sip:bob@192.0.2.9:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch={BRANCH}\r\n\
             Via: SIP/2.0/UDP 192.0.2.5;branch=z9hG4bKi0001000000070123456789abcdef00000000\r\nMax-Forwards: 69\r\n"
        )
    }

    #[test]
    fn the_top_branch_is_ours_and_nothing_below_it() {
        let request = request();
        assert_eq!(branch(request.as_bytes()), Branch::parse(BRANCH.as_bytes()));
        assert_eq!(branch(request.replace(BRANCH, "z9hG4bK776asdhds").as_bytes()), None);
        assert_eq!(branch(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"), None);
    }

    #[test]
    fn a_request_cut_before_the_end_of_its_branch_is_nobodys() {
        let request = request();
        let end = request.find(BRANCH).unwrap() + BRANCH.len();
        for cut in 0..request.len() {
            assert_eq!(branch(&request.as_bytes()[..cut]).is_some(), cut > end, "{cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(0..=255u8, 0..200)) {
            branch(&bytes);
        }
    }
}
