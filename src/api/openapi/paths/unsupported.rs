//! Operations that answer 501: those of the hosted product that this service does not have. They are described out of
//! the router's own list.

use crate::api::openapi::errors::Fails;
use crate::api::routes::NOT_HERE;
use utoipa::IntoResponses;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem,
};
use utoipa::openapi::{Object, Paths, Required, Type};

/// The tag that they have.
pub const TAG: &str = "not supported";

/// Adds them.
pub fn add(paths: &mut Paths) {
    for path in NOT_HERE {
        let text = "Neither any other method nor what is below this path is supported.";
        paths.paths.insert((*path).into(), item(path, text));
    }
}

fn item(path: &str, text: &str) -> PathItem {
    let words = path
        .trim_start_matches('/')
        .split('/')
        .skip_while(|word| *word == "v1");
    let name: Vec<String> = words
        .map(|word| word.trim_matches(['{', '}']).replace('-', "_"))
        .collect();
    let mut operation = OperationBuilder::new()
        .tag(TAG)
        .operation_id(Some(format!("get_{}", name.join("_"))))
        .summary(Some("Not supported"))
        .description(Some(text));
    for (status, answer) in Fails::<501>::responses() {
        operation = operation.response(status, answer);
    }
    if path.contains("{runtime}") {
        let runtime = ParameterBuilder::new()
            .name("runtime")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(Object::with_type(Type::String)));
        operation = operation.parameter(runtime);
    }
    PathItem::new(HttpMethod::Get, operation)
}
