//! A client of clamd (ClamAV): the command INSTREAM of clamd(8), one connection a file.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, pin_mut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::scanner::{Finding, ScanError, patient};

/// Where clamd listens.
#[derive(Clone, Debug)]
pub struct Clamd {
    /// `host:port`.
    address: String,
}

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
