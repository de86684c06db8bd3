//! A centre and an ESME of ours with applications that the tests can look into.

#![allow(dead_code)] // each test binary uses its part

pub mod peer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gw_smpp::pdu::{Address, COctets, CommandStatus, Octets, QuerySmResp, Request, Response, ShortMessage};
use gw_smpp::{
    Account, Accounts, BindAttempt, BindReply, Door, DoorConfig, DoorPort, Link, LinkConfig, LinkPort, LinkState,
    Outcome, Reply, Verdict,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// For whatever must happen; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn octets<const N: usize>(text: &str) -> COctets<N> {
    COctets::try_from(text).unwrap()
}

pub fn text(to: &str, body: &[u8]) -> ShortMessage {
    ShortMessage {
        source: Address { ton: 5, npi: 0, digits: octets("Isthmus") },
        destination: Address { ton: 1, npi: 1, digits: octets(to) },
        registered_delivery: 1,
        short_message: Octets::copied(body),
        ..ShortMessage::default()
    }
}

pub fn account(system_id: &str, password: &str) -> Accounts {
    let mut accounts = Accounts::default();
    accounts.add(octets(password), Vec::new(), Account::new(octets(system_id)));
    accounts
}

pub fn link_to(centre: &Centre, system_id: &str, password: &str, change: impl FnOnce(&mut LinkConfig)) -> LinkConfig {
    let mut config = LinkConfig::new("centre", centre.address, octets(system_id), octets(password));
    change(&mut config);
    config
}

async fn next<T>(from: &tokio::sync::Mutex<mpsc::UnboundedReceiver<T>>, what: &str) -> T {
    match timeout(PATIENCE, async { from.lock().await.recv().await }).await {
        Ok(Some(one)) => one,
        Ok(None) => panic!("no more {what}"),
        Err(_) => panic!("no {what} in time"),
    }
}

type Queue<T> = (mpsc::UnboundedSender<T>, tokio::sync::Mutex<mpsc::UnboundedReceiver<T>>);

fn queue<T>() -> Queue<T> {
    let (to, from) = mpsc::unbounded_channel();
    (to, tokio::sync::Mutex::new(from))
}

/// Message centre: names messages after their text; the text tells how to behave.
pub struct Centre {
    pub door: Door,
    pub address: SocketAddr,
    pub app: Arc<CentreApp>,
}

pub struct CentreApp {
    accounts: Accounts,
    outcomes: Queue<(u64, Verdict)>,
    refused: Queue<CommandStatus>,
    /// Not answered, on purpose.
    pub held: Mutex<Vec<Reply>>,
    throttled: Mutex<u32>,
    pub asked: Queue<Request>,
}

impl Centre {
    pub async fn open(accounts: Accounts) -> Centre {
        Centre::open_with(accounts, DoorConfig::default()).await
    }

    pub async fn open_with(accounts: Accounts, config: DoorConfig) -> Centre {
        let app = Arc::new(CentreApp {
            accounts,
            outcomes: queue(),
            refused: queue(),
            held: Mutex::default(),
            throttled: Mutex::new(0),
            asked: queue(),
        });
        let encrypted = config.tls.is_some();
        let door = Door::new(config, app.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        door.listen(listener, encrypted);
        Centre { door, address, app }
    }

    /// Another door at the same address, with the same application.
    pub async fn open_again(&self) -> Door {
        let door = Door::new(DoorConfig::default(), self.app.clone());
        let listener = TcpListener::bind(self.address).await.unwrap();
        door.listen(listener, false);
        door
    }

    pub async fn outcome(&self) -> (u64, Verdict) {
        next(&self.app.outcomes.1, "outcome at the centre").await
    }

    pub async fn refused(&self) -> CommandStatus {
        next(&self.app.refused.1, "refused bind").await
    }

    pub async fn asked(&self) -> Request {
        next(&self.app.asked.1, "request").await
    }

    async fn until(&self, what: &str, done: impl Fn() -> bool) {
        let waiting = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}");
    }

    pub async fn receiver(&self, system_id: &str) {
        self.until("no receiver", || self.door.receives(&octets(system_id), b"")).await;
    }

    pub async fn gone(&self) {
        self.until("still connected", || self.door.connections() == 0).await;
    }

    pub async fn held(&self, count: usize) {
        self.until("not held", || self.app.held.lock().len() >= count).await;
    }
}

impl DoorPort for CentreApp {
    fn authenticate(&self, attempt: BindAttempt, reply: BindReply) {
        match self.accounts.check(&attempt) {
            Ok(account) => reply.accept(account),
            Err(status) => {
                self.refused.0.send(status).unwrap();
                reply.refuse(status);
            }
        }
    }

    fn asked(&self, _: &Arc<gw_smpp::Esme>, request: Request, reply: Reply) {
        let body = match &request {
            Request::SubmitSm(message) => message.text().to_vec(),
            Request::DataSm(data) => data.text().to_vec(),
            Request::SubmitMulti(multi) => multi.message.text().to_vec(),
            _ => Vec::new(),
        };
        let found = match &request {
            Request::QuerySm(query) => Some(Response::QuerySm(QuerySmResp {
                message_id: query.message_id,
                state: 2,
                ..QuerySmResp::default()
            })),
            _ => None,
        };
        self.asked.0.send(request).unwrap();
        if let Some(response) = found {
            return reply.with(CommandStatus::ROK, response);
        }
        match &body[..] {
            b"hold" => self.held.lock().push(reply),
            b"throttle twice" if *self.throttled.lock() < 2 => {
                *self.throttled.lock() += 1;
                reply.status(CommandStatus::RTHROTTLED);
            }
            body => {
                let name: Vec<u8> = body.iter().copied().filter(|b| *b != 0).take(40).collect();
                reply.accepted(COctets::new(&[b"id-", &name[..]].concat()).unwrap());
            }
        }
    }

    fn outcomes(&self, outcomes: &mut Vec<Outcome>) {
        outcomes.drain(..).for_each(|o| self.outcomes.0.send((o.ticket, o.verdict)).unwrap());
    }
}

/// The application above a link.
pub struct Esme {
    outcomes: Queue<(u64, Verdict)>,
    delivered: Queue<Request>,
    states: Queue<LinkState>,
}

impl Esme {
    pub fn new() -> Arc<Esme> {
        Arc::new(Esme { outcomes: queue(), delivered: queue(), states: queue() })
    }

    pub fn start(config: LinkConfig) -> (Arc<Esme>, Link) {
        let esme = Esme::new();
        let link = Link::start(config, esme.clone());
        (esme, link)
    }

    pub async fn up(&self) {
        while next(&self.states.1, "state").await != LinkState::Up {}
    }

    pub async fn down(&self) {
        while next(&self.states.1, "state").await == LinkState::Up {}
    }

    pub async fn state(&self) -> LinkState {
        next(&self.states.1, "state").await
    }

    pub async fn outcome(&self) -> (u64, Verdict) {
        next(&self.outcomes.1, "outcome").await
    }

    pub async fn request(&self) -> Request {
        next(&self.delivered.1, "delivery").await
    }

    /// The text of the next delivery.
    pub async fn delivered(&self) -> Option<Vec<u8>> {
        match self.request().await {
            Request::DeliverSm(message) => Some(message.text().to_vec()),
            Request::DataSm(data) => Some(data.text().to_vec()),
            _ => None,
        }
    }
}

impl LinkPort for Esme {
    fn outcomes(&self, _: &Arc<str>, outcomes: &mut Vec<Outcome>) {
        outcomes.drain(..).for_each(|o| self.outcomes.0.send((o.ticket, o.verdict)).unwrap());
    }

    fn delivered(&self, _: &Arc<str>, request: Request, reply: Reply) {
        self.delivered.0.send(request).unwrap();
        reply.ok();
    }

    fn state(&self, _: &Arc<str>, state: LinkState) {
        self.states.0.send(state).unwrap();
    }
}
