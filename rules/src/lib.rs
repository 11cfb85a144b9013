//! What a registry mirror decides, as functions from values to values: no nginx, no I/O, no clock.
//!
//! Start with [`redirect`] and [`fallback`], the two decisions about an answer from upstream, and
//! with [`challenge`], which points a client's token request at the mirror. [`registry`] finds the
//! one of several registries that a request means, and [`ticket`] has clients bring back what they
//! were given. [`location`],
//! [`authority`], [`address`] and [`cdn_loop`] hold the grammar they stand on; [`request`],
//! [`answer`] and [`body`] write and read what goes over the wire; [`error`] is what the client
//! gets when nothing else is left. [`kind`] tells what a request asks for and [`owner`] on whose
//! account; [`breaker`] remembers who fails or is limited, as [`limit`], [`retry_after`] and
//! [`rate_limit`] read it from answers; [`metrics`] is the status page. [`directive`] turns the
//! arguments of the module's directives into those types.
#![forbid(unsafe_code)]

pub mod address;
pub mod answer;
pub mod authority;
pub mod body;
pub mod breaker;
pub mod cdn_loop;
pub mod challenge;
pub mod digest;
pub mod directive;
pub mod error;
pub mod fallback;
pub mod kind;
pub mod limit;
pub mod location;
pub mod manifest;
pub mod metrics;
pub mod owner;
pub mod rate_limit;
pub mod redirect;
pub mod registry;
pub mod request;
pub mod resolv;
pub mod resume;
pub mod retry_after;
pub mod ticket;

mod syntax;
