//! Properties: a compiled condition means what OCI says, and no input makes the parser panic.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Conditions in OCI's words: index, operator, value, valueTwo.
type Condition = (u8, &'static str, u64, u64);

fn holds((index, op, value, two): Condition, args: &[u64; 6]) -> bool {
    let argument = args[usize::from(index)];
    match op {
        "NE" => argument != value,
        "LT" => argument < value,
        "LE" => argument <= value,
        "EQ" => argument == value,
        "GE" => argument >= value,
        "GT" => argument > value,
        "MASKED_EQ" => argument & value == two,
        other => panic!("{other}"),
    }
}

/// Numbers near each other and near the border of 32 bits, where a comparison in halves can go
/// wrong.
fn number() -> impl Strategy<Value = u64> {
    let half = || {
        prop_oneof![
            0u64..4,
            0xffff_fffcu64..=0xffff_ffff,
            0x7fff_fffeu64..0x8000_0002
        ]
    };
    prop_oneof![
        (half(), half()).prop_map(|(high, low)| high << 32 | low),
        any::<u64>()
    ]
}

fn condition(index: u8) -> impl Strategy<Value = Condition> {
    let op = prop::sample::select(vec!["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
    (op, number(), number()).prop_map(move |(op, value, two)| (index, op, value, two & value))
}

/// One to four conditions on different arguments.
fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    prop::sample::subsequence(vec![0u8, 1, 2, 3, 4, 5], 1..4)
        .prop_flat_map(|indices| indices.into_iter().map(condition).collect::<Vec<_>>())
}

fn rule(action: Value, conditions: &[Condition]) -> Value {
    let mut rule = action;
    rule["names"] = json!(["read"]);
    rule["args"] = conditions
        .iter()
        .map(|(index, op, value, two)| {
            let op = format!("SCMP_CMP_{op}");
            json!({ "index": index, "value": value, "valueTwo": two, "op": op })
        })
        .collect();
    rule
}

/// Any JSON, biased to the words of the format.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_CMP_EQ",
        "SCMP_CMP_MASKED_EQ",
        "read",
        "execve",
        "",
    ]);
    let key = prop::sample::select(vec![
        "defaultAction",
        "defaultErrnoRet",
        "architectures",
        "archMap",
        "architecture",
        "syscalls",
        "names",
        "action",
        "errnoRet",
        "args",
        "index",
        "value",
        "valueTwo",
        "op",
        "includes",
        "excludes",
        "caps",
        "arches",
        "minKernel",
        "other",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| { pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect() }),
        ]
    })
}

/// Puts `new` in the place of the `at`-th value of the tree, counted depth first.
fn replace(tree: &mut Value, at: &mut usize, new: &Value) {
    if *at == 0 {
        *tree = new.clone();
    }
    *at = at.wrapping_sub(1);
    match tree {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, at, new)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|field| replace(field, at, new)),
        _ => {}
    }
}

/// Parses and compiles; what comes out does not matter, that it comes out does.
fn digest(text: &str) {
    if let Ok(policy) = SeccompPolicy::parse("any.json", text) {
        policy.unknown_syscalls();
        for target in &TARGETS {
            let _ = policy.compile(target);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_rules_mean_what_the_file_says(
        allows in prop::collection::vec(conditions(), 0..4),
        refuses in prop::collection::vec(conditions(), 0..3),
        args in prop::array::uniform6(number()),
    ) {
        let allow = json!({ "action": "SCMP_ACT_ALLOW" });
        let refuse = json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 38 });
        let mut rules = vec![json!({ "names": ["execve"], "action": "SCMP_ACT_ALLOW" })];
        rules.extend(allows.iter().map(|conditions| rule(allow.clone(), conditions)));
        rules.extend(refuses.iter().map(|conditions| rule(refuse.clone(), conditions)));
        let text = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }).to_string();
        let policy = SeccompPolicy::parse("test.json", &text).expect("well-formed");

        let any = |rules: &[Vec<Condition>]| {
            rules.iter().any(|rule| rule.iter().all(|c| holds(*c, &args)))
        };
        let expected = match (any(&refuses), any(&allows)) {
            (true, _) => ENOSYS,
            (false, true) => Verdict::Allow,
            (false, false) => EPERM,
        };
        for target in &TARGETS {
            let programs = [policy.compile(target).expect("small")];
            prop_assert_eq!(ask(&programs, target, "read", args), expected);
            prop_assert_eq!(ask(&programs, target, "write", args), EPERM);
            prop_assert_eq!(ask(&programs, target, "execve", args), Verdict::Allow);
        }
    }

    /// The arguments are drawn from the condition's own value, so that equality does occur.
    #[test]
    fn masked_equality_looks_at_the_masked_bits_only(
        mask in number(), expected in number(), noise: u64, flip in 0u32..64,
    ) {
        let expected = expected & mask;
        let allow = json!({ "action": "SCMP_ACT_ALLOW" });
        let rules = rule(allow, &[(2, "MASKED_EQ", mask, expected)]).to_string();
        let target = &TARGETS[0];
        let programs = [policy(&rules).compile(target).expect("small")];
        let matching = expected | (noise & !mask);
        let verdict = |argument| ask(&programs, target, "read", [7, 7, argument, 7, 7, 7]);
        prop_assert_eq!(verdict(matching), Verdict::Allow);
        let flipped = matching ^ (1 << flip);
        let still = if mask >> flip & 1 == 0 { Verdict::Allow } else { EPERM };
        prop_assert_eq!(verdict(flipped), still);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,200}") {
        digest(&text);
    }

    #[test]
    fn any_json_is_parsed_or_refused(value in any_json()) {
        digest(&value.to_string());
    }

    #[test]
    fn the_default_policy_with_any_value_replaced_is_parsed_or_refused(
        at in 0usize..900, new in any_json(),
    ) {
        let text = include_str!("../../sandbox-profiles/seccomp/default.json");
        let mut tree: Value = serde_json::from_str(text).expect("JSON");
        replace(&mut tree, &mut { at }, &new);
        digest(&tree.to_string());
    }
}
