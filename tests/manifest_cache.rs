//! `docker_manifest_cache`: a manifest that is known is not fetched again.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rules::digest::Digest;
use support::{
    Answer, Connection, End, Fault, Hub, Image, Kind, Nginx, NginxBuilder, REGISTRY, Recorded,
    Reply, Request, Response, Shape, get, head, until, wait_for,
};

const REPOSITORY: &str = "library/x";
const TAG: &str = "/v2/library/x/manifests/latest";
const CACHE: &str = "docker_manifest_cache zone=docker;";
const STALE: &str = "docker_manifest_cache zone=docker stale=1m;";
const SECOND: &str = "second.example";

/// An nginx before the hub, whose answers tell what the cache did.
fn builder(hub: &Hub) -> NginxBuilder {
    Nginx::builder().http(&hub.http_conf()).http(
        "docker_zone docker:1m;
         proxy_connect_timeout 10s;
         proxy_read_timeout 3s;
         add_header X-Cache $docker_manifest_cache always;",
    )
}

fn location(directives: &str) -> String {
    format!("location / {{ {directives} proxy_pass https://{REGISTRY}; }}")
}

/// A hub with one image, and a mirror before it.
struct Scene {
    nginx: Nginx,
    hub: Hub,
    image: Image,
}

fn hub() -> (Hub, Image) {
    let hub = Hub::start();
    let image = hub.add_image(REPOSITORY, "latest", &[b"x"]);
    (hub, image)
}

/// A mirror whose location has these directives.
fn scene_with(directives: &str) -> Scene {
    scene_of(|hub| builder(hub).server(&location(directives)))
}

fn scene() -> Scene {
    scene_with(CACHE)
}

fn scene_of(mirror: impl FnOnce(&Hub) -> NginxBuilder) -> Scene {
    let (hub, image) = hub();
    let nginx = mirror(&hub).start();
    Scene { nginx, hub, image }
}

impl Scene {
    /// A request with a token that is good for the repository, as anybody gets one.
    fn get(&self, target: &str) -> Request {
        get(&self.nginx.url(target)).bearer(&self.hub.token(REPOSITORY))
    }

    /// The same from a client that has nothing.
    fn bare(&self, target: &str) -> Request {
        get(&self.nginx.url(target))
    }

    /// What the registry was asked since the last time.
    fn asked(&self) -> Vec<String> {
        let asked = self.hub.requests(REGISTRY).iter().map(Recorded::line).collect();
        self.hub.forget();
        asked
    }

    /// What the registry itself answers.
    fn direct(&self, target: &str) -> Answer {
        let address = (self.hub.address(REGISTRY), 80).into();
        let direct = get(&format!("http://{REGISTRY}{target}")).connect(address);
        direct.bearer(&self.hub.token(REPOSITORY)).send()
    }

    /// The manifest is in memory.
    #[track_caller]
    fn fill(&self, target: &str) {
        self.fill_with(target, 2);
    }

    /// The same, where other modules ask for more: so many requests altogether, of which those may
    /// come behind the answers.
    #[track_caller]
    fn fill_with(&self, target: &str, requests: usize) {
        assert_eq!(cache(&self.get(target).send()), "MISS");
        assert_ne!(cache(&self.get(target).send()), "MISS");
        wait_for("what is asked", || self.hub.requests(REGISTRY).len() >= requests);
        self.hub.forget();
    }
}

fn by_digest(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/manifests/{digest}")
}

fn cache(answer: &Answer) -> &str {
    answer.header("x-cache").unwrap_or("-")
}

/// Status, what the cache did, and the body.
#[track_caller]
fn seen(answer: &Answer) -> (u16, &str, &[u8]) {
    assert!(answer.complete, "{answer:?}");
    (answer.status, cache(answer), &answer.body)
}

/// The header as it describes the manifest.
fn described(answer: &Answer) -> Vec<(String, String)> {
    let ignored = ["date", "connection", "server", "x-cache", "ratelimit-remaining"];
    let mut lines: Vec<(String, String)> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !ignored.contains(&name.as_str()))
        .collect();
    lines.sort();
    lines
}

/// An answer that is a manifest.
fn manifest(body: &str) -> Response {
    Response::new(200)
        .header("Content-Type", "application/vnd.oci.image.index.v1+json")
        .header("Docker-Content-Digest", Digest::of(body.as_bytes()).to_string())
        .body(body)
}

/// What becomes of a manifest.

#[test]
fn the_second_pull_is_not_counted() {
    let scene = scene();
    let direct = scene.direct(TAG);
    scene.hub.forget();
    let counted = scene.hub.manifests_counted();

    let first = scene.get(TAG).send();
    assert_eq!(seen(&first), (200, "MISS", direct.body.as_slice()));
    assert_eq!(scene.asked(), [format!("GET {TAG}")]);

    for _ in 0..3 {
        let again = scene.get(TAG).send();
        assert_eq!(seen(&again), (200, "REVALIDATED", direct.body.as_slice()));
        assert_eq!(described(&again), described(&first));
        assert_eq!(scene.asked(), [format!("HEAD {TAG}")]);
    }
    assert_eq!(scene.hub.manifests_counted(), counted + 1);
}

#[test]
fn a_digest_is_known_by_its_tag_and_by_itself() {
    let scene = scene();
    let index = by_digest(REPOSITORY, &scene.image.digest);
    let manifest = by_digest(REPOSITORY, &scene.image.manifests[0]);

    assert_eq!(cache(&scene.get(TAG).send()), "MISS");
    assert_eq!(cache(&scene.get(&index).send()), "HIT");
    assert_eq!(cache(&scene.get(&manifest).send()), "MISS");
    assert_eq!(cache(&scene.get(&manifest).send()), "HIT");
    assert_eq!(scene.hub.manifests_counted(), 2);
}

/// docker asks for a tag by HEAD, and for its manifest by digest.
#[test]
fn a_tag_is_known_by_heads_of_clients_too() {
    let scene = scene();
    let asked = head(&scene.nginx.url(TAG)).bearer(&scene.hub.token(REPOSITORY)).send();
    assert_eq!((asked.status, cache(&asked)), (200, "-"));
    assert_eq!(cache(&scene.get(&by_digest(REPOSITORY, &scene.image.digest)).send()), "MISS");
    assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");
    assert_eq!(scene.hub.manifests_counted(), 1);
}

#[test]
fn a_tag_that_moves_is_seen_by_the_next_pull() {
    let scene = scene();
    let old = scene.get(TAG).send();
    assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");

    let moved = scene.hub.add_image(REPOSITORY, "latest", &[b"y"]);
    for want in ["MISS", "REVALIDATED", "REVALIDATED"] {
        let answer = scene.get(TAG).send();
        assert_eq!(cache(&answer), want);
        assert_eq!(answer.header("docker-content-digest"), Some(moved.digest.as_str()));
        assert_eq!(Digest::of(&answer.body).to_string(), moved.digest);
        assert_ne!(answer.body, old.body);
    }
    // Back to what is known still: nothing is fetched.
    scene.hub.add_image(REPOSITORY, "latest", &[b"x"]);
    let back = scene.get(TAG).send();
    assert_eq!(seen(&back), (200, "REVALIDATED", old.body.as_slice()));
    assert_eq!(scene.hub.manifests_counted(), 2);
}

/// nginx has an `if` answer with the content handler of the location around it.
#[test]
fn an_if_in_the_location_changes_nothing() {
    let scene = scene_with(&format!("{CACHE} if ($arg_if) {{ set $then yes; }}"));
    let tag = format!("{TAG}?if=yes");
    scene.fill(&tag);

    let moved = scene.hub.add_image(REPOSITORY, "latest", &[b"y"]);
    let answer = scene.get(&tag).send();
    assert_eq!((answer.status, cache(&answer)), (200, "MISS"));
    assert_eq!(answer.header("docker-content-digest"), Some(moved.digest.as_str()));
}

/// The Accept lists of clients, as they send them.
const ACCEPTS: [(&str, &[&str]); 6] = [
    (
        "dockerd",
        &[
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "application/json",
        ],
    ),
    (
        "containerd",
        &["application/vnd.docker.distribution.manifest.v2+json, \
           application/vnd.docker.distribution.manifest.list.v2+json, \
           application/vnd.oci.image.manifest.v1+json, \
           application/vnd.oci.image.index.v1+json, */*"],
    ),
    (
        "podman",
        &[
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "application/vnd.docker.distribution.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.oci.image.index.v1+json",
        ],
    ),
    (
        "crane",
        &["application/vnd.docker.distribution.manifest.v2+json,\
           application/vnd.oci.image.manifest.v1+json,\
           application/vnd.docker.distribution.manifest.list.v2+json,\
           application/vnd.oci.image.index.v1+json"],
    ),
    ("one manifest", &["application/vnd.docker.distribution.manifest.v2+json"]),
    ("nothing", &[]),
];

fn accepting(request: Request, accept: &[&str]) -> Request {
    accept.iter().fold(request, |request, value| request.header("Accept", value))
}

#[test]
fn every_client_gets_what_upstream_would_send_it() {
    let scene = scene_of(|hub| {
        builder(hub).server(&location(CACHE)).server(&location("docker_manifest_cache off;"))
    });
    // A registry that looks at Accept: without a list in it, the manifest of one platform.
    let amd64 = scene.direct(&by_digest(REPOSITORY, &scene.image.manifests[0]));
    let list = scene.direct(TAG);
    let of = |answer: &Answer| {
        let header = |name| answer.header(name).unwrap().to_owned();
        let response = Response::new(200).header("Content-Type", header("content-type"));
        response.header("Docker-Content-Digest", header("docker-content-digest")).body(&answer.body)
    };
    let (one, list) = (of(&amd64), of(&list));
    scene.hub.route(REGISTRY, move |request| {
        let takes_lists = request.all("accept").iter().any(|value| {
            value.contains("manifest.list") || value.contains("image.index") || *value == "*/*"
        });
        if takes_lists { list.clone().into() } else { one.clone().into() }
    });
    scene.hub.forget();

    for round in 0..2 {
        for (client, accept) in ACCEPTS {
            let with = accepting(scene.get(TAG), accept).send();
            let without = accepting(get(&scene.nginx.url_of(1, TAG)), accept).send();
            assert_eq!(with.body, without.body, "{client}");
            assert_eq!(described(&with), described(&without), "{client}");
            assert!(round == 0 || cache(&with) == "REVALIDATED", "{client}");
        }
    }
    // One GET a digest through the cache, and all of those without it.
    let gets = scene.asked().iter().filter(|line| line.starts_with("GET")).count();
    assert_eq!(gets, 2 + 2 * ACCEPTS.len());
}

#[test]
fn what_upstream_refuses_is_its_own_answer() {
    let scene = scene();
    scene.fill(TAG);
    let challenge = scene.bare(TAG).send();
    assert_eq!((challenge.status, cache(&challenge)), (401, "MISS"));
    assert!(challenge.header("www-authenticate").unwrap().contains("auth.docker.io/token"));
    assert!(challenge.text().contains("UNAUTHORIZED"));
    assert_eq!(scene.asked(), [format!("HEAD {TAG}"), format!("GET {TAG}")]);

    for status in [403, 404, 405, 429, 500] {
        scene.hub.on(REGISTRY, TAG, Fault::Status(status));
        let refused = scene.get(TAG).send();
        assert_eq!((refused.status, cache(&refused)), (status, "MISS"));
        assert!(refused.text().contains("on demand"), "{}", refused.text());
    }
    scene.hub.off(REGISTRY);
    assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");
}

#[test]
fn what_cannot_be_answered_from_memory_passes() {
    let scene = scene();
    scene.fill(TAG);
    let counted = scene.hub.manifests_counted();
    let etag = format!("\"{}\"", scene.image.digest);

    let known = scene.get(TAG).header("If-None-Match", &etag).send();
    assert_eq!((known.status, cache(&known)), (304, "BYPASS"));
    let part = scene.get(TAG).header("Range", "bytes=0-3").send();
    assert_eq!((part.status, cache(&part)), (200, "BYPASS"));
    assert_eq!(cache(&scene.get(TAG).body("x").send()), "BYPASS");
    assert_eq!(scene.hub.manifests_counted(), counted + 3);

    let asked = head(&scene.nginx.url(TAG)).bearer(&scene.hub.token(REPOSITORY)).send();
    assert_eq!((asked.status, cache(&asked)), (200, "-"));
    let tags = scene.get("/v2/library/x/tags/list").send();
    assert_eq!((tags.status, cache(&tags)), (200, "-"));
    let blob = scene.get(&format!("/v2/library/x/blobs/{}", scene.image.layers[0])).send();
    assert_eq!((blob.status, cache(&blob)), (307, "-"));
}

#[test]
fn nothing_is_kept_where_nginx_has_a_cache_of_its_own() {
    let own = "proxy_cache own; proxy_cache_valid 200 1m;";
    let scene = scene_of(|hub| {
        builder(hub)
            .http("proxy_cache_path %prefix%/cache keys_zone=own:1m;")
            .server(&location(&format!("{CACHE} {own}")))
    });
    for _ in 0..2 {
        assert_eq!(cache(&scene.get(TAG).send()), "BYPASS");
    }
    assert_eq!(scene.asked(), [format!("GET {TAG}")]);
}

#[test]
fn only_the_location_that_says_so_has_a_cache() {
    let scene = scene_of(|hub| {
        let inner = format!(
            "{CACHE} {} location /off/ {{ docker_manifest_cache off; \
             proxy_pass https://{REGISTRY}/; }}",
            location("")
        );
        builder(hub).server(&inner)
    });
    scene.fill(TAG);
    for _ in 0..2 {
        assert_eq!(cache(&scene.get(&format!("/off{TAG}")).send()), "-");
    }
    assert_eq!(scene.asked(), [format!("GET {TAG}"), format!("GET {TAG}")]);
}

#[test]
fn what_is_known_survives_a_reload_and_a_killed_worker() {
    let scene = scene();
    scene.fill(TAG);
    scene.nginx.reload();
    assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");

    scene.nginx.allow_log("exited on signal 9");
    for _ in 0..3 {
        let old = scene.nginx.workers();
        for pid in &old {
            kill(*pid);
        }
        scene.nginx.wait_until_gone(&old);
        wait_for("a new worker", || !scene.nginx.workers().is_empty());
        assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");
    }
    assert_eq!(scene.hub.manifests_counted(), 1);
}

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn http2_clients_and_unbuffered_answers_are_served_alike() {
    let scene = scene_of(|hub| {
        builder(hub)
            .h2c_server(&location(CACHE))
            .server(&location(&format!("{CACHE} proxy_buffering off;")))
            .server(&location(&format!("{CACHE} proxy_buffers 4 4k; proxy_buffer_size 4k;")))
    });
    // Larger than any buffer, chunked.
    let large = manifest(&format!("{{\"a\":\"{}\"}}", "x".repeat(200_000)));
    let body = large.clone();
    scene.hub.route(REGISTRY, move |_| body.clone().chunked(7_000).into());
    for server in 0..3 {
        let path = format!("/v2/library/x{server}/manifests/latest");
        let url = scene.nginx.url_of(server, &path);
        for want in ["MISS", "REVALIDATED"] {
            let request = if server == 0 { get(&url).http2() } else { get(&url) };
            // HEAD must tell the length.
            if want == "REVALIDATED" {
                let body = large.clone();
                scene.hub.route(REGISTRY, move |_| body.clone().into());
            }
            let answer = request.send();
            assert_eq!((answer.status, cache(&answer)), (200, want), "server {server}");
            assert_eq!(answer.body.len(), 200_008, "server {server}");
        }
        scene.hub.off(REGISTRY);
        let body = large.clone();
        scene.hub.route(REGISTRY, move |_| body.clone().chunked(7_000).into());
    }
}

// Many at once.

/// Sends this many requests at once; the answers, and how long each took.
fn at_once(count: usize, request: impl Fn(usize) -> Request + Sync) -> Vec<(Answer, Duration)> {
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        let send = |number| {
            let request = request(number);
            barrier.wait();
            let start = Instant::now();
            (request.send(), start.elapsed())
        };
        let sent: Vec<_> = (0..count).map(|number| scope.spawn(move || send(number))).collect();
        sent.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn two_hundred_cold_clients_are_counted_once_a_digest() {
    let scene = scene_of(|hub| builder(hub).workers(2).server(&location(CACHE)));
    let manifest = by_digest(REPOSITORY, &scene.image.manifests[0]);
    scene.hub.on(REGISTRY, "/v2/library/x/manifests", Fault::Delay(Duration::from_millis(100)));
    let token = scene.hub.token(REPOSITORY);

    for target in [TAG, &manifest] {
        let want = scene.direct(target).body;
        let before = scene.hub.manifests_counted();
        scene.hub.forget();
        let answers = at_once(200, |_| get(&scene.nginx.url(target)).bearer(&token));
        let mut misses = 0;
        for (answer, _) in &answers {
            assert_eq!((answer.status, answer.complete), (200, true));
            assert_eq!(answer.body, want);
            misses += usize::from(cache(answer) == "MISS");
        }
        assert_eq!((misses, scene.hub.manifests_counted() - before), (1, 1));
        // Every other one has asked for itself, with its own token.
        assert_eq!(scene.asked().len(), 200);
    }

    let before = scene.hub.manifests_counted();
    for _ in 0..5 {
        for (answer, _) in at_once(200, |_| get(&scene.nginx.url(TAG)).bearer(&token)) {
            assert_eq!((answer.status, cache(&answer)), (200, "REVALIDATED"));
        }
    }
    assert_eq!(scene.hub.manifests_counted(), before, "1,000 more pulls");

    // The tag moves under all of them.
    let moved = scene.hub.add_image(REPOSITORY, "latest", &[b"y"]);
    for (answer, _) in at_once(200, |_| get(&scene.nginx.url(TAG)).bearer(&token)) {
        assert_eq!(answer.header("docker-content-digest"), Some(moved.digest.as_str()));
        assert_eq!(Digest::of(&answer.body).to_string(), moved.digest);
    }
    assert_eq!(scene.hub.manifests_counted(), before + 1);
}

#[test]
fn those_who_wait_for_a_failure_go_on_at_once() {
    let scene = scene();
    let token = scene.hub.token(REPOSITORY);
    let delay = Duration::from_millis(300);
    let rows: [(&str, Reply, u16); 4] = [
        ("limited", Response::error(429, "TOOMANYREQUESTS", "x").into(), 429),
        ("unknown", Response::error(404, "MANIFEST_UNKNOWN", "x").into(), 404),
        ("no digest", manifest("{}").without("docker-content-digest").into(), 200),
        ("another digest", manifest("{}").body("[]").into(), 200),
    ];
    for (number, (name, reply, status)) in rows.into_iter().enumerate() {
        let path = format!("/v2/library/x/manifests/{number}");
        let Reply::Response(response) = reply else { panic!() };
        let slow = Reply::from(response.shape(Shape::Delay(delay)));
        scene.hub.route(REGISTRY, move |_| slow.clone());
        scene.hub.forget();

        let answers = at_once(20, |_| get(&scene.nginx.url(&path)).bearer(&token));

        // The first, then all others at the same time: none waits for its turn.
        for (answer, took) in &answers {
            assert_eq!((answer.status, cache(answer)), (status, "MISS"), "{name}");
            // Twenty handshakes take their time under valgrind.
            let is_at_once = *took < delay * 2 + Duration::from_secs(1);
            assert!(is_at_once || Nginx::is_under_valgrind(), "{name}: {took:?}");
        }
        assert_eq!(scene.asked(), vec![format!("GET {path}"); 20], "{name}");
    }
}

#[test]
fn those_who_wait_do_not_wait_for_a_client_that_does_not_read() {
    let scene = scene();
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(30_000));
    let answer = manifest(&body);
    scene.hub.route(REGISTRY, move |_| answer.clone().into());
    let url = scene.nginx.url(TAG);

    let mut idle = Connection::open(&get(&url)).unwrap();
    idle.write(format!("GET {TAG} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    wait_for("the first request", || scene.hub.counts(REGISTRY).requests == 1);

    let start = Instant::now();
    let second = get(&url).send();
    assert_eq!(seen(&second), (200, "REVALIDATED", body.as_bytes()));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn a_leader_that_is_killed_is_followed_by_another() {
    let scene = scene_of(|hub| {
        builder(hub).workers(2).allow_log("exited on signal 9").server(&location(CACHE))
    });
    let token = scene.hub.token(REPOSITORY);
    scene.hub.on_times(REGISTRY, TAG, 1, Fault::Stall);
    let url = scene.nginx.url(TAG);

    thread::scope(|scope| {
        let leader = scope.spawn(|| get(&url).bearer(&token).try_send());
        wait_for("the leader", || scene.hub.counts(REGISTRY).requests == 1);
        // Whichever worker has it: the others' requests are tried again.
        let waiting = scope.spawn(|| get(&url).bearer(&token).try_send());
        thread::sleep(Duration::from_millis(200));
        for pid in scene.nginx.workers() {
            kill(pid);
        }
        assert!(leader.join().unwrap().is_err());
        let _ = waiting.join();
    });
    wait_for("new workers", || scene.nginx.workers().len() == 2);

    let start = Instant::now();
    let answers = at_once(10, |_| get(&url).bearer(&token));
    for (answer, _) in &answers {
        assert_eq!(answer.status, 200);
    }
    let misses = answers.iter().filter(|(answer, _)| cache(answer) == "MISS").count();
    assert_eq!(misses, 1);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(7), "{took:?}");
}

#[test]
fn a_client_that_leaves_lets_the_others_go_on() {
    let scene = scene();
    let token = scene.hub.token(REPOSITORY);
    scene.hub.on_times(REGISTRY, TAG, 1, Fault::Stall);
    let url = scene.nginx.url(TAG);
    let leader = {
        let mut leader = Connection::open(&get(&url)).unwrap();
        let head =
            format!("GET {TAG} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
        leader.write(head.as_bytes()).unwrap();
        wait_for("the leader", || scene.hub.counts(REGISTRY).requests == 1);
        leader
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let start = Instant::now();
            (get(&url).bearer(&token).send(), start.elapsed())
        });
        thread::sleep(Duration::from_millis(300));
        drop(leader);
        let (answer, took) = waiting.join().unwrap();
        assert_eq!((answer.status, cache(&answer)), (200, "MISS"));
        assert!(took < Duration::from_secs(2), "{took:?}");
    });

    // Those who wait may leave too.
    scene.hub.on_times(REGISTRY, "/v2/library/x/manifests/other", 1, Fault::Stall);
    let other = scene.nginx.url("/v2/library/x/manifests/other");
    thread::scope(|scope| {
        scope.spawn(|| get(&other).patience(Duration::from_millis(900)).try_send());
        thread::sleep(Duration::from_millis(200));
        for _ in 0..5 {
            scope.spawn(|| get(&other).patience(Duration::from_millis(100)).try_send());
        }
    });
    assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");
}

// What HEAD meets on its way.

/// nginx runs the request of a client that has left once more.
#[test]
fn a_post_action_waits_for_nobody() {
    const DONE: &str = "done.example";
    let scene = scene_of(|hub| {
        let done = hub.add_host_as(DONE, Kind::Blank);
        builder(hub).server(&format!(
            "{CACHE}
             location / {{ post_action @done; proxy_pass https://{REGISTRY}; }}
             location @done {{ proxy_pass http://{done}; }}"
        ))
    });
    scene.hub.on_times(REGISTRY, TAG, 1, Fault::Stall);
    let request = scene.get(TAG).patience(Duration::from_millis(300));
    thread::scope(|scope| {
        scope.spawn(|| scene.get(TAG).patience(Duration::from_secs(2)).try_send());
        wait_for("the first", || scene.hub.counts(REGISTRY).requests == 1);
        assert!(request.try_send().is_err(), "it waits");
        thread::sleep(Duration::from_millis(500));
        let asked: Vec<_> = scene.hub.requests(DONE).iter().map(Recorded::line).collect();
        assert_eq!(asked, [format!("GET {TAG}")]);
    });
}

#[test]
fn head_follows_redirects_and_falls_back_as_the_request_does() {
    let redirect = Fault::redirect(307, format!("https://{SECOND}{TAG}"));
    let rows: [(&str, Fault); 3] = [
        ("redirect", redirect),
        ("limit", Fault::TooManyRequests),
        ("closed", Fault::Close(End::Close)),
    ];
    for (name, fault) in rows {
        let scene = scene_of(|hub| {
            hub.add_host(SECOND);
            builder(hub).server(&location(&format!(
                "{CACHE} docker_fallback https://{SECOND};
                 docker_follow_redirect on private={};",
                hub.network()
            )))
        });
        let Scene { hub, .. } = &scene;
        hub.on(REGISTRY, "/", fault);
        for _ in 0..2 {
            hub.forget();
            let answer = scene.get(TAG).send();
            let methods = |host| -> Vec<String> {
                hub.requests(host).iter().map(|request| request.method.clone()).collect()
            };
            assert_eq!(
                (answer.status, answer.header("x-served-by")),
                (200, Some(SECOND)),
                "{name}"
            );
            let method = if cache(&answer) == "MISS" { "GET" } else { "HEAD" };
            assert_eq!(methods(SECOND), [method], "{name}");
            assert!(methods(REGISTRY).iter().all(|sent| sent == method), "{name}");
        }
        assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED", "{name}");
    }
}

#[test]
fn an_image_of_a_declared_registry_is_one_by_all_its_names() {
    let scene = scene_of(|hub| {
        builder(hub).http("proxy_ssl_protocols TLSv1.2 TLSv1.3;").server(&format!(
            "docker_registry docker.io https://{REGISTRY} library default;
             docker_registry quay.io;
             {CACHE} location / {{ proxy_pass $docker_upstream; }}"
        ))
    });
    let token = scene.hub.token(REPOSITORY);
    let pull = |target: &str| get(&scene.nginx.url(target)).bearer(&token).send();
    let names = [
        TAG,
        "/v2/x/manifests/latest",
        "/v2/x/manifests/latest?ns=docker.io",
        "/v2/docker.io/library/x/manifests/latest",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let answer = pull(name);
        let want = if number == 0 { "MISS" } else { "REVALIDATED" };
        assert_eq!((answer.status, cache(&answer)), (200, want), "{name}");
        let namespace = name.contains("ns=").then_some("docker.io");
        assert_eq!(answer.header("oci-namespace"), namespace, "{name}");
    }
    assert_eq!(scene.hub.manifests_counted(), 1);
    assert_eq!(get(&scene.nginx.url(TAG)).send().status, 401);
    let stranger = pull("/v2/x/manifests/latest?ns=ghcr.io");
    assert_eq!((stranger.status, cache(&stranger)), (404, "MISS"));
}

#[test]
fn error_pages_of_the_users_do_not_confuse_it() {
    let scene = scene_of(|hub| {
        builder(hub).server(&format!(
            "{} location = /page {{ return 200 page; }}
             location @other {{ proxy_pass https://{REGISTRY}; }}",
            location(&format!(
                "{CACHE} proxy_intercept_errors on; error_page 404 =200 /page;
                 error_page 403 = @other; error_page 502 503 /page;"
            ))
        ))
    });
    scene.fill(TAG);
    scene.hub.on(REGISTRY, TAG, Fault::Status(404));
    let page = scene.get(TAG).send();
    assert_eq!((page.status, page.text().as_str()), (200, "page"));
    scene.hub.off(REGISTRY);
    scene.hub.on_times(REGISTRY, TAG, 1, Fault::Status(403));
    let other = scene.get(TAG).send();
    assert_eq!(other.status, 200);
    assert_eq!(Digest::of(&other.body).to_string(), scene.image.digest);
    scene.hub.on(REGISTRY, TAG, Fault::Close(End::Close));
    assert_eq!(scene.get(TAG).send().status, 502);
    scene.hub.off(REGISTRY);
    assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");
}

#[test]
fn connections_are_kept() {
    let scene = scene();
    scene.fill(TAG);
    for _ in 0..20 {
        assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");
    }
    let counts = scene.hub.counts(REGISTRY);
    assert_eq!((counts.requests, counts.connections), (20, 0));
}

#[test]
fn other_modules_see_one_request() {
    let scene = scene_of(|hub| {
        builder(hub).server(&format!(
            "{} location = /auth {{ return 204; }}
             location /mirror {{ internal; proxy_pass https://{REGISTRY}/mirrored; }}",
            location(&format!("{CACHE} auth_request /auth; mirror /mirror;"))
        ))
    });
    scene.fill_with(TAG, 4);
    for _ in 0..5 {
        assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");
    }
    wait_for("what is mirrored", || scene.hub.requests(REGISTRY).len() == 10);
    let asked = scene.asked();
    let count = |wanted: &str| asked.iter().filter(|line| *line == wanted).count();
    let counts = (count(&format!("HEAD {TAG}")), count("GET /mirrored"));
    assert_eq!(counts, (5, 5), "{asked:?}");
}

#[test]
fn the_log_tells_what_the_client_has_asked() {
    let scene = scene_of(|hub| {
        builder(hub)
            .http("log_format facts '$request_method $status $body_bytes_sent $upstream_status';")
            .server(&format!("access_log %prefix%/access.log facts; {}", location(CACHE)))
    });
    let body = scene.get(TAG).send().body.len();
    assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED");
    scene.hub.on(REGISTRY, TAG, Fault::Status(404));
    let refused = scene.get(TAG).send().body.len();
    let want = [
        format!("GET 200 {body} 200"),
        format!("GET 200 {body} 200"),
        format!("GET 404 {refused} 404 : 404"),
    ];
    wait_for("the log", || scene.nginx.accesses().lines().count() == want.len());
    assert_eq!(scene.nginx.accesses().lines().collect::<Vec<_>>(), want);
}

#[test]
fn what_head_alone_meets_is_not_what_the_client_gets() {
    let scene = scene_of(|hub| {
        builder(hub).server(&format!(
            "location = /page {{ return 200 page; }}
             location = /elsewhere {{ internal; proxy_pass https://{REGISTRY}/elsewhere; }}
             {}",
            location(&format!(
                "{CACHE} proxy_intercept_errors on; error_page 405 416 =200 /page;
                 docker_follow_redirect on hops=8 private={};",
                hub.network()
            ))
        ))
    });
    let good = manifest("{\"a\":1}");
    let known = good.clone();
    scene.hub.route(REGISTRY, move |_| known.clone().into());
    scene.fill(TAG);

    // A registry without HEADs, whose errors are intercepted; one that sends nginx to a location of
    // its own; one that leads through as many redirects as there may be, to nothing.
    type Leads = fn(&Recorded, &Response) -> Option<Response>;
    let rows: [(&str, Leads); 4] = [
        ("405", |request, _| (request.method == "HEAD").then(|| Response::new(405))),
        ("a location", |request, _| {
            (request.method == "HEAD" && request.path() == TAG)
                .then(|| Response::new(200).header("X-Accel-Redirect", "/elsewhere"))
        }),
        ("redirects", |request, _| {
            let hops: u32 = request.query().parse().unwrap_or(0);
            let next = format!("https://{REGISTRY}{TAG}?{}", hops + 1);
            let there = || (request.method == "HEAD").then(|| Response::new(404));
            if hops < 8 { Some(Response::new(307).header("Location", next)) } else { there() }
        }),
        ("a redirect too many", |request, _| {
            let hops: u32 = request.query().parse().unwrap_or(0);
            let next = format!("https://{REGISTRY}{TAG}?{}", hops + 1);
            (request.method == "HEAD").then(|| Response::new(307).header("Location", next))
        }),
    ];
    for (name, leads) in rows {
        scene.hub.off(REGISTRY);
        let good = good.clone();
        scene
            .hub
            .route(REGISTRY, move |request| leads(request, &good).unwrap_or(good.clone()).into());
        scene.nginx.allow_log("redirect is not followed");
        let answer = scene.get(TAG).send();
        assert_eq!(seen(&answer), (200, "MISS", b"{\"a\":1}".as_slice()), "{name}");
    }
}

/// What the page says was saved is what the hub has not counted.
#[test]
fn the_page_tells_how_many_gets_were_saved() {
    let scene = scene_of(|hub| {
        let status = "location = /status { docker_status; }";
        builder(hub).workers(2).server(&format!("{status} {}", location(STALE)))
    });
    let digest = by_digest(REPOSITORY, &scene.image.digest);
    for (path, want) in
        [(TAG, "MISS"), (TAG, "REVALIDATED"), (&digest, "HIT"), (TAG, "REVALIDATED")]
    {
        assert_eq!(cache(&scene.get(path).send()), want);
    }
    let etag = format!("\"{}\"", scene.image.digest);
    assert_eq!(cache(&scene.get(TAG).header("If-None-Match", &etag).send()), "BYPASS");
    let counted = scene.hub.manifests_counted();
    scene.hub.on(REGISTRY, "/", Fault::Status(503));
    assert_eq!(cache(&scene.get(TAG).send()), "STALE");

    let value = |series: &str| -> u64 {
        let page = get(&scene.nginx.url("/status")).send().text();
        let mut values = page.lines().filter_map(|line| line.strip_prefix(series));
        values.next().map_or(0, |value| value.trim().parse().unwrap())
    };
    let of = |result: &str| value(&format!("docker_manifest_cache_total{{result=\"{result}\"}}"));
    // A request is counted when it is over, which is after its client has the answer.
    wait_for("all requests to be counted", || of("STALE") == 1);
    assert_eq!((of("HIT"), of("REVALIDATED"), of("MISS"), of("BYPASS")), (1, 2, 1, 1));
    assert_eq!(value("docker_manifest_gets_saved_total "), 4);
    assert_eq!(counted, of("MISS") + of("BYPASS"));
}

/// A hit takes the time of one round trip to the registry, as a manifest does that is passed on.
#[test]
fn a_hit_takes_one_round_trip() {
    let scene = scene_of(|hub| {
        builder(hub).server(&location(CACHE)).server(&location("docker_manifest_cache off;"))
    });
    scene.fill(TAG);
    let delay = Duration::from_millis(100);
    scene.hub.on(REGISTRY, TAG, Fault::Delay(delay));
    let token = scene.hub.token(REPOSITORY);
    let took = |server: usize| {
        let pull = || {
            let start = Instant::now();
            let answer = get(&scene.nginx.url_of(server, TAG)).bearer(&token).send();
            assert_eq!((answer.status, answer.complete), (200, true));
            start.elapsed()
        };
        // The first may have to connect.
        pull();
        (0..5).map(|_| pull()).min().unwrap()
    };
    let (hit, passed) = (took(0), took(1));
    assert!(hit >= delay && hit < delay * 2, "{hit:?}");
    assert!(hit < passed + delay / 2, "{hit:?}, and {passed:?} where it is passed on");
}

// Who gets what.

#[test]
fn a_private_manifest_is_for_those_whom_upstream_lets_have_it() {
    let private = "private/x";
    let scene = scene_of(|hub| {
        builder(hub).server(&location(&format!("{STALE} docker_realm_rewrite https://mirror;")))
    });
    let image = scene.hub.add_image(private, "latest", &[b"secret"]);
    scene.hub.protect(private, "alice", "x");
    let path = "/v2/private/x/manifests/latest";
    let by_digest = by_digest(private, &image.digest);
    let url = |path: &str| scene.nginx.url(path);
    let alice = scene.hub.token_of("alice", private);
    for want in ["MISS", "REVALIDATED"] {
        assert_eq!(cache(&get(&url(path)).bearer(&alice).send()), want);
    }
    let manifest = get(&url(&by_digest)).bearer(&alice).send();
    assert_eq!((manifest.status, cache(&manifest)), (200, "HIT"));

    let stranger = scene.hub.token(REPOSITORY);
    let forged = format!("{}x", alice);
    let basic = "Basic YWxpY2U6eA==";
    let requests = |path: &str| {
        [
            ("nothing", get(&url(path))),
            ("a token for another repository", get(&url(path)).bearer(&stranger)),
            ("a forged token", get(&url(path)).bearer(&forged)),
            ("a password", get(&url(path)).header("Authorization", basic)),
        ]
    };
    for path in [path, by_digest.as_str()] {
        for (name, request) in requests(path) {
            let refused = request.send();
            assert_eq!((refused.status, cache(&refused)), (401, "MISS"), "{name}: {path}");
            let challenge = refused.header("www-authenticate").unwrap();
            assert!(challenge.contains("realm=\"https://mirror/token\""), "{name}: {challenge}");
            assert!(!refused.text().contains("manifests"), "{name}: {}", refused.text());
        }
    }

    // What was granted once is not granted for ever.
    scene.hub.revoke(&alice);
    for path in [path, by_digest.as_str()] {
        assert_eq!(get(&url(path)).bearer(&alice).send().status, 401, "{path}");
    }
    let fault = Response::error(403, "DENIED", "not any more");
    scene.hub.on(REGISTRY, path, Fault::Answer(fault.into()));
    let denied = get(&url(path)).bearer(&scene.hub.token_of("alice", private)).send();
    assert_eq!((denied.status, denied.text().contains("not any more")), (403, true));
    scene.hub.off(REGISTRY);

    // Nor is it what a limited registry leaves to anybody.
    scene.hub.on(REGISTRY, "/", Fault::TooManyRequests);
    for path in [path, by_digest.as_str()] {
        for (name, request) in requests(path) {
            let limited = request.send();
            assert_eq!((limited.status, cache(&limited)), (429, "MISS"), "{name}: {path}");
        }
        let own = scene.hub.token_of("alice", private);
        let own = get(&url(path)).bearer(&own).send();
        assert_eq!((own.status, cache(&own)), (429, "MISS"), "{path}");
    }
}

#[test]
fn a_digest_is_no_key_to_another_repository() {
    let scene = scene();
    let image = scene.hub.add_image("private/x", "latest", &[b"secret"]);
    scene.hub.protect("private/x", "alice", "x");
    let alice = scene.hub.token_of("alice", "private/x");
    for digest in [&image.digest, &image.manifests[0]] {
        let url = scene.nginx.url(&by_digest("private/x", digest));
        assert_eq!(get(&url).bearer(&alice).send().status, 200);

        // Upstream knows nothing of it under the repository that the client may read.
        let answer = scene.get(&by_digest(REPOSITORY, digest)).send();
        assert_eq!((answer.status, cache(&answer)), (404, "MISS"));
        assert!(answer.text().contains("MANIFEST_UNKNOWN"), "{}", answer.text());
    }
}

/// A manifest that nobody else has, and what somebody says who knows its digest and length.
fn secret_and_lie() -> (Response, Response) {
    let secret = manifest("{\"secret\":1}");
    let lie = secret.clone().body(" ".repeat(12));
    (secret, lie)
}

#[test]
fn a_registry_that_variables_name_does_not_grant_what_another_has() {
    const FIRST: &str = "first.example";
    let scene = scene_of(|hub| {
        hub.add_host(FIRST);
        hub.add_host(SECOND);
        builder(hub).server(&format!(
            "location ~ ^/v2/(?<registry>[a-z.]+)/(?<rest>.+)$ {{
                 {CACHE} proxy_pass https://$registry/v2/$rest;
             }}"
        ))
    });
    let (secret, lie) = secret_and_lie();
    scene.hub.route(FIRST, move |_| secret.clone().into());
    scene.hub.route(SECOND, move |_| lie.clone().into());
    let digest = Digest::of(b"{\"secret\":1}").to_string();
    for name in ["latest", &digest] {
        let url = |host: &str| scene.nginx.url(&by_digest(&format!("{host}/a"), name));
        let want = if name == "latest" { "REVALIDATED" } else { "HIT" };
        for want in ["MISS", want] {
            let answer = get(&url(FIRST)).send();
            assert_eq!((cache(&answer), answer.text().contains("secret")), (want, true), "{name}");
        }
        for _ in 0..2 {
            let answer = get(&url(SECOND)).send();
            assert_eq!((cache(&answer), answer.text().contains("secret")), ("MISS", false));
        }
    }
}

#[test]
fn a_fallback_does_not_grant_what_the_registry_has() {
    let scene = scene_of(|hub| {
        hub.add_host(SECOND);
        let fallback = format!("docker_fallback https://{SECOND} credentials=none;");
        builder(hub).server(&location(&format!("{CACHE} {fallback}")))
    });
    let (secret, lie) = secret_and_lie();
    let digest = Digest::of(b"{\"secret\":1}").to_string();
    let of_registry = secret.clone();
    scene.hub.route(REGISTRY, move |_| of_registry.clone().into());
    scene.hub.route(SECOND, move |_| lie.clone().into());
    let by_digest = by_digest(REPOSITORY, &digest);
    for path in [TAG, &by_digest] {
        assert!(scene.get(path).send().text().contains("secret"), "{path}");
    }
    scene.hub.on(REGISTRY, "/", Fault::Status(503));
    for path in [TAG, &by_digest] {
        let answer = get(&scene.nginx.url(path)).bearer("forged").send();
        assert_eq!((answer.status, cache(&answer)), (200, "MISS"), "{path}");
        assert!(!answer.text().contains("secret"), "{path}: {}", answer.text());
    }

    // What it had itself is its own to grant, and the registry's as well.
    scene.hub.off(SECOND);
    scene.hub.route(SECOND, move |_| secret.clone().into());
    for want in ["MISS", "REVALIDATED"] {
        let answer = scene.get(TAG).send();
        assert_eq!((cache(&answer), answer.text().contains("secret")), (want, true));
    }
}

/// A change of an honest answer.
type Lie = fn(Response) -> Response;

#[test]
fn an_upstream_that_lies_fills_no_memory() {
    let scene = scene();
    let lies: [(&str, Lie); 9] = [
        ("another body", |good| good.body("[]")),
        ("another body in chunks", |good| good.body("[]").chunked(1)),
        ("no digest", |good| good.without("docker-content-digest")),
        ("no type", |good| good.without("content-type")),
        ("encoded", |good| good.header("Content-Encoding", "gzip")),
        ("two digests", |good| good.header("Docker-Content-Digest", OTHER)),
        ("5 MB", |good| good.body("x".repeat(5 << 20))),
        ("5 MB in chunks", |good| good.body("x".repeat(5 << 20)).chunked(60_000)),
        ("cut", |good| good.shape(Shape::CutBody(4, End::Close))),
    ];
    for (number, (name, lie)) in lies.into_iter().enumerate() {
        for (number, by_tag) in [(2 * number, true), (2 * number + 1, false)] {
            let good = manifest(&format!("{{\"a\":{number}}}"));
            let by_digest = by_digest(REPOSITORY, &digest_of(number));
            let lying = lie(good.clone());
            scene.hub.route(REGISTRY, move |_| lying.clone().into());
            for _ in 0..2 {
                match scene.get(if by_tag { TAG } else { &by_digest }).try_send() {
                    Ok(answer) if answer.complete => {
                        assert_eq!((answer.status, cache(&answer)), (200, "MISS"), "{name}");
                    }
                    _ => assert_eq!(name, "cut"),
                }
            }
            // Neither by this name nor by its digest is anything known.
            scene.hub.off(REGISTRY);
            scene.hub.route(REGISTRY, move |_| good.clone().into());
            scene.hub.forget();
            assert_eq!(scene.get(&by_digest).send().status, 200, "{name}");
            assert_eq!(scene.asked(), [format!("GET {by_digest}")], "{name}");
            scene.hub.off(REGISTRY);
        }
    }
}

/// The digest of something else.
const OTHER: &str = "sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

fn digest_of(number: usize) -> String {
    Digest::of(format!("{{\"a\":{number}}}").as_bytes()).to_string()
}

#[test]
fn a_body_that_is_not_what_was_asked_for_is_not_kept() {
    let scene = scene();
    let body = "{\"a\":1}";
    let wrong = manifest(body);
    scene.hub.route(REGISTRY, move |_| wrong.clone().into());
    let asked = by_digest(REPOSITORY, OTHER);
    for _ in 0..2 {
        let answer = scene.get(&asked).send();
        // The client checks for itself; nothing is hidden from it.
        assert_eq!(seen(&answer), (200, "MISS", body.as_bytes()));
    }
    assert_eq!(scene.asked(), vec![format!("GET {asked}"); 2]);
}

#[test]
fn head_and_get_may_disagree() {
    let scene = scene();
    let (first, second) = ("{\"a\":1}", "{\"a\":2}");
    let known = manifest(first);
    scene.hub.route(REGISTRY, move |_| known.clone().into());
    scene.fill(TAG);

    // What HEAD says of what is known, and what the GET brings instead.
    let rows: [(&str, Response); 6] = [
        ("another type", manifest(first).without("content-type").header("Content-Type", "a/b")),
        ("another length", manifest(first).header("Content-Length", "9")),
        ("no length", manifest(first).header("Transfer-Encoding", "chunked")),
        ("no digest", manifest(first).without("docker-content-digest")),
        ("two digests", manifest(first).header("Docker-Content-Digest", OTHER)),
        ("another digest", manifest(second)),
    ];
    for (name, on_head) in rows {
        scene.hub.off(REGISTRY);
        scene.hub.route(REGISTRY, move |request| {
            let answer = if request.method == "HEAD" { on_head.clone() } else { manifest("[]") };
            answer.into()
        });
        let answer = scene.get(TAG).send();
        assert_eq!(seen(&answer), (200, "MISS", b"[]".as_slice()), "{name}");
        assert_eq!(scene.asked(), [format!("HEAD {TAG}"), format!("GET {TAG}")], "{name}");

        scene.hub.off(REGISTRY);
        scene.hub.route(REGISTRY, move |_| manifest(first).into());
        let honest = scene.get(TAG).send();
        assert_eq!(seen(&honest), (200, "REVALIDATED", first.as_bytes()), "{name}");
        scene.hub.forget();
    }
}

#[test]
fn what_the_client_says_poisons_nothing() {
    let scene = scene_of(|hub| {
        builder(hub)
            .server(&location(&format!("{STALE} proxy_set_header Host $http_host;")))
            .server(&format!("{STALE} location / {{ proxy_pass https://{SECOND}; }}"))
            .http(&format!("upstream {SECOND} {{ server {}:443; }}", hub.add_host(SECOND)))
    });
    // Two upstreams, which serve other things under the same names; each says which Host it got.
    for host in [REGISTRY, SECOND] {
        scene.hub.route(host, move |request| {
            let sent = request.header("host").unwrap_or_default();
            manifest(&format!("{{\"a\":\"{host} {sent} {}\"}}", request.query())).into()
        });
    }
    let registry = scene.nginx.url(TAG);
    let second = scene.nginx.url_of(1, TAG);
    let own = |host: &str| format!("{{\"a\":\"{REGISTRY} {host} \"}}");
    let of = |url: &str, host: &str| get(url).header("Host", host).send();

    assert_eq!(of(&registry, REGISTRY).text(), own(REGISTRY));
    for host in [SECOND, "evil.example", "evil.example:443", "127.0.0.1"] {
        assert_eq!(of(&registry, host).text(), own(host), "{host}");
        assert_eq!(of(&second, REGISTRY).text(), format!("{{\"a\":\"{SECOND} {SECOND} \"}}"));
    }
    for query in ["ns=evil.example", "ns=docker.io&ns=evil.example", "a"] {
        let url = format!("{registry}?{query}");
        let want = format!("{{\"a\":\"{REGISTRY} {REGISTRY} {query}\"}}");
        assert_eq!(of(&url, REGISTRY).text(), want);
    }
    assert_eq!(of(&registry, REGISTRY).text(), own(REGISTRY));

    // Nothing of it is what anonymous clients get where it is not upstream's.
    for host in [REGISTRY, SECOND] {
        scene.hub.on(host, "/", Fault::Hap429);
    }
    let stale = of(&registry, REGISTRY);
    assert_eq!(seen(&stale), (200, "STALE", own(REGISTRY).as_bytes()));
    let other = of(&registry, "never.seen");
    assert_eq!((other.status, cache(&other)), (429, "MISS"));
    let stale = of(&second, REGISTRY);
    assert_eq!(stale.text(), format!("{{\"a\":\"{SECOND} {SECOND} \"}}"));
    let accepted = get(&registry).header("Host", REGISTRY).header("Accept", "a/b").send();
    assert_eq!((accepted.status, cache(&accepted)), (429, "MISS"));
}

#[test]
fn lines_that_are_there_twice_are_upstreams_to_judge() {
    let scene = scene();
    scene.fill(TAG);
    let token = scene.hub.token(REPOSITORY);
    let raw = |lines: &str| {
        let url = scene.nginx.url(TAG);
        let mut connection = Connection::open(&get(&url)).unwrap();
        let head = format!("GET {TAG} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
        connection.write(head.as_bytes()).unwrap();
        connection.answer("GET").unwrap()
    };
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(cache(&raw(&format!("Host: a\r\n{bearer}"))), "REVALIDATED");
    assert_eq!(raw(&format!("Host: a\r\nHost: b\r\n{bearer}")).status, 400);
    let twice = raw(&format!("Host: a\r\nAuthorization: Bearer x\r\n{bearer}"));
    assert!(matches!(twice.status, 400 | 401), "{}", twice.status);
    let length = raw(&format!("Host: a\r\nContent-Length: 0\r\n{bearer}"));
    assert_eq!((length.status, cache(&length)), (200, "REVALIDATED"));
}

// While upstream fails.

/// What can go wrong with the registry: a name, and how to bring it about.
type Trouble = (&'static str, Box<dyn Fn(&Hub)>);

/// Ways in which HEAD meets a limit or a failure.
fn failures() -> Vec<Trouble> {
    let fault = |name, fault: Fault| -> Trouble {
        (name, Box::new(move |hub| hub.on(REGISTRY, "/", fault.clone())))
    };
    vec![
        fault("abuse limit", Fault::Hap429),
        fault("pull limit", Fault::TooManyRequests),
        fault("500", Fault::Status(500)),
        fault("503", Fault::Status(503)),
        fault("closed", Fault::Close(End::Close)),
        ("refused", Box::new(|hub| hub.refuse(REGISTRY))),
    ]
}

#[test]
fn anonymous_clients_get_what_anonymous_clients_had() {
    let scene = scene_with(STALE);
    let direct = scene.direct(TAG);
    let digest = by_digest(REPOSITORY, &scene.image.digest);
    scene.fill(TAG);
    assert_eq!(cache(&scene.get(&digest).send()), "HIT");
    for (name, fail) in failures() {
        fail(&scene.hub);
        for path in [TAG, &digest] {
            let stale = scene.get(path).send();
            assert_eq!(seen(&stale), (200, "STALE", direct.body.as_slice()), "{name}");
            assert_eq!(stale.header("content-type"), direct.header("content-type"), "{name}");
            let named = stale.header("docker-content-digest");
            assert_eq!(named, Some(scene.image.digest.as_str()), "{name}");
            let warning = stale.header("warning").unwrap_or_default();
            assert!(warning.starts_with("299 - \""), "{name}: {warning}");

            // A client with a name is told the truth.
            let alice = scene.hub.token_of("alice", REPOSITORY);
            // As GitLab's deploy tokens, without a subject.
            let nobody = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"iss":"a"}"#));
            let personal = [
                scene.bare(path).bearer(&alice),
                scene.bare(path).bearer(&nobody),
                scene.bare(path).bearer("opaque"),
                scene.bare(path).header("Authorization", "Basic YTpi"),
                scene.get(path).header("Cookie", "a=b"),
                scene.get(path).header("Accept", "text/html"),
            ];
            for request in personal {
                let refused = request.send();
                assert!(refused.status >= 429, "{name}: {refused:?}");
                assert_eq!(cache(&refused), "MISS", "{name}");
            }
            // What is not known is not made up.
            let unknown = scene.get("/v2/library/x/manifests/other").send();
            assert!(unknown.status >= 429, "{name}: {unknown:?}");
        }
        scene.hub.off(REGISTRY);
        scene.hub.accept(REGISTRY);
        assert_eq!(cache(&scene.get(TAG).send()), "REVALIDATED", "{name}");
    }
    // A refusal is none of these.
    scene.hub.revoke(&scene.hub.token(REPOSITORY));
    assert_eq!(scene.bare(TAG).send().status, 401);
}

#[test]
fn a_registry_that_takes_no_head_is_not_out_of_order() {
    let scene = scene_with(STALE);
    for (number, body) in ["{\"a\":1}", "{\"a\":2}"].into_iter().enumerate() {
        scene.hub.off(REGISTRY);
        scene.hub.route(REGISTRY, move |request| match request.method.as_str() {
            "HEAD" => Response::new(501).into(),
            _ => manifest(body).into(),
        });
        let answer = scene.get(TAG).send();
        assert_eq!(seen(&answer), (200, "MISS", body.as_bytes()), "{number}");
    }
}

#[test]
fn variables_of_the_module_may_name_what_a_connection_shows() {
    let scene = scene_with(&format!(
        "{STALE} proxy_ssl_certificate $docker_fallback; proxy_ssl_certificate_key $docker_fallback;"
    ));
    for want in ["MISS", "REVALIDATED"] {
        assert_eq!(cache(&scene.get(TAG).send()), want);
    }
    scene.hub.on(REGISTRY, "/", Fault::Status(503));
    assert_eq!(scene.get(TAG).send().status, 503, "a client certificate is somebody's");
    assert!(!scene.nginx.errors().contains("panicked"), "{}", scene.nginx.errors());
}

#[test]
fn what_needed_a_name_is_never_stale() {
    let rows: [(&str, &str, &str); 6] = [
        ("the client's token", "", "alice"),
        ("a password of the location's", "proxy_set_header Authorization \"Basic YTpi\";", ""),
        ("a key of the location's", "proxy_set_header X-Api-Key a;", ""),
        ("a name of the location's", "proxy_set_header X-Remote-User alice;", ""),
        ("a cookie of the location's", "proxy_set_header Cookie a=b;", ""),
        ("no stale=", "docker_manifest_cache zone=docker;", ""),
    ];
    for (name, directives, user) in rows {
        let cache_directive = if directives.contains("docker_manifest_cache") { "" } else { STALE };
        let scene = scene_with(&format!("{cache_directive} {directives}"));
        scene.hub.authentication(false);
        let token = if user.is_empty() {
            scene.hub.token(REPOSITORY)
        } else {
            scene.hub.token_of(user, REPOSITORY)
        };
        for want in ["MISS", "REVALIDATED"] {
            let answer = scene.bare(TAG).bearer(&token).send();
            assert_eq!((answer.status, cache(&answer)), (200, want), "{name}");
        }
        scene.hub.on(REGISTRY, "/", Fault::Status(503));
        for request in [scene.get(TAG), scene.bare(TAG), scene.bare(TAG).bearer(&token)] {
            let answer = request.send();
            assert_eq!((answer.status, cache(&answer)), (503, "MISS"), "{name}");
        }
    }
}

#[test]
fn stale_manifests_have_their_time() {
    let scene = scene_with("docker_manifest_cache zone=docker stale=1s;");
    scene.fill(TAG);
    scene.hub.on(REGISTRY, "/", Fault::Status(503));
    assert_eq!(cache(&scene.get(TAG).send()), "STALE");
    let gone = || scene.get(TAG).send().status == 503;
    assert!(until(Duration::from_secs(5), gone), "stale for ever");
    assert_eq!(cache(&scene.get(TAG).send()), "MISS");
}

#[test]
fn a_fallback_that_serves_comes_before_what_is_stale() {
    let scene = scene_of(|hub| {
        hub.add_host(SECOND);
        builder(hub).server(&location(&format!("{STALE} docker_fallback https://{SECOND};")))
    });
    scene.fill(TAG);
    scene.hub.on(REGISTRY, "/", Fault::Status(503));
    for want in ["MISS", "REVALIDATED"] {
        let served = scene.get(TAG).send();
        assert_eq!((cache(&served), served.header("x-served-by")), (want, Some(SECOND)));
    }
    scene.hub.on(SECOND, "/", Fault::Status(503));
    assert_eq!(cache(&scene.get(TAG).send()), "STALE");
}

// Memory.

#[test]
fn a_full_zone_gives_way_and_fails_nobody() {
    let scene = scene_of(|hub| {
        Nginx::builder()
            .http(&hub.http_conf())
            .http("docker_zone docker:64k;")
            .http("add_header X-Cache $docker_manifest_cache always;")
            .server(&location(CACHE))
    });
    scene.hub.route(REGISTRY, |request| {
        let padding = "x".repeat(3_000);
        manifest(&format!("{{\"a\":\"{} {padding}\"}}", request.path())).into()
    });
    let pull = |number: usize| scene.get(&format!("/v2/library/x/manifests/{number}")).send();
    for number in 0..200 {
        let answer = pull(number);
        assert_eq!((answer.status, cache(&answer)), (200, "MISS"), "{number}");
    }
    assert_eq!(cache(&pull(199)), "REVALIDATED");
    assert_eq!(cache(&pull(0)), "MISS");
    // Larger than the whole zone.
    scene.hub.off(REGISTRY);
    scene.hub.route(REGISTRY, |_| manifest(&"x".repeat(200_000)).into());
    for _ in 0..2 {
        let answer = pull(1_000);
        assert_eq!((answer.status, cache(&answer), answer.body.len()), (200, "MISS", 200_000));
    }
}

#[test]
fn an_entry_takes_its_size_and_at_most_512_bytes() {
    const COUNT: usize = 1_000;
    const SIZE: usize = 3_000;
    // What is left for the zone's own book-keeping.
    let zone = COUNT * (SIZE + 512) + (64 << 10);
    let scene = scene_of(|hub| {
        Nginx::builder()
            .http(&hub.http_conf())
            .http(&format!("docker_zone docker:{zone};"))
            .http("add_header X-Cache $docker_manifest_cache always; keepalive_requests 10000;")
            .server(&location(CACHE))
    });
    scene.hub.record(false);
    scene.hub.route(REGISTRY, |request| {
        let name = request.path().rsplit('/').next().unwrap();
        manifest(&format!("{name:SIZE$}")).into()
    });
    let mut client = Pulls::new(&scene.nginx);
    for number in 0..COUNT {
        assert_eq!(client.pull(number), "MISS");
    }
    for number in 0..COUNT {
        assert_eq!(client.pull(number), "REVALIDATED", "{number}");
    }
}

/// A client that pulls one tag after the other over a connection that is kept.
struct Pulls(Connection);

impl Pulls {
    fn new(nginx: &Nginx) -> Self {
        Self(Connection::open(&get(&nginx.url(TAG))).unwrap())
    }

    /// What the cache did.
    fn pull(&mut self, number: usize) -> String {
        let path = format!("/v2/library/x/manifests/{number}");
        self.0.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let answer = self.0.answer("GET").unwrap();
        assert_eq!((answer.status, answer.complete), (200, true));
        cache(&answer).to_owned()
    }
}

/// `TEST_TAGS=100000` asks for as many.
#[test]
fn thousands_of_tags_take_no_more_than_the_zone() {
    const CLIENTS: usize = 4;
    let tags = std::env::var("TEST_TAGS").ok().and_then(|tags| tags.parse().ok());
    let tags: usize = tags.unwrap_or(10_000) / CLIENTS;
    let scene = scene_of(|hub| {
        let upstream =
            format!("upstream plain {{ server {}:80; keepalive 8; }}", hub.address(REGISTRY));
        Nginx::builder()
            .http(&hub.http_conf())
            .http(&upstream)
            .http(
                "docker_zone docker:256k; keepalive_requests 1000000; access_log off;
                 add_header X-Cache $docker_manifest_cache always;",
            )
            .server(&format!(
                "location / {{ {STALE} proxy_pass http://plain; \
                 proxy_set_header Host {REGISTRY}; }}"
            ))
    });
    scene.hub.record(false);
    scene
        .hub
        .route(REGISTRY, |request| manifest(&format!("{{\"a\":\"{}\"}}", request.path())).into());
    let pull = |from: usize, count: usize| {
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let scene = &scene;
                scope.spawn(move || {
                    let mut pulls = Pulls::new(&scene.nginx);
                    for number in 0..count {
                        pulls.pull(from + client * count + number);
                    }
                });
            }
        });
    };
    let worker = scene.nginx.workers()[0];
    pull(0, 500);
    let before = resident(worker);
    pull(1_000_000, tags);
    let after = resident(worker);
    assert!(after < before + 1024, "{before} KiB, then {after} KiB");
    let mut client = Pulls::new(&scene.nginx);
    assert_eq!(client.pull(2_000_000), "MISS");
    assert_eq!(client.pull(2_000_000), "REVALIDATED");
}

/// The memory of a process, KiB.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
