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
        .validate(&profiles(), &host(), Base::Nothing)
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
            image: Some(String::new()),
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

fn settings() -> Settings {
    validate(CreateRequest {
        request_memory_mib: Some(256),
        ..d()
    })
    .unwrap()
}

fn patch(request: CreateRequest, before: &Settings) -> Result<Settings, Invalid> {
    request
        .validate(&profiles(), &host(), Base::Runtime(before))
        .map(|valid| valid.settings)
}

fn restore(request: CreateRequest, before: &Settings) -> Result<Settings, Invalid> {
    request
        .validate(&profiles(), &host(), Base::Checkpoint(before))
        .map(|valid| valid.settings)
}

#[test]
fn a_patch_leaves_alone_what_it_does_not_name() {
    let before = Settings {
        environment_variables: BTreeMap::from([("A".into(), "1".into())]),
        llm_token_saving_policy: TokenSaving {
            log_enabled: true,
            ..TokenSaving::default()
        },
        ..settings()
    };
    assert_eq!(patch(d(), &before).unwrap(), before);
    let after = patch(
        CreateRequest {
            environment_variables: Some(BTreeMap::new()),
            llm_token_saving_policy: TokenSavingPatch {
                git_diff_enabled: Some(true),
                ..TokenSavingPatch::default()
            },
            pids: Some(7),
            ..d()
        },
        &before,
    )
    .unwrap();
    assert!(after.environment_variables.is_empty());
    assert!(after.llm_token_saving_policy.log_enabled);
    assert!(after.llm_token_saving_policy.git_diff_enabled);
    assert_eq!((after.pids, after.disk_mib), (7, before.disk_mib));
}

#[test]
fn memory_that_nobody_limited_follows_what_is_asked_for() {
    let ask = |mib| CreateRequest {
        request_memory_mib: Some(mib),
        ..d()
    };
    let after = patch(ask(512), &settings()).unwrap();
    assert_eq!(
        (after.limit_memory_mib, after.limit_memory_named),
        (512, false)
    );
    assert_eq!(after.min_memory_mib, 512);

    let limit = |mib| CreateRequest {
        limit_memory_mib: Some(mib),
        ..d()
    };
    let limited = patch(limit(512), &settings()).unwrap();
    assert_eq!(
        (limited.request_memory_mib, limited.limit_memory_mib),
        (256, 512)
    );
    let after = patch(ask(300), &limited).unwrap();
    assert_eq!(
        (after.request_memory_mib, after.limit_memory_mib),
        (300, 512)
    );
    let error = patch(ask(513), &limited).unwrap_err();
    assert_eq!(error.field, "resources.requests.memory_mib");
    let error = patch(limit(128), &settings()).unwrap_err();
    assert_eq!(error.field, "resources.limits.memory_mib");
}

#[test]
fn the_oldest_client_changes_memory_in_its_own_words() {
    let both = CreateRequest {
        cur_memory_mib: Some(512),
        max_memory_mib: Some(512),
        ..d()
    };
    let after = patch(both, &settings()).unwrap();
    assert_eq!(
        (after.request_memory_mib, after.limit_memory_mib),
        (512, 512)
    );
    let smaller = CreateRequest {
        cur_memory_mib: Some(128),
        min_memory_mib: Some(128),
        ..d()
    };
    let after = patch(smaller, &after).unwrap();
    assert_eq!(
        (
            after.request_memory_mib,
            after.limit_memory_mib,
            after.min_memory_mib
        ),
        (128, 512, 128)
    );
}

#[test]
fn what_the_disk_depends_on_stays() {
    let word = |word: &str| Some(word.to_owned());
    let before = settings();
    for (request, name) in [
        (
            CreateRequest {
                image: word("other"),
                ..d()
            },
            "image",
        ),
        (
            CreateRequest {
                profile: word("strict"),
                ..d()
            },
            "profile",
        ),
        (
            CreateRequest {
                filesystem: word("ephemeral"),
                ..d()
            },
            "filesystem",
        ),
        (
            CreateRequest {
                disk_mib: Some(before.disk_mib - 1),
                ..d()
            },
            "limits.disk_mib",
        ),
    ] {
        assert_eq!(patch(request.clone(), &before).unwrap_err().field, name);
        assert_eq!(restore(request, &before).unwrap_err().field, name);
    }
    let same = || CreateRequest {
        image: word("host"),
        profile: word("default"),
        filesystem: word("persistent"),
        disk_mib: Some(before.disk_mib),
        ..d()
    };
    assert_eq!(patch(same(), &before).unwrap(), before);
    assert_eq!(restore(same(), &before).unwrap(), before);
    let larger = || CreateRequest {
        disk_mib: Some(before.disk_mib + 1),
        ..d()
    };
    assert_eq!(
        patch(larger(), &before).unwrap_err().field,
        "limits.disk_mib"
    );
    assert_eq!(
        restore(larger(), &before).unwrap().disk_mib,
        before.disk_mib + 1
    );
}

#[test]
fn settings_stored_before_there_were_imported_images_have_none() {
    let mut stored = serde_json::to_value(validate(d()).unwrap()).unwrap();
    let fields = stored.as_object_mut().unwrap();
    for field in ["image_id", "image_config"] {
        assert!(fields.remove(field).is_some(), "{field}");
    }
    let settings: Settings = serde_json::from_value(stored).unwrap();
    assert_eq!(settings, validate(d()).unwrap());
}

#[test]
fn a_copy_of_a_runtime_has_its_image_too() {
    let mut before = validate(d()).unwrap();
    before.image_id = Some(crate::image::digest::Digest::of(b"id"));
    before.image_config.working_dir = Some("/srv".into());
    for base in [Base::Checkpoint(&before), Base::Runtime(&before)] {
        let after = d().validate(&profiles(), &host(), base).unwrap().settings;
        assert_eq!(after.image_id, before.image_id);
        assert_eq!(after.image_config, before.image_config);
    }
}

#[test]
fn a_restored_runtime_is_as_the_checkpoint_where_nothing_else_is_said() {
    let before = Settings {
        vcpus: 3,
        environment_variables: BTreeMap::from([("A".into(), "1".into())]),
        ..settings()
    };
    assert_eq!(restore(d(), &before).unwrap(), before);
    let limited = CreateRequest {
        limit_memory_mib: Some(64),
        ..d()
    };
    let after = restore(limited, &before).unwrap();
    assert_eq!(
        (
            after.request_memory_mib,
            after.limit_memory_mib,
            after.vcpus
        ),
        (64, 64, 3)
    );
}
