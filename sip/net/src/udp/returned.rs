//! Datagrams that came back: ICMP errors, from the error queue that ip(7) and ipv6(7) call IP_RECVERR.
//!
//! With the queue on, the kernel also reports each error once as the result of some later call on the socket, whatever that
//! call was about. So callers look here after every error that ICMP can have caused, and then go on.
//!
//! Unsafe for the same reason as `batch`: the pointers handed to the kernel point into boxes of the same value.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

use super::batch::{self, Name};

/// Most of a datagram that is looked at. Systems quote 548 bytes over IPv4 (RFC 1812 §4.3.2.3) and 1,232 over IPv6.
const QUOTED: usize = 1280;
/// Errors taken at one go.
const AT_ONCE: usize = 64;

/// A datagram of ours that nobody took. Anybody may have forged it: only the quoted text can show that it was ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Returned {
    /// Where it was sent.
    pub(crate) to: SocketAddr,
    /// Its beginning.
    pub(crate) quoted: Box<[u8]>,
}

/// Asks for the error queue.
pub(crate) fn listen(socket: &UdpSocket, v6: bool) {
    if v6 {
        batch::set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1);
    } else {
        batch::set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
    }
}

/// Whether a call on the socket may have failed because of an earlier datagram (icmp(7) in the kernel's icmp_err_convert).
pub(crate) fn may_be_about_another(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPROTO
                | libc::EACCES
        )
    )
}

/// Empties the error queue into `returned`, but for what RFC 3261 §18.4 has us ignore. True if there was anything.
pub(crate) fn collect(socket: &UdpSocket, returned: &mut Vec<Returned>) -> bool {
    let mut quoted = [0u8; QUOTED];
    for taken in 0..AT_ONCE {
        match take(socket, &mut quoted) {
            Some(Some(one)) => returned.push(one),
            Some(None) => {}
            None => return taken > 0,
        }
    }
    true
}

/// One entry; `None` when the queue is empty.
fn take(socket: &UdpSocket, quoted: &mut [u8; QUOTED]) -> Option<Option<Returned>> {
    // Aligned for control messages, with room for the error, who reported it, and whatever else the socket asks for.
    let mut control = [0u64; 32];
    // SAFETY: these C structures are integers and pointers; all-zero is a value of each.
    let (mut name, mut header): (Name, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    let mut iovec = libc::iovec { iov_base: quoted.as_mut_ptr().cast(), iov_len: QUOTED };
    header.msg_name = ptr::from_mut(&mut name).cast();
    header.msg_namelen = size_of::<Name>() as libc::socklen_t;
    header.msg_iov = ptr::from_mut(&mut iovec);
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of::<[u64; 32]>() as _;
    // SAFETY: the header points to values of this frame, each as long as is said beside it.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    let n = usize::try_from(n).ok()?;
    // SAFETY: the kernel has filled `control` and set its length; the walk stays inside it, and the length of each message
    // is checked before its data is read.
    let unreachable = unsafe {
        let mut found = false;
        let mut at = libc::CMSG_FIRSTHDR(&header);
        while let Some(message) = at.as_ref() {
            let ours = matches!(
                (message.cmsg_level, message.cmsg_type),
                (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)
            );
            let whole = libc::CMSG_LEN(size_of::<libc::sock_extended_err>() as u32) as usize;
            if ours && message.cmsg_len >= whole {
                let error: libc::sock_extended_err = ptr::read_unaligned(libc::CMSG_DATA(at).cast());
                found |= is_unreachable(error.ee_origin, error.ee_type, error.ee_code);
            }
            at = libc::CMSG_NXTHDR(&header, at);
        }
        found
    };
    let to = batch::address(&name);
    Some(to.filter(|_| unreachable).map(|to| Returned { to, quoted: quoted[..n.min(QUOTED)].into() }))
}

/// RFC 3261 §18.4: host, network, port or protocol unreachable, or a parameter problem; not source quench or TTL exceeded.
fn is_unreachable(origin: u8, kind: u8, code: u8) -> bool {
    match origin {
        libc::SO_EE_ORIGIN_ICMP => matches!((kind, code), (3, 0..=3) | (12, _)),
        // RFC 4443 §3.1: no route, address, port; §3.4.
        libc::SO_EE_ORIGIN_ICMP6 => matches!((kind, code), (1, 0 | 3 | 4) | (4, _)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_gives_the_datagram_back() {
        for (at, v6) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
            let Ok(socket) = UdpSocket::bind(at) else { continue };
            listen(&socket, v6);
            let closed = UdpSocket::bind(at).unwrap().local_addr().unwrap();
            socket.send_to(b"OPTIONS sip:nobody SIP/2.0", closed).unwrap();
            let mut buf = [0; 10];
            let error = socket.recv(&mut buf).unwrap_err();
            assert!(may_be_about_another(&error), "{error}");
            let mut returned = Vec::new();
            assert!(collect(&socket, &mut returned));
            assert_eq!(returned.len(), 1);
            assert_eq!((returned[0].to, &*returned[0].quoted), (closed, &b"OPTIONS sip:nobody SIP/2.0"[..]));
            assert!(!collect(&socket, &mut returned));
        }
    }

    #[test]
    fn what_passes_by_itself_is_no_failure() {
        assert!(is_unreachable(2, 3, 3) && is_unreachable(3, 1, 4) && is_unreachable(2, 12, 0));
        // TTL exceeded, source quench, fragmentation needed, packet too big, a local error.
        for (origin, kind, code) in [(2, 11, 0), (2, 4, 0), (2, 3, 4), (3, 2, 0), (1, 3, 3)] {
            assert!(!is_unreachable(origin, kind, code), "{origin} {kind} {code}");
        }
    }
}
