//! `docker_manifest_cache`: a manifest that is known is not fetched again.
//!
//! Where a manifest may be in memory, the request goes upstream as a HEAD, which tells whether this
//! client may have which manifest. If that one is in memory, our header filter sends its body behind
//! the header of the answer to HEAD. Else the request begins again, as if there were no cache, and
//! what comes is kept on its way to the client. Of several requests that find nothing, one fetches
//! and the others wait.

use core::cell::RefCell;
use core::ffi::CStr;
use core::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

use nginx_sys::ngx_int_t;
use rules::digest::Key;
use rules::directive;
use rules::kind;
use rules::manifest::{self, Capture, Described, Entry, Kept, Progress, Reference, Turn, Wait};

use crate::conf::LocConf;
use crate::ctx;
use crate::ctx::{Answer, RequestCtx};
use crate::module::Docker;
use crate::nginx::body::Chain;
use crate::nginx::conf::{Conf, Directive, SetError};
use crate::nginx::request::{Handler, Request};
use crate::nginx::shm::{Locked, Zone};
use crate::nginx::timer::Timer;
use crate::nginx::upstream::Upstream;
use crate::nginx::{DONE, ERROR, now, process_id};
use crate::origin::{self, Phase};

/// How often those look who wait for others, in milliseconds.
const POLL: u64 = 20;

/// `docker_manifest_cache zone=name [max=size] [stale=time] | off`
pub(crate) struct ManifestCacheDirective;

impl Directive for ManifestCacheDirective {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_manifest_cache";

    fn set(conf: &mut LocConf, cf: Conf, args: &[&str]) -> Result<(), SetError> {
        if conf.manifest_cache.is_some() {
            return Err(SetError::Duplicate);
        }
        let Some(given) = directive::manifest_cache(args)? else {
            conf.manifest_cache = Some(None);
            return Ok(());
        };
        let zones = &cf.main_conf::<Docker>().zones;
        let Some((_, zone)) = zones.iter().find(|(name, _)| name == given.zone) else {
            return Err(SetError::Invalid {
                value: format!("zone={}", given.zone),
                allowed: "the name of a \"docker_zone\" before it".to_owned(),
            });
        };
        conf.manifest_cache =
            Some(Some(ManifestCache { zone: *zone, max: given.max, stale: given.stale }));
        Ok(())
    }
}

/// Where a location keeps manifests.
#[derive(Clone, Copy)]
pub(crate) struct ManifestCache {
    zone: Zone,
    max: usize,
    /// Milliseconds.
    stale: Option<u64>,
}

/// What the cache has to do with a request.
#[derive(Default)]
pub(crate) struct Manifest {
    status: Option<Status>,
    exchange: Option<Exchange>,
}

impl Manifest {
    fn has_begun(&self) -> bool {
        self.status.is_some() || self.exchange.is_some()
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.status
    }

    /// The request is for a manifest that may be kept.
    pub(crate) fn is_exchange(&self) -> bool {
        self.exchange.is_some()
    }
}

/// Where the client's manifest comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    /// From memory, by a digest.
    Hit,
    /// From memory, by a tag, of which upstream has said what it names now.
    Revalidated,
    /// From memory, though upstream could not be asked.
    Stale,
    /// From upstream.
    Miss,
    /// From upstream, because the request or the location has no use for a cache.
    Bypass,
}

impl Status {
    /// How many there are.
    pub(crate) const NUMBER: usize = Self::Bypass as usize + 1;

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Revalidated => "REVALIDATED",
            Self::Stale => "STALE",
            Self::Miss => "MISS",
            Self::Bypass => "BYPASS",
        }
    }

    /// No registry has counted it.
    pub(crate) const fn saves_a_get(self) -> bool {
        matches!(self, Self::Hit | Self::Revalidated | Self::Stale)
    }
}

/// A request for a manifest that may be kept.
struct Exchange {
    cache: ManifestCache,
    reference: Reference,
    /// Of the record about what the request names.
    key: [u64; 2],
    /// Who is to be asked for it, if that is known before.
    registry: Option<Key>,
    /// That is the upstream of `proxy_pass`. Else it is a declared registry, if `proxy_pass` comes to
    /// ask for one.
    is_fixed: bool,
    /// Which of the requests that are under way, in all workers.
    id: u64,
    stage: Stage,
    /// Who answers in the content phase.
    handler: Handler,
    /// How many internal redirects nginx allowed before anybody was asked.
    redirects: u32,
    /// Where the manifest would be kept that upstream has granted to this client.
    granted: Option<[u64; 2]>,
    /// The last turn was to wait.
    wait: Option<Wait>,
    /// The others wait for this request.
    lead: Option<Lead>,
    /// The manifest on its way to the client.
    capture: Option<Box<Captured>>,
    /// Of the record about anonymous clients, if this client is one and upstream has granted it
    /// what it asked for.
    anonymous: Option<[u64; 2]>,
}

enum Stage {
    New,
    /// Upstream is being asked by HEAD.
    Asking,
    /// Another request fetches the manifest.
    Waiting(#[expect(dead_code, reason = "it wakes the request until it is dropped")] Timer),
    /// Nothing is left to be decided.
    Decided,
}

/// A request for which others wait. They go on when it is dropped.
struct Lead {
    zone: Zone,
    key: [u64; 2],
    id: u64,
    /// Where the manifest is kept that it came back with.
    kept: Option<[u64; 2]>,
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.zone.lock(|zone| end(zone, self.key, self.id, self.kept));
    }
}

fn entry(zone: &mut Locked, key: [u64; 2]) -> Entry {
    zone.record::<5>(key).map(Entry::from).unwrap_or_default()
}

fn end(zone: &mut Locked, key: [u64; 2], id: u64, kept: Option<[u64; 2]>) {
    let mut entry = entry(zone, key);
    entry.end(id, kept);
    zone.set_record(key, entry.words());
}

/// What to do next.
enum Next {
    /// Ask upstream by HEAD.
    Ask,
    Wait(Wait),
    /// Let upstream answer.
    Pass,
}

/// Runs before the content phase of every request. `ask` is [`ask()`], for nginx.
pub(crate) fn precontent(r: Request<'_>, ask: Handler) -> Phase {
    let is_clients = r.is_main() && !r.is_post_action();
    let Some(cache) = LocConf::of(r).manifest_cache().filter(|_| is_clients) else {
        return Phase::Declined;
    };
    let has_begun = r.ctx::<Docker>().is_some_and(|ctx| ctx.borrow().manifest.has_begun());
    if !has_begun {
        let Some(manifest) = begin(r, cache) else { return Phase::Declined };
        let Ok(ctx) = r.ctx_or_default::<Docker>() else { return Phase::Status(500) };
        ctx.borrow_mut().manifest = manifest;
    }
    let Some(ctx) = r.ctx::<Docker>() else { return Phase::Declined };
    let phase = turn(r, ctx);
    if is_asking(ctx) {
        r.set_content_handler(ask);
    }
    phase
}

/// Who answers a request that begins again: `ask`, or who would have without a cache. The location
/// need not know: an `if` has no content handler of its own.
pub(crate) fn handler(ctx: &RefCell<RequestCtx>, ask: Handler) -> Option<Handler> {
    let ctx = ctx.borrow();
    let exchange = ctx.manifest.exchange.as_ref()?;
    Some(if matches!(exchange.stage, Stage::Asking) { ask } else { exchange.handler })
}

/// Decides what the request does next, before upstream is asked or asked again.
pub(crate) fn turn(r: Request<'_>, ctx: &RefCell<RequestCtx>) -> Phase {
    let mut ctx = ctx.borrow_mut();
    let Some(exchange) = &mut ctx.manifest.exchange else { return Phase::Declined };
    match exchange.stage {
        Stage::Asking | Stage::Decided => return Phase::Declined,
        Stage::New | Stage::Waiting(_) => {}
    }
    match exchange.next() {
        Next::Ask => exchange.stage = Stage::Asking,
        Next::Wait(wait) => {
            r.watch_client();
            exchange.wait = Some(wait);
            exchange.stage = Stage::Waiting(Timer::start(r, POLL));
            return Phase::Wait;
        }
        Next::Pass => exchange.stage = Stage::Decided,
    }
    Phase::Declined
}

/// Upstream is, or is about to be, asked by HEAD.
pub(crate) fn is_asking(ctx: &RefCell<RequestCtx>) -> bool {
    let ctx = ctx.borrow();
    ctx.manifest.exchange.as_ref().is_some_and(|exchange| matches!(exchange.stage, Stage::Asking))
}

/// The content handler of a request that asks by HEAD.
pub(crate) fn ask(r: Request<'_>) -> ngx_int_t {
    let Some(ctx) = r.ctx::<Docker>() else { return ERROR };
    let handler = ctx.borrow().manifest.exchange.as_ref().map(|exchange| exchange.handler);
    let (Some(handler), Some(ways)) = (handler, &LocConf::of(r).ways) else { return ERROR };
    if let Some(asking) = ways.asking {
        // What HEAD meets is not what the client gets: error pages are for that.
        r.change_to(asking);
    }
    r.set_head(true);
    let rc = r.run(handler);
    if rc != DONE {
        stop_asking(r, ctx);
    }
    rc
}

/// A location begins to answer. Where the request was led away from what was asked by HEAD, it is
/// the client's again.
pub(crate) fn entered(r: Request<'_>) {
    if !r.main_conf::<Docker>().caches_manifests || !r.is_main() || LocConf::of(r).is_follow {
        return;
    }
    if let Some(ctx) = r.ctx::<Docker>()
        && is_asking(ctx)
    {
        stop_asking(r, ctx);
    }
}

fn stop_asking(r: Request<'_>, ctx: &RefCell<RequestCtx>) {
    if let Some(exchange) = &mut ctx.borrow_mut().manifest.exchange
        && matches!(exchange.stage, Stage::Asking)
    {
        r.set_head(false);
        exchange.stage = Stage::Decided;
    }
}

/// What the cache has to do with a new request; `None`: nothing.
fn begin(r: Request<'_>, cache: ManifestCache) -> Option<Manifest> {
    if !r.is_get_or_head() || r.is_error_page() {
        return None;
    }
    let proxy = r.main_conf::<Docker>().proxy?;
    let upstream = r.location().upstream_name(proxy);
    // Where variables lead to a declared registry, one image has many names.
    let ctx = r.ctx::<Docker>().map(|ctx| ctx.borrow());
    let service = ctx.as_ref().and_then(|ctx| ctx.service.as_ref());
    let meant = service.filter(|_| upstream.is_none()).and_then(|service| service.meant());
    let path = meant.map_or(r.path(), |meant| meant.uri().as_bytes());
    let reference = Reference::of(&kind::Request::of(b"GET", path))?;
    let handler = r.content_handler()?;
    let names = r.request_lines().map(|(name, _)| name);
    if !r.is_head()
        && (r.has_body() || !manifest::wants_whole(names) || r.location().has_proxy_cache(proxy))
    {
        return Some(Manifest { status: Some(Status::Bypass), exchange: None });
    }

    // All that this key decides is who asks by HEAD first, and who waits for whom.
    let (host, port, query) = match (meant.map(|meant| meant.origin()), upstream) {
        (Some(origin), _) => (origin.host.as_bytes(), origin.port, &[][..]),
        (None, Some((host, port))) => (host, port, r.query()),
        (None, None) => (r.authority().unwrap_or_default(), 0, r.query()),
    };
    let port = &port.to_le_bytes()[..];
    let Key(key) = Key::of(&[b"reference", host, port, path, query]);
    let is_configured = meant.is_some() || upstream.is_some();
    let registry = is_configured.then(|| Key::of_configured(&[b"registry", host, port]));
    let exchange = Exchange {
        cache,
        reference,
        key,
        registry,
        is_fixed: upstream.is_some(),
        id: new_id(),
        // HEAD is upstream's to answer; what it says is noted.
        stage: if r.is_head() { Stage::Decided } else { Stage::New },
        handler,
        redirects: r.redirects_left(),
        granted: None,
        wait: None,
        lead: None,
        capture: None,
        anonymous: None,
    };
    let status = (!r.is_head()).then_some(Status::Miss);
    Some(Manifest { status, exchange: Some(exchange) })
}

/// A number that no other request in any worker has, and not 0.
fn new_id() -> u64 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    u64::from(process_id()) << 32 | u64::from(NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Exchange {
    /// Decides where there is nothing to be served yet.
    fn next(&mut self) -> Next {
        let (key, id, zone) = (self.key, self.id, self.cache.zone);
        let (granted, wait) = (self.granted, self.wait);
        let by_digest = match (&self.reference, self.registry) {
            (Reference::Digest(digest), Some(registry)) => manifest::key(registry, digest).0,
            _ => [0; 2],
        };
        let turn = zone.lock(|zone| {
            let mut entry = entry(zone, key);
            let known = granted.map_or([by_digest, entry.known], |granted| [granted; 2]);
            if known.into_iter().any(|place| place != [0; 2] && zone.has_blob(place)) {
                return None;
            }
            let turn = entry.turn(id, wait, now());
            if turn == Turn::Lead {
                zone.set_record(key, entry.words());
            }
            Some(turn)
        });
        match turn {
            // One is left for the way back, if HEAD leads to nothing, and one for an error page.
            None if self.redirects >= 2 => Next::Ask,
            Some(Turn::Lead) => {
                self.lead = Some(Lead { zone, key, id, kept: None });
                Next::Pass
            }
            Some(Turn::Wait(wait)) => Next::Wait(wait),
            None | Some(Turn::Alone) => Next::Pass,
        }
    }

    /// The manifest that the answer on its way grants, if it is upstream's own.
    fn granted<'r>(&self, r: Request<'r>, ctx: &RequestCtx) -> Option<Granted<'r>> {
        let u = r.upstream().filter(|u| origin::is_answer(r, *u))?;
        let lines = u.lines().map(|line| (line.name(), line.value()));
        let described = Described::read(u.status(), lines);
        let described = described.filter(|described| described.is_for(&self.reference))?;
        let registry = self.registry(r, ctx, u)?;
        let place = manifest::key(registry, &described.digest);
        let is_fallback = LocConf::of(r).is_follow && ctx.target != 0;
        let fallback = if is_fallback { Some(place.with(ctx.subject?.backend()).0) } else { None };
        Some(Granted { described, place: place.0, fallback })
    }

    /// The registry that was asked first, for what `u` has answered.
    fn registry(&self, r: Request<'_>, ctx: &RequestCtx, u: Upstream<'_>) -> Option<Key> {
        let is_declared = || ctx.service.as_ref().is_some_and(|service| service.asked().is_some());
        if let Some(registry) = self.registry.filter(|_| self.is_fixed || is_declared()) {
            return Some(registry);
        }
        // Variables have named it.
        let backend = if LocConf::of(r).is_follow { None } else { Some(u.backend()) };
        let backend = backend.as_ref().or_else(|| Some(&ctx.primary.get()?.backend))?;
        Some(Key::of(&[b"registry", backend]))
    }

    /// The manifest that an anonymous client had lately.
    fn stale(&self, r: Request<'_>, ctx: &RequestCtx) -> Option<Answer> {
        let (time, asked, zone) = (self.cache.stale?, asked(r, ctx)?, self.cache.zone);
        if !is_anonymous(r) {
            return None;
        }
        let [low, high, since] = zone.lock(|zone| zone.record::<3>(asked.key))?;
        let age = now().saturating_sub(since);
        if age > time {
            return None;
        }
        let bytes = zone.blob(r, [low, high])?;
        let kept = Kept::read(bytes)?;
        let warning = manifest::warning(&asked.host, age);
        let mut lines =
            vec![(b"Docker-Content-Digest".to_vec(), kept.digest.to_string().into_bytes())];
        lines.extend(warning.map(|value| (b"Warning".to_vec(), value.into_bytes())));
        Some(Answer {
            status: 200,
            content_type: kept.media_type.to_vec(),
            lines,
            body: kept.body.to_vec(),
            yields_to_error_page: false,
        })
    }

    /// The reference names this manifest.
    fn note(&self, known: [u64; 2]) {
        self.cache.zone.lock(|zone| {
            let mut entry = entry(zone, self.key);
            if entry.known != known {
                entry.known = known;
                zone.set_record(self.key, entry.words());
            }
        });
    }

    /// The manifest on its way is there.
    fn keep(&mut self, captured: &Captured) {
        let (zone, key) = (self.cache.zone, captured.place);
        if !zone.keep_blob(key, captured.capture.bytes()) {
            return;
        }
        if let Some(fallback) = captured.fallback {
            zone.lock(|zone| zone.set_record(fallback, [1]));
        }
        match &mut self.lead {
            Some(lead) => lead.kept = Some(key),
            None => zone.lock(|zone| end(zone, self.key, self.id, Some(key))),
        }
        if let Some(anonymous) = self.anonymous {
            remember(zone, anonymous, key);
        }
    }
}

/// An anonymous client gets what is kept at `place`, by upstream's leave.
fn remember(zone: Zone, key: [u64; 2], [low, high]: [u64; 2]) {
    zone.lock(|zone| zone.set_record(key, [low, high, now()]));
}

/// What the header filter does with an answer.
pub(crate) enum Verdict<'r> {
    /// It goes on to the client.
    Pass,
    /// The request has left.
    Left,
    /// This body goes behind its header.
    Serve(&'r [u8]),
}

/// Sees the header of every answer that goes on.
pub(crate) fn header_filter(r: Request<'_>) -> Verdict<'_> {
    if !r.main_conf::<Docker>().caches_manifests || !r.is_main() {
        return Verdict::Pass;
    }
    let Some(ctx) = r.ctx::<Docker>() else { return Verdict::Pass };
    if !is_asking(ctx) {
        begin_capture(r, ctx);
        return Verdict::Pass;
    }
    let Some(u) = r.upstream().filter(|u| u.is_live()) else {
        // Nobody was asked: what answers here has not sent its body yet.
        stop_asking(r, ctx);
        return Verdict::Pass;
    };
    let granted = granted(r, ctx);
    if let Some(body) = granted.as_ref().and_then(|granted| serve(r, ctx, granted)) {
        stop_asking(r, ctx);
        u.keep_nothing();
        return Verdict::Serve(body);
    }
    if u.status() < 200 {
        r.restore_http_version();
    }
    asked_in_vain(r, ctx, u.status(), granted.map(|granted| granted.place));
    // Behind a header that goes on there would be no body.
    if let Some(ways) = &LocConf::of(r).ways {
        origin::leave(r, ctx, u, ways.any());
    }
    Verdict::Left
}

/// A manifest that may be given to the client.
struct Granted<'r> {
    described: Described<'r>,
    /// Where it is kept, if it is: of the registry that was asked first.
    place: [u64; 2],
    /// Of the record that the fallback has had it which has answered in its place. Of what it never
    /// had, a fallback does not say who may have it.
    fallback: Option<[u64; 2]>,
}

/// A manifest that may be kept.
struct Captured {
    capture: Capture,
    place: [u64; 2],
    fallback: Option<[u64; 2]>,
}

/// The manifest that the answer on its way grants.
fn granted<'r>(r: Request<'r>, ctx: &RefCell<RequestCtx>) -> Option<Granted<'r>> {
    let ctx = ctx.borrow();
    ctx.manifest.exchange.as_ref()?.granted(r, &ctx)
}

/// The body of the manifest that upstream has granted, if it is in memory.
fn serve<'r>(r: Request<'r>, ctx: &RefCell<RequestCtx>, granted: &Granted<'_>) -> Option<&'r [u8]> {
    let (kept, from) = {
        let ctx = ctx.borrow();
        let exchange = ctx.manifest.exchange.as_ref()?;
        let (cache, place) = (exchange.cache, granted.place);
        if let Some(fallback) = granted.fallback {
            cache.zone.lock(|zone| zone.record::<1>(fallback))?;
        }
        let bytes = cache.zone.blob(r, place)?;
        let kept = Kept::read(bytes).filter(|kept| granted.described.grants(kept))?;
        if cache.stale.is_some()
            && let Some(asked) = asked(r, &ctx).filter(|asked| asked.is_anonymous)
        {
            remember(cache.zone, asked.key, place);
        }
        match exchange.reference {
            Reference::Digest(_) => (kept, Status::Hit),
            Reference::Tag => (kept, Status::Revalidated),
        }
    };
    ctx.borrow_mut().manifest.status = Some(from);
    Some(kept.body)
}

/// HEAD has ended with `status`, and granted no manifest that is in memory; `granted` is where the
/// granted one would be. The request is the client's again: the stage in the context says what
/// becomes of it. `false`: nobody has asked.
pub(crate) fn asked_in_vain(
    r: Request<'_>,
    ctx: &RefCell<RequestCtx>,
    status: u16,
    granted: Option<[u64; 2]>,
) -> bool {
    if !is_asking(ctx) {
        return false;
    }
    stop_asking(r, ctx);
    let is_failure = granted.is_none() && manifest::is_failure(status);
    // Variables of ours may be evaluated on the way.
    let stale = {
        let ctx = ctx.borrow();
        let exchange = ctx.manifest.exchange.as_ref().filter(|_| is_failure);
        exchange.and_then(|exchange| exchange.stale(r, &ctx))
    };
    let mut ctx = ctx.borrow_mut();
    ctx.forget();
    let Manifest { status, exchange } = &mut ctx.manifest;
    if let Some(exchange) = exchange {
        r.set_redirects_left(exchange.redirects);
        exchange.granted = granted;
        let zone = exchange.cache.zone;
        if exchange.granted.is_some_and(|key| !zone.lock(|zone| zone.has_blob(key))) {
            // Another request may fetch it.
            exchange.stage = Stage::New;
        }
    }
    ctx.stage = match stale {
        Some(answer) => {
            *status = Some(Status::Stale);
            ctx::Stage::Answering(answer)
        }
        None => ctx::Stage::Beginning,
    };
    true
}

/// Has the body kept that comes behind the header of the request's own answer, if that is a
/// manifest; else those who wait for it go on. Of an answer to HEAD it is noted what a tag names:
/// docker asks for a tag by HEAD, and gets it by its digest.
fn begin_capture(r: Request<'_>, ctx: &RefCell<RequestCtx>) {
    if r.is_head() {
        let ctx = ctx.borrow();
        if let Some(exchange) = &ctx.manifest.exchange
            && let Some(granted) = exchange.granted(r, &ctx)
        {
            exchange.note(granted.place);
        }
        return;
    }
    let (capture, asked) = {
        let ctx = ctx.borrow();
        let Some(exchange) = &ctx.manifest.exchange else { return };
        let cache = exchange.cache;
        let capture = exchange.granted(r, &ctx).and_then(|granted| {
            let Granted { described, place, fallback } = granted;
            let capture = Capture::new(&described, cache.max)?;
            Some(Box::new(Captured { capture, place, fallback }))
        });
        let asked = cache.stale.filter(|_| capture.is_some()).and_then(|_| asked(r, &ctx));
        (capture, asked)
    };
    if let Some(exchange) = &mut ctx.borrow_mut().manifest.exchange {
        exchange.anonymous = asked.filter(|asked| asked.is_anonymous).map(|asked| asked.key);
        if capture.is_none() {
            exchange.lead = None;
        }
        exchange.capture = capture;
    }
}

/// What upstream was asked, as far as it matters to anonymous clients.
struct Asked {
    /// Of the record about who had what.
    key: [u64; 2],
    host: String,
    /// What was sent says nothing of who asks.
    is_anonymous: bool,
}

/// What the primary was asked, by `r` or before `r` has left it.
fn asked(r: Request<'_>, ctx: &RequestCtx) -> Option<Asked> {
    let from_upstream;
    let primary = match ctx.primary.get() {
        Some(primary) => primary,
        None => {
            from_upstream = origin::primary(r, r.upstream()?).ok()?;
            &from_upstream
        }
    };
    let authority = primary.url.authority();
    let accept = r.request_lines().filter(|(name, _)| name.eq_ignore_ascii_case(b"Accept"));
    let accepted = manifest::accepted(accept.map(|(_, value)| value));
    let parts = [
        b"anonymous",
        primary.backend.as_slice(),
        authority.as_bytes(),
        primary.url.uri.as_bytes(),
        &accepted,
    ];
    let Key(key) = Key::of(&parts);
    // What the location adds must be seen, and a target's path may be a secret of its own.
    let is_anonymous = primary.is_exact
        && ctx.destination.is_none()
        && r.upstream().is_none_or(|u| u.client_certificate().is_none())
        && is_anonymous(r)
        && primary.lines.iter().all(|(name, value)| manifest::is_public(name, value));
    Some(Asked { key, host: primary.url.host.clone(), is_anonymous })
}

/// The client says nothing of who it is.
fn is_anonymous(r: Request<'_>) -> bool {
    r.request_lines().all(|(name, value)| manifest::is_public(name, value))
}

/// Sees the body of every answer before the other filters do.
pub(crate) fn body_filter(r: Request<'_>, chain: Chain<'_>) {
    if !r.main_conf::<Docker>().caches_manifests || !r.is_main() {
        return;
    }
    let Some(ctx) = r.ctx::<Docker>() else { return };
    let mut ctx = ctx.borrow_mut();
    let Some(exchange) = &mut ctx.manifest.exchange else { return };
    let Some(mut captured) = exchange.capture.take() else { return };
    let mut progress = Progress::Partial;
    let read = chain.read(r, |bytes| {
        progress = captured.capture.take(bytes);
        match progress {
            Progress::Partial => ControlFlow::Continue(()),
            Progress::Whole | Progress::Unfit => ControlFlow::Break(()),
        }
    });
    match progress {
        Progress::Partial if read.is_ok() => {
            exchange.capture = Some(captured);
            return;
        }
        Progress::Whole => exchange.keep(&captured),
        Progress::Partial | Progress::Unfit => {}
    }
    exchange.lead = None;
}

/// `$docker_manifest_cache`.
pub(crate) fn status(r: Request<'_>) -> Option<Vec<u8>> {
    let status = r.main().ctx::<Docker>()?.borrow().manifest.status?;
    Some(status.as_str().as_bytes().to_vec())
}
