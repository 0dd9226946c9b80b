//! Tests of the create request's rules.

use super::*;
use crate::runtime::defaults::tests::profiles;

fn host() -> HostSizes {
    HostSizes {
        memory_mib: 8192,
        max_vcpus: 64,
        disk: std::env::temp_dir(),
    }
}

fn validate(request: CreateRequest) -> Result<Settings, Invalid> {
    request
        .validate(&profiles(), &host())
        .map(|valid| valid.settings)
}

fn field(request: CreateRequest) -> String {
    validate(request).unwrap_err().field
}

fn d() -> CreateRequest {
    CreateRequest::default()
}

#[test]
fn nothing_asked_for_is_the_documented_default() {
    let settings = validate(d()).unwrap();
    assert_eq!(
        (
            settings.request_memory_mib,
            settings.limit_memory_mib,
            settings.vcpus
        ),
        (1024, 1024, 1)
    );
    assert_eq!(
        (settings.image.as_str(), settings.profile.as_str()),
        ("host", "default")
    );
    assert_eq!(settings.filesystem, Filesystem::Persistent);
    assert_eq!((settings.pids, settings.disk_mib), (100, 64));
}

#[test]
fn the_limit_is_enforced_and_else_the_request() {
    let both = CreateRequest {
        request_memory_mib: Some(64),
        limit_memory_mib: Some(128),
        ..d()
    };
    assert_eq!(validate(both).unwrap().resources().memory_bytes, 128 << 20);
    let one = CreateRequest {
        request_memory_mib: Some(64),
        ..d()
    };
    assert_eq!(validate(one).unwrap().resources().memory_bytes, 64 << 20);
    let limit_only = CreateRequest {
        limit_memory_mib: Some(32),
        ..d()
    };
    assert_eq!(validate(limit_only).unwrap().request_memory_mib, 32);
}

#[test]
fn the_flat_dialect_means_the_same() {
    let flat = CreateRequest {
        vcpus: Some(2),
        cur_memory_mib: Some(64),
        min_memory_mib: Some(0),
        max_memory_mib: Some(0),
        idle_suspend_after_secs: Some(9),
        ..d()
    };
    let settings = validate(flat).unwrap();
    assert_eq!(
        (
            settings.vcpus,
            settings.request_memory_mib,
            settings.limit_memory_mib
        ),
        (2, 64, 64)
    );
    assert_eq!(
        settings.idle_policy,
        IdlePolicy::SuspendAndWakeup {
            suspend_after_secs: 9
        }
    );
    let with_max = CreateRequest {
        cur_memory_mib: Some(64),
        max_memory_mib: Some(96),
        ..d()
    };
    assert_eq!(validate(with_max).unwrap().limit_memory_mib, 96);
}

#[test]
fn impossible_sizes_name_the_field_as_it_was_sent() {
    for memory in [0, 15, 8193, u64::MAX] {
        let nested = CreateRequest {
            request_memory_mib: Some(memory),
            ..d()
        };
        assert_eq!(field(nested), "resources.requests.memory_mib");
        assert_eq!(
            field(CreateRequest {
                cur_memory_mib: Some(memory),
                ..d()
            }),
            "cur_memory_mib"
        );
    }
    for vcpus in [0, 65, u64::MAX] {
        assert_eq!(
            field(CreateRequest {
                vcpus: Some(vcpus),
                ..d()
            }),
            "vcpus"
        );
        let nested = CreateRequest {
            request_vcpus: Some(vcpus),
            ..d()
        };
        assert_eq!(field(nested), "resources.requests.vcpus");
    }
    let low = CreateRequest {
        request_memory_mib: Some(64),
        limit_memory_mib: Some(32),
        ..d()
    };
    assert_eq!(field(low), "resources.limits.memory_mib");
    assert_eq!(
        field(CreateRequest {
            disk_mib: Some(u64::MAX),
            ..d()
        }),
        "limits.disk_mib"
    );
    assert_eq!(
        field(CreateRequest {
            disk_mib: Some(1),
            ..d()
        }),
        "limits.disk_mib"
    );
    assert_eq!(
        field(CreateRequest {
            pids: Some(0),
            ..d()
        }),
        "limits.pids"
    );
}

#[test]
fn unknown_words_tell_the_known_ones() {
    let error = validate(CreateRequest {
        profile: Some("lax".into()),
        ..d()
    })
    .unwrap_err();
    assert_eq!(
        (error.field.as_str(), error.allowed),
        ("profile", vec!["default".into(), "strict".into()])
    );
    assert_eq!(
        field(CreateRequest {
            filesystem: Some("rw".into()),
            ..d()
        }),
        "filesystem"
    );
    assert_eq!(
        field(CreateRequest {
            network: Some("host".into()),
            ..d()
        }),
        "network"
    );
    assert_eq!(
        field(CreateRequest {
            arch: Some("riscv64".into()),
            ..d()
        }),
        "arch"
    );
    assert_eq!(
        field(CreateRequest {
            image: Some("../x".into()),
            ..d()
        }),
        "image"
    );
    assert!(
        validate(CreateRequest {
            network: Some("none".into()),
            ..d()
        })
        .is_ok()
    );
}

#[test]
fn the_profile_sets_defaults_and_bounds() {
    let strict = || CreateRequest {
        profile: Some("strict".into()),
        ..d()
    };
    let settings = validate(strict()).unwrap();
    let sizes = (settings.limit_memory_mib, settings.pids, settings.disk_mib);
    assert_eq!(sizes, (512, 50, 32));
    let pids = CreateRequest {
        pids: Some(201),
        ..strict()
    };
    assert_eq!(field(pids), "limits.pids");
    let memory = CreateRequest {
        request_memory_mib: Some(2049),
        ..strict()
    };
    assert_eq!(field(memory), "resources.requests.memory_mib");
}
