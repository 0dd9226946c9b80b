//! What holds for all operations: the token, the request's id, and the headers that go with a status.

use super::errors;
use utoipa::Modify;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Object, ObjectBuilder, OpenApi, Ref, RefOr, Required, SchemaFormat, Type};

const TOKEN: &str = "token";
const REQUEST_ID: &str = "X-Request-Id";

/// Adds it all.
pub struct Conventions;

impl Modify for Conventions {
    fn modify(&self, description: &mut OpenApi) {
        for (path, item) in &mut description.paths.paths {
            let secured = path.starts_with("/v1/") || path == "/metrics";
            for operation in operations(item) {
                complete(operation, secured);
            }
        }
        let components = description.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme(TOKEN, bearer);
        for (name, answer) in errors::components() {
            components.responses.insert(name, answer.into());
        }
        components
            .parameters
            .insert(REQUEST_ID.into(), request_id_parameter().into());
        for name in [REQUEST_ID, "Retry-After", "WWW-Authenticate"] {
            components.headers.insert(name.into(), header(name).into());
        }
    }
}

/// All operations of a path.
pub fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        head,
        patch,
        ..
    } = item;
    [get, put, post, delete, head, patch].into_iter().flatten()
}

fn complete(operation: &mut Operation, secured: bool) {
    let id = Ref::new(format!("#/components/parameters/{REQUEST_ID}"));
    let parameters = operation.parameters.get_or_insert_default();
    parameters.push(RefOr::Ref(id));
    let responses = &mut operation.responses.responses;
    if secured {
        let requirement = SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN, []);
        operation.security = Some(vec![requirement]);
        let refused = <errors::Fails<401> as utoipa::IntoResponses>::responses();
        responses.extend(refused);
    }
    for response in responses.values_mut() {
        // The others are among the components and have theirs.
        if let RefOr::T(response) = response {
            response
                .headers
                .insert(REQUEST_ID.into(), header_ref(REQUEST_ID));
        }
    }
}

/// The headers that every answer of this status has.
pub fn headers_of(status: u16) -> &'static [&'static str] {
    match status {
        401 => &[REQUEST_ID, "WWW-Authenticate"],
        429 | 503 => &[REQUEST_ID, "Retry-After"],
        _ => &[REQUEST_ID],
    }
}

/// Refers to one of them.
pub fn header_ref(name: &str) -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{name}")))
}

fn header(name: &str) -> Header {
    let (schema, text) = match name {
        REQUEST_ID => (
            uuid(),
            "The request's id: the one that was sent, if that is a UUID, or a new one.",
        ),
        "Retry-After" => (
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(1))
                .build(),
            "Seconds after which the same request may succeed.",
        ),
        _ => (Object::with_type(Type::String), "`Bearer`"),
    };
    let header = HeaderBuilder::new()
        .schema(Some(schema))
        .description(Some(text));
    // utoipa's Header lacks this field of the Header Object.
    let required = Extensions::from_iter([("required", true)]);
    header.extensions(Some(required)).build()
}

fn request_id_parameter() -> Parameter {
    ParameterBuilder::new()
        .name(REQUEST_ID)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "An id for this request, a UUID. Anything else is replaced by a new one.",
        ))
        .schema(Some(Object::with_type(Type::String)))
        .build()
}

fn uuid() -> Object {
    let format = SchemaFormat::Custom("uuid".into());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(format))
        .build()
}
