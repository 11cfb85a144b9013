//! Requests that wait for a while.

use core::ptr::NonNull;

use nginx_sys::{ngx_add_timer, ngx_del_timer, ngx_event_t, ngx_http_request_t, ngx_msec_t};

use super::guard;
use super::request::{Request, go_on};

/// A request is woken by it. Dropping it takes that back.
pub(crate) struct Timer(NonNull<ngx_event_t>);

impl Timer {
    /// In so many milliseconds, `r` goes on with the phase that it waits in.
    pub(crate) fn start(r: Request<'_>, milliseconds: u64) -> Self {
        // SAFETY: nginx itself zeroes events. The box is let go of, because nginx points into it;
        // dropping the timer takes the event out of nginx's tree and frees it. Its owner is the
        // request's context, so that the request lives as long.
        unsafe {
            let event = NonNull::from(Box::leak(Box::new(core::mem::zeroed::<ngx_event_t>())));
            (*event.as_ptr()).data = r.as_ptr().cast();
            (*event.as_ptr()).log = r.log_ptr();
            (*event.as_ptr()).handler = Some(woken);
            ngx_add_timer(event.as_ptr(), milliseconds as ngx_msec_t);
            Self(event)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: `start` has made it, and nobody else frees it; an event that is set is in nginx's
        // tree.
        unsafe {
            if (*self.0.as_ptr()).timer_set() != 0 {
                ngx_del_timer(self.0.as_ptr());
            }
            drop(Box::from_raw(self.0.as_ptr()));
        }
    }
}

unsafe extern "C" fn woken(event: *mut ngx_event_t) {
    // SAFETY: nginx passes the event of a timer that is not dropped, so its request lives; neither
    // nginx nor we look at the event again.
    guard((), || unsafe { go_on((*event).data.cast::<ngx_http_request_t>()) });
}
