//! `WWW-Authenticate`: how a registry wants to be told who asks (RFC 9110, section 11.6.1).

/// The one of its ways that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password, to the registry itself.
    Basic,
    /// A token, which the service at `realm` gives.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// Longer headers are not looked into.
const MAX_HEADER: usize = 8 << 10;

impl Challenge {
    /// Out of all that the answer offers; a token before a password. None: nothing that is known here.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let offers = headers.filter(|header| header.len() <= MAX_HEADER);
        let mut offers: Vec<Challenge> = offers.flat_map(parse).collect();
        offers.sort_by_key(|offer| matches!(offer, Challenge::Basic));
        offers.into_iter().next()
    }
}

/// All challenges of one header: a scheme, then `key=value` or `key="value"` with commas between.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, after)) = take_value(value.trim_start_matches([' ', '\t'])) else {
                    break;
                };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    found.into_iter().filter_map(known).collect()
}

fn known((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let parameter = |name: &str| {
        let found = parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
        }),
        _ => None,
    }
}

/// A token or a quoted string, and what stands behind it.
fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(headers: &[&str]) -> Option<Challenge> {
        Challenge::choose(headers.iter().copied())
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        })
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let token = r#"Bearer realm="https://t.example/token",service="r",scope="x,y""#;
        let expected = bearer("https://t.example/token", Some("r"));
        assert_eq!(chosen(&[token]), expected);
        assert_eq!(chosen(&["Basic realm=\"r\"", token]), expected);
        let both = format!("Basic realm=r , Negotiate, {token}");
        assert_eq!(chosen(&[&both]), expected);
        assert_eq!(
            chosen(&["BASIC realm=\"a, Bearer realm=b\""]),
            Some(Challenge::Basic)
        );
        assert_eq!(chosen(&["bearer Realm = \"a\\\"b\""]), bearer("a\"b", None));
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        let long = format!("Basic realm=\"{}\"", "a".repeat(MAX_HEADER));
        for header in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer service=\"s\"",
            "realm=\"a\"",
            "Bearer realm=\"a",
            "é=",
            &long,
        ] {
            assert_eq!(chosen(&[header]), None, "{header}");
        }
    }
}
