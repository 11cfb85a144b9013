//! A stand-in for Docker Hub: registry, token server, search index and CDN hosts.
//!
//! Every host has a loopback address of its own, on which it listens at port 443 (TLS) and port 80,
//! and a name that the hub's DNS responder knows. What a host answers when no fault is on is in
//! `registry.rs`; requests are kept as they came.

mod dns;
mod exchange;
mod fault;
mod registry;
mod server;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, JoinHandle};

pub use self::dns::Dns;
use self::dns::{Bound, Responder};
pub(crate) use self::exchange::fields;
pub use self::exchange::{End, Recorded, Reply, Response, Shape, Step};
pub use self::fault::Fault;
pub use self::registry::Image;
use self::registry::Registry;
use self::server::Protocol;
use crate::tls::Authority;
use crate::wait::{until, wait_for};

/// The registry's host.
pub const REGISTRY: &str = "registry-1.docker.io";
/// The token server's host.
pub const AUTH: &str = "auth.docker.io";
/// The search index's host.
pub const INDEX: &str = "index.docker.io";
/// The CDN host to which blobs are redirected unless `Hub::use_cdn` says otherwise.
pub const CLOUDFLARE: &str = "production.cloudflare.docker.com";
/// A second CDN host, with another form of signature.
pub const CLOUDFRONT: &str = "production.cloudfront.docker.com";
/// A third one; its signature covers the method, as S3's does.
pub const R2: &str = "docker-images-prod.0123456789abcdef.r2.cloudflarestorage.com";

const TTL: u32 = 60;

/// What a host is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Docker Hub's registry: asks for a token, redirects blobs to the CDN.
    Registry,
    /// The token server.
    Auth,
    /// The search index.
    Index,
    /// Serves blobs whose URL is signed.
    Cdn,
    /// Another mirror: the same images without authentication, blobs without a redirect, tokens at
    /// `/token`. Says `X-Served-By: name`.
    Mirror,
    /// Answers 200 with host, method and target as text.
    Blank,
}

/// A host's certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certificate {
    /// Good for the host's name and address, issued by the hub's authority.
    Good,
    /// Issued for another name.
    WrongName,
    /// Issued by an authority that nobody knows.
    UnknownAuthority,
    /// No longer valid.
    Expired,
}

/// What a host has seen since the start or the last `Hub::forget`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Full TLS handshakes.
    pub full: u64,
    /// Resumed TLS handshakes.
    pub resumed: u64,
    /// Failed TLS handshakes.
    pub failed: u64,
    /// Requests.
    pub requests: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    open: AtomicU64,
    full: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
    requests: AtomicU64,
}

type Route = Arc<dyn Fn(&Recorded) -> Reply + Send + Sync>;

/// Answers requests whose target begins with a prefix, for so many times.
struct Rule {
    prefix: String,
    left: Option<u64>,
    route: Route,
}

struct Port {
    address: SocketAddr,
    protocol: Protocol,
    task: Option<JoinHandle<()>>,
    /// A listening socket whose queue is full, and what fills it.
    hole: Option<(Socket, Vec<Socket>)>,
}

/// One host of the hub.
struct Host {
    name: String,
    kind: Kind,
    address: Ipv4Addr,
    rules: Mutex<Vec<Rule>>,
    requests: Mutex<Vec<Recorded>>,
    counters: Counters,
    tls: Mutex<Arc<ServerConfig>>,
    ports: Mutex<Vec<Port>>,
    connections: Mutex<Vec<AbortHandle>>,
    /// What the next TLS connections get instead of a handshake.
    spoiled: Mutex<Vec<Vec<u8>>>,
}

/// What the hosts share.
struct Shared {
    registry: Mutex<Registry>,
    connection: AtomicU64,
    record: AtomicBool,
}

impl Shared {
    fn answer(&self, host: &Host, request: &Recorded) -> Vec<Step> {
        host.counters.requests.fetch_add(1, Ordering::Relaxed);
        if self.record.load(Ordering::Relaxed) {
            host.requests.lock().unwrap().push(request.clone());
        }
        let normal = || self.registry.lock().unwrap().respond(host.kind, request);
        match host.overruled(request) {
            Reply::Normal => normal().steps(request),
            Reply::Shaped(shape) => normal().shape(shape).steps(request),
            Reply::Response(response) => response.steps(request),
            Reply::Raw(steps) => steps,
        }
    }
}

impl Host {
    /// The answer of the youngest rule that has one.
    fn overruled(&self, request: &Recorded) -> Reply {
        let routes: Vec<Route> = {
            let rules = self.rules.lock().unwrap();
            let matching = rules
                .iter()
                .filter(|rule| rule.left != Some(0) && request.uri.starts_with(&rule.prefix));
            matching.rev().map(|rule| Arc::clone(&rule.route)).collect()
        };
        for route in routes {
            let reply = route(request);
            if !matches!(reply, Reply::Normal) {
                let mut rules = self.rules.lock().unwrap();
                if let Some(Rule { left: Some(left), .. }) =
                    rules.iter_mut().find(|rule| Arc::ptr_eq(&rule.route, &route))
                {
                    *left = left.saturating_sub(1);
                }
                return reply;
            }
        }
        Reply::Normal
    }

    fn open(self: &Arc<Self>, shared: &Arc<Shared>, port: &mut Port, mute: bool) {
        let listener = bind(port.address);
        let listener = TcpListener::from_std(listener).expect("a listener for the runtime");
        let protocol = if mute { Protocol::Mute } else { port.protocol };
        let serve = server::accept(Arc::clone(shared), Arc::clone(self), listener, protocol);
        port.task = Some(tokio::spawn(serve));
    }

    fn close(&self) {
        let mut ports = self.ports.lock().unwrap();
        for port in ports.iter_mut() {
            port.hole = None;
            if let Some(task) = port.task.take() {
                task.abort();
                wait_for("a listener to close", || task.is_finished());
            }
        }
    }

    fn disconnect(&self) {
        for task in self.connections.lock().unwrap().drain(..) {
            task.abort();
        }
        let open = &self.counters.open;
        wait_for("connections to close", || open.load(Ordering::Relaxed) == 0);
    }
}

/// Docker Hub on loopback addresses. Dropping it closes everything.
pub struct Hub {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    responder: Arc<Responder>,
    authority: Authority,
    stranger: Authority,
    network: [u8; 3],
    next: AtomicU16,
}

impl Hub {
    /// Starts a hub with the hosts of Docker Hub and two CDNs, and nothing in the registry.
    ///
    /// # Panics
    ///
    /// When ports 53, 80 and 443 of loopback addresses cannot be bound: tests run as root, and
    /// nothing else may listen on these ports of all addresses.
    #[must_use]
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("hub")
            .enable_all()
            .build()
            .expect("a runtime");
        let (network, bound) = free_network();
        let responder = {
            let _inside = runtime.enter();
            bound.serve().expect("a DNS responder")
        };
        let authority = Authority::new("Hub Test CA");
        let identity = authority.identity(&[AUTH], false);
        let hub = Self {
            runtime: Some(runtime),
            shared: Arc::new(Shared {
                registry: Mutex::new(Registry::new(&identity)),
                connection: AtomicU64::new(1),
                record: AtomicBool::new(true),
            }),
            hosts: Mutex::new(HashMap::new()),
            responder,
            authority,
            stranger: Authority::new("Unknown CA"),
            network,
            next: AtomicU16::new(2),
        };
        for (name, kind) in [
            (REGISTRY, Kind::Registry),
            (AUTH, Kind::Auth),
            (INDEX, Kind::Index),
            (CLOUDFLARE, Kind::Cdn),
            (CLOUDFRONT, Kind::Cdn),
            (R2, Kind::Cdn),
        ] {
            hub.add_host_as(name, kind);
        }
        hub
    }

    /// The certificate of the hub's authority, PEM.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.authority.ca_file()
    }

    /// The hub's authority, to issue further certificates.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Address and port of the DNS responder, as nginx's `resolver` wants it.
    #[must_use]
    pub fn resolver(&self) -> String {
        self.responder.address().to_string()
    }

    /// The network in which all hosts are, as `private=` wants it.
    #[must_use]
    pub fn network(&self) -> String {
        let [a, b, c] = self.network;
        format!("{a}.{b}.{c}.0/24")
    }

    /// What an nginx before this hub wants in its `http` block: resolver, TLS settings that trust
    /// the hub, and an `upstream` block with kept connections for each host of Docker Hub, so that
    /// `proxy_pass https://registry-1.docker.io` leads here.
    #[must_use]
    pub fn http_conf(&self) -> String {
        let mut text = format!(
            "resolver {};\n\
             proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\";\n\
             proxy_ssl_server_name on;\n\
             proxy_ssl_verify on;\n\
             proxy_ssl_trusted_certificate {};\n",
            self.resolver(),
            self.ca_file().display()
        );
        for name in [REGISTRY, AUTH, INDEX] {
            let address = self.address(name);
            text.push_str(&format!(
                "upstream {name} {{ server {address}:443; keepalive 16; keepalive_timeout 5s; }}\n"
            ));
        }
        text
    }

    /// The address of a host.
    #[must_use]
    pub fn address(&self, host: &str) -> Ipv4Addr {
        self.host(host).address
    }

    /// Names of all hosts with their addresses, sorted.
    #[must_use]
    pub fn hosts(&self) -> Vec<(String, Ipv4Addr)> {
        let hosts = self.hosts.lock().unwrap();
        let mut hosts: Vec<_> =
            hosts.values().map(|host| (host.name.clone(), host.address)).collect();
        hosts.sort();
        hosts
    }

    /// Starts a hub that asks for no token, with the image `library/x:latest` and these further
    /// mirrors of it.
    ///
    /// # Panics
    ///
    /// As [`Hub::start`].
    #[must_use]
    pub fn with_mirrors(mirrors: &[&str]) -> Self {
        let hub = Self::start();
        hub.authentication(false);
        hub.add_image("library/x", "latest", &[b"x"]);
        for mirror in mirrors {
            hub.add_host(mirror);
        }
        hub
    }

    /// Adds a [`Kind::Mirror`] with listeners at ports 443 and 80, known to DNS.
    pub fn add_host(&self, name: &str) -> Ipv4Addr {
        self.add_host_as(name, Kind::Mirror)
    }

    /// Adds a host with listeners at ports 443 and 80, known to DNS.
    pub fn add_host_as(&self, name: &str, kind: Kind) -> Ipv4Addr {
        let address = self.free_address(name);
        let host = Arc::new(Host {
            name: name.to_owned(),
            kind,
            address,
            rules: Mutex::new(Vec::new()),
            requests: Mutex::new(Vec::new()),
            counters: Counters::default(),
            tls: Mutex::new(self.server_config(name, address, Certificate::Good, false)),
            ports: Mutex::new(Vec::new()),
            connections: Mutex::new(Vec::new()),
            spoiled: Mutex::new(Vec::new()),
        });
        self.hosts.lock().unwrap().insert(name.to_owned(), host);
        self.listen_at(name, (address, 443).into(), true);
        self.listen_at(name, (address, 80).into(), false);
        address
    }

    /// An address of the hub's network that nobody has, known to DNS by this name.
    pub fn free_address(&self, name: &str) -> Ipv4Addr {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let number = u8::try_from(number).expect("at most 254 hosts");
        let [a, b, c] = self.network;
        let address = Ipv4Addr::new(a, b, c, number);
        self.resolve(name, Dns::Addresses(vec![address.into()]));
        address
    }

    /// Lets a host listen at a further port of its address.
    pub fn listen(&self, host: &str, port: u16, tls: bool) -> SocketAddr {
        self.listen_at(host, (self.address(host), port).into(), tls)
    }

    /// Lets a host listen at any address, e.g. `[::1]:443`, and returns it. Waits while another
    /// test has it.
    pub fn listen_at(&self, host: &str, address: SocketAddr, tls: bool) -> SocketAddr {
        let _inside = self.runtime().enter();
        let host = self.host(host);
        let protocol = if tls { Protocol::Tls } else { Protocol::Plain };
        let mut port = Port { address, protocol, task: None, hole: None };
        if address.port() == 0 {
            // The number must be known before `open` can bind it again after a `refuse`.
            port.address = bind(address).local_addr().expect("a bound address");
        }
        host.open(&self.shared, &mut port, false);
        let address = port.address;
        host.ports.lock().unwrap().push(port);
        address
    }

    /// What DNS answers for a name, with a TTL of one minute.
    pub fn resolve(&self, name: &str, answer: Dns) {
        self.resolve_for(name, answer, TTL);
    }

    /// What DNS answers for a name, with this TTL in seconds.
    pub fn resolve_for(&self, name: &str, answer: Dns, ttl: u32) {
        self.responder.set(name, answer, ttl);
    }

    /// DNS answers these addresses for a name.
    ///
    /// # Panics
    ///
    /// When one of them is no IP address.
    pub fn resolve_to(&self, name: &str, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .map(|address| address.parse().unwrap_or_else(|_| panic!("no address: {address}")))
            .collect();
        self.resolve(name, Dns::Addresses(addresses));
    }

    /// How often DNS was asked for a name, A and AAAA counted apart.
    #[must_use]
    pub fn queries(&self, name: &str) -> usize {
        self.responder.queries(name)
    }

    /// Switches a fault on for all requests to a host whose target begins with `prefix`; the fault
    /// that was switched on last wins.
    pub fn on(&self, host: &str, prefix: &str, fault: Fault) {
        self.rule(host, prefix, None, Arc::new(move |_| fault.reply()));
    }

    /// Switches a fault on for so many requests.
    pub fn on_times(&self, host: &str, prefix: &str, times: u64, fault: Fault) {
        self.rule(host, prefix, Some(times), Arc::new(move |_| fault.reply()));
    }

    /// Lets a function answer; when it returns [`Reply::Normal`] an older one or the host does. It
    /// runs on the hub's threads: it must not block, nor call `refuse`, `accept` and the like.
    pub fn route(&self, host: &str, route: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) {
        self.rule(host, "", None, Arc::new(route));
    }

    fn rule(&self, host: &str, prefix: &str, left: Option<u64>, route: Route) {
        let rule = Rule { prefix: prefix.to_owned(), left, route };
        self.host(host).rules.lock().unwrap().push(rule);
    }

    /// Switches off all faults and functions of a host.
    pub fn off(&self, host: &str) {
        self.host(host).rules.lock().unwrap().clear();
    }

    /// A chain of `hops` redirects, beginning at the path that is returned on `hosts[0]` and going
    /// round `hosts`; the last one leads to `last`, byte for byte. With one host the redirects
    /// between are relative, with several absolute over https.
    pub fn chain(&self, hosts: &[&str], hops: usize, status: u16, last: &str) -> String {
        static CHAIN: AtomicU64 = AtomicU64::new(1);
        let path = format!("/v2/chain/{}", CHAIN.fetch_add(1, Ordering::Relaxed));
        for hop in 0..hops {
            let next = hosts[(hop + 1) % hosts.len()];
            let location = match (hop + 1 == hops, hosts.len()) {
                (true, _) => last.to_owned(),
                (false, 1) => format!("{path}/{}", hop + 1),
                (false, _) => format!("https://{next}{path}/{}", hop + 1),
            };
            let fault = Fault::redirect(status, location);
            self.on(hosts[hop % hosts.len()], &format!("{path}/{hop}"), fault);
        }
        format!("{path}/0")
    }

    /// Chooses a host's certificate for connections to come.
    pub fn certificate(&self, host: &str, certificate: Certificate) {
        let host = self.host(host);
        let config = self.server_config(&host.name, host.address, certificate, false);
        *host.tls.lock().unwrap() = config;
    }

    /// Lets a host ask for a client certificate; [`Recorded::client_certificate`] tells whether
    /// one came.
    pub fn ask_client_certificate(&self, host: &str) {
        let host = self.host(host);
        let config = self.server_config(&host.name, host.address, Certificate::Good, true);
        *host.tls.lock().unwrap() = config;
    }

    fn server_config(
        &self,
        name: &str,
        address: Ipv4Addr,
        certificate: Certificate,
        ask_client: bool,
    ) -> Arc<ServerConfig> {
        let address = address.to_string();
        let mut names = vec![name, address.as_str(), "::1"];
        if certificate == Certificate::WrongName {
            names = vec!["wrong.name.example"];
        }
        let authority = match certificate {
            Certificate::UnknownAuthority => &self.stranger,
            _ => &self.authority,
        };
        let identity = authority.identity(&names, certificate == Certificate::Expired);
        authority.server(&identity, ask_client)
    }

    /// Closes a host's listeners, so that connecting is refused, and its connections.
    pub fn refuse(&self, host: &str) {
        let host = self.host(host);
        host.close();
        host.disconnect();
    }

    /// From now on, connections to a host are accepted and nothing else: no TLS handshake, no
    /// answer. Closes the connections there are.
    pub fn mute(&self, host: &str) {
        self.refuse(host);
        self.reopen(host, true);
    }

    /// From now on, connecting to a host is neither accepted nor refused. Closes the connections
    /// there are.
    pub fn blackhole(&self, host: &str) {
        self.refuse(host);
        let host = self.host(host);
        for port in host.ports.lock().unwrap().iter_mut() {
            port.hole = Some(blackhole(port.address));
        }
    }

    /// Ends `refuse`, `mute` and `blackhole`.
    pub fn accept(&self, host: &str) {
        self.refuse(host);
        self.reopen(host, false);
    }

    fn reopen(&self, host: &str, mute: bool) {
        let _inside = self.runtime().enter();
        let host = self.host(host);
        for port in host.ports.lock().unwrap().iter_mut() {
            host.open(&self.shared, port, mute);
        }
    }

    /// Closes the connections of a host, not its listeners.
    pub fn disconnect(&self, host: &str) {
        self.host(host).disconnect();
    }

    /// Drops the connections of a host wherever they are, and does not wait for it.
    pub fn hang_up(&self, host: &str) {
        for task in self.host(host).connections.lock().unwrap().drain(..) {
            task.abort();
        }
    }

    /// The next TLS connection to a host gets these bytes, and its end, instead of a handshake.
    pub fn spoil_handshake(&self, host: &str, bytes: &[u8]) {
        self.host(host).spoiled.lock().unwrap().push(bytes.to_vec());
    }

    /// What a host has seen.
    #[must_use]
    pub fn counts(&self, host: &str) -> Counts {
        let host = self.host(host);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections: count(&host.counters.connections),
            open: count(&host.counters.open),
            full: count(&host.counters.full),
            resumed: count(&host.counters.resumed),
            failed: count(&host.counters.failed),
            requests: count(&host.counters.requests),
        }
    }

    /// How many manifests the registry says that may be pulled; 100 by default.
    pub fn pull_limit(&self, manifests: u64) {
        self.registry(|registry| registry.limit = manifests);
    }

    /// Manifest requests that count against the pull limit; a HEAD does not.
    #[must_use]
    pub fn manifests_counted(&self) -> u64 {
        self.registry(|registry| registry.counted())
    }

    /// The requests that a host received, in order.
    #[must_use]
    pub fn requests(&self, host: &str) -> Vec<Recorded> {
        self.host(host).requests.lock().unwrap().clone()
    }

    /// The last request that a host received.
    ///
    /// # Panics
    ///
    /// When there was none.
    #[must_use]
    #[track_caller]
    pub fn last_request(&self, host: &str) -> Recorded {
        let last = self.host(host).requests.lock().unwrap().last().cloned();
        last.unwrap_or_else(|| panic!("{host} received no request"))
    }

    /// Keeps requests (the default) or does not: a load of many thousands needs no record.
    pub fn record(&self, on: bool) {
        self.shared.record.store(on, Ordering::Relaxed);
    }

    /// Switches off all faults and functions, forgets requests and counts. Certificates, listeners,
    /// DNS and the registry's contents stay.
    pub fn reset(&self) {
        for host in self.hosts.lock().unwrap().values() {
            host.rules.lock().unwrap().clear();
        }
        self.forget();
    }

    /// Forgets requests and counts; open connections are counted on.
    pub fn forget(&self) {
        for host in self.hosts.lock().unwrap().values() {
            host.requests.lock().unwrap().clear();
            let counters = &host.counters;
            for counter in [
                &counters.connections,
                &counters.full,
                &counters.resumed,
                &counters.failed,
                &counters.requests,
            ] {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Adds a blob to the registry; returns its digest, `sha256:...`.
    pub fn add_blob(&self, bytes: impl Into<Vec<u8>>) -> String {
        let bytes = Bytes::from(bytes.into());
        self.registry(|registry| registry.add_blob(bytes))
    }

    /// The blob of a digest.
    #[must_use]
    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.registry(|registry| registry.blob(digest)).map(|blob| blob.to_vec())
    }

    /// Adds a manifest under its digest and under `tag`; returns the digest.
    pub fn add_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> String {
        let body = Bytes::from(body.into());
        self.registry(|registry| registry.add_manifest(repository, Some(tag), media_type, body))
    }

    /// Adds an image for linux/amd64 and linux/arm64 with one layer for each of `files`, which
    /// holds it as `layer-0`, `layer-1` and so on.
    pub fn add_image(&self, repository: &str, tag: &str, files: &[&[u8]]) -> Image {
        self.registry(|registry| registry.add_image(repository, tag, files))
    }

    /// Only this user may pull from a repository.
    pub fn protect(&self, repository: &str, user: &str, password: &str) {
        self.registry(|registry| registry.protect(repository, user, password));
    }

    /// A token with which anybody may pull from a repository.
    #[must_use]
    pub fn token(&self, repository: &str) -> String {
        self.registry(|registry| registry.token("", &[repository]))
    }

    /// A token with which `user` may pull from `repository`.
    #[must_use]
    pub fn token_of(&self, user: &str, repository: &str) -> String {
        self.registry(|registry| registry.token(user, &[repository]))
    }

    /// From now on, a token is good for nothing.
    pub fn revoke(&self, token: &str) {
        self.registry(|registry| registry.revoke(token));
    }

    /// Whether the registry asks for tokens (the default).
    pub fn authentication(&self, on: bool) {
        self.registry(|registry| registry.authentication = on);
    }

    /// The registry's challenge up to its scope, which the registry appends for a repository; the
    /// default is `Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`.
    pub fn challenge(&self, challenge: &str) {
        self.registry(|registry| challenge.clone_into(&mut registry.challenge));
    }

    /// The CDN host to which blobs are redirected; it may be any [`Kind::Cdn`].
    pub fn use_cdn(&self, host: &str) {
        self.registry(|registry| host.clone_into(&mut registry.cdn));
    }

    /// The scheme with which blobs are redirected; by default the request's own.
    pub fn redirect_scheme(&self, scheme: &str) {
        self.registry(|registry| registry.scheme = Some(scheme.to_owned()));
    }

    /// Path and query under which a CDN host serves a blob to a method.
    #[must_use]
    pub fn signed(&self, cdn: &str, method: &str, digest: &str) -> String {
        let expires = registry::now() + 1200;
        self.registry(|registry| registry.signed(cdn, method, digest, expires))
    }

    fn registry<T>(&self, act: impl FnOnce(&mut Registry) -> T) -> T {
        act(&mut self.shared.registry.lock().unwrap())
    }

    #[track_caller]
    fn host(&self, name: &str) -> Arc<Host> {
        let host = self.hosts.lock().unwrap().get(name).cloned();
        host.unwrap_or_else(|| panic!("the hub has no host {name}"))
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("a runtime, until the hub is dropped")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

/// A network 127.x.y.0/24 that no other hub uses: whoever holds its DNS port has it.
fn free_network() -> ([u8; 3], Bound) {
    static INSTANCE: AtomicU16 = AtomicU16::new(0);
    let mut problem = None;
    for _ in 0..2000 {
        let seed = std::process::id().wrapping_mul(7919)
            + 131 * u32::from(INSTANCE.fetch_add(1, Ordering::Relaxed));
        // 127.64.0.0 to 127.191.255.0: clear of what systems put into 127.0.0.0/16.
        let [_, high, low] = [0, 64 + (seed >> 8) % 128, seed % 256];
        let network = [127, u8::try_from(high).unwrap(), u8::try_from(low).unwrap()];
        match Bound::new(Ipv4Addr::new(network[0], network[1], network[2], 1)) {
            Ok(bound) => return (network, bound),
            Err(error) => problem = Some(error),
        }
    }
    panic!("no free network in 127.0.0.0/8 (are you root?): {problem:?}");
}

/// Listens at an address; waits for it while another test has it.
fn bind(address: SocketAddr) -> StdTcpListener {
    listen(address, 4096).into()
}

fn listen(address: SocketAddr, backlog: i32) -> Socket {
    // Addresses of the hub's own network are its own, but a process that another test is starting
    // holds a copy of a closed listener until it runs its program.
    let shared = address.ip() == IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
    let patience = Duration::from_secs(if shared { 30 } else { 2 });
    let mut problem = None;
    let mut bound = None;
    until(patience, || match try_bind(address, backlog) {
        Ok(socket) => {
            bound = Some(socket);
            true
        }
        Err(error) => {
            let taken = error.kind() == std::io::ErrorKind::AddrInUse;
            problem = Some(error);
            !taken
        }
    });
    bound.unwrap_or_else(|| {
        panic!("cannot listen on {address} (tests run as root; is the port taken?): {problem:?}")
    })
}

fn try_bind(address: SocketAddr, backlog: i32) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// A listening socket whose queue is full: the kernel drops further SYNs.
fn blackhole(address: SocketAddr) -> (Socket, Vec<Socket>) {
    let listener = listen(address, 0);
    let mut fill = Vec::new();
    loop {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        let connected = socket.connect_timeout(&address.into(), Duration::from_millis(100));
        if connected.is_err() {
            return (listener, fill);
        }
        fill.push(socket);
        assert!(fill.len() < 64, "the queue of {address} does not fill");
    }
}
