//! Requests that wait for a while.

use nginx_sys::{ngx_add_timer, ngx_del_timer, ngx_event_t, ngx_http_request_t, ngx_msec_t};

use super::guard;
use super::request::{Request, go_on};

/// A request is woken by it. Dropping it takes that back.
pub(crate) struct Timer(Box<ngx_event_t>);

impl Timer {
    /// In so many milliseconds, `r` goes on with the phase that it waits in.
    pub(crate) fn start(r: Request<'_>, milliseconds: u64) -> Self {
        // SAFETY: nginx itself zeroes events. The box does not move, and takes the event out of
        // nginx's tree before it is freed; its owner is the request's context, so that the request
        // lives as long.
        unsafe {
            let mut event: Box<ngx_event_t> = Box::new(core::mem::zeroed());
            event.data = r.as_ptr().cast();
            event.log = r.log_ptr();
            event.handler = Some(woken);
            ngx_add_timer(&raw mut *event, milliseconds as ngx_msec_t);
            Self(event)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.0.timer_set() != 0 {
            // SAFETY: the event is in nginx's tree.
            unsafe { ngx_del_timer(&raw mut *self.0) };
        }
    }
}

unsafe extern "C" fn woken(event: *mut ngx_event_t) {
    // SAFETY: nginx passes the event of a timer that is not dropped, so its request lives; neither
    // nginx nor we look at the event again.
    guard((), || unsafe { go_on((*event).data.cast::<ngx_http_request_t>()) });
}
