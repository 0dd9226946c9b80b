//! How much memory a runtime gets, out of what clients of all versions say.

use super::error::Invalid;
use super::request::{Base, CreateRequest};
use super::settings::Settings;
use super::sizes::HostSizes;
use crate::profile::Limit;

/// Memory of a runtime, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// Asked for.
    pub request: u64,
    /// Enforced.
    pub limit: u64,
    /// A client named the limit; else it is what was asked for.
    pub limit_named: bool,
    /// The least that an old client named.
    pub least: u64,
}

impl From<&Settings> for Memory {
    fn from(settings: &Settings) -> Self {
        Self {
            request: settings.request_memory_mib,
            limit: settings.limit_memory_mib,
            limit_named: settings.limit_memory_named,
            least: settings.min_memory_mib,
        }
    }
}

/// A field's name and its value, where it was sent.
type Word = Option<(&'static str, u64)>;

/// What `request` makes of what is there.
pub(super) fn memory(
    request: &CreateRequest,
    base: Base<'_>,
    host: &HostSizes,
    profile: Limit,
) -> Result<Memory, Invalid> {
    let limit: Word = match request.limit_memory_mib {
        Some(mib) => Some(("resources.limits.memory_mib", mib)),
        // 0 is how old clients say nothing.
        None => request
            .max_memory_mib
            .filter(|mib| *mib != 0)
            .map(|mib| ("max_memory_mib", mib)),
    };
    let asked: Word = match (request.request_memory_mib, request.cur_memory_mib) {
        (Some(mib), _) => Some(("resources.requests.memory_mib", mib)),
        (None, mib) => mib.map(|mib| ("cur_memory_mib", mib)),
    };
    let least = request.min_memory_mib.filter(|mib| *mib != 0);
    let before = base.settings().map(Memory::from);
    if let (Base::Runtime(_), None, None, None, Some(before)) = (base, limit, asked, least, before)
    {
        // Whatever was allowed once may stay.
        return Ok(before);
    }

    let check = |word: Word| {
        word.map(|(field, mib)| host.memory(field, mib, profile))
            .transpose()
    };
    let (limit_mib, asked_mib) = (check(limit)?, check(asked)?);
    let default = before.map_or(profile.default, |before| before.request);
    let request_mib = match (asked_mib, limit_mib, base) {
        (Some(asked), ..) => asked,
        // Where only a limit is named, asking for the default would often be asking for more than that.
        (None, Some(limit), Base::Nothing | Base::Checkpoint(_)) => default.min(limit),
        _ => default,
    };
    let request_mib = host.memory("resources.requests.memory_mib", request_mib, profile)?;
    let kept_limit = before
        .filter(|before| before.limit_named)
        .map(|before| before.limit);
    let limit_mib = limit_mib.or(kept_limit).unwrap_or(request_mib);
    if limit_mib < request_mib {
        return Err(match (limit, asked) {
            (None, Some((field, _))) => Invalid::new(
                field,
                format!("is {request_mib}, but must not be more than the limit of {limit_mib} MiB"),
            ),
            (limit, _) => Invalid::new(
                limit.map_or("resources.limits.memory_mib", |(field, _)| field),
                format!(
                    "is {limit_mib}, but must not be less than the {request_mib} MiB requested"
                ),
            ),
        });
    }
    host.memory("resources.limits.memory_mib", limit_mib, profile)?;
    let least_mib = match (least, before) {
        (Some(least), _) if least > limit_mib => {
            let problem =
                format!("is {least}, but must not be more than the limit of {limit_mib} MiB");
            return Err(Invalid::new("min_memory_mib", problem));
        }
        (Some(least), _) => least,
        (None, Some(before)) if before.least != before.request => before.least.min(limit_mib),
        (None, _) => request_mib,
    };
    Ok(Memory {
        request: request_mib,
        limit: limit_mib,
        limit_named: limit.is_some() || kept_limit.is_some(),
        least: least_mib,
    })
}
