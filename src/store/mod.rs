//! Stub, replaced within this change.
