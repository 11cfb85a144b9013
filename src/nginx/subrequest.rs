//! Subrequests: what the module asks upstream on its own account.

use core::mem::size_of;
use core::ptr::{self, NonNull};

use nginx_sys::{
    NGX_HTTP_HEAD, NGX_HTTP_SUBREQUEST_CLONE, NGX_HTTP_SUBREQUEST_WAITED, ngx_http_request_body_t,
    ngx_http_request_t, ngx_http_subrequest, ngx_pcalloc, ngx_uint_t,
};

use super::bits::ngx_http_request_s as Bits;
use super::request::Request;
use super::{NoMemory, OK, literal};

/// A subrequest that was started. It lies in the pool of its request.
#[derive(Clone, Copy)]
pub(crate) struct Subrequest(NonNull<ngx_http_request_t>);

impl Subrequest {
    /// It has ended; `_parent` is the request that started it.
    pub(crate) fn is_done(self, _parent: Request<'_>) -> bool {
        // SAFETY: a bit of a subrequest, which lives as long as its parent.
        unsafe { Bits::done_raw(self.0.as_ptr().cast()) != 0 }
    }
}

impl<'r> Request<'r> {
    /// Asks what the request asks, by HEAD, from the phase that the request is in: its location
    /// and URI are settled, and the access phase does not run again. Nothing of the answer goes to
    /// the client. nginx runs the request's phases again when the answer is there; the handler
    /// that started it returns NGX_AGAIN until then.
    ///
    /// # Errors
    ///
    /// The request cannot go on then.
    pub(crate) fn start_head(self) -> Result<(Subrequest, Request<'r>), NoMemory> {
        let r = self.as_ptr();
        let mut started: *mut ngx_http_request_t = ptr::null_mut();
        // SAFETY: URI and arguments are copied with their pointers into the request's pool, which
        // the subrequest shares; it runs when this callback has returned, so that it can be
        // written to now, as auth_request does.
        unsafe {
            let flags = (NGX_HTTP_SUBREQUEST_CLONE | NGX_HTTP_SUBREQUEST_WAITED) as ngx_uint_t;
            let (uri, args) = (ptr::addr_of_mut!((*r).uri), ptr::addr_of_mut!((*r).args));
            let target = ptr::addr_of_mut!(started);
            if ngx_http_subrequest(r, uri, args, target, ptr::null_mut(), flags) != OK {
                return Err(NoMemory);
            }
            let Some(subrequest) = NonNull::new(started) else { return Err(NoMemory) };

            // Not the client's body: nginx would read it, or close its file.
            let body = ngx_pcalloc(self.pool(), size_of::<ngx_http_request_body_t>());
            if body.is_null() {
                return Err(NoMemory);
            }
            (*started).request_body = body.cast();
            (*started).method = NGX_HTTP_HEAD as ngx_uint_t;
            (*started).method_name = literal("HEAD");
            Bits::set_header_only_raw(started.cast(), 1);
            Ok((Subrequest(subrequest), Request::new(started)))
        }
    }
}
