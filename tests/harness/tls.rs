//! A private certificate authority, made by the system's openssl for one test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::DOMAIN;

/// The authority of one test folder: `ca.pem` there, and whatever it issued beside it.
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path) -> Self {
        let me = Self { dir: dir.into() };
        me.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=story authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        me
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Issues `name.pem` with `name.key` for these host names and 127.0.0.1.
    pub fn issue(&self, name: &str, hosts: &[&str]) {
        let names: Vec<String> = hosts.iter().map(|h| format!("DNS:{h}")).collect();
        self.issue_for(name, &format!("{},IP:127.0.0.1", names.join(",")));
    }

    /// Issues `name.pem` with `name.key` for a subjectAltName in openssl's words, such as `URI:sip:example.com`.
    pub fn issue_for(&self, name: &str, subject_alt_name: &str) {
        let extensions = format!("subjectAltName={subject_alt_name}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(self.dir.join(format!("{name}.ext")), extensions).unwrap();
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            &subject,
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &format!("{name}.ext"),
            "-out",
            &certificate,
        ]);
    }

    /// SHA-256 of the certificate `name.pem`, in hexadecimal.
    pub fn fingerprint(&self, name: &str) -> String {
        let said = self.openssl(&["x509", "-in", &format!("{name}.pem"), "-noout", "-fingerprint", "-sha256"]);
        said.trim().rsplit('=').next().unwrap_or_default().replace(':', "")
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let done =
            Command::new("openssl").args(arguments).current_dir(&self.dir).output().expect("openssl is installed");
        assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

/// The certificate that a door shows, in PEM, as openssl sees it.
pub fn shown_certificate(port: u16) -> String {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", DOMAIN]);
    let shown = client.stdin(Stdio::null()).output().expect("openssl runs");
    let text = String::from_utf8_lossy(&shown.stdout);
    let from = text.find("-----BEGIN CERTIFICATE").unwrap_or_else(|| panic!("no certificate: {text}"));
    let to = text.find("-----END CERTIFICATE").expect("a whole certificate");
    text[from..to].to_owned()
}
