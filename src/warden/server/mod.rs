//! The warden itself: one thread, one epoll loop, no tokio, no network. It takes requests from the api process, keeps the
//! catalogues of runtimes ([`catalogue`]) and [`checkpoints`], opens and closes cells ([`cells`]), holds them still
//! ([`standstill`]) and lets children do what takes long ([`jobs`]). It trusts the api process with nothing but the right to run cells.
//!
//! It ends, and every cell with it, when the api process or the supervisor is gone.

mod building;
mod catalogue;
mod cells;
mod channels;
mod checkpoints;
mod copying;
pub mod disk;
mod ending;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod graves;
mod images;
mod jobs;
mod limits;
mod opening;
mod parking;
mod policy;
mod purposes;
mod records;
mod requests;
mod runtimes;
mod settings;
mod signals;
mod sockets;
mod standstill;

pub use settings::Settings;

use crate::cgroup::CgroupHost;
use crate::image::ImageStore;
use crate::profile::ProfileSet;
use crate::roles::{PING, PONG, filters};
use crate::sys::packet;
use crate::warden::protocol::{MAX_MESSAGE, Reply, Request};
use catalogue::Catalogue;
use checkpoints::Checkpoints;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// With so many replies that the api's socket has no room for, no request is taken: an api process that asks and does not
/// listen gets no more than that and the ends of its cells.
const MAX_OUTGOING: usize = 1024;

/// What the loop waits for; packed into epoll's 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Supervisor,
    Api,
    /// A cell's control socket, by slot.
    Control(u32),
    /// A cell's pidfd.
    Exit(u32),
    /// A cell's OOM notification.
    Oom(u32),
    /// A job's result, by its number.
    Job(u32),
}

impl Source {
    fn pack(self) -> u64 {
        let (kind, number) = match self {
            Source::Supervisor => (0, 0),
            Source::Api => (1, 0),
            Source::Control(slot) => (2, slot),
            Source::Exit(slot) => (3, slot),
            Source::Oom(slot) => (4, slot),
            Source::Job(number) => (5, number),
        };
        kind << 32 | u64::from(number)
    }

    fn unpack(data: u64) -> Source {
        let number = data as u32;
        match data >> 32 {
            0 => Source::Supervisor,
            1 => Source::Api,
            2 => Source::Control(number),
            3 => Source::Exit(number),
            4 => Source::Oom(number),
            _ => Source::Job(number),
        }
    }
}

/// All state of the warden.
struct Warden {
    epoll: Epoll,
    api: OwnedFd,
    supervisor: OwnedFd,
    cgroups: CgroupHost,
    images: ImageStore,
    policies: HashMap<String, policy::Policy>,
    catalogue: Catalogue,
    checkpoints: Checkpoints,
    cells: cells::Cells,
    jobs: jobs::Jobs,
    /// When it was last looked for what nobody has used for long.
    swept: Instant,
    /// The machine's memory in bytes, and how many of its processors one runtime may have.
    host: (u64, u64),
    /// Replies that the api's socket had no room for.
    outgoing: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// Runs until the api process or the supervisor is gone. `ready` is called once requests can be served.
pub fn run(
    settings: Settings,
    api: OwnedFd,
    supervisor: OwnedFd,
    ready: impl FnOnce(&OwnedFd),
) -> Result<(), Box<dyn Error>> {
    let mut warden = Warden::start(settings, api, supervisor)?;
    ready(&warden.supervisor);
    let result = warden.serve();
    warden.close();
    result
}

/// Looks once what the kernel has of Landlock, and says so.
fn landlock() -> crate::landlock::Abi {
    let abi = crate::landlock::abi();
    match crate::landlock::describe(abi) {
        Ok(has) => tracing::info!("Landlock {has}"),
        Err(lacks) => tracing::warn!("Landlock {lacks}"),
    }
    abi
}

impl Warden {
    fn start(
        settings: Settings,
        api: OwnedFd,
        supervisor: OwnedFd,
    ) -> Result<Warden, Box<dyn Error>> {
        let profiles = ProfileSet::load(settings.profiles_dir.as_deref())?;
        let policies = policy::compile_all(&profiles, landlock())?;
        filters::enter_warden(&profiles)?;
        // A cell costs up to a dozen descriptors.
        crate::sys::raise_descriptor_limit();
        // Before the others: the sweep of the groups waits for processes that such a disk may hold.
        copying::thaw_leftovers(&settings.data_dir);
        let cgroups = CgroupHost::discover(&settings.instance)?;
        let made = cgroups.clone();
        // What fails from here on leaves no group behind.
        Warden::start_with(cgroups, settings, policies, api, supervisor).inspect_err(|_| {
            let _ = made.remove_base();
        })
    }

    fn start_with(
        cgroups: CgroupHost,
        settings: Settings,
        policies: HashMap<String, policy::Policy>,
        api: OwnedFd,
        supervisor: OwnedFd,
    ) -> Result<Warden, Box<dyn Error>> {
        cgroups.prepare()?;
        copying::settle_leftovers(&settings.data_dir);
        let images = ImageStore::new(&settings.data_dir);
        images.prepare()?;
        let catalogue = Catalogue::load(&settings)?;
        let checkpoints = Checkpoints::load(&settings)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        use nix::unistd::{SysconfVar, sysconf};
        // Not those that this process may use: cells need not be below its own group.
        let processors = sysconf(SysconfVar::_NPROCESSORS_ONLN)?.unwrap_or(1);
        let processors = u64::try_from(processors)?.min(settings.max_vcpus.into());
        let host = (crate::config::memory_bytes()?, processors);
        nonblocking(&api)?;
        epoll.add(
            &api,
            EpollEvent::new(EpollFlags::EPOLLIN, Source::Api.pack()),
        )?;
        epoll.add(
            &supervisor,
            EpollEvent::new(EpollFlags::EPOLLIN, Source::Supervisor.pack()),
        )?;
        Ok(Warden {
            epoll,
            api,
            supervisor,
            host,
            cgroups,
            images,
            policies,
            catalogue,
            checkpoints,
            cells: cells::Cells::new(parking::Parking::new(settings.max_parked_cells)),
            jobs: jobs::Jobs::default(),
            swept: Instant::now(),
            outgoing: VecDeque::new(),
        })
    }

    fn serve(&mut self) -> Result<(), Box<dyn Error>> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let timeout = EpollTimeout::try_from(self.next_tick()).unwrap_or(EpollTimeout::MAX);
            let count = match self.epoll.wait(&mut events, timeout) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..count] {
                match Source::unpack(event.data()) {
                    Source::Supervisor => {
                        if !self.answer_supervisor() {
                            return Ok(());
                        }
                    }
                    Source::Api => {
                        if event.events().contains(EpollFlags::EPOLLOUT) {
                            self.flush()?;
                        }
                        if !self.receive_requests()? {
                            return Ok(());
                        }
                    }
                    Source::Control(slot) => self.cell_spoke(slot),
                    Source::Exit(slot) => self.cell_is_gone(slot),
                    Source::Oom(slot) => self.cell_ran_out_of_memory(slot),
                    Source::Job(number) => self.job_is_done(number),
                }
            }
            self.tick(Instant::now());
            if count == 0 {
                self.park(Instant::now());
            }
        }
    }

    /// When to look at what sends no event: CPU seconds, OOM counts, sockets, busy groups, processes that come to stand still,
    /// what is held for a moment, idle runtimes.
    fn next_tick(&self) -> Duration {
        let watching = self.cells.need_watching() || self.catalogue.may_freeze();
        let reasons = [
            self.may_park(),
            watching.then_some(Duration::from_millis(10)),
            self.cells.next_letting_go(),
            self.cells.parking.next_look(),
            self.next_look_at_sockets(),
        ];
        let most = Duration::from_secs(30);
        reasons.into_iter().flatten().fold(most, Duration::min)
    }

    /// Says that the loop goes round; false when the supervisor is gone.
    fn answer_supervisor(&self) -> bool {
        let mut buffer = [0; 16];
        match packet::receive(self.supervisor.as_fd(), &mut buffer) {
            Ok(Some(packet)) if &buffer[..packet.length] == PING => {
                // It asks again when it has this answer, so there is room for it.
                let sent = packet::send(self.supervisor.as_fd(), PONG, &[]);
                !matches!(sent, Err(Errno::EPIPE | Errno::ECONNRESET))
            }
            Ok(Some(_)) | Err(Errno::EINTR | Errno::ENOMEM) => true,
            Ok(None) | Err(_) => false,
        }
    }

    /// Takes all waiting requests; false when the api process is gone.
    fn receive_requests(&mut self) -> Result<bool, Errno> {
        let mut buffer = [0; MAX_MESSAGE];
        // Bounded, so that a flood of requests does not keep cells from being heard.
        for _ in 0..64 {
            if self.outgoing.len() >= MAX_OUTGOING {
                return Ok(true);
            }
            let packet = match packet::receive(self.api.as_fd(), &mut buffer) {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(false),
                Err(Errno::EAGAIN | Errno::ENOMEM) => return Ok(true),
                Err(Errno::ECONNRESET) => return Ok(false),
                Err(Errno::EMSGSIZE) => {
                    tracing::error!("a request longer than {MAX_MESSAGE} bytes was dropped");
                    continue;
                }
                Err(errno) => return Err(errno),
            };
            match serde_json::from_slice::<Request>(&buffer[..packet.length]) {
                Ok(request) => self.handle(request, packet.fds),
                Err(error) => tracing::error!(%error, "a malformed request was dropped"),
            }
        }
        Ok(true)
    }

    /// Sends a reply, now or when the socket has room again.
    fn reply(&mut self, reply: &Reply, fds: Vec<OwnedFd>) {
        let bytes = serde_json::to_vec(reply).expect("replies are plain data");
        debug_assert!(bytes.len() <= MAX_MESSAGE);
        self.outgoing.push_back((bytes, fds));
        if let Err(errno) = self.flush() {
            // Only a vanished peer makes this fail; the loop hears of that by itself.
            tracing::debug!(%errno, "reply not sent");
        }
    }

    fn flush(&mut self) -> Result<(), Errno> {
        while let Some((bytes, fds)) = self.outgoing.front() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match packet::send(self.api.as_fd(), bytes, &borrowed) {
                Ok(()) => {
                    self.outgoing.pop_front();
                }
                Err(Errno::EAGAIN) => break,
                Err(errno) if packet::is_shortage(errno) => break,
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    self.outgoing.clear();
                }
                Err(errno) => return Err(errno),
            }
        }
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, self.outgoing.len() < MAX_OUTGOING);
        interest.set(EpollFlags::EPOLLOUT, !self.outgoing.is_empty());
        self.epoll.modify(
            &self.api,
            &mut EpollEvent::new(interest, Source::Api.pack()),
        )
    }

    /// Kills every cell, waits for every child, removes every group.
    fn close(&mut self) {
        // A frozen disk would hold processes that are to end, and its mount would never go.
        self.jobs.end(jobs::Lane::Copy);
        for id in self.catalogue.copying() {
            self.thaw_disk(id);
        }
        self.cells.kill_all();
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            use nix::sys::wait::{WaitPidFlag, waitpid};
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(nix::sys::wait::WaitStatus::StillAlive) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::ECHILD) => break,
                _ => {}
            }
        }
        if let Err(error) = self.cgroups.remove_base() {
            tracing::error!(error = &error as &dyn Error, "cgroups are left behind");
        }
    }
}

fn nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}
