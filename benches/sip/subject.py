"""The servers under measurement. Both are started the same way, measured by the same /proc files, and stopped by pid."""
import os, pathlib, shutil, signal, sqlite3, subprocess, time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TICK = os.sysconf("SC_CLK_TCK")
DOMAIN = "bench.test"
PASSWORD = "wonderland"


class Absent(Exception):
    """The server, or what it needs, is not on this machine."""


class Subject:
    """One started server. `cores` is a taskset list such as "0" or "0,1"."""

    name = "?"

    def __init__(self, rundir, ports, cores="0", **options):
        self.dir = pathlib.Path(rundir)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.port, self.tls_port, self.ws_port, self.admin_port = ports, ports + 1, ports + 2, ports + 3
        self.cores = cores
        self.options = options
        self.process = None

    def __enter__(self):
        self.log = open(self.dir / "log", "wb")
        self.prepare()
        self.process = subprocess.Popen(["taskset", "-c", self.cores] + self.command(), stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=subprocess.STDOUT, cwd=self.dir, env=self.environment())
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def environment(self):
        return dict(os.environ)

    def wait_ready(self):
        import socket
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.settimeout(0.2)
        for attempt in range(150):
            if self.process.poll() is not None:
                raise Absent(f"{self.name} ended at once: {self.tail()}")
            probe.sendto((f"OPTIONS sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{probe.getsockname()[1]};rport;"
                          f"branch=z9hG4bKp{attempt}\r\nMax-Forwards: 70\r\nFrom: <sip:p@probe.test>;tag=1\r\n"
                          f"To: <sip:{DOMAIN}>\r\nCall-ID: p{attempt}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n").encode(),
                         ("127.0.0.1", self.port))
            try:
                if probe.recv(4096).startswith(b"SIP/2.0 200"):
                    return
            except OSError:
                pass
        raise Absent(f"{self.name} does not answer OPTIONS with 200: {self.tail()}")

    def tail(self):
        return (self.dir / "log").read_bytes()[-600:].decode("utf-8", "replace")

    def pids(self):
        main, found = self.process.pid, {self.process.pid}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = pathlib.Path(f"/proc/{entry}/stat").read_text().rsplit(") ", 1)[1].split()
                except OSError:
                    continue
                if int(fields[1]) in found or int(fields[1]) == main:
                    found.add(int(entry))
        return sorted(found)

    def cpu(self):
        """Seconds of user and system time of every process of the server so far."""
        total = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def rss(self):
        """Resident private bytes of every process of the server."""
        total = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    memory = rss


class Kamailio(Subject):
    """Kamailio from the distribution's package. Options: digest, write_through, tls, ws, children."""

    name = "kamailio"

    def prepare(self):
        if not shutil.which("kamailio"):
            raise Absent("kamailio is not installed")
        o = self.options
        defines = []
        for flag, key in (("WITH_DIGEST", "digest"), ("WITH_DB", "write_through"), ("WITH_TLS", "tls"), ("WITH_WS", "ws")):
            if o.get(key):
                defines.append(f"#!define {flag}")
        text = pathlib.Path(o.get("script", HERE / "kamailio" / "bench.cfg")).read_text()
        for name, value in (("PORT", self.port), ("TLSPORT", self.tls_port), ("CHILDREN", o.get("children", len(self.cores.split(",")))), ("RUNDIR", self.dir)):
            text = text.replace(f"@{name}@", str(value))
        text = text.splitlines()
        (self.dir / "kamailio.cfg").write_text("\n".join([text[0]] + defines + text[1:]) + "\n")
        if o.get("write_through"):
            db = sqlite3.connect(self.dir / "location.db")
            for name in ("standard", "usrloc"):
                db.executescript(pathlib.Path(f"/usr/share/kamailio/db_sqlite/{name}-create.sql").read_text())
            db.execute("PRAGMA journal_mode=WAL")
            db.close()
        if o.get("script"):
            tables = self.dir / "tables"
            tables.mkdir()
            for table in o["tables"]:
                shutil.copy(f"/usr/share/kamailio/dbtext/kamailio/{table}", tables / table)
        if o.get("tls"):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                            "-subj", f"/CN={DOMAIN}", "-days", "2", "-keyout", str(self.dir / "key.pem"),
                            "-out", str(self.dir / "cert.pem")], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def command(self):
        return ["kamailio", "-f", str(self.dir / "kamailio.cfg"), "-x", "tlsf", "-X", "tlsf", "-m", "3072", "-M", "64",
                "-b", "4194304", "-DD", "-E", "-Y", str(self.dir), "-P", str(self.dir / "pid")]

    def memory(self):
        """Shared memory really used: that is where Kamailio keeps bindings and transactions."""
        text = subprocess.run(["kamcmd", "-s", f"unix:{self.dir}/ctl", "core.shmmem"], check=True, capture_output=True, text=True).stdout
        for line in text.splitlines():
            if "real_used:" in line:
                return int(line.split(":")[1])
        raise Absent("kamcmd core.shmmem says nothing of real_used")


class Isthmus(Subject):
    """The server of this repository. Options: digest, before_reply, users (how many accounts), workers."""

    name = "isthmus"

    def prepare(self):
        self.binary = os.environ.get("ISTHMUS_BIN", str(ROOT / "target" / "release" / "isthmus"))
        if not os.access(self.binary, os.X_OK):
            raise Absent(f"{self.binary} is not built (cargo build --release)")
        o = self.options
        self.config = self.dir / "isthmus.toml"
        self.config.write_text(f"""domain = "{DOMAIN}"
data_dir = "{self.dir}/data"
[sip]
udp = ["127.0.0.1:{self.port}"]
tcp = ["127.0.0.1:{self.port}"]
tls = ["127.0.0.1:{self.tls_port}"]
auth = "{'digest' if o.get('digest') else 'none'}"
workers = {o.get('workers', 0)}
{o.get('sip_extra', '')}
[registrar]
store = "{'before-reply' if o.get('before_reply') else 'behind'}"
[http]
plain = "127.0.0.1:{self.admin_port + 1}"
tls = "127.0.0.1:{self.ws_port}"
[admin]
listen = "127.0.0.1:{self.admin_port}"
[log]
level = "warn"
{o.get('sections', '')}
""")
        self.import_users(o.get("users", 0))

    def import_users(self, count):
        """Accounts are imported once for a count and copied into each run's folder: hashing 100,000 of them takes a while."""
        if not count:
            return
        store = self.dir.parent / f"accounts-{count}"
        if not store.exists():
            file = self.dir / "users.toml"
            with open(file, "w") as out:
                for i in range(count):
                    out.write(f'[[user]]\nid = "{user(i)}"\npassword = "{PASSWORD}"\n')
            subprocess.run([self.binary, "import", str(file), "--config", str(self.config)], check=True, cwd=self.dir,
                           stdout=self.log, stderr=self.log)
            shutil.copytree(self.dir / "data", store)
        elif not (self.dir / "data").exists():
            shutil.copytree(store, self.dir / "data")

    def command(self):
        return [self.binary, "serve", "--config", str(self.config)]


def user(i):
    """The i-th account's name."""
    return f"user{i:06d}"
