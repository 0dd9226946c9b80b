use super::*;

const KNOWN: &[&str] = &["text", "number", "list", "map", "inner", "flag"];

fn with<T>(json: &str, read: impl FnOnce(&Fields<'_>) -> Result<T, Invalid>) -> Result<T, Invalid> {
    let raw: &RawValue = serde_json::from_str(json).unwrap();
    read(&Fields::of_body(raw, KNOWN)?)
}

#[test]
fn null_and_absent_are_none() {
    assert_eq!(with(r#"{"text":null}"#, |f| f.string("text")), Ok(None));
    assert_eq!(with("{}", |f| f.string("text")), Ok(None));
}

#[test]
fn what_is_given_twice_is_named() {
    let field = |json| {
        let read = |f: &Fields<'_>| {
            f.object("inner", &["size"])?;
            f.string_map("map")
        };
        let error = with(json, read).unwrap_err();
        assert!(error.problem.contains("once"), "{}", error.problem);
        error.field
    };
    assert_eq!(field(r#"{"text":"a","flag":true,"text":"a"}"#), "text");
    assert_eq!(field(r#"{"text":null,"text":"a"}"#), "text");
    assert_eq!(field(r#"{"text":"a","te\u0078t":"a"}"#), "text");
    assert_eq!(field(r#"{"inner":{"size":1,"size":2}}"#), "inner.size");
    assert_eq!(field(r#"{"map":{"a":"1","b":"","a":"1"}}"#), "map.a");
    // What means nothing can't be lost.
    let twice = r#"{"other":1,"other":2,"inner":{"x":1,"x":2}}"#;
    let inner = with(twice, |f| Ok(f.object("inner", &["size"])?.is_some()));
    assert_eq!(inner, Ok(true));
}

#[test]
fn half_a_character_is_told_from_another_type() {
    let problem = |json, read: fn(&Fields<'_>) -> Result<(), Invalid>| {
        let error = with(json, read).unwrap_err();
        error.problem.contains("surrogate")
    };
    let text = |f: &Fields<'_>| f.string("text").map(drop);
    let list = |f: &Fields<'_>| f.strings("list").map(drop);
    let map = |f: &Fields<'_>| f.string_map("map").map(drop);
    assert!(problem(r#"{"text":"a \ud800"}"#, text));
    assert!(problem(r#"{"text":"\udc00"}"#, text));
    assert!(problem(r#"{"list":["\ud800\u0041"]}"#, list));
    assert!(problem(r#"{"map":{"a":"\ud800"}}"#, map));
    assert!(!problem(r#"{"text":["\u0041"]}"#, text));
    assert!(!problem(r#"{"list":["\u0041",1]}"#, list));
    assert!(!problem(r#"{"text":1e999}"#, text));
}

#[test]
fn a_whole_number_may_be_written_as_another() {
    for (number, value) in [
        ("0", 0),
        ("1.0", 1),
        ("1e3", 1000),
        ("-0.0", 0),
        ("18446744073709551615", u64::MAX),
    ] {
        let json = format!("{{\"number\":{number}}}");
        let read = with(&json, |f| f.whole("number"));
        assert_eq!(read, Ok(Some(value)), "{number}");
    }
}

#[test]
fn a_wrong_type_names_its_field() {
    for number in [
        "-1",
        "1.5",
        "-1.0",
        "1e30",
        "\"1\"",
        "true",
        "99999999999999999999",
        "[]",
    ] {
        let json = format!("{{\"number\":{number}}}");
        assert_eq!(
            with(&json, |f| f.whole("number")).unwrap_err().field,
            "number",
            "{number}"
        );
    }
    assert_eq!(
        with(r#"{"text":1}"#, |f| f.string("text"))
            .unwrap_err()
            .field,
        "text"
    );
    assert_eq!(
        with(r#"{"text":"\ud800"}"#, |f| f.string("text"))
            .unwrap_err()
            .field,
        "text"
    );
    assert_eq!(
        with(r#"{"flag":"true"}"#, |f| f.boolean("flag"))
            .unwrap_err()
            .field,
        "flag"
    );
    assert_eq!(
        with(r#"{"list":["a",1]}"#, |f| f.strings("list"))
            .unwrap_err()
            .field,
        "list"
    );
    assert_eq!(
        with(r#"{"map":{"a":1}}"#, |f| f.string_map("map"))
            .unwrap_err()
            .field,
        "map"
    );
    assert_eq!(with("[]", |_| Ok(())).unwrap_err().field, "body");
}

#[test]
fn a_field_inside_is_named_by_its_path() {
    let read = |f: &Fields<'_>| f.object("inner", &["size"])?.unwrap().whole("size");
    assert_eq!(
        with(r#"{"inner":{"size":-1}}"#, read).unwrap_err().field,
        "inner.size"
    );
    assert_eq!(with(r#"{"inner":[]}"#, read).unwrap_err().field, "inner");
    assert_eq!(with(r#"{"inner":{"size":7,"other":1}}"#, read), Ok(Some(7)));
}

#[test]
fn an_unknown_field_is_named_with_the_nearest() {
    let error = with(r#"{"numbr":1}"#, |f| f.deny_unknown()).unwrap_err();
    assert_eq!(error.field, "numbr");
    assert!(error.problem.contains("`number`"), "{}", error.problem);
    assert_eq!(with(r#"{"number":1}"#, |f| f.deny_unknown()), Ok(()));
}

#[test]
fn too_many_items_are_refused_and_not_kept() {
    let list = format!("{{\"list\":[{}\"\"]}}", "\"\",".repeat(MAX_ITEMS));
    assert!(
        with(&list, |f| f.strings("list"))
            .unwrap_err()
            .problem
            .contains("at most")
    );
    let full = format!("{{\"list\":[{}\"\"]}}", "\"\",".repeat(MAX_ITEMS - 1));
    assert_eq!(
        with(&full, |f| f.strings("list")).unwrap().unwrap().len(),
        MAX_ITEMS
    );
}

#[test]
fn what_is_no_json_says_where() {
    assert!(parse_json(b"{\n x").unwrap_err().contains("line 2"));
    assert!(parse_json(b"").unwrap_err().contains("empty"));
    assert!(parse_json(b"\xff").unwrap_err().contains("UTF-8"));
    assert!(parse_json(b"{}garbage").is_err());
    assert!(parse_json(b" {} ").is_ok());
}
