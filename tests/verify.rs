//! `docker_verify`: what a client gets for a digest has that digest.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::time::Duration;

use support::{
    CLOUDFLARE, Connection, End, Hub, Nginx, NginxBuilder, REGISTRY, Reply, Response, Shape, get,
    head, noise, wait_for,
};

const MB: usize = 1 << 20;

/// A hub with a blob, the blob's path, and content of the same length that is not it.
fn hub() -> (Hub, String, Vec<u8>, Vec<u8>) {
    let hub = Hub::start();
    hub.authentication(false);
    let blob = noise(7, MB);
    let digest = hub.add_blob(blob.clone());
    let mut other = blob.clone();
    other[MB - 1] ^= 1;
    (hub, format!("/v2/library/x/blobs/{digest}"), blob, other)
}

fn mirror(hub: &Hub) -> NginxBuilder {
    let private = hub.network();
    Nginx::builder()
        .http(&hub.http_conf())
        .http(&format!("docker_follow_redirect on private={private};"))
}

fn location(directives: &str) -> String {
    format!("location / {{ docker_verify on; {directives} proxy_pass https://{REGISTRY}; }}")
}

fn answer(hub: &Hub, host: &str, response: &Response) {
    let reply = Reply::from(response.clone());
    hub.off(host);
    hub.route(host, move |_| reply.clone());
}

const SETTINGS: [&str; 3] =
    ["proxy_buffering off;", "proxy_buffering on;", "proxy_buffering off; docker_resume on;"];

#[test]
fn the_right_content_passes() {
    let (hub, path, blob, _) = hub();
    let whole = Response::new(200).body(&blob);
    for settings in SETTINGS {
        let nginx =
            mirror(&hub).server(&location(settings)).h2c_server(&location(settings)).start();
        for (framing, response) in
            [("with its length", whole.clone()), ("in chunks", whole.clone().chunked(10_000))]
        {
            answer(&hub, CLOUDFLARE, &response);
            for request in [get(&nginx.url(&path)), get(&nginx.url_of(1, &path)).http2()] {
                let got = request.send();
                assert!(got.complete && got.body == blob, "{framing}, {settings}");
            }
        }
        assert!(!nginx.errors().contains("in place of"), "{settings}");
    }
}

#[test]
fn other_content_is_not_sent_to_its_end() {
    let (hub, path, _, other) = hub();
    let whole = Response::new(200).body(&other);
    for settings in SETTINGS {
        let nginx =
            mirror(&hub).server(&location(settings)).h2c_server(&location(settings)).start();
        hub.off(REGISTRY);
        for (framing, host, response) in [
            ("with its length", CLOUDFLARE, whole.clone()),
            ("in chunks", CLOUDFLARE, whole.clone().chunked(10_000)),
            ("of the registry itself", REGISTRY, whole.clone()),
        ] {
            answer(&hub, host, &response);
            for request in [get(&nginx.url(&path)), get(&nginx.url_of(1, &path)).http2()] {
                let before = nginx.errors().len();
                // Nothing at all may have been sent yet.
                let complete = request.try_send().is_ok_and(|got| got.complete);
                assert!(!complete, "{framing}, {settings}");
                let want = format!("{host}: sent content with the digest \"sha256:");
                wait_for(&want, || nginx.errors()[before..].contains(&want));
            }
        }
        let digest = path.rsplit('/').next().unwrap();
        let line = nginx.wait_for_log(&format!("in place of \"{digest}\""));
        assert!(line.contains("[error]"), "{line}");
        assert!(!nginx.errors().contains("for the rest"), "{settings}: asked for more of it");
    }
}

#[test]
fn a_digest_is_one_however_it_is_written() {
    let (hub, path, blob, other) = hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "location /v2/ {{ docker_verify on; proxy_pass https://{REGISTRY}; }}
             location ~ ^/v2/library/moved/blobs/sha256:(?<hex>.+)$ {{
                 docker_verify on;
                 proxy_pass https://{REGISTRY}/store/$hex;
             }}"
        ))
        .start();
    for path in [
        path.replace(':', "%3A"),
        path.replace("sha256", "%73ha256"),
        path.replace("/library/x/", "/library/moved/"),
    ] {
        for (name, content, complete) in [("right", &blob, true), ("other", &other, false)] {
            answer(&hub, REGISTRY, &Response::new(200).body(content));
            let got = get(&nginx.url(&path)).try_send().is_ok_and(|got| got.complete);
            assert_eq!(got, complete, "{name}: {path}");
        }
    }
}

#[test]
fn content_is_checked_under_every_status_of_success() {
    let (hub, path, blob, other) = hub();
    let nginx = mirror(&hub).server(&location("")).start();
    for status in [201, 203, 299] {
        for (name, content, complete) in [("right", &blob, true), ("other", &other, false)] {
            answer(&hub, REGISTRY, &Response::new(status).body(content));
            let got = get(&nginx.url(&path)).try_send().is_ok_and(|got| got.complete);
            assert_eq!(got, complete, "{name}: {status}");
        }
    }
    // There is nothing in it that could be wrong.
    answer(&hub, REGISTRY, &Response::new(204));
    assert_eq!(get(&nginx.url(&path)).send().status, 204);
}

#[test]
fn no_content_in_place_of_some_is_an_error() {
    let (hub, path, ..) = hub();
    let digest = path.rsplit('/').next().unwrap();
    let empty = path.replace(digest, &hub.add_blob(Vec::new()));
    answer(&hub, CLOUDFLARE, &Response::new(200));
    for settings in SETTINGS {
        let nginx =
            mirror(&hub).server(&location(settings)).h2c_server(&location(settings)).start();
        for request in [get(&nginx.url(&path)), get(&nginx.url_of(1, &path)).http2()] {
            let before = nginx.errors().len();
            let got = request.send();
            assert_eq!(got.status, 502, "{settings}");
            assert!(got.text().contains(&format!("CDN {CLOUDFLARE}: ")), "{}", got.text());
            let want = format!("in place of \"{digest}\"");
            assert!(nginx.errors()[before..].contains(&want), "{settings}");
        }
        // None is what was asked for.
        for request in [head(&nginx.url(&path)), get(&nginx.url(&empty))] {
            let got = request.send();
            assert!(got.status == 200 && got.complete && got.body.is_empty(), "{settings}");
        }
    }
}

#[test]
fn no_content_in_place_of_some_is_a_failure_to_fall_back_from() {
    const MIRROR: &str = "mirror.example";
    let hub = Hub::with_mirrors(&[MIRROR]);
    let blob = noise(7, MB);
    let path = format!("/v2/library/x/blobs/{}", hub.add_blob(blob.clone()));
    answer(&hub, CLOUDFLARE, &Response::new(200));
    let nginx =
        mirror(&hub).server(&location(&format!("docker_fallback https://{MIRROR};"))).start();
    let got = get(&nginx.url(&path)).bearer("token").header("Accept", "a/b").send();
    assert!(got.complete && got.body == blob, "{}", got.status);
    nginx.wait_for_log(&format!("{CLOUDFLARE}: sent content with the digest"));
    let asked = hub.last_request(MIRROR);
    assert_eq!(asked.header("authorization"), Some("Bearer token"));
    assert_eq!(asked.header("accept"), Some("a/b"));
}

#[test]
fn no_content_in_place_of_some_is_not_kept() {
    let (hub, path, blob, _) = hub();
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=a:1m;")
        .server(&location("docker_follow_redirect off; proxy_cache a; proxy_cache_valid any 1m;"))
        .start();
    for (name, content, status) in [("none", &[][..], 502), ("the right one", &blob, 200)] {
        answer(&hub, REGISTRY, &Response::new(200).body(content));
        assert_eq!(get(&nginx.url(&path)).send().status, status, "{name}");
    }
}

#[test]
fn what_nobody_has_looked_at_is_not_kept() {
    let (hub, path, blob, other) = hub();
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=a:1m;")
        .server(&location(
            "docker_follow_redirect off; proxy_cache a; proxy_cache_valid 200 1m;
             add_header X-Cache $upstream_cache_status;",
        ))
        .start();
    let answers = |content: &[u8], shape| {
        answer(&hub, REGISTRY, &Response::new(200).body(content).shape(shape));
    };
    let url = nginx.url(&path);

    // nginx asks GET for a HEAD where it has a cache.
    answers(&other, Shape::Whole);
    assert_eq!(head(&url).send().status, 200);

    // The client has it, and nginx fetches it for its cache.
    let tagged = Response::new(200).header("ETag", "\"a\"").body(&other);
    answer(&hub, REGISTRY, &tagged);
    assert_eq!(get(&url).header("If-None-Match", "\"a\"").send().status, 304);

    // The client leaves, and nginx would go on for its cache.
    let pause = Duration::from_millis(Nginx::time(300));
    answers(&other, Shape::PauseBody(MB / 2, pause));
    let request = get(&url);
    let mut client = Connection::open(&request).unwrap();
    client.start(&request).unwrap();
    assert_eq!(client.head("GET").unwrap().status, 200);
    drop(client);
    std::thread::sleep(pause * 2);

    answers(&blob, Shape::Whole);
    for want in ["MISS", "HIT"] {
        let got = get(&url).send();
        assert!(got.complete && got.body == blob, "{want}");
        assert_eq!(got.header("x-cache"), Some(want));
    }
}

#[test]
fn nginx_says_what_is_cached() {
    let (hub, path, blob, _) = hub();
    let cached = "docker_follow_redirect off; proxy_cache a; proxy_buffers 4 8k;
                  add_header X-Cache $upstream_cache_status;";
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=a:1m;")
        .server(&location(cached))
        .server(&location(&format!("{cached} proxy_cache_valid 200 1m; proxy_no_cache 1;")))
        .start();
    answer(&hub, REGISTRY, &Response::new(200).body(&blob));
    for server in 0..2 {
        for _ in 0..2 {
            let got = get(&nginx.url_of(server, &path)).send();
            assert!(got.complete && got.body == blob);
            assert_eq!(got.header("x-cache"), Some("MISS"), "{server}");
        }
    }
    assert!(!nginx.errors().contains("[crit]"), "{}", nginx.errors());
}

#[test]
fn what_lies_in_a_file_is_checked_too() {
    let (hub, path, blob, other) = hub();
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=a:1m;")
        .server(&format!(
            "location / {{
                 docker_verify on;
                 docker_follow_redirect off;
                 proxy_cache a;
                 proxy_cache_valid 200 1m;
                 proxy_pass https://{REGISTRY};
             }}"
        ))
        .start();
    for (name, content, complete) in [("other", &other, false), ("right", &blob, true)] {
        answer(&hub, REGISTRY, &Response::new(200).body(content));
        let got = get(&nginx.url(&path)).try_send();
        assert_eq!(got.is_ok_and(|got| got.complete), complete, "{name}");
    }
    // From the cache; had the other content been kept, it would have been sent the second time.
    hub.refuse(REGISTRY);
    assert!(get(&nginx.url(&path)).send().body == blob);
}

#[test]
fn only_whole_blobs_are_checked() {
    let (hub, path, _, other) = hub();
    let nginx = mirror(&hub).server(&location("")).start();
    let manifest = path.replace("/blobs/", "/manifests/");
    let coded = Response::new(200).header("Content-Encoding", "gzip").body(&other);
    let part =
        Response::new(206).header("Content-Range", format!("bytes 0-{}/{MB}", MB - 1)).body(&other);
    for (name, path, response) in [
        ("a manifest", &manifest, Response::new(200).body(&other)),
        ("another digest", &path.replace("sha256:", "sha512:"), Response::new(200).body(&other)),
        ("encoded", &path, coded),
        ("a part", &path, part),
        ("an error", &path, Response::new(404).body(&other)),
    ] {
        answer(&hub, REGISTRY, &response);
        let got = get(&nginx.url(path)).send();
        assert!(got.complete && got.body == other, "{name}");
    }
}

#[test]
fn the_rest_of_a_download_is_checked_with_its_beginning() {
    let (hub, path, blob, other) = hub();
    let nginx = mirror(&hub).server(&location("docker_resume on;")).start();
    for (name, content, complete) in [("right", &blob, true), ("other", &other, false)] {
        let (first, rest) = (blob.clone(), content[1000..].to_vec());
        hub.off(CLOUDFLARE);
        hub.route(CLOUDFLARE, move |request| {
            if request.header("range").is_none() {
                let whole = Response::new(200).body(&first);
                return whole.shape(Shape::CutBody(1000, End::Close)).into();
            }
            Response::new(206)
                .header("Content-Range", format!("bytes 1000-{}/{MB}", MB - 1))
                .body(&rest)
                .into()
        });
        let got = get(&nginx.url(&path)).send();
        assert_eq!(got.complete, complete, "{name}");
        assert!(!complete || got.body == blob, "{name}");
    }
    nginx.wait_for_log("in place of");
}
