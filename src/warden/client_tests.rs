//! The client against a warden that the test itself plays.

use super::*;
use crate::image::digest::Digest;
use crate::resources::MIB;
use crate::sys::packet;
use crate::warden::protocol::{CellRequest, MAX_MESSAGE, RuntimeSpec};
use nix::poll::{PollFd, PollFlags, poll};
use std::os::fd::AsFd;
use std::time::Duration;

/// The warden's end of the socket.
struct Peer(OwnedFd);

impl Peer {
    fn connect(replacements: mpsc::UnboundedReceiver<OwnedFd>) -> (Warden, Peer) {
        let (ours, theirs) = packet::pair().unwrap();
        (Warden::connect(ours, replacements).unwrap(), Peer(theirs))
    }

    /// The next request, and how many descriptors came along; none at the end.
    async fn request(&self) -> Option<(Request, usize)> {
        let mut buffer = [0; MAX_MESSAGE];
        for _ in 0..10_000 {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, 0u8).unwrap() == 1 {
                let packet = packet::receive(self.0.as_fd(), &mut buffer).unwrap()?;
                let request = serde_json::from_slice(&buffer[..packet.length]).unwrap();
                return Some((request, packet.fds.len()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("nothing was sent");
    }

    fn reply(&self, bytes: &[u8]) {
        packet::send(self.0.as_fd(), bytes, &[]).unwrap();
    }

    /// Replies with a sealed memfd beside it.
    fn reply_with(&self, reply: &Reply, json: &str) {
        let bytes = serde_json::to_vec(reply).unwrap();
        let memfd = memfd::seal(c"test", json.as_bytes()).unwrap();
        packet::send(self.0.as_fd(), &bytes, &[memfd.as_fd()]).unwrap();
    }
}

fn exec() -> ExecRequest {
    ExecRequest {
        runtime: Uuid::from_u128(1),
        runtime_resources: RuntimeResources {
            memory_bytes: MIB,
            pids: 1,
            cpu_millis: 10,
        },
        cell_resources: CellResources {
            memory_bytes: MIB,
            pids: 1,
            cpu_secs: None,
        },
        hostname: "x".to_owned(),
        command: b"x".to_vec(),
        stdin: false,
        terminal: None,
    }
}

#[tokio::test]
async fn an_exec_that_is_given_up_before_it_starts_is_killed() {
    let (_keep, replacements) = mpsc::unbounded_channel();
    let (warden, peer) = Peer::connect(replacements);
    let starting = warden.exec(exec()).unwrap();
    let Some((Request::Exec(CellRequest { seq, .. }), 1)) = peer.request().await else {
        panic!("no exec");
    };
    drop(starting);
    assert_eq!(
        peer.request().await.unwrap().0,
        Request::Kill { seq },
        "it would run for nobody"
    );
}

#[tokio::test]
async fn a_call_whose_asker_is_gone_is_not_sent() {
    let (_keep, replacements) = mpsc::unbounded_channel();
    let (warden, peer) = Peer::connect(replacements);
    // The link's task has had no turn yet.
    let given_up = warden.stop_runtime(Uuid::from_u128(1));
    tokio::select! {
        biased;
        _ = given_up => panic!("answered"),
        () = std::future::ready(()) => {}
    }
    let asked = tokio::spawn(async move { warden.list_images().await });
    let (request, _) = peer.request().await.unwrap();
    assert!(matches!(request, Request::ListImages { .. }), "{request:?}");
    asked.abort();
}

#[tokio::test]
async fn a_link_that_breaks_is_closed_before_the_next_warden_comes() {
    let (tell, replacements) = mpsc::unbounded_channel();
    let (warden, peer) = Peer::connect(replacements);
    let asking = warden.clone();
    let asked = tokio::spawn(async move { asking.list_images().await });
    peer.request().await.unwrap();
    // Longer than anything that a warden sends.
    peer.reply(&[b' '; MAX_MESSAGE + 1]);
    assert!(matches!(asked.await.unwrap(), Err(WardenError::Lost)));
    assert!(
        peer.request().await.is_none(),
        "the old socket is still open"
    );

    let (ours, next) = packet::pair().unwrap();
    tell.send(ours).unwrap();
    let next = Peer(next);
    let asked = tokio::spawn(async move { warden.list_images().await });
    let Some((Request::ListImages { seq, after: None }, 0)) = next.request().await else {
        panic!("nothing asked of the next one");
    };
    let go_on = Some("host".to_owned());
    let host = r#"[{"name": "host", "kind": "host", "layers": []}]"#;
    next.reply_with(&Reply::Images { seq, next: go_on }, host);
    // Pages are asked for until one is the last.
    let Some((Request::ListImages { seq, after }, 0)) = next.request().await else {
        panic!("no second page was asked for");
    };
    assert_eq!(after.as_deref(), Some("host"));
    next.reply_with(&Reply::Images { seq, next: None }, "[]");
    let images = asked.await.unwrap().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].name, "host");
}

#[tokio::test]
async fn a_runtime_comes_with_what_its_image_says() {
    let (_keep, replacements) = mpsc::unbounded_channel();
    let (warden, peer) = Peer::connect(replacements);
    let spec = RuntimeSpec {
        id: Uuid::from_u128(1),
        image: "an-image".into(),
        profile: "default".into(),
        filesystem: crate::warden::protocol::Filesystem::Persistent,
        disk_mib: 64,
    };
    let large = format!(r#"{{"env": {{"A": "{}"}}}}"#, "x".repeat(100_000));
    // With a configuration, with none, and with one that got lost on its way.
    for (image_id, config) in [(true, Some(large)), (false, None), (true, None)] {
        let image_id = image_id.then(|| Digest::of(b"id"));
        let (asking, spec) = (warden.clone(), spec.clone());
        let asked = tokio::spawn(async move { asking.create_runtime(spec, None).await });
        let Some((Request::CreateRuntime { seq, .. }, 0)) = peer.request().await else {
            panic!("nothing was asked for");
        };
        let reply = Reply::Created { seq, image_id };
        match &config {
            Some(config) => peer.reply_with(&reply, config),
            None => peer.reply(&serde_json::to_vec(&reply).unwrap()),
        }
        match (asked.await.unwrap(), image_id, config) {
            (Ok(Some(image)), Some(id), Some(_)) => {
                assert_eq!((image.id, image.config.env["A"].len()), (id, 100_000));
            }
            (Ok(None), None, None) | (Err(WardenError::Io { .. }), Some(_), None) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_end_is_told_as_often_as_it_is_asked_for() {
    for lost in [false, true] {
        let (_keep, replacements) = mpsc::unbounded_channel();
        let (warden, peer) = Peer::connect(replacements);
        let starting = warden.exec(exec()).unwrap();
        let Some((Request::Exec(CellRequest { seq, .. }), 1)) = peer.request().await else {
            panic!("no exec");
        };
        let mut running = starting.running();
        if lost {
            drop(peer);
        } else {
            let ended = Reply::Ended {
                seq,
                end: CellEnd::Killed,
                oom_killed: true,
                cpu_exceeded: false,
                usage: Usage::default(),
                beginning: Beginning::default(),
            };
            peer.reply(&serde_json::to_vec(&ended).unwrap());
        }
        for _ in 0..3 {
            match running.ended().await {
                Ok(ended) => assert!(!lost && ended.oom_killed),
                Err(error) => assert!(lost && matches!(error, WardenError::Lost), "{error:?}"),
            }
        }
        assert!(
            running.signals().is_none(),
            "there is nobody left to hear one"
        );
    }
}
