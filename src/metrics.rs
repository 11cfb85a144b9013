//! What the status page counts, in the first `docker_zone`.
//!
//! Each worker finds a counter once, and then counts without the mutex. Whatever names come from
//! outside, hosts above all, have so many counters and no more; the rest share one.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use rules::digest::Key;
use rules::kind::{self, Kind};
use rules::metrics::{self, BUCKETS, OTHER, is_label, series};

use crate::conf::LocConf;
use crate::ctx::{Relation, RequestCtx};
use crate::manifest::Status;
use crate::module::Docker;
use crate::nginx::log::Level;
use crate::nginx::request::Request;
use crate::nginx::shm::{Counter, Member, Zone};
use crate::nginx::upstream::{Connection, Upstream};
use crate::resume::Download;
use crate::{breaker, origin};

/// Backends that have counters of their own.
const MAX_BACKENDS: usize = 64;
/// Hosts of redirects that have, and without a zone, that a worker remembers.
const MAX_HOSTS: usize = 64;

/// What begins so is not on the page, but what it is made of: the key of a backend's records, in
/// halves, and the parts of the histogram.
pub(crate) const BACKEND: [&str; 2] = ["=backend 0 ", "=backend 1 "];
pub(crate) const FIRST_BYTE: &str = "=first byte ";
pub(crate) const SUM: &str = "sum";

thread_local! {
    static FOUND: RefCell<Found> = RefCell::default();
}

/// The counters that this worker has found.
#[derive(Default)]
struct Found {
    backends: Vec<Backend>,
    /// Which of them a location's `proxy_pass` leads to, by its [`Upstream::fixed_settings`].
    settings: Vec<(usize, usize)>,
    /// The last one is of the sum.
    first_bytes: [[Slot; BUCKETS + 1]; KINDS],
    connections: [[Slot; 3]; ORIGINS.len()],
    manifests: [Slot; Status::NUMBER],
    gets_saved: Slot,
    redirects: HashMap<String, Counter>,
    /// Without a zone.
    hosts: HashSet<String>,
}

struct Backend {
    key: Key,
    name: String,
    counters: [[Slot; KINDS]; BY_BACKEND.len()],
}

/// A counter, if it was looked for and if the zone has room for it.
type Slot = Option<Option<Counter>>;

const KINDS: usize = Kind::ALL.len();

/// What is counted by backend and kind.
const BY_BACKEND: [&str; 3] =
    ["docker_requests_total", "docker_body_bytes_total", "docker_upstream_requests_total"];
const REQUESTS: usize = 0;
const BYTES: usize = 1;
const ASKED: usize = 2;

/// What connections are for.
const ORIGINS: [&str; 3] = ["upstream", "redirect", "fallback"];

/// nginx itself, as a backend: it answers from what it keeps, or with an error.
const NGINX: Key = Key([0, 0]);
/// All that are not told apart.
const OTHERS: Key = Key([0, 1]);

/// Forgets where counters are; when a configuration ends.
pub(crate) fn flush() {
    FOUND.with_borrow_mut(|found| *found = Found::default());
}

/// Where things are counted: only if there is a page that shows them.
fn zone(r: Request<'_>) -> Option<Zone> {
    let main = r.main_conf::<Docker>();
    main.zone().filter(|_| main.has_status)
}

fn add(counter: Option<Counter>, number: u64) {
    if let Some(counter) = counter {
        counter.add(number);
    }
}

/// Adds to the counter of `slot`, which has this name.
fn count(slot: Option<&mut Slot>, zone: Zone, number: u64, name: impl FnOnce() -> String) {
    if let Some(slot) = slot {
        add(*slot.get_or_insert_with(|| zone.counter(&name())), number);
    }
}

/// The primary's upstream that was counted when it was asked.
#[derive(Clone, Copy)]
pub(crate) struct Counted {
    /// See `Upstream::id`.
    upstream: usize,
    kind: Kind,
}

/// A backend that the configuration does not name is asked.
pub(crate) fn asked(r: Request<'_>, backend: Key, kind: Kind, name: impl FnOnce() -> String) {
    let Some(zone) = zone(r) else { return };
    FOUND.with_borrow_mut(|found| {
        let at = found.position(zone, backend, name);
        found.count(at, zone, ASKED, kind, 1);
    });
}

/// The primary was asked, by its upstream `u`, which may not have been counted yet.
pub(crate) fn asked_primary(r: Request<'_>, ctx: &mut RequestCtx, u: Upstream<'_>) {
    let Some(zone) = zone(r) else { return };
    if counted(ctx, u).is_none() {
        let kind = match ctx.manifest.is_exchange() {
            true => Kind::Manifest,
            false => kind_of(r, u.uri()),
        };
        ctx.counted = Some(Counted { upstream: u.id(), kind });
        FOUND.with_borrow_mut(|found| {
            let at = found.position_of(zone, r, u);
            found.count(at, zone, ASKED, kind, 1);
        });
    }
}

/// What was counted of the primary's upstream `u`.
fn counted(ctx: &RequestCtx, u: Upstream<'_>) -> Option<Counted> {
    ctx.counted.filter(|counted| counted.upstream == u.id())
}

fn kind_of(r: Request<'_>, uri: &[u8]) -> Kind {
    kind::Request::of(r.method(), uri).kind
}

/// How the page names the upstream that the configuration names.
fn name(u: Upstream<'_>) -> String {
    let name = u.backend();
    let name = String::from_utf8_lossy(&name);
    let default = if name.starts_with("https:") { ":443" } else { ":80" };
    name.strip_suffix(default).unwrap_or(&name).to_owned()
}

/// An upstream has answered.
pub(crate) fn answered(r: Request<'_>, conf: &LocConf, u: Upstream<'_>) {
    let Some(zone) = zone(r) else { return };
    let ctx = r.ctx::<Docker>();
    let origin = match ctx.filter(|_| conf.is_follow).map(|ctx| ctx.borrow()) {
        None => 0,
        Some(ctx) => match ctx.destination.as_ref().map(|destination| destination.relation) {
            Some(Relation::Fallback) => 2,
            _ => 1,
        },
    };
    FOUND.with_borrow_mut(|found| {
        let (Some(slots), Some(label)) = (found.connections.get_mut(origin), ORIGINS.get(origin))
        else {
            return;
        };
        let [opened, resumed, reused] = slots;
        let name =
            |how: &str| series(&format!("docker_connections_{how}_total"), &[("origin", label)]);
        match u.connection() {
            Connection::Opened => count(Some(opened), zone, 1, || name("opened")),
            Connection::Resumed => {
                count(Some(opened), zone, 1, || name("opened"));
                count(Some(resumed), zone, 1, || name("resumed"));
            }
            Connection::Reused => count(Some(reused), zone, 1, || name("reused")),
        }
    });
    // Without a context, it is counted when the request is over.
    if let Some(ctx) = ctx.filter(|_| !conf.is_follow) {
        asked_primary(r, &mut ctx.borrow_mut(), u);
    }
}

/// An answer is about to go to the client.
pub(crate) fn answering(r: Request<'_>) {
    if zone(r).is_some()
        && r.is_main()
        && let Some(mut ctx) = r.ctx::<Docker>().and_then(|ctx| ctx.try_borrow_mut().ok())
    {
        ctx.first_byte = Some(r.age());
    }
}

/// A request of a client is over.
pub(crate) fn finished(r: Request<'_>) {
    let conf = LocConf::of(r);
    let Some(zone) = zone(r).filter(|_| r.is_main() && conf.is_counted()) else { return };
    let ctx = r.ctx::<Docker>().and_then(|ctx| ctx.try_borrow().ok());
    let is_primarys = |u: &Upstream<'_>| {
        !conf.is_follow && !r.is_cached() && u.is_proxied() && !u.is_of_follow_location()
    };
    let primary = r.upstream().filter(is_primarys);
    let left = ctx.as_ref().and_then(|ctx| origin::subject(r, ctx, &origin::first_uri(ctx)));
    let counted = primary.zip(ctx.as_deref()).and_then(|(u, ctx)| counted(ctx, u));
    let kind = match (&left, counted, primary) {
        (Some(subject), ..) => subject.kind(),
        (None, Some(counted), _) => counted.kind,
        (None, None, Some(u)) => kind_of(r, u.uri()),
        (None, None, None) => kind_of(r, r.client_uri()),
    };
    // The context may be younger than the answer, as that of a download is.
    let first_byte = ctx.as_ref().and_then(|ctx| ctx.first_byte);
    let first_byte = first_byte.or_else(|| primary.and_then(Upstream::header_time));
    let cached = ctx.as_ref().and_then(|ctx| ctx.manifest.status());
    if let Some(download) = ctx.as_ref().and_then(|ctx| ctx.download.as_ref()) {
        count_resumes(zone, download);
    }

    FOUND.with_borrow_mut(|found| {
        if let Some(status) = cached {
            found.count_manifest(zone, status);
        }
        if let Some(time) = first_byte
            && let Some(slots) = found.first_bytes.get_mut(kind as usize)
        {
            let name = |part: &str| format!("{FIRST_BYTE}{} {part}", kind.as_str());
            let bucket = metrics::bucket(time);
            count(slots.get_mut(bucket), zone, 1, || name(&bucket.to_string()));
            count(slots.last_mut(), zone, time, || name(SUM));
        }
        // Whom a request has left was counted when it was asked, or never was.
        let at = match (&left, primary) {
            (None, Some(u)) => found.position_of(zone, r, u),
            (Some(subject), u) => {
                found.position(zone, subject.backend(), || u.map_or(OTHER.to_owned(), name))
            }
            (None, None) => found.position(zone, NGINX, || "nginx".to_owned()),
        };
        let Some(backend) = at.and_then(|at| found.backends.get_mut(at)) else { return };
        backend.count(zone, REQUESTS, kind, 1);
        backend.count(zone, BYTES, kind, r.body_sent());
        if primary.is_some() && counted.is_none() {
            backend.count(zone, ASKED, kind, 1);
        }
    });
}

/// A redirect to this host is followed. One that was never seen before may be a CDN that
/// somebody's firewall does not know yet.
pub(crate) fn redirected(r: Request<'_>, host: &str) {
    const NAME: &str = "docker_redirects_total";
    let is_new = FOUND.with_borrow_mut(|found| {
        // What was seen before is known to all workers, page or not.
        let Some(zone) = r.main_conf::<Docker>().zone() else {
            return !found.hosts.contains(host)
                && found.hosts.len() < MAX_HOSTS
                && found.hosts.insert(host.to_owned());
        };
        if let Some(counter) = found.redirects.get(host) {
            counter.add(1);
            return false;
        }
        let counter = series(NAME, &[("host", host)]);
        let (counter, is_new) = match zone.counter_among(NAME, &counter, MAX_HOSTS) {
            Member::Known(counter) => (counter, false),
            Member::New(counter) => (counter, true),
            Member::Full => {
                add(zone.counter(&series(NAME, &[("host", OTHER)])), 1);
                return false;
            }
        };
        counter.add(1);
        found.redirects.insert(host.to_owned(), counter);
        is_new
    });
    if is_new {
        r.log(Level::Notice, format_args!("redirect to a host not seen before, \"{host}\""));
    }
}

/// A redirect is not followed.
pub(crate) fn redirect_refused(r: Request<'_>, reason: &str) {
    count_reason(r, "docker_redirects_refused_total", reason);
}

/// A request leaves its first upstream for a fallback.
pub(crate) fn fell_back(r: Request<'_>, reason: &str) {
    count_reason(r, "docker_fallbacks_total", reason);
}

fn count_reason(r: Request<'_>, name: &str, reason: &str) {
    if let Some(zone) = zone(r) {
        add(zone.counter(&series(name, &[("reason", reason)])), 1);
    }
}

fn count_resumes(zone: Zone, download: &Download) {
    let (served, failed) = download.resumes();
    for (result, number) in [("served", served), ("failed", failed)] {
        if number > 0 {
            add(zone.counter(&series("docker_resumes_total", &[("result", result)])), number);
        }
    }
}

impl Found {
    fn count_manifest(&mut self, zone: Zone, status: Status) {
        let name = || series("docker_manifest_cache_total", &[("result", status.as_str())]);
        count(self.manifests.get_mut(status as usize), zone, 1, name);
        if status.saves_a_get() {
            let name = || "docker_manifest_gets_saved_total".to_owned();
            count(Some(&mut self.gets_saved), zone, 1, name);
        }
    }

    fn count(&mut self, at: Option<usize>, zone: Zone, what: usize, kind: Kind, number: u64) {
        if let Some(backend) = at.and_then(|at| self.backends.get_mut(at)) {
            backend.count(zone, what, kind, number);
        }
    }

    /// Where the backend of a primary's upstream is. Most locations name one.
    fn position_of(&mut self, zone: Zone, r: Request<'_>, u: Upstream<'_>) -> Option<usize> {
        let proxy = r.main_conf::<Docker>().proxy;
        let is_locations = proxy.is_some_and(|proxy| u.is_of(r.location(), proxy));
        let settings = u.fixed_settings().filter(|_| is_locations);
        let known = settings.and_then(|settings| {
            self.settings.iter().find(|(known, _)| *known == settings).map(|(_, at)| *at)
        });
        if known.is_some() {
            return known;
        }
        let at = self.position(zone, breaker::key(&u.backend()), || name(u))?;
        if let Some(settings) = settings.filter(|_| self.settings.len() < MAX_BACKENDS) {
            self.settings.push((settings, at));
        }
        Some(at)
    }

    /// Where the backend of this key is, or the one that stands for all others; `None`: there is no
    /// room.
    fn position(&mut self, zone: Zone, key: Key, name: impl FnOnce() -> String) -> Option<usize> {
        let known = |backends: &[Backend], key| backends.iter().position(|known| known.key == key);
        known(&self.backends, key).or_else(|| {
            let new = Self::new_backend(zone, key, name());
            known(&self.backends, new.key).or_else(|| {
                self.backends.push(new);
                self.backends.len().checked_sub(1)
            })
        })
    }

    fn new_backend(zone: Zone, key: Key, name: String) -> Backend {
        let [low, high] = BACKEND.map(|half| format!("{half}{name}"));
        let [family, _] = BACKEND;
        let member = match is_label(&name) {
            true => zone.counter_among(family, &low, MAX_BACKENDS),
            false => Member::Full,
        };
        let (key, name) = match member {
            Member::Known(counter) | Member::New(counter) => {
                let Key([first, second]) = key;
                counter.set(first);
                if let Some(counter) = zone.counter(&high) {
                    counter.set(second);
                }
                (key, name)
            }
            Member::Full => (OTHERS, OTHER.to_owned()),
        };
        Backend { key, name, counters: Default::default() }
    }
}

impl Backend {
    fn count(&mut self, zone: Zone, what: usize, kind: Kind, number: u64) {
        let slot = self.counters.get_mut(what).and_then(|slots| slots.get_mut(kind as usize));
        count(slot, zone, number, || {
            let labels = [("backend", self.name.as_str()), ("kind", kind.as_str())];
            series(BY_BACKEND.get(what).unwrap_or(&""), &labels)
        });
    }
}
