//! What a request may not take along when it leaves its location: the follow location inherits
//! buffers, time-outs, `proxy_bind` and `add_header`, and nothing that could carry something of one
//! origin to another.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::time::Duration;

use support::{
    Answer, Certificate, Connection, Fault, Hub, Kind, Nginx, NginxBuilder, REGISTRY, Response,
    get, request, wait_for,
};

/// Hosts that answer every request with their name, the method and the target.
const CDN: &str = "cdn.example";
const OTHER: &str = "other.example";

/// A registry that asks for no token and leads every request to the CDN.
fn start_hub() -> Hub {
    let hub = Hub::start();
    hub.authentication(false);
    hub.add_host_as(CDN, Kind::Blank);
    hub.add_host_as(OTHER, Kind::Blank);
    lead(&hub, &format!("https://{CDN}/x"));
    hub
}

fn lead(hub: &Hub, location: &str) {
    hub.off(REGISTRY);
    hub.on(REGISTRY, "/v2/", Fault::redirect(307, location));
}

fn mirror(hub: &Hub) -> NginxBuilder {
    Nginx::builder().http(&hub.http_conf())
}

/// A server that follows redirects, with these directives in its only location.
fn server(hub: &Hub, directives: &str) -> String {
    format!(
        "docker_follow_redirect on private={};
         location / {{ {directives} proxy_pass https://{REGISTRY}; }}",
        hub.network()
    )
}

fn start(hub: &Hub, directives: &str) -> Nginx {
    mirror(hub).server(&server(hub, directives)).start()
}

/// What the CDN answers to a GET that was led there.
#[track_caller]
fn served(nginx: &Nginx, answer: &Answer) {
    let text = format!("{CDN} GET /x\n");
    assert_eq!((answer.status, answer.text()), (200, text), "{}", nginx.errors());
}

// ---- Caches and stores

#[test]
fn two_origins_of_one_uri_are_not_mixed_up_in_the_locations_cache() {
    let hub = start_hub();
    let cached = "proxy_cache cache; proxy_cache_valid any 10m; proxy_cache_lock on;
                  proxy_cache_use_stale error timeout updating http_500;
                  add_header X-Cache $upstream_cache_status always;";
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=cache:1m;")
        .server(&server(&hub, cached))
        .start();
    let ask = || get(&nginx.url("/v2/x")).send();
    for host in [CDN, OTHER, CDN] {
        lead(&hub, &format!("https://{host}/x"));
        let answer = ask();
        assert_eq!(answer.text(), format!("{host} GET /x\n"));
        assert_eq!(answer.header("x-cache"), None);
    }
    assert_eq!(hub.counts(REGISTRY).requests, 3, "a redirect is not cached either");

    // The location's own answers are.
    hub.off(REGISTRY);
    hub.on_times(REGISTRY, "/v2/", 1, Fault::Answer(Response::text(200, "own").into()));
    for cache in ["MISS", "HIT"] {
        let answer = ask();
        let got = (answer.status, answer.text(), answer.header("x-cache"));
        assert_eq!(got, (200, "own".to_owned(), Some(cache)));
    }
}

#[test]
fn an_answer_of_another_origin_is_not_stored() {
    let hub = start_hub();
    let nginx = start(&hub, "root %prefix%/stored; proxy_store on;");
    served(&nginx, &get(&nginx.url("/v2/x")).send());
    assert!(!nginx.prefix().join("stored/v2/x").exists());
    hub.off(REGISTRY);
    hub.on(REGISTRY, "/v2/", Fault::Answer(Response::text(200, "own").into()));
    assert_eq!(get(&nginx.url("/v2/x")).send().text(), "own");
    let stored = nginx.prefix().join("stored/v2/x");
    wait_for("the registry's own answer to be stored", || stored.exists());
}

// ---- TLS

#[test]
fn the_client_certificate_stays_with_the_registry() {
    let hub = start_hub();
    let (certificate, key) = hub.authority().issue(&["mirror.example.com"]);
    let identity = format!(
        "proxy_ssl_certificate {}; proxy_ssl_certificate_key {};",
        certificate.display(),
        key.display()
    );
    for host in [REGISTRY, CDN] {
        hub.ask_client_certificate(host);
    }
    for levels in ["location", "server", "http"] {
        let nginx = match levels {
            "location" => start(&hub, &identity),
            "server" => mirror(&hub).server(&format!("{identity} {}", server(&hub, ""))).start(),
            _ => mirror(&hub).http(&identity).server(&server(&hub, "")).start(),
        };
        served(&nginx, &get(&nginx.url("/v2/x")).send());
        assert!(hub.last_request(REGISTRY).client_certificate, "{levels}");
        assert!(!hub.last_request(CDN).client_certificate, "{levels}");
    }
}

#[test]
fn no_session_and_no_connection_is_reused_under_other_tls_settings() {
    let hub = start_hub();
    let follow = format!("docker_follow_redirect on private={}", hub.network());
    let pass = format!("proxy_pass https://{REGISTRY};");
    let (unknown, _) = hub.authority().issue(&["nobody.example"]);
    let nginx = mirror(&hub)
        .server(&format!(
            "location /v2/unchecked/ {{ {follow} verify=off; {pass} }}
             location /v2/checked/ {{ {follow}; {pass} }}
             location /v2/strange/ {{
                 {follow};
                 proxy_ssl_verify off;
                 proxy_ssl_trusted_certificate {};
                 {pass}
             }}",
            unknown.display()
        ))
        .start();
    hub.certificate(CDN, Certificate::UnknownAuthority);
    for _ in 0..2 {
        served(&nginx, &get(&nginx.url("/v2/unchecked/x")).send());
        // The connection of the first location is idle, its session at hand.
        for target in ["/v2/checked/x", "/v2/strange/x"] {
            let answer = get(&nginx.url(target)).send();
            assert_eq!(answer.status, 502, "{target}");
            assert!(answer.text().contains("certificate not valid for this host"), "{target}");
        }
    }
    let counts = hub.counts(CDN);
    assert_eq!((counts.requests, counts.resumed), (2, 0), "{counts:?}");

    // With a certificate that both take, each has its own connection and its own session.
    hub.certificate(CDN, Certificate::Good);
    hub.disconnect(CDN);
    hub.forget();
    for _ in 0..3 {
        for target in ["/v2/unchecked/x", "/v2/checked/x"] {
            served(&nginx, &get(&nginx.url(target)).send());
        }
        hub.disconnect(CDN);
    }
    let counts = hub.counts(CDN);
    assert_eq!((counts.full, counts.resumed), (2, 4), "{counts:?}");
}

#[test]
fn certificates_of_cdns_are_checked_where_the_location_does_not_check_its_own() {
    let hub = start_hub();
    for off in ["proxy_ssl_verify off;", "proxy_ssl_verify off; proxy_ssl_server_name off;"] {
        let nginx = start(&hub, &format!("{off} proxy_ssl_name {CDN};"));
        hub.certificate(CDN, Certificate::Good);
        served(&nginx, &get(&nginx.url("/v2/x")).send());
        assert_eq!(hub.last_request(CDN).sni.as_deref(), Some(CDN));

        hub.certificate(OTHER, Certificate::WrongName);
        lead(&hub, &format!("https://{OTHER}/x"));
        assert_eq!(get(&nginx.url("/v2/x")).send().status, 502, "{off}");
        lead(&hub, &format!("https://{CDN}/x"));
    }
}

// ---- The request

#[test]
fn the_body_of_a_get_goes_to_the_registry_alone() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let poison = "GET /poison HTTP/1.1\r\nHost: cdn.example\r\n\r\n";
    for _ in 0..3 {
        for method in ["GET", "HEAD"] {
            let answer = request(method, &nginx.url("/v2/x")).body(poison).send();
            assert_eq!(answer.status, 200, "{}", nginx.errors());
            assert_eq!(hub.last_request(REGISTRY).body, poison.as_bytes());
            let asked = hub.last_request(CDN);
            assert_eq!(asked.line(), format!("{method} /x"));
            assert_eq!(asked.header("content-length"), None);
            assert_eq!(asked.header("content-type"), None);
            assert_eq!(asked.body, b"");
        }
    }
    assert!(!hub.requests(CDN).iter().any(|request| request.uri == "/poison"));
    assert_eq!((hub.counts(CDN).connections, hub.counts(CDN).requests), (1, 6));
}

#[test]
fn a_chunked_body_of_a_get_goes_to_the_registry_alone() {
    let hub = start_hub();
    let own = server(&hub, "");
    let unbuffered = server(&hub, "proxy_request_buffering off;");
    let nginx = mirror(&hub).server(&own).server(&unbuffered).start();
    for server in [0, 1] {
        let url = nginx.url_of(server, "/v2/x");
        let mut connection = Connection::open(&get(&url)).unwrap();
        for _ in 0..3 {
            let head = "GET /v2/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            connection.write(format!("{head}5\r\nhello\r\n0\r\n\r\n").as_bytes()).unwrap();
            served(&nginx, &connection.answer("GET").unwrap());
            assert_eq!(hub.last_request(REGISTRY).body, b"hello", "{server}");
            let asked = hub.last_request(CDN);
            assert_eq!((asked.header("transfer-encoding"), asked.body.len()), (None, 0));
        }
    }
}

#[test]
fn a_body_that_comes_piece_by_piece_is_not_taken_for_what_was_asked() {
    let hub = start_hub();
    let nginx = start(&hub, "proxy_request_buffering off;");
    hub.on(REGISTRY, "/v2/x", Fault::redirect(307, "/v2/y"));
    hub.on(REGISTRY, "/v2/y", Fault::Answer(Response::text(200, "y").into()));
    for method in ["GET", "HEAD"] {
        let mut connection = Connection::open(&get(&nginx.url("/v2/x"))).unwrap();
        let head = "GET /v2/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = format!("{method} / HTTP/1.1\r\nHost: evil.example\r\nX-Evil: 1\r\n\r\n");
        let first = format!("{:x}\r\n{body}\r\n", body.len());
        let pieces = [head.to_owned(), first.clone(), first, "0\r\n\r\n".to_owned()];
        for piece in pieces {
            connection.write(piece.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(connection.answer("GET").unwrap().text(), "y");
        let asked = hub.last_request(REGISTRY);
        assert_eq!((asked.uri.as_str(), asked.header("host")), ("/v2/y", Some(REGISTRY)));
        assert_eq!(asked.header("x-evil"), None);
    }
}

#[test]
fn headers_method_and_body_that_the_location_sets_stay_with_the_registry() {
    let hub = start_hub();
    let nginx = start(
        &hub,
        "proxy_set_header Connection '';
         proxy_set_header Authorization 'Basic c2VjcmV0';
         proxy_set_header X-Secret $remote_addr;
         proxy_set_header User-Agent mirror;
         proxy_set_body 'of the location';",
    );
    served(&nginx, &get(&nginx.url("/v2/x")).send());
    let asked = hub.last_request(REGISTRY);
    assert_eq!(asked.header("authorization"), Some("Basic c2VjcmV0"));
    assert_eq!(asked.body, b"of the location");
    let asked = hub.last_request(CDN);
    assert_eq!((asked.header("authorization"), asked.header("x-secret")), (None, None));
    assert_eq!(asked.header("content-length"), None);
    assert_eq!(asked.body, b"");
    // What the registry was told of the client's program, the CDN may know.
    assert_eq!(asked.header("user-agent"), Some("mirror"));
}

#[test]
fn set_headers_of_outer_levels_do_not_reach_the_cdn() {
    let hub = start_hub();
    for level in ["http", "server"] {
        let secret = "proxy_set_header Connection ''; proxy_set_header X-Secret 1;
                      proxy_set_header Cookie a=b;";
        let own = server(&hub, "");
        let nginx = match level {
            "server" => mirror(&hub).server(&format!("{secret} {own}")).start(),
            _ => {
                let conf = hub.http_conf().replace("proxy_set_header Connection \"\";", secret);
                Nginx::builder().http(&conf).server(&own).start()
            }
        };
        served(&nginx, &get(&nginx.url("/v2/x")).send());
        assert_eq!(hub.last_request(REGISTRY).header("x-secret"), Some("1"), "{level}");
        let asked = hub.last_request(CDN);
        assert_eq!((asked.header("x-secret"), asked.header("cookie")), (None, None), "{level}");
    }
}

// ---- Phases that ran already

#[test]
fn auth_request_and_mirror_run_once() {
    let hub = start_hub();
    hub.add_host_as("auth.example", Kind::Blank);
    hub.add_host_as("copy.example", Kind::Blank);
    let (auth, copy) = (hub.address("auth.example"), hub.address("copy.example"));
    let nginx = mirror(&hub)
        .server(&format!(
            "{}
             location = /auth {{ internal; proxy_pass http://{auth}; }}
             location = /copy {{ internal; proxy_pass http://{copy}; }}",
            server(&hub, "auth_request /auth; mirror /copy;")
        ))
        .start();
    let chain = hub.chain(&[REGISTRY, CDN, OTHER], 3, 302, &format!("https://{CDN}/x"));
    for number in 1..=3 {
        served(&nginx, &get(&nginx.url(&chain)).send());
        assert_eq!(hub.counts("auth.example").requests, number);
        wait_for("the copy", || hub.counts("copy.example").requests == number);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(hub.counts("copy.example").requests, 3);
}

#[test]
fn redirects_of_subrequests_are_not_followed() {
    let hub = start_hub();
    hub.add_host_as("auth.example", Kind::Blank);
    hub.on("auth.example", "/", Fault::redirect(302, format!("https://{OTHER}/granted")));
    let auth = hub.address("auth.example");
    let follow = format!("docker_follow_redirect on private={};", hub.network());
    let nginx = mirror(&hub)
        .server(&format!(
            "{}
             location = /auth {{ internal; {follow} proxy_pass http://{auth}/v2/; }}",
            server(&hub, "auth_request /auth;")
        ))
        .start();
    let answer = get(&nginx.url("/v2/x")).send();
    assert_eq!(answer.status, 500, "what auth_request makes of a redirect");
    assert_eq!(hub.counts(OTHER).connections, 0);
    assert_eq!(hub.counts(REGISTRY).requests, 0);
}

#[test]
fn a_rate_limit_counts_a_request_once() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .http("limit_req_zone $binary_remote_addr zone=all:1m rate=1r/m;")
        .http("limit_conn_zone $binary_remote_addr zone=conn:1m;")
        .server(&server(&hub, "limit_req zone=all burst=1 nodelay; limit_conn conn 1;"))
        .start();
    for _ in 0..2 {
        served(&nginx, &get(&nginx.url("/v2/x")).send());
    }
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 503);
}

#[test]
fn rewrites_of_server_and_location_do_not_run_again() {
    let hub = start_hub();
    hub.on(CDN, "/x", Fault::Answer(Response::text(200, "cdn.example GET /x\n").into()));
    let nginx = mirror(&hub)
        .server(&format!(
            "set $runs \"$runs+\";
             add_header X-Runs $runs always;
             {}",
            server(&hub, "set $runs \"$runs-\"; rewrite ^/v2/(.*) /v2/again/$1 break;")
        ))
        .start();
    let answer = get(&nginx.url("/v2/x")).send();
    served(&nginx, &answer);
    assert_eq!(hub.last_request(REGISTRY).uri, "/v2/again/x");
    assert_eq!(answer.header("x-runs"), Some("+-"));
}

#[test]
fn access_is_decided_by_the_location_alone() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .file("users", "user:{PLAIN}password\n")
        .server(&server(&hub, "auth_basic mirror; auth_basic_user_file %prefix%/users;"))
        .server(&server(&hub, "deny all;"))
        .start();
    assert_eq!(get(&nginx.url_of(0, "/v2/x")).send().status, 401);
    assert_eq!(get(&nginx.url_of(1, "/v2/x")).send().status, 403);
    assert_eq!(hub.counts(REGISTRY).connections, 0);
    let basic = "Basic dXNlcjpwYXNzd29yZA==";
    served(&nginx, &get(&nginx.url_of(0, "/v2/x")).header("Authorization", basic).send());
    assert_eq!(hub.last_request(CDN).header("authorization"), None);
}

// ---- The answer

/// Lines that speak for the origin that a client asked.
const OF_ORIGIN: [(&str, &str); 5] = [
    ("Set-Cookie", "session=1; Domain=example.com"),
    ("Set-Cookie2", "session=1"),
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
    ("Alt-Svc", "h3=\"evil.example:443\""),
    ("Clear-Site-Data", "\"*\""),
];

fn speaking(status: u16) -> Response {
    OF_ORIGIN.into_iter().fold(Response::text(status, "text"), |response, (name, value)| {
        response.header(name, value)
    })
}

#[test]
fn another_origin_does_not_speak_for_the_mirror() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    for status in [200, 206, 404, 500] {
        let response = speaking(status).header("Set-Cookie", "b=2").header("ETag", "\"e\"");
        hub.on(CDN, "/", Fault::Answer(response.into()));
        for method in ["GET", "HEAD"] {
            let answer = request(method, &nginx.url("/v2/x")).send();
            assert_eq!((answer.status, answer.header("etag")), (status, Some("\"e\"")));
            for (name, _) in OF_ORIGIN {
                assert_eq!(answer.header(name), None, "{method} {status}");
            }
        }
    }
}

#[test]
fn the_challenge_of_another_origin_is_its_failure() {
    const REALM: &str = "Bearer realm=\"https://evil.example/token\",service=\"a\"";
    let hub = Hub::with_mirrors(&[OTHER]);
    hub.add_host_as(CDN, Kind::Blank);
    lead(&hub, &format!("https://{CDN}/x"));
    let nginx = mirror(&hub)
        .server(&server(&hub, ""))
        .server(&server(&hub, "docker_realm_rewrite on;"))
        .server(&server(&hub, "proxy_intercept_errors on; error_page 401 /page;"))
        .server(&server(&hub, &format!("docker_fallback https://{OTHER};")))
        .start();
    for status in [401, 407] {
        let challenge = Response::error(status, "UNAUTHORIZED", "who?")
            .header("WWW-Authenticate", REALM)
            .header("Proxy-Authenticate", "Basic realm=\"a\"");
        hub.on(CDN, "/", Fault::Answer(challenge.into()));
        for server in 0..3 {
            let answer = get(&nginx.url_of(server, "/v2/x")).send();
            assert_eq!(answer.status, 502, "{status}, {server}");
            let text = answer.text();
            assert!(text.contains(&format!("CDN {CDN}: ")), "{text}");
            assert!(text.contains(&status.to_string()), "{text}");
            assert_eq!(answer.header("www-authenticate"), None);
        }
        let answer = get(&nginx.url_of(3, "/v2/library/x/manifests/latest")).send();
        assert_eq!((answer.status, answer.header("x-served-by")), (200, Some(OTHER)), "{status}");
    }
    // Whatever else it comes with.
    for status in [200, 403, 503] {
        let answer = Response::text(status, "text").header("WWW-Authenticate", REALM);
        hub.on(CDN, "/", Fault::Answer(answer.into()));
        for server in 0..3 {
            let answer = get(&nginx.url_of(server, "/v2/x")).send();
            assert_eq!((answer.status, answer.header("www-authenticate")), (status, None));
        }
    }
}

#[test]
fn the_same_origin_goes_on_speaking_for_itself() {
    let hub = start_hub();
    let nginx = start(&hub, "proxy_cookie_domain example.com mirror.example;");
    lead(&hub, "/end");
    hub.on(REGISTRY, "/end", Fault::Answer(speaking(200).into()));
    let answer = get(&nginx.url("/v2/x")).send();
    for (name, value) in OF_ORIGIN {
        assert_eq!(answer.header(name), Some(value), "cookies are not rewritten either");
    }
}

#[test]
fn lines_of_the_redirect_do_not_reach_the_client() {
    let hub = start_hub();
    let nginx = start(&hub, "");
    let redirect = Response::redirect(307, format!("https://{CDN}/x"))
        .header("X-Of-Redirect", "1")
        .header("Set-Cookie", "a=b")
        .header("WWW-Authenticate", "Bearer realm=\"https://a/\"")
        .header("Content-Encoding", "identity")
        .header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        .header("Accept-Ranges", "bytes")
        .header("Expires", "0");
    hub.off(REGISTRY);
    hub.on(REGISTRY, "/v2/", Fault::Answer(redirect.into()));
    let answer = get(&nginx.url("/v2/x")).send();
    served(&nginx, &answer);
    let mut names: Vec<String> =
        answer.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    assert_eq!(names, ["connection", "content-length", "content-type", "date", "server"]);
}

#[test]
fn orders_to_nginx_from_another_origin_are_not_obeyed() {
    let hub = start_hub();
    let nginx = mirror(&hub)
        .file("secret/file", "secret")
        .server(&format!(
            "location /secret/ {{ internal; root %prefix%; }}
             location @named {{ return 200 secret; }}
             {}",
            server(&hub, "")
        ))
        .start();
    let cases = [
        ("X-Accel-Redirect", "/secret/file"),
        ("X-Accel-Redirect", "@named"),
        ("X-Accel-Redirect", "@docker:0"),
        ("X-Accel-Limit-Rate", "1"),
        ("X-Accel-Buffering", "no"),
        ("X-Accel-Charset", "koi8-r"),
        ("X-Accel-Expires", "3600"),
        ("x-accel-anything", "1"),
    ];
    for (name, value) in cases {
        for status in [200, 404] {
            hub.off(CDN);
            let body = format!("{CDN} GET /x\n");
            let response = Response::text(status, body.clone()).header(name, value);
            hub.on(CDN, "/", Fault::Answer(response.into()));
            let request = get(&nginx.url("/v2/x")).patience(Duration::from_secs(5));
            let answer = request.send();
            assert_eq!((answer.status, answer.text()), (status, body), "{name}: {value}");
            assert!(answer.complete, "{name}: {value}");
            assert_eq!(answer.header(name), None, "{name}: {value}");
            let text = answer.header("content-type").unwrap_or_default();
            assert_eq!(text, "text/plain; charset=utf-8", "{name}: {value}");
        }
    }
}

#[test]
fn the_locations_rewriting_of_answers_is_not_applied_to_another_origins() {
    let hub = start_hub();
    let nginx = start(
        &hub,
        "proxy_redirect https://cdn.example/ https://mirror.example/;
         proxy_intercept_errors on;
         error_page 404 =200 @own;
         proxy_force_ranges on;",
    );
    let response = Response::text(201, "made").header("Location", format!("https://{CDN}/made"));
    hub.on(CDN, "/", Fault::Answer(response.into()));
    let answer = get(&nginx.url("/v2/x")).header("Range", "bytes=0-1").send();
    assert_eq!((answer.status, answer.text().as_str()), (201, "made"));
    assert_eq!(answer.header("location"), Some("https://cdn.example/made"));
    hub.on(CDN, "/", Fault::Answer(Response::text(404, "of the CDN").into()));
    let answer = get(&nginx.url("/v2/x")).send();
    assert_eq!((answer.status, answer.text().as_str()), (404, "of the CDN"));
}

// ---- What it does inherit

#[test]
fn headers_that_the_location_adds_and_hides_are_added_and_hidden() {
    let hub = start_hub();
    let response = Response::text(200, format!("{CDN} GET /x\n")).header("X-Amz-Id", "1");
    hub.on(CDN, "/", Fault::Answer(response.into()));
    let nginx = mirror(&hub)
        .server(&format!(
            "add_header X-Server 1 always; {}",
            server(
                &hub,
                "add_header X-Location $upstream_addr always; proxy_hide_header X-Amz-Id;"
            )
        ))
        .server(&format!("add_header X-Server 1 always; expires 1h; {}", server(&hub, "")))
        .start();
    let answer = get(&nginx.url_of(0, "/v2/x")).send();
    served(&nginx, &answer);
    assert_eq!((answer.header("x-server"), answer.header("x-amz-id")), (None, None));
    let addresses = format!("{}:443 : {}:443", hub.address(REGISTRY), hub.address(CDN));
    assert_eq!(answer.header("x-location"), Some(addresses.as_str()));
    let answer = get(&nginx.url_of(1, "/v2/x")).send();
    assert_eq!(answer.header("x-server"), Some("1"));
    assert_eq!(answer.header("cache-control"), Some("max-age=3600"));
}

#[test]
fn the_locations_address_and_time_outs_hold_for_the_cdn() {
    let hub = start_hub();
    let nginx = start(&hub, "proxy_bind 127.0.0.77; proxy_read_timeout 1s;");
    served(&nginx, &get(&nginx.url("/v2/x")).send());
    assert_eq!(hub.last_request(CDN).peer.ip().to_string(), "127.0.0.77");
    hub.on(CDN, "/", Fault::Stall);
    let start = std::time::Instant::now();
    assert_eq!(get(&nginx.url("/v2/x")).send().status, 502);
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn filters_of_the_location_see_the_answer_that_the_client_gets() {
    let hub = start_hub();
    let nginx = start(&hub, "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;");
    let answer = get(&nginx.url("/v2/x")).header("Accept-Encoding", "gzip").send();
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
}
