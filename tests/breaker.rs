//! `docker_zone`, `docker_breaker` and `docker_fallback_reserve`: who is not asked for a while.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use support::{
    Answer, CLOUDFLARE, Connection, End, Fault, Hub, Nginx, NginxBuilder, REGISTRY, Reply,
    Response, Shape, get, head, noise, request, wait_for,
};

const MANIFESTS: &str = "/v2/library/x/manifests/";
const PATH: &str = "/v2/library/x/manifests/latest";
const FIRST: &str = "first.example";
const SECOND: &str = "second.example";

fn hub() -> Hub {
    Hub::with_mirrors(&[FIRST, SECOND])
}

fn mirror(hub: &Hub) -> NginxBuilder {
    mirror_with("docker_zone docker:1m;", hub)
}

fn mirror_with(zone: &str, hub: &Hub) -> NginxBuilder {
    let timeout = Nginx::time(1);
    Nginx::builder().workers(2).http(&hub.http_conf()).http(zone).http(&format!(
        "proxy_connect_timeout {timeout}s;
         proxy_read_timeout {timeout}s;
         add_header X-Fallback $docker_fallback always;"
    ))
}

/// An nginx with a zone and one location, which has these directives.
fn start(hub: &Hub, directives: &str) -> Nginx {
    mirror(hub)
        .server(&format!("location / {{ {directives} proxy_pass https://{REGISTRY}; }}"))
        .start()
}

fn fallback() -> String {
    format!("docker_fallback https://{FIRST};")
}

/// A pull limit that says this of its end.
fn pull_limit(retry_after: &str) -> Fault {
    let limit = Response::error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.")
        .header("Retry-After", retry_after)
        .header("ratelimit-limit", "100;w=21600")
        .header("ratelimit-remaining", "0;w=21600");
    Fault::Answer(limit.into())
}

/// A token for this account, such as a registry's token server makes them.
fn token(account: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"sub":"{account}","aud":"registry"}}"#);
    format!("{}.{}.c2lnbmF0dXJl", part(r#"{"alg":"ES256"}"#), part(&claims))
}

fn asked(hub: &Hub, host: &str) -> usize {
    hub.requests(host).len()
}

/// How often the registry was asked while `act` ran.
fn asked_by(hub: &Hub, act: impl FnOnce()) -> usize {
    let before = asked(hub, REGISTRY);
    act();
    asked(hub, REGISTRY) - before
}

#[track_caller]
fn assert_served(answer: &Answer, host: &str, name: &str) {
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    let fallback = if host == REGISTRY { String::new() } else { format!("https://{host}") };
    assert_eq!(answer.header("x-fallback").unwrap_or_default(), fallback, "{name}");
}

#[test]
fn what_a_client_makes_fail_leads_nobodys_ping_away() {
    let hub = hub();
    hub.on(REGISTRY, "/v2/library/x/tags/", Fault::Status(500));
    let nginx = start(&hub, &format!("{} docker_fallback_on error http_500;", fallback()));
    for _ in 0..4 {
        assert_served(&get(&nginx.url("/v2/library/x/tags/list?n=-1")).send(), FIRST, "tags");
    }
    nginx.wait_for_log("breaker is open for 1 s (other)");
    let pings = asked_by(&hub, || {
        for url in ["/v2/", "/v2/?ns=docker.io"] {
            assert_served(&get(&nginx.url(url)).send(), REGISTRY, url);
        }
    });
    assert_eq!(pings, 2);
}

// Limits.

#[test]
fn a_limited_registry_is_asked_once_for_a_thousand_pulls() {
    let hub = hub();
    hub.on(REGISTRY, MANIFESTS, pull_limit("60"));
    let nginx = start(&hub, &fallback());
    let url = nginx.url(PATH);
    assert_served(&get(&url).send(), FIRST, "the one that meets the limit");

    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let request = get(&url);
                let mut connection = Connection::open(&request).unwrap();
                for _ in 0..100 {
                    let answer = connection.send(&request).unwrap();
                    assert_served(&answer, FIRST, "one of a thousand");
                }
            });
        }
    });
    assert!(asked(&hub, REGISTRY) <= 2, "{} requests", asked(&hub, REGISTRY));
    assert_eq!(asked(&hub, FIRST), 1001);
    assert_eq!(
        nginx.errors().matches("breaker is open for 60 s (manifests of one owner)").count(),
        1
    );
}

#[test]
fn a_pull_limit_concerns_manifests_that_are_counted() {
    let hub = hub();
    let image = hub.add_image("library/y", "latest", &[b"y"]);
    hub.on(REGISTRY, MANIFESTS, pull_limit("60"));
    let nginx =
        start(&hub, &format!("docker_follow_redirect on private=127.0.0.0/8; {}", fallback()));
    assert_served(&get(&nginx.url(PATH)).send(), FIRST, "limited");

    let blob = format!("/v2/library/y/blobs/{}", image.layers[0]);
    assert_served(&get(&nginx.url(&blob)).send(), REGISTRY, "blob");
    assert_served(&get(&nginx.url("/v2/")).send(), REGISTRY, "ping");
    hub.off(REGISTRY);
    assert_served(&head(&nginx.url(PATH)).send(), REGISTRY, "HEAD");
    let other = "/v2/library/y/manifests/latest";
    assert_served(&get(&nginx.url(other)).send(), FIRST, "any manifest");
}

#[test]
fn a_pull_limit_on_anything_else_is_not_that_of_anonymous_clients() {
    let hub = hub();
    let image = hub.add_image("library/y", "latest", &[b"y"]);
    let blob = format!("/v2/library/y/blobs/{}", image.layers[0]);
    let nginx = start(&hub, &fallback());
    for path in [blob.as_str(), "/v2/library/y/tags/list"] {
        hub.on_times(REGISTRY, path, 1, pull_limit("60"));
        assert_served(&get(&nginx.url(path)).bearer(&token("alice")).send(), FIRST, path);
        assert_served(&get(&nginx.url(PATH)).send(), REGISTRY, path);
        let limited = get(&nginx.url(PATH)).bearer(&token("alice")).send();
        assert_served(&limited, REGISTRY, path);
    }
}

#[test]
fn an_abuse_limit_concerns_everything() {
    let hub = hub();
    hub.on_times(REGISTRY, "/", 1, Fault::Hap429);
    let nginx = start(&hub, &fallback());
    assert_served(&get(&nginx.url("/v2/")).send(), FIRST, "limited");
    let count = asked_by(&hub, || {
        for request in [get(&nginx.url(PATH)), head(&nginx.url(PATH)), get(&nginx.url("/v2/"))] {
            assert_served(&request.send(), FIRST, "anything");
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn a_login_limit_concerns_one_user_alone() {
    let hub = hub();
    hub.on_times(REGISTRY, "/token", 1, Fault::LoginLimit);
    let nginx = start(&hub, &fallback());
    let _ = get(&nginx.url("/token?service=registry&scope=repository:x:pull")).send();
    for path in [PATH, "/v2/", "/token?service=registry"] {
        let count = asked_by(&hub, || {
            let _ = get(&nginx.url(path)).send();
        });
        assert_eq!(count, 1, "{path}");
    }
}

#[test]
fn an_exhausted_account_diverts_nobody_else() {
    let hub = hub();
    let exhausted = format!("Bearer {}", token("exhausted"));
    let limited = exhausted.clone();
    hub.route(REGISTRY, move |request| match request.header("authorization") {
        Some(value) if value == limited => match pull_limit("60") {
            Fault::Answer(reply) => reply,
            _ => Reply::Normal,
        },
        _ => Reply::Normal,
    });
    let nginx = start(&hub, &fallback());
    let pull = |authorization: Option<String>| -> Answer {
        let request = get(&nginx.url(PATH));
        match authorization {
            Some(value) => request.header("Authorization", value).send(),
            None => request.send(),
        }
    };
    assert_served(&pull(Some(exhausted.clone())), FIRST, "limited");
    let count = asked_by(&hub, || assert_served(&pull(Some(exhausted.clone())), FIRST, "again"));
    assert_eq!(count, 0);
    assert_served(&pull(None), REGISTRY, "nobody");
    for (name, account) in [("another account", "other"), ("an anonymous token", "")] {
        assert_served(&pull(Some(format!("Bearer {}", token(account)))), REGISTRY, name);
    }
    assert_served(&pull(Some("Bearer opaque".to_owned())), REGISTRY, "an opaque token");
}

#[test]
fn a_forged_token_has_no_say_in_an_accounts_quota() {
    let hub = hub();
    // As long as the victim's token, with the same end.
    let (victim, forged) = (token("victim"), token("stolen"));
    let limited = format!("Bearer {forged}");
    hub.route(REGISTRY, move |request| match request.header("authorization") {
        Some(value) if value == limited => {
            let limit = Response::error(429, "TOOMANYREQUESTS", "You have reached your limit.");
            limit.header("Retry-After", "60").into()
        }
        _ => Reply::Normal,
    });
    let nginx = start(&hub, &fallback());
    let pull = |token: &str| get(&nginx.url(PATH)).bearer(token).send();
    assert_served(&pull(&forged), FIRST, "limited");
    assert_served(&pull(&victim), REGISTRY, "another owner");
    assert_served(&pull(&forged), FIRST, "limited still");

    // A limit of the mirror's address is no account's.
    let hub = self::hub();
    hub.on_times(REGISTRY, MANIFESTS, 1, Fault::TooManyRequests);
    let nginx = start(&hub, &fallback());
    let pull = |token: &str| get(&nginx.url(PATH)).bearer(token).send();
    assert_served(&pull(&victim), FIRST, "limited by address");
    assert_served(&get(&nginx.url(PATH)).send(), FIRST, "who is anonymous is");
    assert_served(&pull(&victim), REGISTRY, "the account is not");
}

#[test]
fn a_refused_token_uses_up_no_probe_and_no_quota() {
    let hub = hub();
    let refused = || Fault::Answer(Response::error(401, "UNAUTHORIZED", "").into());
    hub.on_times(REGISTRY, MANIFESTS, 1, pull_limit("1"));
    let nginx = start(&hub, &fallback());
    let url = nginx.url(PATH);
    assert_served(&get(&url).send(), FIRST, "limited");
    thread::sleep(Duration::from_millis(1100));
    hub.on_times(REGISTRY, MANIFESTS, 1, refused());
    assert_eq!(get(&url).send().status, 401);
    assert_served(&get(&url).send(), REGISTRY, "the next one probes");

    let hub = self::hub();
    let nginx = start(&hub, &format!("docker_fallback_reserve 10; {}", fallback()));
    let url = nginx.url(PATH);
    assert_served(&get(&url).send(), REGISTRY, "99 are left");
    hub.on_times(REGISTRY, MANIFESTS, 95, refused());
    for _ in 0..95 {
        assert_eq!(get(&url).send().status, 401);
    }
    assert_served(&get(&url).send(), REGISTRY, "99 are left still");
}

#[test]
fn a_limit_ends_when_it_says_and_one_request_tries() {
    let hub = hub();
    let second = Duration::from_secs(Nginx::time(1));
    hub.on(REGISTRY, MANIFESTS, pull_limit(&second.as_secs().to_string()));
    let nginx = start(&hub, &fallback());
    let url = nginx.url(PATH);
    assert_served(&get(&url).send(), FIRST, "limited");
    hub.off(REGISTRY);
    // While one tries, which takes its time, the others do not wait.
    hub.on_times(REGISTRY, MANIFESTS, 1, Fault::Delay(second / 2));
    let count = asked_by(&hub, || assert_served(&get(&url).send(), FIRST, "still"));
    assert_eq!(count, 0);
    thread::sleep(second * 11 / 10);

    let count = asked_by(&hub, || {
        thread::scope(|scope| {
            let probe = scope.spawn(|| get(&url).send());
            thread::sleep(second / 5);
            assert_served(&get(&url).send(), FIRST, "meanwhile");
            assert_served(&probe.join().unwrap(), REGISTRY, "the probe");
        });
    });
    assert_eq!(count, 1);
    assert_served(&get(&url).send(), REGISTRY, "after it");
}

#[test]
fn a_limit_ends_where_nothing_is_said_of_a_quota() {
    let hub = hub();
    let limit = Response::error(429, "TOOMANYREQUESTS", "x").header("Retry-After", "1");
    hub.on_times(REGISTRY, MANIFESTS, 1, Fault::Answer(limit.into()));
    let nginx = start(&hub, &fallback());
    let url = nginx.url(PATH);
    assert_served(&get(&url).send(), FIRST, "limited");
    thread::sleep(Duration::from_millis(1100));
    hub.on(REGISTRY, MANIFESTS, Fault::Answer(Response::new(200).into()));
    for _ in 0..3 {
        assert_served(&get(&url).send(), REGISTRY, "after it");
    }
}

#[test]
fn a_limit_that_says_nothing_sensible_is_bounded() {
    for (retry_after, seconds) in [
        ("soon", "30 s"),
        ("-1", "30 s"),
        ("880.092µs", "30 s"),
        ("99999999999999999999", "3600 s"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "3600 s"),
        ("0", "1 s"),
    ] {
        let hub = hub();
        hub.on(REGISTRY, MANIFESTS, pull_limit(retry_after));
        let nginx = start(&hub, &fallback());
        assert_served(&get(&nginx.url(PATH)).send(), FIRST, retry_after);
        assert!(
            nginx.errors().contains(&format!("breaker is open for {seconds} ")),
            "{retry_after}: {}",
            nginx.errors()
        );
    }
}

// Failures.

#[test]
fn failures_in_a_row_open_a_breaker_and_a_probe_closes_it() {
    let hub = hub();
    hub.on(REGISTRY, "/v2/", Fault::Status(503));
    let nginx = start(&hub, &format!("docker_breaker failures=3 backoff=500ms; {}", fallback()));
    let url = nginx.url(PATH);
    let count = asked_by(&hub, || {
        for _ in 0..10 {
            assert_served(&get(&url).send(), FIRST, "failing");
        }
    });
    assert_eq!(count, 3);
    let count = asked_by(&hub, || assert_served(&head(&url).send(), FIRST, "another class"));
    assert_eq!(count, 1);

    thread::sleep(Duration::from_millis(600));
    let count = asked_by(&hub, || {
        for _ in 0..5 {
            assert_served(&get(&url).send(), FIRST, "failing still");
        }
    });
    assert_eq!(count, 1, "a probe");

    hub.off(REGISTRY);
    let start = Instant::now();
    wait_for("the registry to be asked again", || {
        get(&url).send().header("x-fallback").unwrap_or_default().is_empty()
    });
    assert!(start.elapsed() > Duration::from_millis(700), "twice as long: {:?}", start.elapsed());
    let count = asked_by(&hub, || assert_served(&get(&url).send(), REGISTRY, "closed"));
    assert_eq!(count, 1);
}

#[test]
fn successes_in_between_keep_a_breaker_closed() {
    let hub = hub();
    let nginx = start(&hub, &fallback());
    for _ in 0..3 {
        hub.on_times(REGISTRY, "/v2/", 2, Fault::Status(503));
        for _ in 0..2 {
            assert_served(&get(&nginx.url(PATH)).send(), FIRST, "failed");
        }
        let count = asked_by(&hub, || assert_served(&get(&nginx.url(PATH)).send(), REGISTRY, ""));
        assert_eq!(count, 1);
    }
}

#[test]
fn what_a_registry_does_not_have_is_no_failure() {
    let hub = hub();
    let nginx = start(&hub, &fallback());
    let catalog = Response::error(501, "UNSUPPORTED", "no catalog here");
    hub.on(REGISTRY, "/v2/_catalog", Fault::Answer(catalog.into()));
    for _ in 0..4 {
        assert_eq!(get(&nginx.url("/v2/_catalog")).send().status, 501);
    }
    assert_served(&get(&nginx.url("/v2/")).send(), REGISTRY, "a ping, which is of the same class");
}

#[test]
fn a_registry_that_stalls_costs_time_thrice() {
    let hub = hub();
    hub.on(REGISTRY, "/", Fault::Stall);
    let nginx = start(&hub, &format!("proxy_read_timeout 300ms; {}", fallback()));
    for _ in 0..3 {
        assert_served(&get(&nginx.url(PATH)).send(), FIRST, "slow");
    }
    let start = Instant::now();
    for _ in 0..5 {
        assert_served(&get(&nginx.url(PATH)).send(), FIRST, "at once");
    }
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
}

#[test]
fn a_cdn_is_charged_to_who_leads_there() {
    let hub = hub();
    let image = hub.add_image("library/y", "latest", &[b"y"]);
    let blob = format!("/v2/library/y/blobs/{}", image.layers[0]);
    hub.on(CLOUDFLARE, "/", Fault::Status(503));
    let nginx =
        start(&hub, &format!("docker_follow_redirect on private=127.0.0.0/8; {}", fallback()));
    for _ in 0..3 {
        assert_served(&get(&nginx.url(&blob)).send(), FIRST, "failing CDN");
    }
    let count = asked_by(&hub, || assert_served(&get(&nginx.url(&blob)).send(), FIRST, "open"));
    assert_eq!(count, 0, "blobs");
    let count = asked_by(&hub, || assert_served(&get(&nginx.url(PATH)).send(), REGISTRY, ""));
    assert_eq!(count, 1, "manifests");
}

#[test]
fn a_limit_of_a_cdn_concerns_what_comes_from_there() {
    let hub = hub();
    let image = hub.add_image("library/y", "latest", &[b"y"]);
    let blob = format!("/v2/library/y/blobs/{}", image.layers[0]);
    let limit = Response::text(429, "slow down")
        .header("Retry-After", "60")
        .header("ratelimit-remaining", "0;w=21600");
    hub.on_times(CLOUDFLARE, "/", 1, Fault::Answer(limit.into()));
    let nginx =
        start(&hub, &format!("docker_follow_redirect on private=127.0.0.0/8; {}", fallback()));
    assert_served(&get(&nginx.url(&blob)).send(), FIRST, "limited CDN");
    let count = asked_by(&hub, || assert_served(&get(&nginx.url(&blob)).send(), FIRST, "open"));
    assert_eq!(count, 0, "blobs");
    for path in [PATH, "/v2/"] {
        assert_served(&get(&nginx.url(path)).send(), REGISTRY, path);
    }
}

const LAYER: usize = 300_000;

/// A hub with a layer, and its path.
fn hub_with_layer() -> (Hub, String) {
    let hub = hub();
    let path = format!("/v2/library/y/blobs/{}", hub.add_blob(noise(3, LAYER)));
    (hub, path)
}

/// The CDN answers its next GETs so, and those behind them normally.
fn cdn_answers(hub: &Hub, replies: impl IntoIterator<Item = Reply>) {
    let replies: Mutex<VecDeque<Reply>> = Mutex::new(replies.into_iter().collect());
    hub.off(CLOUDFLARE);
    hub.route(CLOUDFLARE, move |_| replies.lock().unwrap().pop_front().unwrap_or(Reply::Normal));
}

fn cut() -> Reply {
    Reply::Shaped(Shape::CutBody(1000, End::Reset))
}

fn start_resuming(hub: &Hub, more: &str) -> Nginx {
    let follow = "docker_follow_redirect on private=127.0.0.0/8;";
    start(hub, &format!("{follow} docker_resume on tries=10; {more} {}", fallback()))
}

#[track_caller]
fn assert_open(hub: &Hub, nginx: &Nginx, path: &str, is_open: bool, name: &str) {
    let server = if is_open { FIRST } else { REGISTRY };
    let count = asked_by(hub, || assert_served(&get(&nginx.url(path)).send(), server, name));
    assert_eq!(count, usize::from(!is_open), "{name}");
}

#[test]
fn a_cdn_that_cuts_repeatedly_is_failing() {
    let (hub, path) = hub_with_layer();
    let nginx = start_resuming(&hub, "docker_breaker backoff=1s;");
    cdn_answers(&hub, vec![cut(); 11]);
    let answer = get(&nginx.url(&path)).send();
    assert!(!answer.complete && answer.body.len() == 11_000, "{}", answer.body.len());
    let line = nginx.wait_for_log("breaker is open for 1 s (blob)");
    assert!(line.contains(&format!("{REGISTRY}: breaker")), "{line}");
    assert_open(&hub, &nginx, &path, true, "failing");
    assert_open(&hub, &nginx, PATH, false, "manifests");

    // One that begins well proves nothing.
    cdn_answers(&hub, vec![Reply::Shaped(Shape::StallBody(1000))]);
    thread::sleep(Duration::from_millis(1100));
    let request = get(&nginx.url(&path));
    let mut probe = Connection::open(&request).unwrap();
    probe.start(&request).unwrap();
    probe.head("GET").unwrap();
    assert_open(&hub, &nginx, &path, true, "while it is probed");
    drop(probe);
}

#[test]
fn downloads_that_come_whole_keep_a_breaker_closed() {
    let (hub, path) = hub_with_layer();
    let nginx = start_resuming(&hub, "");
    for name in ["first", "second", "third", "fourth"] {
        cdn_answers(&hub, [cut(), cut()]);
        assert_open(&hub, &nginx, &path, false, name);
    }
    for settings in ["", "docker_resume off;"] {
        let nginx = start(
            &hub,
            &format!("docker_follow_redirect on private=127.0.0.0/8; {settings} {}", fallback()),
        );
        for _ in 0..3 {
            cdn_answers(&hub, vec![Fault::Status(503).reply(); 2]);
            for _ in 0..2 {
                assert_served(&get(&nginx.url(&path)).send(), FIRST, "failed");
            }
            assert_open(&hub, &nginx, &path, false, "whole");
        }
    }
}

#[test]
fn a_client_that_leaves_does_not_make_a_cdn_fail() {
    let (hub, path) = hub_with_layer();
    let nginx = start_resuming(&hub, "");
    for http in ["reset", "close"] {
        for _ in 0..3 {
            cdn_answers(&hub, [Reply::Shaped(Shape::Slow(10_000, Duration::from_millis(20)))]);
            let request = get(&nginx.url(&path));
            let mut client = Connection::open(&request).unwrap();
            client.start(&request).unwrap();
            client.take(20_000).unwrap();
            if http == "reset" {
                client.reset();
            } else {
                drop(client);
            }
            wait_for("the CDN to be left", || hub.counts(CLOUDFLARE).open == 0);
        }
    }
    cdn_answers(&hub, []);
    assert_open(&hub, &nginx, &path, false, "nobody is to blame");
    assert!(!nginx.errors().contains("breaker"), "{}", nginx.errors());
}

#[test]
fn a_fallback_that_does_not_finish_a_list_is_to_blame_itself() {
    let hub = hub();
    let list = "/v2/library/y/tags/list";
    let nginx = start(
        &hub,
        &format!(
            "docker_resume on; docker_breaker failures=1; docker_fallback_on error http_404;
             docker_fallback https://{FIRST} https://{SECOND};"
        ),
    );
    let begun = Response::new(200).header("ETag", "\"a\"").body(noise(4, LAYER));
    let begun = begun.shape(Shape::CutBody(1000, End::Close)).into();
    hub.on_times(REGISTRY, list, 1, Fault::Status(404));
    hub.on(FIRST, list, Fault::Status(503));
    hub.on_times(FIRST, list, 1, Fault::Answer(begun));
    let answer = get(&nginx.url(list)).send();
    assert!(!answer.complete && answer.body.len() == 1000, "{}", answer.body.len());
    assert_served(&get(&nginx.url("/v2/")).send(), REGISTRY, "it has answered");
}

#[test]
fn a_fallback_that_finishes_a_download_does_not_close_the_breaker() {
    let (hub, path) = hub_with_layer();
    let nginx = start_resuming(&hub, "");
    let lost = Fault::Status(404).reply();
    for _ in 0..3 {
        // The registry leads to the CDN, and not again.
        let replies = Mutex::new(VecDeque::from([Reply::Normal, lost.clone()]));
        hub.route(REGISTRY, move |_| replies.lock().unwrap().pop_front().unwrap());
        cdn_answers(&hub, [cut(), Fault::Status(403).reply()]);
        let answer = get(&nginx.url(&path)).send();
        assert!(answer.complete && answer.body == noise(3, LAYER), "finished");
        hub.off(REGISTRY);
    }
    assert_eq!(asked(&hub, FIRST), 3);
    assert_open(&hub, &nginx, &path, true, "cut thrice");

    // What the fallback cuts is its own.
    hub.on(FIRST, "/v2/", Fault::Shape(Shape::CutBody(1000, End::Close)));
    let _ = get(&nginx.url(&path)).send();
    nginx.wait_for_log(&format!("https://{FIRST}: breaker is open"));
}

#[test]
fn a_fallback_has_a_breaker_of_its_own() {
    let hub = hub();
    hub.on(REGISTRY, "/", Fault::Status(429));
    hub.on(FIRST, "/", Fault::Status(500));
    let nginx = start(&hub, &format!("docker_fallback https://{FIRST} https://{SECOND};"));
    for _ in 0..6 {
        assert_served(&get(&nginx.url(PATH)).send(), SECOND, "the second");
    }
    assert_eq!(asked(&hub, FIRST), 3);
}

// Never a worse answer.

#[test]
fn a_primary_that_was_passed_by_is_asked_after_all() {
    let hub = hub();
    hub.on_times(REGISTRY, MANIFESTS, 1, pull_limit("60"));
    let nginx = mirror(&hub)
        .server(&format!(
            "location / {{
                 {} rewrite ^/outer/(.*) /v2/$1 break;
                 auth_request /auth;
                 proxy_pass https://{REGISTRY};
             }}
             location = /auth {{
                 internal;
                 log_subrequest on;
                 access_log auth.log;
                 return 204;
             }}",
            fallback()
        ))
        .start();
    let url = nginx.url("/outer/library/x/manifests/latest");
    assert_served(&get(&url).send(), FIRST, "limited");
    hub.refuse(FIRST);

    for _ in 0..2 {
        assert_served(&get(&url).send(), REGISTRY, "after all");
    }
    let uri = |request: &support::Recorded| request.uri.clone();
    assert!(hub.requests(REGISTRY).iter().map(uri).all(|uri| uri == PATH), "rewritten once");
    let log = std::fs::read_to_string(nginx.prefix().join("auth.log")).unwrap();
    assert_eq!(log.lines().count(), 3, "access is asked for once a request");
}

#[test]
fn when_everything_fails_the_original_answer_is_sent() {
    let hub = hub();
    hub.on(REGISTRY, MANIFESTS, pull_limit("60"));
    hub.on(FIRST, "/", Fault::Status(500));
    let nginx = start(&hub, &fallback());
    for name in ["asked first", "asked last"] {
        let answer = get(&nginx.url(PATH)).send();
        assert_eq!(answer.status, 429, "{name}");
        assert_eq!(answer.header("retry-after"), Some("60"), "{name}");
        assert_eq!(answer.header("ratelimit-remaining"), Some("0;w=21600"), "{name}");
        assert!(answer.text().contains("You have reached your pull rate limit"), "{name}");
    }
    assert_eq!(asked(&hub, REGISTRY), 2);
    assert_eq!(asked(&hub, FIRST), 2);

    hub.refuse(REGISTRY);
    let answer = get(&nginx.url(PATH)).send();
    assert_eq!(answer.status, 502);
    let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("not asked (it has limited pulls)"), "{message}");
    assert!(message.contains(&format!("fallback {FIRST}: 500 Internal Server Error")), "{message}");
    assert!(message.ends_with(": could not be connected"), "{message}");
}

#[test]
fn open_breakers_keep_nobody_from_an_answer() {
    let hub = hub();
    hub.on(REGISTRY, "/", Fault::Status(503));
    hub.on(FIRST, "/", Fault::Status(503));
    let nginx = start(&hub, &fallback());
    for _ in 0..4 {
        assert_eq!(get(&nginx.url(PATH)).send().status, 503);
    }
    hub.off(FIRST);
    assert_served(&get(&nginx.url(PATH)).send(), FIRST, "both open, the fallback is back");
    hub.on(FIRST, "/", Fault::Status(503));
    hub.off(REGISTRY);
    assert_served(&get(&nginx.url(PATH)).send(), REGISTRY, "the primary is back");
}

#[test]
fn who_is_asked_though_its_breaker_is_open_closes_its_own() {
    let hub = hub();
    hub.on(REGISTRY, "/", Fault::Status(503));
    hub.on(FIRST, "/", Fault::Status(503));
    let nginx = start(&hub, &fallback());
    for _ in 0..3 {
        assert_eq!(get(&nginx.url(PATH)).send().status, 503);
    }
    hub.off(REGISTRY);
    hub.off(FIRST);
    // What was asked as early as the failure says nothing of the time after it.
    thread::sleep(Duration::from_millis(50));
    for name in ["both open", "the fallback's open"] {
        assert_served(&get(&nginx.url(PATH)).send(), REGISTRY, name);
    }
}

#[test]
fn of_those_with_open_breakers_the_primary_comes_first() {
    let hub = hub();
    hub.on_times(REGISTRY, "/", 1, pull_limit("60"));
    hub.on(FIRST, "/", Fault::Status(500));
    hub.on(SECOND, "/", pull_limit("60"));
    let nginx = start(&hub, &format!("docker_fallback https://{FIRST} https://{SECOND};"));
    assert_eq!(get(&nginx.url(PATH)).send().status, 429);
    assert_served(&get(&nginx.url(PATH)).send(), REGISTRY, "one fails, one is limited");
    assert_eq!(asked(&hub, FIRST), 2);
    assert_eq!(asked(&hub, SECOND), 1);
}

#[test]
fn without_a_fallback_the_registry_is_always_asked() {
    let hub = hub();
    hub.on(REGISTRY, "/", Fault::Hap429);
    let nginx = start(&hub, "docker_follow_redirect on;");
    let count = asked_by(&hub, || {
        for _ in 0..5 {
            assert_eq!(get(&nginx.url(PATH)).send().status, 429);
        }
    });
    assert_eq!(count, 5);
}

#[test]
fn who_leaves_before_the_answer_was_no_probe() {
    let hub = hub();
    hub.on_times(REGISTRY, "/", 3, Fault::Status(503));
    let breaker = "docker_breaker on backoff=100ms max_backoff=100ms;";
    let nginx = start(&hub, &format!("{breaker} {}", fallback()));
    let ask = || get(&nginx.url(PATH)).send();
    for _ in 0..3 {
        assert_served(&ask(), FIRST, "it fails");
    }
    thread::sleep(Duration::from_millis(150));

    hub.on(REGISTRY, "/", Fault::Answer(Reply::Shaped(Shape::Delay(Duration::from_secs(60)))));
    let request = get(&nginx.url(PATH));
    let mut client = Connection::open(&request).unwrap();
    client.start(&request).unwrap();
    wait_for("the probe", || asked(&hub, REGISTRY) == 4);
    assert_served(&ask(), FIRST, "somebody probes");
    drop(client);
    hub.off(REGISTRY);
    let limit = Duration::from_millis(Nginx::time(3000));
    let is_asked = || ask().header("x-fallback").is_none();
    assert!(support::until(limit, is_asked), "a probe is on its way for ever");
}

#[test]
fn what_a_client_says_of_loops_is_charged_to_nobody() {
    let hub = hub();
    let digest = hub.add_blob(b"content".to_vec());
    let blob = format!("/v2/library/x/blobs/{digest}");
    let nginx = start(
        &hub,
        &format!("{} docker_follow_redirect on private={};", fallback(), hub.network()),
    );
    let _ = get(&nginx.url(&blob)).send();
    let id = hub.last_request(CLOUDFLARE).header("cdn-loop").unwrap().to_owned();
    for _ in 0..5 {
        let looped = get(&nginx.url(&blob)).header("CDN-Loop", format!("{id}, {id}")).send();
        assert_eq!(looped.status, 502);
    }
    let answer = get(&nginx.url(&blob)).send();
    assert_eq!((answer.status, answer.header("x-fallback")), (200, None));
    assert!(!nginx.errors().contains("breaker is open"), "{}", nginx.errors());
}

#[test]
fn what_may_not_fall_back_is_not_diverted() {
    let hub = hub();
    hub.on_times(REGISTRY, "/", 1, Fault::Hap429);
    let nginx = start(&hub, &fallback());
    assert_served(&get(&nginx.url(PATH)).send(), FIRST, "limited");
    for (name, request) in [
        ("password", get(&nginx.url(PATH)).header("Authorization", "Basic dTpw")),
        ("POST", request("POST", &nginx.url("/token")).body("a=b")),
    ] {
        let count = asked_by(&hub, || {
            let _ = request.send();
        });
        assert_eq!(count, 1, "{name}");
    }
}

#[test]
fn a_breaker_acts_on_the_conditions_of_the_location() {
    let hub = hub();
    hub.on_times(REGISTRY, "/", 1, Fault::Hap429);
    let nginx = start(&hub, &format!("docker_fallback_on error; {}", fallback()));
    assert_eq!(get(&nginx.url(PATH)).send().status, 429);
    assert_served(&get(&nginx.url(PATH)).send(), REGISTRY, "limits are not among them");

    let hub = self::hub();
    hub.on_times(REGISTRY, "/", 1, Fault::Hap429);
    let nginx = start(&hub, &format!("docker_breaker off; {}", fallback()));
    assert_served(&get(&nginx.url(PATH)).send(), FIRST, "limited");
    assert_served(&get(&nginx.url(PATH)).send(), REGISTRY, "off");
}

// Quota.

#[test]
fn the_last_pulls_of_a_quota_are_kept() {
    let hub = hub();
    let left = |number: u32| {
        Fault::Answer(
            Response::text(200, "{}")
                .header("Docker-Content-Digest", "sha256:0")
                .header("ratelimit-limit", "100;w=21600")
                .header("ratelimit-remaining", format!("{number};w=21600"))
                .into(),
        )
    };
    hub.on(REGISTRY, MANIFESTS, left(10));
    let nginx = start(&hub, &format!("docker_fallback_reserve 10; {}", fallback()));
    let url = nginx.url(PATH);
    assert_served(&get(&url).send(), REGISTRY, "nothing known");
    hub.off(REGISTRY);
    hub.on(REGISTRY, MANIFESTS, left(9));
    assert_served(&get(&url).send(), REGISTRY, "as many as are kept");
    let count = asked_by(&hub, || assert_served(&get(&url).send(), FIRST, "fewer"));
    assert_eq!(count, 0);
    assert_served(&head(&url).send(), REGISTRY, "HEAD is not counted");

    let other = get(&url).header("Authorization", format!("Bearer {}", token("other")));
    assert_served(&other.send(), REGISTRY, "another account");
    // A HEAD tells how many are left now.
    hub.off(REGISTRY);
    hub.on(REGISTRY, MANIFESTS, left(50));
    assert_served(&head(&url).send(), REGISTRY, "HEAD");
    assert_served(&get(&url).send(), REGISTRY, "there are more now");
}

// Web pages in place of content.

#[test]
fn a_web_page_is_no_manifest() {
    let hub = hub();
    let page = Response::new(200)
        .header("Content-Type", "Text/HTML; charset=utf-8")
        .body("<html>Please log in</html>");
    hub.on(REGISTRY, "/v2/", Fault::Answer(page.clone().into()));
    hub.on(FIRST, "/", Fault::Answer(page.into()));
    let nginx = start(&hub, &format!("docker_fallback https://{FIRST} https://{SECOND};"));
    assert_served(&get(&nginx.url(PATH)).send(), SECOND, "manifest");
    assert_served(&head(&nginx.url(PATH)).send(), SECOND, "HEAD");
    let answer = get(&nginx.url("/v2/_catalog")).send();
    assert_eq!((answer.status, answer.text().contains("log in")), (200, true), "anything else");

    hub.on(SECOND, "/", Fault::Status(500));
    let answer = get(&nginx.url(PATH)).send();
    assert!(answer.text().contains("log in"), "the original: {}", answer.text());
}

// What the zone survives.

#[test]
fn what_is_known_survives_a_reload_and_killed_workers() {
    let hub = hub();
    hub.on_times(REGISTRY, MANIFESTS, 1, pull_limit("60"));
    let nginx = start(&hub, &fallback());
    let url = nginx.url(PATH);
    assert_served(&get(&url).send(), FIRST, "limited");
    let still_known = |name: &str| {
        let count = asked_by(&hub, || {
            for _ in 0..4 {
                assert_served(&get(&url).send(), FIRST, name);
            }
        });
        assert_eq!(count, 0, "{name}");
    };
    nginx.reload();
    still_known("reload");

    nginx.allow_log("exited on signal 9");
    let workers = nginx.workers();
    for worker in &workers {
        let killed = Command::new("kill").args(["-9", &worker.to_string()]).status();
        assert!(killed.unwrap().success());
    }
    nginx.wait_until_gone(&workers);
    wait_for("new workers", || nginx.workers().len() == 2);
    still_known("killed");
}

#[test]
fn a_full_zone_forgets_and_fails_no_request() {
    let hub = hub();
    hub.on(REGISTRY, MANIFESTS, pull_limit("60"));
    let nginx = mirror_with("docker_zone docker:32k;", &hub)
        .server(&format!("location / {{ {} proxy_pass https://{REGISTRY}; }}", fallback()))
        .start();
    let url = nginx.url(PATH);
    // Each token is an owner of its own.
    thread::scope(|scope| {
        for thread in 0..4 {
            let url = &url;
            scope.spawn(move || {
                let mut connection = Connection::open(&get(url)).unwrap();
                for number in 0..900 {
                    let token = token(&format!("{thread}-{number}"));
                    let request = get(url).header("Authorization", format!("Bearer {token}"));
                    assert_served(&connection.send(&request).unwrap(), FIRST, "any owner");
                }
            });
        }
    });
    assert!(!nginx.errors().contains("no memory"), "{}", nginx.errors());
}
