//! Debian's docker-registry, a registry that is not ours.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::get;
use crate::hub::{AUTH, Hub};
use crate::nginx::free_port;
use crate::wait::until;

/// A running docker-registry; it ends with the value. What it stores stays.
pub struct DockerRegistry {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl DockerRegistry {
    /// Starts a registry that keeps its images in `storage` and speaks plain HTTP. With a hub it
    /// asks for the tokens of that hub's token server, as Docker Hub does; else for none.
    ///
    /// # Panics
    ///
    /// With the registry's own words, when it does not start.
    #[must_use]
    pub fn start(storage: &Path, hub: Option<&Hub>) -> Self {
        Self::configured(storage, hub, "")
    }

    /// The same with blobs behind redirects to `base`, a URL: what a blob's path in the storage is
    /// appended to. It asks for tokens.
    ///
    /// # Panics
    ///
    /// With the registry's own words, when it does not start.
    #[must_use]
    pub fn redirecting(storage: &Path, hub: &Hub, base: &str) -> Self {
        let middleware = format!(
            "middleware:\n  storage:\n    - name: redirect\n      options:\n        baseurl: {base}\n"
        );
        Self::configured(storage, Some(hub), &middleware)
    }

    fn configured(storage: &Path, hub: Option<&Hub>, middleware: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let directory = TempDir::with_prefix("registry-").expect("a temporary directory");
        let auth = hub.map_or(String::new(), |hub| {
            format!(
                "auth:\n  token:\n    realm: https://{AUTH}/token\n    \
                 service: registry.docker.io\n    issuer: {AUTH}\n    \
                 rootcertbundle: {}\n",
                hub.ca_file().display()
            )
        });
        let configuration = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {address}\n  secret: none\n{auth}{middleware}",
            storage.display()
        );
        let file = directory.path().join("config.yml");
        std::fs::write(&file, configuration).expect("a configuration written");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run docker-registry: {error}"));

        let mut registry = Self { child, address, directory };
        let answers = until(Duration::from_secs(20), || {
            registry.child.try_wait().is_ok_and(|status| status.is_some())
                || get(&registry.url("/v2/")).try_send().is_ok()
        });
        let lives = registry.child.try_wait().is_ok_and(|status| status.is_none());
        assert!(answers && lives, "docker-registry does not start:\n{}", registry.log());
        registry
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of it.
    #[must_use]
    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let child = &mut self.child;
        if !until(Duration::from_secs(5), || child.try_wait().is_ok_and(|end| end.is_some())) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
