//! What a client posts for a token: the form, an assertion in it, and the keys that it publishes. A line each: header and claims of a JWT,
//! its signature, a JWK Set; and all of it as a form.
#![no_main]

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;

// The server's own, which is no library of few dependencies.
#[allow(dead_code)]
#[path = "../../src/http/oauth2/form.rs"]
mod form;
#[allow(dead_code)]
#[path = "../../src/http/oauth2/jwt.rs"]
mod jwt;

use form::{Form, decode};
use jwt::{Assertion, Keys};

/// Nobody has the other half of these.
const KEYS: &[u8] = br#"{"keys":[
    {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(form) = Form::read("application/x-www-form-urlencoded", bytes) {
        for name in ["grant_type", "client_id", "client_secret", "scope"] {
            assert_ne!(form.of(name), Some(""));
        }
        if let Some(assertion) = form.of("client_assertion").and_then(Assertion::read) {
            assert!(!Keys::read(KEYS).unwrap().verify(&assertion));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some(decoded) = decode(text) {
            let encoded: String = decoded.bytes().map(|b| format!("%{b:02X}")).collect();
            assert_eq!(decode(&encoded), Some(decoded));
        }
        let _ = Assertion::read(text);
    }
    let mut lines = bytes.splitn(4, |b| *b == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let [header, claims, signature] = [line(), line(), line()].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let token = format!("{header}.{claims}.{signature}");
    if let Some(assertion) = Assertion::read(&token) {
        let _ = assertion.client();
        assert!(!Keys::read(KEYS).unwrap().verify(&assertion));
        if let Some(keys) = Keys::read(line()) {
            let _ = keys.verify(&assertion);
        }
    }
});
