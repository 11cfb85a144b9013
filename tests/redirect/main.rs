//! `docker_follow_redirect`: nginx itself goes where the registry points.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

mod address;
mod carry;
mod client;
mod connection;
mod failure;
mod log;
mod refusal;
mod scope;
mod target;

use support::{Answer, Fault, Hub, Kind, Nginx, NginxBuilder, REGISTRY};

/// Short time-outs, so that a test can wait for them.
const IMPATIENT: &str = "proxy_connect_timeout 2s; proxy_read_timeout 2s; resolver_timeout 2s;";

/// A host that answers every request with its name, the method and the target.
const CDN: &str = "cdn.example";
const OTHER: &str = "other.example";

/// A hub that asks for no token, and two more hosts to lead to.
fn start_hub() -> Hub {
    let hub = Hub::start();
    hub.authentication(false);
    hub.add_host_as(CDN, Kind::Blank);
    hub.add_host_as(OTHER, Kind::Blank);
    hub
}

/// The directive, with the hub's own network allowed and these parameters.
fn follow(hub: &Hub, parameters: &str) -> String {
    format!("docker_follow_redirect on private={} {parameters};", hub.network())
}

/// A server that mirrors the registry and says what became of the request.
fn server(hub: &Hub, parameters: &str) -> String {
    format!(
        "{}
         add_header X-Origin $docker_origin_host always;
         add_header X-Redirects $docker_redirects always;
         location / {{ proxy_pass https://{REGISTRY}; }}",
        follow(hub, parameters)
    )
}

fn mirror(hub: &Hub) -> NginxBuilder {
    Nginx::builder().http(&hub.http_conf())
}

fn start(hub: &Hub, parameters: &str) -> Nginx {
    mirror(hub).server(&server(hub, parameters)).start()
}

/// Lets the registry answer every API request with a 307 to this location, which may be any bytes.
fn lead(hub: &Hub, location: impl AsRef<[u8]>) {
    hub.off(REGISTRY);
    hub.on(REGISTRY, "/v2/", Fault::redirect(307, location));
}

/// The message of a registry's JSON error that the module itself sends.
#[track_caller]
fn message(answer: &Answer, name: &str) -> String {
    assert_eq!(answer.status, 502, "{name}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
    let json = answer.json();
    assert_eq!(json["errors"][0]["code"], "UNAVAILABLE", "{name}: {json}");
    json["errors"][0]["message"].as_str().expect("a message").to_owned()
}

fn blob_of(hub: &Hub, size: usize) -> (String, Vec<u8>) {
    let bytes: Vec<u8> =
        (0..size).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect();
    let digest = hub.add_blob(bytes.clone());
    (format!("/v2/library/x/blobs/{digest}"), bytes)
}
