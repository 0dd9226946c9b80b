//! Who a pull says it is, to whom, and that it tells nobody else.

use crate::image::{Image, Place};
use crate::needs;
use crate::registry::{Registry, Reply, Seen};
use serde_json::{Value, json};

const USER: [(&str, &str); 2] = [
    ("CELLBLOCK_REGISTRY_USERNAME", "mallory"),
    ("CELLBLOCK_REGISTRY_PASSWORD", "hunter2"),
];

/// `mallory:hunter2`.
const BASIC: &str = "Basic bWFsbG9yeTpodW50ZXIy";

/// A registry that wants a token, which the service at `realm` gives.
fn guarded(image: &Image, realm: String) -> impl Fn(&Seen) -> Reply + use<> {
    let image = image.clone();
    move |seen| match seen.header("authorization") {
        Some("Bearer t0k3n") => image.reply(seen),
        _ => {
            let offer =
                format!("Bearer realm=\"{realm}\",service=\"here\",scope=\"repository:other:*\"");
            Reply::new(401, "").with("www-authenticate", offer)
        }
    }
}

fn grants(_: &Seen) -> Reply {
    Reply::new(200, json!({"token": "t0k3n"}).to_string())
}

#[test]
fn a_token_is_asked_for_this_repository_and_sent_to_its_registry_alone() {
    needs!(Root);
    let image = Image::new(1000);
    let place = Place::new();
    let service = Registry::start_tls(&place.authority(), grants);
    let realm = format!("https://{}/token?a=b", service.address);
    let registry = Registry::start(guarded(&image, realm));
    let reference = format!("{}/team/app", registry.address);
    let pulled = place.pull_with(&reference, &[], &USER);
    pulled.succeeded();
    let seen = service.seen();
    assert_eq!(seen.len(), 1, "one token for all: {seen:?}");
    assert_eq!(seen[0].header("authorization"), Some(BASIC));
    let expected = "/token?a=b&scope=repository%3Ateam%2Fapp%3Apull&service=here";
    assert_eq!(seen[0].path, expected);
    for seen in registry.seen() {
        assert_ne!(
            seen.header("authorization"),
            Some(BASIC),
            "the password is the service's"
        );
    }
}

#[test]
fn an_identity_token_is_changed_into_one_for_the_repository() {
    needs!(Root);
    let image = Image::new(1000);
    let place = Place::new();
    let service = Registry::start_tls(&place.authority(), grants);
    let registry = Registry::start(guarded(
        &image,
        format!("https://{}/token", service.address),
    ));
    let file = place.path().join("auth.json");
    let auths = json!({"auths": {&registry.address: {"identitytoken": "id+1"}}});
    std::fs::write(&file, auths.to_string()).expect("write");
    let file = file.to_str().expect("UTF-8");
    let reference = format!("{}/team/app", registry.address);
    place.pull(&reference, &["--auth-file", file]).succeeded();
    let seen = service.seen();
    assert_eq!(seen[0].method, "POST");
    let form = "grant_type=refresh_token&client_id=cellblock&refresh_token=id%2B1";
    assert!(seen[0].body.ends_with(form), "{}", seen[0].body);
}

#[test]
fn nobody_in_particular_gets_a_token_too() {
    needs!(Root);
    let image = Image::new(1000);
    let service = Registry::start(grants);
    let registry = Registry::start(guarded(&image, format!("http://{}/token", service.address)));
    let place = Place::new();
    place
        .pull(&format!("{}/team/app", registry.address), &[])
        .succeeded();
    assert!(!service.seen()[0].has_credentials());
}

#[test]
fn no_password_is_sent_to_a_token_service_over_plain_http() {
    needs!(Root);
    let image = Image::new(1000);
    let service = Registry::start(grants);
    let registry = Registry::start(guarded(&image, format!("http://{}/token", service.address)));
    let place = Place::new();
    let reference = format!("{}/team/app", registry.address);
    for args in [&[][..], &["--plain-http"]] {
        let pulled = place.pull_with(&reference, args, &USER);
        pulled.refused(&["token service", "plain http, over which no credentials"]);
    }
    assert!(service.seen().is_empty(), "{:?}", service.seen());
    // Without credentials it is not asked either, where the registry itself talks TLS.
    let realm = format!("http://{}/token", service.address);
    let secure = Registry::start_tls(&place.authority(), guarded(&image, realm));
    let reference = format!("{}/team/app", secure.address);
    place
        .pull(&reference, &[])
        .refused(&["token service", "plain http"]);
    assert!(service.seen().is_empty(), "{:?}", service.seen());
}

#[test]
fn a_registry_that_is_never_content_is_asked_twice() {
    needs!(Root);
    let image = Image::new(1000);
    let place = Place::new();
    let service = Registry::start_tls(&place.authority(), |_| {
        Reply::new(200, json!({"access_token": "wrong"}).to_string())
    });
    let registry = Registry::start(guarded(&image, format!("https://{}/t", service.address)));
    let reference = format!("{}/team/app", registry.address);
    place
        .pull_with(&reference, &[], &USER)
        .refused(&["refuses access", "manifest latest"]);
    assert_eq!((registry.seen().len(), service.seen().len()), (2, 1));
}

#[test]
fn a_bad_token_service_is_named() {
    needs!(Root);
    let image = Image::new(1000);
    let answers: [(Reply, &str); 6] = [
        (
            Reply::new(401, r#"{"errors":[{"code":"WRONG","message":"who?"}]}"#),
            "refuses access: \"WRONG who?\"",
        ),
        (Reply::new(200, "{}"), "answers with no token"),
        (
            Reply::new(200, json!({"token": "a\r\nx: y"}).to_string()),
            "answers with no token",
        ),
        (Reply::redirect("https://localhost:1/"), "answers 307"),
        (
            Reply::endless(&[b' '; 1000]),
            "sends more than 1048576 bytes",
        ),
        (Reply::silence(), "has sent nothing for 1 s"),
    ];
    for (answer, words) in answers {
        let place = Place::new();
        let service = Registry::start_tls(&place.authority(), move |_| answer.clone());
        let realm = format!("https://{}/t", service.address);
        let registry = Registry::start(guarded(&image, realm));
        let reference = format!("{}/team/app", registry.address);
        place
            .pull_with(&reference, &[], &USER)
            .refused(&[words, &service.address]);
    }
}

#[test]
fn credentials_come_from_file_or_environment_and_are_shown_to_nobody() {
    needs!(Root);
    let image = Image::new(1000);
    let (good, expected) = (image.clone(), BASIC);
    let registry = Registry::start(move |seen| match seen.header("authorization") {
        Some(pass) if pass == expected => good.reply(seen),
        _ => Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\""),
    });
    let reference = format!("{}/team/app", registry.address);
    let write = |place: &Place, name: &str, auths: Value| {
        let file = place.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("make");
        std::fs::write(&file, auths.to_string()).expect("write");
        file.to_str().expect("UTF-8").to_owned()
    };
    let right = json!({"auths": {&registry.address: {"auth": "bWFsbG9yeTpodW50ZXIy"}}});
    let wrong = json!({"auths": {&registry.address: {"username": "m", "password": "hunter3"}}});

    let place = Place::new();
    place
        .pull(&reference, &[])
        .refused(&["wants credentials; none are known"]);
    let by_env = place.pull_with(&reference, &["--name", "env"], &USER);
    let file = write(&place, "auth.json", right.clone());
    let by_flag = place.pull(&reference, &["--name", "flag", "--auth-file", &file]);
    let variable = [("REGISTRY_AUTH_FILE", file.as_str())];
    let by_variable = place.pull_with(&reference, &["--name", "variable"], &variable);
    let other = write(&place, "other.json", wrong);
    let failed = place.pull_with(&reference, &["--auth-file", &other], &USER);
    failed.refused(&["refuses access"]);
    write(&place, "home/.docker/config.json", right);
    let by_home = place.pull(&reference, &["--name", "home"]);
    for pulled in [&by_env, &by_flag, &by_variable, &by_home] {
        pulled.succeeded();
    }
    for pulled in [by_env, by_flag, by_variable, by_home, failed] {
        let said = pulled.said();
        for secret in ["hunter", "bWFsbG9yeTpodW50ZXIy"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    let helper = write(
        &place,
        "helper.json",
        json!({"credsStore": "vault", "auths": {&registry.address: {}}}),
    );
    place
        .pull(&reference, &["--auth-file", &helper])
        .refused(&["credential helper \"vault\"", "not run"]);
    place
        .pull(&reference, &["--auth-file", "/nowhere"])
        .refused(&["read credentials from /nowhere"]);
}
