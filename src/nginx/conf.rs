//! Reading the configuration: directives, their levels, and nginx's tables.

use core::ffi::{CStr, c_char, c_void};
use core::fmt;
use core::ptr;

use nginx_sys::{
    NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MAIN_CONF, NGX_HTTP_MAIN_CONF_OFFSET,
    NGX_HTTP_SRV_CONF, NGX_HTTP_UPSTREAM_CREATE, NGX_LOG_EMERG, NGX_LOG_WARN, ngx_array_create,
    ngx_array_push, ngx_array_t, ngx_command_t, ngx_conf_full_name, ngx_conf_log_error, ngx_conf_t,
    ngx_http_complex_value, ngx_http_complex_value_t, ngx_http_conf_ctx_t,
    ngx_http_core_main_conf_t, ngx_http_core_module, ngx_http_handler_pt, ngx_http_module_t,
    ngx_http_request_t, ngx_http_upstream_add, ngx_http_upstream_main_conf_t,
    ngx_http_upstream_module, ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t, ngx_int_t,
    ngx_module_t, ngx_resolver_create, ngx_resolver_t, ngx_str_t, ngx_uint_t, ngx_url_t,
};
use ngx::core::Pool;

use super::request::Request;
use super::{ERROR, Module, NoMemory, OK, address, bytes, copy, ctx_index, guard, literal};

/// The configuration as it is being read.
#[derive(Clone, Copy)]
pub(crate) struct Conf(pub(super) *mut ngx_conf_t);

/// Why a directive is refused.
pub(crate) enum SetError {
    /// nginx's own word for a second one at the same level.
    Duplicate,
    /// A value that cannot be, and what is allowed.
    Invalid {
        value: String,
        allowed: String,
    },
    NoMemory,
}

/// A directive whose arguments have a grammar of their own.
pub(crate) trait Directive {
    /// The configuration that it writes: of the level that its command names.
    type Conf;
    /// nginx compares it as a C string.
    const NAME: &'static CStr;

    fn set(conf: &mut Self::Conf, cf: Conf, args: &[&str]) -> Result<(), SetError>;
}

/// Sets what no directive at this level may set twice.
pub(crate) fn set_once<T>(
    slot: &mut Option<T>,
    value: impl FnOnce() -> Result<T, SetError>,
) -> Result<(), SetError> {
    if slot.is_some() {
        return Err(SetError::Duplicate);
    }
    *slot = Some(value()?);
    Ok(())
}

/// Prepares the choice of an upstream's server for a request.
pub(crate) type InitPeer =
    unsafe extern "C" fn(*mut ngx_http_request_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t;
/// What nginx runs in a phase.
pub(crate) type PhaseHandler = unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t;

/// Where a directive may stand.
const ANYWHERE: u32 = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;

/// The command of a directive of http, server and location.
pub(crate) const fn location_command<D: Directive>() -> ngx_command_t {
    command::<D>(ANYWHERE, NGX_HTTP_LOC_CONF_OFFSET)
}

/// The command of a directive of http and server.
pub(crate) const fn server_command<D: Directive>() -> ngx_command_t {
    command::<D>(NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF, NGX_HTTP_LOC_CONF_OFFSET)
}

/// The command of a directive of http alone.
pub(crate) const fn main_command<D: Directive>() -> ngx_command_t {
    command::<D>(NGX_HTTP_MAIN_CONF, NGX_HTTP_MAIN_CONF_OFFSET)
}

/// The command of a directive of locations that takes no arguments.
pub(crate) const fn bare_command<D: Directive>() -> ngx_command_t {
    let command = command::<D>(NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET);
    let type_ = (NGX_HTTP_LOC_CONF | nginx_sys::NGX_CONF_NOARGS) as ngx_uint_t;
    ngx_command_t { type_, ..command }
}

const fn command<D: Directive>(levels: u32, offset: usize) -> ngx_command_t {
    ngx_command_t {
        name: ngx_str_t {
            len: D::NAME.count_bytes(),
            data: D::NAME.as_ptr().cast::<u8>().cast_mut(),
        },
        type_: (levels | nginx_sys::NGX_CONF_1MORE) as ngx_uint_t,
        set: Some(set::<D>),
        conf: offset,
        offset: 0,
        post: ptr::null_mut(),
    }
}

/// nginx's NGX_CONF_ERROR: a refusal whose reason is in the log already.
pub(crate) const REFUSED: *mut c_char = ptr::without_provenance_mut(usize::MAX);

unsafe extern "C" fn set<D: Directive>(
    cf: *mut ngx_conf_t,
    _command: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    guard(REFUSED, || {
        let cf = Conf(cf);
        // SAFETY: nginx passes what the module's create callback of this level returned.
        let conf = unsafe { &mut *conf.cast::<D::Conf>() };
        let result = match cf.args() {
            Ok(args) => D::set(conf, cf, &args),
            Err(value) => Err(SetError::Invalid { value, allowed: "UTF-8".to_owned() }),
        };
        match result {
            Ok(()) => ptr::null_mut(),
            Err(SetError::Duplicate) => c"is duplicate".as_ptr().cast_mut(),
            Err(SetError::NoMemory) => REFUSED,
            Err(SetError::Invalid { value, allowed }) => {
                cf.emerg(format_args!(
                    "invalid value \"{value}\" in \"{}\" directive, it must be {allowed}",
                    D::NAME.to_string_lossy()
                ));
                REFUSED
            }
        }
    })
}

impl Conf {
    /// # Safety
    ///
    /// nginx passes `cf` to a callback that is running.
    pub(crate) unsafe fn new(cf: *mut ngx_conf_t) -> Self {
        Self(cf)
    }

    /// The directive's arguments, or the first that is not UTF-8.
    fn args<'c>(self) -> Result<Vec<&'c str>, String> {
        // SAFETY: nginx keeps the words of a directive until its handler returns.
        let words = unsafe { (*(*self.0).args).as_slice::<ngx_str_t>() };
        let mut args = Vec::with_capacity(words.len());
        for word in words.iter().skip(1) {
            // SAFETY: as above.
            let word = unsafe { bytes(*word) };
            args.push(
                core::str::from_utf8(word)
                    .map_err(|_| String::from_utf8_lossy(word).into_owned())?,
            );
        }
        Ok(args)
    }

    /// Has `handler` answer all requests of the location that is being read.
    pub(crate) fn answer_with(self, handler: PhaseHandler) {
        // SAFETY: in a location, `ctx` is the location's, and the slot is the core module's.
        unsafe {
            let ctx = (*self.0).ctx.cast::<ngx_http_conf_ctx_t>();
            let core = (*ctx).loc_conf.add((*ptr::addr_of!(ngx_http_core_module)).ctx_index);
            (*(*core).cast::<nginx_sys::ngx_http_core_loc_conf_t>()).handler = Some(handler);
        }
    }

    /// Says why the configuration is refused, with file and line.
    pub(crate) fn emerg(self, message: fmt::Arguments<'_>) {
        self.log(NGX_LOG_EMERG, message);
    }

    pub(crate) fn warn(self, message: fmt::Arguments<'_>) {
        self.log(NGX_LOG_WARN, message);
    }

    fn log(self, level: u32, message: fmt::Arguments<'_>) {
        let text = message.to_string();
        // SAFETY: `%*s` takes a length and that many bytes.
        unsafe {
            ngx_conf_log_error(
                level as ngx_uint_t,
                self.0,
                0,
                c"%*s".as_ptr(),
                text.len(),
                text.as_ptr(),
            );
        }
    }

    /// The directive stands in a location, or in an `if` or `limit_except` of one.
    pub(crate) fn is_in_location(self) -> bool {
        // SAFETY: plain field of a live `cf`.
        unsafe {
            (*self.0).cmd_type & !((NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF) as ngx_uint_t) != 0
        }
    }

    /// Moves a value into the configuration's pool, which drops it.
    pub(crate) fn allocate<T>(self, value: T) -> *mut T {
        // SAFETY: the configuration's pool is live while it is read.
        unsafe { Pool::from_ngx_pool((*self.0).pool) }.allocate(value)
    }

    /// The module's configuration of the whole `http` block.
    pub(crate) fn main_conf<'c, M: Module>(self) -> &'c mut M::Main {
        // SAFETY: while http modules are configured, `ctx` is the http block's, and the slot holds
        // what `create_main_conf` returned. The features do not hold it over a call that takes it
        // again.
        unsafe {
            let ctx = (*self.0).ctx.cast::<ngx_http_conf_ctx_t>();
            &mut *(*(*ctx).main_conf.add(ctx_index::<M>())).cast::<M::Main>()
        }
    }

    /// The name of this machine, and nginx's prefix.
    pub(crate) fn host_and_prefix<'c>(self) -> (&'c [u8], &'c [u8]) {
        // SAFETY: both live as long as the cycle.
        unsafe {
            let cycle = (*self.0).cycle;
            (bytes((*cycle).hostname), bytes((*cycle).prefix))
        }
    }

    /// This nginx knows the directive `name`.
    pub(crate) fn knows(self, name: &str) -> bool {
        http_modules(self.cycle()).any(|module| module.command(name).is_some())
    }

    pub(super) fn cycle(self) -> *mut nginx_sys::ngx_cycle_t {
        // SAFETY: plain field of a live `cf`.
        unsafe { (*self.0).cycle }
    }

    /// A value with variables in it, compiled.
    pub(crate) fn compile(self, text: &str) -> Result<ComplexValue, SetError> {
        // SAFETY: nginx copies what it needs out of the string, which lives in the pool; the value
        // is written whole before it is used.
        unsafe {
            let mut source =
                copy((*self.0).pool, text.as_bytes()).map_err(|NoMemory| SetError::NoMemory)?;
            let value =
                nginx_sys::ngx_pcalloc((*self.0).pool, size_of::<ngx_http_complex_value_t>())
                    .cast::<ngx_http_complex_value_t>();
            if value.is_null() {
                return Err(SetError::NoMemory);
            }
            let mut compile: nginx_sys::ngx_http_compile_complex_value_t = core::mem::zeroed();
            compile.cf = self.0;
            compile.value = ptr::addr_of_mut!(source);
            compile.complex_value = value;
            // On failure nginx has said why.
            if nginx_sys::ngx_http_compile_complex_value(ptr::addr_of_mut!(compile)) != OK {
                return Err(SetError::NoMemory);
            }
            Ok(ComplexValue(value))
        }
    }

    /// Runs `handler` in `phase`, before the handlers of nginx's own modules.
    pub(crate) fn add_handler(
        self,
        phase: HttpPhase,
        handler: PhaseHandler,
    ) -> Result<(), NoMemory> {
        // SAFETY: nginx has made the phases' arrays before `postconfiguration`.
        unsafe {
            let ctx = (*self.0).ctx.cast::<ngx_http_conf_ctx_t>();
            let core = (*ctx).main_conf.add((*ptr::addr_of!(ngx_http_core_module)).ctx_index);
            let core = (*core).cast::<ngx_http_core_main_conf_t>();
            let phases = ptr::addr_of_mut!((*core).phases);
            let Some(phase) = (*phases).get_mut(phase as usize) else { return Err(NoMemory) };
            let slot =
                ngx_array_push(ptr::addr_of_mut!(phase.handlers)).cast::<ngx_http_handler_pt>();
            if slot.is_null() {
                return Err(NoMemory);
            }
            *slot = Some(handler);
        }
        Ok(())
    }

    /// Has `init` run in place of each upstream's own: at a time when the request is written, and
    /// no server chosen.
    pub(crate) fn intercept_upstreams(self, init: InitPeer) -> Intercepted {
        let mut replaced = Vec::new();
        // SAFETY: nginx has initialized the upstreams before `postconfiguration`; the array holds
        // pointers to them.
        unsafe {
            let upstreams = (*upstreams(self)).as_slice::<*mut ngx_http_upstream_srv_conf_t>();
            for &upstream in upstreams {
                if let Some(own) = (*upstream).peer.init.replace(init) {
                    replaced.push((address(upstream), own));
                }
            }
        }
        Intercepted(replaced)
    }

    /// Declares an upstream of ours, as `upstream name { ... }` would.
    pub(crate) fn add_upstream(self, name: &'static str, init: InitPeer) -> Result<(), NoMemory> {
        // SAFETY: what the `upstream` directive does; nginx has initialized the other upstreams
        // already and does not come back for this one.
        unsafe {
            let mut url: ngx_url_t = core::mem::zeroed();
            url.host = literal(name);
            url.set_no_resolve(1);
            let upstream = ngx_http_upstream_add(
                self.0,
                ptr::addr_of_mut!(url),
                NGX_HTTP_UPSTREAM_CREATE as ngx_uint_t,
            );
            if upstream.is_null() {
                return Err(NoMemory);
            }
            (*upstream).servers =
                ngx_array_create((*self.0).pool, 1, size_of::<ngx_http_upstream_server_t>());
            (*upstream).peer.init = Some(init);
        }
        Ok(())
    }
}

/// What runs for each upstream, by its address, unless something of ours runs before.
#[derive(Default)]
pub(crate) struct Intercepted(Vec<(usize, InitPeer)>);

impl Intercepted {
    /// Goes on with the upstream's own.
    ///
    /// # Safety
    ///
    /// `r` and `upstream` are what nginx passed.
    pub(crate) unsafe fn init(
        &self,
        r: *mut ngx_http_request_t,
        upstream: *mut ngx_http_upstream_srv_conf_t,
    ) -> ngx_int_t {
        match self.0.iter().find(|(known, _)| *known == address(upstream)) {
            // SAFETY: the caller's promise.
            Some((_, init)) => unsafe { init(r, upstream) },
            None => ERROR,
        }
    }
}

/// A phase of nginx's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HttpPhase {
    ServerRewrite = nginx_sys::ngx_http_phases_NGX_HTTP_SERVER_REWRITE_PHASE as isize,
    Rewrite = nginx_sys::ngx_http_phases_NGX_HTTP_REWRITE_PHASE as isize,
    PreAccess = nginx_sys::ngx_http_phases_NGX_HTTP_PREACCESS_PHASE as isize,
    PreContent = nginx_sys::ngx_http_phases_NGX_HTTP_PRECONTENT_PHASE as isize,
    Log = nginx_sys::ngx_http_phases_NGX_HTTP_LOG_PHASE as isize,
}

impl Conf {
    /// Has `init` choose the peers of every `proxy_pass` whose variables make it lead to `host`: at
    /// `port`, or at none if that is `None`. `false` if the user has an `upstream` of that name,
    /// which comes first.
    ///
    /// `ngx_http_upstream_add()` would take the upstream that a `proxy_pass` without variables has
    /// made of the same host for the same.
    pub(crate) fn add_origin(
        self,
        host: &str,
        port: Option<u16>,
        init: InitPeer,
    ) -> Result<bool, NoMemory> {
        // SAFETY: nginx has made its list of upstreams before `postconfiguration`, and initialized
        // them; it holds pointers, in an order that nobody but the search for a host depends on.
        unsafe {
            let upstreams = upstreams(self);
            let known = (*upstreams).as_slice::<*mut ngx_http_upstream_srv_conf_t>();
            let is_users = known.iter().any(|&known| {
                (*known).flags & NGX_HTTP_UPSTREAM_CREATE as ngx_uint_t != 0
                    && bytes((*known).host).eq_ignore_ascii_case(host.as_bytes())
            });
            if is_users {
                return Ok(false);
            }

            let upstream =
                nginx_sys::ngx_pcalloc((*self.0).pool, size_of::<ngx_http_upstream_srv_conf_t>())
                    .cast::<ngx_http_upstream_srv_conf_t>();
            if upstream.is_null() || ngx_array_push(upstreams).is_null() {
                return Err(NoMemory);
            }
            (*upstream).host = copy((*self.0).pool, host.as_bytes())?;
            // nginx writes it with `%s` into error lines of its own.
            (*upstream).file_name = copy((*self.0).pool, b"docker_registry")?.data;
            (*upstream).port = port.unwrap_or(0);
            (*upstream).no_port = ngx_uint_t::from(port.is_none());
            (*upstream).servers =
                ngx_array_create((*self.0).pool, 1, size_of::<ngx_http_upstream_server_t>());
            (*upstream).peer.init = Some(init);

            // The first that fits is taken.
            let first = (*upstreams).elts.cast::<*mut ngx_http_upstream_srv_conf_t>();
            ptr::copy(first, first.add(1), (*upstreams).nelts - 1);
            *first = upstream;
        }
        Ok(true)
    }

    /// A resolver that asks these name servers.
    pub(crate) fn create_resolver(self, servers: &[String]) -> Result<Resolver, NoMemory> {
        // SAFETY: nginx copies the addresses out of the names.
        unsafe {
            let mut names = Vec::with_capacity(servers.len());
            for server in servers {
                names.push(copy((*self.0).pool, server.as_bytes())?);
            }
            let resolver = ngx_resolver_create(self.0, names.as_mut_ptr(), names.len());
            if resolver.is_null() { Err(NoMemory) } else { Ok(Resolver(resolver)) }
        }
    }

    /// The bytes of a file, whose name is relative to the configuration file's directory.
    pub(crate) fn read_file(self, name: &str) -> std::io::Result<Vec<u8>> {
        // SAFETY: nginx writes the full name, from the configuration's pool, and ends it with NUL.
        let name = unsafe {
            let mut full = copy((*self.0).pool, name.as_bytes())
                .map_err(|NoMemory| std::io::ErrorKind::OutOfMemory)?;
            if ngx_conf_full_name(self.cycle(), ptr::addr_of_mut!(full), 1) != OK {
                return Err(std::io::ErrorKind::OutOfMemory.into());
            }
            String::from_utf8_lossy(bytes(full)).into_owned()
        };
        std::fs::read(name)
    }
}

/// nginx's list of upstreams.
unsafe fn upstreams(cf: Conf) -> *mut ngx_array_t {
    // SAFETY: the caller passes a `cf` of the http block, where the upstream module has its slot.
    unsafe {
        let ctx = (*cf.0).ctx.cast::<ngx_http_conf_ctx_t>();
        let conf = (*ctx).main_conf.add((*ptr::addr_of!(ngx_http_upstream_module)).ctx_index);
        ptr::addr_of_mut!((*(*conf).cast::<ngx_http_upstream_main_conf_t>()).upstreams)
    }
}

/// A resolver of the configuration's.
#[derive(Clone, Copy)]
pub(crate) struct Resolver(pub(super) *mut ngx_resolver_t);

/// A value that may hold variables, compiled at configuration time.
#[derive(Clone, Copy)]
pub(crate) struct ComplexValue(*mut ngx_http_complex_value_t);

impl ComplexValue {
    /// # Safety
    ///
    /// `value` is null, or a compiled value that lives as long as its configuration.
    pub(super) unsafe fn new(value: *mut ngx_http_complex_value_t) -> Option<Self> {
        (!value.is_null()).then_some(Self(value))
    }

    /// The value for this request; `None` if a variable could not be computed.
    pub(crate) fn evaluate<'r>(self, r: Request<'r>) -> Option<&'r [u8]> {
        let mut value = ngx_str_t::empty();
        // SAFETY: a compiled value lives as long as its configuration; nginx allocates the result
        // in the request's pool.
        unsafe {
            let rc = ngx_http_complex_value(r.as_ptr(), self.0, ptr::addr_of_mut!(value));
            (rc == OK).then(|| bytes(value))
        }
    }
}

/// One of the http modules that this nginx has.
#[derive(Clone, Copy)]
pub(crate) struct HttpModule(*mut ngx_module_t);

impl HttpModule {
    pub(crate) fn ctx_index(self) -> usize {
        // SAFETY: a module of the cycle's list.
        unsafe { (*self.0).ctx_index }
    }

    pub(super) fn definition(self) -> *mut ngx_http_module_t {
        // SAFETY: the context of an http module is its definition.
        unsafe { (*self.0).ctx.cast() }
    }

    /// The command of a directive, by which nginx itself finds the field that it fills.
    pub(super) fn command(self, name: &str) -> Option<*const ngx_command_t> {
        // SAFETY: a module's commands end with one that has no name.
        unsafe {
            let mut command: *const ngx_command_t = (*self.0).commands;
            while !command.is_null() && (*command).name.len > 0 {
                if bytes((*command).name) == name.as_bytes() {
                    return Some(command);
                }
                command = command.add(1);
            }
        }
        None
    }
}

/// The http modules of a cycle, in nginx's order.
pub(super) fn http_modules(cycle: *mut nginx_sys::ngx_cycle_t) -> impl Iterator<Item = HttpModule> {
    // SAFETY: the cycle's list of modules ends with a null pointer.
    let mut next = unsafe { (*cycle).modules };
    core::iter::from_fn(move || {
        // SAFETY: as above.
        unsafe {
            let module = *next;
            if module.is_null() {
                return None;
            }
            next = next.add(1);
            Some(module)
        }
    })
    // SAFETY: plain field of a module.
    .filter(|&module| unsafe { (*module).type_ } == nginx_sys::NGX_HTTP_MODULE as ngx_uint_t)
    .map(HttpModule)
}

/// The http module of that name in the cycle that `cf` makes.
pub(crate) fn http_module(cf: Conf, name: &str) -> Option<HttpModule> {
    http_modules(cf.cycle()).find(|module| {
        // SAFETY: nginx names every module before it reads the configuration.
        unsafe {
            let module_name = (*module.0).name;
            !module_name.is_null() && CStr::from_ptr(module_name).to_bytes() == name.as_bytes()
        }
    })
}

/// The cycle is about to be freed with its configuration.
pub(crate) fn on_cycle_end(
    cf: Conf,
    handler: unsafe extern "C" fn(*mut c_void),
) -> Result<(), NoMemory> {
    // SAFETY: the cycle's pool is live while it is configured.
    unsafe {
        let cleanup = nginx_sys::ngx_pool_cleanup_add((*cf.cycle()).pool, 0);
        if cleanup.is_null() {
            return Err(NoMemory);
        }
        (*cleanup).handler = Some(handler);
    }
    Ok(())
}
