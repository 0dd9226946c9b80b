//! What all lists have in common: their query parameters, and the six keys of `pagination`.

use super::App;
use super::auth::Caller;
use super::error::ApiError;
use crate::runtime::{Invalid, Page, PageRequest, Scope};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::{Value, json};
use std::sync::Arc;

/// A list's query parameters. Unknown ones are ignored; an empty one is as if it were not there.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl FromRequestParts<Arc<App>> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        type Pairs = axum::extract::Query<Vec<(String, String)>>;
        let pairs = Pairs::from_request_parts(parts, app).await;
        let pairs = pairs.map_err(|_| Invalid::new("query", "is not a valid query string"))?;
        Ok(Self(pairs.0))
    }
}

impl Query {
    /// A parameter; of several of one name the last.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Which part of the caller's list of such things is wanted.
    pub fn page(&self, caller: &Caller, kind: &'static str) -> Result<PageRequest, Invalid> {
        let (limit, offset) = (self.get("limit"), self.get("offset"));
        let scope = Scope {
            tenant: caller.tenant.0,
            kind,
        };
        PageRequest::parse(limit, offset, self.get("after"), scope)
    }
}

/// The whole answer.
pub fn answer<T>(page: &Page<T>, view: impl Fn(&T) -> Value) -> Value {
    json!({
        "data": page.items.iter().map(view).collect::<Vec<_>>(),
        "pagination": {
            "next_cursor": page.next_cursor,
            "has_more": page.next_cursor.is_some(),
            "limit": page.limit,
            "offset": page.offset,
            "total": page.total,
            "next_offset": page.next_offset(),
        },
    })
}
