//! Opening and accepting stream connections: TCP, and what runs on it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip_proto::Transport;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::carriers::Core;
use crate::counters::Counters;
use crate::flood::Verdict;
use crate::pump::{Opened, Pump};
use crate::{tls, ws};

/// Connections that the kernel completes before we take them.
const BACKLOG: i32 = 4096;
/// TCP's own keep-alive finds peers that vanished.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Takes connections until told to stop.
pub(crate) async fn accept(core: Arc<Core>, listener: TcpListener, transport: Transport) {
    let mut accepting = core.accepting();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = accepting.wait_for(|on| !on) => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(e) => {
                // Out of descriptors, most likely: they come back when connections close.
                tracing::warn!(error = %e, %transport, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let now = Instant::now();
        if core.flood.verdict(now, remote) != Verdict::Pass {
            Counters::bump(&core.counters.flood_dropped);
            continue;
        }
        prepare(&stream);
        let Ok(local) = stream.local_addr() else { continue };
        let connection = match core.connections.accept(now, transport, local, remote) {
            Ok(connection) => connection,
            Err(refused) => {
                Counters::bump(&core.counters.connections_refused);
                tracing::debug!(%refused, %transport, "connection refused");
                continue;
            }
        };
        let opened = Opened::new(core.clone(), connection);
        if transport == Transport::Tcp {
            tokio::spawn(Pump::new(opened, stream));
            continue;
        }
        // While there is no place for this handshake, the next connections wait in the kernel's queue.
        let place = tokio::select! {
            place = core.handshakes.place() => place,
            _ = accepting.wait_for(|on| !on) => return,
        };
        let id = place.id();
        let task = tokio::spawn(async move {
            let core = opened.core().clone();
            let done = timeout(core.limits.handshake, async {
                match transport {
                    Transport::Tls => tls::accept(opened, stream).await,
                    Transport::Wss => ws::accept_secure(opened, stream).await,
                    _ => ws::accept(opened, stream).await,
                }
            });
            if !matches!(done.await, Ok(true)) {
                Counters::bump(&core.counters.handshakes_failed);
                core.flood.penalise(Instant::now(), remote, 2);
            }
            drop(place);
        });
        core.handshakes.held_by(id, task.abort_handle());
    }
}

/// Connects what was queued for a peer. When it fails, dropping `opened` tells who waits.
pub(crate) async fn connect(opened: Opened) {
    let core = opened.core().clone();
    let connected = timeout(core.limits.connect, async {
        let connection = opened.connection();
        let stream = TcpStream::connect(connection.remote).await?;
        prepare(&stream);
        connection.connected(stream.local_addr()?);
        match connection.transport {
            Transport::Tls => tls::connect(opened, stream).await,
            _ => {
                tokio::spawn(Pump::new(opened, stream));
                Ok(())
            }
        }
    });
    match connected.await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!(error = %e, "connect failed"),
        Err(_) => tracing::debug!("connect took too long"),
    }
}

fn prepare(stream: &TcpStream) {
    // Each write is a batch of whole messages: nothing is gained by waiting.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE));
}
