//! `recvmmsg` and `sendmmsg`: many datagrams for one system call, in buffers made once.
//!
//! With `returned` the only file of this crate with unsafe code. The pointers handed to the kernel point into boxes of the same value,
//! whose length never changes, and are written anew before each call.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

/// Datagrams taken by one call.
pub(crate) const RECEIVE_SLOTS: usize = 32;
/// Datagrams sent by one call.
const SEND_SLOTS: usize = 64;
/// No UDP datagram is longer (65,507 bytes over IPv4; jumbograms are not ours).
const SLOT: usize = 64 * 1024;

/// Room for an IPv4 or an IPv6 socket address.
pub(super) type Name = libc::sockaddr_in6;

/// Buffers of one receiving thread. 2 MiB of address space; only pages that datagrams reached become resident.
pub(crate) struct ReceiveBatch {
    data: Box<[u8]>,
    names: Box<[Name; RECEIVE_SLOTS]>,
    iovecs: Box<[libc::iovec; RECEIVE_SLOTS]>,
    headers: Box<[libc::mmsghdr; RECEIVE_SLOTS]>,
    filled: usize,
}

impl ReceiveBatch {
    pub(crate) fn new() -> ReceiveBatch {
        // SAFETY: these C structures are integers and pointers; all-zero is a value of each.
        unsafe {
            ReceiveBatch {
                data: vec![0; SLOT * RECEIVE_SLOTS].into_boxed_slice(),
                names: Box::new(zeroed()),
                iovecs: Box::new(zeroed()),
                headers: Box::new(zeroed()),
                filled: 0,
            }
        }
    }

    /// Blocks for the first datagram, takes what else is there, returns how many.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let base = self.data.as_mut_ptr();
        for i in 0..RECEIVE_SLOTS {
            // SAFETY: i * SLOT is inside `data`, which holds RECEIVE_SLOTS * SLOT bytes.
            let at = unsafe { base.add(i * SLOT) };
            self.iovecs[i] = libc::iovec { iov_base: at.cast(), iov_len: SLOT };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = ptr::from_mut(&mut self.names[i]).cast();
            header.msg_namelen = size_of::<Name>() as libc::socklen_t;
            header.msg_iov = ptr::from_mut(&mut self.iovecs[i]);
            header.msg_iovlen = 1;
        }
        self.filled = 0;
        // SAFETY: every header points to one name and one iovec of this value, each iovec to SLOT writable bytes that
        // nothing else refers to while `self` is borrowed mutably; the descriptor is open as long as `socket`.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                RECEIVE_SLOTS as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        self.filled = n as usize;
        Ok(self.filled)
    }

    /// The i-th datagram of the last call and who sent it.
    pub(crate) fn datagram(&self, i: usize) -> Option<(&[u8], SocketAddr)> {
        // A receiver woken by `wake_receivers` gets a datagram of nothing from nobody.
        if i >= self.filled || self.headers[i].msg_hdr.msg_namelen == 0 {
            return None;
        }
        let len = (self.headers[i].msg_len as usize).min(SLOT);
        Some((&self.data[i * SLOT..i * SLOT + len], address(&self.names[i])?))
    }
}

/// Most segments of one call (UDP_MAX_SEGMENTS of linux/udp.h was 64 for long).
const MAX_SEGMENTS: usize = 64;
/// The longest UDP payload over IPv4, which the segments of one send share.
const MAX_PAYLOAD: usize = 65_507;

/// Room for one control message with the segment length, aligned as the kernel wants it.
type Control = [u64; 3];

/// Headers of one sending thread.
pub(crate) struct SendBatch {
    names: Box<[Name; SEND_SLOTS]>,
    iovecs: Box<[libc::iovec; SEND_SLOTS]>,
    controls: Box<[Control; SEND_SLOTS]>,
    headers: Box<[libc::mmsghdr; SEND_SLOTS]>,
    /// Datagrams in each header.
    datagrams: [u8; SEND_SLOTS],
    /// Neighbouring datagrams of one length to one peer go down as one send that the kernel cuts (UDP_SEGMENT): it costs a
    /// sixth. Off for good once the kernel or a path refuses it.
    segments: bool,
}

impl SendBatch {
    pub(crate) fn new() -> SendBatch {
        // SAFETY: as in `ReceiveBatch::new`.
        unsafe {
            SendBatch {
                names: Box::new(zeroed()),
                iovecs: Box::new(zeroed()),
                controls: Box::new([[0; 3]; SEND_SLOTS]),
                headers: Box::new(zeroed()),
                datagrams: [0; SEND_SLOTS],
                segments: true,
            }
        }
    }

    /// Sends datagrams without waiting, as many as fit into [`SEND_SLOTS`] sends. Returns how many datagrams the kernel
    /// took, at least 1; an error is about the first. The rest is the caller's to offer again.
    pub(crate) fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        items: impl Iterator<Item = (SocketAddr, &'a [u8])> + Clone,
    ) -> io::Result<usize> {
        // Twice: the first may be the echo of an ICMP error that anybody can forge, and that has nothing to do with segments.
        for _ in 0..2 {
            match self.send_once(socket, items.clone()) {
                Err(e) if self.segments && refuses_segments(&e) => {}
                result => return result,
            }
        }
        self.segments = false;
        self.send_once(socket, items)
    }

    fn send_once<'a>(
        &mut self,
        socket: &UdpSocket,
        items: impl Iterator<Item = (SocketAddr, &'a [u8])>,
    ) -> io::Result<usize> {
        let mut n = 0;
        let mut last: Option<(SocketAddr, &[u8])> = None;
        for (to, bytes) in items {
            if let Some((peer, before)) = last
                && self.segments
                && peer == to
                && before.len() == bytes.len()
                && !bytes.is_empty()
                && before.as_ptr_range().end == bytes.as_ptr()
                && usize::from(self.datagrams[n - 1]) < MAX_SEGMENTS
                && self.iovecs[n - 1].iov_len + bytes.len() <= MAX_PAYLOAD
            {
                self.iovecs[n - 1].iov_len += bytes.len();
                self.datagrams[n - 1] += 1;
            } else if n == SEND_SLOTS {
                break;
            } else {
                let len = set_name(&mut self.names[n], to);
                // The kernel only reads through a sender's iovec.
                self.iovecs[n] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
                let header = &mut self.headers[n].msg_hdr;
                header.msg_name = ptr::from_mut(&mut self.names[n]).cast();
                header.msg_namelen = len;
                header.msg_iov = ptr::from_mut(&mut self.iovecs[n]);
                header.msg_iovlen = 1;
                header.msg_control = ptr::null_mut();
                header.msg_controllen = 0;
                self.datagrams[n] = 1;
                n += 1;
            }
            last = Some((to, bytes));
        }
        for i in 0..n {
            if self.datagrams[i] > 1 {
                let each = (self.iovecs[i].iov_len / usize::from(self.datagrams[i])) as u16;
                self.ask_for_segments(i, each);
            }
        }
        if n == 0 {
            return Ok(0);
        }
        // SAFETY: the first n headers were just written and point to names, iovecs and controls of this value; each iovec
        // spans slices that live for 'a, which outlives this call, and that lie end to end in memory.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), n as libc::c_uint, libc::MSG_DONTWAIT as _)
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(self.datagrams[..sent as usize].iter().map(|d| usize::from(*d)).sum())
    }

    /// Puts the control message UDP_SEGMENT with that length beside the i-th header.
    fn ask_for_segments(&mut self, i: usize, length: u16) {
        const UDP_SEGMENT: libc::c_int = 103;
        let header = &mut self.headers[i].msg_hdr;
        header.msg_control = ptr::from_mut(&mut self.controls[i]).cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; a Control has room for a header and one u16, and is aligned for
        // both.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as _;
            let control: *mut libc::cmsghdr = ptr::from_mut(&mut self.controls[i]).cast();
            (*control).cmsg_level = libc::SOL_UDP;
            (*control).cmsg_type = UDP_SEGMENT;
            (*control).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            ptr::write_unaligned(libc::CMSG_DATA(control).cast::<u16>(), length);
        }
    }
}

/// An old kernel, a device that cannot checksum, or segments longer than the path's MTU.
fn refuses_segments(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
    )
}

/// Waits until the socket takes bytes again. False after `millis`.
pub(crate) fn wait_writable(socket: &UdpSocket, millis: i32) -> bool {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, alive during the call.
    unsafe { libc::poll(&mut poll, 1, millis) > 0 }
}

/// Bytes charged to the receive queue, and its limit (`SO_MEMINFO`).
pub(crate) fn receive_queue(socket: &UdpSocket) -> Option<(u32, u32)> {
    // linux/sock_diag.h: SK_MEMINFO_RMEM_ALLOC is 0, SK_MEMINFO_RCVBUF is 1; nine values in all.
    const SO_MEMINFO: libc::c_int = 55;
    let mut info = [0u32; 9];
    let mut len = size_of::<[u32; 9]>() as libc::socklen_t;
    // SAFETY: `info` has room for `len` bytes.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, info.as_mut_ptr().cast(), &mut len)
    };
    (done == 0).then_some((info[0], info[1]))
}

/// Asks for socket buffers of `bytes` each: beyond the system's limit where we may, up to it where not.
pub(crate) fn set_buffers(socket: &UdpSocket, bytes: usize) {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if !set_option(socket, libc::SOL_SOCKET, force, bytes) {
            set_option(socket, libc::SOL_SOCKET, plain, bytes);
        }
    }
}

/// Lets the kernel fragment what is larger than the path (RFC 3261 §18.1.1 wants 65,535 bytes handled), never set DF.
pub(crate) fn allow_fragments(socket: &UdpSocket, v6: bool) {
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT);
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT);
    }
}

/// Wakes every thread that is blocked in `receive` on this socket, now and later. (Linux wakes readers of an unconnected
/// UDP socket although the call itself says ENOTCONN.)
pub(crate) fn wake_receivers(socket: &UdpSocket) {
    // SAFETY: a plain system call on an open descriptor.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) };
}

pub(super) fn set_option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: i32) -> bool {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option value is one int, alive during the call.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), len) == 0 }
}

pub(super) fn address(name: &Name) -> Option<SocketAddr> {
    match i32::from(name.sin6_family) {
        libc::AF_INET => {
            // SAFETY: sockaddr_in is smaller than sockaddr_in6 and no stricter aligned; the kernel says it wrote one.
            let v4: libc::sockaddr_in = unsafe { ptr::read(ptr::from_ref(name).cast()) };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => Some(SocketAddr::V6(SocketAddrV6::new(
            Ipv6Addr::from(name.sin6_addr.s6_addr),
            u16::from_be(name.sin6_port),
            // Flow labels are no part of the address we answer to.
            0,
            name.sin6_scope_id,
        ))),
        _ => None,
    }
}

fn set_name(name: &mut Name, to: SocketAddr) -> libc::socklen_t {
    match to {
        SocketAddr::V4(to) => {
            // SAFETY: all-zero is a value of sockaddr_in.
            let mut v4: libc::sockaddr_in = unsafe { zeroed() };
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = to.port().to_be();
            v4.sin_addr.s_addr = u32::from(*to.ip()).to_be();
            // SAFETY: sockaddr_in fits into sockaddr_in6 and is no stricter aligned.
            unsafe { ptr::write(ptr::from_mut(name).cast(), v4) };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(to) => {
            // SAFETY: all-zero is a value of sockaddr_in6.
            *name = unsafe { zeroed() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = to.port().to_be();
            name.sin6_addr.s6_addr = to.ip().octets();
            name.sin6_scope_id = to.scope_id();
            size_of::<Name>() as libc::socklen_t
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_come_back_as_sent() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(a) = UdpSocket::bind(at) else { continue };
            let b = UdpSocket::bind(at).unwrap();
            let (to_a, to_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
            let mut out = SendBatch::new();
            let three = [&b"one"[..], b"two", b"three"];
            assert_eq!(out.send(&a, three.iter().map(|bytes| (to_b, *bytes))).unwrap(), 3);
            let mut got = Vec::new();
            let mut batch = ReceiveBatch::new();
            while got.len() < 3 {
                let n = batch.receive(&b).unwrap();
                for i in 0..n {
                    let (bytes, from) = batch.datagram(i).unwrap();
                    assert_eq!(from, to_a);
                    got.push(bytes.to_vec());
                }
            }
            assert_eq!(got, three);
            assert!(batch.datagram(RECEIVE_SLOTS).is_none());
        }
    }

    #[test]
    fn datagrams_of_one_length_arrive_one_by_one() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        b.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let to = b.local_addr().unwrap();
        // One buffer, as an outbox has: a run of one length, one shorter, a run longer than one send takes, two beyond a
        // usual path's MTU.
        let lengths: Vec<usize> = [vec![500; 20], vec![300], vec![700; 70], vec![3000; 2]].concat();
        let buffer: Vec<u8> = lengths.iter().enumerate().flat_map(|(i, len)| vec![i as u8; *len]).collect();
        let mut at = 0;
        let slices: Vec<&[u8]> = lengths
            .iter()
            .map(|len| {
                at += len;
                &buffer[at - len..at]
            })
            .collect();
        let mut out = SendBatch::new();
        let mut batch = ReceiveBatch::new();
        let (mut sent, mut got) = (0, Vec::new());
        while got.len() < slices.len() {
            if sent < slices.len() {
                sent += out.send(&a, slices[sent..].iter().map(|s| (to, *s))).unwrap();
            }
            let n = batch.receive(&b).unwrap();
            got.extend((0..n).map(|i| batch.datagram(i).unwrap().0.to_vec()));
        }
        assert_eq!(got, slices);
    }

    #[test]
    fn a_blocked_receiver_wakes_with_nothing_when_the_socket_is_shut() {
        let socket = std::sync::Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let theirs = socket.clone();
        let thread = std::thread::spawn(move || {
            let mut batch = ReceiveBatch::new();
            batch.receive(&theirs).unwrap();
            batch.datagram(0).is_none()
        });
        // Whether the thread is in the call already or not makes no difference: the shutdown stays.
        wake_receivers(&socket);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn the_receive_queue_shows_what_waits() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (empty, limit) = receive_queue(&a).unwrap();
        a.send_to(&[7; 500], a.local_addr().unwrap()).unwrap();
        let (full, _) = receive_queue(&a).unwrap();
        assert_eq!(empty, 0);
        assert!(full >= 500 && limit > full);
    }
}
