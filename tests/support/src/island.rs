//! Real clients, cut off from Docker Hub.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait::until;

/// A client that hangs is stopped then.
const LIMIT: Duration = Duration::from_secs(60);
/// A dockerd on a busy machine takes a while.
const START: Duration = Duration::from_secs(40);

/// A place with an `/etc` and a `/run` of its own (`scripts/without-hub`), where clients run that
/// can reach Docker Hub's names only where the test wants it.
pub struct Island {
    directory: TempDir,
    hosts: String,
    environment: Vec<(String, String)>,
}

/// What became of a client.
#[derive(Debug)]
pub struct Ended {
    /// Whether it ended with status 0.
    pub success: bool,
    /// What it printed, standard output first.
    pub text: String,
}

/// A dockerd with a containerd of its own; both end with the value.
pub struct Dockerd {
    child: Child,
    directory: PathBuf,
}

impl Island {
    /// An island whose `/etc/hosts` has these lines first.
    #[must_use]
    pub fn new(hosts: &str) -> Self {
        let directory = TempDir::with_prefix("island-").expect("a temporary directory");
        let home = directory.path().join("home");
        let home = home.display().to_string();
        let mut island =
            Self { directory, hosts: hosts.to_owned(), environment: vec![("HOME".into(), home)] };
        // The only setting without which podman and skopeo do nothing.
        island.file(
            "home/.config/containers/policy.json",
            r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#,
        );
        island.set("DOCKER_HOST", &format!("unix://{}", island.path("dockerd/docker.sock")));
        island
    }

    /// The path of a file of the island.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Writes a file; `home/` is the clients' home directory.
    pub fn file(&self, name: &str, text: &str) {
        let file = self.directory.path().join(name);
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory).expect("a directory");
        }
        std::fs::write(file, text).expect("a file written");
    }

    /// Sets a variable of the clients' environment, e.g. `SSL_CERT_FILE`.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Has Debian 13's clients in place of the machine's, with all that belongs to them.
    ///
    /// # Panics
    ///
    /// When `scripts/setup test` has not unpacked them.
    pub fn use_newer_clients(&mut self) {
        let usr = script("").join("../build/tools/trixie/root/usr");
        assert!(usr.exists(), "no clients of Debian 13: scripts/setup test");
        self.set("USR", &usr.display().to_string());
    }

    /// Runs a program to its end, for a minute at most.
    ///
    /// # Panics
    ///
    /// When it cannot be run or does not end.
    #[track_caller]
    #[must_use]
    pub fn run(&self, command: &[&str]) -> Ended {
        let (out, err) = (self.unused("out"), self.unused("err"));
        let create = |path: &Path| File::create(path).expect("a file for output");
        let mut child = self.spawn(command, create(&out), create(&err));
        let ended = until(LIMIT, || child.try_wait().is_ok_and(|status| status.is_some()));
        if !ended {
            let _ = child.kill();
        }
        let status = child.wait().expect("a status");
        let read = |path: &Path| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        let text = read(&out) + &read(&err);
        assert!(ended, "{command:?} does not end:\n{text}");
        Ended { success: status.success(), text }
    }

    /// Starts a program. The child is the program itself: its signals reach it.
    pub(crate) fn spawn(&self, command: &[&str], out: File, err: File) -> Child {
        self.command(&script("without-hub"))
            .arg(self.directory.path())
            .args(command)
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
    }

    /// Starts a dockerd with these arguments. Its socket is the clients' `DOCKER_HOST`, that of its
    /// containerd is `dockerd/containerd.sock`.
    ///
    /// # Panics
    ///
    /// With dockerd's own words, when it does not start.
    #[must_use]
    pub fn dockerd(&self, arguments: &[&str]) -> Dockerd {
        let directory = self.directory.path().join("dockerd");
        let log = File::create(self.unused("dockerd")).expect("a log");
        let child = self
            .command(&script("private-dockerd"))
            .arg(&directory)
            .args(arguments)
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run private-dockerd: {error}"));
        let mut dockerd = Dockerd { child, directory };
        let mut lives = true;
        let answers = until(START, || {
            lives = dockerd.child.try_wait().is_ok_and(|status| status.is_none());
            !lives || self.run(&["docker", "version"]).success
        });
        assert!(answers && lives, "dockerd does not start:\n{}", dockerd.log());
        dockerd
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        let tools = script("").join("../build/tools/bin");
        command
            .env_clear()
            .env("PATH", format!("{path}:/usr/sbin:{}", tools.display()))
            .env("HOSTS", &self.hosts)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// A file that does not exist yet.
    fn unused(&self, stem: &str) -> PathBuf {
        let files = (0..).map(|number| self.directory.path().join(format!("{stem}.{number}")));
        files.into_iter().find(|file| !file.exists()).expect("a free name")
    }
}

impl Dockerd {
    /// What dockerd and its containerd said so far.
    #[must_use]
    pub fn log(&self) -> String {
        let mut text = String::new();
        for name in ["containerd.log", "dockerd.log"] {
            let log = std::fs::read(self.directory.join(name)).unwrap_or_default();
            let _ = writeln!(text, "--- {name}\n{}", String::from_utf8_lossy(&log));
        }
        text
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let child = &mut self.child;
        if !until(Duration::from_secs(20), || child.try_wait().is_ok_and(|end| end.is_some())) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}
