//! A DNS responder whose every answer the test decides (RFC 1035; A, AAAA and CNAME are all that a
//! resolver of nginx asks for, so its messages are written here by hand).

use std::collections::HashMap;
use std::io;
use std::net::{
    IpAddr, Ipv4Addr, SocketAddrV4, TcpListener as StdTcpListener, UdpSocket as StdUdp,
};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const IN: u16 = 1;
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;
const REFUSED: u8 = 5;

/// What the responder answers for a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Dns {
    /// These addresses; of a family that is not among them, none (`NOERROR`, empty).
    Addresses(Vec<IpAddr>),
    /// An alias, followed in the same answer if the other name is known here.
    Alias(String),
    /// There is no such name.
    NxDomain,
    /// The server failed.
    ServFail,
    /// The server refuses to answer.
    Refused,
    /// No answer at all.
    Silence,
    /// An empty answer by UDP that says to ask by TCP; there, these addresses.
    Truncated(Vec<IpAddr>),
}

#[derive(Debug)]
struct Zone {
    names: HashMap<String, (Dns, u32)>,
    queries: HashMap<String, usize>,
}

/// Sockets and contents of a responder.
#[derive(Debug)]
pub(super) struct Responder {
    address: SocketAddrV4,
    zone: Mutex<Zone>,
}

/// The sockets of a responder that does not run yet.
pub(super) struct Bound {
    udp: StdUdp,
    tcp: StdTcpListener,
}

impl Bound {
    /// Binds UDP and TCP; fails with `AddrInUse` when another responder holds the address.
    pub(super) fn new(address: Ipv4Addr) -> io::Result<Self> {
        let udp = StdUdp::bind((address, 53))?;
        let tcp = StdTcpListener::bind((address, 53))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    /// Serves; to be called inside a runtime.
    pub(super) fn serve(self) -> io::Result<Arc<Responder>> {
        let address = match self.udp.local_addr()? {
            std::net::SocketAddr::V4(address) => address,
            std::net::SocketAddr::V6(address) => return Err(io::Error::other(address.to_string())),
        };
        let zone = Zone { names: HashMap::new(), queries: HashMap::new() };
        let responder = Arc::new(Responder { address, zone: Mutex::new(zone) });
        tokio::spawn(serve_udp(Arc::clone(&responder), UdpSocket::from_std(self.udp)?));
        tokio::spawn(serve_tcp(Arc::clone(&responder), TcpListener::from_std(self.tcp)?));
        Ok(responder)
    }
}

impl Responder {
    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    pub(super) fn set(&self, name: &str, answer: Dns, ttl: u32) {
        self.zone.lock().unwrap().names.insert(name.to_ascii_lowercase(), (answer, ttl));
    }

    pub(super) fn queries(&self, name: &str) -> usize {
        let zone = self.zone.lock().unwrap();
        zone.queries.get(&name.to_ascii_lowercase()).copied().unwrap_or(0)
    }

    /// The answer to a query; `None` is silence.
    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let (name, kind, end) = question(query)?;
        let mut zone = self.zone.lock().unwrap();
        *zone.queries.entry(name.clone()).or_default() += 1;

        let mut records = Vec::new();
        let mut owner = name;
        let mut truncated = false;
        let code = loop {
            match zone.names.get(&owner) {
                Some((Dns::Addresses(addresses), ttl)) => {
                    push_addresses(&mut records, &owner, kind, addresses, *ttl);
                    break NO_ERROR;
                }
                Some((Dns::Truncated(addresses), ttl)) => {
                    truncated = !tcp;
                    if tcp {
                        push_addresses(&mut records, &owner, kind, addresses, *ttl);
                    }
                    break NO_ERROR;
                }
                Some((Dns::Alias(target), ttl)) if records.len() < 8 => {
                    records.push(record(&owner, CNAME, *ttl, &encoded(target)));
                    owner = target.to_ascii_lowercase();
                }
                // An alias that leads out of the zone is for the client to follow.
                None if !records.is_empty() => break NO_ERROR,
                Some((Dns::ServFail | Dns::Alias(_), _)) => break SERVER_FAILURE,
                Some((Dns::Refused, _)) => break REFUSED,
                Some((Dns::Silence, _)) => return None,
                Some((Dns::NxDomain, _)) | None => break NAME_ERROR,
            }
        };

        let count = u16::try_from(records.len()).ok()?;
        let mut message = query.get(..2)?.to_vec();
        // QR, AA, TC, RD copied, RA.
        let flags = 0x84 | (u8::from(truncated) << 1) | (query.get(2)? & 0x01);
        message.extend_from_slice(&[flags, 0x80 | code, 0, 1]);
        message.extend_from_slice(&count.to_be_bytes());
        message.extend_from_slice(&[0, 0, 0, 0]);
        message.extend_from_slice(query.get(12..end)?);
        message.extend(records.concat());
        Some(message)
    }
}

/// Name, type and end of the only question of a query.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let size = usize::from(*query.get(at)?);
        at += 1;
        if size == 0 {
            break;
        }
        let label = query.get(at..at + size)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += size;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn push_addresses(
    records: &mut Vec<Vec<u8>>,
    owner: &str,
    kind: u16,
    addresses: &[IpAddr],
    ttl: u32,
) {
    for address in addresses {
        match address {
            IpAddr::V4(address) if kind == A => {
                records.push(record(owner, A, ttl, &address.octets()));
            }
            IpAddr::V6(address) if kind == AAAA => {
                records.push(record(owner, AAAA, ttl, &address.octets()));
            }
            _ => {}
        }
    }
}

fn record(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = encoded(owner);
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&IN.to_be_bytes());
    record.extend_from_slice(&ttl.to_be_bytes());
    record.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    record.extend_from_slice(data);
    record
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

async fn serve_udp(responder: Arc<Responder>, socket: UdpSocket) {
    let mut query = [0; 1500];
    loop {
        let Ok((size, peer)) = socket.recv_from(&mut query).await else {
            continue;
        };
        if let Some(answer) = responder.answer(&query[..size], false) {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn serve_tcp(responder: Arc<Responder>, listener: TcpListener) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let responder = Arc::clone(&responder);
            tokio::spawn(async move {
                let _ = serve_stream(&responder, stream).await;
            });
        }
    }
}

async fn serve_stream(responder: &Responder, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let size = usize::from(stream.read_u16().await?);
        let mut query = vec![0; size];
        stream.read_exact(&mut query).await?;
        if let Some(answer) = responder.answer(&query, true) {
            stream.write_u16(u16::try_from(answer.len()).map_err(io::Error::other)?).await?;
            stream.write_all(&answer).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn responder() -> Responder {
        let zone = Zone { names: HashMap::new(), queries: HashMap::new() };
        Responder { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53), zone: Mutex::new(zone) }
    }

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(encoded(name));
        query.extend_from_slice(&kind.to_be_bytes());
        query.extend_from_slice(&IN.to_be_bytes());
        query
    }

    #[test]
    fn a_name_has_the_addresses_of_the_family_that_was_asked_for() {
        let dns = responder();
        let addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        dns.set("Both.Example", Dns::Addresses(addresses), 60);

        let answer = dns.answer(&query("both.example", A), false).unwrap();
        assert_eq!(answer[..4], [7, 7, 0x85, 0x80]);
        assert_eq!(answer[7], 1, "one answer");
        assert!(answer.ends_with(&[0, 4, 192, 0, 2, 1]));

        let answer = dns.answer(&query("both.example", AAAA), false).unwrap();
        assert_eq!(answer[answer.len() - 18..answer.len() - 12], [0, 16, 0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(dns.queries("BOTH.example"), 2);
    }

    #[test]
    fn failures_are_answered_as_set() {
        let dns = responder();
        dns.set("broken.example", Dns::ServFail, 60);
        dns.set("silent.example", Dns::Silence, 60);
        dns.set("big.example", Dns::Truncated(vec!["192.0.2.1".parse().unwrap()]), 60);

        assert_eq!(dns.answer(&query("broken.example", A), false).unwrap()[3] & 15, 2);
        assert_eq!(dns.answer(&query("unknown.example", A), false).unwrap()[3] & 15, 3);
        assert_eq!(dns.answer(&query("silent.example", A), false), None);
        assert_eq!(dns.answer(&query("big.example", A), false).unwrap()[2] & 2, 2);
        assert_eq!(dns.answer(&query("big.example", A), true).unwrap()[7], 1);
    }
}
