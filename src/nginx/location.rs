//! Locations that no configuration file has.

use core::ffi::c_void;
use core::mem;
use core::ptr::{self, NonNull};

use nginx_sys::{
    NGX_HTTP_LOC_CONF, ngx_array_create, ngx_array_push, ngx_array_t, ngx_buf_t, ngx_conf_file_t,
    ngx_conf_parse, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t, ngx_http_core_module,
    ngx_http_core_srv_conf_t, ngx_http_err_page_t, ngx_http_max_module, ngx_http_upstream_conf_t,
    ngx_pcalloc, ngx_str_t, ngx_uint_t,
};

use super::conf::{Conf, Resolver, http_modules};
use super::{Module, NoMemory, bytes, copy, ctx_index};

/// A location's configurations, one a module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location(NonNull<*mut c_void>);

/// A location and the server that it is in, as `merge_loc_conf` sees them.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    server: *mut *mut c_void,
    pub(crate) location: Location,
}

/// A location could not be made; nginx's log says why.
pub(crate) struct Refused;

impl From<NoMemory> for Refused {
    fn from(NoMemory: NoMemory) -> Self {
        Self
    }
}

impl Location {
    /// # Safety
    ///
    /// `location` is the array of a location's configurations, as long as they live.
    pub(super) unsafe fn new(location: *mut *mut c_void) -> Self {
        debug_assert!(!location.is_null());
        // SAFETY: nginx has no location without configurations.
        Self(unsafe { NonNull::new_unchecked(location) })
    }

    pub(super) fn as_ptr(self) -> *mut *mut c_void {
        self.0.as_ptr()
    }

    fn core(self) -> *mut ngx_http_core_loc_conf_t {
        // SAFETY: the array has a slot for every http module, the core's among them.
        unsafe { (*self.as_ptr().add((*ptr::addr_of!(ngx_http_core_module)).ctx_index)).cast() }
    }

    /// The module's configuration of the location.
    pub(crate) fn conf<'c, M: Module>(self) -> &'c mut M::Loc {
        // SAFETY: the slot holds what `create_loc_conf` returned; while the configuration is read
        // nobody else looks at it, but for `create_location`, over which the features do not hold
        // it.
        unsafe { &mut *(*self.as_ptr().add(ctx_index::<M>())).cast::<M::Loc>() }
    }

    /// Something answers here (`proxy_pass`, ...), or it is an `if` or `limit_except` of a
    /// location where something does.
    pub(crate) fn can_answer(self) -> bool {
        // SAFETY: plain fields of the core's configuration.
        unsafe { (*self.core()).handler.is_some() || self.is_block() }
    }

    /// An `if` or `limit_except`.
    pub(crate) fn is_block(self) -> bool {
        // SAFETY: a bit of the core's configuration.
        unsafe { (*self.core()).noname() != 0 }
    }

    /// It has a `resolver`, of its own or from an outer level.
    pub(crate) fn has_resolver(self) -> bool {
        // SAFETY: merged levels have a resolver, a dummy without connections if none is set.
        unsafe {
            let resolver = (*self.core()).resolver;
            !resolver.is_null() && (*resolver).connections.nelts > 0
        }
    }

    /// The `proxy_pass` of the location, by its number among the http modules: its configuration
    /// starts with the upstream's.
    fn proxy(self, proxy: usize) -> *const ngx_http_upstream_conf_t {
        // SAFETY: the array has a slot for every http module.
        unsafe { (*self.as_ptr().add(proxy)).cast() }
    }

    /// Host and port of the upstream of `proxy_pass`, as the configuration names it; `None` where
    /// variables do.
    pub(crate) fn upstream_name<'c>(self, proxy: usize) -> Option<(&'c [u8], u16)> {
        // SAFETY: the configuration of `proxy_pass` lives as long as the location; null, or an
        // upstream that lives as long as both.
        unsafe {
            let upstream = (*self.proxy(proxy)).upstream;
            (!upstream.is_null()).then(|| (bytes((*upstream).host), (*upstream).port))
        }
    }

    /// It has a `proxy_cache`.
    pub(crate) fn has_proxy_cache(self, proxy: usize) -> bool {
        // SAFETY: as above.
        #[cfg(ngx_feature = "http_cache")]
        return unsafe {
            let conf = self.proxy(proxy);
            !(*conf).cache_zone.is_null() || !(*conf).cache_value.is_null()
        };
        #[cfg(not(ngx_feature = "http_cache"))]
        return self.proxy(proxy).is_null();
    }

    /// Its `proxy_pass` checks certificates.
    pub(crate) fn verifies_upstream(self, proxy: usize) -> bool {
        // SAFETY: as above.
        #[cfg(ngx_feature = "ssl")]
        return unsafe { (*self.proxy(proxy)).ssl_verify == 1 };
        #[cfg(not(ngx_feature = "ssl"))]
        return false;
    }

    /// Gives it a `resolver`.
    pub(crate) fn set_resolver(self, resolver: Resolver) {
        // SAFETY: a plain field of the core's configuration; the resolver lives as long.
        unsafe { (*self.core()).resolver = resolver.0 };
    }

    /// One of its `error_page`s takes `status`.
    pub(crate) fn has_error_page(self, status: u16) -> bool {
        // SAFETY: null, or an array of error pages.
        unsafe {
            let pages: *mut ngx_array_t = (*self.core()).error_pages;
            !pages.is_null()
                && (*pages)
                    .as_slice::<ngx_http_err_page_t>()
                    .iter()
                    .any(|page| page.status == isize::from(status.cast_signed()))
        }
    }

    /// Takes its `error_page`s away.
    pub(crate) fn clear_error_pages(self) {
        // SAFETY: a plain field of the core's configuration, which is this location's own copy.
        unsafe { (*self.core()).error_pages = ptr::null_mut() };
    }

    /// The string that another module's directive `directive` has here; empty if none, or if this
    /// nginx has no such directive.
    ///
    /// The field is found as nginx finds it: by the offset in the directive's command.
    pub(crate) fn string_of<'c>(self, cf: Conf, directive: &str) -> &'c [u8] {
        for module in http_modules(cf.cycle()) {
            let Some(command) = module.command(directive) else { continue };
            // SAFETY: `ngx_conf_set_str_slot` writes an `ngx_str_t` at this offset; any other
            // handler is passed by.
            unsafe {
                let is_string = (*command).set.is_some_and(|set| {
                    ptr::fn_addr_eq(
                        set,
                        nginx_sys::ngx_conf_set_str_slot as unsafe extern "C" fn(_, _, _) -> _,
                    )
                });
                if is_string {
                    let conf = *self.as_ptr().add(module.ctx_index());
                    return bytes(*conf.byte_add((*command).offset).cast::<ngx_str_t>());
                }
            }
        }
        &[]
    }
}

impl Conf {
    /// The location whose configurations are being merged.
    pub(crate) fn place(self) -> Option<Place> {
        // SAFETY: while http modules merge, `ctx` is nginx's, and points to the level's arrays.
        unsafe {
            let ctx = (*self.0).ctx.cast::<ngx_http_conf_ctx_t>();
            let location = Location(NonNull::new((*ctx).loc_conf)?);
            Some(Place { server: (*ctx).srv_conf, location })
        }
    }

    /// Makes a location out of configuration text, inside `place`: it inherits what the text does
    /// not say.
    pub(crate) fn create_location(self, place: Place, text: &str) -> Result<Location, Refused> {
        // SAFETY: the steps of nginx's own `location` handler and of its merging, on a context of
        // ours; `cf` is put back as it was, on success and on failure.
        unsafe {
            let saved = *self.0;
            let result = self.create_location_in(place, text);
            *self.0 = saved;
            result
        }
    }

    unsafe fn create_location_in(self, place: Place, text: &str) -> Result<Location, Refused> {
        // SAFETY: see `create_location`.
        unsafe {
            let pool = (*self.0).pool;
            let outer = (*self.0).ctx.cast::<ngx_http_conf_ctx_t>();
            let ctx =
                ngx_pcalloc(pool, size_of::<ngx_http_conf_ctx_t>()).cast::<ngx_http_conf_ctx_t>();
            let location = ngx_pcalloc(pool, size_of::<*mut c_void>() * ngx_http_max_module);
            let Some(location) = NonNull::new(location.cast::<*mut c_void>()) else {
                return Err(Refused);
            };
            if ctx.is_null() {
                return Err(Refused);
            }
            (*ctx).main_conf = (*outer).main_conf;
            (*ctx).srv_conf = place.server;
            (*ctx).loc_conf = location.as_ptr();
            (*self.0).ctx = ctx.cast();
            let location = Location(location);

            for module in http_modules(self.cycle()) {
                let Some(create) = (*module.definition()).create_loc_conf else { continue };
                let conf = create(self.0);
                if conf.is_null() {
                    return Err(Refused);
                }
                *location.as_ptr().add(module.ctx_index()) = conf;
            }
            (*location.core()).loc_conf = location.as_ptr();
            (*location.core()).name = (*place.location.core()).name;
            (*location.core()).set_noname(1);

            let file = (*self.0).conf_file;
            let parsed = self.parse(text);
            (*self.0).conf_file = file;
            parsed?;

            for module in http_modules(self.cycle()) {
                let Some(merge) = (*module.definition()).merge_loc_conf else { continue };
                let index = module.ctx_index();
                let outer = *place.location.as_ptr().add(index);
                if !merge(self.0, outer, *location.as_ptr().add(index)).is_null() {
                    return Err(Refused);
                }
            }
            Ok(location)
        }
    }

    /// Reads the directives of a location out of `text`.
    unsafe fn parse(self, text: &str) -> Result<(), Refused> {
        // SAFETY: nginx reads a block from a buffer as from a file; with the closing brace in the
        // buffer it never comes to read the file.
        unsafe {
            let text = copy((*self.0).pool, format!("{text}\n}}\n").as_bytes())?;
            let mut buffer: ngx_buf_t = mem::zeroed();
            buffer.start = text.data;
            buffer.pos = text.data;
            buffer.last = text.data.add(text.len);
            buffer.end = buffer.last;
            buffer.set_temporary(1);

            let mut file: ngx_conf_file_t = mem::zeroed();
            file.buffer = ptr::addr_of_mut!(buffer);
            // Any descriptor but NGX_INVALID_FILE says "a block, not a file".
            file.file.fd = i32::MAX;
            // nginx prints it as a C string.
            let name = c"the docker module's follow location";
            file.file.name =
                ngx_str_t { len: name.count_bytes(), data: name.as_ptr().cast::<u8>().cast_mut() };
            file.file.log = (*self.0).log;
            file.line = 1;

            (*self.0).conf_file = ptr::addr_of_mut!(file);
            (*self.0).cmd_type = NGX_HTTP_LOC_CONF as ngx_uint_t;
            (*self.0).args = ngx_array_create((*self.0).pool, 10, size_of::<ngx_str_t>());
            if (*self.0).args.is_null() || !ngx_conf_parse(self.0, ptr::null_mut()).is_null() {
                return Err(Refused);
            }
        }
        Ok(())
    }

    /// A location that is `location` but for what is changed afterwards on either.
    pub(crate) fn copy_location(self, location: Location) -> Result<Location, NoMemory> {
        // SAFETY: both allocations are as large as what is copied into them.
        unsafe {
            let pool = (*self.0).pool;
            let array = ngx_pcalloc(pool, size_of::<*mut c_void>() * ngx_http_max_module)
                .cast::<*mut c_void>();
            let core = ngx_pcalloc(pool, size_of::<ngx_http_core_loc_conf_t>())
                .cast::<ngx_http_core_loc_conf_t>();
            let (Some(twin), false) = (NonNull::new(array), core.is_null()) else {
                return Err(NoMemory);
            };
            ptr::copy_nonoverlapping(location.as_ptr(), array, ngx_http_max_module);
            ptr::copy_nonoverlapping(location.core(), core, 1);
            // Whoever comes here has passed the methods' check, and must not leave again.
            (*core).limit_except = 0;
            (*core).loc_conf = array;
            *array.add((*ptr::addr_of!(ngx_http_core_module)).ctx_index) = core.cast();
            Ok(Location(twin))
        }
    }

    /// Gives `location` a name in the server of `place`.
    pub(crate) fn name_location(
        self,
        place: Place,
        location: Location,
        name: &str,
    ) -> Result<(), NoMemory> {
        // SAFETY: the server's list of named locations ends with a null pointer; requests see the
        // list that is in place when the configuration is done.
        unsafe {
            let server = *place.server.add((*ptr::addr_of!(ngx_http_core_module)).ctx_index);
            let server = server.cast::<ngx_http_core_srv_conf_t>();
            let old = (*server).named_locations;
            let mut count = 0;
            while !old.is_null() && !(*old.add(count)).is_null() {
                count += 1;
            }
            let new = ngx_pcalloc(
                (*self.0).pool,
                size_of::<*mut ngx_http_core_loc_conf_t>() * (count + 2),
            )
            .cast::<*mut ngx_http_core_loc_conf_t>();
            if new.is_null() {
                return Err(NoMemory);
            }
            if count > 0 {
                ptr::copy_nonoverlapping(old, new, count);
            }
            *new.add(count) = location.core();
            (*location.core()).name = copy((*self.0).pool, name.as_bytes())?;
            (*location.core()).set_noname(0);
            (*location.core()).set_named(1);
            (*server).named_locations = new;
        }
        Ok(())
    }

    /// Sends the errors `statuses` of `location` to the named location `name`, before any
    /// `error_page` of the user's. The error's status arrives there as `r->err_status`.
    ///
    /// The array is a private copy: locations share those that they inherit.
    pub(crate) fn prepend_error_pages(
        self,
        location: Location,
        statuses: &[u16],
        name: &str,
    ) -> Result<(), NoMemory> {
        // SAFETY: the array holds error pages; each is written whole.
        unsafe {
            let pool = (*self.0).pool;
            let old: *mut ngx_array_t = (*location.core()).error_pages;
            let new = ngx_array_create(pool, statuses.len() + 4, size_of::<ngx_http_err_page_t>());
            if new.is_null() {
                return Err(NoMemory);
            }
            let name = copy(pool, name.as_bytes())?;
            for &status in statuses {
                let mut page: ngx_http_err_page_t = mem::zeroed();
                page.status = isize::from(status.cast_signed());
                page.overwrite = page.status;
                page.value.value = name;
                push(new, page)?;
            }
            if !old.is_null() {
                for page in (*old).as_slice::<ngx_http_err_page_t>() {
                    push(new, *page)?;
                }
            }
            (*location.core()).error_pages = new;
        }
        Ok(())
    }
}

/// # Safety
///
/// `array` holds elements of `T`.
unsafe fn push<T>(array: *mut ngx_array_t, element: T) -> Result<(), NoMemory> {
    // SAFETY: the caller's promise.
    unsafe {
        let slot = ngx_array_push(array).cast::<T>();
        if slot.is_null() {
            return Err(NoMemory);
        }
        slot.write(element);
    }
    Ok(())
}
