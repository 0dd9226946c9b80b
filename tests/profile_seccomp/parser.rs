//! What a policy file may say, what it means, and how a bad one is refused.

use super::*;
use cellblock::profile::ProfileError;

const X86_64: Target = TARGETS[0];
const AARCH64: Target = TARGETS[1];

fn verdict(syscalls: &str, target: Target, name: &str, args: [u64; 6]) -> Verdict {
    let program = policy(syscalls).compile(&target).expect(syscalls);
    ask(&[program], &target, name, args)
}

/// The message with its sources, of parsing and compiling.
fn refusal(text: &str) -> String {
    let result = SeccompPolicy::parse("mine.json", text).and_then(|p| p.compile(&X86_64));
    let error: ProfileError = result.expect_err(text);
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        message = format!("{message}: {inner}");
        source = inner.source();
    }
    message
}

/// A file with one rule beside an allowed execve.
fn with_rule(rule: &str) -> String {
    format!(
        r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}}, {rule}]}}"#
    )
}

#[test]
fn bad_files_are_refused_with_file_field_and_remedy() {
    let file = |default: &str| format!(r#"{{"defaultAction": "{default}", "syscalls": []}}"#);
    let arg = |arg: &str| {
        with_rule(&format!(
            r#"{{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{arg}]}}"#
        ))
    };
    let action = |action: &str| with_rule(&format!(r#"{{"names": ["read"], "action": {action}}}"#));
    let cases = [
        (
            file("SCMP_ACT_ALLOW"),
            "defaultAction: SCMP_ACT_ALLOW allows x32",
        ),
        (
            file("SCMP_ACT_LOG"),
            "defaultAction: SCMP_ACT_LOG allows x32",
        ),
        (
            file("SCMP_ACT_ERROR"),
            r#"defaultAction: "SCMP_ACT_ERROR" is no action; write"#,
        ),
        (file("SCMP_ACT_ERRNO"), "syscalls: execve is not allowed"),
        (
            action(r#""ALLOW""#),
            r#"syscalls[1].action: "ALLOW" is no action; write"#,
        ),
        (
            action(r#""SCMP_ACT_TRACE""#),
            "syscalls[1].action: SCMP_ACT_TRACE needs",
        ),
        (
            action(r#""SCMP_ACT_NOTIFY""#),
            "syscalls[1].action: SCMP_ACT_NOTIFY needs",
        ),
        (
            action(r#""SCMP_ACT_ERRNO", "errnoRet": 4096"#),
            "4096 is no errno",
        ),
        (
            action(r#""SCMP_ACT_ALLOW", "errnoRet": 1"#),
            "returns no errno",
        ),
        (
            action(r#""SCMP_ACT_ERRNO", "errno": "EPERM""#),
            "add syscalls[1].errnoRet",
        ),
        (
            action(r#""SCMP_ACT_ALLOW", "arg": []"#),
            "unknown field `arg`",
        ),
        (
            action(r#""SCMP_ACT_ALLOW", "includes": {"cap": []}"#),
            "unknown field `cap`",
        ),
        (
            action(r#""SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}"#),
            r#"syscalls[1].includes.minKernel: "new" is no kernel version"#,
        ),
        (
            with_rule(r#"{"names": [], "action": "SCMP_ACT_ALLOW"}"#),
            "syscalls[1].names: the list is empty",
        ),
        (
            with_rule(r#"{"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"}"#),
            "a rule refuses execve",
        ),
        (
            with_rule(
                r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
                   {"names": ["write", "read"], "action": "SCMP_ACT_TRAP"}"#,
            ),
            "syscalls[2].action: an earlier rule",
        ),
        (
            arg(r#"{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}"#),
            "syscalls[1].args[0].index: there is no argument 6; write",
        ),
        (
            arg(r#"{"index": 256, "value": 1, "op": "SCMP_CMP_EQ"}"#),
            "syscalls[1].args[0].index: there is no argument 256; write",
        ),
        (
            arg(r#"{"index": -1, "value": 1, "op": "SCMP_CMP_EQ"}"#),
            "invalid value",
        ),
        (
            arg(r#"{"index": 0, "value": 1, "op": "EQ"}"#),
            r#"args[0].op: "EQ" is no comparison"#,
        ),
        (
            arg(r#"{"index": 0, "value": 6, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}"#),
            "args[0].valueTwo: 0x1 has bits outside the mask 0x6",
        ),
        (
            arg(r#"{"index": 0, "value": 6, "op": "SCMP_CMP_NE"},
                   {"index": 0, "value": 7, "op": "SCMP_CMP_NE"}"#),
            "args[1].index: argument 0 has two conditions",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "flags": ["X"], "syscalls": []}"#.to_owned(),
            "flags: no flag is supported; remove",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/x", "syscalls": []}"#
                .to_owned(),
            "listenerPath: no listener",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_S390X"],
                "syscalls": []}"#
                .to_owned(),
            r#"architectures: this machine's is missing; add "SCMP_ARCH_X86_64""#,
        ),
        ("[]".to_owned(), "not an OCI seccomp policy"),
    ];
    for (text, expected) in cases {
        let message = refusal(&text);
        assert!(message.starts_with("mine.json: "), "{message}");
        assert!(
            message.contains(expected),
            "{expected:?} is not in {message:?}"
        );
    }
}

#[test]
fn a_policy_that_is_too_long_for_the_kernel_is_refused() {
    let rule = |value| {
        format!(
            r#"{{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                 "args": [{{"index": 0, "value": {value}, "op": "SCMP_CMP_EQ"}}]}}"#
        )
    };
    let rules: Vec<String> = (0..1000).map(rule).collect();
    let message = refusal(&with_rule(&rules.join(",")));
    assert!(
        message.contains("too many rules with arguments"),
        "{message}"
    );
}

#[test]
fn rules_for_capabilities_other_machines_and_newer_kernels_are_not_in_force() {
    let read_if =
        |when: &str| format!(r#"{{"names": ["read"], "action": "SCMP_ACT_ALLOW", {when}}}"#);
    let cases = [
        (r#""includes": {"caps": ["CAP_SYS_ADMIN"]}"#, false, false),
        (r#""includes": {"caps": []}, "excludes": {}"#, true, true),
        (
            r#""includes": null, "excludes": {"caps": ["CAP_SYS_ADMIN"]}"#,
            true,
            true,
        ),
        (r#""includes": {"arches": ["amd64", "x32"]}"#, true, false),
        (r#""includes": {"arches": ["arm", "arm64"]}"#, false, true),
        (r#""excludes": {"arches": ["s390", "arm64"]}"#, true, false),
        (r#""includes": {"minKernel": "6.1"}"#, true, true),
        (r#""includes": {"minKernel": "6.2"}"#, false, false),
        (
            r#""includes": {"minKernel": "5.19", "arches": ["arm64"]}"#,
            false,
            true,
        ),
        (r#""excludes": {"minKernel": "6.1"}"#, false, false),
        (r#""excludes": {"minKernel": "6.10"}"#, true, true),
    ];
    for (when, on_x86_64, on_aarch64) in cases {
        for (target, allowed) in [(X86_64, on_x86_64), (AARCH64, on_aarch64)] {
            let expected = if allowed { Verdict::Allow } else { EPERM };
            let found = verdict(&read_if(when), target, "read", [0; 6]);
            assert_eq!(found, expected, "{when} {:?}", target.arch);
        }
    }
}

#[test]
fn refusing_rules_win_over_allowing_ones_with_their_own_answer() {
    let rules = r#"
        {"names": ["read", "write", "dup"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["dup"], "action": "SCMP_ACT_KILL_PROCESS",
         "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_EQ"}]},
        {"names": ["chdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
         "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_GE"}]},
        {"names": ["sync"], "action": "SCMP_ACT_LOG"},
        {"names": ["pipe2"], "action": "SCMP_ACT_TRAP"},
        {"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#;
    let ask = |name, first| verdict(rules, X86_64, name, [first, 0, 0, 0, 0, 0]);
    assert_eq!(ask("read", 9), Verdict::Allow);
    assert_eq!(ask("write", 9), ENOSYS);
    assert_eq!(ask("dup", 9), Verdict::KillProcess);
    assert_eq!(ask("dup", 8), Verdict::Allow);
    assert_eq!(ask("chdir", 9), Verdict::Errno(13));
    assert_eq!(ask("chdir", 8), EPERM);
    assert_eq!(ask("sync", 0), Verdict::Log);
    assert_eq!(ask("pipe2", 0), Verdict::Trap);
    assert_eq!(ask("reboot", 0), EPERM);
    assert_eq!(ask("mount", 0), EPERM);
}

#[test]
fn a_rule_without_conditions_outweighs_those_with() {
    let when = r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                   "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_EQ"}]}"#;
    let always = r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW"}"#;
    for rules in [[when, always, when].join(","), [always, when].join(",")] {
        assert_eq!(
            verdict(&rules, X86_64, "read", [1, 0, 0, 0, 0, 0]),
            Verdict::Allow
        );
    }
    assert_eq!(verdict(when, X86_64, "read", [1, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn unknown_names_are_reported_and_those_of_other_machines_are_not() {
    let rules = r#"{"names": ["raed", "read", "stat64", "s390_sthyi", "open", "raed", "aaa"],
                    "action": "SCMP_ACT_ALLOW"}"#;
    let policy = policy(rules);
    assert_eq!(policy.unknown_syscalls(), ["aaa", "raed"]);
    for target in TARGETS {
        let programs = [policy.compile(&target).expect("unknown names are no error")];
        assert_eq!(ask(&programs, &target, "read", [0; 6]), Verdict::Allow);
    }
}

#[test]
fn podmans_errno_names_and_dockers_nulls_are_understood() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}],
        "syscalls": [
            {"names": ["execve"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "",
             "includes": {}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM"}]}"#;
    let policy = SeccompPolicy::parse("podman.json", text).expect(text);
    let programs = [policy.compile(&X86_64).expect(text)];
    assert_eq!(ask(&programs, &X86_64, "mount", [0; 6]), EPERM);
    assert_eq!(ask(&programs, &X86_64, "umount2", [0; 6]), ENOSYS);
    assert!(policy.compile(&AARCH64).is_err());
}
