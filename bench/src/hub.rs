//! Docker Hub as nginx plays it: a registry that redirects blobs, and a CDN that has them.
//!
//! The stand-in of the tests counts and checks more; this one is faster than any mirror before it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use rules::digest::{Digest, Sha256};
use support::{CLOUDFRONT, Dns, Hub, Nginx, REGISTRY};

/// What a client knows of the registry that is asked.
const TOKEN_LENGTH: usize = 1_200;
/// A signed URL of the CDN has a query of about this length.
const SIGNATURE_LENGTH: usize = 420;

/// The size of a blob whose rest the CDN sends by a new signature only.
pub(crate) const EXPIRING: u64 = (1 << 20) + 1;

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111","size":7023},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:2222222222222222222222222222222222222222222222222222222222222222","size":32654},{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:3333333333333333333333333333333333333333333333333333333333333333","size":16724}]}"#;

/// Both hosts in one nginx with one worker, their names in DNS, and a network of their own.
pub(crate) struct Origin {
    dns: Option<Hub>,
    nginx: Nginx,
    network: [u8; 3],
}

/// Connections that brought at least one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Handshakes {
    pub(crate) registry: usize,
    pub(crate) cdn: usize,
    /// Of both, those that resumed a TLS session.
    pub(crate) resumed: usize,
}

impl Handshakes {
    pub(crate) fn all(self) -> usize {
        self.registry + self.cdn
    }
}

impl std::ops::Sub for Handshakes {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            registry: self.registry - earlier.registry,
            cdn: self.cdn - earlier.cdn,
            resumed: self.resumed - earlier.resumed,
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // The hub waits for its own runtime, which may not happen inside of another.
        let dns = self.dns.take();
        let _ = std::thread::spawn(move || drop(dns)).join();
    }
}

impl Origin {
    fn dns(&self) -> &Hub {
        self.dns.as_ref().expect("the hub runs until the origin is dropped")
    }

    /// Starts both hosts with blobs of these sizes in bytes.
    pub(crate) fn start(sizes: &[u64]) -> Self {
        let dns = Hub::start();
        let network = dns.address(REGISTRY).octets();
        let network = [network[0], network[1], network[2]];
        let certificate = |name: &str| {
            let (certificate, key) = dns.authority().issue(&[name]);
            format!(
                "ssl_certificate {};\nssl_certificate_key {};",
                certificate.display(),
                key.display()
            )
        };
        let registry = address(network, Host::Registry);
        let cdn = address(network, Host::Cdn);
        let http = format!(
            r#"
            ssl_protocols TLSv1.3;
            ssl_session_cache shared:sessions:10m;
            keepalive_requests 10000000;
            keepalive_timeout 1h;
            reset_timedout_connection on;
            open_file_cache max=64 inactive=1h;
            output_buffers 2 128k;
            map $connection_requests $is_first {{ default ""; 1 1; }}
            map $request_method $is_counted {{ default ""; GET 1; }}
            map $http_range $fresh {{ default ""; "~." "&Fresh=1"; }}
            map $host $third {{ default '{third}'; }}
            map $arg_Fresh$http_range $has_expired {{ default ""; "~^bytes" 1; }}
            log_format handshake "$server_name $ssl_session_reused";
            access_log %prefix%/handshakes.log handshake if=$is_first;

            server {{
                listen {registry}:443 ssl backlog=4096;
                listen {registry}:80 backlog=4096;
                server_name {REGISTRY};
                {registry_certificate}
                if ($http_authorization = "") {{ return 401; }}
                location /v2/library/app/blobs/ {{
                    rewrite ^/v2/library/app/blobs/sha256:(.*)$ /registry-v2/$1/data;
                }}
                location /registry-v2/ {{
                    return 307 $scheme://{CLOUDFRONT}$uri?{query}$fresh;
                }}
                location = /v2/library/app/manifests/latest {{
                    default_type application/vnd.oci.image.manifest.v1+json;
                    add_header Docker-Content-Digest {digest};
                    access_log %prefix%/handshakes.log handshake if=$is_first;
                    access_log %prefix%/counted.log handshake if=$is_counted;
                    add_header Docker-Distribution-Api-Version registry/2.0;
                    return 200 '{MANIFEST}';
                }}
                location = /v2/library/app/manifests/index {{
                    default_type application/vnd.oci.image.index.v1+json;
                    add_header Docker-Content-Digest {index_digest};
                    add_header Docker-Distribution-Api-Version registry/2.0;
                    return 200 '$third$third$third';
                }}
            }}
            server {{
                listen {cdn}:443 ssl backlog=4096;
                listen {cdn}:80 backlog=4096;
                server_name {CLOUDFRONT};
                {cdn_certificate}
                # As storage behind signed URLs does.
                if ($http_authorization) {{ return 400; }}
                default_type application/octet-stream;
                root %prefix%;
                location /registry-v2/{expiring}/ {{
                    if ($has_expired) {{ return 403; }}
                }}
            }}
            "#,
            registry_certificate = certificate(REGISTRY),
            cdn_certificate = certificate(CLOUDFRONT),
            query = query(),
            expiring = digest(EXPIRING),
            digest = Digest::of(MANIFEST.as_bytes()),
            third = index_third(),
            index_digest = Digest::of(index_third().repeat(3).as_bytes()),
        );
        let nginx = Nginx::builder()
            .without_module()
            .log_level("warn")
            .main("worker_rlimit_nofile 16384;\nevents { worker_connections 8192; }")
            .http(&http)
            .start();
        for size in sizes {
            let directory = nginx.prefix().join("registry-v2").join(digest(*size));
            std::fs::create_dir_all(&directory).expect("a directory");
            let mut file = File::create(directory.join("data")).expect("a file");
            for piece in pieces(*size) {
                file.write_all(&piece).expect("a file written");
            }
        }
        let origin = Self { dns: Some(dns), nginx, network };
        origin.nearby();
        origin
    }

    /// DNS names the hosts themselves.
    pub(crate) fn nearby(&self) {
        for (name, host) in [(CLOUDFRONT, Host::Cdn), (REGISTRY, Host::Registry)] {
            let address = address(self.network, host);
            self.dns().resolve(name, Dns::Addresses(vec![address.into()]));
        }
    }

    /// DNS names the far ends of delay lines.
    pub(crate) fn far(&self) {
        let cdn = address(self.network, Host::FarCdn);
        self.dns().resolve(CLOUDFRONT, Dns::Addresses(vec![cdn.into()]));
    }

    pub(crate) fn address(&self, host: Host) -> Ipv4Addr {
        address(self.network, host)
    }

    pub(crate) fn socket(&self, host: Host, port: u16) -> SocketAddr {
        (self.address(host), port).into()
    }

    pub(crate) fn resolver(&self) -> String {
        self.dns().resolver()
    }

    pub(crate) fn ca_file(&self) -> std::path::PathBuf {
        self.dns().ca_file()
    }

    /// The network of the hosts, as `private=` wants it.
    pub(crate) fn network(&self) -> String {
        self.dns().network()
    }

    /// GETs of the manifest so far, which Docker Hub counts.
    pub(crate) fn counted(&self) -> usize {
        let path = self.nginx.prefix().join("counted.log");
        std::fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    /// Handshakes so far.
    pub(crate) fn handshakes(&self) -> Handshakes {
        let path = self.nginx.prefix().join("handshakes.log");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        let resumed = text.lines().filter(|line| line.ends_with(" r")).count();
        Handshakes { registry: of(REGISTRY), cdn: of(CLOUDFRONT), resumed }
    }
}

/// Who has an address.
#[derive(Clone, Copy)]
pub(crate) enum Host {
    Registry,
    Cdn,
    /// The end of a delay line that leads to the registry.
    FarRegistry,
    FarCdn,
}

fn address([a, b, c]: [u8; 3], host: Host) -> Ipv4Addr {
    let last = match host {
        Host::Registry => 201,
        Host::Cdn => 202,
        Host::FarRegistry => 211,
        Host::FarCdn => 212,
    };
    Ipv4Addr::new(a, b, c, last)
}

/// What blobs are made of.
fn pieces(size: u64) -> impl Iterator<Item = Vec<u8>> {
    let piece: Vec<u8> = (0..64 * 1024_u32).map(|n| ((n * 193) >> 3) as u8).collect();
    let mut left = usize::try_from(size).expect("a size");
    std::iter::from_fn(move || {
        let part = piece.get(..left).unwrap_or(&piece).to_vec();
        left -= part.len();
        (!part.is_empty()).then_some(part)
    })
}

/// The digits of the digest of the blob of this size.
fn digest(size: u64) -> String {
    static KNOWN: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("nobody panics with it");
    let digits = known.entry(size).or_insert_with(|| {
        let mut hash = Sha256::default();
        pieces(size).for_each(|piece| hash.update(&piece));
        hash.finish().to_string().replace("sha256:", "")
    });
    digits.clone()
}

fn query() -> String {
    format!(
        "Expires=1790000000&Signature={}&Key-Pair-Id=K1A2B3",
        "a~B-9".repeat(SIGNATURE_LENGTH / 5)
    )
}

/// The path of a blob at the registry.
pub(crate) fn blob(size: u64) -> String {
    format!("/v2/library/app/blobs/sha256:{}", digest(size))
}

/// The path of a blob at the CDN, signed.
pub(crate) fn signed(size: u64) -> String {
    format!("/registry-v2/{}/data?{}", digest(size), query())
}

/// A request as docker sends it.
pub(crate) fn request(path: &str, host: &str) -> Vec<u8> {
    let token = "eyJhbGciOiJFUzI1NiI.".repeat(TOKEN_LENGTH / 20);
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: docker/27.0 go/go1.21 (linux)\r\n\
         Authorization: Bearer {token}\r\nAccept-Encoding: identity\r\n\r\n"
    )
    .into_bytes()
}

/// The same, as it goes to a CDN.
pub(crate) fn request_without_token(path: &str, host: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: docker/27.0\r\n\r\n").into_bytes()
}

/// The path of a manifest at the registry.
pub(crate) fn manifest() -> String {
    "/v2/library/app/manifests/latest".to_owned()
}

/// How long it is, in bytes.
pub(crate) fn manifest_size() -> u64 {
    MANIFEST.len() as u64
}

/// The path of an index of about ten kilobytes, such as Docker Hub's official images have.
pub(crate) fn index() -> String {
    "/v2/library/app/manifests/index".to_owned()
}

pub(crate) fn index_size() -> u64 {
    3 * index_third().len() as u64
}

/// nginx reads no longer words. What is in an index is nobody's concern here.
fn index_third() -> String {
    MANIFEST.repeat(6)
}
