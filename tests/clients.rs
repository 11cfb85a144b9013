//! Real clients through a mirror of `nginx-conf/docker-hub.conf`: docker, podman, skopeo, and
//! containerd's ctr.
//!
//! For them, the hub's names lead to a host that only counts who comes: a client that goes around
//! the mirror is seen. nginx speaks to the hub from an address of its own: so is a request of
//! anybody else's.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::fmt::Write as _;
use std::path::PathBuf;

use support::{
    AUTH, CLOUDFLARE, DockerRegistry, Dockerd, End, Ended, Fault, Hub, INDEX, Image, Island, Kind,
    Nginx, R2, REGISTRY, Reply, Response, Shape, get, nginx_conf, noise,
};

/// The fallback of `docker-hub.conf`.
const FALLBACK: &str = "mirror2.example.net";
/// Where the hub's names lead clients.
const TRAP: &str = "trap.example";
const USER: (&str, &str) = ("alice", "correct horse");
const LAYER: usize = 300_000;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Client {
    Docker,
    Podman,
    Skopeo,
    Ctr,
}

use Client::{Ctr, Docker, Podman, Skopeo};

const ALL: [Client; 4] = [Docker, Podman, Skopeo, Ctr];

impl Client {
    /// A repository that only this client of a test pulls from: none has anything of it yet.
    fn repository(self) -> String {
        format!("library/{self:?}").to_lowercase()
    }
}

/// How clients come to the mirror.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// The mirror's name is part of the image's.
    ByName,
    /// A setting of the client's leads the hub's images there.
    Configured,
}

/// A hub, a mirror before it, and clients.
struct Scene {
    nginx: Option<Nginx>,
    dockerd: Option<Dockerd>,
    island: Island,
    hub: Hub,
    mirror: String,
    /// The port without TLS.
    clear: u16,
    bind: String,
}

impl Scene {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With replacements in `docker-hub.conf`.
    fn with(replacements: &[(&str, &str)]) -> Self {
        let hub = Hub::start();
        hub.add_host(FALLBACK);
        let trap = hub.add_host_as(TRAP, Kind::Blank);
        let bind = hub.network().replace(".0/24", ".250");
        let nginx = mirror(&hub, &bind, replacements);
        let mirror = format!("mirror.example.com:{}", nginx.port_of(0));
        let clear = nginx.port_of(1);

        let mut hosts = "127.0.0.1 mirror.example.com\n".to_owned();
        for (name, _) in hub.hosts() {
            let _ = writeln!(hosts, "{trap} {name}");
        }
        let mut island = Island::new(&hosts);
        island.set("SSL_CERT_FILE", &hub.ca_file().display().to_string());
        island.file(
            "home/.config/containers/registries.conf",
            &format!(
                "[[registry]]\nlocation = \"docker.io\"\n\
                 [[registry.mirror]]\nlocation = \"{mirror}\"\n"
            ),
        );
        island.file(
            "certs.d/docker.io/hosts.toml",
            &format!(
                "server = \"https://{REGISTRY}\"\n[host.\"https://{mirror}\"]\n\
                 capabilities = [\"pull\", \"resolve\"]\n"
            ),
        );
        Self { nginx: Some(nginx), dockerd: None, island, hub, mirror, clear, bind }
    }

    fn nginx(&self) -> &Nginx {
        self.nginx.as_ref().unwrap()
    }

    /// An image of two layers that do not compress.
    fn image(&self, repository: &str) -> Image {
        self.image_of(repository, LAYER)
    }

    fn image_of(&self, repository: &str, size: usize) -> Image {
        let seed = repository
            .bytes()
            .fold(1, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let layers = [noise(seed, size), noise(seed + 1, size)];
        self.hub.add_image(repository, "latest", &[&layers[0], &layers[1]])
    }

    /// Pulls an image's tag `latest`, for this user if any.
    fn pull(
        &mut self,
        client: Client,
        way: Way,
        repository: &str,
        user: Option<(&str, &str)>,
    ) -> Ended {
        let name = match way {
            Way::ByName => format!("{}/{repository}:latest", self.mirror),
            Way::Configured => format!("docker.io/{repository}:latest"),
        };
        self.pull_name(client, &name, user)
    }

    fn pull_name(&mut self, client: Client, name: &str, user: Option<(&str, &str)>) -> Ended {
        let credentials = user.map(|(user, password)| format!("{user}:{password}"));
        let credentials = credentials.as_deref();
        if matches!(client, Docker | Ctr) {
            self.daemon();
        }
        let island = &self.island;
        let mut command: Vec<&str> = Vec::new();
        let source = format!("docker://{name}");
        let target = format!("dir:{}", island.path(&format!("skopeo/{}", name.replace('/', "-"))));
        let paths = ["podman/root", "podman/run", "podman/tmp"].map(|path| island.path(path));
        let socket = island.path("dockerd/containerd.sock");
        let hosts = island.path("certs.d");
        match client {
            Docker => {
                let registry = match name.split('/').next() {
                    Some("docker.io") | None => "https://index.docker.io/v1/",
                    Some(registry) => registry,
                };
                let auths = user.map_or(String::new(), |(user, password)| {
                    format!(
                        "\"{registry}\": \
                         {{ \"username\": \"{user}\", \"password\": \"{password}\" }}"
                    )
                });
                let config = format!("{{ \"auths\": {{ {auths} }} }}");
                island.file("home/.docker/config.json", &config);
                command.extend(["docker", "pull", name]);
            }
            Podman => {
                command.extend(["podman", "--root", &paths[0], "--runroot", &paths[1]]);
                command.extend(["--tmpdir", &paths[2], "--storage-driver", "vfs"]);
                command.extend(["--events-backend", "none", "pull", name]);
                command.extend(credentials.map_or(vec![], |them| vec!["--creds", them]));
            }
            Skopeo => {
                island.file("skopeo/made", "");
                command.extend(["skopeo", "copy", &source, &target]);
                command.extend(credentials.map_or(vec![], |them| vec!["--src-creds", them]));
            }
            Ctr => {
                command.extend(["ctr", "--address", &socket, "images", "pull"]);
                command.extend(["--hosts-dir", &hosts, "--snapshotter", "native"]);
                command.extend(credentials.map_or(vec![], |them| vec!["--user", them]));
                command.push(name);
            }
        }
        island.run(&command)
    }

    /// Starts dockerd and containerd, if they do not run yet.
    fn daemon(&mut self) {
        if self.dockerd.is_none() {
            let mirror = format!("https://{}", self.mirror);
            let arguments = ["--registry-mirror", &mirror, "--max-download-attempts", "2"];
            self.dockerd = Some(self.island.dockerd(&arguments));
        }
    }

    /// Nobody but nginx spoke to the hub, and nobody tried.
    #[track_caller]
    fn only_nginx_spoke_to_the_hub(&self, what: &str) {
        assert_eq!(self.hub.counts(TRAP).connections, 0, "{what}: a client went to the hub");
        for (host, _) in self.hub.hosts() {
            for request in self.hub.requests(&host) {
                assert_eq!(request.peer.ip().to_string(), self.bind, "{what}: {}", request.line());
            }
        }
    }

    /// How many GETs of a blob a host answered.
    fn blobs(&self, host: &str, digest: &str) -> usize {
        let hex = digest.trim_start_matches("sha256:");
        let requests = self.hub.requests(host);
        requests.iter().filter(|request| request.path().contains(hex)).count()
    }
}

/// nginx with `docker-hub.conf`, which also listens at a port without TLS.
fn mirror(hub: &Hub, bind: &str, replacements: &[(&str, &str)]) -> Nginx {
    let ca = hub.ca_file().display().to_string();
    let (certificate, key) = hub.authority().issue(&["mirror.example.com"]);
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let follow = format!("docker_follow_redirect on private={};", hub.network());
    let mut own = vec![
        (
            "listen              443 ssl;",
            "listen 127.0.0.1:%port0% ssl http2; listen 127.0.0.1:%port1%;",
        ),
        ("/etc/nginx/tls/mirror.example.com.crt", certificate.as_str()),
        ("/etc/nginx/tls/mirror.example.com.key", key.as_str()),
        ("docker_follow_redirect on;", follow.as_str()),
    ];
    own.extend(replacements);
    let servers: Vec<(String, String)> = [REGISTRY, AUTH, INDEX]
        .iter()
        .map(|host| (format!("server {host}:"), format!("server {}:", hub.address(host))))
        .collect();
    let servers: Vec<(&str, &str)> =
        servers.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();

    Nginx::builder()
        .whole(&format!(
            "http {{
                 log_format clients '$status $request $docker_origin_host $docker_fallback';
                 access_log %prefix%/access.log clients;
                 client_body_temp_path %prefix%/body;
                 proxy_temp_path %prefix%/proxy;
                 proxy_bind {bind};
                 resolver {};
                 include docker-hub.conf;
             }}",
            hub.resolver(),
        ))
        .file("docker-hub.conf", &nginx_conf("docker-hub.conf", &own))
        .file("docker-keepalive.conf", &nginx_conf("docker-keepalive.conf", &servers))
        .file(
            "docker-mirror.conf",
            &nginx_conf("docker-mirror.conf", &[("/etc/ssl/certs/ca-certificates.crt", &ca)]),
        )
        .start()
}

/// A mirror without the fallback that `docker-hub.conf` names.
const NO_FALLBACK: [(&str, &str); 2] = [
    ("docker_fallback        https://mirror2.example.net;", ""),
    ("docker_fallback https://mirror2.example.net;", ""),
];

#[test]
fn every_client_pulls_through_the_mirror_and_meets_nobody_else() {
    let mut scene = Scene::new();
    for client in ALL {
        for way in [Way::ByName, Way::Configured] {
            let what = format!("{client:?} {way:?}");
            let repository = format!("{}-{way:?}", client.repository()).to_lowercase();
            let image = scene.image(&repository);
            scene.hub.forget();

            let pulled = scene.pull(client, way, &repository, None);
            assert!(pulled.success, "{what}: {}", pulled.text);
            scene.only_nginx_spoke_to_the_hub(&what);
            assert!(!scene.hub.requests(AUTH).is_empty(), "{what}: no token was asked for");
            for digest in image.layers.iter().chain(&image.configs[..1]) {
                assert_eq!(scene.blobs(CLOUDFLARE, digest), 1, "{what}: {digest}");
            }
            for request in scene.hub.requests(CLOUDFLARE) {
                assert_eq!(request.header("authorization"), None, "{what}");
            }
            assert_eq!(scene.hub.counts(FALLBACK).connections, 0, "{what}");

            if client == Docker {
                let name = match way {
                    Way::ByName => format!("{}/{repository}", scene.mirror),
                    Way::Configured => repository,
                };
                let format = "{{index .RepoDigests 0}} {{index .RootFS.Layers 0}}";
                let seen =
                    scene.island.run(&["docker", "image", "inspect", "--format", format, &name]);
                assert!(seen.text.contains(&image.digest), "{what}: {}", seen.text);
            }
        }
    }
}

#[test]
fn docker_pulls_without_tls() {
    let mut scene = Scene::new();
    let image = scene.image("library/clear");
    let name = format!("127.0.0.1:{}/library/clear:latest", scene.clear);
    let pulled = scene.pull_name(Docker, &name, None);
    assert!(pulled.success && pulled.text.contains(&image.digest), "{}", pulled.text);
    scene.only_nginx_spoke_to_the_hub("docker");
    assert_eq!(scene.blobs(CLOUDFLARE, &image.layers[0]), 1);
}

/// What the other tests rely on: the trap sees clients that go around a mirror.
#[test]
fn clients_go_around_a_mirror_that_is_gone() {
    let mut scene = Scene::new();
    scene.daemon();
    scene.nginx = None;
    for client in ALL {
        scene.image(&client.repository());
        scene.hub.forget();
        let pulled = scene.pull(client, Way::Configured, &client.repository(), None);
        assert!(!pulled.success, "{client:?}: {}", pulled.text);
        assert!(scene.hub.counts(TRAP).connections > 0, "{client:?}: {}", pulled.text);
    }
}

#[test]
fn private_images_need_credentials() {
    let mut scene = Scene::new();
    for client in ALL {
        let repository = format!("alice/{client:?}").to_lowercase();
        let image = scene.image(&repository);
        scene.hub.protect(&repository, USER.0, USER.1);
        scene.hub.forget();

        let cases = [
            ("nobody", None),
            ("a wrong password", Some((USER.0, "wrong"))),
            ("alice", Some(USER)),
        ];
        for (name, user) in cases {
            let what = format!("{client:?}, {name}");
            let pulled = scene.pull(client, Way::ByName, &repository, user);
            assert_eq!(pulled.success, user == Some(USER), "{what}: {}", pulled.text);
            let layers = scene.blobs(CLOUDFLARE, &image.layers[0]);
            assert_eq!(layers, usize::from(pulled.success), "{what}");
            scene.only_nginx_spoke_to_the_hub(&what);
        }
        // The public fallback was never a way around the password.
        assert_eq!(scene.hub.counts(FALLBACK).connections, 0, "{client:?}");
    }
}

#[test]
fn docker_logs_in_at_the_mirror() {
    let mut scene = Scene::new();
    scene.image("alice/app");
    scene.hub.protect("alice/app", USER.0, USER.1);
    scene.daemon();
    let login = |password: &str| {
        scene.island.run(&["docker", "login", "-u", USER.0, "-p", password, &scene.mirror])
    };

    let denied = login("wrong");
    assert!(!denied.success && denied.text.contains("incorrect username"), "{}", denied.text);
    let welcome = login(USER.1);
    assert!(welcome.success, "{}", welcome.text);
    let image = format!("{}/alice/app", scene.mirror);
    let pulled = scene.island.run(&["docker", "pull", &image]);
    assert!(pulled.success, "{}", pulled.text);
    scene.only_nginx_spoke_to_the_hub("docker login");
}

#[test]
fn docker_searches_through_the_mirror() {
    let mut scene = Scene::new();
    scene.daemon();
    let query = format!("{}/alpine", scene.mirror);
    let found = scene.island.run(&["docker", "search", &query]);
    assert!(found.success, "{}", found.text);
    assert!(found.text.contains("found by the search index"), "{}", found.text);
    let asked = scene.hub.last_request(INDEX);
    assert!(asked.path() == "/v1/search" && asked.query().contains("alpine"), "{}", asked.line());
    scene.only_nginx_spoke_to_the_hub("docker search");
}

#[test]
fn skopeo_inspects_and_lists_tags() {
    let scene = Scene::new();
    let image = scene.image("library/tags");
    let source = format!("docker://{}/library/tags", scene.mirror);
    let seen = scene.island.run(&["skopeo", "inspect", &source]);
    assert!(seen.success && seen.text.contains(&image.layers[1]), "{}", seen.text);
    let tags = scene.island.run(&["skopeo", "list-tags", &source]);
    assert!(tags.success && tags.text.contains("\"latest\""), "{}", tags.text);
    scene.only_nginx_spoke_to_the_hub("skopeo");
}

#[test]
fn a_mirror_whose_certificate_nobody_knows_is_refused() {
    let mut scene = Scene::new();
    scene.island.set("SSL_CERT_FILE", "/dev/null");
    // Docker takes this address for insecure and does not check.
    for client in [Podman, Skopeo, Ctr] {
        scene.image(&client.repository());
        let pulled = scene.pull(client, Way::ByName, &client.repository(), None);
        assert!(!pulled.success && pulled.text.contains("x509"), "{client:?}: {}", pulled.text);
    }
    assert_eq!(scene.hub.counts(REGISTRY).requests, 0);
}

#[test]
fn the_fallback_answers_when_the_hub_limits() {
    let mut scene = Scene::new();
    for client in ALL {
        let image = scene.image(&client.repository());
        scene.hub.reset();
        scene.hub.on(REGISTRY, "/v2/library/", Fault::TooManyRequests);
        let what = format!("{client:?}");
        let pulled = scene.pull(client, Way::Configured, &client.repository(), None);
        assert!(pulled.success, "{what}: {}", pulled.text);
        scene.only_nginx_spoke_to_the_hub(&what);
        assert_eq!(scene.blobs(FALLBACK, &image.layers[0]), 1, "{what}");
        assert_eq!(scene.hub.counts(CLOUDFLARE).requests, 0, "{what}");
    }
}

#[test]
fn the_fallback_answers_when_the_cdn_is_down() {
    let mut scene = Scene::new();
    scene.hub.refuse(CLOUDFLARE);
    for client in ALL {
        let image = scene.image(&client.repository());
        scene.hub.forget();
        let what = format!("{client:?}");
        let pulled = scene.pull(client, Way::Configured, &client.repository(), None);
        assert!(pulled.success, "{what}: {}", pulled.text);
        scene.only_nginx_spoke_to_the_hub(&what);
        assert!(!scene.hub.requests(REGISTRY).is_empty(), "{what}");
        assert_eq!(scene.blobs(FALLBACK, &image.layers[0]), 1, "{what}");
    }
}

/// Locations where nginx itself answers, and a patience that a test can wait for.
const OWN_ERRORS: [(&str, &str); 2] = [
    (
        "include docker-keepalive.conf;",
        "include docker-keepalive.conf;
         limit_req_zone $server_name zone=one:1m rate=1r/m;
         proxy_read_timeout 2s;",
    ),
    (
        "location /v2/ {",
        "location /v2/denied/ { deny all; }
         location /v2/missing/ { return 404; }
         location /v2/limited/ {
             limit_req zone=one; limit_req_status 429;
             proxy_pass https://registry-1.docker.io;
         }
         location /v2/ {",
    ),
];

/// What a client prints when the mirror answers 5xx for this reason. Of Debian 12's podman and
/// skopeo, that is the status at most: they ask for another version of the API instead.
fn failed(client: Client, reason: &str) -> String {
    match client {
        Docker | Ctr => format!("502 Bad Gateway ({reason})"),
        Podman | Skopeo => String::new(),
    }
}

/// What a client prints has these words, and is no page of a browser's.
#[track_caller]
fn assert_says(client: Client, what: &str, pulled: &Ended, words: &[&str]) {
    assert!(!pulled.success, "{client:?}, {what}: {}", pulled.text);
    for word in words {
        assert!(pulled.text.contains(word), "{client:?}, {what}, no {word}: {}", pulled.text);
    }
    assert!(!pulled.text.contains("<html>"), "{client:?}, {what}: {}", pulled.text);
}

#[test]
fn without_a_fallback_clients_say_what_failed() {
    let mut scene = Scene::with(&[NO_FALLBACK.as_slice(), &OWN_ERRORS].concat());
    scene.hub.use_cdn(R2);
    for client in ALL {
        let repository = client.repository();
        scene.image(&repository);

        scene.hub.refuse(R2);
        let pulled = scene.pull(client, Way::ByName, &repository, None);
        let said = failed(client, &format!("CDN {R2}: could not be connected"));
        assert_says(client, "CDN down", &pulled, &["502", "Bad Gateway", &said]);
        scene.hub.accept(R2);

        scene.hub.refuse(REGISTRY);
        let pulled = scene.pull(client, Way::ByName, &repository, None);
        let said = failed(client, &format!("registry {REGISTRY}: could not be connected"));
        assert_says(client, "registry down", &pulled, &[&said]);
        scene.hub.accept(REGISTRY);

        let name = format!("denied/{client:?}").to_lowercase();
        let pulled = scene.pull(client, Way::ByName, &name, None);
        // ctr asks by HEAD, whose answer has no body.
        let said =
            if client == Ctr { "403 Forbidden" } else { "denied: this mirror denies access" };
        assert_says(client, "deny", &pulled, &[said]);
        let name = format!("missing/{client:?}").to_lowercase();
        let pulled = scene.pull(client, Way::ByName, &name, None);
        let unknown = "manifest unknown: this mirror has nothing here";
        let said = if client == Ctr { "not found" } else { unknown };
        assert_says(client, "404", &pulled, &[said]);

        // podman and skopeo would wait for a minute, or for as long as Retry-After says.
        if matches!(client, Docker | Ctr) {
            scene.hub.on(REGISTRY, "/v2/library/", Fault::TooManyRequests);
            let pulled = scene.pull(client, Way::ByName, &repository, None);
            let limited = "toomanyrequests: You have reached your unauthenticated pull rate limit";
            let said = if client == Ctr { "429 Too Many Requests" } else { limited };
            assert_says(client, "registry limited", &pulled, &[said]);
            scene.hub.off(REGISTRY);
            let name = format!("limited/{client:?}").to_lowercase();
            let url = format!("http://127.0.0.1:{}/v2/{name}/tags/list", scene.clear);
            let _ = get(&url).send();
            let pulled = scene.pull(client, Way::ByName, &name, None);
            let limited = "toomanyrequests: too many requests to this mirror, try again later";
            let said = if client == Ctr { "429 Too Many Requests" } else { limited };
            assert_says(client, "limit_req", &pulled, &[said]);
        }
    }
    scene.only_nginx_spoke_to_the_hub("errors");
}

#[test]
fn clients_pull_as_long_as_anybody_answers() {
    let mut scene = Scene::with(&OWN_ERRORS);
    for client in ALL {
        for name in ["down", "stalled", "fallback-down"] {
            let what = format!("{client:?}, {name}");
            let repository = format!("{}-{name}", client.repository());
            let image = scene.image(&repository);
            scene.hub.forget();
            match name {
                "down" => scene.hub.refuse(REGISTRY),
                "stalled" => scene.hub.on(REGISTRY, "/v2/library/", Fault::Stall),
                _ => scene.hub.refuse(FALLBACK),
            }
            let pulled = scene.pull(client, Way::ByName, &repository, None);
            assert!(pulled.success, "{what}: {}", pulled.text);
            let from = if name == "fallback-down" { CLOUDFLARE } else { FALLBACK };
            assert_eq!(scene.blobs(from, &image.layers[0]), 1, "{what}");
            scene.hub.off(REGISTRY);
            scene.hub.accept(REGISTRY);
            scene.hub.accept(FALLBACK);
        }

        let repository = format!("{}-nobody", client.repository());
        scene.image(&repository);
        scene.hub.refuse(REGISTRY);
        scene.hub.refuse(FALLBACK);
        let pulled = scene.pull(client, Way::ByName, &repository, None);
        let both = format!(
            "registry {REGISTRY}: could not be connected; \
             fallback {FALLBACK}: could not be connected"
        );
        assert_says(client, "both down", &pulled, &[&failed(client, &both)]);
        scene.hub.accept(REGISTRY);
        scene.hub.accept(FALLBACK);
    }
    scene.only_nginx_spoke_to_the_hub("failures");
}

#[test]
fn a_layer_that_was_cut_is_resumed_or_refused() {
    // podman and skopeo resume when they got a mebibyte at least, and since 2023 only.
    let size = 3_000_000;
    let mut scene = Scene::new();
    for client in ALL {
        let image = scene.image_of(&client.repository(), size);
        scene.hub.reset();
        let hex = image.layers[0].trim_start_matches("sha256:").to_owned();
        scene.hub.route(CLOUDFLARE, move |request| {
            if request.path().contains(&hex) && request.header("range").is_none() {
                Reply::Shaped(Shape::CutBody(size / 2, End::Close))
            } else {
                Reply::Normal
            }
        });

        let what = format!("{client:?}");
        let pulled = scene.pull(client, Way::ByName, &client.repository(), None);
        scene.only_nginx_spoke_to_the_hub(&what);
        if matches!(client, Podman | Skopeo) && !pulled.success {
            assert!(pulled.text.contains("unexpected EOF"), "{what}: {}", pulled.text);
            continue;
        }
        assert!(pulled.success, "{what}: {}", pulled.text);
        let requests = scene.hub.requests(CLOUDFLARE);
        let ranges: Vec<&str> =
            requests.iter().filter_map(|request| request.header("range")).collect();
        assert_eq!(ranges.len(), 1, "{what}: {ranges:?}");
        assert!(!ranges[0].starts_with("bytes=0-"), "{what}: {ranges:?}");
        assert_eq!(scene.blobs(CLOUDFLARE, &image.layers[0]), 2, "{what}");
    }
}

/// A real registry, whose blobs lie at a CDN: filled by `docker push` through nginx, read by every
/// client with the hub's tokens.
#[test]
fn clients_push_to_a_real_registry_and_pull_from_it() {
    let mut scene = Scene::new();
    scene.image("library/real");
    let storage = PathBuf::from(scene.island.path("storage"));
    let open = DockerRegistry::start(&storage, None);
    let settings =
        nginx_conf("docker-mirror.conf", &[("/etc/ssl/certs/ca-certificates.crt", "none")]);
    let settings = settings.replace("proxy_ssl_trusted_certificate none;", "");
    let to = |registry: &DockerRegistry| {
        format!(
            "proxy_ssl_verify off;
             location /v2/ {{ proxy_pass http://{}; }}",
            registry.address()
        )
    };

    let pusher = Nginx::builder()
        .server(&format!(
            "{}\n{}",
            settings.replace("proxy_ssl_verify              on;", ""),
            to(&open)
        ))
        .start();
    let pulled = scene.pull(Docker, Way::ByName, "library/real", None);
    assert!(pulled.success, "{}", pulled.text);
    let source = format!("{}/library/real", scene.mirror);
    let target = format!("127.0.0.1:{}/library/real", pusher.port());
    for command in [
        ["docker", "tag", &source, &target].as_slice(),
        &["docker", "push", &target],
        &["docker", "image", "rm", &source, &target],
    ] {
        let ended = scene.island.run(command);
        assert!(ended.success, "{command:?}: {}", ended.text);
    }
    drop(open);

    let files = storage.clone();
    scene.hub.route(CLOUDFLARE, move |request| {
        let file = files.join(request.path().trim_start_matches('/'));
        match std::fs::read(file) {
            Ok(blob) => Response::new(200).body(blob).into(),
            Err(error) => Response::text(404, error.to_string()).into(),
        }
    });
    let registry =
        DockerRegistry::redirecting(&storage, &scene.hub, &format!("https://{CLOUDFLARE}"));
    let reader = Nginx::builder()
        .http(&scene.hub.http_conf())
        .http(&format!("proxy_bind {};", scene.bind))
        .tls_server(&format!(
            "docker_realm_rewrite on;
             docker_follow_redirect on private={};
             location /v2/ {{ proxy_pass http://{}; }}
             location /token {{ proxy_pass https://{AUTH}; }}",
            scene.hub.network(),
            registry.address()
        ))
        .start();
    scene.island.set("SSL_CERT_FILE", &reader.ca_file().display().to_string());
    for client in ALL {
        scene.hub.forget();
        let what = format!("{client:?}");
        let name = format!("mirror.example.com:{}/library/real:latest", reader.port());
        let pulled = scene.pull_name(client, &name, None);
        assert!(pulled.success, "{what}: {}{}", pulled.text, registry.log());
        scene.only_nginx_spoke_to_the_hub(&what);
        assert!(!scene.hub.requests(AUTH).is_empty(), "{what}");
        assert!(!scene.hub.requests(CLOUDFLARE).is_empty(), "{what}");
    }
}

/// Docker Hub counts GETs of manifests: of an image, its list and the manifest of one platform.
#[test]
fn the_second_client_costs_no_pull() {
    let mut scene = Scene::new();
    let image = scene.image("library/shared");
    let digests = [&image.digest, &image.manifests[0]];
    let direct = digests.map(|digest| {
        let path = format!("/v2/library/shared/manifests/{digest}");
        let url = format!("http://{REGISTRY}{path}");
        let token = scene.hub.token("library/shared");
        let address = (scene.hub.address(REGISTRY), 80).into();
        support::get(&url).connect(address).bearer(&token).send()
    });
    scene.hub.forget();
    let before = scene.hub.manifests_counted();

    for (client, way) in [
        (Docker, Way::ByName),
        (Podman, Way::ByName),
        (Skopeo, Way::ByName),
        (Ctr, Way::ByName),
        (Docker, Way::Configured),
        (Podman, Way::Configured),
        (Ctr, Way::Configured),
    ] {
        let pulled = scene.pull(client, way, "library/shared", None);
        assert!(pulled.success, "{client:?} {way:?}: {}", pulled.text);
        assert_eq!(scene.hub.manifests_counted() - before, 2, "{client:?} {way:?}");
    }
    scene.only_nginx_spoke_to_the_hub("all");

    // Skopeo keeps the manifest as it came.
    let name = format!("{}/library/shared:latest", scene.mirror).replace('/', "-");
    let kept = std::fs::read(scene.island.path(&format!("skopeo/{name}/manifest.json"))).unwrap();
    assert_eq!(kept, direct[1].body);
    let format = "{{index .RepoDigests 0}}";
    let name = format!("{}/library/shared", scene.mirror);
    let seen = scene.island.run(&["docker", "image", "inspect", "--format", format, &name]);
    assert!(seen.text.contains(&image.digest), "{}", seen.text);

    // The tag moves: the next pull of each has the new image.
    let old = scene.hub.manifests_counted();
    let moved = scene.image_of("library/shared", LAYER + 1);
    for client in [Docker, Podman, Skopeo, Ctr] {
        let pulled = scene.pull(client, Way::ByName, "library/shared", None);
        assert!(pulled.success, "{client:?}: {}", pulled.text);
    }
    assert_eq!(scene.hub.manifests_counted() - old, 2);
    let seen = scene.island.run(&["docker", "image", "inspect", "--format", format, &name]);
    assert!(seen.text.contains(&moved.digest), "{}", seen.text);
}

#[test]
fn a_layer_over_a_line_that_breaks_after_every_2_mb_arrives() {
    let blob_requests = |scene: &Scene, digest: &str| {
        let log = scene.nginx().accesses();
        log.lines().filter(|line| line.contains("GET /v2/") && line.contains(digest)).count()
    };
    for (directive, megabytes) in [("docker_resume on tries=20;", 20), ("docker_resume off;", 6)] {
        let location = format!("location /v2/ {{ {directive}");
        let mut scene = Scene::with(&[("location /v2/ {", &location)]);
        for client in [Docker, Podman, Ctr] {
            let what = format!("{client:?}, {directive}");
            let repository = client.repository();
            let layer = noise(client as u64 + 11 * megabytes as u64, megabytes << 20);
            let image = scene.hub.add_image(&repository, "latest", &[&layer]);
            scene.hub.off(CLOUDFLARE);
            scene.hub.route(CLOUDFLARE, |request| match request.method.as_str() {
                "GET" => Reply::Shaped(Shape::CutBody(2 << 20, End::Truncate)),
                _ => Reply::Normal,
            });

            let pulled = scene.pull(client, Way::ByName, &repository, None);

            let requests = blob_requests(&scene, &image.layers[0]);
            if directive.contains("on") {
                assert!(pulled.success, "{what}: {}", pulled.text);
                assert_eq!(requests, 1, "{what}: the client noticed");
                assert!(scene.blobs(CLOUDFLARE, &image.layers[0]) > 9, "{what}");
            } else {
                assert!(!pulled.success || requests > 1, "{what}: nothing broke");
            }
            scene.only_nginx_spoke_to_the_hub(&what);
        }
    }
}
