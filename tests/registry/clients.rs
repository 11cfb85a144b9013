//! Real clients, each in the ways that it speaks, by the files of `nginx-conf/clients/`.
//!
//! The registries' names lead clients to nobody: they pull through the mirror or not at all.

use std::fmt::Write as _;
use std::path::PathBuf;

use support::{
    DockerRegistry, Dockerd, Ended, Hub, Island, Kind, Nginx, REGISTRY, nginx_conf, noise,
};

use crate::{GHCR, OWN, QUAY};

const MIRROR: &str = "mirror.example.com";
const ALICE: (&str, &str) = ("alice", "correct horse");
const BOB: (&str, &str) = ("bob", "battery staple");

struct Scene {
    clients: Clients,
    dockerd: Option<Dockerd>,
    island: Island,
    nginx: Nginx,
    registry: DockerRegistry,
    hub: Hub,
}

/// Whose clients run: those of the machine, or Debian 13's.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Clients {
    Here,
    Newer,
}

impl Scene {
    fn new(clients: Clients) -> Self {
        let hub = Hub::start();
        let trap = hub.add_host_as("trap.example", Kind::Blank);
        for host in [GHCR, QUAY] {
            hub.add_host_as(host, Kind::Registry);
        }
        let mut names = "127.0.0.1 mirror.example.com quay.mirror.example.com\n".to_owned();
        for name in hub.hosts().iter().map(|(name, _)| name.as_str()).chain(["docker.io", OWN]) {
            let _ = writeln!(names, "{trap} {name}");
        }
        let mut island = Island::new(&names);
        if clients == Clients::Newer {
            island.use_newer_clients();
        }
        island.set("SSL_CERT_FILE", &hub.ca_file().display().to_string());
        let registry = DockerRegistry::start(&PathBuf::from(island.path("registry")), None);
        let nginx = mirror(&hub, &registry);
        let scene = Self { clients, dockerd: None, island, nginx, registry, hub };

        let here = scene.mirror();
        let file = |name: &str| nginx_conf(&format!("clients/{name}"), &[(MIRROR, &here)]);
        scene.island.file("home/.config/containers/registries.conf", &file("registries.conf"));
        for name in [GHCR, QUAY] {
            let hosts = file(&format!("{name}.hosts.toml"));
            scene.island.file(&format!("certs.d/{name}/hosts.toml"), &hosts);
        }
        for name in ["daemon.json", "daemon-containerd.json"] {
            scene.island.file(name, &file(name));
        }
        scene
    }

    fn mirror(&self) -> String {
        format!("{MIRROR}:{}", self.nginx.port())
    }

    /// What nginx was asked.
    fn log(&self) -> String {
        std::fs::read_to_string(self.nginx.prefix().join("access.log")).unwrap_or_default()
    }

    fn image(&self, repository: &str) {
        let seed = repository.bytes().map(u64::from).sum();
        self.hub.add_image(repository, "latest", &[&noise(seed, 100_000), &noise(seed + 1, 9)]);
    }

    /// Starts dockerd, with a storage driver that works on any file system.
    fn start_docker(&mut self) {
        let (file, driver) = match self.clients {
            Clients::Here => ("daemon.json", "vfs"),
            Clients::Newer => ("daemon-containerd.json", "native"),
        };
        let file = self.island.path(file);
        let options = ["--config-file", &file, "--storage-driver", driver];
        self.dockerd = Some(self.island.dockerd(&options));
    }

    fn run(&self, command: &[&str]) -> Ended {
        self.island.run(command)
    }

    /// podman or buildah, which keep images in one way.
    fn with_storage(&self, program: &str, command: &[&str]) -> Ended {
        let path = |name| self.island.path(&format!("{program}/{name}"));
        let paths = ["root", "run", "tmp"].map(path);
        let mut whole = vec![program, "--root", &paths[0], "--runroot", &paths[1]];
        whole.extend(["--storage-driver", "vfs"]);
        if program == "podman" {
            whole.extend(["--tmpdir", &paths[2], "--events-backend", "none"]);
        }
        whole.extend(command);
        self.run(&whole)
    }

    fn skopeo(&self, image: &str, more: &[&str]) -> Ended {
        let target = format!("dir:{}", self.island.path(&image.replace(['/', ':'], "-")));
        let source = format!("docker://{image}");
        let mut whole = vec!["skopeo", "copy", &source, &target];
        whole.extend(more);
        self.run(&whole)
    }

    fn ctr(&self, command: &[&str]) -> Ended {
        let socket = self.island.path("dockerd/containerd.sock");
        let mut whole = vec!["ctr", "--address", &socket];
        whole.extend(command);
        self.run(&whole)
    }

    /// The pull went to this registry for this repository, and no client went past the mirror.
    #[track_caller]
    fn check(&self, what: &str, ended: &Ended, registry: &str, repository: &str) {
        assert!(ended.success, "{what}: {}\n{}", ended.text, self.nginx.errors());
        let path = format!("/v2/{repository}/");
        let asked = self.hub.requests(registry);
        assert!(asked.iter().any(|request| request.path().starts_with(&path)), "{what}");
        assert_eq!(self.hub.counts("trap.example").connections, 0, "{what}");
        self.hub.forget();
    }
}

fn mirror(hub: &Hub, registry: &DockerRegistry) -> Nginx {
    let ca = hub.ca_file().display().to_string();
    let (certificate, key) = hub.authority().issue(&[MIRROR, "quay.mirror.example.com"]);
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let follow = format!("docker_follow_redirect on private={};", hub.network());
    // The stand-in has one token server for all.
    let realm = "realm=https://auth.docker.io/token";
    let ghcr = format!("docker_registry ghcr.io {realm};");
    let quay = format!("docker_registry quay.io {realm} alias=quay.mirror.example.com;");
    let own = format!("docker_registry registry.example.com {};", registry.url(""));
    let file = nginx_conf(
        "many-registries.conf",
        &[
            ("listen              443 ssl;", "listen 127.0.0.1:%port0% ssl http2;"),
            ("/etc/nginx/tls/mirror.example.com.crt", &certificate),
            ("/etc/nginx/tls/mirror.example.com.key", &key),
            ("docker_follow_redirect on;", &follow),
            ("docker_registry ghcr.io;", &ghcr),
            ("docker_registry quay.io alias=quay.mirror.example.com;", &quay),
            ("docker_registry registry.example.com https://registry.example.com;", &own),
        ],
    );
    let settings = nginx_conf("docker-mirror.conf", &[("/etc/ssl/certs/ca-certificates.crt", &ca)]);
    Nginx::builder()
        .whole(&format!(
            "http {{
                 access_log %prefix%/access.log;
                 client_body_temp_path %prefix%/body;
                 proxy_temp_path %prefix%/proxy;
                 resolver {};
                 include many-registries.conf;
             }}",
            hub.resolver(),
        ))
        .file("many-registries.conf", &file)
        .file("docker-mirror.conf", &settings)
        .start()
}

impl Scene {
    fn images(&self) {
        for client in ["docker", "podman", "skopeo", "buildah", "ctr"] {
            self.image(&format!("owner/{client}"));
        }
        self.image("library/official");
    }

    fn docker_pulls(&self) {
        let mirror = self.mirror();
        let quay = mirror.replace(MIRROR, "quay.mirror.example.com");
        let rows = [
            ("mirror of docker.io", "official".to_owned(), REGISTRY, "library/official"),
            ("library", format!("{mirror}/official"), REGISTRY, "library/official"),
            ("prefix", format!("{mirror}/ghcr.io/owner/docker"), GHCR, "owner/docker"),
            ("subdomain", format!("{quay}/owner/docker"), QUAY, "owner/docker"),
        ];
        for (what, image, registry, repository) in rows {
            let ended = self.run(&["docker", "pull", &image]);
            self.check(&format!("docker, {what}"), &ended, registry, repository);
        }
        // Only a docker that has containerd keep its images says whom it means.
        assert_eq!(self.log().contains("?ns=docker.io "), self.clients == Clients::Newer);
        let stranger = format!("{mirror}/stranger.example/a/b");
        let unknown = self.run(&["docker", "pull", &stranger]);
        assert!(!unknown.success);
        let want = match self.clients {
            Clients::Here => "registry stranger.example is not served",
            // containerd asks by HEAD, whose answers have no words.
            Clients::Newer => "stranger.example/a/b:latest: not found",
        };
        assert!(unknown.text.contains(want), "{}", unknown.text);
    }

    fn others_pull(&self) {
        let mirror = self.mirror();
        let hosts = self.island.path("certs.d");
        let programs: &[&str] = match self.clients {
            Clients::Here => &["podman"],
            Clients::Newer => &["podman", "buildah"],
        };
        for program in programs {
            let ended = self.with_storage(program, &["pull", "docker.io/library/official"]);
            let what = format!("{program}, mirror of docker.io");
            self.check(&what, &ended, REGISTRY, "library/official");
            let repository = format!("owner/{program}");
            let ended = self.with_storage(program, &["pull", &format!("ghcr.io/{repository}")]);
            self.check(&format!("{program}, registries.conf"), &ended, GHCR, &repository);
            let prefixed = format!("{mirror}/quay.io/{repository}");
            let ended = self.with_storage(program, &["pull", &prefixed]);
            self.check(&format!("{program}, prefix"), &ended, QUAY, &repository);
        }
        let ended = self.skopeo("ghcr.io/owner/skopeo:latest", &[]);
        self.check("skopeo, registries.conf", &ended, GHCR, "owner/skopeo");
        let ended = self.skopeo(&format!("{mirror}/quay.io/owner/skopeo:latest"), &[]);
        self.check("skopeo, prefix", &ended, QUAY, "owner/skopeo");
        let ended = self.skopeo(&format!("{mirror}/official:latest"), &[]);
        self.check("skopeo, library", &ended, REGISTRY, "library/official");

        for (what, registry) in [("ns", GHCR), ("override_path", QUAY)] {
            let image = format!("{registry}/owner/ctr:latest");
            let options = ["images", "pull", "--hosts-dir", &hosts, "--snapshotter", "native"];
            let ended = self.ctr(&[options.as_slice(), &[&image]].concat());
            self.check(&format!("ctr, {what}"), &ended, registry, "owner/ctr");
        }
        assert!(self.log().contains("?ns=ghcr.io "));
    }
}

#[test]
fn every_client_pulls_in_the_ways_that_it_speaks() {
    let mut scene = Scene::new(Clients::Here);
    scene.start_docker();
    scene.images();
    scene.docker_pulls();
    scene.others_pull();
}

#[test]
fn newer_clients_pull_in_the_ways_that_they_speak() {
    let mut scene = Scene::new(Clients::Newer);
    scene.start_docker();
    scene.images();
    scene.docker_pulls();
    scene.others_pull();
}

#[test]
fn private_images_of_two_registries_are_two_users() {
    let scene = Scene::new(Clients::Here);
    let mirror = scene.mirror();
    for (repository, (user, password)) in [("alice/app", ALICE), ("bob/app", BOB)] {
        scene.image(repository);
        scene.hub.protect(repository, user, password);
    }
    let pull = |image: &str, (user, password): (&str, &str)| {
        let credentials = format!("{user}:{password}");
        scene.skopeo(&format!("{mirror}/{image}:latest"), &["--src-creds", &credentials])
    };
    assert!(!pull("ghcr.io/alice/app", BOB).success);
    assert!(!pull("quay.io/bob/app", ALICE).success);
    scene.hub.forget();
    scene.check("alice", &pull("ghcr.io/alice/app", ALICE), GHCR, "alice/app");
    scene.check("bob", &pull("quay.io/bob/app", BOB), QUAY, "bob/app");
}

#[test]
fn an_image_of_three_layers_is_pushed_and_pulled_back() {
    push_and_pull_back(Clients::Here);
}

#[test]
fn newer_docker_pushes_what_it_pulls_back() {
    push_and_pull_back(Clients::Newer);
}

fn push_and_pull_back(clients: Clients) {
    let mut scene = Scene::new(clients);
    scene.start_docker();
    let layers = [noise(1, 3_000_000), noise(2, 500_000), noise(3, 10)];
    let image =
        scene.hub.add_image("library/three", "latest", &[&layers[0], &layers[1], &layers[2]]);
    // With its own store docker pushes an index only if it has all that this names.
    let source = format!("{}/three@{}", scene.mirror(), image.manifests[0]);
    let target = format!("{}/{OWN}/team/three", scene.mirror());
    let format = "{{.RootFS.Layers}}";
    let mut seen = Vec::new();
    for command in [
        ["docker", "pull", &source].as_slice(),
        &["docker", "image", "inspect", "--format", format, &source],
        &["docker", "tag", &source, &target],
        &["docker", "push", &target],
        &["docker", "image", "rm", &source, &target],
        &["docker", "pull", &target],
        &["docker", "image", "inspect", "--format", format, &target],
    ] {
        let ended = scene.run(command);
        assert!(ended.success, "{command:?}: {}\n{}", ended.text, scene.registry.log());
        seen.push(ended.text);
    }
    assert_eq!(seen[1], seen[6]);

    let copy = format!("docker://{}/{OWN}/team/copy:latest", scene.mirror());
    let from = format!("docker://{target}:latest");
    let copied = scene.run(&["skopeo", "copy", &from, &copy]);
    assert!(copied.success, "{}\n{}", copied.text, scene.registry.log());
}
