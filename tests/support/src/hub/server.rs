//! HTTP/1.1 by hand, so that every fault is possible and every request is kept byte for byte.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::HandshakeKind;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::exchange::{End, Recorded, Step};
use super::{Host, Shared};

/// A request head may have so many bytes.
const HEAD_LIMIT: usize = 256 * 1024;

/// What a listener does with a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protocol {
    Plain,
    Tls,
    /// Accepts and says nothing.
    Mute,
}

pub(super) async fn accept(
    shared: Arc<Shared>,
    host: Arc<Host>,
    listener: TcpListener,
    protocol: Protocol,
) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors: nothing to do but wait for some to be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let number = shared.connection.fetch_add(1, Relaxed);
        host.counters.connections.fetch_add(1, Relaxed);
        let open = Open::new(&host);
        let task = tokio::spawn({
            let (shared, host) = (Arc::clone(&shared), Arc::clone(&host));
            async move {
                let _open = open;
                // The peer's failures are what the tests are about; they are no news here.
                let _ = serve(&shared, &host, stream, peer, protocol, number).await;
            }
        });
        let mut tasks = host.connections.lock().unwrap();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }
}

/// Counts a connection as open for as long as it lives.
struct Open(Arc<Host>);

impl Open {
    fn new(host: &Arc<Host>) -> Self {
        host.counters.open.fetch_add(1, Relaxed);
        Self(Arc::clone(host))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.open.fetch_sub(1, Relaxed);
    }
}

async fn serve(
    shared: &Shared,
    host: &Host,
    stream: TcpStream,
    peer: SocketAddr,
    protocol: Protocol,
    number: u64,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let (stream, sni, client_certificate) = match protocol {
        Protocol::Plain => (Stream::Plain(stream), None, false),
        Protocol::Tls => {
            let spoiled = host.spoiled.lock().unwrap().pop();
            if let Some(bytes) = spoiled {
                let mut stream = stream;
                return stream.write_all(&bytes).await;
            }
            let acceptor = TlsAcceptor::from(Arc::clone(&host.tls.lock().unwrap()));
            let stream = match acceptor.accept(stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    host.counters.failed.fetch_add(1, Relaxed);
                    return Err(error);
                }
            };
            let session = stream.get_ref().1;
            match session.handshake_kind() {
                Some(HandshakeKind::Resumed) => &host.counters.resumed,
                _ => &host.counters.full,
            }
            .fetch_add(1, Relaxed);
            let sni = session.server_name().map(str::to_owned);
            let client_certificate = session.peer_certificates().is_some();
            (Stream::Tls(Box::new(stream)), sni, client_certificate)
        }
        Protocol::Mute => {
            let mut connection = Connection { stream: Stream::Plain(stream), buffer: Vec::new() };
            connection.until_gone().await;
            return Ok(());
        }
    };

    let mut connection = Connection { stream, buffer: Vec::new() };
    while let Some((head, body)) = connection.request().await? {
        let Some(mut request) = parse(head) else {
            let answer =
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            connection.stream.write_all(answer).await?;
            return connection.end(End::Close).await;
        };
        request.host = host.name.clone();
        request.body = body;
        request.tls = protocol == Protocol::Tls;
        request.sni = sni.clone();
        request.client_certificate = client_certificate;
        request.local = local;
        request.peer = peer;
        request.connection = number;

        let steps = shared.answer(host, &request);
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    connection.stream.write_all(&bytes).await?;
                    connection.stream.flush().await?;
                }
                Step::Wait(pause) => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = connection.until_gone() => return Ok(()),
                    }
                }
                Step::Stall => {
                    connection.until_gone().await;
                    return Ok(());
                }
                Step::KeyUpdate => connection.update_keys().await?,
                Step::End(end) => return connection.end(end).await,
            }
        }
    }
    Ok(())
}

struct Connection {
    stream: Stream,
    /// Bytes received and not yet used.
    buffer: Vec<u8>,
}

impl Connection {
    /// Head and body of the next request; `None` when the peer is done.
    async fn request(&mut self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > HEAD_LIMIT || !self.more().await? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
        };

        if field("transfer-encoding:").is_some_and(|value| value.contains("chunked")) {
            let mut body = Vec::new();
            loop {
                let size = self.line().await?;
                let digits = size.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    return Ok(Some((head, body)));
                }
                body.extend(self.take(size).await?);
                self.line().await?;
            }
        }
        let length = field("content-length:").and_then(|value| value.parse().ok()).unwrap_or(0);
        let body = self.take(length).await?;
        Ok(Some((head, body)))
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn take(&mut self, size: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < size {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..size).collect())
    }

    async fn more(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let size = self.stream.read(&mut bytes).await?;
        self.buffer.extend_from_slice(&bytes[..size]);
        Ok(size > 0)
    }

    /// Reads until the peer has closed.
    async fn until_gone(&mut self) {
        while self.buffer.len() <= HEAD_LIMIT && matches!(self.more().await, Ok(true)) {}
    }

    async fn update_keys(&mut self) -> io::Result<()> {
        if let Stream::Tls(stream) = &mut self.stream {
            // An error says that it is no TLS 1.3, which has none of this.
            let _ = stream.get_mut().1.refresh_traffic_keys();
        }
        self.stream.flush().await
    }

    async fn end(mut self, end: End) -> io::Result<()> {
        match end {
            End::Close => self.stream.shutdown().await?,
            End::Truncate => {
                SockRef::from(self.stream.tcp()).shutdown(std::net::Shutdown::Write)?;
            }
            End::Reset => {
                // What was sent should arrive before the reset does.
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.stream.tcp().set_zero_linger()?;
                return Ok(());
            }
        }
        // Closing a socket with unread bytes would send RST instead of FIN.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.until_gone()).await;
        Ok(())
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The request of a head that ends with an empty line; what only the connection knows is left open.
fn parse(head: Vec<u8>) -> Option<Recorded> {
    let text: String = head.iter().copied().map(char::from).collect();
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let mut start = lines.next()?.split(' ');
    let (method, uri, version) = (start.next()?, start.next()?, start.next()?);
    if start.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        })
        .collect::<Option<_>>()?;
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    Some(Recorded {
        host: String::new(),
        method: method.to_owned(),
        uri: uri.to_owned(),
        version: version.to_owned(),
        headers,
        body: Vec::new(),
        tls: false,
        sni: None,
        client_certificate: false,
        local: nowhere,
        peer: nowhere,
        connection: 0,
        head,
    })
}
