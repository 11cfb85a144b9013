//! The edge: safe wrappers over what nginx gives and takes.
//!
//! All `unsafe` of the crate is here and in `module.rs`. The edge knows neither the features nor
//! their rules; it hands out facts and does what it is told. Every handle lives as long as the
//! callback that made it (the lifetime `'r`), because nginx frees requests in between.

pub(crate) mod body;
pub(crate) mod conf;
pub(crate) mod filter;
pub(crate) mod headers;
pub(crate) mod idle;
pub(crate) mod location;
pub(crate) mod log;
pub(crate) mod peer;
pub(crate) mod request;
pub(crate) mod resolver;
pub(crate) mod shm;
pub(crate) mod subrequest;
pub(crate) mod timer;
pub(crate) mod upstream;
pub(crate) mod variable;

use core::ffi::c_void;
use core::ptr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nginx_sys::{
    ngx_alloc_chain_link, ngx_chain_t, ngx_create_temp_buf, ngx_int_t, ngx_module_t, ngx_pnalloc,
    ngx_pool_t, ngx_str_t,
};

/// `ngx_http_request_t` with its bit-fields where C has them (see `build.rs`).
mod bits {
    #![allow(
        clippy::all,
        clippy::ptr_as_ptr,
        clippy::borrow_as_ptr,
        clippy::undocumented_unsafe_blocks,
        clippy::indexing_slicing,
        clippy::semicolon_if_nothing_returned,
        dead_code,
        missing_docs,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unnecessary_transmutes,
        unreachable_pub,
        unsafe_op_in_unsafe_fn
    )]
    include!(concat!(env!("OUT_DIR"), "/request.rs"));
}

pub(crate) const OK: ngx_int_t = nginx_sys::NGX_OK as ngx_int_t;
pub(crate) const ERROR: ngx_int_t = nginx_sys::NGX_ERROR as ngx_int_t;
pub(crate) const DECLINED: ngx_int_t = nginx_sys::NGX_DECLINED as ngx_int_t;
pub(crate) const DONE: ngx_int_t = nginx_sys::NGX_DONE as ngx_int_t;
pub(crate) const BUSY: ngx_int_t = nginx_sys::NGX_BUSY as ngx_int_t;
pub(crate) const BAD_REQUEST: ngx_int_t = nginx_sys::NGX_HTTP_BAD_REQUEST as ngx_int_t;
pub(crate) const BAD_GATEWAY: ngx_int_t = nginx_sys::NGX_HTTP_BAD_GATEWAY as ngx_int_t;
pub(crate) const AGAIN: ngx_int_t = nginx_sys::NGX_AGAIN as ngx_int_t;

/// What nginx keeps for a module, and the types behind its pointers.
///
/// # Safety
///
/// `Main` and `Loc` are what the module's `create_main_conf` and `create_loc_conf` return, and
/// only [`request::Request::ctx_or_default`] fills the module's slot in `r->ctx`.
pub(crate) unsafe trait Module {
    type Main;
    type Loc;
    type Ctx: Default;

    fn module() -> *const ngx_module_t;
}

/// The module's slot in the arrays `main_conf`, `loc_conf` and `ctx`.
fn ctx_index<M: Module>() -> usize {
    // SAFETY: the module is a static; nginx writes its index before it calls any callback.
    unsafe { (*M::module()).ctx_index }
}

/// Nothing could be allocated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoMemory;

/// The bytes of an nginx string.
///
/// # Safety
///
/// `string` describes memory that stays valid and unchanged for `'a`, or is empty.
unsafe fn bytes<'a>(string: ngx_str_t) -> &'a [u8] {
    if string.len == 0 || string.data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(string.data, string.len) }
}

/// Copies `bytes` into a pool, with a NUL behind them for those who read C strings.
///
/// # Safety
///
/// `pool` is a live pool.
unsafe fn copy(pool: *mut ngx_pool_t, bytes: &[u8]) -> Result<ngx_str_t, NoMemory> {
    // SAFETY: the caller's promise; the allocation has room for the bytes and the NUL.
    unsafe {
        let data = ngx_pnalloc(pool, bytes.len() + 1).cast::<u8>();
        if data.is_null() {
            return Err(NoMemory);
        }
        ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        *data.add(bytes.len()) = 0;
        Ok(ngx_str_t { len: bytes.len(), data })
    }
}

/// A chain of one buffer, which holds a copy of `bytes`: of one at least, an empty buffer is a fault
/// to nginx.
///
/// # Safety
///
/// `pool` is a live pool.
unsafe fn chain_of(pool: *mut ngx_pool_t, bytes: &[u8]) -> Result<*mut ngx_chain_t, NoMemory> {
    // SAFETY: the caller's promise; buffer and link are written whole.
    unsafe {
        let text = copy(pool, bytes)?;
        let buffer = ngx_create_temp_buf(pool, 1);
        let link = ngx_alloc_chain_link(pool);
        if buffer.is_null() || link.is_null() {
            return Err(NoMemory);
        }
        (*buffer).start = text.data;
        (*buffer).pos = text.data;
        (*buffer).last = text.data.add(text.len);
        (*buffer).end = (*buffer).last;
        (*link).buf = buffer;
        (*link).next = ptr::null_mut();
        Ok(link)
    }
}

/// A string that lives as long as the program.
const fn literal(string: &'static str) -> ngx_str_t {
    ngx_str_t { len: string.len(), data: string.as_ptr().cast_mut() }
}

/// Milliseconds of a clock that never goes back, the same in all workers: nginx's own, which
/// stands still while a callback runs.
pub(crate) fn now() -> u64 {
    // SAFETY: nginx sets it before there are requests; one thread writes it.
    unsafe { nginx_sys::ngx_current_msec as u64 }
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    // SAFETY: as above; it points at a slot that nginx does not change while a callback runs.
    unsafe { u64::try_from((*nginx_sys::ngx_cached_time).sec).unwrap_or(0) }
}

/// The process's number, without asking the kernel.
pub(crate) fn process_id() -> u32 {
    // SAFETY: nginx sets it when a process begins.
    unsafe { nginx_sys::ngx_pid.cast_unsigned() }
}

/// Runs a callback's body; a panic, which would abort the worker and all its connections, becomes
/// `fallback` and an `alert` in the log. The last line of defence: nothing is known to panic.
pub(crate) fn guard<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("unknown cause");
        log::cycle(log::Level::Alert, format_args!("docker module panicked: {text}"));
        fallback
    })
}

/// A list of nginx: elements of `T` in linked parts.
struct ListIter<T> {
    /// What is left of a part.
    left: core::ops::Range<*mut T>,
    next: *mut nginx_sys::ngx_list_part_t,
}

impl<T> ListIter<T> {
    /// # Safety
    ///
    /// `list` is initialized, holds elements of `T`, and lives as long as the iterator.
    unsafe fn new(list: *mut nginx_sys::ngx_list_t) -> Self {
        // SAFETY: the caller's promise; the first part is a field of the list.
        let next = unsafe { ptr::addr_of_mut!((*list).part) };
        Self { left: ptr::null_mut()..ptr::null_mut(), next }
    }
}

impl<T> Iterator for ListIter<T> {
    type Item = *mut T;

    fn next(&mut self) -> Option<*mut T> {
        while self.left.is_empty() {
            if self.next.is_null() {
                return None;
            }
            // SAFETY: `new`'s promise: parts are linked and hold `nelts` elements of `T`; a list
            // that is all zero has one without any.
            unsafe {
                let elements = (*self.next).elts.cast::<T>();
                self.left = elements..elements.wrapping_add((*self.next).nelts);
                self.next = (*self.next).next;
            }
        }
        let element = self.left.start;
        self.left.start = element.wrapping_add(1);
        Some(element)
    }
}

/// The address of something of nginx's, for comparing only.
fn address<T>(pointer: *mut T) -> usize {
    pointer.cast::<c_void>().addr()
}
