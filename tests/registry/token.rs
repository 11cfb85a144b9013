//! Tokens of every registry's realm, by tickets.

use support::{
    Answer, Fault, Hub, Kind, Nginx, NginxBuilder, REGISTRY, Recorded, Reply, Response, get,
    request, wait_for,
};

use crate::{LOCATIONS, http_conf};

/// A registry whose challenge and token server are as the real one's.
struct Stand {
    name: &'static str,
    registry: &'static str,
    realm: &'static str,
    service: Option<&'static str>,
}

const STANDS: [Stand; 9] = [
    stand(
        "docker.io",
        "registry-1.docker.io",
        "https://auth.docker.io/token",
        "registry.docker.io",
    ),
    stand("ghcr.io", "ghcr.io", "https://ghcr.io/token", "ghcr.io"),
    stand("quay.io", "quay.io", "https://quay.io/v2/auth", "quay.io"),
    stand("gcr.io", "gcr.io", "https://gcr.io/v2/token", "gcr.io"),
    stand("nvcr.io", "nvcr.io", "https://nvcr.io/proxy_auth", "nvcr.io"),
    stand("public.ecr.aws", "public.ecr.aws", "https://public.ecr.aws/token/", "public.ecr.aws"),
    stand(
        "registry.gitlab.com",
        "registry.gitlab.com",
        "https://gitlab.com/jwt/auth",
        "container_registry",
    ),
    stand(
        "docker.elastic.co",
        "docker.elastic.co",
        "https://docker-auth.elastic.co/auth",
        "token-service",
    ),
    Stand {
        name: "europe-docker.pkg.dev",
        registry: "europe-docker.pkg.dev",
        realm: "https://europe-docker.pkg.dev/v2/token",
        service: None,
    },
];

const fn stand(
    name: &'static str,
    registry: &'static str,
    realm: &'static str,
    service: &'static str,
) -> Stand {
    Stand { name, registry, realm, service: Some(service) }
}

fn host_of(url: &str) -> &str {
    url.split('/').nth(2).unwrap()
}

fn path_of(url: &str) -> &str {
    &url[url.find("//").unwrap() + 2 + host_of(url).len()..]
}

/// A hub where these registries want tokens. A token is the name of its host.
fn hub() -> Hub {
    let hub = Hub::start();
    for Stand { registry, realm, .. } in &STANDS {
        for host in [registry, host_of(realm)] {
            if !hub.hosts().iter().any(|(known, _)| known == host) {
                hub.add_host_as(host, Kind::Blank);
            }
        }
    }
    for Stand { registry, realm, service, .. } in &STANDS {
        challenge(&hub, registry, realm, *service, "");
        let (host, path) = (host_of(realm), path_of(realm));
        hub.route(host, move |request| {
            if request.path() != path {
                return Reply::Normal;
            }
            let token = format!("{{ \"token\": \"{host}\" }}");
            Response::text(200, token).header("Content-Type", "application/json").into()
        });
    }
    hub
}

/// Has a registry answer so to requests without a token of its own realm's host.
fn challenge(
    hub: &Hub,
    registry: &str,
    realm: &'static str,
    service: Option<&'static str>,
    more: &'static str,
) {
    hub.route(registry, move |request: &Recorded| {
        if !request.path().starts_with("/v2/") || request.path() == path_of(realm) {
            return Reply::Normal;
        }
        let token = format!("Bearer {}", host_of(realm));
        if request.header("authorization") == Some(&token) {
            return Response::text(200, request.line()).into();
        }
        let service = service.map_or(String::new(), |service| format!(",service=\"{service}\""));
        let scope = match request.path().strip_prefix("/v2/").unwrap().split_once("/manifests/") {
            Some((name, _)) => format!(",scope=\"repository:{name}:pull\""),
            None => String::new(),
        };
        let challenge = format!("Bearer realm=\"{realm}\"{service}{scope}{more}");
        Response::error(401, "UNAUTHORIZED", "token wanted")
            .header("WWW-Authenticate", challenge)
            .into()
    });
}

fn declarations() -> String {
    STANDS.iter().fold(String::new(), |text, stand| {
        let default = if stand.name == "docker.io" { " default" } else { "" };
        format!("{text}docker_registry {}{default};\n", stand.name)
    })
}

fn mirror(hub: &Hub, directives: &str) -> NginxBuilder {
    Nginx::builder()
        .http(&http_conf(hub))
        .server(&format!("docker_realm_rewrite on;{}{directives}{LOCATIONS}", declarations()))
}

/// A parameter of the one challenge of an answer.
fn parameter<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    assert_eq!(answer.status, 401, "{}", answer.text());
    let challenge = answer.header("www-authenticate").expect("a challenge");
    let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

/// What a challenge's realm leads to on this nginx.
fn realm(answer: &Answer) -> String {
    let realm = parameter(answer, "realm").expect("a realm");
    let path = realm.split_once("//").unwrap().1.split_once('/').unwrap().1;
    format!("/{path}")
}

const ALICE: &str = "Basic YWxpY2U6c2VjcmV0";
const BOB: &str = "Basic Ym9iOnNlY3JldA==";

#[test]
fn tokens_come_from_the_realm_of_every_registry() {
    let hub = hub();
    let nginx = mirror(&hub, "").start();
    for Stand { name, registry, realm: real, service } in &STANDS {
        let uri = format!("/v2/{name}/owner/image/manifests/latest");
        let refused = get(&nginx.url(&uri)).header("Host", "mirror.example.com:5000").send();
        let realm = realm(&refused);
        let whole = format!("http://mirror.example.com:5000{realm}");
        assert_eq!(parameter(&refused, "realm"), Some(whole.as_str()), "{name}");
        assert!(realm.starts_with("/token/"), "{name}: {realm}");
        assert_eq!(parameter(&refused, "service"), *service, "{name}");
        let scope = format!("repository:{name}/owner/image:pull");
        assert_eq!(parameter(&refused, "scope"), Some(scope.as_str()), "{name}");

        let service = service.map_or(String::new(), |service| format!("service={service}&"));
        let asked = format!("{realm}?{service}scope={scope}&account=alice&offline_token=true");
        let granted = get(&nginx.url(&asked)).header("Authorization", ALICE).send();
        assert_eq!(granted.status, 200, "{name}: {}", granted.text());
        let sent = hub.last_request(host_of(real));
        let query =
            format!("{service}scope=repository:owner/image:pull&account=alice&offline_token=true");
        assert_eq!(sent.uri, format!("{}?{query}", path_of(real)), "{name}");
        assert_eq!(sent.header("authorization"), Some(ALICE), "{name}");
        assert_eq!(sent.header("host"), Some(host_of(real)), "{name}");

        let token = granted.json()["token"].as_str().unwrap().to_owned();
        let served = get(&nginx.url(&uri)).bearer(&token).send();
        assert_eq!(served.text(), "GET /v2/owner/image/manifests/latest", "{name}");
        assert_eq!(hub.last_request(registry).header("host"), Some(*registry), "{name}");
    }
}

#[test]
fn a_second_realm_of_a_registry_is_its_own_too() {
    let hub = hub();
    hub.add_host_as("authn.nvidia.com", Kind::Blank);
    challenge(
        &hub,
        "nvcr.io",
        "https://authn.nvidia.com/token",
        Some("registry"),
        ",error=\"invalid_token\"",
    );
    let nginx = mirror(&hub, "").start();
    let refused = get(&nginx.url("/v2/nvcr.io/nvidia/cuda/manifests/1")).bearer("old").send();
    assert_eq!(parameter(&refused, "error"), Some("invalid_token"));
    let asked = format!("{}?scope=repository:nvcr.io/nvidia/cuda:pull", realm(&refused));
    assert_eq!(get(&nginx.url(&asked)).send().status, 200);
    let sent = hub.last_request("authn.nvidia.com");
    assert_eq!(sent.uri, "/token?service=registry&scope=repository:nvidia/cuda:pull");
}

#[test]
fn scopes_of_official_images_have_their_library() {
    let hub = hub();
    let nginx = mirror(&hub, "").start();
    let refused = get(&nginx.url("/v2/nginx/manifests/latest")).send();
    assert_eq!(parameter(&refused, "scope"), Some("repository:nginx:pull"));
    let asked = format!(
        "{}?service=registry.docker.io&scope=repository:nginx:pull&scope=repository:library/nginx:pull",
        realm(&refused)
    );
    assert_eq!(get(&nginx.url(&asked)).send().status, 200);
    let want = "/token?service=registry.docker.io&scope=repository:library/nginx:pull";
    assert_eq!(hub.last_request("auth.docker.io").uri, want);
}

#[test]
fn a_form_is_posted_as_the_registry_wants_it() {
    let hub = hub();
    let nginx = mirror(&hub, "proxy_request_buffering off;").start();
    let realm = realm(&get(&nginx.url("/v2/ghcr.io/a/b/manifests/1")).send());
    let form = "grant_type=password&service=ghcr.io&client_id=docker&username=alice&password=s%26t\
                &scope=repository%3Aghcr.io%2Fa%2Fb%3Apull+repository%3Aghcr.io%2Fc%3Apull%2Cpush";
    let want = "service=ghcr.io&grant_type=password&client_id=docker&username=alice&password=s%26t\
                &scope=repository:a/b:pull%20repository:c:pull,push";
    let post = || {
        request("POST", &nginx.url(&realm))
            .header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
            .body(form)
            .send()
    };
    for _ in 0..2 {
        assert_eq!(post().status, 200);
        let sent = hub.last_request("ghcr.io");
        assert_eq!((sent.method.as_str(), sent.uri.as_str()), ("POST", "/token"));
        assert_eq!(String::from_utf8(sent.body.clone()).unwrap(), want);
        assert_eq!(sent.header("content-length"), Some(want.len().to_string().as_str()));
        assert_eq!(sent.all("content-length").len(), 1);
    }

    // nginx puts what is longer than `client_body_buffer_size` into a file.
    let refresh = "r".repeat(40_000);
    let form = format!("grant_type=refresh_token&service=ghcr.io&refresh_token={refresh}");
    let long = request("POST", &nginx.url(&realm))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form)
        .send();
    assert_eq!(long.status, 200);
    let sent = String::from_utf8(hub.last_request("ghcr.io").body).unwrap();
    let want = format!("service=ghcr.io&grant_type=refresh_token&refresh_token={refresh}");
    assert!(sent == want, "{} bytes of {}", sent.len(), want.len());

    let count = hub.counts("ghcr.io").requests;
    let json = request("POST", &nginx.url(&realm))
        .header("Content-Type", "application/json")
        .body("{}")
        .send();
    assert_eq!(json.status, 400);
    let long = request("POST", &nginx.url(&realm))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("a".repeat(70_000))
        .send();
    assert_eq!(long.status, 413);
    let put = request("PUT", &nginx.url(&realm)).body("x").send();
    assert_eq!((put.status, put.header("allow")), (405, Some("GET, POST")));
    assert_eq!(hub.counts("ghcr.io").requests, count);
}

#[test]
fn a_form_that_holds_nothing_is_sent_as_nothing() {
    let hub = hub();
    let nginx = mirror(&hub, "").start();
    // The registry names no service, and so a client's own is left out.
    let uri = "/v2/europe-docker.pkg.dev/a/b/manifests/1";
    let realm = realm(&get(&nginx.url(uri)).send());
    for form in ["", "service=x", "&"] {
        let post = request("POST", &nginx.url(&realm))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form)
            .send();
        assert_eq!(post.status, 200, "{form}: {}", post.text());
        let sent = hub.last_request("europe-docker.pkg.dev");
        assert_eq!((sent.method.as_str(), sent.body.as_slice()), ("POST", [].as_slice()), "{form}");
        assert_eq!(sent.header("content-length"), Some("0"), "{form}");
    }
}

/// nginx has made a subrequest of the request by then, which shares its body and not its length.
#[test]
fn what_is_mirrored_is_the_clients_own_form() {
    let hub = hub();
    let copy = hub.add_host_as("copy.example", Kind::Blank);
    let nginx = mirror(
        &hub,
        &format!("mirror /copy; location = /copy {{ internal; proxy_pass http://{copy}; }}"),
    )
    .start();
    let realm = realm(&get(&nginx.url("/v2/ghcr.io/a/b/manifests/1")).send());
    let form = "scope=repository%3Aghcr.io%2Fa%2Fb%3Apull";
    let post = request("POST", &nginx.url(&realm))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form)
        .send();
    assert_eq!(post.status, 200);
    let sent = |host| {
        let posts = hub.requests(host).into_iter().filter(|request| request.method == "POST");
        posts.map(|post| String::from_utf8(post.body).unwrap()).next_back()
    };
    assert_eq!(sent("ghcr.io").as_deref(), Some("service=ghcr.io&scope=repository:a/b:pull"));
    wait_for("the copy", || sent("copy.example").is_some());
    assert_eq!(sent("copy.example").as_deref(), Some(form));
}

#[test]
fn nothing_but_a_ticket_of_this_mirror_leads_anywhere() {
    let hub = hub();
    let nginx = mirror(&hub, "").start();
    let other = mirror(&hub, "").start();
    let ticket = |nginx: &Nginx| realm(&get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send());
    let (own, foreign) = (ticket(&nginx), ticket(&other));
    assert_ne!(own, foreign, "each has a key of its own");
    let requests = || hub.hosts().iter().map(|(host, _)| hub.counts(host).requests).sum::<u64>();
    let before = requests();

    let flipped = |at: usize| {
        let mut bytes = own.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let dot = own.find('.').unwrap();
    let rows = [
        ("foreign key", foreign),
        ("nothing", "/token/".to_owned()),
        ("made up", "/token/aHR0cDovL2xvY2FsaG9zdC8.AAAA".to_owned()),
        ("first byte", flipped("/token/".len())),
        ("last byte of the payload", flipped(dot - 1)),
        ("first byte of the MAC", flipped(dot + 1)),
        ("last byte", flipped(own.len() - 1)),
        ("no MAC", own[..dot].to_owned()),
        ("half a MAC", own[..dot + 20].to_owned()),
        ("a longer one", format!("{own}A")),
        ("a path behind it", format!("{own}/x")),
        ("a realm in the query", "/token/?realm=http://127.0.0.1/".to_owned()),
    ];
    for (name, uri) in rows {
        let answer = get(&nginx.url(&uri)).header("Authorization", ALICE).send();
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert!(answer.text().starts_with(r#"{"errors":[{"code":"DENIED""#), "{name}");
    }
    assert_eq!(requests(), before);
    assert_eq!(get(&nginx.url(&own)).send().status, 200);
}

#[test]
fn a_realm_that_the_registry_may_not_name_stays() {
    let hub = hub();
    hub.add_host_as("evil.example", Kind::Blank);
    let evil = "https://evil.example/token";
    challenge(&hub, "ghcr.io", evil, Some("ghcr.io"), "");
    let nginx = mirror(&hub, "").start();
    let refused = get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send();
    assert_eq!(parameter(&refused, "realm"), Some(evil));
    nginx.wait_for_log("realm \"https://evil.example/token\" is not declared for registry ghcr.io");
}

#[test]
fn a_fallback_has_no_say_in_where_credentials_go() {
    const FALLBACK: &str = "fallback.example";
    let hub = hub();
    hub.add_host_as(FALLBACK, Kind::Blank);
    hub.on(REGISTRY, "/", Fault::Status(503));
    let evil = "https://fallback.example/token";
    challenge(&hub, FALLBACK, evil, Some("evil"), "");
    let nginx = mirror(&hub, &format!("docker_fallback https://{FALLBACK};")).start();
    let challenged = get(&nginx.url("/v2/a/b/manifests/1")).send();
    assert_eq!(parameter(&challenged, "scope"), Some("repository:a/b:pull"));
    let before = hub.counts(FALLBACK).requests;
    let token = get(&nginx.url(&realm(&challenged))).header("Authorization", ALICE).send();
    assert_eq!(token.status, 200, "{}", token.text());
    let asked = hub.last_request("auth.docker.io");
    assert_eq!(asked.header("authorization"), Some(ALICE));
    assert!(asked.uri.contains("service=registry.docker.io"), "{}", asked.uri);
    assert_eq!(hub.counts(FALLBACK).requests, before);
}

#[test]
fn a_fallback_does_not_say_what_a_token_is_for() {
    const FALLBACK: &str = "fallback.example";
    let hub = hub();
    hub.add_host_as(FALLBACK, Kind::Blank);
    hub.on(REGISTRY, "/", Fault::Status(503));
    hub.route(FALLBACK, |_| {
        let scope = "repository:alice/secret:pull,push repository:ghcr.io/alice/secret:pull";
        let challenge = format!("Bearer realm=\"https://evil.example/token\",scope=\"{scope}\"");
        Response::error(401, "UNAUTHORIZED", "who?").header("WWW-Authenticate", challenge).into()
    });
    let nginx = mirror(&hub, &format!("docker_fallback https://{FALLBACK};")).start();
    for (uri, scope) in [
        ("/v2/a/b/manifests/1", Some("repository:a/b:pull")),
        ("/v2/x/manifests/1", Some("repository:x:pull")),
        ("/v2/", None),
    ] {
        let challenged = get(&nginx.url(uri)).send();
        assert!(realm(&challenged).starts_with("/token/"), "{uri}");
        assert_eq!(parameter(&challenged, "service"), Some("registry.docker.io"), "{uri}");
        assert_eq!(parameter(&challenged, "scope"), scope, "{uri}");
    }
}

#[test]
fn a_ticket_holds_as_long_as_its_registry_is_declared() {
    let hub = hub();
    let declared = declarations();
    let server = format!("docker_realm_rewrite on; include registries; {LOCATIONS}");
    let nginx = Nginx::builder()
        .http(&http_conf(&hub))
        .server(&server)
        .file("registries", &declared)
        .start();
    let ticket = realm(&get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send());
    nginx.reload();
    assert_eq!(get(&nginx.url(&ticket)).send().status, 200, "the key survives a reload");

    let rows = [
        ("another realm", declared.replace("ghcr.io;", "ghcr.io https://a.b realm=https://a.b/;")),
        ("undeclared", declared.replace("docker_registry ghcr.io;", "")),
    ];
    for (name, text) in rows {
        std::fs::write(nginx.prefix().join("registries"), text).unwrap();
        let old = nginx.workers();
        nginx.reload();
        nginx.wait_until_gone(&old);
        let before = hub.counts("ghcr.io").requests;
        assert_eq!(get(&nginx.url(&ticket)).send().status, 400, "{name}");
        assert_eq!(hub.counts("ghcr.io").requests, before, "{name}");
    }
}

#[test]
fn mirrors_with_one_key_know_each_others_tickets() {
    let hub = hub();
    let key = format!("{}\n", "0f".repeat(32));
    let start =
        || mirror(&hub, "").http("docker_token_key token.key;").file("token.key", &key).start();
    let (one, other) = (start(), start());
    let ticket = realm(&get(&one.url("/v2/ghcr.io/a/manifests/1")).send());
    assert_eq!(get(&other.url(&ticket)).send().status, 200);

    let rows = [
        ("no file", "docker_token_key no.key;", "No such file"),
        ("no key", "docker_token_key token.key;", "it holds something else"),
        ("two", "docker_token_key a b;", "it must be the only argument"),
    ];
    for (name, directive, want) in rows {
        let (good, said) = Nginx::builder().http(directive).file("token.key", "secret").test();
        assert!(!good && said.contains(want) && !said.contains("secret\""), "{name}: {said}");
    }
}

#[test]
fn credentials_go_over_verified_tls_only() {
    let hub = hub();
    // The module itself connects to addresses of this machine here, where anything may go.
    let upstream = format!("upstream ghcr.io {{ server {}:443; }}", hub.address("ghcr.io"));
    let nginx = mirror(&hub, "proxy_ssl_verify off;").http(&upstream).start();
    let ticket = realm(&get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send());
    assert_eq!(get(&nginx.url(&ticket)).send().status, 200, "nothing to lose");
    let before = hub.counts("ghcr.io").requests;
    let basic = get(&nginx.url(&ticket)).header("Authorization", ALICE).send();
    let form = request("POST", &nginx.url(&ticket))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("grant_type=refresh_token&refresh_token=secret")
        .send();
    assert_eq!((basic.status, form.status), (403, 403));
    assert_eq!(hub.counts("ghcr.io").requests, before);
    nginx.wait_for_log("credentials are not sent to ghcr.io");

    let verified = mirror(&hub, "").http(&upstream).start();
    let ticket = realm(&get(&verified.url("/v2/ghcr.io/a/manifests/1")).send());
    let basic = get(&verified.url(&ticket)).header("Authorization", ALICE).send();
    assert_eq!(basic.status, 200);
}

#[test]
fn docker_realm_rewrite_decides_whether_and_where() {
    let hub = hub();
    let nginx = Nginx::builder()
        .http(&http_conf(&hub))
        .server(&format!(
            "{}
             docker_realm_rewrite https://mirror.example.com/auth/;
             location /v2/   {{ proxy_pass $docker_upstream; }}
             location /auth/ {{ proxy_pass $docker_upstream; }}",
            declarations()
        ))
        .server(&format!("{}{LOCATIONS}", declarations()))
        .start();
    let refused = get(&nginx.url("/v2/ghcr.io/a/manifests/1")).send();
    let whole = parameter(&refused, "realm").unwrap();
    assert!(whole.starts_with("https://mirror.example.com/auth/token/"), "{whole}");
    assert_eq!(get(&nginx.url(&realm(&refused))).send().status, 200);

    let off = get(&nginx.url_of(1, "/v2/ghcr.io/a/manifests/1")).send();
    assert_eq!(parameter(&off, "realm"), Some("https://ghcr.io/token"));
    assert_eq!(parameter(&off, "scope"), Some("repository:a:pull"));
}

#[test]
fn two_users_of_two_registries_do_not_meet() {
    let hub = hub();
    let nginx = mirror(&hub, "").start();
    let rows = [("ghcr.io", ALICE), ("quay.io", BOB)];
    let mut tokens = Vec::new();
    for (name, user) in rows {
        let refused = get(&nginx.url(&format!("/v2/{name}/a/manifests/1"))).send();
        let granted = get(&nginx.url(&realm(&refused))).header("Authorization", user).send();
        tokens.push(granted.json()["token"].as_str().unwrap().to_owned());
    }
    for (token, (name, _)) in tokens.iter().zip(rows) {
        let served = get(&nginx.url(&format!("/v2/{name}/a/manifests/1"))).bearer(token).send();
        assert_eq!(served.status, 200, "{name}");
    }
    for ((name, user), token) in rows.iter().zip(&tokens) {
        for request in hub.requests(name) {
            let seen = request.header("authorization");
            let own = format!("Bearer {token}");
            assert!(
                seen.is_none_or(|seen| seen == *user || seen == own),
                "{name} got {seen:?} with {}",
                request.line()
            );
        }
    }
}

#[test]
fn a_client_that_knows_one_realm_gets_the_tokens_of_all() {
    let hub = hub();
    hub.add_host_as("mcr.microsoft.com", Kind::Blank);
    let nginx = mirror(&hub, "docker_registry mcr.microsoft.com;").start();
    // docker asks for tokens where `/v2/` says, whatever the image.
    let ping = realm(&get(&nginx.url("/v2/")).send());
    let ask = |scope: &str| {
        let uri = format!("{ping}?service=registry.docker.io&scope=repository:{scope}:pull");
        get(&nginx.url(&uri)).header("Authorization", ALICE).send()
    };
    for Stand { name, realm, service, .. } in &STANDS {
        // A registry that is not well known has no realm to begin with.
        let Some(service) = service else { continue };
        assert_eq!(ask(&format!("{name}/a/b")).status, 200, "{name}");
        let want = format!("{}?service={service}&scope=repository:a/b:pull", path_of(realm));
        assert_eq!(hub.last_request(host_of(realm)).uri, want, "{name}");
    }

    // What a form holds, a refresh token or a password, is for the realm in the ticket.
    let before = hub.counts("ghcr.io").requests;
    let form = request("POST", &nginx.url(&ping))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("grant_type=refresh_token&refresh_token=r&scope=repository:ghcr.io/a/b:pull")
        .send();
    assert_eq!(form.status, 200);
    assert_eq!(hub.last_request("auth.docker.io").method, "POST");
    assert_eq!(hub.counts("ghcr.io").requests, before);

    let open = ask("mcr.microsoft.com/dotnet/sdk");
    assert_eq!((open.status, open.text().as_str()), (200, "{\"token\":\"none\"}\n"));
    let uri = "/v2/mcr.microsoft.com/dotnet/sdk/manifests/1";
    assert_eq!(get(&nginx.url(uri)).bearer("none").send().status, 200);
    assert_eq!(hub.last_request("mcr.microsoft.com").header("authorization"), None);
    assert_eq!(get(&nginx.url(uri)).bearer("another").send().status, 200);
    let sent = hub.last_request("mcr.microsoft.com");
    assert_eq!(sent.header("authorization"), Some("Bearer another"));
}

#[test]
fn a_token_to_push_with_is_the_images_whatever_is_mounted() {
    let hub = hub();
    let nginx = mirror(&hub, "docker_push on;").start();
    let ping = realm(&get(&nginx.url("/v2/")).send());
    let before = hub.counts("ghcr.io").requests;
    // docker asks so for a layer that it has of another image of this server's, containerd by the
    // order of names.
    let [own, other] = ["scope=repository:x/y:pull,push", "scope=repository:ghcr.io/c/d:pull"];
    for scopes in [format!("{own}&{other}"), format!("{other}&{own}")] {
        let asked = format!("{ping}?service=registry.docker.io&{scopes}");
        let granted = get(&nginx.url(&asked)).header("Authorization", ALICE).send();
        assert_eq!(granted.text(), r#"{ "token": "auth.docker.io" }"#, "{scopes}");
        let asked = hub.last_request("auth.docker.io");
        assert_eq!(asked.uri, format!("/token?service=registry.docker.io&{scopes}"));
    }
    assert_eq!(hub.counts("ghcr.io").requests, before);
}

#[test]
fn a_registry_does_not_say_what_another_is_asked_for() {
    const OWN: &str = "harbor.example.com";
    let hub = hub();
    hub.add_host_as(OWN, Kind::Blank);
    let realm_of_own = "https://harbor.example.com/service/token";
    hub.route(OWN, move |request| {
        if request.path() == "/service/token" {
            let token = r#"{ "token": "own" }"#;
            return Response::text(200, token).header("Content-Type", "application/json").into();
        }
        let scope = "repository:ghcr.io/alice/secret:pull x:ghcr.io/alice/secret:pull \
                     repository:ghcr.io/alice/secret";
        let challenge = format!("Bearer realm=\"{realm_of_own}\",scope=\"{scope}\"");
        Response::error(401, "UNAUTHORIZED", "who?").header("WWW-Authenticate", challenge).into()
    });
    // Which is reached without a prefix.
    let declared =
        format!("docker_registry {OWN} alias=own.example default; docker_registry ghcr.io;");
    let nginx = Nginx::builder()
        .http(&http_conf(&hub))
        .server(&format!("docker_realm_rewrite on; {declared} {LOCATIONS}"))
        .start();
    let before = hub.counts("ghcr.io").requests;
    for (uri, host) in [
        ("/v2/", "mirror.example"),
        ("/v2/", "own.example"),
        ("/v2/?ns=harbor.example.com", "mirror.example"),
        ("/v2/_catalog", "mirror.example"),
        ("/v2/a/b/manifests/1", "mirror.example"),
        ("/v2/a/b/manifests/1", "own.example"),
        ("/v2/a/b/manifests/1?ns=harbor.example.com", "mirror.example"),
        ("/v2/ghcr.io/alice/secret/manifests/1?ns=harbor.example.com", "mirror.example"),
        ("/v2/harbor.example.com/a/b/manifests/1", "mirror.example"),
    ] {
        let challenged = get(&nginx.url(uri)).header("Host", host).send();
        let scopes = parameter(&challenged, "scope").unwrap();
        for scope in scopes.split(' ').chain([scopes]) {
            let scope = scope.replace(' ', "%20");
            let asked = format!("{}?scope={scope}", realm(&challenged));
            let granted = get(&nginx.url(&asked)).header("Authorization", ALICE).send();
            assert_eq!(granted.text(), r#"{ "token": "own" }"#, "{uri} {host} {scope}");
        }
    }
    assert_eq!(
        hub.counts("ghcr.io").requests,
        before,
        "who has one login, has sent it to none else"
    );
}
