//! An RCS handset that nobody here wrote: registration, reg events, standalone messages and files of `rust-rcs-client`. This program
//! only joins its parts, as its own engine does on Android, and drives them.
//!
//!     handset PORT USER DOMAIN PASSWORD
//!
//! Objects on standard input, one a line: `{"send": text, "to": uri}`, `{"get": url, "file": path}`, `{"leave": true}`. Events on
//! standard output likewise.

use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rust_rcs_client::connectivity::authentication_type::AuthenticationType;
use rust_rcs_client::connectivity::flow::FlowManager;
use rust_rcs_client::connectivity::registration::{Registration, RegistrationEvent, deregister, start_register};
use rust_rcs_client::context::Context;
use rust_rcs_client::messaging::cpm::standalone_messaging::{
    StandaloneMessagingService, StandaloneMessagingServiceWrapper, send_message,
};
use rust_rcs_client::messaging::ffi::RecipientType;
use rust_rcs_client::messaging::ft_http::download_file;
use rust_rcs_core::io::network::stream::ClientStream;
use rust_rcs_core::security::gba::GbaContext;
use rust_rcs_core::sip::sip_subscription::SubscriptionManager;
use rust_rcs_core::sip::sip_transport::setup_sip_transport;
use rust_rcs_core::sip::{
    ACK, BYE, CANCEL, INVITE, MESSAGE, NOTIFY, OPTIONS, SipCore, SipTransactionManager, SipTransport,
    TransactionHandler, UPDATE,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// How long it stays for the answer to its last request.
const LAST: Duration = Duration::from_secs(1);

fn tell(event: Value) {
    println!("{event}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, user, domain, password] = arguments.try_into().expect("handset PORT USER DOMAIN PASSWORD");
    let rt = Arc::new(tokio::runtime::Runtime::new().unwrap());
    let subscriptions = Arc::new(SubscriptionManager::new(500));
    let (transactions, events) = SipTransactionManager::new(&rt);
    let transactions = Arc::new(transactions);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // Its MSRP talks to nobody: no line break before an end-line, no `$` after one with a Byte-Range, paths of a response the
    // wrong way round, a message whole when it has one byte too many.
    let messages = StandaloneMessagingService::new(
        move |from, info, content_type, body| {
            tell(json!({
                "message": text(body), "from": text(from), "type": text(content_type), "id": text(info.imdn_message_id)
            }));
        },
        |_| Err((480, "Temporarily Unavailable")),
        |_, _, _, _| Box::pin(async { Err((500, "Server Internal Error")) }),
    );
    let wrapper = StandaloneMessagingServiceWrapper { service: Arc::new(messages), tm: transactions.clone() };
    let handlers: Vec<Box<dyn TransactionHandler + Send + Sync>> = vec![Box::new(wrapper)];
    let allowed = vec![ACK, BYE, CANCEL, INVITE, MESSAGE, NOTIFY, OPTIONS, UPDATE];
    let core = Arc::new(SipCore::new(&subscriptions, &transactions, events, allowed, handlers, &rt));
    let flows = FlowManager::new(&subscriptions, &transactions, |known, _, identity, _| {
        tell(json!({ "maintained": known, "identity": identity }));
    });
    let flows = Arc::new(flows);

    let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let stream = rt.block_on(ClientStream::new_tokio(host, port.parse().unwrap())).unwrap();
    let address = stream.get_local_transport_address();
    let transport = SipTransport::new::<ClientStream>(address.clone(), stream.get_sip_transport_type());
    let transport = Arc::new(transport);
    let writer = setup_sip_transport(&transport, stream, transactions.get_ctrl_itf(), rt.clone(), || {
        tell(json!({ "closed": true }));
    });
    transactions.register_sip_transport(transport.clone(), writer);

    let (instance, identity) = (Uuid::new_v4(), format!("sip:{user}@{domain}"));
    // Whatever it is challenged with, the algorithm that stands here goes into its answer.
    let digest = AuthenticationType::Digest("MD5".into(), domain.clone(), user.clone(), password);
    let registration = Registration::new(
        0,
        format!("{user}@{domain}"),
        identity.clone(),
        domain,
        digest,
        transport.clone(),
        address.clone(),
        1,
        instance,
    );
    let registration = Arc::new(registration);
    flows.observe_registration(&transport, address, &registration, &core, &rt);
    let (known, by) = (core.clone(), transport.clone());
    start_register(&registration, &flows, &core, &rt, move |event| match event {
        RegistrationEvent::Registered(identity) => {
            known.set_default_public_identity(identity.clone(), format!("<urn:uuid:{instance}>"), by.clone());
            tell(json!({ "registered": identity }));
        }
        RegistrationEvent::Refreshed => tell(json!({ "refreshed": true })),
        RegistrationEvent::Released => tell(json!({ "released": true })),
    });

    let context = Context::new("/nowhere", rt.clone());
    let (http, security) = (context.get_http_client(), context.get_security_context());
    let gba = Arc::new(GbaContext::new(String::new(), String::new(), String::new(), 0));
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let told: Value = serde_json::from_str(&line).unwrap();
        let field = |name: &str| told[name].as_str().unwrap_or_default();
        if told["send"].is_string() {
            let (what, to) = (field("send"), field("to"));
            let status = |status, _| tell(json!({ "status": status }));
            let kind = RecipientType::Contact;
            send_message("text/plain", what, to, &kind, to, status, core.clone(), &transport, &identity, &rt);
        } else if told["get"].is_string() {
            let (url, file) = (field("get"), field("file"));
            let done = rt.block_on(download_file(url, file, 0, None, None, &http, &gba, &security, None, |_, _| {}));
            tell(done.map_or_else(|e| json!({ "failed": e.error_code() }), |()| json!({ "fetched": true })));
        } else {
            deregister(&registration, &core, &rt);
        }
    }
    std::thread::sleep(LAST);
}
