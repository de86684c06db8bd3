//! Files over HTTP (GSMA RCC.07): curl uploads, breaks off, goes on and downloads; clamd and c-icap say what does not pass.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::clamd::{Clamd, eicar};
use harness::files::bytes;
use harness::icap::CIcap;
use harness::tls::Authority;
use harness::{PASSWORD, Process, Server, Setup, eventually, stunnel, wait_for_tcp};

const SOON: Duration = Duration::from_secs(30);
const TID: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

fn setup(content: &str) -> Setup {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sections = format!("[content]\nrate = 1000\n{content}");
    setup
}

/// A user with curl, in a folder of files.
struct Client<'s> {
    server: &'s Server,
    credentials: String,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value at an XPath of the document, as xmllint reads it.
    fn at(&self, path: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answer.xml");
        fs::write(&file, &self.body).unwrap();
        let done = Command::new("xmllint").args(["--nonet", "--xpath", &format!("string({path})")]).arg(&file).output();
        let done = done.expect("xmllint runs");
        assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), self.text());
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn of_file(&self, what: &str) -> String {
        self.at(&format!("//*[local-name()='file-info'][@type='file']/*[local-name()={what}"))
    }

    fn link(&self) -> String {
        self.of_file("'data']/@url")
    }
}

impl<'s> Client<'s> {
    fn of(server: &'s Server, user: &str) -> Client<'s> {
        Client { server, credentials: format!("{user}:{PASSWORD}") }
    }

    /// Without credentials: a link is enough.
    fn nobody(server: &'s Server) -> Client<'s> {
        Client { server, credentials: String::new() }
    }

    fn root(&self) -> String {
        format!("http://127.0.0.1:{}/content/", self.server.http)
    }

    fn command(&self, arguments: &[&str], url: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "120"]);
        if !self.credentials.is_empty() {
            curl.args(["--digest", "-u", &self.credentials]);
        }
        curl.args(arguments).arg(url);
        curl
    }

    fn ask(&self, arguments: &[&str], url: &str) -> Answer {
        let dir = tempfile::tempdir().unwrap();
        let (head, body) = (dir.path().join("head"), dir.path().join("body"));
        let mut curl = self.command(arguments, url);
        let done = curl.arg("-D").arg(&head).arg("-o").arg(&body).output().expect("curl runs");
        assert!(done.status.success(), "curl {arguments:?} {url}: {}", String::from_utf8_lossy(&done.stderr));
        let heads = fs::read_to_string(head).unwrap();
        // After a challenge, and 100 Continue, the answer.
        let head = heads.trim_end().rsplit("\r\n\r\n").next().unwrap().to_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        Answer { status, head, body: fs::read(body).unwrap_or_default() }
    }

    fn get(&self, url: &str) -> Answer {
        self.ask(&[], url)
    }

    fn form<'a>(tid: &'a str, file: &'a str) -> [String; 4] {
        ["-F".into(), format!("tid={tid}"), "-F".into(), format!("File=@{file}")]
    }

    fn upload(&self, tid: &str, file: &Path, kind: &str) -> Answer {
        let form = Client::form(tid, &format!("{};type={kind}", file.display()));
        self.ask(&form.each_ref().map(String::as_str), &self.root())
    }
}

fn written(server: &Server, name: &str, bytes: &[u8]) -> PathBuf {
    let file = server.path().join(name);
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn a_file_goes_from_alice_to_bob() {
    let server = setup("").start();
    let alice = Client::of(&server, "alice");
    // RCC.07: first an empty request, which shows whether the way in is open.
    assert_eq!(alice.ask(&["-X", "POST", "-d", "", "-H", "Content-Type:"], &alice.root()).status, 204);
    let photo = bytes(9_000_001);
    let file = written(&server, "a photo & more.jpg", &photo);
    let small = written(&server, "small.png", &photo[..5_000]);
    let (tid, thumbnail, whole) = (
        format!("tid={TID}"),
        format!("Thumbnail=@{};type=image/png", small.display()),
        format!("File=@{};type=image/jpeg", file.display()),
    );
    let told = alice.ask(&["-F", &tid, "-F", &thumbnail, "-F", &whole], &alice.root());
    assert_eq!(told.status, 200, "{}", told.text());
    assert!(told.head.to_lowercase().contains("content-type: application/vnd.gsma.rcs-ft-http+xml"), "{}", told.head);
    assert_eq!(told.of_file("'file-size']"), "9000001");
    assert_eq!(told.of_file("'file-name']"), "a photo & more.jpg");
    assert_eq!(told.of_file("'content-type']"), "image/jpeg");

    // Bob needs the link and nothing else.
    let bob = Client::nobody(&server);
    let link = told.link();
    let got = bob.get(&link);
    assert_eq!((got.status, got.body == photo), (200, true));
    let head = got.head.to_lowercase();
    for line in ["content-type: image/jpeg", "content-length: 9000001", "accept-ranges: bytes", "nosniff", "attachment"]
    {
        assert!(head.contains(line), "{line}: {head}");
    }
    let some = bob.ask(&["-r", "4194300-4194310"], &link);
    assert_eq!((some.status, some.body), (206, photo[4_194_300..=4_194_310].to_vec()));
    assert!(some.head.to_lowercase().contains("content-range: bytes 4194300-4194310/9000001"), "{}", some.head);
    assert_eq!(bob.ask(&["-r", "9000001-"], &link).status, 416);
    // curl itself goes on with a download that it has the half of.
    let half = written(&server, "half", &photo[..4_000_000]);
    let on = bob.command(&["-C", "-", "-o", half.to_str().unwrap()], &link).status().unwrap();
    assert!(on.success() && fs::read(&half).unwrap() == photo);
    let thumbnail = told.at("//*[local-name()='file-info'][@type='thumbnail']/*[local-name()='data']/@url");
    assert!(bob.get(&thumbnail).body == photo[..5_000]);

    // What was not signed.
    assert_eq!(bob.get(&thumbnail.replace("/thumbnail", "/file")).status, 403);
    assert_eq!(bob.get(&link.replace("until=1", "until=2")).status, 403);
    assert_eq!(bob.get(&format!("{}1/00000000000000000000000000000000/file?until=9&sig=AA", alice.root())).status, 403);
    assert_eq!(bob.upload(TID, &file, "image/jpeg").status, 401);
    // The same name of an upload, of somebody else, is another file.
    let asked = format!("{}?tid={TID}&get_download_info", alice.root());
    assert_eq!(Client::of(&server, "bob").get(&asked).status, 404);
    // Alice's answer was lost: she asks again.
    assert_eq!(alice.get(&asked).link(), link);
    assert_eq!(server.metric("isthmus_content_uploads_total{fate=\"stored\"}"), 1.0);
}

#[test]
fn a_broken_upload_goes_on_after_a_crash() {
    let mut server = setup("").start();
    let film = bytes(40 << 20);
    let file = written(&server, "film.mp4", &film);
    let form = Client::form(TID, &format!("{};type=video/mp4", file.display()));
    let alice = Client::of(&server, "alice");
    let mut arguments = vec!["--limit-rate", "4M"];
    arguments.extend(form.iter().map(String::as_str));
    let mut curl = alice.command(&arguments, &alice.root());
    let mut sending = Process::start("curl", server.path(), &mut curl);
    let received = |server: &Server| server.metric("isthmus_content_received_bytes_total");
    eventually("a part has come", SOON, || received(&server) > 9e6);
    sending.kill();
    let asked = format!("{}?tid={TID}&get_upload_info", alice.root());
    let last = |server: &Server| {
        let told = Client::of(server, "alice").get(&asked);
        assert_eq!(told.status, 200, "{}", told.text());
        told.at("//*[local-name()='file-range']/@end").parse::<usize>().unwrap()
    };
    // What came before the connection broke is kept, to the last byte.
    eventually("the server has seen it", SOON, || {
        server.metric("isthmus_content_uploads_total{fate=\"broken\"}") == 1.0
    });
    let first = last(&server);
    assert_eq!(first + 1, received(&server) as usize);
    assert_eq!(alice.get(&asked.replace("upload", "download")).status, 404);

    // A piece of the rest, and then the server dies.
    let put = |server: &Server, from: usize, to: usize, of: usize| {
        let told = Client::of(server, "alice").get(&asked);
        let rest = written(server, "rest", &film[from..to]);
        let range = format!("Content-Range: bytes {from}-{}/{of}", to - 1);
        let data = format!("@{}", rest.display());
        let arguments = ["-X", "PUT", "-H", "Content-Type: video/mp4", "-H", &range, "--data-binary", &data];
        Client::nobody(server).ask(&arguments, &told.at("//*[local-name()='data']/@url"))
    };
    let second = first + 1 + (10 << 20);
    assert_eq!(put(&server, first + 1, second, film.len()).status, 204);
    server.restart();
    assert_eq!(last(&server) + 1, second);
    // Not there, not so large, and not beyond the end.
    assert_eq!(put(&server, second + 1, second + 9, film.len()).status, 409);
    assert_eq!(put(&server, second, second + 9, 1 << 40).status, 413);
    assert_eq!(put(&server, second, second + 9, second + 8).status, 400);
    // Refused before curl, which waits to be asked for so much, has sent it.
    assert_eq!(put(&server, second + 1, film.len(), film.len()).status, 409);
    let told = put(&server, second, film.len(), film.len());
    assert_eq!(told.status, 200, "{}", told.text());
    assert_eq!(told.of_file("'file-size']"), film.len().to_string());
    let bob = Client::nobody(&server);
    assert!(bob.get(&told.link()).body == film);
    assert_eq!(Client::of(&server, "alice").get(&asked.replace("upload", "download")).link(), told.link());
}

#[test]
fn what_is_too_large_or_of_a_refused_type_does_not_come_in() {
    let server =
        setup("max_file = \"1 MiB\"\ndaily_quota = \"3 MiB\"\nrefused_types = [\"application/x-msdownload\"]\n")
            .start();
    let alice = Client::of(&server, "alice");
    let (most, more) = (written(&server, "most", &bytes(1 << 20)), written(&server, "more", &bytes((1 << 20) + 1)));
    let refused = alice.upload("1", &most, "application/x-msdownload");
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(alice.upload("2", &more, "image/png").status, 413);
    // A tebibyte is refused by what it says of itself.
    let claim = format!("{};headers=\"Content-Length: 1099511627776\"", most.display());
    let form = Client::form("3", &claim);
    assert_eq!(alice.ask(&form.each_ref().map(String::as_str), &alice.root()).status, 413);
    assert_eq!(alice.upload("4", &most, "image/png").status, 200);
    // What was too large has counted too.
    assert_eq!(alice.upload("5", &most, "image/png").status, 429);
    assert_eq!(Client::of(&server, "bob").upload("5", &most, "image/png").status, 200);
    // Not a form, no name, no file.
    assert_eq!(alice.ask(&["-d", "a=b"], &alice.root()).status, 415);
    assert_eq!(alice.ask(&["-F", &format!("File=@{}", most.display())], &alice.root()).status, 400);
    assert_eq!(alice.ask(&["-F", "tid=7"], &alice.root()).status, 400);
}

#[test]
fn the_scanner_stops_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let ports = harness::Ports::claim();
    let mut clamd = Clamd::start(dir.path(), ports.next(), &eicar());
    let server = setup(&format!("clamd = \"{}\"\n", clamd.address)).start();
    let alice = Client::of(&server, "alice");
    // Behind six megabytes, in the second part.
    let infected: Vec<u8> = [bytes(6 << 20), eicar()].concat();
    let (bad, good, other) = (
        written(&server, "bad", &infected),
        written(&server, "good", &bytes(5 << 20)),
        written(&server, "other", &bytes(1_000)),
    );
    let refused = alice.upload("1", &bad, "image/png");
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("Isthmus.Test"), "{}", refused.text());
    for info in ["get_download_info", "get_upload_info"] {
        let status = alice.get(&format!("{}?tid=1&{info}", alice.root())).status;
        assert!(matches!(status, 403 | 404), "{info}: {status}");
    }
    eventually("a line for the auditor", SOON, || {
        server
            .process
            .output()
            .lines()
            .any(|l| l.contains("audit") && l.contains("Isthmus.Test") && !l.contains("alice"))
    });
    let passed = alice.upload("2", &good, "image/png");
    assert_eq!(passed.status, 200, "{}", passed.text());
    assert_eq!(alice.get(&passed.link()).body, fs::read(&good).unwrap());
    // Without a scanner nothing passes but what it has seen.
    clamd.process.kill();
    assert_eq!(alice.upload("3", &other, "image/png").status, 403);
    assert_eq!(alice.upload("4", &good, "image/png").status, 200);
    assert_eq!(alice.upload("5", &bad, "image/png").status, 403);
}

#[test]
fn an_icap_service_stops_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let ports = harness::Ports::claim();
    let clamd = Clamd::start(dir.path(), ports.next(), &eicar());
    let mut icap = CIcap::start(dir.path(), ports.next(), &clamd);
    let server = setup(&format!("icap = \"{}\"\n", icap.url)).start();
    let alice = Client::of(&server, "alice");
    // Far behind what the service wants to see before it asks for the rest; and all of it within.
    let infected: Vec<u8> = [bytes(6 << 20), eicar()].concat();
    for (tid, name, content) in [("1", "long", &infected), ("2", "short", &eicar())] {
        let refused = alice.upload(tid, &written(&server, name, content), "image/png");
        assert_eq!(refused.status, 403);
        assert!(refused.text().contains("the virus scanner found Isthmus.Test"), "{}", refused.text());
    }
    let (good, other) = (written(&server, "good", &bytes(5 << 20)), written(&server, "other", &bytes(1_000)));
    let passed = alice.upload("3", &good, "image/png");
    assert_eq!(passed.status, 200, "{}", passed.text());
    assert_eq!(alice.get(&passed.link()).body, fs::read(&good).unwrap());
    let log = || fs::read_to_string(dir.path().join("c-icap-access.log")).unwrap();
    eventually("it has looked at three files", SOON, || log().matches("RESPMOD").count() == 3);
    // Without it nothing passes but what it has seen.
    icap.process.kill();
    assert_eq!(alice.upload("4", &other, "image/png").status, 403);
    assert_eq!(alice.upload("5", &good, "image/png").status, 200);
}

#[test]
fn an_icap_service_is_asked_over_tls_once_it_has_proved_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let ports = harness::Ports::claim();
    let clamd = Clamd::start(dir.path(), ports.next(), &eicar());
    let plain = ports.next();
    let _icap = CIcap::start(dir.path(), plain, &clamd);
    let authority = Authority::new(dir.path());
    authority.issue("scanner", &["scan.test"]);
    authority.issue_for("other", "DNS:other.test");
    let elsewhere = tempfile::tempdir().unwrap();
    let nobody = Authority::new(elsewhere.path());
    let [scanner, other] = ["scanner", "other"].map(|name| {
        let port = ports.next();
        (port, stunnel::server(dir.path(), port, plain, name))
    });
    let asks = |port: u16, authority: &Authority| {
        let mut setup = setup(&format!("icap = \"icaps://127.0.0.1:{port}/whole\"\n"));
        setup.tls = format!("authorities = \"{}\"\n", authority.certificate().display());
        setup.start()
    };
    let server = asks(scanner.0, &authority);
    let alice = Client::of(&server, "alice");
    let infected: Vec<u8> = [bytes(6 << 20), eicar()].concat();
    let refused = alice.upload("1", &written(&server, "infected", &infected), "image/png");
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("the virus scanner found Isthmus.Test"), "{}", refused.text());
    assert_eq!(alice.upload("2", &written(&server, "good", &bytes(5 << 20)), "image/png").status, 200);
    let looked = || fs::read_to_string(dir.path().join("c-icap-access.log")).unwrap().matches("RESPMOD").count();
    eventually("it has looked at two files", SOON, || looked() == 2);
    // Another's certificate, and one of an authority that is not believed.
    for (port, authority) in [(other.0, &authority), (scanner.0, &nobody)] {
        let server = asks(port, authority);
        let refused = Client::of(&server, "alice").upload("3", &written(&server, "good", &bytes(1_000)), "image/png");
        assert_eq!(refused.status, 403);
    }
    assert_eq!(looked(), 2);
}

/// moto's S3, with one bucket.
fn bucket(dir: &Path, port: u16) -> (Process, String) {
    let moto = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/venv/bin/moto_server");
    let mut command = Command::new(moto);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let process = Process::start("moto", dir, &mut command);
    wait_for_tcp(port);
    let endpoint = format!("http://127.0.0.1:{port}");
    let made = Command::new("curl").args(["-sSf", "-X", "PUT", &format!("{endpoint}/files")]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (process, endpoint)
}

#[test]
fn files_may_lie_in_a_bucket_that_nodes_share() {
    let dir = tempfile::tempdir().unwrap();
    let ports = harness::Ports::claim();
    let (_moto, endpoint) = bucket(dir.path(), ports.next());
    let section = format!(
        "[content.s3]\nbucket = \"files\"\nendpoint = \"{endpoint}\"\naccess_key = \"test\"\nsecret_key = \"test\"\n"
    );
    let mut server = setup(&section).start();
    let alice = Client::of(&server, "alice");
    let film = bytes(9 << 20);
    let file = written(&server, "film", &film);
    // The first half, and the second after a crash.
    let form = Client::form(TID, &format!("{};type=video/mp4", file.display()));
    let mut arguments = vec!["--limit-rate", "1M"];
    arguments.extend(form.iter().map(String::as_str));
    let mut sending = Process::start("curl", server.path(), &mut alice.command(&arguments, &alice.root()));
    eventually("a part is there", SOON, || server.metric("isthmus_content_received_bytes_total") > 4.5e6);
    sending.kill();
    eventually("it broke", SOON, || server.metric("isthmus_content_uploads_total{fate=\"broken\"}") == 1.0);
    server.restart();
    let alice = Client::of(&server, "alice");
    let told = alice.get(&format!("{}?tid={TID}&get_upload_info", alice.root()));
    let from = told.at("//*[local-name()='file-range']/@end").parse::<usize>().unwrap() + 1;
    let rest = written(&server, "rest", &film[from..]);
    let range = format!("Content-Range: bytes {from}-{}/{}", film.len() - 1, film.len());
    let put = ["-X", "PUT", "-H", &range, "--data-binary", &format!("@{}", rest.display())];
    let whole = Client::nobody(&server).ask(&put, &told.at("//*[local-name()='data']/@url"));
    assert_eq!(whole.status, 200, "{}", whole.text());
    let some = Client::nobody(&server).ask(&["-r", "4194300-4194310"], &whole.link());
    assert_eq!((some.status, some.body), (206, film[4_194_300..=4_194_310].to_vec()));
    assert!(Client::nobody(&server).get(&whole.link()).body == film);
    assert!(!server.path().join("data/content").exists(), "nothing of it lies here");
}
