//! Images.

use crate::api::openapi::errors::{Fails, Work};
use crate::api::openapi::schemas::common::{List, Paging};
use crate::api::openapi::schemas::image::Image;

/// List the images
///
/// The same for every token.
#[utoipa::path(
    get, path = "/v1/images", tag = "images",
    params(Paging),
    responses((status = 200, description = "Images, by name.", body = List<Image>), Fails<422>, Work),
)]
pub fn list_images() {}
