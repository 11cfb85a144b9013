//! The module's configuration, and how its levels combine.

use core::ffi::CStr;
use std::rc::Rc;
use std::sync::LazyLock;

use rules::breaker::Settings;
use rules::cdn_loop;
use rules::directive::{self, Keepalive, MAX_ATTEMPTS, Resume};
use rules::fallback::{Conditions, Target};
use rules::redirect::Policy;
use rules::registry::Registries;
use rules::ticket::Key;

use crate::manifest::ManifestCache;
use crate::module::Docker;
use crate::nginx::conf::{
    Conf, HttpPhase, InitPeer, Intercepted, PhaseHandler, http_module, on_cycle_end,
};
use crate::nginx::location::{Location, Place};
use crate::nginx::request::Request;
use crate::nginx::shm::Zone;
use crate::origin::{self, Ways};
use crate::realm::Realm;
use crate::registry;

/// The configuration was refused; nginx's log says why.
pub(crate) struct Refused;

/// One for the whole `http` block.
#[derive(Default)]
pub(crate) struct MainConf {
    pub(crate) keepalive: Option<Keepalive>,
    /// By name, as they were declared.
    pub(crate) zones: Vec<(String, Zone)>,
    /// What we call ourselves in `CDN-Loop`.
    pub(crate) loop_id: String,
    /// The number of nginx's proxy module among the http modules.
    pub(crate) proxy: Option<usize>,
    /// The upstreams' own, where ours runs before.
    pub(crate) upstreams: Intercepted,
    /// There is a status page.
    pub(crate) has_status: bool,
    /// Some location has a `docker_manifest_cache`.
    pub(crate) caches_manifests: bool,
    /// Errors are told as a registry tells them somewhere.
    has_errors: bool,
    /// What signs tickets, where registries are declared.
    pub(crate) token_key: Option<Key>,
    /// Hosts and ports of registries and of their token servers, to which we connect ourselves.
    pub(crate) origins: Vec<(String, u16)>,
    /// Where a follow location may be needed, registries are declared, or manifests are kept.
    places: Vec<Place>,
    /// Follow locations are being made: they are no such places themselves.
    is_complete: bool,
}

/// One for each level. `None` is "not set here".
#[derive(Default)]
pub(crate) struct LocConf {
    pub(crate) realm: Option<Realm>,
    pub(crate) follow: Option<Setting<Option<Policy>>>,
    pub(crate) fallback: Option<Setting<Vec<Target>>>,
    pub(crate) fallback_on: Option<Conditions>,
    /// Shared by the levels below the one that declares them.
    pub(crate) registries: Option<Rc<Registries>>,
    pub(crate) push: Option<bool>,
    pub(crate) breaker: Option<Option<Settings>>,
    pub(crate) reserve: Option<u32>,
    pub(crate) resume: Option<Setting<Option<Resume>>>,
    pub(crate) verify: Option<bool>,
    pub(crate) manifest_cache: Option<Option<ManifestCache>>,
    pub(crate) errors: Option<Setting<bool>>,
    /// Where requests go that leave this location's upstream.
    pub(crate) ways: Option<Ways>,
    /// This is a follow location.
    pub(crate) is_follow: bool,
    /// It answers with the status page.
    pub(crate) is_status: bool,
}

/// A value, and how far it reaches.
#[derive(Debug)]
pub(crate) struct Setting<T> {
    pub(crate) value: Rc<T>,
    /// It was set in the location that it acts in. What a location inherits acts on a registry's
    /// API alone: a web page on the same server keeps its redirects.
    own: bool,
}

impl<T> Clone for Setting<T> {
    fn clone(&self) -> Self {
        Self { value: Rc::clone(&self.value), own: self.own }
    }
}

impl<T> Setting<T> {
    pub(crate) fn new(value: T, cf: Conf) -> Self {
        Self { value: Rc::new(value), own: cf.is_in_location() }
    }

    /// The value, if it acts on a request for `uri` (as it was sent upstream).
    fn acting_on(&self, uri: &str) -> Option<&T> {
        self.acting(is_api(uri.as_bytes()))
    }

    fn acting(&self, is_api: bool) -> Option<&T> {
        (self.own || is_api).then_some(&self.value)
    }
}

/// The path is one of a registry's API.
pub(crate) fn is_api(path: &[u8]) -> bool {
    path.starts_with(b"/v2/")
}

impl LocConf {
    pub(crate) fn of(r: Request<'_>) -> &LocConf {
        r.loc_conf::<Docker>()
    }

    /// The policy by which redirects of a request for `uri` are followed, if they are.
    pub(crate) fn follow(&self, uri: &str) -> Option<&Policy> {
        self.follow.as_ref()?.acting_on(uri)?.as_ref()
    }

    /// The fallback targets of a request for `uri`.
    pub(crate) fn targets(&self, uri: &str) -> &[Target] {
        self.fallback.as_ref().and_then(|f| f.acting_on(uri)).map_or(&[], Vec::as_slice)
    }

    /// Whether downloads of some request, at least, are resumed.
    pub(crate) fn may_resume(&self) -> bool {
        self.resume.as_ref().is_some_and(|resume| resume.value.is_some())
    }

    pub(crate) fn verifies(&self) -> bool {
        self.verify == Some(true)
    }

    /// How the download of a request for `uri` is resumed, if it is.
    pub(crate) fn resume(&self, uri: &str) -> Option<Resume> {
        *self.resume.as_ref()?.acting_on(uri)?
    }

    pub(crate) fn manifest_cache(&self) -> Option<ManifestCache> {
        self.manifest_cache.flatten()
    }

    fn all_targets(&self) -> &[Target] {
        self.fallback.as_ref().map_or(&[], |fallback| fallback.value.as_slice())
    }

    fn policy(&self) -> Option<&Policy> {
        self.follow.as_ref()?.value.as_ref().as_ref()
    }

    pub(crate) fn conditions(&self) -> &Conditions {
        static DEFAULT: LazyLock<Conditions> = LazyLock::new(Conditions::default);
        self.fallback_on.as_ref().unwrap_or(&DEFAULT)
    }

    /// When a backend is not asked any more; `None` is `off`.
    pub(crate) fn breaker(&self) -> Option<Settings> {
        self.breaker.unwrap_or_else(|| Some(Settings::default()))
    }

    /// Whether certificates are checked, for each follow location that is needed.
    pub(crate) fn verifications(&self) -> (bool, bool) {
        let mut all = self
            .all_targets()
            .iter()
            .map(|target| target.verify)
            .chain(self.policy().map(|policy| policy.verify))
            .collect::<Vec<_>>();
        all.dedup();
        (all.contains(&true), all.contains(&false))
    }

    /// Errors are told as a registry tells them, for requests to its API or for others. Unless it
    /// says itself, a location does so for all requests that another directive acts on.
    pub(crate) fn errors(&self, is_api: bool) -> bool {
        if let Some(errors) = &self.errors {
            return errors.acting(is_api).is_some_and(|on| *on);
        }
        let rewrites = is_api && self.rewrites_realm();
        let follows = || self.follow.as_ref()?.acting(is_api)?.as_ref();
        let falls_back = || self.fallback.as_ref()?.acting(is_api)?.first();
        let selects = is_api && self.registries.is_some();
        rewrites || selects || follows().is_some() || falls_back().is_some()
    }

    /// The status page counts its requests.
    pub(crate) fn is_counted(&self) -> bool {
        !self.is_status && (self.is_follow || self.ways.is_some() || self.rewrites_realm())
    }

    /// Clients ask this server for tokens.
    pub(crate) fn rewrites_realm(&self) -> bool {
        !matches!(self.realm, None | Some(Realm::Off))
    }

    /// There are fallback targets, for some request at least.
    pub(crate) fn has_fallback(&self) -> bool {
        !self.all_targets().is_empty()
    }
}

impl MainConf {
    pub(crate) fn keepalive(&self) -> Keepalive {
        self.keepalive.unwrap_or_default()
    }

    /// The zone that holds what is known of backends: the first.
    pub(crate) fn zone(&self) -> Option<Zone> {
        self.zones.first().map(|(_, zone)| *zone)
    }
}

/// Says, at start, which of a directive's arguments weaken safety.
pub(crate) fn warn_of_weakness(cf: Conf, name: &CStr, args: &[&str]) {
    for (arg, weakness) in args.iter().filter_map(|arg| Some((arg, directive::weakness(arg)?))) {
        let name = name.to_string_lossy();
        cf.warn(format_args!("\"{arg}\" in \"{name}\" directive, {weakness}"));
    }
}

/// Lets `inner` have what it does not set itself, and notes it where requests may leave from.
pub(crate) fn merge(cf: Conf, outer: &LocConf, inner: &mut LocConf) -> Result<(), Refused> {
    let Some(place) = cf.place() else { return Err(Refused) };
    // An `if` or `limit_except` is a part of its location; anything else is a location of its own.
    let is_block = place.location.is_block();

    inherit(&mut inner.realm, outer.realm.as_ref());
    inherit_setting(&mut inner.follow, outer.follow.as_ref(), is_block);
    inherit_setting(&mut inner.fallback, outer.fallback.as_ref(), is_block);
    inherit(&mut inner.fallback_on, outer.fallback_on.as_ref());
    inherit(&mut inner.registries, outer.registries.as_ref());
    inherit(&mut inner.push, outer.push.as_ref());
    inherit(&mut inner.breaker, outer.breaker.as_ref());
    inherit(&mut inner.reserve, outer.reserve.as_ref());
    inherit_setting(&mut inner.resume, outer.resume.as_ref(), is_block);
    inherit(&mut inner.verify, outer.verify.as_ref());
    inherit(&mut inner.manifest_cache, outer.manifest_cache.as_ref());
    inherit_setting(&mut inner.errors, outer.errors.as_ref(), is_block);

    let targets = inner.all_targets().len();
    let hops = inner.policy().map_or(0, |policy| usize::from(policy.hops));
    if hops + targets > MAX_ATTEMPTS && targets > 0 {
        cf.emerg(format_args!(
            "\"docker_follow_redirect\" with hops={hops} and {targets} \"docker_fallback\" targets \
             are {} attempts, there must be at most {MAX_ATTEMPTS}",
            hops + targets
        ));
        return Err(Refused);
    }

    let main = cf.main_conf::<Docker>();
    main.caches_manifests |= inner.manifest_cache().is_some();
    main.has_errors |= inner.errors(true);
    let is_place =
        hops > 0 || targets > 0 || inner.registries.is_some() || inner.manifest_cache().is_some();
    if !main.is_complete && is_place {
        main.places.push(place);
    }
    Ok(())
}

fn inherit<T: Clone>(inner: &mut Option<T>, outer: Option<&T>) {
    if inner.is_none() {
        *inner = outer.cloned();
    }
}

fn inherit_setting<T>(inner: &mut Option<Setting<T>>, outer: Option<&Setting<T>>, is_block: bool) {
    if inner.is_none() {
        *inner = outer.cloned().map(|setting| Setting { own: setting.own && is_block, ..setting });
    }
}

/// The callbacks that `module.rs` has for nginx.
pub(crate) struct Hooks {
    pub(crate) rewrite: PhaseHandler,
    pub(crate) preaccess: PhaseHandler,
    pub(crate) precontent: PhaseHandler,
    pub(crate) log: PhaseHandler,
    pub(crate) init_peer: InitPeer,
    pub(crate) before_asking: InitPeer,
    pub(crate) cycle_end: unsafe extern "C" fn(*mut core::ffi::c_void),
}

/// Makes a follow location for each place where a request may leave its upstream; when all levels
/// are merged.
pub(crate) fn complete(cf: Conf, hooks: &Hooks) -> Result<(), Refused> {
    let main = cf.main_conf::<Docker>();
    main.is_complete = true;
    main.proxy = http_module(cf, "ngx_http_proxy_module").map(|module| module.ctx_index());
    let (host, prefix) = cf.host_and_prefix();
    main.loop_id = cdn_loop::id(host, prefix);

    if main.caches_manifests {
        cf.add_handler(HttpPhase::PreContent, hooks.precontent).map_err(|_| Refused)?;
    }
    if main.has_errors || main.caches_manifests {
        // An error page may be answered in either.
        cf.add_handler(HttpPhase::ServerRewrite, hooks.rewrite).map_err(|_| Refused)?;
        cf.add_handler(HttpPhase::Rewrite, hooks.rewrite).map_err(|_| Refused)?;
    }

    if main.has_status {
        if main.zone().is_none() {
            cf.emerg(format_args!(
                "\"docker_status\" has nothing to show without a \"docker_zone\""
            ));
            return Err(Refused);
        }
        cf.add_handler(HttpPhase::Log, hooks.log).map_err(|_| Refused)?;
    }
    on_cycle_end(cf, hooks.cycle_end).map_err(|_| Refused)?;

    let places: Vec<Place> = core::mem::take(&mut main.places)
        .into_iter()
        .filter(|place| place.location.can_answer())
        .collect();
    if places.is_empty() || main.proxy.is_none() {
        return Ok(());
    }

    registry::declare(cf, &places, hooks.init_peer).map_err(|_| Refused)?;
    let main = cf.main_conf::<Docker>();
    if main.zone().is_some() {
        main.upstreams = cf.intercept_upstreams(hooks.before_asking);
    }
    cf.add_handler(HttpPhase::PreAccess, hooks.preaccess).map_err(|_| Refused)?;
    cf.add_upstream(origin::UPSTREAM, hooks.init_peer).map_err(|_| Refused)?;
    for (number, place) in places.into_iter().enumerate() {
        origin::add_ways(cf, place, number).map_err(|_| Refused)?;
    }
    Ok(())
}

/// The configuration of a location that is being made.
pub(crate) fn of_location<'c>(location: Location) -> &'c mut LocConf {
    location.conf::<Docker>()
}
