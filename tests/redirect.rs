//! `docker_follow_redirect`: nginx itself goes where the registry points.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::time::{Duration, Instant};

use support::{
    Answer, CLOUDFLARE, CLOUDFRONT, Certificate, Connection, Dns, End, Fault, Framing, Hub, Kind,
    Nginx, NginxBuilder, R2, REGISTRY, Reply, Response, Shape, Step, get, head, request, wait_for,
};

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

// ---- Where redirects lead

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
        ("Host as it was sent", "/named/v2/b", "x", CDN, "/v2/x"),
    ];

    for (name, target, location, host, want) in cases {
        hub.reset();
        hub.on_times(REGISTRY, "/v2/", 1, Fault::redirect(302, location));
        let _ = get(&nginx.url(target)).send();
        assert_eq!(hub.last_request(host).uri, want, "{name}: {}", nginx.errors());
    }
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

// ---- What goes along

/// Names of the fields that a host received, sorted, in lower case.
fn names(hub: &Hub, host: &str) -> Vec<String> {
    let fields = hub.last_request(host).headers;
    let mut names: Vec<String> = fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    names
}

/// A client that says more than a CDN should know.
fn talkative(method: &str, url: &str) -> support::Request {
    request(method, url)
        .bearer("secret-token")
        .header("Cookie", "session=1")
        .header("User-Agent", "docker/29.1")
        .header("Accept", "application/vnd.oci.image.index.v1+json")
        .header("Accept", "application/json")
        .header("Accept-Encoding", "identity")
        .header("Accept-Language", "en")
        .header("Range", "bytes=0-9")
        .header("If-Range", "\"tag\"")
        .header("Referer", "https://intranet.example/")
        .header("Origin", "https://intranet.example")
        .header("Forwarded", "for=192.0.2.1")
        .header("X-Custom", "1")
}

#[test]
fn another_origin_learns_nothing_about_the_client() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "{}
             proxy_set_header Connection '';
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
             proxy_set_header X-Forwarded-Proto $scheme;
             proxy_set_header X-Real-IP $remote_addr;
             location / {{ proxy_pass https://{REGISTRY}; }}",
            follow(&hub, "")
        ))
        .start();
    let public = [
        "accept",
        "accept",
        "accept-encoding",
        "cdn-loop",
        "host",
        "if-range",
        "range",
        "user-agent",
    ];

    hub.listen(REGISTRY, 8443, true);
    let cases = [
        ("another host", format!("https://{CDN}/x"), CDN),
        ("another port", format!("https://{REGISTRY}:8443/x"), REGISTRY),
        ("a host named alike", format!("https://{OTHER}/x"), OTHER),
    ];
    for (name, location, host) in cases {
        for method in ["GET", "HEAD"] {
            hub.off(REGISTRY);
            hub.on_times(REGISTRY, "/v2/", 1, Fault::redirect(307, &location));
            let _ = talkative(method, &nginx.url("/v2/x")).send();
            assert_eq!(names(&hub, host), public, "{name}");
            let asked = hub.last_request(host);
            let accept = ["application/vnd.oci.image.index.v1+json", "application/json"];
            assert_eq!(asked.all("accept"), accept, "{name}");
            assert_eq!(asked.header("user-agent"), Some("docker/29.1"), "{name}");
            let authority = location.split('/').nth(2);
            assert_eq!(asked.header("host"), authority, "{name}");
        }
    }
}

#[test]
fn the_same_origin_gets_what_the_registry_got() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "{}
             proxy_set_header Connection '';
             proxy_set_header X-Real-IP $remote_addr;
             proxy_set_header Accept-Language '';
             location / {{ proxy_pass https://{REGISTRY}; }}",
            follow(&hub, "")
        ))
        .start();
    let cases = [
        ("relative", "/end".to_owned()),
        ("absolute", format!("https://{REGISTRY}/end")),
        ("absolute with the port", format!("https://{REGISTRY}:443/end")),
    ];
    for (name, location) in cases {
        lead(&hub, &location);
        let _ = talkative("GET", &nginx.url("/v2/x")).send();
        let requests = hub.requests(REGISTRY);
        let [.., first, second] = &requests[..] else { panic!("two requests: {name}") };
        assert_eq!((first.line(), second.line()), ("GET /v2/x".to_owned(), "GET /end".to_owned()));
        let mut fields = [first.headers.clone(), second.headers.clone()];
        fields.iter_mut().for_each(|fields| fields.sort());
        assert_eq!(fields[0], fields[1], "{name}");
        assert_eq!(second.header("authorization"), Some("Bearer secret-token"));
        assert_eq!(second.header("cookie"), Some("session=1"));
        assert_eq!(second.header("x-real-ip"), Some("127.0.0.1"));
        assert_eq!(second.header("accept-language"), None);
    }
}

#[test]
fn credentials_do_not_come_back_over_a_foreign_origin() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/back"));
    hub.on(CDN, "/back", Fault::redirect(302, format!("https://{REGISTRY}/end")));
    let answer = talkative("GET", &nginx.url("/v2/x")).send();
    assert_eq!(answer.header("x-redirects"), Some("2"));
    let back = hub.last_request(REGISTRY);
    assert_eq!(back.line(), "GET /end");
    assert_eq!((back.header("authorization"), back.header("cookie")), (None, None));

    hub.off(CDN);
    hub.on_times(CDN, "/back", 1, Fault::redirect(302, "relative"));
    let answer = talkative("GET", &nginx.url("/v2/x")).send();
    assert_eq!(answer.text(), format!("{CDN} GET /relative\n"));
    assert_eq!(hub.last_request(CDN).header("authorization"), None);
}

#[test]
fn the_mirror_names_itself_in_cdn_loop_and_ends_a_request_that_came_by_twice() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/"));
    let _ = get(&nginx.url("/v2/x")).send();
    let id = hub.last_request(CDN).header("cdn-loop").unwrap().to_owned();
    let digits = id.strip_prefix("docker-mirror-").unwrap();
    assert!(digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");

    let _ = get(&nginx.url("/v2/x")).header("CDN-Loop", "other; a=b").send();
    let want = format!("other; a=b, {id}");
    assert_eq!(hub.last_request(CDN).header("cdn-loop"), Some(want.as_str()));

    let once = get(&nginx.url("/v2/x")).header("CDN-Loop", &id).send();
    assert_eq!(once.status, 200, "a chain of locations of one mirror is no loop");
    let before = hub.counts(CDN).requests;
    let twice = get(&nginx.url("/v2/x")).header("CDN-Loop", format!("{id}, a, {id}")).send();
    assert!(message(&twice, "twice").contains("the request runs in a loop"));
    assert_eq!(hub.counts(CDN).requests, before);
}

#[test]
fn the_id_in_cdn_loop_is_the_same_in_all_workers() {
    let hub = start_hub();
    let nginx = mirror(&hub).server(&server(&hub, "")).workers(3).start();
    lead(&hub, format!("https://{CDN}/"));
    for _ in 0..12 {
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
    }
    let mut ids: Vec<String> = hub
        .requests(CDN)
        .iter()
        .map(|request| request.header("cdn-loop").unwrap_or_default().to_owned())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

// ---- What is refused

/// The error that stands in log and answer, for a host and a reason.
#[track_caller]
fn refuses(nginx: &Nginx, answer: &Answer, name: &str, want: &str) {
    assert_eq!(message(answer, name), want, "{name}");
    let logged = nginx.wait_for_log(&format!("redirect is not followed, {want}"));
    assert!(logged.contains("[error]"), "{name}: {logged}");
}

#[test]
fn more_hops_than_configured_are_refused() {
    let hub = start_hub();
    for (parameters, hops) in [("", 5), ("hops=1", 1), ("hops=8", 8)] {
        let nginx = start(&hub, parameters);
        let hosts = [REGISTRY, CDN, OTHER];
        let last = format!("https://{OTHER}/end");
        let answer = get(&nginx.url(&hub.chain(&hosts, hops, 302, &last))).send();
        assert_eq!(answer.status, 200, "{hops}: {}", answer.text());

        let path = hub.chain(&hosts, hops + 1, 302, &last);
        let answer = get(&nginx.url(&path)).send();
        let want = format!("{}: more than {hops} redirects", hosts[hops % 3]);
        refuses(&nginx, &answer, parameters, &want);
        assert_eq!(head(&nginx.url(&path)).send().status, 502, "{parameters}");
    }
}

#[test]
fn a_circle_of_redirects_ends() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let cases = [
        ("to itself", "/v2/x".to_owned(), format!("{REGISTRY}: more than 5 redirects")),
        ("to itself in full", format!("https://{REGISTRY}/v2/x"), REGISTRY.to_owned()),
        ("over the CDN", format!("https://{CDN}/v2/x"), CDN.to_owned()),
    ];
    hub.on(CDN, "/", Fault::redirect(302, format!("https://{REGISTRY}/v2/x")));
    for (name, location, want) in cases {
        lead(&hub, location);
        let answer = get(&nginx.url("/v2/x")).send();
        assert!(message(&answer, name).starts_with(&want), "{name}: {}", answer.text());
    }
    assert!(hub.counts(REGISTRY).requests < 20, "{}", hub.counts(REGISTRY).requests);
}

#[test]
fn https_does_not_go_on_to_http() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let reason = "a redirect from https to http is not followed";
    for (name, location) in [
        ("CDN", format!("http://{CDN}/x")),
        ("port of https", format!("http://{CDN}:443/x")),
        ("the registry itself", format!("http://{REGISTRY}/x")),
    ] {
        lead(&hub, &location);
        let host = if location.contains(CDN) { CDN } else { REGISTRY };
        let answer = get(&nginx.url("/v2/x")).send();
        refuses(&nginx, &answer, name, &format!("{host}: {reason}"));
    }
    lead(&hub, format!("https://{CDN}/x"));
    hub.on(CDN, "/", Fault::redirect(307, format!("http://{OTHER}/x")));
    let answer = get(&nginx.url("/v2/x")).send();
    refuses(&nginx, &answer, "second hop", &format!("{OTHER}: {reason}"));
    assert_eq!(hub.counts(OTHER).connections, 0);
}

#[test]
fn http_goes_on_to_http_and_to_https() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "{} location / {{ proxy_pass http://{}; }}",
            follow(&hub, ""),
            hub.address(REGISTRY)
        ))
        .start();
    for scheme in ["http", "https"] {
        lead(&hub, format!("{scheme}://{CDN}/x"));
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.text(), format!("{CDN} GET /x\n"), "{scheme}: {}", nginx.errors());
        assert_eq!(hub.last_request(CDN).tls, scheme == "https");
    }
}

#[test]
fn addresses_that_are_not_public_are_refused() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let cases = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "172.16.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::1]",
        "[2001::5ef5:79fb:0:59d:a247:fafe]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
    ];
    for host in cases {
        for port in ["", ":22"] {
            lead(&hub, format!("https://{host}{port}/latest/meta-data/?token=x"));
            let answer = get(&nginx.url("/v2/x")).send();
            let want = format!("{host}: redirects to this address are not allowed");
            refuses(&nginx, &answer, host, &want);
        }
    }
}

#[test]
fn names_of_addresses_that_are_not_public_are_refused_without_telling_the_address() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let cases = [
        ("loopback", "127.0.0.1"),
        ("loopback, IPv6", "::1"),
        ("mapped loopback", "::ffff:127.0.0.1"),
        ("metadata", "169.254.169.254"),
        ("metadata, IPv6", "fd00:ec2::254"),
        ("private", "10.9.8.7"),
        ("NAT64 of loopback", "64:ff9b::7f00:1"),
    ];
    for (number, (name, address)) in cases.into_iter().enumerate() {
        let host = format!("inside{number}.example");
        hub.resolve_to(&host, &[address]);
        lead(&hub, format!("https://{host}/x?signature=1"));
        let answer = get(&nginx.url("/v2/x")).send();
        let want = format!("{host}: redirects to this address are not allowed");
        assert_eq!(message(&answer, name), want);
        assert!(!answer.text().contains(address), "{name}: {}", answer.text());
        let logged = nginx.wait_for_log(&want);
        assert!(logged.contains("[error]"), "{name}: {logged}");
    }
}

#[test]
fn of_several_addresses_only_those_that_are_allowed_are_asked() {
    let hub = start_hub();
    let address = hub.address(CDN).to_string();
    let nginx = mirror(&hub).http("docker_keepalive off;").server(&server(&hub, "")).start();
    // Were it asked, the listener that another test may have at ::1 would not matter: connecting
    // to the others takes too long or is refused, and a log line says so.
    hub.resolve_to(CDN, &["10.9.8.7", &address, "::1", "169.254.169.254"]);
    lead(&hub, format!("https://{CDN}/x"));
    for _ in 0..8 {
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
    }
    let log = nginx.errors();
    assert!(!log.contains("10.9.8.7") && !log.contains("[::1]"), "{log}");
}

#[test]
fn private_networks_are_reached_when_they_are_allowed() {
    let hub = start_hub();
    let address = hub.address(CDN).to_string();
    let v6 = hub.listen_at(CDN, "[::1]:0".parse().unwrap(), false);
    let port = v6.port();
    hub.resolve_to("six.example", &["::1"]);
    let network = hub.network();
    let cases = [
        ("name", format!("private={network}"), format!("http://{CDN}/x"), true),
        ("literal", format!("private={network}"), format!("http://{address}/x"), true),
        ("one address", format!("private={address}"), format!("http://{CDN}/x"), true),
        ("another address", "private=127.0.0.1".to_owned(), format!("http://{CDN}/x"), false),
        (
            "mapped form",
            format!("private={address}/32"),
            format!("http://[::ffff:{address}]/x"),
            true,
        ),
        ("none", String::new(), format!("http://{CDN}/x"), false),
        ("IPv6", "private=::1".to_owned(), format!("http://[::1]:{port}/x"), true),
        ("IPv6 network", "private=::/96".to_owned(), format!("http://six.example:{port}/x"), true),
        ("IPv6 of IPv4", "private=127.0.0.0/8".to_owned(), format!("http://[::1]:{port}/"), false),
        (
            "several",
            format!("private=10.0.0.0/8 private=::1 private={network}"),
            format!("http://six.example:{port}/x"),
            true,
        ),
    ];

    for (name, parameters, location, allowed) in cases {
        let nginx = mirror(&hub)
            .server(&format!(
                "docker_follow_redirect on {parameters};
                 location / {{ proxy_pass http://{}; }}",
                hub.address(REGISTRY)
            ))
            .start();
        lead(&hub, &location);
        let answer = get(&nginx.url("/v2/x")).send();
        if allowed {
            assert_eq!(answer.text(), format!("{CDN} GET /x\n"), "{name}: {}", nginx.errors());
        } else {
            let refused = "redirects to this address are not allowed";
            assert!(message(&answer, name).ends_with(refused), "{name}: {}", answer.text());
        }
    }
}

#[test]
fn allow_says_which_hosts_may_be_led_to() {
    let hub = start_hub();
    hub.listen(CDN, 8443, true);
    hub.resolve_to("cdn.example", &[&hub.address(CDN).to_string()]);
    let cases = [
        ("host", "allow=cdn.example", "https://cdn.example/x", true),
        ("host in another case", "allow=CDN.example", "https://cdn.EXAMPLE/x", true),
        ("another host", "allow=cdn.example", "https://other.example/x", false),
        ("host below", "allow=example", "https://cdn.example/x", false),
        ("several", "allow=a.example allow=cdn.example", "https://cdn.example/x", true),
        ("suffix", "allow=.example", "https://cdn.example/x", true),
        ("suffix within a label", "allow=.dn.example", "https://cdn.example/x", false),
        ("regex", r"'allow=~c[a-z]{2}\.example'", "https://cdn.example/x", true),
        ("regex of a part", "allow=~cdn", "https://cdn.example/x", false),
        ("port that is not named", "allow=cdn.example", "https://cdn.example:8443/x", false),
        ("port", "allow=cdn.example:8443", "https://cdn.example:8443/x", true),
        ("another port", "allow=cdn.example:8443", "https://cdn.example/x", false),
        ("any host, any port", "", "https://cdn.example:8443/x", true),
    ];

    for (name, parameters, location, allowed) in cases {
        let nginx = start(&hub, parameters);
        lead(&hub, location);
        let answer = get(&nginx.url("/v2/x")).send();
        if allowed {
            assert_eq!(answer.text(), format!("{CDN} GET /x\n"), "{name}: {}", nginx.errors());
        } else {
            let host = location.trim_start_matches("https://").split([':', '/']).next().unwrap();
            let want = format!("{host}: redirects to this host are not allowed");
            refuses(&nginx, &answer, name, &want);
        }
    }
}

#[test]
fn the_same_origin_needs_no_allow() {
    let hub = start_hub();
    let nginx = start(&hub, "allow=cdn.example");
    lead(&hub, "/end");
    hub.on(REGISTRY, "/end", Fault::Answer(Response::text(200, "end").into()));
    assert_eq!(get(&nginx.url("/v2/x")).send().text(), "end");
}

#[test]
fn a_location_that_is_no_url_is_refused() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .http("proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;")
        .server(&server(&hub, ""))
        .start();
    let user = "user information in the URL";
    let scheme = "the URL is neither http nor https";
    let host = "no valid host in the URL";
    let port = "no valid port in the URL";
    let long = format!("https://{CDN}/{}", "x".repeat(17_000));
    let cases: [(&str, &[u8], &str); 30] = [
        ("empty", b"", "empty URL"),
        ("space", b"https://cdn.example/a b", "byte 0x20 in the URL"),
        ("tab", b"https://cdn.example/a\tb", "byte 0x09 in the URL"),
        ("control byte", b"https://cdn.example/a\x01b", "byte 0x01 in the URL"),
        ("escape", b"https://cdn.example/\x1b[31m", "byte 0x1b in the URL"),
        ("DEL", b"https://cdn.example/a\x7fb", "byte 0x7f in the URL"),
        ("Latin-1", b"https://cdn.example/\xfc", "byte 0xfc in the URL"),
        ("UTF-8", "https://cdn.example/ü".as_bytes(), "byte 0xc3 in the URL"),
        ("user", b"https://user@cdn.example/", user),
        ("user and password", b"https://user:password@cdn.example/", user),
        ("empty user", b"https://@cdn.example/", user),
        ("host as a user", b"https://cdn.example@evil.example/", user),
        ("file", b"file:///etc/passwd", scheme),
        ("ftp", b"ftp://cdn.example/", scheme),
        ("gopher", b"gopher://127.0.0.1:6379/_INFO", scheme),
        ("javascript", b"javascript:alert(1)", scheme),
        ("data", b"data:text/plain,x", scheme),
        ("unix", b"unix:/run/docker.sock:/info", scheme),
        ("no host", b"https:///x", host),
        ("no slashes", b"https:cdn.example", host),
        ("backslash", b"https://cdn.example\\x/", host),
        ("percent in the host", b"https://%63dn.example/", host),
        ("underlined garbage", b"https://c!d!n/", host),
        ("IPv4 as a number", b"https://2130706433/", host),
        ("octal IPv4", b"https://0177.0.0.1/", host),
        ("zone", b"https://[fe80::1%25lo]/", host),
        ("open bracket", b"https://[::1/", host),
        ("port 0", b"https://cdn.example:0/", port),
        ("port beyond", b"https://cdn.example:65536/", port),
        ("too long", long.as_bytes(), "the URL is longer than 16384 bytes"),
    ];

    for (name, location, reason) in cases {
        lead(&hub, location);
        let answer = get(&nginx.url("/v2/x")).send();
        let want = format!("{REGISTRY}: invalid redirect, {reason}");
        refuses(&nginx, &answer, name, &want);
    }
    assert_eq!(hub.counts(CDN).connections, 0);
}

#[test]
fn bytes_that_break_a_header_line_do_not_reach_anybody() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    for (name, location) in
        [("NUL", &b"https://cdn.example/\0x"[..]), ("carriage return", b"https://cdn.example/\rx")]
    {
        lead(&hub, location);
        // Whether nginx's own parser or ours refuses it differs by version.
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 502, "{name}");
    }
    lead(&hub, "https://cdn.example/a\r\nX-Injected: 1");
    let answer = get(&nginx.url("/v2/x")).send();
    assert_eq!(answer.text(), format!("{CDN} GET /a\n"));
    assert_eq!(hub.last_request(CDN).header("x-injected"), None);
    assert_eq!(answer.header("x-injected"), None);
}

#[test]
fn a_location_of_8_kilobytes_is_followed() {
    let hub = start_hub();
    let buffers = "proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_busy_buffers_size 32k;";
    let nginx = mirror(&hub).http(buffers).server(&server(&hub, "")).start();
    let uri = format!("/x?signature={}", "0123456789abcdef".repeat(512));
    lead(&hub, format!("https://{CDN}{uri}"));
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "{}", nginx.errors());
    assert_eq!(hub.last_request(CDN).uri, uri);

    // Where nginx's buffer is too small for it, that is upstream's failure.
    let nginx = start(&hub, "");
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 502);
    nginx.wait_for_log("upstream sent too big header");
}

// ---- What fails on the way

/// Short time-outs, so that a test can wait for them.
const IMPATIENT: &str = "proxy_connect_timeout 1s; proxy_read_timeout 1s; resolver_timeout 1s;";

type Case = (&'static str, fn(&Hub), &'static str);

/// What can befall a CDN, and what the client is told.
const FAILURES: [Case; 19] = [
    ("dead host", |hub| hub.refuse(CDN), "could not be connected"),
    (
        "unknown name",
        |hub| hub.resolve(CDN, Dns::NxDomain),
        "could not be resolved (Host not found)",
    ),
    ("SERVFAIL", |hub| hub.resolve(CDN, Dns::ServFail), "could not be resolved (Server failure)"),
    ("REFUSED", |hub| hub.resolve(CDN, Dns::Refused), "could not be resolved (Operation refused)"),
    (
        "silent DNS",
        |hub| hub.resolve(CDN, Dns::Silence),
        "could not be resolved (Operation timed out)",
    ),
    (
        "no address",
        |hub| hub.resolve(CDN, Dns::Addresses(Vec::new())),
        "could not be resolved (Host not found)",
    ),
    (
        "alias of an unknown name",
        |hub| hub.resolve(CDN, Dns::Alias("nowhere.example".to_owned())),
        "could not be resolved (Host not found)",
    ),
    (
        "certificate of another host",
        |hub| hub.certificate(CDN, Certificate::WrongName),
        "certificate not valid for this host",
    ),
    (
        "unknown authority",
        |hub| hub.certificate(CDN, Certificate::UnknownAuthority),
        "certificate not valid for this host",
    ),
    (
        "expired certificate",
        |hub| hub.certificate(CDN, Certificate::Expired),
        "certificate not valid for this host",
    ),
    ("stalled connect", |hub| hub.blackhole(CDN), "connect timed out"),
    ("stalled TLS handshake", |hub| hub.mute(CDN), "TLS handshake timed out"),
    (
        "end without an answer",
        |hub| hub.on(CDN, "/", Fault::Close(End::Close)),
        "closed the connection without an answer",
    ),
    (
        "reset",
        |hub| hub.on(CDN, "/", Fault::Close(End::Reset)),
        "closed the connection without an answer",
    ),
    (
        "end within the header",
        |hub| hub.on(CDN, "/", Fault::Shape(Shape::CutHead(20, End::Close))),
        "closed the connection without an answer",
    ),
    ("no answer", |hub| hub.on(CDN, "/", Fault::Stall), "timed out"),
    (
        "half a header",
        |hub| {
            let steps = vec![Step::send("HTTP/1.1 200 OK\r\nContent-"), Step::Stall];
            hub.on(CDN, "/", Fault::Answer(Reply::Raw(steps)));
        },
        "timed out",
    ),
    (
        "invalid header",
        |hub| hub.on(CDN, "/", Fault::raw("HTTP/1.1 200 OK\r\nno colon\r\n\r\n")),
        "sent an invalid header",
    ),
    (
        "header larger than the buffer",
        |hub| {
            let line = "x".repeat(20_000);
            hub.on(CDN, "/", Fault::raw(format!("HTTP/1.1 200 OK\r\nX: {line}\r\n\r\n")));
        },
        "sent an invalid header",
    ),
];

fn fails(&(name, befall, reason): &Case) {
    let hub = start_hub();
    let nginx = mirror(&hub).http(IMPATIENT).server(&server(&hub, "")).start();
    lead(&hub, format!("https://{CDN}/x?signature=1"));
    befall(&hub);
    for method in ["GET", "HEAD"] {
        let start = Instant::now();
        let answer = request(method, &nginx.url("/v2/x")).send();
        let what = format!("{method}, {name}, {}", nginx.errors());
        assert_eq!((answer.status, answer.header("location")), (502, None), "{what}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        if method == "GET" {
            let message = message(&answer, name);
            assert!(message.starts_with(&format!("{CDN}: ")), "{message}: {what}");
            assert!(message.ends_with(reason), "{message}: {what}");
            let address = hub.address(CDN).to_string();
            assert!(!message.contains(&address), "{message}: {what}");
        } else {
            assert_eq!(answer.body.len(), 0, "{what}");
        }
    }
}

#[test]
fn a_failing_cdn_is_named_with_the_reason_and_the_client_is_not_sent_there() {
    // Most of the time is spent waiting.
    std::thread::scope(|scope| {
        for cases in FAILURES.chunks(5) {
            scope.spawn(|| cases.iter().for_each(fails));
        }
    });
}

#[test]
fn a_server_that_speaks_no_http_is_not_relayed() {
    let hub = start_hub();
    let address = hub.address(CDN);
    let nginx = mirror(&hub)
        .server(&format!(
            "{} location / {{ proxy_pass http://{}; }}",
            follow(&hub, ""),
            hub.address(REGISTRY)
        ))
        .start();
    for (name, banner) in [
        ("SSH", "SSH-2.0-OpenSSH_9.2p1\r\n"),
        ("SMTP", "220 mail.example ESMTP\r\n"),
        ("Redis", "-ERR unknown command\r\n"),
        ("HTML of HTTP/0.9", "<html>secret</html>\n"),
    ] {
        lead(&hub, format!("http://{address}/x"));
        hub.off(CDN);
        hub.on(CDN, "/", Fault::raw(banner));
        let answer = get(&nginx.url("/v2/x")).try_send();
        let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}: {}", nginx.errors()));
        assert_eq!(answer.status, 502, "{name}: {}", answer.text());
        let message = message(&answer, name);
        assert!(message.starts_with(&address.to_string()), "{name}: {message}");

        hub.off(REGISTRY);
        hub.on(REGISTRY, "/", Fault::raw(banner));
        let answer = get(&nginx.url("/v2/x")).try_send();
        let answer = answer.unwrap_or_else(|error| panic!("{name}, registry: {error}"));
        assert_eq!(answer.status, 502, "{name}, registry: {}", answer.text());
    }
}

#[test]
fn errors_of_the_cdn_reach_the_client() {
    let hub = start_hub();
    let (blob, _) = blob_of(&hub, 10);
    let nginx = start(&hub, "");
    for status in [400, 403, 404, 410, 416, 429, 500, 502, 503, 504] {
        hub.off(CLOUDFLARE);
        let answer = Response::text(status, "from the CDN").header("Retry-After", "7");
        hub.on(CLOUDFLARE, "/", Fault::Answer(answer.into()));
        let answer = get(&nginx.url(&blob)).send();
        assert_eq!((answer.status, answer.text().as_str()), (status, "from the CDN"));
        assert_eq!(answer.header("retry-after"), Some("7"), "{status}");
        assert_eq!(answer.header("x-origin"), Some(CLOUDFLARE), "{status}");
    }
    hub.off(CLOUDFLARE);
    lead(&hub, format!("https://{CLOUDFLARE}/registry-v2/x"));
    let answer = get(&nginx.url(&blob)).send();
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/xml")));
}

#[test]
fn verify_off_takes_any_certificate() {
    let hub = start_hub();
    let nginx = start(&hub, "verify=off");
    lead(&hub, format!("https://{CDN}/x"));
    for certificate in [Certificate::WrongName, Certificate::UnknownAuthority, Certificate::Expired]
    {
        hub.certificate(CDN, certificate);
        hub.disconnect(CDN);
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{certificate:?}: {}", nginx.errors());
    }
    lead(&hub, format!("https://{}/x", hub.address(CDN)));
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "an address has a name in no case");
}

/// A blob whose body ends too early, by each way to end.
#[test]
fn a_cut_body_is_no_complete_answer() {
    let hub = start_hub();
    let (blob, bytes) = blob_of(&hub, 200_000);
    let own = server(&hub, "");
    let nginx = mirror(&hub)
        .http("proxy_read_timeout 1s;")
        .server(&own)
        .server(&format!("proxy_buffering off; {own}"))
        .tls_server(&own)
        .start();
    let cases = [
        ("closed", Shape::CutBody(100_000, End::Close)),
        ("cut without a goodbye", Shape::CutBody(100_000, End::Truncate)),
        ("reset", Shape::CutBody(100_000, End::Reset)),
        ("stalled", Shape::StallBody(100_000)),
        ("nothing but the header", Shape::CutBody(0, End::Close)),
        ("one byte short", Shape::CutBody(199_999, End::Close)),
    ];
    for (name, shape) in cases {
        for chunked in [false, true] {
            hub.off(CLOUDFLARE);
            let response =
                Response::new(200).body(&bytes).header("Content-Type", "application/octet-stream");
            let response = if chunked { response.chunked(10_000) } else { response };
            hub.on(CLOUDFLARE, "/", Fault::Answer(response.shape(shape.clone()).into()));
            for (server, request) in [
                ("buffered", get(&nginx.url_of(0, &blob))),
                ("unbuffered", get(&nginx.url_of(1, &blob))),
                ("HTTP/2", get(&nginx.url_of(2, &blob)).ca(nginx.ca_file()).http2()),
            ] {
                let name = format!("{name}, chunked: {chunked}, {server}");
                // Without a byte of the body, nginx may end the connection instead.
                let Ok(answer) = request.try_send() else { continue };
                assert_eq!(answer.status, 200, "{name}");
                assert!(!answer.complete, "{name}: {:?}", answer.framing);
                assert!(answer.framing != Framing::Close, "{name}");
                assert!(answer.body.len() < bytes.len(), "{name}");
                assert!(bytes.starts_with(&answer.body), "{name}");
            }
        }
    }
    hub.off(CLOUDFLARE);
    let whole = get(&nginx.url(&blob)).send();
    assert!(whole.complete && whole.body == bytes);
}

#[test]
fn a_large_blob_arrives_whole() {
    let hub = start_hub();
    let (blob, bytes) = blob_of(&hub, 20_000_000);
    let own = server(&hub, "");
    let nginx = mirror(&hub)
        .server(&own)
        .server(&format!("proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k; {own}"))
        .tls_server(&format!("proxy_max_temp_file_size 0; {own}"))
        .start();
    for request in [
        get(&nginx.url_of(0, &blob)),
        get(&nginx.url_of(1, &blob)),
        get(&nginx.url_of(2, &blob)).ca(nginx.ca_file()),
        get(&nginx.url_of(2, &blob)).ca(nginx.ca_file()).http2(),
    ] {
        let answer = request.send();
        assert!(answer.complete && answer.body == bytes, "{request:?}");
    }
}

#[test]
fn http2_clients_are_served_as_others_are() {
    let hub = start_hub();
    let (blob, bytes) = blob_of(&hub, 100_000);
    let own = server(&hub, "");
    let nginx = mirror(&hub).h2c_server(&own).tls_server(&own).start();
    for (name, url) in [("h2c", nginx.url_of(0, &blob)), ("TLS", nginx.url_of(1, &blob))] {
        let ask = |method: &str| request(method, &url).ca(nginx_ca(&nginx)).http2();
        let answer = ask("GET").send();
        assert_eq!((answer.status, answer.body == bytes), (200, true), "{name}");
        let answer = ask("HEAD").send();
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{name}");
        assert_eq!(answer.header("content-length"), Some("100000"), "{name}");
        let answer = ask("GET").header("range", "bytes=-3").send();
        assert_eq!((answer.status, answer.body == bytes[99_997..]), (206, true), "{name}");
        assert_eq!(ask("POST").body("x").send().status, 405, "{name}");

        hub.refuse(CLOUDFLARE);
        let answer = ask("GET").send();
        assert!(message(&answer, name).contains("could not be connected"), "{name}");
        hub.accept(CLOUDFLARE);
    }
    for asked in hub.requests(CLOUDFLARE) {
        assert_eq!(asked.version, "HTTP/1.1");
    }
}

fn nginx_ca(nginx: &Nginx) -> std::path::PathBuf {
    nginx.ca_file()
}

#[test]
fn a_client_may_send_many_requests_over_one_connection() {
    let hub = start_hub();
    let (blob, bytes) = blob_of(&hub, 3000);
    let nginx = start(&hub, "");
    let ask = get(&nginx.url(&blob));
    let mut connection = Connection::open(&ask).unwrap();
    for _ in 0..5 {
        let answer = connection.send(&ask).unwrap();
        assert!(answer.status == 200 && answer.body == bytes);
        let answer = connection.send(&head(&nginx.url(&blob))).unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }
    // All at once.
    for _ in 0..5 {
        connection.start(&ask).unwrap();
    }
    for _ in 0..5 {
        let answer = connection.answer("GET").unwrap();
        assert!(answer.status == 200 && answer.body == bytes);
    }
}

#[test]
fn requests_that_wait_for_one_name_are_all_served() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    let url = nginx.url("/v2/x");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| get(&url).send().status)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 200);
        }
    });
    assert!(hub.queries(CDN) <= 4, "nginx's resolver asks once: {}", hub.queries(CDN));
}

// ---- Connections

/// What must not be taken for the answer to another request.
const POISON: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// Sends a request ten times, one after the other, and sees that each gets the CDN's answer.
#[track_caller]
fn ten_times(nginx: &Nginx, method: &str, name: &str) {
    for _ in 0..10 {
        let answer = request(method, &nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{name}: {}: {}", answer.text(), nginx.errors());
        let text = if method == "HEAD" { String::new() } else { format!("{CDN} {method} /x\n") };
        assert_eq!(answer.text(), text, "{name}");
    }
}

/// Closes what is open to a host, so that the connections to come can be counted.
fn count_anew(hub: &Hub, host: &str) {
    hub.disconnect(host);
    hub.forget();
}

#[test]
fn the_registrys_connection_is_kept_across_a_redirect() {
    let hub = start_hub();
    let cached = "proxy_cache_path %prefix%/cache keys_zone=cache:1m;";
    let own = server(&hub, "");
    let nginx = mirror(&hub)
        .http(cached)
        .server(&own)
        .server(&format!("proxy_buffering off; {own}"))
        .server(&format!("proxy_cache cache; proxy_cache_valid any 1m; {own}"))
        .start();
    let to = format!("https://{CDN}/x");
    let redirect = |body: usize| Response::redirect(307, &to).body("b".repeat(body));
    let cases = [
        ("small body", "GET", redirect(50)),
        ("no body", "GET", redirect(0)),
        ("body that fills most of the buffer", "GET", redirect(3000)),
        ("one chunk", "GET", redirect(50).chunked(1000)),
        ("many chunks", "GET", redirect(500).chunked(7)),
        ("no chunk but the last", "GET", redirect(0).chunked(7)),
        ("HEAD", "HEAD", redirect(50)),
        ("HEAD, chunked", "HEAD", redirect(50).chunked(7)),
    ];

    for (name, method, response) in cases {
        for server in 0..3 {
            hub.off(REGISTRY);
            hub.on(REGISTRY, "/v2/", Fault::Answer(response.clone().into()));
            count_anew(&hub, REGISTRY);
            for number in 0..10 {
                // Another URI each time: the third server caches what comes from the CDN.
                let url = nginx.url_of(server, &format!("/v2/{number}/{}", name.len()));
                let answer = request(method, &url).send();
                assert_eq!(answer.status, 200, "{name}: {}", nginx.errors());
            }
            let counts = hub.counts(REGISTRY);
            assert_eq!((counts.connections, counts.requests), (1, 10), "{name}, server {server}");
        }
    }
}

#[test]
fn a_connection_with_more_to_come_is_not_kept() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let to = format!("https://{CDN}/x");
    let redirect = |body: usize| Response::redirect(307, &to).body("b".repeat(body));
    let pause = Duration::from_millis(300);
    let http10 = format!("HTTP/1.0 302 Found\r\nLocation: {to}\r\n\r\nuntil the end");
    let cases: [(&str, Reply); 8] = [
        ("half a body", redirect(50).shape(Shape::PauseBody(20, pause)).into()),
        ("no byte of the body", redirect(50).shape(Shape::PauseBody(0, pause)).into()),
        ("half a chunk", redirect(50).chunked(30).shape(Shape::PauseBody(20, pause)).into()),
        (
            "all but the last chunk's end",
            redirect(5).chunked(5).shape(Shape::PauseBody(13, pause)).into(),
        ),
        ("a body larger than the buffer", redirect(20_000).into()),
        ("a body that is never sent", redirect(50).shape(Shape::StallBody(20)).into()),
        ("Connection: close", redirect(50).header("Connection", "close").into()),
        ("a body that ends with the connection", Reply::raw(http10)),
    ];

    for (name, reply) in cases {
        hub.off(REGISTRY);
        hub.on(REGISTRY, "/v2/", Fault::Answer(reply));
        count_anew(&hub, REGISTRY);
        let start = Instant::now();
        ten_times(&nginx, "GET", name);
        assert!(start.elapsed() < 8 * pause, "{name}: the rest of the body is not waited for");
        let counts = hub.counts(REGISTRY);
        assert_eq!((counts.connections, counts.requests), (10, 10), "{name}");
    }
    hub.off(REGISTRY);
    wait_for("connections to be closed", || hub.counts(REGISTRY).open == 0);
}

#[test]
fn bytes_behind_an_answer_of_the_registry_are_never_taken_for_another() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let to = format!("https://{CDN}/x");
    let redirect = || Response::redirect(307, &to);
    let poison = || Shape::Surplus(POISON.to_vec());
    let late = Reply::Raw(vec![
        Step::send(format!("HTTP/1.1 307 T\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")),
        Step::Wait(Duration::from_millis(30)),
        Step::send(POISON),
    ]);
    let cases: [(&str, &str, Reply); 8] = [
        ("GET", "GET", redirect().shape(poison()).into()),
        ("GET, no body", "GET", redirect().body("").shape(poison()).into()),
        ("GET, chunked", "GET", redirect().chunked(5).shape(poison()).into()),
        ("HEAD", "HEAD", redirect().shape(poison()).into()),
        ("HEAD, chunked", "HEAD", redirect().chunked(5).shape(poison()).into()),
        ("HEAD, no length", "HEAD", redirect().body("").shape(poison()).into()),
        ("one byte", "HEAD", redirect().shape(Shape::Surplus(b"\n".to_vec())).into()),
        ("late", "GET", late),
    ];

    for (name, method, reply) in cases {
        hub.off(REGISTRY);
        hub.on(REGISTRY, "/v2/", Fault::Answer(reply));
        count_anew(&hub, REGISTRY);
        for _ in 0..5 {
            let answer = request(method, &nginx.url("/v2/x")).send();
            assert_eq!(answer.header("x-redirects"), Some("1"), "{name}: {}", answer.text());
            assert!(!answer.text().contains("poison"), "{name}");
            if name == "late" {
                std::thread::sleep(Duration::from_millis(60));
            }
        }
        assert_eq!(hub.counts(REGISTRY).connections, 5, "{name}");
    }
}

#[test]
fn bytes_behind_an_answer_of_the_cdn_are_never_taken_for_another() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    let poison = || Shape::Surplus(POISON.to_vec());
    let late = Reply::Raw(vec![
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
        Step::Wait(Duration::from_millis(30)),
        Step::send(POISON),
    ]);
    let cases: [(&str, &str, Reply); 7] = [
        ("GET", "GET", Response::text(200, "fine").shape(poison()).into()),
        ("GET, chunked", "GET", Response::text(200, "fine").chunked(9).shape(poison()).into()),
        ("GET, no body", "GET", Response::text(200, "").shape(poison()).into()),
        ("HEAD", "HEAD", Response::text(200, "fine").shape(poison()).into()),
        ("304", "GET", Response::new(304).shape(poison()).into()),
        ("204", "GET", Response::new(204).shape(poison()).into()),
        ("late", "GET", late),
    ];

    for (name, method, reply) in cases {
        hub.off(CDN);
        hub.on(CDN, "/", Fault::Answer(reply));
        count_anew(&hub, CDN);
        for _ in 0..5 {
            let answer = request(method, &nginx.url("/v2/x")).send();
            assert!(!answer.text().contains("poison"), "{name}");
            assert!(matches!(answer.status, 200 | 204 | 304), "{name}: {}", answer.status);
            if name == "late" {
                std::thread::sleep(Duration::from_millis(60));
            }
        }
        assert_eq!(hub.counts(CDN).connections, 5, "{name}: {}", nginx.errors());
    }
}

#[test]
fn connections_to_cdns_are_kept() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    for (name, to) in [("https", format!("https://{CDN}/x")), ("relative", "/x".to_owned())] {
        lead(&hub, to);
        hub.on(REGISTRY, "/x", Fault::Answer(Response::text(200, "cdn.example GET /x\n").into()));
        ten_times(&nginx, "GET", name);
    }
    hub.on(CDN, "/", Fault::Answer(Response::text(200, "cdn.example GET /x\n").chunked(3).into()));
    lead(&hub, format!("https://{CDN}/x"));
    ten_times(&nginx, "GET", "chunked");
    ten_times(&nginx, "HEAD", "HEAD");
    let counts = hub.counts(CDN);
    assert_eq!((counts.connections, counts.full, counts.resumed), (1, 1, 0));
    // One of nginx's own upstream, one of the follow location.
    assert_eq!(hub.counts(REGISTRY).connections, 2);
}

#[test]
fn connections_are_not_shared_between_hosts_schemes_and_ports() {
    let hub = start_hub();
    hub.listen(CDN, 8080, false);
    let nginx = mirror(&hub)
        .server(&format!(
            "{} location / {{ proxy_pass http://{}; }}",
            follow(&hub, ""),
            hub.address(REGISTRY)
        ))
        .start();
    // Two names of one address.
    hub.resolve_to("alias.example", &[&hub.address(CDN).to_string()]);
    let origins = [
        format!("http://{CDN}"),
        "http://alias.example".to_owned(),
        format!("http://{CDN}:8080"),
        format!("https://{CDN}"),
    ];
    for _ in 0..3 {
        for origin in &origins {
            lead(&hub, format!("{origin}/x"));
            assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "{origin}");
            let authority = origin.split("//").nth(1).unwrap();
            assert_eq!(hub.last_request(CDN).header("host"), Some(authority));
        }
    }
    assert_eq!(hub.counts(CDN).connections, 4);
}

#[test]
fn tls_sessions_with_cdns_are_resumed() {
    let hub = start_hub();
    let nginx = mirror(&hub).http("docker_keepalive off;").server(&server(&hub, "")).start();
    lead(&hub, format!("https://{CDN}/x"));
    ten_times(&nginx, "GET", "off");
    let counts = hub.counts(CDN);
    assert_eq!((counts.connections, counts.full, counts.resumed), (10, 1, 9));

    // TLS 1.2 as well.
    let nginx = mirror(&hub)
        .http("docker_keepalive off; proxy_ssl_protocols TLSv1.2;")
        .server(&server(&hub, ""))
        .start();
    hub.forget();
    ten_times(&nginx, "GET", "TLS 1.2");
    let counts = hub.counts(CDN);
    assert_eq!((counts.full, counts.resumed), (1, 9));

    let nginx = mirror(&hub)
        .http("docker_keepalive off;")
        .server(&format!("proxy_ssl_session_reuse off; {}", server(&hub, "")))
        .start();
    hub.forget();
    ten_times(&nginx, "GET", "the follow location says on itself");
    assert_eq!(hub.counts(CDN).full, 1);
}

/// The connections to the CDN that `requests` requests need, with pauses between.
fn connections(hub: &Hub, keepalive: &str, requests: usize, pause: Duration) -> u64 {
    let nginx = mirror(hub)
        .http(&format!("docker_keepalive {keepalive};"))
        .server(&server(hub, ""))
        .start();
    lead(hub, format!("https://{CDN}/x"));
    hub.forget();
    for number in 0..requests {
        if number > 0 {
            std::thread::sleep(pause);
        }
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "{keepalive}");
    }
    hub.counts(CDN).connections
}

#[test]
fn docker_keepalive_bounds_requests_idleness_and_age_of_a_connection() {
    let hub = start_hub();
    let at_once = Duration::ZERO;
    let cases = [
        ("off", 4, at_once, 4),
        ("32", 6, at_once, 1),
        ("1", 6, at_once, 1),
        ("8 requests=2", 6, at_once, 3),
        ("8 requests=1", 4, at_once, 4),
        ("requests=3 8", 7, at_once, 3),
        ("8 timeout=200ms", 3, Duration::from_millis(500), 3),
        ("8 timeout=10s", 3, Duration::from_millis(500), 1),
        // Checked when an answer is complete: the second one comes too late to be kept.
        ("8 time=200ms", 4, Duration::from_millis(300), 2),
        ("8 time=10s", 4, Duration::from_millis(300), 1),
    ];
    for (keepalive, requests, pause, want) in cases {
        assert_eq!(connections(&hub, keepalive, requests, pause), want, "{keepalive}");
    }
}

#[test]
fn an_idle_connection_is_closed_when_its_time_is_over() {
    let hub = start_hub();
    let nginx =
        mirror(&hub).http("docker_keepalive 8 timeout=300ms;").server(&server(&hub, "")).start();
    lead(&hub, format!("https://{CDN}/x"));
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
    assert_eq!(hub.counts(CDN).open, 1);
    wait_for("the connection to be closed", || hub.counts(CDN).open == 0);
}

#[test]
fn the_least_recently_used_connection_makes_room() {
    let hub = start_hub();
    let nginx = mirror(&hub).http("docker_keepalive 2;").server(&server(&hub, "")).start();
    let ask = |host: &str| {
        lead(&hub, format!("https://{host}/x"));
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "{host}");
    };
    hub.add_host_as("third.example", Kind::Blank);
    for host in [CDN, OTHER, CDN, "third.example", CDN, "third.example"] {
        ask(host);
    }
    assert_eq!((hub.counts(CDN).connections, hub.counts(CDN).open), (1, 1));
    assert_eq!(hub.counts("third.example").connections, 1);
    wait_for("the oldest to be closed", || hub.counts(OTHER).open == 0);
    ask(OTHER);
    assert_eq!(hub.counts(OTHER).connections, 2);
}

#[test]
fn many_clients_at_once_need_no_more_connections_than_clients() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    let url = nginx.url("/v2/x");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(get(&url).send().status, 200);
                }
            });
        }
    });
    let counts = hub.counts(CDN);
    assert_eq!(counts.requests, 200);
    assert!(counts.connections <= 8, "{counts:?}");
    assert!(hub.counts(REGISTRY).connections <= 8, "{:?}", hub.counts(REGISTRY));
}

#[test]
fn a_kept_connection_that_has_ended_costs_no_request() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    for _ in 0..3 {
        ten_times(&nginx, "GET", "closed while idle");
        hub.disconnect(CDN);
    }

    // The CDN closes as the next request arrives: nginx cannot know before it has asked.
    for end in [End::Close, End::Truncate, End::Reset] {
        ten_times(&nginx, "GET", "open");
        hub.on_times(CDN, "/", 1, Fault::Close(end));
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{end:?}: {}", nginx.errors());
    }
}

#[test]
fn records_of_tls_itself_do_not_end_an_idle_connection() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    let pause = Duration::from_millis(30);
    let steps = vec![
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
        Step::Wait(pause),
        Step::KeyUpdate,
        Step::Wait(pause),
        Step::KeyUpdate,
    ];
    hub.on(CDN, "/", Fault::Answer(Reply::Raw(steps)));
    for _ in 0..5 {
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!((answer.status, answer.text().as_str()), (200, "fine"), "{}", nginx.errors());
        std::thread::sleep(3 * pause);
    }
    let counts = hub.counts(CDN);
    assert_eq!((counts.connections, counts.open, counts.requests), (1, 1, 5));
}

#[test]
fn a_worker_that_ends_closes_its_idle_connections() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    lead(&hub, format!("https://{CDN}/x"));
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
    let old = nginx.workers();
    nginx.reload();
    nginx.wait_until_gone(&old);
    wait_for("the connection to be closed", || hub.counts(CDN).open == 0);
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200);
}

// ---- Several addresses

/// Requests one after the other, each over a connection of its own; returns the addresses that
/// nginx asked for each, the CDN's alone.
fn asked_addresses(nginx: &Nginx, requests: usize) -> Vec<String> {
    for _ in 0..requests {
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{}: {}", answer.text(), nginx.errors());
    }
    let logged = || nginx.accesses().lines().count();
    wait_for("the access log", || logged() == requests);
    let lines = nginx.accesses();
    lines.lines().map(|line| line.split_once(" : ").unwrap().1.to_owned()).collect()
}

/// A mirror that keeps no connection and logs `$upstream_addr`.
fn start_without_keepalive(hub: &Hub, parameters: &str) -> Nginx {
    let http = "log_format addresses '$upstream_addr'; docker_keepalive off;";
    let log = "access_log %prefix%/access.log addresses;";
    mirror(hub).http(http).server(&format!("{log} {}", server(hub, parameters))).start()
}

#[test]
fn an_address_that_refuses_is_passed_by_and_goes_last_from_then_on() {
    let hub = start_hub();
    let live = hub.address(CDN).to_string();
    let dead = format!("{}.250", live.rsplit_once('.').unwrap().0);
    hub.resolve_to(CDN, &[&dead, &live]);
    lead(&hub, format!("https://{CDN}/x"));
    let nginx = start_without_keepalive(&hub, "");

    // Which address comes first is the resolver's choice, and changes.
    let asked = asked_addresses(&nginx, 16);
    let over_dead = format!("{dead}:443, {live}:443");
    let only_live = format!("{live}:443");
    assert_eq!(asked.iter().filter(|addresses| **addresses == over_dead).count(), 1, "{asked:?}");
    assert_eq!(asked.iter().filter(|addresses| **addresses == only_live).count(), 15, "{asked:?}");
}

#[test]
fn an_address_that_does_not_answer_costs_one_request_one_second() {
    let hub = start_hub();
    let live = hub.address(CDN).to_string();
    hub.blackhole(OTHER);
    let dead = hub.address(OTHER).to_string();
    hub.resolve_to(CDN, &[&dead, &live]);
    lead(&hub, format!("https://{CDN}/x"));
    let nginx = start_without_keepalive(&hub, "");

    let mut slow = 0;
    for _ in 0..16 {
        let start = Instant::now();
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{}", nginx.errors());
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        slow += usize::from(start.elapsed() > Duration::from_millis(900));
    }
    assert_eq!(slow, 1);
    nginx.wait_for_log("upstream timed out");
}

#[test]
fn both_families_are_asked() {
    let hub = start_hub();
    let v6 = hub.listen_at(CDN, "[::1]:0".parse().unwrap(), true);
    let (port, v4) = (v6.port(), hub.address(CDN).to_string());
    hub.resolve_to(CDN, &[&v4, "::1"]);
    lead(&hub, format!("https://{CDN}:{port}/x"));
    let nginx = start_without_keepalive(&hub, "private=::1");

    // Nothing listens at the IPv4 address's port.
    let asked = asked_addresses(&nginx, 12);
    assert!(asked.iter().all(|addresses| addresses.ends_with(&format!("[::1]:{port}"))));
    assert!(asked.iter().filter(|addresses| addresses.contains(&v4)).count() <= 1, "{asked:?}");
    assert_eq!(hub.last_request(CDN).sni.as_deref(), Some(CDN));

    // Now at the IPv4 address only.
    hub.resolve_to(OTHER, &["::1", &hub.address(OTHER).to_string()]);
    hub.listen(OTHER, 8443, true);
    lead(&hub, format!("https://{OTHER}:8443/x"));
    for _ in 0..6 {
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.status, 200, "{}", nginx.errors());
    }
}

#[test]
fn when_no_address_answers_the_client_is_told_once() {
    let hub = start_hub();
    let network = hub.address(CDN).to_string().rsplit_once('.').unwrap().0.to_owned();
    let dead: Vec<String> = (250..253).map(|number| format!("{network}.{number}")).collect();
    hub.resolve_to(CDN, &dead.iter().map(String::as_str).collect::<Vec<_>>());
    lead(&hub, format!("https://{CDN}/x"));
    let nginx = start(&hub, "");
    for _ in 0..2 {
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(message(&answer, "dead"), format!("{CDN}: could not be connected"));
    }
    let log = nginx.errors();
    for address in dead {
        assert_eq!(log.matches(&format!("upstream: \"https://{address}:443/x\"")).count(), 2);
    }
}

#[test]
fn literal_addresses_of_both_families_are_asked() {
    let hub = start_hub();
    let v6 = hub.listen_at(CDN, "[::1]:0".parse().unwrap(), false);
    let v4 = hub.address(CDN);
    let nginx = mirror(&hub)
        .server(&format!(
            "{} location / {{ proxy_pass http://{}; }}",
            follow(&hub, "private=::1"),
            hub.address(REGISTRY)
        ))
        .start();
    let port = v6.port();
    let cases = [
        ("IPv4", format!("http://{v4}/x"), v4.to_string()),
        ("IPv4 and port", format!("http://{v4}:80/x"), v4.to_string()),
        ("IPv6 and port", format!("http://[::1]:{port}/x"), format!("[::1]:{port}")),
        ("IPv6 at length", format!("http://[0:0::0:1]:{port}/x"), format!("[0:0::0:1]:{port}")),
    ];
    for (name, location, host) in cases {
        lead(&hub, location);
        let answer = get(&nginx.url("/v2/x")).send();
        assert_eq!(answer.text(), format!("{CDN} GET /x\n"), "{name}: {}", nginx.errors());
        assert_eq!(hub.last_request(CDN).header("host"), Some(host.as_str()), "{name}");
    }
}

// ---- Names

#[test]
fn aliases_are_followed_and_truncated_answers_asked_by_tcp() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let address = hub.address(CDN);
    hub.resolve("a.example", Dns::Alias("b.example".to_owned()));
    hub.resolve("b.example", Dns::Alias("c.example".to_owned()));
    hub.resolve("c.example", Dns::Addresses(vec![address.into()]));
    hub.resolve("big.example", Dns::Truncated(vec![address.into()]));
    for name in ["a.example", "big.example"] {
        lead(&hub, format!("https://{name}/x"));
        // The certificate is for another name: that it is looked at shows that the name was found.
        let answer = get(&nginx.url("/v2/x")).send();
        let want = format!("{name}: certificate not valid for this host");
        assert_eq!(message(&answer, name), want);
    }
}

#[test]
fn a_name_is_asked_for_again_when_its_time_to_live_is_over() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let address = hub.address(CDN);
    hub.resolve_for("short.example", Dns::Addresses(vec![address.into()]), 1);
    let ask = |name: &str| {
        lead(&hub, format!("https://{name}/x"));
        let _ = get(&nginx.url("/v2/x")).send();
        hub.queries(name)
    };
    // A and AAAA.
    assert_eq!((ask(CDN), ask("short.example")), (2, 2));
    assert_eq!((ask(CDN), ask("short.example")), (2, 2));
    let mut asked = 0;
    wait_for("another question", || {
        std::thread::sleep(Duration::from_millis(200));
        asked = ask("short.example");
        asked > 2
    });
    assert_eq!((ask(CDN), asked), (2, 4));
}

#[test]
fn the_resolver_of_the_location_is_asked() {
    let hub = start_hub();
    let resolver = format!("resolver {};", hub.resolver());
    let conf = hub.http_conf().replace(&resolver, "resolver 127.0.0.1:1; resolver_timeout 1s;");
    let location = format!("{{ {resolver} proxy_pass https://{REGISTRY}; }}");
    let nginx = Nginx::builder()
        .http(&conf)
        .server(&format!("{} location /v2/location/ {location}", server(&hub, "")))
        .server(&format!("{resolver} {}", server(&hub, "")))
        .start();
    lead(&hub, format!("https://{CDN}/x"));
    assert_eq!(get(&nginx.url_of(0, "/v2/location/x")).send().status, 200, "{}", nginx.errors());
    assert_eq!(get(&nginx.url_of(1, "/v2/x")).send().status, 200, "{}", nginx.errors());
    let answer = get(&nginx.url_of(0, "/v2/x")).send();
    assert!(message(&answer, "http").contains("could not be resolved"), "{}", answer.text());
}

/// The mount namespace of this test has a `resolv.conf` of its own.
#[test]
fn without_a_resolver_the_name_servers_of_resolv_conf_are_asked() {
    const FILE: &str = "TEST_RESOLV_CONF";
    const NAME: &str = "without_a_resolver_the_name_servers_of_resolv_conf_are_asked";
    let Some(file) = std::env::var_os(FILE) else {
        let file = std::env::temp_dir().join(format!("resolv-{}.conf", std::process::id()));
        std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
        let status = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
            .arg(&file)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(FILE, &file)
            .status();
        std::fs::remove_file(&file).unwrap();
        assert!(status.unwrap().success());
        return;
    };

    let hub = start_hub();
    let resolver = format!("resolver {};", hub.resolver());
    let conf = hub.http_conf().replace(&resolver, "");
    // Written in place: the file is mounted.
    let server_line = hub.resolver();
    let address = server_line.split(':').next().unwrap();
    std::fs::write(file, format!("# comment\nsearch example\nnameserver {address}\n")).unwrap();
    let nginx = Nginx::builder().http(&conf).server(&server(&hub, "")).start();
    lead(&hub, format!("https://{CDN}/x"));
    let answer = get(&nginx.url("/v2/x")).send();
    assert_eq!(answer.status, 200, "{}: {}", answer.text(), nginx.errors());
    assert_eq!(hub.queries(CDN), 2);
}

// ---- Clients that leave

type Phase = (&'static str, fn(&Hub), fn(&Hub) -> bool);

/// How to hold a request, and how to know that it is held.
const PHASES: [Phase; 6] = [
    (
        "before the registry answers",
        |hub| hub.on(REGISTRY, "/v2/", Fault::Stall),
        |hub| hub.counts(REGISTRY).requests > 0,
    ),
    (
        "before the name is resolved",
        |hub| hub.resolve(CDN, Dns::Silence),
        |hub| hub.queries(CDN) > 0,
    ),
    (
        "while connecting",
        |hub| hub.blackhole(CDN),
        |hub| {
            std::thread::sleep(Duration::from_millis(100));
            hub.counts(REGISTRY).requests > 0
        },
    ),
    ("in the TLS handshake", |hub| hub.mute(CDN), |hub| hub.counts(CDN).connections > 0),
    ("before the header", |hub| hub.on(CDN, "/", Fault::Stall), |hub| hub.counts(CDN).requests > 0),
    (
        "within the body",
        |hub| {
            let body = Response::text(200, "b".repeat(100_000)).shape(Shape::StallBody(50_000));
            hub.on(CDN, "/", Fault::Answer(body.into()));
        },
        |hub| hub.counts(CDN).requests > 0,
    ),
];

fn leaves(&(name, hold, is_held): &Phase, http2: bool, reset: bool) {
    let hub = start_hub();
    let own = server(&hub, "");
    let nginx = mirror(&hub).server(&own).h2c_server(&own).start();
    lead(&hub, format!("https://{CDN}/x"));
    hold(&hub);
    let name = format!("{name}, HTTP/2: {http2}, reset: {reset}");

    let workers = nginx.workers();
    if http2 {
        let request = get(&nginx.url_of(1, "/v2/x")).http2().patience(Duration::from_millis(500));
        assert!(request.try_send().is_err(), "{name}");
        assert!(is_held(&hub), "{name}");
    } else {
        let request = get(&nginx.url("/v2/x"));
        let mut connection = Connection::open(&request).unwrap();
        connection.start(&request).unwrap();
        wait_for(&name, || is_held(&hub));
        if reset {
            connection.reset();
        }
    }
    wait_for(&format!("the access log, {name}"), || nginx.accesses().lines().count() == 1);
    let log = nginx.accesses();
    let is_body = name.starts_with("within the body");
    assert!(log.contains(if is_body { " 200 " } else { " 499 " }), "{name}: {log}");
    wait_for(&format!("the CDN's connection to close, {name}"), || hub.counts(CDN).open == 0);

    hub.accept(CDN);
    hub.off(CDN);
    hub.off(REGISTRY);
    // The name that is not resolved yet is still being asked for.
    lead(&hub, format!("https://{OTHER}/x"));
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 200, "{name}");
    assert_eq!(nginx.workers(), workers, "{name}");
}

#[test]
fn a_client_may_leave_in_every_phase() {
    std::thread::scope(|scope| {
        for (http2, reset) in [(false, false), (false, true), (true, false)] {
            scope.spawn(move || PHASES.iter().for_each(|phase| leaves(phase, http2, reset)));
        }
    });
}

#[test]
fn a_name_that_is_resolved_after_the_client_has_left_does_no_harm() {
    let hub = start_hub();
    let conf = hub.http_conf() + "resolver_timeout 1s;";
    let nginx = Nginx::builder().http(&conf).server(&server(&hub, "")).start();
    hub.resolve(CDN, Dns::Silence);
    lead(&hub, format!("https://{CDN}/x"));
    let request = get(&nginx.url("/v2/x"));
    let mut leaving = Connection::open(&request).unwrap();
    leaving.start(&request).unwrap();
    wait_for("the question", || hub.queries(CDN) > 0);
    let mut staying = Connection::open(&request).unwrap();
    staying.start(&request).unwrap();
    drop(leaving);
    wait_for("the access log", || nginx.accesses().contains(" 499 "));
    let answer = staying.answer("GET").unwrap();
    assert!(message(&answer, "staying").contains("could not be resolved"), "{}", answer.text());
}

// ---- What is logged

#[test]
fn variables_say_who_answered_and_how_many_redirects_were_followed() {
    let hub = start_hub();
    let format = "log_format own '$uri host=$docker_origin_host redirects=$docker_redirects \
                  fallback=$docker_fallback status=$status upstream=$upstream_status';";
    let nginx = mirror(&hub)
        .http(format)
        .server(&format!(
            "access_log %prefix%/access.log own;
             location = /none {{ return 200; }}
             location = /static {{ root %prefix%; }}
             {}",
            server(&hub, "")
        ))
        .start();
    hub.on(REGISTRY, "/v2/plain", Fault::Answer(Response::text(200, "plain").into()));
    let to = |path: &str, location: String| hub.on(REGISTRY, path, Fault::redirect(302, location));
    to("/v2/one", format!("https://{CDN}/x"));
    to("/v2/port", format!("https://{CDN}:8443/x"));
    hub.listen(CDN, 8443, true);
    to("/v2/relative", "/v2/plain".to_owned());
    to("/v2/refused", format!("http://{CDN}/x"));
    to("/v2/dead", format!("https://{}.250/x", network(&hub)));
    to("/v2/unknown", "https://nowhere.example/x".to_owned());
    let chain = hub.chain(&[REGISTRY, CDN, OTHER], 3, 307, &format!("https://{CDN}/x"));
    let cases = [
        ("/none", "- redirects=0", "200 upstream=-"),
        ("/static", "- redirects=0", "404 upstream=-"),
        ("/v2/plain", "registry-1.docker.io redirects=0", "200 upstream=200"),
        ("/v2/one", "cdn.example redirects=1", "200 upstream=302 : 200"),
        ("/v2/port", "cdn.example redirects=1", "200 upstream=302 : 200"),
        ("/v2/relative", "registry-1.docker.io redirects=1", "200 upstream=302 : 200"),
        (&chain, "cdn.example redirects=3", "200 upstream=307 : 307 : 307 : 200"),
        ("/v2/refused", "registry-1.docker.io redirects=0", "502 upstream=302"),
        ("/v2/dead", "registry-1.docker.io redirects=1", "502 upstream=302 : 502"),
        ("/v2/unknown", "registry-1.docker.io redirects=1", "502 upstream=302, 502"),
    ];
    for (number, (target, host, status)) in cases.into_iter().enumerate() {
        let _ = get(&nginx.url(target)).send();
        wait_for("the access log", || nginx.accesses().lines().count() > number);
        let want = format!("{target} host={host} fallback= status={status}");
        let log = nginx.accesses();
        assert_eq!(log.lines().last(), Some(want.as_str()), "{}", nginx.errors());
    }
}

fn network(hub: &Hub) -> String {
    hub.address(CDN).to_string().rsplit_once('.').unwrap().0.to_owned()
}

#[test]
fn no_query_no_token_and_no_password_is_logged() {
    let hub = start_hub();
    let nginx = mirror(&hub).http(IMPATIENT).server(&server(&hub, "hops=2")).start();
    let befallen: [(&str, fn(&Hub)); 12] = [
        ("nothing", |_| {}),
        ("403", |hub| hub.on(CDN, "/", Fault::Status(403))),
        ("closed", |hub| hub.on(CDN, "/", Fault::Close(End::Close))),
        ("cut", |hub| hub.on(CDN, "/", Fault::Shape(Shape::CutBody(3, End::Close)))),
        ("stalled body", |hub| hub.on(CDN, "/", Fault::Shape(Shape::StallBody(3)))),
        ("no answer", |hub| hub.on(CDN, "/", Fault::Stall)),
        ("invalid header", |hub| hub.on(CDN, "/", Fault::raw("HTTP/1.1 200 OK\r\nx\r\n\r\n"))),
        ("wrong certificate", |hub| {
            hub.certificate(CDN, Certificate::WrongName);
            hub.disconnect(CDN);
        }),
        ("a further redirect", |hub| {
            hub.certificate(CDN, Certificate::Good);
            hub.on(CDN, "/", Fault::redirect(302, "/y?SECRET-again"));
        }),
        ("a password", |hub| {
            lead(hub, "https://user:SECRET-password@cdn.example/x?SECRET-signature");
        }),
        ("downgrade", |hub| lead(hub, "http://cdn.example/x?SECRET-signature")),
        ("garbage", |hub| lead(hub, "https://cdn.example/x?SECRET-sign ature")),
    ];
    lead(&hub, format!("https://{CDN}/x?SECRET-signature"));
    for (name, befall) in befallen.into_iter().chain([
        ("refused", (|hub| hub.refuse(CDN)) as fn(&Hub)),
        ("unknown name", |hub| lead(hub, "https://nowhere.example/x?SECRET-signature")),
        ("inside", |hub| lead(hub, "https://10.0.0.1/x?SECRET-signature")),
    ]) {
        hub.off(CDN);
        befall(&hub);
        let request = get(&nginx.url("/v2/x")).bearer("SECRET-token");
        let answer = request.header("Cookie", "a=SECRET-cookie").try_send();
        if let Ok(answer) = answer {
            let text = answer.text();
            assert!(name == "nothing" || !text.contains("SECRET"), "{name}: {text}");
        }
        let log = nginx.errors() + &nginx.accesses();
        let line = log.lines().find(|line| line.contains("SECRET"));
        assert_eq!(line, None, "{name}");
    }
    assert!(nginx.errors().contains("/x\""), "URLs are logged all the same: {}", nginx.errors());
}

// ---- Where the directive acts

#[test]
fn what_a_location_inherits_acts_on_the_registrys_api_alone() {
    let hub = start_hub();
    let to = format!("https://{CDN}/end");
    hub.on(REGISTRY, "/", Fault::redirect(302, &to));
    let follow = follow(&hub, "");
    let pass = format!("proxy_pass https://{REGISTRY};");
    let body = format!(
        "location / {{ {pass} }}
         location /mapped/ {{ proxy_pass https://{REGISTRY}/v2/; }}
         location /rewritten/ {{ rewrite ^/rewritten/(.*) /v2/$1 break; {pass} }}
         location /v2/web/ {{ proxy_pass https://{REGISTRY}/web/; }}
         location /v2/off/ {{ docker_follow_redirect off; {pass}
             location /v2/off/nested/ {{ {pass} }}
         }}
         location /own/ {{ {follow} {pass}
             location /own/nested/ {{ {pass} }}
             location /own/nested/v2/ {{ rewrite ^/own/nested(.*) $1 break; {pass} }}
         }}
         location /if/ {{ {follow} if ($arg_if) {{ add_header X-If 1 always; }} {pass} }}
         location /inherited-if/ {{ if ($arg_if) {{ add_header X-If 1 always; }} {pass} }}
         location /except/ {{ {follow} limit_except POST {{ allow all; }} {pass} }}"
    );
    let nginx = mirror(&hub)
        .http(&follow)
        .server(&body)
        .server(&format!("{follow} {body}"))
        .server(&format!("docker_follow_redirect off; {body}"))
        .start();
    // Followed under: http, server, off in the server.
    let cases = [
        ("/", [false, false, false]),
        ("/web/page", [false, false, false]),
        ("/v1/search", [false, false, false]),
        ("/v2", [false, false, false]),
        ("/v2x/", [false, false, false]),
        ("/v2/", [true, true, false]),
        ("/v2/x", [true, true, false]),
        ("/v2/x?a=b", [true, true, false]),
        ("/mapped/x", [true, true, false]),
        ("/rewritten/x", [true, true, false]),
        ("/v2/web/x", [false, false, false]),
        ("/v2/off/x", [false, false, false]),
        ("/v2/off/nested/x", [false, false, false]),
        ("/own/x", [true, true, true]),
        ("/own/nested/x", [false, false, false]),
        ("/own/nested/v2/x", [true, true, true]),
        ("/if/x", [true, true, true]),
        ("/if/x?if=1", [true, true, true]),
        ("/inherited-if/x?if=1", [false, false, false]),
        ("/except/x", [true, true, true]),
    ];

    for (target, followed) in cases {
        for (server, followed) in followed.into_iter().enumerate() {
            let answer = get(&nginx.url_of(server, target)).send();
            let name = format!("{target}, server {server}: {}", nginx.errors());
            if followed {
                assert_eq!(answer.text(), format!("{CDN} GET /end\n"), "{name}");
            } else {
                assert_eq!(answer.status, 302, "{name}");
                assert_eq!(answer.header("location"), Some(to.as_str()), "{name}");
            }
        }
    }
}

#[test]
fn without_the_directive_redirects_reach_the_client() {
    let hub = start_hub();
    let nginx =
        mirror(&hub).server(&format!("location / {{ proxy_pass https://{REGISTRY}; }}")).start();
    lead(&hub, format!("https://{CDN}/x"));
    let answer = get(&nginx.url("/v2/x")).send();
    assert_eq!(answer.status, 307);
    assert_eq!(hub.counts(CDN).connections, 0);
}
