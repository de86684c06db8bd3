//! A TCP connection, before and after STARTTLS.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

pub(super) enum Wire {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// May be dropped without loss.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(into).await,
            Wire::Secure(stream) => stream.read(into).await,
        }
    }

    /// An error when the peer does not take it in time.
    pub async fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        let writing = async {
            match self {
                Wire::Plain(stream) => stream.write_all(bytes).await,
                Wire::Secure(stream) => {
                    stream.write_all(bytes).await?;
                    stream.flush().await
                }
            }
        };
        timeout(patience, writing).await?
    }

    /// Says that nothing follows.
    pub async fn close(&mut self) {
        let closing = async {
            match self {
                Wire::Plain(stream) => stream.shutdown().await,
                Wire::Secure(stream) => stream.shutdown().await,
            }
        };
        // It is over in any case.
        _ = timeout(Duration::from_secs(1), closing).await;
    }
}
