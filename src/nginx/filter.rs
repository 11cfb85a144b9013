//! Our place in nginx's chains of header and body filters.
//!
//! `ngx_modules!` exports no order, so nginx appends the module to its list, and the filter that
//! is installed last runs first: it sees upstream's answer before any other filter does, before
//! `add_header` and gzip too.

use core::cell::Cell;

use nginx_sys::{
    ngx_chain_t, ngx_http_output_body_filter_pt, ngx_http_output_header_filter_pt,
    ngx_http_request_t, ngx_int_t,
};

use super::OK;

thread_local! {
    /// `Cell`s, set again at every configuration load: the chains are built anew each time.
    static NEXT_HEADER: Cell<ngx_http_output_header_filter_pt> = const { Cell::new(None) };
    static NEXT_BODY: Cell<ngx_http_output_body_filter_pt> = const { Cell::new(None) };
}

/// Puts the filters at the heads of their chains; for `postconfiguration`.
pub(crate) fn install(
    header: unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t,
    body: unsafe extern "C" fn(*mut ngx_http_request_t, *mut ngx_chain_t) -> ngx_int_t,
) {
    // SAFETY: nginx's chains are written by the one thread that reads configurations.
    unsafe {
        NEXT_HEADER.set(nginx_sys::ngx_http_top_header_filter);
        nginx_sys::ngx_http_top_header_filter = Some(header);
        NEXT_BODY.set(nginx_sys::ngx_http_top_body_filter);
        nginx_sys::ngx_http_top_body_filter = Some(body);
    }
}

/// Runs the rest of the chain of header filters.
///
/// # Safety
///
/// `r` is what nginx passed to the filter.
pub(crate) unsafe fn next_header(r: *mut ngx_http_request_t) -> ngx_int_t {
    match NEXT_HEADER.get() {
        // SAFETY: the chain holds header filters, which take the request that we were given.
        Some(next) => unsafe { next(r) },
        None => OK,
    }
}

/// Runs the rest of the chain of body filters.
///
/// # Safety
///
/// `r` is what nginx passed to the filter, and `chain` a chain of buffers that live as long, or
/// null.
pub(crate) unsafe fn next_body(r: *mut ngx_http_request_t, chain: *mut ngx_chain_t) -> ngx_int_t {
    match NEXT_BODY.get() {
        // SAFETY: as above; the caller's promise for `chain`.
        Some(next) => unsafe { next(r, chain) },
        None => OK,
    }
}
