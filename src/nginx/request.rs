//! The request, as nginx hands it to a callback.

use core::cell::RefCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::size_of;
use core::ops::ControlFlow;
use core::ptr::{self, NonNull};
use std::borrow::Cow;

use nginx_sys::{
    NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_POST,
    NGX_HTTP_VERSION_20, ngx_buf_t, ngx_chain_t, ngx_hash_key, ngx_http_clean_header,
    ngx_http_core_loc_conf_t, ngx_http_core_main_conf_t, ngx_http_core_module,
    ngx_http_core_run_phases, ngx_http_discard_request_body, ngx_http_finalize_request,
    ngx_http_log_ctx_t, ngx_http_output_filter, ngx_http_read_client_request_body,
    ngx_http_request_body_t, ngx_http_request_t, ngx_http_run_posted_requests,
    ngx_http_send_header, ngx_http_update_location_config, ngx_int_t, ngx_log_t, ngx_palloc,
    ngx_pnalloc, ngx_pool_cleanup_add, ngx_pool_t, ngx_table_elt_t, ngx_uint_t,
};

use super::bits::ngx_http_request_s as Bits;
use super::body::Chain;
use super::headers::lines;
use super::location::Location;
use super::log::{self, Level};
use super::upstream::Upstream;
use super::{
    DONE, ERROR, ListIter, Module, NoMemory, OK, bytes, chain_of, copy, ctx_index, literal,
};

/// A live request. Copied freely, kept no longer than the callback that received it.
#[derive(Clone, Copy)]
pub(crate) struct Request<'r>(NonNull<ngx_http_request_t>, PhantomData<&'r ()>);

impl<'r> Request<'r> {
    /// # Safety
    ///
    /// `r` is a request that nginx keeps alive for `'r`, and this is the event loop's thread.
    pub(crate) unsafe fn new(r: *mut ngx_http_request_t) -> Self {
        debug_assert!(!r.is_null());
        // SAFETY: nginx never passes a null request.
        Self(unsafe { NonNull::new_unchecked(r) }, PhantomData)
    }

    pub(super) fn as_ptr(self) -> *mut ngx_http_request_t {
        self.0.as_ptr()
    }

    fn bits(self) -> *mut Bits {
        self.as_ptr().cast()
    }

    pub(super) fn pool(self) -> *mut ngx_pool_t {
        // SAFETY: a live request has a pool.
        unsafe { (*self.as_ptr()).pool }
    }

    /// Not a subrequest.
    pub(crate) fn is_main(self) -> bool {
        // SAFETY: plain field of a live request.
        unsafe { (*self.as_ptr()).main == self.as_ptr() }
    }

    /// The request that the client sent: this one, or that of which this is a subrequest.
    pub(crate) fn main(self) -> Self {
        // SAFETY: a subrequest never outlives its main request.
        unsafe { Self::new((*self.as_ptr()).main) }
    }

    pub(crate) fn is_post_action(self) -> bool {
        // SAFETY: a bit of a live request.
        unsafe { Bits::post_action_raw(self.bits()) != 0 }
    }

    pub(crate) fn is_cached(self) -> bool {
        // SAFETY: a bit of a live request; only nginx with a cache has it.
        #[cfg(ngx_feature = "http_cache")]
        return unsafe { Bits::cached_raw(self.bits()) != 0 };
        #[cfg(not(ngx_feature = "http_cache"))]
        false
    }

    pub(crate) fn is_get_or_head(self) -> bool {
        // SAFETY: plain field of a live request.
        unsafe { (*self.as_ptr()).method & (NGX_HTTP_GET | NGX_HTTP_HEAD) as ngx_uint_t != 0 }
    }

    pub(crate) fn method(self) -> &'r [u8] {
        // SAFETY: a string of the request, or a constant.
        unsafe { bytes((*self.as_ptr()).method_name) }
    }

    /// How long ago the request began, in milliseconds.
    pub(crate) fn age(self) -> u64 {
        // SAFETY: plain fields of a live request, and the slot that nginx's clock points at.
        unsafe {
            let now = nginx_sys::ngx_cached_time;
            let milliseconds = |sec, msec| sec * 1000 + i64::try_from(msec).unwrap_or(0);
            let began = milliseconds((*self.as_ptr()).start_sec, (*self.as_ptr()).start_msec);
            // The clock may have been set meanwhile.
            u64::try_from(milliseconds((*now).sec, (*now).msec) - began).unwrap_or(0)
        }
    }

    /// How many bytes of the body were sent.
    pub(crate) fn body_sent(self) -> u64 {
        // SAFETY: a live request has a connection.
        unsafe {
            let sent = (*(*self.as_ptr()).connection).sent;
            u64::try_from(sent).unwrap_or(0).saturating_sub((*self.as_ptr()).header_size as u64)
        }
    }

    pub(crate) fn is_head(self) -> bool {
        // SAFETY: plain field of a live request.
        unsafe { (*self.as_ptr()).method & NGX_HTTP_HEAD as ngx_uint_t != 0 }
    }

    pub(crate) fn is_get(self) -> bool {
        // SAFETY: plain field of a live request.
        unsafe { (*self.as_ptr()).method & NGX_HTTP_GET as ngx_uint_t != 0 }
    }

    /// Its response has no body.
    pub(crate) fn is_header_only(self) -> bool {
        // SAFETY: a bit of a live request.
        unsafe { Bits::header_only_raw(self.bits()) != 0 }
    }

    /// The client announced a body, of any length but zero.
    pub(crate) fn has_body(self) -> bool {
        // SAFETY: plain fields of a live request.
        unsafe {
            let headers_in = ptr::addr_of!((*self.as_ptr()).headers_in);
            (*headers_in).content_length_n > 0 || (*headers_in).chunked() != 0
        }
    }

    /// "https" where TLS ends in this nginx.
    pub(crate) fn scheme(self) -> &'static str {
        // SAFETY: a live request has a connection.
        #[cfg(ngx_feature = "ssl")]
        if unsafe { !(*(*self.as_ptr()).connection).ssl.is_null() } {
            return "https";
        }
        "http"
    }

    /// The authority that the client asked for, unchecked: Host, else `:authority` (HTTP/3 has no
    /// line for it).
    pub(crate) fn authority(self) -> Option<&'r [u8]> {
        // SAFETY: the line is in the request's list; the pointers of the parsed authority lie in
        // the request's memory, the end not before the start.
        unsafe {
            let host = (*self.as_ptr()).headers_in.host;
            if !host.is_null() {
                return Some(bytes((*host).value));
            }
            let start = (*self.bits()).host_start;
            let length = (*self.bits()).host_end.addr().checked_sub(start.addr())?;
            (!start.is_null() && length > 0).then(|| core::slice::from_raw_parts(start, length))
        }
    }

    /// The request's field lines, in order.
    pub(crate) fn request_lines(self) -> impl Iterator<Item = (&'r [u8], &'r [u8])> + use<'r> {
        // SAFETY: nginx initializes the list before it parses the header.
        unsafe { lines(ptr::addr_of_mut!((*self.as_ptr()).headers_in.headers)) }
            .map(|line| (line.name(), line.value()))
    }

    /// Has `proxy_pass` leave out the request's lines of that name. It has no way to be told so, but
    /// leaves out those of a connection: they get the name of one.
    pub(crate) fn withhold_line(self, name: &str) {
        const HIDDEN: &str = "keep-alive";
        // SAFETY: nginx initializes the list before it parses the header; the names are static.
        unsafe {
            let list = ptr::addr_of_mut!((*self.as_ptr()).headers_in.headers);
            for line in ListIter::<ngx_table_elt_t>::new(list) {
                if bytes((*line).key).eq_ignore_ascii_case(name.as_bytes()) {
                    (*line).key = literal(HIDDEN);
                    (*line).lowcase_key = HIDDEN.as_ptr().cast_mut();
                    (*line).hash = ngx_hash_key(HIDDEN.as_ptr().cast_mut(), HIDDEN.len());
                }
            }
        }
    }

    /// The value of the request's first line of that name.
    pub(crate) fn request_line(self, name: &str) -> Option<&'r [u8]> {
        self.request_lines()
            .find(|(line, _)| line.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The URI as the client wrote it; as far as it is known where nginx could not read the
    /// request. It may be empty.
    pub(crate) fn client_uri(self) -> &'r [u8] {
        // SAFETY: nginx sets `unparsed_uri` when it could read the URI, and leaves it alone in
        // internal redirects and rewrites. Until then the URI begins at `uri_start` in the buffer
        // that the request line is read into, where `uri_end` may point anywhere; or, after HTTP/1,
        // lies in a string of its own, whose ends both are.
        unsafe {
            let unparsed = bytes((*self.as_ptr()).unparsed_uri);
            let (start, end) = ((*self.bits()).uri_start, (*self.bits()).uri_end);
            let buffer = (*self.as_ptr()).header_in;
            if !unparsed.is_empty() || start.is_null() || buffer.is_null() {
                return unparsed;
            }
            let read = (*buffer).start.addr()..=(*buffer).last.addr();
            let end = match (*self.as_ptr()).http_version {
                _ if read.contains(&start.addr()) => (*buffer).last,
                version if version >= NGX_HTTP_VERSION_20 as ngx_uint_t => end,
                _ => start,
            };
            core::slice::from_raw_parts(start, end.addr().saturating_sub(start.addr()))
        }
    }

    /// The status that an error page or `ngx_http_special_response_handler` set; 0 if none did.
    pub(crate) fn err_status(self) -> u16 {
        // SAFETY: plain field of a live request.
        unsafe { u16::try_from((*self.as_ptr()).err_status).unwrap_or(0) }
    }

    pub(crate) fn upstream(self) -> Option<Upstream<'r>> {
        // SAFETY: the upstream of a live request lies in its pool.
        unsafe { Upstream::new(self, (*self.as_ptr()).upstream) }
    }

    /// The location that the request is in.
    pub(crate) fn location(self) -> Location {
        // SAFETY: a live request is in a location, if only in its server's own.
        unsafe { Location::new((*self.as_ptr()).loc_conf) }
    }

    /// The module's configuration of the location that the request is in.
    pub(crate) fn loc_conf<M: Module>(self) -> &'r M::Loc {
        // SAFETY: nginx fills the slot for every location with what `create_loc_conf` returned,
        // and a configuration outlives its requests.
        unsafe { &*(*(*self.as_ptr()).loc_conf.add(ctx_index::<M>())).cast::<M::Loc>() }
    }

    /// The module's configuration of the whole `http` block.
    pub(crate) fn main_conf<M: Module>(self) -> &'r M::Main {
        // SAFETY: as for the location's.
        unsafe { &*(*(*self.as_ptr()).main_conf.add(ctx_index::<M>())).cast::<M::Main>() }
    }

    /// What this module knows of the request, if anything yet.
    ///
    /// An internal redirect zeroes `r->ctx`, so the context is a pool cleanup's data and is found
    /// again by its handler; subrequests share the pool, so it names its request.
    pub(crate) fn ctx<M: Module>(self) -> Option<&'r RefCell<M::Ctx>> {
        // SAFETY: the slot holds null or a holder of ours; so does the data of a cleanup with our
        // handler. The pool lives as long as the request.
        unsafe {
            let slot = (*self.as_ptr()).ctx.add(ctx_index::<M>());
            if (*slot).is_null() {
                let mut cleanup = (*self.pool()).cleanup;
                while !cleanup.is_null() {
                    let ours = (*cleanup).handler.is_some_and(|handler| {
                        ptr::fn_addr_eq(handler, drop_ctx as unsafe extern "C" fn(_))
                    });
                    if ours && (*(*cleanup).data.cast::<Header>()).request == self.as_ptr() {
                        *slot = (*cleanup).data;
                        break;
                    }
                    cleanup = (*cleanup).next;
                }
            }
            (*slot).cast::<Holder<M::Ctx>>().as_ref().map(|holder| &holder.value)
        }
    }

    /// The same, made where there is none.
    pub(crate) fn ctx_or_default<M: Module>(self) -> Result<&'r RefCell<M::Ctx>, NoMemory> {
        if let Some(ctx) = self.ctx::<M>() {
            return Ok(ctx);
        }
        const { assert!(align_of::<Holder<M::Ctx>>() <= align_of::<usize>()) };
        // SAFETY: the cleanup's data has the holder's size (a pool's alignment is that of a
        // pointer at least), and is written before its handler is set.
        unsafe {
            let cleanup = ngx_pool_cleanup_add(self.pool(), size_of::<Holder<M::Ctx>>());
            if cleanup.is_null() {
                return Err(NoMemory);
            }
            let holder = (*cleanup).data.cast::<Holder<M::Ctx>>();
            let drop = |header: *mut Header| ptr::drop_in_place(header.cast::<Holder<M::Ctx>>());
            holder.write(Holder {
                header: Header { request: self.as_ptr(), drop },
                value: RefCell::default(),
            });
            (*cleanup).handler = Some(drop_ctx);
            *(*self.as_ptr()).ctx.add(ctx_index::<M>()) = holder.cast();
            Ok(&(*holder).value)
        }
    }

    /// Lines of this level are written: for those whose text costs something.
    pub(crate) fn logs(self, level: Level) -> bool {
        // SAFETY: a live request has a connection with a log.
        unsafe { (*(*(*self.as_ptr()).connection).log).log_level >= level as usize }
    }

    pub(crate) fn log(self, level: Level, message: fmt::Arguments<'_>) {
        // SAFETY: a live request has a connection with a log.
        unsafe { log::write((*(*self.as_ptr()).connection).log, level, message) }
    }

    pub(super) fn log_ptr(self) -> *mut ngx_log_t {
        // SAFETY: a live request has a connection with a log.
        unsafe { (*(*self.as_ptr()).connection).log }
    }

    /// The request's own path, unescaped.
    pub(crate) fn path(self) -> &'r [u8] {
        // SAFETY: a string of a live request.
        unsafe { bytes((*self.as_ptr()).uri) }
    }

    /// What stands behind the question mark, as it came.
    pub(crate) fn query(self) -> &'r [u8] {
        // SAFETY: a string of a live request.
        unsafe { bytes((*self.as_ptr()).args) }
    }

    /// Has the client's GET be a HEAD from now on, to whoever looks; or a GET again.
    pub(crate) fn set_head(self, is_head: bool) {
        let (method, name) = if is_head { (NGX_HTTP_HEAD, "HEAD") } else { (NGX_HTTP_GET, "GET") };
        // SAFETY: plain fields of a live request; the names are static.
        unsafe {
            (*self.as_ptr()).method = method as ngx_uint_t;
            (*self.as_ptr()).method_name = literal(name);
        }
    }

    /// Has nginx allow so many internal redirects.
    pub(crate) fn set_redirects_left(self, number: u32) {
        // SAFETY: a bit-field of a live request. At 0 nginx answers 500.
        unsafe { Bits::set_uri_changes_raw(self.bits(), number + 1) };
    }

    /// How many internal redirects nginx still allows this request.
    pub(crate) fn redirects_left(self) -> u32 {
        // SAFETY: a bit-field of a live request. At 0 nginx answers 500.
        unsafe { Bits::uri_changes_raw(self.bits()) }.saturating_sub(1)
    }

    /// Forgets the response as far as it was prepared.
    pub(crate) fn clear_response(self) {
        // SAFETY: nothing of the response was sent yet, or the header filter would not run.
        unsafe {
            ngx_http_clean_header(self.as_ptr());
            (*self.as_ptr()).err_status = 0;
            Bits::set_allow_ranges_raw(self.bits(), 0);
        }
    }

    /// Takes the client's version of HTTP back, which nginx changes where upstream speaks none: an
    /// answer would have no header.
    pub(crate) fn restore_http_version(self) {
        // SAFETY: plain fields of a live request; the string is empty where the client speaks
        // HTTP/0.9 itself.
        unsafe {
            if let [.., major @ b'1'..=b'3', b'.', minor @ b'0'..=b'9'] =
                bytes((*self.as_ptr()).http_protocol)
            {
                // As in NGX_HTTP_VERSION_11.
                let version =
                    ngx_uint_t::from(major - b'0') * 1000 + ngx_uint_t::from(minor - b'0');
                (*self.as_ptr()).http_version = version;
            }
        }
    }

    /// An error page has led here: nginx does not let another one act.
    pub(crate) fn is_error_page(self) -> bool {
        // SAFETY: a bit of a live request.
        unsafe { Bits::error_page_raw(self.bits()) != 0 }
    }

    /// Lets an error page act again (nginx allows one a request, unless they are recursive).
    pub(crate) fn allow_error_page(self) {
        // SAFETY: plain fields of a live request.
        unsafe {
            (*self.as_ptr()).err_status = 0;
            Bits::set_error_page_raw(self.bits(), 0);
        }
    }

    /// Makes an internal redirect to `location`: `ngx_http_named_location()` without the look-up,
    /// for a location that has no name or is in no server's list.
    pub(crate) fn enter(self, location: Location) {
        let r = self.as_ptr();
        // SAFETY: the same writes as nginx's, on a live request that has no upstream any more; the
        // location belongs to the request's own configuration.
        unsafe {
            let main = (*r).main.cast::<Bits>();
            Bits::set_count_raw(main, Bits::count_raw(main) + 1);
            Bits::set_uri_changes_raw(self.bits(), Bits::uri_changes_raw(self.bits()) - 1);
            if Bits::uri_changes_raw(self.bits()) == 0 {
                self.log(Level::Error, format_args!("internal redirection cycle"));
                ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t);
                return;
            }

            Bits::set_internal_raw(self.bits(), 1);
            Bits::set_uri_changed_raw(self.bits(), 0);
            ptr::write_bytes((*r).ctx, 0, nginx_sys::ngx_http_max_module);
            (*r).content_handler = None;
            self.change_to(location);

            (*r).phase_handler =
                (*core_main_conf(r)).phase_engine.location_rewrite_index as ngx_int_t;
            (*r).write_event_handler = Some(ngx_http_core_run_phases);
            ngx_http_core_run_phases(r);
        }
    }

    /// Runs the phases from the one that the request is in; for the start of a subrequest.
    pub(crate) fn run_phases(self) {
        // SAFETY: plain fields of a live subrequest. Its main request is counted once more than
        // this one's end takes back, and where a handler terminates that, nginx does so in a posted
        // request (`ngx_http_terminate_request()`): both live until this callback has returned.
        unsafe {
            (*self.as_ptr()).write_event_handler = Some(ngx_http_core_run_phases);
            ngx_http_core_run_phases(self.as_ptr());
        }
    }

    /// Goes on under the configuration of `location`, from the phase that the request is in.
    pub(crate) fn change_to(self, location: Location) {
        // SAFETY: the location's array has a slot for every module, as the one it replaces.
        unsafe {
            (*self.as_ptr()).loc_conf = location.as_ptr();
            ngx_http_update_location_config(self.as_ptr());
        }
    }

    /// Skips the phases up to the content phase; for a phase handler that declines next.
    ///
    /// Only what comes after the access phase may be skipped so: auth_request would run again at
    /// every hop, and mirror send every request twice.
    pub(crate) fn skip_to_content(self) {
        // SAFETY: the phase engine's handlers end with one whose checker is null; the content
        // phase is always among them.
        unsafe {
            let handlers = (*core_main_conf(self.as_ptr())).phase_engine.handlers;
            let mut index = (*self.as_ptr()).phase_handler;
            while let Some(checker) = (*handlers.offset(index)).checker {
                if ptr::fn_addr_eq(
                    checker,
                    nginx_sys::ngx_http_core_content_phase as unsafe extern "C" fn(_, _) -> _,
                ) {
                    (*self.as_ptr()).phase_handler = index - 1;
                    return;
                }
                index += 1;
            }
        }
    }

    pub(crate) fn is_post(self) -> bool {
        // SAFETY: plain field of a live request.
        unsafe { (*self.as_ptr()).method & NGX_HTTP_POST as ngx_uint_t != 0 }
    }

    /// The length of the client's body, if it is announced.
    pub(crate) fn body_length(self) -> Option<usize> {
        // SAFETY: plain fields of a live request; -1 is "none".
        unsafe {
            let headers_in = ptr::addr_of!((*self.as_ptr()).headers_in);
            if (*headers_in).chunked() != 0 {
                return None;
            }
            Some(usize::try_from((*headers_in).content_length_n).unwrap_or(0))
        }
    }

    /// Reads the client's body, and then runs `then`; for a content handler, which returns what
    /// this returns.
    pub(crate) fn read_body(self, then: BodyHandler) -> ngx_int_t {
        // SAFETY: a live request in its content phase. Of its body, nginx reads nothing twice that
        // another module has read.
        let rc = unsafe { ngx_http_read_client_request_body(self.as_ptr(), Some(then)) };
        // As nginx's own handlers do with NGX_HTTP_SPECIAL_RESPONSE and above.
        if rc >= 300 { rc } else { DONE }
    }

    /// The body that was read, wherever nginx has put it; nothing if it cannot be had.
    pub(crate) fn body(self) -> Option<Vec<u8>> {
        // SAFETY: null, or a body whose buffers live as long as the request.
        let chain = unsafe {
            let body = (*self.as_ptr()).request_body;
            if body.is_null() {
                return None;
            }
            Chain::new((*body).bufs)
        };
        let mut whole = Vec::new();
        let read = chain.read(self, |bytes| {
            whole.extend_from_slice(bytes);
            ControlFlow::Continue(())
        });
        read.ok().map(|()| whole)
    }

    /// Puts another body in the place of the one that was read. Subrequests that there are keep
    /// that, as they keep its length.
    pub(crate) fn set_body(self, bytes: &[u8]) -> Result<(), NoMemory> {
        // SAFETY: the body was read; its structure is copied whole, and the copy, buffer and link
        // come from the request's pool.
        unsafe {
            let read = (*self.as_ptr()).request_body;
            let body = ngx_palloc(self.pool(), size_of::<ngx_http_request_body_t>())
                .cast::<ngx_http_request_body_t>();
            if read.is_null() || body.is_null() {
                return Err(NoMemory);
            }
            ptr::copy_nonoverlapping(read, body, 1);
            (*body).bufs = ptr::null_mut();
            // nginx takes an empty buffer for a fault, and the request stays where it is.
            if !bytes.is_empty() {
                (*body).bufs = chain_of(self.pool(), bytes)?;
            }
            (*self.as_ptr()).request_body = body;
            (*self.as_ptr()).headers_in.content_length_n = bytes.len() as nginx_sys::off_t;
        }
        Ok(())
    }

    /// Ends what [`read_body`](Self::read_body) has begun; `rc` is a content handler's.
    pub(crate) fn finalize(self, rc: ngx_int_t) {
        // SAFETY: a live request, whose count reading its body has raised.
        unsafe { ngx_http_finalize_request(self.as_ptr(), rc) };
    }

    /// nginx would make an absolute URL of a `Location` that is a path, with its own idea of scheme
    /// and port.
    pub(crate) fn keep_location_relative(self) {
        // SAFETY: plain field of a live request.
        unsafe { (*self.as_ptr()).headers_out.location = ptr::null_mut() };
    }

    /// Who answers in the content phase.
    pub(crate) fn content_handler(self) -> Option<Handler> {
        // SAFETY: plain field of a live request.
        unsafe { (*self.as_ptr()).content_handler }
    }

    /// Who answers in the location that the request is in.
    pub(crate) fn location_handler(self) -> Option<Handler> {
        // SAFETY: the slot is the core module's, in every location.
        unsafe {
            let index = (*ptr::addr_of!(ngx_http_core_module)).ctx_index;
            let core = (*(*self.as_ptr()).loc_conf.add(index)).cast::<ngx_http_core_loc_conf_t>();
            (*core).handler
        }
    }

    /// Has `handler` answer in the content phase.
    pub(crate) fn set_content_handler(self, handler: Handler) {
        // SAFETY: plain field of a live request.
        unsafe { (*self.as_ptr()).content_handler = Some(handler) };
    }

    /// Has `handler`, which was the request's content handler, answer; returns what that returns.
    pub(crate) fn run(self, handler: Handler) -> ngx_int_t {
        // SAFETY: a live request in its content phase, which is what the handler is for.
        unsafe { handler(self.as_ptr()) }
    }

    /// Writes nothing to the log until the guard is dropped.
    pub(crate) fn silence(self) -> Silence {
        // SAFETY: a live request has a connection with a log of its own.
        let log = unsafe { (*(*self.as_ptr()).connection).log };
        // SAFETY: as above.
        let level = unsafe { core::mem::replace(&mut (*log).log_level, 0) };
        Silence { log, level }
    }

    /// Path and query as the client sent them; as `rewrite` made them, where one did.
    pub(crate) fn uri(self) -> Cow<'r, [u8]> {
        // SAFETY: plain fields of a live request, whose strings live in its pool.
        unsafe {
            let r = self.as_ptr();
            if Bits::valid_unparsed_uri_raw(self.bits()) != 0 {
                return Cow::Borrowed(bytes((*r).unparsed_uri));
            }
            match bytes((*r).args) {
                [] => Cow::Borrowed(bytes((*r).uri)),
                args => Cow::Owned([bytes((*r).uri), b"?", args].concat()),
            }
        }
    }

    /// These texts in one, which lives as long as the request.
    pub(crate) fn joined<const N: usize>(self, parts: [&str; N]) -> Result<&'r [u8], NoMemory> {
        let length = parts.iter().map(|part| part.len()).sum();
        // SAFETY: the memory is the pool's, `length` bytes long, and written whole.
        unsafe {
            let start = ngx_pnalloc(self.pool(), length).cast::<u8>();
            if start.is_null() {
                return Err(NoMemory);
            }
            let mut end = start;
            for part in parts {
                ptr::copy_nonoverlapping(part.as_ptr(), end, part.len());
                end = end.add(part.len());
            }
            Ok(core::slice::from_raw_parts(start, length))
        }
    }

    /// Watches for the client's leaving while the request waits in a phase; [`Waiting::go_on`] ends
    /// that.
    pub(crate) fn watch_client(self) {
        // SAFETY: plain field of a live request.
        unsafe {
            (*self.as_ptr()).read_event_handler = Some(nginx_sys::ngx_http_test_reading);
        }
    }

    /// Discards the rest of the client's body, as every answer without an upstream has to.
    pub(crate) fn discard_body(self) -> Result<(), ngx_int_t> {
        // SAFETY: a live request in its content phase.
        match unsafe { ngx_http_discard_request_body(self.as_ptr()) } {
            OK => Ok(()),
            status => Err(status),
        }
    }

    /// Copies `data` into the request's memory.
    pub(crate) fn keep(self, data: &[u8]) -> Result<&'r [u8], NoMemory> {
        // SAFETY: the pool lives as long as the request.
        unsafe { Ok(bytes(copy(self.pool(), data)?)) }
    }

    /// Sends the header and a whole body; returns what a content handler returns.
    pub(crate) fn send(self, body: &[u8]) -> ngx_int_t {
        let Ok(body) = self.keep(body) else { return ERROR };
        // SAFETY: a live request whose header was not sent yet.
        let rc = unsafe { ngx_http_send_header(self.as_ptr()) };
        self.send_body(rc, body)
    }

    /// Sends `body` instead of the one that whoever is sending the header holds: they take the
    /// answer for one that has none, as to a HEAD. For a header filter, with what the next one has
    /// returned; returns what the filter returns.
    pub(crate) fn send_instead(self, rc: ngx_int_t, body: &'r [u8]) -> ngx_int_t {
        let rc = self.send_body(rc, body);
        // SAFETY: a bit of a live request.
        unsafe { Bits::set_header_only_raw(self.bits(), 1) };
        rc
    }

    /// Sends a whole body, of the request's memory, behind a header, which was sent with the result
    /// `rc`.
    fn send_body(self, rc: ngx_int_t, body: &'r [u8]) -> ngx_int_t {
        // SAFETY: a live request whose header was sent; the buffer comes from its pool and is
        // written whole. Nobody writes to a buffer that is `memory`.
        unsafe {
            if rc == ERROR || rc > OK || Bits::header_only_raw(self.bits()) != 0 {
                return rc;
            }
            let buffer =
                nginx_sys::ngx_pcalloc(self.pool(), size_of::<ngx_buf_t>()).cast::<ngx_buf_t>();
            if buffer.is_null() {
                return ERROR;
            }
            let body = body.as_ptr_range();
            (*buffer).pos = body.start.cast_mut();
            (*buffer).last = body.end.cast_mut();
            (*buffer).set_memory(u32::from(!body.is_empty()));
            (*buffer).set_last_buf(u32::from(self.is_main()));
            (*buffer).set_last_in_chain(1);
            let mut chain = ngx_chain_t { buf: buffer, next: ptr::null_mut() };
            ngx_http_output_filter(self.as_ptr(), ptr::addr_of_mut!(chain))
        }
    }

    /// Writes an attempt that never reached an upstream into `$upstream_status` and its siblings.
    pub(crate) fn add_upstream_state(self, peer: &str, status: u16) -> Result<(), NoMemory> {
        // SAFETY: the array is nginx's own type of element; both pieces come from the pool.
        unsafe {
            let r = self.as_ptr();
            if (*r).upstream_states.is_null() {
                (*r).upstream_states = nginx_sys::ngx_array_create(
                    self.pool(),
                    1,
                    size_of::<nginx_sys::ngx_http_upstream_state_t>(),
                );
            }
            if (*r).upstream_states.is_null() {
                return Err(NoMemory);
            }
            let state = nginx_sys::ngx_array_push((*r).upstream_states)
                .cast::<nginx_sys::ngx_http_upstream_state_t>();
            let name = nginx_sys::ngx_palloc(self.pool(), size_of::<nginx_sys::ngx_str_t>())
                .cast::<nginx_sys::ngx_str_t>();
            if state.is_null() || name.is_null() {
                return Err(NoMemory);
            }
            name.write(copy(self.pool(), peer.as_bytes())?);
            ptr::write_bytes(state, 0, 1);
            (*state).status = usize::from(status);
            (*state).connect_time = nginx_sys::ngx_msec_t::MAX;
            (*state).header_time = nginx_sys::ngx_msec_t::MAX;
            (*state).peer = name;
        }
        Ok(())
    }
}

/// A request that waits in a phase.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) request: *mut ngx_http_request_t,
    phase: ngx_int_t,
}

impl Waiting {
    /// `r` is about to wait in the phase that it is in.
    pub(super) fn new(r: Request<'_>) -> Self {
        // SAFETY: plain field of a live request.
        Self { request: r.as_ptr(), phase: unsafe { (*r.as_ptr()).phase_handler } }
    }

    /// Goes on with it from outside of its connection's events; not if it has been led away: where
    /// the client leaves, `post_action` runs the request once more.
    ///
    /// # Safety
    ///
    /// The request lives. It may be freed afterwards.
    pub(super) unsafe fn go_on(self) {
        let r = self.request;
        // SAFETY: what nginx does when the resolver has answered; it frees a connection no earlier
        // than the event that is being handled.
        unsafe {
            if (*r).phase_handler != self.phase {
                return;
            }
            let connection = (*r).connection;
            log_as(r);
            // Whoever comes next may not care whether the client leaves
            // (`proxy_ignore_client_abort`).
            (*r).read_event_handler = Some(nginx_sys::ngx_http_block_reading);
            (*r).write_event_handler = Some(ngx_http_core_run_phases);
            ngx_http_core_run_phases(r);
            ngx_http_run_posted_requests(connection);
        }
    }
}

/// Lines in the connection's log are about `r` from now on.
///
/// # Safety
///
/// `r` is a live request.
pub(super) unsafe fn log_as(r: *mut ngx_http_request_t) {
    // SAFETY: the data of a request's log, if it has any, is this.
    unsafe {
        let log_ctx = (*(*(*r).connection).log).data.cast::<ngx_http_log_ctx_t>();
        if !log_ctx.is_null() {
            (*log_ctx).current_request = r;
        }
    }
}

/// What goes on when a body was read.
pub(crate) type BodyHandler = unsafe extern "C" fn(*mut ngx_http_request_t);

/// nginx's content handler.
pub(crate) type Handler = unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t;

/// A log that writes nothing.
pub(crate) struct Silence {
    log: *mut ngx_log_t,
    level: ngx_uint_t,
}

impl Drop for Silence {
    fn drop(&mut self) {
        // SAFETY: the guard lives no longer than the callback in which the request is live.
        unsafe { (*self.log).log_level = self.level };
    }
}

/// nginx's own configuration of the whole `http` block.
pub(super) unsafe fn core_main_conf(r: *mut ngx_http_request_t) -> *mut ngx_http_core_main_conf_t {
    // SAFETY: the caller passes a live request; the slot is the core module's.
    unsafe { (*(*r).main_conf.add((*ptr::addr_of!(ngx_http_core_module)).ctx_index)).cast() }
}

#[repr(C)]
struct Holder<T> {
    header: Header,
    value: RefCell<T>,
}

struct Header {
    request: *mut ngx_http_request_t,
    drop: unsafe fn(*mut Header),
}

/// One function for all types, so that its address tells our cleanups from others'.
unsafe extern "C" fn drop_ctx(data: *mut core::ffi::c_void) {
    let header = data.cast::<Header>();
    // SAFETY: nginx passes the data of a cleanup that `ctx_or_default` made, once.
    super::guard((), || unsafe { ((*header).drop)(header) });
}
