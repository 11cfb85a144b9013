//! Subrequests: what the module asks upstream on its own account.

use core::mem::size_of;
use core::ptr;

use nginx_sys::{
    NGX_HTTP_LAST, NGX_HTTP_SUBREQUEST_CLONE, ngx_http_request_t, ngx_http_send_special,
    ngx_http_subrequest, ngx_http_variable_t, ngx_http_variable_value_t, ngx_int_t, ngx_list_init,
    ngx_list_push, ngx_palloc, ngx_table_elt_t, ngx_uint_t,
};

use super::bits::ngx_http_request_s as Bits;
use super::headers::{lines, push};
use super::location::Location;
use super::request::{Request, core_main_conf};
use super::{NoMemory, OK, bytes};

impl<'r> Request<'r> {
    /// Asks what the request asks once more, with `added` field lines instead of those that
    /// `is_replaced` names. What comes goes to the client, behind what the request itself has sent;
    /// then nginx asks the request's filters to go on.
    ///
    /// `run` is called when the subrequest starts.
    ///
    /// # Errors
    ///
    /// The request cannot go on then.
    pub(crate) fn start_rest(
        self,
        entry: Entry,
        is_replaced: fn(&[u8]) -> bool,
        added: &[(&str, &[u8])],
        run: unsafe extern "C" fn(*mut ngx_http_request_t),
    ) -> Result<Request<'r>, NoMemory> {
        let r = self.as_ptr();
        let mut started: *mut ngx_http_request_t = ptr::null_mut();
        // SAFETY: URI and arguments are copied with their pointers into the request's pool, which
        // the subrequest shares; it runs when this callback has returned, so that it can be
        // written to now, as auth_request does. Its list of lines is its own, though it shares
        // their memory; nginx copied the list with its pointers into the request's.
        unsafe {
            let (uri, args) = (ptr::addr_of_mut!((*r).uri), ptr::addr_of_mut!((*r).args));
            let flags = NGX_HTTP_SUBREQUEST_CLONE as ngx_uint_t;
            let target = ptr::addr_of_mut!(started);
            if ngx_http_subrequest(r, uri, args, target, ptr::null_mut(), flags) != OK {
                return Err(NoMemory);
            }
            let subrequest = Request::new(started);

            let list = ptr::addr_of_mut!((*started).headers_in.headers);
            if ngx_list_init(list, self.pool(), 20, size_of::<ngx_table_elt_t>()) != OK {
                return Err(NoMemory);
            }
            let kept = lines(ptr::addr_of_mut!((*r).headers_in.headers));
            for line in kept.filter(|line| !is_replaced(line.name())) {
                let slot = ngx_list_push(list).cast::<ngx_table_elt_t>();
                if slot.is_null() {
                    return Err(NoMemory);
                }
                *slot = *line.as_ptr();
            }
            for (name, value) in added {
                push(list, self, name.as_bytes(), value)?;
            }
            subrequest.forget_lines(is_replaced)?;

            match entry {
                Entry::Content(location) => subrequest.change_to(location),
                Entry::Phases(location) => {
                    (*started).content_handler = None;
                    subrequest.change_to(location);
                    (*started).phase_handler =
                        (*core_main_conf(started)).phase_engine.location_rewrite_index as ngx_int_t;
                }
            }
            (*started).write_event_handler = Some(run);
            Ok(subrequest)
        }
    }

    /// Gives a subrequest variables of its own: `$http_range` and the like, which nginx evaluates
    /// once, have the values that the request's lines had.
    fn forget_lines(self, is_replaced: fn(&[u8]) -> bool) -> Result<(), NoMemory> {
        let r = self.as_ptr();
        // SAFETY: a live request has as many values as the configuration has variables, each with
        // its name; all-zero bytes are a value that nobody has asked for yet.
        unsafe {
            let known = ptr::addr_of!((*core_main_conf(r)).variables);
            let (names, number) = ((*known).elts.cast::<ngx_http_variable_t>(), (*known).nelts);
            let size = number * size_of::<ngx_http_variable_value_t>();
            let values = ngx_palloc(self.pool(), size).cast::<ngx_http_variable_value_t>();
            if values.is_null() {
                return Err(NoMemory);
            }
            ptr::copy_nonoverlapping((*r).variables, values, number);
            for number in 0..number {
                let line = bytes((*names.add(number)).name).strip_prefix(b"http_");
                let line = line.map(|line| String::from_utf8_lossy(line).replace('_', "-"));
                if line.is_some_and(|line| is_replaced(line.as_bytes())) {
                    ptr::write_bytes(values.add(number), 0, 1);
                }
            }
            (*r).variables = values;
        }
        Ok(())
    }

    /// Nobody else answers for it now: no subrequest of it is running.
    pub(crate) fn is_active(self) -> bool {
        // SAFETY: the data of a client's connection is the request that may write to it.
        unsafe { (*(*self.as_ptr()).connection).data == self.as_ptr().cast() }
    }

    /// All that it was given has gone out, as far as nginx is concerned.
    pub(crate) fn is_drained(self) -> bool {
        // SAFETY: bits of a live request and its connection.
        unsafe {
            Bits::buffered_raw(self.as_ptr().cast()) == 0
                && (*(*self.as_ptr()).connection).buffered() == 0
        }
    }

    /// The client can still be answered.
    pub(crate) fn is_connected(self) -> bool {
        // SAFETY: bits of a live request's connection.
        unsafe {
            let c = (*self.as_ptr()).connection;
            (*c).error() == 0 && (*c).timedout() == 0
        }
    }

    /// For the start of a subrequest: the time that the client is given to read was set for what
    /// the request itself has sent, and that is gone. Watches for the client's leaving.
    pub(crate) fn take_over(self) {
        // SAFETY: the event is that of a live request's connection; a timer that delays it is
        // `limit_rate`'s, and must fire.
        unsafe {
            let write = (*(*self.as_ptr()).connection).write;
            if (*write).timer_set() != 0 && (*write).delayed() == 0 {
                nginx_sys::ngx_del_timer(write);
            }
        }
        self.watch_client();
    }

    /// For the header filter of a subrequest: nothing of its header matters to anybody. Without
    /// `body`, nothing of its body is to come either.
    pub(crate) fn drop_header(self, body: bool) {
        // SAFETY: bits of a live request, which nginx's own filters would write.
        unsafe {
            Bits::set_header_sent_raw(self.as_ptr().cast(), 1);
            Bits::set_header_only_raw(self.as_ptr().cast(), u32::from(!body));
        }
    }

    pub(crate) fn keeps_alive(self) -> bool {
        // SAFETY: a bit of a live request.
        unsafe { Bits::keepalive_raw(self.as_ptr().cast()) != 0 }
    }

    /// Ends a response whose last byte is on its way. `keepalive`: the connection may serve
    /// another request.
    pub(crate) fn send_last(self, keepalive: bool) -> ngx_int_t {
        // SAFETY: a live main request that has no upstream any more; nginx took the connection for
        // broken when upstream ended early.
        unsafe {
            Bits::set_keepalive_raw(self.as_ptr().cast(), u32::from(keepalive));
            ngx_http_send_special(self.as_ptr(), NGX_HTTP_LAST as ngx_uint_t)
        }
    }
}

/// Where a subrequest starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// With the content of this location, as the request itself did.
    Content(Location),
    /// With the phases of this one, from rewriting on.
    Phases(Location),
}
