//! From an OCI seccomp file to rules that are known to make sense, or an error that names the
//! field.

use super::action::{Action, parse_action, parse_default_action};
use super::oci;
use super::syscalls::is_known;
use super::target::{KernelVersion, Target};
use crate::profile::ProfileError;
use crate::profile::error::InFile;
use seccompiler::SeccompCmpOp;
use std::collections::BTreeSet;

/// A parsed and checked policy. [`SeccompPolicy::compile`] makes a program of it.
#[derive(Debug, Clone)]
pub struct SeccompPolicy {
    pub(super) file: String,
    pub(super) default: Action,
    pub(super) rules: Vec<Rule>,
    /// Architectures that the file is for, OCI names; none when it does not say.
    pub(super) architectures: Option<Vec<String>>,
}

/// What happens to some system calls, when their arguments match every condition.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Where it stands in the file, for messages.
    pub field: String,
    pub names: Vec<String>,
    pub action: Action,
    pub conditions: Vec<Condition>,
    includes: Option<When>,
    excludes: Option<When>,
}

/// A comparison of a whole 64-bit argument.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub index: u8,
    pub op: SeccompCmpOp,
    pub value: u64,
}

/// Docker's `includes` and `excludes`.
#[derive(Debug, Clone)]
struct When {
    caps: bool,
    arches: Option<Vec<String>>,
    min_kernel: Option<KernelVersion>,
}

impl SeccompPolicy {
    /// Reads an OCI seccomp file; `file` is its name for messages. Refuses what is not of that
    /// shape, what could not be meant (argument 6, an unknown action), and a default that allows:
    /// x32 calls pass the architecture check, and every call that a newer kernel adds would be
    /// allowed unseen.
    pub fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        let raw: oci::File = serde_json::from_str(text).map_err(|source| ProfileError::Json {
            file: file.to_owned(),
            source,
        })?;
        let at = InFile(file);
        refuse_unsupported(at, &raw)?;
        let errno = errno_number(
            at,
            "defaultErrno",
            raw.default_errno_ret,
            raw.default_errno.as_deref(),
        )?;
        let default = parse_default_action(at, &raw.default_action, errno)?;
        let mut architectures = raw.architectures;
        if let Some(map) = raw.arch_map {
            let names = map.into_iter().map(|entry| entry.architecture);
            architectures.get_or_insert_default().extend(names);
        }
        let mut rules = Vec::with_capacity(raw.syscalls.len());
        for (index, syscall) in raw.syscalls.into_iter().enumerate() {
            rules.push(Rule::check(at, format!("syscalls[{index}]"), syscall)?);
        }
        Ok(Self {
            file: file.to_owned(),
            default,
            rules,
            architectures,
        })
    }

    /// Lets through what another policy lets through, under its conditions, beside what this one does; rules of this one
    /// that refuse stay in force. For a filter that is below another one: the kernel heeds the stricter answer, and of
    /// two errnos that of the filter that was installed later.
    pub fn admit(&mut self, other: &SeccompPolicy) {
        let allowed = other.rules.iter().filter(|rule| rule.lets_through());
        self.rules.extend(allowed.cloned().map(|rule| Rule {
            action: Action::Allow,
            ..rule
        }));
    }

    /// Calls that this policy lets through on a machine and a rule of `below` refuses there, in order.
    pub fn refused_by(&self, below: &SeccompPolicy, target: &Target) -> Vec<String> {
        let names = |policy: &SeccompPolicy, through: bool| -> BTreeSet<String> {
            let rules = policy.rules.iter().filter(|rule| rule.in_force(target));
            rules
                .filter(|rule| rule.lets_through() == through)
                .flat_map(|rule| rule.names.iter().cloned())
                .collect()
        };
        let refused = names(below, false);
        names(self, true).intersection(&refused).cloned().collect()
    }

    /// See [`crate::profile::Profile::unknown_syscalls`].
    pub fn unknown_syscalls(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.rules.iter().flat_map(|rule| &rule.names).collect();
        let unknown = names.into_iter().filter(|name| !is_known(name));
        unknown.cloned().collect()
    }
}

/// Parts of the OCI format that would have to be obeyed and are not.
fn refuse_unsupported(at: InFile<'_>, raw: &oci::File) -> Result<(), ProfileError> {
    if raw.flags.as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(at.field("flags", "no flag is supported", "remove the field"));
    }
    if raw.listener_path.is_some() || raw.listener_metadata.is_some() {
        return Err(at.field(
            "listenerPath",
            "no listener is supported",
            "remove listenerPath and listenerMetadata",
        ));
    }
    Ok(())
}

/// Podman writes each errno by name and by number; the number is what counts here.
fn errno_number(
    at: InFile<'_>,
    field: &str,
    number: Option<u32>,
    name: Option<&str>,
) -> Result<Option<u32>, ProfileError> {
    match (number, name) {
        (None, Some(name)) => Err(at.field(
            field,
            format!("the name {name:?} alone is not understood"),
            format!("add {field}Ret with the number"),
        )),
        (number, _) => Ok(number),
    }
}

impl Rule {
    fn check(at: InFile<'_>, field: String, raw: oci::Syscall) -> Result<Self, ProfileError> {
        if raw.names.is_empty() {
            return Err(at.field(
                format!("{field}.names"),
                "the list is empty",
                "name a system call or remove the rule",
            ));
        }
        let errno_field = format!("{field}.errno");
        let errno = errno_number(at, &errno_field, raw.errno_ret, raw.errno.as_deref())?;
        let action = parse_action(at, &format!("{field}.action"), &raw.action, errno)?;
        let mut conditions: Vec<Condition> = Vec::new();
        for (index, arg) in raw.args.unwrap_or_default().into_iter().enumerate() {
            let field = format!("{field}.args[{index}]");
            let condition = Condition::check(at, &field, arg)?;
            // runc takes two conditions on one argument as alternatives, others as both needed.
            if conditions.iter().any(|c| c.index == condition.index) {
                return Err(at.field(
                    format!("{field}.index"),
                    format!(
                        "argument {} has two conditions in one rule",
                        condition.index
                    ),
                    "write a rule for each alternative, or an SCMP_ACT_ERRNO rule for exceptions",
                ));
            }
            conditions.push(condition);
        }
        Ok(Self {
            includes: When::check(at, &format!("{field}.includes"), raw.includes)?,
            excludes: When::check(at, &format!("{field}.excludes"), raw.excludes)?,
            field,
            names: raw.names,
            action,
            conditions,
        })
    }

    fn lets_through(&self) -> bool {
        matches!(self.action, Action::Allow | Action::Log)
    }

    /// Whether Docker would apply the rule to a container without capabilities.
    pub(super) fn in_force(&self, target: &Target) -> bool {
        let includes = self.includes.as_ref().is_none_or(|when| {
            !when.caps
                && when.lists(target).unwrap_or(true)
                && when.min_kernel.is_none_or(|min| target.kernel >= min)
        });
        let excludes = self.excludes.as_ref().is_some_and(|when| {
            when.lists(target).unwrap_or(false)
                || when.min_kernel.is_some_and(|min| target.kernel >= min)
        });
        includes && !excludes
    }
}

impl Condition {
    fn check(at: InFile<'_>, field: &str, arg: oci::Arg) -> Result<Self, ProfileError> {
        let index = match u8::try_from(arg.index) {
            Ok(index @ 0..=5) => index,
            _ => {
                return Err(at.field(
                    format!("{field}.index"),
                    format!("there is no argument {}", arg.index),
                    "write a value from 0 to 5",
                ));
            }
        };
        let (op, value) = match arg.op.as_str() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, arg.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, arg.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, arg.value),
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, arg.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, arg.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, arg.value),
            // The file's value is the mask and valueTwo what must be left after it.
            "SCMP_CMP_MASKED_EQ" => {
                let expected = arg.value_two.unwrap_or(0);
                if expected & !arg.value != 0 {
                    return Err(at.field(
                        format!("{field}.valueTwo"),
                        format!("{expected:#x} has bits outside the mask {:#x}", arg.value),
                        "write the mask as value and the expected bits as valueTwo",
                    ));
                }
                (SeccompCmpOp::MaskedEq(arg.value), expected)
            }
            other => {
                return Err(at.field(
                    format!("{field}.op"),
                    format!("{other:?} is no comparison"),
                    "write SCMP_CMP_ and one of NE, LT, LE, EQ, GE, GT, MASKED_EQ",
                ));
            }
        };
        Ok(Self { index, op, value })
    }
}

impl When {
    fn check(
        at: InFile<'_>,
        field: &str,
        raw: Option<oci::Filter>,
    ) -> Result<Option<Self>, ProfileError> {
        let Some(raw) = raw else { return Ok(None) };
        let min_kernel = match raw.min_kernel.as_deref() {
            None | Some("") => None,
            Some(text) => Some(KernelVersion::parse(text).ok_or_else(|| {
                at.field(
                    format!("{field}.minKernel"),
                    format!("{text:?} is no kernel version"),
                    "write two numbers, like \"4.8\"",
                )
            })?),
        };
        Ok(Some(Self {
            caps: raw.caps.is_some_and(|caps| !caps.is_empty()),
            arches: raw.arches.filter(|arches| !arches.is_empty()),
            min_kernel,
        }))
    }

    /// Whether the target is in the list of architectures; none when there is no list.
    fn lists(&self, target: &Target) -> Option<bool> {
        let arches = self.arches.as_ref()?;
        Some(arches.iter().any(|name| name == target.arch.docker_name()))
    }
}
