//! Where redirects lead.

use support::{
    CLOUDFLARE, CLOUDFRONT, Fault, Hub, Nginx, R2, REGISTRY, Response, get, head, request,
};

use crate::{CDN, OTHER, blob_of, follow, lead, mirror, server, start, start_hub};

#[test]
fn a_blob_comes_from_the_cdn() {
    let hub = Hub::start();
    let (blob, bytes) = blob_of(&hub, 100_000);
    let nginx = start(&hub, "");
    let token = hub.token("library/x");
    let answer = get(&nginx.url(&blob)).bearer(&token).send();

    assert_eq!((answer.status, answer.body == bytes), (200, true), "{}", nginx.errors());
    assert!(answer.complete);
    assert!(answer.header("docker-content-digest").is_some_and(|digest| blob.ends_with(digest)));
    assert_eq!(answer.header("location"), None);
    assert_eq!(answer.header("x-origin"), Some(CLOUDFLARE));
    assert_eq!(answer.header("x-redirects"), Some("1"));
    let (first, second) = (hub.last_request(REGISTRY), hub.last_request(CLOUDFLARE));
    assert_eq!(first.header("authorization"), Some(format!("Bearer {token}").as_str()));
    assert_eq!(second.header("authorization"), None);
    assert_eq!((second.tls, second.sni.as_deref()), (true, Some(CLOUDFLARE)));
    assert_eq!((second.version.as_str(), second.header("host")), ("HTTP/1.1", Some(CLOUDFLARE)));
    let logged = nginx.wait_for_log("following redirect (307) to \"https://production.cloudflare");
    assert!(logged.contains("[info]"), "{logged}");
}

#[test]
fn every_status_is_followed_with_each_method_relative_or_absolute_over_six_hops() {
    let hub = start_hub();
    let nginx = start(&hub, "hops=6");
    let query = "a=%2F%2f+b&c=d;e='\"%zz";
    hub.on(REGISTRY, "/v2/end", Fault::Answer(Response::text(200, "the end").into()));
    hub.on(OTHER, "/v2/end", Fault::Answer(Response::text(200, "the end").into()));
    let relative = (format!("/v2/end?{query}"), [REGISTRY].as_slice(), REGISTRY);
    let absolute =
        (format!("https://{OTHER}/v2/end?{query}"), [REGISTRY, CDN, OTHER].as_slice(), OTHER);

    for status in [301, 302, 303, 307, 308] {
        for method in ["GET", "HEAD"] {
            for (last, hosts, origin) in [&relative, &absolute] {
                for hops in [1, 3, 6] {
                    let name = format!("{method} {status} by {hops} hops to {last}");
                    let path = hub.chain(hosts, hops, status, last);
                    let answer = request(method, &nginx.url(&path)).send();
                    let text = if method == "GET" { "the end" } else { "" };
                    assert_eq!((answer.status, answer.text().as_str()), (200, text), "{name}");
                    assert_eq!(answer.header("content-length"), Some("7"), "{name}");
                    assert_eq!(answer.header("x-redirects"), Some(&*hops.to_string()), "{name}");
                    let asked = hub.last_request(origin).line();
                    assert_eq!(asked, format!("{method} /v2/end?{query}"), "{name}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_redirect_is_passed() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let to = format!("https://{CDN}/");
    let cases = [
        ("200 with a Location", 200, Some(&to)),
        ("201", 201, Some(&to)),
        ("300", 300, Some(&to)),
        ("304", 304, Some(&to)),
        ("305", 305, Some(&to)),
        ("306", 306, Some(&to)),
        ("404 with a Location", 404, Some(&to)),
        ("503 with a Location", 503, Some(&to)),
        ("301 without a Location", 301, None),
        ("307 without a Location", 307, None),
    ];

    for (name, status, location) in cases {
        let response = Response::text(status, "as it is");
        let response = match location {
            Some(location) => response.header("Location", location),
            None => response,
        };
        hub.off(REGISTRY);
        hub.on(REGISTRY, "/v2/", Fault::Answer(response.into()));
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!((answer.status, answer.header("x-redirects")), (status, Some("0")), "{name}");
        assert_eq!(answer.header("location"), location.map(String::as_str), "{name}");
        assert_eq!(answer.header("x-origin"), Some(REGISTRY), "{name}");
    }
    assert_eq!(hub.counts(CDN).requests, 0);
}

#[test]
fn other_methods_are_never_followed() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let to = format!("https://{CDN}/upload");
    for status in [301, 302, 303, 307, 308] {
        hub.off(REGISTRY);
        hub.on(REGISTRY, "/v2/", Fault::redirect(status, &to));
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            for body in [None, Some("body")] {
                let name = format!("{method} {status} {body:?}");
                let request = request(method, &nginx.url("/v2/x"));
                let request = match body {
                    Some(body) => request.body(body),
                    None => request,
                };
                let answer = request.send();
                assert_eq!(answer.status, status, "{name}");
                assert_eq!(answer.header("location"), Some(to.as_str()), "{name}");
                assert_eq!(hub.last_request(REGISTRY).body, body.unwrap_or_default().as_bytes());
            }
        }
    }
    assert_eq!(hub.counts(CDN).connections, 0);
}

#[test]
fn a_location_is_resolved_against_the_url_that_was_asked() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "{}
             location / {{ proxy_pass https://{REGISTRY}; }}
             location /web/ {{ proxy_pass https://{REGISTRY}/v2/a/; }}
             location /rewritten/ {{ rewrite ^ /v2/a/b/c?d=e break; proxy_pass https://{REGISTRY}; }}
             location /variable/ {{
                 set $registry {REGISTRY};
                 rewrite ^/variable(/.*) $1 break;
                 proxy_pass https://$registry;
             }}
             location /named/ {{
                 proxy_set_header Host {CDN};
                 proxy_set_header Connection '';
                 rewrite ^/named(/.*) $1 break;
                 proxy_pass https://{REGISTRY};
             }}",
            follow(&hub, "")
        ))
        .start();
    let cases = [
        ("path", "/v2/a/b", "/x", REGISTRY, "/x"),
        ("path without a slash", "/v2/a/b", "x", REGISTRY, "/v2/a/x"),
        ("path up", "/v2/a/b/c", "../x", REGISTRY, "/v2/a/x"),
        ("path far up", "/v2/a", "../../../../x", REGISTRY, "/x"),
        ("dot segments in an absolute path", "/v2/a", "/b/./c/../d/", REGISTRY, "/b/d/"),
        ("query", "/v2/a/b?c", "?x=y", REGISTRY, "/v2/a/b?x=y"),
        ("query of the request is not kept", "/v2/a/b?c", "x", REGISTRY, "/v2/a/x"),
        ("host", "/v2/a/b", "//cdn.example/x", CDN, "/x"),
        ("host alone", "/v2/a/b", "//cdn.example", CDN, "/"),
        ("host and query", "/v2/a/b", "https://cdn.example?x", CDN, "/?x"),
        ("upper case", "/v2/a/b", "HTTPS://CDN.Example/X?Y", CDN, "/X?Y"),
        ("default port", "/v2/a/b", "https://cdn.example:443/x", CDN, "/x"),
        ("fragment", "/v2/a/b", "https://cdn.example/x?y#z?/", CDN, "/x?y"),
        ("fragment behind a path", "/v2/a/b", "/x#y", REGISTRY, "/x"),
        ("proxy_pass with a URI", "/web/b", "x", REGISTRY, "/v2/a/x"),
        ("rewrite", "/rewritten/b", "x", REGISTRY, "/v2/a/b/x"),
        ("proxy_pass with a variable", "/variable/v2/a", "x", REGISTRY, "/v2/x"),
        ("Host as it was sent", "/named/v2/b", "x", REGISTRY, "/v2/x"),
    ];

    for (name, target, location, host, want) in cases {
        hub.reset();
        hub.on_times(REGISTRY, "/v2/", 1, Fault::redirect(302, location));
        let _ = get(&nginx.url(target)).send();
        assert_eq!(hub.last_request(host).uri, want, "{name}: {}", nginx.errors());
    }
}

#[test]
fn a_registry_that_is_asked_as_nginx_does_by_default_is_followed_too() {
    let hub = start_hub();
    // HTTP/1.0 in older versions.
    let conf = hub.http_conf().replace("proxy_http_version 1.1;", "");
    let conf = conf.replace("proxy_set_header Connection \"\";", "");
    let nginx = Nginx::builder().http(&conf).server(&server(&hub, "")).start();
    lead(&hub, format!("https://{CDN}/x"));
    for _ in 0..2 {
        assert_eq!(get(&nginx.url("/v2/x")).send().text(), format!("{CDN} GET /x\n"));
    }
    assert_eq!(
        (hub.last_request(CDN).version.as_str(), hub.counts(CDN).connections),
        ("HTTP/1.1", 1)
    );
}

#[test]
fn path_and_query_are_sent_byte_for_byte() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let long = format!("/x?{}", "s".repeat(3000));
    let cases = [
        ("percent signs in both cases", "/%2f%2F%7e%25?a=%2f%2F%00%zz%"),
        ("separators", "/a;b=c,d/e:f@g?h;i,j:k@l/m?n&&=&"),
        ("plus and star", "/a+b*c?d+e*f"),
        ("quotes and brackets", "/'(\"<>[]{}|\\^`?'(\"<>[]{}|\\^`"),
        ("dots in the query", "/a?b=/../c/./d"),
        ("empty segments", "//a//b//?c"),
        ("encoded dots", "/a/%2e%2e/b"),
        ("empty query", "/a?"),
        ("long query", &long),
    ];

    for (name, uri) in cases {
        lead(&hub, format!("https://{CDN}{uri}"));
        let answer = get(&nginx.url("/v2/x?of=client")).send();
        assert_eq!(answer.text(), format!("{CDN} GET {uri}\n"), "{name}");
        assert_eq!(hub.last_request(CDN).uri, uri, "{name}");
    }
}

#[test]
fn signatures_of_every_cdn_stay_valid() {
    let hub = start_hub();
    let (blob, bytes) = blob_of(&hub, 5000);
    let nginx = start(&hub, "");
    for cdn in [CLOUDFLARE, CLOUDFRONT, R2] {
        hub.use_cdn(cdn);
        let answer = get(&nginx.url(&blob)).send();
        assert_eq!((answer.status, answer.body == bytes), (200, true), "{cdn}: {}", answer.text());
        let answer = head(&nginx.url(&blob)).send();
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{cdn}");
        assert_eq!(answer.header("content-length"), Some("5000"), "{cdn}");
        assert_eq!(hub.last_request(cdn).method, "HEAD");
    }
}

#[test]
fn ranges_and_conditions_hold_at_the_cdn() {
    let hub = start_hub();
    let (blob, bytes) = blob_of(&hub, 1000);
    let nginx = start(&hub, "");
    let etag = format!("\"{}\"", blob.rsplit('/').next().unwrap());
    let range = |value: &'static str| vec![("Range", value.to_owned())];
    let cases = [
        ("first bytes", "GET", range("bytes=0-9"), 206, 0..10, Some("bytes 0-9/1000")),
        ("middle", "GET", range("bytes=500-509"), 206, 500..510, Some("bytes 500-509/1000")),
        ("open", "GET", range("bytes=990-"), 206, 990..1000, Some("bytes 990-999/1000")),
        ("suffix", "GET", range("bytes=-5"), 206, 995..1000, Some("bytes 995-999/1000")),
        ("whole as a suffix", "GET", range("bytes=-1000"), 206, 0..1000, Some("bytes 0-999/1000")),
        ("unsatisfiable", "GET", range("bytes=1000-"), 416, 0..0, Some("bytes */1000")),
        ("HEAD", "HEAD", range("bytes=0-9"), 200, 0..0, None),
        (
            "If-Range that holds",
            "GET",
            vec![("Range", "bytes=0-9".to_owned()), ("If-Range", etag.clone())],
            206,
            0..10,
            Some("bytes 0-9/1000"),
        ),
        (
            "If-Range that does not",
            "GET",
            vec![("Range", "bytes=0-9".to_owned()), ("If-Range", "\"other\"".to_owned())],
            200,
            0..1000,
            None,
        ),
        ("If-None-Match", "GET", vec![("If-None-Match", etag.clone())], 304, 0..0, None),
        ("If-None-Match, HEAD", "HEAD", vec![("If-None-Match", etag.clone())], 304, 0..0, None),
        (
            "If-None-Match of others",
            "GET",
            vec![("If-None-Match", "\"a\", \"b\"".to_owned())],
            200,
            0..1000,
            None,
        ),
    ];

    for (name, method, headers, status, part, content_range) in cases {
        let mut request = request(method, &nginx.url(&blob));
        for (header, value) in &headers {
            request = request.header(header, value);
        }
        let answer = request.send();
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.header("content-range"), content_range, "{name}");
        if matches!(status, 200 | 206) {
            assert!(answer.body == bytes[part], "{name}");
        }
        if status == 304 {
            assert_eq!(answer.header("etag"), Some(etag.as_str()), "{name}");
        }
        let asked = hub.last_request(CLOUDFLARE);
        for (header, _) in &headers {
            let sent: Vec<&str> =
                headers.iter().filter(|(n, _)| n == header).map(|(_, v)| v.as_str()).collect();
            assert_eq!(asked.all(header), sent, "{name}");
        }
    }
}
