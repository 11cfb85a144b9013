//! The stand-in behaves like Docker Hub, seen through a plain nginx and by a real client.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use support::{AUTH, CLOUDFLARE, DockerRegistry, Hub, Nginx, REGISTRY, get, head};

/// nginx without the module, before the hub's registry, token server and CDN.
fn plain_nginx(hub: &Hub) -> Nginx {
    Nginx::builder()
        .without_module()
        .http(&hub.http_conf())
        .server(&format!(
            "location /v2/ {{
                 proxy_pass https://{REGISTRY};
                 proxy_redirect https://{CLOUDFLARE}/ /;
             }}
             location /token {{ proxy_pass https://{AUTH}; }}
             location /registry-v2/ {{
                 set $to {CLOUDFLARE};
                 proxy_pass https://$to;
                 proxy_set_header Authorization $http_x_authorization;
             }}"
        ))
        .start()
}

#[test]
fn a_pull_by_hand_works_through_a_plain_nginx() {
    let hub = Hub::start();
    let image = hub.add_image("library/hello", "latest", &[b"hello", &[7; 300_000]]);
    let nginx = plain_nginx(&hub);

    let challenge = get(&nginx.url("/v2/library/hello/manifests/latest")).send();
    assert_eq!(challenge.status, 401);
    assert_eq!(
        challenge.header("www-authenticate"),
        Some(
            "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
             scope=\"repository:library/hello:pull\""
        )
    );

    let scope = "service=registry.docker.io&scope=repository:library/hello:pull";
    let token = get(&nginx.url(&format!("/token?{scope}"))).send().json();
    let token = token["token"].as_str().unwrap();
    let manifest = get(&nginx.url("/v2/library/hello/manifests/latest")).bearer(token).send();
    assert_eq!(manifest.status, 200);
    assert_eq!(manifest.header("docker-content-digest"), Some(image.digest.as_str()));
    assert_eq!(manifest.header("ratelimit-remaining"), Some("99;w=21600"));
    let seen = head(&nginx.url("/v2/library/hello/manifests/latest")).bearer(token).send();
    assert_eq!(seen.header("ratelimit-remaining"), Some("99;w=21600"));
    assert_eq!(hub.manifests_counted(), 1);

    let blob = nginx.url(&format!("/v2/library/hello/blobs/{}", image.layers[1]));
    let redirect = get(&blob).bearer(token).send();
    assert_eq!(redirect.status, 307);
    let location = redirect.header("location").unwrap();
    let target = location.strip_prefix(&nginx.url("")).unwrap();
    let layer = get(&nginx.url(target)).send();
    assert!(layer.complete);
    assert_eq!(Some(layer.body), hub.blob(&image.layers[1]));

    let spoilt = get(&nginx.url(&target.replace("%3D", "="))).send();
    assert_eq!(spoilt.status, 403, "a re-encoded query breaks the signature");
    let doubly_signed = get(&nginx.url(target)).header("X-Authorization", token).send();
    assert_eq!(doubly_signed.status, 400, "a CDN refuses Authorization");
    assert!(doubly_signed.text().contains("<Code>InvalidArgument</Code>"));

    let request = hub.last_request(CLOUDFLARE);
    assert!(request.tls);
    assert_eq!(request.sni.as_deref(), Some(CLOUDFLARE));
    assert_eq!(hub.counts(CLOUDFLARE).requests, 3);
    assert_eq!(hub.counts(CLOUDFLARE).failed, 0);
}

#[test]
fn skopeo_pulls_an_image_through_a_plain_nginx() {
    let hub = Hub::start();
    let image = hub.add_image("library/hello", "latest", &[b"hello", &[7; 300_000]]);
    hub.add_image("private/hello", "latest", &[b"secret"]);
    hub.protect("private/hello", "user", "password");
    let nginx = plain_nginx(&hub);
    let realm = nginx.url("/token");
    hub.challenge(&format!("Bearer realm=\"{realm}\",service=\"registry.docker.io\""));

    let reference = |name: &str| format!("docker://127.0.0.1:{}/{name}", nginx.port());
    let directory = nginx.prefix().join("pulled");
    let target = format!("dir:{}", directory.display());
    let (pulled, says) = skopeo(&["copy", &reference("library/hello:latest"), &target]);
    assert!(pulled, "{says}");
    for layer in &image.layers {
        let file = directory.join(layer.strip_prefix("sha256:").unwrap());
        assert_eq!(std::fs::read(file).ok(), hub.blob(layer), "layer {layer}");
    }
    assert_eq!(hub.counts(CLOUDFLARE).requests, 3, "two layers and a configuration");

    let private = reference("private/hello");
    assert!(!skopeo(&["inspect", &private]).0, "without credentials");
    assert!(!skopeo(&["inspect", "--creds", "user:wrong", &private]).0, "a wrong password");
    let (seen, says) = skopeo(&["inspect", "--creds", "user:password", &private]);
    assert!(seen, "{says}");
    let (listed, says) = skopeo(&["list-tags", &reference("library/hello")]);
    assert!(listed && says.contains("latest"), "{says}");
}

fn skopeo(arguments: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new("skopeo");
    command.arg("--insecure-policy").args(["--command-timeout", "60s"]).arg(arguments[0]);
    match arguments[0] {
        "copy" => command.args(["--src-tls-verify=false", "--dest-tls-verify=false"]),
        _ => command.arg("--tls-verify=false"),
    };
    let output = command.args(&arguments[1..]).output().expect("skopeo is installed");
    let says = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&says).into_owned())
}

#[test]
fn a_real_registry_takes_the_tokens_of_the_stand_in() {
    let hub = Hub::start();
    hub.add_image("library/hello", "latest", &[b"hello"]);
    let nginx = plain_nginx(&hub);
    hub.challenge(&format!("Bearer realm=\"{}\",service=\"s\"", nginx.url("/token")));
    let storage = tempfile::TempDir::new().unwrap();
    {
        let open = DockerRegistry::start(storage.path(), None);
        let source = format!("docker://127.0.0.1:{}/library/hello", nginx.port());
        let target = format!("docker://{}/library/hello", open.address());
        let (copied, says) = skopeo(&["copy", &source, &target]);
        assert!(copied, "{says}");
    }

    let registry = DockerRegistry::start(storage.path(), Some(&hub));
    let manifest = registry.url("/v2/library/hello/manifests/latest");
    let challenge = get(&manifest).send();
    let expected = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
                    scope=\"repository:library/hello:pull\"";
    assert_eq!(challenge.header("www-authenticate"), Some(expected));
    let accept = "application/vnd.docker.distribution.manifest.v2+json";
    let ask = |token: &str| get(&manifest).bearer(token).header("Accept", accept).send();
    let answer = ask(&hub.token("library/hello"));
    assert_eq!(answer.status, 200, "{}{}", answer.text(), registry.log());
    assert_eq!(ask(&hub.token("library/other")).status, 401);
}
