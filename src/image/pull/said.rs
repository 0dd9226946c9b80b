//! A server's own words, made fit for a terminal.

/// What a server itself said of an error: nothing, or `: "…"`, escaped and cut, since it may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said(Option<String>);

/// Characters of a server's words that are passed on.
const MAX_SAID: usize = 200;

impl Said {
    /// Out of the body of an answer, in the form of the OCI distribution specification.
    pub(super) fn of(body: &[u8]) -> Said {
        #[derive(serde::Deserialize)]
        struct Errors {
            errors: Vec<One>,
        }
        #[derive(serde::Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let errors = serde_json::from_slice(body).map(|body: Errors| body.errors);
        let first = errors.ok().and_then(|errors| errors.into_iter().next());
        Said(first.map(|one| {
            let text = format!("{} {}", one.code, one.message);
            text.trim().chars().take(MAX_SAID).collect()
        }))
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(text) => write!(f, ": {text:?}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_escaped_and_cut() {
        let body = format!(
            r#"{{"errors":[{{"code":"DENIED","message":"\u001b[2J{}"}}]}}"#,
            "x".repeat(1000)
        );
        let said = Said::of(body.as_bytes()).to_string();
        assert!(said.starts_with(": \"DENIED \\u{1b}[2Jxx"), "{said}");
        assert!(said.len() < MAX_SAID + 20, "{said}");
        for nothing in ["", "<html>", "{}", r#"{"errors":[]}"#] {
            assert_eq!(Said::of(nothing.as_bytes()), Said::default());
        }
    }
}
