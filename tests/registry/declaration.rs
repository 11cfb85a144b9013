//! What `nginx -t` says of declarations.

use support::nginx_t;

#[test]
fn declarations_that_cannot_be_are_refused() {
    let rows = [
        ("no name", "docker_registry https://ghcr.io;", "it must be a registry's name"),
        ("upper case", "docker_registry GHCR.io;", "it must be a registry's name"),
        (
            "twice",
            "docker_registry ghcr.io; docker_registry ghcr.io https://ghcr.io;",
            "invalid value \"ghcr.io\" in \"docker_registry\" directive, it must be given once only",
        ),
        (
            "two defaults",
            "docker_registry ghcr.io default; docker_registry quay.io default;",
            "invalid value \"default\" in \"docker_registry\" directive, it must be given once only",
        ),
        (
            "one alias of two",
            "docker_registry ghcr.io alias=a; docker_registry quay.io alias=a;",
            "invalid value \"alias=a\"",
        ),
        ("no URL", "docker_registry ghcr.io ftp://ghcr.io;", "it must be a URL that begins"),
        ("another parameter", "docker_registry ghcr.io realms=x;", "invalid value \"realms=x\""),
        (
            "in a location",
            "server { location / { docker_registry ghcr.io; } }",
            "directive is not allowed here",
        ),
    ];

    for (name, text, want) in rows {
        let (good, said) = nginx_t(text);
        assert!(!good && said.contains(want), "{name}: {said}");
    }
}

#[test]
fn a_server_declares_its_own() {
    let (good, said) = nginx_t(
        "docker_registry ghcr.io default;
         server { listen 127.0.0.1:1; docker_registry ghcr.io; docker_registry quay.io default; }
         server { listen 127.0.0.1:2; }",
    );
    assert!(good, "{said}");
}
