//! What a worker remembers of run-time origins: idle connections, TLS sessions, addresses that
//! did not answer. Each is bounded, and the least recently used goes first.

use core::cell::RefCell;
use core::net::SocketAddr;

use std::collections::VecDeque;
use std::rc::Rc;

use nginx_sys::{
    ngx_add_timer, ngx_close_connection, ngx_connection_t, ngx_current_msec, ngx_cycle,
    ngx_del_timer, ngx_destroy_pool, ngx_event_t, ngx_handle_read_event, ngx_log_t, ngx_msec_t,
};

use super::{AGAIN, OK, guard};

/// How long an address that could not be connected goes last, milliseconds.
const FAILED_FOR: ngx_msec_t = 60_000;

/// How many such addresses are remembered.
const FAILED_MAX: usize = 256;

/// What a connection or a TLS session may be reused for. TLS settings differ by location, and a
/// resumed session carries the client certificate of its first handshake: hence `conf`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Key {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The address of the upstream configuration.
    pub(crate) conf: usize,
    /// The client certificate: within one configuration, variables may choose it.
    pub(crate) certificate: Vec<u8>,
}

/// `docker_keepalive`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Idle connections of a worker, all origins together.
    pub(crate) connections: usize,
    /// How long one may be idle, milliseconds.
    pub(crate) timeout: u64,
    /// Requests over one connection.
    pub(crate) requests: u64,
    /// How old a connection may get, milliseconds.
    pub(crate) time: u64,
}

struct Idle {
    key: Rc<Key>,
    address: SocketAddr,
    connection: *mut ngx_connection_t,
}

#[cfg(ngx_feature = "ssl")]
struct Session {
    key: Rc<Key>,
    session: *mut nginx_sys::SSL_SESSION,
}

#[cfg(ngx_feature = "ssl")]
impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: `ngx_ssl_get_session` gave us a reference of our own.
        unsafe { nginx_sys::SSL_SESSION_free(self.session) };
    }
}

#[derive(Default)]
struct Worker {
    /// The most recently used last.
    idle: VecDeque<Idle>,
    #[cfg(ngx_feature = "ssl")]
    sessions: VecDeque<Session>,
    failed: VecDeque<(SocketAddr, ngx_msec_t)>,
}

thread_local! {
    /// nginx's workers have one thread that runs events; with `master_process off` the master is
    /// that thread.
    static WORKER: RefCell<Worker> = RefCell::default();
}

/// An idle connection to `key` at one of `addresses`, taken out, and the address that it goes to.
/// A name may have other addresses than when the connection was made, or be refused some of them.
///
/// # Safety
///
/// `log` is the log of the request that is going to use the connection.
pub(super) unsafe fn take(
    key: &Key,
    addresses: &[SocketAddr],
    log: *mut ngx_log_t,
) -> Option<(*mut ngx_connection_t, SocketAddr)> {
    loop {
        let found = WORKER.with_borrow_mut(|worker| {
            let serves = |idle: &Idle| *idle.key == *key && addresses.contains(&idle.address);
            let index = worker.idle.iter().rposition(serves)?;
            worker.idle.remove(index)
        })?;
        let c = found.connection;
        // SAFETY: an idle connection is open, and ours alone.
        unsafe {
            // What has arrived unasked may wait for its turn among nginx's events still; it would
            // be taken for the answer.
            if !is_quiet(c) {
                close(c);
                continue;
            }
            (*c).set_idle(0);
            (*c).sent = 0;
            set_log(c, log);
            if (*(*c).read).timer_set() != 0 {
                ngx_del_timer((*c).read);
            }
        }
        return Some((c, found.address));
    }
}

/// Keeps a connection for the next request to `key`. The oldest one makes room.
///
/// # Safety
///
/// `c` is an open connection with no request and nothing unread of an answer; the caller gives it
/// away.
pub(super) unsafe fn keep(
    c: *mut ngx_connection_t,
    key: &Rc<Key>,
    address: SocketAddr,
    limits: &Limits,
) {
    // SAFETY: the writes of nginx's keepalive module, on a connection that is ours now.
    unsafe {
        (*(*c).read).set_delayed(0);
        ngx_add_timer((*c).read, limits.timeout as ngx_msec_t);
        if (*(*c).write).timer_set() != 0 {
            ngx_del_timer((*c).write);
        }
        (*(*c).write).handler = Some(ignore);
        (*(*c).read).handler = Some(readable);
        (*c).data = c.cast();
        (*c).set_idle(1);
        set_log(c, (*ngx_cycle).log);
    }
    let evicted = WORKER.with_borrow_mut(|worker| {
        let full = worker.idle.len() >= limits.connections;
        let evicted = if full { worker.idle.pop_front() } else { None };
        worker.idle.push_back(Idle { key: Rc::clone(key), address, connection: c });
        evicted
    });
    if let Some(evicted) = evicted {
        // SAFETY: it is in the list no more.
        unsafe { close(evicted.connection) };
    }
    // SAFETY: the connection's own event.
    unsafe {
        if (*(*c).read).ready() != 0 {
            readable((*c).read);
        }
    }
}

/// Closes all idle connections and forgets all sessions.
pub(crate) fn flush() {
    // A thread that ends has dropped the list before nginx lets go of the cycle.
    let _ = WORKER.try_with(|worker| {
        let worker = worker.take();
        for idle in worker.idle {
            // SAFETY: it is in the list no more.
            unsafe { close(idle.connection) };
        }
    });
}

/// Puts addresses that failed a while ago behind the others.
pub(super) fn sort(addresses: &mut [SocketAddr]) {
    // SAFETY: nginx's clock, written by this thread.
    let now = unsafe { ngx_current_msec };
    WORKER.with_borrow_mut(|worker| {
        worker.failed.retain(|(_, until)| *until > now);
        if !worker.failed.is_empty() {
            addresses.sort_by_key(|address| worker.failed.iter().any(|(a, _)| a == address));
        }
    });
}

/// Remembers that an address could not be connected.
pub(super) fn failed(address: SocketAddr) {
    // SAFETY: nginx's clock, written by this thread.
    let until = unsafe { ngx_current_msec }.saturating_add(FAILED_FOR);
    WORKER.with_borrow_mut(|worker| {
        worker.failed.retain(|(a, _)| *a != address);
        if worker.failed.len() >= FAILED_MAX {
            worker.failed.pop_front();
        }
        worker.failed.push_back((address, until));
    });
}

/// Offers the last session with `key` to a connection that is about to shake hands.
///
/// # Safety
///
/// `c` has a TLS connection of nginx.
#[cfg(ngx_feature = "ssl")]
pub(super) unsafe fn resume(c: *mut ngx_connection_t, key: &Key) -> nginx_sys::ngx_int_t {
    WORKER.with_borrow(|worker| match worker.sessions.iter().find(|s| *s.key == *key) {
        // SAFETY: the session is ours; OpenSSL takes a reference of its own.
        Some(found) => unsafe { nginx_sys::ngx_ssl_set_session(c, found.session) },
        None => OK,
    })
}

/// Keeps the session of a connection, at most `max` of them.
///
/// # Safety
///
/// `c` has a TLS connection of nginx.
#[cfg(ngx_feature = "ssl")]
pub(super) unsafe fn save_session(c: *mut ngx_connection_t, key: &Rc<Key>, max: usize) {
    // SAFETY: the caller's promise; the reference that comes back is ours.
    let session = unsafe { nginx_sys::ngx_ssl_get_session(c) };
    if session.is_null() {
        return;
    }
    let session = Session { key: Rc::clone(key), session };
    WORKER.with_borrow_mut(|worker| {
        worker.sessions.retain(|s| *s.key != **key);
        if worker.sessions.len() >= max {
            worker.sessions.pop_front();
        }
        worker.sessions.push_back(session);
    });
}

/// Forgets the session with `key`.
#[cfg(ngx_feature = "ssl")]
pub(super) fn forget_session(key: &Key) {
    WORKER.with_borrow_mut(|worker| worker.sessions.retain(|s| *s.key != *key));
}

/// # Safety
///
/// `c` is an open connection with a pool.
unsafe fn set_log(c: *mut ngx_connection_t, log: *mut ngx_log_t) {
    // SAFETY: the caller's promise.
    unsafe {
        (*c).log = log;
        (*(*c).read).log = log;
        (*(*c).write).log = log;
        (*(*c).pool).log = log;
    }
}

/// # Safety
///
/// `c` is an open connection that nobody else has.
unsafe fn close(c: *mut ngx_connection_t) {
    // SAFETY: the calls of nginx's keepalive module. With both flags set the shutdown of TLS does
    // not wait.
    unsafe {
        #[cfg(ngx_feature = "ssl")]
        if !(*c).ssl.is_null() {
            (*(*c).ssl).set_no_wait_shutdown(1);
            (*(*c).ssl).set_no_send_shutdown(1);
            let _ = nginx_sys::ngx_ssl_shutdown(c);
        }
        ngx_destroy_pool((*c).pool);
        ngx_close_connection(c);
    }
}

unsafe extern "C" fn ignore(_event: *mut ngx_event_t) {}

/// Something happened on an idle connection: a TLS 1.3 ticket, the end, or the time-out.
unsafe extern "C" fn readable(event: *mut ngx_event_t) {
    guard((), || {
        // SAFETY: nginx passes the read event of a connection that `keep` took.
        unsafe {
            let c = (*event).data.cast::<ngx_connection_t>();
            if (*c).close() == 0 && (*event).timedout() == 0 && is_quiet(c) {
                return;
            }
            WORKER.with_borrow_mut(|worker| worker.idle.retain(|idle| idle.connection != c));
            close(c);
        }
    });
}

/// Nothing but what TLS itself sends between answers.
///
/// # Safety
///
/// `c` is an idle connection.
unsafe fn is_quiet(c: *mut ngx_connection_t) -> bool {
    let mut byte = [0u8; 1];
    // SAFETY: `recv` writes one byte at most into the buffer.
    unsafe {
        let peeked = libc::recv((*c).fd, byte.as_mut_ptr().cast(), 1, libc::MSG_PEEK);
        if peeked == 0 || (peeked < 0 && nginx_sys::ngx_errno() as i32 != libc::EAGAIN) {
            return false;
        }
        if peeked > 0 || has_pending(c) {
            if !is_tls(c) {
                return false;
            }
            // OpenSSL takes a ticket and has nothing for us, else the origin has sent data.
            let Some(recv) = (*c).recv else { return false };
            if recv(c, byte.as_mut_ptr(), 1) != AGAIN {
                return false;
            }
        }
        (*(*c).read).set_ready(0);
        ngx_handle_read_event((*c).read, 0) == OK
    }
}

/// OpenSSL holds data that it has read with the last record and nobody has asked for.
///
/// # Safety
///
/// `c` is an open connection.
unsafe fn has_pending(c: *mut ngx_connection_t) -> bool {
    #[cfg(ngx_feature = "ssl")]
    // SAFETY: null, or the TLS connection of an open one.
    return unsafe {
        !(*c).ssl.is_null() && nginx_sys::SSL_pending((*(*c).ssl).connection.cast()) > 0
    };
    #[cfg(not(ngx_feature = "ssl"))]
    {
        let _ = c;
        false
    }
}

/// # Safety
///
/// `c` is an open connection.
unsafe fn is_tls(c: *mut ngx_connection_t) -> bool {
    #[cfg(ngx_feature = "ssl")]
    // SAFETY: plain field of an open connection.
    return unsafe { !(*c).ssl.is_null() };
    #[cfg(not(ngx_feature = "ssl"))]
    {
        let _ = c;
        false
    }
}
