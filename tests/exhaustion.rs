//! A worker that has no descriptor or no connection left says so to clients as a registry does, and
//! serves again as soon as it has some.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::time::Duration;

use support::{
    Answer, Connection, Fault, Hub, Nginx, NginxBuilder, REGISTRY, Request, Shape, get, head, until,
};

const MANIFEST: &str = "/v2/library/x/manifests/latest";
/// Is never sent to its end.
const STALLED: &str = "/v2/library/stalled/manifests/latest";
/// More than any of these workers can serve at once.
const MANY: usize = 64;

fn hub() -> Hub {
    let hub = Hub::with_mirrors(&[]);
    let body = Fault::Shape(Shape::StallBody(1));
    hub.add_image("library/stalled", "latest", &[b"x"]);
    hub.on(REGISTRY, STALLED, body);
    hub
}

fn mirror(hub: &Hub, main: &str) -> NginxBuilder {
    Nginx::builder()
        .main(main)
        .http(&hub.http_conf())
        .http("docker_keepalive off; resolver_timeout 1s; proxy_buffering off;")
        .server(&format!(
            "docker_realm_rewrite on;
             docker_follow_redirect on private={};
             location / {{ proxy_pass https://{REGISTRY}; }}",
            hub.network()
        ))
        // nginx says so at these levels.
        .allow_log("Too many open files")
        .allow_log("worker_connections are not enough")
        // It shuts down while it takes no clients.
        .allow_log("accept4() failed (9: Bad file descriptor)")
}

/// What ends a series of requests that hold their connections.
enum End {
    Answer(Answer),
    /// nginx takes no further client, or closes its connection.
    Turned,
}

/// Sends `request` over one new connection after the other, all of which stay open, until one is
/// not served.
fn fill(request: &Request) -> (Vec<Connection>, End) {
    let request = request.clone().patience(Duration::from_secs(3));
    let mut open = Vec::new();
    for _ in 0..MANY {
        let mut connection = Connection::open(&request).unwrap();
        connection.start(&request).unwrap();
        match connection.head("GET") {
            Ok(answer) if answer.status == 200 => open.push(connection),
            Ok(mut answer) => {
                let Some(length) = answer.header("content-length") else { panic!("{answer:?}") };
                answer.body = connection.take(length.parse().unwrap()).unwrap();
                open.push(connection);
                return (open, End::Answer(answer));
            }
            Err(_) => return (open, End::Turned),
        }
    }
    panic!("{MANY} connections are not too many");
}

#[track_caller]
fn assert_failed(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
    let json = answer.json();
    assert!(json["errors"][0]["message"].is_string(), "{json}");
}

/// The worker that ran out serves again.
#[track_caller]
fn assert_recovers(nginx: &Nginx, workers: &[u32], target: &str) {
    let request = get(&nginx.url(target)).patience(Duration::from_secs(2));
    let serves = || request.try_send().is_ok_and(|answer| answer.status == 200 && answer.complete);
    assert!(until(Duration::from_secs(10), serves), "{}", nginx.errors());
    assert_eq!(nginx.workers(), workers);
}

/// A client and its upstream take two of what there is: of a limit and the next one, one ends
/// between the two.
fn run_out(main: impl Fn(usize) -> String, first: usize) {
    let hub = hub();
    let blob = format!("/v2/library/x/blobs/{}", hub.add_blob(b"blob"));
    let mut answered = 0;
    for limit in [first, first + 1] {
        let nginx = mirror(&hub, &main(limit)).start();
        let workers = nginx.workers();
        assert_recovers(&nginx, &workers, &blob);
        for _ in 0..2 {
            let (open, end) = fill(&get(&nginx.url(STALLED)));
            assert!(open.len() > 3, "{}", open.len());
            if let End::Answer(answer) = end {
                assert_failed(&answer, 500);
                answered += 1;
            }
            drop(open);
            assert_recovers(&nginx, &workers, &blob);
            assert_recovers(&nginx, &workers, MANIFEST);
        }
    }
    assert!(answered > 0, "every client was turned away");
}

#[test]
fn a_worker_without_descriptors_says_so_and_recovers() {
    if Nginx::is_under_valgrind() {
        return;
    }
    run_out(|limit| format!("worker_rlimit_nofile {limit};"), 28);
}

#[test]
fn a_worker_without_connections_says_so_and_recovers() {
    run_out(|limit| format!("events {{ worker_connections {limit}; }}"), 24);
}

/// A mirror whose worker has few descriptors, and a blob behind a redirect; `None` under valgrind,
/// which does not enforce the limit.
fn few_descriptors() -> Option<(Hub, Nginx, String)> {
    if Nginx::is_under_valgrind() {
        return None;
    }
    let hub = hub();
    let blob = format!("/v2/library/x/blobs/{}", hub.add_blob(b"blob"));
    let nginx = mirror(&hub, "worker_rlimit_nofile 28;").start();
    Some((hub, nginx, blob))
}

#[test]
fn a_redirect_that_finds_no_descriptor_fails_as_a_registry_does() {
    let Some((_hub, nginx, blob)) = few_descriptors() else { return };
    let workers = nginx.workers();
    // The registry's connection is kept; the CDN needs a new one each time.
    let (open, end) = fill(&get(&nginx.url(&blob)));
    let End::Answer(answer) = end else { panic!("turned away: {}", nginx.errors()) };
    assert_failed(&answer, 500);
    assert!(open.len() > 3);
    drop(open);
    assert_recovers(&nginx, &workers, &blob);
}

#[test]
fn a_name_that_finds_no_descriptor_to_be_asked_with_fails_as_a_registry_does() {
    let Some((_hub, nginx, blob)) = few_descriptors() else { return };
    let workers = nginx.workers();
    assert_eq!(get(&nginx.url(MANIFEST)).send().status, 200);
    // All clients are taken that can be; one of them asks for what leads to a name.
    let (mut open, end) = fill(&head(&nginx.url(MANIFEST)));
    assert!(matches!(end, End::Turned), "the registry's connection was not kept");
    let answer = open.last_mut().unwrap().send(&get(&nginx.url(&blob))).unwrap();
    assert_failed(&answer, 502);
    drop(open);
    assert_recovers(&nginx, &workers, &blob);
}
