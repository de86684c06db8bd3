//! A client of clamd (ClamAV): the command INSTREAM of clamd(8), one connection a file.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, pin_mut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What clamd says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    Clean,
    /// The name of what was found.
    Found(String),
}

/// Why there is no finding; the operator's: clamd is away, full, or stricter in size than we are.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("clamd: {0}")]
    Io(#[from] io::Error),
    #[error("clamd does not answer")]
    Silent,
    #[error("clamd: {0}")]
    Refused(String),
    #[error("the file could not be read: {0}")]
    File(String),
}

/// Where clamd listens.
#[derive(Clone, Debug)]
pub struct Clamd {
    /// `host:port`.
    address: String,
}

/// For each step: connecting, writing a chunk, and the verdict, which takes some 40 ms a mebibyte.
const PATIENCE: Duration = Duration::from_secs(60);
/// clamd reads a chunk at once.
const CHUNK: usize = 64 * 1024;
/// Longer than any answer.
const ANSWER: u64 = 4 * 1024;

impl Clamd {
    pub fn new(address: impl Into<String>) -> Clamd {
        Clamd { address: address.into() }
    }

    pub async fn scan(&self, file: impl Stream<Item = Result<Bytes, String>>) -> Result<Finding, ScanError> {
        let mut connection = patient(TcpStream::connect(&self.address)).await?;
        patient(connection.write_all(b"zINSTREAM\0")).await?;
        pin_mut!(file);
        while let Some(bytes) = file.next().await {
            let bytes = bytes.map_err(ScanError::File)?;
            for chunk in bytes.chunks(CHUNK) {
                // At most CHUNK.
                let head = (chunk.len() as u32).to_be_bytes();
                let written = async {
                    connection.write_all(&head).await?;
                    connection.write_all(chunk).await
                };
                if let Err(error) = patient(written).await {
                    // It hangs up on what is too large for it, and says so.
                    return self.answer(connection).await.and(Err(error));
                }
            }
        }
        patient(connection.write_all(&[0; 4])).await?;
        self.answer(connection).await
    }

    async fn answer(&self, connection: TcpStream) -> Result<Finding, ScanError> {
        let mut answer = Vec::new();
        patient(connection.take(ANSWER).read_to_end(&mut answer)).await?;
        read(&String::from_utf8_lossy(&answer))
    }
}

async fn patient<T>(step: impl Future<Output = io::Result<T>>) -> Result<T, ScanError> {
    Ok(timeout(PATIENCE, step).await.map_err(|_| ScanError::Silent)??)
}

/// `stream: OK`, `stream: NAME FOUND`, anything else.
fn read(answer: &str) -> Result<Finding, ScanError> {
    let answer = answer.trim_end_matches(['\0', '\n']);
    let said = answer.strip_prefix("stream: ").unwrap_or(answer);
    match said.strip_suffix(" FOUND") {
        Some(name) => Ok(Finding::Found(name.to_owned())),
        None if said == "OK" => Ok(Finding::Clean),
        None => Err(ScanError::Refused(said.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(read("stream: OK\0").unwrap(), Finding::Clean);
        assert_eq!(read("stream: Win.Test.EICAR FOUND\0").unwrap(), Finding::Found("Win.Test.EICAR".into()));
        for bad in ["", "INSTREAM size limit exceeded. ERROR\0", "UNKNOWN COMMAND\0", "stream: OKAY\0"] {
            assert!(matches!(read(bad), Err(ScanError::Refused(_))), "{bad}");
        }
    }
}
