//! A PostgreSQL of a test's own, reached through a socket in its folder: no port to collide on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server; stopped when dropped, its folder removed.
pub struct Postgres {
    /// Of its socket and log.
    folder: tempfile::TempDir,
    data: PathBuf,
    child: Child,
}

impl Postgres {
    /// Starts a server with an empty database.
    pub fn start() -> Postgres {
        Postgres::begin(None)
    }

    /// The same, its data below that place, and synced as initdb would have done.
    pub fn start_on(place: &Path) -> Postgres {
        Postgres::begin(Some(place))
    }

    fn begin(place: Option<&Path>) -> Postgres {
        let folder = tempfile::Builder::new().prefix("isthmus-pg").tempdir().expect("a folder for the tests");
        own(folder.path());
        let data = place.unwrap_or(folder.path()).join("data");
        run(Command::new("cp").arg("-a").arg(template()).arg(&data));
        if place.is_some() {
            run(as_postgres("initdb", false).args(["--sync-only", "-D"]).arg(&data));
        }
        let child = launch(folder.path(), &data);
        Postgres { folder, data, child }
    }

    /// For the configuration's `[store] url`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.folder.path().display())
    }

    /// `kill -9`: as a machine that loses its power, but for what the kernel still writes. Its workers end by themselves.
    pub fn kill(&mut self) {
        signal(self.child.id(), "KILL");
        self.child.wait().expect("the server was started here");
    }

    /// Starts again what was killed.
    pub fn restart(&mut self) {
        // The killed server's workers may still hold its shared memory: the new one then says so and ends.
        self.child = launch(self.folder.path(), &self.data);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // QUIT: at once, the data is not needed again.
        signal(self.child.id(), "QUIT");
        let _ = self.child.wait();
    }
}

fn launch(folder: &Path, data: &Path) -> Child {
    let start = Instant::now();
    loop {
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("the folder is there");
        let mut child = as_postgres("postgres", true)
            .arg("-D")
            .arg(data)
            .args(["-c", "listen_addresses="])
            .args(["-c", "max_connections=20", "-c", "shared_buffers=16MB", "-c"])
            .arg(format!("unix_socket_directories={}", folder.display()))
            .stdout(log.try_clone().expect("the log is open"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("PostgreSQL starts (tests/run installs it)");
        loop {
            let ready =
                as_postgres("pg_isready", false).arg("-q").arg("-h").arg(folder).status().expect("pg_isready runs");
            if ready.success() {
                return child;
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{}",
                fs::read_to_string(folder.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
            if child.try_wait().expect("the server was started here").is_some() {
                break;
            }
        }
    }
}

/// A data folder fresh from initdb, made once for all tests.
fn template() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-template");
    if !place.exists() {
        let made = tempfile::Builder::new().prefix("isthmus-initdb").tempdir().expect("a folder for the tests");
        own(made.path());
        let data = made.path().join("data");
        run(as_postgres("initdb", false)
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data));
        let copy = place.with_extension(std::process::id().to_string());
        run(Command::new("cp").arg("-a").arg(&data).arg(&copy));
        // Another test may have been first: its copy is as good.
        if fs::rename(&copy, &place).is_err() {
            let _ = fs::remove_dir_all(&copy);
        }
    }
    place
}

/// PostgreSQL refuses to run as root: then as its own user. `tied`: it ends when this test's thread does.
fn as_postgres(program: &str, tied: bool) -> Command {
    let program = [
        "/usr/lib/postgresql/15/bin",
        "/usr/lib/postgresql/17/bin",
        "/usr/lib/postgresql/16/bin",
        "/usr/bin",
        "/usr/local/bin",
    ]
    .iter()
    .map(|place| Path::new(place).join(program))
    .find(|path| path.exists())
    .expect("PostgreSQL is installed (tests/run does it)");
    let mut command = Command::new("setpriv");
    if tied {
        command.args(["--pdeathsig", "QUIT"]);
    }
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg("--").arg(program).current_dir("/");
    command
}

fn own(folder: &Path) {
    if is_root() {
        run(Command::new("chown").arg("postgres:").arg(folder));
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
}
