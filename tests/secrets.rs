//! Logs hold no secret at any level above debug, whatever befalls a request.
//!
//! Each test lets one host of the hub have every fault there is, and each fault meets every kind of
//! credentials that clients send.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use rules::ticket::{Key, Ticket};
use support::{
    AUTH, CLOUDFLARE, Certificate, Dns, End, Fault, Hub, Kind, Nginx, OWN_REGISTRY, REGISTRY,
    Reply, Request, Response, Shape, TOKEN_KEY, everything, get, head, request,
};

const FALLBACK: &str = "fallback.example";
const TOKEN: &str = "/token?service=registry.docker.io&scope=repository:library/x:pull";
const MANIFEST: &str = "/v2/library/x/manifests/latest";

/// `user:SECRET-password`, as Basic has it.
const BASIC: &str = "dXNlcjpTRUNSRVQtcGFzc3dvcmQ=";
/// What no line may hold. The CDN's signatures are in the queries of its URLs.
const SECRETS: [&str; 5] = ["SECRET", BASIC, "verify=", "Signature=", "X-Amz-"];

/// Silence is told by time-outs.
const IMPATIENT: &str = "proxy_connect_timeout 300ms; proxy_read_timeout 300ms; \
                         proxy_send_timeout 300ms; resolver_timeout 300ms;";

#[test]
fn nothing_secret_is_logged_when_the_registry_has_a_fault() {
    each_fault_on(REGISTRY);
}

#[test]
fn nothing_secret_is_logged_when_the_token_server_has_a_fault() {
    each_fault_on(AUTH);
}

#[test]
fn nothing_secret_is_logged_when_the_cdn_has_a_fault() {
    each_fault_on(CLOUDFLARE);
}

#[test]
fn nothing_secret_is_logged_when_registry_and_fallback_have_a_fault() {
    each_fault_on(FALLBACK);
}

fn each_fault_on(host: &str) {
    let hub = Hub::start();
    // Any token is good: those that the hub issues do not say SECRET.
    hub.authentication(false);
    hub.pull_limit(1_000_000);
    hub.add_image("library/x", "latest", &[b"x"]);
    hub.add_host_as(FALLBACK, Kind::Blank);
    let blob = format!("/v2/library/x/blobs/{}", hub.add_blob(vec![7; 100_000]));
    if host == FALLBACK {
        hub.on(REGISTRY, "/", Fault::Status(503));
        hub.on(AUTH, "/", Fault::Status(503));
    }
    // The path may be what lets the fallback know its own.
    let nginx = everything(&hub, &format!("https://{FALLBACK}/SECRET-path"))
        .http(IMPATIENT)
        .log_level("info")
        .start();

    let mut kinds = BTreeSet::new();
    for (name, fault) in faults() {
        kinds.insert(kind(&fault));
        hub.on(host, "/", fault);
        assert_silent(&nginx, &blob, &format!("{host}: {name}"));
        hub.off(host);
        if host == FALLBACK {
            hub.on(host, "/", Fault::Status(500));
        }
    }
    assert!(kinds.len() == KINDS, "a kind of fault is missing: {kinds:?}");

    hub.off(host);
    for certificate in [Certificate::WrongName, Certificate::UnknownAuthority, Certificate::Expired]
    {
        hub.certificate(host, certificate);
        hub.disconnect(host);
        assert_silent(&nginx, &blob, &format!("{host}: {certificate:?}"));
    }
    hub.certificate(host, Certificate::Good);
    hub.refuse(host);
    assert_silent(&nginx, &blob, &format!("{host}: refuses"));
    hub.mute(host);
    assert_silent(&nginx, &blob, &format!("{host}: says nothing"));
    hub.blackhole(host);
    assert_silent(&nginx, &blob, &format!("{host}: is not there"));
    hub.accept(host);
    // The resolver remembers good answers: a new configuration asks again.
    for answer in [Dns::NxDomain, Dns::ServFail, Dns::Refused, Dns::Silence] {
        let what = format!("{host}: {answer:?}");
        hub.resolve_for(host, answer, 1);
        nginx.reload();
        assert_silent(&nginx, &blob, &what);
    }

    let page = get(&nginx.url("/docker-status")).send().text();
    assert!(page.contains("docker_upstream_requests_total{backend=\"https://"), "{page}");
    let network = hub.network();
    let addresses = network.trim_end_matches("0/24");
    for secret in SECRETS.iter().chain(&[addresses]) {
        assert!(!page.contains(secret), "{secret}: {page}");
    }

    let log = nginx.errors();
    // Else there was nothing to be found.
    let told =
        log.lines().filter(|line| line.contains("[error]") && line.contains("request: ")).count();
    assert!(told > 25, "{told} errors only:\n{log}");
}

/// Sends every kind of credentials, and looks for them in the logs.
#[track_caller]
fn assert_silent(nginx: &Nginx, blob: &str, what: &str) {
    let requests = requests(nginx, blob);
    thread::scope(|scope| {
        for request in &requests {
            // Whatever comes of it.
            scope.spawn(|| drop(request.try_send()));
        }
    });
    for log in [nginx.errors(), nginx.accesses()] {
        for secret in SECRETS {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{what}: \"{secret}\"");
        }
    }
}

/// The credentials that clients have, where they send them.
fn requests(nginx: &Nginx, blob: &str) -> Vec<Request> {
    let url = |target: &str| nginx.url(target);
    // The server that has several registries, and a ticket for a token.
    let several = |target: &str| nginx.url_of(2, target);
    let token = Ticket::Realm {
        registry: "docker.io".to_owned(),
        realm: format!("https://{AUTH}/token"),
        service: Some("registry.docker.io".to_owned()),
        for_all: false,
    };
    let token = token.seal(&Key::parse(TOKEN_KEY.as_bytes()).unwrap());
    let token = format!("/token/{token}?scope=repository:library/x:pull");
    let bearer = |request: Request| request.bearer("SECRET.token.SECRET");
    let basic = |request: Request| request.header("Authorization", format!("Basic {BASIC}"));
    let password = "grant_type=password&username=user&password=SECRET-password&service=x";
    let refresh = "grant_type=refresh_token&refresh_token=SECRET-refresh-token&service=x";
    [
        get(&url("/v2/")),
        bearer(get(&url(MANIFEST))),
        bearer(head(&url(MANIFEST))),
        bearer(get(&url(blob))),
        bearer(head(&url(blob))),
        bearer(get(&url(blob))).header("Range", "bytes=1-").header("Cookie", "id=SECRET-cookie"),
        basic(get(&url("/v2/"))),
        basic(get(&url(MANIFEST))),
        basic(get(&url(TOKEN))),
        request("POST", &url("/token")).body(password),
        request("POST", &url("/token")).body(refresh),
        basic(request("POST", &url("/token"))).body("service=x"),
        bearer(request("POST", &url("/v2/library/x/blobs/uploads/"))).body("SECRET-content"),
        get(&url(MANIFEST)).header("X-Registry-Auth", "SECRET-header"),
        get(&url(MANIFEST)).header("Authorization", "Negotiate SECRET-ticket"),
        get(&url(MANIFEST)).header("Proxy-Authorization", "Basic SECRET-proxy"),
        bearer(get(&several(MANIFEST))),
        bearer(get(&several(&format!("{MANIFEST}?ns={OWN_REGISTRY}")))),
        bearer(get(&several(blob))),
        basic(get(&several("/v2/"))),
        basic(get(&several(&token))),
        request("POST", &several(&token)).body(password),
        basic(get(&several("/token/a.b?scope=repository:library/x:pull"))),
        bearer(request("POST", &several("/v2/library/x/blobs/uploads/"))).body("SECRET-content"),
        bearer(request("PUT", &several("/v2/library/x/manifests/a"))).body("SECRET-content"),
    ]
    .map(|request| request.patience(Duration::from_secs(20)))
    .into()
}

/// How many kinds of faults there are.
const KINDS: usize = 9;

/// The number of a fault's kind; a new kind does not compile without its own.
fn kind(fault: &Fault) -> usize {
    match fault {
        Fault::Answer(_) => 0,
        Fault::Status(_) => 1,
        Fault::TooManyRequests => 2,
        Fault::Hap429 => 3,
        Fault::LoginLimit => 4,
        Fault::Close(_) => 5,
        Fault::Stall => 6,
        Fault::Shape(_) => 7,
        Fault::Delay(_) => 8,
    }
}

fn faults() -> Vec<(String, Fault)> {
    let signed = "/x?verify=1-SECRET-signature";
    let mut faults = vec![
        ("pull limit", Fault::TooManyRequests),
        ("abuse limit", Fault::Hap429),
        ("login limit", Fault::LoginLimit),
        ("closes", Fault::Close(End::Close)),
        ("ends without TLS's goodbye", Fault::Close(End::Truncate)),
        ("resets", Fault::Close(End::Reset)),
        ("stalls", Fault::Stall),
        ("is slow", Fault::Delay(Duration::from_millis(50))),
        ("cuts its header", Fault::Shape(Shape::CutHead(30, End::Close))),
        ("cuts its body", Fault::Shape(Shape::CutBody(3, End::Reset))),
        ("stalls in its body", Fault::Shape(Shape::StallBody(3))),
        ("sends too much", Fault::Shape(Shape::Surplus(b"SECRET-surplus".to_vec()))),
        ("sends in chunks", Fault::Shape(Shape::Chunked(7))),
        ("speaks no HTTP", Fault::raw("SSH-2.0-SECRET-banner\r\n")),
        (
            "sends an invalid header",
            Fault::raw("HTTP/1.1 200 OK\r\nx\r\nSet-Cookie: SECRET\r\n\r\n"),
        ),
        ("sends an invalid status", Fault::raw("HTTP/1.1 2x0 SECRET\r\n\r\n")),
        ("sends too large a header", {
            let cookie = "SECRET".repeat(20_000);
            Fault::Answer(Response::text(200, "x").header("Set-Cookie", cookie).into())
        }),
        ("names its account", {
            let message = "rate limit of user, token SECRET-dckr_jti";
            Fault::Answer(Response::error(429, "TOOMANYREQUESTS", message).into())
        }),
        ("asks for a token", {
            let challenge = "Bearer realm=\"https://auth.docker.io/token\",service=\"SECRET\"";
            let answer = Response::error(401, "UNAUTHORIZED", "no");
            Fault::Answer(answer.header("WWW-Authenticate", challenge).into())
        }),
    ];
    for location in [
        &format!("https://{CLOUDFLARE}{signed}"),
        &format!("https://user:SECRET-password@{CLOUDFLARE}{signed}"),
        &format!("http://{CLOUDFLARE}{signed}"),
        &format!("https://{CLOUDFLARE}{signed} and more"),
        &format!("https://{CLOUDFLARE}:8443{signed}"),
        &format!("ftp://{CLOUDFLARE}{signed}"),
        &format!("https://nowhere.example{signed}"),
        &format!("https://10.0.0.1{signed}"),
        &format!("https://[::ffff:169.254.169.254]{signed}"),
        &format!("{signed}#SECRET-fragment"),
        &format!("{signed}{}", "SECRET".repeat(3000)),
        "//:SECRET",
    ] {
        faults.push(("redirects", Fault::Answer(Reply::redirect(307, location))));
    }
    faults
        .into_iter()
        .map(|(name, fault)| (name.to_owned(), fault))
        .chain(
            [400, 401, 403, 404, 408, 416, 451, 500, 502, 503, 504, 520]
                .map(|status| (format!("answers {status}"), Fault::Status(status))),
        )
        .collect()
}
