//! Shapes of bodies and answers.

pub mod checkpoint;
pub mod common;
pub mod create;
pub mod exec;
pub mod image;
pub mod policy;
pub mod record;
pub mod runtime;
