//! What the api process may ask for, and the checks that hold whoever asks. A field out of range is refused here even
//! though an honest api process never sends one.

use crate::cell::command::MAX_ENCODED;
use crate::resources::{CellResources, MIB, RuntimeResources};
use crate::warden::protocol::{Busy, CellRequest, Failure, MAX_IDS, Reply, Request, RuntimeSpec};
use crate::warden::server::catalogue::Operation;
use crate::warden::server::{Warden, disk, policy};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use std::os::fd::OwnedFd;

/// Most cells at a time, whatever the api process admits.
const MAX_CELLS: usize = 4096;
/// Largest disk in MiB: 16 TiB, what ext4 takes with 4 KiB blocks.
const MAX_DISK_MIB: u64 = 16 * 1024 * 1024;

impl Warden {
    /// Does what a request asks for, or answers why not.
    pub(super) fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) {
        let (seq, refused) = match request {
            Request::CreateRuntime {
                seq,
                spec,
                checkpoint,
            } => (seq, self.create_runtime(seq, spec, checkpoint)),
            Request::DeleteRuntime { seq, id } => (seq, self.close_runtime(seq, id, true)),
            Request::StopRuntime { seq, id } => (seq, self.close_runtime(seq, id, false)),
            Request::StartRuntime { seq, id } => (seq, self.start_runtime(seq, id)),
            Request::PauseRuntime { seq, id } => (seq, self.pause_runtime(seq, id)),
            Request::ResumeRuntime { seq, id } => (seq, self.resume_runtime(seq, id)),
            Request::SetResources { seq, id, resources } => {
                (seq, self.set_resources(seq, id, resources))
            }
            Request::CreateCheckpoint { seq, id, runtime } => {
                (seq, self.create_checkpoint(seq, id, runtime))
            }
            Request::DeleteCheckpoint { seq, id } => (seq, self.delete_checkpoint(seq, id)),
            Request::ListRuntimes { seq, after } => {
                let ids = self.catalogue.page(after, MAX_IDS);
                return self.reply(&Reply::Ids { seq, ids }, Vec::new());
            }
            Request::ListCheckpoints { seq, after } => {
                let ids = self.checkpoints.page(after, MAX_IDS);
                return self.reply(&Reply::Ids { seq, ids }, Vec::new());
            }
            Request::ListImages { seq, after } => (seq, self.list_images(seq, after.as_deref())),
            Request::Kill { seq } => return self.kill(seq),
            Request::Signal { seq, signal } => return self.signal(seq, signal),
            Request::Exec(request) => (request.seq, self.exec(request, fds)),
        };
        if let Err(failure) = refused {
            self.reply(&Reply::Failed { seq, failure }, Vec::new());
        }
    }

    fn exec(&mut self, mut request: CellRequest, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        if self.cells.len() >= MAX_CELLS {
            return Err(Failure::NoRoom("cells".to_owned()));
        }
        let runtime = self.catalogue.get(request.runtime);
        let runtime = runtime.ok_or(Failure::UnknownRuntime)?;
        match runtime.operation {
            Some(Operation::Close { delete: true, .. }) => return Err(Failure::UnknownRuntime),
            // What it has on disk is there again in a moment.
            Some(Operation::Close { delete: false, .. }) => {
                return Err(Failure::Busy(Busy::Operation));
            }
            _ => {}
        }
        if runtime.paused {
            return Err(Failure::Paused);
        }
        let profile = &runtime.record.spec.profile;
        let policy = self.policies.get(profile).ok_or(Failure::UnknownProfile)?;
        check_exec(&mut request, policy, self.host)?;
        let [command]: [OwnedFd; 1] = fds.try_into().map_err(|fds: Vec<_>| {
            // An honest api process sends one; it is lost where this process may open no more.
            match fds.is_empty() {
                true => Failure::NoRoom("descriptors".to_owned()),
                false => invalid("command"),
            }
        })?;
        check_command(&command)?;
        if self.cells.by_seq(request.seq).is_some() {
            return Err(invalid("seq"));
        }
        self.accept(request, command)
    }

    /// Checks a new runtime's description.
    pub(super) fn check_spec(&mut self, spec: &RuntimeSpec) -> Result<(), Failure> {
        let policy = self
            .policies
            .get(&spec.profile)
            .ok_or(Failure::UnknownProfile)?;
        check_disk(spec.disk_mib, policy)?;
        let id = spec.id;
        let there = self.catalogue.get(id).is_some() || self.catalogue.directory.occupied(id);
        if id.is_nil() || there {
            return Err(invalid("id"));
        }
        Ok(())
    }
}

pub(super) fn invalid(field: &str) -> Failure {
    Failure::Invalid(field.to_owned())
}

/// Checks the size of a runtime's writable layer.
pub(super) fn check_disk(mib: u64, policy: &policy::Policy) -> Result<(), Failure> {
    let disk = disk::MIN_MIB..=MAX_DISK_MIB;
    if !disk.contains(&mib) || !policy.limits.disk_mib.allows(mib) {
        return Err(invalid("disk_mib"));
    }
    Ok(())
}

/// Checks what an exec says of itself, and lowers its limits to what the machine has of memory (bytes) and what a
/// runtime may have of processors.
pub(super) fn check_exec(
    request: &mut CellRequest,
    policy: &policy::Policy,
    host: (u64, u64),
) -> Result<(), Failure> {
    check_resources(&request.runtime_resources, &request.cell_resources, policy)?;
    clamp(&mut request.runtime_resources, host);
    let cell = &mut request.cell_resources;
    cell.memory_bytes = cell.memory_bytes.min(host.0);
    check_hostname(&request.hostname)?;
    if request.stdin && request.terminal.is_some() {
        return Err(invalid("stdin"));
    }
    Ok(())
}

/// Checks the limits of a runtime.
pub(super) fn check_runtime_resources(
    runtime: &RuntimeResources,
    policy: &policy::Policy,
) -> Result<(), Failure> {
    check_sizes(runtime.memory_bytes, runtime.pids, policy)?;
    // The kernel's smallest quota is 1 ms per period of 100 ms.
    if !(10..=10_000_000).contains(&runtime.cpu_millis) {
        return Err(invalid("cpu_millis"));
    }
    Ok(())
}

fn check_sizes(memory_bytes: u64, pids: u64, policy: &policy::Policy) -> Result<(), Failure> {
    let limits = &policy.limits;
    if memory_bytes < MIB || !limits.memory_mib.allows(memory_bytes.div_ceil(MIB)) {
        return Err(invalid("memory_bytes"));
    }
    if pids < 1 || !limits.pids.allows(pids) {
        return Err(invalid("pids"));
    }
    Ok(())
}

fn check_resources(
    runtime: &RuntimeResources,
    cell: &CellResources,
    policy: &policy::Policy,
) -> Result<(), Failure> {
    check_runtime_resources(runtime, policy)?;
    check_sizes(cell.memory_bytes, cell.pids, policy)?;
    if cell.cpu_secs == Some(0) {
        return Err(invalid("cpu_secs"));
    }
    Ok(())
}

/// More than the machine has would be no limit at all.
pub(super) fn clamp(runtime: &mut RuntimeResources, (memory_bytes, processors): (u64, u64)) {
    runtime.memory_bytes = runtime.memory_bytes.min(memory_bytes);
    runtime.cpu_millis = runtime.cpu_millis.min(processors * 1000);
}

fn check_hostname(name: &str) -> Result<(), Failure> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if (1..=63).contains(&name.len()) && name.chars().all(valid) {
        Ok(())
    } else {
        Err(invalid("hostname"))
    }
}

/// The command must be a memfd that nobody can change any more, and not too long. Its content is not looked at.
fn check_command(fd: &OwnedFd) -> Result<(), Failure> {
    let needed = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|_| invalid("command"))?;
    let length = nix::sys::stat::fstat(fd)
        .map_err(|_| invalid("command"))?
        .st_size;
    let sealed = SealFlag::from_bits_truncate(seals).contains(needed);
    if sealed && (1..=MAX_ENCODED).contains(&(length as u64)) {
        Ok(())
    } else {
        Err(invalid("command"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    #[test]
    fn takes_only_a_sealed_memfd_as_a_command() {
        let fd = memfd_create(c"command", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::write(&fd, b"x").unwrap();
        assert!(check_command(&fd).is_err());
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::all())).unwrap();
        assert!(check_command(&fd).is_ok());
        let (pipe, _) = nix::unistd::pipe().unwrap();
        assert!(check_command(&pipe).is_err());
    }

    #[test]
    fn refuses_host_names_that_are_none() {
        assert!(check_hostname("a-1.b_c").is_ok());
        for name in ["", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert!(check_hostname(name).is_err(), "{name}");
        }
    }
}
