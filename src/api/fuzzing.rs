//! See [`crate::fuzzing`].

use super::error::ApiError;
use super::exec_records::{outcomes, rfc3339, since};
use super::fields::parse_json;
use super::query::Params;
use super::{create, exec_body};
use crate::cell::command::{Decoded, MAX_ENCODED};
use crate::config::ExecBounds;
use crate::exec::ValidExec;
use crate::files::FilePath;
use crate::profile::ProfileSet;
use crate::runtime::{
    Base, CreateRequest, HostSizes, Identity, Invalid, Key, Page, PageRequest, Profiles, Scope,
    Settings,
};
use axum::http::Uri;
use std::sync::LazyLock;
use uuid::Uuid;

/// Who commands are.
pub(super) const IDENTITY: Identity<'_> = Identity {
    user: "root",
    home: "/root",
};

/// A server that is asked.
pub(super) struct Ground {
    profiles: Profiles,
    host: HostSizes,
    /// Of a runtime.
    pub(super) settings: Settings,
    /// Of all execs.
    pub(super) bounds: ExecBounds,
}

pub(super) static GROUND: LazyLock<Ground> = LazyLock::new(|| {
    let profiles = Profiles::from(&ProfileSet::load(None).expect("the project's own"));
    let host = HostSizes {
        memory_mib: 8192,
        max_vcpus: 64,
        disk: "/".into(),
    };
    let settings = CreateRequest::default().validate(&profiles, &host, Base::Nothing);
    Ground {
        settings: settings.expect("the defaults").settings,
        profiles,
        host,
        bounds: ExecBounds::small(),
    }
});

/// A JSON body: of an exec, of a runtime that is made or changed.
pub fn exec(data: &[u8]) {
    let body = match parse_json(data) {
        Ok(body) => body,
        Err(problem) => return assert!(problem.starts_with("the body ")),
    };
    let ground = &*GROUND;
    match exec_body::parse(body) {
        Ok(request) => {
            match request.validate(&ground.settings, IDENTITY, &ground.bounds) {
                Ok(valid) => check_exec(&valid),
                Err(invalid) => check_invalid(&invalid),
            };
        }
        Err(error) => check_error(&error),
    }
    let (profiles, host) = (&ground.profiles, &ground.host);
    let bases = [
        Base::Nothing,
        Base::Checkpoint(&ground.settings),
        Base::Runtime(&ground.settings),
    ];
    for base in bases {
        let request = match base {
            Base::Runtime(_) => create::parse_patch(body),
            _ => create::parse(body),
        };
        match request.map(|request| request.validate(profiles, host, base)) {
            Ok(Ok(valid)) => check_settings(&valid.settings),
            Ok(Err(invalid)) => check_invalid(&invalid),
            Err(error) => check_error(&error),
        }
    }
}

/// What whoever runs it takes for granted.
pub(super) fn check_exec(valid: &ValidExec) {
    let Ground {
        settings, bounds, ..
    } = &*GROUND;
    let (runtime, cell) = (settings.resources(), &valid.resources);
    assert!(cell.memory_bytes <= runtime.memory_bytes);
    assert!((1..=runtime.pids).contains(&cell.pids));
    assert_ne!(cell.cpu_secs, Some(0));
    assert!((1..=bounds.max_timeout_secs).contains(&valid.timeout.as_secs()));
    let most = bounds
        .max_output_bytes
        .max(bounds.max_detached_output_bytes);
    assert!(valid.cap as u64 <= most);
    valid.buffered_bytes();
    let command = &valid.command;
    assert!(command.cwd.starts_with('/'), "{}", command.cwd);
    let encoded = command.encode();
    assert!(encoded.len() as u64 <= MAX_ENCODED);
    let decoded = Decoded::decode(&encoded).expect("our own writing");
    assert_eq!(decoded.command.as_bytes(), command.command.as_bytes());
    assert_eq!(decoded.cwd.as_bytes(), command.cwd.as_bytes());
    let strings = |texts: &[String]| texts.iter().map(|text| text.clone().into_bytes()).collect();
    let args: Vec<Vec<u8>> = strings(&command.args);
    assert!(decoded.args.iter().map(|arg| arg.as_bytes()).eq(args));
    assert_eq!(decoded.env.len(), command.env.len());
    for (name, _) in &command.env {
        assert!(!name.is_empty() && !name.contains('='), "{name:?}");
    }
}

/// What is stored of a runtime, and what the warden is asked for.
fn check_settings(settings: &Settings) {
    let ground = &*GROUND;
    assert!((1..=ground.host.memory_mib).contains(&settings.limit_memory_mib));
    assert!((1..=ground.host.max_vcpus).contains(&settings.vcpus));
    assert!(settings.pids >= 1 && settings.disk_mib >= 1);
    settings.resources();
    let stored = serde_json::to_string(settings).expect("plain data");
    let again: Settings = serde_json::from_str(&stored).expect("our own writing");
    assert_eq!(again, *settings);
}

/// A client's mistake names the field that it is in.
pub(super) fn check_invalid(invalid: &Invalid) {
    assert!(!invalid.field.is_empty() && !invalid.problem.is_empty());
    check_error(&invalid.clone().into());
}

/// It is the client's, and it is told in words of ours.
pub(super) fn check_error(error: &ApiError) {
    assert!(!error.is_internal());
    let view = error.view();
    let message = view["message"].as_str().expect("a message");
    assert!(!message.is_empty());
}

/// A query string and what stands in it: pages' cursors, offsets, times, paths.
pub fn cursor(data: &[u8]) {
    keys(data);
    paths(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    times(text);
    let target = [b"/?", data].concat();
    let Ok(target) = Uri::try_from(target) else {
        return;
    };
    let Ok(query) = Params::of(&target) else {
        return;
    };
    pages::<Uuid>(&query);
    pages::<String>(&query);
    for name in ["offset", "limit"] {
        let (whole, flag) = (query.whole(name), query.boolean(name));
        whole
            .map(drop)
            .unwrap_or_else(|invalid| check_invalid(&invalid));
        flag.map(drop)
            .unwrap_or_else(|invalid| check_invalid(&invalid));
    }
    if let Some(text) = query.get("since") {
        times(text);
    }
    if let Some(path) = query.get("path") {
        paths(path.as_bytes());
    }
    if let Some(list) = query.get("outcome") {
        match outcomes(list) {
            Ok(words) => assert!(words.iter().all(|word| !word.is_empty())),
            Err(invalid) => check_invalid(&invalid),
        }
    }
}

fn scope() -> Scope {
    Scope {
        tenant: Uuid::from_u128(7),
        kind: "execs",
    }
}

/// A cursor that is taken is one that we write.
fn pages<K: Key + Clone>(query: &Params) {
    let (limit, offset, after) = (query.get("limit"), query.get("offset"), query.get("after"));
    match PageRequest::<K>::parse(limit, offset, after, scope()) {
        Ok(request) => {
            assert!(request.limit.is_none_or(|limit| (1..=100).contains(&limit)));
            if let Some(key) = request.after.clone() {
                assert_eq!(cursor_of(key).as_deref(), after);
            }
            let all: Vec<K> = request.after.clone().into_iter().collect();
            Page::cut(all, &request, K::clone);
        }
        Err(invalid) => check_invalid(&invalid),
    }
}

/// The cursor of a page that ends with this key, and is not the last.
fn cursor_of<K: Key + Clone>(key: K) -> Option<String> {
    let request = PageRequest {
        scope: scope(),
        limit: None,
        offset: 0,
        after: None,
    };
    Page::of(vec![key], 0, 2, &request, K::clone).next_cursor
}

/// Every key comes back out of its cursor, and out of no other list's.
fn keys(data: &[u8]) {
    fn one<K: Key + Clone + std::fmt::Debug>(data: &[u8]) {
        let Some(key) = K::read(data) else { return };
        let cursor = cursor_of(key.clone()).expect("there is more");
        let parse = |scope| PageRequest::<K>::parse(None, None, Some(&cursor), scope);
        let again = parse(scope()).expect("our own writing").after;
        assert!(again == Some(key), "{cursor}");
        let other = Scope {
            kind: "runtimes",
            ..scope()
        };
        assert!(parse(other).is_err(), "{cursor}");
    }
    one::<Uuid>(&data[..data.len().min(16)]);
    one::<String>(data);
}

fn times(text: &str) {
    match since(text) {
        // Later than any time that can be written, where it was rounded up.
        Ok(millis) => {
            if let Some(written) = rfc3339(millis) {
                assert_eq!(since(&written).ok(), Some(millis), "{text:?} {written}");
            }
        }
        Err(invalid) => check_invalid(&invalid),
    }
}

fn paths(bytes: &[u8]) {
    match FilePath::parse(bytes, "/root") {
        Ok(path) => {
            let shown = path.shown();
            assert!(shown.starts_with('/') && !shown.contains(char::is_control));
        }
        Err(invalid) => check_invalid(&invalid),
    }
}
