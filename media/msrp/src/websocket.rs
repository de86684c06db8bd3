//! MSRP over WebSocket (RFC 7977): each chunk, request or response in a WebSocket message of its own, text or binary.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::reader::{Event, Lost, Reader};
use crate::switch::Switch;

/// The sub-protocol that both sides must name (RFC 7977 §4.1).
pub const SUB_PROTOCOL: &str = "msrp";
/// Bytes between the WebSocket and the switch, each way.
const BETWEEN: usize = 32 * 1024;
/// The longest message that is read: browsers send a chunk in one.
const MAX_MESSAGE: usize = 1 << 20;
/// The reading buffer of each connection, held while it is open.
const READ_BUFFER: usize = 4096;
/// A chunk longer than this goes out in several frames of one message.
const LONG: usize = 16 * 1024;

/// Whether a Sec-WebSocket-Protocol value offers MSRP.
pub fn offers_msrp(value: &str) -> bool {
    value.split(',').any(|p| p.trim().eq_ignore_ascii_case(SUB_PROTOCOL))
}

impl Switch {
    /// Serves a connection whose handshake somebody else has done, until either side ends it.
    pub async fn serve_ws<S>(self: Arc<Self>, io: S, remote: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if self.is_crowded(remote) {
            return;
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let (near, far) = tokio::io::duplex(BETWEEN);
        let (sink, stream) = socket.split();
        let (from_switch, to_switch) = tokio::io::split(far);
        let (read, write) = tokio::io::split(near);
        let pumps = async {
            // The first to end takes the other along: half a connection is none.
            tokio::select! {
                () = inwards(stream, to_switch) => {}
                () = outwards(from_switch, sink) => {}
            }
        };
        tokio::join!(self.run(Box::new(read), Box::new(write), remote, None, None), pumps);
    }
}

async fn inwards<S>(mut socket: SplitStream<WebSocketStream<S>>, mut switch: WriteHalf<DuplexStream>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = socket.next().await {
        let written = match &message {
            Message::Text(text) => switch.write_all(text.as_bytes()).await,
            Message::Binary(bytes) => switch.write_all(bytes).await,
            Message::Close(_) => break,
            // Pings are answered by the library when something is written or read next.
            _ => continue,
        };
        if written.is_err() {
            break;
        }
    }
    // A switch that is gone already needs no end.
    let _ = switch.shutdown().await;
}

async fn outwards<S>(mut switch: ReadHalf<DuplexStream>, mut socket: SplitSink<WebSocketStream<S>, Message>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut framing = Framing::default();
    let mut buffer = vec![0; 4096];
    'reading: while let Ok(length) = switch.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        let Ok(messages) = framing.take(&buffer[..length]) else { break };
        for message in messages {
            if socket.send(message).await.is_err() {
                break 'reading;
            }
        }
    }
    // A browser that is gone already needs no end.
    let _ = socket.close().await;
}

/// Cuts what the switch writes where one request or response ends and the next begins.
#[derive(Default)]
struct Framing {
    reader: Reader,
    kept: Vec<u8>,
    /// Bytes of `kept` that the reader is done with.
    done: usize,
    /// The message at hand has begun on the wire.
    begun: bool,
}

impl Framing {
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<Message>, Lost> {
        self.kept.extend_from_slice(bytes);
        let mut out = Vec::new();
        loop {
            let (done, event) = self.reader.read(&self.kept[self.done..])?;
            let ended = matches!(event, Event::End(_));
            let more = matches!(event, Event::More) && done == 0;
            self.done += done;
            if ended {
                out.push(self.message(true));
            } else if self.done > LONG {
                out.push(self.message(false));
            }
            if more {
                return Ok(out);
            }
        }
    }

    fn message(&mut self, last: bool) -> Message {
        let bytes: Vec<u8> = self.kept.drain(..self.done).collect();
        self.done = 0;
        let begun = std::mem::replace(&mut self.begun, !last);
        if !begun && last {
            // Whole, and as text where it is: a script need not decode it.
            return match String::from_utf8(bytes) {
                Ok(text) => Message::Text(text.into()),
                Err(other) => Message::Binary(other.into_bytes().into()),
            };
        }
        let code = if begun { Data::Continue } else { Data::Binary };
        Message::Frame(Frame::message(bytes, OpCode::Data(code), last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(messages: Vec<Message>) -> Vec<String> {
        let tell = |m: Message| match m {
            Message::Text(text) => format!("text {}", text.len()),
            Message::Binary(bytes) => format!("binary {}", bytes.len()),
            Message::Frame(frame) => {
                let head = frame.header();
                format!("{:?} {} {}", head.opcode, head.is_final, frame.payload().len())
            }
            other => format!("{other:?}"),
        };
        messages.into_iter().map(tell).collect()
    }

    #[test]
    fn each_request_and_response_is_a_message_of_its_own() {
        let one =
            b"MSRP a786hjs2 200 OK\r\nTo-Path: msrps://b:1/x;ws\r\nFrom-Path: msrps://a:1/y;ws\r\n-------a786hjs2$\r\n";
        let mut two =
            b"MSRP d93kswow SEND\r\nTo-Path: msrps://b:1/x;ws\r\nFrom-Path: msrps://a:1/y;ws\r\nMessage-ID: 1234\r\n\
            Content-Type: text/plain\r\n\r\nhello\r\n-------d93kswow$\r\n"
                .to_vec();
        let both = [&one[..], &two].concat();
        for cut in 1..both.len() {
            let mut framing = Framing::default();
            let mut got = framing.take(&both[..cut]).unwrap();
            got.extend(framing.take(&both[cut..]).unwrap());
            assert_eq!(shape(got), [format!("text {}", one.len()), format!("text {}", two.len())], "cut at {cut}");
        }
        let at = two.windows(5).position(|w| w == b"hello").unwrap();
        two[at] = 0xff;
        assert_eq!(shape(Framing::default().take(&two).unwrap()), [format!("binary {}", two.len())]);
    }

    #[test]
    fn a_long_chunk_is_one_message_of_several_frames() {
        let head = "MSRP d93kswow SEND\r\nTo-Path: msrps://b:1/x;ws\r\nFrom-Path: msrps://a:1/y;ws\r\nMessage-ID: 1234\r\n\
            Content-Type: text/plain\r\n\r\n";
        let whole = format!("{head}{}\r\n-------d93kswow$\r\n", "x".repeat(3 * LONG));
        let mut framing = Framing::default();
        let mut got = Vec::new();
        for piece in whole.as_bytes().chunks(5000) {
            got.extend(framing.take(piece).unwrap());
        }
        let shapes = shape(got);
        let (first, rest) = shapes.split_first().unwrap();
        assert!(first.starts_with("Data(Binary) false"), "{shapes:?}");
        assert!(rest.iter().all(|s| s.starts_with("Data(Continue)")), "{shapes:?}");
        assert!(shapes.last().unwrap().starts_with("Data(Continue) true"), "{shapes:?}");
        let bytes: usize = shapes.iter().map(|s| s.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum();
        assert_eq!(bytes, whole.len());
    }
}
