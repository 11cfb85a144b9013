//! An nginx module that turns a stock nginx into a mirror of container registries.
//!
//! Start with `module.rs`, which is what nginx reads, then one file a directive: `realm.rs`,
//! `redirect.rs`, `fallback.rs`, `manifest.rs`, `errors.rs`. `origin.rs` is where requests go that leave the configured
//! upstream. What is decided is in the crate `rules`; how nginx is told is in `nginx/`.

mod breaker;
mod conf;
mod ctx;
mod errors;
mod fallback;
mod manifest;
mod metrics;
mod origin;
mod push;
mod realm;
mod redirect;
mod registry;
mod resume;
mod status;
mod token;
mod variables;
mod verify;
mod zone;

// The fence: no other module may hold `unsafe`.
#[allow(unsafe_code)]
mod module;
#[allow(unsafe_code)]
mod nginx;
