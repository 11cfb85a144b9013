//! What each parser costs, by input as the real ones get it: `cargo bench -p rules [NAME]`.
//!
//! A row is the median of many rounds, in nanoseconds a call.

use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use rules::body::Framing;
use rules::breaker::Records;
use rules::fallback::Authorization;
use rules::kind::{Class, Request as Kind};
use rules::limit::Limit;
use rules::location::Url;
use rules::owner::Owner;
use rules::rate_limit::RateLimit;
use rules::redirect::{Allow, Policy, Redirect};
use rules::registry::{Registries, Registry};
use rules::request::{Carry, Head};
use rules::ticket::{Key, Ticket};
use rules::{
    address, answer, authority, body, breaker, cdn_loop, challenge, directive, error, fallback,
    redirect, request, resolv, retry_after,
};

const ROUNDS: usize = 101;
const ROUND: Duration = Duration::from_millis(2);

const CHALLENGE: &[u8] = b"Bearer realm=\"https://auth.docker.io/token\",\
service=\"registry.docker.io\",scope=\"repository:library/alpine:pull\"";
const CHALLENGES: &[u8] = b"Basic realm=\"registry\", Negotiate YWJjZGVm==, \
Bearer service=\"s\", realm=\"https://auth.docker.io/token\"";
const SIGNED: &[u8] = b"https://docker-images-prod.0123456789abcdef0123456789abcdef.\
r2.cloudflarestorage.com/registry-v2/docker/registry/v2/blobs/sha256/aa/\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/data?\
X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=0123456789abcdef%2F20260101%2Fauto%2Fs3%2F\
aws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=1200&X-Amz-SignedHeaders=host&\
X-Amz-Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const RELATIVE: &[u8] =
    b"../../blobs/sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa?verify=1-2";
/// As Docker Hub's of an anonymous client.
const TOKEN: &[u8] = b"Bearer eyJhbGciOiAiUlMyNTYiLCAidHlwIjogIkpXVCIsICJraWQiOiAiMDEyMzQ1Njc4OWFiY2RlZiJ9.eyJhY2Nlc3\
MiOlt7ImFjdGlvbnMiOlsicHVsbCJdLCJuYW1lIjoibGlicmFyeS9hbHBpbmUiLCJwYXJhbWV0ZXJzIjp7InB1bGxfbGlt\
aXQiOiIxMDAiLCJwdWxsX2xpbWl0X2ludGVydmFsIjoiMjE2MDAifSwidHlwZSI6InJlcG9zaXRvcnkifV0sImF1ZCI6In\
JlZ2lzdHJ5LmRvY2tlci5pbyIsImV4cCI6MTc0NjEzNzIzOCwiaWF0IjoxNzQ2MTM2OTM4LCJpc3MiOiJhdXRoLmRvY2tl\
ci5pbyIsImp0aSI6ImRja3JfanRpXzAxMjM0NTY3ODlhYmNkZWYiLCJuYmYiOjE3NDYxMzY2MzgsInN1YiI6IiJ9.c2lnc\
2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2l\
nc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc\
2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2l\
nc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2ln";
const HEAD: &[u8] =
    b"GET /v2/library/alpine/blobs/sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n\
Host: registry-1.docker.io\r\n\
User-Agent: docker/29.0.0 go/go1.25 git-commit/abcdef kernel/6.1 os/linux arch/amd64\r\n\
Accept: application/vnd.oci.image.manifest.v1+json\r\n\
Accept: application/vnd.oci.image.index.v1+json, */*\r\n\
Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\
Accept-Encoding: identity\r\n\
X-Forwarded-For: 192.0.2.1\r\n\
\r\n";

fn main() {
    // Cargo passes `--bench`, too.
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let measure = |name: &str, call: &mut dyn FnMut()| {
        if name.contains(&wanted) {
            println!("{name:<32} {:>10.1} ns", nanoseconds(call));
        }
    };

    measure("address, IPv4", &mut || {
        black_box(address::is_special(black_box(IpAddr::from([104, 16, 99, 215]))));
    });
    let v6 = IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0x6810, 0x63d7));
    measure("address, IPv6", &mut || {
        black_box(address::is_special(black_box(v6)));
    });
    let answer = b"HTTP/1.1 307 Temporary Redirect\r\nServer: nginx\r\nContent-Length: 0\r\n\
                   Docker-Distribution-Api-Version: registry/2.0\r\nLocation: /blobs/x\r\n\r\n";
    measure("answer", &mut || {
        black_box(answer::field(black_box(answer), "Location"));
    });
    measure("authority", &mut || {
        black_box(authority::is_valid(black_box(b"mirror.example.com:5000")));
    });

    let chunked = [b"400\r\n".as_slice(), &[b'x'; 1024], b"\r\n0\r\n\r\n"].concat();
    measure("body, a chunk of 1 kB", &mut || {
        black_box(body::read(Framing::Chunked, black_box(&chunked)));
    });
    let tiny = [b"1\r\nx\r\n".repeat(200), b"0\r\n\r\n".to_vec()].concat();
    measure("body, 200 chunks of 1 byte", &mut || {
        black_box(body::read(Framing::Chunked, black_box(&tiny)));
    });

    let mut records = Records::default();
    measure("breaker", &mut || {
        black_box(breaker::decide(black_box(&mut records), Class::ManifestGet, 10, 1));
    });

    let id = cdn_loop::id(b"mirror", b"/etc/nginx");
    let line = b"cloudflare; subreqs=1, docker-mirror-0123456789abcdef";
    measure("cdn_loop", &mut || {
        black_box(cdn_loop::count([black_box(line.as_slice())].into_iter(), &id));
    });

    for (name, header) in [("challenge", CHALLENGE), ("challenge, three", CHALLENGES)] {
        measure(name, &mut || {
            let _ = black_box(challenge::rewrite_realm(
                black_box(header),
                b"https://mirror.example.com:5000",
            ));
        });
    }

    let args = ["on", "hops=3", "allow=.docker.com", "allow=a.example:8443", "private=10.0.0.0/8"];
    measure("directive", &mut || {
        let _ = black_box(directive::follow_redirect(black_box(&args)));
    });
    measure("error", &mut || {
        let message = "registry-1.docker.io: redirects to this address are not allowed";
        black_box(error::body(error::Code::of(502, b""), black_box(message)));
    });

    let manifest = b"/v2/library/alpine/manifests/3.20?ns=docker.io";
    measure("kind, manifest", &mut || {
        black_box(Kind::of(b"GET", black_box(manifest)));
    });
    let blob = b"/v2/library/alpine/blobs/sha256:\
                 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    measure("kind, blob", &mut || {
        black_box(Kind::of(b"GET", black_box(blob)));
    });
    measure("limit", &mut || {
        let text = black_box(b"Too Many Requests (HAP429).".as_slice());
        black_box(Limit::of(Class::ManifestGet, b"text/plain", text));
    });

    let Ok(base) = Url::parse(b"https://registry-1.docker.io/v2/library/alpine/manifests/3") else {
        return;
    };
    for (name, location) in [("location, signed URL", SIGNED), ("location, relative", RELATIVE)] {
        measure(name, &mut || {
            let _ = black_box(base.join(black_box(location)));
        });
    }

    let suffix = Policy {
        allow: [".docker.com", ".r2.cloudflarestorage.com"]
            .iter()
            .filter_map(|allow| Allow::parse(allow).ok())
            .collect(),
        ..Policy::default()
    };
    let regex = Policy {
        allow: Allow::parse(r"~.*\.r2\.cloudflarestorage\.com").into_iter().collect(),
        ..Policy::default()
    };
    let redirect =
        Redirect { status: 307, location: Some(SIGNED), base: &base, followed: 0, looped: false };
    for (name, policy) in [
        ("redirect", Policy::default()),
        ("redirect, two suffixes", suffix),
        ("redirect, regex", regex),
    ] {
        measure(name, &mut || {
            black_box(redirect::decide(black_box(&redirect), &policy));
        });
    }

    measure("owner", &mut || {
        black_box(Owner::of(Some(black_box(TOKEN))));
    });
    measure("rate_limit", &mut || {
        black_box(RateLimit::parse(black_box(b"100;w=21600")));
    });
    for (name, value) in
        [("retry_after, seconds", "60"), ("retry_after, date", "Sun, 06 Nov 1994 08:49:37 GMT")]
    {
        measure(name, &mut || {
            let lines = [black_box(value).as_bytes()].into_iter();
            black_box(retry_after::delay(lines, 784_111_700, 30_000, 3_600_000));
        });
    }

    measure("request, read", &mut || {
        black_box(Head::parse(black_box(HEAD)));
    });
    if let (Some(head), Ok(url)) = (Head::parse(HEAD), base.join(SIGNED)) {
        let carry = Carry::Public { authorization: None, via: &id };
        measure("request, written", &mut || {
            black_box(request::head("GET", &url, black_box(&carry), head.lines()));
        });
    }
    measure("fallback, kind of credentials", &mut || {
        let value = black_box(b"Bearer 0123456789abcdef".as_slice());
        assert_eq!(fallback::Authorization::of(Some(value)), Authorization::Bearer);
    });
    let mut registries = Registries::default();
    for name in [
        "docker.io",
        "ghcr.io",
        "quay.io",
        "gcr.io",
        "registry.k8s.io",
        "mcr.microsoft.com",
        "nvcr.io",
        "public.ecr.aws",
        "registry.gitlab.com",
        "docker.elastic.co",
        "a.example",
        "b.example",
    ] {
        if let Some(registry) = Registry::named(name) {
            let _ = registries.add(registry);
        }
    }
    let prefixed = b"/v2/b.example/owner/image/manifests/latest".as_slice();
    let named = b"/v2/library/alpine/manifests/latest?ns=docker.io".as_slice();
    for (name, uri) in [("registry, by prefix", prefixed), ("registry, by namespace", named)] {
        measure(name, &mut || {
            let _ = black_box(registries.route(black_box(uri), Some(b"mirror.example.com")));
        });
    }
    let key = Key::new([1; Key::LENGTH]);
    let ticket = Ticket::Realm {
        registry: "docker.io".to_owned(),
        realm: "https://auth.docker.io/token".to_owned(),
        service: Some("registry.docker.io".to_owned()),
        for_all: false,
    };
    measure("ticket, sealed", &mut || {
        black_box(black_box(&ticket).seal(&key));
    });
    let sealed = ticket.seal(&key);
    measure("ticket, opened", &mut || {
        black_box(Ticket::open(black_box(&sealed), &key));
    });
    measure("resolv", &mut || {
        let text = "# made by dhcpcd\nsearch example.com\nnameserver 192.0.2.1\nnameserver ::1\n";
        black_box(resolv::name_servers(black_box(text)));
    });
}

/// The median of several rounds, each of as many calls as fill its time.
fn nanoseconds(call: &mut dyn FnMut()) -> f64 {
    let mut calls = 1_u32;
    while round(call, calls) < ROUND {
        calls *= 2;
    }
    let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| round(call, calls)).collect();
    rounds.sort_unstable();
    let median = rounds.get(ROUNDS / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1e9 / f64::from(calls)
}

fn round(call: &mut dyn FnMut(), calls: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed()
}
