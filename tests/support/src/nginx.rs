//! Runs a real nginx with the module.
//!
//! The binary is `TEST_NGINX_BINARY`, else the `nginx` of `PATH` or of `/usr/sbin`; it may be a
//! script that runs nginx under valgrind. The module is `TEST_NGINX_MODULE`, else the `.so` that
//! lies beside the test's own executable.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::tls::{Authority, open_to_all};
use crate::wait::until;

/// A start under valgrind takes several seconds.
const START: Duration = Duration::from_secs(60);
/// A worker that has not finished its requests by then never will.
const QUIT: Duration = Duration::from_secs(10);

/// What must not stand in an error log.
const BAD: [&str; 6] =
    ["[alert]", "[emerg]", "panicked", "Sanitizer", "exited on signal", "open socket"];
/// Whatever follows but 0 must not either: a process under valgrind ends so.
const CODE: &str = "exited with code ";

/// A configuration to be run or tested.
#[derive(Clone, Debug)]
pub struct NginxBuilder {
    modules: Vec<PathBuf>,
    own_module: bool,
    main: String,
    http: String,
    servers: Vec<(Listen, String)>,
    whole: Option<String>,
    files: Vec<(String, String)>,
    workers: u32,
    master: bool,
    daemon: bool,
    level: String,
    allowed: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Listen {
    Plain,
    Tls,
    /// HTTP/2 by prior knowledge.
    H2c,
}

/// A running nginx. Dropping it quits nginx and panics when its log shows that something broke.
pub struct Nginx {
    child: Mutex<Child>,
    /// The master; not the child when that is a script, or nginx a daemon.
    pid: Mutex<Pid>,
    prefix: TempDir,
    authority: Option<Authority>,
    servers: Vec<(Listen, u16)>,
    /// How many workers run at least, as far as the builder knows.
    workers: usize,
    allowed: Mutex<Vec<String>>,
}

impl NginxBuilder {
    /// Loads another module, before ours.
    #[must_use]
    pub fn load_module(mut self, path: impl AsRef<Path>) -> Self {
        self.modules.push(path.as_ref().to_owned());
        self
    }

    /// Does without our module.
    #[must_use]
    pub fn without_module(mut self) -> Self {
        self.own_module = false;
        self
    }

    /// Adds text at the main level.
    #[must_use]
    pub fn main(mut self, text: &str) -> Self {
        self.main.push_str(text);
        self.main.push('\n');
        self
    }

    /// Adds text to the `http` block.
    ///
    /// In all texts, `%prefix%` is nginx's directory, `%port%` the port of the server the text
    /// belongs to, and `%port0%`, `%port1%` and so on those of all servers in order.
    #[must_use]
    pub fn http(mut self, text: &str) -> Self {
        self.http.push_str(text);
        self.http.push('\n');
        self
    }

    /// Adds a `server` block with this body, which listens at a free port of 127.0.0.1.
    #[must_use]
    pub fn server(self, text: &str) -> Self {
        self.add(Listen::Plain, text)
    }

    /// Adds a TLS server, HTTP/1.1 and HTTP/2, with a certificate for 127.0.0.1, localhost,
    /// mirror.example.com and its subdomains; see [`Nginx::ca_file`].
    #[must_use]
    pub fn tls_server(self, text: &str) -> Self {
        self.add(Listen::Tls, text)
    }

    /// Adds a server that speaks HTTP/2 without TLS.
    #[must_use]
    pub fn h2c_server(self, text: &str) -> Self {
        self.add(Listen::H2c, text)
    }

    fn add(mut self, listen: Listen, text: &str) -> Self {
        self.servers.push((listen, text.to_owned()));
        self
    }

    /// Takes a whole configuration file instead of `main`, `http` and `server` texts. What the
    /// harness needs and the file does not say is put in front of it. `%port0%` to `%port3%` are
    /// free ports.
    #[must_use]
    pub fn whole(mut self, text: &str) -> Self {
        self.whole = Some(text.to_owned());
        self
    }

    /// Puts a file into nginx's directory, where `include` finds it.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Number of workers; 1 by default.
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// `master_process off`.
    #[must_use]
    pub fn single_process(mut self) -> Self {
        self.master = false;
        self
    }

    /// `daemon on`: what [`Nginx::upgrade`] needs.
    #[must_use]
    pub fn daemon(mut self) -> Self {
        self.daemon = true;
        self
    }

    /// Level of the error log; `info` by default.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.level);
        self
    }

    /// Lines of the error log that hold this text are expected.
    #[must_use]
    pub fn allow_log(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    /// Starts nginx.
    ///
    /// # Panics
    ///
    /// With nginx's own words, when it does not start.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Nginx {
        for _ in 0..5 {
            match self.try_start() {
                Ok(nginx) => return nginx,
                // Somebody else was faster at one of the ports.
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("nginx does not start:\n{log}"),
            }
        }
        panic!("nginx does not start: no free ports");
    }

    /// Runs `nginx -t`; returns whether the configuration is good, and what nginx says.
    #[must_use]
    pub fn test(&self) -> (bool, String) {
        let laid_out = self.lay_out();
        let output = self.command(laid_out.prefix.path()).arg("-t").output();
        let output = output.unwrap_or_else(|error| panic!("cannot run {}: {error}", binary()));
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn try_start(&self) -> Result<Nginx, String> {
        let laid_out = self.lay_out();
        let path = laid_out.prefix.path().to_owned();
        let stderr = std::fs::File::create(path.join("stderr.log")).expect("stderr.log");
        let mut child = self
            .command(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", binary()));

        let mut pid = None;
        let mut ended = false;
        until(START, || {
            // Sockets listen before the file is written.
            let text = std::fs::read_to_string(path.join("nginx.pid")).unwrap_or_default();
            pid = text.trim().parse().ok().and_then(Pid::from_raw);
            let status = child.try_wait().ok().flatten();
            // A daemon's parent ends well as soon as there is the daemon.
            ended = status.is_some_and(|status| !self.daemon || !status.success());
            pid.is_some() || ended
        });
        let log = log_of(&path);
        let Some(pid) = pid.filter(|_| !ended) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(log);
        };
        let workers = match (&self.whole, self.master) {
            (Some(_), _) => 1,
            (None, false) => 0,
            (None, true) => self.workers as usize,
        };
        let nginx = Nginx {
            child: Mutex::new(child),
            pid: Mutex::new(pid),
            prefix: laid_out.prefix,
            authority: laid_out.authority,
            servers: laid_out.servers,
            workers,
            allowed: Mutex::new(self.allowed.clone()),
        };
        until(START, || nginx.workers().len() >= workers);
        Ok(nginx)
    }

    fn command(&self, prefix: &Path) -> Command {
        let mut command = Command::new(binary());
        // The variable NGINX would be taken for inherited sockets, among other surprises.
        command.env_clear();
        let kept = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"];
        command.envs(std::env::vars().filter(|(name, _)| {
            kept.contains(&name.as_str())
                || ["ASAN_", "LSAN_", "UBSAN_", "VALGRIND", "TEST_NGINX_"]
                    .iter()
                    .any(|start| name.starts_with(start))
        }));
        command.arg("-p").arg(prefix).arg("-c").arg(prefix.join("nginx.conf"));
        command.arg("-e").arg(prefix.join("error.log"));
        command
    }

    fn lay_out(&self) -> LaidOut {
        let prefix = TempDir::with_prefix("nginx-").expect("a temporary directory");
        open_to_all(prefix.path());
        let path = prefix.path().display().to_string();

        let authority = self.servers.iter().any(|(listen, _)| *listen == Listen::Tls).then(|| {
            let authority = Authority::new("Mirror Test CA");
            let names = ["mirror.example.com", "*.mirror.example.com", "localhost", "127.0.0.1"];
            let (certificate, key) = authority.issue(&names);
            std::fs::copy(certificate, prefix.path().join("server.pem")).expect("copied");
            std::fs::copy(key, prefix.path().join("server.key")).expect("copied");
            authority
        });
        let count = if self.whole.is_some() { 4 } else { self.servers.len() };
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let fill = |text: &str, own: Option<u16>| {
            let mut text = text.replace("%prefix%", &path);
            for (number, port) in ports.iter().enumerate() {
                text = text.replace(&format!("%port{number}%"), &port.to_string());
            }
            own.map_or(text.clone(), |own| text.replace("%port%", &own.to_string()))
        };

        let text = match &self.whole {
            Some(text) => self.completed(&fill(text, None), &path),
            None => {
                let mut servers = String::new();
                for ((listen, text), port) in self.servers.iter().zip(&ports) {
                    let how = match listen {
                        Listen::Plain => "",
                        Listen::Tls => " ssl http2",
                        Listen::H2c => " http2",
                    };
                    let _ = writeln!(servers, "server {{\nlisten 127.0.0.1:{port}{how};");
                    if *listen == Listen::Tls {
                        let _ = writeln!(servers, "ssl_certificate {path}/server.pem;");
                        let _ = writeln!(servers, "ssl_certificate_key {path}/server.key;");
                    }
                    let _ = writeln!(servers, "{}\n}}", fill(text, Some(*port)));
                }
                self.assembled(&fill(&self.main, None), &fill(&self.http, None), &servers, &path)
            }
        };
        std::fs::write(prefix.path().join("nginx.conf"), text).expect("nginx.conf written");
        for (name, text) in &self.files {
            let file = prefix.path().join(name);
            if let Some(directory) = file.parent() {
                std::fs::create_dir_all(directory).expect("a directory");
            }
            std::fs::write(file, fill(text, None)).expect("a file written");
        }

        let servers = match &self.whole {
            Some(_) => ports.iter().map(|port| (Listen::Plain, *port)).collect(),
            None => self.servers.iter().zip(&ports).map(|((how, _), port)| (*how, *port)).collect(),
        };
        LaidOut { prefix, authority, servers }
    }

    fn load_modules(&self) -> String {
        let own = self.own_module.then(own_module);
        let modules = self.modules.iter().cloned().chain(own);
        modules.fold(String::new(), |text, path| format!("{text}load_module {};\n", path.display()))
    }

    fn assembled(&self, main: &str, http: &str, servers: &str, path: &str) -> String {
        let mut text = self.load_modules();
        let on = |on| if on { "on" } else { "off" };
        let _ = write!(
            text,
            "daemon {};\nmaster_process {};\nworker_processes {};\n{}pid {path}/nginx.pid;\n\
             error_log {path}/error.log {};\n{main}\n",
            on(self.daemon),
            on(self.master),
            self.workers,
            user(),
            self.level,
        );
        if !main.contains("events") {
            text.push_str("events { worker_connections 1024; }\n");
        }
        let _ = write!(text, "http {{\naccess_log {path}/access.log;\n");
        for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            if !version_text().contains(&format!("--without-http_{name}_module")) {
                let _ = writeln!(text, "{name}_temp_path {path}/{name}_temp;");
            }
        }
        let _ = write!(text, "{http}\n{servers}}}\n");
        text
    }

    /// A whole configuration with what a test needs in front of it.
    fn completed(&self, text: &str, path: &str) -> String {
        let mut front = String::new();
        if !text.contains("ngx_http_docker_module.so") {
            front.push_str(&self.load_modules());
        }
        let mut need = |name: &str, line: String| {
            if !text.lines().any(|line| line.trim_start().starts_with(name)) {
                front.push_str(&line);
            }
        };
        need("daemon ", "daemon off;\n".to_owned());
        need("pid ", format!("pid {path}/nginx.pid;\n"));
        need("user ", user().to_owned());
        need("error_log ", format!("error_log {path}/error.log {};\n", self.level));
        need("events ", "events { worker_connections 1024; }\n".to_owned());
        front + text
    }
}

struct LaidOut {
    prefix: TempDir,
    authority: Option<Authority>,
    servers: Vec<(Listen, u16)>,
}

impl Nginx {
    /// A configuration with one worker, the module, and nothing else.
    #[must_use]
    pub fn builder() -> NginxBuilder {
        NginxBuilder {
            modules: Vec::new(),
            own_module: true,
            main: String::new(),
            http: String::new(),
            servers: Vec::new(),
            whole: None,
            files: Vec::new(),
            workers: 1,
            master: true,
            daemon: false,
            level: "info".to_owned(),
            allowed: Vec::new(),
        }
    }

    /// nginx's version, e.g. `(1, 22, 1)`.
    #[must_use]
    pub fn version() -> (u32, u32, u32) {
        let text = version_text().split_once("nginx/").map_or("", |(_, rest)| rest);
        let mut numbers = text
            .split(|letter: char| !letter.is_ascii_digit())
            .map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        (next(), next(), next())
    }

    /// Whether nginx runs under valgrind: it is slow, and has as many descriptors as it likes.
    #[must_use]
    pub fn is_under_valgrind() -> bool {
        binary().contains("valgrind")
    }

    /// So much time, or more where nginx runs under valgrind.
    #[must_use]
    pub fn time(number: u64) -> u64 {
        if Self::is_under_valgrind() { 20 * number } else { number }
    }

    /// The port of the first server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port_of(0)
    }

    /// The port of a server, counted from 0.
    #[must_use]
    pub fn port_of(&self, server: usize) -> u16 {
        self.servers[server].1
    }

    /// A URL at the first server.
    #[must_use]
    pub fn url(&self, target: &str) -> String {
        self.url_of(0, target)
    }

    /// A URL at a server, counted from 0: `https` if it was added by `tls_server`.
    #[must_use]
    pub fn url_of(&self, server: usize, target: &str) -> String {
        let (listen, port) = self.servers[server];
        let scheme = if listen == Listen::Tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{port}{target}")
    }

    /// Certificate of the authority that issued those of the TLS servers, PEM.
    ///
    /// # Panics
    ///
    /// When there is no TLS server.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.authority.as_ref().expect("a TLS server").ca_file()
    }

    /// nginx's directory, with `nginx.conf`, `error.log` and `access.log`.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        self.prefix.path()
    }

    /// Process id of the master.
    #[must_use]
    pub fn pid(&self) -> u32 {
        number(*self.pid.lock().unwrap())
    }

    /// Process ids of the workers, those that are shutting down included.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        let file = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Memory of all workers together, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let resident = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        self.workers().iter().filter_map(resident).sum::<u64>() * 1024
    }

    /// What the error log says so far.
    #[must_use]
    pub fn errors(&self) -> String {
        log_of(self.prefix())
    }

    /// What the access log says so far.
    #[must_use]
    pub fn accesses(&self) -> String {
        std::fs::read_to_string(self.prefix().join("access.log")).unwrap_or_default()
    }

    /// Lines of the error log that hold this text are expected.
    pub fn allow_log(&self, text: &str) {
        self.allowed.lock().unwrap().push(text.to_owned());
    }

    /// Waits at most ten seconds for a line of the error log that holds this text; returns it.
    ///
    /// # Panics
    ///
    /// When there is none by then.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        let mut found = None;
        until(Duration::from_secs(10), || {
            let log = self.errors();
            found = log.lines().find(|line| line.contains(text)).map(str::to_owned);
            found.is_some()
        });
        found
            .unwrap_or_else(|| panic!("no line with {text:?} in the error log:\n{}", self.errors()))
    }

    /// Reloads the configuration file and waits until new workers run; old ones may still finish
    /// their requests.
    ///
    /// # Panics
    ///
    /// When nginx refuses the configuration.
    #[track_caller]
    pub fn reload(&self) {
        let old = self.workers();
        let before = self.errors().matches("reconfiguring").count();
        self.signal(Signal::HUP);
        let new = until(START, || {
            let workers = self.workers();
            let new = workers.iter().filter(|pid| !old.contains(pid)).count();
            self.errors().matches("reconfiguring").count() > before && new >= self.workers.max(1)
        });
        assert!(new, "no new workers after a reload:\n{}", self.errors());
    }

    /// Puts a new master of the same binary into the place of this one, and waits until the old one
    /// and its workers are gone. Needs [`NginxBuilder::daemon`]. Does nothing where the binary is a
    /// script: the master starts itself, not the script.
    ///
    /// # Panics
    ///
    /// When there is no new master, or the old one does not end within a minute.
    #[track_caller]
    pub fn upgrade(&self) {
        if std::fs::read(binary()).is_ok_and(|bytes| bytes.starts_with(b"#!")) {
            return;
        }
        let old = *self.pid.lock().unwrap();
        let file = self.prefix().join("nginx.pid");
        let master = || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.trim().parse().ok().and_then(Pid::from_raw).filter(|pid| *pid != old)
        };
        self.signal(Signal::USR2);
        assert!(until(START, || master().is_some()), "no new master:\n{}", self.errors());
        *self.pid.lock().unwrap() = master().expect("a new master");
        let new = until(START, || self.workers().len() >= self.workers.max(1));
        let _ = kill_process(old, Signal::QUIT);
        let gone = until(START, || !is_running(old));
        if !gone {
            // It is nobody's to stop later.
            let _ = kill_process(old, Signal::TERM);
        }
        assert!(new, "no new workers after an upgrade:\n{}", self.errors());
        assert!(gone, "the old master stays:\n{}", self.errors());
    }

    /// Waits at most ten seconds until these workers are gone.
    ///
    /// # Panics
    ///
    /// When they are not gone by then.
    #[track_caller]
    pub fn wait_until_gone(&self, workers: &[u32]) {
        let gone = until(QUIT, || self.workers().iter().all(|pid| !workers.contains(pid)));
        assert!(gone, "old workers do not end:\n{}", self.errors());
    }

    fn signal(&self, signal: Signal) {
        // A master that is gone already is noticed by whoever waits for the effect.
        let _ = kill_process(*self.pid.lock().unwrap(), signal);
    }

    /// Quits; returns what is wrong with the log.
    fn finish(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut child = self.child.lock().unwrap();
        let pid = *self.pid.lock().unwrap();
        let mut ended = |limit| {
            until(limit, || {
                child.try_wait().is_ok_and(|status| status.is_some()) && !is_running(pid)
            })
        };
        // A single process sees a signal that comes before it waits for events at the next event
        // only, and there may be none: it is told again.
        let told = |_| {
            self.signal(Signal::QUIT);
            ended(QUIT / 5)
        };
        if !(0..5).any(told) {
            problems.push(format!("nginx did not quit within {QUIT:?}"));
            self.signal(Signal::TERM);
            if !ended(QUIT) {
                for pid in self.workers().into_iter().chain([self.pid()]) {
                    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                    let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
                }
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if let Ok(Some(status)) = child.try_wait()
            && !status.success()
        {
            problems.push(format!("nginx ended with {status}"));
        }
        let allowed = self.allowed.lock().unwrap();
        let log = log_of(self.prefix());
        let bad = log.lines().filter(|line| {
            let code = line.split_once(CODE).map(|(_, code)| code.trim());
            (BAD.iter().any(|word| line.contains(word)) || code.is_some_and(|code| code != "0"))
                && !allowed.iter().any(|text| line.contains(text))
        });
        problems.extend(bad.map(str::to_owned));
        problems
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let problems = self.finish();
        if std::thread::panicking() {
            let log = log_of(self.prefix());
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- error log of nginx\n{}\n---", tail.join("\n"));
        } else {
            let log = log_of(self.prefix());
            assert!(problems.is_empty(), "{}\n--- whole log\n{log}", problems.join("\n"));
        }
    }
}

/// Runs `nginx -t` on a configuration whose `http` block has this body; returns whether it is good,
/// and what nginx says.
#[must_use]
pub fn nginx_t(http: &str) -> (bool, String) {
    Nginx::builder().http(http).test()
}

/// The text of a file in `nginx-conf/`, with substitutions.
///
/// # Panics
///
/// When there is no such file, or it does not hold one of the texts to be replaced.
#[must_use]
#[track_caller]
pub fn nginx_conf(file: &str, substitutions: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nginx-conf").join(file);
    let mut text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read nginx-conf/{file}: {error}"));
    for (from, to) in substitutions {
        assert!(text.contains(from), "nginx-conf/{file} does not hold {from:?}");
        text = text.replace(from, to);
    }
    text
}

fn binary() -> &'static str {
    static BINARY: OnceLock<String> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var("TEST_NGINX_BINARY") {
        Ok(binary) if !binary.is_empty() => binary,
        _ => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path)
                .map(|directory| directory.join("nginx"))
                .find(|file| file.is_file());
            found.unwrap_or_else(|| "/usr/sbin/nginx".into()).display().to_string()
        }
    })
}

/// What `nginx -V` says.
fn version_text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let output = Command::new(binary())
            .arg("-V")
            .env_remove("NGINX")
            .output()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", binary()));
        String::from_utf8_lossy(&output.stderr).into_owned()
    })
}

fn own_module() -> PathBuf {
    if let Some(path) = std::env::var_os("TEST_NGINX_MODULE") {
        return path.into();
    }
    let executable = std::env::current_exe().expect("the path of this executable");
    let directory = executable.parent().expect("a directory");
    directory.join("libngx_http_docker_module.so")
}

fn number(pid: Pid) -> u32 {
    u32::try_from(pid.as_raw_nonzero().get()).expect("a positive process id")
}

/// The process is there, and not only to be waited for.
fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", number(pid))).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Workers of a nginx that root started run as root too: the test's directories are its own.
fn user() -> &'static str {
    if geteuid().is_root() { "user root;\n" } else { "" }
}

/// A port of 127.0.0.1 below those that the kernel gives to outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..20_000 {
        let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (std::process::id() * 127 + offset) % 20_000;
        let port = u16::try_from(port).expect("a port");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

fn log_of(prefix: &Path) -> String {
    let read = |name| {
        let bytes = std::fs::read(prefix.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (errors, stderr) = (read("error.log"), read("stderr.log"));
    // nginx says on stderr again what it logs before it has read its configuration.
    let only_stderr = stderr.lines().filter(|line| !line.starts_with("nginx: "));
    let only_stderr: String = only_stderr.map(|line| format!("{line}\n")).collect();
    errors + &only_stderr
}
