//! Instructions that nginx spends on a request, counted by valgrind. Plain HTTP: nothing random.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::hub;
use crate::load::{self, Target, Until};
use crate::mirror::{Modules, NAME, Setting, Text, Way};

/// How many requests the count is the difference of; of large answers fewer do.
const FEW: u64 = 50;
const MANY: u64 = 450;
const LARGE: u64 = 1 << 20;

/// A child that does not outlive its owner.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Instructions of one request for `path`, whose answer is `length` long.
pub(crate) async fn instructions(
    way: Way,
    setting: Setting<'_>,
    modules: &Modules,
    path: &str,
    length: u64,
) -> f64 {
    let [few, many] = [FEW, MANY].map(|number| if length < LARGE { number } else { number / 10 });
    let less = total(way, setting, modules, path, length, few).await;
    let more = total(way, setting, modules, path, length, many).await;
    (more - less) / (many - few) as f64
}

async fn total(
    way: Way,
    setting: Setting<'_>,
    modules: &Modules,
    path: &str,
    length: u64,
    requests: u64,
) -> f64 {
    let directory = TempDir::with_prefix("callgrind-").expect("a temporary directory");
    let prefix = directory.path();
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    write(prefix, way, setting, modules, port);
    let counted = prefix.join("instructions");
    let child = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", counted.display()))
        .arg(std::env::var("TEST_NGINX_BINARY").unwrap_or_else(|_| "/usr/sbin/nginx".to_owned()))
        .arg("-p")
        .arg(prefix)
        .arg("-c")
        .arg(prefix.join("nginx.conf"))
        .arg("-e")
        .arg(prefix.join("error.log"))
        .env_remove("NGINX")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("valgrind");
    let mut child = Guard(child);
    let log = || std::fs::read_to_string(prefix.join("error.log")).unwrap_or_default();
    let started = support::until(Duration::from_secs(60), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    assert!(started, "nginx does not start under valgrind:\n{}", log());

    let target = Target {
        address: ([127, 0, 0, 1], port).into(),
        tls: None,
        request: hub::request(path, NAME),
        length,
    };
    load::run(&target, 1, Until::Requests(requests), child.0.id()).await;

    let pid = child.0.id().to_string();
    // Told again until it ends: callgrind can lose a signal.
    let ended = support::until(Duration::from_secs(30), || {
        let _ = Command::new("kill").arg("-QUIT").arg(&pid).status();
        child.0.try_wait().is_ok_and(|status| status.is_some())
    });
    assert!(ended, "nginx does not quit under valgrind:\n{}", log());
    let text = std::fs::read_to_string(&counted).expect("what callgrind counted");
    if let Some(kept) = std::env::var_os("CALLGRIND_KEEP") {
        let name = format!("{} {requests} {length}", way.name());
        std::fs::write(Path::new(&kept).join(name), &text).expect("a profile is kept");
    }
    let line = text.lines().find_map(|line| line.strip_prefix("summary: "));
    line.and_then(|number| number.trim().parse().ok()).expect("a sum")
}

fn write(prefix: &Path, way: Way, setting: Setting<'_>, modules: &Modules, port: u16) {
    let Text { http, server, common } = setting.text(way);
    let load = modules
        .of(way)
        .map_or(String::new(), |module| format!("load_module {};", module.display()));
    let path = prefix.display();
    let text = format!(
        "{load}
        daemon off;
        master_process off;
        pid {path}/nginx.pid;
        error_log {path}/error.log error;
        events {{ worker_connections 64; }}
        http {{
            access_log off;
            client_body_temp_path {path}/body;
            proxy_temp_path {path}/proxy;
            fastcgi_temp_path {path}/fastcgi;
            uwsgi_temp_path {path}/uwsgi;
            scgi_temp_path {path}/scgi;
            keepalive_requests 10000000;
            {http}
            server {{
                listen 127.0.0.1:{port};
                {common}
                {server}
            }}
        }}
        "
    );
    std::fs::write(prefix.join("nginx.conf"), text).expect("nginx.conf written");
    std::fs::write(prefix.join("mirror.js"), crate::mirror::SCRIPT).expect("a script written");
}
