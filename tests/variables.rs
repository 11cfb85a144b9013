//! The variables `$docker_*` that tell what is asked for, and why somebody else answered.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use support::{End, Fault, Hub, Nginx, REGISTRY, Response, get, head, request};

const PATH: &str = "/v2/library/x/manifests/latest";
const FIRST: &str = "first.example";

#[test]
fn what_is_asked_for_is_known_where_nobody_was_asked() {
    let nginx = Nginx::builder()
        .server(
            "add_header X-Parts
                 '$docker_kind $docker_repository $docker_reference $docker_digest;' always;
             location / { return 204; }
             location /rewritten { rewrite ^ /v2/ last; }",
        )
        .start();
    let rows = [
        ("/v2/", "ping   "),
        ("/v2/library/x/manifests/3.20?ns=docker.io", "manifest library/x 3.20 "),
        ("/v2/x/manifests/sha256:00", "manifest x sha256:00 sha256:00"),
        ("/v2/a/b/blobs/sha256:00", "blob a/b  sha256:00"),
        ("/v2/x/tags/list", "tags x  "),
        ("/v2/x/referrers/sha256:00", "referrers x  sha256:00"),
        ("/v2/_catalog", "catalog   "),
        ("/v2/x/blobs/uploads/", "upload x  "),
        ("/token?service=a&scope=b", "token   "),
        ("/v2/x%2Fy/manifests/a", "other   "),
        ("/rewritten", "other   "),
    ];

    for (uri, want) in rows {
        let answer = get(&nginx.url(uri)).send();
        assert_eq!(answer.header("x-parts"), Some(format!("{want};").as_str()), "{uri}");
    }
    let answer = request("PUT", &nginx.url(PATH)).send();
    assert_eq!(answer.header("x-parts"), Some("upload library/x latest ;"));
}

#[test]
fn requests_are_limited_by_what_they_ask_for() {
    let hub = Hub::start();
    hub.authentication(false);
    hub.add_image("library/x", "latest", &[b"x"]);
    hub.add_image("library/y", "latest", &[b"y"]);
    let nginx = Nginx::builder()
        .http(&hub.http_conf())
        .http(
            "map $docker_kind $pulled { manifest $docker_repository; default ''; }
             limit_req_zone $pulled zone=pulls:1m rate=1r/m;
             limit_req_status 429;",
        )
        .server(&format!("location / {{ limit_req zone=pulls; proxy_pass https://{REGISTRY}; }}"))
        .start();
    let rows = [
        (PATH, 200),
        (PATH, 429),
        ("/v2/library/y/manifests/latest", 200),
        ("/v2/", 200),
        ("/v2/", 200),
        ("/v2/library/x/tags/list", 200),
    ];

    for (path, want) in rows {
        assert_eq!(get(&nginx.url(path)).send().status, want, "{path}");
    }
}

#[test]
fn the_reason_for_a_fallback_is_told() {
    let hub = Hub::start();
    hub.authentication(false);
    hub.add_image("library/x", "latest", &[b"x"]);
    hub.add_host(FIRST);
    let nginx = Nginx::builder()
        .http(&hub.http_conf())
        .http("docker_zone docker:1m; proxy_connect_timeout 1s; proxy_read_timeout 1s;")
        .server(&format!(
            "add_header X-Reason '$docker_fallback_reason/$docker_ratelimit_remaining' always;
             location / {{
                 docker_breaker failures=3;
                 docker_fallback https://{FIRST};
                 proxy_pass https://{REGISTRY};
             }}
             location /reserve/ {{
                 docker_fallback https://{FIRST};
                 docker_fallback_reserve 50;
                 proxy_pass https://{REGISTRY}/;
             }}"
        ))
        .start();
    let reason = |path: &str| {
        let answer = get(&nginx.url(path)).send();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.header("x-reason").unwrap_or_default().to_owned()
    };
    let figures = |answer: Response| {
        answer.header("ratelimit-limit", "100;w=21600").header("ratelimit-remaining", "7;w=21600")
    };

    assert_eq!(reason("/v2/"), "/", "served, and no figures");
    // A reserve that is not reached is learnt of by the way.
    hub.on_times(REGISTRY, PATH, 1, Fault::Answer(figures(Response::error(503, "X", "x")).into()));
    assert_eq!(reason(PATH), "http_503/7");
    assert_eq!(reason(&format!("/reserve{PATH}")), "reserve/7");
    let limit = Response::error(429, "TOOMANYREQUESTS", "x").header("Retry-After", "60");
    hub.on_times(REGISTRY, PATH, 1, Fault::Answer(figures(limit).into()));
    assert_eq!(reason(PATH), "http_429/7");
    assert_eq!(reason(PATH), "pull_limit/7");
    // The hub's own figure, of an answer that it serves.
    let answer = head(&nginx.url(PATH)).send();
    assert_eq!(
        answer.header("x-reason"),
        answer
            .header("ratelimit-remaining")
            .map(|value| format!("/{}", value.split(';').next().unwrap()))
            .as_deref()
    );
    hub.on_times(REGISTRY, "/v2/", 1, Fault::Stall);
    assert_eq!(reason("/v2/"), "timeout/");
    hub.on_times(REGISTRY, "/v2/", 2, Fault::Close(End::Close));
    assert_eq!(reason("/v2/"), "error/");
    assert_eq!(reason("/v2/"), "error/");
    assert_eq!(reason("/v2/"), "breaker/");

    // What another has left is nothing of the first upstream's.
    hub.on(FIRST, "/v2/", Fault::Answer(figures(Response::text(200, "x")).into()));
    assert_eq!(reason("/v2/"), "breaker/");
}
