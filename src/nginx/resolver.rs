//! nginx's resolver, which caches by TTL and never blocks.

use core::ffi::CStr;
use core::mem;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ptr::{self, NonNull};

use nginx_sys::{
    ngx_http_core_loc_conf_t, ngx_http_core_module, ngx_palloc, ngx_resolve_name,
    ngx_resolve_name_done, ngx_resolve_start, ngx_resolver_ctx_t, ngx_resolver_strerror, sockaddr,
};

use super::request::{Request, Waiting, log_as};
use super::{NoMemory, OK, copy, guard};

/// A question under way. Dropping it takes it back; the callback is not called any more.
pub(crate) struct Lookup(NonNull<Wait>);

impl Drop for Lookup {
    fn drop(&mut self) {
        // SAFETY: the wait lives in the pool of the request, whose context owns the lookup.
        unsafe { (*self.0.as_ptr()).end() };
    }
}

/// What became of a question.
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    /// Why there is none, in nginx's words.
    Failed(String),
}

/// Receives the answer. It may arrive before [`start`] returns.
pub(crate) type Callback = fn(Request<'_>, Answer);

struct Wait {
    waiting: Waiting,
    callback: Callback,
    /// The resolver's side; null once it has answered or was told to forget.
    ctx: *mut ngx_resolver_ctx_t,
    /// `ngx_resolve_name` has not returned yet: whoever called it goes on with the request.
    starting: bool,
}

impl Wait {
    /// Gives the resolver's context back, once.
    fn end(&mut self) {
        let ctx = mem::replace(&mut self.ctx, ptr::null_mut());
        if !ctx.is_null() {
            // SAFETY: the context came from `ngx_resolve_start`, and nobody gave it back yet.
            unsafe { ngx_resolve_name_done(ctx) };
        }
    }
}

/// Asks for the addresses of `host` by the resolver of the location that `r` is in. When the
/// answer comes later, the request goes on with the phase that it waits in; `None`: it is here.
pub(crate) fn start(
    r: Request<'_>,
    host: &str,
    callback: Callback,
) -> Result<Option<Lookup>, NoMemory> {
    // SAFETY: the calls and fields of `ngx_http_upstream_init_request()`; name and wait live in
    // the request's pool, as long as the question does (its owner is dropped with the request).
    unsafe {
        let clcf = *(*r.as_ptr()).loc_conf.add((*ptr::addr_of!(ngx_http_core_module)).ctx_index);
        let clcf = clcf.cast::<ngx_http_core_loc_conf_t>();

        let name = copy(r.pool(), host.as_bytes())?;
        let wait = ngx_palloc(r.pool(), mem::size_of::<Wait>()).cast::<Wait>();
        let Some(lookup) = NonNull::new(wait) else { return Err(NoMemory) };

        let mut probe: ngx_resolver_ctx_t = mem::zeroed();
        probe.name = name;
        let ctx = ngx_resolve_start((*clcf).resolver, ptr::addr_of_mut!(probe));
        // NGX_NO_RESOLVER is the pointer -1.
        if ctx.addr() == usize::MAX {
            callback(r, Answer::Failed("no resolver defined".to_owned()));
            return Ok(None);
        }
        if ctx.is_null() {
            return Err(NoMemory);
        }

        wait.write(Wait { waiting: Waiting::new(r), callback, ctx, starting: true });
        (*ctx).name = name;
        (*ctx).handler = Some(resolved);
        (*ctx).data = wait.cast();
        (*ctx).timeout = (*clcf).resolver_timeout;

        // An answer that is known already comes before this returns, and ends the wait.
        let rc = ngx_resolve_name(ctx);
        (*wait).starting = false;
        if rc != OK {
            // nginx has freed the context.
            (*wait).ctx = ptr::null_mut();
            return Err(NoMemory);
        }
        Ok((!(*wait).ctx.is_null()).then_some(Lookup(lookup)))
    }
}

unsafe extern "C" fn resolved(ctx: *mut ngx_resolver_ctx_t) {
    guard((), || {
        // SAFETY: nginx passes the context that `start` filled. The question is taken back before
        // its request is freed, so wait and request live.
        unsafe {
            let wait = (*ctx).data.cast::<Wait>();
            let answer = answer(ctx);
            (*wait).end();

            let waiting = (*wait).waiting;
            let starting = (*wait).starting;
            log_as(waiting.request);
            ((*wait).callback)(Request::new(waiting.request), answer);
            if !starting {
                waiting.go_on();
            }
        }
    });
}

/// # Safety
///
/// `ctx` is a context that nginx has completed.
unsafe fn answer(ctx: *mut ngx_resolver_ctx_t) -> Answer {
    // SAFETY: a completed context holds `naddrs` addresses, or a state that is not OK.
    unsafe {
        if (*ctx).state != OK {
            let reason = CStr::from_ptr(ngx_resolver_strerror((*ctx).state).cast());
            return Answer::Failed(reason.to_string_lossy().into_owned());
        }
        if (*ctx).naddrs == 0 || (*ctx).addrs.is_null() {
            return Answer::Failed("no address".to_owned());
        }
        let addresses = core::slice::from_raw_parts((*ctx).addrs, (*ctx).naddrs);
        Answer::Addresses(
            addresses.iter().filter_map(|a| socket_address(a.sockaddr)).map(|a| a.ip()).collect(),
        )
    }
}

/// # Safety
///
/// `address` points to a socket address as long as its family needs.
pub(super) unsafe fn socket_address(address: *const sockaddr) -> Option<SocketAddr> {
    // SAFETY: the caller's promise; the family says which structure it is.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let v4 = address.cast::<libc::sockaddr_in>().read_unaligned();
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                let v6 = address.cast::<libc::sockaddr_in6>().read_unaligned();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddr::new(ip.into(), u16::from_be(v6.sin6_port)))
            }
            _ => None,
        }
    }
}
