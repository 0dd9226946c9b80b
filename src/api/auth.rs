//! Who is asking: an extractor, so that a handler's signature shows that it is for known callers only.

use super::App;
use super::error::{ApiError, Code};
use crate::tenant::TenantId;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use std::sync::Arc;

/// A caller with a valid token.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Whose token it was.
    pub tenant: TenantId,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let refuse = |message: &str| ApiError::new(Code::Unauthenticated, message);
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let value = match (values.next(), values.next()) {
            (Some(value), None) => value,
            (None, _) => {
                return Err(refuse(
                    "an `Authorization: Bearer <token>` header is needed",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(refuse("there must be one `Authorization` header only"));
            }
        };
        let token = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| refuse("the `Authorization` header must be `Bearer <token>`"))?;
        let tenant = app
            .tenants
            .authenticate(token)
            .ok_or_else(|| refuse("the token is not valid"))?;
        Ok(Self { tenant })
    }
}
