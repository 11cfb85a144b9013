//! Our place in nginx's chain of header filters.
//!
//! `ngx_modules!` exports no order, so nginx appends the module to its list, and the filter that
//! is installed last runs first: it sees upstream's answer before any other filter does, before
//! `add_header` too.

use core::cell::Cell;

use nginx_sys::{ngx_http_output_header_filter_pt, ngx_http_request_t, ngx_int_t};

use super::OK;

thread_local! {
    /// A `Cell`, set again at every configuration load: the chain is built anew each time.
    static NEXT: Cell<ngx_http_output_header_filter_pt> = const { Cell::new(None) };
}

/// Puts `filter` at the head of the chain; for `postconfiguration`.
pub(crate) fn install(filter: unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t) {
    // SAFETY: nginx's chain is written by the one thread that reads configurations.
    unsafe {
        NEXT.set(nginx_sys::ngx_http_top_header_filter);
        nginx_sys::ngx_http_top_header_filter = Some(filter);
    }
}

/// Runs the rest of the chain.
///
/// # Safety
///
/// `r` is what nginx passed to the filter.
pub(crate) unsafe fn next(r: *mut ngx_http_request_t) -> ngx_int_t {
    match NEXT.get() {
        // SAFETY: the chain holds header filters, which take the request that we were given.
        Some(next) => unsafe { next(r) },
        None => OK,
    }
}
