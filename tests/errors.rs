//! `docker_errors`: clients get a registry's errors, in words for the person who pulls.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::time::Duration;

use support::{
    Answer, CLOUDFLARE, Connection, End, Fault, Framing, Hub, Nginx, NginxBuilder, REGISTRY, Reply,
    Response, Shape, Step, everything, get, head, request,
};

const MANIFEST: &str = "/v2/library/x/manifests/latest";
const PAGE: &str = "<html><body><h1>Go away</h1> 192.0.2.1</body></html>";

/// A hub without authentication, with an image.
fn hub() -> Hub {
    Hub::with_mirrors(&[])
}

fn mirror(hub: &Hub) -> NginxBuilder {
    let timeout = Nginx::time(1);
    Nginx::builder().http(&hub.http_conf()).http(&format!(
        "proxy_connect_timeout {timeout}s; proxy_read_timeout {timeout}s;
         proxy_buffer_size 64k; proxy_buffers 4 64k;"
    ))
}

/// Code and message of the registry error that the answer is, whose body is framed as it should be.
#[track_caller]
fn error(answer: &Answer) -> (String, String) {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
    assert!(answer.complete, "{:?}", answer.problem);
    assert!(matches!(answer.framing, Framing::Length(_)), "{:?}", answer.framing);
    for name in ["etag", "last-modified", "accept-ranges", "content-encoding"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let json = answer.json();
    let error = &json["errors"][0];
    (error["code"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
}

#[track_caller]
fn assert_error(answer: &Answer, status: u16, code: &str, message: &str, name: &str) {
    assert_eq!(answer.status, status, "{name}: {}", answer.text());
    assert_eq!(error(answer), (code.to_owned(), message.to_owned()), "{name}");
}

/// The answer is the page that somebody else wrote.
#[track_caller]
fn assert_page(answer: &Answer, status: u16, name: &str) {
    assert_eq!(answer.status, status, "{name}");
    assert!(answer.text().to_lowercase().contains("<html>"), "{name}: {}", answer.text());
    assert!(answer.header("content-type").unwrap().starts_with("text/html"), "{name}");
}

// nginx's own errors.

/// Locations where nginx answers with an error of its own.
const OWN: &str = "docker_realm_rewrite on;
    client_max_body_size 1k;
    limit_req_status 429; limit_req_log_level info;
    location /v2/denied/ { deny all; }
    location /v2/missing/ { root %prefix%/nothing; }
    location /v2/returned/403/ { return 403; }
    location /v2/returned/404/ { return 404; }
    location /v2/returned/429/ { return 429; }
    location /v2/returned/451/ { return 451; }
    location /v2/returned/500/ { return 500; }
    location /v2/returned/503/ { return 503; }
    location /v2/password/ { auth_basic mirror; auth_basic_user_file %prefix%/none; }
    location /v2/limited/ { limit_req zone=one; }
    location /v2/methods/ { limit_except GET { deny all; } }
    location /v2/file/ { alias %prefix%/; }
    location /v2/internal/ { internal; }";

/// What is asked, and what comes of it.
type Row = (&'static str, u16, &'static str, &'static str);

const ROWS: [Row; 14] = [
    ("/v2/denied/manifests/x", 403, "DENIED", "this mirror denies access"),
    ("/v2/missing/manifests/x", 404, "MANIFEST_UNKNOWN", "this mirror has nothing here"),
    ("/v2/missing/blobs/sha256:0", 404, "BLOB_UNKNOWN", "this mirror has nothing here"),
    ("/v2/missing/tags/list", 404, "NAME_UNKNOWN", "this mirror has nothing here"),
    ("/v2/missing/x", 404, "UNKNOWN", "this mirror has nothing here"),
    ("/v2/returned/403/", 403, "DENIED", "this mirror denies access"),
    ("/v2/returned/404/", 404, "UNKNOWN", "this mirror has nothing here"),
    (
        "/v2/returned/429/",
        429,
        "TOOMANYREQUESTS",
        "too many requests to this mirror, try again later",
    ),
    ("/v2/returned/451/", 451, "UNKNOWN", "this mirror answers with status 451"),
    ("/v2/returned/500/", 500, "UNKNOWN", "this mirror has failed, its error log says why"),
    ("/v2/returned/503/", 503, "UNAVAILABLE", "this mirror is not available now, try again later"),
    ("/v2/password/", 401, "UNAUTHORIZED", "this mirror wants credentials of its own"),
    ("/v2/internal/", 404, "UNKNOWN", "this mirror has nothing here"),
    ("/v2/%zz", 400, "UNKNOWN", "this mirror does not understand the request"),
];

fn own() -> NginxBuilder {
    let zone = "limit_req_zone $server_name zone=one:1m rate=1r/m;";
    let names = "server_name mirror.example.com;";
    Nginx::builder().http(zone).file("none", "").server(&format!("{names}{OWN}")).h2c_server(OWN)
}

#[test]
fn errors_of_nginx_are_those_of_a_registry() {
    let nginx = own().start();
    for (path, status, code, message) in ROWS {
        assert_error(&get(&nginx.url(path)).send(), status, code, message, path);
        let h2 = get(&nginx.url_of(1, path)).http2().send();
        assert_eq!(h2.status, status, "{path}");
        assert_eq!(h2.json()["errors"][0]["message"], message, "{path}");
        assert_eq!(h2.header("content-length"), Some(h2.body.len().to_string().as_str()), "{path}");

        let whole = get(&nginx.url(path)).send();
        for answer in [head(&nginx.url(path)).send(), head(&nginx.url_of(1, path)).http2().send()] {
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}, HEAD");
            for name in ["content-type", "content-length"] {
                assert_eq!(answer.header(name), whole.header(name), "{path}, HEAD, {name}");
            }
        }
    }

    let challenge = get(&nginx.url("/v2/password/")).send();
    assert_eq!(challenge.header("www-authenticate"), Some("Basic realm=\"mirror\""));
    let url = nginx.url("/v2/limited/manifests/x");
    assert_eq!(get(&url).send().status, 404);
    let message = "too many requests to this mirror, try again later";
    assert_error(&get(&url).send(), 429, "TOOMANYREQUESTS", message, "limit_req");
    let post = request("POST", &nginx.url("/v2/methods/x")).send();
    assert_error(&post, 403, "DENIED", "this mirror denies access", "limit_except");
    let post = request("POST", &nginx.url("/v2/file/none")).send();
    let message = "this mirror does not allow the method here";
    assert_error(&post, 405, "UNSUPPORTED", message, "a method that is not allowed");
    let range = get(&nginx.url("/v2/file/error.log")).header("Range", "bytes=9999999-").send();
    assert_error(&range, 416, "UNKNOWN", "this mirror answers with status 416", "a range");
    assert!(range.header("content-range").unwrap().starts_with("bytes */"), "the whole's length");
    let condition = get(&nginx.url("/v2/file/error.log"))
        .header("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")
        .send();
    assert_error(&condition, 412, "UNKNOWN", "this mirror answers with status 412", "a condition");
}

#[test]
fn the_status_line_of_a_5xx_tells_why() {
    let nginx = own().start();
    let answer = get(&nginx.url("/v2/returned/503/")).send();
    let reason = "Service Unavailable (this mirror is not available now, try again later)";
    assert_eq!(answer.reason, reason);
    assert_eq!(get(&nginx.url("/v2/returned/404/")).send().reason, "Not Found");
}

/// Sends these bytes, and reads what nginx answers.
fn raw(nginx: &Nginx, bytes: &str) -> Answer {
    let mut connection = Connection::open(&get(&nginx.url("/"))).unwrap();
    connection.write(bytes.as_bytes()).unwrap();
    connection.answer("GET").unwrap()
}

#[test]
fn requests_that_nginx_cannot_read_get_an_error_too() {
    let nginx = own().start();
    let long = "x".repeat(40_000);
    let bad = "this mirror does not understand the request";
    let too_long = "the URI is longer than this mirror accepts";
    let rows = [
        ("no Host", "GET /v2/ HTTP/1.1\r\n\r\n".to_owned(), 400, bad),
        ("two Hosts", "GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400, bad),
        ("bad Host", "GET /v2/ HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(), 400, bad),
        ("absolute", "GET http://a/v2/%zz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, bad),
        ("a control character", "GET /v2/\u{1} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, bad),
        ("escape", "GET /v2/../.. HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, bad),
        ("no version", "GET /v2/x HTTPS\r\n\r\n".to_owned(), 400, bad),
        ("large header", format!("GET /v2/ HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 400, bad),
        ("long URI", format!("GET /v2/{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, too_long),
        (
            "unknown version",
            "GET /v2/ HTTP/9.1\r\nHost: a\r\n\r\n".to_owned(),
            505,
            "this mirror answers with status 505",
        ),
    ];
    for (name, bytes, status, message) in rows {
        assert_error(&raw(&nginx, &bytes), status, "UNKNOWN", message, name);
        assert_page(&raw(&nginx, &bytes.replace("/v2/", "/v3/")), status, name);
    }
    assert_page(&raw(&nginx, "GE\u{1}T /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "no method");
    assert_page(&raw(&nginx, "GET v2/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "no path");
}

#[test]
fn a_body_that_nobody_reads_does_not_break_the_connection() {
    let nginx = own().start();
    let mut connection = Connection::open(&get(&nginx.url("/"))).unwrap();
    let body = "x".repeat(900);
    let put = request("PUT", &nginx.url("/v2/denied/manifests/x")).body(&body);
    for _ in 0..3 {
        let answer = connection.send(&put).unwrap();
        assert_error(&answer, 403, "DENIED", "this mirror denies access", "a body that is refused");
        let answer = connection.send(&get(&nginx.url("/v2/missing/x"))).unwrap();
        assert_error(&answer, 404, "UNKNOWN", "this mirror has nothing here", "after it");
    }
    // nginx itself closes after these.
    let large = request("PUT", &nginx.url("/v2/missing/manifests/x")).body("x".repeat(2000));
    let answer = connection.send(&large).unwrap();
    let message = "the body is larger than this mirror accepts";
    assert_error(&answer, 413, "SIZE_INVALID", message, "a body that is too large");
    assert!(connection.closes(Duration::from_secs(5)));
}

#[test]
fn only_the_registrys_api_has_its_errors_unless_a_location_says_so() {
    let nginx = Nginx::builder()
        .server(
            "docker_realm_rewrite on;
             location /own/ { docker_errors on; return 404; }
             location /own/inner/ { docker_errors on; location /own/inner/most/ { return 404; } }
             location /v2/off/ { docker_errors off; return 404; }
             location /v2/text/ { return 404 'nothing'; }
             location /v2/html/ { default_type text/html; return 404 '<html>mine</html>'; }
             location / { return 404; }",
        )
        .server("location / { return 404; }")
        .server("docker_errors on; location / { return 404; }")
        .server("docker_errors off; docker_realm_rewrite on; location / { return 404; }")
        .start();
    let at = |server, path| get(&nginx.url_of(server, path)).send();
    let text = "this mirror has nothing here";
    assert_error(&at(0, "/v2/x"), 404, "UNKNOWN", text, "inherited");
    assert_error(&at(0, "/own/x"), 404, "UNKNOWN", text, "its own");
    assert_error(&at(2, "/v2/x"), 404, "UNKNOWN", text, "alone");
    let pages = [
        (0, "/"),
        (0, "/v2"),
        (0, "/own/inner/most/x"),
        (0, "/v2/off/"),
        (0, "/v2/html/"),
        (1, "/v2/x"),
        (2, "/x"),
        (3, "/v2/x"),
    ];
    for (server, path) in pages {
        assert_page(&at(server, path), 404, &format!("{server} {path}"));
    }
    assert_eq!(at(0, "/v2/text/").text(), "nothing");
}

#[test]
fn an_error_page_of_the_users_wins() {
    let page = |name: &str| format!("<html>{name}</html>");
    let nginx = Nginx::builder()
        .file("pages/404.html", &page("a file"))
        .server(
            "docker_realm_rewrite on;
             location = /404.html { root %prefix%/pages; }
             location /v2/file/ { error_page 404 /404.html; return 404; }
             location /v2/named/ { error_page 404 @named; return 404; }
             location @named { default_type text/html; return 404 '<html>named</html>'; }
             location /v2/other/ { error_page 404 =403 @named; return 404; }
             location /v2/empty/ { error_page 404 = @empty; return 404; }
             location @empty { return 204; }
             location /v2/elsewhere/ { error_page 404 https://example.com/; return 404; }
             location /v2/passed/ { error_page 404 = @passed; return 404; }
             location @passed { return 403; }
             location /v2/others/ { error_page 403 /404.html; return 404; }
             location /v2/proxied/ { error_page 404 = /proxied; return 404; }
             location = /proxied { proxy_pass http://127.0.0.1:$server_port/page; }
             location = /page { default_type text/html; return 404 '<html>proxied</html>'; }",
        )
        .start();
    let at = |path| get(&nginx.url(path)).send();
    assert_page(&at("/v2/file/"), 404, "a file");
    assert!(at("/v2/file/").header("etag").is_some(), "the file's own");
    assert_page(&at("/v2/named/"), 404, "a named location");
    assert_page(&at("/v2/other/"), 403, "another status");
    assert_eq!(at("/v2/empty/").status, 204);
    assert_eq!(at("/v2/elsewhere/").status, 302);
    assert_page(&at("/v2/proxied/"), 404, "proxied");
    let text = "this mirror denies access";
    assert_error(&at("/v2/passed/"), 403, "DENIED", text, "an error of its own");
    let text = "this mirror has nothing here";
    assert_error(&at("/v2/others/"), 404, "UNKNOWN", text, "a page for another status");
}

// Upstreams that give no answer.

#[test]
fn a_registry_that_fails_is_named_with_the_reason() {
    let hub = hub();
    hub.resolve("gone.example", support::Dns::NxDomain);
    let locations = format!(
        "location /v2/ {{ proxy_pass https://{REGISTRY}; }}
         location ~ ^/gone(?<path>/v2/.*) {{ proxy_pass https://gone.example$path; }}
         location /prefix/v2/ {{ proxy_pass https://{REGISTRY}/v2/; }}
         location /token {{ proxy_pass https://{REGISTRY}; }}"
    );
    let nginx = mirror(&hub)
        .server(&format!("docker_realm_rewrite on; {locations}"))
        .server(&format!("docker_follow_redirect on; {locations}"))
        .start();
    let large = Response::text(200, "x").header("X-Large", "x".repeat(70_000));
    let troubles: [(&str, &dyn Fn(), u16, &str); 8] = [
        ("refused", &|| hub.refuse(REGISTRY), 502, "could not be connected"),
        ("no connection", &|| hub.blackhole(REGISTRY), 504, "connect timed out"),
        ("no handshake", &|| hub.mute(REGISTRY), 504, "connect timed out"),
        ("silence", &|| hub.on(REGISTRY, "/", Fault::Stall), 504, "timed out"),
        (
            "closed",
            &|| hub.on(REGISTRY, "/", Fault::Close(End::Close)),
            502,
            "closed the connection without an answer",
        ),
        (
            "cut",
            &|| hub.on(REGISTRY, "/", Fault::Shape(Shape::CutHead(40, End::Close))),
            502,
            "sent an invalid header",
        ),
        (
            "too large",
            &|| hub.on(REGISTRY, "/", Fault::Answer(large.clone().into())),
            502,
            "sent an invalid header",
        ),
        (
            "certificate",
            &|| hub.certificate(REGISTRY, support::Certificate::WrongName),
            502,
            "could not be connected",
        ),
    ];
    for (name, cause, status, reason) in troubles {
        cause();
        let message = format!("registry {REGISTRY}: {reason}");
        for server in [0, 1] {
            let name = format!("{name}, {server}");
            let answer = get(&nginx.url_of(server, MANIFEST)).send();
            assert_error(&answer, status, "UNAVAILABLE", &message, &name);
            assert!(answer.reason.ends_with(&format!(" ({message})")), "{}", answer.reason);
            if reason != "could not be connected" {
                continue;
            }
            let answer = get(&nginx.url_of(server, &format!("/prefix{MANIFEST}"))).send();
            assert_error(&answer, status, "UNAVAILABLE", &message, &name);
            assert_page(&get(&nginx.url_of(server, "/token")).send(), status, &name);
            let answer = head(&nginx.url_of(server, MANIFEST)).send();
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{name}");
            assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
        }
        hub.reset();
        hub.certificate(REGISTRY, support::Certificate::Good);
        hub.accept(REGISTRY);
    }
    let answer = get(&nginx.url(&format!("/gone{MANIFEST}"))).send();
    let message = "registry gone.example: could not be resolved";
    assert_error(&answer, 502, "UNAVAILABLE", message, "no such name");
}

// Upstreams whose error is for a browser.

/// Answers of an upstream that are no registry's: a name, and the answer.
/// nginx has made an upstream by then, and given it no settings.
#[test]
fn a_proxy_pass_that_names_nobody_fails_as_a_registry_does() {
    let hub = hub();
    let nginx = everything(&hub, "https://192.0.2.1")
        .server(
            "set $nobody '';
             docker_realm_rewrite on; docker_follow_redirect on; docker_fallback https://192.0.2.1;
             docker_breaker on; docker_resume on; docker_verify on;
             docker_manifest_cache zone=docker;
             access_log %prefix%/access.log everything;
             location / { proxy_pass $nobody; }",
        )
        .start();
    for path in [MANIFEST, "/v2/", "/v2/library/x/blobs/sha256:0", "/token"] {
        let answer = get(&nginx.url_of(3, path)).send();
        let message = "this mirror has failed, its error log says why";
        if path == "/token" {
            assert_page(&answer, 500, path);
        } else {
            assert_error(&answer, 500, "UNKNOWN", message, path);
        }
    }
}

fn pages() -> Vec<(&'static str, Reply)> {
    let page = |status| Response::new(status).header("Content-Type", "text/html").body(PAGE);
    let huge = "x".repeat(10_000_000);
    let endless =
        "HTTP/1.1 503 No\r\nContent-Type: text/html\r\nContent-Length: 9999999999\r\n\r\n";
    vec![
        ("HTML", page(503).into()),
        ("with a charset", {
            let page = Response::new(503).body(PAGE);
            page.header("Content-Type", "text/html; charset=utf-8").into()
        }),
        ("XML", {
            let xml = Response::new(503).header("Content-Type", "application/xml");
            xml.body("<Error><Code>AccessDenied</Code></Error>").into()
        }),
        ("compressed", page(503).header("Content-Encoding", "gzip").body(b"\x1f\x8b?").into()),
        ("chunked", page(503).chunked(7).into()),
        ("with all sorts of headers", {
            let page = page(503).header("ETag", "\"1\"").header("Accept-Ranges", "bytes");
            page.header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT").into()
        }),
        ("huge", page(503).body(&huge).into()),
        ("cut", page(503).body(&huge).shape(Shape::CutBody(50, End::Reset)).into()),
        ("slow", page(503).shape(Shape::PauseBody(5, Duration::from_millis(500))).into()),
        ("until the end", {
            let end = Step::End(End::Close);
            let head = "HTTP/1.1 503 No\r\nContent-Type: text/html\r\n\r\n<html>";
            Reply::Raw(vec![Step::send(head), end])
        }),
        ("endless", {
            let mut steps = vec![Step::send(endless)];
            for _ in 0..1000 {
                steps.push(Step::send([b'x'; 100_000]));
            }
            Reply::Raw(steps)
        }),
    ]
}

#[test]
fn a_page_of_the_registrys_becomes_its_error() {
    let hub = hub();
    let location = |more: &str| {
        format!("docker_realm_rewrite on; {more} location / {{ proxy_pass https://{REGISTRY}; }}")
    };
    let fallback = "docker_follow_redirect on; docker_fallback https://127.0.0.1:1;
                    docker_fallback_on timeout;";
    let nginx = mirror(&hub)
        .server(&location(""))
        .server(&location("proxy_buffering off;"))
        .server(&location(fallback))
        .h2c_server(&location(""))
        .start();
    let message = format!("registry {REGISTRY}: 503 Service Unavailable");

    for (name, reply) in pages() {
        hub.route(REGISTRY, move |request| match (request.method.as_str(), &reply) {
            ("HEAD", _) => Response::new(503).header("Content-Type", "text/html").into(),
            _ => reply.clone(),
        });
        for server in [0, 1, 2] {
            let name = format!("{name}, {server}");
            let url = nginx.url_of(server, MANIFEST);
            let mut connection = Connection::open(&get(&url)).unwrap();
            for _ in 0..2 {
                let answer = connection.send(&get(&url)).unwrap();
                assert_error(&answer, 503, "UNAVAILABLE", &message, &name);
                assert_eq!(answer.reason, format!("Service Unavailable ({message})"), "{name}");
                let answer = connection.send(&head(&url)).unwrap();
                assert_eq!((answer.status, answer.body.len()), (503, 0), "{name}");
                assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
            }
        }
        let h2 = get(&nginx.url_of(3, MANIFEST)).http2().send();
        assert_eq!(h2.json()["errors"][0]["message"], message.as_str(), "{name}, HTTP/2");
    }
}

#[test]
fn what_an_error_says_besides_its_body_stays() {
    let hub = hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_realm_rewrite https://mirror.example.com;
             gzip on; gzip_min_length 1; gzip_types application/json;
             add_header X-Mirror yes always;
             location / {{ proxy_pass https://{REGISTRY}; }}"
        ))
        .start();
    let html = |status| Response::new(status).header("Content-Type", "text/html").body(PAGE);
    let limited = html(429)
        .header("Retry-After", "60")
        .header("RateLimit-Limit", "100;w=21600")
        .header("RateLimit-Remaining", "0;w=21600")
        .header("Docker-RateLimit-Source", "192.0.2.1");
    hub.on(REGISTRY, "/", Fault::Answer(limited.into()));
    let answer = get(&nginx.url(MANIFEST)).send();
    let message = format!("registry {REGISTRY}: 429 Too Many Requests");
    assert_error(&answer, 429, "TOOMANYREQUESTS", &message, "a limit");
    let kept = [
        ("retry-after", "60"),
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", "0;w=21600"),
        ("docker-ratelimit-source", "192.0.2.1"),
        ("x-mirror", "yes"),
    ];
    for (name, value) in kept {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }

    hub.on(REGISTRY, "/", Fault::Answer(html(403).header("Content-Encoding", "br").into()));
    let mut connection = Connection::open(&get(&nginx.url(MANIFEST))).unwrap();
    for encoding in [None, Some("gzip"), None] {
        let ask = get(&nginx.url(MANIFEST)).header("Accept-Encoding", encoding.unwrap_or("x"));
        let answer = connection.send(&ask).unwrap();
        assert_eq!((answer.status, answer.header("content-encoding")), (403, encoding));
        assert!(answer.complete && answer.body.starts_with(b"{") == encoding.is_none());
    }

    let challenge = "Bearer realm=\"https://auth.docker.io/token\",service=\"x\"";
    hub.on(REGISTRY, "/", Fault::Answer(html(401).header("WWW-Authenticate", challenge).into()));
    let answer = get(&nginx.url(MANIFEST)).send();
    assert_error(
        &answer,
        401,
        "UNAUTHORIZED",
        &format!("registry {REGISTRY}: 401 Unauthorized"),
        "a challenge",
    );
    let rewritten = challenge.replace("auth.docker.io", "mirror.example.com");
    assert_eq!(answer.header("www-authenticate"), Some(rewritten.as_str()));
}

#[test]
fn errors_that_are_a_registrys_or_text_stay_as_they_are() {
    let hub = hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_realm_rewrite on; location / {{ proxy_pass https://{REGISTRY}; }}"
        ))
        .start();
    let answers = [
        Response::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        Response::error(503, "UNAVAILABLE", "later"),
        Response::error(401, "UNAUTHORIZED", "authentication required"),
        Response::text(429, "Too Many Requests (HAP429).\n"),
        Response::new(404),
        Response::new(200).header("Content-Type", "text/html").body(PAGE),
        Response::new(302).header("Content-Type", "text/html").body(PAGE),
    ];
    for response in answers {
        let whole = response.clone().header("ETag", "\"1\"").header("X-Kept", "yes");
        hub.on(REGISTRY, "/", Fault::Answer(whole.into()));
        let through = get(&nginx.url(MANIFEST)).send();
        assert_eq!(through.header("x-kept"), Some("yes"));
        assert_eq!(through.header("etag"), Some("\"1\""));
        let json = through.header("content-type") == Some("application/json");
        assert!(!json || through.text().contains("errors"), "{}", through.text());
        assert!(!through.text().contains(REGISTRY), "{}", through.text());
    }
    hub.on(REGISTRY, "/", {
        let page = Response::new(404).header("Content-Type", "text/html").body(PAGE);
        Fault::Answer(page.into())
    });
    assert_page(&get(&nginx.url("/elsewhere")).send(), 404, "no registry's API");
}

#[test]
fn a_page_of_the_cdns_names_the_cdn() {
    let hub = hub();
    let image = hub.add_image("library/y", "latest", &[b"y"]);
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_follow_redirect on private={};
             location / {{ proxy_pass https://{REGISTRY}; }}",
            hub.network()
        ))
        .start();
    let url = nginx.url(&format!("/v2/library/y/blobs/{}", image.layers[0]));
    for status in [403, 404, 500] {
        let xml = Response::new(status).header("Content-Type", "application/xml");
        let xml = xml.body("<Error><StringToSign>secret</StringToSign></Error>");
        hub.on(CLOUDFLARE, "/", Fault::Answer(xml.into()));
        let mut connection = Connection::open(&get(&url)).unwrap();
        let (code, phrase) = match status {
            403 => ("DENIED", "Forbidden"),
            404 => ("BLOB_UNKNOWN", "Not Found"),
            _ => ("UNKNOWN", "Internal Server Error"),
        };
        let message = format!("CDN {CLOUDFLARE}: {status} {phrase}");
        for _ in 0..3 {
            assert_error(&connection.send(&get(&url)).unwrap(), status, code, &message, "XML");
        }
    }
    // Small pages are read with their header, and leave nothing in the connection.
    assert_eq!(hub.counts(CLOUDFLARE).connections, 1);
    hub.reset();
    assert_eq!(get(&url).send().status, 200);

    hub.refuse(CLOUDFLARE);
    let message = format!("CDN {CLOUDFLARE}: could not be connected");
    assert_error(&get(&url).send(), 502, "UNAVAILABLE", &message, "refused");
}

#[test]
fn a_page_out_of_the_cache_becomes_an_error_as_well() {
    let hub = hub();
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=one:1m;")
        .server(&format!(
            "proxy_cache one; proxy_cache_valid any 1m; docker_realm_rewrite on;
             add_header X-Cache $upstream_cache_status always;
             location / {{ proxy_pass https://{REGISTRY}; }}"
        ))
        .start();
    let page = Response::new(404).header("Content-Type", "text/html").body(PAGE);
    hub.on(REGISTRY, "/", Fault::Answer(page.into()));
    let message = format!("registry {REGISTRY}: 404 Not Found");
    let mut connection = Connection::open(&get(&nginx.url(MANIFEST))).unwrap();
    for cache in ["MISS", "HIT", "HIT"] {
        let answer = connection.send(&get(&nginx.url(MANIFEST))).unwrap();
        assert_error(&answer, 404, "MANIFEST_UNKNOWN", &message, cache);
        assert_eq!(answer.header("x-cache"), Some(cache));
    }
    assert_eq!(hub.counts(REGISTRY).requests, 1);
}

// Warnings.

#[test]
fn who_is_served_by_a_fallback_is_told_so() {
    const FIRST: &str = "first.example";
    const SECOND: &str = "second.example";
    let hub = hub();
    hub.add_host(FIRST);
    hub.add_host(SECOND);
    let image = hub.add_image("library/y", "latest", &[b"y"]);
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_follow_redirect on private={};
             docker_fallback https://{FIRST} https://{SECOND};
             location / {{ proxy_pass https://{REGISTRY}; }}",
            hub.network()
        ))
        .start();
    let warnings = |answer: &Answer| -> Vec<String> {
        answer.all("warning").into_iter().map(str::to_owned).collect()
    };
    let pull = || get(&nginx.url(MANIFEST)).send();
    assert_eq!(warnings(&pull()), [""; 0], "all is well");

    hub.on(REGISTRY, "/", Fault::TooManyRequests);
    let served =
        |why: &str, who: &str| vec![format!("299 - \"answered by fallback {who} ({why})\"")];
    let limited = format!("registry {REGISTRY}: 429 Too Many Requests");
    let answer = pull();
    assert_eq!((answer.status, warnings(&answer)), (200, served(&limited, FIRST)), "limited");
    let answer = head(&nginx.url(MANIFEST)).send();
    assert_eq!((answer.status, warnings(&answer)), (200, served(&limited, FIRST)), "HEAD");

    hub.refuse(FIRST);
    let why = format!("{limited}; fallback {FIRST}: could not be connected");
    assert_eq!(warnings(&pull()), served(&why, SECOND), "the second");

    // Its own redirect is followed, and its own warnings stay, as far as there is room for more.
    let blob = format!("/v2/library/y/blobs/{}", image.layers[0]);
    let signed = hub.signed(CLOUDFLARE, "GET", &image.layers[0]);
    let location = format!("https://{CLOUDFLARE}{signed}");
    hub.on(SECOND, "/", Fault::redirect(307, &location));
    let answer = get(&nginx.url(&blob)).send();
    assert_eq!((answer.status, warnings(&answer)), (200, served(&why, SECOND)), "a redirect");
    for (size, count) in [(10, 2), (4000, 2), (4096, 1), (5000, 1)] {
        let theirs = "x".repeat(size);
        let response = Response::text(200, "").header("Warning", &theirs);
        hub.on(SECOND, "/", Fault::Answer(response.into()));
        let got = warnings(&pull());
        assert_eq!((got.len(), got[0].as_str()), (count, theirs.as_str()), "{size}");
        let all: usize = got.iter().map(String::len).sum();
        assert!(all <= size.max(4096), "{size}: {all}");
    }

    hub.refuse(SECOND);
    let answer = pull();
    assert_eq!((answer.status, warnings(&answer)), (429, vec![]), "nobody serves");
}

#[test]
fn subrequests_keep_their_errors() {
    let hub = hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_realm_rewrite on;
             location = /v2/auth {{ internal; return 403; }}
             location = /v2/page {{ return 404; }}
             location /v2/library/ {{ auth_request /v2/auth; proxy_pass https://{REGISTRY}; }}
             location /v2/mirrored/ {{ mirror /v2/page; return 404; }}"
        ))
        .start();
    let text = "this mirror denies access";
    assert_error(&get(&nginx.url(MANIFEST)).send(), 403, "DENIED", text, "auth_request");
    let text = "this mirror has nothing here";
    assert_error(&get(&nginx.url("/v2/mirrored/")).send(), 404, "UNKNOWN", text, "mirror");
}
