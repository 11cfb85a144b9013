//! `docker_fallback` and `docker_fallback_on`: another registry answers.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::net::Ipv4Addr;
use std::time::Duration;

use support::{
    Answer, CLOUDFLARE, Certificate, Connection, Dns, End, Fault, Hub, Kind, Nginx, NginxBuilder,
    REGISTRY, Recorded, Reply, Request, Response, Shape, get, head, request, wait_for,
};

const PATH: &str = "/v2/library/x/manifests/latest";
/// The targets of most tests; one more than that would not show more.
const FIRST: &str = "first.example";
const SECOND: &str = "second.example";
/// The value of a Basic `Authorization`.
const BASIC: &str = "Basic dXNlcjpwYXNzd29yZA==";

/// A hub without authentication, with an image and two further mirrors of it.
fn hub() -> Hub {
    Hub::with_mirrors(&[FIRST, SECOND])
}

/// A hub whose registry has this fault.
fn hub_with(fault: Fault) -> Hub {
    let hub = hub();
    hub.on(REGISTRY, "/", fault);
    hub
}

/// An nginx before the hub, whose answers tell what the module's variables say.
fn mirror(hub: &Hub) -> NginxBuilder {
    Nginx::builder().http(&hub.http_conf()).http(
        "proxy_connect_timeout 1s;
         proxy_read_timeout 1s;
         add_header X-Fallback $docker_fallback always;
         add_header X-Origin $docker_origin_host always;
         add_header X-Redirects $docker_redirects always;",
    )
}

/// The same with one location, which has these directives.
fn start(hub: &Hub, directives: &str) -> Nginx {
    let location = format!("location / {{ {directives} proxy_pass https://{REGISTRY}; }}");
    mirror(hub).server(&location).start()
}

fn chain_of_two() -> String {
    format!("docker_fallback https://{FIRST} https://{SECOND};")
}

/// Which mirror's content the client got.
fn served_by(answer: &Answer) -> Option<&str> {
    answer.header("x-served-by")
}

/// The answer is the image's manifest, from this mirror.
#[track_caller]
fn assert_served(answer: &Answer, mirror: &str, name: &str) {
    assert_eq!((answer.status, served_by(answer)), (200, Some(mirror)), "{name}");
    assert!(answer.header("docker-content-digest").is_some(), "{name}");
    assert_eq!(answer.header("x-fallback"), Some(format!("https://{mirror}").as_str()), "{name}");
    assert_eq!(answer.header("x-origin"), Some(mirror), "{name}");
}

/// The header without what differs between two answers.
fn stable(answer: &Answer) -> Vec<(String, String)> {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| {
            !["date", "x-fallback", "x-origin", "x-redirects"]
                .contains(&name.to_ascii_lowercase().as_str())
        })
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    headers.sort();
    headers
}

/// The message of the registry error that the answer is.
#[track_caller]
fn message(answer: &Answer) -> String {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
    let json = answer.json();
    assert!(json["errors"][0]["code"].is_string(), "{json}");
    json["errors"][0]["message"].as_str().unwrap().to_owned()
}

/// What can go wrong with a registry: a name, and how to bring it about.
type Trouble = (&'static str, Box<dyn Fn(&Hub)>);

fn fault(name: &'static str, host: &'static str, fault: Fault) -> Trouble {
    (name, Box::new(move |hub| hub.on(host, "/", fault.clone())))
}

fn act(name: &'static str, act: impl Fn(&Hub) + 'static) -> Trouble {
    (name, Box::new(act))
}

/// Ways in which a host gives no answer, other than by its silence.
fn errors(host: &'static str) -> Vec<Trouble> {
    let large = Response::text(200, "x").header("X-Large", "x".repeat(70_000));
    vec![
        act("connect refused", |hub| hub.refuse(host)),
        fault("closed", host, Fault::Close(End::Close)),
        fault("reset", host, Fault::Close(End::Reset)),
        fault("cut header", host, Fault::Shape(Shape::CutHead(40, End::Close))),
        fault("no HTTP", host, Fault::raw("SSH-2.0-OpenSSH_9.9\r\n")),
        fault("header too large", host, Fault::Answer(large.into())),
        act("wrong name", |hub| hub.certificate(host, Certificate::WrongName)),
        act("unknown CA", |hub| hub.certificate(host, Certificate::UnknownAuthority)),
    ]
}

/// Ways in which a host is silent.
fn silences(host: &'static str) -> Vec<Trouble> {
    vec![
        fault("no answer", host, Fault::Stall),
        fault(
            "half a header",
            host,
            Fault::Answer(Reply::Raw(vec![
                support::Step::send("HTTP/1.1 200 OK\r\nContent-"),
                support::Step::Stall,
            ])),
        ),
        act("no handshake", |hub| hub.mute(host)),
        act("no connection", |hub| hub.blackhole(host)),
    ]
}

/// Ends whatever `errors` and `silences` began.
fn recover(hub: &Hub, host: &str) {
    hub.reset();
    hub.certificate(host, Certificate::Good);
    hub.accept(host);
}

// Conditions.

#[test]
fn failures_and_limits_of_the_registry_lead_to_the_fallback() {
    let hub = hub();
    let nginx = start(&hub, &chain_of_two());
    let statuses = [
        ("429", Fault::TooManyRequests),
        ("429 as text", Fault::Hap429),
        ("502", Fault::Status(502)),
        ("503", Fault::Status(503)),
        ("504", Fault::Status(504)),
    ];
    let mut troubles: Vec<Trouble> =
        statuses.into_iter().map(|(name, with)| fault(name, REGISTRY, with)).collect();
    troubles.extend(errors(REGISTRY));
    troubles.extend(silences(REGISTRY));

    for (name, cause) in troubles {
        cause(&hub);
        assert_served(&get(&nginx.url(PATH)).send(), FIRST, name);
        let answer = head(&nginx.url(PATH)).send();
        assert_served(&answer, FIRST, &format!("{name}, HEAD"));
        assert!(answer.body.is_empty(), "{name}");
        let lines: Vec<_> = hub.requests(FIRST).iter().map(Recorded::line).collect();
        assert_eq!(lines, [format!("GET {PATH}"), format!("HEAD {PATH}")], "{name}");
        assert_eq!(hub.counts(SECOND).requests, 0, "{name}");
        recover(&hub, REGISTRY);
    }
    assert_eq!(served_by(&get(&nginx.url(PATH)).send()), None, "the registry is well again");
}

#[test]
fn other_answers_reach_the_client_as_they_are() {
    let hub = hub();
    let nginx = start(&hub, &chain_of_two());
    for status in [200, 206, 300, 304, 307, 400, 401, 403, 404, 405, 410, 416, 451, 500, 501, 505] {
        let response = Response::text(status, "as it is").header("X-Kept", "yes");
        hub.on(REGISTRY, "/", Fault::Answer(response.into()));
        for ask in [get(&nginx.url(PATH)), head(&nginx.url(PATH))] {
            let answer = ask.send();
            assert_eq!((answer.status, answer.header("x-kept")), (status, Some("yes")));
            assert_eq!(answer.header("x-fallback"), None, "{status}");
            assert_eq!(answer.header("x-origin"), Some(REGISTRY), "{status}");
        }
    }
    assert_eq!(hub.counts(FIRST).requests, 0);
}

#[test]
fn each_condition_covers_its_own_case_only() {
    let hub = hub();
    let conditions = ["error", "timeout", "http_404", "http_429", "http_500", "http_599"];
    let locations: String = conditions
        .iter()
        .map(|condition| {
            format!(
                "location /v2/{condition}/ {{
                     docker_fallback https://{FIRST};
                     docker_fallback_on {condition};
                     proxy_pass https://{REGISTRY}/v2/library/x/;
                 }}"
            )
        })
        .collect();
    let nginx = mirror(&hub).server(&locations).start();

    let mut troubles: Vec<(&str, Trouble)> = Vec::new();
    for status in [404, 429, 500, 599, 502, 504] {
        let condition =
            *conditions.iter().find(|c| c.ends_with(&status.to_string())).unwrap_or(&"");
        troubles.push((condition, fault("a status", REGISTRY, Fault::Status(status))));
    }
    troubles.extend(errors(REGISTRY).into_iter().map(|trouble| ("error", trouble)));
    troubles.extend(silences(REGISTRY).into_iter().map(|trouble| ("timeout", trouble)));

    for (matching, (name, cause)) in troubles {
        cause(&hub);
        for condition in conditions {
            let answer = get(&nginx.url(&format!("/v2/{condition}/manifests/latest"))).send();
            let fell_back = served_by(&answer) == Some(FIRST);
            assert_eq!(fell_back, condition == matching, "{condition}: {name}");
        }
        recover(&hub, REGISTRY);
    }
}

#[test]
fn a_registry_whose_name_is_not_known_is_an_error() {
    let hub = hub();
    hub.resolve("gone.example", Dns::NxDomain);
    hub.resolve("broken.example", Dns::ServFail);
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_fallback https://{FIRST};
             location ~ ^/(?<name>[a-z]*)(?<path>/v2/.*) {{ proxy_pass https://$name.example$path; }}
             location ~ ^/only/(?<name>[a-z]*)(?<path>/v2/.*) {{
                 docker_fallback_on timeout http_502;
                 proxy_pass https://$name.example$path;
             }}"
        ))
        .start();

    for name in ["gone", "broken"] {
        assert_served(&get(&nginx.url(&format!("/{name}{PATH}"))).send(), FIRST, name);
        let answer = get(&nginx.url(&format!("/only/{name}{PATH}"))).send();
        assert_eq!((answer.status, served_by(&answer)), (502, None), "{name}");
    }
}

// Requests that fall back, and those that do not.

#[test]
fn only_get_and_head_without_a_body_fall_back() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = start(&hub, &chain_of_two());
    let url = nginx.url(PATH);
    let rows = [
        ("POST", request("POST", &url)),
        ("POST with a body", request("POST", &url).body("grant_type=password&password=secret")),
        ("PUT", request("PUT", &url).body("{}")),
        ("PATCH", request("PATCH", &url).body("x")),
        ("DELETE", request("DELETE", &url)),
        ("OPTIONS", request("OPTIONS", &url)),
        ("GET with a body", get(&url).body("x")),
        ("HEAD with a body", head(&url).body("x")),
    ];
    for (name, ask) in rows {
        let answer = ask.send();
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("3600")), "{name}");
        assert_eq!(answer.header("x-fallback"), None, "{name}");
    }

    let mut connection = Connection::open(&get(&url)).unwrap();
    let chunked = format!(
        "GET {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         1\r\nx\r\n0\r\n\r\n"
    );
    connection.write(chunked.as_bytes()).unwrap();
    assert_eq!(connection.answer("GET").unwrap().status, 429, "GET with a chunked body");
    assert_eq!(hub.counts(FIRST).requests, 0);

    assert_served(&get(&url).header("Content-Length", "0").send(), FIRST, "a body of no length");
}

#[test]
fn a_failed_registry_is_no_reason_to_repeat_a_push() {
    let hub = hub();
    hub.refuse(REGISTRY);
    let nginx = start(&hub, &chain_of_two());
    let url = nginx.url(PATH);
    for ask in [
        request("POST", &url).body("password=secret"),
        request("PUT", &url).body("{}"),
        get(&url).body("x"),
        get(&url).header("Authorization", BASIC),
    ] {
        let answer = ask.send();
        assert_eq!((answer.status, answer.header("x-fallback")), (502, None));
    }
    assert_eq!(hub.counts(FIRST).requests, 0);
}

#[test]
fn http2_clients_fall_back_like_others() {
    let hub = hub_with(Fault::TooManyRequests);
    let location = format!("location / {{ {} proxy_pass https://{REGISTRY}; }}", chain_of_two());
    let nginx = mirror(&hub).h2c_server(&location).tls_server(&location).start();

    assert_served(&get(&nginx.url_of(0, PATH)).http2().send(), FIRST, "h2c");
    let tls = get(&nginx.url_of(1, PATH)).http2().ca(nginx.ca_file());
    assert_served(&tls.send(), FIRST, "h2");
    let with_body = get(&nginx.url_of(0, PATH)).http2().body("x").send();
    assert_eq!((with_body.status, served_by(&with_body)), (429, None), "a body of unknown length");
}

#[test]
fn a_password_stays_with_the_registry() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = start(&hub, &chain_of_two());
    for value in [BASIC, "Bearer", "Negotiate abc", "bearerx abc"] {
        for ask in [get(&nginx.url(PATH)), head(&nginx.url(PATH))] {
            let answer = ask.header("Authorization", value).send();
            assert_eq!(answer.status, 429, "{value}");
        }
    }
    assert_eq!(hub.counts(FIRST).requests, 0);
}

// Targets.

#[test]
fn a_target_is_asked_what_the_registry_was_asked_under_its_own_name() {
    let hub = hub_with(Fault::Status(503));
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_fallback https://{FIRST}/hub/;
             location /v2/ {{ proxy_pass https://{REGISTRY}; }}
             location /v2/old/ {{ rewrite ^/v2/old/(.*) /v2/library/$1 break; \
              proxy_pass https://{REGISTRY}; }}
             location /v2/moved/ {{ proxy_pass https://{REGISTRY}/v2/library/; }}"
        ))
        .start();
    let rows = [
        (
            "byte for byte",
            "/v2/a%2Fb/%7e?n=1&l=%41+b%20c&m=/?x",
            "/v2/a%2Fb/%7e?n=1&l=%41+b%20c&m=/?x",
        ),
        ("rewritten", "/v2/old/x/tags/list?n=1", "/v2/library/x/tags/list?n=1"),
        ("with the URI of proxy_pass", "/v2/moved/x/tags/list?n=1", "/v2/library/x/tags/list?n=1"),
    ];

    for (name, target, want) in rows {
        let _ = get(&nginx.url(target)).send();
        assert_eq!(hub.last_request(REGISTRY).uri, want, "{name}");
        let request = hub.last_request(FIRST);
        assert_eq!(request.uri, format!("/hub{want}"), "{name}");
        assert_eq!(request.header("host"), Some(FIRST), "{name}");
        assert_eq!(request.sni.as_deref(), Some(FIRST), "{name}");
        assert!(request.tls, "{name}");
    }
}

#[test]
fn a_target_gets_what_is_asked_for_and_nothing_about_who_asks() {
    let hub = hub_with(Fault::Status(503));
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_fallback https://{FIRST} https://{SECOND};
             proxy_set_header X-Real-IP $remote_addr;
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
             location / {{ proxy_pass https://{REGISTRY}; }}"
        ))
        .start();
    let answer = get(&nginx.url(PATH))
        .header("Accept", "application/vnd.oci.image.index.v1+json")
        .header("Accept", "application/vnd.docker.distribution.manifest.v2+json")
        .header("Accept-Encoding", "identity")
        .header("User-Agent", "docker/29")
        .header("If-None-Match", "\"other\"")
        .header("Cookie", "session=secret")
        .header("X-Meta", "secret")
        .header("Referer", "https://secret.example/")
        .send();
    assert_served(&answer, FIRST, "first");

    let request = hub.last_request(FIRST);
    let mut names: Vec<_> =
        request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    let want =
        ["accept", "accept", "accept-encoding", "cdn-loop", "host", "if-none-match", "user-agent"];
    assert_eq!(names, want);
    assert_eq!(
        request.all("accept"),
        [
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json"
        ]
    );
}

#[test]
fn a_target_may_be_anywhere_that_the_configuration_says() {
    let hub = hub_with(Fault::Status(503));
    let literal = hub.address(FIRST);
    hub.listen(FIRST, 5000, true);
    hub.listen(FIRST, 5001, false);
    let rows = [
        ("a name at a private address", format!("https://{FIRST}"), FIRST.to_owned()),
        ("another port", format!("https://{FIRST}:5000"), FIRST.to_owned()),
        ("without TLS", format!("http://{FIRST}"), FIRST.to_owned()),
        ("without TLS at another port", format!("http://{FIRST}:5001"), FIRST.to_owned()),
        ("default port in full", format!("https://{FIRST}:443/"), FIRST.to_owned()),
        ("upper case", "HTTPS://First.Example".to_owned(), FIRST.to_owned()),
        ("an address", format!("http://{literal}"), literal.to_string()),
        // nginx checks certificates for names only.
        ("an address with TLS", format!("https://{literal} verify=off"), literal.to_string()),
    ];
    for (name, url, host) in rows {
        // The stand-in serves its own name only.
        hub.route(FIRST, |_| Response::text(200, "here").into());
        let nginx = start(&hub, &format!("docker_fallback {url};"));
        let answer = get(&nginx.url(PATH)).send();
        assert_eq!((answer.status, answer.text().as_str()), (200, "here"), "{name}");
        assert_eq!(answer.header("x-origin"), Some(host.as_str()), "{name}");
    }
}

#[test]
fn whoever_serves_first_answers() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = start(&hub, &format!("docker_realm_rewrite on; {}", chain_of_two()));
    let served = [
        ("200", Response::text(200, "yes")),
        ("203", Response::text(203, "yes")),
        ("204", Response::new(204)),
        ("206", Response::text(206, "yes").header("Content-Range", "bytes 0-2/10")),
        ("304", Response::new(304)),
        ("416", Response::text(416, "no").header("Content-Range", "bytes */10")),
        (
            "a challenge",
            Response::error(401, "UNAUTHORIZED", "who?")
                .header("WWW-Authenticate", "Bearer realm=\"https://first.example/token\""),
        ),
    ];
    for (name, response) in served {
        hub.on(FIRST, "/", Fault::Answer(response.header("X-Served-By", "first").into()));
        for ask in [get(&nginx.url(PATH)), head(&nginx.url(PATH))] {
            let answer = ask.send();
            assert!(name == "a challenge" || name == answer.status.to_string(), "{name}");
            assert_eq!(served_by(&answer), Some("first"), "{name}");
            assert_eq!(answer.header("x-fallback"), Some("https://first.example"), "{name}");
        }
    }
    assert_eq!(hub.counts(SECOND).requests, 0);
}

#[test]
fn a_target_that_does_not_serve_is_asked_once_and_passed_over() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.resolve_for("gone.example", Dns::NxDomain, 1);
    let nginx = start(&hub, &chain_of_two());
    let statuses =
        [300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 407, 408, 421, 429, 500, 502, 503, 504];
    for status in statuses {
        let response =
            Response::text(status, "no").header("Location", format!("https://{SECOND}/"));
        hub.on(FIRST, "/", Fault::Answer(response.into()));
        for ask in [get(&nginx.url(PATH)), head(&nginx.url(PATH))] {
            hub.forget();
            assert_served(&ask.send(), SECOND, &status.to_string());
            assert_eq!((hub.counts(FIRST).requests, hub.counts(SECOND).requests), (1, 1));
        }
        hub.off(FIRST);
    }

    for (name, cause) in errors(FIRST).into_iter().chain(silences(FIRST)) {
        cause(&hub);
        hub.forget();
        assert_served(&get(&nginx.url(PATH)).send(), SECOND, name);
        assert!(hub.counts(FIRST).requests <= 1, "{name}");
        assert_eq!(hub.counts(SECOND).requests, 1, "{name}");
        recover(&hub, FIRST);
        hub.on(REGISTRY, "/", Fault::TooManyRequests);
    }

    for name in ["gone.example", "broken.example"] {
        hub.resolve("broken.example", Dns::ServFail);
        let nginx = start(&hub, &format!("docker_fallback https://{name} https://{SECOND};"));
        assert_served(&get(&nginx.url(PATH)).send(), SECOND, name);
    }
}

#[test]
fn a_target_that_refuses_the_token_is_passed_over() {
    let hub = hub_with(Fault::TooManyRequests);
    let challenge = Response::error(401, "UNAUTHORIZED", "not mine")
        .header("WWW-Authenticate", "Bearer realm=\"https://first.example/token\"");
    hub.on(FIRST, "/", Fault::Answer(challenge.into()));
    let location = format!("location / {{ {} proxy_pass https://{REGISTRY}; }}", chain_of_two());
    let nginx = mirror(&hub)
        .server(&format!("docker_realm_rewrite on; {location}"))
        .server(&location)
        .start();

    let [here, there] = [0, 1].map(|server| nginx.url_of(server, PATH));
    assert_served(&get(&here).bearer("token").send(), SECOND, "with a token");
    let anonymous = get(&here).send();
    assert_eq!((anonymous.status, anonymous.header("x-origin")), (401, Some(FIRST)));
    assert!(anonymous.header("www-authenticate").is_some());

    // Where realms stay, it would say who gets the client's password.
    assert_served(&get(&there).send(), SECOND, "realms stay");
    hub.on(SECOND, "/", Fault::Status(503));
    let original = get(&there).send();
    assert_eq!((original.status, original.header("www-authenticate")), (429, None));
}

#[test]
fn the_challenge_of_a_target_leads_to_this_mirror_as_well() {
    let hub = hub_with(Fault::TooManyRequests);
    let challenge = Response::error(401, "UNAUTHORIZED", "who?")
        .header("WWW-Authenticate", "Bearer realm=\"https://first.example/token\",service=\"a\"");
    hub.on(FIRST, "/", Fault::Answer(challenge.into()));
    let nginx = start(&hub, &format!("docker_realm_rewrite on; {}", chain_of_two()));
    let answer = get(&nginx.url(PATH)).header("Host", "mirror.example.com:5000").send();
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Bearer realm=\"http://mirror.example.com:5000/token\",service=\"a\"")
    );

    for challenge in ["Bearer realm=\"https://first.example/token", "Basic"] {
        let challenge = Response::error(401, "UNAUTHORIZED", "who?")
            .header("WWW-Authenticate", challenge)
            .header("Proxy-Authenticate", "Basic realm=\"a\"")
            .header("Authentication-Info", "nextnonce=\"a\"");
        hub.on(FIRST, "/", Fault::Answer(challenge.into()));
        let answer = get(&nginx.url(PATH)).send();
        for name in ["www-authenticate", "proxy-authenticate", "authentication-info"] {
            assert_eq!(answer.header(name), None, "what is not rewritten does not stay");
        }
    }
}

#[test]
fn a_target_does_not_say_what_a_token_is_for() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = start(&hub, &format!("docker_realm_rewrite on; {}", chain_of_two()));
    let realm = "Bearer realm=\"http://mirror.example.com/token\"";
    let theirs = "Bearer realm=\"https://first.example/token\"";
    let rows = [
        (
            "another repository, to write to it",
            PATH,
            format!("{theirs},service=\"a\",scope=\"repository:alice/secret:pull,push\""),
            format!("{realm},service=\"a\",scope=\"repository:library/x:pull\""),
        ),
        (
            "everything",
            "/v2/",
            format!("{theirs},scope=\"registry:catalog:* repository:alice/secret:pull\""),
            realm.to_owned(),
        ),
        (
            "scopes in the realm",
            PATH,
            "Bearer realm=\"https://first.example/token?scope=repository:alice/secret:pull#x\""
                .to_owned(),
            realm.to_owned(),
        ),
        (
            "words beside it",
            PATH,
            format!("Basic realm=\"a\", {theirs}, error=\"insufficient_scope\", {theirs}"),
            realm.to_owned(),
        ),
    ];
    for (name, uri, challenge, want) in rows {
        let challenge =
            Response::error(401, "UNAUTHORIZED", "who?").header("WWW-Authenticate", &challenge);
        hub.on(FIRST, "/", Fault::Answer(challenge.into()));
        let answer = get(&nginx.url(uri)).header("Host", "mirror.example.com").send();
        assert_eq!(answer.header("www-authenticate"), Some(want.as_str()), "{name}");
    }
}

#[test]
fn an_intercepted_answer_outside_the_api_is_told_too() {
    let hub = hub_with(Fault::Status(502));
    let nginx =
        start(&hub, &format!("docker_fallback https://{FIRST}; proxy_intercept_errors on;"));
    hub.on(FIRST, "/", Fault::Status(404));
    for uri in ["/token?service=a", PATH] {
        let answer = get(&nginx.url(uri)).send();
        assert_eq!(answer.status, 502, "{uri}");
    }
    assert!(!nginx.errors().contains("panicked"), "{}", nginx.errors());
}

#[test]
fn orders_and_promises_of_a_target_are_dropped() {
    let hub = hub_with(Fault::TooManyRequests);
    let response = Response::text(200, "content")
        .header("Set-Cookie", "a=b")
        .header("Set-Cookie", "c=d")
        .header("Strict-Transport-Security", "max-age=31536000")
        .header("Alt-Svc", "h3=\":443\"")
        .header("X-Accel-Redirect", "/secret")
        .header("X-Accel-Expires", "1000")
        .header("X-Accel-Limit-Rate", "1")
        .header("X-Accel-Buffering", "no")
        .header("X-Accel-Charset", "koi8-r")
        .header("X-Custom", "kept");
    hub.on(FIRST, "/", Fault::Answer(response.into()));
    let nginx = mirror(&hub)
        .server(&format!(
            "location / {{ {} proxy_pass https://{REGISTRY}; }}
             location /secret {{ internal; return 200 'secret'; }}",
            chain_of_two()
        ))
        .start();
    let answer = get(&nginx.url(PATH)).send();
    assert_eq!((answer.status, answer.text().as_str()), (200, "content"));
    let names: Vec<_> = stable(&answer).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["connection", "content-length", "content-type", "server", "warning", "x-custom"]
    );
}

#[test]
fn a_target_does_not_lead_clients_to_itself() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = start(&hub, &format!("docker_fallback https://{FIRST}/secret;"));
    let own = "</v2/library/x/tags/list?n=1&last=a>; rel=\"next\"";
    for (link, told) in [
        (own.to_owned(), Some(own)),
        (format!("<https://{FIRST}/secret/v2/library/x/tags/list?last=a>; rel=\"next\""), None),
        ("</secret/v2/library/x/tags/list?last=a>; rel=\"next\"".to_owned(), None),
    ] {
        let response = Response::text(200, "{}").header("Link", &link);
        hub.on(FIRST, "/", Fault::Answer(response.into()));
        let answer = get(&nginx.url("/v2/library/x/tags/list?n=1")).send();
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"), "{link}");
        assert_eq!(answer.header("link"), told, "{link}");
    }
}

#[test]
fn connections_to_a_target_are_kept() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = start(&hub, &chain_of_two());
    for _ in 0..20 {
        assert_served(&get(&nginx.url(PATH)).send(), FIRST, "first");
    }
    assert_eq!((hub.counts(REGISTRY).connections, hub.counts(FIRST).connections), (1, 1));
}

// No target serves.

#[test]
fn the_original_answer_survives_when_no_target_serves() {
    let hub = hub();
    hub.on(FIRST, "/", Fault::Status(404));
    hub.on(SECOND, "/", Fault::Hap429);
    let nginx = mirror(&hub)
        .server(&format!(
            "location / {{ {} proxy_pass https://{REGISTRY}; }}
             location /plain/ {{ proxy_pass https://{REGISTRY}/; }}",
            chain_of_two()
        ))
        .start();

    let json = Response::error(503, "UNAVAILABLE", "later")
        .header("Retry-After", "120")
        .header("Set-Cookie", "a=b")
        .header("Strict-Transport-Security", "max-age=1")
        .header("X-Twice", "1")
        .header("X-Twice", "2");
    let rows = [
        ("429", Fault::TooManyRequests),
        ("429 as text", Fault::Hap429),
        ("503", Fault::Answer(json.clone().into())),
        ("chunked", Fault::Answer(json.clone().chunked(7).into())),
        ("no body", Fault::Answer(Response::new(503).into())),
        ("no type", Fault::Answer(Response::new(503).body("text").into())),
    ];
    for (name, fault) in rows {
        hub.on(REGISTRY, "/", fault);
        for (method, ask) in [("GET", get as fn(&str) -> Request), ("HEAD", head)] {
            hub.forget();
            let plain = ask(&nginx.url(&format!("/plain{PATH}"))).send();
            let answer = ask(&nginx.url(PATH)).send();
            assert_eq!(answer.status, plain.status, "{name}, {method}");
            assert_eq!(answer.text(), plain.text(), "{name}, {method}");
            let length = |(field, _): &(String, String)| {
                !["content-length", "transfer-encoding"].contains(&field.as_str())
            };
            let (mut got, mut want) = (stable(&answer), stable(&plain));
            if name == "chunked" || method == "HEAD" {
                got.retain(length);
                want.retain(length);
            }
            assert_eq!(got, want, "{name}, {method}");
            assert_eq!(answer.header("x-fallback"), None, "{name}, {method}");
            assert_eq!(answer.header("x-origin"), Some(REGISTRY), "{name}, {method}");
            assert_eq!((hub.counts(FIRST).requests, hub.counts(SECOND).requests), (1, 1));
        }
    }
}

#[test]
fn an_original_body_that_is_not_at_hand_becomes_registry_json() {
    let hub = hub();
    hub.on(FIRST, "/", Fault::Status(404));
    let nginx = start(&hub, &format!("docker_fallback https://{FIRST};"));
    let limited = |body: &str| {
        Response::text(429, body)
            .header("Retry-After", "60")
            .header("Content-Encoding", "identity")
            .header("ETag", "\"a\"")
    };
    let large = "x".repeat(200_000);
    let rows = [
        ("large", limited(&large)),
        ("large and chunked", limited(&large).chunked(1000)),
        ("late", limited("text").shape(Shape::PauseBody(0, Duration::from_millis(200)))),
        ("stalled", limited("text").shape(Shape::StallBody(2))),
        ("cut", limited("text").shape(Shape::CutBody(2, End::Close))),
        ("surplus", limited("text").shape(Shape::Surplus(b"HTTP/1.1 200 OK\r\n".to_vec()))),
    ];
    for (name, response) in rows {
        hub.on(REGISTRY, "/", Fault::Answer(response.into()));
        let answer = get(&nginx.url(PATH)).send();
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("60")), "{name}");
        assert_eq!(answer.json()["errors"][0]["code"], "TOOMANYREQUESTS", "{name}");
        assert_eq!(
            message(&answer),
            "registry registry-1.docker.io: 429 Too Many Requests",
            "{name}"
        );
        assert_eq!(answer.header("content-encoding"), None, "{name}");
        assert_eq!(answer.header("etag"), None, "{name}");
    }
}

#[test]
fn without_an_original_answer_the_error_says_what_failed() {
    let hub = hub();
    hub.on(FIRST, "/", Fault::Status(404));
    hub.refuse(SECOND);
    let nginx = start(&hub, &chain_of_two());

    hub.refuse(REGISTRY);
    let answer = get(&nginx.url(PATH)).send();
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["errors"][0]["code"], "UNAVAILABLE");
    let says = message(&answer);
    assert_eq!(
        says,
        "registry registry-1.docker.io: could not be connected; \
         fallback first.example: 404 Not Found; \
         fallback second.example: could not be connected"
    );
    assert!(!says.contains("127."), "{says}");
    let answer = head(&nginx.url(PATH)).send();
    assert_eq!((answer.status, answer.body.len()), (502, 0));

    hub.accept(REGISTRY);
    hub.on(REGISTRY, "/", Fault::Stall);
    let answer = get(&nginx.url(PATH)).send();
    assert_eq!(answer.status, 504, "as without a fallback");
    assert!(message(&answer).starts_with("registry registry-1.docker.io: timed out; "));
}

#[test]
fn the_log_tells_every_outcome() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.on(FIRST, "/", Fault::Status(404));
    hub.refuse(SECOND);
    let nginx = start(
        &hub,
        "docker_fallback https://first.example https://second.example https://gone.example;",
    );
    let _ = get(&nginx.url(PATH)).send();
    let line = nginx.wait_for_log("no fallback served");
    assert!(line.contains("[warn]"), "{line}");
    assert!(
        line.contains(
            "no fallback served the request: registry registry-1.docker.io: 429 Too Many Requests; \
             fallback first.example: 404 Not Found; fallback second.example: could not be connected; \
             fallback gone.example: could not be resolved"
        ),
        "{line}"
    );
    let line =
        nginx.wait_for_log("registry registry-1.docker.io: 429 Too Many Requests, falling back to");
    assert!(line.contains("[info]") && line.contains("\"https://first.example\""), "{line}");
}

#[test]
fn a_fallback_that_serves_is_told_at_info_only() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = start(&hub, &chain_of_two());
    assert_served(&get(&nginx.url(PATH)).send(), FIRST, "first");
    let log = nginx.errors();
    assert!(log.contains("falling back"), "{log}");
    assert!(!log.contains("[warn]") && !log.contains("[error]"), "{log}");
}

// Redirects.

/// A mirror that follows redirects into the hub's network, with these further directives.
fn following(hub: &Hub, directives: &str) -> Nginx {
    let network = hub.network();
    start(hub, &format!("docker_follow_redirect on private={network}; {directives}"))
}

#[test]
fn a_target_may_redirect() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.add_host_as("cdn.example", Kind::Blank);
    let nginx = following(&hub, &format!("docker_fallback https://{FIRST}/hub;"));
    let rows = [
        ("its own path", "/hub/elsewhere?a=b".to_owned(), 1, FIRST, "/hub/elsewhere?a=b"),
        ("its own origin", format!("https://{FIRST}/x"), 1, FIRST, "/x"),
        ("elsewhere", "https://cdn.example/y?z=%2F".to_owned(), 1, "cdn.example", "/y?z=%2F"),
        (
            "three times",
            hub.chain(&[FIRST], 2, 302, "https://cdn.example/last"),
            3,
            "cdn.example",
            "/last",
        ),
    ];

    for (name, location, hops, host, uri) in rows {
        hub.on(FIRST, "/hub/v2/", Fault::redirect(307, location));
        for path in ["/hub/elsewhere", "/x"] {
            hub.on(FIRST, path, Fault::Answer(Response::text(200, "content").into()));
        }
        for ask in [get(&nginx.url(PATH)), head(&nginx.url(PATH))] {
            let answer = ask.send();
            assert_eq!((answer.status, answer.header("x-origin")), (200, Some(host)), "{name}");
            assert_eq!(answer.header("x-fallback"), Some("https://first.example"), "{name}");
            assert_eq!(answer.header("x-redirects"), Some(hops.to_string().as_str()), "{name}");
            assert_eq!(hub.last_request(host).uri, uri, "{name}");
        }
    }
}

#[test]
fn a_target_is_passed_over_when_its_redirect_leads_nowhere() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.add_host_as("cdn.example", Kind::Blank);
    hub.resolve("gone.example", Dns::NxDomain);
    hub.resolve_to("private.example", &["10.0.0.1"]);
    let nginx = following(&hub, &chain_of_two());
    let rows = [
        ("http", "http://cdn.example/".to_owned()),
        ("no URL", "https://user@cdn.example/".to_owned()),
        ("empty", String::new()),
        ("a name that is not known", "https://gone.example/".to_owned()),
        ("a private address", "https://10.0.0.1/".to_owned()),
        ("a name at a private address", "https://private.example/".to_owned()),
        ("too many hops", hub.chain(&[FIRST], 9, 302, "https://cdn.example/")),
        ("nothing there", "https://cdn.example:1/".to_owned()),
        ("not found", format!("https://{FIRST}/v2/nothing")),
    ];
    for (name, location) in rows {
        hub.on(FIRST, "/v2/library/", Fault::redirect(307, location));
        let answer = get(&nginx.url(PATH)).send();
        assert_served(&answer, SECOND, name);
        let hops = if name == "too many hops" { Some("5") } else { None };
        assert!(hops.is_none() || answer.header("x-redirects") == hops, "{name}");
    }
}

#[test]
fn the_private_networks_of_redirects_are_not_those_of_targets() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.add_host_as("cdn.example", Kind::Blank);
    hub.on(FIRST, "/", Fault::redirect(307, "https://cdn.example/"));
    let nginx = start(&hub, &format!("docker_follow_redirect on; {}", chain_of_two()));
    assert_served(&get(&nginx.url(PATH)).send(), SECOND, "a target may be private");
    assert_eq!(hub.counts("cdn.example").connections, 0, "a redirect may not lead there");
}

#[test]
fn a_blob_comes_from_the_fallback_when_the_cdn_is_down() {
    let hub = hub();
    let digest = hub.add_blob(b"layer".to_vec());
    let path = format!("/v2/library/x/blobs/{digest}");
    let nginx = following(&hub, &chain_of_two());
    let mut troubles: Vec<Trouble> = [429, 502, 503, 504]
        .map(|status| fault("a status", CLOUDFLARE, Fault::Status(status)))
        .into();
    troubles.extend(errors(CLOUDFLARE));
    troubles.extend(silences(CLOUDFLARE));

    for (name, cause) in troubles {
        cause(&hub);
        let answer = get(&nginx.url(&path)).send();
        assert_eq!((answer.status, answer.text().as_str()), (200, "layer"), "{name}");
        assert_eq!((served_by(&answer), answer.header("x-redirects")), (Some(FIRST), Some("1")));
        assert_eq!(answer.header("x-origin"), Some(FIRST), "{name}");
        assert_eq!(hub.last_request(FIRST).uri, path, "{name}: what the registry was asked");
        assert_eq!(head(&nginx.url(&path)).send().status, 200, "{name}, HEAD");
        recover(&hub, CLOUDFLARE);
    }

    hub.resolve_for(CLOUDFLARE, Dns::NxDomain, 1);
    let nginx = following(&hub, &chain_of_two());
    assert_eq!(served_by(&get(&nginx.url(&path)).send()), Some(FIRST), "no such name");
}

#[test]
fn a_redirect_that_is_refused_is_an_error_of_the_registry() {
    let hub = hub();
    hub.on(REGISTRY, "/", Fault::redirect(307, "https://169.254.169.254/latest/meta-data/"));
    let nginx = following(&hub, &chain_of_two());
    assert_served(&get(&nginx.url(PATH)).send(), FIRST, "error");
    let nginx = following(&hub, &format!("{} docker_fallback_on http_502;", chain_of_two()));
    assert_eq!(get(&nginx.url(PATH)).send().status, 502);
    assert_eq!(hub.counts(FIRST).requests, 1);
}

#[test]
fn what_the_cdn_says_of_a_blob_stands() {
    let hub = hub();
    let digest = hub.add_blob(b"layer".to_vec());
    let path = format!("/v2/library/x/blobs/{digest}");
    let nginx = following(&hub, &chain_of_two());
    for status in [403, 404, 410, 416, 500] {
        hub.on(CLOUDFLARE, "/", Fault::Status(status));
        let answer = get(&nginx.url(&path)).send();
        assert_eq!((answer.status, answer.header("x-fallback")), (status, None));
    }
    assert_eq!(hub.counts(FIRST).requests, 0);

    let nginx = following(&hub, &format!("{} docker_fallback_on http_404;", chain_of_two()));
    hub.on(CLOUDFLARE, "/", Fault::Status(404));
    assert_eq!(served_by(&get(&nginx.url(&path)).send()), Some(FIRST));
}

#[test]
fn without_a_target_that_serves_the_cdn_is_blamed() {
    let hub = hub();
    let digest = hub.add_blob(b"layer".to_vec());
    let path = format!("/v2/library/x/blobs/{digest}");
    hub.on(FIRST, "/", Fault::Status(404));
    let nginx = following(&hub, &format!("docker_fallback https://{FIRST};"));

    hub.refuse(CLOUDFLARE);
    let answer = get(&nginx.url(&path)).send();
    assert_eq!(answer.status, 502);
    assert_eq!(
        message(&answer),
        "CDN production.cloudflare.docker.com: could not be connected; \
         fallback first.example: 404 Not Found"
    );

    hub.accept(CLOUDFLARE);
    let limited = Response::text(503, "slow down")
        .header("Retry-After", "7")
        .header("Set-Cookie", "a=b")
        .header("Alt-Svc", "h3=\":443\"");
    hub.on(CLOUDFLARE, "/", Fault::Answer(limited.into()));
    let answer = get(&nginx.url(&path)).send();
    assert_eq!((answer.status, answer.text().as_str()), (503, "slow down"));
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!((answer.header("set-cookie"), answer.header("alt-svc")), (None, None));
}

// Credentials.

#[test]
fn a_token_goes_over_verified_https_or_stays_on_this_machine() {
    const TOKEN: &str = "Bearer header.claims.signature";
    let hub = hub_with(Fault::TooManyRequests);
    // To the module an address like any other; to the kernel, this machine.
    hub.add_host("outside.example");
    hub.resolve_to("outside.example", &["0.0.0.0"]);
    let tls = hub.listen_at("outside.example", ([127, 0, 0, 1], 0).into(), true).port();
    let clear = hub.listen_at("outside.example", ([127, 0, 0, 1], 0).into(), false).port();
    let (https, http) =
        (format!("https://outside.example:{tls}"), format!("http://outside.example:{clear}"));
    let rows = [
        ("verified https", https.clone(), true),
        ("in full", format!("{https} credentials=bearer verify=on"), true),
        ("https that is not verified", format!("{https} verify=off"), false),
        ("http", http.clone(), false),
        ("none over https", format!("{https} credentials=none"), false),
        ("none over http", format!("{http} credentials=none"), false),
        ("https to loopback", format!("https://{FIRST}"), true),
        ("http to loopback", format!("http://{FIRST}"), true),
        ("https that is not verified, to loopback", format!("https://{FIRST} verify=off"), true),
        ("none to loopback", format!("http://{FIRST} credentials=none"), false),
    ];

    for (name, target, carried) in rows {
        let host = if target.contains("outside") { "outside.example" } else { FIRST };
        let nginx = start(&hub, &format!("docker_fallback {target};"));
        let answer = get(&nginx.url(PATH)).header("Authorization", TOKEN).send();
        assert_eq!((answer.status, served_by(&answer)), (200, Some(host)), "{name}");
        let carries = hub.last_request(host).header("authorization").map(str::to_owned);
        assert_eq!(carries.as_deref(), carried.then_some(TOKEN), "{name}");
        let answer = get(&nginx.url(PATH)).send();
        assert_eq!((answer.status, served_by(&answer)), (200, Some(host)), "{name}, anonymous");
        assert_eq!(hub.last_request(host).header("authorization"), None, "{name}, anonymous");
    }
}

#[test]
fn a_token_needs_every_address_of_a_target_to_be_of_this_machine() {
    let hub = hub_with(Fault::TooManyRequests);
    let first = hub.address(FIRST).to_string();
    hub.resolve_to(FIRST, &[&first, "0.0.0.0"]);
    let nginx = start(&hub, &format!("docker_fallback http://{FIRST};"));
    let answer = get(&nginx.url(PATH)).bearer("token").send();
    assert_served_over_http(&answer);
    assert_eq!(hub.last_request(FIRST).header("authorization"), None);
}

#[track_caller]
fn assert_served_over_http(answer: &Answer) {
    assert_eq!((answer.status, served_by(answer)), (200, Some(FIRST)));
    assert_eq!(answer.header("x-fallback"), Some("http://first.example"));
}

#[test]
fn a_token_that_the_registry_does_not_get_no_target_gets() {
    let hub = hub_with(Fault::TooManyRequests);
    let rows = [
        ("passed", "", Some("Bearer client")),
        ("blanked", "proxy_set_header Authorization '';", None),
        ("replaced", "proxy_set_header Authorization 'Bearer configured';", None),
    ];
    for (name, directive, want) in rows {
        let nginx = start(&hub, &format!("{directive} {}", chain_of_two()));
        assert_served(&get(&nginx.url(PATH)).bearer("client").send(), FIRST, name);
        assert_eq!(hub.last_request(FIRST).header("authorization"), want, "{name}");
        assert_served(&get(&nginx.url(PATH)).send(), FIRST, name);
        assert_eq!(hub.last_request(FIRST).header("authorization"), None, "{name}, anonymous");
    }
}

#[test]
fn a_token_does_not_follow_the_redirect_of_a_target_to_another_origin() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.add_host_as("cdn.example", Kind::Blank);
    let nginx = following(&hub, &chain_of_two());

    hub.on(FIRST, "/v2/", Fault::redirect(307, "https://cdn.example/"));
    let _ = get(&nginx.url(PATH)).bearer("token").send();
    assert_eq!(hub.last_request("cdn.example").header("authorization"), None);

    hub.on(FIRST, "/v2/", Fault::redirect(307, "/moved"));
    let _ = get(&nginx.url(PATH)).bearer("token").send();
    assert_eq!(hub.last_request(FIRST).uri, "/moved");
    assert_eq!(hub.last_request(FIRST).header("authorization"), Some("Bearer token"));
}

#[test]
fn a_target_is_verified_unless_the_configuration_says_otherwise() {
    let hub = hub_with(Fault::TooManyRequests);
    for certificate in [Certificate::WrongName, Certificate::UnknownAuthority, Certificate::Expired]
    {
        hub.certificate(FIRST, certificate);
        hub.disconnect(FIRST);
        for (verify, status) in [("", 429), ("verify=on", 429), ("verify=off", 200)] {
            let nginx = start(&hub, &format!("docker_fallback https://{FIRST} {verify};"));
            assert_eq!(get(&nginx.url(PATH)).send().status, status, "{certificate:?} {verify}");
        }
        hub.certificate(SECOND, certificate);
        let directives = format!(
            "docker_fallback https://{FIRST}; docker_fallback https://{SECOND} verify=off;"
        );
        let answer = get(&start(&hub, &directives).url(PATH)).send();
        assert_served(&answer, SECOND, &format!("{certificate:?}, each target by its own"));
    }
}

// Beside nginx's own ways of dealing with errors.

#[test]
fn an_error_page_of_the_users_is_used_when_we_decline_or_are_exhausted() {
    let hub = hub();
    hub.refuse(REGISTRY);
    let nginx = mirror(&hub)
        .file("html/50x.html", "the user's page\n")
        .server(&format!(
            "docker_fallback https://{FIRST};
             root %prefix%/html;
             error_page 502 504 /50x.html;
             location / {{ proxy_pass https://{REGISTRY}; }}
             location = /50x.html {{ internal; }}
             location /v2/named/ {{
                 error_page 502 = @named;
                 proxy_pass https://{REGISTRY}/v2/library/;
             }}
             location /v2/other/ {{
                 error_page 502 =503 /v2/static/50x.html;
                 proxy_pass https://{REGISTRY}/v2/library/;
             }}
             location /v2/static/ {{ alias %prefix%/html/; }}
             location @named {{ return 418 'by name\\n'; }}"
        ))
        .start();
    let rows = [
        ("a URI", PATH, 502, "the user's page\n"),
        ("a name", "/v2/named/x/manifests/latest", 418, "by name\n"),
        ("another status", "/v2/other/x/manifests/latest", 503, "the user's page\n"),
    ];
    for (name, path, status, text) in rows {
        let url = nginx.url(path);
        assert_served(&get(&url).send(), FIRST, name);

        let declined = get(&url).header("Authorization", BASIC).send();
        assert_eq!((declined.status, declined.text().as_str()), (status, text), "{name}");
        let declined = request("POST", &url).body("x").send();
        assert!([status, 405].contains(&declined.status), "{name}: {}", declined.status);

        hub.on(FIRST, "/", Fault::Status(404));
        let exhausted = get(&url).send();
        assert_eq!((exhausted.status, exhausted.text().as_str()), (status, text), "{name}");
        assert_eq!(exhausted.header("x-fallback"), None, "{name}");
        hub.off(FIRST);
    }

    hub.accept(REGISTRY);
    hub.on(REGISTRY, "/", Fault::Stall);
    hub.on(FIRST, "/", Fault::Status(404));
    let late = get(&nginx.url(PATH)).send();
    assert_eq!((late.status, late.text().as_str()), (504, "the user's page\n"));
}

#[test]
fn answers_that_nginx_would_pass_are_passed_despite_an_error_page() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.on(FIRST, "/", Fault::Status(404));
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_fallback https://{FIRST};
             error_page 404 429 502 = @page;
             location / {{ proxy_pass https://{REGISTRY}; }}
             location @page {{ return 418 'a page\\n'; }}"
        ))
        .start();
    for fault in [Fault::TooManyRequests, Fault::Status(502), Fault::Status(404)] {
        hub.on(REGISTRY, "/", fault);
        for ask in [get(&nginx.url(PATH)), request("POST", &nginx.url(PATH))] {
            let answer = ask.send();
            assert!([404, 429, 502].contains(&answer.status), "{}", answer.status);
            assert!(answer.json()["errors"].is_array());
        }
    }
}

#[test]
fn intercepted_errors_fall_back_first() {
    let hub = hub();
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_fallback https://{FIRST};
             proxy_intercept_errors on;
             error_page 404 429 = @page;
             location / {{ proxy_pass https://{REGISTRY}; }}
             location /plain/ {{ docker_fallback off; proxy_pass https://{REGISTRY}/; }}
             location @page {{ return 418 'a page\\n'; }}"
        ))
        .start();
    let url = nginx.url(PATH);
    let page = (418, "a page\n".to_owned());
    let of = |answer: Answer| (answer.status, answer.text());

    hub.on(REGISTRY, "/", Fault::TooManyRequests);
    assert_served(&get(&url).send(), FIRST, "429");
    assert_eq!(of(get(&url).header("Authorization", BASIC).send()), page, "declined");
    assert_eq!(of(request("POST", &url).send()), page, "declined");
    hub.on(FIRST, "/", Fault::Status(404));
    assert_eq!(of(get(&url).send()), page, "exhausted; a target's 404 is not intercepted");
    hub.off(FIRST);
    hub.on(REGISTRY, "/", Fault::Status(404));
    assert_eq!(of(get(&url).send()), page, "404 is no condition");

    // There is no page for these: nginx would pass them.
    for fault in [Fault::Status(502), Fault::Status(503), Fault::Status(504)] {
        hub.on(REGISTRY, "/", fault.clone());
        assert_served(&get(&url).send(), FIRST, "no page");
        for ask in
            [|url: &str| request("POST", url), |url: &str| get(url).header("Authorization", BASIC)]
        {
            let plain = ask(&nginx.url(&format!("/plain{PATH}"))).send();
            let answer = ask(&url).send();
            assert_eq!((answer.status, answer.text()), (plain.status, plain.text()), "{fault:?}");
            assert_eq!(stable(&answer), stable(&plain), "{fault:?}");
        }
        hub.on(FIRST, "/", Fault::Status(404));
        let exhausted = get(&url).send();
        assert!(exhausted.text().contains("on demand"), "{fault:?}: {}", exhausted.text());
        hub.off(FIRST);
    }
}

#[test]
fn an_intercepted_answer_has_the_headers_that_its_location_passes() {
    let hub = hub();
    let directives =
        "proxy_intercept_errors on; proxy_hide_header X-Hidden; proxy_pass_header X-Pad;";
    let nginx = start(&hub, &format!("docker_fallback https://{FIRST}; {directives}"));
    hub.on(FIRST, "/", Fault::Status(404));
    for status in [502, 504] {
        let response = Response::error(status, "UNAVAILABLE", "of the registry")
            .header("X-Hidden", "1")
            .header("x-hidden", "2")
            .header("X-Pad", "3")
            .header("X-Shown", "4");
        hub.on(REGISTRY, "/", Fault::Answer(response.into()));
        let url = nginx.url(PATH);
        let asked = [
            ("exhausted", get(&url).send()),
            ("declined", get(&url).header("Authorization", BASIC).send()),
        ];
        for (name, answer) in asked {
            let told = ["x-hidden", "x-pad", "x-shown"].map(|header| answer.header(header));
            assert_eq!((answer.status, told), (status, [None, Some("3"), Some("4")]), "{name}");
            assert_eq!(message(&answer), "of the registry", "{name}");
        }
    }
}

#[test]
fn an_auth_request_whose_service_is_down_stays_denied() {
    let hub = hub();
    hub.add_host_as("auth.example", Kind::Blank);
    hub.listen("auth.example", 5000, false);
    let auth = hub.address("auth.example");
    let nginx = mirror(&hub)
        .server(&format!(
            "location /v2/ {{
                 auth_request /v2/auth;
                 docker_fallback https://{FIRST};
                 docker_fallback_on error timeout http_403 http_500 http_502 http_503 http_504;
                 proxy_pass https://{REGISTRY};
             }}
             location = /v2/auth {{
                 internal;
                 docker_fallback https://{FIRST};
                 docker_fallback_on error timeout http_403 http_500 http_502 http_503;
                 docker_follow_redirect on;
                 proxy_pass http://{auth}:5000/check;
             }}"
        ))
        .start();
    let rows = [
        ("granted", None, 200),
        ("denied", Some(Fault::Status(403)), 403),
        ("not known", Some(Fault::Status(401)), 401),
        ("broken", Some(Fault::Status(500)), 500),
        ("unavailable", Some(Fault::Status(503)), 500),
        ("redirected", Some(Fault::redirect(302, format!("https://{FIRST}/"))), 500),
        ("closed", Some(Fault::Close(End::Close)), 500),
        ("silent", Some(Fault::Stall), 500),
    ];
    for (name, fault, status) in rows {
        if let Some(fault) = fault {
            hub.on("auth.example", "/", fault);
        }
        let answer = get(&nginx.url(PATH)).send();
        assert_eq!((answer.status, answer.header("x-fallback")), (status, None), "{name}");
        assert_eq!(hub.counts(FIRST).connections, 0, "{name}");
        assert_eq!(hub.counts(REGISTRY).requests, u64::from(status == 200), "{name}");
        hub.reset();
    }
    hub.refuse("auth.example");
    assert_eq!(get(&nginx.url(PATH)).send().status, 500, "refused");
    assert_eq!((hub.counts(FIRST).requests, hub.counts(REGISTRY).requests), (0, 0));
}

#[test]
fn auth_request_is_asked_once_for_all_attempts() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.add_host_as("auth.example", Kind::Blank);
    hub.on(FIRST, "/", Fault::Status(404));
    let auth = hub.address("auth.example");
    let nginx = mirror(&hub)
        .server(&format!(
            "location / {{ auth_request /auth; {} proxy_pass https://{REGISTRY}; }}
             location = /auth {{ internal; proxy_pass http://{auth}/check; }}",
            chain_of_two()
        ))
        .start();
    assert_served(&get(&nginx.url(PATH)).send(), SECOND, "granted");
    assert_eq!(hub.counts("auth.example").requests, 1);
    hub.refuse(REGISTRY);
    assert_served(&get(&nginx.url(PATH)).send(), SECOND, "granted");
    assert_eq!(hub.counts("auth.example").requests, 2);
}

#[test]
fn requests_that_nginx_mirrors_do_not_fall_back_nor_multiply() {
    let hub = hub();
    hub.add_host_as("copy.example", Kind::Blank);
    let copy = hub.address("copy.example");
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_fallback https://{FIRST};
             location / {{ mirror /copy; proxy_pass https://{REGISTRY}; }}
             location = /copy {{
                 internal;
                 docker_fallback https://{SECOND};
                 proxy_pass http://{copy}$request_uri;
             }}"
        ))
        .start();

    hub.on("copy.example", "/", Fault::TooManyRequests);
    assert_eq!(get(&nginx.url(PATH)).send().header("x-origin"), Some(REGISTRY));
    hub.refuse("copy.example");
    assert_eq!(get(&nginx.url(PATH)).send().header("x-origin"), Some(REGISTRY));
    hub.accept("copy.example");
    hub.forget();

    for (number, fault) in
        [Fault::TooManyRequests, Fault::Close(End::Close)].into_iter().enumerate()
    {
        hub.on(REGISTRY, "/", fault);
        assert_served(&get(&nginx.url(PATH)).send(), FIRST, "the request itself");
        let number = u64::try_from(number).unwrap() + 1;
        wait_for("the mirrored request", || hub.counts("copy.example").requests >= number);
        assert_eq!(hub.counts("copy.example").requests, number);
    }
    assert_eq!(hub.counts(SECOND).requests, 0);
}

#[test]
fn errors_that_no_upstream_caused_do_not_fall_back() {
    let hub = hub();
    let all = "docker_fallback_on error timeout http_403 http_404 http_413 http_429 http_500 \
               http_502 http_503 http_504;";
    let nginx = mirror(&hub)
        .http(
            "limit_req_zone all zone=one:1m rate=1r/m;
             limit_conn_zone all zone=none:1m;",
        )
        .file("html/x", "")
        .server(&format!(
            "docker_fallback https://{FIRST};
             {all}
             location /v2/limit/502/ {{
                 limit_req zone=one; limit_req_status 502; proxy_pass https://{REGISTRY};
             }}
             location /v2/limit/429/ {{
                 limit_req zone=one; limit_req_status 429; proxy_pass https://{REGISTRY};
             }}
             location /v2/limit/503/ {{ limit_req zone=one; proxy_pass https://{REGISTRY}; }}
             location /v2/return/ {{ return 502; proxy_pass https://{REGISTRY}; }}
             location /v2/text/ {{ return 503 'text'; proxy_pass https://{REGISTRY}; }}
             location /v2/deny/ {{ deny all; proxy_pass https://{REGISTRY}; }}
             location /v2/large/ {{ client_max_body_size 1; proxy_pass https://{REGISTRY}; }}
             location /v2/file/ {{ root %prefix%/html; }}"
        ))
        .start();
    let _ = get(&nginx.url("/v2/limit/503/x")).send();
    hub.forget();
    let rows = [
        ("/v2/limit/502/x", 502),
        ("/v2/limit/429/x", 429),
        ("/v2/limit/503/x", 503),
        ("/v2/return/x", 502),
        ("/v2/text/x", 503),
        ("/v2/deny/x", 403),
        ("/v2/file/none", 404),
    ];
    for (path, status) in rows {
        for ask in [get(&nginx.url(path)), head(&nginx.url(path))] {
            let answer = ask.send();
            assert_eq!((answer.status, answer.header("x-fallback")), (status, None), "{path}");
        }
    }
    assert_eq!(get(&nginx.url("/v2/large/x")).body("large").send().status, 413);
    assert_eq!((hub.counts(FIRST).requests, hub.counts(REGISTRY).requests), (0, 0));
}

#[test]
fn a_request_that_falls_back_counts_once_for_limits() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.on(FIRST, "/", Fault::Status(404));
    let nginx = mirror(&hub)
        .http("limit_req_zone all zone=one:1m rate=1r/m;")
        .server(&format!(
            "location / {{
                 limit_req zone=one burst=2 nodelay;
                 {}
                 proxy_pass https://{REGISTRY};
             }}",
            chain_of_two()
        ))
        .start();
    for _ in 0..3 {
        assert_served(&get(&nginx.url(PATH)).send(), SECOND, "within the limit");
    }
    assert_eq!(get(&nginx.url(PATH)).send().status, 503);
}

#[test]
fn orders_to_nginx_from_the_registry_lead_nowhere() {
    let hub = hub();
    let nginx = mirror(&hub)
        .http("log_format plain '$request_uri $status';")
        .server(&format!(
            "location /v2/ {{ {chain} proxy_pass https://{REGISTRY}; }}
             location /ignoring/ {{
                 {chain}
                 proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate
                                      X-Accel-Buffering X-Accel-Charset;
                 proxy_pass https://{REGISTRY}/;
             }}",
            chain = chain_of_two()
        ))
        .start();
    for order in ["@docker:0", "@docker:1", "@docker:99", "@docker:"] {
        for status in [200, 404, 429, 502] {
            let answer = Response::text(status, "content").header("X-Accel-Redirect", order);
            hub.on(REGISTRY, "/", Fault::Answer(answer.into()));
            for ask in [get(&nginx.url(PATH)), head(&nginx.url(PATH))] {
                // nginx obeys before any filter runs; there, nobody waits for the request.
                let answer = ask.send();
                assert_eq!(answer.status, 500, "{order} with {status}");
                assert_eq!(answer.header("x-fallback"), None);
            }
        }
    }
    assert_eq!(hub.counts(FIRST).requests, 0);

    let answer = Response::text(200, "content").header("X-Accel-Redirect", "@docker:0");
    hub.on(REGISTRY, "/", Fault::Answer(answer.into()));
    let answer = get(&nginx.url(&format!("/ignoring{PATH}"))).send();
    assert_eq!((answer.status, answer.text().as_str()), (200, "content"));
    assert_eq!(answer.header("x-accel-redirect"), None);
    let answer = Response::text(429, "content").header("X-Accel-Redirect", "@docker:0");
    hub.on(REGISTRY, "/", Fault::Answer(answer.into()));
    assert_served(&get(&nginx.url(&format!("/ignoring{PATH}"))).send(), FIRST, "a limit");
}

#[test]
fn another_server_of_an_upstream_group_is_no_fallback() {
    let hub = hub();
    let (first, second) = (hub.address(FIRST), hub.address(REGISTRY));
    hub.on(FIRST, "/", Fault::Close(End::Close));
    let nginx = mirror(&hub)
        .http(&format!("upstream group {{ server {first}:80; server {second}:80; }}"))
        .server(&format!(
            "location / {{
                 docker_fallback https://{SECOND};
                 proxy_set_header Host {REGISTRY};
                 proxy_pass http://group;
             }}"
        ))
        .start();
    for _ in 0..2 {
        let answer = get(&nginx.url(PATH)).send();
        assert_eq!((answer.status, answer.header("x-origin")), (200, Some(REGISTRY)));
    }
    hub.refuse(REGISTRY);
    assert_served(&get(&nginx.url(PATH)).send(), SECOND, "all of the group failed");
    assert_served(&get(&nginx.url(PATH)).send(), SECOND, "no live upstreams");
}

#[test]
fn what_a_target_serves_is_not_cached() {
    let hub = hub();
    hub.on_times(REGISTRY, "/", 1, Fault::TooManyRequests);
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=cache:1m;")
        .server(&format!(
            "location / {{
                 {}
                 proxy_cache cache;
                 proxy_cache_valid any 1h;
                 proxy_pass https://{REGISTRY};
                 add_header X-Cache $upstream_cache_status always;
             }}",
            chain_of_two()
        ))
        .start();
    let first = get(&nginx.url(PATH)).send();
    assert_eq!((first.status, served_by(&first)), (200, Some(FIRST)));
    let second = get(&nginx.url(PATH)).send();
    assert_eq!((second.status, served_by(&second)), (200, None), "the registry is well again");
    let third = get(&nginx.url(PATH)).send();
    assert_eq!((third.status, third.header("x-cache")), (200, Some("HIT")));
    assert_eq!((hub.counts(REGISTRY).requests, hub.counts(FIRST).requests), (2, 1));

    hub.refuse(REGISTRY);
    assert_eq!(get(&nginx.url(PATH)).send().header("x-cache"), Some("HIT"), "no failure to notice");
}

#[test]
fn a_stale_answer_of_the_cache_is_no_failure() {
    let hub = hub();
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=cache:1m;")
        .server(&format!(
            "location / {{
                 {}
                 proxy_cache cache;
                 proxy_cache_valid 200 1s;
                 proxy_cache_use_stale error timeout http_429 http_502;
                 proxy_pass https://{REGISTRY};
                 add_header X-Cache $upstream_cache_status always;
             }}",
            chain_of_two()
        ))
        .start();
    assert_eq!(get(&nginx.url(PATH)).send().header("x-cache"), Some("MISS"));
    std::thread::sleep(Duration::from_millis(2100));
    for fault in [Fault::TooManyRequests, Fault::Close(End::Close)] {
        hub.on(REGISTRY, "/", fault);
        let answer = get(&nginx.url(PATH)).send();
        assert_eq!((answer.status, answer.header("x-cache")), (200, Some("STALE")));
    }
    assert_eq!(hub.counts(FIRST).requests, 0);
}

#[test]
fn conditions_and_ranges_of_nginxs_own_go_nowhere_else() {
    let hub = hub();
    let blob = format!("/v2/library/x/blobs/{}", hub.add_blob(vec![b'x'; 1000]));
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=cache:1m;")
        .server(&format!(
            "{}
             location / {{
                 proxy_cache cache;
                 proxy_cache_valid 200 1s;
                 proxy_cache_revalidate on;
                 proxy_pass https://{REGISTRY};
             }}
             location /sliced/ {{
                 slice 100;
                 proxy_set_header Range $slice_range;
                 proxy_pass https://{REGISTRY}/;
             }}",
            chain_of_two()
        ))
        .start();
    let tagged = Response::text(200, "old").header("ETag", "\"a\"");
    hub.on_times(REGISTRY, PATH, 1, Fault::Answer(tagged.into()));
    assert_eq!(get(&nginx.url(PATH)).send().text(), "old");
    std::thread::sleep(Duration::from_millis(2100));
    hub.on(REGISTRY, "/", Fault::Status(503));
    assert_served(&get(&nginx.url(PATH)).send(), FIRST, "revalidated");
    let sent = |host: &str| hub.requests(host).pop().unwrap();
    assert_eq!(sent(REGISTRY).header("if-none-match"), Some("\"a\""));
    assert_eq!(sent(FIRST).header("if-none-match"), None);

    for (range, passed) in
        [(None, None), (Some("bytes=0-99"), Some("bytes=0-99")), (Some("bytes=5-9"), None)]
    {
        let mut client = get(&nginx.url(&format!("/sliced{blob}")));
        if let Some(range) = range {
            client = client.header("Range", range);
        }
        let answer = client.send();
        assert_eq!(served_by(&answer), Some(FIRST), "{range:?}");
        assert_eq!(sent(REGISTRY).header("range"), Some("bytes=0-99"), "{range:?}");
        assert_eq!(sent(FIRST).header("range"), passed, "{range:?}");
    }
}

// Loops.

/// For mirrors that wait for mirrors.
const PATIENT: &str = "proxy_connect_timeout 30s; proxy_read_timeout 30s;";

/// Lets the target at port 1 be this port from now on.
fn point(nginx: &Nginx, port: u16) {
    let file = nginx.prefix().join("nginx.conf");
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replace("127.0.0.1:1;", &format!("127.0.0.1:{port};"));
    std::fs::write(file, text).unwrap();
    let old = nginx.workers();
    nginx.reload();
    nginx.wait_until_gone(&old);
}

#[test]
fn mirrors_that_name_each_other_ask_each_other_once() {
    let hub = hub_with(Fault::TooManyRequests);
    let one = start(&hub, &format!("{PATIENT} docker_fallback http://127.0.0.1:1;"));
    let directives = format!("{PATIENT} docker_fallback http://127.0.0.1:{};", one.port());
    let other = start(&hub, &directives);
    point(&one, other.port());

    for nginx in [&one, &other] {
        hub.forget();
        let answer = get(&nginx.url(PATH)).send();
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("3600")));
        // By the first mirror, by the second, and by the first on the second's behalf.
        assert_eq!(hub.counts(REGISTRY).requests, 3);
    }
    hub.refuse(REGISTRY);
    assert_eq!(get(&one.url(PATH)).send().status, 502);
}

#[test]
fn a_mirror_that_names_itself_asks_itself_once() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = mirror(&hub)
        .server(&format!(
            "location / {{ {PATIENT} docker_fallback http://127.0.0.1:%port%; \
              proxy_pass https://{REGISTRY}; }}"
        ))
        .start();
    assert_eq!(get(&nginx.url(PATH)).send().status, 429);
    assert_eq!(hub.counts(REGISTRY).requests, 2);
}

#[test]
fn a_chain_of_mirrors_works() {
    let hub = hub_with(Fault::TooManyRequests);
    let digest = hub.add_blob(b"layer".to_vec());
    let second = following(&hub, &format!("docker_fallback https://{FIRST};"));
    let directives = format!("{PATIENT} docker_fallback http://127.0.0.1:{};", second.port());
    let first = following(&hub, &directives);

    let answer = get(&first.url(PATH)).bearer("token").send();
    assert_eq!((answer.status, served_by(&answer)), (200, Some(FIRST)));
    let passed = hub.last_request(FIRST).header("cdn-loop").unwrap().to_owned();
    let names: Vec<_> = passed.split(", ").collect();
    assert_eq!(names.len(), 2, "{passed}");
    assert!(names.iter().all(|name| name.starts_with("docker-mirror-")), "{passed}");
    assert_ne!(names[0], names[1]);
    let token = hub.last_request(FIRST).header("authorization").map(str::to_owned);
    assert_eq!(token.as_deref(), Some("Bearer token"));

    // The second mirror's registry is well again, and redirects.
    hub.off(REGISTRY);
    hub.on_times(REGISTRY, "/", 1, Fault::Status(503));
    let answer = get(&first.url(&format!("/v2/library/x/blobs/{digest}"))).send();
    assert_eq!((answer.status, answer.text().as_str()), (200, "layer"));
    assert_eq!(
        answer.header("x-fallback"),
        Some(format!("http://127.0.0.1:{}", second.port()).as_str())
    );
    let names = hub.last_request(CLOUDFLARE).header("cdn-loop").unwrap().split(", ").count();
    assert_eq!(names, 2);
}

#[test]
fn a_client_that_claims_to_come_from_here_does_not_fall_back() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = start(&hub, &chain_of_two());
    let foreign = "cdn.example; v=1, docker-mirror-0000000000000000";
    assert_served(&get(&nginx.url(PATH)).header("CDN-Loop", foreign).send(), FIRST, "others");
    let passed = hub.last_request(FIRST).header("cdn-loop").unwrap().to_owned();
    let own = passed.strip_prefix(&format!("{foreign}, ")).unwrap().to_owned();

    for value in [own.clone(), format!("a, {own}"), own.to_uppercase(), format!("{own};x=\"y\"")] {
        let answer = get(&nginx.url(PATH)).header("CDN-Loop", &value).send();
        assert_eq!(answer.status, 429, "{value}");
    }
    let answer = get(&nginx.url(PATH)).header("CDN-Loop", "a").header("CDN-Loop", &own).send();
    assert_eq!(answer.status, 429, "in a second line");
}

// What is told.

#[test]
fn the_path_of_a_target_is_in_no_log_and_no_answer() {
    const SECRET: &str = "5ecret";
    let hub = hub_with(Fault::TooManyRequests);
    hub.add_host_as("cdn.example", Kind::Blank);
    let nginx = mirror(&hub)
        .http(
            "log_format all '$request $status $upstream_addr $docker_fallback \
             $docker_origin_host $docker_redirects';",
        )
        .server(&format!(
            "access_log %prefix%/access.log all;
             location / {{
                 docker_follow_redirect on private={network};
                 docker_fallback https://{FIRST}/{SECRET}/path;
                 proxy_pass https://{REGISTRY};
             }}",
            network = hub.network()
        ))
        .start();
    let mut troubles: Vec<Trouble> =
        [200, 404, 503].map(|status| fault("a status", FIRST, Fault::Status(status))).into();
    for location in ["elsewhere?query", "/5ecret/other", "https://first.example/5ecret/z", ":"] {
        troubles.push(fault("a redirect", FIRST, Fault::redirect(307, location)));
    }
    troubles.extend(errors(FIRST));
    troubles.extend(silences(FIRST));
    for (name, cause) in troubles {
        cause(&hub);
        let answer = get(&nginx.url(PATH)).send();
        assert!(!format!("{answer:?}").contains(SECRET), "{name}: {answer:?}");
        assert!(!answer.text().contains(SECRET), "{name}: {}", answer.text());
        if hub.counts(FIRST).requests > 0 {
            assert!(hub.last_request(FIRST).uri.contains(SECRET), "{name}");
        }
        recover(&hub, FIRST);
        hub.on(REGISTRY, "/", Fault::TooManyRequests);
    }
    let (errors, accesses) = (nginx.errors(), nginx.accesses());
    assert!(errors.contains("falling back"), "{errors}");
    assert!(!errors.contains(SECRET), "{errors}");
    assert!(!accesses.contains(SECRET), "{accesses}");
}

#[test]
fn the_access_log_tells_every_attempt() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.on(FIRST, "/", Fault::Status(404));
    let nginx = mirror(&hub)
        .http(
            "log_format facts '$request_method $status [$upstream_status] [$docker_fallback] \
             [$docker_origin_host] [$docker_redirects]';",
        )
        .server(&format!(
            "access_log %prefix%/access.log facts;
             location / {{ {} proxy_pass https://{REGISTRY}; }}
             location /static {{ return 204; }}",
            chain_of_two()
        ))
        .start();
    let mut want = String::new();
    let mut expect = |line: &str| {
        want.push_str(line);
        want.push('\n');
        wait_for("a line of the access log", || {
            nginx.accesses().lines().count() == want.lines().count()
        });
        assert_eq!(nginx.accesses(), want);
    };

    let _ = get(&nginx.url(PATH)).send();
    expect("GET 200 [429 : 404 : 200] [https://second.example] [second.example] [0]");
    hub.refuse(REGISTRY);
    let _ = head(&nginx.url(PATH)).send();
    expect("HEAD 200 [502 : 404 : 200] [https://second.example] [second.example] [0]");
    hub.on(SECOND, "/", Fault::Status(500));
    let _ = get(&nginx.url(PATH)).send();
    expect("GET 502 [502 : 404 : 500] [] [registry-1.docker.io] [0]");
    hub.accept(REGISTRY);
    let _ = get(&nginx.url(PATH)).send();
    expect("GET 429 [429 : 404 : 500] [] [registry-1.docker.io] [0]");
    hub.off(REGISTRY);
    let _ = get(&nginx.url(PATH)).send();
    expect("GET 200 [200] [] [registry-1.docker.io] [0]");
    let _ = get(&nginx.url("/static")).send();
    expect("GET 204 [-] [] [-] [0]");
}

// Locations.

#[test]
fn every_kind_of_location_falls_back() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = mirror(&hub)
        .server(&format!(
            "location /v2/outer/ {{
                 docker_fallback https://{FIRST};
                 proxy_pass https://{REGISTRY}/v2/library/;
                 location /v2/outer/inner/ {{ proxy_pass https://{REGISTRY}/v2/library/; }}
                 location ~ ^/v2/outer/regex/(.*) {{ proxy_pass https://{REGISTRY}/v2/library/$1; }}
                 location /v2/outer/own/ {{
                     docker_fallback https://{SECOND};
                     proxy_pass https://{REGISTRY}/v2/library/;
                 }}
                 location /v2/outer/off/ {{
                     docker_fallback off;
                     proxy_pass https://{REGISTRY}/v2/library/;
                 }}
             }}
             location /v2/library/ {{
                 docker_fallback https://{FIRST};
                 if ($arg_if = same) {{ proxy_pass https://{REGISTRY}; }}
                 if ($arg_if = header) {{ add_header X-If yes; }}
                 limit_except GET HEAD {{ deny all; }}
                 proxy_pass https://{REGISTRY};
             }}"
        ))
        .start();
    let rows = [
        ("/v2/outer/x/manifests/latest", Some(FIRST)),
        ("/v2/outer/inner/x/manifests/latest", Some(FIRST)),
        ("/v2/outer/regex/x/manifests/latest", Some(FIRST)),
        ("/v2/outer/own/x/manifests/latest", Some(SECOND)),
        ("/v2/outer/off/x/manifests/latest", None),
        ("/v2/library/x/manifests/latest", Some(FIRST)),
        ("/v2/library/x/manifests/latest?if=same", Some(FIRST)),
        ("/v2/library/x/manifests/latest?if=header", Some(FIRST)),
    ];
    // An answer, and a failure that nginx makes a 502 of.
    for refused in [false, true] {
        if refused {
            hub.refuse(REGISTRY);
        }
        for (path, want) in rows {
            for ask in [get(&nginx.url(path)), head(&nginx.url(path))] {
                let answer = ask.send();
                assert_eq!(served_by(&answer), want, "{path}, refused: {refused}");
                let status = if refused { 502 } else { 429 };
                assert_eq!(answer.status, want.map_or(status, |_| 200), "{path}");
            }
        }
        assert_eq!(request("DELETE", &nginx.url("/v2/library/x")).send().status, 403);
    }
}

/// Over HTTP/2, nginx notes nowhere what it has asked for.
#[test]
fn a_target_is_asked_what_an_upstream_of_http2_was() {
    if Nginx::version() < (1, 29, 4) {
        return;
    }
    let hub = hub();
    hub.resolve("found.example", Dns::Addresses(vec![Ipv4Addr::LOCALHOST.into()]));
    hub.route(FIRST, |request| Response::text(200, request.line()).into());
    let locations = "
        location /v2/plain/ { proxy_pass http://127.0.0.1:%port2%; }
        location /v2/mapped/ { proxy_pass http://127.0.0.1:%port2%/v2/library/; }
        location ~ ^/v2/named/(.*)$ { proxy_pass http://127.0.0.1:%port2%/v2/a/$1$is_args$args; }
        location ~ ^/v2/found/(.*)$ { proxy_pass http://found.example:%port2%/v2/a/$1; }
        location /v2/host/ { set $host_alone found.example:%port2%; proxy_pass http://$host_alone; }
        location /v2/written/ {
            rewrite ^/v2/written/(.*) /v2/b/$1 break;
            proxy_pass http://127.0.0.1:%port2%;
        }
        location /v2/mapped/in/vain/ {
            rewrite ^/v2/mapped/in/vain/(.*) /v2/c/$1 break;
            proxy_pass http://127.0.0.1:%port2%/v2/library/;
        }
        location /v2/led/ { try_files /none /v2/mapped/led; }";
    let server = |version: &str| {
        format!("docker_fallback https://{FIRST}; proxy_http_version {version}; {locations}")
    };
    // It answers, or ends the connection.
    let origin = "location / { if ($uri ~ gone) { return 444; } return 429; }";
    let nginx = mirror(&hub).server(&server("1.1")).server(&server("2")).h2c_server(origin).start();
    for location in
        ["plain", "mapped", "named", "found", "host", "written", "mapped/in/vain", "led"]
    {
        for name in ["x", "gone", "x%2By/z", "x%2Fy?a=b&c=%20"] {
            let path = format!("/v2/{location}/{name}");
            let [want, got] = [0, 1].map(|number| get(&nginx.url_of(number, &path)).send());
            assert_eq!((want.status, got.status), (200, 200), "{path}");
            assert_eq!(got.text(), want.text(), "{path}");
        }
    }
}

#[test]
fn a_declared_registry_of_http2_has_a_fallback_as_well() {
    if Nginx::version() < (1, 29, 4) {
        return;
    }
    let hub = hub();
    hub.route(FIRST, |request| Response::text(200, request.line()).into());
    let nginx = mirror(&hub)
        .http("docker_zone docker:1m;")
        .server(&format!(
            "docker_registry one.example http://127.0.0.1:%port1% default;
             docker_fallback https://{FIRST};
             proxy_http_version 2;
             location /v2/ {{ proxy_pass $docker_upstream; }}
             location = /status {{ docker_status; }}"
        ))
        .h2c_server("location / { if ($uri ~ gone) { return 444; } return 429; }")
        .start();
    // The breaker opens.
    for _ in 0..4 {
        for path in ["/v2/a/tags/list", "/v2/gone/tags/list"] {
            let answer = get(&nginx.url(path)).send();
            assert_eq!((answer.status, answer.text()), (200, format!("GET {path}")));
        }
    }
    assert!(get(&nginx.url("/status")).send().text().contains("kind=\"tags\"} 8"));
}

#[test]
fn an_inherited_fallback_is_for_the_registrys_api_only() {
    let hub = hub();
    hub.refuse(REGISTRY);
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_fallback https://{FIRST};
             location / {{ proxy_pass https://{REGISTRY}; }}
             location /as/api/ {{ proxy_pass https://{REGISTRY}/v2/library/; }}
             location /v2/as/page/ {{ proxy_pass https://{REGISTRY}/page/; }}
             location /own/ {{ docker_fallback https://{FIRST}; proxy_pass https://{REGISTRY}/; }}"
        ))
        .start();
    let rows = [
        (PATH, true),
        ("/page", false),
        ("/v2", false),
        ("/v2/", true),
        ("/as/api/x/manifests/latest", true),
        ("/v2/as/page/x", false),
        ("/own/page", true),
        ("/token?service=registry.docker.io", false),
    ];
    for (path, falls_back) in rows {
        hub.forget();
        let answer = get(&nginx.url(path)).send();
        assert_eq!(hub.counts(FIRST).requests, u64::from(falls_back), "{path}");
        if !falls_back {
            assert_eq!(answer.status, 502, "{path}");
        }
    }
}

// Clients that leave.

#[test]
fn a_client_that_leaves_ends_the_search() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.resolve("silent.example", Dns::Silence);
    hub.on(FIRST, "/", Fault::Stall);
    let nginx = mirror(&hub)
        .server(&format!(
            "proxy_read_timeout 20s;
             location / {{ {} proxy_pass https://{REGISTRY}; }}
             location /v2/silent/ {{
                 docker_fallback https://silent.example https://{SECOND};
                 proxy_pass https://{REGISTRY};
             }}",
            chain_of_two()
        ))
        .start();

    let mut client = Connection::open(&get(&nginx.url(PATH))).unwrap();
    client.start(&get(&nginx.url(PATH))).unwrap();
    wait_for("the target to be asked", || hub.counts(FIRST).requests == 1);
    client.reset();
    wait_for("the target to be left", || hub.counts(FIRST).open == 0);

    let path = nginx.url("/v2/silent/x");
    let mut client = Connection::open(&get(&path)).unwrap();
    client.start(&get(&path)).unwrap();
    wait_for("the name to be asked for", || hub.queries("silent.example") > 0);
    client.reset();
    nginx.wait_for_log("prematurely closed connection");
    wait_for("both requests to be logged", || nginx.accesses().lines().count() == 2);
    assert!(nginx.accesses().lines().all(|line| line.contains(" 499 ")), "{}", nginx.accesses());
    assert_eq!(hub.counts(SECOND).requests, 0);
}

/// nginx runs the request once more then, and the name server has not answered yet.
#[test]
fn a_post_action_of_a_client_that_left_runs_once() {
    let hub = hub_with(Fault::TooManyRequests);
    hub.resolve("silent.example", Dns::Silence);
    hub.on(SECOND, "/", Fault::Stall);
    let nginx = mirror(&hub)
        .server(&format!(
            "resolver_timeout 1s;
             location / {{
                 docker_fallback https://silent.example;
                 post_action @done;
                 proxy_pass https://{REGISTRY};
             }}
             location @done {{ proxy_read_timeout 3s; proxy_pass http://{}; }}",
            hub.address(SECOND)
        ))
        .start();

    let url = nginx.url(PATH);
    let mut client = Connection::open(&get(&url)).unwrap();
    client.start(&get(&url)).unwrap();
    wait_for("the name to be asked for", || hub.queries("silent.example") > 0);
    client.reset();
    wait_for("the post action", || hub.counts(SECOND).requests > 0);
    wait_for("its end", || nginx.accesses().lines().count() > 0);
    assert_eq!(hub.counts(SECOND).requests, 1);
}

#[test]
fn a_clients_connection_outlives_a_fallback() {
    let hub = hub_with(Fault::TooManyRequests);
    let nginx = mirror(&hub)
        .server(&format!(
            "location / {{ docker_fallback https://{FIRST}; proxy_pass https://{REGISTRY}; }}
             location /gone/ {{ docker_fallback https://{FIRST}; proxy_pass http://127.0.0.1:1/; }}"
        ))
        .start();
    let mut client = Connection::open(&get(&nginx.url(PATH))).unwrap();
    for path in [PATH.to_owned(), format!("/gone{PATH}")] {
        for (served, status) in [(true, 200), (false, if path == PATH { 429 } else { 502 })] {
            hub.off(FIRST);
            if !served {
                hub.on(FIRST, "/", Fault::Status(404));
            }
            for ask in [get(&nginx.url(&path)), head(&nginx.url(&path)), get(&nginx.url(&path))] {
                let answer = client.send(&ask).unwrap();
                assert!(answer.complete, "{path}");
                assert_eq!(answer.status, status, "{path}");
            }
        }
    }
}

#[test]
fn ranges_and_conditions_hold_at_a_target() {
    let hub = hub_with(Fault::TooManyRequests);
    let digest = hub.add_blob(b"0123456789".to_vec());
    let nginx = start(&hub, &chain_of_two());
    let url = nginx.url(&format!("/v2/library/x/blobs/{digest}"));
    let middle = get(&url).header("Range", "bytes=2-4").send();
    assert_eq!((middle.status, middle.text().as_str()), (206, "234"));
    assert_eq!(middle.header("content-range"), Some("bytes 2-4/10"));
    let behind = get(&url).header("Range", "bytes=20-").send();
    assert_eq!((behind.status, served_by(&behind)), (416, Some(FIRST)));
    let manifest = nginx.url(PATH);
    let tag = get(&manifest).send().header("etag").unwrap().to_owned();
    let known = get(&manifest).header("If-None-Match", tag).send();
    assert_eq!((known.status, served_by(&known)), (304, Some(FIRST)));
}

#[test]
fn a_body_that_is_cut_is_not_begun_again() {
    let hub = hub();
    let nginx = start(&hub, &chain_of_two());
    for shape in
        [Shape::CutBody(20, End::Close), Shape::CutBody(20, End::Reset), Shape::StallBody(20)]
    {
        hub.on(REGISTRY, "/", Fault::Shape(shape.clone()));
        let answer = get(&nginx.url(PATH)).send();
        assert_eq!((answer.status, answer.complete), (200, false), "{shape:?}");
        assert!(answer.body.len() <= 20, "{shape:?}");
    }
    assert_eq!(hub.counts(FIRST).requests, 0);
}

#[test]
fn a_location_that_an_error_page_leads_to_has_its_own_rules() {
    let hub = hub();
    hub.add_host_as("backup.example", Kind::Blank);
    let backup = hub.address("backup.example");
    let nginx = mirror(&hub)
        .server(&format!(
            "recursive_error_pages on;
             location /v2/ {{
                 docker_fallback https://{FIRST};
                 error_page 502 = @backup;
                 proxy_pass https://{REGISTRY};
             }}
             location @backup {{
                 docker_fallback https://{SECOND};
                 proxy_pass http://{backup};
             }}"
        ))
        .start();
    hub.refuse(REGISTRY);
    hub.on(FIRST, "/", Fault::Status(404));

    let cookie = Response::text(200, "backup").header("Set-Cookie", "a=b");
    hub.on("backup.example", "/", Fault::Answer(cookie.into()));
    let answer = get(&nginx.url(PATH)).send();
    assert_eq!((answer.status, answer.text().as_str()), (200, "backup"));
    assert_eq!(answer.header("set-cookie"), Some("a=b"), "the backup is no foreign origin");
    assert_eq!(answer.header("x-fallback"), None);

    hub.on("backup.example", "/", Fault::Status(404));
    let answer = get(&nginx.url(PATH)).send();
    assert_eq!((answer.status, answer.header("x-fallback")), (404, None));
    assert!(answer.text().contains("on demand"), "{}", answer.text());

    hub.on("backup.example", "/", Fault::TooManyRequests);
    assert_served(&get(&nginx.url(PATH)).send(), SECOND, "an answer");
    hub.on("backup.example", "/", Fault::Close(End::Close));
    assert_served(&get(&nginx.url(PATH)).send(), SECOND, "a failure");

    hub.on(SECOND, "/", Fault::Status(404));
    let answer = get(&nginx.url(PATH)).send();
    assert_eq!(answer.status, 502);
    assert!(message(&answer).ends_with("second.example: 404 Not Found"), "{}", answer.text());
}

#[test]
fn eight_targets_may_fail() {
    let hub = hub();
    let targets: String = (0..8).map(|number| format!("https://{SECOND}/{number} ")).collect();
    let refused: String = (0..8).map(|number| format!("http://127.0.0.1:1/{number} ")).collect();
    let nginx = mirror(&hub)
        .server(&format!(
            "location / {{ docker_fallback {targets}; proxy_pass https://{REGISTRY}; }}
             location /refused/ {{ docker_fallback {refused}; proxy_pass https://{REGISTRY}/; }}
             location /once/ {{ rewrite ^/once(/.*) /twice$1 last; }}
             location /twice/ {{ rewrite ^/twice(/.*) /thrice$1 last; }}
             location /thrice/ {{ rewrite ^/thrice(/.*) $1 last; }}"
        ))
        .start();
    hub.on(SECOND, "/", Fault::Status(503));
    // With redirects of the user's own, not all eight can be asked; the original survives.
    for (path, asked) in [("", 8), ("/refused", 0), ("/once", 0), ("/once/refused", 0)] {
        hub.off(REGISTRY);
        hub.on(REGISTRY, "/", Fault::TooManyRequests);
        hub.forget();
        let answer = get(&nginx.url(&format!("{path}{PATH}"))).send();
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("3600")), "{path}");
        if asked > 0 {
            assert_eq!(hub.counts(SECOND).requests, asked, "{path}");
        }

        hub.on(REGISTRY, "/", Fault::Close(End::Close));
        let answer = get(&nginx.url(&format!("{path}{PATH}"))).send();
        assert_eq!(answer.status, 502, "{path}");
        let says = message(&answer);
        assert!(
            says.starts_with("registry registry-1.docker.io: closed the connection "),
            "{path}: {says}"
        );
    }
}

#[test]
fn a_fallback_works_with_the_settings_of_a_mirror() {
    let hub = hub_with(Fault::TooManyRequests);
    let large = vec![b'x'; 3_000_000];
    let digest = hub.add_blob(large.clone());
    let nginx = mirror(&hub)
        .server(&format!(
            "proxy_buffering off;
             proxy_buffer_size 64k;
             proxy_buffers 4 64k;
             proxy_max_temp_file_size 0;
             proxy_request_buffering off;
             client_max_body_size 0;
             recursive_error_pages on;
             location / {{ {} proxy_pass https://{REGISTRY}; }}",
            chain_of_two()
        ))
        .start();
    for trouble in [Fault::TooManyRequests, Fault::Close(End::Close)] {
        hub.on(REGISTRY, "/", trouble);
        let answer = get(&nginx.url(&format!("/v2/library/x/blobs/{digest}"))).send();
        assert_eq!((answer.status, served_by(&answer)), (200, Some(FIRST)));
        assert!(answer.body == large, "{} bytes", answer.body.len());
        hub.on(FIRST, "/", Fault::Close(End::Close));
        hub.on(SECOND, "/", Fault::Stall);
        assert!([429, 502].contains(&get(&nginx.url(PATH)).send().status));
        hub.off(FIRST);
        hub.off(SECOND);
    }
    let put = request("PUT", &nginx.url(PATH)).body(&large).send();
    assert_eq!((put.status, put.header("x-fallback")), (502, None));
}
