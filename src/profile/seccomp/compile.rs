//! From a checked policy to the BPF programs that the kernel takes.
//!
//! A seccompiler program knows two actions, one for calls that match and one for the rest. So a
//! policy becomes a stack: one *overlay* per action other than ALLOW, which allows what it does not
//! match, and last the *base*, the list of what is allowed, with the default action for the rest.
//!
//! The kernel runs all programs and takes the most restrictive answer, and between two of the same
//! kind (two errnos) that of the program installed last (seccomp_run_filters in kernel/seccomp.c).
//! The base would therefore turn an overlay's ENOSYS into the default's EPERM, so it allows what an
//! overlay matches, under the overlay's own conditions: then the overlay alone decides.
//!
//! Numbers above the newest call that is known here get ENOSYS from the base, whatever the default.
//!
//! The base comes last because from then on a call that installs programs may be refused.

use super::action::Action;
use super::policy::{Rule, SeccompPolicy};
use super::syscalls::{syscall_number, syscalls};
use super::target::Target;
use super::tree;
use crate::profile::ProfileError;
use crate::profile::error::InFile;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCondition, SeccompRule,
};
use std::collections::BTreeMap;

/// Calls by number; no rules means whatever the arguments are, as in seccompiler.
#[derive(Debug, Default)]
struct Matches(BTreeMap<i64, Vec<SeccompRule>>);

impl Matches {
    /// Adds an alternative; none matches always and makes the others pointless.
    fn add(&mut self, number: i64, rule: Option<SeccompRule>) {
        match (self.0.get_mut(&number), rule) {
            (Some(rules), Some(rule)) if !rules.is_empty() => rules.push(rule),
            (Some(rules), _) => rules.clear(),
            (None, rule) => {
                self.0.insert(number, rule.into_iter().collect());
            }
        }
    }

    fn contains(&self, number: i64) -> bool {
        self.0.contains_key(&number)
    }

    fn matches_always(&self, number: i64) -> bool {
        self.0.get(&number).is_some_and(Vec::is_empty)
    }
}

impl SeccompPolicy {
    /// Compiles for a machine: programs to install first to last, all of them. Fails when the file
    /// names other architectures only, when its rules contradict each other or would keep a command
    /// from being started, and when a program gets longer than the kernel takes (4,096
    /// instructions).
    pub fn compile(&self, target: &Target) -> Result<Vec<BpfProgram>, ProfileError> {
        let (base, overlays) = self.decide(target)?;
        self.check_startable(target, &base, &overlays)?;
        self.programs(target, base, overlays)
    }

    /// As [`SeccompPolicy::compile`], for a process that need not start a command.
    pub fn compile_for_service(&self, target: &Target) -> Result<Vec<BpfProgram>, ProfileError> {
        let (base, overlays) = self.decide(target)?;
        self.programs(target, base, overlays)
    }

    /// Whether all of some calls are allowed whatever their arguments are.
    ///
    /// # Errors
    /// As [`SeccompPolicy::compile`].
    pub fn allows_always(&self, target: &Target, names: &[&str]) -> Result<bool, ProfileError> {
        let (base, overlays) = self.decide(target)?;
        let allowed = |number| {
            let refused = |(_, matches): &(Action, Matches)| matches.contains(number);
            base.matches_always(number) && !overlays.iter().any(refused)
        };
        let mut numbers = names
            .iter()
            .filter_map(|name| syscall_number(name, target.arch));
        Ok(numbers.all(allowed))
    }

    /// What the base allows, and what the overlays match.
    fn decide(&self, target: &Target) -> Result<(Matches, Vec<(Action, Matches)>), ProfileError> {
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
        let mut base = Matches::default();
        for (rule, number) in self.rules_for(target, |action| *action == SeccompAction::Allow) {
            base.add(number, self.arguments(rule)?);
        }
        let overlays = self.overlays(target, &mut base)?;
        Ok((base, overlays))
    }

    fn programs(
        &self,
        target: &Target,
        base: Matches,
        overlays: Vec<(Action, Matches)>,
    ) -> Result<Vec<BpfProgram>, ProfileError> {
        let mut programs = Vec::with_capacity(overlays.len() + 1);
        for (action, matches) in overlays {
            programs.push(self.program(target, matches, SeccompAction::Allow, action)?);
        }
        let default = self.default.clone();
        let mut base = self.program(target, base, default, SeccompAction::Allow)?;
        let newest = syscalls(target.arch).map(|(_, number)| number).max();
        tree::refuse_as_missing_above(newest.unwrap_or(0) as u32, &mut base);
        programs.push(base);
        Ok(programs)
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

    /// One overlay per action, in the order of the file. Lets the base allow what they match.
    fn overlays(
        &self,
        target: &Target,
        base: &mut Matches,
    ) -> Result<Vec<(Action, Matches)>, ProfileError> {
        let mut overlays: Vec<(Action, Matches)> = Vec::new();
        let mut opened = Matches::default();
        for (rule, number) in self.rules_for(target, |action| *action != SeccompAction::Allow) {
            // Nothing allows it, so the base answers the same.
            if rule.action == self.default && !base.contains(number) {
                continue;
            }
            if overlays
                .iter()
                .any(|(action, matches)| *action != rule.action && matches.contains(number))
            {
                return Err(InFile(&self.file).field(
                    format!("{}.action", rule.field),
                    "an earlier rule refuses one of these calls with another action",
                    "use one action for each call, beside SCMP_ACT_ALLOW",
                ));
            }
            let arguments = self.arguments(rule)?;
            opened.add(number, arguments.clone());
            match overlays
                .iter_mut()
                .find(|(action, _)| *action == rule.action)
            {
                Some((_, matches)) => matches.add(number, arguments),
                None => {
                    let mut matches = Matches::default();
                    matches.add(number, arguments);
                    overlays.push((rule.action.clone(), matches));
                }
            }
        }
        for (number, rules) in opened.0 {
            if rules.is_empty() {
                base.add(number, None);
            }
            for rule in rules {
                base.add(number, Some(rule));
            }
        }
        Ok(overlays)
    }

    /// After the last program the payload still has to execute the command, and after each overlay
    /// the next program has to be installed, with seccomp(2) and prctl(2).
    fn check_startable(
        &self,
        target: &Target,
        base: &Matches,
        overlays: &[(Action, Matches)],
    ) -> Result<(), ProfileError> {
        let at = InFile(&self.file);
        let number = |name| syscall_number(name, target.arch);
        if number("execve").is_none_or(|execve| !base.contains(execve)) {
            return Err(at.field(
                "syscalls",
                "execve is not allowed, so no command could be started",
                "allow execve",
            ));
        }
        for name in ["seccomp", "prctl", "execve"] {
            let refused = number(name).is_some_and(|number| {
                overlays
                    .iter()
                    .any(|(action, m)| *action != SeccompAction::Log && m.matches_always(number))
            });
            if refused {
                return Err(at.field(
                    "syscalls",
                    format!("a rule refuses {name}, which is needed to start a command"),
                    format!("to refuse seccomp or prctl, leave {name} out of every rule"),
                ));
            }
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
        built.map(Some).map_err(|source| self.refused(source))
    }

    fn program(
        &self,
        target: &Target,
        matches: Matches,
        rest: SeccompAction,
        matched: SeccompAction,
    ) -> Result<BpfProgram, ProfileError> {
        tree::compile(matches.0, rest, matched, target.arch.into())
            .map_err(|source| self.refused(source))
    }

    fn refused(&self, source: BackendError) -> ProfileError {
        ProfileError::Compile {
            file: self.file.clone(),
            source,
        }
    }
}
