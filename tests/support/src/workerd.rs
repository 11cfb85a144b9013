//! Cloudflare's runtime with the Worker of `worker/`.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use crate::client::{Request, request};
use crate::hub::Hub;
use crate::island::Island;
use crate::wait::until;

/// A running workerd; it ends with the value.
pub struct Workerd {
    child: Child,
    island: Island,
    name: String,
    address: SocketAddr,
    ca_file: PathBuf,
}

impl Workerd {
    /// Starts workerd, which serves `https://name/` with these variables. The hub's DNS responder
    /// knows the name, and the Worker the hub's hosts.
    ///
    /// # Panics
    ///
    /// With workerd's own words, when it does not start.
    #[must_use]
    pub fn start(hub: &Hub, name: &str, variables: &[(&str, &str)]) -> Self {
        let mut hosts = String::new();
        for (host, address) in hub.hosts() {
            let _ = writeln!(hosts, "{address} {host}");
        }
        let mut island = Island::new("");
        // All of /etc that it needs: the names of the hub, and no others.
        island.file("etc/hosts", &hosts);
        island.file("etc/nsswitch.conf", "hosts: files\n");
        // What workerd takes for the system's authorities.
        island.set("SSL_CERT_FILE", &hub.ca_file().display().to_string());
        let address = SocketAddr::from((hub.free_address(name), 443));
        let (certificate, key) = hub.authority().issue(&[name]);
        let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
        let worker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../worker");
        island.file("worker.js", &read(&worker.join("worker.js")));
        island.file("certificate.pem", &read(&certificate));
        island.file("key.pem", &read(&key));
        let bindings: Vec<_> = variables
            .iter()
            .map(|(name, value)| format!("(name = {name:?}, text = {value:?})"))
            .collect();
        let settings = read(&worker.join("wrangler.toml"));
        let date = settings.lines().find_map(|line| line.strip_prefix("compatibility_date = "));
        let configuration = format!(
            r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "worker", worker = (
      modules = [(name = "worker.js", esModule = embed "worker.js")],
      compatibilityDate = {},
      bindings = [{}],
      globalOutbound = "hub",
    )),
    (name = "hub", network = (
      allow = ["private"],
      tlsOptions = (trustBrowserCas = true),
    )),
  ],
  sockets = [(name = "https", address = "{address}", service = "worker", https = (
    options = (),
    tlsOptions = (keypair = (
      privateKey = embed "key.pem",
      certificateChain = embed "certificate.pem",
    )),
  ))],
);
"#,
            date.expect("wrangler.toml has a compatibility_date"),
            bindings.join(", "),
        );
        island.file("config.capnp", &configuration);

        let log = File::create(island.path("log")).expect("a log");
        let errors = log.try_clone().expect("a second handle");
        let child = island.spawn(&["workerd", "serve", &island.path("config.capnp")], log, errors);
        let mut worker =
            Self { child, island, name: name.to_owned(), address, ca_file: hub.ca_file() };
        let mut lives = true;
        let answers = until(Duration::from_secs(30), || {
            lives = worker.child.try_wait().is_ok_and(|status| status.is_none());
            !lives || TcpStream::connect(address).is_ok()
        });
        assert!(
            answers && lives,
            "workerd does not start (scripts/setup gets it):\n{}",
            worker.log()
        );
        worker
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request of this path and query, straight to the Worker.
    #[must_use]
    pub fn request(&self, method: &str, target: &str) -> Request {
        request(method, &format!("https://{}{target}", self.name))
            .connect(self.address)
            .ca(&self.ca_file)
    }

    /// What workerd said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.island.path("log")).unwrap_or_default()
    }
}

impl Drop for Workerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- workerd\n{}---", self.log());
        }
        // Asked politely, it would wait for connections that nginx keeps. It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
