//! The supervisor: what `cellblock serve` is. Root, single-threaded, with no network and no tenant's bytes: it starts the
//! warden and the api process, restarts what dies, forwards SIGTERM, and its exit code is the service's.
//!
//! Both children are our own binary again, from a sealed memfd: a command that gets hold of `/proc/1/exe` in its cell
//! finds a copy that nobody can change (CVE-2019-5736). Each holds one end of a control socket of ours and ends on its
//! EOF, so a killed supervisor leaves nothing running.

mod child;
mod deaths;
mod pulse;
mod setup;

pub use child::Program;

use crate::config::Config;
use crate::roles::{API, ApiSettings, WARDEN, powers};
use crate::sys::packet;
use crate::warden::server::Settings;
use child::{Child, Said};
use deaths::Deaths;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Error = Box<dyn std::error::Error>;

/// How long a child may take until it can serve.
const START_WAIT: Duration = Duration::from_secs(60);
/// How long the warden may take to close everything at the end, and the api process beside its time for draining.
const LAST_WAIT: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or SIGINT. An error before the service answers is told on stderr.
pub fn serve(config: &Config) -> ExitCode {
    crate::log::never_wait();
    match run(config) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            crate::log::tell(crate::log::chain(error.as_ref()));
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
    let program =
        Program::new().map_err(|error| format!("copying this program to run it: {error}"))?;
    powers::keep_supervisors()?;
    Supervisor {
        config,
        home,
        signals,
        program,
        served: false,
    }
    .supervise()
}

struct Supervisor<'a> {
    config: &'a Config,
    home: setup::Home,
    signals: SignalFd,
    program: Program,
    /// The service has answered. Until then whatever fails ends it, with the reason; afterwards it is tried again.
    served: bool,
}

/// What was waited for.
enum Heard {
    /// The service is to end.
    Stop,
    /// A child ended, perhaps.
    Child,
    /// The child that starts can serve.
    Ready,
    /// The child that starts is ending.
    Failed,
    /// Nothing, in the whole time.
    Nothing,
}

impl Supervisor<'_> {
    fn supervise(&mut self) -> Result<u8, Error> {
        let (mut api_deaths, mut warden_deaths) = (Deaths::of("api process"), Deaths::of("warden"));
        loop {
            let Some((warden, link)) = self.new_warden(&mut warden_deaths)? else {
                return Ok(0);
            };
            let started = Instant::now();
            let api = match self.start_api(&link) {
                Ok(api) => api,
                Err(error) => {
                    self.close(warden, 1);
                    self.failed(error, &mut api_deaths)?;
                    continue;
                }
            };
            drop(link);
            match self.serve(api, warden, &mut warden_deaths)? {
                Ended::Stopped(code) => return Ok(code),
                // It has said why.
                Ended::Api(code) if !self.served => return Ok(code),
                Ended::Api(_) => api_deaths.count(started.elapsed())?,
            }
            crate::log::tell("the api process ended; restarting");
            if self.pause(api_deaths.pause())? {
                return Ok(0);
            }
        }
    }

    /// Serves until the service is to end or the api process has ended; the warden has ended then too.
    fn serve(
        &mut self,
        mut api: Child,
        mut warden: Child,
        warden_deaths: &mut Deaths,
    ) -> Result<Ended, Error> {
        let mut ready = false;
        let api_until = Instant::now() + START_WAIT;
        let mut warden_since = Instant::now();
        loop {
            // Looked at before each wait: the signal that told of a death may have been read elsewhere.
            if let Some(code) = api.ended() {
                let code = if code == 0 { 1 } else { code };
                // The warden hears that its api is gone, kills every cell and ends too.
                return Ok(Ended::Api(self.close(warden, code)));
            }
            if warden.ended().is_some() {
                warden_deaths.count(warden_since.elapsed())?;
                crate::log::tell("the warden ended; restarting");
                let next = match self.pause(warden_deaths.pause())? {
                    false => self.new_warden(warden_deaths)?,
                    true => None,
                };
                let Some((next, link)) = next else {
                    return Ok(self.stop(api, warden));
                };
                warden = next;
                warden_since = Instant::now();
                // Without it, whatever the reason is, an api that lives would have no warden for ever: both begin anew.
                let control = api.control.as_fd();
                if let Err(errno) = packet::offer(control, WARDEN.as_bytes(), &[link.as_fd()]) {
                    crate::log::tell(format!(
                        "the api process can't have the new warden: {errno}"
                    ));
                    api.end_within(Duration::ZERO, None);
                }
                continue;
            }
            let heard = match ready {
                true => self.watch(&mut api, &mut warden)?,
                false => self.hear(&mut api, api_until)?,
            };
            match heard {
                Heard::Stop => return Ok(self.stop(api, warden)),
                Heard::Child => {}
                Heard::Ready => {
                    ready = true;
                    self.served = true;
                }
                Heard::Failed => {
                    api.end_within(LAST_WAIT, None);
                }
                Heard::Nothing => {
                    crate::log::tell("the api process was not ready in time and was killed");
                    api.end_within(Duration::ZERO, None);
                }
            }
        }
    }

    /// Lets running commands end, then everything.
    fn stop(&self, mut api: Child, mut warden: Child) -> Ended {
        api.terminate();
        let limit = Duration::from_secs(self.config.drain_secs) + LAST_WAIT;
        let code = api.end_within(limit, Some(&mut warden)).unwrap_or_else(|| {
            crate::log::tell("the api process did not end in time and was killed");
            1
        });
        Ended::Stopped(self.close(warden, code))
    }

    /// A warden that is ready, with the api's end of their socket; none when the service is to end meanwhile.
    fn new_warden(&self, deaths: &mut Deaths) -> Result<Option<(Child, OwnedFd)>, Error> {
        loop {
            match self.start_warden() {
                Ok(started) => return Ok(started),
                Err(error) => self.failed(error, deaths)?,
            }
            if self.pause(deaths.pause())? {
                return Ok(None);
            }
        }
    }

    /// Counts a failed start as a death, once the service has answered; before, it is the end.
    fn failed(&self, error: Error, deaths: &mut Deaths) -> Result<(), Error> {
        if !self.served {
            return Err(error);
        }
        crate::log::tell(crate::log::chain(error.as_ref()));
        deaths.count(Duration::ZERO)
    }

    /// Starts a warden and waits until it is ready.
    fn start_warden(&self) -> Result<Option<(Child, OwnedFd)>, Error> {
        let (api_end, warden_end) = packet::pair()?;
        let settings = Settings {
            data_dir: self.config.data_dir.clone(),
            instance: self.home.instance.clone(),
            profiles_dir: self.config.profiles_dir.clone(),
            uid_base: self.config.uid_base,
            uid_ranges: self.config.uid_ranges,
            max_vcpus: self.config.max_vcpus,
            max_parked_cells: self.config.max_parked_cells,
            log_format: self.config.log_format,
        };
        let settings = serde_json::to_vec(&settings)?;
        let mut child = self
            .program
            .start(WARDEN, &settings, &warden_end, &self.home.lock)?;
        drop(warden_end);
        let until = Instant::now() + START_WAIT;
        loop {
            match self.hear(&mut child, until)? {
                Heard::Ready => return Ok(Some((child, api_end))),
                Heard::Child => {
                    child.ended();
                }
                Heard::Stop => {
                    // It has no cell to close yet.
                    child.end_within(Duration::ZERO, None);
                    return Ok(None);
                }
                Heard::Failed => {
                    child.end_within(LAST_WAIT, None);
                    return Err("the warden could not start; its log line says why".into());
                }
                Heard::Nothing => {
                    child.end_within(Duration::ZERO, None);
                    return Err("the warden was not ready in time and was killed".into());
                }
            }
        }
    }

    fn start_api(&self, link: &OwnedFd) -> Result<Child, Error> {
        self.home.check_state()?;
        let settings = ApiSettings {
            config: self.config.clone(),
            admin_token: self.home.admin_token()?,
            token_source: self.home.token_source(),
        };
        let settings = serde_json::to_vec(&settings)?;
        self.program.start(API, &settings, link, &self.home.lock)
    }

    /// Waits for a signal or for the word of a child that starts, which must have spoken by then.
    fn hear(&self, child: &mut Child, until: Instant) -> Result<Heard, Error> {
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(child.control.as_fd(), PollFlags::POLLIN),
        ];
        let limit = until.saturating_duration_since(Instant::now());
        match poll(&mut fds, child::timeout(Some(limit))) {
            Ok(0) => return Ok(Heard::Nothing),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let spoke = fds[1].any() == Some(true);
        if self.told_to_stop()? {
            return Ok(Heard::Stop);
        }
        if !spoke {
            return Ok(Heard::Child);
        }
        match child.said() {
            Said::Ready => Ok(Heard::Ready),
            Said::Other | Said::Nothing => Ok(Heard::Failed),
        }
    }

    /// Waits for a signal, and looks after both roles: one that hangs is killed, and ends like any other.
    fn watch(&self, api: &mut Child, warden: &mut Child) -> Result<Heard, Error> {
        let now = Instant::now();
        let next = api.next_look().min(warden.next_look());
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        for child in [&*api, &*warden] {
            if child.listens() {
                fds.push(PollFd::new(child.control.as_fd(), PollFlags::POLLIN));
            }
        }
        match poll(
            &mut fds,
            child::timeout(Some(next.saturating_duration_since(now))),
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut spoke = fds
            .iter()
            .skip(1)
            .map(|fd| fd.any() == Some(true))
            .collect::<Vec<_>>()
            .into_iter();
        for child in [api, warden] {
            if child.listens() && spoke.next() == Some(true) {
                child.said();
            }
            child.look_after(Instant::now());
        }
        match self.told_to_stop()? {
            true => Ok(Heard::Stop),
            false => Ok(Heard::Child),
        }
    }

    /// Waits for so long; true when the service is to end meanwhile.
    fn pause(&self, time: Duration) -> Result<bool, Error> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, child::timeout(Some(left))) {
                Ok(0) => return Ok(false),
                Ok(_) | Err(Errno::EINTR) if self.told_to_stop()? => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Reads the signals that came; true when one of them asks for the end. A child's is looked at by the caller.
    fn told_to_stop(&self) -> Result<bool, Errno> {
        let mut stop = false;
        while let Some(signal) = self.signals.read_signal()? {
            stop |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
        Ok(stop)
    }

    /// Lets the warden close every cell, cgroup and mount, and waits for it.
    fn close(&self, mut warden: Child, code: u8) -> u8 {
        warden.hang_up();
        if warden.end_within(LAST_WAIT, None).is_none() {
            crate::log::tell("the warden did not end in time and was killed");
            return 1;
        }
        code
    }
}

/// Why nothing is served any more.
enum Ended {
    /// The service was told to end; its exit code.
    Stopped(u8),
    /// The api process ended; the exit code where that ends the service.
    Api(u8),
}
