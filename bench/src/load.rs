//! A client that asks for the same thing over and over, and looks at every answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::process;

/// No answer takes longer; a longer silence is a fault.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked, and where.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The name in the certificate, and whom to trust; without it, plain HTTP.
    pub(crate) tls: Option<(String, Arc<ClientConfig>)>,
    /// The request, as it goes out.
    pub(crate) request: Vec<u8>,
    /// How long the body must be.
    pub(crate) length: u64,
}

/// How long a load lasts.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Elapsed(Duration),
    Requests(u64),
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// Processor time of the nginx worker.
    pub(crate) cpu: Duration,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of the worker's processor time a request.
    pub(crate) fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests.max(1) as f64
    }
}

/// How an answer came.
struct Arrival {
    first: Instant,
    /// The longest time between two pieces of the body.
    gap: Duration,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A kept connection.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    target: Target,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(target: &Target) -> Self {
        let stream = TcpStream::connect(target.address).await.expect("a connection to nginx");
        stream.set_nodelay(true).expect("no delay");
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(stream),
            Some((name, config)) => {
                let name = ServerName::try_from(name.clone()).expect("a host name");
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name, stream).await.expect("a TLS handshake"))
            }
        };
        Self { stream, target: target.clone(), buffer: vec![0; 128 * 1024] }
    }

    /// Asks, reads the whole answer, and returns how long its first byte took.
    pub(crate) async fn get(&mut self) -> Duration {
        let start = Instant::now();
        self.whole().await.first - start
    }

    /// Asks, reads the whole answer, and returns the longest time in which nothing of it came.
    pub(crate) async fn longest_gap(&mut self) -> Duration {
        self.whole().await.gap
    }

    async fn whole(&mut self) -> Arrival {
        match tokio::time::timeout(PATIENCE, self.exchange(u64::MAX)).await {
            Ok(Ok(arrival)) => arrival,
            Ok(Err(error)) => panic!("no whole answer: {error}"),
            Err(_) => panic!("no whole answer within {PATIENCE:?}"),
        }
    }

    /// Asks and reads about `bytes` of the answer; the rest stays where it is.
    pub(crate) async fn begin(&mut self, bytes: u64) {
        self.exchange(bytes).await.expect("the beginning of an answer");
    }

    async fn exchange(&mut self, most: u64) -> io::Result<Arrival> {
        self.stream.write_all(&self.target.request).await?;
        self.stream.flush().await?;
        let mut filled = 0;
        let mut first = None;
        let header = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            first.get_or_insert_with(Instant::now);
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let end = self.buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..header]);
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("Content-Length").then(|| value.trim().parse::<u64>().ok())?
        });
        // A measurement of failures is worth nothing.
        assert!(
            text.starts_with("HTTP/1.1 200") && length == Some(self.target.length),
            "another answer than expected:\n{text}"
        );
        let mut left = self.target.length.min(most).saturating_sub((filled - header) as u64);
        let mut last = Instant::now();
        let mut gap = Duration::ZERO;
        while left > 0 {
            let read = self.stream.read(&mut self.buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left = left.saturating_sub(read as u64);
            gap = gap.max(last.elapsed());
            last = Instant::now();
        }
        let first = first.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Arrival { first, gap })
    }
}

/// Opens connections, each of which has had one answer already.
pub(crate) async fn warm(target: &Target, connections: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = Client::connect(target).await;
        client.get().await;
        clients.push(client);
    }
    clients
}

/// Opens so many connections, and then asks over all of them at once, so many times each.
pub(crate) async fn at_once(target: &Target, connections: usize, times: u64) {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(target).await);
    }
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            for _ in 0..times {
                client.get().await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a client without a fault");
    }
}

/// Asks over so many connections at once, each with one request at a time; `pid` is the worker's.
pub(crate) async fn run(target: &Target, connections: usize, until: Until, pid: u32) -> Outcome {
    let clients = warm(target, connections).await;
    let left = Arc::new(AtomicU64::new(match until {
        Until::Elapsed(_) => u64::MAX,
        Until::Requests(number) => number,
    }));
    let before = process::cpu(pid);
    let start = Instant::now();
    let end = match until {
        Until::Elapsed(time) => start + time,
        Until::Requests(_) => start + Duration::from_secs(3600),
    };

    let mut tasks = JoinSet::new();
    for mut client in clients {
        let left = Arc::clone(&left);
        tasks.spawn(async move {
            let mut requests = 0;
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                client.get().await;
                requests += 1;
                if Instant::now() >= end {
                    break;
                }
            }
            requests
        });
    }
    let mut requests = 0;
    while let Some(done) = tasks.join_next().await {
        requests += done.expect("a client without a fault");
    }
    let elapsed = start.elapsed();
    Outcome { requests, elapsed, cpu: process::cpu(pid).saturating_sub(before) }
}
