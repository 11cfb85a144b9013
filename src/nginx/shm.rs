//! Shared memory: what all workers know together, and what a reload does not forget.
//!
//! A zone holds *records* (a few words by key, for what is counted and remembered), *blobs* (bytes
//! by key) and *counters* (by name, never forgotten). Records and blobs give way when memory ends,
//! the least recently used first; nobody waits and nobody fails for it.
//!
//! A worker may be killed at any instruction. nginx's master then takes the mutex from it; what it
//! was changing of ours stays usable, because buckets are changed by one store at a time, and the
//! rest, the order of use, is made anew from them. What it had in its hands is lost to the zone: a
//! blob that it was copying, or had not linked yet. nginx's own slab pool promises less: it is not
//! repaired for those who die in the few instructions that change it.

use core::cell::RefCell;
use core::ffi::c_void;
use core::ptr::{self, addr_of_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use nginx_sys::{
    ngx_cycle, ngx_int_t, ngx_pagesize, ngx_pnalloc, ngx_shared_memory_add, ngx_shm_zone_t,
    ngx_shmtx_lock, ngx_shmtx_trylock, ngx_shmtx_unlock, ngx_slab_alloc_locked,
    ngx_slab_calloc_locked, ngx_slab_free_locked, ngx_slab_pool_t,
};

use super::conf::{Conf, SetError};
use super::request::Request;
use super::{ERROR, ListIter, Module, OK, bytes, copy, guard, log};

/// A name that takes more than this is cut, and shares its counter with what begins like it.
const MAX_NAME: usize = 224;

/// A piece of a blob is this at most: a page, of which the slab has no smaller waste.
const MAX_PIECE: usize = 4096;
const MIN_PIECE: usize = 64;

/// At most so many are thrown away to make room for one: the mutex is held meanwhile.
const MAX_EVICTIONS: usize = 256;

/// A zone that the configuration names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone(*mut ngx_shm_zone_t);

/// What lies at the beginning of a zone; `buckets` chains follow it.
#[repr(C)]
struct Root {
    /// The lists are being changed. Found set by one who has just got the mutex, whoever did it
    /// was killed.
    is_busy: AtomicU32,
    /// Until when the records matter: see [`Zone::is_watched`].
    watched_until: AtomicU64,
    /// A power of two.
    buckets: usize,
    /// By which keys are spread over the chains: strangers choose what is asked for.
    secret: [u64; 2],
    records: List,
    blobs: List,
    record_count: usize,
    max_records: usize,
    counters: AtomicPtr<Series>,
    counter_count: usize,
    max_counters: usize,
    locks: AtomicU64,
    waits: AtomicU64,
    evictions: AtomicU64,
}

/// The order of use.
#[repr(C)]
struct List {
    newest: *mut Node,
    oldest: *mut Node,
}

#[repr(C)]
struct Node {
    next: AtomicPtr<Node>,
    newer: *mut Node,
    older: *mut Node,
    /// A [`rules::digest::Key`].
    key: [u64; 2],
    /// Bytes of a blob; words of a record.
    len: u32,
    /// How many are reading the blob; it is freed after them.
    pins: u32,
    /// The first piece of a blob. A record's words follow the node.
    pieces: *mut Piece,
    is_blob: bool,
    is_dead: bool,
}

#[repr(C)]
struct Piece {
    next: *mut Piece,
}

#[repr(C)]
struct Series {
    next: *mut Series,
    value: AtomicU64,
    len: usize,
}

thread_local! {
    /// Where this worker's counters are: found once, then counted without the mutex.
    static COUNTERS: RefCell<HashMap<String, Counter>> = RefCell::default();
}

/// Forgets what a worker knows of its zones; when a configuration ends.
pub(crate) fn flush() {
    COUNTERS.with_borrow_mut(HashMap::clear);
}

impl Conf {
    /// Declares a zone.
    ///
    /// # Errors
    ///
    /// If it has been declared, or is another module's: nginx says so.
    pub(crate) fn add_zone<M: Module>(self, name: &str, size: usize) -> Result<Zone, SetError> {
        // SAFETY: nginx keeps the name, which is in the configuration's pool; `cf` is live.
        unsafe {
            let mut name = copy((*self.0).pool, name.as_bytes()).map_err(|_| SetError::NoMemory)?;
            let tag = M::module().cast::<c_void>().cast_mut();
            let zone = ngx_shared_memory_add(self.0, &raw mut name, size, tag);
            if zone.is_null() {
                return Err(SetError::NoMemory);
            }
            if !(*zone).data.is_null() {
                return Err(SetError::Duplicate);
            }
            (*zone).data = zone.cast();
            (*zone).init = Some(init);
            Ok(Zone(zone))
        }
    }
}

/// The smallest zone, as nginx's own modules have it.
pub(crate) fn min_size() -> usize {
    // SAFETY: nginx sets it before it reads a configuration.
    unsafe { 8 * ngx_pagesize }
}

unsafe extern "C" fn init(zone: *mut ngx_shm_zone_t, _old: *mut c_void) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: nginx passes a live zone whose memory begins with a slab pool, to which nobody
        // else has access yet; or one that the last configuration had, and workers use.
        unsafe {
            let pool = (*zone).shm.addr.cast::<ngx_slab_pool_t>();
            if !(*pool).data.is_null() {
                return OK;
            }
            if had_other_size(zone) {
                let name = String::from_utf8_lossy(bytes((*zone).shm.name));
                log::write(
                    (*zone).shm.log,
                    log::Level::Notice,
                    format_args!("docker_zone \"{name}\" has another size now and starts empty"),
                );
            }
            // A full zone is business as usual.
            (*pool).set_log_nomem(0);

            let size = (*zone).shm.size;
            let buckets = (size / 2048).next_power_of_two().clamp(64, 65_536);
            let chains = buckets * size_of::<AtomicPtr<Node>>();
            let root = ngx_slab_calloc_locked(pool, size_of::<Root>() + chains).cast::<Root>();
            if root.is_null() {
                return ERROR;
            }
            // All other fields are zero: empty.
            (*root).buckets = buckets;
            (*root).secret = [0, 1].map(|word| RandomState::new().hash_one(word) | 1);
            (*root).max_records = size / 1024;
            (*root).max_counters = size / 1024;
            (*pool).data = root.cast();
            OK
        }
    })
}

/// The running configuration has a zone of this name, which nginx has not given to `zone`.
///
/// # Safety
///
/// `zone` is a live zone.
unsafe fn had_other_size(zone: *mut ngx_shm_zone_t) -> bool {
    // SAFETY: while a configuration is read, `ngx_cycle` is the one before, or a first one that
    // has no zones.
    unsafe {
        let cycle = ngx_cycle;
        if cycle.is_null() || (*cycle).shared_memory.part.elts.is_null() {
            return false;
        }
        ListIter::<ngx_shm_zone_t>::new(addr_of_mut!((*cycle).shared_memory)).any(|old| {
            (*old).tag == (*zone).tag
                && bytes((*old).shm.name) == bytes((*zone).shm.name)
                && (*old).shm.size != (*zone).shm.size
        })
    }
}

/// A counter that all workers share.
#[derive(Clone, Copy)]
pub(crate) struct Counter(*const AtomicU64);

impl Counter {
    pub(crate) fn add(self, number: u64) {
        // SAFETY: a series is never freed while its zone lives, and a worker forgets its counters
        // when its configuration ends.
        unsafe { (*self.0).fetch_add(number, Ordering::Relaxed) };
    }

    pub(crate) fn set(self, number: u64) {
        // SAFETY: as above.
        unsafe { (*self.0).store(number, Ordering::Relaxed) };
    }
}

/// A counter out of a bounded number.
#[derive(Clone, Copy)]
pub(crate) enum Member {
    Known(Counter),
    /// It was not there before, in no worker.
    New(Counter),
    /// There are enough already, or there is no room.
    Full,
}

/// How the zone itself is doing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Times that the mutex was taken, and of these, times that another had it.
    pub(crate) locks: u64,
    pub(crate) waits: u64,
    /// Records and blobs that gave way.
    pub(crate) evictions: u64,
    /// Bytes in pages that hold nothing.
    pub(crate) free: u64,
}

impl Zone {
    fn pool(self) -> *mut ngx_slab_pool_t {
        // SAFETY: nginx keeps the zone as long as the configuration, and maps it before requests.
        unsafe { (*self.0).shm.addr.cast() }
    }

    fn root(self) -> *mut Root {
        // SAFETY: `init` has run before there are requests, and put it there.
        unsafe { (*self.pool()).data.cast() }
    }

    /// Does something with the records, which are nobody else's meanwhile. Nothing that takes
    /// time belongs in `work`.
    pub(crate) fn lock<R>(self, work: impl FnOnce(&mut Locked) -> R) -> R {
        struct Unlock(*mut ngx_slab_pool_t);
        impl Drop for Unlock {
            fn drop(&mut self) {
                // SAFETY: we have locked it.
                unsafe { ngx_shmtx_unlock(addr_of_mut!((*self.0).mutex)) };
            }
        }

        let (pool, root) = (self.pool(), self.root());
        // SAFETY: both live as long as the zone; all but the atomics is touched by the one who
        // has the mutex alone.
        unsafe {
            let mutex = addr_of_mut!((*pool).mutex);
            (*root).locks.fetch_add(1, Ordering::Relaxed);
            if ngx_shmtx_trylock(mutex) == 0 {
                (*root).waits.fetch_add(1, Ordering::Relaxed);
                ngx_shmtx_lock(mutex);
            }
            let _unlock = Unlock(pool);
            let mut locked = Locked { pool, root };
            if (*root).is_busy.swap(1, Ordering::SeqCst) != 0 {
                locked.repair();
            }
            let result = work(&mut locked);
            // After a panic it stays set.
            (*root).is_busy.store(0, Ordering::SeqCst);
            result
        }
    }

    /// Whether there are records that matter at `now`. In quiet times nobody needs to look.
    pub(crate) fn is_watched(self, now: u64) -> bool {
        // SAFETY: an atomic of a live zone.
        now < unsafe { (*self.root()).watched_until.load(Ordering::Relaxed) }
    }

    /// Records matter until then.
    pub(crate) fn watch(self, until: u64) {
        // SAFETY: as above.
        unsafe { (*self.root()).watched_until.fetch_max(until, Ordering::Relaxed) };
    }

    /// A copy of the bytes kept under `key`, in the memory of `r`.
    pub(crate) fn blob(self, r: Request<'_>, key: [u64; 2]) -> Option<&[u8]> {
        let node = self.lock(|locked| locked.pin(key))?;
        // SAFETY: a pinned blob is neither freed nor changed; the allocation has room for all of it,
        // and what is returned of it is written.
        let copied = unsafe {
            let mut rest = (*node).len as usize;
            let start = ngx_pnalloc(r.pool(), rest).cast::<u8>();
            let (mut end, mut piece) = (start, (*node).pieces);
            while rest > 0 && !start.is_null() && !piece.is_null() {
                let len = piece_room(rest).min(rest);
                ptr::copy_nonoverlapping(piece.add(1).cast::<u8>(), end, len);
                end = end.add(len);
                rest -= len;
                piece = (*piece).next;
            }
            let len = end.addr() - start.addr();
            (len > 0).then(|| core::slice::from_raw_parts(start, len))
        };
        self.lock(|locked| locked.unpin(node));
        copied
    }

    /// Keeps `data` under `key`, in place of what was there. `false`: there is no room.
    pub(crate) fn keep_blob(self, key: [u64; 2], data: &[u8]) -> bool {
        let node = self.lock(|locked| locked.new_blob(key, data.len()));
        if node.is_null() {
            return false;
        }
        // SAFETY: the node is nobody else's until it is linked; its pieces have room for `data`.
        unsafe {
            let (mut rest, mut piece) = (data, (*node).pieces);
            while !rest.is_empty() && !piece.is_null() {
                let (now, later) = rest.split_at(piece_room(rest.len()).min(rest.len()));
                ptr::copy_nonoverlapping(now.as_ptr(), piece.add(1).cast::<u8>(), now.len());
                rest = later;
                piece = (*piece).next;
            }
        }
        self.lock(|locked| {
            locked.remove(key);
            locked.link(node);
        });
        true
    }

    /// The counter of this name, which is a label of the status page; `None` when there are too
    /// many.
    pub(crate) fn counter(self, name: &str) -> Option<Counter> {
        let name = name.get(..MAX_NAME).unwrap_or(name);
        COUNTERS.with_borrow_mut(|counters| {
            if let Some(counter) = counters.get(name) {
                return Some(*counter);
            }
            let counter = self.lock(|locked| locked.series(name))?;
            counters.insert(name.to_owned(), counter);
            Some(counter)
        })
    }

    /// The counter of this name, one of at most `max` whose names begin with `family`.
    pub(crate) fn counter_among(self, family: &str, name: &str, max: usize) -> Member {
        let name = name.get(..MAX_NAME).unwrap_or(name);
        // None is ever removed, so what is found without the mutex stays true.
        match self.member(family, name, max) {
            Some(member) => member,
            None => self.lock(|locked| match self.member(family, name, max) {
                Some(member) => member,
                None => locked.series(name).map_or(Member::Full, Member::New),
            }),
        }
    }

    fn member(self, family: &str, name: &str, max: usize) -> Option<Member> {
        let mut members = 0;
        for (known, counter) in self.series() {
            if known == name.as_bytes() {
                return Some(Member::Known(counter));
            }
            members += usize::from(known.starts_with(family.as_bytes()));
        }
        (members >= max).then_some(Member::Full)
    }

    /// All counters, the newest first.
    pub(crate) fn counters(self) -> impl Iterator<Item = (String, u64)> {
        self.series().map(|(name, Counter(value))| {
            // SAFETY: a series is never freed while its zone lives.
            let value = unsafe { (*value).load(Ordering::Relaxed) };
            (String::from_utf8_lossy(name).into_owned(), value)
        })
    }

    fn series<'z>(self) -> impl Iterator<Item = (&'z [u8], Counter)> {
        // SAFETY: the root of a zone that is mapped.
        unsafe { all_series(self.root()) }
    }

    pub(crate) fn usage(self) -> Usage {
        let root = self.root();
        // SAFETY: atomics of a live zone, and a word of nginx's that may be outdated at once.
        unsafe {
            Usage {
                locks: (*root).locks.load(Ordering::Relaxed),
                waits: (*root).waits.load(Ordering::Relaxed),
                evictions: (*root).evictions.load(Ordering::Relaxed),
                free: ((*self.pool()).pfree * ngx_pagesize) as u64,
            }
        }
    }
}

/// The names and counters of a zone, the newest first.
///
/// # Safety
///
/// `root` is that of a zone which outlives what is returned.
unsafe fn all_series<'z>(root: *const Root) -> impl Iterator<Item = (&'z [u8], Counter)> {
    // SAFETY: series are put in front of the list when they are whole, and never removed.
    let mut next = unsafe { (*root).counters.load(Ordering::Acquire) };
    core::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: as above; the name follows the series.
        unsafe {
            let series = next;
            next = (*series).next;
            let name = core::slice::from_raw_parts(series.add(1).cast::<u8>(), (*series).len);
            Some((name, Counter(&raw const (*series).value)))
        }
    })
}

/// How many bytes the next piece of a blob holds, of which `rest` are left.
fn piece_room(rest: usize) -> usize {
    let header = size_of::<Piece>();
    let wanted = rest + header;
    // Powers of two are what the slab gives; what would waste much is cut into two.
    let up = wanted.next_power_of_two().max(MIN_PIECE);
    let size = if up - wanted < MIN_PIECE { up } else { up / 2 };
    size.min(MAX_PIECE) - header
}

/// A zone whose mutex we have.
pub(crate) struct Locked {
    pool: *mut ngx_slab_pool_t,
    root: *mut Root,
}

impl Locked {
    /// The record of this key, if there is one.
    pub(crate) fn record<const N: usize>(&mut self, key: [u64; 2]) -> Option<[u64; N]> {
        let node = self.find(key);
        // SAFETY: `find` returns a node of this zone, or null; a record's words follow it.
        unsafe {
            if node.is_null() || (*node).is_blob || (*node).len as usize != N {
                return None;
            }
            Some(node.add(1).cast::<[u64; N]>().read())
        }
    }

    /// Sets the record of this key. Without room it is not kept, which costs us no more than what
    /// it would have told.
    pub(crate) fn set_record<const N: usize>(&mut self, key: [u64; 2], words: [u64; N]) {
        let mut node = self.find(key);
        // SAFETY: as above; a new node has room for the words.
        unsafe {
            if !node.is_null() && ((*node).is_blob || (*node).len as usize != N) {
                self.remove(key);
                node = ptr::null_mut();
            }
            if !node.is_null() {
                node.add(1).cast::<[u64; N]>().write(words);
                return;
            }
            if (*self.root).record_count >= (*self.root).max_records {
                self.evict(false);
            }
            node = self.new_node(key, size_of::<[u64; N]>(), false);
            if node.is_null() {
                return;
            }
            (*node).len = N as u32;
            node.add(1).cast::<[u64; N]>().write(words);
            self.link(node);
        }
    }

    /// Whether there is a blob of this key.
    pub(crate) fn has_blob(&mut self, key: [u64; 2]) -> bool {
        let node = self.find(key);
        // SAFETY: as above.
        unsafe { !node.is_null() && (*node).is_blob }
    }

    /// Forgets what is kept under `key`.
    pub(crate) fn remove(&mut self, key: [u64; 2]) {
        let node = self.find(key);
        if !node.is_null() {
            self.unlink(node);
        }
    }

    /// Chains are chosen by multiply-shift hashing: whoever does not know the secret finds no keys
    /// that share one.
    fn chain(&self, [low, high]: [u64; 2]) -> *mut AtomicPtr<Node> {
        // SAFETY: the chains follow the root, a power of two of them, and more than one.
        unsafe {
            let [first, second] = (*self.root).secret;
            let hash = low.wrapping_mul(first).wrapping_add(high.wrapping_mul(second));
            let number = hash >> (u64::BITS - (*self.root).buckets.trailing_zeros());
            self.root.add(1).cast::<AtomicPtr<Node>>().add(number as usize)
        }
    }

    /// The node of this key, now the newest of its list; or null.
    fn find(&mut self, key: [u64; 2]) -> *mut Node {
        // SAFETY: chains hold nodes of this zone, which live until they are unlinked.
        unsafe {
            let mut node = (*self.chain(key)).load(Ordering::Relaxed);
            while !node.is_null() && (*node).key != key {
                node = (*node).next.load(Ordering::Relaxed);
            }
            if !node.is_null() {
                self.take_out(node);
                self.put_first(node);
            }
            node
        }
    }

    fn list(&mut self, node: *mut Node) -> *mut List {
        // SAFETY: a node of this zone.
        unsafe {
            if (*node).is_blob {
                addr_of_mut!((*self.root).blobs)
            } else {
                addr_of_mut!((*self.root).records)
            }
        }
    }

    fn take_out(&mut self, node: *mut Node) {
        let list = self.list(node);
        // SAFETY: the node is in the list, whose other members live too.
        unsafe {
            let (newer, older) = ((*node).newer, (*node).older);
            *if newer.is_null() {
                addr_of_mut!((*list).newest)
            } else {
                addr_of_mut!((*newer).older)
            } = older;
            *if older.is_null() {
                addr_of_mut!((*list).oldest)
            } else {
                addr_of_mut!((*older).newer)
            } = newer;
        }
    }

    fn put_first(&mut self, node: *mut Node) {
        let list = self.list(node);
        // SAFETY: the node is in no list.
        unsafe {
            let second = (*list).newest;
            (*node).newer = ptr::null_mut();
            (*node).older = second;
            (*list).newest = node;
            *if second.is_null() {
                addr_of_mut!((*list).oldest)
            } else {
                addr_of_mut!((*second).newer)
            } = node;
        }
    }

    /// Makes a node findable.
    fn link(&mut self, node: *mut Node) {
        // SAFETY: the node is whole and in no chain; one store puts it there.
        unsafe {
            let chain = self.chain((*node).key);
            (*node).next.store((*chain).load(Ordering::Relaxed), Ordering::SeqCst);
            (*chain).store(node, Ordering::SeqCst);
            self.put_first(node);
            (*self.root).record_count += usize::from(!(*node).is_blob);
        }
    }

    /// Makes a node unfindable, and frees it if nobody reads it.
    fn unlink(&mut self, node: *mut Node) {
        // SAFETY: the node is in its chain; one store takes it out.
        unsafe {
            let mut link: *const AtomicPtr<Node> = self.chain((*node).key);
            while (*link).load(Ordering::Relaxed) != node {
                let at = (*link).load(Ordering::Relaxed);
                if at.is_null() {
                    return;
                }
                link = &raw const (*at).next;
            }
            (*link).store((*node).next.load(Ordering::Relaxed), Ordering::SeqCst);
            self.take_out(node);
            (*self.root).record_count -= usize::from(!(*node).is_blob);
            if (*node).pins > 0 {
                (*node).is_dead = true;
            } else {
                self.free(node);
            }
        }
    }

    fn free(&mut self, node: *mut Node) {
        // SAFETY: nobody finds or reads the node any more; its pieces are its own.
        unsafe {
            let mut piece = (*node).pieces;
            while !piece.is_null() {
                let next = (*piece).next;
                ngx_slab_free_locked(self.pool, piece.cast());
                piece = next;
            }
            ngx_slab_free_locked(self.pool, node.cast());
        }
    }

    /// Throws away the least recently used; `false`: there is none.
    fn evict(&mut self, blob: bool) -> bool {
        // SAFETY: fields of the root; the node is of its list.
        unsafe {
            let list = if blob { &(*self.root).blobs } else { &(*self.root).records };
            let oldest = list.oldest;
            if oldest.is_null() {
                return false;
            }
            (*self.root).evictions.fetch_add(1, Ordering::Relaxed);
            self.unlink(oldest);
            true
        }
    }

    /// Memory for a record or for a blob. A record is small and worth more than a blob; a blob
    /// takes nothing from records.
    fn allocate(&mut self, size: usize, blob: bool) -> *mut c_void {
        for _ in 0..MAX_EVICTIONS {
            // SAFETY: we have the mutex.
            let memory = unsafe { ngx_slab_alloc_locked(self.pool, size) };
            if !memory.is_null() {
                return memory;
            }
            if !(self.evict(true) || (!blob && self.evict(false))) {
                break;
            }
        }
        ptr::null_mut()
    }

    fn new_node(&mut self, key: [u64; 2], extra: usize, is_blob: bool) -> *mut Node {
        let node = self.allocate(size_of::<Node>() + extra, is_blob).cast::<Node>();
        if !node.is_null() {
            // SAFETY: fresh memory of that size.
            unsafe {
                node.write(Node {
                    next: AtomicPtr::default(),
                    newer: ptr::null_mut(),
                    older: ptr::null_mut(),
                    key,
                    len: 0,
                    pins: 0,
                    pieces: ptr::null_mut(),
                    is_blob,
                    is_dead: false,
                });
            }
        }
        node
    }

    /// A blob that is not yet linked, with room for `len` bytes; or null.
    fn new_blob(&mut self, key: [u64; 2], len: usize) -> *mut Node {
        let node = self.new_node(key, 0, true);
        let Ok(short) = u32::try_from(len) else { return ptr::null_mut() };
        if node.is_null() {
            return node;
        }
        // SAFETY: the node is ours; each piece is fresh memory with room for its header.
        unsafe {
            (*node).len = short;
            let mut rest = len;
            let mut end = addr_of_mut!((*node).pieces);
            while rest > 0 {
                let room = piece_room(rest);
                let piece = self.allocate(room + size_of::<Piece>(), true).cast::<Piece>();
                if piece.is_null() {
                    self.free(node);
                    return ptr::null_mut();
                }
                (*piece).next = ptr::null_mut();
                *end = piece;
                end = addr_of_mut!((*piece).next);
                rest = rest.saturating_sub(room);
            }
        }
        node
    }

    fn pin(&mut self, key: [u64; 2]) -> Option<*mut Node> {
        let node = self.find(key);
        // SAFETY: as in `record`.
        unsafe {
            if node.is_null() || !(*node).is_blob {
                return None;
            }
            (*node).pins += 1;
        }
        Some(node)
    }

    fn unpin(&mut self, node: *mut Node) {
        // SAFETY: we have pinned it, so it lives.
        unsafe {
            (*node).pins -= 1;
            if (*node).pins == 0 && (*node).is_dead {
                self.free(node);
            }
        }
    }

    fn series(&mut self, name: &str) -> Option<Counter> {
        // SAFETY: series live as long as the zone; a new one is whole before it is put in front.
        unsafe {
            let mut known = all_series(self.root);
            if let Some((_, counter)) = known.find(|(known, _)| *known == name.as_bytes()) {
                return Some(counter);
            }
            if (*self.root).counter_count >= (*self.root).max_counters {
                return None;
            }
            let series = self.allocate(size_of::<Series>() + name.len(), false).cast::<Series>();
            if series.is_null() {
                return None;
            }
            let first = (*self.root).counters.load(Ordering::Relaxed);
            series.write(Series { next: first, value: AtomicU64::new(0), len: name.len() });
            ptr::copy_nonoverlapping(name.as_ptr(), series.add(1).cast::<u8>(), name.len());
            (*self.root).counter_count += 1;
            (*self.root).counters.store(series, Ordering::Release);
            Some(Counter(&raw const (*series).value))
        }
    }

    /// Makes the order of use anew: whoever was changing it was killed.
    fn repair(&mut self) {
        // SAFETY: chains are whole at every instant.
        unsafe {
            for list in [addr_of_mut!((*self.root).records), addr_of_mut!((*self.root).blobs)] {
                list.write(List { newest: ptr::null_mut(), oldest: ptr::null_mut() });
            }
            (*self.root).record_count = 0;
            let first = self.root.add(1).cast::<AtomicPtr<Node>>();
            for index in 0..(*self.root).buckets {
                let mut node = (*first.add(index)).load(Ordering::Relaxed);
                while !node.is_null() {
                    self.put_first(node);
                    (*self.root).record_count += usize::from(!(*node).is_blob);
                    node = (*node).next.load(Ordering::Relaxed);
                }
            }
        }
    }
}
