//! Tests of the exec request's rules.

use super::*;
use crate::runtime::{Base, CreateRequest, HostSizes, test_profiles};

pub const IDENTITY: Identity<'_> = Identity {
    user: "root",
    home: "/root",
};

pub fn settings() -> Settings {
    let profiles = test_profiles();
    let host = HostSizes {
        memory_mib: 8192,
        max_vcpus: 64,
        disk: std::env::temp_dir(),
    };
    let request = CreateRequest {
        request_memory_mib: Some(256),
        environment_variables: Some(BTreeMap::from([("FROM".into(), "runtime".into())])),
        ..CreateRequest::default()
    };
    let valid = request.validate(&profiles, &host, Base::Nothing);
    valid.unwrap().settings
}

pub fn bounds() -> ExecBounds {
    ExecBounds::small()
}

fn validate(request: ExecRequest) -> Result<ValidExec, Invalid> {
    request.validate(&settings(), IDENTITY, &bounds())
}

fn field(request: ExecRequest) -> String {
    validate(request).unwrap_err().field
}

fn d() -> ExecRequest {
    ExecRequest {
        command: "true".into(),
        ..ExecRequest::default()
    }
}

#[test]
fn an_image_says_what_neither_the_runtime_nor_the_exec_does() {
    let mut settings = settings();
    settings.image_id = Some(crate::image::digest::Digest::of(b"id"));
    let image = |name: &str| (name.to_owned(), "image".to_owned());
    settings.image_config.env = ["PATH", "FROM", "LANG", "A"].map(image).into();
    let with = |cwd: Option<&str>, settings: &Settings| {
        let cwd = cwd.map(str::to_owned);
        let env = [("A".to_owned(), "exec".to_owned())].into();
        let request = ExecRequest { cwd, env, ..d() };
        let valid = request.validate(settings, IDENTITY, &bounds());
        valid.unwrap().command
    };
    let command = with(None, &settings);
    let env: Vec<String> = command
        .env
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    let expected = [
        "A=exec",
        "FROM=runtime",
        "HOME=/root",
        "LANG=image",
        "PATH=image",
        "USER=root",
    ];
    assert_eq!(env, expected);
    // Its home may be missing in it.
    assert_eq!(
        (command.cwd.as_str(), command.instead),
        ("/root", vec!["/".to_owned()])
    );

    settings.image_config.working_dir = Some("/srv".into());
    let command = with(None, &settings);
    assert_eq!(command.cwd, "/srv");
    assert_eq!(command.instead, ["/root", "/"]);
    // What somebody names is meant, and below home where it is relative.
    for (cwd, meant) in [("a", "/root/a"), ("/a", "/a")] {
        let command = with(Some(cwd), &settings);
        assert_eq!((command.cwd.as_str(), command.instead.len()), (meant, 0));
    }
}

#[test]
fn what_is_not_said_is_the_default() {
    let valid = validate(d()).unwrap();
    assert_eq!(
        (valid.timeout, valid.cap, valid.stdin.clone()),
        (Duration::from_secs(60), 1000, None)
    );
    assert_eq!(valid.command.cwd, "/root");
    let env: Vec<String> = valid
        .command
        .env
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    let path = format!("PATH={PATH}");
    assert_eq!(
        env,
        [
            "FROM=runtime",
            "HOME=/root",
            "LANG=C.UTF-8",
            &path,
            "USER=root"
        ]
    );
    assert_eq!(
        valid.resources,
        CellResources {
            memory_bytes: 256 * MIB,
            pids: 100,
            cpu_secs: None
        }
    );
    assert_eq!(valid.buffered_bytes(), 2000);
}

#[test]
fn numbers_out_of_range_name_their_field() {
    assert_eq!(
        validate(ExecRequest {
            timeout_secs: Some(0),
            ..d()
        })
        .unwrap()
        .timeout
        .as_secs(),
        60
    );
    assert_eq!(
        validate(ExecRequest {
            max_output_bytes: Some(0),
            ..d()
        })
        .unwrap()
        .cap,
        0
    );
    assert_eq!(
        field(ExecRequest {
            timeout_secs: Some(3601),
            ..d()
        }),
        "timeout_secs"
    );
    assert_eq!(
        field(ExecRequest {
            max_output_bytes: Some(2001),
            ..d()
        }),
        "max_output_bytes"
    );
    assert_eq!(
        field(ExecRequest {
            memory_mib: Some(257),
            ..d()
        }),
        "limits.memory_mib"
    );
    assert_eq!(
        field(ExecRequest {
            memory_mib: Some(1),
            ..d()
        }),
        "limits.memory_mib"
    );
    assert_eq!(
        field(ExecRequest {
            pids: Some(101),
            ..d()
        }),
        "limits.pids"
    );
    assert_eq!(
        field(ExecRequest {
            pids: Some(0),
            ..d()
        }),
        "limits.pids"
    );
    assert_eq!(
        field(ExecRequest {
            cpu_secs: Some(0),
            ..d()
        }),
        "limits.cpu_secs"
    );
}

#[test]
fn nul_is_refused_in_what_the_kernel_ends_there() {
    let nul = || "a\0b".to_owned();
    assert_eq!(
        field(ExecRequest {
            command: nul(),
            ..d()
        }),
        "command"
    );
    assert_eq!(
        field(ExecRequest {
            args: vec!["a".into(), nul()],
            ..d()
        }),
        "args[1]"
    );
    assert_eq!(
        field(ExecRequest {
            cwd: Some(nul()),
            ..d()
        }),
        "cwd"
    );
    assert_eq!(
        field(ExecRequest {
            env: BTreeMap::from([("A".into(), nul())]),
            ..d()
        }),
        "env.A"
    );
    assert_eq!(
        field(ExecRequest {
            env: BTreeMap::from([(nul(), "".into())]),
            ..d()
        }),
        "env"
    );
}

#[test]
fn empty_words_are_refused() {
    assert_eq!(
        field(ExecRequest {
            command: String::new(),
            ..d()
        }),
        "command"
    );
    assert_eq!(
        field(ExecRequest {
            cwd: Some(String::new()),
            ..d()
        }),
        "cwd"
    );
}

#[test]
fn stdin_is_text_or_base64() {
    let stdin = |request| validate(request).unwrap().stdin;
    assert_eq!(
        stdin(ExecRequest {
            stdin: Some("é\0".into()),
            ..d()
        }),
        Some("é\0".into())
    );
    assert_eq!(
        stdin(ExecRequest {
            stdin_base64: Some("AP8=".into()),
            ..d()
        }),
        Some(vec![0, 255])
    );
    assert_eq!(
        stdin(ExecRequest {
            stdin: Some("".into()),
            ..d()
        }),
        None
    );
    assert_eq!(
        field(ExecRequest {
            stdin_base64: Some("AP8".into()),
            ..d()
        }),
        "stdin_base64"
    );
    let both = ExecRequest {
        stdin: Some("".into()),
        stdin_base64: Some("".into()),
        ..d()
    };
    assert_eq!(field(both), "stdin_base64");
    assert_eq!(
        field(ExecRequest {
            output_encoding: Some("latin1".into()),
            ..d()
        }),
        "output_encoding"
    );
}

#[test]
fn arguments_that_the_kernel_would_refuse_are_refused() {
    let args = |args: Vec<String>| ExecRequest { args, ..d() };
    assert!(validate(args(vec!["x".repeat(MAX_STRING - 1)])).is_ok());
    assert_eq!(field(args(vec!["x".repeat(MAX_STRING)])), "args[0]");
    assert_eq!(field(args(vec!["x".repeat(100_000); 21])), "args");
    // Many small ones: the pointers count.
    assert_eq!(field(args(vec![String::new(); MAX_STRINGS / 9])), "args");
    assert!(validate(args(vec![String::new(); MAX_STRINGS / 10])).is_ok());
}
