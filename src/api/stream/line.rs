//! The WebSocket of a session: its messages, and how it ends.

use super::super::error::ApiError;
use super::frames::Frame;
use super::socket::Socket;
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, Stream, StreamExt};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// The largest message that a client may send, in bytes: a frame of stdin is 350 KiB, the rest is for `start`.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// How long the last words, and then the client's own close, may take.
const LINGER: Duration = Duration::from_secs(5);

/// The half that sends.
pub type Sink = SplitSink<WebSocketStream<Socket>, Message>;
/// The half that receives.
pub type Source = SplitStream<WebSocketStream<Socket>>;

/// A WebSocket in two halves, and the connection below.
pub struct Line {
    /// To the client.
    pub sink: Sink,
    /// From the client.
    pub source: Source,
    /// The connection.
    pub socket: Socket,
}

/// Why a session ends.
#[derive(Debug)]
pub enum End {
    /// `exit` was sent.
    Exited,
    /// The client left, or nothing reaches it any more.
    Gone,
    /// The client sent a binary message.
    Binary,
    /// Something to be said in an `error` frame, and the code to close with.
    Error(Box<ApiError>, CloseCode),
    /// [`End::Error`] after which the client's bytes can't be understood any more.
    Broken(Box<ApiError>, CloseCode),
}

impl End {
    /// A client's mistake in a frame.
    pub fn misused(error: impl Into<ApiError>) -> Self {
        Self::Error(Box::new(error.into()), CloseCode::Policy)
    }

    /// A command that did not start, or whose end is not known.
    pub fn failed(error: impl Into<ApiError>) -> Self {
        let error = error.into();
        let code = if error.is_internal() {
            CloseCode::Error
        } else if error.is_temporary() {
            CloseCode::Again
        } else {
            CloseCode::Policy
        };
        Self::Error(Box::new(error), code)
    }

    fn broken(status: StatusCode, message: &str, code: CloseCode) -> Self {
        Self::Broken(Box::new(ApiError::invalid(status, message)), code)
    }
}

impl Line {
    /// Over a connection on which the handshake is done; `early` is what the client sent behind it already.
    pub async fn new(stream: TcpStream, early: Bytes) -> Self {
        let socket = Socket::new(stream);
        let websocket = WebSocketStream::from_partially_read(
            socket.clone(),
            early.into(),
            Role::Server,
            Some(config()),
        );
        let (sink, source) = websocket.await.split();
        Self {
            sink,
            source,
            socket,
        }
    }

    /// The next text message.
    pub async fn read(&mut self) -> Result<Utf8Bytes, End> {
        read(&mut self.source).await
    }

    /// Says the last words and closes in the protocol's way, as far as the client plays along.
    pub async fn close(mut self, end: End) {
        let (error, code, readable) = match end {
            End::Exited => (None, CloseCode::Normal, true),
            End::Gone => {
                // Where the client said so, that wants its answer.
                let _ = timeout(LINGER, self.sink.flush()).await;
                return;
            }
            End::Binary => {
                let message = "websocket messages must be text, not binary";
                let error = ApiError::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
                (Some(Box::new(error)), CloseCode::Unsupported, true)
            }
            End::Error(error, code) => (Some(error), code, true),
            End::Broken(error, code) => (Some(error), code, false),
        };
        let last_words = async {
            if let Some(error) = error {
                let frame = Frame::error(&error);
                self.sink.send(Message::text(frame.json)).await?;
            }
            let close = CloseFrame {
                code,
                reason: Utf8Bytes::from_static(""),
            };
            self.sink.send(Message::Close(Some(close))).await
        };
        if !matches!(timeout(LINGER, last_words).await, Ok(Ok(()))) {
            return;
        }
        if readable {
            let answer = async { while let Some(Ok(_)) = self.source.next().await {} };
            let _ = timeout(LINGER, answer).await;
        } else {
            self.socket.end(LINGER).await;
        }
    }
}

/// What both sides' messages are held to.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        // Room for a frame of output. Beside that only answers to pings gather here, where the client does not read.
        .max_write_buffer_size(256 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// The next text message; what is none ends the session. Nothing is lost when the wait is cancelled.
pub async fn read(
    source: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
) -> Result<Utf8Bytes, End> {
    loop {
        let message = source.next().await.ok_or(End::Gone)?;
        let end = match message {
            Ok(Message::Text(text)) => return Ok(text),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Ok(Message::Binary(_)) => End::Binary,
            Err(Error::Capacity(_)) => End::broken(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("a websocket message must not be larger than {MAX_MESSAGE} bytes"),
                CloseCode::Size,
            ),
            Err(Error::Utf8(_)) => End::broken(
                StatusCode::BAD_REQUEST,
                "websocket text messages must be UTF-8",
                CloseCode::Invalid,
            ),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => End::Gone,
            Err(Error::Protocol(_)) => End::broken(
                StatusCode::BAD_REQUEST,
                "the client does not follow the websocket protocol",
                CloseCode::Protocol,
            ),
            Ok(Message::Close(_)) | Err(_) => End::Gone,
        };
        return Err(end);
    }
}
