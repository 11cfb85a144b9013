//! What the tests stand on: nginx with the module, a stand-in for Docker Hub, and clients.
//!
//! [`Hub`] is registry, token server and CDN in one process, on loopback addresses of its own, with
//! a DNS responder that gives them their real names. [`Nginx`] runs a real nginx. [`get`], [`head`]
//! and [`Connection`] are clients that see every byte; an [`Island`] is where real ones run. All of it panics with a sentence when it
//! cannot do its job: a test has no better use for an error.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

mod client;
mod docker_registry;
mod everything;
mod hub;
mod island;
mod nginx;
mod noise;
mod tls;
mod wait;
mod workerd;

pub use client::{Answer, Connection, Framing, Request, get, head, request};
pub use docker_registry::DockerRegistry;
pub use everything::{OWN_REGISTRY, TOKEN_KEY, everything};
pub use hub::{
    AUTH, CLOUDFLARE, CLOUDFRONT, Certificate, Counts, Dns, End, Fault, Hub, INDEX, Image, Kind,
    R2, REGISTRY, Recorded, Reply, Response, Shape, Step,
};
pub use island::{Dockerd, Ended, Island};
pub use nginx::{Nginx, NginxBuilder, nginx_conf, nginx_t};
pub use noise::{Random, noise};
pub use tls::{Authority, client as tls_client};
pub use wait::{until, wait_for};
pub use workerd::Workerd;
