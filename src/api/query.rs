//! Query strings, and paging on the wire.

use super::App;
use super::auth::Caller;
use super::error::ApiError;
use crate::runtime::{Invalid, Key, Page, PageRequest, Scope};
use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use serde_json::{Value, json};
use std::sync::Arc;

/// The parameters of a query string. Unknown ones are ignored, as old clients expect.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl FromRequestParts<Arc<App>> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        Ok(Self::of(&parts.uri)?)
    }
}

impl Params {
    /// Those of a request's target.
    pub fn of(target: &Uri) -> Result<Self, Invalid> {
        let query = Query::try_from_uri(target);
        let Query(pairs) =
            query.map_err(|_| Invalid::new("query", "is not a valid query string"))?;
        Ok(Self(pairs))
    }

    /// A parameter's last value; empty is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter().rev();
        pairs
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A whole number.
    pub fn whole(&self, name: &str) -> Result<Option<u64>, Invalid> {
        let problem = |_| Invalid::new(name, "must be a whole number, not negative");
        self.get(name)
            .map(|text| text.parse().map_err(problem))
            .transpose()
    }

    /// `true` or `false`, and `1` or `0`.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Invalid> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(Invalid::one_of(name, ["true", "false"])),
        }
    }

    /// `limit`, `offset` and `after`: which part of the caller's list of such things is wanted.
    pub fn page<K: Key>(
        &self,
        caller: &Caller,
        kind: &'static str,
    ) -> Result<PageRequest<K>, Invalid> {
        let (limit, offset) = (self.get("limit"), self.get("offset"));
        let scope = Scope {
            tenant: caller.tenant.0,
            kind,
        };
        PageRequest::parse(limit, offset, self.get("after"), scope)
    }
}

/// The whole answer of a list.
pub fn answer_page<T>(page: &Page<T>, view: impl Fn(&T) -> Value) -> Value {
    json!({
        "data": page.items.iter().map(view).collect::<Vec<_>>(),
        "pagination": pagination(page),
    })
}

/// The six keys that every list has.
pub fn pagination<T>(page: &Page<T>) -> Value {
    json!({
        "next_cursor": page.next_cursor,
        "has_more": page.next_cursor.is_some(),
        "limit": page.limit,
        "offset": page.offset,
        "total": page.total,
        "next_offset": page.next_offset(),
    })
}
