//! What is known of one registry says nothing of another: manifests, limits, downloads.

use std::collections::VecDeque;
use std::sync::Mutex;

use rules::digest::Digest;
use support::{CLOUDFLARE, End, Fault, Hub, Kind, REGISTRY, Reply, Response, Shape, get, noise};

use crate::{GHCR, QUAY, hub, mirror};

const FALLBACK: &str = "fallback.example";

/// Lets a host have an image under every name, which no other has.
fn own_manifest(hub: &Hub, host: &'static str) {
    let body = format!(r#"{{"schemaVersion":2,"annotations":{{"of":"{host}"}}}}"#);
    let digest = Digest::of(body.as_bytes()).to_string();
    hub.route(host, move |_| {
        Response::new(200)
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .header("Docker-Content-Digest", &digest)
            .body(body.clone())
            .into()
    });
}

/// The next requests of a host are answered so, those behind them normally.
fn answers(hub: &Hub, host: &str, replies: impl IntoIterator<Item = Reply>) {
    let left: Mutex<VecDeque<Reply>> = Mutex::new(replies.into_iter().collect());
    hub.route(host, move |_| left.lock().unwrap().pop_front().unwrap_or(Reply::Normal));
}

#[test]
fn manifests_of_one_name_are_kept_for_each_registry() {
    let hub = hub();
    for host in [REGISTRY, GHCR, QUAY] {
        own_manifest(&hub, host);
    }
    let nginx = mirror(
        &hub,
        "docker_manifest_cache zone=docker; add_header X-Cache $docker_manifest_cache;",
    )
    .http("docker_zone docker:1m;")
    .start();
    let names = [
        (REGISTRY, "m", "/v2/a/b/manifests/1"),
        (GHCR, "m", "/v2/ghcr.io/a/b/manifests/1"),
        (QUAY, "quay.mirror.example.com", "/v2/a/b/manifests/1"),
    ];
    for want in ["MISS", "REVALIDATED"] {
        for (registry, host, uri) in names {
            let answer = get(&nginx.url(uri)).header("Host", host).send();
            assert_eq!(answer.header("x-cache"), Some(want), "{registry}");
            assert!(answer.text().contains(registry), "{registry}: {}", answer.text());
        }
    }
    // One registry's is known by all of its names.
    let named = get(&nginx.url("/v2/a/b/manifests/1?ns=ghcr.io")).send();
    assert_eq!(named.header("x-cache"), Some("REVALIDATED"));
    assert!(named.text().contains(GHCR), "{}", named.text());
    for registry in [REGISTRY, GHCR, QUAY] {
        let gets = hub.requests(registry).iter().filter(|request| request.method == "GET").count();
        assert_eq!(gets, 1, "{registry}");
    }
}

#[test]
fn a_manifest_of_one_registry_is_not_anothers_to_grant() {
    let hub = hub();
    let body = r#"{"schemaVersion":2,"annotations":{"of":"somebody"}}"#;
    let digest = Digest::of(body.as_bytes()).to_string();
    let answer = Response::new(200)
        .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        .header("Docker-Content-Digest", &digest);
    let private = answer.clone().body(body);
    hub.route(GHCR, move |_| private.clone().into());
    // It knows digest and length, and not the content.
    let lie = answer.body(" ".repeat(body.len()));
    hub.route(QUAY, move |_| lie.clone().into());
    let nginx = mirror(&hub, "docker_manifest_cache zone=docker;").http("docker_zone docker:1m;");
    let nginx = nginx.start();
    for _ in 0..2 {
        let granted = get(&nginx.url(&format!("/v2/ghcr.io/a/b/manifests/{digest}"))).send();
        assert_eq!(granted.text(), body);
    }
    assert_eq!(hub.last_request(GHCR).method, "HEAD");
    let other = get(&nginx.url(&format!("/v2/quay.io/a/b/manifests/{digest}"))).send();
    assert!(!other.text().contains("somebody"), "{}", other.text());
}

#[test]
fn a_limited_registry_diverts_its_own_requests_alone() {
    let hub = hub();
    hub.add_host_as(FALLBACK, Kind::Mirror);
    hub.add_image("a/b", "1", &[b"x"]);
    let nginx = mirror(
        &hub,
        &format!(
            "docker_fallback https://{FALLBACK}; add_header X-Fallback $docker_fallback always;"
        ),
    )
    .http("docker_zone docker:1m;")
    .start();
    let ask = |uri: &str| get(&nginx.url(uri)).send();
    let asked = |host: &str| hub.requests(host).len();

    // Another registry's limit is its own: nothing else serves its images, and it is always asked.
    hub.on(GHCR, "/", Fault::TooManyRequests);
    for number in 1..=5 {
        assert_eq!(ask("/v2/ghcr.io/a/b/manifests/1").status, 429);
        assert_eq!(asked(GHCR), number);
    }
    let served = ask("/v2/a/b/manifests/1");
    assert_eq!((served.status, served.header("x-fallback")), (200, None));
    assert_eq!((asked(REGISTRY), asked(FALLBACK)), (1, 0));

    // The default one's opens its breaker, and no other's.
    hub.off(GHCR);
    hub.on(REGISTRY, "/", Fault::TooManyRequests);
    for _ in 0..3 {
        let served = ask("/v2/a/b/manifests/1");
        let target = format!("https://{FALLBACK}");
        assert_eq!((served.status, served.header("x-fallback")), (200, Some(target.as_str())));
    }
    assert_eq!((asked(REGISTRY), asked(FALLBACK)), (2, 3), "it was asked once more");
    let before = asked(GHCR);
    for uri in ["/v2/ghcr.io/a/b/manifests/1", "/v2/a/b/manifests/1?ns=ghcr.io"] {
        let served = ask(uri);
        assert_eq!((served.status, served.header("x-fallback")), (200, None), "{uri}");
    }
    assert_eq!((asked(GHCR), asked(FALLBACK)), (before + 2, 3));
}

#[test]
fn a_download_goes_on_at_its_own_registry() {
    const MB: usize = 1 << 20;
    let cut = || Reply::Shaped(Shape::CutBody(1000, End::Close));
    let hub = hub();
    hub.add_host_as(FALLBACK, Kind::Mirror);
    let blob = noise(5, MB);
    let digest = hub.add_blob(blob.clone());
    let nginx = mirror(
        &hub,
        &format!(
            "docker_follow_redirect on private={};
             docker_resume on;
             docker_fallback https://{FALLBACK};",
            hub.network()
        ),
    )
    .start();
    let names = [
        ("prefix", format!("/v2/ghcr.io/a/b/blobs/{digest}")),
        ("namespace", format!("/v2/a/b/blobs/{digest}?ns=ghcr.io")),
    ];
    for (name, uri) in names {
        hub.off(CLOUDFLARE);
        hub.forget();
        // The signature has expired when the rest is wanted.
        answers(&hub, CLOUDFLARE, [cut(), Fault::Status(403).reply()]);

        let answer = get(&nginx.url(&uri)).header("Authorization", "Bearer secret").send();

        assert!(answer.complete && answer.body == blob, "{name}: {} bytes", answer.body.len());
        let asked = hub.requests(GHCR);
        assert_eq!(asked.len(), 2, "{name}");
        assert_eq!(asked[1].uri, format!("/v2/a/b/blobs/{digest}"), "{name}");
        assert_eq!(asked[1].header("range"), Some("bytes=1000-"), "{name}");
        assert_eq!(asked[1].header("authorization"), Some("Bearer secret"), "{name}");
        assert_eq!((hub.counts(REGISTRY).requests, hub.counts(FALLBACK).requests), (0, 0));
    }
}
