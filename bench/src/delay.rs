//! A long way, made in user space: whatever comes in goes out later, in both directions.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Counts round trips of all lines together: a connection's own, and every turn from what the
/// client sent to what the server answered.
#[derive(Clone, Default)]
pub(crate) struct Trips(Arc<AtomicU64>);

impl Trips {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Where a line breaks.
#[derive(Clone, Default)]
pub(crate) struct Break(Arc<AtomicU64>);

impl Break {
    /// Once, after so many bytes from the server.
    pub(crate) fn after(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    /// So many come; whether the line breaks.
    fn comes_with(&self, bytes: u64) -> bool {
        let left = |left: u64| (left > 0).then(|| left.saturating_sub(bytes));
        let before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        before.is_ok_and(|before| before <= bytes)
    }
}

/// Forwards connections from one address to another until the program ends.
pub(crate) fn line(
    from: SocketAddr,
    to: SocketAddr,
    round_trip: Duration,
    trips: &Trips,
    breaks: &Break,
) {
    let listener = TcpListener::bind(from).expect("the delay line's address");
    let (trips, breaks) = (trips.clone(), breaks.clone());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (trips, breaks) = (trips.clone(), breaks.clone());
            thread::spawn(move || carry(client, to, round_trip, &trips, &breaks));
        }
    });
}

fn carry(client: TcpStream, to: SocketAddr, round_trip: Duration, trips: &Trips, breaks: &Break) {
    // The kernel has accepted at once; over a distance that takes a round trip, and the client's
    // first byte leaves only then.
    thread::sleep(round_trip);
    trips.add();
    let Ok(server) = TcpStream::connect(to) else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let (Ok(client_end), Ok(server_end)) = (client.try_clone(), server.try_clone()) else { return };

    let unanswered = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&unanswered);
    let up = thread::spawn(move || {
        pipe(client, server, round_trip / 2, move |_| {
            asked.store(true, Ordering::SeqCst);
            true
        });
    });
    pipe(server_end, client_end, round_trip / 2, |bytes| {
        if unanswered.swap(false, Ordering::SeqCst) {
            trips.add();
        }
        !breaks.comes_with(bytes)
    });
    let _ = up.join();
}

/// Carries bytes one way, each `delay` after it came, until `delivering` so many of them says that
/// the line breaks.
fn pipe(mut from: TcpStream, mut to: TcpStream, delay: Duration, delivering: impl Fn(u64) -> bool) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
                break;
            }
        }
    });
    for (due, bytes) in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if !delivering(bytes.len() as u64) || to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
