//! The load balancer of the follow location: run-time origins, idle connections first.

use core::mem::size_of;
use core::net::SocketAddr;
use core::ptr;
use std::rc::Rc;
use std::sync::OnceLock;

use nginx_sys::{
    NGX_PEER_FAILED, NGX_PEER_NEXT, ngx_current_msec, ngx_exiting, ngx_handle_read_event,
    ngx_http_upstream_conf_t, ngx_http_upstream_t, ngx_int_t, ngx_msec_t, ngx_palloc,
    ngx_peer_connection_t, ngx_pnalloc, ngx_pool_cleanup_add, ngx_pool_t, ngx_sock_ntop, ngx_str_t,
    ngx_terminate, ngx_uint_t, sockaddr, socklen_t,
};

use super::idle::{self, Key, Limits};
use super::request::Request;
use super::resolver::socket_address;
use super::upstream::Upstream;
use super::{BUSY, DONE, ERROR, NoMemory, OK, address, chain_of, copy, guard};

/// How long a connection may take while other addresses remain, milliseconds.
const CONNECT_TIMEOUT: ngx_msec_t = 1_000;

/// What to ask, and whom.
pub(crate) struct Plan {
    pub(crate) tls: bool,
    /// What the certificate must be for; without TLS, the host all the same.
    pub(crate) host: String,
    /// Tried in this order, those that failed lately last; empty if the name could not be resolved.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The request; else it is the one that nginx has built.
    pub(crate) request: Option<Written>,
    /// How long it may send nothing, in milliseconds, if not as long as the location says.
    pub(crate) silence: Option<u64>,
    pub(crate) limits: Limits,
}

/// A request without a body.
pub(crate) struct Written {
    /// The head, as it goes out.
    pub(crate) head: Vec<u8>,
    /// The URI as nginx prints it in its error lines.
    pub(crate) logged_uri: String,
}

/// Where an attempt at an origin ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// Its name has no address.
    Resolve,
    Connect,
    ConnectTimeout,
    Handshake,
    HandshakeTimeout,
    Certificate,
    /// The connection ended before the answer's header did.
    Closed,
    /// No byte of an answer for too long.
    Timeout,
    /// What came is no HTTP, or larger than the buffer.
    Answer,
}

impl Failure {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "could not be resolved",
            Self::Connect => "could not be connected",
            Self::ConnectTimeout => "connect timed out",
            Self::Handshake => "TLS handshake failed",
            Self::HandshakeTimeout => "TLS handshake timed out",
            Self::Certificate => "certificate not valid for this host",
            Self::Closed => "closed the connection without an answer",
            Self::Timeout => "timed out",
            Self::Answer => "sent an invalid header",
        }
    }
}

struct Peer {
    upstream: *mut ngx_http_upstream_t,
    pool: *mut ngx_pool_t,
    /// This request's own settings: the connect time-out differs by attempt.
    conf: ngx_http_upstream_conf_t,
    connect_timeout: ngx_msec_t,
    key: Rc<Key>,
    limits: Limits,
    is_head: bool,
    /// The request was written by the module, in a follow location.
    is_written: bool,
    addresses: Vec<SocketAddr>,
    /// The next address to connect.
    next: usize,
    /// The address of the connection in use.
    current: Option<SocketAddr>,
    failure: Option<Failure>,
}

impl Peer {
    /// Does not ask `address` again, whose answer `proxy_next_upstream` has thrown away.
    fn pass_over(&mut self, address: SocketAddr) {
        if let Some(index) = self.addresses.iter().position(|known| *known == address) {
            self.addresses.remove(index);
            self.next -= usize::from(index < self.next);
        }
    }
}

/// Sets the upstream of `r` up for `plan`: nginx's `peer.init`, when the request is built.
pub(crate) fn start(r: Request<'_>, plan: Plan) -> Result<(), NoMemory> {
    let Some(upstream) = r.upstream() else { return Err(NoMemory) };
    let u = upstream.as_ptr();
    let Plan { tls, host, mut addresses, request, silence, limits } = plan;
    let is_written = request.is_some();
    if let Some(request) = request {
        write(r, u, &request)?;
    }
    // SAFETY: null, or what `proxy_bind` has set.
    let bound = unsafe { (*u).peer.local };
    keep_usable(&mut addresses, |address| address.is_ipv4() || has_ipv6());
    if !bound.is_null() {
        // SAFETY: a bound address has a socket address.
        let bound = unsafe { socket_address((*bound).sockaddr) };
        keep_usable(&mut addresses, |address| {
            bound.is_none_or(|bound| bound.is_ipv4() == address.is_ipv4())
        });
    }
    idle::sort(&mut addresses);
    // SAFETY: nginx calls `peer.init` with no peer yet. The peer lives in the request's pool, and is
    // dropped with it.
    unsafe {
        let cleanup = ngx_pool_cleanup_add(r.pool(), size_of::<Peer>());
        if cleanup.is_null() {
            return Err(NoMemory);
        }

        let certificate = upstream.client_certificate().unwrap_or_default().to_vec();
        let port = addresses.first().map_or(0, SocketAddr::port);
        let tries = addresses.len();
        let peer = (*cleanup).data.cast::<Peer>();
        peer.write(Peer {
            upstream: u,
            pool: r.pool(),
            conf: *(*u).conf,
            connect_timeout: (*(*u).conf).connect_timeout,
            key: Rc::new(Key { tls, host, port, conf: address((*u).conf), certificate }),
            limits,
            is_head: r.is_head(),
            is_written,
            addresses,
            next: 0,
            current: None,
            failure: (tries == 0).then_some(Failure::Resolve),
        });
        (*cleanup).handler = Some(drop_peer);
        if let Some(silence) = silence.and_then(|silence| ngx_msec_t::try_from(silence).ok()) {
            (*peer).conf.read_timeout = (*peer).conf.read_timeout.min(silence);
        }
        (*u).conf = ptr::addr_of_mut!((*peer).conf);

        (*u).peer.data = peer.cast();
        (*u).peer.get = Some(get);
        (*u).peer.free = Some(free);
        (*u).peer.tries = tries;
        #[cfg(ngx_feature = "ssl")]
        {
            (*u).peer.set_session = Some(set_session);
            (*u).peer.save_session = Some(save_session);
        }
    }
    Ok(())
}

/// Puts `request` in the place of what nginx built from the location's settings.
fn write(r: Request<'_>, u: *mut ngx_http_upstream_t, request: &Written) -> Result<(), NoMemory> {
    // SAFETY: nginx calls `peer.init` with the upstream's request built; the new one lives in the
    // request's pool. It is all there is to say, and there is no body.
    unsafe {
        let chain = chain_of(r.pool(), &request.head)?;
        (*(*chain).buf).set_flush(1);
        (*u).request_bufs = chain;
        (*u).uri = copy(r.pool(), request.logged_uri.as_bytes())?;
    }
    Ok(())
}

/// Drops the addresses that cannot be connected from here: nginx ends a request whose socket cannot
/// be made, and asks no other address. If none is left, nginx says why.
fn keep_usable(addresses: &mut Vec<SocketAddr>, is_usable: impl Fn(&SocketAddr) -> bool) {
    if addresses.iter().any(&is_usable) {
        addresses.retain(is_usable);
    }
}

/// The kernel makes IPv6 sockets.
fn has_ipv6() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // SAFETY: plain system calls; the descriptor is ours.
        unsafe {
            let fd = libc::socket(libc::AF_INET6, libc::SOCK_STREAM, 0);
            fd != -1 && libc::close(fd) == 0
        }
    })
}

impl Upstream<'_> {
    /// Where the last attempt ended, if it failed.
    pub(crate) fn failure(self) -> Option<Failure> {
        if !self.is_run_time_origin() {
            return self.failure_by_state();
        }
        // SAFETY: the data is what `start` put there.
        unsafe { (*(*self.as_ptr()).peer.data.cast::<Peer>()).failure }
    }

    /// The same for an upstream of nginx's own, which says less.
    fn failure_by_state(self) -> Option<Failure> {
        // SAFETY: null, or the state of the last attempt, in the request's pool. nginx names a peer
        // as soon as there is one; the times are -1 before the request is sent and before the
        // answer's header has come.
        unsafe {
            let state = (*self.as_ptr()).state;
            if state.is_null() || (*state).peer.is_null() {
                return Some(Failure::Resolve);
            }
            let is_unset = |time| time == ngx_msec_t::MAX;
            let timed_out = (*state).status == 504;
            match (is_unset((*state).connect_time), timed_out) {
                (true, true) => Some(Failure::ConnectTimeout),
                (true, false) => Some(Failure::Connect),
                (false, true) => Some(Failure::Timeout),
                (false, false) if !is_unset((*state).header_time) => None,
                (false, false) if (*state).bytes_received > 0 => Some(Failure::Answer),
                (false, false) => Some(Failure::Closed),
            }
        }
    }

    /// The address of the settings that the upstream was made with: a run-time origin has a copy
    /// of its own.
    pub(super) fn conf_address(self) -> usize {
        // SAFETY: the data of a run-time origin is what `start` put there.
        unsafe {
            if self.is_run_time_origin() {
                let peer = &*(*self.as_ptr()).peer.data.cast::<Peer>();
                peer.key.conf
            } else {
                address((*self.as_ptr()).conf)
            }
        }
    }

    /// It was set up by [`start`].
    pub(crate) fn is_run_time_origin(self) -> bool {
        // SAFETY: plain field of an upstream in the request's pool.
        let get_peer = unsafe { (*self.as_ptr()).peer.get };
        get_peer.is_some_and(|f| ptr::fn_addr_eq(f, get as unsafe extern "C" fn(_, _) -> _))
    }

    /// It is the one of a follow location. A declared registry is a run-time origin, too.
    pub(crate) fn is_of_follow_location(self) -> bool {
        // SAFETY: the data of a run-time origin is what `start` put there.
        self.is_run_time_origin()
            && unsafe { (*(*self.as_ptr()).peer.data.cast::<Peer>()).is_written }
    }
}

unsafe extern "C" fn drop_peer(data: *mut core::ffi::c_void) {
    // SAFETY: nginx passes the data of the cleanup that `start` made, once.
    guard((), || unsafe { ptr::drop_in_place(data.cast::<Peer>()) });
}

unsafe extern "C" fn get(
    pc: *mut ngx_peer_connection_t,
    data: *mut core::ffi::c_void,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: nginx passes the upstream's peer and the data that `start` put there.
        unsafe {
            let peer = &mut *data.cast::<Peer>();
            (*pc).set_cached(0);
            (*pc).connection = ptr::null_mut();

            if let Some((connection, address)) = idle::take(&peer.key, &peer.addresses, (*pc).log) {
                (*pc).connection = connection;
                (*pc).set_cached(1);
                return if set_address(pc, peer, address).is_ok() { DONE } else { ERROR };
            }

            let last = peer.addresses.len().saturating_sub(1);
            let Some(&address) = peer.addresses.get(peer.next.min(last)) else { return BUSY };
            peer.conf.connect_timeout = if peer.next < last {
                peer.connect_timeout.min(CONNECT_TIMEOUT)
            } else {
                peer.connect_timeout
            };
            if set_address(pc, peer, address).is_ok() { OK } else { ERROR }
        }
    })
}

/// The longest text of an address and a port is shorter: 45 bytes of IPv6 (RFC 4291, section 2.2,
/// with an IPv4 address at the end) and `[]:65535`.
const NAME_ROOM: usize = 64;

/// Writes address and name of this attempt; earlier ones are still named in `$upstream_addr`.
///
/// # Safety
///
/// `pc` is the peer connection of `peer`, whose pool lives.
unsafe fn set_address(
    pc: *mut ngx_peer_connection_t,
    peer: &mut Peer,
    address: SocketAddr,
) -> Result<(), NoMemory> {
    // SAFETY: all memory comes from the request's pool and is written whole.
    unsafe {
        let name = ngx_palloc(peer.pool, size_of::<ngx_str_t>()).cast::<ngx_str_t>();
        let storage =
            ngx_palloc(peer.pool, size_of::<libc::sockaddr_in6>()).cast::<libc::sockaddr_in6>();
        if name.is_null() || storage.is_null() {
            return Err(NoMemory);
        }
        let length = match address {
            SocketAddr::V4(v4) => {
                storage.cast::<libc::sockaddr_in>().write(libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                    sin_zero: [0; 8],
                });
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                storage.write(libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: 0,
                });
                size_of::<libc::sockaddr_in6>()
            }
        };
        let (address, length) = (storage.cast::<sockaddr>(), length as socklen_t);
        let text = ngx_pnalloc(peer.pool, NAME_ROOM).cast::<u8>();
        if text.is_null() {
            return Err(NoMemory);
        }
        name.write(ngx_str_t {
            len: ngx_sock_ntop(address, length, text, NAME_ROOM, 1),
            data: text,
        });
        (*pc).sockaddr = address;
        (*pc).socklen = length;
        (*pc).name = name;
    }
    peer.current = Some(address);
    Ok(())
}

unsafe extern "C" fn free(
    pc: *mut ngx_peer_connection_t,
    data: *mut core::ffi::c_void,
    state: ngx_uint_t,
) {
    guard((), || {
        // SAFETY: nginx passes the upstream's peer and the data that `start` put there.
        unsafe {
            let peer = &mut *data.cast::<Peer>();
            if state != 0 {
                (*pc).tries = (*pc).tries.saturating_sub(1);
            }
            if state & NGX_PEER_FAILED as ngx_uint_t != 0 {
                let failure = failure(pc, peer);
                peer.failure = Some(failure);
                #[cfg(ngx_feature = "ssl")]
                if failure == Failure::Certificate {
                    // A session remembers that its certificate was bad, after it was renewed too.
                    idle::forget_session(&peer.key);
                }
                // A connection that was kept and has ended says nothing of its address.
                if (*pc).cached() == 0 {
                    peer.next += 1;
                    if let (Some(address), 0) = (peer.current, (*peer.upstream).request_sent()) {
                        idle::failed(address);
                    }
                }
                return;
            }

            let c = (*pc).connection;
            let Some(address) = peer.current else { return };
            if state & NGX_PEER_NEXT as ngx_uint_t != 0 {
                peer.pass_over(address);
            }
            if is_reusable(c, peer) {
                (*pc).connection = ptr::null_mut();
                idle::keep(c, &peer.key, address, &peer.limits);
            }
        }
    });
}

/// The checks of nginx's keepalive module.
///
/// # Safety
///
/// `c` is null or the connection of `peer`.
unsafe fn is_reusable(c: *mut nginx_sys::ngx_connection_t, peer: &Peer) -> bool {
    if c.is_null() || peer.limits.connections == 0 {
        return false;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (read, write) = ((*c).read, (*c).write);
        (*read).eof() == 0
            && (*read).error() == 0
            && (*read).timedout() == 0
            && (*write).error() == 0
            && (*write).timedout() == 0
            && ((*c).requests as u64) < peer.limits.requests
            && ngx_current_msec.wrapping_sub((*c).start_time) as u64 <= peer.limits.time
            && (*peer.upstream).keepalive() != 0
            && (*peer.upstream).request_body_sent() != 0
            && (*peer.upstream).headers_in.status_n >= 200
            && !has_surplus(peer)
            && ngx_terminate == 0
            && ngx_exiting == 0
            && ngx_handle_read_event(read, 0) == OK
    }
}

/// Bytes came behind an answer that has no body: nginx drops them, but more may follow. Behind a
/// body nginx looks itself.
///
/// # Safety
///
/// The upstream of `peer` lives.
unsafe fn has_surplus(peer: &Peer) -> bool {
    // SAFETY: plain fields of the upstream.
    unsafe {
        let u = peer.upstream;
        let headers = ptr::addr_of!((*u).headers_in);
        let is_bodiless = peer.is_head
            || matches!((*headers).status_n, 204 | 304)
            || (*headers).content_length_n == 0;
        is_bodiless && (*u).buffer.last > (*u).buffer.pos
    }
}

/// # Safety
///
/// `pc` is the peer connection of `peer`, at the moment when nginx gives it up.
unsafe fn failure(pc: *mut ngx_peer_connection_t, peer: &Peer) -> Failure {
    // SAFETY: the connection is null or open still.
    unsafe {
        let c = (*pc).connection;
        let sent = (*peer.upstream).request_sent() != 0;
        if c.is_null() {
            return Failure::Connect;
        }
        let timed_out = (*(*c).read).timedout() != 0 || (*(*c).write).timedout() != 0;
        #[cfg(ngx_feature = "ssl")]
        if !sent && !(*c).ssl.is_null() {
            return match ((*(*c).ssl).handshaked() != 0, timed_out) {
                (true, false) => Failure::Certificate,
                (_, true) => Failure::HandshakeTimeout,
                (false, false) => Failure::Handshake,
            };
        }
        match (sent, timed_out) {
            (false, false) => Failure::Connect,
            (false, true) => Failure::ConnectTimeout,
            (true, true) => Failure::Timeout,
            (true, false) => {
                let buffer = ptr::addr_of!((*peer.upstream).buffer);
                let closed = (*(*c).read).eof() != 0 || (*(*c).read).error() != 0;
                if closed || (*buffer).start.is_null() { Failure::Closed } else { Failure::Answer }
            }
        }
    }
}

#[cfg(ngx_feature = "ssl")]
unsafe extern "C" fn set_session(
    pc: *mut ngx_peer_connection_t,
    data: *mut core::ffi::c_void,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: nginx calls this with the TLS connection made and the data that `start` put.
        unsafe { idle::resume((*pc).connection, &(*data.cast::<Peer>()).key) }
    })
}

#[cfg(ngx_feature = "ssl")]
unsafe extern "C" fn save_session(pc: *mut ngx_peer_connection_t, data: *mut core::ffi::c_void) {
    guard((), || {
        // SAFETY: nginx calls this on a TLS connection in use, with the data that `start` put.
        unsafe {
            let peer = &*data.cast::<Peer>();
            idle::save_session((*pc).connection, &peer.key, peer.limits.connections.max(1));
        }
    });
}
