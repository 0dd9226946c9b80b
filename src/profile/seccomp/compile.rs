//! From a checked policy to the BPF program that the kernel takes.
//!
//! A seccompiler program knows two actions, one for calls that match and one for the rest; policies have more. One program for
//! each action, of which the kernel takes the most restrictive answer, would do, but each costs every command the time in which
//! the kernel translates it. So of seccompiler there are the conditions, and one program is put together here (`tree`): for
//! each call the rules that refuse it, then those that allow it, then the default.
//!
//! Numbers above the newest call that is known here get ENOSYS, whatever the default.

use super::action::Action;
use super::policy::{Rule, SeccompPolicy};
use super::syscalls::{syscall_number, syscalls};
use super::target::Target;
use super::tree;
use super::tree::Step;
use crate::profile::ProfileError;
use crate::profile::error::InFile;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCondition, SeccompRule,
};
use std::collections::BTreeMap;

/// What calls come to, by number. Those that are not in it get the default.
type Calls = BTreeMap<u32, Vec<Step>>;

/// Adds a rule to a step; one without conditions applies always and makes the others pointless.
fn add(step: &mut Step, rule: Option<SeccompRule>) {
    match rule {
        Some(rule) if !step.always => step.rules.push(rule),
        Some(_) => {}
        None => {
            step.always = true;
            step.rules.clear();
        }
    }
}

impl SeccompPolicy {
    /// Compiles for a machine. Fails when the file names other architectures only, when its rules
    /// contradict each other or would keep a command from being started, and when the program gets
    /// longer than the kernel takes (4,096 instructions).
    pub fn compile(&self, target: &Target) -> Result<BpfProgram, ProfileError> {
        let calls = self.decide(target)?;
        self.check_startable(target, &calls)?;
        self.program(target, &calls)
    }

    /// As [`SeccompPolicy::compile`], for a process that need not start a command.
    pub fn compile_for_service(&self, target: &Target) -> Result<BpfProgram, ProfileError> {
        self.program(target, &self.decide(target)?)
    }

    /// Whether all of some calls are allowed whatever their arguments are.
    ///
    /// # Errors
    /// As [`SeccompPolicy::compile`].
    pub fn allows_always(&self, target: &Target, names: &[&str]) -> Result<bool, ProfileError> {
        let calls = self.decide(target)?;
        let allowed = |number: i64| {
            let first = calls.get(&(number as u32)).and_then(|steps| steps.first());
            first.is_some_and(|step| step.always && step.action == SeccompAction::Allow)
        };
        let mut numbers = names
            .iter()
            .filter_map(|name| syscall_number(name, target.arch));
        Ok(numbers.all(allowed))
    }

    fn decide(&self, target: &Target) -> Result<Calls, ProfileError> {
        let arch = target.arch.oci_name();
        if let Some(names) = &self.architectures
            && !names.iter().any(|name| name == arch)
        {
            return Err(InFile(&self.file).field(
                "architectures",
                "this machine's is missing",
                format!("add {arch:?} if the rules are right for it"),
            ));
        }
        let mut allowed = BTreeMap::new();
        for (rule, number) in self.rules_for(target, |action| *action == SeccompAction::Allow) {
            let step = allowed
                .entry(number as u32)
                .or_insert_with(|| Step::new(SeccompAction::Allow));
            add(step, self.arguments(rule)?);
        }
        let mut calls = self.refused(target, &allowed)?;
        for (number, step) in allowed {
            calls.entry(number).or_default().push(step);
        }
        Ok(calls)
    }

    fn program(&self, target: &Target, calls: &Calls) -> Result<BpfProgram, ProfileError> {
        let newest = syscalls(target.arch).map(|(_, number)| number).max();
        tree::compile(
            calls,
            &self.default,
            newest.unwrap_or(0) as u32,
            target.arch,
        )
        .map_err(|source| self.failed(source))
    }

    /// Every rule in force of one kind, once for each of its calls that the target has.
    pub(super) fn rules_for(
        &self,
        target: &Target,
        kind: impl Fn(&Action) -> bool,
    ) -> impl Iterator<Item = (&Rule, i64)> {
        let in_force = move |rule: &&Rule| kind(&rule.action) && rule.in_force(target);
        self.rules.iter().filter(in_force).flat_map(move |rule| {
            let numbers = rule.names.iter();
            numbers.filter_map(move |name| Some((rule, syscall_number(name, target.arch)?)))
        })
    }

    /// What other rules than those that allow come to.
    fn refused(
        &self,
        target: &Target,
        allowed: &BTreeMap<u32, Step>,
    ) -> Result<Calls, ProfileError> {
        let mut calls = Calls::new();
        for (rule, number) in self.rules_for(target, |action| *action != SeccompAction::Allow) {
            let number = number as u32;
            // Nothing allows it, so the default answers the same.
            if rule.action == self.default && !allowed.contains_key(&number) {
                continue;
            }
            let steps = calls.entry(number).or_default();
            if steps.is_empty() {
                steps.push(Step::new(rule.action.clone()));
            }
            match &mut steps[..] {
                [step] if step.action == rule.action => add(step, self.arguments(rule)?),
                _ => {
                    return Err(InFile(&self.file).field(
                        format!("{}.action", rule.field),
                        "an earlier rule refuses one of these calls with another action",
                        "use one action for each call, beside SCMP_ACT_ALLOW",
                    ));
                }
            }
        }
        Ok(calls)
    }

    /// With the program installed the payload still has to execute the command.
    fn check_startable(&self, target: &Target, calls: &Calls) -> Result<(), ProfileError> {
        let steps = syscall_number("execve", target.arch)
            .and_then(|number| calls.get(&(number as u32)))
            .map_or(&[][..], Vec::as_slice);
        let runs = |step: &Step| matches!(step.action, SeccompAction::Allow | SeccompAction::Log);
        let at = InFile(&self.file);
        if steps.iter().any(|step| step.always && !runs(step)) {
            return Err(at.field(
                "syscalls",
                "a rule refuses execve, which is needed to start a command",
                "leave execve out of every rule that refuses",
            ));
        }
        if !steps.iter().any(runs) {
            return Err(at.field(
                "syscalls",
                "execve is not allowed, so no command could be started",
                "allow execve",
            ));
        }
        Ok(())
    }

    /// A rule's conditions for seccompiler; none when it has no condition. The whole 64 bits count,
    /// as with libseccomp. Where the kernel reads an int, a policy masks the upper half away
    /// itself.
    fn arguments(&self, rule: &Rule) -> Result<Option<SeccompRule>, ProfileError> {
        if rule.conditions.is_empty() {
            return Ok(None);
        }
        let conditions: Result<Vec<_>, _> = rule
            .conditions
            .iter()
            .map(|c| SeccompCondition::new(c.index, SeccompCmpArgLen::Qword, c.op.clone(), c.value))
            .collect();
        let built = conditions.and_then(SeccompRule::new);
        built.map(Some).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: BackendError) -> ProfileError {
        ProfileError::Compile {
            file: self.file.clone(),
            source,
        }
    }
}
