//! The start of the process that unpacks images.

/// Does one job and ends.
pub fn run() -> Result<(), Box<dyn std::error::Error>> {
    crate::image::unpack::confine::run()
}
