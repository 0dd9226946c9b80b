//! A server to test against, and a client that can misbehave.

use super::*;
use crate::config::RawConfig;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A server on a port of its own, without runtimes; gone with the test's runtime.
pub(super) struct Api {
    pub address: SocketAddr,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

pub(super) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub fn field(&self) -> &str {
        self.body["error"]["details"]["field"]
            .as_str()
            .unwrap_or_default()
    }
}

impl Api {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let raw = RawConfig {
            max_body_bytes: Some(4096),
            ..RawConfig::default()
        };
        let config = Config::resolve(raw).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = runtime.block_on(async {
            let store = Store::open(&path).unwrap();
            let tenants = Tenants::open(store.clone(), &[], &[]).await.unwrap();
            tenants.ensure_admin(TOKEN).await.unwrap();
            let profiles = crate::runtime::test_profiles();
            let (socket, _peer) = crate::sys::packet::pair().unwrap();
            let (_, replacements) = tokio::sync::mpsc::unbounded_channel();
            let warden = Warden::connect(socket, replacements).unwrap();
            let host = HostSizes {
                memory_mib: 4096,
                max_vcpus: 64,
                disk: dir.path().into(),
            };
            let output = dir.path().join("output");
            let outputs = Outputs::open(output, store.clone(), 1 << 20);
            let records = Records::open(store.clone(), outputs, std::time::Duration::ZERO)
                .await
                .unwrap();
            let runtimes = Runtimes::without_disk(store.clone(), warden.clone(), profiles, host);
            let app = App {
                store,
                runtimes,
                files: Files::new(warden.clone(), config.files.clone(), &config.exec),
                executor: Executor::new(warden, Admission::new(config.exec.clone()), records),
                flights: Flights::default(),
                body_budget: BodyBudget::new(1 << 20),
                draining: AtomicBool::new(false),
                tenants,
                config,
            };
            let mut server = Server::new(routes::router(Arc::new(app)), 64);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move { server.accept(listener, std::future::pending()).await });
            address
        });
        Self {
            address,
            _dir: dir,
            _runtime: runtime,
        }
    }

    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }

    pub fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        self.raw(request.as_bytes())
    }

    pub fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let headers =
            format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
        self.send(method, path, &headers, body)
    }
}

impl Api {
    /// Sends a head whose body never comes and reads the answer's head and body by its length.
    pub fn raw_head(&self, head: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        let mut byte = [0];
        while !text.ends_with("\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            text.push(char::from(byte[0]));
        }
        let answer = Answer {
            status: text.split(' ').nth(1).unwrap().parse().unwrap(),
            head: text,
            body: Value::Null,
        };
        let length = answer.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        Answer {
            body: serde_json::from_slice(&body).unwrap(),
            ..answer
        }
    }
}
