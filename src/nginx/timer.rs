//! Requests that wait for a while.

use core::ptr::NonNull;

use nginx_sys::{ngx_add_timer, ngx_del_timer, ngx_event_t, ngx_msec_t};

use super::guard;
use super::request::{Request, Waiting};

/// A request is woken by it. Dropping it takes that back.
pub(crate) struct Timer(NonNull<Wake>);

struct Wake {
    event: ngx_event_t,
    waiting: Waiting,
}

impl Timer {
    /// In so many milliseconds, `r` goes on with the phase that it waits in.
    pub(crate) fn start(r: Request<'_>, milliseconds: u64) -> Self {
        // SAFETY: nginx itself zeroes events. The box is let go of, because nginx points into it;
        // dropping the timer takes the event out of nginx's tree and frees both. Its owner is the
        // request's context, so that the request lives as long.
        unsafe {
            let wake = Box::new(Wake { event: core::mem::zeroed(), waiting: Waiting::new(r) });
            let wake = NonNull::from(Box::leak(wake));
            let event = &raw mut (*wake.as_ptr()).event;
            (*event).data = wake.as_ptr().cast();
            (*event).log = r.log_ptr();
            (*event).handler = Some(woken);
            ngx_add_timer(event, milliseconds as ngx_msec_t);
            Self(wake)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: `start` has made it, and nobody else frees it; an event that is set is in nginx's
        // tree.
        unsafe {
            let event = &raw mut (*self.0.as_ptr()).event;
            if (*event).timer_set() != 0 {
                ngx_del_timer(event);
            }
            drop(Box::from_raw(self.0.as_ptr()));
        }
    }
}

unsafe extern "C" fn woken(event: *mut ngx_event_t) {
    // SAFETY: nginx passes the event of a timer that is not dropped, so its request lives; neither
    // nginx nor we look at the event again.
    guard((), || unsafe { (*(*event).data.cast::<Wake>()).waiting.go_on() });
}
