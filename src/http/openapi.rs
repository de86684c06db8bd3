//! `/openapi.json` and `/docs`: every documented API, put together from what each door brings.

use std::fmt::Write;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use serde_json::{Map, Value, json};

/// What each door says of itself: `tags`, `paths` and `components` of an OpenAPI 3.0.3 document.
const PARTS: [&str; 2] = [include_str!("openapi/oauth2.json"), include_str!("openapi/sms.json")];

/// Both addresses. `public_url`: where clients find us; empty: where they found this.
pub fn router(public_url: &str) -> Router {
    let document = document(public_url);
    let (page, text) = (page(&document), document.to_string());
    let json = [(header::CONTENT_TYPE, "application/json")];
    // Nothing runs in it, and nothing is fetched.
    let html = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    Router::new()
        .route("/openapi.json", get(async move || (json, text)))
        .route("/docs", get(async move || (html, page)))
}

fn document(public_url: &str) -> Value {
    let server = if public_url.is_empty() { "/" } else { public_url };
    let mut whole = json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Isthmus",
            "description": "The APIs of an Isthmus server for developers.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0.html" },
        },
        "servers": [{ "url": server }],
        "tags": [],
        "paths": {},
        "components": {},
    });
    for part in PARTS {
        // Part of this binary: a test reads it.
        let mut part: Value = serde_json::from_str(part).unwrap_or_default();
        if let (Some(all), Some(more)) = (whole["tags"].as_array_mut(), part["tags"].as_array_mut()) {
            all.append(more);
        }
        merge(&mut whole["paths"], part["paths"].take());
        if let Value::Object(components) = part["components"].take() {
            for (kind, more) in components {
                merge(&mut whole["components"][kind], more);
            }
        }
    }
    whole
}

fn merge(into: &mut Value, more: Value) {
    if into.is_null() {
        *into = Value::Object(Map::new());
    }
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

/// For people: each operation, what it does, what it needs.
fn page(document: &Value) -> String {
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let mut html = String::from(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Isthmus: APIs</title><style>\
         body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
         code{background:#eee;padding:.1em .3em}h2{margin-top:2em}table{border-collapse:collapse}\
         td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left;vertical-align:top}</style></head><body>\
         <h1>Isthmus: APIs</h1><p>The same for programs: <a href=\"/openapi.json\">/openapi.json</a>.</p>",
    );
    // Writing into a String cannot fail.
    let _ = (|| -> std::fmt::Result {
        for tag in document["tags"].as_array().into_iter().flatten() {
            write!(html, "<h2>{}</h2><p>{}</p>", text(&tag["name"]), text(&tag["description"]))?;
            for (path, item) in document["paths"].as_object().into_iter().flatten() {
                for (method, operation) in item.as_object().into_iter().flatten() {
                    if operation["tags"][0] != tag["name"] {
                        continue;
                    }
                    write!(html, "<h3><code>{} {}</code></h3>", escape(&method.to_uppercase()), escape(path))?;
                    write!(html, "<p>{}</p><p>{}</p>", text(&operation["summary"]), text(&operation["description"]))?;
                    let scopes = operation["security"][0]["oauth2"].as_array().into_iter().flatten();
                    for scope in scopes {
                        write!(html, "<p>Scope: <code>{}</code></p>", text(scope))?;
                    }
                    html.push_str("<table><tr><th>answer</th><th></th></tr>");
                    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
                        let answer = resolve(document, answer);
                        write!(html, "<tr><td>{}</td><td>{}</td></tr>", escape(status), text(&answer["description"]))?;
                    }
                    html.push_str("</table>");
                }
            }
        }
        Ok(())
    })();
    html.push_str("</body></html>");
    html
}

fn resolve<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let pointer = value["$ref"].as_str().and_then(|r| r.strip_prefix('#'));
    pointer.and_then(|p| document.pointer(p)).unwrap_or(value)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_in_the_whole_and_every_reference_leads_somewhere() {
        let whole = document("https://sms.example.test");
        for path in ["/oauth2/token", "/sms/v1/messages", "/sms/v0alpha1/short-message"] {
            assert!(whole["paths"][path]["post"].is_object(), "{path}");
        }
        let text = whole.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).map(|r| r.split('"').next().unwrap()) {
            assert!(whole.pointer(reference).is_some(), "{reference}");
        }
        let page = page(&whole);
        assert!(page.contains("<code>POST /sms/v1/messages</code>") && page.contains("send-sms:short-message"));
    }
}
