//! Images.

use crate::api::openapi::errors::{Fails, Work};
use crate::api::openapi::schemas::common::{List, Paging};
use utoipa::ToSchema;

/// What a runtime's root file system is made of.
#[derive(ToSchema)]
struct Image {
    /// What `image` of a new runtime says. `host` is this machine's own `/usr`; the others are added by the operator.
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
    )]
    name: String,
}

/// List the images
///
/// The same for every token.
#[utoipa::path(
    get, path = "/v1/images", tag = "images",
    params(Paging),
    responses((status = 200, description = "Images, by name.", body = List<Image>), Fails<422>, Work),
)]
pub fn list_images() {}
