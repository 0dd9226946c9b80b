//! A cell: what one exec lives in.
pub mod command;
