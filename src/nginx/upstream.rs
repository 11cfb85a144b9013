//! What upstream was asked, what it answered, and how to leave it.

use core::mem::size_of;
use core::net::SocketAddr;
use core::ptr::{self, NonNull};

use nginx_sys::{
    ngx_connection_t, ngx_hash_find, ngx_http_upstream_conf_t, ngx_http_upstream_t, ngx_msec_t,
    ngx_palloc, ngx_pfree, ngx_table_elt_t,
};

use super::bits::ngx_http_request_s as Bits;
use super::conf::ComplexValue;
use super::headers::{Line, lines};
use super::location::Location;
use super::request::Request;
use super::resolver::socket_address;
use super::{ERROR, NoMemory, address, bytes};

/// How a connection came about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Connection {
    Opened,
    /// Opened, with a TLS session of an earlier one.
    Resumed,
    /// Kept open from an earlier request.
    Reused,
}

/// The upstream that a request has, or had.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'r> {
    upstream: NonNull<ngx_http_upstream_t>,
    request: Request<'r>,
}

impl<'r> Upstream<'r> {
    /// `None` also for one that nginx has made and given no settings: the variables of its
    /// `proxy_pass` named nobody, and the request ends with 500.
    ///
    /// # Safety
    ///
    /// `upstream` is null or the upstream of `request`.
    pub(super) unsafe fn new(
        request: Request<'r>,
        upstream: *mut ngx_http_upstream_t,
    ) -> Option<Self> {
        let upstream = NonNull::new(upstream)?;
        // SAFETY: the caller's promise; nginx zeroes an upstream when it makes it.
        let has_settings = unsafe { !(*upstream.as_ptr()).conf.is_null() };
        has_settings.then_some(Self { upstream, request })
    }

    pub(super) fn as_ptr(self) -> *mut ngx_http_upstream_t {
        self.upstream.as_ptr()
    }

    /// Which upstream this is: each attempt of a request has one of its own.
    pub(crate) fn id(self) -> usize {
        address(self.as_ptr())
    }

    /// nginx still works on it: it was not finalized.
    pub(crate) fn is_live(self) -> bool {
        // SAFETY: plain field of an upstream in the request's pool.
        unsafe { !(*self.as_ptr()).cleanup.is_null() }
    }

    /// Its header is on its way to the client.
    pub(crate) fn is_header_sent(self) -> bool {
        // SAFETY: a bit of an upstream in the request's pool.
        unsafe { (*self.as_ptr()).header_sent() != 0 }
    }

    /// nginx keeps what it sends: in a cache, or by `proxy_store`.
    pub(crate) fn is_kept(self) -> bool {
        // SAFETY: bits of an upstream in the request's pool, and a field of its request.
        unsafe {
            #[cfg(ngx_feature = "http_cache")]
            if !(*self.request.as_ptr()).cache.is_null() {
                return true;
            }
            (*self.as_ptr()).store() != 0
        }
    }

    /// Lets nothing of its answer into a cache, or a file of `proxy_store`.
    pub(crate) fn keep_nothing(self) {
        self.cache(false);
        self.store_nothing();
    }

    /// Lets nothing of its answer into a file of `proxy_store`. To be called before the body comes:
    /// nginx would leave what it has written of it.
    pub(crate) fn store_nothing(self) {
        // SAFETY: a bit of an upstream in the request's pool, which nginx looks at when the answer's
        // body begins, and ends.
        unsafe { (*self.as_ptr()).set_store(0) };
    }

    /// nginx's cache is to have its answer.
    pub(crate) fn is_cacheable(self) -> bool {
        // SAFETY: a bit of an upstream in the request's pool.
        #[cfg(ngx_feature = "http_cache")]
        return unsafe { (*self.as_ptr()).cacheable() != 0 };
        #[cfg(not(ngx_feature = "http_cache"))]
        false
    }

    /// Lets its answer into nginx's cache, or not; it counts what was said last before its end.
    pub(crate) fn cache(self, cache: bool) {
        let _ = cache;
        // SAFETY: a bit of an upstream in the request's pool; nginx looks at it when the answer has
        // come to its end, or its client leaves.
        #[cfg(ngx_feature = "http_cache")]
        unsafe {
            (*self.as_ptr()).set_cacheable(cache.into());
        }
    }

    /// It was made by `proxy_pass`, of whatever location.
    pub(crate) fn is_proxied(self) -> bool {
        // SAFETY: the settings are the location's or a copy; the name is a static of the module.
        unsafe { bytes((*(*self.as_ptr()).conf).module) == b"proxy" }
    }

    /// It was made by the `proxy_pass` of `location`. `proxy` is the proxy module's number among
    /// the http modules: its configuration starts with the upstream's.
    pub(crate) fn is_of(self, location: Location, proxy: usize) -> bool {
        // SAFETY: the array has a slot for every http module.
        unsafe { self.conf_address() == address(*location.as_ptr().add(proxy)) }
    }

    /// The status of the answer, 0 if none was parsed.
    pub(crate) fn status(self) -> u16 {
        // SAFETY: plain field of an upstream in the request's pool.
        unsafe { u16::try_from((*self.as_ptr()).headers_in.status_n).unwrap_or(0) }
    }

    /// The value of Location as nginx has it now. `proxy_redirect` changes its bytes in place, by
    /// another structure that knows their new number.
    pub(crate) fn rewritten_location(self) -> Option<&'r [u8]> {
        // SAFETY: null, or a line of the answer, in the request's pool.
        unsafe {
            let location: *mut ngx_table_elt_t = (*self.as_ptr()).headers_in.location;
            (!location.is_null()).then(|| bytes((*location).value))
        }
    }

    /// The name that its certificate is checked for, by `proxy_ssl_name` or by `proxy_pass`.
    pub(crate) fn tls_name(self) -> Option<String> {
        // SAFETY: null, or a compiled value of the configuration.
        #[cfg(ngx_feature = "ssl")]
        let set = unsafe { ComplexValue::new((*(*self.as_ptr()).conf).ssl_name) };
        #[cfg(not(ngx_feature = "ssl"))]
        let set: Option<ComplexValue> = None;
        let name = match set {
            Some(set) => set.evaluate(self.request)?.to_vec(),
            None => self.host_and_port().0.to_vec(),
        };
        // As nginx does: a port may come with it.
        let name = String::from_utf8(name).ok()?;
        let end = if name.starts_with('[') { name.find(']')? + 1 } else { 0 };
        let port = name.get(end..)?.find(':').map_or(name.len(), |colon| end + colon);
        name.get(..port).map(str::to_owned)
    }

    /// The certificate of the location's that it is shown, by the name of its file; that may be
    /// empty.
    pub(crate) fn client_certificate(self) -> Option<&'r [u8]> {
        // SAFETY: null, or a compiled value of the configuration.
        #[cfg(ngx_feature = "ssl")]
        let set = unsafe { ComplexValue::new((*(*self.as_ptr()).conf).ssl_certificate) };
        #[cfg(not(ngx_feature = "ssl"))]
        let set: Option<ComplexValue> = None;
        set.map(|set| set.evaluate(self.request).unwrap_or_default())
    }

    /// The address that is being asked, if it is one of the internet protocols.
    pub(crate) fn peer_address(self) -> Option<SocketAddr> {
        // SAFETY: null, or a socket address as long as its family needs, while nginx works on it.
        unsafe {
            let address = (*self.as_ptr()).peer.sockaddr;
            if address.is_null() { None } else { socket_address(address) }
        }
    }

    /// How the connection came about that brought the answer.
    pub(crate) fn connection(self) -> Connection {
        // SAFETY: the connection is null or open, and its TLS layer likewise.
        unsafe {
            let peer = ptr::addr_of!((*self.as_ptr()).peer);
            if (*peer).cached() != 0 {
                return Connection::Reused;
            }
            #[cfg(ngx_feature = "ssl")]
            {
                let c = (*peer).connection;
                if !c.is_null()
                    && !(*c).ssl.is_null()
                    && nginx_sys::SSL_session_reused((*(*c).ssl).connection) != 0
                {
                    return Connection::Resumed;
                }
            }
            Connection::Opened
        }
    }

    /// How long it took until the answer's header was there, in milliseconds.
    pub(crate) fn header_time(self) -> Option<u64> {
        // SAFETY: null, or the state of the last attempt, in the request's pool; all bits are set
        // where there was no header.
        unsafe {
            let state = (*self.as_ptr()).state;
            let time = if state.is_null() { usize::MAX } else { (*state).header_time };
            (time != usize::MAX).then_some(time as u64)
        }
    }

    /// The lines of the answer's header.
    pub(crate) fn lines(self) -> impl Iterator<Item = Line<'r>> + use<'r> {
        // SAFETY: nginx zeroes the upstream, and initializes the list before the first line; a
        // zeroed list is an empty one.
        unsafe { lines(ptr::addr_of_mut!((*self.as_ptr()).headers_in.headers)) }
    }

    /// The lines that the location passes on: `proxy_hide_header` and `proxy_pass_header` say which.
    pub(crate) fn passed_lines(self) -> impl Iterator<Item = Line<'r>> + use<'r> {
        self.lines().filter(move |line| {
            let line = line.as_ptr();
            // SAFETY: the hash is that of a location of `proxy_pass`, which nginx has filled; name
            // and hash of a line are set by who reads it, and both are only read.
            unsafe {
                let hidden = ptr::addr_of_mut!((*(*self.as_ptr()).conf).hide_headers_hash);
                ngx_hash_find(hidden, (*line).hash, (*line).lowcase_key, (*line).key.len).is_null()
            }
        })
    }

    /// The value of the answer's first line of that name.
    pub(crate) fn line(self, name: &str) -> Option<&'r [u8]> {
        self.lines().find(|line| line.is(name)).map(Line::value)
    }

    /// "https://" or "http://".
    pub(crate) fn schema(self) -> &'r [u8] {
        // SAFETY: a string in the request's pool or the configuration.
        unsafe { bytes((*self.as_ptr()).schema) }
    }

    /// It is a server of HTTP: not of FastCGI or the like.
    pub(crate) fn is_of_http(self) -> bool {
        matches!(self.schema(), b"http://" | b"https://")
    }

    /// The URI that was sent: after rewrite and `proxy_pass`.
    pub(crate) fn uri(self) -> &'r [u8] {
        self.uri_of(self.request.location())
    }

    /// The same, when the request may have left `location`, whose `proxy_pass` that was, for one with
    /// a name. Over HTTP/2, nginx does not note it; it is, when it is asked for.
    pub(crate) fn uri_of(self, location: Location) -> &'r [u8] {
        let _ = location;
        // SAFETY: a string in the request's pool.
        unsafe {
            #[cfg(proxy_header)]
            if (*self.as_ptr()).uri.len == 0
                && let Some(uri) = self.http2_uri(location)
                && let Ok(uri) = super::copy(self.request.pool(), &uri)
            {
                (*self.as_ptr()).uri = uri;
            }
            bytes((*self.as_ptr()).uri)
        }
    }

    /// What `ngx_http_proxy_v2_create_request()` makes of the request. `None`: `location` has not
    /// made it.
    #[cfg(proxy_header)]
    fn http2_uri(self, location: Location) -> Option<Vec<u8>> {
        use super::bits::{ngx_http_proxy_ctx_t, ngx_http_proxy_loc_conf_t};
        use nginx_sys::{NGX_ESCAPE_URI, ngx_escape_uri, ngx_http_script_run};

        if !self.is_proxied() {
            return None;
        }
        // SAFETY: the settings that the upstream was made with begin what `proxy_pass` keeps of the
        // location, and the same slot of the request's holds what it keeps of that, until it leaves.
        // Variables are evaluated by what nginx has compiled. The first pass of the escaping tells
        // how many bytes grow by two.
        unsafe {
            let r = self.request.as_ptr();
            let own = self.conf_address();
            let mut slots = 0..nginx_sys::ngx_http_max_module;
            let slot = slots.find(|slot| address(*location.as_ptr().add(*slot)) == own)?;
            let conf = (*location.as_ptr().add(slot)).cast::<ngx_http_proxy_loc_conf_t>();
            let ctx = (*(*r).ctx.add(slot)).cast::<ngx_http_proxy_ctx_t>();
            let (lengths, values) = ((*conf).proxy_lengths, (*conf).proxy_values);
            let text = |len, data| bytes(nginx_sys::ngx_str_t { len, data }).to_vec();
            let prefix = if location.as_ptr() == (*r).loc_conf && !ctx.is_null() {
                text((*ctx).vars.uri.len, (*ctx).vars.uri.data)
            } else if lengths.is_null() {
                text((*conf).vars.uri.len, (*conf).vars.uri.data)
            } else {
                let mut url = nginx_sys::ngx_str_t::default();
                let url_at = &raw mut url;
                if ngx_http_script_run(r, url_at, (*lengths).elts, 0, (*values).elts).is_null() {
                    return None;
                }
                behind_authority(bytes(url))?
            };
            if !lengths.is_null() && !prefix.is_empty() {
                return Some(prefix);
            }
            let bits = r.cast::<Bits>();
            if prefix.is_empty() && Bits::valid_unparsed_uri_raw(bits) != 0 {
                return Some(bytes((*r).unparsed_uri).to_vec());
            }
            // What `rewrite` has made of the path is not put behind it.
            let is_replaced = Bits::valid_location_raw(bits) != 0 && !prefix.is_empty();
            let replaced = if is_replaced { (*conf).location.len } else { 0 };
            let rest = bytes((*r).uri).get(replaced..).unwrap_or_default();
            let mut uri = if is_replaced { prefix } else { Vec::new() };
            if Bits::quoted_uri_raw(bits) != 0 || Bits::internal_raw(bits) != 0 {
                let (from, kind) = (rest.as_ptr().cast_mut(), NGX_ESCAPE_URI as usize);
                let escaped = ngx_escape_uri(ptr::null_mut(), from, rest.len(), kind);
                let begin = uri.len();
                uri.resize(begin + rest.len() + 2 * escaped, 0);
                ngx_escape_uri(uri.as_mut_ptr().add(begin), from, rest.len(), kind);
            } else {
                uri.extend_from_slice(rest);
            }
            let args = bytes((*r).args);
            if !args.is_empty() {
                uri.push(b'?');
                uri.extend_from_slice(args);
            }
            Some(uri)
        }
    }

    /// Host and port under which the configuration knows it: without a port for an `upstream`.
    pub(crate) fn authority(self) -> Vec<u8> {
        let (host, port) = self.host_and_port();
        let port = if port == 0 { String::new() } else { format!(":{port}") };
        [host, port.as_bytes()].concat()
    }

    /// Which settings it has, for comparing only, where these alone name the backend: `proxy_pass`
    /// has no variables. They may be a copy that ends with the request (see [`Self::is_of`]).
    pub(crate) fn fixed_settings(self) -> Option<usize> {
        // SAFETY: plain field of an upstream in the request's pool.
        unsafe { (*self.as_ptr()).resolved.is_null() }.then(|| self.conf_address())
    }

    /// The backend as the configuration knows it: scheme, host and port.
    pub(crate) fn backend(self) -> Vec<u8> {
        [self.schema(), &self.authority()].concat()
    }

    fn host_and_port(self) -> (&'r [u8], u16) {
        // SAFETY: both are null or valid as long as the request.
        unsafe {
            let resolved = (*self.as_ptr()).resolved;
            let mut conf = (*self.as_ptr()).upstream;
            if conf.is_null() {
                // Nobody is asked: the answer comes from nginx's cache.
                conf = (*(*self.as_ptr()).conf).upstream;
            }
            match (resolved.is_null(), conf.is_null()) {
                (false, _) => (bytes((*resolved).host), (*resolved).port),
                (true, false) => (bytes((*conf).host), (*conf).port),
                (true, true) => (&[][..], 0),
            }
        }
    }

    /// The bytes of the request as they were sent; empty if none were prepared, or if they are gone.
    pub(crate) fn request_head(self) -> &'r [u8] {
        // SAFETY: the first buffer is the one that `create_request` filled; `pos` moves as it is
        // sent, `start` and `last` stay. With a body that is not buffered, nginx frees the chain as
        // it sends it, and uses it again for the body: `ngx_http_upstream_send_request_body()`.
        unsafe {
            let is_freed = Bits::request_body_no_buffering_raw(self.request.as_ptr().cast()) != 0
                && (*self.as_ptr()).request_sent() != 0;
            let chain = (*self.as_ptr()).request_bufs;
            if is_freed || chain.is_null() || (*chain).buf.is_null() {
                return &[];
            }
            let buffer = (*chain).buf;
            if (*buffer).start.is_null() || (*buffer).last < (*buffer).start {
                return &[];
            }
            core::slice::from_raw_parts(
                (*buffer).start,
                (*buffer).last.offset_from_unsigned((*buffer).start),
            )
        }
    }

    /// The method that was sent is HEAD.
    pub(crate) fn was_asked_head(self) -> bool {
        self.request_head().starts_with(b"HEAD ")
    }

    /// The head of the answer as it came, if it came as HTTP/1.x; else nothing.
    pub(crate) fn head(self) -> &'r [u8] {
        // SAFETY: the buffer holds what was received up to `last`, and `pos` stands behind the
        // head. Where the answer may be cached, room for the cache's own header comes first.
        unsafe {
            let buffer = ptr::addr_of!((*self.as_ptr()).buffer);
            let mut start = (*buffer).start;
            if start.is_null() {
                return &[];
            }
            #[cfg(ngx_feature = "http_cache")]
            {
                let cache = (*self.request.as_ptr()).cache;
                if !cache.is_null() {
                    start = start.add((*cache).header_start);
                }
            }
            if (*buffer).pos < start {
                return &[];
            }
            let head =
                core::slice::from_raw_parts(start, (*buffer).pos.offset_from_unsigned(start));
            if head.starts_with(b"HTTP/1.") { head } else { &[] }
        }
    }

    /// The answer came as HTTP/1.x, and upstream keeps the connection open.
    pub(crate) fn is_persistent(self) -> bool {
        // SAFETY: plain fields of an upstream in the request's pool.
        unsafe {
            let u = self.as_ptr();
            !self.head().is_empty() && (*u).headers_in.connection_close() == 0 && !self.is_upgrade()
        }
    }

    /// Upstream changes the protocol as the client has asked for.
    pub(crate) fn is_upgrade(self) -> bool {
        // SAFETY: a bit of an upstream in the request's pool.
        unsafe { (*self.as_ptr()).upgrade() != 0 }
    }

    pub(crate) fn is_chunked(self) -> bool {
        // SAFETY: a bit of an upstream in the request's pool.
        unsafe { (*self.as_ptr()).headers_in.chunked() != 0 }
    }

    pub(crate) fn content_length(self) -> Option<u64> {
        // SAFETY: plain field of an upstream in the request's pool; -1 is "none".
        unsafe { u64::try_from((*self.as_ptr()).headers_in.content_length_n).ok() }
    }

    /// The bytes behind the header that were received so far.
    pub(crate) fn received(self) -> &'r [u8] {
        // SAFETY: nginx keeps `start <= pos <= last <= end` in its buffers.
        unsafe {
            let buffer = ptr::addr_of!((*self.as_ptr()).buffer);
            if (*buffer).pos.is_null() || (*buffer).last <= (*buffer).pos {
                return &[];
            }
            core::slice::from_raw_parts(
                (*buffer).pos,
                (*buffer).last.offset_from_unsigned((*buffer).pos),
            )
        }
    }

    /// Gives up on it when it has sent nothing for so many milliseconds, if the location would
    /// wait for longer. `Some` is to be given back when all has come.
    pub(crate) fn limit_silence(self, limit: u64) -> Result<Option<Settings>, NoMemory> {
        // SAFETY: the settings are the location's, or a copy that peer.rs has made; the copy here
        // lives in the request's pool as well, as long as the upstream. nginx reads the time anew
        // whenever it sets a timer, and once for all where it buffers an answer: between header and
        // body (`ngx_http_upstream_send_response()`).
        unsafe {
            let u = self.as_ptr();
            let limit = ngx_msec_t::try_from(limit).unwrap_or(ngx_msec_t::MAX);
            let settings = (*u).conf;
            if (*settings).read_timeout <= limit {
                return Ok(None);
            }
            let conf = ngx_palloc(self.request.pool(), size_of::<ngx_http_upstream_conf_t>())
                .cast::<ngx_http_upstream_conf_t>();
            if conf.is_null() {
                return Err(NoMemory);
            }
            ptr::copy_nonoverlapping(settings, conf, 1);
            (*conf).read_timeout = limit;
            (*u).conf = conf;

            // What was asked already is being waited for.
            let connection = (*u).peer.connection;
            if !connection.is_null() && (*(*connection).read).timer_set() != 0 {
                nginx_sys::ngx_add_timer((*connection).read, limit);
            }
            Ok(Some(Settings { own: settings, limited: conf }))
        }
    }

    /// Gives it back what it was made with: since 1.29.7, nginx keeps a connection for requests that
    /// have the same settings, by their address.
    pub(crate) fn restore_settings(self, settings: Settings) {
        // SAFETY: they come from `limit_silence`, of this upstream if it has the copy.
        unsafe {
            if (*self.as_ptr()).conf == settings.limited {
                (*self.as_ptr()).conf = settings.own;
            }
        }
    }

    /// The connection that the answer comes by.
    pub(crate) fn sender(self) -> Option<Sender> {
        // SAFETY: plain field of an upstream in the request's pool.
        NonNull::new(unsafe { (*self.as_ptr()).peer.connection }).map(Sender)
    }

    /// Reads what lies ready in the socket into the rest of the buffer; never waits.
    pub(crate) fn receive_more(self) {
        // SAFETY: the connection is the upstream's own; `recv` writes at most `room` bytes behind
        // `last`, which is what nginx itself does with this buffer.
        unsafe {
            let u = self.as_ptr();
            let connection = (*u).peer.connection;
            let buffer = ptr::addr_of_mut!((*u).buffer);
            if connection.is_null() || (*buffer).last >= (*buffer).end {
                return;
            }
            let room = (*buffer).end.offset_from_unsigned((*buffer).last);
            let Some(recv) = (*connection).recv else { return };
            let received = recv(connection, (*buffer).last, room);
            if let Ok(received) = usize::try_from(received) {
                (*buffer).last = (*buffer).last.add(received);
            }
            if matches!(received, 0 | ERROR) {
                // nginx is to meet the end itself, if the answer goes on.
                (*(*connection).read).set_ready(1);
            }
        }
    }

    /// Has the connection kept when nginx lets go of it, or closed. `keep`: nothing of this answer is
    /// left in it.
    pub(crate) fn keep(self, keep: bool) {
        // SAFETY: a bit of an upstream in the request's pool.
        unsafe { (*self.as_ptr()).set_keepalive(keep.into()) };
    }

    /// Gives the connection back and forgets the answer. `keep`: nothing of this answer is left
    /// in the connection, so that it may serve another request.
    ///
    /// Without this, a follow location that never reaches `proxy_pass` drops the client.
    pub(crate) fn release(self, keep: bool) {
        // SAFETY: nginx's own cleanup, as `ngx_http_upstream_create()` calls it on a second
        // upstream; it finalizes the request with NGX_DONE, for which the count is raised. The
        // buffer is not the connection's any more, and nginx's caller leaves without reading it.
        unsafe {
            let u = self.as_ptr();
            if (*u).cleanup.is_null() {
                return;
            }
            let Some(cleanup) = *(*u).cleanup else { return };
            (*u).set_keepalive(u32::from(keep));

            let r = self.request.as_ptr();
            let main = (*r).main.cast::<Bits>();
            Bits::set_count_raw(main, Bits::count_raw(main) + 1);
            cleanup(r.cast());
            // nginx has let go of the cache's node; the next upstream must not write to it.
            #[cfg(ngx_feature = "http_cache")]
            {
                (*r).cache = ptr::null_mut();
            }

            let start = (*u).buffer.start;
            if !start.is_null() && ngx_pfree((*r).pool, start.cast()) == super::OK {
                ptr::write_bytes(ptr::addr_of_mut!((*u).buffer), 0, 1);
            }
        }
    }
}

/// What an upstream was made with, and the copy that limits its silence.
pub(crate) struct Settings {
    own: *mut ngx_http_upstream_conf_t,
    limited: *mut ngx_http_upstream_conf_t,
}

/// A connection to an upstream, while it is open and until right after it was closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender(NonNull<ngx_connection_t>);

/// How a connection ended before the answer did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    Closed,
    Reset,
    TimedOut,
}

impl Ending {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed the connection",
            Self::Reset => "broke the connection",
            Self::TimedOut => "timed out",
        }
    }
}

impl Sender {
    /// How it ended. To be asked in the same callback as nginx has closed it: later it may be
    /// another connection.
    pub(crate) fn ending(self) -> Ending {
        // SAFETY: connections and their events are elements of arrays that nginx never frees
        // while it runs; closing one leaves what was read of it as it was.
        unsafe {
            let read = (*self.0.as_ptr()).read;
            if (*read).timedout() != 0 {
                Ending::TimedOut
            } else if (*read).error() != 0 {
                Ending::Reset
            } else {
                Ending::Closed
            }
        }
    }
}

/// Path and query of a URL that `proxy_pass` has, as `ngx_http_proxy_eval()` finds them; empty if
/// there are none.
#[cfg(proxy_header)]
fn behind_authority(url: &[u8]) -> Option<Vec<u8>> {
    let begin = url.windows(3).position(|bytes| bytes == b"://")? + 3;
    let rest = url.get(begin..)?;
    let uri = match rest.strip_prefix(b"unix:") {
        Some(path) => path.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default(),
        None => {
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
            end.and_then(|end| rest.get(end..)).unwrap_or_default()
        }
    };
    let slash: &[u8] = if uri.starts_with(b"?") { b"/" } else { b"" };
    Some([slash, uri].concat())
}
