//! `docker_registry`: several registries behind one name.
//!
//! The PREACCESS handler finds the registry that a request means, and its addresses, and puts a
//! content handler of ours before the location's own. Where that is `proxy_pass $docker_upstream`,
//! the variable leads it to the registry, or it is seen that the request is refused: then the
//! content handler answers in its place.

use core::ffi::CStr;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use nginx_sys::ngx_int_t;
use rules::directive;
use rules::error::{self, Code};
use rules::location::{Scheme, Url};
use rules::registry::{By, Refusal, Registries, Registry, Route};

use crate::conf::{LocConf, MainConf};
use crate::ctx::{Answer, RequestCtx, Stage};
use crate::module::Docker;
use crate::nginx::conf::{Conf, Directive, InitPeer, Resolver, SetError};
use crate::nginx::headers::Line;
use crate::nginx::idle::Limits;
use crate::nginx::location::{Place, Refused};
use crate::nginx::log::Level;
use crate::nginx::peer::Plan;
use crate::nginx::request::{BodyHandler, Handler, Request, Silence};
use crate::nginx::resolver::{self, Lookup};
use crate::nginx::{BAD_REQUEST, DONE, ERROR, NoMemory};
use crate::origin::{self, Phase};
use crate::{push, resume, token};

/// `docker_registry name [url] [realm=url-prefix ...] [alias=host ...] [library] [default]`;
/// repeated for each registry.
pub(crate) struct DockerRegistry;

impl Directive for DockerRegistry {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_registry";

    fn set(conf: &mut LocConf, _cf: Conf, args: &[&str]) -> Result<(), SetError> {
        let registry = directive::registry(args)?;
        let registries = conf.registries.get_or_insert_default();
        Rc::make_mut(registries).add(registry).map_err(directive::ArgError::from)?;
        Ok(())
    }
}

/// What becomes of a request where registries are declared.
pub(crate) struct Service {
    /// Whom to ask for what, or the answer to what cannot be asked.
    asked: Result<Asked, Answer>,
    progress: Progress,
    /// The location's own content handler.
    handler: Option<Handler>,
    /// That one has come to ask for `$docker_upstream`.
    is_used: Cell<bool>,
    /// It is running, for a request that is refused.
    is_refusing: bool,
    /// It has come to ask for the variable then. What nginx would say of a `proxy_pass` that leads
    /// nowhere is not said.
    silence: Option<Silence>,
}

/// What goes to a registry.
#[derive(Clone)]
pub(crate) enum Asked {
    /// A request of its API.
    Api {
        route: Route,
        /// Where an upload goes on that the registry has begun.
        session: Option<String>,
    },
    /// A token, from one of its realms.
    Token(Token),
}

/// What is asked of a token server.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) registry: Rc<Registry>,
    pub(crate) url: Url,
    /// For whom.
    pub(crate) service: Option<String>,
}

impl Asked {
    pub(crate) fn registry(&self) -> &Rc<Registry> {
        match self {
            Self::Api { route, .. } => &route.registry,
            Self::Token(token) => &token.registry,
        }
    }

    /// The server that is asked.
    pub(crate) fn origin(&self) -> &Url {
        match self {
            Self::Api { route, .. } => &route.registry.origin,
            Self::Token(token) => &token.url,
        }
    }

    /// What it is asked for: path and query.
    pub(crate) fn uri(&self) -> &str {
        match self {
            Self::Api { session: Some(uri), .. } => uri,
            Self::Api { route, .. } => &route.uri,
            Self::Token(token) => &token.url.uri,
        }
    }

    /// How the client asked for it, if it is no token.
    pub(crate) fn route(&self) -> Option<&Route> {
        match self {
            Self::Api { route, .. } => Some(route),
            Self::Token(_) => None,
        }
    }
}

/// How far the addresses of a registry are found.
enum Progress {
    Resolving {
        _lookup: Lookup,
    },
    /// The request is waiting for them.
    Resolved(Vec<SocketAddr>),
    /// The request has gone on.
    Done(Vec<SocketAddr>),
}

impl Service {
    /// What the client means, if the location's `proxy_pass` comes to ask for it.
    pub(crate) fn meant(&self) -> Option<&Asked> {
        self.asked.as_ref().ok()
    }

    /// What goes to a registry; `None` if it is refused, or the location has another `proxy_pass`.
    pub(crate) fn asked(&self) -> Option<&Asked> {
        self.meant().filter(|_| self.is_used.get())
    }

    /// The same for a subrequest that asks what its request asks.
    pub(crate) fn again(&self) -> Option<Box<Self>> {
        let Progress::Done(addresses) = &self.progress else { return None };
        Some(Box::new(Self {
            asked: self.asked.clone(),
            progress: Progress::Done(addresses.clone()),
            handler: self.handler,
            is_used: Cell::new(false),
            is_refusing: false,
            silence: None,
        }))
    }

    /// Another mirror, which knows of no other registries, would take the request for one of its
    /// own.
    pub(crate) fn may_fall_back(&self) -> bool {
        self.asked().is_none_or(|asked| asked.registry().default)
    }
}

impl MainConf {
    /// We connect to this origin: the user has no `upstream` of that name.
    fn connects(&self, url: &Url) -> bool {
        self.origins.iter().any(|(host, port)| *host == url.host && *port == url.port)
    }
}

/// Makes an upstream of every declared host, and has a resolver where the user has none.
pub(crate) fn declare(cf: Conf, places: &[Place], init: InitPeer) -> Result<(), Refused> {
    let mut resolver: Option<Resolver> = None;
    let main = cf.main_conf::<Docker>();
    if main.token_key.is_none() {
        match token::random_key() {
            Ok(key) => main.token_key = Some(key),
            Err(error) => {
                cf.emerg(format_args!("no random key for tokens, /dev/urandom: {error}"));
                return Err(Refused);
            }
        }
    }
    for place in places {
        let conf = place.location.conf::<Docker>();
        let Some(registries) = &conf.registries else { continue };
        for registry in registries.iter() {
            for url in registry.realms.iter().chain([&registry.origin]) {
                declare_origin(cf, url, init)?;
            }
        }
        if place.location.has_resolver() {
            continue;
        }
        let resolver = match resolver {
            Some(resolver) => resolver,
            None => {
                let servers = origin::name_servers();
                if servers.is_empty() {
                    cf.warn(format_args!(
                        "no name servers in /etc/resolv.conf and no \"resolver\": registries \
                         cannot be resolved"
                    ));
                    return Ok(());
                }
                *resolver.insert(cf.create_resolver(&servers)?)
            }
        };
        place.location.set_resolver(resolver);
    }
    Ok(())
}

fn declare_origin(cf: Conf, url: &Url, init: InitPeer) -> Result<(), Refused> {
    let main = cf.main_conf::<Docker>();
    if main.connects(url) {
        return Ok(());
    }
    let port = Some(url.port).filter(|port| *port != url.scheme.default_port());
    if cf.add_origin(&url.host, port, init)? {
        main.origins.push((url.host.clone(), url.port));
    }
    Ok(())
}

/// Finds the registry that the request means, and its addresses. Where the client has left, nobody
/// waits for them any more.
pub(crate) fn preaccess(r: Request<'_>, conf: &LocConf, content: Handler) -> Phase {
    let (Some(registries), Some(own)) = (&conf.registries, r.content_handler()) else {
        return Phase::Declined;
    };
    if r.is_post_action() {
        return Phase::Declined;
    }
    let Ok(ctx) = r.ctx_or_default::<Docker>() else { return Phase::Status(500) };

    loop {
        if let Some(service) = &mut ctx.borrow_mut().service {
            match &mut service.progress {
                Progress::Resolving { .. } => {
                    r.watch_client();
                    return Phase::Wait;
                }
                Progress::Resolved(addresses) => {
                    service.progress = Progress::Done(core::mem::take(addresses));
                    r.set_content_handler(content);
                    return Phase::Declined;
                }
                // The request has come here from another location.
                Progress::Done(_) => {}
            }
        }
        // A copy of a request has the handler that was put there for the request.
        let is_ours = core::ptr::fn_addr_eq(own, content);
        let handler = if is_ours { r.location_handler() } else { Some(own) };
        let asked = ask(r, conf, registries);
        let main = r.main_conf::<Docker>();
        let origin = asked.as_ref().ok().map(Asked::origin);
        let origin = origin.filter(|origin| main.connects(origin)).cloned();
        let progress = Progress::Resolved(Vec::new());
        let service = Service {
            asked,
            progress,
            handler,
            is_used: Cell::new(false),
            is_refusing: false,
            silence: None,
        };
        ctx.borrow_mut().service = Some(Box::new(service));
        if let Some(origin) = origin {
            resolve(r, ctx, &origin);
        }
    }
}

/// Whom the request asks for what.
fn ask(r: Request<'_>, conf: &LocConf, registries: &Registries) -> Result<Asked, Answer> {
    let uri = r.uri();
    if let Some((ticket, query)) = token::ticket(&uri) {
        return token::ask(r, registries, ticket, query).map(Asked::Token);
    }
    let route = registries.route(&uri, r.authority()).map_err(|refusal| {
        let (status, code) = match refusal {
            Refusal::Invalid => (400, Code::NameInvalid),
            Refusal::Unknown(_) => (404, Code::NameUnknown),
        };
        refused(status, code, &refusal.to_string())
    })?;
    let session = push::session(r, conf, &route)?;
    Ok(Asked::Api { route, session })
}

/// The answer to a request that goes to no registry.
pub(crate) fn refused(status: u16, code: Code, message: &str) -> Answer {
    Answer::json(status, error::body(code, message))
}

/// The answer to a method that is none of `allowed`.
pub(crate) fn not_allowed(allowed: &str, message: &str) -> Answer {
    let lines = vec![(b"Allow".to_vec(), allowed.as_bytes().to_vec())];
    Answer { lines, ..refused(405, Code::Unsupported, message) }
}

/// Finds the addresses of `url`; those of a name may come later.
fn resolve(r: Request<'_>, ctx: &RefCell<RequestCtx>, url: &Url) {
    match origin::look_up(r, &url.host, resolved) {
        Ok(Some(lookup)) => {
            if let Some(service) = &mut ctx.borrow_mut().service {
                service.progress = Progress::Resolving { _lookup: lookup };
            }
        }
        Ok(None) => {}
        Err(NoMemory) => unresolved(r, "no memory"),
    }
}

fn resolved(r: Request<'_>, answer: resolver::Answer) {
    match answer {
        resolver::Answer::Addresses(addresses) => found(r, &addresses),
        resolver::Answer::Failed(why) => unresolved(r, &why),
    }
}

/// nginx ends the request as one whose upstream has no address: with 502, or by a fallback.
fn unresolved(r: Request<'_>, why: &str) {
    if let Some(ctx) = r.ctx::<Docker>()
        && let Some(Ok(asked)) = ctx.borrow().service.as_ref().map(|service| &service.asked)
    {
        let host = &asked.origin().host;
        r.log(Level::Error, format_args!("{host}: could not be resolved ({why})"));
    }
    found(r, &[]);
}

fn found(r: Request<'_>, addresses: &[IpAddr]) {
    let Some(ctx) = r.ctx::<Docker>() else { return };
    let mut ctx = ctx.borrow_mut();
    let Some(service) = &mut ctx.service else { return };
    let Ok(asked) = &service.asked else { return };
    let port = asked.origin().port;
    let addresses = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
    service.progress = Progress::Resolved(addresses);
}

/// The content handler, in the place of the location's own. `with_form` goes on when the form of
/// a POST for a token was read.
pub(crate) fn content(r: Request<'_>, with_form: BodyHandler) -> ngx_int_t {
    let Some(ctx) = served(r) else { return ERROR };
    let token =
        token(&ctx.borrow()).map(|(token, stays_here)| token::refusal(r, token, stays_here));
    let refusal = match token {
        Some(None) if r.is_post() => match token::read_form(r, with_form) {
            Ok(rc) => return rc,
            Err(refusal) => Some(refusal),
        },
        Some(refusal) => refusal,
        None => None,
    };
    if let Some(refusal) = refusal
        && let Some(service) = &mut ctx.borrow_mut().service
    {
        service.asked = Err(refusal);
    }
    token::drop_none(r);
    pass_on(r, ctx)
}

/// The context of a request whose service is known. nginx copies a request past the phases that find
/// it, as for `slice` or `proxy_cache_background_update`: a copy asks what its request asks.
fn served(r: Request<'_>) -> Option<&RefCell<RequestCtx>> {
    if let Some(ctx) = r.ctx::<Docker>()
        && ctx.borrow().service.is_some()
    {
        return Some(ctx);
    }
    LocConf::of(r).registries.as_ref()?;
    let again = r.main().ctx::<Docker>()?.borrow().service.as_ref()?.again()?;
    let ctx = r.ctx_or_default::<Docker>().ok()?;
    ctx.borrow_mut().service = Some(again);
    Some(ctx)
}

/// The form of a POST for a token was read.
pub(crate) fn with_form(r: Request<'_>) {
    let Some(ctx) = r.ctx::<Docker>() else { return r.finalize(ERROR) };
    let rewritten = token(&ctx.borrow()).and_then(|(token, _)| token::rewrite_form(r, token));
    let rc = if rewritten.is_some() { pass_on(r, ctx) } else { BAD_REQUEST };
    r.finalize(rc);
}

/// What is asked, if that is a token, and whether it is asked on this machine.
fn token(ctx: &RequestCtx) -> Option<(&Token, bool)> {
    let service = ctx.service.as_ref()?;
    let Ok(Asked::Token(token)) = &service.asked else { return None };
    let stays_here = match &service.progress {
        Progress::Done(addresses) => {
            !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback())
        }
        _ => false,
    };
    Some((token, stays_here))
}

/// Has the location's own content handler answer, or answers itself where that is to be refused.
fn pass_on(r: Request<'_>, ctx: &RefCell<RequestCtx>) -> ngx_int_t {
    let (handler, is_refusing) = {
        let mut ctx = ctx.borrow_mut();
        let Some(service) = &mut ctx.service else { return ERROR };
        service.is_refusing = service.asked.is_err();
        (service.handler, service.is_refusing)
    };
    let Some(handler) = handler else { return ERROR };
    if !is_refusing {
        return r.run(handler);
    }

    let rc = r.run(handler);
    let mut borrowed = ctx.borrow_mut();
    let Some(service) = &mut borrowed.service else { return rc };
    service.is_refusing = false;
    if service.silence.take().is_none() || rc == DONE {
        // It is another `proxy_pass`, and what it asks is none of ours.
        return rc;
    }
    if let Err(answer) = &service.asked {
        borrowed.stage = Stage::Answering(answer.clone());
    }
    drop(borrowed);
    origin::answer(r)
}

/// `$docker_upstream`, for `proxy_pass`.
pub(crate) fn upstream_url(r: Request<'_>) -> Option<&[u8]> {
    let ctx = served(r)?;
    let borrowed = ctx.borrow();
    let service = borrowed.service.as_ref()?;
    if let Ok(asked) = &service.asked {
        service.is_used.set(true);
        let origin = asked.origin();
        let parts = [origin.scheme.as_str(), "://", &origin.authority(), asked.uri()];
        // Without memory, nginx says so itself soon.
        return r.joined(parts).ok();
    }
    drop(borrowed);
    let mut ctx = ctx.try_borrow_mut().ok()?;
    let service = ctx.service.as_mut()?;
    if service.is_refusing && service.silence.is_none() {
        service.silence = Some(r.silence());
    }
    None
}

/// `$docker_registry`: the name of the registry that the request means.
pub(crate) fn name(r: Request<'_>) -> Option<Vec<u8>> {
    let ctx = r.ctx::<Docker>()?.borrow();
    let asked = ctx.service.as_ref()?.asked.as_ref().ok()?;
    Some(asked.registry().name.clone().into_bytes())
}

/// Whom a request to a registry connects to.
pub(crate) fn plan(r: Request<'_>) -> Option<Plan> {
    let ctx = r.ctx::<Docker>()?.borrow();
    let service = ctx.service.as_ref()?;
    let (Progress::Done(addresses), Ok(asked)) = (&service.progress, &service.asked) else {
        return None;
    };
    let u = r.upstream()?;
    Some(Plan {
        tls: asked.origin().scheme == Scheme::Https,
        host: u.tls_name().unwrap_or_else(|| asked.origin().host.clone()),
        addresses: addresses.clone(),
        request: None,
        silence: resume::stall(r),
        limits: Limits::from(&r.main_conf::<Docker>().keepalive()),
    })
}

/// Has an answer that goes to the client speak of what the client asked for.
pub(crate) fn finish(r: Request<'_>, conf: &LocConf) {
    let Some(ctx) = r.ctx::<Docker>() else { return };
    let ctx = ctx.borrow();
    let Some(asked) = ctx.service.as_ref().and_then(|service| service.asked()) else { return };
    if !conf.is_follow && r.is_main() {
        push::lead_back(r, asked);
    }
    if asked.route().is_some_and(|route| route.by == By::Namespace) {
        name_namespace(r, asked.registry());
    }
}

/// Says which registry the answer is of, to a client that has named it (OCI distribution-spec,
/// "Registry Proxying").
fn name_namespace(r: Request<'_>, registry: &Registry) {
    let is_namespace = |line: &Line<'_>| line.is("OCI-Namespace");
    for line in r.response_lines().filter(is_namespace) {
        line.remove();
    }
    // Without memory, nginx's own filters will say so.
    let _ = r.add_response_line(b"OCI-Namespace", registry.name.as_bytes());
}
