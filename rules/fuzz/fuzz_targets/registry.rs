//! What goes upstream is a path of the registry API in one reading only; and what a client asked
//! for is found again from it, as are the scopes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::registry::{By, Registries, Registry};

fuzz_target!(|data: &[u8]| {
    let mut all = Registries::default();
    for name in ["docker.io", "ghcr.io", "localhost:5000"] {
        let mut registry = Registry::named(name).expect("a name");
        registry.default = name == "docker.io";
        registry.aliases.push(format!("{}.mirror", name.split(':').next().expect("a host")));
        all.add(registry).expect("no conflict");
    }
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let uri = parts.next().unwrap_or_default();
    let host = parts.next();
    let scope = parts.next().and_then(|scope| str::from_utf8(scope).ok()).unwrap_or_default();

    let Ok(route) = all.route(uri, host) else {
        return;
    };
    let path = route.uri.split('?').next().expect("a path");
    assert!(route.uri.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(path == "/v2/" || path.starts_with("/v2/"));
    let lower = path.to_ascii_lowercase();
    for bad in ["//", "/./", "/../", "%2f", "%00", "%5c", "\\", "#"] {
        assert!(!lower.contains(bad), "{path}");
    }
    let last = lower.rsplit('/').next().expect("a segment").replace("%2e", ".");
    assert!(last != "." && last != "..", "{path}");

    let (Some(own), Some(name)) = (route.own_name(), route.client_name()) else {
        return;
    };
    // What is asked for by the client's name again is the same.
    let client = route.client_uri(&route.uri).expect("of the same repository");
    assert!(client.starts_with(&format!("/v2/{name}/")));
    let namespace = match route.by {
        By::Namespace if client.contains('?') => format!("&ns={}", route.registry.name),
        By::Namespace => format!("?ns={}", route.registry.name),
        _ => String::new(),
    };
    let again = all.route(format!("{client}{namespace}").as_bytes(), host).expect("a route");
    assert_eq!((&again.uri, again.by), (&route.uri, route.by));

    let own = format!("repository:{own}:pull");
    assert_eq!(route.registry.own_scope(&route.client_scope(&own)), own);
    let once = route.registry.own_scope(scope);
    let form = route.registry.own_form(&format!("scope={}", scope.replace('&', "")), Some("s"));
    assert!(form.starts_with("service=s"));
    assert!(form.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'), "{form}");
    assert!(once.len() <= scope.len() + 9 * (1 + scope.matches(' ').count()));
});
