//! `docker_registry`: several registries behind one name.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

mod clients;
mod declaration;
mod memory;
mod push;
mod selection;
mod token;

use support::{Hub, Kind, Nginx, NginxBuilder, REGISTRY, Response};

pub(crate) const GHCR: &str = "ghcr.io";
pub(crate) const QUAY: &str = "quay.io";
/// The operator's own.
pub(crate) const OWN: &str = "registry.example.com";

/// The registries that most tests declare.
pub(crate) const DECLARED: &str = "
    docker_registry docker.io default;
    docker_registry ghcr.io;
    docker_registry quay.io alias=quay.mirror.example.com;
    docker_registry registry.example.com;
";

/// A hub with further registries, which do not ask for tokens.
pub(crate) fn hub() -> Hub {
    let hub = Hub::start();
    hub.authentication(false);
    for host in [GHCR, QUAY, OWN] {
        hub.add_host_as(host, Kind::Registry);
    }
    hub
}

/// What nginx wants before the hub where the module makes the connections.
pub(crate) fn http_conf(hub: &Hub) -> String {
    format!(
        "resolver {};
         proxy_http_version 1.1;
         proxy_set_header Connection \"\";
         proxy_ssl_server_name on;
         proxy_ssl_verify on;
         proxy_ssl_trusted_certificate {};",
        hub.resolver(),
        hub.ca_file().display()
    )
}

pub(crate) const LOCATIONS: &str = "
    location /v2/    { proxy_pass $docker_upstream; }
    location /token/ { proxy_pass $docker_upstream; }
";

/// A mirror with these directives in its server.
pub(crate) fn mirror(hub: &Hub, directives: &str) -> NginxBuilder {
    Nginx::builder().http(&http_conf(hub)).server(&format!("{DECLARED}\n{directives}\n{LOCATIONS}"))
}

/// Lets a host answer every request with its own name and the request's line.
pub(crate) fn echo(hub: &Hub, host: &'static str) {
    hub.route(host, move |request| {
        let host_field = request.header("host").unwrap_or_default();
        Response::text(200, format!("{host} {host_field} {}", request.line())).into()
    });
}

pub(crate) fn echo_all(hub: &Hub) {
    for host in [REGISTRY, GHCR, QUAY, OWN] {
        echo(hub, host);
    }
}
