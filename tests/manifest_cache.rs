//! `docker_manifest_cache`: a manifest that is known is not fetched again.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use support::{Answer, Hub, Image, Nginx, NginxBuilder, REGISTRY, Request, get};

const REPOSITORY: &str = "library/x";
const TAG: &str = "/v2/library/x/manifests/latest";

/// An nginx before the hub, whose answers tell what the cache did.
fn builder(hub: &Hub) -> NginxBuilder {
    Nginx::builder().http(&hub.http_conf()).http(
        "docker_zone docker:1m;
         proxy_connect_timeout 1s;
         proxy_read_timeout 2s;
         add_header X-Cache $docker_manifest_cache always;",
    )
}

fn location(directives: &str) -> String {
    format!("location / {{ {directives} proxy_pass https://{REGISTRY}; }}")
}

/// A hub with one image, and a mirror whose location has these directives.
struct Scene {
    nginx: Nginx,
    hub: Hub,
    image: Image,
}

fn scene_with(directives: &str) -> Scene {
    let hub = Hub::start();
    let image = hub.add_image(REPOSITORY, "latest", &[b"x"]);
    let nginx = builder(&hub).server(&location(directives)).start();
    Scene { nginx, hub, image }
}

fn scene() -> Scene {
    scene_with("docker_manifest_cache zone=docker;")
}

impl Scene {
    /// A request with a token that is good for the repository.
    fn get(&self, target: &str) -> Request {
        get(&self.nginx.url(target)).bearer(&self.hub.token(REPOSITORY))
    }

    /// What the registry was asked since the last time.
    fn asked(&self) -> Vec<String> {
        let asked = self.hub.requests(REGISTRY).iter().map(|request| request.line()).collect();
        self.hub.forget();
        asked
    }

    fn direct(&self, target: &str) -> Answer {
        let address = (self.hub.address(REGISTRY), 80).into();
        get(&format!("http://{REGISTRY}{target}"))
            .connect(address)
            .bearer(&self.hub.token(REPOSITORY))
            .send()
    }
}

fn cache(answer: &Answer) -> &str {
    answer.header("x-cache").unwrap_or("-")
}

/// Status, what the cache did, and the body.
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
    let index = format!("/v2/{REPOSITORY}/manifests/{}", scene.image.digest);
    let manifest = format!("/v2/{REPOSITORY}/manifests/{}", scene.image.manifests[0]);

    assert_eq!(cache(&scene.get(TAG).send()), "MISS");
    assert_eq!(cache(&scene.get(&index).send()), "HIT");
    assert_eq!(cache(&scene.get(&manifest).send()), "MISS");
    assert_eq!(cache(&scene.get(&manifest).send()), "HIT");
    assert_eq!(scene.hub.manifests_counted(), 2);
}
