//! The Worker of `worker/` on Cloudflare's own runtime: behind `docker_fallback`, and alone.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::time::Duration;

use support::{
    AUTH, Answer, CLOUDFLARE, CLOUDFRONT, End, Fault, Framing, Hub, Image, Island, Kind, Nginx, R2,
    REGISTRY, Reply, Request, Response, Shape, Workerd, get, head, noise,
};

const NAME: &str = "docker.example.workers.dev";
const SECRET: &str = "correct-horse_battery-staple";
const USER: (&str, &str) = ("alice", "open sesame");
/// The two, as Basic credentials.
const BASIC: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";

/// A hub with an official image, and a private one of `USER`'s.
fn hub() -> (Hub, Image, Image) {
    let hub = Hub::start();
    let official = hub.add_image("library/x", "latest", &[&noise(1, 200_000)]);
    let private = hub.add_image("alice/private", "latest", &[&noise(2, 200_000)]);
    hub.protect("alice/private", USER.0, USER.1);
    (hub, official, private)
}

/// A Worker that knows the secret, and that clients use without nginx.
fn worker(hub: &Hub) -> Workerd {
    Workerd::start(hub, NAME, &[("SECRET", SECRET), ("REALM", "self"), ("TIMEOUT", "1")])
}

/// A request behind the secret.
fn ask(worker: &Workerd, method: &str, target: &str) -> Request {
    worker.request(method, &format!("/{SECRET}{target}"))
}

fn token(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// Code and message of the registry error that the answer is.
#[track_caller]
fn error(answer: &Answer) -> (String, String) {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"));
    let error = &answer.json()["errors"][0];
    let text = |name: &str| error[name].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

/// No CDN got credentials or a cookie, and nobody the secret.
#[track_caller]
fn nobody_got_what_is_not_theirs(hub: &Hub) {
    for (host, _) in hub.hosts() {
        for request in hub.requests(&host) {
            let head = String::from_utf8_lossy(&request.head).into_owned();
            assert!(!head.contains(SECRET), "{host}: {head}");
            assert_eq!(request.header("cookie"), None, "{host}: {head}");
            assert_eq!(request.header("x-forwarded-for"), None, "{host}: {head}");
            if ![REGISTRY, AUTH].contains(&host.as_str()) {
                assert_eq!(request.header("authorization"), None, "{host}: {head}");
            }
        }
    }
}

// Behind nginx.

/// A host of the hub limits nginx's address.
fn limit(hub: &Hub, host: &str) {
    let address = address(hub);
    hub.route(host, move |request| match request.peer.ip().to_string() == address {
        true => {
            Response::text(429, "Too Many Requests (HAP429).\n").header("Retry-After", "77").into()
        }
        false => Reply::Normal,
    });
}

/// From where nginx speaks to the hub.
fn address(hub: &Hub) -> String {
    hub.network().replace(".0/24", ".250")
}

/// nginx before the hub, with the Worker behind `docker_fallback`.
fn nginx(hub: &Hub) -> Nginx {
    let fallback = format!("docker_fallback https://{NAME}/{SECRET};");
    Nginx::builder()
        .http(&hub.http_conf())
        .http(&format!("proxy_bind {};", address(hub)))
        .server(&format!(
            "docker_realm_rewrite on;
             docker_follow_redirect on private={};
             {fallback}
             add_header X-Fallback $docker_fallback always;
             location /v2/ {{ proxy_pass https://{REGISTRY}; }}
             location /token {{ proxy_pass https://{AUTH}; {fallback} }}",
            hub.network(),
        ))
        .start()
}

#[test]
fn it_answers_for_a_registry_that_limits_nginx() {
    let (hub, official, private) = hub();
    let worker = Workerd::start(&hub, NAME, &[("SECRET", SECRET)]);
    let nginx = nginx(&hub);
    limit(&hub, REGISTRY);

    let ping = get(&nginx.url("/v2/")).send();
    let challenge = ping.header("www-authenticate").unwrap_or_default();
    let realm = format!("Bearer realm=\"{}\",", nginx.url("/token"));
    assert_eq!(ping.status, 401, "{}", ping.text());
    assert!(challenge.starts_with(&realm), "{challenge}");

    let scope = |repository: &str| {
        nginx.url(&format!("/token?service=s&scope=repository:{repository}:pull"))
    };
    let anonymous = token(&get(&scope("library/x")).send());
    let own = token(&get(&scope("alice/private")).header("Authorization", BASIC).send());

    for (repository, image, token) in
        [("library/x", &official, &anonymous), ("alice/private", &private, &own)]
    {
        let fetched = |method: &str, target: &str, range: Option<&str>| {
            let url = nginx.url(&format!("/v2/{repository}/{target}"));
            let request = if method == "HEAD" { head(&url) } else { get(&url) };
            let request = request.bearer(token);
            let answer = match range {
                Some(range) => request.header("Range", range).send(),
                None => request.send(),
            };
            let fallback = format!("https://{NAME}");
            assert_eq!(answer.header("x-fallback"), Some(fallback.as_str()), "{method} {target}");
            answer
        };
        for method in ["GET", "HEAD"] {
            for reference in ["latest", &image.digest, &image.manifests[0]] {
                let answer = fetched(method, &format!("manifests/{reference}"), None);
                assert_eq!(answer.status, 200, "{method} {reference}: {}", answer.text());
                let digest = answer.header("docker-content-digest");
                let want = if reference == "latest" { &image.digest } else { reference };
                assert_eq!(digest, Some(want), "{method} {reference}");
            }
        }
        for digest in image.layers.iter().chain(&image.configs) {
            let blob = hub.blob(digest).unwrap();
            let target = format!("blobs/{digest}");
            assert!(fetched("GET", &target, None).body == blob, "{target}");
            let length = fetched("HEAD", &target, None);
            assert_eq!(length.header("content-length"), Some(blob.len().to_string().as_str()));
            let part = fetched("GET", &target, Some("bytes=5-9"));
            assert_eq!((part.status, part.body.as_slice()), (206, &blob[5..10]), "{target}");
        }
    }
    let stranger = get(&nginx.url("/v2/alice/private/manifests/latest")).bearer(&anonymous).send();
    assert_eq!(stranger.status, 429, "the token of another client reaches nothing");
    nobody_got_what_is_not_theirs(&hub);

    // Tokens too, for those who send no password.
    limit(&hub, AUTH);
    let answer = get(&scope("x")).send();
    assert_eq!(answer.header("x-fallback"), Some(format!("https://{NAME}").as_str()));
    let path = "/v2/library/x/manifests/latest";
    assert_eq!(get(&nginx.url(path)).bearer(&token(&answer)).send().status, 200);
    let login = get(&scope("alice/private")).header("Authorization", BASIC).send();
    assert_eq!((login.status, login.header("x-fallback")), (429, None));

    // When the Worker is gone, the client gets what the registry said, and the log no secret.
    drop(worker);
    let answer = get(&nginx.url(path)).bearer(&anonymous).send();
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("77")));
    nginx.wait_for_log("no fallback served the request");
    let logs = nginx.errors() + &nginx.accesses();
    assert!(!logs.contains(SECRET), "{logs}");
}

// Alone.

#[test]
fn it_is_a_mirror_by_itself() {
    let (hub, official, private) = hub();
    let worker = worker(&hub);

    let ping = ask(&worker, "GET", "/v2/").send();
    let challenge =
        format!("Bearer realm=\"https://{NAME}/{SECRET}/token\",service=\"registry.docker.io\"");
    assert_eq!((ping.status, ping.header("www-authenticate")), (401, Some(challenge.as_str())));
    assert_eq!(error(&ping).0, "UNAUTHORIZED");
    let unslashed = ask(&worker, "GET", "/v2").bearer(&hub.token("")).send();
    assert_eq!((unslashed.status, unslashed.text().as_str()), (200, "{}"));

    let query = "/token?service=registry.docker.io&scope=repository:x:pull";
    let anonymous = token(&ask(&worker, "GET", query).send());
    let query = "/token?account=alice&scope=repository%3Aalice%2Fprivate%3Apull&service=s";
    let own = ask(&worker, "GET", query).header("Authorization", BASIC).send();
    assert_eq!(own.header("cache-control"), Some("no-store, no-transform"));
    let own = token(&own);
    assert_eq!(hub.last_request(AUTH).header("authorization"), Some(BASIC));
    let wrong = ask(&worker, "GET", query).header("Authorization", "Basic YTpi").send();
    assert_eq!((wrong.status, wrong.text().contains("incorrect username")), (401, true));

    for (name, repository, image, token) in [
        ("x", "library/x", &official, anonymous),
        ("alice/private", "alice/private", &private, own),
    ] {
        for reference in ["latest", &image.manifests[0]] {
            let target = format!("/v2/{name}/manifests/{reference}");
            let content = ask(&worker, "GET", &target).bearer(&token).send();
            assert_eq!(content.status, 200, "{target}: {}", content.text());
            let answer = ask(&worker, "HEAD", &target).bearer(&token).send();
            let length = content.body.len().to_string();
            for (field, value) in [
                ("content-length", length.as_str()),
                ("content-type", content.header("content-type").unwrap()),
                ("docker-content-digest", content.header("docker-content-digest").unwrap()),
                ("ratelimit-limit", "100;w=21600"),
                ("cache-control", "no-store, no-transform"),
            ] {
                assert_eq!(answer.header(field), Some(value), "HEAD {target}");
            }
            let etag = content.header("etag").unwrap();
            let same = ask(&worker, "GET", &target).bearer(&token).header("If-None-Match", etag);
            assert_eq!((same.send().status, same.send().body.len()), (304, 0), "{target}");
        }
        for cdn in [CLOUDFLARE, CLOUDFRONT, R2] {
            hub.use_cdn(cdn);
            let digest = &image.layers[0];
            let blob = hub.blob(digest).unwrap();
            let target = format!("/v2/{name}/blobs/{digest}");
            let request =
                |method| ask(&worker, method, &target).bearer(&token).header("Cookie", "a");
            let whole = request("GET").header("Accept-Encoding", "gzip").send();
            assert!(whole.body == blob, "{cdn}: {}", whole.status);
            assert_eq!(whole.framing, Framing::Length(blob.len()), "{cdn}");
            assert_eq!(whole.header("docker-content-digest"), Some(digest.as_str()), "{cdn}");
            assert_eq!(whole.header("cache-control"), Some("no-store, no-transform"), "{cdn}");
            let asked = hub.last_request(cdn);
            assert_eq!(asked.header("accept-encoding"), Some("identity"), "{cdn}");
            // Cloudflare's own cache is told so.
            assert_eq!(asked.header("cache-control"), Some("no-cache"), "{cdn}");
            let length = blob.len().to_string();
            let answer = request("HEAD").send();
            assert_eq!(answer.status, 200, "{cdn}");
            assert_eq!(answer.header("content-length"), Some(length.as_str()), "{cdn}");
            let part = request("GET").header("Range", "bytes=100-").send();
            assert_eq!((part.status, part.body == blob[100..]), (206, true), "{cdn}");
            let want = format!("bytes 100-{}/{length}", blob.len() - 1);
            assert_eq!(part.header("content-range"), Some(want.as_str()), "{cdn}");
            let beyond = request("GET").header("Range", "bytes=9999999-").send();
            assert_eq!(beyond.status, 416, "{cdn}");
        }
        let tags = ask(&worker, "GET", &format!("/v2/{name}/tags/list")).bearer(&token).send();
        assert_eq!(tags.json()["name"], repository);
        let stranger = ask(&worker, "GET", &format!("/v2/{name}/manifests/latest")).send();
        let challenge = stranger.header("www-authenticate").unwrap_or_default();
        let scope = format!("scope=\"repository:{repository}:pull\"");
        assert_eq!((stranger.status, challenge.contains(&scope)), (401, true), "{challenge}");
    }
    nobody_got_what_is_not_theirs(&hub);
}

#[test]
fn a_login_is_passed_to_the_token_server_alone() {
    let (hub, _, _) = hub();
    let worker = worker(&hub);
    let post = |form: &str| {
        ask(&worker, "POST", "/token")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
    };
    let login = post(
        "grant_type=password&service=s&client_id=test&access_type=offline&username=alice\
         &password=open+sesame&scope=repository%3Ax%3Apull+repository%3Aalice%2Fprivate%3Apull",
    );
    let refresh = login.json()["refresh_token"].as_str().unwrap().to_owned();
    let login = token(&login);
    let form = format!("grant_type=refresh_token&service=s&client_id=t&refresh_token={refresh}");
    let again = token(&post(&(form + "&scope=repository%3Aalice/private%3Apull")));
    for (repository, token) in [("x", &login), ("alice/private", &login), ("alice/private", &again)]
    {
        let target = format!("/v2/{repository}/manifests/latest");
        assert_eq!(ask(&worker, "GET", &target).bearer(token).send().status, 200, "{repository}");
    }
    let wrong = post("grant_type=password&service=s&client_id=t&username=alice&password=guess");
    assert_eq!(wrong.status, 401);
    for (host, _) in hub.hosts() {
        for request in hub.requests(&host) {
            let text =
                String::from_utf8_lossy(&request.head) + String::from_utf8_lossy(&request.body);
            assert!(host == AUTH || !text.contains("sesame"), "{host} got a password: {text}");
        }
    }

    hub.forget();
    let long = ask(&worker, "POST", "/token").header("Content-Length", "65537");
    assert_eq!(long.send().status, 413);
    assert_eq!(ask(&worker, "PUT", "/token").send().status, 405);
    assert_eq!(hub.counts(AUTH).requests, 0);
    // The token server redirects nobody, and a password would go along.
    hub.on(AUTH, "/", Fault::redirect(307, format!("https://{CLOUDFLARE}/token")));
    let answer = post("grant_type=password&username=alice&password=open+sesame");
    assert_eq!((answer.status, answer.header("location")), (502, None));
    assert_eq!(hub.counts(CLOUDFLARE).requests, 0);
}

#[test]
fn who_does_not_know_the_secret_gets_nothing() {
    let (hub, _, _) = hub();
    hub.authentication(false);
    let path = "/v2/library/x/manifests/latest";
    {
        let worker = worker(&hub);
        let longer = format!("/{SECRET}x{path}");
        let shorter = format!("/{}{path}", &SECRET[1..]);
        let case = format!("/{}{path}", SECRET.to_uppercase());
        let doubled = format!("//{SECRET}{path}");
        let inside = format!("/v2/{SECRET}{path}");
        let up = format!("/{SECRET}/..{path}");
        let encoded = format!("/{SECRET}%2f{path}");
        let query = format!("{path}?{SECRET}");
        let alone = format!("/{SECRET}");
        let other = format!("/{SECRET}/v1/search?q=x");
        for target in [
            "/", "/v2/", path, "/token", &longer, &shorter, &case, &doubled, &inside, &up,
            &encoded, &query, &alone, &other,
        ] {
            let answer = worker.request("GET", target).send();
            assert_eq!(answer.status, 404, "{target}: {}", answer.text());
            assert_eq!(error(&answer).1, "not served here", "{target}");
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            assert_eq!(ask(&worker, method, path).body("x").send().status, 405, "{method}");
        }
        assert_eq!(hub.counts(REGISTRY).requests, 0, "nothing of it reached the registry");
        assert_eq!(ask(&worker, "GET", path).send().status, 200);
        assert!(!worker.log().contains(SECRET), "{}", worker.log());
    }

    hub.forget();
    for variables in [&[][..], &[("SECRET", "")], &[("SECRET", "short")], &[("OPEN", "no")]] {
        let worker = Workerd::start(&hub, &format!("{}.{NAME}", variables.len()), variables);
        for target in [path, &format!("/short{path}"), &format!("/undefined{path}")] {
            let answer = worker.request("GET", target).send();
            assert_eq!(answer.status, 503, "{variables:?} {target}: {}", answer.text());
            assert!(error(&answer).1.contains("SECRET"), "{variables:?}");
        }
    }
    assert_eq!(hub.counts(REGISTRY).requests, 0);

    let worker = Workerd::start(&hub, "open.example", &[("OPEN", "yes")]);
    assert_eq!(worker.request("GET", path).send().status, 200);
    let both = [("OPEN", "yes"), ("SECRET", SECRET)];
    let worker = Workerd::start(&hub, "both.example", &both);
    assert_eq!(worker.request("GET", path).send().status, 404, "the secret counts");
}

#[test]
fn the_realm_is_where_the_settings_say() {
    let (hub, _, _) = hub();
    let mirror = "https://mirror.example.com/$&/token";
    for (name, realm, want) in [
        ("hub.example", None, "https://auth.docker.io/token"),
        ("mirror.example", Some(mirror), mirror),
        ("self.example", Some("self"), "https://self.example/token"),
    ] {
        let mut variables = vec![("OPEN", "yes")];
        variables.extend(realm.map(|realm| ("REALM", realm)));
        let worker = Workerd::start(&hub, name, &variables);
        let answer = worker.request("GET", "/v2/library/x/manifests/latest").send();
        let want = format!(
            "Bearer realm=\"{want}\",service=\"registry.docker.io\",scope=\"repository:library/x:pull\""
        );
        assert_eq!(answer.header("www-authenticate"), Some(want.as_str()));
    }
}

#[test]
fn real_clients_pull_from_it() {
    let (hub, _, _) = hub();
    let open = Workerd::start(&hub, "open.example", &[("OPEN", "yes"), ("REALM", "self")]);
    let secret = worker(&hub);
    let addresses = [&open, &secret].map(|worker| worker.address().ip());
    let mut island =
        Island::new(&format!("{} open.example\n{} {NAME}\n", addresses[0], addresses[1]));
    island.set("SSL_CERT_FILE", &hub.ca_file().display().to_string());
    let credentials = format!("{}:{}", USER.0, USER.1);

    for repository in ["library/x", "alice/private"] {
        let source = format!("docker://open.example/{repository}:latest");
        let target = format!("dir:{}", island.path(&repository.replace('/', "-")));
        let pull = ["skopeo", "copy", "--src-creds", &credentials, &source, &target];
        let ended = island.run(&pull);
        assert!(ended.success, "{}", ended.text);
    }

    // As README.md says.
    let hosts = format!(
        "server = \"https://{REGISTRY}\"\n[host.\"https://{NAME}/{SECRET}/v2\"]\n\
         capabilities = [\"pull\", \"resolve\"]\noverride_path = true\n"
    );
    island.file("certs.d/docker.io/hosts.toml", &hosts);
    let _daemon = island.dockerd(&[]);
    let (socket, hosts) = (island.path("dockerd/containerd.sock"), island.path("certs.d"));
    let pull = ["ctr", "--address", &socket, "images", "pull", "--snapshotter", "native"];
    for repository in ["library/x", "alice/private"] {
        let name = format!("docker.io/{repository}:latest");
        let from = ["--hosts-dir", &hosts, "--user", &credentials, &name];
        let ended = island.run(&[&pull[..], &from].concat());
        assert!(ended.success, "{}", ended.text);
    }
    nobody_got_what_is_not_theirs(&hub);
}

// Redirects.

#[test]
fn redirects_lead_to_known_hosts_only_and_without_credentials() {
    let (hub, _, _) = hub();
    let account = "docker-images-prod.fedcba.r2.cloudflarestorage.com";
    let s3 = "docker-images-prod.s3.dualstack.us-east-1.amazonaws.com";
    let strangers = [
        "evil.example",
        "x.production.cloudflare.docker.com",
        "docker-images-prod.a.b.r2.cloudflarestorage.com",
        "production.cloudflare.docker.com.evil.example",
    ];
    for host in [account, s3].into_iter().chain(strangers) {
        hub.add_host_as(host, Kind::Blank);
    }
    hub.listen(CLOUDFLARE, 8443, true);
    hub.listen(REGISTRY, 444, true);
    let worker = worker(&hub);
    let path = "/v2/library/x/blobs/sha256:00";
    let token = hub.token("library/x");
    let ask = |method: &str| ask(&worker, method, path).bearer(&token).send();
    let to = |location: &str| {
        hub.reset();
        hub.on(REGISTRY, path, Fault::redirect(307, location));
    };

    for host in [account, s3] {
        for status in [301, 302, 303, 307, 308] {
            hub.reset();
            hub.on(REGISTRY, path, Fault::redirect(status, format!("https://{host}/a%2Fb?c=%2f~")));
            for method in ["GET", "HEAD"] {
                assert_eq!(ask(method).status, 200, "{host} {status}");
                let request = hub.last_request(host);
                assert_eq!(request.line(), format!("{method} /a%2Fb?c=%2f~"), "{host} {status}");
                assert_eq!(request.header("authorization"), None, "{host} {status}");
            }
        }
    }

    let cases = [
        "https://evil.example/",
        "//evil.example/",
        "https://x.production.cloudflare.docker.com/",
        "https://docker-images-prod.a.b.r2.cloudflarestorage.com/",
        "https://production.cloudflare.docker.com.evil.example/",
        "http://production.cloudflare.docker.com/",
        "https://production.cloudflare.docker.com:8443/",
        "https://user@production.cloudflare.docker.com/",
        "https://:password@production.cloudflare.docker.com/",
        "https://evil.example\\@production.cloudflare.docker.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://auth.docker.io/token",
        "http://registry-1.docker.io/v2/",
        "https://registry-1.docker.io:444/v2/",
        "ftp://production.cloudflare.docker.com/",
        "data:text/plain,x",
        "https://",
        "https://[",
    ];
    for location in cases {
        to(location);
        for method in ["GET", "HEAD"] {
            let answer = ask(method);
            assert_eq!(answer.status, 502, "{location}: {}", answer.text());
            assert_eq!(answer.header("location"), None, "{location}");
            if method == "GET" {
                let (code, message) = error(&answer);
                let why = ["redirects to this host are not allowed", "invalid redirect"];
                let told = why.iter().any(|why| message == format!("{REGISTRY}: {why}"));
                assert!(code == "UNAVAILABLE" && told, "{location}: {code} {message}");
            }
        }
        assert_eq!(hub.counts(REGISTRY).requests, 2, "{location}");
        for (host, _) in hub.hosts().iter().filter(|(host, _)| host != REGISTRY) {
            assert_eq!(hub.counts(host).connections, 0, "{location} led to {host}");
        }
    }

    // Within the registry the token stays; beyond it is lost, and there is no way back.
    let follow = |chain: &str| self::ask(&worker, "GET", chain).bearer(&token).send();
    for (hops, status) in [(5, 200), (6, 502)] {
        hub.reset();
        let answer = follow(&hub.chain(&[REGISTRY], hops, 307, "/v2/"));
        assert_eq!(answer.status, status, "{hops} hops: {}", answer.text());
        let requests = hub.requests(REGISTRY);
        assert_eq!(requests.len(), 6);
        assert!(requests.iter().all(|request| request.header("authorization").is_some()));
    }
    assert_eq!(
        error(&follow(&hub.chain(&[REGISTRY], 6, 302, "/v2/"))).1,
        format!("{REGISTRY}: more than 5 redirects")
    );
    hub.reset();
    let back = format!("https://{REGISTRY}/v2/");
    let answer = follow(&hub.chain(&[REGISTRY, CLOUDFRONT, CLOUDFLARE], 3, 302, &back));
    let why = format!("{CLOUDFLARE}: redirects to this host are not allowed");
    assert_eq!((answer.status, error(&answer).1), (502, why));
    assert_eq!([CLOUDFRONT, CLOUDFLARE].map(|cdn| hub.counts(cdn).requests), [1, 1]);
    nobody_got_what_is_not_theirs(&hub);
}

#[test]
fn the_registry_alone_says_where_clients_get_tokens() {
    let (hub, image, _) = hub();
    let own = worker(&hub);
    let behind_nginx = Workerd::start(&hub, "hub.example", &[("SECRET", SECRET)]);
    let token = hub.token("library/x");
    let target = format!("/v2/library/x/blobs/{}", image.layers[0]);
    for challenge in [
        "Bearer realm=\"https://evil.example/token\",service=\"registry.docker.io\"",
        "Basic realm=\"evil\"",
        "Bearer realm=evil",
    ] {
        for status in [401, 403, 407] {
            let refusal = Response::error(status, "UNAUTHORIZED", "who?")
                .header("WWW-Authenticate", challenge)
                .header("Content-Type", "application/json");
            hub.on(CLOUDFLARE, "/", Fault::Answer(refusal.into()));
            for worker in [&own, &behind_nginx] {
                for method in ["GET", "HEAD"] {
                    let answer = ask(worker, method, &target).bearer(&token).send();
                    let want = if status == 403 { 403 } else { 502 };
                    assert_eq!(answer.status, want, "{challenge}: {}", answer.text());
                    assert_eq!(answer.header("www-authenticate"), None, "{challenge}");
                }
            }
            let answer = ask(&own, "GET", &target).bearer(&token).send();
            if status != 403 {
                let want = format!("{CLOUDFLARE}: answered {status}");
                assert_eq!(error(&answer), ("UNAVAILABLE".to_owned(), want));
            }
            hub.reset();
        }
    }
}

// Failures.

#[test]
fn errors_are_a_registrys_and_name_who_failed() {
    let (hub, image, _) = hub();
    let worker = worker(&hub);
    let token = hub.token("library/x");
    let manifest = "/v2/library/x/manifests/latest";
    let blob = format!("/v2/library/x/blobs/{}", image.layers[0]);
    let ask = |target: &str| ask(&worker, "GET", target).bearer(&token).send();
    let page = |status| Response::new(status).header("Content-Type", "text/html").body("<html>no");

    for (status, code) in [
        (400, "UNKNOWN"),
        (401, "UNAUTHORIZED"),
        (403, "DENIED"),
        (404, "MANIFEST_UNKNOWN"),
        (429, "TOOMANYREQUESTS"),
        (500, "UNAVAILABLE"),
        (503, "UNAVAILABLE"),
    ] {
        hub.reset();
        let response = page(status)
            .header("Retry-After", "9")
            .header("WWW-Authenticate", "Bearer realm=\"https://auth.docker.io/token\"")
            .header("Content-Encoding", "identity")
            .header("ETag", "\"a\"");
        hub.on(REGISTRY, "/", Fault::Answer(response.into()));
        let answer = ask(manifest);
        let want = (code.to_owned(), format!("{REGISTRY}: answered {status}"));
        assert_eq!((answer.status, error(&answer)), (status, want));
        assert_eq!(answer.header("retry-after"), Some("9"), "{status}");
        let realm = answer.header("www-authenticate").unwrap_or_default();
        assert_eq!(realm, format!("Bearer realm=\"https://{NAME}/{SECRET}/token\""), "{status}");
        assert_eq!((answer.header("etag"), answer.header("content-encoding")), (None, None));
    }

    hub.reset();
    hub.on(REGISTRY, "/", Fault::TooManyRequests);
    let answer = ask(manifest);
    assert_eq!((answer.status, error(&answer).0.as_str()), (429, "TOOMANYREQUESTS"));
    assert!(error(&answer).1.contains("pull rate limit"), "a registry's own error stays");
    assert_eq!(answer.header("ratelimit-remaining"), Some("0;w=21600"));

    // S3's XML, and the URL it was asked with.
    hub.reset();
    hub.on(
        CLOUDFLARE,
        "/",
        Fault::Answer(
            Response::new(403).header("Content-Type", "application/xml").body("<Error/>").into(),
        ),
    );
    let answer = ask(&blob);
    let want = ("DENIED".to_owned(), format!("{CLOUDFLARE}: answered 403"));
    assert_eq!((answer.status, error(&answer)), (403, want));

    // A page is no content: nginx would go on to the next target.
    hub.on(CLOUDFLARE, "/", Fault::Answer(page(200).into()));
    hub.on(REGISTRY, manifest, Fault::Answer(page(200).into()));
    hub.on(AUTH, "/", Fault::Answer(page(200).into()));
    for target in [manifest, &blob, "/token?service=s"] {
        let answer = ask(target);
        let (code, message) = error(&answer);
        assert_eq!((answer.status, code.as_str()), (502, "UNAVAILABLE"), "{target}");
        assert!(message.ends_with(": answered 200 without content"), "{message}");
    }

    // Nobody there. The message has no address and no signature in it.
    hub.reset();
    hub.refuse(CLOUDFLARE);
    let answer = ask(&blob);
    let want = ("UNAVAILABLE".to_owned(), format!("{CLOUDFLARE}: could not be asked"));
    assert_eq!((answer.status, error(&answer)), (502, want));
    hub.accept(CLOUDFLARE);
    hub.certificate(REGISTRY, support::Certificate::UnknownAuthority);
    hub.disconnect(REGISTRY);
    let answer = ask(manifest);
    assert_eq!((answer.status, error(&answer).1), (502, format!("{REGISTRY}: could not be asked")));
    hub.certificate(REGISTRY, support::Certificate::Good);

    hub.on(REGISTRY, "/", Fault::Stall);
    let answer = ask(manifest);
    let want = ("UNAVAILABLE".to_owned(), format!("{REGISTRY}: timed out"));
    assert_eq!((answer.status, error(&answer)), (504, want));
}

#[test]
fn a_layer_arrives_as_it_is_or_is_seen_to_be_cut() {
    let (hub, image, _) = hub();
    let worker = worker(&hub);
    let token = hub.token("library/x");
    let blob = hub.blob(&image.layers[0]).unwrap();
    let target = format!("/v2/library/x/blobs/{}", image.layers[0]);
    let ask = || ask(&worker, "GET", &target).bearer(&token).header("Accept-Encoding", "gzip");

    // Longer than the patience for a header, and the stated length.
    hub.on(CLOUDFLARE, "/", Fault::Shape(Shape::PauseBody(1000, Duration::from_secs(2))));
    let answer = ask().send();
    assert!(answer.complete && answer.body == blob, "{:?}", answer.problem);

    hub.reset();
    hub.on(CLOUDFLARE, "/", Fault::Shape(Shape::Chunked(1000)));
    let answer = ask().send();
    assert!(answer.complete && answer.body == blob, "{:?}", answer.problem);

    // What was stored compressed is what the digest is of.
    hub.reset();
    for named in [None, Some("sha256:00")] {
        let stored = Response::new(200).header("Content-Encoding", "gzip").body(&blob);
        let stored = named.map_or(stored.clone(), |it| stored.header("Docker-Content-Digest", it));
        hub.on(CLOUDFLARE, "/", Fault::Answer(stored.into()));
        let answer = ask().send();
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        // The registry says whose digest it is, not the CDN.
        assert_eq!(answer.header("docker-content-digest"), Some(image.layers[0].as_str()));
        assert!(answer.body == blob, "{named:?}");
    }

    for end in [End::Close, End::Reset] {
        hub.reset();
        hub.on(CLOUDFLARE, "/", Fault::Shape(Shape::CutBody(1000, end)));
        let answer = ask().send();
        assert!(!answer.complete, "{end:?}");
        assert!(blob.starts_with(&answer.body), "{end:?}");
    }
}
