//! The stand-in behaves like Docker Hub, seen through a plain nginx and by a real client.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use support::{CLOUDFLARE, Hub, Nginx, get, head};

const REGISTRY: &str = "registry-1.docker.io";

/// nginx without the module, before the hub's registry, token server and CDN.
fn plain_nginx(hub: &Hub) -> Nginx {
    let (resolver, ca) = (hub.resolver(), hub.ca_file());
    let http = format!(
        "resolver {resolver} ipv6=off; proxy_ssl_server_name on; proxy_ssl_verify on;
         proxy_ssl_trusted_certificate {ca}; proxy_http_version 1.1;
         proxy_set_header Connection '';",
        ca = ca.display()
    );
    Nginx::builder()
        .without_module()
        .http(&http)
        .server(&format!(
            "location /v2/ {{ set $to {REGISTRY}; proxy_pass https://$to; }}
             location /token {{ set $to auth.docker.io; proxy_pass https://$to; }}
             location /registry-v2/ {{ set $to {CLOUDFLARE}; proxy_pass https://$to; }}"
        ))
        .start()
}

#[test]
fn a_pull_by_hand_works_through_a_plain_nginx() {
    let hub = Hub::start();
    let image = hub.add_image("library/hello", "latest", &[b"hello", &[7; 300_000]]);
    let nginx = plain_nginx(&hub);

    let challenge = get(&nginx.url("/v2/library/hello/manifests/latest")).send();
    assert_eq!(challenge.status, 401);
    assert_eq!(
        challenge.header("www-authenticate"),
        Some(
            "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
             scope=\"repository:library/hello:pull\""
        )
    );

    let scope = "service=registry.docker.io&scope=repository:library/hello:pull";
    let token = get(&nginx.url(&format!("/token?{scope}"))).send().json();
    let token = token["token"].as_str().unwrap();
    let manifest = get(&nginx.url("/v2/library/hello/manifests/latest")).bearer(token).send();
    assert_eq!(manifest.status, 200);
    assert_eq!(manifest.header("docker-content-digest"), Some(image.digest.as_str()));
    assert_eq!(manifest.header("ratelimit-remaining"), Some("99;w=21600"));
    let seen = head(&nginx.url("/v2/library/hello/manifests/latest")).bearer(token).send();
    assert_eq!(seen.header("ratelimit-remaining"), Some("99;w=21600"));
    assert_eq!(hub.manifests_counted(), 1);

    let blob = nginx.url(&format!("/v2/library/hello/blobs/{}", image.layers[1]));
    let redirect = get(&blob).bearer(token).send();
    assert_eq!(redirect.status, 307);
    let location = redirect.header("location").unwrap();
    let target = location.strip_prefix(&format!("https://{CLOUDFLARE}")).unwrap();
    let layer = get(&nginx.url(target)).send();
    assert!(layer.complete);
    assert_eq!(Some(layer.body), hub.blob(&image.layers[1]));

    let spoilt = get(&nginx.url(&target.replace("%3D", "="))).send();
    assert_eq!(spoilt.status, 403, "a re-encoded query breaks the signature");
    let doubly_signed = get(&nginx.url(target)).bearer(token).send();
    assert_eq!(doubly_signed.status, 400, "a CDN refuses Authorization");
    assert!(doubly_signed.text().contains("<Code>InvalidArgument</Code>"));

    let request = hub.last_request(CLOUDFLARE);
    assert!(request.tls);
    assert_eq!(request.sni.as_deref(), Some(CLOUDFLARE));
    assert_eq!(hub.counts(CLOUDFLARE).requests, 3);
    assert_eq!(hub.counts(CLOUDFLARE).failed, 0);
}
