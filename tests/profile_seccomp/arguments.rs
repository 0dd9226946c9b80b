//! The rules of the default policy that look at arguments.

use super::*;

/// The default policy's verdict, the same on both architectures.
fn default_verdict(name: &str, args: [u64; 6]) -> Verdict {
    let [first, second] = [0, 1].map(|i| ask(&COMPILED[i], &TARGETS[i], name, args));
    assert_eq!(first, second, "{name} {args:x?}");
    first
}

#[test]
fn terminal_injection_is_refused_also_with_high_bits_set() {
    for request in [0x5412, 0x541c, 0x5423] {
        for high in [0, 1 << 32, 0xffff_ffff << 32, 1 << 63] {
            for fd in [0, 7, u64::MAX] {
                let args = [fd, request | high, 0x1234, 0, 0, 0];
                assert_eq!(default_verdict("ioctl", args), EPERM, "{args:x?}");
            }
        }
    }
    for request in [
        0x5401,
        0x5411,
        0x5413,
        0x541b,
        0x541d,
        0x5422,
        0x5424,
        0x5451,
        0x8004_5430,
    ] {
        let args = [0x5412, request, 0x5412, 0, 0, 0];
        assert_eq!(
            default_verdict("ioctl", args),
            Verdict::Allow,
            "{request:#x}"
        );
    }
}

#[test]
fn what_names_the_disk_of_the_machine_is_refused() {
    for request in [0x8011_1500, 0x8081_1501, 0x8008_662c] {
        for high in [0, 0xffff_ffff << 32] {
            let args = [3, request | high, 0, 0, 0, 0];
            assert_eq!(default_verdict("ioctl", args), EPERM, "{args:x?}");
        }
    }
}

#[test]
fn no_program_can_be_put_on_a_socket() {
    for option in 0..80 {
        let expected = match option {
            26 | 50 | 51 | 52 => EPERM,
            _ => Verdict::Allow,
        };
        for high in [0, 0xdead_beef << 32] {
            let args = [3, 1 | high, option | high, 0, 0, 0];
            assert_eq!(default_verdict("setsockopt", args), expected, "{args:x?}");
            let args = [3, 6 | high, option | high, 0, 0, 0];
            assert_eq!(default_verdict("setsockopt", args), Verdict::Allow);
        }
    }
}

#[test]
fn only_four_socket_families_can_be_opened() {
    let (stream, raw) = (1, 3);
    for family in 0..=60 {
        for protocol in 0..=300 {
            let expected = match (family, protocol) {
                (1, _) => Verdict::Allow,
                (2, 0 | 1 | 6 | 17) => Verdict::Allow,
                (10, 0 | 6 | 17 | 58) => Verdict::Allow,
                (16, 0) => Verdict::Allow,
                _ => EPERM,
            };
            for kind in [stream, raw, stream | 0o2_000_000] {
                for high in [0, 0xdead_beef << 32] {
                    let args = [family | high, kind, protocol | high, 0, 0, 0];
                    assert_eq!(default_verdict("socket", args), expected, "{args:x?}");
                }
            }
        }
        let pair = if family == 1 { Verdict::Allow } else { EPERM };
        let args = [family, stream, 0, 0x1000, 0, 0];
        assert_eq!(default_verdict("socketpair", args), pair, "{family}");
    }
}

#[test]
fn threads_and_forks_work_but_no_clone_makes_a_namespace() {
    let thread = 0x003d_0f00;
    let fork = 0x0120_0011;
    for flags in [thread, fork, 17] {
        assert_eq!(
            default_verdict("clone", [flags, 0, 0, 0, 0, 0]),
            Verdict::Allow
        );
        // NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
        for shift in [17, 25, 26, 27, 28, 29, 30] {
            for high in [0, 1 << 32] {
                let args = [flags | 1 << shift | high, 0, 0, 0, 0, 0];
                assert_eq!(default_verdict("clone", args), EPERM, "{args:x?}");
            }
        }
    }
}

#[test]
fn clone3_is_missing_rather_than_forbidden() {
    for args in [[0; 6], [0x1000, 88, 0, 0, 0, 0], [u64::MAX; 6]] {
        assert_eq!(default_verdict("clone3", args), ENOSYS);
    }
}

#[test]
fn only_harmless_personalities_can_be_taken() {
    for value in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        assert_eq!(
            default_verdict("personality", [value, 0, 0, 0, 0, 0]),
            Verdict::Allow
        );
    }
    // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, and one that only looks like PER_LINUX.
    for value in [0x004_0000, 0x040_0000, 0x010_0000, 1 << 32] {
        assert_eq!(
            default_verdict("personality", [value, 0, 0, 0, 0, 0]),
            EPERM,
            "{value:#x}"
        );
    }
}

#[test]
fn tracing_needs_a_kernel_that_filters_after_the_tracer() {
    for name in ["ptrace", "process_vm_readv", "process_vm_writev"] {
        assert_eq!(default_verdict(name, [0; 6]), Verdict::Allow);
        let kernel = KernelVersion(4, 7);
        for target in TARGETS.map(|target| Target { kernel, ..target }) {
            assert_eq!(ask(&default_policy(&target), &target, name, [0; 6]), EPERM);
        }
    }
}
