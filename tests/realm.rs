//! `docker_realm_rewrite`: where clients ask for tokens.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::io::{Read, Write};
use std::net::TcpListener;

use support::{
    AUTH, Answer, Connection, Fault, Hub, Nginx, NginxBuilder, REGISTRY, Reply, Request, Response,
    get, nginx_t, request,
};

/// The challenge of Docker Hub.
const CHALLENGE: &str =
    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
/// The same for clients of a mirror at port 5000.
const REWRITTEN: &str =
    r#"Bearer realm="http://mirror.example.com:5000/token",service="registry.docker.io""#;
const HOST: &str = "mirror.example.com:5000";

fn mirror(hub: &Hub) -> NginxBuilder {
    Nginx::builder().http(&hub.http_conf())
}

/// A mirror whose server has these directives.
fn start(hub: &Hub, directives: &str) -> Nginx {
    let location = format!("location / {{ proxy_pass https://{REGISTRY}; }}");
    mirror(hub).server(&format!("{directives}\n{location}")).start()
}

/// Lets the registry answer every request so, with these `WWW-Authenticate` lines.
fn answer(hub: &Hub, status: u16, challenges: &[impl AsRef<[u8]>]) {
    let response = challenges.iter().fold(Response::text(status, "no"), |response, line| {
        response.header("WWW-Authenticate", line)
    });
    hub.on(REGISTRY, "/", Fault::Answer(Reply::Response(response)));
}

fn hub_with(challenge: &str) -> Hub {
    let hub = Hub::start();
    answer(&hub, 401, &[challenge]);
    hub
}

fn ask(nginx: &Nginx, target: &str) -> Request {
    get(&nginx.url(target)).header("Host", HOST)
}

fn challenges(answer: &Answer) -> Vec<&str> {
    answer.all("www-authenticate")
}

fn realm(answer: &Answer) -> &str {
    let challenges = challenges(answer);
    assert_eq!(challenges.len(), 1, "{challenges:?}");
    challenges[0].split('"').nth(1).unwrap()
}

#[test]
fn the_realm_leads_to_the_authority_that_the_client_asked() {
    let hub = hub_with(CHALLENGE);
    let nginx = start(&hub, "docker_realm_rewrite on;");
    let cases = [
        ("port", "mirror.example.com:5000"),
        ("default port", "mirror.example.com"),
        ("default port in full", "mirror.example.com:80"),
        ("another port", "localhost:1"),
        ("IPv4", "192.0.2.1:5000"),
        ("IPv6", "[2001:db8::1]:5000"),
        ("IPv6 without a port", "[::1]"),
        ("underscore and hyphen", "my_mirror-2:65535"),
    ];

    for (name, host) in cases {
        let answer = get(&nginx.url("/v2/")).header("Host", host).send();
        assert_eq!(answer.status, 401, "{name}");
        assert_eq!(realm(&answer), format!("http://{host}/token"), "{name}");
    }
}

#[test]
fn the_realm_has_the_scheme_that_the_client_speaks() {
    let hub = hub_with(CHALLENGE);
    let server = format!(
        "docker_realm_rewrite on;
         location / {{ proxy_pass https://{REGISTRY}; }}"
    );
    let nginx = mirror(&hub).server(&server).tls_server(&server).start();

    let clear = get(&nginx.url_of(0, "/v2/")).header("Host", HOST).send();
    assert_eq!(realm(&clear), "http://mirror.example.com:5000/token");
    let tls = get(&nginx.url_of(1, "/v2/")).header("Host", HOST).ca(nginx.ca_file()).send();
    assert_eq!(realm(&tls), "https://mirror.example.com:5000/token");
}

#[test]
fn http2_clients_are_led_to_their_authority() {
    let hub = hub_with(CHALLENGE);
    let server = format!(
        "docker_realm_rewrite on;
         location / {{ proxy_pass https://{REGISTRY}; }}"
    );
    let nginx = mirror(&hub).h2c_server(&server).tls_server(&server).start();

    let clear = get(&nginx.url_of(0, "/v2/")).header("Host", HOST).http2().send();
    assert_eq!(realm(&clear), "http://mirror.example.com:5000/token");
    let tls = get(&nginx.url_of(1, "/v2/")).ca(nginx.ca_file()).http2().send();
    assert_eq!(realm(&tls), format!("https://127.0.0.1:{}/token", nginx.port_of(1)));
}

#[test]
fn a_host_that_is_none_is_not_reflected() {
    let hub = hub_with(CHALLENGE);
    let nginx = start(&hub, "docker_realm_rewrite on;");
    let cases = [
        ("quote", "evil.example\",realm=\"https://evil.example"),
        ("comma", "evil.example,Bearer"),
        ("user", "user@evil.example"),
        ("no port", "evil.example:"),
        ("port 0", "evil.example:0"),
        ("port beyond 65535", "evil.example:65536"),
        ("no number for a port", "evil.example:80x"),
        ("two ports", "evil.example:80:80"),
        ("percent", "evil%2eexample"),
        ("query", "evil.example?x=y"),
        ("fragment", "evil.example#x"),
        ("backslash", "evil.example\\x"),
        ("bare IPv6", "2001:db8::1"),
        ("no IPv6", "[2001:db8::x]"),
        ("octal address", "0177.0.0.1"),
        ("byte above 0x7f", "evil\u{fc}.example"),
    ];

    let mut passed = 0;
    for (name, host) in cases {
        let answer = get(&nginx.url("/v2/")).header("Host", host).send();
        // What nginx itself takes for no host does not even come to the registry.
        if answer.status != 400 {
            assert_eq!(answer.status, 401, "{name}");
            assert_eq!(challenges(&answer), [CHALLENGE], "{name}");
            passed += 1;
        }
    }
    assert!(passed >= 4, "nginx lets most of them pass: {passed}");
}

#[test]
fn a_request_without_a_host_gets_the_realm_as_it_is() {
    let hub = hub_with(CHALLENGE);
    let nginx = start(&hub, "docker_realm_rewrite on;");
    let mut connection = Connection::open(&get(&nginx.url("/"))).unwrap();
    connection.write(b"GET /v2/ HTTP/1.0\r\n\r\n").unwrap();
    let answer = connection.answer("GET").unwrap();
    assert_eq!((answer.status, challenges(&answer)), (401, vec![CHALLENGE]));
}

#[test]
fn only_scheme_and_authority_of_bearer_realms_change() {
    let cases: [(&str, &[&str], &[&str]); 16] = [
        ("Docker Hub", &[CHALLENGE], &[REWRITTEN]),
        (
            "service before realm",
            &[r#"Bearer service="registry.docker.io",realm="https://auth.docker.io/token""#],
            &[
                r#"Bearer service="registry.docker.io",realm="http://mirror.example.com:5000/token""#,
            ],
        ),
        (
            "another host",
            &[r#"Bearer realm="https://auth.ipv6.docker.com/token",service="s""#],
            &[r#"Bearer realm="http://mirror.example.com:5000/token",service="s""#],
        ),
        (
            "port, path and query",
            &[r#"Bearer realm="http://a.example:8443/v2/auth?a=b&c=%2F",service="s""#],
            &[r#"Bearer realm="http://mirror.example.com:5000/v2/auth?a=b&c=%2F",service="s""#],
        ),
        (
            "scope and error",
            &[
                r#"Bearer realm="https://a/t",scope="repository:a/b:pull,push",error="invalid_token""#,
            ],
            &["Bearer realm=\"http://mirror.example.com:5000/t\",\
               scope=\"repository:a/b:pull,push\",error=\"invalid_token\""],
        ),
        (
            "several challenges in one line",
            &[
                r#"Basic realm="https://a/t", Bearer realm="https://a/t", Digest realm="https://a/t""#,
            ],
            &["Basic realm=\"https://a/t\", \
               Bearer realm=\"http://mirror.example.com:5000/t\", Digest realm=\"https://a/t\""],
        ),
        (
            "token68 before it",
            &[r#"Negotiate abc==, Bearer realm="https://a/t""#],
            &[r#"Negotiate abc==, Bearer realm="http://mirror.example.com:5000/t""#],
        ),
        (
            "scheme alone before it",
            &[r#"Negotiate, Bearer realm="https://a/t""#],
            &[r#"Negotiate, Bearer realm="http://mirror.example.com:5000/t""#],
        ),
        (
            "several lines",
            &[r#"Basic realm="https://a/t""#, CHALLENGE, r#"Bearer realm="https://b/u""#],
            &[
                r#"Basic realm="https://a/t""#,
                REWRITTEN,
                r#"Bearer realm="http://mirror.example.com:5000/u""#,
            ],
        ),
        (
            "Basic alone",
            &[r#"Basic realm="https://auth.docker.io/token""#],
            &[r#"Basic realm="https://auth.docker.io/token""#],
        ),
        (
            "quoted pairs",
            &[r#"Bearer x="\"a\", Bearer realm=\"https://b/\"",realm="https:\/\/a/t\"o\\k""#],
            &["Bearer x=\"\\\"a\\\", Bearer realm=\\\"https://b/\\\"\",\
               realm=\"http://mirror.example.com:5000/t\\\"o\\\\k\""],
        ),
        (
            "upper case",
            &[r#"BEARER REALM="HTTPS://AUTH.DOCKER.IO/TOKEN""#],
            &[r#"BEARER REALM="http://mirror.example.com:5000/TOKEN""#],
        ),
        (
            "white space and empty elements",
            &["Bearer  realm = \"https://a/t\" ,, , service=s"],
            &["Bearer  realm = \"http://mirror.example.com:5000/t\" ,, , service=s"],
        ),
        (
            "a realm that is no URL",
            &[r#"Bearer realm="registry",service="s""#],
            &[r#"Bearer realm="registry",service="s""#],
        ),
        (
            "a realm that is a token",
            &["Bearer realm=registry,service=s"],
            &["Bearer realm=registry,service=s"],
        ),
        (
            "no path",
            &[r#"Bearer realm="https://a",service="s""#],
            &[r#"Bearer realm="http://mirror.example.com:5000",service="s""#],
        ),
    ];

    let hub = Hub::start();
    let nginx = start(&hub, "docker_realm_rewrite on;");
    for (name, given, want) in cases {
        answer(&hub, 401, given);
        let answer = ask(&nginx, "/v2/").send();
        assert_eq!(challenges(&answer), want, "{name}");
        assert_eq!(answer.text(), "no", "{name}");
    }
    assert!(!nginx.errors().contains("invalid challenge"), "{}", nginx.errors());
}

#[test]
fn bytes_above_ascii_stay_as_they_are() {
    let hub = Hub::start();
    let line = b"Bearer realm=\"https://a/t\",service=\"r\xe9gistre\"";
    answer(&hub, 401, &[line]);
    let nginx = start(&hub, "docker_realm_rewrite on;");
    let want = "Bearer realm=\"http://mirror.example.com:5000/t\",service=\"r\u{e9}gistre\"";
    assert_eq!(challenges(&ask(&nginx, "/v2/").send()), [want]);
}

#[test]
fn a_long_challenge_is_rewritten_too() {
    let hub = Hub::start();
    let scope = "repository:library/x:pull ".repeat(100);
    answer(&hub, 401, &[format!("Bearer scope=\"{scope}\",realm=\"https://a/t\"")]);
    let nginx = start(&hub, "docker_realm_rewrite on;");
    let want = format!("Bearer scope=\"{scope}\",realm=\"http://mirror.example.com:5000/t\"");
    assert_eq!(challenges(&ask(&nginx, "/v2/").send()), [want]);
}

#[test]
fn a_malformed_challenge_passes_and_is_logged() {
    let cases = [
        ("unterminated quote", r#"Bearer realm="https://a/t"#, 13),
        ("no separator", r#"Bearer realm="https://a/t" service="s""#, 26),
        ("no scheme", r#"="x""#, 0),
        ("two values", r#"Bearer realm="https://a/t""x""#, 26),
    ];

    let hub = Hub::start();
    let nginx = start(&hub, "docker_realm_rewrite on;");
    for (name, line, at) in cases {
        answer(&hub, 401, &[line]);
        assert_eq!(challenges(&ask(&nginx, "/v2/").send()), [line], "{name}");
        let logged = nginx.wait_for_log(&format!(
            "upstream sent invalid \"WWW-Authenticate\" header: \"{}\", invalid challenge at byte \
             {at}, passed unchanged",
            line.escape_default()
        ));
        assert!(logged.contains("[warn]"), "{name}: {logged}");
    }
}

#[test]
fn a_good_line_is_rewritten_beside_a_malformed_one() {
    let hub = Hub::start();
    answer(&hub, 401, &["Bearer realm=\"", CHALLENGE]);
    let nginx = start(&hub, "docker_realm_rewrite on;");
    assert_eq!(challenges(&ask(&nginx, "/v2/").send()), ["Bearer realm=\"", REWRITTEN]);
    nginx.wait_for_log("invalid challenge at byte 13");
}

#[test]
fn no_challenge_is_invented() {
    let hub = Hub::start();
    let nginx = start(&hub, "docker_realm_rewrite on;");
    for status in [200, 401, 403, 404, 503] {
        answer(&hub, status, &[] as &[&str]);
        let answer = ask(&nginx, "/v2/").send();
        assert_eq!((answer.status, challenges(&answer).len()), (status, 0));
    }
}

#[test]
fn a_challenge_is_rewritten_whatever_the_status_and_the_method() {
    let hub = Hub::start();
    let nginx = start(&hub, "docker_realm_rewrite on;");
    for status in [200, 403, 404] {
        answer(&hub, status, &[CHALLENGE]);
        assert_eq!(challenges(&ask(&nginx, "/v2/").send()), [REWRITTEN], "{status}");
    }
    answer(&hub, 401, &[CHALLENGE]);
    for method in ["HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        let mut request = request(method, &nginx.url("/v2/x")).header("Host", HOST);
        if matches!(method, "POST" | "PUT" | "PATCH") {
            request = request.body("body");
        }
        let answer = request.send();
        assert_eq!((answer.status, challenges(&answer)), (401, vec![REWRITTEN]), "{method}");
        assert_eq!(hub.last_request(REGISTRY).method, method);
    }
}

#[test]
fn a_challenge_from_the_cache_leads_each_client_to_its_own_authority() {
    let hub = hub_with(CHALLENGE);
    let nginx = mirror(&hub)
        .http("proxy_cache_path %prefix%/cache keys_zone=cache:1m;")
        .server(&format!(
            "docker_realm_rewrite on;
             proxy_cache cache;
             proxy_cache_valid 401 1m;
             add_header X-Cache $upstream_cache_status always;
             location / {{ proxy_pass https://{REGISTRY}; }}"
        ))
        .start();

    for (host, cache) in [("a.example:1", "MISS"), ("b.example:2", "HIT"), ("c.example", "HIT")] {
        let answer = get(&nginx.url("/v2/")).header("Host", host).send();
        assert_eq!(answer.header("x-cache"), Some(cache), "{host}");
        assert_eq!(realm(&answer), format!("http://{host}/token"), "{cache}");
    }
    assert_eq!(hub.counts(REGISTRY).requests, 1);
}

#[test]
fn a_url_replaces_scheme_and_authority_and_may_have_a_prefix() {
    let cases = [
        ("another scheme", "https://mirror.example.com", "https://mirror.example.com/token"),
        ("port", "https://mirror.example.com:8443", "https://mirror.example.com:8443/token"),
        ("prefix", "https://mirror.example.com/auth", "https://mirror.example.com/auth/token"),
        ("final slash", "https://mirror.example.com/", "https://mirror.example.com/token"),
        ("variable", "https://$host", "https://mirror.example.com/token"),
        ("variable and prefix", "https://$host/auth", "https://mirror.example.com/auth/token"),
        ("several variables", "$scheme://$http_host/a", "http://mirror.example.com:5000/a/token"),
    ];

    let hub = hub_with(CHALLENGE);
    for (name, url, want) in cases {
        let nginx = start(&hub, &format!("docker_realm_rewrite {url};"));
        assert_eq!(realm(&ask(&nginx, "/v2/").send()), want, "{name}");
    }
}

#[test]
fn a_url_that_fails_at_run_time_leaves_the_realm_and_is_logged() {
    let hub = hub_with(CHALLENGE);
    let nginx = start(&hub, "docker_realm_rewrite https://$arg_host;");
    let cases = ["", "?host=a%22b", "?host=user@a", "?host=a\"b", "?host=a:0", "?host=a?b=c"];
    for query in cases {
        let answer = ask(&nginx, &format!("/v2/{query}")).send();
        assert_eq!(challenges(&answer), [CHALLENGE], "{query}");
    }
    let logged = nginx.wait_for_log("\"docker_realm_rewrite\" has the value \"https://\"");
    assert!(logged.contains("[error]"), "{logged}");

    let answer = ask(&nginx, "/v2/?host=good.example:5000").send();
    assert_eq!(realm(&answer), "https://good.example:5000/token");
}

#[test]
fn an_inner_level_overrides_the_outer_one() {
    let hub = hub_with(CHALLENGE);
    let to = format!("proxy_pass https://{REGISTRY};");
    let nginx = mirror(&hub)
        .http("docker_realm_rewrite https://http.example;")
        .server(&format!(
            "docker_realm_rewrite https://server.example;
             location / {{ {to} }}
             location /off {{ docker_realm_rewrite off; {to}
                 location /off/nested {{ {to} }}
                 location /off/on {{ docker_realm_rewrite on; {to} }}
             }}
             location /url {{ docker_realm_rewrite https://location.example/x; {to} }}
             location /if {{
                 docker_realm_rewrite https://location.example/if;
                 if ($arg_if) {{ add_header X-If 1 always; }}
                 {to}
             }}
             location ~ ^/regex {{ docker_realm_rewrite off; {to} }}"
        ))
        .server(&format!("location / {{ {to} }}"))
        .server(&format!("docker_realm_rewrite off; location / {{ {to} }}"))
        .start();
    let unchanged = "https://auth.docker.io/token";
    let cases = [
        ("server", 0, "/v2/", "https://server.example/token"),
        ("off in a location", 0, "/off", unchanged),
        ("off in the location around", 0, "/off/nested", unchanged),
        ("on in a nested location", 0, "/off/on", "http://mirror.example.com:5000/token"),
        ("url in a location", 0, "/url", "https://location.example/x/token"),
        ("location with an if", 0, "/if", "https://location.example/if/token"),
        ("if in a location", 0, "/if?if=1", "https://location.example/if/token"),
        ("off in a regex location", 0, "/regex", unchanged),
        ("http", 1, "/v2/", "https://http.example/token"),
        ("off in a server", 2, "/v2/", unchanged),
    ];

    for (name, server, target, want) in cases {
        let answer = get(&nginx.url_of(server, target)).header("Host", HOST).send();
        assert_eq!(realm(&answer), want, "{name}");
    }
}

#[test]
fn off_is_the_default() {
    let hub = hub_with(CHALLENGE);
    let nginx = start(&hub, "");
    assert_eq!(challenges(&ask(&nginx, "/v2/").send()), [CHALLENGE]);
}

#[test]
fn challenges_of_nginx_itself_stay() {
    let hub = hub_with(CHALLENGE);
    let basic = r#"docker", Bearer realm="https://auth.docker.io/token"#;
    let nginx = mirror(&hub)
        .file("users", "user:{PLAIN}password\n")
        .server(&format!(
            "docker_realm_rewrite on;
             location /basic {{
                 auth_basic '{basic}';
                 auth_basic_user_file %prefix%/users;
                 proxy_pass https://{REGISTRY};
             }}
             location /add {{
                 add_header WWW-Authenticate '{CHALLENGE}' always;
                 proxy_pass https://{REGISTRY};
             }}
             location /return {{
                 add_header WWW-Authenticate '{CHALLENGE}' always;
                 return 401;
             }}"
        ))
        .start();

    let refused = ask(&nginx, "/basic").send();
    assert_eq!(challenges(&refused), [format!("Basic realm=\"{basic}\"")]);
    assert_eq!(hub.counts(REGISTRY).requests, 0);
    let passed = ask(&nginx, "/basic").header("Authorization", "Basic dXNlcjpwYXNzd29yZA==").send();
    assert_eq!(challenges(&passed), [REWRITTEN]);
    let mut added = ask(&nginx, "/add").send().headers;
    added.retain(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    let mut added: Vec<String> = added.into_iter().map(|(_, value)| value).collect();
    added.sort();
    assert_eq!(added, [REWRITTEN, CHALLENGE], "upstream's changes, nginx's stays");
    assert_eq!(challenges(&ask(&nginx, "/return").send()), [CHALLENGE]);
}

#[test]
fn intercepted_errors_keep_their_rewritten_challenge() {
    let hub = hub_with(CHALLENGE);
    let nginx = mirror(&hub)
        .file("html/401.html", "log in\n")
        .server(&format!(
            "docker_realm_rewrite on;
             proxy_intercept_errors on;
             root %prefix%/html;
             location / {{ proxy_pass https://{REGISTRY}; error_page 401 /401.html; }}
             location /named {{ proxy_pass https://{REGISTRY}; error_page 401 @login; }}
             location = /401.html {{ internal; }}
             location @login {{ return 401 'log in by name\\n'; }}"
        ))
        .start();

    for (target, text) in [("/v2/", "log in\n"), ("/named", "log in by name\n")] {
        let answer = ask(&nginx, target).send();
        assert_eq!((answer.status, answer.text().as_str()), (401, text), "{target}");
        assert_eq!(challenges(&answer), [REWRITTEN], "{target}");
    }
}

#[test]
fn challenges_of_an_auth_request_stay() {
    let hub = hub_with(CHALLENGE);
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_realm_rewrite on;
             location / {{ auth_request /auth; proxy_pass https://{REGISTRY}; }}
             location = /auth {{ internal; proxy_pass https://{REGISTRY}; }}"
        ))
        .start();
    let answer = ask(&nginx, "/v2/").send();
    assert_eq!((answer.status, challenges(&answer)), (401, vec![CHALLENGE]));
    assert_eq!(hub.counts(REGISTRY).requests, 1);
}

#[test]
fn answers_of_other_protocols_stay() {
    let hub = Hub::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let application = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A netstring of variables; one read holds it.
        let mut bytes = [0; 8192];
        assert!(stream.read(&mut bytes).unwrap() > 0);
        let answer = format!("Status: 401 No\r\nWWW-Authenticate: {CHALLENGE}\r\n\r\nno");
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_realm_rewrite on;
             location / {{ scgi_pass 127.0.0.1:{port}; scgi_param REQUEST_METHOD GET; }}"
        ))
        .start();
    let answer = ask(&nginx, "/v2/").send();
    assert_eq!((answer.status, challenges(&answer)), (401, vec![CHALLENGE]));
    application.join().unwrap();
}

#[test]
fn a_client_gets_its_token_where_the_realm_leads() {
    let hub = Hub::start();
    let image = hub.add_image("library/hello", "latest", &[b"hello"]);
    let nginx = mirror(&hub)
        .server(&format!(
            "docker_realm_rewrite on;
             location /v2/ {{ proxy_pass https://{REGISTRY}; }}
             location /token {{ proxy_pass https://{AUTH}; }}"
        ))
        .start();

    let manifest = nginx.url("/v2/library/hello/manifests/latest");
    let challenge = get(&manifest).send();
    let realm = realm(&challenge);
    assert_eq!(realm, nginx.url("/token"));
    let scope = "service=registry.docker.io&scope=repository:library/hello:pull";
    let token = get(&format!("{realm}?{scope}")).send().json();
    let answer = get(&manifest).bearer(token["token"].as_str().unwrap()).send();
    assert_eq!(answer.header("docker-content-digest"), Some(image.digest.as_str()));
}

#[test]
fn a_reload_changes_the_realm() {
    let hub = hub_with(CHALLENGE);
    let nginx = start(&hub, "docker_realm_rewrite https://old.example;");
    assert_eq!(realm(&ask(&nginx, "/v2/").send()), "https://old.example/token");
    let file = nginx.prefix().join("nginx.conf");
    let text = std::fs::read_to_string(&file).unwrap().replace("old.example", "new.example");
    std::fs::write(file, text).unwrap();
    let old = nginx.workers();
    nginx.reload();
    nginx.wait_until_gone(&old);
    assert_eq!(realm(&ask(&nginx, "/v2/").send()), "https://new.example/token");
}

#[test]
fn what_is_no_realm_is_refused_with_its_reason() {
    let allowed = "it must be \"on\", \"off\", or a URL that begins with \"http://\" or \
                   \"https://\" and holds nothing but a host, a port and a path";
    let value = |value: &str| {
        format!("invalid value \"{value}\" in \"docker_realm_rewrite\" directive, {allowed}")
    };
    let cases = [
        ("another word", "docker_realm_rewrite yes;", value("yes")),
        ("another scheme", "docker_realm_rewrite ftp://a;", value("ftp://a")),
        ("host only", "docker_realm_rewrite mirror.example;", value("mirror.example")),
        ("no host", "docker_realm_rewrite https://;", value("https://")),
        ("query", "docker_realm_rewrite https://a/?b;", value("https://a/?b")),
        ("user", "docker_realm_rewrite https://u@a;", value("https://u@a")),
        ("nothing", "docker_realm_rewrite '';", value("")),
        (
            "duplicate",
            "docker_realm_rewrite on; docker_realm_rewrite off;",
            "\"docker_realm_rewrite\" directive is duplicate".to_owned(),
        ),
        (
            "unknown variable",
            "docker_realm_rewrite https://$nowhere;",
            "unknown \"nowhere\" variable".to_owned(),
        ),
    ];

    for (name, directives, want) in cases {
        for http in [directives.to_owned(), format!("server {{ {directives} }}")] {
            let (good, says) = nginx_t(&http);
            assert!(!good, "{name}");
            assert!(says.contains(&want), "{name}: {says}");
            assert!(says.contains("[emerg]"), "{name}: {says}");
        }
    }
    for (name, directives) in [
        ("no argument", "docker_realm_rewrite;"),
        ("off beside a URL", "docker_realm_rewrite off https://a;"),
        ("two URLs", "docker_realm_rewrite https://a https://b;"),
    ] {
        let (good, says) = nginx_t(directives);
        assert!(!good && says.contains("\"docker_realm_rewrite\" directive"), "{name}: {says}");
    }
    let (good, says) = nginx_t("upstream a { server 127.0.0.1; docker_realm_rewrite on; }");
    assert!(!good && says.contains("directive is not allowed here"), "{says}");
}
