//! Reads the fields of a JSON object one by one, so that every complaint names its field in the API's words and none
//! leaks the parser's. Nothing is built of what is not asked for: 64 MiB of `[[],[],…` in an unknown field cost nothing.

use super::items::{Items, MAX_ITEMS};
use crate::config::nearest::nearest;
use crate::runtime::Invalid;
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// Most characters of a client's own words in a message.
const SHOWN: usize = 64;

/// What is wrong with text that is no Unicode.
const HALF: &str =
    "must be valid Unicode: it holds half of a surrogate pair (`\\ud800` to `\\udfff`)";

/// What is wrong with a name that an object holds twice.
const ONCE: &str = "must be given once only";

/// The fields of one object. One that is given twice is refused.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    known: &'static [&'static str],
    entries: Vec<(&'static str, &'a RawValue)>,
    unknown: Option<String>,
}

impl<'a> Fields<'a> {
    /// The fields of the request body, of which `known` have a meaning.
    pub fn of_body(raw: &'a RawValue, known: &'static [&'static str]) -> Result<Self, Invalid> {
        Self::parse(raw, String::new(), known)
    }

    /// The fields of one message of a stream, which may hold others.
    pub fn of_frame(raw: &'a RawValue, known: &'static [&'static str]) -> Result<Self, Invalid> {
        if !raw.get().starts_with('{') {
            return Err(Invalid::new("frame", "must be a JSON object"));
        }
        Self::parse(raw, String::new(), known)
    }

    fn parse(
        raw: &'a RawValue,
        path: String,
        known: &'static [&'static str],
    ) -> Result<Self, Invalid> {
        let not_an_object = |path: &str| {
            Invalid::new(
                if path.is_empty() { "body" } else { path },
                "must be a JSON object",
            )
        };
        if !raw.get().starts_with('{') {
            return Err(not_an_object(&path));
        }
        let visitor = ObjectVisitor { known };
        let Entries {
            entries,
            unknown,
            repeated,
        } = serde_json::Deserializer::from_str(raw.get())
            .deserialize_map(visitor)
            .map_err(|_| not_an_object(&path))?;
        let fields = Self {
            path,
            known,
            entries,
            unknown,
        };
        match repeated {
            // Whichever value were taken, the other would be ignored in silence.
            Some(name) => Err(Invalid::new(fields.name(name), ONCE)),
            None => Ok(fields),
        }
    }

    /// Refuses a field without a meaning, and names the nearest that has one.
    pub fn deny_unknown(&self) -> Result<(), Invalid> {
        let Some(name) = &self.unknown else {
            return Ok(());
        };
        let shown = shown(name);
        let problem = match nearest(name, self.known) {
            Some(near) => format!("is not a field; did you mean `{}`?", self.name(near)),
            None => format!("is not a field; the fields are {}", self.known.join(", ")),
        };
        Err(Invalid {
            allowed: self.known.iter().map(|k| k.to_string()).collect(),
            ..Invalid::new(self.name(&shown), problem)
        })
    }

    /// A string.
    pub fn string(&self, name: &str) -> Result<Option<String>, Invalid> {
        self.read(name, "must be a string")
    }

    /// A whole number.
    pub fn whole(&self, name: &str) -> Result<Option<u64>, Invalid> {
        self.read(name, "must be a whole number, not negative")
            .map(|number| number.map(|Whole(number)| number))
    }

    /// True or false.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Invalid> {
        self.read(name, "must be true or false")
    }

    /// An array of strings.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<String>>, Invalid> {
        let items: Option<Items<Vec<String>>> = self.read(name, "must be an array of strings")?;
        items.map(|items| self.all(name, items)).transpose()
    }

    /// An object whose values are strings.
    pub fn string_map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Invalid> {
        let items: Option<Items<BTreeMap<String, String>>> =
            self.read(name, "must be an object whose values are strings")?;
        items.map(|items| self.all(name, items)).transpose()
    }

    /// An array of at most `most` objects.
    pub fn objects(
        &self,
        name: &str,
        known: &'static [&'static str],
        most: usize,
    ) -> Result<Option<Vec<Fields<'a>>>, Invalid> {
        let Some(array) = self.read(name, "must be an array of objects")? else {
            return Ok(None);
        };
        let items: Vec<&'a RawValue> = self.all(name, array)?;
        if items.len() > most {
            let problem = format!("must hold at most {most} items");
            return Err(Invalid::new(self.name(name), problem));
        }
        let parse = |(index, raw): (usize, &&'a RawValue)| {
            Self::parse(raw, format!("{}[{index}]", self.name(name)), known)
        };
        let objects: Result<_, _> = items.iter().enumerate().map(parse).collect();
        objects.map(Some)
    }

    /// An object inside this one.
    pub fn object(
        &self,
        name: &str,
        known: &'static [&'static str],
    ) -> Result<Option<Fields<'a>>, Invalid> {
        self.raw(name)
            .map(|raw| Self::parse(raw, self.name(name), known))
            .transpose()
    }

    /// A field's full name.
    pub fn name(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        debug_assert!(self.known.contains(&name), "{name} is read but not known");
        let (_, raw) = self.entries.iter().find(|(known, _)| *known == name)?;
        (raw.get() != "null").then_some(*raw)
    }

    fn read<T: serde::Deserialize<'a>>(
        &self,
        name: &str,
        problem: &str,
    ) -> Result<Option<T>, Invalid> {
        self.raw(name)
            .map(|raw| {
                serde_json::from_str(raw.get()).map_err(|error| {
                    // It was found to be JSON before. What is left to complain of is what a Rust string can't hold.
                    let half = error.is_syntax() && raw.get().contains("\\u");
                    Invalid::new(self.name(name), if half { HALF } else { problem })
                })
            })
            .transpose()
    }

    fn all<T>(&self, name: &str, items: Items<T>) -> Result<T, Invalid> {
        if let Some(key) = items.repeated {
            let name = format!("{}.{}", self.name(name), shown(&key));
            return Err(Invalid::new(name, ONCE));
        }
        if items.too_many {
            return Err(Invalid::new(
                self.name(name),
                format!("must hold at most {MAX_ITEMS} items"),
            ));
        }
        Ok(items.items)
    }
}

/// A client's own words, as far as a message holds them.
fn shown(text: &str) -> String {
    text.chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect()
}

/// A whole number as JSON Schema sees it: `2.0` is one.
struct Whole(u64);

impl<'de> serde::Deserialize<'de> for Whole {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// Up to here every whole number is a float.
        const EXACT: f64 = (1u64 << 53) as f64;
        let number = serde_json::Number::deserialize(from)?;
        let float = |float: f64| {
            let whole = float.fract() == 0.0 && (0.0..=EXACT).contains(&float);
            whole.then_some(float as u64)
        };
        number
            .as_u64()
            .or_else(|| number.as_f64().and_then(float))
            .map(Whole)
            .ok_or_else(|| serde::de::Error::custom("not a whole number"))
    }
}

struct ObjectVisitor {
    known: &'static [&'static str],
}

struct Entries<'a> {
    entries: Vec<(&'static str, &'a RawValue)>,
    /// The first that has no meaning.
    unknown: Option<String>,
    /// The first with a meaning that came again.
    repeated: Option<&'static str>,
}

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Entries {
            entries: Vec::new(),
            unknown: None,
            repeated: None,
        };
        while let Some(key) = map.next_key::<String>()? {
            let Some(known) = self.known.iter().find(|known| **known == key) else {
                map.next_value::<IgnoredAny>()?;
                found.unknown.get_or_insert(key);
                continue;
            };
            let value = map.next_value()?;
            if found.entries.iter().any(|(name, _)| name == known) {
                found.repeated.get_or_insert(known);
            } else {
                found.entries.push((known, value));
            }
        }
        Ok(found)
    }
}

/// Checks that bytes are JSON; the error says where they are not.
pub fn parse_json(bytes: &[u8]) -> Result<&RawValue, String> {
    if bytes.is_empty() {
        return Err("the body is empty, but must be JSON".into());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "the body is not valid UTF-8".to_owned())?;
    serde_json::from_str(text).map_err(|error: serde_json::Error| {
        format!(
            "the body is not valid JSON (line {}, column {})",
            error.line(),
            error.column()
        )
    })
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
