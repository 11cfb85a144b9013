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

/// Forwards connections from one address to another until the program ends.
pub(crate) fn line(from: SocketAddr, to: SocketAddr, round_trip: Duration, trips: &Trips) {
    let listener = TcpListener::bind(from).expect("the delay line's address");
    let trips = trips.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let trips = trips.clone();
            thread::spawn(move || carry(client, to, round_trip, &trips));
        }
    });
}

fn carry(client: TcpStream, to: SocketAddr, round_trip: Duration, trips: &Trips) {
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
        pipe(client, server, round_trip / 2, move || asked.store(true, Ordering::SeqCst));
    });
    let trips = trips.clone();
    pipe(server_end, client_end, round_trip / 2, move || {
        if unanswered.swap(false, Ordering::SeqCst) {
            trips.add();
        }
    });
    let _ = up.join();
}

/// Carries bytes one way, each `delay` after it came.
fn pipe(mut from: TcpStream, mut to: TcpStream, delay: Duration, delivering: impl Fn()) {
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
        delivering();
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
