//! The supervisor: what `cellblock serve` is. Root, single-threaded, with no network and no tenant's bytes: it starts the
//! warden and the api process, restarts what dies, forwards SIGTERM, and its exit code is the service's.
//!
//! Both children are our own binary again, from a sealed memfd: a command that gets hold of `/proc/1/exe` in its cell
//! finds a copy that nobody can change (CVE-2019-5736). Each holds one end of a control socket of ours and ends on its
//! EOF, so a killed supervisor leaves nothing running.

mod child;
mod setup;

pub use child::Program;

use crate::config::Config;
use crate::roles::{API, ApiSettings, READY, WARDEN};
use crate::sys::packet;
use crate::warden::server::Settings;
use child::Child;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Error = Box<dyn std::error::Error>;

/// How often in a row a child may die within [`SHORT_LIFE`] of its start before the service gives up.
const MAX_FAILURES: u32 = 5;
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// How long the warden may take to close everything at the end.
const LAST_WAIT: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or SIGINT. An error before the service answers is told on stderr.
pub fn serve(config: &Config) -> ExitCode {
    match run(config) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("cellblock: {}", crate::log::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> Result<u8, Error> {
    let home = setup::prepare(config)?;
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags)?;
    let program = Program::new()?;
    Supervisor {
        config,
        home,
        signals,
        program,
    }
    .supervise()
}

struct Supervisor<'a> {
    config: &'a Config,
    home: setup::Home,
    signals: SignalFd,
    program: Program,
}

impl Supervisor<'_> {
    fn supervise(&self) -> Result<u8, Error> {
        let (mut api_deaths, mut warden_deaths) = (0, 0);
        'pair: loop {
            let (mut warden, link) = self.start_warden()?;
            let mut api = self.start_api(&link)?;
            drop(link);
            let mut ready = false;
            let api_since = Instant::now();
            let mut warden_since = api_since;
            loop {
                let stop = self.wait(&api, &mut ready)?;
                if stop {
                    api.terminate();
                    let code = api.wait(None).unwrap_or(1);
                    return Ok(self.close(warden, code));
                }
                if let Some(code) = api.ended() {
                    let code = if code == 0 { 1 } else { code };
                    api_deaths = count(api_deaths, api_since);
                    // The warden hears that its api is gone, kills every cell and ends too.
                    let code = self.close(warden, code);
                    if !ready {
                        // It has said why.
                        return Ok(code);
                    }
                    if api_deaths >= MAX_FAILURES {
                        return Err("the api process keeps dying; its log lines say why".into());
                    }
                    eprintln!("cellblock: the api process ended; restarting");
                    continue 'pair;
                }
                if warden.ended().is_some() {
                    warden_deaths = count(warden_deaths, warden_since);
                    if warden_deaths >= MAX_FAILURES {
                        return Err("the warden keeps dying; its log lines say why".into());
                    }
                    eprintln!("cellblock: the warden ended; restarting");
                    warden_since = Instant::now();
                    let (next, link) = self.start_warden()?;
                    warden = next;
                    // An api that does not listen is dying; the loop will see it.
                    let _ = packet::send(api.control.as_fd(), WARDEN.as_bytes(), &[link.as_fd()]);
                }
            }
        }
    }

    /// Starts a warden and waits until it is ready. Returns it with the api's end of their socket.
    fn start_warden(&self) -> Result<(Child, OwnedFd), Error> {
        let (api_end, warden_end) = packet::pair()?;
        let settings = Settings {
            data_dir: self.config.data_dir.clone(),
            instance: self.home.instance.clone(),
            profiles_dir: self.config.profiles_dir.clone(),
            uid_base: self.config.uid_base,
            uid_ranges: self.config.uid_ranges,
            log_format: self.config.log_format,
        };
        let settings = serde_json::to_vec(&settings)?;
        let child = self
            .program
            .start(WARDEN, &settings, &warden_end, &self.home.lock)?;
        drop(warden_end);
        let mut buffer = [0; 16];
        match packet::receive(child.control.as_fd(), &mut buffer)? {
            Some(packet) if &buffer[..packet.length] == READY => Ok((child, api_end)),
            _ => Err("the warden could not start; its log line says why".into()),
        }
    }

    fn start_api(&self, link: &OwnedFd) -> Result<Child, Error> {
        let settings = ApiSettings {
            config: self.config.clone(),
            admin_token: self.home.admin_token()?,
            token_source: self.home.token_source(),
        };
        let settings = serde_json::to_vec(&settings)?;
        self.program.start(API, &settings, link, &self.home.lock)
    }

    /// Waits for a signal or a word of the api process; true when the service is to end.
    fn wait(&self, api: &Child, ready: &mut bool) -> Result<bool, Error> {
        let api_events = if *ready {
            PollFlags::empty()
        } else {
            PollFlags::POLLIN
        };
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(api.control.as_fd(), api_events),
        ];
        match poll(&mut fds[..if *ready { 1 } else { 2 }], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if !*ready && fds[1].any() == Some(true) {
            let mut buffer = [0; 16];
            match packet::receive(api.control.as_fd(), &mut buffer) {
                Ok(Some(packet)) => *ready = &buffer[..packet.length] == READY,
                // It is ending: its SIGCHLD follows, and until then there is nothing to wait for but that.
                _ => {
                    api.wait_for_end(None);
                }
            }
        }
        let mut stop = false;
        while let Some(signal) = self.signals.read_signal()? {
            stop |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
        Ok(stop)
    }

    /// Lets the warden close every cell, cgroup and mount, and waits for it.
    fn close(&self, mut warden: Child, code: u8) -> u8 {
        warden.hang_up();
        if warden.wait(Some(LAST_WAIT)).is_none() {
            eprintln!("cellblock: the warden did not end in time and was killed");
            warden.kill();
            return 1;
        }
        code
    }
}

/// Deaths in a row that came soon after a start.
fn count(deaths: u32, started: Instant) -> u32 {
    if started.elapsed() < SHORT_LIFE {
        deaths + 1
    } else {
        1
    }
}
