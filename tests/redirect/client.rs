//! Clients: of each protocol, and those that leave.

use std::time::Duration;

use support::{
    CLOUDFLARE, Connection, Dns, Fault, Hub, Nginx, REGISTRY, Response, Shape, get, head, request,
    wait_for,
};

use crate::{CDN, OTHER, blob_of, lead, message, mirror, server, start, start_hub};

#[test]
fn http2_clients_are_served_as_others_are() {
    let hub = start_hub();
    let (blob, bytes) = blob_of(&hub, 100_000);
    let own = server(&hub, "");
    let nginx = mirror(&hub).h2c_server(&own).tls_server(&own).start();
    for (name, url) in [("h2c", nginx.url_of(0, &blob)), ("TLS", nginx.url_of(1, &blob))] {
        let ask = |method: &str| request(method, &url).ca(nginx.ca_file()).http2();
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
    let is_body = name.starts_with("within the body");
    let mut left = 0;
    if http2 {
        // A slow nginx needs a client with more patience.
        let leaves_when_held = |patience: &u64| {
            let patience = Duration::from_millis(*patience);
            let request = get(&nginx.url_of(1, "/v2/x")).http2().patience(patience);
            assert!(request.try_send().is_err(), "{name}");
            left += 1;
            is_held(&hub)
        };
        assert!([500, 2000, 8000].iter().any(leaves_when_held), "{name}");
    } else {
        let request = get(&nginx.url("/v2/x"));
        let mut connection = Connection::open(&request).unwrap();
        connection.start(&request).unwrap();
        wait_for(&name, || is_held(&hub));
        if is_body {
            assert_eq!(connection.head("GET").unwrap().status, 200, "{name}");
        }
        if reset {
            connection.reset();
        }
        left += 1;
    }
    wait_for(&format!("the access log, {name}"), || nginx.accesses().lines().count() == left);
    let log = nginx.accesses();
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
fn a_client_that_leaves_is_ignored_where_the_location_says_so() {
    let hub = start_hub();
    let own = format!("proxy_ignore_client_abort on; {}", server(&hub, ""));
    let nginx = mirror(&hub).server(&own).start();
    lead(&hub, format!("https://{CDN}/x"));
    hub.on(CDN, "/", Fault::Delay(Duration::from_millis(500)));
    let request = get(&nginx.url("/v2/x"));
    let mut leaving = Connection::open(&request).unwrap();
    leaving.start(&request).unwrap();
    wait_for("the CDN", || hub.counts(CDN).requests > 0);
    drop(leaving);
    wait_for("the access log", || nginx.accesses().lines().count() == 1);
    assert!(nginx.accesses().contains(" 200 "), "{}", nginx.accesses());
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
