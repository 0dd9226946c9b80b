//! What is compared with: an axum handler that spawns the program, with no sandbox, no limit and no record.

use axum::Json;
use axum::routing::post;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

/// The argument that makes this program that server.
pub const ROLE: &str = "role:plain";

/// Its process.
pub struct Plain {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Plain {
    /// Starts it in a process of its own.
    pub fn start() -> Plain {
        let program = std::env::current_exe().expect("this program");
        let mut child = std::process::Command::new(program)
            .arg(ROLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the plain server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("its address");
        let address = line.trim().parse().expect("an address");
        Plain { child, address }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until it is killed, or whoever started it is gone.
pub fn serve() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("listen");
        println!("{}", listener.local_addr().expect("an address"));
        let router = axum::Router::new().route("/exec", post(exec));
        axum::serve(listener, router).await.expect("serve");
    });
}

async fn exec(Json(body): Json<Value>) -> Json<Value> {
    let arguments = body["args"].as_array().into_iter().flatten();
    let arguments: Vec<&str> = arguments.filter_map(Value::as_str).collect();
    let output = tokio::process::Command::new(body["command"].as_str().unwrap_or_default())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("run the command");
    Json(json!({
        "exit_code": output.status.code(),
        "stdout": String::from_utf8_lossy(&output.stdout),
        "stderr": String::from_utf8_lossy(&output.stderr),
    }))
}
