//! See [`crate::fuzzing`]. No request is carried out: it goes as far as the checks that need nothing but itself.

use super::policy::{self, Policy};
use super::requests::{check_disk, check_exec, check_runtime_resources, clamp};
use crate::cell::command::Decoded;
use crate::cell::report::{FromCell, SignalSet};
use crate::resources::{MIB, RuntimeResources};
use crate::warden::protocol::{Failure, MAX_MESSAGE, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A machine's memory and processors.
const HOST: (u64, u64) = (8 << 30, 4);

static POLICIES: LazyLock<HashMap<String, Policy>> = LazyLock::new(|| {
    let profiles = crate::profile::ProfileSet::load(None).expect("the project's own");
    policy::compile_all(&profiles, crate::landlock::Abi::Unsupported).expect("they compile")
});

/// A packet to the warden or from it, a cell's report, a command on its way into a cell.
pub fn warden(data: &[u8]) {
    if let Some(decoded) = Decoded::decode(data) {
        let strings = 2 + decoded.instead.len() + decoded.args.len() + decoded.env.len();
        assert!(strings + 16 <= data.len());
    }
    if let Some(signals) = SignalSet::decode(data) {
        let mut again = SignalSet::default();
        for signal in signals.signals() {
            again.add(signal);
        }
        assert!(again.signals().eq(signals.signals()));
    }
    let _ = serde_json::from_slice::<FromCell>(data);
    if data.len() > MAX_MESSAGE {
        return;
    }
    same_again::<Reply>(data);
    if let Some(request) = same_again::<Request>(data) {
        for policy in POLICIES.values() {
            let checked = check(request.clone(), policy);
            if let Err(Failure::Invalid(field)) = checked {
                assert!(!field.is_empty());
            }
        }
    }
}

/// Reads a message; what was understood has one writing, and means the same in it.
fn same_again<T>(data: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let message = serde_json::from_slice::<T>(data).ok()?;
    let written = serde_json::to_vec(&message).expect("plain data");
    let again = serde_json::from_slice::<T>(&written).expect("our own writing");
    assert_eq!(message, again);
    Some(message)
}

fn check(request: Request, policy: &Policy) -> Result<(), Failure> {
    match request {
        Request::CreateRuntime { spec, .. } => {
            check_disk(spec.disk_mib, policy)?;
            assert!(spec.disk_mib.checked_mul(MIB).is_some());
        }
        Request::SetResources { mut resources, .. } => {
            check_runtime_resources(&resources, policy)?;
            clamp(&mut resources, HOST);
            check_runtime(&resources, policy);
        }
        Request::Exec(mut request) => {
            check_exec(&mut request, policy, HOST)?;
            check_runtime(&request.runtime_resources, policy);
            let cell = &request.cell_resources;
            assert!((MIB..=HOST.0).contains(&cell.memory_bytes));
            assert!(policy.limits.pids.allows(cell.pids));
            assert_ne!(cell.cpu_secs, Some(0));
            let plain = |c: char| c.is_ascii_graphic() && c != '/';
            assert!(request.hostname.len() <= 63 && request.hostname.chars().all(plain));
            assert!(!(request.stdin && request.terminal.is_some()));
        }
        _ => {}
    }
    Ok(())
}

fn check_runtime(resources: &RuntimeResources, policy: &Policy) {
    assert!((MIB..=HOST.0).contains(&resources.memory_bytes));
    assert!((1..=HOST.1 * 1000).contains(&resources.cpu_millis));
    assert!(policy.limits.pids.allows(resources.pids));
}
