//! What nginx reads: the directives' table, the callbacks, the module itself.

use core::ffi::{c_char, c_void};
use core::ptr;

use nginx_sys::{
    NGX_HTTP_MODULE, ngx_chain_t, ngx_command_t, ngx_conf_t, ngx_cycle_t, ngx_http_module_t,
    ngx_http_request_t, ngx_http_upstream_srv_conf_t, ngx_int_t, ngx_module_t, ngx_uint_t,
};

use crate::breaker::{BreakerDirective, FallbackReserve};
use crate::conf::{self, LocConf, MainConf};
use crate::ctx::RequestCtx;
use crate::errors::{self, Errors};
use crate::fallback::{Fallback, FallbackOn};
use crate::manifest::{self, ManifestCacheDirective};
use crate::nginx::body::Chain;
use crate::nginx::conf::{
    Conf, REFUSED, bare_command, location_command, main_command, server_command,
};
use crate::nginx::request::Request;
use crate::nginx::{
    BAD_GATEWAY, DECLINED, ERROR, Module, OK, filter, guard, idle, peer, shm, variable,
};
use crate::origin::{self, Keepalive, Verdict};
use crate::push::Push;
use crate::realm::RealmRewrite;
use crate::redirect::FollowRedirect;
use crate::registry::{self, DockerRegistry};
use crate::resume::{self, Resume};
use crate::status::{self, Status};
use crate::token::TokenKey;
use crate::verify::{self, Verify};
use crate::zone::Zone;
use crate::{metrics, variables};

/// The module, to those who look up its configuration.
pub(crate) struct Docker;

// SAFETY: `create_main_conf` and `create_loc_conf` below return these types; contexts are made by
// the edge.
unsafe impl Module for Docker {
    type Main = MainConf;
    type Loc = LocConf;
    type Ctx = RequestCtx;

    fn module() -> *const ngx_module_t {
        ptr::addr_of!(ngx_http_docker_module)
    }
}

/// nginx wants the table writable, and does not write.
static mut COMMANDS: [ngx_command_t; 17] = [
    location_command::<RealmRewrite>(),
    location_command::<FollowRedirect>(),
    location_command::<Fallback>(),
    location_command::<FallbackOn>(),
    location_command::<BreakerDirective>(),
    location_command::<FallbackReserve>(),
    location_command::<Resume>(),
    location_command::<Verify>(),
    location_command::<ManifestCacheDirective>(),
    location_command::<Errors>(),
    server_command::<DockerRegistry>(),
    location_command::<Push>(),
    main_command::<TokenKey>(),
    main_command::<Keepalive>(),
    main_command::<Zone>(),
    bare_command::<Status>(),
    ngx_command_t::empty(),
];

static DEFINITION: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: Some(create_main_conf),
    init_main_conf: None,
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: Some(create_loc_conf),
    merge_loc_conf: Some(merge_loc_conf),
};

/// Under this name nginx finds the module in its list; its fields are nginx's to write.
#[used]
#[allow(non_upper_case_globals)]
pub(crate) static mut ngx_http_docker_module: ngx_module_t = ngx_module_t {
    ctx: ptr::addr_of!(DEFINITION).cast::<c_void>().cast_mut(),
    commands: ptr::addr_of_mut!(COMMANDS).cast::<ngx_command_t>(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    exit_process: Some(exit_process),
    ..ngx_module_t::default()
};

ngx::ngx_modules!(ngx_http_docker_module);

unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guard(ERROR, || if variable::declare(cf, &variables::TABLE).is_ok() { OK } else { ERROR })
}

unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: nginx passes a live `cf`.
        let cf = unsafe { Conf::new(cf) };
        filter::install(header_filter, body_filter);
        let hooks = conf::Hooks {
            rewrite,
            preaccess,
            precontent,
            log,
            init_peer,
            before_asking,
            cycle_end,
        };
        if conf::complete(cf, &hooks).is_ok() { OK } else { ERROR }
    })
}

unsafe extern "C" fn create_main_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx passes a live `cf`.
    guard(ptr::null_mut(), || unsafe { Conf::new(cf) }.allocate(MainConf::default()).cast())
}

unsafe extern "C" fn create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx passes a live `cf`.
    guard(ptr::null_mut(), || unsafe { Conf::new(cf) }.allocate(LocConf::default()).cast())
}

unsafe extern "C" fn merge_loc_conf(
    cf: *mut ngx_conf_t,
    outer: *mut c_void,
    inner: *mut c_void,
) -> *mut c_char {
    guard(c"cannot be merged".as_ptr().cast_mut(), || {
        // SAFETY: nginx passes what `create_loc_conf` returned for two levels.
        let (cf, outer, inner) =
            unsafe { (Conf::new(cf), &*outer.cast::<LocConf>(), &mut *inner.cast::<LocConf>()) };
        match conf::merge(cf, outer, inner) {
            Ok(()) => ptr::null_mut(),
            // It was said why.
            Err(conf::Refused) => REFUSED,
        }
    })
}

/// First of all header filters: see [`filter`].
unsafe extern "C" fn header_filter(r: *mut ngx_http_request_t) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: nginx calls header filters with a live request.
        let request = unsafe { Request::new(r) };
        match origin::header_filter(request) {
            Verdict::Pass => {}
            // The answer is not sent: the caller finds its upstream finalized already.
            Verdict::Left => return ERROR,
            // It has no header of its own.
            Verdict::Rest => return OK,
        }
        let kept = match manifest::header_filter(request) {
            manifest::Verdict::Pass => None,
            manifest::Verdict::Left => return ERROR,
            manifest::Verdict::Serve(body) => Some(body),
        };
        if verify::refuses(request) {
            return BAD_GATEWAY;
        }
        metrics::answering(request);
        let Ok(error) = errors::filter(request) else { return ERROR };
        // SAFETY: the request that we were given.
        let rc = unsafe { filter::next_header(r) };
        if let Some(body) = kept.or(error) {
            return request.send_instead(rc, body);
        }
        resume::begin(request, rc);
        verify::begin(request, rc);
        rc
    })
}

/// First of all body filters.
unsafe extern "C" fn body_filter(r: *mut ngx_http_request_t, chain: *mut ngx_chain_t) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: nginx calls body filters with a live request and a chain of live buffers.
        let (request, buffers) = unsafe { (Request::new(r), Chain::new(chain)) };
        manifest::body_filter(request, buffers);
        // SAFETY: what nginx passed.
        let next = || unsafe { filter::next_body(r, chain) };
        resume::body_filter(request, buffers, run_rest, next)
    })
}

/// Runs a subrequest for the rest of a download.
unsafe extern "C" fn run_rest(r: *mut ngx_http_request_t) {
    // SAFETY: nginx calls write event handlers with a live request.
    guard((), || resume::run(unsafe { Request::new(r) }));
}

unsafe extern "C" fn rewrite(r: *mut ngx_http_request_t) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: nginx calls phase handlers with a live request.
        let request = unsafe { Request::new(r) };
        errors::entered(request);
        manifest::entered(request);
        DECLINED
    })
}

unsafe extern "C" fn preaccess(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls phase handlers with a live request.
    guard(ERROR, || origin::preaccess(unsafe { Request::new(r) }, answer, content, ask).code())
}

unsafe extern "C" fn precontent(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls phase handlers with a live request.
    guard(ERROR, || manifest::precontent(unsafe { Request::new(r) }, ask).code())
}

/// The content handler where registries are declared.
unsafe extern "C" fn content(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls content handlers with a live request.
    guard(ERROR, || registry::content(unsafe { Request::new(r) }, with_form))
}

/// Goes on when the form of a request for a token was read.
unsafe extern "C" fn with_form(r: *mut ngx_http_request_t) {
    // SAFETY: nginx calls this with a live request.
    guard((), || registry::with_form(unsafe { Request::new(r) }));
}

/// The content handler where a manifest may be in memory.
unsafe extern "C" fn ask(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls content handlers with a live request.
    guard(ERROR, || manifest::ask(unsafe { Request::new(r) }))
}

unsafe extern "C" fn log(r: *mut ngx_http_request_t) -> ngx_int_t {
    guard(OK, || {
        // SAFETY: nginx calls phase handlers with a live request.
        metrics::finished(unsafe { Request::new(r) });
        OK
    })
}

/// The content handler of `docker_status`.
pub(crate) unsafe extern "C" fn status(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls content handlers with a live request.
    guard(ERROR, || status::answer(unsafe { Request::new(r) }))
}

/// The content handler of answers that are ours.
unsafe extern "C" fn answer(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls content handlers with a live request.
    guard(ERROR, || origin::answer(unsafe { Request::new(r) }))
}

unsafe extern "C" fn init_peer(
    r: *mut ngx_http_request_t,
    _upstream: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: nginx calls this with a live request whose upstream has its request built.
        let r = unsafe { Request::new(r) };
        match origin::plan(r).map(|plan| peer::start(r, plan)) {
            Some(Ok(())) => OK,
            _ => ERROR,
        }
    })
}

/// Runs in place of the upstreams' own, and then runs that.
unsafe extern "C" fn before_asking(
    r: *mut ngx_http_request_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: nginx calls this with a live request whose upstream has its request built.
        let request = unsafe { Request::new(r) };
        if origin::before_asking(request) == Verdict::Left {
            // nginx's caller finds its upstream finalized already.
            return ERROR;
        }
        // SAFETY: what nginx passed goes to whom it was meant for.
        unsafe { request.main_conf::<Docker>().upstreams.init(r, upstream) }
    })
}

/// A worker ends: nginx reports sockets that are left open.
unsafe extern "C" fn exit_process(_cycle: *mut ngx_cycle_t) {
    guard((), flush);
}

/// A configuration is freed (with `master_process off` that happens in a process that goes on):
/// idle connections are keyed by its addresses, and their handlers may be unloaded with it.
unsafe extern "C" fn cycle_end(_data: *mut c_void) {
    guard((), flush);
}

/// What this process knows by addresses of the configuration, and of its zones.
fn flush() {
    idle::flush();
    metrics::flush();
    shm::flush();
}
