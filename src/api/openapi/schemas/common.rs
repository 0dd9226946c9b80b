//! What several operations have in common.

use utoipa::openapi::RefOr;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// A successful answer.
#[derive(ToSchema)]
pub struct Data<T> {
    data: T,
}

/// A page of a list.
#[derive(ToSchema)]
pub struct List<T> {
    data: Vec<T>,
    pagination: Pagination,
}

/// Where a page lies in its list. Always all six.
#[derive(ToSchema)]
pub struct Pagination {
    /// Send it as `after` to get the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
    /// There are more pages.
    has_more: bool,
    /// Most items on this page.
    limit: u64,
    /// Where in the whole list this page begins.
    offset: u64,
    /// Items in the whole list.
    total: u64,
    /// Send it as `offset` to get the next page; null on the last.
    #[schema(required)]
    next_offset: Option<u64>,
}

/// Nothing.
#[derive(ToSchema)]
pub struct Empty {}

/// Bytes as they are.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct RawBytes(#[allow(dead_code)] Vec<u8>);

/// Which page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Most items on the page; everything, if left out.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// Items to leave out at the beginning.
    #[param(maximum = 4_294_967_295u64)]
    offset: Option<u64>,
    /// Begin after this place: a page's `next_cursor`.
    #[param(pattern = "^[A-Za-z0-9_-]{12,95}$")]
    after: Option<String>,
}

/// A key that makes a request safe to send again.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyKey {
    /// The same key with the same request gives the first outcome and does nothing twice; with another, 409. Kept for 24
    /// hours. A tenant's own, and for exec a runtime's. What ran nothing (401, 422, 429, 503) may be tried again under its key;
    /// what the end of the server cut off is 409 with its `exec_id` and the `outcome` `unknown`.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$"
    )]
    key: Option<String>,
}

/// A runtime's id or name.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct RuntimeKey {
    /// The runtime's id or its name.
    #[param(min_length = 1)]
    runtime: String,
}

/// Environment variables by their names.
pub struct Variables;

impl PartialSchema for Variables {
    fn schema() -> RefOr<Schema> {
        let name = string("^[A-Za-z_][A-Za-z0-9_]*$").max_length(Some(128));
        let value = string("^[^\\u0000\\r\\n]*$").max_length(Some(8192));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .property_names(Some(name))
            .additional_properties(Some(AdditionalProperties::RefOr(value.build().into())))
            .description(Some(
                "Environment variables by their names. A value has at most 8192 bytes; names and values together have at \
                 most 64 KiB.",
            ))
            .build()
            .into()
    }
}

impl ToSchema for Variables {}

fn string(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
}

/// Adds a keyword of JSON Schema that utoipa has no word for.
pub fn keyword(schema: &mut Object, name: &str, value: serde_json::Value) {
    let extensions = schema.extensions.get_or_insert_default();
    extensions.merge(Extensions::from_iter([(name, value)]));
}
