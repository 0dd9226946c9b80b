//! The api process's start: opens what needs root, enters its jail, and only then lets tokio make threads.

use crate::api::{Parts, Ready};
use crate::config::Config;
use crate::profile::ProfileSet;
use crate::roles::fds;
use crate::roles::{API, ApiSettings, DATABASE, PING, PONG, READY, WARDEN, jail};
use crate::sys::polled::{self, Polled, register};
use crate::sys::{self, packet};
use crate::warden::client::Warden;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

type Error = Box<dyn std::error::Error>;

/// Serves HTTP until SIGTERM, or until the supervisor is gone.
pub fn run() -> Result<(), Error> {
    let ApiSettings {
        mut config,
        admin_token,
        token_source,
    } = super::settings()?;
    let supervisor = sys::inherited_fd(fds::CONTROL)?;
    let link = sys::inherited_fd(fds::LINK)?;
    // Only held: the data directory is free again when the last process of the service is gone.
    let _lock = sys::inherited_fd(fds::LOCK)?;
    nix::sys::prctl::set_name(c"cellblock-api")?;
    // Not what the supervisor has open: whether that waits would be up to this process.
    crate::log::never_wait();
    crate::log::init(config.log_format);

    let listener = TcpListener::bind(config.listen).map_err(|error| {
        format!(
            "listen on {}: {error}; choose another --listen address",
            config.listen
        )
    })?;
    let profiles = ProfileSet::load(config.profiles_dir.as_deref())?;
    let descriptors = sys::raise_descriptor_limit();
    let connections = connections(&config, descriptors);
    if connections < config.max_connections {
        tracing::warn!(
            max_connections = connections,
            descriptors,
            "fewer connections than configured: the limit of open files (ulimit -n, LimitNOFILE=) is too low for more"
        );
        config.max_connections = connections;
    }
    jail::enter(
        &config.data_dir.join("state"),
        config.api_uid,
        config.api_gid,
    )?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let (tell, replacements) = mpsc::unbounded_channel();
        let warden = Warden::connect(link, replacements)?;
        let supervisor = std::sync::Arc::new(register(supervisor)?);
        tokio::spawn(follow(supervisor.clone(), tell));
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = async move {
            terminate.recv().await;
        };
        let store_path = Path::new(jail::STATE).join(DATABASE);
        let parts = Parts {
            config,
            listener,
            store_path,
            warden,
            profiles: (&profiles).into(),
            admin_token,
        };
        let ready = |ready: &Ready| {
            crate::log::announce(welcome(ready, &token_source));
            let _ = packet::send(supervisor.get_ref().as_fd(), READY, &[]);
        };
        crate::api::run(parts, ready, shutdown)
            .await
            .map_err(Error::from)
    })
}

/// How many connections may be open, so that commands and file operations still find descriptors.
fn connections(config: &Config, descriptors: u64) -> u32 {
    /// Listener, database, sockets to the other processes, the reactor's own.
    const OWN: u64 = 64;
    /// Three pipes, and two files that a detached command's output goes to.
    const COMMAND: u64 = 5;
    /// Three pipes.
    const TRANSFER: u64 = 3;
    /// The socket, a second handle to see its end with, and the file of a kept output that is sent over it.
    const CONNECTION: u64 = 3;
    let left = descriptors.saturating_sub(OWN);
    let work = COMMAND * u64::from(config.exec.max_execs + config.exec.max_parked())
        + TRANSFER * u64::from(config.files.max_file_transfers);
    // Where even that is too many: each connection has a command.
    let most = (left.saturating_sub(work) / CONNECTION)
        .max(left / (CONNECTION + COMMAND))
        .max(1);
    config
        .max_connections
        .min(u32::try_from(most).unwrap_or(u32::MAX))
}

/// What the operator sees: where the service is, and a line to paste.
fn welcome(ready: &Ready, token_source: &str) -> String {
    let (address, example) = (ready.address, crate::api::EXAMPLE);
    format!(
        "Cellblock listens on http://{address}\nTry it:\n\n  \
         curl -s http://{address}/v1/runtimes/{example}/exec \
         -H \"Authorization: Bearer {token_source}\" \
         -H 'Content-Type: application/json' \
         -d '{{\"command\":\"echo hello; id\"}}'\n"
    )
}

/// Hears of new wardens from the supervisor, tells it that this process lives, and ends it when the supervisor is gone.
async fn follow(supervisor: std::sync::Arc<AsyncFd<Polled>>, tell: mpsc::UnboundedSender<OwnedFd>) {
    let mut buffer = [0; 16];
    loop {
        let Ok(mut ready) = supervisor.readable().await else {
            break;
        };
        match ready.try_io(|fd| Ok(packet::receive(fd.as_fd(), &mut buffer)?)) {
            Err(_would_block) => {}
            Ok(Ok(Some(packet))) if &buffer[..packet.length] == WARDEN.as_bytes() => {
                packet.fds.into_iter().for_each(|fd| {
                    let _ = tell.send(fd);
                });
            }
            Ok(Ok(Some(packet))) if &buffer[..packet.length] == PING => {
                // It asks again when it has this answer, so there is room for it.
                let _ = polled::send(&supervisor, PONG, &[]).await;
            }
            Ok(Ok(Some(_))) => tracing::error!("the supervisor said what {API} does not know"),
            Ok(Ok(None) | Err(_)) => break,
        }
    }
    // Nothing is to be saved: the state is on disk, and the warden kills what runs.
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn connections_leave_descriptors_for_commands_and_files() {
        let config = Config::resolve(RawConfig::default()).unwrap();
        assert_eq!((config.max_connections, config.exec.max_execs), (4096, 512));
        assert_eq!(config.files.max_file_transfers, 64);
        assert_eq!(connections(&config, 1 << 20), 4096);
        assert_eq!(
            connections(&config, 8192),
            (8192 - 64 - 5 * (512 + 256) - 3 * 64) / 3
        );
        assert_eq!(connections(&config, 4096), (4096 - 64) / 8);
        assert_eq!(connections(&config, 1024), 120);
        assert_eq!(connections(&config, 20), 1);
    }
}
