//! A registry that does what a test tells it to: one answer per connection, any of them wrong on purpose. It notes all
//! that it is asked.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request, as it came.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// How often this path was asked for before.
    pub before: usize,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether it shows who asks.
    pub fn has_credentials(&self) -> bool {
        self.header("authorization").is_some() || !self.body.is_empty()
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    then: Then,
}

/// What comes after the body.
#[derive(Debug, Clone, Copy)]
enum Then {
    End,
    /// Nothing, on an open connection, until the client goes.
    Silence,
    /// The rest, a byte at a time, ten in a second.
    Trickle,
    /// This piece again and again, in chunks, until the client goes.
    Forever(&'static [u8]),
}

impl Reply {
    /// An answer with its length.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: body.into(),
            then: Then::End,
        }
    }

    /// With a header; a `content-length` in place of the right one.
    pub fn with(mut self, name: &str, value: impl ToString) -> Reply {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Only its first bytes under the length of all; then the connection ends.
    pub fn cut(self, keep: usize) -> Reply {
        let length = self.body.len();
        let mut cut = self.with("content-length", length);
        cut.body.truncate(keep);
        cut
    }

    /// As [`Reply::cut`], but the connection stays, silent.
    pub fn stalled(self, keep: usize) -> Reply {
        let mut stalled = self.cut(keep);
        stalled.then = Then::Silence;
        stalled
    }

    /// All of it, a byte at a time.
    pub fn trickled(mut self) -> Reply {
        self.then = Then::Trickle;
        self
    }

    /// Not even a status line.
    pub fn silence() -> Reply {
        let mut silence = Reply::new(0, "");
        silence.then = Then::Silence;
        silence
    }

    /// A body that never ends.
    pub fn endless(piece: &'static [u8]) -> Reply {
        let mut endless = Reply::new(200, "").with("transfer-encoding", "chunked");
        endless.then = Then::Forever(piece);
        endless
    }

    /// To somewhere else.
    pub fn redirect(to: impl ToString) -> Reply {
        Reply::new(307, "").with("location", to)
    }

    /// Whether it is there.
    pub fn is_found(&self) -> bool {
        self.status == 200
    }

    fn send(&self, stream: &mut impl Write, socket: &TcpStream) -> std::io::Result<()> {
        if self.status == 0 {
            return Ok(());
        }
        let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let framed = ["content-length", "transfer-encoding"];
        if !self
            .headers
            .iter()
            .any(|(name, _)| framed.contains(&name.as_str()))
        {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if let Then::Trickle = self.then {
            for byte in self.body.chunks(1) {
                stream.write_all(byte)?;
                stream.flush()?;
                // Nothing comes: this is the wait between two bytes.
                socket.set_read_timeout(Some(Duration::from_millis(100)))?;
                let _ = (&*socket).read(&mut [0]);
            }
        } else {
            stream.write_all(&self.body)?;
        }
        if let Then::Forever(piece) = self.then {
            loop {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
        }
        stream.flush()
    }
}

type Answers = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A server on a port of its own. Its threads end with the test program.
pub struct Registry {
    /// `127.0.0.1:PORT`, or `localhost:PORT` where it talks TLS.
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Registry {
    /// One that talks plain http.
    pub fn start(answers: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Registry {
        Registry::serve("127.0.0.1", None, Arc::new(answers))
    }

    /// One that talks TLS. The file is to be named by SSL_CERT_FILE; without that nobody trusts it.
    pub fn start_tls(
        authority: &Path,
        answers: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Registry {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        // Several servers may be trusted by one file.
        let mut pem = fs::read_to_string(authority).unwrap_or_default();
        pem += &armored(made.cert.der());
        fs::write(authority, pem).expect("write the certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .expect("the key fits");
        Registry::serve("localhost", Some(Arc::new(config)), Arc::new(answers))
    }

    fn serve(host: &str, tls: Option<Arc<ServerConfig>>, answers: Arc<Answers>) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tls) = (stream.expect("accept"), tls.clone());
                let (noted, answers) = (noted.clone(), answers.clone());
                thread::spawn(move || {
                    let socket = stream.try_clone().expect("dup");
                    let _ = match tls {
                        None => answer(stream, &socket, &noted, &*answers),
                        Some(config) => {
                            let connection = ServerConnection::new(config).expect("a connection");
                            let stream = StreamOwned::new(connection, stream);
                            answer(stream, &socket, &noted, &*answers)
                        }
                    };
                });
            }
        });
        Registry {
            address: format!("{host}:{port}"),
            seen,
        }
    }

    /// What it was asked, but for what a client finds TLS out by.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().expect("the lock").clone();
        seen.into_iter()
            .filter(|seen| seen.path != "/v2/")
            .collect()
    }
}

/// A certificate as text.
fn armored(certificate: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("ASCII"))
        .collect();
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    format!("{begin}\n{}\n{end}\n", lines.join("\n"))
}

fn answer(
    stream: impl Read + Write,
    socket: &TcpStream,
    noted: &Mutex<Vec<Seen>>,
    answers: &Answers,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    // A client's TLS greeting is no request, and a server of plain http says so.
    let Some(mut seen) = request(&mut stream)? else {
        return socket.shutdown(Shutdown::Both);
    };
    {
        let mut noted = noted.lock().expect("the lock");
        seen.before = noted.iter().filter(|other| other.path == seen.path).count();
        noted.push(seen.clone());
    }
    let reply = match seen.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        _ => answers(&seen),
    };
    reply.send(stream.get_mut(), socket)?;
    match reply.then {
        // Until the client goes.
        Then::Silence => stream.read_to_end(&mut Vec::new()).map(drop),
        _ => socket.shutdown(Shutdown::Write),
    }
}

fn request(stream: &mut impl BufRead) -> std::io::Result<Option<Seen>> {
    if stream
        .fill_buf()?
        .first()
        .is_none_or(|byte| !byte.is_ascii_uppercase())
    {
        return Ok(None);
    }
    let mut line = || -> std::io::Result<String> {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let mut seen = Seen {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        ..Seen::default()
    };
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        seen.headers.push((name, value));
    }
    let length = seen
        .header("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    seen.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(seen))
}
